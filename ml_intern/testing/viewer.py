"""The Hub's dataset viewer: what is in a dataset, without downloading it."""

import functools
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from starlette.responses import JSONResponse, Response

from ml_intern.testing.hub_http import Call, Routes
from ml_intern.testing.hub_statistics import describe
from ml_intern.testing.hub_store import Commit, Refused, Repo
from ml_intern.testing.hub_tables import Layout, Table, layout, load

PREFIX = "/datasets-server"
# What the real one answers while it is still computing: `hub.fail("/statistics", **NOT_READY)`.
NOT_READY: dict[str, Any] = {
    "status": 500,
    "headers": {"X-Error-Code": "ResponseNotReady"},
    "body": {"error": "The server is busier than usual and the response is not ready yet. Please retry later."},
}
_PAGE = 100
_CELLS = 200_000  # characters of JSON; beyond that, long cells of a preview are cut
_CUT = 100
_WORD = re.compile(r"\w+")
_NO_FAULTS: dict[str, Any] = {"pending": [], "failed": []}

routes = Routes()


class _View:
    """A dataset that the caller may see, and the part of it that is asked for."""

    def __init__(self, call: Call):
        self.call = call
        self.name = self._required("dataset")
        try:
            self.repo: Repo = call.visible("dataset", self.name)
            call.check_gate(self.repo)
        except Refused as refusal:
            text = "The dataset does not exist, or is not accessible without authentication (private or gated)."
            text += " Please check the spelling of the dataset name or retry with authentication."
            raise _external(call, text) from refusal
        self.commit: Commit = self.repo.resolve("main")
        self.card = call.hub.profile(self.repo, self.commit).card or {}
        self.layout: Layout = layout(self.commit, self.card)

    def _required(self, name: str) -> str:
        value = self.call.one(name)
        if not value:
            raise Refused(422, f"Parameter '{name}' is required", "MissingRequiredParameter")
        return value

    def configs(self) -> dict[str, dict[str, list[str]]]:
        """All configs, or the one that is asked for."""
        wanted = self.call.one("config")
        if wanted and wanted not in self.layout.configs:
            raise Refused(404, f"The config '{wanted}' does not exist for the dataset.", "ConfigNotFoundError")
        return {wanted: self.layout.configs[wanted]} if wanted else self.layout.configs

    def split(self) -> tuple[str, str, Table]:
        """The config and split that are asked for, and its rows."""
        config, split = self._required("config"), self._required("split")
        splits = self.configs()[config]
        if split not in splits:
            raise Refused(404, f"The split '{split}' does not exist for the config '{config}'.", "SplitNotFoundError")
        return config, split, self.table(config, split)

    def table(self, config: str, split: str) -> Table:
        """Rows of a split."""
        return load(self.call.hub, self.repo, self.commit, config, self.layout.configs[config][split])

    def window(self) -> tuple[int, int]:
        """First row and number of rows that are asked for."""
        found = []
        for name, default in (("offset", 0), ("length", _PAGE)):
            text = self.call.one(name, str(default))
            if not text.isdigit():
                raise Refused(422, f"Parameter '{name}' must be a non-negative integer", "InvalidParameter")
            found.append(int(text))
        if found[1] > _PAGE:
            raise Refused(422, f"Parameter 'length' must not be greater than {_PAGE}", "InvalidParameter")
        return found[0], found[1]


def _external(call: Call, text: str) -> Refused:
    if call.user:
        return Refused(404, text, "ExternalAuthenticatedError")
    return Refused(401, text, "ExternalUnauthenticatedError")


def _route(name: str) -> Callable[[Callable[[_View], Any]], Callable[[_View], Any]]:
    def keep(function: Callable[[_View], Any]) -> Callable[[_View], Any]:
        @functools.wraps(function)
        def handler(call: Call) -> Response:
            return JSONResponse(function(_View(call)))

        routes.add("GET", f"{PREFIX}/{name}")(handler)
        return function

    return keep


@routes.add("GET", f"{PREFIX}/is-valid")
def is_valid(call: Call) -> Response:
    """Which of the other routes work for a dataset."""
    try:
        _View(call)
        works = True
    except Refused as refusal:
        if refusal.code != "EmptyDatasetError":
            raise
        works = False
    return JSONResponse(dict.fromkeys(("preview", "viewer", "search", "filter", "statistics"), works))


@_route("splits")
def splits(view: _View) -> dict[str, Any]:
    """All configs and splits."""
    found = [(config, split) for config, splits in view.configs().items() for split in splits]
    return {"splits": [{"dataset": view.name, "config": c, "split": s} for c, s in found], **_NO_FAULTS}


@_route("info")
def info(view: _View) -> dict[str, Any]:
    """Columns and sizes, of all configs or of one."""
    infos = {config: _info(view, config) for config in view.configs()}
    wanted = view.call.one("config")
    return {"dataset_info": infos[wanted] if wanted else infos, **_NO_FAULTS, "partial": False}


def _info(view: _View, config: str) -> dict[str, Any]:
    tables = {split: view.table(config, split) for split in view.layout.configs[config]}
    place = {"dataset_name": view.name.rpartition("/")[2]}
    shown = {
        split: {"name": split, "num_bytes": table.num_bytes, "num_examples": len(table.rows), **place}
        for split, table in tables.items()
    }
    size = sum(table.num_bytes for table in tables.values())
    first = next(iter(tables.values()))
    about = {"description": "", "citation": "", "homepage": "", "license": "", "features": first.features}
    builder = {"builder_name": first.builder, **place, "config_name": config, "version": {"version_str": "0.0.0"}}
    return {**about, **builder, "splits": shown, "download_size": size, "dataset_size": size}


