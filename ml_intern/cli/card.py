"""What a person reads before they answer: everything one should know about a call, on paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from ..events import ApprovalRequest
from . import text as words
from .paper import Paper

FOLD = 40
"""Lines of a preview, or of an argument, that are shown at once; `v` shows the rest."""
FILES = 12

QUESTION, GRANT = "ask_user", "propose_grant"
"""The tools with which the agent asks a person something, and proposes what it may do."""

_DOES = {
    "write": "wants to change something outside",
    "spend": "wants to spend money",
    "execute": "wants to run something",
}
_DIFF = {"+": "green", "-": "red", "@": "cyan"}


def card(paper: Paper, request: ApprovalRequest, full: bool = False) -> bool:
    """Shows what is asked for.

    Args:
        paper (`Paper`): Where to.
        request (`ApprovalRequest`): The call.
        full (`bool`, defaults to `False`): Leave nothing out.

    Returns:
        `bool`: whether something was left out.
    """
    paper.gap()
    if request.tool == QUESTION:
        _question(paper, request)
        return False
    if request.tool == GRANT:
        return _grant(paper, request)
    wants = _DOES.get(request.effects, "asks for your approval")
    paper.put(Text.assemble((f"? {words.one_line(request.tool)}", "bold yellow"), (f" {wants}", "yellow")))
    if request.agent:
        paper.row("asked by", words.one_line(request.agent))
    if request.reason:
        paper.row("why", request.reason)
    paper.row("effects", request.effects or "unknown")
    if request.destination is not None:
        _destination(paper, request.destination.name, request.destination.visibility)
    _cost(paper, request.cost_usd, request.left_usd)
    if request.sources:
        _untrusted(paper, request.sources)
    cut = _arguments(paper, request.arguments, full)
    if request.files:
        cut = _files(paper, request, full) or cut
    if request.preview.strip():
        cut = _preview(paper, request.preview, full) or cut
    if request.rule:
        paper.row("this kind", Text(words.one_line(request.rule), "dim"))
    return cut


def choices_of(request: ApprovalRequest) -> list[str]:
    """The answers that the agent proposes to its question, which may be none."""
    choices = request.arguments.get("choices")
    return [str(choice) for choice in choices] if isinstance(choices, list | tuple) else []


def _question(paper: Paper, request: ApprovalRequest) -> None:
    who = f" ({words.one_line(request.agent)})" if request.agent else ""
    paper.put(Text.assemble(("? ", "bold yellow"), (f"a question for you{who}", "yellow")))
    paper.put(str(request.arguments.get("question") or request.reason), 2)
    for number, choice in enumerate(choices_of(request), 1):
        paper.put(Text.assemble((f"{number} ", "bold"), words.printable(choice)), 4, 6)
    if request.sources:
        _untrusted(paper, request.sources)


def _grant(paper: Paper, request: ApprovalRequest) -> bool:
    """What the agent proposes to be allowed, each rule in words, nothing left out: it is read once and holds from then on."""
    who = f" ({words.one_line(request.agent)})" if request.agent else ""
    paper.put(Text.assemble(("? ", "bold yellow"), (f"may it do this without asking?{who}", "yellow")))
    if request.sources:
        _untrusted(paper, request.sources)
    for line in request.preview.split("\n"):
        paper.put(Text(words.printable(line), "bold yellow" if line.startswith("  ! wide") else ""), 2, 4)
    return False


def _destination(paper: Paper, name: str, visibility: str) -> None:
    seen = {"public": ("PUBLIC: anybody can see it", "bold yellow"), "private": ("private", "green")}
    how = seen.get(visibility, (words.one_line(visibility), ""))
    paper.row("to", Text.assemble(words.one_line(name), ("  " if visibility else ""), how))


def _cost(paper: Paper, cost: float | None, left: float | None) -> None:
    text = f"about {words.money(cost)}" if cost is not None else "no estimate"
    if left is not None:
        text += f"; {words.money(left)} left of the budget"
    elif cost:
        text += "; there is no budget"
    paper.row("cost", text, "bold red" if cost is not None and left is not None and cost > left else "")


def _untrusted(paper: Paper, sources: tuple[str, ...]) -> None:
    """Loud, as this is how an attacker's text would have things done."""
    paper.put(Text("! The arguments repeat text from outside; it may be meant to mislead:", "bold red"), 2, 4)
    for source in sources:
        paper.put(Text(words.one_line(source), "red"), 4, 6)


def _arguments(paper: Paper, arguments: Mapping[str, Any], full: bool) -> bool:
    limit, cut = 1_000_000 if full else FOLD, False
    for name, argument in arguments.items():
        text = argument if isinstance(argument, str) and "\n" in argument else words.value(argument)
        lines, left_out, _ = words.fold(text.split("\n"), limit, 0)
        if not full and len(lines) == 1 and len(lines[0]) > 1000:
            lines, cut = [lines[0][:1000] + f"… {len(lines[0]) - 1000} more characters"], True
        cut = cut or left_out > 0
        shown = "\n".join([*lines, *([f"… {left_out} more lines"] if left_out else [])])
        paper.row(words.one_line(name), shown)
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


def _preview(paper: Paper, preview: str, full: bool) -> bool:
    """A card or a diff; the lines of a diff have its colours."""
    every = preview.strip("\n").split("\n")
    diff = any(line.startswith("@@ ") for line in every)
    lines, left_out, _ = words.fold(every, 1_000_000 if full else FOLD, 0)
    paper.put(Text("preview", "dim"), 2)
    for line in lines:
        style = _DIFF.get(line[:1], "") if diff else ""
        paper.put(Text.assemble(("│ ", "dim"), (words.printable(line), style)), 4, 6)
    if left_out:
        paper.put(Text(f"… {left_out} more lines", "dim"), 4)
    return left_out > 0
