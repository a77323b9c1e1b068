"""The drop-in: everything that a `CodeAgent` does, in a jail, through the router. smolagents' own tests run in
`make conformance`; here is what they do not look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from smolagents import CodeAgent, FinalAnswerTool, LogLevel, Tool, ToolCallingAgent, tool
from smolagents.agents import ActionStep, AgentError, AgentGenerationError, PlanningStep, ToolCall

from ml_intern.agent import InternAgent
from ml_intern.approval import ApprovalPolicy
from ml_intern.budget import SpendLedger
from ml_intern.events import ApprovalAnswer, State
from ml_intern.secrets import Masker
from ml_intern.steps import ModelStep, Observer, ToolCallStep, ToolResultStep
from ml_intern.testing import ScriptedModel


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


@pytest.fixture
def make():
    made: list[InternAgent] = []

    def build(script: list[Any], tools: list[Any] | None = None, **options: Any) -> InternAgent:
        options = {
            "verbosity_level": LogLevel.OFF,
            "on_approval": lambda request: ApprovalAnswer("reject", "not asked for"),
            **options,
        }
        agent = InternAgent(tools or [], ScriptedModel(script), **options)
        made.append(agent)
        return agent

    yield build
    for agent in made:
        agent.cleanup()


def steps_of(agent: InternAgent) -> list[ActionStep]:
    return [step for step in agent.memory.steps if isinstance(step, ActionStep)]


@tool
def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: One.
        b: Other.
    """
    return a + b


def test_state_lasts_and_the_last_value_and_prints_are_seen(make) -> None:
    agent = make(
        [
            code("import math\nx = 20\nprint('hello')"),
            code("y = x + 1"),
            code("final_answer(add(x, y) + math.floor(1.5))"),
        ],
        [add],
    )
    assert agent.run("Go.") == 42
    first, second, _ = steps_of(agent)
    assert "hello" in first.observations
    assert second.observations.endswith("21")
    assert agent.ending.state is State.SUCCESS


def test_code_runs_outside_this_process(make) -> None:
    agent = make([code("import os\nfinal_answer(os.getpid())")])
    import os

    assert agent.run("Go.") != os.getpid()


def test_errors_carry_the_agents_own_lines(make) -> None:
    agent = make([code("a = 1\nb = 0\na / b"), code("final_answer('recovered')")])
    assert agent.run("Go.") == "recovered"
    error = str(steps_of(agent)[0].error)
    assert "a / b" in error and "line 3" in error and "ZeroDivisionError" in error
    assert "worker.py" not in error


def test_callbacks_hear_of_calls_inside_a_code_action_before_and_after_them(make) -> None:
    heard: list[tuple] = []
    callbacks = {
        ModelStep: lambda step: heard.append(("answer", step.code)),
        ToolCallStep: lambda step: heard.append(("call", step.tool, step.arguments)),
        ToolResultStep: lambda step: heard.append(("result", step.result)),
    }
    agent = make([code("s = add(1, 2)\nt = add(a=s, b=10)\nfinal_answer(t)")], [add], step_callbacks=callbacks)
    assert agent.run("Go.") == 13
    assert [entry[:2] for entry in heard][:1] == [("answer", "s = add(1, 2)\nt = add(a=s, b=10)\nfinal_answer(t)")]
    assert heard[1:5] == [
        ("call", "add", {"a": 1, "b": 2}), ("result", 3), ("call", "add", {"a": 3, "b": 10}), ("result", 13)
    ]  # fmt: skip


def test_a_callback_that_raises_stops_the_call_and_the_code_sees_why(make) -> None:
    def refuse(step: ToolCallStep) -> None:
        if step.tool == "add":
            raise PermissionError("adding is not allowed today")

    agent = make(
        [code("try:\n    add(1, 2)\nexcept PermissionError as e:\n    final_answer(str(e))")],
        [add],
        step_callbacks={ToolCallStep: refuse},
    )
    assert "not allowed today" in agent.run("Go.")


class Publish(Tool):
    name, description, output_type, effects = "publish", "Publishes.", "string", "write"
    inputs = {"what": {"type": "string", "description": "What."}}
    published: list = []

    def forward(self, what: str) -> str:
        self.published.append(what)
        return f"published {what}"


@pytest.mark.parametrize(("decision", "published"), [("approve", ["x"]), ("reject", []), ("stop", [])])
def test_a_writing_tool_asks_first(make, decision: str, published: list) -> None:
    publish = Publish()
    publish.published = []
    script = [code("print(publish('x'))")] + [code("final_answer('done')")] * (decision != "stop")
    agent = make(script, [publish], on_approval=lambda request: ApprovalAnswer(decision, "because", "me"))
    answer = agent.run("Go.")
    assert publish.published == published
    if decision == "stop":
        assert answer is None and agent.ending.state is State.DENIED
    else:
        assert answer == "done"
        if decision == "reject":
            assert "because" in str(steps_of(agent)[0].error)


