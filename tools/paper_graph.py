"""Who cites a paper, whom it cites, what is like it, and passages of papers, through the official client."""

from __future__ import annotations

from typing import Any

from smolagents import Tool


class PaperGraphTool(Tool):
    """
    The graph of citations of Semantic Scholar, its recommendations, and its search for passages in full texts.

    Addresses and keys: `SEMANTIC_SCHOLAR_API_URL`, `SEMANTIC_SCHOLAR_API_KEY` (or `S2_API_KEY`). Answers are kept for six
    hours in `$XDG_CACHE_HOME/paper_graph` (or below `~/.cache`).
    """

    name = "paper_graph"
    description = (
        "Follow a paper through the literature: who cites it ('citations'), whom it cites ('references'), both with the "
        "words in which it is done, papers like it ('recommendations'), or passages of papers' full texts that fit words "
        "('snippets'). Returns records as semantic_scholar_search does."
    )
    inputs = {
        "relation": {"type": "string", "description": "citations, references, recommendations or snippets."},
        "paper": {
            "type": "string",
            "description": "arXiv id, DOI or Semantic Scholar's; snippets: in this paper (default none).",
            "nullable": True,
        },
        "query": {
            "type": "string",
            "description": "For snippets: what they are to say (default none).",
            "nullable": True,
        },
        "like": {"type": "array", "description": "For recommendations: further ids (default none).", "nullable": True},
        "unlike": {
            "type": "array",
            "description": "For recommendations: ids to keep off (default none).",
            "nullable": True,
        },
        "year": {"type": "string", "description": "'2020', '2018-2022' or '2020-' (default any).", "nullable": True},
        "min_citations": {"type": "integer", "description": "At least so many (default 0).", "nullable": True},
        "influential": {
            "type": "boolean",
            "description": "Only influential citations (default False).",
            "nullable": True,
        },
        "intent": {
            "type": "string",
            "description": "Only citations for it: background, methodology or result (default any).",
            "nullable": True,
        },
        "sort": {
            "type": "string",
            "description": "For citations and references: influence (default), citations or newest.",
            "nullable": True,
        },
        "limit": {"type": "integer", "description": "How many at most, 1 to 100 (default 10).", "nullable": True},
    }
    output_type = "object"
    # Annotated, because smolagents takes an attribute with lists in it for "complex" otherwise, and does not save it.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "papers": {
                "type": "array",
                "description": "Records as of semantic_scholar_search; for citations and references also {contexts, intents, "
                "influential}: the words in which one cites the other, why, and whether it leans on it.",
            },
            "snippets": {
                "type": "array",
                "description": "{text, section, kind, score, corpus_id, title, authors}, best first.",
            },
            "total": {"type": "integer", "description": "How many fit, among those looked at."},
            "looked_at": {"type": "integer", "description": "Citations or references that were looked at."},
            "complete": {"type": "boolean", "description": "Whether those were all."},
            "hint": {"type": "string", "description": "What to try next, where there is little."},
        },
    }
    effects = "read"
    max_seconds = 40
    max_tries = 3
    most_looked_at = 3000
    asked_fields = (
        "paperId,externalIds,title,abstract,year,venue,publicationDate,authors,citationCount,influentialCitationCount,"
        "openAccessPdf,fieldsOfStudy"
    )

    def forward(
        self,
        relation: str,
        paper: str | None = None,
        query: str | None = None,
        like: list | None = None,
        unlike: list | None = None,
        year: str | None = None,
        min_citations: int | None = None,
        influential: bool | None = None,
        intent: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> dict:
        import re

        limit = 10 if limit is None else limit
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 100:
            raise ValueError(f"paper_graph: limit is a whole number from 1 to 100, not {limit!r}.")
        if year and not re.fullmatch(r"\d{4}|\d{4}-(\d{4})?|-\d{4}", str(year)):
            raise ValueError(f"paper_graph: year is '2020', '2018-2022' or '2020-', not {year!r}.")
        least = 0 if min_citations is None else min_citations
        if isinstance(least, bool) or not isinstance(least, int) or least < 0:
            raise ValueError(f"paper_graph: min_citations is a whole number, not {min_citations!r}.")
        if intent and intent not in ("background", "methodology", "result"):
            raise ValueError(f"paper_graph: intent is background, methodology or result, not {intent!r}.")
        if sort not in (None, "", "influence", "citations", "newest"):
            raise ValueError(f"paper_graph: sort is influence, citations or newest, not {sort!r}.")
        if relation == "snippets":
            return self._snippets(query, paper, year, least, limit)
        if relation not in ("citations", "references", "recommendations"):
            raise ValueError(
                f"paper_graph: relation is citations, references, recommendations or snippets, not {relation!r}."
            )
        if relation == "recommendations":
            return self._recommendations(paper, like, unlike, year, least, limit)
        if not paper:
            raise ValueError(f"paper_graph: {relation} of which paper? Give `paper`, such as '1512.03385'.")
        return self._edges(
            relation, self._clean_id(paper), (year, least, influential, intent), sort or "influence", limit
        )

    def _edges(self, relation: str, name: str, narrow: tuple, sort: str, limit: int) -> dict:
        rows, complete, hidden = self._pages(relation, name)
        year, least, influential, intent = narrow
        kept: list = []
        for row in rows:
            other = row.get("citingPaper") or row.get("citedPaper") or {}
            if not other.get("title"):  # a work that was cited, but that is not in the graph
                continue
            fits = self._in_years(other.get("year"), year) and (other.get("citationCount") or 0) >= least
            if (
                fits
                and (not influential or row.get("isInfluential"))
                and (not intent or intent in (row.get("intents") or []))
            ):
                edge = {"contexts": row.get("contexts") or [], "intents": row.get("intents") or []}
                kept.append({**self._record(other), **edge, "influential": bool(row.get("isInfluential"))})
        keys = {"influence": self._by_influence, "citations": self._by_citations, "newest": self._by_date}
        kept.sort(key=keys[sort], reverse=True)
        answer = {"papers": kept[:limit], "total": len(kept), "looked_at": len(rows), "complete": complete}
        for one in answer["papers"]:
            one["contexts"] = [text[:500] for text in one["contexts"][:5]]
        if hidden:
            answer["hint"] = (
                "The publisher keeps the references of this paper back: read its bibliography with paper_read."
            )
        elif not rows:
            answer["hint"] = f"Semantic Scholar knows the paper, and no {relation} of it."
        elif not kept:
            answer["hint"] = f"None of the {len(rows)} {relation} that were looked at fits: drop a filter."
        elif not complete:
            answer["hint"] = f"Only the {len(rows)} newest {relation} were looked at; there are more."
        return answer

    def _pages(self, relation: str, name: str) -> tuple:
        """Pages of a thousand, until there are no more or enough: the service sorts and filters nothing itself."""
        wanted = ["contexts", "intents", "isInfluential", *self.asked_fields.split(",")]
        _, pages = self._scholar(
            f"get_paper_{relation}", name, fields=wanted, limit=1000, pages=self.most_looked_at // 1000
        )
        rows = [row for page in pages for row in page["data"]]
        return rows, "next" not in pages[-1], bool(pages[0].get("hidden"))

    def _recommendations(self, paper, like, unlike, year, least: int, limit: int) -> dict:
        wanted = self.asked_fields.split(",")
        good = [*([paper] if paper else []), *self._listed(like)]
        if not good:
            raise ValueError(
                "paper_graph: recommendations like which paper? Give `paper` or `like`, such as ['1512.03385']."
            )
        liked, disliked = [self._clean_id(one) for one in good], [self._clean_id(one) for one in self._listed(unlike)]
        # More than wanted where they are narrowed down afterwards: the service has no filters here.
        most = 500 if year or least else limit
        if len(liked) == 1 and not disliked:
            pool = {"pool_from": "all-cs"}  # the other pool holds the last two months only
            pages = self._scholar("get_recommended_papers", liked[0], fields=wanted, limit=most, **pool)[1]
        else:
            pages = self._scholar("get_recommended_papers_from_lists", liked, disliked, fields=wanted, limit=most)[1]
        papers = [self._record(one) for one in pages[0]["recommendedPapers"]]
        papers = [
            one for one in papers if self._in_years((one["date"] or "")[:4], year) and (one["citations"] or 0) >= least
        ]
        answer = {"papers": papers[:limit], "total": len(papers)}
        if not papers:
            answer["hint"] = (
                "Nothing is recommended. Try another paper that is like what you look for, or drop a filter."
            )
        return answer

    def _snippets(self, query, paper, year, least: int, limit: int) -> dict:
        from urllib.parse import quote

        text = " ".join((query or "").split())
        if not text:
            raise ValueError("paper_graph: snippets need a `query`, such as 'learning rate warmup is needed'.")
        options: dict = {"limit": limit}
        if paper:
            options["paper_ids"] = [self._clean_id(paper)]
        if year:
            options["year"] = year
        if least:
            options["min_citation_count"] = least
        rows = self._scholar("search_snippet", quote(text), **options)[1][0]["data"]
        snippets = [
            {
                "text": row["snippet"]["text"],
                "section": row["snippet"].get("section"),
                "kind": row["snippet"].get("snippetKind"),
                "score": row.get("score"),
                "corpus_id": str(row["paper"].get("corpusId") or "") or None,
                "title": row["paper"].get("title"),
                "authors": [
                    one.get("name") if isinstance(one, dict) else one for one in row["paper"].get("authors") or []
                ],
            }
            for row in rows[:limit]
        ]
        answer: dict = {"snippets": snippets, "total": len(snippets)}
        if not snippets:
            answer["hint"] = "No passage fits. Try other words, or no filters; not all full texts are in there."
        return answer

    def _listed(self, value) -> list:
        if not value:
            return []
        return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else list(value)

    def _in_years(self, year, wanted) -> bool:
        if not wanted:
            return True
        first, dash, last = str(wanted).partition("-")
        return bool(year) and int(first or 0) <= int(year) <= int((last or 9999) if dash else first)

    def _by_influence(self, paper: dict) -> tuple:
        return paper["influential"], len(paper["contexts"]), paper["citations"] or 0

    def _by_citations(self, paper: dict) -> int:
        return paper["citations"] or 0

    def _by_date(self, paper: dict) -> str:
        return paper["date"] or ""

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
