"""`/experiments` in a chat. What must never happen: it shows another session's runs, or breaks the line that is typed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from terminal import Terminal
from test_chat import MARK, say

from ml_intern.cli import slash
from ml_intern.records import FILE, mirrored


def ask(terminal: Terminal, text: str, until: str, seconds: float = 30) -> str:
    """Types a line and waits for what comes of it, and for the line where the next one is typed."""
    before = len(terminal.screen)
    say(terminal, text, until, seconds)
    end = time.monotonic() + seconds
    while MARK not in terminal.screen[before:].rpartition(until)[2]:
        assert time.monotonic() < end, f"no new line to type in:\n{terminal.screen[before:][-3000:]}"
        terminal.read(0.05)
    return terminal.screen[before:]


@pytest.mark.long
@pytest.mark.parametrize("columns", [150, pytest.param(60, marks=pytest.mark.soak)])
def test_what_was_tried_is_shown_as_a_table_and_a_tree(tmp_path: Path, columns: int) -> None:
    with Terminal(str(Path(__file__).with_name("tries.py")), str(tmp_path), columns=columns) as terminal:
        terminal.until(MARK, 30)
        assert "There is no conversation yet" in ask(terminal, "/experiments", "begins with your first message")
        ask(terminal, "try things", "forty-two", 60)
        shown = ask(terminal, "/experiments", "of one.")
        assert ("id  " in shown and "parent" in shown) is (columns == 150), "a table only where there is room for it"
        tree = re.search(r"\n *(run_\w+) first .*\n *(run_\w+) second", shown.replace("\r", ""))
        assert tree is not None and "2, $0.00 in all" in shown
        first, second = tree.groups()
        assert f'"id": "{second}"' in ask(terminal, f"/experiments {second}", f'"parent": "{first}"')
        assert "There is no 'run_nothing' on record" in ask(
            terminal, "/experiments run_nothing", "shows what there is"
        )
        terminal.type("/experiments run_\t")
        terminal.until(second[4:])
    (folder,) = (path for path in (tmp_path / "sessions").iterdir() if path.is_dir())
    assert [row["name"] for row in mirrored(folder).values()] == ["first", "second"]


def test_it_is_in_the_help_and_completes() -> None:
    (command,) = [one for one in slash.TABLE if one.name == "experiments"]
    assert command.does and command.takes == "[ID]"
    assert [choice for choice, *_ in slash.complete(None, "/exp")] == ["/experiments"]


@pytest.mark.parametrize("text", ["", "{", "[]\n", '{"kind": "experiment"}\n', '{"id": "run_1"}\n{"id":'])
def test_a_file_that_is_just_being_written_harms_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert set(mirrored(tmp_path)) <= {"run_1"} and mirrored(tmp_path / "nowhere") == {}
    rows = [{"id": "run_1", "state": "running"}, {"id": "run_1", "state": "done"}]
    (tmp_path / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert mirrored(tmp_path)["run_1"]["state"] == "done"
