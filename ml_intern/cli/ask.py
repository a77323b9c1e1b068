"""The question whether a call may happen: everything one should know on paper, and a person's answer."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

from rich.text import Text

from ..events import ApprovalAnswer, ApprovalRequest
from . import text as words
from .paper import Paper

FOLD = 40
"""Lines of a preview, or of an argument, that are shown at once; `v` shows the rest."""
FILES = 12

BY = "terminal"
_DOES = {
    "write": "wants to change something outside",
    "spend": "wants to spend money",
    "execute": "wants to run something",
}


class Withdrawn(Exception):
    """The session went on (or ended) without the answer."""


def card(paper: Paper, request: ApprovalRequest, full: bool = False) -> bool:
    """Shows what is asked for.

    Args:
        paper (`Paper`): Where to.
        request (`ApprovalRequest`): The call.
        full (`bool`, defaults to `False`): Leave nothing out.

    Returns:
        `bool`: whether something was left out.
    """
    limit = 1_000_000 if full else FOLD
    cut = False
    paper.gap()
    wants = _DOES.get(request.effects, "asks for your approval")
    paper.put(Text.assemble((f"? {words.one_line(request.tool)}", "bold yellow"), (f" {wants}", "yellow")))
    if request.reason:
        paper.row("why", request.reason)
    paper.row("effects", request.effects or "unknown")
    paper.row("cost", f"about {words.money(request.cost_usd)}" if request.cost_usd is not None else "no estimate")
    for name, argument in request.arguments.items():
        text = argument if isinstance(argument, str) and "\n" in argument else words.value(argument)
        lines, left_out, _ = words.fold(text.split("\n"), limit, 0)
        if not full and len(lines) == 1 and len(lines[0]) > 1000:
            lines, cut = [lines[0][:1000] + f"… {len(lines[0]) - 1000} more characters"], True
        cut = cut or left_out > 0
        shown = "\n".join([*lines, *([f"… {left_out} more lines"] if left_out else [])])
        paper.row(words.one_line(name), shown)
    if request.files:
        cut = _files(paper, request, full) or cut
    if request.preview.strip():
        lines, left_out, _ = words.fold(request.preview.strip("\n").split("\n"), limit, 0)
        cut = cut or left_out > 0
        paper.put(Text("preview", "dim"), 2)
        for line in lines:
            paper.put(Text.assemble(("│ ", "dim"), words.printable(line)), 4, 6)
        if left_out:
            paper.put(Text(f"… {left_out} more lines", "dim"), 4)
    return cut


def _files(paper: Paper, request: ApprovalRequest, full: bool) -> bool:
    total = sum(file.size for file in request.files)
    count = len(request.files)
    paper.row("sends", f"{count} file{'s' * (count != 1)}, {words.size(total)}, out of the workspace")
    files, left_out, _ = words.fold(list(request.files), 1_000_000 if full else FILES, 0)
    for file in files:
        line = Text(words.one_line(file.path)).append(f"  {words.size(file.size)}  sha256 {file.sha256[:12]}", "dim")
        paper.put(line, 13, 15)
    if left_out:
        paper.put(Text(f"… {left_out} more files", "dim"), 13)
    return left_out > 0


def ask(paper: Paper, request: ApprovalRequest, withdrawn: Callable[[], bool] = lambda: False) -> ApprovalAnswer:
    """Asks the person at the terminal.

    Args:
        paper (`Paper`): Where the question goes; the answer is read from standard input.
        request (`ApprovalRequest`): The call.
        withdrawn (`Callable[[], bool]`, *optional*): Looked at while waiting; when true the question is taken back.

    Returns:
        `ApprovalAnswer`: their word. Ctrl-C is a stop, the end of the input a rejection.
    """
    more = card(paper, request)
    try:
        _forget_typing()
        while True:
            choices = "[y] approve  [n] reject  [s] stop" + ("  [v] view all" if more else "")
            answer = _read(paper, f"  {choices} > ", withdrawn).strip().lower()
            if answer in ("y", "yes"):
                return ApprovalAnswer("approve", by=BY)
            if answer in ("n", "no"):
                return ApprovalAnswer("reject", _read(paper, "  reason, if you like > ", withdrawn).strip(), BY)
            if answer in ("s", "stop"):
                return ApprovalAnswer("stop", by=BY)
            if answer in ("v", "view"):
                more = card(paper, request, full=True)
            elif answer:
                paper.put(Text("one letter: y, n or s", "dim"), 2)
    except KeyboardInterrupt:
        paper.gap()
        return ApprovalAnswer("stop", "interrupted at the question", BY)
    except EOFError:
        paper.gap()
        return ApprovalAnswer("reject", "the terminal was closed at the question", BY)
    except Withdrawn:
        paper.gap()
        return ApprovalAnswer("stop", "the session ended before there was an answer", BY)


def _forget_typing() -> None:
    """What was typed before the question was there cannot be an answer to it."""
    try:
        import termios
    except ImportError:  # Windows
        return
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def _read(paper: Paper, prompt: str, withdrawn: Callable[[], bool]) -> str:
    """A line from the terminal; unlike `input` it can be taken back."""
    file = paper.console.file
    file.write(prompt)
    file.flush()
    if os.name == "nt":  # no select on consoles
        return input()
    descriptor = sys.stdin.fileno()
    while not select.select([descriptor], [], [], 0.2)[0]:
        if withdrawn():
            raise Withdrawn
    line = os.read(descriptor, 4096)
    if not line:
        raise EOFError
    return line.decode(sys.stdin.encoding or "utf-8", "replace")
