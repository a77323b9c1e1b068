"""Datasets as the viewer sees them: which files make up which split, and what their columns are."""

import csv
import fnmatch
import importlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ml_intern.testing.hub_http import Hub
from ml_intern.testing.hub_store import Commit, FileEntry, Refused, Repo

Feature = dict[str, Any]
_BUILDERS = {"csv": "csv", "tsv": "csv", "jsonl": "json", "json": "json", "ndjson": "json", "parquet": "parquet"}
_ODD_NA = ("#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN")
_NA = frozenset(
    ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "#N/A", "n/a", "<NA>", *_ODD_NA)
)  # pandas' own
_WHOLE = re.compile(r"\s*[+-]?\d{1,18}\s*")
_REAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?\s*")
_SHARDED = re.compile(r"(?:^|/)data/(\w+)-\d{5}-of-\d{5}[^/]*\.\w+$")
_KEYWORDS = {
    "train": re.compile(r"(?:^|[^a-zA-Z0-9])(?:train|training)(?:$|[^a-zA-Z0-9])"),
    "validation": re.compile(r"(?:^|[^a-zA-Z0-9])(?:validation|valid|val|dev)(?:$|[^a-zA-Z0-9])"),
    "test": re.compile(r"(?:^|[^a-zA-Z0-9])(?:test|testing|eval|evaluation)(?:$|[^a-zA-Z0-9])"),
}


@dataclass(frozen=True)
class Table:
    """One split: its rows, and the type of each column as `datasets` writes it."""

    features: dict[str, Feature]
    rows: list[dict[str, Any]]
    builder: str
    num_bytes: int


@dataclass
class Layout:
    """A dataset's configs and splits, and the files of each."""

    configs: dict[str, dict[str, list[str]]] = field(default_factory=dict)


def layout(commit: Commit, card: Mapping[str, Any]) -> Layout:
    """Configs and splits of a dataset: those that the card's `configs` declares, else by the names of files."""
    data = [path for path in sorted(commit.files) if _ending(path) in _BUILDERS and not path.startswith(".")]
    declared = [config for config in card.get("configs") or [] if isinstance(config, dict)]
    if declared:
        return Layout({str(one.get("config_name", "default")): _declared(one, data) for one in declared})
    builders = Counter(_BUILDERS[_ending(path)] for path in data)
    if not builders:
        raise Refused(
            500, "The dataset is empty, or has no file of a kind that this viewer reads.", "EmptyDatasetError"
        )
    best = builders.most_common(1)[0][0]
    return Layout({"default": _by_name([path for path in data if _BUILDERS[_ending(path)] == best])})


def _ending(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _declared(config: Mapping[str, Any], data: list[str]) -> dict[str, list[str]]:
    folder = str(config.get("data_dir") or "").strip("/")
    below = [path for path in data if not folder or path.startswith(folder + "/")]
    wanted = config.get("data_files")
    if wanted is None:
        return _by_name(below)
    if isinstance(wanted, str) or (isinstance(wanted, list) and all(isinstance(item, str) for item in wanted)):
        wanted = [{"split": "train", "path": wanted}]
    if isinstance(wanted, dict):
        wanted = [{"split": split, "path": path} for split, path in wanted.items()]
    splits = {}
    for item in wanted:
        patterns = item["path"] if isinstance(item["path"], list) else [item["path"]]
        full = [f"{folder}/{pattern}" if folder else pattern for pattern in patterns]
        splits[str(item["split"])] = [path for path in below if any(_fits(path, pattern) for pattern in full)]
    return {split: paths for split, paths in splits.items() if paths}


def _fits(path: str, pattern: str) -> bool:
    # `**/` also stands for no folder at all, which fnmatch does not know.
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern.replace("**/", ""))


