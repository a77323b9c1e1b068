"""A recorded session as a test sees it: the model's turns, and how the world's answers differ from those of then."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_intern.differences import compared, differences

__all__ = ["Difference", "RecordedTurns", "Turn", "TurnCall", "differences", "newest_observation", "read_turns"]


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
            if recorded and (found := compared(recorded, observation).changes):  # after a plan: nothing to compare
                words = tuple(map(str, found))
                self.differences.append(Difference(step, recorded, observation, words))
                if self.on_difference:
                    self.on_difference(step, _joined(c.then for c in found), _joined(c.now for c in found))
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


def _joined(lines: Iterable[str | None], limit: int = 400) -> str:
    text = "\n".join(line for line in lines if line is not None)
    return text if len(text) <= limit else text[: limit - 3] + "..."
