"""What a trace holds of a session, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smolagents.memory import MemoryStep

from ..events import ApprovalAnswer, ApprovalRequest, FileDigest, Usage
from ..steps import AgentRun, SteerStep, TrackedActionStep
from .desk import Desk
from .read import Ended
from .rebuild import Turn


@dataclass(frozen=True)
class RestoredCall:
    """A call of a tool as far as it is on record.

    Args:
        call_id (`str`), tool (`str`), arguments (`dict`), effects (`str`), files (`tuple[FileDigest, ...]`): As it was
            about to be made.
        step (`int`): The step whose code made it.
        state (`str`): `done` (it came back, with a result or an error), `denied` (refused; it did not run), `asked` (a
            person was asked and has not answered: it did not run), `answered` (there is an answer, and no result: approved,
            it may have run) or `unknown` (no result; it may have run).
        result (`str`), failed (`bool`): What came back, as text.
        binding (`str`): What an approval of it binds to.
        request (`ApprovalRequest`, *optional*): The last question about it.
        answer (`ApprovalAnswer`, *optional*): The answer to it.
        happened (`bool`, *optional*): What was found out last about a call without a result.
        agent (`str`): Id of the sub-agent whose code made it; `""`: the session's own.
    """

    call_id: str
    tool: str
    arguments: dict[str, Any]
    effects: str
    step: int
    files: tuple[FileDigest, ...] = ()
    state: str = "unknown"
    result: str = ""
    failed: bool = False
    binding: str = ""
    request: ApprovalRequest | None = None
    answer: ApprovalAnswer | None = None
    happened: bool | None = None
    agent: str = ""

    @property
    def may_have_run(self) -> bool:
        """Whether it may have taken effect, and nothing came back.

        Also where it was found out that it had not: it may have been made again since.
        """
        approved = self.answer is not None and self.answer.decision in ("approve", "edit")
        return self.effects != "read" and (self.state == "unknown" or (self.state == "answered" and approved))


@dataclass(frozen=True)
class RestoredRun:
    """A task of a sub-agent.

    Args:
        run (`AgentRun`): As it was given.
        above (`str`): Id of the task whose code gave it; `""`: of the session's own agent.
        over (`bool`): Its end is on record; `report` is what the agent above was to read.
        steps (`int`), seen (`str`): Of one that was cut off: how many steps came to their end, and what the last one showed.
        usage (`Usage`), spent_usd (`float`), unpriced_calls (`int`): What it took, those below it included.
        seconds (`float`): From its first row to its last.
        calls (`tuple[RestoredCall, ...]`): Those that its own code made, in order.
        begun (`TrackedActionStep`, *optional*), action (`str`, *optional*): The step whose code was running, and what its
            result belongs to.
        told (`bool`): Its own record begins with the task.
    """

    run: AgentRun
    above: str = ""
    over: bool = False
    report: str = ""
    steps: int = 0
    seen: str = ""
    usage: Usage = field(default_factory=Usage)
    spent_usd: float = 0.0
    unpriced_calls: int = 0
    seconds: float = 0.0
    calls: tuple[RestoredCall, ...] = ()
    begun: TrackedActionStep | None = None
    action: str | None = None
    told: bool = True


@dataclass(frozen=True)
class OpenAction:
    """A step whose code was running, or about to, when the record ends.

    Args:
        step (`TrackedActionStep`): As it was before its code ran. Not among the memory's steps; whoever ends it sets what
            was observed, tells [`TraceRecorder.finished`] of it after [`TraceRecorder.goes_on`], and appends it.
        tool_use_id (`str`, *optional*): What its result belongs to.
        calls (`tuple[RestoredCall, ...]`): Those that its own code made, in order.
    """

    step: TrackedActionStep
    tool_use_id: str | None
    calls: tuple[RestoredCall, ...] = ()

    @property
    def number(self) -> int:
        return self.step.step_number

    @property
    def code(self) -> str:
        return self.step.code_action or ""


@dataclass(frozen=True)
class Seen:
    """What a tool brought in: for telling later whether arguments repeat what somebody else wrote."""

    tool: str
    arguments: dict[str, Any]
    text: str


@dataclass(frozen=True)
class Lineage:
    """Where a fork came from: the session (or file), the last row that was taken, and whether it was one of this home."""

    source: str
    at: str
    own: bool


@dataclass(frozen=True)
class Restored:
    """A session as its trace has it.

    Attributes:
        steps (`list[MemoryStep]`): For the agent's memory.
        next_step (`int`): Number of the next step of the last turn.
        planned (`bool`): The last thing that happened is a plan, and its step has not begun.
        action (`OpenAction`, *optional*): The step that was running.
        open (`bool`): The last turn has no end on record.
        ended (`Ended`, *optional*): How it ended otherwise.
        turns (`tuple[Turn, ...]`): All turns that stand.
        title, model, jail (`str`), mode (`str`): As last written down; `""` where nothing was.
        chosen (`str`): The model that a person chose for the session, as in `LLM_ENDPOINT`; `""` where nobody did.
        rules (`tuple[tuple[str, str], ...]`): Rules that a person gave in this session, each with its scope.
        usage (`Usage`), spent_usd (`float`), unpriced_calls (`int`): Of all turns, undone ones included.
        seconds (`float`): Of all turns that ended.
        open_seconds (`float`): What the steps of a turn took that has no end.
        budget_usd, max_hours (`float`, *optional*), max_steps (`int`, *optional*): As last extended.
        desk (`Desk`): Plan and notes.
        records (`tuple[tuple[str, dict], ...]`): Training runs and evaluations, oldest first, of undone turns as well.
        seen (`tuple[Seen, ...]`): What tools brought in.
        runs (`tuple[RestoredRun, ...]`): Tasks of sub-agents, oldest first.
        unread (`tuple[SteerStep, ...]`): What was said to the agent and did not reach it.
        effects (`tuple[RestoredCall, ...]`): All calls that are not mere reading, also of undone turns.
        variables (`tuple[str, ...]`): Names of what was handed over with tasks. The values are not on record.
        parked (`tuple[str, ...]`): Calls for whose answers the session gave up its thread.
        told (`dict[str, set[str]]`): What was told of training jobs, by job: `nan`, `ended` and others.
        lineage (`Lineage`, *optional*), fresh (`bool`): Of a fork; whether nothing happened in it yet.
        refused (`dict[str, str]`): Tools whose last call in the last turn a person refused, with the reason.
        half (`str`): What the record breaks off in the middle of: `answer` (the last words are there and no end),
            `compaction` (the boundary is there and no summary) or `""`.
        last (`str`, *optional*): `uuid` of the last row.
        rows (`int`): How many were read.
        problems (`tuple[str, ...]`): What could not be read, in sentences.
    """

    path: Path
    session_id: str
    steps: list[MemoryStep]
    next_step: int = 1
    planned: bool = False
    action: OpenAction | None = None
    open: bool = False
    ended: Ended | None = None
    turns: tuple[Turn, ...] = ()
    title: str = ""
    model: str = ""
    jail: str = ""
    mode: str = ""
    chosen: str = ""
    rules: tuple[tuple[str, str], ...] = ()
    usage: Usage = field(default_factory=Usage)
    spent_usd: float = 0.0
    unpriced_calls: int = 0
    seconds: float = 0.0
    open_seconds: float = 0.0
    budget_usd: float | None = None
    max_hours: float | None = None
    max_steps: int | None = None
    desk: Desk = field(default_factory=Desk)
    records: tuple[tuple[str, dict[str, Any]], ...] = ()
    seen: tuple[Seen, ...] = ()
    runs: tuple[RestoredRun, ...] = ()
    unread: tuple[SteerStep, ...] = ()
    effects: tuple[RestoredCall, ...] = ()
    variables: tuple[str, ...] = ()
    parked: tuple[str, ...] = ()
    told: dict[str, set[str]] = field(default_factory=dict)
    lineage: Lineage | None = None
    fresh: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    half: str = ""
    last: str | None = None
    rows: int = 0
    problems: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """Of the last turn."""
        return self.turns[-1].task if self.turns else ""

    @property
    def pending(self) -> tuple[ApprovalRequest, ...]:
        """Questions that wait for an answer."""
        calls = self.action.calls if self.action is not None else ()
        calls += tuple(call for run in self.runs if not run.over for call in run.calls)
        return tuple(call.request for call in calls if call.state == "asked" and call.request is not None)

    @property
    def unknown(self) -> tuple[RestoredCall, ...]:
        """Calls of which nobody knows whether they took effect, in all turns."""
        return tuple(call for call in self.effects if call.may_have_run and call.happened is None)
