"""What is in a dataset of the Hugging Face Hub, and may one train on it?"""

from typing import Any

from smolagents import Tool


class HubInspectDatasetTool(Tool):
    """Shows a dataset's make-up and rows, and judges them: gaps, duplicates, leaks, balance, lengths, columns' roles.

    Rows come from the dataset viewer (`HF_DATASETS_SERVER`, by default that of huggingface.co), spread evenly over the
    split. Where it has none, or a revision is asked for, the beginning of the CSV, JSON or Parquet files is read.
    """

    name = "hub_inspect_dataset"
    description = (
        "Shows what a dataset on the Hugging Face Hub holds (configs, splits, features, sample rows, files) and what "
        "decides whether one may train on it: licence, missing values, duplicates within and across splits, label "
        "balance, text lengths, columns' roles. Judged on the rows counted in rows_examined. Read `warnings`."
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
            "features": {"type": "object", "description": "Column to type."},
            "sample": {"type": "array", "description": "Rows of the split; long cells are cut and say so."},
            "rows_examined": {"type": "object", "description": "Split to number of rows judged."},
            "all_rows_examined": {"type": "boolean"},
            "columns": {
                "type": "object",
                "description": "Column to {role, missing, distinct, characters?, labels?}, over the split.",
            },
            "duplicates": {
                "type": "object",
                "description": "{compared_on, within: {split: rows}, across: {'a & b': rows}, conflicting_labels}.",
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

        rows = 5 if rows is None else rows
        if not 0 <= rows <= 100:
            raise ValueError(f"`rows` is 0 to 100, not {rows}. For more, use hub_download.")
        subject = f"dataset {dataset}" + (f" at {revision}" if revision else "")
        options = {"repo_id": dataset, "revision": revision, "files_metadata": True, "timeout": 20}
        info = self._ask(subject, 30, HfApi(endpoint=self._hub()).dataset_info, **options)
        notes, look = [], None
        if revision:
            notes.append("The viewer knows only the main branch: computed from the files of the revision.")
        else:
            try:
                look = self._from_viewer(info.id, config, split)
            except ConnectionError as error:
                notes.append(f"{error} Computed from the files instead.")
            except (KeyError, TypeError, AttributeError) as error:
                why = f"The dataset viewer's answer has another shape than its API says ({error!r})."
                notes.append(f"{why} Computed from the files instead.")
        look = look or self._from_files(info, config, split, notes)
        columns, duplicates, warnings = self._judge(look)
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
            "source": look["source"],
            "license": licence,
            "gated": bool(info.gated),
            "private": bool(info.private),
            "configs": look["configs"],
            "config": look["config"],
            "split": look["split"],
            "splits": look["splits"],
            "features": {name: self._type(kind) for name, kind in look["features"].items()},
            "sample": [self._short(row) for row in look["rows"][look["split"]][:rows]],
            "rows_examined": {name: len(some) for name, some in look["rows"].items()},
            "all_rows_examined": look["all"],
            "columns": columns,
            "duplicates": duplicates,
            "warnings": warnings,
            "notes": notes + look["notes"],
            "files": files[:200],
            "files_total": {"count": len(files), "bytes": sum([file["size"] or 0 for file in files])},
        }

    def _from_viewer(self, dataset: str, config: str | None, split: str | None) -> dict:
        """Up to 1,000 rows of the split and 300 of each of four others, in pages spread evenly over it."""
        import math
        import time

        until = time.monotonic() + 45
        listed = [(item["config"], item["split"]) for item in self._view("splits", {"dataset": dataset})["splits"]]
        configs, config, split, names = self._choose(listed, config, split)
        sizes = self._view("info", {"dataset": dataset, "config": config})["dataset_info"].get("splits") or {}
        look: dict[str, Any] = {"source": "viewer", "configs": configs, "config": config, "split": split, "all": True}
        look.update({"rows": {}, "notes": []})
        for name in [split, *[other for other in names if other != split][:4]]:
            where = {"dataset": dataset, "config": config, "split": name}
            page = self._view("rows", {**where, "offset": 0, "length": 100})
            total = page["num_rows_total"]
            if name == split:
                look["features"] = {feature["name"]: feature["type"] for feature in page["features"]}
            pages = min(math.ceil(total / 100), 10 if name == split else 3)
            found = {item["row_idx"]: item for item in page["rows"]}
            for number in range(1, pages):
                if time.monotonic() > until:
                    look["notes"].append("The viewer is slow: fewer rows than usual were judged.")
                    break
                offset = number * 100 if pages * 100 >= total else round(number * (total - 100) / (pages - 1))
                for item in self._view("rows", {**where, "offset": offset, "length": 100})["rows"]:
                    found[item["row_idx"]] = item
            look["rows"][name] = [found[index]["row"] for index in sorted(found)]
            if [item for item in found.values() if item.get("truncated_cells")]:
                look["notes"].append(f"The viewer cut long cells of {name}: lengths are lower bounds.")
            if page.get("partial"):
                look["notes"].append(f"The viewer holds only the beginning of {name}.")
            look["all"] = look["all"] and len(found) >= total and not page.get("partial")
            sizes.setdefault(name, {})["num_examples"] = total
        look["all"] = look["all"] and len(names) == len(look["rows"])
        look["splits"] = []
        for name in names:
            size = sizes.get(name) or {}
            look["splits"].append({"split": name, "rows": size.get("num_examples"), "bytes": size.get("num_bytes")})
        return look

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
        code = answer.headers.get("X-Error-Code", "")
        if code == "ResponseNotReady":
            raise ConnectionError(f"{viewer} is still computing this dataset (ResponseNotReady).")
        if answer.status_code == 404:
            raise ConnectionError(f"{viewer} does not have this dataset ({code or 404}).")
        wait = answer.headers.get("Retry-After")
        raise ConnectionError(
            f"{viewer} failed ({answer.status_code} {code}{f', retry after {wait} s' if wait else ''})."
        )

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
        """The beginning of the data files: of up to five splits 10,000 rows; in all 60 MB and two minutes."""
        import time

        until, budget = time.monotonic() + 120, 60_000_000
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
        layout = self._layout(sizes, (info.card_data.to_dict() if info.card_data else {}).get("configs"))
        if not layout:
            raise ValueError(
                f"Dataset {info.id} has no rows that can be read: {' '.join(notes)} Of its {len(sizes)} files "
                f"({', '.join(list(sizes)[:8])}) none is CSV, TSV, JSON, JSON lines or Parquet. Try hub_download."
            )
        configs, config, split, names = self._choose(list(layout), config, split)
        look: dict[str, Any] = {"source": "files", "configs": configs, "config": config, "split": split, "notes": []}
        look.update({"rows": {}, "features": {}, "all": len(names) <= 5})
        parts = {}
        for name in [split, *[other for other in names if other != split]]:
            paths = layout[(config, name)]
            known = [sizes[path] for path in paths if sizes[path] is not None]
            size = {"split": name, "rows": None, "bytes": sum(known) if len(known) == len(paths) else None}
            parts[name] = size
            if len(look["rows"]) == 5:
                continue
            found, whole = [], True
            for number, path in enumerate(paths):
                if len(found) >= 10_000 or number == 20 or budget < 0 or time.monotonic() > until:
                    whole = False
                    break
                where = {"dataset": info.id, "revision": info.sha, "path": path}
                content, complete = self._ask(f"{path} of dataset {info.id}", 90, self._read, **where)
                budget -= len(content)
                some, complete = self._parse(path, content, complete)
                found += some
                whole = whole and complete
            if not whole:
                found = found[:10_000]
                look["notes"].append(f"Of {name} only the first {len(found):,} rows were read.")
            look["rows"][name] = found
            look["all"] = look["all"] and whole
            size["rows"] = len(found) if whole else None
        look["splits"] = [parts[name] for name in names]
        for row in look["rows"][split]:
            for column, value in row.items():
                if look["features"].get(column) in (None, "null"):
                    look["features"][column] = "null" if value is None else type(value).__name__
        if not look["rows"][split]:
            raise ValueError(f"Split {split!r} of {info.id} holds no rows in {', '.join(layout[(config, split)])}.")
        return look

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
        words = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test"}
        words.update({"validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"})
        for path in sorted(data):
            found = [words[word] for word in re.split(r"[^a-z]+", path.lower()) if word in words]
            layout.setdefault(("default", found[-1] if found else "train"), []).append(path)
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

    def _parse(self, path: str, content: bytes, whole: bool) -> tuple:
        """Rows of the beginning of a file, and whether that is all of them."""
        import csv
        import importlib
        import io
        import json

        if path.endswith(".parquet"):
            if not whole:
                raise ValueError(f"{path} is Parquet of more than 20 MB. Use hub_download and read it in code.")
            try:
                # `import` would make it a requirement of this tool.
                parquet = importlib.import_module("pyarrow.parquet")
            except ImportError:
                raise ValueError(f"{path} is Parquet and pyarrow is not installed. `pip install pyarrow`.") from None
            table = parquet.read_table(io.BytesIO(content))
            return table.slice(0, 10_000).to_pylist(), table.num_rows <= 10_000
        text = content.decode("utf-8-sig", errors="replace")
        if not whole:
            text = text[: text.rfind("\n") + 1]
        try:
            if path.endswith((".csv", ".tsv")):
                header = text.split("\n", 1)[0]
                comma = "\t" if path.endswith(".tsv") else max(",;\t", key=header.count)
                csv.field_size_limit(20_000_000)
                rows = [self._typed(row) for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=comma)]
            elif path.endswith(".json") and whole and text.lstrip().startswith("["):
                rows = json.loads(text)
            else:
                rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{path} cannot be read as what its name says: {error}. Use hub_download.") from error
        rows = [row if isinstance(row, dict) else {"value": row} for row in rows]
        return rows[:10_000], whole and len(rows) <= 10_000

    def _typed(self, row: dict) -> dict:
        import re

        typed = {}
        for key, value in row.items():
            if value is None or value == "":
                typed[key] = None
            elif isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})", value):
                typed[key] = int(value)
            elif isinstance(value, str) and re.fullmatch(r"-?\d+\.\d+([eE][+-]?\d+)?", value):
                typed[key] = float(value)
            else:
                typed[key] = value
        return typed

    def _judge(self, look: dict) -> tuple:
        """(columns, duplicates, warnings) from the rows: no request is made here."""
        import json
        import statistics
        from collections import Counter

        rows, split = look["rows"][look["split"]], look["split"]
        columns, warnings = {}, []
        for name, kind in look["features"].items():
            values = [row.get(name) for row in rows]
            present = [value for value in values if value is not None and value == value and value not in ("", [], {})]
            texts = [value for value in present if isinstance(value, str)]
            counts = Counter([json.dumps(value, default=str, ensure_ascii=False) for value in present])
            column = {"role": self._role(name, kind, present, len(counts)), "missing": len(values) - len(present)}
            column["distinct"] = len(counts)
            columns[name] = column
            if texts and column["role"] not in ("label", "id"):
                sizes = sorted([len(text) for text in texts])
                column["characters"] = {"min": sizes[0], "median": statistics.median(sizes), "max": sizes[-1]}
                column["characters"]["p95"] = sizes[int(0.95 * (len(sizes) - 1))]
            if column["missing"]:
                warnings.append(f"{column['missing']} of {len(rows)} rows lack `{name}`.")
            if column["role"] == "label" and counts:
                names = kind.get("names") if isinstance(kind, dict) else None
                labels = {}
                for value, count in counts.most_common(50):
                    number = json.loads(value)
                    known = names and isinstance(number, int) and 0 <= number < len(names)
                    labels[names[number] if known else str(number)] = count
                column["labels"] = labels
                top, most = next(iter(labels.items()))
                if len(counts) == 1:
                    warnings.append(f"Every row seen has the same `{name}`: {top} (hidden, or sorted by it?).")
                elif most > 0.8 * len(present):
                    warnings.append(f"`{name}` is out of balance: {100 * most // len(present)} % are {top}.")
        roles = {name: column["role"] for name, column in columns.items()}
        compared = [name for name, role in roles.items() if role in ("text", "input text", "conversation")]
        compared = compared or [name for name, role in roles.items() if role not in ("id", "label")] or list(roles)
        labels = [name for name, role in roles.items() if role == "label"]
        seen = {}
        for part, some in look["rows"].items():
            seen[part] = Counter([self._key(row, compared) for row in some])
        within = {part: sum(counts.values()) - len(counts) for part, counts in seen.items()}
        across, parts = {}, list(seen)
        for index, first in enumerate(parts):
            for second in parts[index + 1 :]:
                both = sum([seen[second][key] for key in seen[first].keys() & seen[second].keys()])
                if both:
                    across[f"{first} & {second}"] = both
                    warnings.append(f"{both} rows of {second} are also in {first}: a leak if one tests the other.")
        if within[split]:
            warnings.append(f"{within[split]} of {len(rows)} rows of {split} repeat an earlier one.")
        said = {}
        for row in rows:
            said.setdefault(self._key(row, compared), set()).add(self._key(row, labels))
        conflicts = len([key for key in said if len(said[key]) > 1])
        if conflicts:
            warnings.append(f"{conflicts} rows appear with different labels.")
        return (
            columns,
            {"compared_on": compared, "within": within, "across": across, "conflicting_labels": conflicts},
            warnings,
        )

    def _key(self, row: dict, columns: list) -> str:
        import json

        values = [row.get(name) for name in columns]
        values = [" ".join(value.lower().split()) if isinstance(value, str) else value for value in values]
        return json.dumps(values, default=str, sort_keys=True)

    def _role(self, name: str, kind: Any, present: list, distinct: int) -> str:
        import re

        word = name.lower()
        form = self._type(kind).lower()
        first = present[0] if present else None
        if form in ("image", "audio", "video"):
            return form
        if isinstance(first, list) and first and isinstance(first[0], dict):
            return "conversation" if {"role", "from"} & set(first[0]) else "list"
        scalar = isinstance(first, str | int | bool)
        named = re.search(r"(^|_)(labels?|targets?|class|category|sentiment|intent|topic|is_\w+)$", word)
        if form.startswith("classlabel") or isinstance(first, bool) or (named and scalar and distinct <= 200):
            return "label"
        if re.search(r"(^|_)(id|idx|index|uuid|guid)$", word):
            return "id"
        if isinstance(first, str):
            if re.fullmatch(r"prompt|instruction|question|query|input|source|context|premise|hypothesis", word):
                return "input text"
            if re.fullmatch(r"completion|response|answer|output|target|summary|translation|chosen|rejected", word):
                return "target text"
            return "category" if distinct <= 50 and distinct * 10 <= len(present) else "text"
        if isinstance(first, int) and distinct <= 20 and distinct * 10 <= len(present):
            return "label"
        if isinstance(first, int | float):
            return "number"
        return "unknown" if first is None else "other"

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

    def _short(self, row: dict) -> dict:
        import json

        short = {}
        for name, value in row.items():
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            cut = f"{text[:400]}… ({len(text):,} characters in all)"
            plain = value if isinstance(value, str) else json.loads(text)
            short[name] = cut if len(text) > 500 else plain
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
                f"gates {subject}. Accept its conditions on its page with HF_TOKEN's account.",
            )
        elif isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
            kind, text = FileNotFoundError, f"has no such revision or file of {subject} ({said}). Check `revision`."
        elif isinstance(error, errors.RepositoryNotFoundError):
            kind, text = FileNotFoundError, f"knows no {subject}, or hides it from you ({status}). "
            text += "Check its name and type; if it is private, set an HF_TOKEN that may read it."
        elif isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
            kind, text = PermissionError, f"refused {subject} ({said}). Set an HF_TOKEN that is valid and allowed to."
        elif status == 429:
            limit = re.search(r"\bt=(\d+)", headers.get("RateLimit", ""))  # the Hub's own way to say it
            wait = headers.get("Retry-After") or (limit and limit[1])
            remedy = f"Try again after {wait} seconds." if wait else "Try again in some minutes."
            text = f"limits your requests (429) at {subject}. {remedy}"
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
