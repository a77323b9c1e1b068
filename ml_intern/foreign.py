"""ForeignTool: a tool of somebody else's that this project stands in front of, of an MCP server or from the Hub.

What must never happen here: what such a tool says of itself lowers a verdict; a definition that nobody has read, or that
changed since, is used without a person's word, whatever a rule allows; its words reach the model as anything but a quotation.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from smolagents import Tool

WORDS, ARGUMENT_WORDS = 600, 160
"""Characters of a tool's own description, and of an argument's, that a model reads."""

_CODE = re.compile(r"</?\s*code\s*>|```|\"\"\"|'''|<\|.*?\|>", re.IGNORECASE)


@dataclass(frozen=True)
class Introduction:
    """What a person should know of a tool before a call of it.

    Args:
        text (`str`): Where it comes from, its definition in full, what changed.
        digest (`str`): Of the definition; an answer binds to it.
        news (`str`): Why this has to be read first (`"its definition has changed"`); `""` where a person has read it.
    """

    text: str
    digest: str
    news: str = ""


class ForeignTool(Tool):
    """What it does to the world is unknown, whatever it says of itself: each call is asked about unless a rule allows it.

    `workspace` and `call_id` are filled in for each call.
    """

    foreign = True
    skip_forward_signature_validation = True
    workspace: Any = None
    call_id = ""
    origin = ""
    """Where it comes from, for the record."""
    words = ""
    """What a model reads of it that somebody else wrote."""

    def introduce(self) -> Introduction:
        """What a person reads before a call; looked up anew for each.

        Raises:
            InternError: it cannot be called.
        """
        raise NotImplementedError

    def met(self, seen: Introduction) -> None:
        """A person has read this and approved a call."""

    def by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their names; `None` for what may be left out is left out."""
        if len(args) > len(self.inputs):
            raise TypeError(f"`{self.name}` takes {len(self.inputs)} arguments, not {len(args)}.")
        given = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        if unknown := [name for name in given if name not in self.inputs]:
            raise TypeError(
                f"`{self.name}` has no argument {unknown[0]!r}. It has: {', '.join(self.inputs) or 'none'}."
            )
        missing = [name for name, about in self.inputs.items() if not about.get("nullable") and name not in given]
        if missing:
            raise TypeError(f"`{self.name}` needs {', '.join(missing)}.")
        return {
            name: value for name, value in given.items() if value is not None or not self.inputs[name].get("nullable")
        }


def quoted(text: Any, most: int = WORDS) -> str:
    """Somebody's words for a model: one line in double quotes, bounded, with nothing in it that ends a quotation or hides."""
    shown = "".join(" " if char.isspace() else char for char in str(text or "") if char.isspace() or not _hidden(char))
    shown = " ".join(_CODE.sub(" ", shown).split())
    if len(shown) > most:
        shown = shown[:most].rstrip() + " (cut)"
    return json.dumps(shown, ensure_ascii=False)


def _hidden(char: str) -> bool:
    """Control characters, and those that are invisible or turn the direction of writing."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn") or char in "\u2800\u3164\u115f\u1160"
