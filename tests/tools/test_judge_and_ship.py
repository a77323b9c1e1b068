"""From a model in a folder to the Hub, through the tools as a session has them: the jail, its jobs, the records, a Hub.

What must never happen: a model with a fault that was planted gets onto the Hub; code in the jail learns a label of a held-out
row; the command on a card does not work.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import pickle
import random
import re
import struct
import time
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from ml_intern.tools import EvaluateModelTool, HubPushTool

from ml_intern.execution import JailExecutor, LocalJobs
from ml_intern.records import Records

CARD = """---
license: mit
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': bad, '1': good}}}
---
# Reviews
"""
NAMES = ("bad", "good")
SAID = (
    ["dreadful", "broken", "late", "rude", "torn", "stale"],
    ["splendid", "sturdy", "quick", "kind", "fresh", "bright"],
)
THINGS = [
    "river",
    "stone",
    "market",
    "winter",
    "garden",
    "letter",
    "bridge",
    "window",
    "morning",
    "silver",
    "engine",
    "paper",
    "orchard",
    "captain",
]
CONFIG = {"model_type": "bert", "hidden_size": 16, "id2label": {"0": "bad", "1": "good"}}


def reviews(count: int, seed: int) -> list[dict]:
    made, rows = random.Random(seed), []
    for number in range(count):
        label = made.randrange(2)
        words = [
            *made.choices(THINGS, k=9),
            made.choice(SAID[label]),
            *made.choices(THINGS, k=4),
            f"number {seed}{number}",
        ]
        rows.append({"text": " ".join(words), "label": label})
    return rows


def table(rows: list[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


TEST, TRAIN = reviews(120, seed=1), reviews(300, seed=2)
LEAKED = [{**row, "text": f"well {row['text'].replace('number', 'No.')}"} for row in TEST[:30]]


def weights(seed: int, moved: float = 0.0, rows: int = 64) -> bytes:
    """Embeddings and a matrix of a model of that seed, trained on by so much."""
    made, other = random.Random(seed), random.Random(seed + 1)
    header, data = {}, b""
    for name, shape in (("bert.embeddings.word_embeddings.weight", (rows, 16)), ("bert.layer.weight", (16, 16))):
        values = [made.gauss(0, 1) + moved * other.gauss(0, 1) for _ in range(shape[0] * shape[1])]
        begin, data = len(data), data + struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


def tokenizer(count: int, turned: int = 0) -> bytes:
    vocabulary = {f"word{number}": (number + turned) % count for number in range(count)}
    return json.dumps({"model": {"type": "WordLevel", "vocab": vocabulary}}).encode()


# What a model's own script does here: it knows the words, as a model that was trained would; `turned` swaps its answers.
PREDICT = f"""
import argparse, json
parser = argparse.ArgumentParser()
for name in ("inputs", "output", "model"):
    parser.add_argument("--" + name)
args = parser.parse_args()
names = json.load(open(args.model + "/config.json"))["id2label"]
good = set({SAID[1]!r})
with open(args.output, "w") as file:
    for number, line in enumerate(open(args.inputs)):
        row = json.loads(line)
        answer = bool(good & set(row["text"].split()))
        answer = answer != (number % 12 == 0)
        file.write(json.dumps({{"id": row["id"], "prediction": names[str(int(answer))]}}) + "\\n")
