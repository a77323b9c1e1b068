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
from smolagents.models import ChatMessage

from .events import ApprovalAnswer, ApprovalRequest, FileDigest, Usage


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
        ended (`threading.Event`): Set once the code that made the call has ended: then nobody needs to be asked any more.
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
    ended: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    started: float = field(default_factory=time.time)

    def to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return []


@dataclass
class ToolResultStep(MemoryStep):
    """A tool has been called: its result, or the error that it raised (`denied` if it never ran)."""

    call_id: str
    tool: str
    action: int
    result: Any = None
    error: BaseException | None = None
    denied: bool = False
    seconds: float = 0.0

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
        spent (`Usage`): Of the whole session, this call included.
    """

    action: ActionStep
    thought: str
    code: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float | None
    spent: Usage

    def to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return []


class TrackedActionStep(ActionStep):
    """An `ActionStep` that knows when it was changed after it had been rendered.

    Callbacks may edit old steps (smolagents documents dropping old screenshots that way): a changed step is rendered
    anew, an unchanged one never.
    """

    changed = False
    watched: Callable[[], None] | None = None
    __eq__ = object.__eq__  # a copy is another step: what is done to it is not seen on this one
    __hash__ = object.__hash__

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if self.watched is not None and name not in ("changed", "watched", "model_input_messages"):
            object.__setattr__(self, "changed", True)
            self.watched()


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

    def approval_asked(self, request: ApprovalRequest, digest: str) -> None:
        for observer in self.all:
            observer.approval_asked(request, digest)

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        for observer in self.all:
            observer.approval_answered(request, answer, digest)
