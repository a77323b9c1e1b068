"""Words that mean something when they are all of a message in a session's thread; anything else is for the agent. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

HELP = (
    "`stop` · `status` · `budget 5` (dollars more) · `more steps 20` · `model ollama/qwen2.5-coder:32b` · `share` · `verbose` "
    "· `quiet`. Anything else is told to the agent."
)


@dataclass(frozen=True)
class Word:
    """What is wanted (`stop`, `status`, `budget`, `steps`, `model`, `share`, `verbose`, `quiet`, `help`), how much, or which."""

    name: str
    number: float = 0.0
    text: str = ""

    @property
    def act(self) -> str:
        """What somebody has to be allowed to: see `slack_members`."""
        if self.name == "model" and not self.text:
            return "look"
        kinds = {"budget": "extend", "steps": "extend", "model": "extend", "share": "share", "stop": "steer"}
        return kinds.get(self.name, "look")


_BUDGET = re.compile(r"budget\s*\+?\s*\$?\s*(\d{1,6}(?:\.\d{1,2})?)\s*(?:\$|usd|dollars?)?(?:\s+more)?")
_STEPS = re.compile(r"(?:(?:(\d{1,4})\s+)?more\s+steps|more\s+steps\s+(\d{1,4})|steps\s+(\d{1,4}))")
_MODEL = re.compile(r"model(?:\s+`?(\S+?(?:\s*,\s*\S+?)*)`?)?", re.IGNORECASE)
"""One, or a chain: names have no spaces, so that a sentence that begins so is a sentence."""
_PLAIN = {
    "stop": "stop",
    "cancel": "stop",
    "status": "status",
    "share": "share",
    "verbose": "verbose",
    "quiet": "quiet",
    "help": "help",
}
MORE = 20
"""Steps that `more steps` gives."""


def word(text: str) -> Word | None:
    """The word that a message is, `None` where it is a message."""
    said = " ".join(text.strip().strip("/.!").split()).casefold()
    if said in _PLAIN:
        return Word(_PLAIN[said])
    if found := _BUDGET.fullmatch(said):
        return Word("budget", float(found[1]))
    if found := _STEPS.fullmatch(said):
        return Word("steps", float(next(filter(None, found.groups()), MORE)))
    if found := _MODEL.fullmatch(" ".join(text.strip().lstrip("/").split())):
        return Word("model", text=found[1] or "")
    return None
