"""Traces as independent readers of the format take them.

`claude-code-log` is the strictest there is on PyPI. The Hub's own detector needs packages that are not in this environment:
small readers here hold the rules that it, usage counters and the first-party reader were seen to have.
"""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import everything
import pytest

from ml_intern import MLIntern
from ml_intern.events import ApprovalAnswer
from ml_intern.testing import ScriptedModel
from ml_intern.trace.subagents import traces_of_sub_agents

READER = Path(sysconfig.get_path("scripts")) / "claude-code-log"
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With approvals, errors, images, a compaction, cached tokens, a sub-agent, a decision, a title."""
    return everything.record(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of two turns with a compaction between them."""
    ask = lambda request: ApprovalAnswer("reject", "not now", "test")  # noqa: E731
    script = [
        everything.code("print(publish('a'))"),
        everything.code("print('x' * 3000)"),
        everything.code("final_answer('first')"),
        "A summary.",
        everything.code("final_answer('second')"),
    ]
    home = tmp_path_factory.mktemp("home")
    with MLIntern(ScriptedModel(script), home=home, tools=[everything.Publish()], on_approval=ask) as intern:
        intern.run("Publish something.")
        trace = intern.session().trace
        intern.compact()
        ends = time.monotonic() + 20
        while "compact_boundary" not in trace.read_text() and time.monotonic() < ends:
            time.sleep(0.02)
        intern.session().start("And now?")
        assert intern.session().wait(60) is not None
        return trace


