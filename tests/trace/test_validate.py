"""What must never happen: a trace of ours has something that a reader will not take; a broken file is taken for a whole one."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import everything
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_intern.secrets import Masker
from ml_intern.trace import Journal
from ml_intern.trace import rows as making
from ml_intern.trace.subagents import traces_of_sub_agents
from ml_intern.trace.validate import Complaint, validate

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return everything.record(tmp_path_factory.mktemp("trace"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Task, answer with a call, its result, a compaction, an answer, a title."""
    journal = Journal(tmp_path_factory.mktemp("small") / everything.NAME, masker=Masker({}))
    journal.user("hello", stepKind="task")
    journal.answer([making.text_block("hm"), making.call_block("c1", "bash", {"n": 1})], "m", making.usage_of(10, 5))
    journal.result("c1", "fine")
    journal.compacted("summary", {"trigger": "auto", "preTokens": 10})
    journal.answer([making.text_block("done")], "m", making.usage_of(10, 5, 3))
    journal.title("A title")
    journal.close()
    return [json.loads(line) for line in journal.path.read_text().splitlines()]


def written(folder: Path, rows: Rows, name: str = everything.NAME) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_trace_with_everything_in_it_has_no_complaint(trace: Path) -> None:
    assert validate(trace) == []
    (inner,) = traces_of_sub_agents(trace)
    assert validate(inner) == []


def test_the_small_one_is_fine_as_it_is(small: Rows, tmp_path: Path) -> None:
    assert validate(written(tmp_path, small)) == []


def message(row: dict[str, Any], **fields: Any) -> None:
    row["message"].update(fields)


BROKEN: dict[str, tuple[Callable[[Rows], Any], str, int]] = {
    "blank line": (lambda r: None, "a blank line", 3),
    "no type": (lambda r: r[1].pop("type"), "no object with a `type`", 2),
    "other harness": (lambda r: r.insert(0, {"type": "session"}), "the first row is a `session`", 1),
    "no uuid": (lambda r: r[1].pop("uuid"), "without uuid", 2),
    "no cwd": (lambda r: r[0].pop("cwd"), "without cwd", 1),
    "no timestamp": (lambda r: r[0].pop("timestamp"), "without timestamp", 1),
    "same uuid": (lambda r: r[2].update(uuid=r[1]["uuid"]), "another row has it", 3),
    "dangling parent": (lambda r: r[2].update(parentUuid="gone"), "its parent is no earlier row", 3),
    "second beginning": (lambda r: r[2].update(parentUuid=None), "a second beginning", 3),
    "time zone": (lambda r: r[0].update(timestamp="2026-01-01T10:00:00.123456+02:00"), "its time is", 1),
    "naive time": (lambda r: r[0].update(timestamp="2026-01-01T10:00:00.123456"), "its time is", 1),
    "number as time": (lambda r: r[0].update(timestamp=1.5), "its time is", 1),
    "version": (lambda r: r[0].update(version="lite"), "its version is 'lite'", 1),
    "sidechain": (lambda r: r[1].update(isSidechain=True), "a sub-agent's row", 2),
    "sidechain of a wrong kind": (lambda r: r[1].update(isSidechain="no"), "of a wrong kind", 2),
    "model on a user row": (lambda r: message(r[0], model=None), "is not `role` and `content`", 1),
    "no stop reason": (lambda r: r[1]["message"].pop("stop_reason"), "lacks keys, or has others", 2),
    "no model": (lambda r: message(r[1], model=""), "names no model", 2),
    "no message type": (lambda r: message(r[1], type="text"), "id, type or role is wrong", 2),
    "null request": (lambda r: r[1].update(requestId=None), "`requestId` that is null", 2),
    "usage without output": (lambda r: r[1]["message"]["usage"].pop("output_tokens"), "no `output_tokens`", 2),
    "usage of a wrong kind": (lambda r: r[1]["message"]["usage"].update(input_tokens="3"), "no `input_tokens`", 2),
    "text as content": (lambda r: message(r[1], content="hm"), "no list of blocks", 2),
    "content of a wrong kind": (lambda r: message(r[0], content=3), "neither text nor blocks", 1),
    "unknown block": (lambda r: r[1]["message"]["content"].append({"type": "video"}), "a block of type 'video'", 2),
    "arguments as text": (lambda r: r[1]["message"]["content"][1].update(input="x"), "a block of type 'tool_use'", 2),
    "thinking unsigned": (
        lambda r: r[1]["message"]["content"].append({"type": "thinking", "thinking": "x"}), "a block of type 'thinking'", 2
    ),
    "image by address": (
        lambda r: r[2]["message"]["content"].append({"type": "image", "source": {"type": "url"}}), "a block of type 'image'", 3
    ),
    "result of nothing": (lambda r: r[2]["message"]["content"][0].update(tool_use_id="c9"), "a result without a call", 3),
    "second result": (lambda r: r[2]["message"]["content"].append(r[2]["message"]["content"][0]), "a second result", 3),
    "call twice": (lambda r: r[1]["message"]["content"].append(r[1]["message"]["content"][1]), "id is used twice", 2),
    "same message, same time": (
        lambda r: (message(r[5], id=r[1]["message"]["id"]), r[5].update(timestamp=r[1]["timestamp"])), "same message id and time", 6
    ),
    "same message, other usage": (
        lambda r: (message(r[5], id=r[1]["message"]["id"]), r[5].update(timestamp="2030-01-01T00:00:00.000Z")),
        "same message id with another usage", 6,
    ),
    "boundary with a parent": (lambda r: r[3].update(parentUuid=r[2]["uuid"]), "a compaction begins anew", 4),
    "boundary without tokens": (lambda r: r[3]["compactMetadata"].pop("preTokens"), "says its `trigger`", 4),
    "no summary after it": (lambda r: r[4].pop("isCompactSummary"), "no summary follows the compaction", 5),
    "title with a uuid": (lambda r: r[6].update(uuid="x"), "a title is", 7),
    "summary of nothing": (lambda r: r.append({"type": "summary", "summary": "x", "leafUuid": "x"}), "not there", 8),
    "summary with a session": (
        lambda r: r.append({"type": "summary", "summary": "x", "leafUuid": r[0]["uuid"], "sessionId": "x"}), "a `sessionId`", 8
    ),
    "mode with more": (lambda r: r.append({"type": "permission-mode", "a": 1, "b": 2, "c": 3}), "has three keys", 8),
    "large integer": (lambda r: r[1]["message"]["content"][1]["input"].update(n=2**64), "beyond 64 bits", 2),
    "half a character": (lambda r: message(r[0], content="\ud800"), "a lone surrogate", 1),
    "not a number": (lambda r: r[1]["message"]["content"][1]["input"].update(n=float("nan")), "NaN is no JSON", 2),
    "no assistant": (lambda r: r.__delitem__(slice(1, None)), "none of an assistant's", 0),
    "another session": (lambda r: [row.update(sessionId="x") for row in r], "is not the file's name", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_catches_what_breaks_it(name: str, small: Rows, tmp_path: Path) -> None:
    spoil, said, line = BROKEN[name]
    rows = deepcopy(small)
    spoil(rows)
    path = written(tmp_path, rows)
    if name == "blank line":
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:2], "\n", *lines[2:]]))
    found = validate(path)
    assert any(said in complaint.what and complaint.line == line and complaint.grave for complaint in found), found
    assert all(complaint.why for complaint in found)


