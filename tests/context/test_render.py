from __future__ import annotations

import random

from smolagents.memory import ActionStep, AgentMemory, TaskStep, ToolCall
from smolagents.monitoring import Timing

from ml_intern.context import Renderer as ContextRenderer
from ml_intern.context.decide import Limits
from ml_intern.context.render import step_messages
from ml_intern.steps import TrackedActionStep


def Renderer() -> ContextRenderer:
    return ContextRenderer(Limits.of(170_000), lambda text: "artifact:0123456789abcdef")


def action(number: int, kind: type[ActionStep] = TrackedActionStep) -> ActionStep:
    step = kind(step_number=number, timing=Timing(0.0, 1.0))
    step.model_output = f"thought {number}\n<code>\nprint({number})\n</code>"
    step.code_action = f"print({number})"
    step.tool_calls = [ToolCall("python_interpreter", step.code_action, f"call_{number}")]
    step.observations = f"seen {number}"
    return step


def fresh(memory: AgentMemory) -> list:
    return [*memory.system_prompt.to_messages(), *(m for step in memory.steps for m in step_messages(step))]


def test_code_is_sent_once() -> None:
    memory = AgentMemory("system")
    memory.steps = [TaskStep("task"), action(1)]
    text = str([message.content for message in Renderer().render(memory)])
    assert text.count("print(1)") == 1
    assert "seen 1" in text


def test_an_unchanged_step_is_the_very_same_message_in_the_next_request() -> None:
    memory, renderer = AgentMemory("system"), Renderer()
    memory.steps = [TaskStep("task"), action(1)]
    first = renderer.render(memory)
    memory.steps.append(action(2))
    second = renderer.render(memory)
    assert len(second) > len(first)
    assert all(new is old for new, old in zip(second, first, strict=False))


def test_a_step_that_a_callback_edits_is_rendered_anew() -> None:
    memory, renderer = AgentMemory("system"), Renderer()
    memory.steps = [TaskStep("task"), action(1), action(2), action(3)]
    renderer.render(memory)
    memory.steps[2].observations = "shortened"
    rendered = renderer.render(memory)
    assert "shortened" in str(rendered) and "seen 2" not in str(rendered)
    assert rendered == fresh(memory)


def test_rendering_is_what_a_fresh_rendering_would_be_whatever_happened_to_the_memory() -> None:
    rng = random.Random(7)
    memory, renderer = AgentMemory("system"), Renderer()
    for turn in range(400):
        match rng.randrange(7):
            case 0 if memory.steps:
                del memory.steps[rng.randrange(len(memory.steps)) :]
            case 1 if memory.steps:
                step = rng.choice(memory.steps)
                if isinstance(step, TrackedActionStep):
                    step.observations = f"edited in turn {turn}"
            case 2:
                memory.steps.insert(rng.randrange(len(memory.steps) + 1), TaskStep(f"task {turn}"))
            case 3 if rng.random() < 0.2:
                memory.system_prompt = type(memory.system_prompt)(f"system {turn}")
            case 4:
                memory.steps.append(action(turn, ActionStep))
            case _:
                memory.steps.append(action(turn))
        assert renderer.render(memory) == fresh(memory)


def test_a_rendered_list_is_the_callers_own() -> None:
    memory, renderer = AgentMemory("system"), Renderer()
    memory.steps = [TaskStep("task")]
    renderer.render(memory).clear()
    assert len(renderer.render(memory)) == 2
