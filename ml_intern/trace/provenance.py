"""How something that is published came about, as the last section of its card: where the record lies, what was decided.

What must never happen here: a path of this machine on a card; words of somebody else's, of a paper or a page, that get
onto a card because the agent noted them down.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .decisions import ANSWERS, OPEN, Decision, address, decisions, item
from .read import read_rows
from .values import text

MOST = 12
"""Decisions that are listed, the newest."""
LONGEST = 240
"""Characters of a reason."""
SOURCES = 4
"""Sources of one decision."""
HEADING = "## How this came about"

_HOME = re.compile(r"(?<![\w.])(?:/home|/Users)/[^/\s]+|(?<![\w.])/root(?=/|\b)")
_NAMED = re.compile(r"https?://\S+|(?i:arxiv):\S+|\b\d{4}\.\d{4,5}(?:v\d+)?\b|\b10\.\d{4,9}/\S+")
"""What names a source without its words: an address, an arXiv id, a DOI."""


def provenance(trace: Path, url: str = "", repeats: Callable[[str], object] = lambda said: False) -> str:
    """The section of a card.

    Args:
        trace (`Path`): The session's trace.
        url (`str`, *optional*): Where it is shared; without it its id has to do.
        repeats (`Callable[[str], object]`): Whether a text repeats what tools brought in from outside. Such reasons and
            sources stay in the record.

    Raises:
        OSError: the trace cannot be read.
    """
    made = [one for one in decisions(trace) if not one.copied]
    where = f"[session `{trace.stem}`]({address(url)})" if url else f"session `{trace.stem}`"
    shared = ", in a data set that its owner may keep private" if url else ", not shared so far"
    source = _source(trace)
    fork = f" It goes on from session `{source}`, whose decisions are not listed here." if source else ""
    lines = [HEADING, "", f"Made by ML Intern (`pip install smolagents-ml-intern`) in {where}{shared}.{fork}"]
    listed, left_out = _listed([one for one in made if not one.is_answer], trace, repeats)
    if listed or left_out:
        lines += ["", "What was decided, with the step of that session:", "", *map(item, listed)]
        lines += [f"- and {left_out} more, in the record"] if left_out else []
    answers = Counter(_how(one) for one in made if one.is_answer and one.choice != OPEN)
    if answers:
        total = sum(answers.values())
        said = ", ".join(f"{count} {how}" for how, count in answers.items())
        lines += ["", f"Before this, people were asked {total} time{'s' * (total != 1)}: {said}."]
    return "\n".join(lines) + "\n"


def _source(trace: Path) -> str:
    """The session that this one is a fork of, `""` where it is none: its id, as anything else may be anybody's words."""
    first = next((row for row in read_rows(trace) if "uuid" in row), {})
    origin = first.get("forkedFrom")
    named = text(origin.get("sessionId")) if isinstance(origin, dict) else ""
    return named if re.fullmatch(r"[0-9a-fA-F-]{36}", named) else ""


def _listed(made: Sequence[Decision], trace: Path, repeats: Callable[[str], object]) -> tuple[list[Decision], int]:
    """The decisions that a card lists, and how many more there are. The last word on a subject takes the others' place."""
    newest = {one.subject.casefold().strip(): one for one in made}
    ordered = sorted(newest.values(), key=lambda one: one.at)
    fit = [short for one in ordered if (short := _shortened(one, trace, repeats)) is not None]
    listed = fit[-MOST:]
    return listed, len(ordered) - len(listed)


def _shortened(made: Decision, trace: Path, repeats: Callable[[str], object]) -> Decision | None:
    """A decision as a card has it; `None` where even its subject is somebody else's words."""
    subject, choice, reason = (_cut(_public(said, trace)) for said in (made.subject, made.choice, made.reason))
    if repeats(f"{subject} {choice}"):
        return None
    sources = []
    for said in made.sources[:SOURCES]:
        source = _cut(_public(said, trace))
        if repeats(source):
            found = _NAMED.search(source)
            source = found[0].rstrip(".,;") if found is not None and not repeats(found[0]) else ""
        if source:
            sources.append(source)
    return replace(
        made, subject=subject, choice=choice, reason="" if repeats(reason) else reason, sources=tuple(sources)
    )


def _public(said: str, trace: Path) -> str:
    """Without paths of this machine: they tell who works there, and nothing else."""
    for path, name in ((trace.with_suffix(""), "session"), (trace.parent, "sessions"), (Path.home(), "~")):
        if len(path.parts) > 1:
            said = said.replace(str(path), name)
    return _HOME.sub("~", said)


def _cut(said: str) -> str:
    line = " ".join(said.split())
    return line if len(line) <= LONGEST else line[:LONGEST].rsplit(" ", 1)[0] + " …"


def _how(answer: Decision) -> str:
    return answer.choice if answer.choice in ANSWERS.values() else "answered"
