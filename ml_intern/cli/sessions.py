"""`sessions`: those of this home, newest first; the ones at work in some process say what they do now."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.text import Text

from ..gateways.peers import Running, running
from ..settings import Settings
from ..trace.listing import SessionInfo, matching, sessions
from . import text as words
from .paper import Paper

STATES = {
    "running": "cyan",
    "waiting": "bold yellow",
    "success": "green",
    "error": "red",
    "interrupted": "dim",
}


@dataclass(frozen=True)
class Row:
    """A session in a list. `questions` are what it waits for, `at` is when something happened last (since the epoch)."""

    id: str
    title: str
    state: str
    cost_usd: float | None
    at: float
    questions: tuple[str, ...] = ()
    pid: int = 0


def run(found_by: Sequence[str], *, home: Path | None, as_json: bool) -> int:
    """Lists sessions.

    Returns:
        `int`: 0.
    """
    rows = summaries(Settings.load(home).home.expanduser().absolute(), found_by)
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
    else:
        show(Paper(), rows)
    return 0


def summaries(home: Path, found_by: Sequence[str] = ()) -> list[Row]:
    """The sessions of a home, newest first.

    Args:
        home (`Path`): Where sessions lie.
        found_by (`Sequence[str]`, *optional*): Words that must all be in the title or the task, or the beginning of an id.
    """
    alive = {row.id: row for row in running(home)}
    return [_row(info, alive.get(info.id)) for info in matching(sessions(home), " ".join(found_by))]


def _row(info: SessionInfo, alive: Running | None) -> Row:
    """What the trace says, and where a process has the session what that says."""
    title = info.title or info.task
    if alive is None:
        waiting = tuple(f"{call} waits for an answer; `resume` asks for it" for call in info.waits)
        return Row(info.id, title, info.state, info.cost_usd, info.changed, waiting, info.holder or 0)
    cost = alive.cost_usd if alive.tokens else info.cost_usd
    return Row(info.id, title, alive.state, cost, info.changed, alive.questions, alive.pid)


def show(paper: Paper, rows: Sequence[Row], limit: int = 1000) -> None:
    """Shows them, one a line, and below it what it waits for."""
    if not rows:
        paper.put("No sessions yet.", 2)
    for row in rows[:limit]:
        line = Text.assemble(
            (row.id[:8], "bold"),
            ("  "),
            (f"{row.state:<11}", STATES.get(row.state, "yellow")),
            (f" {words.money(row.cost_usd) if row.cost_usd is not None else '$?':>8}", "dim"),
            (f"  {age(time.time() - row.at):<8}", "dim"),
            words.one_line(row.title, 200),
        )
        if paper.terminal:
            line.truncate(max(paper.console.width - 2, 40), overflow="ellipsis")
        paper.put(line, 2, 4)
        for question in row.questions:
            paper.put(Text.assemble(("? ", "bold yellow"), words.one_line(question, 200)), 4, 6)
    if len(rows) > limit:
        paper.put(Text(f"… {len(rows) - limit} older ones", "dim"), 2)


def age(seconds: float) -> str:
    """How long ago: `now`, `5 min`, `3 h`, `12 d`."""
    if seconds < 60:
        return "now"
    for unit, size in (("min", 60), ("h", 3600)):
        if seconds < size * (60 if unit == "min" else 48):
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds // 86400)} d"
