"""What the model is asked beside its steps: for a plan, a summary, a last word."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from smolagents import MultiStepAgent
from smolagents.agents import AgentMaxStepsError
from smolagents.memory import PlanningStep, SystemPromptStep
from smolagents.models import ChatMessage, MessageRole
from smolagents.monitoring import LogLevel, Timing, TokenUsage

from .budget import BudgetUsedUp
from .context import ContextManager, Overflow, Summary
from .events import State
from .metering import Purse
from .router import ToolRouter
from .secrets import Masker
from .steps import CompactionStep, Observers, TrackedActionStep
from .supervision import Ending
from .thinking import Thinking, thinking_of

CAUSES = {State.BUDGET: "The budget is used up", State.STUCK: "There is no progress"}


class LimitReached(AgentMaxStepsError):
    """A run ended before its task was done: its money, its time or its steps are used up, or it made no progress."""


class Asides(MultiStepAgent):
    """An agent whose model is asked for more than steps. Money is set aside for each call; what does not fit is left out."""

    context: ContextManager
    ending: Ending | None
    masker: Masker
    observer: Observers
    purse: Purse
    router: ToolRouter
    _summary: Summary | None = None
    _fitted_to: int = 0
    """The window for which the system prompt was written."""

    def _planning(self, task: str) -> Generator[Any]:
        try:
            reserved = self.purse.reserve("a plan")
        except BudgetUsedUp:
            return  # the step after it will not fit either, and says so
        started, step = time.time(), None
        try:
            for element in self._generate_planning_step(
                self.context.shortened(task), is_first_step=len(self.memory.steps) == 1, step=self.step_number
            ):
                yield element
                step = element
            assert isinstance(step, PlanningStep)
            used, _ = self.purse.settle(reserved, step.token_usage, step.model_output_message)
        finally:
            reserved.release()  # where it was not settled: the model did not answer
        self.observer.paid(used.cost_usd)
        step.timing = Timing(start_time=started, end_time=time.time())
        step.plan = self.masker.text(step.plan)
        step.model_output_message.content = self.masker.data(step.model_output_message.content)
        self._finalize_step(step)
        self.memory.steps.append(step)

    def _fit_prompt(self) -> None:
        """Another model may read less, or more: tools are described accordingly."""
        if self.context.limit(self.model) != self._fitted_to:
            self.memory.system_prompt = SystemPromptStep(system_prompt=self.system_prompt)

    def _make_room(self, overflow: Overflow | None = None) -> bool:
        """Compacts where that is due; a model is asked for a summary only while there is money for it."""
        self._fit_prompt()
        return (
            self._compacted(self.context.make_room(self.memory, self.model, overflow, self.ending is None)) is not None
        )

    def _compacted(self, step: CompactionStep | None) -> CompactionStep | None:
        """A summary that made the conversation no shorter is not used: what it took is on record all the same."""
        summary, self._summary = self._summary, None
        if step is None and summary is not None:
            tokens = (summary.input_tokens, summary.output_tokens, summary.cached_tokens)
            self.observer.unused(*tokens, summary.cost_usd)
        return step

    def compact(self, focus: str = "") -> CompactionStep | None:
        """Compacts now, whatever the fill. For an agent that is not running; see [`ContextManager.request`].

        Args:
            focus (`str`): What the summary is to keep above all.

        Returns:
            `CompactionStep` or `None`: `None` where there was nothing to compact.
        """
        self.context.request(focus)
        return self._compacted(self.context.make_room(self.memory, self.model))

    def _summarise(self, messages: list[ChatMessage]) -> Summary:
        self.observer.compacting()
        try:
            reserved = self.purse.reserve("a summary")
        except BudgetUsedUp:
            return Summary()
        try:
            message = self.model.generate(messages)
        except Exception as error:  # noqa: BLE001 - any model's own error: the conversation goes on with a mechanical summary
            reserved.release()
            self.logger.log(f"No summary from the model: {error}", level=LogLevel.INFO)
            return Summary()
        used, spent = self.purse.settle(reserved, message.token_usage, message)
        said = message.content if isinstance(message.content, str) else ""
        self.router.untrusted.add_printed("a summary of what was read", said)
        tokens = (used.input_tokens, used.output_tokens, used.cached_tokens)
        self._summary = Summary(self.masker.text(said), *tokens, used.cost_usd, spent)
        return self._summary

    def _wrap_up(self, task: str) -> Any:
        """The model's last word when steps, time or money are used up; without a model where it is the money."""
        assert self.ending is not None
        started, ending = time.time(), self.ending
        self._make_room()
        said = "Reached max steps." if ending.state is State.MAX_STEPS else f"{CAUSES[ending.state]}: {ending.reason}."
        message = self._last_word(task)
        step = TrackedActionStep(
            step_number=self.step_number,
            error=(AgentMaxStepsError if ending.state is State.MAX_STEPS else LimitReached)(said, self.logger),
            timing=Timing(start_time=started, end_time=time.time()),
            token_usage=message.token_usage,
        )
        step.action_output = message.content
        self._finalize_step(step)
        self.memory.steps.append(step)
        return message.content

    def _last_word(self, task: str) -> ChatMessage:
        try:
            reserved = self.purse.reserve("a last word")
        except BudgetUsedUp as error:
            said = f"The work had to end before its task was done: {error}"
            return ChatMessage(MessageRole.ASSISTANT, said, token_usage=TokenUsage(0, 0))
        message: ChatMessage = self.provide_final_answer(self.context.shortened(task))
        used, _ = self.purse.settle(reserved, message.token_usage, message)
        self.observer.paid(used.cost_usd, self.masked_thinking(message))
        return message

    def masked_thinking(self, message: ChatMessage | None) -> tuple[Thinking, ...]:
        """What the model thought before it said this. Signatures are of what it thought as it was: what was masked has none."""
        masked = ((one, self.masker.text(one.text)) for one in thinking_of(message))
        return tuple(one if one.text == text else Thinking(text) for one, text in masked)
