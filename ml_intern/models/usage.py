"""What a model call took, from whatever the model says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from smolagents.models import ChatMessage, TokenUsage


@runtime_checkable
class Priced(Protocol):
    """A model that knows what a call costs in US dollars, or says `None`."""

    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float | None: ...


@dataclass(frozen=True)
class CallUsage:
    """Tokens of one call. `input_tokens` counts the whole prompt, `cached_tokens` what of it came from the cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None


def call_usage(model: Any, tokens: TokenUsage | None, message: ChatMessage | None = None) -> CallUsage:
    """The usage of one call to `model`."""
    if tokens is None:
        return CallUsage()
    cached = _cached(message.raw) if message is not None else 0
    cost = model.price(tokens.input_tokens, tokens.output_tokens, cached) if isinstance(model, Priced) else None
    return CallUsage(tokens.input_tokens, tokens.output_tokens, cached, cost)


def _cached(raw: Any) -> int:
    """Cached prompt tokens in a provider's own answer; 0 where it has no such field."""
    try:
        return int(raw.usage.prompt_tokens_details.cached_tokens or 0)
    except AttributeError:
        return 0
