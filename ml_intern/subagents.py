"""Sub-agents: any smolagents agent as a managed agent, behind the gate, ledger, record and interrupt of the whole tree.

What must never happen here: a tool of a sub-agent is called past the gate or the record; a sub-agent spends what nobody
counts; one that fails, loops or is out of money takes the agent above it with it; one goes on after an interrupt; one that
was cut off passes for one that ended, or is begun again without anybody's word; one that waits without a thread begins anew
instead of going on, or goes on in two threads.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Protocol

from smolagents import CodeAgent, MultiStepAgent
from smolagents.agents import AgentMaxStepsError
from smolagents.memory import ActionStep, MemoryStep, PlanningStep, TaskStep
from smolagents.models import ChatMessage
from smolagents.utils import parse_code_blobs

from .budget import BudgetUsedUp, SpendLedger
from .errors import JournalFailed, Parking
from .events import Outcome, State, Usage
from .execution.action import RUNNING, Hold, to_the_end
from .facts import FactBook
from .metering import MeteredModel, metered
from .models import EndpointModel
from .models.usage import CallUsage
from .repetition import RepetitionGuard, by_guard
from .router import WITHIN, Action, RoutedTool, ToolRouter
from .secrets import Masker
from .steps import GUARD, AgentRun, ModelStep, Observer, SteerStep, ToolCallStep, ToolResultStep
from .supervision import Ending
from .thinking import thinking_of

CALLING: ContextVar[ToolCallStep | None] = ContextVar("calling", default=None)
"""The call that is being made in this context: what a sub-agent's run belongs to."""

DRIVEN_SECONDS = 0.2
"""How long who cleans up waits for a sub-agent that is about to wait."""
LAST_SEEN = 1_500
"""Characters of what a sub-agent saw last that stand in its report when it comes back without an answer."""


class Superior(Protocol):
    """What a sub-agent needs of the agent that calls it."""

    path: str

    @property
    def ledger(self) -> SpendLedger: ...

    @property
    def observer(self) -> Observer: ...

    def stopped(self) -> bool: ...

    def subs(self) -> list[SubAgent]: ...


class Review(Protocol):
    """Looks through the reports of a sub-agent, by what its tools gave it."""

    def begin(self, task: str) -> None: ...

    def saw(self, step: ToolResultStep, arguments: dict[str, Any]) -> None: ...

    def verdict(self, report: str) -> str:
        """What is to stand below the report."""
        ...


class Worker(Protocol):
    """A task of a sub-agent, at work or cut off: whom its calls are told to, and what pays for them."""

    path: str
    ledger: SpendLedger
    observer: Observer

    def calling(self, step: ToolCallStep) -> None: ...

    def called(self, step: ToolResultStep) -> None: ...


class Top(Superior, Protocol):
    """The agent at the top of a tree: one gate and one record for all of it."""

    model: Any
    share: float
    masker: Masker
    router: ToolRouter
    runs: dict[str, Worker]

    @property
    def parked(self) -> bool: ...

    def fire(self, step: MemoryStep) -> None: ...

    def guard_for_sub_agent(self) -> RepetitionGuard | None: ...


class Notes(Protocol):
    """Who takes note of what an agent's tools do."""

    def note_call(self, step: ToolCallStep) -> None: ...

    def note_result(self, step: ToolResultStep) -> None: ...


class Member(Notes, Protocol):
    """An agent of this project: it brings its own loop, which counts and asks by itself."""

    ending: Ending | None
    below: dict[str, Below]

    def subs(self) -> list[SubAgent]: ...

    @property
    def gives_way(self) -> bool: ...

    def run_giving_way(self, task: str, **options: Any) -> Generator[Hold, None, Any]: ...

    @property
    def own_limits(self) -> tuple[float | None, float | None]: ...

    def take_part(
        self, ledger: SpendLedger, observer: Observer, guard: RepetitionGuard | None
    ) -> AbstractContextManager[None]: ...


Course = Generator[Hold, None, str]
"""A task of a sub-agent: it gives way wherever it only waits, and ends with its report."""


@dataclass(frozen=True)
class Waits:
    """A task that waits without a thread: the call that it belongs to, and how it goes on."""

    call_id: str
    course: Course
    context: Context


class _Asked:
    """Stands in for an agent in its own `__call__`, which words the task for it and then its report: `run` runs nothing."""

    def __init__(self, agent: MultiStepAgent) -> None:
        self._agent, self.provide_run_summary = agent, False
        self.task: tuple[str, dict[str, Any]] = "", {}
        self.result: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def run(self, task: str, **options: Any) -> Any:
        self.task = task, options
        return self.result


