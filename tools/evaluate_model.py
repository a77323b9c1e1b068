"""How good is a model, beside a baseline, on rows whose labels its authors have not seen?"""

from typing import Any

from smolagents import Tool


class EvaluateModelTool(Tool):
    """Holds out rows, and measures a candidate beside a baseline on them: the same rows, the same code, paired.

    Labels stay on this host, outside the workspace: what code there gets is inputs under ids that say nothing. No weights
    are loaded here. Predictions come from the workspace, or from a job in a jail on it; weights are read as bytes only.

    What must never happen: a label of a held-out row gets into the workspace (but for at most 20 rows shown as examples
    of errors, which are counted); predictions for other rows, or some of the rows, pass for all; a figure belongs to other
    weights than it says; what could not be checked counts as checked; a prompt shows what is to be predicted; code that
    sees labels, as a metric of the agent's own must, tells anything but a figure of three digits.

    Args:
        workspace (*optional*): Where inputs go and predictions come from.
        jobs (*optional*): Runs a prediction script in a jail, with `start(job_id, command, cwd=, seconds=, sealed=)`,
            `inside(sealed)`, `wait(job_id, seconds)` and `logs(job_id)`; `alone(files, command, seconds)` runs a metric.
        records (*optional*): Keeps what was measured, with `add(kind, data)`; `held_out` is a folder of this host.
        labels (`str`, *optional*): That folder, where there are no records.
        plots (`bool`, *optional*): `False` draws none.
    """

    name = "evaluate_model"
    description = (
        "Measures a model beside a baseline on held-out rows whose labels your code never sees. `prepare` writes inputs to "
        "the workspace and keeps the labels; `score` takes predictions, or makes them in the sandbox. Gives metrics with "
        "95 % intervals, a paired test, errors, plots, overlap with training rows, what the weights derive from; its `id` "
        "is what hub_push wants. Tasks and metrics of your own: `lm_task`, and `metric` as a file. "
        "Choose between models on validation data: looks at held-out rows are counted."
    )
    inputs = {
        "operation": {"type": "string", "description": "'prepare' or 'score'."},
        "dataset": {
            "type": "string",
            "description": "prepare: 'owner/name', or a file or folder here (default none).",
            "nullable": True,
        },
        "config": {"type": "string", "description": "prepare: configuration (default the first).", "nullable": True},
        "split": {"type": "string", "description": "prepare: which split (default test).", "nullable": True},
        "revision": {"type": "string", "description": "prepare: a commit (default main).", "nullable": True},
        "task": {
            "type": "string",
            "description": "prepare: classification (default), regression, token-classification, generation, "
            "language-modeling or retrieval.",
            "nullable": True,
        },
        "lm_task": {
            "type": "object",
            "description": "prepare: a task of lm-evaluation-harness as its YAML has it (default none): output_type "
            "multiple_choice, generate_until or loglikelihood_rolling; doc_to_text, doc_to_choice and doc_to_target, each "
            "a column or a Jinja expression; dataset_path, generation_kwargs, metric_list and so on. No Python functions.",
            "nullable": True,
        },
        "label": {"type": "string", "description": "prepare: column to predict (default by name).", "nullable": True},
        "columns": {"type": "array", "description": "prepare: columns shown (default all others).", "nullable": True},
        "rows": {"type": "integer", "description": "prepare: at most (default 2000).", "nullable": True},
        "held_out": {
            "type": "string",
            "description": "score: as prepare returned it (default none).",
            "nullable": True,
        },
        "candidate": {
            "type": "object",
            "description": "score (default none): {'folder': 'runs/a/model'}, run by this tool, or by your 'script', which "
            "gets --inputs, --output and --model; or {'predictions': 'p.jsonl', 'folder': ...}, a line {'id', "
            "'prediction', 'scores': {label: probability}?} for each row. Lists of either: one a seed.",
            "nullable": True,
        },
        "baseline": {
            "type": "object",
            "description": "score (default none): the same, or {'model': 'owner/name'}, or {'simple': 'majority', 'mean', "
            "'median' or 'copy'}.",
            "nullable": True,
        },
        "metric": {
            "type": "string",
            "description": "score: which one decides (default by task); or your own: a file here that defines "
            "`score(prediction, references, inputs)`, 0 to 1, higher is better. It runs alone, and tells figures only.",
            "nullable": True,
        },
        "train": {
            "type": "array",
            "description": "Training rows to compare with: files here, 'owner/name:split' (default: as the run says).",
            "nullable": True,
        },
        "base": {
            "type": "string",
            "description": "score: stated base model (default: as the run says).",
            "nullable": True,
        },
        "benchmarks": {
            "type": "array",
            "description": "score: test sets to look for in the training rows, 'owner/name:split' (default none).",
            "nullable": True,
        },
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "held_out": {},
            "inputs": {"description": "File of JSON lines; of retrieval, `documents` too."},
            "id": {"description": "eval_..."},
            "metric": {},
            "baseline": {"description": "{value, interval, seeds}, as candidate"},
            "candidate": {},
            "difference": {"description": "{value, interval, p_value, test}"},
            "better": {"description": "By more than chance."},
            "metrics": {},
            "per_class": {},
            "errors": {},
            "contamination": {},
            "provenance": {},
            "plots": {},
            "problems": {"description": "Each forbids a push."},
            "warnings": {},
        },
    }
    # Code runs in the jail that holds the agent's own code, with no more than that has; files go to the workspace.
    effects = "read"

    def __init__(self, workspace=None, jobs=None, records=None, labels=None, plots=None, model_repo_id=None):
        super().__init__()
        self.workspace = workspace
        self.jobs = jobs
        self.records = records
        self.labels = labels
        self.plots = plots
        self.call_id = None
        self._scripts = None

    def forward(
        self,
        operation: str,
        dataset: str | None = None,
        config: str | None = None,
        split: str | None = "test",
        revision: str | None = None,
        task: str | None = "classification",
        lm_task: dict | None = None,
        label: str | None = None,
        columns: list | None = None,
        rows: int | None = 2000,
        held_out: str | None = None,
        candidate: dict | None = None,
        baseline: dict | None = None,
        metric: str | None = None,
        train: list | None = None,
        base: str | None = None,
        benchmarks: list | None = None,
    ) -> dict:
        if self.workspace is None or (self.records is None and self.labels is None):
            raise RuntimeError(
                "evaluate_model has no workspace, or no place for labels outside it. "
                "Make it with EvaluateModelTool(workspace=..., labels='a folder')."
            )
        if operation == "prepare":
            plan = self._lm_task(lm_task) if lm_task else {}
            dataset, config = dataset or plan.get("dataset"), config or plan.get("config")
            split = plan.get("split") or split if split in (None, "test") else split
            if not dataset:
                raise ValueError("`prepare` needs `dataset`: 'owner/name' on the Hub, or a file of the workspace.")
            return self._prepare(
                dataset,
                config,
                split or "test",
                revision,
                plan.get("task") or task or "classification",
                label,
                columns,
                rows or 2000,
                train,
                plan,
            )
        if operation != "score":
            raise ValueError(f"`operation` is prepare or score, not {operation!r}.")
        if not (held_out and isinstance(candidate, dict) and isinstance(baseline, dict)):
            raise ValueError("`score` needs `held_out` (what prepare returned), `candidate` and `baseline`.")
        return self._score(held_out, candidate, baseline, metric, train, base, benchmarks or [])

    # Holding out.

    def _prepare(
        self,
        dataset: str,
        config: Any,
        split: str,
        revision: Any,
        task: str,
        label: Any,
        columns: Any,
        most: int,
        train: Any,
        plan: dict,
    ) -> dict:
        import hashlib
        import json
        import random
        import secrets

        tasks = (
            "classification",
            "regression",
            "token-classification",
            "generation",
            "language-modeling",
            "retrieval",
        )
        if task not in tasks and not plan:
            raise ValueError(f"`task` is one of {', '.join(tasks)}, not {task!r}.")
        if not 1 <= most <= 20_000:
            raise ValueError(f"`rows` is 1 to 20,000, not {most}.")
        source = self._rows(dataset, config, split, revision, 200_000)
        found, names = source["rows"], source["names"]
        if not found:
            raise ValueError(f"Split {split!r} of {dataset} holds no rows. Check `split` and `config`.")
        known = list(dict.fromkeys([name for row in found[:100] for name in row]))
        prompted = self._prompted(plan, known, found) if plan.get("target") else {}
        label = prompted.get("label") or plan.get("label") or label or self._guess_label(task, known)
        columns = prompted.get("columns") or columns
        wrong = [name for name in [label, *(columns or [])] if name not in known]
        if wrong:
            raise ValueError(f"{dataset} has no column {wrong[0]!r}. Columns: {', '.join(known[:40])}.")
        none = (None, "") if task == "generation" else (None, "", [])  # a question may have no answer
        whole = found if prompted else [row for row in found if row.get(label) not in none]
        hidden = {"-1", "-1.0"}
        if not whole or (task == "classification" and {str(row[label]) for row in whole} <= hidden):
            raise ValueError(f"The labels `{label}` of split {split!r} are hidden or missing. Hold out another split.")
        order = sorted(random.Random(0).sample(range(len(whole)), min(most, len(whole))))
        picked = [whole[number] for number in order]
        shown = [name for name in columns or known if name != label or task == "language-modeling"]
        shown = [name for name in shown if name != "id"]  # rows have ids of ours, which say nothing
        kinds = names.get(label)
        telling = [] if task == "language-modeling" else self._telling(whole, label, shown, task, kinds)
        wanted, telling = (
            (telling, []) if columns else ([], telling)
        )  # asked for by name, they go along, and are told of
        shown = [name for name in shown if name not in telling]
        if not shown:
            raise ValueError(f"No column is left beside `{label}` to predict from. Name some in `columns`.")
        truths = [] if prompted else [self._truth(row[label], task, kinds) for row in picked]
        more = [{} for _ in picked]
        if prompted:
            more, truths = self._asked(prompted, picked, task)
        about = {"dataset": source["id"], "config": source["config"], "split": split, "revision": source["revision"]}
        about.update({"task": task, "label": label, "columns": shown, "rows": most})
        about.update({"lm_task": plan} if plan else {})
        if about["revision"] is None:  # a file may say something else by the next time
            about["rows_sha256"] = hashlib.sha256(json.dumps(picked, default=str).encode()).hexdigest()
        held = "held_" + hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        folder = self._place() / held
        kept = json.loads((folder / "meta.json").read_text("utf-8")) if (folder / "meta.json").exists() else {}
        salt = kept.get("salt") or secrets.token_hex(16)
        keys = [hashlib.sha256(f"{salt}{number}".encode()).hexdigest()[:12] for number in order]
        labels = sorted(set(truths)) if task == "classification" else None
        meta = {**about, "salt": salt, "ids": keys, "labels": labels, "names": kinds, "shown": [], "looks": []}
        meta.update({name: kept[name] for name in ("shown", "looks", "overlaps") if name in kept})
        meta.update({"public": source["public"], "seen": source["seen"], "total": len(whole), "held_out": held})
        meta["telling"] = wanted
        lines = [{"id": key, **{name: row.get(name) for name in shown}} for key, row in zip(keys, picked, strict=True)]
        lines = [{**line, **one} for line, one in zip(lines, more, strict=True)]
        files = {"inputs": f"held_out/{held}/inputs.jsonl"}
        documents = None
        if task == "retrieval":
            texts = list(dict.fromkeys([text for one in truths for text in one]))
            keyed = {text: hashlib.sha256(f"{salt}doc{text}".encode()).hexdigest()[:12] for text in texts}
            truths = [[keyed[text] for text in one] for one in truths]
            documents = [{"id": key, "text": text} for key, text in sorted([(keyed[text], text) for text in texts])]
            files["documents"] = f"held_out/{held}/documents.jsonl"
            meta["documents"] = [one["id"] for one in documents]
        meta["pictures"] = self._pictures(lines, shown, held, source)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keep(folder / "labels.json", dict(zip(keys, truths, strict=True)))
        self._keep(folder / "inputs.json", lines)
        self._keep(folder / "meta.json", meta)
        by_id = {line["id"]: line for line in lines}
        # In the order of their ids, which says nothing of the order in the data.
        self._lay(files["inputs"], [by_id[key] for key in sorted(by_id)])
        if documents is not None:
            self._lay(files["documents"], documents)
        told = {"held_out": held, **files, "n": len(picked), "of": len(whole), "columns": shown, "labels": labels}
        told.update({"left_out": dict.fromkeys(telling, "it gives the label away"), "revision": source["revision"]})
        problems, warnings = [], []
        if train:
            side = {"folder": None}
            told["contamination"], _ = self._contamination(meta, lines, side, train, [], problems, warnings)
        return {**told, "secrecy": self._secrecy(meta), "problems": problems, "warnings": warnings}

    def _pictures(self, rows: list, shown: list, held: str, source: dict) -> dict:
        """Puts pictures and recordings into the workspace under names that say nothing, their paths in their place; returns
        the columns that have any, with the SHA-256 of each in the order of the rows."""
        import hashlib
        from concurrent.futures import ThreadPoolExecutor
        from functools import partial

        cells = [(row, name) for name in shown for row in rows if self._is_picture(row.get(name))]
        media = {name: {} for name in shown if name in {name for _, name in cells}}
        cells.sort(key=self._id_of_cell)  # when a file was written says nothing of its place in the data either
        with ThreadPoolExecutor(8) as pool:
            for start in range(0, len(cells), 64):  # never all of them in memory
                some = cells[start : start + 64]
                contents = pool.map(partial(self._picture, source), [row[name] for row, name in some])
                for cell, content in zip(some, contents, strict=True):
                    row, name = cell
                    media[name][row["id"]] = hashlib.sha256(content).hexdigest()
                    kind = self._kind_of(content)
                    row[name] = f"held_out/{held}/pictures/{row['id']}-{shown.index(name)}.{kind}"
                    self.workspace.write_bytes(row[name], content)
        return {name: [found.get(row["id"]) for row in rows] for name, found in media.items()}

    # Tasks as lm-evaluation-harness writes them: what is asked is made of columns that are shown, what is right of the others.

    def _lm_task(self, given: dict) -> dict:
        """What such a task comes to here: {task, dataset, config, split, text, choice, target, ...}; refused where it needs
        code of its own, or what is not done here."""
        kinds = {"multiple_choice": "multiple-choice", "generate_until": "generation"}
        kinds["loglikelihood_rolling"] = "language-modeling"
        kind = given.get("output_type") or "generate_until"
        if kind not in kinds:
            raise ValueError(
                f"output_type {kind!r} is not done here: what is likely to follow would have to be shown to the model's job. "
                "Use multiple_choice (the likeliest of several), generate_until, or loglikelihood_rolling."
            )
        idle = ("task", "tag", "group", "metadata", "training_split", "fewshot_split", "should_decontaminate")
        idle += ("doc_to_decontamination_query", "task_alias", "dataset_kwargs", "repeats", "unsafe_code")
        used = ("dataset_path", "dataset_name", "test_split", "validation_split", "output_type", "doc_to_text")
        used += (
            "doc_to_choice",
            "doc_to_target",
            "target_delimiter",
            "description",
            "generation_kwargs",
            "metric_list",
        )
        wrong = [name for name in given if name not in idle + used and not (name == "num_fewshot" and not given[name])]
        wrong += [name for name in used if callable(given.get(name)) or str(given.get(name)).startswith("!function")]
        if wrong:
            raise ValueError(
                f"Not done here: {', '.join(wrong)}. Write examples into `description`, other columns into a file of the data; "
                "a metric of your own is a file, passed to `score` as `metric`; how a model answers is a 'script' of its side."
            )
        names = {"acc": "acc", "acc_norm": "acc_norm", "exact_match": "exact_match", "f1": "token_f1", "bleu": "bleu"}
        names |= {"chrf": "chrf", "rougeL": "rouge_l", "rouge_l": "rouge_l", "token_f1": "token_f1"}
        listed = [one.get("metric") if isinstance(one, dict) else one for one in given.get("metric_list") or []]
        unknown = [str(name) for name in listed if name not in names]
        if unknown and kind != "loglikelihood_rolling":
            raise ValueError(
                f"There is no metric {unknown[0]!r} here: {', '.join(names)} are known. One of your own is a file that defines "
                "`score(prediction, references, inputs)`: leave metric_list out, and pass that file to `score` as `metric`."
            )
        options = given.get("generation_kwargs") or {}
        until = options.get("until") or []
        told = {"task": kinds[kind], "dataset": given.get("dataset_path"), "config": given.get("dataset_name")}
        told["split"] = given.get("test_split") or given.get("validation_split")
        if kind == "loglikelihood_rolling":
            column = str(given.get("doc_to_target") or given.get("doc_to_text") or "text")
            return {**told, "label": column.strip("{} ")}
        needed = ("doc_to_text", "doc_to_target", *(["doc_to_choice"] if kind == "multiple_choice" else []))
        missing = [name for name in needed if given.get(name) in (None, "", [])]
        if missing:
            raise ValueError(f"`lm_task` of {kind} needs {', '.join(missing)}.")
        told.update(
            {"text": given["doc_to_text"], "target": given["doc_to_target"], "choice": given.get("doc_to_choice")}
        )
        told.update({"description": given.get("description") or "", "delimiter": given.get("target_delimiter", " ")})
        told["until"] = [until] if isinstance(until, str) else list(until)
        told["tokens"] = int(options.get("max_gen_toks") or 256)
        return {**told, "metric": names[listed[0]] if listed else None}

    def _template(self, given: Any, known: list, what: str) -> dict:
        """A column, a constant, or a Jinja expression, ready to be filled: {columns, fill}; with no way to run code, to loop,
        or to grow. What says the truth has no conditions either: it would be a way to ask for one label by itself."""
        from functools import partial

        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        if not isinstance(given, str):
            return {"columns": [], "fill": partial(self._constant, given)}
        if given in known:
            return {"columns": [given], "fill": partial(self._cell_of, given)}
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        plain = {
            "Template",
            "Output",
            "TemplateData",
            "Name",
            "Getattr",
            "Getitem",
            "Const",
            "Filter",
            "Call",
            "Concat",
        }
        plain |= {"List", "Tuple", "Neg", "Keyword"}
        plain |= (
            set() if what == "doc_to_target" else {"If", "CondExpr", "Compare", "Operand", "And", "Or", "Not", "Test"}
        )
        filters = ("trim", "lower", "upper", "capitalize", "title", "first", "last", "join", "length", "string", "int")
        methods = ("index", "strip", "lstrip", "rstrip", "lower", "upper", "capitalize", "title", "split", "replace")
        try:
            if len(given) > 8_000:
                raise ValueError("it is longer than 8,000 characters")
            tree = environment.parse(given)
        except (TemplateSyntaxError, ValueError, RecursionError) as error:
            raise ValueError(f"{what} is no column and no Jinja expression: {str(error)[:200]}.") from None
        waiting, joins = [tree], 0
        while waiting:
            node: Any = waiting.pop()
            waiting += list(node.iter_child_nodes())
            kind = type(node).__name__
            named = getattr(node, "name", None) if kind == "Filter" else None
            called = node.node.attr if kind == "Call" and type(node.node).__name__ == "Getattr" else None
            known_one = called in methods if kind == "Call" else named is None or named in filters
            joins += "join" in (named, called)
            grows = kind in ("Call", "Filter") and not self._tame(node, str(named or called))
            if kind not in plain or not known_one or grows or joins > 2:
                raise ValueError(
                    f"{what} uses {named or called or kind}, which is not done here. Columns, their parts ({{{{a.b[0]}}}}), the "
                    f"filters {', '.join(filters)} and the methods {', '.join(methods)} are; for the rest write a column."
                )
        columns = sorted(meta.find_undeclared_variables(tree))
        unknown = [name for name in columns if name not in known]
        if unknown:
            raise ValueError(
                f"{what} reads {unknown[0]!r}: the data has no such column. Columns: {', '.join(known[:40])}."
            )
        parts: list[Any] = [part for node in tree.body for part in node.iter_child_nodes()]
        whole = [type(node).__name__ for node in tree.body] == ["Output"] and len(parts) == 1
        if whole and type(parts[0]).__name__ != "TemplateData":
            text = given.strip().removeprefix("{{").removesuffix("}}").strip("-+ ")
            return {"columns": columns, "fill": environment.compile_expression(text, undefined_to_none=False)}
        return {"columns": columns, "fill": environment.from_string(given).render}

    def _constant(self, value: Any, row: dict) -> Any:
        return value

    def _cell_of(self, name: str, row: dict) -> Any:
        return row.get(name)

    def _tame(self, node: Any, name: str) -> bool:
        """Whether a filter or method gives little more than it takes: with constants alone, short ones, and none in the place
        of a shorter one."""
        given = [str(getattr(word, "value", "")) for word in node.args if type(word).__name__ == "Const"]
        if node.kwargs or node.dyn_args or node.dyn_kwargs or max(map(len, given), default=0) > 20:
            return False
        if name == "index":
            return len(node.args) == 1
        replaced = name != "replace" or (len(given) == 2 and 0 < len(given[0]) >= len(given[1]))
        return len(given) == len(node.args) and replaced

    def _prompted(self, plan: dict, known: list, rows: list) -> dict:
        """The templates of a task, and which columns are shown and which held back: what says the truth alone."""
        made: dict[str, Any] = {
            name: self._template(plan[name], known, f"doc_to_{name}") for name in ("text", "target")
        }
        made["choice"] = self._template(plan["choice"], known, "doc_to_choice") if plan["choice"] else None
        shown = made["text"]["columns"] + (made["choice"]["columns"] if made["choice"] else [])
        held = [name for name in made["target"]["columns"] if name not in shown]
        both = [name for name in made["target"]["columns"] if name in shown]
        told = [name for name in both if [row for row in rows if not isinstance(row.get(name), list | dict)]]
        told = told if made["choice"] else both  # which of several things is right may be told beside them
        if told or not held:
            which = ", ".join(told or made["target"]["columns"]) or "no column"
            raise ValueError(
                f"doc_to_target reads {which}, and nothing of that is held back: doc_to_text or doc_to_choice shows it, or it is "
                "the same for every row. What is right must stand in a column that neither of them reads."
            )
        return {**made, "plan": plan, "label": held[0], "columns": list(dict.fromkeys(shown))}

    def _asked(self, prompted: dict, rows: list, task: str) -> tuple:
        """What a model is asked of each row, made of the columns that are shown; and what is right, which stays here."""
        plan, asked, truths = prompted["plan"], [], []
        for row in rows:
            seen = {name: row.get(name) for name in prompted["columns"]}
            try:
                text = f"{plan['description']}{prompted['text']['fill'](seen)}"
                choices = prompted["choice"]["fill"](seen) if prompted["choice"] else None
            except Exception as error:  # noqa: BLE001 - whatever an expression comes to on a row, which it says itself
                raise ValueError(f"doc_to_text or doc_to_choice fails on a row: {str(error)[:200]}.") from None
            one: dict[str, Any] = {"lm_prompt": text}
            if task == "multiple-choice":
                if not isinstance(choices, list) or len(choices) < 2:
                    raise ValueError("doc_to_choice is to be a list of two or more, as `{{choices.text}}` is.")
                one = {"lm_prompt": text + plan["delimiter"], "lm_choices": [str(choice) for choice in choices]}
            asked.append(one)
            truths.append(self._right(prompted["target"]["fill"], row, one.get("lm_choices")))
        if None in truths:  # not which, and not why: that would be a way to ask for a label
            raise ValueError(
                "doc_to_target comes to nothing that can be right on some rows: of multiple_choice it is the number of a choice "
                "(from 0) or its text. Try it on rows of the training split."
            )
        return asked, truths

    def _right(self, fill: Any, row: dict, choices: list | None) -> Any:
        """Of several choices the number of the right one, before the choices; else the texts that are right; or `None`."""
        try:
            value = fill(row)
        except Exception:  # noqa: BLE001 - what an expression says of a row it failed on may be the label
            return None
        if choices is None:
            return (
                [str(one) for one in value] or [""]
                if isinstance(value, list)
                else None
                if value is None
                else [str(value)]
            )
        text = str(value).strip()
        if not isinstance(value, int) and text in choices:
            return [choices.index(text), *choices]
        number = int(value) if isinstance(value, int) or (text.isdecimal() and len(text) < 4) else -1
        return [number, *choices] if 0 <= number < len(choices) else None

    def _id_of_cell(self, cell: tuple) -> str:
        return cell[0]["id"]

    def _kind_of(self, content: bytes) -> str:
        """The ending of a file's name, by how it begins."""
        begins = {b"\xff\xd8": "jpg", b"GIF8": "gif", b"BM": "bmp", b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mp3"}
        begins |= {b"\xff\xfb": "mp3", b"II*\0": "tif", b"MM\0*": "tif"}
        if content[:4] == b"RIFF":
            return "wav" if content[8:12] == b"WAVE" else "webp"
        return ([kind for begin, kind in begins.items() if content.startswith(begin)] or ["png"])[0]

    def _is_picture(self, value: Any) -> bool:
        """Whether a cell is one: bytes, a file beside the data, or an address at the viewer or the Hub. Rows are anybody's
        words: one that names another host has this host ask there for nobody."""
        import os
        from urllib.parse import urlsplit

        if isinstance(value, dict) and isinstance(value.get("@file"), str):
            return True
        if not isinstance(value, dict) or not isinstance(value.get("src"), str):
            return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)
        try:
            place = urlsplit(value["src"])
            name = place.hostname or ""
        except ValueError:
            return False
        viewer = os.environ.get("HF_DATASETS_SERVER") or "https://datasets-server.huggingface.co"
        own = [(one.scheme, one.netloc) for one in map(urlsplit, (self._hub(), viewer))]
        return (place.scheme, place.netloc) in own or (
            place.scheme == "https" and name.endswith((".huggingface.co", ".hf.co"))
        )

    def _picture(self, source: dict, value: dict) -> bytes:
        """Of a cell: its bytes, those of a file beside the data, or what the dataset viewer says where they are."""
        if isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        if "@file" in value and source["revision"] is None:
            return self.workspace.read_bytes(value["@file"], 20_000_000)
        if "@file" in value:
            if value["@file"] not in source["files"]:  # written there by whoever made the data
                raise ValueError(f"{source['id']} has no file {value['@file'][:200]!r}, which a row of it names.")
            where = {"dataset": source["id"], "revision": source["revision"], "path": value["@file"]}
            return self._ask(f"{value['@file']} of dataset {source['id']}", 120, self._content, **where)
        from huggingface_hub.errors import HTTPError
        from huggingface_hub.utils import get_session

        try:  # its address is signed: no token goes there
            answer = get_session().get(value["src"], timeout=30)
        except HTTPError as error:
            raise ConnectionError(
                f"A picture of the data cannot be had ({type(error).__name__}). Try again."
            ) from error
        if answer.status_code != 200 or len(answer.content) > 20_000_000:
            raise ConnectionError(f"A picture of the data cannot be had ({answer.status_code}). Prepare again.")
        return answer.content

    def _guess_label(self, task: str, known: list) -> str:
        usual = {
            "generation": ["answer", "answers", "output", "completion", "response", "target", "summary", "highlights"],
            "token-classification": ["ner_tags", "tags", "pos_tags", "labels"],
            "retrieval": ["positive", "answer", "document", "passage", "context"],
            "language-modeling": ["text", "content"],
            "regression": ["label", "score", "target", "labels", "y"],
        }.get(task, ["label", "labels", "target", "class", "category", "y"])
        found = [name for name in usual if name in known]
        if not found:
            raise ValueError(f"Which column is to be predicted? Pass `label`, one of: {', '.join(known[:40])}.")
        return found[0]

    def _telling(self, rows: list, label: str, shown: list, task: str, names: Any) -> list:
        """Columns that are the label in other words: each of their few values goes with one label, and the other way; or
        paths that have it in them, as `test/cat/7.png`."""
        import json
        import random
        import re

        rows = random.Random(0).sample(rows, min(len(rows), 5_000))  # enough to see it
        if task == "regression":  # as good as the label itself, in other units
            columns = {name: [row.get(name) for row in rows] for name in [label, *shown]}
            fit = {n: one for n, one in columns.items() if not [x for x in one if not isinstance(x, int | float)]}
            found = [self._of_numbers(fit[label], one, [])["pearson"] for name, one in fit.items() if name != label]
            alike = [abs(self._pearson([sum(column) for column in one["columns"]], len(rows))) for one in found]
            return [name for name, like in zip([n for n in fit if n != label], alike, strict=True) if like > 0.99999]
        if task != "classification":
            return []
        found = []
        for name in shown:
            pairs = {json.dumps([row.get(name), row[label]], default=str) for row in rows}
            values = {json.dumps(row.get(name), default=str) for row in rows}
            labels = {json.dumps(row[label], default=str) for row in rows}
            paths = [row for row in rows if re.search(r"\w\.\w{2,5}$", str(row.get(name)))]
            parts = [re.split(r"[\W_\d]+|(?<=\d)(?=\D)", str(row[name]).casefold()) for row in paths]
            said = [self._label(row[label], names).casefold() for row in paths]
            spoken = [one for one, part in zip(said, parts, strict=True) if one in part]
            same = len(pairs) == len(values) == len(labels) > 1 and len(values) * 2 <= len(rows)
            if same or (len(labels) > 1 and len(spoken) > 0.9 * len(rows)):
                found.append(name)
        return found

    def _truth(self, value: Any, task: str, names: Any) -> Any:
        if task == "classification":
            return self._label(value, names)
        if task == "regression":
            try:
                return float(value)
            except (TypeError, ValueError):
                raise ValueError(f"The label {value!r} is no number: is this a regression?") from None
        if task == "token-classification":
            if not isinstance(value, list):
                raise ValueError(f"A label of token-classification is a list of tags, not {value!r}.")
            return [self._label(one, names) for one in value]
        if isinstance(value, dict) and isinstance(value.get("text"), list):  # as SQuAD has answers
            value = value["text"]
        if task == "generation" and value == []:
            return [""]  # as SQuAD 2 counts a question without an answer: right is to say nothing
        return [str(one) for one in value] if isinstance(value, list) else [str(value)]

    def _label(self, value: Any, names: Any) -> str:
        """A label as it is compared: its name where the data has names, else as text."""
        import re

        if isinstance(value, str) and value in (names or ()):
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        number = value if isinstance(value, int) and not isinstance(value, bool) else None
        found = re.fullmatch(r"(?:LABEL_)?(\d+)", value) if isinstance(value, str) else None
        if found:
            number = value = int(found[1])
        if number is not None and names and 0 <= number < len(names):
            return str(names[number])
        return str(value)

    def _secrecy(self, meta: dict) -> str:
        """Who can know the labels, in a sentence."""
        here, elsewhere = self._in_workspace(meta), self._shown_elsewhere(meta)
        if elsewhere:
            return f"The labels were written out as a column of other inputs ({elsewhere[0]}): code has seen them."
        if meta.get("telling"):
            return (
                f"The inputs hold {', '.join(meta['telling'])}, which gives the label away: code has seen the labels."
            )
        if meta["seen"] == "workspace":
            return "The labels came from a file of the workspace: code there has seen them."
        if here:
            return f"The labels lie in the workspace as well ({', '.join(here[:3])}): code there can read them."
        if meta["public"]:
            return (
                "The labels stay on the host; the data is public, so code that reaches the Hub could fetch it again."
            )
        return (
            "The labels stay on the host; the data is private or gated, so code has no way to them but tools of the host, "
            "whose calls are on record."
        )

    def _siblings(self, meta: dict) -> list:
        """What else was held out of the same split: other rows of it, or the same ones to predict another column."""
        import json

        paths = sorted(self._place().glob("held_*/meta.json"))
        others = [json.loads(path.read_text("utf-8")) for path in paths if path.parent.name != meta["held_out"]]
        where = ("dataset", "config", "split")
        return [other for other in others if [other.get(name) for name in where] == [meta[name] for name in where]]

    def _shown_elsewhere(self, meta: dict) -> list:
        """Other inputs of the same split that hold the labels: what is predicted there is another column."""
        return [other["held_out"] for other in self._siblings(meta) if meta["label"] in other["columns"]]

    def _in_workspace(self, meta: dict) -> list:
        """Files of the data that were downloaded: found by name and size."""
        seen = meta["seen"] if isinstance(meta["seen"], dict) else {}
        found = []
        for name in self.workspace.walk():
            if name.split("/")[-1] in seen:
                with self.workspace.open_read(name) as file:
                    if file.seek(0, 2) == seen[name.split("/")[-1]]:
                        found.append(name)
        return found

    def _place(self) -> Any:
        from pathlib import Path

        return Path(self.labels) if self.records is None else Path(self.records.held_out)

    def _keep(self, path: Any, data: Any) -> None:
        import json

        draft = path.with_suffix(".part")
        draft.write_text(json.dumps(data, default=str), "utf-8")
        draft.chmod(0o600)
        draft.replace(path)

    def _lay(self, name: str, rows: list) -> bytes:
        import json

        text = "".join([json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows])
        content = text.encode("utf-8", "replace")
        self.workspace.write_bytes(name, content)
        return content

    # Rows: of a file of the workspace, of files on the Hub, or as the dataset viewer gives them.

    def _rows(self, dataset: str, config: Any, split: str, revision: Any, most: int) -> dict:
        from importlib.util import find_spec

        if self.workspace.exists(dataset):
            return self._rows_here(dataset, config, split, most)
        from huggingface_hub import HfApi

        subject = f"dataset {dataset}" + (f" at {revision}" if revision else "")
        options = {"repo_id": dataset, "revision": revision, "files_metadata": True, "timeout": 20}
        info = self._ask(subject, 30, HfApi(endpoint=self._hub()).dataset_info, **options)
        card = info.card_data.to_dict() if info.card_data else {}
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
        layout = self._layout(sizes, card.get("configs"))
        configs = list(dict.fromkeys([key[0] for key in layout]))
        chosen = config or ("default" if "default" in configs else (configs or [None])[0])
        paths = layout.get((chosen, split), [])
        about = {"id": info.id, "split": split, "revision": info.sha}
        about["public"] = not info.private and not info.gated
        about.update({"files": set(sizes), "seen": {path.split("/")[-1]: sizes[path] for path in paths}})
        small = paths and len(paths) <= 50 and sum([sizes[path] for path in paths]) <= 200_000_000
        binary = [path for path in paths if path.endswith(".parquet")]
        # Parquet is the viewer's, which knows the names of classes; where there is no viewer, this host's, if it can.
        files = {"about": about, "paths": paths, "subject": subject, "most": most}
        named = {"config": chosen, "names": self._names_of_card(card, chosen)}
        readable = small and (not binary or find_spec("pyarrow") is not None)
        if readable and not binary:
            return {**named, **self._beside(self._rows_of_files(**files), paths, sizes)}
        if revision:
            newest = self._ask(
                f"dataset {dataset}", 30, HfApi(endpoint=self._hub()).dataset_info, repo_id=dataset, timeout=20
            )
            if newest.sha != info.sha and readable:
                return {**named, **self._rows_of_files(**files)}
            if newest.sha != info.sha:
                raise ValueError(
                    f"Rows of {dataset} come from the dataset viewer, which knows only the newest commit, not {revision}. "
                    "Leave `revision` out, or download the files of that commit and pass the file of the split."
                )
        try:
            return {**about, **self._viewed(info.id, config, split, most)}
        except ConnectionError:
            if readable:
                return {**named, **self._rows_of_files(**files)}
            found = self._by_folder(sizes, split, most)
            if not found:
                raise
            return {**about, **named, "rows": found, "partly": len(found) >= most}
        except (KeyError, TypeError, AttributeError) as error:
            raise ConnectionError(
                f"The dataset viewer's answer on {dataset} has another shape than its API says ({error!r}). "
                "Download its files with hub_download, and pass the file of the split as `dataset`."
            ) from error

    def _rows_of_files(self, about: dict, paths: list, subject: str, most: int) -> dict:
        """Rows of files on the Hub; of Parquet with the names of classes that `datasets` wrote into it, if it did."""
        rows, names = [], {}
        for path in paths:
            where = {"dataset": about["id"], "revision": about["revision"], "path": path}
            content = self._ask(f"{path} of {subject}", 300, self._content, **where)
            rows += self._parse(path, content, most - len(rows))
            names = names or (self._names_in(content) if path.endswith(".parquet") else {})
        return {**about, "rows": rows, "partly": len(rows) >= most, **({"names": names} if names else {})}

    def _names_in(self, content: bytes) -> dict:
        """Column to names of its classes, out of the schema of a Parquet file."""
        import importlib
        import io
        import json

        schema = importlib.import_module("pyarrow.parquet").read_schema(io.BytesIO(content))
        try:
            features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
            inner = {name: one.get("feature", one) for name, one in features.items() if isinstance(one, dict)}
            return {name: one["names"] for name, one in inner.items() if isinstance(one, dict) and one.get("names")}
        except (TypeError, KeyError, ValueError, AttributeError):
            return {}

    def _rows_here(self, path: str, config: Any, split: str, most: int) -> dict:
        names, rows = [path], []
        if self.workspace.is_dir(path):
            below = self.workspace.walk(path)
            names = self._layout(dict.fromkeys(below, 0), None).get((config or "default", split), [])
            rows = self._by_folder(below, split, most) if not names else []
            if not names and not rows:
                raise ValueError(
                    f"{path} has no data file of split {split!r} ({', '.join(below[:8])}). Name the file."
                )
        for name in names:
            rows += self._parse(name, self.workspace.read_bytes(name, 500_000_000), most - len(rows))
        about = {"id": path, "config": config, "split": split, "revision": None, "public": False}
        about.update({"seen": "workspace", "rows": rows, "names": {}, "partly": len(rows) >= most})
        return self._beside(about, names, None)

    def _media(self, path: Any) -> str:
        """`image` or `audio` by the ending of a file's name, else `""`."""
        kinds = {"image": ("png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff")}
        kinds["audio"] = ("wav", "mp3", "flac", "ogg", "opus", "m4a")
        ending = str(path).rsplit(".", 1)[-1].lower() if "." in str(path) else ""
        return ([kind for kind, endings in kinds.items() if ending in endings] or [""])[0]

    def _by_folder(self, paths: Any, split: str, most: int) -> list:
        """Rows of a folder of pictures or recordings, whose class is the folder that each lies in."""
        media = [path for path in sorted(paths) if self._media(path) and "/" in path]
        above = {path: "/".join(path.split("/")[:-2]) for path in media}  # a class may be called `train`
        there = self._layout(dict.fromkeys(above.values(), 0), None, True).get(("default", split), [])
        rows = [
            {self._media(path): {"@file": path}, "label": path.split("/")[-2]}
            for path in media
            if above[path] in there
        ]
        return rows[:most]

    def _beside(self, about: dict, paths: list, known: Any) -> dict:
        """Rows whose cells name pictures or recordings that lie beside the data's files: those take the names' place."""
        rows, folders = about["rows"], [*dict.fromkeys([path.rpartition("/")[0] for path in paths]), ""]
        for name in list(rows[0]) if rows else []:
            if not self._media(rows[0][name]):
                continue
            for row in rows:
                places = [f"{folder}/{row[name]}".strip("/") for folder in folders]
                there = [one for one in places if (self.workspace.exists(one) if known is None else one in known)]
                row[name] = {"@file": there[0]} if self._media(row[name]) and there else row[name]
        return about

    def _layout(self, sizes: dict, configs: Any, media: bool = False) -> dict:
        """(config, split) to files: as the card's `configs` say, else by the words train, test, ... in the path; with
        `media` files of any kind."""
        import fnmatch
        import re

        kinds = r"\.(csv|tsv|jsonl|ndjson|json|parquet)$"
        skipped = ("dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json", "config.json")
        data = [path for path in sizes if (media or re.search(kinds, path)) and path.split("/")[-1] not in skipped]
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

    def _content(self, dataset: str, revision: str, path: str, kind: str = "dataset", into: Any = None) -> bytes:
        """A file of the Hub; with `into`, a path of this host, it is written there, and what comes back is its SHA-256."""
        import hashlib

        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        url = hf_hub_url(dataset, path, repo_type=kind, revision=revision, endpoint=self._hub())
        content = bytearray()
        with http_stream_backoff(
            "GET",
            url,
            headers=build_hf_headers(),
            timeout=20,
            max_retries=1,
            retry_on_status_codes=(502, 503, 504),
            retry_on_exceptions=(),  # it would read on after what broke off
        ) as response:
            hf_raise_for_status(response)
            if "html" in response.headers.get("Content-Type", "") and not path.endswith(".html"):
                raise TypeError("a web page")
            if into is not None:
                digest = hashlib.sha256()
                with into.open("wb") as file:
                    for chunk in response.iter_bytes(1_000_000):
                        digest.update(chunk)
                        file.write(chunk)
                return digest.digest()
            for chunk in response.iter_bytes(1_000_000):
                content += chunk
        return bytes(content)

    def _fetched(self, model: str, revision: Any, folder: Any) -> None:
        """Files of a model on the Hub that a library loads, as bytes, into a folder of this host."""
        import re

        from huggingface_hub import HfApi

        subject, api = f"model {model}", HfApi(endpoint=self._hub())
        options = {"repo_id": model, "revision": revision, "files_metadata": True, "timeout": 20}
        info = self._ask(subject, 30, api.model_info, **options)
        others = r"(?i)(onnx|openvino|coreml|original|runs)/|.*[.](msgpack|h5|onnx|gguf|ot|tflite|pb|md|png|jpe?g|gitattributes)$"
        files = [one for one in info.siblings or [] if not re.match(others, one.rfilename)]
        if [one for one in files if one.rfilename.endswith(".safetensors")]:
            files = [one for one in files if not one.rfilename.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        size = sum([one.size or 0 for one in files])
        if size > 200_000_000_000 or [
            one for one in files if ".." in one.rfilename.split("/") or one.rfilename[:1] == "/"
        ]:
            raise ValueError(
                f"{model} has {size:,} bytes, or files with strange names: it is not fetched to be judged."
            )
        for one in files:
            into = folder / one.rfilename
            into.parent.mkdir(parents=True, exist_ok=True)
            where = {"dataset": model, "revision": info.sha, "path": one.rfilename, "kind": "model", "into": into}
            digest = self._ask(f"{one.rfilename} of {subject}", 3 * 3600, self._content, **where)
            if one.lfs and one.lfs.sha256 != digest.hex():
                raise ConnectionError(f"{one.rfilename} of {model} came damaged. Score again.")

    def _viewed(self, dataset: str, config: Any, split: str, most: int) -> dict:
        """Rows of the dataset viewer, page by page; of more than 20,000, pages that are spread evenly."""
        listed = [(item["config"], item["split"]) for item in self._view("splits", {"dataset": dataset})["splits"]]
        configs = list(dict.fromkeys([item[0] for item in listed]))
        config = config or ("default" if "default" in configs else (configs or [None])[0])
        if (config, split) not in listed:
            raise ValueError(f"{dataset} has no config {config!r} with a split {split!r}. It has: {listed[:20]}.")
        where = {"dataset": dataset, "config": config, "split": split, "length": 100}
        page = self._view("rows", {**where, "offset": 0})
        total = page["num_rows_total"]
        offsets = list(range(100, total, 100))
        if len(offsets) > 200:
            offsets = [round(number * (total - 100) / 200) for number in range(1, 201)]
        found = {item["row_idx"]: item for item in page["rows"]}
        for offset in offsets:
            if len(found) >= most:
                break
            found.update({item["row_idx"]: item for item in self._view("rows", {**where, "offset": offset})["rows"]})
        names = {}
        for feature in page["features"]:
            kind = feature["type"]
            kind = kind.get("feature", kind) if isinstance(kind, dict) else kind
            if isinstance(kind, dict) and isinstance(kind.get("names"), list):
                names[feature["name"]] = kind["names"]
        whole = [found[number]["row"] for number in sorted(found) if not found[number].get("truncated_cells")]
        return {"config": config, "rows": whole[:most], "names": names, "partly": len(whole[:most]) < total}

    def _view(self, path: str, query: dict) -> dict:
        """One answer of the dataset viewer. It has no client of its own and is another host than the Hub."""
        import os
        import time

        from huggingface_hub.errors import HTTPError
        from huggingface_hub.utils import build_hf_headers, get_session

        server = os.environ.get("HF_DATASETS_SERVER")
        if not server and self._hub() != "https://huggingface.co":
            # Its namesake on huggingface.co is another dataset, and this Hub's token is none of that host's business.
            raise ConnectionError(
                "The files of the split cannot be read here, and HF_DATASETS_SERVER names no viewer for this Hub. "
                "Download the files with hub_download, and pass the file of the split as `dataset`."
            )
        server = (server or "https://datasets-server.huggingface.co").rstrip("/")
        viewer = f"The dataset viewer ({server})"
        for again in (True, True, False):
            try:
                # Redirects to other hosts lose the token: the client's HTTP library sees to that.
                answer = get_session().get(f"{server}/{path}", params=query, headers=build_hf_headers(), timeout=30)
                if answer.status_code == 200:
                    return answer.json()
            except HTTPError as error:
                raise ConnectionError(f"{viewer} cannot be reached ({type(error).__name__}: {error}).") from error
            except ValueError as error:
                raise ConnectionError(f"{viewer} answered with something else than JSON. Try again later.") from error
            wait = answer.headers.get("Retry-After", "")
            if answer.status_code != 429 or not again or not wait.isdigit() or int(wait) > 20:
                break
            time.sleep(int(wait))
        code = answer.headers.get("X-Error-Code", "")
        raise ConnectionError(
            f"{viewer} did not give the rows ({answer.status_code} {code}). Try again in a minute, or download the files "
            "with hub_download and pass the file of the split as `dataset`."
        )

    def _names_of_card(self, card: dict, config: Any) -> dict:
        """Column to names of its classes, as the card's `dataset_info` says."""
        about = card.get("dataset_info") or []
        names = {}
        for part in about if isinstance(about, list) else [about]:
            if not isinstance(part, dict) or part.get("config_name") not in (None, config):
                continue
            for feature in part.get("features") or []:
                kind = feature.get("dtype") or feature.get("sequence") if isinstance(feature, dict) else None
                found = kind.get("class_label", {}).get("names") if isinstance(kind, dict) else None
                if isinstance(found, dict):
                    names[feature["name"]] = [found[key] for key in sorted(found, key=int)]
        return names

    def _parse(self, path: str, content: bytes, most: int) -> list:
        """Rows of a data file. Columns of a table become numbers where all their values are."""
        import csv
        import importlib
        import io
        import json
        from itertools import islice

        if path.endswith(".parquet"):
            try:
                pyarrow = importlib.import_module("pyarrow.parquet")
            except ImportError:
                raise ValueError(f"{path} is Parquet, which this host cannot read. Write it as JSON lines.") from None
            return pyarrow.read_table(io.BytesIO(content)).slice(0, most).to_pylist()
        text = content.decode("utf-8-sig", errors="replace")
        try:
            if path.endswith((".csv", ".tsv")):
                header = text.split("\n", 1)[0]
                comma = "\t" if path.endswith(".tsv") else max(",;\t", key=header.count)
                csv.field_size_limit(20_000_000)
                return self._typed(list(islice(csv.DictReader(io.StringIO(text, newline=""), delimiter=comma), most)))
            if path.endswith(".json") and text.lstrip().startswith("["):
                rows = json.loads(text)
            else:
                rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{path} cannot be read as what its name says: {error}. Check the file.") from error
        return [row if isinstance(row, dict) else {"value": row} for row in rows[:most]]

    def _typed(self, rows: list) -> list:
        import re

        for kind, form in ((int, r"-?(0|[1-9]\d{0,17})"), (float, r"-?\d+(\.\d+)?([eE][+-]?\d+)?")):
            for name in list(rows[0]) if rows else []:
                values = [row[name] for row in rows]
                given = [value for value in values if value not in (None, "")]
                texts = [value for value in given if isinstance(value, str)]
                if given and len([value for value in texts if re.fullmatch(form, value)]) == len(given):
                    for row in rows:
                        row[name] = kind(row[name]) if row[name] not in (None, "") else None
        return rows

    # Predictions: given, or made by a job in a jail.

    def _side(self, role: str, spec: dict, meta: dict, truths: list) -> dict:
        """What one side predicts, one set a seed: {name, folder, model, revision, weights_sha256, by, sets}."""
        side = {"name": str(spec.get("name") or ""), "folder": None, "model": None, "revision": None}
        side.update({"weights_sha256": None, "by": "harness", "script": spec.get("script")})
        simple, model = spec.get("simple"), spec.get("model")
        if simple is not None:
            if role != "baseline":
                raise ValueError("`simple` is for the baseline: a candidate is a model.")
            values = self._simple(simple, meta, truths)
            sets = [{key: {"prediction": value} for key, value in zip(meta["ids"], values, strict=True)}]
            if meta["task"] == "multiple-choice":  # as likely as it can be, however long it is
                for key, truth in zip(meta["ids"], truths, strict=True):
                    chosen = sets[0][key]["prediction"]
                    sets[0][key]["logprobs"] = [0.0 if n == chosen else -1e9 for n in range(len(truth) - 1)]
            return {**side, "name": side["name"] or simple, "sets": sets}
        folders = spec.get("folder")
        folders = [folders] if isinstance(folders, str) else folders or []
        given = spec.get("predictions")
        given = [given] if isinstance(given, str) else given or []
        if max(len(folders), len(given)) > 10:
            raise ValueError(f"`{role}` has more than ten seeds. Each is a look at the labels: ten tell the spread.")
        folders = [self._weights_folder(folder) for folder in folders]
        if folders:
            side.update({"folder": folders[0], "weights_sha256": self._hash(folders[0])})
            if side["weights_sha256"] is None:
                raise ValueError(f"{role}: {folders[0]} holds no weights. Name the folder that would be pushed.")
        side.update({"model": model, "revision": spec.get("revision")})
        if given:
            side.update({"by": "predictions", "sets": [self._read_predictions(path) for path in given]})
        elif folders or model:
            if model and not folders:
                side["revision"] = self._sha(model, spec.get("revision"))
            targets = folders or [model]
            known: list[Any] = [side["weights_sha256"], *[self._hash(folder) for folder in folders[1:]]]
            side["sets"] = [
                self._run(meta, str(target), side["revision"], spec.get("script"), known[number])
                for number, target in enumerate(targets)
            ]
        else:
            more = " or 'simple'" if role == "baseline" else ""
            raise ValueError(
                f"`{role}` needs 'folder', 'model', 'predictions'{more}. See the description of `candidate`."
            )
        side["name"] = side["name"] or folders[0] if folders else side["name"] or model or given[0]
        return side

    def _simple(self, simple: str, meta: dict, truths: list) -> list:
        """A baseline that has learned nothing: the constant that does best on these very rows, or the input itself."""
        import json
        import statistics
        from collections import Counter

        task = meta["task"]
        if simple == "majority" and task == "classification":
            return [Counter(truths).most_common(1)[0][0]] * len(truths)
        if simple == "majority" and task == "multiple-choice":
            return [Counter([truth[0] for truth in truths]).most_common(1)[0][0]] * len(truths)
        if simple == "majority" and task == "token-classification":
            common = Counter([tag for tags in truths for tag in tags]).most_common(1)[0][0]
            return [[common] * len(tags) for tags in truths]
        if simple in ("mean", "median") and task == "regression":
            return [getattr(statistics, simple)(truths)] * len(truths)
        if simple == "copy" and task == "generation":
            rows = json.loads((self._place() / meta["held_out"] / "inputs.json").read_text("utf-8"))
            return [self._text(row, meta["columns"]) for row in rows]
        raise ValueError(
            f"There is no simple baseline {simple!r} for {task}: classification, token-classification and multiple-choice have "
            "majority, regression mean and median, generation copy. Else evaluate the base model."
        )

    def _weights_folder(self, folder: str) -> str:
        """A run's folder stands for the weights in it."""
        plain = self.workspace.relative(folder)
        if not self.workspace.is_dir(plain):
            raise ValueError(f"There is no folder {folder} in the workspace. Name the folder of the model.")
        inside = f"{plain}/model"
        return inside if self.workspace.is_dir(inside) and self._hash(inside) else plain

    def _hash(self, folder: str) -> str | None:
        import hashlib

        digests = {}
        for name in self.workspace.walk(folder):
            with self.workspace.open_read(name) as file:
                inside = name if folder == "." else name[len(folder) + 1 :]
                digests[inside] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._weights_sha256(digests)

    # Shared: weights
    def _weights_sha256(self, digests: dict) -> str | None:
        """The digest of a model: of its weights, and of what says how they are used. `None` where there are no weights.

        `digests`: path relative to the model's folder to the file's SHA-256. The same in every tool that needs it. Trees of
        XGBoost, CatBoost and LightGBM are known by their kind, as JSON or text by a name like `model.json`.
        """
        import hashlib
        import re

        kinds = {"safetensors", "skops", "npz", "npy", "onnx", "gguf", "bin", "pt", "pth", "ckpt", "h5", "keras", "pb"}
        kinds |= {"msgpack", "tflite", "joblib", "pkl", "pickle", "dill", "cloudpickle", "model", "ftz", "pdparams"}
        kinds |= {"ubj", "ubjson", "xgb", "bst", "cbm", "lgb", "mlmodel"}
        # Whatever is JSON says how, but for what says how it went; code only where a library imports it by such a name.
        uses = r"vocab\.txt|merges\.txt|.+\.(json|jinja|tiktoken|spm|bpe)"
        uses += r"|(modeling|configuration|tokenization|processing|image_processing|feature_extraction)_\w+\.py"
        went = r"(.*(metrics|results?|trainer_state|history|training_args)|training_plan)\.json"
        trees = r"(.*[-_.])?(model|booster|xgb\w*|catboost\w*|lgbm?|lightgbm)\.(json|txt)"
        skipped = ("training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin", "scheduler.bin")
        lines, weights = [], False
        for name in sorted(digests):
            last = name.split("/")[-1].lower()
            if last in skipped or last.startswith("rng_state"):
                continue
            heavy = bool(kinds.intersection(last.split(".")[1:]) or re.fullmatch(trees, last))
            weights = weights or heavy
            if heavy or (re.fullmatch(uses, last) and not re.fullmatch(went, last)):
                lines.append(f"{name}\0{digests[name]}\n")
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest() if weights else None

    # End of shared: weights

    def _sha(self, model: str, revision: Any) -> str:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._hub())
        return self._ask(f"model {model}", 30, api.model_info, repo_id=model, revision=revision, timeout=20).sha

    def _read_predictions(self, path: str) -> dict:
        import json

        found, doubled = {}, 0
        content = self.workspace.read_bytes(path, 500_000_000).decode("utf-8", "replace")
        for number, line in enumerate([line for line in content.split("\n") if line.strip()], 1):
            try:
                row = json.loads(line)
                key = row["id"]
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{path}, line {number}: not like {{'id': ..., 'prediction': ...}}.") from None
            doubled += key in found
            found[str(key)] = row
        if doubled:
            raise ValueError(f"{path} has {doubled} ids more than once: one prediction a row.")
        return found

    def _run(self, meta: dict, target: str, revision: Any, script: Any, known: str | None) -> dict:
        """Predictions of a model, made by a script in a job; what came of it once is kept on the host.

        Whatever else runs in the workspace meanwhile: the job reads the weights from a copy out of its reach, whose digest is
        `known`; the inputs are written anew, this tool's own program is no file there and imports nothing from there, and it
        says in its log what it read and wrote.
        """
        import hashlib
        import json
        import shutil

        if self.jobs is None:
            raise RuntimeError(
                "evaluate_model can run nothing here: it was made without `jobs`. Make the predictions in your code, and "
                "pass {'predictions': 'p.jsonl', 'folder': ...}."
            )
        held = meta["held_out"]
        here = self.workspace.is_dir(target)
        inside = (
            [name if target == "." else name[len(target) + 1 :] for name in self.workspace.walk(target)]
            if here
            else []
        )
        plain = {name: "" for name in inside if "/" not in name}
        if here and not script and "modules.json" not in plain and self._weights_sha256(plain) is None:
            below = sorted(
                dict.fromkeys(
                    [name.rpartition("/")[0] for name in sorted(inside) if self._weights_sha256({name: ""})]
                ),
                key=len,
            )
            raise ValueError(
                f"The weights in {target} lie in folders below it ({', '.join(below[:5])}). Name the folder of one model, or "
                "pass a 'script' that knows how to use them."
            )
        usual = ("config.json", "adapter_config.json", "modules.json")
        if here and not script and not [name for name in plain if name in usual or name.endswith(".skops")]:
            raise ValueError(
                f"{target} is no model that this tool knows how to run ({', '.join(sorted(plain)[:5])}): skops, transformers "
                "and sentence-transformers are. Pass a 'script' that takes --inputs, --output and --model, and writes a line "
                "{'id', 'prediction', 'scores'?} for each row."
            )
        before = known if here else revision
        program = self.workspace.read_bytes(script, 5_000_000) if script else self._program().encode()
        key = hashlib.sha256(b"\0".join([held.encode(), str(before).encode(), target.encode(), program])).hexdigest()[
            :16
        ]
        kept = self._place() / held / f"predictions-{key}.json"
        if kept.exists():
            return json.loads(kept.read_text("utf-8"))
        if any(self._changed_pictures(meta)):
            raise ValueError(f"Pictures of {held} were changed. Call `prepare` again, which writes them anew.")
        inputs, out = f"held_out/{held}/inputs.jsonl", f"held_out/{held}/predictions-{key}.jsonl"
        lines = json.loads((self._place() / held / "inputs.json").read_text("utf-8"))
        given = self._lay(inputs, sorted(lines, key=self._id))
        command = ["python", *([script] if script else ["-P", "-c", program.decode()])]
        sealed = self._sealed(target, revision, self._place() / held / f"sealed-{key}", before if here else None)
        command += ["--inputs", inputs, "--output", out, "--model", f"{self.jobs.inside(sealed)}/model"]
        if not script:
            asked = {name: (meta.get("lm_task") or {}).get(name) for name in ("until", "tokens")}
            command += ["--asked", json.dumps(asked)] if meta.get("lm_task") else []
            command += ["--task", meta["task"]]
            command += ["--documents", f"held_out/{held}/documents.jsonl"] if meta["task"] == "retrieval" else []
        attempt = len(list((self._place() / held).glob(f"attempt-{key}-*")))
        job = f"predict-{key}-{attempt}"
        self.jobs.start(job, command, seconds=6 * 3600, sealed=sealed)
        state = self.jobs.wait(job, 1800)
        if state["state"] == "running":
            raise TimeoutError(
                f"The predictions of {target} take more than 30 minutes (job {job}). Score again later."
            )
        shutil.rmtree(sealed, ignore_errors=True)
        if state["state"] != "done":
            (self._place() / held / f"attempt-{key}-{attempt}").touch()  # the next try is a job of its own
            text, _ = self.jobs.logs(job, -3_000)
            who = script or "The program of evaluate_model"
            raise RuntimeError(
                f"{who} failed on {target} ({state['state']}, {state['exit_code']}). It said:\n{text[-2_000:]}"
            )
        if script and self.workspace.read_bytes(script, 5_000_000) != program:
            raise ValueError(f"{script} was changed while it ran. Score again, and leave it alone meanwhile.")
        if self.workspace.read_bytes(inputs, 500_000_000) != given or any(self._changed_pictures(meta)):
            raise ValueError(
                f"The inputs of {held} were changed while {target} was run. Score again, and leave them alone."
            )
        if not script:
            made = self.workspace.read_bytes(out, 500_000_000)
            done = [hashlib.sha256(content).hexdigest() for content in (given, made)]
            if f"done {' '.join(done)}" not in self.jobs.logs(job, -3_000)[0]:
                (self._place() / held / f"attempt-{key}-{attempt}").touch()
                raise ValueError(
                    f"{out} is not what the model predicted: it was changed. Score again, and leave it alone."
                )
        found = self._read_predictions(out)
        self._keep(kept, found)
        return found

    def _sealed(self, target: str, revision: Any, place: Any, known: str | None) -> Any:
        """A copy of a model on this host, with that of the base of an adapter beside it: what a job loads it cannot change, nor
        swap it and put it back, nor find another one in a cache that code can write to. Its digest has to be the one that is
        `known`, if one is."""
        import hashlib
        import json
        import shutil

        if place.exists():  # of the same job, which went on for longer than anybody waited
            return place
        part = place.with_name(f"{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            self._copied(target, revision, part / "model")
            digests = {}
            for path in [path for path in (part / "model").rglob("*") if path.is_file()]:
                with path.open("rb") as file:
                    digests[path.relative_to(part / "model").as_posix()] = hashlib.file_digest(
                        file, "sha256"
                    ).hexdigest()
            if known and self._weights_sha256(digests) != known:
                raise ValueError(
                    f"The weights in {target} change while they are evaluated. Score again when they are done."
                )
            run = self._run_config(target) if known else {}
            for number, path in enumerate(sorted((part / "model").rglob("adapter_config.json"))):
                told = json.loads(path.read_text("utf-8"))
                base = told.get("base_model_name_or_path")
                if isinstance(base, str):
                    pinned = run.get("base_revision") if run.get("base_model") == base else None
                    self._copied(base, told.get("revision") or pinned, part / f"base{number}")
                    told.update(
                        {"base_model_name_or_path": f"{self.jobs.inside(place)}/base{number}", "revision": None}
                    )
                    path.write_text(json.dumps(told), "utf-8")
            for path in [part, *part.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)
            part.rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return place

    def _copied(self, model: str, revision: Any, into: Any) -> None:
        """A model of the workspace, or else of the Hub, into a folder of this host."""
        try:
            here = self.workspace.is_dir(model)
        except ValueError:  # no path of a workspace
            here = False
        if here:
            self.workspace.copy_out(model, into)
        else:
            into.mkdir(parents=True)
            self._fetched(model, revision, into)

    def _id(self, row: dict) -> str:
        return row["id"]

    def _changed_pictures(self, meta: dict) -> list:
        """For each picture or recording of the held-out rows whether its file is no longer as it was laid there."""
        import hashlib

        found = []
        for name, digests in (meta.get("pictures") or {}).items():
            below = {
                path.rsplit("/", 1)[-1].split(".")[0]: path
                for path in self.workspace.walk(f"held_out/{meta['held_out']}")
            }
            for key, digest in zip(meta["ids"], digests, strict=True):
                path = below.get(f"{key}-{meta['columns'].index(name)}")
                if digest is not None and path is None:
                    return [True]
                if digest is not None:
                    with self.workspace.open_read(path) as file:
                        found.append(hashlib.file_digest(file, "sha256").hexdigest() != digest)
        return found

    def _program(self) -> str:
        """The script that runs in the jail: the plain way to use a model of each kind."""
        return '''"""Predictions of a model, a JSON line for each row of the inputs."""
import argparse
import hashlib
import importlib.util
import json
import pathlib

need = importlib.import_module

parser = argparse.ArgumentParser()
for name in ("inputs", "output", "model", "task", "documents", "asked"):
    parser.add_argument("--" + name)
args = parser.parse_args()
given = open(args.inputs, "rb").read()
rows = [json.loads(line) for line in given.decode().split("\\n") if line]
columns = [name for name in rows[0] if name != "id"]
asked = json.loads(args.asked or "{}")
folder = pathlib.Path(args.model)
named = ("text", "sentence", "premise", "question", "prompt", "query", "anchor", "input", "instruction", "content")


def cells(row, most=2):
    words = [name for name in columns if isinstance(row[name], str)]
    first = [name for name in words if name in named]
    chosen = (first + [name for name in words if name not in first])[:most]
    return [row[name] for name in sorted(chosen, key=columns.index)] or [" ".join(str(row[name]) for name in columns)]


def batches(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def skops():
    sio = need("skops.io")
    (file,) = sorted(folder.glob("*.skops"))
    model = sio.load(file, trusted=sio.get_untrusted_types(file=file))
    if all(isinstance(row[columns[0]], str) for row in rows) and not hasattr(model, "feature_names_in_"):
        table = [cells(row, 1)[0] for row in rows]
    else:
        wanted = list(getattr(model, "feature_names_in_", columns))
        table = [[row[name] for name in wanted] for row in rows]
        named = hasattr(model, "feature_names_in_") and importlib.util.find_spec("pandas")
        table = need("pandas").DataFrame(table, columns=wanted) if named else need("numpy").asarray(table)
    found = [value.item() if hasattr(value, "item") else value for value in model.predict(table)]
    scores = [None] * len(found)
    if hasattr(model, "predict_proba"):
        classes = [value.item() if hasattr(value, "item") else value for value in model.classes_]
        scores = [dict(zip(map(str, classes), map(float, one))) for one in model.predict_proba(table)]
    for row, value, score in zip(rows, found, scores):
        yield {"id": row["id"], "prediction": value, **({"scores": score} if score else {})}


def loaded(kind, **options):
    torch, transformers = need("torch"), need("transformers")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(transformers, kind).from_pretrained(args.model, **options).to(device).eval()
    return torch, transformers, model, device


def tokenizer_of(transformers, model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    most = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512) or 512, 4096)
    return tokenizer, int(most)


def classification():
    media = [name for name in columns if str(rows[0][name]).startswith("held_out/") and "/pictures/" in rows[0][name]]
    images = [name for name in media if not rows[0][name].endswith((".wav", ".mp3", ".flac", ".ogg"))]
    if media and not images:
        raise SystemExit("Recordings are not read here: pass a 'script' that knows how.")
    kind = "AutoModelForImageClassification" if images else "AutoModelForSequenceClassification"
    torch, transformers, model, device = loaded(kind)
    names = {int(key): value for key, value in model.config.id2label.items()}
    if images:
        Image = need("PIL.Image")
        processor = transformers.AutoImageProcessor.from_pretrained(args.model)
    else:
        tokenizer, most = tokenizer_of(transformers, model)
    for some in batches(rows, 32):
        if images:
            given = processor([Image.open(row[images[0]]).convert("RGB") for row in some], return_tensors="pt")
        else:
            pair = list(zip(*[cells(row) for row in some]))
            options = {"padding": True, "truncation": True, "max_length": most, "return_tensors": "pt"}
            given = tokenizer(*map(list, pair), **options)
        with torch.no_grad():
            logits = model(**given.to(device)).logits.float().cpu()
        if args.task == "regression":
            for row, value in zip(some, logits[:, 0].tolist()):
                yield {"id": row["id"], "prediction": value}
            continue
        for row, one in zip(some, logits.softmax(-1).tolist()):
            scores = {names[number]: value for number, value in enumerate(one)}
            yield {"id": row["id"], "prediction": max(scores, key=scores.get), "scores": scores}


def tagging():
    torch, transformers, model, device = loaded("AutoModelForTokenClassification")
    tokenizer, most = tokenizer_of(transformers, model)
    if not tokenizer.is_fast:
        raise SystemExit("A fast tokenizer is needed to tell which tag belongs to which word.")
    column = next(name for name in columns if isinstance(rows[0][name], list))
    for row in rows:
        given = tokenizer(row[column], is_split_into_words=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():
            best = model(**given.to(device)).logits[0].argmax(-1).tolist()
        tags = {}
        for place, word in enumerate(given.word_ids(0)):
            if word is not None:
                tags.setdefault(word, model.config.id2label[best[place]])
        yield {"id": row["id"], "prediction": [tags.get(word, "O") for word in range(len(row[column]))]}


def generation():
    transformers = need("transformers")
    adapter = (folder / "adapter_config.json").exists()
    both = not adapter and transformers.AutoConfig.from_pretrained(args.model).is_encoder_decoder
    torch, transformers, model, device = loaded("AutoModelForSeq2SeqLM" if both else "AutoModelForCausalLM")
    tokenizer, most = tokenizer_of(transformers, model)
    for row in rows:
        chat = next((row[name] for name in columns if isinstance(row[name], list)), None)
        text = "\\n".join(cells(row))
        longest = asked.get("tokens") or 256
        options = {"return_tensors": "pt", "truncation": True, "max_length": max(most - longest, 16)}
        if args.asked:  # as it is: its end says most
            text, tokenizer.truncation_side = row["lm_prompt"], "left"
        elif tokenizer.chat_template and not both:
            chat = chat or [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            options["add_special_tokens"] = False
        given = tokenizer(text, **options).to(device)
        given.pop("token_type_ids", None)
        with torch.no_grad():
            options = {"max_new_tokens": longest, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
            made = model.generate(**given, **options)[0]
        made = tokenizer.decode(made if both else made[given["input_ids"].shape[1] :], skip_special_tokens=True)
        for stop in asked.get("until") or []:
            made = made.split(stop)[0]
        yield {"id": row["id"], "prediction": made.strip()}


def multiple_choice():
    """The likeliest choice after the prompt; spaces between the two belong to the choice, as lm-evaluation-harness has it."""
    torch, transformers, model, device = loaded("AutoModelForCausalLM")
    tokenizer, most = tokenizer_of(transformers, model)
    first = [tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id]
    for row in rows:
        before, told = row["lm_prompt"].rstrip(), []
        for choice in row["lm_choices"]:
            start = len(tokenizer(before)["input_ids"]) if before else 0
            ids = tokenizer(row["lm_prompt"] + choice)["input_ids"]
            ids, start = (ids, start) if start else (first + ids, 1)
            cut = max(len(ids) - most, 0)
            ids, start = ids[cut:], max(start - cut, 1)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]).to(device)).logits[0].float().log_softmax(-1)
            told.append(sum([float(logits[place - 1, ids[place]]) for place in range(start, len(ids))]))
        yield {"id": row["id"], "prediction": max(range(len(told)), key=told.__getitem__), "logprobs": told}


def language_modeling():
    torch, transformers, model, device = loaded("AutoModelForCausalLM")
    tokenizer, most = tokenizer_of(transformers, model)
    for row in rows:
        ids = tokenizer(cells(row, 1)[0], truncation=True, max_length=most, return_tensors="pt")["input_ids"].to(device)
        tokens = ids.shape[1] - 1
        nll = 0.0
        if tokens > 0:
            with torch.no_grad():
                nll = float(model(input_ids=ids, labels=ids).loss) * tokens
        read = tokenizer.decode(ids[0], skip_special_tokens=True)
        yield {"id": row["id"], "prediction": "", "nll": nll, "tokens": max(tokens, 0), "characters": len(read)}


def retrieval():
    model = need("sentence_transformers").SentenceTransformer(args.model)
    documents = [json.loads(line) for line in open(args.documents, encoding="utf-8")]
    options = {"normalize_embeddings": True, "convert_to_numpy": True}
    found = model.encode([document["text"] for document in documents], **options)
    for row, query in zip(rows, model.encode([cells(row, 1)[0] for row in rows], **options)):
        ranked = (found @ query).argsort()[::-1][:100]
        yield {"id": row["id"], "prediction": [documents[number]["id"] for number in ranked]}


kinds = {"regression": classification, "token-classification": tagging, "generation": generation}
kinds |= {"language-modeling": language_modeling, "retrieval": retrieval, "multiple-choice": multiple_choice}
make = skops if list(folder.glob("*.skops")) else kinds.get(args.task, classification)
digest = hashlib.sha256()
with open(args.output, "wb") as file:
    for made in make():
        line = (json.dumps(made) + "\\n").encode()
        digest.update(line)
        file.write(line)
print("done", hashlib.sha256(given).hexdigest(), digest.hexdigest())
'''

    # Scoring.

    def _score(
        self, held: str, candidate: dict, baseline: dict, metric: Any, train: Any, base: Any, benchmarks: list
    ) -> dict:
        import hashlib
        import json
        import re

        folder = self._place() / held
        if not re.fullmatch(r"held_[0-9a-f]{12}", held) or not (folder / "meta.json").exists():
            raise ValueError(f"Nothing is held out as {held!r}. Call `prepare` first, and pass its `held_out`.")
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        kept = json.loads((folder / "labels.json").read_text("utf-8"))
        shown = json.loads((folder / "inputs.json").read_text("utf-8"))
        ids, task = meta["ids"], meta["task"]
        truths = [kept[key] for key in ids]
        if metric is None and task == "token-classification" and not [one for one in truths if self._entities(one)]:
            metric = "token_accuracy"  # parts of speech, say: no tag begins an entity
        own: dict[str, Any] = self._own_metric(metric) if str(metric).endswith(".py") else {}
        metric = own["name"] if own else metric or (meta.get("lm_task") or {}).get("metric") or {
            "classification": "accuracy", "regression": "mae", "token-classification": "f1", "generation": "token_f1",
            "language-modeling": "bits_per_character", "retrieval": "ndcg@10", "multiple-choice": "acc",
        }[task]  # fmt: skip
        problems, warnings = [], []
        sides, values = {}, {}
        for role, spec in (("baseline", baseline), ("candidate", candidate)):
            side = self._side(role, spec, meta, truths)
            made = []
            for found in side["sets"]:
                checked = self._checked(found, meta, role)
                answers = self._answers(checked, meta, role, warnings)
                made.append((answers, checked))
            sides[role], values[role] = side, [self._metrics(task, truths, *one) for one in made]
            for number, one in enumerate(values[role] if own else []):
                one[metric] = self._by_own_metric(own, meta, truths, made[number][0], shown)
            side["made"] = made
        known = [name for name in values["candidate"][0] if name in values["baseline"][0]]
        if metric not in known:
            raise ValueError(f"`metric` is one of {', '.join(known)} for these predictions, not {metric!r}.")
        old, new = values["baseline"][0][metric], values["candidate"][0][metric]
        outcome = self._compared(old, new, len(ids))
        self._over_seeds(metric, values, outcome, warnings)
        if own:
            outcome = self._rounded(outcome, 3)
            outcome["difference"]["p_value"] = max(outcome["difference"]["p_value"], 0.001)
        self._suspicious(task, truths, sides, meta, problems, warnings)
        self._tell_size(outcome, len(ids), warnings)
        contaminated, clean = self._contamination(
            meta, shown, sides["candidate"], train, benchmarks, problems, warnings
        )
        self._found_before(meta, sides["candidate"], contaminated, problems)
        if clean is not None and 0 < len(clean) < len(ids):
            contaminated["candidate_without_them"] = self._value(new, clean)
            contaminated["baseline_without_them"] = self._value(old, clean)
        derived = self._provenance(sides["candidate"], base, problems, warnings)
        pushed = sides["candidate"]
        if pushed["folder"] and self._hash(pushed["folder"]) != pushed["weights_sha256"]:
            raise ValueError(
                f"The weights in {pushed['folder']} changed while they were judged. Score again when they are done."
            )
        mark = [[one[0] for one in sides[role]["made"]] for role in ("baseline", "candidate")]
        mark = [held, mark, pushed["weights_sha256"], metric, *([own["sha256"]] if own else [])]
        mark = json.dumps(mark, sort_keys=True, default=str)
        found = "eval_" + hashlib.sha256(mark.encode()).hexdigest()[:12]
        looks = list(dict.fromkeys([*meta["looks"], found]))
        # Another choice of rows of the same split is no new test.
        alike = [other for other in self._siblings(meta) if other["label"] == meta["label"]]
        before = sum([len(other["looks"]) for other in alike])
        told = sum([len(other["shown"]) for other in alike])
        if before + len(looks) > 3:
            warnings.append(
                f"This is candidate number {before + len(looks)} on these rows: the best of many looks better than it is. "
                "Choose on validation data."
            )
        examples, meta["shown"] = self._errors(task, truths, sides, meta, shown, 20 - told)
        meta["looks"] = looks
        self._keep(folder / "meta.json", meta)
        if pushed["by"] == "predictions":
            warnings.append(
                "The candidate's predictions are files that its code wrote: nobody saw which weights made them."
            )
        result = {
            "id": found,
            "held_out": held,
            "task": task,
            "dataset": {
                "id": meta["dataset"], "config": meta["config"], "split": meta["split"], "revision": meta["revision"],
                "label": meta["label"], "rows": meta["total"],
            },
            "n": len(ids),
            "metric": metric,
            "higher_is_better": new["higher"],
            "baseline": self._told(sides["baseline"], values["baseline"], metric, outcome["old"]),
            "candidate": self._told(sides["candidate"], values["candidate"], metric, outcome["new"]),
            "difference": outcome["difference"],
            "better": outcome["better"],
            "metrics": {
                name: {role: self._value(values[role][0][name]) for role in ("baseline", "candidate")} for name in known
            },
            "per_class": self._per_class(task, truths, sides["candidate"]["made"][0][0]),
            "errors": examples,
            "contamination": contaminated,
            "provenance": derived,
            "problems": problems,
            "warnings": warnings,
            "looks": before + looks.index(found) + 1,
            "labels_shown": told + len(meta["shown"]),
            "secrecy": self._secrecy(meta),
            "by": "predictions" if "predictions" in [side["by"] for side in sides.values()] else "harness",
        }  # fmt: skip
        result["pipeline_tag"] = self._pipeline_tag(meta, shown)
        if own:
            self._tell_own_metric(own, result)
        if task == "generation":
            result["tokenisation"] = (
                "Words are runs of letters, marks and digits, without case and, but for BLEU, without punctuation (and "
                "articles, for token_f1 and exact_match); Chinese, Japanese, Thai, Lao, Burmese, Khmer and Tibetan count by "
                "the character. No stemming."
            )
        result.update(self._of_run(sides["candidate"]["folder"], result))
        result["plots"] = self._plots(result, truths, sides) if self.plots is not False else []
        result = self._rounded(result)
        if self.records is not None:
            self.records.add("evaluation", result)
        return result

    def _rounded(self, value: Any, places: int = 6) -> Any:
        """Figures to six places: more say nothing of a model, but may be made to say labels, a bit a digit."""
        if isinstance(value, float):
            return round(value, places) if abs(value) >= 1e-4 or places < 6 else float(f"{value:.3g}")
        if isinstance(value, dict):
            return {key: self._rounded(one, places) for key, one in value.items()}
        return [self._rounded(one, places) for one in value] if isinstance(value, list) else value

    def _pipeline_tag(self, meta: dict, shown: list) -> str:
        """The task by the name that the Hub has for it."""
        fixed = {"token-classification": "token-classification", "generation": "text-generation"}
        fixed |= {"language-modeling": "text-generation", "retrieval": "sentence-similarity"}
        fixed["multiple-choice"] = "text-generation"
        if meta["task"] in fixed:
            return fixed[meta["task"]]
        media = [str(shown[0].get(name)).rsplit(".", 1)[-1] for name in meta.get("pictures") or []]
        if media:
            kind = "audio" if media[0] in ("wav", "mp3", "flac", "ogg") else "image"
        else:
            words = [len(self._text(row, meta["columns"]).split()) for row in shown[:200]]
            kind = "text" if sum(words) >= 4 * len(words) else "tabular"
        return f"{kind}-{meta['task'] if kind == 'tabular' else 'classification'}"

    def _of_run(self, folder: Any, result: dict) -> dict:
        """The run that made the weights, and its script: a copy is kept on the host, for whoever wants to make them again."""
        import hashlib

        above = folder.rpartition("/")[0] or "." if folder else None
        runs = self.records.all("experiment") if self.records is not None and folder else []
        mine = [run for run in runs if run.get("folder") in (folder, above)]
        run: dict = mine[-1] if mine else {}
        told = {"experiment": run.get("id"), "script": None, "run": self._said_of_run(folder)}
        config: dict = run.get("config") or {}
        path, wanted = config.get("script"), config.get("script_sha256")
        if not isinstance(path, str) or not self.workspace.exists(path) or self.workspace.is_dir(path):
            return told
        content = self.workspace.read_bytes(path, 5_000_000)
        if hashlib.sha256(content).hexdigest() != wanted:
            result["warnings"].append(f"{path} is no longer the script that {run['id']} ran: it does not go along.")
            return told
        kept = self._place() / result["held_out"] / result["id"]
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        (kept / "train.py").write_bytes(content)
        return {**told, "script": "train.py"}

    def _told(self, side: dict, values: list, metric: str, interval: dict) -> dict:
        import statistics

        all_of_them = [self._value(one[metric]) for one in values]
        said = {key: side[key] for key in ("name", "folder", "model", "revision", "weights_sha256", "script", "by")}
        said = {**said, "value": all_of_them[0], "interval": interval["interval"], "method": interval["method"]}
        if len(all_of_them) > 1:
            spread = {"mean": statistics.fmean(all_of_them), "std": statistics.stdev(all_of_them)}
            said["seeds"] = {"n": len(all_of_them), **spread, "values": all_of_them}
        return said

    def _checked(self, found: dict, meta: dict, role: str) -> list:
        """The rows in the order of the held-out ones; all of them, and no others."""
        missing = [key for key in meta["ids"] if key not in found]
        extra = len(found) - (len(meta["ids"]) - len(missing))
        if missing or extra:
            raise ValueError(
                f"The {role}'s predictions are not those of {meta['held_out']}: {len(missing)} of {len(meta['ids'])} rows "
                f"are missing, {extra} ids are none of them. Predict every row of its inputs, with its id."
            )
        rows = [found[key] for key in meta["ids"]]
        empty = [row["id"] for row in rows if row.get("prediction") is None]
        if empty:
            raise ValueError(f"The {role}'s rows {empty[:5]} have no `prediction` ({len(empty)} in all).")
        return rows

    def _answers(self, rows: list, meta: dict, role: str, warnings: list) -> list:
        import math

        task, given = meta["task"], [row["prediction"] for row in rows]
        if task == "classification":
            answers = [self._label(value, meta["names"]) for value in given]
            strange = sorted(set(answers) - set(meta["labels"]))
            if len(strange) == len(set(answers)):
                raise ValueError(
                    f"The {role} predicts other labels than the data has: {', '.join(strange[:6])} instead of "
                    f"{', '.join(meta['labels'][:6])}. Map them (id2label in config.json, or in your script)."
                )
            if strange:
                warnings.append(f"The {role} predicts labels that the data does not have: {', '.join(strange[:6])}.")
            if rows[0].get("scores") and self._chances(rows) is None:
                warnings.append(
                    f"The {role}'s `scores` are no probabilities of labels, for every row from 0 to 1 and 1 together: log loss "
                    "and calibration are left out."
                )
            return answers
        if task == "regression":
            numbers = [value for value in given if isinstance(value, int | float) and math.isfinite(value)]
            if len(numbers) < len(given):
                raise ValueError(f"The {role} predicts {len(given) - len(numbers)} values that are no finite numbers.")
            return [float(value) for value in given]
        if task == "token-classification":
            if [value for value in given if not isinstance(value, list)]:
                raise ValueError(f"The {role}'s predictions of token-classification are lists of tags, one a token.")
            return [[self._label(tag, meta["names"]) for tag in value] for value in given]
        if task == "retrieval":
            if [value for value in given if not isinstance(value, list)]:
                raise ValueError(
                    f"The {role}'s predictions of retrieval are lists of ids of documents, the best first."
                )
            return [list(dict.fromkeys([str(one) for one in value])) for value in given]
        if task == "multiple-choice":
            numbers = [int(value) if str(value).isdecimal() and len(str(value)) < 4 else None for value in given]
            if None in numbers:
                raise ValueError(f"The {role}'s predictions of multiple-choice are numbers of `lm_choices`, from 0.")
            return numbers
        return [str(value) for value in given]

    # Metrics. Each is what every row adds to it (`columns` of numbers, or `codes` to count) and what becomes of the sums.

    def _metrics(self, task: str, truths: list, answers: list, rows: list) -> dict:
        from functools import partial

        make = {
            "classification": self._of_classes, "regression": self._of_numbers, "token-classification": self._of_tags,
            "generation": self._of_texts, "language-modeling": self._of_likelihoods, "retrieval": self._of_rankings,
            "multiple-choice": self._of_choices,
        }[task]  # fmt: skip
        found = make(truths, answers, rows)
        for one in found.values():
            one.setdefault("higher", True)
            one.setdefault("final", partial(self._mean))
        return found

    def _mean(self, sums: list, n: int) -> float:
        return sums[0] / n

    def _of_classes(self, truths: list, answers: list, rows: list) -> dict:
        import math

        pairs = list(zip(truths, answers, strict=True))
        found = {"accuracy": {"columns": [[float(truth == answer) for truth, answer in pairs]], "binary": True}}
        found["macro_f1"] = {"codes": pairs, "final": self._macro_f1}
        found["mcc"] = {"codes": pairs, "final": self._mcc}
        scores = self._chances(rows)
        if scores:
            chances = [max(min(one.get(truth, 0.0), 1.0), 1e-12) for one, truth in zip(scores, truths, strict=True)]
            if max(chances) > 1e-12:  # else they go by other names than the labels
                found["log_loss"] = {"columns": [[-math.log(chance) for chance in chances]], "higher": False}
                sure = [max(one.values()) for one in scores]
                bins = [min(int(value * 10), 9) for value in sure]
                flags = [float(truth == answer) for truth, answer in pairs]
                codes = list(zip(bins, sure, flags, strict=True))
                found["calibration_error"] = {"codes": codes, "final": self._calibration, "higher": False}
        return found

    def _chances(self, rows: list) -> list | None:
        """The probabilities that rows give for their labels; `None` where one gives none, or other numbers than that."""
        import math

        found = [row["scores"] for row in rows if isinstance(row.get("scores"), dict) and row["scores"]]
        if len(found) < len(rows):
            return None
        for one in found:
            values = [value for value in one.values() if isinstance(value, int | float) and math.isfinite(value)]
            if len(values) < len(one) or min(values) < 0 or sum(values) > 1.02:
                return None
        return found

    def _of_choices(self, truths: list, answers: list, rows: list) -> dict:
        """As lm-evaluation-harness has them: how often the likeliest is right, as it stands and by the character."""
        import math

        right = [float(truth[0] == answer) for truth, answer in zip(truths, answers, strict=True)]
        found = {"acc": {"columns": [right], "binary": True}}
        told = [row.get("logprobs") for row in rows]
        if not [one for one, truth in zip(told, truths, strict=True) if not self._as_long(one, truth[1:])]:
            by_sign = []
            for one, truth in zip(told, truths, strict=True):
                each = [
                    value / max(len(text), 1) if math.isfinite(value) else -math.inf
                    for value, text in zip(one, truth[1:], strict=True)
                ]
                by_sign.append(float(each.index(max(each)) == truth[0]))
            found["acc_norm"] = {"columns": [by_sign], "binary": True}
        return found

    def _as_long(self, one: Any, choices: list) -> bool:
        """Whether it is a number for each choice."""
        good = isinstance(one, list) and len(one) == len(choices)
        return good and not [value for value in one if not isinstance(value, int | float)]

    # A metric of the agent's own has to see labels: it runs where nothing it does is seen, but for numbers.

    def _own_metric(self, path: Any) -> dict:
        import hashlib
        import re

        if self.jobs is None or not self.workspace.exists(path):
            raise ValueError(
                f"There is no {path} in the workspace, or nothing here to run it alone. Name a metric of this tool, or a file "
                "that defines `score(prediction, references, inputs)`."
            )
        code = self.workspace.read_bytes(path, 1_000_000)
        name = "own_" + re.sub(r"\W+", "_", str(path).rsplit("/", 1)[-1].removesuffix(".py"))[:40]
        return {"name": name, "file": str(path), "code": code, "sha256": hashlib.sha256(code).hexdigest()}

    def _by_own_metric(self, own: dict, meta: dict, truths: list, answers: list, shown: list) -> dict:
        """What its `score` gives each row, as a column. Run without workspace and network; of what it prints, only numbers
        are taken, and of its errors, which it could make of labels, nothing is told."""
        import hashlib
        import json
        import re

        program = """import importlib.util, json, sys
with open(sys.argv[2], encoding="utf-8") as file:
    rows = json.load(file)
spec = importlib.util.spec_from_file_location("metric", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print("\\n@scores", [float(module.score(**row)) for row in rows], flush=True)
"""
        several = meta["task"] in ("generation", "retrieval", "language-modeling")
        rows = [
            {"prediction": answer, "references": truth if several else [truth], "inputs": line}
            for truth, answer, line in zip(truths, answers, shown, strict=True)
        ]
        if meta["task"] == "multiple-choice":
            rows = [{**row, "references": [row["references"][0][0]]} for row in rows]
        given = json.dumps(rows, default=str).encode()
        files = {"metric.py": own["code"], "rows.json": given}
        command = ["python", "-c", program, "{sealed}/metric.py", "{sealed}/rows.json"]
        state, said = self.jobs.alone(files, command, 300)
        last = said.strip().split("\n")[-1]
        scores = []
        if state["state"] == "done" and re.fullmatch(r"@scores \[[0-9eE.,+\- ]*\]", last):
            scores = [float(one) for one in re.findall(r"[^\s,\[\]]+", last[8:]) if re.fullmatch(r"[\d.eE+-]+", one)]
        if len(scores) != len(rows) or [one for one in scores if not 0 <= one <= 1]:
            # Whether it failed says something too: that is a look at the labels as well.
            failed = "failed_" + hashlib.sha256(own["code"] + given).hexdigest()[:12]
            meta["looks"] = list(dict.fromkeys([*meta["looks"], failed]))
            self._keep(self._place() / meta["held_out"] / "meta.json", meta)
            raise ValueError(
                f"{own['file']} gave no number from 0 to 1 for each row within 5 minutes. Why is not told, as it has seen the "
                "labels. Run its `score` in your code on rows of the validation split first, or name a metric of this tool."
            )
        return {"columns": [scores], "higher": True, "final": self._mean}

    def _tell_own_metric(self, own: dict, result: dict) -> None:
        """Says whose the metric is, keeps it beside the pictures, and cuts what it has measured to three digits."""
        for name in ("baseline", "candidate", "difference"):
            result[name] = self._rounded(result[name], 3)
        result["metrics"][own["name"]] = self._rounded(result["metrics"][own["name"]], 3)
        for name in ("candidate_without_them", "baseline_without_them"):
            result["contamination"].pop(name, None)
        result["metric_code"] = {"file": own["file"], "sha256": own["sha256"]}
        result["warnings"].append(
            f"The metric {own['name']} is code of the agent's ({own['file']}, SHA-256 {own['sha256'][:12]}). It saw the labels, "
            "alone in a jail without workspace and network; only figures of three digits came out."
        )
        kept = self._place() / result["held_out"] / result["id"]
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        (kept / "metric.py").write_bytes(own["code"])

    def _counts(self, counts: Any) -> tuple:
        """Labels, and how often each was meant, was said, and was rightly said."""
        labels = sorted({label for pair in counts for label in pair}, key=self._order)
        meant, said, right = dict.fromkeys(labels, 0), dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
        for pair, count in counts.items():
            truth, answer = pair
            meant[truth] += count
            said[answer] += count
            if truth == answer:
                right[truth] += count
        return labels, meant, said, right

    def _order(self, label: str) -> list:
        """Labels by their words and the numbers in them, 2 before 10."""
        import re

        parts = re.split(r"(\d+)", label)
        return [(int(part) if number % 2 else 0, part) for number, part in enumerate(parts)]

    def _macro_f1(self, counts: Any, n: int) -> float:
        labels, meant, said, right = self._counts(counts)
        return sum([2 * right[one] / (meant[one] + said[one]) for one in labels]) / len(labels)

    def _mcc(self, counts: Any, n: int) -> float:
        """Gorodkin's R_K, which is Matthews' coefficient for two classes."""
        labels, meant, said, right = self._counts(counts)
        both = sum([meant[one] * said[one] for one in labels])
        spread = (n * n - sum([value * value for value in said.values()])) * (
            n * n - sum([value * value for value in meant.values()])
        )
        return (sum(right.values()) * n - both) / spread**0.5 if spread > 0 else 0.0

    def _calibration(self, counts: Any, n: int) -> float:
        """Expected calibration error over ten bins of confidence."""
        sums = {}
        for one, count in counts.items():
            place, sure, flag = one
            total = sums.setdefault(place, [0.0, 0.0])
            total[0] += sure * count
            total[1] += flag * count
        return sum([abs(sure - right) for sure, right in sums.values()]) / n

    def _of_numbers(self, truths: list, answers: list, rows: list) -> dict:
        both = list(zip(truths, answers, strict=True))
        wrong = [(answer - truth) for truth, answer in both]
        squares = [value * value for value in wrong]
        # Around their means, or large numbers that lie close together (years, prices) would lose their differences.
        middles = [(some, sum(some) / max(len(some), 1)) for some in (truths, answers)]
        x, y = [[value - middle for value in some] for some, middle in middles]
        products = [x, y, [t * t for t in x], [a * a for a in y], [t * a for t, a in zip(x, y, strict=True)]]
        return {
            "mae": {"columns": [[abs(value) for value in wrong]], "higher": False},
            "rmse": {"columns": [squares], "higher": False, "final": self._root},
            "r2": {"columns": [squares, x, products[2]], "final": self._r2},
            "pearson": {"columns": products, "final": self._pearson},
        }

    def _root(self, sums: list, n: int) -> float:
        return (sums[0] / n) ** 0.5

    def _r2(self, sums: list, n: int) -> float:
        spread = sums[2] - sums[1] * sums[1] / n
        return 1 - sums[0] / spread if spread > 0 else 0.0

    def _pearson(self, sums: list, n: int) -> float:
        x, y, xx, yy, xy = sums
        spread = (xx - x * x / n) * (yy - y * y / n)
        return (xy - x * y / n) / spread**0.5 if spread > 0 else 0.0

    def _of_tags(self, truths: list, answers: list, rows: list) -> dict:
        """Whole entities by their BIO tags, as CoNLL counts them, and single tags."""
        columns = [[], [], [], [], []]
        for truth, answer in zip(truths, answers, strict=True):
            answer = [*answer[: len(truth)], *["O"] * (len(truth) - len(answer))]
            meant, said = self._entities(truth), self._entities(answer)
            same = sum([one == other for one, other in zip(truth, answer, strict=True)])
            for column, value in zip(
                columns, (len(meant & said), len(meant), len(said), same, len(truth)), strict=True
            ):
                column.append(float(value))
        right, meant, said, same, tokens = columns
        return {
            "f1": {"columns": [right, meant, said], "final": self._f1},
            "token_accuracy": {"columns": [same, tokens], "final": self._ratio},
        }

    def _entities(self, tags: list) -> set:
        found, start, kind = set(), None, None
        for place, tag in enumerate([*tags, "O"]):
            mark, _, name = tag.partition("-")
            mark = {"U": "S", "L": "E"}.get(mark, mark) if name else mark  # BILOU says it so
            if start is not None and (mark in ("B", "O", "S") or name != kind):
                found.add((start, place, kind))
                start = None
            if mark in ("B", "I", "S", "E") and start is None:
                start, kind = place, name
        return found

    def _f1(self, sums: list, n: int) -> float:
        return 2 * sums[0] / (sums[1] + sums[2]) if sums[1] + sums[2] else 0.0

    def _ratio(self, sums: list, n: int) -> float:
        return sums[0] / sums[1] if sums[1] else 0.0

    def _of_texts(self, truths: list, answers: list, rows: list) -> dict:
        """Of several references the best counts, for each metric by itself; BLEU takes the first."""
        pairs = list(zip(truths, answers, strict=True))
        exact = [float(max([self._same(one, answer) for one in truth])) for truth, answer in pairs]
        found = {"exact_match": {"columns": [exact], "binary": True}}
        for name, score in (("token_f1", self._token_f1), ("rouge_l", self._rouge_l), ("chrf", self._chrf)):
            found[name] = {"columns": [[max([score(one, answer) for one in truth]) for truth, answer in pairs]]}
        columns = [self._bleu_counts(truth[0], answer) for truth, answer in pairs]
        found["bleu"] = {"columns": [list(column) for column in zip(*columns, strict=True)], "final": self._bleu}
        return found

    def _units(self, text: str, signs: bool = False) -> list:
        """Words of a text of any script, with `signs` its punctuation as well.

        A word is a run of letters, their marks, digits and `_`. Scripts that put no spaces between words (Chinese, Japanese
        kana, Thai, Lao, Burmese, Khmer, Tibetan) count by the character, as sacreBLEU and CMRC do for Chinese.
        """
        import re

        if text.isascii():
            return re.findall(r"\w+|[^\w\s]" if signs else r"\w+", text)
        return self._forms()["signs" if signs else "words"].findall(text)

    def _forms(self) -> dict:
        """What words and signs are in any script. `\\w` leaves out the marks that write the vowels of many."""
        import re
        import unicodedata

        if self._scripts is None:
            marks = [chr(n) for n in range(0x300, 0x1F000) if unicodedata.category(chr(n)).startswith("M")]
            marks = re.escape("".join(marks))
            alone = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
            alone += "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
            words = rf"(?=[{alone}])\w[{marks}]*|(?:(?![{alone}])[\w{marks}])+"
            kinds = {"words": words, "signs": rf"{words}|[^\w\s]", "no_words": rf"[^\w\s{marks}]"}
            self._scripts = {name: re.compile(kind) for name, kind in kinds.items()}
        return self._scripts

    def _words(self, text: str) -> list:
        """Words without case, punctuation and other ways to write the same character."""
        import unicodedata

        plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
        return self._units(plain.casefold().replace("_", " "))

    def _plain(self, text: str) -> str:
        """As SQuAD compares answers: without case, punctuation and articles."""
        import re
        import unicodedata

        text = unicodedata.normalize("NFKC", text).casefold()
        text = re.sub(r"[^\w\s]", "", text) if text.isascii() else self._forms()["no_words"].sub("", text)
        return " ".join([word for word in self._units(text) if word not in ("a", "an", "the")])

    def _same(self, truth: str, answer: str) -> bool:
        """Whether two answers are the same as SQuAD compares them, and their numbers and signs as well: 1.5 is not 15, -5 not
        5, C++ not C."""
        return self._plain(truth) == self._plain(answer) and self._numerals(truth) == self._numerals(answer)

    def _numerals(self, text: str) -> list:
        """Numbers with their sign and point (no commas between thousands), names that end in signs, comparisons."""
        import re
        import unicodedata

        text = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
        text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
        return re.findall(r"(?<!\w)-?(?:\d+(?:[.,:/]\d+)*|\.\d+)|[^\W\d]+[+#]+|[<>=]+", text)

    def _token_f1(self, truth: str, answer: str) -> float:
        from collections import Counter

        meant, said = self._plain(truth).split(), self._plain(answer).split()
        if not meant or not said:
            return float(meant == said)
        both = sum((Counter(meant) & Counter(said)).values())
        return 2 * both / (len(meant) + len(said))

    def _rouge_l(self, truth: str, answer: str) -> float:
        """F1 of the longest common subsequence of words (Lin, 2004), without stemming; the first 1,000 words."""
        meant, said = self._words(truth)[:1000], self._words(answer)[:1000]
        if not meant or not said:
            return 0.0
        line = [0] * (len(said) + 1)
        for word in meant:
            above = 0
            for place, other in enumerate(said, 1):
                above, line[place] = line[place], above + 1 if word == other else max(line[place], line[place - 1])
        return 2 * line[-1] / (len(meant) + len(said))

    def _chrf(self, truth: str, answer: str) -> float:
        """chrF (Popovic, 2015) of a sentence, 0 to 1: characters, n from 1 to 6, recall weighed twice."""
        import unicodedata
        from collections import Counter

        meant, said = ["".join(unicodedata.normalize("NFC", text).split()) for text in (truth, answer)]
        scores = []
        for n in range(1, 7):
            counts = [Counter([text[i : i + n] for i in range(len(text) - n + 1)]) for text in (meant, said)]
            sizes = [sum(count.values()) for count in counts]
            if all(sizes):
                both = sum((counts[0] & counts[1]).values())
                scores.append((both / sizes[1], both / sizes[0]))
        if not scores:
            return 0.0
        precision, recall = [sum(column) / len(scores) for column in zip(*scores, strict=True)]
        return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0

    def _bleu_counts(self, truth: str, answer: str) -> list:
        import unicodedata
        from collections import Counter

        meant, said = [self._units(unicodedata.normalize("NFC", text), True) for text in (truth, answer)]
        row = [len(said), len(meant)]
        for n in range(1, 5):
            counts = [Counter([tuple(words[i : i + n]) for i in range(len(words) - n + 1)]) for words in (meant, said)]
            row += [sum((counts[0] & counts[1]).values()), sum(counts[1].values())]
        return row

    def _bleu(self, sums: list, n: int) -> float:
        """Corpus BLEU-4 (Papineni and others, 2002), 0 to 1, words and punctuation apart; no match counts half as much
        as the one before, as sacreBLEU's `exp` smoothing has it."""
        import math

        said, meant, half, total = sums[0], sums[1], 1.0, 0.0
        for order in range(4):
            right, all_of_them = sums[2 + 2 * order : 4 + 2 * order]
            if not all_of_them:
                return 0.0
            if not right:
                half /= 2
            total += math.log((right or half) / all_of_them) / 4
        return math.exp(total + min(0.0, 1 - meant / said)) if sums[2] else 0.0

    def _of_likelihoods(self, truths: list, answers: list, rows: list) -> dict:
        """What a job said of its own model: perplexity a token, and bits a character, which tokenizers cannot change."""
        import math

        try:
            columns = [[float(row[name]) for row in rows] for name in ("nll", "tokens", "characters")]
        except (KeyError, TypeError, ValueError):
            raise ValueError("A row of language-modeling needs `nll` (nats), `tokens` and `characters`.") from None
        if [value for column in columns for value in column if not (math.isfinite(value) and value >= 0)]:
            raise ValueError("`nll`, `tokens` and `characters` are finite and not below 0.")
        nll, tokens, characters = columns
        long = [len(truth[0]) for truth in truths]
        if sum(characters) > 1.1 * sum(long):
            raise ValueError("The predictions count more `characters` than the rows have.")
        return {
            "bits_per_character": {"columns": [nll, characters], "final": self._bits, "higher": False},
            "perplexity": {"columns": [nll, tokens], "final": self._perplexity, "higher": False},
        }

    def _bits(self, sums: list, n: int) -> float:
        import math

        return sums[0] / math.log(2) / sums[1] if sums[1] else 0.0

    def _perplexity(self, sums: list, n: int) -> float:
        import math

        return math.exp(min(sums[0] / sums[1], 700)) if sums[1] else 0.0

    def _of_rankings(self, truths: list, answers: list, rows: list) -> dict:
        import math

        found = {name: [] for name in ("ndcg@10", "mrr", "recall@1", "recall@5", "recall@10")}
        for truth, answer in zip(truths, answers, strict=True):
            places = [place for place, one in enumerate(answer, 1) if one in truth]
            for most in (1, 5, 10):
                found[f"recall@{most}"].append(len([place for place in places if place <= most]) / len(set(truth)))
            found["mrr"].append(1 / places[0] if places else 0.0)
            gained = sum([1 / math.log2(place + 1) for place in places if place <= 10])
            best = sum([1 / math.log2(place + 2) for place in range(min(10, len(set(truth))))])
            found["ndcg@10"].append(gained / best)
        made = {name: {"columns": [values]} for name, values in found.items()}
        binary = [name for name, values in found.items() if set(values) <= {0.0, 1.0}]
        return {name: {**one, "binary": name in binary} for name, one in made.items()}

    # How sure.

    def _value(self, metric: dict, places: Any = None) -> float:
        from collections import Counter

        if "codes" in metric:
            codes = metric["codes"]
            picked = codes if places is None else [codes[place] for place in places]
            return metric["final"](Counter(picked), len(picked))
        columns = metric["columns"]
        if places is None:
            return metric["final"]([sum(column) for column in columns], len(columns[0]))
        return metric["final"]([sum(map(column.__getitem__, places)) for column in columns], len(places))

    def _compared(self, old: dict, new: dict, n: int) -> dict:
        """Both values with 95 % intervals, their difference, and how likely chance alone is to make it.

        Right or wrong: exact intervals (Clopper and Pearson, 1934) and McNemar's exact test on the rows where the two differ.
        Else, and for the difference: percentiles of a paired bootstrap, whose resamples are the same for both.
        """
        import random
        import statistics

        values = [self._value(old), self._value(new)]
        resamples = max(200, min(1000, 2_000_000 // n))
        generator, rows = random.Random(0), range(n)
        drawn = []
        for _ in range(resamples):
            places = generator.choices(rows, k=n)
            drawn.append((self._value(old, places), self._value(new, places)))
        gains = sorted([second - first for first, second in drawn])
        low, high = int(0.025 * resamples), min(int(0.975 * resamples), resamples - 1)
        binary = bool(old.get("binary") and new.get("binary"))
        told = []
        for place, metric in enumerate((old, new)):
            value = values[place]
            if metric.get("binary"):
                interval = self._exact(round(sum(metric["columns"][0])), n)
                told.append({"interval": interval, "method": "exact (Clopper-Pearson), 95 %"})
            else:
                ordered = sorted([pair[place] for pair in drawn])
                interval = [min(ordered[low], value), max(ordered[high], value)]
                told.append({"interval": interval, "method": f"bootstrap of {resamples} resamples, 95 %"})
        gain = values[1] - values[0]
        if binary:
            pairs = list(zip(old["columns"][0], new["columns"][0], strict=True))
            only_old = len([pair for pair in pairs if pair[0] > pair[1]])
            only_new = len([pair for pair in pairs if pair[0] < pair[1]])
            p_value, test = self._mcnemar(only_old, only_new), "McNemar, exact, two-sided"
            counted = {"right_only_by_candidate": only_new, "right_only_by_baseline": only_old}
        else:
            below, above = len([x for x in gains if x <= 0]), len([x for x in gains if x >= 0])
            p_value = min(1.0, 2 * (min(below, above) + 1) / (resamples + 1))
            test, counted = f"paired bootstrap of {resamples} resamples, two-sided", {}
            if n <= 50:  # of few rows resamples are too alike
                p_value = max(p_value, self._swapped(old, new, gain, n))
                test += ", and the two sides of each row swapped at random"
        difference = {
            "value": gain,
            "interval": [gains[low], gains[high]],
            "p_value": p_value,
            "test": test,
            **counted,
        }
        difference["spread"] = statistics.pstdev(gains)
        better = (gain > 0 if new["higher"] else gain < 0) and p_value < 0.05
        return {"old": told[0], "new": told[1], "difference": difference, "better": better}

    def _swapped(self, old: dict, new: dict, gain: float, n: int) -> float:
        """How likely it is that chance alone makes such a difference, where which side a row's answer is of does not matter."""
        import random

        generator, beyond = random.Random(1), 0
        for _ in range(1000):
            turned = [generator.random() < 0.5 for _ in range(n)]
            sides = [self._value(self._mixed(*pair, turned)) for pair in ((old, new), (new, old))]
            beyond += abs(sides[1] - sides[0]) >= abs(gain) - 1e-12
        return (beyond + 1) / 1001

    def _mixed(self, one: dict, other: dict, turned: list) -> dict:
        """A metric of one side, with the other one's rows where they are turned."""
        mixed = dict(one)
        for name in ("columns", "codes"):
            if name in one:
                mine, theirs = ([one[name]], [other[name]]) if name == "codes" else (one[name], other[name])
                made = [
                    [second if turn else first for first, second, turn in zip(*pair, turned, strict=True)]
                    for pair in zip(mine, theirs, strict=True)
                ]
                mixed[name] = made[0] if name == "codes" else made
        return mixed

    def _over_seeds(self, metric: str, values: dict, outcome: dict, warnings: list) -> None:
        """Where several seeds were run the first one of each side is compared: which it is must not decide."""
        import statistics

        runs = {role: [self._value(one[metric]) for one in found] for role, found in values.items()}
        up = bool(values["candidate"][0][metric]["higher"])
        for role, best in (("candidate", max if up else min), ("baseline", min if up else max)):
            if len(runs[role]) > 1 and len(set(runs[role])) > 1 and runs[role][0] == best(runs[role]):
                which = "best" if role == "candidate" else "worst"
                warnings.append(
                    f"The {role}'s first seed, which is compared, is the {which} of its {len(runs[role])}: see the mean of them."
                )
        gain = statistics.fmean(runs["candidate"]) - statistics.fmean(runs["baseline"])
        if outcome["better"] and (gain <= 0 if up else gain >= 0):
            outcome["better"] = False
            warnings.append(f"In the mean of the seeds the candidate is not better ({gain:+.3f}).")

    def _exact(self, right: int, n: int) -> list:
        """Clopper and Pearson's interval, by halving."""
        low = 0.0 if right == 0 else self._halved(right - 1, n, 0.975)
        high = 1.0 if right == n else self._halved(right, n, 0.025)
        return [low, high]

    def _halved(self, right: int, n: int, share: float) -> float:
        """The probability at which `right` or fewer of `n` come up with a chance of `share`."""
        low, high = 0.0, 1.0
        for _ in range(45):
            middle = (low + high) / 2
            low, high = (middle, high) if self._at_most(right, n, middle) > share else (low, middle)
        return (low + high) / 2

    def _at_most(self, right: int, n: int, chance: float) -> float:
        import math

        if not 0 < chance < 1:
            return float(chance <= 0)
        if right > n / 2:  # fewer terms from the other end
            return 1 - self._at_most(n - right - 1, n, 1 - chance)
        yes, no, whole = math.log(chance), math.log1p(-chance), math.lgamma(n + 1)
        terms = [
            whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * yes + (n - k) * no for k in range(right + 1)
        ]
        return min(1.0, math.fsum([math.exp(term) for term in terms]))

    def _mcnemar(self, first: int, second: int) -> float:
        import math

        n = first + second
        if n > 500:  # by logarithms: the whole numbers would have thousands of digits
            return min(1.0, 2 * self._at_most(min(first, second), n, 0.5))
        return min(1.0, 2 * sum([math.comb(n, k) for k in range(min(first, second) + 1)]) / 2**n) if n else 1.0

    def _tell_size(self, outcome: dict, n: int, warnings: list) -> None:
        """What these rows can tell: a true difference that is found four times out of five."""
        difference = outcome["difference"]
        detectable = 2.8 * difference.pop("spread")
        difference["detectable"] = detectable
        gain = abs(difference["value"])
        if difference["p_value"] >= 0.05 and 0 < gain < detectable:
            wanted = round(n * (detectable / gain) ** 2)
            warnings.append(
                f"{n} rows are too few to tell a difference of {gain:.3g}: they find one of {detectable:.3g} four times "
                f"out of five. About {wanted:,} rows would do, if it is real."
            )
        elif n < 50:
            warnings.append(f"{n} rows tell little: see the intervals.")

    def _suspicious(self, task: str, truths: list, sides: dict, meta: dict, problems: list, warnings: list) -> None:
        """Predictions that are all the same, and labels that are another's."""
        from collections import Counter

        answers = sides["candidate"]["made"][0][0]
        first = answers[0]
        constant = not [one for one in answers if one != first]
        if constant and [one for one in truths if one != truths[0]] and task != "language-modeling":
            problems.append(f"The candidate predicts the same for every row ({str(first)[:60]}).")
        if task != "classification":
            return
        counts = Counter(zip(truths, answers, strict=True))
        right = sum([counts[label, label] for label in meta["labels"]])
        taken, mapped = {}, 0
        for count, truth, answer in sorted([(-counts[pair], *pair) for pair in counts]):
            if answer not in taken and truth not in taken.values():
                taken[answer] = truth
                mapped -= count
        moved = [f"{answer} for {truth}" for answer, truth in sorted(taken.items()) if answer != truth]
        n, classes = len(truths), max(len(meta["labels"]), 2)
        # Far better under other names than as it is, and than guessing: no model is that wrong by itself.
        if moved and mapped - right > 0.2 * n and mapped > (1 + 0.5 * (classes - 1)) / classes * n:
            problems.append(
                f"The labels seem to be mapped wrongly: {right / n:.1%} are right as they stand, {mapped / n:.1%} would be "
                f"with {', '.join(moved[:8])}. Compare id2label of the model with the names of the data."
            )

    def _per_class(self, task: str, truths: list, answers: list) -> dict:
        from collections import Counter

        if task == "token-classification":
            tags = [self._entities(truth) for truth in truths], [self._entities(answer) for answer in answers]
            kinds = sorted({kind for found in tags for one in found for *_, kind in one})
            counts = {}
            for kind in kinds:
                meant, said = [[{one for one in row if one[2] == kind} for row in found] for found in tags]
                right = sum([len(one & other) for one, other in zip(meant, said, strict=True)])
                counts[kind] = (right, sum(map(len, meant)), sum(map(len, said)))
        elif task == "classification":
            labels, meant, said, right = self._counts(Counter(zip(truths, answers, strict=True)))
            counts = {label: (right[label], meant[label], said[label]) for label in labels[:200]}
        else:
            return {}
        return {
            label: {
                "precision": round(right / said, 4) if said else None,
                "recall": round(right / meant, 4) if meant else None,
                "f1": round(2 * right / (meant + said), 4) if meant + said else None,
                "n": meant,
            }
            for label, right, meant, said in [(label, *counts[label]) for label in counts]
        }

    def _errors(self, task: str, truths: list, sides: dict, meta: dict, shown: list, most: int) -> tuple:
        """Up to five rows that the candidate gets wrong; in all, however often it is asked, `most` rows of a held-out set."""
        answers = sides["candidate"]["made"][0][0]
        worth = []
        for place, answer in enumerate(answers):
            truth = truths[place]
            if task == "regression":
                worth.append((-abs(answer - truth), place))
            elif task == "generation":
                worth.append((max([self._token_f1(one, answer) for one in truth]), place))
            elif task == "multiple-choice":
                worth.append((float(truth[0] == answer), place))
            elif task == "retrieval":
                worth.append((float(bool(answer) and answer[0] in truth), place))
            elif task != "language-modeling":
                worth.append((float(truth == answer), place))
        wrong = [place for score, place in sorted(worth) if score < 1 and (task != "regression" or score < 0)]
        known, found = list(meta["shown"]), []
        before = [place for place in wrong if meta["ids"][place] in known]
        for place in before + [place for place in wrong if place not in before]:  # those that were shown first
            key = meta["ids"][place]
            if len(found) == 5 or (key not in known and len(known) >= most):
                break
            known = known if key in known else [*known, key]
            given = {name: shown[place].get(name) for name in meta["columns"]}
            text = " | ".join([f"{name}: {value}" for name, value in given.items()])
            truth, answer = truths[place], answers[place]
            truth = truth[0] if task == "generation" else truth
            if task == "multiple-choice":
                truth, answer = truth[1 + truth[0]], [*truth[1:], str(answer)][min(answer, len(truth) - 1)]
            truth, answer = [one[:300] if isinstance(one, str | list) else one for one in (truth, answer)]
            found.append({"id": key, "input": text[:300], "truth": truth, "prediction": answer})
        return found, known

    # Whether the model has seen these rows.

    def _contamination(
        self, meta: dict, shown: list, side: dict, train: Any, benchmarks: list, problems: list, warnings: list
    ) -> tuple:
        """What of the held-out rows, and of named test sets, is in the training rows; and the rows that are not."""
        import json

        specs, unread = list(train or []), []
        run = self._run_config(side["folder"])
        splits: dict = run.get("splits") or {}
        if run.get("dataset"):  # whatever else is named: what the run itself says comes along
            own = {
                "dataset": run["dataset"],
                "config": run.get("dataset_config"),
                "split": splits.get("train") or "train",
            }
            specs.append({**own, "revision": run.get("dataset_revision")})
        rows, partly, known = [], [], set()
        for spec in specs:
            try:
                more = self._rows_of(spec, 100_000, partly)
            except (OSError, ValueError, RuntimeError) as error:
                unread.append(f"{self._named(spec)}: {str(error)[:200]}")
                continue
            keys = [hash(json.dumps(row, sort_keys=True, default=str)) for row in more]
            rows += [row for row, key in zip(more, keys, strict=True) if key not in known]
            known |= set(keys)
        told = {
            "benchmarks": {self._named(spec): self._of_benchmark(spec, rows, shown, warnings) for spec in benchmarks}
        }
        if not rows:
            why = "; ".join(unread) or "no training rows are known: pass `train`"
            warnings.append(f"Whether training rows overlap with these was not checked ({why}).")
            return {**told, "checked": False, "why": why}, None
        pictures = meta.get("pictures") or {}
        compared = [name for name in meta["columns"] if name not in pictures]
        if compared:
            found, seen, shared = self._overlap({"rows": shown, "columns": compared}, rows)
        else:
            found, seen, shared = self._same_files(pictures, rows)
            if not seen:
                why = "pictures and recordings are compared only where those of the training rows are files here"
                warnings.append(f"Whether training rows overlap with these was not checked ({why}).")
                return {**told, "checked": False, "why": why}, None
            warnings.append(
                "Pictures and recordings were compared byte by byte: near-duplicates of them were not checked."
            )
        bad = set().union(*found.values())
        told.update({"checked": True, "train_rows": len(rows), "train_rows_compared": seen, "compared_on": shared})
        told.update({name: len(places) for name, places in found.items()})
        told.update({"rows": len(bad), "share": len(bad) / len(shown), "unread": unread})
        told["ids"] = [meta["ids"][place] for place in sorted(bad)[:5]]
        if unread:
            warnings.append(f"Some training rows could not be read, so they were not compared: {'; '.join(unread)}.")
        if partly:
            told["partly_read"] = partly
            warnings.append(
                f"Only a part of {', '.join(partly)} was read ({len(rows):,} training rows in all): overlap with the rest "
                "was not checked."
            )
        if seen < len(rows):
            warnings.append(
                f"Only {seen:,} of {len(rows):,} training rows, drawn by chance, were looked at for what is nearly the same as "
                "held-out rows, for want of time: near-duplicates in the others were not checked."
            )
        if not shared:
            told.update({"checked": False, "why": "the training rows have none of the columns of the held-out ones"})
            warnings.append(f"Whether training rows overlap with these was not checked ({told['why']}).")
        parts = [f"{len(places)} {name}" for name, places in found.items() if places]
        if len(bad) > 0.01 * len(shown):
            problems.append(
                f"{len(bad)} of {len(shown)} held-out rows are in the training rows ({', '.join(parts)}). "
                "Take them out of the training rows and train again, or hold out others."
            )
        elif bad:
            warnings.append(f"{len(bad)} of {len(shown)} held-out rows are in the training rows ({', '.join(parts)}).")
        return told, sorted(set(range(len(shown))) - bad)

    def _found_before(self, meta: dict, side: dict, told: dict, problems: list) -> None:
        """What an earlier look at the same weights found of the held-out rows in the training rows: it does not go away by
        comparing with other training rows, or by holding out others of the split and comparing with none."""
        weights = str(side["weights_sha256"] or side["folder"] or "")
        if not weights:
            return
        known, found = meta.setdefault("overlaps", {}), told.get("rows") or 0
        shares = [known.get(weights, 0)]
        known[weights] = max(shares[0], found / len(meta["ids"]))
        if not told["checked"]:
            shares += [other.get("overlaps", {}).get(weights, 0) for other in self._siblings(meta)]
        if max(shares) > max(0.01, found / len(meta["ids"])):
            problems.append(
                f"{max(shares):.1%} of the held-out rows of {meta['split']} were in the training rows of these weights when they "
                "were scored before. Take them out of the training rows and train again, or hold out others."
            )

    def _same_files(self, pictures: dict, rows: list) -> tuple:
        """As `_overlap`, of pictures and recordings: those that are training rows' to the last byte."""
        import hashlib

        mine, seen = {}, 0
        for column in pictures.values():
            for place, digest in enumerate(column):
                mine.setdefault(digest, set()).add(place)
        found = {"exact": set(), "normalised": set(), "near": set(), "in_pieces": set()}
        for row in rows:
            for cell in row.values():
                if isinstance(cell, dict) and "@file" in cell and self.workspace.exists(cell["@file"]):
                    with self.workspace.open_read(cell["@file"]) as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                elif isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
                    digest = hashlib.sha256(cell["bytes"]).hexdigest()
                else:
                    continue
                seen += 1
                found["exact"] |= mine.get(digest, set())
        return found, seen, list(pictures)

    def _of_benchmark(self, spec: Any, rows: list, shown: list, warnings: list) -> dict:
        """How many rows of a test set that has a name are among the training rows, and among those held out here."""
        try:
            there = self._rows_of(spec, 2_000)
        except (OSError, ValueError, RuntimeError) as error:
            return {"checked": False, "why": str(error)[:200]}
        texts = [{"text": max([self._flat(value) for value in row.values()], key=len)} for row in there]
        told = {"checked": True, "n": len(there)}
        for name, others in (("rows", rows), ("held_out_rows", shown)):
            flat = [{"text": self._flat(row)} for row in others]
            found, _, _ = self._overlap({"rows": texts, "columns": ["text"]}, flat, any_text=True)
            told[name] = len(set().union(*found.values()))
            if name == "rows":
                told.update({kind: len(places) for kind, places in found.items()})
        if told["rows"]:
            warnings.append(f"{told['rows']} of {len(there)} rows of {self._named(spec)} are in the training rows.")
        return told

    def _run_config(self, folder: Any) -> dict:
        """What a run says of itself: config.json of the folder above the weights, or of the folder itself."""
        import json

        for place in [folder.rpartition("/")[0] or ".", folder] if folder else []:
            try:
                found = json.loads(self.workspace.read_bytes(f"{place}/config.json", 5_000_000))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict) and "hyperparameters" in found:
                return found
        return {}

    def _said_of_run(self, folder: Any) -> dict:
        """What its script wrote down of itself, for a card: short, and no more than that."""
        import json

        config = self._run_config(folder)
        above = folder.rpartition("/")[0] or "." if folder else "."
        ended = (self._json_here(f"{above}/result.json") or {}) if config else {}
        wanted = (
            "name",
            "method",
            "task",
            "base_model",
            "base_revision",
            "dataset",
            "dataset_config",
            "dataset_revision",
        )
        wanted += ("splits", "validation_share", "hyperparameters", "seed", "versions")
        told = {name: config[name] for name in wanted if config.get(name) is not None}
        told.update(
            {name: ended[name] for name in ("seconds", "steps", "peak_memory_gb") if ended.get(name) is not None}
        )
        return {name: value for name, value in told.items() if len(json.dumps(value, default=str)) <= 4_000}

    def _named(self, spec: Any) -> str:
        if isinstance(spec, dict):
            return ":".join([str(spec[name]) for name in ("dataset", "config", "split") if spec.get(name)])
        return str(spec)

    def _rows_of(self, spec: Any, most: int, partly: list | None = None) -> list:
        """Rows of a file here, of {'dataset', 'config', 'split', 'revision'}, or of 'owner/name:config:split'.

        Data that was not read to its end is named in `partly`.
        """
        if isinstance(spec, str) and self.workspace.exists(spec):
            spec = {"dataset": spec}
        if isinstance(spec, str):
            parts = spec.split(":")
            spec = {"dataset": parts[0], "split": parts[-1] if len(parts) > 1 else "train"}
            spec["config"] = parts[1] if len(parts) > 2 else None
        if not isinstance(spec, dict) or not spec.get("dataset"):
            raise ValueError(f"{spec!r} names no rows: give a file here, or 'owner/name:split'.")
        split = spec.get("split")
        if isinstance(split, list):
            return [row for one in split for row in self._rows_of({**spec, "split": one}, most, partly)]
        if (
            isinstance(split, str) and "." in split and self.workspace.exists(split)
        ):  # files that a run names as its split
            spec = {"dataset": split}
        revision = spec.get("revision")
        found = self._rows(spec["dataset"], spec.get("config"), spec.get("split") or "train", revision, most)
        if found.get("partly") and partly is not None:
            partly.append(self._named(spec))
        return found["rows"]

    def _flat(self, value: Any) -> str:
        """All text in a value: of a message list its contents, of a row its texts."""
        if isinstance(value, dict):
            return " ".join([self._flat(value[name]) for name in value if name not in ("role", "id")])
        if isinstance(value, list):
            return " ".join([self._flat(one) for one in value])
        return value if isinstance(value, str) else ""

    def _text(self, row: dict, columns: list) -> str:
        texts = [self._flat(row.get(name)).strip() for name in columns]
        return " ".join([text for text in texts if text])

    def _rest(self, row: dict, columns: list, figures: int = 6) -> str:
        """What is no text of its own in a row: numbers to so many figures, names of categories."""
        values = [row.get(name) for name in columns]
        short = [
            f"{one:.{figures}g}" if isinstance(one, int | float) else " ".join(self._words(str(one))) for one in values
        ]
        return "|".join(short)

    def _shingles(self, plain: str) -> set:
        """Hashes of all runs of five bytes; of less than 25 bytes none."""
        import zlib

        data = plain.encode()[:20_000] if len(plain.encode()) >= 25 else b""
        return {zlib.crc32(data[i : i + 5]) for i in range(len(data) - 4)}

    def _grams(self, words: list, n: int) -> set:
        words = words[:5_000]
        return {hash(" ".join(words[i : i + n])) for i in range(len(words) - n + 1)}

    def _own(self, rows: list, columns: list) -> tuple:
        """Columns of texts, and of numbers, that are mostly different from row to row: those that a row is known by; and the
        others, but for such as only count the rows.

        Names of categories are no texts, however long: that two rows have the same is no leak.
        """
        texts, numbers, rest = [], [], []
        for name in columns:
            flat = [self._flat(row.get(name)).strip() for row in rows]
            given = [text for text in flat if text]
            measured = [row[name] for row in rows if isinstance(row.get(name), int | float)]
            if given and (len(set(given)) > 0.2 * len(given) or len(given) < 20):
                texts.append(name)
                continue
            rest.append(name)
            if len(measured) > 0.9 * len(rows) and len(set(measured)) > 0.2 * len(measured):
                numbers.append(name)
        whole = [name for name in numbers if len({row.get(name) for row in rows}) == len(rows) > 20]
        counting = [name for name in whole if not [row for row in rows if not isinstance(row.get(name), int)]]
        return texts, numbers, [name for name in rest if not texts or name not in counting]

    def _index(self, rows: list, texts: list, rest: list, numbers: list) -> dict:
        """Held-out rows, to be found by what a training row may share with them.

        What every fifth row has, as the words of a prompt around each, says nothing: `usual`.
        """
        from collections import Counter

        found = {name: {} for name in ("exact", "normal", "sketch", "grams", "heads", "bands")}
        words = [self._words(self._text(row, texts)) for row in rows]
        shingles = [self._shingles(" ".join(one)) for one in words]
        runs = [self._grams(one, 13) for one in words]
        counts = Counter([one for some in shingles + runs for one in some])
        usual = {one for one, count in counts.items() if count > max(0.2 * len(rows), 10)}
        shingles, runs = [one - usual for one in shingles], [one - usual for one in runs]
        for place, row in enumerate(rows):
            text, plain = self._text(row, texts), " ".join(words[place])
            keys: list = [("exact", (text, self._whole(row, rest))), ("normal", (plain, self._rest(row, rest)))]
            keys += [("sketch", one) for one in self._sketch(shingles[place], counts)]
            keys += [("grams", one) for one in runs[place]]
            # Too short for runs of 13 words: whether all of it stands in a longer one.
            short = len(plain.encode()) >= 25 and 4 <= len(words[place]) < 13
            keys += [("heads", hash(" ".join(words[place][:4])))] if short else []
            keys += [("bands", band) for band in self._bands(row, numbers)] if not text else []
            for name, key in keys:
                found[name].setdefault(key, set()).add(place)
        return {
            **found,
            "words": words,
            "shingles": shingles,
            "sizes": list(map(len, runs)),
            "usual": usual,
            "counts": counts,
        }

    def _sketch(self, shingles: set, counts: Any) -> list:
        """The 16 hashes by which a text is looked up: those that the fewest held-out rows have, in an order of their own."""
        rare = sorted([(counts[one], one) for one in shingles if one in counts])[:16]
        return [one for _, one in rare]

    def _bands(self, row: dict, numbers: list) -> list:
        """Four parts of a row of numbers, to three figures: rows that differ here and there, or a little, share one."""
        if len(numbers) < 4:
            return []
        size = len(numbers) / 4
        parts = [numbers[round(part * size) : round((part + 1) * size)] for part in range(4)]
        return [(part, self._rest(row, names, 3)) for part, names in enumerate(parts)]

    def _close(self, row: dict, other: dict, numbers: list) -> bool:
        """Whether nine numbers of ten are the same but for a hundredth."""
        pairs: list = [(row.get(name), other.get(name)) for name in numbers]
        pairs = [pair for pair in pairs if isinstance(pair[0], int | float) and isinstance(pair[1], int | float)]
        near = [pair for pair in pairs if abs(pair[0] - pair[1]) <= 0.01 * max(abs(pair[0]), abs(pair[1]))]
        return len(near) >= 0.9 * len(numbers)

    def _whole(self, row: dict, columns: list) -> str:
        return "|".join([str(row.get(name)) for name in columns])

    def _overlap(self, held: dict, rows: list, any_text: bool = False) -> tuple:
        """Places of held-out rows that are in other rows: word for word, but for case and signs, nearly, in pieces.

        Nearly, of texts: 60 % of the runs of five bytes are shared, found by the 16 rarest of each text (the prefix of Chaudhuri
        and others, 2006), and three words of four in the same order; or the same text with other numbers or categories.
        Of rows of numbers: nine of ten differ by no more than a hundredth. In pieces: half of the row's runs of 13 words,
        as the authors of GPT-3 looked for them, stand anywhere in the others, or all of a shorter row in a longer one.
        Rows without text or numbers of their own that are there several times among the held-out ones are not counted.
        """
        import difflib
        import random
        import time
        from collections import Counter

        there = {name for row in rows[:100] for name in row}
        columns = [name for name in held["columns"] if name in there]
        found = {"exact": set(), "normalised": set(), "near": set(), "in_pieces": set()}
        texts, numbers, rest = self._own(held["rows"], columns)
        if columns and not texts and self._own(held["rows"], held["columns"])[0]:
            columns = []  # what they say stands under another name there
        if not columns:
            texts = [name for name in held["columns"] if [row for row in held["rows"] if self._flat(row.get(name))]]
            if not texts:
                return found, 0, []
            columns, any_text = held["columns"], True
        if any_text:
            texts, rest = texts or columns, []
        index = self._index(held["rows"], texts, rest, numbers)
        common = [] if texts or numbers else [one for one in index["normal"].values() if len(one) > 1]
        common = set().union(*common)
        shared, until, seen = [set() for _ in held["rows"]], time.monotonic() + 60, 0
        plains = []
        for row in rows:  # what is the same is looked up in all of them, what is alike for as long as there is time
            text = self._flat(row) if any_text and columns == held["columns"] else self._text(row, texts)
            plains.append((text, " ".join(self._words(text))))
            found["exact"] |= index["exact"].get((text, self._whole(row, rest)), set())
            found["normalised"] |= index["normal"].get((plains[-1][1], self._rest(row, rest)), set())
        for place in random.Random(0).sample(range(len(rows)), len(rows)):
            if seen % 500 == 0 and time.monotonic() > until:
                break
            seen += 1
            row, words = rows[place], plains[place][1].split()
            text, plain = plains[place]
            if not text:
                near = {place for band in self._bands(row, numbers) for place in index["bands"].get(band, ())}
                close = [place for place in near - found["near"] if self._close(held["rows"][place], row, numbers)]
                found["near"] |= set(close)
                continue
            if len(plain.encode()) < 25:
                continue
            own = self._shingles(plain) - index["usual"]
            hits = Counter(
                [place for one in self._sketch(own, index["counts"]) for place in index["sketch"].get(one, ())]
            )
            for place in {place for place, count in hits.items() if count > 4} - found["near"]:
                other = index["shingles"][place]
                if len(own & other) >= 0.375 * (len(own) + len(other)):  # 0.6 of all that either has
                    pair = words[:1000], index["words"][place][:1000]
                    if difflib.SequenceMatcher(None, *pair, autojunk=False).ratio() >= 0.75:
                        found["near"].add(place)
            for one in self._grams(words, 13) & index["grams"].keys():
                for place in index["grams"][one]:
                    shared[place].add(one)
            for one in self._grams(words, 4) & index["heads"].keys():
                stand = [n for n in index["heads"][one] if f" {' '.join(index['words'][n])} " in f" {plain} "]
                found["in_pieces"].update(stand)
        found["in_pieces"] |= {n for n, one in enumerate(shared) if one and len(one) >= 0.5 * index["sizes"][n]}
        before = common
        for places in found.values():
            places -= before  # each row by the closest way only
            before = before | places
        return found, seen, columns

    # Whose weights these are.

    def _provenance(self, side: dict, base: Any, problems: list, warnings: list) -> dict:
        """Whether the weights of a folder derive from the base that is stated, by their headers and some of their numbers.

        Never loaded: safetensors are read as bytes. Weights that were trained further resemble those they come from (the
        cosine of two matrices is near 1); weights of another model do not (near 0).
        """
        import json

        folder = side["folder"]
        run = self._run_config(folder)
        stated = base or run.get("base_model")
        if folder:
            self._tokens_fit(folder, problems)
        if not folder or not stated:
            return {
                "checked": False,
                "why": "no base model is stated" if folder else "the weights are not in the workspace",
            }
        files = [name for name in self.workspace.walk(folder) if name.endswith(".safetensors")]
        if not files:
            return {"checked": False, "base": stated, "why": "there are no safetensors to compare"}
        told = {"checked": True, "base": stated, "revision": None}
        try:
            # The commit that the run began with: what its branch holds may be another model by now.
            read = self._reader(stated, run.get("base_revision") if stated == run.get("base_model") else None)
            told["revision"] = read["revision"]
            adapter = self._json_here(f"{folder}/adapter_config.json")
            own = self._tensors(files, self._read_here)
            theirs = self._tensors(read["files"], read["range"])
            if adapter is not None:
                return self._adapter(told, adapter, own, theirs, stated, problems)
            config, old = self._json_here(f"{folder}/config.json") or {}, read["config"]
            kinds = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
            differ = [f"{name} {config[name]} for {old[name]}" for name in kinds if name in config and name in old]
            differ = [one for one in differ if len(set(one.split(" ", 1)[1].split(" for "))) > 1]
            pairs = self._pairs(own, theirs)
            big = [name for name, one in own.items() if len(one["shape"]) > 1 and one["size"] >= 256]
            told.update({"differs_in": differ, "tensors": len(big), "tensors_in_common": len(pairs)})
            if not big and not differ:
                return {**told, "checked": False, "why": "none of its matrices is large enough to compare"}
            if differ or len(pairs) < 0.5 * len(big):
                told["verdict"] = "other architecture"
            else:
                alike = sorted(
                    [self._likeness(own[name], self._read_here, other, read["range"]) for name, other in pairs]
                )
                told["likeness"] = round(alike[len(alike) // 2], 4)
                told["verdict"] = "derived" if told["likeness"] >= 0.3 else "other weights"
                if alike[0] > 0.999999:
                    told["verdict"] = "the base's own"
                    warnings.append(f"The weights are those of {stated}: nothing in them was trained.")
            mine = self._vocabulary(self._json_here(f"{folder}/tokenizer.json"))
            first = self._vocabulary(read["tokenizer"]() if mine else None)
            same = len([token for token, number in first.items() if mine.get(token) == number])
            if first and same < 0.5 * len(first):
                problems.append(
                    f"Tokenizer and weights do not match: of {len(first):,} tokens of {stated} {same:,} have the same number in "
                    "tokenizer.json. Save the tokenizer that the model was trained with."
                )
        except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
            warnings.append(f"What the weights derive from was not checked: {str(error)[:200]}")
            return {"checked": False, "base": stated, "why": str(error)[:200]}
        if told["verdict"] in ("other weights", "other architecture"):
            problems.append(
                f"The weights do not derive from {stated}, which is stated as their base ({told['verdict']}"
                f"{': ' + ', '.join(differ) if differ else ''}). Name the base they come from."
            )
        return told

    def _vocabulary(self, tokenizer: Any) -> dict:
        """Token to number, of a tokenizer.json."""
        model = (tokenizer or {}).get("model")
        found = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(found, list):  # of Unigram, with their scores
            found = {str(one[0]): number for number, one in enumerate(found) if isinstance(one, list) and one}
        return found if isinstance(found, dict) else {}

    def _tokens_fit(self, folder: str, problems: list) -> None:
        """Whether there is a row of the embeddings for each token."""
        ends = ("embeddings.weight", "embed_tokens.weight", "wte.weight", "shared.weight", "tok_embeddings.weight")
        try:
            files = [name for name in self.workspace.walk(folder) if name.endswith(".safetensors")]
            own = self._tensors(files, self._read_here)
            rows = [own[name]["shape"][0] for name in own if name.endswith(ends) and len(own[name]["shape"]) == 2]
        except (OSError, ValueError, KeyError, TypeError):
            return  # said where the weights are compared
        vocabulary = self._vocabulary(self._json_here(f"{folder}/tokenizer.json"))
        if rows and len(vocabulary) > max(rows):
            problems.append(
                f"Tokenizer and weights do not match: {len(vocabulary):,} tokens, {max(rows):,} embeddings. Save both from "
                "the same run."
            )

    def _adapter(self, told: dict, adapter: dict, own: dict, theirs: dict, stated: str, problems: list) -> dict:
        """An adapter: does it name the base that is stated, and fit its matrices?"""
        named = str(adapter.get("base_model_name_or_path") or "")
        fits = misfits = 0
        shapes = {name.removesuffix(".weight"): one["shape"] for name, one in theirs.items()}
        for name, one in own.items():
            place, mark, _ = name.partition(".lora_")
            if not mark or len(one["shape"]) != 2:
                continue
            place = place.removeprefix("base_model.model.")
            found = shapes.get(place) or shapes.get(place.partition(".")[2])
            side = 1 if ".lora_A" in name else 0
            transposed = adapter.get("fan_in_fan_out")
            wanted = found[1 - side if transposed else side] if found and len(found) == 2 else None
            good = wanted is not None and one["shape"][side] == wanted
            fits, misfits = fits + good, misfits + (not good)
        told.update({"adapter_of": named, "matrices_that_fit": fits, "matrices_that_do_not": misfits})
        told["verdict"] = "adapter of the base" if fits > misfits else "adapter of another model"
        other = named and named.rstrip("/").split("/")[-1] != stated.rstrip("/").split("/")[-1]
        if other or told["verdict"] != "adapter of the base":
            problems.append(
                f"The adapter is of {named or 'another model'}, not of {stated}, which is stated as its base."
            )
        return told

    def _reader(self, base: str, revision: Any) -> dict:
        """Files of weights of a base, a way to read parts of them, its configuration, and a way to read its tokenizer: in the
        workspace or on the Hub."""
        import json
        from functools import partial

        if self.workspace.is_dir(base):
            files = [name for name in self.workspace.walk(base) if name.endswith(".safetensors")]
            told = {"files": files, "range": self._read_here, "config": self._json_here(f"{base}/config.json") or {}}
            return {**told, "revision": None, "tokenizer": partial(self._json_here, f"{base}/tokenizer.json")}

        from huggingface_hub import HfApi

        subject = f"model {base}"
        api = HfApi(endpoint=self._hub())
        info = self._ask(subject, 30, api.model_info, repo_id=base, revision=revision, timeout=20)
        names = [sibling.rfilename for sibling in info.siblings or []]
        files = [name for name in names if name.endswith(".safetensors")]
        if not files:
            raise ValueError(f"{base} has no safetensors to compare with.")
        read = partial(self._read_there, base, info.sha)
        config = json.loads(read("config.json", 0, 5_000_000)) if "config.json" in names else {}
        tokenizer = partial(self._json_there, read, "tokenizer.json" if "tokenizer.json" in names else None)
        return {"files": files, "range": read, "config": config, "tokenizer": tokenizer, "revision": info.sha}

    def _json_there(self, read: Any, path: str | None) -> dict | None:
        import json

        found = json.loads(read(path, 0, 50_000_000)) if path else None
        return found if isinstance(found, dict) else None

    def _json_here(self, path: str) -> dict | None:
        import json

        try:
            found = json.loads(self.workspace.read_bytes(path, 100_000_000))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _read_here(self, path: str, start: int, length: int) -> bytes:
        with self.workspace.open_read(path) as file:
            file.seek(start)
            return file.read(length)

    def _read_there(self, repo_id: str, revision: str, path: str, start: int, length: int) -> bytes:
        return self._ask(
            f"{path} of model {repo_id}",
            60,
            self._part,
            repo_id=repo_id,
            revision=revision,
            path=path,
            start=start,
            length=length,
        )

    def _part(self, repo_id: str, revision: str, path: str, start: int, length: int) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        url = hf_hub_url(repo_id, path, revision=revision, endpoint=self._hub())
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{start + length - 1}"}
        content, skip = bytearray(), start
        with http_stream_backoff(
            "GET", url, headers=headers, timeout=20, max_retries=1, retry_on_exceptions=()
        ) as response:
            hf_raise_for_status(response)
            if response.status_code == 206:
                skip = 0  # else the whole file comes, from its beginning
            for chunk in response.iter_bytes(65_536):
                content += chunk
                if len(content) >= skip + length:
                    break
        return bytes(content[skip : skip + length])

    def _tensors(self, files: list, read: Any) -> dict:
        """Name to {file, dtype, shape, start, size} by the headers of safetensors."""
        import json
        import math

        found = {}
        for path in files:
            length = int.from_bytes(read(path, 0, 8), "little")
            if not 0 < length <= 50_000_000:
                raise ValueError(f"{path} is no safetensors file: its header would be {length:,} bytes.")
            header = json.loads(read(path, 8, length))
            for name, one in header.items():
                if name != "__metadata__":
                    start = 8 + length + int(one["data_offsets"][0])
                    size = math.prod(one["shape"])
                    found[name] = {
                        "file": path,
                        "dtype": one["dtype"],
                        "shape": one["shape"],
                        "start": start,
                        "size": size,
                    }
        return found

    def _pairs(self, own: dict, theirs: dict) -> list:
        """Names of large tensors of one's own with the base's of that name and shape, with or without a first part."""
        short = {name.partition(".")[2]: one for name, one in theirs.items()}
        found = []
        for name, one in own.items():
            if len(one["shape"]) > 1 and one["size"] >= 256:
                rest = name.partition(".")[2]
                other = theirs.get(name) or short.get(name) or theirs.get(rest) or short.get(rest)
                if other is not None and other["shape"] == one["shape"]:
                    found.append((name, other))
        return found

    def _likeness(self, one: dict, read: Any, other: dict, read_other: Any) -> float:
        """The cosine of up to 2,048 numbers of two tensors, from their middle."""
        count = min(one["size"], 2048)
        first, second = [self._values(*pair, count) for pair in ((one, read), (other, read_other))]
        product = sum([x * y for x, y in zip(first, second, strict=True)])
        lengths = sum([x * x for x in first]) ** 0.5 * sum([y * y for y in second]) ** 0.5
        return product / lengths if lengths else float(first == second)

    def _values(self, tensor: dict, read: Any, count: int) -> list:
        import struct

        width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}.get(tensor["dtype"])
        if width is None:
            raise ValueError(f"numbers of type {tensor['dtype']} are not compared")
        begin = (tensor["size"] - count) // 2 * width
        data = read(tensor["file"], tensor["start"] + begin, count * width)
        if len(data) != count * width:
            raise ValueError(f"{tensor['file']} ends before its tensors do")
        if tensor["dtype"] == "BF16":
            data = b"".join([b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2)])
        form = {"F64": "d", "F16": "e"}.get(tensor["dtype"], "f")
        return [value if value == value else 0.0 for value in struct.unpack(f"<{count}{form}", data)]

    # Pictures.

    def _plots(self, result: dict, truths: list, sides: dict) -> list:
        """PNG files of both sides and of the errors, on the host for a card and in the workspace; none without matplotlib."""
        try:
            from importlib import import_module

            figure = import_module("matplotlib.figure").Figure
            canvas = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg
        except ImportError:
            result["warnings"].append("No plots: matplotlib is not installed on this host.")
            return []
        folder = self._place() / result["held_out"] / result["id"]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        drawn: list[tuple[str, Any, tuple, tuple]] = [
            ("comparison.png", self._draw_comparison, (result,), (6.4, 4.2)),
        ]
        answers = sides["candidate"]["made"][0][0]
        labels = list(result["per_class"])
        if result["task"] == "classification" and 2 <= len(labels) <= 40:
            side = max(5.0, 2.4 + 0.24 * len(labels))  # inches: room for each name
            drawn.append(("confusion.png", self._draw_confusion, (truths, answers, labels), (side + 0.6, side)))
        points = self._points(sides["candidate"]["folder"])
        if len(points) > 1:
            drawn.append(("training.png", self._draw_training, (points,), (6.4, 4.2)))
        if result["task"] == "regression":
            drawn.append(("predictions.png", self._draw_scatter, (truths, answers), (5.4, 5.0)))
        for name, draw, what, size in drawn:
            picture = figure(figsize=size, dpi=110, layout="constrained")
            canvas(picture)
            draw(picture.add_subplot(), *what)
            picture.savefig(folder / name, metadata={"Software": None})
            self.workspace.copy_in(folder / name, f"held_out/{result['held_out']}/{result['id']}/{name}")
        return [f"held_out/{result['held_out']}/{result['id']}/{name}" for name, *_ in drawn]

    def _short(self, text: str, most: int) -> str:
        """A name as long as there is room for, cut in its middle: what tells names apart stands at their ends."""
        return text if len(text) <= most else f"{text[: (most - 1) // 2]}\u2026{text[len(text) - most // 2 :]}"

    def _fonts(self, text: str) -> list | None:
        """Families of fonts that have all characters of a text together; `None` where this host has none."""
        from importlib import import_module

        manager = import_module("matplotlib.font_manager")
        lacking = {ord(c) for c in text if not c.isspace()}
        # No file is opened that is not one of those that cover many scripts: there may be hundreds.
        wide = (
            "dejavu",
            "noto",
            "cjk",
            "unicode",
            "hei",
            "gothic",
            "song",
            "droid",
            "lohit",
            "garuda",
            "nanum",
            "tlwg",
        )
        families = []
        for one in sorted(manager.fontManager.ttflist, key=self._font_order):
            if lacking and [part for part in wide if part in one.name.lower()] and one.name not in families:
                there = lacking & set(manager.get_font(one.fname).get_charmap())
                families += [one.name] if there else []
                lacking -= there
        return None if lacking else families or ["DejaVu Sans"]

    def _font_order(self, one: Any) -> tuple:
        return (one.name != "DejaVu Sans", one.name, one.style != "normal", abs(int(one.weight) - 400), one.fname)

    def _draw_comparison(self, axes: Any, result: dict) -> None:
        names, data = [], result["dataset"]
        for place, role, color in ((0, "baseline", "#7b8794"), (1, "candidate", "#2f6fab")):
            side = result[role]
            names.append(f"{role}\n{self._short(side['name'], 32)}")
            low, high = side["interval"]
            error = [[side["value"] - low], [high - side["value"]]]
            axes.errorbar(place, side["value"], error, fmt="o", color=color, capsize=8, markersize=9, linewidth=2)
            axes.annotate(f"{side['value']:.4g}", (place, side["value"]), (12, -4), textcoords="offset points")
            seeds = (side.get("seeds") or {}).get("values") or []
            axes.plot([place - 0.12] * len(seeds), seeds, ".", color=color, alpha=0.6)
        axes.set_xticks([0, 1], names, fontfamily=self._fonts("".join(names)))
        axes.set_xlim(-0.6, 1.6)
        axes.grid(axis="y", alpha=0.3)
        axes.set_ylabel(f"{result['metric']} ({'higher' if result['higher_is_better'] else 'lower'} is better)")
        where = self._short(f"{data['id']}, {data['split']}", 60)
        p_value = f"{result['n']:,} rows, bars: 95 %, p = {result['difference']['p_value']:.2g}"
        several = [role for role in ("baseline", "candidate") if result[role].get("seeds")]
        p_value += ", dots: other seeds" if several else ""
        axes.set_title(f"{where}\n{p_value}", fontsize=10, fontfamily=self._fonts(where))
        axes.spines[["top", "right"]].set_visible(False)

    def _ticks(self, labels: list) -> tuple:
        """What stands at the axes for the classes, and in which fonts: their names, or where those are too long to tell
        apart or this host cannot write them, their numbers in the table of classes."""
        fonts = self._fonts("".join(labels) + "\u2026")
        first, last = min(labels), max(labels)
        begin = [*map(str.__eq__, first, last), False].index(False)  # as long as what all of them begin with
        long = max(map(len, labels)) > 24
        ticks = [f"\u2026{label[begin:]}" if long and begin > 8 else label for label in labels]
        ticks = [self._short(" ".join(tick.split()), 24).replace("$", r"\$") for tick in ticks]
        if fonts is None or len(set(ticks)) < len(ticks) or "" in ticks:
            return [str(number) for number in range(1, len(labels) + 1)], None
        return ticks, fonts

    def _draw_confusion(self, axes: Any, truths: list, answers: list, labels: list) -> None:
        from collections import Counter

        counts = Counter(zip(truths, answers, strict=True))
        table = [[counts[truth, answer] for answer in labels] for truth in labels]
        shares = [[count / max(sum(row), 1) for count in row] for row in table]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        size = 8 if len(labels) <= 20 else 6.5
        for down, row in enumerate(table):
            for across, count in enumerate(row):
                color = "white" if shares[down][across] > 0.5 else "#333333"
                axes.annotate(str(count or ""), (across, down), ha="center", va="center", color=color, fontsize=size)
        ticks, fonts = self._ticks(labels)
        note = "" if fonts else " (by number in the table of classes)"
        turned = max(map(len, ticks)) * len(ticks) > 60
        axes.set_xticks(range(len(labels)), ticks, rotation=90 if turned else 0, fontsize=size, fontfamily=fonts)
        axes.set_yticks(range(len(labels)), ticks, fontsize=size, fontfamily=fonts)
        axes.set_xlabel("predicted")
        axes.set_ylabel("label")
        axes.set_title(f"Candidate: rows by label and prediction{note}", fontsize=10)

    def _points(self, folder: Any) -> list:
        """What a run reported as it went: metrics.jsonl beside the weights, or in the folder above."""
        for place in [folder.rpartition("/")[0] or ".", folder] if folder else []:
            try:
                rows = self._parse(
                    "metrics.jsonl", self.workspace.read_bytes(f"{place}/metrics.jsonl", 50_000_000), 100_000
                )
            except (OSError, ValueError):
                continue
            return [row for row in rows if isinstance(row.get("step"), int | float)]
        return []

    def _draw_training(self, axes: Any, points: list) -> None:
        names = list(dict.fromkeys([name for row in points for name in row]))
        wanted = [name for name in names if name in ("loss", "eval_loss")]
        scores = [name for name in names if name.startswith("eval_") and name != "eval_loss"]
        scores = [name for name in scores if not name.endswith(("_runtime", "_per_second", "_seconds"))][:3]
        right = axes.twinx() if wanted and scores else axes
        right.set_ylabel(", ".join(scores))
        axes.set_ylabel("loss" if wanted else ", ".join(scores))
        axes.grid(axis="y", alpha=0.3)
        for number, name in enumerate(wanted + scores):
            found = [(row["step"], row[name]) for row in points if isinstance(row.get(name), int | float)]
            found = [pair for pair in found if abs(pair[1]) < 1e12]
            place = axes if name in wanted else right
            dots = "." if len(found) < 40 else ""
            place.plot(*zip(*found, strict=True), marker=dots, color=f"C{number}", label=name) if found else None
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("step")
        axes.set_title("Training", fontsize=10)
        axes.figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)

    def _draw_scatter(self, axes: Any, truths: list, answers: list) -> None:
        axes.scatter(truths, answers, s=9, alpha=0.5, color="#2f6fab")
        ends = [min(truths), max(truths)]
        axes.plot(ends, ends, color="#222222", linewidth=1)
        axes.set_xlabel("label")
        axes.set_ylabel("predicted")
        axes.set_title("Candidate: predictions", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)

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
