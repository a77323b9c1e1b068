"""Rules: one line of text each, that allows, refuses or asks about calls of a kind.

    allow hub_push:me/*:private         pushes to one's own namespace, where only oneself can see them
    training_job:hf_jobs:<=5usd         jobs on Hugging Face Jobs whose estimate is at most 5 dollars ("allow" is understood)
    deny hub_push:*:public              nothing is ever published for everyone
    ask *@execute                       whatever runs code outside the jail
    send(channel=#team, text=*)         by arguments

The parts are `[action] tool[@effects][(argument=pattern, ...)][:destination[:visibility]][:<=5usd]`. Patterns are those of
the shell (`*`, `?`, `[...]`) and look at case. What holds a character that means something here is written in double quotes.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from ..errors import InternError
from ..events import Destination
from ..plain import as_text
from ..steps import ToolCallStep

ACTIONS = ("deny", "ask", "allow")
"""In the order in which they win."""
EFFECTS = ("read", "write", "spend", "execute", "unknown")

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_HEAD = re.compile(rf"({_QUOTED}|[^\s\"@():,=]+)(?:@([a-z,]+))?")
_ARGUMENT = re.compile(rf"\s*(\w+)\s*=\s*({_QUOTED}|[^\",()]*?)\s*(?:,|$)")
_PART = re.compile(
    rf":(?:<=\s*\$?([0-9]+(?:\.[0-9]+)?)\s*(?:usd)?|({_QUOTED}|[^\":()\s<>=][^\":()\s]*))", re.IGNORECASE
)
_PLAIN = re.compile(r'[^\s"@():,=<>]+')


class BadRule(InternError, ValueError):
    """A text that is no rule."""

    def __init__(self, text: str, why: str) -> None:
        remedy = "Write it like 'hub_push:me/*:private', 'deny hub_push:*:public' or 'training_job:hf_jobs:<=5usd'."
        super().__init__(f"{text!r} is no rule", why, remedy)


@dataclass(frozen=True)
class Call:
    """What a decision knows of a call.

    Args:
        tool (`str`), arguments (`Mapping`): The call.
        effects (`str`): `read`, `write`, `spend`, `execute` or `unknown`.
        vouched (`bool`): Whether the caller who passed the tool in vouches for it.
        destination (`Destination`, *optional*): Where it sends something; `None` where the tool does not say.
        cost_usd (`float`, *optional*): What it is estimated to cost; `None` where nobody knows.
        left_usd (`float`, *optional*): What is left of the budget; `None` where there is none.
        sources (`tuple[str, ...]`): The untrusted texts that it repeats.
        news (`str`): Why a person has to be asked whatever a rule says: what the tool is has changed, or what it is asked to
            do is more than it should decide.
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    effects: str = "unknown"
    vouched: bool = False
    destination: Destination | None = None
    cost_usd: float | None = None
    left_usd: float | None = None
    sources: tuple[str, ...] = ()
    news: str = ""

    @classmethod
    def of(cls, step: ToolCallStep, left_usd: float | None = None) -> Call:
        return cls(
            step.tool,
            step.arguments,
            step.effects,
            step.vouched,
            step.destination,
            step.cost_usd,
            left_usd,
            step.sources,
            step.news,
        )


