"""Cache breakpoints for providers that want to be told what to keep.

Anthropic caches a prompt up to a mark. Marks stand on the system prompt and on the last two messages: the last one writes
what the next request reads, the one before it reads what the last request wrote. Others cache by themselves.
The idea is mini-swe-agent's and many others'.
"""

from __future__ import annotations

import re
from typing import Any

MARK = {"type": "ephemeral"}
_READS_THINKING = re.compile(
    r"^(?:anthropic/|claude-|(?:bedrock|vertex_ai)/(?:.*[/.])?(?:anthropic|claude)[.-])", re.IGNORECASE
)
_TAKES_MARKS = re.compile(r"(^|[/.])(anthropic|claude)[/.:-]", re.IGNORECASE)


def reads_its_thinking(model_id: str) -> bool:
    """Whether a model wants its signed thinking back: Anthropic's, where litellm hands it on as it is."""
    return bool(_READS_THINKING.search(model_id))


def takes_marks(model_id: str) -> bool:
    """Whether a model is Anthropic's, at whichever provider."""
    return bool(_TAKES_MARKS.search(model_id))


def marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same messages with marks on the system prompt and the last two; those that get one are copies."""
    places = {0} if messages and messages[0]["role"] == "system" else set()
    places |= set(range(max(len(messages) - 2, 0), len(messages)))
    return [_with_mark(message) if place in places else message for place, message in enumerate(messages)]


def unmarked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as they are compared: without marks."""
    return [
        {
            **message,
            "content": [{k: v for k, v in part.items() if k != "cache_control"} for part in message["content"]],
        }
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _with_mark(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else content
    if not isinstance(parts, list) or not parts:
        return message
    return {**message, "content": [*parts[:-1], {**parts[-1], "cache_control": MARK}]}
