"""Plans of training: what cannot work is refused before anything is spent, with what to do instead.

That the scripts run is shown by tests/train, under an environment that has torch.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from ml_intern.tools import HubInspectDatasetTool, HubInspectModelTool, TrainingConfigTool
from saving import assert_survives_saving

from ml_intern import InternAgent
from ml_intern.router import ToolRouter
from ml_intern.steps import ToolCallStep
from ml_intern.testing import ScriptedModel
from ml_intern.watching import Clock, findings, points_in

ROOT = Path(__file__).parents[2]
WORDS = "river stone cloud paper light green house water music north small early round quiet seven bridge".split()  # noqa: SIM905
SHA = "c0ffee" * 6 + "beef"


def sentences(count: int, seed: int = 0, words: int = 14) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(words)) + f" {seed}x{number}" for number in range(count)]


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def reviews(count: int, seed: int = 0) -> list[dict]:
    return [{"text": text, "label": ("bad", "good")[n % 2]} for n, text in enumerate(sentences(count, seed))]


def model_folder(workspace, name: str, vocab: int = 100, tokens: int = 100, chat: bool = False, **config) -> str:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 512, "vocab_size": vocab, **config}
    workspace.write_bytes(f"{name}/config.json", json.dumps({"architectures": ["BertModel"], **shape}).encode())
    words = {f"w{number}": number for number in range(tokens)}
    workspace.write_bytes(
        f"{name}/tokenizer.json", json.dumps({"model": {"vocab": words}, "added_tokens": []}).encode()
    )
    workspace.write_bytes(f"{name}/tokenizer_config.json", json.dumps({"chat_template": "x"} if chat else {}).encode())
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000, 50], "data_offsets": [0, 200000]}}).encode()
    workspace.write_bytes(f"{name}/model.safetensors", len(header).to_bytes(8, "little") + header)
    return name


def model_report(**changes) -> dict:
    about = {
        "id": "org/model", "revision": SHA, "license": "apache-2.0", "gated": False, "architecture": "BertForMaskedLM",
        "parameters": 110_000_000, "context_length": 512, "chat_template": False, "vocab_size": 30522, "hidden_size": 768,
        "layers": 12, "heads": 12, "labels": None,
    }  # fmt: skip
    return {**about, **changes}


def language_model(**changes) -> dict:
    shape = {"architecture": "LlamaForCausalLM", "context_length": 8192, "vocab_size": 32000, "chat_template": True}
    return model_report(**{**shape, "parameters": 7_000_000_000, "hidden_size": 4096, "layers": 32, **changes})


def data_report(columns: dict, features: dict, **changes) -> dict:
    about = {
        "id": "org/data", "revision": SHA, "license": "mit", "gated": False, "config": "default",
        "splits": [{"split": "train", "rows": 8000}, {"split": "validation", "rows": 1000}, {"split": "test", "rows": 1000}],
        "features": features, "columns": columns, "rows_examined": {"train": 8000},
        "duplicates": {"across": {"train & validation": 0, "train & test": 0}}, "methods": {},
    }  # fmt: skip
    return {**about, **changes}


TEXT = {"role": "text", "missing": 0, "characters": {"min": 5, "median": 200, "p95": 600, "max": 900}}
CLASSES = {
    "columns": {"text": TEXT, "label": {"role": "label", "missing": 0, "labels": {"neg": 4000, "pos": 4000}}},
    "features": {"text": "string", "label": "ClassLabel(neg, pos)"},
}
CHATS = {
    "columns": {"messages": {"role": "conversation", "missing": 0, "tokens": {"median": 200, "p95": 600, "max": 900}}},
    "features": {"messages": "list[{role: string, content: string}]"},
}
PAIRS = {
    "columns": {"prompt": TEXT, "chosen": TEXT, "rejected": TEXT},
    "features": dict.fromkeys(("prompt", "chosen", "rejected"), "string"),
}


@pytest.fixture
def tool(workspace):
    return TrainingConfigTool(workspace=workspace)


@pytest.fixture
def local(workspace):
    """A text classifier to be trained on files of the workspace."""
    workspace.write_bytes("data/train.jsonl", jsonl(reviews(200)))
    workspace.write_bytes("data/validation.jsonl", jsonl(reviews(40, 1)))
    workspace.write_bytes("data/test.jsonl", jsonl(reviews(40, 2)))
    model_folder(workspace, "encoder")
    return {"task": "Tell good from bad.", "method": "text-classification", "dataset": "data", "base_model": "encoder"}


@pytest.fixture
def distant():
    """The same on the Hub."""
    asked = {
        "task": "Tell good from bad.",
        "method": "text-classification",
        "dataset": "org/data",
        "base_model": "org/model",
    }
    return {**asked, "dataset_report": data_report(**CLASSES), "model_report": model_report()}


def talking(method: str = "sft", kind: dict = CHATS, **changes) -> dict:
    asked = {"task": "Answer.", "method": method, "dataset": "org/data", "base_model": "org/model", "adapter": "lora"}
    options = {"push_to": "ann/model", **changes.pop("options", {})}
    reports = {"dataset_report": data_report(**kind), "model_report": language_model()}
    return {**asked, "hardware": "a100-large", "options": options, **reports, **changes}


def failed(planned: dict) -> dict:
    """The check that failed, of which there is one; nothing was written."""
    assert not planned["ready"]
    assert planned["script"] is planned["command"] is planned["smoke_command"] is None
    (check,) = [check for check in planned["checks"] if not check["ok"]]
    assert check["fix"], check
    return check


def check(planned: dict, name: str) -> dict:
    (found,) = [one for one in planned["checks"] if one["name"] == name]
    return found


def test_a_plan_that_works_comes_with_a_script_and_how_to_run_it(tool, workspace, local):
    planned = tool(**local)
    assert planned["ready"], planned["checks"]
    assert planned["script"] == "runs/encoder-text-classification-data/train.py"
    assert planned["command"].split() == [
        "python",
        planned["script"],
        "--output",
        "runs/encoder-text-classification-data",
    ]
    assert "--smoke" in planned["smoke_command"].split()
    written = json.loads(workspace.read_bytes("runs/encoder-text-classification-data/plan.json"))
    assert written["labels"] == {"bad": "bad", "good": "good"}
    assert written["splits"]["validation"] == "data/validation.jsonl"
    assert planned["estimate"]["steps"] == 39  # 3 epochs of 200 rows in batches of 16
    assert sum(
        v for k, v in planned["estimate"]["memory_gb"].items() if k not in ("total", "available")
    ) == pytest.approx(planned["estimate"]["memory_gb"]["total"], abs=0.02)


def test_what_the_hub_holds_is_pinned(tool, workspace, distant):
    planned = tool(**distant)
    assert planned["ready"], planned["checks"]
    text = workspace.read_bytes(planned["script"]).decode()
    assert f'"base_revision": "{SHA}"' in text
    assert f'"dataset_revision": "{SHA}"' in text
    assert (
        text.count('load_split("test")') == text.count('load_split("test").select_columns(seen)') == 1
    )  # inputs only
    assert "near copies" in check(planned, "leaks")["fix"]
    assert planned["plan"]["labels"] == {"0": "neg", "1": "pos"}


@pytest.mark.parametrize(("tokens", "fits"), [(100, True), (101, False)])
def test_a_tokenizer_of_another_model_on_the_hub_is_found_before_anything_is_spent(tool, distant, hub, tokens, fits):
    """As the inspector reads it from the very files that the script would load."""
    words = {f"w{number}": number for number in range(tokens)}
    config = {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": 100, "max_position_embeddings": 512}
    files = {
        "config.json": json.dumps({**config, "hidden_size": 32, "num_hidden_layers": 2}).encode(),
        "tokenizer.json": json.dumps({"model": {"vocab": words}}).encode(),
        "README.md": b"---\nlicense: mit\n---\n",
    }
    hub.seed("org/model", "model", files)
    planned = tool(**{**distant, "model_report": HubInspectModelTool()("org/model")})
    if fits:
        assert check(planned, "tokenizer")["ok"]
    else:
        found = failed(planned)
        assert found["name"] == "tokenizer" and "100 embeddings" in found["why"] and "that came with" in found["fix"]


@pytest.mark.parametrize("which", ["dataset_report", "model_report"])
def test_without_a_commit_there_is_nothing_to_pin(tool, distant, which):
    distant[which] = {**distant[which], "revision": None}
    assert "No commit" in failed(tool(**distant))["why"]


def header(text: str) -> dict:
    """As PEP 723 says it is to be read."""
    (block,) = re.finditer(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$", text)
    assert block["type"] == "script"
    return tomllib.loads(
        "".join(line[2:] if line[:2] == "# " else line[1:] for line in block["content"].splitlines(True))
    )


def every_plan(tool, workspace):
    """Each method, with and without adapters, from the Hub and from files."""
    for name, config in (("encoder", {}), ("decoder", {"architectures": ["LlamaForCausalLM"]})):
        model_folder(workspace, name, chat=True, **config)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    texts = sentences(80)
    files = {
        "text-classification": reviews(80),
        "token-classification": [{"tokens": text.split(), "ner_tags": ["O"] * 14 + ["B-X"]} for text in texts],
        "sft": [{"messages": [{**turn, "content": text} for turn in turns]} for text in texts],
        "dpo": [{"prompt": text, "chosen": text + " yes", "rejected": text + " no"} for text in texts],
        "reward": [{"chosen": text + " yes", "rejected": text + " no"} for text in texts],
        "grpo": [{"prompt": text, "answer": text.split()[0]} for text in texts],
        "embeddings": [{"anchor": text, "positive": text[::-1]} for text in texts],
        "sklearn": [{"height": n * 1.5, "colour": "red", "label": n % 2} for n in range(80)],
    }
    for method, rows in files.items():
        workspace.write_bytes(f"{method}/train.jsonl", jsonl(rows))
        base = None if method == "sklearn" else "decoder" if method in ("sft", "dpo", "reward", "grpo") else "encoder"
        for adapter in ("full", "lora") if base else ("full",):
            yield tool(task="Learn.", method=method, dataset=method, base_model=base, adapter=adapter, options={"name": f"{method}-{adapter}"})  # fmt: skip
        workspace.write_bytes(f"{method}-both/train.jsonl", jsonl(rows[:60]))
        workspace.write_bytes(f"{method}-both/validation.jsonl", jsonl(rows[60:]))
        yield tool(task="Learn.", method=method, dataset=f"{method}-both", base_model=base, adapter="full", options={"name": f"{method}-both"})  # fmt: skip
    for number in range(40):
        workspace.write_bytes(f"pictures/train/{'ab'[number % 2]}/{number}.png", bytes([number]))
    model_folder(workspace, "vision")
    yield tool(task="See.", method="image-classification", dataset="pictures", base_model="vision")
    yield tool(
        **talking("sft", adapter="qlora", options={"trackio": False, "name": "far-sft", "chat_template": "chatml"})
    )
    for name, splits in (("whole", ["train"]), ("split", ["train", "validation", "test"])):
        report = data_report(**CLASSES, splits=[{"split": one, "rows": 2000} for one in splits])
        for method in ("sklearn", "text-classification"):
            base = {} if method == "sklearn" else {"base_model": "org/model", "model_report": model_report()}
            yield tool(task="Tell.", method=method, dataset="org/data", dataset_report=report, options={"name": f"far-{method}-{name}"}, **base)  # fmt: skip
    yield tool(**talking("dpo", PAIRS, options={"name": "far-dpo", "drop_test_rows": True}))
    yield tool(**talking("reward", PAIRS, options={"name": "far-reward"}))
    code = "def reward(completions, **columns):\n    return [float(len(one)) for one in completions]"
    yield tool(**talking("grpo", PAIRS, options={"name": "far-grpo", "reward": code, "batch_size": 8}))


@pytest.mark.long
def test_all_scripts_are_clean_and_say_what_they_need(tool, workspace, tmp_path):
    scripts, pinned = tmp_path / "scripts", {f"{name}=={version}" for name, version in tool.VERSIONS.items()}
    scripts.mkdir()
    for number, planned in enumerate(every_plan(tool, workspace)):
        assert planned["ready"], (planned["plan"]["method"], [one for one in planned["checks"] if not one["ok"]])
        text = workspace.read_bytes(planned["script"]).decode()
        needs = header(text)
        assert needs["requires-python"] == ">=3.11"
        assert set(needs["dependencies"]) <= pinned
        imported = set(re.findall(r"(?m)^(?:from|import) (\w+)", text)) - set(sys.stdlib_module_names)
        named = {one.partition("==")[0].replace("-", "_") for one in needs["dependencies"]}
        assert {{"sklearn": "scikit_learn", "PIL": "pillow"}.get(one, one) for one in imported} <= named | {
            "huggingface_hub"
        }
        (scripts / f"script_{number}.py").write_text(text)
    assert number == 31
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            [*ruff, *command, "--config", ROOT / "pyproject.toml", scripts],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]


GUARDS = {
    "bfloat16 only where the GPU has it": "BF16 = GPU and torch.cuda.is_bf16_supported(including_emulation=False)",
    "and the trainer is told the same": '"bf16": BF16,',
    "one process a GPU": 'run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={torch.cuda.device_count()}"]',
    "once": '"RANK" not in os.environ:',
    "the first one alone writes": 'MAIN = os.environ.get("RANK", "0") == "0"',
    "rows on one device": '"per_device_train_batch_size": h["batch_size"],',
    "a step's rows are of all devices": 'world = int(os.environ.get("WORLD_SIZE", "1"))',
    "layers in place of kept activations": '"activation_checkpointing": h["activation_checkpointing"],',
}
FOUR_BITS = {
    "four bits": '"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True',
    "heads stay whole": 'four["llm_int8_skip_modules"] = ["lm_head", "classifier", "score"]',
    "a T4 computes in float16": "torch.bfloat16 if BF16 or not GPU else torch.float16",
    "each process has the model on its own GPU": '{"device_map": {"": int(os.environ.get("LOCAL_RANK", "0"))}} if GPU',
    "a smoke run without a GPU does not quantise": "if not GPU and SMOKE:",
    "a run without a GPU stops": 'stop(4, "hardware", "QLoRA needs an NVIDIA GPU, and there is none."',
}


@pytest.mark.parametrize("hardware", ["t4-small", "a10g-largex4"])
@pytest.mark.parametrize("method", ["sft", "dpo", "text-classification", "embeddings"])
def test_a_script_for_gpus_has_its_guards(tool, workspace, method, hardware, monkeypatch):
    """None of it can be run here: that each of them is there, and is what the plan says of the devices."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kinds = {"sft": CHATS, "dpo": PAIRS, "text-classification": CLASSES}
    texts = {
        "columns": {"anchor": TEXT, "positive": TEXT},
        "features": dict.fromkeys(("anchor", "positive"), "string"),
    }
    model = {} if method in ("sft", "dpo") else {"model_report": model_report()}
    planned = tool(**talking(method, kinds.get(method, texts), adapter="qlora", hardware=hardware, **model))
    assert planned["ready"], planned["checks"]
    text = workspace.read_bytes(planned["script"]).decode()
    for why, guard in [*GUARDS.items(), *FOUR_BITS.items()]:
        assert guard in text, why
    assert ("prepare_model_for_kbit_training(model" in text) == (method not in ("sft", "dpo"))  # TRL does it by itself
    assert {"bitsandbytes", "peft", "nvidia-ml-py"} <= {one.partition("==")[0] for one in header(text)["dependencies"]}
    devices, hyper = 4 if hardware.endswith("x4") else 1, planned["plan"]["hyperparameters"]
    assert (
        f"x {devices} devices = {hyper['batch_size'] * hyper['accumulation'] * devices} rows"
        in check(planned, "batch")["why"]
    )
    assert planned["estimate"]["rows_a_step"] == hyper["batch_size"] * hyper["accumulation"] * devices


