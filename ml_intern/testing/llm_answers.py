"""What the local model endpoint says: from a script, a recorded trace, or somebody who writes the answers live."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_intern.testing.recording import RecordedTurns, newest_observation


@dataclass(frozen=True)
class ToolCall:
    """A tool call in an answer: the tool's name, its arguments (a text goes out as it is), an id (made up if none)."""

    name: str
    arguments: dict[str, Any] | str
    id: str | None = None

    @property
    def json(self) -> str:
        """The arguments as they go over the wire."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Reply:
    """What the model says.

    Args:
        content (`str` or `None`): The text.
        tool_calls (sequence of [`ToolCall`], *optional*): Structured calls, for agents that use them.
        finish_reason (`str`, defaults to `"stop"`): `"tool_calls"` is set by itself when there are any.
        reasoning (`str`, *optional*): Sent as `reasoning_content`, before the text.
        signature (`str`, *optional*): Of the reasoning, which is then sent as `thinking_blocks` as well: as litellm's own
            proxy does for models that sign it.
        delay (`float`, defaults to 0): Seconds before the first byte.
        chunk_chars (`int`, defaults to 24): Characters a streamed chunk holds.
        prompt_tokens, completion_tokens (`int`, *optional*): Usage; a quarter of the characters when not given.
        cached_tokens (`int`, *optional*): Those of the prompt that came from the cache; left out when not given.
        reasoning_tokens (`int`, *optional*): Those of the answer that went into thinking; left out when not given.
    """

    content: str | None
    tool_calls: Sequence[ToolCall] | None = None
    finish_reason: str = "stop"
    reasoning: str | None = None
    signature: str | None = None
    delay: float = 0
    chunk_chars: int = 24
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Fail(Exception):
    """Raise (or script) it to answer with an HTTP error in OpenAI's form.

    Args:
        status (`int`): The HTTP status, such as 429.
        message (`str`): The error's text.
        headers (`dict`, *optional*): Such as `{"retry-after": "1"}`.
        code (`str`, *optional*): The machine-readable code, such as `"context_length_exceeded"`.
        delay (`float`, defaults to 0): Seconds before the error is sent.
    """

    def __init__(
        self,
        status: int,
        message: str = "the test asked for this failure",
        headers: dict[str, str] | None = None,
        code: str | None = None,
        delay: float = 0,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers, self.code, self.delay = status, message, headers, code, delay


class Cut(Exception):
    """Raise (or script) it to break an answer off.

    Args:
        after_bytes (`int`): How much of the answer's body is sent before the connection is dropped.
        reply (`Reply` or `str`): What is cut.
        error (`Fail`, *optional*): Said in the stream instead of dropping the connection, as servers do that fail while they
            stream.
    """

    def __init__(
        self,
        after_bytes: int,
        reply: Reply | str = "This answer will not reach its end. " * 40,
        error: Fail | None = None,
    ) -> None:
        super().__init__(f"connection dropped after {after_bytes} bytes")
        self.after_bytes, self.reply, self.error = after_bytes, reply, error


Answer = Callable[[dict[str, Any]], "str | Reply"]


def message_images(message: dict[str, Any]) -> int:
    """How many images a chat message holds."""
    content = message.get("content")
    return sum(part.get("type") == "image_url" for part in content) if isinstance(content, list) else 0


def message_text(message: dict[str, Any]) -> str:
    """The text of a chat message: its content, or that of its text parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content if part.get("type") == "text")
    return content or ""


class Script:
    """Answers in order; see [`scripted`]. `leftover` is what was not asked for."""

    def __init__(self, items: Sequence[str | Reply | Exception | Answer]) -> None:
        self.leftover = list(items)
        self._total = len(self.leftover)
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any]) -> str | Reply:
        with self._lock:
            if not self.leftover:
                raise Fail(
                    400, f"The script is used up: its {self._total} answers were all given before this request."
                )
            item = self.leftover.pop(0)
        if isinstance(item, Exception):
            raise item
        return item if isinstance(item, str | Reply) else item(request)


def scripted(items: Sequence[str | Reply | Exception | Answer]) -> Script:
    """Answer with these in order: texts, [`Reply`], [`Fail`] or [`Cut`] to raise, or functions of the request.

    A request beyond the last is answered with a 400 that says so; `.leftover` holds what was never asked for.
    """
    return Script(items)


