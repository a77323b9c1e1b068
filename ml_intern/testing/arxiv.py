"""arXiv on this machine: the query API as Atom, abstract pages, HTML, ar5iv, PDFs, sources, for unmodified clients.

    with LocalArxiv() as arxiv:
        os.environ["ARXIV_API_URL"] = f"{arxiv.url}/api/query"

It knows a handful of real papers (their abstracts are paraphrased) and those you `add`. Of their text it has what you
[`~LocalArxiv.publish`]; their PDFs hold the abstract.
"""

from __future__ import annotations

import html
import io
import json
import re
import tarfile
import textwrap
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from ml_intern.testing.arxiv_query import Paper, QueryError, search
from ml_intern.testing.papers import pdf
from ml_intern.testing.serve import Service

__all__ = ["LocalArxiv", "Paper"]

ATOM = "http://www.w3.org/2005/Atom"
OPENSEARCH = "http://a9.com/-/spec/opensearch/1.1/"
ARXIV = "http://arxiv.org/schemas/atom"
ID = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v(\d+))?")
PART = re.compile(r"\.[A-Z]{2}(?=/)")
"""Of an archive, which old ids may name: it is no part of the number."""
MOST_RESULTS = 30_000


class LocalArxiv(Service):
    """A local arXiv. Use [`~ml_intern.testing.serve.Service.fail`] to make it fail: `arxiv.fail("/api", status=429)`.

    Args:
        data (`Path`, *optional*):
            Folder that keeps the papers (`papers.json`) over restarts; filled with the recorded ones when it is new.
            Without it, the recorded papers are kept in memory.
        port (`int`, defaults to 0): 0 takes a free one.

    Attributes:
        papers (`list[Paper]`): What it knows.
    """

    def __init__(self, data: Path | None = None, *, port: int = 0) -> None:
        self._file = data / "papers.json" if data else None
        recordings = resources.files("ml_intern.testing") / "recordings" / "arxiv_papers.json"
        source = self._file if self._file and self._file.exists() else recordings
        self.papers = [Paper(**record) for record in json.loads(source.read_text(encoding="utf-8"))["papers"]]
        self._texts: dict[tuple[str, str], bytes] = {}
        self._save()
        routes = [
            Route("/api/query", self._query),
            Route("/abs/{id:path}", self._abstract),
            Route("/html/{id:path}", self._html),
            Route("/pdf/{id:path}", self._pdf),
            Route("/src/{id:path}", self._source),
            Route("/ar5iv/html/{id:path}", self._ar5iv),
        ]
        super().__init__(Starlette(routes=routes), port=port)

    def add(self, paper: Paper) -> None:
        """Publish a paper, or replace the one with its id."""
        self.papers = [known for known in self.papers if known.id != paper.id] + [paper]
        self._save()

    def publish(self, id: str, **texts: str | bytes) -> None:
        """
        Give a paper its full text, until the service ends.

        Args:
            id (`str`): Of a paper that is there, without version.
            **texts (`str` or `bytes`): By where it is: `html`, `ar5iv`, `pdf` and `source` (LaTeX). A paper whose
                comment says that it was withdrawn has no PDF.
        """
        for kind, text in texts.items():
            if kind not in ("html", "ar5iv", "pdf", "source"):
                raise ValueError(f"{kind!r} is none of html, ar5iv, pdf, source")
            self._texts[kind, id] = text.encode() if isinstance(text, str) else text

    def environment(self) -> dict[str, str]:
        """The variables that lead this project's tools here."""
        base = {"ARXIV_BASE_URL": self.url, "AR5IV_BASE_URL": f"{self.url}/ar5iv"}
        return {"ARXIV_API_URL": f"{self.url}/api/query", **base}

    def _save(self) -> None:
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._file.with_suffix(".tmp")
            text = json.dumps({"papers": [asdict(paper) for paper in self.papers]}, indent=1, ensure_ascii=False)
            temporary.write_text(text, encoding="utf-8")
            temporary.rename(self._file)

    async def _query(self, request: Request) -> Response:
        asked = {"search_query": "", "id_list": "", "start": "0", "max_results": "10"} | dict(request.query_params)
        try:
            start = _integer(asked, "start")
            most = _integer(asked, "max_results")
            found = self._found(asked)
        except QueryError as error:
            return _atom(_feed(asked, 1, 0, 1, [_error(str(error))]), status=400)
        page = found[start : start + most]
        return _atom(_feed(asked, len(found), start, most, [_entry(paper) for paper in page]))

    def _found(self, asked: dict[str, str]) -> list[Paper]:
        ids = [id.strip() for id in asked["id_list"].split(",") if id.strip()]
        query = asked["search_query"].strip()
        papers = self.papers
        if ids:
            papers = [paper for id in ids if (paper := self._paper(id))]
        elif not query:
            return []
        if query:
            papers = search(papers, query)
        orders = {"relevance": None, "lastUpdatedDate": "updated", "submittedDate": "published"}
        by, order = asked.get("sortBy", "relevance"), asked.get("sortOrder", "descending")
        if by not in orders:
            raise QueryError(f"sortBy must be in: {', '.join(orders)}")
        if order not in ("ascending", "descending"):
            raise QueryError("sortOrder must be in: ascending, descending")
        if orders[by] == "updated":
            return sorted(papers, key=lambda paper: paper.updated, reverse=order == "descending")
        if orders[by] == "published":
            return sorted(papers, key=lambda paper: paper.published, reverse=order == "descending")
        return papers[::-1] if order == "ascending" and query else papers

    def _paper(self, id: str) -> Paper | None:
        """The paper of an id, as of the version asked for; `None` when there is none."""
        match = ID.fullmatch(id)
        if not match:
            raise QueryError(f"incorrect id format for {id}")
        number = PART.sub("", match[1])
        paper = next((paper for paper in self.papers if PART.sub("", paper.id) == number), None)
        if paper is None or match[2] is None:
            return paper
        version = int(match[2])
        if not 1 <= version <= paper.version:
            return None
        return replace(paper, version=version, updated=paper.published if version == 1 else paper.updated)

    def _asked_for(self, request: Request) -> Paper | None:
        try:
            return self._paper(request.path_params["id"].removesuffix(".pdf"))
        except QueryError:
            return None

    async def _abstract(self, request: Request) -> Response:
        paper = self._asked_for(request)
        if paper is None:
            return HTMLResponse("<h1>Article not found</h1>", status_code=404)
        title, authors, abstract = (html.escape(t) for t in (paper.title, ", ".join(paper.authors), paper.abstract))
        return HTMLResponse(
            f"<!DOCTYPE html><html><head><title>[{paper.id}] {title}</title>"
            f'<meta name="citation_title" content="{title}"/>'
            f'<meta name="citation_arxiv_id" content="{paper.id}"/></head>'
            f'<body><h1 class="title">{title}</h1><div class="authors">{authors}</div>'
            f'<blockquote class="abstract"><span class="descriptor">Abstract:</span>{abstract}</blockquote>'
            f'<table><tr><td class="tablecell comments">{html.escape(paper.comment or "")}</td></tr></table></body></html>'
        )

    async def _html(self, request: Request) -> Response:
        paper = self._asked_for(request)
        text = self._texts.get(("html", paper.id)) if paper else None
        if text is None:
            return HTMLResponse("<h1>No HTML for this paper</h1>", status_code=404)
        return HTMLResponse(text)

    async def _ar5iv(self, request: Request) -> Response:
        paper = self._asked_for(request)
        text = self._texts.get(("ar5iv", paper.id)) if paper else None
        if text is None:
            return RedirectResponse(f"{self.url}/abs/{request.path_params['id']}", status_code=307)
        return HTMLResponse(text)

    async def _source(self, request: Request) -> Response:
        paper = self._asked_for(request)
        text = self._texts.get(("source", paper.id)) if paper else None
        if text is None:
            return HTMLResponse("<h1>No source</h1>", status_code=404)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            entry = tarfile.TarInfo("main.tex")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
        return Response(packed.getvalue(), media_type="application/gzip")

    async def _pdf(self, request: Request) -> Response:
        paper = self._asked_for(request)
        if paper is None:
            return HTMLResponse("<h1>Article not found</h1>", status_code=404)
        if "withdrawn" in (paper.comment or ""):
            return HTMLResponse("<h1>No PDF: the paper was withdrawn</h1>", status_code=404)
        return Response(self._texts.get(("pdf", paper.id)) or _pdf(paper), media_type="application/pdf")


