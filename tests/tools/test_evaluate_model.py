"""Judging a model: labels that stay on the host, figures that hold, faults that are found before anything is published."""

import csv
import io
import json
import random
import re
import struct
import threading
import unicodedata
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pyarrow as arrow
import pytest
from huggingface_hub import HfApi
from ml_intern.tools import EvaluateModelTool
from pyarrow import parquet
from saving import assert_survives_saving

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
WORDS = """river stone market winter garden letter bridge window morning silver engine paper orchard captain candle harbour
mirror forest pencil ladder island thunder blanket copper meadow journal pepper velvet anchor lantern marble canyon"""
WORDS = re.split(r"\s", WORDS)


def review(number: int, generator: random.Random) -> dict:
    label = generator.randrange(2)
    said = " ".join(generator.choices(WORDS, k=18))
    return {"text": f"{said}, {('dreadful', 'splendid')[label]} {number}", "label": label}


def reviews(count: int, seed: int = 0) -> list[dict]:
    generator = random.Random(seed)
    return [review(number, generator) for number in range(count)]


def table(rows: list[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def tool(workspace, tmp_path):
    return EvaluateModelTool(workspace, labels=str(tmp_path / "host"), plots=False)


@pytest.fixture
def seeded(hub):
    test, train = reviews(120), reviews(300, seed=1)
    files = {"README.md": CARD.encode(), "train.csv": table(train), "test.csv": table(test)}
    hub.seed("acme/reviews", "dataset", files)
    return test


def here(tool, data, **options):
    """Holds rows of a file of the workspace out."""
    tool.workspace.write_bytes("test.jsonl", lines(data))
    return tool(operation="prepare", dataset="test.jsonl", **options)


def inputs(tool, held):
    return [json.loads(line) for line in tool.workspace.read_bytes(held["inputs"]).splitlines()]


def labels(tool, held):
    return json.loads((tool._place() / held["held_out"] / "labels.json").read_text())


def answer(tool, held, name, make):
    """Predictions of the rows, as `make` makes them of the true label and the row."""
    known = labels(tool, held)
    rows = [{"id": row["id"], "prediction": make(known[row["id"]], row)} for row in inputs(tool, held)]
    tool.workspace.write_bytes(name, lines(rows))
    return {"predictions": name}


def right(share, seed):
    """Answers of which so many are right."""
    made = random.Random(seed)
    return lambda truth, row: truth if made.random() < share else str(1 - int(truth))


def score(tool, held, candidate, baseline=None, **options):
    baseline = baseline or {"simple": "majority"}
    return tool(operation="score", held_out=held["held_out"], candidate=candidate, baseline=baseline, **options)


class TestHoldingOut:
    def test_what_comes_into_the_workspace_says_nothing_of_the_labels(self, tool, seeded):
        held = tool(operation="prepare", dataset="acme/reviews")
        shown = inputs(tool, held)
        assert (held["n"], held["of"], held["columns"], held["labels"]) == (120, 120, ["text"], ["bad", "good"])
        assert all(set(row) == {"id", "text"} for row in shown)
        truth = {row["text"]: ("bad", "good")[row["label"]] for row in seeded}
        known = labels(tool, held)
        assert {row["id"]: truth[row["text"]] for row in shown} == known
        # Neither the order of the rows nor their ids tell where they stand in the data.
        assert [row["text"] for row in shown] != [row["text"] for row in seeded]
        assert [row["id"] for row in shown] == sorted(row["id"] for row in shown)
        names = tool.workspace.walk()
        assert names == [held["inputs"]]
        assert "public" in held["secrecy"] and "fetch it again" in held["secrecy"]
        assert len(held["revision"]) == 40

    def test_the_same_rows_are_held_out_again_under_the_same_ids(self, tool, seeded):
        first = tool(operation="prepare", dataset="acme/reviews")
        shown = inputs(tool, first)
        assert tool(operation="prepare", dataset="acme/reviews") == first
        assert inputs(tool, first) == shown
        other = tool(operation="prepare", dataset="acme/reviews", rows=50)
        assert other["n"] == 50 and other["held_out"] != first["held_out"]
        assert not {row["id"] for row in inputs(tool, other)} & {row["id"] for row in shown}

    def test_who_can_know_the_labels_is_said(self, tool, seeded, hub):
        held = here(tool, reviews(20))
        assert "code there has seen them" in held["secrecy"]
        tool.workspace.write_bytes("data/reviews/test.csv", table(seeded))
        assert "data/reviews/test.csv" in tool(operation="prepare", dataset="acme/reviews")["secrecy"]
        hub.seed("tester/mine", "dataset", {"test.csv": table(seeded)}, private=True)
        tool.workspace.write_bytes("data/reviews/test.csv", b"")
        assert "private" in tool(operation="prepare", dataset="tester/mine")["secrecy"]

    @pytest.mark.parametrize("task", ["language-modeling", "generation"])
    def test_labels_that_were_written_out_by_another_way_to_hold_out(self, tool, seeded, task):
        held = tool(operation="prepare", dataset="acme/reviews")
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        assert "stay on the host" in score(tool, held, right)["secrecy"]
        other = tool(operation="prepare", dataset="acme/reviews", task=task, label="text")
        assert "label" in other["columns"]
        assert f"({other['held_out']}): code has seen them" in score(tool, held, right)["secrecy"]

    def test_a_column_that_gives_the_label_away_is_left_out(self, tool):
        rows = [
            {**row, "label_text": ("bad", "good")[row["label"]], "stars": row["label"] * 4 + 1} for row in reviews(60)
        ]
        held = here(tool, rows)
        assert held["columns"] == ["text"] and sorted(held["left_out"]) == ["label_text", "stars"]
        asked = here(tool, rows, columns=["text", "stars"])  # by name
        assert asked["columns"] == ["text", "stars"] and "hold stars, which gives the label away" in asked["secrecy"]

    def test_an_id_of_the_data_takes_no_place_of_ours(self, tool):
        rows = [{"id": str(number % 3), "question": f"q{number}", "answers": [f"a{number}"]} for number in range(30)]
        held = here(tool, rows, task="generation", label="answers")
        shown = inputs(tool, held)
        assert held["columns"] == ["question"] and {row["id"] for row in shown} == set(labels(tool, held))
        found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: truth[0]), {"simple": "copy"})
        assert found["candidate"]["value"] == 1.0 and found["n"] == 30

    def test_a_file_that_breaks_off_is_named(self, tool, seeded, hub):
        hub.fail("/resolve/", drop=3, times=None)
        with pytest.raises(ConnectionError, match=r"broke off, at \S+ of dataset acme/reviews"):
            tool(operation="prepare", dataset="acme/reviews")

    def test_parquet_where_there_is_no_viewer(self, tool, hub, monkeypatch):
        features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
        known = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        written = io.BytesIO()
        parquet.write_table(arrow.Table.from_pylist(reviews(40)).replace_schema_metadata(known), written)
        hub.seed("acme/columns", "dataset", {"test.parquet": written.getvalue()})
        monkeypatch.delenv("HF_DATASETS_SERVER")
        held = tool(operation="prepare", dataset="acme/columns")
        assert (held["n"], held["labels"], held["columns"]) == (40, ["bad", "good"], ["text"])

    def test_a_question_without_an_answer(self, tool):
        rows = [{"question": f"q{n}", "answers": {"text": [f"word {n}"] if n % 2 else []}} for n in range(40)]
        held = here(tool, rows, task="generation", label="answers")
        silent = answer(tool, held, "p.jsonl", lambda truth, row: truth[0])
        assert set(map(len, labels(tool, held).values())) == {1}
        found = score(tool, held, silent, answer(tool, held, "q.jsonl", lambda truth, row: "word"))
        assert found["metrics"]["exact_match"] == {"candidate": 1.0, "baseline": 0.0}

    def test_a_name_of_a_class_that_is_another_ones_number(self, tool):
        assert [tool._label(one, ["1", "2", "3"]) for one in ("1", "3", 0, "LABEL_0")] == ["1", "3", "1", "1"]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"label": "sentiment"}, "has no column 'sentiment'. Columns: text, label"),
            ({"task": "parsing"}, "`task` is one of classification"),
            ({"rows": -1}, "`rows` is 1 to 20,000"),
            ({"task": "generation"}, "Which column is to be predicted"),
        ],
    )
    def test_what_cannot_be_held_out(self, tool, options, said):
        with pytest.raises(ValueError, match=said):
            here(tool, reviews(20), **options)

    def test_hidden_labels_are_none(self, tool):
        with pytest.raises(ValueError, match="hidden or missing"):
            here(tool, [{**row, "label": -1} for row in reviews(20)])

    def test_a_split_that_is_not_there_or_empty(self, tool, seeded, hub):
        with pytest.raises((ValueError, OSError), match="validation"):
            tool(operation="prepare", dataset="acme/reviews", split="validation")
        hub.seed("acme/empty", "dataset", {"test.csv": b"text,label\n"})
        with pytest.raises(ValueError, match="holds no rows"):
            tool(operation="prepare", dataset="acme/empty")

    def test_rows_of_the_viewer(self, tool, seeded):
        found = tool._viewed("acme/reviews", None, "test", 1000)
        assert len(found["rows"]) == 120 and {row["text"] for row in found["rows"]} == {row["text"] for row in seeded}
        with pytest.raises(ValueError, match="no config 'default' with a split 'dev'"):
            tool._viewed("acme/reviews", None, "dev", 10)

    def test_pictures_come_as_files_and_their_labels_do_not(self, tool, hub):
        hub.seed("acme/pictures", "dataset", {f"{n}.png": b"\x89PNG" + bytes([n]) for n in range(4)})
        rows = [
            {"image": {"src": f"{hub.url}/datasets/acme/pictures/resolve/main/{n}.png", "height": 2}, "label": n % 2}
            for n in range(4)
        ]
        held = here(tool, rows)
        paths = {row["image"] for row in inputs(tool, held)}
        assert {tool.workspace.read_bytes(path) for path in paths} == {b"\x89PNG" + bytes([n]) for n in range(4)}
        tool.workspace.write_bytes("train.jsonl", lines(rows))
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        found = score(tool, held, right, train=["train.jsonl"])
        assert found["contamination"]["checked"] is False and "are files here" in found["contamination"]["why"]
        with pytest.raises(ConnectionError, match="cannot be had"):
            here(tool, [{**rows[0], "image": {"src": f"{hub.url}/datasets/acme/pictures/resolve/main/none.png"}}] * 3)

    PICTURES = {  # name of a file to what it holds
        f"{split}/{kind}/{kind}.{number}.png": b"\x89PNG" + f"{kind} {number} {split}".encode()
        for split, count in (("train", 12), ("test", 8))
        for kind in ("cat", "dog")
        for number in range(count)
    }

    @pytest.mark.parametrize("where", ["workspace", "hub"])
    def test_a_folder_of_pictures(self, tool, hub, monkeypatch, where):
        """Classes by the names of folders, and none of these names where code sees them."""
        if where == "hub":
            hub.seed("acme/animals", "dataset", {"README.md": b"# Animals", **self.PICTURES})
            monkeypatch.delenv("HF_DATASETS_SERVER")
        else:
            for name, content in self.PICTURES.items():
                tool.workspace.write_bytes(f"acme/animals/{name}", content)
        held = tool(operation="prepare", dataset="acme/animals")
        assert (held["n"], held["columns"], held["labels"]) == (16, ["image"], ["cat", "dog"])
        text = tool.workspace.read_bytes(held["inputs"]).decode()
        assert "cat" not in text and "dog" not in text
        known = labels(tool, held)
        for row in inputs(tool, held):
            assert tool.workspace.read_bytes(row["image"]).decode("latin-1")[4:7] == known[row["id"]]
        written = sorted(inputs(tool, held), key=lambda row: (tool.workspace.root / row["image"]).stat().st_mtime_ns)
        assert (
            len({known[row["id"]] for row in written[:8]}) == 2
        )  # nor does the order in which they were written tell

    def test_pictures_of_the_test_rows_in_the_training_rows(self, tool):
        for name, content in self.PICTURES.items():
            tool.workspace.write_bytes(f"animals/{name}", content)
        held = tool(operation="prepare", dataset="animals")
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        clean = score(tool, held, right, train=["animals:train"])
        assert clean["contamination"]["rows"] == 0 and "byte by byte" in " ".join(clean["warnings"])
        tool.workspace.write_bytes("animals/train/dog/copy.png", self.PICTURES["test/dog/dog.3.png"])
        found = score(tool, held, right, train=["animals:train"])
        assert (
            found["contamination"]["exact"] == 1
            and "1 of 16 held-out rows are in the training" in found["problems"][0]
        )

    def test_a_class_that_is_called_as_a_split(self, tool):
        for kind in ("train", "bus"):
            for number in range(3):
                tool.workspace.write_bytes(f"traffic/test/{kind}/{number}.jpg", b"\xff\xd8" + bytes([number]))
        assert tool(operation="prepare", dataset="traffic")["labels"] == ["bus", "train"]

    def test_a_column_of_paths(self, tool):
        rows = [{"file": name, "label": name.split("/")[1]} for name in self.PICTURES if name.startswith("test")]
        away = here(tool, [{**row, "size": number} for number, row in enumerate(rows)])
        assert away["columns"] == ["size"] and list(away["left_out"]) == ["file"]  # its paths say what they show
        for name, content in self.PICTURES.items():
            tool.workspace.write_bytes(name, content)
        held = here(tool, rows)
        assert held["columns"] == ["file"] and held["labels"] == ["cat", "dog"]
        shown = {row["file"] for row in inputs(tool, held)}
        assert len(shown) == 16 and not [name for name in shown if "cat" in name or "dog" in name]

    def test_a_row_that_names_a_file_of_another_ones(self, tool, hub):
        hub.seed("tester/mine", "dataset", {"notes.txt": b"for nobody"}, private=True)
        for number, path in enumerate(("../../../tester/mine/resolve/main/notes.txt", "/etc/passwd", "notes.txt")):
            rows = lines([{"image": {"@file": path}, "label": n % 2} for n in range(4)])
            hub.seed(f"acme/bad{number}", "dataset", {"test.jsonl": rows})
            with pytest.raises(ValueError, match="has no file"):
                tool(operation="prepare", dataset=f"acme/bad{number}")
            with pytest.raises((ValueError, OSError)):
                here(tool, [{"image": {"@file": path}, "label": n % 2} for n in range(4)])
        named = [{"file": "../../../../etc/passwd.png", "label": n % 2, "text": f"t{n}"} for n in range(4)]
        assert "pictures" not in str(inputs(tool, here(tool, named)))

    def test_recordings(self, tool):
        sound = b"RIFF\0\0\0\0WAVEfmt "
        for number in range(6):
            tool.workspace.write_bytes(
                f"set/test/{'yes' if number % 2 else 'no'}/{number}.wav", sound + bytes([number])
            )
        held = tool(operation="prepare", dataset="set")
        assert held["columns"] == ["audio"] and held["labels"] == ["no", "yes"]
        assert all(row["audio"].endswith(".wav") for row in inputs(tool, held))

    def test_a_file_that_says_something_else_by_now_is_another_one(self, tool):
        first = here(tool, reviews(30))
        assert here(tool, reviews(30))["held_out"] == first["held_out"]
        assert here(tool, reviews(30, seed=5))["held_out"] != first["held_out"]

    def test_nobody_is_asked_for_a_picture_but_the_hub_and_its_viewer(self, tool, hub):
        asked = []

        class Listener(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            there = f"127.0.0.1:{server.server_port}"
            trusted = hub.url.removeprefix("http://")
            for source in (f"http://{there}/a?x=1", f"http://{trusted}@{there}/a", "bonjour", "http://[", 7):
                rows = [{"image": {"src": source, "tgt": "hello"}, "label": number % 2} for number in range(6)]
                held = here(tool, rows)
                assert {row["image"]["src"] for row in inputs(tool, held)} == {source}
            server.shutdown()
        assert asked == []

    def test_without_a_place_for_labels(self, workspace):
        with pytest.raises(RuntimeError, match="no place for labels"):
            EvaluateModelTool(workspace)(operation="prepare", dataset="a/b")
        with pytest.raises(ValueError, match="Nothing is held out as"):
            EvaluateModelTool(workspace, labels="/nowhere")(
                operation="score", held_out="held_../../etc", candidate={}, baseline={}
            )


class TestScoring:
    def test_a_candidate_beside_a_baseline(self, tool):
        held = here(tool, reviews(200))
        good = answer(tool, held, "good.jsonl", right(0.9, 3))
        found = score(tool, held, good)
        assert found["metric"] == "accuracy" and found["better"] and found["difference"]["p_value"] < 1e-6
        low, high = found["candidate"]["interval"]
        assert low < found["candidate"]["value"] < high and "Clopper-Pearson" in found["candidate"]["method"]
        assert found["baseline"]["name"] == "majority" and 0.5 <= found["baseline"]["value"] < 0.65
        assert (
            set(found["per_class"]) == {"0", "1"}
            and found["per_class"]["0"]["n"] + found["per_class"]["1"]["n"] == 200
        )
        assert found["by"] == "predictions" and "nobody saw which weights" in " ".join(found["warnings"])
        again = score(tool, held, good)
        assert again == found  # the same figures, to the last digit, and no second look
        assert set(found["metrics"]) == {"accuracy", "macro_f1", "mcc"} and found["problems"] == []

    def test_a_folder_of_several_models_is_none(self, tool):
        held = here(tool, reviews(20))
        for name in "ab":
            tool.workspace.write_bytes(f"runs/{name}/model/model.skops", name.encode())
        tool.jobs = object()  # never asked
        with pytest.raises(
            ValueError, match=r"lie in folders below it \(a/model, b/model\). Name the folder of one model"
        ):
            score(tool, held, {"folder": "runs"})

    def test_equal_models_are_not_better(self, tool):
        held = here(tool, reviews(100))
        one, other = (answer(tool, held, f"{seed}.jsonl", right(0.8, seed)) for seed in (1, 2))
        found = score(tool, held, one, other)
        assert not found["better"] and found["difference"]["p_value"] > 0.05
        low, high = found["difference"]["interval"]
        assert low <= 0 <= high
        if found["difference"]["value"]:
            assert "too few to tell" in " ".join(found["warnings"])

    def test_seeds_are_told_beside_the_first(self, tool):
        held = here(tool, reviews(100))
        names = []
        for seed in range(3):
            answer(tool, held, f"{seed}.jsonl", right(0.8, seed))
            names.append(f"{seed}.jsonl")
        side = score(tool, held, {"predictions": names})["candidate"]
        assert side["seeds"]["n"] == 3 and side["seeds"]["values"][0] == side["value"]
        assert min(side["seeds"]["values"]) <= side["seeds"]["mean"] <= max(side["seeds"]["values"])

    def test_a_leak_is_found_under_another_name(self, tool):
        rows = [{**row, "source": "ab"[place % 2]} for place, row in enumerate(reviews(100))]
        held = here(tool, rows)
        other = [{"sentence": row["text"], "source": row["source"]} for row in rows]
        tool.workspace.write_bytes("train.jsonl", lines(other))
        found = score(tool, held, answer(tool, held, "p.jsonl", right(0.9, 1)), train=["train.jsonl"])
        assert found["contamination"]["checked"] and found["contamination"]["rows"] > 90 and found["problems"]

    def test_which_seed_stands_first_does_not_decide(self, tool):
        held = here(tool, reviews(200))
        shares = {"lucky": 0.95, "poor": 0.55, "poorer": 0.5, "base": 0.8}
        for number, (name, share) in enumerate(shares.items()):
            answer(tool, held, f"{name}.jsonl", right(share, number))
        found = score(
            tool, held, {"predictions": ["lucky.jsonl", "poor.jsonl", "poorer.jsonl"]}, {"predictions": "base.jsonl"}
        )
        said = " ".join(found["warnings"])
        assert found["difference"]["value"] > 0 and found["difference"]["p_value"] < 0.05 and not found["better"]
        assert "is the best of its 3" in said and "In the mean of the seeds the candidate is not better" in said
        found = score(tool, held, {"predictions": "base.jsonl"}, {"predictions": ["poorer.jsonl", "poor.jsonl"]})
        assert found["better"] and "The baseline's first seed, which is compared, is the worst of its 2" in " ".join(
            found["warnings"]
        )

    def test_looks_are_counted(self, tool):
        held = here(tool, reviews(60))
        for number in range(5):
            found = score(tool, held, answer(tool, held, "p.jsonl", right(0.5 + number / 10, number)))
        assert found["looks"] == 5 and "candidate number 5 on these rows" in " ".join(found["warnings"])

    @pytest.mark.long
    def test_never_more_than_twenty_labels_are_shown(self, tool):
        held = here(tool, reviews(200))
        seen = {}
        for number in range(12):
            bad = answer(tool, held, "p.jsonl", right(0.5, number))
            found = score(tool, held, bad)
            seen.update({error["id"]: error["truth"] for error in found["errors"]})
            assert len(found["errors"]) <= 5 and found["labels_shown"] == len(seen) <= 20
        known = labels(tool, held)
        assert {key: known[key] for key in seen} == seen

    def test_another_choice_of_rows_is_no_new_test(self, tool, seeded):
        told = 0
        for number in range(8):
            held = tool(operation="prepare", dataset="acme/reviews", rows=120 - number)
            bad = answer(tool, held, "p.jsonl", lambda truth, row: "bad" if truth == "good" else "good")
            found = score(tool, held, bad)
            told += len(found["errors"])
            assert found["looks"] == number + 1 and found["labels_shown"] == told <= 20
        assert told == 20 and "candidate number 8 on these rows" in " ".join(found["warnings"])

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda rows: rows[1:], "1 of 30 rows are missing, 0 ids are none"),
            (lambda rows: [*rows, {"id": "x", "prediction": "0"}], "0 of 30 rows are missing, 1 ids are none"),
            (lambda rows: [*rows, rows[0]], "has 1 ids more than once"),
            (lambda rows: [{"id": row["id"]} for row in rows], "have no `prediction` \\(30 in all\\)"),
            (lambda rows: [{"prediction": "0"}], "p.jsonl, line 1: not like"),
            (
                lambda rows: [{**row, "prediction": "positive"} for row in rows],
                "predicts other labels than the data has",
            ),
        ],
    )
    def test_predictions_of_other_rows_or_labels_are_refused(self, tool, spoil, said):
        held = here(tool, reviews(30))
        rows = [{"id": row["id"], "prediction": "0"} for row in inputs(tool, held)]
        tool.workspace.write_bytes("p.jsonl", lines(spoil(rows)))
        with pytest.raises(ValueError, match=said):
            score(tool, held, {"predictions": "p.jsonl"})

    @pytest.mark.long
    def test_plots_are_pictures_on_both_sides(self, tool):
        pytest.importorskip("matplotlib")
        tool.plots = True
        held = here(tool, reviews(60))
        found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: truth))
        assert [name.split("/")[-1] for name in found["plots"]] == ["comparison.png", "confusion.png"]
        for name in found["plots"]:
            inside = tool.workspace.read_bytes(name)
            assert (
                inside.startswith(b"\x89PNG")
                and (tool._place() / name.removeprefix("held_out/")).read_bytes() == inside
            )

    @pytest.mark.parametrize(
        "labels",
        [
            ["bad", "good"],
            [str(number) for number in range(10)],
            [f"category number {number} of the set" for number in range(40)],
            [f"{' '.join(WORDS[:3])} / {word} and all that belongs to {word}" for word in WORDS[:12]],
            ["体育", "अर्थव्यवस्था", "رياضة", "เศรษฐกิจ", "$\\frac{1$", "日本語のとても長いラベル名前です"],
        ],
    )
    def test_names_on_a_picture_do_not_lie_on_each_other(self, tool, labels):
        figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(6, 5), layout="constrained")
        side = max(5.0, 2.4 + 0.24 * len(labels))
        figure.set_size_inches(side + 0.6, side)
        axes = figure.add_subplot()
        tool._draw_confusion(axes, labels, labels[::-1], labels)
        boxes = self.drawn(figure, axes)
        texts = [label.get_text() for label in axes.get_yticklabels()]
        assert len(set(texts)) == len(labels) and max(map(len, texts)) <= 24
        assert not [pair for pair in pairwise(boxes) if self.cover(*pair)]

    @staticmethod
    def drawn(figure, axes):
        backend = pytest.importorskip("matplotlib.backends.backend_agg")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a sign that no font has
            backend.FigureCanvasAgg(figure).draw()
        return [one.get_window_extent() for one in [*axes.get_xticklabels(), *axes.get_yticklabels()]]

    @staticmethod
    def cover(one, other):
        return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1

    def test_long_names_of_models_stand_beside_each_other(self, tool):
        side = {"name": "runs/a-name-that-goes-on-and-on-without-an-end/predictions.jsonl", "value": 0.5}
        side |= {"interval": [0.4, 0.6], "seeds": {"values": [0.5, 0.55]}}
        result = {"baseline": side, "candidate": side, "metric": "accuracy", "higher_is_better": True, "n": 9}
        result |= {"dataset": {"id": "o" * 90, "split": "test"}, "difference": {"p_value": 0.1}}
        figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        tool._draw_comparison(axes, result)
        first, second, *_ = self.drawn(figure, axes)
        assert not self.cover(first, second)
        title = axes.title.get_window_extent()
        assert title.x0 >= 0 and title.x1 <= figure.bbox.x1

    def test_labels_stand_in_the_order_of_their_numbers(self, tool):
        truths = [f"class {n % 12}" for n in range(60)]
        assert list(tool._per_class("classification", truths, truths)) == [f"class {n}" for n in range(12)]

    @pytest.mark.parametrize(
        "scores", [{"0": 1.0, "1": 1.0}, {"0": float("nan"), "1": 0.5}, {"0": -0.5, "1": 1.5}, {"0": 7, "1": -3}]
    )
    def test_scores_that_are_no_probabilities_give_no_log_loss(self, tool, scores):
        held = here(tool, reviews(60))
        rows = [{"id": key, "prediction": truth, "scores": scores} for key, truth in labels(tool, held).items()]
        tool.workspace.write_bytes("p.jsonl", lines(rows))
        found = score(tool, held, {"predictions": "p.jsonl"})
        assert "log_loss" not in found["metrics"] and "calibration_error" not in found["metrics"]
        assert "`scores` are no probabilities" in " ".join(found["warnings"])

    def test_scores_give_log_loss_and_calibration(self, tool):
        held = here(tool, reviews(80))
        known = labels(tool, held)
        rows = [
            {"id": key, "prediction": truth, "scores": {truth: 0.8, str(1 - int(truth)): 0.2}}
            for key, truth in known.items()
        ]
        tool.workspace.write_bytes("p.jsonl", lines(rows))
        found = score(tool, held, {"predictions": "p.jsonl"}, {"predictions": "p.jsonl"})["metrics"]
        assert found["log_loss"]["candidate"] == pytest.approx(0.2231, abs=1e-4)
        assert found["calibration_error"]["candidate"] == pytest.approx(0.2)


