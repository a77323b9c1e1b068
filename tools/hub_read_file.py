"""Read a file of a repository on the Hugging Face Hub, or some lines of it."""

from typing import Any

from smolagents import Tool


class HubReadFileTool(Tool):
    """Lines of a text file, fetched by ranges: what lies behind them is not downloaded. Notebooks as code and Markdown.

    What must never happen here: a pickle is decoded; gigabytes are fetched for a few lines; a file that goes on is shown as
    if it ended; the token goes to the network that stores large files. What was fetched is kept for ten minutes, in memory.
    """

    name = "hub_read_file"
    description = (
        "Reads a text file of a model, dataset or Space on the Hugging Face Hub, or a range of its lines: code, cards, "
        "configs, the head of CSV or JSONL, notebooks as code and Markdown. Long files come in parts: go on at "
        "`next_line`. Of binary files it says what they are."
    )
    inputs = {
        "repo_id": {"type": "string", "description": "Such as 'Qwen/Qwen2.5-0.5B'."},
        "path": {"type": "string", "description": "In the repository, as 'config.json' or 'data/train.csv'."},
        "repo_type": {"type": "string", "description": "model (default), dataset or space.", "nullable": True},
        "revision": {"type": "string", "description": "Branch, tag or commit (default main).", "nullable": True},
        "from_line": {
            "type": "integer",
            "description": "First line (default 1); -20 for the last twenty.",
            "nullable": True,
        },
        "to_line": {"type": "integer", "description": "Last line (default as far as fits).", "nullable": True},
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "revision": {"type": ["string", "null"], "description": "The commit's SHA."},
            "size": {"type": ["integer", "null"], "description": "Bytes of the whole file."},
            "kind": {
                "type": "string",
                "description": "text, table (CSV, JSONL), notebook or binary (then its `format`).",
            },
            "text": {"type": "string", "description": "Lines from_line to to_line."},
            "next_line": {"type": ["integer", "null"], "description": "Where it goes on; null at the end."},
            "lines": {"type": ["integer", "null"], "description": "Of the whole file; null: not all was fetched."},
            "columns": {"type": "array", "description": "Of a table."},
            "tensors": {"type": "object", "description": "Of safetensors: {count, parameters, dtypes, first}."},
            "warnings": {"type": "array"},
            "hint": {"type": "string"},
        },
    }
    effects = "read"
    most_characters = 24_000  # of text a call
    most_of_a_line = 4_000
    first_piece = 131_072  # bytes of the first request; the next are larger
    most_bytes = 20_000_000  # fetched for one file

    def forward(
        self,
        repo_id: str,
        path: str,
        repo_type: str | None = "model",
        revision: str | None = None,
        from_line: int | None = 1,
        to_line: int | None = None,
    ) -> dict:
        repo_type, first = repo_type or "model", 1 if from_line is None else from_line
        if repo_type not in ("model", "dataset", "space"):
            raise ValueError(f"`repo_type` is model, dataset or space, not {repo_type!r}.")
        for name, value in (("from_line", first), ("to_line", to_line)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value == 0):
                raise ValueError(f"`{name}` is a line number from 1 on, or from -1 back, not {value!r}.")
        if to_line is not None and (to_line < 0 or (first > 0 and to_line < first)):
            raise ValueError(f"`to_line` is a line number from `from_line` on, not {to_line!r}.")
        name = path.strip().strip("/")
        if not name or ".." in name.split("/"):
            raise ValueError(f"`path` is a file in the repository, such as 'config.json', not {path!r}.")
        subject = f"{name} of {repo_type} {repo_id}" + (f" at {revision}" if revision else "")
        file = self._file(subject, repo_id, name, repo_type, revision or "main")
        answer = {"path": name, "revision": file["commit"], "size": file["size"]}
        kind = self._format(file["data"], name)
        if kind:
            return {**answer, "kind": "binary", "format": kind, **self._of_binary(kind, file, subject)}
        suffix = name.rpartition(".")[2].lower()
        if suffix == "ipynb":
            self._fetch(file, subject, self.most_bytes)
            if file["whole"]:
                cells = self._notebook(bytes(file["data"]))
                if cells is not None:
                    shown = self._part(cells, first, to_line, True)
                    return {**answer, "kind": "notebook", **shown}
        if first < 0 and not file["whole"]:
            return {**answer, "kind": "text", **self._tail(file, subject, -first)}
        lines = self._lines(file, subject, self.most_bytes if first < 0 else (to_line or first + 2000), to_line)
        answer["kind"] = "table" if suffix in ("csv", "tsv", "jsonl", "ndjson") else "text"
        if answer["kind"] == "table" and lines:
            answer["columns"] = self._columns(lines[0], suffix)
        if suffix == "json" and file["whole"] and [line for line in lines if len(line) > self.most_of_a_line]:
            again = self._indented(bytes(file["data"]))
            if again:
                answer["warnings"] = ["It was indented anew: these are not the lines of the file."]
                lines = again
        shown, warning = self._part(lines, first, to_line, file["whole"]), self._decoded(file["data"])[1]
        warnings = answer.pop("warnings", []) + shown.pop("warnings", []) + ([warning] if warning else [])
        if warnings:
            shown["warnings"] = warnings
        if not file["whole"] and shown["next_line"] and shown["next_line"] > len(lines):
            shown["hint"] = (
                f"Of its {file['size'] or 0:,} bytes the first {len(file['data']):,} were looked through: take it with "
                "hub_download to read on."
            )
        return {**answer, **shown}

    # What to show

    # Shared: reading
    def _part(self, lines: list, first: int, last: int | None, whole: bool) -> dict:
        """A range of lines as far as fits, and where it goes on. `whole`: these are all lines that there are."""
        total = len(lines)
        start = max(total + first, 0) if first < 0 else first - 1
        if start >= total and total:
            end = f"it has {total:,} lines" if whole else f"the first {total:,} lines were fetched"
            raise ValueError(f"There is no line {first:,}: {end}. Choose another `from_line`.")
        stop, text, room, cut = min(last or total, total), [], self.most_characters, 0
        while start + len(text) < stop:
            line = lines[start + len(text)]
            if len(line) > self.most_of_a_line:
                line, cut = f"{line[: self.most_of_a_line]}… [{len(line) - self.most_of_a_line:,} more]", cut + 1
            room -= len(line) + 1
            if room < 0 and text:
                break
            text.append(line)
        end = start + len(text)
        more = end < total or not whole
        answer = {"text": "\n".join(text), "from_line": start + 1, "to_line": end}
        answer |= {"next_line": end + 1 if more else None, "lines": total if whole else None}
        if cut:
            answer["warnings"] = [f"{cut} lines were cut after {self.most_of_a_line:,} characters."]
        return answer

    def _notebook(self, data: bytes) -> list | None:
        """A notebook's cells as lines, with the text of what they put out; `None` where it is no notebook."""
        import json

        try:
            book = json.loads(data)
            lines = []
            cells = book["cells"] if "cells" in book else book["worksheets"][0]["cells"]
            for number, cell in enumerate(cells, 1):
                kind = str(cell["cell_type"])
                lines += [f"# %% [{kind}] {number}", *self._joined(cell.get("source", cell.get("input"))).splitlines()]
                for output in cell.get("outputs") or []:
                    shown = output.get("data") or {}
                    said = self._joined(output.get("text") or shown.get("text/plain"))
                    if output.get("output_type") == "error":
                        said = f"{output.get('ename')}: {output.get('evalue')}"
                    lines += [f"#> {line}" for line in said[:1000].splitlines()] + (
                        ["#> …"] if len(said) > 1000 else []
                    )
                    lines += [f"#> [{name}]" for name in shown if name.startswith("image/")]
                lines.append("")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return None
        return lines

    def _joined(self, value: Any) -> str:
        """A text of a notebook, which may be a list of its lines."""
        return "".join([str(one) for one in value]) if isinstance(value, list) else str(value or "")

    def _format(self, data: Any, name: str) -> str:
        """What a binary file is; empty for text."""
        head = bytes(data[:4096])
        suffix = name.rpartition(".")[2].lower()
        if suffix in ("pkl", "pickle", "joblib", "dill") or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
            return "pickle" if head else ""
        if head[:2] == b"PK":
            return "pickle in a zip archive (PyTorch)" if suffix in ("bin", "pt", "pth", "ckpt") else "zip archive"
        for magic, kind in (
            (b"PAR1", "Parquet"),
            (b"GGUF", "GGUF"),
            (b"\x89PNG", "PNG image"),
            (b"\xff\xd8\xff", "JPEG image"),
            (b"\x1f\x8b", "gzip"),
            (b"\x28\xb5\x2f\xfd", "zstandard"),
            (b"ARROW1", "Arrow"),
            (b"\x93NUMPY", "NumPy array"),
            (b"\x89HDF", "HDF5"),
            (b"%PDF", "PDF"),
        ):
            if head.startswith(magic):
                return kind
        if suffix == "safetensors" and head[8:9] == b"{":
            return "safetensors"
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return ""  # UTF-16
        if b"\0" in head:
            return f"binary (.{suffix})"
        try:
            head.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.start < len(head) - 4 and len([one for one in head if one > 127]) > len(head) * 0.3:
                return f"binary (.{suffix})"
        return ""

    def _decoded(self, data: Any) -> tuple:
        """Bytes as text, and a warning where they are not UTF-8."""
        body = bytes(data)
        if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return body.decode("utf-16", "replace"), ""
        try:
            return body.decode("utf-8-sig"), ""
        except UnicodeDecodeError as error:
            if error.start >= len(body) - 4:  # a character that the piece ends in
                return body.decode("utf-8-sig", "replace"), ""
        return body.decode("latin-1"), "It is not UTF-8: it was read as Latin-1."

    # End of shared: reading

    def _tail(self, file: dict, subject: str, count: int) -> dict:
        """The last lines of a file whose middle is not fetched."""
        size, length = file["size"] or 0, max(self.first_piece, count * 200)
        while True:
            length = min(size, length, self.most_bytes)
            got = self._ask(subject, 90, self._range, url=file["url"], start=size - length, stop=size - 1)
            if got["start"] != size - length:
                raise ConnectionError(
                    f"The Hub ({self._hub()}) gives no ranges of {subject}. Take it with hub_download."
                )
            lines = self._decoded(got["data"])[0].splitlines()[1 if length < size else 0 :]
            if len(lines) >= count or length in (size, self.most_bytes):
                break
            length *= 4
        lines, room = lines[-count:], self.most_characters
        for number in range(len(lines), 0, -1):
            room -= min(len(lines[number - 1]), self.most_of_a_line) + 40
            if room < 0:
                lines = lines[number:]
                break
        shown = self._part(lines, 1, None, True)
        if len(lines) < count:
            shown["hint"] = f"These are the last {len(lines)} lines; more were not fetched or do not fit."
        return {**shown, "from_line": None, "to_line": None, "next_line": None, "lines": None}

    def _columns(self, line: str, suffix: str) -> list:
        import csv
        import json

        if suffix in ("csv", "tsv"):
            return next(csv.reader([line], delimiter="\t" if suffix == "tsv" else ","), [])[:200]
        try:
            row = json.loads(line)
        except ValueError:
            return []
        return list(row)[:200] if isinstance(row, dict) else []

    def _indented(self, data: bytes) -> list:
        import json

        try:
            return json.dumps(json.loads(data), indent=1, ensure_ascii=False).splitlines()
        except (ValueError, RecursionError):
            return []

    # What it is

    def _of_binary(self, kind: str, file: dict, subject: str) -> dict:
        """What can be said of a binary file from its first bytes."""
        import json

        if "pickle" in kind:
            return {"hint": "Loading it runs code that is in it, so it was not decoded. Look for safetensors."}
        if kind == "Parquet":
            return {"hint": "Look at its rows with hub_inspect_dataset, or take it with hub_download."}
        if kind != "safetensors":
            return {"hint": "Take it with hub_download if you need it."}
        length = int.from_bytes(file["data"][:8], "little")
        if length > self.most_bytes:
            return {"hint": f"Its header claims {length:,} bytes: it is damaged."}
        self._fetch(file, subject, length + 8)
        try:
            header = json.loads(bytes(file["data"][8 : length + 8]))
            header.pop("__metadata__", None)
            dtypes: dict = {}
            for about in header.values():
                count = 1
                for size in about["shape"]:
                    count *= size
                dtypes[about["dtype"]] = dtypes.get(about["dtype"], 0) + count
            first = {name: [about["dtype"], about["shape"]] for name, about in list(header.items())[:20]}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"hint": "Its header cannot be read: it is damaged."}
        found = {"count": len(header), "parameters": sum(dtypes.values()), "dtypes": dtypes, "first": first}
        return {"tensors": found}

    # How it is fetched

    def _lines(self, file: dict, subject: str, wanted: int, last: int | None) -> list:
        """The lines up to the one that is wanted, as far as `most_bytes` go; what is incomplete at the end is left out."""
        target = self.first_piece
        while True:
            lines = self._decoded(file["data"])[0].split("\n")
            if file["whole"]:
                lines = lines[:-1] if lines and not lines[-1] else lines
                return [line.rstrip("\r") for line in lines]
            enough = len(lines) > wanted or (last is None and self._room(lines, wanted - 2000))
            if enough or len(file["data"]) >= self.most_bytes:
                # Of a single line without end, what there is of it.
                return [line.rstrip("\r") for line in lines[:-1] or lines]
            target = min(max(len(file["data"]) * 4, target), self.most_bytes)
            self._fetch(file, subject, target)

    def _room(self, lines: list, first: int) -> bool:
        """Whether there are more characters from a line on than one call shows."""
        count = 0
        for line in lines[first - 1 : -1]:
            count += min(len(line), self.most_of_a_line) + 1
            if count > self.most_characters:
                return True
        return False

    def _file(self, subject: str, repo_id: str, path: str, repo_type: str, revision: str) -> dict:
        """What is known of a file, its first bytes among it; kept for a day, of a branch for ten seconds."""
        import re
        from time import time
        from urllib.parse import quote

        from huggingface_hub import get_token

        prefix = "" if repo_type == "model" else repo_type + "s/"
        base = f"{self._hub()}/{prefix}{repo_id}/resolve/"
        key = self._cache_key(base, get_token(), revision, path)
        found = self._cached(key, 86_400)
        kept = {**found["data"], "data": found["body"]} if found is not None else None
        sure = re.fullmatch(r"[0-9a-f]{40}", revision)
        if kept and (sure or 0 <= time() - kept["read"] < 10):
            return kept
        url = f"{base}{quote(revision, safe='')}/{quote(path)}"
        got = self._ask(subject, 60, self._range, url=url, start=0, stop=self.first_piece - 1)
        file: dict = {"key": key, "read": time(), **got}
        # The next pieces are of this very commit, whatever is pushed meanwhile.
        file["url"] = f"{base}{file['commit']}/{quote(path)}" if file["commit"] else url
        if kept and file["commit"] and kept["commit"] == file["commit"] and len(kept["data"]) > len(file["data"]):
            file = {**kept, "read": file["read"]}
        self._keep(file)
        return file

    def _keep(self, file: dict) -> None:
        self._cache(file["key"], {name: file[name] for name in file if name != "data"}, bytes(file["data"]))

    def _fetch(self, file: dict, subject: str, target: int) -> None:
        """Gets more of a file, until there are `target` bytes or all."""
        while not file["whole"] and len(file["data"]) < target:
            have = len(file["data"])
            got = self._ask(subject, 90, self._range, url=file["url"], start=have, stop=target - 1)
            if not got["data"] or got["start"] not in (0, have):
                raise ConnectionError(f"The Hub ({self._hub()}) broke off in the middle of {subject}. Try again.")
            file["data"] = got["data"] if got["start"] == 0 else file["data"] + got["data"]
            file["whole"] = got["whole"] or len(file["data"]) == file["size"]
            self._keep(file)

    def _range(self, url: str, start: int, stop: int) -> dict:
        """Some bytes of a file: `{data, start, size, commit, whole}`."""
        from time import sleep

        from huggingface_hub import errors

        try:
            return self._piece(url, start, stop)
        except errors.HTTPError as error:
            # Once more by itself where it may pass: the client repeats no request whose answer has begun.
            if isinstance(error, errors.HfHubHTTPError) and error.response.status_code not in (502, 503, 504):
                raise
        sleep(0.5)
        return self._piece(url, start, stop)

    def _piece(self, url: str, start: int, stop: int) -> dict:
        """Never more than was asked for, whatever is sent."""
        import re

        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop}", "Accept-Encoding": "identity"}
        with http_stream_backoff(
            "GET", url, headers=headers, timeout=20, max_retries=0, retry_on_status_codes=()
        ) as response:
            said = [one.headers.get("x-repo-commit") for one in [*response.history, response]]
            commit = ([one for one in said if one] or [None])[0]
            if response.status_code == 416:  # it is empty, or ends before `start`
                return {"data": b"", "start": start, "size": start, "commit": commit, "whole": True}
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            data, limit = bytearray(), stop + 1 - (start if response.status_code == 206 else 0)
            for part in response.iter_bytes():
                data += part
                if len(data) >= limit:
                    break
            page = "html" in response.headers.get("content-type", "")
            if commit is None and (page or data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html"))):
                raise TypeError("a file was expected, not a web page")
            total = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
            length = response.headers.get("content-length", "")
            plain = response.headers.get("content-encoding", "identity") == "identity"
            size = int(total[2]) if total else int(length) if length.isdigit() and plain else None
            begin = int(total[1]) if total else 0
            whole = begin + len(data) == size if size is not None else len(data) < limit
            if size is not None and len(data) < min(limit, size - begin):
                raise ConnectionError(f"The Hub ({self._hub()}) broke off in the middle of {url}. Try again.")
            data = data[:limit]
            return {"data": bytes(data), "start": begin, "size": size, "commit": commit, "whole": whole}

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