def _integer(asked: dict[str, str], name: str) -> int:
    try:
        value = int(asked[name])
    except ValueError:
        raise QueryError(f"{name} must be an integer") from None
    if value < 0:
        raise QueryError(f"{name} must be non-negative")
    if name == "max_results" and value > MOST_RESULTS:
        raise QueryError(f"max_results must not be greater than {MOST_RESULTS}")
    return value


def _atom(feed: ElementTree.Element, status: int = 200) -> Response:
    ElementTree.register_namespace("", ATOM)
    ElementTree.register_namespace("opensearch", OPENSEARCH)
    ElementTree.register_namespace("arxiv", ARXIV)
    body = ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True)
    return Response(body, status_code=status, media_type="application/atom+xml")


def _feed(
    asked: dict[str, str], total: int, start: int, size: int, entries: list[ElementTree.Element]
) -> ElementTree.Element:
    feed = ElementTree.Element(f"{{{ATOM}}}feed")
    words = "&".join(f"{name}={asked[name]}" for name in ("search_query", "id_list", "start", "max_results"))
    _add(feed, "id", "http://arxiv.org/api/" + quote(words, safe="")[:60])
    _add(feed, "title", f"arXiv Query: {words}")
    _add(
        feed,
        "updated",
        max((entry.findtext(f"{{{ATOM}}}updated") or "" for entry in entries), default="1991-08-14T00:00:00Z"),
    )
    _add(feed, "itemsPerPage", str(size), OPENSEARCH)
    _add(feed, "totalResults", str(total), OPENSEARCH)
    _add(feed, "startIndex", str(start), OPENSEARCH)
    feed.extend(entries)
    return feed


