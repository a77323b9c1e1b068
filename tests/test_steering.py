"""Words to an agent that works, more steps for it, and going on without a new task.

What must never happen: what was said is lost, said twice, or moves what was sent before.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from smolagents import LogLevel
from smolagents.agents import ActionStep, AgentError, AgentGenerationError
from smolagents.memory import TaskStep

from ml_intern.agent import InternAgent
from ml_intern.approval import nobody
from ml_intern.budget import StepBudget
from ml_intern.context.summary import tasks_of
from ml_intern.errors import Parking
from ml_intern.events import ApprovalAnswer, EventLog, Extended, State, Steered
from ml_intern.narrator import Narrator
from ml_intern.repetition import RepetitionGuard
from ml_intern.secrets import Masker
from ml_intern.session_tools import AskUserTool
from ml_intern.steps import Observer, SteerStep
from ml_intern.testing import ScriptedModel
from ml_intern.trace import Journal, TraceRecorder, read_rows
from ml_intern.trace.read import note_of

NAME = "11111111-2222-4333-8444-555555555555.jsonl"


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


@pytest.fixture
def make():
    made: list[InternAgent] = []

    def build(script: list[Any], tools: list[Any] | None = None, **options: Any) -> InternAgent:
        agent = InternAgent(tools or [], ScriptedModel(script), verbosity_level=LogLevel.OFF, **options)
        made.append(agent)
        return agent

    yield build
    for agent in made:
        agent.cleanup()


def texts(request: list[Any]) -> list[str]:
    return ["".join(part.get("text", "") for part in message.content) for message in request]


def test_what_is_said_meanwhile_stands_at_the_end_of_the_next_request(make) -> None:
    agent = make([code("1"), code("2"), code("final_answer(3)")])
    agent.step_callbacks.register(ActionStep, lambda step: step.step_number == 1 and agent.steer("Use F1.", "ann"))
    assert agent.run("Go.") == 3
    first, second, third = (texts(request) for request in agent.model.requests)
    assert "Use F1." in second[-1] and "from the user" in second[-1] and "while" not in first[-1]
    assert "Use F1." not in "".join(first)
    assert third[: len(second)] == second, "it is said once, and stays where it was said"
    assert [type(step).__name__ for step in agent.memory.steps] == [
        "TaskStep", "TrackedActionStep", "SteerStep", "TrackedActionStep", "TrackedActionStep"
    ]  # fmt: skip


def test_words_from_many_threads_all_arrive_once(make) -> None:
    agent = make([code("1"), code("final_answer(1)")])

    def shout(step: ActionStep) -> None:
        if step.step_number > 1:
            return
        threads = [threading.Thread(target=agent.steer, args=(f"word {i}.",)) for i in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    agent.step_callbacks.register(ActionStep, shout)
    agent.run("Go.")
    said = [step.text for step in agent.memory.steps if isinstance(step, SteerStep)]
    assert sorted(said) == sorted(f"word {i}." for i in range(50))


def test_words_between_two_turns_wait_for_the_next_one(make) -> None:
    agent = make([code("final_answer(1)"), code("final_answer(2)")])
    agent.run("Go.")
    agent.steer("And be brief.")
    agent.run("Again.", reset=False)
    assert "And be brief." in texts(agent.model.requests[1])[-1]


def test_nothing_is_no_word(make) -> None:
    with pytest.raises(ValueError, match="nothing to say"):
        make([]).steer("  ")


@pytest.mark.long
def test_words_are_on_record_before_the_model_reads_them_and_told_and_masked(make, tmp_path: Path) -> None:
    journal, events = Journal(tmp_path / NAME), EventLog("s")
    masker = Masker({"very-secret-value": "MY_TOKEN"})
    seen: list[bool] = []

    def answer(messages: list[Any]) -> str:
        seen.append("Stop at 3" in journal.path.read_text())
        return code("final_answer(1)")

    agent = make([code("1"), answer], masker=masker, observers=[TraceRecorder(journal, "m"), Narrator(events, masker)])
    agent.step_callbacks.register(
        ActionStep, lambda step: step.step_number == 1 and agent.steer("Stop at 3 very-secret-value.", "bob, terminal")
    )
    agent.run("Go.")
    rows = list(read_rows(journal.path))
    note = next(note for row in rows if (note := note_of(row)) and note["kind"] == "steered")
    assert (note["text"], note["by"], note["source"]) == ("Stop at 3 [secret:MY_TOKEN].", "bob, terminal", "user")
    said = [row for row in rows if row.get("stepKind") == "steered"]
    assert len(said) == 1 and said[0]["type"] == "user" and "Stop at 3" in said[0]["message"]["content"]
    assert seen == [True]
    assert [(event.text, event.by) for event in events.history if isinstance(event, Steered)] == [
        ("Stop at 3 [secret:MY_TOKEN].", "bob, terminal")
    ]
    journal.close()


def test_a_record_that_cannot_be_written_keeps_words_from_the_model(make) -> None:
    class Full(Observer):
        def steered(self, step: SteerStep) -> None:
            raise OSError("disk full")

    agent = make([code("1"), code("2")], observers=[Full()])
    agent.step_callbacks.register(ActionStep, lambda step: agent.steer("x"))
    with pytest.raises(OSError, match="disk full"):
        agent.run("Go.")
    assert not any(isinstance(step, SteerStep) for step in agent.memory.steps)


def test_words_of_the_user_are_kept_by_a_compaction_and_can_be_read_back(make) -> None:
    agent = make([code("print('x' * 9000)"), code("2"), "a summary", code("final_answer(read_artifact('step:3'))")])
    agent.step_callbacks.register(ActionStep, lambda step: step.step_number == 1 and agent.steer("Never use seed 7."))
    agent.step_callbacks.register(ActionStep, lambda step: step.step_number == 2 and agent.context.request())
    assert "Never use seed 7." in agent.run("Go.")
    assert "Never use seed 7." in "".join(texts(agent.model.requests[-1]))
    steps = [TaskStep("a"), SteerStep("b"), SteerStep("c", "repetition guard", "guard")]
    assert tasks_of(steps, 3) == [(1, "a"), (2, "b")], "the guard's words are not the user's"


def test_more_steps_while_it_runs(make) -> None:
    log = EventLog("s")
    agent = make(
        [code("1"), code("2"), code("3"), code("final_answer(4)")], max_steps=2, observers=[Narrator(log, Masker())]
    )
    agent.step_callbacks.register(ActionStep, lambda step: step.step_number == 2 and agent.extend(2, "ann gave them"))
    assert agent.run("Go.") == 4
    assert [(event.steps, event.why) for event in log.history if isinstance(event, Extended)] == [(4, "ann gave them")]


def test_an_extension_is_for_the_turn_it_was_given_to(make) -> None:
    agent = make([code("1"), code("2"), code("3"), "last", code("1"), code("2"), "last"], max_steps=2)
    agent.step_callbacks.register(
        ActionStep, lambda step: step.step_number == 2 and len(agent.memory.steps) == 2 and agent.extend(1)
    )
    agent.run("Go.")
    assert agent.step_number == 4
    agent.run("Again.", reset=False)
    assert agent.step_number == 3 and agent.ending.state is State.MAX_STEPS


def test_going_on_after_more_steps_were_given(make) -> None:
    agent = make([code("x = 1"), "not done", code("final_answer(x + 1)")], max_steps=1)
    assert agent.run("Go.") == "not done"
    agent.extend(5, "a person")
    assert agent.continue_run() == 2
    assert agent.ending.state is State.SUCCESS
    assert sum(isinstance(step, TaskStep) for step in agent.memory.steps) == 1
    assert [step.step_number for step in agent.memory.steps if isinstance(step, ActionStep)] == [1, 2, 3]


def test_going_on_after_an_interrupt_and_after_a_failed_model(make) -> None:
    agent = make([code("x = 1"), RuntimeError("503"), code("x += 1"), code("final_answer(x)")])
    agent.step_callbacks.register(ActionStep, lambda step: step.step_number == 1 and agent.interrupt())
    with pytest.raises(AgentError, match="interrupted"):
        agent.run("Go.")
    with pytest.raises(AgentGenerationError, match="503"):
        agent.continue_run()
    assert agent.continue_run() == 2
    assert [step.step_number for step in agent.memory.steps if isinstance(step, ActionStep)] == [1, 2, 3, 4]


def test_going_on_with_a_memory_that_was_put_there(make) -> None:
    agent = make([code("print(k)\nfinal_answer(k + 1)")])
    agent.memory.steps = [TaskStep("Add one."), SteerStep("To k.")]
    agent.state["k"] = 41
    assert agent.continue_run() == 42
    assert agent.task == "Add one."
    assert texts(agent.model.requests[0])[1:] == ["New task:\nAdd one.", SteerStep("To k.").said]


def test_at_the_ceiling_a_person_is_asked_where_that_is_wanted(make) -> None:
    asked: list[Any] = []

    def ask(request: Any) -> ApprovalAnswer:
        asked.append(request)
        if len(asked) == 1:
            return ApprovalAnswer("edit", by="ann", arguments={"steps": 1})
        return ApprovalAnswer("reject", "enough", "ann")

    log = EventLog("s")
    agent = make(
        [code("1"), code("2"), code("3"), "last"], max_steps=2, budget=StepBudget(ask_beyond=True), on_approval=ask,
        observers=[Narrator(log, Masker())],
    )  # fmt: skip
    assert agent.run("Go.") == "last"
    assert [request.tool for request in asked] == ["request_steps"] * 2
    assert "2 steps are used up" in asked[0].reason and asked[0].arguments["steps"] > 0
    assert agent.ending.state is State.MAX_STEPS and "ann said no: enough" in agent.ending.reason
    assert [event.kind for event in log.history if event.kind.startswith("approval")] == [
        "approval_asked", "approval_answered"
    ] * 2  # fmt: skip


def test_the_agent_asks_for_steps_itself(make) -> None:
    agent = make([code("1"), "x"], max_steps=40, budget=StepBudget(adaptive=True))
    agent.budget.begin(40, "What is it?")
    before = agent.budget.allowance
    assert before < 40
    assert agent.request_steps(5, "two more folds") == (5, before + 5)
    assert agent.request_steps(100, "a sweep") == (35 - before, 40)
    with pytest.raises(ValueError, match="reason"):
        agent.request_steps(5, " ")


# The other way round: the agent asks.


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            ApprovalAnswer("approve", by="ann", text="F1"),
            {"answered": True, "answer": "F1", "choice": "F1", "by": "ann"},
        ),
        (
            ApprovalAnswer("approve", by="ann", text="2"),
            {"answered": True, "answer": "2", "choice": "F1", "by": "ann"},
        ),
        (ApprovalAnswer("approve", text="both"), {"answered": True, "answer": "both", "choice": None, "by": ""}),
        (
            ApprovalAnswer("reject", "not now", "ann"),
            {"answered": True, "answer": "not now", "choice": None, "by": "ann"},
        ),
    ],
)
def test_the_agent_asks_and_reads_the_answer(make, answer: ApprovalAnswer, told: dict[str, Any]) -> None:
    asked: list[Any] = []

    def ask(request: Any) -> ApprovalAnswer:
        asked.append(request)
        return answer

    agent = make(
        [code("final_answer(ask_user('Which metric?', ['accuracy', 'F1']))")], [AskUserTool()], on_approval=ask
    )
    assert agent.run("Go.") == told
    (request,) = asked
    assert request.tool == "ask_user" and request.arguments == {
        "question": "Which metric?",
        "choices": ["accuracy", "F1"],
    }


def test_where_nobody_is_there_the_agent_is_told_to_decide(make) -> None:
    agent = make([code("final_answer(ask_user('Which metric?'))")], [AskUserTool()], on_approval=nobody)
    said = agent.run("Go.")
    assert said["answered"] is False and "Decide yourself" in said["answer"]


@pytest.mark.parametrize("arguments", ["' '", "'Which?', ['one']", "'Which?', ['a', '']"])
def test_questions_that_make_no_sense_go_back_to_the_agent(make, arguments: str) -> None:
    asked: list[Any] = []
    agent = make([code(f"ask_user({arguments})"), code("final_answer(1)")], [AskUserTool()], on_approval=asked.append)
    agent.run("Go.")
    assert not asked, "and no person is bothered with them"
    assert "ValueError" in str(next(step for step in agent.memory.steps if isinstance(step, ActionStep)).error)


def test_answers_to_questions_asked_at_once_reach_those_who_asked(make) -> None:
    agent = make(
        [
            code(
                "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n"
                "    final_answer([a['answer'] for a in pool.map(ask_user, ['a', 'b', 'c', 'd'])])"
            )
        ],
        [AskUserTool()],
        on_approval=lambda request: ApprovalAnswer("approve", text=request.arguments["question"] * 2),
    )
    assert agent.run("Go.") == ["aa", "bb", "cc", "dd"]


# Going on where the guard had asked.


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_question_whether_to_go_on_stands_after_a_restart(make, decision: str) -> None:
    asked: list[Any] = []

    def ask(request: Any) -> ApprovalAnswer:
        asked.append(request)
        if len(asked) == 1:
            raise Parking
        return ApprovalAnswer(decision, by="ann")

    script = [code("print('no')")] * 7
    agent = make(script, guard=RepetitionGuard(), max_steps=60, on_approval=ask)
    with pytest.raises(Parking):
        agent.run("Go.")
    other = make(
        [code("final_answer(1)") if decision == "approve" else "last"], guard=RepetitionGuard(), on_approval=ask
    )
    other.memory.steps = list(agent.memory.steps)
    answer = other.continue_run()
    assert [request.tool for request in asked] == ["go_on", "go_on"]
    assert (answer, other.ending.state) == ((1, State.SUCCESS) if decision == "approve" else ("last", State.STUCK))
