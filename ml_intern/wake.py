"""Going on from a trace: what it knows becomes an agent's again, and the action that was running is brought to an end.

What must never happen here: a call that may have taken effect is made again before its service or a person said that it
did not; an action is entered half-way; the model is left to believe that code ran which did not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from .approval import Rule, nobody
from .errors import Denied, InternError
from .events import ApprovalAnswer, ApprovalRequest
from .steps import ToolResultStep
from .trace import OpenAction, Restored, RestoredCall
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


def finish_open(shop: Workshop, action: OpenAction, answers: Mapping[str, ApprovalAnswer]) -> None:
    """Ends the action that was running when the session gave up its jail or lost it: the rest of its code never runs.

    Args:
        answers (`Mapping[str, ApprovalAnswer]`): What was said meanwhile to questions that were open, by call.
    """
    started = time.time()
    said = [_settle(shop, call, answers.get(call.call_id)) for call in action.calls]
    step = action.step
    lines = [
        "(The session was interrupted while this code ran, and goes on after it. The code is not run again, and what it printed "
        "is lost. Files that it wrote are there; variables come back from the last snapshot before it.)"
    ]
    if said:
        lines += ["The calls that it made:", *said]
    step.observations = "\n".join(lines)
    step.timing.start_time, step.timing.end_time = started, time.time()
    shop.recorder.goes_on(action.tool_use_id)
    shop.agent.take_in(step)


def _settle(shop: Workshop, call: RestoredCall, answer: ApprovalAnswer | None) -> str:
    """Brings a call to its end and says how, for the model."""
    if call.state in ("done", "denied"):
        how = "failed" if call.failed else "returned"
        return f"- `{call.tool}` {how}: {call.result[:SHOWN]}"
    if call.may_have_run:
        return _find_out(shop, call)
    if call.state == "asked":
        if answer is None:  # a person is there to be asked: the gate does it
            return _carry_out(shop, call, "")
        assert call.request is not None
        shop.agent.observer.approval_answered(call.request, answer, call.binding)
        return _answered(shop, call, answer)
    if call.answer is not None and call.answer.decision != "approve":
        return _answered(shop, call, call.answer)
    return f"- `{call.tool}` did not come back; it only reads."


def _answered(shop: Workshop, call: RestoredCall, answer: ApprovalAnswer) -> str:
    if answer.decision == "approve":
        if answer.scope != "once" and call.request is not None and call.request.rule:
            shop.agent.gate.give(Rule.parse(call.request.rule), answer.scope)
        return _carry_out(shop, call, call.binding, answer)
    if answer.decision == "edit":
        return _carry_out(shop, call, "", answer)
    if answer.decision == "stop":
        shop.agent.stop_denied(answer.reason)
    who = answer.by or "the user"
    shop.agent.gate.unmet[call.tool] = answer.reason or f"{who} said no"
    return _refused(shop, call, Denied(f"`{call.tool}` was not called: {who} said no", answer.reason))


def _find_out(shop: Workshop, call: RestoredCall) -> str:
    """A call that may have taken effect: its service is asked, else a person."""
    try:
        found = shop.agent.router.reconcile(call.call_id, call.tool, call.arguments)
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
    happened = answer.decision != "approve"
    shop.journal.note("reconciled", callId=call.call_id, happened=happened, by=answer.by or "nobody")
    return _answered(shop, call, answer)


def _carry_out(shop: Workshop, call: RestoredCall, approved: str, answer: ApprovalAnswer | None = None) -> str:
    # What was shown is what was answered, edits of before included.
    arguments = dict(call.request.arguments if call.request else call.arguments)
    if answer is not None and answer.arguments is not None:
        arguments |= answer.arguments
    try:
        result = shop.agent.router.carry_out(call.call_id, call.tool, arguments, approved, answer, call.step)
    except Exception as error:  # noqa: BLE001 - a tool's own code: what it raises is the model's to read
        return f"- `{call.tool}` failed: {error}"
    return f"- `{call.tool}`, carried out since, returned: {str(result)[:SHOWN]}"


def _refused(shop: Workshop, call: RestoredCall, error: Denied) -> str:
    shop.agent.fire(ToolResultStep(call.call_id, call.tool, call.step, error=error, denied=True))
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
