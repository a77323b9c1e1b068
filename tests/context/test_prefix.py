"""What was sent stays sent: over the demo's record, and the watch itself, which has to notice when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conversations import TaskStep, action, text_of
from prefix import PrefixWatch
from smolagents import LogLevel
from smolagents.memory import AgentMemory

from ml_intern.agent import InternAgent
from ml_intern.context import ContextManager
from ml_intern.testing import ScriptedModel, recordings
from ml_intern.testing.recording import read_turns


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


def test_over_the_demo_every_request_begins_with_the_one_before_it() -> None:
    turns = read_turns(Path(recordings.__path__[0]) / "demo.jsonl")
    context, memory, last = ContextManager(), AgentMemory("system " * 500), ""
    memory.steps = [TaskStep("the demo's task")]
    for number, turn in enumerate(turns, 1):
        memory.steps.append(action(number, turn.text, turn.observation))
        context.make_room(memory, None)
        sent = text_of(context.render(memory))
        assert sent.startswith(last)
        last = sent
    assert len(turns) > 5 and turns[-2].text[:40] in last


def run(script: list[Any], **options: Any) -> InternAgent:
    agent = InternAgent([], ScriptedModel(script), verbosity_level=LogLevel.OFF, **options)
    agent.run("Go.")
    agent.cleanup()
    return agent


@pytest.mark.moves_cache_prefix(reason="what the watch is for")
def test_the_watch_notices_a_step_that_is_edited_after_it_was_sent(prefix_holds: PrefixWatch) -> None:
    def edit(step: Any, agent: InternAgent) -> None:
        if len(agent.memory.steps) > 1:
            agent.memory.steps[1].observations = "edited"

    run([code("print(1)"), code("print(2)"), code("final_answer(3)")], step_callbacks=[edit])
    assert len(prefix_holds.problems) == 1 and "is not what was sent before" in prefix_holds.problems[0]


@pytest.mark.moves_cache_prefix(reason="what the watch is for")
def test_the_watch_notices_a_message_that_is_changed_in_place(prefix_holds: PrefixWatch) -> None:
    def edit(step: Any, agent: InternAgent) -> None:
        agent.model.requests[-1][1].content[0]["text"] += " at 12:00:03"  # a clock, say

    run([code("print(1)"), code("final_answer(3)")], step_callbacks=[edit])
    assert len(prefix_holds.problems) == 1 and "changed in place" in prefix_holds.problems[0]


def test_what_may_move_it_may(prefix_holds: PrefixWatch) -> None:
    def switch(step: Any, agent: InternAgent) -> None:
        if step.step_number == 4:
            agent.compact()

    plan = "the plan"
    script = [plan, code("print('x' * 900)"), code("print(2)"), plan, code("print(3)"), code("print(4)"), "notes", plan, code("final_answer(5)")]  # fmt: skip
    run(script, step_callbacks=[switch], planning_interval=2)
    again = run([code("final_answer(1)"), code("final_answer(2)")])
    again.run("Another conversation.")
    assert prefix_holds.requests >= 7 and prefix_holds.problems == []
