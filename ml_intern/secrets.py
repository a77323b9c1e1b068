"""Masking: no secret that this process knows reaches a file, a model, an event or a message.

Exact values first (they are certain), then the shapes of well-known keys ([`shapes`]). A known value is replaced by its
name, so that one can still follow it: `hf_abc...` in `HF_TOKEN` becomes `[secret:HF_TOKEN]`. Masking twice changes nothing.

What must never happen here: a known value gets through in a form that is in use (base64, URL, JSON, `repr`, hex); a
signature of the model's or an image is changed; time that grows faster than the text.
"""

from __future__ import annotations

import base64
import copy
import html
import json
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, BinaryIO
from urllib.parse import quote, quote_plus

from . import shapes
from .known import SHORTEST, Known, find_secrets, known_secrets

__all__ = ["SHORTEST", "MaskedStream", "Masker", "find_secrets", "known_secrets"]

CONTEXT = 40
"""Characters before a secret that may say that it is one: `Authorization: Bearer`."""
_IMAGE = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")  # how PNG, JPEG, GIF and WebP begin in base64


class _Table:
    """The known values in all their forms, and how to find them quickly. The same for all maskers that know the same.

    Every form has its beginning at most `stride - 1` characters before a place that is a multiple of it: a look at those
    places finds all of them, whatever their number.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self.names: dict[str, str] = {}
        for value, name in values.items():
            for form in _forms(value):
                self.names.setdefault(form, name)
        self.marks = shapes.KINDS | set(values.values())
        self.longest = max(map(len, self.names), default=0)
        shortest = min(map(len, self.names), default=SHORTEST)
        self._width = 4 if shortest < 16 else 6
        self._stride = min(shortest - self._width + 1, 16)
        self._grams: dict[tuple[str, ...], list[tuple[str, int]]] = {}
        for form in self.names:
            for offset in range(self._stride):
                gram = tuple(form[offset : offset + self._width])
                self._grams.setdefault(gram, []).append((form, offset))

    def find(self, text: str) -> list[shapes.Found]:
        if not self._grams:
            return []
        found: list[shapes.Found] = []
        block = self._stride * 2048  # most blocks have nothing in them, which is quickly seen
        for start in range(0, len(text), block):
            part = text[start : start + block + self._width]
            if not self._grams.keys().isdisjoint(self._looks(part)):
                for place, gram in enumerate(self._looks(part)):
                    for form, offset in self._grams.get(gram, ()):
                        first = start + place * self._stride - offset
                        if first >= 0 and text.startswith(form, first):
                            found.append((first, first + len(form), self.names[form]))
        return found

    def begun(self, text: str) -> int:
        """Where a beginning of a form stands at the end of `text`; its length where none does."""
        ordered, firsts = self._beginnings
        for start in range(max(0, len(text) - self.longest + 1), len(text)):
            if text[start : start + 2] in firsts:
                after = bisect_left(ordered, rest := text[start:])
                if after < len(ordered) and ordered[after].startswith(rest):
                    return start
        return len(text)

    @cached_property
    def _beginnings(self) -> tuple[list[str], frozenset[str]]:
        ordered = sorted(self.names)
        firsts = frozenset(form[:length] for form in ordered for length in (1, 2))
        return ordered, firsts

    def _looks(self, text: str) -> Iterator[tuple[str, ...]]:
        return zip(*(text[place :: self._stride] for place in range(self._width)), strict=False)


@lru_cache(maxsize=8)
def _table(values: tuple[tuple[str, str], ...]) -> _Table:
    return _Table(dict(values))


class Masker:
    """Replaces secrets in text and in plain data. Safe to use from several threads.

    Args:
        secrets (`Mapping[str, str]`, *optional*): value to name; defaults to what [`find_secrets`] finds.
        more (`Mapping[str, str]`, *optional*): Further ones.

    Attributes:
        warnings (`tuple[str, ...]`): What a person should be told once: which named secrets are too short to be masked.
    """

    def __init__(self, secrets: Mapping[str, str] | None = None, more: Mapping[str, str] | None = None) -> None:
        known = find_secrets() if secrets is None else Known(dict(secrets))
        if further := {value: name for value, name in (more or {}).items() if len(value) >= SHORTEST}:
            known = Known({**further, **known.values}, known.warnings)
        self.warnings = known.warnings
        self._table = _table(tuple(known.values.items()))
        self._guesses = True

    @cached_property
    def certain(self) -> Masker:
        """The same for known values alone: for what goes on to work with, where a guess would do harm."""
        other = copy.copy(self)
        other._guesses = False
        return other

    def text(self, text: str) -> str:
        """`text` with every known secret and everything of a secret's shape replaced."""
        if len(text) < SHORTEST:
            return text
        for _ in range(4):  # what a mask leaves may have a shape with it; once more is enough, and rare
            masked = _replace(text, self._known(text))
            masked = _replace(masked, self._shaped(masked))
            if masked == text:
                break
            text = masked
        return text

    def data(self, value: Any) -> Any:
        """`value` with all its strings masked, keys too. Dicts, lists and tuples are searched, other things left alone.

        Where there was nothing to mask the very same object comes back. Signatures of the model's thoughts and the data of
        images stay as they are.
        """
        if isinstance(value, str):
            masked = self.text(value)
            return value if masked == value else masked
        if isinstance(value, dict):
            pairs = [(self.data(key), self._item(value, key, item)) for key, item in value.items()]
            same = all(k is key and v is item for (k, v), (key, item) in zip(pairs, value.items(), strict=True))
            return value if same else dict(pairs)
        if isinstance(value, list | tuple):
            items = [self.data(item) for item in value]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return items if isinstance(value, list) else tuple(items)
        return value

    def found(self, text: str) -> list[str]:
        """The names of the secrets that [`text`] would replace in `text`."""
        return [name for _, _, name in (*self._known(text), *self._shaped(text))]

    def found_in(self, file: BinaryIO) -> list[str]:
        """The names of the known secrets that a file holds; it is read in parts, from where it stands."""
        names: set[str] = set()
        rest = ""
        while part := file.read(1 << 20):
            text = rest + part.decode("utf-8", "replace")
            names |= {name for _, _, name in self._known(text)}
            rest = text[-self._table.longest :]
        return sorted(names)

    def _item(self, mapping: Mapping[Any, Any], key: Any, item: Any) -> Any:
        if not isinstance(item, str) or not isinstance(key, str):
            return self.data(item)
        if key == "signature" and mapping.get("type") == "thinking":
            return item
        if key == "data" and (mapping.get("type") == "redacted_thinking" or _is_image(mapping, item)):
            return item
        masked = self.data(item)
        kind = shapes.named(key, masked) if self._guesses and isinstance(masked, str) else ""
        return f"[secret:{kind}]" if kind else masked

    def _known(self, text: str) -> list[shapes.Found]:
        return _outside_marks(text, self._table.find(text), self._table.marks)

    def _shaped(self, text: str) -> list[shapes.Found]:
        if not self._guesses:
            return []
        return _outside_marks(text, shapes.find(text), self._table.marks)

    def begun(self, text: str) -> int:
        """Where in `text` something begins that more text may make a secret; its length where nothing does."""
        place, size = self._table.begun(text), len(text)
        known = self._known(text)
        for start, end, _ in known:  # shapes are looked for beside marks
            text = f"{text[:start]}[{']' * (end - start - 1)}{text[end:]}"
        place = min(place, shapes.unfinished(text))
        if place < size:
            for start, end, _ in sorted((*known, *shapes.find(text)), reverse=True):
                if start <= place < end:  # what is whole is not cut in two, nor from the words that make it a secret
                    alone = [*self._known(text[start:]), *shapes.find(text[start:])]
                    known_alone = any(found[0] == 0 and found[1] >= end - start for found in alone)
                    place = start if known_alone else max(0, start - CONTEXT)
        return place


