"""What was sent stays sent, for the whole suite: a fixture that watches every `InternAgent` of a test.

It fails a test in which a request of an agent does not begin with the request before it, unless something that may move the
prefix is on the agent's record in between: a compaction, a masking batch, a planning step, another model, a new
conversation. It also fails where a message that was sent is changed afterwards, in place.

For `tests/conftest.py`:

    from context.prefix import prefix_holds  # noqa: F401

A test that edits what was said on purpose says so: `@pytest.mark.moves_cache_prefix(reason="...")`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from smolagents.models import ChatMessage

    from ml_intern.agent import InternAgent


def bytes_of(message: ChatMessage) -> bytes:
    """A message as it is compared: role, content, thinking; without cache marks; images by their pixels."""
    from ml_intern.thinking import Said

    digest = hashlib.sha256(str(message.role).encode())
    content = message.content or ""
    if isinstance(message, Said):
        digest.update(repr((message.thoughts, message.author)).encode("utf-8", "surrogatepass"))
    for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
        for key in sorted(part.keys() - {"cache_control"}):
            value = part[key]
            digest.update(key.encode() + b"\0")
            digest.update(
                value.tobytes() if hasattr(value, "tobytes") else str(value).encode("utf-8", "surrogatepass")
            )
            digest.update(b"\0")
    return digest.digest()


class Watched:
    """The last request of one agent, and what on its record allows the next one to differ."""

    def __init__(self, agent: InternAgent) -> None:
        self.agent = agent
        self.sent: list[ChatMessage] = []
        self.digests: list[bytes] = []
        self.marks: tuple[Any, ...] = ()

    def request(self, messages: list[ChatMessage]) -> str:
        """Takes note of a request. Returns what is wrong with it, `""` where nothing is."""
        digests, marks, problem = [bytes_of(message) for message in messages], self._marks(), ""
        if self.digests and digests[: len(self.digests)] != self.digests and marks == self.marks:
            same = next(
                (i for i, (a, b) in enumerate(zip(self.digests, digests, strict=False)) if a != b), len(digests)
            )
            changed = same < len(self.sent) and bytes_of(self.sent[same]) != self.digests[same]
            how = "was changed in place after it was sent" if changed else "is not what was sent before"
            shown = messages[same].content if same < len(messages) else "(nothing: the request is shorter)"
            problem = f"message {same} of {len(digests)} {how}, and nothing on record says why: {str(shown)[:300]!r}"
        self.sent, self.digests, self.marks = list(messages), digests, marks
        return problem

    def _marks(self) -> tuple[Any, ...]:
        from smolagents.memory import PlanningStep

        from ml_intern.steps import CompactionStep

        steps = self.agent.memory.steps
        moving = tuple(id(step) for step in steps if isinstance(step, CompactionStep | PlanningStep))
        return (id(steps), id(steps[0]) if steps else None, moving, id(self.agent.model))


class PrefixWatch:
    """Watches agents; `problems` are what was found."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.requests = 0
        self._watched: dict[int, Watched] = {}

    def request(self, agent: InternAgent, messages: list[ChatMessage]) -> None:
        self.requests += 1
        watched = self._watched.setdefault(id(agent), Watched(agent))  # holds the agent: its id stays its own
        if problem := watched.request(messages):
            self.problems.append(f"request {self.requests}: {problem}")


@pytest.fixture(autouse=True)
def prefix_holds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefixWatch]:
    watch = PrefixWatch()
    if "ml_intern.agent" not in sys.modules:  # a test that has not imported it runs no agent; the import takes seconds
        yield watch
        return
    from ml_intern.agent import InternAgent

    plain = InternAgent.write_memory_to_messages

    def write(self: InternAgent, summary_mode: bool = False) -> list[ChatMessage]:
        messages = plain(self, summary_mode)
        if not summary_mode:
            watch.request(self, messages)
        return messages

    monkeypatch.setattr(InternAgent, "write_memory_to_messages", write)
    yield watch
    if request.node.get_closest_marker("moves_cache_prefix") is None:
        assert not watch.problems, "What was sent did not stay sent:\n" + "\n".join(watch.problems)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "moves_cache_prefix(reason): the test edits what was sent, on purpose")
