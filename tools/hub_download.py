"""Download from the Hugging Face Hub into the workspace."""

from typing import Any

from smolagents import Tool


class HubDownloadTool(Tool):
    """Downloads a repository of the Hub, or some of its files, at one commit.

    The official client downloads into a private folder, and the workspace's own `copy_in` takes the files from there:
    code that runs in the workspace could have laid links in it. A download that broke off goes on where it was, and what
    the workspace has already is not fetched again.

    What must never happen here: a file that is not whole, or not what the commit says, has its name in the workspace; files
    of two commits are mixed; the token goes to another host than the Hub's.

    Args:
        workspace (*optional*): Where the files go, with `relative(path)`, `exists`, `is_dir`, `open_read` and
            `copy_in(source, path)`.
        watch (*optional*): With `pause(seconds)`: waits, and says whether whoever waits was interrupted.
        progress (*optional*): Called with a line now and then; without it there is a progress bar where there is a terminal.
    """

    name = "hub_download"
    description = (
        "Downloads files of a dataset, model or Space from the Hugging Face Hub into a folder of the workspace, also "
        "private and gated ones where the token may read them. All are of one commit, which is returned: note it."
    )
    inputs = {
        "repo_id": {"type": "string", "description": "Such as 'stanfordnlp/imdb'."},
        "repo_type": {
            "type": "string",
            "description": "model (default; where there is none, the dataset of that name), dataset or space.",
            "nullable": True,
        },
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
            "fetched_bytes": {"type": "integer", "description": "The rest was there, or left from a call before."},
        },
    }
    effects = "read"

    def __init__(self, workspace=None, watch=None, progress=None, model_repo_id=None):
        super().__init__()
        self.workspace = workspace
        self.watch = watch
        self.progress = progress

    def forward(
        self,
        repo_id: str,
        repo_type: str | None = None,
        files: list | None = None,
        revision: str | None = None,
        folder: str | None = None,
        max_bytes: int | None = 2_000_000_000,
    ) -> dict:
        import shutil
        import tempfile
        from pathlib import Path

        if self.workspace is None:
            raise RuntimeError(
                "hub_download has no workspace to download to. Make it with HubDownloadTool(workspace=...)."
            )
        if repo_type not in (None, "", "model", "dataset", "space"):
            raise ValueError(f"`repo_type` is model, dataset or space, not {repo_type!r}.")
        max_bytes = 2_000_000_000 if max_bytes is None else max_bytes
        patterns = [files] if isinstance(files, str) else files
        folder = self.workspace.relative(folder or f"data/{repo_id.split('/')[-1]}")

        # Not at module level: huggingface_hub reads HF_ENDPOINT once, when it is first imported.
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.errors import RepositoryNotFoundError

        api = HfApi(endpoint=self._hub())
        wanted = {"repo_id": repo_id, "revision": revision, "files_metadata": True, "timeout": 20}
        for kind in [repo_type] if repo_type else ["model", "dataset"]:
            subject = f"{kind} {repo_id}" + (f" at {revision}" if revision else "")
            try:
                info = self._ask(subject, 30, api.repo_info, repo_type=kind, **wanted)
            except FileNotFoundError as error:
                if repo_type or kind == "dataset" or not isinstance(error.__cause__, RepositoryNotFoundError):
                    raise
            else:
                repo_type = kind
                break
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
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        missing = [name for name in sorted(sizes) if not self._there(f"{folder}/{name}", siblings[name])]
        parts = self._parts()
        with tempfile.TemporaryDirectory(prefix="whole-", dir=parts, ignore_cleanup_errors=True) as whole:
            orders: list = [
                {
                    "name": name,
                    "size": siblings[name].size,
                    "kind": "sha256" if siblings[name].lfs else "git",
                    "digest": siblings[name].lfs.sha256 if siblings[name].lfs else siblings[name].blob_id,
                    "part": Path(parts, f"{self._part_name(info.sha, siblings[name])}.part"),
                    "whole": Path(whole, str(number)),
                    "subject": f"{name} of {subject}",
                    "url": hf_hub_url(info.id, name, repo_type=repo_type, revision=info.sha, endpoint=self._hub()),
                }
                for number, name in enumerate(missing)
            ]
            begun = sum([order["part"].stat().st_size for order in orders if order["part"].exists()])
            needed = 2 * sum([sizes[name] for name in missing]) - begun
            if shutil.disk_usage(parts).free < needed:
                raise OSError(f"{subject} needs {needed:,} bytes of disk while it downloads; there are fewer free.")
            fetched = self._fetch(info.id, orders, total)
            for order in orders:  # only now: the files of a folder are of one commit, or none is new
                self.workspace.copy_in(order["whole"], f"{folder}/{order['name']}")
            for order in orders:
                order["part"].unlink(missing_ok=True)
        return {
            "repo_id": info.id,
            "repo_type": repo_type,
            "revision": info.sha,
            "folder": folder,
            "files": [{"path": f"{folder}/{name}", "size": sizes[name]} for name in sorted(sizes)],
            "bytes": total,
            "fetched_bytes": fetched,
        }

    # A download, resumed where an earlier one broke off

    def _parts(self) -> Any:
        """Where what has arrived waits for the rest: out of the reach of code in the workspace, for a week at most."""
        import os
        import shutil
        import time
        from pathlib import Path

        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", self.name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = folder / "parts"
        parts.mkdir(mode=0o700, exist_ok=True)
        for found in parts.iterdir():
            try:
                if found.lstat().st_mtime > time.time() - 604_800:
                    continue
                if found.is_dir():
                    shutil.rmtree(found, ignore_errors=True)
                else:
                    found.unlink()
            except OSError:
                continue  # somebody else has just removed it
        return parts

    def _part_name(self, commit: str, sibling: Any) -> str:
        """By content: what has the same digest is the same file, whatever it is called and wherever it lies."""
        import hashlib

        known = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        return hashlib.sha256(str(known or [commit, sibling.rfilename]).encode()).hexdigest()

    def _digest(self, file: Any, kind: str, size: int) -> str:
        import functools
        import hashlib

        digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if kind == "git":
            digest.update(f"blob {size}\0".encode())
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
        return digest.hexdigest()

    def _there(self, path: str, sibling: Any) -> bool:
        """Whether the workspace has exactly this file already."""
        import os

        digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if digest is None or sibling.size is None or not self.workspace.exists(path) or self.workspace.is_dir(path):
            return False
        with self.workspace.open_read(path) as file:
            if os.fstat(file.fileno()).st_size != sibling.size:
                return False
            return self._digest(file, "sha256" if sibling.lfs else "git", sibling.size) == digest

    def _fetch(self, repo_id: str, orders: list, total: int) -> int:
        """Gets all files, several at once, and says how far it is. Returns how many bytes came over the network."""
        import threading
        import time
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        from huggingface_hub.utils import tqdm

        if not orders:
            return 0
        state: dict[str, Any] = {"stop": threading.Event(), "fetched": {}, "begun": {}}
        pool = ThreadPoolExecutor(8, thread_name_prefix="hub-download")
        bar = None
        if self.progress is None:
            bar = tqdm(total=total, unit="B", unit_scale=True, desc=repo_id, disable=None)
        pending = {pool.submit(self._get, order, state) for order in orders}
        started = told = time.monotonic()
        here = total - sum([order["size"] or 0 for order in orders])
        try:
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if self.watch is not None and self.watch.pause(0.0):
                    raise InterruptedError("The download was interrupted. Called again, it goes on where it was.")
                fetched = sum(list(state["fetched"].values()))
                now = here + sum(list(state["begun"].values())) + fetched
                if bar is not None:
                    bar.update(max(0, now - bar.n))
                elif time.monotonic() - told >= 2.0:
                    told = time.monotonic()
                    self.progress(
                        f"{repo_id}: {now / 1e6:,.0f} of {total / 1e6:,.0f} MB ({100 * now // max(total, 1)} %), "
                        f"{fetched / 1e6 / (told - started):,.1f} MB/s"
                    )
        finally:
            state["stop"].set()
            pool.shutdown(wait=False, cancel_futures=True)
            if bar is not None:
                bar.close()
        return sum(list(state["fetched"].values()))

    def _get(self, order: dict, state: dict) -> None:
        """One file: what is there of it is gone on with, and counts once it is what the commit says."""
        import os
        import shutil

        try:
            import fcntl
        except ImportError:  # Windows: two downloads of one file at once are for their user to avoid
            fcntl = None
        while not order["whole"].exists():
            with order["part"].open("a+b", buffering=0) as part:
                while fcntl is not None:
                    try:
                        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:  # somebody else gets the same file
                        if state["stop"].wait(0.2):
                            raise InterruptedError("stopped") from None
                if not os.fstat(part.fileno()).st_nlink:
                    continue  # they got it, and removed it: anew
                self._complete(part, order, state)
                try:  # it stays, whoever else is done with the part first
                    os.link(order["part"], order["whole"])
                except FileNotFoundError:
                    continue
                except OSError:  # a disk without hard links
                    shutil.copyfile(order["part"], order["whole"])

    def _complete(self, part: Any, order: dict, state: dict) -> None:
        import functools
        import os

        from huggingface_hub.utils import build_hf_headers

        size = order["size"]
        for attempt in (1, 2):
            begun = part.seek(0, os.SEEK_END)
            if size is None or begun > size or attempt == 2:
                begun = 0
                part.truncate(0)
            part.seek(begun)
            state["begun"][order["name"]] = begun
            try:
                if begun != size:
                    self._ask(
                        order["subject"],
                        120 + (size or 0) / 200_000,  # 200 kB/s is slow enough to call it hanging
                        self._got,
                        url=order["url"],
                        temp_file=part,
                        resume_size=begun,
                        expected_size=size,
                        headers=build_hf_headers(),
                        displayed_filename=order["name"],
                        tqdm_class=functools.partial(self._meter, state, order["name"]),
                    )
            except ValueError:
                if begun:  # nothing of the rest is given out: it is no part of this file
                    continue
                raise
            except OSError as error:
                if "Consistency check" not in str(error):
                    raise
                if begun:
                    continue
                raise ConnectionError(
                    f"{order['subject']} did not arrive whole. Call hub_download again: what has arrived is kept."
                ) from error
            part.seek(0)
            if order["digest"] is None or self._digest(part, order["kind"], size or 0) == order["digest"]:
                return
            if not begun:
                part.truncate(0)
                raise ConnectionError(
                    f"{order['subject']} did not arrive as it is: its digest is not the commit's. Try again; "
                    "if it stays so, something between you and the Hub changes what it sends."
                )

    def _got(self, url: str, headers: dict, **options: Any) -> None:
        """The client's download, once the Hub has said that it gives the file: the client itself would sleep through as
        many seconds as a `Retry-After` asks for, and say nothing of them."""
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import get_session, hf_raise_for_status

        answer = get_session().head(url, headers=headers, timeout=20, follow_redirects=False)
        if answer.status_code >= 400:
            hf_raise_for_status(answer)
        if answer.status_code == 200 and "html" in answer.headers.get("Content-Type", "") and ".htm" not in url:
            raise TypeError("a web page")
        http_get(url=url, headers=headers, **options)

    def _meter(self, state: dict, name: str, **options: Any) -> Any:
        """In the place of a progress bar, which is what the Hub's client tells; stops it where it is to stop."""
        import contextlib
        import functools
        import types

        meter: Any = types.SimpleNamespace(update=functools.partial(self._moved, state, name))
        meter.close = contextlib.ExitStack().close
        return contextlib.closing(meter)

    def _moved(self, state: dict, name: str, count: int) -> None:
        if state["stop"].is_set():
            raise InterruptedError("stopped")
        state["fetched"][name] = state["fetched"].get(name, 0) + count

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
