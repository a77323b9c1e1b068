"""What there is of a paper on the Hugging Face Hub, and which papers it shows."""

from typing import Any

from smolagents import Tool


class PaperResourcesTool(Tool):
    """Finds the models, datasets, Spaces, collections and code of a paper on the Hub; and daily and trending papers.

    Through the HTTP layer of the official client. Answers are kept for ten minutes in
    `$XDG_CACHE_HOME/paper_resources` (or below `~/.cache`), for the token alone that they were given to.
    """

    name = "paper_resources"
    description = (
        "Finds what belongs to a paper: models, datasets, Spaces and collections on the Hugging Face Hub that name it, and "
        "its own code repository. Or lists the Hub's papers: of a day, week or month, trending, or by words."
    )
    inputs = {
        "paper": {
            "type": "string",
            "description": "arXiv id, as '2106.09685' (default none: list papers).",
            "nullable": True,
        },
        "papers": {
            "type": "string",
            "description": "Which to list: 'trending', 'daily' (the latest), '2025-03-14', '2025-W11' or '2025-03' "
            "(default daily).",
            "nullable": True,
        },
        "query": {
            "type": "string",
            "description": "List papers by these words instead (default none).",
            "nullable": True,
        },
        "kinds": {
            "type": "array",
            "description": "Of models, datasets, spaces, collections, code (default all).",
            "nullable": True,
        },
        "sort": {"type": "string", "description": "downloads (default), likes or trending.", "nullable": True},
        "limit": {
            "type": "integer",
            "description": "How many of each at most, 1 to 100 (default 10).",
            "nullable": True,
        },
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "paper": {"type": ["object", "null"], "description": "As in `papers`; null: no page on the Hub."},
            "models": {
                "type": "array",
                "description": "Like datasets and spaces: {id, downloads, likes, task, library, license, last_modified, "
                "gated, private, url}.",
            },
            "datasets": {"type": "array"},
            "spaces": {"type": "array"},
            "collections": {"type": "array", "description": "{slug, title, upvotes, url}."},
            "code": {"type": "array", "description": "{url, stars, where}: where is hub, abstract or text."},
            "more": {"type": "array", "description": "Kinds of which there are more than `limit`."},
            "papers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "arxiv_id": {"type": "string"},
                        "title": {"type": ["string", "null"]},
                        "authors": {"type": "array", "items": {"type": "string"}},
                        "date": {"type": ["string", "null"], "description": "YYYY-MM-DD."},
                        "abstract": {"type": ["string", "null"]},
                        "tldr": {"type": ["string", "null"], "description": "Written by a machine."},
                        "keywords": {"type": "array", "items": {"type": "string"}},
                        "upvotes": {"type": ["integer", "null"]},
                        "comments": {"type": ["integer", "null"]},
                        "links": {"type": "object", "description": "{abs, pdf, hub, code, project}."},
                    },
                },
            },
            "hint": {"type": "string", "description": "What to try next."},
        },
    }
    effects = "read"
    max_seconds = 30  # a request

    def forward(
        self,
        paper: str | None = None,
        papers: str | None = None,
        query: str | None = None,
        kinds: list | None = None,
        sort: str | None = "downloads",
        limit: int | None = 10,
    ) -> dict:
        limit, sort = 10 if limit is None else limit, sort or "downloads"
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 100:
            raise ValueError(f"`limit` is a whole number from 1 to 100, not {limit!r}.")
        orders = {"downloads": "downloads", "likes": "likes", "trending": "trendingScore"}
        if sort not in orders:
            raise ValueError(f"`sort` is one of {', '.join(orders)}, not {sort!r}.")
        every = ["models", "datasets", "spaces", "collections", "code"]
        wanted = [kinds] if isinstance(kinds, str) else list(kinds or every)
        unknown = [kind for kind in wanted if kind not in every]
        if unknown:
            raise ValueError(f"`kinds` are of {', '.join(every)}, not {unknown[0]!r}.")
        if paper and (papers or query):
            raise ValueError("Give either `paper`, for what belongs to it, or `papers` or `query`, to list papers.")
        if paper:
            return self._of_paper(self._clean(paper), wanted, orders[sort], limit)
        return self._listing((papers or "daily").strip(), " ".join((query or "").split()), limit)

    def _of_paper(self, name: str, kinds: list, sort: str, limit: int) -> dict:
        about, answer, more = None, dict[str, Any](paper=None), list[str]()
        try:
            about = self._get(f"paper {name}", f"/api/papers/{name}", {}, False, dict)
            answer["paper"] = self._record(about)
        except FileNotFoundError:
            answer["hint"] = f"The Hub has no page for {name}; what names it in its card is listed all the same."
        for kind in [kind for kind in kinds if kind in ("models", "datasets", "spaces")]:
            # Spaces are never downloaded, so that order is not to be had.
            order = "likes" if kind == "spaces" and sort == "downloads" else sort
            asked = {"filter": f"arxiv:{name}", "sort": order, "limit": limit + 1}
            fields = ["author", "createdAt", "lastModified", "likes", "private", "tags"]
            fields += {
                "models": ["downloads", "gated", "library_name", "pipeline_tag"],
                "datasets": ["downloads", "gated"],
            }.get(kind, ["sdk"])
            rows = self._get(f"the {kind} of {name}", f"/api/{kind}", {**asked, "expand": fields}, True, list)
            answer[kind] = [self._row(kind, row) for row in rows[:limit]]
            if len(rows) > limit:
                more.append(kind)
        if "collections" in kinds:
            asked = {"item": f"papers/{name}", "limit": limit + 1}
            rows = self._get(f"the collections of {name}", "/api/collections", asked, True, list)
            answer["collections"] = [
                {
                    "slug": row["slug"],
                    "title": row.get("title"),
                    "upvotes": row.get("upvotes"),
                    "url": f"{self._hub()}/collections/{row['slug']}",
                }
                for row in rows[:limit]
            ]
            if len(rows) > limit:
                more.append("collections")
        if "code" in kinds:
            answer["code"] = self._code(name, about)
            if not answer["code"]:
                answer["hint"] = f"No code link is known for {name}: look in its text, or among the models and Spaces."
        return {**answer, "more": more}

    def _code(self, name: str, about: dict | None) -> list:
        """The paper's own repository: what the Hub says, else links in the abstract, else in the text."""
        import re

        place = r"https?://(?:www\.)?(?:github\.com|gitlab\.com|bitbucket\.org|codeberg\.org)/[\w.-]+/[\w.-]*\w"
        found = []
        if about and about.get("githubRepo"):
            return [{"url": about["githubRepo"], "stars": about.get("githubStars"), "where": "hub"}]
        for url in dict.fromkeys(re.findall(place, (about or {}).get("summary") or "")):
            found.append({"url": url.removesuffix(".git"), "stars": None, "where": "abstract"})
        if found or about is None:
            return found
        try:
            text = self._get(f"the text of {name}", f"/papers/{name}.md", {}, False, str)
        except FileNotFoundError:
            return []
        # A text names the code of others as well: in the order they come, the first is most often its own.
        urls = list(dict.fromkeys(re.findall(place, text)))
        return [{"url": url.removesuffix(".git"), "stars": None, "where": "text"} for url in urls[:5]]

    def _listing(self, which: str, query: str, limit: int) -> dict:
        import re

        if query:
            rows = self._get("the search for papers", "/api/papers/search", {"q": query, "limit": limit}, False, list)
        else:
            asked: dict = {"limit": limit}
            if which == "trending":
                asked["sort"] = "trending"
            elif re.fullmatch(r"\d{4}-\d\d-\d\d", which):
                asked["date"] = which
            elif re.fullmatch(r"\d{4}-W\d\d", which):
                asked["week"] = which
            elif re.fullmatch(r"\d{4}-\d\d", which):
                asked["month"] = which
            elif which != "daily":
                raise ValueError(f"`papers` is trending, daily, or as 2025-03-14, 2025-W11 or 2025-03, not {which!r}.")
            rows = self._get(f"the papers of {which}", "/api/daily_papers", asked, False, list)
        answer: dict = {"papers": [self._record(row) for row in rows[:limit]]}
        if not rows:
            answer["hint"] = (
                "The Hub has no paper with these words: try fewer, or arxiv_search."
                if query
                else f"The Hub shows no papers for {which}: try another day (there are none on most weekends)."
            )
        return answer

    def _record(self, row: dict) -> dict:
        """A paper in the shape that arxiv_search returns as well; lists of the Hub wrap it once more."""
        about = {**row, **(row.get("paper") or {})}
        name = about["id"]
        links = {"abs": f"https://arxiv.org/abs/{name}", "pdf": f"https://arxiv.org/pdf/{name}"}
        links["hub"] = f"{self._hub()}/papers/{name}"
        links |= {"code": about["githubRepo"]} if about.get("githubRepo") else {}
        links |= {"project": about["projectPage"]} if about.get("projectPage") else {}
        return {
            "arxiv_id": name,
            "doi": None,
            "s2_id": None,
            "title": " ".join((about.get("title") or "").split()) or None,
            "authors": [author.get("name") for author in about.get("authors") or []],
            "date": (about.get("publishedAt") or "")[:10] or None,
            "abstract": " ".join((about.get("summary") or "").split()) or None,
            "tldr": about.get("ai_summary"),
            "citations": None,
            "influential_citations": None,
            "links": links,
            "keywords": about.get("ai_keywords") or [],
            "upvotes": about.get("upvotes"),
            "comments": about.get("numComments"),
        }

    def _row(self, kind: str, row: dict) -> dict:
        tags = row.get("tags") or []
        prefix = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}[kind]
        task = row.get("pipeline_tag") or ", ".join([tag[16:] for tag in tags if tag.startswith("task_categories:")])
        return {
            "id": row["id"],
            "downloads": row.get("downloads"),
            "likes": row.get("likes"),
            "task": task or None,
            "library": row.get("library_name") or row.get("sdk"),
            "license": ", ".join([tag[8:] for tag in tags if tag.startswith("license:")]) or None,
            "last_modified": row.get("lastModified"),
            "gated": bool(row.get("gated")),
            "private": bool(row.get("private")),
            "url": f"{self._hub()}/{prefix}{row['id']}",
        }

    def _clean(self, paper: str) -> str:
        import re

        name = re.sub(r"^(arxiv:|https?://\S+?/(abs|pdf|html|papers)/)", "", paper.strip(), flags=re.IGNORECASE)
        name = re.sub(r"(v\d+)?(\.pdf|\.md)?$", "", name)
        if not re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7}", name):
            raise ValueError(
                f"{paper!r} is no arXiv id, which is how the Hub knows papers. Examples: 2106.09685, cs/9905014."
            )
        return name

    def _get(self, subject: str, path: str, params: dict, known: bool, kind: type) -> Any:
        """An answer of the Hub, of the last ten minutes; with the token only where repositories are listed."""
        from huggingface_hub import get_token

        key = self._cache_key(self._hub(), get_token() if known else None, path, params)
        kept = self._cached(key, 600)
        if kept:
            return kept["data"]
        answer = self._ask(subject, self.max_seconds, self._request, path=path, params=params, known=known, kind=kind)
        self._cache(key, answer)
        return answer

    def _request(self, path: str, params: dict, known: bool, kind: type) -> Any:
        """As the official client asks, without its waits: five repeats, `Retry-After` of any length, no time-out."""
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        response = http_backoff(
            "GET",
            f"{self._hub()}{path}",
            params=params,
            headers=build_hf_headers(token=None if known else False),
            timeout=20,
            max_retries=1,
            retry_on_status_codes=(502, 503, 504),
        )
        if response.status_code == 404 and not known:
            raise FileNotFoundError(f"The Hub ({self._hub()}) has nothing at {path}.")
        hf_raise_for_status(response)
        if kind is str:
            if "html" in response.headers.get("content-type", ""):
                raise TypeError("Markdown was expected")
            return response.text
        answer, named = response.json(), {"id", "slug", "paper"}
        if not isinstance(answer, kind) or (isinstance(answer, dict) and "id" not in answer):
            raise TypeError(f"a {kind.__name__} was expected")
        if isinstance(answer, list) and [row for row in answer if not isinstance(row, dict) or not row.keys() & named]:
            raise TypeError("a list of objects was expected")
        return answer

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
