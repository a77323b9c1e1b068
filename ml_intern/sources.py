"""Whether what a report names as its sources was there to be read: pure, deterministic, without a model.

It finds what was made up or mixed up, not what was misread: a source that was returned may say something else.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from .plain import as_text
from .steps import ToolResultStep

MOST_SHOWN = 12
"""Problems that a verdict lists."""

_PAPER = r"(\d{4}\.\d{4,5}|[a-z-]{2,12}(?:\.[A-Z]{2})?/\d{7})(?:v\d+)?"
_ARXIV = re.compile(rf"(?<![\w./])(?:arxiv:)?{_PAPER}(?![\w/]|\.\d)", re.IGNORECASE)
_IN_LINK = re.compile(rf"/{_PAPER}(?:\.pdf)?(?![\w/])", re.IGNORECASE)
_DOI = re.compile(r"\b10\.\d{4,9}/[^\s\"'<>|)\]}`]+")
_LINK = re.compile(r"https?://[^\s\"'<>|)\]}`\\]+")
_NAME = re.compile(r"(?<![\w./-])[\w.-]+/[\w.-]+(?![\w/-])")
_QUOTED_NAME = re.compile(r"`([\w.-]+/[\w.-]+)`")
_FIGURE = re.compile(r"(?<![\w.\-/])(\d+\.\d+(?:e-?\d+)?|\d+e-?\d+|\d+(?=\s?%))", re.IGNORECASE)
_ROW = re.compile(r"^\s*\|(.+)\|\s*$")
_RULE = re.compile(r"^[\s|:\-]+$")
_REPOSITORIES = ("huggingface.co", "hf.co", "github.com")
_PAPERS = ("arxiv.org", "export.arxiv.org", "ar5iv.org", "ar5iv.labs.arxiv.org", "alphaxiv.org")
_SEARCHED = ("query", "queries", "search")
"""Arguments that a tool may give back as they were: no source of anything."""


def references_in(text: str) -> dict[str, str]:
    """The sources that a text names: what each is known by, with the words that name it.

    Known by `arxiv:ID`, `doi:ID`, `repo:owner/name` (on the Hub or GitHub) or the address without its scheme.
    """
    found: dict[str, str] = {}
    rest = text
    for match in _LINK.finditer(text):
        link = match[0].rstrip(".,;:!?*_")
        found.setdefault(_of_link(link), link)
        rest = rest.replace(match[0], " ")
    for match in _DOI.finditer(rest):
        doi = match[0].rstrip(".,;:")
        found.setdefault(f"doi:{doi.lower()}", doi)
    rest = _DOI.sub(" ", rest)
    for match in _ARXIV.finditer(rest):
        found.setdefault(f"arxiv:{match[1].lower()}", match[0])
    for match in _QUOTED_NAME.finditer(rest):
        if re.search(r"[A-Z0-9._-]", match[1]):  # otherwise it may be `train/test`
            found.setdefault(f"repo:{match[1].lower()}", match[1])
    return found


def _of_link(link: str) -> str:
    parts = urlsplit(link)
    host = (parts.hostname or "").removeprefix("www.")
    path = parts.path.rstrip("/")
    papers = host in _PAPERS or (host in _REPOSITORIES and path.startswith("/papers/"))
    if papers and (paper := _IN_LINK.search(path)):
        return f"arxiv:{paper[1].lower()}"
    if host in ("doi.org", "dx.doi.org"):
        return f"doi:{path[1:].lower()}"
    if host in _REPOSITORIES:
        names = [part for part in path.split("/") if part]
        names = names[1:] if names[:1] in (["datasets"], ["spaces"], ["models"]) and host != "github.com" else names
        if len(names) >= 2:
            return f"repo:{names[0]}/{names[1].removesuffix('.git')}".lower()
    return f"{host}{path}{f'?{parts.query}' if parts.query else ''}".lower()


def _address(link: str) -> str:
    parts = urlsplit(link)
    return f"{parts.netloc.lower()}{parts.path.rstrip('/')}?{parts.query}"


def figures_in(text: str) -> list[str]:
    """Numbers with a decimal point, an exponent or a percent sign: the ones that are results and settings."""
    return [match[1] for match in _FIGURE.finditer(text)]


class SourceCheck:
    """Remembers what a researcher's tools returned, and looks through its report by that.

    Args:
        own (`Iterable[str]`): Names of tools whose results are no sources: its own words come back from them.
    """

    def __init__(self, own: Iterable[str] = ("final_answer", "plan", "notes")) -> None:
        self._own = frozenset(own)
        self._lock = threading.Lock()
        self.begin("")

    def begin(self, task: str) -> None:
        """A task begins: what it names itself is known."""
        with self._lock:
            self._known: set[str] = set()
            self._links: set[str] = set()
            self._figures: set[float] = set()
            self._mended = False
            self._take(task)

    def saw(self, step: ToolResultStep, arguments: dict[str, Any]) -> None:
        """A tool has returned something. Of one that failed nothing counts, and of a search not what was searched for."""
        if step.error is not None or step.tool in self._own:
            return
        result = step.result
        if isinstance(result, dict):
            result = {name: value for name, value in result.items() if name not in _SEARCHED}
        with self._lock:
            self._take(as_text(result))
            self._links.update(_address(match[0].rstrip(".,;:!?*_")) for match in _LINK.finditer(as_text(result)))
            if not any(name in arguments for name in _SEARCHED):
                self._take(as_text(arguments))

    def _take(self, text: str) -> None:
        self._known.update(references_in(text))
        self._known.update(f"repo:{match[0].lower().strip('.')}" for match in _NAME.finditer(text))
        self._figures.update(round(float(figure), 9) for figure in figures_in(text))

    def knows(self, link: str) -> bool:
        """Whether a tool returned this address."""
        with self._lock:
            return _address(link) in self._links

    def problems(self, report: str) -> list[str]:
        """What in a report stands on nothing that was read, in sentences."""
        named, found = references_in(report), []
        with self._lock:
            known, figures = set(self._known), set(self._figures)
        found += [f"{words}: no tool returned it" for key, words in named.items() if key not in known]
        rows = rows_in(report)
        for row in rows:
            label = row[0][:60]
            if not references_in(" ".join(row)):
                found.append(f"the row of {label!r} names no source")
            odd = [figure for figure in figures_in(" ".join(row)) if not _is_known(figure, figures, row, named)]
            if odd:
                found.append(
                    f"the row of {label!r}: {', '.join(dict.fromkeys(odd))} not found in anything that was read"
                )
        for line in prose_in(report):
            odd = [figure for figure in figures_in(line) if not _is_known(figure, figures, [line], named)]
            if odd:
                found.append(f"{line[:60]!r}: {', '.join(dict.fromkeys(odd))} not found in anything that was read")
        if not named:
            found.append("it names no source at all")
        return found

    def verdict(self, report: str) -> str:
        """What is to stand below a report: its readers are told what was checked, and by whom."""
        found = self.problems(report)
        if not found:
            count = len(references_in(report))
            named = "the source" if count == 1 else f"all {count} sources"
            return f"(Checked by the program: {named} named above came from its tools. Not whether they say so.)"
        shown = [f"- {problem}" for problem in found[:MOST_SHOWN]]
        if len(found) > MOST_SHOWN:
            shown.append(f"- and {len(found) - MOST_SHOWN} more")
        lead = (
            "(Checked by the program, which does not vouch for the following. Do not rely on it unless you look it up:"
        )
        return "\n".join([lead, *shown]) + ")"

    def mended(self, answer: Any, *_: Any, **__: Any) -> bool:
        """For `final_answer_checks`: refuses a report with problems, once.

        Raises:
            ValueError: what is wrong with it.
        """
        found = self.problems(as_text(answer))
        if not found or self._mended:
            return True
        self._mended = True
        raise ValueError(
            f"{'; '.join(found[:MOST_SHOWN])}. Look these up, correct them or leave them out, and answer again. What stays as it "
            "is will be marked as not checked."
        )


def rows_in(report: str) -> list[list[str]]:
    """The rows of all tables in Markdown, less their heads."""
    rows: list[list[str]] = []
    lines = report.splitlines()
    for place, line in enumerate(lines):
        row = _ROW.match(line)
        if row is None or _RULE.match(line) or (place + 1 < len(lines) and _is_rule(lines[place + 1])):
            continue
        rows.append([cell.strip() for cell in row[1].split("|")])
    return rows


def prose_in(report: str) -> list[str]:
    """What is no table: its lines, less the space around them."""
    return [line.strip() for line in report.splitlines() if line.strip() and not _ROW.match(line)]


def _is_rule(line: str) -> bool:
    return "-" in line and "|" in line and _RULE.match(line) is not None


def _is_known(figure: str, figures: set[float], row: list[str], named: dict[str, str]) -> bool:
    """Whether a figure was read, as it is or as a share of 1 or of 100, to the digits that are given."""
    if any(figure in words for words in named.values() if any(words in cell for cell in row)):
        return True  # a part of an id
    value, digits = float(figure), len(figure.partition(".")[2].partition("e")[0])
    for scaled, places in ((value, digits), (value / 100, digits + 2), (value * 100, max(digits - 2, 0))):
        if round(scaled, 9) in figures or any(
            round(known, places) == round(scaled, places) for known in figures if known
        ):
            return True
    return False