@pytest.mark.soak
@pytest.mark.skipif(
    shutil.which("uv") is None, reason="uv is not installed here: it runs scripts by their inline metadata"
)
def test_uv_runs_a_script_by_its_inline_metadata(tool, workspace, local, tmp_path):
    """For real: uv makes an environment of what the script says it needs, and nothing else is there."""
    planned = tool(**{**local, "method": "sklearn", "base_model": None})
    known = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["uv", "run", "--no-project", planned["script"], *planned["smoke_command"].split()[2:]],
        cwd=workspace.root, env=known, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.split("@result ")[1].splitlines()[0])
    assert result["status"] == "done"
    assert {f"{name}=={version}" for name, version in result["versions"].items()} == set(planned["plan"]["packages"])


def test_the_extra_for_training_is_what_the_scripts_pin():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(extras["train"]) == sorted(
        f"{name}=={version}" for name, version in TrainingConfigTool.VERSIONS.items()
    )
    assert not {"torch", "transformers"} & {
        line.partition("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()
    }


def test_a_task_in_strange_words_does_not_break_the_script(tool, workspace, local):
    task = 'Say """quotes""", a \\ and {braces}\nover two lines"'
    planned = tool(**{**local, "task": task})
    compile(workspace.read_bytes(planned["script"]), "train.py", "exec")
    assert planned["plan"]["task"] == " ".join(task.split())


def test_a_run_is_named_by_what_it_is_and_what_a_run_made_is_never_of_another_script(tool, workspace, local):
    """What was published from a run can be made again only with the script that made it."""
    simple = {"task": "Tell.", "method": "sklearn", "dataset": "data"}
    first = tool(**simple)
    assert first["plan"]["name"] == "sklearn-data"
    workspace.write_bytes("runs/sklearn-data/model/model.skops", b"weights")
    before = workspace.read_bytes(first["script"])
    assert tool(**simple)["script"] == first["script"]  # the same plan once more
    other = tool(**simple, options={"seed": 7})
    assert other["script"] == "runs/sklearn-data-2/train.py" and other["plan"]["name"] == "sklearn-data-2"
    assert other["command"].endswith("--output runs/sklearn-data-2")
    assert "holds a run of another plan" in check(other, "name")["why"]
    assert workspace.read_bytes(first["script"]) == before
    assert '"name": "sklearn-data-2"' in workspace.read_bytes(other["script"]).decode()


# Labels


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (["pos", "neg"], "another order"),
        (["joy", "anger", "fear"], "has others"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], "others"),
    ],
)
def test_a_head_for_other_labels_is_refused(tool, distant, own, words):
    distant["model_report"] = model_report(architecture="BertForSequenceClassification", labels=own)
    refused = failed(tool(**distant))
    assert words in refused["why"]
    assert "new_head" in refused["fix"]
    assert tool(**distant, options={"new_head": True})["ready"]


