"""Reading a trace back: whole rows only, whatever else the file holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rows import Row


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a trace in file order. A torn last line, garbage and blank lines are passed over."""
    with path.open("rb") as file:
        for line in file:
            if (row := as_row(line)) is not None:
                yield row


def read_lines(path: Path, problems: list[str]) -> Iterator[Row]:
    """The same; what is passed over is told to `problems`, in sentences."""
    bad: list[int] = []
    place, line = 0, b"\n"
    with path.open("rb") as file:
        for place, line in enumerate(file, 1):
            row = as_row(line)
            if row is not None:
                yield row
            elif line.strip():
                bad.append(place)
    if bad and bad[-1] == place and not line.endswith(b"\n"):
        bad.pop()
        problems.append("The last row was cut off.")
    if bad:
        lines = "One line" if len(bad) == 1 else f"{len(bad):,} lines"
        problems.append(f"{lines} could not be read, the first is line {bad[0]}.")


def as_row(line: bytes) -> Row | None:
    """A line's row; `None` where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("type"), str) else None


def note_of(row: Row) -> Row | None:
    """What this project noted in a row (its `kind` says what of), `None` for rows of any other sort."""
    data = row.get("data")
    return data if row["type"] == "progress" and isinstance(data, dict) and data.get("type") == "ml_intern" else None


@dataclass(frozen=True)
class Ended:
    """How a session last ended, as its trace says."""

    state: str
    reason: str
    answer: Any = None


def of_compaction(row: Row) -> bool:
    """Whether a row is part of a compaction, which is no part of a turn."""
    return row.get("isCompactSummary") is True or row.get("stepKind") == "compaction"


def last_end(path: Path) -> Ended | None:
    """The last end on record, `None` while a turn is open (or was cut off)."""
    return ended(read_rows(path))


def ended(rows: Iterable[Row]) -> Ended | None:
    """The same, of rows."""
    end = None
    for row in rows:
        note = note_of(row)
        if note is not None and note.get("kind") == "end":
            end = Ended(str(note.get("state", "")), str(note.get("reason", "")), note.get("answer"))
        elif row["type"] in ("user", "assistant") and not of_compaction(row):
            end = None
    return end
