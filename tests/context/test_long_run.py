"""Hundreds and thousands of steps through a window: nothing overflows, nothing slows down, nothing that matters is lost."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from conversations import WindowedModel, action, text_of, writes
from smolagents import LogLevel, Tool
from smolagents.memory import AgentMemory, TaskStep

from ml_intern.agent import InternAgent
from ml_intern.context import ArtifactStore, ContextManager
from ml_intern.steps import CompactionStep
from ml_intern.trace import Journal, TraceRecorder

SEED = 20260
FACTS = {f"FACT-{n:02}": f"the value of {n} is {n * 7919 % 10007}" for n in range(20)}
IN_TASK, IN_RESULTS, IN_DECISIONS = list(FACTS)[:4], list(FACTS)[4:14], list(FACTS)[14:]


def stated(name: str) -> str:
    return f"{name}: {FACTS[name]}"


class Fetch(Tool):
    name, description, output_type, effects = "fetch", "Fetches text number i.", "string", "read"
    inputs = {"i": {"type": "integer", "description": "Which."}}

    def __init__(self, planted: dict[int, str], largest: int) -> None:
        super().__init__()
        self.planted, self.largest = planted, largest
        self.text = "".join(f"row {n}, loss {n * 37 % 1000}, lr {n % 9}e-4\n" for n in range(largest // 20))

    def forward(self, i: int) -> str:
        size = 4_000 * (self.largest // 4_000) ** ((i * 13 % 17) / 16)
        text = self.text[: int(size)]
        if i in self.planted:
            middle = len(text) // 2
            text = f"{text[:middle]}\n{self.planted[i]}\n{text[middle:]}"
        return text


def pss_mb() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def long_run(
    steps: int, window: int, largest: int, folder: Path
) -> tuple[InternAgent, WindowedModel, list[float], float]:
    rng = random.Random(SEED)
    places = rng.sample(range(2, steps - 1), len(IN_RESULTS) + len(IN_DECISIONS))
    planted = {place: stated(name) for place, name in zip(places, IN_RESULTS, strict=False)}
    decided = {place: stated(name) for place, name in zip(places[len(IN_RESULTS) :], IN_DECISIONS, strict=True)}

    def say(call: int, messages: list[Any]) -> str:
        if call == steps - 1:
            return "I am done.\n<code>\nfinal_answer('done')\n</code>"
        decision = f" I have decided, {decided[call]}." if call in decided else ""
        return f"I look at text {call}.{decision}\n<code>\nr = fetch(i={call})\nprint(r)\n</code>"

    model = WindowedModel(window, say)
    journal = Journal(folder / "00000000-0000-4000-8000-000000000000.jsonl")
    context = ContextManager(store=ArtifactStore(journal.artifacts), pinned=lambda: "## Your notes\n- seed 1234")
    durations: list[float] = []
    clock = [time.perf_counter()]

    def tick(step: Any, agent: Any) -> None:
        durations.append(time.perf_counter() - clock[0])
        clock[0] = time.perf_counter()

    agent = InternAgent(
        [Fetch(planted, largest)], model, max_steps=steps + 1, verbosity_level=LogLevel.OFF, step_callbacks=[tick],
        observers=[TraceRecorder(journal, "windowed")], context=context,
    )  # fmt: skip
    assert agent.run("Read all texts.\n" + "\n".join(map(stated, IN_TASK))) == "done"
    journal.close()
    return agent, model, durations, pss_mb()


def lost_facts(agent: InternAgent) -> list[str]:
    """The facts that neither stand in the prompt nor come back with one `read_artifact`."""
    shown = text_of(agent.context.render(agent.memory))
    assert "read_artifact(" in shown, "the prompt says how to read what it does not show"
    return [
        name
        for name, fact in FACTS.items()
        if fact not in shown and fact not in agent.context.read("history", grep=f"{name}:")
    ]


def check_run(agent: InternAgent, model: WindowedModel, window: int) -> None:
    assert model.refused == 0 and model.biggest <= window
    assert lost_facts(agent) == []
    compactions = [step for step in agent.memory.steps if isinstance(step, CompactionStep)]
    assert len(compactions) >= 2
    assert model.summaries == sum(step.rung == "summary" for step in compactions)
    places = [step.at for step in compactions]
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(places))
    moved = [share for share in model.shares if share < 0.99]
    assert len(moved) <= len(compactions), "outside compactions and masking a request begins with the one before it"


@pytest.mark.long
@pytest.mark.parametrize(
    ("steps", "window", "largest"), [(200, 8_000, 40_000), pytest.param(120, 40_000, 400_000, marks=pytest.mark.soak)]
)
def test_hundreds_of_steps(steps: int, window: int, largest: int, tmp_path: Path) -> None:
    agent, model, _durations, _ = long_run(steps, window, largest, tmp_path)
    check_run(agent, model, window)
    agent.cleanup()


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("window", [8_000, 200_000])
def test_three_thousand_steps(window: int, tmp_path: Path) -> None:
    before = pss_mb()
    agent, model, durations, after = long_run(3_000, window, 400_000, tmp_path)
    check_run(agent, model, window)
    early, late = statistics.median(durations[5:505]), statistics.median(durations[-500:])
    print(f"\nwindow {window}: {early * 1000:.2f} ms a step early, {late * 1000:.2f} late; {before:.0f} to {after:.0f} MB; "
          f"{model.summaries} summaries; at most {model.biggest} tokens")  # fmt: skip
    assert late <= 1.3 * early + 0.003  # most of it is files of up to 400 kB, on whatever disk there is
    assert after - before <= 150
    agent.cleanup()


def test_compacting_a_thousand_steps_takes_no_time_beside_the_models() -> None:
    context, memory = ContextManager(4_000_000, most=4_000_000), AgentMemory("system")
    context.ask = writes("Goal: go on.")
    memory.steps = [TaskStep("task"), *(action(n, None, f"seen {n} " * 450) for n in range(1_000))]
    context.render(memory)
    took = []
    for _ in range(5):
        context.request()
        started = time.perf_counter()
        step = context.make_room(memory, None)
        context.render(memory)
        took.append(time.perf_counter() - started)
        assert step is not None and step.rung == "summary" and step.start >= 999
        del memory.steps[-1]
        context.render(memory)
    context.ask = writes("")
    context.request()
    started = time.perf_counter()
    assert context.make_room(memory, None).rung == "mechanical"
    took.append(time.perf_counter() - started)
    print("compaction of 1,000 steps:", [f"{seconds * 1000:.1f} ms" for seconds in took])
    assert min(took) <= 0.050 and took[-1] <= 0.1


def test_a_step_costs_what_it_adds_however_long_the_conversation() -> None:
    context, memory = ContextManager(40_000_000, most=40_000_000), AgentMemory("system")
    memory.steps = [TaskStep("task")]
    took: list[float] = []
    for n in range(3_000):
        memory.steps.append(action(n, None, "seen " * 800))
        started = time.perf_counter()
        context.make_room(memory, None)
        context.render(memory)
        took.append(time.perf_counter() - started)
    assert statistics.median(took[-200:]) - statistics.median(took[10:210]) <= 0.000_3
