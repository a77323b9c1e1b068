"""Sessions that are killed anywhere and go on: they end as if nothing had been.

What must never happen: a commit, a job or an announcement twice, or not at all; a row lost or doubled; a question about what
was answered; an answer of the model asked for again that is on record; a call that goes out before the disk has its row.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from sessions.conftest import code, until
from sessions.crash_child import STEPS, Errand
from sessions.crashes import CHILD, PLACES, Crashes, Point, Services, Zygote, draw, draw_resuming, environment

from ml_intern import InternError
from ml_intern.testing import LocalHub, ScriptedModel
from ml_intern.trace import read_rows

FIRST, KILLS = 20_027, 20
"""Where the seeds begin of the sample that every run of the tests takes (most points of these are passed), and kills in it."""


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    folder = tmp_path_factory.mktemp("crashes")
    services = Services()
    with LocalHub(folder / "hub") as hub:
        zygote = Zygote(hub)
        yield Crashes(folder, hub, services, zygote)
        zygote.close()
    services.close()


def test_without_a_crash_it_does_each_thing_once(crashes: Crashes) -> None:
    calm = crashes.run([])
    assert not calm.problems
    rows = list(read_rows(calm.trace))
    assert sum(row.get("subtype") == "compact_boundary" for row in rows) == 1
    assert [step for run, step in crashes.services.thoughts if run == calm.name] == list(range(1, STEPS + 1))
    asked = [arguments["repo_id"] for run, _, arguments in crashes.services.asked if run == calm.name]
    assert asked == [f"tester/asked-{calm.name}"]


def test_what_is_to_be_uploaded_is_marked_at_compactions_and_at_the_end(crashes: Crashes) -> None:
    run = crashes.run([Point("SharingHome.want", "return", 2)])
    assert run.hit and not run.problems


def test_what_goes_wrong_is_seen(crashes: Crashes) -> None:
    """The looks at the end can fail: a job more, a commit more, a row less."""
    run = crashes.run([])
    crashes.services.jobs[run.name, "another"] += 1
    crashes.services.announced[run.name] += 1
    crashes.hub.seed(f"tester/allowed-{run.name}", "dataset", {"x": b"1"})
    lines = run.trace.read_bytes().splitlines(keepends=True)
    place = next(place for place, line in enumerate(lines) if b'"name":"job"' in line)
    run.trace.write_bytes(b"".join(lines[: place + 1] + lines[place + 2 :]) + lines[3])
    crashes.look(run, run.trace.parent.parent)
    said = "\n".join(run.problems)
    for word in ("jobs by key", "announced 2", "allowed: commits", "twice", "calls and results", "whole trace"):
        assert word in said, (word, said)


@pytest.mark.long
def test_killed_and_killed_again_while_it_resumes(crashes: Crashes) -> None:
    """A seeded sample of points; `make soak` has all of them."""
    lines = _lines(crashes)
    kills, problems, seed = 0, {}, FIRST
    while kills < KILLS:
        run = _seeded(crashes, seed, lines)
        kills, seed = kills + len(run.hit), seed + 1
        if run.problems:
            problems[seed - 1] = (run.hit, run.problems)
        assert seed < FIRST + 40, "hardly any point is hit"
    assert not problems, problems


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_on_both_sides_of_every_row(crashes: Crashes) -> None:
    rows = crashes.run([]).passed["Journal._write:call"]
    points = [Point("Journal._write", side, number) for number in range(1, rows + 1) for side in ("call", "return")]
    _none_fails(crashes, [[point] for point in points], len(points))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_on_both_sides_of_every_place_that_matters(crashes: Crashes) -> None:
    points = [Point(place, side, number) for place in PLACES for side in ("call", "return") for number in (1, 2)]
    first = [Point("Job.forward", "return")]
    resuming = PLACES[PLACES.index("restore") :]
    chains = [[*first, point] if point.point in resuming else [point] for point in points]
    _none_fails(crashes, chains, 100)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_while_the_disk_or_a_service_is_at_it(crashes: Crashes) -> None:
    """Some time after a sync, a push, a job, an upload of the trace or a summary began."""
    chance, chains = random.Random(5), []
    for place, longest in (("Journal.sync", 0.002), ("HubPushTool._ask", 0.05), ("HubPushTool._commit", 0.15),
                           ("Job.forward", 0.01), ("share", 0.3), ("InternAgent._summarise", 0.03)):  # fmt: skip
        number = {"HubPushTool._ask": 12, "HubPushTool._commit": 3, "Journal.sync": 15, "share": 2}.get(place, 1)
        for _ in range(12):
            power = chance.random() < 0.3
            chains.append([Point(place, "call", chance.randint(1, number), chance.uniform(0, longest), power)])
    _none_fails(crashes, chains, 50)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_seeded_points_in_long_chains(crashes: Crashes) -> None:
    lines, problems, kills = _lines(crashes), {}, 0
    for seed in range(1000, 1100):
        run = _seeded(crashes, seed, lines)
        kills += len(run.hit)
        if run.problems:
            problems[seed] = (run.hit, run.problems)
    print(f"\n{kills} kills in 100 sessions")
    assert not problems, problems
    assert kills > 150


def _lines(crashes: Crashes) -> int:
    return crashes.run([Point("line", number=10**9)]).passed["line:call"]


def _seeded(crashes: Crashes, seed: int, lines: int):
    chance = random.Random(seed)
    points = [draw(chance, 51, lines), draw_resuming(chance), draw_resuming(chance), draw(chance, 51, lines)]
    return crashes.run(points, seed)


def _none_fails(crashes: Crashes, chains: list[list[Point]], least: int) -> None:
    problems, kills = {}, 0
    for number, chain in enumerate(chains):
        run = crashes.run(chain, number)
        kills += len(run.hit)
        if run.problems:
            problems[", ".join(map(str, chain))] = run.problems
    print(f"\n{kills} kills in {len(chains)} sessions")
    assert not problems, problems
    assert kills >= least


def test_the_disk_has_a_call_before_its_service_hears_of_it(crashes: Crashes) -> None:
    """By the clock, which is one for all processes: the sync of a call's row returns before its service is connected to."""
    run = crashes.run([])
    synced = [json.loads(line) for line in (run.trace.parent.parent / "syncs").read_text().splitlines()]
    [job] = [key for name, key in crashes.services.jobs if name == run.name]
    [connected] = [at for key, at in crashes.services.heard if key == job]
    row_ends = _ends_of_calls(run.trace)[job]
    assert next(at for at, size in synced if size >= row_ends) < connected


