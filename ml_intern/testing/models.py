"""Models for tests: one that follows a script and fails on any surprise, and one that repeats a recorded session."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smolagents.models import (
    ChatMessage,
    ChatMessageStreamDelta,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    ChatMessageToolCallStreamDelta,
    MessageRole,
    Model,
)
from smolagents.monitoring import TokenUsage

from ml_intern.testing.recording import Difference, RecordedTurns, Turn, differences

__all__ = ["ReplayedModel", "ScriptedModel", "UnconsumedScript", "UnexpectedModelCall", "differences"]

CHARS_PER_TOKEN = 4
CHUNK_CHARS = 24


class UnexpectedModelCall(AssertionError):
    """The model was asked more often than its script or trace has answers."""


class UnconsumedScript(AssertionError):
    """The script has answers that nobody asked for."""


ScriptItem = str | ChatMessage | Exception | Callable[[list[ChatMessage]], "str | ChatMessage"]


class _Canned(Model):
    """What both models share: records requests, cuts at stop sequences, counts tokens, streams in pieces."""

    def __init__(self, model_id: str, keep_requests: int | None = None) -> None:
        super().__init__(model_id=model_id)
        self.requests: list[list[ChatMessage]] = []
        self.calls = 0
        self._keep = keep_requests
        self._counted = 0
        self._lock = threading.Lock()

    def _answer(self, messages: list[ChatMessage]) -> ChatMessage:
        raise NotImplementedError

    def generate(
        self,
        messages: list[ChatMessage],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        messages = [m if isinstance(m, ChatMessage) else ChatMessage.from_dict(m) for m in messages]
        with self._lock:
            input_tokens = self._count(messages)
            self.calls += 1
            self.requests.append(messages)
            if self._keep is not None:
                del self.requests[: -max(1, self._keep)]
            answer = self._answer(messages)
        content = answer.content
        if isinstance(content, str):
            places = [place for stop in stop_sequences or [] if (place := content.find(stop)) >= 0]
            content = content[: min(places)] if places else content
        usage = answer.token_usage or TokenUsage(input_tokens, _tokens(_chars(replace(answer, content=content))))
        return replace(answer, content=content, token_usage=usage)

    def generate_stream(self, messages: list[ChatMessage], **kwargs: Any) -> Generator[ChatMessageStreamDelta]:
        answer = self.generate(messages, **kwargs)
        text = _text(answer)
        for start in range(0, len(text), CHUNK_CHARS):
            yield ChatMessageStreamDelta(content=text[start : start + CHUNK_CHARS])
        for index, call in enumerate(answer.tool_calls or []):
            arguments = call.function.arguments
            arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
            function = ChatMessageToolCallFunction(name=call.function.name, arguments=arguments)
            delta = ChatMessageToolCallStreamDelta(index=index, id=call.id, type="function", function=function)
            yield ChatMessageStreamDelta(tool_calls=[delta])
        yield ChatMessageStreamDelta(content="", token_usage=answer.token_usage)

    def _count(self, messages: list[ChatMessage]) -> int:
        """Tokens of the prompt. When it only grew, only what is new is counted: a thousand steps stay cheap."""
        last = self.requests[-1] if self.requests else []
        grew = bool(last) and len(messages) >= len(last) and messages[len(last) - 1] is last[-1]
        self._counted = (self._counted if grew else 0) + sum(map(_chars, messages[len(last) if grew else 0 :]))
        return _tokens(self._counted)


class ScriptedModel(_Canned):
    """A smolagents model that says what the script says, and fails when asked once too often or once too little.

    Args:
        script (sequence):
            The answers in order: a text, a `ChatMessage`, an exception to raise, or a function of the messages.
        model_id (`str`, defaults to `"scripted"`): Its name.
        keep_requests (`int`, *optional*): Keep only so many of the newest requests, for very long runs.

    Attributes:
        requests (`list[list[ChatMessage]]`): The messages of every call, in order.
        calls (`int`): How often it was called.
        leftover (`list`): What was not asked for yet.

    Raises:
        UnexpectedModelCall: On a call beyond the script's end.
        UnconsumedScript: From `assert_done()` and at the end of a `with` block, when answers are left.
    """

    def __init__(
        self, script: Sequence[ScriptItem], model_id: str = "scripted", keep_requests: int | None = None
    ) -> None:
        super().__init__(model_id, keep_requests)
        self.leftover = list(script)
        self._total = len(self.leftover)
        self._surprises = 0

    def _answer(self, messages: list[ChatMessage]) -> ChatMessage:
        if not self.leftover:
            self._surprises += 1
            raise UnexpectedModelCall(self._surprise(messages))
        item = self.leftover.pop(0)
        if isinstance(item, Exception):
            raise item
        said = item if isinstance(item, str | ChatMessage) else item(messages)
        return ChatMessage(role=MessageRole.ASSISTANT, content=said) if isinstance(said, str) else said

    def _surprise(self, messages: list[ChatMessage]) -> str:
        asked = _text(messages[-1])[:200] if messages else ""
        return f"The model was called {self.calls} times, its script has {self._total}. Last message: {asked!r}"

    def assert_done(self) -> None:
        """Fail unless every answer was asked for, and no more (an agent may have swallowed that error)."""
        if self._surprises:
            raise UnexpectedModelCall(self._surprise(self.requests[-1]))
        if self.leftover:
            raise UnconsumedScript(
                f"{len(self.leftover)} of {self._total} answers are left; next: {self.leftover[0]!r}"
            )

    def __enter__(self) -> ScriptedModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.assert_done()


class ReplayedModel(_Canned):
    """A smolagents model that repeats the model's turns of a trace, and tells where the world answers differently.

    Before each answer after the first, the newest observation is compared with the recorded one; see [`differences`].
    It goes on all the same.

    Args:
        trace (`Path`): A Claude Code JSONL trace; see [`~ml_intern.testing.recording.read_turns`].
        on_difference (`Callable[[int, str, str], None]`, *optional*):
            Called with the step (from 1), and the lines that differ, as recorded and as they are now, shortened.

    Attributes:
        differences (`list[Difference]`): All of them so far.
        leftover (`list[Turn]`): The turns not asked for yet.
    """

    def __init__(self, trace: Path | str, on_difference: Callable[[int, str, str], None] | None = None) -> None:
        super().__init__("replayed")
        self._turns = RecordedTurns(Path(trace), on_difference)

    @property
    def differences(self) -> list[Difference]:
        return self._turns.differences

    @property
    def leftover(self) -> list[Turn]:
        return self._turns.leftover

    def _answer(self, messages: list[ChatMessage]) -> ChatMessage:
        turn = self._turns.next(_newest_observation(messages))
        if turn is None:
            raise UnexpectedModelCall(f"The trace {self._turns.trace.name} has {self._turns.total} turns, no more.")
        calls = [
            ChatMessageToolCall(ChatMessageToolCallFunction(call.arguments, call.name), call.id, "function")
            for call in turn.tool_calls
        ]
        usage = TokenUsage(turn.input_tokens, turn.output_tokens)
        return ChatMessage(role=MessageRole.ASSISTANT, content=turn.text, tool_calls=calls or None, token_usage=usage)


def _newest_observation(messages: list[ChatMessage]) -> str:
    """The last tool response, and the one before it when they belong to one step: what it printed, and its error."""
    last = next((i for i in reversed(range(len(messages))) if messages[i].role == MessageRole.TOOL_RESPONSE), None)
    if last is None:
        return ""
    text, before = _text(messages[last]), messages[last - 1] if last else None
    if before and before.role == MessageRole.TOOL_RESPONSE and not text.startswith("Observation:"):
        printed = _text(before)
        text = f"{printed}\n{text}" if printed.startswith("Observation:") else text
    return text


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.get("text") or "" for part in message.content if part.get("type") == "text")
    return message.content or ""


def _chars(message: ChatMessage) -> int:
    calls = message.tool_calls or []
    return len(_text(message)) + sum(len(call.function.name) + len(str(call.function.arguments)) for call in calls)


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)
