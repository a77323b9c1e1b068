"""Publish a folder of the workspace on the Hugging Face Hub."""

from typing import Any

from smolagents import Tool


class HubPushTool(Tool):
    """Uploads a folder to a repository of the Hub in one commit, with a card that states how good it is.

    A model must be better than its baseline on held-out examples by more than chance. Files that run code when loaded,
    and files that hold keys, are refused. A call is carried out once: its id is a line of the commit's description,
    which is looked for first (`reconcile`).

    What must never happen: a figure on a card that belongs to other weights than those beside it; figures that an agent
    made up, where this host could have measured; weights that are loaded here; a push that nobody saw in full.

    Args:
        workspace (*optional*): Where the folder is, with `copy_out(path, destination)`.
        records (*optional*): What was measured, with `all("evaluation")` and `all("experiment")`; `held_out` is the folder
            of the pictures and scripts that go along.
        provenance (`str`, *optional*): Markdown on how this came about, for the end of the card. It takes the place of what
            an earlier push put there.
    """

    name = "hub_push"
    description = (
        "Publishes a folder of the workspace on the Hugging Face Hub as a model, dataset or Space, private by "
        "default, in one commit; a person is asked first. A model needs `evaluation`: the id that evaluate_model gave "
        "for exactly these weights. It is refused when not better than the baseline by more than chance. The card gets "
        "figures, plots, training and how to reproduce it by itself: write what it is for, and its limits. "
        "Pickle files are refused: save safetensors or skops."
    )
    inputs: dict = {
        "folder": {"type": "string", "description": "Folder in the workspace; everything in it is uploaded."},
        "repo_id": {"type": "string", "description": "'owner/name', or 'name' for your own namespace."},
        "repo_type": {"type": "string", "description": "model (default), dataset or space.", "nullable": True},
        "private": {"type": "boolean", "description": "Only you can see it (default true).", "nullable": True},
        "commit_message": {"type": "string", "description": "What is new (default: Upload <name>).", "nullable": True},
        "card": {"type": "string", "description": "README.md (default: the one of the folder).", "nullable": True},
        "metadata": {
            "type": "object",
            "description": "Any metadata of cards, merged into its front matter (default none): license, tags, "
            "datasets, base_model, pipeline_tag, language and others; lists are joined.",
            "nullable": True,
        },
        "evaluation": {
            "type": ["string", "object"],
            "description": "Needed for a model (default none): 'eval_...' of evaluate_model; only where there is no such tool "
            "{'task', 'dataset', 'split', 'metric', 'baseline': 0.85, 'candidate': 0.91, 'n': 1000 held-out examples, "
            "'higher_is_better': True, 'p_value' of a paired test}.",
            "nullable": True,
        },
        "create_pr": {
            "type": "boolean",
            "description": "As a pull request (default: where the repository is another's).",
            "nullable": True,
        },
        "publish_anyway": {"type": "boolean", "description": "Though not better (default false).", "nullable": True},
        "allow_pickle": {"type": "boolean", "description": "Allow pickle files (default false).", "nullable": True},
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
            "pull_request": {"type": ["string", "null"], "description": "Its address, where it is one."},
            "files": {"type": "integer", "description": "Files in the commit, README.md among them."},
            "bytes": {"type": "integer", "description": "Their size."},
        },
    }
    effects = "write"
    untrusted = False  # its result says what this host did
    sends: tuple = ("folder",)

    def __init__(self, workspace=None, provenance=None, records=None, model_repo_id=None):
        super().__init__()
        self.workspace = workspace
        self.records = records
        self.provenance = provenance
        self.call_id = None
        # What the files whose digests come first were found to hold: check, preview and call each look at the same.
        self._scanned = (None, [], [])

    def forward(
        self,
        folder: str,
        repo_id: str,
        repo_type: str | None = "model",
        private: bool | None = True,
        commit_message: str | None = None,
        card: str | None = None,
        metadata: dict | None = None,
        evaluation: str | dict | None = None,
        create_pr: bool | None = None,
        publish_anyway: bool | None = False,
        allow_pickle: bool | None = False,
    ) -> dict:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="hub_push_") as copy:
            options = {"card": card, "metadata": metadata, "evaluation": evaluation, "commit_message": commit_message}
            options.update({"publish_anyway": publish_anyway, "allow_pickle": allow_pickle})
            name = self._full_name(repo_id)
            plan = self._plan(copy, folder, name, repo_type, **options)
            self._refuse(plan, repo_id)
            where = {"repo_id": name, "repo_type": plan["repo_type"]}
            found = self._find(where)
            done = self._done(self.call_id, where, found, create_pr) if self.call_id else None
            return done or self._commit(plan, where, found, private is not False, commit_message, create_pr)

    def check(self, **arguments: Any) -> None:
        """Raises where the call would be refused whatever the Hub says, so that no person is asked in vain."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="hub_push_") as copy:
            self._refuse(self._plan(copy, **arguments), arguments["repo_id"])

    def must_ask(self, **arguments: Any) -> str:
        """Why a person decides about a call, whatever they have allowed before; `""` where there is no such reason."""
        wants = [name for name in ("publish_anyway", "allow_pickle") if arguments.get(name)]
        if wants:
            return f"it wants what would be refused otherwise ({', '.join(wants)})"
        known = self.records.all("evaluation") if self.records is not None else []
        mine = [one for one in known if one.get("id") == arguments.get("evaluation")]
        if mine and mine[-1]["candidate"].get("by") == "predictions":
            return "nobody saw these weights make the predictions that it was judged by"
        return ""

    def destination(self, **arguments: Any) -> dict:
        """Where a call pushes to, and who can see it there. `private` is certain: a public repository would be refused."""
        visibility = "private" if arguments.get("private") is not False else "public"
        return {"name": self._full_name(arguments["repo_id"]), "visibility": visibility}

    def _refuse(self, plan: dict, repo_id: str) -> None:
        if plan["problems"]:
            raise ValueError(f"Not pushed to {repo_id}: {' '.join(plan['problems'])}")

    def reconcile(self, call_id: str, **arguments: Any) -> dict | None:
        """Whether the push with this id happened: its result, or `None` when none of the last 20 commits is it."""
        where = {"repo_id": self._full_name(arguments["repo_id"])}
        where["repo_type"] = arguments.get("repo_type") or "model"
        return self._done(call_id, where, self._find(where), arguments.get("create_pr"))

    def preview(self, **arguments: Any) -> str:
        """What a person should read before saying yes. A Hub that is down is no obstacle: it says so."""
        import difflib
        import tempfile

        private, old, there = arguments.get("private") is not False, "", {}
        name, unknown = arguments["repo_id"], None
        try:
            name = self._full_name(name)
        except OSError as error:
            unknown = error
        with tempfile.TemporaryDirectory(prefix="hub_push_") as copy:
            plan = self._plan(copy, **{**arguments, "repo_id": name})
        where = {"repo_id": name, "repo_type": plan["repo_type"]}
        try:
            if unknown is not None:
                raise unknown
            found = self._find(where)
            if found is None:
                state = "new repository, private" if private else "NEW REPOSITORY, PUBLIC: EVERYONE CAN READ IT"
            else:
                state = "exists, is private" if found.private else "EXISTS, IS PUBLIC: EVERYONE CAN READ IT"
                there = {sibling.rfilename: sibling for sibling in found.siblings or []}
                old = self._readme(where, found)
                if self._as_pull_request(where, found, arguments.get("create_pr")):
                    state += "; AS A PULL REQUEST, which its owner decides on"
                if private and not found.private:
                    plan["problems"].append("It is public, but private=True was asked for.")
        except OSError as error:
            state = "private" if private else "PUBLIC: EVERYONE CAN READ IT"
            state += f"; whether it exists is unknown: {error}"
        lines = [f"Push to {self._url(where)} ({plan['repo_type']}; {state})"]
        if plan["problems"]:
            lines.append("WILL BE REFUSED: " + " ".join(plan["problems"]))
        lines += ["!! " + flag for flag in plan["flags"]] + ["Evaluation: " + plan["verdict"]] * bool(plan["verdict"])
        lines = [" ".join(line.split()) for line in lines]  # names in them are anybody's, and no lines of this text
        sizes = plan["sizes"]
        lines.append(f"{len(sizes)} files, {sum(sizes.values()):,} bytes, from {arguments['folder']}:")
        for name in list(sizes)[:50]:
            how = (
                self._beside(there[name], plan["blobs"][name], sizes[name])
                if name in there and name != "README.md"
                else ""
            )
            how += ", of the evaluation" if name in plan["along"] else ""
            lines.append(f"  {name if name.isprintable() else repr(name)}  {sizes[name]:,}{how}")
        if len(sizes) > 50:
            lines.append(f"  and {len(sizes) - 50} more")
        stays = [name for name in there if name not in sizes and name != ".gitattributes"]
        if stays:
            lines.append(f"Stays there as it is: {', '.join(stays[:10])}{' and more' if len(stays) > 10 else ''}")
        if plan["left_out"]:
            lines.append(f"Left out: {', '.join(plan['left_out'][:10])}")
        if not old:
            lines += ["", "README.md (new):", plan["readme"]]
        elif old == plan["readme"]:
            lines += ["", "README.md stays as it is."]
        else:
            new = plan["readme"].splitlines()
            lines += ["", "README.md changes:"]
            lines += difflib.unified_diff(old.splitlines(), new, "on the Hub", "new", lineterm="")
        # A card must not be able to clear the terminal, or to turn what is written round.
        return "".join([c if c.isprintable() or c in "\n\t" else "\ufffd" for c in "\n".join(lines)])

    def _plan(self, copy: str, folder: str, repo_id: str, repo_type: str | None = None, **options: Any) -> dict:
        """Copies the folder out of the workspace and says what would be pushed and what is wrong with that."""
        import re
        from pathlib import Path

        from huggingface_hub.utils import HFValidationError, validate_repo_id

        if self.workspace is None:
            raise RuntimeError("hub_push has no workspace to push from. Make it with HubPushTool(workspace=...).")
        repo_type = repo_type or "model"
        if repo_type not in ("model", "dataset", "space"):
            raise ValueError(f"`repo_type` is model, dataset or space, not {repo_type!r}.")
        root = Path(copy, "files")
        digests = self.workspace.copy_out(folder, root)
        if root.is_file():
            raise ValueError(f"`folder` is to be a folder, but {folder} is a file. Put it into a folder of its own.")
        problems, flags, left_out, paths = [], [], [], {}
        for path in sorted([path for path in root.rglob("*") if path.is_file()]):
            name = path.relative_to(root).as_posix()
            if {".git", "__pycache__", ".cache", ".ipynb_checkpoints"}.intersection(name.split("/")):
                left_out.append(name)
            else:
                paths[name] = path
        total = sum([path.stat().st_size for path in paths.values()])
        if len(paths) > 5_000 or total > 10_000_000_000:
            raise ValueError(f"{folder} has {len(paths):,} files, {total:,} bytes. Push at most 5,000 and 10 GB.")
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            problems.append(f"`repo_id`: {error}")

        own = paths.pop("README.md", None)
        if digests is None or digests != self._scanned[0]:
            pickles = [name for name, path in paths.items() if self._is_pickle(path)]
            self._scanned = (digests, pickles, self._secrets(paths, {}))
        _, pickles, leaks = self._scanned
        if pickles and options.get("allow_pickle"):
            flags.append(f"PICKLE FILES, WHICH RUN CODE WHEN THEY ARE LOADED: {', '.join(pickles)}")
        elif pickles:
            problems.append(
                f"{', '.join(pickles)}: pickle runs code when it is loaded. Save as safetensors, npz, onnx or skops "
                "(scikit-learn), or pass allow_pickle=True."
            )
        known = self._digests(root, paths, digests)
        found = self._evaluated(options.get("evaluation"), repo_type, known)
        verdict = found["verdict"]
        if options.get("publish_anyway"):
            flags += [f"PUBLISHED ANYWAY: {doubt}" for doubt in found["doubts"]]
            flags += [] if found["better"] else [f"PUBLISHED ANYWAY, THOUGH NOT SHOWN TO BE BETTER: {verdict}"]
        else:
            problems += found["doubts"]
            problems += [] if found["better"] or found["doubts"] else [verdict]
        flags += found["flags"]
        data = (".npz", ".npy", ".bin", ".json", ".txt", ".pb")  # which data may be as well
        heavy = [name for name in paths if not name.endswith(data)]
        if repo_type != "model" and self._weights_sha256(dict.fromkeys(heavy, "")):
            flags.append(f"WEIGHTS IN A {repo_type.upper()}, which nobody has to have evaluated")
        along = {name: path for name, path in self._along(found["record"]).items() if name not in paths}

        readme = options.get("card")
        try:
            readme = own.read_text("utf-8") if readme is None and own is not None else readme or ""
            about = {
                "name": repo_id.split("/")[-1],
                "repo_type": repo_type,
                "paths": [*paths, *along],
                "repo_id": repo_id,
            }
            readme = self._card(readme, options.get("metadata"), found, about)
            front = self._front_matter(readme)
            problems += [f"The card: {one}" for one in self._against_rules(front, repo_type)]
            sdk = front.get("sdk")
            if repo_type == "space" and sdk not in ("gradio", "docker", "static"):
                problems.append("A Space needs metadata={'sdk': 'gradio'}, 'docker' or 'static'.")
            if found["record"] is not None and not front.get("license"):
                flags.append("No licence is stated: metadata={'license': ...}")
            if found["record"] is not None and not re.search(r"(?im)^#+ .*\b(limit|bias|risk|caveat)", readme):
                flags.append("The card names no limits: it has no section such as `## Limits`")
        except ValueError as error:
            problems.append(f"The card: {error}")
            readme, sdk = readme or "", None
        texts = {"README.md": readme, "commit_message": options.get("commit_message") or ""}
        leaks = self._secrets(along, texts) + leaks
        if leaks:
            problems.append(f"Keys or passwords in {', '.join(leaks)}. Remove them and revoke them if they are real.")
        paths = {"README.md": Path(copy, "README.md"), **paths, **along}
        paths["README.md"].write_text(readme, "utf-8", newline="")
        sizes = {name: path.stat().st_size for name, path in paths.items()}
        blobs = {name: [known.get(name), self._blob(path, sizes[name])] for name, path in paths.items()}
        plan = {
            "blobs": blobs,
            "repo_type": repo_type,
            "problems": problems,
            "flags": flags,
            "left_out": left_out,
            "paths": paths,
        }
        return {**plan, "sizes": sizes, "readme": readme, "sdk": sdk, "verdict": verdict, "along": list(along)}

    def _blob(self, path: Any, size: int) -> str | None:
        """What git calls the content of a file; of large ones the Hub gives a SHA-256."""
        import hashlib

        if size > 20_000_000:
            return None
        return hashlib.sha1(b"blob %d\0" % size + path.read_bytes(), usedforsecurity=False).hexdigest()

    def _beside(self, there: Any, mine: list, size: int) -> str:
        """What a file is to the one of its name on the Hub."""
        its = there.lfs.sha256 if there.lfs else there.blob_id
        if its and its in mine:
            return ", is there already"
        return ", takes the place of what is there" + (f" ({there.size:,})" if there.size not in (None, size) else "")

    def _digests(self, root: Any, paths: dict, copied: Any) -> dict:
        """File to SHA-256, as the workspace found it when it copied them, else read again."""
        import hashlib

        names = sorted([path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()])
        known = sorted([(one.path, one.sha256) for one in copied or []])
        if len(known) == len(names) and not [n for n, one in zip(names, known, strict=True) if not one[0].endswith(n)]:
            return {name: one[1] for name, one in zip(names, known, strict=True) if name in paths}
        found = {}
        for name, path in paths.items():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def _along(self, record: Any) -> dict:
        """Pictures of the evaluation and the script of the training, as this host kept them: name in the repository to file."""
        import re
        from pathlib import Path

        if record is None or self.records is None:
            return {}
        held, mark = str(record.get("held_out")), str(record.get("id"))
        if not re.fullmatch(r"held_\w+", held) or not re.fullmatch(r"eval_\w+", mark):
            return {}
        folder = Path(self.records.held_out, held, mark)
        names = [str(name).split("/")[-1] for name in record.get("plots") or []]
        found = {f"evaluation/{name}": folder / name for name in names if re.fullmatch(r"\w+\.png", name)}
        found.update({"train.py": folder / "train.py"} if record.get("script") else {})
        found.update({"evaluation/metric.py": folder / "metric.py"} if record.get("metric_code") else {})
        return {name: path for name, path in found.items() if path.is_file()}

    def _commit(
        self, plan: dict, where: dict, found: Any, private: bool, message: str | None, create_pr: bool | None
    ) -> dict:
        from huggingface_hub import CommitOperationAdd

        subject = f"{where['repo_type']} {where['repo_id']}"
        if found is None:
            sdk = {"space_sdk": plan["sdk"]} if where["repo_type"] == "space" else {}
            self._ask(f"making {subject}", 60, self._api().create_repo, **where, private=private, **sdk)
        elif private and not found.private:
            raise ValueError(
                f"{subject} exists and is public, but private=True was asked for. "
                "Pass private=False to update it in public, or choose another repo_id."
            )
        operations = [CommitOperationAdd(name, path) for name, path in plan["paths"].items()]
        total = sum(plan["sizes"].values())
        description = f"files: {len(operations)}, bytes: {total}, repository created: {found is None}"
        if self.call_id:
            description += f"\n\nml-intern-call: {self.call_id}"
        asks = self._as_pull_request(where, found, create_pr)
        # `create_commit`, because `upload_folder` makes several commits of a large folder where it has xet.
        commit = self._ask(
            f"the commit to {subject}",
            300 + total / 100_000,  # 100 kB/s is slow enough to call it hanging
            self._api().create_commit,
            **where,
            operations=operations,
            commit_message=message or f"Upload {where['repo_id'].split('/')[-1]}",
            commit_description=description,
            create_pr=asks,
        )
        is_private = private if found is None else bool(found.private)
        counts = (found is None, is_private, len(operations), total)
        return self._result(where, commit.oid, *counts, commit.pr_url if asks else None)

    def _as_pull_request(self, where: dict, found: Any, create_pr: bool | None) -> bool:
        """Whether to propose the commit: if asked to, or where the repository is neither one's own nor an organisation's."""
        if create_pr is not None or found is None:
            return bool(create_pr) and found is not None
        me = self._ask("who you are", 30, self._api().whoami)
        mine = [me["name"], *[organisation["name"] for organisation in me.get("orgs") or []]]
        return where["repo_id"].split("/")[0] not in mine

    def _done(self, call_id: str, where: dict, found: Any, create_pr: bool | None) -> dict | None:
        """The result of the push with this id, among the last commits or one's own pull requests; `None` if it is not there."""
        if found is None:
            return None
        subject = f"the commits of {where['repo_type']} {where['repo_id']}"
        for commit in self._ask(subject, 60, self._api().list_repo_commits, **where)[:20]:
            done = self._noted(call_id, commit.message, where, found, commit.commit_id, None)
            if done:
                return done
        if not self._as_pull_request(where, found, create_pr):
            return None
        subject = f"the pull requests of {where['repo_type']} {where['repo_id']}"
        asked = {**where, "author": self._ask("who you are", 30, self._api().whoami)["name"]}
        for number in self._ask(subject, 60, self._numbers, **asked, discussion_type="pull_request")[:10]:
            opened = self._ask(subject, 60, self._api().get_discussion_details, **where, discussion_num=number)
            texts = [getattr(event, "content", None) or "" for event in opened.events]
            commits = [event.oid for event in opened.events if event.type == "commit"]
            for text in texts:
                done = self._noted(call_id, text, where, found, commits[-1] if commits else "", opened.url)
                if done:
                    return done
        return None

    def _numbers(self, **asked: Any) -> list:
        return [discussion.num for discussion in self._api().get_repo_discussions(**asked)]

    def _noted(self, call_id: str, text: str, where: dict, found: Any, sha: str, pull: Any) -> dict | None:
        import re

        noted = re.search(r"files: (\d+), bytes: (\d+), repository created: (True|False)", text)
        if not noted or f"ml-intern-call: {call_id}" not in text.splitlines():
            return None
        return self._result(where, sha, noted[3] == "True", bool(found.private), int(noted[1]), int(noted[2]), pull)

    def _result(
        self, where: dict, sha: str, created: bool, private: bool, files: int, size: int, pull: Any = None
    ) -> dict:
        url = self._url(where)
        commit = {"commit_sha": sha, "commit_url": f"{url}/commit/{sha}", "created": created, "private": private}
        return {"repo_id": where["repo_id"], "url": url, **commit, "pull_request": pull, "files": files, "bytes": size}

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
        if head[0] == 0x80 and head[1] in (2, 3, 4, 5):
            return end == b"." or path.suffix in (".pt", ".pth", ".bin", ".ckpt")
        if head[:6] == b"\x93NUMPY":
            return b"'descr': '|O" in head
        if head[:2] != b"PK" or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith((".pkl", ".pickle")):
                    return True
                if name.endswith(".npy") and b"'descr': '|O" in archive.open(name).read(256):
                    return True
        return False

    # Shared: writing
    def _secrets(self, paths: dict, texts: dict) -> list:
        """Names of what looks like it holds a key: by file name, by the form of known keys, by this host's own."""
        import os
        import re

        names = r"(^|/)(\.env(\.(?!example|sample|template)[^/]+)?|id_(rsa|dsa|ecdsa|ed25519)|[._]netrc"
        names += r"|\.git-credentials|\.pypirc)$"
        # Each begins with plain letters, for which `re` looks twenty times faster than for all of them in one pattern.
        forms = [rb"hf_(?<=\bhf_)[A-Za-z0-9]{30,}", rb"sk-(?<=\bsk-)([A-Za-z0-9]{20}|(proj|ant|or|svcacct)-[\w-]{20})"]
        forms += [rb"A(?<=\bA)(KI|SI)A[0-9A-Z]{16}\b", rb"gh(?<=\bgh)[pousr]_[A-Za-z0-9]{36}"]
        forms += [rb"gith(?<=\bgith)ub_pat_\w{40}", rb"xox(?<=\bxox)[abeprs]-[A-Za-z0-9-]{20}"]
        forms += [rb"AIza(?<=\bAIza)[\w-]{35}", rb"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----"]
        own = [value for key, value in os.environ.items() if re.search(r"(TOKEN|KEY|SECRET|PASSWORD)$", key)]
        forms += [re.escape(value.encode()) for value in own if len(value) >= 12]
        keys = [re.compile(form) for form in forms]
        leaks = [name for name, text in texts.items() if [key for key in keys if key.search(text.encode())]]
        for name, path in paths.items():
            with path.open("rb") as file:
                tail, chunk, leak = b"", file.read(4_000_000), re.search(names, name)
                while chunk and not leak:
                    chunk = tail + chunk
                    leak = [key for key in keys if key.search(chunk)]
                    tail, chunk = chunk[-500:], file.read(4_000_000)
            if leak:
                leaks.append(name)
        return leaks

    def _api(self) -> Any:
        import os

        from huggingface_hub import HfApi, constants

        endpoint = self._hub()
        if endpoint != "https://huggingface.co" and "HF_HUB_DISABLE_XET" not in os.environ:
            # A Hub of one's own mostly has no xet storage, and the client no longer asks: it would fail at the first
            # large file. It read the variable when it was imported (smolagents does that), so its constant is set.
            constants.HF_HUB_DISABLE_XET = True
        return HfApi(endpoint=endpoint)

    # End of shared: writing

    def _judge(self, evaluation: Any, repo_type: str) -> tuple:
        """Whether the candidate is better than the baseline by more than chance, and a sentence that says so."""
        import math

        if repo_type != "model":
            return evaluation is None, "" if evaluation is None else "`evaluation` is for models: leave it out."
        if not isinstance(evaluation, dict):
            return False, "A model needs `evaluation`: measure it and a baseline on held-out examples first."
        wanted = ("task", "dataset", "split", "metric", "baseline", "candidate", "n")
        missing = [key for key in wanted if evaluation.get(key) is None]
        if missing:
            return False, f"`evaluation` lacks {', '.join(missing)}."
        old, new, n = evaluation["baseline"], evaluation["candidate"], evaluation["n"]
        numbers = [x for x in (old, new, n) if isinstance(x, int | float) and math.isfinite(x)]
        if len(numbers) < 3 or n < 1:
            return False, f"`evaluation`: baseline, candidate and n must be numbers, n at least 1: {old}, {new}, {n}."
        gain = new - old if evaluation.get("higher_is_better", True) else old - new
        p_value = evaluation.get("p_value")
        if p_value is not None and not (isinstance(p_value, int | float) and 0 <= p_value <= 1):
            return False, f"`evaluation`: p_value must be a number from 0 to 1, not {p_value!r}."
        if p_value is not None:
            better, how = gain > 0 and p_value < 0.05, f"by more than chance (claimed paired test: p = {p_value:g}, "
            how += "needs less than 0.05)"
        elif not (0 <= old <= 1 and 0 <= new <= 1):
            better, how = gain > 0, "(untested: this metric is no proportion)"
        else:
            # Two proportions, one-sided, 95 %. A score of 0 or 1 has no spread: it is given that of half an example.
            p, q = [min(max(score, 0.5 / n), 1 - 0.5 / n) for score in (old, new)]
            z = gain / math.sqrt((p * (1 - p) + q * (1 - q)) / n)
            better, how = z > 1.645, f"by more than chance (z = {z:.2f}, needs 1.645)"
        what = f"{evaluation['metric']} {new:g} against a baseline of {old:g} on {n:,} held-out examples of "
        return better, f"{what}{evaluation['dataset']}, {evaluation['split']}: {'' if better else 'not '}better {how}."

    def _evaluated(self, evaluation: Any, repo_type: str, digests: dict) -> dict:
        """What is known of how good it is: {record, said, better, verdict, doubts, flags}; `doubts` are more than not better."""
        import re

        told = {"record": None, "said": evaluation, "better": False, "verdict": "", "doubts": [], "flags": []}
        if not isinstance(evaluation, str) or repo_type != "model":
            told["better"], told["verdict"] = self._judge(evaluation, repo_type)
            if repo_type == "model" and isinstance(evaluation, dict) and self.records is not None:
                told["doubts"] = [
                    "The figures are the agent's own: this host has not measured them. Use evaluate_model, and pass the "
                    "id of its result."
                ]
                told["flags"] = ["FIGURES BY THE AGENT, NOT MEASURED BY THIS HOST"]
            return told
        known = self.records.all("evaluation") if self.records is not None else []
        mine = [one for one in known if one.get("id") == evaluation]
        if not mine:
            there = ", ".join([str(one.get("id")) for one in known[-3:]]) or "none"
            return {**told, "verdict": f"There is no evaluation {evaluation!r} on record (the last ones: {there})."}
        record = mine[-1]
        candidate, pushed = record["candidate"], self._weights_sha256(digests)
        belongs = bool(pushed) and candidate.get("weights_sha256") == pushed
        if not candidate.get("weights_sha256"):
            told["doubts"].append(
                f"{evaluation} does not say of which weights it is. Score again, with their 'folder'."
            )
        elif not belongs:
            told["doubts"].append(
                f"{evaluation} is of other weights: of those in {candidate.get('folder')} as they were then "
                f"({candidate['weights_sha256'][:12]}, not {str(pushed)[:12]}). Push those, or evaluate these."
            )
        told["doubts"] += [str(problem) for problem in record.get("problems") or []]
        for role in ("candidate", "baseline"):
            if record[role].get("by") == "predictions":
                who = "these weights" if role == "candidate" else "its model"
                told["flags"].append(
                    f"The {role}'s predictions are a file that the agent's code wrote: nobody saw {who} make them"
                )
            if record[role].get("script"):
                told["flags"].append(
                    f"A script of the agent's ({record[role]['script']}) made the {role}'s predictions"
                )
        if record.get("metric_code"):
            told["flags"].append(
                f"The metric is code of the agent's ({record['metric_code']['file']}): it goes along as evaluation/metric.py"
            )
        if (record.get("contamination") or {}).get("checked") is not True:
            told["flags"].append("Whether training rows overlap with the held-out ones was not checked")
        told["flags"] += [
            str(one) for one in record.get("warnings") or [] if "was not checked" in one or "were not checked" in one
        ]
        if re.search(r"has seen|can read", str(record.get("secrecy"))):
            told["flags"].append(f"The figures are less sure than they look. {record['secrecy']}")
        # Whoever pushes other weights all the same gets a card without these figures.
        told["record"] = record if belongs else None
        return {**told, "better": record.get("better") is True, "verdict": self._sentence(record)}

    def _sentence(self, record: dict) -> str:
        data, difference = record["dataset"], record["difference"]
        sides = [
            f"{side['value']:.4g} ({side['interval'][0]:.4g} to {side['interval'][1]:.4g})"
            for side in (record["candidate"], record["baseline"])
        ]
        new, old = sides
        how = f"{difference['test']}, p = {difference['p_value']:.2g}, needs less than 0.05"
        what = f"{record['metric']} {new} against {old} of {record['baseline']['name']} on {record['n']:,} held-out examples of "
        what += f"{data['id']}, {data['split']}"
        return f"{what}: {'' if record.get('better') else 'not '}better by more than chance ({how})."

    def _card(self, text: str, metadata: Any, found: dict, about: dict) -> str:
        """The card: its front matter with `metadata` merged in, and what was measured as model-index and as text."""
        import re

        from huggingface_hub.repocard import RepoCard
        from huggingface_hub.repocard_data import eval_results_to_model_index

        if not isinstance(metadata or {}, dict):
            raise ValueError("`metadata` is no object.")  # noqa: TRY004 - listed with the card's other problems
        if not text and not metadata:
            raise ValueError("there is none. Pass `card` or `metadata`, or put a README.md into the folder.")
        text = text.replace("\r\n", "\n")
        front = self._front_matter(text)
        body = re.sub(r"\A\s*---[ \t]*\n(.*?\n)?---[ \t]*(\n|\Z)", "", text, count=1, flags=re.DOTALL)
        body = body or f"# {about['name']}\n"
        for key, value in (metadata or {}).items():
            old = front.get(key)
            both = isinstance(old, list) and isinstance(value, list)
            front[key] = old + [item for item in value if item not in old] if both else value
        section, record, training = "## Evaluation\n\nNot evaluated on held-out examples.\n", found["record"], ""
        if about["repo_type"] == "model" and record is not None:
            self._known(front, record, about["paths"])
            results = self._results(record, front.get("pipeline_tag"))
            section, training = self._figures(record, found, about["paths"]), self._training(record, about)
        elif (
            about["repo_type"] == "model"
            and isinstance(found["said"], dict)
            and "held-out examples of" in found["verdict"]
        ):
            results, section = self._claimed(found["said"], found["verdict"])
        else:
            results = []
        if results:
            front["model-index"] = eval_results_to_model_index(about["name"], results)
        parts = {"evaluation": section, "training": training} if about["repo_type"] == "model" else {}
        if self.provenance:
            parts["provenance"] = self.provenance.replace("<!--", "&lt;!--").strip() + "\n"
        for name, part in parts.items():
            body = re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->\n?", "", body, flags=re.DOTALL).rstrip()
            body += f"\n\n<!-- {name} -->\n{part}<!-- /{name} -->\n" if part else "\n"
        card = RepoCard("---\n{}\n---\n")
        for key, value in front.items():
            card.data[key] = value
        card.text = f"\n{body.strip()}\n"
        return str(card)

    def _against_rules(self, front: dict, repo_type: str) -> list:
        """What the Hub would refuse of a card's metadata, known before a person is asked."""
        import re

        from huggingface_hub import ModelCardData
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        found, texts = [], ("license", "pipeline_tag", "library_name", "sdk", "base_model_relation", "pretty_name")
        lists = {
            name: front.get(name) for name in ("license", "language", "tags", "datasets", "base_model", "metrics")
        }
        lists = {
            name: value if isinstance(value, list) else [value] for name, value in lists.items() if value is not None
        }
        found += [f"`{n}` is a text." for n in texts if n != "license" and not isinstance(front.get(n) or "", str)]
        found += [
            f"`{n}` is a text or a list of texts."
            for n, v in lists.items()
            if [x for x in v if not isinstance(x, str)]
        ]
        if found:
            return found
        for name in lists.get("license", []):
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
                found.append(f"`license` is an identifier such as apache-2.0, not {name!r}.")
        if not re.fullmatch(r"[a-z0-9-]*", front.get("pipeline_tag") or ""):
            found.append(
                f"`pipeline_tag` is one of the Hub's tasks, such as text-classification, not {front['pipeline_tag']!r}."
            )
        if front.get("base_model_relation") not in (None, "adapter", "finetune", "merge", "quantized"):
            found.append("`base_model_relation` is adapter, finetune, merge or quantized.")
        for name in ("datasets", "base_model") if repo_type == "model" else ():
            for one in lists.get(name, []):
                try:
                    validate_repo_id(one)
                except HFValidationError as error:
                    found.append(f"`{name}`: {error}")
        if repo_type == "model" and "model-index" in front:
            try:
                ModelCardData(model_name="x", **front)
            except Exception as error:  # noqa: BLE001 - of metadata that anybody wrote anything may come; it is told
                found.append(f"`model-index` is not as the Hub has it ({' '.join(str(error).split())[:150]}).")
        return found

    def _claimed(self, evaluation: dict, verdict: str) -> tuple:
        """Figures that came with the call: as a result of the Hub's, and as a section."""
        import re

        from huggingface_hub import EvalResult

        said = {key: str(evaluation[key]) for key in ("task", "dataset", "split", "metric")}
        old, new, n = round(evaluation["baseline"], 6), round(evaluation["candidate"], 6), evaluation["n"]
        result = EvalResult(
            task_type=said["task"].strip().lower().replace(" ", "-"),
            task_name=said["task"],
            dataset_type=re.sub(r"[^\w./-]+", "-", said["dataset"]),
            dataset_name=said["dataset"],
            dataset_config=evaluation.get("config"),
            dataset_split=said["split"],
            dataset_revision=evaluation.get("revision"),
            metric_type=said["metric"].strip().lower().replace(" ", "_"),
            metric_name=said["metric"],
            metric_value=new,
            metric_args={"baseline": old, "n": n, "split": said["split"]},
        )
        heads = f"| metric | dataset | split | n | baseline | this model |\n{'| --- ' * 6}|\n"
        row = f"| {said['metric']} | {said['dataset']} | {said['split']} | {n} | {old} | {new} |"
        return [result], f"## Evaluation\n\n{heads}{row}\n\n{verdict}\n"

    def _known(self, front: dict, record: dict, paths: list) -> None:
        """Metadata that follows from what is on record, where the card does not say it itself."""
        run, data = record.get("run") or {}, record["dataset"]
        base = run.get("base_model") or (record.get("provenance") or {}).get("base")
        pairs = [(run.get("dataset"), run.get("dataset_revision")), (data["id"], data.get("revision"))]
        hub = [name for name, revision in pairs if isinstance(name, str) and revision]  # else a file of the workspace
        kinds = {"adapter_config.json": "peft", "modules.json": "sentence-transformers", "config.json": "transformers"}
        found = [kind for name, kind in kinds.items() if name in paths]
        found = ["sklearn"] if [name for name in paths if name.endswith(".skops")] else found
        tags = {
            "token-classification": "token-classification",
            "generation": "text-generation",
            "retrieval": "sentence-similarity",
        }
        tags.update({"language-modeling": "text-generation"})
        usual = ("text-classification", "token-classification", "image-classification", "tabular-classification")
        task = (
            run.get("method") if run.get("method") in usual else record.get("pipeline_tag") or tags.get(record["task"])
        )
        wanted = {"datasets": list(dict.fromkeys(hub)), "library_name": (found or [None])[0], "pipeline_tag": task}
        # A folder of the workspace may have such a name as well: only what was read from the Hub is said to be there.
        there = run.get("base_revision") if run.get("base_model") else (record.get("provenance") or {}).get("revision")
        wanted["base_model"] = base if isinstance(base, str) and there else None
        if wanted["base_model"] and not front.get("base_model"):
            wanted["base_model_relation"] = "adapter" if "adapter_config.json" in paths else "finetune"
        for key, value in wanted.items():
            if value and not front.get(key):
                front[key] = value
        old = front.get("tags")
        front["tags"] = list(dict.fromkeys([*(old if isinstance(old, list) else [old] if old else []), "ml-intern"]))

    def _results(self, record: dict, task: Any) -> list:
        """The figures as the Hub's model-index has them, the one that decided first."""
        import re

        from huggingface_hub import EvalResult

        data, results = record["dataset"], []
        names = [record["metric"], *[name for name in record["metrics"] if name != record["metric"]]]
        task = task if isinstance(task, str) else record["task"]
        for name in names:
            pair = record["metrics"][name]
            extra = {"baseline": round(pair["baseline"], 6), "n": record["n"], "split": data["split"]}
            if name == record["metric"]:
                extra["interval_95"] = [round(one, 6) for one in record["candidate"]["interval"]]
            results.append(
                EvalResult(
                    task_type=task,
                    dataset_type=re.sub(r"[^\w./-]+", "-", str(data["id"])),
                    dataset_name=str(data["id"]),
                    dataset_config=data.get("config"),
                    dataset_split=data["split"],
                    dataset_revision=data.get("revision"),
                    metric_type=name,
                    metric_name=name,
                    metric_value=round(pair["candidate"], 6),
                    metric_args=extra,
                )
            )
        return results

    def _cell(self, value: Any, most: int = 400) -> str:
        """A value as it can stand in a table of Markdown, on one line."""
        import json
        import re

        text = value if isinstance(value, str) else json.dumps(value, default=str)
        return re.sub(r"([|`<>*\[\]\\])", r"\\\1", " ".join(text.split())[:most])

    def _figures(self, record: dict, found: dict, paths: list) -> str:
        """The section on how good it is: every figure as this host measured it."""
        data, new, old = record["dataset"], record["candidate"], record["baseline"]
        where = f"{self._cell(data['id'])}, split {self._cell(data['split'])}"
        where += f", revision {self._cell(data['revision'])}" if data.get("revision") else ""
        spans = [
            f"{side['value']:.4f} ({side['interval'][0]:.4f} to {side['interval'][1]:.4f})" for side in (old, new)
        ]
        lines = ["## Evaluation", "", f"On {record['n']:,} held-out rows of {where}.", ""]
        lines += [f"| metric | baseline: {self._cell(old['name'])} | this model |", "| --- | --- | --- |"]
        lines += [f"| {record['metric']} (95 %) | {spans[0]} | {spans[1]} |"]
        for name, pair in record["metrics"].items():
            if name != record["metric"]:
                lines.append(f"| {name} | {pair['baseline']:.4f} | {pair['candidate']:.4f} |")
        gain = record["difference"]
        better = "Better" if record.get("better") else "Not better"
        span = " to ".join([f"{one:+.4f}" for one in gain["interval"]])
        sure = f"{self._cell(gain['test'])}, p = {gain['p_value']:.2g}"
        lines += [
            "",
            f"**{better} than the baseline by more than chance**: {gain['value']:+.4f} (95 %: {span}; {sure}).",
            "",
        ]
        lines += [f"Intervals: {new['method']}."]
        for role, side in (("this model", new), ("the baseline", old)):
            if side.get("seeds"):
                seeds = side["seeds"]
                lines.append(
                    f"Over {seeds['n']} seeds, {record['metric']} of {role}: {seeds['mean']:.4f} on average, standard deviation "
                    f"{seeds['std']:.4f}."
                )
        pictures = [name for name in ("comparison", "confusion", "predictions") if f"evaluation/{name}.png" in paths]
        lines += [line for name in pictures for line in ("", f"![{name}](evaluation/{name}.png)")]
        if 0 < len(record.get("per_class") or {}) <= 40:
            # Numbers, where the picture may have had no room or no font for the names.
            numbered = [label for label in record["per_class"] if len(label) > 24 or max(label or " ") > "\u052f"]
            lines += ["", "| # " * bool(numbered) + "| class | precision | recall | F1 | rows |"]
            lines += ["| --- " * (5 + bool(numbered)) + "|"]
            for number, label in enumerate(record["per_class"], 1):
                one = record["per_class"][label]
                values = [" " if one[key] is None else f"{one[key]:.3f}" for key in ("precision", "recall", "f1")]
                begin = f"| {number} " if numbered else ""
                lines.append(f"{begin}| {self._cell(label)} | {' | '.join(values)} | {one['n']} |")
        lines += ["", "What these figures rest on:", "", *[f"- {line}" for line in self._rests(record)]]
        return "\n".join(lines) + "\n"

    def _rests(self, record: dict) -> list:
        """How far they can be trusted, a line each."""
        who = {"harness": "Predictions and figures were made by the host of the agent, not by its code."}
        lines = [
            who.get(record.get("by"), "Figures were computed by the host, of predictions that the agent's code wrote.")
        ]
        scripts = [f"of the {role}" for role in ("candidate", "baseline") if record[role].get("script")]
        lines += (
            [f"The predictions {' and '.join(scripts)} were made by a script that the agent wrote."] if scripts else []
        )
        lines += [self._cell(record[name]) for name in ("secrecy", "tokenisation") if record.get(name)]
        overlap = record.get("contamination") or {}
        if overlap.get("checked"):
            lines.append(
                f"Of {record['n']:,} held-out rows {overlap['rows']} are in the {overlap['train_rows']:,} training rows "
                "(the same, alike but for case and signs, nearly alike, or in pieces)."
            )
        else:
            lines.append("Whether training rows overlap with the held-out ones was not checked.")
        if (record.get("looks") or 1) > 1:
            lines.append(f"It is number {record['looks']} of the candidates that were scored on these rows.")
        origin = record.get("provenance") or {}
        if origin.get("checked"):
            lines.append(f"The weights compared with {self._cell(origin['base'])}: {self._cell(origin['verdict'])}.")
        lines += [f"A problem that was found: {self._cell(str(one))}" for one in record.get("problems") or []]
        return [
            *lines,
            *[self._cell(str(one)) for one in record.get("warnings") or [] if "Whether training rows" not in one],
        ][:12]

    def _training(self, record: dict, about: dict) -> str:
        """The section on how it was made, and how to make it again."""
        import os
        import shlex

        said = record.get("run") or {}
        known = self.records.all("experiment") if self.records is not None else []
        runs = [run for run in known if record.get("experiment") and run.get("id") == record["experiment"]]
        run: dict = runs[-1] if runs else {}
        config: dict = run.get("config") or {}
        pairs = {"method": said.get("method"), "base model": said.get("base_model")}
        pairs.update({"at revision": said.get("base_revision"), "data": said.get("dataset")})
        splits: dict = said["splits"] if isinstance(said.get("splits"), dict) else {}
        pairs["its revision"] = said.get("dataset_revision")
        share = said.get("validation_share")
        held_back = f"{share:.0%} of the training rows, held back" if isinstance(share, float) else None
        pairs["trained on"] = self._said(splits.get("train"))
        pairs["validated on"] = self._said(splits.get("validation")) or held_back
        metric: dict = run["metric"] if isinstance(run.get("metric"), dict) else {}
        if isinstance(metric.get("value"), int | float):
            pairs["validation result"] = f"{metric.get('name')} {metric['value']:.4g}"
        pairs.update({"seed": said.get("seed"), "steps": said.get("steps"), "hardware": config.get("hardware")})
        seconds, cost = said.get("seconds") or run.get("seconds"), run.get("cost_usd")
        pairs["time"] = f"{seconds:,.{int(seconds < 10)}f} s" if isinstance(seconds, int | float) else None
        pairs["cost"] = f"${cost:.2f}" if isinstance(cost, int | float) else None
        if run.get("backend") == "local":
            pairs.update({"hardware": f"own machine, {os.cpu_count()} CPU cores", "cost": "$0: own machine"})
        pairs["peak memory"] = f"{said['peak_memory_gb']} GB" if said.get("peak_memory_gb") else None
        for name in ("hyperparameters", "versions"):
            pairs[name] = self._said(said.get(name))
        rows = [f"| {name} | {self._cell(value)} |" for name, value in pairs.items() if value not in (None, "", {})]
        picture = ["![training](evaluation/training.png)", ""] if "evaluation/training.png" in about["paths"] else []
        lines = ["## Training", "", "| what | value |", "| --- | --- |", *rows, "", *picture] if rows else picture
        if "train.py" in about["paths"] and record.get("script"):
            words = [str(word) for word in config.get("arguments") or []]
            pinned = " Its data is pinned to a commit." if said.get("dataset_revision") else ""
            if said.get("dataset") and not pinned:
                pinned = (
                    f" It reads {self._cell(said['dataset'])}: files of the agent's workspace, which are not in here."
                )
            command = shlex.join(["uv", "run", "train.py", *words])
            there = "In a copy of this repository, with the script of that run."
            if about["repo_id"].count("/") == 1:
                name = about["name"]
                fetch = ["uvx", "--from", "huggingface_hub", "hf", "download", about["repo_id"], "--local-dir", name]
                command = f"{shlex.join(fetch)} && cd {shlex.quote(name)} && {command}"
                there = "With the script of that run, out of this repository."
            lines += ["## How to make it again", "", f"{there}{pinned}", "", "```bash", command, "```", ""]
        return "\n".join(lines)

    def _said(self, value: Any) -> str:
        """Settings as a person would write them down: no JSON."""
        if isinstance(value, dict):
            pairs = [(str(key).replace("_", " "), self._said(value[key])) for key in value]
            return ", ".join([f"{key} {one}" for key, one in pairs if one])
        if isinstance(value, list):
            return "/".join([self._said(one) for one in value])
        if value is None or isinstance(value, bool):
            return {None: "", True: "yes", False: "no"}[value]
        return f"{value:g}" if isinstance(value, float) else str(value)

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

    def _front_matter(self, text: str) -> dict:
        from huggingface_hub.repocard import RepoCard

        try:
            return RepoCard(text if text.lstrip().startswith("---") else "---\n{}\n---\n").data.to_dict()
        except Exception as error:  # YAML's own errors, whose package is not a requirement of this tool
            raise ValueError(f"its front matter is not YAML ({' '.join(str(error).split())[:200]}).") from error

    def _full_name(self, repo_id: str) -> str:
        if "/" in repo_id:
            return repo_id
        return f"{self._ask('who you are', 30, self._api().whoami)['name']}/{repo_id}"

    def _find(self, where: dict) -> Any:
        """The repository as the Hub describes it, or `None` where there is none."""
        subject = f"{where['repo_type']} {where['repo_id']}"
        try:
            return self._ask(subject, 30, self._api().repo_info, **where, files_metadata=True, timeout=20)
        except FileNotFoundError:
            return None

    def _readme(self, where: dict, found: Any) -> str:
        import tempfile
        from pathlib import Path

        if "README.md" not in [sibling.rfilename for sibling in found.siblings or []]:
            return ""
        with tempfile.TemporaryDirectory(prefix="hub_push_") as copy:
            subject = f"README.md of {where['repo_type']} {where['repo_id']}"
            options = {"filename": "README.md", "revision": found.sha, "local_dir": copy}
            return Path(self._ask(subject, 60, self._api().hf_hub_download, **where, **options)).read_text("utf-8")

    def _url(self, where: dict) -> str:
        folder = "" if where["repo_type"] == "model" else where["repo_type"] + "s/"
        return f"{self._hub()}/{folder}{where['repo_id']}"

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
