"""A conversation at a terminal, on the real engine. What must never happen: typing is lost, or answers what was not read."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from terminal import Terminal

from ml_intern.testing import LocalLLM, scripted

ERRAND = Path(__file__).with_name("errand.py")
MARK, BUSY = "a task, or /help", "a word to the agent"
ENTER, ALT_ENTER, CTRL_C, CTRL_D = "\r", "\x1b\r", "\x03", "\x04"
PASTE = "\x1b[200~{}\x1b[201~"


def chat(name: str, home: Path, *flags: str, columns: int = 80, **environment: str) -> Terminal:
    return Terminal(str(ERRAND), name, str(home), "--chat", *flags, columns=columns, **environment)


def last(terminal: Terminal, before: int) -> str:
    return terminal.screen[before:]


def say(terminal: Terminal, text: str, until: str, seconds: float = 30) -> str:
    """Types a line and waits for what comes of it."""
    before = len(terminal.screen)
    terminal.type(text + ENTER)
    end = time.monotonic() + seconds
    while until not in terminal.screen[before:]:
        assert time.monotonic() < end, f"{until!r} did not appear in:\n{terminal.screen[before:][-3000:]}"
        terminal.read(0.05)
    return terminal.screen[before:]


def rows(home: Path) -> list[dict]:
    [trace] = (home / "sessions").glob("*.jsonl")
    return [json.loads(line) for line in trace.read_text().splitlines()]


def test_a_conversation(tmp_path: Path) -> None:
    """Steered while it works, then a second turn in the same session, then commands, then gone on with."""
    with chat("talks", tmp_path, "--budget", OLLAMA_BASE_URL="http://127.0.0.1:9") as terminal:
        greeting = terminal.until(MARK, 30)
        for part in ("model      scripted", "jail       ", "mode       ask", "budget     $5.00", "/quit"):
            assert part in greeting
        say(terminal, "count the lines", "running code")
        say(terminal, "be quick", "the model reads this")
        assert "ollama pull" not in say(terminal, "/model ollama/none:1", "Nothing answers for ollama_chat/none:1")
        terminal.until("✓ Done", 30)
        assert "→ the agent has read: be quick" in terminal.screen
        assert "\n  heard: True\n" in terminal.screen
        assert "\n  a value\n" in say(terminal, "remember something", "\n  a value\n")
        assert "100% of" not in say(terminal, "/context", "of 1")
        assert "plan" in say(terminal, "/mode plan", "mode plan: it only reads")
        terminal.type("/comp\t")
        terminal.until("/compact")
        terminal.type(CTRL_C)
        assert "There is no command /nonsense" in say(terminal, "/nonsense", "/help lists them")
        assert "success" in say(terminal, "/sessions", "count the lines")
        say(terminal, "/quit", "To go on with it:")
        assert terminal.ends() == 0
    said = [row["message"]["content"] for row in rows(tmp_path) if row["type"] == "user"]
    assert any("be quick" in str(content) for content in said)
    with chat("talks", tmp_path, "--resume=count the") as terminal:
        assert "count the lines" in terminal.until(MARK, 30)


def test_a_line_may_be_several(tmp_path: Path) -> None:
    with chat("talks", tmp_path) as terminal:
        terminal.until(MARK, 30)
        terminal.type("first\\" + ENTER + "second" + ALT_ENTER + "third " + PASTE.format("pasted\r\nlines"))
        terminal.read(0.3)
        assert not (tmp_path / "sessions").exists() or not list((tmp_path / "sessions").glob("*.jsonl"))
        shown = say(terminal, "", "running code")
        assert "› first\n  second\n  third pasted\n  lines" in shown
        terminal.type(CTRL_C)
        terminal.until("■ Interrupted")
        assert "third pasted" in json.dumps(rows(tmp_path))
    history = tmp_path / "history"
    assert history.stat().st_mode & 0o077 == 0
    assert "+second\n" in history.read_text()


def test_questions_of_the_agent(tmp_path: Path) -> None:
    with chat("asks", tmp_path) as terminal:
        terminal.until(MARK, 30)
        asked = say(terminal, "go", "your answer (1 to 2, or in your words) >")
        assert "1 mit" in asked and "2 apache-2.0" in asked
        say(terminal, "2", "your answer (in your words) >")
        assert "apache-2.0, by Ada" in say(terminal, ", by Ada", "✓ Done")


def test_a_call_is_asked_about_and_refused(tmp_path: Path) -> None:
    with chat("publishes", tmp_path, "--budget") as terminal:
        terminal.until(MARK, 30)
        card = say(terminal, "go", "e/n/s] >")
        for part in ("me/tiny", "private", "$5.00 left of the budget", "12 bytes  sha256 ", "│ # A data set"):
            assert part in card
        assert "waiting" in say(terminal, "/status", "  trace "), "a command may come first"
        say(terminal, "n", "reason, if you like >")
        shown = say(terminal, "not before Monday", "forty-two")
        assert "✗ rejected by terminal: not before Monday" in shown
        terminal.until("■ Denied")
        answers = [row for row in rows(tmp_path) if "approval-answered" in json.dumps(row)]
        assert len(answers) == 1


def test_arguments_are_edited_in_an_editor(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/tiny/other/' \"$1\"\n")
    editor.chmod(0o755)
    with chat("publishes", tmp_path, EDITOR=str(editor)) as terminal:
        terminal.until(MARK, 30)
        say(terminal, "go", "e/n/s] >")
        assert 'repo_id    "me/other"' in say(terminal, "e", "with this instead? [y/n] >")
        assert "me/other" in say(terminal, "y", "e/n/s] >"), "it is looked at again"
        say(terminal, "s", "■ ")


def test_a_draft_outlives_a_question(tmp_path: Path) -> None:
    """Nobody is asked in the middle of a word; what was typed is there again afterwards."""
    with chat("publishes", tmp_path) as terminal:
        terminal.until(MARK, 30)
        terminal.type("go" + ENTER)
        asked = "allow it? ["
        end = time.monotonic() + 30
        typed = ""
        while asked not in terminal.screen and time.monotonic() < end and len(typed) < 15:
            terminal.type("y")
            typed += "y"
            terminal.read(0.2)
        assert asked not in terminal.screen, "it waits for a pause"
        terminal.until(asked)
        terminal.type(ENTER)
        terminal.read(0.5)
        assert "approved" not in terminal.screen
        before = len(terminal.raw)
        say(terminal, "s", "■ ")
        terminal.until(MARK)
        assert "yyyy" in terminal.raw[before:]


def test_ctrl_c_stops_then_leaves(tmp_path: Path) -> None:
    with chat("never-ends", tmp_path) as terminal:
        terminal.until(MARK, 30)
        say(terminal, "go", "running code")
        terminal.type(CTRL_C)
        terminal.until("■ Interrupted")
        terminal.type(CTRL_C)
        terminal.until("Ctrl-C again leaves")
        terminal.type(CTRL_C)
        assert terminal.ends() == 130
        assert "To go on with it:" in terminal.screen
        assert "Traceback" not in terminal.screen


KEYS = [
    *("hello\r", "go on\r", "half ", "\x7f\x7f", "\x1b[A\r", ENTER, ALT_ENTER, PASTE.format("a\r\nb"), CTRL_C),
    *("y\r", "n\rno\r", "s\r", "1\r", "e\r", "a\r", "/se\t\r", "/status\r", "/mode auto\r", "/mode ask\r", "/plan\r"),
    *("/undo\r", "/compact\r", "/context\r", "/approve\r", "/approve hub_push:me/*:private\r", "/fork\r", "/new\r"),
    *("/sessions\r", "/budget usd 1\r", "/tools hub\r", "/resume\r"),
]


@pytest.mark.parametrize(
    ("seed", "seconds"), [(0, 1.5), *(pytest.param(seed, 30.0, marks=pytest.mark.soak) for seed in range(1, 5))]
)
def test_whatever_is_typed_it_goes_on_and_ends(tmp_path: Path, seed: int, seconds: float) -> None:
    chance = random.Random(seed)
    with chat("anything", tmp_path, "--budget", columns=chance.choice([40, 80, 120])) as terminal:
        terminal.until("/help", 30)
        end = time.monotonic() + seconds
        while time.monotonic() < end and terminal.process.poll() is None:
            terminal.type(chance.choice(KEYS))
            terminal.read(chance.choice([0.02, 0.2, 0.8]))
        for _ in range(20):
            if terminal.process.poll() is None:
                terminal.type(CTRL_C)
                terminal.read(0.8)
        assert terminal.ends(30) in (130, -signal.SIGINT)
    for word in ("Traceback (most recent", "This is a bug", "Unhandled"):
        assert word not in terminal.screen


def test_a_dumb_terminal(tmp_path: Path) -> None:
    with chat("talks", tmp_path, TERM="dumb") as terminal:
        terminal.until("› ", 30)
        terminal.type("count\n")
        terminal.until("Step 1", 30)
        terminal.type("be quick\n")
        terminal.until("heard: True", 30)
        terminal.type("/quit\n")
        assert terminal.ends(20) == 0
        assert "\x1b[" not in terminal.raw


@pytest.mark.long
@pytest.mark.parametrize("goes_on", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_the_command_line_talks_to_an_endpoint(tmp_path: Path, goes_on: bool) -> None:
    """`python -m ml_intern` as it stands, no colours, narrow."""
    script = ["<code>\nfinal_answer('hello ' * 2)\n</code>", "<code>\nfinal_answer('once more')\n</code>"]
    with LocalLLM(scripted(script)) as llm:
        environment = {"LLM_ENDPOINT": "vllm/any", "VLLM_BASE_URL": llm.url, "ML_INTERN_SHARE_TRACES": "0"}
        home = {"ML_INTERN_HOME": str(tmp_path), "NO_COLOR": "1"}
        with Terminal("-m", "ml_intern", columns=60, **environment, **home) as terminal:
            terminal.until(MARK, 30)
            say(terminal, "say it", "hello hello", 60)
            terminal.until(MARK)
            terminal.type(CTRL_D)
            assert terminal.ends(20) == 0
        assert "say it" in json.dumps(llm.requests[0])
        more = {**os.environ, **environment, **home}
        if goes_on:
            resume = [
                sys.executable,
                "-m",
                "ml_intern",
                "resume",
                "say it",
                "again, please",
                "--mode",
                "plan",
                "--json",
            ]
            shown = subprocess.run(
                resume, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=more
            )
            assert shown.returncode == 0, shown.stderr
            told = [json.loads(line) for line in shown.stdout.splitlines()]
            assert told[-1]["outcome"]["answer"] == "once more"
        [trace] = (tmp_path / "sessions").glob("*.jsonl")
        fork = [sys.executable, "-m", "ml_intern", "fork", trace.stem, "--at", "1"]
        forked = subprocess.run(fork, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=more)
        assert forked.returncode == 0, forked.stderr
        assert (tmp_path / "sessions" / f"{forked.stdout.split()[0]}.jsonl").exists()
    assert not re.findall(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d)[;m]", terminal.raw), "no colours"


def test_history_keeps_no_secret_and_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_intern.cli.line import PrivateHistory

    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz012345")
    history = PrivateHistory(tmp_path / "history")
    history.store_string("push it with hf_abcdefghijklmnopqrstuvwxyz012345")
    assert "hf_abc" not in (tmp_path / "history").read_text()
    assert "push it with" in (tmp_path / "history").read_text()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        PrivateHistory(tmp_path / "elsewhere")


@pytest.mark.parametrize("words", [(), ("--mode", "plan")])
def test_without_a_terminal_it_says_what_to_do(words: tuple[str, ...]) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ml_intern", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert shown.returncode == 2
    assert "What is the task?" in shown.stderr
