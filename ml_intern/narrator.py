"""What an agent does, as events for those who listen. Text is masked here, before anyone hears it."""

from __future__ import annotations

from dataclasses import replace

from smolagents.memory import ActionStep, PlanningStep, TaskStep

from . import events as told
from .budget import SpendLedger
from .events import ApprovalAnswer, ApprovalRequest, EventLog, Outcome
from .plain import as_text, plain
from .secrets import MaskedStream, Masker
from .steps import AgentRun, CompactionStep, ModelStep, Observer, SteerStep, ToolCallStep, ToolResultStep

SUMMARY = 1_000
"""Characters of a result that an event carries."""
PRINTED = 4_000
"""Characters of what code printed that an event carries."""
LOOKED_AT = PRINTED + 21_000
"""Of more than this at once only the end is masked: no secret is so long that it reaches from there into what is shown."""
SEEN = 10_000
"""Characters of a step's observation that an event carries."""


class Narrator(Observer):
    """Tells listeners what an agent does.

    Args:
        events (`EventLog`): Where it is told.
        masker (`Masker`): Masks it.
        ledger (`SpendLedger`, *optional*): Whose budget is said once not to hold, where nobody knows a model's price.
    """

    def __init__(self, events: EventLog, masker: Masker, ledger: SpendLedger | None = None) -> None:
        self.events, self.masker, self._ledger = events, masker, ledger
        # A secret may be cut in two between pieces: what could be the beginning of one waits for the next piece.
        self._said, self._printed = MaskedStream(masker), MaskedStream(masker)
        self._step = 0
        self._streaming = False

    def task(self, step: TaskStep, variables: list[str]) -> None:
        self._step = 0

    def planned(self, step: PlanningStep) -> None:
        lines = [line.strip(" -*#") for line in step.plan.splitlines() if line.strip()]
        self.events.emit(
            told.PlanChanged(items=tuple({"text": self.masker.text(line), "status": "pending"} for line in lines[:40]))
        )

    def started(self, step: ActionStep) -> None:
        self._said.end()  # of an attempt that failed: it is void
        self._step, self._streaming = step.step_number, False
        self.events.emit(told.StepStarted(step=step.step_number))
        self.events.emit(told.Waiting(on="the model"))

    def streamed(self, text: str) -> None:
        if not self._streaming:
            self._streaming = True
            self.events.emit(told.Waiting(on=""))
        if shown := self._said.feed(text):
            self.events.emit(told.ModelDelta(step=self._step, text=shown))

    def answered(self, step: ModelStep) -> None:
        if rest := self._said.end():
            self.events.emit(told.ModelDelta(step=self._step, text=rest))
        if not self._streaming:
            self.events.emit(told.Waiting(on=""))
        self.events.emit(
            told.ModelAnswered(
                step=step.action.step_number,
                thought=self.masker.text(step.thought),
                code=step.code and self.masker.text(step.code),
                input_tokens=step.input_tokens,
                output_tokens=step.output_tokens,
                usage=step.spent,
                reasoning=self.masker.text("\n".join(one.text for one in step.thinking if one.text)),
            )
        )
        if step.cost_usd is None and self._ledger is not None and self._ledger.budget_usd is not None:
            budget, self._ledger = self._ledger.budget_usd, None
            text = f"Nobody knows the price of this model: the budget of ${budget:.2f} cannot hold it. ML_INTERN_PRICES says it."
            self.events.emit(told.Warned(text=text))

    def printed(self, text: str) -> None:
        if len(text) > LOOKED_AT:
            self._printed.end()
            text = text[-LOOKED_AT:]
        if shown := self._printed.feed(text):
            self.events.emit(told.CodePrinted(step=self._step, text=shown[-PRINTED:]))

    def calling(self, step: ToolCallStep) -> None:
        arguments = self.masker.data(plain(step.arguments))
        self.events.emit(told.ToolCalled(step=step.action, call_id=step.call_id, tool=step.tool, arguments=arguments))

    def called(self, step: ToolResultStep) -> None:
        failed = step.error is not None
        summary = self.masker.text(str(step.error) if failed else as_text(step.result))[:SUMMARY]
        self.events.emit(
            told.ToolReturned(
                step=step.action,
                call_id=step.call_id,
                tool=step.tool,
                ok=not failed,
                summary=summary,
                seconds=step.seconds,
            )
        )

    def approval_asked(self, request: ApprovalRequest, digest: str) -> None:
        self.events.emit(told.ApprovalAsked(request=request))

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        said = {
            "reason": answer.reason,
            "text": answer.text,
            "arguments": answer.arguments and plain(answer.arguments),
        }
        answer = replace(answer, **self.masker.data(said))
        self.events.emit(told.ApprovalAnswered(call_id=request.call_id, answer=answer))

    def compacting(self) -> None:
        self._streaming = True  # what streams now is a summary
        self.events.emit(told.Waiting(on="a summary of the conversation"))

    def compacted(self, step: CompactionStep) -> None:
        self.events.emit(
            told.Compacted(
                how=step.rung,
                why=step.trigger,
                before=step.before,
                after=step.after,
                first=1,
                last=step.masked if step.only_masks else step.start,
                summary=self.masker.text(step.summary),
                cost_usd=step.cost_usd,
                seconds=step.seconds,
                usage=step.spent,
            )
        )
        self.events.emit(told.Waiting(on=""))

    def steered(self, step: SteerStep) -> None:
        self.events.emit(told.Steered(text=self.masker.text(step.text), by=step.by))

    def extended(self, steps: int, why: str) -> None:
        self.events.emit(told.Extended(steps=steps, why=self.masker.text(why)))

    def agent_started(self, run: AgentRun) -> Observer:
        self.events.emit(told.AgentStarted(agent=run.agent, task=self.masker.text(run.task)))
        return SubAgentNarrator(self)

    def agent_cut_off(self, run: AgentRun, action: str | None) -> Observer:
        return SubAgentNarrator(self)

    def agent_ended(self, run: AgentRun, outcome: Outcome, spent_usd: float, unpriced_calls: int) -> None:
        report = self.masker.text(as_text(outcome.answer))
        report = report if len(report) <= SUMMARY else f"{report[:SUMMARY]}..."
        self.events.emit(
            told.AgentEnded(
                agent=run.agent, state=str(outcome.state), report=report, steps=outcome.steps, usage=outcome.usage
            )
        )

    def finished(self, step: ActionStep) -> None:
        if rest := self._printed.end():
            self.events.emit(told.CodePrinted(step=self._step, text=rest[-4_000:]))
        seen = step.observations or ""
        if len(seen) > SEEN:  # events are kept as long as the session: the whole is on record
            seen = f"{seen[: SEEN // 2]}\n[... {len(seen):,} characters ...]\n{seen[-SEEN // 2 :]}"
        self.events.emit(
            told.StepFinished(
                step=step.step_number,
                observation=seen,
                error=str(step.error) if step.error else "",
                seconds=step.timing.duration or 0.0,
                images=len(step.observations_images or []),
            )
        )


class SubAgentNarrator(Observer):
    """What of a sub-agent's work is told: its calls, and those that work for it. Its words and steps are in its own record."""

    def __init__(self, above: Narrator) -> None:
        self._above = above

    def calling(self, step: ToolCallStep) -> None:
        self._above.calling(step)

    def called(self, step: ToolResultStep) -> None:
        self._above.called(step)

    def agent_started(self, run: AgentRun) -> Observer:
        return self._above.agent_started(run)

    def agent_cut_off(self, run: AgentRun, action: str | None) -> Observer:
        return self._above.agent_cut_off(run, action)

    def agent_ended(self, run: AgentRun, outcome: Outcome, spent_usd: float, unpriced_calls: int) -> None:
        self._above.agent_ended(run, outcome, spent_usd, unpriced_calls)
