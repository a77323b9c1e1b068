"""Going on from a trace: what it knows becomes an agent's again, and the action that was running is brought to an end.

What must never happen here: a call that may have taken effect is made again before its service or a person said that it
did not; an action is entered half-way; the model is left to believe that code ran which did not.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import Any

from smolagents.memory import ActionStep

from .approval import Rule, nobody
from .asides import CAUSES
from .errors import Denied, InternError
from .events import ApprovalAnswer, ApprovalRequest, State
from .steps import ToolResultStep
from .supervision import Ending
from .trace import OpenAction, Restored, RestoredCall
from .trace.actions import CUT
from .workshop import Workshop

UNKNOWN = (
    "the session was cut off during this call, and it is not known whether it took effect. Look there first; approve to "
    "make the call (again), reject to leave it"
)
SHOWN = 1_500
"""Characters of a call's result that stand in what the model reads of an action that was cut off."""


def take_up(shop: Workshop, restored: Restored) -> None:
    """Gives a new workshop what its trace knows: memory, budget, what came from outside."""
    agent = shop.agent
    agent.memory.steps = list(restored.steps)
    agent.task = restored.task
    agent.step_number = restored.next_step
    shop.written_by = restored.model
    beyond = (restored.max_steps or 0) - agent.max_steps
    if beyond > 0:  # what a person gave the turn in addition
        agent.budget.extend(beyond)
    shop.ledger.take_up(
        restored.budget_usd,
        restored.max_hours,
        restored.usage,
        restored.spent_usd,
        restored.unpriced_calls,
        restored.seconds + restored.open_seconds,
    )
    for seen in restored.seen:
        agent.router.remember(seen.tool, seen.arguments, seen.text)
    if restored.open:
        agent.gate.unmet |= restored.refused
    if restored.half:
        shop.recorder.half(restored.half, restored.steps[-1] if restored.steps else None)


def is_over(shop: Workshop) -> bool:
    """Whether all of a turn is on record but its end: how it ended is the agent's ending then, its last step has the answer."""
    agent, step = shop.agent, shop.agent.memory.steps[-1] if shop.agent.memory.steps else None
    if not isinstance(step, ActionStep):
        return False
    if step.is_final_answer:
        agent.ending = Ending(State.SUCCESS)
    elif step.model_output is None and step.action_output is not None and step.error is not None:  # the last word
        cause, _, reason = step.error.message.partition(": ")
        known = next((state for state, said in CAUSES.items() if said == cause), None)
        reason = reason.removesuffix(".") if known else f"{step.step_number - 1} steps"
        agent.ending, agent.step_number = Ending(known or State.MAX_STEPS, reason), step.step_number
    return agent.ending is not None


def finish_open(shop: Workshop, action: OpenAction, answers: Mapping[str, ApprovalAnswer]) -> None:
    """Ends the action that was running when the session gave up its jail or lost it: the rest of its code never runs.

    Args:
        answers (`Mapping[str, ApprovalAnswer]`): What was said meanwhile to questions that were open, by call.
    """
    started = time.time()
    said = [_settle(shop, call, answers.get(call.call_id)) for call in action.calls]
    step = action.step
    lines = [
        f"{CUT}, and goes on after it. The code is not run again, and what it printed "
        "is lost. Files that it wrote are there; variables come back as the last code left them that came to its end.)"
    ]
    if said:
        lines += ["The calls that it made:", *said]
    step.observations = "\n".join(lines)
    step.timing.start_time, step.timing.end_time = started, time.time()
    shop.recorder.goes_on(action.tool_use_id)
    shop.agent.take_in(step)


def sweep(shop: Workshop) -> None:
    """Copies of what calls were to send, which nobody waits for any more."""
    shutil.rmtree(shop.folder / "frozen", ignore_errors=True)


def _settle(shop: Workshop, call: RestoredCall, answer: ApprovalAnswer | None) -> str:
    """Brings a call to its end and says how, for the model."""
    if call.state in ("done", "denied"):
        how = "failed" if call.failed else "returned"
        return f"- `{call.tool}` {how}: {call.result[:SHOWN]}"
    if call.may_have_run:
        return _find_out(shop, call)
    if call.state == "asked":
        if answer is None:  # a person is there to be asked: the gate does it
            return _ask_about(shop, call, UNKNOWN) if _in_doubt(call) else _carry_out(shop, call, "")
        assert call.request is not None
        shop.agent.observer.approval_answered(call.request, answer, call.binding)
        return _decided(shop, call, answer) if _in_doubt(call) else _answered(shop, call, answer)
    if call.answer is not None:
        return _decided(shop, call, call.answer) if _in_doubt(call) else _answered(shop, call, call.answer)
    return _closed(shop, call, InternError(f"`{call.tool}` did not come back; it only reads"), denied=False)


