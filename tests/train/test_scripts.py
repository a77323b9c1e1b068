"""Each method's script really runs: smoke, crash, resume, and the same numbers as a run that never crashed.

What must never happen: a run that was taken up again ends elsewhere than one that was not; a finished run is written
over; a loss that is not finite goes on; a checkpoint leaves the machine without a token for it.

The scripts run under the interpreter of `.venv-train` (`make test-train` makes it), or the one that
`ML_INTERN_TRAIN_PYTHON` names. Without either these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from ml_intern.tools import TrainingConfigTool

from ml_intern.execution.workspace import Workspace
from ml_intern.testing.hub import LocalHub
from ml_intern.watching import findings, points_in

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("ML_INTERN_TRAIN_PYTHON", ROOT / ".venv-train" / "bin" / "python"))
pytestmark = [
    pytest.mark.train,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not PYTHON.exists(), reason="torch and the training libraries are in .venv-train: make test-train"
    ),
]

SMALL = {"epochs": 2, "batch_size": 8, "learning_rate": 0.003, "evaluations": 3}
COMPLETIONS = {"max_steps": 6, "batch_size": 8, "accumulation": 1, "generations": 4, "max_completion_length": 6}
TRL = {**SMALL, "accumulation": 2}
# name: method, data, model, adapter, options, what the best checkpoint is chosen by
CASES = {
    "text": ("text-classification", "reviews", "encoder", "full", SMALL, "eval_f1_macro"),
    "text-lora": ("text-classification", "reviews", "encoder", "lora", SMALL, "eval_f1_macro"),
    "tags": ("token-classification", "tagged", "encoder", "full", SMALL, "eval_f1"),
    "tags-lora": ("token-classification", "tagged", "encoder", "lora", SMALL, "eval_f1"),
    "pictures": ("image-classification", "pictures", "vision", "full", SMALL, "eval_accuracy"),
    "pictures-lora": ("image-classification", "pictures", "vision", "lora", SMALL, "eval_accuracy"),
    "sft": ("sft", "chats", "decoder", "full", TRL, "eval_loss"),
    "sft-lora": ("sft", "chats", "decoder", "lora", TRL, "eval_loss"),
    "sft-qlora": ("sft", "chats", "decoder", "qlora", TRL, "eval_loss"),
    "text-qlora": ("text-classification", "reviews", "encoder", "qlora", SMALL, "eval_f1_macro"),
    "pairs-qlora": ("embeddings", "pairs", "encoder", "qlora", SMALL, "eval_val_cosine_ndcg@10"),
    "dpo": ("dpo", "preferences", "decoder", "full", TRL, "eval_loss"),
    "dpo-lora": ("dpo", "preferences", "decoder", "lora", TRL, "eval_loss"),
    "reward": ("reward", "preferences", "decoder", "full", TRL, "eval_loss"),
    "reward-lora": ("reward", "preferences", "decoder", "lora", TRL, "eval_loss"),
    "grpo": ("grpo", "sums", "decoder", "full", COMPLETIONS, "eval_reward"),
    "grpo-lora": ("grpo", "sums", "decoder", "lora", COMPLETIONS, "eval_reward"),
    "pairs": ("embeddings", "pairs", "encoder", "full", SMALL, "eval_val_cosine_ndcg@10"),
    "scored-lora": ("embeddings", "scored", "encoder", "lora", SMALL, "eval_val_spearman_cosine"),
    "words": ("sklearn", "reviews", None, "full", {}, "eval_f1_macro"),
    "table": ("sklearn", "table", None, "full", {}, "eval_f1_macro"),
}
QUICK = ("text", "sft-lora", "pairs", "words")  # one a trainer
QUANTISED = [name for name in CASES if name.endswith("qlora")]
WHICH = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.soak, id=name)
    for name in CASES
    if name not in QUANTISED
]
CRASHES = {
    "    def on_log(": "    def on_save(self, args, state, control, **kwargs):\n        os._exit(9)\n\n    def on_log(",
    "        if best is None or": "        os._exit(9)\n        if best is None or",
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with all tiny models and data."""
    root = tmp_path_factory.mktemp("workspace")
    subprocess.run([PYTHON, Path(__file__).with_name("tiny.py"), root], check=True, capture_output=True, timeout=300)
    return root