def test_a_head_for_the_same_labels_is_kept(tool, distant):
    distant["model_report"] = model_report(architecture="BertForSequenceClassification", labels=["NEG", "POS"])
    assert tool(**distant)["ready"]


@pytest.mark.parametrize(
    ("labels", "words"), [(["pos", "neg"], "says"), (["neg"], "says"), (["neg", "pos", "pos"], "twice")]
)
def test_a_wrong_label_map_is_refused(tool, distant, labels, words):
    assert words in failed(tool(**distant, options={"labels": labels}))["why"]


def test_numbers_without_names_get_the_names_that_are_given(tool, workspace, local):
    rows = [{**row, "label": n % 3} for n, row in enumerate(reviews(90))]
    workspace.write_bytes("numbers/train.jsonl", jsonl(rows))
    local["dataset"] = "numbers"
    assert tool(**local, options={"labels": ["a", "b", "c"]})["plan"]["labels"] == {"0": "a", "1": "b", "2": "c"}
    assert "says" in failed(tool(**local, options={"labels": ["a", "b"]}))["why"]


def test_a_label_that_only_validation_has_is_refused(tool, workspace, local):
    workspace.write_bytes("data/validation.jsonl", jsonl([{**row, "label": "odd"} for row in reviews(40, 1)]))
    assert "odd" in failed(tool(**local))["why"]


