"""What is shown of a text that is too long: its head, its tail, what it is, and where the whole is. Pure functions."""

from __future__ import annotations

import re

from .tokens import weigh

HEAD = 0.7
"""Of what is shown, the part that comes from the beginning."""


def room_in(text: str, characters: int) -> int:
    """How many characters of `text` weigh what `characters` of plain English do: fewer for Chinese, fewer for emoji."""
    plain = len(text) / 4
    return max(1, int(characters * plain / max(weigh(text), plain, 0.25)))


def fits(text: str, characters: int) -> bool:
    return len(text) <= characters and len(text) <= room_in(text, characters)


def shorten(text: str, characters: int, handle: str) -> str:
    """`text` as it is shown within `characters`; as it is where it fits.

    Args:
        text (`str`): The whole.
        characters (`int`): Of plain English; a text of heavier characters gets fewer.
        handle (`str`): Where the whole can be read.
    """
    if fits(text, characters):
        return text
    lines = text.count("\n") + 1
    size = f"{len(text):,} characters in {lines:,} line{'s' * (lines > 1)}"
    said = f"\n[... {kind(text)}, {size}; all of it: read_artifact({handle!r}) ...]\n"
    room = room_in(text, max(characters - len(said), 0))
    head = int(room * HEAD)
    tail = room - head
    return text[:head] + said + (text[-tail:] if tail else "")


def kind(text: str) -> str:
    """What sort of text it is, in a word or two, by its beginning."""
    start = text[:2_000].lstrip()
    start = re.sub(r"^Execution logs:\s*", "", start)
    if start.startswith(("{", "[")) and ('"' in start or "'" in start):
        return "JSON" if '"' in start else "Python data"
    if start.startswith("Traceback (most recent"):
        return "a traceback"
    if start.startswith(("<!DOCTYPE", "<html", "<?xml")):
        return "markup"
    lines = start.split("\n")[:8]
    if len(lines) > 2 and all(line.count(",") == lines[0].count(",") >= 2 for line in lines[:3]):
        return "a table"
    return "text"


def first_line(text: str, characters: int) -> str:
    """The first line that says something, shortened."""
    for line in text.split("\n"):
        line = " ".join(line.split())
        if line and line not in ("Execution logs:", "Observation:", "Last output from code snippet:", "None"):
            return line if fits(line, characters) else line[: room_in(line, characters)] + "..."
    return ""