class TestOtherTasks:
    def test_regression(self, tool):
        made = random.Random(0)
        rows = [
            {"a": x, "b": made.random(), "y": 3 * x + made.gauss(0, 0.1)} for x in (made.random() for _ in range(100))
        ]
        held = here(tool, rows, task="regression")
        good = answer(tool, held, "p.jsonl", lambda truth, row: 3 * row["a"])
        found = score(tool, held, good, {"simple": "mean"})
        assert found["metric"] == "mae" and not found["higher_is_better"] and found["better"]
        assert found["metrics"]["r2"]["candidate"] > 0.95 and found["metrics"]["r2"]["baseline"] == pytest.approx(0)
        assert "bootstrap" in found["candidate"]["method"]
        worse = score(tool, held, answer(tool, held, "q.jsonl", lambda truth, row: 9.0), {"simple": "median"})
        assert not worse["better"] and "predicts the same for every row" in " ".join(worse["problems"])

    def test_tags_of_tokens(self, tool):
        tags = [["O", "B-PER", "I-PER", "O"], ["B-LOC", "O", "O", "O"]] * 20
        rows = [{"tokens": ["w"] * 4, "ner_tags": one} for one in tags]
        held = here(tool, rows, task="token-classification")
        found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: truth))
        assert (found["metric"], found["candidate"]["value"], found["baseline"]["value"]) == ("f1", 1.0, 0.0)
        assert found["better"] and set(found["per_class"]) == {"PER", "LOC"}

    def test_tags_that_are_no_entities(self, tool):
        held = here(tool, [{"tokens": ["w"] * 2, "tags": ["NOUN", "VERB"]}] * 30, task="token-classification")
        found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: truth))
        assert (found["metric"], found["candidate"]["value"]) == ("token_accuracy", 1.0)

    def test_texts_with_several_references(self, tool):
        rows = [{"question": f"q{n}", "answers": {"text": [f"the answer {n}", f"number {n}"]}} for n in range(40)]
        held = here(tool, rows, task="generation", label="answers")
        right = answer(tool, held, "p.jsonl", lambda truth, row: f"Answer {row['question'][1:]}.")
        found = score(tool, held, right, {"simple": "copy"}, metric="exact_match")
        assert found["candidate"]["value"] == 1.0 and found["baseline"]["value"] == 0.0 and found["better"]
        assert {"token_f1", "rouge_l", "chrf", "bleu"} <= set(found["metrics"])

    def test_rankings(self, tool):
        rows = [{"query": f"where is {n}?", "positive": f"{n} is here"} for n in range(40)]
        held = here(tool, rows, task="retrieval")
        documents = [json.loads(one) for one in tool.workspace.read_bytes(held["documents"]).splitlines()]
        assert {one["text"] for one in documents} == {row["positive"] for row in rows}
        by_text = {one["text"]: one["id"] for one in documents}
        everything = [one["id"] for one in documents]

        def second(truth, row):
            mine = by_text[row["query"].removeprefix("where is ").removesuffix("?") + " is here"]
            return [next(one for one in everything if one != mine), mine, *everything]

        found = score(
            tool, held, answer(tool, held, "p.jsonl", second), answer(tool, held, "q.jsonl", lambda t, r: everything)
        )
        values = {name: one["candidate"] for name, one in found["metrics"].items()}
        assert values["mrr"] == 0.5 and values["recall@1"] == 0 and values["recall@5"] == 1
        assert values["ndcg@10"] == pytest.approx(0.63093, abs=1e-5) and found["better"]

    def test_likelihoods(self, tool):
        rows = [{"text": "abcdefgh" * 4} for _ in range(30)]
        held = here(tool, rows, task="language-modeling")
        for name, nll in (("p", 16.0), ("q", 24.0)):
            made = [
                {"id": row["id"], "prediction": "", "nll": nll, "tokens": 8, "characters": 32}
                for row in inputs(tool, held)
            ]
            tool.workspace.write_bytes(f"{name}.jsonl", lines(made))
        found = score(tool, held, {"predictions": "p.jsonl"}, {"predictions": "q.jsonl"})
        assert found["metrics"]["perplexity"]["candidate"] == pytest.approx(7.389056)
        assert found["candidate"]["value"] == pytest.approx(0.7213475) and found["better"]
        made[0]["characters"] = 9_999
        tool.workspace.write_bytes("q.jsonl", lines(made))
        with pytest.raises(ValueError, match="more `characters` than the rows have"):
            score(tool, held, {"predictions": "q.jsonl"}, {"predictions": "p.jsonl"})


