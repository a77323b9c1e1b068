"""Untrusted text: what tools brought in from outside, remembered so that it is recognised in what goes out.

Papers, web pages, data rows, repositories and job logs hold text that somebody wrote who is not the user. A model that
reads it may do as it says. So whatever tools return is remembered here, and a call that writes, spends or runs something
is looked through for it: an overlap of 40 characters or more makes the call one that a person is asked about, whatever a
rule allows. Deterministic: no model takes part in the decision.

An overlap is found as it stands and in simple disguises: other case, spacing, punctuation or markup between the words;
JSON, URL and HTML escapes; base64 in each alignment and hex, once or twice over; reversed; rot13; split over arguments,
list items, lines or pieces of a string that is put together. The other way round as well: the source encoded, the call not.

What this does not see, and what else has to hold there (an allow rule is the user's own decision about a tool and a
destination; other namespaces always ask; the jail has no way out):
- what the model says in its own words: a paraphrase, a translation, a decision that follows from what it read;
- ciphers, compression, homoglyphs, character codes, text in images;
- pieces of fewer than 40 characters: a name, a link, a short command, or a text spread over several calls;
- fewer than 24 letters and digits among 40 characters: tables of symbols;
- what goes out in the queries and addresses of tools that only read: reading is free;
- what code reads from a file and passes on without printing it, where no tool returned it;
- of what code prints: overlaps of fewer than 40 letters, as figures and tables of one's own are printed all the time;
- what was read long ago: about two million characters are remembered, the latest, and of one text the first and the
  last half million.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from .index import OVERLAP, Index, Text
from .readings import LEAST, LONGEST, View, asked, strings

__all__ = ["LIMIT", "OVERLAP", "UntrustedText"]

LIMIT = 2_000_000
"""Characters that are remembered."""


class UntrustedText:
    """What tools brought in, of a session and its sub-agents. From any thread.

    Texts are kept as they are until the first call that has to be looked at: a session that only reads pays nothing.

    Args:
        limit (`int`, defaults to 2,000,000): Characters that are remembered; the oldest texts are forgotten first.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._waiting: deque[Text] = deque()
        self._size = 0
        self._known: set[int] = set()
        self._index, self._own = Index(), Index()
        self._lock = threading.Lock()

    def add(self, source: str, text: Any, own: Any = "") -> None:
        """Remembers a text.

        Args:
            source (`str`): Where it comes from, for the person who is asked.
            text: A text, or data of any depth whose texts are meant.
            own: What the model said itself, of which a repetition in `text` proves nothing: the arguments of the call.
        """
        self._add(source, text, own, printed=False)

    def add_printed(self, source: str, text: Any, own: Any = "") -> None:
        """Remembers what code printed, or what the model wrote of a conversation: it may be rows of data, or the model's own
        figures and words. So only overlaps count that hold 40 letters, and nothing that is in a source already, or in
        `own`, here or in an earlier call: the task, the model's code and words."""
        self._add(source, text, own, printed=True)

    def sources_in(self, value: Any) -> tuple[str, ...]:
        """The sources whose text `value` repeats, in the order in which they came."""
        with self._lock:
            if not (self._waiting or self._index.owners):
                return ()
            self._take_in()
            found: dict[int, None] = {}
            for view in asked(strings(value)):
                self._index.look(view, found)
            return tuple(dict.fromkeys(self._index.owners[owner].source for owner in sorted(found)))

    def _add(self, source: str, text: Any, own: Any, *, printed: bool) -> None:
        joined, said = _shortened("\n".join(strings(text))), [one for one in strings(own) if len(one) >= LEAST]
        key = hash((joined, printed))
        with self._lock:
            if printed:  # what was said before is known for good; what a call said is about its result alone
                said = [one for one in said if hash(one) not in self._known]
                self._known.update(map(hash, said))
            if len(joined) < LEAST or key in self._known:
                joined, key = "", 0
            if not joined and not (printed and said):
                return
            self._known.add(key)
            self._waiting.append(Text(source, joined, "\n".join(said), printed, key))
            self._size += len(self._waiting[-1])
            while self._size > self._limit and len(self._waiting) > 1:
                oldest = self._waiting.popleft()
                self._size -= len(oldest)
                self._known.discard(oldest.key)

    def _take_in(self) -> None:
        """Puts what has come in since into the index; where it grew too large, the older half of it is left out."""
        while self._waiting:
            text = self._waiting.popleft()
            if text.printed and text.own:
                self._own = self._own if len(self._own.text) < self._limit else Index()
                self._own.put(View(text.own).bytes)
            if text.text:
                self._index.take(text, self._own)
        self._size = 0
        if len(self._index.text) > 2 * self._limit:
            forgotten, kept = self._index.halves(self._limit)
            self._known.difference_update(text.key for text in forgotten)
            self._index = Index()
            for text in kept:
                self._index.take(text, self._own)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}\n\0\n{text[-LONGEST // 2 :]}"
