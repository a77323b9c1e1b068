"""Spoilt traces: whatever a file holds, what can be read is read, what cannot is said, and nothing crashes or hangs."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from smolagents.memory import AgentMemory
from test_foreign import CLAUDE
from test_restore import answered

from ml_intern.context import ArtifactStore, ContextManager
from ml_intern.errors import InternError
from ml_intern.secrets import Masker
from ml_intern.steps import CompactionStep
from ml_intern.trace import Journal, read_rows, restore
from ml_intern.trace.fork import fork
from ml_intern.trace.listing import describe, find
from ml_intern.trace.recorder import TraceRecorder

NAME = "11111111-2222-4333-8444-555555555555"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": CLAUDE[9]["message"]["content"][0]["content"][1]["source"]["data"]}}  # fmt: skip


def everything(path: Path) -> bytes:
    """A trace with each sort of row."""
    journal = Journal(path, masker=Masker({}))
    recorder = TraceRecorder(journal, "m")
    journal.user([{"type": "text", "text": "Publish it."}, IMAGE], stepKind="task", variables=["frame"])
    journal.note("worker", jail="bubblewrap")
    journal.note("mode", mode="auto")
    journal.note("rule", rule="allow push:me/*", scope="session")
    journal.note("budget", usd=5, hours=1.5)
    journal.answer(
        [{"type": "text", "text": "A plan"}],
        "m",
        {"input_tokens": 1, "output_tokens": 1},
        stepKind="planning",
        modelOutput="A plan",
    )
    answered(journal, 1, "push('a')")
    journal.call(
        "call_p", "plan", {"items": ["look", {"text": "go", "status": "done"}]}, "m", step=1, effects="read", files=[]
    )
    journal.result("call_p", '{"open": 1}', step=1, denied=False)
    journal.call("call_n", "notes", {"add": "seed 1"}, "m", step=1, effects="read", files=[])
    journal.result("call_n", '["seed 1"]', step=1, denied=False)
    journal.result("toolu_1", "long " * 50_000, step=1, value=[1, {"a": None}], final=False)
    journal.note("steered", text="Faster.", by="me", source="user")
    answered(journal, 2, None)
    journal.user(
        "Error:\nno code", step=2, failure={"type": "AgentParsingError", "message": "no code"}, value=None, final=False
    )
    journal.note("no-answer", step=3, images=1)
    masked = CompactionStep("fill", "mask", 6, 20_000, masked=3)
    recorder.compacted(masked)
    recorder.compacted(
        CompactionStep(
            "fill",
            "summary",
            7,
            20_000,
            start=3,
            masked=3,
            lead="Before this.",
            summary="S",
            said="S",
            handles=["artifact:1 x"],
        )
    )
    journal.note("end", state="max_steps", reason="", costUsd=1.0, inputTokens=20, outputTokens=9, seconds=2.5)
    journal.title("A title")
    before = journal.last
    journal.user("undone", stepKind="task")
    journal.note("end", state="error", reason="")
    journal.branch_from(before)
    journal.note("undone", to=before)
    journal.user("three", stepKind="task")
    answered(journal, 1, "push('b')")
    files = [{"path": "a.bin", "size": 3, "sha256": "ab"}]
    journal.call("call_b", "push", {"name": "b"}, "m", step=1, effects="write", files=files)
    journal.note("approval-asked", callId="call_b", tool="push", arguments={"name": "b"}, reason="r", files=files, binding="d", destination={"name": "me/x"}, sources=["p"], costUsd=0.1)  # fmt: skip
    journal.note("approval-answered", callId="call_b", decision="approve", by="me", binding="d", scope="once")
    journal.note("reconciled", callId="call_b", happened=False, by="push")
    journal.note("parked", calls=["call_b"])
    journal.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, Path]]:
    folder = tmp_path_factory.mktemp("whole")
    own = everything(folder / f"{NAME}.jsonl")
    theirs = "".join(json.dumps(row) + "\n" for row in CLAUDE).encode()
    return [(own, folder / NAME), (theirs, folder / "none")]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["task", "end", "user", "call_b", "toolu_1", "1e999", -1, 2**70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["type", "content", "id"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def spoil(data: bytes, kind: str, chance: random.Random, junk: Any, noise: bytes) -> bytes:
    """One way in which a file may be spoilt."""
    lines = data.splitlines(keepends=True)
    place = chance.randrange(len(lines)) if lines else 0
    if not lines:
        return noise
    if kind == "cut":
        return data[: chance.randrange(len(data) + 1)]
    if kind == "head":
        return data[chance.randrange(len(data) + 1) :]
    if kind == "hole":
        start = chance.randrange(len(data))
        return data[:start] + data[start + chance.randrange(1, 5_000) :]
    if kind == "noise":
        start = chance.randrange(len(data) + 1)
        return data[:start] + noise + data[start:]
    if kind == "lines":
        lines.insert(place, noise.replace(b"\n", b"") + b"\n")
    elif kind == "gone":
        del lines[place]
    elif kind == "double":
        lines.insert(chance.randrange(len(lines)), lines[place])
    elif kind == "shuffle":
        chance.shuffle(lines)
    else:
        lines[place] = changed(lines[place], chance, junk, drop=kind == "drop")
    return b"".join(lines)


def changed(line: bytes, chance: random.Random, junk: Any, drop: bool) -> bytes:
    """A row with one of its values, at any depth, gone or another."""
    try:
        row = json.loads(line)
    except ValueError:
        return line
    holder, key = row, None
    while isinstance(holder, dict | list) and holder:
        key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if not isinstance(holder[key], dict | list) or not holder[key] or chance.random() < 0.3:
            break
        holder = holder[key]
    if key is None:
        return line
    if drop:
        del holder[key]
    else:
        holder[key] = junk
    return json.dumps(row).encode() + b"\n"


KINDS = (
    "cut",
    "head",
    "hole",
    "noise",
    "lines",
    "gone",
    "double",
    "shuffle",
    "value",
    "value",
    "value",
    "drop",
    "drop",
)


def check(data: bytes, beside: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        path = home / "sessions" / f"{NAME}.jsonl"
        path.parent.mkdir()
        path.write_bytes(data)
        if beside.is_dir():
            shutil.copytree(beside, path.with_suffix(""))
        readable = list(read_rows(path))
        found = restore(path)
        assert found.rows == len(readable)
        bad = [line for line in data.splitlines() if line.strip()]
        assert len(bad) <= len(readable) or found.problems or data.count(b"\r") or b"\x0b" in data or b"\x1c" in data
        memory = AgentMemory("system")
        memory.steps = list(found.steps)
        context = ContextManager(store=ArtifactStore(path.with_suffix("") / "artifacts"))
        context.render(memory)
        context.count(memory)
        _ = found.pending, found.unknown, found.task
        info = describe(path)
        assert (info is None) == (not readable)
        if info is not None:
            assert find(home, "") == path
        try:
            made = fork(path, home / "other")
            again = restore(made.path)
            assert not again.problems or found.problems, again.problems
            assert again.action is None and again.effects == ()
        except InternError as error:
            assert "Nothing of" in str(error) or "holds no conversation" in str(error)
        journal = Journal(path, masker=Masker({}))
        journal.user("after all that", stepKind="task")
        journal.close()
        after = restore(path)
        assert after.task == "after all that" and after.rows >= len(readable) + 1
        kept = path.read_bytes() + b"".join(p.read_bytes() for p in path.with_suffix("").glob("torn-*"))
        assert all(line in kept for line in data.split(b"\n")[:50]), "no byte is lost"


def fuzz(traces: list[tuple[bytes, Path]]) -> Any:
    @given(
        st.integers(0, 1), st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.integers(0, 2**32 - 1), JUNK,
        st.binary(max_size=60),
    )  # fmt: skip
    def example(which: int, kinds: list[str], seed: int, junk: Any, noise: bytes) -> None:
        chance = random.Random(seed)
        data, beside = traces[which]
        for kind in kinds:
            data = spoil(data, kind, chance, junk, noise)
        started = time.process_time()
        check(data, beside)
        assert time.process_time() - started < 5, "it does not hang"

    return example


def configured(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.mark.long
def test_spoilt_traces(traces: list[tuple[bytes, Path]]) -> None:
    configured(150)(fuzz(traces))()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_thousand_spoilt_traces(traces: list[tuple[bytes, Path]]) -> None:
    configured(20_000)(fuzz(traces))()


def test_a_trace_cut_at_any_row_gives_all_rows_before(traces: list[tuple[bytes, Path]], tmp_path: Path) -> None:
    data, _ = traces[0]
    lines = data.splitlines(keepends=True)
    path = tmp_path / f"{NAME}.jsonl"
    for count in range(1, len(lines) + 1):
        torn = lines[count][: len(lines[count]) // 2] if count < len(lines) else b""
        path.write_bytes(b"".join(lines[:count]) + torn)
        found = restore(path)
        assert found.rows == count and ("The last row was cut off." in found.problems) == bool(torn)


def test_the_whole_trace_is_read_without_a_complaint(traces: list[tuple[bytes, Path]], tmp_path: Path) -> None:
    for place, (data, beside) in enumerate(traces):
        check(data, beside)
        path = tmp_path / str(place) / f"{NAME}.jsonl"
        path.parent.mkdir()
        path.write_bytes(data)
        if beside.is_dir():
            shutil.copytree(beside, path.with_suffix(""))
        assert restore(path).problems == ()
