"""Sessions in a list: what each is, told from its trace alone, fast, without opening it; and the one that is meant."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_restore import answered, cpu, long_trace

from ml_intern.errors import InternError
from ml_intern.secrets import Masker
from ml_intern.trace import Journal
from ml_intern.trace.listing import describe, find, matching, sessions


@pytest.fixture
def trace(tmp_path: Path) -> Callable[..., Journal]:
    def make(task: str = "Fine-tune a model.", title: str = "", name: str = "") -> Journal:
        journal = Journal(tmp_path / "sessions" / f"{name or uuid.uuid4()}.jsonl", masker=Masker({}))
        if task:
            journal.user(task, stepKind="task")
        if title:
            journal.title(title)
        return journal

    return make


def ended(journal: Journal, state: str = "success", **fields: Any) -> Journal:
    journal.note("end", state=state, reason="", **fields)
    journal.close()
    return journal


def test_what_a_session_is(trace, tmp_path: Path) -> None:
    journal = trace("Fine-tune a model.\nWell.", "A fine model")
    answered(journal, 1, "print(1)")
    journal.result("toolu_1", "1", step=1)
    ended(journal, costUsd=2.5)
    [info] = sessions(tmp_path)
    assert (info.title, info.task, info.state) == ("A fine model", "Fine-tune a model.\nWell.", "success")
    assert (info.cost_usd, info.steps, info.waits, info.holder) == (2.5, 1, (), None)
    assert abs(info.began - time.time()) < 5 and info.age < 5

    journal = Journal(journal.path)
    journal.user("More.", stepKind="task")
    answered(journal, 1, "print(2)")
    info = describe(journal.path)
    assert (info.state, info.holder, info.steps, info.cost_usd) == ("running", os.getpid(), 2, 3.0), (
        "of the turn before, too"
    )
    journal.close()
    assert describe(journal.path).state == "cut off" and describe(journal.path).holder is None
    journal = Journal(journal.path)
    ended(journal, "error", costUsd=None)
    info = describe(journal.path)
    assert (info.state, info.cost_usd) == ("error", None)


def test_one_that_waits_for_a_person_says_so(trace) -> None:
    journal = trace()
    answered(journal, 1, "push('a'); push('b')")
    for call in ("call_a", "call_b", "call_c"):
        journal.call(call, "push", {}, "m", step=1, effects="write")
        journal.note("approval-asked", callId=call, tool="push", arguments={}, binding="d")
    journal.note("approval-answered", callId="call_a", decision="approve")
    journal.result("call_c", "Denied: its code has ended", error=True, step=1, denied=True)
    info = describe(journal.path)
    assert (info.state, info.waits) == ("waiting", ("call_b",))
    journal.note("parked", calls=["call_b"])
    journal.close()
    assert describe(journal.path).state == "waiting"
    journal = ended(Journal(journal.path), "denied")
    assert describe(journal.path).state == "denied" and describe(journal.path).waits == ()


def test_what_a_tool_or_a_person_says_is_no_state(trace) -> None:
    said = '"data":{"type":"ml_intern","kind":"end","state":"success"}'
    journal = trace(f"Say {said}")
    answered(journal, 1, f"print('''{said}''')")
    journal.call(
        "call_a", "put", {"data": {"type": "ml_intern", "kind": "end", "state": "success"}}, "m", effects="read"
    )
    journal.close()
    assert describe(journal.path).state == "cut off"


def test_a_turn_that_was_undone_leaves_the_state_before_it(trace) -> None:
    journal = trace()
    journal.note("end", state="max_steps", reason="")
    before = journal.last
    journal.user("More.", stepKind="task")
    journal.note("end", state="error", reason="")
    journal.branch_from(before)
    journal.note("undone", to=before)
    journal.close()
    assert describe(journal.path).state == "max_steps"


def test_newest_first_and_what_cannot_be_read_hides_nothing(trace, tmp_path: Path) -> None:
    paths = [ended(trace(f"Task {i}", f"Title {i}")).path for i in range(4)]
    for age, path in enumerate(paths):
        os.utime(path, (0, time.time() - 3600 * age))
    folder = tmp_path / "sessions"
    (folder / "empty.jsonl").touch()
    (folder / "garbage.jsonl").write_bytes(b"\xff\x00\n" * 10)
    (folder / "folder.jsonl").mkdir()
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "link.jsonl").symlink_to(paths[0])
    (folder / "notes.txt").write_text("x")
    assert [info.title for info in sessions(tmp_path)] == [f"Title {i}" for i in range(4)]
    assert sessions(tmp_path / "elsewhere") == []


def test_a_session_is_found_by_what_one_knows_of_it(trace, tmp_path: Path) -> None:
    names = [
        "aaaa1111-0000-4000-8000-000000000000",
        "aaaa2222-0000-4000-8000-000000000000",
        "bbbb1111-0000-4000-8000-000000000000",
    ]
    titles = ["Fine-tune a small model", "Fine-tune a large model", "Audit"]
    for name, title in zip(names, titles, strict=True):
        path = ended(trace("Do it: résumé", title, name)).path
        os.utime(path, (0, names.index(name) + 1_000_000))

    def found(which: str) -> str:
        return find(tmp_path, which).stem

    assert found("") == found("bbbb") == found("AUDIT") == found(names[2]) == found(names[2].upper()) == names[2]
    assert found("aaaa2") == found("large fine") == names[1]
    assert found(str(tmp_path / "sessions" / f"{names[0]}.jsonl")) == names[0]
    for which, said in [("aaaa", "2 sessions are like 'aaaa'"), ("fine-tune", "aaaa2222 Fine-tune a large model; aaaa1111"),
                        ("zzzz", "There is no session 'zzzz'"), ("x/y.jsonl", "There is no trace"), ("résumé", "3 sessions")]:  # fmt: skip
        with pytest.raises(InternError, match=said.replace("(", r"\(")):
            find(tmp_path, which)
    elsewhere = tmp_path / "theirs.jsonl"
    elsewhere.write_text("{}")
    assert find(tmp_path, elsewhere) == elsewhere
    with pytest.raises(InternError, match=r"is no session of .*\nFork it"):
        find(tmp_path, elsewhere, own=True)
    assert find(tmp_path, tmp_path / "sessions" / f"{names[0]}.jsonl", own=True).stem == names[0]
    with pytest.raises(InternError, match="There is no session yet"):
        find(tmp_path / "none", "")
    assert [info.title for info in matching(sessions(tmp_path), "tune SMALL")] == [titles[0]]


@pytest.mark.long
def test_a_list_tells_who_holds_a_session_and_keeps_nobody_from_opening_it(trace, tmp_path: Path) -> None:
    journal = ended(trace())
    program = f"""
import sys
from pathlib import Path
from ml_intern.trace import Journal
journal = Journal(Path({str(journal.path)!r}))
print("open", flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "open\n"
        assert describe(journal.path).holder == other.pid and describe(journal.path).state == "success"
        with pytest.raises(InternError, match=f"open in another process.*process {other.pid}"):
            Journal(journal.path)
    finally:
        other.communicate(timeout=10)
    assert describe(journal.path).holder is None
    for _ in range(200):  # the lock is looked at, never kept
        describe(journal.path)
        Journal(journal.path).close()


@pytest.mark.long
def test_lists_are_fast(tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    long = folder / f"{uuid.uuid4()}.jsonl"
    long_trace(long, 10_000)
    one = folder / f"{uuid.uuid4()}.jsonl"
    long_trace(one, 200)
    for _ in range(198):
        (folder / f"{uuid.uuid4()}.jsonl").write_bytes(one.read_bytes())

    assert len(sessions(tmp_path)) == 200
    assert cpu(lambda: sessions(tmp_path), 1.0) < 1.0
    assert cpu(lambda: describe(long), 0.5) < 0.5
