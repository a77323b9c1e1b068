"""RuleBook: rules that hold for good, in a file that a person can read and edit: one a line, `#` begins a comment."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

from ..errors import InternError
from .rules import BadRule, Rule

_LOCK = threading.Lock()
_HEADER = "# Rules that hold for every session of ML Intern, one a line. Delete a line to take it back.\n"


class RuleBook:
    """A file of rules.

    What must never happen here: a rule is lost or half written when two sessions add one at once; a line that does not
    read takes the others with it.

    Args:
        path (`Path`): The file; it need not be there.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.problems: tuple[str, ...] = ()
        """Of the last [`load`]: a line for each line that is no rule."""

    def load(self) -> tuple[Rule, ...]:
        """The rules, in order. What does not read is left out and named in `problems`.

        Raises:
            InternError: there is a file that cannot be opened: it may hold rules that refuse something.
        """
        rules, problems = [], []
        for number, line in enumerate(self._text().splitlines(), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                rules.append(Rule.parse(text))
            except BadRule as error:
                problems.append(f"{self.path}, line {number}: {error.what} ({error.why}); it does not count.")
        self.problems = tuple(problems)
        return tuple(dict.fromkeys(rules))

    def add(self, rule: Rule) -> None:
        """Adds a rule at the end, unless it is there. All other lines stay as they are.

        Raises:
            InternError: the file cannot be written.
        """
        with self._alone():
            if rule in self.load():
                return
            text = self._text() or _HEADER
            text += ("" if text.endswith("\n") else "\n") + f"{rule}\n"
            handle, name = tempfile.mkstemp(prefix=".rules-", dir=self.path.parent)  # readable by its owner only
            try:
                with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self.path)
            except OSError as error:
                Path(name).unlink(missing_ok=True)
                raise self._unusable(error) from error

    def _text(self) -> str:
        try:
            return self.path.read_text("utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise self._unusable(error) from error

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """Threads of this process by a lock, other processes by a lock on a file beside it."""
        import fcntl

        with _LOCK:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                handle = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
            except OSError as error:
                raise self._unusable(error) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    def _unusable(self, error: OSError) -> InternError:
        return InternError(
            f"The rules in {self.path} cannot be used", error.strerror or str(error), "Check its rights."
        )