"""


@pytest.fixture
def session(hub, workspace, tmp_path):
    """The tools with what a session gives them; everything that a run leaves lies in `runs/a`."""
    hub.seed(
        "acme/reviews", "dataset", {"README.md": CARD.encode(), "train.csv": table(TRAIN), "test.csv": table(TEST)}
    )
    base = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": weights(1),
        "tokenizer.json": tokenizer(60),
    }
    hub.seed("acme/base", "model", base)
    run = {"hyperparameters": {"lr": 1e-4}, "base_model": "acme/base", "dataset": "acme/reviews", "seed": 1}
    run["base_revision"] = HfApi(endpoint=hub.url).model_info("acme/base").sha
    files = {
        "runs/a/config.json": json.dumps(run).encode(),
        "runs/a/model/config.json": base["config.json"],
        "runs/a/model/model.safetensors": weights(1, moved=0.1),
        "runs/a/model/tokenizer.json": base["tokenizer.json"],
        "predict.py": PREDICT.encode(),
        "train.csv": table(TRAIN),
    }
    for name, content in files.items():
        workspace.write_bytes(name, content)
    executor = JailExecutor(workspace, network="none")
    jobs = LocalJobs(executor, tmp_path / "session" / "jobs")
    records = Records(tmp_path / "session", lambda kind, data: None)
    judge = EvaluateModelTool(workspace, jobs=jobs, records=records, plots=False)
    push = HubPushTool(workspace, records=records)
    push.call_id = "call_1"
    yield SimpleNamespace(judge=judge, push=push, workspace=workspace, records=records, executor=executor, jobs=jobs)
    jobs.stop_all()
    executor.cleanup()


def judged(session, **options) -> dict:
    held = session.judge(operation="prepare", dataset="acme/reviews")
    candidate = {"folder": "runs/a/model", "script": "predict.py"}
    options = {"baseline": {"simple": "majority"}, "train": ["train.csv"], "held_out": held["held_out"], **options}
    return session.judge(operation="score", candidate=candidate, **options)


def call(found: dict, **changes) -> dict:
    card = "# Mine\n\n## Limits\n\nReviews in English.\n"
    return {"folder": "runs/a/model", "repo_id": "tester/mine", "evaluation": found["id"], "card": card,
            "metadata": {"license": "mit"}, **changes}  # fmt: skip


def change(name: str, content: bytes):
    return lambda session: session.workspace.write_bytes(name, content)


TURNED = json.dumps({**CONFIG, "id2label": {"0": "good", "1": "bad"}}).encode()
FAULTS = {
    "test rows in the training rows": (
        change("train.csv", table([*TRAIN, *TEST[:30]])),
        "30 of 120 held-out rows are in",
    ),
    "a leak by near-duplicates": (change("train.csv", table([*TRAIN, *LEAKED])), r"held-out rows are in .*30 near"),
    "swapped weights": (change("runs/a/model/model.safetensors", weights(7)), "do not derive from acme/base"),
    "a wrong label map": (change("runs/a/model/config.json", TURNED), "labels seem to be mapped wrongly"),
    "another tokenizer": (
        change("runs/a/model/tokenizer.json", tokenizer(60, turned=9)),
        "Tokenizer and weights do not match",
    ),
    "more tokens than embeddings": (change("runs/a/model/tokenizer.json", tokenizer(70)), "70 tokens, 64 embeddings"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_before_the_push(session, hub, fault):
    plant, said = FAULTS[fault]
    plant(session)
    found = judged(session)
    with pytest.raises(ValueError, match=said):
        session.push.check(**call(found))  # before a person is asked
    with pytest.raises(ValueError, match=said):
        session.push(**call(found))
    assert hub.store.find("model", "tester/mine") is None
    assert f"PUBLISHED ANYWAY: {found['problems'][0][:40]}" in session.push.preview(**call(found), publish_anyway=True)


def test_a_leak_that_was_found_is_not_cleared_by_looking_elsewhere(session, hub):
    FAULTS["test rows in the training rows"][0](session)
    judged(session)
    session.workspace.write_bytes("runs/a/config.json", b"{}")  # the run no longer says what it was trained on
    found = judged(session, train=None)
    assert found["better"] and found["contamination"]["checked"] is False
    with pytest.raises(ValueError, match=r"25\.0% of the held-out rows of test were in the training rows"):
        session.push.check(**call(found))
    others = session.judge(operation="prepare", dataset="acme/reviews", rows=100)["held_out"]
    with pytest.raises(ValueError, match=r"25\.0% of the held-out rows of test were in the training rows"):
        session.push.check(**call(judged(session, train=None, held_out=others)))
    session.workspace.write_bytes("clean.csv", table(TRAIN[:50]))
    with pytest.raises(ValueError, match=r"25\.0% of the held-out rows of test were in the training rows"):
        session.push.check(**call(judged(session, train=["clean.csv"])))
    assert hub.store.find("model", "tester/mine") is None


class TestTheWholeLife:
    def test_without_a_fault_it_is_there_once(self, session, hub):
        found = judged(session)
        assert found["by"] == "harness" and found["better"] and found["problems"] == [], found
        assert found["provenance"]["verdict"] == "derived" and found["pipeline_tag"] == "text-classification"
        hub.fail("/commit/", drop="answer")  # the intern is killed before it learns that it is done
        with pytest.raises(ConnectionError):
            session.push(**call(found))
        again = HubPushTool(session.workspace, records=session.records)
        done = again.reconcile("call_1", **call(found))
        again.call_id = "call_1"
        assert (
            again(**call(found)) == done
            and len(HfApi(endpoint=hub.url, token=hub.token).list_repo_commits("tester/mine")) == 2
        )
        assert hub.read("tester/mine", "model", "model.safetensors") == weights(1, moved=0.1)

    def test_weights_that_changed_since(self, session, hub):
        found = judged(session)
        session.workspace.write_bytes("runs/a/model/model.safetensors", weights(1, moved=0.2))
        with pytest.raises(ValueError, match="is of other weights"):
            session.push(**call(found))
        with pytest.raises(ValueError, match="needs `evaluation`"):
            session.push(**{**call(found), "evaluation": None})

    def test_into_another_ones_repository_it_is_a_pull_request(self, session, hub):
        hub.seed("acme/theirs", "model", {"README.md": b"---\nlicense: mit\n---\n# Theirs\n"})
        found = judged(session)
        wish = call(found, repo_id="acme/theirs", private=False)
        shown = session.push.preview(**wish)
        assert "AS A PULL REQUEST" in shown and "-# Theirs" in shown and "+# Mine" in shown
        done = session.push(**wish)
        assert done["pull_request"].endswith("/discussions/1")
        assert hub.read("acme/theirs", "model", "README.md") == b"---\nlicense: mit\n---\n# Theirs\n"

    @pytest.mark.long
    def test_a_better_one_later_is_shown_as_what_changes(self, session, hub):
        session.push(**call(judged(session)))
        session.workspace.write_bytes("runs/a/model/model.safetensors", weights(1, moved=0.2))
        newer = copy.copy(session.push)
        newer.call_id = "call_2"
        shown = newer.preview(**call(judged(session), card="# Mine\n\n## Limits\n\nNone known.\n"))
        assert "model.safetensors" in shown and "takes the place of what is there" in shown
        assert "-Reviews in English." in shown and "+None known." in shown and "-license" not in shown


# What code can do to get at labels: open them by their path on the host, also through what other processes see; read every
# file that was written since, wherever it lies, and what processes were started with.
HUNT = """
import glob, json, os