QUIZ = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices.text}}",
    "doc_to_target": "{{choices.label.index(answerKey)}}",
    "metric_list": [{"metric": "acc_norm"}],
}


SIZES = ["ab", "abcd", "abcdef", "a" * 20]


def quiz(count: int) -> list[dict]:
    made, rows = random.Random(4), []
    for number in range(count):
        texts = made.sample(WORDS, 4)
        rows.append({"question": f"What comes after {number}?", "choices": {"text": texts, "label": list("ABCD")},
                     "answerKey": made.choice("ABCD"), "note": "for teachers"})  # fmt: skip
    return rows


class TestTasksOfLmEvaluation:
    """What must never happen: a prompt shows what is to be predicted, or a template is a way to ask for one label."""

    def test_several_choices(self, tool):
        rows = [
            {**row, "choices": {**row["choices"], "text": random.Random(n).sample(SIZES, 4)}}
            for n, row in enumerate(quiz(60))
        ]
        held = here(tool, rows, lm_task=QUIZ)
        asked = inputs(tool, held)
        assert held["columns"] == ["question", "choices"] and held["labels"] is None
        assert all(one["lm_prompt"] == f"Question: {one['question']}\nAnswer: " for one in asked)
        assert all(one["lm_choices"] == one["choices"]["text"] for one in asked)
        assert "answerKey" not in str(asked) and "teachers" not in str(asked)
        known, made = labels(tool, held), []
        for row in asked:
            gold = known[row["id"]][0]
            short = row["lm_choices"].index(
                "ab"
            )  # is a little likelier than the right one, and far less so by the character
            told = [{gold: -5.0, short: -4.0}.get(number, -90.0) for number in range(4)]
            made.append({"id": row["id"], "prediction": told.index(max(told)), "logprobs": told})
        tool.workspace.write_bytes("p.jsonl", lines(made))
        found = score(tool, held, {"predictions": "p.jsonl"})
        values = {name: one["candidate"] for name, one in found["metrics"].items()}
        shortest = sum(truth[1 + truth[0]] == "ab" for truth in known.values()) / 60
        assert (found["metric"], found["pipeline_tag"]) == ("acc_norm", "text-generation") and found["better"]
        assert values == {"acc": round(shortest, 6), "acc_norm": 1.0} and 0.1 < shortest < 0.5

    def test_what_is_generated(self, tool):
        rows = [{"question": f"{n} and one?", "answer": f" {n + 1} "} for n in range(40)]
        task = {"doc_to_text": "Q: {{question}}\nA:", "doc_to_target": "{{answer.strip()}}", "description": "Add.\n"}
        task |= {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 8}, "metric_list": [{"metric": "exact_match"}]}
        held = here(tool, rows, lm_task=task)
        assert inputs(tool, held)[0]["lm_prompt"].startswith("Add.\nQ: ")
        found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: truth[0]), {"simple": "copy"})
        assert (found["metric"], found["candidate"]["value"], found["task"]) == ("exact_match", 1.0, "generation")

    @pytest.mark.parametrize(
        ("value", "gold"),
        [(0, 0), (True, 1), ("0", 1), (" 1", 0), ("2", 2), (-1, None), (3, None), ("x", None), (None, None)],
    )
    def test_a_number_is_that_of_a_choice_and_a_text_is_one(self, tool, value, gold):
        found = tool._right(
            tool._template("right", ["right"], "doc_to_target")["fill"], {"right": value}, ["1", "0", "no"]
        )
        assert found == (None if gold is None else [gold, "1", "0", "no"])

    def test_from_the_hub_by_what_the_task_says(self, tool, seeded):
        task = {"dataset_path": "acme/reviews", "test_split": "test", "output_type": "multiple_choice"}
        task |= {"doc_to_text": "text", "doc_to_choice": ["bad", "good"], "doc_to_target": "label"}
        held = tool(operation="prepare", lm_task=task)
        assert held["n"] == 120 and held["columns"] == ["text"]
        found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: truth[0]))
        assert found["metric"] == "acc" and found["better"] and found["errors"] == []

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"doc_to_text": "{{question}} {{answerKey}}"}, "reads answerKey, and nothing of that is held back"),
            ({"doc_to_target": "{{choices.label[0]}}"}, "nothing of that is held back"),
            ({"doc_to_target": 3}, "reads no column, and nothing of that is held back"),
            ({"doc_to_choice": "{{[answerKey, 'B']}}"}, "nothing of that is held back"),
            ({"doc_to_target": "{{0 if answerKey == 'A' else 9}}"}, "doc_to_target uses CondExpr"),
            ({"doc_to_target": "{% for x in [1] %}{{answerKey}}{% endfor %}"}, "doc_to_target uses For"),
            ({"doc_to_text": "{{question * 99999999999}}"}, "uses Mul"),
            ({"doc_to_text": "{% for x in choices.text %}{{x}}{% endfor %}"}, "uses For"),
            ({"doc_to_text": "{{question.__class__.__mro__}}"}, "doc_to_text or doc_to_choice fails on a row"),
            ({"doc_to_text": "{{question.replace('a', question)}}"}, "uses replace"),
            ({"doc_to_text": "{{question|center(999999999)}}"}, "uses center"),
            ({"doc_to_text": "{{question.replace('', 'aaaa')}}"}, "uses replace"),
            ({"doc_to_text": "{{question|join(question)}}"}, "uses join"),
            ({"doc_to_text": "{{question|join('ab')|join('ab')|join('ab')}}"}, "uses join"),
            ({"doc_to_text": "{{question.title(**{})}}"}, "which is not done here"),
            ({"doc_to_target": "{{[answerKey, question|int(default=answerKey)][0]}}"}, "uses int"),
            ({"doc_to_text": "{{nothing}}"}, "reads 'nothing': the data has no such column"),
            ({"doc_to_text": "{{question"}, "is no column and no Jinja expression"),
            (
                {"doc_to_target": "{{choices.text.index(answerKey)}}"},
                "comes to nothing that can be right on some rows",
            ),
            ({"doc_to_target": "answerKey"}, "comes to nothing that can be right on some rows"),
            ({"doc_to_text": "!function utils.text"}, "Not done here: doc_to_text.*passed to `score` as `metric`"),
            ({"process_results": "!function utils.judge"}, "Not done here: process_results"),
            ({"num_fewshot": 5}, "Not done here: num_fewshot. Write examples into `description`"),
            ({"output_type": "loglikelihood"}, "Use multiple_choice"),
            ({"metric_list": [{"metric": "brier"}]}, "There is no metric 'brier' here.*defines `score"),
            ({"doc_to_choice": None}, "needs doc_to_choice"),
            ({"doc_to_choice": "{{choices.text[0]}}"}, "a list of two or more"),
        ],
    )
    def test_what_would_show_a_label_or_run_code_is_refused_and_says_what_works(self, tool, changes, said):
        with pytest.raises(ValueError, match=said) as refused:
            here(tool, quiz(30), lm_task={**QUIZ, **changes})
        assert not re.search(r"row \d|'[ABCD]' is not", str(refused.value))
        assert tool.workspace.walk() == ["test.jsonl"] and not list(tool._place().glob("held_*"))

    def test_what_is_predicted_is_a_choice(self, tool):
        held = here(tool, quiz(20), lm_task=QUIZ)
        with pytest.raises(ValueError, match="are numbers of `lm_choices`, from 0"):
            score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: row["lm_choices"][0]))
        far = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: 99), metric="acc")
        assert far["candidate"]["value"] == 0 and all(one["prediction"] == "99" for one in far["errors"])
        assert all(one["truth"] in one["input"] for one in far["errors"])


