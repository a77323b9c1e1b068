"""Find papers with Semantic Scholar, through the official `semanticscholar` client."""

from __future__ import annotations

from typing import Any

from smolagents import Tool


class SemanticScholarSearchTool(Tool):
    """
    Search all fields and venues for papers, or look papers up by their ids or title.

    Addresses and keys: `SEMANTIC_SCHOLAR_API_URL`, `SEMANTIC_SCHOLAR_API_KEY` (or `S2_API_KEY`). Answers are kept for six
    hours in `$XDG_CACHE_HOME/semantic_scholar_search` (or below `~/.cache`).
    """

    name = "semantic_scholar_search"
    description = (
        "Search Semantic Scholar for papers of all venues, or look papers up by ids or title. Returns records as "
        "arxiv_search does, with citation counts and one-sentence summaries (`tldr`). Use few plain words."
    )
    inputs = {
        "query": {
            "type": "string",
            "description": "Words, such as: residual network. When sorted also +, |, - and quotes (default none).",
            "nullable": True,
        },
        "ids": {
            "type": "array",
            "description": "arXiv ids, DOIs or Semantic Scholar's, up to 100, instead of a query (default none).",
            "nullable": True,
        },
        "title": {
            "type": "string",
            "description": "Find the one paper of this title (default none).",
            "nullable": True,
        },
        "year": {
            "type": "string",
            "description": "'2020', '2018-2022', '2020-' or days '2024-01-31:2024-06-30' (default any).",
            "nullable": True,
        },
        "fields": {
            "type": "array",
            "description": "Of study, as ['Computer Science'] (default all).",
            "nullable": True,
        },
        "venue": {"type": "array", "description": "As ['NeurIPS', 'ICML'] (default all).", "nullable": True},
        "min_citations": {"type": "integer", "description": "At least so many (default 0).", "nullable": True},
        "open_access": {"type": "boolean", "description": "Only with a free PDF (default False).", "nullable": True},
        "sort": {
            "type": "string",
            "description": "'relevance' (default), 'citations' or 'newest': these two need every word to occur.",
            "nullable": True,
        },
        "limit": {
            "type": "integer",
            "description": "How many at most, to 100, or 1000 with sort by citations or newest (default 10).",
            "nullable": True,
        },
        "after": {
            "type": "string",
            "description": "`next` of an answer: what follows it (default none).",
            "nullable": True,
        },
    }
    output_type = "object"
    # Annotated, because smolagents takes an attribute with lists in it for "complex" otherwise, and does not save it.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "papers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "arxiv_id": {"type": ["string", "null"], "description": "Without version."},
                        "doi": {"type": ["string", "null"]},
                        "s2_id": {"type": ["string", "null"]},
                        "title": {"type": ["string", "null"]},
                        "authors": {"type": "array", "items": {"type": "string"}},
                        "date": {"type": ["string", "null"], "description": "YYYY-MM-DD, or YYYY."},
                        "abstract": {"type": ["string", "null"]},
                        "tldr": {"type": ["string", "null"], "description": "Not with sort by citations or newest."},
                        "citations": {"type": ["integer", "null"]},
                        "influential_citations": {"type": ["integer", "null"]},
                        "links": {"type": "object", "description": "{s2, abs, pdf, doi}: addresses, those there are."},
                        "venue": {"type": ["string", "null"]},
                        "fields": {"type": "array", "items": {"type": "string"}},
                    },
                },
            },
            "total": {"type": "integer", "description": "How many papers match, about."},
            "next": {"type": ["string", "null"], "description": "For `after`, with sort by citations or newest."},
            "missing": {"type": "array", "description": "Ids that are not known."},
            "hint": {"type": "string", "description": "What to try next; only there when nothing was found."},
        },
        "required": ["papers", "total"],
    }
    effects = "read"
    max_seconds = 40
    max_tries = 3
    asked_fields = (
        "paperId,externalIds,title,abstract,year,venue,publicationDate,authors,citationCount,influentialCitationCount,"
        "openAccessPdf,fieldsOfStudy"
    )
    studies = (
        "Computer Science,Medicine,Chemistry,Biology,Materials Science,Physics,Geology,Psychology,Art,History,Geography,"
        "Sociology,Business,Political Science,Economics,Philosophy,Mathematics,Engineering,Environmental Science,"
        "Agricultural and Food Sciences,Education,Law,Linguistics"
    )

    def forward(
        self,
        query: str | None = None,
        ids: list | None = None,
        title: str | None = None,
        year: str | None = None,
        fields: list | None = None,
        venue: list | None = None,
        min_citations: int | None = None,
        open_access: bool | None = None,
        sort: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> dict:
        from urllib.parse import quote

        text, wanted, known = " ".join((query or "").split()), self.asked_fields.split(","), self._listed(ids)
        title = " ".join((title or "").split())
        if (text != "") + bool(known) + bool(title) != 1:
            raise ValueError(
                "semantic_scholar_search: give one of query, ids and title, such as "
                "semantic_scholar_search(query='residual network', year='2015-2018', min_citations=50)."
            )
        sort = sort or "relevance"
        orders = {"relevance": "", "citations": "citationCount:desc", "newest": "publicationDate:desc"}
        if sort not in orders:
            raise ValueError(f"semantic_scholar_search: sort is one of {', '.join(orders)}, not {sort!r}.")
        bulk = sort != "relevance"
        limit, most = 10 if limit is None else limit, 1000 if bulk else 100
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
            raise ValueError(f"semantic_scholar_search: limit is a whole number from 1 to {most}, not {limit!r}.")
        if after and not bulk:
            raise ValueError(
                "semantic_scholar_search: `after` goes with sort='citations' or 'newest', as in that answer."
            )
        if known:
            return self._look_up(known, [*wanted, "tldr"])
        # The client pastes what it is given into the address as it is.
        filters = self._filters(year, self._listed(fields), self._listed(venue), min_citations, open_access)
        if title:
            try:
                answer = self._scholar(
                    "search_paper", quote(title), match_title=True, fields=[*wanted, "tldr"], **filters
                )
            except FileNotFoundError:
                return {
                    "papers": [],
                    "total": 0,
                    "hint": "No paper has this title. Search for its main words with `query`.",
                }
            found = answer[1][0]["data"]
            return {"papers": [self._record(one) for one in found[:1]], "total": len(found[:1])}
        if bulk:
            # A page holds up to a thousand, whatever is asked for: it is cut here, and the next call goes on in it.
            token, _, place = (after or "").partition("+")
            asked = quote(text) + (f"&token={quote(token)}" if token else "")
            answer = self._scholar("search_paper", asked, bulk=True, sort=orders[sort], fields=wanted, **filters)[1][0]
            rows, start = answer.get("data") or [], int(place) if place.isdigit() else 0
            following = answer.get("token") or ""
            if start + limit < len(rows):
                following = f"{token}+{start + limit}"
            result = {
                "papers": rows[start : start + limit],
                "total": answer.get("total", 0),
                "next": following or None,
            }
        else:
            # Words with a hyphen find nothing there.
            asked = quote(text.replace("-", " "))
            answer = self._scholar("search_paper", asked, limit=limit, fields=[*wanted, "tldr"], **filters)[1][0]
            result = {"papers": (answer.get("data") or [])[:limit], "total": answer.get("total", 0)}
        result["papers"] = [self._record(one) for one in result["papers"]]
        if not result["papers"]:
            narrowed = [name for name, value in (("year", year), ("fields", fields), ("venue", venue)) if value]
            narrowed += [
                name for name, value in (("min_citations", min_citations), ("open_access", open_access)) if value
            ]
            ways = ["fewer or other words", *([f"no {', '.join(narrowed)}"] if narrowed else [])]
            result["hint"] = f"No paper fits. Try {'; '.join([*ways, *(['sort by relevance'] if bulk else [])])}."
        return result

    def _listed(self, value) -> list:
        if not value:
            return []
        return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else list(value)

    def _look_up(self, ids: list, wanted: list) -> dict:
        from urllib.parse import unquote

        if len(ids) > 100:
            raise ValueError(
                f"semantic_scholar_search: {len(ids)} ids are too many for one call. Ask for at most 100."
            )
        names = list(dict.fromkeys([unquote(self._clean_id(one)) for one in ids]))
        try:
            found = self._scholar("get_papers", names, fields=wanted)[1][0]
        except ValueError as error:
            if "No valid paper ids" not in str(error):
                raise
            found = [None] * len(names)
        missing = [name for name, one in zip(names, found, strict=False) if not one]
        papers = [self._record(one) for one in found if one]
        result = {"papers": papers, "total": len(papers), "missing": missing}
        if missing:
            result["hint"] = "Semantic Scholar does not know the ids in `missing`. Check them, or search by title."
        return result

    def _filters(self, year, fields, venue, min_citations, open_access) -> dict:
        import re
        from urllib.parse import quote

        filters: dict = {}
        when = str(year or "").strip()
        if re.fullmatch(r"\d{4}-\d\d(-\d\d)?", when) and int(when[5:7]) <= 12:
            when = f"{when}:{when}"
        if re.fullmatch(r"(\d{4}(-\d\d){0,2})?:(\d{4}(-\d\d){0,2})?", when) and when != ":":
            filters["publication_date_or_year"] = when
        elif re.fullmatch(r"\d{4}|\d{4}-(\d{4})?|-\d{4}", when):
            filters["year"] = when
        elif when:
            raise ValueError(
                f"semantic_scholar_search: year is '2020', '2018-2022', '2020-' or '2024-01-31:2024-06-30', not {year!r}."
            )
        if fields:
            names = {name.lower(): name for name in self.studies.split(",")}
            unknown = [name for name in fields if str(name).strip().lower() not in names]
            if unknown:
                raise ValueError(
                    f"semantic_scholar_search: {unknown[0]!r} is no field of study. There are: {', '.join(names.values())}."
                )
            filters["fields_of_study"] = [quote(names[str(name).strip().lower()]) for name in fields]
        if venue:
            filters["venue"] = [quote(str(name)) for name in venue]
        if min_citations is not None:
            if isinstance(min_citations, bool) or not isinstance(min_citations, int) or min_citations < 0:
                raise ValueError(f"semantic_scholar_search: min_citations is a whole number, not {min_citations!r}.")
            filters["min_citation_count"] = min_citations
        if open_access:
            filters["open_access_pdf"] = True
        return filters

    # Shared: turns
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

    # End of shared: turns

    # Shared: scholar
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

    # End of shared: scholar

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
