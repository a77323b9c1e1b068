"""From a plan to a trained model, as the agent goes: training_config, a smoke run, the run, all in the jail."""

from __future__ import annotations

import copy
import json

import pytest
from ml_intern.tools import TrainingConfigTool, TrainingJobTool

from ml_intern.execution import JailExecutor, LocalJobs

WORDS = {"calm": "quiet lake slow evening tea garden", "angry": "shout storm broken refund never worst"}


@pytest.fixture
def jobs(workspace, tmp_path):
    executor = JailExecutor(workspace, network="none")
    made = LocalJobs(executor, tmp_path / "session" / "jobs")
    yield made
    made.stop_all()
    executor.cleanup()


def mails(count: int) -> str:
    """CSV with a text that tells its label."""
    lines = ["text,label"]
    for number in range(count):
        label = ("calm", "angry")[number % 2]
        words = WORDS[label].split()
        lines.append(f'"mail {number}: {words[number % 6]}, {words[(number * 5 + 1) % 6]}",{label}')
    return "\n".join(lines) + "\n"


@pytest.mark.long
def test_a_plan_is_carried_out(workspace, jobs):
    workspace.write_bytes("data/train.csv", mails(120).encode())
    planned = TrainingConfigTool(workspace)(
        task="Tell calm from angry.", method="sklearn", dataset="data", options={"name": "mails"}
    )
    assert planned["ready"], planned["checks"]
    tool = TrainingJobTool(workspace, jobs)

    def call(call_id, **arguments):
        one = copy.copy(tool)
        one.call_id = call_id
        return one(**arguments)

    with pytest.raises(PermissionError, match="smoke"):
        call("call_000000000001", operation="start", **planned["start"])
    smoke = call("call_000000000002", operation="start", **planned["start"], smoke=True)
    assert call("call_000000000003", operation="wait", job_id=smoke["job_id"], seconds=80)["state"] == "done"
    started = call("call_000000000004", operation="start", **planned["start"])
    ended = call("call_000000000005", operation="wait", job_id=started["job_id"], seconds=80)
    assert ended["state"] == "done", call("call_000000000006", operation="logs", job_id=started["job_id"])["text"]
    assert ended["result"]["metrics"]["eval_accuracy"] == 1.0
    assert workspace.exists("runs/mails/model/model.skops")
    config = json.loads(workspace.read_bytes("runs/mails/config.json"))
    assert config["seed"] == 42
    assert config["files"] == planned["plan"]["files"]
    rows = workspace.read_bytes("runs/mails/metrics.jsonl").decode().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4]
