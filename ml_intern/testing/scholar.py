"""Semantic Scholar on this machine: graph, search, recommendations and snippets, for the unmodified client.

    with LocalScholar() as scholar:
        os.environ["SEMANTIC_SCHOLAR_API_URL"] = scholar.url

It knows the papers that the local arXiv knows (real ones; their abstracts are paraphrased). Who cites whom, how often and
in which words is made up, the same each time.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Set
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ml_intern.testing.serve import Service

__all__ = ["LocalScholar", "ScholarPaper"]

_FIELDS = {
    *("paperId", "corpusId", "externalIds", "url", "title", "abstract", "venue", "publicationVenue", "year"),
    *("referenceCount", "citationCount", "influentialCitationCount", "isOpenAccess", "openAccessPdf", "fieldsOfStudy"),
    *("s2FieldsOfStudy", "publicationTypes", "publicationDate", "journal", "citationStyles", "authors", "tldr"),
}
_EDGE_FIELDS = {"contexts", "intents", "contextsWithIntent", "isInfluential"}
_NEVER_IN_BULK = {"tldr", "citationStyles"}
_STUDIES = {"cs": "Computer Science", "stat": "Mathematics", "math": "Mathematics", "physics": "Physics"}


class Bad(Exception):
    """A request that the service refuses: status and words."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


@dataclass
class ScholarPaper:
    """A paper as Semantic Scholar knows it: `about` holds its API fields, `body` its text by section."""

    about: dict[str, Any]
    body: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.about["paperId"]


@dataclass(frozen=True)
class Edge:
    """One paper cites another."""

    citing: str
    cited: str
    contexts: tuple[str, ...] = ()
    intents: tuple[str, ...] = ()
    influential: bool = False


