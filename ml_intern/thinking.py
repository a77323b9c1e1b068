"""What a model thought before it answered, from whatever form its provider gives it.

It is for people who read the record, and no code is looked for in it. It goes back only to who wants it back: Anthropic's
models read their own signed thinking again, as long as nothing before it has changed. All others do without (DeepSeek refuses
it, or passes over it), and thinking in tags is taken out of what is sent again: chat templates do the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
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


@dataclass
class Said(ChatMessage):
    """An answer as it stands in the conversation, with what its model thought before.

    Args:
        thoughts (`tuple[Thinking, ...]`): Signed, word for word.
        author (`str`): The model: nobody else can read them.
        system (`str`): The prompt that the conversation began with: they belong to no other.
    """

    thoughts: tuple[Thinking, ...] = ()
    author: str = ""
    system: str = ""


def with_thoughts(message: ChatMessage, thoughts: tuple[Thinking, ...], author: str, system: str) -> Said:
    fields = {name: getattr(message, name) for name in ("role", "content", "tool_calls", "raw", "token_usage")}
    return Said(**fields, thoughts=thoughts, author=author, system=system)


def signed(thoughts: tuple[Thinking, ...]) -> tuple[Thinking, ...]:
    """Thinking that can go back: all of an answer's, or nothing of it."""
    return thoughts if all(one.signature or one.redacted for one in thoughts) else ()


def block_of(thinking: Thinking) -> dict[str, str]:
    """As litellm takes it back."""
    if thinking.redacted:
        return {"type": "redacted_thinking", "data": thinking.redacted}
    return {"type": "thinking", "thinking": thinking.text, "signature": thinking.signature}


TAGS = r"think|thinking|thought|reasoning|seed:think"
_LEADING = re.compile(rf"\s*<({TAGS})>.*?</\1>\s*", re.IGNORECASE | re.DOTALL)
_KEEP_TAGS = re.compile(r"minimax-?m\d", re.IGNORECASE)
"""Models that say that they want their tags back."""


def without_tags(message: ChatMessage) -> ChatMessage:
    """An answer without the thinking in tags at its beginning; the very same one where it has none."""
    content = message.content
    if isinstance(content, str):
        found = _bare(content)
        return message if found == content else replace(message, content=found)
    if not content or not isinstance(content[0].get("text"), str):
        return message
    text = content[0]["text"]
    found = _bare(text)
    return message if found == text else replace(message, content=[{**content[0], "text": found}, *content[1:]])


def wants_tags(model_id: str) -> bool:
    return bool(_KEEP_TAGS.search(model_id))


def _bare(text: str) -> str:
    rest = text
    while (found := _LEADING.match(rest)) is not None:
        rest = rest[found.end() :]
    return text if rest == text else rest or "(nothing)"


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
    found = [of_block(block) for block in blocks] if isinstance(blocks, list) else []
    if thought := tuple(one for one in found if one is not None):
        return thought
    words = (_part(answer, name) for name in ("reasoning_content", "reasoning"))
    return tuple(Thinking(said) for said in words if isinstance(said, str) and said.strip())[:1]


def of_block(block: Any) -> Thinking | None:
    text, signature, redacted = (_part(block, name) for name in ("thinking", "signature", "data"))
    if _part(block, "type") == "redacted_thinking":
        return Thinking(redacted=redacted) if isinstance(redacted, str) and redacted else None
    text, signature = (said if isinstance(said, str) else "" for said in (text, signature))
    return Thinking(text, signature) if text or signature else None


def _part(value: Any, name: str) -> Any:
    """A part of a provider's answer: every client has classes of its own for it, or none."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
