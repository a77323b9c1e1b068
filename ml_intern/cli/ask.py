"""A question and its answer, at a terminal.

What must never happen here: an answer that was typed before its question was there; a rule that is saved without having
been read; a question that goes on while it has been answered elsewhere.

`dialogue` is the conversation itself and does no reading: it yields what it needs next, a line or an edited text, and is
sent it. So the one-task command reads lines as they come, the chat has its own input line, and both ask the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from ..approval.asking import forget_typing
from ..events import ApprovalAnswer, ApprovalRequest
from . import text as words
from .card import GRANT, QUESTION, card, choices_of
from .paper import Paper

BY = "terminal"


class Withdrawn(Exception):
    """The question is no longer open: it was answered elsewhere, or the session went on without the answer."""


@dataclass(frozen=True)
class Line:
    """A line is needed; `prompt` stands before it."""

    prompt: str


@dataclass(frozen=True)
class Edited:
    """`text` is needed as a person has changed it; `None` is sent where there is no editor."""

    text: str


Need = Line | Edited
Dialogue = Generator[Need, str | None, ApprovalAnswer | None]


def dialogue(paper: Paper, request: ApprovalRequest, saved_in: str = "") -> Dialogue:
    """Shows a question and finds out the answer.

    Args:
        paper (`Paper`): Where the question goes.
        request (`ApprovalRequest`): What is asked.
        saved_in (`str`, defaults to `""`): The file that keeps rules for good.

    Returns:
        `ApprovalAnswer`: their word, `None` when the question was withdrawn. Ctrl-C is a stop, the end of the input a
        rejection.
    """
    more = card(paper, request)
    try:
        return (
            yield from (_asked(paper, request) if request.tool == QUESTION else _call(paper, request, more, saved_in))
        )
    except KeyboardInterrupt:
        paper.gap()
        return ApprovalAnswer("stop", "interrupted at the question", BY)
    except EOFError:
        paper.gap()
        return ApprovalAnswer("reject", "the terminal was closed at the question", BY)
    except Withdrawn:
        paper.gap()
        return None


def _call(paper: Paper, request: ApprovalRequest, more: bool, saved_in: str) -> Dialogue:
    keys = {
        "y": "accept all of it, for this session" if request.tool == GRANT else "once",
        **({"a": "this kind, in this session", "A": "this kind, for good"} if request.rule else {}),
        **({"e": "edit"} if request.arguments else {}),
        "n": "reject",
        "s": "stop",
        **({"v": "view all"} if more else {}),
    }
    for line in _rows([f"{key} {does}" for key, does in keys.items()], paper.console.width - 2):
        paper.put(Text(line, "dim"), 2, 4)
    while True:
        said = ((yield Line(f"  allow it? [{'/'.join(keys)}] > ")) or "").strip()
        answer: ApprovalAnswer | None = None
        match said if said == "A" else said.lower():
            case "y" | "yes":
                return ApprovalAnswer("approve", by=BY)
            case "n" | "no":
                return ApprovalAnswer("reject", ((yield Line("  reason, if you like > ")) or "").strip(), BY)
            case "s" | "stop":
                return ApprovalAnswer("stop", by=BY)
            case "a" if request.rule:
                paper.put(Text.assemble("allowed for this session: ", (words.one_line(request.rule), "bold")), 2, 4)
                return ApprovalAnswer("approve", by=BY, scope="session")
            case "A" if request.rule:
                answer = yield from _for_good(paper, request, saved_in)
            case "e" | "edit" if request.arguments:
                answer = yield from _edit(paper, request)
            case "v" | "view":
                card(paper, request, full=True)
            case "":
                pass
            case _:
                paper.put(Text(f"one letter: {', '.join(keys)}", "dim"), 2)
        if answer is not None:
            return answer


def _rows(parts: list[str], width: int) -> list[str]:
    """Parts beside each other, broken only between them."""
    rows = [""]
    for part in parts:
        longer = f"{rows[-1]} · {part}" if rows[-1] else part
        rows = [*rows[:-1], longer] if len(longer) <= width or not rows[-1] else [*rows, part]
    return rows


def _for_good(paper: Paper, request: ApprovalRequest, saved_in: str) -> Dialogue:
    paper.put(Text.assemble("allow ", (words.one_line(request.rule), "bold"), " in every session from now on"), 2, 4)
    if saved_in:
        paper.path("saved in", saved_in)
    sure = yield from _sure("  save this rule? [y/n] > ")
    return ApprovalAnswer("approve", by=BY, scope="always") if sure else None


def _edit(paper: Paper, request: ApprovalRequest) -> Dialogue:
    before = json.dumps(request.arguments, indent=2, ensure_ascii=False, default=str)
    text = yield Edited(before)
    if text is None:
        text = yield from _line_by_line(paper, request)
    while True:
        try:
            changed = changes(request.arguments, text)
        except ValueError as error:
            paper.put(Text(words.printable(str(error)), "yellow"), 2)
            if (yield from _sure("  edit again? [y/n] > ")):
                text = (yield Edited(text)) or before
                continue
            return None
        if not changed:
            paper.put(Text("nothing was changed", "dim"), 2)
            return None
        for name, value in changed.items():
            paper.row(words.one_line(name), words.value(value))
        sure = yield from _sure("  with this instead? [y/n] > ")
        return ApprovalAnswer("edit", by=BY, arguments=changed) if sure else None


def _line_by_line(paper: Paper, request: ApprovalRequest) -> Generator[Need, str | None, str]:
    """Where there is no editor: one argument a line."""
    paper.put(
        Text("No editor was found (EDITOR). One argument a line, as NAME=VALUE; an empty line ends it.", "dim"), 2
    )
    now = dict(request.arguments)
    while line := ((yield Line("  NAME=VALUE > ")) or "").strip():
        name, given, value = line.partition("=")
        name = name.strip()
        if not given or name not in now:
            paper.put(Text(f"one of {', '.join(map(words.one_line, now))}, then = and the value", "yellow"), 2)
            continue
        try:
            now[name] = json.loads(value)
        except ValueError:
            now[name] = value.strip()  # text needs no quotes
    return json.dumps(now, default=str)


def _sure(prompt: str) -> Generator[Need, str | None, bool]:
    return ((yield Line(prompt)) or "").strip().lower() in ("y", "yes")


def changes(arguments: dict[str, Any], text: str) -> dict[str, Any]:
    """What somebody changed in `arguments`, which they got as JSON. Only that is sent: the rest may have been masked.

    Raises:
        ValueError: it is no JSON object, or something is missing from it.
    """
    try:
        edited = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"Not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from None
    if not isinstance(edited, dict):
        raise ValueError("Not an object of arguments: { ... } is expected.")  # noqa: TRY004 - of what was typed, not of code
    if missing := [name for name in arguments if name not in edited]:
        raise ValueError(f"Arguments cannot be taken out: {', '.join(missing)}. Set them to null.")
    before = json.loads(json.dumps(arguments, default=str))
    return {name: value for name, value in edited.items() if name not in before or before[name] != value}


def _asked(paper: Paper, request: ApprovalRequest) -> Dialogue:
    choices = choices_of(request)
    hint = f"1 to {len(choices)}, or in your words" if choices else "in your words"
    while True:
        said = ((yield Line(f"  your answer ({hint}) > ")) or "").strip()
        if said.isdecimal() and choices and 1 <= int(said) <= len(choices):
            said = choices[int(said) - 1]
        if said:
            return ApprovalAnswer("approve", by=BY, text=said)


def ask(
    paper: Paper, request: ApprovalRequest, withdrawn: Callable[[], bool] = lambda: False, saved_in: str = ""
) -> ApprovalAnswer | None:
    """Asks the person at the terminal, reading lines from standard input.

    Args:
        paper (`Paper`): Where the question goes.
        request (`ApprovalRequest`): The call.
        withdrawn (`Callable[[], bool]`, *optional*): Looked at while waiting; when true the question is taken back.
        saved_in (`str`, defaults to `""`): The file that keeps rules for good.

    Returns:
        `ApprovalAnswer`: as of [`dialogue`].
    """
    talk = dialogue(paper, request, saved_in)
    try:
        need = next(talk)
        forget_typing()
        while True:
            try:
                said = _read(paper, need.prompt, withdrawn) if isinstance(need, Line) else edited(need.text)
            except (KeyboardInterrupt, EOFError, Withdrawn) as error:
                need = talk.throw(error)
            else:
                need = talk.send(said)
    except StopIteration as end:
        return end.value


def edited(text: str) -> str | None:
    """`text` as it comes back from the person's editor: `$VISUAL`, `$EDITOR`, or nano. `None` where there is none."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or shutil.which("nano")
    if not named:
        return None
    with tempfile.TemporaryDirectory(prefix="ml-intern-") as folder, _deaf():  # 0700
        path = Path(folder) / "arguments.json"
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(named), str(path)], check=False)
        except (OSError, ValueError):
            return None
        return path.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def _deaf() -> Generator[None]:
    """Ctrl-C is the editor's while this lasts. (On other threads there is nothing to do: signals reach the main one.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
