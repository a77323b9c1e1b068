"""The local Hub's documentation: pages as Markdown and HTML, `llms.txt`, the list of libraries and the search over them.

As doc-builder lays it out: `/docs/LIBRARY/[VERSION/][LANGUAGE/]PAGE`, the Markdown of a page at its address and `.md`, and
courses below `/learn`. Addresses in `llms.txt` are those of the real site, whatever the address of this Hub is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from ml_intern.testing.hub_http import Call, Routes
from ml_intern.testing.hub_store import Refused

routes = Routes()
SITE = "https://huggingface.co"
_LANGUAGE = re.compile(r"[a-z]{2}")
_HEADING = re.compile(r"^(#{1,6}) (.*?)(?:\[\[(.*?)\]\])?$", re.MULTILINE)


@dataclass
class Library:
    """Documentation of one library.

    Args:
        name (`str`): Such as `"trl"`.
        pages (`dict[str, str]`): Path to Markdown, as `"sft_trainer"`; headings may end in `[[anchor]]`.
        version (`str`): The latest, which is what an address without a version shows.
        category (`str`): In the list of libraries.
        older (`dict[str, dict[str, str]]`): Further versions and their pages.
        lists (`bool`): Whether it has `llms.txt` and `llms-full.txt`; older documentation has none.
        markdown (`bool`): Whether its pages are there as Markdown; older ones are HTML only.
    """

    name: str
    pages: dict[str, str]
    version: str = "v1.0.0"
    category: str = "Libraries"
    older: dict[str, dict[str, str]] = field(default_factory=dict)
    lists: bool = True
    markdown: bool = True

    @property
    def root(self) -> str:
        return "learn" if self.name.endswith("course") or self.name == "cookbook" else "docs"

    def address(self, page: str) -> str:
        """Where the real site has a page."""
        within = f"{self.version}/" if self.root == "docs" else ""
        return f"{SITE}/{self.root}/{self.name}/{within}{page}"


def _headings(text: str) -> list[re.Match[str]]:
    """Those outside of code, where a `#` begins a comment."""
    bare = re.sub(r"^```.*?^```", lambda code: re.sub(r"\S", ".", code[0]), text, flags=re.MULTILINE | re.DOTALL)
    return list(_HEADING.finditer(bare))


def _title(text: str, page: str) -> str:
    found = _headings(text)
    return found[0][2].strip() if found else page


def _index(library: Library) -> str:
    bullets = [f"- [{_title(text, page)}]({library.address(page)}.md)" for page, text in library.pages.items()]
    return "\n".join([f"# {library.name.title()}", "", "## Docs", "", *bullets, ""])


def _full(library: Library) -> str:
    parts = [_index(library)]
    for page, text in library.pages.items():
        parts += [f"### {_title(text, page)}", f"{library.address(page)}.md", "", text.strip(), ""]
    return "\n".join(parts)


def _html(library: Library, page: str, text: str) -> str:
    """A page as the site renders it: headings with their links, code with a button to copy it, other things around it."""
    anchors = {plain.strip(): anchor for _, plain, anchor in (one.groups() for one in _headings(text))}
    body = MarkdownIt("commonmark").enable("table").render(re.sub(r"\[\[.*?\]\]$", "", text, flags=re.MULTILINE))

    def heading(found: re.Match[str]) -> str:
        level, title = found[1], found[2]
        anchor = anchors.get(re.sub(r"<.*?>", "", title)) or re.sub(r"\W+", "-", title.lower()).strip("-")
        link = f'<a id="{anchor}" class="header-link" href="#{anchor}"><span><svg><path d="M1"/></svg></span></a>'
        return f'<h{level} class="relative group">{link} <span>{title}</span></h{level}>'

    body = re.sub(r"<h(\d)>(.*?)</h\d>", heading, body)
    body = re.sub(
        r"<pre>(.*?)</pre>",
        r'<div class="code-block relative"><div class="absolute"><button title="Copy">Copied</button></div>'
        r"<pre><!-- HTML_TAG_START -->\1<!-- HTML_TAG_END --></pre></div>",
        body,
        flags=re.DOTALL,
    )
    links = "".join(f'<a href="/{library.root}/{library.name}/{one}">{one}</a>' for one in list(library.pages)[:20])
    return (
        f"<!doctype html><html><head><title>{_title(text, page)}</title><script>var a = 1;</script></head><body>"
        f"<header><a href='/'>Hugging Face</a></header><main><nav class='flex-auto'>{links}</nav>"
        f'<div class="prose-doc prose relative">{body}</div><footer>Update on GitHub</footer></main></body></html>'
    )


def _known(call: Call, root: str) -> Library:
    library = call.hub.docs.get(unquote(call.params["library"]))
    if library is None or library.root != root:
        raise Refused(404, "No such documentation")
    return library


def _serve(call: Call, root: str) -> Response:
    library, parts = _known(call, root), unquote(call.params.get("path", "")).split("/")
    pages = library.pages
    if parts[0] == library.version or (parts[0] == "main" and "main" not in library.older):
        parts = parts[1:]
    elif parts[0] in library.older:
        pages, parts = library.older[parts[0]], parts[1:]
    if parts and _LANGUAGE.fullmatch(parts[0]):
        if parts[0] != "en":
            raise Refused(404, "Not translated")
        parts = parts[1:]
    name = "/".join(parts)
    if name in ("llms.txt", "llms-full.txt"):
        if not library.lists:
            raise Refused(404, "Not found")
        return PlainTextResponse(_index(library) if name == "llms.txt" else _full(library))
    if name.endswith(".md") and library.markdown and name[:-3] in pages:
        return PlainTextResponse(pages[name[:-3]], media_type="text/markdown")
    if name in pages:
        return HTMLResponse(_html(library, name, pages[name]))
    return HTMLResponse("<!doctype html><html><body><h1>404</h1></body></html>", 404)


@routes.add("GET", "/docs/{library}/{path}")
def docs(call: Call) -> Response:
    """A page of a library, or one of its lists."""
    return _serve(call, "docs")


@routes.add("GET", "/learn/{library}/{path}")
def learn(call: Call) -> Response:
    """A page of a course."""
    return _serve(call, "learn")


@routes.add("GET", "/docs/{library}")
def first_page(call: Call) -> Response:
    """A library's own address leads to its first page."""
    library = _known(call, "docs")
    return RedirectResponse(f"{call.hub.url}/docs/{library.name}/index", 307)


