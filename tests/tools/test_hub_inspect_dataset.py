"""Looking into a dataset, against a local Hub and its viewer."""

import json
import os
import shutil
import time

import pytest
from ml_intern.tools import HubInspectDatasetTool
from saving import assert_survives_saving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

from ml_intern.testing.serve import Service
from ml_intern.testing.viewer import NOT_READY

CARD = b"---\nlicense: mit\n---\nReviews.\n"


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def reviews(start, stop):
    return [{"id": i, "text": f"Review number {i} of this film.", "label": i % 2} for i in range(start, stop)]


def inspect(dataset="acme/reviews", **arguments):
    """Anew: nothing is kept of what was asked before."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    return HubInspectDatasetTool()(dataset, **arguments)


@pytest.fixture(params=["viewer", "files"])
def source(request, hub, monkeypatch):
    if request.param == "files":
        monkeypatch.delenv("HF_DATASETS_SERVER")
    return request.param


def test_what_a_good_dataset_looks_like(hub, source):
    files = {"README.md": CARD, "train.jsonl": lines(*reviews(0, 100)), "test.jsonl": lines(*reviews(100, 130))}
    hub.seed("acme/reviews", "dataset", files)
    found = inspect(rows=2)
    assert set(found) == set(HubInspectDatasetTool.output_schema["properties"])
    assert found["source"] == source
    assert found["id"] == "acme/reviews"
    assert len(found["revision"]) == 40
    assert found["license"] == "mit"
    assert (found["gated"], found["private"]) == (False, False)
    assert (found["config"], found["configs"], found["split"]) == ("default", ["default"], "train")
    assert {part["split"]: part["rows"] for part in found["splits"]} == {"train": 100, "test": 30}
    assert set(found["features"]) == {"id", "text", "label"}
    assert found["sample"] == reviews(0, 2)
    assert found["rows_examined"] == {"train": 100, "test": 30}
    assert found["all_rows_examined"] is True
    assert found["columns"]["id"]["role"] == "id"
    assert found["columns"]["label"] == {"role": "label", "missing": 0, "distinct": 2, "labels": {"0": 50, "1": 50}}
    characters = {"min": 29, "median": 30.0, "max": 30, "p95": 30}
    text = {"role": "text", "missing": 0, "distinct": 100, "characters": characters}
    assert found["columns"]["text"] == {**text, "tokens": {"median": 7.0, "p95": 7, "max": 7}}
    assert found["methods"]["text-classification"] == {
        "verdict": "go",
        "why": "`label` has 2 classes",
        "fix": None,
        "columns": {"label": "label", "text": "text"},
    }
    assert found["duplicates"] == {
        "compared_on": "`text`, without `label`",
        "within": {"train": 0, "test": 0},
        "across": {"train & test": 0},
        "conflicting_labels": 0,
    }
    assert found["warnings"] == []
    assert {"path": "train.jsonl", "size": len(files["train.jsonl"])} in found["files"]
    assert found["files_total"]["count"] == 4


def test_a_hub_of_ones_own_is_not_looked_up_at_the_viewer_of_another(hub, monkeypatch):
    """Neither its token nor the names of its datasets are any business of huggingface.co."""
    monkeypatch.delenv("HF_DATASETS_SERVER")
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines(*reviews(0, 10))})
    (note,) = inspect()["notes"]
    assert note.startswith("HF_ENDPOINT is a Hub of its own and HF_DATASETS_SERVER names no viewer for it.")


def test_everything_that_speaks_against_training_on_it(hub, source):
    train = [*reviews(0, 96), {"id": 96, "text": None, "label": 0}]
    train += [{"id": 97, "text": "review  NUMBER 5 of this film.", "label": 0}, *reviews(7, 8)]
    hub.seed(
        "acme/reviews", "dataset", {"train.jsonl": lines(*train), "test.jsonl": lines(*reviews(90, 110))}, gated="auto"
    )
    hub.admit("acme/reviews", "dataset", "tester")
    found = inspect()
    assert found["license"] is None
    assert found["columns"]["text"]["missing"] == 1
    assert found["duplicates"]["within"] == {"train": 2, "test": 0}
    assert found["duplicates"]["across"] == {"train & test": 6}
    assert found["duplicates"]["conflicting_labels"] == 1
    text = " ".join(found["warnings"])
    assert "1 of 99 rows lack `text`" in text
    assert "2 of 99 rows of train repeat an earlier one" in text
    assert "6 rows of test are also in train: a leak" in text
    assert "1 rows appear with different labels" in text
    assert "No licence is stated" in text
    assert "gated" in text


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ([0] * 95 + [1] * 5, "out of balance: 95 % are 0"),
        ([1] * 50, "same `label`: 1"),
        ([-1] * 50, "same `label`: -1"),
    ],
)
def test_labels_that_will_not_do(hub, source, labels, warning):
    rows = [{"text": f"Some review, number {i}", "label": label} for i, label in enumerate(labels)]
    hub.seed("acme/reviews", "dataset", {"README.md": CARD, "train.jsonl": lines(*rows)})
    (said,) = inspect()["warnings"]
    assert warning in said


@pytest.mark.parametrize(
    ("rows", "roles"),
    [
        (
            [{"prompt": f"Say {i}", "completion": f"{i}"} for i in range(60)],
            {"prompt": "input text", "completion": "target text"},
        ),
        ([{"messages": [{"role": "user", "content": f"Hi {i}"}]} for i in range(9)], {"messages": "conversation"}),
        (
            [{"uuid": f"a{i}", "score": i / 7, "spam": bool(i % 2)} for i in range(9)],
            {"uuid": "id", "score": "number", "spam": "label"},
        ),
        (
            [{"sentiment": ("good", "bad")[i % 2], "country": ("de", "fr")[i % 2]} for i in range(60)],
            {"sentiment": "label", "country": "category"},
        ),
        (
            [{"country": ("de", "fr")[i % 2], "bought": bool(i % 3)} for i in range(60)],
            {"country": "category", "bought": "category"},
        ),
        (
            [{"age": i, "price": i / 7, "bought": i % 2, "price_label": "low"} for i in range(60)],
            {"age": "number", "price": "number", "bought": "number", "price_label": "label"},
        ),
        (
            [{"weight": i, "label": float(i % 2)} for i in range(60)],
            {"weight": "number", "label": "label"},
        ),
        (
            [{"v1": i, "v2": i % 3, "target": i / 7} for i in range(60)],
            {"v1": "number", "v2": "number", "target": "target"},
        ),
    ],
)
def test_the_roles_of_columns(hub, source, rows, roles):
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines(*rows)})
    found = inspect()
    assert {name: column["role"] for name, column in found["columns"].items()} == roles


def test_the_same_input_with_two_labels_in_a_conversation_is_found(hub, source):
    rows = [{"messages": [{"role": "user", "content": "Hi"}], "label": i} for i in range(2)]
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines(*rows)})
    assert inspect()["duplicates"]["conflicting_labels"] == 1


def digits(start, stop):
    """Images of 8 x 8 pixels as rows of numbers: whole ones from 0 to 16, some pixels always or mostly 0."""
    for i in range(start, stop):
        pixels = [(i * (k + 3) // 7 + k) % 17 for k in range(64)]
        pixels[:3] = [0, 16 if i % 40 == 0 else 0, i % 2]
        yield {**{f"pixel_{k:02}": value for k, value in enumerate(pixels)}, "label": i % 10}


def csv_of(rows):
    rows = list(rows)
    return "\n".join([",".join(rows[0]), *[",".join(map(str, row.values())) for row in rows]]).encode()


def test_a_wide_table_of_numbers_has_features_and_one_label(hub, source):
    files = {"README.md": CARD, "train.csv": csv_of(digits(0, 1437)), "test.csv": csv_of(digits(1437, 1797))}
    hub.seed("acme/digits", "dataset", files)
    found = inspect("acme/digits", rows=2)
    assert found["source"] == source
    assert found["rows_examined"] == {"train": 1437, "test": 360}
    assert found["all_rows_examined"] is True
    assert list(found["columns"]) == list(found["features"]) == ["pixel_00..pixel_63", "label"]
    pixels = {"role": "number", "columns": 64, "missing": 0, "distinct": [1, 17]}
    assert found["columns"]["pixel_00..pixel_63"] == pixels
    assert found["columns"]["label"]["labels"] == {str(n): 144 if n < 7 else 143 for n in range(10)}
    first = next(iter(digits(0, 1)))
    assert found["sample"][0] == {"pixel_00..pixel_63": list(first.values())[:-1], "label": 0}
    assert not [warning for warning in found["warnings"] if "pixel" in warning]
    assert found["notes"][-1] == "The same value in all rows examined: `pixel_00`."
    assert found["duplicates"]["compared_on"] == "64 columns, without `label`"
    assert len(json.dumps(found)) < 5000


def test_columns_of_mixed_kinds_are_got_over(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    rows = [{"label": value, "x": value} for value in ("a", 1, 2.5, None, [1], {"b": 2}, True, "a")]
    hub.seed("acme/mixed", "dataset", {"train.jsonl": lines(*rows)})
    found = inspect("acme/mixed")
    assert found["columns"]["label"]["labels"]["a"] == 2
    assert found["columns"]["x"]["missing"] == 1


def test_the_same_numbers_with_two_labels_are_found(hub, source):
    rows = list(digits(0, 50))
    hub.seed("acme/digits", "dataset", {"train.csv": csv_of([*rows, {**rows[3], "label": 8}, rows[4]])})
    duplicates = inspect("acme/digits")["duplicates"]
    assert (duplicates["within"], duplicates["across"]) == ({"train": 2}, {})
    assert duplicates["conflicting_labels"] == 1


def test_a_lone_column_with_few_values_is_taken_for_the_label_and_that_is_said(hub, source):
    rows = [{"weight": i / 3, "age": i, "bought": i % 2} for i in range(60)]
    hub.seed("acme/shop", "dataset", {"train.jsonl": lines(*rows)})
    found = inspect("acme/shop")
    assert {name: column["role"] for name, column in found["columns"].items()} == {
        "weight": "number",
        "age": "number",
        "bought": "label",
    }
    assert "`bought` is taken for the label: no column is named or typed as one." in found["notes"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["gene_{}", "{}"])
def test_ten_thousand_columns_stay_short_and_quick(hub, monkeypatch, name):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    # Names without numbers, of columns that are constant, have gaps, or hold texts.
    names = [name.format(k if name != "{}" else "".join(chr(97 + int(n)) for n in str(k))) for k in range(10_000)]
    values = [lambda i, k: i + k, lambda i, k: 1, lambda i, k: None if i == k % 40 else i, lambda i, k: f"t{i}"]
    rows = [{key: values[k % 4](i, k) for k, key in enumerate(names)} | {"label": i % 2} for i in range(40)]
    hub.seed("acme/genes", "dataset", {"README.md": CARD, "train.jsonl": lines(*rows)})
    started = time.process_time()
    found = inspect("acme/genes")
    assert time.process_time() - started < 5
    assert len(json.dumps(found)) < 20_000
    assert sum(column.get("columns", 1) for column in found["columns"].values()) <= 10_001
    assert found["warnings"][0].startswith("2500 columns lack values in some rows: `")
    assert "and 2,495 more" in " ".join(found["notes"])
    assert [note for note in found["notes"] if "of 10,001 columns are not shown" in note]
    assert found["rows_examined"] == {"train": 40}


@pytest.mark.long
def test_a_large_split_is_sampled_evenly_and_says_so(hub):
    rows = [{"text": f"Film review no {i}" + " so" * 300, "label": int(i >= 12_500)} for i in range(25_000)]
    hub.seed("acme/reviews", "dataset", {"README.md": CARD, "train.jsonl": lines(*rows)})  # 23 MB, sorted by label
    found = inspect()
    assert found["rows_examined"] == {"train": 1000}
    assert found["all_rows_examined"] is False
    assert found["splits"][0]["rows"] == 25_000
    assert found["columns"]["label"]["labels"] == {"0": 500, "1": 500}
    assert found["warnings"] == []
    assert found["notes"][1:] == ["Not all rows were examined, but spread over each: train 1,000 of 25000."]


def test_all_of_a_split_is_seen_page_by_page_where_its_files_cannot_be_read(hub):
    rows = lines(*reviews(0, 2500))
    hub.seed("acme/reviews", "dataset", {"README.md": CARD, "train.jsonl": rows})
    hub.fail("/resolve/", status=503, times=None)
    found = inspect()
    assert (found["source"], found["rows_examined"]) == ("viewer", {"train": 2500})
    assert found["all_rows_examined"] is True


def test_a_viewer_that_stops_half_way_leaves_a_sample_and_that_is_said(hub):
    rows = [{"text": f"Film review no {i}", "label": int(i >= 1250)} for i in range(2500)]  # sorted by label
    hub.seed("acme/reviews", "dataset", {"README.md": CARD, "train.jsonl": lines(*rows)})
    hub.fail("/resolve/", status=503, times=None)
    hub.fail("offset=700", status=429, times=None)
    found = inspect()
    assert 100 < found["rows_examined"]["train"] < 2500
    assert set(found["columns"]["label"]["labels"]) == {"0", "1"}
    assert "429" in found["notes"][0]
    assert "Not all rows were examined" in found["notes"][-1]


@pytest.mark.long
def test_large_files_are_read_in_pieces_from_all_over_them_and_that_is_said(hub, monkeypatch):
    """Sorted by label, over two files: the beginning alone would show one label."""
    monkeypatch.delenv("HF_DATASETS_SERVER")
    parts = [lines(*[{"text": f"Film {k} {i}" + " so" * 300, "label": k} for i in range(15_000)]) for k in range(2)]
    hub.seed("acme/reviews", "dataset", {"README.md": CARD, "train/a.jsonl": parts[0], "train/b.jsonl": parts[1]})
    hub.requests.clear()
    found = inspect()
    assert 15_000 < found["rows_examined"]["train"] <= 20_000
    assert found["all_rows_examined"] is False
    assert found["splits"][0]["rows"] is None
    assert len(found["columns"]["label"]["labels"]) == 2
    assert "Not all rows were examined, but spread over each: train" in found["notes"][-1]
    assert found["duplicates"]["within"] == {"train": 0}
    assert len([one for one in hub.requests if "/cdn/" in one.path and "range" in one.headers]) == 9


@pytest.mark.long
def test_large_csv_is_cut_at_lines_unless_its_cells_hold_lines(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    rows = [f'{i},"a film, no {i}{" so" * 300}",{int(i >= 12_500)}\n' for i in range(25_000)]
    hub.seed("acme/plain", "dataset", {"train.csv": ("id,text,label\n" + "".join(rows)).encode()})
    found = inspect("acme/plain")
    assert set(found["features"]) == {"id", "text", "label"}
    assert found["columns"]["label"]["labels"].keys() == {"0", "1"}
    assert found["columns"]["id"]["missing"] == 0
    broken = "id,text,label\n" + "".join(rows).replace("film, no", "film,\nno")
    hub.seed("acme/cells", "dataset", {"train.csv": broken.encode()})
    found = inspect("acme/cells")
    assert found["sample"][1]["text"].startswith("a film,\nno 1 so")
    assert "but the first of each" in found["notes"][-1]


@pytest.mark.long
def test_a_hub_that_gives_no_ranges_gives_the_beginning(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    content = lines(*[{"text": f"Film {i}" + " so" * 3000} for i in range(2500)])
    about = {"id": "acme/reviews", "sha": "0" * 40, "tags": [], "private": False}
    about["siblings"] = [{"rfilename": "train.jsonl", "size": len(content)}]

    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(json.dumps(about) if request.url.path.startswith("/api/") else content)

    with Service(Starlette(routes=[Route("/{path:path}", answer)])) as front:
        monkeypatch.setenv("HF_ENDPOINT", front.url)
        found = inspect()
    assert found["sample"][0]["text"].startswith("Film 0")
    assert 2000 < found["rows_examined"]["train"] < 2500
    assert "but the first of each" in found["notes"][-1]


@pytest.mark.long
def test_the_beginning_of_a_large_array_is_read(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    rows = [{"text": f"Film {i}" + " so" * 3000, "nested": [{"a": [1, "]"]}]} for i in range(2500)]
    hub.seed("acme/array", "dataset", {"train.json": json.dumps(rows, indent=1).encode()})
    found = inspect("acme/array", rows=1)
    assert found["sample"][0]["nested"] == [{"a": [1, "]"]}]
    assert 2000 < found["rows_examined"]["train"] < 2500
    assert found["all_rows_examined"] is False


def test_more_bytes_than_the_limit_are_not_fetched(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines({"text": "x" * 1_000_000}) * 45})
    found = inspect()
    assert found["rows_examined"]["train"] in (9, 10, 11)
    assert found["all_rows_examined"] is False


def test_long_cells_are_cut_and_say_so(hub, source):
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines({"text": "long " * 1000, "tags": ["tag"] * 1000})})
    (row,) = inspect()["sample"]
    assert row["text"].endswith("… (5,000 characters in all)")
    assert len(row["tags"]) < 500


def test_csv_tsv_and_json_files(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    hub.seed("acme/reviews", "dataset", {"train.csv": '﻿text;label\n"a;\nb";1\nc;\n'.encode()})
    assert inspect()["sample"] == [{"text": "a;\nb", "label": 1}, {"text": "c", "label": None}]
    hub.seed("acme/tabs", "dataset", {"dev.tsv": b"x\ty\n1.5\t007\n"})
    found = inspect("acme/tabs")
    assert (found["split"], found["sample"]) == ("validation", [{"x": 1.5, "y": "007"}])
    hub.seed("acme/json", "dataset", {"data.json": b'[{"a": 1}, {"a": 2}]', "dataset_infos.json": b"{}"})
    assert inspect("acme/json")["sample"] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("count", [60, 300])
def test_words_for_a_missing_value_in_csv_are_gaps_as_in_training(hub, source, count):
    """Also where the viewer said so, but the tool reads the file itself for the rows that a page does not hold."""
    words = (
        "",
        "NA",
        "N/A",
        "#N/A",
        "null",
        "NULL",
        "None",
        "nan",
        "NaN",
        "-nan",
        "n/a",
        "<NA>",
        "1.#QNAN",
        "#N/A N/A",
    )
    body = ["age,size,text,sure,label"]
    for i in range(count):
        gap = words[i // 3 % len(words)] if i % 3 == 0 else None
        age, size, text, sure = (
            (gap,) * 4 if gap is not None else (31 + i % 5, f"{i}e-3", f"a good film no {i}", "True")
        )
        body.append(f"{age},{size},{text},{sure},{'yes' if i % 2 else 'no'}")
    hub.seed("acme/gaps", "dataset", {"README.md": CARD, "train.csv": "\n".join(body).encode()})
    found = inspect("acme/gaps", rows=2)
    columns = found["columns"]
    assert found["source"] == source and found["rows_examined"] == {"train": count}
    assert {name: column["missing"] for name, column in columns.items()} == {
        **dict.fromkeys(("age", "size", "text", "sure"), count // 3),
        "label": 0,
    }
    assert (columns["age"]["role"], columns["size"]["role"], columns["text"]["role"]) == ("number", "number", "text")
    assert found["sample"] == [
        {"age": None, "size": None, "text": None, "sure": None, "label": "no"},
        {"age": 32, "size": 0.001, "text": "a good film no 1", "sure": True, "label": "yes"},
    ]
    assert f"{count // 3} of {count} rows lack `text`." in found["warnings"]
    fix = found["methods"]["text-classification"]["fix"]
    assert fix.startswith(f"drop the rows that lack `text` ({count // 3} of {count})")


def test_a_column_of_csv_has_the_type_that_all_its_values_have(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    hub.seed("acme/types", "dataset", {"train.csv": b"answer,zip,n,x\n12,01067,NA, 1.5\nabout 3,80331,-4,2\n"})
    assert inspect("acme/types")["sample"] == [
        {"answer": "12", "zip": "01067", "n": None, "x": 1.5},
        {"answer": "about 3", "zip": "80331", "n": -4, "x": 2.0},
    ]
    hub.seed("acme/json", "dataset", {"train.jsonl": lines({"text": "NA"}, {"text": "null"})})
    assert inspect("acme/json")["columns"]["text"]["missing"] == 0  # only CSV has such words


def test_configs_and_splits_of_the_card(hub, source):
    card = b"""---
