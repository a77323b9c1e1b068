"""Where lines are put: text that wraps and hangs on a terminal, and stays one line a line in a file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from . import text as words

LABEL = 11
"""Columns of a label in rows of `label value`."""

LONGEST = 1000
"""Columns of a line of code that are shown."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the process with 1; a closed pipe is no failure."""
        self.quiet = True
        raise BrokenPipeError


class Paper:
    """A console that prints foreign text as it is (no markup, no control characters), indented and wrapped.

    Args:
        file (`TextIO`, *optional*): Defaults to standard output.
        width (`int`, *optional*): Columns; defaults to the terminal's.
        terminal (`bool`, *optional*): Defaults to whether `file` is a terminal.
    """

    def __init__(self, file: TextIO | None = None, width: int | None = None, terminal: bool | None = None) -> None:
        file = file or sys.stdout
        self.terminal = file.isatty() if terminal is None else terminal
        self._blank = True
        self.console = _Console(
            file=file,
            width=width,
            force_terminal=self.terminal,
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=True,
        )

    def gap(self) -> None:
        """A blank line, unless there is one already."""
        if not self._blank:
            self.console.print()
            self._blank = True

    def put(self, text: Text | str = "", indent: int = 0, hanging: int | None = None, label: str = "") -> None:
        """Prints `text`, its lines indented by `indent` columns, continued at `hanging`, after a `label`."""
        text = Text(words.printable(text)) if isinstance(text, str) else text
        hanging = indent if hanging is None else hanging
        room = self.console.width - max(indent, hanging)
        lines = list(text.wrap(self.console, max(room, 16)) if self.terminal else text.split("\n", allow_blank=True))
        before = f"  {label:<{LABEL}}" if label else " " * indent
        first = Text.assemble((before, "dim" if label else ""), lines[0]) if lines else Text()
        rest = [Text(" " * hanging).append_text(line) for line in lines[1:]]
        for line in (first, *rest):
            line.rstrip()
        self.console.print(Text("\n").join([first, *rest]))
        self._blank = False

    def row(self, label: str, text: Text | str, style: str = "") -> None:
        """`label value`, the value hanging beside its label."""
        text = Text(words.printable(text), style) if isinstance(text, str) else text
        self.put(text, 2 + LABEL, label=label)

    def path(self, label: str, path: str, before: str = "", after: str = "") -> None:
        """A path, in a command if one is given; never broken over lines by us, so that it can be copied."""
        home = str(Path.home())
        short = f"~{path[len(home) :]}" if path.startswith(home + "/") else path
        if before and shlex.quote(path) != path:
            short = shlex.quote(path)
        text = words.one_line(f"{before}{short}{after}")
        self.console.print(Text.assemble((f"  {label:<{LABEL}}", "dim"), text))
        self._blank = False

    def code(self, code: str, indent: int, fold: tuple[int, int] | None) -> None:
        """Python, coloured; of long code only the first and last lines of `fold`, and of long lines the beginning."""
        highlighted = Syntax("", "python", theme="ansi_dark").highlight(words.printable(code.strip("\n")))
        highlighted.rstrip()
        lines = list(highlighted.split("\n", allow_blank=True))
        if fold is not None:
            first, left_out, last = words.fold(lines, *fold)
            gap = [Text(f"… {left_out} more lines, shown with --verbose", "dim italic")] if left_out else []
            lines = [*first, *gap, *last]
            for line in lines:
                line.truncate(LONGEST, overflow="ellipsis")
        self.put(Text("\n").join(lines), indent)

    def output(self, lines: list[str], left_out: int, indent: int) -> None:
        """Lines of program output beside a bar, each cut to one line of the terminal."""
        room = self.console.width - indent - 2
        before = (" " * indent + "│ ", "dim")
        beside = []
        for line in [*([f"… {left_out} lines before"] if left_out else []), *lines]:
            text = Text(words.printable(line), "dim")
            text.expand_tabs(8)
            if self.terminal:
                text.truncate(max(room, 16), overflow="ellipsis")
            beside.append(Text.assemble(before, text))
        if beside:
            self.console.print(Text("\n").join(beside))
            self._blank = False
