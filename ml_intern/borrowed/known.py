"""KnownTools: the definitions of other people's tools that a person has read, in a file of the home."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path

from ..errors import InternError
from ..foreign import Introduction
from ..kept_file import alone, put

FILE = "foreign-tools.json"
SHOWN = 2_000
"""Characters that are shown again of a definition that was read."""
KEPT = 20_000
"""Characters of a definition that are kept, to show what changed."""


class KnownTools:
    """What a person has read, by where it comes from.

    What must never happen here: a definition counts as read that nobody approved a call of; two processes lose each other's
    entries; a file that does not read counts as approval.

    Args:
        path (`Path`, *optional*): The file; without it what is read is known for as long as this object.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._here: dict[str, dict[str, dict[str, str]]] = {}

    def introduction(
        self, origin: str, tool: str, head: str, definition: str, how: str, digest: str = ""
    ) -> Introduction:
        """How a tool is shown to a person.

        Args:
            origin (`str`): What its server is known by.
            tool (`str`): Its own name.
            head (`str`): Where it comes from, in words.
            definition (`str`): All that is known of it.
            how (`str`): How to read it where nobody can be asked.
            digest (`str`, *optional*): Of the definition, where that is only part of what was digested.
        """
        digest = digest or digest_of(definition)
        entry = self._load().get(origin, {}).get(tool)
        if entry is None:
            return Introduction(f"{head}\n\n{definition}", digest, f"nobody has read its definition here yet ({how})")
        if entry.get("digest") == digest:
            rest = f"\n(It goes on, and was read before: {how}.)" if len(definition) > SHOWN else ""
            return Introduction(f"{head}\n\n{definition[:SHOWN]}{rest}", digest)
        before, after = str(entry.get("text", "")).splitlines(), definition[:KEPT].splitlines()
        changes = "\n".join(difflib.unified_diff(before, after, "as it was read", "as it is now", lineterm="", n=2))
        text = f"{head}\n\nIts definition is another one than was read:\n{changes}\n\n{definition}"
        return Introduction(text, digest, f"its definition has changed since it was read ({how})")

    def add(self, origin: str, tool: str, definition: str, digest: str) -> None:
        """A person has read it.

        Raises:
            InternError: the file cannot be written.
        """
        entry = {"digest": digest, "text": definition[:KEPT]}
        if self.path is None:
            self._here.setdefault(origin, {})[tool] = entry
            return
        try:
            with alone(self.path):
                everything = self._load()
                everything.setdefault(origin, {})[tool] = entry
                put(self.path, json.dumps(everything, indent=1, sort_keys=True))
        except OSError as error:
            raise InternError(
                f"{self.path} cannot be used", error.strerror or str(error), "Check its rights."
            ) from error

    def _load(self) -> dict[str, dict[str, dict[str, str]]]:
        if self.path is None:
            return self._here
        try:
            data = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}  # nothing counts as read
        entries = data if isinstance(data, dict) else {}
        return {
            origin: {tool: entry for tool, entry in tools.items() if isinstance(entry, dict)}
            for origin, tools in entries.items()
            if isinstance(tools, dict)
        }


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