class SubAgent:
    """A managed agent in its place: called like the agent, which it looks like, within the tree.

    Args:
        agent (`MultiStepAgent`): Any.
        root (`Top`): The top of the tree.
        above (`Superior`): Who calls it.
        member (`Member`, *optional*): The agent once more, where it is one of this project.
        name (`str`, *optional*): In place of the agent's own, where several of one name work side by side.

    Attributes:
        share (`float`, *optional*): How much of what is left of the budget each task may take. Defaults to the top's word.
        review (`Review`, *optional*): Looks through its reports.
    """

    _OWN = frozenset(("agent", "root", "above", "member", "path", "ledger", "observer", "ending", "below", "running", "share",
                      "review", "_book", "_guard", "_turn", "_call", "_words", "_given", "_driven", "_waits", "_begun",
                      "_let_go"))  # fmt: skip

    def __init__(
        self, agent: MultiStepAgent, root: Top, above: Superior, member: Member | None = None, name: str = ""
    ) -> None:
        self.agent, self.root, self.above, self.member = agent, root, above, member
        self.path = f"{above.path}/{name or agent.name}" if above.path else name or str(agent.name)
        self.share: float | None = None
        self.review: Review | None = None
        self._given: dict[str, dict[str, Any]] = {}
        self.ledger, self.observer = above.ledger, Observer()
        self.ending: Ending | None = None
        self.below: list[Below] = []
        self.running = False
        self._turn, self._driven = threading.Lock(), threading.Lock()
        self._waits: Waits | None = None
        self._begun, self._let_go = "", False
        self._call: ToolCallStep | None = None
        self._book, self._guard = FactBook(), None
        self._words: list[SteerStep] = []

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return type(self.agent)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by `copy` and `pickle` before there is an agent
            raise AttributeError(name)
        return getattr(self.__dict__["agent"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SubAgent._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.agent, name, value)

    def __eq__(self, other: object) -> bool:
        return self.agent == original(other)

    def __hash__(self) -> int:
        return hash(self.agent)

    def __repr__(self) -> str:
        return repr(self.agent)

    # A task.

    def __call__(self, task: str, **kwargs: Any) -> str:
        """Works on a task. Returns the report that the agent above reads, whatever became of it.

        Raises:
            JournalFailed: nothing may take effect that is not on record.
            Parking: it waits without a thread, and goes on where the same call is made again.
        """
        call = CALLING.get()
        if call is None or not (call.call_id == self._begun or self._may_give_way(call)):
            return self.work(task, **kwargs)
        with self._driven:
            waits, self._waits = self._waits, None
            if waits is not None and waits.call_id != call.call_id:
                self._waits, waits = waits, None
            if waits is None:
                if call.call_id == self._begun:  # it was given up meanwhile, with its session's jail
                    raise Parking
                if not self._turn.acquire(blocking=False):  # another task of its waits
                    raise Parking(lambda: not self._turn.locked() or call.ended.is_set())
                self._begun, self._let_go, context = call.call_id, False, copy_context()
                context.run(WITHIN.set, "")
                waits = Waits(call.call_id, self._course(call, task, kwargs, gives_way=True), context)
            self._call = call
            return self._go_on(waits)

    def work(self, task: str, **kwargs: Any) -> str:
        """The same, in this thread to its end."""
        with self._turn:
            return to_the_end(self._course(CALLING.get(), task, kwargs, gives_way=False))

    def _may_give_way(self, call: ToolCallStep) -> bool:
        """Whether the call that is being made here can wait without its thread: its code made it, and runs below somebody who
        gives way; and the agent's loop is one that can be left and gone on with."""
        action = RUNNING.get()
        if action is None or not action.gives_way or WITHIN.get() != call.call_id:
            return False
        kind = type(self.agent)
        return self.member is not None and kind.__call__ is MultiStepAgent.__call__ and kind.run is MultiStepAgent.run

    def _go_on(self, waits: Waits) -> str:
        try:
            hold = waits.context.run(waits.course.__next__)
        except StopIteration as end:
            self._turn.release()
            return end.value
        except BaseException:
            self._turn.release()
            raise
        self._waits = waits
        if self.root.parked or self._let_go:
            self._give_up()
            raise Parking
        raise Parking(lambda: hold.come or self.stopped(), hold.at, handles=hold.handles)

    def _give_up(self) -> None:
        """A task that waits is not gone on with here."""
        waits, self._waits = self._waits, None
        if waits is not None:
            try:
                waits.context.run(waits.course.close)
            finally:
                self._turn.release()

    def _course(self, call: ToolCallStep | None, task: str, kwargs: dict[str, Any], gives_way: bool) -> Course:
        self._call = call
        run = AgentRun(
            uuid.uuid4().hex[:16], self.path, type(self.agent).__name__, _model_name(self.agent.model), str(task),
            call.call_id if call else "", call.action if call else 0,
        )  # fmt: skip
        started = time.monotonic()
        if self.review is not None:
            self.review.begin(run.task)
        self._begin(run)
        try:
            ending, report = yield from self._work(task, kwargs, gives_way)
        except (Parking, GeneratorExit):  # its session sleeps: its end is put on record when the session wakes
            self._leave()
            raise
        except BaseException as error:  # not of its making, such as a full disk: it has an end as far as may be
            with suppress(JournalFailed):
                self._end(run, started, Ending(State.INTERRUPTED, type(error).__name__), "")
            raise
        if self.review is not None and ending.state not in (State.ERROR, State.INTERRUPTED):
            report = f"{report}\n\n{self.review.verdict(report)}"
        self._end(run, started, ending, report)
        return report

    def _begin(self, run: AgentRun) -> None:
        own = self.member.own_limits if self.member is not None else (None, None)
        left, (own_usd, own_hours) = self.above.ledger.left_usd(), own
        share = self.root.share if self.share is None else self.share
        shares = [usd for usd in (own_usd, None if left is None else max(left, 0.0) * share) if usd is not None]
        self.ledger = self.above.ledger.child(min(shares, default=None), own_hours)
        self.observer, self.ending = self.above.observer.agent_started(run), None
        self._book, self._guard, self._words = FactBook(), self.root.guard_for_sub_agent(), []
        router, model = self.router, self.agent.model
        if router is not None and self.member is None:
            router.action = Action()
        if isinstance(model, EndpointModel) and model is not self.root.model and not self.above.stopped():
            model.cancelled.clear()
        self.running = True
        self.root.runs[self.path] = self

    def _end(self, run: AgentRun, started: float, ending: Ending, report: str) -> None:
        self._leave()
        seconds, reason, ledger = time.monotonic() - started, self.root.masker.text(ending.reason), self.ledger
        outcome = Outcome(ending.state, report, reason, self._steps(), seconds, ledger.usage)
        self.above.observer.agent_ended(run, outcome, ledger.spent_usd, ledger.unpriced_calls)

    def _leave(self) -> None:
        self.running = False
        self.root.runs.pop(self.path, None)

    def _work(self, task: str, kwargs: dict[str, Any], gives_way: bool) -> Generator[Hold, None, tuple[Ending, str]]:
        try:
            if self.stopped():
                self.observer.task(TaskStep(task=str(task)), [])
                raise InterruptedError
            if self.member is not None:
                with self.member.take_part(self.ledger, self.observer, self._guard):
                    if gives_way:
                        report = yield from self._giving_way(self.member, task, kwargs)
                    else:
                        report = self.agent(task, **kwargs)
            else:
                report = self._metered(task, kwargs)
        except JournalFailed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever ended it, the agent above it goes on and reads why
            ending = self._failed(error)
            return ending, self._without_answer(ending)
        ending = self._ending()
        if ending.state is not State.SUCCESS:
            report = f"{report}\n\n(`{self.agent.name}` did not finish, {ending.state}: {ending.reason})"
        return ending, self.root.masker.text(str(report))

    def _giving_way(self, member: Member, task: str, kwargs: dict[str, Any]) -> Course:
        asked = _Asked(self.agent)
        MultiStepAgent.__call__(asked, task, **kwargs)  # ty: ignore[invalid-argument-type]  # as the agent itself words it
        words, options = asked.task
        asked.result = yield from member.run_giving_way(words, **options)
        asked.provide_run_summary = self.agent.provide_run_summary
        return MultiStepAgent.__call__(asked, task, **kwargs)  # ty: ignore[invalid-argument-type]

    def _metered(self, task: str, kwargs: dict[str, Any]) -> str:
        """The task with an agent that is not ours: its model is asked by way of the ledger."""
        agent, model = self.agent, self.agent.model
        self.observer.task(TaskStep(task=str(task)), [])
        agent.model = MeteredModel(  # ty: ignore[invalid-assignment]
            model, self.ledger, self.stopped, self._answered, self._heard, self.observer.paid
        )
        try:
            return agent(task, **kwargs)
        finally:
            agent.model = model

    def _failed(self, error: Exception) -> Ending:
        causes, known = [error], self.member.ending if self.member is not None else self.ending
        while causes[-1].__cause__ is not None and len(causes) < 10:
            causes.append(causes[-1].__cause__)  # ty: ignore[invalid-argument-type]
        used_up = next((cause for cause in causes if isinstance(cause, BudgetUsedUp)), None)
        if used_up is not None:
            return Ending(State.BUDGET, str(used_up))
        if known is not None and known.state is not State.ERROR:
            return known
        if self.stopped() or isinstance(error, InterruptedError):
            return Ending(State.INTERRUPTED, "it was stopped from above")
        return Ending(State.ERROR, str(causes[-1]) or type(causes[-1]).__name__)

    def _ending(self) -> Ending:
        if self.member is not None:
            return self.member.ending or Ending(State.ERROR, "its run ended without a state")
        last = self.agent.memory.steps[-1] if self.agent.memory.steps else None
        if isinstance(last, ActionStep) and isinstance(last.error, AgentMaxStepsError):
            return Ending(State.MAX_STEPS, f"{self.agent.max_steps} steps")
        return Ending(State.SUCCESS)

    def _without_answer(self, ending: Ending) -> str:
        """A report for the agent above: what became of it, and what it had come to."""
        steps = [step for step in self.agent.memory.steps if isinstance(step, ActionStep)]
        seen = next((step.observations for step in reversed(steps) if step.observations), "")
        text = f"`{self.agent.name}` ended without an answer after {len(steps)} steps, {ending.state}: {ending.reason}"
        if seen:
            text += f"\nWhat it saw last:\n{seen[-LAST_SEEN:]}"
        return self.root.masker.text(text)

    def _steps(self) -> int:
        steps = self.agent.memory.steps
        since = max((index for index, step in enumerate(steps) if isinstance(step, TaskStep)), default=0)
        return sum(isinstance(step, ActionStep) for step in steps[since:])

    # What it does, told to those who want to know.

    def fire(self, step: MemoryStep) -> None:
        """A call of one of its tools: goes to the top, where gate and record are."""
        if isinstance(step, ToolCallStep | ToolResultStep):
            step.agent = self.path
        self.root.fire(step)

    def calling(self, step: ToolCallStep) -> None:
        """A call of one of its tools, on its way down from the top again: noted in its own record."""
        if self.review is not None:
            self._given[step.call_id] = step.arguments
        self.observer.calling(step)
        self._notes.note_call(step)

    def called(self, step: ToolResultStep) -> None:
        self.observer.called(step)
        self._notes.note_result(step)
        if self.review is not None:
            self.review.saw(step, self._given.pop(step.call_id, {}))

    @property
    def _notes(self) -> Notes:
        return self._book if self.member is None else self.member

    def _answered(self, message: ChatMessage, used: CallUsage, spent: Usage) -> None:
        """An answer of the model of an agent that is not ours: on record before its code runs."""
        words = message.content if isinstance(message.content, str) else ""
        number = self.agent.step_number
        if isinstance(self.agent.tools, ToolRouter):
            self.agent.tools.action.number = number
        code, thought = None, words
        if isinstance(self.agent, CodeAgent):
            tags = self.agent.code_block_tags
            try:
                code = parse_code_blobs(words if tags[1] in words else words + tags[1], tags)
            except ValueError:
                code = None
            thought = words.split(tags[0])[0].strip() if code is not None else words
        step = ActionStep(step_number=number, timing=None, model_output=words)  # ty: ignore[invalid-argument-type]
        tokens = (used.input_tokens, used.output_tokens, used.cached_tokens, used.cost_usd)
        self.observer.started(step)
        said = (thinking_of(message), used.model, used.reasoning_tokens)
        self.observer.answered(ModelStep(step, thought, code, *tokens, spent, *said))

    def finished(self, step: ActionStep) -> None:
        """A step of an agent that is not ours is over."""
        if not self.running or self.root.parked:
            return
        self.observer.finished(step)
        self._book.finished(step)
        if self._guard is None:
            return
        verdict = self._guard.look(self._book.facts)
        if verdict.level == "stop":
            self.ending = Ending(State.STUCK, f"{verdict.reason}, after a hint and a word to plan anew")
            self.agent.interrupt()
        elif verdict.level:
            words = self._guard.words(verdict, plan_tool="plan" in self.agent.tools)
            self._words.append(SteerStep(words, by_guard(verdict.level), GUARD))

    def _heard(self) -> list[ChatMessage]:
        """What an agent that is not ours is to be told: stands in its memory after its last step from here on."""
        said, self._words = self._words, []
        for step in said:
            self.observer.steered(step)
            self.agent.memory.steps.append(step)  # ty: ignore[invalid-argument-type]  # it renders whatever has messages
        return [message for step in said for message in step.to_messages()]

    def planned(self, step: PlanningStep) -> None:
        if self.running:
            self.observer.planned(step)

    # Those below it.

    @property
    def router(self) -> ToolRouter | None:
        """Where its tools are called; ready for calls that no task of it makes."""
        router = self.agent.tools
        if not isinstance(router, ToolRouter):
            return None
        if self.member is None:
            router.services = self.root.router.services
        return router

    def subs(self) -> list[SubAgent]:
        """The agents that it calls."""
        return members_of(self.below) if self.member is None else self.member.subs()

    def members(self) -> list[SubAgent]:
        """Who works under its name: itself."""
        return [self]

    def at(self, path: str) -> SubAgent | None:
        """The sub-agent of that path: itself, or one below it."""
        if path == self.path:
            return self
        return at_path(self.below if self.member is None else self.member.below.values(), path)

    def cleanup(self) -> None:
        """Ends the jails and sandboxes that code ran in, its own and of those below it."""
        self._let_go = True
        if self._driven.acquire(timeout=DRIVEN_SECONDS):  # otherwise it is at work, and gives up when it waits again
            try:
                self._give_up()
            finally:
                self._driven.release()
        if isinstance(self.agent, CodeAgent):
            self.agent.cleanup()
        if self.member is None:
            for sub in self.below:
                sub.cleanup()

    @property
    def gives_way(self) -> bool:
        """Whether its task can do without a thread while it waits."""
        return self.member is not None and self.member.gives_way

    # Stopping.

    def stopped(self) -> bool:
        """Whether it is to stop: one above it does, or the code that asked it has ended."""
        return self.above.stopped() or (self._call is not None and self._call.ended.is_set())

    def interrupt(self) -> None:
        """Stops what runs of it now, and all below it."""
        if not self.running:
            return
        model = metered(self.agent.model)
        if isinstance(model, EndpointModel) and model is not self.root.model and self.root.stopped():
            model.cancelled.set()  # others may share it: only where all are to stop; the top's own is who started it's matter
        self.agent.interrupt()
        if self.member is not None:
            return
        if isinstance(self.agent.tools, ToolRouter):
            self.agent.tools.action.ended.set()  # what its code calls from here on is refused
        for sub in self.below:
            sub.interrupt()


class Delegate(SubAgent):
    """Asking it changes nothing by itself: each of its calls is looked at on its own, and its code, if any, runs in a jail."""

    effects = "read"


class CodeOutside(SubAgent):
    """Its code runs outside the jail: in this process, or wherever its own executor has it run."""

    effects = "execute"


KINDS = (SubAgent, Delegate, CodeOutside)


class Below(Protocol):
    """A sub-agent, or several under one name, as whoever is above sees it."""

    def members(self) -> list[SubAgent]: ...

    def at(self, path: str) -> SubAgent | None: ...

    def interrupt(self) -> None: ...

    def cleanup(self) -> None: ...


def members_of(below: Iterable[Below]) -> list[SubAgent]:
    return [member for one in below for member in one.members()]


class CutOff:
    """A task of a sub-agent that was cut off, while what it left open is brought to its end.

    Args:
        path (`str`): Of the sub-agent.
        ledger (`SpendLedger`): What pays for it.
        observer (`Observer`): Its record.
    """

    def __init__(self, path: str, ledger: SpendLedger, observer: Observer) -> None:
        self.path, self.ledger, self.observer = path, ledger, observer

    def calling(self, step: ToolCallStep) -> None:
        self.observer.calling(step)

    def called(self, step: ToolResultStep) -> None:
        self.observer.called(step)


def at_path(below: Iterable[Below], path: str) -> SubAgent | None:
    """The sub-agent of that path, among these and those below them; `None` where there is none (any more)."""
    return next((found for one in below if (found := one.at(path)) is not None), None)


def original(thing: Any) -> Any:
    """The agent or tool itself, without what stands in front of it."""
    while type(thing) in (RoutedTool, *KINDS):
        thing = thing.agent if type(thing) in KINDS else thing._tool
    return thing


def _model_name(model: Any) -> str:
    return str(getattr(model, "model_id", None) or type(model).__name__)  # a model may do without a name
