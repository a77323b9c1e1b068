"""Jobs as the model starts them: in the jail of this machine, and on a local Hub whose jobs really run."""

from __future__ import annotations

import copy
import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from ml_intern.tools import TrainingJobTool
from saving import assert_survives_saving

from ml_intern.effects import effects_of
from ml_intern.execution import CodeInterrupted, JailExecutor, LocalJobs
from ml_intern.execution.action import pause
from ml_intern.job_watch import JobWatch
from ml_intern.records import Records

TRAIN = """
import argparse, hashlib, json, os, sys, time
from pathlib import Path
HYPERPARAMETERS = {"epochs": 2, "learning_rate": 0.1}
parser = argparse.ArgumentParser()
parser.add_argument("--smoke", action="store_true")
parser.add_argument("--output", type=Path)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--rise", type=int, default=10**9)
args = parser.parse_args()
out = args.output or Path("runs", "a-smoke" if args.smoke else "a")
out.mkdir(parents=True, exist_ok=True)
digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
(out / "config.json").write_text(json.dumps({"name": "a", "smoke": args.smoke, "script_sha256": digest}))
print("token:", os.environ.get("HF_TOKEN"), "network:", os.environ.get("ML_INTERN_NETWORK"), flush=True)
steps = 2 if args.smoke else args.steps
for step in range(1, steps + 1):
    loss = 0.4 + 2 / (step + 1) + 0.05 * (step * 7 % 5 - 2) + 0.2 * max(0, step - args.rise + 1)
    point = {"step": step, "epoch": 2 * step / steps, "time": time.time(), "loss": loss}
    if step == steps:
        point["eval_accuracy"] = 0.9
    print("@metrics " + json.dumps(point), flush=True)
    time.sleep(args.pause)
result = {"status": "done", "metrics": {"eval_loss": 0.1, "eval_accuracy": 0.9}, "model": "model", "steps": steps}
(out / "result.json").write_text(json.dumps(result))
print("@result " + json.dumps(result))
"""


class Desk:
    """What a session has for the tool, with what it is told."""

    def __init__(self, workspace, folder, with_jobs=True):
        self.executor = JailExecutor(workspace, network="none") if with_jobs else None
        self.jobs = LocalJobs(self.executor, folder / "jobs") if self.executor else None
        self.watch = JobWatch(pause)
        self.news, self.corrected, self.rows = [], [], []
        self.watch.tell, self.watch.correct = self.news.append, self.corrected.append
        self.watch.session = "session-one"
        self.records = Records(folder, lambda kind, **data: self.rows.append((kind, data["data"])))
        self.tool = TrainingJobTool(workspace, self.jobs, self.watch, self.records)

    def call(self, call_id="call_000000000000", answer=None, **arguments):
        """As the router does it: on a copy, looked at before it is made."""
        tool = copy.copy(self.tool)
        tool.call_id, tool.answer = call_id, answer
        tool.check(**arguments)
        where, cost = tool.destination(**arguments), tool.estimate_cost(**arguments)
        self.shown, self.asked = tool.preview(**arguments), (where, cost)
        return tool(**arguments)

    def runs(self):
        return {run["job_id"]: run for run in self.records.all("experiment")}

    def close(self):
        self.watch.close()
        if self.jobs:
            self.jobs.stop_all()
            self.executor.cleanup()


@pytest.fixture
def desk(workspace, tmp_path):
    workspace.write_bytes("train.py", TRAIN.encode())
    made = Desk(workspace, tmp_path / "session")
    yield made
    made.close()


@pytest.fixture
def far(hub, workspace, tmp_path, monkeypatch):
    """A desk without a jail, before a Hub that has jobs."""
    monkeypatch.delenv("ML_INTERN_JOB_TOKEN", raising=False)
    workspace.write_bytes("train.py", TRAIN.encode())
    hub.jobs.credit.clear()
    made = Desk(workspace, tmp_path / "session", with_jobs=False)
    made.hub = hub
    yield made
    made.close()
    hub.jobs.close()
    hub.jobs.jobs.clear()


def smoke(desk, backend="local", call_id="call_smoke0000000"):
    started = desk.call(call_id, operation="start", backend=backend, script="train.py", smoke=True)
    return desk.call(operation="wait", job_id=started["job_id"], seconds=60)


def passed(desk):
    """A smoke run of the script as it is has passed: what its keeper left of it."""
    import hashlib

    digest = hashlib.sha256(desk.jobs.workspace.read_bytes("train.py")).hexdigest()
    ended(desk, "local-passed", "", state="done", exit_code=0, about={"sha256": digest, "smoke": True})


