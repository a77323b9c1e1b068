"""What a model thought before it answered, from whatever form its provider gives it.

It is for people who read the record: it is never sent back, and no code is looked for in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smolagents.models import ChatMessage


@dataclass(frozen=True)
class Thinking:
    """One piece of thinking.

    Args:
        text (`str`): Its words; `""` where the provider keeps them to itself.
        signature (`str`): With which the provider knows it again, `""` where it signs nothing.
        redacted (`str`): In place of words: what the provider encrypted.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""


def thinking_of(message: ChatMessage | None) -> tuple[Thinking, ...]:
    """What a model thought, in order; nothing where its answer says nothing of it.

    Args:
        message (`ChatMessage`, *optional*): With the provider's own answer in `raw`: litellm's `thinking_blocks` (signed)
            or `reasoning_content`, as DeepSeek, vLLM and others send it; `reasoning`, as OpenRouter and the Hub's
            providers do.
    """
    choices = _part(message.raw, "choices") if message is not None else None
    answer = _part(choices[0], "message") if isinstance(choices, list) and choices else None
    blocks = _part(answer, "thinking_blocks")
    found = [_of_block(block) for block in blocks] if isinstance(blocks, list) else []
    if thought := tuple(one for one in found if one is not None):
        return thought
    words = (_part(answer, name) for name in ("reasoning_content", "reasoning"))
    return tuple(Thinking(said) for said in words if isinstance(said, str) and said.strip())[:1]


def _of_block(block: Any) -> Thinking | None:
    text, signature, redacted = (_part(block, name) for name in ("thinking", "signature", "data"))
    if _part(block, "type") == "redacted_thinking":
        return Thinking(redacted=redacted) if isinstance(redacted, str) and redacted else None
    text, signature = (said if isinstance(said, str) else "" for said in (text, signature))
    return Thinking(text, signature) if text or signature else None


def _part(value: Any, name: str) -> Any:
    """A part of a provider's answer: every client has classes of its own for it, or none."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
