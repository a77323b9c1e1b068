"""What is in a dataset of the Hugging Face Hub, and may one train on it?"""

from typing import Any

from smolagents import Tool


class HubInspectDatasetTool(Tool):
    """Shows a dataset's make-up and rows, and judges them: gaps, duplicates, leaks, balance, lengths, columns' roles.

    The dataset viewer (`HF_DATASETS_SERVER`, by default that of huggingface.co) says what there is. All rows are
    judged where the files (CSV, JSON, Parquet) have 20 MB at most, or a split 20,000 rows; else a sample. Where there
    is no viewer, or a revision is asked for, the files alone are read.
    """

    name = "hub_inspect_dataset"
    description = (
        "Shows what a dataset on the Hugging Face Hub holds (configs, splits, features, sample rows, files) and what "
        "decides whether one may train on it: licence, missing values, duplicates within and across splits, label "
        "balance, text lengths, columns' roles. Judged on the rows counted in rows_examined: all of a small dataset. "
        "In wide tables neighbours that are alike are shown as one, as 'pixel_00..pixel_63'. Read `warnings`, `notes`."
    )
    inputs = {
        "dataset": {"type": "string", "description": "Such as 'stanfordnlp/imdb'."},
        "config": {"type": "string", "description": "Configuration (default: the first).", "nullable": True},
        "split": {"type": "string", "description": "Split (default: train, else the first).", "nullable": True},
        "rows": {"type": "integer", "description": "Sample rows to show, 0 to 100 (default 5).", "nullable": True},
        "revision": {"type": "string", "description": "Branch, tag or commit (default main).", "nullable": True},
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "revision": {"type": "string", "description": "The commit's SHA."},
            "source": {"type": "string", "description": "viewer or files."},
            "license": {"type": ["string", "null"]},
            "gated": {"type": "boolean"},
            "private": {"type": "boolean"},
            "configs": {"type": "array", "items": {"type": "string"}},
            "config": {"type": "string"},
            "split": {"type": "string"},
            "splits": {"type": "array", "description": "{split, rows, bytes} of the config; null: not known."},
            "features": {"type": "object", "description": "Column, or run of columns, to type."},
            "sample": {"type": "array", "description": "Rows; long cells are cut, a run of columns is a list."},
            "rows_examined": {"type": "object", "description": "Split to number of rows judged."},
            "all_rows_examined": {"type": "boolean"},
            "columns": {
                "type": "object",
                "description": "Column to {role, missing, distinct, characters?, labels?} over the rows examined; a "
                "run of columns to {role, columns: how many, missing in all, distinct: [least, most]}.",
            },
            "duplicates": {
                "type": "object",
                "description": "{compared_on, within: {split: rows}, across: {'a & b': rows of b that are in a, for "
                "each pair}, conflicting_labels: rows that are alike but for the label}.",
            },
            "warnings": {"type": "array", "items": {"type": "string"}},
            "notes": {"type": "array", "items": {"type": "string"}, "description": "How this was found out."},
            "files": {"type": "array", "description": "{path, size in bytes}, the first 200."},
            "files_total": {"type": "object", "description": "{count, bytes}."},
        },
    }
    effects = "read"

    def forward(
        self,
        dataset: str,
        config: str | None = None,
        split: str | None = None,
        rows: int | None = 5,
        revision: str | None = None,
    ) -> dict:
        from huggingface_hub import HfApi

        count = 5 if rows is None else rows
        if not 0 <= count <= 100:
            raise ValueError(f"`rows` is 0 to 100, not {count}. For more, use hub_download.")
        subject = f"dataset {dataset}" + (f" at {revision}" if revision else "")
        options = {"repo_id": dataset, "revision": revision, "files_metadata": True, "timeout": 20}
        info = self._ask(subject, 30, HfApi(endpoint=self._hub()).dataset_info, **options)
        notes, look = [], None
        if revision:
            notes.append("The viewer knows only the main branch: computed from the files of the revision.")
        else:
            try:
                look = self._from_viewer(info, config, split)
            except (ConnectionError, KeyError, TypeError, AttributeError) as error:
                shape = f"The dataset viewer's answer has another shape than its API says ({error!r})."
                why = error if isinstance(error, ConnectionError) else shape
                notes.append(f"{why} Computed from the files instead.")
        look = look or self._from_files(info, config, split, notes)
        rows, notes = look["rows"][look["split"]], notes + look["notes"]
        totals = {part["split"]: part["rows"] for part in look["splits"]}
        seen = {name: len(look["rows"].get(name, [])) for name in totals}
        short = [f"{name} {n:,} of {totals[name] or 'more'}" for name, n in seen.items() if n != totals[name]]
        if short:
            which = "spread evenly over each" if look["source"] == "viewer" else "the first of each"
            notes.append(f"Not all rows were examined, but {which}: {', '.join(short[:8])}.")
        columns, warnings = self._columns(rows, look["features"], notes)
        duplicates = self._duplicates(look, columns, warnings)
        shown = self._runs({name: column["role"] for name, column in columns.items()})
        types = {name: self._type(kind) for name, kind in look["features"].items()}
        hidden = len(columns) - sum([len(run) for run in shown.values()])
        if hidden:
            notes.append(f"{hidden:,} of {len(columns):,} columns are not shown: use hub_download to see them.")
        if len(warnings) > 20:
            warnings[20:] = [f"And {len(warnings) - 20} more warnings of this kind."]
        files = [{"path": s.rfilename, "size": s.size} for s in info.siblings or []]
        licences = [tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")]
        stated = (info.card_data.to_dict() if info.card_data else {}).get("license")
        licence = ", ".join([stated] if isinstance(stated, str) else stated or licences) or None
        if licence is None:
            warnings.append("No licence is stated: ask its author before you publish anything made from it.")
        elif "-nc" in licence or licence in ("other", "unknown"):
            warnings.append(f"The licence is {licence}: read its terms before you train on it.")
        if info.gated:
            warnings.append("The dataset is gated: its conditions bind you.")
        return {
            "id": info.id,
            "revision": info.sha,
            "license": licence,
            "gated": bool(info.gated),
            "private": bool(info.private),
            **{key: look[key] for key in ("source", "configs", "config", "split", "splits")},
            "features": {name: " or ".join(sorted({types[one] for one in run})) for name, run in shown.items()},
            "sample": [self._short(row, shown) for row in rows[:count]],
            "rows_examined": {name: len(some) for name, some in look["rows"].items()},
            "all_rows_examined": not short,
            "columns": {name: self._summed([columns[column] for column in run]) for name, run in shown.items()},
            "duplicates": duplicates,
            "warnings": warnings,
            "notes": notes,
            "files": files[:200],
            "files_total": {"count": len(files), "bytes": sum([file["size"] or 0 for file in files])},
        }

    def _from_viewer(self, info: Any, config: str | None, split: str | None) -> dict:
        """The split and up to four others: all rows of small ones, else pages of 100 that are spread evenly."""
        import random
        import time

        until = time.monotonic() + 45
        listed = [(item["config"], item["split"]) for item in self._view("splits", {"dataset": info.id})["splits"]]
        configs, config, split, names = self._choose(listed, config, split)
        sizes = self._view("info", {"dataset": info.id, "config": config})["dataset_info"].get("splits") or {}
        where = {"dataset": info.id, "config": config, "length": 100}
        pages, rows, notes, splits = {}, {}, [], []
        for name in [split, *[other for other in names if other != split][:4]]:
            pages[name] = self._view("rows", {**where, "split": name, "offset": 0})
            if not pages[name].get("partial"):  # else the viewer holds only its beginning
                sizes[name] = {**(sizes.get(name) or {}), "num_examples": pages[name]["num_rows_total"]}
        for name, size in [(name, sizes.get(name) or {}) for name in names]:
            splits.append({"split": name, "rows": size.get("num_examples"), "bytes": size.get("num_bytes")})
        features = {feature["name"]: feature["type"] for feature in pages[split]["features"]}
        totals = {name: page["num_rows_total"] for name, page in pages.items()}
        media = {"Image", "Audio", "Video"}.intersection([self._type(kind) for kind in features.values()])
        size = sum([file.size or 0 for file in info.siblings or []])
        if size <= 20_000_000 and max(totals.values()) > 100 and not media:
            try:
                found = self._from_files(info, config, split, [])
                if found["features"].keys() == features.keys():
                    rows = {name: some for name, some in found["rows"].items() if len(some) == totals.get(name)}
            except (ValueError, OSError):
                rows = {}  # the files are laid out in a way that only the viewer understands
        for name in [name for name in pages if name not in rows]:
            found, total = {item["row_idx"]: item for item in pages[name]["rows"]}, totals[name]
            offsets = list(range(100, total, 100))
            if total > 20_000:
                offsets = [round(number * (total - 100) / 9) for number in range(1, 10)]
            random.Random(0).shuffle(offsets)  # so that what there is no time for is not the end
            try:
                while offsets and time.monotonic() < until:
                    page = self._view("rows", {**where, "split": name, "offset": offsets.pop()})
                    found.update({item["row_idx"]: item for item in page["rows"]})
            except ConnectionError as error:
                notes.append(f"{error} Fewer rows than usual were examined.")
            rows[name] = [found[index]["row"] for index in sorted(found)]
            if [item for item in found.values() if item.get("truncated_cells")]:
                notes.append(f"The viewer cut long cells of {name}: lengths are lower bounds.")
        look = {"source": "viewer", "configs": configs, "config": config, "split": split, "splits": splits}
        return {**look, "features": features, "rows": rows, "notes": notes}

    def _view(self, path: str, query: dict) -> dict:
        """One answer of the dataset viewer. It has no client of its own and is another host than the Hub."""
        import os

        from huggingface_hub.errors import HTTPError
        from huggingface_hub.utils import build_hf_headers, get_session

        server = os.environ.get("HF_DATASETS_SERVER")
        if not server and self._hub() != "https://huggingface.co":
            # Its namesake on huggingface.co is another dataset, and this Hub's token is none of that host's business.
            raise ConnectionError("HF_ENDPOINT is a Hub of its own and HF_DATASETS_SERVER names no viewer for it.")
        server = (server or "https://datasets-server.huggingface.co").rstrip("/")
        viewer = f"The dataset viewer ({server})"
        try:
            # Redirects to other hosts lose the token: the client's HTTP library sees to that.
            answer = get_session().get(f"{server}/{path}", params=query, headers=build_hf_headers(), timeout=15)
            if answer.status_code == 200:
                return answer.json()
        except HTTPError as error:
            raise ConnectionError(f"{viewer} cannot be reached ({type(error).__name__}: {error}).") from error
        except ValueError as error:
            raise ConnectionError(f"{viewer} answered with something else than JSON.") from error
        code, wait = answer.headers.get("X-Error-Code", ""), answer.headers.get("Retry-After")
        said = "is still computing" if code == "ResponseNotReady" else "failed at"
        said = "does not have" if answer.status_code == 404 else said
        wait = f", retry after {wait} s" if wait else ""
        raise ConnectionError(f"{viewer} {said} this dataset ({answer.status_code} {code}{wait}).")

    def _choose(self, listed: list, config: str | None, split: str | None) -> tuple:
        configs = list(dict.fromkeys([item[0] for item in listed]))
        if not configs:
            raise ConnectionError("The dataset viewer lists no splits of it.")
        if config and config not in configs:
            raise ValueError(f"There is no config {config!r}. Configs: {', '.join(configs)}.")
        config = config or ("default" if "default" in configs else configs[0])
        names = [item[1] for item in listed if item[0] == config]
        if split and split not in names:
            raise ValueError(f"Config {config!r} has no split {split!r}. Splits: {', '.join(names)}.")
        return configs, config, split or ("train" if "train" in names else names[0]), names

    def _from_files(self, info: Any, config: str | None, split: str | None, notes: list) -> dict:
        """Data files of up to five splits: all rows of 20 MB, else the first 20,000; in all 60 MB and two minutes."""
        import time

        until, budget = time.monotonic() + 120, 60_000_000
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
        most = 200_000 if sum(sizes.values()) <= 20_000_000 else 20_000
        layout = self._layout(sizes, (info.card_data.to_dict() if info.card_data else {}).get("configs"))
        if not layout:
            raise ValueError(
                f"Dataset {info.id} has no rows that can be read: {' '.join(notes)} Of its {len(sizes)} files "
                f"({', '.join(list(sizes)[:8])}) none is CSV, TSV, JSON, JSON lines or Parquet. Try hub_download."
            )
        configs, config, split, names = self._choose(list(layout), config, split)
        rows, counts, features = {}, {}, {}
        for name in [split, *[other for other in names if other != split][:4]]:
            found, whole = [], True
            for number, path in enumerate(layout[(config, name)]):
                if len(found) >= most or number == 20 or budget < 0 or time.monotonic() > until:
                    whole = False
                    break
                where = {"dataset": info.id, "revision": info.sha, "path": path}
                content, complete = self._ask(f"{path} of dataset {info.id}", 90, self._read, **where)
                budget -= len(content)
                some, complete = self._parse(path, content, complete, most - len(found))
                found += some
                whole = whole and complete
            rows[name], counts[name] = found, len(found) if whole else None
        if not rows[split]:
            raise ValueError(f"Split {split!r} of {info.id} holds no rows in {', '.join(layout[(config, split)])}.")
        for row in rows[split]:
            for column, value in row.items():
                kind = "null" if value is None else type(value).__name__
                if features.get(column, "null") == "null" or (kind, features[column]) == ("float", "int"):
                    features[column] = kind
        splits = []
        for name in names:
            size = sum([sizes[path] for path in layout[(config, name)]])
            splits.append({"split": name, "rows": counts.get(name), "bytes": size})
        look = {"source": "files", "configs": configs, "config": config, "split": split, "splits": splits}
        return {**look, "features": features, "rows": rows, "notes": []}

    def _layout(self, sizes: dict, configs: Any) -> dict:
        """(config, split) to files: as the card's `configs` say, else by the words train, test, ... in the path."""
        import fnmatch
        import re

        kinds = r"\.(csv|tsv|jsonl|ndjson|json|parquet)$"
        skipped = ("dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json", "config.json")
        data = [path for path in sizes if re.search(kinds, path) and path.split("/")[-1] not in skipped]
        layout = {}
        for entry in configs or []:
            files = entry.get("data_files")
            for part in [files] if isinstance(files, str | dict) else files or []:
                part = {"path": part} if isinstance(part, str) else part
                patterns = part.get("path") or []
                key = (entry.get("config_name", "default"), part.get("split", "train"))
                for pattern in [patterns] if isinstance(patterns, str) else patterns:
                    found = fnmatch.filter(data, pattern.replace("**/", "*"))
                    layout[key] = list(dict.fromkeys(layout.get(key, []) + found))
        layout = {key: paths for key, paths in layout.items() if paths}
        if layout:
            return layout
        words = {"train": "train", "test": "test", "eval": "test", "val": "validation", "dev": "validation"}
        for path in sorted(data):
            found = re.findall(r"(?<![a-z])(train|test|eval|val|dev)(?:ing|id|idation)?(?![a-z])", path.lower())
            layout.setdefault(("default", words[found[-1]] if found else "train"), []).append(path)
        return layout

    def _read(self, dataset: str, revision: str, path: str) -> tuple:
        """The beginning of a file, and whether that is all of it."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        url = hf_hub_url(dataset, path, repo_type="dataset", revision=revision, endpoint=self._hub())
        content = bytearray()
        with http_stream_backoff(
            "GET", url, headers=build_hf_headers(), timeout=20, max_retries=1, retry_on_status_codes=(502, 503, 504)
        ) as response:
            hf_raise_for_status(response)
            if "html" in response.headers.get("Content-Type", ""):
                raise TypeError("a web page")
            for chunk in response.iter_bytes(1_000_000):
                content += chunk
                if len(content) > 20_000_000:
                    return bytes(content), False
        return bytes(content), True

    def _parse(self, path: str, content: bytes, whole: bool, most: int) -> tuple:
        """Rows of the beginning of a file, `most` and five million cells at most, and whether that is all of them."""
        import csv
        import importlib
        import io
        import json
        from itertools import islice, repeat

        if path.endswith(".parquet"):
            if not whole:
                raise ValueError(f"{path} is Parquet of more than 20 MB. Use hub_download and read it in code.")
            try:
                # `import` would make it a requirement of this tool.
                parquet = importlib.import_module("pyarrow.parquet")
            except ImportError:
                raise ValueError(f"{path} is Parquet and pyarrow is not installed. `pip install pyarrow`.") from None
            table = parquet.read_table(io.BytesIO(content))
            most = min(most, 5_000_000 // max(1, table.num_columns))
            return table.slice(0, most).to_pylist(), table.num_rows <= most
        text = content.decode("utf-8-sig", errors="replace")
        if not whole:
            text = text[: text.rfind("\n") + 1]
        try:
            if path.endswith((".csv", ".tsv")):
                header = text.split("\n", 1)[0]
                comma = "\t" if path.endswith(".tsv") else max(",;\t", key=header.count)
                most = min(most, 5_000_000 // (1 + header.count(comma)))
                csv.field_size_limit(20_000_000)
                rows = map(self._typed, csv.DictReader(io.StringIO(text, newline=""), delimiter=comma), repeat({}))
            elif path.endswith(".json") and whole and text.lstrip().startswith("["):
                rows = json.loads(text)
            else:
                rows = map(json.loads, [line for line in text.split("\n") if line.strip()])
            rows = [row if isinstance(row, dict) else {"value": row} for row in islice(rows, most + 1)]
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{path} cannot be read as what its name says: {error}. Use hub_download.") from error
        return rows[:most], whole and len(rows) <= most

    def _typed(self, row: dict, known: dict) -> dict:
        """A row of CSV, with numbers for what looks like one; `known` keeps what each text was taken for."""
        import re

        for value in [value for value in row.values() if isinstance(value, str) and value not in known]:
            known[value] = value or None
            if re.fullmatch(r"-?(0|[1-9]\d{0,17})", value):
                known[value] = int(value)
            elif re.fullmatch(r"-?\d+\.\d+([eE][+-]?\d+)?", value):
                known[value] = float(value)
        return {key: known[value] if isinstance(value, str) else value for key, value in row.items()}

    def _columns(self, rows: list, features: dict, notes: list) -> tuple:
        """Each column's role and numbers, and warnings about them."""
        import json
        import re
        import statistics
        from collections import Counter

        columns, tallies, few = {}, {}, []
        stems = Counter([re.sub(r"\d+", "#", name) for name in features])
        for name, kind in features.items():
            values = [row.get(name) for row in rows]
            present = [value for value in values if value == value and (value or value == 0)]
            made = (list, dict)
            counts = Counter([json.dumps(one, default=str) if isinstance(one, made) else one for one in present])
            tallies[name] = counts
            role = self._role(name, kind, present, len(counts))
            columns[name] = {"role": role, "missing": len(values) - len(present), "distinct": len(counts)}
            if present and isinstance(present[0], str) and role not in ("label", "id"):
                sizes = sorted([len(str(value)) for value in present])
                edges = {"min": sizes[0], "median": statistics.median(sizes), "max": sizes[-1]}
                columns[name]["characters"] = {**edges, "p95": sizes[int(0.95 * (len(sizes) - 1))]}
            repeated = role in ("number", "category") and 2 <= len(counts) <= 20 and not isinstance(present[0], float)
            if repeated and (len(counts) * 10 <= len(present) or isinstance(present[0], bool)):
                few.append(name)
        # One of many that are numbered alike is one of many features, though the others have more values.
        named = "label" in [column["role"] for column in columns.values()]
        if not named and len(few) == 1 and stems[re.sub(r"\d+", "#", few[0])] == 1:
            columns[few[0]]["role"] = "label"
            notes.append(f"`{few[0]}` is taken for the label: no column is named or typed as one.")
        warnings, lacking = [], [name for name, column in columns.items() if column["missing"]]
        if len(lacking) > 5:
            warnings.append(f"{len(lacking)} columns lack values in some rows: {self._listed(lacking)}.")
        else:
            warnings += [f"{columns[name]['missing']} of {len(rows)} rows lack `{name}`." for name in lacking]
        for name, column in columns.items():
            if column["role"] != "label" or not column["distinct"]:
                continue
            names = features[name].get("names") if isinstance(features[name], dict) else None
            column["labels"] = {}
            for value, count in tallies[name].most_common(50):
                known = names and isinstance(value, int) and 0 <= value < len(names)
                column["labels"][names[value] if known else str(value)] = count
            top, most = next(iter(column["labels"].items()))
            if column["distinct"] == 1:
                warnings.append(f"Every row seen has the same `{name}`: {top} (hidden, or sorted by it?).")
            elif most > 0.8 * (len(rows) - column["missing"]):
                share = 100 * most // (len(rows) - column["missing"])
                warnings.append(f"`{name}` is out of balance: {share} % are {top}.")
        same = [name for name, column in columns.items() if column["distinct"] == 1 and column["role"] != "label"]
        if same and len(rows) > 1:
            notes.append(f"The same value in all rows examined: {self._listed(same)}.")
        return columns, warnings

    def _listed(self, names: list) -> str:
        shown = ", ".join([f"`{name}`" for name in names[:5]])
        return f"{shown} and {len(names) - 5:,} more" if len(names) > 5 else shown

    def _duplicates(self, look: dict, columns: dict, warnings: list) -> dict:
        """Rows that occur more than once, judged by what a model would see of them; adds warnings."""
        from collections import Counter

        roles, split = {name: column["role"] for name, column in columns.items()}, look["split"]
        labels = [name for name, role in roles.items() if role in ("label", "target")]
        compared = [name for name, role in roles.items() if role in ("text", "input text", "conversation")]
        compared = compared or [name for name, role in roles.items() if role not in ("id", "label", "target")]
        compared = compared or list(roles)
        keys = {part: [self._key(row, compared) for row in rows] for part, rows in look["rows"].items()}
        seen = {part: Counter(some) for part, some in keys.items()}
        within = {part: len(keys[part]) - len(counts) for part, counts in seen.items()}
        across, parts = {}, list(seen)
        for index, first in enumerate(parts):
            for second in parts[index + 1 :]:
                both = sum([seen[second][key] for key in seen[first].keys() & seen[second].keys()])
                across[f"{first} & {second}"] = both
                if both:
                    warnings.append(f"{both} rows of {second} are also in {first}: a leak if one tests the other.")
        if within[split]:
            warnings.append(f"{within[split]} of {len(keys[split])} rows of {split} repeat an earlier one.")
        said = {}
        for key, row in zip(keys[split], look["rows"][split], strict=True):
            said.setdefault(key, set()).add(self._key(row, [name for name in labels if name not in compared]))
        conflicts = len([key for key, answers in said.items() if len(answers) > 1])
        if conflicts:
            warnings.append(f"{conflicts} rows appear with different labels.")
        on = self._listed(compared) if len(compared) <= 5 else f"{len(compared):,} columns"
        left = [name for name in labels if name not in compared]
        on += f", without {self._listed(left)}" if left else ""
        return {"compared_on": on, "within": within, "across": across, "conflicting_labels": conflicts}

    def _key(self, row: dict, columns: list) -> str:
        import json

        values = [row.get(name) for name in columns]
        values = [" ".join(value.lower().split()) if isinstance(value, str) else value for value in values]
        return json.dumps(values, default=str, sort_keys=True)

    def _role(self, name: str, kind: Any, present: list, distinct: int) -> str:
        import re

        word, form = name.lower(), self._type(kind).lower()
        first = present[0] if present else None
        if form in ("image", "audio", "video"):
            return form
        if isinstance(first, list) and first and isinstance(first[0], dict):
            return "conversation" if {"role", "from"} & set(first[0]) else "list"
        named = re.search(r"(^|_)(labels?|targets?|class|category|sentiment|intent|topic|is_\w+)$|^(y|species)$", word)
        few = distinct <= 200 if isinstance(first, int | str) else distinct <= 20 and distinct * 10 <= len(present)
        short = isinstance(first, int | float | str) and max([len(str(value)) for value in present]) <= 60
        if form.startswith("classlabel") or (named and few and short):
            return "label"
        if re.search(r"(^|_)(id|idx|index|uuid|guid)$", word):
            return "id"
        if isinstance(first, str):
            if re.fullmatch(r"prompt|instruction|question|query|input|source|context|premise|hypothesis", word):
                return "input text"
            if re.fullmatch(r"completion|response|answer|output|target|summary|translation|chosen|rejected", word):
                return "target text"
            return "category" if distinct <= 50 and distinct * 10 <= len(present) else "text"
        if isinstance(first, bool):
            return "category"
        if isinstance(first, int | float):
            return "target" if named else "number"
        return "unknown" if first is None else "other"

    def _runs(self, roles: dict) -> dict:
        """Columns by what they are shown as: in wide tables neighbours that are numbered alike, or alike in role."""
        import re

        runs = [[name] for name in roles]
        for pattern, most in ((r"\d+", 30), (r".+", 60)):
            if len(runs) <= most:
                break
            runs, last = [], None
            for name, role in roles.items():
                kind = (role, name if role == "label" and most == 30 else re.sub(pattern, "#", name))
                if kind != last:
                    runs.append([])
                runs[-1].append(name)
                last = kind
        return {run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}": run for run in runs[:60]}

    def _summed(self, columns: list) -> dict:
        if len(columns) == 1:
            return columns[0]
        distinct, missing = [column["distinct"] for column in columns], sum([column["missing"] for column in columns])
        many = {"role": columns[0]["role"], "columns": len(columns), "missing": missing}
        return {**many, "distinct": [min(distinct), max(distinct)]}

    def _type(self, kind: Any) -> str:
        """A feature's type in a few characters, from the viewer's JSON or from Python's name for it."""
        if isinstance(kind, str):
            return kind
        if isinstance(kind, list):
            return f"list[{self._type(kind[0])}]" if kind else "list"
        name = kind.get("_type")
        if name == "ClassLabel":
            return f"ClassLabel({', '.join(kind.get('names', [])[:20])})"
        if name in ("Sequence", "List", "LargeList") and "feature" in kind:
            return f"list[{self._type(kind['feature'])}]"
        if isinstance(name, str):
            return kind.get("dtype") or name
        return "{" + ", ".join([f"{key}: {self._type(value)}" for key, value in kind.items()]) + "}"

    def _short(self, row: dict, runs: dict) -> dict:
        import json

        short = {}
        for name, run in runs.items():
            value = row.get(run[0]) if len(run) == 1 else [row.get(column) for column in run]
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            cut = f"{text[:400]}… ({len(text):,} characters in all)"
            short[name] = cut if len(text) > 500 else value if isinstance(value, str) else json.loads(text)
        return short

    def _hub(self) -> str:
        import os

        return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    def _ask(self, subject: str, seconds: float, call: Any, **arguments: Any) -> Any:
        """Calls the Hub's client; what goes wrong becomes one or two lines and the nearest builtin error.

        The client sets no time-out on most calls, repeats failing ones for half a minute and sleeps for as long as a
        `Retry-After` says: so each call gets a thread, left behind after `seconds`. The same in every tool of the Hub.
        """
        import json
        import queue
        import re
        import threading

        from huggingface_hub import errors

        answers = queue.SimpleQueue()
        threading.Thread(target=self._work, args=(answers, call, arguments), daemon=True).start()
        try:
            answer, error = answers.get(timeout=seconds)
        except queue.Empty:
            answer, error = None, TimeoutError(f"no end after {seconds:.0f} s")
        if error is None:
            return answer
        if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
            error = error.__cause__  # "not in the cache" hides why the Hub did not give it
        status, headers, said, kind = 0, {}, str(error).strip().split("\n")[0][:200], ConnectionError
        if isinstance(error, errors.HfHubHTTPError):
            status, headers = error.response.status_code, error.response.headers
            said = f"{status}: {(error.server_message or said).splitlines()[0][:200]}"
        if isinstance(error, errors.GatedRepoError):
            kind, text = (
                PermissionError,
                f"gates {subject}. Accept its conditions on its page as the owner of HF_TOKEN.",
            )
        elif isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
            kind, text = FileNotFoundError, f"has no such revision or file of {subject} ({said}). Check `revision`."
        elif isinstance(error, errors.RepositoryNotFoundError):
            kind, text = FileNotFoundError, f"knows no {subject}, or hides it from you ({status}). "
            text += "Check its name and type; if it is private, set an HF_TOKEN that may read it."
        elif isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
            kind, text = PermissionError, f"refused {subject} ({said}). Set an HF_TOKEN that is valid and allowed to."
        elif status == 429:
            waits = re.findall(r"\bt=(\d+)", headers.get("RateLimit", ""))  # the Hub's own way to say it
            wait = headers.get("Retry-After") or "".join(waits[:1])
            text = (
                f"limits your requests (429) at {subject}. Try again {f'after {wait} seconds' if wait else 'later'}."
            )
        elif status >= 500:
            text = f"failed at {subject} ({said}). Try again in a minute."
        elif status:
            kind, text = ValueError, f"rejected {subject} ({said}). Change the arguments."
        elif isinstance(error, TimeoutError):
            kind, text = (
                TimeoutError,
                f"hangs, or holds back, {subject} ({said}). Check that it is up, then try again.",
            )
        elif isinstance(error, errors.HTTPError):  # httpx's in huggingface_hub 1.x, httpx2's in 2.x
            text = f"cannot be reached, or broke off, at {subject} ({type(error).__name__}: {said}). "
            text += "Check the network and HF_ENDPOINT, then try again."
        elif isinstance(error, json.JSONDecodeError | UnicodeDecodeError | KeyError | TypeError | AttributeError):
            text = f"answered {subject} with something else than its API's JSON ({said}). "
            text += "Is HF_ENDPOINT a Hub, with no proxy or login page before it?"
        else:
            raise error
        raise kind(f"The Hub ({self._hub()}) {text}") from error

    def _work(self, answers: Any, call: Any, arguments: dict) -> None:
        try:
            answers.put((call(**arguments), None))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for it, which raises it
            answers.put((None, error))
