"""What a home knows about sharing: whether it is wanted, the user's word on who may read, and what has yet to be uploaded.

What must never happen here: a session that is to be uploaded is forgotten, whatever process ends when; consent that nobody
gave, or that was given for another data set.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Choice:
    """What the user has said. `on` is `None` while nothing was; `public` names the data set that others may read."""

    on: bool | None = None
    public: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Failure:
    """Why the last upload of a session failed, when, and for how many times in a row."""

    why: str
    at: float
    times: int = 1


@dataclass(frozen=True)
class Pending:
    """A session that has yet to be uploaded, since when (seconds since the epoch), and what went wrong so far."""

    id: str
    trace: Path
    since: float
    failure: Failure | None = None


class SharingHome:
    """The files of a home that are about sharing.

    A session that is to be uploaded has a marker, `sharing/<id>.wanted`. It is renamed when its upload begins and goes away
    when that is done: what changes meanwhile makes a new one, and a process that dies leaves one of the two.

    Args:
        home (`Path`): The home of sessions.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "sharing"
        self._choice = home / "sharing.json"

    def choice(self) -> Choice:
        """What was chosen; nothing where the file is missing or spoilt."""
        try:
            said = json.loads(self._choice.read_text(encoding="utf-8"))
            on, public = said.get("on"), said.get("public")
        except (OSError, ValueError, AttributeError):
            return Choice()
        return Choice(on if isinstance(on, bool) else None, public if isinstance(public, str) else "")

    def choose(self, choice: Choice) -> None:
        """Keeps what was chosen.

        Raises:
            OSError: it cannot be written.
        """
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(self._choice, json.dumps({**asdict(choice), "since": time.time()}))

    def announce(self) -> bool:
        """Whether this is the first upload ever of this home; `True` once, in one of all its processes."""
        try:
            os.close(os.open(self.home / "sharing-announced", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError:
            return False
        return True

    def want(self, trace: Path) -> None:
        """Marks a session as to be uploaded.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(self.folder / f"{trace.stem}.wanted", str(trace.absolute()))

    def pending(self) -> list[Pending]:
        """The sessions that have yet to be uploaded, the longest waiting first."""
        found: dict[str, Pending] = {}
        for marker in self._markers():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                since, trace = marker.stat().st_mtime, Path(marker.read_text(encoding="utf-8"))
                earlier = found.get(marker.stem)
                if earlier is None or since < earlier.since:
                    found[marker.stem] = Pending(marker.stem, trace, since, self.failure(marker.stem))
        return sorted(found.values(), key=lambda one: one.since)

    def begin(self, session_id: str) -> None:
        """The upload of a session begins: what is wanted from now on is wanted anew. Only under [`lock`]."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / f"{session_id}.wanted").replace(self.folder / f"{session_id}.taken")

    def done(self, session_id: str, url: str, digest: str) -> None:
        """It is uploaded. Only under [`lock`]."""
        self._note(session_id, url=url, digest=digest)
        (self.folder / f"{session_id}.taken").unlink(missing_ok=True)

    def uploaded_at(self, session_id: str, url: str) -> None:
        """It was uploaded beside all this: where it lies."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._note(session_id, url=url, digest="")

    def drop(self, session_id: str) -> None:
        """There is nothing to upload of it, now or ever. Only under [`lock`]."""
        (self.folder / f"{session_id}.taken").unlink(missing_ok=True)

    def failed(self, session_id: str, why: str) -> None:
        """It could not be uploaded: it stays to be. Only under [`lock`]."""
        before = self.failure(session_id)
        failure = Failure(why, time.time(), (before.times if before else 0) + 1)
        self._note(session_id, url=self.url(session_id), digest="", failure=asdict(failure))

    def failure(self, session_id: str) -> Failure | None:
        said = self._read(session_id).get("failure")
        if not isinstance(said, dict) or not isinstance(said.get("why"), str):
            return None
        at, times = said.get("at"), said.get("times")
        return Failure(said["why"], at if isinstance(at, int | float) else 0.0, times if isinstance(times, int) else 1)

    def url(self, session_id: str) -> str:
        """Where a session lies on the Hub, `""` while it does not."""
        return str(self._read(session_id).get("url") or "")

    def digest(self, session_id: str) -> str:
        """Of what was uploaded last, `""` where nothing was or the last upload failed."""
        return str(self._read(session_id).get("digest") or "")

    def uploaded(self) -> int:
        """How many sessions are on the Hub."""
        return sum(bool(self.url(path.stem)) for path in self.folder.glob("*.json"))

    @contextlib.contextmanager
    def lock(self) -> Generator[bool]:
        """Whether this is the one that uploads now, of all processes with this home; the others need not wait."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(file)

    def _markers(self) -> list[Path]:
        return [*self.folder.glob("*.taken"), *self.folder.glob("*.wanted")]

    def _read(self, session_id: str) -> dict[str, object]:
        try:
            said = json.loads((self.folder / f"{session_id}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def _note(self, session_id: str, **fields: object) -> None:
        _replace(self.folder / f"{session_id}.json", json.dumps(fields))


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o600)
    draft.replace(path)
