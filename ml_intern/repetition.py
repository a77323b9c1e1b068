"""RepetitionGuard: sees an agent go round in circles, and says so before it costs the night.

What must never happen here: work that moves is held up (watching a job whose answers change, a retry that changes something,
a long wait); a turn goes on for ever without moving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .facts import ActionFacts

SAME, LONGEST_CYCLE, ROUNDS = 3, 5, 3
"""Equal steps that are a loop; steps that a cycle has at most; rounds of it that are a loop."""
SAME_ERROR = 4
"""Steps in a row that fail alike, whatever their code."""
NO_PROGRESS = 40
"""Steps in a row that show nothing new."""
WAITED_SECONDS, WAITS = 8.0, 20
"""A step that took so long was waiting for something: so many equal ones are a loop."""
PATIENCE = 2
"""Steps that a word to the agent gets to take effect, at least."""
FORGOTTEN = 12
"""Steps without a loop after which the next one begins with a hint again."""

LEVELS = ("hint", "replan", "stop")


@dataclass(frozen=True)
class Loop:
    """A loop that the newest steps are in.

    Args:
        kind (`str`): `same`, `cycle`, `error` or `idle`.
        length (`int`): Steps of one round.
        steps (`int`): Steps that are part of it.
        what (`str`): In words.
    """

    kind: str
    length: int
    steps: int
    what: str


@dataclass(frozen=True)
class Told:
    """A word that the agent was given: after how many steps of its turn, and of which level."""

    after: int
    level: str


@dataclass(frozen=True)
class Verdict:
    """What to do: nothing (`level` is `""`), a `hint`, `replan`, or `stop` (ask a person or end the turn)."""

    level: str = ""
    reason: str = ""


def loop_in(facts: Sequence[ActionFacts]) -> Loop | None:
    """The loop that the newest steps are in, if any. Pure.

    Steps are equal where code and result are: a job that is asked for its state again and again and answers something else
    each time is no loop. Two failures are equal where their errors are, less what differs each time anyway.
    """
    if not facts or facts[-1].progress:
        return None
    for length in range(1, LONGEST_CYCLE + 1):
        rounds = _rounds(facts, length)
        waited = min((fact.seconds for fact in facts[-length:]), default=0.0) >= WAITED_SECONDS
        if rounds >= (WAITS if waited else SAME if length == 1 else ROUNDS):
            if length == 1:
                return Loop("same", 1, rounds, f"the last {rounds} steps ran the same code and saw the same")
            return Loop("cycle", length, rounds * length, f"the same {length} steps were made {rounds} times over")
    failed = _run(facts, lambda fact: bool(fact.error) and fact.error == facts[-1].error)
    if failed >= SAME_ERROR:
        return Loop("error", 1, failed, f"the last {failed} steps failed with the same error: {facts[-1].error[:200]}")
    idle = _run(facts, lambda fact: not fact.fresh and not fact.progress)
    if idle >= NO_PROGRESS:
        return Loop("idle", 1, idle, f"the last {idle} steps showed nothing new")
    return None


def _key(fact: ActionFacts) -> tuple[str, str]:
    return fact.action, fact.error or fact.result


def _rounds(facts: Sequence[ActionFacts], length: int) -> int:
    """How often the last `length` steps were made one after the other, up to now."""
    last, rounds = [_key(fact) for fact in facts[-length:]], 0
    if len(last) < length or (length > 1 and len(set(last)) == 1):
        return 0
    end = len(facts)
    while end >= length and [_key(fact) for fact in facts[end - length : end]] == last:
        if any(fact.progress for fact in facts[end - length : end]):
            break
        rounds, end = rounds + 1, end - length
    return rounds


def _run(facts: Sequence[ActionFacts], holds: Callable[[ActionFacts], bool]) -> int:
    count = 0
    for fact in reversed(facts):
        if not holds(fact):
            break
        count += 1
    return count


def decide(facts: Sequence[ActionFacts], told: Sequence[Told]) -> Verdict:
    """What to do after the newest step. Pure.

    Args:
        facts (`Sequence[ActionFacts]`): Of this turn's steps, oldest first.
        told (`Sequence[Told]`): What was done about loops in this turn, oldest first.
    """
    loop = loop_in(facts)
    if loop is None:
        return Verdict()
    last = told[-1] if told else None
    if last is None or len(facts) - last.after > FORGOTTEN + loop.steps:
        return Verdict(LEVELS[0], loop.what)
    if len(facts) - last.after < max(PATIENCE, loop.length):
        return Verdict()
    level = LEVELS[min(LEVELS.index(last.level) + 1, len(LEVELS) - 1)]
    return Verdict(level, loop.what)


def by_guard(level: str) -> str:
    """Who speaks when the guard does."""
    return f"repetition guard, {level}"


HINT = (
    "You are going round in circles: {what}. Doing it once more will not change that. Look at what you know, find out what is "
    "different from what you assumed, and try something else. If you are waiting for something, wait longer in one step."
)
REPLAN = (
    "You are still going round in circles: {what}. Stop. Before anything else, say in one sentence what does not work and why, "
    "then write a new plan{tool} that reaches the goal in another way, or that leaves out what cannot be done and says so."
)


class RepetitionGuard:
    """Watches the steps of a turn; see [`decide`]. Its words are added at the end of the conversation."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def begin(self) -> None:
        """A new turn."""
        self.told = []

    def fresh(self) -> RepetitionGuard:
        """Another one of the same kind, for a sub-agent."""
        return RepetitionGuard()

    def look(self, facts: Sequence[ActionFacts]) -> Verdict:
        """After each step. Takes note of what it says."""
        verdict = decide(facts, self.told)
        if verdict.level:
            self.told.append(Told(len(facts), verdict.level))
        return verdict

    def said(self, after: int, by: str) -> None:
        """A word that a session's record has, after so many steps: whose it is says of which level."""
        level = next((level for level in LEVELS if by == by_guard(level)), LEVELS[0])
        self.told.append(Told(after, level))

    @staticmethod
    def words(verdict: Verdict, plan_tool: bool) -> str:
        """What the agent is told."""
        if verdict.level == "hint":
            return HINT.format(what=verdict.reason)
        return REPLAN.format(what=verdict.reason, tool=" with the tool `plan`" if plan_tool else "")
