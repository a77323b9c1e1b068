"""From memory to messages, each step rendered once.

What must never happen here: a message that was sent changes afterwards (section "what was sent stays sent"), a step that
a callback edited is sent as it was before the edit, the cost of a step grows with the number of steps before it.

What is rendered is a function of the memory's steps alone. Compactions and masking batches are steps among them: the last
one of each sort says from which step on the conversation is shown, and up to which one observations are a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smolagents.memory import ActionStep, AgentMemory, MemoryStep
from smolagents.models import ChatMessage, MessageRole

from ..steps import CompactionStep, TrackedActionStep
from ..thinking import with_thoughts
from .decide import Limits, Weight
from .shorten import fits, shorten
from .tokens import weigh_all

OBSERVATION = "Observation:\n"
WORTH_MASKING = 100
"""Tokens: what an observation has to take to be masked."""


@dataclass
class Rendered:
    """A step as it is shown. `handles` are those of what is shown in part, each with the length of the whole."""

    messages: list[ChatMessage]
    weight: float = 0.0
    maskable: float = 0.0
    handles: tuple[tuple[str, int], ...] = ()
    masked: bool = False


HIDDEN, NOTHING = Rendered([]), Weight(0.0)
"""A step that is not shown any more, and what it weighs."""


@dataclass(frozen=True)
class View:
    """What of a memory is shown: `boundary` is the last compaction, observations before index `masked` are a line."""

    boundary: CompactionStep | None = None
    masked: int = 0

    def after(self, steps: Sequence[MemoryStep]) -> View:
        """The view once these steps have come to be."""
        compactions = [step for step in steps if isinstance(step, CompactionStep)]
        boundary = next((step for step in reversed(compactions) if not step.only_masks), self.boundary)
        return View(boundary, max([self.masked, *(step.masked for step in compactions)]))


class Renderer:
    """Renders an agent's memory incrementally. The messages of unchanged steps are the very same objects every time.

    Args:
        limits (`Limits`): Until a compaction says otherwise.
        keep (`Callable[[str], str]`): Keeps a text that is too long to be shown; returns its handle.

    Attributes:
        weight (`float`): Estimated tokens of what was rendered last.
        moves (`int`): How often what was rendered did not begin with what was rendered before it.

    What a model thought stands beside its answer, for who wants it back, as long as nothing before it has changed: its
    provider refuses it otherwise. So it goes with each move, and only what is thought after that stands there again.
    """

    def __init__(self, limits: Limits, keep: Callable[[str], str]) -> None:
        self.limits, self.keep = limits, keep
        self.view = View()
        self.weight = self.system_weight = 0.0
        self.moves = 0
        self._system: str | None = None
        self._thinks_from = 0
        """Index of the first step beside which what its model thought may stand."""
        self._steps: list[MemoryStep] = []
        self._rendered: list[Rendered] = []
        self._starts: list[int] = []
        self._messages: list[ChatMessage] = []
        self._dirty = False

    def render(self, memory: AgentMemory) -> list[ChatMessage]:
        """The messages for the next request.

        Returns:
            `list[ChatMessage]`: A new list; its messages belong to the renderer and are not to be changed.
        """
        system = memory.system_prompt.system_prompt
        if system != self._system:
            self._thinks_from = _after_compaction(memory.steps) if self._system is None else len(memory.steps)
            self._system = system
            self._forget(memory)
        keep = self._unchanged(memory.steps)
        gone, new = self._steps[keep:], memory.steps[keep:]
        if any(isinstance(step, CompactionStep) for step in (*gone, *new)):
            self._look_anew(memory, keep)
        else:
            self._drop(keep)
            for index in range(keep, len(memory.steps)):
                self._add(memory.steps[index], index)
        return list(self._messages)

    def weights(self) -> list[Weight]:
        """Of every step of the memory that was rendered last; what is not shown weighs nothing."""
        return [NOTHING if step is HIDDEN else Weight(step.weight, step.maskable) for step in self._rendered]

    def shown(self, index: int) -> Rendered:
        """A step of the memory that was rendered last, as it is shown."""
        return self._rendered[index]

    def _forget(self, memory: AgentMemory) -> None:
        self.moves += bool(self._messages)
        self._steps, self._rendered, self._starts = [], [], []
        self.view = View()
        self._messages = memory.system_prompt.to_messages()
        self.weight = self.system_weight = weigh_all(self._messages)

    def _look_anew(self, memory: AgentMemory, keep: int) -> None:
        """A compaction came, or went: all that is shown is put together again, from steps as they were rendered."""
        known = self._rendered[:keep]
        came = keep == len(self._steps)  # and nothing went
        view = self.view.after(memory.steps[keep:]) if came else View().after(memory.steps)
        before, limits = self.view.boundary, self._limits()
        self._thinks_from = max(self._thinks_from, _after_compaction(memory.steps) if came else len(memory.steps))
        self._forget(memory)
        self.view = view
        if view.boundary is not None and view.boundary.lead:
            self._messages.append(said(view.boundary.lead))
            self.weight += weigh_all(self._messages[-1:])
        uncut = not any(boundary is not None and boundary.cut for boundary in (before, view.boundary))
        same = limits == self._limits() and (uncut or before is view.boundary)
        start = view.boundary.start if view.boundary is not None else 0
        self._steps = list[MemoryStep](
            memory.steps[:start]
        )  # all at once: a long conversation is compacted hundreds of times
        self._rendered, self._starts = [HIDDEN] * start, [len(self._messages)] * start
        for index in range(start, len(memory.steps)):
            self._add(memory.steps[index], index, known[index] if same and index < keep else None)

    def _limits(self) -> Limits:
        boundary = self.view.boundary
        return self.limits if boundary is None else Limits.of(boundary.limit, self.limits.shown)

    def _add(self, step: MemoryStep, index: int, known: Rendered | None = None) -> None:
        boundary, masked = self.view.boundary, index < self.view.masked
        if step is boundary and boundary is not None and boundary.reminder:
            messages = [said(boundary.reminder)]
            rendered = Rendered(messages, weigh_all(messages))
        elif known is not None and known.messages and known.masked == masked:
            rendered = known
        else:
            cut = boundary.cut if boundary is not None and index < boundary.at else 0
            rendered = render_step(step, index + 1, self._limits(), self.keep, masked, cut)
        self._steps.append(step)
        self._rendered.append(rendered)
        self._starts.append(len(self._messages))
        self._messages += rendered.messages
        if index >= self._thinks_from and isinstance(step, TrackedActionStep) and step.thoughts:
            self._think(step, len(rendered.messages))
        self.weight += rendered.weight
        if isinstance(step, TrackedActionStep):
            step.changed = False
            step.watched = self._changed

    def _think(self, step: TrackedActionStep, count: int) -> None:
        """What was thought before it stands beside the step's answer."""
        for place in range(len(self._messages) - count, len(self._messages)):
            if self._messages[place].role == MessageRole.ASSISTANT:
                self._messages[place] = with_thoughts(
                    self._messages[place], step.thoughts, step.author, self._system or ""
                )
                return

    def _drop(self, keep: int) -> None:
        if keep < len(self._steps):
            self.moves += 1
            self._thinks_from = len(self._steps)
            self.weight -= sum(step.weight for step in self._rendered[keep:])
            del self._messages[self._starts[keep] :], self._steps[keep:], self._starts[keep:], self._rendered[keep:]

    def _unchanged(self, steps: Sequence[MemoryStep]) -> int:
        """How many steps from the first on need no rendering."""
        known = self._steps
        keep = len(known)
        # Two lists are compared pointer by pointer, without touching what they point to: nothing to speak of at 3,000.
        known.extend(steps[keep:])
        same = known == steps
        del known[keep:]
        if not same:
            pairs = enumerate(zip(known, steps, strict=False))
            keep = next((i for i, (old, new) in pairs if old is not new), min(keep, len(steps)))
        if self._dirty:
            self._dirty = False
            keep = min(
                [keep, *(i for i, step in enumerate(known) if isinstance(step, TrackedActionStep) and step.changed)]
            )
        return keep

    def _changed(self) -> None:
        self._dirty = True


