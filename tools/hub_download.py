"""Download from the Hugging Face Hub into the workspace."""

from typing import Any

from smolagents import Tool


class HubDownloadTool(Tool):
    """Downloads a repository of the Hub, or some of its files, at one commit.

    The official client downloads into a private folder, and the workspace's own `copy_in` takes the files from there:
    code that runs in the workspace could have laid links in it.

    Args:
        workspace (*optional*): Where the files go, with `relative(path)` and `copy_in(source, path)`.
    """

    name = "hub_download"
    description = (
        "Downloads files of a dataset, model or Space from the Hugging Face Hub into a folder of the workspace, also "
        "private and gated ones where the token may read them. All are of one commit, which is returned: note it."
    )
    inputs = {
        "repo_id": {"type": "string", "description": "Such as 'stanfordnlp/imdb'."},
        "repo_type": {"type": "string", "description": "dataset (default), model or space.", "nullable": True},
        "files": {
            "type": "array",
            "description": "Names or patterns as 'data/*.csv' (default all).",
            "nullable": True,
        },
        "revision": {"type": "string", "description": "Branch, tag or commit (default main).", "nullable": True},
        "folder": {"type": "string", "description": "In the workspace (default data/<its name>).", "nullable": True},
        "max_bytes": {"type": "integer", "description": "Refuse more (default 2,000,000,000).", "nullable": True},
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "repo_id": {"type": "string"},
            "repo_type": {"type": "string"},
            "revision": {"type": "string", "description": "The commit's SHA."},
            "folder": {"type": "string", "description": "In the workspace."},
            "files": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "path": {"type": "string", "description": "In the workspace."},
                        "size": {"type": "integer", "description": "Bytes."},
                    },
                },
            },
            "bytes": {"type": "integer"},
        },
    }
    effects = "read"

    def __init__(self, workspace=None, model_repo_id=None):
        super().__init__()
        self.workspace = workspace

    def forward(
        self,
        repo_id: str,
        repo_type: str | None = "dataset",
        files: list | None = None,
        revision: str | None = None,
        folder: str | None = None,
        max_bytes: int | None = 2_000_000_000,
    ) -> dict:
        import glob
        import shutil
        import tempfile
        from pathlib import Path

        if self.workspace is None:
            raise RuntimeError(
                "hub_download has no workspace to download to. Make it with HubDownloadTool(workspace=...)."
            )
        repo_type = repo_type or "dataset"
        if repo_type not in ("dataset", "model", "space"):
            raise ValueError(f"`repo_type` is dataset, model or space, not {repo_type!r}.")
        max_bytes = 2_000_000_000 if max_bytes is None else max_bytes
        patterns = [files] if isinstance(files, str) else files
        folder = self.workspace.relative(folder or f"data/{repo_id.split('/')[-1]}")

        # Not at module level: huggingface_hub reads HF_ENDPOINT once, when it is first imported.
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._hub())
        subject = f"{repo_type} {repo_id}" + (f" at {revision}" if revision else "")
        wanted = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision, "files_metadata": True}
        info = self._ask(subject, 30, api.repo_info, **wanted, timeout=20)
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
        if patterns is not None:
            sizes = self._chosen(sizes, patterns, subject)
        if not sizes:
            raise FileNotFoundError(
                f"The {subject} holds no files. Look at its page: it may have been emptied or moved."
            )
        bad = [name for name in sizes if name.startswith("/") or ".." in name.split("/") or "\0" in name]
        if bad:
            raise ValueError(
                f"The {subject} holds files whose names lead out of a folder ({bad[0]!r}): not downloaded."
            )
        total = sum(sizes.values())
        if total > max_bytes:
            by_size = sorted(sizes, key=sizes.__getitem__, reverse=True)
            listed = ", ".join([f"{name} ({sizes[name]:,})" for name in by_size[:8]])
            raise ValueError(
                f"{len(sizes)} files of {subject} are {total:,} bytes, more than max_bytes={max_bytes:,}. "
                f"Largest: {listed}. Name fewer in `files`, or raise max_bytes."
            )
        with tempfile.TemporaryDirectory(prefix="hub_download_") as private:
            if shutil.disk_usage(private).free < 2 * total:
                raise OSError(f"{subject} needs {2 * total:,} bytes of disk while it downloads; there are fewer free.")
            self._ask(
                f"the files of {subject}",
                120 + total / 200_000,  # 200 kB/s is slow enough to call it hanging
                api.snapshot_download,
                repo_id=repo_id,
                repo_type=repo_type,
                revision=info.sha,
                local_dir=private,
                allow_patterns=None if patterns is None else [glob.escape(name) for name in sizes],
            )
            got: list[dict[str, Any]] = []
            for name in sorted(sizes):
                source = Path(private, name)
                # A client that cannot reach the Hub half-way may hand back what it has: that is not a download.
                if not source.is_file() or (sizes[name] and source.stat().st_size != sizes[name]):
                    raise ConnectionError(f"{name} of {subject} did not arrive whole. Call hub_download again.")
                self.workspace.copy_in(source, f"{folder}/{name}")
                got.append({"path": f"{folder}/{name}", "size": source.stat().st_size})
        return {
            "repo_id": info.id,
            "repo_type": repo_type,
            "revision": info.sha,
            "folder": folder,
            "files": got,
            "bytes": sum([file["size"] for file in got]),
        }

    def _chosen(self, sizes: dict, patterns: list, subject: str) -> dict:
        import difflib
        import fnmatch

        chosen = {}
        for pattern in patterns:
            wanted = pattern + "*" if pattern.endswith("/") else pattern
            names = [name for name in sizes if name == wanted or fnmatch.fnmatchcase(name, wanted)]
            if not names:
                near = difflib.get_close_matches(pattern, list(sizes), 3, 0.4) or list(sizes)[:8]
                raise FileNotFoundError(
                    f"No file of {subject} is called or matches {pattern!r}. "
                    f"It has {len(sizes)}, such as: {', '.join(near)}."
                )
            for name in names:
                chosen[name] = sizes[name]
        return chosen

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