@routes.add("GET", "/api/docs")
def libraries(call: Call) -> Response:
    """All documentation there is."""
    rows = [
        {"id": one.name, "url": f"/{one.root}/{one.name}", "category": one.category} for one in call.hub.docs.values()
    ]
    return JSONResponse(rows)


@routes.add("GET", "/api/docs/search")
def search(call: Call) -> Response:
    """Sections that have words of the query, those with the most first."""
    words, product = call.one("q").lower().split(), call.one("product")
    if not words:
        raise Refused(400, '"q" is required')
    rows: list[tuple[int, dict[str, Any]]] = []
    for library in call.hub.docs.values():
        for page, text in library.pages.items() if product in ("", library.name) else ():
            marks = _headings(text)
            for number, mark in enumerate(marks):
                body = text[mark.end() : marks[number + 1].start() if number + 1 < len(marks) else None]
                count = sum(word in f"{mark[2]} {body}".lower() for word in words)
                about = {"text": body.strip(), "product": library.name, "heading1": _title(text, page)}
                about |= {"heading2": mark[2].strip()} if number else {}
                place = f"{SITE}/{library.root}/{library.name}/{page}" + (f"#{mark[3]}" if mark[3] else "")
                if count:
                    rows.append((count, about | {"source_page_url": place, "source_page_title": _title(text, page)}))
    rows.sort(key=lambda row: -row[0])
    return JSONResponse([row for _, row in rows[:50]])