def test_folders_of_pictures_have_the_same_labels_in_both_splits(tool, workspace):
    """Numbers stand for folders in their order: without one of them all labels after it would be others."""
    for number in range(30):
        workspace.write_bytes(f"pictures/train/{'abc'[number % 3]}/{number}.png", bytes([number]))
    for number in range(10):
        workspace.write_bytes(f"pictures/validation/{'bc'[number % 2]}/{number}.png", bytes([90 + number]))
    model_folder(workspace, "vision")
    asked = {"task": "See.", "method": "image-classification", "dataset": "pictures", "base_model": "vision"}
    assert "['a']" in failed(tool(**asked))["why"]
    workspace.write_bytes("pictures/validation/a/1.png", b"x")
    assert tool(**asked)["ready"]
    workspace.write_bytes("pictures/validation/a/2.png", bytes([0]))
    assert check(tool(**asked), "leak into validation")["why"].startswith("1 rows")


def test_more_labels_than_a_type_shows_are_known_by_name_or_asked_for(tool, workspace, distant):
    """The type shows twenty names; the inspector counts fifty labels."""
    names = [f"kind {number:02}" for number in range(60)]
    shown = f"ClassLabel({', '.join(names[:20])})"
    for count, ready in ((30, True), (60, False)):
        labels = dict.fromkeys(names[: min(count, 50)], 100)
        column = {"role": "label", "missing": 0, "distinct": count, "labels": labels}
        kind = {"columns": {"text": TEXT, "label": column}, "features": {"text": "string", "label": shown}}
        planned = tool(**{**distant, "dataset_report": data_report(**kind)})
        assert planned["ready"] is ready
        if ready:
            assert "value = NAMES[value]" in workspace.read_bytes(planned["script"]).decode()
        else:
            assert "List all labels" in failed(planned)["fix"]
        listed = tool(**{**distant, "dataset_report": data_report(**kind), "options": {"labels": names[:count]}})
        assert listed["plan"]["labels"]["29"] == "kind 29"


@pytest.mark.parametrize(("label", "words"), [("same", "only one label"), (0.5, "regression")])
def test_labels_that_teach_nothing_are_refused(tool, workspace, local, label, words):
    rows = [{**row, "label": label if label == "same" else n + label} for n, row in enumerate(reviews(60))]
    workspace.write_bytes("odd/train.jsonl", jsonl(rows))
    assert (
        words
        in failed(tool(**{**local, "dataset": "odd", "options": {"columns": {"text": "text", "label": "label"}}}))[
            "why"
        ]
    )


# Splits and leaks


def test_an_empty_validation_split_is_refused(tool, workspace, local, distant):
    workspace.write_bytes("data/validation.jsonl", b"")
    assert "validation split 'data/validation.jsonl' is empty" in failed(tool(**local))["why"]
    distant["dataset_report"]["splits"][1]["rows"] = 0
    assert "is empty" in failed(tool(**distant))["why"]
    distant["options"] = {"splits": {"validation": None}}
    assert tool(**distant)["ready"]  # drawn from the training rows then


def test_validation_is_drawn_from_training_rows_and_never_from_test(tool, workspace, local):
    workspace.root.joinpath("data/validation.jsonl").unlink()
    planned = tool(**local)
    assert planned["plan"]["splits"] == {"train": "data/train.jsonl", "validation": None, "test": "data/test.jsonl"}
    assert planned["plan"]["validation_share"] == 0.1
    text = workspace.read_bytes(planned["script"]).decode()
    assert "def hold_out" in text
    assert 'load_split("test")' not in text
    with pytest.raises(ValueError, match="same file"):
        tool(**local, options={"splits": {"train": "data/train.jsonl", "validation": "data/train.jsonl"}})


def test_a_split_that_is_not_there_is_named_with_those_that_are(tool, distant):
    refused = failed(tool(**distant, options={"splits": {"validation": "dev"}}))
    assert "'dev'" in refused["why"]
    assert "train, validation, test" in refused["fix"]


def test_test_rows_in_training_data_are_refused(tool, workspace, local):
    tests = [json.loads(line) for line in workspace.read_bytes("data/test.jsonl").decode().splitlines()]
    loud = [{**row, "text": row["text"].upper() + "  !"} for row in tests[:3]]
    workspace.write_bytes("data/train.jsonl", jsonl(reviews(200) + loud))
    refused = failed(tool(**local))
    assert refused["name"] == "leak into test"
    assert refused["why"].startswith("3 rows of test are also in training")
    planned = tool(**local, options={"drop_test_rows": True})
    assert planned["ready"]
    text = workspace.read_bytes(planned["script"]).decode()
    assert 'load_split("test").select_columns(seen)' in text  # inputs only


def test_a_leak_by_near_duplicates_is_refused(tool, workspace, local):
    tests = [json.loads(line) for line in workspace.read_bytes("data/test.jsonl").decode().splitlines()]
    near = [{**row, "text": row["text"].rsplit(" ", 1)[0] + " indeed"} for row in tests[:4]]
    workspace.write_bytes("data/train.jsonl", jsonl(reviews(200) + near))
    refused = failed(tool(**local, options={"drop_test_rows": True}))
    assert "4 more nearly so" in refused["why"]
    assert "Take these rows out" in refused["fix"]


def test_training_rows_in_validation_are_left_out_by_the_script(tool, workspace, local):
    workspace.write_bytes("data/validation.jsonl", jsonl(reviews(40, 1) + reviews(2)))
    planned = tool(**local)
    assert planned["ready"]
    assert "leaves them out" in check(planned, "leak into validation")["fix"]


def test_a_leak_that_the_inspector_found_is_refused(tool, distant):
    distant["dataset_report"]["duplicates"]["across"]["train & test"] = 12
    assert failed(tool(**distant))["why"].startswith("12 rows of test")


def test_a_short_text_quoted_in_a_long_one_is_no_near_duplicate(tool):
    short = {"text": "one two three four five six seven eight"}
    long = {"text": "nine ten eleven twelve " * 10 + short["text"] + " thirteen fourteen" * 10}
    assert tool._overlap([long], [short], ["text"])["near"] == 0


