"""Search for models on the Hugging Face Hub."""

from typing import Any

from smolagents import Tool


class HubSearchModelsTool(Tool):
    """Finds models by words and filters, one request a call.

    `HF_ENDPOINT` and `HF_TOKEN` mean what they mean to `huggingface_hub`. Answers are kept for ten minutes, in memory
    only: what a token may see is in them.
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
        "gated": {"type": "boolean", "description": "Only gated, or only open ones (default both).", "nullable": True},
        "provider": {
            "type": "string",
            "description": "Served by this inference provider, or by 'all' (default no matter).",
            "nullable": True,
        },
        "app": {"type": "string", "description": "Runs in it, as 'vllm' or 'ollama' (default any).", "nullable": True},
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
                "downloads in 30 days, likes, gated, private, base_models, datasets, last_modified, other tags}",
            },
            "query": {"description": "What was searched for."},
            "more": {"type": "boolean"},
            "next": {"description": "`cursor` of the next page, or null."},
            "hint": {"description": "What to try next; only there when nothing was found."},
        },
    }
    effects = "read"

    def __init__(self, model_repo_id=None):
        super().__init__()
        self._answers: dict = {}  # shared by copies of the tool

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
        gated: bool | None = None,
        provider: str | None = None,
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

        filters = [tags] if isinstance(tags, str) else list(tags or [])
        for prefix, value in (("", library), ("", language), ("license:", license)):
            if value:
                filters.append(prefix + value.strip().lower())
        if base_model:
            filters.append("base_model:" + base_model.strip().removeprefix("base_model:"))
        if dataset:
            filters.append("dataset:" + dataset.strip().removeprefix("dataset:"))
        asked: dict[str, Any] = {
            "search": query,
            "author": author,
            "filter": filters,
            "num_parameters": parameters,
            "apps": app,
        }
        asked["pipeline_tag"] = task.strip().lower().replace(" ", "-").replace("_", "-") if task else None
        asked |= {"inference_provider": provider, "sort": sort, "limit": limit, "cursor": cursor}
        asked = {key: value for key, value in asked.items() if value}
        if gated is not None:
            asked["gated"] = "true" if gated else "false"
        found, mark = self._kept("the search for models", asked)
        answer = {"models": [dict(row) for row in found[:limit]], "query": asked, "more": bool(mark), "next": mark}
        if not found:
            named = {"author": author, "task": task, "parameters": parameters, "provider": provider, "app": app}
            narrowed = [*filters, *[f"{key} {value}" for key, value in named.items() if value]]
            narrowed += [] if gated is None else [f"gated {gated}"]
            ways = ["use fewer or other words (names are searched, not descriptions)"] if query else []
            ways += [f"drop one of the filters ({', '.join(narrowed)})"] if narrowed else []
            ways += ["start again without `cursor`"] if cursor else []
            answer["hint"] = f"Nothing fits. Try to {'; or '.join(ways)}." if ways else "This Hub shows you no models."
        return answer

    def _kept(self, subject: str, asked: dict) -> tuple:
        """A page of the list and the mark of the next one; of the last ten minutes, for this token."""
        import json
        from time import monotonic

        from huggingface_hub import get_token

        key = json.dumps([self._hub(), asked, get_token()])
        kept = self._answers.get(key)
        if kept and monotonic() - kept[0] < 600:
            return kept[1]
        answer = self._ask(subject, 60, self._list, params=asked)
        while len(self._answers) > 100:
            self._answers.pop(next(iter(self._answers)), None)
        self._answers[key] = (monotonic(), answer)
        return answer

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
            "last_modified": info.last_modified.isoformat() if info.last_modified else None,
            "tags": [tag for tag in rest if tag not in (info.pipeline_tag, info.library_name)][:20],
        }

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
