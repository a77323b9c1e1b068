"""What a trace says of a session as a whole: its title, what it cost, what it may do."""

from __future__ import annotations

import math
from typing import Any

from ..events import Usage
from .read import note_of
from .restored import Lineage
from .rows import Row
from .values import count, number, price, text, texts


class Books:
    """Kept row by row. Undone turns count: they happened, and were paid for. What a fork copied was not."""

    def __init__(self) -> None:
        self.lineage: Lineage | None = None
        self._fresh = False
        self._working = 0.0
        self._titles: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._rules: list[tuple[str, str]] = []
        self._limits: dict[str, Any] = {}
        self._variables: dict[str, None] = {}
        self._records: list[tuple[str, dict[str, Any]]] = []
        self._parked: tuple[str, ...] = ()
        self._told: dict[str, set[str]] = {}
        self._input = self._output = self._cached = self._reasoning = self._unpriced = 0
        self._spent = self._seconds = 0.0
        self._unknown = False

    def add(self, row: Row) -> None:
        kind = row["type"]
        if kind in ("user", "assistant") and "forkedFrom" not in row:
            self._fresh = False
        if "final" in row and "forkedFrom" not in row:
            self._working += number(row.get("seconds"))
        if kind == "assistant":
            self._answered(row)
        elif kind in ("ai-title", "custom-title"):
            self._titles[kind] = text(row.get("aiTitle" if kind == "ai-title" else "customTitle"))
        elif kind == "user" and row.get("stepKind") == "task":
            self._variables.update(dict.fromkeys(texts(row.get("variables"))))
            self._limits.pop("max_steps", None)
        elif kind == "user" and "costUsd" in row and "forkedFrom" not in row:  # what a tool spent
            self._pay(price(row["costUsd"]))
        elif (note := note_of(row)) is not None:
            self._noted(note, forked="forkedFrom" in row)

    def add_spent(self, row: Row) -> None:
        """A row of a sub-agent's own trace: what it spent, and nothing else of it."""
        note = note_of(row)
        if row["type"] == "assistant":
            model = self._said.get("model")
            self._answered(row)
            self._said["model"] = model or ""
        elif row["type"] == "user" and "costUsd" in row:
            self._pay(price(row["costUsd"]))
        elif note is not None and note.get("kind") in ("subagent", "unused-summary"):
            self._noted(note, forked="forkedFrom" in row)

    def fields(self) -> dict[str, Any]:
        """By the names that [`Restored`] has for them."""
        cost = None if self._unknown else self._spent
        return {
            "title": self._titles.get("custom-title") or self._titles.get("ai-title") or "",
            "rules": tuple(self._rules),
            "usage": Usage(self._input, self._output, self._cached, cost, self._reasoning),
            "spent_usd": self._spent,
            "unpriced_calls": self._unpriced,
            "seconds": self._seconds,
            "open_seconds": self._working,
            "variables": tuple(self._variables),
            "records": tuple(self._records),
            "parked": self._parked,
            "told": self._told,
            "lineage": self.lineage,
            "fresh": self._fresh,
            **self._said,
            **self._limits,
        }

    def _answered(self, row: Row) -> None:
        message = row.get("message")
        used = message.get("usage") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(used, dict):
            return
        self._said["model"] = text(message.get("model")) or self._said.get("model", "")
        if "forkedFrom" in row:
            return
        cached = count(used.get("cache_read_input_tokens"))
        read = count(used.get("input_tokens")) + count(used.get("cache_creation_input_tokens")) + cached
        self._add(read, count(used.get("output_tokens")), cached)
        self._reasoning += count(row.get("reasoningTokens"))
        if "costUsd" in row:
            self._pay(price(row["costUsd"]))

    def _add(self, read: int, written: int, cached: int) -> None:
        self._input, self._output, self._cached = self._input + read, self._output + written, self._cached + cached

    def _pay(self, cost: float | None) -> None:
        self._unknown = self._unknown or cost is None
        self._unpriced += cost is None
        self._spent += cost or 0.0

    def _noted(self, note: Row, forked: bool) -> None:
        kind = note.get("kind")
        if kind == "job":
            self._told.setdefault(text(note.get("job_id")), set()).add(text(note.get("what")))
        elif kind == "worker":
            self._said["jail"] = text(note.get("jail"))
        elif kind == "mode":
            self._said["mode"] = text(note.get("mode"))
        elif kind == "model-chosen":
            self._said["chosen"] = text(note.get("model"))
        elif kind == "rule" and text(note.get("rule")):
            rule = (text(note.get("rule")), text(note.get("scope")) or "session")
            self._rules = [*(known for known in self._rules if known[0] != rule[0]), rule]
        elif kind == "budget":
            for name, field in (("usd", "budget_usd"), ("hours", "max_hours")):
                if price(note.get(name)) is not None:
                    self._limits[field] = price(note.get(name))
        elif kind == "extended" and count(note.get("steps")):
            self._limits["max_steps"] = count(note.get("steps"))
        elif kind == "subagent" and not forked:
            self._add(count(note.get("inputTokens")), count(note.get("outputTokens")), count(note.get("cachedTokens")))
            # What is known of it, beside calls of unknown price.
            self._spent += price(note.get("spentUsd", note.get("costUsd"))) or 0.0
            self._unpriced += count(note.get("unpricedCalls"))
            self._unknown = self._unknown or price(note.get("costUsd")) is None
        elif kind == "unused-summary" and not forked:
            self._add(count(note.get("inputTokens")), count(note.get("outputTokens")), count(note.get("cachedTokens")))
            self._pay(price(note.get("costUsd")))
        elif kind in ("experiment", "evaluation") and isinstance(note.get("data"), dict):
            self._records.append((kind, note["data"]))
            if not forked:  # a job that was counted in full beforehand and took less
                less = note["data"].get("correction_usd")
                self._spent = max(
                    0.0, self._spent + (less if isinstance(less, int | float) and math.isfinite(less) else 0)
                )
        elif kind == "parked":
            self._parked = texts(note.get("calls"))
        elif kind == "resumed":
            self._parked = ()
        elif kind == "forked":
            self._fresh = True
            self.lineage = Lineage(text(note.get("source")), text(note.get("at")), note.get("own") is True)
        elif kind == "end" and not forked:
            self._ended(note)

    def _ended(self, note: Row) -> None:
        """The session's own sums, which hold what no row of its own was written for."""
        self._parked, self._working = (), 0.0
        self._seconds += number(note.get("seconds"))
        if "inputTokens" not in note:
            return
        self._input = max(self._input, count(note.get("inputTokens")))
        self._output = max(self._output, count(note.get("outputTokens")))
        cost = price(note.get("costUsd"))
        self._unknown = cost is None
        if cost is not None:
            self._spent, self._unpriced = max(self._spent, cost), 0
