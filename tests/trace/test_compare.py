"""What must never happen: two sessions are said to be the same that are not; tokens are counted twice; unknown money is zero."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import everything
import pytest

from ml_intern.trace.compare import Comparison as Side
from ml_intern.trace.compare import compare, read_facts

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same task, done twice in the same way."""
    return everything.record(tmp_path_factory.mktemp("a")), everything.record(tmp_path_factory.mktemp("b"))


def rows_of(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def changed(path: Path, folder: Path, change: Callable[[Rows], Any]) -> Path:
    rows = rows_of(path)
    change(rows)
    made = folder / "changed.jsonl"
    made.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def blocks(rows: Rows, name: str) -> list[dict[str, Any]]:
    """The calls of a tool."""
    contents = [row["message"]["content"] for row in rows if row["type"] == "assistant"]
    return [block for content in contents for block in content if block.get("name") == name]


def test_what_a_session_comes_to(traces: tuple[Path, Path]) -> None:
    facts, moves = read_facts(traces[0])
    assert facts.title == "Everything" and facts.task.startswith("Show everything") and facts.models == ("scripted",)
    assert (facts.turns, facts.steps, facts.failed, facts.compactions, facts.agents) == (1, 10, 3, 1, 1)
    assert facts.tools == {"publish": 5, "look": 2, "helper": 1, "final_answer": 1}
    assert facts.approvals == {"approve": 4, "reject": 1}
    assert facts.state == "success" and json.loads(facts.answer) == {"accuracy": 0.97}
    assert [(one.subject, one.choice, one.reason, one.step) for one in facts.decisions] == [
        ("model", "tiny", "it is fast", 3)
    ]
    assert facts.usage.cached_tokens == 800 and facts.usage.cost_usd == pytest.approx(0.14)
    assert facts.seconds == 1.5 and len(moves) == 10


def test_the_same_done_twice_is_the_same(traces: tuple[Path, Path]) -> None:
    comparison = compare(*traces)
    assert comparison.same, comparison.divergence
    assert ("look", 2, 2) in comparison.tools() and comparison.decisions() == [("model", "tiny", "tiny")]


def parting(comparison: Side) -> tuple[int, str]:
    assert comparison.divergence is not None
    return comparison.divergence.step, comparison.divergence.what


def test_it_says_where_they_part(traces: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = traces

    def with_code(old: str, new: str) -> Callable[[Rows], None]:
        def change(rows: Rows) -> None:
            for block in blocks(rows, "python_interpreter"):
                block["input"]["code"] = block["input"]["code"].replace(old, new)

        return change

    other = compare(a, changed(b, tmp_path, with_code("1 / 0", "2 / 0")))
    assert parting(other) == (3, "code") and other.divergence is not None
    assert (other.divergence.then, other.divergence.now) == ("1 / 0", "2 / 0")
    assert compare(a, changed(b, tmp_path, with_code("1 / 0", "1/0  # the same"))).same

    def another_call(rows: Rows) -> None:
        blocks(rows, "look")[0]["input"]["what"] = "mnist"

    assert parting(compare(a, changed(b, tmp_path, another_call))) == (9, "calls")

    def another_output(rows: Rows) -> None:
        for row in rows:
            if row["type"] == "user" and "'score'" in json.dumps(row["message"]):
                row["message"]["content"][0]["content"] = "Execution logs:\n{'what': 'imdb', 'score': 0.9}\nno nothing"

    assert parting(compare(a, changed(b, tmp_path, another_output))) == (9, "observation")
    assert parting(compare(a, changed(b, tmp_path, lambda rows: rows[0]["message"].update(content="other")))) == (
        0,
        "task",
    )
    said = [row["type"] == "assistant" and "final_answer" in json.dumps(row) for row in rows_of(b)]
    last = said.index(True)  # a hint may name it before
    assert parting(compare(a, changed(b, tmp_path, lambda rows: rows.__delitem__(slice(last, None))))) == (10, "end")

    def failed(rows: Rows) -> None:
        next(row for row in rows if (row.get("data") or {}).get("kind") == "end")["data"]["state"] = "error"

    end = compare(a, changed(b, tmp_path, failed)).divergence
    assert end is not None and (end.what, end.then, end.now) == ("end", "success", "error")


def test_numbers_that_are_near_are_the_same(traces: tuple[Path, Path], tmp_path: Path) -> None:
    def nearly(rows: Rows) -> None:
        for row in rows:
            if row["type"] == "user" and "'score': 0.5" in json.dumps(row["message"]):
                text = row["message"]["content"][0]["content"]
                row["message"]["content"][0]["content"] = text.replace("0.501", "0.502")

    other = changed(traces[1], tmp_path, nearly)
    assert "0.502" in other.read_text()
    assert compare(traces[0], other).same and parting(compare(traces[0], other, tolerance=1e-4)) == (9, "observation")


def test_another_programs_answer_in_several_rows_is_one_step_and_counts_once(tmp_path: Path) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 90}

    def row(content: dict[str, Any], identifier: str, second: int) -> dict[str, Any]:
        message = {
            "id": identifier,
            "type": "message",
            "role": "assistant",
            "model": "theirs",
            "content": [content],
            "usage": usage,
        }
        return {
            "type": "assistant",
            "message": message,
            "uuid": str(second),
            "timestamp": f"2026-01-01T00:00:{second:02}.000Z",
        }

    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "a.txt"}
    rows = [
        {
            "type": "user",
            "message": {"role": "user", "content": "List."},
            "uuid": "0",
            "timestamp": "2026-01-01T00:00:00.000Z",
        },
        row({"type": "text", "text": "I look."}, "m1", 1),
        row(call, "m1", 2),
        {"type": "user", "message": {"role": "user", "content": [result]}, "uuid": "3"},
        row({"type": "text", "text": "There is a.txt."}, "m2", 9),
    ]
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts, moves = read_facts(path)
    assert (facts.steps, facts.turns, facts.tools, facts.seconds) == (2, 1, {"Bash": 1}, 9.0)
    assert (facts.usage.input_tokens, facts.usage.output_tokens, facts.usage.cached_tokens) == (200, 10, 180)
    assert facts.usage.cost_usd is None and facts.state == ""
    assert moves[0].calls == [("Bash", {"command": "ls"})] and moves[0].observation == "a.txt"
    assert compare(path, path).same
