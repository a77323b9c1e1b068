"""SessionJobs: the training jobs of a session, as the session and the person see them; the agent has its tool for that.

What must never happen here: a job is ended by anybody's word but the agent's call, a person's, or a rule that a person gave;
what was found of one is lost because nobody looked at the terminal.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from . import events as told
from .agent import InternAgent
from .approval import Call
from .errors import InternError
from .events import EventLog
from .job_watch import News
from .records import EXPERIMENT, Records
from .secrets import Masker
from .steps import GUARD, SteerStep
from .subagents import original
from .trace import Journal

TOOL = "training_job"


class SessionJobs:
    """The jobs of one session: what is told of them, and what can be done with them beside the agent.

    Args:
        agent (`InternAgent`): Whose they are.
        session_id (`str`): The label that services take.
        records (`Records`), journal (`Journal`), events (`EventLog`), masker (`Masker`): The session's.
        hear (`Callable[[SteerStep], None]`): Says something to the agent with its next step.
    """

    def __init__(
        self, agent: InternAgent, session_id: str, records: Records, journal: Journal, events: EventLog, masker: Masker,
        hear: Callable[[SteerStep], None],
    ) -> None:  # fmt: skip
        self.agent, self.id, self.records = agent, session_id, records
        self.journal, self.events, self.masker, self.hear = journal, events, masker, hear
        watch = agent.watch
        watch.session, watch.tell, watch.may_stop = session_id, self._tell, self._may_stop
        watch.correct = lambda usd: agent.ledger.correct(usd)

    def running(self) -> list[str]:
        """Those that run, here and, as far as is known, elsewhere."""
        local = self.agent.jobs.running() if self.agent.jobs is not None else []
        return list(dict.fromkeys([*local, *(name for name in self._open() if "/" in name)]))

    def stop(self) -> list[str]:
        """Ends them: a person's word, and no call of the agent's. Returns those that could not be ended, with the reason."""
        problems, tool = [], self._tool() if TOOL in self.agent.tools else None
        for job_id in self.running():
            try:
                if tool is not None:
                    tool.forward(operation="stop", job_id=job_id)
                elif self.agent.jobs is not None:
                    self.agent.jobs.stop(job_id)
            except Exception as error:  # noqa: BLE001 - a tool's own code, or a service that is away: the others end all the same
                problems.append(f"{job_id}: {error}")
        return problems

    def curves(self, job_id: str) -> str:
        """A job's curves as text. Raises what its service says."""
        return str(self._tool().forward(operation="metrics", job_id=job_id)["curves"])

    def look_after(self) -> None:
        """Those that ran when the session was let go: what has ended goes on record, the others are watched again."""
        left = self._open()
        if not left or TOOL not in self.agent.tools:
            return
        tool = self._tool()

        def look() -> None:
            for job_id in left:
                with contextlib.suppress(Exception):  # its service is away: whoever asks for it will hear of that
                    tool.forward(operation="status", job_id=job_id)

        threading.Thread(target=look, name=f"jobs-{self.id[:8]}", daemon=True).start()

    def _open(self) -> list[str]:
        """Jobs whose end is not on record."""
        runs = [run for run in self.records.all(EXPERIMENT) if run.get("state") in ("scheduled", "running")]
        return [str(run["job_id"]) for run in runs if run.get("job_id")]

    def _tool(self) -> Any:
        routed = self.agent.tools.get(TOOL)
        if routed is None:
            raise InternError("There are no training jobs here", f"`{TOOL}` is not among the tools")
        return self.agent.router.lend(original(routed))

    def _tell(self, news: News) -> None:
        """On record and told; from the watch's own thread, also when the journal is closed meanwhile.

        The agent is told with its next step of what matters and it does not know yet: in words of this program alone, as
        what a log says was written by anybody.
        """
        fields = self.masker.data(asdict(news))
        fields["what"] = fields.pop("kind")
        known = fields.pop("known")
        with contextlib.suppress(InternError):
            self.journal.note("job", **fields)
            if not known and (news.serious or news.kind == "ended"):
                ended = f"it has ended ({news.state}). `wait` says how, and why."
                self.hear(SteerStep(f"Job {news.job_id}: {news.text if news.serious else ended}", "jobs", GUARD))
        self.events.emit(told.JobReported(**fields))

    def _may_stop(self, news: News) -> bool:
        """Whether a rule that a person gave lets a job be stopped for this: `training_job(operation=stop, reason=nan)`.

        One that names no reason was given for calls of the agent's.
        """
        call = Call(TOOL, {"operation": "stop", "job_id": news.job_id, "reason": news.kind}, "write")
        policy = self.agent.gate.policy
        return policy.decide(call).action == "allow" and any(
            rule.action == "allow" and "reason" in dict(rule.arguments) and rule.matches(call, policy.own)
            for rule in policy.rules
        )
