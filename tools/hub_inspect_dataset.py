"""What is in a dataset of the Hugging Face Hub, and may one train on it?"""

from typing import Any

from smolagents import Tool


class HubInspectDatasetTool(Tool):
    """Shows a dataset's make-up and rows, and judges them: gaps, duplicates, leaks, balance, lengths, columns' roles.

    The dataset viewer (`HF_DATASETS_SERVER`, by default that of huggingface.co) says what there is. All rows are
    judged where the files (CSV, JSON, Parquet) have 20 MB at most, or a split 20,000 rows; else a sample. Where there
    is no viewer, or a revision is asked for, the files alone are read; of folders of images or sounds only the list.
    What a sample cannot tell is asked of the viewer: its statistics cover all rows, and some rows of one split are
    looked up in all of another.
    """

    name = "hub_inspect_dataset"
    description = (
        "Shows what a dataset on the Hugging Face Hub holds (configs, splits, features, sample rows, files) and what "
        "decides whether one may train on it: licence, missing values, duplicates within and across splits, label "
        "balance, text and token lengths, columns' roles, and a verdict for each way to train (`methods`). Judged on the "
        "rows counted in rows_examined: all of a small dataset. In wide tables neighbours that are alike are shown as "
        "one, as 'pixel_00..pixel_63'. Read `warnings`, `notes`."
    )
    inputs = {
        "dataset": {"type": "string", "description": "Such as 'stanfordnlp/imdb'."},
        "config": {"type": "string", "description": "Configuration (default: the first).", "nullable": True},
        "split": {"type": "string", "description": "Split (default: train, else the first).", "nullable": True},
        "rows": {"type": "integer", "description": "Sample rows to show, 0 to 100 (default 5).", "nullable": True},
        "revision": {"type": "string", "description": "Branch, tag or commit (default main).", "nullable": True},
        "tokenizer": {
            "type": "string",
            "description": "Model whose tokenizer counts tokens (default none: estimated).",
            "nullable": True,
        },
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "id": {},
            "revision": {"description": "The commit's SHA."},
            "source": {"description": "viewer or files."},
            "license": {},
            "gated": {},
            "private": {},
            "configs": {},
            "config": {},
            "split": {},
            "splits": {"description": "[{split, rows, bytes}] of the config; null: not known."},
            "features": {"description": "Column, or run of columns, to type."},
            "sample": {"description": "Rows; long cells are cut, a run of columns is a list."},
            "rows_examined": {"description": "Split to number of rows judged."},
            "all_rows_examined": {"type": "boolean"},
            "columns": {
                "description": "Column to {role, missing, distinct, characters?, tokens? (estimated), labels?, turns?, "
                "hidden? (labels of -1), all_rows?: {rows, missing, labels?, hidden?, characters?} as the viewer "
                "counted}; a run to {role, columns, missing, distinct}."
            },
            "duplicates": {
                "description": "{compared_on, within: {split: rows that repeat an earlier one, answers included}, across: "
                "{'a & b': rows of b whose input is in a}, "
                "conflicting_labels: rows that are alike but for the label, looked_up?: {'a & b': [found, of]}}"
            },
            "methods": {
                "description": "sft, dpo, reward, grpo, text-, token-, image-, tabular-classification, embeddings, each "
                "to {verdict: go|fixable|no, why, fix, columns: {role: column}}."
            },
            "warnings": {},
            "notes": {"description": "How this was found out."},
            "files": {"description": "[{path, size}], the first 200."},
            "files_total": {"description": "{count, bytes}"},
        },
    }
    effects = "read"
    # What stands for a missing value in CSV, to pandas and thus to `datasets`; the first is the empty text.
    absent = "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"
    # Two columns that are one input.
    halves = (
        "sentence1 sentence2|sentence_1 sentence_2|sentence_a sentence_b|premise hypothesis|question1 question2|"
        "question sentence|question passage|question context|query passage|query document|query product_title|"
        "claim evidence|claim abstract|statement evidence|text1 text2|text_1 text_2|text_a text_b|text text_pair|"
        "sent1 sent2|s1 s2|question answer|query answer|query response|prompt completion|prompt response|prompt answer|"
        "instruction output|instruction response|question response|context response|source target|src tgt|"
        "question_title question_content|title content|title description|title body|title review|headline body|"
        "title abstract|text aspect|sentence aspect|text aspect_term|text term|text entity|text target|tweet target"
    )
    languages = (
        "en de fr es it pt nl ru zh ja ko ar hi tr pl cs sv da fi uk vi th he ro hu el bg fa bn ta te ur sw english "
        "german french spanish italian portuguese dutch russian chinese japanese korean arabic hindi turkish"
    )
    most_unpacked = 500_000_000  # bytes of one column of a row group, where they are far more than what is stored

    def forward(
        self,
        dataset: str,
        config: str | None = None,
        split: str | None = None,
        rows: int | None = 5,
        revision: str | None = None,
        tokenizer: str | None = None,
    ) -> dict:
        from huggingface_hub import HfApi, get_token

        count = 5 if rows is None else rows
        if not 0 <= count <= 100:
            raise ValueError(f"`rows` is 0 to 100, not {count}. For more, use hub_download.")
        asked = self._cache_key(self._hub(), get_token(), dataset, config, split, count, revision, tokenizer)
        kept = self._cached(asked, 86_400)
        if kept is not None and kept["age"] < 10:
            return kept["data"]["answer"]
        subject = f"dataset {dataset}" + (f" at {revision}" if revision else "")
        options = {"repo_id": dataset, "revision": revision, "files_metadata": True, "timeout": 20}
        info = self._ask(subject, 30, HfApi(endpoint=self._hub()).dataset_info, **options)
        state = [info.sha, info.gated, info.private]
        if kept is not None and kept["data"]["state"] == state:  # nothing was committed since
            return kept["data"]["answer"]
        answer = self._judged(info, config, split, count, None if revision == "main" else revision, tokenizer)
        passing = ("is still computing", "failed at", "hangs:", "cannot be reached", "answered with", "another shape")
        passing += ("has not finished", "was not looked at", "Fewer rows than usual")
        if not [
            note for note in answer["notes"] if [said for said in passing if said in note]
        ]:  # it may do better soon
            self._cache(asked, {"state": state, "answer": answer})
        return answer

    def _judged(
        self, info: Any, config: str | None, split: str | None, count: int, revision: str | None, tokenizer: str | None
    ) -> dict:
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
            which = "spread over each" if look["source"] == "viewer" or look["spread"] else "the first of each"
            notes.append(f"Not all rows were examined, but {which}: {', '.join(short[:8])}.")
        columns, warnings = self._columns(look, totals[look["split"]], notes)
        if not rows:
            warnings.insert(0, f"Split {look['split']!r} is empty.")
        self._tokens(rows, columns, tokenizer, notes)
        duplicates = self._duplicates(look, columns, warnings, notes)
        if short and look["source"] == "viewer" and not look["limited"]:
            self._looked_up(info.id, look, columns, totals, duplicates, warnings)
        methods = self._methods(look, columns, duplicates)
        shown = self._runs({name: column["role"] for name, column in columns.items()})
        types = {name: self._type(kind) for name, kind in look["features"].items()}
        hidden = len(columns) - sum([len(run) for run in shown.values()])
        if hidden:
            notes.append(f"{hidden:,} of {len(columns):,} columns are not shown: use hub_download to see them.")
        if len(warnings) > 20:
            warnings[20:] = [f"And {len(warnings) - 20} more warnings of this kind."]
        files = [{"path": s.rfilename, "size": s.size} for s in info.siblings or []]
        script = info.id.split("/")[-1] + ".py"
        if script in [file["path"] for file in files]:
            warnings.append(f"It has a loading script ({script}), which `datasets` 4 and later do not run.")
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
            "methods": methods,
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
        answer = self._view("splits", {"dataset": info.id})
        listed = [(item["config"], item["split"]) for item in answer["splits"]]
        configs, config, split, names = self._choose(listed, config, split)
        sizes = self._view("info", {"dataset": info.id, "config": config})["dataset_info"].get("splits") or {}
        where = {"dataset": info.id, "config": config, "length": 100}
        pages, rows, notes, splits = {}, {}, [], []
        left = [item.get("config") for item in [*(answer.get("failed") or []), *(answer.get("pending") or [])]]
        if left:
            notes.append(f"The viewer failed at, or has not finished, {len(left)} more configs: {self._listed(left)}.")
        limited = False  # a viewer that is slow, or has had enough requests, is left alone
        for name in [split, *[other for other in names if other != split][:4]]:
            if limited or time.monotonic() > until - 20:
                notes.append(f"Split {name} was not looked at, as the viewer took too long or refused more.")
                continue
            try:
                pages[name] = self._view("rows", {**where, "split": name, "offset": 0})
            except ConnectionError as error:
                if name == split:
                    raise
                notes.append(f"Split {name} was not looked at: {error}")
                limited = "(429" in str(error)
                continue
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
            except (ValueError, OSError, ImportError):
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
                limited = True
            rows[name] = [found[index]["row"] for index in sorted(found)]
            if [item for item in found.values() if item.get("truncated_cells")]:
                notes.append(f"The viewer cut long cells of {name}: lengths are lower bounds.")
        stats = {}
        if len(rows[split]) < totals[split] and not limited:
            try:
                stats = self._statistics(info.id, config, split, notes)
            except (ConnectionError, KeyError, TypeError, AttributeError) as error:
                notes.append(f"There are no statistics of all rows: {error}")
        look = {"source": "viewer", "configs": configs, "config": config, "split": split, "splits": splits}
        return {**look, "features": features, "rows": rows, "notes": notes, "statistics": stats, "limited": limited}

    def _statistics(self, dataset: str, config: str, split: str, notes: list) -> dict:
        """Column to what the viewer counted over all rows, in the words of `columns`."""
        from collections import Counter

        answer, found = self._view("statistics", {"dataset": dataset, "config": config, "split": split}), {}
        for entry in answer["statistics"]:
            numbers, kind = entry["column_statistics"], entry["column_type"]
            one: dict[str, Any] = {"rows": answer["num_examples"], "missing": numbers.get("nan_count", 0)}
            if numbers.get("frequencies"):
                one["labels"] = dict(Counter(numbers["frequencies"]).most_common(50))
                one |= {"hidden": numbers["no_label_count"]} if numbers.get("no_label_count") else {}
            elif kind == "string_text":
                one["characters"] = {key: numbers.get(key) for key in ("min", "median", "max")}
            found[entry["column_name"]] = one
        what = f"the first {answer['num_examples']:,} rows" if answer.get("partial") else "all rows"
        notes.append(f"`all_rows` in `columns` are the viewer's statistics of {what} of {split}.")
        return found

    def _view(self, path: str, query: dict, seconds: float = 25) -> dict:
        """One answer of the dataset viewer. It has no client of its own and is another host than the Hub."""
        import os
        import queue
        import threading

        from huggingface_hub.errors import HTTPError

        server = os.environ.get("HF_DATASETS_SERVER")
        if not server and self._hub() != "https://huggingface.co":
            # Its namesake on huggingface.co is another dataset, and this Hub's token is none of that host's business.
            raise ConnectionError("HF_ENDPOINT is a Hub of its own and HF_DATASETS_SERVER names no viewer for it.")
        server = (server or "https://datasets-server.huggingface.co").rstrip("/")
        viewer, answers = f"The dataset viewer ({server})", queue.SimpleQueue()
        order = {"url": f"{server}/{path}", "query": query}
        # In a thread that is left behind: an answer that comes in drops would outlast the client's time-out.
        threading.Thread(target=self._work, args=(answers, self._fetched, order), daemon=True).start()
        try:
            answer, error = answers.get(timeout=seconds)
        except queue.Empty:
            raise ConnectionError(f"{viewer} hangs: no end after {seconds:.0f} s.") from None
        if isinstance(error, HTTPError):
            raise ConnectionError(f"{viewer} cannot be reached ({type(error).__name__}: {error}).") from error
        if isinstance(error, ValueError):
            raise ConnectionError(f"{viewer} answered with something else than JSON.") from error
        if error:
            raise error
        status, headers, body = answer
        if status == 200:
            return body
        code, wait = headers.get("X-Error-Code", ""), headers.get("Retry-After")
        said = "is still computing" if code == "ResponseNotReady" else "failed at"
        said = "does not have" if status == 404 else said
        wait = f", retry after {wait} s" if wait else ""
        raise ConnectionError(f"{viewer} {said} this dataset ({status} {code}{wait}).")

    def _fetched(self, url: str, query: dict) -> tuple:
        from huggingface_hub.utils import build_hf_headers, get_session

        # Redirects to other hosts lose the token: the client's HTTP library sees to that.
        answer = get_session().get(url, params=query, headers=build_hf_headers(), timeout=15)
        return answer.status_code, answer.headers, answer.json() if answer.status_code == 200 else None

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

    def _from_files(self, info: Any, config: str | None, split: str | None, before: list) -> dict:
        """Data files of up to five splits: all rows of 20 MB, else 20,000 of as many bytes, spread over the files where
        they are cut at lines or are Parquet; in all 60 MB and two minutes."""
        import io
        import time

        until, budget = time.monotonic() + 120, 60_000_000
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
        most = 200_000 if sum(sizes.values()) <= 20_000_000 else 20_000
        stated = (info.card_data.to_dict() if info.card_data else {}).get("configs")
        layout, notes = self._layout(sizes, stated), []
        stated = [str(one.get("config_name") or "default") for one in stated or [] if isinstance(one, dict)]
        lost = [name for name in stated if name not in [key[0] for key in layout]]
        if layout and lost:
            notes.append(f"No file that is read here belongs to {self._listed(lost)}, which the card's configs name.")
        folders = {} if layout else self._folders(info)
        if folders:
            return self._from_folders(folders, config, split)
        if not layout:
            script, way = info.id.split("/")[-1] + ".py", "Try hub_download."
            if script in sizes:
                way = f"Its loading script {script} is run by no current `datasets`: look for data that was converted, with "
                way += "revision='refs/convert/parquet'."
            raise ValueError(
                f"Dataset {info.id} has no rows that can be read: {' '.join(before)} Of its {len(sizes)} files "
                f"({', '.join(list(sizes)[:8])}) none is CSV, TSV, JSON, JSON lines, Parquet or text. {way}"
            )
        configs, config, split, names = self._choose(list(layout), config, split)
        rows, counts, features, spread, said = {}, {}, {}, [], {}
        for name in [split, *[other for other in names if other != split][:4]]:
            found, whole, paths, totals = [], True, layout[(config, name)], []
            broken = None
            size = sum([sizes[path] for path in paths])
            lined = [path for path in paths if path.endswith((".jsonl", ".ndjson", ".csv", ".tsv", ".txt"))]
            if size > 20_000_000 and lined == paths and budget > 0:
                length = 2_000_000 if name == split else 500_000
                found = self._pieces(info, paths, sizes, length, most)
                budget -= 10 * length
            if found:
                rows[name], counts[name] = found, None
                spread.append(True)
                continue
            if size > 60_000_000 and len(paths) > 3:
                paths, whole = [paths[0], paths[len(paths) // 2], paths[-1]], False
            for number, path in enumerate(paths):
                if len(found) >= most or number == 20 or budget < 0 or time.monotonic() > until:
                    whole = False
                    break
                where, what = {"dataset": info.id, "revision": info.sha, "path": path}, f"{path} of dataset {info.id}"
                try:
                    if path.endswith(".parquet"):
                        large = sizes[path] > 20_000_000
                        if large:
                            budget -= 20_000_000
                            read = self._ask(what, 90, self._streamed, **where, most=most - len(found))
                        else:
                            content, _ = self._ask(what, 90, self._read, **where)
                            budget -= len(content)
                            read = self._of_parquet(io.BytesIO(content), path, most - len(found))
                        some, complete = read["rows"], len(read["rows"]) == read["total"]
                        spread += [] if complete else [read["spread"]]
                        totals.append(read["total"])
                        said |= read["features"]
                    else:
                        content, complete = self._ask(what, 90, self._read, **where)
                        budget -= len(content)
                        some, complete = self._parse(path, content, complete, most - len(found))
                except ValueError as error:
                    if len(paths) == 1:
                        raise
                    broken, whole = error, False
                    notes.append(f"Left out: {error}")
                    continue
                found += some
                whole = whole and complete
            if broken is not None and not found:
                raise broken
            rows[name], counts[name] = found, len(found) if whole else None
            if not whole and len(totals) == len(layout[(config, name)]):
                counts[name] = sum(totals)  # of Parquet each file says how many it has
        if not any(rows.values()):
            raise ValueError(f"Split {split!r} of {info.id} holds no rows in {', '.join(layout[(config, split)])}.")
        for row in rows[split] or next(filter(None, rows.values())):
            for column, value in row.items():
                kind = "null" if value is None else type(value).__name__
                if features.get(column, "null") == "null" or (kind, features[column]) == ("float", "int"):
                    features[column] = kind
        features |= {name: said[name] for name in features if name in said}
        splits = []
        for name in names:
            size = sum([sizes[path] for path in layout[(config, name)]])
            splits.append({"split": name, "rows": counts.get(name), "bytes": size})
        look = {"source": "files", "configs": configs, "config": config, "split": split, "splits": splits}
        return {**look, "features": features, "rows": rows, "notes": notes, "spread": bool(spread) and all(spread)}

    def _layout(self, sizes: dict, configs: Any) -> dict:
        """(config, split) to files: as the card's `configs` say, else by the words train, test, ... in the path."""
        import re

        kinds = r"\.((csv|tsv|jsonl|ndjson|json)(\.gz)?|parquet)$"
        skipped = ("dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json", "config.json")
        seen = [path for path in sizes if not path.startswith(".") and path.split("/")[-1] not in skipped]
        data = [path for path in seen if re.search(kinds, path)]
        data = data or [path for path in seen if re.search(r"(?<!requirements)\.txt$", path)]
        layout = self._declared(data, configs)
        if layout:
            return layout
        for path in sorted(data):
            converted = re.fullmatch(
                r"(.+)/(?:partial-)?([\w.]+)/\d{4}\.parquet", path
            )  # by the Hub, on its own branch
            key = converted.groups() if converted else ("default", self._part(path))
            layout.setdefault(key, []).append(path)
        return layout

    def _declared(self, paths: list, configs: Any) -> dict:
        """(config, split) to files, as the card's `configs` say: by patterns, which start from its `data_dir`, or where
        there are none by the words in the paths below that folder."""
        import fnmatch
        import posixpath

        layout: dict[Any, list] = {}
        for entry in [entry for entry in configs or [] if isinstance(entry, dict)]:
            config, files = str(entry.get("config_name") or "default"), entry.get("data_files")
            folder = posixpath.normpath(str(entry.get("data_dir") or ".")).strip("/")
            start = 0 if folder == "." else len(folder) + 1
            below = {path[start:]: path for path in paths if path.startswith(folder + "/") or not start}
            if not files:
                for path in sorted(below):
                    layout.setdefault((config, self._part(path)), []).append(below[path])
                continue
            if isinstance(files, dict) and "path" not in files:
                files = [{"split": part, "path": path} for part, path in files.items()]
            for part in files if isinstance(files, list) else [files]:
                one = part if isinstance(part, dict) else {"path": part}
                patterns, key = one.get("path") or [], (config, str(one.get("split") or "train"))
                for pattern in [patterns] if isinstance(patterns, str) else patterns:
                    wanted = posixpath.normpath(str(pattern)).replace("**/", "*")
                    found = [below[path] for path in fnmatch.filter(below, wanted)]
                    layout[key] = list(dict.fromkeys(layout.get(key, []) + found))
        return {key: found for key, found in layout.items() if found}

    def _part(self, path: str) -> str:
        """The split that a path speaks of: of `data/NAME-00000-of-00001` the name, else by the words that `datasets`
        looks for."""
        import re

        shard = re.search(r"(?:^|/)data/(\w+)-\d{5}-of-\d{5}[^/]*$", path)
        if shard:
            return shard[1]
        words = {"train": "train", "test": "test", "eval": "test", "val": "validation", "dev": "validation"}
        found = re.findall(r"(?<![a-z])(train|test|eval|val|dev)(?:ing|id|idation)?(?![a-z])", path.lower())
        return words[found[-1]] if found else "train"

    def _folders(self, info: Any) -> dict:
        """(config, split) to rows of images or sounds that lie in folders: what they are, where, and how they hash."""
        import re

        folders: dict[Any, list] = {}
        kinds = {"jpg": "image", "jpeg": "image", "png": "image", "webp": "image", "bmp": "image"}
        kinds |= {"tif": "image", "tiff": "image", "gif": "image", "wav": "audio", "mp3": "audio", "flac": "audio"}
        kinds |= {"ogg": "audio", "opus": "audio", "m4a": "audio"}
        files = {file.rfilename: file for file in info.siblings or [] if not file.rfilename.startswith(".")}
        files = {path: file for path, file in files.items() if path.rpartition(".")[2].lower() in kinds}
        layout = self._declared(list(files), (info.card_data.to_dict() if info.card_data else {}).get("configs"))
        for path in files if not layout else []:
            layout.setdefault(("default", self._part(path.rpartition("/")[0])), []).append(path)
        for key, path in [(key, path) for key, paths in layout.items() for path in paths]:
            sibling, kind = files[path], kinds[path.rpartition(".")[2].lower()]
            folder = path.rpartition("/")[0].rpartition("/")[2]
            bare = re.fullmatch(
                r"(data|images?|audio|train(ing)?|test(ing)?|eval|val(id|idation)?|dev|)", folder.lower()
            )
            same = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
            row = {kind: same, "file_name": path, "label": None if bare else folder}
            folders.setdefault(key, []).append(row)
        return folders

    def _from_folders(self, folders: dict, config: str | None, split: str | None) -> dict:
        configs, config, split, names = self._choose(list(folders), config, split)
        rows = {name: folders[(config, name)] for name in [split, *[other for other in names if other != split]]}
        labelled = [row for some in rows.values() for row in some if row["label"] is not None]
        for row in [row for some in rows.values() for row in some if not labelled]:
            row.pop("label")
        kinds = {name: {"_type": name.capitalize()} for name in ("image", "audio") if name in rows[split][0]}
        features = {**kinds, **{name: "str" for name in rows[split][0] if name not in kinds}}
        notes = [
            "Images or sounds in folders: the list was read, not they. Labels are folders' names, digests stand for them."
        ]
        splits = [{"split": name, "rows": len(rows[name]), "bytes": None} for name in names]
        look = {"source": "files", "configs": configs, "config": config, "split": split, "splits": splits}
        return {**look, "features": features, "rows": rows, "notes": notes, "spread": False}

    def _streamed(self, dataset: str, revision: str, path: str, most: int) -> dict:
        """Large Parquet: some row groups, spread over the file, about 20 MB of them, fetched by range."""
        from huggingface_hub import HfFileSystem

        system = HfFileSystem(endpoint=self._hub(), use_listings_cache=False)
        with system.open(f"datasets/{dataset}@{revision}/{path}", "rb", block_size=1_000_000) as file:
            return self._of_parquet(file, path, most)

    def _of_parquet(self, file: Any, path: str, most: int) -> dict:
        """`rows` of Parquet, as plain data; its `total` of them, what it says its `features` are, and whether the rows
        are `spread` over it: the beginnings of ten or more of its row groups.

        Of more than 20 MB not all are read. However small a file is, it may unpack to anything: never more than 20 MB of
        rows, nor one row of more, and nothing that its footer says takes more than `most_unpacked`.
        """
        import json

        import pyarrow
        from pyarrow import parquet

        try:
            about = parquet.read_metadata(file)
            groups = [about.row_group(number) for number in range(about.num_row_groups)]
            leaves = [about.schema.column(number) for number in range(about.num_columns)]
            for group in groups:
                for number in range(about.num_columns if group.total_byte_size > self.most_unpacked else 0):
                    chunk = group.column(number)
                    if chunk.total_uncompressed_size > max(self.most_unpacked, 100 * chunk.total_compressed_size):
                        raise OverflowError(f"a column of it unpacks to {chunk.total_uncompressed_size:,} bytes")
            # As dictionaries: a text that stands in every row is there once.
            texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
            decimals = [leaf.path for leaf in leaves if leaf.logical_type.type == "DECIMAL"]
            texts = [path for path in texts if path not in decimals]
            table = parquet.ParquetFile(
                file, metadata=about, read_dictionary=texts, buffer_size=1_000_000, pre_buffer=False
            )
            most, rows = min(most, 5_000_000 // max(1, about.num_columns)), []
            size, full = sum([group.total_byte_size for group in groups]), 20_000_000
            whole = size <= full and about.num_rows <= most
            chosen = list(range(len(groups)))
            if not whole and len(groups) > 20:
                chosen = [round(number * (len(groups) - 1) / 19) for number in range(20)]
            wide, headers = 1 + 1_000_000 // max(1, about.num_columns), 50_000
            for number in chosen:
                each = max(1, groups[number].total_byte_size // max(1, groups[number].num_rows))
                left, room = (most, full) if whole else (max(1, most // len(chosen)), full // len(chosen))
                headers -= self._honest(file, groups[number], headers)
                batches = table.iter_batches(
                    max(1, min(1000, wide, 1_000_000 // each, left)), row_groups=[number], use_threads=False
                )
                for batch in batches:
                    got, weight = self._as_data(batch.slice(0, left), max(room, 2_000_000))
                    rows += got
                    left, room = left - len(got), room - weight
                    if len(got) < batch.num_rows or left <= 0 or room <= 0:
                        break
            said = (table.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            first = (str(error).strip() or type(error).__name__).split("\n")[0][:150]
            raise ValueError(
                f"{path} cannot be read as Parquet: {first}. It may be damaged, or made to be hard to read: look at its page."
            ) from error
        if groups and about.num_rows and not rows:
            raise ValueError(f"{path} has rows of more than 20 MB each, which are not looked at. Use hub_download.")
        try:
            features = json.loads(said)["info"]["features"]
        except (ValueError, KeyError, TypeError):
            features = {}
        features = {name: features[name] for name in features if name in table.schema_arrow.names}
        found = {"rows": rows[:most], "total": about.num_rows, "features": features}
        return {**found, "spread": len(chosen) >= 10 or len(found["rows"]) == about.num_rows}

    def _honest(self, file: Any, group: Any, most: int) -> int:
        """Refuses a row group whose pages say that they unpack to far more than its footer says, which decides how it is
        read; how many headers of pages were read for that, `most` of them. Not of a file
        that is fetched by range, as each may cost a request, nor where nothing is compressed."""
        import io

        said = claimed = count = 0
        for number in range(group.num_columns if isinstance(file, io.BytesIO) else 0):
            chunk = group.column(number)
            at = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                at = min(at, chunk.dictionary_page_offset)
            end = at + (chunk.total_compressed_size if chunk.compression != "UNCOMPRESSED" else 0)
            said += chunk.total_uncompressed_size
            while 0 < at < end and count < most:
                size = packed = unpacked = 0
                for length in (500, 20_000, 1_000_000):  # most headers are short, some hold long statistics
                    file.seek(at)
                    size, packed, unpacked = self._page(file.read(min(end - at, length)))
                    if size or length > end - at:
                        break
                if not size or packed < 0:
                    break  # whoever unpacks it says what is wrong
                at, count, claimed = at + size + packed, count + 1, claimed + unpacked
            if claimed > max(100_000_000, 2 * said):
                raise OverflowError(f"its footer says {said:,} bytes where its pages say {claimed:,}")
        return count

    def _page(self, data: bytes) -> tuple:
        """How long the header of a page is (Thrift's compact protocol), what the page takes and what it unpacks to; zeros
        where it breaks off."""
        try:
            at, field, sizes = 0, 0, {}
            while data[at]:
                step, kind = data[at] >> 4, data[at] & 15
                at += 1
                if not step:
                    step, at = self._number(data, at)
                    field = 0
                field += step
                if kind in (4, 5, 6):
                    sizes[field], at = self._number(data, at)
                else:
                    at = self._passed(data, at, kind, 0)
            return at + 1, sizes[3], sizes[2]
        except (IndexError, KeyError):
            return 0, 0, 0

    def _number(self, data: bytes, at: int) -> tuple:
        """A whole number in Thrift's compact protocol, and where it ends."""
        value = shift = 0
        while shift < 70:
            byte = data[at]
            value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
            if byte < 128:
                return (value >> 1) ^ -(value & 1), at
        raise IndexError("no number is as long")

    def _passed(self, data: bytes, at: int, kind: int, depth: int) -> int:
        """Where a value of Thrift's compact protocol ends."""
        if depth > 8:
            raise IndexError("no header is as deep")
        if kind in (4, 5, 6):
            return self._number(data, at)[1]
        if kind == 8:  # the length of bytes has no sign
            length, at = self._number(data, at)
            return at + (length * 2 if length >= 0 else -2 * length - 1)
        if kind == 12:
            while data[at]:
                inner, at = data[at], at + 1
                if not inner >> 4:
                    at = self._number(data, at)[1]
                at = self._passed(data, at, inner & 15, depth + 1)
            return at + 1
        widths = {1: 0, 2: 0, 3: 1, 7: 8}
        if kind not in widths:
            raise IndexError("headers of pages hold no lists")
        return at + widths[kind]

    def _as_data(self, batch: Any, most: int) -> tuple:
        """Rows of Arrow as plain data, as many as are no more than `most` bytes, and how many bytes they are.

        Times of nanoseconds are cut, as Python knows none.
        """
        import pyarrow

        if self._weight(batch) > most:
            count = batch.num_rows // 2
            if not count:
                return [], most
            return self._as_data(batch.slice(0, count), most)
        columns = []
        for number, field in enumerate(batch.schema):
            column, kind = batch.column(number), field.type
            if pyarrow.types.is_timestamp(kind) and kind.unit == "ns":
                column = column.cast(pyarrow.timestamp("us", kind.tz), safe=False)
            columns.append([self._plain(value) for value in column.to_pylist()])
        names = batch.schema.names
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        return rows, self._weight(batch)

    def _weight(self, data: Any) -> int:
        """Bytes of Arrow once each of its values stands for itself."""
        import pyarrow
        from pyarrow import compute

        if isinstance(data, pyarrow.RecordBatch):
            return sum([self._weight(data.column(number)) for number in range(data.num_columns)])
        kind = data.type
        if pyarrow.types.is_dictionary(kind):
            sizes = compute.call_function("binary_length", [data.dictionary]).take(data.indices)
            return 8 * len(data) + (compute.call_function("sum", [sizes]).as_py() or 0)
        if pyarrow.types.is_struct(kind):
            return sum([self._weight(part) for part in data.flatten()])
        if pyarrow.types.is_map(kind):
            return self._weight(data.keys) + self._weight(data.items)
        if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
            return self._weight(data.flatten())
        return data.nbytes

    def _plain(self, value: Any) -> Any:
        """Bytes stand there as their kind, size and digest, and times and exact numbers as text."""
        import hashlib

        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, bytes):
            size = f"{len(value):,} bytes, SHA-256 {hashlib.sha256(value).hexdigest()[:16]}"
            return ", ".join([one for one in (self._pictured(value), size) if one])
        if isinstance(value, dict):
            if set(value) == {"bytes", "path"}:  # an image or a recording
                return self._plain(value["bytes"]) if value["bytes"] is not None else value["path"]
            return {str(name): self._plain(value[name]) for name in value}
        if isinstance(value, list | tuple):
            return [self._plain(one) for one in value]
        return value.isoformat() if hasattr(value, "isoformat") else str(value)

    def _pictured(self, data: bytes) -> str:
        """Kind, width and height of an image, or the kind of a recording, by its first bytes: "PNG 640 x 480"; no numbers
        where its header breaks off, and nothing of what is neither."""
        kind, order = "", "little"
        places: list[int] = []  # where width and height stand, in how many bytes
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            kind, order, places = "PNG", "big", [16, 20, 4]
        elif data.startswith((b"GIF87a", b"GIF89a")):
            kind, places = "GIF", [6, 8, 2]
        elif data.startswith(b"BM") and data[6:10] == bytes(4):
            kind, places = "BMP", [18, 22, 4]
        elif data.startswith(b"\xff\xd8\xff"):
            kind, order, at = "JPEG", "big", 2
            for _ in range(1000):  # segments, each with its length, until the one of the frame
                marker = data[at + 1] if data[at : at + 1] == b"\xff" and at + 1 < len(data) else 0
                if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                    places = [at + 7, at + 5, 2]
                if places or not marker:
                    break
                at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            kind, known = "WebP", {b"VP8 ": [26, 28, 2], b"VP8X": [24, 27, 3], b"VP8L": [21, 21, 4]}
            places = known.get(data[12:16], [])
        elif data.startswith((b"II*\0", b"MM\0*")):
            kind = "TIFF"
        elif data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            kind = "WAV"
        else:
            for start, name in ((b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3")):
                kind = name if data.startswith(start) else kind
        if not places or len(data) < max(places[:2]) + places[2]:
            return kind
        width, height = [int.from_bytes(data[at : at + places[2]], order) for at in places[:2]]
        if kind == "BMP":  # upside down where it is negative
            height = min(height, 2**32 - height)
        elif data[12:16] == b"VP8L" and kind == "WebP":
            width, height = 1 + width % 2**14, 1 + (height >> 14) % 2**14
        elif kind == "WebP":
            width, height = (1 + width, 1 + height) if places[2] == 3 else (width % 2**14, height % 2**14)
        return f"{kind} {width} x {height}"

    def _pieces(self, info: Any, paths: list, sizes: dict, length: int, most: int) -> list:
        """Rows out of ten pieces, spread evenly over the bytes of all files; none where lines are no rows, or the Hub
        gives no ranges."""
        total, rows, heads = sum([sizes[path] for path in paths]), [], {}
        for number in range(10):
            start, at = round(number * max(0, total - length) / 9), 0
            while start >= sizes[paths[at]]:
                start, at = start - sizes[paths[at]], at + 1
            path = paths[at]
            where, what = {"dataset": info.id, "revision": info.sha, "path": path}, f"{path} of dataset {info.id}"
            content, _ = self._ask(what, 60, self._read, **where, start=start, most=length)
            if start and not content:
                return []
            if start:
                content = content[content.find(b"\n") + 1 :] if b"\n" in content else b""
                if path.endswith((".csv", ".tsv")):
                    if path not in heads:
                        head, _ = self._ask(what, 60, self._read, **where, most=100_000)
                        heads[path] = head[: head.find(b"\n") + 1]
                    content = heads[path] + content
            content = content[: content.rfind(b"\n") + 1]
            lines = len([line for line in content.split(b"\n") if line.strip()])
            some, _ = self._parse(path, content, True, length) if lines else ([], True)
            if lines and path.endswith((".csv", ".tsv")) and len(some) != lines - 1:
                return []
            rows += some[: most // 10]
        return rows

    def _read(self, dataset: str, revision: str, path: str, start: int = 0, most: int = 20_000_000) -> tuple:
        """Bytes of a file from `start` on, `most` of them, and whether that is the whole file; no bytes where the
        Hub does not give ranges."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        url = hf_hub_url(dataset, path, repo_type="dataset", revision=revision, endpoint=self._hub())
        content, headers = bytearray(), build_hf_headers()
        if start:
            headers["Range"] = f"bytes={start}-{start + most - 1}"
        with http_stream_backoff(
            "GET",
            url,
            headers=headers,
            timeout=20,
            max_retries=1,
            retry_on_status_codes=(502, 503, 504),
            retry_on_exceptions=(),
        ) as response:
            hf_raise_for_status(response)
            if "html" in response.headers.get("Content-Type", ""):
                raise TypeError("a web page")
            if start and response.status_code != 206:
                return b"", False
            for chunk in response.iter_bytes(1_000_000):
                content += chunk
                if len(content) > most:
                    return bytes(content[:most]), False
        return bytes(content), not start

    def _parse(self, path: str, content: bytes, whole: bool, most: int) -> tuple:
        """Rows of the beginning of a file, `most` and five million cells at most, and whether that is all of them."""
        import csv
        import io
        import json
        import zlib
        from itertools import islice

        if path.endswith(".gz"):
            path, unpacked = path.removesuffix(".gz"), zlib.decompressobj(31)
            try:
                content = unpacked.decompress(content, 60_000_000)
            except zlib.error as error:
                raise ValueError(f"{path}.gz cannot be read as what its name says: {error}.") from error
            whole = whole and unpacked.eof
        text = content.decode("utf-8-sig", errors="replace")
        if not whole and not text.lstrip().startswith("["):
            text = text[: text.rfind("\n") + 1]
        try:
            if path.endswith(".txt"):
                rows = [{"text": line} for line in text.split("\n") if line.strip()]
            elif path.endswith((".csv", ".tsv")):
                header = text.split("\n", 1)[0]
                comma = "\t" if path.endswith(".tsv") else max(",;\t", key=header.count)
                most = min(most, 5_000_000 // (1 + header.count(comma)))
                csv.field_size_limit(20_000_000)
                rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=comma)
            elif path.endswith(".json") and text.lstrip().startswith("["):
                rows = json.loads(text) if whole else self._begun(text, most)
            else:
                rows = map(json.loads, [line for line in text.split("\n") if line.strip()])
            rows = [row if isinstance(row, dict) else {"value": row} for row in islice(rows, most + 1)]
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{path} cannot be read as what its name says: {error}. Use hub_download.") from error
        if path.endswith((".csv", ".tsv")):
            self._typed(rows)
        return rows[:most], whole and len(rows) <= most

    def _begun(self, text: str, most: int) -> list:
        """The values at the beginning of a JSON array that breaks off."""
        import json

        decoder, rows, at = json.JSONDecoder(), [], text.index("[") + 1
        while len(rows) <= most:
            at += len(text[at : at + 1000]) - len(text[at : at + 1000].lstrip(" \t\r\n,"))
            try:
                row, at = decoder.raw_decode(text, at)
            except ValueError:
                break
            rows.append(row)
        if not rows:
            raise ValueError("its first value is larger than what was read")
        return rows

    def _typed(self, rows: list) -> None:
        """Gives each column of CSV the type that all its values have, and `None` to what `absent` lists: in the way of
        pandas, by which `datasets` reads such files."""
        words = self.absent.split("|")
        for name in [name for name in (rows[0] if rows else ()) if name is not None]:
            texts = {row[name] for row in rows if isinstance(row[name], str)}
            present = [text for text in texts if text not in words]
            whole = self._all_like(present, r"\s*[+-]?(0|[1-9]\d{0,17})\s*")
            real = r"\s*[+-]?(0|[1-9]\d{0,17}|\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d{1,2})?\s*"
            known: dict[str, Any] = dict.fromkeys(texts)
            for text in present:
                known[text] = int(text) if whole else text
            if not whole and self._all_like(present, real):
                known |= {text: float(text) for text in present}
            elif self._all_like(present, r"True|False|true|false|TRUE|FALSE"):
                known |= {text: text.lower() == "true" for text in present}
            for row in rows:
                if isinstance(row[name], str):
                    row[name] = known[row[name]]

    def _all_like(self, texts: list, pattern: str) -> bool:
        import re

        for text in texts:
            if not re.fullmatch(pattern, text):
                return False
        return bool(texts)

    def _columns(self, look: dict, total: int | None, notes: list) -> tuple:
        """Each column's role and numbers, and warnings about them."""
        import json
        import re
        import statistics
        from collections import Counter

        rows, features, stats = look["rows"][look["split"]], look["features"], look.get("statistics") or {}
        columns, tallies, few = {}, {}, []
        stems = Counter([re.sub(r"\d+", "#", name) for name in features])
        for name, kind in features.items():
            values = [row.get(name) for row in rows]
            present = [value for value in values if not self._lacks(value)]
            made = (list, dict)
            counts = Counter([json.dumps(one, default=str) if isinstance(one, made) else one for one in present])
            tallies[name] = counts
            role = self._role(name, kind, present, len(counts))
            columns[name] = {"role": role, "missing": len(values) - len(present), "distinct": len(counts)}
            if name in stats:
                columns[name]["all_rows"] = stats[name]
            texts = [value for value in present if isinstance(value, str)]
            if texts and role not in ("label", "id", "image", "audio", "video"):
                sizes = sorted([len(value) for value in texts])
                edges = {"min": sizes[0], "median": statistics.median(sizes), "max": sizes[-1]}
                columns[name]["characters"] = {**edges, "p95": sizes[int(0.95 * (len(sizes) - 1))]}
            repeated = role in ("number", "category") and 2 <= len(counts) <= 20 and not isinstance(present[0], float)
            if (
                repeated
                and not self._about(name)
                and (len(counts) * 10 <= len(present) or isinstance(present[0], bool))
            ):
                few.append(name)
        # One of many that are numbered alike is one of many features, though the others have more values.
        named = "label" in [column["role"] for column in columns.values()]
        if not named and len(few) == 1 and stems[re.sub(r"\d+", "#", few[0])] == 1:
            columns[few[0]]["role"] = "label"
            notes.append(f"`{few[0]}` is taken for the label: no column is named or typed as one.")
        warnings = []
        gaps = {name: self._gaps(column, len(rows)) for name, column in columns.items()}
        lacking = [name for name, gap in gaps.items() if gap[0]]
        for name in lacking if len(lacking) <= 5 else []:
            warnings.append(f"{gaps[name][0]} of {gaps[name][1]} rows lack `{name}`.")
        if len(lacking) > 5:
            warnings.append(f"{len(lacking)} columns lack values in some rows: {self._listed(lacking)}.")
        for name, column in columns.items():
            if column["role"] != "label" or not column["distinct"]:
                continue
            names = features[name].get("names") if isinstance(features[name], dict) else None
            column["labels"] = {}
            for value, count in tallies[name].most_common(50):
                known = names and isinstance(value, int) and 0 <= value < len(names)
                column["labels"][names[value] if known else str(value)] = count
            hidden = self._hidden(tallies[name], bool(names))
            if hidden:
                column["hidden"] = hidden
            hidden, of = self._gaps(column, len(rows), "hidden")
            labels = column.get("all_rows", {}).get("labels") or column["labels"]
            present = sum(tallies[name].values()) if labels is column["labels"] else sum(labels.values())
            if hidden and len(labels) > 1:
                warnings.append(f"{hidden} of {of} rows hide their `{name}` (-1).")
                present -= labels.get("-1", 0)
                labels = {label: count for label, count in labels.items() if label != "-1"}
            top, most = next(iter(labels.items()))
            if len(labels) == column["distinct"] == 1:
                warnings.append(f"Every row seen has the same `{name}`: {top} (hidden, or sorted by it?).")
            elif most > 0.8 * present:
                warnings.append(f"`{name}` is out of balance: {100 * most // present} % are {top}.")
        same = [name for name, column in columns.items() if column["distinct"] == 1 and column["role"] != "label"]
        if same and len(rows) > 1:
            notes.append(f"The same value in all rows examined: {self._listed(same)}.")
        return columns, warnings

    def _gaps(self, column: dict, seen: int, what: str = "missing") -> tuple:
        """How many rows of how many lack a column: of all where the viewer counted them, else of those examined, also
        where a far larger share of these does, as the viewer counts no empty texts."""
        whole, mine = column.get("all_rows") or {}, column.get(what, 0)
        if whole and 2 * whole.get(what, 0) * seen >= mine * whole["rows"]:
            return whole.get(what, 0), whole["rows"]
        return mine, seen

    def _hidden(self, counts: dict, classes: bool) -> int:
        """Rows whose label is -1, by which the Hub's test splits hide theirs; not where it is one of two classes."""
        import re

        found = sum([count for label, count in counts.items() if str(label) == "-1"])
        others = [str(label) for label in counts if str(label) != "-1"]
        numbers = [label for label in others if re.fullmatch(r"\d+", label)]
        return found if classes or not others or 2 <= len(others) == len(numbers) else 0

    def _seen(self, look: dict) -> str:
        """What is put behind a number of rows that were counted in a sample."""
        count, totals = len(look["rows"][look["split"]]), {part["split"]: part["rows"] for part in look["splits"]}
        return "" if totals[look["split"]] == count else f" (of {count:,} looked at)"

    def _tokens(self, rows: list, columns: dict, tokenizer: str | None, notes: list) -> None:
        """Adds tokens of texts and conversations, counted by a tokenizer or estimated: of 2,000 rows and two million
        characters a column at most, spread evenly."""
        import statistics

        count = self._estimate
        if tokenizer:
            try:
                count = self._counter(tokenizer)
                notes.append(f"Tokens are counted by the tokenizer of {tokenizer}, without a chat template.")
            except (OSError, ValueError) as error:
                notes.append(f"Tokens are estimated: {error}")
        for name in list(columns)[:200]:  # wide tables have no texts that anyone could read
            column = columns[name]
            if "characters" not in column and column["role"] != "conversation":
                continue
            found = [text for text in [self._said(row.get(name)) for row in rows] if text]
            step = max(1, len(found) // 2000, sum([len(text) for text in found]) // 2_000_000)
            sizes = sorted([count(text[:200_000]) for text in found[::step]])
            if not sizes:
                continue
            edges = {"median": statistics.median(sizes), "p95": sizes[int(0.95 * (len(sizes) - 1))], "max": sizes[-1]}
            column["tokens"] = edges
            if column["role"] == "conversation":
                turns = [len(row[name]) for row in rows if isinstance(row.get(name), list)]
                column["turns"] = {"median": statistics.median(turns), "max": max(turns)}

    def _said(self, value: Any) -> str:
        """The text of a cell; of a conversation, all that is said in it."""
        if isinstance(value, list):
            turns = [turn for turn in value if isinstance(turn, dict)]
            return "\n".join([str(turn.get("content") or turn.get("value") or "") for turn in turns])
        return value if isinstance(value, str) else ""

    def _estimate(self, text: str) -> int:
        """Tokens of a text for the usual byte-pair encodings: a word or its six letters, three digits, a sign."""
        import re

        total = 0
        kinds = r"([A-Za-z\u00c0-\u024f]+)|(\d+)|([\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af])|([^\W\d_]+)|([^\w\s]+|_+)|\n\s*"
        for word, digits, sign, other, marks in re.findall(kinds, text):
            if word:
                total += 1 + (len(word) - 1) // 6
            elif digits:
                total += -(-len(digits) // 3)
            else:
                total += 1 if sign else -(-len(other or marks) // 2) or 1
        return total

    def _counter(self, model: str) -> Any:
        import importlib
        from functools import partial

        from huggingface_hub import HfApi

        try:
            # `import` would make it a requirement of this tool.
            tokenizers = importlib.import_module("tokenizers")
        except ImportError:
            raise ValueError("the package tokenizers is not installed (`pip install tokenizers`).") from None
        options = {"repo_id": model, "filename": "tokenizer.json", "etag_timeout": 20}
        path = self._ask(f"the tokenizer of {model}", 90, HfApi(endpoint=self._hub()).hf_hub_download, **options)
        try:
            loaded = tokenizers.Tokenizer.from_file(path)
        except Exception as error:  # the library raises nothing more special; said in the notes
            raise ValueError(f"tokenizer.json of {model} cannot be read ({error}).") from error
        loaded.no_truncation()
        loaded.no_padding()
        return partial(self._encoded, loaded)

    def _encoded(self, loaded: Any, text: str) -> int:
        return len(loaded.encode(text, add_special_tokens=False).ids)

    def _listed(self, names: list) -> str:
        shown = ", ".join([f"`{name}`" for name in names[:5]])
        return f"{shown} and {len(names) - 5:,} more" if len(names) > 5 else shown

    def _duplicates(self, look: dict, columns: dict, warnings: list, notes: list) -> dict:
        """Rows that occur more than once: within a split with their answers, across splits by what a model would be
        shown, as a prompt of the one that stands in the other is a leak whatever answers it; adds warnings."""
        import re
        from collections import Counter

        roles, split = {name: column["role"] for name, column in columns.items()}, look["split"]
        labels = [name for name, role in roles.items() if role in ("label", "target")]
        media = [name for name, role in roles.items() if role in ("image", "audio", "video")]
        if media and look["source"] == "viewer":
            # The viewer shows links that differ from row to row whatever is behind them.
            notes.append(f"Duplicates were not looked for: {self._listed(media)} cannot be compared by the viewer.")
            return {"compared_on": None, "within": {}, "across": {}, "conflicting_labels": None}
        texts = [name for name, role in roles.items() if role in ("text", "input text", "conversation")]
        numbers = [name for name, role in roles.items() if role == "number"]
        full = [name for name in texts if roles[name] != "text" or self._prose(name)]
        full += [name for name in texts if columns[name].get("characters", {}).get("median", 0) >= 60]
        if len(numbers) > 1 and not full:  # a table with names in it
            texts = []
        texts += [name for name in roles if re.fullmatch(r"(answer_)?(choices|options|endings)", name.lower())]
        named = r"answers?|completion|response|output|solution|target|summary|highlights|code|chosen|rejected"
        answers = [name for name, role in roles.items() if role == "target text" or re.fullmatch(named, name.lower())]
        answers = [name for name in answers if name not in labels and roles[name] != "id"]
        compared = media or [name for name in texts if name not in answers]
        if not compared:  # nothing asks for them
            compared, answers = texts or answers, []
        compared = compared or [name for name, role in roles.items() if role not in ("id", "label", "target")]
        compared = compared or list(roles)
        answers = [name for name in [*texts, *answers] if name in answers or media]
        answers = [name for name in dict.fromkeys(answers) if name not in compared]
        asked = {part: self._keys(rows, compared, []) for part, rows in look["rows"].items()}
        seen = {part: Counter([key for key in keys if key]) for part, keys in asked.items()}
        keys, within = asked, {}
        if answers:
            keys = {part: self._keys(rows, compared, answers) for part, rows in look["rows"].items()}
        for part, some in keys.items():
            full = [key for key in some if key]
            within[part] = len(full) - len(set(full))
        across, parts = {}, list(seen)
        for index, first in enumerate(parts):
            for second in parts[index + 1 :]:
                both = sum([seen[second][key] for key in seen[first].keys() & seen[second].keys()])
                across[f"{first} & {second}"] = both
                if both:
                    warnings.append(f"{both} rows of {second} are also in {first}: a leak if one tests the other.")
        if within[split]:
            warnings.append(f"{within[split]} of {len(keys[split])} rows of {split} repeat an earlier one.")
        others = sum(seen[split].values()) - len(seen[split]) - within[split]
        if answers and others:
            notes.append(
                f"{others} rows of {split} have an earlier one's {self._listed(compared)}, but another answer."
            )
        said = {}
        for key, row in zip(keys[split], look["rows"][split], strict=True):
            if key:
                said.setdefault(key, set()).add(self._key(row, [name for name in labels if name not in compared]))
        conflicts = len([key for key, different in said.items() if len(different) > 1])
        if conflicts:
            warnings.append(f"{conflicts} rows appear with different labels.")
        on = self._listed(compared) if len(compared) <= 5 else f"{len(compared):,} columns"
        on += f", within a split also {self._listed(answers)}" if answers else ""
        left = [name for name in labels if name not in compared]
        on += f", without {self._listed(left)}" if left else ""
        return {"compared_on": on, "within": within, "across": across, "conflicting_labels": conflicts}

    def _keys(self, rows: list, columns: list, more: list) -> list:
        """What rows are compared by; empty of a row that lacks all of `columns`, which is like no other for that."""
        every = columns + more
        return [
            self._key(row, every) if [1 for name in columns if not self._lacks(row.get(name))] else "" for row in rows
        ]

    def _lacks(self, value: Any) -> bool:
        """Whether a cell is missing: none, not a number, an empty list, or a text of blanks at most."""
        if isinstance(value, str):
            return not value or value.isspace()
        return value != value or (not value and value != 0)

    def _looked_up(
        self, dataset: str, look: dict, columns: dict, totals: dict, duplicates: dict, warnings: list
    ) -> None:
        """Of splits that were only sampled: ten texts of each other split, looked up in all rows of this one."""
        import time

        if not duplicates["compared_on"]:  # the texts are only part of what is shown to a model
            return
        until, split = time.monotonic() + 20, look["split"]
        texts = [name for name, column in columns.items() if column["role"] in ("text", "input text")]
        whole = len(look["rows"][split]) == totals[split]
        others = [name for name in look["rows"] if name != split][:2]
        for other in others if texts and not whole else []:
            rows, found, asked = look["rows"][other], 0, 0
            said = [row.get(texts[0]) for row in rows[:: max(1, len(rows) // 40)]]
            # What the viewer takes for SQL it refuses; long texts do not fit in an address.
            plain = [text for text in said if isinstance(text, str) and 20 <= len(text) <= 500]
            plain = [text for text in plain if not [sign for sign in (";", "--", "/*", "*/") if sign in text]]
            for text in plain[:10]:
                if time.monotonic() > until:
                    break
                column, value = texts[0].replace('"', '""'), text.replace("'", "''")
                where = {"dataset": dataset, "config": look["config"], "split": split, "length": 1}
                try:
                    page = self._view("filter", {**where, "where": f"\"{column}\"='{value}'"})
                    found, asked = found + bool(page["rows"]), asked + 1
                except (ConnectionError, KeyError, TypeError):
                    break
            if asked:
                duplicates.setdefault("looked_up", {})[f"{split} & {other}"] = [found, asked]
            if found:
                warnings.append(
                    f"{found} of {asked} rows of {other} that were looked up in all of {split} are there: a leak."
                )

    def _methods(self, look: dict, columns: dict, duplicates: dict) -> dict:
        """Whether each way to train can take the split as it is, once it is mended, or not; the formats are those of
        trl, transformers and sentence-transformers."""
        rows = look["rows"][look["split"]]
        found = {
            "sft": self._for_sft(look, columns),
            "dpo": self._for_pairs(look, columns),
            "reward": self._for_pairs(look, columns),
            "grpo": self._for_prompts(look, columns),
            "text-classification": self._for_classes(look, columns, ("text", "input text")),
            "token-classification": self._for_tags(rows, look["features"], columns),
            "image-classification": self._for_classes(look, columns, ("image",)),
            "tabular-classification": self._for_classes(look, columns, ("number", "category")),
            "embeddings": self._for_embeddings(look, columns),
        }
        mine = {pair: count for pair, count in duplicates["across"].items() if pair.startswith(look["split"] + " & ")}
        lost = [f"{count:,} of {pair.split(' & ')[1]}" for pair, count in mine.items() if count]
        lost += [pair.split(" & ")[1] for pair, hits in duplicates.get("looked_up", {}).items() if hits[0]]
        verdicts = {}
        for method, judged in found.items():
            verdict, why, fix, used = judged
            gaps = {name: self._gaps(columns[name], len(rows)) for name in used.values()}
            gaps = {name: gap for name, gap in gaps.items() if gap[0]}
            whole = [row for row in rows if not [name for name in gaps if self._lacks(row.get(name))]]
            hidden = {name: self._gaps(columns[name], len(rows), "hidden") for name in used.values()}
            never = [name for name, gap in hidden.items() if gap[0] and gap[0] == gap[1]]
            if not rows:
                verdict, why, fix, used = "no", f"the split {look['split']!r} is empty", None, {}
            elif verdict != "no" and never:
                verdict, why, fix, used = "no", f"every row hides `{never[0]}` (-1)", None, {}
            elif verdict != "no" and not whole:
                empty = [name for name, gap in gaps.items() if gap[0] == gap[1]]
                which = "that was looked at " if self._seen(look) else ""
                why = f"no row {which}has {' and '.join([f'`{name}`' for name in empty or gaps])}"
                verdict, fix, used = "no", None, {}
            if verdict != "no":
                fixes = [fix] if fix else []
                for name in [name for name in hidden if hidden[name][0]]:
                    seen = self._seen(look) if hidden[name][1] == len(rows) else ""
                    fixes.append(f"drop {hidden[name][0]:,} rows whose label is hidden (-1){seen}")
                if gaps:
                    counted = [f"`{name}` ({gap[0]:,} of {gap[1]:,})" for name, gap in gaps.items()]
                    fixes.append(f"drop the rows that lack {', '.join(counted)}")
                if lost:
                    fixes.append(
                        f"take out of the other splits what is in {look['split']} too (rows: {', '.join(lost)})"
                    )
                if duplicates["conflicting_labels"] and "label" in used:
                    fixes.append(f"decide on {duplicates['conflicting_labels']} inputs that have several labels")
                verdict, fix = ("fixable", "; ".join(fixes)) if fixes else ("go", None)
                few = len(rows) < 50 and look["splits"][[one["split"] for one in look["splits"]].index(look["split"])]
                why += f"; only {len(rows)} rows" if few and few["rows"] == len(rows) else ""
            verdicts[method] = {"verdict": verdict, "why": why, "fix": fix, "columns": used}
        return verdicts

    def _named(self, columns: dict, words: str, roles: tuple = ()) -> str | None:
        """The first column by one of these names, best name first; one without any value only if there is no other."""
        known = {name.lower(): name for name in columns}
        found = [known[word] for word in words.split() if word in known]
        found = [name for name in found if not roles or columns[name]["role"] in roles]
        full = [name for name in found if columns[name]["distinct"]]
        return (full or found or [None])[0]

    def _texts(self, columns: dict) -> list:
        """Columns of texts, those with the longest first."""
        texts = [name for name, column in columns.items() if column["role"] in ("text", "input text", "target text")]
        sizes = {name: columns[name].get("characters", {}).get("median", 0) for name in texts}
        return sorted(texts, key=sizes.__getitem__, reverse=True)

    def _for_chats(self, look: dict, columns: dict, name: str) -> tuple:
        """Fine-tuning on conversations, by how they end."""
        talks = [row.get(name) for row in look["rows"][look["split"]]]
        talks = [talk for talk in talks if isinstance(talk, list) and talk and isinstance(talk[0], dict)]
        ends = [self._ending(talk) for talk in talks]
        fixes, seen = [], self._seen(look)
        if talks and not {"role", "content"} <= talks[0][0].keys():
            fixes.append("turn each {from, value} into {role, content}, human into user and gpt into assistant")
        if name != "messages":
            fixes.append(f"rename `{name}` to `messages`")
        system = self._named(columns, "system system_prompt system_message", ("text", "category"))
        if system:
            fixes.append(f"put `{system}` first, as the system's message")
        silent, empty, later = [ends.count(end) for end in ("silent", "empty", "later")]
        if talks and silent + empty == len(talks):
            which = "that was looked at " if seen else ""
            what = "holds an answer" if silent == len(talks) else "ends with an answer that says anything"
            return "no", f"no conversation {which}in `{name}` {what}", None, {}
        if silent:
            fixes.append(f"drop {silent} conversations that end without an answer{seen}")
        if empty:
            fixes.append(f"drop {empty} conversations whose last answer is empty{seen}")
        if later:
            fixes.append(f"cut {later} conversations off after their last answer{seen}")
        return "go", f"`{name}` holds conversations", "; ".join(fixes) or None, {"messages": name}

    def _ending(self, talk: list) -> str:
        """Whether a conversation ends with its last answer (also a call of a tool), that is empty, comes earlier, or is
        not there: answer, empty, later, silent."""
        turns = [turn if isinstance(turn, dict) else {} for turn in talk]
        who = [str(turn.get("role") or turn.get("from")).lower() for turn in turns]
        places = [n for n, name in enumerate(who) if name in ("assistant", "gpt", "model", "bot", "chatgpt", "ai")]
        if not places:
            return "silent"
        last = turns[places[-1]]
        said = last.get("content") or last.get("value")
        parts = said if isinstance(said, list) else [said]
        texts = [part.get("text", part) if isinstance(part, dict) else part for part in parts]
        if not (last.get("tool_calls") or last.get("function_call") or [1 for one in texts if not self._lacks(one)]):
            return "empty"
        return "answer" if places[-1] == len(turns) - 1 else "later"

    def _about(self, name: str) -> bool:
        """Whether a column's name says that it tells where a row comes from."""
        import re

        words = (
            r"title|source|lang(uage)?|locale|split|split_type|subset|config|dataset|model|model_name|version|style"
        )
        words += (
            r"|licen[sc]e|author|user|username|(.+_)?(url|link|uri|date|time|timestamp|path|file)|year|month|domain"
        )
        words += r"|created_at|role|speaker"
        return bool(re.fullmatch(words, name.lower()))

    def _prose(self, name: str) -> bool:
        """Whether a column's name says that it is text to be read, however short, and no name in a table."""
        import re

        words = (
            r"(.*_)?(text|sentence|content|comment|review|tweet|message|utterance|title|headline|description|prompt)"
        )
        return bool(re.fullmatch(words, name.lower()))

    def _label(self, columns: dict) -> str | None:
        labels = [name for name, column in columns.items() if column["role"] == "label"]
        return self._named(columns, "label labels target class", ("label",)) or (labels[0] if labels else None)

    def _media(self, look: dict, columns: dict) -> list:
        kinds = {name: self._type(look["features"][name]) for name in columns}
        lists = ("list[Image]", "list[Audio]", "list[Video]")
        return [
            name for name in columns if columns[name]["role"] in ("image", "audio", "video") or kinds[name] in lists
        ]

    def _choices(self, look: dict, columns: dict) -> tuple | None:
        """Multiple choice: the column that asks, those that hold the choices, and the one that says which is right."""
        import re

        texts = ("text", "input text", "target text", "category")
        words = (
            "premise question query prompt ctx context goal sentence problem startphrase stem question_stem input text"
        )
        question = self._named(columns, words, texts)
        words = (
            "answer answerkey answer_key answer_idx answer_index answer_id label correct_answer correct_option correct"
        )
        answer = self._named(columns, words + " correct_idx correct_choice cop gold gold_label target")
        kind = r"(answer_)?(choices|options|endings|candidates|alternatives|answers)|mc\d_targets"
        listed = [name for name in columns if re.fullmatch(kind, name.lower()) and name != answer]
        rows, options = look["rows"][look["split"]][:200], []
        for name in listed:
            cells = [row[name] for row in rows if isinstance(row.get(name), list | dict)]
            cells = [
                max([len(one) if isinstance(one, list) else 1 for one in cell.values()] + [len(cell)])
                if isinstance(cell, dict) and not cell.keys() & {"answer_start", "start"}
                else len(cell)
                for cell in cells
            ]
            if cells and min(cells) > 1 and "answers" not in name.lower():
                options.append(name)
        stems: dict[str, list] = {}
        for name in columns:
            found = re.fullmatch(
                r"(option|choice|ending|sol|op|opt|answer|alternative|candidate)[ _]?([0-9]|[a-e])|[a-e]", name.lower()
            )
            if found and name != answer and columns[name]["role"] in texts:
                stems.setdefault(found[1] or "", []).append(name)
        least = {"answer": 3, "": 4}  # two answers may be a preference, and letters anything
        families = [names for stem, names in stems.items() if len(names) >= least.get(stem, 2)]
        options = options[:1] or (families[0] if families else [])
        options = [name for name in options if name != question]
        cells = [row[options[0]] for row in rows if isinstance(row.get(options[0]), dict)] if options else []
        if not answer and [cell for cell in cells if "labels" in cell]:
            answer = options[0]
        return (question, options, answer) if question and options and answer else None

    def _translated(self, look: dict, columns: dict) -> tuple | None:
        """Texts in several languages: the columns, and what names the first two languages in them."""
        rows = look["rows"][look["split"]]
        for name in columns:
            kind, cells = look["features"][name], [row[name] for row in rows[:200] if isinstance(row.get(name), dict)]
            stated = kind.get("_type") if isinstance(kind, dict) else None
            codes = kind.get("languages") if isinstance(kind, dict) and stated else None
            codes = codes if isinstance(codes, list) else list(cells[0]) if cells else []
            named = name.lower() in ("translation", "translations") and len(codes) > 1
            if cells and (named or stated in ("Translation", "TranslationVariableLanguages")):
                return [name], [f"{name}.{code}" for code in codes[:2]]
        words = self.languages.split()
        found = [name for name in columns if name.lower().removeprefix("text_").removesuffix("_text") in words]
        found = [name for name in found if columns[name]["role"] in ("text", "input text", "category")]
        return (found[:2], found[:2]) if len(found) > 1 else None

    def _asked(self, columns: dict) -> tuple:
        """The column that asks and the one that answers."""
        texts = ("text", "input text", "target text", "category", "conversation")
        words = "prompt instruction question question_title problem query input source src article document dialogue context"
        prompt = self._named(columns, words, texts)
        words = (
            "completion response output answer answers best_answer correct_answer solution canonical_solution target"
        )
        words += " tgt summary highlights translation code func_code_string chosen"
        answer = self._named(columns, words)
        if not prompt and answer and columns[answer]["role"] in ("text", "target text"):
            prompt = self._named(columns, "text content body passage report story func_documentation_string", texts)
        if answer and columns[answer]["role"] in ("label", "target", "number") and prompt:
            plain = prompt.lower() in ("prompt", "instruction", "question", "query", "problem")
            answer = answer if plain else None  # else of the many names of columns in a table
        return (prompt, answer) if prompt and answer and prompt != answer else (prompt, None)

    def _rating(self, columns: dict, taken: tuple) -> tuple | None:
        """The column that rates answers, and when it speaks for one."""
        words = "label feedback thumbs_up is_correct correct is_good good accepted liked rating score reward quality"
        words += " helpfulness correctness overall overall_score"
        others = {name: column for name, column in columns.items() if name not in taken}
        name = self._named(others, words, ("label", "category", "number", "target"))
        if not name:
            return None
        known = {label.lower() for label in columns[name].get("labels") or {}}
        yes = ("true", "1", "1.0", "good", "yes", "correct", "positive", "safe", "chosen", "desirable", "thumbs_up")
        no = ("false", "0", "0.0", "bad", "no", "incorrect", "negative", "unsafe", "rejected", "undesirable", "-1")
        if known and known <= {*yes, *no, "wrong", "thumbs_down"}:
            return name, f"`{name}` is {([one for one in yes if one in known] or ['good'])[0]}"
        if columns[name]["role"] == "category":
            return (name, f"`{name}` is true") if columns[name]["distinct"] <= 2 else None
        if known and [label for label in known if not label.replace(".", "").isdigit()]:
            return None  # it speaks of something else
        return name, f"`{name}` is high, if it rates the answers"

    def _extra(self, columns: dict, *taken: str | None) -> str | None:
        """What belongs to a question besides it."""
        if not taken[0] or taken[0].lower() not in ("instruction", "question", "query", "problem"):
            return None
        others = {name: column for name, column in columns.items() if name not in taken and column["distinct"]}
        words = "input context passage document article paragraph story support background sentence premise"
        return self._named(others, words, ("text", "input text", "category"))

    def _threads(self, rows: list, columns: dict) -> tuple | None:
        """Rows that are one message each: which conversation they belong to, who speaks, and what is said."""
        words = "parent_id conversation_id message_tree_id conv_id dialogue_id dialog_id thread_id session_id chat_id"
        thread, who = self._named(columns, words), self._named(columns, "role from speaker sender")
        said = self._named(columns, "content text message value utterance")
        speakers = {str(row.get(who)).lower() for row in rows} if who else set()
        known = {"user", "assistant", "prompter", "human", "gpt", "bot", "system", "agent", "customer", "none"}
        return (thread, who, said) if thread and who and said and len(speakers) > 1 and speakers <= known else None

    def _for_sft(self, look: dict, columns: dict) -> tuple:
        rows, compared = look["rows"][look["split"]], self._compared(columns)
        chats = [name for name, column in columns.items() if column["role"] == "conversation"]
        chats = [name for name in chats if name.lower() not in ("prompt", "completion", "chosen", "rejected")]
        if compared and "messages" not in chats and not self._choices(look, columns):
            first, last, judge = compared
            fix = f"take the one of `{first}` and `{last}` that `{judge}` names as the answer"
            return (
                "fixable",
                "two answers and which is better",
                fix,
                {"chosen": first, "rejected": last, "winner": judge},
            )
        if chats:
            return self._for_chats(look, columns, "messages" if "messages" in chats else chats[0])
        choices, translated, media = (
            self._choices(look, columns),
            self._translated(look, columns),
            self._media(look, columns),
        )
        if choices:
            question, options, answer = choices
            fix = (
                f"write {self._listed(options)} into the prompt behind `{question}`, and as `completion` in words the "
            )
            fix += f"choice that `{answer}` names"
            used = {"prompt": question, "choices": options[0], "completion": answer}
            why = f"it is multiple choice: `{answer}` says which of {self._listed(options)} is right"
            return "fixable", why, fix, used
        if translated:
            one, rest, first, second = translated[0][0], translated[0][1:], *translated[1]
            fix = f"ask in words for `{first}` to be put into the language of `{second}`: the one in `prompt`, the other as "
            used = {"prompt": one, "completion": rest[0]} if rest else {"translation": one}
            return "fixable", f"`{second}` translates `{first}`", fix + "`completion`", used
        thread = self._threads(rows, columns)
        if thread:
            fix = f"join the rows that belong together by `{thread[0]}` into `messages`, with `{thread[1]}` as role"
            used = {"thread": thread[0], "role": thread[1], "content": thread[2]}
            return "fixable", "each row is one message of a conversation", fix, used
        prompt, answer = self._asked(columns)
        better = self._named(columns, "chosen chosen_response response_chosen preferred accepted positive_response")
        asked = prompt and columns[prompt]["role"] == "conversation"
        if better and columns[better]["role"] == "conversation" and not asked and answer in (better, None):
            return self._for_chats(look, columns, better)
        if prompt and answer:
            return self._for_answers(look, columns, prompt, answer, media)
        if media and columns[media[0]]["role"] in ("audio", "video"):
            return "no", f"the texts belong to `{media[0]}`: they are for models of speech or video", None, {}
        label, flags = self._label(columns), self._flags(rows, columns)
        targets = [name for name, column in columns.items() if column["role"] == "target"]
        if label and columns[label].get("hidden") and columns[label]["distinct"] == 1:
            label = None
        label = label or (flags or targets or [None])[0]
        texts = [name for name in self._texts(columns) if columns[name].get("characters", {}).get("median", 0) >= 20]
        texts = [name for name in texts if not name.lower().startswith("reject") and name != label]
        if not texts:
            return "no", "there are no conversations, prompts with answers, or longer texts", None, {}
        name = "text" if "text" in texts else texts[0]
        if media:
            fix = f"for a model that sees: put `{media[0]}` into the prompt, and ask for `{name}` as `completion`"
            return "fixable", f"`{name}` belongs to `{media[0]}`", fix, {"image": media[0], "completion": name}
        if better in texts:
            fix = f"take `{better}` as `text`, or what stands before its last answer as `prompt`; leave the other out"
            return "fixable", f"`{better}` is the better of two texts", fix, {"text": better}
        halves = self._halves(columns)
        if label:
            both = f"with `{halves[0]}` and `{halves[1]}` in the prompt ask" if halves else "ask"
            fix = f"use `{name}` as it is to go on with pre-training, or {both} for `{label}` in words as `completion`"
            return "fixable", f"`{name}` is text, but nothing in it answers", fix, {"text": name}
        if "positive" in [one.lower() for one in texts]:
            return "no", "the texts are pairs of what belongs together, not texts to go on with", None, {}
        if name.lower() in ("prompt", "instruction", "question", "query"):
            return "no", f"`{name}` asks, but nothing answers", None, {}
        numbers = [one for one, column in columns.items() if column["role"] in ("number", "category")]
        if len(numbers) > 1 and name != "text" and columns[name]["characters"]["median"] < 60:
            return "no", f"the rows are tables' rather than texts: `{name}` is short", None, {}
        fix = None if name == "text" else f"rename `{name}` to `text`"
        return "go", f"`{name}` is text to go on with", fix, {"text": name}

    def _for_answers(self, look: dict, columns: dict, prompt: str, answer: str, media: list) -> tuple:
        """Fine-tuning on prompts with one answer each."""
        fixes, used, talks = [], {"prompt": prompt, "completion": answer}, "conversation"
        extra, rating = self._extra(columns, prompt, answer), self._rating(columns, (prompt, answer))
        if extra:
            fixes.append(f"put `{extra}` behind `{prompt}` where it is not empty")
        system = self._named(columns, "system system_prompt system_message", ("text", "category"))
        if system:
            fixes.append(f"put `{system}` before `{prompt}`, or as the system's message")
        if media:
            fixes.append(f"for a model that takes it, put `{media[0]}` into the prompt")
        if rating:
            fixes.append(f"keep the rows where {rating[1]}")
        fixes += [f"rename `{old}` to `{new}`" for new, old in used.items() if old != new]
        values = [row[answer] for row in look["rows"][look["split"]] if not self._lacks(row.get(answer))]
        if columns[answer]["role"] == talks or columns[prompt]["role"] == talks:
            if columns[answer]["role"] != columns[prompt]["role"]:
                fixes.append("make both texts, or both conversations")
            ends = [self._ending(value) for value in values if isinstance(value, list)]
            empty = len([end for end in ends if end in ("silent", "empty")])
            if empty:
                fixes.append(f"drop {empty} rows whose `{answer}` is empty{self._seen(look)}")
            if ends and empty == len(values):
                return "no", f"no `{answer}` says anything", None, {}
        elif columns[answer]["role"] in ("other", "list"):
            fixes.append(f"take the text out of `{answer}`")
        elif [value for value in values if not isinstance(value, str)]:
            fixes.append(f"put `{answer}` into words")
        return "go", f"`{prompt}` asks and `{answer}` answers", "; ".join(fixes) or None, used

    def _for_pairs(self, look: dict, columns: dict) -> tuple:
        rows, seen = look["rows"][look["split"]], self._seen(look)
        better = self._named(columns, "chosen chosen_response response_chosen preferred accepted positive_response")
        worse = self._named(columns, "rejected rejected_response response_rejected dispreferred negative_response")
        if better and worse:
            prompt = self._named(columns, "prompt question instruction query input")
            used = {"prompt": prompt} if prompt and columns[prompt]["distinct"] else {}
            used |= {"chosen": better, "rejected": worse}
            fixes = [f"rename `{old}` to `{new}`" for new, old in used.items() if old != new]
            both = [(row.get(better), row.get(worse)) for row in rows]
            both = [pair for pair in both if not self._lacks(pair[0]) and not self._lacks(pair[1])]
            same = len([1 for one, other in both if one == other])
            ends = [{self._ending(one) for one in pair if isinstance(one, list)} for pair in both]
            empty = len([1 for end in ends if end & {"empty", "silent"}])
            if both and max(same, empty) == len(both):
                what = "both answers are the same" if same >= empty else "an answer is empty"
                return "no", f"in every row{' that was looked at' if seen else ''} {what}", None, {}
            if same:
                fixes.append(f"drop {same} rows where both answers are the same{seen}")
            if empty:
                fixes.append(f"drop {empty} rows where the last answer of a conversation is empty, or not there{seen}")
            kinds = {columns[name]["role"] == "conversation" for name in (better, worse)}
            if len(kinds) > 1:
                fixes.append("make both answers texts, or both conversations")
            return "go", f"`{better}` was preferred to `{worse}`", "; ".join(fixes) or None, used
        compared = self._compared(columns)
        if compared and not self._choices(look, columns):
            first, last, judge = compared
            fix = (
                f"put the one of `{first}` and `{last}` that `{judge}` names into `chosen`, the other into `rejected`"
            )
            return (
                "fixable",
                "two answers and which is better",
                fix,
                {"chosen": first, "rejected": last, "winner": judge},
            )
        prompt, answer = self._asked(columns)
        if answer and not self._choices(look, columns) and self._rating(columns, (prompt, answer)):
            return "no", "answers are rated singly and not in pairs, which is what KTO takes", None, {}
        return "no", "there are no pairs of a preferred and a rejected answer", None, {}

    def _compared(self, columns: dict) -> tuple | None:
        """Two answers, and the column that says which is better."""
        words = "response_a answer_a response_0 response_1 completion_a response1 output_1 answer_0 conversation_a"
        first = self._named(columns, words + " human_ref_a")
        words = "response_b answer_b response_2 completion_b response2 output_2 answer_1 conversation_b human_ref_b"
        last = self._named(columns, words)
        last = self._named(columns, "response_1") if first and first.lower() == "response_0" else last
        judge = self._named(
            columns, "winner preference preferred label labels choice better_response_id chosen better"
        )
        return (first, last, judge) if first and last and judge else None

    def _for_prompts(self, look: dict, columns: dict) -> tuple:
        prompt = self._named(
            columns, "prompt question problem query instruction", ("input text", "text", "conversation")
        )
        chat = self._named(columns, "messages conversations", ("conversation",))
        choices, media = self._choices(look, columns), self._media(look, columns)
        if choices:
            question, options, answer = choices
            fix = f"write {self._listed(options)} into `prompt` behind `{question}`, numbered as in `{answer}`"
            used = {"prompt": question, "answer": answer}
            return "fixable", f"answers can be checked against `{answer}`, which names a choice", fix, used
        if not prompt and not chat:
            return "no", "there are no prompts", None, {}
        if not prompt:
            fix = f"take what stands before the last answer in `{chat}` as `prompt`, and have a function that rates answers"
            return "fixable", f"`{chat}` holds conversations", fix, {"prompt": chat}
        words = "answer solution ground_truth final_answer expected_answer correct_answer target reward_model"
        answer = self._named(columns, words)
        fixes, extra = [] if prompt == "prompt" else [f"rename `{prompt}` to `prompt`"], self._extra(columns, prompt)
        if extra:
            fixes.append(f"put `{extra}` behind it where it is not empty")
        elif columns[prompt]["distinct"] == 1 and look["rows"][look["split"]][1:]:
            return "no", f"`{prompt}` is the same in all rows", None, {}
        if media:
            fixes.append(f"for a model that takes it, put `{media[0]}` into it")
        rating = self._rating(columns, (prompt, answer)) if answer else None
        if rating:
            fixes.append(f"keep the rows where {rating[1]}")
        if answer and columns[answer]["distinct"]:
            used = {"prompt": prompt, "answer": answer}
            return "go", f"answers can be checked against `{answer}`", "; ".join(fixes) or None, used
        fixes.append("have a function or a model that rates answers without a reference")
        return "fixable", "there are prompts, but no reference answers", "; ".join(fixes), {"prompt": prompt}

    def _for_classes(self, look: dict, columns: dict, kinds: tuple) -> tuple:
        rows, label, kind = look["rows"][look["split"]], self._label(columns), kinds[0]
        given = [name for name, column in columns.items() if column["role"] in kinds and name != label]
        if not given:
            return "no", f"there are no {({'image': 'images', 'number': 'numbers'}).get(kind, 'texts')}", None, {}
        choices = self._choices(look, columns)
        if choices:
            question, options, answer = choices
            why = f"it is multiple choice: `{answer}` says which of {self._listed(options)} is right"
            if kind != "text":
                return "no", why, None, {}
            fix = (
                f"make a row of each choice: it and `{question}` as a pair of texts, whether it is right as the label"
            )
            return "fixable", why, fix, {"label": answer, "text": question, "text_pair": options[0]}
        several = [name for name in columns if name.lower() in ("labels", "label", "categories", "topics", "genres")]
        several = [name for name in several if self._lists(rows, name, (int, str))]
        if not label and several:
            why, fix = f"`{several[0]}` holds several labels a row", "train it as multi-label: a 0 or 1 for each label"
            return "fixable", why, fix, {"label": several[0], kind: given[0]}
        flags = self._flags(rows, columns) if kind != "number" else []
        if flags:
            why = f"{self._listed(flags)} are 0 or 1 in each row: several labels, if they are what is to be told"
            used = {f"label_{number + 1}": name for number, name in enumerate(flags)}
            fix = "train it as multi-label: a list of them, as numbers with a point, as `labels`"
            shown = [name for name in [*self._texts(columns), *given] if name in given]
            return "fixable", why, fix, {**used, kind: shown[0]}
        used, fixes, left, no = {"label": label}, [], [], None
        if kind == "number":
            no, fixes = self._for_table(look, columns, given, label)
        if not label or no:
            return self._unlabelled(look, columns, kind) if not no else ("no", no, None, {})
        if kind == "text":
            inputs, left, unsure = self._inputs(columns, label)
            used |= inputs
            fixes += [unsure] if unsure else []
        media = self._media(look, columns)
        if kind == "image":
            used["image"], also = given[0], list(given[1:])
            also += [name for name in self._texts(columns) if name != label and columns[name]["role"] == "input text"]
            also += [
                name for name in self._texts(columns) if name.lower() in ("text", "sentence", "statement", "claim")
            ]
            if also:
                fixes.append(
                    f"see whether {self._listed(also)} belongs to the input too: then images alone will not do"
                )
        elif kind == "text" and media:
            fixes.append(f"see whether `{media[0]}` belongs to the input too: then texts alone will not do")
        column = columns[label]
        every = column.get("all_rows", {}).get("labels") or column.get("labels") or {}
        hidden = self._gaps(column, len(rows), "hidden")[0]
        every = {name: number for name, number in every.items() if not hidden or name != "-1"}
        count = max(len(every), column["distinct"] - bool(column.get("hidden")))
        if count < 2:
            but = ", or hides it by -1" if hidden and count else ""
            which = " that was looked at" if self._seen(look) else ""
            return "no", f"every row{which} has the same `{label}`{but} (hidden, or sorted by it?)", None, {}
        if count > 0.2 * len(rows) and len(rows) > 20:
            fixes.append("merge labels, or leave out rare ones")
            return "fixable", f"`{label}` has {count} different values in {len(rows)} rows", "; ".join(fixes), used
        why = f"`{label}` has {count} classes" + (", without -1, which stands for none" if hidden else "")
        top = max(every.values()) / max(1, sum(every.values())) if every else 0
        why += f", {100 * top:.0f} % of one: weigh them, and judge by macro-F1" if top > 0.8 else ""
        others = [name for name in columns if columns[name]["role"] == "label" and name != label]
        why += f"; {self._listed(others)} may be meant as well" if others else ""
        why += f"; {self._listed(left)} is left out" if left else ""
        return "go", why, "; ".join(fixes) or None, used

    def _flags(self, rows: list, columns: dict) -> list:
        """Columns that are 0 or 1 in each row, where there are several and no other label: a row may have many."""
        found, both = [], 0
        for name, column in columns.items():
            if column["role"] not in ("label", "category", "number") or not 1 <= column["distinct"] <= 2:
                continue
            values = [row[name] for row in rows if not self._lacks(row.get(name))]
            if not [value for value in values if value not in (0, 1)]:
                found.append(name)
                both += column["distinct"] == 2
        named = self._named(columns, "label labels target class", ("label",))
        others = [name for name, column in columns.items() if column["role"] == "label" and name not in found]
        return [] if both < 2 or named or others else found

    def _unlabelled(self, look: dict, columns: dict, kind: str) -> tuple:
        targets = [name for name, column in columns.items() if column["role"] == "target"]
        if targets:
            return "no", f"`{targets[0]}` holds numbers rather than classes: that is regression", None, {}
        rows, roles = look["rows"][look["split"]], ("category", "number") if kind == "number" else ("category",)
        maybe = [name for name in columns if columns[name]["role"] in roles and not self._about(name)]
        maybe = [name for name in maybe if 2 <= columns[name]["distinct"] <= min(20, len(rows) // 10)]
        if kind == "text" and (self._asked(columns)[1] or self._media(look, columns) or self._compared(columns)):
            maybe = []
        if kind == "image" or not maybe or len(columns) > 100:
            return "no", "no column is a label", None, {}
        fix = f"say which column is the label: {self._listed(maybe)} {'have' if len(maybe) > 1 else 'has'} few values"
        return "fixable", "no column is named or typed as the label", fix, {}

    def _halves(self, columns: dict) -> tuple:
        """Two columns of texts that are one input."""
        roles = ("text", "input text", "target text", "category")
        for pair in self.halves.split("|"):
            first, second = [self._named(columns, word, roles) for word in pair.split()]
            if first and second:
                return first, second
        return ()

    def _inputs(self, columns: dict, label: str) -> tuple:
        """Which texts a label speaks of, those left out, and what has to be decided where that is not certain."""
        texts = [name for name in self._texts(columns) if name != label]
        texts = [name for name in texts if not self._about(name) or name.lower() == "title"]
        halves = [name for name in self._halves(columns) if name != label]
        single = self._named(columns, "text sentence review comment tweet utterance message", ("text", "input text"))
        if len(halves) == 2:
            used = {"text": halves[0], "text_pair": halves[1]}
            left = [name for name in texts if name not in halves]
            doubt = [name for name in left if columns[name].get("characters", {}).get("median", 0) >= 20]
        else:
            used = {"text": single or (texts or self._texts(columns))[0]}
            left = [name for name in texts if name != used["text"]]
            doubt = [name for name in left if columns[name]["role"] == "input text"] if single else left
        doubt = [name for name in doubt if columns[name]["distinct"] > 1]
        spoken = self._named(columns, "word aspect aspect_term aspect_category term entity", ("text", "category"))
        doubt += [spoken] if spoken and spoken not in [*doubt, *used.values()] else []
        prompt, answer = self._asked(columns)
        rated = self._rating(columns, (prompt, answer)) if answer else None
        if doubt:
            unsure = f"see whether {self._listed(doubt)} belongs to the input too, and if so put them together"
        elif len(halves) == 2 and rated and rated[0] == label and answer in halves and answer.lower() != "answer":
            unsure = (
                f"put `{halves[0]}` and `{halves[1]}` together as the input, as `{label}` rates the one as answer to "
            )
            unsure += "the other"
        else:
            unsure = None
        return used, [] if unsure else left, unsure

    def _for_table(self, look: dict, columns: dict, given: list, label: str | None) -> tuple:
        """Why a table will not do, and what has to be mended in it."""
        rows, fixes = look["rows"][look["split"]], []
        texts = [name for name in self._texts(columns) if name != label and columns[name]["distinct"] * 10 > len(rows)]
        sizes = {name: columns[name].get("characters", {}).get("median", 0) for name in texts}
        many = [
            name for name in texts if columns[name]["role"] != "text" and columns[name]["distinct"] * 2 > len(rows)
        ]
        many += [name for name in texts if sizes[name] > 60 or self._prose(name)]
        talks = [name for name, column in columns.items() if column["role"] == "conversation"]
        if many or talks or self._media(look, columns) or (texts and len(given) < 2):
            return "the rows are texts, images or sounds rather than numbers", []
        if texts:
            fixes.append(f"leave out {self._listed(texts)}, or make numbers of it")
        gaps = {name: self._gaps(columns[name], len(rows)) for name in given}
        gaps = {name: f"`{name}` ({gap[0]:,} of {gap[1]:,})" for name, gap in gaps.items() if gap[0]}
        some = ", ".join(list(gaps.values())[:5]) + (f" and {len(gaps) - 5:,} more" if len(gaps) > 5 else "")
        if gaps:
            fixes.append(
                f"fill the gaps in {some}, or take a learner that copes with them, such as one that boosts trees"
            )
        return None, fixes

    def _lists(self, rows: list, name: str, kinds: tuple) -> bool:
        """Whether a column holds lists of nothing else."""
        values = [row[name] for row in rows if isinstance(row.get(name), list)]
        return bool(values) and not [one for some in values[:200] for one in some if not isinstance(one, kinds)]

    def _for_tags(self, rows: list, features: dict, columns: dict) -> tuple:
        lists = [name for name, column in columns.items() if column["role"] in ("other", "list")]
        words = [name for name in lists if self._lists(rows, name, (str,))]
        first = [name for name in words if name.lower() in ("tokens", "words", "sentence")] or words
        tags = [name for name in lists if name not in first[:1] and self._lists(rows, name, (int, str))]
        tags = [name for name in tags if "tag" in name.lower() or "label" in name.lower() or name.lower() == "ner"]
        if first and tags:
            tags = [name for name in tags if "ner" in name.lower()] or tags
            used = {"tokens": first[0], "tags": tags[0]}
            pairs = [(row.get(first[0]), row.get(tags[0])) for row in rows]
            odd = len([1 for one, other in pairs if len(one or []) != len(other or [])])
            kind = str(self._type(features[tags[0]]))
            fixes = [f"drop {odd} rows with more or fewer tags than tokens"] if odd else []
            if "ClassLabel" not in kind and self._lists(rows, tags[0], (int,)):
                fixes.append(f"find out what the numbers in `{tags[0]}` stand for: no names are stated")
            return "go", f"`{tags[0]}` tags each of `{first[0]}`", "; ".join(fixes) or None, used
        for name in lists:
            values = [row[name] for row in rows if isinstance(row.get(name), list) and row[name]]
            if values and isinstance(values[0][0], dict) and {"start", "end"} <= values[0][0].keys():
                fix = "split the texts into tokens and the spans into BIO tags"
                return "fixable", f"`{name}` marks spans", fix, {"spans": name}
        return "no", "there are no tokens with a tag each", None, {}

    def _for_embeddings(self, look: dict, columns: dict) -> tuple:
        roles = ("text", "input text", "target text", "category")
        pairs = "anchor positive|query positive|sentence1 sentence2|sentence_1 sentence_2|sentence_a sentence_b|"
        pairs += (
            "premise hypothesis|question1 question2|question sentence|question answer|query answer|query document|"
        )
        pairs += "query passage|title abstract|title body|question context|question passage|text1 text2|text_a text_b|"
        pairs += "claim evidence|prompt completion"
        choices, translated = self._choices(look, columns), self._translated(look, columns)
        label, media = self._label(columns), self._media(look, columns)
        if choices:
            question, options, answer = choices
            fix = f"pair `{question}` with the choice that `{answer}` names, and the others as negatives"
            return "fixable", "it is multiple choice", fix, {"anchor": question, "positive": options[0]}
        if media:
            return "no", f"the texts belong to `{media[0]}`, not to each other", None, {}
        if translated:
            one, rest, first, second = translated[0][0], translated[0][1:], *translated[1]
            fix = f"keep `{first}` and `{second}`, as two columns in this order"
            used = {"anchor": one, "positive": rest[0]} if rest else {"translation": one}
            return "fixable", f"`{second}` translates `{first}`", fix, used
        prompt, answer = self._asked(columns)
        rating = self._rating(columns, (prompt, answer)) if answer and answer.lower() != "answer" else None
        for one, other in [pair.split() for pair in pairs.split("|")]:
            first, second = self._named(columns, one, roles), self._named(columns, other, roles)
            if first and second:
                used = {"anchor": first, "positive": second}
                third = self._named(columns, "negative neg rejected", roles)
                used |= {"negative": third} if third else {}
                names = "score similarity_score label similarity relatedness_score"
                score = self._named(columns, names, ("number", "target"))
                kind = self._named(columns, "label labels is_duplicate gold_label", ("label",))
                rated = rating and answer in (first, second)
                if score and not third and not rated:
                    used["score"] = score
                elif kind and not third and not rated:
                    used["label"] = kind
                extra = [name for name in columns if name not in used.values()]
                fixes = [f"keep the rows where {rating[1]}"] if rating and rated else []
                if extra:
                    fixes.append(f"keep these columns, in this order, and drop {self._listed(extra)}")
                if "score" in used:
                    found = [row.get(score) for row in look["rows"][look["split"]]]
                    found = [value for value in found if isinstance(value, int | float) and value == value]
                    if found and max(found) > 1:
                        fixes.append(f"bring `{score}`, up to {max(found):.3g}, to 0 to 1")
                why = f"`{first}` and `{second}` belong together"
                why += f", and `{used['label']}` says how" if "label" in used else ""
                return "go", why, "; ".join(fixes) or None, used
        worse = self._named(columns, "rejected rejected_response response_rejected", roles)
        texts = [name for name in self._texts(columns) if name != label]
        texts = [name for name in texts if not self._about(name) or name.lower() == "title"]
        if worse:
            return "no", f"`{worse}` is the worse of two answers, which says nothing of what is alike", None, {}
        if label and columns[label]["distinct"] - bool(columns[label].get("hidden")) < 2:
            label = None
        if texts and label:
            fix = f"make pairs of `{texts[0]}` that share their `{label}`"
            return "fixable", "texts with labels, but no pairs", fix, {"anchor": texts[0], "label": label}
        if len(texts) > 1:
            fix = f"see whether `{texts[0]}` and `{texts[1]}` belong together; if so, keep those two"
            return "fixable", "several texts a row", fix, {"anchor": texts[0], "positive": texts[1]}
        return "no", "there are no pairs of texts", None, {}

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
        if re.search(r"(^|_)(u?id|idx|index|uuid|guid|file_?name|file_?path)$", word) or re.search(
            r"[a-z]I[dD]$", name
        ):
            return "id"
        if isinstance(first, str):
            if re.fullmatch(
                r"prompt|instruction|question|query|input|source|context|premise|hypothesis|problem", word
            ):
                return "input text"
            answers = (
                r"completion|response|answer|output|target|summary|translation|chosen|rejected|solution|highlights"
            )
            answers += r"|(best|correct)_answer|canonical_solution|tgt"
            if re.fullmatch(answers, word):
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

    # Shared: hub
    def _hub(self) -> str:
        import os

        return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    def _ask(self, subject: str, seconds: float, call: Any, **arguments: Any) -> Any:
        """Calls the Hub's client; what goes wrong becomes one or two lines and the nearest builtin error.

        The client sets no time-out on most calls, repeats failing ones for half a minute and sleeps for as long as a
        `Retry-After` says: so each call gets a thread, left behind after `seconds`. Where the Hub limits requests and asks
        for half a minute or less, the call is made again after that, twice at most. The same in every tool of the Hub.
        """
        import json
        import queue
        import threading
        import time

        from huggingface_hub import errors

        ends, tries, wait = time.monotonic() + seconds, 0, ""
        while tries < 3:
            answers = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(answers, call, arguments), daemon=True).start()
            try:
                answer, error = answers.get(timeout=max(ends - time.monotonic(), 0))
            except queue.Empty:
                answer, error = None, TimeoutError(f"no end after {seconds:.0f} s")
            if error is None:
                return answer
            if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
                error = error.__cause__  # "not in the cache" hides why the Hub did not give it
            tries, wait = tries + 1, self._limited(error)
            pause = max(int(wait), 0.5) if wait.isdigit() else 3600
            if pause > 30 or time.monotonic() + pause >= ends or tries == 3:
                break
            time.sleep(pause)
        status, said, kind = 0, str(error).strip().split("\n")[0][:200], ConnectionError
        if isinstance(error, errors.HfHubHTTPError):
            status = error.response.status_code
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

    def _limited(self, error: Any) -> str:
        """The seconds that the Hub asks to wait where it limits requests, or when; empty where it does not say."""
        import re

        answer: Any = getattr(error, "response", None)
        if getattr(answer, "status_code", 0) != 429:
            return ""
        waits = re.findall(r"\bt=(\d+)", answer.headers.get("RateLimit", ""))  # the Hub's own way to say it
        return str(answer.headers.get("Retry-After") or "".join(waits[:1]))

    def _work(self, answers: Any, call: Any, arguments: dict) -> None:
        try:
            answers.put((call(**arguments), None))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for it, which raises it
            answers.put((None, error))

    # End of shared: hub

    # Shared: cache
    def _cache_key(self, address: str, token: str | None, *asked: Any) -> str:
        """The name of an answer: a digest of who was asked, for whom (the token, so that nobody sees another's), and what."""
        import hashlib
        import json

        return hashlib.sha256(json.dumps([address, token or "", *asked], sort_keys=True).encode()).hexdigest()

    def _cached(self, key: str, seconds: float) -> dict | None:
        """An answer kept at most so long ago, as `{data, body, age}`; `None` where there is none, or a damaged one."""
        import json
        from time import time
        from zlib import crc32

        try:
            check, _, held = (self._cache_folder() / key).read_bytes().partition(b"\n")
            if check != b"%08x" % crc32(held):
                return None
            head, _, body = held.partition(b"\n")
            kept = json.loads(head)
        except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
            return None
        age = time() - kept["time"]
        return {"data": kept["data"], "body": body, "age": age} if 0 <= age < seconds else None

    def _cache(self, key: str, data: Any, body: bytes = b"") -> None:
        """Keeps an answer: plain data, and bytes. Never a failure. At most 300 answers and 100 MB a tool, oldest out."""
        import contextlib
        import json
        import os
        import tempfile
        from pathlib import Path
        from time import time
        from zlib import crc32

        held = json.dumps({"time": time(), "data": data}).encode() + b"\n" + body
        if len(held) > 64_000_000:
            return
        with contextlib.suppress(OSError, RuntimeError):  # a cache that cannot be written is none
            folder = self._cache_folder()
            handle, name = tempfile.mkstemp(prefix=".", dir=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(b"%08x\n" % crc32(held) + held)
                Path(name).replace(folder / key)
            except OSError:
                Path(name).unlink()
                raise
            files = sorted([(one.stat().st_mtime, one.stat().st_size, one.path) for one in os.scandir(folder)])
            total = sum([size for _, size, _ in files])
            while len(files) > 300 or total > 100_000_000:
                _, size, path = files.pop(0)
                total -= size
                Path(path).unlink(missing_ok=True)

    def _cache_folder(self) -> Any:
        """This user's alone, as answers to other tokens lie in it: `$XDG_CACHE_HOME` (default ~/.cache) / the tool's name."""
        import os
        from pathlib import Path

        home = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (home if home.is_absolute() else Path.home() / ".cache") / self.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # refused where it belongs to somebody else, whose answers are not believed
        return folder

    # End of shared: cache
