"""Rows as another session's: new ids in one chain, where each came from, and all the fields that strict readers want."""

from __future__ import annotations

from ..plain import plain
from . import rows as made
from .rows import Row
from .values import text

DROPPED = ("teamName", "agentName", "slug", "sourceToolAssistantUUID")


class Copy:
    """Copies rows in order into one new session.

    Args:
        session_id (`str`): The new session's.
        source (`str`): What the rows' own session is called where they do not say.
    """

    def __init__(self, session_id: str, source: str) -> None:
        self.session_id, self.source = session_id, source
        self._last: str | None = None

    def row(self, row: Row) -> Row:
        """A row of the conversation as the fork has it: after the one copied before it, in one line."""
        new = made.new_id()
        begins = row.get("subtype") == "compact_boundary"
        copied = {name: value for name, value in row.items() if name not in DROPPED}
        copied |= {
            "parentUuid": None if begins else self._last,
            "isSidechain": False,
            "sessionId": self.session_id,
            "uuid": new,
            "forkedFrom": {
                "sessionId": text(row.get("sessionId")) or self.source,
                "messageUuid": text(row.get("uuid")) or new,
            },
        }
        if begins:
            copied["logicalParentUuid"] = self._last
        self._last = new
        return copied

    def ending(self, note: Row, title: str) -> list[bytes]:
        """The lines that say that, and of what, this is a fork, and what it is called."""
        row: Row = {
            "parentUuid": self._last,
            "isSidechain": False,
            "userType": "external",
            "cwd": "/workspace",
            "sessionId": self.session_id,
            "version": made.VERSION,
            "type": "progress",
            "data": {"type": "ml_intern", "kind": "forked", **note},
            "uuid": made.new_id(),
            "timestamp": made.now(),
        }
        named = {"type": "custom-title", "customTitle": title, "sessionId": self.session_id}
        return [made.line(row), made.line(named)]


def complete(row: Row) -> Row:
    """A row with the fields that other programs leave out, and without those that readers trip over."""
    filled: Row = {
        "userType": "external",
        "cwd": "/workspace",
        "version": made.VERSION,
        "timestamp": made.now(),
        **{name: value for name, value in row.items() if value is not None or name == "parentUuid"},
    }
    message = filled.get("message")
    if not isinstance(message, dict):
        message = {}
    if row["type"] == "assistant":
        filled["message"] = _answer(message)
    elif row["type"] == "user":
        content = message.get("content")
        filled["message"] = made.user_message(content if isinstance(content, str | list) else "")
    return filled


def as_line(row: Row) -> bytes:
    """A row's line, whatever another program wrote into it."""
    try:
        return made.line(row)
    except (ValueError, RecursionError):  # NaN, nesting without end
        return made.line(plain(row))


def _answer(message: Row) -> Row:
    content = message.get("content")
    blocks = content if isinstance(content, list) else [made.text_block(text(content))]
    whole = {**made.assistant_message(blocks, text(message.get("model"))), **message, "content": blocks}
    used = whole.get("usage")
    if not isinstance(used, dict) or not {"input_tokens", "output_tokens"} <= used.keys():
        whole.pop("usage", None)
    return whole
