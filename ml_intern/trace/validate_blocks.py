"""The blocks of messages, and the calls in them with their results, as readers of the format take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .rows import Row


class Blocks:
    """The blocks of one trace.

    Args:
        say (`Callable[[str, str], None]`): Takes a complaint: what, and why it matters.
        line (`Callable[[], int]`): The line that is looked at.

    Attributes:
        unanswered (`dict[str, int]`): Calls without a result so far, and their lines.
    """

    def __init__(self, say: Callable[[str, str], None], line: Callable[[], int]) -> None:
        self.say, self._line = say, line
        self.unanswered: dict[str, int] = {}
        self._calls: set[str] = set()

    def add(self, block: Any) -> None:
        """Looks at the next block."""
        shape = block if isinstance(block, dict) else {}
        match shape.get("type"):
            case "text" if isinstance(shape.get("text"), str):
                return
            case "thinking" if isinstance(shape.get("thinking"), str) and "signature" in shape:
                return
            case "redacted_thinking" if isinstance(shape.get("data"), str):
                return
            case "image" if _is_image(shape.get("source")):
                return
            case "tool_use" if isinstance(shape.get("input"), dict) and isinstance(shape.get("name"), str):
                self._called(str(shape.get("id")))
                return
            case "tool_result":
                self._came(shape)
                return
        self.say(
            f"a block of type {shape.get('type')!r} lacks what it needs, or is unknown", "a strict reader rejects it"
        )

    def _called(self, call: str) -> None:
        if call in self._calls:
            self.say("a call's id is used twice", "readers give both the same result")
        self._calls.add(call)
        self.unanswered[call] = self._line()

    def _came(self, block: Row) -> None:
        call = str(block.get("tool_use_id"))
        if call not in self._calls:
            self.say("a result without a call before it", "readers cannot pair it")
        elif call not in self.unanswered:
            self.say("a second result of one call", "readers show one of them")
        self.unanswered.pop(call, None)
        content = block.get("content", "")
        if isinstance(content, list):
            for part in content:
                if not isinstance(part, dict) or part.get("type") not in ("text", "image"):
                    self.say("a result holds text and images, no other blocks", "a strict reader rejects it")
                else:
                    self.add(part)
        elif not isinstance(content, str):
            self.say("a result's content is neither text nor blocks", "a strict reader rejects it")


def _is_image(source: Any) -> bool:
    return isinstance(source, dict) and source.get("type") == "base64" and {"media_type", "data"} <= source.keys()