def plan(root: Path, name: str, **changes):
    method, data, model, adapter, options, _ = CASES[name]
    asked = {
        "task": f"Learn {data}.",
        "method": method,
        "dataset": f"data/{data}",
        "base_model": model,
        "adapter": adapter,
    }
    asked["options"] = {**options, "name": name, **changes.pop("options", {})}
    return TrainingConfigTool(workspace=Workspace(root))(**{**asked, **changes})


def ready(root: Path, name: str, **changes):
    planned = plan(root, name, **changes)
    assert planned["ready"], [check for check in planned["checks"] if not check["ok"]]
    return planned


def run(root: Path, script: str | Path, *arguments: str, code: int = 0, **environment: str):
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(root / ".hf"),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [PYTHON, script, *arguments], cwd=root, env={**os.environ, **quiet, **environment}, capture_output=True, text=True,
        timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


def steady(row: dict) -> dict:
    """What was measured, without what depends on the clock and the machine, or on TRL's count since a process began."""
    loose = ("time", "memory_gb", "seconds", "_runtime", "per_second", "step_time", "num_tokens")
    return {key: row[key] for key in row if not any(word in key for word in loose)}


def rows(folder: Path) -> list[dict]:
    return [steady(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("name", WHICH)
def test_a_run_that_crashed_and_went_on_ends_like_one_that_did_not(made, name):
    planned = ready(made, name)
    script, folder, chosen = planned["script"], made / "runs" / name, CASES[name][5]

    smoke = run(made, *planned["smoke_command"].split()[1:])
    assert json.loads(smoke.stdout.split("@result ")[1].splitlines()[0])["status"] == "done"
    assert result(made / f"runs/{name}-smoke")["status"] == "done"

    text = (made / script).read_text()
    for before, after in CRASHES.items():
        text = text.replace(before, after, 1)
    crashing = made / "runs" / f"{name}-crashing.py"
    crashing.write_text(text)
    run(made, crashing, "--output", f"runs/{name}", code=9)
    assert list((folder / "checkpoints").glob("checkpoint-*"))
    assert not (folder / "result.json").exists()
    run(made, script, "--output", f"runs/{name}", "--resume")
    run(made, script, "--output", f"runs/{name}-straight")

    straight = made / f"runs/{name}-straight"
    assert rows(folder) == rows(straight)
    ended = result(straight)
    assert ended["status"] == "done"
    assert steady(ended["metrics"]) == steady(result(folder)["metrics"])
    tried = [row[chosen] for row in rows(straight) if chosen in row]
    if CASES[name][0] == "grpo":  # completions are sampled anew
        tried = [ended["metrics"][chosen]]
    assert ended["metrics"][chosen] == pytest.approx((min if chosen == "eval_loss" else max)(tried), abs=1e-6)
    if CASES[name][0] == "sklearn":
        assert (folder / "model" / "model.skops").exists()
    else:
        assert (folder / "model" / "model.safetensors").exists()
        assert (folder / "adapter").exists() == (CASES[name][3] == "lora")
        assert not (folder / "model" / "adapter_config.json").exists()
    config = json.loads((folder / "config.json").read_text())
    assert config["hyperparameters"] == planned["plan"]["hyperparameters"]
    assert config["smoke"] is False
    assert set(config["versions"]) == {one.partition("==")[0] for one in config["packages"]}

    if CASES[name][0] == "sklearn":  # the quickest to start
        before = result(folder)
        assert "holds a run already" in run(made, script, "--output", f"runs/{name}", code=2).stdout
        assert result(folder) == before


@pytest.mark.soak
@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_base_is_trained_and_its_adapter_kept(made, name, tmp_path, monkeypatch):
    """On the CPU, which bitsandbytes can do slowly: the plan is one for a GPU, and the script does not get that far."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA L4, 23034'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = ready(made, name)["script"]
    assert "needs an NVIDIA GPU" in run(made, script, "--output", f"runs/{name}", code=4).stderr
    text = (
        (made / script).read_text().replace("if not GPU:", "if False:").replace("if not GPU and SMOKE:", "if False:")
    )
    (made / f"runs/{name}-here.py").write_text(text)
    run(made, f"runs/{name}-here.py", "--smoke", "--output", f"runs/{name}-here")
    assert result(made / f"runs/{name}-here")["status"] == "done"
    files = {path.name for path in (made / f"runs/{name}-here/model").rglob("*")}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert "model.safetensors" not in files


def test_trackio_shows_a_run_on_this_machine_and_ends_none_when_it_fails(made, tmp_path):
    """Without a token nothing is sent to a Space that the environment names; with a Trackio that is broken a run goes on."""
    planned = ready(made, "words", options={"name": "shown"})
    space = {"TRACKIO_SPACE_ID": "someone/charts", "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_TOKEN": ""}
    done = run(made, planned["script"], **space)
    assert "Note: Trackio" not in done.stdout and (tmp_path / "trackio").is_dir()
    (database,) = (tmp_path / "trackio").glob("*.db")
    with contextlib.closing(sqlite3.connect(database)) as kept:
        (names,) = kept.execute("SELECT DISTINCT run_name FROM metrics").fetchall()
        values = json.loads(kept.execute("SELECT metrics FROM metrics").fetchone()[0])
    assert names == ("shown",) and values["eval_f1_macro"] == rows(made / "runs/shown")[0]["eval_f1_macro"]

    (broken := tmp_path / "broken").mkdir()
    (broken / "trackio.py").write_text("def init(**options):\n    raise OSError('no room')\n")
    done = run(made, planned["script"], "--output", "runs/shown-2", PYTHONPATH=str(broken))
    assert "Note: Trackio shows no more of this run (OSError: no room)." in done.stdout
    assert result(made / "runs/shown-2")["status"] == "done"


def test_a_loss_that_is_not_finite_ends_the_run_at_once(made):
    """What the trainer does by default: hide it, and train on to the end."""
    planned = ready(
        made, "text", options={"name": "diverging", "learning_rate": 1e18, "max_grad_norm": 1e30, "warmup": 0}
    )
    ended = run(made, planned["script"], code=3)
    told = result(made / "runs/diverging")
    assert told["status"] == "failed"
    assert told["error"]["kind"] == "nan"
    assert "learning rate" in told["error"]["fix"]
    assert "diverged" in ended.stderr
    assert "@metrics" in ended.stdout
    last = json.loads((made / "runs/diverging/metrics.jsonl").read_text().splitlines()[-1])
    assert told["error"]["why"].endswith(f"at step {last['step']}: the run diverged.")


@pytest.mark.soak
def test_a_loss_that_diverges_at_step_50_is_found_by_what_the_script_tells(made):
    """Weights that are torn apart at that step, in a run that learned until then."""
    planned = ready(made, "text", options={"name": "torn", "epochs": 20, "learning_rate": 3e-4})
    text = (made / planned["script"]).read_text()
    before = "    def on_step_end(self, args, state, control, **kwargs):\n"
    torn = f"""{before}        if state.global_step == 50:
            for weights in kwargs["model"].parameters():
                weights.data.add_(torch.randn_like(weights), alpha=20.0)
"""
    assert before in text
    script = made / "runs" / "torn.py"
    script.write_text(text.replace(before, torn, 1))
    told, points = None, []
    for point in points_in(run(made, script, "--output", "runs/torn").stdout):
        points.append(point)
        told = told or next((one for one in findings(points) if one.serious), None)
    assert told is not None and told.kind == "divergence" and 50 < told.step <= 65, (told, points[45:70])
    learned = [point for point in points if "loss" in point]
    assert all(point["samples_per_second"] > 0 and point["tokens_per_second"] > 0 for point in learned)
    assert all(0 < point["memory_gb"] < 20 for point in points)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["text", "sft-lora"])
def test_two_processes_train_one_model(made, name):
    """As on two GPUs, by the same launcher: one of them writes, both take their half of each step's rows, and go on."""
    planned = ready(made, name, options={"name": f"{name}-two"})
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", planned["script"]]
    folder = made / f"runs/{name}-two"
    ended = run(made, "-m", *launch, "--output", f"runs/{name}-two")
    assert ended.stdout.count("@result ") == 1 and result(folder)["status"] == "done"
    hyper = planned["plan"]["hyperparameters"]
    trained = int(ended.stdout.split(" rows to train on")[0].splitlines()[-1].split()[-1])
    steps = math.ceil(trained / (hyper["batch_size"] * hyper["accumulation"] * 2)) * hyper["epochs"]
    assert result(folder)["steps"] == steps
    logged = [row["step"] for row in rows(folder) if "loss" in row]
    assert logged == sorted(set(logged)) and logged[-1] == steps
    assert rows(folder)[-1]["epoch"] == pytest.approx(hyper["epochs"], abs=0.2)  # each has seen its half
    before = result(folder)["metrics"]
    again = run(made, "-m", *launch, "--output", f"runs/{name}-two", "--resume")
    assert again.stdout.count("Going on from") == 2
    assert result(folder)["metrics"][CASES[name][5]] == pytest.approx(before[CASES[name][5]])


@pytest.mark.soak
def test_near_copies_of_drawn_rows_are_left_out_of_training(made):
    """No validation is given: what is drawn for it has copies in training, nearly."""
    train = [json.loads(line) for line in (made / "data/reviews/train.jsonl").read_text().splitlines()]
    long = [{**row, "text": f"{row['text']} {row['text'][::-1]} number {n}"} for n, row in enumerate(train)]
    copies = [{**row, "text": row["text"] + " again"} for row in long]
    folder = made / "data" / "doubled"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*long, *copies]))
    planned = TrainingConfigTool(workspace=Workspace(made))(
        task="Learn.", method="sklearn", dataset="data/doubled", options={"name": "doubled"}
    )
    assert planned["ready"], planned["checks"]
    said = run(made, planned["script"], "--smoke").stdout
    left, held = int(said.split("Note: ")[1].split()[0]), round(0.1 * len(long) * 2)
    assert held / 2 < left <= held and (held - left) % 2 == 0, said[:500]  # but where both were drawn


