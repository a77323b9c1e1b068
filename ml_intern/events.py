"""What happens in a session, told to everyone who listens: terminal, Slack, JSON lines, your Python.

Events are told after the fact and carry text that has been masked. They are a view: the journal is the record.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a turn ended. Every turn ends in exactly one of them."""

    SUCCESS = "success"
    MAX_STEPS = "max_steps"
    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    DENIED = "denied"
    STUCK = "stuck"
    ERROR = "error"


@dataclass(frozen=True)
class Usage:
    """Tokens and money of a session so far. `cost_usd` is `None` while a price is unknown: unknown is not zero."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = 0.0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        known = self.cost_usd is not None and other.cost_usd is not None
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            (self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True)
class Outcome:
    """The end of a turn: its state, the answer (what `final_answer` was given), and why where it is no success."""

    state: State
    answer: Any = None
    reason: str = ""
    steps: int = 0
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class FileDigest:
    """A file that a call will send away: path in the workspace, size in bytes, SHA-256 of what was copied out."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Destination:
    """Where a call sends something: a name (`"me/model"`, `"hf_jobs"`) and who can see it there (`private`, `public`, `""`)."""

    name: str
    visibility: str = ""


@dataclass(frozen=True)
class ApprovalRequest:
    """A call that waits for a person; of the tool `ask_user`: a question of the agent's.

    `arguments` are what the tool will get, masked; `preview` is what a person should read before answering (a card, a
    diff), `files` what leaves the machine, `cost_usd` the estimate (`None`: unknown or free of charge), `left_usd` what is
    left of the budget (`None`: no budget), `sources` the untrusted texts that the arguments repeat, `rule` the rule that
    would allow this kind of call (`""`: none can), `agent` the sub-agent that asks (`""`: the session's own agent).
    """

    call_id: str
    tool: str
    arguments: dict[str, Any]
    effects: str
    reason: str
    preview: str = ""
    files: tuple[FileDigest, ...] = ()
    cost_usd: float | None = None
    left_usd: float | None = None
    destination: Destination | None = None
    sources: tuple[str, ...] = ()
    rule: str = ""
    agent: str = ""


DECISIONS = ("approve", "edit", "reject", "stop")
SCOPES = ("once", "session", "always")


