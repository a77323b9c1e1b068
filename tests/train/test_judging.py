"""What training_config's scripts made is judged by evaluate_model's own way of running a model, of each kind.

What must never happen: a model that was just trained cannot be judged; weights that were swapped pass for those of the base.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from ml_intern.tools import EvaluateModelTool
from train import test_scripts as scripts
from train.test_scripts import PYTHON, made, pytestmark, ready, run

from ml_intern.execution.workspace import Workspace

__all__ = ["made", "pytestmark"]  # the fixture and the marks are those of the scripts

KINDS = {  # of what a script made: task, column to predict, the metric, what it has to reach
    "text": ("classification", "label", "accuracy", 0.6),
    "words": ("classification", "label", "accuracy", 0.9),
    "sft-lora": ("generation", "answer", "token_f1", 0.0),
    "pairs": ("retrieval", "positive", "ndcg@10", 0.0),
    "text-lora": ("classification", "label", "accuracy", 0.5),
    "tags": ("token-classification", "ner_tags", "f1", 0.5),
    "table": ("classification", "label", "accuracy", 0.7),
}
WHICH = [pytest.param(name, marks=() if name in scripts.QUICK else pytest.mark.soak, id=name) for name in KINDS]


class Jobs:
    """Jobs as a session has them, without a jail: each is over when it has started."""

    def __init__(self, root: Path) -> None:
        self.root, self.said, self.codes = root, {}, {}

    def inside(self, sealed: Path) -> str:
        return str(sealed)

    def start(self, job_id: str, command, *, cwd: str = ".", seconds: float, variables=None, sealed=None) -> None:
        quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        words = [str(PYTHON), *command[1:]]
        done = subprocess.run(
            words,
            cwd=self.root / cwd,
            env={**os.environ, **quiet},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        self.codes[job_id], self.said[job_id] = done.returncode, done.stdout + done.stderr

    def wait(self, job_id: str, seconds: float) -> dict:
        return {"state": "failed" if self.codes[job_id] else "done", "exit_code": self.codes[job_id]}

    def logs(self, job_id: str, offset: int = 0, limit: int = 100_000) -> tuple[str, int]:
        return self.said[job_id], len(self.said[job_id])


def tiny():
    found = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def held_out(root: Path, name: str) -> str:
    """Rows like those that were trained on, and none of them."""
    data = scripts.CASES[name][1]
    kind = "sums" if data == "chats" else data
    rows = getattr(tiny(), {"sums": "questions"}.get(kind, kind))(random.Random(99), 60)
    tiny().write(root / "data" / "held" / f"{name}.jsonl", rows)
    return f"data/held/{name}.jsonl"


@pytest.mark.parametrize("name", WHICH)
def test_what_was_trained_is_judged(made, name: str, tmp_path: Path) -> None:
    task, label, metric, least = KINDS[name]
    if not (made / "runs" / name / "model").is_dir():  # the tests of the scripts may have been here
        shutil.rmtree(made / "runs" / name, ignore_errors=True)
        run(made, *ready(made, name)["command"].split()[1:])
    tool = EvaluateModelTool(Workspace(made), jobs=Jobs(made), labels=str(tmp_path), plots=False)
    held = tool(operation="prepare", dataset=held_out(made, name), task=task, label=label)
    baseline = {"simple": "majority"} if "classification" in task else {"simple": "copy"}
    if task == "retrieval":
        baseline = {"folder": "encoder"}
    found = tool(
        operation="score",
        held_out=held["held_out"],
        candidate={"folder": f"runs/{name}"},
        baseline=baseline,
        metric=metric,
    )
    assert found["by"] == "harness" and found["candidate"]["folder"] == f"runs/{name}/model"
    assert found["candidate"]["value"] >= least, found["metrics"]
    assert found["contamination"]["checked"], found["warnings"]
    assert found["run"]["method"] == scripts.CASES[name][0]
    model = scripts.CASES[name][2]
    if model is not None:
        assert found["provenance"]["verdict"] == "derived", found["provenance"]

        # The same folder with weights of another model of that make.
        swapped = made / "runs" / f"{name}-swapped" / "model"
        shutil.copytree(made / "runs" / name / "model", swapped, dirs_exist_ok=True)
        code = "import sys, tiny, pathlib; getattr(tiny, sys.argv[1])(pathlib.Path(sys.argv[2]), seed=5)"
        other = made / "other" / model
        other.mkdir(parents=True, exist_ok=True)
        subprocess.run([PYTHON, "-c", code, model, str(other)], check=True, cwd=Path(__file__).parent, timeout=120)
        problems: list[str] = []
        for weights in swapped.rglob("*.safetensors"):
            shutil.copy(other / "model.safetensors", weights)
        verdict = tool._provenance({"folder": f"runs/{name}-swapped/model"}, model, problems, [])
        assert verdict["verdict"] == "other weights" and "do not derive from" in problems[0]


def test_several_choices_are_told_apart_by_likelihood(made, tmp_path: Path) -> None:
    """By the tool's own program; the same sums as by hand, and what is generated ends where the task says."""
    rows = [{"prompt": f"{n} + {n} =", "options": [str(n), str(2 * n), str(3 * n)], "right": 1} for n in range(1, 9)]
    tiny().write(made / "data" / "held" / "choices.jsonl", rows)
    tool = EvaluateModelTool(Workspace(made), jobs=Jobs(made), labels=str(tmp_path), plots=False)
    task = {
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "options",
        "doc_to_target": "right",
    }
    held = tool(operation="prepare", dataset="data/held/choices.jsonl", lm_task=task)
    sides = {"candidate": {"folder": "decoder"}, "baseline": {"simple": "majority"}}
    found = tool(operation="score", held_out=held["held_out"], **sides)
    assert found["by"] == "harness" and set(found["metrics"]) == {"acc", "acc_norm"}
    (kept,) = (tmp_path / held["held_out"]).glob("predictions-*.json")
    asked = [json.loads(line) for line in (made / held["inputs"]).read_text().splitlines()]
    code = """import json, sys, torch, transformers
tokenizer, model = (getattr(transformers, kind).from_pretrained("decoder") for kind in ("AutoTokenizer", "AutoModelForCausalLM"))
for row in json.load(sys.stdin):
    told = []
    for choice in row["lm_choices"]:
        start = tokenizer(row["prompt"], return_tensors="pt")["input_ids"].shape[1]
        ids = tokenizer(row["prompt"] + " " + choice, return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[:, :start] = -100
        told.append(-float(model(input_ids=ids, labels=labels).loss) * (ids.shape[1] - start))
    print(json.dumps(told))
"""
    done = subprocess.run(
        [PYTHON, "-c", code], cwd=made, input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    by_hand = [json.loads(line) for line in done.stdout.splitlines()]
    measured = json.loads(kept.read_text())
    for row, values in zip(asked, by_hand, strict=True):
        assert measured[row["id"]]["logprobs"] == pytest.approx(values, abs=1e-3)
        assert measured[row["id"]]["prediction"] == values.index(max(values))

    task = {
        "doc_to_text": "prompt",
        "doc_to_target": "right",
        "generation_kwargs": {"max_gen_toks": 4, "until": ["="]},
    }
    held = tool(operation="prepare", dataset="data/held/choices.jsonl", lm_task=task)
    tool(operation="score", held_out=held["held_out"], **{**sides, "baseline": {"simple": "copy"}})
    (kept,) = (tmp_path / held["held_out"]).glob("predictions-*.json")
    assert all(
        "=" not in one["prediction"] and len(one["prediction"]) < 60 for one in json.loads(kept.read_text()).values()
    )
