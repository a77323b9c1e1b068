"""A grant for the night: what a session may do without a question, proposed by the agent, given by a person, once.

What must never happen here: a rule holds that nobody read and accepted; it holds longer than its session; text from outside
proposes what is given without that being said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from smolagents import Tool

from .approval import BadRule, Rule
from .approval.words import STILL_ASKED, in_words
from .events import ApprovalAnswer
from .steps import GRANT

OVERNIGHT = (
    "(I leave soon, and want to be asked once, now, rather than at night. Look at what this will take, and before anything else "
    "call `propose_grant` with as few and as narrow rules as will do, and a budget.)"
)
"""What a person's wish to be asked once is said with."""
MOST = 20


@dataclass(frozen=True)
class Budget:
    """What a session has spent and may spend, in US dollars; without a limit `limit_usd` is `None`."""

    spent_usd: float = 0.0
    limit_usd: float | None = None


class ProposeGrantTool(Tool):
    """Puts rules to a person, each in words; those that they accept hold for the session.

    Args:
        on_grant (`Callable[[Sequence[Rule], float | None, str], None]`): Gets the rules, the dollars that may be spent from
            here on, and who said so.
        budget (`Callable[[], Budget]`, *optional*): As it stands.
        effects_of (`Callable[[str], str]`, *optional*): What the tool of that name does.

    Attributes:
        answer (`ApprovalAnswer`, *optional*): Set for each call, on a copy of the tool, once a person has answered.
    """

    name = GRANT
    effects = "read"
    answer: ApprovalAnswer | None = None
    description = (
        "Proposes to the user what this session may do without asking each time; they edit, accept or refuse it. Use it once, "
        "where the work needs several approvals and nobody may be there later. Few and narrow rules: a tool, a place, who can "
        "see it, a bound of cost, e.g. `hub_push:me/*:private`, `training_job:hf_jobs:<=5usd`. Returns what holds now."
    )
    inputs: dict = {
        "rules": {"type": "array", "description": "The rules."},
        "why": {"type": "string", "description": "What they are needed for."},
        "budget_usd": {"type": "number", "description": "What may be spent from here on, in all.", "nullable": True},
    }
    output_type = "object"
    output_schema: dict = {
        "type": "object",
        "properties": {
            "granted": {"type": "array", "items": {"type": "string"}},
            "budget_usd": {"type": ["number", "null"]},
            "answer": {"type": "string"},
        },
    }

    def __init__(
        self,
        on_grant: Callable[[Sequence[Rule], float | None, str], None],
        budget: Callable[[], Budget] = Budget,
        effects_of: Callable[[str], str] = lambda tool: "",
    ) -> None:
        super().__init__()
        self.on_grant, self.budget, self.effects_of = on_grant, budget, effects_of

    def check(self, rules: list, why: str, budget_usd: float | None = None) -> None:
        """Raises where there is nothing to put to anybody."""
        if not isinstance(why, str) or not why.strip():
            raise ValueError("`why` is empty: say what the rules are needed for.")
        if budget_usd is not None and not (isinstance(budget_usd, int | float) and 0 < budget_usd < 1e6):
            raise ValueError(f"`budget_usd` is a number of dollars, not {budget_usd!r}.")
        if not isinstance(rules, list | tuple) or len(rules) > MOST:
            raise ValueError(f"`rules` is a list of at most {MOST} texts, such as ['hub_push:me/*:private'].")
        good, bad = read(rules)
        if not good and budget_usd is None:
            raise ValueError("; ".join(bad) or "There is no rule to propose.")

    def preview(self, rules: list, why: str, budget_usd: float | None = None) -> str:
        """What a person reads."""
        good, bad = read(rules)
        lines = [f"In this session, until it ends, because: {' '.join(str(why).split())}"]
        for rule in good:
            meaning = in_words(rule, self.effects_of(rule.tool))
            lines += ["", rule.short, f"  lets happen: {meaning.lets}", f"  and not:     {meaning.keeps}"]
            if meaning.wide:
                lines.append(f"  ! wide:      {meaning.wide}")
        lines += ["", *(f"left out, as it is none: {problem}" for problem in bad)] if bad else []
        if budget_usd is not None:
            now = self.budget()
            limit = "there is no limit now" if now.limit_usd is None else f"the limit is ${now.limit_usd:,.2f} now"
            lines += ["", f"budget: ${budget_usd:,.2f} from here on (${now.spent_usd:,.2f} are spent, {limit})"]
        return "\n".join([*lines, "", STILL_ASKED])

    def forward(self, rules: list, why: str, budget_usd: float | None = None) -> dict[str, Any]:
        self.check(rules, why, budget_usd)
        given = self.answer
        if given is None:
            return _nothing(
                "Nobody is there to grant anything. What the rules of the session allow can be done, the rest not."
            )
        if given.decision != "approve":
            said = given.text.strip() or given.reason.strip()
            who = f"{given.by or 'The user'} said no{f': {said}' if said else ''}"
            return _nothing(f"{who}. Each call is asked about when it is made.")
        good, bad = read(rules)
        self.on_grant(good, budget_usd, given.by)
        answer = f"{given.by or 'The user'} granted this, for this session."
        if bad:
            answer += f" Left out: {'; '.join(bad)}"
        return {"granted": [rule.short for rule in good], "budget_usd": budget_usd, "answer": answer}


def read(rules: Sequence[Any]) -> tuple[list[Rule], list[str]]:
    """Which texts are rules that allow, and why the others are none."""
    good, bad = [], []
    for text in rules:
        try:
            rule = Rule.parse(str(text))
        except BadRule as error:
            bad.append(f"{error.what} ({error.why})")
            continue
        if rule.action != "allow":
            bad.append(f"'{text}' does not allow anything")
        elif rule not in good:
            good.append(rule)
    return good, bad


def _nothing(answer: str) -> dict[str, Any]:
    return {"granted": [], "budget_usd": None, "answer": answer}
