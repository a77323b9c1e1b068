"""ApprovalPolicy: whether a call is allowed, asked about or refused. A pure function: no clock, no state, no model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .rules import BadRule, Call, Rule, foreign, rule_for

MODES = ("ask", "plan", "auto", "deny")


@dataclass(frozen=True)
class Verdict:
    """`allow`, `ask` or `deny`, why, and the rule that decided (`None` where none did)."""

    action: str
    reason: str
    rule: Rule | None = None


@dataclass(frozen=True)
class ApprovalPolicy:
    """Decides from what a call does to the world, in this order:

    1. A rule that denies wins over everything.
    2. In the mode `plan` whatever is not reading is refused.
    3. A rule that asks wins over every rule that allows. Without one, reading is free.
    4. A tool of somebody else's whose definition nobody has read or that changed, a destination in a namespace that is not
       the user's, text from an untrusted source, and an estimate that the budget does not cover are asked about: no rule
       allows them.
    5. A rule that allows. Else the word of the caller who passed the tool in, for a tool that does not say what it does
       or runs code. Else it is asked about, or refused in the mode `deny`.

    Args:
        mode (`str`, defaults to `"ask"`): `plan` (reading only), `deny` (what would be asked about is refused), `ask`, or
            `auto`, which decides as `ask` does and says that the rules are meant to carry a night without anybody there.
        rules (`tuple[Rule, ...]`): deny over ask over allow, whatever their order.
        trust_vouched (`bool`, defaults to `True`): Whether being passed in by the caller vouches for a tool that runs code
            or does not say what it does. It never does for one that writes or spends.
        own (`frozenset[str]`): The user's own namespaces, in lower case: what `me` stands for in rules.
    """

    mode: str = "ask"
    rules: tuple[Rule, ...] = ()
    trust_vouched: bool = True
    own: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"`mode` is one of {', '.join(MODES)}, not {self.mode!r}.")
        object.__setattr__(self, "own", frozenset(name.lower() for name in self.own))

    @classmethod
    def of(
        cls,
        allow: Iterable[str | Rule] = (),
        deny: Iterable[str | Rule] = (),
        mode: str = "ask",
        *,
        trust_vouched: bool = True,
        own: Iterable[str] = (),
    ) -> ApprovalPolicy:
        """A policy from rules as people write them.

        Raises:
            BadRule: one of them is none, or says something else than the list that it stands in.
        """
        rules = [*(_read(rule, "allow") for rule in allow), *(_read(rule, "deny") for rule in deny)]
        return cls(mode, tuple(rules), trust_vouched, frozenset(own))

    def with_rule(self, rule: Rule) -> ApprovalPolicy:
        return self if rule in self.rules else replace(self, rules=(*self.rules, rule))

    def decide(self, call: Call) -> Verdict:
        matching = [rule for rule in self.rules if rule.matches(call, self.own)]
        for rule in matching:
            if rule.action == "deny":
                return Verdict("deny", f"the rule '{rule}' refuses it", rule)
        if self.mode == "plan" and call.effects != "read":
            return Verdict("deny", "only reading is allowed while planning (mode plan)")
        for rule in matching:
            if rule.action == "ask":
                return self._asked(f"the rule '{rule}' asks about it", rule)
        if call.effects == "read":
            return Verdict("allow", "it only reads")
        if reason := self._always_asked(call):
            return self._asked(reason)
        for rule in matching:
            return Verdict("allow", f"the rule '{rule}' allows it", rule)
        if self._vouched(call):
            return Verdict("allow", "the caller passed this tool in")
        return self._asked(_DOES[call.effects])

    def rule_for(self, call: Call) -> Rule | None:
        """The rule that would have calls of this kind allowed; `None` where none can, or none should."""
        rule = rule_for(call, self.own)
        if rule is None or self.with_rule(rule).decide(call).action != "allow":
            return None
        return rule

    def _asked(self, reason: str, rule: Rule | None = None) -> Verdict:
        if self.mode == "deny":
            return Verdict("deny", f"{reason}, and nothing is asked about in the mode deny", rule)
        return Verdict("ask", reason, rule)

    def _always_asked(self, call: Call) -> str:
        if call.news:
            return f"{_DOES[call.effects]}, and {call.news}"
        if foreign(call.destination, self.own):
            assert call.destination is not None
            return f"{_DOES[call.effects]}, at {call.destination.name}, which is not in a namespace of yours"
        if call.sources and not self._vouched(call):
            return f"{_DOES[call.effects]}, and repeats text from {', '.join(call.sources)}"
        if call.left_usd is not None and call.cost_usd is not None and call.cost_usd > call.left_usd:
            return f"it costs about ${call.cost_usd:.2f}, and ${max(call.left_usd, 0):.2f} of the budget are left"
        if call.effects == "spend" and call.left_usd is not None and call.cost_usd is None:
            return "it spends money, nobody knows how much, and there is a budget"
        return ""

    def _vouched(self, call: Call) -> bool:
        return call.vouched and self.trust_vouched and call.effects in ("execute", "unknown")


_DOES = {
    "write": "it publishes or changes something",
    "spend": "it spends money",
    "execute": "it runs code outside the jail",
    "unknown": "it does not say what it does",
}


def _read(rule: str | Rule, action: str) -> Rule:
    parsed = rule if isinstance(rule, Rule) else Rule.parse(rule, action)
    if parsed.action != action:
        raise BadRule(str(rule), f"it stands among the rules that {action}")
    return parsed