PAIRS = [
    ("the cat sat on the mat.", "the cat is on the mat."),
    ("A quick brown fox jumps over the lazy dog", "A fast brown fox leaps over lazy dogs"),
    ("There is nothing in common here at all", "Completely other words"),
]


class TestMetricsAgainstTheirReferences:
    """Values of sacreBLEU 2.6, rouge-score 0.1.2 and seqeval 1.2.2 for the same input."""

    def test_texts(self):
        tool = EvaluateModelTool()
        assert [round(tool._rouge_l(*pair), 6) for pair in PAIRS] == [0.833333, 0.588235, 0.0]
        assert [round(tool._chrf(*pair), 6) for pair in PAIRS] == [0.645817, 0.458578, 0.129222]
        counts = [tool._bleu_counts(*pair) for pair in PAIRS]
        assert [round(tool._bleu(one, 1), 6) for one in counts] == [0.488923, 0.122562, 0.0]
        assert round(tool._bleu([sum(column) for column in zip(*counts, strict=True)], 3), 6) == 0.177577

    @pytest.mark.parametrize(
        ("truth", "answer", "same"),
        [
            ("-5", "5", False), ("1.5", "15", False), ("1/2", "12", False), ("C++", "C#", False), ("x > 1", "x < 1", False),
            ("−5", "-5", True), ("1,000", "1000", True), ("$5.", "5", True), ("The C++ way", "c++ WAY", True),
            ("10-20", "10 - 20", False), ("10-20", "10-20.", True), ("2,5", "25", False), ("St. Louis", "st louis", True),
        ],
    )  # fmt: skip
    def test_numbers_are_the_same_with_their_signs_and_points_alone(self, truth, answer, same):
        assert EvaluateModelTool()._same(truth, answer) is same

    def test_entities_as_bilou_writes_them(self):
        tool = EvaluateModelTool()
        assert tool._entities(["B-PER", "L-PER", "U-PER", "O", "U-LOC"]) == {
            (0, 2, "PER"),
            (2, 3, "PER"),
            (4, 5, "LOC"),
        }

    @pytest.mark.parametrize("n", [1, 3, 5])
    def test_a_handful_of_rows_shows_nothing(self, n):
        tool = EvaluateModelTool()
        old = {"columns": [[1.0 + place / 10 for place in range(n)]], "final": tool._mean, "higher": False}
        new = {"columns": [[0.1] * n], "final": tool._mean, "higher": False}
        found = tool._compared(old, new, n)
        assert (
            not found["better"] and found["difference"]["p_value"] > 0.05 and "swapped" in found["difference"]["test"]
        )

    @pytest.mark.parametrize(
        ("text", "words", "cut"),
        [
            ("研究人员昨天表示新的疫苗有效。", 14, "研究人员昨天新的疫苗有效。"),
            ("新しいワクチンはとても効果的です。", 16, "新しいワクチンは効果的です。"),
            ("नया टीका कई बीमारियों को रोक सकता है।", 8, "नया टीका बीमारियों को रोक सकता है।"),
            ("วัคซีนใหม่ป้องกันโรคได้", 17, "วัคซีนป้องกันโรคได้"),
            ("اللقاح الجديد يمنع انتشار الأمراض بشكل فعال", 7, "اللقاح الجديد يمنع انتشار الأمراض"),
            ("Вакцина эффективно предотвращает болезни, сказал он", 6, "Вакцина предотвращает болезни, сказал он"),
            ("Le café naïve où l'été", 6, "Le café où l'été"),
        ],
    )
    def test_texts_of_any_script(self, text, words, cut):
        """Never nothing for the same text, nor as much for a part of it; a vowel is no punctuation."""
        tool = EvaluateModelTool()
        assert len(tool._words(text)) == words
        for score in (tool._rouge_l, tool._token_f1, tool._chrf):
            assert score(text, text) == 1.0 and 0.5 < score(text, cut) < 1.0 and score(text, "other words") < 0.1
        assert tool._bleu(tool._bleu_counts(text, text), 1) == pytest.approx(1.0)
        assert 0 < tool._bleu(tool._bleu_counts(text, cut), 1) < 1
        assert tool._plain(text) == tool._plain(text + "!") != tool._plain(cut)
        (decomposed,) = (unicodedata.normalize("NFD", text),)
        assert tool._rouge_l(text, decomposed) == tool._chrf(text, decomposed) == 1.0

    def test_a_vowel_sign_tells_words_apart(self):
        assert EvaluateModelTool()._plain("कि") != EvaluateModelTool()._plain("का")

    def test_entities(self):
        tool = EvaluateModelTool()
        truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "I-ORG", "I-ORG", "O"], ["B-PER", "B-PER", "O"]]
        said = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-ORG", "I-ORG", "O", "O"], ["B-PER", "B-PER", "O"]]
        assert tool._value(tool._of_tags(truth, said, [])["f1"]) == pytest.approx(0.6)

    @pytest.mark.long
    def test_classes(self):
        sklearn = pytest.importorskip("sklearn.metrics")
        made, tool = random.Random(5), EvaluateModelTool()
        for classes in (2, 3, 7):
            truth = [str(made.randrange(classes)) for _ in range(200)]
            said = [one if made.random() < 0.6 else str(made.randrange(classes)) for one in truth]
            found = tool._of_classes(truth, said, [{}] * 200)
            assert tool._value(found["macro_f1"]) == pytest.approx(sklearn.f1_score(truth, said, average="macro"))
            assert tool._value(found["mcc"]) == pytest.approx(sklearn.matthews_corrcoef(truth, said))
        numbers = [made.gauss(0, 1) for _ in range(50)]
        guesses = [one + made.gauss(0, 0.5) for one in numbers]
        found = tool._of_numbers(numbers, guesses, [])
        assert tool._value(found["r2"]) == pytest.approx(sklearn.r2_score(numbers, guesses))
        assert tool._value(found["rmse"]) == pytest.approx(sklearn.mean_squared_error(numbers, guesses) ** 0.5)

    def test_intervals_and_tests(self):
        stats = pytest.importorskip("scipy.stats")
        tool = EvaluateModelTool()
        for right, n in ((0, 10), (10, 10), (7, 30), (349, 360), (5000, 9000)):
            wanted = stats.binomtest(right, n).proportion_ci(method="exact")
            assert tool._exact(right, n) == pytest.approx([wanted.low, wanted.high], abs=1e-6)
        for first, second in ((0, 0), (3, 3), (1, 9), (40, 70), (250, 300), (3733, 3911), (9900, 10_000)):
            wanted = stats.binomtest(first, first + second).pvalue if first + second else 1.0
            assert tool._mcnemar(first, second) == pytest.approx(wanted)

    def test_large_numbers_that_lie_close_together(self):
        tool, made = EvaluateModelTool(), random.Random(0)
        low = [made.random() for _ in range(400)]
        said = [value + made.gauss(0, 0.1) for value in low]
        for name in ("r2", "pearson"):
            wanted, found = [
                tool._value(tool._metrics("regression", *pair, [])[name])
                for pair in ((low, said), ([value + 1e9 for value in low], [value + 1e9 for value in said]))
            ]
            assert found == pytest.approx(wanted, abs=1e-4)

    @pytest.mark.long
    def test_an_interval_holds_the_truth_nineteen_times_out_of_twenty(self):
        """The bootstrap of a macro F1, on 30 draws of which the truth is known to be 0.75."""
        tool, held = EvaluateModelTool(), 0
        for seed in range(30):
            made = random.Random(seed)
            truth = [str(made.randrange(2)) for _ in range(150)]
            said = [one if made.random() < 0.75 else str(1 - int(one)) for one in truth]
            metric = tool._metrics("classification", truth, said, [{}] * 150)["macro_f1"]
            low, high = tool._compared(metric, metric, 150)["new"]["interval"]
            held += low <= 0.75 <= high
        assert held >= 25