def ended(desk, name, log, about=None, **status):
    """A job of before, as its keeper leaves it."""
    folder = desk.jobs.folder / name
    folder.mkdir(parents=True)
    variables = {"ML_INTERN_ABOUT": json.dumps(about)} if about else {}
    (folder / "order.json").write_text(
        json.dumps({"command": ["python"], "cwd": ".", "seconds": 60, "variables": variables})
    )
    known = {"state": "failed", "exit_code": 1, "started": 1.0, "ended": 9.0, "peak_memory_bytes": None, "why": ""}
    (folder / "status.json").write_text(json.dumps({**known, **status}))
    (folder / "log.0").write_text(log)


def until(condition, seconds=20.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)


class Yes:
    decision = "approve"


class TestLocal:
    def test_a_smoke_run_then_the_run_and_what_it_came_to(self, desk):
        first = smoke(desk)
        assert (first["state"], first["result"]["status"]) == ("done", "done")
        started = desk.call(
            operation="start", script="train.py", timeout="10m", options={"name": "first", "parent": "run_abcdef"}
        )
        assert started["state"] == "running" and started["timeout_seconds"] == 600
        assert TRAIN in desk.shown and desk.asked == (None, None)
        done = desk.call(operation="wait", job_id=started["job_id"], seconds=60)
        assert done["state"] == "done" and done["exit_code"] == 0 and done["last"]["eval_accuracy"] == 0.9
        run = desk.runs()[started["job_id"]]
        assert run["id"] == started["experiment"] == done["experiment"]
        assert (run["state"], run["name"], run["parent"], run["folder"]) == ("done", "first", "run_abcdef", "runs/a")
        assert run["metric"] == {"name": "eval_accuracy", "value": 0.9, "higher_is_better": True}
        assert run["artifacts"] == ["runs/a/model"] and run["config"]["smoke"] is False and run["backend"] == "local"
        assert [run["config"]["smoke"] for run in desk.runs().values()] == [True, False]
        listed = desk.call(operation="list")["jobs"]
        assert [(job["state"], job["smoke"]) for job in listed] == [("done", True), ("done", False)]

    @pytest.mark.long
    def test_curves_come_as_text_and_as_a_picture(self, desk, workspace):
        passed(desk)
        job = desk.call(operation="start", script="train.py", timeout="5m")["job_id"]
        desk.call(operation="wait", job_id=job, seconds=60)
        shown = desk.call(operation="metrics", job_id=job)
        assert (
            shown["points"] == 20 and "● loss (now 0.3952)" in shown["curves"] and "eval_accuracy" in shown["curves"]
        )
        assert shown["picture"] == "runs/a/curves.png" and workspace.read_bytes(shown["picture"]).startswith(
            b"\x89PNG"
        )
        assert desk.call(operation="logs", job_id=job, options={"lines": 2})["text"].count("\n") == 1

    def test_a_job_gets_no_token(self, desk, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "planted")
        monkeypatch.setenv("ML_INTERN_JOB_TOKEN", "planted")
        job = smoke(desk)["job_id"]
        assert "token: None network: none" in desk.call(operation="logs", job_id=job)["text"]

    def test_nothing_starts_without_a_smoke_run_of_the_same_script(self, desk, workspace):
        with pytest.raises(PermissionError, match=r"no smoke run of train\.py as it is now has passed"):
            desk.call(operation="start", script="train.py", timeout="5m")
        smoke(desk)
        workspace.write_bytes("train.py", TRAIN.replace("0.1}", "0.2}").encode())
        with pytest.raises(PermissionError, match="no smoke run"):
            desk.call(operation="start", script="train.py", timeout="5m")
        with pytest.raises(PermissionError, match="a person's decision"):
            desk.call(operation="start", script="train.py", timeout="5m", options={"skip_smoke": True})
        assert len(desk.jobs.list()) == 1

    def test_a_smoke_run_that_failed_is_none(self, desk, workspace):
        workspace.write_bytes("train.py", b"import sys; sys.exit(1)")
        job = desk.call(operation="start", script="train.py", smoke=True)["job_id"]
        with pytest.raises(RuntimeError):
            desk.call(operation="wait", job_id=job, seconds=60)
        with pytest.raises(PermissionError, match="no smoke run"):
            desk.call(operation="start", script="train.py", timeout="5m")

    def test_the_same_call_and_the_same_run_start_once(self, desk):
        passed(desk)
        slow = {"operation": "start", "script": "train.py", "timeout": "5m", "arguments": ["--pause", "30"]}
        first = desk.call("call_aaaaaaaaaaaa", **slow)
        again = desk.call("call_aaaaaaaaaaaa", **slow)
        other = desk.call("call_bbbbbbbbbbbb", **slow)
        assert first["job_id"] == again["job_id"] == other["job_id"] and "running already" in other["note"]
        different = desk.call("call_cccccccccccc", **{**slow, "arguments": ["--pause", "29"]})
        assert different["job_id"] != first["job_id"]
        assert desk.tool.reconcile("call_cccccccccccc", **slow)["state"] == "running"
        assert desk.tool.reconcile("call_dddddddddddd", **slow) is None

    def test_a_divergence_is_told_when_it_can_be_known_and_ends_the_wait(self, desk):
        passed(desk)
        words = ["--steps", "400", "--pause", "0.05", "--rise", "20"]
        job = desk.call(operation="start", script="train.py", timeout="5m", arguments=words)["job_id"]
        began = time.monotonic()
        answer = desk.call(operation="wait", job_id=job, seconds=60)
        assert answer["state"] == "running" and time.monotonic() - began < 15
        assert [finding["kind"] for finding in answer["findings"]] == ["divergence"] and answer["findings"][0][
            "serious"
        ]
        assert 20 <= answer["findings"][0]["step"] <= 60
        began = time.monotonic()
        assert desk.call(operation="wait", job_id=job, seconds=1.5)["state"] == "running"  # it is known now
        assert time.monotonic() - began >= 1.4
        assert [(news.kind, news.serious) for news in desk.news] == [("divergence", True)]
        stopped = desk.call(operation="stop", job_id=job)
        assert stopped["state"] == "stopped" and desk.runs()[job]["state"] == "stopped"
        assert [news.kind for news in desk.news] == ["divergence", "ended"]
        assert desk.news[-1].text.startswith("It was stopped: divergence: The loss goes up since step")

    def test_a_loss_that_diverges_at_step_50_stops_the_job_where_a_rule_allows_and_is_its_cause(self, desk):
        """While nobody waits, by the watch alone: no sooner than it can be known, and not much later."""
        passed(desk)
        asked = []
        desk.watch.may_stop = lambda news: asked.append(news.kind) or news.kind == "divergence"
        words = ["--steps", "2000", "--pause", "0.02", "--rise", "50"]
        job = desk.call(operation="start", script="train.py", timeout="5m", arguments=words)["job_id"]
        until(lambda: desk.jobs.status(job)["state"] == "stopped")
        until(lambda: any(news.stopped for news in desk.news))
        (news,) = [news for news in desk.news if news.stopped]
        assert asked == ["divergence"] and news.serious and "It was stopped, as a rule says." in news.text
        assert 50 < news.step <= 62  # five logs make a level, and five levels a rise
        until(lambda: desk.runs()[job]["state"] == "stopped")
        assert desk.runs()[job]["why"].startswith("divergence: The loss goes up since step ")
        answer = desk.call(operation="wait", job_id=job, seconds=30)
        assert answer["state"] == "stopped" and answer["last"]["step"] < 250
        assert answer["cause"]["kind"] == "divergence" and answer["cause"]["step"] == news.step
        assert "lower learning rate" in answer["cause"]["remedy"]

    def test_one_that_was_stopped_with_nothing_wrong_has_no_cause(self, desk):
        passed(desk)
        words = ["--steps", "400", "--pause", "0.05"]
        job = desk.call(operation="start", script="train.py", timeout="5m", arguments=words)["job_id"]
        until(lambda: "last" in desk.call(operation="status", job_id=job))
        assert "cause" not in desk.call(operation="stop", job_id=job) and "why" not in desk.runs()[job]

    def test_too_slow_for_its_time_is_told(self, desk, monkeypatch):
        monkeypatch.setattr("ml_intern.watching.SLOW_SECONDS", 0.3)
        passed(desk)
        words = ["--steps", "1000", "--pause", "0.2"]
        job = desk.call(operation="start", script="train.py", timeout="60s", arguments=words)["job_id"]
        answer = desk.call(operation="wait", job_id=job, seconds=30)
        assert [finding["kind"] for finding in answer["findings"]] == ["too_slow"]

    def test_a_wait_ends_at_once_when_it_is_interrupted(self, desk):
        passed(desk)
        job = desk.call(operation="start", script="train.py", timeout="5m", arguments=["--pause", "60"])["job_id"]
        answers = []

        def wait(job_id):
            answers.append(desk.call(operation="wait", job_id=job_id, seconds=600))

        desk.executor.send_tools({"wait": wait})
        ended = []

        def act():
            try:
                desk.executor(f"wait({job!r})")
            except CodeInterrupted as error:
                ended.append(error)

        thread = threading.Thread(target=act)
        thread.start()
        time.sleep(1.0)
        began = time.monotonic()
        desk.executor.interrupt()
        until(lambda: answers)
        assert time.monotonic() - began < 2 and answers[0]["state"] == "running"
        thread.join(20)
        assert ended


