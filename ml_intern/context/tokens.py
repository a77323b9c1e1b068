"""Tokens without a tokenizer: an estimate from the text, held against what the provider counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smolagents.models import ChatMessage

PER_MESSAGE = 4
PER_IMAGE = 1_500
"""Providers bill an image of ordinary size at 800 to 1,600 tokens."""
BELIEVABLE = (0.15, 6.0)
"""A provider's count this far from the estimate is no count of the prompt (0 and 1 occur) and is passed over."""


def weigh(text: str) -> float:
    """Estimated tokens: a quarter of the characters, and half a token for each further byte of UTF-8.

    English and code come to 4 characters a token, Chinese and Japanese to 0.8, emoji to 0.6: a little more than counted.
    """
    if text.isascii():
        return len(text) / 4
    return len(text) / 4 + (len(text.encode("utf-8", "surrogatepass")) - len(text)) / 2


def weigh_message(message: ChatMessage) -> float:
    """Estimated tokens of a message, images included."""
    content = message.content or ""
    if isinstance(content, str):
        return PER_MESSAGE + weigh(content)
    parts = (weigh(part["text"]) if part.get("type") == "text" else PER_IMAGE for part in content)
    return PER_MESSAGE + sum(parts)


def weigh_all(messages: Iterable[ChatMessage]) -> float:
    return sum(map(weigh_message, messages))


@dataclass
class Meter:
    """Tokens of the next prompt: what the provider counted of the last one, and an estimate of what was added to it.

    Attributes:
        ratio (`float`): Tokens as counted over tokens as estimated, from the last believable count.
    """

    ratio: float = 1.0
    _counted: int = 0
    _weight: float = 0.0

    def measured(self, tokens: int, weight: float) -> None:
        """The provider counted `tokens` for a prompt that was estimated at `weight`."""
        low, high = BELIEVABLE
        if 0 < self._weight <= weight and tokens < self._counted:
            return  # it grew and is counted smaller: some leave out what came from their cache
        if weight > 0 and low * weight <= tokens <= high * weight:
            self.ratio, self._counted, self._weight = tokens / weight, tokens, weight

    def moved(self) -> None:
        """The prompt is another one now: what was counted says nothing of it but the ratio."""
        self._counted, self._weight = 0, 0.0

    def count(self, weight: float) -> int:
        """Tokens of a prompt estimated at `weight`, which begins with the one counted last."""
        return round(self._counted + self.ratio * (weight - self._weight))