class MaskedStream:
    """Masks text that comes in pieces: a secret that is cut in two between them is found all the same.

    Only what could be the beginning of a secret is held back until more comes.

    Args:
        masker (`Masker`): What to mask.
        limit (`int`, defaults to 20,000): Characters held back at most.
    """

    def __init__(self, masker: Masker, limit: int = 20_000) -> None:
        self._masker, self._limit = masker, limit
        self._before = ""  # what was shown last: it decides whether a key begins after it or a word goes on
        self._held = ""
        self._lock = threading.Lock()

    def feed(self, text: str) -> str:
        """Takes a piece; returns what can be shown by now, masked."""
        with self._lock:
            text = self._before + self._held + text
            place = max(self._masker.begun(text), len(self._before))
            return self._show(text, len(text) if len(text) - place > self._limit else place)

    def end(self) -> str:
        """Returns what was held back, masked: no more comes."""
        with self._lock:
            text = self._before + self._held
            shown = self._show(text, len(text))
            self._before = ""
            return shown

    def _show(self, text: str, place: int) -> str:
        shown = self._masker.text(text[:place])
        shown = shown.removeprefix(self._before)
        self._before, self._held = shown[-1:] or self._before, text[place:]
        return shown


def _is_image(mapping: Mapping[Any, Any], data: str) -> bool:
    return str(mapping.get("media_type", "")).startswith("image/") and data.startswith(_IMAGE)


