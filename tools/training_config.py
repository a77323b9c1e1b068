"""From a task to a checked plan of training and a script that carries it out."""

from typing import Any

from smolagents import Tool


class TrainingConfigTool(Tool):
    """Plans a training run, checks the plan against what is known of model, data and hardware, and writes its script.

    What must never happen here: a plan that cannot work comes back as ready; a run is planned on data whose
    validation or test rows are in training; the test split's labels are opened; model or data are not pinned; an
    estimate hides what it was added up from.

    Models and data of the Hub are known by what hub_inspect_model and hub_inspect_dataset return: passed in, or asked
    for through this host. Those in the workspace are looked at here; no weights are loaded. Nothing is sent anywhere
    but the question what the Hub's hardware costs, and that only for hardware of the Hub.

    Args:
        workspace (*optional*): Where the script goes, with `relative(path)`, `open_read(path)` and `write_bytes`.
        inspect_dataset (*optional*): Called with `dataset`, `config` and `revision`; returns the report on it.
        inspect_model (*optional*): Called with `model` and `revision`; returns the report on it.
        machine (*optional*): {gpus: whether scripts may use them, memory_gb} of this machine; all of it by default.
    """

    name = "training_config"
    description = (
        "Plans a training run: checks columns, splits, leaks, labels, lengths, chat template, tokenizer, licence, batch, "
        "memory, time and cost, then writes one script for `uv run` with pinned versions, evaluation, checkpoints, --resume "
        "and --smoke. If `ready` is false nothing was written: do what the failed checks' `fix` says."
    )
    inputs = {
        "task": {"type": "string", "description": "What the model is to learn, in a sentence."},
        "method": {
            "type": "string",
            "description": "text-classification, token-classification, image-classification, sft, dpo, reward, grpo, "
            "embeddings, or sklearn (a classical baseline).",
        },
        "dataset": {"type": "string", "description": "Hub id, or a file or folder of the workspace."},
        "base_model": {
            "type": "string",
            "description": "Hub id, or a folder of the workspace (default none, for sklearn).",
            "nullable": True,
        },
        "adapter": {"type": "string", "description": "full (default), lora or qlora.", "nullable": True},
        "hardware": {
            "type": "string",
            "description": "local (default), or a flavor of HF Jobs such as a10g-small.",
            "nullable": True,
        },
        "budget": {"type": "object", "description": "{usd, hours} it may take (default none).", "nullable": True},
        "options": {
            "type": "object",
            "description": "name, config, splits {train, validation, test}, columns {role: column}, labels [in order], "
            "new_head, chat_template, reward (code), push_to, seed, trackio (default true: charts, kept on the "
            "machine), or a hyperparameter of the plan (default sensible).",
            "nullable": True,
        },
        "dataset_report": {
            "type": "object",
            "description": "Of hub_inspect_dataset (default: it is asked).",
            "nullable": True,
        },
        "model_report": {
            "type": "object",
            "description": "Of hub_inspect_model (default: it is asked).",
            "nullable": True,
        },
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "ready": {"type": "boolean"},
            "checks": {"description": "[{name, ok, why, fix}]; ok with a fix is advice"},
            "plan": {"description": "hyperparameters and all else the script was made from"},
            "estimate": {
                "description": "{memory_gb: {part: GB, total, available}, steps, hours, usd, usd_worst, from}"
            },
            "script": {"description": "in the workspace"},
            "smoke_command": {},
            "command": {},
            "start": {"description": "arguments for training_job's start"},
        },
    }
    effects = "read"  # beside its own files in the session's workspace

    # What was tried together; the scripts pin exactly this.
    VERSIONS: dict = {
        "torch": "2.13.0",
        "transformers": "5.24.0",
        "trl": "1.16.0",
        "pandas": "3.1.1",
        "peft": "0.21.2",
        "pyarrow": "26.0.1",
        "datasets": "5.2.0",
        "accelerate": "1.15.0",
        "bitsandbytes": "0.50.2",
        "sentence-transformers": "6.2.0",
        "scikit-learn": "1.9.1",
        "skops": "0.16.0",
        "numpy": "2.4.6",
        "nvidia-ml-py": "13.615.71",
        "pillow": "12.3.0",
        "trackio": "0.43.0",
    }
    # Roles a method trains on: any one of these sets, the first that the data has.
    ROLES: dict = {
        "text-classification": [["text", "label"]],
        "token-classification": [["tokens", "tags"]],
        "image-classification": [["image", "label"]],
        "sft": [["messages"], ["prompt", "completion"], ["text"]],
        "dpo": [["prompt", "chosen", "rejected"], ["chosen", "rejected"]],
        "reward": [["prompt", "chosen", "rejected"], ["chosen", "rejected"]],
        "grpo": [["prompt", "answer"], ["prompt"]],
        "embeddings": [
            ["anchor", "positive", "negative"],
            ["sentence1", "sentence2", "score"],
            ["anchor", "positive"],
        ],
        "sklearn": [["text", "label"], ["features", "label"]],
    }
    # Names that a column with a role goes by, beside the role's own. Not those of pairs that may be unlike each other.
    NAMES: dict = {
        "text": ["sentence", "content", "review", "tweet", "document", "utterance", "comment", "body"],
        "label": ["labels", "class", "category", "target", "intent", "emotion", "sentiment", "y"],
        "tokens": ["words"],
        "tags": ["ner_tags", "pos_tags", "labels"],
        "image": ["img", "picture", "photo"],
        "messages": ["conversations", "conversation"],
        "prompt": ["instruction", "question", "query", "input"],
        "completion": ["response", "output", "answer", "target"],
        "answer": ["solution", "target", "ground_truth"],
        "anchor": ["query", "question"],
        "positive": ["pos", "passage", "document", "answer"],
        "negative": ["neg", "hard_negative"],
        "sentence1": ["text1"],
        "sentence2": ["text2"],
        "score": ["similarity", "similarity_score"],
    }
    # flavor: GPUs, GB of one GPU, GB of memory, cores, USD an hour. https://huggingface.co/docs/hub/jobs-pricing, read
    # in November 2026; used, and said to be used, only where the Hub does not tell its prices.
    FLAVORS: dict = {
        "cpu-basic": (0, 0, 16, 2, 0.01),
        "cpu-upgrade": (0, 0, 32, 8, 0.03),
        "cpu-xl": (0, 0, 124, 16, 1.0),
        "cpu-performance": (0, 0, 256, 32, 1.9),
        "t4-small": (1, 16, 15, 4, 0.4),
        "t4-medium": (1, 16, 30, 8, 0.6),
        "l4x1": (1, 24, 30, 8, 0.8),
        "l4x4": (4, 24, 186, 48, 3.8),
        "l40sx1": (1, 48, 62, 8, 1.8),
        "l40sx4": (4, 48, 382, 48, 8.3),
        "l40sx8": (8, 48, 1534, 192, 23.5),
        "a10g-small": (1, 24, 15, 4, 1.0),
        "a10g-large": (1, 24, 46, 12, 1.5),
        "a10g-largex2": (2, 24, 92, 24, 3.0),
        "a10g-largex4": (4, 24, 184, 48, 5.0),
        "a100-large": (1, 80, 142, 12, 2.5),
        "a100x4": (4, 80, 568, 48, 10.0),
        "a100x8": (8, 80, 1136, 96, 20.0),
        "h200": (1, 141, 256, 23, 5.0),
        "h200x2": (2, 141, 512, 46, 10.0),
        "h200x4": (4, 141, 1024, 92, 20.0),
        "h200x8": (8, 141, 2048, 184, 40.0),
        "rtx-pro-6000": (1, 96, 256, 23, 2.75),
        "rtx-pro-6000x2": (2, 96, 512, 46, 5.5),
        "rtx-pro-6000x4": (4, 96, 1024, 92, 11.0),
        "rtx-pro-6000x8": (8, 96, 2048, 184, 22.0),
    }
    # Dense 16-bit TFLOP/s by NVIDIA's data sheets; the T4 has no bfloat16, so its figure is that of 32 bits.
    TFLOPS: dict = {
        "t4": 8,
        "l4": 121,
        "a10g": 70,
        "l40s": 362,
        "a100": 312,
        "h100": 989,
        "h200": 989,
        "rtx-pro-6000": 500,
    }

    def __init__(self, workspace=None, inspect_dataset=None, inspect_model=None, machine=None, model_repo_id=None):
        super().__init__()
        self.workspace = workspace
        self.inspect_dataset = inspect_dataset
        self.inspect_model = inspect_model
        self.machine = machine

    def forward(
        self,
        task: str,
        method: str,
        dataset: str,
        base_model: str | None = None,
        adapter: str | None = "full",
        hardware: str | None = "local",
        budget: dict | None = None,
        options: dict | None = None,
        dataset_report: dict | None = None,
        model_report: dict | None = None,
    ) -> dict:
        import json

        if self.workspace is None:
            raise RuntimeError(
                "training_config has no workspace to write to. Make it with TrainingConfigTool(workspace=...)."
            )
        adapter, hardware, options, checks = adapter or "full", hardware or "local", dict(options or {}), []
        self._arguments(task, method, base_model, adapter, budget, options)
        data = self._data(method, dataset, options, dataset_report, checks)
        model = self._model(method, base_model, options, model_report, checks)
        machine = self._hardware(hardware, adapter, checks)
        self._check_columns(method, data, options, checks)
        self._check_splits(data, options, checks)
        self._check_leaks(data, options, checks)
        labels = self._check_labels(method, data, model, options, checks)
        hyper = self._hyperparameters(method, adapter, data, model, machine, options)
        values = {name: value for name, value, _ in hyper}
        self._check_model(method, data, model, values, options, checks)
        self._check_terms(data, model, options, checks)
        estimate = self._estimate(method, adapter, data, model, machine, values, hyper, options, budget or {}, checks)
        self._check_delivery(hardware, data, model, options, checks)
        ready = not [check for check in checks if not check["ok"]]
        plan = {
            "name": self._name(method, dataset, base_model, options),
            "task": " ".join(task.split())[:500],
            "method": method,
            "adapter": adapter,
            "base_model": model.get("id"),
            "base_revision": model.get("revision"),
            "parameters": model.get("parameters"),
            "devices": machine["devices"],
            "dataset": data["id"],
            "dataset_config": data.get("config"),
            "dataset_revision": data.get("revision"),
            "splits": data["splits"],
            "files": data.get("files") or None,
            "separator": data.get("separator"),
            "validation_share": None if data["splits"]["validation"] else options.get("validation_share", 0.1),
            "columns": data["roles"],
            "numeric": data.get("numeric"),
            "labels": labels,
            "seed": options.get("seed", 42),
            "push_to": options.get("push_to"),
            "packages": self._packages(method, adapter, data, options, machine["devices"]),
        }
        answer = {
            "ready": ready,
            "plan": {
                **{name: value for name, value in plan.items() if value is not None},
                "hyperparameters": values,
                "hardware": machine,
            },
            "checks": checks,
            "estimate": estimate,
            "start": None,
            "script": None,
            "command": None,
            "smoke_command": None,
        }
        if not ready:
            return answer
        folder, text = self._place(plan, hyper, data, options, checks)
        answer["plan"]["name"] = plan["name"]
        compile(text, "train.py", "exec")
        self.workspace.write_bytes(f"{folder}/train.py", text.encode())
        written = json.dumps({**answer["plan"], "checks": checks, "estimate": estimate}, indent=2, ensure_ascii=False)
        self.workspace.write_bytes(f"{folder}/plan.json", written.encode())
        script = f"{folder}/train.py"
        start = {"script": script, "backend": "local" if hardware == "local" else "hf_jobs"}
        start |= {} if hardware == "local" else {"hardware": hardware}
        start |= {"estimate": f"{round(60 * estimate['hours'] + 0.5)}m"} if estimate["hours"] else {}
        start |= {"timeout": f"{estimate['limit_seconds']}s"} if estimate["limit_seconds"] else {}
        return {
            **answer,
            "start": start,
            "script": script,
            "command": f"python {script} --output {folder}",
            "smoke_command": f"python {script} --smoke --output {folder}-smoke",
        }

    def _arguments(
        self, task: str, method: str, base_model: str | None, adapter: str, budget: dict | None, options: dict
    ) -> None:
        """Refuses arguments that mean nothing."""
        import difflib

        if not isinstance(task, str) or not task.strip():
            raise ValueError("`task` says in a sentence what the model is to learn; it is empty.")
        if method not in self.ROLES:
            near = difflib.get_close_matches(str(method), list(self.ROLES), 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"There is no method {method!r}.{hint} Methods: {', '.join(self.ROLES)}.")
        if adapter not in ("full", "lora", "qlora"):
            raise ValueError(f"`adapter` is full, lora or qlora, not {adapter!r}.")
        if method == "sklearn" and (adapter != "full" or base_model):
            raise ValueError("scikit-learn's models have no base model and no adapters: leave both out.")
        if method != "sklearn" and not base_model:
            raise ValueError(f"{method} starts from a model: name it in `base_model`.")
        unknown = set(budget or {}) - {"usd", "hours"}
        if unknown:
            raise ValueError(f"`budget` is {{usd, hours}}; it has {', '.join(sorted(unknown))}.")
        known = ["name", "config", "revision", "base_revision", "splits", "columns", "labels", "new_head", "reward"]
        known += ["chat_template", "push_to", "seed", "trackio", "validation_share", "drop_test_rows"]
        known += ["accept_licence", "seconds_per_step"]
        known += [name for name, _, _ in self._defaults(method, "qlora")]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1, 0.5)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{method} has no option {name!r}.{hint} Options: {', '.join(known)}.")
        share = options.get("validation_share", 0.1)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"`validation_share` is a share of the training rows between 0 and 1, not {share!r}.")
        if isinstance(options.get("seed", 42), bool) or not isinstance(options.get("seed", 42), int):
            raise ValueError(f"`seed` is a whole number, not {options['seed']!r}.")  # noqa: TRY004 - as for the others

    def _add(self, checks: list, name: str, ok: bool, why: str, fix: str | None = None) -> None:
        checks.append({"name": name, "ok": bool(ok), "why": why, "fix": fix})

    def _name(self, method: str, dataset: str, base_model: str | None, options: dict) -> str:
        import re

        data = dataset.rstrip("/").split("/")[-1].split(".")[0]
        name = options.get("name") or "-".join([(base_model or "").rstrip("/").split("/")[-1], method, data])
        return re.sub(r"[^\w.-]+", "-", str(name)).strip("-.").lower()[:80] or method

    def _place(self, plan: dict, hyper: list, data: dict, options: dict, checks: list) -> tuple:
        """The run's folder and its script, named in the plan. What another script has made keeps the one that made it."""
        asked, number = plan["name"], 1
        while True:
            folder = self.workspace.relative(f"runs/{plan['name']}")
            text, script = self._script(plan, hyper, data, options), f"{folder}/train.py"
            made = [one for one in ("model", "checkpoints") if self.workspace.exists(f"{folder}/{one}")]
            if not made or not self.workspace.exists(script) or self.workspace.read_bytes(script) == text.encode():
                break
            number += 1
            plan["name"] = f"{asked}-{number}"
        if number > 1:
            self._add(checks, "name", True, f"runs/{asked} holds a run of another plan: this one is {plan['name']}.")
        return folder, text

    def _packages(self, method: str, adapter: str, data: dict, options: dict, devices: int) -> list:
        alone = method == "sklearn" and not data.get("revision") and not options.get("push_to")
        names = ["numpy"] if alone else ["numpy", "datasets"]  # which brings the Hub's client
        if method == "sklearn":
            names += ["scikit-learn", "skops"]
            parquet = str(data["splits"]["train"]).endswith(".parquet")
            names += ["pandas"] if "features" in data["roles"] or parquet else []
            names += ["pyarrow"] if parquet else []
        else:
            names += ["torch", "transformers", "accelerate"]
        names += ["trl"] if method in ("sft", "dpo", "reward", "grpo") else []
        names += ["sentence-transformers"] if method == "embeddings" else []
        names += ["pillow"] if method == "image-classification" else []
        names += ["peft"] if adapter != "full" else []
        names += ["trackio"] if options.get("trackio", True) else []
        names += ["bitsandbytes"] if adapter == "qlora" else []
        names += ["nvidia-ml-py"] if devices and method != "sklearn" else []
        return sorted([f"{name}=={self.VERSIONS[name]}" for name in names])

    # ---- what is known of the data ----

    def _data(self, method: str, dataset: str, options: dict, report: dict | None, checks: list) -> dict:
        """Columns, splits, rows, labels and overlaps of the data: from its report, or looked at in the workspace.

        {id, revision, config, splits: {train, validation, test}, rows: {role: number or None}, columns: {name: {kind,
        missing, characters, labels}}, overlap: {role: {exact, near, seen}}, license, methods, files, separator}
        """
        here = report is None and self.workspace.exists(dataset)
        if options.get("splits") and report is None and not here:
            here = not [path for path in options["splits"].values() if path and not self.workspace.exists(path)]
        if here:
            return self._local_data(method, dataset, options, checks)
        if report is None and self.inspect_dataset is not None:
            asked = {"config": options.get("config"), "revision": options.get("revision")}
            asked = {name: value for name, value in asked.items() if value}
            report = self.inspect_dataset(dataset=dataset, **asked)
        if report is None:
            raise ValueError(
                f"There is no {dataset!r} in the workspace, and nothing is known of it on the Hub. Pass what "
                "hub_inspect_dataset returns of it as `dataset_report`, or name a file of the workspace."
            )
        if report.get("id") not in (None, dataset):
            raise ValueError(f"`dataset_report` is about {report['id']!r}, not {dataset!r}. Inspect {dataset!r}.")
        columns, features = {}, report.get("features") or {}
        for name, found in (report.get("columns") or {}).items():
            column: dict = {
                "kind": self._kind(str(features.get(name, "")), found),
                "missing": found.get("missing") or 0,
            }
            column["characters"] = found.get("characters")
            if found.get("tokens"):  # better known than by characters
                edges = found["tokens"]
                column["characters"] = {
                    edge: 4 * edges[edge] for edge in edges if isinstance(edges[edge], int | float)
                }
            stated = str(features.get(name, "")).removeprefix("list[").removesuffix("]")
            if stated.startswith("ClassLabel("):  # numbers in the data; the type shows the first twenty names
                column["numbered"], names = True, stated[len("ClassLabel(") : -1].split(", ")
                if len(names) < 20:
                    column["labels"] = {str(number): label for number, label in enumerate(names)}
                elif column["kind"] == "label" and found.get("distinct") == len(found.get("labels") or []):
                    column["labels"] = {label: label for label in sorted(found["labels"])}
                    column["named"] = True
            elif found.get("labels"):
                column["labels"] = {label: label for label in sorted(found["labels"])}
            for one in self._run(name, found.get("columns")):
                columns[one] = column
        sizes = {part["split"]: part.get("rows") for part in report.get("splits") or []}
        splits = self._splits(list(sizes), options)
        overlap = {}
        duplicates = report.get("duplicates") or {}
        counts = dict(duplicates.get("across") or {})
        for pair, hits in (duplicates.get("looked_up") or {}).items():
            counts[pair] = max(counts.get(pair) or 0, hits[0])
        for pair, count in counts.items():
            names = pair.split(" & ")
            for role in ("validation", "test"):
                if splits["train"] in names and splits[role] in names and splits[role] != splits["train"]:
                    overlap[role] = {"exact": count, "near": None, "examples": []}
        seen = report.get("rows_examined") or {}
        return {
            "id": dataset,
            "revision": report.get("revision"),
            "config": report.get("config") if report.get("config") != "default" else None,
            "splits": splits,
            "sizes": sizes,
            "rows": {role: sizes.get(name) for role, name in splits.items() if name},
            "columns": columns,
            "overlap": overlap,
            "seen": seen.get(splits["train"]) if isinstance(seen, dict) else None,
            "license": report.get("license"),
            "gated": report.get("gated"),
            "methods": report.get("methods") or {},
            "hub": True,
        }

    def _run(self, name: str, count: int | None) -> list:
        """The columns of a run that stands as one, as 'pixel_00..pixel_63'; [] where they are not simply numbered."""
        import re

        ends = re.fullmatch(r"(.*?)(\d+)\.\.\1(\d+)", name)
        if not count:
            return [name]
        if not ends or int(ends[3]) - int(ends[2]) + 1 != count:
            return []
        width = len(ends[2]) if len(ends[2]) == len(ends[3]) else 0
        return [f"{ends[1]}{number:0{width}}" for number in range(int(ends[2]), int(ends[3]) + 1)]

    def _splits(self, names: list, options: dict) -> dict:
        """Which split trains, validates and tests: as the options say, else by their names."""
        chosen = dict.fromkeys(("train", "validation", "test"))
        for role, words in (("train", ("train",)), ("validation", ("validation", "valid", "val", "dev", "eval"))):
            found = [name for name in names if name.lower() in words or name.lower().startswith(words)]
            chosen[role] = found[0] if found else None
        found = [name for name in names if name.lower().startswith("test")]
        chosen["test"] = found[0] if found else None
        if not chosen["train"] and len(names) == 1:
            chosen["train"] = names[0]
        wrong = set(options.get("splits") or {}) - set(chosen)
        if wrong:
            raise ValueError(f"`splits` is {{train, validation, test}}; it has {', '.join(sorted(wrong))}.")
        return {**chosen, **(options.get("splits") or {})}

    def _kind(self, stated: str, found: dict) -> str:
        """text, number, label, image, messages, list or other."""
        kind, role = stated.lower(), found.get("role") or ""
        if kind in ("image", "image()") or role == "image":
            return "image"
        if role == "conversation" or "role:" in kind or "content:" in kind or "from:" in kind:
            return "messages"
        if kind.startswith(("list", "sequence", "[")) or role == "list":
            return "list"
        if kind.startswith("classlabel"):
            return "label"
        if kind in ("string", "str", "large_string"):
            return "label" if role in ("label", "category") else "text"
        if kind.startswith(("int", "uint", "float", "double", "bool")):
            return "label" if role == "label" and not kind.startswith(("float", "double")) else "number"
        return "label" if role == "label" else "text" if "text" in role else "other"

    def _local_data(self, method: str, dataset: str, options: dict, checks: list) -> dict:
        import hashlib

        if method == "image-classification":
            return self._local_images(dataset, options)
        paths = {role: path for role, path in (options.get("splits") or {}).items() if path}
        if not paths and self.workspace.is_dir(dataset):
            kinds = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
            found = [path for path in self.workspace.walk(dataset) if path.lower().endswith(kinds)]
            by_name = {path.rsplit("/", 1)[-1].rsplit(".", 1)[0]: path for path in found}
            paths = {role: by_name[name] for role, name in self._splits(list(by_name), {}).items() if name}
            if not paths.get("train"):
                raise ValueError(
                    f"No file of {dataset} is named for training ({', '.join(found[:8]) or 'no data files'}). "
                    "Say which in options={'splits': {'train': ..., 'validation': ...}}."
                )
        elif not paths:
            paths = {"train": dataset}
        if "train" not in paths:
            raise ValueError("`splits` names no file to train on. Give {'train': ..., 'validation': ...}.")
        paths = {role: self.workspace.relative(path) for role, path in paths.items()}
        if len(set(paths.values())) < len(paths):
            raise ValueError(f"Two splits are the same file ({paths}): what is trained on measures nothing.")
        rows, counts, files, separator = {}, {}, {}, None
        for role, path in paths.items():
            with self.workspace.open_read(path) as file:
                content = file.read(300_000_001)
            if len(content) > 300_000_000:
                raise ValueError(f"{path} has more than 300 MB: put it on the Hub, or train on a part of it.")
            files[path] = hashlib.sha256(content).hexdigest()
            rows[role], separator = self._rows(path, content, separator)
            counts[role] = len(rows[role])
        columns = self._columns(rows["train"])
        for (
            name,
            column,
        ) in columns.items():  # labels that only validation has; those of test are nobody's business yet
            if column.get("labels"):
                cells = [row.get(name) for row in rows.get("validation", [])]
                flat = [
                    one for cell in cells for one in (cell if isinstance(cell, list) else [cell]) if one is not None
                ]
                column["strange"] = sorted({self._key(one) for one in flat} - set(column["labels"]))
        data = {
            "id": dataset,
            "splits": {role: paths.get(role) for role in ("train", "validation", "test")},
            "rows": counts,
            "sizes": {path: counts[role] for role, path in paths.items()},
            "columns": columns,
            "overlap": {},
            "seen": counts["train"],
            "license": None,
            "methods": {},
            "files": files,
            "separator": separator,
            "hub": False,
        }
        data["samples"] = rows
        return data

    def _local_images(self, dataset: str, options: dict) -> dict:
        """Folders as datasets' imagefolder has them: <split>/<label>/<picture>, or <label>/<picture>."""
        import hashlib

        root, kinds = self.workspace.relative(dataset), (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tiff")
        found, digests = {}, {}
        for path in self.workspace.walk(root):
            parts = path[len(root) + 1 :].split("/")
            if parts[-1].lower().endswith(kinds) and len(parts) in (2, 3):
                split = parts[0] if len(parts) == 3 else ""
                found.setdefault(split, {}).setdefault(parts[-2], []).append(path)
        names = {name: f"{root}/{name}" if name else root for name in found}
        splits = {role: names.get(name) for role, name in self._splits([n for n in found if n], {}).items()}
        if "" in found:
            splits["train"] = root
        splits |= {role: self.workspace.relative(path) for role, path in (options.get("splits") or {}).items() if path}
        by_path = {path: found[name] for name, path in names.items()}
        if splits["train"] not in by_path:
            raise ValueError(
                f"{dataset} holds no pictures to train on. Lay them out as train/LABEL/PICTURE, or name the folder in "
                "options={'splits': {'train': ...}}."
            )
        rows, overlap = {}, {}
        for role, path in splits.items():
            if path:
                pictures = [one for some in by_path.get(path, {}).values() for one in some]
                rows[role], digests[role] = len(pictures), set()
                for one in pictures[:20_000]:
                    with self.workspace.open_read(one) as file:
                        digests[role].add(hashlib.sha256(file.read(50_000_000)).hexdigest())
        for role in ("validation", "test"):
            if role in digests:
                overlap[role] = {"exact": len(digests[role] & digests["train"]), "near": 0, "examples": []}
        labels = {str(number): label for number, label in enumerate(sorted(by_path[splits["train"]]))}
        # Numbers stand for folders in their order, split by split: a folder that one of them lacks would shift them all.
        sets = [set(by_path.get(splits[role], {})) for role in rows if role != "test"]
        other = sorted(set.union(*sets) - set.intersection(*sets))
        columns: dict = {"image": {"kind": "image", "missing": 0}}
        columns["label"] = {"kind": "label", "missing": 0, "labels": labels, "strange": other}
        data = {"id": dataset, "splits": splits, "rows": rows, "sizes": {}, "columns": columns, "overlap": overlap}
        return {**data, "license": None, "methods": {}, "hub": False, "seen": rows["train"]}

    def _rows(self, path: str, content: bytes, separator: str | None) -> tuple:
        """Rows of a file, and the separator of a CSV."""
        import csv
        import importlib
        import io
        import json

        kind = path.lower().rsplit(".", 1)[-1]
        if kind == "parquet":
            try:
                parquet = importlib.import_module(
                    "pyarrow.parquet"
                )  # `import` would make it a requirement of this tool
            except ImportError:
                raise ValueError(f"{path} is Parquet and pyarrow is not installed. `pip install pyarrow`.") from None
            return parquet.read_table(io.BytesIO(content)).to_pylist(), separator
        try:
            text = content.decode("utf-8-sig")
            if kind in ("csv", "tsv"):
                header = text.split("\n", 1)[0]
                separator = "\t" if kind == "tsv" else max(",;\t", key=header.count)
                csv.field_size_limit(50_000_000)
                rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))
                wrong = [number for number, row in enumerate(rows, 2) if None in row]
                if wrong:
                    raise ValueError(f"row {wrong[0]} has more cells than the header")
                return [{name: self._number(cell) for name, cell in row.items()} for row in rows], separator
            if kind == "json" and text.lstrip().startswith("["):
                return json.loads(text), separator
            if kind in ("json", "jsonl", "ndjson"):
                return [json.loads(line) for line in text.splitlines() if line.strip()], separator
        except (csv.Error, ValueError) as error:
            raise ValueError(
                f"{path} cannot be read as what its name says: {error}. Correct or convert it."
            ) from error
        raise ValueError(f"{path} is no CSV, TSV, JSON, JSON lines or Parquet file. Convert it to one.")

    def _number(self, cell: Any) -> Any:
        import re

        if not isinstance(cell, str) or not cell:
            return None
        if re.fullmatch(r"-?(0|[1-9]\d{0,17})", cell):
            return int(cell)
        return float(cell) if re.fullmatch(r"-?\d+\.\d+([eE][+-]?\d+)?", cell) else cell

    def _columns(self, rows: list) -> dict:
        """Each column's kind, missing values, lengths and labels, over all rows."""
        columns: dict = {}
        for name in dict.fromkeys([name for row in rows for name in row]):
            present = [row.get(name) for row in rows if row.get(name) is not None]
            column: dict = {"missing": len(rows) - len(present)}
            first = present[0] if present else None
            values = {self._key(value) for value in present if not isinstance(value, list | dict)}
            if isinstance(first, list):
                column["kind"] = "messages" if first and isinstance(first[0], dict) else "list"
                inner = {self._key(one) for some in present for one in some} if column["kind"] == "list" else set()
                if 0 < len(inner) <= 200:
                    column["labels"] = {value: value for value in sorted(inner, key=self._order)}
            elif isinstance(first, str | bool):
                short = max([len(str(value)) for value in present]) <= 60
                column["kind"] = "label" if short and len(values) <= min(200, max(2, len(present) // 2)) else "text"
            elif isinstance(first, int | float):
                whole = not [value for value in present if not isinstance(value, int)]
                column["kind"] = "label" if whole and len(values) <= min(50, max(2, len(present) // 4)) else "number"
            else:
                column["kind"] = "other"
            if values and len(values) <= 1000 and column["kind"] in ("label", "text", "number"):
                column["labels"] = {value: value for value in sorted(values, key=self._order)}
            sizes = sorted([self._size(value) for value in present if isinstance(value, str | list)])
            if sizes:
                edges = {
                    "median": sizes[len(sizes) // 2],
                    "p95": sizes[int(0.95 * (len(sizes) - 1))],
                    "max": sizes[-1],
                }
                column["characters"] = {"min": sizes[0], **edges}
            column["numeric"] = bool(present) and not [one for one in present if not isinstance(one, int | float)]
            columns[name] = column
        return columns

    def _size(self, value: Any) -> int:
        if isinstance(value, list):
            return sum([self._size(one) for one in value])
        if isinstance(value, dict):
            return sum([len(one) for one in value.values() if isinstance(one, str)])
        return len(str(value))

    def _key(self, value: Any) -> str:
        """A label as the script writes it."""
        return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)

    def _order(self, text: str) -> tuple:
        number = text.removeprefix("-").isdigit()
        return (not number, int(text) if number else 0, text)

    # ---- checks ----

    def _check_columns(self, method: str, data: dict, options: dict, checks: list) -> None:
        """Which column has which role; sets data["roles"]."""
        columns, given = data["columns"], dict(options.get("columns") or {})
        wrong = [name for name in self._flat(given.values()) if name not in columns]
        data["roles"] = {}
        if wrong:
            fix = f"Choose among {', '.join(list(columns)[:30])}."
            return self._add(checks, "columns", False, f"There is no column {wrong[0]!r}.", fix)
        verdict = data["methods"].get(method) or {}
        if verdict.get("verdict") == "no" and not given:
            return self._add(checks, "columns", False, str(verdict.get("why")), verdict.get("fix"))
        roles = given or self._roles(method, columns, verdict.get("columns") or {})
        if method in ("sft", "dpo", "grpo") and not given and roles.get("prompt") in ("instruction", "question"):
            more = [name for name in ("input", "context") if columns.get(name, {}).get("kind") in ("text", "label")]
            roles["prompt"] = [roles["prompt"], *more[:1]] if more else roles["prompt"]
        # What the script, or another check, takes care of itself.
        done = ["rename ", "drop the rows", "take out of the other", "have a function", "keep these columns", "use `"]
        done += ["put `"] if isinstance(roles.get("prompt"), list) else []
        done += ["turn each {from"] if method == "sft" else []
        left = [fix for fix in str(verdict.get("fix") or "").split("; ") if fix and not fix.startswith(tuple(done))]
        if left and verdict.get("verdict") == "fixable" and not given:
            soft = not [fix for fix in left if not fix.startswith(("decide on", "merge labels"))]
            self._add(checks, "rows", soft, str(verdict.get("why")), "; ".join(left))
        if not [known for known in self.ROLES[method] if set(known) <= set(roles)]:
            needs = " or ".join([" + ".join(known) for known in self.ROLES[method]])
            have = ", ".join([f"{name} ({column['kind']})" for name, column in list(columns.items())[:20]])
            fix = f"Name them in options={{'columns': {{role: column}}}}; the data has: {have}."
            return self._add(checks, "columns", False, f"{method} needs the columns {needs}.", fix)
        wanted: dict = {"image": ("image",), "tokens": ("list",), "tags": ("list",), "messages": ("messages",)}
        wanted |= {"score": ("number", "label"), "label": ("label", "text", "number")}
        for role, names in roles.items():
            kinds = wanted.get(role, ("text", "label", "number", "messages", "other"))
            for name in [names] if isinstance(names, str) else names:
                if columns[name]["kind"] not in kinds:
                    why = f"`{name}` is to be the {role}, and it is {columns[name]['kind']}, not {' or '.join(kinds)}."
                    return self._add(checks, "columns", False, why, "Name another in options={'columns': ...}.")
        data["roles"] = roles
        if method == "sklearn" and "features" in roles:
            data["numeric"] = [name for name in roles["features"] if columns[name]["kind"] == "number"]
            data["numeric"] += [name for name in roles["features"] if columns[name].get("numeric")]
            data["numeric"] = sorted(set(data["numeric"]))
        shown = ", ".join([f"{role}: {name}" for role, name in roles.items()])
        self._add(checks, "columns", True, f"{method} takes {shown}."[:400])
        lacking = {name: columns[name]["missing"] for name in self._flat(roles.values()) if columns[name]["missing"]}
        if lacking:
            said = ", ".join([f"{count} of `{name}`" for name, count in lacking.items()])
            self._add(checks, "missing values", True, f"{said} are missing.", "Such rows are left out, and counted.")
        return None

    def _flat(self, values: Any) -> list:
        return [name for value in values for name in ([value] if isinstance(value, str) else value)]

    def _roles(self, method: str, columns: dict, reported: dict) -> dict:
        """The first set of roles that the columns can fill."""
        roles = {role: name for role, name in reported.items() if isinstance(name, str) and name in columns}
        if "score" in roles and "anchor" in roles:
            roles["sentence1"], roles["sentence2"] = roles.pop("anchor"), roles.pop("positive", "")
        for known in self.ROLES[method]:
            if set(known) <= set(roles):
                pair = {"text_pair": roles["text_pair"]} if "text_pair" in roles and "text" in known else {}
                return {**{role: roles[role] for role in known}, **pair}
        kinds: dict = {"image": ("image",), "tokens": ("list",), "tags": ("list",), "messages": ("messages",)}
        kinds |= {"label": ("label",), "score": ("number",), "text": ("text",), "completion": ("text", "messages")}
        for known in self.ROLES[method]:
            found: dict = {}
            for role in known:
                allowed = kinds.get(role, ("text", "label", "messages"))
                fit = [name for name, column in columns.items() if column["kind"] in allowed]
                fit = [name for name in fit if name not in found.values()]
                named = [name for word in [role, *self.NAMES.get(role, [])] for name in fit if name.lower() == word]
                sure = role in ("text", "label", "image") and len(fit) == 1
                if role == "label" and not named and method in ("text-classification", "sklearn"):
                    named = [
                        name for name, c in columns.items() if name.lower() in ("label", "labels") and c.get("labels")
                    ]
                if role == "features":
                    rest = [n for n, c in columns.items() if c["kind"] in ("number", "label") and n.lower() != "id"]
                    label = [n for word in ["label", *self.NAMES["label"]] for n in rest if n.lower() == word]
                    found["features"] = [name for name in rest if label and name != label[0]]
                    if label and found["features"]:
                        return {"features": found["features"], "label": label[0]}
                    break
                if named or sure:
                    found[role] = (named or fit)[0]
            if set(found) == set(known):
                return found
        return {}

    def _check_splits(self, data: dict, options: dict, checks: list) -> None:
        splits, rows, sizes = data["splits"], data["rows"], data["sizes"]
        unknown = [name for name in splits.values() if name and data["hub"] and name.split("[")[0] not in sizes]
        if not splits["train"] or unknown:
            why = f"There is no split {unknown[0]!r}." if unknown else "No split is named for training."
            fix = f"Choose among {', '.join(sizes) or 'none'} in options={{'splits': {{'train': ...}}}}."
            return self._add(checks, "splits", False, why, fix)
        used = [name for name in splits.values() if name]
        if len(set(used)) < len(used):
            why = f"Two roles have the same split ({splits}): what is trained or chosen on measures nothing."
            return self._add(checks, "splits", False, why, "Leave out validation: it is then made from training rows.")
        for role in ("train", "validation", "test"):
            if splits[role] and rows.get(role) == 0:
                fix = "Leave it out of `splits`: validation is then drawn from the training rows, with the seed."
                fix = fix if role == "validation" else "Choose another split, or see why it is empty."
                return self._add(checks, "splits", False, f"The {role} split {splits[role]!r} is empty.", fix)
        share, count = options.get("validation_share", 0.1), rows.get("train")
        if splits["validation"]:
            self._add(checks, "splits", True, f"Trains on {splits['train']}, validates on {splits['validation']}.")
        elif count is not None and count * share < 1:
            why = f"{count} rows leave none for validation at validation_share={share}."
            return self._add(checks, "splits", False, why, "Get more rows, or raise validation_share.")
        else:
            why = f"There is no validation split: {share:.0%} of {splits['train']} are drawn for it with the seed."
            self._add(checks, "splits", True, why)
        if not splits["test"]:
            fix = "Hold rows out before you train: validation chooses the checkpoint, so its figures flatter."
            self._add(checks, "test split", True, "There is no test split to judge the result on.", fix)
        return None

    def _check_leaks(self, data: dict, options: dict, checks: list) -> None:
        """Rows of validation and test that are in training too, the same or nearly."""
        overlap = dict(data["overlap"])
        samples = data.pop("samples", {})
        seen = [name for role, name in data["roles"].items() if role not in ("label", "tags", "score")]
        for role in ("validation", "test"):
            if samples.get(role) and seen:
                overlap[role] = self._overlap(samples["train"], samples[role], self._flat(seen))
                if "features" in data["roles"]:  # rows of a table are often alike by their nature
                    overlap[role]["near"] = 0
        data["overlap"] = overlap
        for role, found in overlap.items():
            near = found["near"] or 0
            count = found["exact"] + near
            dropped = role == "validation" or options.get("drop_test_rows")
            if not count:
                continue
            why = f"{found['exact']} rows of {role} are also in training, and {near} more nearly so."
            if found["examples"]:
                why += f" Such as: {found['examples'][0]!r}."
            if near:
                fix = "Take these rows out of training, and name the new files in `splits`."
                self._add(checks, f"leak into {role}", False, why, fix)
            elif dropped:
                self._add(checks, f"leak into {role}", True, why, "The script leaves them out of training.")
            else:
                fix = "options={'drop_test_rows': True} leaves them out of training, comparing inputs only."
                self._add(checks, f"leak into {role}", False, why, fix)
        if not any(found["exact"] or found["near"] for found in overlap.values()):
            compared = ", ".join(overlap) or "nothing else"
            why = f"No training row among those examined is in {compared}."
            fix = "The script compares all rows, also for near copies, and leaves those out of training."
            self._add(checks, "leaks", True, why, fix if data["hub"] else None)

    def _overlap(self, train: list, other: list, columns: list) -> dict:
        """How many of `other` are in `train`: the same in plain form, or with 4 of 5 runs of three words in one row.

        Runs that more than every 50th of `other` has are the form of the data, such as a prompt's wording. Near copies are
        looked for among 5,000 of `other`, and for a minute.
        """
        import time

        known = {self._plain(row, columns): row for row in train}
        others = {self._plain(row, columns): row for row in other}
        exact = [text for text in [self._plain(row, columns) for row in other] if text in known]
        left = [text for text in others if text not in known][:5000]
        runs: dict = {}
        held = [self._pieces(others[text], columns) for text in left]
        for number, found in enumerate(held):
            for piece in found:
                runs.setdefault(piece, []).append(number)
        form = {piece for piece, numbers in runs.items() if len(numbers) > max(20, len(held) // 50)}
        sizes = [len(found - form) for found in held]
        near: dict = {}
        until = time.monotonic() + 60
        for row in known.values():
            if time.monotonic() > until:
                break
            mine, hits = self._pieces(row, columns) - form, {}
            for piece in mine:
                for number in runs.get(piece, ()):
                    hits[number] = hits.get(number, 0) + 1
            for number, count in hits.items():
                # Of both: a long training row that quotes a short one is no copy of it.
                if count >= max(4, 0.8 * max(sizes[number], len(mine))):
                    near[number] = True
        examples = [left[number][:100] for number in list(near)[:3]] or [text[:100] for text in exact[:3]]
        return {"exact": len(exact), "near": len(near), "examples": examples}

    def _pieces(self, row: dict, columns: list) -> set:
        """Runs of three words in a row; of a conversation, in what is said after its system prompt."""
        said = {}
        for name in columns:
            turns = row.get(name)
            if isinstance(turns, list) and turns and isinstance(turns[0], dict):
                turns = [one for one in turns if "system" not in (one.get("role"), one.get("from"))]
                turns = " ".join([str(one.get("content") or one.get("value")) for one in turns])
            said[name] = turns
        words = self._plain(said, columns).split()
        return {" ".join(words[at : at + 3]) for at in range(len(words) - 2)}

    def _plain(self, row: dict, columns: list) -> str:
        text = " ".join([str(row.get(name)) for name in columns]).lower()
        return " ".join("".join([one if one.isalnum() else " " for one in text]).split())

    def _check_labels(self, method: str, data: dict, model: dict, options: dict, checks: list) -> dict | None:
        """Labels as the data writes them to their names, in order; None where the method has none."""
        role = {"token-classification": "tags"}.get(method, "label")
        if role not in data["roles"]:
            return None
        column = data["columns"][data["roles"][role]]
        found = column.get("labels") or {}
        if column["kind"] == "number" and (not found or "." in "".join(found)):
            fix = "Put the values into bins and train on those, or write a regression by hand."
            self._add(checks, "labels", False, f"`{data['roles'][role]}` holds fractions: that is a regression.", fix)
            return None
        given = options.get("labels")
        if not found and not given:
            fix = "List all labels, in order, in options={'labels': [...]}."
            self._add(checks, "labels", False, f"The labels of `{data['roles'][role]}` are not known in full.", fix)
            return None
        if given:
            names = [str(name) for name in given]
            numbered = column.get("numbered") or (bool(found) and not [one for one in found if not one.isdigit()])
            stands = {str(n): name for n, name in enumerate(names)} if numbered else {name: name for name in names}
            if len(set(names)) < len(names):
                self._add(checks, "labels", False, f"`labels` has a name twice: {names}.", "Name each once.")
                return None
            strange = [value for value in found if value not in (names if column.get("named") else stands)]
            renamed = [n for value, n in found.items() if value in stands and n not in (stands[value], value)]
            if strange or renamed:
                why = f"The data has the labels {list(found.values())}; `labels` says {names}."
                fix = "Give them as the data has them, in its order, or leave `labels` out."
                self._add(checks, "labels", False, why, fix)
                return None
            found = stands
            column["named"] = False
        if len(found) < 2:
            fix = "Train on a split, or a column, with two labels at least."
            self._add(checks, "labels", False, f"There is only one label: {list(found.values())}.", fix)
            return None
        if column.get("strange"):
            why = f"There are labels that training or validation lacks: {column['strange'][:5]}."
            self._add(checks, "labels", False, why, "Correct them, or move rows so that both have them.")
            return None
        names = list(found.values())
        own = [str(name) for name in model.get("labels") or []] if model.get("has_head") else []
        unnamed = own == [f"LABEL_{number}" for number in range(len(names))]
        same = [name.lower() for name in own] == [name.lower() for name in names]
        if own and not same and not unnamed and not options.get("new_head"):
            order = " in another order" if sorted(map(str.lower, own)) == sorted(map(str.lower, names)) else ""
            why = f"The data's labels are {names[:20]}, the model's head has others{order}: {own[:20]}."
            fix = "options={'new_head': True} drops that head and learns one for the data's labels."
            self._add(checks, "labels", False, why, fix)
            return None
        self._add(checks, "labels", True, f"{len(names)} labels: {', '.join(names[:12])}.")
        return found

    # ---- what is known of the model and the machine ----

    def _model(self, method: str, base_model: str | None, options: dict, report: dict | None, checks: list) -> dict:
        """{id, revision, parameters, window, vocab, tokens, hidden, layers, labels, has_head, chat_template, license}"""
        if method == "sklearn":
            return {}
        if report is None and self.workspace.is_dir(str(base_model)):
            return self._local_model(str(base_model))
        if report is None and self.inspect_model is not None:
            asked = {"revision": options["base_revision"]} if options.get("base_revision") else {}
            report = self.inspect_model(model=base_model, **asked)
        if report is None:
            raise ValueError(
                f"There is no folder {base_model!r} in the workspace, and nothing is known of it on the Hub. Pass what "
                "hub_inspect_model returns of it as `model_report`."
            )
        if report.get("id") not in (None, base_model):
            raise ValueError(f"`model_report` is about {report['id']!r}, not {base_model!r}. Inspect {base_model!r}.")
        return {
            "id": base_model,
            "revision": report.get("revision"),
            "parameters": report.get("parameters"),
            "window": report.get("context_length"),
            "vocab": report.get("vocab_size"),
            "tokens": report.get("tokenizer_size"),
            "hidden": report.get("hidden_size"),
            "layers": report.get("layers"),
            "labels": report.get("labels"),
            "has_head": "Classification" in str(report.get("architecture")),
            "architecture": str(report.get("architecture") or ""),
            "chat_template": report.get("chat_template"),
            "license": report.get("license"),
            "gated": report.get("gated"),
            "hub": True,
        }

    def _local_model(self, folder: str) -> dict:
        """The same of a folder with config.json, tokenizer files and safetensors, whose headers alone are read."""
        import json

        folder = self.workspace.relative(folder)
        files = {path[len(folder) + 1 :]: path for path in self.workspace.walk(folder)}
        if "config.json" not in files:
            raise ValueError(f"{folder} is no model: it has no config.json. Name the folder that has one.")
        config = self._json(files["config.json"])
        inner = config.get("text_config") or config
        parameters = 0
        for name in [name for name in files if name.endswith(".safetensors") and "/" not in name]:
            with self.workspace.open_read(files[name]) as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, 50_000_000)))
            for tensor in [one for key, one in header.items() if key != "__metadata__"]:
                count = 1
                for length in tensor["shape"]:
                    count *= length
                parameters += count
        tokens = None
        if "tokenizer.json" in files:
            tokenizer = self._json(files["tokenizer.json"])
            vocab = (tokenizer.get("model") or {}).get("vocab") or {}
            ids = list(vocab.values()) if isinstance(vocab, dict) else [len(vocab) - 1]
            ids += [one["id"] for one in tokenizer.get("added_tokens") or []]
            tokens = 1 + max([one for one in ids if isinstance(one, int)], default=-1)
        elif "vocab.txt" in files:
            with self.workspace.open_read(files["vocab.txt"]) as file:
                tokens = len(file.read(50_000_000).split(b"\n")) - 1
        template = "chat_template.jinja" in files
        if "tokenizer_config.json" in files:
            template = template or bool(self._json(files["tokenizer_config.json"]).get("chat_template"))
        labels = config.get("id2label") or {}
        architecture = ",".join(config.get("architectures") or [])
        return {
            "id": folder,
            "revision": None,
            "parameters": parameters or None,
            "window": inner.get("max_position_embeddings") or inner.get("n_positions"),
            "vocab": inner.get("vocab_size"),
            "tokens": tokens,
            "hidden": inner.get("hidden_size") or inner.get("n_embd") or inner.get("dim"),
            "layers": inner.get("num_hidden_layers") or inner.get("n_layer") or inner.get("n_layers"),
            "labels": [labels[key] for key in sorted(labels, key=int)],
            "has_head": "Classification" in architecture,
            "architecture": architecture,
            "chat_template": template,
            "license": None,
            "hub": False,
        }

    def _json(self, path: str) -> dict:
        import json

        with self.workspace.open_read(path) as file:
            try:
                return json.loads(file.read(100_000_000))
            except ValueError as error:
                raise ValueError(f"{path} is not JSON ({error}). Save the model anew.") from error

    def _hardware(self, name: str, adapter: str, checks: list) -> dict:
        """{name, devices, device_gb, ram_gb, cores, usd_per_hour, prices, gpu}"""
        import difflib

        if name == "local":
            machine = self._local_machine()
        else:
            live, why = self._live_flavors()
            flavors = live or self.FLAVORS
            if name not in flavors:
                near = difflib.get_close_matches(name, list(flavors), 1, 0.5)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"There is no hardware {name!r}.{hint} There is local, {', '.join(flavors)}.")
            devices, device_gb, ram, cores, price = flavors[name]
            gpu = self._card(name)
            machine = {"name": name, "devices": devices, "device_gb": device_gb, "ram_gb": ram, "cores": cores}
            machine |= {"usd_per_hour": price, "gpu": gpu if devices else None}
            machine["prices"] = (
                "the Hub, just now" if live else f"a list of November 2026, as the Hub did not say: {why}"
            )
        said = f"{machine['devices']} GPU with {machine['device_gb']} GB" if machine["devices"] else "no GPU"
        fix = machine.pop("fix", None)
        if adapter == "qlora" and not machine["devices"]:
            fix = "Choose hardware with an NVIDIA GPU (l4x1 is the cheapest with bfloat16), or adapter='lora'."
            self._add(checks, "hardware", False, "QLoRA needs bitsandbytes on an NVIDIA GPU; there is none here.", fix)
        else:
            self._add(
                checks, "hardware", True, f"{name}: {said}, {machine['ram_gb']} GB, {machine['cores']} cores.", fix
            )
        return machine

    def _card(self, words: str) -> str | None:
        known = [card for card in sorted(self.TFLOPS, key=len, reverse=True) if card in words]
        return known[0] if known else None

    def _local_machine(self) -> dict:
        import os
        import shutil
        import subprocess

        ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        given = self.machine or {"gpus": True, "memory_gb": ram}  # what whatever runs the script may take
        ram = min(ram, given["memory_gb"])
        machine = {"name": "local", "devices": 0, "device_gb": 0, "ram_gb": round(ram, 1), "gpu": None}
        machine |= {"cores": len(os.sched_getaffinity(0)), "usd_per_hour": 0.0, "prices": "your own machine"}
        program = shutil.which("nvidia-smi")
        if program:
            query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
            cards = [line.rsplit(",", 1) for line in done.stdout.splitlines() if "," in line]
            if done.returncode == 0 and cards and not given["gpus"]:
                machine["fix"] = f"{cards[0][0]} is there but not for code: ML_INTERN_GPUS (--gpus) allows it."
            elif done.returncode == 0 and cards:
                machine |= {"devices": len(cards), "device_gb": round(float(cards[0][1]) * 1.048576e6 / 1e9, 1)}
                words = cards[0][0].lower().replace(" ", "-")
                machine["gpu"] = self._card(words)
        return machine

    def _live_flavors(self) -> tuple:
        """Hardware of HF Jobs with its prices by the official client, or None and why."""
        import os
        import queue
        import re
        import threading

        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            return None, "HF_HUB_OFFLINE is set."
        answers: Any = queue.SimpleQueue()
        threading.Thread(target=self._ask_flavors, args=(answers,), daemon=True).start()
        try:
            found, error = answers.get(timeout=15)
        except queue.Empty:
            found, error = None, TimeoutError("no answer in 15 s")
        if error is not None or found is None:
            return None, f"{type(error).__name__}: {str(error).splitlines()[0][:120]}."
        flavors, units = {}, {"second": 3600, "minute": 60, "hour": 1}
        try:
            for one in found:
                number = [float(re.sub(r"[^\d.]", "", text) or 0) for text in (one.cpu or "", one.ram or "")]
                card = one.accelerator
                gpus = int(card.quantity) if card and card.type == "gpu" else 0
                each = float(re.sub(r"[^\d.]", "", card.vram) or 0) / gpus if gpus else 0
                hourly = one.unit_cost_usd * units[one.unit_label]
                flavors[one.name] = (gpus, each, number[1], int(number[0]), round(hourly, 4))
        except (TypeError, ValueError, KeyError):  # a service of one's own may tell machines without prices
            return None, "it does not say what they cost."
        return flavors or None, "it named none."

    def _ask_flavors(self, answers: Any) -> None:
        import os

        try:
            from huggingface_hub import HfApi

            hub = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
            answers.put((HfApi(endpoint=hub).list_jobs_hardware(), None))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for it, which tells why
            answers.put((None, error))

    def _check_model(self, method: str, data: dict, model: dict, values: dict, options: dict, checks: list) -> None:
        """Tokenizer, window, chat template and head of the model against method and data."""
        if not model:
            return
        tokens, vocab, length = model.get("tokens"), model.get("vocab"), values.get("max_length")
        if tokens and vocab and method != "image-classification":
            why = f"The tokenizer has ids up to {tokens - 1:,}, the model {vocab:,} embeddings."
            fix = "They are not of one model: take the tokenizer that came with these weights."
            self._add(checks, "tokenizer", tokens <= vocab, why, fix if tokens > vocab else None)
        window = model.get("window")
        if length and window and length > window:
            why = f"max_length is {length:,}, the model reads {window:,} tokens."
            self._add(checks, "length", False, why, f"Set max_length to {window} or less.")
        elif length:
            self._check_lengths(method, data, length, window, checks)
        architecture = model.get("architecture") or ""
        decoder = method in ("sft", "dpo", "grpo")
        fit = [kind for kind in ("CausalLM", "LMHead", "ConditionalGeneration") if kind in architecture]
        if decoder and architecture and not fit:
            why = f"{method} trains a language model, and this is {architecture}."
            self._add(checks, "architecture", False, why, "Choose a model whose architecture is ...ForCausalLM.")
        kinds = [data["columns"][name]["kind"] for name in self._flat(data["roles"].values())]
        chat = method in ("sft", "dpo", "reward", "grpo") and "messages" in kinds
        if chat and not model.get("chat_template") and not options.get("chat_template"):
            why = "The data are conversations, and the tokenizer has no chat template to write them with."
            fix = "Choose the model's instruct variant, or options={'chat_template': 'chatml'} (or a Jinja template)."
            self._add(checks, "chat template", False, why, fix)
        elif chat:
            self._add(checks, "chat template", True, "Conversations are written with the chat template.")
        elif decoder and model.get("chat_template") and method != "grpo":
            fix = "If it is to be talked to, give the data as conversations (a list of {role, content})."
            self._add(checks, "chat template", True, "The data are plain text: the chat template is not used.", fix)
        if method == "grpo" and "answer" not in data["roles"] and not options.get("reward"):
            why = "GRPO needs something that tells a good completion: there is no answer column and no reward."
            fix = "Name an answer column, or give options={'reward': 'def reward(completions, **columns): ...'}."
            self._add(checks, "reward", False, why, fix)
        elif options.get("reward"):
            self._check_reward(str(options["reward"]), checks)

    def _check_reward(self, code: str, checks: list) -> None:
        import ast

        try:
            names = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
        except SyntaxError as error:
            return self._add(checks, "reward", False, f"`reward` is no Python: {error}.", "Correct it.")
        why = (
            "`reward` defines reward(completions, **columns)."
            if "reward" in names
            else "`reward` has no function reward."
        )
        fix = None if "reward" in names else "Define `def reward(completions, **columns) -> list[float]`."
        return self._add(checks, "reward", "reward" in names, why, fix)

    def _check_lengths(self, method: str, data: dict, length: int, window: int | None, checks: list) -> None:
        """Characters of the examples against max_length, at four characters a token."""
        seen = [name for role, name in data["roles"].items() if role not in ("label", "tags", "score", "answer")]
        sizes = [data["columns"][name].get("characters") or {} for name in self._flat(seen)]
        if not [size for size in sizes if size]:
            return None
        middle, long = [sum([size.get(edge) or 0 for size in sizes]) / 4 for edge in ("median", "p95")]
        room = f" The model reads {window:,}." if window else ""
        why = f"About {middle:,.0f} tokens an example, 95 % up to {long:,.0f} (4 characters each); max_length {length:,}."
        if middle > length and method in ("sft", "dpo", "reward", "grpo"):
            fix = "Raise max_length, or shorten the data: the end of most examples, the answer, is cut off."
            return self._add(checks, "length", False, why + room, fix)
        fix = "Raise max_length, or accept that long examples lose their end." if long > length else None
        return self._add(checks, "length", True, why + room, fix)

    def _check_terms(self, data: dict, model: dict, options: dict, checks: list) -> None:
        """Licences and pins."""
        for what, known in (("data", data), ("model", model)):
            if not known.get("hub"):
                continue
            if not known.get("revision"):
                fix = "Pass a report that has the commit, as the inspecting tools return it."
                self._add(checks, f"{what} revision", False, f"No commit of {known['id']} is known to pin.", fix)
            licence = str(known.get("license") or "")
            if "-nd" in licence and not options.get("accept_licence"):
                why = f"The licence of {known['id']} ({licence}) forbids sharing anything made from it."
                fix = "Choose other data, or options={'accept_licence': True} if nothing is to be published."
                self._add(checks, f"{what} licence", False, why, fix)
            elif not licence or "-nc" in licence or licence in ("other", "unknown"):
                fix = "Read its terms, and ask its author, before anything made from it is published or sold."
                self._add(checks, f"{what} licence", True, f"{known['id']}: {licence or 'no licence stated'}.", fix)
            else:
                self._add(checks, f"{what} licence", True, f"{known['id']}: {licence}.")
            if known.get("gated"):
                fix = "Whoever runs the job needs a token whose owner accepted the conditions."
                self._add(checks, f"{what} access", True, f"{known['id']} is gated.", fix)

    def _check_delivery(self, hardware: str, data: dict, model: dict, options: dict, checks: list) -> None:
        """Whether a job far away gets at what it needs, and whether what it made comes back."""
        push = options.get("push_to")
        here = [known["id"] for known in (data, model) if known and not known.get("hub")]
        if hardware != "local" and here:
            why = f"A job on {hardware} does not see this workspace, where {' and '.join(here)} lie."
            fix = "Push them to private repositories first (hub_push), or train with hardware='local'."
            self._add(checks, "access", False, why, fix)
        if push and str(push).count("/") != 1:
            self._add(checks, "delivery", False, f"`push_to` is USER/NAME, not {push!r}.", "Name a repository.")
        elif hardware != "local" and not push:
            why = "A job's disk is gone when it ends, and the trained weights with it."
            fix = "options={'push_to': 'USER/NAME'} (private), and a token for jobs: ML_INTERN_JOB_TOKEN."
            self._add(checks, "delivery", False, why, fix)
        elif push:
            why = f"Checkpoints and weights go to the private repository {push}, if the job has an HF_TOKEN."
            self._add(checks, "delivery", True, why)

    # ---- hyperparameters and what they cost ----

    def _defaults(self, method: str, adapter: str) -> list:
        """(name, value, where it is from), in the order that the script shows them."""
        if method == "sklearn":
            return [
                [
                    "strengths",
                    [0.1, 1.0, 10.0],
                    "C of logistic regression: a decade to each side of scikit-learn's default",
                ],
                ["ngrams", 2, "words and pairs of them: Wang and Manning 2012, aclanthology.org/P12-2018"],
                ["min_df", 2, "a word that occurs once tells nothing of other rows"],
                ["trees", 200, "of gradient boosting; scikit-learn stops early by itself on 10,000 rows and more"],
                ["learning_rate", 0.1, "of gradient boosting: scikit-learn's default"],
            ]
        bert = "BERT, arXiv:1810.04805, A.3: 2e-5 to 5e-5, batches of 16 or 32, 2 to 4 epochs"
        stable = "warm-up against failed runs on small data: Mosbach et al. 2021, arXiv:2006.04884"
        zephyr = "Zephyr, arXiv:2310.16944: cosine, 10 % warm-up, 1 to 3 epochs"
        # epochs, batch, accumulation, learning rate, its source, schedule, its source, weight decay, max_length
        table: dict = {
            "text-classification": (3, 16, 1, 3e-5, bert, "linear", stable, 0.01, 256),
            "token-classification": (3, 16, 1, 3e-5, bert, "linear", stable, 0.01, 256),
            "image-classification": (
                *(3, 16, 1, 5e-5, "transformers' guide to image classification: 5e-5, warm-up 0.1, 3 epochs"),
                *("linear", stable, 0.0, 0),
            ),
            "sft": (2, 4, 4, 2e-5, f"TRL's default, and {zephyr}", "cosine", zephyr, 0.0, 1024),
            "dpo": (1, 4, 8, 1e-6, "DPO, arXiv:2305.18290, appendix B: 1e-6", "linear", zephyr, 0.0, 1024),
            "reward": (
                *(1, 4, 8, 1e-5, "InstructGPT, arXiv:2203.02155, C.2: one epoch at 9e-6, more overfits"),
                *("cosine", "InstructGPT, as above", 0.0, 1024),
            ),
            "grpo": (
                1,
                8,
                2,
                1e-6,
                "DeepSeekMath, arXiv:2402.03300, 4.2: 1e-6",
                "constant_with_warmup",
                "as there",
                0.0,
                0,
            ),
            "embeddings": (
                *(1, 32, 1, 2e-5, "sentence-transformers' training overview: 2e-5, warm-up 0.1"),
                *("linear", "as above", 0.0, 256),
            ),
        }
        epochs, batch, accumulation, rate, rate_from, schedule, schedule_from, decay, length = table[method]
        if adapter != "full":
            rate, rate_from = (
                float(f"{rate * 10:.6g}"),
                f"ten times full training's (thinkingmachines.ai/blog/lora): {rate_from}",
            )
        found = [
            ["epochs", epochs, "passes over the training rows"],
            ["max_steps", 0, "0: as many as the epochs make"],
            ["batch_size", batch, "rows on one device at once"],
            ["accumulation", accumulation, "batches a step: rows a step = batch_size x accumulation x devices"],
            ["learning_rate", rate, rate_from],
            ["schedule", schedule, schedule_from],
            ["warmup", 0.1, "share of the steps in which the rate rises"],
            ["weight_decay", decay, "Loshchilov and Hutter 2019, arXiv:1711.05101"],
            ["max_grad_norm", 1.0, "longer gradients are cut: Pascanu et al. 2013, arXiv:1211.5063"],
            ["evaluations", 5, "times that validation is looked at and a checkpoint kept"],
            ["activation_checkpointing", False, "slower by a fifth, less memory: Chen et al. 2016, arXiv:1604.06174"],
        ]
        if length:
            found.append(["max_length", length, "tokens of an example; what is longer is cut"])
        if method == "image-classification":
            found.append(["flip", True, "mirrors half of the training pictures; False where left and right matter"])
        if method == "sft":
            found.append(["packing", False, "True puts short examples into one row: faster, with other batches"])
        if method == "dpo":
            found.append(["beta", 0.1, "how closely to stay with the reference: arXiv:2305.18290, appendix B"])
        if method == "reward":
            found.append(["center_rewards", 0.01, "keeps rewards near zero: Eisenstein et al. 2023, arXiv:2312.09244"])
        if method == "grpo":
            found.append(["generations", 8, "completions a prompt, compared with each other: TRL's default"])
            found.append(["max_completion_length", 256, "tokens"])
            found.append(["temperature", 1.0, "of the completions: TRL's default"])
            found.append(["beta", 0.0, "no penalty for leaving the reference: DAPO, arXiv:2503.14476, 2.3"])
        if adapter != "full":
            found.append(["lora_rank", 16, "small data need little: thinkingmachines.ai/blog/lora"])
            found.append(["lora_alpha", 32, "as there"])
            found.append(["lora_dropout", 0.05, "QLoRA, arXiv:2305.14314, A.1"])
            found.append(
                ["lora_targets", "all-linear", "all layers, which matters more than rank: arXiv:2305.14314, 4"]
            )
        return found

    def _hyperparameters(
        self, method: str, adapter: str, data: dict, model: dict, machine: dict, options: dict
    ) -> list:
        hyper = self._defaults(method, adapter)
        for row in hyper:
            name, default, _ = row
            if name == "max_length" and name not in options:
                row[1] = min(default, model.get("window") or default)
            if name not in options:
                continue
            value = options[name]
            kinds = (int, float) if isinstance(default, float) or name == "epochs" else (type(default),)
            kinds = (str, list) if name == "lora_targets" else kinds
            if not isinstance(value, kinds) or (isinstance(value, bool) and default not in (True, False)):
                raise ValueError(f"`{name}` is of the kind of {default!r}, not {value!r}.")
            zero = name in ("max_steps", "warmup", "weight_decay", "beta", "lora_dropout", "center_rewards")
            if (
                not isinstance(value, bool)
                and isinstance(value, int | float)
                and (value < 0 or (value == 0 and not zero))
            ):
                raise ValueError(f"`{name}` is more than 0, not {value!r}.")
            row[1], row[2] = value, f"as asked; the default is {default!r}"
        return hyper

    def _memory(self, method: str, adapter: str, model: dict, machine: dict, values: dict) -> dict:
        """GB (10^9 bytes) on one device, part by part; {} where the size of the model is not known.

        Activations of a layer: 34 bytes x tokens x width in 16 bits (Korthikanti et al. 2022, arXiv:2205.05198, without
        the attention scores, which fused attention does not keep); only layers' inputs with checkpointing.
        """
        size, gpu = model.get("parameters"), bool(machine["devices"])
        if not size:
            return {}
        width, layers, vocab = model.get("hidden") or 768, model.get("layers") or 12, model.get("vocab") or 0
        half = gpu and machine["gpu"] != "t4"  # bfloat16
        tokens = values.get("max_length") or (
            256 + values.get("max_completion_length", 0) if method == "grpo" else 197
        )
        tokens *= values["batch_size"] * (2 if method in ("dpo", "reward") else 1)
        trained = size if adapter == "full" else 23 * values["lora_rank"] * width * layers
        frozen = 2 if half and method in ("sft", "dpo", "reward", "grpo") else 4
        each = {"full": 4, "lora": frozen, "qlora": 0.55}[adapter]
        parts = {"weights": size * each + (2 * vocab * width if adapter == "qlora" else 0)}
        parts["adapters"] = 0 if adapter == "full" else 4 * trained
        parts["casts"] = 2 * size if half and adapter == "full" else 0
        parts["gradients"] = 4 * trained * (2 if machine["devices"] > 1 else 1)
        parts["optimizer"] = 8 * trained
        layer = 34 * tokens * width * (1 if half else 2)
        parts["activations"] = layer * layers
        if values["activation_checkpointing"]:
            parts["activations"] = layer + layers * tokens * width * (2 if half else 4)
        causal = method in ("sft", "dpo", "grpo")
        parts["logits"] = 10 * tokens * vocab if causal else 0
        compared = method == "dpo" or (method == "grpo" and values["beta"])
        parts["reference"] = 4 * size if compared and adapter == "full" else 0
        parts["cache"] = 2 * layers * tokens * width * (2 if half else 4) if method == "grpo" else 0
        parts["overhead"] = 1.5e9 if gpu else 0.8e9  # CUDA's context and kernels; Python and its libraries
        return {name: round(value / 1e9, 3) for name, value in parts.items() if value}

    def _estimate(
        self,
        method: str,
        adapter: str,
        data: dict,
        model: dict,
        machine: dict,
        values: dict,
        hyper: list,
        options: dict,
        budget: dict,
        checks: list,
    ) -> dict:
        """Memory, steps, time and cost. Fits the batch on a device to its memory, at the same rows a step."""
        rows, share = data["rows"].get("train"), options.get("validation_share", 0.1)
        if rows is not None and not data["splits"]["validation"]:
            rows -= round(rows * share)
        if method == "sklearn":
            count, long = rows or 100_000, 0
            for name in self._flat(data["roles"].values()):
                long += (data["columns"][name].get("characters") or {}).get("median", 8)
            hours = round(0.01 + count * max(long, 50) * 4e-11 * (2 + len(values["strengths"])) * 10, 3)
            parts = {"rows": round(count * long * 6e-9, 3), "overhead": 0.4}
            steps, fixed, basis = 2 + len(values["strengths"]), hours, "a few microseconds a character and candidate"
        else:
            room = 0.92 * (machine["device_gb"] or machine["ram_gb"])
            parts = self._memory(method, adapter, model, machine, values)
            rows_a_step = values["batch_size"] * values["accumulation"]
            least = values.get("generations", 1)
            while sum(parts.values()) > room and "batch_size" not in options and values["batch_size"] // 2 >= least:
                values["batch_size"] //= 2
                if method != "grpo":
                    values["accumulation"] = rows_a_step // values["batch_size"]
                parts = self._memory(method, adapter, model, machine, values)
            if sum(parts.values()) > room and "activation_checkpointing" not in options:
                values["activation_checkpointing"] = True
                parts = self._memory(method, adapter, model, machine, values)
            for row in hyper:
                if row[1] != values[row[0]]:
                    row[1], row[2] = values[row[0]], f"so that it fits {machine['name']}"
            steps, hours, fixed, basis = self._duration(method, adapter, data, model, machine, values, rows)
            if options.get("seconds_per_step") and steps:
                fixed = 0.0
                hours, basis = steps * options["seconds_per_step"] / 3600, "seconds_per_step, as measured"
            self._check_batch(method, machine, values, rows, checks)
        total, available = round(sum(parts.values()), 2), machine["device_gb"] or machine["ram_gb"]
        price = machine["usd_per_hour"]
        estimate = {
            "memory_gb": {**parts, "total": total if parts else None, "available": available},
            "rows_a_step": values.get("batch_size", 0) * values.get("accumulation", 0) * max(1, machine["devices"]),
            "steps": steps,
            "hours": None if hours is None else round(hours, 3),
            "timeout_hours": None if hours is None else round(1.5 * hours + 1 / 6, 2),
            "limit_seconds": None,
            "usd": None if hours is None else round(hours * price, 2),
            "usd_worst": None if hours is None else round((1.5 * hours + 1 / 6) * price, 2),
            "from": f"{basis}; prices: {machine['prices']}. Orders of magnitude: the smoke run tells seconds a step.",
        }
        if not parts:
            fix = "Watch the memory of the smoke run, and the first steps."
            self._add(checks, "memory", True, "The model's size is not known, so neither is its memory.", fix)
        else:
            fits = total <= 0.95 * available
            why = f"About {total} GB of {available} GB" + (
                f" on each of {machine['devices']} GPUs." if machine["devices"] else "."
            )
            fix = None if fits else self._way_out(method, adapter, model, machine, values, total)
            if fits and total > 0.8 * available:
                fix = "It is close: halve batch_size and double accumulation if it runs out."
            self._add(checks, "memory", fits, why, fix)
        for name, unit in (("usd", "USD"), ("hours", "hours")):
            if name not in budget:
                continue
            need = estimate[name]
            if need is None:
                fix = "Set max_steps, or give seconds_per_step from a smoke run."
                self._add(checks, "budget", False, "How long it takes is not known: the data's size is not.", fix)
            else:
                within = need <= budget[name]
                kept = self._keep_within(name, budget[name], price, estimate) if within else None
                why = f"About {need} {unit} of {budget[name]}" + (
                    f", {estimate['usd_worst']} at worst." if name == "usd" else "."
                )
                left = budget[name] / (price if name == "usd" and price else 1) - fixed
                most = int(0.95 * (steps or 0) * left / max(hours - fixed, 1e-9))
                fix = f"options={{'max_steps': {most}}}, " if most > 0 else ""
                fix += "fewer rows, or other hardware."
                fix = kept if within else fix
                self._add(checks, "budget", within, why, fix)
        return estimate

    def _keep_within(self, unit: str, most: float, price: float, estimate: dict) -> str | None:
        """Has a run that would by itself be ended too late be ended where the budget is: every minute begun is paid."""
        if unit == "usd" and not price:
            return None
        limit = int(3600 * most / price - 59) if unit == "usd" else int(3600 * most)
        # What training_job gives by itself: half more than the estimate in whole minutes, and ten minutes.
        if limit >= 90 * round(60 * estimate["hours"] + 0.5) + 600:
            return None
        limit = max(60, min(limit, estimate["limit_seconds"] or limit))
        estimate |= {"limit_seconds": limit, "timeout_hours": round(limit / 3600, 2)}
        estimate["usd_worst"] = round(price * (limit + 59) / 3600, 2)
        return (
            "It is ended within it, by the `timeout` in `start`; its checkpoints stay, and --resume goes on from them."
        )

    def _duration(
        self, method: str, adapter: str, data: dict, model: dict, machine: dict, values: dict, rows: int | None
    ) -> tuple:
        """Steps, hours and how they were reckoned: 6 FLOP a parameter and token (Kaplan et al. 2020, arXiv:2001.08361),
        4 where the weights are frozen, 2 more to check-point; a third of a GPU's peak, 30 GFLOP/s a core."""
        import math

        rows_a_step = values["batch_size"] * values["accumulation"] * max(1, machine["devices"])
        rows_a_step //= values.get("generations", 1)
        steps = values["max_steps"] or None
        if steps is None and rows is not None:
            steps = math.ceil(math.ceil(rows / max(1, rows_a_step)) * values["epochs"])
        if steps is None or not model.get("parameters"):
            return steps, None, 0.0, "not known"
        sizes = [data["columns"][name].get("characters") or {} for name in self._flat(data["roles"].values())]
        long, most = sum([size.get("median") or 0 for size in sizes]), values.get("max_length")
        tokens = min(most or 512, max(16, 1.5 * long / 4)) if long else most or 197
        effort = (6 if adapter == "full" else 4) + (2 if values["activation_checkpointing"] else 0)
        if method in ("dpo", "reward"):
            effort += 2 if method == "dpo" else 0  # the reference looks too
        if method == "grpo":
            tokens = (tokens + values["max_completion_length"]) * values["generations"]
            effort += 40  # written token by token, at a small part of the peak
        flop = effort * model["parameters"] * tokens * rows_a_step * steps
        watched = data["rows"].get("validation") or (rows or 0) / 9
        looks = 2 * model["parameters"] * tokens * watched * values["evaluations"]
        speed = machine["cores"] * 30e9
        if machine["devices"]:
            speed = self.TFLOPS.get(machine["gpu"], 60) * 1e12 * 0.33 * machine["devices"]
        start = 0.05 if machine["name"] != "local" else 0.005  # packages and weights have to come first
        basis = f"{effort} FLOP a parameter and token, {tokens:.0f} tokens a row, {speed / 1e12:.2g} TFLOP/s"
        fixed = start + looks / speed / 3600
        return steps, fixed + flop / speed / 3600, fixed, basis

    def _check_batch(self, method: str, machine: dict, values: dict, rows: int | None, checks: list) -> None:
        devices = max(1, machine["devices"])
        together = values["batch_size"] * values["accumulation"] * devices
        why = f"{values['batch_size']} rows x {values['accumulation']} batches x {devices} devices = {together} rows a step."
        if method == "grpo" and values["batch_size"] % values["generations"]:
            fix = f"Make batch_size a multiple of {values['generations']}, or change generations."
            return self._add(checks, "batch", False, f"{why} A prompt has {values['generations']} completions.", fix)
        if rows is not None and together > rows * values.get("generations", 1):
            fix = f"Lower batch_size and accumulation: there are {rows} rows to train on."
            return self._add(checks, "batch", False, f"{why} That is more than one epoch.", fix)
        return self._add(checks, "batch", True, why)

    def _way_out(self, method: str, adapter: str, model: dict, machine: dict, values: dict, total: float) -> str:
        """What would fit: never another model or task."""
        ways, small = [], {**values, "batch_size": values.get("generations", 1), "activation_checkpointing": True}
        have = machine["device_gb"] or machine["ram_gb"]
        if method == "sklearn":
            return "Train on fewer rows, or choose hardware with more memory."
        for kind in ("full", "lora", "qlora"):
            tried = {"lora_rank": 16, **small}
            if kind == "qlora" and not machine["devices"]:
                continue
            if sum(self._memory(method, kind, model, machine, tried).values()) <= 0.92 * have:
                ways.append("batch_size=1 with activation_checkpointing" if kind == adapter else f"adapter={kind!r}")
        for name in sorted(self.FLAVORS, key=self._price):
            devices, each = self.FLAVORS[name][:2]
            other = {"name": name, "devices": devices, "gpu": self._card(name), "device_gb": each}
            if devices and sum(self._memory(method, adapter, model, other, small).values()) <= 0.92 * each:
                ways.append(f"hardware={name!r} (about {self._price(name)} USD an hour)")
                break
        return (
            f"Would fit: {', or '.join(ways)}."
            if ways
            else "Nothing known here holds it: shorten max_length, or shard it."
        )

    def _price(self, flavor: str) -> float:
        return self.FLAVORS[flavor][4]

    # ---- the script ----

    def _script(self, plan: dict, hyper: list, data: dict, options: dict) -> str:
        """The script's text: what it is, its settings, and the blocks of its method."""
        import json
        import textwrap

        method, adapter = plan["method"], plan["adapter"]
        trl = method in ("sft", "dpo", "reward", "grpo")
        # What the Hub holds was not looked at here in full, so the script does.
        drop = bool(plan["splits"]["test"] and (options.get("drop_test_rows") or plan["dataset_revision"]))
        near = method != "image-classification" and "features" not in plan["columns"]
        flags = {
            "full": adapter == "full",
            "adapter": adapter != "full",
            "half": adapter == "qlora" or (adapter == "lora" and trl),
            "qlora": adapter == "qlora",
            "gpu": bool(plan["devices"]),
            "merge": adapter == "lora" and method != "embeddings",
            "whole": adapter == "full" and method != "embeddings",
            "part": adapter == "lora" and method == "embeddings",
            "kbit": adapter == "qlora" and not trl,
            "wrap": adapter != "full" and not trl,
            **{name: method == name for name in ("sft", "dpo", "reward", "grpo")},
            "causal": adapter != "full" and method in ("sft", "dpo", "grpo"),
            "ranked": adapter != "full" and method == "reward",
            "hub": bool(plan["dataset_revision"]),
            "files": not plan["dataset_revision"] and method != "sklearn",
            "table": not plan["dataset_revision"] and method == "sklearn",
            "held": not plan["splits"]["validation"],
            "given": bool(plan["splits"]["validation"]) and method != "sklearn",
            "given_gaps": bool(plan["splits"]["validation"]) and method == "sklearn",
            "gaps": method == "sklearn",
            "frame": "features" in plan["columns"],
            "parquet": method == "sklearn" and str(plan["splits"]["train"]).endswith(".parquet"),
            "drop": drop,
            "near": near,
            "near_alone": near and not drop,
            "near_test": near and drop,
            "push": bool(plan["push_to"]),
            "trackio": bool(options.get("trackio", True)),
            "chat": "messages" in plan["columns"],
            "labels": plan["labels"] is not None,
            "named": bool(data["columns"].get(plan["columns"].get("label"), {}).get("named")),
            "big": (plan["parameters"] or 0) > 1e9,
            "new_head": bool(options.get("new_head")),
            "template": bool(options.get("chat_template")),
        }
        blocks = [self.COMMON]
        if plan["labels"]:
            blocks.append(self.LABELS)
        if method in ("text-classification", "image-classification", "sklearn"):
            blocks.append(self.SCORES)
        if method != "sklearn":
            blocks.append(self.TRAINER)
            blocks += [self.ADAPTER] if flags["adapter"] else []
            blocks += [self.LANGUAGE] if method != "image-classification" else []
            blocks += [self.HEAD] if plan["labels"] else []
        if method in ("sft", "dpo", "reward", "grpo", "embeddings"):
            blocks.append(self.SHAPED)
        if method == "grpo":
            blocks.append(
                "\n\n" + str(options["reward"]).strip() + "\n" if options.get("reward") else self.MATCH_REWARD
            )
        own = {"text-classification": self.TEXT_CLASSIFICATION, "token-classification": self.TOKEN_CLASSIFICATION}
        own |= {
            "image-classification": self.IMAGE_CLASSIFICATION,
            "embeddings": self.EMBEDDINGS,
            "sklearn": self.SKLEARN,
        }
        imports, body = self._assembled([*blocks, own.get(method, self.TRL), self.TAIL], flags)
        settings = {name: value for name, value in plan.items() if name not in ("parameters", "devices")}
        for name in ("numeric", "labels", "separator", "files"):
            if settings[name] is None:
                del settings[name]
        table = [f"    {json.dumps(name)}: {self._literal(value, 4)}," for name, value in settings.items()]
        tuned = []
        for name, value, source in hyper:
            line = f"    {json.dumps(name)}: {self._literal(value, 4)},"
            fits = len(line) + len(source) + 4 <= 119
            above = textwrap.fill(source, 113, initial_indent="    # ", subsequent_indent="    # ")
            tuned.append(f"{line}  # {source}" if fits else f"{above}\n{line}")
        said = plan["task"].replace("\\", "/").replace('"""', "'''").rstrip('"')
        model = (
            f"{plan['base_model']} at {plan['base_revision'] or 'its files here'}"
            if plan["base_model"]
            else "scikit-learn"
        )
        about = textwrap.fill(said, 110)
        where = f"{plan['dataset']} at {plan['dataset_revision'] or 'its files here'}"
        top = ["# /// script", '# requires-python = ">=3.11"', "# dependencies = ["]
        top += [f'#     "{one}",' for one in plan["packages"]]
        top += ["# ]", "# ///", f'"""{about}', "", f"{method}, {adapter}: {model}", f"on {where}.", ""]
        top += ["    uv run train.py --smoke     a few steps on a slice of the data: shows whether it works at all"]
        top += ["    uv run train.py             the run; all it makes lies in its --output"]
        top += ["    uv run train.py --resume    goes on from the last checkpoint", ""]
        top += [
            "Ends with 0 when done, 2 if called wrongly, 3 if a number is no longer finite, 4 if data, model or machine"
        ]
        top += ["are not what it was planned with. The test split is kept for whoever judges the result.", '"""', ""]
        if flags["drop"]:
            top[-3] = (
                "are not what it was planned with. Of the test split only the inputs are looked at, to leave them out."
            )
        text = "\n".join([*top, imports, "CONFIG = {", *table, "}", "HYPERPARAMETERS = {", *tuned, "}"])
        if flags["template"]:
            template = self.CHATML if options["chat_template"] == "chatml" else str(options["chat_template"])
            pieces = [template[at : at + 90] for at in range(0, len(template), 90)]
            pieces = [repr(piece) if '"' in piece else json.dumps(piece, ensure_ascii=False) for piece in pieces]
            text += "\nCHAT_TEMPLATE = (\n    " + "\n    ".join(pieces) + "\n)"
        return text + "\n" + body

    def _assembled(self, blocks: list, flags: dict) -> tuple:
        """Imports in order, and the rest, without the lines that are for other plans."""
        import re
        import sys

        plain, named, body = set(), {}, []
        for line in "\n".join(blocks).split("\n"):
            asks = re.match(r"\?(!?)(\w+)\|", line)
            if asks and flags[asks[2]] == bool(asks[1]):
                continue
            line = line[asks.end() :] if asks else line
            if line.startswith(">import "):
                plain.add(line[8:])
            elif line.startswith(">from "):
                module, _, names = line[6:].partition(" import ")
                named.setdefault(module, set()).update(names.split(", "))
            else:
                body.append(line)
        sections: dict = {False: [], True: []}
        for module in sorted(plain):
            sections[module.split(".")[0].split(" ")[0] not in sys.stdlib_module_names].append(f"import {module}")
        for module in sorted(named, key=str.lower):
            names = sorted(named[module], key=lambda name: (not name.isupper(), not name[0].isupper(), name))
            line = f"from {module} import {', '.join(names)}"
            if len(line) > 119:
                line = f"from {module} import (\n" + "".join([f"    {name},\n" for name in names]) + ")"
            sections[module.split(".")[0] not in sys.stdlib_module_names].append(line)
        text = re.sub(r"\n{4,}", "\n\n\n", "\n".join(body))
        return "\n".join(sections[False]) + "\n\n" + "\n".join(sections[True]) + "\n", text.rstrip("\n") + "\n"

    def _literal(self, value: Any, indent: int) -> str:
        """A value as Python, over several lines where it is long."""
        import json

        if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        if not isinstance(value, dict | list | tuple):
            return repr(value)
        inner = [self._literal(one, indent + 4) for one in (value.values() if isinstance(value, dict) else value)]
        if isinstance(value, dict):
            inner = [
                f"{json.dumps(str(key), ensure_ascii=False)}: {one}" for key, one in zip(value, inner, strict=True)
            ]
        left, right = "{}" if isinstance(value, dict) else "[]"
        line = left + ", ".join(inner) + right
        if len(line) <= 90 and "\n" not in line:
            return line
        space = " " * indent
        return left + "\n" + "".join([f"{space}    {one},\n" for one in inner]) + space + right

    CHATML = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )

    # The scripts are put together from these blocks. An import has a ">" before it, as smolagents' saving takes every
    # line of a tool that begins with one for a package that the tool itself needs; and no block holds a backslash, as
    # saving would evaluate it a second time.
    COMMON = '''
>import argparse
?table|>import csv
?table|>import io
?push|>from huggingface_hub import HfApi
?push|>from huggingface_hub.errors import RepositoryNotFoundError
>import hashlib
>import importlib.metadata
?trackio|>import importlib.util
>import json
>import os
?held|>import random
?table|>import random
>import resource
>import shutil
>import sys
>import time
>from pathlib import Path
>from typing import NoReturn

STARTED = time.time()
MAIN = os.environ.get("RANK", "0") == "0"  # of several processes, one a GPU, the first one writes


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few steps on a slice of the data")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.add_argument("--output", type=Path, help="folder of the run (default runs/NAME, or runs/NAME-smoke)")
    arguments = parser.parse_args()
    if arguments.output is None:
        arguments.output = Path("runs", CONFIG["name"] + ("-smoke" if arguments.smoke else ""))
    return arguments


ARGS = read_arguments()
SMOKE, OUTPUT = ARGS.smoke, ARGS.output
CHECKPOINTS = OUTPUT / "checkpoints"
?push|PUSH = CONFIG["push_to"] if os.environ.get("HF_TOKEN") and not SMOKE else None  # only with a token for it
?trackio|TRACKIO = {"on": MAIN and not SMOKE and importlib.util.find_spec("trackio") is not None, "begun": False}
?trackio|os.environ.setdefault("TRACKIO_DIR", str(OUTPUT.parent / "trackio"))
?trackio|if not os.environ.get("HF_TOKEN"):
?trackio|    os.environ.pop("TRACKIO_SPACE_ID", None)


def write_json(path: Path, value: dict) -> None:
    if MAIN:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def report(record: dict) -> None:
    """A line in metrics.jsonl, and the same in the log, which is all there is of a job far away."""
    if MAIN:
        with (OUTPUT / "metrics.jsonl").open("a", encoding="utf-8") as file:
            print(json.dumps(record), file=file)
        print("@metrics " + json.dumps(record), flush=True)
?trackio|        track(record)


?trackio|def track(record: dict | None) -> None:
?trackio|    """The same once more for `TRACKIO_DIR=runs/trackio trackio show`; None ends it. It stays on this machine, unless
?trackio|    TRACKIO_SPACE_ID names a Space and there is a token for that. What goes wrong with it is said, and ends no run."""
?trackio|    if TRACKIO["on"]:
?trackio|        try:
?trackio|            import trackio
?trackio|
?trackio|            if not TRACKIO["begun"] and record:
?trackio|                own = {"auto_log_gpu": False, "auto_log_cpu": False, "embed": False, "private": True}
?trackio|                trackio.init(project=Path(CONFIG["dataset"]).name, name=OUTPUT.name, resume="allow", **own)
?trackio|                TRACKIO["begun"] = True
?trackio|            if record:
?trackio|                trackio.log(record, step=record["step"])
?trackio|            elif TRACKIO["begun"]:
?trackio|                trackio.finish()
?trackio|        except Exception as error:  # noqa: BLE001 - a chart is no reason to lose a run
?trackio|            TRACKIO["on"] = False
?trackio|            print(f"Note: Trackio shows no more of this run ({type(error).__name__}: {error}).", flush=True)
?trackio|
?trackio|
def versions() -> dict:
    """Of the packages that the run was planned with, as they are here; None for one that is missing."""
    known = {one.name.lower(): one.version for one in importlib.metadata.distributions()}
    return {name: known.get(name) for name in [one.partition("==")[0] for one in CONFIG["packages"]]}


def peak_memory_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3)  # kilobytes on Linux


def end(result: dict) -> None:
    result["seconds"] = round(time.time() - STARTED, 1)
    write_json(OUTPUT / "result.json", result)
    if MAIN:
        print("@result " + json.dumps(result), flush=True)
?trackio|    track(None)


def stop(code: int, kind: str, why: str, fix: str) -> NoReturn:
    """Ends the run with a reason that a person and a program can read."""
    end({"status": "failed", "error": {"kind": kind, "why": why, "fix": fix}})
    print(f"{why} {fix}", file=sys.stderr, flush=True)
    sys.exit(code)


?push|def claim_repository() -> None:
?push|    """Makes the private repository that the run goes to. One that is public, or holds another's work, is left alone."""
?push|    if not os.environ.get("HF_TOKEN"):
?push|        return
?push|    name = CONFIG["push_to"]
?push|    try:
?push|        about = HfApi().model_info(name)
?push|    except RepositoryNotFoundError:
?push|        if not SMOKE:
?push|            HfApi().create_repo(name, private=True)
?push|        return
?push|    files = [one for one in about.siblings or [] if one.rfilename != ".gitattributes"]
?push|    if not about.private:
?push|        why = f"{name} is public, and checkpoints are for nobody's eyes yet."
?push|        stop(4, "delivery", why, "Name another `push_to`, or make it private.")
?push|    if files and not ARGS.resume:
?push|        why = f"{name} holds {len(files)} file{'s' * (len(files) > 1)} already, which this run would write over."
?push|        stop(4, "delivery", why, "Go on with --resume if they are of this run; else name another `push_to`.")
?push|
?push|
def begin() -> None:
    """Makes the run's folder. A finished or half-finished run is never written over; a smoke run is."""
    if not MAIN:
        return
    old = OUTPUT / "config.json"
    if old.exists():
        before = json.loads(old.read_text(encoding="utf-8"))
        work = list(CHECKPOINTS.glob("checkpoint-*")) + list(OUTPUT.glob("model"))
        if ARGS.resume and before["smoke"] == SMOKE:
            (OUTPUT / "result.json").unlink(missing_ok=True)
            if before["hyperparameters"] != HYPERPARAMETERS or before["seed"] != CONFIG["seed"]:
                print("Note: this run began with other hyperparameters or another seed.", flush=True)
        elif work and not before["smoke"]:
            print(f"{OUTPUT} holds a run already. Go on with --resume, or name another folder with --output.")
            sys.exit(2)
        else:
            for name in ("checkpoints", "model", "adapter"):
                shutil.rmtree(OUTPUT / name, ignore_errors=True)
            for name in ("metrics.jsonl", "result.json"):
                (OUTPUT / name).unlink(missing_ok=True)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    made = {"script_sha256": digest, "smoke": SMOKE, "versions": versions(), "hyperparameters": HYPERPARAMETERS}
    write_json(old, {**CONFIG, **made})
?push|    claim_repository()


def forget_after(step: int) -> None:
    """Rows of steps that the run takes again after it went back to a checkpoint."""
    path = OUTPUT / "metrics.jsonl"
    if MAIN and path.exists():
        rows = path.read_text(encoding="utf-8").splitlines()
        with path.open("w", encoding="utf-8") as file:
            for row in rows:
                if json.loads(row)["step"] <= step:
                    print(row, file=file)


?hub|def load_split(name: str):
?hub|    """A split at the pinned revision."""
?hub|    where, revision = CONFIG["splits"][name], CONFIG["dataset_revision"]
?hub|    return load_dataset(CONFIG["dataset"], CONFIG["dataset_config"], revision=revision, split=where)
?table|class Rows(list):
?table|    """Rows of a file; by a column's name, its values."""
?table|
?table|    def __getitem__(self, which):
?table|        return [row.get(which) for row in self] if isinstance(which, str) else super().__getitem__(which)
?table|
?table|    def select(self, numbers) -> "Rows":
?table|        return Rows([self[number] for number in numbers])
?table|
?table|    def shuffle(self, seed: int) -> "Rows":
?table|        return Rows(random.Random(seed).sample(self, len(self)))
?table|
?table|    def select_columns(self, names: list) -> "Rows":
?table|        return Rows([{name: row.get(name) for name in names} for row in self])
?table|
?table|
?table|def number(cell: str) -> object:
?table|    """A cell of a CSV file: a number where it reads like one, None where it is empty."""
?table|    if not cell:
?table|        return None
?table|    if cell.lstrip("-").isdigit() and str(int(cell)) == cell:
?table|        return int(cell)
?table|    return float(cell) if cell.count(".") == 1 and cell.lstrip("-").replace(".", "").isdigit() else cell
?table|
?table|
?table|def load_split(name: str) -> Rows:
?table|    """A split's file, which has to be the one that the run was planned with."""
?table|    path = Path(CONFIG["splits"][name])
?table|    content = path.read_bytes()
?table|    if hashlib.sha256(content).hexdigest() != CONFIG["files"][str(path)]:
?table|        stop(4, "data", f"{path} is not the file this run was planned with.", "Plan again, or put the file back.")
?parquet|    if path.suffix == ".parquet":
?parquet|        found = pd.read_parquet(path).astype(object)
?parquet|        return Rows(found.where(found.notna(), None).to_dict("records"))
?table|    text = content.decode("utf-8-sig")
?table|    if path.suffix in (".csv", ".tsv"):
?table|        found = csv.DictReader(io.StringIO(text, newline=""), delimiter=CONFIG["separator"])
?table|        return Rows([{name: number(cell) for name, cell in row.items()} for row in found])
?table|    return Rows(json.loads(text) if text.startswith("[") else map(json.loads, filter(str.strip, text.splitlines())))
?files|def load_split(name: str):
?files|    """A split's file, which has to be the one that the run was planned with."""
?files|    where = CONFIG["splits"][name]
?files|    if Path(where).is_dir():
?files|        return load_dataset("imagefolder", data_dir=where, split="train")
?files|    if hashlib.sha256(Path(where).read_bytes()).hexdigest() != CONFIG["files"][where]:
?files|        stop(4, "data", f"{where} is not the file this run was planned with.", "Plan again, or put the file back.")
?files|    kind, options = Path(where).suffix[1:], {}
?files|    if kind in ("csv", "tsv"):  # a text or a label "None" or "NA" is no missing value
?files|        options = {"keep_default_na": False, "na_values": [""], "sep": CONFIG["separator"]}
?files|    kind = {"tsv": "csv", "jsonl": "json", "ndjson": "json"}.get(kind, kind)
?files|    return load_dataset(kind, data_files=where, split="train", **options)


def plain(value: object) -> str:
    """Text in its plainest form: letters and digits, in lower case."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
    return " ".join("".join(one if one.isalnum() else " " for one in text.lower()).split())


def key(row: dict) -> str:
    """What a model would see of a row: rows with the same key are the same example."""
    seen = [name for role, name in CONFIG["columns"].items() if role not in ("label", "tags", "score")]
    values = [row.get(name) for names in seen for name in ([names] if isinstance(names, str) else names)]
    if hasattr(values[0], "tobytes"):  # a picture
        return hashlib.sha256(values[0].convert("RGB").tobytes()).hexdigest()
    return hashlib.sha256(chr(0).join(map(plain, values)).encode()).hexdigest()


def complete(rows):
    """Without rows that lack what is trained on."""
    columns = [names if isinstance(names, str) else names[0] for names in CONFIG["columns"].values()]
    kept = rows.filter(lambda row: all(row[name] is not None for name in columns))
    if len(kept) < len(rows):
        print(f"Note: {len(rows) - len(kept)} rows are left out: they lack a column.", flush=True)
    return kept


?held|def hold_out(train, keys: list) -> set:
?held|    """The keys of a share of each label's examples, drawn with the seed. Copies of an example stay together."""
?held|    groups: dict = {}
?held|    label = CONFIG["columns"].get("label")
?held|    for one, value in zip(keys, train[label] if label else keys, strict=True):
?held|        groups.setdefault(str(value) if label else "", {})[one] = None
?held|    held = set()
?held|    for _, examples in sorted(groups.items()):
?held|        drawn = random.Random(CONFIG["seed"]).sample(sorted(examples), len(examples))
?held|        held.update(drawn[: round(len(drawn) * CONFIG["validation_share"])])
?held|    return held


?near|def pieces(row: dict) -> set:
?near|    """Runs of three words in what a model sees of a row; of a conversation, in what is said after its system prompt."""
?near|    seen = [name for role, name in CONFIG["columns"].items() if role not in ("label", "tags", "score")]
?near|    said = [row.get(name) for names in seen for name in ([names] if isinstance(names, str) else names)]
?near|    for number, turns in enumerate(said):
?near|        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
?near|            turns = [one for one in turns if "system" not in (one.get("role"), one.get("from"))]
?near|            said[number] = " ".join(str(one.get("content") or one.get("value")) for one in turns)
?near|    words = " ".join(map(plain, said)).split()
?near|    return {" ".join(words[at : at + 3]) for at in range(len(words) - 2)}
?near|
?near|
?near|def near_copies(train, others: list) -> set:
?near|    """Numbers of training rows that have 4 of 5 runs of three words in common with a held-out row.
?near|
?near|    Runs that more than every 50th held-out row has are the form of the data. Of a split that is held out 10,000 rows are
?near|    compared, of training 300,000, which takes some minutes.
?near|    """
?near|    held = [pieces(row) for rows in others for row in rows.select(range(min(len(rows), 10_000)))]
?near|    places: dict = {}
?near|    for number, found in enumerate(held):
?near|        for piece in found:
?near|            places.setdefault(piece, []).append(number)
?near|    form = {piece for piece, numbers in places.items() if len(numbers) > max(20, len(held) // 50)}
?near|    sizes, copies = [len(found - form) for found in held], set()
?near|    for number, row in enumerate(train.select(range(min(len(train), 300_000)))):
?near|        mine, shared = pieces(row) - form, {}
?near|        for piece in mine:
?near|            for other in places.get(piece, ()):
?near|                shared[other] = shared.get(other, 0) + 1
?near|        if any(count >= max(4, 0.8 * max(sizes[other], len(mine))) for other, count in shared.items()):
?near|            copies.add(number)
?near|    return copies
?near|
?near|
def load_data() -> tuple:
    """Training and validation rows that share no example."""
?!gaps|    train = complete(load_split("train"))
?gaps|    train = load_split("train")  # the pipeline fills gaps
    keys = [key(row) for row in train]
?held|    held = hold_out(train, keys)
?held|    validation = train.select([number for number, one in enumerate(keys) if one in held])
?given|    validation = complete(load_split("validation"))
?given_gaps|    validation = load_split("validation")
?!held|    held = {key(row) for row in validation}
?drop|    # Of the test split only what a model sees is looked at, to keep it out of training.
?drop|    roles = [names for role, names in CONFIG["columns"].items() if role not in ("label", "tags", "score")]
?drop|    seen = [name for names in roles for name in ([names] if isinstance(names, str) else names)]
?drop|    test = load_split("test").select_columns(seen)
?drop|    held |= {key(row) for row in test}
    left = [number for number, one in enumerate(keys) if one not in held]
?!held|    if len(left) < len(train):
?!held|        print(f"Note: {len(train) - len(left)} training rows are left out: they are held out too.", flush=True)
    train = train.select(left)
?near_alone|    copies = near_copies(train, [validation])
?near_test|    copies = near_copies(train, [validation, test])
?near|    if copies:
?near|        print(f"Note: {len(copies)} training rows are left out: they are nearly held-out ones.", flush=True)
?near|        train = train.select([number for number in range(len(train)) if number not in copies])
    if not len(train) or not len(validation):
        why = f"There are {len(train)} rows to train on and {len(validation)} to validate with."
        stop(4, "data", why, "Check `splits` and the columns: rows that lack one are left out.")
?named|    NAMES[:] = train.features[CONFIG["columns"]["label"]].names
?labels|    for rows in (train, validation):  # all of them, before anything is trained
?labels|        for one in rows[CONFIG["columns"].get("tags") or CONFIG["columns"]["label"]]:
?labels|            for label in one if isinstance(one, list) else [one]:
?labels|                label_of(label)
    print(f"{len(train)} rows to train on, {len(validation)} to validate with.", flush=True)
    if SMOKE:
        train = train.shuffle(seed=CONFIG["seed"]).select(range(min(64, len(train))))
        validation = validation.shuffle(seed=CONFIG["seed"]).select(range(min(32, len(validation))))
    return train, validation
'''

    TRAINER = '''
>import math
>import torch
>from datasets import load_dataset
?push|>from huggingface_hub import snapshot_download, upload_folder
>from transformers import TrainerCallback, set_seed
?big|>from transformers import AutoConfig
?qlora|>from transformers import BitsAndBytesConfig
>from transformers.trainer_callback import PrinterCallback
>from transformers.trainer_utils import get_last_checkpoint

GPU = torch.cuda.is_available()
BF16 = GPU and torch.cuda.is_bf16_supported(including_emulation=False)
BASE = {"pretrained_model_name_or_path": CONFIG["base_model"], "revision": CONFIG["base_revision"] or "main"}
if GPU and torch.cuda.device_count() > 1 and "RANK" not in os.environ:  # one process a GPU
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={torch.cuda.device_count()}"]
    os.execv(sys.executable, [sys.executable, *run, *sys.argv])


?gpu|def gpu_utilization() -> dict:
?gpu|    """Per cent of the last moment in which the GPU worked: one that does not is a job stuck on its data."""
?gpu|    try:
?gpu|        return {"gpu_utilization": torch.cuda.utilization()} if GPU else {}
?gpu|    except (ModuleNotFoundError, RuntimeError):  # without NVIDIA's library, or one that is not told
?gpu|        return {}
?gpu|
?gpu|
class Journal(TrainerCallback):
    """Writes down what the trainer logs, and stops where a number is no longer finite."""

    def __init__(self) -> None:
        self.last, self.step, self.tokens, self.heard = time.time(), 0, 0, time.time()

    def count(self, model, inputs, named) -> None:
        """Tokens that are learned from: no padding, and none that are only judged or written."""
        batch = inputs[0] if inputs and hasattr(inputs[0], "get") else named
        if torch.is_grad_enabled() and batch.get("input_ids") is not None:
            mask = batch.get("attention_mask")
            self.tokens += batch["input_ids"].numel() if mask is None else mask.sum()

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.last, self.step = time.time(), state.global_step
        forget_after(state.global_step)
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == state.max_steps:  # the last step too is judged and kept
            control.should_evaluate = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        self.last = time.time()  # what it took is no part of the next steps' speed

    def on_prediction_step(self, args, state, control, **kwargs):
        if MAIN and time.time() - self.heard >= 60:  # a long evaluation is no run that hangs
            self.heard = time.time()
            print("@metrics " + json.dumps({"step": state.global_step, "time": round(self.heard, 3)}), flush=True)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.heard = time.time()
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if "train_runtime" in numbers:  # the trainer's summary at the end
            return
        record = {"step": state.global_step, "epoch": round(state.epoch or 0, 4), "time": round(time.time(), 3)}
        if "loss" in numbers and state.global_step > self.step:
            rows = (state.global_step - self.step) * state.train_batch_size * args.world_size
            rows *= args.gradient_accumulation_steps
            record["samples_per_second"] = round(rows / (time.time() - self.last), 3)
            if tokens := int(self.tokens) * args.world_size:
                record["tokens_per_second"] = round(tokens / (time.time() - self.last), 1)
        self.last, self.step, self.tokens = time.time(), state.global_step, 0
        record["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3) if GPU else peak_memory_gb()
?gpu|        record.update(gpu_utilization())
        report({**numbers, **record})
        broken = [one for one in ("loss", "eval_loss", "grad_norm") if not math.isfinite(numbers.get(one, 0.0))]
        if broken:
            why = f"{broken[0]} is {numbers[broken[0]]} at step {state.global_step}: the run diverged."
            fix = f"Take a lower learning rate than {HYPERPARAMETERS['learning_rate']}, or look for broken rows."
            stop(3, "nan", why, fix)


def arguments_for(kind, train, metric: str, higher: bool, **more):
    """What all trainers are told alike."""
    h = HYPERPARAMETERS
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rows = h["batch_size"] * h["accumulation"] * world // more.get("num_generations", 1)
    steps = h["max_steps"] or math.ceil(math.ceil(len(train) / max(1, rows)) * h["epochs"])
    steps = min(steps, 4) if SMOKE else steps
    often = max(1, math.ceil(steps / (2 if SMOKE else h["evaluations"])))
    options = {
        "output_dir": str(CHECKPOINTS),
        "per_device_train_batch_size": h["batch_size"],
        "per_device_eval_batch_size": h["batch_size"],
        "gradient_accumulation_steps": h["accumulation"],
        "learning_rate": h["learning_rate"],
        "lr_scheduler_type": h["schedule"],
        "warmup_steps": h["warmup"],  # below 1, a share of all steps
        "weight_decay": h["weight_decay"],
        "max_grad_norm": h["max_grad_norm"],
        "max_steps": steps,
        "activation_checkpointing": h["activation_checkpointing"],
        "bf16": BF16,
        "use_cpu": world > 1 and not GPU,  # else processes without a GPU would not know of each other
        "eval_strategy": "steps",
        "eval_steps": often,
        "save_strategy": "steps",
        "save_steps": often,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "greater_is_better": higher,
        "logging_steps": max(1, min(10, steps // 200)),  # what goes wrong is seen soon
        "logging_nan_inf_filter": False,  # the default hides a loss that is not finite
        "seed": CONFIG["seed"],
        "data_seed": CONFIG["seed"],
        "dataloader_pin_memory": GPU,
        "disable_tqdm": True,
        "report_to": "none",
    }
?push|    if PUSH:  # each checkpoint, to a private repository from which --resume fetches it on another machine
?push|        options |= {"push_to_hub": True, "hub_model_id": PUSH, "hub_private_repo": True}
?push|        options |= {"hub_strategy": "checkpoint"}
    return kind(**{**options, **more})


?qlora|def quantization() -> dict:
?qlora|    """Four bits a frozen weight (Dettmers et al. 2023, arXiv:2305.14314)."""
?qlora|    if not GPU and SMOKE:
?qlora|        print("Note: this smoke run has no GPU, so it does not quantise.", flush=True)
?qlora|        return {}
?qlora|    if not GPU:
?qlora|        stop(4, "hardware", "QLoRA needs an NVIDIA GPU, and there is none.", "Take a GPU, or adapter='lora'.")
?qlora|    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
?qlora|    four["llm_int8_skip_modules"] = ["lm_head", "classifier", "score"]  # heads are trained, or read out, in full
?qlora|    dtype = torch.bfloat16 if BF16 or not GPU else torch.float16  # a T4 has none of the former
?qlora|    where = {"device_map": {"": int(os.environ.get("LOCAL_RANK", "0"))}} if GPU else {}  # a process, a GPU
?qlora|    return {"quantization_config": BitsAndBytesConfig(**four, bnb_4bit_compute_dtype=dtype), **where}
?qlora|
?qlora|
def load_model(kind, **more):
?!half|    """The base model at its revision."""
?half|    """The base model at its revision, frozen: in 16 bits, if the GPU has them."""
?!half|    more["dtype"] = torch.float32
?half|    more["dtype"] = torch.bfloat16 if BF16 else torch.float32
?qlora|    more.update(quantization())
?big|    if SMOKE and not GPU:
?big|        print("Note: this smoke run takes two layers with random weights in place of the model.", flush=True)
?big|        config = AutoConfig.from_pretrained(**BASE)
?big|        config.update({name: more[name] for name in ("num_labels", "id2label", "label2id") if name in more})
?big|        config.num_hidden_layers = 2
?big|        return kind.from_config(config, dtype=torch.float32)
    return kind.from_pretrained(**BASE, **more)


def last_checkpoint() -> str | None:
    """To go on from, where --resume asks for it."""
    if not ARGS.resume:
        return None
    found = get_last_checkpoint(str(CHECKPOINTS)) if CHECKPOINTS.is_dir() else None
?push|    if found is None and PUSH:  # on another machine than before
?push|        snapshot_download(PUSH, allow_patterns="last-checkpoint/*", local_dir=CHECKPOINTS)
?push|        fetched = CHECKPOINTS / "last-checkpoint"
?push|        if fetched.is_dir():
?push|            step = json.loads((fetched / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
?push|            found = str(fetched.rename(CHECKPOINTS / f"checkpoint-{step}"))
    print(f"Going on from {found}." if found else "There is no checkpoint yet: beginning.", flush=True)
    return found


?whole|def load_weights(model, checkpoint: str) -> None:
?whole|    """All of a checkpoint's weights, as `from_pretrained` reads them.
?whole|
?whole|    transformers 5.24's trainer takes the names in the file for those in memory. Where they differ, as for ViT, it goes
?whole|    on without these weights and only warns: a run that is taken up again, or its best checkpoint, is then another.
?whole|    """
?whole|    model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=model.dtype).state_dict())
?whole|
?whole|
def train_and_save(trainer, *processors) -> None:
?whole|    trainer._load_from_checkpoint = lambda checkpoint, model=None: load_weights(trainer.model, checkpoint)
?whole|    trainer._load_best_model = lambda: load_weights(trainer.model, trainer.state.best_model_checkpoint)
    trainer.remove_callback(PrinterCallback)  # the journal prints the same
    with trainer.args.main_process_first():  # it may have to be fetched
        checkpoint = last_checkpoint()
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = trainer.evaluate()  # of the best checkpoint, on validation
    model = trainer.accelerator.unwrap_model(trainer.model)
    if MAIN:
?merge|        model.save_pretrained(OUTPUT / "adapter")
?merge|        model = model.merge_and_unload()  # weights that load like any model's
?part|        model[0].model.save_pretrained(OUTPUT / "adapter")
?part|        model[0].model = model[0].model.merge_and_unload()  # weights that load like any model's
        model.save_pretrained(str(OUTPUT / "model"))
        for processor in processors:
            processor.save_pretrained(OUTPUT / "model")
    end(
        {
            "status": "done",
            "metrics": {name: metrics[name] for name in metrics if "_runtime" not in name and "_per_" not in name},
            "model": "model",
            "steps": trainer.state.global_step,
            "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 3) if GPU else peak_memory_gb(),
            "versions": versions(),
        }
    )
?push|    if PUSH and MAIN:
?push|        upload_folder(repo_id=PUSH, folder_path=OUTPUT, path_in_repo="run", ignore_patterns="checkpoints/*")
?push|        print(f"The run's folder is in {PUSH}.", flush=True)
'''

    ADAPTER = '''
>from peft import LoraConfig
?wrap|>from peft import get_peft_model
?kbit|>from peft import prepare_model_for_kbit_training


def lora(task: str, head: list | None = None):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""
    h = HYPERPARAMETERS
    return LoraConfig(
        task_type=task,
        r=h["lora_rank"],
        lora_alpha=h["lora_alpha"],
        lora_dropout=h["lora_dropout"],
        target_modules=h["lora_targets"],
        modules_to_save=head,
        exclude_modules=head,
    )
'''

    LANGUAGE = '''
>from transformers import AutoConfig, AutoTokenizer


def load_tokenizer():
    """The tokenizer, checked against the model: ids that the model has no row for end in an index error on CPU, and in
    garbage or a dead process on a GPU."""
    tokenizer = AutoTokenizer.from_pretrained(**BASE)
    config = AutoConfig.from_pretrained(**BASE).get_text_config()
    ids = max(tokenizer.get_vocab().values()) + 1
    if ids > config.vocab_size:
        why = f"The tokenizer knows {ids} tokens, the model {config.vocab_size}."
        stop(4, "tokenizer", why, f"Use the tokenizer of {CONFIG['base_model']}.")
    window = getattr(config, "max_position_embeddings", None)
    length = HYPERPARAMETERS.get("max_length") or 0
    if window and length > window:
        why = f"max_length is {length}, the model's window {window}."
        stop(4, "length", why, "Lower max_length.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
?template|    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
'''

    LABELS = '''

?named|NAMES: list = []  # of the data's own numbers


def label_of(value: object) -> int:
    """The number of a label as the data writes it."""
?named|    value = NAMES[value]
    value = int(value) if isinstance(value, float) and value == int(value) else value
    if str(value) not in CONFIG["labels"]:
        stop(4, "labels", f"The data has a label {value!r} that is not in `labels`.", "Add it, or correct the data.")
    return list(CONFIG["labels"]).index(str(value))
'''

    SCORES = '''
>import numpy as np


def scores(truth, guess) -> dict:
    """Accuracy, and F1 averaged over labels, each label counting the same."""
    truth, guess = np.asarray(truth), np.asarray(guess)
    each = []
    for label in np.union1d(truth, guess):
        hits = ((truth == label) & (guess == label)).sum()
        each.append(2 * hits / max(1, (truth == label).sum() + (guess == label).sum()))
    return {"accuracy": float((truth == guess).mean()), "f1_macro": float(np.mean(each))}
'''

    HEAD = '''
def head_options() -> dict:
    """A head with the data's labels. Where the base has one for others, that one is dropped."""
    names = list(CONFIG["labels"].values())
    of = {"num_labels": len(names), "id2label": dict(enumerate(names)), "ignore_mismatched_sizes": True}
    return {**of, "label2id": {name: number for number, name in enumerate(names)}}


?new_head|def forget_head(model) -> None:
?new_head|    """New weights for the head: those of the base were for other labels, though as many."""
?new_head|    for name, part in model.named_modules():
?new_head|        if name.split(".")[0] in ("classifier", "score") and isinstance(part, torch.nn.Linear):
?new_head|            torch.nn.init.normal_(part.weight, std=0.02)
?new_head|            if part.bias is not None:
?new_head|                torch.nn.init.zeros_(part.bias)
?new_head|
?new_head|
'''

    TEXT_CLASSIFICATION = """
>import numpy as np
>from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments


def main() -> None:
    begin()
    set_seed(CONFIG["seed"])
    tokenizer = load_tokenizer()
    columns = CONFIG["columns"]

    def encode(rows: dict) -> dict:
        pair = rows[columns["text_pair"]] if "text_pair" in columns else None
        encoded = tokenizer(rows[columns["text"]], pair, truncation=True, max_length=HYPERPARAMETERS["max_length"])
        return {**encoded, "labels": [label_of(value) for value in rows[columns["label"]]]}

    train, validation = load_data()
    train = train.map(encode, batched=True, remove_columns=train.column_names)
    validation = validation.map(encode, batched=True, remove_columns=validation.column_names)

    model = load_model(AutoModelForSequenceClassification, **head_options())
?new_head|    forget_head(model)
    model.config.pad_token_id = tokenizer.pad_token_id
?qlora|    model = prepare_model_for_kbit_training(model)
?adapter|    model = get_peft_model(model, lora("SEQ_CLS"))  # trains the head too

    trainer = Trainer(
        model=model,
        args=arguments_for(TrainingArguments, train, "f1_macro", higher=True),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: scores(found.label_ids, found.predictions.argmax(-1)),
        callbacks=[Journal()],
    )
    train_and_save(trainer, tokenizer)
"""

    TOKEN_CLASSIFICATION = '''
>from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification
>from transformers import Trainer, TrainingArguments


def entities(tags: list) -> set:
    """(type, first, last) of each run of B-X, I-X, ... as conlleval counts them; a tag without a prefix is a type."""
    found, kind, start = set(), None, 0
    for number, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-") if tag[:2] in ("B-", "I-") else ("I", "", tag)
        name = None if tag == "O" else name
        if kind is not None and (name != kind or prefix == "B"):
            found.add((kind, start, number - 1))
            kind = None
        if name is not None and kind is None:
            kind, start = name, number
    return found


def main() -> None:
    begin()
    set_seed(CONFIG["seed"])
    tokenizer = load_tokenizer()
    columns, names = CONFIG["columns"], list(CONFIG["labels"].values())

    def encode(rows: dict) -> dict:
        encoded = tokenizer(
            rows[columns["tokens"]],
            is_split_into_words=True,
            truncation=True,
            max_length=HYPERPARAMETERS["max_length"],
        )
        encoded["labels"] = []
        for number, tags in enumerate(rows[columns["tags"]]):
            words, labels = encoded.word_ids(number), []
            for here, before in zip(words, [None, *words], strict=False):
                # A word's first piece stands for it; -100 is left out of the loss.
                labels.append(-100 if here is None or here == before else label_of(tags[here]))
            encoded["labels"].append(labels)
        return dict(encoded)

    def measure(found) -> dict:
        guess, hits, said, true, right, all_tags = found.predictions.argmax(-1), 0, 0, 0, 0, 0
        for truths, guesses in zip(found.label_ids, guess, strict=True):
            pairs = [(t, g) for t, g in zip(truths, guesses, strict=True) if t != -100]
            truth = entities([names[t] for t, _ in pairs])
            answer = entities([names[g] for _, g in pairs])
            hits, said, true = hits + len(truth & answer), said + len(answer), true + len(truth)
            right, all_tags = right + sum(t == g for t, g in pairs), all_tags + len(pairs)
        precision, recall = hits / max(1, said), hits / max(1, true)
        f1 = 2 * precision * recall / max(1e-12, precision + recall)
        return {"f1": f1, "precision": precision, "recall": recall, "accuracy": right / max(1, all_tags)}

    train, validation = load_data()
    train = train.map(encode, batched=True, remove_columns=train.column_names)
    validation = validation.map(encode, batched=True, remove_columns=validation.column_names)

    model = load_model(AutoModelForTokenClassification, **head_options())
?new_head|    forget_head(model)
?qlora|    model = prepare_model_for_kbit_training(model)
?adapter|    model = get_peft_model(model, lora("TOKEN_CLS", head=["classifier", "score"]))

    trainer = Trainer(
        model=model,
        args=arguments_for(TrainingArguments, train, "f1", higher=True),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=measure,
        callbacks=[Journal()],
    )
    train_and_save(trainer, tokenizer)
'''

    IMAGE_CLASSIFICATION = '''
>import random
>import numpy as np
>from PIL import ImageOps
>from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments


class Epoch(TrainerCallback):
    """The number of the epoch, from which flips are drawn: so a run that is taken up again draws them as before."""

    number = 0

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.number = int((state.epoch or 0) + 1e-6)


def main() -> None:
    begin()
    set_seed(CONFIG["seed"])
    processor = AutoImageProcessor.from_pretrained(**BASE)
    columns, epoch = CONFIG["columns"], Epoch()

    def pixels(pictures: list) -> torch.Tensor:
        return processor([one.convert("RGB") for one in pictures], return_tensors="pt")["pixel_values"]

    def for_training(rows: dict) -> dict:
        shown = rows[columns["image"]]
        if HYPERPARAMETERS["flip"]:
            drawn = [random.Random(f"{CONFIG['seed']} {epoch.number} {number}").random() for number in rows["number"]]
            shown = [ImageOps.mirror(one) if chance < 0.5 else one for one, chance in zip(shown, drawn, strict=True)]
        return {"pixel_values": list(pixels(shown)), "labels": [label_of(one) for one in rows[columns["label"]]]}

    def as_it_is(rows: dict) -> dict:
        labels = [label_of(one) for one in rows[columns["label"]]]
        return {"pixel_values": list(pixels(rows[columns["image"]])), "labels": labels}

    def collate(rows: list) -> dict:
        pictures = torch.stack([row["pixel_values"] for row in rows])
        return {"pixel_values": pictures, "labels": torch.tensor([row["labels"] for row in rows])}

    train, validation = load_data()
    train = train.add_column("number", list(range(len(train))))
    train.set_transform(for_training)
    validation.set_transform(as_it_is)

    model = load_model(AutoModelForImageClassification, **head_options())
?new_head|    forget_head(model)
?qlora|    model = prepare_model_for_kbit_training(model)
?adapter|    model = get_peft_model(model, lora("FEATURE_EXTRACTION", head=["classifier"]))

    trainer = Trainer(
        model=model,
        args=arguments_for(
            TrainingArguments, train, "accuracy", higher=True, remove_unused_columns=False, label_names=["labels"]
        ),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collate,
        compute_metrics=lambda found: scores(found.label_ids, found.predictions.argmax(-1)),
        callbacks=[Journal(), epoch],
    )
    train_and_save(trainer, processor)
'''

    TRL = """
?!reward|>from transformers import AutoModelForCausalLM
?reward|>from transformers import AutoModelForSequenceClassification
?sft|>from trl import SFTConfig, SFTTrainer
?dpo|>from trl import DPOConfig, DPOTrainer
?reward|>from trl import RewardConfig, RewardTrainer
?grpo|>from trl import GRPOConfig, GRPOTrainer


def main() -> None:
    begin()
    set_seed(CONFIG["seed"])
    tokenizer = load_tokenizer()
    train, validation = shaped_data()

?reward|    model = load_model(AutoModelForSequenceClassification, num_labels=1)
?reward|    model.config.pad_token_id = tokenizer.pad_token_id
?grpo|    h = HYPERPARAMETERS
?sft|    trainer = SFTTrainer(
?dpo|    trainer = DPOTrainer(
?reward|    trainer = RewardTrainer(
?grpo|    trainer = GRPOTrainer(
?sft|        model=load_model(AutoModelForCausalLM),
?dpo|        model=load_model(AutoModelForCausalLM),  # the reference is the model as it was before
?reward|        model=model,
?grpo|        model=load_model(AutoModelForCausalLM),
?grpo|        reward_funcs=reward,
        args=arguments_for(
?sft|            SFTConfig,
?dpo|            DPOConfig,
?reward|            RewardConfig,
?grpo|            GRPOConfig,
            train,
?!grpo|            "eval_loss",
?!grpo|            higher=False,
?!grpo|            max_length=HYPERPARAMETERS["max_length"],
?sft|            packing=HYPERPARAMETERS["packing"],
?dpo|            beta=HYPERPARAMETERS["beta"],
?reward|            center_rewards_coefficient=HYPERPARAMETERS["center_rewards"],
?grpo|            "eval_reward",
?grpo|            higher=True,
?grpo|            num_generations=h["generations"],
?grpo|            max_completion_length=min(16, h["max_completion_length"]) if SMOKE else h["max_completion_length"],
?grpo|            temperature=h["temperature"],
?grpo|            beta=h["beta"],
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
?causal|        peft_config=lora("CAUSAL_LM"),
?ranked|        peft_config=lora("SEQ_CLS"),
        callbacks=[Journal()],
    )
    train_and_save(trainer, tokenizer)
"""

    SHAPED = '''


def value(row: dict, names: object) -> object:
    """What stands in a column, or in several texts one below the other."""
    if isinstance(names, str):
?chat|        if isinstance(row[names], list) and row[names] and "from" in row[names][0]:
?chat|            who = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant"}
?chat|            return [{"role": who.get(one["from"], one["from"]), "content": one["value"]} for one in row[names]]
        return row[names]
    return (chr(10) * 2).join(row[name] for name in names if row[name])


def shaped_data() -> tuple:
    """Training and validation rows with the columns that the trainer knows, in the order that it takes them."""
    roles = CONFIG["columns"]
    parts = []
    for rows in load_data():
        rows = rows.map(lambda row: {role: value(row, names) for role, names in roles.items()})
        parts.append(rows.select_columns(list(roles)))
    return tuple(parts)
'''

    MATCH_REWARD = '''
def reward(completions: list, answer: list, **columns) -> list[float]:
    """1 where the completion ends with the answer, 0.1 where it only mentions it, else 0. Whatever this pays for is
    what the model learns, so look at completions with a high reward before you trust the curve."""
    rewards = []
    for completion, right in zip(completions, answer, strict=True):
        said = completion if isinstance(completion, str) else completion[-1]["content"]
        said, right = said.strip().rstrip(".").lower(), str(right).strip().lower()
        rewards.append(1.0 if said.endswith(right) else 0.1 if right in said else 0.0)
    return rewards
'''

    EMBEDDINGS = '''
>from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
>from sentence_transformers import SentenceTransformerTrainingArguments
>from sentence_transformers.sentence_transformer import evaluation, losses
?adapter|>from peft import load_peft_weights, set_peft_model_state_dict


?adapter|class AdapterTrainer(SentenceTransformerTrainer):
?adapter|    """Keeps and loads the adapter alone: this transformers wants a newer peft to do so by itself."""
?adapter|
?adapter|    def _save(self, output_dir=None, state_dict=None):
?adapter|        self.model[0].model.save_pretrained(output_dir)
?adapter|
?adapter|    def _load_from_checkpoint(self, checkpoint_path):
?adapter|        set_peft_model_state_dict(self.model[0].model, load_peft_weights(checkpoint_path, device="cpu"))
?adapter|
?adapter|
def evaluator(rows, columns: dict):
    if "score" in columns:  # does the similarity rise with the score?
        return evaluation.EmbeddingSimilarityEvaluator(rows["sentence1"], rows["sentence2"], rows["score"], name="val")
    # Is an anchor's own positive found among those of all anchors?
    texts = {text: str(number) for number, text in enumerate(dict.fromkeys(rows["positive"]))}
    queries, relevant = {}, {}
    for anchor, positive in zip(rows["anchor"], rows["positive"], strict=True):
        queries["q" + anchor] = anchor
        relevant.setdefault("q" + anchor, set()).add(texts[positive])
    corpus = {number: text for text, number in texts.items()}
    return evaluation.InformationRetrievalEvaluator(queries, corpus, relevant, name="val")


def main() -> None:
    begin()
    set_seed(CONFIG["seed"])
    load_tokenizer()  # for its checks
    columns = CONFIG["columns"]
    train, validation = shaped_data()

?!qlora|    model = SentenceTransformer(CONFIG["base_model"], revision=CONFIG["base_revision"])
?qlora|    source = {"revision": CONFIG["base_revision"], "model_kwargs": quantization()}
?qlora|    model = SentenceTransformer(CONFIG["base_model"], **source)
?qlora|    model[0].model = prepare_model_for_kbit_training(model[0].model)
    model.max_seq_length = HYPERPARAMETERS["max_length"]
?adapter|    model[0].model = get_peft_model(model[0].model, lora("FEATURE_EXTRACTION"))
    scored = "score" in columns
    loss = losses.CoSENTLoss(model) if scored else losses.MultipleNegativesRankingLoss(model)
    metric = "eval_val_spearman_cosine" if scored else "eval_val_cosine_ndcg@10"

?full|    trainer = SentenceTransformerTrainer(
?adapter|    trainer = AdapterTrainer(
        model=model,
        args=arguments_for(
            SentenceTransformerTrainingArguments,
            train,
            metric,
            higher=True,
            # Another row's copy of a text must not count as a negative.
            batch_sampler="batch_sampler" if scored else "no_duplicates",
        ),
        train_dataset=train,
        eval_dataset=validation,
        loss=loss,
        evaluator=evaluator(validation, columns),
        callbacks=[Journal()],
    )
    train_and_save(trainer)
'''

    SKLEARN = '''
>import numpy as np
>import skops.io
?hub|>from datasets import load_dataset
?push|>from huggingface_hub import upload_folder
?parquet|>import pandas as pd
?frame|>import pandas as pd
?frame|>from sklearn.compose import ColumnTransformer
?frame|>from sklearn.ensemble import HistGradientBoostingClassifier
?frame|>from sklearn.impute import SimpleImputer
?frame|>from sklearn.preprocessing import OrdinalEncoder, StandardScaler
?!frame|>from sklearn.feature_extraction.text import TfidfVectorizer
>from sklearn.dummy import DummyClassifier
>from sklearn.linear_model import LogisticRegression
>from sklearn.pipeline import make_pipeline


def candidates() -> dict:
    """What is tried, simplest first. The first one is the floor that everything has to beat."""
    h, seed = HYPERPARAMETERS, CONFIG["seed"]
    tried = {"most_frequent": DummyClassifier(strategy="most_frequent")}
?!frame|    for strength in h["strengths"]:
?!frame|        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, h["ngrams"]), min_df=h["min_df"])
?!frame|        model = LogisticRegression(C=strength, max_iter=1000, random_state=seed)
?!frame|        tried[f"tfidf_logistic_C{strength}"] = make_pipeline(words, model)
?frame|    gaps = SimpleImputer(strategy="median")
?frame|    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
?frame|    words = [name for name in CONFIG["columns"]["features"] if name not in CONFIG["numeric"]]
?frame|    table = ColumnTransformer([("numbers", gaps, CONFIG["numeric"]), ("words", codes, words)])
?frame|    for strength in h["strengths"]:
?frame|        model = LogisticRegression(C=strength, max_iter=1000, random_state=seed)
?frame|        tried[f"logistic_C{strength}"] = make_pipeline(table, StandardScaler(), model)
?frame|    trees = {"max_iter": h["trees"], "learning_rate": h["learning_rate"], "random_state": seed}
?frame|    tried["boosted_trees"] = make_pipeline(table, HistGradientBoostingClassifier(**trees))
    return tried


def inputs(rows) -> object:
?!frame|    return [value or "" for value in rows[CONFIG["columns"]["text"]]]
?frame|    features = CONFIG["columns"]["features"]
?frame|    table = pd.DataFrame({name: rows[name] for name in features})
?frame|    words = [name for name in features if name not in CONFIG["numeric"]]
?frame|    table[words] = table[words].astype(object).where(table[words].notna(), "").astype(str)
?frame|    table[CONFIG["numeric"]] = table[CONFIG["numeric"]].astype(float)
?frame|    return table


def main() -> None:
    begin()
    np.random.seed(CONFIG["seed"])
    train, validation = load_data()
    label, names = CONFIG["columns"]["label"], np.array(list(CONFIG["labels"].values()))
    x, y = inputs(train), names[[label_of(value) for value in train[label]]]
    seen, truth = inputs(validation), names[[label_of(value) for value in validation[label]]]
    if len(set(y)) < 2:
        stop(4, "labels", "All training rows have the same label.", "Check the split and the label column.")

    best, result, step = None, {}, 0
    for step, (name, model) in enumerate(candidates().items(), 1):
        folder = CHECKPOINTS / f"checkpoint-{step}"
        if ARGS.resume and (folder / "metrics.json").exists():
            found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        else:
            began = time.time()
            model.fit(x, y)
            found = {f"eval_{one}": value for one, value in scores(truth, model.predict(seen)).items()}
            folder.mkdir(parents=True, exist_ok=True)
            skops.io.dump(model, folder / "model.skops")
            write_json(folder / "metrics.json", found)
            seconds = time.time() - began
            taken = {"seconds": round(seconds, 3), "samples_per_second": round(len(y) / seconds, 1)}
            taken["memory_gb"] = peak_memory_gb()
            report({"step": step, "epoch": 1.0, "time": round(time.time(), 3), "candidate": name, **found, **taken})
        if best is None or found["eval_f1_macro"] > result["eval_f1_macro"]:
            best, result = folder, {**found, "candidate": name}
        if SMOKE and step == 2:
            break

    (OUTPUT / "model").mkdir(exist_ok=True)
    shutil.copy(best / "model.skops", OUTPUT / "model" / "model.skops")
    taken = {"steps": step, "peak_memory_gb": peak_memory_gb(), "versions": versions()}
    end({"status": "done", "metrics": result, "model": "model", **taken})
?push|    if PUSH:
?push|        upload_folder(repo_id=PUSH, folder_path=OUTPUT, path_in_repo="run", ignore_patterns="checkpoints/*")
?push|        print(f"The run's folder is in {PUSH}.", flush=True)
'''

    TAIL = """

if __name__ == "__main__":
    main()
"""