def of_script(workspace, planned: dict) -> dict:
    """What a script defines, without what it imports from others and does."""
    text = workspace.read_bytes(planned["script"]).decode()
    plain = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign)]
    wanted = [one for one in plain if getattr(one, "name", "") in ("Rows", "plain", "pieces", "near_copies")]
    names: dict = {"json": json, "CONFIG": planned["plan"]}
    exec(compile(ast.Module(wanted, []), "train.py", "exec"), names)
    return names


def test_the_script_leaves_near_copies_of_what_is_held_out_out_of_training(tool, workspace, local):
    """What the plan could not look at in full: data of the Hub, and rows that are drawn for validation."""
    planned = tool(**{**local, "method": "sklearn", "base_model": None})
    script = of_script(workspace, planned)
    held = script["Rows"](reviews(40, 2))
    near = [{**row, "text": row["text"].rsplit(" ", 1)[0].upper() + "; indeed"} for row in held[:3]]
    short = [{"text": "river stone cloud", "label": "bad"}, {"text": None, "label": "bad"}]
    assert script["near_copies"](script["Rows"]([*short, *reviews(50), *near]), [held]) == {52, 53, 54}


def test_a_prompt_that_all_rows_have_makes_no_near_copies(tool, workspace):
    """Neither in the plan nor in the script; nor does a system prompt."""
    form = "Read this review of a product with great care and say in one word whether its author liked it:"
    system = {"role": "system", "content": "You are a helpful assistant who always answers politely. " * 5}

    def chats(count, seed):
        for text in sentences(count, seed):
            turns = [{"role": "user", "content": f"{form} {text}"}, {"role": "assistant", "content": "good"}]
            yield {"messages": [system, *turns]}

    workspace.write_bytes("data/train.jsonl", jsonl([*chats(200, 0)]))
    workspace.write_bytes("data/validation.jsonl", jsonl([*chats(60, 1)]))
    model_folder(workspace, "decoder", chat=True, architectures=["LlamaForCausalLM"])
    planned = tool(task="Answer.", method="sft", dataset="data", base_model="decoder")
    assert planned["ready"], planned["checks"]
    text = sentences(60, 1)[7] + " really"
    again = {
        "messages": [system, {"role": "user", "content": f"{form} {text}"}, {"role": "assistant", "content": "good"}]
    }
    script = of_script(workspace, planned)
    rows = type("Rows", (list,), {"select": lambda self, numbers: [self[number] for number in numbers]})
    assert script["near_copies"](rows([*chats(200, 0), again]), [rows(chats(60, 1))]) == {200}
    workspace.write_bytes("data/train.jsonl", jsonl([*chats(200, 0), again]))
    assert (
        "1 more nearly so" in failed(tool(task="Answer.", method="sft", dataset="data", base_model="decoder"))["why"]
    )


def test_rows_of_a_table_may_be_alike(tool, workspace):
    draw = random.Random(1)
    rows = [{**{f"x{n}": draw.randrange(2) for n in range(9)}, "label": "ab"[n % 2]} for n in range(120)]
    workspace.write_bytes("table/train.jsonl", jsonl(rows[:80]))
    workspace.write_bytes("table/validation.jsonl", jsonl(rows[80:]))
    planned = tool(task="Tell.", method="sklearn", dataset="table")
    assert planned["ready"], planned["checks"]
    assert "near_copies" not in workspace.read_bytes(planned["script"]).decode()


# Model, method and data together


def planted(fault: str, workspace, local: dict, distant: dict) -> tuple:
    """Arguments with this fault in files of the workspace, and in data and a model of the Hub; None where it cannot be."""

    def lines(split):
        return [json.loads(line) for line in workspace.read_bytes(f"data/{split}.jsonl").decode().splitlines()]

    distant = copy.deepcopy(distant)
    report, model = distant["dataset_report"], distant["model_report"]
    match fault:
        case "test rows in training":
            workspace.write_bytes("data/train.jsonl", jsonl(reviews(200) + lines("test")[:3]))
            report["duplicates"]["across"]["train & test"] = 3
        case "near copies of test rows in training":
            near = [{**row, "text": row["text"].replace(" ", ", ", 3) + " indeed"} for row in lines("test")[:3]]
            workspace.write_bytes("data/train.jsonl", jsonl(reviews(200) + near))
            distant = None  # the script leaves them out: shown above
        case "a wrong label map":
            local["options"], distant["options"] = {"labels": ["bad", "fine"]}, {"labels": ["pos", "neg"]}
        case "a head for other labels":
            model_folder(
                workspace,
                "encoder",
                architectures=["BertForSequenceClassification"],
                id2label={"0": "good", "1": "bad"},
            )
            model.update(architecture="BertForSequenceClassification", labels=["pos", "neg"])
        case "an empty validation split":
            workspace.write_bytes("data/validation.jsonl", b"")
            report["splits"][1]["rows"] = 0
        case "a tokenizer of another model":
            model_folder(workspace, "encoder", vocab=100, tokens=120)
            model["tokenizer_size"] = 50_000
        case "no column for a role":
            for split in ("train", "validation", "test"):
                workspace.write_bytes(f"data/{split}.jsonl", jsonl([{"text": row["text"]} for row in lines(split)]))
            del report["columns"]["label"], report["features"]["label"]
        case "a licence that forbids it":
            local, report["license"] = None, "cc-by-nd-4.0"
        case "examples longer than the window":
            local["options"] = distant["options"] = {"max_length": 4096}
        case "no chat template":
            turns = [[{"role": who, "content": text} for who in ("user", "assistant")] for text in sentences(60)]
            workspace.write_bytes("chats/train.jsonl", jsonl([{"messages": one} for one in turns]))
            model_folder(workspace, "decoder", architectures=["LlamaForCausalLM"])
            local |= {"method": "sft", "dataset": "chats", "base_model": "decoder"}
            distant = talking(model_report=language_model(chat_template=False))
    return local, distant