class Recorded(RecordedTurns):
    """The turns of a trace as answers; see [`recorded`]."""

    def __call__(self, request: dict[str, Any]) -> Reply:
        fresh = itertools.takewhile(lambda message: message["role"] != "assistant", reversed(request["messages"]))
        turn = self.next(newest_observation("\n".join(message_text(message) for message in reversed(list(fresh)))))
        if turn is None:
            raise Fail(400, f"The trace {self.trace.name} is used up: its {self.total} turns were all given before.")
        calls = [ToolCall(call.name, call.arguments, call.id) for call in turn.tool_calls]
        return Reply(turn.text, calls, prompt_tokens=turn.input_tokens, completion_tokens=turn.output_tokens)


def recorded(trace: Path | str, on_difference: Callable[[int, str, str], None] | None = None) -> Recorded:
    """Answer with the model's turns of a recorded trace (Claude Code JSONL), in order.

    Args:
        trace (`Path`): The trace; see [`~ml_intern.testing.recording.read_turns`] for what counts as a turn.
        on_difference (`Callable[[int, str, str], None]`, *optional*):
            Called with the step (from 1), and the lines that differ, as recorded and as they are now, shortened.

    Returns:
        An answer function; `.leftover` holds the turns not asked for, `.differences` what differed.
    """
    return Recorded(Path(trace), on_difference)


ASKS_AGAIN_SECONDS = 10.0
"""Who asks the same within these after an answer is taken for a client that gave up before it came."""


class Mailbox:
    """Answers written by somebody else, file by file; see [`mailbox`]."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self.folder, self.timeout = folder, timeout
        folder.mkdir(parents=True, exist_ok=True)
        self._number = max((int(p.name.split(".")[0]) for p in folder.glob("[0-9]*.request.json")), default=0)
        self._previous: list[dict[str, Any]] = []
        self._waiting: dict[str, Path] = {}
        self._answered: dict[str, tuple[float, Path]] = {}
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any]) -> str:
        identity = json.dumps(request, sort_keys=True)
        with self._lock:  # a client that gave up and asks the same again waits for the same answer
            since, answer = self._answered.pop(identity, (0.0, Path()))
            if time.monotonic() - since > ASKS_AGAIN_SECONDS and identity not in self._waiting:
                self._waiting[identity] = self._post(request)
            answer = self._waiting.get(identity, answer)
        end = time.monotonic() + self.timeout
        while not answer.exists():
            if time.monotonic() > end:
                self._waiting.pop(identity, None)
                raise Fail(400, f"Nobody wrote {answer} within {self.timeout:g} s.")
            time.sleep(0.2)
        with self._lock:
            self._waiting.pop(identity, None)
            self._answered[identity] = time.monotonic(), answer
        return answer.read_text(encoding="utf-8")

    def _post(self, request: dict[str, Any]) -> Path:
        self._number += 1
        stem = f"{self._number:03d}"
        _write(self.folder / f"{stem}.request.md", self._news(request["messages"], stem))
        _write(self.folder / f"{stem}.request.json", json.dumps(request, indent=1, ensure_ascii=False))
        self._previous = request["messages"]
        return self.folder / f"{stem}.answer.txt"

    def _news(self, messages: list[dict[str, Any]], stem: str) -> str:
        """What the previous request did not hold, for a person to read."""
        pairs = zip(messages, self._previous, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        lines = [f"# Request {stem}: {len(messages)} messages, {len(messages) - same} new", ""]
        if same < len(self._previous):
            lines += [f"(the previous request went on differently from message {same + 1})", ""]
        for number, message in enumerate(messages[same:], same + 1):
            text = message_text(message)
            before = message_text(self._previous[number - 1]) if number <= len(self._previous) else ""
            if before and text.startswith(before):
                text = "(...)" + text[len(before) :]
            calls = "".join(f"\n[tool call] {json.dumps(call)}" for call in message.get("tool_calls") or [])
            images = f"\n[{message_images(message)} images]" if message_images(message) else ""
            lines += [f"## {number}. {message['role']}", "", text + calls + images, ""]
        return "\n".join([*lines, f"(answer: write {stem}.answer.tmp, then rename it to {stem}.answer.txt)", ""])


def mailbox(folder: Path | str, timeout: float = 600) -> Mailbox:
    """Let a person or a program answer live, one turn at a time, through files.

    Each request is written as `NNN.request.json`, and readable as `NNN.request.md` with only what is new in it.
    The answer is awaited as `NNN.answer.txt`: write it under another name and rename it, so that it appears whole.

    Args:
        folder (`Path`): Made when missing; numbers go on after those already there.
        timeout (`float`, defaults to 600): Seconds until a request without an answer fails with a 400.
    """
    return Mailbox(Path(folder), timeout)


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)
