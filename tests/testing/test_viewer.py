"""The dataset viewer of the local Hub, over HTTP."""

import json
import statistics
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

import pytest

from ml_intern.testing.hub import LocalHub
from ml_intern.testing.hub_statistics import describe
from ml_intern.testing.hub_tables import Table
from ml_intern.testing.viewer import NOT_READY

CARD = b"""---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
---
# Reviews
"""
CSV = b"text,label,stars,price,seen\ngood film,pos,5,1.5,True\nbad film,neg,1,,False\ngood good,pos,4,2,True\n"
SHORT = b"".join(CSV.splitlines(keepends=True)[:2])


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with LocalHub(tmp_path_factory.mktemp("hub"), {"hf_ann": "ann", "hf_bob": "bob"}) as service:
        service.seed("acme/reviews", "dataset", {"README.md": CARD, "train.csv": CSV, "test.csv": SHORT})
        yield service


def get(hub: LocalHub, route: str, token: str | None = None, **query: Any) -> dict[str, Any]:
    request = urllib.request.Request(f"{hub.viewer_url}/{route}?{urlencode(query)}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def error(hub: LocalHub, route: str, **query: Any) -> tuple[int, str, str]:
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(hub, route, **query)
    with raised.value as answer:
        return answer.code, answer.headers["X-Error-Code"], json.load(answer)["error"]


def part(name: str = "acme/reviews", split: str = "train", config: str = "default", **more: Any) -> dict[str, Any]:
    return {"dataset": name, "config": config, "split": split, **more}


def splits(hub: LocalHub, name: str) -> list[tuple[str, str]]:
    return [(one["config"], one["split"]) for one in get(hub, "splits", dataset=name)["splits"]]


def test_what_is_there(hub):
    assert all(get(hub, "is-valid", dataset="acme/reviews").values())
    assert splits(hub, "acme/reviews") == [("default", "train"), ("default", "test")]
    info = get(hub, "info", dataset="acme/reviews")["dataset_info"]["default"]
    assert {name: split["num_examples"] for name, split in info["splits"].items()} == {"train": 3, "test": 1}
    assert info["features"] == {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        "stars": {"dtype": "int64", "_type": "Value"},
        "price": {"dtype": "float64", "_type": "Value"},
        "seen": {"dtype": "bool", "_type": "Value"},
    }
    assert get(hub, "info", dataset="acme/reviews", config="default")["dataset_info"] == info
    size = get(hub, "size", dataset="acme/reviews")["size"]
    assert (size["dataset"]["num_rows"], size["dataset"]["num_bytes_original_files"]) == (4, len(CSV) + len(SHORT))
    assert [one["num_rows"] for one in size["splits"]] == [3, 1]


def test_rows(hub):
    first = get(hub, "first-rows", **part())
    assert [one["name"] for one in first["features"]] == ["text", "label", "stars", "price", "seen"]
    assert first["rows"][1] == {
        "row_idx": 1,
        "row": {"text": "bad film", "label": 0, "stars": 1, "price": None, "seen": False},
        "truncated_cells": [],
    }
    assert not first["truncated"]
    window = get(hub, "rows", **part(), offset=1, length=1)
    assert [one["row_idx"] for one in window["rows"]] == [1]
    assert (window["num_rows_total"], window["num_rows_per_page"]) == (3, 100)
    assert get(hub, "rows", **part(), offset=3)["rows"] == []


def test_search_puts_the_best_first(hub):
    found = get(hub, "search", **part(), query="GOOD film")
    assert [one["row_idx"] for one in found["rows"]] == [0, 2, 1]
    assert found["num_rows_total"] == 3
    assert get(hub, "search", **part(), query="awful")["rows"] == []


def test_filter_by_condition(hub):
    found = get(hub, "filter", **part(), where='"stars" > 3', orderby='"price" DESC')
    assert [one["row"]["stars"] for one in found["rows"]] == [4, 5]
    assert error(hub, "filter", **part(), where="no such thing")[:2] == (422, "InvalidParameter")


def test_statistics_of_each_kind_of_column(hub):
    answer = get(hub, "statistics", **part())
    assert answer["num_examples"] == 3
    columns = {one["column_name"]: (one["column_type"], one["column_statistics"]) for one in answer["statistics"]}
    assert list(columns) == ["label", "price", "seen", "stars", "text"]
    kind, label = columns["label"]
    assert (kind, label["frequencies"], label["n_unique"]) == ("class_label", {"pos": 2, "neg": 1}, 2)
    kind, price = columns["price"]
    assert (kind, price["nan_count"], price["nan_proportion"], price["mean"]) == ("float", 1, 0.33333, 1.75)
    kind, stars = columns["stars"]
    assert (kind, stars["min"], stars["max"], stars["median"]) == ("int", 1, 5, 4)
    assert stars["std"] == round(statistics.stdev([5, 1, 4]), 5)
    assert stars["histogram"] == {"hist": [1, 0, 0, 1, 1], "bin_edges": [1, 2, 3, 4, 5, 5]}
    assert columns["seen"] == ("bool", {"nan_count": 0, "nan_proportion": 0.0, "frequencies": {"True": 2, "False": 1}})
    assert columns["text"][0] == "string_label"


def column(dtype: str, values: list[Any]) -> tuple[str, dict[str, Any]]:
    table = Table({"c": {"dtype": dtype, "_type": "Value"}}, [{"c": value} for value in values], "csv", 0)
    (found,) = describe(table)
    return found["column_type"], found["column_statistics"]


def test_texts_are_labels_only_when_there_are_few_of_them():
    assert column("string", ["a", "b"] * 50)[0] == "string_label"
    kind, lengths = column("string", [f"text {number:03}" for number in range(100)])
    assert (kind, lengths["min"], lengths["max"]) == ("string_text", 8, 8)


@pytest.mark.parametrize("values", [[1], [1, 1000], list(range(11)), [0.5, 0.1, 7.25], [-5, 3], []])
def test_histogram_counts_every_value_once(values):
    dtype = "float64" if any(isinstance(value, float) for value in values) else "int64"
    histogram = column(dtype, values)[1]["histogram"]
    if not values:
        assert histogram is None
        return
    assert sum(histogram["hist"]) == len(values)
    assert len(histogram["bin_edges"]) == len(histogram["hist"]) + 1 <= 11
    assert histogram["bin_edges"] == sorted(histogram["bin_edges"])
    assert (histogram["bin_edges"][0], histogram["bin_edges"][-1]) == (min(values), max(values))


def test_json_lines_with_lists_and_structures(hub):
    rows = [{"id": 1, "tags": ["a", "b"], "meta": {"q": 1}}, {"id": 2, "tags": [], "meta": {"q": 2.5}, "new": "x"}]
    data = "\n".join(map(json.dumps, rows)).encode()
    hub.seed(
        "acme/nested", "dataset", {"data/train-00000-of-00002.jsonl": data, "data/train-00001-of-00002.jsonl": data}
    )
    assert splits(hub, "acme/nested") == [("default", "train")]
    shown = get(hub, "rows", **part("acme/nested"))
    assert shown["num_rows_total"] == 4
    assert shown["rows"][0]["row"] == {**rows[0], "new": None}
    features = {one["name"]: one["type"] for one in shown["features"]}
    assert features["tags"] == {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    assert features["meta"] == {"q": {"dtype": "float64", "_type": "Value"}}
    kinds = {
        one["column_name"]: one["column_type"] for one in get(hub, "statistics", **part("acme/nested"))["statistics"]
    }
    assert kinds == {"id": "int", "new": "string_label", "tags": "list"}


def test_configs_of_the_card(hub):
    card = b"""---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/*.csv
  - split: dev
    path: [held/out.csv]
- config_name: de
  data_files: de/**/*.csv
---
"""
    files = {"README.md": card, "en/a.csv": b"x\n1\n", "en/b.csv": b"x\n2\n", "held/out.csv": b"x\n3\n"}
    hub.seed("acme/configs", "dataset", {**files, "de/deep/a.csv": b"y\nja\n"})
    assert splits(hub, "acme/configs") == [("en", "train"), ("en", "dev"), ("de", "train")]
    assert [one["row"]["x"] for one in get(hub, "rows", **part("acme/configs", config="en"))["rows"]] == [1, 2]
    assert set(get(hub, "info", dataset="acme/configs")["dataset_info"]) == {"en", "de"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train.csv", "dev.csv", "my_test.csv"], ["train", "validation", "test"]),
        (["data/train/0.jsonl", "data/test/0.jsonl"], ["train", "test"]),
        (["data/odd-00000-of-00001.csv"], ["odd"]),
        (["anything.csv", "trainer.csv"], ["train"]),
    ],
)
def test_splits_by_names_of_files(hub, files, expected):
    name = f"acme/by-name-{abs(hash(tuple(files)))}"
    hub.seed(name, "dataset", {path: b'{"a": 1}\n' if path.endswith("jsonl") else b"a\n1\n" for path in files})
    assert [split for _, split in splits(hub, name)] == expected


def test_values_of_csv_become_types_as_in_pandas(hub):
    data = b"whole,gap,mixed,word,empty,flag\n007,1,1,inf,,true\n-2,,2.5,1_000,,false\n"
    hub.seed("acme/types", "dataset", {"train.csv": data})
    shown = get(hub, "rows", **part("acme/types"))
    types = {one["name"]: one["type"]["dtype"] for one in shown["features"]}
    assert types == {
        "whole": "int64", "gap": "float64", "mixed": "float64", "word": "string", "empty": "null", "flag": "bool"
    }  # fmt: skip
    assert shown["rows"][0]["row"]["whole"] == 7


def test_long_cells_of_a_preview_are_cut(hub):
    rows = [{"text": "x" * 5000, "short": "y"} for _ in range(120)]
    hub.seed("acme/long", "dataset", {"train.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    first = get(hub, "first-rows", **part("acme/long"))
    assert (first["truncated"], len(first["rows"])) == (True, 100)
    assert first["rows"][0]["truncated_cells"] == ["text"]
    assert len(first["rows"][0]["row"]["text"]) < 5000
    assert len(get(hub, "rows", **part("acme/long"), length=1)["rows"][0]["row"]["text"]) == 5000


def test_not_a_number_is_nothing(hub):
    hub.seed("acme/nan", "dataset", {"train.jsonl": b'{"a": NaN}\n{"a": 1.5}\n'})
    assert [one["row"]["a"] for one in get(hub, "rows", **part("acme/nan"))["rows"]] == [None, 1.5]


def test_new_commit_is_seen(hub):
    hub.seed("acme/changing", "dataset", {"train.csv": b"a\n1\n"})
    assert get(hub, "rows", **part("acme/changing"))["num_rows_total"] == 1
    hub.seed("acme/changing", "dataset", {"train.csv": b"a\n1\n2\n"})
    assert get(hub, "rows", **part("acme/changing"))["num_rows_total"] == 2


def test_errors_of_the_caller(hub):
    assert error(hub, "rows")[:2] == (422, "MissingRequiredParameter")
    assert error(hub, "rows", **part(), length=101)[:2] == (422, "InvalidParameter")
    assert error(hub, "rows", **part(), offset=-1)[:2] == (422, "InvalidParameter")
    assert error(hub, "rows", **part(split="none"))[:2] == (404, "SplitNotFoundError")
    assert error(hub, "rows", **part(config="none"))[:2] == (404, "ConfigNotFoundError")
    assert error(hub, "splits", dataset="acme/none")[:2] == (401, "ExternalUnauthenticatedError")
    assert error(hub, "splits", dataset="acme/none", token="hf_ann")[:2] == (404, "ExternalAuthenticatedError")


def test_dataset_that_cannot_be_shown(hub):
    hub.seed("acme/empty", "dataset", {"notes.txt": b"x"})
    assert error(hub, "splits", dataset="acme/empty")[1] == "EmptyDatasetError"
    assert not any(get(hub, "is-valid", dataset="acme/empty").values())
    hub.seed("acme/broken", "dataset", {"train.csv": b"a,b\n1,2,3\n"})
    assert error(hub, "rows", **part("acme/broken"))[1] == "DatasetGenerationError"
    hub.seed("acme/mixed", "dataset", {"train.jsonl": b'{"a": 1}\n{"a": "x"}\n'})
    assert "changes its type" in error(hub, "rows", **part("acme/mixed"))[2]


def test_private_dataset_only_for_its_owner(hub):
    hub.seed("ann/own", "dataset", {"train.csv": b"a\n1\n"}, private=True)
    assert get(hub, "rows", token="hf_ann", **part("ann/own"))["num_rows_total"] == 1
    assert error(hub, "rows", token="hf_bob", **part("ann/own"))[0] == 404
    assert error(hub, "rows", **part("ann/own"))[0] == 401


def test_not_ready_at_first(hub):
    hub.fail("/statistics", **NOT_READY)
    assert error(hub, "statistics", **part())[:2] == (500, "ResponseNotReady")
    assert get(hub, "statistics", **part())["num_examples"] == 3