@dataclass(frozen=True)
class Rule:
    """A rule; `str(rule)` is its text, and reads back as the same rule.

    Args:
        action (`str`): `allow`, `ask` or `deny`.
        tool (`str`): Pattern of the tool's name.
        effects (`tuple[str, ...]`): Any of these; empty for all.
        arguments (`tuple[tuple[str, str], ...]`): Name and pattern; all must match. A missing argument matches none.
        destination (`str`): Pattern of its name; `me/...` stands for the user's own namespaces. Empty for any, or none.
        visibility (`str`): Pattern: `private`, `public`. Empty for any.
        max_usd (`float`, *optional*): The estimate is known and at most this.
    """

    action: str
    tool: str
    effects: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    destination: str = ""
    visibility: str = ""
    max_usd: float | None = None

    @classmethod
    def parse(cls, text: str, action: str = "allow") -> Rule:
        """Reads a rule.

        Args:
            text (`str`): A line.
            action (`str`, defaults to `"allow"`): What is understood where the line does not say.

        Raises:
            BadRule: it is none; says what is wrong.
        """
        rest = text.strip()
        if len(rest.splitlines()) > 1:
            raise BadRule(text, "a rule is one line")
        first, _, after = rest.partition(" ")
        if first in ACTIONS and after.strip():
            action, rest = first, after.strip()
        head = _HEAD.match(rest)
        if head is None:
            raise BadRule(text, "it does not begin with the name of a tool")
        effects = tuple(dict.fromkeys(filter(None, (head[2] or "").split(","))))
        if wrong := [name for name in effects if name not in EFFECTS]:
            raise BadRule(text, f"effects are {', '.join(EFFECTS)}, not {wrong[0]}")
        arguments, rest = _arguments(text, rest[head.end() :])
        parts: list[str] = []
        max_usd = None
        while rest:
            part = _PART.match(rest)
            if part is None:
                raise BadRule(text, f"{rest!r} is left over")
            rest = rest[part.end() :]
            if part[1] is None:
                parts.append(_unquoted(text, part[2]))
            elif max_usd is not None:
                raise BadRule(text, "it names two bounds of cost")
            else:
                max_usd = float(part[1])
        if len(parts) > 2:
            raise BadRule(text, "after the tool come a destination and who can see it there, and no more")
        destination, visibility = [*parts, "", ""][:2]
        return cls(action, _unquoted(text, head[1]), effects, arguments, destination, visibility, max_usd)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"`action` is one of {', '.join(ACTIONS)}, not {self.action!r}.")
        if self.max_usd is not None and not (math.isfinite(self.max_usd) and self.max_usd >= 0):
            raise ValueError(f"`max_usd` is an amount of dollars, not {self.max_usd!r}.")

    def __str__(self) -> str:
        text = f"{self.action} {_quoted(self.tool)}" + (f"@{','.join(self.effects)}" if self.effects else "")
        if self.arguments:
            text += f"({', '.join(f'{name}={_quoted(pattern)}' for name, pattern in self.arguments)})"
        if self.destination or self.visibility:
            text += f":{_quoted(self.destination or '*')}"
        if self.visibility:
            text += f":{_quoted(self.visibility)}"
        return text if self.max_usd is None else f"{text}:<={_amount(self.max_usd)}usd"

    @property
    def short(self) -> str:
        """The text as one writes it where `allow` is understood."""
        return str(self).removeprefix("allow ")

    def matches(self, call: Call, own: frozenset[str] = frozenset()) -> bool:
        """Whether a call is of this rule's kind. `own` are the user's own namespaces."""
        if not _fits(call.tool, self.tool) or (self.effects and call.effects not in self.effects):
            return False
        if self.max_usd is not None and (call.cost_usd is None or not call.cost_usd <= self.max_usd):
            return False
        for name, pattern in self.arguments:
            if name not in call.arguments or not _fits(as_text(call.arguments[name]), pattern):
                return False
        if not (self.destination or self.visibility):
            return True
        where, pattern = call.destination, self.destination or "*"
        if where is not None and self.action != "allow":  # the Hub takes names in any case for the same repository
            where, pattern = replace(where, name=where.name.lower()), pattern.lower()
        return (
            where is not None
            and _leads_to(where.name, pattern, own)
            and (not self.visibility or _fits(where.visibility, self.visibility))
        )


def foreign(destination: Destination | None, own: frozenset[str]) -> bool:
    """Whether a destination lies in a namespace that is not the user's. Services (`hf_jobs`) lie in none."""
    return destination is not None and "/" in destination.name and destination.name.split("/")[0].lower() not in own


def rule_for(call: Call, own: frozenset[str]) -> Rule | None:
    """The rule that allows calls of this kind and as little else as makes sense; `None` where none should.

    One's own private repositories are one kind; what others can see is named. Money has a bound, so what nobody can price
    has no rule.
    """
    if call.effects == "spend" and call.cost_usd is None:
        return None
    max_usd = None if call.cost_usd is None else math.ceil(call.cost_usd * 100) / 100
    operation = call.arguments.get("operation")
    arguments = (("operation", _literal(operation)),) if isinstance(operation, str) else ()
    destination = visibility = ""
    if call.destination is not None:
        name, visibility = call.destination.name, _literal(call.destination.visibility)
        mine = "/" in name and not foreign(call.destination, own)
        destination = "me/*" if mine and visibility == "private" else _literal(name)
    return Rule("allow", _literal(call.tool), (), arguments, destination, visibility, max_usd)


def _arguments(text: str, rest: str) -> tuple[tuple[tuple[str, str], ...], str]:
    if not rest.startswith("("):
        return (), rest
    inside = re.match(rf"\(((?:{_QUOTED}|[^\"()])*)\)", rest)
    if inside is None:
        raise BadRule(text, "the parenthesis is not closed, or holds what belongs in double quotes")
    pairs, at = [], 0
    while inside[1][at:].strip():
        pair = _ARGUMENT.match(inside[1], at)
        if pair is None or pair.end() == at:
            raise BadRule(text, "arguments are written name=pattern, with commas between them")
        pairs.append((pair[1], _unquoted(text, pair[2])))
        at = pair.end()
    return tuple(pairs), rest[inside.end() :]


def _leads_to(name: str, pattern: str, own: frozenset[str]) -> bool:
    space, slash, rest = pattern.partition("/")
    if slash and space == "me":
        mine, _, inside = name.partition("/")
        return mine.lower() in own and _fits(inside, rest)
    return _fits(name, pattern)


def _fits(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern)


def _literal(text: str) -> str:
    """A pattern that only `text` fits."""
    return re.sub(r"([*?[])", r"[\1]", text)


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text not in ACTIONS else json.dumps(text)


def _unquoted(rule: str, text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise BadRule(rule, f"{text} is no text in double quotes") from None


def _amount(usd: float) -> str:
    text = format(Decimal(repr(usd)), "f")  # the shortest that reads back as the same, without an exponent
    return text.removesuffix(".0")