def test_a_tool_that_says_nothing_of_itself_is_vouched_for_by_who_passed_it_in(make) -> None:
    assert make([code("final_answer(add(1, 1))")], [add]).run("Go.") == 2
    strict = make(
        [code("final_answer(add(1, 1))"), code("final_answer('refused')")],
        [add],
        policy=ApprovalPolicy(trust_vouched=False),
    )
    assert strict.run("Go.") == "refused"


def test_the_limit_of_steps_is_a_state_and_no_success(make) -> None:
    agent = make([code("1"), code("2"), "what I have so far"], max_steps=2)
    result = agent.run("Go.", return_full_result=True)
    assert result.output == "what I have so far"
    assert result.state == "max_steps_error" and agent.ending.state is State.MAX_STEPS


def test_money_that_is_used_up_ends_the_run_with_a_last_word(make) -> None:
    class Priced(ScriptedModel):
        def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
            return 0.6

    agent = InternAgent(
        [],
        Priced([code("1"), code("2"), "the last word"]),
        verbosity_level=LogLevel.OFF,
        ledger=SpendLedger(budget_usd=2.0),
    )
    assert agent.run("Go.") == "the last word"
    assert agent.ending.state is State.BUDGET and "$1.20 of $2.00" in agent.ending.reason
    assert agent.ledger.spent_usd == pytest.approx(1.8), "the last word was paid from what had been kept for it"
    assert len(steps_of(agent)) == 3
    agent.cleanup()


def test_a_model_that_fails_ends_the_run_and_memory_survives(make) -> None:
    agent = make([code("kept = 7"), RuntimeError("503 from the provider"), code("final_answer(kept)")])
    with pytest.raises(AgentGenerationError, match="503"):
        agent.run("Go.")
    assert agent.ending.state is State.ERROR
    assert agent.run("Go on.", reset=False) == 7


def test_interrupting_from_a_callback_ends_the_run_before_the_next_step(make) -> None:
    def interrupt(step: ActionStep, agent: InternAgent) -> None:
        agent.interrupt()

    agent = make([code("1")], step_callbacks=[interrupt])
    with pytest.raises(AgentError, match="Agent interrupted"):
        agent.run("Go.")
    assert agent.ending.state is State.INTERRUPTED


def test_streaming_yields_calls_steps_and_the_answer(make) -> None:
    agent = make([code("x = 1"), code("final_answer(x)")], planning_interval=None)
    kinds = [type(item).__name__ for item in agent.run("Go.", stream=True)]
    assert kinds.count("ToolCall") == 2 and kinds.count("TrackedActionStep") == 2
    assert kinds[-1] == "FinalAnswerStep"


def test_a_stream_that_is_left_early_leaves_no_error_behind(make) -> None:
    agent = make([code("x = 1"), code("final_answer(x)")])
    stream = agent.run("Go.", stream=True)
    assert isinstance(next(stream), ToolCall)
    stream.close()


def test_planning_images_and_additional_arguments_reach_the_model_and_the_code(make) -> None:
    image = PIL.Image.new("RGB", (4, 3), "red")
    agent = make(["the plan", code("final_answer((table['a'], picture.size, n))")], planning_interval=5)
    answer = agent.run("Go.", images=[image], additional_args={"table": {"a": 1}, "picture": image, "n": 5})
    assert answer == (1, (4, 3), 5)
    assert any(isinstance(step, PlanningStep) for step in agent.memory.steps)
    assert any(part.get("type") == "image" for message in agent.model.requests[1] for part in message.content)


