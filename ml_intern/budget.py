"""What a session may cost: money, hours. Steps are the loop's own limit."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from .events import Usage


@dataclass
class SpendLedger:
    """One ledger for a session and all its sub-agents.

    Args:
        budget_usd (`float`, *optional*): In US dollars. Calls of a model whose price is unknown cannot be held to it: they are
            counted in `unpriced_calls`.
        max_hours (`float`, *optional*): Wall-clock hours from the first use.
    """

    budget_usd: float | None = None
    max_hours: float | None = None
    usage: Usage = field(default_factory=Usage)
    started: float = field(default_factory=time.monotonic)
    spent_usd: float = 0.0
    """What is known to be spent; calls of unknown price (`unpriced_calls`) are not in it."""
    unpriced_calls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def record(
        self, input_tokens: int, output_tokens: int, cached_tokens: int = 0, cost_usd: float | None = None
    ) -> Usage:
        """Adds one model call. `cost_usd` is `None` where the price is unknown: the sum is unknown from then on."""
        with self._lock:
            known = self.usage.cost_usd is not None and cost_usd is not None
            self.unpriced_calls += cost_usd is None
            self.usage = Usage(
                self.usage.input_tokens + input_tokens,
                self.usage.output_tokens + output_tokens,
                self.usage.cached_tokens + cached_tokens,
                (self.usage.cost_usd or 0.0) + (cost_usd or 0.0) if known else None,
            )
            self.spent_usd += cost_usd or 0.0
            return self.usage

    def exceeded(self) -> str:
        """Why the session has to end, or `""`."""
        if self.budget_usd is not None and self.spent_usd >= self.budget_usd:
            return f"${self.spent_usd:.2f} of ${self.budget_usd:.2f} are spent"
        hours = (time.monotonic() - self.started) / 3600
        if self.max_hours is not None and hours >= self.max_hours:
            return f"{hours:.2f} of {self.max_hours:.2f} hours are over"
        return ""