class LocalScholar(Service):
    """A local Semantic Scholar. Make it fail with [`~ml_intern.testing.serve.Service.fail`].

    Args:
        data (`Path`, *optional*): Taken for the sake of `python -m ml_intern.testing.serve`; nothing is kept in it.
        port (`int`, defaults to 0): 0 takes a free one.
        keys (`tuple[str, ...]`, *optional*): API keys that are valid. Requests without one are served as well.

    Attributes:
        papers (`dict[str, ScholarPaper]`): By their ids.
        edges (`list[Edge]`): Who cites whom.
        hidden (`set[str]`): Papers whose references the publisher keeps back.
    """

    def __init__(self, data: Path | None = None, *, port: int = 0, keys: tuple[str, ...] = ()) -> None:
        self.papers: dict[str, ScholarPaper] = {}
        self.edges: list[Edge] = []
        self.hidden: set[str] = set()
        self.keys = keys
        self._recorded()
        graph, recommendations = "/graph/v1", "/recommendations/v1/papers"
        routes = [
            Route(f"{graph}/paper/batch", self._answering(self._batch), methods=["POST"]),
            Route(f"{graph}/paper/search", self._answering(self._search)),
            Route(f"{graph}/paper/search/bulk", self._answering(self._bulk)),
            Route(f"{graph}/paper/search/match", self._answering(self._match)),
            Route(f"{graph}/snippet/search", self._answering(self._snippets)),
            Route(f"{graph}/paper/{{id:path}}/citations", self._answering(self._citations)),
            Route(f"{graph}/paper/{{id:path}}/references", self._answering(self._references)),
            Route(f"{graph}/paper/{{id:path}}", self._answering(self._paper)),
            Route(f"{recommendations}/forpaper/{{id:path}}", self._answering(self._recommend)),
            Route(f"{recommendations}/", self._answering(self._recommend_lists), methods=["POST"]),
        ]
        super().__init__(Starlette(routes=routes), port=port)

    def environment(self) -> dict[str, str]:
        """The variables that lead this project's tools here."""
        return {"SEMANTIC_SCHOLAR_API_URL": self.url}

    def add(self, paper: ScholarPaper) -> None:
        """Put a paper there, or replace the one with its id."""
        self.papers[paper.id] = paper

    def _recorded(self) -> None:
        recordings = resources.files("ml_intern.testing") / "recordings" / "arxiv_papers.json"
        records = json.loads(recordings.read_text(encoding="utf-8"))["papers"]
        for number, record in enumerate(sorted(records, key=lambda one: one["published"])):
            dice = random.Random(record["id"])
            id = hashlib.sha1(record["id"].encode(), usedforsecurity=False).hexdigest()
            older = list(self.papers)
            first = record["abstract"].split(". ")[0].strip().rstrip(".") + "."
            external = {"ArXiv": record["id"], "CorpusId": 1000 + number}
            external |= {"DOI": record["doi"]} if record["doi"] else {}
            studies = list(
                dict.fromkeys(_STUDIES.get(one.split(".")[0], "Engineering") for one in record["categories"])
            )
            about = {
                "paperId": id,
                "corpusId": 1000 + number,
                "externalIds": external,
                "url": f"https://www.semanticscholar.org/paper/{id}",
                "title": record["title"],
                "abstract": record["abstract"],
                "venue": "arXiv.org" if number % 3 else "Neural Information Processing Systems",
                "year": int(record["published"][:4]),
                "publicationDate": record["published"][:10],
                "publicationTypes": ["JournalArticle"],
                "isOpenAccess": True,
                "openAccessPdf": {"url": f"https://arxiv.org/pdf/{record['id']}", "status": "GREEN"},
                "fieldsOfStudy": studies,
                "authors": [{"authorId": str(hash_of(name)), "name": name} for name in record["authors"]],
                "tldr": {"model": "tldr@v2.0.0", "text": first},
            }
            body = {"Introduction": record["abstract"], "Conclusion": f"We showed this: {first}"}
            self.add(ScholarPaper(about, body))
            for cited in dice.sample(older, min(len(older), 4)):
                title = self.papers[cited].about["title"]
                contexts = (f"… as in {title} [{number}] …",) * dice.randint(0, 2)
                intents = tuple(dice.sample(["background", "methodology", "result"], 1)) if contexts else ()
                self.edges.append(Edge(id, cited, contexts, intents, dice.random() < 0.3))
        for paper in self.papers.values():
            cited_by = [edge for edge in self.edges if edge.cited == paper.id]
            paper.about["citationCount"] = len(cited_by)
            paper.about["influentialCitationCount"] = sum(edge.influential for edge in cited_by)
            paper.about["referenceCount"] = sum(edge.citing == paper.id for edge in self.edges)

    def _answering(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            try:
                if (key := request.headers.get("x-api-key")) and key not in self.keys:
                    return JSONResponse({"message": "Forbidden"}, 403)
                return JSONResponse(await handler(request))
            except Bad as bad:
                return JSONResponse({"error": str(bad)}, bad.status)

        return answer

    def find(self, id: str) -> ScholarPaper | None:
        """A paper by any of its ids: `ARXIV:...`, `DOI:...`, `CorpusId:...` or Semantic Scholar's own."""
        kind, _, value = id.partition(":")
        if not value:
            return self.papers.get(id)
        names = {"arxiv": "ArXiv", "doi": "DOI", "corpusid": "CorpusId"}
        if kind.lower() not in names:
            raise Bad(400, f"Unsupported id: {id}")
        for paper in self.papers.values():
            if str(paper.about["externalIds"].get(names[kind.lower()])).lower() == value.lower():
                return paper
        return None

    def _known(self, id: str) -> ScholarPaper:
        paper = self.find(id)
        if paper is None:
            raise Bad(404, f"Paper with id {id} not found")
        return paper

    async def _paper(self, request: Request) -> Any:
        return _shown(self._known(request.path_params["id"]), _fields(request))

    async def _batch(self, request: Request) -> Any:
        ids = (await request.json()).get("ids")
        if not isinstance(ids, list) or not 1 <= len(ids) <= 500:
            raise Bad(400, "`ids` must be a list of 1 to 500 ids")
        fields, found = _fields(request), [self.find(id) for id in ids]
        if not any(found):
            raise Bad(400, "No valid paper ids given")
        return [_shown(paper, fields) if paper else None for paper in found]

    def _filtered(self, request: Request) -> list[ScholarPaper]:
        asked = request.query_params
        if not asked.get("query"):
            raise Bad(400, "Missing required parameter: query")
        studies = {one for one in asked.get("fieldsOfStudy", "").split(",") if one}
        venues = {one.lower() for one in asked.get("venue", "").split(",") if one}
        first, last = _years(asked.get("year", ""))
        since, until = (asked.get("publicationDateOrYear", ":") + ":").split(":")[:2]
        kept = []
        for paper in self.papers.values():
            about = paper.about
            if not first <= (about["year"] or 0) <= last or about["citationCount"] < int(
                asked.get("minCitationCount", 0)
            ):
                continue
            if (studies and not studies & set(about["fieldsOfStudy"])) or (
                venues and about["venue"].lower() not in venues
            ):
                continue
            if ("openAccessPdf" in asked and not about["isOpenAccess"]) or (
                since and about["publicationDate"] < since
            ):
                continue
            if until and about["publicationDate"][: len(until)] > until:
                continue
            kept.append(paper)
        return kept

    async def _search(self, request: Request) -> Any:
        limit, offset = _number(request, "limit", 100, 100), _number(request, "offset", 0, 999)
        fields, words = _fields(request), request.query_params.get("query", "").lower().split()
        scored = [(_score(paper, words), paper) for paper in self._filtered(request)]
        found = [paper for score, paper in sorted(scored, key=lambda one: -one[0]) if score]
        answer: dict[str, Any] = {"total": len(found), "offset": offset}
        if not found:
            return answer  # without `data`, as the real one does
        if offset + limit < len(found):
            answer["next"] = offset + limit
        return answer | {"data": [_shown(paper, fields) for paper in found[offset : offset + limit]]}

    async def _bulk(self, request: Request) -> Any:
        fields = _fields(request)
        if bad := _NEVER_IN_BULK & set(fields):
            raise Bad(400, f"Unrecognized or unsupported fields: {sorted(bad)}")
        words = request.query_params.get("query", "").lower().split()
        found = [paper for paper in self._filtered(request) if _score(paper, words) == 2 * len(words)]
        by, _, order = request.query_params.get("sort", "paperId:asc").partition(":")
        if by not in ("paperId", "publicationDate", "citationCount"):
            raise Bad(400, f"Unsupported sort: {by}")
        found.sort(key=lambda paper: (paper.about[by], paper.id), reverse=order == "desc")
        start, size = int(request.query_params.get("token", "0").removeprefix("T")), self.bulk_page
        answer: dict[str, Any] = {"total": len(found), "token": None}
        if start + size < len(found):
            answer["token"] = f"T{start + size}"
        return answer | {"data": [_shown(paper, fields) for paper in found[start : start + size]]}

    bulk_page = 1000

    async def _match(self, request: Request) -> Any:
        wanted = re.sub(r"\W+", " ", request.query_params.get("query", "").lower()).strip()
        for paper in self._filtered(request):
            if wanted and wanted in re.sub(r"\W+", " ", paper.about["title"].lower()):
                return {"data": [{**_shown(paper, _fields(request)), "matchScore": 100.0}]}
        raise Bad(404, "Title match not found")

    async def _citations(self, request: Request) -> Any:
        paper = self._known(request.path_params["id"])
        return self._edges(request, [edge for edge in self.edges if edge.cited == paper.id], "citingPaper")

    async def _references(self, request: Request) -> Any:
        paper = self._known(request.path_params["id"])
        if paper.id in self.hidden:
            return {"offset": 0, "data": None, "citingPaperInfo": {"paperId": paper.id}}
        return self._edges(request, [edge for edge in self.edges if edge.citing == paper.id], "citedPaper")

    def _edges(self, request: Request, edges: list[Edge], key: str) -> Any:
        limit, offset = _number(request, "limit", 100, 1000), _number(request, "offset", 0, 9999)
        fields = _fields(request, _EDGE_FIELDS)
        rows = []
        for edge in edges[offset : offset + limit]:
            own = {"contexts": edge.contexts, "intents": edge.intents, "isInfluential": edge.influential}
            own["contextsWithIntent"] = [{"context": text, "intents": edge.intents} for text in edge.contexts]
            other = self.papers[edge.citing if key == "citingPaper" else edge.cited]
            shown = {name: value for name, value in own.items() if name in fields}
            rows.append({**shown, key: _shown(other, [name for name in fields if name not in _EDGE_FIELDS])})
        answer: dict[str, Any] = {"offset": offset, "data": rows}
        return answer | ({"next": offset + limit} if offset + limit < len(edges) else {})

    async def _recommend(self, request: Request) -> Any:
        if request.query_params.get("from", "recent") not in ("recent", "all-cs"):
            raise Bad(400, "`from` must be recent or all-cs")
        return self._near([self._known(request.path_params["id"])], [], request)

    async def _recommend_lists(self, request: Request) -> Any:
        asked = await request.json()
        liked = [self._known(id) for id in asked.get("positivePaperIds") or []]
        if not liked:
            raise Bad(400, "positivePaperIds must not be empty")
        return self._near(liked, [self._known(id) for id in asked.get("negativePaperIds") or []], request)

    def _near(self, liked: list[ScholarPaper], disliked: list[ScholarPaper], request: Request) -> Any:
        limit, fields = _number(request, "limit", 100, 500), _fields(request)
        good = {word for paper in liked for word in _words(paper.about["title"])}
        good -= {word for paper in disliked for word in _words(paper.about["title"])}
        given = {paper.id for paper in (*liked, *disliked)}
        others = [paper for paper in self.papers.values() if paper.id not in given]
        others.sort(key=lambda paper: -len(good & set(_words(paper.about["title"] + paper.about["abstract"]))))
        return {"recommendedPapers": [_shown(paper, fields) for paper in others[:limit]]}

    async def _snippets(self, request: Request) -> Any:
        words, limit = _words(request.query_params.get("query", "")), _number(request, "limit", 10, 1000)
        among = [one for one in request.query_params.get("paperIds", "").split(",") if one]
        known = [self._known(id).id for id in among]
        found: list[dict[str, Any]] = []
        for paper in self._filtered(request):
            for section, text in paper.body.items() if not among or paper.id in known else ():
                score = len(set(words) & set(_words(text)))
                if score:
                    snippet = {"text": text, "snippetKind": "body", "section": section}
                    info = {"corpusId": str(paper.about["corpusId"]), "title": paper.about["title"]}
                    info |= {"authors": [author["name"] for author in paper.about["authors"]]}
                    found.append({"snippet": snippet, "score": score / len(words), "paper": info})
        found.sort(key=lambda one: -one["score"])
        return {"data": found[:limit], "retrievalVersion": "local"}


def hash_of(name: str) -> int:
    """A number that stands for a name."""
    return int(hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:8], 16)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _score(paper: ScholarPaper, words: list[str]) -> int:
    """How well a paper fits: twice the words that are in it, and as many again as are in its title."""
    title, text = _words(paper.about["title"]), _words(paper.about["abstract"] or "")
    found = [word for word in words if set(_words(word)) and set(_words(word)) <= {*title, *text}]
    # The real one finds nothing by words with a hyphen in them.
    return 2 * len([word for word in found if "-" not in word])


def _years(text: str) -> tuple[int, int]:
    if not text:
        return 0, 9999
    found = re.fullmatch(r"(\d{4})?(-)?(\d{4})?", text)
    if not found:
        raise Bad(400, f"Invalid year: {text}")
    first = int(found[1] or 0)
    return first, int(found[3] or 9999) if found[2] else first


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdigit() or int(text) > most:
        raise Bad(400, f"{name} must be <= {most}")
    return int(text)


def _fields(request: Request, more: Set[str] = frozenset()) -> list[str]:
    asked = [name for name in request.query_params.get("fields", "paperId,title").split(",") if name]
    if bad := [name for name in asked if name.partition(".")[0] not in _FIELDS | more]:
        raise Bad(400, f"Unrecognized or unsupported fields: [{', '.join(bad)}]")
    return asked


def _shown(paper: ScholarPaper, fields: list[str]) -> dict[str, Any]:
    names = ["paperId", *(name.partition(".")[0] for name in fields)]
    return {name: paper.about.get(name) for name in dict.fromkeys(names)}
