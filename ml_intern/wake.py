"""Going on from a trace: what it knows becomes an agent's again, and the action that was running is brought to an end.

What must never happen here: an action is entered half-way; the model is left to believe that code ran which did not; what
was said to it is lost, or said twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping

from smolagents.memory import ActionStep

from .approval import Rule
from .asides import CAUSES
from .errors import InternError
from .events import ApprovalAnswer, State
from .settling import Settling
from .steps import GUARD, SteerStep
from .supervision import Ending
from .trace import Restored
from .trace.actions import CUT
from .workshop import Workshop


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
    for step in restored.unread:
        agent.supervisor.steer(step)
    agent.watch.told = restored.told
    shop.jobs.look_after()
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


def finish_open(shop: Workshop, restored: Restored, answers: Mapping[str, ApprovalAnswer]) -> None:
    """Ends the action that was running when the session gave up its jail or lost it: the rest of its code never runs.

    Args:
        answers (`Mapping[str, ApprovalAnswer]`): What was said meanwhile to questions that were open, by call.
    """
    started, action = time.time(), restored.action
    settling = Settling(shop, answers, restored.runs)
    said = settling.calls(action.calls, settling.own) if action is not None else []
    said += settling.strays()
    if action is None:
        if said:  # of code that had come to its end before those that it asked
            lead = (
                "Sub-agents were still at work when the session stopped. Their words, and not what this program says:"
            )
            words = "\n".join([lead, *said])
            shop.hear(SteerStep(words, "session", GUARD))
        return
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


def rules_of(restored: Restored) -> tuple[Rule, ...]:
    """Rules that a person gave in this session; one that cannot be read any more counts for nothing."""
    found = []
    for text, _ in restored.rules:
        try:
            found.append(Rule.parse(text))
        except InternError:
            continue
    return tuple(found)
