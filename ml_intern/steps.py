"""Memory steps beside smolagents' own: what happens inside a code action.

They are told to callbacks registered in the agent's `step_callbacks`, as any `MemoryStep` is, and take no place in the
prompt: what the model sees of a call is what its code printed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from smolagents.memory import ActionStep, MemoryStep, PlanningStep, TaskStep
from smolagents.models import ChatMessage, MessageRole

from .errors import Denied
from .events import ApprovalAnswer, ApprovalRequest, Destination, FileDigest, Outcome, Usage
from .thinking import Thinking

QUESTION, GRANT = "ask_user", "propose_grant"
"""The tools with which the agent asks a person something, and proposes what it may do: they are told the answer."""


def _not_again(step: ToolCallStep, edits: dict[str, Any]) -> None:
    raise Denied(f"`{step.tool}` was not called", "its arguments cannot be edited here")


@dataclass
class ToolCallStep(MemoryStep):
    """A tool is about to be called. A callback that raises stops the call.

    Args:
        call_id (`str`): Unique in the session; an idempotency key for tools with side effects.
        tool (`str`): The tool's name.
        arguments (`dict`): By parameter name, as the tool will get them.
        effects (`str`): `read`, `write`, `spend`, `execute` or `unknown`.
        action (`int`): Number of the step whose code made the call.
        files (`tuple[FileDigest, ...]`): What the call will send away, frozen.
        preview (`str`): What a person should read before saying yes.
        vouched (`bool`): Whether the caller who passed the tool in vouches for it.
        problem (`Exception`, *optional*): Why the call cannot be made; it is raised instead, and nobody is asked.
        agent (`str`): The sub-agent whose code makes the call (`""`: the session's own agent).
        ended (`threading.Event`): Set once the code that made the call has ended: then nobody needs to be asked any more.
        destination (`Destination`, *optional*): Where it sends something; `None` where the tool does not say.
        cost_usd (`float`, *optional*): What it is estimated to cost; `None` where nobody knows.
        sources (`tuple[str, ...]`): The untrusted texts that its arguments, or texts among its files, repeat.
        edited (`dict`, *optional*): What a person put in place of arguments of the same names; they are in `arguments`.
        answer (`ApprovalAnswer`, *optional*): The last answer of a person; told to a tool that asks questions.
        approved (`str`): What an answer bound to that was given while the code no longer ran.
        carried (`bool`): The code that made the call no longer runs; the call itself is on record already.
        again (`bool`): It has waited without a thread, is on record already, and goes on: its code still runs.
        since (`float`): When it was made, on the monotonic clock.
        begun (`bool`): It may be made, and was: its tool has given up its thread, and is called again.
        attached (`str`): What the host adds to what is sent: part of the preview, and of what an answer binds to.
        news (`str`): Why a person has to read what the tool is before it is called, whatever a rule allows.
        revise (`Callable`): Makes the call ready again, in place, with edited arguments.
    """

    call_id: str
    tool: str
    arguments: dict[str, Any]
    effects: str
    action: int
    files: tuple[FileDigest, ...] = ()
    preview: str = ""
    vouched: bool = False
    problem: Exception | None = None
    agent: str = ""
    ended: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    started: float = field(default_factory=time.time)
    destination: Destination | None = None
    cost_usd: float | None = None
    sources: tuple[str, ...] = ()
    edited: dict[str, Any] | None = None
    answer: ApprovalAnswer | None = None
    approved: str = ""
    carried: bool = False
    again: bool = False
    begun: bool = False
    since: float = field(default_factory=time.monotonic, compare=False)
    attached: str = ""
    news: str = ""
    revise: Callable[[ToolCallStep, dict[str, Any]], None] = field(default=_not_again, repr=False, compare=False)

    @property
    def question(self) -> bool:
        """Whether the agent asks a person something, rather than doing anything."""
        return self.tool in (QUESTION, GRANT) and self.effects == "read"

    def to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return []


@dataclass
class ToolResultStep(MemoryStep):
    """A tool has been called: its result, or the error that it raised (`denied` if it never ran).

    `cost_usd` is what it is taken to have cost: as it says itself, else as was estimated; `None` where it spends nothing, or
    nobody knows.
    """

    call_id: str
    tool: str
    action: int
    result: Any = None
    error: BaseException | None = None
    denied: bool = False
    seconds: float = 0.0
    agent: str = ""
    cost_usd: float | None = None

    def to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return []


@dataclass
class ModelStep(MemoryStep):
    """The model has answered and its code is about to run: the moment to put the answer on record.

    Args:
        action (`ActionStep`): The step so far; `model_output` holds the exact words.
        thought (`str`): What the model said before its code.
        code (`str`, *optional*): `None` where no code could be found in the answer.
        input_tokens (`int`): Tokens of the whole prompt, `cached_tokens` of them from the provider's cache.
        cost_usd (`float`, *optional*): `None` where the price is unknown.
        spent (`Usage`): Of the whole session (of a sub-agent: of its task), this call included.
        thinking (`tuple[Thinking, ...]`): What it thought before, as far as its provider tells.
        model (`str`): The model that wrote it, where it says so: of a chain of models any may.
        reasoning_tokens (`int`): What of `output_tokens` was thinking.
    """

    action: ActionStep
    thought: str
    code: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float | None
    spent: Usage
    thinking: tuple[Thinking, ...] = ()
    model: str = ""
    reasoning_tokens: int = 0

    def to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return []


@dataclass
class CompactionStep(MemoryStep):
    """From here on less of the conversation is shown. What was said and seen stays in memory and on record.

    Args:
        trigger (`str`): `fill` (the prompt grew too long), `overflow` (the provider said so) or `asked`.
        rung (`str`): How: `mask` (old observations become a line), `summary` (written by the model), `mechanical` (it
            could not write one), `hard` (only what fits for certain).
        at (`int`): Its own index among the memory's steps.
        limit (`int`): Tokens that a prompt may take.
        start (`int`): Index of the first step that is still shown.
        masked (`int`): Observations of steps before this index are shown as a line.
        cut (`int`): Characters that texts of the steps kept may take; 0 for no such limit.
        lead (`str`): Stands in place of the steps that are not shown.
        reminder (`str`): Stands where this step stands: plan, notes.
        summary (`str`): What `lead` says of the steps that are not shown.
        handles (`list[str]`): Lines that name large outputs.
        before, after (`int`): Tokens of the prompt, as counted and estimated.
        input_tokens, output_tokens, cached_tokens (`int`), cost_usd (`float`, *optional*): What the summary took.
        said (`str`): The model's words, from which `summary` was made.
        seconds (`float`): All in all, the model's time included.
        spent (`Usage`, *optional*): Of the whole session.
    """

    trigger: str
    rung: str
    at: int
    limit: int
    start: int = 0
    masked: int = 0
    cut: int = 0
    lead: str = ""
    reminder: str = ""
    summary: str = ""
    handles: list[str] = field(default_factory=list)
    before: int = 0
    after: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    said: str = ""
    seconds: float = 0.0
    spent: Usage | None = None
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def only_masks(self) -> bool:
        return self.rung == "mask"

    def to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return []


USER, GUARD = "user", "guard"


@dataclass
class SteerStep(MemoryStep):
    """Text that reaches the agent while it works: it stands at the end of the conversation and moves nothing before it.

    Args:
        text (`str`): What was said.
        by (`str`): Who said it, from where; `""` where that is not known.
        source (`str`): `user` (a person), or `guard` (this program, which saw the agent go round in circles).
        id (`str`): Under which it was put on record as it came; `""` where it was not.
    """

    text: str
    by: str = ""
    source: str = USER
    id: str = ""

    def to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": self.said}])]

    @property
    def said(self) -> str:
        """The text as the model reads it."""
        lead = STEERED if self.source == USER else NOTICED
        return f"{lead}\n{self.text}"


STEERED = "A message from the user, who sees you work (go on with the task, and heed this):"
NOTICED = "A notice from the program that runs you (not from the user):"


class TrackedActionStep(ActionStep):
    """An `ActionStep` that knows when it was changed after it had been rendered.

    Callbacks may edit old steps (smolagents documents dropping old screenshots that way): a changed step is rendered
    anew, an unchanged one never.
    """

    thoughts: tuple[Thinking, ...] = ()
    """What the model thought before its answer, where it can be sent back to it; see [`~ml_intern.thinking`]."""
    author = ""
    """The model that wrote the answer, where it says so."""
    changed = False
    watched: Callable[[], None] | None = None
    shelf: Callable[[], str] | None = None
    """Where the observation lies once it has been put on disk: hundreds of long ones do not stay in memory."""
    __eq__ = object.__eq__  # a copy is another step: what is done to it is not seen on this one
    __hash__ = object.__hash__

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if self.watched is not None and name not in ("changed", "watched", "shelf", "model_input_messages"):
            object.__setattr__(self, "changed", True)
            self.watched()


def _observations(self: TrackedActionStep) -> str | None:
    return self.shelf() if self.shelf is not None else self.__dict__["observations"]


def _observe(self: TrackedActionStep, text: str | None) -> None:
    self.__dict__.update(observations=text, shelf=None)


# Set afterwards: a property in the class body would clash with the field that it stands for.
TrackedActionStep.observations = property(_observations, _observe)  # ty: ignore[invalid-assignment]


@dataclass(frozen=True)
class AgentRun:
    """One task of a sub-agent.

    Args:
        id (`str`): Unique; part of the name of its trace.
        agent (`str`): Its name below the session's own agent, such as `researcher/reader`.
        kind (`str`): Its class.
        model (`str`): The model it asks.
        task (`str`): As the agent above it gave it.
        call_id (`str`): Of the call that it answers; `""` where that is not known.
        step (`int`): The step of the agent above whose code made the call.
    """

    id: str
    agent: str
    kind: str
    model: str
    task: str
    call_id: str = ""
    step: int = 0


class Observer:
    """Told of everything that an agent does, as it happens; every method may be left as it is.

    The journal is one, the narrator of events another. One that raises stops what it was told of.
    """

    def task(self, step: TaskStep, variables: list[str]) -> None:
        """A task is taken on; `variables` are the names of what was handed over with it."""

    def planned(self, step: PlanningStep) -> None:
        """The model has made a plan."""

    def started(self, step: ActionStep) -> None:
        """A step begins; the model is about to be asked."""

    def answered(self, step: ModelStep) -> None:
        """The model has answered; its code has not run yet."""

    def calling(self, step: ToolCallStep) -> None:
        """A tool is about to be called, or asked about."""

    def called(self, step: ToolResultStep) -> None:
        """A tool has been called, or refused."""

    def finished(self, step: ActionStep) -> None:
        """A step is over."""

    def paid(self, cost_usd: float | None, thinking: tuple[Thinking, ...] = ()) -> None:
        """The model was asked for a plan or a last word, which are told next; it took this much (`None`: nobody knows)."""

    def compacting(self) -> None:
        """The model is about to be asked for a summary."""

    def unused(self, input_tokens: int, output_tokens: int, cached_tokens: int, cost_usd: float | None) -> None:
        """The model wrote a summary that is not used, as it makes nothing shorter; it took this much."""

    def compacted(self, step: CompactionStep) -> None:
        """Less of the conversation is about to be shown."""

    def steered(self, step: SteerStep) -> None:
        """Text from outside is about to be shown to the model."""

    def extended(self, steps: int, why: str) -> None:
        """The turn may take `steps` steps in all from here on."""

    def agent_started(self, run: AgentRun) -> Observer:
        """A sub-agent takes a task on. Returns who is to be told of what it does."""
        return Observer()

    def agent_cut_off(self, run: AgentRun, action: str | None) -> Observer:
        """A task that was cut off is brought to its end. Returns who is to be told of what it left open.

        `action` is what the result of its last code belongs to, which is told of as [`finished`]; `None`: no code was running.
        """
        return Observer()

    def agent_ended(self, run: AgentRun, outcome: Outcome, spent_usd: float, unpriced_calls: int) -> None:
        """A sub-agent has ended; `outcome.answer` is what the agent above reads.

        `spent_usd` is what it is known to have spent, agents below it included, beside calls of unknown price.
        """

    def approval_asked(self, request: ApprovalRequest, digest: str) -> None:
        """A person is about to be asked; `digest` is what the answer will bind to."""

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        """A person (or a rule) has answered."""


class Observers(Observer):
    """Several observers, told in order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self.all = tuple(observers)

    def task(self, step: TaskStep, variables: list[str]) -> None:
        for observer in self.all:
            observer.task(step, variables)

    def planned(self, step: PlanningStep) -> None:
        for observer in self.all:
            observer.planned(step)

    def started(self, step: ActionStep) -> None:
        for observer in self.all:
            observer.started(step)

    def answered(self, step: ModelStep) -> None:
        for observer in self.all:
            observer.answered(step)

    def calling(self, step: ToolCallStep) -> None:
        for observer in self.all:
            observer.calling(step)

    def called(self, step: ToolResultStep) -> None:
        for observer in self.all:
            observer.called(step)

    def finished(self, step: ActionStep) -> None:
        for observer in self.all:
            observer.finished(step)

    def paid(self, cost_usd: float | None, thinking: tuple[Thinking, ...] = ()) -> None:
        for observer in self.all:
            observer.paid(cost_usd, thinking)

    def compacting(self) -> None:
        for observer in self.all:
            observer.compacting()

    def unused(self, input_tokens: int, output_tokens: int, cached_tokens: int, cost_usd: float | None) -> None:
        for observer in self.all:
            observer.unused(input_tokens, output_tokens, cached_tokens, cost_usd)

    def compacted(self, step: CompactionStep) -> None:
        for observer in self.all:
            observer.compacted(step)

    def steered(self, step: SteerStep) -> None:
        for observer in self.all:
            observer.steered(step)

    def extended(self, steps: int, why: str) -> None:
        for observer in self.all:
            observer.extended(steps, why)

    def agent_started(self, run: AgentRun) -> Observer:
        return Observers([observer.agent_started(run) for observer in self.all])

    def agent_cut_off(self, run: AgentRun, action: str | None) -> Observer:
        return Observers([observer.agent_cut_off(run, action) for observer in self.all])

    def agent_ended(self, run: AgentRun, outcome: Outcome, spent_usd: float, unpriced_calls: int) -> None:
        for observer in self.all:
            observer.agent_ended(run, outcome, spent_usd, unpriced_calls)

    def approval_asked(self, request: ApprovalRequest, digest: str) -> None:
        for observer in self.all:
            observer.approval_asked(request, digest)

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        for observer in self.all:
            observer.approval_answered(request, answer, digest)