FAILURES = [
    ("out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "Halve the batch size"),
    ("out_of_memory", "MemoryError", "Keep model, data and task"),
    ("column_missing", "KeyError: 'text'", "hub_inspect_dataset"),
    ("column_missing", "ValueError: No columns in the dataset match the model's forward method signature", "map"),
    ("no_space", "OSError: [Errno 28] No space left on device", "Keep fewer checkpoints"),
    ("gated", "OSError: Access to model acme/big is restricted. You must have access to it", "accept its conditions"),
    ("nan", "ValueError: Input contains NaN.", "learning rate"),
    ("import", "ModuleNotFoundError: No module named 'no_such_module'", "dependencies"),
    ("cuda", "RuntimeError: CUDA error: no kernel image is available for execution on the device", "torch does not fit"),
    ("labels", "RuntimeError: CUDA error: device-side assert triggered", "label map"),
    ("unauthorized", "HfHubHTTPError: 401 Client Error: Unauthorized for url", "ML_INTERN_JOB_TOKEN"),
    ("not_found", "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", "Check the name"),
    ("arguments", "TypeError: SFTConfig.__init__() got an unexpected keyword argument 'max_len'", "current arguments"),
    ("shared_memory", "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.", "num_workers=0"),
    ("network", "HTTPError: 403 Client Error: x.org cannot be reached from this code.", "public Hub only"),
    ("error", "KeyError: 'HF_TOKEN'", "Read its log"),
    ("error", "ZeroDivisionError: division by zero", "Read its log"),
    ("label-map", '@result {"status": "failed", "error": {"kind": "label-map", "why": "7 labels", "fix": "Name all."}}', "Name all."),
]  # fmt: skip


BEGUN = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    run()\n'
LED_TO = "\nThe above exception was the direct cause of the following exception:\n"


class TestFailures:
    def test_a_job_that_fails_is_a_call_that_fails(self, desk, workspace):
        workspace.write_bytes("bad.py", b"print('begun')\nraise RuntimeError('CUDA out of memory.')\n")
        job = desk.call(operation="start", script="bad.py", smoke=True)["job_id"]
        with pytest.raises(RuntimeError, match=r"failed after .*: out_of_memory: RuntimeError: CUDA") as failed:
            desk.call(operation="wait", job_id=job, seconds=60)
        assert "Halve the batch size" in str(failed.value) and "begun" in str(failed.value)
        assert desk.runs()[job]["state"] == "failed"
        assert [(news.kind, news.text.startswith("It failed: out_of_memory")) for news in desk.news] == [
            ("ended", True)
        ]

    @pytest.mark.parametrize(("kind", "line", "remedy"), FAILURES)
    def test_each_cause_is_found_in_the_log_with_its_remedy(self, desk, kind, line, remedy):
        trace = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    run()\n'
        ended(desk, "local-x", f"Loading columns\n{trace}{line}\nbye\n")
        cause = desk.call(operation="status", job_id="local-x")["cause"]
        assert cause["kind"] == kind and remedy in cause["remedy"]
        assert cause["said"] in line or kind == "label-map"

    @pytest.mark.parametrize(
        ("before", "error", "kind"),
        [
            ("Saving the dataset to disk: 100%", "ValueError: Unable to create tensor", "error"),
            ("Note: flash_attn: ImportError, falling back", "ValueError: bad shape", "error"),
            ("WARNING 404 Client Error for additional_chat_templates, ignored", "AssertionError: x", "error"),
            ("UserWarning: CUDA is not available, running on CPU", "IndexError: index out of range in self", "error"),
            (f"{BEGUN}OSError: Connection reset\nretrying", "KeyError: 'text'", "column_missing"),
            (f"{BEGUN}OSError: [Errno 28] No space left on device\n{LED_TO}", "RuntimeError: not saved", "no_space"),
            (
                f"{BEGUN}torch.OutOfMemoryError: CUDA out of memory.",
                "torch.ChildFailedError: train.py FAILED",
                "out_of_memory",
            ),
        ],
    )
    def test_what_was_got_over_is_not_the_cause(self, desk, before, error, kind):
        ended(desk, "local-x", f"{before}\n{BEGUN}{error}\nbye\n")
        assert desk.call(operation="status", job_id="local-x")["cause"]["kind"] == kind

    def test_out_of_memory_proposes_half_of_the_rows_at_once_and_as_many_a_step(self, desk, workspace):
        """The same model, data and task; completions of one prompt are not torn apart."""
        sizes = {"batch_size": 16, "accumulation": 2, "learning_rate": 1e-5}
        for number, (more, said) in enumerate(
            [({}, "'batch_size': 8, 'accumulation': 4"), ({"generations": 8}, None)]
        ):
            script = f"HYPERPARAMETERS = { ({**sizes, **more})!r}\nraise RuntimeError('CUDA out of memory.')\n"
            workspace.write_bytes(f"big{number}.py", script.encode())
            job = desk.call(f"call_big00000000{number}", operation="start", script=f"big{number}.py", smoke=True)[
                "job_id"
            ]
            with pytest.raises(RuntimeError, match="out_of_memory") as failed:
                desk.call(operation="wait", job_id=job, seconds=60)
            assert "Halve the batch size" in str(failed.value)
            assert ("Plan it again" in str(failed.value)) == (said is not None)
            assert said is None or f"{said}, 'activation_checkpointing': True}}, as many rows a step" in str(
                failed.value
            )

    def test_what_the_keeper_ended_says_why(self, desk):
        ended(desk, "local-x", "step 1\n", exit_code=None, why="memory: it and its processes used more than 4096 MB")
        assert desk.call(operation="status", job_id="local-x")["cause"]["kind"] == "out_of_memory"
        ended(desk, "local-z", "step 1\n", exit_code=137)
        assert desk.call(operation="status", job_id="local-z")["cause"]["kind"] == "out_of_memory"
        ended(desk, "local-y", "KeyError: 'no cause'\n", state="lost", exit_code=None, why="the process was killed")
        with pytest.raises(RuntimeError, match=r"(?s)was lost .*--resume"):
            desk.call(operation="wait", job_id="local-y")

    def test_an_error_of_before_is_not_the_cause_of_a_time_out(self, desk, workspace):
        workspace.write_bytes("slow.py", b"import time\nprint('KeyError: no cause')\ntime.sleep(60)")
        desk.jobs.start("local-x", ["python", "slow.py"], seconds=0.5)
        with pytest.raises(RuntimeError, match=r"ran out of time.*: timeout: .*0.5 seconds"):
            desk.call(operation="wait", job_id="local-x", seconds=30)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"operation": "begin"}, "start, status"),
            ({"operation": "status"}, "needs the `job_id`"),
            ({"operation": "status", "job_id": "local-no"}, "There is no job local-no"),
            ({"operation": "start"}, "needs `script`"),
            ({"operation": "start", "script": "none.py", "smoke": True}, "none.py"),
            ({"operation": "start", "script": "../x.py", "smoke": True}, "outside the workspace"),
            ({"operation": "start", "script": "broken.py", "smoke": True}, "is no Python"),
            ({"operation": "start", "script": "train.py"}, "Say how long"),
            ({"operation": "start", "script": "train.py", "timeout": "soon"}, "'90m'"),
            ({"operation": "start", "script": "train.py", "backend": "cloud"}, "local or hf_jobs"),
            ({"operation": "start", "script": "train.py", "arguments": "--x"}, "list of strings"),
            ({"operation": "start", "script": "train.py", "options": {"gpu": 1}}, "`options` is a dict of"),
        ],
    )
    def test_what_cannot_work_is_said(self, desk, workspace, arguments, message):
        workspace.write_bytes("broken.py", b"def (")
        with pytest.raises(Exception, match=message):
            desk.call(**arguments)

    def test_without_the_host_it_says_what_is_missing(self, workspace):
        with pytest.raises(RuntimeError, match="no workspace"):
            TrainingJobTool()(operation="start", script="x.py")
        workspace.write_bytes("x.py", b"pass")
        with pytest.raises(RuntimeError, match="no local jobs here"):
            TrainingJobTool(workspace)(operation="start", script="x.py", smoke=True)