def _outside_marks(text: str, found: Iterable[shapes.Found], names: Set[str]) -> list[shapes.Found]:
    """Without what lies inside a mark that masking has left: one with a name of ours."""
    found = list(found)
    if not found or "[secret:" not in text:
        return found
    marks = [match.span() for match in shapes.MARK.finditer(text) if match[1] in names]
    return [one for one in found if not any(start <= one[0] and one[1] <= end for start, end in marks)]


def _replace(text: str, found: list[shapes.Found]) -> str:
    if not found:
        return text
    parts: list[str] = []
    last, end, name = 0, -1, ""
    for start, stop, called in sorted(found, key=lambda one: (one[0], -one[1])):
        if start < end:  # they overlap: one mark for both
            end = max(end, stop)
            continue
        if end >= 0:
            parts.append(f"[secret:{name}]")
            last = end
        parts.append(text[last:start])
        end, name = stop, called
    if end >= 0:
        parts.append(f"[secret:{name}]")
        last = end
    return "".join((*parts, text[last:]))


def _forms(value: str) -> set[str]:
    """`value` as it may turn up: plain, escaped for JSON, Python, HTML and addresses (twice too), in hex, and in base64 at
    each of three alignments. Of a key of several lines each line counts as well."""
    plain = {value, *(line for line in value.split("\n") if re.fullmatch(r"[A-Za-z0-9+/=]{20,}", line))}
    escapes = (
        lambda s: json.dumps(s)[1:-1],
        lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
        lambda s: repr(s)[1:-1],
    )
    once = {escape(one) for escape, one in product(escapes, plain)}
    forms = plain | once | {escape(one) for escape, one in product(escapes, once)}
    forms |= {re.sub(r"\\u[0-9a-f]{4}", lambda match: "\\u" + match[0][2:].upper(), one) for one in once}
    forms |= {one.replace("/", "\\/") for one in once} | {
        html.escape(value),
        value.replace('"', '\\"'),
        value.replace("'", "\\'"),
    }
    for safe in ("", "/", "/:@", "!$'()*,/:;?@~", "~()*!.'"):
        for encoded in (quote(value, safe=safe), quote_plus(value, safe=safe)):
            forms |= {encoded, re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)}
    raw = value.encode("utf-8", "surrogatepass")
    forms |= {raw.hex(), raw.hex().upper()}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        # The first characters depend on what stands before the secret, the last one on what follows: they are cut.
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - (1 if (len(raw) + shift) % 3 else 0)]
        forms |= {inner, inner.replace("+", "-").replace("/", "_"), quote(inner, safe="")}
    return {form for form in forms if len(form) >= SHORTEST}
