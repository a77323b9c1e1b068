"""What was open when a session stopped is brought to its end: calls, and the tasks of sub-agents that were cut off.

What must never happen here: a call that may have taken effect is made again before its service or a person said that it
did not; a sub-agent's task is entered half-way, or begun again without anybody's word; what it had done is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smolagents.memory import TaskStep

from .approval import Rule, nobody
from .budget import SpendLedger
from .errors import Denied, InternError
from .events import ApprovalAnswer, ApprovalRequest, Outcome, State
from .router import ToolRouter
from .steps import GRANT, QUESTION, Observer, ToolResultStep
from .subagents import LAST_SEEN, CodeOutside, CutOff, SubAgent, at_path
from .trace import RestoredCall, RestoredRun
from .trace.actions import CUT
from .workshop import Workshop

UNKNOWN = (
    "the session was cut off during this call, and it is not known whether it took effect. Look there first; approve to "
    "make the call (again), reject to leave it"
)
SHOWN = 1_500
"""Characters of a call's result that stand in what the model reads of an action that was cut off."""
BRIEF, MOST_CALLS = 300, 30
"""Characters of each result, and how many calls, that stand in the report of a sub-agent that was cut off."""


@dataclass(frozen=True)
class Place:
    """Where calls were made from: the session's own agent (`path` is `""`), or one of its sub-agents.

    Args:
        path (`str`): The sub-agent's.
        router (`ToolRouter`, *optional*): Its tools; `None` where that agent is not there any more.
        observer (`Observer`): Its record.
    """

    path: str
    router: ToolRouter | None
    observer: Observer


