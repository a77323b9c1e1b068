"""A recorded session as a test sees it: the model's turns, and how the world's answers differ from those of then."""

from __future__ import annotations

import difflib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

TOLERANCE = 0.02


@dataclass(frozen=True)
class TurnCall:
    """A structured tool call of a recorded turn (a tool-calling agent's; a code agent's code is in the text)."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """One answer of the model in a trace, and what it was shown before the next one."""

    text: str
    observation: str
    tool_calls: tuple[TurnCall, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Difference:
    """An observation that is not the recorded one: after which step, both texts, and what differs in words."""

    step: int
    recorded: str
    actual: str
    lines: tuple[str, ...]


class RecordedTurns:
    """The turns of a trace, given out one by one while comparing what the world answers."""

    def __init__(self, trace: Path, on_difference: Callable[[int, str, str], None] | None = None) -> None:
        self.trace, self.on_difference = trace, on_difference
        self.leftover = read_turns(trace)
        self.total = len(self.leftover)
        self.differences: list[Difference] = []
        self._given: list[Turn] = []
        self._lock = threading.Lock()

    def next(self, observation: str) -> Turn | None:
        """The next turn, or `None` at the end; `observation` is what the model was shown since the previous one."""
        with self._lock:
            if not self.leftover:
                return None
            step = len(self._given)
            recorded = self._given[-1].observation if step else ""
            if recorded and (found := _changes(recorded, observation)):  # after a plan there is nothing to compare
                words = tuple(map(_described, found))
                self.differences.append(Difference(step, recorded, observation, words))
                if self.on_difference:
                    self.on_difference(step, _joined(c[1] for c in found), _joined(c[2] for c in found))
            self._given.append(self.leftover.pop(0))
            return self._given[-1]


def read_turns(trace: Path) -> list[Turn]:
    """Read the model's turns from a Claude Code JSONL trace.

    A turn is an assistant row whose message has a `usage` (rows of nested tool calls have none) or that is marked as
    planning. What the model said is the row's `modelOutput` where there is one; otherwise its text, and the code of
    its `python_interpreter` call in `<code>` tags.

    Args:
        trace (`Path`): The trace.

    Raises:
        ValueError: When it has no turn, which would make every comparison succeed.
    """
    rows = [json.loads(line) for line in trace.read_text(encoding="utf-8").split("\n") if line.strip()]
    turns: list[Turn] = []
    asked: set[str] = set()
    for row in rows:
        message = row.get("message")
        if not isinstance(message, dict) or any(row.get(key) for key in ("isSidechain", "isMeta", "isCompactSummary")):
            continue
        if row["type"] == "assistant" and (message.get("usage") or "planning" in str(row.get("stepKind"))):
            turns.append(_turn(row, message))
            asked = {block["id"] for block in message["content"] if block["type"] == "tool_use"}
        elif row["type"] == "user" and turns and (shown := _shown(row, message["content"], asked)):
            turns[-1] = replace(turns[-1], observation="\n".join(filter(None, [turns[-1].observation, shown])))
    if not turns:
        raise ValueError(f"{trace} has no answer of a model: no assistant row with a `usage`.")
    return turns


def _turn(row: dict[str, Any], message: dict[str, Any]) -> Turn:
    uses = [block for block in message["content"] if block["type"] == "tool_use"]
    codes = [block["input"] for block in uses if block["name"] == "python_interpreter"]
    text = row.get("modelOutput")
    if text is None:
        text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
        for code in codes:
            text += f"\n<code>\n{code.get('code', next(iter(code.values()), ''))}\n</code>"
    calls = tuple(TurnCall(b["id"], b["name"], b["input"]) for b in uses if b["name"] != "python_interpreter")
    usage = message.get("usage") or {}
    cached = usage.get("cache_read_input_tokens", 0) + usage.get("cache_creation_input_tokens", 0)
    return Turn(text, "", calls, usage.get("input_tokens", 0) + cached, usage.get("output_tokens", 0))


def _shown(row: dict[str, Any], content: str | list[dict[str, Any]], asked: set[str]) -> str:
    """The observation in a user row: results of the turn's own calls (not of nested ones), or a plain text about it.

    A row that says what kind it is (a task, say) is no observation, nor is a compaction's summary.
    """
    if isinstance(content, str):
        return "" if row.get("stepKind") or row.get("isCompactSummary") else content
    texts = []
    for block in content:
        if block["type"] == "tool_result" and block["tool_use_id"] in asked:
            inner = block.get("content") or ""
            parts = [inner] if isinstance(inner, str) else [part["text"] for part in inner if part["type"] == "text"]
            texts += parts
    return "\n".join(texts)


def newest_observation(text: str) -> str:
    """The last observation in what a model was shown, where a client has merged it with what came before."""
    start = text.rfind("\nObservation:\n")
    return text[start + 1 :] if start >= 0 else text


# What differs from run to run without meaning anything; the first that matches wins.
_NUMBER = r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?"
_UNIT = r"(?:ns|µs|us|ms|s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?)"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_VOLATILE = {
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
_TOKENS = re.compile("|".join([*(f"(?P<{name}>{p})" for name, p in _VOLATILE.items()), f"(?P<number>{_NUMBER})"]))
_WEEKDAY = re.compile(rf"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? (?=(?:\d\d? )?{_MONTH}\b)")
# How an agent frames an observation; the trace holds it without.
_FRAME = re.compile(
    r"(Observation|Error|New task|Execution logs|Last output from code snippet):|Call id: .*|Now let's retry: .*"
)

_Change = tuple[int, str | None, str | None]


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
    return [_described(change) for change in _changes(recorded, actual, relative, absolute)]


def _changes(recorded: str, actual: str, relative: float = TOLERANCE, absolute: float = TOLERANCE) -> list[_Change]:
    """Line number, the line as recorded, the line as it is now; `None` where there is none."""
    if recorded == actual:
        return []
    then, now = _lines(recorded), _lines(actual)
    changes: list[_Change] = []
    matcher = difflib.SequenceMatcher(None, [line[1] for line in then], [line[1] for line in now], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        for old, new in itertools.zip_longest(then[a:b], now[c:d]):
            if kind == "equal" and all(_near(x, y, relative, absolute) for x, y in zip(old[2], new[2], strict=True)):
                continue
            number = (old or new)[3]
            changes.append((number, old and old[0], new and new[0]))
    return changes


def _lines(text: str) -> list[tuple[str, str, list[float], int]]:
    """Lines that say something: the line, its skeleton without what may change, its numbers, its place."""
    lines = []
    for place, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or _FRAME.fullmatch(line):
            continue
        numbers: list[float] = []

        def skeleton(match: re.Match[str], numbers: list[float] = numbers) -> str:
            if match.lastgroup != "number":
                return f"<{match.lastgroup}>"
            numbers.append(float(match.group().replace(",", "")))
            return "#"

        bones = _TOKENS.sub(skeleton, _WEEKDAY.sub("", line))
        lines.append((line, "".join(bones.split()), numbers, place))
    return lines


def _near(x: float, y: float, relative: float, absolute: float) -> bool:
    return x == y or abs(x - y) <= max(absolute, relative * max(abs(x), abs(y)))


def _described(change: _Change) -> str:
    number, old, new = change
    if old is None:
        return f"new line {number}: {_short(new)}"
    return (
        f"line {number} is missing: {_short(old)}"
        if new is None
        else f"line {number}: {_short(old)}, now {_short(new)}"
    )


def _short(text: str | None, limit: int = 120) -> str:
    text = text or ""
    return json.dumps(text if len(text) <= limit else text[: limit - 3] + "...", ensure_ascii=False)


def _joined(lines: Iterable[str | None], limit: int = 400) -> str:
    text = "\n".join(line for line in lines if line is not None)
    return text if len(text) <= limit else text[: limit - 3] + "..."
