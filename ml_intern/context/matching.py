"""Lines that match, found without risk: plain words here, regular expressions in a process of their own that can be ended.

An expression comes from the model, or from whatever it read. One that backtracks for ever would hold up every session of
this process: Python's `re` cannot be stopped. Run as a program this file is that process; it needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator

AROUND = 200
"""Characters on each side of a match in a line that is longer."""
MOST = 200
"""Matches that are given."""
SECONDS = 30.0

Text = tuple[str, int, str]
"""A name, the number of the first line, the text."""


def find(texts: Iterable[Text], expression: str) -> list[str]:
    """Lines that match, as `name:number: line`; at most [`MOST`] of them, each once.

    Args:
        texts (`Iterable[Text]`): Where to look.
        expression (`str`): A regular expression, upper and lower case alike; one that is none is taken as it stands.

    Raises:
        ValueError: it took too long.
    """
    try:
        re.compile(expression)
    except re.error:
        expression = re.escape(expression)
    if re.fullmatch(r"[^.^$*+?{}\[\]|()\\]*|(?:[^.^$*+?{}\[\]|()\\]|\\\W)*", expression):
        return list(search(texts, expression))
    command = [sys.executable, "-I", __file__, expression]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        ending = threading.Timer(SECONDS, process.kill)
        ending.start()
        with contextlib.suppress(BrokenPipeError):  # it has found enough, or was ended
            for text in texts:
                process.stdin.write(json.dumps(text).encode() + b"\n")
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        found = process.stdout.read()
        ending.cancel()
    if process.returncode:
        raise ValueError(f"{expression!r} takes too long to match: look for a plain word instead.")
    return json.loads(found)


def search(texts: Iterable[Text], expression: str) -> Iterator[str]:
    """The same, here and now."""
    pattern = re.compile(expression, re.IGNORECASE | re.MULTILINE)
    seen: set[str] = set()
    for name, first, text in texts:
        for number, excerpt in _matches(text, pattern, first):
            if excerpt in seen and name:  # an output is in its step and among the large ones
                continue
            seen.add(excerpt)
            yield f"{name}:{number}: {excerpt}" if name else f"{number}: {excerpt}"
            if len(seen) == MOST:
                yield f"[the first {MOST} matches; be more exact, or read one handle]"
                return


def _matches(text: str, pattern: re.Pattern[str], first: int) -> Iterator[tuple[int, str]]:
    place = counted = 0
    number = first
    for match in pattern.finditer(text):
        if match.start() < place:  # in a line, or beside a match, that was given
            continue
        start = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.start())
        end = len(text) if end < 0 else end
        number += text.count("\n", counted, start)
        counted = max(counted, start)
        left, right = max(start, match.start() - AROUND), min(end, match.end() + AROUND)
        yield number, ("..." if left > start else "") + text[left:right] + ("..." if right < end else "")
        place = max(right, match.end())


if __name__ == "__main__":
    matches = list(search(map(json.loads, sys.stdin.buffer), sys.argv[1]))
    os.close(0)  # whoever still writes need not wait for what is read next
    sys.stdout.write(json.dumps(matches))