class TestPlantedFaults:
    """Each is found before anything is published: `problems` forbid a push."""

    def judge(self, tool, rows, train, **options):
        held = here(tool, rows)
        tool.workspace.write_bytes("train.jsonl", lines(train))
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        return score(tool, held, right, train=["train.jsonl"], **options)

    def test_no_fault_no_problem(self, tool):
        found = self.judge(tool, reviews(100), reviews(400, seed=9))
        assert found["problems"] == [] and found["contamination"]["rows"] == 0 and found["contamination"]["checked"]

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("exact", lambda text: text),
            ("normalised", lambda text: text.upper().replace(",", " --  ")),
            ("near", lambda text: " ".join(["moreover", *text.split()[:8], *text.split()[9:]])),
            (
                "in_pieces",
                lambda text: " ".join([*WORDS, *WORDS[::-1], *text.split(), *WORDS, *WORDS[::-1], *WORDS[::2]]),
            ),
        ],
    )
    def test_test_rows_in_the_training_rows(self, tool, name, change):
        rows = reviews(100)
        leaked = [{**row, "text": change(row["text"])} for row in rows[:10]]
        found = self.judge(tool, rows, [*reviews(300, seed=9), *leaked])
        assert found["contamination"][name] == 10 and found["contamination"]["rows"] == 10
        assert "10 of 100 held-out rows are in the training rows (10 " + name in found["problems"][0]
        assert "candidate_without_them" in found["contamination"]

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda text: text.replace("e", "", 1), id="a typing error"),
            pytest.param(lambda text: f"<p>{text}</p>", id="markup"),
            pytest.param(lambda text: " ".join(text.split()[1:-1]), id="without its ends"),
            pytest.param(lambda text: f"As a customer wrote to us: {text}", id="with an introduction"),
            pytest.param(
                lambda text: " ".join(["well", *text.split()[1:9], "so", *text.split()[10:]]), id="two words"
            ),
        ],
    )
    def test_a_leak_by_near_duplicates(self, tool, change):
        rows = reviews(100)
        found = self.judge(
            tool, rows, [*reviews(300, 9), *[{**row, "text": change(row["text"])} for row in rows[:20]]]
        )
        assert found["contamination"]["rows"] >= 19, found["contamination"]
        assert "held-out rows are in the training rows" in found["problems"][0]

    def test_a_leak_by_near_duplicates_in_many_rows_of_few_words(self):
        """No part of a text is rare here: what was looked up by rare parts alone would find nothing."""
        made, tool = random.Random(2), EvaluateModelTool()
        words = [f"w{''.join(made.choices('abcdefghij', k=5))}" for _ in range(300)]
        held, train = [[{"text": " ".join(made.choices(words, k=30))} for _ in range(count)] for count in (600, 900)]
        for row in held[:40]:
            said = row["text"].split()
            train.append({"text": " ".join([*said[:5], *said[6:19], "zzz", *said[20:]])})
        made.shuffle(train)
        found, seen, _ = tool._overlap({"rows": held, "columns": ["text"]}, train)
        assert seen == 940 and found["near"] == set(range(40))

    def test_a_leak_by_near_duplicates_in_a_script_without_spaces(self, tool):
        made = random.Random(4)
        signs = [chr(n) for n in range(0x4E00, 0x4E80)]
        rows = [{"text": "".join(made.choices(signs, k=30)), "label": made.randrange(2)} for _ in range(60)]
        leak = [{**row, "text": row["text"][:11] + row["text"][13:]} for row in rows[:6]]
        assert self.judge(tool, rows, leak)["contamination"]["near"] == 6

    def test_a_short_question_in_a_chat(self, tool):
        rows = [{"question": f"{' '.join(WORDS[n : n + 5])} {n}?", "label": n % 2} for n in range(20)]
        chats = [
            {"messages": [{"role": "user", "content": f"Answer. {row['question']} In a word."}]} for row in rows[:4]
        ]
        found = self.judge(tool, rows, chats)["contamination"]
        assert found["near"] + found["in_pieces"] == 4, found

    def test_the_words_of_a_prompt_around_each_row_are_no_leak(self, tool):
        prompt = (
            "You are asked for one word. Read this note and tell whether it is kind or not. The note is: {}. Answer."
        )
        rows = [{**row, "text": prompt.format(row["text"][-70:])} for row in reviews(160)]
        found = self.judge(tool, rows[:60], rows[60:])
        assert found["contamination"]["rows"] == 0, found["contamination"]

    def test_the_same_category_is_no_leak_and_the_same_row_is(self, tool):
        made = random.Random(3)
        rows = [
            {
                "port": made.choice(["Southampton harbour", "Cherbourg"]),
                "fare": made.random(),
                "label": made.randrange(2),
            }
            for _ in range(200)
        ]
        assert self.judge(tool, rows[:60], rows[60:])["contamination"]["rows"] == 0
        assert self.judge(tool, rows[:60], rows[50:])["contamination"]["exact"] == 10

    def test_a_number_that_counts_the_rows_hides_no_leak(self, tool):
        rows = [{"idx": n, "text": f"note {n * 7919 % 1000}", "label": n % 2} for n in range(60)]
        found = self.judge(tool, rows, [{**row, "idx": row["idx"] + 5_000} for row in rows[:9]])
        assert found["contamination"]["exact"] == 9

    def test_few_values_that_many_rows_have_are_no_leak(self, tool):
        rows = [{"a": n % 3, "b": n % 2, "label": n % 2} for n in range(300)]
        assert self.judge(tool, rows[:60], rows[60:])["contamination"]["rows"] == 0

    def test_numbers_that_were_moved_a_little(self, tool):
        made = random.Random(0)
        rows = [{**{f"x{n}": made.gauss(0, 9) for n in range(8)}, "label": made.randrange(2)} for _ in range(160)]
        moved = [{name: value * (1 + made.gauss(0, 1e-3)) for name, value in row.items()} for row in rows[:10]]
        assert self.judge(tool, rows[:60], rows[60:])["contamination"]["rows"] == 0
        assert self.judge(tool, rows[:60], [*rows[60:], *moved])["contamination"]["near"] >= 9

    def test_it_is_known_before_anything_was_trained(self, tool):
        rows = reviews(50)
        tool.workspace.write_bytes("train.jsonl", lines([*reviews(100, seed=9), *rows[:5]]))
        held = here(tool, rows, train=["train.jsonl"])
        assert held["contamination"]["exact"] == 5 and "5 of 50 held-out rows" in held["problems"][0]

    def test_rows_of_numbers_too(self, tool):
        made = random.Random(0)
        rows = [{**{f"x{n}": made.randrange(17) for n in range(16)}, "label": made.randrange(2)} for _ in range(60)]
        found = self.judge(tool, rows, rows[:6])
        assert found["contamination"]["exact"] == 6

    def test_the_run_says_what_it_was_trained_on(self, tool, seeded, hub):
        held = tool(operation="prepare", dataset="acme/reviews")
        config = {"dataset": "acme/reviews", "splits": {"train": "test"}, "hyperparameters": {}}
        tool.workspace.write_bytes("runs/a/config.json", json.dumps(config).encode())
        tool.workspace.write_bytes("runs/a/model/model.safetensors", tensors({"w.weight": [1.0] * 4}))
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        found = score(tool, held, {**right, "folder": "runs/a"})
        assert found["candidate"]["folder"] == "runs/a/model" and len(found["candidate"]["weights_sha256"]) == 64
        assert "120 of 120 held-out rows are in the training rows" in found["problems"][0]
        tool.workspace.write_bytes("other.jsonl", lines(reviews(40, seed=9)))
        dodged = score(tool, held, {**right, "folder": "runs/a"}, train=["other.jsonl"])  # naming others hides nothing
        assert "120 of 120 held-out rows are in the training rows" in dodged["problems"][0]
        assert dodged["contamination"]["train_rows"] == 160
        assert (
            score(tool, held, {**right, "folder": "runs/a"}, train=["acme/reviews:test"])["contamination"][
                "train_rows"
            ]
            == 120
        )

    def test_what_could_not_be_checked_does_not_count_as_checked(self, tool):
        held = here(tool, reviews(60))
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        found = score(tool, held, right)
        assert found["contamination"]["checked"] is False and "was not checked" in " ".join(found["warnings"])
        assert score(tool, held, right, train=["not/there"])["contamination"]["checked"] is False

    @pytest.mark.long
    def test_training_rows_of_which_only_a_part_was_read(self, tool):
        held = here(tool, reviews(60))
        tool.workspace.write_bytes("train.csv", table([{"text": f"row {number}"} for number in range(100_001)]))
        found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: truth), train=["train.csv"])
        assert found["contamination"]["partly_read"] == ["train.csv"]
        assert any("Only a part of train.csv was read" in one and "not checked" in one for one in found["warnings"])

    def test_rows_of_the_viewer_that_are_not_all(self, tool, seeded):
        partly = []
        assert len(tool._viewed("acme/reviews", None, "train", 200)["rows"]) == 200
        assert tool._viewed("acme/reviews", None, "train", 200)["partly"] is True
        assert tool._viewed("acme/reviews", None, "train", 1000)["partly"] is False
        tool._rows_of("acme/reviews:train", 100, partly)
        assert partly == ["acme/reviews:train"]

    def test_a_benchmark_in_the_training_rows(self, tool, seeded):
        train = [*reviews(50, seed=9), *[{"text": row["text"], "label": 0} for row in seeded[:7]]]
        found = self.judge(tool, reviews(60, seed=4), train, benchmarks=["acme/reviews:test", "acme/none:test"])
        there = found["contamination"]["benchmarks"]
        assert there["acme/reviews:test"]["rows"] == 7 and there["acme/none:test"]["checked"] is False
        assert there["acme/reviews:test"]["held_out_rows"] == 0

    def test_a_benchmark_among_the_held_out_rows_whatever_was_trained_on(self, tool, seeded):
        held = here(tool, [*seeded[:9], *reviews(60, seed=4)])
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        there = score(tool, held, right, benchmarks=["acme/reviews:test"])["contamination"]
        assert there["checked"] is False and there["benchmarks"]["acme/reviews:test"]["held_out_rows"] == 9

    def test_a_wrong_label_map(self, tool):
        held = here(tool, reviews(100))
        turned = answer(tool, held, "p.jsonl", lambda truth, row: str(1 - int(truth)))
        found = score(tool, held, turned)
        assert "0.0% are right as they stand, 100.0% would be with 0 for 1, 1 for 0" in found["problems"][0]
        assert not found["better"]

    def test_a_bad_model_is_no_wrong_label_map(self, tool):
        held = here(tool, [{**row, "label": row["label"] + 2 * (n % 2)} for n, row in enumerate(reviews(200))])
        made = random.Random(1)
        found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: str(made.randrange(4))))
        assert found["problems"] == []

    def test_the_same_for_every_row(self, tool):
        found = score(tool, held := here(tool, reviews(60)), answer(tool, held, "p.jsonl", lambda truth, row: "1"))
        assert "predicts the same for every row (1)" in found["problems"][0]


