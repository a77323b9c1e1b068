"""Sessions under test: scripted models, a tool that publishes, ways to wait for what happens."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from smolagents import Model, Tool
from smolagents.models import ChatMessage, MessageRole, TokenUsage

from ml_intern import MLIntern
from ml_intern.session import Session
from ml_intern.trace import note_of, read_rows


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


class Publish(Tool):
    name, description, output_type, effects = "publish", "Publishes.", "string", "write"
    inputs = {"what": {"type": "string", "description": "What."}}

    def __init__(self, published: list[str] | None = None):
        super().__init__()
        self.published: list[str] = [] if published is None else published

    def forward(self, what: str) -> str:
        self.published.append(what)
        return f"published {what}"


class ByTask(Model):
    """Answers from what it is sent alone, so that any number of sessions can ask it at once.

    Args:
        answer (`Callable[[str, int], str]`): Gets the task and how many answers the conversation holds already.
        seconds (`float`, defaults to 0): How long it thinks. Variables are saved meanwhile.
    """

    def __init__(self, answer: Callable[[str, int], str], seconds: float = 0.0) -> None:
        super().__init__(model_id="by-task")
        self.answer, self.seconds = answer, seconds

    def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
        said = sum(message.role == MessageRole.ASSISTANT for message in messages)
        task = next(text for message in messages if message.role == MessageRole.USER for text in [text_of(message)])
        answer = self.answer(task, said)
        time.sleep(self.seconds)
        return ChatMessage(role=MessageRole.ASSISTANT, content=answer, token_usage=TokenUsage(100, 10))


def text_of(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.get("text", "") for part in message.content or [])


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.01)


def notes(session: Session, kind: str) -> list[dict[str, Any]]:
    found = (note_of(row) for row in read_rows(session.trace))
    return [note for note in found if note is not None and note["kind"] == kind]


def result_rows(path: Path, call_id: str) -> int:
    """How often a call's result is on record."""
    return len(re.findall(f'"tool_use_id":"{call_id}"', path.read_text()))


def threads_of(session: Session) -> list[str]:
    return [thread.name for thread in threading.enumerate() if session.id[:8] in thread.name]


@pytest.fixture
def build(home: Path) -> Iterator[Callable[..., MLIntern]]:
    made: list[MLIntern] = []

    def make(model: Any, **options: Any) -> MLIntern:
        intern = MLIntern(model, **{"home": home, "tools": [], **options})
        made.append(intern)
        return intern

    yield make
    for intern in made:
        intern.close()