configs:
- config_name: short
  data_files:
  - split: train
    path: short/*.jsonl
- config_name: long
  data_files:
  - split: train
    path: long/a.jsonl
  - split: held_out
    path: [long/b.jsonl]
---
"""
    files = {"short/x.jsonl": lines({"a": 1}), "long/a.jsonl": lines({"a": 2}), "long/b.jsonl": lines({"a": 3})}
    hub.seed("acme/reviews", "dataset", {"README.md": card, **files})
    found = inspect(config="long", split="held_out")
    assert found["configs"] == ["short", "long"]
    assert [part["split"] for part in found["splits"]] == ["train", "held_out"]
    assert found["sample"] == [{"a": 3}]
    assert inspect()["config"] == "short"
    with pytest.raises(ValueError, match=r"There is no config 'medium'. Configs: short, long"):
        inspect(config="medium")
    with pytest.raises(ValueError, match=r"no split 'test'. Splits: train, held_out"):
        inspect(config="long", split="test")


FOLDERS = b"""---
license: mit
configs:
- {config_name: en, data_dir: en}
- {config_name: de, data_dir: ./train/de/}
- {config_name: fr, data_dir: fr, data_files: [{split: train, path: "*/a.jsonl"}, {split: held_out, path: b.jsonl}]}
- {config_name: fr_all, data_dir: fr, data_files: {train: ["b.jsonl"]}}
- {config_name: it, data_dir: it}
---
"""


def test_configs_that_name_a_folder_hold_what_lies_below_it(hub, monkeypatch, source):
    names = ("en/train", "en/test", "train/de/rows", "train/de/dev", "fr/x/a", "fr/b", "en_other/train")
    files = {f"{name}.jsonl": lines({"text": name}) for name in names}
    hub.seed("acme/many", "dataset", {"README.md": FOLDERS, **files})

    def splits(config):
        found = inspect("acme/many", config=config)
        return {part["split"]: inspect("acme/many", config=config, split=part["split"])["sample"][0]["text"]
                for part in found["splits"]}  # fmt: skip

    first = inspect("acme/many")
    assert [name for name in first["configs"] if name != "it"] == ["en", "de", "fr", "fr_all"]
    assert first["config"] == "en"
    assert splits("en") == {"train": "en/train", "test": "en/test"}
    assert splits("fr") == {"train": "fr/x/a", "held_out": "fr/b"}
    assert splits("fr_all") == {"train": "fr/b"}
    if source == "files":
        assert splits("de") == {"train": "train/de/rows", "validation": "train/de/dev"}
        assert "No file that is read here belongs to `it`, which the card's configs name." in first["notes"]


def test_configs_that_name_no_file_are_said_to(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    card = b"---\nlicense: mit\nconfigs:\n- {config_name: en, data_dir: english}\n- old\n---\n"
    shards = {f"data/{part}-00000-of-00001.jsonl": lines({"text": part}) for part in ("train", "held_out")}
    hub.seed("acme/lost", "dataset", {"README.md": card, **shards})
    found = inspect("acme/lost")
    assert (found["configs"], [part["split"] for part in found["splits"]]) == (["default"], ["held_out", "train"])
    assert "belongs to `en`, which the card's configs name" in " ".join(found["notes"])


def test_folders_of_images_by_config(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    card = b"---\nlicense: mit\nconfigs:\n- {config_name: a, data_dir: a}\n- {config_name: b, data_dir: b}\n---\n"
    files = {f"{config}/{part}/{kind}/{i}.png": f"{config}{part}{kind}{i}".encode() for config in ("a", "b")
             for part in ("train", "test")[: 1 + (config == "b")] for kind in ("cat", "dog") for i in range(3)}  # fmt: skip
    hub.seed("acme/pets", "dataset", {"README.md": card, **files})
    found = inspect("acme/pets")
    assert (found["configs"], found["config"], found["rows_examined"]) == (["a", "b"], "a", {"train": 6})
    found = inspect("acme/pets", config="b")
    assert found["rows_examined"] == {"train": 6, "test": 6}
    assert found["columns"]["label"]["labels"] == {"cat": 3, "dog": 3}


def test_class_names_are_used_for_labels(hub):
    card = b"""---