class Settling:
    """Brings to its end what was open.

    Args:
        shop (`Workshop`): Of the session that goes on.
        answers (`Mapping[str, ApprovalAnswer]`): What was said meanwhile to questions that were open, by call.
        runs (`Sequence[RestoredRun]`): The tasks of sub-agents in the turn that goes on.
    """

    def __init__(self, shop: Workshop, answers: Mapping[str, ApprovalAnswer], runs: Sequence[RestoredRun]) -> None:
        self.shop, self._answers, self._runs = shop, answers, runs
        self._ended: set[str] = set()
        self.own = Place("", shop.agent.router, shop.agent.observer)

    def calls(self, calls: Sequence[RestoredCall], place: Place) -> list[str]:
        """A line for each call, for who made it. What a sub-agent was asked comes first: others may wait for it."""
        said = {call.call_id: self._delegated(call, place) for call in calls if self._tasks(call)}
        return [said.get(call.call_id) or self._call(call, place) for call in calls]

    def strays(self) -> list[str]:
        """Tasks that were cut off, and whose own call (or who gave them) came to its end before them."""
        cut_off = [run for run in self._runs if self._is_open(run)]
        ids = {run.run.id for run in cut_off}  # who gave a task brings it to its end with its own
        reports = [self._cut_off(run, self.own) for run in cut_off if run.above not in ids]
        for report in reports:
            self.shop.agent.router.remember("a sub-agent", {}, report)
        return [f"- {report}" for report in reports]

    # Sub-agents.

    def _tasks(self, call: RestoredCall) -> list[RestoredRun]:
        if call.state in ("done", "denied"):
            return []
        return [run for run in self._runs if run.run.call_id == call.call_id]

    def _is_open(self, run: RestoredRun) -> bool:
        return not run.over and run.run.id not in self._ended

    def _delegated(self, call: RestoredCall, place: Place) -> str:
        """A call of a sub-agent that had begun: its report, as far as it came."""
        reports = [run.report if run.over else self._cut_off(run, place) for run in self._tasks(call)]
        report = "\n\n".join(reports)
        self.shop.agent.router.remember(call.tool, call.arguments, report)
        self._fire(place, ToolResultStep(call.call_id, call.tool, call.step, report))
        return f"- `{call.tool}` returned: {report}"

    def _cut_off(self, run: RestoredRun, above: Place) -> str:
        """Ends a task on record, what it left open first. Returns what the agent above it reads."""
        shop, task = self.shop, run.run
        sub = at_path(shop.agent.below.values(), task.agent)
        observer = above.observer.agent_cut_off(task, run.action)
        if not run.told:
            observer.task(TaskStep(task=task.task), [])
        place = Place(task.agent, sub.router if sub is not None else None, observer)
        ledger = self._ledger(above).child()  # what is carried out for it now is part of what it took
        shop.agent.runs[task.agent] = CutOff(task.agent, ledger, observer)
        try:
            lines = self.calls(run.calls, place)
            for inner in self._runs:
                if inner.above == task.id and self._is_open(inner):
                    lines.append(f"- {self._cut_off(inner, place)}")
        finally:
            del shop.agent.runs[task.agent]
        if run.begun is not None:
            run.begun.observations = f"{CUT}, and the rest of it was not run.)"
            observer.finished(run.begun)
        report = shop.masker.text(_report(run, lines, sub))
        outcome = Outcome(
            State.INTERRUPTED,
            report,
            "it was cut off with its session",
            run.steps,
            run.seconds,
            run.usage + ledger.usage,
        )
        spent, unpriced = run.spent_usd + ledger.spent_usd, run.unpriced_calls + ledger.unpriced_calls
        above.observer.agent_ended(task, outcome, spent, unpriced)
        self._ended.add(task.id)
        return report

    def _ledger(self, place: Place) -> SpendLedger:
        """What pays for calls that were made from there."""
        return self.shop.agent.runs[place.path].ledger if place.path else self.shop.ledger

    # Calls.

    def _call(self, call: RestoredCall, place: Place) -> str:
        """Brings a call to its end and says how, for the model."""
        answer = self._answers.get(call.call_id)
        if call.state in ("done", "denied"):
            how = "failed" if call.failed else "returned"
            a_report = any(run.run.call_id == call.call_id for run in self._runs)  # whole, as where it is put together
            return f"- `{call.tool}` {how}: {call.result if a_report else _shown(call.result, place)}"
        asks_agent = place.router is not None and call.tool in place.router.agents
        if asks_agent and call.state == "unknown":  # the first row of a task comes before anything that it does
            return self._closed(call, place, InternError(f"`{call.tool}` had not begun"), denied=False)
        if call.may_have_run and not asks_agent:
            return self._find_out(call, place)
        if call.state == "asked":
            if answer is None:  # a person is there to be asked: the gate does it
                return self._ask_about(call, place, UNKNOWN) if _in_doubt(call) else self._carry_out(call, place, "")
            assert call.request is not None
            self.shop.agent.observer.approval_answered(call.request, answer, call.binding)
            return self._decided(call, place, answer) if _in_doubt(call) else self._answered(call, place, answer)
        if call.answer is not None:
            if _in_doubt(call):
                return self._decided(call, place, call.answer)
            return self._answered(call, place, call.answer)
        error = InternError(f"`{call.tool}` did not come back; it only reads")
        return self._closed(call, place, error, denied=False)

    def _decided(self, call: RestoredCall, place: Place, answer: ApprovalAnswer) -> str:
        """A person knows of a call whether it took effect, or says what is to be done."""
        who, happened = answer.by or "nobody", answer.decision != "approve"
        if call.happened is not happened:
            self.shop.journal.note("reconciled", callId=call.call_id, happened=happened, by=who)
        if answer.decision == "reject":  # no refusal of what the task wants
            what = f"`{call.tool}` was not called (again): {who} said to leave it as it is"
            return self._closed(call, place, Denied(what, answer.reason))
        return self._answered(call, place, answer)

    def _answered(self, call: RestoredCall, place: Place, answer: ApprovalAnswer) -> str:
        if answer.decision == "approve":
            self._give_rule(call, answer)
            return self._carry_out(call, place, call.binding, answer)
        if answer.decision == "edit":
            return self._carry_out(call, place, "", answer)
        if answer.decision == "reject" and call.tool in (QUESTION, GRANT) and call.effects == "read":
            return self._carry_out(call, place, call.binding, answer)  # no refusal: its tool says what was answered
        if answer.decision == "stop":
            self.shop.agent.stop_denied(answer.reason)
        who = answer.by or "the user"
        self.shop.agent.gate.unmet[call.tool] = answer.reason or f"{who} said no"
        return self._closed(call, place, Denied(f"`{call.tool}` was not called: {who} said no", answer.reason))

    def _find_out(self, call: RestoredCall, place: Place) -> str:
        """A call that may have taken effect: its service is asked, else a person."""
        if call.answer is not None:
            self._give_rule(call, call.answer)
        try:
            if place.router is None:
                raise InternError(f"`{place.path}`, which made this call, is not there any more")
            found = place.router.reconcile(call.call_id, call.tool, _arguments(call, call.answer))
        except Exception as error:  # noqa: BLE001 - a tool's own code, or a service that does not answer: a person decides
            return self._ask_about(call, place, f"{UNKNOWN} ({error})")
        self.shop.journal.note("reconciled", callId=call.call_id, happened=found is not None, by="the service")
        if found is None:
            return self._carry_out(call, place, call.binding, call.answer)
        cost = found.get("cost_usd") if isinstance(found, dict) else None
        cost = float(cost) if isinstance(cost, int | float) and cost >= 0 else None
        if cost:  # it was spent, and not counted
            self._ledger(place).correct(cost)
        result = ToolResultStep(call.call_id, call.tool, call.step, self.shop.masker.data(found), cost_usd=cost)
        place.router.remember(call.tool, call.arguments, result.result)
        self._fire(place, result)
        return f"- `{call.tool}` had taken effect: {_shown(str(result.result), place)}"

    def _ask_about(self, call: RestoredCall, place: Place, why: str) -> str:
        request = ApprovalRequest(
            call.call_id, call.tool, call.arguments, call.effects, why, files=call.files, agent=place.path
        )
        self.shop.agent.observer.approval_asked(request, call.binding)
        answer = (self.shop.agent.gate.ask or nobody)(request)
        self.shop.agent.observer.approval_answered(request, answer, call.binding)
        return self._decided(call, place, answer)

    def _give_rule(self, call: RestoredCall, answer: ApprovalAnswer) -> None:
        """A rule that came with an answer holds, wherever between the two the record broke off."""
        if answer.decision == "approve" and answer.scope != "once" and call.request is not None and call.request.rule:
            rule = Rule.parse(call.request.rule)
            if rule not in self.shop.agent.gate.policy.rules:
                self.shop.agent.gate.give(rule, answer.scope)

    def _carry_out(self, call: RestoredCall, place: Place, approved: str, answer: ApprovalAnswer | None = None) -> str:
        router = place.router
        if router is None or (call.tool not in router and call.tool not in router.agents):
            return self._closed(call, place, InternError(f"`{call.tool}` is not there any more"))
        arguments = _arguments(call, answer)
        try:
            result = router.carry_out(call.call_id, call.tool, arguments, approved, answer, call.step)
        except Exception as error:  # noqa: BLE001 - a tool's own code: what it raises is the model's to read
            return f"- `{call.tool}` failed: {error}"
        return f"- `{call.tool}`, carried out since, returned: {_shown(str(result), place)}"

    def _closed(self, call: RestoredCall, place: Place, error: InternError, denied: bool = True) -> str:
        """A call that comes to its end without having been made: what the record says of it, and the model reads."""
        self._fire(place, ToolResultStep(call.call_id, call.tool, call.step, error=error, denied=denied))
        return f"- `{call.tool}`: {error}"

    def _fire(self, place: Place, step: ToolResultStep) -> None:
        step.agent = place.path
        self.shop.agent.fire(step)