def _ends_of_calls(trace: Path) -> dict[str, int]:
    """Where in the trace the row of each call ends that is no mere reading."""
    ends, place = {}, 0
    for line in trace.read_bytes().splitlines(keepends=True):
        place += len(line)
        row = json.loads(line)
        if row.get("effects", "read") != "read":
            ends[row["message"]["content"][0]["id"]] = place
    return ends


def _strace() -> str | None:
    """Where `strace` is, if it may watch a process here."""
    found = shutil.which("strace")
    works = (
        found and subprocess.run([found, "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0
    )
    return found if works else None


@pytest.mark.long
@pytest.mark.skipif(_strace() is None, reason="strace is not there, or may not watch processes")
def test_the_kernel_returns_from_the_sync_before_the_first_byte_is_sent(crashes: Crashes, tmp_path: Path) -> None:
    """The same as the kernel sees it: `fdatasync` of the trace has returned 0 between a call's row and its request."""
    home, log = tmp_path / "home", tmp_path / "strace"
    home.mkdir()
    errand = Errand(str(home), crashes.services.url, "traced")
    watched = "write,sendto,sendmsg,fdatasync"
    process = subprocess.run(
        [str(_strace()), "-f", "--seccomp-bpf", "-y", "-s", "4000", "-e", f"trace={watched}", "-o", str(log), sys.executable, str(CHILD)],
        input=json.dumps(asdict(errand)) + "\n", text=True, capture_output=True, timeout=100, check=False,
        env={**environment(crashes.hub), "ML_INTERN_SHARE_TRACES": "0"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    [trace] = (home / "sessions").glob("*.jsonl")
    calls = {
        row["message"]["content"][0]["id"]: row["message"]["content"][0]["name"]
        for row in read_rows(trace)
        if row.get("effects", "read") != "read"
    }
    events = list(_events(log.read_text(errors="replace"), str(trace)))
    sent = 0
    for call, name in calls.items():
        written = next(place for place, (kind, text) in enumerate(events) if kind == "write" and call in text)
        synced = next(place for place, (kind, _) in enumerate(events) if kind == "synced" and place > written)
        first = next((place for place, (kind, text) in enumerate(events) if kind == "sent" and call in text), None)
        assert first is not None or name == "announce", name
        if first is not None:
            sent += 1
            assert written < synced < first, (name, events[written : first + 1])
    assert sent >= 4


def _events(log: str, trace: str) -> Iterator[tuple[str, str]]:
    """Rows as they are written, syncs as they have returned, requests as they begin to be sent."""
    syncing: set[str] = set()
    for line in log.splitlines():
        thread, _, said = line.partition(" ")
        said = said.strip()
        if said.startswith("fdatasync(") and trace in said:
            if said.endswith("= 0"):
                yield "synced", ""
            else:
                syncing.add(thread)
        elif said.startswith("<... fdatasync resumed>") and thread in syncing:
            syncing.discard(thread)
            if said.endswith("= 0"):
                yield "synced", ""
        elif said.startswith("write(") and trace in said:
            yield "write", said
        elif re.match(r"(sendto|sendmsg|write)\(\d+<(socket|TCP)", said):
            yield "sent", said


def test_who_comes_second_is_told_who_holds_a_session(crashes: Crashes, build: Callable, home: Path) -> None:
    def slow(messages):
        time.sleep(3)
        return code("final_answer(1)")

    intern = build(ScriptedModel([slow]))
    session = intern.submit("Take your time.")
    until(lambda: session.model.calls == 1)
    before = session.trace.read_bytes()
    log = home / "log"
    assert crashes.zygote.run(Errand(str(home), crashes.services.url, "second", session.id)) == 1
    said = log.read_text()
    assert f"Session {session.id} is open in another process (process {os.getpid()})" in said
    assert "Close it there first." in said
    assert session.trace.read_bytes() == before
    again = build(ScriptedModel([]))
    with pytest.raises(InternError, match=rf"process {os.getpid()}, this one"):
        again.resume(session.id)
    assert not again.sessions
    assert session.wait(20).answer == 1
