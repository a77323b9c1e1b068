"""From memory to messages, each step rendered once.

What must never happen here: a message that was sent changes afterwards (section "what was sent stays sent"), a step that
a callback edited is sent as it was before the edit, the cost of a step grows with the number of steps before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from smolagents.memory import ActionStep, AgentMemory, MemoryStep
from smolagents.models import ChatMessage

from ..steps import TrackedActionStep


class Renderer:
    """Renders an agent's memory incrementally. The messages of unchanged steps are the very same objects every time."""

    def __init__(self) -> None:
        self._system: str | None = None
        self._steps: list[MemoryStep] = []
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
            self._system, self._steps, self._starts = system, [], []
            self._messages = memory.system_prompt.to_messages()
        keep = self._unchanged(memory.steps)
        if keep < len(self._steps):
            del self._messages[self._starts[keep] :], self._steps[keep:], self._starts[keep:]
        for step in memory.steps[keep:]:
            self._steps.append(step)
            self._starts.append(len(self._messages))
            self._messages += step_messages(step)
            if isinstance(step, TrackedActionStep):
                step.changed = False
                step.watched = self._changed
        return list(self._messages)

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


def step_messages(step: MemoryStep) -> list[ChatMessage]:
    """A step's messages as smolagents renders them, less its second copy of the code.

    smolagents sends each code action twice, in the model's own words and again under "Calling tools:".
    """
    messages = step.to_messages()
    if isinstance(step, ActionStep) and step.model_output is not None and step.code_action is not None:
        return [message for message in messages if message.role != "tool-call"]
    return messages