FAULTS = {
    "test rows in training": ("leak into test", "take|leaves them out of training"),
    "near copies of test rows in training": ("leak into test", "Take these rows out"),
    "a wrong label map": ("labels", "as the data has them"),
    "a head for other labels": ("labels", "new_head"),
    "an empty validation split": ("splits", "Leave it out of `splits`"),
    "a tokenizer of another model": ("tokenizer", "the tokenizer that came with these weights"),
    "no column for a role": ("columns", "Name them in options"),
    "a licence that forbids it": ("data licence", "Choose other data"),
    "examples longer than the window": ("length", "Set max_length to 512 or less"),
    "no chat template": ("chat template", "instruct variant"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_before_anything_is_spent(tool, workspace, local, distant, fault):
    name, fix = FAULTS[fault]
    for asked in planted(fault, workspace, local, distant):
        if asked is not None:
            found = failed(tool(**asked))
            assert found["name"] == name and re.search(fix, found["fix"]), found


def test_a_tokenizer_of_another_model_is_refused(tool, workspace, local):
    model_folder(workspace, "encoder", vocab=100, tokens=130)
    refused = failed(tool(**local))
    assert refused["name"] == "tokenizer"
    assert "129" in refused["why"]
    model_folder(workspace, "encoder", vocab=128, tokens=100)  # padded embeddings are fine
    assert tool(**local)["ready"]


def test_columns_that_a_method_needs_are_named(tool, workspace, local):
    refused = failed(tool(**{**local, "method": "reward"}))
    assert "chosen" in refused["why"]
    assert "text (text)" in refused["fix"]
    wrong = tool(**local, options={"columns": {"text": "body", "label": "label"}})
    assert "'body'" in failed(wrong)["why"]


def test_the_inspectors_verdict_counts(tool, distant):
    verdict = {"verdict": "no", "why": "no column is a label", "fix": "add one", "columns": {}}
    distant["dataset_report"]["methods"] = {"text-classification": verdict}
    assert failed(tool(**distant))["why"] == "no column is a label"
    asked = talking("dpo", PAIRS)
    verdict = {
        "verdict": "fixable",
        "why": "two answers",
        "fix": "put the better one into `chosen`",
        "columns": {"prompt": "prompt"},
    }
    asked["dataset_report"]["methods"] = {"dpo": verdict}
    assert "put the better one" in failed(tool(**asked))["fix"]
    verdict |= {"fix": "rename `prompt` to `prompt`; drop the rows that lack `chosen`"}
    assert tool(**asked)["ready"]  # the script does both


def test_shared_conversations_are_rewritten_by_the_script(tool, workspace):
    columns = {"conversations": CHATS["columns"]["messages"]}
    kind = {"columns": columns, "features": {"conversations": "list[{from: string, value: string}]"}}
    asked = talking("sft", kind)
    fix = "turn each {from, value} into {role, content}, human into user and gpt into assistant; rename `conversations` to `messages`"
    verdict = {"verdict": "fixable", "why": "chats", "fix": fix, "columns": {"messages": "conversations"}}
    asked["dataset_report"]["methods"] = {"sft": verdict}
    planned = tool(**asked)
    assert planned["ready"], planned["checks"]
    assert '"gpt": "assistant"' in workspace.read_bytes(planned["script"]).decode()


def test_pairs_that_may_be_unlike_each_other_are_no_pairs_for_embeddings(tool, workspace, local):
    rows = [{"premise": a, "hypothesis": b, "label": n % 3} for n, (a, b) in enumerate(zip(sentences(60), sentences(60, 1), strict=True))]  # fmt: skip
    workspace.write_bytes("nli/train.jsonl", jsonl(rows))
    assert failed(tool(**{**local, "method": "embeddings", "dataset": "nli"}))["name"] == "columns"


def test_a_run_of_columns_is_taken_apart(tool, workspace):
    """The inspector shows 64 numbered neighbours as one."""
    columns = {"pixel_00..pixel_63": {"role": "number", "columns": 64, "missing": 0, "distinct": [1, 17]}}
    columns["digit"] = {"role": "label", "missing": 0, "distinct": 10, "labels": {str(n): 100 for n in range(10)}}
    report = data_report(columns, {"pixel_00..pixel_63": "int64", "digit": "int64"})
    asked = {"task": "Read digits.", "method": "sklearn", "dataset": "org/data", "dataset_report": report}
    asked["options"] = {"columns": {"features": [f"pixel_{number:02}" for number in range(64)], "label": "digit"}}
    planned = tool(**asked)
    assert planned["ready"], planned["checks"]
    assert len(planned["plan"]["numeric"]) == 64
    report["columns"]["label"] = report["columns"].pop("digit")
    del asked["options"]
    assert len(tool(**asked)["plan"]["columns"]["features"]) == 64  # found by itself


def test_conversations_need_a_chat_template(tool, workspace):
    asked = talking(model_report=language_model(chat_template=False))
    assert "chatml" in failed(tool(**asked))["fix"]
    planned = tool(**talking(model_report=language_model(chat_template=False), options={"chat_template": "chatml"}))
    assert planned["ready"]
    assert "<|im_start|>" in workspace.read_bytes(planned["script"]).decode()


def test_a_language_model_is_needed_to_make_it_talk(tool):
    assert (
        "CausalLM"
        in failed(tool(**talking(model_report=model_report(chat_template=True, context_length=2048))))["fix"]
    )


def test_lengths_are_held_against_the_window(tool, distant):
    assert "reads 512 tokens" in failed(tool(**distant, options={"max_length": 1024}))["why"]
    assert tool(**distant)["plan"]["hyperparameters"]["max_length"] == 256
    long = {"messages": {**CHATS["columns"]["messages"], "tokens": {"median": 5000, "p95": 9000, "max": 9000}}}
    asked = talking(kind={**CHATS, "columns": long})
    assert "the answer, is cut off" in failed(tool(**asked))["fix"]


def test_a_reward_that_tells_nothing_is_refused(tool):
    asked = talking("grpo", {"columns": {"prompt": TEXT}, "features": {"prompt": "string"}})
    assert "reward" in failed(tool(**asked))["fix"]
    asked["options"] |= {"reward": "def reward(completions: return 1"}
    assert "no Python" in failed(tool(**asked))["why"]
    asked["options"] |= {"reward": "def score(completions): return 1"}
    assert "no function reward" in failed(tool(**asked))["why"]
    asked["options"] |= {
        "reward": "def reward(completions, **columns):\n    return [1.0] * len(completions)",
        "batch_size": 6,
    }
    assert "multiple of 8" in failed(tool(**asked))["fix"]


def test_a_step_larger_than_the_data_is_refused(tool, local):
    assert "more than one epoch" in failed(tool(**local, options={"batch_size": 64, "accumulation": 8}))["why"]


# Hardware, time, cost, terms


def test_memory_that_does_not_suffice_is_refused_with_what_would(tool):
    refused = failed(tool(**talking(adapter="full", hardware="a10g-small", model_report=language_model())))
    assert refused["name"] == "memory"
    assert "qlora" in refused["fix"]
    planned = tool(**talking(adapter="full", hardware="h200", model_report=language_model()))
    parts = planned["estimate"]["memory_gb"]
    assert parts["weights"] == parts["gradients"] == 28.0
    assert parts["optimizer"] == 56.0  # two moments in 32 bits: 7e9 x 8


def test_a_reference_is_counted_where_the_trainer_keeps_one(tool):
    """Of all its weights, in DPO always and in GRPO where leaving it costs; adapters are switched off for it instead."""
    parts = {}
    for adapter in ("full", "lora"):
        for beta in (0.0, 0.04):
            options = {"beta": beta, "reward": "def reward(completions, **columns):\n    return []"}
            planned = tool(**talking("grpo", PAIRS, adapter=adapter, hardware="h200", options=options))
            parts[adapter, beta] = planned["estimate"]["memory_gb"].get("reference")
    assert parts == {("full", 0.0): None, ("full", 0.04): 28.0, ("lora", 0.0): None, ("lora", 0.04): None}


def test_the_batch_is_fitted_to_the_memory_at_the_same_rows_a_step(tool):
    small = tool(**talking("dpo", PAIRS, hardware="l4x1", adapter="qlora", options={"max_length": 2048}))
    assert small["ready"], small["checks"]
    hyper = small["plan"]["hyperparameters"]
    assert hyper["batch_size"] * hyper["accumulation"] == 32
    assert hyper["batch_size"] < 4 or hyper["activation_checkpointing"]
    assert small["estimate"]["memory_gb"]["total"] <= 24


def test_qlora_without_a_gpu_is_refused(tool, local):
    assert "NVIDIA GPU" in failed(tool(**local, adapter="qlora"))["why"]


def test_a_gpu_of_this_machine_counts_where_code_may_use_it(tool, local, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    tool.machine = {"gpus": False, "memory_gb": 4.0}
    planned = tool(**local)
    assert "--gpus" in check(planned, "hardware")["fix"]
    assert planned["estimate"]["memory_gb"]["available"] == 4.0
    tool.machine = {"gpus": True, "memory_gb": 4.0}
    machine = tool(**local, adapter="qlora")["plan"]["hardware"]
    assert (machine["devices"], machine["device_gb"], machine["gpu"]) == (1, 24.2, "l4")


def test_prices_come_from_the_hub_and_a_list_is_said_to_be_one(tool, hub, monkeypatch):
    live = tool(**talking(hardware="a10g-small", adapter="qlora"))
    assert "the Hub, just now" in live["estimate"]["from"]
    assert live["plan"]["hardware"]["usd_per_hour"] == pytest.approx(1.0, abs=0.01)
    assert live["estimate"]["usd_worst"] >= live["estimate"]["usd"] > 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "a list of November 2026" in tool(**talking(hardware="a10g-small", adapter="qlora"))["estimate"]["from"]
    with pytest.raises(ValueError, match="Did you mean 'a10g-small'"):
        tool(**talking(hardware="a10-small"))


@pytest.mark.parametrize("odd", [{"unitCostUSD": None}, {"unitLabel": "fortnight"}, {"accelerator": {"type": "gpu"}}])
def test_a_service_that_tells_no_prices_is_planned_for_by_the_list(tool, hub, odd):
    one = {"name": "a10g-small", "prettyName": "A10G", "cpu": "4 vCPU", "ram": "15 GB", "unitCostMicroUSD": 16_667}
    one |= {"unitCostUSD": 0.016667, "unitLabel": "minute", **odd}
    body, headers = json.dumps([one]), {"content-type": "application/json"}
    hub.fail("/api/jobs/hardware", status=200, headers=headers, body=body)
    planned = tool(**talking(hardware="a10g-small", adapter="qlora"))
    assert planned["ready"] and "a list of November 2026" in planned["estimate"]["from"]


def test_a_budget_that_does_not_suffice_is_refused_with_what_would(tool):
    refused = failed(tool(**talking(budget={"usd": 0.5})))
    steps = int(re.search(r"'max_steps': (\d+)", refused["fix"])[1])
    assert tool(**talking(budget={"usd": 0.5}, options={"max_steps": steps}))["ready"]
    measured = tool(**talking(options={"seconds_per_step": 10.0}))
    assert measured["estimate"]["hours"] == pytest.approx(measured["estimate"]["steps"] / 360, abs=0.001)


@pytest.mark.parametrize("unit", ["usd", "hours"])
def test_what_is_started_as_planned_ends_before_it_takes_more_than_the_budget(tool, unit):
    free = tool(**talking())
    asked = 1.1 * free["estimate"][unit]
    planned = tool(**talking(budget={unit: asked}))
    assert planned["ready"] and "timeout" not in free["start"]
    limit, price = int(planned["start"]["timeout"].removesuffix("s")), planned["plan"]["hardware"]["usd_per_hour"]
    taken = {"usd": (limit + 59) / 3600 * price, "hours": limit / 3600}[unit]  # every minute begun is paid
    assert 0.9 * asked < taken <= asked
    assert planned["estimate"]["usd_worst"] == pytest.approx((limit + 59) / 3600 * price, abs=0.006)
    assert "is ended within it" in check(planned, "budget")["fix"]
    assert "timeout" not in tool(**talking(budget={unit: 10 * asked}))["start"]


def test_licences_are_looked_at(tool, distant):
    distant["dataset_report"]["license"] = "cc-by-nd-4.0"
    assert "forbids" in failed(tool(**distant))["why"]
    assert tool(**distant, options={"accept_licence": True})["ready"]
    distant["dataset_report"]["license"] = "cc-by-nc-4.0"
    planned = tool(**distant)
    assert planned["ready"]
    assert check(planned, "data licence")["fix"]


def test_a_job_whose_weights_would_be_lost_is_refused(tool):
    asked = talking()
    del asked["options"]["push_to"]
    assert "ML_INTERN_JOB_TOKEN" in failed(tool(**asked))["fix"]


def test_a_long_evaluation_is_heard_of_each_minute(tool, workspace, local, capsys):
    """So that nobody takes it for a run that hangs; it is no line of metrics.jsonl."""
    text = workspace.read_bytes(tool(**local)["script"]).decode()
    (journal,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "Journal"]
    now = [1000.0]
    given = {"TrainerCallback": object, "time": SimpleNamespace(time=lambda: now[0]), "json": json, "MAIN": True}
    exec(compile(ast.Module([journal], []), "train.py", "exec"), given)
    told, state = given["Journal"](), SimpleNamespace(global_step=40, epoch=0.2)
    for _ in range(20 * 60):
        now[0] += 1.0
        told.on_prediction_step(None, state, None)
    heard = points_in(capsys.readouterr().out)
    assert 18 <= len(heard) <= 20 and {point["step"] for point in heard} == {40}
    before = [{"step": step, "time": 600.0 + 10 * step, "loss": 1.0 - step / 100} for step in range(1, 41)]
    assert [one.kind for one in findings(before, Clock(now=now[0]))] == ["stalled"]
    assert not findings([*before, *heard], Clock(now=now[0]))


class Stopped(Exception):
    """A script that ended itself."""


def claiming(text: str, *words: str):
    """What a script does about the repository that it pushes to, without the rest of it."""
    tree = ast.parse(text)
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "claim_repository"]
    wanted += [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONFIG"]

    def stop(code, kind, why, fix):
        raise Stopped(f"{code} {kind}: {why} {fix}")

    given = {"ARGS": SimpleNamespace(resume="--resume" in words), "SMOKE": "--smoke" in words, "stop": stop, "os": os}
    given |= {
        "HfApi": lambda: HfApi(endpoint=os.environ["HF_ENDPOINT"]),
        "RepositoryNotFoundError": RepositoryNotFoundError,
    }
    exec(compile(ast.Module(wanted, []), "train.py", "exec"), given)
    given["claim_repository"]()


@pytest.mark.parametrize("method", ["text-classification", "sklearn"])
def test_a_run_is_pushed_to_a_private_repository_of_its_own_alone(tool, workspace, hub, distant, method, monkeypatch):
    asked = {**distant, "method": method, "options": {"push_to": "tester/mine"}}
    if method == "sklearn":
        asked["base_model"] = asked["model_report"] = None
    planned = tool(**asked)
    text = workspace.read_bytes(planned["script"]).decode()
    assert "upload_folder(repo_id=PUSH, folder_path=OUTPUT" in text and "    claim_repository()\n" in text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    api = HfApi(endpoint=hub.url, token=hub.token)
    claiming(text, "--smoke")
    assert not api.repo_exists("tester/mine")
    claiming(text)
    assert api.model_info("tester/mine").private
    claiming(text)  # it is empty still
    api.upload_file(path_or_fileobj=b"weights", path_in_repo="model.safetensors", repo_id="tester/mine")
    for words in ((), ("--smoke",)):
        with pytest.raises(Stopped, match="4 delivery: tester/mine holds 1 file already"):
            claiming(text, *words)
    claiming(text, "--resume")
    api.update_repo_settings("tester/mine", private=False)
    with pytest.raises(Stopped, match="4 delivery: tester/mine is public"):
        claiming(text, "--resume")
    monkeypatch.setenv("HF_TOKEN", "")
    claiming(text)  # nothing is pushed without one


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "text_classification"}, "Did you mean 'text-classification'"),
        ({"options": {"learning_rates": 1}}, "Did you mean 'learning_rate'"),
        ({"options": {"learning_rate": -1.0}}, "more than 0"),
        ({"options": {"batch_size": 1.5}}, "kind of 16"),
        ({"options": {"validation_share": 2}}, "between 0 and 1"),
        ({"options": {"seed": "x"}}, "whole number"),
        ({"adapter": "lorra"}, "full, lora or qlora"),
        ({"budget": {"eur": 1}}, "usd, hours"),
        ({"base_model": None}, "starts from a model"),
        ({"base_model": "nobody/nothing"}, "nothing is known"),
        ({"dataset": "nobody/nothing"}, "nothing is known"),
        ({"task": " "}, "empty"),
    ],
)
def test_arguments_that_mean_nothing_are_errors(tool, local, changes, words):
    with pytest.raises(ValueError, match=words):
        tool(**{**local, **changes})