def tensors(named: dict, shapes: dict | None = None) -> bytes:
    """A safetensors file of F32 tensors."""
    header, data = {}, b""
    for name, values in named.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        shape = (shapes or {}).get(name, [len(values)])
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


def weights(seed: int, prefix: str = "", base: bytes | None = None, moved: float = 0.0) -> bytes:
    """Two matrices of 32 by 32; those of the seed `seed`, moved by so much."""
    made, other = random.Random(seed), random.Random(seed + 1000)
    named = {
        f"{prefix}layers.{n}.weight": [made.gauss(0, 1) + moved * other.gauss(0, 1) for _ in range(1024)]
        for n in range(2)
    }
    return tensors(named, {name: [32, 32] for name in named})


def hub_sha(hub, name: str) -> str:
    return HfApi(endpoint=hub.url).model_info(name).sha


class TestWhoseWeightsTheseAre:
    @pytest.fixture
    def judged(self, tool, hub):
        config = {"model_type": "bert", "hidden_size": 32}
        base = {"config.json": json.dumps(config).encode(), "model.safetensors": weights(1)}
        hub.seed("acme/base", "model", base)
        held = here(tool, reviews(60))
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)

        def judge(content: bytes, changes: dict | None = None, **options):
            tool.workspace.write_bytes("m/model.safetensors", content)
            tool.workspace.write_bytes("m/config.json", json.dumps({**config, **(changes or {})}).encode())
            return score(tool, held, {**right, "folder": "m"}, base="acme/base", **options)

        return judge

    @pytest.mark.parametrize("pinned", [True, False])
    def test_the_base_is_the_one_that_the_run_began_with(self, judged, tool, hub, pinned):
        began = hub_sha(hub, "acme/base")
        hub.seed("acme/base", "model", {"model.safetensors": weights(7)})
        assert hub_sha(hub, "acme/base") != began
        run = {"hyperparameters": {}, "base_model": "acme/base", "base_revision": began if pinned else None}
        tool.workspace.write_bytes("m/config.json", json.dumps(run).encode())
        held = here(tool, reviews(60))
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        tool.workspace.write_bytes("m/model/config.json", b'{"model_type": "bert", "hidden_size": 32}')
        tool.workspace.write_bytes("m/model/model.safetensors", weights(1, "bert.", moved=0.2))
        found = score(tool, held, {**right, "folder": "m/model"})
        assert (found["provenance"]["verdict"] == "derived") is pinned, found["provenance"]

    def test_trained_on_from_the_base(self, judged):
        found = judged(weights(1, "bert.", moved=0.2))
        assert found["provenance"]["verdict"] == "derived" and found["provenance"]["likeness"] > 0.9
        assert found["problems"] == []

    def test_swapped_weights(self, judged):
        found = judged(weights(2))
        assert found["provenance"]["verdict"] == "other weights"
        assert "do not derive from acme/base" in found["problems"][0]

    def test_another_architecture(self, judged):
        found = judged(weights(1), {"hidden_size": 64})
        assert "other architecture: hidden_size 64 for 32" in found["problems"][0]

    def test_nothing_was_trained(self, judged):
        assert "nothing in them was trained" in " ".join(judged(weights(1))["warnings"])

    def test_what_is_too_small_to_compare_is_not_checked(self, judged):
        found = judged(tensors({"bias": [0.1] * 4}))["provenance"]
        assert found["checked"] is False and "large enough" in found["why"]

    def test_a_base_in_the_workspace_and_one_that_is_away(self, tool, judged, hub):
        tool.workspace.write_bytes("base/model.safetensors", weights(1))
        tool.workspace.write_bytes("m/model.safetensors", weights(1, moved=0.1))
        side = {"folder": "m"}
        assert tool._provenance(side, "base", [], [])["verdict"] == "derived"
        said = []
        assert tool._provenance(side, "acme/gone", [], said)["checked"] is False and "was not checked" in said[0]

    def test_an_adapter_of_another_base(self, tool, hub):
        hub.seed("acme/base", "model", {"model.safetensors": weights(1)})
        a, b = "base_model.model.layers.0.lora_A.weight", "base_model.model.layers.0.lora_B.weight"
        tool.workspace.write_bytes(
            "m/adapter_model.safetensors", tensors({a: [0.1] * 64, b: [0.1] * 64}, {a: [2, 32], b: [32, 2]})
        )
        for named, wrong in (("acme/base", 0), ("acme/other", 1)):
            tool.workspace.write_bytes(
                "m/adapter_config.json", json.dumps({"base_model_name_or_path": named}).encode()
            )
            problems = []
            assert tool._provenance({"folder": "m"}, "acme/base", problems, [])["verdict"] == "adapter of the base"
            assert len(problems) == wrong

    def test_more_tokens_than_embeddings(self, judged, tool):
        tokenizer = {"model": {"vocab": {str(n): n for n in range(50)}}}
        tool.workspace.write_bytes("m/tokenizer.json", json.dumps(tokenizer).encode())
        content = tensors(
            {"bert.embeddings.word_embeddings.weight": [0.1] * 320},
            {"bert.embeddings.word_embeddings.weight": [10, 32]},
        )
        assert "50 tokens, 10 embeddings" in " ".join(judged(content)["problems"])

    def test_more_tokens_than_embeddings_without_a_base(self, tool):
        held = here(tool, reviews(60))
        name = "model.embed_tokens.weight"
        tool.workspace.write_bytes("m/model.safetensors", tensors({name: [0.1] * 320}, {name: [10, 32]}))
        pairs = [[f"token {n}", -1.0] for n in range(11)]
        tool.workspace.write_bytes("m/tokenizer.json", json.dumps({"model": {"vocab": pairs}}).encode())
        right = answer(tool, held, "p.jsonl", lambda truth, row: truth)
        assert "11 tokens, 10 embeddings" in " ".join(score(tool, held, {**right, "folder": "m"})["problems"])

    @pytest.mark.parametrize(("turned", "wrong"), [(0, 0), (7, 1)])
    def test_the_tokenizer_of_another_model_of_the_same_size(self, judged, tool, hub, turned, wrong):
        words = [f"word {number}" for number in range(30)]
        known = {"model": {"vocab": {word: number for number, word in enumerate(words)}}}
        hub.seed("acme/base", "model", {"tokenizer.json": json.dumps(known).encode()})
        mine = {"model": {"vocab": {word: (number + turned) % 30 for number, word in enumerate(words)}}}
        tool.workspace.write_bytes("m/tokenizer.json", json.dumps(mine).encode())
        found = judged(weights(1, moved=0.1))
        assert found["provenance"]["verdict"] == "derived"
        assert [one for one in found["problems"] if "of 30 tokens of acme/base 0 have the same number" in one] == (
            found["problems"][:1] if wrong else []
        )

    @pytest.mark.parametrize("content", [b"", b"\xff" * 64, (30).to_bytes(8, "little") + b"{" * 30, weights(1)[:3000]])
    def test_what_is_no_safetensors_is_said_and_harms_nothing(self, judged, content):
        found = judged(content)
        assert found["provenance"]["checked"] is False or found["problems"]