def test_data_that_changed_since_the_plan_are_not_trained_on(made):
    planned = ready(made, "words", options={"name": "changed"})
    data = made / "data/reviews/train.jsonl"
    before = data.read_text()
    data.write_text(before + json.dumps({"text": "a new row", "label": "bad"}) + "\n")
    try:
        assert "is not the file this run was planned with" in run(made, planned["script"], code=4).stderr
    finally:
        data.write_text(before)


@pytest.mark.soak
def test_a_tokenizer_of_another_model_stops_before_a_step(made):
    planned = ready(made, "text", options={"name": "strange"})
    path = made / "encoder/config.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "vocab_size": 20}))
    try:
        assert "The tokenizer knows" in run(made, planned["script"], "--smoke", code=4).stderr
    finally:
        path.write_text(before)


@pytest.mark.soak
def test_checkpoints_leave_the_machine_only_with_a_token(made, tmp_path):
    """And a machine that has nothing goes on from what another one pushed."""
    planned = ready(made, "text", options={"name": "pushed", "push_to": "ann/pushed"})
    with LocalHub(tmp_path / "hub", {"hf_" + "a" * 34: "ann"}) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        there = {**hub.environment(), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
        run(made, planned["script"], "--output", "runs/without", **there)
        assert not api.repo_exists("ann/pushed")
        there["HF_TOKEN"] = hub.token
        run(made, planned["script"], "--output", "runs/pushed", **there)
        assert api.model_info("ann/pushed").private
        assert {"run/model/model.safetensors", "run/metrics.jsonl"} <= set(api.list_repo_files("ann/pushed"))
        again = run(made, planned["script"], "--output", "runs/elsewhere", "--resume", **there)
        assert "Going on from runs/elsewhere/checkpoints/checkpoint-" in again.stdout
    assert result(made / "runs/elsewhere")["metrics"] == result(made / "runs/pushed")["metrics"]