def _after_compaction(steps: Sequence[MemoryStep]) -> int:
    """Index of the first step after the last that moved what was rendered before it."""
    return max((index + 1 for index, step in enumerate(steps) if isinstance(step, CompactionStep)), default=0)


def said(text: str) -> ChatMessage:
    """A message in the user's role that the user did not write."""
    return ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": text}])


def step_messages(step: MemoryStep, summary_mode: bool = False) -> list[ChatMessage]:
    """A step's messages as smolagents renders them, less its second copy of the code.

    smolagents sends each code action twice, in the model's own words and again under "Calling tools:".
    """
    messages = step.to_messages(summary_mode=summary_mode)
    if (
        not summary_mode
        and isinstance(step, ActionStep)
        and step.model_output is not None
        and step.code_action is not None
    ):
        return [message for message in messages if message.role != MessageRole.TOOL_CALL]
    return messages


def render_step(
    step: MemoryStep,
    number: int,
    limits: Limits,
    keep: Callable[[str], str],
    masked: bool = False,
    cut: int = 0,
    summary_mode: bool = False,
) -> Rendered:
    """A step as it is shown.

    Args:
        step (`MemoryStep`): The step.
        number (`int`): Its place in the memory, from 1; its handle is `step:` and that.
        limits (`Limits`): What is shown of long texts.
        keep (`Callable[[str], str]`): Keeps a text that is too long; returns its handle.
        masked (`bool`): Show a line instead of the observation.
        cut (`int`): Show at most so many characters of any text, and no image; 0 for no such limit.
        summary_mode (`bool`): As smolagents' messages for a new plan: without what the model said.
    """
    messages, handles = [], []
    for message in step_messages(step, summary_mode):
        result = message.role == MessageRole.TOOL_RESPONSE
        own = limits.shown if result else limits.said
        # The user's words stand until a compaction.
        limit = min(filter(None, (own if isinstance(step, ActionStep) else 0, cut)), default=0)
        parts: list[dict[str, Any]] = []
        for part in message.content if isinstance(message.content, list) else [text_part(message.content or "")]:
            if part.get("type") != "text":
                parts.append(text_part(f"[an image that is no longer shown, see step:{number}]") if cut else part)
                continue
            text = part["text"] if part["text"].strip() else "(nothing)"
            prefix = OBSERVATION if result and text.startswith(OBSERVATION) else ""
            body = text[len(prefix) :]
            if limit and not fits(body, limit):
                handle = keep(body) if result else f"step:{number}"
                handles.append((handle, len(body)))
                text = prefix + shorten(body, limit, handle)
            parts.append(part if text == part["text"] else text_part(text))
        messages.append(message if parts == message.content else replace(message, content=parts))
    if (
        isinstance(step, ActionStep)
        and messages
        and messages[-1].role in (MessageRole.ASSISTANT, MessageRole.TOOL_CALL)
    ):
        # Cut off before it was observed: two answers in a row are no conversation.
        messages.append(ChatMessage(role=MessageRole.TOOL_RESPONSE, content=[text_part(f"{OBSERVATION}(nothing)")]))
    rendered = Rendered(messages, weigh_all(messages), 0.0, tuple(handles), masked)
    if not isinstance(step, ActionStep):
        return rendered
    observed = [message for message in messages if message.role in (MessageRole.TOOL_RESPONSE, MessageRole.USER)]
    weight = weigh_all(observed)
    if weight < WORTH_MASKING:
        return rendered
    if not masked:
        return replace(rendered, maskable=weight - WORTH_MASKING / 2)
    line = ChatMessage(role=MessageRole.TOOL_RESPONSE, content=[text_part(masked_line(step, number, handles))])
    messages = [message for message in messages if message not in observed] + [line]
    return Rendered(messages, weigh_all(messages), 0.0, tuple(handles), True)


def masked_line(step: ActionStep, number: int, handles: Sequence[tuple[str, int]]) -> str:
    length = len(step.observations or "") + len(str(step.error or ""))
    images = f" and {len(step.observations_images)} images" if step.observations_images else ""
    failed = f" It failed: {str(step.error).strip()[-120:]}" if step.error else ""
    handle = next((handle for handle, _ in handles if handle.startswith("artifact:")), f"step:{number}")
    return f"{OBSERVATION}[{length:,} characters{images} that are no longer shown: read_artifact({handle!r})]{failed}"


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