def _in_doubt(call: RestoredCall) -> bool:
    """Whether a person was asked last whether it took effect, not whether it may be made."""
    return call.request is not None and call.request.reason.startswith(UNKNOWN)


def _decided(shop: Workshop, call: RestoredCall, answer: ApprovalAnswer) -> str:
    """A person knows of a call whether it took effect, or says what is to be done."""
    who, happened = answer.by or "nobody", answer.decision != "approve"
    if call.happened is not happened:
        shop.journal.note("reconciled", callId=call.call_id, happened=happened, by=who)
    if answer.decision == "reject":  # no refusal of what the task wants
        what = f"`{call.tool}` was not called (again): {who} said to leave it as it is"
        return _closed(shop, call, Denied(what, answer.reason))
    return _answered(shop, call, answer)


def _answered(shop: Workshop, call: RestoredCall, answer: ApprovalAnswer) -> str:
    if answer.decision == "approve":
        _give_rule(shop, call, answer)
        return _carry_out(shop, call, call.binding, answer)
    if answer.decision == "edit":
        return _carry_out(shop, call, "", answer)
    if answer.decision == "stop":
        shop.agent.stop_denied(answer.reason)
    who = answer.by or "the user"
    shop.agent.gate.unmet[call.tool] = answer.reason or f"{who} said no"
    return _closed(shop, call, Denied(f"`{call.tool}` was not called: {who} said no", answer.reason))


def _find_out(shop: Workshop, call: RestoredCall) -> str:
    """A call that may have taken effect: its service is asked, else a person."""
    if call.answer is not None:
        _give_rule(shop, call, call.answer)
    try:
        found = shop.agent.router.reconcile(call.call_id, call.tool, _arguments(call, call.answer))
    except Exception as error:  # noqa: BLE001 - a tool's own code, or a service that does not answer: a person decides
        return _ask_about(shop, call, f"{UNKNOWN} ({error})")
    shop.journal.note("reconciled", callId=call.call_id, happened=found is not None, by="the service")
    if found is None:
        return _carry_out(shop, call, call.binding, call.answer)
    result = ToolResultStep(call.call_id, call.tool, call.step, shop.masker.data(found))
    shop.agent.fire(result)
    return f"- `{call.tool}` had taken effect: {str(result.result)[:SHOWN]}"


def _ask_about(shop: Workshop, call: RestoredCall, why: str) -> str:
    request = ApprovalRequest(call.call_id, call.tool, call.arguments, call.effects, why, files=call.files)
    shop.agent.observer.approval_asked(request, call.binding)
    answer = (shop.agent.gate.ask or nobody)(request)
    shop.agent.observer.approval_answered(request, answer, call.binding)
    return _decided(shop, call, answer)


def _give_rule(shop: Workshop, call: RestoredCall, answer: ApprovalAnswer) -> None:
    """A rule that came with an answer holds, wherever between the two the record broke off."""
    if answer.decision == "approve" and answer.scope != "once" and call.request is not None and call.request.rule:
        rule = Rule.parse(call.request.rule)
        if rule not in shop.agent.gate.policy.rules:
            shop.agent.gate.give(rule, answer.scope)


def _arguments(call: RestoredCall, answer: ApprovalAnswer | None) -> dict[str, Any]:
    """What was shown is what was answered, edits of before included."""
    arguments = dict(call.request.arguments if call.request else call.arguments)
    if answer is not None and answer.arguments is not None:
        arguments |= answer.arguments
    return arguments


def _carry_out(shop: Workshop, call: RestoredCall, approved: str, answer: ApprovalAnswer | None = None) -> str:
    if call.tool not in shop.agent.router:
        return _closed(shop, call, InternError(f"`{call.tool}` is not there any more"))
    arguments = _arguments(call, answer)
    try:
        result = shop.agent.router.carry_out(call.call_id, call.tool, arguments, approved, answer, call.step)
    except Exception as error:  # noqa: BLE001 - a tool's own code: what it raises is the model's to read
        return f"- `{call.tool}` failed: {error}"
    return f"- `{call.tool}`, carried out since, returned: {str(result)[:SHOWN]}"


def _closed(shop: Workshop, call: RestoredCall, error: InternError, denied: bool = True) -> str:
    """A call that comes to its end without having been made: what the record says of it, and the model reads."""
    shop.agent.fire(ToolResultStep(call.call_id, call.tool, call.step, error=error, denied=denied))
    return f"- `{call.tool}`: {error}"


def rules_of(restored: Restored) -> tuple[Rule, ...]:
    """Rules that a person gave in this session; one that cannot be read any more counts for nothing."""
    found = []
    for text, _ in restored.rules:
        try:
            found.append(Rule.parse(text))
        except InternError:
            continue
    return tuple(found)
