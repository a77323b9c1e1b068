"""Words that mean something when they are all of a message in a session's thread; anything else is for the agent. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

HELP = (
    "`stop` · `status` · `budget 5` (dollars more) · `more steps 20` · `share` · `verbose` · `quiet`. "
    "Anything else is told to the agent."
)


@dataclass(frozen=True)
class Word:
    """What is wanted (`stop`, `status`, `budget`, `steps`, `model`, `share`, `verbose`, `quiet`, `help`), and how much."""

    name: str
    number: float = 0.0

    @property
    def act(self) -> str:
        """What somebody has to be allowed to: see `slack_members`."""
        kinds = {"budget": "extend", "steps": "extend", "model": "extend", "share": "share", "stop": "steer"}
        return kinds.get(self.name, "look")


_BUDGET = re.compile(r"budget\s*\+?\s*\$?\s*(\d{1,6}(?:\.\d{1,2})?)\s*(?:\$|usd|dollars?)?(?:\s+more)?")
_STEPS = re.compile(r"(?:(?:(\d{1,4})\s+)?more\s+steps|more\s+steps\s+(\d{1,4})|steps\s+(\d{1,4}))")
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
    if re.fullmatch(r"model(\s+\S+)?", said):
        return Word("model")
    return None
