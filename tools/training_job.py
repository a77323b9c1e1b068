"""Run a training script as a job: in the jail of this machine, or on Hugging Face Jobs."""

from typing import Any

from smolagents import Tool


class TrainingJobTool(Tool):
    """Starts, watches and ends jobs that run a script of the workspace.

    On `local` a job runs in a jail of its own beside the session's; it outlives steps and crashes. On `hf_jobs` it is
    somebody's money: a person is asked with the whole script, its hardware and its cost, and a call starts at most one job,
    found again by its id (the label `ml-intern-call`). While it runs its numbers are watched: findings are told at once, and
    end a wait; a rule such as `training_job(operation=stop, reason=nan)` has a job stopped for one of them. A wait is a call
    inside an action, so it holds the session's thread and jail for half an hour at most: to give them up would be to give up
    the rest of the action's code.

    What must never happen here: a job gets a token of the Hub that nobody gave to jobs; one starts whose script has not
    come through a smoke run, unless a person says so; a failed job passes for a success.

    Args:
        workspace (*optional*): Where the script is, with `read_bytes` and `write_bytes`.
        jobs (*optional*): Runs local jobs: `start`, `status`, `logs`, `about`, `stop`, `list`.
        watch (*optional*): Watches them: `found`, `sketch`, `picture`, `look`, `follow`, `seen`, `pause`, `correct`.
        records (*optional*): Keeps experiments: `add`, `all`.
    """

    name = "training_job"
    description = (
        "Runs a script of the workspace as a job and returns at once: in the jail ('local'), or on Hugging Face Jobs "
        "('hf_jobs'; a person is asked, with the cost). First with smoke=True: a start needs a smoke run of the same script "
        "that passed. Then wait: until the end, a finding (divergence, NaN, too slow), or `seconds`; it raises where the job "
        "failed, with cause and remedy. Metrics come from '@metrics {json}' lines."
    )
    inputs = {
        "operation": {"type": "string", "description": "start, status, logs, metrics (curves), wait, stop, list."},
        "backend": {"type": "string", "description": "Of start, list: local (default), hf_jobs.", "nullable": True},
        "script": {"type": "string", "description": "Its path (default none).", "nullable": True},
        "arguments": {"type": "array", "description": "Of the script (default none).", "nullable": True},
        "smoke": {"type": "boolean", "description": "With --smoke (default false).", "nullable": True},
        "hardware": {"type": "string", "description": "Of hf_jobs, see list (default none).", "nullable": True},
        "timeout": {"type": "string", "description": "'4h' (default by estimate).", "nullable": True},
        "estimate": {"type": "string", "description": "Time it should take (default none).", "nullable": True},
        "job_id": {"type": "string", "description": "From start (default none).", "nullable": True},
        "seconds": {"type": "number", "description": "Of wait (default 600).", "nullable": True},
        "options": {
            "type": "object",
            "description": "name, parent (experiment), namespace (who pays), image, lines (of logs), skip_smoke (default none).",
            "nullable": True,
        },
    }
    output_type = "object"
    output_schema: dict = {
        "type": "object",
        "properties": {
            "job_id": {"type": "string"},
            "state": {"enum": ["scheduled", "running", "done", "failed", "stopped", "timeout", "lost"]},
            "findings": {"type": "array"},
            "result": {"type": "object"},
            "cause": {"type": "object"},
            "curves": {"type": "string"},
            "picture": {"type": "string"},
            "text": {"type": "string"},
            "jobs": {"type": "array"},
        },
    }
    # A local job runs where the agent's code runs unasked; whoever started a job may end it.
    effects: dict = {
        "start": "spend",
        "start:local": "read",
        "start:None": "read",
        "status": "read",
        "logs": "read",
        "metrics": "read",
        "wait": "read",
        "stop": "read",
        "list": "read",
    }
    sends: tuple = ("script",)
    # What a log says of a failure, the most telling first: kind, pattern, the usual remedy.
    causes: tuple = (
        (
            "out_of_memory",
            r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|not enough memory|Cannot allocate memory"
            r"|MemoryError|std::bad_alloc|exit code: 137|^Killed$|memory: it and its processes",
            "Halve the batch size and double gradient accumulation (the effective batch stays), turn on gradient checkpointing, "
            "then LoRA or QLoRA, or larger hardware. Keep model, data and task as they are, unless the user agrees to others.",
        ),
        (
            "no_space",
            r"No space left on device|Disk quota exceeded|File too large|disk: ",
            "Keep fewer checkpoints (save_total_limit), remove what is not needed, or take hardware with more storage.",
        ),
        (
            "shared_memory",
            r"insufficient shared memory|killed by signal: Bus error|Bus error",
            "The jail has little shared memory: dataloader_num_workers=0.",
        ),
        (
            "network",
            r"cannot be reached from this code",
            "A local job reaches the public Hub only, as the agent's code does; put other files into the workspace first.",
        ),
        (
            "gated",
            r"GatedRepoError|gated repo|Access to (model|dataset) \S+ is restricted|not in the authorized list",
            "A person has to accept its conditions on the Hub; the job needs a token that may read it (ML_INTERN_JOB_TOKEN). "
            "Another model is the user's choice, not yours.",
        ),
        (
            "column_missing",
            r"KeyError: ['\"](?![A-Z_]+['\"])"
            r"|Column ['\"]?\w+['\"]? (is )?not in|columns? .{0,60}(missing|not found|don't match|do not match)"
            r"|No columns in the dataset match|are not in index",
            "Look at the columns (hub_inspect_dataset) and name or map those that the method needs.",
        ),
        (
            "labels",
            r"device-side assert|Target \d+ is out of bounds|Assertion .*n_classes",
            "Label ids do not fit num_labels: check the label map, and run once on the CPU, where the message is exact.",
        ),
        (
            "nan",
            r"loss is (nan|inf)|contains? (NaN|infinity)|(nan|NaN) loss|inf or nan",
            "Lower the learning rate, clip gradients, bf16 rather than fp16; look for empty or broken rows.",
        ),
        (
            "import",
            r"ModuleNotFoundError|ImportError|No module named",
            "Install it first (install_packages for local jobs), or name it in the script's inline `dependencies`.",
        ),
        (
            "cuda",
            r"CUDA error|CUDA driver version|no kernel image|NCCL error|No CUDA GPUs|no NVIDIA driver|CUDA is not available",
            "The installed torch does not fit the GPU or its driver, or there is no GPU: check hardware and versions.",
        ),
        (
            "unauthorized",
            r"401 Client Error|403 (Client Error|Forbidden)|Invalid (user token|username or password)|Unauthorized",
            "The job may not do this. Jobs have no token of the Hub but ML_INTERN_JOB_TOKEN, which a person sets.",
        ),
        (
            "not_found",
            r"RepositoryNotFoundError|DatasetNotFoundError|EntryNotFoundError|RevisionNotFoundError|404 Client Error",
            "Check the name and revision; if it is private, the job needs a token that may read it.",
        ),
        (
            "arguments",
            r"unexpected keyword argument|invalid keyword argument"
            r"|missing \d+ required positional|unrecognized arguments|SyntaxError|NameError",
            "The script does not fit the installed versions: look up the current arguments before changing them.",
        ),
        (
            "data",
            r"DatasetGenerationError|ArrowInvalid|JSONDecodeError|UnicodeDecodeError|empty (dataset|split)|num_samples=0",
            "Load and look at the data first: a split may be empty, or a file broken.",
        ),
        (
            "network",
            r"Max retries exceeded|Name or service not known|Connection(Error| refused| reset)|Refused: |cannot be reached from",
            "A local job reaches the public Hub only, as the agent's code does; put other files into the workspace first.",
        ),
    )

    def __init__(self, workspace=None, jobs=None, watch=None, records=None, model_repo_id=None):
        super().__init__()
        self.workspace = workspace
        self.jobs = jobs
        self.watch = watch
        self.records = records
        self.call_id = None
        self.answer = None
        self._known = None
        # Shared by the copies that calls are made on: kinds of findings that a wait has returned, points read so far.
        # Of waits that need no thread for a while: when they end, the pause between two looks, looks in a row that failed.
        self._reported = {}
        self._read = {}
        self._waits = {}
        self._missing = {}  # looks in a row at a job that was not there

    def forward(
        self,
        operation: str,
        backend: str | None = "local",
        script: str | None = None,
        arguments: list | None = None,
        smoke: bool | None = False,
        hardware: str | None = None,
        timeout: str | None = None,
        estimate: str | None = None,
        job_id: str | None = None,
        seconds: float | None = 600,
        options: dict | None = None,
    ) -> dict:
        more = self._options(options)
        if operation == "list":
            return self._list(backend or "local", more["namespace"])
        if operation == "start":
            given = {
                "backend": backend,
                "script": script,
                "arguments": arguments,
                "smoke": smoke,
                "hardware": hardware,
            }
            given.update({"timeout": timeout, "estimate": estimate, "options": options})
            return self._start(self._planned(given))
        if operation not in ("status", "logs", "metrics", "wait", "stop"):
            raise ValueError(f"`operation` is start, status, logs, metrics, wait, stop or list, not {operation!r}.")
        if not job_id or not isinstance(job_id, str):
            raise ValueError(f"{operation} needs the `job_id` that start returned; list has them.")
        if operation == "logs":
            return self._logs(job_id, max(1, int(more["lines"] or 100)))
        if operation == "metrics":
            return self._metrics(job_id)
        if operation == "stop":
            return self._stop(job_id)
        if operation == "wait":
            return self._wait(job_id, 600.0 if seconds is None else float(seconds))
        return self._status(job_id)

    # What the host asks before a start

    def check(self, **arguments: Any) -> None:
        """Raises where a start would be refused in any case, so that no person is asked in vain."""
        if arguments.get("operation") == "start":
            self._planned(arguments)

    def destination(self, **arguments: Any) -> dict | None:
        """Where a start on hf_jobs goes, and whose it is there."""
        if arguments.get("operation") != "start" or arguments.get("backend") != "hf_jobs":
            return None
        return {"name": "hf_jobs", "visibility": self._planned(arguments)["namespace"]}

    def estimate_cost(self, **arguments: Any) -> float | None:
        """The worst case, in USD: the price of the hardware until its time-out. What is not used comes back at its end."""
        if arguments.get("operation") != "start":
            return None
        return self._planned(arguments)["worst_usd"]

    def preview(self, **arguments: Any) -> str:
        """What a person should read before saying yes: what it costs, what it can do, the whole script."""
        if arguments.get("operation") != "start":
            return ""
        order = self._planned(arguments)
        if order["backend"] == "local":
            return self._printable(
                f"A job on this machine, in the jail: {order['about']['script']}\n\n{order['text']}"
            )
        machine, about = order["machine"], order["about"]
        parts = [
            f"{'Smoke run' if about['smoke'] else 'Job'} {about['name']!r} on Hugging Face Jobs, paid by {order['namespace']}",
            f"Hardware: {machine['name']} ({machine['what']}), {self._dollars(machine['usd_an_hour'])} an hour",
            f"Cost: about {self._dollars(order['expected_usd'])}, at most {self._dollars(order['worst_usd'])}: it is ended "
            f"after {self._spell(order['seconds'])}",
            self._about_token(order["token"], about["smoke"]),
            f"Image: {order['image']}",
            f"Command: train.py {' '.join(map(repr, about['arguments']))}".rstrip(),
        ]
        if about["skip_smoke"]:
            parts.insert(1, "!! NO SMOKE RUN OF THIS SCRIPT HAS PASSED")
        parts += ["", f"{about['script']} ({about['sha256'][:12]}):", order["text"]]
        return self._printable("\n".join(parts))

    def _printable(self, text: str) -> str:
        """A script must not be able to clear the terminal of who reads it, or to turn what is written round."""
        return "".join([c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text])

    def reconcile(self, call_id: str, **arguments: Any) -> dict | None:
        """Whether a start with this id took effect: its job, or `None` where there is none."""
        if arguments.get("operation") != "start":
            return None
        if arguments.get("backend") == "hf_jobs":
            namespace = self._options(arguments.get("options"))["namespace"] or self._who()["name"]
            job = self._find({"ml-intern-call": call_id}, namespace)
            if job is None:
                return None
            seen = self._seen_on_hub(job)
            return {**self._began(seen, None), "cost_usd": seen["worst_usd"]}
        own = self._own_name(call_id)
        return self._status(own) if own in self._local().list() else None

    # Start

    def _planned(self, arguments: dict) -> dict:
        """The order of a start; made once for check, preview and call, which all get the same arguments."""
        names = ["backend", "script", "arguments", "smoke", "hardware", "timeout", "estimate", "options"]
        given = {name: arguments.get(name) or None for name in names}
        if self._known is None or self._known[0] != given:
            self._known = (given, self._order(**given))
        return self._known[1]

    def _options(self, options: Any) -> dict:
        known = ["name", "parent", "namespace", "image", "lines", "skip_smoke"]
        if not isinstance(options or {}, dict) or set(options or {}) - set(known):
            raise ValueError(f"`options` is a dict of {', '.join(known)}, not {options!r}.")
        return {name: (options or {}).get(name) for name in known}

    def _order(
        self,
        backend: Any,
        script: Any,
        arguments: Any,
        smoke: Any,
        hardware: Any,
        timeout: Any,
        estimate: Any,
        options: Any,
    ) -> dict:
        """What a start would do, all of it checked.

        Raises:
            ValueError, PermissionError, FileNotFoundError, OSError: it would be refused.
        """
        import hashlib
        from pathlib import PurePosixPath

        backend, more = backend or "local", self._options(options)
        if backend not in ("local", "hf_jobs"):
            raise ValueError(f"`backend` is local or hf_jobs, not {backend!r}.")
        if self.workspace is None:
            raise RuntimeError("training_job has no workspace: make it with TrainingJobTool(workspace=...).")
        if not script or not isinstance(script, str):
            raise ValueError("start needs `script`, a Python file in the workspace; training_config writes one.")
        data = self.workspace.read_bytes(script)
        text = data.decode("utf-8", "replace")
        try:
            compile(text, script, "exec")
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"{script} is no Python: {error}. Nothing was started.") from None
        arguments = [] if arguments is None else arguments
        if not isinstance(arguments, list | tuple) or [
            one for one in arguments if not isinstance(one, str | int | float)
        ]:
            raise ValueError("`arguments` is a list of strings, such as ['--output', 'runs/a'].")
        words = [str(one) for one in arguments]
        if smoke and "--smoke" not in words:
            words.append("--smoke")
        smoke = "--smoke" in words
        path = PurePosixPath(script)
        where = path.parent.name if path.stem in ("train", "main", "script", "run") and path.parent.name else path.stem
        about = {
            "script": script,
            "sha256": hashlib.sha256(data).hexdigest(),
            "arguments": words,
            "smoke": smoke,
            "skip_smoke": bool(more["skip_smoke"]) and not smoke,
            "name": str(more["name"] or where or "job")[:60],
            "parent": more["parent"],
            "expected": self._seconds(estimate, "estimate"),
            **self._length(text),
        }
        limit = self._seconds(timeout, "timeout")
        if limit is None and about["expected"] is not None:
            limit = about["expected"] * 1.5 + 600
        if limit is None and not smoke:
            raise ValueError(
                "Say how long it may take: timeout='2h', or estimate='80m' (its time-out is half more, and 10 minutes)."
            )
        limit = max(60.0, limit or 900.0)
        order = {
            "backend": backend,
            "about": about,
            "text": text,
            "seconds": limit,
            "worst_usd": None,
            "expected_usd": None,
        }
        if backend == "hf_jobs":
            order.update(self._remote_order(about, limit, hardware, more, text))
            about.update(
                {"limit": limit, "usd_an_hour": order["machine"]["usd_an_hour"], "worst_usd": order["worst_usd"]}
            )
        else:
            self._local()
        if not smoke and not about["skip_smoke"] and not self._smoked(order):
            raise PermissionError(
                f"Not started: no smoke run of {script} as it is now has passed. Start it with smoke=True first and wait for its "
                "end; any change of the script needs another one."
            )
        return order

    def _remote_order(self, about: dict, limit: float, hardware: Any, more: dict, text: str) -> dict:
        import base64
        import gzip
        import os

        payload = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
        if len(payload) > 100_000:
            raise ValueError(
                f"{about['script']} is too long to travel in a job's environment ({len(payload):,} of 100,000 characters). "
                "Keep data out of the script: a job reads it from the Hub."
            )
        who = self._who()
        namespace = more["namespace"] or who["name"]
        if namespace not in who["namespaces"]:
            raise PermissionError(
                f"{namespace} is no namespace of yours, so it cannot pay for a job. Yours: {', '.join(who['namespaces'])}."
            )
        machines = self._hardware()
        if hardware is None and about["smoke"]:
            cheapest = sorted([(one["usd_an_hour"] or 0.0, name) for name, one in machines.items()])
            hardware = "cpu-basic" if "cpu-basic" in machines else cheapest[0][1] if cheapest else None
        if hardware not in machines:
            known = ", ".join([f"{one} ({self._dollars(what['usd_an_hour'])}/h)" for one, what in machines.items()])
            raise ValueError(f"`hardware` is one of {known}, not {hardware!r}.")
        self._refuse_twin(about, namespace)
        price = machines[hardware]["usd_an_hour"]
        expected = about["expected"] if about["expected"] is not None else 120.0 if about["smoke"] else None
        token = os.environ.get("ML_INTERN_JOB_TOKEN") or None
        goal = self._settings(text, "push_to", str)
        if goal and token is None and not about["smoke"]:
            raise PermissionError(
                f"Not started: what {about['script']} makes goes to {goal['push_to']}, and jobs have no token for that: a "
                "person sets ML_INTERN_JOB_TOKEN. Without it all that is paid for would be lost."
            )
        return {
            "namespace": namespace,
            "machine": {"name": hardware, **machines[hardware]},
            "image": more["image"] or "ghcr.io/astral-sh/uv:python3.12-bookworm",
            "token": token,
            "payload": payload,
            "worst_usd": None if price is None else round(price * (limit + 59) / 3600, 4),
            "expected_usd": None if expected is None or price is None else round(price * expected / 3600, 4),
        }

    def _start(self, order: dict) -> dict:
        about = order["about"]
        if about["skip_smoke"] and getattr(self.answer, "decision", "") not in ("approve", "edit"):
            raise PermissionError(
                "Not started: that a smoke run is left out is a person's decision, and none was asked. Make the smoke run: "
                "start with smoke=True."
            )
        if order["backend"] == "local":
            return self._start_local(order)
        namespace, subject = order["namespace"], f"a job on {order['machine']['name']} for {order['namespace']}"
        mine = {"ml-intern-call": self.call_id}
        job = self._find(mine, namespace) if self.call_id else None
        if job is None:
            labels = {"ml-intern-script": about["sha256"][:40], "ml-intern-smoke": "1" if about["smoke"] else "0"}
            labels.update({"ml-intern-call": self.call_id} if self.call_id else {})
            session = getattr(self.watch, "session", "")
            labels.update({"ml-intern-session": session} if session else {})
            options = {
                "image": order["image"],
                "command": ["/bin/sh", "-c", self._boot(), "train", *about["arguments"]],
                "env": {
                    "ML_INTERN_SCRIPT": order["payload"],
                    "ML_INTERN_ABOUT": self._json(about),
                    "PYTHONUNBUFFERED": "1",
                },
                "secrets": {"HF_TOKEN": order["token"]} if order["token"] else None,
                "flavor": order["machine"]["name"],
                "timeout": int(order["seconds"]),
                "name": self._label(about["name"]),
                "labels": labels,
                "namespace": namespace,
            }
            try:
                job = self._ask_jobs(subject, 120, self._api().run_job, **options)
            except OSError as error:
                if isinstance(error, PermissionError | FileNotFoundError) or not self.call_id:
                    raise
                for seconds in (0.0, 1.0, 3.0):  # the answer was lost; the job may be there, or come to be listed
                    self._pause(seconds)
                    job = job or self._find(mine, namespace)
                if job is None:
                    raise
        return self._began(self._seen_on_hub(job), order)

    def _start_local(self, order: dict) -> dict:
        about, jobs = order["about"], self._local()
        own = self._own_name(self.call_id)
        for other in jobs.list():
            seen = self._seen_here(other)
            same = [seen["about"].get(key) for key in ("sha256", "arguments")] == [about["sha256"], about["arguments"]]
            if other != own and same and seen["state"] == "running":
                return {
                    **self._began(seen, order),
                    "note": "This script was running already, with the same arguments.",
                }
        variables = {"ML_INTERN_ABOUT": self._json(about), "PYTHONUNBUFFERED": "1"}
        command = ["python", self.workspace.relative(about["script"]), *about["arguments"]]
        jobs.start(own, command, seconds=order["seconds"], variables=variables)
        return self._began(self._seen_here(own), order)

    def _began(self, seen: dict, order: dict | None) -> dict:
        """What start returns; the run is on record from here on, and watched."""
        if order is not None:
            about = order["about"]
            seen.update({"about": about, "price": about.get("usd_an_hour"), "worst_usd": about.get("worst_usd")})
        self._record(seen)
        self._follow(seen)
        found = {
            "job_id": seen["job_id"],
            "state": seen["state"],
            "backend": seen["backend"],
            "name": seen["about"].get("name"),
        }
        found.update({"experiment": self._run_id(seen["job_id"]), "smoke": bool(seen["about"].get("smoke"))})
        if seen["url"]:
            found["url"] = seen["url"]
        if order is not None:
            found.update({"timeout_seconds": order["seconds"]})
            if order["worst_usd"] is not None:
                found.update({"estimated_usd": order["expected_usd"], "worst_case_usd": order["worst_usd"]})
        return found

    def _smoked(self, order: dict) -> bool:
        """Whether a smoke run of exactly this script came through, on either back end."""
        digest = order["about"]["sha256"]
        if self.jobs is not None:
            for own in self.jobs.list():
                about = self._about_of(self.jobs.about(own)["variables"])
                if about.get("sha256") == digest and about.get("smoke") and self.jobs.status(own)["state"] == "done":
                    return True
        for run in self.records.all("experiment") if self.records is not None else []:
            config = run.get("config") or {}
            if config.get("script_sha256") == digest and config.get("smoke") is True and run.get("state") == "done":
                return True
        if order["backend"] != "hf_jobs":
            return False
        labels = {"ml-intern-script": digest[:40], "ml-intern-smoke": "1"}
        return self._find(labels, order["namespace"], "COMPLETED") is not None

    # A job as it stands

    def _status(self, job_id: str) -> dict:
        seen = self._look(job_id)
        points = self._points(seen)
        answer = self._told(seen, points)
        cause = self._cause(seen)
        return {**answer, "cause": cause} if cause else answer

    def _wait(self, job_id: str, seconds: float) -> dict:
        """Looks until it has ended, something is found, or the time is over; an interrupt ends it at once.

        Raises:
            RuntimeError: the job failed.
        """
        import time

        before = self._waits.pop(self.call_id, None)
        if before is None:
            before = [time.monotonic() + min(max(seconds, 0.0), 1800.0), 0.1 if self._is_local(job_id) else 0.5, 0]
        known = self._reported.setdefault(job_id, set())
        if self.watch is not None:
            self.watch.attend(job_id, 1)
        try:
            seen, answer = self._until_news(job_id, before, known)
        finally:
            if self.watch is not None:
                self.watch.attend(job_id, -1)
        known.update([finding["kind"] for finding in answer.get("findings", [])])
        if seen["state"] in ("failed", "timeout", "lost"):
            raise RuntimeError(self._failure(seen))
        return answer

    def _until_news(self, job_id: str, waits: list, known: set) -> tuple:
        """The look at a job that brought something new: its end, a finding that is not known, or that the time is over."""
        import time

        ends, pause, failed = waits
        local = self._is_local(job_id)
        while True:
            answer = None
            try:
                seen = self._look(job_id)
                answer, failed = self._told(seen, self._points(seen)), 0
            except (ConnectionError, TimeoutError):  # a service that is away for a minute loses nobody's job
                failed += 1
                if failed > 5 or time.monotonic() >= ends:
                    raise
            if answer is not None:
                new = {finding["kind"] for finding in answer.get("findings", [])} - known
                if new or seen["state"] not in ("scheduled", "running") or time.monotonic() >= ends:
                    break
            pause = min(pause * 1.3, 5.0 if local else 30.0)
            rest = max(0.0, min(pause, ends - time.monotonic()))
            if rest >= 1.0 and self.watch is not None and self.call_id:
                self._waits[self.call_id] = [ends, pause, failed]
                self.watch.give_way(job_id, rest)  # comes back where a thread is needed all the same
                self._waits.pop(self.call_id, None)
            if self._pause(rest) and answer is not None:
                break
        return seen, answer

    def _failure(self, seen: dict) -> str:
        cause: dict = self._cause(seen) or {
            "kind": seen["state"],
            "said": "no more is known",
            "remedy": "Look at its log.",
        }
        tail = "\n".join(self._plain(self._text(seen)).strip().split("\n")[-15:])
        took = "" if seen["ran"] is None else f" after {self._spell(seen['ran'])}"
        return (
            f"The job {seen['job_id']} {self._ended_as(seen['state'])}{took}: {cause['kind']}: {cause['said']}\n"
            f"{cause['remedy']}\nThe last lines of its log:\n{tail}"
        )

    def _ended_as(self, state: str) -> str:
        return {"failed": "failed", "timeout": "ran out of time", "lost": "was lost", "stopped": "was stopped"}.get(
            state, state
        )

    def _stop(self, job_id: str) -> dict:
        seen = self._look(job_id)
        if seen["state"] in ("scheduled", "running"):
            if seen["backend"] == "local":
                self.jobs.stop(job_id)
            else:
                self._refuse_others(seen)
                namespace, _, identifier = job_id.partition("/")
                self._ask_jobs(job_id, 60, self._api().cancel_job, job_id=identifier, namespace=namespace)
            seen = self._look(job_id)
            if seen["state"] in ("scheduled", "running"):
                seen["state"] = "stopped"
        self._settle(seen)
        return self._told(seen, self._points(seen))

    def _refuse_others(self, seen: dict) -> None:
        """What another session, or a person, has started is not this one's to end."""
        session, label = getattr(self.watch, "session", ""), seen["labels"].get("ml-intern-session")
        if not seen["labels"] and self._recorded(seen["job_id"]) is not None:
            return  # a service that forgets labels
        if "ml-intern-call" not in seen["labels"] or (session and label and label != session):
            raise PermissionError(
                f"{seen['job_id']} was not started by this session. A person can end it at {seen['url']}."
            )

    def _logs(self, job_id: str, lines: int) -> dict:
        seen = self._look(job_id)
        text = self._text(seen, lines)
        shown = text.rstrip("\n").split("\n")[-lines:]
        return {"job_id": job_id, "state": seen["state"], "text": "\n".join(shown), "lines": len(shown)}

    def _metrics(self, job_id: str) -> dict:
        seen = self._look(job_id)
        points = self._points(seen)
        answer = self._told(seen, points)
        answer.update({"points": len(points), "last": points[-1] if points else None, "curves": "", "picture": None})
        if self.watch is None or not points:
            return answer
        answer["curves"] = self.watch.sketch(points)
        data = self.watch.picture(points, str(seen["about"].get("name") or job_id))
        if data is not None and self.workspace is not None:
            folder = self._folder(seen) or f"jobs/{self._run_id(job_id)}"
            try:
                self.workspace.write_bytes(f"{folder}/curves.png", data)
                answer["picture"] = f"{folder}/curves.png"
            except OSError:
                pass  # the curves are there as text
        return answer

    def _list(self, backend: str, namespace: str | None) -> dict:
        if backend == "local":
            seen = [self._seen_here(own) for own in self._local().list()]
            return {"jobs": [self._brief(one) for one in seen]}
        if backend != "hf_jobs":
            raise ValueError(f"`backend` is local or hf_jobs, not {backend!r}.")
        who = self._who()
        namespace = namespace or who["name"]
        found = self._ask_jobs("your jobs", 60, self._some_jobs, namespace=namespace)
        ours = [self._seen_on_hub(job) for job in found if "ml-intern-call" in (job.labels or {})]
        machines = [{"name": name, **about} for name, about in self._hardware().items()]
        return {"jobs": [self._brief(one) for one in ours], "hardware": machines, "namespaces": who["namespaces"]}

    def _brief(self, seen: dict) -> dict:
        about = seen["about"]
        return {"job_id": seen["job_id"], "state": seen["state"], "name": about.get("name"), "smoke": bool(about.get("smoke")),
                "started": seen["started"], "hardware": seen["hardware"]}  # fmt: skip

    def _told(self, seen: dict, points: list) -> dict:
        """What every look returns; news go to whoever watches, an end goes on record."""
        result = self._result(seen) if seen["state"] not in ("scheduled", "running") else None
        answer = {"job_id": seen["job_id"], "state": seen["state"], "backend": seen["backend"]}
        answer.update({"name": seen["about"].get("name"), "experiment": self._run_id(seen["job_id"])})
        for key, value in (("seconds", seen["ran"]), ("exit_code", seen["exit_code"]), ("why", seen["why"] or None),
                           ("hardware", seen["hardware"]), ("url", seen["url"] or None), ("cost_so_far_usd", self._cost(seen)),
                           ("peak_memory_bytes", seen["peak"]), ("folder", self._folder(seen)), ("result", result)):  # fmt: skip
            if value is not None:
                answer[key] = value
        if points:
            answer["last"] = points[-1]
        if self.watch is not None:
            ends, total = (seen["ends"] if not result else None), self._total(seen, points)
            running = seen["state"] == "running"
            answer["findings"] = (
                self.watch.found(points, ends, total) if running else self.watch.found(points, None, None)
            )
            self._follow(seen)
            self.watch.seen(seen["job_id"], self._as_look(seen, points))
        self._settle(seen, result)
        cause = self._cause(seen) if seen["state"] == "stopped" else None
        return {**answer, "cause": cause} if cause else answer

    def _as_look(self, seen: dict, points: list) -> Any:
        cause = self._cause(seen)
        text = f"It {self._ended_as(seen['state'])}: {cause['kind']}: {cause['said']}"[:500] if cause else ""
        return self.watch.look(seen["state"], points, seen["ends"], self._total(seen, points), text)

    def _follow(self, seen: dict) -> None:
        """Has it looked at while nobody asks: how it stands is told when it can be known."""
        import functools

        if self.watch is None:
            return
        job_id, over = seen["job_id"], seen["state"] not in ("scheduled", "running")
        name, pause = str(seen["about"].get("name") or ""), 2.0 if seen["backend"] == "local" else 30.0
        look, stop = functools.partial(self._look_again, job_id), functools.partial(self._stop, job_id)
        self.watch.follow(job_id, name, look, stop, pause, over)

    def _look_again(self, job_id: str) -> Any:
        try:
            seen = self._look(job_id)
        except FileNotFoundError:
            self._missing[job_id] = self._missing.get(job_id, 0) + 1
            if self._missing[job_id] < 3:  # one that has just begun may not be listed everywhere yet
                raise
            return self._gone(job_id)
        self._missing.pop(job_id, None)
        points = self._points(seen)
        if seen["state"] not in ("scheduled", "running"):
            self._settle(seen, self._result(seen))
        return self._as_look(seen, points)

    def _gone(self, job_id: str) -> Any:
        """A job that somebody has deleted has ended: what it would have cost at worst stays counted."""
        why, run = "somebody deleted it: nothing is known of its end", self._recorded(job_id)
        if run is not None and run.get("state") in ("scheduled", "running"):
            self.records.add("experiment", {**run, "state": "lost", "why": why})
        return self.watch.look("lost", [], None, None, f"It was lost: {why}, and its worst-case cost stays counted.")

    # On record

    def _run_id(self, job_id: str) -> str:
        import hashlib

        return f"run_{hashlib.sha256(job_id.encode()).hexdigest()[:12]}"

    def _record(self, seen: dict, **more: Any) -> None:
        if self.records is None:
            return
        about = seen["about"]
        config = {
            "script": about.get("script"),
            "script_sha256": about.get("sha256"),
            "arguments": about.get("arguments"),
        }
        config.update({"smoke": bool(about.get("smoke")), "hardware": seen["hardware"]})
        kept = {
            name: about[name]
            for name in ("limit", "usd_an_hour", "worst_usd", "epochs", "max_steps", "batch_size", "accumulation")
            if name in about
        }
        config.update({"job": kept} if kept else {})
        if self._is_anothers(seen):
            return  # it is on record there
        run = {
            "id": self._run_id(seen["job_id"]),
            "parent": about.get("parent"),
            "name": about.get("name"),
            "config": config,
            "metric": None,
            "cost_usd": None,
            "seconds": seen["ran"],
            "state": seen["state"],
            "backend": seen["backend"],
            "job_id": seen["job_id"],
            "folder": self._folder(seen),
            "artifacts": [],
            **more,
        }
        old = self._recorded(seen["job_id"])
        if old is None or old.get("state") != run["state"]:
            self.records.add("experiment", run)

    def _is_anothers(self, seen: dict) -> bool:
        """Whether another session has started it, and paid."""
        session = getattr(self.watch, "session", "")
        return bool(session) and seen["labels"].get("ml-intern-session") not in (None, session)

    def _remembered(self, job_id: str) -> dict:
        """What this session knows of a job whose service does not say it."""
        run = self._recorded(job_id) or {}
        config = run.get("config") or {}
        about = {"name": run.get("name"), "parent": run.get("parent"), "sha256": config.get("script_sha256")}
        about.update({name: config[name] for name in ("script", "arguments", "smoke") if name in config})
        return {**about, **(config.get("job") or {})} if run else {}

    def _recorded(self, job_id: str) -> dict | None:
        wanted = self._run_id(job_id)
        found = (
            [run for run in self.records.all("experiment") if run.get("id") == wanted]
            if self.records is not None
            else []
        )
        return found[-1] if found else None

    def _settle(self, seen: dict, result: dict | None = None) -> None:
        """A job that has ended: what it came to goes on record, and what it cost less than the worst case comes back, once."""
        if seen["state"] in ("scheduled", "running") or self._is_anothers(seen):
            return
        old = self._recorded(seen["job_id"])
        if self.records is None or (old is not None and old.get("state") not in ("scheduled", "running")):
            return
        if self.watch is not None and not self.watch.first(seen["job_id"]):
            return  # who waits and who watches see the same end
        cost, more = self._cost(seen), {}
        worst = seen["worst_usd"] if old is not None else None  # else another session has paid
        if cost is not None and worst is not None:
            more["correction_usd"] = round(cost - worst, 4)
        folder = self._folder(seen)
        artifacts = [f"{folder}/{(result or {}).get('model')}"] if folder and (result or {}).get("model") else []
        cause = self._cause(seen)
        why = {"why": f"{cause['kind']}: {cause['said']}"} if cause else {}
        self._record(seen, metric=self._metric(result), cost_usd=cost, artifacts=artifacts, **more, **why)
        if more and self.watch is not None:
            self.watch.correct(more["correction_usd"])

    def _metric(self, result: dict | None) -> dict | None:
        """The one number that a run is compared by: what it says itself, else the first that is usual."""
        metrics = (result or {}).get("metrics")
        if not isinstance(metrics, dict):
            return None
        own = metrics.get("metric") or (result or {}).get("metric")
        if isinstance(own, dict) and isinstance(own.get("value"), int | float):
            higher = own.get("higher_is_better") is not False
            return {"name": str(own.get("name")), "value": own["value"], "higher_is_better": higher}
        lower = ("loss", "perplexity", "wer", "cer", "mae", "mse", "rmse", "error")
        usual = (
            "accuracy",
            "macro_f1",
            "f1",
            "exact_match",
            "rougeL",
            "bleu",
            "reward",
            "spearman",
            "ndcg@10",
            "r2",
            *lower,
        )
        for name in (*[f"eval_{one}" for one in usual], *usual, *metrics):
            value = metrics.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
                return {"name": name, "value": value, "higher_is_better": not name.endswith(lower)}
        return None

    def _folder(self, seen: dict) -> str | None:
        """The run's folder in the workspace, where it is on this machine."""
        import json

        if seen["backend"] != "local" or self.jobs is None:
            return None
        about = seen["about"]
        words = about.get("arguments") or []
        if "--output" in words[:-1]:
            return words[words.index("--output") + 1]
        try:
            workspace = self.jobs.workspace
            for name in reversed(workspace.listdir("runs") if workspace.exists("runs") else []):
                path = f"runs/{name}/config.json"
                if workspace.exists(path):
                    config = json.loads(workspace.read_bytes(path))
                    if config.get("script_sha256") == about.get("sha256") and config.get("smoke") is about.get(
                        "smoke"
                    ):
                        return f"runs/{name}"
        except (OSError, ValueError, AttributeError, RuntimeError):
            pass  # the code's own files: they may be anything; and who only ends jobs has none of them
        return None

    # Looking

    def _is_local(self, job_id: str) -> bool:
        return "/" not in job_id

    def _look(self, job_id: str) -> dict:
        if self._is_local(job_id):
            self._local().status(job_id)  # says which there are, where it is none of them
            return self._seen_here(job_id)
        self._refuse_offline()
        namespace, _, identifier = job_id.partition("/")
        return self._seen_on_hub(
            self._ask_jobs(f"the job {job_id}", 60, self._api().inspect_job, job_id=identifier, namespace=namespace)
        )

    def _seen_here(self, own: str) -> dict:
        import time

        status, order = self.jobs.status(own), self.jobs.about(own)
        ended = status["ended"] or (time.time() if status["state"] == "running" else None)
        seen = {"job_id": own, "backend": "local", "state": status["state"], "exit_code": status["exit_code"]}
        seen.update(
            {
                "why": status.get("why") or "",
                "started": status["started"],
                "ends": status["started"] + order["seconds"],
            }
        )
        seen.update(
            {"ran": None if ended is None else round(ended - status["started"], 1), "hardware": None, "url": ""}
        )
        seen.update(
            {
                "gpu": status.get("gpu_utilization"),
                "peak": status["peak_memory_bytes"],
                "labels": {},
                "price": None,
                "worst_usd": None,
                "log": None,
            }
        )
        return {**seen, "about": self._about_of(order["variables"])}

    def _seen_on_hub(self, job: Any) -> dict:
        import re

        stage, message = str(getattr(job.status.stage, "value", job.status.stage)), job.status.message or ""
        state = {"SCHEDULING": "scheduled", "RUNNING": "running", "COMPLETED": "done", "CANCELED": "stopped"}.get(
            stage, "failed"
        )
        if state == "failed" and stage not in ("ERROR", "DELETED", "FAILED") and job.finished_at is None:
            # A stage that is not known yet is no end, as the client has it: a job that runs on costs money.
            state = "scheduled" if job.started_at is None else "running"
        if stage == "ERROR" and re.search(r"time.?out", message, re.IGNORECASE):
            state = "timeout"
        if stage == "DELETED":
            state = "stopped"
        about = self._about_of(job.environment or {}) or self._remembered(f"{job.owner.name}/{job.id}")
        started = job.started_at or job.created_at
        began = None if started is None else started.timestamp()
        ran = None if job.durations is None else job.durations.running_secs
        if ran is None and job.started_at is not None and job.finished_at is not None:
            ran = (job.finished_at - job.started_at).total_seconds()
        if ran is None and job.started_at is None and state in ("failed", "stopped"):
            ran = 0  # it never got its machine
        if ran is not None and job.started_at is not None:
            ran = max(1, ran)
        if stage == "ERROR" and ran and about.get("limit") and ran >= about["limit"] - 1:
            state = "timeout"
        code = re.search(r"exit code: (\d+)", message)
        labels, flavor = job.labels or {}, str(getattr(job.flavor, "value", job.flavor) or "") or None
        limit = about.get("limit")
        return {
            "job_id": f"{job.owner.name}/{job.id}",
            "backend": "hf_jobs",
            "state": state,
            "exit_code": int(code[1]) if code else 0 if state == "done" else None,
            "why": message,
            "started": began,
            "ends": None if began is None or not limit or stage != "RUNNING" else began + limit,
            "ran": ran,
            "hardware": flavor,
            "url": job.url,
            "peak": None,
            "labels": labels,
            "price": about.get("usd_an_hour"),
            "worst_usd": about.get("worst_usd"),
            "log": None,
            "about": about,
        }

    def _cost(self, seen: dict) -> float | None:
        """What it has cost, in USD: by the minute, from when it ran."""
        import math

        if seen["price"] is None or seen["backend"] == "local":
            return None
        if seen["ran"] is None:
            return 0.0 if seen["state"] == "scheduled" else None
        return round(math.ceil(seen["ran"] / 60) * seen["price"] / 60, 4)

    def _text(self, seen: dict, lines: int = 2_000) -> str:
        """The end of its log; a look reads it once."""
        if seen["log"] is None and seen["backend"] == "local":
            seen["log"] = self.jobs.logs(seen["job_id"], -200 * lines, 200 * lines)[0]
        elif seen["log"] is None:
            namespace, _, identifier = seen["job_id"].partition("/")
            options = {"job_id": identifier, "namespace": namespace, "tail": lines}
            try:
                found = self._ask_jobs(f"the log of {seen['job_id']}", 90, self._all_lines, **options)
            except (ConnectionError, TimeoutError):  # the connection broke off: once more, then it is said
                found = self._ask_jobs(f"the log of {seen['job_id']}", 90, self._all_lines, **options)
            seen["log"] = "\n".join(found)
        return seen["log"]

    def _points(self, seen: dict) -> list:
        """The points of its metrics so far. What was read before is not read again."""
        job_id = seen["job_id"]
        offset, points = self._read.get(job_id, (0, []))
        if seen["backend"] == "local":
            while True:
                text, then = self.jobs.logs(job_id, offset, 1_000_000)
                whole = text.rpartition("\n")[0]  # a line whose end has not come is read the next time
                if not whole and then - offset < 1_000_000:
                    break
                points = points + self._points_in(whole or text)
                whole = whole or text[:-1]
                offset += len(whole.encode()) + 1 if then - offset == len(text.encode()) else then - offset
        else:
            last = max([point["time"] for point in points if isinstance(point.get("time"), int | float)], default=None)
            found = self._points_in(self._text(seen, 2_000 if points else 20_000))
            if last is not None:
                found = [one for one in found if isinstance(one.get("time"), int | float) and one["time"] > last]
            points = points + found
        before = self._read.get(job_id, (0, []))[1]
        if len(points) > len(before) and "gpu_utilization" not in points[-1]:
            used = self._gpu(seen)
            if used is not None:
                points[-1] = {**points[-1], "gpu_utilization": used}
        self._read[job_id] = (offset, points)
        return points

    def _gpu(self, seen: dict) -> float | None:
        """How busy its GPUs are now, in per cent; `None` where nobody knows."""
        if seen["state"] != "running" or seen["backend"] == "local":
            return seen.get("gpu")
        namespace, _, identifier = seen["job_id"].partition("/")
        try:
            options = {"job_id": identifier, "namespace": namespace}
            samples = self._ask_jobs("what the job uses", 15, self._one_sample, **options)
        except (OSError, ValueError):  # nobody needs it
            return None
        used = [one.get("utilization") for sample in samples for one in (sample.get("gpus") or {}).values()]
        known = [float(one) for one in used if isinstance(one, int | float)]
        return sum(known) / len(known) if known else None

    def _one_sample(self, **options: Any) -> list:
        import itertools

        return list(itertools.islice(self._api().fetch_job_metrics(**options), 1))

    def _points_in(self, text: str) -> list:
        import json

        found = []
        for line in text.split("\n"):
            if line.startswith("@metrics {"):
                try:
                    point = json.loads(line[len("@metrics ") :])
                except ValueError:
                    continue
                if isinstance(point.get("step"), int | float) and not isinstance(point["step"], bool):
                    found.append(point)
        return found

    def _result(self, seen: dict) -> dict | None:
        import json

        for line in reversed(self._text(seen).split("\n")):
            if line.startswith("@result {"):
                try:
                    return json.loads(line[len("@result ") :])
                except ValueError:
                    return None
        return None

    def _plain(self, text: str) -> str:
        """A log without what is for programs."""
        return "\n".join([line for line in text.split("\n") if not line.startswith(("@metrics ", "@result "))])

    def _total(self, seen: dict, points: list) -> int | None:
        """How many steps the run has, by its script's own numbers."""
        about = seen["about"]
        if about.get("smoke"):
            return None
        if about.get("max_steps"):
            return int(about["max_steps"])
        last = [point for point in points if isinstance(point.get("epoch"), int | float) and point["epoch"] > 0]
        if not about.get("epochs") or not last:
            return None
        return round(last[-1]["step"] / last[-1]["epoch"] * about["epochs"])

    def _cause(self, seen: dict) -> dict | None:
        """Why a job failed: what the script said itself, else what its log says, and the usual remedy.

        Of one that was stopped, what was wrong with its numbers; `None` of one with nothing wrong.
        """
        import re

        if seen["state"] == "stopped" and self.watch is not None:
            for finding in self.watch.found(self._points(seen), None, None):
                if finding["serious"]:
                    said, _, remedy = finding["text"].partition(". ")
                    return {"kind": finding["kind"], "said": said + ".", "remedy": remedy, "step": finding["step"]}
        if seen["state"] not in ("failed", "timeout", "lost"):
            return None
        if seen["state"] == "timeout":
            remedy = "Give it a longer timeout, fewer steps, or faster hardware; go on from its last checkpoint with --resume."
            return {"kind": "timeout", "said": seen["why"] or "its time was over", "remedy": remedy}
        if seen["state"] == "lost":
            remedy = "Start it again; with --resume it goes on from its last checkpoint."
            return {"kind": "lost", "said": seen["why"] or "nothing is known of its end", "remedy": remedy}
        text = self._plain(self._text(seen))
        said = self._result(seen)
        if isinstance(said, dict) and isinstance(said.get("error"), dict):
            own = said["error"]
            return {
                "kind": str(own.get("kind")),
                "said": str(own.get("why"))[:500],
                "remedy": str(own.get("fix") or "")[:500],
            }
        tail = self._last_error("\n".join([*text.split("\n")[-400:], seen["why"], f"exit code: {seen['exit_code']}"]))
        errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b.*$", tail, re.MULTILINE)
        for kind, pattern, remedy in self.causes:
            found = [line.strip() for line in tail.split("\n") if re.search(pattern, line)]
            if found:
                telling = [line for line in errors if re.search(pattern, line)]
                remedy = self._smaller(seen["about"]) + remedy if kind == "out_of_memory" else remedy
                return {"kind": kind, "said": (telling or found)[-1][:500], "remedy": remedy}
        ended = [line.strip() for line in text.split("\n") if line.strip()]
        last = errors[-1] if errors else seen["why"] or (ended[-1] if ended else "it said nothing")
        return {
            "kind": "error",
            "said": last[:500],
            "remedy": "Read its log, mend the script, and smoke-run it again.",
        }

    def _last_error(self, tail: str) -> str:
        """A log from its last traceback on, with those that led to it: what was said and got over before ended nothing."""
        import re

        head = "Traceback (most recent call last):"
        parts = tail.split(head)
        first = len(parts) - 1
        led = r"direct cause of the following exception|During handling of the above exception"
        # What starts several processes ends with an error of its own, about theirs.
        if first > 1 and re.search(r"ChildFailedError|ProcessRaisedException", parts[first]):
            first -= 1
        while first > 1 and re.search(led, parts[first - 1]):
            first -= 1
        return head + head.join(parts[first:]) if first > 0 else tail

    def _smaller(self, about: dict) -> str:
        """The same rows a step with half of them at once, as training_config takes it; '' where that is not known."""
        batch, times = about.get("batch_size") or 0, about.get("accumulation")
        if batch < 2 or batch % 2 or not times or about.get("generations"):  # completions of one prompt stay together
            return ""
        changes = {"batch_size": int(batch // 2), "accumulation": int(times * 2), "activation_checkpointing": True}
        return f"Plan it again with options={changes}, as many rows a step as before. "

    # Small things

    def _boot(self) -> str:
        return (
            'cd "$(mktemp -d)" && printf %s "$ML_INTERN_SCRIPT" | base64 -d | gzip -d > train.py && '
            'if command -v uv > /dev/null; then exec uv run train.py "$@"; fi; '
            'exec "$(command -v python || command -v python3)" train.py "$@"'
        )

    def _json(self, about: dict) -> str:
        import json

        return json.dumps(about)

    def _about_of(self, variables: dict) -> dict:
        import json

        try:
            about = json.loads(variables.get("ML_INTERN_ABOUT") or "{}")
        except (ValueError, TypeError):
            return {}
        return about if isinstance(about, dict) else {}

    def _length(self, text: str) -> dict:
        """How long a run is and how large its batches."""
        found = {}
        for name in ("max_steps", "epochs", "batch_size", "accumulation", "generations"):
            found.update(self._settings(text, name, int | float))
        return {name: value for name, value in found.items() if not isinstance(value, bool) and value > 0}

    def _settings(self, text: str, name: str, kind: Any) -> dict:
        """What a plain HYPERPARAMETERS or CONFIG at a script's top says of a name, if it is of this kind."""
        import ast

        found = {}
        for node in ast.parse(text).body:
            if not isinstance(node, ast.Assign):
                continue
            if [one for one in node.targets if isinstance(one, ast.Name) and one.id in ("HYPERPARAMETERS", "CONFIG")]:
                try:
                    values = ast.literal_eval(node.value)
                except (ValueError, TypeError, SyntaxError):
                    continue
                value = values.get(name) if isinstance(values, dict) else None
                found.update({name: value} if isinstance(value, kind) and value else {})
        return found

    def _seconds(self, text: Any, what: str) -> float | None:
        import re

        if text is None:
            return None
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\w*\s*", str(text).lower())
        if match is None or float(match[1]) <= 0:
            raise ValueError(f"`{what}` is a time such as '90m' or '4h', not {text!r}.")
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]

    def _spell(self, seconds: float) -> str:
        if seconds >= 5400:
            return f"{seconds / 3600:.1f} h"
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

    def _label(self, text: str) -> str:
        import re

        return re.sub(r"[^A-Za-z0-9_-]", "-", text)[:80] or "job"

    def _own_name(self, call_id: str | None) -> str:
        import uuid

        return f"local-{(call_id or uuid.uuid4().hex)[-12:]}"

    def _pause(self, seconds: float) -> bool:
        """Waits; whether whoever waits was interrupted."""
        import time

        if self.watch is not None:
            return bool(self.watch.pause(seconds))
        time.sleep(seconds)
        return False

    def _local(self) -> Any:
        if self.jobs is None:
            raise RuntimeError(
                "There are no local jobs here: they need the local jail of an ML Intern session. Use backend='hf_jobs', or "
                "run the script in code."
            )
        return self.jobs

    # Hugging Face Jobs

    def _refuse_offline(self) -> None:
        import os

        for name in ("ML_INTERN_OFFLINE", "HF_HUB_OFFLINE"):
            if os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off"):
                raise ConnectionError(
                    f"hf_jobs is off: there is no network here ({name} is set). Use backend='local'."
                )

    def _who(self) -> dict:
        self._refuse_offline()
        about = self._ask_jobs("who you are", 30, self._api().whoami)
        return {
            "name": about["name"],
            "namespaces": [about["name"], *[one["name"] for one in about.get("orgs") or []]],
        }

    def _hardware(self) -> dict:
        """What there is now, with prices as they are now; those that nobody tells are `None`."""
        from huggingface_hub import JobHardware

        self._refuse_offline()
        hours, found = {"minute": 60, "hour": 1, "second": 3600}, {}
        try:
            listed = self._ask_jobs("the hardware of jobs", 30, self._api().list_jobs_hardware)
        except (FileNotFoundError, ValueError):  # a service of one's own may not tell
            return {one.value: {"what": "as the service has it", "usd_an_hour": None} for one in JobHardware}
        for one in listed:
            gpu = one.accelerator
            what = f"{one.cpu}, {one.ram}" + (f", {gpu.quantity}x {gpu.model} with {gpu.vram}" if gpu else "")
            known = one.unit_label in hours and one.unit_cost_micro_usd is not None
            price = round(one.unit_cost_micro_usd / 1e6 * hours[one.unit_label], 4) if known else None
            found[one.name] = {"what": what, "usd_an_hour": price}
        return found

    def _dollars(self, amount: float | None) -> str:
        if amount is None:
            return "an unknown amount"
        return f"${amount:.2f}" if amount >= 0.01 else f"${amount:.4f}"

    def _refuse_twin(self, about: dict, namespace: str) -> None:
        """Nobody pays twice for the same script with the same arguments at the same time, in one session."""
        session = getattr(self.watch, "session", "")
        labels = {"ml-intern-script": about["sha256"][:40], "ml-intern-session": session}
        for job in self._labelled(labels, namespace) if session else []:
            seen = self._seen_on_hub(job)
            same = seen["about"].get("arguments") == about["arguments"] and seen["state"] in ("scheduled", "running")
            if same and seen["labels"].get("ml-intern-call") != self.call_id:
                raise ValueError(
                    f"{seen['job_id']} runs this script already, with the same arguments: wait, or stop it."
                )

    def _find(self, labels: dict, namespace: str, stage: str | None = None) -> Any:
        """The newest job with these labels, `None` where there is none."""
        found = [job for job in self._labelled(labels, namespace, stage) if stage is None or job.status.stage == stage]
        return found[0] if found else None

    def _labelled(self, labels: dict, namespace: str, stage: str | None = None) -> list:
        """The newest jobs with these labels; whether a service looks at labels is looked at here again."""
        self._refuse_offline()
        options = {"labels": labels, "namespace": namespace, **({"status": stage} if stage else {})}
        found = self._ask_jobs("your jobs", 60, self._some_jobs, **options)
        return [job for job in found if labels.items() <= (job.labels or {}).items()]

    def _some_jobs(self, **options: Any) -> list:
        import itertools

        # A service that does not look at labels tells of every job: ours may lie far behind the newest ones.
        return list(itertools.islice(self._api().list_jobs(**options), 2_000))

    def _all_lines(self, **options: Any) -> list:
        return list(self._api().fetch_job_logs(**options))

    def _about_token(self, token: str | None, smoke: bool) -> str:
        """What a person should know of the token that the job gets: it runs code that nobody watches."""
        import os

        if not token:
            lost = "" if smoke else " What it makes is lost when it ends, but for its log."
            return f"Token: none. It reads what is public and can publish nothing.{lost} (ML_INTERN_JOB_TOKEN gives jobs one.)"
        own = token == os.environ.get("HF_TOKEN")
        warning = " !! IT IS YOUR OWN HF_TOKEN: the script can do all that you can." if own else ""
        try:
            about = self._ask_jobs("ML_INTERN_JOB_TOKEN", 30, self._api().whoami, token=token)
        except OSError as error:
            return f"Token: ML_INTERN_JOB_TOKEN, and what it may do is unknown: {error}{warning}"
        access = (about.get("auth") or {}).get("accessToken") or {}
        may = {"read": "reads all that you can read", "write": "WRITES AND DELETES ALL THAT YOU CAN"}.get(
            access.get("role"), ""
        )
        fine = access.get("fineGrained")
        if isinstance(fine, dict):
            scopes = [f"{(one.get('entity') or {}).get('name')}: {', '.join(one.get('permissions') or [])}" for one in
                      fine.get("scoped") or []]  # fmt: skip
            may = (
                "; ".join(scopes + [f"everywhere: {', '.join(fine['global'])}"] * bool(fine.get("global")))
                or "nothing"
            )
        who = f"of {about.get('name')}, {access.get('role') or 'role unknown'}"
        return f"Token: ML_INTERN_JOB_TOKEN ({who}); the script {may or 'may do what it allows'}.{warning}"

    def _ask_jobs(self, subject: str, seconds: float, call: Any, **arguments: Any) -> Any:
        """As `_ask`, with what only jobs have: no credit, no such job."""
        from huggingface_hub import errors

        try:
            return self._ask(subject, seconds, call, **arguments)
        except (OSError, ValueError) as error:
            cause = error.__cause__
            status = cause.response.status_code if isinstance(cause, errors.HfHubHTTPError) else 0
            if status == 402:
                raise PermissionError(
                    f"Hugging Face Jobs needs credit ({getattr(cause, 'server_message', None) or 'payment required'}). A "
                    f"person can add some at {self._hub()}/settings/billing, or name another namespace that has some."
                ) from error
            if status == 404:
                raise FileNotFoundError(
                    f"There is no {subject.removeprefix('the ')} on Hugging Face Jobs (any more). list has those there are."
                ) from error
            raise

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self._hub())

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
