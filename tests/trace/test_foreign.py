"""Traces that other programs wrote: Claude Code's own, the reference system's, those on the Hub; as text and code."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from smolagents.memory import ActionStep, AgentMemory, TaskStep
from test_restore import answered

from ml_intern.context import ContextManager
from ml_intern.errors import InternError
from ml_intern.steps import CompactionStep
from ml_intern.testing import LocalHub
from ml_intern.trace import Journal, read_rows, restore
from ml_intern.trace.foreign import OnHub, on_hub
from ml_intern.trace.fork import fork
from ml_intern.trace.listing import describe

NAME = "11111111-2222-4333-8444-555555555555"
READER = Path(sysconfig.get_path("scripts")) / "claude-code-log"
EMPTY_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def row(kind: str, uuid: str, parent: str | None, content: Any, **extra: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": kind, "content": content}
    if kind == "assistant":
        message |= {"id": extra.pop("id", f"msg_{uuid}"), "type": "message", "model": "claude", "stop_reason": None,
                    "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 4}}  # fmt: skip
    return {
        "type": kind, "message": message, "uuid": uuid, "parentUuid": parent, "isSidechain": False, "userType": "external",
        "cwd": "/home/user/demo", "sessionId": NAME, "version": "2.1.90", "gitBranch": "main",
        "timestamp": f"2026-01-15T10:00:{len(uuid):02d}.000Z", **extra,
    }  # fmt: skip


def said(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def use(call: str, name: str = "Bash", **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call, "name": name, "input": given}


def result(call: str, content: Any, **extra: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": content, **extra}


CLAUDE = [
    {"type": "summary", "summary": "Look at a folder", "leafUuid": "u9"},
    row("user", "u0", None, "caveat", isMeta=True),
    row("user", "u1", "u0", "Look at this."),
    row("assistant", "a1", "u1", [{"type": "thinking", "thinking": "hmm", "signature": ""}], id="m1"),
    row("assistant", "a2", "a1", [said("I look.")], id="m1"),
    row("assistant", "a3", "a2", [use("c1", command="ls")], id="m1"),
    row("assistant", "a4", "a3", [use("c2", "Read", path="x.png")], id="m1"),
    row("user", "u2", "a3", [result("c1", "x.png")], toolUseResult="x.png", sourceToolAssistantUUID="a3"),
    row("user", "s1", None, "a sub-agent's task", isSidechain=True),
    row("user", "u3", "a4", [result("c2", [said("a dot"), {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": EMPTY_PNG}}])]),
    {"type": "file-history-snapshot", "messageId": "x", "snapshot": {}},
    row("assistant", "b0", "u3", [said("A branch that was given up.")]),
    row("user", "b1", "b0", "No, otherwise."),
    row("assistant", "a5", "u3", [use("c3", command="false")]),
    row("user", "u4", "a5", [result("c3", "exit 1", is_error=True)]),
    row("assistant", "a6", "u4", [said("It is a dot.")]),
    row("user", "u5", "a6", "And then?"),
    row("assistant", "a7", "u5", [said("That was all.")]),
]  # fmt: skip


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


def shown(steps: list[Any]) -> list[tuple[str, str]]:
    memory = AgentMemory("system")
    memory.steps = steps
    messages = ContextManager().render(memory)[1:]
    return [(str(m.role.value), "\n".join(p.get("text", "[image]") for p in m.content)) for m in messages]


def test_claude_code_s_own_trace_is_read_as_text(tmp_path: Path) -> None:
    found = restore(write(tmp_path / f"{NAME}.jsonl", CLAUDE))
    assert [type(step).__name__ for step in found.steps] == [
        "TaskStep", "TrackedActionStep", "TrackedActionStep", "TrackedActionStep", "TaskStep", "TrackedActionStep",
    ]  # fmt: skip
    assert [step.step_number for step in found.steps if isinstance(step, ActionStep)] == [1, 2, 3, 1]
    assert shown(found.steps) == [
        ("user", "New task:\nLook at this."),
        ("assistant", 'I look.\n\n[I called Bash with {"command": "ls"}]\n\n[I called Read with {"path": "x.png"}]'),
        ("user", "[image]"),
        ("tool-response", "Observation:\nx.png\na dot"),
        ("assistant", '[I called Bash with {"command": "false"}]'),
        ("tool-response", "Observation:\nexit 1"),
        ("assistant", "It is a dot."),
        ("tool-response", "Observation:\n(nothing)"),
        ("user", "New task:\nAnd then?"),
        ("assistant", "That was all."),
        ("tool-response", "Observation:\n(nothing)"),
    ]
    assert found.action is None and found.effects == () and found.problems == ()


def test_a_compaction_of_another_program_hides_what_was_before_it(tmp_path: Path) -> None:
    boundary = {**row("user", "x", None, ""), "type": "system", "subtype": "compact_boundary", "logicalParentUuid": "a7",
                "compactMetadata": {"trigger": "auto", "preTokens": 155_000}}  # fmt: skip
    del boundary["message"]
    rows = [
        *CLAUDE,
        boundary,
        row("user", "y", "x", "Summary: a dot.", isCompactSummary=True),
        row("user", "z", "y", "Go on."),
    ]
    found = restore(write(tmp_path / f"{NAME}.jsonl", rows))
    assert isinstance(found.steps[-2], CompactionStep) and len(found.steps) == 8
    assert shown(found.steps) == [("user", "Summary: a dot."), ("user", "New task:\nGo on.")]


@pytest.mark.parametrize(
    ("at", "kept"), [(1, "u3"), (2, "u4"), (3, "a6"), ("1.2", "u4"), ("2.1", "a7"), ("a3", "u3"), ("u4", "u4")]
)
def test_it_is_forked_at_any_step_with_all_answers(tmp_path: Path, at: Any, kept: str) -> None:
    source = write(tmp_path / "theirs" / f"{NAME}.jsonl", CLAUDE)
    made = fork(source, tmp_path, at)
    rows = [item for item in read_rows(made.path) if "forkedFrom" in item]
    origins = [item["forkedFrom"]["messageUuid"] for item in rows]
    assert origins[-1] == kept and "b0" not in origins and "s1" not in origins
    assert [item["parentUuid"] for item in rows] == [None, *(item["uuid"] for item in rows[:-1])], (
        "parallel calls in one line"
    )
    assert "sourceToolAssistantUUID" not in made.path.read_text()


@pytest.mark.long
def test_a_fork_of_it_can_be_gone_on_with_and_read_by_others(tmp_path: Path) -> None:
    made = fork(write(tmp_path / "theirs" / f"{NAME}.jsonl", CLAUDE), tmp_path)
    before, after = restore(tmp_path / "theirs" / f"{NAME}.jsonl"), restore(made.path)
    assert shown(after.steps) == shown(before.steps) and not after.lineage.own
    assert describe(made.path).steps == made.steps == 4 and describe(made.path).title == "Look at this. (fork)"
    done = subprocess.run(
        [str(READER), str(made.path), "-o", str(tmp_path / "page.html")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == ["Processing", "Successfully"], lines


REFERENCE = [
    {"type": "user", "message": {"role": "user", "content": "Train it."}, "uuid": "1", "parentUuid": None, "sessionId": "s", "timestamp": "2026-01-15T10:00:00"},
    {"type": "assistant", "message": {"role": "assistant", "model": "m", "content": [said("I do."), use("c1", "hf_jobs", operation="run")]},
     "uuid": "2", "parentUuid": "1", "sessionId": "s", "timestamp": "2026-01-15T10:00:00"},
    {"type": "user", "message": {"role": "user", "content": [result("c1", "job 7 completed")]}, "uuid": "3", "parentUuid": "2",
     "sessionId": "s", "timestamp": "2026-01-15T10:00:00"},
    {"type": "assistant", "message": {"role": "assistant", "model": "m", "content": [said("Done.")]}, "uuid": "4", "parentUuid": "3",
     "sessionId": "s", "timestamp": "2026-01-15T10:00:00"},
]  # fmt: skip
MESSAGES = [
    {"role": "system", "content": "You are."},
    {"role": "user", "content": "Train it."},
    {"role": "assistant", "content": "I do.", "tool_calls": [{"id": "c1", "function": {"name": "hf_jobs", "arguments": '{"operation": "run"}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "job 7 completed"},
    {"role": "assistant", "content": [said("Done.")]},
]  # fmt: skip


@pytest.mark.parametrize("layout", ["lines", "row", "file"])
def test_the_reference_system_s_sessions_are_forked_however_they_were_kept(tmp_path: Path, layout: str) -> None:
    session = {"session_id": "s", "model_name": "m", "session_start_time": "2026-01-15T10:00:00", "messages": MESSAGES}
    if layout == "lines":
        source = write(tmp_path / "theirs" / "s.jsonl", REFERENCE)
    elif layout == "row":
        source = write(tmp_path / "theirs" / "s.jsonl", [{**session, "messages": json.dumps(MESSAGES)}])
    else:
        source = tmp_path / "session_s_20260115.json"
        source.write_text(json.dumps(session, indent=2))
    made = fork(source, tmp_path)
    assert shown(restore(made.path).steps) == [
        ("user", "New task:\nTrain it."),
        ("assistant", 'I do.\n\n[I called hf_jobs with {"operation": "run"}]'),
        ("tool-response", "Observation:\njob 7 completed"),
        ("assistant", "Done."),
        ("tool-response", "Observation:\n(nothing)"),
    ]
    rows = [item for item in read_rows(made.path) if "message" in item]
    assert all(
        {"userType", "cwd", "version", "timestamp", "isSidechain", "sessionId", "uuid"} <= item.keys() for item in rows
    )
    assert all(
        {"id", "type", "model", "stop_reason"} <= item["message"].keys()
        for item in rows
        if item["type"] == "assistant"
    )
    assert isinstance(restore(made.path).steps[0], TaskStep)


def test_a_trace_of_the_smallest_sort_is_read(tmp_path: Path) -> None:
    rows = [{k: item[k] for k in ("type", "message", "sessionId")} for item in REFERENCE]
    made = fork(write(tmp_path / "theirs" / "s.jsonl", rows), tmp_path)
    assert len(restore(made.path).steps) == 3


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"{}", b"[1, 2]", b"\x89PNG", b'{"messages": 3}', b'{"messages": "["}']
)
def test_what_is_no_trace_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "x.jsonl"
    source.write_bytes(content)
    with pytest.raises(InternError, match="holds no conversation"):
        fork(source, tmp_path)
    assert not (tmp_path / "sessions").exists()


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("hf://datasets/me/t/sessions/2026-01-15/a.jsonl", OnHub("me/t", "sessions/2026-01-15/a.jsonl")),
        ("hf://datasets/me/t@refs%2Fpr%2F1/a.jsonl", OnHub("me/t", "a.jsonl", "refs/pr/1")),
        ("https://huggingface.co/datasets/me/t/blob/main/sessions/a%20b.jsonl", OnHub("me/t", "sessions/a b.jsonl", "main")),
        ("http://hub.local:8/datasets/me/t/resolve/abc/a.jsonl?download=true", OnHub("me/t", "a.jsonl", "abc")),
        ("https://hf.co/datasets/squad/blob/main/a.jsonl", OnHub("squad", "a.jsonl", "main")),
        ("a/b.jsonl", None),
    ],
)  # fmt: skip
def test_addresses_on_the_hub(source: str, place: OnHub | None) -> None:
    assert on_hub(source, "http://hub.local:8") == place


@pytest.mark.parametrize(
    "source",
    ["hf://me/t/a.jsonl", "hf://datasets/me/t", "https://evil.example/datasets/me/t/blob/main/a.jsonl",
     "https://huggingface.co/me/model/blob/main/a.jsonl", "https://huggingface.co/datasets/me/t", "hf://datasets/me/t/"],
)  # fmt: skip
def test_addresses_of_no_trace(source: str) -> None:
    with pytest.raises(InternError, match="is no trace on the Hub"):
        on_hub(source, "http://hub.local:8")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory):
    with LocalHub(tmp_path_factory.mktemp("hub"), {"hf_alice": "alice", "hf_bob": "bob"}) as hub:
        yield hub


def test_a_trace_on_the_hub_is_forked_with_its_artifacts(hub: LocalHub, tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(50_000))
    source = tmp_path / "a" / f"{NAME}.jsonl"
    journal = Journal(source)
    journal.user("Look.", stepKind="task")
    answered(journal, 1, "print()")
    journal.result("toolu_1", text, step=1)
    journal.close()
    [artifact] = journal.artifacts.iterdir()
    folder = "sessions/2026-01-15"
    files = {
        f"{folder}/{NAME}.jsonl": source.read_bytes(),
        f"{folder}/{NAME}/artifacts/{artifact.name}": artifact.read_bytes(),
    }
    hub.seed("alice/ml-intern-traces", "dataset", files)
    address = f"datasets/alice/ml-intern-traces/blob/main/{folder}/{NAME}.jsonl"
    for where in (
        f"hf://{address.replace('/blob/main', '')}",
        f"https://huggingface.co/{address}",
        f"{hub.url}/{address}",
    ):
        made = fork(where, tmp_path, api=HfApi(endpoint=hub.url, token="hf_alice"))
        found = restore(made.path)
        assert found.steps[1].observations == text and not found.lineage.own
        assert found.lineage.source == f"hf://datasets/alice/ml-intern-traces/{folder}/{NAME}.jsonl"


def test_what_the_hub_does_not_give_is_said(hub: LocalHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url, token="hf_bob")
    with pytest.raises(InternError, match=r"Could not fetch hf://datasets/bob/none/x\.jsonl"):
        fork("hf://datasets/bob/none/x.jsonl", tmp_path, api=api)
    with pytest.raises(InternError, match="leads out"):
        fork("hf://datasets/bob/none/../../x.jsonl", tmp_path, api=api)
    assert not (tmp_path / "sessions").exists()
