"""What a model call took, from whatever the model says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from smolagents.models import ChatMessage, TokenUsage

from ..authors import author_of


@runtime_checkable
class Priced(Protocol):
    """A model that knows what a call costs in US dollars, or says `None`."""

    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float | None: ...


@runtime_checkable
class Chained(Protocol):
    """A model that is several: each answer has the price of the one that wrote it."""

    def written_by(self, model_id: str) -> Any: ...


@dataclass(frozen=True)
class CallUsage:
    """Tokens of one call. `input_tokens` counts the whole prompt, `cached_tokens` what of it came from the cache;
    `output_tokens` the whole answer, `reasoning_tokens` what of it was thinking."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    reasoning_tokens: int = 0
    model: str = ""


def call_usage(model: Any, tokens: TokenUsage | None, message: ChatMessage | None = None) -> CallUsage:
    """The usage of one call to `model`."""
    author = author_of(message)
    if tokens is None:
        return CallUsage(model=author)
    if author and isinstance(model, Chained):
        model = model.written_by(author)
    cached = _detail(message, "prompt_tokens_details", "cached_tokens")
    reasoning = _detail(message, "completion_tokens_details", "reasoning_tokens")
    cost = model.price(tokens.input_tokens, tokens.output_tokens, cached) if isinstance(model, Priced) else None
    return CallUsage(tokens.input_tokens, tokens.output_tokens, cached, cost, reasoning, author)


def _detail(message: ChatMessage | None, group: str, name: str) -> int:
    """A detail of the usage in a provider's own answer; 0 where it has no such field."""
    usage = getattr(message.raw, "usage", None) if message is not None else None
    return int(getattr(getattr(usage, group, None), name, None) or 0)
