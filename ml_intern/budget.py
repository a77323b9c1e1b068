"""What a session may cost, in money, hours (`SpendLedger`) and steps (`StepBudget`).

What must never happen here: money is spent that was not set aside first; several calls at once exceed a budget by more than
the difference of one of them between what was set aside and what it took; an unknown price counts as none.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .errors import InternError
from .events import Usage
from .facts import ActionFacts

WAIT_SECONDS = 0.2
"""How often one that waits for money that is set aside looks whether it is still wanted."""


class BudgetUsedUp(InternError):
    """What is left of a budget does not cover what is about to be spent."""


@dataclass(eq=False)
class Reservation:
    """Money set aside for one call: [`settle`] it with what it took, or [`release`] it. What comes second does nothing.

    Args:
        kind (`str`): What for: `model`, `summary`, `plan`, a tool's name.
        estimate_usd (`float`, *optional*): Set aside; `None` where the price is unknown, and nothing is.
        at_most_usd (`float`, *optional*): What it can take in the worst case; `None` where nobody knows.
    """

    kind: str
    estimate_usd: float | None
    at_most_usd: float | None
    _ledger: SpendLedger = field(repr=False)
    _open: bool = field(default=True, repr=False)

    def settle(
        self,
        cost_usd: float | None,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> Usage:
        """The call took this (`None`: nobody knows). Returns the usage of the ledger that it was set aside in."""
        used = Usage(input_tokens, output_tokens, cached_tokens, _price(cost_usd), reasoning_tokens)
        return self._ledger._close(self, used)

    def release(self) -> None:
        """The call was not made."""
        self._ledger._close(self, None)


@dataclass
class SpendLedger:
    """One ledger for a session and all its sub-agents: model calls, summaries, sandboxes and jobs.

    Args:
        budget_usd (`float`, *optional*): In US dollars. Calls of a model whose price is unknown cannot be held to it: they are
            counted in `unpriced_calls`.
        max_hours (`float`, *optional*): Wall-clock hours from the first use.
        usage (`Usage`): Of all calls so far; its sum is unknown once a price was.
        spent_usd (`float`): What is known to be spent; calls of unknown price are not in it.
        unpriced_calls (`int`): How many those are.
        parent (`SpendLedger`, *optional*): Everything counts there as well.
    """

    budget_usd: float | None = None
    max_hours: float | None = None
    usage: Usage = field(default_factory=Usage)
    started: float = field(default_factory=time.monotonic)
    spent_usd: float = 0.0
    unpriced_calls: int = 0
    parent: SpendLedger | None = field(default=None, repr=False)
    _out: list[Reservation] = field(default_factory=list, repr=False)
    _lock: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def __post_init__(self) -> None:
        if self.parent is not None:
            self._lock = self.parent._lock  # one for the tree: what is left is looked at and taken in one go

    @classmethod
    def restored(
        cls,
        budget_usd: float | None,
        max_hours: float | None,
        usage: Usage,
        spent_usd: float,
        unpriced_calls: int = 0,
        hours: float = 0.0,
    ) -> SpendLedger:
        """A ledger that goes on from the totals of a session's record; `hours` are those used so far."""
        return cls(budget_usd, max_hours, usage, time.monotonic() - hours * 3600, spent_usd, unpriced_calls)

    def child(self, share_usd: float | None = None, max_hours: float | None = None) -> SpendLedger:
        """A ledger of its own for a sub-agent, with a budget of its own within this one.

        Args:
            share_usd (`float`, *optional*): What it may spend; not more than is left here. Without it: all that is left.
            max_hours (`float`, *optional*): Hours from now.
        """
        return SpendLedger(share_usd, max_hours, parent=self)

    def take_up(
        self,
        budget_usd: float | None,
        max_hours: float | None,
        usage: Usage,
        spent_usd: float,
        unpriced_calls: int,
        seconds: float,
    ) -> None:
        """Goes on from the totals of a session's record; limits that are `None` stay as they are."""
        with self._lock:
            self.budget_usd = self.budget_usd if budget_usd is None else budget_usd
            self.max_hours = self.max_hours if max_hours is None else max_hours
            self.usage, self.spent_usd, self.unpriced_calls = usage, spent_usd, unpriced_calls
            self.started = time.monotonic() - seconds

    @property
    def hours(self) -> float:
        """Hours from the first use."""
        return (time.monotonic() - self.started) / 3600

    @property
    def limited(self) -> bool:
        """Whether any money is counted against a budget, here or above."""
        return any(ledger.budget_usd is not None for ledger in self._chain())

    def left_usd(self) -> float | None:
        """What is neither spent nor set aside, `None` without a budget."""
        with self._lock:
            left = [ledger._left() for ledger in self._chain()]
        return min((usd for usd in left if usd is not None), default=None)

    def reserve(
        self,
        kind: str,
        estimate_usd: float | None,
        at_most_usd: float | None = None,
        keep_usd: float = 0.0,
        cancelled: Callable[[], bool] | None = None,
    ) -> Reservation:
        """Sets money aside for one call. Blocks while calls at once could together exceed a budget.

        As long as the worst cases of all calls that are out fit, they run side by side. Where they do not, one waits for the
        other: so only one at a time can turn out dearer than was set aside for it and exceed the budget by that difference.

        Args:
            kind (`str`): What for.
            estimate_usd (`float`, *optional*): `None` where the price is unknown: then nothing is set aside.
            at_most_usd (`float`, *optional*): The worst case; `None` where nobody knows it, and the call is made alone.
            keep_usd (`float`): What has to be left afterwards, for the last word.
            cancelled (`Callable[[], bool]`, *optional*): Looked at while it waits.

        Raises:
            BudgetUsedUp: it does not fit, or was cancelled.
        """
        estimate_usd, at_most_usd = _price(estimate_usd), _price(at_most_usd)
        worst = at_most_usd if at_most_usd is None else max(at_most_usd, estimate_usd or 0.0)
        reservation = Reservation(kind, estimate_usd, worst, self)
        wanted = estimate_usd or 0.0
        with self._lock:
            while True:
                for ledger in self._chain():
                    ledger._refuse_beyond(kind, wanted, keep_usd)
                if all(ledger._safe(worst) for ledger in self._chain()):
                    break
                if cancelled is not None and cancelled():
                    raise BudgetUsedUp(f"No money was set aside for {kind}", "it was interrupted while it waited")
                self._lock.wait(WAIT_SECONDS)
            for ledger in self._chain():
                ledger._out.append(reservation)
        return reservation

    def record(
        self, input_tokens: int, output_tokens: int, cached_tokens: int = 0, cost_usd: float | None = None
    ) -> Usage:
        """Adds one call for which nothing was set aside. `cost_usd` is `None` where the price is unknown."""
        used = Usage(input_tokens, output_tokens, cached_tokens, _price(cost_usd))
        return self._close(Reservation("", None, 0.0, self), used)

    def correct(self, usd: float) -> Usage:
        """What was counted in full beforehand took so much more, or less (negative)."""
        return self._close(Reservation("", None, 0.0, self), Usage(cost_usd=usd))

    def raise_by(self, usd: float = 0.0, hours: float = 0.0) -> None:
        """More of both, where there is a limit. Raises `ValueError` for less."""
        if usd < 0 or hours < 0:
            raise ValueError("A budget is raised, not lowered: give positive numbers.")
        with self._lock:
            self.budget_usd = self.budget_usd if self.budget_usd is None else self.budget_usd + usd
            self.max_hours = self.max_hours if self.max_hours is None else self.max_hours + hours
            self._lock.notify_all()

    def raise_to(self, budget_usd: float | None, max_hours: float | None) -> None:
        """New limits, `None` for none."""
        with self._lock:
            self.budget_usd, self.max_hours = budget_usd, max_hours
            self._lock.notify_all()

    def exceeded(self) -> str:
        """Why no call may be made any more, or `""`."""
        with self._lock:
            for ledger in self._chain():
                if ledger.budget_usd is not None and ledger.spent_usd >= ledger.budget_usd:
                    return ledger._account()
        for ledger in self._chain():
            if ledger.max_hours is not None and ledger.hours >= ledger.max_hours:
                return f"{ledger.hours:.2f} of {ledger.max_hours:.2f} hours are over"
        return ""

    def _chain(self) -> Iterator[SpendLedger]:
        ledger: SpendLedger | None = self
        while ledger is not None:
            yield ledger
            ledger = ledger.parent

    def _left(self) -> float | None:
        if self.budget_usd is None:
            return None
        return self.budget_usd - self.spent_usd - sum(out.estimate_usd or 0.0 for out in self._out)

    def _refuse_beyond(self, kind: str, wanted: float, keep: float) -> None:
        left = self._left()
        if left is not None and wanted + keep > left:
            last = " and a last word" if keep else ""
            raise BudgetUsedUp(
                self._account(), f"${max(left, 0):.2f} are left, {kind}{last} may take ${wanted + keep:.2f}"
            )

    def _safe(self, worst: float | None) -> bool:
        """Whether, beside what is out, this call cannot exceed the budget, or is alone in it."""
        out = [other for other in self._out if other.at_most_usd != 0.0]
        if self.budget_usd is None or not out or worst == 0.0:
            return True
        if worst is None or any(other.at_most_usd is None for other in out):
            return False
        return worst + sum(other.at_most_usd or 0.0 for other in out) <= self.budget_usd - self.spent_usd

    def _account(self) -> str:
        share = "" if self.parent is None else " of its share"
        return f"${self.spent_usd:.2f} of ${self.budget_usd:.2f}{share} are spent"

    def _close(self, reservation: Reservation, used: Usage | None) -> Usage:
        with self._lock:
            if not reservation._open:
                return self.usage
            reservation._open = False
            for ledger in self._chain():
                if reservation in ledger._out:
                    ledger._out.remove(reservation)
                if used is not None:
                    ledger._add(used)
            self._lock.notify_all()
            return self.usage

    def _add(self, used: Usage) -> None:
        self.unpriced_calls += used.cost_usd is None
        self.spent_usd += used.cost_usd or 0.0
        self.usage += used


