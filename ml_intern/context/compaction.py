"""One compaction: from a conversation as it is shown, and a summary of it, to the step that shortens it.

Nothing is sent, kept or changed here but the large texts that are newly shown in part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from smolagents.memory import ActionStep, AgentMemory
from smolagents.models import ChatMessage

from ..events import Usage
from ..steps import CompactionStep
from . import summary as words
from .decide import HANDLES_MOST, REMINDER_MOST, SUMMARY_MOST, USER_MOST, Limits, Rung, first_of_newest
from .render import Renderer, render_step, said
from .shorten import first_line
from .tokens import PER_MESSAGE, weigh

OVERHEAD = 200
"""Tokens of a compacted prompt's own headings."""
LEAST = 400.0
"""Tokens that a compaction makes do with where the system prompt leaves nothing."""


@dataclass(frozen=True)
class Summary:
    """What a model wrote, and what it took; without a text it wrote nothing."""

    text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    spent: Usage | None = None


@dataclass(frozen=True)
class Compaction:
    """A compaction in the making. All sizes are estimated tokens, which `ratio` turns into counted ones.

    Args:
        renderer (`Renderer`): With the memory rendered.
        memory (`AgentMemory`): What is shown of it shrinks.
        trigger (`str`): `fill`, `overflow` or `asked`.
        limit (`int`): Counted tokens that a prompt may take.
        ratio (`float`): Counted tokens over estimated ones.
        pinned (`str`): To be said again.
        results (`Sequence[str]`): Lines that name large results of tools.
    """

    renderer: Renderer
    memory: AgentMemory
    trigger: str
    limit: int
    ratio: float
    pinned: str
    results: Sequence[str] = ()

    @property
    def begin(self) -> int:
        """The first step that is shown now."""
        boundary = self.renderer.view.boundary
        return boundary.start if boundary else 0

    @property
    def known(self) -> str:
        """The summary that stands now."""
        boundary = self.renderer.view.boundary
        return boundary.summary if boundary else ""

    @property
    def room(self) -> float:
        """What the system prompt leaves."""
        return self.limit / self.ratio - self.renderer.system_weight - OVERHEAD

    @property
    def acted(self) -> bool:
        """Whether anything was done that could be summarised."""
        return any(isinstance(step, ActionStep) for step in self.memory.steps[self.begin :])

    def question(self, before: int, focus: str) -> list[ChatMessage]:
        """What the model is asked: the conversation as it was sent, which a cache has, and for a summary of it.

        Where that is too long, its middle is left out.
        """
        asked, steps, room = said(words.request(focus)), self.memory.steps, self.room
        messages = self.renderer.render(self.memory)
        if before <= self.limit * 1.1:
            return [*messages, asked]
        first = max(first_of_newest(self.renderer.weights(), room * 0.5), self.begin)
        newest = [message for index in range(first, len(steps)) for message in self.renderer.shown(index).messages]
        user = words.user_words(words.tasks_of(steps, len(steps)), room * 0.15)
        return [messages[0], said(words.lead(user, words.fit(self.known, room * 0.15), [], first)), *newest, asked]

    def make(self, rung: Rung, summary: Summary, before: int) -> CompactionStep:
        """The compaction that a rung makes."""
        steps, room = self.memory.steps, max(self.room, LEAST)
        start, cut = self._start(rung, room)
        text = words.fit(summary.text.strip(), min(SUMMARY_MOST, room * rung.summary))
        if not text:
            text = words.mechanical(self._gone(start), self.known, min(SUMMARY_MOST, room * rung.summary))
        handles = words.newest_within(self._handles(start), min(HANDLES_MOST, room * rung.handles))
        user = words.user_words(words.tasks_of(steps, start), min(USER_MOST, room * rung.user))
        last = next((step for step in reversed(steps) if isinstance(step, ActionStep)), None)
        closing = words.digest(last, room * 0.15) if start == len(steps) and last is not None else ""
        step = CompactionStep(
            trigger=self.trigger,
            rung=rung.name or ("summary" if summary.text.strip() else "mechanical"),
            at=len(steps),
            limit=self.limit,
            start=start,
            masked=self.renderer.view.masked,
            cut=cut,
            lead=words.lead(user, text, handles, start, closing),
            reminder=words.reminder(self.pinned, min(REMINDER_MOST, room * rung.reminder)),
            summary=text,
            handles=handles,
            before=before,
            input_tokens=summary.input_tokens,
            output_tokens=summary.output_tokens,
            cached_tokens=summary.cached_tokens,
            cost_usd=summary.cost_usd,
            said=summary.text,
            spent=summary.spent,
        )
        return replace(step, after=self._after(step))

    def _start(self, rung: Rung, room: float) -> tuple[int, int]:
        """The first step that stays, and how many characters of a text where not even the last one fits whole."""
        size, begin = len(self.memory.steps), self.begin
        if not rung.steps:
            return size, 0
        start = max(first_of_newest(self.renderer.weights(), room * rung.steps), begin)
        if self.trigger == "asked":  # it may all fit: what is wanted is that it becomes short
            start = max(start, size - 2)
        if start == size:
            return max(size - 1, begin), max(int(room * rung.steps * 4 / 3), 200)
        return start, 0

    def _after(self, step: CompactionStep) -> int:
        """Tokens of the prompt once this compaction is made."""
        limits, keep = Limits.of(step.limit, self.renderer.limits.shown), self.renderer.keep
        own = PER_MESSAGE + weigh(step.lead) + (PER_MESSAGE + weigh(step.reminder) if step.reminder else 0)
        kept = sum(
            render_step(self.memory.steps[index], index + 1, limits, keep, index < step.masked, step.cut).weight
            for index in range(step.start, len(self.memory.steps))
        )
        return round((self.renderer.system_weight + own + kept) * self.ratio)

    def _gone(self, start: int) -> list[tuple[int, str, str]]:
        """Of the steps that are no longer shown: place, beginning of what was said, beginning of what was seen."""
        return [
            (index + 1, text_of(shown[0])[:600], text_of(shown[-1])[:600])
            for index in range(self.begin, start)
            if isinstance(self.memory.steps[index], ActionStep) and (shown := self.renderer.shown(index).messages)
        ]

    def _handles(self, start: int) -> list[str]:
        """A line for every large output up to `start`: those of compactions before, those since, those of tools."""
        boundary = self.renderer.view.boundary
        lines = {_handle(line): line for line in (boundary.handles if boundary else [])}
        for index in range(self.begin, start):
            shown = self.renderer.shown(index)
            about = first_line(text_of(shown.messages[0])[:300], 80) if shown.handles else ""
            for handle, length in shown.handles:
                lines.setdefault(handle, f"{handle} {length:,} characters, step:{index + 1}: {about}")
        for line in self.results:
            lines.setdefault(_handle(line), line)
        return list(lines.values())


Ask = Callable[[list[ChatMessage]], Summary]
"""Asks a model for a summary. Whatever the model raises, it returns an empty one."""


def text_of(message: ChatMessage) -> str:
    content = message.content or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def _handle(line: str) -> str:
    return line.partition(" ")[0]
