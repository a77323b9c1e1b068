"""What only a terminal shows: the question, its answers, Ctrl-C, and the moving line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from stage import PUSH
from terminal import STAGE, Terminal

from ml_intern.cli.run import refusal

PLAY = f"runpy.run_path('{STAGE}', run_name='__main__')"
PROMPT = "allow it? [y/e/n/s] > "


@pytest.mark.parametrize(
    ("typed", "code", "says"), [("y\n", 0, "✓ approved by terminal"), ("s\n", 4, "■ stopped by terminal")]
)
def test_a_letter_answers(typed: str, code: int, says: str) -> None:
    with Terminal(str(STAGE), "question") as terminal:
        card = terminal.until(PROMPT)
        for part in (
            "hub_push wants to change",
            'repo_id    "me/imdb-tiny"',
            "12.3 MB  sha256 4fa8e21c4fa8",
            "| test | 0.874 |",
        ):
            assert part in card
        terminal.type(typed)
        assert terminal.ends() == code
        assert says in terminal.screen


def test_a_no_takes_a_reason() -> None:
    with Terminal(str(STAGE), "question") as terminal:
        terminal.until(PROMPT)
        terminal.type("maybe\n")
        terminal.until("one letter")
        terminal.type("NO\n")
        terminal.until("reason, if you like > ")
        terminal.type("the card lacks a licence — größer\n")
        assert terminal.ends() == 1
        assert "✗ rejected by terminal: the card lacks a licence — größer" in terminal.screen


def test_ctrl_c_at_the_question_is_a_stop() -> None:
    with Terminal(str(STAGE), "question") as terminal:
        terminal.until(PROMPT)
        terminal.type("\x03")
        assert terminal.ends() == 4
        assert "■ stopped by terminal" in terminal.screen
        assert "Traceback" not in terminal.screen


def test_ctrl_d_at_the_question_is_a_no() -> None:
    with Terminal(str(STAGE), "question") as terminal:
        terminal.until(PROMPT)
        terminal.type("\x04")
        assert terminal.ends() == 1
        assert "✗ rejected by terminal: the terminal was closed" in terminal.screen


def test_what_was_typed_before_is_no_answer() -> None:
    with Terminal("-c", f"import runpy, time; time.sleep(1); {PLAY}", "question") as terminal:
        terminal.type("y\ny\n")
        terminal.until(PROMPT)
        terminal.read(0.6)
        assert terminal.process.poll() is None
        assert "approved" not in terminal.screen
        terminal.type("s\n")
        assert terminal.ends() == 4


def test_the_question_stands_still_while_the_session_goes_on() -> None:
    """Neither the moving line nor other events write below the prompt."""
    with Terminal(str(STAGE), "errand", "--fast") as terminal:
        terminal.until(PROMPT)
        before = terminal.raw
        terminal.read(0.5)
        assert terminal.raw == before
        terminal.type("y\n")
        assert terminal.ends() == 0
        after = terminal.screen.split(PROMPT)[1]
        assert after.index("approved") < after.index("told during the question")


def test_a_question_is_taken_back_when_the_session_ends() -> None:
    with Terminal(str(STAGE), "withdrawn") as terminal:
        terminal.until(PROMPT)
        assert terminal.ends() == 3
        assert "An hour is over." in terminal.screen


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_one_stop_ends_the_turn(how: str) -> None:
    with Terminal(str(STAGE), "endless") as terminal:
        terminal.until("running code")
        terminal.signal(signal.SIGTERM) if how == "SIGTERM" else terminal.type("\x03")
        assert terminal.ends() == 130
        assert "stopping; press Ctrl-C again to quit" in terminal.screen
        assert "■ Interrupted" in terminal.screen
        assert (
            terminal.raw.rstrip().endswith("when you like; the trace has what was done so far")
            or "next" in terminal.screen
        )


def test_two_stops_end_the_program_at_once() -> None:
    with Terminal(str(STAGE), "stubborn") as terminal:
        terminal.until("thinking")
        terminal.type("\x03")
        terminal.until("press Ctrl-C again")
        terminal.until("stopping  0 s")
        started = time.monotonic()
        terminal.type("\x03")
        assert terminal.ends(3) == 130
        assert time.monotonic() - started < 1
        assert "Traceback" not in terminal.screen
        assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h"), "the cursor is back"


def test_the_moving_line_says_what_goes_on() -> None:
    with Terminal(str(STAGE), "errand") as terminal:
        for part in (
            "loading litellm  1 s",
            "step 1 waiting for the model",
            "thinking",
            "film reviews",
            'hub_search_datasets(query="imdb sentiment',
            "…  0 s  3.3k tokens · $0.0042",
            "running code",
        ):
            terminal.until(part)


def test_a_narrow_terminal_is_never_overrun() -> None:
    with Terminal(str(STAGE), "errand", "--fast", columns=44) as terminal:
        terminal.until("> ")
        terminal.type("y\n")
        terminal.ends()
        written = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.raw)
        moving = [line for line in re.split("[\r\n]", written) if re.match("[⠀-⣿]", line)]
        assert moving
        assert max(map(len, moving)) < 44


def staged(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(STAGE), *words]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, env=os.environ | environment
    )


def test_without_a_terminal_the_answer_is_no_and_says_how_to_allow_it() -> None:
    shown = staged("question")
    assert shown.returncode == 1
    assert "hub_push wants to change" in shown.stdout
    assert "--yes" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_the_refusal_names_the_rule_that_would_allow_it() -> None:
    assert "--allow 'hub_push:me/*:private' allows this kind" in refusal(replace(PUSH, rule="hub_push:me/*:private"))
    assert "no rule can allow" in refusal(replace(PUSH, rule=""))


def test_yes_is_loud_and_shows_what_it_approves() -> None:
    shown = staged("question", "--yes")
    assert shown.returncode == 0
    assert "hub_push wants to change" in shown.stdout
    assert "✓ approved by --yes" in shown.stdout


def test_json_is_json_and_nothing_else() -> None:
    shown = staged("errand", "--fast", "--json")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert (rows[0]["event"], rows[-1]["event"]) == ("session_started", "session_ended")
    assert next(row for row in rows if row["event"] == "approval_answered")["answer"]["decision"] == "reject"
    assert shown.stdout.isascii()
    assert shown.stderr == ""


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_closed_pipe_ends_quietly(flags: tuple[str, ...]) -> None:
    piped = ["bash", "-c", '"$0" "$@" | head -n 1; exit ${PIPESTATUS[0]}', sys.executable, str(STAGE), "flood", *flags]
    shown = subprocess.run(piped, capture_output=True, text=True, timeout=30)
    assert shown.returncode == 141
    assert len(shown.stdout.splitlines()) == 1
    assert shown.stderr == ""


def test_nobody_waits_for_an_answer_from_a_reader_who_left() -> None:
    started = time.monotonic()
    piped = ["bash", "-c", '"$0" "$@" | head -n 1', sys.executable, str(STAGE), "abandoned"]
    shown = subprocess.run(piped, capture_output=True, text=True, timeout=30)
    assert shown.stderr == "answered: stop\n"
    assert time.monotonic() - started < 8


def test_a_terminal_without_unicode_gets_escapes() -> None:
    shown = staged("question", PYTHONIOENCODING="ascii")
    assert shown.returncode == 1
    assert "\\u2717 rejected" in shown.stdout


def test_no_color() -> None:
    with Terminal("-c", f"import os, runpy; os.environ['NO_COLOR'] = '1'; {PLAY}", "question") as terminal:
        terminal.until(PROMPT)
        terminal.type("y\n")
        assert terminal.ends() == 0
        colours = {
            code for codes in re.findall(r"\x1b\[([0-9;]*)m", terminal.raw) for code in codes.split(";") if code
        }
        assert colours <= {"0", "1", "2", "3"}, colours
