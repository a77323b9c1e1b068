"""Names for tools of others: prefixed with where they come from, valid in Python, and never the name of another tool.

What must never happen here: a tool of somebody else's takes the name of one of ours, so that a rule, a prompt or a recording
that means ours means it; two tools of others have one name.
"""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Collection, Iterable
from importlib import resources

LONGEST = 64

_SESSION = (
    "plan", "notes", "read_artifact", "ask_user", "request_steps", "record_decision", "install_packages", "final_answer",
    "experiments", "propose_grant", "user_input", "web_search", "visit_webpage", "wikipedia_search", "transcriber",
    "python_interpreter", "researcher",
)  # fmt: skip


def reserved() -> frozenset[str]:
    """Names that are ours, whether or not a session has those tools."""
    names = [item.name for item in resources.files("ml_intern.tools").iterdir()]
    return frozenset({*_SESSION, *(name.removesuffix(".py") for name in names if re.fullmatch(r"[a-z]\w*\.py", name))})


def prefix_of(origin: str, own: Collection[str]) -> str:
    """What names of tools from there begin with: none of ours begins so."""
    word = _identifier(origin)
    clashes = any(name == word or name.startswith(f"{word}_") for name in own)
    return f"mcp_{word}" if clashes else word


def names_for(origin: str, tools: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """A name for each of these tools, the same each time, whatever order they come in.

    Args:
        origin (`str`): The server's name, or the owner's.
        tools (`Iterable[str]`): The tools' own names: any text.
        taken (`Collection[str]`): Names that others have.

    Returns:
        `dict[str, str]`: Own name to name here.
    """
    prefix, tools = prefix_of(origin, {*reserved(), *taken}), list(tools)
    plain = {tool: f"{prefix}_{_identifier(tool)}" for tool in tools}
    counts = list(plain.values())
    found = {}
    for tool, name in plain.items():
        if counts.count(name) > 1 or name in taken or len(name) > LONGEST:
            mark = hashlib.sha256(f"{origin}\0{tool}".encode(errors="replace")).hexdigest()[:6]
            name = f"{name[: LONGEST - 7]}_{mark}"
        found[tool] = name
    return found


def argument_names(names: Iterable[str]) -> dict[str, str]:
    """A Python name for each argument's own name."""
    found: dict[str, str] = {}
    for own in names:
        name = own if own.isidentifier() and not keyword.iskeyword(own) and own.isascii() else _identifier(own)
        if name in found.values():
            name = f"{name}_{hashlib.sha256(own.encode(errors='replace')).hexdigest()[:6]}"
        found[own] = name[:LONGEST]
    return found


def _identifier(text: str) -> str:
    word = re.sub(r"\W+", "_", str(text), flags=re.ASCII).strip("_")[:LONGEST] or "tool"
    return f"_{word}" if word[0].isdecimal() or keyword.iskeyword(word) else word