REMOTE = {"operation": "start", "backend": "hf_jobs", "script": "train.py", "hardware": "t4-small", "timeout": "1h"}


class TestHfJobs:
    @pytest.mark.long
    def test_a_smoke_run_on_the_cheapest_then_the_run_and_its_cost(self, far):
        assert smoke(far, "hf_jobs")["hardware"] == "cpu-basic"
        assert far.asked == (None, None)  # waiting asks nobody
        started = far.call(**REMOTE, estimate="20m", options={"name": "first"})
        where, cost = far.asked
        assert where == {"name": "hf_jobs", "visibility": "tester"} and cost == started["worst_case_usd"]
        assert cost == pytest.approx(0.40002 * (3600 + 59) / 3600, rel=1e-3)
        assert started["estimated_usd"] == pytest.approx(0.40002 / 3, rel=1e-3)
        assert started["job_id"].startswith("tester/") and started["url"].startswith(far.hub.url)
        done = far.call(operation="wait", job_id=started["job_id"], seconds=60)
        assert (
            done["state"] == "done"
            and done["result"]["metrics"]["eval_accuracy"] == 0.9
            and done["last"]["step"] == 20
        )
        run = far.runs()[started["job_id"]]
        assert run["state"] == "done" and run["metric"]["value"] == 0.9 and run["backend"] == "hf_jobs"
        assert run["cost_usd"] == pytest.approx(0.0067, abs=1e-4)  # a minute
        assert run["correction_usd"] == pytest.approx(run["cost_usd"] - cost, abs=1e-3)
        assert far.corrected[-1] == run["correction_usd"] and len(far.corrected) == 2
        far.call(operation="status", job_id=started["job_id"])
        assert len(far.corrected) == 2  # once
        assert "eval_accuracy" in far.call(operation="metrics", job_id=started["job_id"])["curves"]

    def test_a_person_sees_all_of_it(self, far):
        smoke(far, "hf_jobs")
        far.call(**REMOTE)
        for words in ("Hugging Face Jobs, paid by tester", "t4-small (4 vCPU, 15 GB, 1x T4 with 16 GB), $0.40 an hour",
                      "about an unknown amount, at most $0.41: it is ended after 60 min", "Token: none.", "is lost when it ends",
                      TRAIN.strip()):  # fmt: skip
            assert words in far.shown, far.shown
        assert "NO SMOKE RUN" not in far.shown

    def test_no_token_travels_unless_one_was_set_for_jobs(self, far, monkeypatch):
        job = smoke(far, "hf_jobs")["job_id"]
        assert "token: None" in far.call(operation="logs", job_id=job)["text"]
        (spec,) = [one.spec for one in far.hub.jobs.jobs.values()]
        assert "hf_local_token" not in json.dumps(spec) and "secrets" not in spec
        monkeypatch.setenv("ML_INTERN_JOB_TOKEN", "hf_reader")
        started = far.call("call_withtoken00", **REMOTE)
        assert "Token: ML_INTERN_JOB_TOKEN (of tester, read); the script reads all that you can read" in far.shown
        assert "hf_reader" not in far.shown
        far.call(operation="wait", job_id=started["job_id"], seconds=60)
        assert "token: hf_reader" in far.call(operation="logs", job_id=started["job_id"])["text"]
        monkeypatch.setenv("ML_INTERN_JOB_TOKEN", "hf_local_token")
        far.tool.preview(**REMOTE)
        assert "IT IS YOUR OWN HF_TOKEN" in far.tool.preview(**REMOTE) and "WRITES AND DELETES" in far.tool.preview(
            **REMOTE
        )

    def test_a_call_starts_one_job_whatever_becomes_of_the_answer(self, far):
        smoke(far, "hf_jobs")
        far.hub.fail(r"^/api/jobs/tester$", method="POST", drop="answer")
        started = far.call("call_lost00000000", **REMOTE)
        again = far.call("call_lost00000000", **REMOTE)
        assert started["job_id"] == again["job_id"] and len(far.hub.jobs.jobs) == 2
        found = far.tool.reconcile("call_lost00000000", **REMOTE)
        assert found["job_id"] == started["job_id"] and found["cost_usd"] == started["worst_case_usd"]
        assert far.tool.reconcile("call_other0000000", **REMOTE) is None

    def test_one_behind_many_that_a_service_does_not_sort_out_is_found(self, far, monkeypatch):
        smoke(far, "hf_jobs")
        job = far.call("call_lost00000000", **REMOTE)["job_id"]
        monkeypatch.setattr(far.hub.jobs, "filters", False)
        known = far.hub.jobs.jobs
        first = next(iter(known.values()))
        known.update({f"other{n}": replace(first, id=f"other{n}", stage="COMPLETED", process=None) for n in range(70)})
        assert far.tool.reconcile("call_lost00000000", **REMOTE)["job_id"] == job

    def test_the_same_run_is_not_paid_twice(self, far):
        smoke(far, "hf_jobs")
        slow = {**REMOTE, "arguments": ["--pause", "60"]}
        job = far.call("call_one000000000", **slow)["job_id"]
        with pytest.raises(ValueError, match=f"{job} runs this script already, with the same arguments"):
            far.tool.check(**slow)
        far.call("call_two000000000", **{**slow, "arguments": ["--pause", "61"]})
        assert far.call("call_one000000000", **slow)["job_id"] == job and len(far.hub.jobs.jobs) == 3

    def test_without_a_smoke_run_only_a_person_can_let_it_start(self, far):
        with pytest.raises(PermissionError, match="no smoke run"):
            far.call(**REMOTE)
        with pytest.raises(PermissionError, match="a person's decision"):
            far.call(**REMOTE, options={"skip_smoke": True})
        assert "!! NO SMOKE RUN OF THIS SCRIPT HAS PASSED" in far.shown
        started = far.call(**REMOTE, options={"skip_smoke": True}, answer=Yes())
        assert started["state"] in ("scheduled", "running", "done")

    def test_its_end_by_its_time_by_cancel_and_by_deletion(self, far):
        smoke(far, "hf_jobs")
        slow = {**REMOTE, "arguments": ["--pause", "60"]}
        one = far.call("call_one000000000", **slow)["job_id"]
        far.hub.jobs.cancel(far.hub.jobs.jobs[one.split("/")[1]], "ERROR", "Job timeout")
        with pytest.raises(RuntimeError, match="ran out of time"):
            far.call(operation="wait", job_id=one, seconds=60)
        assert far.runs()[one]["state"] == "timeout"
        two = far.call("call_two000000000", **slow)["job_id"]
        assert far.call(operation="stop", job_id=two)["state"] == "stopped"
        assert far.runs()[two]["state"] == "stopped"
        three = far.call("call_three0000000", **slow)["job_id"]
        far.hub.jobs.delete(three.split("/")[1])
        with pytest.raises(FileNotFoundError, match=f"There is no job {three} on Hugging Face Jobs"):
            far.call(operation="wait", job_id=three, seconds=60)

    def test_one_that_was_deleted_while_nobody_waits_is_told_and_on_record_as_lost(self, far):
        smoke(far, "hf_jobs")
        job = far.call("call_one000000000", **REMOTE, arguments=["--pause", "60"])["job_id"]
        far.watch.close()  # its looks are made here, but for one that may be on its way
        far.hub.jobs.delete(job.split("/")[1])
        look, missed = None, 0
        while look is None and missed < 3:
            try:
                look = far.tool._look_again(job)
            except FileNotFoundError:  # it may not be listed everywhere yet
                missed += 1
        assert missed in (1, 2) and look.over and "somebody deleted it" in look.text
        assert far.runs()[job]["state"] == "lost" and "deleted" in far.runs()[job]["why"]
        assert "correction_usd" not in far.runs()[job]  # what it cost is not known

    def test_a_log_that_breaks_off_is_read_again(self, far):
        job = smoke(far, "hf_jobs")["job_id"]
        far.hub.fail(r"/logs", drop=200)
        assert "@result" in far.call(operation="logs", job_id=job)["text"]

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"hardware": "h100"}, ValueError, r"`hardware` is one of cpu-basic \(\$0.01/h\)"),
            ({"hardware": None}, ValueError, "`hardware` is one of"),
            ({"options": {"namespace": "other"}}, PermissionError, "no namespace of yours.*tester, team"),
        ],
    )
    def test_what_would_be_refused_is_refused_before_anybody_is_asked(self, far, change, error, message):
        smoke(far, "hf_jobs")
        before = len(far.hub.jobs.jobs)
        with pytest.raises(error, match=message):
            far.tool.check(**{**REMOTE, **change})
        assert len(far.hub.jobs.jobs) == before

    def test_a_run_whose_weights_nobody_could_push_is_refused_before_it_costs(self, far, workspace, monkeypatch):
        workspace.write_bytes("train.py", f'CONFIG = {{"push_to": "tester/mine"}}\n{TRAIN}'.encode())
        assert smoke(far, "hf_jobs")["state"] == "done"  # it pushes nothing
        with pytest.raises(PermissionError, match=r"goes to tester/mine.*ML_INTERN_JOB_TOKEN.*would be lost"):
            far.tool.check(**REMOTE)
        assert len(far.hub.jobs.jobs) == 1
        monkeypatch.setenv("ML_INTERN_JOB_TOKEN", "hf_reader")
        assert far.call(**REMOTE)["worst_case_usd"] > 0

    def test_without_credit_or_rights_the_remedy_is_said(self, far, monkeypatch):
        smoke(far, "hf_jobs")
        far.hub.jobs.credit["tester"] = 0.0
        with pytest.raises(PermissionError, match=r"needs credit .*insufficient.*settings/billing"):
            far.call(**REMOTE)
        monkeypatch.setenv("HF_TOKEN", "hf_reader")
        with pytest.raises(PermissionError, match="403"):
            far.call(**REMOTE)

    def test_one_of_another_session_is_not_its_to_end(self, far):
        job = smoke(far, "hf_jobs")["job_id"]
        slow = far.call(**REMOTE, arguments=["--pause", "60"])["job_id"]
        far.watch.session = "session-two"
        with pytest.raises(PermissionError, match="was not started by this session"):
            far.call(operation="stop", job_id=slow)
        assert {one["job_id"] for one in far.call(operation="list", backend="hf_jobs")["jobs"]} == {job, slow}
        names = [one["name"] for one in far.call(operation="list", backend="hf_jobs")["hardware"]]
        assert "a100-large" in names

    def test_what_a_job_of_another_session_did_not_take_comes_back_there_alone(self, far):
        """A fork knows the run from its record, and has paid nothing for it."""
        smoke(far, "hf_jobs")
        slow = far.call(**REMOTE, arguments=["--pause", "60"])["job_id"]
        before, rows = list(far.corrected), len(far.rows)
        far.watch.session = "session-two"
        far.hub.jobs.cancel(far.hub.jobs.jobs[slow.split("/")[1]], "CANCELED", "")
        assert far.call(operation="status", job_id=slow)["state"] == "stopped"
        assert far.corrected == before and len(far.rows) == rows
        far.watch.session = "session-one"
        assert far.call(operation="status", job_id=slow)["state"] == "stopped"
        assert len(far.corrected) == len(before) + 1 and far.runs()[slow]["state"] == "stopped"

    def test_a_script_too_long_to_travel_is_refused(self, far, workspace):
        import random

        noise = random.Random(1).randbytes(120_000).hex()
        workspace.write_bytes("long.py", f"DATA = '{noise}'\n".encode())
        with pytest.raises(ValueError, match="too long to travel"):
            far.tool.check(**{**REMOTE, "script": "long.py", "smoke": True})

    def test_offline_only_local_jobs_are_there(self, far, monkeypatch):
        monkeypatch.setenv("ML_INTERN_OFFLINE", "1")
        for call in (
            REMOTE,
            {"operation": "status", "job_id": "tester/x"},
            {"operation": "list", "backend": "hf_jobs"},
        ):
            with pytest.raises(ConnectionError, match=r"hf_jobs is off.*backend='local'"):
                far.call(**call)


