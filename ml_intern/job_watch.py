"""JobWatch: looks at the jobs of a session while they run, tells what it finds when it can be known, and their ends.

What must never happen here: a job's end or a finding is told twice; a job is stopped for a finding that no rule names; a
service that does not answer takes the watch down, or is asked without a pause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .curves import picture, sketch
from .watching import Clock, Finding, Point, findings

logger = logging.getLogger(__name__)
LATE_SECONDS = 10.0
"""So much later than it is said to be may somebody look again who waits."""
FAILED_LOOKS = 20
"""After so many looks in a row that failed nobody looks at a job by itself any more."""


@dataclass(frozen=True)
class Look:
    """How a job stands: `state`, the points of its metrics so far, when it is ended, how many steps it has."""

    state: str
    points: Sequence[Point] = ()
    ends: float | None = None
    total_steps: int | None = None
    text: str = ""
    """What is to be said of its end."""

    @property
    def over(self) -> bool:
        return self.state not in ("scheduled", "running")


@dataclass(frozen=True)
class News:
    """Something to tell of a job: what a [`Finding`] says, or that it has `ended`."""

    job_id: str
    name: str
    kind: str
    text: str
    state: str
    step: int | None = None
    serious: bool = False
    stopped: bool = False
    known: bool = False
    """Whether whoever asked for a look, or waits for the job, gets to know it anyway."""


@dataclass
class Followed:
    """A job that is looked at: by itself from time to time, and whenever somebody asks."""

    job_id: str
    name: str
    look: Callable[[], Look]
    stop: Callable[[], Any]
    pause: float
    told: set[str] = field(default_factory=set)
    due: float = 0.0
    failed: int = 0
    over: bool = False


class JobWatch:
    """Looks at jobs, on a thread that there is only while some run.

    Args:
        pause (`Callable[[float], Any]`): Waits so many seconds, less where whoever waits is interrupted: then it is true.
        give_way (`Callable[[float, Callable], None]`): Does not come back where the call that waits can be made again after so
            many seconds, and needs no thread until then; calls what it is given once it is not made again.

    Attributes:
        tell (`Callable[[News], None]`): Told of news, on that thread.
        may_stop (`Callable[[News], bool]`): Whether a rule lets a job be stopped for what was found.
        correct (`Callable[[float], None]`): Told how many dollars more (or less: negative) a job took than was counted.
        session (`str`): Whose jobs these are, a label that services take.
        told (`Mapping[str, set[str]]`): What was told of jobs before, by somebody whose place this takes.
    """

    def __init__(
        self,
        pause: Callable[[float], Any] = time.sleep,
        give_way: Callable[[float, Callable[[], Any]], None] = lambda seconds, over: None,
    ) -> None:
        self.pause, self._give_way = pause, give_way
        self.tell: Callable[[News], None] = lambda news: None
        self.may_stop: Callable[[News], bool] = lambda news: False
        self.correct: Callable[[float], None] = lambda usd: None
        self.session = ""
        self.told: Mapping[str, set[str]] = {}
        self._jobs: dict[str, Followed] = {}
        self._settled: set[str] = set()
        self._attended: Counter[str] = Counter()
        self._come_back: dict[str, float] = {}
        """Until when, on the monotonic clock, who waits for a job without a thread looks at it again."""
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    # For the tool

    def found(self, points: Sequence[Point], ends: float | None, total_steps: int | None) -> list[dict[str, Any]]:
        """What the numbers of a run say now: `kind`, `text`, `step` and `serious` of each finding."""
        clock = Clock(time.time(), ends, total_steps)
        return [vars(finding) for finding in findings(points, clock)]

    def sketch(self, points: Sequence[Point]) -> str:
        """Its curves as text."""
        return sketch(points)

    def picture(self, points: Sequence[Point], title: str) -> bytes | None:
        """Its curves as a PNG, `None` where nothing can draw one."""
        return picture(points, title)

    def look(
        self, state: str, points: Sequence[Point], ends: float | None, total_steps: int | None, text: str = ""
    ) -> Look:
        """What a look at a job brought, for [`follow`]."""
        return Look(state, points, ends, total_steps, text)

    def follow(
        self,
        job_id: str,
        name: str,
        look: Callable[[], Look],
        stop: Callable[[], Any],
        pause: float,
        told: bool = False,
    ) -> None:
        """Looks at a job from now on, each `pause` seconds, until it has ended; one that is followed already stays so.

        Args:
            told (`bool`, defaults to `False`): That it has ended is known, where it has.
        """
        with self._lock:
            if job_id in self._jobs:
                return
            known = self.told.get(job_id, set())
            self._jobs[job_id] = Followed(job_id, name, look, stop, pause, set(known), over=told or "ended" in known)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="ml-intern-jobs", daemon=True)
                self._thread.start()
            self._wake.set()

    def first(self, job_id: str) -> bool:
        """Whether this is asked of a job for the first time: what comes at its end is done once."""
        with self._lock:
            new = job_id not in self._settled
            self._settled.add(job_id)
            return new

    def seen(self, job_id: str, look: Look) -> None:
        """Somebody has looked at a job: what is new in it is told now."""
        job = self._jobs.get(job_id)
        if job is not None:
            self._take(job, look, True)

    def attend(self, job_id: str, by: int) -> None:
        """So many more (or less) wait for a job."""
        with self._lock:
            self._attended[job_id] += by

    def give_way(self, job_id: str, seconds: float) -> None:
        """Who waits for a job can do without a thread for so long; where that is possible this does not come back."""
        self._come_back[job_id] = time.monotonic() + seconds + LATE_SECONDS
        self._give_way(seconds, lambda: self._come_back.pop(job_id, None))
        self._come_back.pop(job_id, None)

    # For the session

    def running(self) -> list[str]:
        """Jobs that are followed and have not ended, as far as is known."""
        return [job.job_id for job in list(self._jobs.values()) if not job.over]

    def close(self) -> None:
        """Nobody looks at them any more. They themselves go on."""
        with self._lock:
            self._jobs.clear()
        self._wake.set()

    def _watch(self) -> None:
        while True:
            with self._lock:
                open_jobs = [job for job in self._jobs.values() if not job.over]
                if not open_jobs:
                    self._thread = None
                    return
            now = time.monotonic()
            for job in open_jobs:
                if now >= job.due:
                    self._look(job)
                    job.due = time.monotonic() + job.pause * min(8, 1 + job.failed)
            self._wake.wait(max(0.05, min(job.due for job in open_jobs) - time.monotonic()))
            self._wake.clear()

    def _look(self, job: Followed) -> None:
        try:
            look = job.look()
        except Exception as error:  # noqa: BLE001 - a tool's own code, or a service that is away: the next look may succeed
            job.failed += 1
            if job.failed == FAILED_LOOKS:
                job.over = True
                self._say(
                    News(job.job_id, job.name, "unwatched", f"It can no longer be looked at: {error}", "running")
                )
            return
        job.failed = 0
        self._take(job, look, False)

    def _take(self, job: Followed, look: Look, known: bool) -> None:
        """What is new is marked as told first, and told then without a lock: listeners are foreign code."""
        found = [] if look.over else findings(look.points, Clock(time.time(), look.ends, look.total_steps))
        with self._lock:
            if job.over or self._jobs.get(job.job_id) is not job:
                return
            new = [finding for finding in found if finding.kind not in job.told]
            job.told.update(finding.kind for finding in new)
            job.over = look.over
            waits = self._attended[job.job_id] > 0 or self._come_back.get(job.job_id, 0.0) > time.monotonic()
            known = known or waits
        for finding in new:
            self._found(job, finding, look.state, known)
        if look.over:
            said = look.text or f"It has ended: {look.state}."
            self._say(News(job.job_id, job.name, "ended", said, look.state, known=known))

    def _found(self, job: Followed, finding: Finding, state: str, known: bool) -> None:
        news = News(
            job.job_id, job.name, finding.kind, finding.text, state, finding.step, finding.serious, known=known
        )
        if not self.may_stop(news):
            self._say(news)
            return
        try:
            job.stop()
        except Exception as error:  # noqa: BLE001 - a tool's own code: that it could not be stopped is news as well
            text = f"{finding.text} A rule would have it stopped, and that failed."
            self._say(News(job.job_id, job.name, finding.kind, text, state, finding.step, True))
            self._say(News(job.job_id, job.name, "unstopped", f"It was not stopped: {error}", state))
            return
        text = f"{finding.text} It was stopped, as a rule says."
        self._say(News(job.job_id, job.name, finding.kind, text, "stopped", finding.step, finding.serious, True))

    def _say(self, news: News) -> None:
        try:
            self.tell(news)
        except Exception:  # whoever listens, the other jobs are watched all the same
            logger.exception("news of %s could not be told", news.job_id)
