"""Copies of agents that a caller passes in: one a session, that share nothing which one of them changes."""

from __future__ import annotations

import pytest
from smolagents import CodeAgent, LogLevel, ToolCallingAgent, tool
from smolagents.memory import ActionStep

from ml_intern import InternError
from ml_intern.colleagues import copied, makers_of, unique
from ml_intern.execution import JailExecutor
from ml_intern.models import ChainModel, EndpointModel
from ml_intern.testing import ScriptedModel

NAMED = {"name": "helper", "description": "Helps.", "verbosity_level": LogLevel.OFF}


@tool
def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: One.
        b: Other.
    """
    return a + b


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


def test_a_copy_works_and_leaves_the_original_as_it_was() -> None:
    seen: list[int] = []
    low = ToolCallingAgent([add], ScriptedModel([]), name="low", description="Low.", verbosity_level=LogLevel.OFF)
    agent = CodeAgent(
        [add], ScriptedModel([code("kept = add(1, 2)"), code("final_answer(kept)")] * 2), managed_agents=[low],
        step_callbacks=[lambda step: seen.append(step.step_number)], **NAMED,
    )  # fmt: skip
    one, other = copied(agent), copied(agent)
    assert one.run("Go.") == 3 and seen == [1, 2]
    assert len([step for step in one.memory.steps if isinstance(step, ActionStep)]) == 2
    assert agent.memory.steps == other.memory.steps == [] and "kept" not in agent.python_executor.state
    assert one.monitor.get_total_token_counts().input_tokens > 0
    assert (
        agent.monitor.get_total_token_counts().input_tokens == other.monitor.get_total_token_counts().input_tokens == 0
    )
    assert one.managed_agents["low"] is not other.managed_agents["low"] is not low
    assert one.tools["add"] is add and one.tools is not agent.tools
    assert (one.name, one.description, one.managed_agents["low"].inputs) == ("helper", "Helps.", low.inputs)


@pytest.mark.parametrize("chain", [False, True])
def test_stopping_one_copys_model_stops_no_other_ones(chain: bool) -> None:
    model = EndpointModel("openai/a", "http://127.0.0.1:9/v1", "none")
    model = ChainModel([model, EndpointModel("openai/b", "http://127.0.0.1:9/v1", "none")]) if chain else model
    agent = ToolCallingAgent([add], model, **NAMED)
    one, other = copied(agent).model, copied(agent).model
    one.cancelled.set()
    assert not other.cancelled.is_set() and not model.cancelled.is_set()
    assert (one.model_id, one.name) == (model.model_id, model.name)
    if chain:
        assert all(link.cancelled is one.cancelled for link in one.models)
        assert all(link.cancelled is model.cancelled for link in model.models)


def test_what_runs_its_code_elsewhere_is_made_by_a_function() -> None:
    executor = JailExecutor()
    with pytest.raises(InternError, match="runs its code in JailExecutor"):
        makers_of([CodeAgent([], ScriptedModel([]), executor=executor, **NAMED)])
    (make,) = makers_of([lambda: CodeAgent([], ScriptedModel([]), executor=executor, **NAMED)])
    assert make().python_executor is executor
    (wrong,) = makers_of([lambda: "helper"])
    with pytest.raises(InternError, match="gave a str"):
        wrong()


def test_names_are_told_apart() -> None:
    agent = ToolCallingAgent([], ScriptedModel([]), **NAMED)
    unique([agent], [add])
    with pytest.raises(InternError, match="Two of the agents and tools are called helper"):
        unique([agent, agent], [add])
