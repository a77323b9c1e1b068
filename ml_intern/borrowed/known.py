"""KnownTools: the definitions of other people's tools that a person has read, in a file of the home."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

from ..errors import InternError
from ..foreign import Introduction

FILE = "foreign-tools.json"
KEPT = 20_000
"""Characters of a definition that are kept, to show what changed."""
_LOCK = threading.Lock()


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
            return Introduction(f"{head}\n\n{definition}", digest)
        before, after = str(entry.get("text", "")).splitlines(), definition[:KEPT].splitlines()
        changes = "\n".join(difflib.unified_diff(before, after, "as it was read", "as it is now", lineterm="", n=2))
        text = f"{head}\n\nIts definition is another one than was read:\n{changes}\n\n{definition}"
        return Introduction(text, digest, f"its definition has changed since it was read ({how})")

    def knows(self, origin: str, tool: str) -> bool:
        """Whether some definition of it was read."""
        return tool in self._load().get(origin, {})

    def add(self, origin: str, tool: str, definition: str, digest: str) -> None:
        """A person has read it.

        Raises:
            InternError: the file cannot be written.
        """
        entry = {"digest": digest, "text": definition[:KEPT]}
        if self.path is None:
            self._here.setdefault(origin, {})[tool] = entry
            return
        with self._alone(self.path):
            everything = self._load()
            everything.setdefault(origin, {})[tool] = entry
            handle, name = tempfile.mkstemp(prefix=".foreign-", dir=self.path.parent)  # readable by its owner only
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(everything, file, indent=1, sort_keys=True)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self.path)
            except OSError as error:
                Path(name).unlink(missing_ok=True)
                raise self._unusable(error) from error

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

    @contextlib.contextmanager
    def _alone(self, path: Path) -> Generator[None]:
        """Threads of this process by a lock, other processes by a lock on a file beside it."""
        with _LOCK:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                handle = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
            except OSError as error:
                raise self._unusable(error) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    def _unusable(self, error: OSError) -> InternError:
        return InternError(f"{self.path} cannot be used", error.strerror or str(error), "Check its rights.")


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
