"""Conversations for tests: steps of any sort, a model with a window that refuses what is longer, a provider's count."""

from __future__ import annotations

from typing import Any

import PIL.Image
from smolagents.agents import AgentError
from smolagents.memory import ActionStep, AgentMemory, PlanningStep, TaskStep, ToolCall
from smolagents.models import ChatMessage, MessageRole, Model, TokenUsage
from smolagents.monitoring import AgentLogger, LogLevel, Timing

from ml_intern.context import ContextManager, Summary
from ml_intern.models import MessagePreparer
from ml_intern.steps import TrackedActionStep

QUIET = AgentLogger(level=LogLevel.OFF)


def action(
    number: int, said: str | None = None, seen: str | None = "", error: str = "", images: int = 0, calls: bool = False
) -> TrackedActionStep:
    step = TrackedActionStep(step_number=number, timing=Timing(0.0, 1.0))
    step.model_output = f"I take step {number}.\n<code>\nprint({number})\n</code>" if said is None else said
    step.observations = seen
    if calls:
        step.tool_calls = [ToolCall("python_interpreter", "print(1)", f"call_{number}")]
    else:
        step.code_action = f"print({number})"
    if error:
        step.error = AgentError(error, QUIET)
    step.observations_images = [PIL.Image.new("RGB", (2, 2))] * images or None
    return step


def planning(text: str) -> PlanningStep:
    return PlanningStep([], ChatMessage(MessageRole.ASSISTANT, text), text, Timing(0.0, 1.0))


def text_of(messages: list[ChatMessage]) -> str:
    parts = (part for message in messages for part in (message.content if isinstance(message.content, list) else []))
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def is_alternating(messages: list[ChatMessage]) -> bool:
    """Whether a provider takes it: the system prompt, then user and assistant in turn, the user first and last, none empty."""
    sent = MessagePreparer().prepare(messages)
    roles = [str(getattr(message["role"], "value", message["role"])) for message in sent]
    turns = ["user", "assistant"] * len(roles)
    full = all(
        message["content"] and all(part.get("text", "x").strip() for part in message["content"]) for message in sent
    )
    return full and roles[0] == "system" and roles[1:] == turns[: len(roles) - 1] and roles[-1] == "user"


class TooLong(Exception):
    """What a provider answers to a prompt that is too long."""


class WindowedModel(Model):
    """A provider: counts tokens its own way, refuses what does not fit, writes summaries when it is asked to.

    Args:
        window (`int`): Tokens of prompt and answer.
        say (`Callable`): Answers, given the number of the call (from 0) and the messages.
        characters (`float`): A token has so many characters.
        summarise (`Callable`): Writes summaries.
    """

    def __init__(self, window: int, say: Any, characters: float = 3.6, summarise: Any = None) -> None:
        super().__init__(model_id="windowed")
        self.size, self.say, self.characters = window, say, characters
        self.summarise = summarise or (lambda messages: "Goal: as the user says. Next: go on.")
        self.calls = self.summaries = self.refused = 0
        self.biggest = 0
        self.shares: list[float] = []
        self.times: list[float] = []
        self._known: dict[int, tuple[ChatMessage, int]] = {}
        self._last: list[ChatMessage] = []

    def window(self) -> int:
        return self.size

    def count(self, messages: list[ChatMessage]) -> int:
        """Every message is counted once: what is sent again is the very same object."""
        total, known = 0, {}
        for message in messages:
            found = self._known.get(id(message))
            size = found[1] if found and found[0] is message else self._characters(message)
            known[id(message)] = (message, size)
            total += size
        self._known = known
        return int(total / self.characters) + 3 * len(messages)

    @staticmethod
    def _characters(message: ChatMessage) -> int:
        return sum(len(part["text"]) if part["type"] == "text" else 4_000 for part in message.content)

    def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
        tokens = self.count(messages)
        self.biggest = max(self.biggest, tokens)
        if tokens > self.size:
            self.refused += 1
            raise TooLong(
                f"This model's maximum context length is {self.size} tokens. However, you requested {tokens}."
            )
        asked = "is about to be compacted" in str(messages[-1].content)
        if asked:
            self.summaries += 1
            said = self.summarise(messages)
        else:
            said = self.say(self.calls, messages)
            self.calls += 1
            self._share(messages)
        return ChatMessage(MessageRole.ASSISTANT, said, token_usage=TokenUsage(tokens, len(said) // 4))

    def _share(self, messages: list[ChatMessage]) -> None:
        """What part of the last request's characters stands at the beginning of this one."""
        if self._last:
            same = 0
            for old, new in zip(self._last, messages, strict=False):
                if old is not new and old.content != new.content:
                    break
                same += self._characters(old)
            self.shares.append(same / max(sum(map(self._characters, self._last)), 1))
        self._last = list(messages)


def converse(context: ContextManager, memory: AgentMemory, steps: list[Any], model: Any, check: Any) -> None:
    """Puts steps into a memory one by one, as an agent does, making room before each request."""
    for step in steps:
        memory.steps.append(step)
        context.make_room(memory, model)
        messages = context.render(memory)
        check(messages)
        if isinstance(step, ActionStep) and model is not None:
            context.measured(model.count(messages))


def writes(text: str) -> Any:
    return lambda messages: Summary(text, 100, 10, 0, 0.01)


__all__ = [
    "QUIET", "TaskStep", "TooLong", "WindowedModel", "action", "converse", "is_alternating", "planning", "text_of", "writes",
]  # fmt: skip
