"""Read a paper in parts: its contents first, then the sections, tables or lines that matter."""

from __future__ import annotations

from typing import Any

from smolagents import Tool


class PaperReadTool(Tool):
    r"""
    Full text of a paper as lines: of arXiv's HTML, else ar5iv, the Hugging Face Hub's Markdown, or the PDF.

    No token is ever sent. Addresses: `ARXIV_BASE_URL`, `AR5IV_BASE_URL`, `HF_ENDPOINT`. Documents are kept in
    `$XDG_CACHE_HOME/paper_read` (or below `~/.cache`): a day, or thirty where the version was named.
    The model chooses addresses, so those of this machine and its private network are refused, also after redirects,
    unless one of the variables above names them.

    Args:
        workspace (*optional*): Where files are read from, with `exists(path)` and `open_read(path)`.
    """

    name = "paper_read"
    description = (
        "Read the full text of a paper, part by part. Without `part`: its table of contents, with the tokens of each "
        "section. Then name a section, 'abstract', 'table 2', 'figure 3' (its caption), 'algorithm 1', 'tables', "
        "'figures', 'bibliography', 'page 7' (of a PDF) or 'all'. Formulas are TeX. Long parts come in ranges of "
        "lines: go on at `next_line`."
    )
    inputs = {
        "paper": {
            "type": "string",
            "description": "An arXiv id or address ('1706.03762v5', 'hep-th/9901001'), the address of a PDF, or a file "
            "in the workspace.",
        },
        "part": {
            "type": "string",
            "description": "What to read, such as '3.2' or 'Experiments' (default the table of contents).",
            "nullable": True,
        },
        "from_line": {"type": "integer", "description": "First line (default the part's first).", "nullable": True},
        "to_line": {"type": "integer", "description": "Last line (default the part's last).", "nullable": True},
        "source": {"type": "string", "description": "html, ar5iv, hub or pdf (default the best).", "nullable": True},
    }
    output_type = "object"
    # Annotated, because smolagents takes an attribute with lists in it for "complex" otherwise, and does not save it.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "paper": {"type": "string"},
            "title": {"type": ["string", "null"]},
            "authors": {"type": "array", "items": {"type": "string"}},
            "source": {"type": "object", "description": "{kind, url, fetched}: kind is html, ar5iv, hub, pdf, ..."},
            "warnings": {"type": "array", "items": {"type": "string"}, "description": "Withdrawn, other version, ..."},
            "lines": {"type": "integer", "description": "Of the whole text."},
            "tokens": {"type": "integer", "description": "Of the whole text, about."},
            "contents": {"type": "object", "description": "{heading: tokens, subsections included}."},
            "counts": {"type": "object", "description": "{tables, figures, algorithms, references, pages}."},
            "part": {"type": "string"},
            "text": {"type": "string"},
            "items": {
                "type": "array",
                "description": "For 'tables' and the like: {name, caption, from_line, to_line}.",
            },
            "from_line": {"type": "integer"},
            "to_line": {"type": "integer"},
            "next_line": {"type": ["integer", "null"], "description": "Where the part goes on; null at its end."},
            "hint": {"type": "string"},
        },
        "required": ["paper", "title", "source"],
    }
    effects = "read"
    max_seconds = 90
    max_bytes = 60_000_000
    most_tokens = 6000
    contents_tokens = 1000
    arxiv_id = r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(v\d+)?"
    float_names = r"(table|tab\.|figure|fig\.|algorithm|listing)\s*([A-Z]?[\d.]*\d|[IVXL]+)\b"

    def __init__(self, workspace=None, found=None, model_repo_id=None):
        super().__init__()
        self.workspace = workspace
        self.found = found  # says whether an address was found; without it, any public one is read
        self._papers: dict = {}  # those that were read, also for copies of the tool

    def forward(
        self,
        paper: str,
        part: str | None = None,
        from_line: int | None = None,
        to_line: int | None = None,
        source: str | None = None,
    ) -> dict:
        for name, value in (("from_line", from_line), ("to_line", to_line)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"paper_read: {name} is a line number from 1 on, not {value!r}.")
        if source not in (None, "", "html", "ar5iv", "hub", "pdf"):
            raise ValueError(f"paper_read: source is html, ar5iv, hub or pdf, not {source!r}.")
        document = self._document(str(paper).strip(), source or "")
        title = document["title"] and document["title"][:300]
        about: dict = {"paper": document["paper"], "title": title, "source": dict(document["source"])}
        if document["warnings"]:
            about["warnings"] = list(document["warnings"])
        wanted = " ".join((part or "").split())
        if wanted.lower().startswith("contents") or (not wanted and not from_line and not to_line):
            return {**about, **self._contents(document, wanted, from_line or 1)}
        kind = {"table": "table", "figure": "figure", "algorithm": "algorithm", "listing": "listing"}.get(
            wanted.lower().removesuffix("s")
        )
        if kind:
            return {**about, "part": wanted, **self._items(document, kind, from_line or 1)}
        label, start, end = self._find(document, wanted or "all")
        first, last = from_line or start + 1, min(to_line or end, end)
        if not start < first <= end:
            raise ValueError(f"paper_read: {label!r} is lines {start + 1} to {end}: from_line={first} is not in it.")
        if last < first:
            raise ValueError(f"paper_read: to_line={last} comes before from_line={first}.")
        text, number = [], first - 1
        while number < last and (
            not text or self._tokens(text) + self._tokens([document["lines"][number]]) <= self.most_tokens
        ):
            text.append(document["lines"][number])
            number += 1
        return {
            **about,
            "part": label,
            "text": "\n".join(text),
            "from_line": first,
            "to_line": number,
            "next_line": number + 1 if number < end else None,
        }

    # What to show of a document

    def _contents(self, document: dict, wanted: str, first: int) -> dict:
        """The headings, no deeper than fit; those of one section where `contents of SECTION` asks for them."""
        sections, answer = document["sections"], {}
        inside = wanted[8:].strip().removeprefix("of ").strip()
        if inside:
            label, start, end = self._find(document, inside)
            sections = [one for one in sections if start <= one["start"] < end and one["label"] != label]
            answer["part"] = label
        else:
            answer["authors"] = [*document["authors"][:8], *(["and others"] if len(document["authors"]) > 8 else [])]
        depths = sorted({one["level"] for one in sections}) or [1]
        shown = sections
        for depth in reversed(depths):
            shown = [one for one in sections if one["level"] <= depth]
            if sum([self._room(one["label"]) for one in shown]) <= self.contents_tokens:
                break
        rows, room = {}, self.contents_tokens
        for one in shown[first - 1 :]:
            room -= self._room(one["label"])
            if room < 0 and rows:
                break
            rows[one["label"]] = self._tokens(document["lines"][one["start"] : one["end"]])
        answer |= {"contents": rows, "lines": len(document["lines"]), "tokens": self._tokens(document["lines"])}
        kinds = [one["kind"] for one in document["floats"]]
        counts = {f"{kind}s": kinds.count(kind) for kind in ("table", "figure", "algorithm", "listing")}
        counts |= {"references": document["references"], "pages": len(document["pages"])}
        answer["counts"] = {kind: number for kind, number in counts.items() if number}
        seen = first - 1 + len(rows)
        if seen < len(shown):
            answer["next_line"] = seen + 1
            answer["hint"] = (
                f"{len(shown) - seen} more headings: ask for part={wanted or 'contents'!r} with from_line={seen + 1}."
            )
        elif len(shown) < len(sections):
            answer["hint"] = (
                f"{len(sections) - len(shown)} deeper headings are left out: part='contents of HEADING' lists them."
            )
        elif not rows:
            answer["hint"] = "No headings were found: read it by lines or, a PDF, by 'page 1'."
        return answer

    def _items(self, document: dict, kind: str, first: int) -> dict:
        found = [one for one in document["floats"] if one["kind"] == kind]
        items, room = [], self.most_tokens
        for one in found[first - 1 :]:
            item = {"name": one["name"], "caption": one["caption"][:300]}
            item |= {"from_line": one["start"] + 1, "to_line": one["end"]}
            room -= len(str(item)) // 3
            if room < 0 and items:
                break
            items.append(item)
        seen = first - 1 + len(items)
        answer = {"items": items, "next_line": seen + 1 if seen < len(found) else None}
        if not found:
            answer["hint"] = f"No {kind}s were found in the text of this source ({document['source']['kind']})."
        return answer

    def _find(self, document: dict, wanted: str) -> tuple:
        """The lines of a part: its name, where it starts and where it ends."""
        import difflib
        import re

        lines, low = document["lines"], wanted.lower().strip(" .:")
        if low == "all":
            return "all", 0, len(lines)
        page = re.fullmatch(r"pages? (\d+)", low)
        if page:
            number, pages = int(page[1]), document["pages"]
            if not 1 <= number <= len(pages):
                have = f"has {len(pages)} pages" if pages else "was read from a source without pages"
                raise ValueError(f"paper_read: there is no page {number}: {document['paper']} {have}.")
            return f"page {number}", pages[number - 1], [*pages, len(lines)][number]
        found = re.fullmatch(self.float_names, wanted.strip(" .:"), flags=re.IGNORECASE)
        if found:
            kind = self._kind(found[1])
            for one in document["floats"]:
                if one["kind"] == kind and one["name"].lower() == f"{kind} {found[2]}".lower():
                    return one["name"], one["start"], one["end"]
            have = [one["name"] for one in document["floats"] if one["kind"] == kind]
            raise ValueError(
                f"paper_read: {document['paper']} has no {wanted!r}. It has {', '.join(have[:30]) or f'no {kind}s'}."
            )
        sections = document["sections"]
        plain = re.sub(r"^(section|sec\.|appendix|chapter|§)\s*", "", low)
        ways = [
            [one for one in sections if one["label"].lower().strip(" .:") == low],
            [one for one in sections if low in (one["number"].lower(), one["id"].lower())],
            [one for one in sections if plain and plain == re.sub(r"^appendix\s*", "", one["number"].lower())],
            [one for one in sections if one["title"].lower().strip(" .:") == low],
        ]
        if low in ("bibliography", "references"):
            ways.append(
                [one for one in sections if re.match(r"(references|bibliography|literature)", one["title"].lower())]
            )
        ways.append([one for one in sections if low and low in one["label"].lower()])
        for matches in ways:
            if len(matches) == 1 or (matches and matches is not ways[-1]):
                return matches[0]["label"], matches[0]["start"], matches[0]["end"]
        if ways[-1]:
            names = ", ".join([repr(one["label"]) for one in ways[-1][:8]])
            raise ValueError(f"paper_read: {wanted!r} fits several sections: {names}. Give one of them in full.")
        if low == "abstract" and document["sections"] and document["sections"][0]["start"]:
            return "before the first heading", 0, document["sections"][0]["start"]
        near = difflib.get_close_matches(wanted, [one["label"] for one in sections], 4, 0.3)
        near = near or [one["label"] for one in sections[:8]]
        raise ValueError(
            f"paper_read: {document['paper']} has no part {wanted!r}. It has: {', '.join(near) or 'no headings'}. "
            "Call it without `part` for the table of contents."
        )

    def _room(self, label: str) -> int:
        """Tokens of a row of the contents, at most: letters beyond ASCII may take one for each byte and a half."""
        plain = len(label.encode("ascii", "ignore"))
        return plain // 3 + (len(label.encode()) - plain) * 2 // 3 + 7

    def _tokens(self, lines: list) -> int:
        return (sum([len(line) + 1 for line in lines]) + 3) // 4

    def _kind(self, word: str) -> str:
        return {"tab.": "table", "fig.": "figure"}.get(word.lower(), word.lower())

    # Where a document comes from

    def _document(self, paper: str, source: str) -> dict:
        """The document, read once an hour, in a thread: nothing else bounds the time of look-ups and parsers."""
        import json
        import re
        from queue import Empty, SimpleQueue
        from threading import Thread
        from time import monotonic

        short = re.sub(
            r"^(arxiv:|https?://(?:www\.|export\.)?arxiv\.org/(?:abs|pdf|html|src)/|https?://[^/]*ar5iv[^/]*/(?:html|abs)/"
            r"|https?://(?:huggingface\.co|hf\.co)/papers/|(?:https?://doi\.org/|doi:)?10\.48550/arxiv\.)",
            "",
            paper.split("#")[0],
            flags=re.IGNORECASE,
        )
        short = re.sub(r"(\.pdf|\.md|/)$", "", short)
        found = re.fullmatch(self.arxiv_id, short)
        web = re.match(r"https?://", paper, flags=re.IGNORECASE)
        named = found and short != paper and not web and not paper.lower().startswith("arxiv:")
        if (not found and not web) or (named and self.workspace is not None and self.workspace.exists(paper)):
            return self._of_file(paper)  # also one that is called after the paper in it: 1706.03762.pdf
        if not found and self.found is not None and not self.found(paper):
            raise ValueError(
                f"paper_read: {paper} is no address that a tool returned. Search for it first, or give an arXiv id."
            )
        key = json.dumps([short if found else paper, source, self._bases()])
        kept = self._papers.get(key)
        if kept and monotonic() - kept[0] < 3600:
            return kept[1]
        outcome = SimpleQueue()
        call = (self._of_arxiv, (found[1], found[2] or "", source)) if found else (self._of_address, (paper,))
        Thread(target=self._carry_out, args=(*call, outcome), name="paper_read", daemon=True).start()
        try:
            answer = outcome.get(timeout=self.max_seconds)
        except Empty:
            raise TimeoutError(
                f"paper_read: {paper} was not there and read within {self.max_seconds} s. Try again later, or another "
                "source (html, ar5iv, hub, pdf)."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        while len(self._papers) > 7:
            self._papers.pop(next(iter(self._papers)), None)
        # What stands in for a source that failed is not read for long.
        failed = [one for one in answer["warnings"] if one.startswith("Other sources failed")]
        self._papers[key] = (monotonic() - (3300 if failed else 0), answer)
        return answer

    def _carry_out(self, call, arguments, outcome) -> None:
        try:
            outcome.put(call(*arguments))
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread, which raises it
            outcome.put(error)

    def _bases(self) -> dict:
        import os

        return {
            "arxiv": (os.environ.get("ARXIV_BASE_URL") or "https://arxiv.org").rstrip("/"),
            "ar5iv": (os.environ.get("AR5IV_BASE_URL") or "https://ar5iv.labs.arxiv.org").rstrip("/"),
            "hub": (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"),
        }

    def _of_arxiv(self, name: str, version: str, source: str) -> dict:
        bases, failed, missing, warnings, page = self._bases(), [], [], [], None
        places = {
            "html": f"{bases['arxiv']}/html/{name}{version}",
            "ar5iv": f"{bases['ar5iv']}/html/{name}",
            "hub": f"{bases['hub']}/papers/{name}.md",
            "pdf": f"{bases['arxiv']}/pdf/{name}{version}",
        }
        # Only arXiv itself has a certain version.
        order = ["html", "pdf", "ar5iv", "hub"] if version else list(places)
        for kind in [source] if source else order:
            if kind != "html" and page is None:
                page = self._abstract_page(f"{bases['arxiv']}/abs/{name}{version}", name + version)
                warnings += page.get("warnings", [])
            try:
                body, about = self._get(places[kind], 30 if version and kind in ("html", "pdf") else 1)
                document = self._parse(body, about, f"{places[kind]}")
            except FileNotFoundError as error:
                missing.append(f"{kind}: {error}")
                continue
            except (ConnectionError, ValueError) as error:
                failed.append(f"{kind}: {error}")
                continue
            forms = {"hub": "text", "pdf": "pdf"}
            if document["form"] != forms.get(kind, "html") or (kind not in forms and not document["latexml"]):
                missing.append(f"{kind}: the page holds no full text")
                continue
            self._settle(places[kind], body, about)
            if version and kind in ("ar5iv", "hub"):
                warnings.append(f"{kind} has one version only, which may not be {version}.")
            if failed:
                warnings.append("Other sources failed: " + "; ".join(failed))
            title = document["title"] or (page or {}).get("title")
            source_of = {"kind": kind, "url": about["url"], "fetched": about["fetched"]}
            return {**document, "paper": name + version, "title": title, "source": source_of, "warnings": warnings}
        if failed:
            raise ConnectionError(
                f"The full text of {name}{version} could not be read: {'; '.join(failed)}. Try again later, or check "
                "the network and ARXIV_BASE_URL, AR5IV_BASE_URL and HF_ENDPOINT."
            )
        if page and page.get("text"):
            document = self._blank()
            self._open(document, 1, "", "Abstract", "")
            self._say(document, page["text"])
            warnings = [*warnings, f"There is no full text ({'; '.join(missing)}): this is the abstract."]
            source_of = {"kind": "abstract", "url": page["url"], "fetched": page["fetched"]}
            document |= {"title": page["title"], "source": source_of, "warnings": warnings, "paper": name + version}
            return self._finished(document)
        raise FileNotFoundError(
            f"arXiv ({bases['arxiv']}) has no full text of {name}{version} ({'; '.join(missing)}). Leave `source` out, or "
            "give the address of a PDF."
        )

    def _abstract_page(self, url: str, name: str) -> dict:
        """What arXiv's own page says of a paper that it has no HTML of: whether it exists, and was withdrawn."""
        import re

        from lxml import html

        try:
            body, about = self._get(url, 1)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"arXiv ({self._bases()['arxiv']}) has no paper {name}. Check the id and its version."
            ) from None
        except ConnectionError:
            return {}
        tree = html.document_fromstring(body or b"<p/>")
        text = " ".join(tree.xpath("string(//blockquote[contains(@class,'abstract')])").split())
        title = " ".join(tree.xpath("string(//meta[@name='citation_title']/@content)").split())
        comments = " ".join(tree.xpath("string(//td[contains(@class,'comments')])").split())
        warnings = []
        if re.search(
            r"\b(been|was|is) withdrawn\b|^withdrawn\b|\(withdrawn\)", f"{text} {comments}", flags=re.IGNORECASE
        ):
            said = comments or text
            warnings.append(f"This paper was withdrawn: {said[:300]}")
        text = re.sub(r"^Abstract:?\s*", "", text)
        if title:
            self._settle(url, body, about)
        return {"title": title or None, "text": text, "warnings": warnings, **about}

    def _of_address(self, url: str) -> dict:
        body, about = self._get(url, 1)
        document = self._parse(body, about, url)
        self._settle(url, body, about)
        kind = {"pdf": "pdf", "html": "page", "text": "text"}[document["form"]]
        source = {"kind": kind, "url": about["url"], "fetched": about["fetched"]}
        return {**document, "paper": url, "source": source, "warnings": []}

    def _of_file(self, path: str) -> dict:
        if self.workspace is None or not self.workspace.exists(path):
            where = (
                "the workspace has no such file" if self.workspace else "there is no workspace to look for a file in"
            )
            raise ValueError(
                f"paper_read: {path!r} is no arXiv id or address, and {where}. "
                "Examples: 1706.03762, hep-th/9901001v2, https://example.org/paper.pdf, papers/mine.pdf"
            )
        with self.workspace.open_read(path) as file:
            body = file.read(self.max_bytes + 1)
        if len(body) > self.max_bytes:
            raise ValueError(f"paper_read: {path} is larger than {self.max_bytes:,} bytes. Read it with code instead.")
        document = self._parse(body, {"type": ""}, path)
        return {**document, "paper": path, "source": {"kind": "file", "url": None, "fetched": None}, "warnings": []}

    # How a document is fetched

    def _get(self, url: str, days: int) -> tuple:
        """A document, from the cache or the network; `FileNotFoundError` where the host has none."""
        from datetime import UTC, datetime
        from time import monotonic, sleep
        from urllib.parse import urljoin, urlsplit

        import requests

        kept = self._cached(self._cache_key(url, None), days * 86_400)  # no token is ever sent
        if kept:
            return kept["body"], {**kept["data"], "kept": True}
        deadline, address, tries = monotonic() + 40, url, 0
        while True:
            self._check(address)
            self._pause(address, deadline - monotonic())
            tries, wait, cause = tries + 1, 0.02 if self._is_local(address) else 1.0, ""
            host = f"{urlsplit(address).scheme}://{urlsplit(address).netloc}"
            try:
                # No session and no cookies; `auth` keeps a password for the host in ~/.netrc from being sent.
                answer = requests.get(
                    address,
                    timeout=(10, 20),
                    stream=True,
                    allow_redirects=False,
                    auth=self._anonymous,
                    headers={"User-Agent": "paper_read/1.0 (smolagents tool)"},
                )
                with answer:
                    self._check_peer(answer, address)
                    status, headers = answer.status_code, answer.headers
                    body = b"" if status != 200 else self._body(answer, deadline, address)
            except requests.Timeout:
                status, headers, body, cause = 0, {}, b"", "did not answer in time"
            except requests.RequestException as error:
                status, headers, body = 0, {}, b""
                broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
                cause = "broke off in the middle of its answer" if broken else "cannot be reached"
            if status in (301, 302, 303, 307, 308) and headers.get("location"):
                if tries > 8:
                    raise ConnectionError(f"{host} redirects without end")
                address = urljoin(address, headers["location"])
                continue
            if status == 200:
                about = {"url": address, "fetched": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
                about["type"] = headers.get("content-type", "").lower()
                return body, about
            if status in (404, 410):
                raise FileNotFoundError(f"{host} has none ({status})")
            if status:
                cause = f"answered with HTTP {status}"
                after = headers.get("retry-after", "")
                if after:
                    cause += f" and asks to wait {after}{' s' if after.isdigit() else ''}"
                    wait = float(after) if after.isdigit() else 3600.0
            passing = not status or status in (408, 429, 500, 502, 503, 504)
            if not passing or tries > 2 or monotonic() + wait + 1 > deadline or wait > 10:
                raise ConnectionError(f"{host} {cause} (tried {tries} times)")
            sleep(wait)

    def _settle(self, url: str, body: bytes, about: dict) -> None:
        """Keeps a document that turned out to be one: not a login page, or what a damaged file was."""
        if not about.get("kept"):
            self._cache(self._cache_key(url, None), about, body)

    def _anonymous(self, request):
        return request

    def _body(self, answer, deadline: float, address: str) -> bytes:
        from time import monotonic

        import requests

        body = bytearray()
        for piece in answer.iter_content(1 << 16):
            body += piece
            if len(body) > self.max_bytes:
                raise ValueError(f"{address} is larger than {self.max_bytes:,} bytes")
            if monotonic() > deadline:
                raise requests.Timeout
        announced = answer.headers.get("content-length", "")
        if announced.isdigit() and not answer.headers.get("content-encoding") and len(body) < int(announced):
            raise requests.exceptions.ChunkedEncodingError
        return bytes(body)

    def _check(self, address: str) -> None:
        """Keep to the public net: the model chooses addresses, and what it reads may have told it which."""
        import socket
        from urllib.parse import urlsplit

        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"paper_read: {address!r} is no web address.")
        if self._is_ours(address):
            return
        try:
            found = socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)
        except OSError:
            return  # behind a proxy only the proxy can look names up; else the request fails by itself
        self._refuse_inner([str(one[4][0]) for one in found], address)

    def _check_peer(self, answer, address: str) -> None:
        """A name may lead elsewhere when it is looked up again."""
        connection = answer.raw.connection
        if connection is None or connection.sock is None or connection.proxy or self._is_ours(address):
            return
        self._refuse_inner([str(connection.sock.getpeername()[0])], address)

    def _is_ours(self, address: str) -> bool:
        from urllib.parse import urlsplit

        bases, parts = [urlsplit(base) for base in self._bases().values()], urlsplit(address)
        return (parts.scheme, parts.netloc) in [(one.scheme, one.netloc) for one in bases]

    def _refuse_inner(self, found: list, address: str) -> None:
        from ipaddress import ip_address

        if [one for one in found if not ip_address(one.split("%")[0]).is_global]:
            raise ValueError(
                f"paper_read: {address} is on this machine or a private network, where it does not read. "
                "Download the file into the workspace and give its path."
            )

    def _is_local(self, address: str) -> bool:
        from urllib.parse import urlsplit

        return urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")

    def _pause(self, address: str, longest: float) -> None:
        """A second between requests to one host, but not on this machine."""
        from time import sleep
        from urllib.parse import urlsplit

        if not self._is_local(address):
            sleep(self._turn(urlsplit(address).hostname or "", 1.0, longest))

    # From bytes to lines

    def _parse(self, body: bytes, about: dict, name: str) -> dict:
        import re

        head = body[:4096].lstrip().lower()
        if b"%pdf-" in body[:1024].lower():
            return self._finished(self._of_pdf(body, name))
        if not body.strip():
            raise ValueError(f"{name} is empty")
        if "html" in about["type"] or re.match(
            rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype html|html|head|body|article)", head
        ):
            return self._finished(self._of_html(body))
        if "text" in about["type"] or not about["type"]:
            try:
                text = body.decode("utf-8-sig")
            except UnicodeDecodeError:
                text = body.decode("latin-1")
            if "\0" not in text:
                return self._finished(self._of_text(text))
        raise ValueError(f"{name} is neither PDF, HTML nor text ({about['type'] or 'by its content'})")

    def _blank(self) -> dict:
        return {
            "title": None,
            "authors": [],
            "lines": [],
            "sections": [],
            "labels": {},
            "floats": [],
            "pages": [],
            "references": 0,
            "latexml": False,
            "form": "text",
        }

    def _open(self, document: dict, level: int, number: str, title: str, id: str) -> None:
        label = " ".join(f"{number} {title}".split()) or "(no title)"
        label = label if len(label) <= 80 else label[:79] + "…"
        labels, start = document["labels"], len(document["lines"])
        labels[label] = labels.get(label, 0) + 1
        name = label if labels[label] == 1 else f"{label} ({labels[label]})"
        section = {
            "label": name,
            "number": number,
            "title": title,
            "level": level,
            "id": id,
            "start": start,
            "end": start,
        }
        document["sections"].append(section)

    def _say(self, document: dict, text: str, keep: bool = False) -> None:
        """Add a paragraph; `keep` leaves it on one line. No line is so long that it could not be read."""
        import textwrap

        width = 2000 if keep else 140
        if len(text) <= width:
            document["lines"].append(text)
            return
        for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
            document["lines"] += [line[place : place + 4000] for place in range(0, len(line), 4000)]

    def _finished(self, document: dict) -> dict:
        sections, lines = document["sections"], document["lines"]
        within: list = []
        for one in sections:
            while within and within[-1]["level"] >= one["level"]:
                within.pop()["end"] = one["start"]
            within.append(one)
        for one in within:
            one["end"] = len(lines)
        if not [line for line in lines if line.strip()]:
            raise ValueError("it holds no text (are its pages scanned images?)")
        if document["form"] != "html":
            self._find_captions(document)
        for one in sections:
            if one["title"].lower().strip(" .:") in ("references", "bibliography") and not document["references"]:
                import re

                rows = lines[one["start"] : one["end"]]
                document["references"] = len([row for row in rows if re.match(r"\s*(\[\d+\]|\d+\.|-|\*)\s", row)])
        return document

    def _find_captions(self, document: dict) -> None:
        """Captions in text without marks: a line that begins with `Table 2:`, and the lines until the next blank."""
        import re

        lines, taken = document["lines"], set()
        for place, line in enumerate(lines):
            found = re.match(rf"[>*_#\s]*{self.float_names}\**\s*[:.|]\**\s*\S", line, flags=re.IGNORECASE)
            if not found:
                continue
            name = f"{self._kind(found[1])} {found[2]}"
            if name in taken:
                continue
            taken.add(name)
            end = place + 1
            while end < len(lines) and end < place + 60 and lines[end].strip() and not lines[end].startswith("[page "):
                end += 1
            start, before = place, place - 1
            while before >= 0 and (
                lines[before].startswith("|") or (before == place - 1 and not lines[before].strip())
            ):
                start = before if lines[before].startswith("|") else start
                before -= 1
            after = end + 1 if end < len(lines) and not lines[end].strip() else end
            while after < len(lines) and lines[after].startswith("|"):
                after += 1
                end = after
            kind = self._kind(found[1])
            caption = " ".join(" ".join(lines[place : place + 4]).strip(" *#>_").split())
            document["floats"].append({"kind": kind, "name": name, "caption": caption, "start": start, "end": end})

    def _of_text(self, text: str) -> dict:
        """Markdown, or text without marks."""
        import re

        document, fenced = self._blank(), False
        for line in text.replace("\r\n", "\n").split("\n"):
            fenced = fenced != line.lstrip().startswith(("```", "~~~"))
            heading = None if fenced else re.match(r"(#{1,6})\s+(.+?)\s*#*$", line)
            if heading:
                words = re.sub(r"[*_`]{1,3}(.+?)[*_`]{1,3}", r"\1", heading[2])
                if len(heading[1]) == 1 and document["title"] is None and not document["sections"]:
                    document["title"] = words
                else:
                    found = re.match(r"((?:Appendix )?(?:[A-Z]|\d+)(?:\.\d+)*)[.:]?\s+(.+)", words)
                    number, title = (found[1], found[2]) if found and not words.startswith("A ") else ("", words)
                    self._open(document, len(heading[1]), number, title, "")
            self._say(document, line.rstrip(), keep=fenced or line.startswith("|"))
        return document

    # LaTeXML's HTML, as arXiv and ar5iv serve it; other pages by their h1 to h6

    def _of_html(self, body: bytes) -> dict:
        from lxml import etree, html  # ty: ignore[missing-module-member]

        document = self._blank()
        document["form"] = "html"
        try:
            tree = html.document_fromstring(body, parser=html.HTMLParser(encoding=self._charset(body)))
        except etree.ParserError as error:
            raise ValueError(f"the page cannot be read ({error})") from None
        found = tree.xpath("//article[contains(@class,'ltx_document')]|//div[contains(@class,'ltx_document')]")
        root = found[0] if found else (tree.xpath("//main|//article|//body") or [tree])[0]
        title = root.xpath(".//h1[contains(@class,'ltx_title_document')]") or tree.xpath("//h1|//title")
        if title:
            document["title"] = self._line(title[0]) or None
        for person in root.xpath(".//span[contains(@class,'ltx_personname')]"):
            name = " ".join(" ".join(person.itertext()).split())
            document["authors"].append(name[:80])
        for node in root.iter():
            if isinstance(node.tag, str) and self._is_block(node):
                node.set("data-block", "1")
                for parent in node.iterancestors():
                    if parent.get("data-block"):
                        break
                    parent.set("data-block", "1")
        self._walk(root, document, 1)
        kinds = ("ltx_section", "ltx_bibliography", "ltx_appendix", "ltx_para", "ltx_chapter")
        document["latexml"] = bool(found) and bool(
            [kind for kind in kinds if root.xpath(f".//*[contains(@class,'{kind}')]")]
        )
        return document

    def _charset(self, body: bytes) -> str:
        import re

        said = re.search(rb"charset=[\"']?([\w-]+)", body[:4096])
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            return said[1].decode() if said and said[1].lower() != b"utf-8" else "latin-1"
        return "utf-8"

    def _classes(self, node) -> set:
        return set((node.get("class") or "").split())

    def _is_block(self, node) -> bool:
        tags = (
            "p div section article table ul ol li dl dt dd figure figcaption h1 h2 h3 h4 h5 h6 pre blockquote header"
        )
        classes = "ltx_tabular ltx_equation ltx_equationgroup ltx_listingline ltx_bibblock ltx_p ltx_figure ltx_float"
        own = self._classes(node)
        if "ltx_bibblock" in own or own & {"ltx_note_outer", "ltx_note_content"}:
            return False
        return node.tag in tags.split() or bool(own & set(classes.split()))

    def _walk(self, node, document: dict, depth: int) -> None:
        """Text and inline elements become paragraphs, blocks are taken one by one: nothing is left out but scripts."""
        words = [node.text or ""]
        for child in node:
            if isinstance(child.tag, str) and child.tag not in (
                "script",
                "style",
                "nav",
                "button",
                "template",
                "noscript",
            ):
                note = self._classes(child) & {"ltx_note", "ltx_ERROR"}
                if child.get("data-block") and not note and child.tag != "math":
                    self._flush(document, words)
                    self._block(child, document, depth)
                else:
                    words.append(self._inline(child))
            words.append(child.tail or "")
        self._flush(document, words)

    def _flush(self, document: dict, words: list) -> None:
        text = " ".join("".join(words).split())
        words.clear()
        if text:
            self._say(document, text)
            document["lines"].append("")

    def _block(self, node, document: dict, depth: int) -> None:
        import re

        own, lines = self._classes(node), document["lines"]
        kinds = "part chapter section subsection subsubsection paragraph subparagraph appendix abstract bibliography"
        kinds += " acknowledgements index glossary"
        if own & {f"ltx_{kind}" for kind in kinds.split()}:
            self._section(node, document, depth)
        elif "ltx_title_document" in own:
            lines += ["# " + self._line(node), ""]
        elif node.tag in ("h1", "h2", "h3", "h4", "h5", "h6") and not own & {"ltx_title_theorem", "ltx_title_proof"}:
            level = int(node.tag[1])
            words = self._line(node)
            if words:
                found = re.match(r"((?:Appendix )?(?:[A-Z]|\d+)(?:\.\d+)*)[.:]?\s+(.+)", words)
                number, title = (found[1], found[2]) if found and not words.startswith("A ") else ("", words)
                self._open(document, level, number, title, node.get("id") or "")
                lines += ["#" * level + " " + words, ""]
        elif own & {"ltx_equation", "ltx_equationgroup"}:
            self._equation(node, document)
        elif "ltx_tabular" in own or node.tag == "table":
            self._table(node, document)
        elif "ltx_listingline" in own:
            self._say(document, self._inline(node).replace("\n", " ").replace("\xa0", " ").rstrip(), keep=True)
            if node.getnext() is None:
                lines.append("")
        elif node.tag == "pre":
            for line in "".join(node.itertext()).split("\n"):
                self._say(document, line.rstrip(), keep=True)
        elif "ltx_bibitem" in own:
            document["references"] += 1
            self._flush(document, [self._inline(node)])
        elif node.tag == "figure" or own & {"ltx_figure", "ltx_table", "ltx_float"}:
            self._float(node, document, depth)
        elif node.tag in ("figcaption", "caption"):
            self._flush(document, [self._inline(node)])
        elif node.tag == "li":
            tag = node.xpath("./span[contains(@class,'ltx_tag')]")
            mark, start = self._line(tag[0]) if tag else "-", len(lines)
            for one in tag:
                one.drop_tree()
            self._walk(node, document, depth)
            if start < len(lines):
                lines[start] = ("- " if mark in ("•", "-", "–", "*", "") else mark + " ") + lines[start]
        else:
            self._walk(node, document, depth)

    def _section(self, node, document: dict, depth: int) -> None:
        heading = [one for one in node if isinstance(one.tag, str) and "ltx_title" in self._classes(one)]
        number = title = ""
        if heading:
            tag = heading[0].xpath("./span[contains(@class,'ltx_tag')]")
            number = self._line(tag[0]).rstrip(" .:") if tag else ""
            for one in tag:
                one.drop_tree()
            title = self._line(heading[0]).strip(" :")
        fallback = "Abstract" if "ltx_abstract" in self._classes(node) else ""
        self._open(document, depth, number, title or fallback, node.get("id") or "")
        document["lines"] += [" ".join(f"{'#' * min(depth + 1, 6)} {number} {title or fallback}".split()), ""]
        if heading:
            heading[0].drop_tree()
        self._walk(node, document, depth + 1)

    def _float(self, node, document: dict, depth: int) -> None:
        import re

        start = len(document["lines"])
        captions = node.xpath("./figcaption|./caption|./*/figcaption[contains(@class,'ltx_caption')]")
        caption = self._line(captions[0]) if captions else ""
        self._walk(node, document, depth)
        found = re.match(self.float_names, caption, flags=re.IGNORECASE)
        if found:
            kind = self._kind(found[1])
            span = {"start": start, "end": len(document["lines"])}
            document["floats"].append({"kind": kind, "name": f"{kind} {found[2]}", "caption": caption, **span})

    def _equation(self, node, document: dict) -> None:
        rows = [row for row in node.iter() if row.tag == "tr" or "ltx_eqn_row" in self._classes(row)] or [node]
        for row in rows:
            tags = [self._line(tag) for tag in row.xpath(".//*[contains(@class,'ltx_tag_equation')]")]
            for tag in row.xpath(".//*[contains(@class,'ltx_tag_equation')]"):
                tag.drop_tree()
            formulas = [self._tex(math) for math in row.iter("math")]
            text = self._line(row)
            bare = text
            for formula in formulas:
                bare = bare.replace(f"${formula}$", "", 1)
            if formulas and not bare.strip():
                text = f"$$ {' '.join(formulas)} $$"
            if text or tags:
                self._say(document, " ".join([text, *tags]).strip(), keep=True)
        document["lines"].append("")

    def _table(self, node, document: dict) -> None:
        """As Markdown; a cell that spans several columns or rows is followed, or underlain, by empty ones."""
        rows, hanging = [], {}
        cell_above = "ancestor::*[self::td or self::th or contains(concat(' ', @class, ' '), ' ltx_td ')]"
        depth = len(node.xpath(cell_above))
        for row in node.iter():
            if row.tag != "tr" and "ltx_tr" not in self._classes(row):
                continue
            if len(row.xpath(cell_above)) > depth:  # of a table in a cell of this one, where it is already
                continue
            cells: list = []
            for cell in row:
                if cell.tag not in ("td", "th") and not self._classes(cell) & {"ltx_td", "ltx_th"}:
                    continue
                while hanging.get(len(cells), 0) > 0:
                    hanging[len(cells)] -= 1
                    cells.append("")
                wide, high = self._span(cell, "colspan"), self._span(cell, "rowspan")
                for column in range(wide):
                    hanging[len(cells)] = high - 1
                    cells.append(self._line(cell).replace("|", "\\|") if column == 0 else "")
            rows.append(cells)
        own = [child for child in node if child.tag == "caption"]
        for caption in own:
            self._flush(document, [self._inline(caption)])
        if not rows:
            self._walk(node, document, 1)
        for text in node.xpath(f".//text()[count({cell_above}) = {depth}][not(ancestor::caption)]") if rows else []:
            self._flush(document, [str(text)])
        width = max([len(cells) for cells in rows], default=0)
        for place, cells in enumerate(rows):
            self._say(document, "| " + " | ".join(cells + [""] * (width - len(cells))) + " |", keep=True)
            if place == 0:
                self._say(document, "|" + "---|" * width, keep=True)
        document["lines"].append("")

    def _span(self, cell, name: str) -> int:
        value = cell.get(name) or "1"
        return min(max(int(value), 1), 200) if value.isdecimal() else 1

    def _line(self, node) -> str:
        return " ".join(self._inline(node).split())

    def _tex(self, math) -> str:
        tex = math.get("alttext") or "".join(
            math.xpath(".//*[local-name()='annotation'][contains(@encoding,'tex')]/text()")
        )
        tex = tex or "".join(math.itertext())
        return " ".join(tex.replace("%\n", "").split()).removeprefix("\\displaystyle ").removeprefix("\\displaystyle")

    def _inline(self, node) -> str:
        """An element as one piece of text."""
        own, tag = self._classes(node), node.tag
        if not isinstance(tag, str) or tag in ("script", "style", "button", "template", "nav"):
            return ""
        if tag == "math":
            return f"${self._tex(node)}$"
        if tag == "br":
            return " "
        if tag == "img":
            about = " ".join((node.get("alt") or "").split())
            return f"[image: {about}]" if about and about.lower() != "refer to caption" else ""
        if "ltx_note" in own:
            marks = node.xpath(".//*[contains(@class,'ltx_note_mark') or contains(@class,'ltx_tag_note')]")
            mark = self._line(marks[0]).strip("^") if marks else ""
            for one in marks:
                one.drop_tree()
            node.set("class", "")
            words = self._line(node)
            return f" [footnote {mark}: {words}]" if words else ""
        text, apart = node.text or "", {"ltx_bibblock", "ltx_author_notes", "ltx_contact", "ltx_creator"}
        for child in node:
            pause = " " if child.get("data-block") or self._classes(child) & apart else ""
            text += pause + self._inline(child) + pause + (child.tail or "")
        link = node.get("href") or ""
        if tag == "a" and link.startswith("http") and link.rstrip("/") not in text and text.strip():
            return f"{text} ({link})"
        if tag in ("sup", "sub") and text.strip():
            return ("^" if tag == "sup" else "_") + text.strip()
        if own & {"ltx_tag_bibitem", "ltx_tag_listingline"} and text.strip():
            return text.strip() + " "
        return text

    # PDF

    def _of_pdf(self, body: bytes, name: str) -> dict:
        import io
        import logging
        import re

        import pypdf

        logging.getLogger("pypdf").setLevel(logging.ERROR)
        document = self._blank()
        document["form"] = "pdf"
        try:
            reader = pypdf.PdfReader(io.BytesIO(body))
            if reader.is_encrypted and not reader.decrypt(""):
                raise ValueError("it needs a password")
            pages = list(reader.pages)
            title = str(reader.metadata.title or "") if reader.metadata else ""
        except Exception as error:  # noqa: BLE001 - pypdf raises anything at all on a damaged file
            raise ValueError(f"{name} cannot be read as PDF ({type(error).__name__}: {str(error)[:100]})") from None
        document["title"] = " ".join(title.split()) or None
        for number, page in enumerate(pages, 1):
            document["pages"].append(len(document["lines"]))
            document["lines"].append(f"[page {number}]")
            try:
                text = page.extract_text() or ""
            except Exception as error:  # noqa: BLE001 - as above: a page that cannot be read is named, the rest is kept
                text = f"[this page could not be read: {type(error).__name__}]"
            text = text.encode("utf-8", "replace").decode("utf-8")
            for line in text.split("\n"):
                self._say(document, line.rstrip(), keep=True)
        if not "".join([re.sub(r"^\[page \d+\]$", "", line) for line in document["lines"]]).strip():
            raise ValueError(f"{name} holds no text: its pages are images. Ask for another source")
        if not document["title"]:
            document["title"] = next(iter([line.strip() for line in document["lines"][1:] if line.strip()]), None)
        marks = self._bookmarks(reader, document)
        for place, level, number, heading in marks if len(marks) > 2 else self._headings(document):
            section = len(document["sections"])
            self._open(document, level, number, heading, "")
            document["sections"][section]["start"] = place
        return document

    def _bookmarks(self, reader, document: dict) -> list:
        """Headings by the PDF's outline, each at the line of its page that says it."""
        import re

        marks, todo, pages = [], [], [*document["pages"], len(document["lines"])]
        try:
            todo = [(1, one) for one in reversed(reader.outline)]
            while todo and len(marks) < 2000:
                level, one = todo.pop()
                if isinstance(one, list):
                    todo += [(level + 1, inner) for inner in reversed(one)]
                    continue
                page = reader.get_destination_page_number(one)
                title = " ".join(str(one.title).split())
                if page is None or page < 0 or not title:
                    continue
                found = re.match(r"((?:Appendix )?(?:[A-Z]|\d+)(?:\.\d+)*)[.:]?\s+(.+)", title)
                number, heading = (found[1], found[2]) if found and not title.startswith("A ") else ("", title)
                words, place = re.sub(r"\W", "", title).lower(), pages[page]
                bare = re.sub(r"\W", "", heading).lower()
                for line in range(pages[page], pages[page + 1]):
                    said = re.sub(r"\W", "", document["lines"][line]).lower()
                    if said and (said in (words, bare) or (said.endswith(bare) and len(said) < len(words) + 8)):
                        place = line
                        break
                marks.append((place, max(level, number.count(".") + 1), number, heading))
        except Exception:  # noqa: BLE001 - a damaged outline is none: headings are looked for in the text
            return []
        return sorted(marks, key=self._place)

    def _place(self, mark) -> int:
        return mark[0]

    def _headings(self, document: dict) -> list:
        """Headings by their looks: numbers that follow each other, and the usual names."""
        import re

        marks, last, seen = [], [], set()
        for place, line in enumerate(document["lines"]):
            text = " ".join(line.split())
            plain = re.fullmatch(
                r"(abstract|references|bibliography|acknowledge?ments?|appendix(?: [A-Z]\b.{0,60})?|conclusions?)[.:]?",
                text,
                flags=re.IGNORECASE,
            )
            if plain and plain[1].lower() not in seen:
                seen.add(plain[1].lower())
                marks.append((place, 1, "", plain[1].capitalize() if plain[1].isupper() else plain[1]))
                continue
            found = re.fullmatch(r"(\d{1,2}(?:\.\d{1,2}){0,3})\.? +([A-Z][^.!?|]{2,90})", text)
            if not found or re.search(r"\s\d+$", text):
                continue
            number = [int(piece) for piece in found[1].split(".")]
            follows = number == [1] if not last else False
            for depth in range(len(last)):
                follows = follows or number == [*last[:depth], last[depth] + 1]
            if follows or (last and number == [*last, 1]):
                last = number
                marks.append((place, len(number), found[1], found[2]))
        return marks

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
