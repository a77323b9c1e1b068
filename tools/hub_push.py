"""Publish a folder of the workspace on the Hugging Face Hub."""

from typing import Any

from smolagents import Tool


class HubPushTool(Tool):
    """Uploads a folder to a repository of the Hub in one commit, with a card that states how good it is.

    A model must be better than its baseline on held-out examples by more than chance. Files that run code when loaded,
    and files that hold keys, are refused. A call is carried out once: its id is a line of the commit's
    description, which is looked for first (`reconcile`).

    Args:
        workspace (*optional*): Where the folder is: has `copy_out(path, destination)`, as a session's workspace does.
    """

    name = "hub_push"
    description = (
        "Publishes a folder of the workspace on the Hugging Face Hub as a model, dataset or Space, private by "
        "default, in one commit; a person is asked first. A model needs `evaluation`, and is refused when it is not "
        "better than the baseline by more than chance. Pickle files are refused: save safetensors, npz, onnx or skops."
    )
    inputs = {
        "folder": {"type": "string", "description": "Folder in the workspace; everything in it is uploaded."},
        "repo_id": {"type": "string", "description": "'owner/name', or 'name' for your own namespace."},
        "repo_type": {"type": "string", "description": "model (default), dataset or space.", "nullable": True},
        "private": {"type": "boolean", "description": "Only you can see it (default true).", "nullable": True},
        "commit_message": {"type": "string", "description": "One line: what is new.", "nullable": True},
        "card": {
            "type": "string",
            "description": "README.md in Markdown, with or without front matter; default: the folder's README.md.",
            "nullable": True,
        },
        "metadata": {
            "type": "object",
            "description": "Merged into the card's front matter: license, datasets, tags, base_model, pipeline_tag.",
            "nullable": True,
        },
        "evaluation": {
            "type": "object",
            "description": (
                "For a model: {'task': 'text-classification', 'dataset': 'owner/name', 'split': 'test', "
                "'metric': 'accuracy', 'baseline': 0.85, 'candidate': 0.91, 'n': 1000 held-out examples, "
                "'higher_is_better': True}, all measured by you."
            ),
            "nullable": True,
        },
        "publish_anyway": {
            "type": "boolean",
            "description": "Publish a model that is not shown to be better (default false); a person is told so.",
            "nullable": True,
        },
        "allow_pickle": {
            "type": "boolean",
            "description": "Publish pickle files (default false); a person is told so.",
            "nullable": True,
        },
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "repo_id": {"type": "string"},
            "url": {"type": "string"},
            "commit_sha": {"type": "string"},
            "commit_url": {"type": "string"},
            "created": {"type": "boolean", "description": "Whether this call made the repository."},
            "private": {"type": "boolean"},
            "files": {"type": "integer"},
            "bytes": {"type": "integer"},
        },
    }
    effects = "write"
    sends: tuple = ("folder",)

    def __init__(self, workspace=None):
        super().__init__()
        self.workspace = workspace
        self.call_id = None

    def forward(
        self,
        folder: str,
        repo_id: str,
        repo_type: str | None = "model",
        private: bool | None = True,
        commit_message: str | None = None,
        card: str | None = None,
        metadata: dict | None = None,
        evaluation: dict | None = None,
        publish_anyway: bool | None = False,
        allow_pickle: bool | None = False,
    ) -> dict:
        import tempfile

        arguments = {
            "folder": folder,
            "repo_id": repo_id,
            "repo_type": repo_type,
            "card": card,
            "metadata": metadata,
            "evaluation": evaluation,
            "publish_anyway": publish_anyway,
            "allow_pickle": allow_pickle,
            "commit_message": commit_message,
        }
        with tempfile.TemporaryDirectory(prefix="hub_push_") as private_folder:
            plan = self._plan(private_folder, **arguments)
            if plan["problems"]:
                raise ValueError(f"Not pushed to {repo_id}: " + " ".join(plan["problems"]))
            repo_id = self._full_name(repo_id)
            if self.call_id:
                done = self.reconcile(self.call_id, **{**arguments, "repo_id": repo_id})
                if done is not None:
                    return done
            return self._commit(plan, repo_id, plan["repo_type"], private is not False, commit_message)

    def _commit(self, plan: dict, repo_id: str, repo_type: str, private: bool, message: str | None) -> dict:
        from huggingface_hub import CommitOperationAdd

        api = self._api()
        subject = f"{repo_type} {repo_id}"
        found = self._find(repo_id, repo_type)
        if found is not None and private and not found.private:
            raise ValueError(
                f"{subject} exists and is public, but private=True was asked for. "
                "Pass private=False to update it in public, or choose another repo_id."
            )
        if found is None:
            self._ask(
                f"making {subject}",
                60,
                api.create_repo,
                repo_id=repo_id,
                repo_type=repo_type,
                private=private,
                exist_ok=True,
                space_sdk=plan["sdk"] if repo_type == "space" else None,
            )
        total = sum(plan["files"].values())
        description = f"files: {len(plan['files'])}, bytes: {total}, repository created: {found is None}"
        if self.call_id:
            description += f"\n\nml-intern-call: {self.call_id}"
        operations = [CommitOperationAdd("README.md", plan["readme"].encode())]
        for name, path in plan["paths"].items():
            operations.append(CommitOperationAdd(name, path))
        # `create_commit`, because `upload_folder` makes several commits of a large folder where it has xet.
        commit = self._ask(
            f"the commit to {subject}",
            300 + total / 100_000,  # 100 kB/s is slow enough to call it hanging
            api.create_commit,
            repo_id=repo_id,
            repo_type=repo_type,
            operations=operations,
            commit_message=message or f"Upload {repo_id.split('/')[-1]}",
            commit_description=description,
        )
        return {
            "repo_id": repo_id,
            "url": self._url(repo_id, repo_type),
            "commit_sha": commit.oid,
            "commit_url": commit.commit_url,
            "created": found is None,
            "private": private if found is None else bool(found.private),
            "files": len(plan["files"]),
            "bytes": total,
        }

    def reconcile(self, call_id: str, **arguments: Any) -> dict | None:
        """Whether the push with this id happened: its result, or `None` when none of the last 20 commits is it."""
        import re

        repo_type = arguments.get("repo_type") or "model"
        repo_id = self._full_name(arguments["repo_id"])
        found = self._find(repo_id, repo_type)
        if found is None:
            return None
        commits = self._ask(
            f"the commits of {repo_type} {repo_id}",
            60,
            self._api().list_repo_commits,
            repo_id=repo_id,
            repo_type=repo_type,
        )
        for commit in commits[:20]:
            if f"ml-intern-call: {call_id}" not in commit.message.splitlines():
                continue
            noted = re.search(r"files: (\d+), bytes: (\d+), repository created: (True|False)", commit.message)
            if noted is None:
                continue
            url = self._url(repo_id, repo_type)
            return {
                "repo_id": repo_id,
                "url": url,
                "commit_sha": commit.commit_id,
                "commit_url": f"{url}/commit/{commit.commit_id}",
                "created": noted[3] == "True",
                "private": bool(found.private),
                "files": int(noted[1]),
                "bytes": int(noted[2]),
            }
        return None

    def preview(self, **arguments: Any) -> str:
        """What a person should read before saying yes. Does not fail: what could not be found out is said."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="hub_push_") as private_folder:
            plan = self._plan(private_folder, **arguments)
        private = arguments.get("private") is not False
        repo_type = plan["repo_type"]
        repo_id, state, old = arguments["repo_id"], "", ""
        try:
            repo_id = self._full_name(repo_id)
            found = self._find(repo_id, repo_type)
            if found is None:
                state = "new repository, private" if private else "NEW REPOSITORY, PUBLIC: EVERYONE CAN READ IT"
            else:
                state = "exists, is private" if found.private else "EXISTS, IS PUBLIC: EVERYONE CAN READ IT"
                old = self._readme(repo_id, repo_type, found)
                if private and not found.private:
                    plan["problems"].append("It is public, but private=True was asked for.")
        except OSError as error:
            state = (
                f"{'private' if private else 'PUBLIC: EVERYONE CAN READ IT'}; whether it exists is unknown: {error}"
            )
        lines = [f"Push to {self._url(repo_id, repo_type)} ({repo_type}; {state})"]
        if plan["problems"]:
            lines.append("WILL BE REFUSED: " + " ".join(plan["problems"]))
        for flag in plan["flags"]:
            lines.append("!! " + flag)
        if plan["verdict"]:
            lines.append("Evaluation: " + plan["verdict"])
        sizes = plan["files"]
        lines.append(f"{len(sizes)} files, {sum(sizes.values()):,} bytes, from {arguments['folder']}:")
        for name in list(sizes)[:50]:
            lines.append(f"  {name}  {sizes[name]:,}")
        if len(sizes) > 50:
            lines.append(f"  and {len(sizes) - 50} more")
        if plan["left_out"]:
            lines.append(f"Left out: {', '.join(plan['left_out'][:10])}")
        lines += ["", *self._difference(old, plan["readme"])]
        return "\n".join(lines)

    def _difference(self, old: str, new: str) -> list:
        import difflib

        if not old:
            return ["README.md (new):", *new.splitlines()]
        if old == new:
            return ["README.md stays as it is."]
        changes = difflib.unified_diff(old.splitlines(), new.splitlines(), "on the Hub", "new", lineterm="")
        return ["README.md changes:", *changes]

    def _plan(
        self,
        private_folder: str,
        folder: str,
        repo_id: str,
        repo_type: str | None = "model",
        private: bool | None = True,
        commit_message: str | None = None,
        card: str | None = None,
        metadata: dict | None = None,
        evaluation: dict | None = None,
        publish_anyway: bool | None = False,
        allow_pickle: bool | None = False,
    ) -> dict:
        """Copies the folder out of the workspace and says what would be pushed and what is wrong with that."""
        from pathlib import Path

        from huggingface_hub.utils import HFValidationError, validate_repo_id

        if self.workspace is None:
            raise RuntimeError("hub_push has no workspace to push from. Make it with HubPushTool(workspace=...).")
        repo_type = repo_type or "model"
        if repo_type not in ("model", "dataset", "space"):
            raise ValueError(f"`repo_type` is model, dataset or space, not {repo_type!r}.")
        plan = {
            "repo_type": repo_type,
            "problems": [],
            "flags": [],
            "left_out": [],
            "paths": {},
            "files": {},
            "sdk": None,
        }
        problems = plan["problems"]
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            problems.append(f"`repo_id`: {error}")

        root = Path(private_folder, "files")
        self.workspace.copy_out(folder, root)
        for path in sorted(root.rglob("*")):
            if not path.is_file():
                continue
            name = path.relative_to(root).as_posix()
            if {".git", "__pycache__", ".cache", ".ipynb_checkpoints"}.intersection(name.split("/")):
                plan["left_out"].append(name)
            else:
                plan["paths"][name] = path
                plan["files"][name] = path.stat().st_size
        total = sum(plan["files"].values())
        if len(plan["files"]) > 5_000 or total > 10_000_000_000:
            problems.append(f"{len(plan['files'])} files, {total:,} bytes: more than 5,000 files or 10 GB. Push less.")
            plan["paths"] = {}  # not worth reading them all

        pickles = [name for name, path in plan["paths"].items() if self._is_pickle(path)]
        if pickles and allow_pickle:
            plan["flags"].append(f"PICKLE FILES, WHICH RUN CODE WHEN THEY ARE LOADED: {', '.join(pickles)}")
        elif pickles:
            problems.append(
                f"{', '.join(pickles)}: pickle runs code when it is loaded. Save as safetensors, npz, onnx or skops "
                "(scikit-learn), or pass allow_pickle=True."
            )

        better, verdict = self._judge(evaluation, repo_type)
        plan["verdict"] = verdict
        if not better and publish_anyway:
            plan["flags"].append(f"PUBLISHED ANYWAY, THOUGH NOT SHOWN TO BE BETTER: {verdict}")
        elif not better:
            problems.append(f"{verdict} Improve it or evaluate on more held-out examples; do not change the figures.")

        readme = plan["paths"].pop("README.md", None)
        try:
            text = readme.read_text("utf-8") if card is None and readme is not None else card
            plan["readme"] = self._card(text, metadata or {}, evaluation, better, verdict, repo_id, repo_type)
        except ValueError as error:
            problems.append(f"The card: {error}")
            plan["readme"] = card or ""
        plan["files"] = {"README.md": len(plan["readme"].encode()), **plan["files"]}
        plan["files"]["README.md"] = len(plan["readme"].encode())
        if repo_type == "space":
            plan["sdk"] = self._front_matter(plan["readme"]).get("sdk")
            if plan["sdk"] not in ("gradio", "docker", "static"):
                problems.append("A Space needs metadata={'sdk': 'gradio'}, 'docker' or 'static'.")

        leaks = self._secrets(plan["paths"], {"README.md": plan["readme"], "commit_message": commit_message or ""})
        if leaks:
            problems.append(
                f"Keys or passwords in {', '.join(leaks)}. Remove them and, if they are real, revoke them."
            )
        return plan

    def _is_pickle(self, path: Any) -> bool:
        """By name, or by content where the name leaves it open: torch archives, numpy arrays of objects."""
        import zipfile

        if {"pkl", "pickle", "joblib", "dill", "cloudpickle"}.intersection(path.name.lower().split(".")[1:]):
            return True
        size = path.stat().st_size
        if size < 4:
            return False
        with path.open("rb") as file:
            head = file.read(256)
            file.seek(size - 1)
            end = file.read(1)
        if (
            head[:1] == b"\x80"
            and head[1] in (2, 3, 4, 5)
            and (end == b"." or path.suffix in (".pt", ".pth", ".bin", ".ckpt"))
        ):
            return True
        if head[:6] == b"\x93NUMPY":
            return b"'descr': '|O" in head
        if head[:2] != b"PK" or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith((".pkl", ".pickle")):
                    return True
                if name.endswith(".npy"):
                    with archive.open(name) as array:
                        if b"'descr': '|O" in array.read(256):
                            return True
        return False

    def _secrets(self, paths: dict, texts: dict) -> list:
        """Names of what looks like it holds a key: by file name, by the form of known keys, by the keys of this host."""
        import os
        import re

        from huggingface_hub import get_token

        names = re.compile(
            r"(^|/)(\.env(\.(?!example|sample|template)[^/]+)?|id_(rsa|dsa|ecdsa|ed25519)|[._]netrc"
            r"|\.git-credentials|\.pypirc)$"
        )
        forms = [
            rb"\bhf_[A-Za-z0-9]{30,}",
            rb"\bsk-[A-Za-z0-9]{20,}",
            rb"\bsk-(proj|ant|or|svcacct)-[A-Za-z0-9_-]{20,}",
            rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
            rb"\bgh[pousr]_[A-Za-z0-9]{36}",
            rb"\bgithub_pat_[A-Za-z0-9_]{40,}",
            rb"\bxox[abeprs]-[A-Za-z0-9-]{20,}",
            rb"\bAIza[0-9A-Za-z_-]{35}",
            rb"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----",
        ]
        own = [value for key, value in os.environ.items() if re.search(r"(TOKEN|KEY|SECRET|PASSWORD)$", key)]
        for value in [get_token() or "", *own]:
            if len(value) >= 12:
                forms.append(re.escape(value.encode()))
        keys = re.compile(b"|".join(forms))
        leaks = [name for name, text in texts.items() if keys.search(text.encode())]
        for name, path in paths.items():
            if names.search(name):
                leaks.append(name)
                continue
            with path.open("rb") as file:
                tail, chunk = b"", file.read(4_000_000)
                while chunk:
                    if keys.search(tail + chunk):
                        leaks.append(name)
                        break
                    tail, chunk = chunk[-500:], file.read(4_000_000)
        return leaks

    def _judge(self, evaluation: dict | None, repo_type: str) -> tuple:
        """Whether the candidate is better than the baseline by more than chance, and a sentence that says so."""
        import math

        if evaluation is None:
            return repo_type != "model", "" if repo_type != "model" else "A model needs `evaluation`: none was given."
        if not isinstance(evaluation, dict):
            return False, "`evaluation` is not an object."
        missing = [
            key
            for key in ("task", "dataset", "split", "metric", "baseline", "candidate", "n")
            if key not in evaluation
        ]
        if missing:
            return False, f"`evaluation` lacks {', '.join(missing)}."
        old, new, n = evaluation["baseline"], evaluation["candidate"], evaluation["n"]
        wrong = [
            x for x in (old, new, n) if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x)
        ]
        if wrong or n < 1:
            return (
                False,
                f"`evaluation`: baseline, candidate and n must be numbers and n at least 1, not {old}, {new}, {n}.",
            )
        gain = new - old if evaluation.get("higher_is_better", True) else old - new
        what = f"{evaluation['metric']} {new:g} against a baseline of {old:g} on {n:,} held-out examples of "
        what += f"{evaluation['dataset']}, {evaluation['split']}: "
        if not (0 <= old <= 1 and 0 <= new <= 1):
            return gain > 0, what + (
                "better" if gain > 0 else "not better"
            ) + " (no test: this metric is no proportion)."
        # Two proportions, one-sided, 95 %. A score of exactly 0 or 1 has no spread; it is given that of half an example.
        p = min(max(old, 0.5 / n), 1 - 0.5 / n)
        q = min(max(new, 0.5 / n), 1 - 0.5 / n)
        z = gain / math.sqrt((p * (1 - p) + q * (1 - q)) / n)
        return (
            z > 1.645,
            what + f"{'better' if z > 1.645 else 'not better by more than chance'} (z = {z:.2f}, needs 1.645).",
        )

    def _card(
        self,
        text: str | None,
        metadata: dict,
        evaluation: dict | None,
        better: bool,
        verdict: str,
        repo_id: str,
        repo_type: str,
    ) -> str:
        """The card: its front matter with `metadata` merged in, and the evaluation as model-index and as text."""
        import re

        from huggingface_hub import EvalResult
        from huggingface_hub.repocard import RepoCard
        from huggingface_hub.repocard_data import eval_results_to_model_index

        name = repo_id.split("/")[-1]
        if not text and not metadata:
            raise ValueError("there is none. Pass `card` or `metadata`, or put a README.md into the folder.")
        front = self._front_matter(text or "")
        body = re.sub(r"\A\s*---\s*\n.*?\n---[ \t]*(\n|\Z)", "", text or f"# {name}\n", count=1, flags=re.DOTALL)
        for key, value in metadata.items():
            old = front.get(key)
            if isinstance(old, list) and isinstance(value, list):
                value = old + [item for item in value if item not in old]
            front[key] = value
        if repo_type == "model" and verdict and isinstance(evaluation, dict) and "candidate" in evaluation:
            dataset = str(evaluation.get("dataset"))
            result = EvalResult(
                task_type=str(evaluation.get("task")).strip().lower().replace(" ", "-"),
                dataset_type=re.sub(r"[^\w./-]+", "-", dataset),
                dataset_name=dataset,
                dataset_split=evaluation.get("split"),
                dataset_config=evaluation.get("config"),
                dataset_revision=evaluation.get("revision"),
                metric_type=str(evaluation.get("metric")).strip().lower().replace(" ", "_"),
                metric_name=str(evaluation.get("metric")),
                metric_value=evaluation["candidate"],
            )
            front["model-index"] = eval_results_to_model_index(name, [result])
            section = (
                "<!-- evaluation -->\n## Evaluation\n\n| metric | dataset | split | n | baseline | this model |\n"
                "| --- | --- | --- | --- | --- | --- |\n"
                f"| {evaluation.get('metric')} | {dataset} | {evaluation.get('split')} | {evaluation.get('n')} "
                f"| {evaluation.get('baseline')} | {evaluation['candidate']} |\n\n{verdict}\n<!-- /evaluation -->\n"
            )
            body = re.sub(r"<!-- evaluation -->.*?<!-- /evaluation -->\n?", "", body, flags=re.DOTALL)
            body = f"{body.rstrip()}\n\n{section}"
        card = RepoCard("---\n{}\n---\n")
        for key, value in front.items():
            card.data[key] = value
        card.text = "\n" + body.strip() + "\n"
        return str(card)

    def _front_matter(self, text: str) -> dict:
        from huggingface_hub.repocard import RepoCard

        try:
            return RepoCard(text if text.lstrip().startswith("---") else "---\n{}\n---\n").data.to_dict()
        except Exception as error:  # YAML's own errors, whose package is not a requirement of this tool
            raise ValueError(f"its front matter is not YAML ({' '.join(str(error).split())[:200]}).") from error

    def _api(self) -> Any:
        import os

        endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        if endpoint != "https://huggingface.co" and "HF_HUB_DISABLE_XET" not in os.environ:
            # A Hub of one's own mostly has no xet storage, and the client no longer asks: it would fail at the first
            # large file. The client reads the variable when it is imported, so its constant is set as well.
            os.environ["HF_HUB_DISABLE_XET"] = "1"
            from huggingface_hub import constants

            constants.HF_HUB_DISABLE_XET = True
        from huggingface_hub import HfApi

        return HfApi(endpoint=endpoint)

    def _full_name(self, repo_id: str) -> str:
        if "/" in repo_id:
            return repo_id
        return f"{self._ask('who you are', 30, self._api().whoami)['name']}/{repo_id}"

    def _find(self, repo_id: str, repo_type: str) -> Any:
        """The repository as the Hub describes it, or `None` where there is none."""
        try:
            return self._ask(
                f"{repo_type} {repo_id}",
                30,
                self._api().repo_info,
                repo_id=repo_id,
                repo_type=repo_type,
                timeout=20,
            )
        except FileNotFoundError:
            return None

    def _readme(self, repo_id: str, repo_type: str, found: Any) -> str:
        import tempfile
        from pathlib import Path

        if "README.md" not in [sibling.rfilename for sibling in found.siblings or []]:
            return ""
        with tempfile.TemporaryDirectory(prefix="hub_push_") as private_folder:
            path = self._ask(
                f"README.md of {repo_type} {repo_id}",
                60,
                self._api().hf_hub_download,
                repo_id=repo_id,
                repo_type=repo_type,
                filename="README.md",
                revision=found.sha,
                local_dir=private_folder,
            )
            return Path(path).read_text("utf-8")

    def _url(self, repo_id: str, repo_type: str) -> str:
        import os

        endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        return f"{endpoint}/{'' if repo_type == 'model' else repo_type + 's/'}{repo_id}"

    def _ask(self, subject: str, seconds: float, call: Any, **arguments: Any) -> Any:
        """Calls the Hub's client; what goes wrong becomes one or two lines and the nearest builtin error.

        The client sets no time-out on most calls, repeats failing ones for half a minute and sleeps for as long as a
        `Retry-After` says: so each call gets a thread, left behind after `seconds`. The same in every tool of the Hub.
        """
        import json
        import os
        import queue
        import threading

        # `HTTPError` is httpx's in huggingface_hub 1.x and httpx2's in 2.x.
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HfHubHTTPError,
            HTTPError,
            LocalEntryNotFoundError,
            LocalTokenNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        hub = f"The Hub ({(os.environ.get('HF_ENDPOINT') or 'https://huggingface.co').rstrip('/')})"
        answers = queue.SimpleQueue()
        threading.Thread(target=self._work, args=(answers, call, arguments), daemon=True).start()
        try:
            answer, error = answers.get(timeout=seconds)
        except queue.Empty:
            answer, error = None, TimeoutError(f"no end after {seconds:.0f} s")
        if error is None:
            return answer
        if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
            error = error.__cause__  # "not in the cache" hides why the Hub did not give it
        status, said = 0, str(error).strip().split("\n")[0][:200]
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            said = f"{status}: {(error.server_message or said).splitlines()[0][:200]}"
        if isinstance(error, GatedRepoError):
            kind, text = (
                PermissionError,
                f"gates {subject}. Accept its conditions on its page with HF_TOKEN's account.",
            )
        elif isinstance(error, RevisionNotFoundError | EntryNotFoundError):
            kind, text = FileNotFoundError, f"has no such revision or file of {subject} ({said}). Check `revision`."
        elif isinstance(error, RepositoryNotFoundError):
            kind, text = FileNotFoundError, f"knows no {subject}, or hides it from you ({status}). "
            text += "Check its name and type; if it is private, set an HF_TOKEN that may read it."
        elif isinstance(error, LocalTokenNotFoundError) or status in (401, 403):
            kind, text = PermissionError, f"refused {subject} ({said}). Set an HF_TOKEN that is valid and allowed to."
        elif status == 429:
            wait = error.response.headers.get("Retry-After")
            kind, text = ConnectionError, f"limits your requests (429) at {subject}. "
            text += f"Try again after {wait} seconds." if wait else "Try again in some minutes."
        elif status >= 500:
            kind, text = ConnectionError, f"failed at {subject} ({said}). Try again in a minute."
        elif status:
            kind, text = ValueError, f"rejected {subject} ({said}). Change the arguments."
        elif isinstance(error, TimeoutError):
            kind, text = (
                TimeoutError,
                f"hangs, or holds back, {subject} ({said}). Check that it is up, then try again.",
            )
        elif isinstance(error, HTTPError):
            kind, text = (
                ConnectionError,
                f"cannot be reached, or broke off, at {subject} ({type(error).__name__}: {said}). ",
            )
            text += "Check the network and HF_ENDPOINT, then try again."
        elif isinstance(error, json.JSONDecodeError | UnicodeDecodeError | KeyError | TypeError | AttributeError):
            kind, text = ConnectionError, f"answered {subject} with something else than its API's JSON ({said}). "
            text += "Is HF_ENDPOINT a Hub, with no proxy or login page before it?"
        else:
            raise error
        raise kind(f"{hub} {text}") from error

    def _work(self, answers: Any, call: Any, arguments: dict) -> None:
        try:
            answers.put((call(**arguments), None))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for it, which raises it
            answers.put((None, error))
