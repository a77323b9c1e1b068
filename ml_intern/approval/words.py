"""A rule in words: what it lets happen, and what it does not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .rules import Rule

STILL_ASKED = (
    "Whatever the rules say, it is still asked: before anything goes to a namespace that is not yours, before text from outside "
    "goes anywhere, and where the budget does not cover it. Rules that refuse win over all of them."
)
_WHERE = {
    "read": "where it only reads",
    "write": "where it publishes or changes something",
    "spend": "where it spends money",
    "execute": "where it runs code outside the jail",
    "unknown": "where it does not say what it does",
}


@dataclass(frozen=True)
class Meaning:
    """What a rule that allows comes to: what happens then without a question, what does not, and how it is wide."""

    lets: str
    keeps: str
    wide: str = ""


def in_words(rule: Rule, effects: str = "") -> Meaning:
    """A rule that allows, in words.

    Args:
        rule (`Rule`): The rule.
        effects (`str`, *optional*): What the tool does, where it is one and says so: `write`, `spend` and so on.
    """
    tool = _tool(rule.tool)
    parts = [f"{tool} without a question"]
    if rule.effects:
        parts.append(" or ".join(_WHERE[effect] for effect in rule.effects))
    parts += [f"with `{name}` = {_pattern(pattern)}" for name, pattern in rule.arguments]
    if rule.destination or rule.visibility:
        parts.append(_place(rule.destination or "*", rule.visibility))
    if rule.max_usd is not None:
        parts.append(f"up to ${rule.max_usd:,.2f} each time")
    keeps = []
    if rule.destination and rule.destination != "*":
        keeps.append("anywhere else")
    if rule.visibility and rule.visibility != "*":
        keeps.append(f"what is not {rule.visibility}")
    if any(pattern != "*" for _, pattern in rule.arguments):
        keeps.append("with other arguments")
    if rule.max_usd is not None:
        keeps.append("what costs more each time, or nobody knows how much")
    return Meaning(", ".join(parts), "; ".join(keeps) or "nothing of that tool", _wide(rule, effects))


def _wide(rule: Rule, effects: str) -> str:
    if any(sign in rule.tool for sign in "*?["):
        return "it holds for more than one tool, those to come included"
    spends = effects == "spend" or "spend" in rule.effects
    if spends and rule.max_usd is None:
        return "nothing but the budget limits what one call may cost"
    anywhere = rule.destination == "*" and not rule.visibility
    if rule.visibility == "*" or anywhere or (rule.destination and not rule.visibility and "/" in rule.destination):
        return "what others can see is allowed as well"
    bound = any(pattern != "*" for _, pattern in rule.arguments)
    if not (rule.destination or rule.visibility or bound or rule.max_usd is not None):
        return "whatever its arguments are"
    return ""


def _tool(pattern: str) -> str:
    if pattern == "*":
        return "every tool"
    return f"`{pattern}`" if not any(sign in pattern for sign in "*?[") else f"every tool whose name fits `{pattern}`"


def _pattern(pattern: str) -> str:
    return "anything" if pattern == "*" else f"`{pattern}`"


def _place(destination: str, visibility: str) -> str:
    space, slash, rest = destination.partition("/")
    if destination == "*":
        where = "to any place"
    elif slash and space == "me":
        where = "to any repository of yours" if rest == "*" else f"to {_pattern(rest)} in a namespace of yours"
    else:
        where = f"to `{destination}`"
    return where + (f" that is {visibility}" if visibility and visibility != "*" else "")
