"""RuleBook: rules that hold for good, in a file that a person can read and edit: one a line, `#` begins a comment."""

from __future__ import annotations

from pathlib import Path

from ..errors import InternError
from ..kept_file import alone, put
from .rules import BadRule, Rule

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
        try:
            with alone(self.path):
                if rule in self.load():
                    return
                text = self._text() or _HEADER
                put(self.path, text + ("" if text.endswith("\n") else "\n") + f"{rule}\n")
        except OSError as error:
            raise self._unusable(error) from error

    def _text(self) -> str:
        try:
            return self.path.read_text("utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> InternError:
        return InternError(
            f"The rules in {self.path} cannot be used", error.strerror or str(error), "Check its rights."
        )
