"""`trace show`: a trace on paper, or page by page on a terminal."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..errors import InternError
from . import text as words
from .paper import Paper
from .trace_pages import Item, Page, pages

if TYPE_CHECKING:
    from prompt_toolkit import Application
    from prompt_toolkit.key_binding import KeyPressEvent

FOLD = {"said": (30, 4), "thinking": (4, 0), "code": (24, 6), "output": (8, 4), "error": (4, 8), "call": (3, 0)}
"""Lines of long parts that are shown folded: the first, the last."""
PLAIN = 400
"""Columns of a line that are shown folded where there is no terminal."""

KEYS = "←→ step  ↑↓ scroll  / search  f again  o unfold  q quit"


def run(path: Path, *, plain: bool, as_json: bool, verbose: bool) -> int:
    """Shows a trace.

    Returns:
        `int`: 0.

    Raises:
        InternError: it cannot be read, or there is nothing in it.
    """
    try:
        found = pages(path)
    except OSError as error:
        raise InternError(f"Cannot read {path}", error.strerror or str(error)) from None
    if not found:
        raise InternError(f"There is nothing in {path.name} to show", "it has no row of a conversation")
    if as_json:
        for page in found:
            print(json.dumps(asdict(page)))
        return 0
    paper = Paper()
    if plain or not paper.terminal or not sys.stdin.isatty():
        for page in found:
            draw(page, paper, fold=not verbose)
        return 0
    Viewer(found, path.stem).run()
    return 0


def draw(page: Page, paper: Paper, fold: bool) -> None:
    """A page on paper."""
    paper.gap()
    at = f"  {page.at[:19].replace('T', ' ')}" if page.at else ""
    paper.put(Text.assemble((words.one_line(page.heading), "bold"), (words.one_line(at), "dim")))
    for item in page.items:
        _draw(item, paper, FOLD.get(item.kind) if fold else None)


def _draw(item: Item, paper: Paper, fold: tuple[int, int] | None) -> None:
    match item.kind:
        case "code":
            paper.gap()
            paper.code(item.text, 4, fold)
            paper.gap()
        case "call":
            mark = ("✗ ", "red") if item.failed else ("✓ ", "green")
            paper.put(Text.assemble(mark, (words.one_line(item.label, 400 if fold else None), "cyan")), 2, 6)
            if item.text.strip():
                _lines(item.text, paper, fold, "red" if item.failed else "dim")
        case "output" | "error":
            if item.label:
                paper.put(Text(words.one_line(item.label), "dim"), 2)
            _lines(item.text, paper, fold, "red" if item.kind == "error" else "dim")
        case "note":
            paper.put(Text(f"· {words.printable(item.text)}", "yellow" if item.failed else "magenta"), 2, 4)
        case "fact":
            paper.put(Text(words.printable(item.text), "dim"), 2)
        case _:
            style = "dim italic" if item.kind == "thinking" else ""
            lines = words.printable(item.text.strip()).split("\n")
            kept = _fold(lines, fold)
            paper.put(Text("\n".join(kept), style), 2)


def _fold(lines: list[str], fold: tuple[int, int] | None) -> list[str]:
    if fold is None:
        return lines
    first, left_out, last = words.fold(lines, *fold)
    return [*first, *([f"… {left_out} more lines"] if left_out else []), *last]


def _lines(text: str, paper: Paper, fold: tuple[int, int] | None, style: str) -> None:
    """Output beside a bar; folded lines are cut to the width, others wrap."""
    room = max(paper.console.width - 4, 16)
    for line in _fold(text.strip("\n").split("\n"), fold):
        shown = Text(words.printable(line.rsplit("\r", 1)[-1] if line.strip("\r") else ""), style)
        shown.expand_tabs(8)
        if fold is not None:
            shown.truncate(room if paper.terminal else PLAIN, overflow="ellipsis")
        paper.put(Text.assemble(("│ ", "dim"), shown), 2, 4)


class Viewer:
    """Pages on a terminal.

    Args:
        pages (`list[Page]`): At least one.
        title (`str`): Shown below them.
    """

    def __init__(self, pages: list[Page], title: str) -> None:
        self.pages, self.title = pages, title
        self.place, self.top = 0, 0
        self.fold = True
        self.found = ""
        self.told = ""
        self._drawn: tuple[Any, list[str]] = (None, [])

    def lines(self, width: int) -> list[str]:
        """The page that is shown, as lines for a terminal of this width."""
        key = (self.place, self.fold, width)
        if self._drawn[0] != key:
            out = io.StringIO()
            paper = Paper(out, width=width, terminal=True)
            draw(self.pages[self.place], paper, self.fold)
            self._drawn = (key, out.getvalue().rstrip("\n").split("\n"))
        return self._drawn[1]

    def step(self, by: int) -> None:
        place = min(max(self.place + by, 0), len(self.pages) - 1)
        self.told = "" if place != self.place else "the last page" if by > 0 else "the first page"
        self.place, self.top = place, 0

    def scroll(self, by: int, width: int, height: int) -> None:
        self.top = min(max(self.top + by, 0), max(len(self.lines(width)) - height, 0))

    def search(self, wanted: str, backwards: bool = False) -> None:
        """The next page that holds it, round the end; the page that is shown last of all."""
        self.found = wanted or self.found
        if not self.found:
            return
        way = -1 if backwards else 1
        for distance in range(1, len(self.pages) + 1):
            place = (self.place + way * distance) % len(self.pages)
            if self.pages[place].holds(self.found):
                self.told = "" if place != self.place else "on no other page"
                self.place, self.top, self.fold = place, 0, False
                return
        self.told = f"not found: {words.one_line(self.found, 40)}"

    def to_match(self, width: int, height: int) -> None:
        """Scrolls to the first line with what was searched for."""
        from prompt_toolkit.formatted_text import ANSI, fragment_list_to_text, to_formatted_text

        for number, line in enumerate(self.lines(width)):
            if self.found.casefold() in fragment_list_to_text(to_formatted_text(ANSI(line))).casefold():
                self.top = 0
                self.scroll(max(number - 2, 0), width, height)
                return

    def status(self) -> str:
        page = self.pages[self.place]
        where = f"{words.one_line(page.heading, 24)} · {self.place + 1} of {len(self.pages)}"
        return f" {where}  {self.told or KEYS} "

    def run(self) -> None:
        self.application().run()

    def application(self, **kwargs: Any) -> Application[None]:
        """The program; `kwargs` are its input and output, for tests."""
        from prompt_toolkit import Application
        from prompt_toolkit.filters import has_focus
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.layout import ConditionalContainer, FormattedTextControl, HSplit, Layout, Window
        from prompt_toolkit.widgets import TextArea

        keys = KeyBindings()
        body = Window(FormattedTextControl(lambda: self._shown(size()), focusable=True))
        field = TextArea(height=1, prompt="/", multiline=False)
        searching = has_focus(field)

        def size() -> tuple[int, int]:
            shape = app.output.get_size()
            return shape.columns, max(shape.rows - 1 - bool(searching()), 1)

        def accept(buffer: Any) -> bool:
            self.search(buffer.text)
            self.to_match(*size())
            app.layout.focus(body)
            return False

        field.accept_handler = accept

        def on(*names: str, when: Any = ~searching) -> Any:
            def bind(handle: Any) -> Any:
                for name in names:
                    keys.add(name, filter=when)(handle)
                return handle

            return bind

        moves = {
            ("right", "n", "enter"): 1,
            ("left", "p", "backspace"): -1,
            ("home", "g"): -(10**9),
            ("end", "G"): 10**9,
        }
        for names, by in moves.items():
            on(*names)(lambda event, by=by: self.step(by))
        lines = {("down", "j"): 1, ("up", "k"): -1}
        for names, by in lines.items():
            on(*names)(lambda event, by=by: self.scroll(by, *size()))

        @on("pagedown", "space", "d")
        def _(event: KeyPressEvent) -> None:
            width, height = size()
            if self.top + height >= len(self.lines(width)):
                self.step(1)
            else:
                self.scroll(height - 1, width, height)

        @on("pageup", "u")
        def _(event: KeyPressEvent) -> None:
            width, height = size()
            self.scroll(1 - height, width, height)

        @on("/")
        def _(event: KeyPressEvent) -> None:
            field.text = ""
            app.layout.focus(field)

        @on("f", "F")
        def _(event: KeyPressEvent) -> None:
            self.search("", backwards=event.data == "F")
            self.to_match(*size())

        @on("o")
        def _(event: KeyPressEvent) -> None:
            self.fold = not self.fold
            self.scroll(0, *size())

        @on("q", "c-c", "escape")
        def _(event: KeyPressEvent) -> None:
            event.app.exit()

        @on("escape", "c-c", when=searching)
        def _(event: KeyPressEvent) -> None:
            app.layout.focus(body)

        bar = Window(FormattedTextControl(lambda: [("reverse", self._bar(size()[0]))]), height=1)
        layout = Layout(HSplit([body, ConditionalContainer(field, searching), bar]), focused_element=body)
        app: Application[None] = Application(layout=layout, key_bindings=keys, full_screen=True, **kwargs)
        app.ttimeoutlen = 0.05
        return app

    def _bar(self, width: int) -> str:
        return self.status()[:width].ljust(width)

    def _shown(self, size: tuple[int, int]) -> Any:
        from prompt_toolkit.formatted_text import ANSI, to_formatted_text

        width, height = size
        self.scroll(0, width, height)
        fragments: list[Any] = []
        for line in self.lines(width)[self.top : self.top + height]:
            fragments += self._marked(to_formatted_text(ANSI(line)))
            fragments.append(("", "\n"))
        return fragments[:-1]

    def _marked(self, fragments: Any) -> list[Any]:
        """A line with what was searched for in reverse."""
        whole = "".join(fragment[1] for fragment in fragments)
        wanted = self.found.casefold()
        if not wanted or wanted not in whole.casefold() or len(whole.casefold()) != len(whole):
            return list(fragments)
        marked, start = [False] * len(whole), whole.casefold().find(wanted)
        while start >= 0:
            marked[start : start + len(wanted)] = [True] * len(wanted)
            start = whole.casefold().find(wanted, start + 1)
        singles = [(fragment[0], letter) for fragment in fragments for letter in fragment[1]]
        return [
            (f"{style} reverse" if mark else style, letter)
            for (style, letter), mark in zip(singles, marked, strict=True)
        ]
