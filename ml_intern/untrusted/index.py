"""Where in all the sources a text overlaps with them."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from .readings import LEAST, View, readings

OVERLAP = 40
"""Characters of an overlap, as they stand: what is shorter is not looked for."""
SPAN, STEP = 15, 5
"""An overlap of `LEAST` holds `SPAN` letters at each of `2 * STEP` places in a row."""
MOST_COMPARED = 20_000
"""Comparisons for one reading of a call. A text made to need more is taken for an overlap."""
OVERSEEN = 200
"""Letters into an overlap beyond which it is not looked whether other sources overlap there too."""

_DIGITS = b"0123456789"


@dataclass(frozen=True)
class Text:
    source: str
    text: str
    own: str
    printed: bool
    key: int

    def __len__(self) -> int:
        return len(self.text) + len(self.own)


class Index:
    """Every fifth place of all sources, by the letters that stand there.

    A place goes by eight letters, every other one of fifteen: eight in a row would mostly be a common word. A call is then
    looked up at every second place only, with the letters read as numbers, many at a time (`array`): of ten places in a
    row that are the same here and there, one is both a fifth here and a second there.
    """

    def __init__(self) -> None:
        self.text = bytearray()
        self.owners: list[Text] = []
        self._ends: list[int] = []
        self._last: dict[int, int] = {}
        self._after = array("I")

    def take(self, text: Text, own: Index) -> None:
        """Adds a text, without what the model said itself: `own`, for what was printed; else what the call said."""
        if not text.printed:
            own = Index()
            own.put(View(text.own).bytes)
        for reading in readings(text.text):
            view = own.cut(View(reading).bytes)
            self.put(self.cut(view) if text.printed else view)  # what was a source before it was printed has one
        self.owners.append(text)
        self._ends.append(len(self.text))

    def put(self, view: bytes) -> None:
        if len(view) < LEAST:
            return
        number, last, after = len(self.text) // STEP, self._last, self._after
        self.text += view
        self.text += bytes(2 * STEP - len(view) % STEP)  # no text has these: an overlap ends there
        for place in range(0, len(view) + STEP - len(view) % STEP + STEP, STEP):
            mark = int.from_bytes(view[place : place + SPAN : 2], sys.byteorder)
            number += 1
            after.append(last.get(mark, 0))
            last[mark] = number

    def overlaps(self, view: bytes) -> Iterator[tuple[int, int, int]]:
        """Start and end of each overlap in `view`, and its place in the text here. Some are told more than once."""
        text, places = self.text, []
        letters = view[::2] if text else b""
        for start in range(8):
            marks = array("Q")
            marks.frombytes(letters[start : start + (len(letters) - start) // 8 * 8])
            if known := self._last.keys() & marks:
                places += [(2 * start + 16 * i, mark) for i, mark in enumerate(marks) if mark in known]
        skip, leave, compared = 0, 0, 0
        for place, mark in sorted(places):
            if leave <= place < skip:
                continue
            number = self._last[mark]
            while number:
                at = (number - 1) * STEP
                start = place - _common_before(view, place, text, at)
                end = place + _common_after(view, place, text, at)
                compared += 1 + (end - start) // 200
                if end - start >= LEAST:
                    if end > skip:
                        skip, leave = end, place + OVERSEEN  # other sources may begin a little later
                    yield start, end, at
                if compared > MOST_COMPARED:
                    yield 0, len(view), at
                    return
                number = self._after[number - 1]

    def halves(self, size: int) -> tuple[list[Text], list[Text]]:
        """The texts but for the latest of them, and the latest, which take up to `size` here, or one of them more."""
        first = bisect_right(self._ends, self._ends[-1] - size)
        first = min(first, len(self.owners) - 1)
        return self.owners[:first], self.owners[first:]

    def look(self, view: View, found: dict[int, None]) -> None:
        """Adds to `found` the numbers of the sources that `view` repeats."""
        for start, end, at in self.overlaps(view.bytes):
            owner = bisect_right(self._ends, at)
            if owner not in found and _counts(view, start, end, self.owners[owner].printed):
                found[owner] = None

    def cut(self, view: bytes) -> bytes:
        """`view` without what overlaps with the texts here."""
        kept, done = [], 0
        for start, end in sorted((start, end) for start, end, _ in self.overlaps(view)):
            if start > done:
                kept.append(view[done:start])
            done = max(done, end)
        return b"\0".join([*kept, view[done:]]) if done else view


def _counts(view: View, start: int, end: int, printed: bool) -> bool:
    piece = view.bytes[start:end]
    if printed:
        return len(piece.translate(None, _DIGITS).decode(errors="ignore")) >= OVERLAP
    letters = len(piece.decode(errors="ignore"))
    return letters >= OVERLAP or (letters >= LEAST and view.span(start, end) >= OVERLAP)


def _common_after(a: bytes, i: int, b: bytearray, j: int) -> int:
    done, size, grows, most = 0, 32, True, min(len(a) - i, len(b) - j)
    while done < most:
        size = min(size, most - done)
        if a[i + done : i + done + size] == b[j + done : j + done + size]:
            done += size
            size = size * 2 if grows else size
        elif size == 1:
            break
        else:
            size, grows = size // 2, False
    return done


def _common_before(a: bytes, i: int, b: bytearray, j: int) -> int:
    done, size, grows, most = 0, 32, True, min(i, j)
    while done < most:
        size = min(size, most - done)
        if a[i - done - size : i - done] == b[j - done - size : j - done]:
            done += size
            size = size * 2 if grows else size
        elif size == 1:
            break
        else:
            size, grows = size // 2, False
    return done
