"""The command line on the real engine: model's words scripted, everything below them as it is."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from cli.forks import FORKS
from terminal import ERRAND, Terminal

from ml_intern.execution.jobs import LocalJobs


def errand(name: str, home: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return FORKS.run([str(ERRAND), name, str(home), *flags])


def traces(home: Path) -> list[Path]:
    return list((home / "sessions").glob("*.jsonl"))


def test_a_task_from_beginning_to_end(tmp_path: Path) -> None:
    shown = errand("works", tmp_path, "--lend")
    assert (shown.returncode, shown.stderr) == (0, "")
    for part in (
        "  ! told from outside\n",
        "task       An errand that works\n",
        "jail       ",
        "Step 1\n  I count.\n",
        "    for n in range(43):\n",
        "  │ … 35 lines before\n  │ line 35\n",
        "division by zero",
        "✓ Done  3 steps · ",
        "  forty-two\n",
    ):
        assert part in shown.stdout, part
    assert "final_answer(answer" not in shown.stdout, "the answer is told once"
    [trace] = traces(tmp_path)
    assert f"trace      {trace}\n" in shown.stdout


def test_the_same_as_json(tmp_path: Path) -> None:
    shown = errand("works", tmp_path, "--json")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert shown.returncode == 0
    assert rows[0]["event"] == "session_started"
    assert (rows[-1]["event"], rows[-1]["outcome"]["answer"]) == ("session_ended", "forty-two")
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))


def test_out_of_steps(tmp_path: Path) -> None:
    shown = errand("too-long", tmp_path)
    assert shown.returncode == 3
    assert "■ Out of steps  2 steps" in shown.stdout
    assert "--max-iterations" in shown.stdout


def test_what_nobody_can_be_asked_about_is_denied(tmp_path: Path) -> None:
    shown = errand("publishes", tmp_path)
    assert shown.returncode == 4
    assert "? hub_push wants to change something outside" in shown.stdout
    assert "out/README.md  12 bytes  sha256 " in shown.stdout
    assert "--yes" in shown.stdout


def test_a_stop_at_the_question_ends_the_turn(tmp_path: Path) -> None:
    with Terminal(str(ERRAND), "publishes", str(tmp_path)) as terminal:
        card = terminal.until("/s] > ", 30)
        assert "out/README.md  12 bytes  sha256 " in card
        assert "│ # A data set" in card
        terminal.type("s\n")
        assert terminal.ends(20) == 4
        assert "Step 2" not in terminal.screen


def test_ctrl_c_stops_code_that_never_ends(tmp_path: Path) -> None:
    with Terminal(str(ERRAND), "never-ends", str(tmp_path)) as terminal:
        terminal.until("│ here I am", 30)
        started = time.monotonic()
        terminal.type("\x03")
        assert terminal.ends(20) == 130
        assert time.monotonic() - started < 6
        assert "■ Interrupted" in terminal.screen
        assert "Traceback" not in terminal.screen
    [trace] = traces(tmp_path)
    assert [json.loads(line) for line in trace.read_text().splitlines()], "the trace is whole"


def test_a_session_is_gone_on_with(tmp_path: Path) -> None:
    assert errand("keeps", tmp_path).returncode == 0
    [trace] = traces(tmp_path)
    idle = errand("again", tmp_path, f"--resume={trace.stem[:6]}")
    assert idle.returncode == 1
    assert "nothing to go on with" in idle.stderr
    shown = errand("again", tmp_path, f"--resume={trace.stem[:6]}", "--say=what was it?")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\n  still a value\n" in shown.stdout
    assert traces(tmp_path) == [trace]


@pytest.mark.parametrize(("said", "state"), [("y", "stopped"), ("n", "running")])
def test_ctrl_c_asks_whether_training_is_to_end_as_well(tmp_path: Path, said: str, state: str) -> None:
    with Terminal(str(ERRAND), "trains", str(tmp_path)) as terminal:
        terminal.until("│ job local-", 30)
        terminal.type("\x03")
        terminal.until("End it as well? [y/N]", 20)
        terminal.type(f"{said}\n")
        assert terminal.ends(30) == 130
    (folder,) = (tmp_path / "sessions").glob("*/jobs")
    jobs = LocalJobs(None, folder)
    (job_id,) = jobs.list()
    try:
        assert jobs.status(job_id)["state"] == state
    finally:
        jobs.stop_all()
