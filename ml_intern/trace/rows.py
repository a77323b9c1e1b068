"""Rows of a trace: Claude Code's JSON lines, as its readers take them.

Every row is one JSON object on one line, ASCII only. What this project adds are extra fields, and notes in the format's
`progress` rows, which readers keep in the chain and pass over in display. Nothing in here writes: see [`Journal`].
"""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..plain import clean, plain
from ..thinking import Thinking

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "0.1.0"
"""Written into every row; readers want three numbers."""

Row = dict[str, Any]


def now() -> str:
    """The time as readers parse it: UTC, milliseconds, `Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    return str(uuid.uuid4())


def line(row: Row) -> bytes:
    """`row` as the bytes of its line."""
    return json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def text_block(text: str) -> Row:
    return {"type": "text", "text": clean(text)}


def thinking_block(thinking: Thinking) -> Row:
    if thinking.redacted:
        return {"type": "redacted_thinking", "data": thinking.redacted}
    return {"type": "thinking", "thinking": clean(thinking.text), "signature": thinking.signature}


def call_block(call_id: str, name: str, arguments: dict[str, Any]) -> Row:
    return {"type": "tool_use", "id": call_id, "name": name, "input": plain(arguments)}


def image_block(image: Image) -> Row:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def result_block(call_id: str, text: str, images: Iterable[Image] = (), error: bool = False) -> Row:
    blocks = [text_block(text), *map(image_block, images)]
    block: Row = {
        "type": "tool_result",
        "tool_use_id": call_id,
        "content": clean(text) if len(blocks) == 1 else blocks,
    }
    return {**block, "is_error": True} if error else block


def blocks_of(row: Row) -> list[Row]:
    """The blocks of a row's message, a text's as one; whatever is no block is left out."""
    message = row.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def user_message(content: str | list[Row]) -> Row:
    return {"role": "user", "content": clean(content) if isinstance(content, str) else content}


def assistant_message(content: list[Row], model: str, stop: str | None = None, usage: Row | None = None) -> Row:
    """An answer of the model (with `usage`), or a call that its code made (without: it cost no tokens)."""
    message: Row = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": clean(model) or "unknown",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
    }
    return message if usage is None else {**message, "usage": usage}


def usage_of(input_tokens: int, output_tokens: int, cache_read: int = 0, cache_write: int = 0) -> Row:
    """Token counts as the format has them: `input_tokens` leaves out what came from the cache or went into it.

    Args:
        input_tokens (`int`): All tokens of the prompt, cached ones included.
        output_tokens (`int`): All tokens of the answer, reasoning included.
    """
    return {
        "input_tokens": max(0, input_tokens - cache_read - cache_write),
        "output_tokens": output_tokens,
        "cache_creation_input_tokens": cache_write,
        "cache_read_input_tokens": cache_read,
    }
