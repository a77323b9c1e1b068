"""What is looked at between two steps: words from outside, money, time, steps, and whether the agent goes round in circles."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from smolagents.agents import AgentError
from smolagents.memory import ActionStep, AgentMemory, MemoryStep
from smolagents.monitoring import AgentLogger

from .budget import BudgetUsedUp, Reservation, SpendLedger, StepBudget
from .errors import Denied, Parking
from .events import ApprovalAnswer, ApprovalRequest, State
from .facts import FactBook
from .repetition import RepetitionGuard, Verdict, by_guard
from .secrets import Masker
from .steps import GUARD, USER, Observers, SteerStep, ToolCallStep, ToolResultStep

REQUEST, CONTINUE = "request_steps", "go_on"
"""Under these names of tools a person is asked for more steps, and whether an agent that goes round in circles may go on."""


@dataclass(frozen=True)
class Ending:
    """How a run ended, and why where it was no success."""

    state: State
    reason: str = ""


class Supervisor:
    """Stands beside the loop of one agent; says before each step what has to be said, and whether it may be taken.

    Args:
        budget (`StepBudget`): Steps.
        guard (`RepetitionGuard`, *optional*): Without it nobody looks for circles.
        ask (`Callable[[ApprovalRequest], ApprovalAnswer]`): Asks a person; says no where there is nobody.
        extended (`Callable[[int, str], None]`): Told how many steps the turn may take from now on, and why.
        has_plan (`Callable[[], bool]`): Whether the agent has a tool to plan with.
    """

    def __init__(
        self,
        budget: StepBudget,
        guard: RepetitionGuard | None,
        ask: Callable[[ApprovalRequest], ApprovalAnswer],
        extended: Callable[[int, str], None],
        has_plan: Callable[[], bool] = lambda: False,
    ) -> None:
        self.budget, self.guard, self.has_plan = budget, guard, has_plan
        self.book = FactBook()
        self._ask, self._extended = ask, extended
        self._inbox: SimpleQueue[SteerStep] = SimpleQueue()
        self.models: SimpleQueue[tuple[Any, Callable[[], None]]] = SimpleQueue()
        """Models that are to take over, each with who is to be told."""
        self.asking: ApprovalRequest | None = None
        """What a person is asked, while the run waits for the answer without a thread."""
        self._stuck: Verdict | None = None
        self._looked = 0

    def begin(self, ceiling: int, task: str, at: int = 1, done: Sequence[MemoryStep] = ()) -> None:
        """A turn begins, or goes on at step `at` after those that were `done`.

        What these moved besides what they showed is not known any more: so they count for nothing but loops.
        """
        self.budget.begin(ceiling, task, at)
        self.book.begin()
        self.asking, self._stuck, self._looked = None, None, 0
        if self.guard is not None:
            self.guard.begin()
        if not self.watches:
            return
        for step in done:
            if isinstance(step, ActionStep):
                self.book.finished(step)
            elif isinstance(step, SteerStep) and step.source == GUARD and self.guard is not None:
                self.guard.said(len(self.book.facts), step.by)
        self.budget.grant(0, len(self.book.facts))

    # Words from outside.

    def steer(self, step: SteerStep) -> None:
        """From any thread."""
        self._inbox.put(step)

    def heard(self) -> list[SteerStep]:
        """What came in since the last time, in order."""
        steps = []
        while True:
            try:
                steps.append(self._inbox.get_nowait())
            except Empty:
                return steps

    # Whether to go on.

    def over(self, step: int, ledger: SpendLedger) -> Ending | None:
        """Why step number `step` may not be taken, if so. May ask a person, and wait for the answer.

        Raises:
            Parking: the answer is waited for without a thread; to be asked again for the same step.
        """
        if self.asking is None and (spent := ledger.exceeded()):
            return Ending(State.BUDGET, spent)
        if self._looked != step:
            if (ending := self._in_circles()) is not None:
                return ending
            self._looked = step
        return self._out_of_steps(step)

    def _in_circles(self) -> Ending | None:
        if self.guard is None or not self.book.facts:
            return None
        verdict, self._stuck = self._stuck or self.guard.look(self.book.facts), None
        if verdict.level in ("hint", "replan"):
            self.steer(SteerStep(self.guard.words(verdict, self.has_plan()), by_guard(verdict.level), GUARD))
        elif verdict.level == "stop":
            self._stuck = verdict
            asked = self._put(
                CONTINUE, f"it goes round in circles: {verdict.reason}", {}, "Let it go on all the same?"
            )
            self._stuck = None
            if asked.decision != "approve":
                return Ending(State.STUCK, f"{verdict.reason}, after a hint and a new plan{_said(asked)}")
            self.guard.begin()
        return None

    def _out_of_steps(self, step: int) -> Ending | None:
        verdict = self.budget.decide(step, self.book.facts)
        if verdict.action == "extend":
            self.budget.grant(verdict.steps, len(self.book.facts))
            self._extended(self.budget.allowance, verdict.reason)
        elif verdict.action == "ask":
            wanted = {"steps": verdict.steps}
            asked = self._put(REQUEST, verdict.reason, wanted, f"Let it take {verdict.steps} steps more?")
            steps = _number({**wanted, **(asked.arguments or {})}) if asked.decision in ("approve", "edit") else 0
            if steps < 1:
                return Ending(State.MAX_STEPS, f"{self.budget.ceiling} steps{_said(asked)}")
            self._extended(self.budget.extend(steps), f"{asked.by or 'a person'} said yes")
        elif verdict.action == "stop":
            used_up = step > self.budget.ceiling
            return Ending(State.MAX_STEPS if used_up else State.STUCK, verdict.reason)
        return None

    def _put(self, tool: str, reason: str, arguments: dict[str, Any], question: str) -> ApprovalAnswer:
        request, self.asking = self.asking, None
        if request is None or request.tool != tool:
            request = ApprovalRequest(f"ask_{uuid.uuid4().hex[:20]}", tool, arguments, "read", reason, question)
        try:
            return self._ask(request)
        except Parking:
            self.asking = request
            raise

    # What happened.

    @property
    def watches(self) -> bool:
        """Whether anything is decided by what the steps do: otherwise no note is taken of it."""
        return self.guard is not None or self.budget.adaptive or self.budget.ask_beyond

    def note_call(self, step: ToolCallStep) -> None:
        if self.watches:
            self.book.note_call(step)

    def note_result(self, step: ToolResultStep) -> None:
        if self.watches:
            self.book.note_result(step)

    def finished(self, step: ActionStep) -> None:
        if self.watches:
            self.book.finished(step)


class Supervised:
    """An agent with a supervisor beside its loop."""

    supervisor: Supervisor
    observer: Observers
    memory: AgentMemory
    masker: Masker
    ledger: SpendLedger
    logger: AgentLogger
    ending: Ending | None
    step_number: int
    model: Any

    @property
    def budget(self) -> StepBudget:
        """How its steps are given out."""
        return self.supervisor.budget

    def stopped(self) -> bool:
        """Whether it is to stop."""
        raise NotImplementedError

    def steer(self, text: str, by: str = "") -> None:
        """Says something to the agent while it works: it reads it before its next step. From any thread.

        Args:
            text (`str`): What to say.
            by (`str`, *optional*): Who says it, from where.
        """
        if not text.strip():
            raise ValueError("There is nothing to say.")
        self.supervisor.steer(SteerStep(self.masker.text(text), by))

    def change_model(self, model: Any, told: Callable[[], None] = lambda: None) -> None:
        """Has another model asked from the next step on. From any thread.

        Args:
            model (`Model`): Any smolagents model.
            told (`Callable[[], None]`, *optional*): Called when it takes over.
        """
        self.supervisor.models.put((model, told))

    def unheard(self) -> list[SteerStep]:
        """What people said that no step has taken in, after a run that came to its end; it is taken out."""
        if self.ending is None or self.ending.state is not State.SUCCESS:
            return []
        said = self.supervisor.heard()
        for step in said:
            if step.source != USER and step.id:  # a notice that is on record as unread: for the next turn
                self.supervisor.steer(step)
        return [step for step in said if step.source == USER]

    def extend(self, steps: int, why: str = "") -> None:
        """Gives the turn more steps than it was to have. From any thread.

        Args:
            steps (`int`): How many more.
            why (`str`, *optional*): Who or what gives them.
        """
        self.tell_extended(self.budget.extend(steps), why)

    def request_steps(self, steps: int, reason: str) -> tuple[int, int]:
        """The agent's own wish for more steps. It gets what `max_steps` leaves; a person is asked for the rest when due.

        Returns:
            `tuple[int, int]`: How many it got, and how many the turn may take in all.
        """
        got = self.budget.request(steps, reason)
        if got:
            self.tell_extended(self.budget.allowance, f"the agent asked: {reason}")
        return got, self.budget.allowance

    def look_round(self) -> Ending | None:
        """Why there is no further step, if so. Raises where the agent was interrupted."""
        asking = self.supervisor.asking is not None  # then its answer is put on record, whatever it is
        ending = None if self.stopped() and not asking else self.supervisor.over(self.step_number, self.ledger)
        if self.stopped():
            self.ending = Ending(State.INTERRUPTED)
            raise AgentError("Agent interrupted.", self.logger)
        self._take_over()
        self._take_in()
        return ending

    def _take_over(self) -> None:
        """Between two steps: what was asked of a model is answered and paid before another one is asked."""
        while not self.supervisor.models.empty():
            self.model, told = self.supervisor.models.get()
            told()

    def _take_in(self) -> None:
        """What was said to the agent meanwhile stands at the end of the conversation from here on."""
        for step in self.supervisor.heard():
            self.observer.steered(step)
            self.memory.steps.append(step)  # ty: ignore[invalid-argument-type]  # smolagents passes over what it does not know

    def tell_extended(self, steps: int, why: str) -> None:
        self.observer.extended(steps, self.masker.text(why))


class ToolSpending:
    """Sets aside what calls of tools are to cost, once they may be made, and counts it when they have been.

    Args:
        ledger (`Callable[[str], SpendLedger]`): Of the sub-agent of that name.
    """

    def __init__(self, ledger: Callable[[str], SpendLedger]) -> None:
        self._ledger = ledger
        self._out: dict[str, Reservation] = {}

    def calling(self, step: ToolCallStep) -> None:
        """Raises [`~ml_intern.errors.Denied`] where it does not fit in the budget."""
        if step.begun or step.problem is not None or (step.effects != "spend" and not step.cost_usd):
            return
        self.forget(step.call_id)
        cost = step.cost_usd
        try:
            reserved = self._ledger(step.agent).reserve(step.tool, cost, cost, cancelled=step.ended.is_set)
        except BudgetUsedUp as error:
            raise Denied(f"`{step.tool}` was not called: {error.what}", error.why) from None
        self._out[step.call_id] = reserved

    def called(self, step: ToolResultStep) -> None:
        reservation = self._out.pop(step.call_id, None)
        if reservation is None:
            return
        if step.denied:
            reservation.release()
        else:  # one that failed may have spent it all the same
            told = step.result.get("cost_usd") if isinstance(step.result, dict) else None
            known = isinstance(told, int | float) and not isinstance(told, bool) and told >= 0
            step.cost_usd = float(told) if known and told is not None else reservation.estimate_usd
            reservation.settle(step.cost_usd)

    def forget(self, call_id: str) -> None:
        """The call is not made after all, or decided anew."""
        reservation = self._out.pop(call_id, None)
        if reservation is not None:
            reservation.release()


def _number(arguments: dict[str, Any]) -> int:
    """The steps that a person gives; 0 for anything but a number."""
    try:
        return int(arguments["steps"])
    except (TypeError, ValueError):
        return 0


def _said(answer: ApprovalAnswer) -> str:
    if answer.by == "policy" or not (answer.reason or answer.by):
        return ""
    return f" ({answer.by or 'a person'} said no{': ' + answer.reason if answer.reason else ''})"