def test_reports_about_something_else_are_errors(tool, distant):
    with pytest.raises(ValueError, match="is about 'org/other'"):
        tool(**{**distant, "model_report": model_report(id="org/other")})


def test_without_a_workspace_it_says_so(local):
    with pytest.raises(RuntimeError, match="no workspace"):
        TrainingConfigTool()(**local)


def test_the_host_looks_up_what_is_not_passed_in(workspace, distant):
    asked = []

    def inspect_dataset(**arguments):
        asked.append(arguments)
        return data_report(**CLASSES)

    router = ToolRouter(lambda step: None)
    router.services |= {"workspace": lambda: workspace, "inspect_dataset": lambda: inspect_dataset}
    router.services |= {"inspect_model": lambda: lambda **arguments: asked.append(arguments) or model_report()}
    router["training_config"] = TrainingConfigTool()
    del distant["dataset_report"], distant["model_report"]
    planned = router["training_config"](**distant, options={"config": "en", "base_revision": "v1"})
    assert planned["ready"], planned["checks"]
    assert asked == [{"dataset": "org/data", "config": "en"}, {"model": "org/model", "revision": "v1"}]


def test_in_an_agent_the_inspecting_tools_are_asked(workspace, hub):
    """Through the router: each of these calls is on record like the agent's own."""
    rows = "".join(f"{json.dumps(text)},{('calm', 'angry')[n % 2]}\n" for n, text in enumerate(sentences(60)))
    hub.seed("tester/mails", "dataset", {"train.csv": f"text,label\n{rows}".encode()})
    shape = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 100, "hidden_size": 32}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 128}
    header = json.dumps({"w": {"dtype": "F32", "shape": [100, 32], "data_offsets": [0, 12800]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(12800)
    hub.seed("tester/encoder", "model", {"config.json": json.dumps(shape).encode(), "model.safetensors": weights})
    steps, limits = [], {"memory_bytes": 3 * 10**9}
    agent = InternAgent(
        tools=[TrainingConfigTool(), HubInspectDatasetTool(), HubInspectModelTool()],
        model=ScriptedModel([]),
        workspace=workspace,
        executor_kwargs=limits,
    )
    try:
        agent.step_callbacks.register(ToolCallStep, steps.append)
        planned = agent.tools["training_config"](
            task="Tell calm from angry.",
            method="text-classification",
            dataset="tester/mails",
            base_model="tester/encoder",
        )
    finally:
        agent.cleanup()
    assert planned["ready"], planned["checks"]
    assert planned["plan"]["labels"] == {"angry": "angry", "calm": "calm"}
    assert planned["plan"]["parameters"] == 3200
    assert planned["estimate"]["memory_gb"]["available"] == 3.0
    assert len(planned["plan"]["dataset_revision"]) == len(planned["plan"]["base_revision"]) == 40
    assert [step.tool for step in steps] == [
        "training_config", "hub_inspect_dataset", "hub_inspect_model",
    ]  # fmt: skip


def test_a_job_far_away_sees_nothing_of_the_workspace(tool, local):
    refused = failed(tool(**local, hardware="cpu-upgrade", options={"push_to": "ann/model"}))
    assert "hub_push" in refused["fix"]
    start = tool(**talking())["start"]
    assert start["backend"] == "hf_jobs"
    assert start["hardware"] == "a100-large"
    assert re.fullmatch(r"\d+m", start["estimate"])


@pytest.mark.long
def test_it_survives_saving():
    assert_survives_saving(TrainingConfigTool, "huggingface-hub")
