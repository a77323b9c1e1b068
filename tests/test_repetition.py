"""Going round in circles. What must never happen: work that moves is held up (polling whose answers change, a retry that
changes something, a watch over training, a long wait); a turn goes on for ever without moving."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smolagents import LogLevel
from smolagents.agents import ActionStep
from smolagents.memory import Timing

from ml_intern.agent import InternAgent
from ml_intern.events import ApprovalAnswer, State
from ml_intern.facts import ActionFacts, FactBook, action_digest, without_noise
from ml_intern.repetition import FORGOTTEN, NO_PROGRESS, SAME_ERROR, WAITS, RepetitionGuard, Told, decide, loop_in
from ml_intern.session_tools import PlanTool
from ml_intern.steps import SteerStep
from ml_intern.testing import ScriptedModel


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


def facts_of(steps: list[tuple[str, str]], seconds: float = 0.0) -> list[ActionFacts]:
    """Facts of steps given as code and output; an output that begins with `!` is an error."""
    book = FactBook()
    for number, (action, seen) in enumerate(steps, 1):
        step = ActionStep(step_number=number, timing=Timing(0.0, seconds), code_action=action)
        if seen.startswith("!"):
            step.error = seen[1:]  # ty: ignore[invalid-assignment]  # only its text is looked at
        else:
            step.observations = seen
        book.finished(step)
    return book.facts


def kind(steps: list[tuple[str, str]], seconds: float = 0.0) -> str:
    loop = loop_in(facts_of(steps, seconds))
    return loop.kind if loop else ""


# What is a loop.


def test_the_same_code_with_the_same_result_three_times() -> None:
    assert kind([("f(1)", "x")] * 2) == ""
    assert kind([("f(1)", "x"), ("f( 1 )  # again", "x"), ("f(1)", "x")]) == "same", "layout and comments aside"


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_a_cycle_of_two_to_five_steps(length: int) -> None:
    once = [(f"f({i})", f"r{i}") for i in range(length)]
    assert kind([("g()", "begin")] + once * 3) == "cycle"
    assert kind(once * 2) == ""
    assert kind(once * 2 + once[:-1] + [("f(0)", "something else")]) == ""


NOISY = [
    "!File /tmp/tmpab12/x.py, line {n}: connection to 10.0.0.{n} refused at 2026-01-0{d}T10:00:0{d}Z",
    "!<object at 0x7f{n:04x}ab12> is not callable",
    "!Job 3f2504e0-4f89-11d3-9a0c-0305e82c33{n:02d} failed after {n}.{d} s",
    "!CUDA out of memory. Tried to allocate {n}.00 GiB ({d}.5 GiB free)",
]


@pytest.mark.parametrize("error", NOISY)
def test_errors_that_differ_only_in_noise(error: str) -> None:
    errors = [error.format(n=n, d=n % 9 + 1) for n in range(20, 20 + SAME_ERROR)]
    assert kind([("run()", one) for one in errors[:3]]) == "same"
    assert kind([(f"run({n} + x.a{n})", one) for n, one in enumerate(errors)]) == "error"
    assert kind([(f"run({n})", one) for n, one in enumerate(errors[:-1])] + [("run()", "!something else")]) == ""


def test_many_steps_that_show_nothing_new() -> None:
    shown = [(f"f({i})", f"r{i % 4}" if i < 4 else f"r{(i * i + i // 7) % 4}") for i in range(NO_PROGRESS + 4)]
    assert kind(shown) in ("idle", "cycle")
    assert kind([(f"f({i} * {i})", f"r{i % 7 * (i // 50)}") for i in range(NO_PROGRESS + 1)]) == "idle"
    assert (
        kind([(f"f({i} * {i})", "r") for i in range(NO_PROGRESS // 2)] + [("f()", "new")] + [("g()", "r")] * 2) == ""
    )


# What is none.


@pytest.mark.parametrize(
    "steps",
    [
        [("print(job.status())", f"running, {i} s") for i in range(60)],
        [("time.sleep(60); print(tail('train.log'))", f"step {i}: loss {2 / (i + 1):.3f}") for i in range(80)],
        [(f"train(lr={10**-i})", f"accuracy {0.5 + i / 100}") for i in range(1, 30)],
        [("retry()", f"!attempt failed: {why}") for why in ("no such file", "permission denied", "time out")] * 1,
        [step for i in range(20) for step in ((f"edit({i})", "ok"), ("test()", f"{20 - i} failed"))],
        [step for i in range(20) for step in ((f"install('p{i}')", "done"), (f"import_('p{i}')", f"p{i} 1.0"))],
        [(f"read_artifact('step:{i}')", f"text {i}") for i in range(40)],
    ],
    ids=[
        "polling",
        "watching training",
        "a sweep",
        "a retry with other errors",
        "edit and test",
        "installs",
        "reading",
    ],
)
def test_work_that_moves_is_no_loop(steps: list) -> None:
    facts = facts_of(steps)
    assert [loop_in(facts[: end + 1]) for end in range(len(facts))] == [None] * len(facts)


def test_waiting_long_for_an_answer_that_does_not_change_is_given_time() -> None:
    wait = [("time.sleep(30); print(job.status())", "queued")]
    assert kind(wait * (WAITS - 1), seconds=30.0) == ""
    assert kind(wait * WAITS, seconds=30.0) == "same", "but not for ever"
    assert kind(wait * 3, seconds=0.1) == "same"


def test_a_step_that_moves_something_is_no_part_of_a_loop() -> None:
    facts = facts_of([("save()", "saved")] * 5)
    moved = [ActionFacts(**{**fact.__dict__, "progress": ("`hub_push` came back",)}) for fact in facts]
    assert loop_in(moved) is None and loop_in([*facts[:4], moved[4]]) is None
    assert loop_in([*facts[:3], moved[3], *facts[4:]]) is None


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=30)


def test_new_code_that_shows_nothing_is_new_and_old_code_is_not() -> None:
    nothing = "Execution logs:\nLast output from code snippet:\nNone"
    assert [fact.fresh for fact in facts_of([(f"x = {i}", nothing) for i in range(5)])] == [True] * 5
    assert [fact.fresh for fact in facts_of([("x = 1", nothing)] * 3)] == [True, False, False]
    shown = nothing.replace("logs:", "logs:\nthe same")
    assert [fact.fresh for fact in facts_of([(f"x = {i}", shown) for i in range(3)])] == [True, False, False]


@pytest.mark.long
@settings(max_examples=300)
@given(STEPS)
def test_whatever_is_new_ends_a_loop(steps: list) -> None:
    assert kind([*steps, ("d", "never seen before")]) == ""


@pytest.mark.long
@settings(max_examples=300)
@given(STEPS, st.integers(1, 5), st.integers(4, 8))
def test_whatever_is_repeated_often_enough_is_found(before: list, length: int, rounds: int) -> None:
    once = [(f"f{i}", f"r{i}") for i in range(length)]
    loop = loop_in(facts_of(before + once * rounds))
    assert loop is not None and loop.length <= length


NOISE = st.sampled_from([
    lambda n: str(n), lambda n: f"{n / 7:.3f}", lambda n: f"0x{n:08x}", lambda n: f"/tmp/run{n}/a.py", lambda n: f"{n:032x}",
    lambda n: f"2026-01-{n % 28 + 1:02d}T10:{n % 60:02d}:00.{n % 1000}Z", lambda n: f"{n:08x}-4f89-11d3-9a0c-0305e82c{n % 65536:04x}",
])  # fmt: skip


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["failed at", "no such thing", "in worker", "timed out"]) | NOISE, min_size=1, max_size=8),
       st.integers(0, 10**6), st.integers(0, 10**6))  # fmt: skip
def test_errors_are_equal_where_only_noise_differs_and_not_where_a_word_does(
    parts: list, one: int, other: int
) -> None:
    first, second = (" ".join(part if isinstance(part, str) else part(n) for part in parts) for n in (one, other))
    assert without_noise(first) == without_noise(second)
    assert without_noise(f"{first} badly") != without_noise(second)


@settings(max_examples=100)
@given(st.text(max_size=80))
def test_any_text_has_a_digest(text: str) -> None:
    assert action_digest(text) == action_digest(text)


# What is done about it.


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=80))
def test_words_escalate_one_by_one_and_have_time_to_take_effect(steps: list) -> None:
    facts, told = facts_of(steps), []
    for end in range(1, len(facts) + 1):
        verdict = decide(facts[:end], told)
        if verdict.level:
            told.append(Told(end, verdict.level))
    for before, after in pairwise(told):
        assert after.after - before.after >= 2
        if after.after - before.after <= FORGOTTEN:
            assert (before.level, after.level) in {("hint", "replan"), ("replan", "stop"), ("stop", "stop")}


def test_an_endless_loop_is_stopped_within_few_steps() -> None:
    facts, guard = facts_of([("f()", "x")] * 20), RepetitionGuard()
    levels = [guard.look(facts[:end]).level for end in range(1, 21)]
    assert levels[:7] == ["", "", "hint", "", "replan", "", "stop"]


def test_a_later_loop_begins_with_a_hint_again() -> None:
    steps = [("f()", "x")] * 3 + [(f"g({i})", f"{i}") for i in range(FORGOTTEN + 1)] + [("h()", "y")] * 3
    facts, guard = facts_of(steps), RepetitionGuard()
    assert [level for end in range(1, len(facts) + 1) if (level := guard.look(facts[:end]).level)] == ["hint", "hint"]


@pytest.fixture
def make():
    made: list[InternAgent] = []

    def build(script: list[Any], tools: list[Any] | None = None, **options: Any) -> InternAgent:
        options = {"verbosity_level": LogLevel.OFF, "guard": RepetitionGuard(), "max_steps": 60, **options}
        agent = InternAgent(tools or [], ScriptedModel(script), **options)
        made.append(agent)
        return agent

    yield build
    for agent in made:
        agent.cleanup()


def said(agent: InternAgent) -> list[str]:
    return [step.text for step in agent.memory.steps if isinstance(step, SteerStep)]


def test_the_agent_gets_a_hint_then_has_to_plan_anew_then_the_turn_ends_as_stuck(make) -> None:
    agent = make(
        [code("print('no')")] * 7 + ["my last word"], [PlanTool(lambda plan: None)], on_approval=lambda r: no(r)
    )
    assert agent.run("Go.") == "my last word"
    assert agent.ending.state is State.STUCK and "the last 7 steps ran the same code" in agent.ending.reason
    hint, replan = said(agent)
    assert "round in circles" in hint and "new plan with the tool `plan`" in replan
    assert all(step.source == "guard" for step in agent.memory.steps if isinstance(step, SteerStep))
    assert "not from the user" in agent.model.requests[3][-1].content[0]["text"]


def no(request: Any) -> ApprovalAnswer:
    return ApprovalAnswer("reject", "", "policy")


def test_a_hint_that_is_heeded_is_the_end_of_it(make) -> None:
    agent = make([code("print('no')")] * 3 + [code("print('else')"), code("final_answer(1)")])
    assert agent.run("Go.") == 1
    assert len(said(agent)) == 1 and agent.ending.state is State.SUCCESS


def test_a_person_can_let_it_go_on(make) -> None:
    asked: list[Any] = []

    def ask(request: Any) -> ApprovalAnswer:
        asked.append(request)
        return ApprovalAnswer("approve", by="ann")

    agent = make([code("print('no')")] * 8 + [code("final_answer(1)")], on_approval=ask)
    assert agent.run("Go.") == 1
    (request,) = asked
    assert request.tool == "go_on" and "round in circles" in request.reason and request.effects == "read"


def test_without_a_guard_nothing_is_said(make) -> None:
    agent = make([code("print('no')")] * 30 + [code("final_answer(1)")], guard=None)
    assert agent.run("Go.") == 1 and not said(agent)


def test_each_turn_begins_anew(make) -> None:
    agent = make(
        [code("print('no')")] * 2 + [code("final_answer(1)")] + [code("print('no')")] * 2 + [code("final_answer(2)")]
    )
    agent.run("Go.")
    assert agent.run("Again.", reset=False) == 2 and not said(agent)
