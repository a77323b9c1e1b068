"""List the files of a repository on the Hugging Face Hub."""

from typing import Any

from smolagents import Tool


class HubListFilesTool(Tool):
    """Names and sizes of a repository's files at one commit, without their content.

    What must never happen here: a total that leaves something out and does not say so; the token at another host than the
    Hub's, whatever address the Hub gives for its next page. Listings are kept for ten minutes, in memory only: what a token
    may see is in them.
    """

    name = "hub_list_files"
    description = (
        "Lists the files of a model, dataset or Space on the Hugging Face Hub at one commit: paths, sizes, totals by kind. "
        "Read one with hub_read_file, or take some with hub_download."
    )
    inputs = {
        "repo_id": {"type": "string", "description": "Such as 'Qwen/Qwen2.5-0.5B'."},
        "repo_type": {"type": "string", "description": "model (default), dataset or space.", "nullable": True},
        "folder": {"type": "string", "description": "Only what lies below it (default all).", "nullable": True},
        "pattern": {
            "type": "string",
            "description": "Glob on paths or names, as '*.safetensors' or 'data/**/*.csv' (default all).",
            "nullable": True,
        },
        "revision": {"type": "string", "description": "Branch, tag or commit (default main).", "nullable": True},
        "recursive": {"type": "boolean", "description": "Also in subfolders (default true).", "nullable": True},
        "details": {
            "type": "boolean",
            "description": "With last commit, SHA-256 and the Hub's security scan (default false).",
            "nullable": True,
        },
        "limit": {"type": "integer", "description": "Entries at most, 1 to 1000 (default 100).", "nullable": True},
        "start": {"type": "integer", "description": "Entries to leave out first (default 0).", "nullable": True},
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "revision": {"type": "string", "description": "The commit's SHA."},
            "entries": {
                "type": "array",
                "description": "{path, size, lfs} or {path, folder: true}; with `details` also last_commit, sha256, scan.",
            },
            "files": {"type": "integer", "description": "How many fit, shown or not; bytes: their size."},
            "bytes": {"type": "integer"},
            "by_suffix": {"type": "object", "description": "{suffix: [files, bytes]}, largest first."},
            "complete": {"type": "boolean", "description": "false: there are more, which the totals leave out."},
            "next_start": {"type": ["integer", "null"], "description": "`start` of the next entries."},
            "hint": {"type": "string"},
        },
    }
    effects = "read"
    most_pages = 30  # of a thousand entries each

    def forward(
        self,
        repo_id: str,
        repo_type: str | None = "model",
        folder: str | None = None,
        pattern: str | None = None,
        revision: str | None = None,
        recursive: bool | None = True,
        details: bool | None = False,
        limit: int | None = 100,
        start: int | None = 0,
    ) -> dict:
        repo_type, limit, start = repo_type or "model", 100 if limit is None else limit, start or 0
        if repo_type not in ("model", "dataset", "space"):
            raise ValueError(f"`repo_type` is model, dataset or space, not {repo_type!r}.")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1000:
            raise ValueError(f"`limit` is a whole number from 1 to 1000, not {limit!r}.")
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise ValueError(f"`start` is a whole number from 0 on, not {start!r}.")
        where, deep = (folder or "").strip("/"), recursive is not False
        place = f"/api/{repo_type}s/{repo_id}"
        subject = f"{repo_type} {repo_id}" + (f" at {revision}" if revision else "")
        at = f"/revision/{self._quoted(revision)}" if revision else ""
        names = ("sha", "private") if repo_type == "space" else ("sha", "private", "gated")  # no Space is gated
        about = self._get(subject, place + at, names, self._describe)
        below = f"/{self._quoted(where)}" if where else ""
        tree = f"{place}/tree/{about['sha']}{below}"
        subject = f"the files of {subject}" + (f" in {where}" if where else "")
        rows, complete = self._get(subject, tree, ("true" if deep else "false",), self._walk)
        if pattern:
            rows = [row for row in rows if self._fits(row["path"], pattern, where)]
        files = [row for row in rows if "size" in row]
        shown = [dict(row) for row in rows[start : start + limit]]
        if details and shown:
            self._detail(subject, f"{place}/paths-info/{about['sha']}", shown)
        kinds: dict = {}
        for row in files:
            name = row["path"].rpartition("/")[2]
            suffix = "." + name.rpartition(".")[2] if "." in name.lstrip(".") else "(none)"
            count, size = kinds.get(suffix, (0, 0))
            kinds[suffix] = [count + 1, size + row["size"]]
        largest = sorted([(-kinds[suffix][1], suffix) for suffix in kinds])[:12]
        answer = {"repo_id": repo_id, "repo_type": repo_type, "revision": about["sha"]}
        answer |= {"private": bool(about.get("private")), "gated": bool(about.get("gated"))}
        answer |= {"entries": shown, "files": len(files), "bytes": sum([row["size"] for row in files])}
        answer |= {"by_suffix": {suffix: kinds[suffix] for _, suffix in largest}, "complete": complete}
        answer["next_start"] = start + limit if start + limit < len(rows) else None
        if not complete:
            answer["hint"] = (
                f"There are more than {self.most_pages * 1000:,} entries, of which the first were looked through: name a "
                "`folder`, or list folders with recursive=False."
            )
        elif not rows:
            answer["hint"] = (
                f"Nothing fits {pattern!r}. Leave `pattern` out to see what there is." if pattern else "It is empty."
            )
        return answer

    def _fits(self, path: str, pattern: str, folder: str) -> bool:
        """Whether a glob is for this path: for its name where the pattern has no slash; `**` is any number of folders."""
        import fnmatch

        if "/" not in pattern:
            return fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)
        wanted = (pattern + "**" if pattern.endswith("/") else pattern).strip("/").split("/")
        inside = path[len(folder) + 1 :] if folder else path
        return self._along(path.split("/"), wanted) or self._along(inside.split("/"), wanted)

    def _along(self, parts: list, wanted: list) -> bool:
        import fnmatch

        if not wanted:
            return not parts
        if wanted[0] == "**":
            rest = wanted[1:] if wanted[1:2] != ["**"] else wanted[2:]
            if not rest:
                return bool(parts)
            return bool([end for end in range(len(parts)) if self._along(parts[end:], rest)])
        return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and self._along(parts[1:], wanted[1:])

    def _detail(self, subject: str, path: str, rows: list) -> None:
        """Adds to each row what the Hub tells of a path only when it is asked for."""
        known: dict = {}
        for first in range(0, len(rows), 50):  # pages of 50, as the Hub has them for these
            paths = [row["path"] for row in rows[first : first + 50]]
            for item in self._ask(subject, 60, self._details, path=path, paths=paths):
                known[item["path"]] = item
        for row in rows:
            item = known.get(row["path"]) or {}
            last, scan = item.get("lastCommit") or {}, item.get("securityFileStatus") or {}
            row["last_commit"] = {key: last.get(key) for key in ("id", "title", "date")} if last else None
            if "size" in row:
                row["sha256"] = (item.get("lfs") or {}).get("oid")
                row["scan"] = scan.get("status")

    def _details(self, path: str, paths: list) -> list:
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        response = http_backoff(
            "POST",
            self._hub() + path,
            data={"paths": paths, "expand": True},
            headers=build_hf_headers(),
            timeout=30,
            max_retries=1,
            retry_on_status_codes=(502, 503, 504),
        )
        hf_raise_for_status(response)
        answer = response.json()
        if not isinstance(answer, list):
            raise TypeError("a list of paths was expected")
        return answer

    def _describe(self, path: str, names: tuple) -> dict:
        """What the Hub says of the repository at a revision; of these names only."""
        answer = self._page(path, {"expand": list(names)}).json()
        if not isinstance(answer, dict) or not isinstance(answer.get("sha"), str):
            raise TypeError("a repository with its commit was expected")
        return {name: answer.get(name) for name in names}

    def _walk(self, path: str, names: tuple) -> tuple:
        """All entries below a path, page by page, and whether these are all."""
        from urllib.parse import parse_qs, urlsplit

        rows, asked = [], {"recursive": names[0]}
        for _ in range(self.most_pages):
            response = self._page(path, asked)
            answer = response.json()
            if not isinstance(answer, list):
                raise TypeError("a list of files was expected")
            for item in answer:
                if item["type"] == "directory":
                    rows += [{"path": item["path"], "folder": True}] if names[0] == "false" else []
                else:
                    lfs = item.get("lfs") or {}
                    size = lfs.get("size", item["size"])
                    rows.append({"path": item["path"], "size": int(size), "lfs": bool(lfs)})
            # Only the cursor is taken from the address: mirrors give the Hub's own, and a token goes along.
            following = response.links.get("next", {}).get("url")
            if not following:
                return rows, True
            asked = {**asked, "cursor": parse_qs(urlsplit(following).query)["cursor"][0]}
        return rows, False

    def _page(self, path: str, params: dict) -> Any:
        """As the official client asks, without its waits: five repeats, `Retry-After` of any length, no time-out."""
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        response = http_backoff(
            "GET",
            self._hub() + path,
            params=params,
            headers=build_hf_headers(),
            timeout=20,
            max_retries=1,
            retry_on_status_codes=(502, 503, 504),
        )
        hf_raise_for_status(response)
        return response

    def _get(self, subject: str, path: str, names: tuple, call: Any) -> Any:
        """An answer of the Hub: of the last day at a commit, ten seconds where it says which commit a branch is at."""
        from huggingface_hub import get_token

        key = self._cache_key(self._hub(), get_token(), path, names, self.most_pages)
        # A branch moves on, and one may just have pushed to it; what lies at a commit stays.
        kept = self._cached(key, 10 if call == self._describe else 86_400)
        if kept is not None:
            return kept["data"]
        answer = self._ask(subject, 90, call, path=path, names=names)
        self._cache(key, answer)
        return answer

    def _quoted(self, text: str) -> str:
        from urllib.parse import quote

        return quote(text, safe="")

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
