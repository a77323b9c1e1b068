"""Who is asked: the type of those who ask, the plainest of them, and the one that finds nobody there."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable

from ..events import ApprovalAnswer, ApprovalRequest
from ..steps import QUESTION

Asker = Callable[[ApprovalRequest], ApprovalAnswer]
"""Puts a request to somebody and returns the answer; may block for as long as a person takes, or raise `Parking`."""

NOBODY = "policy"
"""Who answers (`by`) where there is nobody to ask: the gate says in the reason what would allow the call."""


def nobody(request: ApprovalRequest) -> ApprovalAnswer:
    """An [`Asker`] for where there is nobody."""
    return ApprovalAnswer("reject", f"nobody can be asked here about `{request.tool}`", NOBODY)


def is_somebody_there() -> bool:
    """Whether a question can be put here: at a terminal, or in a notebook."""
    return bool(sys.stdin and sys.stdin.isatty()) or _in_notebook()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and type(running).__module__.startswith("ipykernel")


def ask_at_terminal(request: ApprovalRequest) -> ApprovalAnswer:
    """The plainest asker, for scripts run in a terminal: one question on standard error, one line as the answer."""
    if not is_somebody_there():
        return nobody(request)
    _put(request)
    return _read(request)


def ask_until(request: ApprovalRequest, withdrawn: Callable[[], bool]) -> ApprovalAnswer | None:
    """The same, where others may answer as well: `None` once `withdrawn` says that somebody was quicker."""
    _put(request)
    if _ends_before_a_line(withdrawn):
        print("(answered elsewhere)", file=sys.stderr)
        return None
    return _read(request)


def _put(request: ApprovalRequest) -> None:
    question = request.tool == QUESTION
    lines = [
        f"\n{_line(request.agent) or 'The agent'} asks:"
        if question
        else f"\n{_line(request.tool)} wants to run: {_line(request.reason)}."
    ]
    lines.append(json.dumps(request.arguments, indent=2, ensure_ascii=True))
    if request.destination is not None:
        seen = f" ({_line(request.destination.visibility)})" if request.destination.visibility else ""
        lines.append(f"To {_line(request.destination.name)}{seen}")
    # Others' words: no line of them looks like one of these.
    lines += [f"  | {line}" for line in (request.preview.split("\n") if request.preview else ())]
    lines += [f"  {_line(file.path)}  {file.size:,} bytes  sha256 {file.sha256[:12]}" for file in request.files]
    lines += [f"!! repeats text from {_line(source)}" for source in request.sources]
    if request.cost_usd is not None:
        left = "" if request.left_usd is None else f" of ${request.left_usd:.2f} that are left"
        lines.append(f"It costs about ${request.cost_usd:.2f}{left}.")
    print(_printable("\n".join(lines)), file=sys.stderr)
    choices = f", [a]lways in this session ({_line(request.rule)})" if request.rule else ""
    prompt = "Your answer: " if question else f"Allow it? [y]es{choices}, [n]o, [s]top, or a reason to say no: "
    forget_typing()
    print(prompt, end="", file=sys.stderr, flush=True)


def forget_typing() -> None:
    """What was typed before the question was there cannot be an answer to it."""
    try:
        import termios
    except ImportError:  # Windows
        return
    if sys.stdin and sys.stdin.isatty():
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def _line(text: str) -> str:
    """On one line, so that it cannot pass for another one of the question."""
    return _printable(" ".join(text.split()))


def _printable(text: str) -> str:
    """Nothing of what others wrote, such as a server's words or a script, clears the terminal or turns what is read round."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def _read(request: ApprovalRequest) -> ApprovalAnswer:
    question = request.tool == QUESTION
    try:
        said = input().strip()
    except EOFError:
        said = "" if question else "n"
    if question:
        return ApprovalAnswer("approve" if said else "reject", by="terminal", text=said)
    if said.lower() in ("y", "yes"):
        return ApprovalAnswer("approve", by="terminal")
    if said.lower() in ("a", "always") and request.rule:
        return ApprovalAnswer("approve", by="terminal", scope="session")
    if said.lower() in ("s", "stop"):
        return ApprovalAnswer("stop", "stopped at the terminal", "terminal")
    return ApprovalAnswer("reject", "" if said.lower() in ("n", "no", "") else said, "terminal")


def _ends_before_a_line(withdrawn: Callable[[], bool]) -> bool:
    """Waits until a line is there to be read. Whether the question was withdrawn first; a notebook's cannot be."""
    if os.name == "nt" or not sys.stdin.isatty():
        return False
    while not withdrawn():
        if select.select([sys.stdin], [], [], 0.2)[0]:
            return False
    return True
