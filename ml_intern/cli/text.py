"""Foreign text made safe to show, and figures made short. Pure functions.

Whatever comes from a model, a tool, a file's name or the network may hold characters that move the cursor, reorder
what is read, or cannot be seen at all. They are shown as Python would write them: `\\x1b`, `\\u202e`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_VARIATION = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINERS = "\u200c\u200d"
# Control, bidirectional and default-ignorable characters. Not the visible format characters of Arabic (U+0600...).
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_is_hidden = re.compile(f"[{_HIDDEN}]").search
_is_variation = re.compile(f"[{_VARIATION}]").match
_is_joiner = re.compile(f"[{_JOINERS}]").match
_flags = re.compile(
    "(\U0001f3f4(?:{})\U000e007f)".format(
        "|".join("".join(chr(0xE0000 + ord(c)) for c in name) for name in ("gbeng", "gbsct", "gbwls"))
    )
)


def printable(text: str) -> str:
    """`text` with everything escaped that could not be seen or would act on a terminal.

    Line feeds and tabs stay. So do ordinary text of all scripts and emoji: joiners and variation selectors are kept
    where they do their work between visible characters, and escaped where they only hide.

    Args:
        text (`str`): Anything.

    Returns:
        `str`: What is safe to print.
    """
    if not _is_hidden(text):
        return text
    parts = _flags.split(text.replace("\r\n", "\n"))
    return "".join(part if place % 2 else _escape(part) for place, part in enumerate(parts))


def _escape(text: str) -> str:
    shown: list[str] = []
    before = ""
    for place, character in enumerate(text):
        if not _is_hidden(character) or _belongs(before, character, text[place + 1 : place + 2]):
            shown.append(character)
            before = character
        else:
            code = ord(character)
            shown.append(
                f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            )
            before = ""
    return "".join(shown)


def _belongs(before: str, character: str, after: str) -> bool:
    """Whether a selector or joiner shapes its neighbours: those are scripts and emoji, not ASCII (but keycaps)."""
    if _is_variation(character):
        return before in tuple("0123456789#*") or (before > "\x7f" and not _is_hidden(before))
    if _is_joiner(character):
        shaped = before > "\x7f" and (not _is_hidden(before) or bool(_is_variation(before)))
        return shaped and after > "\x7f" and not _is_hidden(after)
    return False


def one_line(text: str, limit: int | None = None) -> str:
    """`printable` on a single line, line feeds and tabs escaped too, cut to `limit` characters."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def call(tool: str, arguments: Mapping[str, Any], limit: int | None = None) -> str:
    """A tool call as one would write it: `hub_search(query="imdb", limit=3)`."""
    words = ", ".join(f"{name}={value(argument)}" for name, argument in arguments.items())
    return one_line(f"{tool}({words})", limit)


def value(argument: Any) -> str:
    return json.dumps(argument, ensure_ascii=False, default=str)


def last_lines(text: str, count: int) -> tuple[list[str], int]:
    """The last `count` lines of program output as a terminal would leave them, and how many came before.

    A carriage return starts its line anew (progress bars); blank lines at the end do not count.
    """
    lines = text.replace("\r\n", "\n").rstrip().split("\n") if text.strip() else []
    kept = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines[-count:]] if count else []
    return kept, len(lines) - len(kept)


def fold(lines: list[T], head: int, tail: int) -> tuple[list[T], int, list[T]]:
    """`lines` as a beginning, a number of lines left out, and an end; two lines are never left out."""
    if len(lines) <= head + tail + 2:
        return lines, 0, []
    return lines[:head], len(lines) - head - tail, lines[len(lines) - tail :]


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def amount(number: int) -> str:
    """A count of tokens: 950, 3.1k, 120k, 1.2M."""
    if number < 1000:
        return str(number)
    scaled, unit = (number / 1000, "k") if number < 999_500 else (number / 1e6, "M")
    return f"{scaled:.1f}{unit}" if scaled < 99.95 else f"{scaled:.0f}{unit}"


def money(usd: float | None) -> str:
    """US dollars; an unknown price is said to be unknown, never zero."""
    if usd is None:
        return "cost unknown"
    return f"${usd:.4f}" if 0 < usd < 0.01 else f"${usd:.2f}"


def size(count: int) -> str:
    """Bytes in decimal units, as the Hub shows them."""
    if count < 1000:
        return f"{count} bytes" if count != 1 else "1 byte"
    scaled = float(count)
    for unit in ("kB", "MB", "GB"):
        scaled /= 1000
        if scaled < 999.95:
            return f"{scaled:.1f} {unit}"
    return f"{scaled / 1000:.1f} TB"
