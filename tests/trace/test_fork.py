"""A fork is a session of its own: the conversation up to a step as it was, and of a stranger's trace nothing but that."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from smolagents.memory import ActionStep, AgentMemory
from smolagents.models import ChatMessage
from test_restore import Live, answered, code, cpu, long_trace, plain

from ml_intern.agent import InternAgent
from ml_intern.context import ArtifactStore, ContextManager
from ml_intern.errors import InternError
from ml_intern.secrets import Masker
from ml_intern.testing import ScriptedModel
from ml_intern.trace import Journal, read_rows, restore
from ml_intern.trace.fork import Forked, fork
from ml_intern.trace.listing import describe

NAME = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def source(home: Path) -> Path:
    """A session of this home, two turns, with everything that a session may hold."""
    path = home / "sessions" / f"{NAME}.jsonl"
    journal = Journal(path, masker=Masker({"a-very-secret-value": "MY_TOKEN"}))
    journal.user("one a-very-secret-value", stepKind="task", variables=["frame"])
    journal.note("worker", jail="bubblewrap")
    journal.note("mode", mode="auto")
    journal.note("rule", rule="allow push:me/*", scope="session")
    journal.note("budget", usd=5.0)
    answered(journal, 1, "push('a')")
    journal.call("call_a", "push", {"name": "a"}, "m", step=1, effects="write", files=[])
    journal.note("approval-asked", callId="call_a", tool="push", arguments={}, binding="d")
    journal.note("approval-answered", callId="call_a", decision="approve", by="me", binding="d")
    journal.result("call_a", "pushed", step=1, denied=False)
    journal.result("toolu_1", "long\n" * 60_000, step=1, value=None, final=False)
    answered(journal, 2, "final_answer(1)")
    journal.result("toolu_2", "1", step=2, value=1, final=True)
    journal.append(
        {
            "type": "assistant",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "1"}]},
            "stepKind": "answer",
        }
    )
    journal.note("end", state="success", reason="", costUsd=1.0, inputTokens=26, outputTokens=10)
    journal.title("A title")
    journal.user("two", stepKind="task")
    answered(journal, 1, "print(2)")
    journal.result("toolu_1b", "not of this step", step=1)
    journal.result("toolu_1", "2", step=1, value=None, final=False)
    journal.close()
    folder = path.with_suffix("")
    (folder / "workspace" / "data").mkdir(parents=True)
    (folder / "workspace" / "data" / "x.csv").write_text("1,2")
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / "manifest.json").write_text("{}")
    (folder / "snapshots" / "1").write_bytes(b"pickle")
    return path


def rows_of(forked: Forked) -> list[dict[str, Any]]:
    return list(read_rows(forked.path))


def kinds(rows: list[dict[str, Any]]) -> list[str]:
    return [row["data"]["kind"] for row in rows if row["type"] == "progress"]


def test_a_fork_is_made_as_the_format_s_own_reader_makes_one(source: Path, home: Path) -> None:
    before = source.read_bytes()
    made = fork(NAME[:8], home)
    assert source.read_bytes() == before
    rows, old = rows_of(made), {row.get("uuid"): row for row in read_rows(source)}
    assert made.session_id == made.path.stem != NAME and uuid.UUID(made.session_id) and made.steps == 3
    chained = [row for row in rows if "uuid" in row]
    assert [row["parentUuid"] for row in chained] == [None, *(row["uuid"] for row in chained[:-1])], "one chain"
    assert not {row["uuid"] for row in chained} & old.keys()
    for row in chained[:-1]:
        origin = old[row["forkedFrom"]["messageUuid"]]
        same = {"uuid", "parentUuid", "sessionId", "forkedFrom"}
        assert {k: v for k, v in row.items() if k not in same} == {k: v for k, v in origin.items() if k not in same}
        assert row["forkedFrom"]["sessionId"] == NAME
    assert all(row["sessionId"] == made.session_id for row in rows)
    assert rows[-1] == {"type": "custom-title", "customTitle": "A title (fork)", "sessionId": made.session_id}
    note = rows[-2]["data"]
    assert (note["kind"], note["source"], note["own"]) == ("forked", NAME, True) and note["at"] in old
    assert kinds(rows) == ["mode", "rule", "budget", "end", "forked"], "no approval of the other session's"
    info = describe(made.path)
    assert (info.state, info.title, info.forked_from, info.cost_usd) == ("forked", "A title (fork)", NAME, 0.0)


def test_a_fork_of_this_home_brings_everything_but_what_was_spent_and_what_ran(source: Path, home: Path) -> None:
    made, before = fork(source, home), restore(source)
    after = restore(made.path)
    assert [type(step) for step in after.steps] == [type(step) for step in before.steps]
    assert after.steps[1].observations == "long\n" * 60_000 and not after.problems
    assert after.usage.input_tokens == 0 and after.spent_usd == 0 and after.usage.cost_usd == 0.0
    assert after.effects == () and after.pending == () and after.unknown == ()
    assert (after.mode, after.rules, after.budget_usd) == ("auto", (("allow push:me/*", "session"),), 5.0)
    assert after.title == "A title (fork)" and after.lineage.source == NAME and after.lineage.own and after.fresh
    folder = made.path.with_suffix("")
    assert (folder / "workspace" / "data" / "x.csv").read_text() == "1,2"
    assert (folder / "snapshots" / "1").read_bytes() == b"pickle"
    assert made.could_not == ("Secrets stay masked: MY_TOKEN.",)
    journal = Journal(made.path)
    journal.user("three", stepKind="task")
    journal.close()
    assert (
        restore(made.path).task == "three" and not restore(made.path).fresh and describe(made.path).state == "cut off"
    )


def test_variables_come_along_to_the_end_of_a_session_of_this_home(home: Path) -> None:
    sessions = home / "sessions"
    sessions.mkdir(parents=True)

    kept = {"snapshots": sessions / NAME / "snapshots"}
    live = Live(sessions, [code("import math\nx = 41"), code("final_answer(x)")], executor_kwargs=kept)
    live.turn("Remember it.")
    live.agent.cleanup()
    live.journal.close()
    for at, answer in ((None, "42 3.14"), (1, "gone")):
        made = fork(NAME, home, at)
        script = [code("final_answer(f'{x + 1} {math.pi:.2f}' if 'x' in globals() else 'gone')")]
        kept = {"snapshots": made.path.with_suffix("") / "snapshots"}
        agent = InternAgent([], ScriptedModel(script), executor_kwargs=kept, verbosity_level=0)
        agent.memory.steps = list(restore(made.path).steps)
        try:
            assert agent.run("And now?", reset=False) == answer
        finally:
            agent.cleanup()


@pytest.mark.parametrize(
    ("at", "tasks", "steps", "open_"),
    [(1, 1, 1, True), (2, 1, 2, False), ("1.2", 1, 2, False), (3, 2, 3, True), ("2.1", 2, 3, True), ("3", 2, 3, True)],
)
def test_a_fork_is_cut_after_a_step(source: Path, home: Path, at: Any, tasks: int, steps: int, open_: bool) -> None:
    made = fork(NAME, home, at)
    found = restore(made.path)
    assert (len(found.turns), sum(isinstance(s, ActionStep) for s in found.steps), found.open) == (tasks, steps, open_)
    assert made.steps == steps and found.action is None
    snapshots = made.path.with_suffix("") / "snapshots"
    assert snapshots.exists() == (steps == 3), "variables are those of the end"
    assert any("Variables are not taken over" in text for text in made.could_not) == (steps != 3)
    assert any("as they are now" in text for text in made.could_not) == (steps != 3)


@pytest.mark.parametrize("at", [0, 4, "1.3", "3.1", "5d2a1c1e-0000-4000-8000-000000000000", "x", -1])
def test_a_step_that_is_not_there_is_said_and_leaves_nothing(source: Path, home: Path, at: Any) -> None:
    with pytest.raises(InternError, match="has no step"):
        fork(NAME, home, at)
    assert sorted(path.name for path in (home / "sessions").iterdir()) == [NAME, f"{NAME}.jsonl"]


def test_whatever_row_is_named_no_call_is_left_unanswered(source: Path, home: Path) -> None:
    for row in read_rows(source):
        if "uuid" not in row:
            continue
        rows = rows_of(fork(NAME, home, row["uuid"]))
        blocks = [
            b
            for r in rows
            if "message" in r and isinstance(r["message"]["content"], list)
            for b in r["message"]["content"]
        ]
        calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
        results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        assert calls <= results
        assert (
            any(r.get("forkedFrom", {}).get("messageUuid") == row["uuid"] for r in rows) or row["type"] == "progress"
        )


def test_a_step_that_was_running_is_left_out_and_said(source: Path, home: Path) -> None:
    journal = Journal(source)
    answered(journal, 2, "push('b')")
    journal.call("call_b", "push", {"name": "b"}, "m", step=2, effects="write", files=[])
    journal.note("approval-asked", callId="call_b", tool="push", arguments={}, binding="d")
    journal.close()
    made = fork(NAME, home)
    found = restore(made.path)
    assert found.action is None and found.pending == () and made.steps == 3
    assert "Step 2 was running when the record ends: it is left out." in made.could_not


def test_a_stranger_s_trace_gives_text_and_code_only(source: Path, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    made = fork(source, other)
    assert not made.lineage.own and made.lineage.source == f"{NAME}.jsonl"
    found = restore(made.path)
    assert (found.mode, found.rules, found.budget_usd, found.effects, found.pending) == ("", (), None, (), ())
    assert kinds(rows_of(made)) == ["end", "forked"] and len(found.steps) == 5
    assert found.steps[1].observations == "long\n" * 60_000, "its artifacts came with it"
    folder = made.path.with_suffix("")
    assert sorted(path.name for path in folder.iterdir()) == ["artifacts"], "neither its files nor its variables"
    assert any("no approvals, rules, limits" in text for text in made.could_not)
    assert {seen.tool for seen in found.seen} >= {"fork"} and any("two" in seen.text for seen in found.seen), (
        "all is untrusted"
    )
    again = fork(made.session_id, other)
    assert not again.lineage.own and restore(again.path).rules == (), "and so is a fork of the fork"


def test_what_a_stranger_wrote_into_his_trace_is_no_word_of_ours(home: Path, tmp_path: Path) -> None:
    """Also where the trace pretends to be a fork of this home, or was cut off in the middle of a push."""
    theirs = Journal(tmp_path / f"{NAME}.jsonl", masker=Masker({}))
    theirs.user("Do it.", stepKind="task")
    for kind, fields in {
        "forked": {"source": NAME, "own": True}, "rule": {"rule": "allow *", "scope": "always"}, "mode": {"mode": "auto"},
        "budget": {"usd": 1e6}, "extended": {"steps": 999}, "parked": {"calls": ["call_a"]},
    }.items():  # fmt: skip
        theirs.note(kind, **fields)
    answered(theirs, 1, "push('a')")
    theirs.call("call_a", "push", {"name": "a"}, "m", step=1, effects="write", files=[])
    theirs.note("approval-asked", callId="call_a", tool="push", arguments={}, binding="d")
    theirs.note("approval-answered", callId="call_a", decision="approve", by="me", binding="d")
    theirs.close()
    made = fork(theirs.path, home)
    found = restore(made.path)
    assert not found.lineage.own and kinds(rows_of(made)) == ["forked"] and "approve" not in made.path.read_text()
    assert (found.mode, found.rules, found.budget_usd, found.max_steps, found.parked) == ("", (), None, None, ())
    assert found.action is None and found.effects == () and len(found.steps) == 1


def test_secrets_in_a_stranger_s_trace_are_masked(home: Path, tmp_path: Path) -> None:
    theirs = Journal(tmp_path / f"{NAME}.jsonl", masker=Masker({}))
    theirs.user("Use my-own-token-value.", stepKind="task")
    answered(theirs, 1, "1")
    theirs.result("toolu_1", "my-own-token-value\n" * 20_000, step=1)
    theirs.close()
    made = fork(theirs.path, home, masker=Masker({"my-own-token-value": "MY_TOKEN"}))
    for path in [made.path, *(made.path.with_suffix("") / "artifacts").iterdir()]:
        assert b"my-own-token-value" not in path.read_bytes() and b"[secret:MY_TOKEN]" in path.read_bytes()
    assert "Secrets stay masked: MY_TOKEN." in made.could_not


def test_another_first_task(source: Path, home: Path) -> None:
    made = fork(NAME, home, 1, instruction="Another one.", title="Mine")
    found = restore(made.path)
    assert found.task == "Another one." and found.title == "Mine" and restore(source).turns[0].task.startswith("one")


def test_traps_in_a_workspace_are_copied_as_what_they_are(source: Path, home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    workspace = source.with_suffix("") / "workspace"
    (workspace / "link").symlink_to(secret)
    (workspace / "folder").symlink_to(tmp_path)
    os.mkfifo(workspace / "pipe")
    made = fork(NAME, home)
    copy = made.path.with_suffix("") / "workspace"
    assert (copy / "link").is_symlink() and (copy / "folder").is_symlink() and not (copy / "pipe").exists()
    assert sorted(path.name for path in copy.iterdir()) == ["data", "folder", "link"]
    assert any("1 files of its workspace were not copied" in text for text in made.could_not)


def test_a_fork_at_any_step_shows_the_model_what_it_saw_then(home: Path) -> None:
    def answer(messages: list[ChatMessage]) -> str:
        if "is about to be compacted" in str(messages[-1].content):
            return "Goal: as the user says."
        calls.append(1)
        if len(calls) % 25 == 0:
            return code("final_answer(1)")
        if len(calls) % 7 == 0:
            return "I forgot the code. " * 20
        return code(f"print('result {len(calls)} ' * {300 * (len(calls) % 3)})", "I think about it. " * 20)

    calls: list[int] = []
    (home / "sessions").mkdir(parents=True)
    live = Live(home / "sessions", [answer] * 200, window=9_000, max_steps=100)
    try:
        live.turn("Measure it.")
        live.turn("Again.")
        live.model.leftover.clear()
    finally:
        live.agent.cleanup()
        live.journal.close()
    steps = live.agent.memory.steps
    ends = [place + 1 for place, step in enumerate(steps) if isinstance(step, ActionStep)]
    assert len(ends) == 50 and len(steps) > 52, "it was compacted"

    def shown(which: list[Any]) -> list[Any]:
        memory = AgentMemory("the system prompt")
        memory.steps = which
        context = ContextManager(window=9_000, store=ArtifactStore(live.journal.artifacts))
        context.limit(live.model)
        return plain(context.render(memory))

    for step in range(1, 51, 3):
        assert shown(restore(fork(live.journal.path, home, step).path).steps) == shown(
            list(steps[: ends[step - 1]])
        ), step


@pytest.mark.long
def test_ten_thousand_rows_are_forked_within_a_second(home: Path) -> None:
    path = home / "sessions" / f"{NAME}.jsonl"
    long_trace(path, 10_000)
    assert fork(NAME, home).steps == 2_500
    assert cpu(lambda: fork(NAME, home), 1.0) < 1.0


@pytest.mark.long
def test_a_disk_that_is_full_leaves_no_half_fork(source: Path, home: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
from ml_intern.errors import JournalFailed
from ml_intern.trace.fork import fork
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
try:
    fork({NAME!r}, Path({str(home)!r}))
except JournalFailed as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "could not be written" in done.stdout and "Free space" in done.stdout, done.stderr
    assert sorted(path.name for path in (home / "sessions").iterdir()) == [NAME, f"{NAME}.jsonl"]