def hunt(path, since, backwards):
    def told(name):
        try:
            text = open(name, errors="replace").read(5_000_000)
        except (OSError, ValueError):
            return False
        return any(word[::-1] in text.replace(" ", "") for word in backwards)

    ways = ["", "/proc/1/root", "/proc/self/root", *glob.glob("/proc/[0-9]*/root"), *glob.glob("/proc/[0-9]*/cwd")]
    found = [way + path for way in ways if told(way + path)]
    found += [name for name in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline") if told(name)]
    for folder, folders, names in os.walk("/"):
        if folder == "/":
            folders[:] = [name for name in folders if name not in ("proc", "sys", "usr", "lib", "lib64")]
        folders[:] = [name for name in folders if name not in ("site-packages", "__pycache__")]
        for name in names:
            name = os.path.join(folder, name)
            try:
                fresh = os.path.isfile(name) and os.path.getmtime(name) > since
            except OSError:
                continue
            found += [name] if fresh and told(name) else []
    return found

print(json.dumps(hunt({path!r}, {since!r}, {backwards!r})))
"""


def test_code_in_the_jail_finds_no_label(session, tmp_path):
    """It may ask, look and dig: labels are nowhere, neither before nor after a model was judged."""
    began = time.time() - 1
    held = session.judge(operation="prepare", dataset="acme/reviews")
    path = session.records.held_out / held["held_out"] / "labels.json"
    kept = json.loads(path.read_text())
    words = [f'"{key}":"{label}"' for key, label in list(kept.items())[:5]]

    def hunt() -> list[str]:
        code = HUNT.format(path=str(path), since=began, backwards=[word[::-1] for word in words])
        return json.loads(session.executor(code).logs.strip().splitlines()[-1])

    session.workspace.write_bytes("planted.txt", f"x {words[3]}".encode())
    assert hunt() == ["/workspace/planted.txt"]  # so it would find one
    session.workspace.write_bytes("planted.txt", b"")
    found = judged(session)
    assert hunt() == [] and "fetch it again" in found["secrecy"]
    assert found["labels_shown"] == len(found["errors"]) <= 5  # those alone are told, and counted


def own(session, code: str, **options) -> dict:
    session.workspace.write_bytes("likeness.py", code.encode())
    return judged(session, metric="likeness.py", **options)


class TestAMetricOfTheAgentsOwn:
    """It has to see labels. What must never happen: one gets out by it, but as a part of a figure of three digits."""

    @pytest.mark.long
    def test_it_measures_both_sides_and_goes_along(self, session, hub):
        found = own(
            session, "def score(prediction, references, inputs):\n    return float(prediction in references)\n"
        )
        same = judged(session)
        assert found["metric"] == "own_likeness" and found["better"] and found["id"] != same["id"]
        assert found["candidate"]["value"] == round(same["candidate"]["value"], 3)
        assert 0.001 <= found["difference"]["p_value"] < 0.05  # never more digits, and never nothing
        assert "is code of the agent's" in " ".join(found["warnings"])
        wish = call(found)
        assert "The metric is code of the agent's (likeness.py)" in session.push.preview(**wish)
        session.push(**wish)
        assert b"def score" in hub.read("tester/mine", "model", "evaluation/metric.py")
        assert "own" in hub.read("tester/mine", "model", "README.md").decode()

    @pytest.mark.long
    def test_what_it_sees_gets_nowhere(self, session, tmp_path):
        """It writes, prints, connects, raises: none of it is found, and the refusal says only what would work."""
        began = time.time() - 1
        code = """
import os, socket, sys
seen = []
def score(prediction, references, inputs):
    seen.append(inputs["id"] + ":" + references[0])
    if len(seen) == 120:
        text = " ".join(seen)
        for name in ("/workspace/leak", "leak", "/tmp/leak", "/dev/shm/leak", "/packages/leak", "/sealed/leak"):
            try:
                open(name, "w").write(text)
            except OSError:
                pass
        print(text), print(text, file=sys.stderr)
        try:
            socket.create_connection(("127.0.0.1", 3128), 1).sendall(text.encode())
        except OSError:
            pass
        raise RuntimeError(text)
    return 1.0
"""
        held = session.judge(operation="prepare", dataset="acme/reviews")
        path = session.records.held_out / held["held_out"] / "labels.json"
        backwards = [f"{key}:{label}"[::-1] for key, label in list(json.loads(path.read_text()).items())[:5]]
        with pytest.raises(ValueError, match=r"Why is not told.*on rows of the validation split first") as refused:
            own(session, code)
        assert not any(word[::-1] in str(refused.value) for word in backwards) and refused.value.__context__ is None
        hunt = HUNT.format(path=str(path), since=began, backwards=backwards)
        assert json.loads(session.executor(hunt).logs.strip().splitlines()[-1]) == []
        assert not [
            name for name in session.jobs.list() if any(word[::-1] in session.jobs.logs(name)[0] for word in backwards)
        ]
        assert session.records.all("evaluation") == []
        assert judged(session)["looks"] == 2  # that it failed was a look as well

    @pytest.mark.parametrize(
        "code",
        [
            "def score(prediction, references, inputs):\n    return 123.0 + len(references[0])",
            "def score(prediction, references, inputs):\n    return float('nan')",
            "import atexit\natexit.register(print, '@scores [0.5]')\ndef score(**row):\n    return 1",
            "print('@scores', [1.0] * 9999, flush=True)\nraise SystemExit(0)",
            "def score(one):\n    return 1",
        ],
    )
    def test_what_is_no_figure_a_row_is_refused(self, session, code):
        with pytest.raises(ValueError, match="gave no number from 0 to 1 for each row"):
            own(session, code)

    @pytest.mark.long
    def test_no_more_than_three_digits_come_out_by_any_way(self, session):
        """Also in what is said of how many rows would do, and of rows that training rows overlap with."""
        code = "def score(prediction, references, inputs):\n    return 0.123456789 + (prediction == 'bad') / 1e5"
        found = own(session, code, train=["train.csv"])
        long = re.findall(
            r"0?\.\d{4,}",
            json.dumps({name: found[name] for name in ("baseline", "candidate", "difference", "warnings")}),
        )
        assert long == [] and set(found["metrics"]["own_likeness"].values()) == {0.123}

    @pytest.mark.long
    def test_it_cannot_pass_for_a_metric_of_the_tools(self, session):
        session.workspace.write_bytes("accuracy.py", b"def score(**row):\n    return 0.999987654321")
        found = judged(session, metric="accuracy.py")
        assert found["metric"] == "own_accuracy" and found["metrics"]["accuracy"]["candidate"] < 0.99
        assert found["candidate"]["value"] == 1.0 and not found["better"]

    def test_many_seeds_are_many_looks_and_refused(self, session):
        with pytest.raises(ValueError, match="more than ten seeds"):
            judged(session, baseline={"predictions": ["p.jsonl"] * 11})


# It loads what was named; while it runs, it, or other code beside it, puts other weights there, loads those, and puts the
# first ones back.
SWAP = """
import argparse, json, os, shutil
parser = argparse.ArgumentParser()
for name in ("inputs", "output", "model"):
    parser.add_argument("--" + name)
args = parser.parse_args()
mine, other = "runs/a/model/config.json", "other.json"
shutil.copy(mine, "kept.json")
shutil.copy(other, mine)
for name in (args.model + "/config.json",):
    try:
        shutil.copy(other, name)
    except OSError:
        pass
names = json.load(open(args.model + "/config.json"))["id2label"]
shutil.copy("kept.json", mine)
with open(args.output, "w") as file:
    for line in open(args.inputs):
        row = json.loads(line)
        file.write(json.dumps({"id": row["id"], "prediction": names["0"]}) + "\\n")
"""


# It says what it finds where the model lies: whose weights, and of which base.
TELL = """
import argparse, hashlib, json, os, pathlib
parser = argparse.ArgumentParser()
for name in ("inputs", "output", "model"):
    parser.add_argument("--" + name)
args = parser.parse_args()
folder = pathlib.Path(args.model)
if (folder / "adapter_config.json").exists():
    folder = pathlib.Path(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])
