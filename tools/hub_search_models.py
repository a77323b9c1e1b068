"""Search for models on the Hugging Face Hub."""

from typing import Any

from smolagents import Tool


class HubSearchModelsTool(Tool):
    """Finds models by words and filters, one request a call.

    `HF_ENDPOINT` and `HF_TOKEN` mean what they mean to `huggingface_hub`. Answers are kept for ten minutes on
    disk, each for the token that it was given to.
    """

    name = "hub_search_models"
    description = (
        "Searches the Hugging Face Hub for models by words and filters, best first. All filters must hold at once. "
        "Look at a candidate with hub_inspect_model before you use it."
    )
    inputs = {
        "query": {"type": "string", "description": "Words in its name, as 'bert' (default none).", "nullable": True},
        "author": {"type": "string", "description": "User or organization (default any).", "nullable": True},
        "task": {"type": "string", "description": "Such as 'text-generation' (default any).", "nullable": True},
        "library": {"type": "string", "description": "Such as 'transformers' (default any).", "nullable": True},
        "language": {"type": "string", "description": "Code, such as 'de' (default any).", "nullable": True},
        "license": {"type": "string", "description": "Such as 'apache-2.0' (default any).", "nullable": True},
        "parameters": {"type": "string", "description": "As 'min:1B,max:8B' (default any).", "nullable": True},
        "base_model": {
            "type": "string",
            "description": "Made from it: 'org/name', or 'adapter:org/name', also finetune, merge or quantized "
            "(default any).",
            "nullable": True,
        },
        "dataset": {"type": "string", "description": "Trained on this one (default any).", "nullable": True},
        "emissions": {
            "type": "string",
            "description": "Grams of CO2 that its training took, where its card says so, as 'max:500'. Looks through "
            "500 models a call (default any).",
            "nullable": True,
        },
        "gated": {"type": "boolean", "description": "Only gated, or only open ones (default both).", "nullable": True},
        "provider": {
            "type": "string",
            "description": "Served by this inference provider, by one of several (commas), or by 'all' of them: by any "
            "(default no matter).",
            "nullable": True,
        },
        "warm": {"type": "boolean", "description": "Only those that are served now (default no).", "nullable": True},
        "app": {
            "type": "string",
            "description": "Runs in it, as 'vllm' or 'ollama', or in one of several, with commas (default any).",
            "nullable": True,
        },
        "tags": {
            "type": "array",
            "description": "More tags, as ['gguf', 'arxiv:2106.09685'] (default none).",
            "nullable": True,
        },
        "sort": {
            "type": "string",
            "description": "downloads (default), likes, lastModified, trendingScore or createdAt; largest first.",
            "nullable": True,
        },
        "limit": {"type": "integer", "description": "How many at most, 1 to 100 (default 10).", "nullable": True},
        "cursor": {
            "type": "string",
            "description": "`next` of the page before (default the first).",
            "nullable": True,
        },
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "models": {
                "type": "array",
                "description": "{id, author, task, library, license, languages, parameters, bytes of its safetensors, "
                "downloads in 30 days, likes, gated, private, base_models, datasets, co2_grams, last_modified, other tags}",
            },
            "query": {"description": "What was searched for."},
            "more": {"type": "boolean"},
            "next": {"description": "`cursor` of the next page, or null."},
            "hint": {"description": "What to try next; only there when nothing was found."},
        },
    }
    effects = "read"

    def forward(
        self,
        query: str | None = None,
        author: str | None = None,
        task: str | None = None,
        library: str | None = None,
        language: str | None = None,
        license: str | None = None,
        parameters: str | None = None,
        base_model: str | None = None,
        dataset: str | None = None,
        emissions: str | None = None,
        gated: bool | None = None,
        provider: str | None = None,
        warm: bool | None = False,
        app: str | None = None,
        tags: list | None = None,
        sort: str | None = "downloads",
        limit: int | None = 10,
        cursor: str | None = None,
    ) -> dict:
        import re

        sort = "downloads" if sort is None else sort
        sorts = ["downloads", "likes", "lastModified", "trendingScore", "createdAt"]
        if sort not in sorts:
            raise ValueError(f"`sort` is one of {', '.join(sorts)}, not {sort!r}.")
        limit = 10 if limit is None else limit
        if not 1 <= limit <= 100:
            raise ValueError(f"`limit` is 1 to 100, not {limit}. Go on with `cursor`, or narrow the search.")
        number = r"\d+(\.\d+)?[KMBT]?"
        if parameters and not re.fullmatch(f"min:{number}|max:{number}|min:{number},max:{number}", parameters):
            raise ValueError(f"`parameters` is such as 'min:1B', 'max:8B' or 'min:500M,max:3B', not {parameters!r}.")

        grams = re.fullmatch(r"(?:min:([\d.]+))?,?(?:max:([\d.]+))?", emissions or "")
        if grams is None or (emissions and not any(grams.groups())):
            raise ValueError(f"`emissions` is such as 'max:500' or 'min:1,max:500', in grams, not {emissions!r}.")

        filters = [tags] if isinstance(tags, str) else list(tags or [])
        for prefix, value in (("", library), ("", language), ("license:", license)):
            if value:
                filters.append(prefix + value.strip().lower())
        if base_model:
            filters.append("base_model:" + base_model.strip().removeprefix("base_model:"))
        filters += ["dataset:" + one.removeprefix("dataset:") for one in self._several(dataset)]
        asked: dict[str, Any] = {
            "search": query,
            "author": author,
            "filter": filters,
            "num_parameters": parameters,
            "apps": self._several(app),
            "inference": "warm" if warm else None,
        }
        asked["pipeline_tag"] = task.strip().lower().replace(" ", "-").replace("_", "-") if task else None
        asked |= {"inference_provider": self._several(provider), "sort": sort, "limit": limit, "cursor": cursor}
        asked = {key: value for key, value in asked.items() if value}
        if gated is not None:
            asked["gated"] = "true" if gated else "false"
        if emissions:  # the Hub itself does not look for it
            found, mark = self._emitting(asked, float(grams[1] or 0), float(grams[2] or "inf"), limit)
            limit = max(limit, len(found))  # all of the pages that were looked at: `next` begins after them
        else:
            found, mark = self._kept("the search for models", asked)
        answer = {"models": [dict(row) for row in found[:limit]], "query": asked, "more": bool(mark), "next": mark}
        if not found:
            named: dict = {"author": author, "task": task, "parameters": parameters, "provider": provider, "app": app}
            named |= {"emissions": emissions, "warm": warm}
            narrowed = [*filters, *[f"{key} {value}" for key, value in named.items() if value]]
            narrowed += [] if gated is None else [f"gated {gated}"]
            ways = ["use fewer or other words (names are searched, not descriptions)"] if query else []
            ways += [f"drop one of the filters ({', '.join(narrowed)})"] if narrowed else []
            ways += ["start again without `cursor`"] if cursor else []
            answer["hint"] = f"Nothing fits. Try to {'; or '.join(ways)}." if ways else "This Hub shows you no models."
        return answer

    def _several(self, value: str | None) -> list:
        return [one.strip() for one in (value or "").split(",") if one.strip()]

    def _emitting(self, asked: dict, least: float, most: float, limit: int) -> tuple:
        """Those of the next pages whose cards say that they took so much, until there are enough; five pages at most."""
        found, mark = [], asked.get("cursor")
        for _ in range(5):
            page = {**asked, "limit": 100, **({"cursor": mark} if mark else {})}
            rows, mark = self._kept("the search for models", page)
            found += [row for row in rows if row["co2_grams"] is not None and least <= row["co2_grams"] <= most]
            if len(found) >= limit or not mark:
                break
        return found, mark

    def _grams(self, said: Any) -> float | None:
        value = said.get("emissions") if isinstance(said, dict) else said
        try:
            return float(str(value).split()[0].replace(",", ""))
        except (ValueError, IndexError):
            return None

    # Shared: listing
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

    # End of shared: listing

    def _list(self, params: dict) -> tuple:
        """`HfApi.list_models` without its waits: five repeats, `Retry-After` of any length, no time-out."""
        from urllib.parse import parse_qs, urlsplit

        from huggingface_hub.hf_api import ModelInfo
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        fields = ["author", "cardData", "createdAt", "downloads", "gated", "lastModified", "library_name", "likes"]
        response = http_backoff(
            "GET",
            f"{self._hub()}/api/models",
            params={**params, "expand": [*fields, "pipeline_tag", "private", "safetensors", "tags"]},
            headers=build_hf_headers(),
            timeout=20,
            max_retries=1,
            retry_on_status_codes=(502, 503, 504),
        )
        hf_raise_for_status(response)
        answer = response.json()
        if not isinstance(answer, list):
            raise TypeError("a list of models was expected")
        # Only the mark is taken from the link: who pages asks this Hub again, not whatever host stands there.
        link = response.links.get("next", {}).get("url")
        mark = parse_qs(urlsplit(link).query).get("cursor", [None])[0] if link else None
        return [self._row(ModelInfo(**item)) for item in answer], mark

    def _listed(self, value: Any) -> list:
        return [value] if isinstance(value, str) else [str(one) for one in value or []]

    def _row(self, info: Any) -> dict:
        card, tags = info.card_data.to_dict() if info.card_data else {}, info.tags or []

        weights = info.safetensors.parameters or {} if info.safetensors else {}
        # Of quantized ones the Hub counts each weight, though several lie in one number: their size is not known here.
        width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8}
        size = sum([width.get(kind, 0) * count for kind, count in weights.items()])
        bases = [tag.split(":", 1)[1] for tag in tags if tag.count(":") == 1 and tag.startswith("base_model:")]
        languages, licences = self._listed(card.get("language")), self._listed(card.get("license"))
        licences = licences or [tag[8:] for tag in tags if tag.startswith("license:")]
        told = ("license:", "base_model:", "dataset:", "region:")
        rest = [tag for tag in tags if not tag.startswith(told) and tag not in languages]
        return {
            "id": info.id,
            "author": info.author or (info.id.split("/")[0] if "/" in info.id else None),
            "task": info.pipeline_tag,
            "library": info.library_name,
            "license": ", ".join(licences) or None,
            "languages": languages[:20],
            "parameters": info.safetensors.total if info.safetensors else None,
            "bytes": size if size and weights.keys() <= width.keys() else None,
            "downloads": info.downloads,
            "likes": info.likes,
            "gated": bool(info.gated),
            "private": bool(info.private),
            "base_models": bases or self._listed(card.get("base_model")),
            "datasets": [tag[8:] for tag in tags if tag.startswith("dataset:")][:20],
            "co2_grams": self._grams(card.get("co2_eq_emissions")),
            "last_modified": info.last_modified.isoformat() if info.last_modified else None,
            "tags": [tag for tag in rest if tag not in (info.pipeline_tag, info.library_name)][:20],
        }

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