def _by_name(paths: list[str]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for path in paths:
        if found := _SHARDED.search(path):
            splits.setdefault(found[1], []).append(path)
    for split, keyword in _KEYWORDS.items() if not splits else ():
        if found_here := [path for path in paths if keyword.search(path)]:
            splits[split] = found_here
    return splits or {"train": paths}


def load(hub: Hub, repo: Repo, commit: Commit, config: str, paths: Iterable[str]) -> Table:
    """Rows and column types of a split."""
    declared = json.dumps(_declared_features(hub.profile(repo, commit).card or {}, config))
    return _load(hub.store.blobs.read, tuple((path, commit.files[path]) for path in paths), declared)


@lru_cache(maxsize=16)
def _load(read: Callable[[str], bytes], files: tuple[tuple[str, FileEntry], ...], declared: str) -> Table:
    readers = {"csv": _read_csv, "json": _read_json, "parquet": _read_parquet}
    rows: list[dict[str, Any]] = []
    builder = _BUILDERS[_ending(files[0][0])]
    for path, file in files:
        try:
            rows += readers[builder](path, read(file.sha256))
        except (ValueError, csv.Error) as error:
            text = f"An error occurred while generating the dataset: {path}: {error}"
            raise Refused(500, text, "DatasetGenerationError") from error
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if builder == "csv":
        for name in columns:
            _convert(rows, name)
    known: dict[str, Feature] = json.loads(declared)
    features = {name: known.get(name) or infer((row.get(name) for row in rows), name) for name in columns}
    for name, feature in features.items():
        if feature.get("dtype") == "float64":
            for row in rows:
                row[name] = None if row.get(name) is None else float(row[name])
        if feature.get("_type") == "ClassLabel":
            numbers = {label: number for number, label in enumerate(feature["names"])}
            for row in rows:
                row[name] = numbers.get(row.get(name), row.get(name))
    rows = [{name: row.get(name) for name in columns} for row in rows]
    return Table(features, rows, builder, sum(file.size for _, file in files))


def _read_csv(path: str, data: bytes) -> list[dict[str, Any]]:
    csv.field_size_limit(1 << 30)
    delimiter = "\t" if _ending(path) == "tsv" else ","
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter)
    head = next(reader, [])
    rows = []
    for cells in reader:
        if len(cells) > len(head):
            raise ValueError(f"Expected {len(head)} fields in line {reader.line_num}, saw {len(cells)}")
        if cells:
            padded = cells + [""] * (len(head) - len(cells))
            rows.append({name: None if cell in _NA else cell for name, cell in zip(head, padded, strict=True)})
    return rows


def _convert(rows: list[dict[str, Any]], name: str) -> None:
    """Give a column of texts the narrowest type that all its values have, as pandas does."""
    values = [value for row in rows if (value := row.get(name)) is not None]
    missing = len(values) < len(rows)
    # A gap turns whole numbers into floats.
    kinds: list[Callable[[str], Any]] = [_boolean, *([] if missing else [_whole]), _real]
    for kind in kinds if values else ():
        try:
            found = {value: kind(value) for value in set(values)}
        except ValueError:
            continue
        for row in rows:
            row[name] = found.get(row.get(name))
        return


def _boolean(text: str) -> bool:
    if text not in ("True", "False", "true", "false", "TRUE", "FALSE"):
        raise ValueError(text)
    return text.lower() == "true"


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _real(text: str) -> float:
    if not _REAL.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _read_json(path: str, data: bytes) -> list[dict[str, Any]]:
    text = data.decode("utf-8-sig")
    if _ending(path) == "json" and text.lstrip().startswith("["):
        rows = json.loads(text, parse_constant=lambda _: None)
    else:
        rows = [json.loads(line, parse_constant=lambda _: None) for line in text.split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("not every record is an object")
    return rows


def _read_parquet(path: str, data: bytes) -> list[dict[str, Any]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        text = f"{path}: reading Parquet needs pyarrow, which is not installed"
        raise Refused(501, text, "NotSupportedError") from error
    return parquet.read_table(io.BytesIO(data)).to_pylist()


def infer(values: Iterable[Any], name: str) -> Feature:
    """The type of a column from its values."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if not kinds:
        return _value("null")
    if kinds <= {int, float} and bool not in kinds:
        return _value("float64" if float in kinds else "int64")
    if len(kinds) > 1:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise Refused(500, f"Column {name} changes its type between rows: {found}", "DatasetGenerationError")
    if kinds == {list}:
        return {"feature": infer((item for value in present for item in value), name), "_type": "List"}
    if kinds == {dict}:
        names = dict.fromkeys(key for value in present for key in value)
        return {key: infer((value.get(key) for value in present), f"{name}.{key}") for key in names}
    return _value({bool: "bool", str: "string", bytes: "binary"}.get(kinds.pop(), "string"))


def _value(dtype: str) -> Feature:
    return {"dtype": dtype, "_type": "Value"}


def _declared_features(card: Mapping[str, Any], config: str) -> dict[str, Feature]:
    infos = card.get("dataset_info") or []
    for info in infos if isinstance(infos, list) else [infos]:
        if info.get("config_name", "default") == config or not isinstance(infos, list):
            return {one["name"]: _declared_feature(one) for one in info.get("features") or []}
    return {}


def _declared_feature(one: Mapping[str, Any]) -> Feature:
    """A feature from the card: `dtype: string`, `dtype: {class_label: ...}`, `list: ...`, `struct: [...]`."""
    for name in ("list", "sequence"):
        if name in one:
            inner = one[name]
            inner = (
                {"struct": inner}
                if isinstance(inner, list)
                else inner
                if isinstance(inner, dict)
                else {"dtype": inner}
            )
            return {"feature": _declared_feature(inner), "_type": "List"}
    if "struct" in one:
        return {part["name"]: _declared_feature(part) for part in one["struct"]}
    dtype = one.get("dtype", "string")
    if isinstance(dtype, dict):
        if "class_label" in dtype:
            names = dtype["class_label"]["names"]
            return {"names": list(names.values()) if isinstance(names, dict) else names, "_type": "ClassLabel"}
        return _declared_feature(dtype)
    if dtype in ("image", "audio", "video"):
        return {"_type": dtype.capitalize()}
    return _value(dtype)
