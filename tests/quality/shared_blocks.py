"""What several tools share, word for word: each must stand alone, so each holds a copy, written by `shared.py` beside this.

A class here is a block; its methods stand in a tool between the lines `# Shared: cache` and `# End of shared: cache`.
"""

from typing import Any


class Cache:
    """Answers of services on disk, with ages.

    Never: an answer fetched with one token for whoever has another; a failure, kept; half an answer, or a damaged one, used;
    a call that fails because of the disk; a disk that fills up.
    """

    name: str

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


class Turns:
    """Requests to a service that allows so many a time: of all tools, threads and processes of this user.

    Never: two that go at once; a wait without end, or for one that was killed; a call that fails because of the disk.
    """

    def _turn(self, service: str, pause: float, longest: float) -> float:
        """Seconds until a request may be sent, `pause` after the one before it. Raises where that is not in `longest`."""
        import os
        from contextlib import suppress
        from pathlib import Path
        from time import sleep, time

        home = Path(os.environ.get("XDG_CACHE_HOME", ""))
        turn = pause  # where the disk cannot be used
        with suppress(
            OSError, RuntimeError, ImportError
        ):  # RuntimeError: there is no home; ImportError: not on this system
            import fcntl

            folder = (home if home.is_absolute() else Path.home() / ".cache") / "service_turns"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (folder / service).open("a+") as file:
                for _ in range(50):  # held for a moment only, but by one that was stopped just then
                    with suppress(BlockingIOError):
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    sleep(0.01)
                file.seek(0)
                said, now = file.read(40), time()
                following = float(said) if said.replace(".", "", 1).isdigit() else 0.0
                if following - now > 3600:  # the clock was set back
                    following = 0.0
                turn = max(0.0, following - now)
                if turn <= longest:
                    file.truncate(0)
                    file.write(repr(now + turn + pause))
        if turn > longest:
            raise ConnectionError(
                f"{service} takes a request every {pause:g} s, and others of this machine wait for {turn:.0f} s already. "
                "Try again after that."
            )
        return turn


