"""Search and read the documentation of the Hugging Face libraries."""

from typing import Any

from smolagents import Tool


class HubDocsTool(Tool):
    """The documentation at `HF_ENDPOINT`, section by section. No token is ever sent: all of it is public.

    Pages are read as the Markdown that the site has of them, else as HTML. A search asks the site's own and ranks the
    library's full text (its `llms-full.txt`) by BM25; both are merged by their ranks. What was fetched is kept in
    `$XDG_CACHE_HOME/hub_docs` (or below `~/.cache`) for a day, and used for longer, with its age, while the site fails.

    What must never happen here: a token is sent; code is torn apart at a `#` in it; a site that fails looks like a library
    that says nothing.
    """

    name = "hub_docs"
    description = (
        "Searches and reads the documentation of the Hugging Face libraries and courses (transformers, trl, peft, datasets, "
        "...). Give `query` to search, best with `library`; then `page` to read one of the results. A long page gives its "
        "contents first: name a `section`. `library` alone lists its pages; nothing lists the libraries."
    )
    inputs = {
        "query": {"type": "string", "description": "What to look for (default none).", "nullable": True},
        "library": {
            "type": "string",
            "description": "Such as 'trl' or 'agents-course' (default any).",
            "nullable": True,
        },
        "page": {
            "type": "string",
            "description": "To read: 'trl/sft_trainer', or its address (default none).",
            "nullable": True,
        },
        "section": {
            "type": "string",
            "description": "A heading or anchor of the page, or 'all' (default what fits).",
            "nullable": True,
        },
        "version": {
            "type": "string",
            "description": "Such as 'v4.55.0' or 'main' (default latest).",
            "nullable": True,
        },
        "from_line": {"type": "integer", "description": "First line of the page (default 1).", "nullable": True},
        "limit": {"type": "integer", "description": "Results at most, 1 to 50 (default 8).", "nullable": True},
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "results": {"type": "array", "description": "{page, section, title, library, excerpt, url}, best first."},
            "pages": {"type": "object", "description": "{page: title} of the library."},
            "libraries": {"type": "object", "description": "{library: category}."},
            "contents": {"type": "object", "description": "{heading: tokens} of a long page."},
            "text": {
                "type": "string",
                "description": "Lines from_line to to_line; it goes on at next_line, if not null.",
            },
            "fetched": {"type": "string", "description": "When it was read from the site, UTC."},
            "warnings": {"type": "array"},
            "hint": {"type": "string"},
        },
    }
    effects = "read"
    most_tokens = 6000
    idle_words = (
        "a an and are as at be by can do does for from how i in is it my of on or that the this to use using what"
    )
    # Whose pages' titles are searched where the site has no search and no library is named.
    core: tuple = ("transformers", "trl", "peft", "datasets", "accelerate", "huggingface_hub", "hub", "diffusers")
    max_bytes = 60_000_000
    max_seconds = 60

    def __init__(self, model_repo_id=None):
        super().__init__()
        # Shared by copies of the tool: the libraries whose full text was split up; until when a site is not asked, and why.
        self._texts: dict = {}
        self._hung: dict = {}

    def forward(
        self,
        query: str | None = None,
        library: str | None = None,
        page: str | None = None,
        section: str | None = None,
        version: str | None = None,
        from_line: int | None = None,
        limit: int | None = 8,
    ) -> dict:
        limit = 8 if limit is None else limit
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 50:
            raise ValueError(f"`limit` is a whole number from 1 to 50, not {limit!r}.")
        if from_line is not None and (isinstance(from_line, bool) or not isinstance(from_line, int) or from_line < 1):
            raise ValueError(f"`from_line` is a line number from 1 on, not {from_line!r}.")
        words = " ".join((query or "").split())
        if words and page:
            raise ValueError("Give either `query`, to search, or `page`, to read one.")
        place = self._place(page or "", library or "", version or "")
        if page:
            return self._read(place, section or place["anchor"], from_line or 1)
        if words:
            return self._search(words, place, limit)
        return self._pages_of(place) if place["library"] else self._libraries()

    # Searching

    def _search(self, query: str, place: dict, limit: int) -> dict:
        """The site's own search and the ranking of the library's text, merged by ranks."""
        library, found, errors, answered, titles = place["library"], [], [], False, []
        if not place["version"]:
            try:
                rows = self._of_site(query, library)
                answered = True
                found.append(rows)
            except (OSError, ValueError) as error:
                errors.append(error)
        # Without a library the words may name some, as `packing in trl`; else the titles of a few must do.
        named, whole = [library] if library else [], answered
        if not named and errors:
            named = [word for word in dict.fromkeys(query.lower().split()) if word in self._known()][:3]
        for name in named or (self.core if errors else ()):
            try:
                where = self._place("", name, place["version"])
                found.append(self._of_text(query, where, bool(named)))
                answered = True
                titles += [name] if named and not whole and self._text(where, True)["titles"] else []
            except FileNotFoundError:
                # Some are documented elsewhere, as Gradio is: the site's search may know them all the same.
                broken = [error for error in errors if not isinstance(error, FileNotFoundError)]
                if library and not broken and not [row for ranked in found for row in ranked]:
                    raise
            except (OSError, ValueError) as error:
                errors.append(error)
        # What failed may have had it: that is not "nothing found".
        broken = [error for error in errors if not isinstance(error, FileNotFoundError)]
        if not answered or (broken and not [row for ranked in found for row in ranked]):
            raise type(errors[0])(
                f"{errors[0]}" + ("" if library else " Or name a `library`: its own text is searched then.")
            )
        warnings = [str(error) for error in errors]
        if errors and not named:
            warnings.append(f"Only titles of {', '.join(self.core)} were searched: name a `library` for more.")
        if titles:
            warnings.append(
                f"Of {', '.join(titles)} only titles of pages were searched: the site has no full text of it."
            )
        scores, rows = {}, {}
        for ranked in found:
            for rank, row in enumerate(ranked):
                scores[row["page"]] = scores.get(row["page"], 0) + 1 / (20 + rank)
                rows.setdefault(row["page"], row)
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:limit]
        answer: dict = {"results": [rows[name] for name in best]}
        if warnings:
            answer["warnings"] = warnings
        if not best:
            answer["hint"] = "Nothing was found. Try fewer or other words" + (
                f", or no `library`; library={library!r} alone lists its pages." if library else "."
            )
        return answer

    def _of_site(self, query: str, library: str) -> list:
        """What the site's search finds, a page once."""
        import json
        import re
        from urllib.parse import urlencode

        asked = {"q": query.lower()[:200]} | ({"product": library} if library else {})
        path = f"/api/docs/search?{urlencode(asked)}"
        got = self._get(f"the search of the documentation for {query!r}", path, "json")
        if got is None:
            raise FileNotFoundError(f"The Hub ({self._hub()}) has no search of documentation. Name a `library`.")
        rows: dict = {}
        for item in json.loads(got["text"]):
            text = re.sub(r"<[^>\n]{0,200}>", "", item.get("text") or "")
            try:
                place = self._place(item["source_page_url"], "", "")
            except ValueError:  # such as Gradio's, which lies elsewhere
                url = item["source_page_url"]
                row = {"page": url, "section": "", "title": item.get("source_page_title") or url, "url": url}
                rows.setdefault(url, {**row, "library": item.get("product") or "", "excerpt": text[:400]})
                continue
            title = item.get("heading1") or item.get("source_page_title") or place["page"]
            row = self._row(place, title, item.get("heading2") or place["anchor"], text)
            rows.setdefault(row["page"], row)
        return list(rows.values())

    def _row(self, place: dict, title: str, section: str, text: str) -> dict:
        row = {"page": self._name(place), "section": section, "title": title, "library": place["library"]}
        return {**row, "excerpt": " ".join(text.split())[:400], "url": self._hub() + self._path(place)}

    def _of_text(self, query: str, place: dict, whole: bool = True) -> list:
        """Pages of a library by BM25 over their sections; a word in a heading counts like four in the text.

        `whole`: by all of its text, not by the titles of its pages only.
        """
        import bisect
        import math
        import re

        text = self._text(place, whole)
        if query in text["ranked"]:
            return [dict(row) for row in text["ranked"][query]]
        idle = self.idle_words.split()
        terms = [term for term in dict.fromkeys(re.findall(r"\w+", query.lower())) if term not in idle]
        terms = terms or re.findall(r"\w+", query.lower())
        sections, starts = text["sections"], [one["start"] for one in text["sections"]]
        if not sections:
            return []
        average = len(text["low"]) / len(sections) + 1
        scores: dict = {}
        for term in terms:
            # Plurals and other endings count as well: what begins with the word.
            stem = re.escape(term[:-1] if len(term) > 4 and term.endswith("s") else term)
            counts: dict = {}
            for found in re.finditer(rf"(?<![a-z0-9]){stem}", text["low"]):
                number = bisect.bisect_right(starts, found.start()) - 1
                if number >= 0:
                    counts[number] = counts.get(number, 0) + 1
            for number, one in enumerate(sections):
                if re.search(rf"(?<![a-z0-9]){stem}", one["heads"]):
                    counts[number] = counts.get(number, 0) + 4
            weight = math.log(1 + (len(sections) - len(counts) + 0.5) / (len(counts) + 0.5))
            for number, count in counts.items():
                length = (sections[number]["end"] - sections[number]["start"]) / average
                scores[number] = scores.get(number, 0) + weight * count * 2.5 / (count + 1.5 * (0.25 + 0.75 * length))
        rows: dict = {}
        for number in sorted(scores, key=scores.__getitem__, reverse=True):
            one = sections[number]
            if one["page"] not in rows and len(rows) < 50:
                body = text["text"][one["start"] : one["end"]]
                at = min([at for at in [body.lower().find(term) for term in terms] if at >= 0] or [0])
                about = {**place, "page": one["page"], "anchor": ""}
                rows[one["page"]] = self._row(about, one["title"], one["section"], body[max(at - 100, 0) : at + 500])
        while len(text["ranked"]) > 50:
            text["ranked"].pop(next(iter(text["ranked"])), None)
        text["ranked"][query] = [dict(row) for row in rows.values()]
        return list(rows.values())

    def _text(self, place: dict, whole: bool) -> dict:
        """A library's text in sections: of `llms-full.txt`, else the titles of its pages."""
        import re
        from time import monotonic

        key = (self._hub() + self._path({**place, "page": ""}), whole)
        kept = self._texts.get(key)
        if kept and monotonic() - kept["read"] < 3600:
            return kept
        subject, got = f"the documentation of {place['library']}", None
        for base in self._bases(place) if whole else ():
            got = got or self._get(f"{subject} in full", f"{base}/llms-full.txt", "text")
        text, sections = got["text"] if got else "", []
        marks = list(re.finditer(r"^### (.*)\n(\S+?)\.md$", text, flags=re.MULTILINE))
        for number, mark in enumerate(marks):
            end = marks[number + 1].start() if number + 1 < len(marks) else len(text)
            page, title = self._place(self._local(mark[2]), "", "")["page"], self._anchor(mark[1])[0]
            heads, place_of = self._headings(text[mark.end() : end].split("\n")), mark.end()
            lines = text[mark.end() : end].split("\n")
            offsets = [0]
            for line in lines:
                offsets.append(offsets[-1] + len(line) + 1)
            cuts = [(0, title), *[(head["line"], head["title"]) for head in heads if head["line"]]]
            for at, (line, name) in enumerate(cuts):
                stop = cuts[at + 1][0] if at + 1 < len(cuts) else len(lines)
                begin, last = place_of + offsets[line], min(place_of + offsets[stop], end)
                if text[begin:last].strip():
                    about = {"page": page, "title": title, "section": name, "heads": f"{title} {name} {page}".lower()}
                    sections.append({**about, "start": begin, "end": last})
        titles = not sections
        if titles:
            for page, title in self._listed(place).items():
                about = {"page": page, "title": title, "section": title, "heads": f"{title} {page}".lower()}
                sections.append({**about, "start": len(text), "end": len(text) + len(title) + 1})
                text += title + "\n"
        low = text.lower()
        if len(low) != len(text):  # a few letters become two
            low = "".join([one.lower() if len(one.lower()) == 1 else one for one in text])
        while len([one for one in self._texts if one[1]]) > 3 or len(self._texts) > 20:
            self._texts.pop(next(iter(self._texts)), None)
        self._texts[key] = {"read": monotonic(), "text": text, "low": low, "sections": sections, "titles": titles}
        self._texts[key]["ranked"] = {}  # what was found in it, by the query
        return self._texts[key]

    def _listed(self, place: dict) -> dict:
        """`{page: title}` of a library: of its `llms.txt`, else the links of its first page."""
        import re

        from lxml import html

        subject, pages = f"the pages of {place['library']}", {}
        for base in self._bases(place):
            got = self._get(subject, f"{base}/llms.txt", "text")
            for title, url in re.findall(r"^- \[(.*)\]\((\S+?)\.md\)", got["text"] if got else "", flags=re.MULTILINE):
                pages.setdefault(self._place(self._local(url), "", "")["page"], self._anchor(title)[0])
            if pages:
                return pages
        for address in [f"{base}{end}" for base in self._bases(place) for end in ("/index", "")]:
            got = self._get(subject, address, "any")
            for link in html.document_fromstring(got["text"]).xpath("//a[@href]") if got and got["html"] else ():
                href = link.get("href").split("#")[0]
                if re.match(rf"(https?://[^/]+)?/{place['root']}/{re.escape(place['library'])}/", href):
                    name = " ".join(link.text_content().split())
                    pages.setdefault(self._place(self._local(href), "", "")["page"], name or href)
            if pages:
                return pages
        near = self._near(place["library"], self._known())
        raise FileNotFoundError(
            f"The Hub ({self._hub()}) has no documentation of {place['library']!r}{near}. Without arguments all are listed."
        )

    def _pages_of(self, place: dict) -> dict:
        shown, room, pages = {}, self.most_tokens * 4, self._listed(place)
        for page, title in pages.items():
            name = self._name({**place, "page": page})
            room -= len(name) + len(title) + 8
            if room < 0:
                return {"pages": shown, "hint": f"{len(pages) - len(shown)} more pages: search them with `query`."}
            shown[name] = title
        return {"pages": shown}

    def _libraries(self) -> dict:
        import json

        got = self._get("the list of documentation", "/api/docs", "json")
        rows = json.loads(got["text"]) if got else []
        found = {row["id"]: row.get("category") or "" for row in rows}
        return {"libraries": found} if found else {"libraries": {}, "hint": "This Hub lists none: name a `library`."}

    def _known(self) -> list:
        """Names of the libraries; none where the site does not say."""
        try:
            return list(self._libraries()["libraries"])
        except OSError:
            return []

    def _near(self, name: str, names: list) -> str:
        import difflib

        near = difflib.get_close_matches(name, names, 4, 0.4) or [one for one in names if name in one][:4]
        return f". Near it: {', '.join(near)}" if near else ""

    # Reading

    def _read(self, place: dict, section: str, first: int) -> dict:
        found = self._page(place)
        lines, heads = found["lines"], self._headings(found["lines"])
        answer: dict = {"page": self._name(found["place"]), "title": heads[0]["title"] if heads else None}
        answer |= {"url": self._hub() + self._path(found["place"]), "fetched": found["fetched"]}
        if found["warning"]:
            answer["warnings"] = [found["warning"]]
        wanted, start, end = " ".join(section.split()), 0, len(lines)
        whole = self._tokens(lines)
        if wanted and wanted.lower() != "all":
            head = self._find(heads, wanted, answer["page"])
            start, end, answer["section"] = head["line"], head["end"], head["title"]
        elif not wanted and first == 1 and whole > self.most_tokens and len(heads) > 1:
            rows, room = {}, 1200
            deepest = max([one["level"] for one in heads])
            while deepest > 1 and sum([len(one["title"]) // 3 + 6 for one in heads if one["level"] <= deepest]) > room:
                deepest -= 1
            for one in [one for one in heads if one["level"] <= deepest]:
                label = (
                    one["title"] if one["title"] not in rows else f"{one['title']} [[{one['anchor'] or one['line']}]]"
                )
                room -= len(label) // 3 + 6
                if room < 0 and rows:
                    break
                rows[label] = self._tokens(lines[one["line"] : one["end"]])
            answer |= {"contents": rows, "lines": len(lines)}
            answer["hint"] = f"The page has about {whole:,} tokens: name a `section`, or read on by `from_line`."
            if len(rows) < len(heads):
                answer["hint"] += f" {len(heads) - len(rows)} deeper headings are not listed, but can be named."
            return answer
        begin = max(start, first - 1)
        if begin >= end and end:
            raise ValueError(f"That part of {answer['page']} is lines {start + 1} to {end}: {first} is not in it.")
        text, number, room = [], begin, self.most_tokens * 4
        while number < end:
            room -= len(lines[number]) + 1
            if room < 0 and text:
                break
            text.append(lines[number])
            number += 1
        answer |= {"text": "\n".join(text), "from_line": begin + 1, "to_line": number, "lines": len(lines)}
        return {**answer, "next_line": number + 1 if number < end else None}

    def _page(self, place: dict) -> dict:
        """A page's lines: of its Markdown, else of its HTML."""
        subject = f"the page {self._name(place)}"
        page = place["page"] or "index"
        for base in self._bases(place):
            for address in (f"/{self._quoted(page)}.md", f"/{self._quoted(page)}", *([""] if page == "index" else [])):
                got = self._get(subject, base + address, "any")
                lines = [] if got is None else self._of_html(got["text"]) if got["html"] else got["text"].split("\n")
                if got and [line for line in lines if line.strip()]:
                    lines = [line.rstrip() for line in lines]
                    return {"lines": lines, "place": place, "fetched": got["fetched"], "warning": got["warning"]}
        pages = self._listed(place)
        names = [self._name({**place, "page": one}) for one in pages]
        raise FileNotFoundError(
            f"The Hub ({self._hub()}) has no page {self._name(place)!r}{self._near(self._name(place), names)}. "
            f"library={place['library']!r} alone lists its pages."
        )

    def _headings(self, lines: list) -> list:
        """Headings outside of code: `{level, title, anchor, line, end}`."""
        import re

        found, fence = [], ""
        for number, line in enumerate(lines):
            mark = re.match(r"\s*(`{3,}|~{3,})", line)
            if mark:
                bare = not line.strip().strip(mark[1][0])
                if not fence:
                    fence = mark[1]
                elif mark[1].startswith(fence) and bare:
                    fence = ""
                continue
            head = None if fence else re.match(r"(#{1,6})\s+(\S.*)", line)
            if head:
                title, anchor = self._anchor(head[2])
                found.append(
                    {"level": len(head[1]), "title": title, "anchor": anchor, "line": number, "end": len(lines)}
                )
        for number, one in enumerate(found):
            for other in found[number + 1 :]:
                if other["level"] <= one["level"]:
                    one["end"] = other["line"]
                    break
        return found

    def _anchor(self, title: str) -> tuple:
        """`SFT Trainer[[sft-trainer]]` as title and anchor."""
        import re

        found = re.search(r"\s*\[\[(.+?)\]\]\s*$", title)
        plain = title[: found.start()] if found else title
        return re.sub(r"[`*]", "", plain).strip(" #"), found[1] if found else ""

    def _find(self, heads: list, wanted: str, page: str) -> dict:
        low = wanted.lower().strip(" #")
        plain = low.split("[[")[0].strip()
        anchored = low.partition("[[")[2].rstrip("]")
        ways = [
            [one for one in heads if anchored and anchored in (one["anchor"].lower(), str(one["line"]))],
            [one for one in heads if one["anchor"].lower() == low or one["anchor"].lower().endswith("." + low)],
            [one for one in heads if one["title"].lower() == plain],
            [one for one in heads if one["title"].lower().replace(" ", "-") == plain],
            [one for one in heads if plain in one["title"].lower() or plain in one["anchor"].lower()],
        ]
        for matches in ways:
            if matches:
                return matches[0]
        names = [one["title"] for one in heads]
        near = self._near(wanted, names) or f". It has: {', '.join(names[:8]) or 'no headings'}"
        raise ValueError(f"The page {page} has no section {wanted!r}{near}. Leave `section` out for its contents.")

    def _tokens(self, lines: list) -> int:
        return (sum([len(line) + 1 for line in lines]) + 3) // 4

    # HTML, where a page has no Markdown

    def _of_html(self, text: str) -> list:
        """The main part of a page as lines of Markdown."""
        lines: list = []
        for node in self._main(text):
            self._walk(node, lines)
        return lines

    def _main(self, text: str) -> list:
        """The node that holds a page's own words; none of a page that is no documentation, such as one to log in."""
        from lxml import html

        try:
            tree = html.document_fromstring(text)
        except (ValueError, html.etree.ParserError):
            return []
        for path in ("//*[contains(@class,'prose-doc')]", "//main", "//article", "//*[@role='main']"):
            roots = tree.xpath(path)
            if roots:
                return roots[:1]
        return []

    def _walk(self, node: Any, lines: list) -> None:
        """Blocks of a node, one after the other, with an empty line after each."""
        words: list = [node.text or ""]
        for child in node:
            kind = child.tag.lower() if isinstance(child.tag, str) else ""
            if kind in ("script", "style", "nav", "header", "footer", "button", "svg", "form", "aside", "noscript"):
                pass
            elif kind in (
                "h1",
                "h2",
                "h3",
                "h4",
                "h5",
                "h6",
                "pre",
                "li",
                "tr",
                "ul",
                "ol",
                "table",
                "thead",
                "tbody",
                "p",
            ):
                self._flush(words, lines)
                self._block(child, kind, lines)
            elif kind == "div" or child.xpath(".//p|.//div|.//pre|.//ul|.//ol|.//table|.//h1|.//h2|.//h3|.//h4"):
                self._flush(words, lines)
                self._walk(child, lines)
            else:
                words.append(self._inline(child, kind))
            words.append(child.tail or "")
        self._flush(words, lines)

    def _flush(self, words: list, lines: list) -> None:
        line = " ".join("".join(words).split())
        lines += [line, ""] if line else []
        words.clear()

    def _block(self, node: Any, kind: str, lines: list) -> None:
        if kind[0] == "h":
            anchors = [one for one in [node.get("id"), *node.xpath(".//a/@id")] if one]
            title = " ".join(node.text_content().split())
            lines += [f"{'#' * int(kind[1])} {title}" + (f"[[{anchors[0]}]]" if anchors else ""), ""]
        elif kind == "pre":
            code = node.text_content().strip("\n")
            fence = "````" if "```" in code else "```"
            lines += [fence, *code.split("\n"), fence, ""]
        elif kind == "li":
            inner: list = []
            self._walk(node, inner)
            inner = inner[:-1] if inner and not inner[-1] else inner
            lines += ["- " + inner[0], *["  " + one if one else "" for one in inner[1:]]] if inner else []
        elif kind == "tr":
            cells = [" ".join(cell.text_content().split()).replace("|", "\\|") for cell in node.xpath("./td|./th")]
            lines.append("| " + " | ".join(cells) + " |")
            lines += ["|" + " --- |" * len(cells)] if node.xpath("./th") and not node.xpath("./td") else []
        else:
            self._walk(node, lines)
            lines += [""] if kind in ("ul", "ol", "table") else []

    def _inline(self, node: Any, kind: str) -> str:
        if not kind:
            return ""  # a comment
        if kind == "br":
            return " "
        text = node.text_content()
        if kind == "code" and text.strip():
            return f"`{text.strip()}`"
        href = node.get("href") or ""
        if kind == "a" and text.strip() and href and not href.startswith("#"):
            return f"[{text.strip()}]({href})"
        return text

    # Where things are

    def _place(self, page: str, library: str, version: str) -> dict:
        """What an address or a name of a page stands for: `{root, library, version, language, page, anchor}`."""
        import re
        from urllib.parse import unquote, urlsplit

        text, _, anchor = page.strip().partition("#")
        if re.match(r"https?://", text):
            parts = urlsplit(text)
            hosts = {urlsplit(self._hub()).netloc, "huggingface.co", "www.huggingface.co", "hf.co"}
            if parts.netloc not in hosts or not re.match(r"/(docs|learn)/", parts.path):
                raise ValueError(
                    f"{page} is no page of the documentation at {self._hub()}. Read it with another tool."
                )
            text = parts.path
        names = [part for part in unquote(text).split("/") if part]
        if ".." in names:
            raise ValueError(f"{page!r} is no page. An example: 'trl/sft_trainer'.")
        root = names.pop(0) if names and names[0] in ("docs", "learn") and (len(names) > 1 or not library) else ""
        named = library.strip().strip("/")
        if named.startswith(("docs/", "learn/")):
            root, named = named.split("/")[:2]
        if named and (root or (names and names[0] == named)) and names:
            names.pop(0)
        elif not named and names:
            named = names.pop(0)
        if page and not named:
            raise ValueError(f"{page!r} is no page. An example: 'trl/sft_trainer'.")
        if names and re.fullmatch(r"v?\d+(\.\d+)+([-.\w]*)?|main|pr_\d+|stable", names[0]):
            version = version or names.pop(0)
        language = names.pop(0) if len(names) > 1 and re.fullmatch(r"[a-z]{2}(-[A-Z]{2})?", names[0]) else ""
        name = re.sub(r"(\.md|\.mdx|\.html)$", "", "/".join(names))
        course = named.endswith("-course") or named == "cookbook"
        about = {"root": root or ("learn" if course else "docs"), "library": named, "version": version.strip()}
        return {**about, "language": "" if language == "en" else language, "page": name, "anchor": anchor}

    def _local(self, url: str) -> str:
        """Addresses in lists are the real site's, also on a mirror of it."""
        import re

        return re.sub(r"^https?://[^/]+", "", url)

    def _name(self, place: dict) -> str:
        """A page's name as this tool takes it."""
        parts = [place["library"], place["version"], place["language"], place["page"] or "index"]
        return "/".join([part for part in parts if part])

    def _path(self, place: dict) -> str:
        parts = [place["root"], place["library"], place["version"], place["language"], place["page"]]
        return "/" + "/".join([self._quoted(part) for part in parts if part])

    def _bases(self, place: dict) -> list:
        """Where a library's files may lie, likeliest first: some have no latest version, some all languages in folders."""
        base = self._path({**place, "version": "", "language": "", "page": ""})
        tail = "/" + place["language"] if place["language"] else ""
        if place["version"]:
            within = f"{base}/{self._quoted(place['version'])}"
            return [within + tail, *([f"{within}/en"] if not tail else [])]
        return [base + tail, f"{base}/main{tail}", *([f"{base}/main/en"] if not tail else [])]

    def _quoted(self, text: str) -> str:
        from urllib.parse import quote

        return quote(text, safe="/")

    # How it is fetched

    def _get(self, subject: str, path: str, kind: str) -> dict | None:
        """A file of the site, from the cache or the network; `None` where there is none, which is believed for minutes."""
        from datetime import UTC, datetime

        key = self._cache_key(self._hub(), None, path)  # no token is ever sent
        kept, old = self._cached(key, float("inf")), None
        if kept and kept["data"]["fetched"]:
            old = {**kept["data"], "text": kept["body"].decode(), "warning": ""}
        if kept and kept["age"] < (600 if old is None else 21_600 if kind == "json" else 86_400):
            return old
        try:
            got = self._unless_it_hangs(subject, path, kind)
        except OSError as error:
            if old is None:
                raise
            return {**old, "warning": f"As of {old['fetched']}: {error}"}
        if got is None:
            self._cache(key, {"fetched": None})
            return None
        if got["text"] is None:
            return None
        about = {"html": got["html"], "fetched": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        self._cache(key, about, got["text"].encode())
        return {**about, "text": got["text"], "warning": ""}

    def _unless_it_hangs(self, subject: str, path: str, kind: str) -> dict | None:
        """Asks the site. One call asks for many files: where it has just held one back, the next one is not waited for."""
        from time import monotonic

        until, why = self._hung.get(self._hub(), (0.0, ""))
        started = monotonic()
        if started < until:
            raise TimeoutError(f"The Hub ({self._hub()}) was not asked for {subject}, as a moment ago: {why}")
        try:
            # A library's text may have some megabytes.
            return self._ask(
                subject, self.max_seconds * (2 if kind == "text" else 1), self._request, path=path, kind=kind
            )
        except OSError as error:
            if monotonic() - started > self.max_seconds / 4:
                self._hung[self._hub()] = (monotonic() + self.max_seconds / 2, str(error))
            raise

    def _request(self, path: str, kind: str) -> dict | None:
        """As the official client asks, without its waits, and without the token."""
        from time import sleep

        from huggingface_hub import errors

        try:
            return self._answer(path, kind)
        except errors.HTTPError as error:
            # Once more by itself where it may pass: the client repeats no request whose answer has begun.
            if isinstance(error, errors.HfHubHTTPError) and error.response.status_code not in (502, 503, 504):
                raise
        sleep(0.5)
        return self._answer(path, kind)

    def _answer(self, path: str, kind: str) -> dict | None:
        import json
        import re

        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        headers = {**build_hf_headers(token=False), "Accept": "text/markdown, text/plain, application/json, text/html"}
        with http_stream_backoff(
            "GET",
            self._hub() + path,
            headers=headers,
            timeout=20,
            max_retries=0,
            retry_on_status_codes=(),
        ) as response:
            if response.status_code in (404, 410):
                return None
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > self.max_bytes:
                    raise ValueError(f"{path} is larger than {self.max_bytes:,} bytes.")
            text = bytes(body).decode("utf-8", "replace")
            looks = text.lstrip()[:200].lower()
            page = "html" in response.headers.get("content-type", "") or looks.startswith(("<!doctype html", "<html"))
            if kind == "json":
                rows = json.loads(text)
                if not isinstance(rows, list) or [row for row in rows if not isinstance(row, dict)]:
                    raise TypeError("a list of objects was expected")
            if page and kind == "text":
                return {"text": None, "html": True}  # some sites answer with a page where they have no such file
            if kind == "text" and "](" not in text and not re.search(r"^### ", text, flags=re.MULTILINE):
                raise TypeError("a list of pages was expected")
            if page and not self._main(text):
                raise TypeError("a page of documentation was expected")
            return {"text": text, "html": page}

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