def test_lines_that_are_torn_or_no_json_are_told_apart(small: Rows, tmp_path: Path) -> None:
    path = written(tmp_path, small)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [complaint.what for complaint in validate(path) if complaint.line == 7] == [
        "it is no JSON",
        "the last line is torn",
    ]
    path.write_bytes(whole.replace(b"hello", "caf\u00e9".encode()))
    assert [complaint.what for complaint in validate(path)] == ["it is not ASCII"]
    path.write_bytes(b"")
    assert [complaint.line for complaint in validate(path)] == [0]


def test_a_name_that_is_no_uuid_and_a_call_without_a_result_are_said(small: Rows, tmp_path: Path) -> None:
    assert "its name is no UUID" in [complaint.what for complaint in validate(written(tmp_path, small, "x.jsonl"))]
    (note,) = validate(written(tmp_path, [*small[:2]]))
    assert note == Complaint(2, "no result of the call c1", "who goes on from here must answer it first", grave=False)


def test_a_row_for_each_block_of_an_answer_is_legal(small: Rows, tmp_path: Path) -> None:
    rows = deepcopy(small)
    second = deepcopy(rows[1])
    rows[1]["message"]["content"].pop()
    second["message"]["content"].pop(0)
    second.update(uuid="another", parentUuid=rows[1]["uuid"], timestamp="2030-01-01T00:00:00.000Z")
    assert validate(written(tmp_path, [*rows[:2], second, *rows[2:]])) == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "message", "content", "id"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 6), key=st.text(max_size=3), value=ANYTHING, seed=st.randoms(use_true_random=False))
def test_no_row_however_odd_is_an_error(
    place: int, key: str, value: Any, seed: Any, small: Rows, tmp_path: Path
) -> None:
    rows = deepcopy(small)
    row = rows[place]
    target = row["message"] if seed.random() < 0.5 and "message" in row else row
    target[seed.choice([key, *target])] = value
    validate(written(tmp_path, rows))
