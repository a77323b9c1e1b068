"""Text for Slack. Pure functions.

What must never happen here: text that came from a model, a tool or a file pings anybody, becomes a link that shows another
address than it leads to, leaves the code block it stands in, or is longer than Slack takes.

Slack acts on three characters (`&`, `<`, `>`): escaped, nothing that stands in a text can become a mention or a link. Links
are made here, of addresses that are shown as they are. All text objects are sent as `verbatim`: Slack adds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SECTION = 2_900
"""Characters of a section; Slack takes 3,000."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e0fff]"
)
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)[^`]*$")
_ROW, _RULE = re.compile(r"^\s*\|.*\|\s*$"), re.compile(r"^\s*\|[\s:|-]+\|\s*$")
_SPAN = re.compile(r"(`+)(.+?)(?<!`)\1(?!`)")
LONGEST_LINK = 400
_URL = r"https?://[^\s<>|`\"'\\^{}\[\]]+"
_LINK = re.compile(rf"!?\[([^\[\]\n]{{0,300}})\]\(\s*<?({_URL}?)>?(?:\s+\"[^\"\n]*\")?\s*\)|({_URL})")
_BOLD = re.compile(r"\*\*(?=\S)(.{1,300}?)(?<=\S)\*\*|(?<!\w)__(?=\S)(.{1,300}?)(?<=\S)__(?!\w)")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])")
_STRUCK = re.compile(r"~~(?=\S)(.{1,300}?)(?<=\S)~~")
_B = "\ue000"  # stands for Slack's bold mark until the italics are found; no such character is left in the text


def visible(text: str) -> str:
    """`text` without characters that move, hide or reorder what is read; they become a replacement character."""
    return _HIDDEN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def escape(text: str) -> str:
    """Text that is shown as it is: it pings nobody, links to nothing and opens no code block."""
    text = visible(text).replace("```", "ˋˋˋ")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def one_line(text: str, limit: int = 200) -> str:
    """The same on one line, cut to so many characters before it is escaped."""
    flat = " ".join(visible(text).split())
    return escape(flat if len(flat) <= limit else flat[: limit - 1] + "…")


def span(text: str, limit: int = 200) -> str:
    """A short text as code. What it holds cannot end it."""
    inside = one_line(text.replace("`", "ˋ"), limit)
    return f"`{inside}`" if inside else "` `"


def fenced(text: str, limit: int = SECTION) -> list[str]:
    """A text as code blocks of at most so many characters each. What it holds cannot end them."""
    body = escape(text.replace("`", "ˋ") if "``" in text else text).strip("\n") or " "
    return [f"```\n{piece}\n```" for piece in cut(body, limit - 8)]


def mrkdwn(markdown: str, limit: int = SECTION) -> list[str]:
    """Markdown as Slack writes it, in pieces of at most so many characters."""
    pieces: list[str] = []
    for code, text in _segments(visible(markdown)):
        if code:
            pieces += fenced(text, limit)
        elif text.strip():
            pieces += cut("\n".join(map(_line, text.strip("\n").split("\n"))), limit)
    return _packed(pieces, limit)


def cut(text: str, limit: int) -> list[str]:
    """`text` in pieces of at most so many characters: at lines, else at spaces, never within an escape or a link."""
    pieces = []
    while len(text) > limit:
        at = text.rfind("\n", 1, limit)
        at = at if at > limit // 2 else text.rfind(" ", limit // 2, limit)
        at = at if at > 0 else limit
        for opened, closed in (("<", ">"), ("&", ";")):
            start = text.rfind(opened, 0, at)
            if start > 0 and text.find(closed, start, at) < 0 and (opened == "<" or at - start < 5):
                at = start
        pieces.append(text[:at])
        text = text[at:].lstrip("\n")
    return [*pieces, text] if text or not pieces else pieces


def plain(text: str) -> str:
    """What somebody wrote in Slack, as they see it: links as addresses, mentions as names."""

    def shown(found: re.Match[str]) -> str:
        target, _, label = found[1].partition("|")
        if target[:1] in "@#!":
            return (target[0].replace("!", "@") + (label or target[1:])).replace("@@", "@")
        return target.removeprefix("mailto:")

    text = re.sub(r"<([^<>\n]+)>", shown, text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _segments(text: str) -> Iterator[tuple[bool, str]]:
    """Code and prose in turn; tables count as code, as Slack has none."""
    lines, prose = text.split("\n"), list[str]()
    place = 0
    while place < len(lines):
        opened = _FENCE.match(lines[place])
        if opened:
            end = place + 1
            while end < len(lines) and not lines[end].strip().startswith(opened[1]):
                end += 1
            yield False, "\n".join(prose)
            yield True, "\n".join(lines[place + 1 : end])
            prose, place = [], end + 1
        elif _ROW.match(lines[place]) and place + 1 < len(lines) and _RULE.match(lines[place + 1]):
            end = place
            while end < len(lines) and _ROW.match(lines[end]):
                end += 1
            yield False, "\n".join(prose)
            yield True, "\n".join(lines[place:end])
            prose, place = [], end
        else:
            prose.append(lines[place])
            place += 1
    yield False, "\n".join(prose)


def _line(line: str) -> str:
    heading = re.match(r"^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$", line)
    if heading:
        inside = heading[1].replace("**", "")
        return f"*{_inline(inside)}*" if inside else ""
    bullet = re.match(r"^(\s*)[-*+]\s+(?:\[([ xX])\]\s+)?(.*)$", line)
    if bullet:
        box = {"": "•", " ": "☐"}.get(bullet[2] or "", "☑")
        return f"{bullet[1]}{box} {_inline(bullet[3])}"
    return _inline(line)


def _inline(text: str) -> str:
    parts, last = [], 0
    for found in _SPAN.finditer(text):
        parts += [_prose(text[last : found.start()]), f"`{escape(found[2].replace('`', 'ˋ').strip()) or ' '}`"]
        last = found.end()
    return "".join([*parts, _prose(text[last:])])


def _prose(text: str) -> str:
    parts, last = [], 0
    for found in _LINK.finditer(text):
        parts += [_marks(text[last : found.start()]), _link(found)]
        last = found.end()
    return "".join([*parts, _marks(text[last:])])


def _link(found: re.Match[str]) -> str:
    label, url = (found[1].strip(), found[2]) if found[2] else ("", found[3])
    rest = ""
    if not found[2]:
        bare = url.rstrip(".,;:!?*_~)")
        if bare.count("(") > bare.count(")") and url.startswith(bare + ")"):
            bare += ")"
        url, rest = bare, url[len(bare) :]
    shown = escape(url)
    shown = f"<{shown}>" if len(shown) <= LONGEST_LINK else shown  # a link cannot be cut in two, words can
    return (f"{_marks(label)} ({shown})" if label and label != url else shown) + escape(rest)


def _marks(text: str) -> str:
    text = escape(text).replace("`", "ˋ")  # what is code was found before
    text = _BOLD.sub(lambda found: f"{_B}{found[1] or found[2]}{_B}", text)
    text = _ITALIC.sub(r"_\1_", text)
    return _STRUCK.sub(r"~\1~", text).replace(_B, "*")


def _packed(pieces: list[str], limit: int) -> list[str]:
    """Neighbours put together as far as they fit."""
    packed: list[str] = []
    for piece in pieces:
        if packed and len(packed[-1]) + len(piece) + 1 <= limit:
            packed[-1] += "\n" + piece
        elif piece.strip():
            packed.append(piece)
    return packed