def _price(usd: float | None) -> float | None:
    """What a service says that it costs; what is no amount of money is not known."""
    return usd if usd is not None and math.isfinite(usd) and usd >= 0 else None


QUESTION_STEPS, FIRST_STEPS, MORE_STEPS = 12, 30, 20
"""Steps that a simple question gets at first, that other tasks get, and that progress adds."""


def first_allowance(task: str) -> int:
    """A short question gets few steps at first: most of those that take more are going nowhere."""
    text = task.strip()
    return QUESTION_STEPS if text.endswith("?") and len(text.split()) <= 40 else FIRST_STEPS


def progress_in(facts: Sequence[ActionFacts]) -> str:
    """What moved in these steps, or `""`. A pure function of what they did.

    Either something that counts by itself (a plan item closed, a new best metric, a note, a decision, a call that changed
    something), or most of the steps saw something that had not been seen before.
    """
    for fact in reversed(facts):
        if fact.progress:
            return fact.progress[-1]
    fresh = sum(fact.fresh for fact in facts)
    return f"{fresh} new results" if facts and fresh * 2 > len(facts) else ""


@dataclass(frozen=True)
class StepVerdict:
    """`go` (on), `extend` (by so many steps), `ask` (a person) or `stop`; and why."""

    action: str
    reason: str = ""
    steps: int = 0


