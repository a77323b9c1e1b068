"""Sessions that are killed while a sub-agent of theirs is at work, and go on: each thing it was to do happens once.

What must never happen: a call of a sub-agent's twice, or one that was approved not at all; its task passes for one that ended,
or begins again by itself; words to the agent above it are lost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from sessions.crashes import Crashes, Point, Services, Zygote, draw, draw_resuming

from ml_intern.testing import LocalHub
from ml_intern.trace import note_of, read_rows
from ml_intern.trace.subagents import traces_of_sub_agents

BELOW = (
    "SidechainJournal._write", "Delegate._begin", "Delegate._end", "TraceRecorder.agent_started", "TraceRecorder.agent_ended",
    "TraceRecorder.called", "Settling._cut_off", "Settling._call", "Settling._find_out", "Delegate.calling", "runs_of",
    "put_down", "TraceRecorder.steered",
)  # fmt: skip
FIRST, KILLS = 41_000, 4


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    folder = tmp_path_factory.mktemp("crashes-below")
    services = Services()
    with LocalHub(folder / "hub") as hub:
        zygote = Zygote(hub)
        yield Crashes(folder, hub, services, zygote)
        zygote.close()
    services.close()


def test_without_a_crash_it_does_each_thing_once(crashes: Crashes) -> None:
    calm = crashes.run([], below=True)
    assert not calm.problems
    assert len(traces_of_sub_agents(calm.trace)) == 1


@pytest.mark.parametrize("place", ["Announce.forward:return", "HubPushTool._commit:return"])
def test_killed_while_its_call_had_taken_effect(crashes: Crashes, place: str) -> None:
    point, _, side = place.rpartition(":")
    run = crashes.run([Point(point, side)], below=True)
    assert run.hit and not run.problems, run.problems
    first = next(
        note for row in read_rows(run.trace) if (note := note_of(row)) is not None and note["kind"] == "subagent"
    )
    assert first["state"] == "interrupted" and "was cut off" in first["report"]


def _seeded(crashes: Crashes, seed: int):
    chance = random.Random(seed)
    points = [draw(chance, 60, 12_000), draw_resuming(chance)]
    if chance.random() < 0.85:
        points[0] = Point(
            chance.choice(BELOW[:5]),
            chance.choice(("call", "return")),
            chance.randint(1, 8 if chance.random() < 0.5 else 1),
        )
    if chance.random() < 0.4:
        points[1] = Point(chance.choice(BELOW[5:]), chance.choice(("call", "return")), chance.randint(1, 3))
    return crashes.run(points, seed, below=True)


@pytest.mark.long
def test_killed_and_killed_again_while_it_resumes(crashes: Crashes) -> None:
    """A seeded sample of points; `make soak` has many more."""
    kills, problems, seed = 0, {}, FIRST
    while kills < KILLS:
        run = _seeded(crashes, seed)
        kills, seed = kills + len(run.hit), seed + 1
        if run.problems:
            problems[seed - 1] = (run.hit, run.problems)
        assert seed < FIRST + 30, "hardly any point is hit"
    assert not problems, problems


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_many_seeded_points(crashes: Crashes) -> None:
    problems, kills = {}, 0
    for seed in range(FIRST + 1000, FIRST + 1150):
        run = _seeded(crashes, seed)
        kills += len(run.hit)
        if run.problems:
            problems[seed] = (run.hit, run.problems)
    print(f"\n{kills} kills in 150 sessions")
    assert not problems, problems
    assert kills > 120