def test_figures_are_shown_as_images(make) -> None:
    pytest.importorskip("matplotlib")
    agent = make([code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"), code("final_answer(1)")])
    agent.run("Go.")
    first, second = steps_of(agent)
    assert len(first.observations_images) == 1 and first.observations_images[0].width > 100
    assert not second.observations_images


def test_final_answer_checks_send_the_model_back(make) -> None:
    def is_big(answer: int, memory: Any, agent: Any) -> bool:
        return answer > 10

    agent = make([code("final_answer(1)"), code("final_answer(11)")], final_answer_checks=[is_big])
    assert agent.run("Go.") == 11
    assert "is_big" in str(steps_of(agent)[0].error)


def test_a_final_answer_that_came_from_the_host_stays_the_same_object(make) -> None:
    thing = object()

    @tool
    def fetch() -> Any:
        """Fetches."""
        return thing

    assert make([code("t = fetch()\nfinal_answer(t)")], [fetch]).run("Go.") is thing


def test_as_a_managed_agent_and_with_managed_agents_of_any_kind(make) -> None:
    inner = make([code("final_answer(add(20, 1))")], [add], name="adder", description="Adds things.")
    other = ToolCallingAgent([add], ScriptedModel([]), name="idle", description="Does nothing.")
    outer = CodeAgent(
        [],
        ScriptedModel([code("print(adder('add 20 and 1'))\nfinal_answer('done')")]),
        managed_agents=[inner],
        verbosity_level=LogLevel.OFF,
    )
    assert outer.run("Go.") == "done"
    assert "21" in steps_of(outer)[0].observations

    inner = make([code("final_answer(add(20, 2))")], [add], name="adder", description="Adds things.")
    heard: list[str] = []
    outer = make(
        [code("final_answer(adder('add 20 and 2'))")],
        managed_agents=[inner, other],
        step_callbacks={ToolCallStep: lambda step: heard.append(step.tool)},
    )
    assert "22" in outer.run("Go.")
    assert heard == ["adder", "add", "final_answer", "final_answer"], (
        "a managed agent's calls go through the same gate"
    )


def test_a_managed_plain_code_agent_cannot_publish_behind_the_gate(make) -> None:
    publish = Publish()
    publish.published = []
    inner = CodeAgent(
        [publish],
        ScriptedModel([code("publish('x')"), code("final_answer('gave up')")]),
        name="helper",
        description="Helps.",
        verbosity_level=LogLevel.OFF,
    )
    outer = make([code("final_answer(helper('publish it'))")], managed_agents=[inner])
    outer.run("Go.")
    assert publish.published == []


def test_saved_and_loaded_again(make, tmp_path: Path) -> None:
    class Shout(Tool):
        name, description, output_type = "shout", "Shouts.", "string"
        inputs = {"text": {"type": "string", "description": "What."}}

        def forward(self, text: str) -> str:
            return text.upper()

    from smolagents.models import MODEL_REGISTRY

    class Kept(ScriptedModel):
        def to_dict(self) -> dict:
            return {"script": [code("final_answer(shout('hi'))")]}

    MODEL_REGISTRY["Kept"] = Kept
    agent = InternAgent(
        [Shout()], Kept([]), max_steps=7, name="shouter", description="Shouts.", verbosity_level=LogLevel.OFF
    )
    agent.save(tmp_path)
    app = (tmp_path / "app.py").read_text()
    assert "from ml_intern import InternAgent" in app
    compile(app, "app.py", "exec")
    loaded = InternAgent.from_folder(tmp_path, verbosity_level=LogLevel.OFF)
    assert type(loaded) is InternAgent and loaded.max_steps == 7 and loaded.name == "shouter"
    assert loaded.run("Go.") == "HI"
    loaded.cleanup()


@pytest.mark.parametrize("kind", ["docker", "modal", "blaxel"])
def test_executors_that_copy_tools_out_of_reach_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="out of reach of approvals"):
        InternAgent([], ScriptedModel([]), executor_type=kind)


def test_any_executor_can_be_passed_in(make) -> None:
    from smolagents import LocalPythonExecutor

    agent = make([code("import random\nfinal_answer(add(1, 2))")], [add], executor=LocalPythonExecutor([]))
    assert agent.run("Go.") == 3


def test_no_secret_reaches_the_model_by_way_of_output_errors_or_results(make) -> None:
    masker = Masker({"very-secret-value": "MY_TOKEN"})

    @tool
    def peek() -> str:
        """Peeks."""
        return "it is very-secret-value"

    script = [
        code("s = peek()\nprint(s)"),
        code("print('very-' + 'secret-value')"),
        code("raise ValueError('very-secret' + '-value')"),
        code("final_answer(s)"),
    ]
    agent = make(script, [peek], masker=masker)
    assert agent.run("Go.") == "it is [secret:MY_TOKEN]"
    assert "very-secret-value" not in str(
        [[message.content for message in request] for request in agent.model.requests]
    )


def test_observers_are_told_of_a_whole_step_in_order(make) -> None:
    told: list[str] = []

    class Ear(Observer):
        def task(self, step, variables):
            told.append(f"task {variables}")

        def started(self, step):
            told.append("started")

        def answered(self, step):
            told.append("answered")

        def calling(self, step):
            told.append(f"calling {step.tool}")

        def called(self, step):
            told.append("called")

        def finished(self, step):
            told.append("finished")

    make([code("final_answer(add(n, 1))")], [add, FinalAnswerTool()], observers=[Ear()]).run(
        "Go.", additional_args={"n": 1}
    )
    assert told == [
        "task ['n']",
        "started",
        "answered",
        "calling add",
        "called",
        "calling final_answer",
        "called",
        "finished",
    ]


def test_memory_keeps_no_copies_of_the_prompt(make) -> None:
    agent = make([code("1"), code("final_answer(1)")])
    agent.run("Go.")
    assert [step.model_input_messages for step in steps_of(agent)] == [None, None]