@dataclass(frozen=True)
class Allowance:
    """How many steps a turn may take now, and in all."""

    now: int
    ceiling: int
    since: int = 0
    """Facts before this one have been counted for an extension."""
    wish: int = 0
    why: str = ""
    """What the agent asked for beyond the ceiling."""


def decide(allowance: Allowance, step: int, facts: Sequence[ActionFacts], may_ask: bool) -> StepVerdict:
    """Whether step number `step` may be taken. Pure."""
    if step <= allowance.now:
        return StepVerdict("go")
    if step > allowance.ceiling:
        if not may_ask:
            return StepVerdict("stop", f"{allowance.ceiling} steps")
        why = f"it says: {allowance.why}" if allowance.why else progress_in(facts[allowance.since :]) or "no progress"
        return StepVerdict("ask", f"all {allowance.ceiling} steps are used up; {why}", allowance.wish or MORE_STEPS)
    moved = progress_in(facts[allowance.since :])
    if moved:
        return StepVerdict("extend", f"progress: {moved}", MORE_STEPS)
    return StepVerdict("stop", f"no progress in the last {len(facts) - allowance.since} steps, {step - 1} in all")


class StepBudget:
    """The steps of a turn. Safe to use from several threads.

    Args:
        adaptive (`bool`, defaults to `False`): Begin with few steps and give more while there is progress, up to the ceiling
            (`max_steps` of the run). Otherwise a turn has all of them at once, as smolagents has it.
        ask_beyond (`bool`, defaults to `False`): Ask a person for more at the ceiling.
    """

    def __init__(self, adaptive: bool = False, ask_beyond: bool = False) -> None:
        self.adaptive, self.ask_beyond = adaptive, ask_beyond
        self._allowance, self._given = Allowance(0, 0), 0
        self._lock = threading.Lock()

    @property
    def allowance(self) -> int:
        """Steps that may be taken as things stand."""
        return self._allowance.now

    @property
    def ceiling(self) -> int:
        """Steps beyond which only a person can allow more."""
        return self._allowance.ceiling

    def begin(self, ceiling: int, task: str = "", at: int = 1) -> None:
        """A turn begins, or goes on at step `at`: then what was given to it by [`extend`] is added to its ceiling."""
        with self._lock:
            self._given = self._given if at > 1 else 0
            ceiling = max(ceiling + self._given, at - 1)
            first = ceiling if not self.adaptive else at - 1 + first_allowance(task)
            self._allowance = Allowance(min(first, ceiling), ceiling)

    def decide(self, step: int, facts: Sequence[ActionFacts]) -> StepVerdict:
        """As [`decide`], for the allowance as it stands."""
        return decide(self._allowance, step, facts, self.ask_beyond)

    def grant(self, steps: int, counted: int) -> None:
        """More steps within the ceiling; `counted` facts were looked at for it."""
        with self._lock:
            now = min(self._allowance.now + steps, self._allowance.ceiling)
            self._allowance = replace(self._allowance, now=now, since=counted)

    def extend(self, steps: int) -> int:
        """More steps, and a ceiling as much higher. Returns how many the turn may take in all."""
        if steps < 1:
            raise ValueError(f"`steps` is at least 1, not {steps}.")
        with self._lock:
            now, self._given = self._allowance, self._given + steps
            self._allowance = replace(now, now=now.now + steps, ceiling=now.ceiling + steps, wish=0, why="")
            return self._allowance.now

    def request(self, steps: int, reason: str) -> int:
        """The agent wants so many more: it gets what the ceiling leaves; a person is asked for the rest when it is reached.

        Returns:
            `int`: How many it got.
        """
        if steps < 1 or not reason.strip():
            raise ValueError("Give the number of further steps, at least 1, and a reason.")
        with self._lock:
            now = self._allowance
            got = min(steps, now.ceiling - now.now)
            self._allowance = replace(
                now, now=now.now + got, wish=steps - got, why=reason.strip() if steps > got else ""
            )
            return got
