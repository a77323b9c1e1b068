"""When and how much: the decisions by table, the estimate, another model with a smaller window."""

from __future__ import annotations

import pytest
from conversations import TaskStep, WindowedModel, action, converse, text_of, writes
from hypothesis import given
from hypothesis import strategies as st
from smolagents.memory import AgentMemory

from ml_intern.context import ContextManager
from ml_intern.context.decide import Weight, enough, first_of_newest, limit_of, mask_until
from ml_intern.context.summary import mechanical, user_words
from ml_intern.context.tokens import Meter, weigh
from ml_intern.steps import CompactionStep


@pytest.mark.parametrize(
    ("window", "limit"),
    [(None, 170_000), (1_000_000, 170_000), (200_000, 170_000), (128_000, 98_000), (32_000, 24_000), (8_000, 6_000), (100, 256)],
)  # fmt: skip
def test_a_prompt_leaves_room_for_the_answer(window: int | None, limit: int) -> None:
    assert limit_of(window) == limit


WEIGHTS = st.lists(
    st.builds(lambda tokens, share: Weight(tokens, tokens * share), st.floats(0, 5_000), st.floats(0, 1))
)


@given(WEIGHTS, st.integers(1_000, 50_000))
def test_a_masking_batch_frees_a_fifth_and_leaves_the_newest_alone(weights: list[Weight], limit: int) -> None:
    until = mask_until(weights, limit)
    assert until == 0 or sum(weight.maskable for weight in weights[:until]) >= 0.2 * limit
    assert until <= max(len(weights) - 2, 0)


@given(WEIGHTS, st.floats(0, 20_000))
def test_the_newest_steps_that_fit_are_kept_and_not_one_more(weights: list[Weight], budget: float) -> None:
    first = first_of_newest(weights, budget)
    assert sum(weight.tokens for weight in weights[first:]) <= budget + 1e-6
    assert first == 0 or sum(weight.tokens for weight in weights[first - 1 :]) >= budget - 1e-6


@pytest.mark.parametrize(
    ("before", "after", "progress"), [(100, 79, False), (100, 74, True), (100, 100, False), (200, 150, False)]
)
def test_progress_is_a_fifth_of_the_prompt_and_a_quarter_of_the_window(
    before: int, after: int, progress: bool
) -> None:
    assert enough(before, after, 100) is progress


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("word " * 100, 100, 140), ("学习率" * 100, 300, 450), ("🙂" * 100, 100, 300), ("", 0, 0)],
)
def test_the_estimate_is_near_what_tokenizers_count(text: str, least: int, most: int) -> None:
    assert least <= weigh(text) <= most


def test_the_meter_takes_the_providers_count_and_no_smaller_one_for_a_longer_prompt() -> None:
    meter = Meter()
    meter.measured(1_500, 1_000.0)
    assert meter.count(1_000.0) == 1_500 and meter.count(1_100.0) == 1_650
    meter.measured(400, 1_100.0)  # without what came from the cache
    assert meter.count(1_100.0) == 1_650
    meter.moved()
    assert meter.count(100.0) == 150


def test_another_model_with_a_smaller_window_gets_a_prompt_that_fits() -> None:
    large, small = WindowedModel(200_000, None), WindowedModel(8_000, None)
    context, memory = ContextManager(), AgentMemory("system")
    context.ask = writes("Goal: go on.")
    converse(context, memory, [TaskStep("task"), *(action(n, None, "w" * 3_000) for n in range(20))], large, len)
    assert not any(isinstance(step, CompactionStep) for step in memory.steps)
    assert context.make_room(memory, small).rung == "summary"
    assert small.count(context.render(memory)) <= 6_000


def test_the_users_words_the_newest_first_and_the_first_always() -> None:
    tasks = [(1, "FIRST " * 10), (5, "SECOND " * 400), (9, "THIRD " * 20)]
    assert user_words(tasks, 10_000).count("SECOND") == 400
    tight = user_words(tasks, 150)
    assert "FIRST" in tight and "THIRD " * 20 in tight and tight.count("SECOND") < 50 and "step:5" in tight
    assert tight.index("FIRST") < tight.index("THIRD")
    assert user_words([], 100) == ""


def test_a_mechanical_summary_has_a_line_a_step_the_newest_ones_where_there_is_no_room() -> None:
    steps = [(n, f"I try lr {n}", f"loss {n}") for n in range(1, 101)]
    whole = mechanical(steps, "known before", 10_000)
    assert whole.startswith("known before") and whole.count("\n") == 100 and "step:7 I try lr 7 -> loss 7" in whole
    tight = mechanical(steps, "known before", 200)
    assert weigh(tight) <= 230 and "step:100 " in tight and "step:7 " not in tight and "known before" in tight


def test_what_was_written_by_hand_in_a_prompt_is_not_taken_for_a_handle() -> None:
    context, memory = ContextManager(8_000), AgentMemory("system")
    memory.steps = [TaskStep("Say artifact:0123456789abcdef.")]
    assert "artifact:0123456789abcdef" in text_of(context.render(memory))
    with pytest.raises(ValueError, match="There is no"):
        context.read("artifact:0123456789abcdef")