@dataclass(frozen=True)
class ApprovalAnswer:
    """A person's (or a rule's) word on one call.

    `decision` is `approve`, `edit` (`arguments` replace those of the same name, and the call is looked at again),
    `reject` (the model gets the reason) or `stop` (the turn ends). `by` says who answered and from where. An approval of
    `scope` `session` or `always` also allows calls of this kind from now on. `text` is the answer to a question of the
    agent's (`ask_user`).
    """

    decision: str
    reason: str = ""
    by: str = ""
    arguments: dict[str, Any] | None = None
    scope: str = "once"
    text: str = ""

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise ValueError(f"`decision` is one of {', '.join(DECISIONS)}, not {self.decision!r}.")
        if self.scope not in SCOPES:
            raise ValueError(f"`scope` is one of {', '.join(SCOPES)}, not {self.scope!r}.")
        if (self.decision == "edit") != (self.arguments is not None):
            raise ValueError("`arguments` belong to the decision edit, and to no other.")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Common to all events: whose it is, its place in that session's order (from 1), seconds since the epoch."""

    session_id: str = ""
    seq: int = 0
    at: float = 0.0

    @property
    def kind(self) -> str:
        """`ToolCalled` is `tool_called`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def to_json(self) -> str:
        """One JSON line, ASCII only."""
        return json.dumps({"event": self.kind, **asdict(self)}, default=str)


@dataclass(frozen=True, kw_only=True)
class SessionStarted(Event):
    task: str
    model: str
    workspace: str
    trace: str
    jail: str = ""


@dataclass(frozen=True, kw_only=True)
class Waiting(Event):
    """Something slow holds things up (`"loading litellm"`, `"starting the jail"`, `"the model"`); `""` when it is over."""

    on: str


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    step: int


@dataclass(frozen=True, kw_only=True)
class ModelDelta(Event):
    """A piece of the model's answer as it streams."""

    step: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ModelAnswered(Event):
    """The model's answer to a step: its words, the code it wants run (`None` when there is none), what it cost.

    `reasoning` is what it thought before, as far as its provider tells.
    """

    step: int
    thought: str
    code: str | None
    input_tokens: int
    output_tokens: int
    usage: Usage
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True)
class PlanChanged(Event):
    """`items` are `{"text": ..., "status": "pending" | "in_progress" | "done"}` in order."""

    items: tuple[dict[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ToolCalled(Event):
    step: int
    call_id: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ToolReturned(Event):
    """`summary` is the first kilobyte of the result or the error, as text."""

    step: int
    call_id: str
    tool: str
    ok: bool
    summary: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CodePrinted(Event):
    """Output of running code, as it comes (rate-limited; the whole is in the observation)."""

    step: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ApprovalAsked(Event):
    request: ApprovalRequest


@dataclass(frozen=True, kw_only=True)
class ApprovalAnswered(Event):
    call_id: str
    answer: ApprovalAnswer


@dataclass(frozen=True, kw_only=True)
class StepFinished(Event):
    step: int
    observation: str
    error: str
    seconds: float
    images: int = 0


@dataclass(frozen=True, kw_only=True)
class Compacted(Event):
    """Less of the conversation is shown to the model from here on; nothing of it is lost.

    `how` is `mask` (old observations became a line), `summary` (written by the model), `mechanical` (without one) or
    `hard`; `why` is `fill`, `overflow` (the provider refused the prompt) or `asked`. `before` and `after` are tokens of the
    prompt, `first` to `last` the steps that are not shown any more (places in the conversation, from 1; of a `mask`: whose
    observations are not), `cost_usd` what the summary cost (`None`: unknown).
    """

    how: str
    why: str
    before: int
    after: int
    first: int
    last: int
    summary: str = ""
    cost_usd: float | None = None
    seconds: float = 0.0
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True)
class Steered(Event):
    """Text that somebody sent to a running turn has reached the agent: the model reads it with the next step."""

    text: str
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class Extended(Event):
    """A turn may take `steps` steps in all from here on; `why` says who or what gave them."""

    steps: int
    why: str


@dataclass(frozen=True, kw_only=True)
class ModeChanged(Event):
    """How calls are decided from here on: `ask`, `plan`, `auto` or `deny`."""

    mode: str


@dataclass(frozen=True, kw_only=True)
class Undone(Event):
    """The last turn no longer stands in the conversation; files and what was published stay as they are."""

    task: str


@dataclass(frozen=True, kw_only=True)
class Parked(Event):
    """The session waits for a person and has given up its thread and its jail; the answer wakes it."""

    calls: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """The session goes on from its trace at `step`; `lost` names what could not be brought back."""

    step: int
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AgentStarted(Event):
    """A sub-agent has been given a task; `agent` is its name below the session's own (`researcher/reader`)."""

    agent: str
    task: str


@dataclass(frozen=True, kw_only=True)
class AgentEnded(Event):
    """A sub-agent has ended: its state, what it reported (shortened), what it cost."""

    agent: str
    state: str
    report: str
    steps: int
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class DecisionRecorded(Event):
    """A choice that the agent made, why, and from which sources."""

    step: int
    subject: str
    choice: str
    reason: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobReported(Event):
    """Something is to be said of a job while it runs, or of its end.

    `what` is `ended`, or what its numbers say: `nan`, `divergence`, `too_slow`, `stalled`, `idle_gpu`, `overfitting`, `plateau`
    (`unwatched`: nobody can look at it any more; `unstopped`: why it could not be stopped). `state` is the job's: `running`,
    `done`, `failed`, `stopped`, `timeout`, `lost`; `step` the run's. `serious`: going on as it is leads nowhere; `stopped`: a
    rule had it stopped for that.
    """

    job_id: str
    name: str
    what: str
    text: str
    state: str
    step: int | None = None
    serious: bool = False
    stopped: bool = False


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    text: str


@dataclass(frozen=True, kw_only=True)
class SessionEnded(Event):
    outcome: Outcome
    trace: str


class EventLog:
    """Orders the events of one session and hands them to listeners, each exactly once and in order.

    Listeners are called on the thread that emits, under a lock that keeps the order: they must be quick. One that
    raises is dropped and the reason kept in `dropped`, so that a broken terminal never stops a session.

    Args:
        session_id (`str`): Written into every event.
    """

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.history: list[Event] = []
        self.dropped: list[str] = []
        self._listeners: list[Callable[[Event], None]] = []
        self._lock = threading.RLock()

    def emit(self, event: Event) -> None:
        with self._lock:
            event = replace(event, session_id=self.session_id, seq=len(self.history) + 1, at=time.time())
            self.history.append(event)
            for listener in list(self._listeners):
                self._tell(listener, event)

    def listen(self, listener: Callable[[Event], None], since: int = 0) -> None:
        """Adds a listener; it first gets what came after sequence number `since`."""
        with self._lock:
            for event in self.history[since:]:
                self._tell(listener, event)
            self._listeners.append(listener)

    def forget(self, listener: Callable[[Event], None]) -> None:
        """Takes a listener away; one that is not there is no error."""
        with self._lock, contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def _tell(self, listener: Callable[[Event], None], event: Event) -> None:
        try:
            listener(event)
        except Exception as error:  # noqa: BLE001 - a listener is foreign code; the session must outlive it
            self.dropped.append(f"{listener!r}: {error!r}")
            if listener in self._listeners:
                self._listeners.remove(listener)
