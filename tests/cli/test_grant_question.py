"""One question before a night, at a real terminal: each rule in words, edited or accepted by a person who reads it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from terminal import Terminal

ERRAND = Path(__file__).with_name("errand.py")
PROMPT = "allow it? [y/e/n/s] > "


def notes(home: Path, kind: str) -> list[dict]:
    [trace] = (home / "sessions").glob("*.jsonl")
    rows = [json.loads(line) for line in trace.read_text().splitlines()]
    return [row["data"] for row in rows if row["type"] == "progress" and row["data"]["kind"] == kind]


def test_one_question_before_the_night(tmp_path: Path) -> None:
    with Terminal(str(ERRAND), "grants", str(tmp_path), "--overnight", columns=200) as terminal:
        card = terminal.until(PROMPT, 30)
        for part in ("may it do this without asking?", "hub_push:me/*:private", "to any repository of yours that is private",
                     "! wide:", "budget: $2.00 from here on"):  # fmt: skip
            assert part in card
        terminal.type("y\n")
        assert terminal.ends() == 0
        assert "granted" in terminal.screen
    assert [note["rule"] for note in notes(tmp_path, "rule")] == ["allow hub_push:me/*:private", "allow send"]


def test_a_rule_is_taken_out_in_the_editor(tmp_path: Path) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import json, sys\npath = sys.argv[1]\nasked = json.load(open(path))\nasked['rules'] = asked['rules'][:1]\n"
        "json.dump(asked, open(path, 'w'))\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    edits = {"EDITOR": shlex.join([sys.executable, str(editor)]), "VISUAL": ""}
    with Terminal(str(ERRAND), "grants", str(home), "--overnight", columns=200, **edits) as terminal:
        terminal.until(PROMPT, 30)
        terminal.type("e\n")
        terminal.until("with this instead? [y/n] > ")
        terminal.type("y\n")
        before = len(terminal.screen)
        while PROMPT not in terminal.screen[before:]:
            terminal.read(0.05)
        again = terminal.screen[before:]
        assert "hub_push:me/*:private" in again and "! wide:" not in again
        terminal.type("y\n")
        assert terminal.ends() == 0
    assert [note["rule"] for note in notes(home, "rule")] == ["allow hub_push:me/*:private"]


def test_unread_yes_goes_on_without_a_grant(tmp_path: Path) -> None:
    with Terminal(str(ERRAND), "grants", str(tmp_path), "--yes") as terminal:
        assert terminal.ends() == 0
    assert notes(tmp_path, "rule") == [] and notes(tmp_path, "budget") == []


def test_in_a_conversation_it_is_a_slash(tmp_path: Path) -> None:
    with Terminal(str(ERRAND), "grants", str(tmp_path), "--chat", columns=200) as terminal:
        terminal.until("a task, or /help", 30)
        terminal.type("/grant to publish tonight\r")
        terminal.until("may it do this without asking?", 30)
        terminal.until("allow it? [y/e/n/s] >", 30)
        terminal.type("y\r")
        terminal.until("✓ Done", 30)
        terminal.type("/approve\r")
        terminal.until("rule       allow hub_push:me/*:private", 10)
        terminal.type("/quit\r")
        assert terminal.ends() == 0
    assert [note["rule"] for note in notes(tmp_path, "rule")] == ["allow hub_push:me/*:private", "allow send"]