def test_the_digest_of_weights_knows_them_by_what_they_are(tool):
    digest = tool._weights_sha256
    model = {"model.safetensors": "a", "config.json": "b", "README.md": "c", "plot.png": "d"}
    assert digest(model) == digest({**model, "README.md": "x", "eval/plot.png": "y", "training_args.bin": "z"})
    assert (
        len({digest(model), digest({**model, "model.safetensors": "x"}), digest({**model, "config.json": "x"})}) == 3
    )
    assert digest({**model, "extra.safetensors": "e"}) != digest(model)
    assert digest({"README.md": "c", "config.json": "b"}) is None


@pytest.mark.parametrize(
    "name",
    ["model.ubj", "xgboost-model.json", "model.json", "trees.cbm", "model.txt", "lightgbm.txt", "pipe.joblib", "m.pkl.gz",
     "model-00001-of-00002.safetensors", "pytorch_model.bin", "sub/model.onnx"],
)  # fmt: skip
def test_weights_of_every_make_are_known(tool, name):
    digest = tool._weights_sha256
    assert digest({name: "a"}) and digest({name: "a"}) != digest({name: "b"})
    for use in (
        "tokenizer_config.json",
        "generation_config.json",
        "1_Pooling/config.json",
        "modeling_mine.py",
        "vocab.txt",
    ):
        assert digest({name: "a", use: "x"}) != digest({name: "a", use: "y"}), use
    for other in ("README.md", "metrics.json", "eval_results.json", "train.py", "requirements.txt", "curves.png"):
        assert digest({name: "a", other: "x"}) == digest({name: "a"}), other


def test_a_model_that_nobody_here_can_run_is_named(tool):
    held = here(tool, reviews(30))
    tool.workspace.write_bytes("m/trees.cbm", b"CBM1")
    tool.jobs = object()  # never asked
    with pytest.raises(ValueError, match=r"m is no model that this tool knows how to run \(trees.cbm\).*'script'"):
        score(tool, held, {"folder": "m"})


def test_it_is_put_on_record(workspace, tmp_path):
    from ml_intern.records import Records

    noted = []
    records = Records(tmp_path / "session", lambda kind, data: noted.append((kind, data)))
    tool = EvaluateModelTool(workspace, records=records, plots=False)
    held = here(tool, reviews(60))
    found = score(tool, held, answer(tool, held, "p.jsonl", lambda truth, row: truth))
    assert noted == [("evaluation", found)] and records.find("evaluation", found["id"])["better"] is True
    assert (tmp_path / "session/held_out" / held["held_out"] / "labels.json").exists()


@pytest.mark.long
def test_it_survives_saving():
    assert_survives_saving(EvaluateModelTool, "jinja2", "huggingface_hub")
