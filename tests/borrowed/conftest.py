"""Sessions that take in tools of others: scripted models, somebody who answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_intern import MLIntern
from ml_intern.events import ApprovalAnswer, ApprovalRequest, Warned
from ml_intern.testing import ScriptedModel

YES = ApprovalAnswer("approve", by="me")


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


class Asked:
    """Somebody who answers, and what they were asked."""

    def __init__(self, *answers: ApprovalAnswer) -> None:
        self.answers, self.requests = list(answers), []

    def __call__(self, request: ApprovalRequest) -> ApprovalAnswer:
        self.requests.append(request)
        return self.answers.pop(0) if self.answers else ApprovalAnswer("reject", "enough", "me")


@pytest.fixture
def make(home: Path) -> Iterator[Callable[..., MLIntern]]:
    made: list[MLIntern] = []

    def build(script: list[Any], *servers: Any, **options: Any) -> MLIntern:
        made.append(MLIntern(ScriptedModel(script), mcp=servers, **{"home": home, "tools": [], **options}))
        return made[-1]

    yield build
    for intern in made:
        intern.close()


def prompt_of(intern: MLIntern) -> str:
    content = intern.session().model.requests[0][0].content
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def told(intern: MLIntern) -> str:
    return "\n".join(event.text for event in intern.session().events.history if isinstance(event, Warned))
