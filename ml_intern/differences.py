"""How one output differs from another that should say the same: the lines, the numbers, and what never stays the same.

Times, durations, ids, memory addresses, ports and temporary paths change from run to run and mean nothing; numbers may
change a little. What was passed over is said.
"""

from __future__ import annotations

import base64
import difflib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

TOLERANCE = 0.02
VISIBLE = 2.0
"""Mean difference of a pixel's channels, out of 255, from which on two images are taken as different."""

LONGEST_MATCH = 4000
"""Lines that are aligned with each other; longer stretches are compared one by one."""

# The first that matches wins.
_NUMBER = r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?"
_UNIT = r"(?:ns|µs|us|ms|s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?)"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
VOLATILE = {
    "uuid": r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b",
    "address": r"\b0x[0-9a-fA-F]{6,}\b",
    "digest": r"(?<![\w.])(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,128}\b(?!\.\d)",
    "date": r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?",
    "moment": rf"\b(?:\d\d? )?{_MONTH} (?:\d\d? )?(?:\d{{4}} )?\d\d:\d\d:\d\d(?: [A-Z]{{3}})?(?: \d{{4}})?",
    "clock": r"\b\d{1,3}:\d\d(?::\d\d)?(?:\.\d+)?\b",
    "port": r"(?:(?<=://)(?:[\w.-]+|\[[\d:a-f]+\])|\blocalhost|\b127\.0\.0\.1):\d{2,5}\b",
    "temporary": r"(?:/private)?(?:/var)?/tmp/[\w./+-]*\w",
    "duration": rf"{_NUMBER} ?{_UNIT}\b(?!/)",
    "rate": rf"{_NUMBER} ?(?:it|iterations|samples?|examples?|rows|steps|tokens?|[kKMG]i?B|B)/s\b",
}
"""What differs from run to run without meaning anything, by name."""
NAMES = {
    "uuid": "ids", "address": "memory addresses", "digest": "digests", "date": "times", "moment": "times",
    "clock": "times", "port": "ports", "temporary": "temporary paths", "duration": "durations", "rate": "rates",
}  # fmt: skip
_TOKENS = re.compile("|".join([*(f"(?P<{name}>{p})" for name, p in VOLATILE.items()), f"(?P<number>{_NUMBER})"]))
_WEEKDAY = re.compile(rf"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? (?=(?:\d\d? )?{_MONTH}\b)")
# How an agent frames an observation; a trace holds it without.
_FRAME = re.compile(
    r"(Observation|Error|New task|Execution logs|Last output from code snippet):|Call id: .*|Now let's retry: .*"
)


@dataclass(frozen=True)
class Change:
    """A line that differs: its number, as it was recorded and as it is now; `None` where there is none."""

    line: int
    then: str | None
    now: str | None

    def __str__(self) -> str:
        if self.then is None:
            return f"new line {self.line}: {short(self.now)}"
        if self.now is None:
            return f"line {self.line} is missing: {short(self.then)}"
        then, now = apart(self.then, self.now)
        return f"line {self.line}: {short(then)}, now {short(now)}"


@dataclass(frozen=True)
class Compared:
    """Two texts side by side.

    Args:
        changes (`tuple[Change, ...]`): What differs and counts.
        passed_over (`tuple[str, ...]`): Sorts of things that differ and do not count, e.g. `"durations"`.
        deviation (`float`): The largest relative difference among numbers that are taken as the same.
    """

    changes: tuple[Change, ...] = ()
    passed_over: tuple[str, ...] = ()
    deviation: float = 0.0


@dataclass(frozen=True)
class _Line:
    text: str
    bones: str
    """The line without white space, numbers and what is volatile."""
    numbers: tuple[float, ...]
    tokens: tuple[tuple[str, str], ...]
    place: int


def differences(recorded: str, actual: str, *, relative: float = TOLERANCE, absolute: float = TOLERANCE) -> list[str]:
    """Say in short lines how an observation differs from the recorded one; an empty list when it does not.

    Timestamps, durations and rates, hex digests, memory addresses, uuids, ports of addresses and temporary paths may
    differ, as may white space; numbers may differ a little.

    Args:
        recorded (`str`): What was seen then.
        actual (`str`): What is seen now.
        relative (`float`, defaults to 0.02): A number may change by this part of the larger one ...
        absolute (`float`, defaults to 0.02): ... or by this much.

    Returns:
        `list[str]`: Such as `line 3: "accuracy: 0.91", now "accuracy: 0.62"`.
    """
    return [str(change) for change in compared(recorded, actual, relative=relative, absolute=absolute).changes]


