"""Sharing against the local Hub with the unmodified client, in a process that was pointed there before it was imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml_intern.testing import LocalHub

FIRST = '{"type":"user","timestamp":"2026-01-15T23:59:00.000Z"}'
NAME = "11111111-2222-4333-8444-555555555555"

PROGRAM = """
import json, sys
from pathlib import Path
from ml_intern.errors import InternError
from ml_intern.trace import share
try:
    shared = share(Path(sys.argv[1]))
    print(json.dumps({"repo": shared.repo_id, "path": shared.path}))
except InternError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory):
    with LocalHub(tmp_path_factory.mktemp("hub"), {"hf_alice": "alice", "hf_bob": "bob", "hf_eve": "eve"}) as hub:
        yield hub


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME}.jsonl"
    path.write_text(f'{FIRST}\n{{"type":"assistant"}}\n{{"torn')
    return path


def run(hub: LocalHub, trace: Path, token: str, **environment: str) -> dict[str, str]:
    env = {**os.environ, **hub.environment(token), **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(trace)], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_a_trace_goes_whole_lines_only_to_a_private_dataset_with_its_card(hub: LocalHub, trace: Path) -> None:
    shared = run(hub, trace, "hf_alice")
    assert shared["repo"] == "alice/ml-intern-traces"
    assert hub.store.repos["dataset", "alice/ml-intern-traces"].visibility == "private"
    assert hub.read(shared["repo"], "dataset", shared["path"]) == f'{FIRST}\n{{"type":"assistant"}}\n'.encode()
    assert shared["path"] == f"sessions/2026-01-15/{NAME}.jsonl"
    assert b"sessions/*/*.jsonl" in hub.read(shared["repo"], "dataset", "README.md")
    commits = len(hub.requests)
    assert run(hub, trace, "hf_alice") == shared, "the second time is the same file"
    assert len(hub.requests) > commits


@pytest.mark.long
def test_a_dataset_that_others_can_read_gets_no_trace(hub: LocalHub, trace: Path) -> None:
    hub.seed("bob/ml-intern-traces", "dataset", {"README.md": b"mine"})
    said = run(hub, trace, "hf_bob")
    assert "is public: the trace was not uploaded" in said["error"]
    assert "sessions" not in " ".join(hub.store.repos["dataset", "bob/ml-intern-traces"].resolve("main").files)


@pytest.mark.long
@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses_leaves_the_trace_here_and_says_so(hub: LocalHub, trace: Path, status: int) -> None:
    failure = hub.fail("/api/repos/create", status=status, times=None)
    try:
        said = run(hub, trace, "hf_eve")
    finally:
        failure.times = 0
    assert "was not uploaded; it stays on this machine" in said["error"] and str(trace) in said["error"]


@pytest.mark.long
def test_a_hub_that_is_not_there(hub: LocalHub, trace: Path) -> None:
    said = run(hub, trace, "hf_alice", HF_ENDPOINT="http://127.0.0.1:9")
    assert "was not uploaded; it stays on this machine" in said["error"]


@pytest.mark.long
def test_without_a_token(hub: LocalHub, trace: Path) -> None:
    said = run(hub, trace, "hf_alice", HF_TOKEN="")
    assert "no Hub token" in said["error"] and "hf auth login" in said["error"]