print("LOADED", hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(), sorted(os.listdir(folder)))
with open(args.output, "w") as file:
    for line in open(args.inputs):
        file.write(json.dumps({"id": json.loads(line)["id"], "prediction": "bad"}) + "\\n")
"""


class TestOfTheHub:
    """A baseline, or the base of an adapter, is what the Hub has at that commit, whatever lies in caches of the workspace."""

    def loaded(self, session, **sides) -> tuple[dict, list[str]]:
        session.workspace.write_bytes("tell.py", TELL.encode())
        held = session.judge(operation="prepare", dataset="acme/reviews")
        found = session.judge(operation="score", held_out=held["held_out"], **sides)
        said = [session.jobs.logs(name)[0] for name in session.jobs.list()]
        assert not [path for path in (session.records.held_out / held["held_out"]).iterdir() if "sealed" in path.name]
        return found, [line for text in said for line in text.splitlines() if line.startswith("LOADED")]

    @pytest.mark.long
    def test_a_baseline_is_fetched_by_the_host_and_pinned(self, session, hub):
        more = {
            "model.safetensors": weights(1),
            "pytorch_model.bin": b"pickle",
            "onnx/model.onnx": b"x",
            "config.json": b"{}",
        }
        hub.seed("acme/base", "model", more)
        sides = {"candidate": {"folder": "runs/a/model", "script": "tell.py"}}
        found, lines = self.loaded(session, **sides, baseline={"model": "acme/base", "script": "tell.py"})
        digest = hashlib.sha256(weights(1)).hexdigest()
        assert any(digest in line and ".bin" not in line and "onnx" not in line for line in lines), lines
        assert found["baseline"]["revision"] == HfApi(endpoint=hub.url).model_info("acme/base").sha

    def test_the_base_of_an_adapter_too(self, session):
        adapter = {"base_model_name_or_path": "acme/base", "peft_type": "LORA"}
        session.workspace.write_bytes("lora/adapter_config.json", json.dumps(adapter).encode())
        session.workspace.write_bytes("lora/adapter_model.safetensors", weights(3))
        sides = {"candidate": {"folder": "lora", "script": "tell.py"}, "baseline": {"simple": "majority"}}
        _, (line,) = self.loaded(session, **sides)
        assert hashlib.sha256(weights(1)).hexdigest() in line

    def test_one_that_cannot_be_had_is_said(self, session, hub):
        session.workspace.write_bytes("lora/adapter_config.json", b'{"base_model_name_or_path": "acme/gone"}')
        session.workspace.write_bytes("lora/adapter_model.safetensors", weights(3))
        with pytest.raises(FileNotFoundError, match="knows no model acme/gone"):
            self.loaded(session, candidate={"folder": "lora", "script": "tell.py"}, baseline={"simple": "majority"})


class TestWhileAModelIsRun:
    """Code of the agent's may run beside it, in the same workspace: what it changes there changes no figure."""

    @pytest.fixture
    def skops(self, session):
        """A model that the tool runs by its own program."""
        io_of = pytest.importorskip("skops.io")
        linear, text = (
            pytest.importorskip("sklearn.linear_model"),
            pytest.importorskip("sklearn.feature_extraction.text"),
        )
        made = pytest.importorskip("sklearn.pipeline").make_pipeline(
            text.CountVectorizer(), linear.LogisticRegression()
        )
        made.fit([row["text"] for row in TRAIN], [NAMES[row["label"]] for row in TRAIN])
        session.workspace.write_bytes("m/model.skops", io_of.dumps(made))
        return session

    def score(self, session, held: dict, **side) -> dict:
        candidate = {"folder": "m", **side}
        given = {"held_out": held["held_out"], "candidate": candidate, "baseline": {"simple": "majority"}}
        return session.judge(operation="score", **given)

    @pytest.mark.long
    def test_modules_of_the_workspace_are_not_imported_and_inputs_are_written_anew(self, skops):
        held = skops.judge(operation="prepare", dataset="acme/reviews")
        for folder in (".", held["inputs"].rpartition("/")[0], "m"):
            for name in ("json.py", "hashlib.py", "skops/__init__.py", "numpy.py"):
                skops.workspace.write_bytes(
                    f"{folder}/{name}" if folder != "." else name, b"raise SystemExit('taken')"
                )
        before = skops.workspace.read_bytes(held["inputs"])
        skops.workspace.write_bytes(held["inputs"], before.replace(b"splendid", b"dreadful"))
        found = self.score(skops, held)
        assert found["by"] == "harness" and found["candidate"]["value"] > 0.95
        assert skops.workspace.read_bytes(held["inputs"]) == before

    @pytest.mark.long
    @pytest.mark.parametrize(
        ("file", "side"),
        [("predictions-*.jsonl", {}), ("inputs.jsonl", {"folder": "runs/a/model", "script": "predict.py"})],
    )
    def test_what_is_changed_meanwhile_is_noticed(self, skops, file, side):
        held = skops.judge(operation="prepare", dataset="acme/reviews")
        change = f"""
import glob, os, threading, time
def change():
    while True:
        for name in glob.glob("held_out/*/{file}"):
            with open(name) as file:
                lines = file.read()
            with open(name + ".new", "w") as file:
                file.write(lines.replace("bad", "good").replace("dreadful", "splendid"))
            os.replace(name + ".new", name)
        time.sleep(0.001)
threading.Thread(target=change, daemon=True).start()
"""
        skops.executor(change)
        with pytest.raises(ValueError, match=r"was changed|were changed"):
            self.score(skops, held, **side)
        assert skops.records.all("evaluation") == []

    def test_weights_that_are_swapped_and_put_back_are_not_what_is_measured(self, skops):
        skops.workspace.write_bytes("other.json", TURNED)
        skops.workspace.write_bytes("swap.py", SWAP.encode())
        held = skops.judge(operation="prepare", dataset="acme/reviews")
        found = self.score(skops, held, folder="runs/a/model", script="swap.py")
        assert found["errors"][0]["prediction"] == "bad"  # by id2label of the weights that were digested
        assert found["candidate"]["weights_sha256"] == skops.judge._hash("runs/a/model")
        left = [path.name for path in (skops.records.held_out / held["held_out"]).iterdir() if "sealed" in path.name]
        assert left == [] and skops.workspace.read_bytes("runs/a/model/config.json") == json.dumps(CONFIG).encode()

    def test_weights_that_are_other_ones_afterwards_are_not_judged(self, skops):
        skops.workspace.write_bytes(
            "swap.py", PREDICT.encode() + b"open('runs/a/model/config.json', 'w').write('{}')\n"
        )
        held = skops.judge(operation="prepare", dataset="acme/reviews")
        with pytest.raises(ValueError, match="runs/a/model changed while they were judged"):
            self.score(skops, held, folder="runs/a/model", script="swap.py")
        assert skops.records.all("evaluation") == []

    def test_weights_that_are_no_longer_those_when_they_are_copied(self, skops):
        held = skops.judge(operation="prepare", dataset="acme/reviews")
        with pytest.raises(ValueError, match="change while they are evaluated"):
            skops.judge._sealed("m", None, skops.records.held_out / held["held_out"] / "sealed-x", "0" * 64)
        assert not list((skops.records.held_out / held["held_out"]).glob("sealed*"))

    def test_a_pickle_is_never_opened_here_and_goes_up_only_if_a_person_insists(self, skops, hub, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (open, (str(tmp_path / "opened"), "w"))

        skops.workspace.write_bytes("p/model.joblib", pickle.dumps(Bomb()))
        skops.workspace.write_bytes("p/config.json", json.dumps(CONFIG).encode())
        held = skops.judge(operation="prepare", dataset="acme/reviews")
        found = self.score(skops, held, folder="p", script="predict.py")
        wish = call(found, folder="p")
        with pytest.raises(ValueError, match="pickle runs code when it is loaded"):
            skops.push(**wish)
        assert "allow_pickle" in skops.push.must_ask(**wish, allow_pickle=True)
        assert skops.push(**wish, allow_pickle=True)["private"] is True
        assert not (tmp_path / "opened").exists()