def compared(
    recorded: str,
    actual: str,
    *,
    relative: float = TOLERANCE,
    absolute: float = TOLERANCE,
    counts: Set[str] = frozenset(),
) -> Compared:
    """The same with all that is known of it.

    Args:
        counts (`Set[str]`): Names of [`VOLATILE`] things that count all the same.
    """
    if recorded == actual:
        return Compared()
    then, now = _lines(recorded, counts), _lines(actual, counts)
    changes: list[Change] = []
    passed: set[str] = set()
    deviation = 0.0
    for old, new in _pairs(then, now):
        if old is not None and new is not None and old.bones == new.bones:
            pairs = list(zip(old.numbers, new.numbers, strict=True))
            if all(_near(x, y, relative, absolute) for x, y in pairs):
                deviation = max([deviation, *(abs(x - y) / max(abs(x), abs(y)) for x, y in pairs if x != y)])
                passed |= {NAMES[a[0]] for a, b in zip(old.tokens, new.tokens, strict=True) if a != b}
                continue
        one = old or new
        assert one is not None
        changes.append(Change(one.place, old.text if old else None, new.text if new else None))
    return Compared(tuple(changes), tuple(sorted(passed)), deviation)


def _pairs(then: list[_Line], now: list[_Line]) -> Iterable[tuple[_Line | None, _Line | None]]:
    """Lines that belong together. Equal beginnings and ends first: aligning takes time by the square."""
    shorter = min(len(then), len(now))
    head = next((i for i in range(shorter) if then[i].bones != now[i].bones), shorter)
    rest = shorter - head
    tail = next((i for i in range(rest) if then[-1 - i].bones != now[-1 - i].bones), rest)
    yield from zip(then[:head], now[:head], strict=True)
    old, new = then[head : len(then) - tail], now[head : len(now) - tail]
    if max(len(old), len(new)) > LONGEST_MATCH:
        yield from itertools.zip_longest(old, new)
    else:
        matcher = difflib.SequenceMatcher(None, [a.bones for a in old], [b.bones for b in new], autojunk=False)
        for _, a, b, c, d in matcher.get_opcodes():
            yield from itertools.zip_longest(old[a:b], new[c:d])
    yield from zip(then[len(then) - tail :], now[len(now) - tail :], strict=True)


def _lines(text: str, counts: Set[str]) -> list[_Line]:
    """Lines that say something."""
    lines = []
    for place, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not _FRAME.fullmatch(line):
            lines.append(_line(line, counts, place))
    return lines


def _line(line: str, counts: Set[str], place: int) -> _Line:
    numbers: list[float] = []
    tokens: list[tuple[str, str]] = []

    def skeleton(match: re.Match[str]) -> str:
        kind = match.lastgroup or ""
        if kind in counts:
            return match.group()
        if kind != "number":
            tokens.append((kind, match.group()))
            return f"<{kind}>"
        numbers.append(float(match.group().replace(",", "")))
        return "#"

    bones = "".join(_TOKENS.sub(skeleton, _WEEKDAY.sub("", line)).split())
    return _Line(line, bones, tuple(numbers), tuple(tokens), place)


def _near(x: float, y: float, relative: float, absolute: float) -> bool:
    try:
        return x == y or abs(x - y) <= max(absolute, relative * max(abs(x), abs(y)))
    except OverflowError:  # an integer beyond all floats
        return False


def apart(then: str, now: str, limit: int = 100) -> tuple[str, str]:
    """Two long lines from shortly before the place where they part."""
    place = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
    if max(len(then), len(now)) <= limit or place <= limit // 2:
        return then, now
    start = place - limit // 4
    return f"...{then[start:]}", f"...{now[start:]}"


def short(text: str | None, limit: int = 120) -> str:
    text = text or ""
    return json.dumps(text if len(text) <= limit else text[: limit - 3] + "...", ensure_ascii=False)


def data_near(
    then: object, now: object, same_text: Callable[[str, str], bool], relative: float, absolute: float
) -> bool:
    """Whether plain data says the same, its numbers and texts compared as above."""
    if isinstance(then, bool) or isinstance(now, bool) or then is None or now is None:
        return then is now
    if isinstance(then, int | float) and isinstance(now, int | float):
        return _near(then, now, relative, absolute)
    if isinstance(then, str) and isinstance(now, str):
        return same_text(then, now)
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() == now.keys() and all(
            data_near(then[k], now[k], same_text, relative, absolute) for k in then
        )
    if isinstance(then, list) and isinstance(now, list):
        pairs = zip(then, now, strict=False)
        return len(then) == len(now) and all(data_near(x, y, same_text, relative, absolute) for x, y in pairs)
    return False


def image_difference(recorded: str, now: Image) -> str:
    """How an image differs from a recorded one.

    Args:
        recorded (`str`): A PNG or JPEG in base64, as a trace has it.
        now (`Image`): The other one.

    Returns:
        `str`: In words; `""` where they show the same.
    """
    from PIL import Image, ImageChops, ImageStat

    try:
        then = Image.open(io.BytesIO(base64.b64decode(recorded)))
        then.load()
    except (ValueError, OSError) as error:
        return f"the recorded one does not read ({error})"
    if then.size != now.size:
        return f"{then.width} x {then.height} pixels then, {now.width} x {now.height} now"
    apart = ImageStat.Stat(ImageChops.difference(then.convert("RGBA"), now.convert("RGBA"))).mean
    worst = max(apart)
    return f"its pixels differ by {worst:.1f} of 255 on average" if worst > VISIBLE else ""