@_route("size")
def size(view: _View) -> dict[str, Any]:
    """Bytes and rows of the dataset, of each config and of each split."""
    per_split, per_config = [], []
    for config, splits in view.configs().items():
        mine = []
        for split in splits:
            table = view.table(config, split)
            place = {"dataset": view.name, "config": config, "split": split, "num_columns": len(table.features)}
            mine.append({**place, **_bytes(table.num_bytes, len(table.rows))})
        per_split += mine
        place = {"dataset": view.name, "config": config, "num_columns": mine[0]["num_columns"]}
        per_config.append({**place, **_total(mine)})
    whole = {"dataset": view.name, **_total(per_config)}
    return {"size": {"dataset": whole, "configs": per_config, "splits": per_split}, **_NO_FAULTS, "partial": False}


def _total(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return _bytes(sum(one["num_bytes_original_files"] for one in parts), sum(one["num_rows"] for one in parts))


def _bytes(number: int, rows: int) -> dict[str, Any]:
    # Nothing is converted to Parquet here, so the three sizes are one.
    sizes = dict.fromkeys(("num_bytes_original_files", "num_bytes_parquet_files", "num_bytes_memory"), number)
    return {**sizes, "num_rows": rows, "estimated_num_rows": None}


@_route("parquet")
def parquet(view: _View) -> dict[str, Any]:
    """Files of a dataset that is kept in Parquet; others are not converted here."""
    files = []
    for config, splits in view.configs().items():
        for split, paths in splits.items():
            for path in paths:
                if not path.endswith(".parquet"):
                    raise Refused(404, f"{path} is not Parquet, and this viewer converts nothing.", "ResponseNotFound")
                url = f"{view.call.hub.page(view.repo)}/resolve/main/{path}"
                place = {"dataset": view.name, "config": config, "split": split, "url": url}
                files.append({**place, "filename": path.rpartition("/")[2], "size": view.commit.files[path].size})
    return {"parquet_files": files, **_NO_FAULTS, "partial": False, "features": None}


@_route("first-rows")
def first_rows(view: _View) -> dict[str, Any]:
    """The first hundred rows; long cells are cut where the answer would get too large."""
    config, split, table = view.split()
    shown = _rows(list(enumerate(table.rows[:_PAGE])))
    cut = len(json.dumps(shown)) > _CELLS
    for one in shown if cut else ():
        for name, value in one["row"].items():
            text = value if isinstance(value, str) else json.dumps(value)
            if len(text) > _CUT:
                one["row"][name] = text[:_CUT]
                one["truncated_cells"].append(name)
    place = {"dataset": view.name, "config": config, "split": split}
    truncated = cut or len(table.rows) > _PAGE
    return {**place, "features": _features(table), "rows": shown, "truncated": truncated}


@_route("rows")
def rows(view: _View) -> dict[str, Any]:
    """A window of rows."""
    _, _, table = view.split()
    return _window(view, table, list(enumerate(table.rows)))


@_route("search")
def search(view: _View) -> dict[str, Any]:
    """Rows with a word of the query in a column of texts, those with most of them first."""
    _, _, table = view.split()
    words = {word.lower() for word in _WORD.findall(view._required("query"))}
    texts = [name for name, feature in table.features.items() if feature.get("dtype") == "string"]
    scored = []
    for number, row in enumerate(table.rows):
        found = _words(row, texts)
        if hits := sum(found.count(word) for word in words):
            scored.append((-len(words & set(found)), -hits, number))
    return _window(view, table, [(number, table.rows[number]) for *_, number in sorted(scored)])


def _words(row: dict[str, Any], names: list[str]) -> list[str]:
    """All words in the given columns of a row."""
    return [word.lower() for name in names for word in _WORD.findall(row[name] or "")]


@_route("filter")
def filter(view: _View) -> dict[str, Any]:
    """Rows that fulfil an SQL condition such as `"label" = 1 AND "text" LIKE '%good%'`, in a given order."""
    _, _, table = view.split()
    where, order = view.call.one("where"), view.call.one("orderby")
    if not where and not order:
        raise Refused(422, "Parameter 'where' or 'orderby' is required", "MissingRequiredParameter")
    with closing(sqlite3.connect(":memory:")) as database:
        names = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in table.features]
        database.execute(f"CREATE TABLE data (__index INTEGER, {', '.join(names)})")
        cells = [[i, *(_cell(value) for value in row.values())] for i, row in enumerate(table.rows)]
        database.executemany(f"INSERT INTO data VALUES ({', '.join('?' * (len(names) + 1))})", cells)
        try:
            query = f"SELECT __index FROM data WHERE {where or 1} ORDER BY {order or '__index'}"
            found = [number for (number,) in database.execute(query)]
        except sqlite3.Error as error:
            raise Refused(422, f"Parameter 'where' or 'orderby' is invalid: {error}", "InvalidParameter") from error
    return _window(view, table, [(number, table.rows[number]) for number in found])


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


@_route("statistics")
def statistics(view: _View) -> dict[str, Any]:
    """Statistics of each column."""
    _, _, table = view.split()
    return {"num_examples": len(table.rows), "statistics": describe(table), "partial": False}


def _window(view: _View, table: Table, found: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    offset, length = view.window()
    shown = _rows(found[offset : offset + length])
    total = {"num_rows_total": len(found), "num_rows_per_page": _PAGE, "partial": False}
    return {"features": _features(table), "rows": shown, **total}


def _features(table: Table) -> list[dict[str, Any]]:
    return [{"feature_idx": i, "name": name, "type": type} for i, (name, type) in enumerate(table.features.items())]


def _rows(found: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{"row_idx": number, "row": dict(row), "truncated_cells": []} for number, row in found]
