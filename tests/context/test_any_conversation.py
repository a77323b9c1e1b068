"""Any sequence of steps renders to a conversation that a provider takes, under the limit, and to the same bytes on resuming."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from conversations import TaskStep, WindowedModel, action, converse, is_alternating, planning, text_of, writes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from smolagents.memory import AgentMemory

from ml_intern.context import ArtifactStore, ContextManager
from ml_intern.steps import CompactionStep
from ml_intern.trace import Journal, TraceRecorder, compaction_of, read_rows

THOUGHT = "I think about it at some length. " * 30
SYSTEM = "You are an engineer. " * 60
CHARACTERS = st.sampled_from(
    ["x", "word and word ", "0123456789abcdef", "学习率是多少", "🙂", "\n", "a,b,c\n1,2,3\n", " "]
)
TEXTS = st.builds(lambda piece, size: (piece * (size // len(piece) + 1))[:size], CHARACTERS, st.sampled_from([0, 1, 40, 700, 9_000, 60_000]))  # fmt: skip


def steps(number: int) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda said, seen, images: action(number, said, seen, images=images), TEXTS, TEXTS, st.integers(0, 2)
        ),
        st.builds(lambda seen: action(number, None, seen), TEXTS),
        st.builds(lambda error: action(number, None, None, error or "failed"), TEXTS),
        st.builds(lambda: action(number, None, None, calls=True)),  # a call that nothing answers
        st.builds(lambda: action(number, "", "")),
        st.builds(planning, TEXTS.filter(str.strip)),
        st.builds(TaskStep, TEXTS.filter(str.strip)),
    )


CONVERSATIONS = st.integers(0, 25).flatmap(lambda size: st.tuples(*(steps(number) for number in range(1, size + 1))))


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=TEXTS.filter(str.strip), rest=CONVERSATIONS, window=st.sampled_from([4_000, 8_000, 40_000]), failing=st.booleans())  # fmt: skip
def test_it_fits_it_alternates_and_it_is_a_function_of_the_record(
    first: str, rest: tuple[Any, ...], window: int, failing: bool
) -> None:
    context, memory = ContextManager(window), AgentMemory(SYSTEM)
    context.ask = writes("" if failing else "It was tried; it worked.")
    before: list[Any] = []

    def check(messages: list[Any]) -> None:
        assert is_alternating(messages)
        assert context.count(memory) <= context.limit(None)
        fresh = ContextManager(window, store=context.store).render(memory)
        assert fresh == messages
        compacted = isinstance(memory.steps[-1], CompactionStep)
        assert compacted or messages[: len(before)] == before
        before[:] = messages

    converse(context, memory, [TaskStep(first), *rest], None, check)
    places = [i for i, step in enumerate(memory.steps) if isinstance(step, CompactionStep)]
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(places)), "never two in one step"
    for place in places:
        step = memory.steps[place]
        assert step.at == place and step.after < step.before
        assert step.only_masks or step.rung == "hard" or step.after <= 0.8 * step.before


@pytest.mark.parametrize("text", ["x" * 5_000_000, "学" * 300_000, "🙂" * 300_000, "line\n" * 400_000])
def test_a_result_or_a_message_of_any_size(text: str) -> None:
    for steps_ in ([TaskStep("task"), action(1, None, text), action(2)], [TaskStep(text), action(1)]):
        context, memory = ContextManager(8_000), AgentMemory(SYSTEM)

        def check(messages: list[Any], memory: AgentMemory = memory, context: ContextManager = context) -> None:
            assert is_alternating(messages) and context.count(memory) <= 6_000

        converse(context, memory, steps_, None, check)
        place = next(i for i, step in enumerate(steps_) if text in (getattr(step, "task", ""), getattr(step, "observations", "")))  # fmt: skip
        assert text in context.read(f"step:{place + 1}")


def test_nothing_but_a_task_is_not_compacted_and_the_model_is_not_asked() -> None:
    context, memory = ContextManager(8_000), AgentMemory(SYSTEM)
    context.ask = lambda messages: pytest.fail("there is nothing to summarise")
    memory.steps = [TaskStep("task")]
    assert context.make_room(memory, None) is None
    context.request()
    assert context.make_room(memory, None) is None
    memory.steps = [TaskStep("long " * 20_000)]
    compacted = context.make_room(memory, None)
    assert compacted.rung in ("mechanical", "hard") and context.count(memory) <= 6_000


def test_a_system_prompt_that_fills_the_window_is_sent_and_costs_no_summaries() -> None:
    context, memory = ContextManager(4_000), AgentMemory("rule " * 10_000)
    context.ask = lambda messages: pytest.fail("no summary could help")
    converse(context, memory, [TaskStep("task"), *(action(n) for n in range(30))], None, is_alternating)
    assert len(context.render(memory)) > 1


def test_the_users_words_the_plan_and_the_last_step_stay_word_for_word() -> None:
    pinned = "## Your plan\n- [>] measure it"
    context, memory = ContextManager(8_000, pinned=lambda: pinned), AgentMemory("system")
    context.ask = writes("Goal: beat the baseline.")
    conversation = [TaskStep("Beat 0.871."), *(action(n, THOUGHT, f"loss {n} " + "y" * 900) for n in range(40))]
    conversation.insert(20, TaskStep("Use seed 1234 only."))
    converse(context, memory, conversation, None, lambda messages: None)
    shown = text_of(context.render(memory))
    compactions = [step for step in memory.steps if isinstance(step, CompactionStep) and not step.only_masks]
    assert len(compactions) >= 2
    assert "Beat 0.871." in shown and "Use seed 1234 only." in shown and "Goal: beat the baseline." in shown
    assert pinned in shown and shown.index(pinned) > shown.index("Goal: beat")
    assert "loss 39" in shown and "loss 3 " not in shown
    assert "loss 3 " in context.read("history", grep="loss 3 ")
    assert conversation[4].observations.startswith("loss 3"), "the record is as it was"


def test_a_summary_that_fails_is_made_without_the_model_and_keeps_what_was_known() -> None:
    context, memory = ContextManager(8_000), AgentMemory("system")
    answers = itertools.chain([writes("The learning rate is 3e-4."), writes("  ")], itertools.repeat(writes("")))
    context.ask = lambda messages: next(answers)(messages)
    converse(
        context, memory, [TaskStep("task"), *(action(n, THOUGHT, f"seen {n} " * 150) for n in range(60))], None, len
    )
    rungs = [step.rung for step in memory.steps if isinstance(step, CompactionStep) and not step.only_masks]
    assert rungs[:3] == ["summary", "mechanical", "mechanical"]
    assert "3e-4" in text_of(context.render(memory))


def test_old_observations_become_a_line_in_batches_of_a_fifth_and_can_be_read_back() -> None:
    context, memory = ContextManager(most=20_000), AgentMemory("system")
    context.ask = writes("done so far")
    converse(context, memory, [TaskStep("task"), *(action(n, None, f"value {n} " + "z" * 2_000) for n in range(26))], None, len)  # fmt: skip
    masks = [step for step in memory.steps if isinstance(step, CompactionStep)]
    assert [step.rung for step in masks] == ["mask"] and masks[0].before - masks[0].after >= 4_000
    shown = text_of(context.render(memory))
    assert "value 2 " not in shown and "value 25 " in shown and "I take step 2." in shown
    handle = shown.split("no longer shown: read_artifact('")[3].split("'")[0]
    assert "value 2 " in context.read(handle)


def test_a_resumed_conversation_renders_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "00000000-0000-4000-8000-000000000000.jsonl"
    journal = Journal(path)
    recorder = TraceRecorder(journal, "model")
    context, memory = ContextManager(8_000, store=ArtifactStore(tmp_path / "kept")), AgentMemory(SYSTEM)
    context.ask, context.tell = writes("Tried: 学习率 3e-4. 🙂"), recorder.compacted
    converse(
        context, memory, [TaskStep("task"), *(action(n, THOUGHT, f"seen {n} " * 400) for n in range(50))], None, len
    )
    journal.close()
    restored = [step for row in read_rows(path) if (step := compaction_of(row))]
    kept = [step for step in memory.steps if isinstance(step, CompactionStep)]
    assert len(restored) == len(kept) >= 3 and {step.rung for step in kept} >= {"mask", "summary"}
    again, left = AgentMemory(SYSTEM), iter(restored)
    again.steps = [next(left) if isinstance(step, CompactionStep) else step for step in memory.steps]
    fresh = ContextManager(8_000, store=ArtifactStore(tmp_path / "kept"))
    assert json.dumps([m.dict() for m in fresh.render(again)]) == json.dumps(
        [m.dict() for m in context.render(memory)]
    )


def test_counting_learns_from_the_provider_and_passes_over_nonsense() -> None:
    context, memory = ContextManager(100_000), AgentMemory("system " * 500)
    model = WindowedModel(100_000, None, characters=2.0)
    converse(context, memory, [TaskStep("task"), *(action(n, None, "w" * 3_000) for n in range(20))], model, len)
    counted = model.count(context.render(memory))
    assert abs(context.count(memory) - counted) < 0.03 * counted
    for nonsense in (0, 1, 10**9):
        context.measured(nonsense)
        assert abs(context.count(memory) - counted) < 0.03 * counted
