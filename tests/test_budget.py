"""What a session may cost. What must never happen: money is spent that was not set aside; a budget is exceeded by more than
what one call took beyond what was set aside for it, sub-agents at work at the same time included; an unknown price counts as
none."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smolagents import CodeAgent, LogLevel, Tool
from smolagents.agents import ActionStep

from ml_intern.agent import InternAgent
from ml_intern.budget import (
    FIRST_STEPS,
    MORE_STEPS,
    QUESTION_STEPS,
    Allowance,
    BudgetUsedUp,
    SpendLedger,
    StepBudget,
    decide,
    first_allowance,
    progress_in,
)
from ml_intern.events import ApprovalAnswer, EventLog, Extended, State, Usage
from ml_intern.facts import ActionFacts, FactBook, metrics_in
from ml_intern.metering import Estimator
from ml_intern.narrator import Narrator
from ml_intern.secrets import Masker
from ml_intern.session_tools import NotesTool, PlanTool, RecordDecisionTool, RequestStepsTool
from ml_intern.testing import ScriptedModel


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


# The ledger.


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1.0])
def test_what_is_no_amount_of_money_is_not_known_and_blinds_no_budget(cost: float) -> None:
    ledger = SpendLedger(budget_usd=1.0)
    ledger.record(10, 5, cost_usd=cost)
    ledger.reserve("model", cost, cost).settle(cost)
    assert (ledger.unpriced_calls, ledger.spent_usd, ledger.usage.cost_usd) == (2, 0.0, None)
    ledger.record(10, 5, cost_usd=1.0)
    assert ledger.exceeded()
    with pytest.raises(BudgetUsedUp):
        ledger.reserve("model", 0.5)


def test_what_is_set_aside_is_not_there_for_others_until_it_is_settled_or_released() -> None:
    ledger = SpendLedger(1.0)
    first = ledger.reserve("job", 0.7, 0.7)
    assert ledger.left_usd() == pytest.approx(0.3)
    with pytest.raises(BudgetUsedUp, match=r"\$0\.00 of \$1\.00 are spent.*\$0\.30 are left, job may take \$0\.50"):
        ledger.reserve("job", 0.5, 0.5)
    first.release()
    second = ledger.reserve("job", 0.5, 0.5)
    second.settle(0.4)
    second.settle(9.0)  # once is enough
    second.release()
    assert ledger.spent_usd == pytest.approx(0.4) and ledger.left_usd() == pytest.approx(0.6)


def test_an_unknown_price_is_said_to_be_unknown_and_holds_up_nobody() -> None:
    ledger = SpendLedger(1.0)
    with_price, without = ledger.reserve("model", 0.2, 0.2), ledger.reserve("model", None, 0.0)
    assert with_price.settle(0.2, 10, 1).cost_usd == pytest.approx(0.2)
    assert without.settle(None, 10, 1) == Usage(20, 2, 0, None)
    assert (ledger.unpriced_calls, ledger.spent_usd) == (1, pytest.approx(0.2))


def test_a_child_has_its_share_and_counts_for_its_parent() -> None:
    parent = SpendLedger(1.0)
    child, sibling = parent.child(0.3), parent.child()
    child.reserve("model", 0.2, 0.2).settle(0.25, 100, 10)
    assert (child.spent_usd, parent.spent_usd) == (0.25, 0.25)
    with pytest.raises(BudgetUsedUp, match="of its share"):
        child.reserve("model", 0.2, 0.2)
    sibling.reserve("model", 0.7, 0.7).settle(0.75)
    assert parent.exceeded() and sibling.exceeded() and not parent.child(0.1).child(0.1).left_usd()
    assert parent.usage.input_tokens == 100 and sibling.usage.input_tokens == 0


def test_a_ledger_goes_on_from_what_is_on_record() -> None:
    ledger = SpendLedger.restored(5.0, 2.0, Usage(10, 2, 0, None), 4.5, unpriced_calls=3, hours=1.5)
    assert ledger.left_usd() == pytest.approx(0.5) and ledger.usage.cost_usd is None and ledger.unpriced_calls == 3
    assert ledger.hours == pytest.approx(1.5, abs=0.01) and not ledger.exceeded()
    assert "1.60 of 1.55 hours" in SpendLedger.restored(None, 1.55, Usage(), 0.0, hours=1.6).exceeded()


def test_a_budget_can_be_raised() -> None:
    ledger = SpendLedger(1.0, 1.0, spent_usd=1.0)
    assert "$1.00 of $1.00" in ledger.exceeded()
    ledger.raise_by(usd=0.5, hours=1)
    assert not ledger.exceeded() and ledger.max_hours == 2.0
    ledger.raise_to(None, None)
    ledger.reserve("job", 99.0, 99.0)
    ledger.raise_by(usd=1.0)
    assert ledger.budget_usd is None, "what has no limit gets none"
    with pytest.raises(ValueError, match="raised, not lowered"):
        ledger.raise_by(usd=-1)


def test_who_waits_for_money_that_is_set_aside_can_be_interrupted() -> None:
    ledger, stop = SpendLedger(1.0), threading.Event()
    ledger.reserve("model", 0.1, None)
    threading.Timer(0.1, stop.set).start()
    at = time.monotonic()
    with pytest.raises(BudgetUsedUp, match="interrupted"):
        ledger.reserve("model", 0.1, None, cancelled=stop.is_set)
    assert time.monotonic() - at < 2


CALL = st.tuples(
    st.floats(0.01, 0.6),  # estimate
    st.none() | st.floats(0.0, 0.5),  # worst case above it, or nobody knows
    st.floats(-0.5, 2.0),  # what it takes beyond the estimate; within the worst case, where there is one
)


@settings(max_examples=60, deadline=None)
@given(st.lists(CALL, min_size=1, max_size=14), st.floats(0.2, 3.0), st.integers(1, 4), st.floats(0.1, 2.0))
def test_no_budget_is_exceeded_by_more_than_one_calls_difference(
    calls, budget: float, workers: int, share: float
) -> None:
    """Any number of agents at once, each with a share, estimates right or wrong."""
    ledger = SpendLedger(budget)
    ledgers = [ledger, *(ledger.child(share) for _ in range(workers - 1))]
    differences: dict[int, list[float]] = {index: [0.0] for index in range(len(ledgers))}
    queue, lock = list(calls), threading.Lock()

    def work(index: int) -> None:
        while True:
            with lock:
                if not queue:
                    return
                estimate, margin, beyond = queue.pop()
            worst = None if margin is None else estimate + margin
            actual = max(0.0, estimate + beyond if worst is None else min(estimate + beyond, worst))
            try:
                reservation = ledgers[index].reserve("model", estimate, worst)
            except BudgetUsedUp:
                continue
            time.sleep(0.0005)
            with lock:
                differences[index].append(actual - estimate)
            reservation.settle(actual)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(ledgers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "nobody waits for ever"
    assert ledger.spent_usd <= budget + max(d for own in differences.values() for d in own) + 1e-9
    for index, own in enumerate(ledgers[1:], 1):
        assert own.spent_usd <= share + max(differences[index]) + 1e-9
    assert not ledger._out and sum(own.spent_usd for own in ledgers[1:]) <= ledger.spent_usd + 1e-9


def test_calls_run_side_by_side_as_long_as_their_worst_cases_fit() -> None:
    ledger, meeting = SpendLedger(10.0), threading.Barrier(3, timeout=5)

    def call() -> None:
        reservation = ledger.reserve("model", 1.0, 3.0)
        meeting.wait()
        reservation.settle(1.0)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6)
    assert ledger.spent_usd == pytest.approx(3.0)


# With agents.


class Priced(ScriptedModel):
    """Ten cents a thousand tokens of input, a dollar a thousand of output."""

    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        return (input_tokens - 0.9 * cached_tokens) / 1e4 + output_tokens / 1e3


@pytest.fixture
def make():
    made: list[InternAgent] = []

    def build(
        script: list[Any], tools: list[Any] | None = None, model: type = ScriptedModel, **options: Any
    ) -> InternAgent:
        options = {"verbosity_level": LogLevel.OFF, "on_approval": lambda request: ApprovalAnswer("reject"), **options}
        agent = InternAgent(tools or [], model(script), **options)
        made.append(agent)
        return agent

    yield build
    for agent in made:
        agent.cleanup()


def test_what_a_call_will_cost_is_estimated_from_what_calls_took() -> None:
    model, estimator = Priced([]), Estimator()
    model.kwargs = {"max_tokens": 2_000}
    expected, worst = estimator.estimate(model, 10_000)
    assert (expected, worst) == (pytest.approx(2.0), pytest.approx(3.3))
    estimator.saw(500, 9_000)
    expected, worst = estimator.estimate(model, 11_000)
    assert expected == pytest.approx(0.29 + 0.5) and worst > 3
    assert Estimator().estimate(ScriptedModel([]), 10_000) == (None, 0.0)


@pytest.mark.parametrize("budget", [0.5, 1.3, 2.5, 4.0])
def test_a_run_stays_within_its_budget_its_last_word_included(make, budget: float) -> None:
    script = [code(f"print({i})", "x" * 400) for i in range(30)]

    def last(messages: list[Any]) -> str:
        return "z" * 400

    agent = make([*script[:29], last], model=Priced, ledger=SpendLedger(budget), max_steps=40)
    agent.model.kwargs = {"max_tokens": 300}
    answers: list[float] = []
    agent.step_callbacks.register(ActionStep, lambda step: answers.append(agent.ledger.spent_usd))
    agent.run("Go.")
    assert agent.ending.state is State.BUDGET and "are spent" in agent.ending.reason
    assert agent.ledger.spent_usd <= budget
    assert not agent.ledger._out
    if budget == 4.0:
        assert len(answers) > 3 and agent.ledger.spent_usd > 0.5 * budget, "and makes use of it"


def test_a_budget_that_does_not_cover_a_single_call_asks_no_model(make) -> None:
    agent = make([], model=Priced, ledger=SpendLedger(0.001))
    assert "had to end before its task was done" in agent.run("Go.")
    assert agent.ending.state is State.BUDGET and agent.model.calls == 0
    assert agent.run("Go.", return_full_result=True).state != "success"


def test_hours_end_a_run_with_a_last_word(make) -> None:
    agent = make([code("1"), "the last word"], ledger=SpendLedger(max_hours=0.0001))
    agent.step_callbacks.register(ActionStep, lambda step: time.sleep(0.4))
    assert agent.run("Go.") == "the last word"
    assert agent.ending.state is State.BUDGET and "hours are over" in agent.ending.reason


def test_summaries_and_plans_count_and_are_left_out_where_they_do_not_fit(make) -> None:
    agent = make(["a plan", code("1"), "a summary", code("final_answer(1)")], model=Priced, planning_interval=10,
                 ledger=SpendLedger(1e6))  # fmt: skip
    agent.step_callbacks.register(ActionStep, lambda step: step.step_number == 1 and agent.context.request())
    agent.run("Go.")
    assert agent.model.calls == 4
    tokens = agent.ledger.usage
    assert agent.ledger.spent_usd == pytest.approx(tokens.input_tokens / 1e4 + tokens.output_tokens / 1e3)


class Train(Tool):
    name, description, output_type, effects = "train", "Trains.", "object", "spend"
    inputs = {"hours": {"type": "number", "description": "How long."}}

    def estimate_cost(self, hours: float) -> float | None:
        return None if hours < 0 else hours * 2.0

    def forward(self, hours: float) -> dict:
        if hours == 0.4:
            raise RuntimeError("the job failed")
        return {"cost_usd": hours * 1.5} if hours == 0.5 else {"id": "job-1"}


def test_what_tools_spend_is_set_aside_and_settled(make) -> None:
    asked: list[Any] = []

    def ask(request: Any) -> ApprovalAnswer:
        asked.append((request.cost_usd, request.left_usd))
        return ApprovalAnswer("reject" if request.cost_usd == 0.2 else "approve")

    script = [
        code("train(0.5)"), code("train(1.0)"), code("train(0.4)"), code("train(0.1)"), code("train(2.0)"),
        code("final_answer(1)"),
    ]  # fmt: skip
    agent = make(script, [Train()], ledger=SpendLedger(5.0), on_approval=ask)
    agent.run("Go.")
    errors = [str(step.error or "") for step in agent.memory.steps if isinstance(step, ActionStep)]
    assert agent.ledger.spent_usd == pytest.approx(0.75 + 2.0 + 0.8), (
        "as told, as estimated, as it may have been spent"
    )
    assert asked[:2] == [(1.0, 5.0), (2.0, pytest.approx(4.25))]
    assert "$3.55 of $5.00 are spent" in errors[4] and not agent.ledger._out


def test_a_plain_agent_below_cannot_exceed_the_budget(make) -> None:
    inner = CodeAgent([], Priced([code(f"print({i})", "x" * 400) for i in range(50)]), name="helper", description="Helps.",
                      max_steps=50, verbosity_level=LogLevel.OFF)  # fmt: skip
    inner.model.kwargs = {"max_tokens": 300}
    outer = make([code("print(helper('go'))"), code("final_answer('done')")], model=Priced, managed_agents=[inner],
                 ledger=SpendLedger(6.0), share=0.8)  # fmt: skip
    outer.model.kwargs = {"max_tokens": 300}
    assert outer.run("Go.") == "done"
    assert outer.ledger.spent_usd <= 6.0 and inner.model.calls > 2


# Steps.


def fact(step: int = 1, fresh: bool = True, progress: tuple[str, ...] = (), **more: Any) -> ActionFacts:
    return ActionFacts(step, f"a{step}", f"r{step}", fresh=fresh, progress=progress, **more)


def test_a_question_gets_few_steps_at_first_and_a_task_more() -> None:
    assert first_allowance("What is the accuracy of the last model?") == QUESTION_STEPS
    assert first_allowance("Fine-tune a classifier on imdb and publish it.") == FIRST_STEPS
    assert first_allowance("word " * 100 + "?") == FIRST_STEPS


@pytest.mark.parametrize(
    ("step", "facts", "may_ask", "action"),
    [
        (10, [], False, "go"),
        (11, [fact(i) for i in range(10)], False, "extend"),
        (11, [fact(i, fresh=False) for i in range(10)], False, "stop"),
        (11, [fact(i, fresh=False) for i in range(9)] + [fact(9, False, ("plan item closed: x",))], False, "extend"),
        (
            11,
            [fact(0, False, ("plan item closed: x",))] * 5 + [fact(1, fresh=False)] * 5,
            False,
            "stop",
        ),  # before `since`
        (31, [fact(i) for i in range(30)], False, "stop"),
        (31, [fact(i) for i in range(30)], True, "ask"),
    ],
)
def test_steps_are_given_while_there_is_progress(step: int, facts: list, may_ask: bool, action: str) -> None:
    assert (
        decide(Allowance(10 if step < 30 else 30, 30, since=5 if len(facts) == 10 else 0), step, facts, may_ask).action
        == action
    )


@settings(max_examples=200)
@given(st.integers(1, 200), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=250), st.booleans())
def test_an_allowance_never_passes_its_ceiling_and_progress_reaches_it(ceiling: int, moves: list, ask: bool) -> None:
    budget, facts, taken = StepBudget(adaptive=True, ask_beyond=ask), [], 0
    budget.begin(ceiling, "Do it.")
    for number, (fresh, moved) in enumerate(moves, 1):
        verdict = budget.decide(number, facts)
        if verdict.action == "extend":
            budget.grant(verdict.steps, len(facts))
        elif verdict.action != "go":
            break
        taken = number
        facts.append(fact(number, fresh, ("moved",) if moved else ()))
    assert taken <= budget.ceiling == ceiling and budget.allowance <= ceiling
    if all(fresh or moved for fresh, moved in moves):
        assert taken == min(ceiling, len(moves)), "where everything is new nothing is in the way"


def test_a_run_without_progress_is_wrapped_up_early_and_says_so(make) -> None:
    script = [code(f"x = {i}\nprint('nothing new')") for i in range(50)]
    agent = make([*script[:FIRST_STEPS], "what I have"], budget=StepBudget(adaptive=True), max_steps=200)
    assert agent.run("Do something large.") == "what I have"
    assert agent.ending.state is State.STUCK and "no progress in the last" in agent.ending.reason
    assert agent.step_number == FIRST_STEPS + 1


@pytest.mark.long
def test_a_run_with_progress_takes_all_the_steps_it_needs(make) -> None:
    log, steps = EventLog("s"), 300
    script = [code(f"print('epoch {i}')") for i in range(steps - 1)] + [code("final_answer('done')")]
    agent = make(script, budget=StepBudget(adaptive=True), max_steps=300, observers=[Narrator(log, Masker())])
    assert agent.run("Train.") == "done"
    given = [event for event in log.history if isinstance(event, Extended)]
    assert given[0].steps == FIRST_STEPS + MORE_STEPS and given[-1].steps == 300
    assert all("progress" in event.why for event in given)


def test_explicit_steps_are_given_all_at_once(make) -> None:
    agent = make([code("print('same')")] * 60 + ["last"], max_steps=5)
    agent.run("Go.", max_steps=60)
    assert agent.ending.state is State.MAX_STEPS and agent.ending.reason == "60 steps" and agent.step_number == 61


def test_the_tool_with_which_the_agent_asks_for_steps() -> None:
    budget = StepBudget(adaptive=True)
    budget.begin(40, "Do it.")
    tool = RequestStepsTool(lambda steps, reason: (budget.request(steps, reason), budget.allowance))
    assert tool(steps=4, reason="two more folds") == {"granted": 4, "in_all": FIRST_STEPS + 4, "note": ""}
    more = tool(steps=50, reason="a sweep")
    assert more["granted"] == 6 and more["in_all"] == 40 and "person" in more["note"]
    verdict = StepBudget.decide(budget, 41, [])
    assert verdict.action == "stop"
    budget.ask_beyond = True
    verdict = budget.decide(41, [])
    assert verdict.action == "ask" and verdict.steps == 44 and "a sweep" in verdict.reason


# What counts as progress.


def test_what_counts_as_progress_is_taken_from_what_happened(make) -> None:
    book, decided = FactBook(), []
    agent = make(
        [
            code("print(plan([{'text': 'a', 'status': 'in_progress'}, {'text': 'b'}]))"),
            code("print(plan([{'text': 'a', 'status': 'done'}, {'text': 'b'}]))"),
            code("print(plan([{'text': 'a', 'status': 'done'}, {'text': 'b'}]), 1)"),
            code("print(notes(add='x'))"),
            code("print(record_decision('model', 'small', 'fast'))"),
            code("print('val_accuracy: 0.71')"),
            code("print('val_accuracy: 0.75')"),
            code("print('val_accuracy: 0.73')"),
            code("print('loss=0.5')"),
            code("print('loss=0.4')"),
            code("1 / 0"),
            code("1 / 0"),
            code("final_answer(1)"),
        ],
        [PlanTool(lambda plan: None), NotesTool(lambda notes: None), RecordDecisionTool(decided.append)],
        budget=StepBudget(adaptive=True),
    )
    agent.supervisor.book = book
    agent.step_callbacks._callbacks[ActionStep][-1] = agent.supervisor.finished
    agent.run("Go.")
    assert [fact.progress for fact in book.facts] == [
        (), ("plan item closed: a",), (), ("a note was taken",), ("decided: model",), (), ("new best val_accuracy: 0.75",), (),
        (), ("new best loss: 0.4",), (), (), (),
    ]  # fmt: skip
    assert [fact.fresh for fact in book.facts][-3:-1] == [True, False]
    assert [(decision.subject, decision.choice) for decision in decided] == [("model", "small")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("accuracy: 0.91", [("accuracy", 0.91)]),
        ("{'eval_loss': 0.25, 'eval_f1': 0.8}", [("eval_loss", 0.25), ("eval_f1", 0.8)]),
        ("**Test Accuracy** = 91.5%", [("test_accuracy", 91.5)]),
        ("rmse=1.5e-3", [("rmse", 0.0015)]),
        ("the map: see below; score: n/a; loss: 12b", []),
    ],
)
def test_metrics_are_read_from_what_code_prints(text: str, found: list) -> None:
    assert metrics_in(text) == found


def test_most_results_must_be_new_for_that_alone_to_be_progress() -> None:
    assert progress_in([fact(1), fact(2, fresh=False), fact(3)]) == "2 new results"
    assert progress_in([fact(1), fact(2, fresh=False)]) == "" == progress_in([])


def test_steps_that_were_given_before_a_restart_are_there_after_it() -> None:
    budget = StepBudget(adaptive=True)
    budget.extend(25)  # as the record says
    budget.begin(100, "Do it.", at=101)
    assert budget.ceiling == 125 and budget.decide(101, []).action == "go"
    budget.begin(100, "Another.")
    assert budget.ceiling == 100, "the next turn has its own"
