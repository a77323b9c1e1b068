"""The journal as an observer: what an agent does becomes rows, as it happens."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

from smolagents.memory import ActionStep, MemoryStep, PlanningStep, TaskStep

from ..events import ApprovalAnswer, ApprovalRequest, Outcome, State
from ..plain import as_text, plain
from ..steps import AgentRun, CompactionStep, ModelStep, Observer, SteerStep, ToolCallStep, ToolResultStep
from ..thinking import Thinking
from . import rows
from .journal import Journal
from .results import result_fields
from .subagents import SidechainJournal

CONTINUED = "This session is being continued from a previous conversation that ran out of context."
"""What readers of the format know a summary by."""
_FIELDS = (
    "trigger", "rung", "at", "limit", "start", "masked", "cut", "lead", "reminder", "summary", "handles", "before", "after",
    "input_tokens", "output_tokens", "cached_tokens", "cost_usd", "seconds",
)  # fmt: skip


def compaction_fields(step: CompactionStep) -> dict[str, Any]:
    """What a row says of a compaction: all that rendering needs to know of it, and what it took."""
    fields = {name: getattr(step, name) for name in _FIELDS if name != "trigger"}
    return {**fields, "reason": step.trigger, "postTokens": step.after}


def compaction_of(row: rows.Row) -> CompactionStep | None:
    """The compaction or the masking batch that a row is about; `None` for other rows."""
    if row.get("subtype") == "compact_boundary":
        data = row.get("compactMetadata")
    elif row["type"] == "progress" and isinstance(row.get("data"), dict) and row["data"].get("kind") == "masked":
        data = row["data"]
    else:
        return None
    if not isinstance(data, dict) or not {"rung", "at", "limit"} <= data.keys():
        return None  # another program's
    fields = {name: data[name] for name in _FIELDS if name in data and name != "trigger"}
    return CompactionStep(trigger=str(data.get("reason", "fill")), **fields)


class TraceRecorder(Observer):
    """Writes a session's rows.

    The order is the guarantee: the model's answer is a row before its code runs, a call before the tool does, an
    approval's answer before it counts; a call that may change something waits until the disk has its row.

    Args:
        journal (`Journal`): Where to.
        model (`str`): The model's name, written into each answer.
    """

    def __init__(self, journal: Journal, model: str) -> None:
        self.journal, self.model, self.jail = journal, model, ""
        self._action: str | None = None
        self._said = False
        self._paid: dict[str, Any] = {}
        self._thought: list[rows.Row] = []
        self.takes_in: tuple[str, ...] = ()
        """Ids of what was said meanwhile and is the next task."""
        self._below: dict[str, TraceRecorder] = {}
        self._reports: dict[str, dict[str, Any]] = {}

    def task(self, step: TaskStep, variables: list[str]) -> None:
        content: Any = step.task
        if step.task_images:
            content = [rows.text_block(step.task), *map(rows.image_block, step.task_images)]
        self._said = False
        said, self.takes_in = self.takes_in, ()
        self.journal.user(content, stepKind="task", variables=variables, **({"said": said} if said else {}))
        self.journal.note("worker", jail=self.jail)
        self.journal.sync()

    def paid(self, cost_usd: float | None, thinking: tuple[Thinking, ...] = ()) -> None:
        self._paid, self._thought = {"costUsd": cost_usd}, [*map(rows.thinking_block, thinking)]

    def planned(self, step: PlanningStep) -> None:
        tokens = step.token_usage
        usage = rows.usage_of(tokens.input_tokens, tokens.output_tokens) if tokens else rows.usage_of(0, 0)
        said = str(step.model_output_message.content)
        content, (paid, self._paid) = [*self._thought, rows.text_block(step.plan)], (self._paid, {})
        self._thought = []
        self.journal.answer(content, self.model, usage, stepKind="planning", modelOutput=said, **paid)

    def answered(self, step: ModelStep) -> None:
        usage = rows.usage_of(step.input_tokens, step.output_tokens, step.cached_tokens)
        content = [rows.text_block(step.thought)] if step.thought else []
        self._action = None
        if step.code is not None:
            self._action = f"toolu_{rows.new_id()}"
            content.append(rows.call_block(self._action, "python_interpreter", {"code": step.code}))
        self.journal.answer(
            [*map(rows.thinking_block, step.thinking), *(content or [rows.text_block("(no answer)")])],
            step.model or self.model,
            usage,
            "tool_use" if self._action else "end_turn",
            step=step.action.step_number,
            modelOutput=step.action.model_output,
            costUsd=step.cost_usd,
            **({"reasoningTokens": step.reasoning_tokens} if step.reasoning_tokens else {}),
        )

    def calling(self, step: ToolCallStep) -> None:
        if step.carried:
            return  # after a sleep: its row was written when the code made it
        files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in step.files]
        self.journal.call(
            step.call_id, step.tool, step.arguments, self.model, step=step.action, effects=step.effects, files=files
        )
        if step.effects != "read":
            self.journal.sync()

    def called(self, step: ToolResultStep) -> None:
        failed = step.error is not None
        text = f"{type(step.error).__name__}: {step.error}" if failed else as_text(step.result)
        extra: dict[str, Any] = {} if step.cost_usd is None else {"costUsd": step.cost_usd}
        late = self.journal.again() if isinstance(self.journal, SidechainJournal) and self.journal.closed else None
        with (
            contextlib.closing(late) if late else contextlib.nullcontext(self.journal) as journal
        ):  # its task has ended
            journal.result(
                step.call_id,
                text,
                error=failed,
                step=step.action,
                seconds=round(step.seconds, 4),
                denied=step.denied,
                **extra,
                **self._reports.pop(step.call_id, {}),
                **result_fields(step.result, step.error),
            )

    def switched(self, model: str, before: str, why: str, back: bool) -> None:
        """Another model writes from here on: from now on the rows are its."""
        self.model = model
        self.journal.note("model", model=model, before=before, why=why, back=back)

    def unused(self, input_tokens: int, output_tokens: int, cached_tokens: int, cost_usd: float | None) -> None:
        tokens = {"inputTokens": input_tokens, "outputTokens": output_tokens, "cachedTokens": cached_tokens}
        self.journal.note("unused-summary", costUsd=cost_usd, **tokens)

    def compacted(self, step: CompactionStep) -> None:
        fields = compaction_fields(step)
        if step.only_masks:
            self.journal.note("masked", **fields)
            return
        trigger = "manual" if step.trigger == "asked" else "auto"
        with self.journal.together():
            if step.said:
                usage = rows.usage_of(step.input_tokens, step.output_tokens, step.cached_tokens)
                content = [rows.text_block(step.said)]
                self.journal.answer(
                    content, self.model, usage, stepKind="compaction", modelOutput=step.said, costUsd=step.cost_usd
                )
            self.journal.compacted(_continued(step), {"trigger": trigger, "preTokens": step.before, **fields})
        self.journal.sync()

    def half(self, what: str, step: MemoryStep | None) -> None:
        """The machine stopped in the middle of rows that belong together: those that are missing follow.

        Args:
            what (`str`): `answer` (its end will be told of; it is on record itself) or `compaction`, of `step`.
        """
        self._said = what == "answer"
        if what == "compaction" and isinstance(step, CompactionStep):
            self.journal.summary(_continued(step))

    def steered(self, step: SteerStep) -> None:
        with self.journal.together():
            known = {"id": step.id} if step.id else {}
            self.journal.note("steered", text=step.text, by=step.by, source=step.source, **known)
            self.journal.user(step.said, stepKind="steered")
        self.journal.sync()

    def extended(self, steps: int, why: str) -> None:
        self.journal.note("extended", steps=steps, why=why)

    def agent_started(self, run: AgentRun) -> Observer:
        """A sub-agent's work goes to a trace of its own, which is not there before the disk has the call that it answers."""
        self.journal.sync()
        below = self._below[run.id] = TraceRecorder(SidechainJournal(self.journal, run), run.model)
        return below

    def agent_cut_off(self, run: AgentRun, action: str | None) -> Observer:
        """What it left open goes to its own trace, too."""
        self.agent_started(run)
        self._below[run.id].goes_on(action)
        return self._below[run.id]

    def close(self) -> None:
        """Lets go of the traces of sub-agents that have not ended."""
        for below in list(self._below.values()):
            below.close()
            below.journal.close()
        self._below.clear()

    def agent_ended(self, run: AgentRun, outcome: Outcome, spent_usd: float, unpriced_calls: int) -> None:
        below = self._below.pop(run.id)
        below.ended(outcome)
        below.journal.close()
        usage = outcome.usage
        self.journal.note(
            "subagent",
            agent=run.agent,
            id=run.id,
            callId=run.call_id,
            step=run.step,
            model=run.model,
            state=str(outcome.state),
            reason=outcome.reason,
            steps=outcome.steps,
            seconds=round(outcome.seconds, 3),
            report=as_text(outcome.answer),
            inputTokens=usage.input_tokens,
            outputTokens=usage.output_tokens,
            cachedTokens=usage.cached_tokens,
            costUsd=usage.cost_usd,
            spentUsd=spent_usd,
            unpricedCalls=unpriced_calls,
        )
        result = {
            "agentId": run.id,
            "status": "completed" if outcome.state is State.SUCCESS else str(outcome.state),
            "totalDurationMs": round(outcome.seconds * 1000),
            "totalTokens": usage.input_tokens + usage.output_tokens,
        }
        self._reports[run.call_id] = {"toolUseResult": result}

    def approval_asked(self, request: ApprovalRequest, digest: str) -> None:
        files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in request.files]
        self.journal.note(
            "approval-asked",
            callId=request.call_id,
            tool=request.tool,
            arguments=request.arguments,
            reason=request.reason,
            preview=request.preview,
            files=files,
            binding=digest,
            effects=request.effects,
            costUsd=request.cost_usd,
            leftUsd=request.left_usd,
            destination=asdict(request.destination) if request.destination else None,
            sources=request.sources,
            rule=request.rule,
            agent=request.agent,
        )

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        self.journal.note(
            "approval-answered",
            callId=request.call_id,
            decision=answer.decision,
            reason=answer.reason,
            by=answer.by,
            scope=answer.scope,
            text=answer.text,
            arguments=answer.arguments,
            binding=digest,
        )
        self.journal.sync()

    def finished(self, step: ActionStep) -> None:
        images = step.observations_images or []
        parts = [step.observations or "", f"Error:\n{step.error}" if step.error else ""]
        text = "\n".join(filter(None, parts))
        extra: dict[str, Any] = {
            "step": step.step_number,
            "seconds": round(step.timing.duration or 0.0, 4),
            "final": step.is_final_answer,
            "value": plain(step.action_output),
        }
        if step.error is not None:
            extra["failure"] = {"type": type(step.error).__name__, "message": str(step.error)}
        if self._action is not None:
            self.journal.result(self._action, text, images, error=step.error is not None, **extra)
        elif step.model_output is None and step.action_output is not None:
            tokens = step.token_usage  # the last word when steps or money are used up
            usage = rows.usage_of(tokens.input_tokens, tokens.output_tokens) if tokens else rows.usage_of(0, 0)
            said = as_text(step.action_output)
            content = [*self._thought, rows.text_block(said)]
            self.journal.answer(
                content, self.model, usage, stepKind="wrap-up", modelOutput=said, **extra, **self._paid
            )
            self._paid, self._thought = {}, []
        elif text:
            shown = [rows.text_block(text), *map(rows.image_block, images)] if images else text
            self.journal.user(shown, **extra)
        else:  # the model's service gave no answer: a step of the memory all the same
            self.journal.note("no-answer", step=step.step_number, images=len(images))
        self._action = None
        self.journal.sync()

    def goes_on(self, action: str | None) -> None:
        """A step's answer is on record already, under that id, and its result is not: [`finished`] will give it."""
        self._action = action

    def ended(self, outcome: Outcome, title: str = "") -> None:
        """The turn is over: its answer as the assistant's last words, its state, and a title where there is none."""
        with self.journal.together():
            if outcome.answer is not None and not self._said:
                message = rows.assistant_message([rows.text_block(as_text(outcome.answer))], self.model, "end_turn")
                self.journal.append({"type": "assistant", "message": message, "stepKind": "answer"})
            self.journal.note(
                "end",
                state=str(outcome.state),
                reason=outcome.reason,
                answer=outcome.answer,
                steps=outcome.steps,
                seconds=round(outcome.seconds, 3),
                inputTokens=outcome.usage.input_tokens,
                outputTokens=outcome.usage.output_tokens,
                costUsd=outcome.usage.cost_usd,
            )
            if title:
                self.journal.title(title)
        self._said = False
        self.journal.sync()


def _continued(step: CompactionStep) -> str:
    return "\n\n".join(filter(None, [CONTINUED, step.lead, step.reminder]))