def test_who_is_asked():
    tool = TrainingJobTool()
    assert effects_of(tool, {"operation": "start", "backend": "hf_jobs"}) == "spend"
    assert effects_of(tool, {"operation": "start", "backend": "HF_jobs"}) == "spend"
    assert effects_of(tool, {"operation": "start", "backend": "local"}) == "read"
    assert effects_of(tool, {"operation": "start"}) == "read"
    assert effects_of(tool, {"operation": "stop", "backend": "hf_jobs"}) == "read"
    assert effects_of(tool, {"operation": "begin"}) == "unknown"


def test_it_survives_saving():
    assert_survives_saving(TrainingJobTool, "huggingface_hub")


@pytest.mark.long
def test_a_gpu_that_does_nothing_is_seen_by_the_service_of_jobs(far, monkeypatch):
    monkeypatch.setattr("ml_intern.watching.IDLE_SECONDS", 0.5)
    smoke(far, "hf_jobs")
    far.hub.jobs.gpu_utilization = 0
    try:
        words = ["--steps", "200", "--pause", "0.2"]
        job = far.call(**REMOTE, arguments=words)["job_id"]
        found = []
        for _ in range(40):
            found = far.call(operation="status", job_id=job)["findings"]
            if found:
                break
            time.sleep(0.2)
        assert [finding["kind"] for finding in found] == ["idle_gpu"]
    finally:
        far.hub.jobs.gpu_utilization = 90