def _entry(paper: Paper) -> ElementTree.Element:
    entry, name = ElementTree.Element(f"{{{ATOM}}}entry"), f"{paper.id}v{paper.version}"
    _add(entry, "id", f"http://arxiv.org/abs/{name}")
    _add(entry, "title", paper.title)
    _add(entry, "updated", paper.updated)
    _add(entry, "published", paper.published)
    _add(entry, "summary", paper.abstract + "\n")
    for author in paper.authors:
        _add(_add(entry, "author"), "name", author)
    for tag, text in (("comment", paper.comment), ("journal_ref", paper.journal_ref), ("doi", paper.doi)):
        if text:
            _add(entry, tag, text, ARXIV)
    _add(entry, "link", rel="alternate", type="text/html", href=f"https://arxiv.org/abs/{name}")
    _add(entry, "link", rel="related", type="application/pdf", title="pdf", href=f"https://arxiv.org/pdf/{name}")
    _add(entry, "primary_category", namespace=ARXIV, term=paper.categories[0])
    for category in paper.categories:
        _add(entry, "category", term=category, scheme=ARXIV)
    return entry


def _error(message: str) -> ElementTree.Element:
    entry, url = (
        ElementTree.Element(f"{{{ATOM}}}entry"),
        "http://arxiv.org/api/errors#" + quote(message.replace(" ", "_")),
    )
    _add(entry, "id", url)
    _add(entry, "title", "Error")
    _add(entry, "summary", message)
    _add(entry, "updated", "1991-08-14T00:00:00Z")
    _add(entry, "published", "1991-08-14T00:00:00Z")
    _add(entry, "link", rel="alternate", type="text/html", href=url)
    _add(_add(entry, "author"), "name", "arXiv api core")
    return entry


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, namespace: str = ATOM, **attributes: str
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, f"{{{namespace}}}{tag}", attributes)
    child.text = text
    return child


def _pdf(paper: Paper) -> bytes:
    """One page with the title, the authors and the abstract."""
    lines = [*textwrap.wrap(paper.title, 70), *textwrap.wrap(", ".join(paper.authors), 90), "", "Abstract", ""]
    lines += [*textwrap.wrap(paper.abstract, 90), "", f"arXiv:{paper.id}v{paper.version}"]
    return pdf([lines])