@pytest.fixture(params=["trace", "session"])
def any_trace(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def rows_of(path: Path) -> Rows:
    """As the Hub's loader splits a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def strict(path: Path, page: Path) -> tuple[list[str], str]:
    """What the strict reader says, and the page that it makes."""
    words = [str(READER), str(path), "-o", str(page), "--no-cache", "--depth", "hook"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return [line.split()[0] for line in (done.stdout + done.stderr).splitlines() if line.strip()], page.read_text()


@pytest.mark.long
def test_the_strict_reader_has_no_complaint(trace: Path, tmp_path: Path) -> None:
    said, page = strict(trace, tmp_path / "page.html")
    assert said == ["Processing", "Loading", "Successfully"]  # the sub-agent's file is what it loads
    shown = [
        "Show everything",
        "publish",
        "ZeroDivisionError",
        "no code at all",
        "0.97",
        "Everything",
        "there is no nothing",
    ]
    shown += [
        "A summary: the work is done.",
        "Conversation compacted",
        "data:image/png;base64",
        "count to two",
        "innermost",
    ]
    missing = [text for text in shown if text.casefold() not in page.casefold()]
    assert missing == []
    assert page.index("count to two") < page.index("innermost") < page.rindex("0.97")  # nested where it was called


@pytest.mark.long
def test_a_session_of_several_turns_likewise(session: Path, tmp_path: Path) -> None:
    said, page = strict(session, tmp_path / "page.html")
    assert said == ["Processing", "Successfully"]
    assert all(text in page for text in ("Publish something.", "And now?", "A summary.", "not now"))


def test_every_line_survives_a_reader_that_splits_at_unicode_line_ends(any_trace: Path) -> None:
    text = any_trace.read_text(encoding="utf-8")
    assert len(text.splitlines()) == text.count("\n")
    assert text.isascii() and rows_of(any_trace)


def test_the_hub_detects_it(any_trace: Path) -> None:
    """Column `type` is text, `message` is of mixed shape, the first row of a known type says whose it is."""
    for path in (any_trace, *traces_of_sub_agents(any_trace)):
        rows = rows_of(path)
        assert all(type(row["type"]) is str for row in rows)
        shapes = {frozenset(row["message"]) for row in rows if "message" in row}
        assert frozenset({"role", "content"}) in shapes and len(shapes) > 1
        known = (
            "user",
            "assistant",
            "system",
            "session",
            "message",
            "session_meta",
            "turn_context",
            "response_item",
            "event_msg",
        )
        assert next(row["type"] for row in rows if row["type"] in known) == "user"
        assert {"user", "assistant"} <= {row["type"] for row in rows}
        assert all(isinstance(row["sessionId"], str) for row in rows)
        json.dumps(rows, ensure_ascii=False).encode("utf-8")  # no half characters


def test_no_turn_of_a_sub_agents_stands_among_the_users(trace: Path) -> None:
    assert not any(row.get("isSidechain") for row in rows_of(trace))
    (inner,) = traces_of_sub_agents(trace)
    assert all(row["isSidechain"] is True and row["agentId"] in inner.stem for row in rows_of(inner) if "uuid" in row)
    meta = json.loads(inner.with_suffix(".meta.json").read_text())
    calls = [
        block["id"]
        for row in rows_of(trace)
        if row["type"] == "assistant"
        for block in row["message"]["content"]
        if "id" in block
    ]
    assert meta["toolUseId"] in calls and meta["agentType"] == "helper"
    linked = [row["toolUseResult"]["agentId"] for row in rows_of(trace) if "toolUseResult" in row]
    assert linked == [inner.stem.removeprefix("agent-")]


def test_a_usage_counter_counts_each_answer_once(trace: Path, session: Path) -> None:
    for path in (trace, session):
        counted: dict[tuple[str, str], dict[str, int]] = {}
        for row in rows_of(path):
            assert "timestamp" not in row or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["timestamp"])
            usage = row["message"].get("usage") if row["type"] == "assistant" else None
            if usage is not None and re.match(r"\d+\.\d+\.\d+", row["version"]):
                key = row["message"]["id"], row.get("requestId", "")
                assert key not in counted
                counted[key] = usage
        for path_of_agent in traces_of_sub_agents(path):
            for row in rows_of(path_of_agent):
                if row["type"] == "assistant" and "usage" in row["message"]:
                    counted[row["message"]["id"], ""] = row["message"]["usage"]
        end = [row["data"] for row in rows_of(path) if row["type"] == "progress" and row["data"].get("kind") == "end"][
            -1
        ]
        cached = sum(usage["cache_read_input_tokens"] for usage in counted.values())
        fresh = sum(usage["input_tokens"] + usage["cache_creation_input_tokens"] for usage in counted.values())
        assert fresh + cached == end["inputTokens"] and (cached == 800) == (path == trace)
        assert sum(usage["output_tokens"] for usage in counted.values()) == end["outputTokens"]


def first_party(rows: Rows) -> Rows:
    """From the last message up to a row without a parent, as the first-party reader goes."""
    by_uuid = {row["uuid"]: row for row in rows if "uuid" in row}
    said = [
        row
        for row in rows
        if row["type"] in ("user", "assistant") and not row.get("isSidechain") and not row.get("isMeta")
    ]
    chain, row = [], said[-1] if said else None
    while row is not None:
        chain.append(row)
        row = by_uuid.get(row["parentUuid"])
    return chain[::-1]


def test_the_first_party_reader_goes_back_to_the_compaction_or_the_task(trace: Path, session: Path) -> None:
    for path in (trace, session):
        rows = rows_of(path)
        chain = first_party(rows)
        assert chain[0]["subtype"] == "compact_boundary" and chain[1]["isCompactSummary"]
        assert chain[0]["logicalParentUuid"] == rows[rows.index(chain[0]) - 1]["uuid"]
        before = first_party(rows[: rows.index(chain[0])])
        assert before[0]["stepKind"] == "task" and before[0]["parentUuid"] is None
        assert len(before) + len(chain) == sum("uuid" in row for row in rows[: rows.index(chain[-1]) + 1])
    titles = [row for row in rows_of(trace) if row["type"] == "ai-title"]
    assert titles == [{"type": "ai-title", "aiTitle": "Everything", "sessionId": trace.stem}]


def test_every_call_has_its_result_after_it(any_trace: Path) -> None:
    for path in (any_trace, *traces_of_sub_agents(any_trace)):
        pending: set[str] = set()
        for row in rows_of(path):
            content = row["message"]["content"] if row["type"] in ("user", "assistant") else []
            for block in content if isinstance(content, list) else ():
                if block["type"] == "tool_use":
                    pending.add(block["id"])
                elif block["type"] == "tool_result":
                    pending.remove(block["tool_use_id"])
        assert not pending


def test_a_session_that_dies_before_its_first_answer_spoils_no_data_set(tmp_path: Path) -> None:
    """It is left out of what is shared: a data set whose first file has no answer is not detected at all."""
    from ml_intern.trace.validate import validate

    script = ScriptedModel([RuntimeError("no model")])
    with MLIntern(script, home=tmp_path, tools=[]) as intern:
        session = intern.submit("Hello.")
        assert session.wait(60) is not None
        assert "assistant" not in {row["type"] for row in rows_of(session.trace)}
    (complaint,) = validate(session.trace)
    assert "none of an assistant's" in complaint.what