def _report(run: RestoredRun, lines: Sequence[str], sub: SubAgent | None) -> str:
    """What the agent above reads of a task that was cut off."""
    name, steps = run.run.agent.rpartition("/")[2], f"{run.steps} {'step' if run.steps == 1 else 'steps'}"
    parts = [
        f"`{name}` was cut off after {steps}, as its session stopped. It does not go on by itself: what is missing has to be "
        "asked of it anew."
    ]
    if type(sub) is CodeOutside:
        parts.append("Its code ran outside the jail: what it did there besides its calls is not on record.")
    if lines:
        left_out = len(lines) - MOST_CALLS
        parts.append("The calls that it made:" + (f" ({left_out} before these)" if left_out > 0 else ""))
        parts += lines[-MOST_CALLS:]
    else:
        parts.append("It had made no call.")
    if run.seen:
        parts.append(f"What it saw last:\n{run.seen[-LAST_SEEN:]}")
    return "\n".join(parts)


def _shown(text: str, place: Place) -> str:
    most = BRIEF if place.path else SHOWN
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most:,} characters more are on record)"


def _in_doubt(call: RestoredCall) -> bool:
    """Whether a person was asked last whether it took effect, not whether it may be made."""
    return call.request is not None and call.request.reason.startswith(UNKNOWN)


def _arguments(call: RestoredCall, answer: ApprovalAnswer | None) -> dict[str, Any]:
    """What was shown is what was answered, edits of before included."""
    arguments = dict(call.request.arguments if call.request else call.arguments)
    if answer is not None and answer.arguments is not None:
        arguments |= answer.arguments
    return arguments
