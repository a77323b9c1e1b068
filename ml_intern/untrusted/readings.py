"""A text as it may be read: without escapes and markup, decoded, turned round."""

from __future__ import annotations

import binascii
import html
import re
import unicodedata
from collections.abc import Iterator
from itertools import compress
from typing import Any
from urllib.parse import unquote_to_bytes

LEAST = 24
"""Letters and digits of an overlap, at the least."""
LONGEST = 1_000_000
"""Characters of one text that are remembered."""
EDGE = 8
"""Signs around an overlap that are taken for a part of it."""

_NOT_ALNUM = bytes(c for c in range(128) if not chr(c).isalnum())
_IS_ALNUM = bytes(c < 128 and chr(c).isalnum() for c in range(256))
_ROT13 = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"nopqrstuvwxyzabcdefghijklm")
_GLUE = b" \t\r\n\"'`,\\"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/_-]{8,}[ \t\r\n\"'`,\\]*)+[A-Za-z0-9+/_-]{0,8}")
_HEX = re.compile(rb"[0-9A-Fa-f]{48,}")
_TEXT = re.compile(rb"[\t\n\r -~]{24,}|[\t\n\r -~\x80-\xf4]{32,}")
_BACKSLASH = re.compile(r"\\{1,8}(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|[nrtbf])")
_TAG = re.compile(r"</?[A-Za-z!][^<>]{0,80}>")
_LITERAL = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'")


class View:
    """A reading of a text: its letters and digits, in lower case, as bytes."""

    def __init__(self, text: str) -> None:
        self.folded = (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
        if self.folded.isascii():
            self.bytes = self.folded.encode().translate(None, _NOT_ALNUM)
        else:
            self.bytes = "".join(filter(str.isalnum, self.folded)).encode()
        self._places: list[int] | None = None

    def span(self, start: int, end: int) -> int:
        """Characters that stand from `start` to `end` of the bytes, with the signs around them."""
        if self._places is None:
            if self.folded.isascii():
                flags = self.folded.encode().translate(_IS_ALNUM)
                self._places = list(compress(range(len(self.folded)), flags))
            else:
                widths = ((i, len(c.encode())) for i, c in enumerate(self.folded) if c.isalnum())
                self._places = [i for i, width in widths for _ in range(width)]
        places = self._places
        first, last = places[start], places[end - 1] + 1
        before = places[start - 1] + 1 if start else 0
        after = places[end] if end < len(places) else len(self.folded)
        return min(after, last + EDGE) - max(before, first - EDGE)


def asked(strings: list[str]) -> Iterator[View]:
    """The readings of a call's texts: each as the call has them, reversed, and in rot13."""
    joined = "\n".join(strings)
    texts = [joined]
    if 1 < len(strings) <= 8:
        # Split over arguments, the last part first.
        texts.append("\n".join(s if len(s) <= 200 else f"{s[:100]}\n{s[-100:]}" for s in reversed(strings)))
    literals = ["".join(pair) for pair in _LITERAL.findall(joined)] if "'" in joined or '"' in joined else []
    if len(literals) > 1:
        texts.append("".join(literals))
    for text in dict.fromkeys(texts):
        for reading in readings(text):
            view = View(reading)
            yield view
            back = View.__new__(View)
            back.folded, back._places = view.folded[::-1], None
            back.bytes = view.bytes[::-1] if view.folded.isascii() else View(back.folded).bytes
            yield back
            turned = View.__new__(View)
            turned.folded, turned._places = view.folded, None
            turned.bytes = view.bytes.translate(_ROT13)
            yield turned


def readings(text: str, depth: int = 2) -> Iterator[str]:
    """A text, the same without escapes and markup, and what is encoded in it."""
    yield text
    bare = _unescaped(text)
    if bare != text:
        yield bare
    if depth:
        for inner in dict.fromkeys([*_decoded(text), *(_decoded(bare) if bare != text else ())]):
            yield from readings(inner, depth - 1)


def _unescaped(text: str) -> str:
    if "%" in text:
        text = unquote_to_bytes(text).decode(errors="replace")
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = _BACKSLASH.sub(lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else " ", text)
    return _TAG.sub("", text) if "<" in text else text


def _decoded(text: str) -> Iterator[str]:
    """Texts in base64 (wherever it begins) and hex, in lines and pieces or not."""
    raw, found = text.encode(errors="replace"), []
    for run in _HEX.finditer(raw.translate(None, _GLUE + b":")):
        for offset in (0, 1):
            digits = run[0][offset:]
            found.append(binascii.unhexlify(digits[: len(digits) // 2 * 2]))
    for run in _BASE64.finditer(raw):
        letters = run[0].translate(_URL_SAFE, _GLUE)
        if len(letters) < 4 * LEAST // 3:
            continue
        for offset in range(4):
            length = (len(letters) - offset) // 4 * 4
            rest = letters[offset + length :]
            tail = rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""
            found.append(binascii.a2b_base64(letters[offset : offset + length] + tail))
    texts = [text for data in found for text in _texts(data)]
    if texts:
        yield "\n".join(texts)


def _texts(data: bytes) -> Iterator[str]:
    """What may be text in decoded bytes: most of what is decoded was none."""
    for run in _TEXT.finditer(data):
        text = run[0].decode(errors="ignore")
        if run[0].isascii() or len(text.encode()) * 10 > len(run[0]) * 9:
            yield text


def strings(value: Any) -> list[str]:
    """All texts in data, in order, the keys after the values; of what is no data, how it describes itself."""
    texts: list[str] = []
    keys: list[str] = []
    _gather(value, texts, keys, 0)
    return texts + keys


def _gather(value: Any, texts: list[str], keys: list[str], depth: int) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, bytes | bytearray):
        texts.append(bytes(value[:LONGEST]).decode(errors="replace"))
    elif isinstance(value, dict) and depth < 60:
        for key, item in value.items():
            _gather(key, keys, keys, depth + 1)
            _gather(item, texts, keys, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset) and depth < 60:
        for item in value:
            _gather(item, texts, keys, depth + 1)
    elif value is not None and not isinstance(value, bool):
        try:
            texts.append(str(value)[:LONGEST])
        except Exception:  # noqa: BLE001 - a foreign object's own code: it has no text then
            return