class Sparse(BaseHTTPRequestHandler):
    """A service of jobs that tells only what the client cannot do without: no labels, prices, durations or environment."""

    orders: ClassVar[list] = []
    stage = "RUNNING"

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            self.tell({"name": "tester"})
        elif path == "/api/jobs/tester":
            self.tell([self.job(at) for at in range(len(self.orders))])
        elif path.endswith("/logs"):
            text = "".join(f"data: {json.dumps({'data': line, 'timestamp': '2020-01-01T00:00:00Z'})}\n\n" for line in
                           ('@metrics {"step": 1, "time": 1, "loss": 0.5}', "bye"))  # fmt: skip
            self.tell(text, kind="text/event-stream")
        elif path.startswith("/api/jobs/tester/j"):
            self.tell(self.job(int(path[18:])))
        else:
            self.tell({"error": "nothing here"}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        if self.path.endswith("/cancel"):
            type(self).stage = "CANCELED"
            self.tell({})
        else:
            self.orders.append(body)
            self.tell(self.job(len(self.orders) - 1))

    def job(self, at):
        return {
            "id": f"j{at}",
            "status": {"stage": type(self).stage},
            "owner": {"id": "1", "name": "tester", "type": "user"},
        }

    def tell(self, data, status=200, kind="application/json"):
        text = (data if isinstance(data, str) else json.dumps(data)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def test_a_service_that_tells_only_what_it_must_will_do(workspace, tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sparse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "token")
    monkeypatch.delenv("ML_INTERN_JOB_TOKEN", raising=False)
    workspace.write_bytes("train.py", TRAIN.encode())
    far = Desk(workspace, tmp_path / "session", with_jobs=False)
    try:
        started = far.call(operation="start", backend="hf_jobs", script="train.py", smoke=True)
        assert far.asked == ({"name": "hf_jobs", "visibility": "tester"}, None)  # nobody knows: a person is asked
        assert "cpu-basic (as the service has it), an unknown amount an hour" in far.shown
        job = started["job_id"]
        assert job == "tester/j0" and far.runs()[job]["config"]["smoke"] is True
        (order,) = Sparse.orders
        assert order["flavor"] == "cpu-basic" and order["timeoutSeconds"] == 900 and "secrets" not in order
        status = far.call(operation="status", job_id=job)
        assert status["state"] == "running" and status["last"]["loss"] == 0.5 and status["name"] == "train"
        monkeypatch.setattr(Sparse, "stage", "QUEUED")  # none of the client's: not yet at its end
        assert far.call(operation="status", job_id=job)["state"] == "scheduled"
        assert far.runs()[job]["state"] == "running"
        monkeypatch.setattr(Sparse, "stage", "RUNNING")
        assert far.call(operation="logs", job_id=job)["text"].endswith("bye")
        assert far.call(operation="stop", job_id=job)["state"] == "stopped"
        assert far.runs()[job]["state"] == "stopped" and far.corrected == []
    finally:
        far.close()
        server.shutdown()
        server.server_close()