class Scholar(Cache, Turns):
    """Semantic Scholar through its official client, whose traps are worked round in one place.

    Never: a failure that looks like nothing found; minutes of silence; the key at another host.
    """

    max_seconds: float
    max_tries: int

    def _scholar(self, method: str, *arguments, **options) -> tuple:
        """Call the official client: what it returns, and the JSON it was made of.

        A thread of its own, because nothing else bounds the time, and the caller's may have an event loop.
        """
        from queue import Empty, SimpleQueue
        from threading import Thread

        pages = options.pop("pages", 1)  # at most so many, where the client pages on
        outcome = SimpleQueue()
        Thread(
            target=self._carry_out, args=(method, arguments, options, pages, outcome), name=self.name, daemon=True
        ).start()
        try:
            answer = outcome.get(timeout=self.max_seconds)
        except Empty:
            raise TimeoutError(
                f"Semantic Scholar ({self._url()}) did not answer within {self.max_seconds} s. Try again later."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _carry_out(self, method, arguments, options, pages, outcome) -> None:
        import asyncio
        import logging
        from functools import partial

        try:
            handlers = list(logging.getLogger().handlers)
            from semanticscholar import AsyncSemanticScholar

            logging.getLogger("semanticscholar").setLevel(
                logging.ERROR
            )  # it warns of unknown ids, which are told here
            client = AsyncSemanticScholar(api_url=self._url(), retry=False)
            for handler in logging.getLogger().handlers:
                if handler not in handlers:  # its constructor calls `logging.basicConfig()`
                    logging.getLogger().removeHandler(handler)
            raw: list = []
            client._requester.get_data_async = partial(asyncio.to_thread, self._fetch, raw)  # ty: ignore[invalid-assignment]
            found = asyncio.run(getattr(client, method)(*arguments, **options))
            while len(raw) < pages and raw[-1].get("next"):
                found.next_page()
            outcome.put((found, raw))
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread, which raises it
            outcome.put(error)

    def _fetch(self, raw, url, parameters, headers, payload=None):
        """In place of the client's own request, whose traps are these: 401, 502 and 503 come back as empty results,
        429 is repeated for minutes without a look at `Retry-After`, the key is left out for citations and references,
        and errors that are not JSON raise what nobody expects."""
        import os
        from time import monotonic, sleep

        import httpx

        secret = os.environ.get("SEMANTIC_SCHOLAR_API_KEY") or os.environ.get("S2_API_KEY")
        key = self._cache_key(self._url(), secret, url, parameters, payload)
        kept = self._cached(key, 21_600)
        if kept:
            raw.append(kept["data"])
            return kept["data"]
        who = f"Semantic Scholar ({self._url()})"
        deadline, tries, local = monotonic() + self.max_seconds - 2, 0, "//127.0.0.1" in url or "//localhost" in url
        while True:
            if not local:  # one request a second is what a key allows
                sleep(self._turn("Semantic Scholar", 1.0, deadline - monotonic()))
            tries, wait, status, said = tries + 1, (0.02 if local else 1.0) * 2**tries, 0, ""
            try:
                # Redirects are not followed, so the key stays where it belongs.
                answer = httpx.request(
                    "POST" if payload else "GET",
                    url,
                    params=parameters.lstrip("&"),
                    json=payload,
                    headers={"x-api-key": secret} if secret else {},
                    timeout=20,
                    verify=url.startswith("https:"),  # reading all certificates takes longer than the request
                )
                status, after = answer.status_code, answer.headers.get("retry-after", "")
                data = answer.json() if "json" in answer.headers.get("content-type", "json") else None
                if isinstance(data, dict):
                    said = str(data.get("error") or data.get("message") or "")[:300]
            except httpx.TimeoutException:
                data, after, cause = None, "", "did not answer in time"
            except httpx.HTTPError as error:
                broken = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
                data, after, cause = None, "", "broke off its answer" if broken else "could not be reached"
            except ValueError:
                data = None
            if status == 200 and not (said and data is not None and len(data) == 1):
                if self._fits(url, data):
                    if isinstance(data, dict) and data.get("data", "") is None:
                        data = {**data, "data": [], "hidden": True}
                    self._cache(key, data)
                    raw.append(data)
                    return data
                raise ConnectionError(
                    f"{who} answered with something else than its API's JSON. Is SEMANTIC_SCHOLAR_API_URL right, with no "
                    "proxy or login page before it?"
                )
            if status == 400:
                raise ValueError(f"{who} did not take the request: {said or 'it gives no reason'}.")
            if status == 404 and said:
                raise FileNotFoundError(f"{who} has no such paper: {said}. Check the id, or search by words.")
            if status in (401, 403):
                which = "The key in SEMANTIC_SCHOLAR_API_KEY is not valid" if secret else "It asks for a key"
                raise PermissionError(f"{who} refused the request ({status}). {which}: set one, or unset a wrong one.")
            if status:
                cause = f"answered with HTTP {status}" + (f": {said}" if said else "")
                if after:
                    wait = float(after) if after.isdigit() else 3600.0
                    cause += f" and asks to wait {after}{' s' if after.isdigit() else ''}"
            if status and status not in (200, 408, 429, 500, 502, 503, 504):
                break
            if tries >= self.max_tries or monotonic() + wait + 1 > deadline:
                break
            sleep(wait)
        remedy = "Try again later, or check the network and SEMANTIC_SCHOLAR_API_URL."
        if status == 429 and not secret:
            remedy = "Without a key one limit is shared by everyone: try again later, or set SEMANTIC_SCHOLAR_API_KEY."
        raise ConnectionError(f"{who} {cause} (tried {tries} times), so it is not known what it has. {remedy}")

    def _fits(self, url: str, data) -> bool:
        """Whether this is an answer to the question: an empty one must not pass for `nothing found`."""
        if url.endswith("/batch"):
            return isinstance(data, list)
        if not isinstance(data, dict):
            return False
        if "/recommendations/" in url:
            return isinstance(data.get("recommendedPapers"), list)
        if url.endswith(("/search", "/search/bulk")) and "/snippet/" not in url:
            return isinstance(data.get("data"), list) or data.get("total") == 0
        if url.endswith(("/citations", "/references", "/search", "/match")):
            return "data" in data
        return False  # these tools ask for nothing else

    def _url(self) -> str:
        import os

        return (os.environ.get("SEMANTIC_SCHOLAR_API_URL") or "https://api.semanticscholar.org").rstrip("/")

    def _clean_id(self, id) -> str:
        """A paper's id as Semantic Scholar takes it, from arXiv ids, DOIs, addresses and its own ids."""
        import re
        from urllib.parse import quote, unquote

        text = unquote(str(id).strip())
        text = re.sub(r"^https?://(dx\.)?doi\.org/", "DOI:", text, flags=re.IGNORECASE)
        text = re.sub(r"^https?://[^/]*arxiv\.org/(abs|pdf|html)/", "ARXIV:", text, flags=re.IGNORECASE)
        text = re.sub(r"^https?://[^/]*semanticscholar\.org/(.*/)?([0-9a-f]{40})$", r"\2", text)
        text = re.sub(r"^(doi:)?10\.48550/arxiv\.", "ARXIV:", text, flags=re.IGNORECASE)
        arxiv = r"(?:arxiv:)?(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v\d+)?(?:\.pdf)?"
        found = re.fullmatch(arxiv, text, flags=re.IGNORECASE)
        if found:
            return f"ARXIV:{found[1]}"
        if re.fullmatch(r"10\.\d{4,9}/\S+", text):
            text = f"DOI:{text}"
        if re.fullmatch(r"[0-9a-f]{40}|(DOI|CorpusId|MAG|ACL|PMID|PMCID|URL):\S+", text, flags=re.IGNORECASE):
            return quote(text, safe="/:().;")
        raise ValueError(
            f"{self.name}: {id!r} is no id of a paper. Examples: 1706.03762, hep-th/9901001, 10.1038/nature14539, "
            "CorpusId:13756489, or Semantic Scholar's own of 40 hex digits."
        )

    def _record(self, raw: dict) -> dict:
        """A paper in the shape that arxiv_search returns as well."""
        ids, open_pdf = raw.get("externalIds") or {}, (raw.get("openAccessPdf") or {}).get("url") or None
        arxiv = ids.get("ArXiv")
        links = {"s2": f"https://www.semanticscholar.org/paper/{raw['paperId']}"} if raw.get("paperId") else {}
        links |= {"abs": f"https://arxiv.org/abs/{arxiv}"} if arxiv else {}
        pdf = open_pdf or (f"https://arxiv.org/pdf/{arxiv}" if arxiv else None)
        links |= {"pdf": pdf} if pdf else {}
        links |= {"doi": f"https://doi.org/{ids['DOI']}"} if ids.get("DOI") else {}
        year = raw.get("year")
        return {
            "arxiv_id": arxiv,
            "doi": ids.get("DOI"),
            "s2_id": raw.get("paperId"),
            "title": raw.get("title"),
            "authors": [author.get("name") for author in raw.get("authors") or []],
            "date": raw.get("publicationDate") or (str(year) if year else None),
            "abstract": raw.get("abstract"),
            "tldr": (raw.get("tldr") or {}).get("text"),
            "citations": raw.get("citationCount"),
            "influential_citations": raw.get("influentialCitationCount"),
            "links": links,
            "venue": raw.get("venue") or None,
            "fields": raw.get("fieldsOfStudy") or [],
        }


class Hub:
    """What goes wrong at the Hub, in one or two lines and within a time.

    Never: a traceback of the client for a person; a wait without end; a failure that looks like an empty answer.
    """

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


class Writing:
    """The Hub's client for tools that write, and what looks like a secret in what is about to be published."""

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


class Weights:
    """One digest for the weights of a folder, so that what was judged and what is shipped can be compared."""

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


class Reading:
    """A file as lines: ranges of them, notebooks as code, and what is no text."""

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


class Listing(Hub, Cache):
    """A page of a list of the Hub's, kept for ten minutes."""

    _list: Any

    def _kept(self, subject: str, asked: dict) -> tuple:
        """A page of the list and the mark of the next one; of the last ten minutes, for this token."""
        from huggingface_hub import get_token

        key = self._cache_key(self._hub(), get_token(), asked)
        kept = self._cached(key, 600)
        if kept is not None:
            return tuple(kept["data"])
        answer = self._ask(subject, 60, self._list, params=asked)
        self._cache(key, answer)
        return answer
