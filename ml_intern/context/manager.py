"""ContextManager: what the model sees of a conversation that is longer than it can read.

What must never happen here: a request that does not fit; something that was said is lost; a compaction that frees nothing
is made again and again; a model that fails takes the conversation with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from smolagents.memory import ActionStep, AgentMemory, MemoryStep, TaskStep
from smolagents.models import ChatMessage

from ..plain import as_text
from ..steps import CompactionStep, SteerStep, ToolResultStep, TrackedActionStep
from . import summary as words
from .artifacts import ArtifactStore
from .compaction import Ask, Compaction, Summary, text_of
from .decide import BATCH, FIRST, MOST, RUNGS, SHOWN, Limits, enough, limit_of, mask_until
from .overflow import Overflow
from .reading import ReadArtifactTool, read
from .render import Renderer, render_step, said
from .tokens import Meter, weigh


@runtime_checkable
class Windowed(Protocol):
    """A model that knows how many tokens it can read, or says `None`."""

    def window(self) -> int | None: ...


@dataclass(frozen=True)
class Fill:
    """What fills the window, in tokens: `limit` is what a prompt may take, `before` what stands for steps no longer shown."""

    limit: int
    system: int
    before: int
    user: int
    said: int
    seen: int

    @property
    def used(self) -> int:
        return self.system + self.before + self.user + self.said + self.seen


class ContextManager:
    """Keeps a conversation within what its model can read, and everything that was in it within reach.

    Long observations are shown in part; past a first threshold old ones become a line, many at once; past the limit the
    steps before the last few are replaced by a summary, beside the user's own words. All of it can be read back with
    `read_artifact`. What was sent before is left as it is in between, for the sake of the provider's cache.

    [`InternAgent`] has one. With any other smolagents agent it is a step callback, and `tool` one of its tools. There it
    takes over what the agent's memory is sent as after the first step: a first message that is too long is sent as it is, and
    a provider that refuses a prompt ends the run, as that agent's loop leaves no room for a second try.

    Args:
        window (`int`, *optional*): Tokens the model can read, prompt and answer. Defaults to what the model says of itself.
        most (`int`, defaults to 170,000): Tokens that a prompt may take, whatever the window.
        shown (`int`, defaults to 8,000): Characters that are shown of an observation; fewer in a small window.
        store (`ArtifactStore`, *optional*): Where long texts go. Defaults to a temporary folder.
        pinned (`Callable[[], str]`, *optional*): What is to be said again after a compaction: plan, notes, what is open.

    Attributes:
        tell (`Callable[[CompactionStep], None]`): Told of a compaction before it counts.
        ask (`Ask`, *optional*): Asks a model for a summary; without it summaries are mechanical.
        tool (`ReadArtifactTool`): Reads back what is not shown.

    Example:
        ```py
        context = ContextManager()
        agent = CodeAgent(tools=[context.tool], model=model, step_callbacks=[context])
        ```
    """

    def __init__(
        self,
        window: int | None = None,
        most: int = MOST,
        shown: int = SHOWN,
        store: ArtifactStore | None = None,
        pinned: Callable[[], str] | None = None,
    ) -> None:
        self.most, self.store, self.pinned = most, store or ArtifactStore(), pinned or (lambda: "")
        self.tell: Callable[[CompactionStep], None] = lambda step: None
        self.ask: Ask | None = None
        self.tool = ReadArtifactTool(self.read)
        self.meter = Meter()
        self._window, self._shown = window, shown
        self._model: Any = None
        self._told: Any = None
        self._limit = limit_of(window, most)
        self._renderer = Renderer(Limits.of(self._limit, shown), self.store.put)
        self._memory: AgentMemory | None = None
        self._moves = 0
        self._looked = 0
        self._asked: str | None = None
        self._results: list[tuple[int, str]] = []  # steps there were, and a line that names a large result
        self._lock = threading.Lock()

    # What is sent.

    def render(self, memory: AgentMemory) -> list[ChatMessage]:
        """The messages for the next request; what was rendered before is their beginning, but after a compaction."""
        self._memory = memory
        messages = self._renderer.render(memory)
        if self._renderer.moves != self._moves:
            self._moves = self._renderer.moves
            self.meter.moved()
        for step in reversed(memory.steps):  # the newest ones, as far as they were not looked at before
            if not self._shelve(step):
                break
        return messages

    def render_for_plan(self, memory: AgentMemory) -> list[ChatMessage]:
        """The same for a new plan: without the system prompt and what the model said."""
        self.render(memory)
        view, limits = self._renderer.view, Limits.of(self._limit, self._shown)
        boundary = view.boundary
        messages = [said(boundary.lead)] if boundary else []
        for index in range(boundary.start if boundary else 0, len(memory.steps)):
            cut = boundary.cut if boundary and index < boundary.at else 0
            step, masked = memory.steps[index], index < view.masked
            messages += render_step(step, index + 1, limits, self.store.put, masked, cut, summary_mode=True).messages
        return messages

    def shortened(self, text: str) -> str:
        """A task as it may be repeated in a prompt that is not the conversation's own."""
        return words.fit(text, self._limit * 0.1)

    def count(self, memory: AgentMemory) -> int:
        """Tokens of the next request: counted by the provider as far as it was sent, estimated for the rest."""
        self.render(memory)
        return self.meter.count(self._renderer.weight)

    def measured(self, tokens: int) -> None:
        """The provider counted so many tokens for the prompt that was rendered last."""
        self.meter.measured(tokens, self._renderer.weight)

    def limit(self, model: Any) -> int:
        """Tokens that a prompt for this model may take."""
        told = self._window or (model.window() if isinstance(model, Windowed) else None)
        if model is not self._model or told != self._told:  # of a chain of models now one is asked, now another
            self._model, self._told = model, told
            self._set_limit(limit_of(told if isinstance(told, int) else None, self.most))
        return self._limit

    def _set_limit(self, limit: int) -> None:
        self._limit = limit
        if not self._renderer.weights():  # later on only a compaction changes what is shown of a text
            self._renderer.limits = Limits.of(limit, self._shown)

    # Making room.

    def request(self, focus: str = "") -> None:
        """Compact before the next step, whatever the fill. From any thread."""
        self._asked = focus

    def make_room(
        self, memory: AgentMemory, model: Any, overflow: Overflow | None = None, may_ask: bool = True
    ) -> CompactionStep | None:
        """Masks or compacts where that is due: at most one of them, which is appended to the memory after it was told of.

        Args:
            memory (`AgentMemory`): Of the agent.
            model (`Model`): Of the next request.
            overflow (`Overflow`, *optional*): The provider has just refused the prompt.
            may_ask (`bool`, defaults to `True`): Whether a model may be asked for the summary.
        """
        limit, count = self.limit(model), self.count(memory)
        last = memory.steps[-1] if memory.steps else None
        fresh = isinstance(last, CompactionStep) and not last.only_masks
        if overflow is not None:
            if isinstance(last, CompactionStep) and last.rung == "hard":
                return None
            # What was refused was counted here as `count`: that is too much, whatever the provider calls its window.
            self._set_limit(max(256, min(limit_of(overflow.window, limit), int(count * 0.8))))
            # A second one in a step costs nothing and is the last: without a model, on the last rung.
            return self._compact(memory, "overflow", max(count, self._limit + 1), "", may_ask and not fresh, fresh)
        if fresh:
            return None
        if self._asked is not None:
            focus, self._asked = self._asked, None
            return self._compact(memory, "asked", count, focus, may_ask)
        if count > limit:
            return self._compact(memory, "fill", count, "", may_ask)
        return self._mask(memory, count, limit) if count > FIRST * limit else None

    def _mask(self, memory: AgentMemory, count: int, limit: int) -> CompactionStep | None:
        if 0 < count - self._looked < BATCH / 4 * limit:  # it has just been looked at: each step costs what it adds
            return None
        self._looked, started, weights = count, time.perf_counter(), self._renderer.weights()
        until = mask_until(weights, int(limit / self.meter.ratio))
        if not until:
            return None
        boundary = self._renderer.view.boundary
        step = CompactionStep("fill", "mask", len(memory.steps), boundary.limit if boundary else limit)
        step.masked, step.before = until, count
        step.after = count - round(sum(weight.maskable for weight in weights[:until]) * self.meter.ratio)
        step.seconds = time.perf_counter() - started
        return self._keep(memory, step)

    def _compact(
        self, memory: AgentMemory, trigger: str, before: int, focus: str, may_ask: bool, hard: bool = False
    ) -> CompactionStep | None:
        started = time.perf_counter()
        with self._lock:
            results = [line for _, line in self._results]
        made = Compaction(self._renderer, memory, trigger, self._limit, self.meter.ratio, self.pinned(), results)
        if trigger == "asked" and not made.acted:
            return None
        summary = Summary()
        # Where the system prompt leaves no room, no summary would help: none is paid for.
        if self.ask is not None and may_ask and made.acted and made.room > 0.1 * self._limit:
            summary = self.ask(made.question(before, focus))
        step = None
        for rung in RUNGS[-1:] if hard else RUNGS:
            step = made.make(rung, summary, before)
            if trigger == "asked" or enough(before, step.after, self._limit):
                break
        if step is None or step.after >= before:
            return None
        step.seconds = time.perf_counter() - started
        return self._keep(memory, step)

    def _keep(self, memory: AgentMemory, step: CompactionStep) -> CompactionStep:
        self.tell(step)
        memory.steps.append(step)  # ty: ignore[invalid-argument-type]  # smolagents passes over what it does not know
        self._looked = 0
        with self._lock:  # the others are named in the compaction, or only found in the history
            self._results = [result for result in self._results if result[0] >= step.start]
        return step

    # What is kept.

    def called(self, step: ToolResultStep) -> None:
        """A tool has answered: a long result is kept, as the code may print none of it."""
        if not isinstance(step.result, str | list | dict) or step.tool == self.tool.name:
            return
        text = as_text(step.result)
        if len(text) > self._shown:
            line = f"{self.store.put(text)} {len(text):,} characters, the result of {step.tool}"
            with self._lock:
                self._results.append((len(self._memory.steps) if self._memory else 0, line))

    def read(self, handle: str, lines: str | None = None, grep: str | None = None) -> str:
        """Any part of what is no longer shown; see [`~ml_intern.context.reading.read`]."""
        return read(self._memory.steps if self._memory else [], self.store, handle, lines, grep)

    def _shelve(self, step: MemoryStep) -> bool:
        """Puts a long observation aside, which is on disk. Returns whether this step has one, and had not been looked at."""
        if not self.store.durable or not isinstance(step, TrackedActionStep) or step.shelf is not None:
            return False
        whole = step.observations
        if whole is None or len(whole) <= self._shown:
            return False
        handle = self.store.put(whole)
        if self.store.get(handle) == whole:  # masked or mended text is not what the step saw
            step.__dict__["observations"], step.shelf = None, Shelf(self.store, handle)
        return step.shelf is not None

    def fill(self, memory: AgentMemory) -> Fill:
        """What fills the window now."""
        self.render(memory)
        ratio, boundary = self.meter.ratio, self._renderer.view.boundary
        before = weigh(boundary.lead) if boundary else 0.0
        user = spoken = seen = 0.0
        for index, step in enumerate(memory.steps):
            shown = self._renderer.shown(index)
            if isinstance(step, TaskStep | SteerStep):
                user += shown.weight
            elif isinstance(step, CompactionStep):
                before += shown.weight
            else:
                own = weigh(text_of(shown.messages[0])) if shown.messages else 0.0
                spoken, seen = spoken + own, seen + max(shown.weight - own, 0.0)
        parts = (self._renderer.system_weight, before, user, spoken, seen)
        return Fill(self._limit, *(round(part * ratio) for part in parts))

    # As a step callback of any smolagents agent.

    def __call__(self, memory_step: MemoryStep, agent: Any) -> None:
        if self._memory is not agent.memory:
            self._take_over(agent)
        if isinstance(memory_step, ActionStep) and memory_step.token_usage is not None:
            self.measured(memory_step.token_usage.input_tokens)

    def _take_over(self, agent: Any) -> None:
        def write(summary_mode: bool = False) -> list[ChatMessage]:
            if summary_mode:
                return self.render_for_plan(agent.memory)
            self.make_room(agent.memory, agent.model)
            return self.render(agent.memory)

        def ask(messages: list[ChatMessage]) -> Summary:
            try:
                message = agent.model.generate(messages)
            except Exception:  # noqa: BLE001 - any model's own error; the conversation goes on without its summary
                return Summary()
            used = message.token_usage
            return Summary(text_of(message), used.input_tokens if used else 0, used.output_tokens if used else 0)

        self._memory = agent.memory
        self.ask = self.ask or ask
        agent.write_memory_to_messages = write


@dataclass(frozen=True)
class Shelf:
    """An observation on disk."""

    store: ArtifactStore
    handle: str

    def __call__(self) -> str:
        return self.store.get(self.handle)