license: mit
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
---
"""
    hub.seed("acme/reviews", "dataset", {"README.md": card, "train.jsonl": lines(*reviews(0, 10))})
    found = inspect()
    assert found["features"]["label"] == "ClassLabel(negative, positive)"
    assert found["columns"]["label"]["labels"] == {"negative": 5, "positive": 5}


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (NOT_READY, "still computing"),
        ({"status": 404}, "does not have this dataset"),
        ({"status": 429, "headers": {"Retry-After": "77"}}, "429 , retry after 77 s"),
        ({"status": 200, "body": "<html>"}, "something else than JSON"),
        ({"drop": True}, "cannot be reached"),
        ({"drop": 10}, "cannot be reached"),
    ],
)
def test_a_viewer_that_does_not_answer_is_replaced_and_that_is_said(hub, failure, said):
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines(*reviews(0, 10))})
    hub.fail("/splits", times=None, **failure)
    found = inspect()
    assert found["source"] == "files"
    assert found["rows_examined"] == {"train": 10}
    (note,) = found["notes"]
    assert hub.viewer_url in note
    assert said in note
    assert note.endswith("Computed from the files instead.")


def test_a_viewer_of_another_kind_is_replaced_too(hub):
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines(*reviews(0, 10))})
    hub.fail("/splits", status=200, body='{"splits": 7}')
    found = inspect()
    assert found["source"] == "files"
    assert "another shape than its API says" in found["notes"][0]


def test_a_revision_is_read_from_its_files(hub):
    old = hub.seed("acme/reviews", "dataset", {"train.jsonl": lines({"a": 1})}).refs["refs/heads/main"]
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines({"a": 2})})
    found = inspect(revision=old)
    assert (found["source"], found["revision"], found["sample"]) == ("files", old, [{"a": 1}])


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"movie.avi": b"x"}, ValueError, "none is CSV"),
        ({"train.jsonl": b"{broken\n"}, ValueError, "train.jsonl cannot be read as what its name says"),
        ({"train.csv": b""}, ValueError, "holds no rows"),
        ({"train.parquet": b"PAR1"}, (ValueError, ImportError), "Parquet"),
    ],
)
def test_files_that_cannot_be_read(hub, monkeypatch, files, kind, message):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    hub.seed("acme/reviews", "dataset", files)
    with pytest.raises(kind, match=message):
        inspect()


def test_a_web_page_in_place_of_a_file_is_not_taken_for_data(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    hub.seed("acme/reviews", "dataset", {"train.csv": b"a,b\n1,2\n"})
    hub.fail(
        "/resolve/", status=200, headers={"content-type": "text/html"}, body="<html>\nlog, in\n</html>", times=None
    )
    with pytest.raises(ConnectionError, match=r"train.csv of dataset acme/reviews.*a web page"):
        inspect()


def test_the_token_goes_only_where_it_belongs(hub, monkeypatch):
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines(*reviews(0, 10))})
    got = []

    def keep(request: Request) -> PlainTextResponse:
        got.append(request.headers.get("authorization"))
        return PlainTextResponse("no")

    with Service(Starlette(routes=[Route("/{path:path}", keep)])) as stranger:
        elsewhere = stranger.url.replace("127.0.0.1", "localhost")
        redirect = Route("/{path:path}", lambda request: RedirectResponse(elsewhere + "/splits"))
        with Service(Starlette(routes=[redirect])) as viewer:
            monkeypatch.setenv("HF_DATASETS_SERVER", viewer.url)
            assert inspect()["source"] == "files"
            assert viewer.requests[0].headers["authorization"] == "Bearer " + hub.token
    assert got == [None]


@pytest.mark.long
def test_it_survives_saving(hub):
    hub.seed("acme/reviews", "dataset", {"train.jsonl": lines(*reviews(0, 10))})
    found = assert_survives_saving(
        HubInspectDatasetTool,
        "huggingface_hub",
        "pyarrow",
        call={"dataset": "acme/reviews"},
        environment=hub.environment(),
    )
    assert found["sample"][0] == reviews(0, 1)[0]
