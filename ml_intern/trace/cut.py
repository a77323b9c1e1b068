"""Where a trace may be cut: after a step, never so that a call is left without its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smolagents.memory import ActionStep

from ..errors import InternError
from .read import note_of
from .rebuild import Memory
from .rows import Row, blocks_of
from .values import text


@dataclass(frozen=True)
class Place:
    """A step of the conversation: its turn (from 1), its number in it, its last row's index."""

    turn: int
    step: int
    end: int


@dataclass(frozen=True)
class Cut:
    """Which rows to take.

    Args:
        end (`int`): Index after the last one.
        whole (`bool`): Nothing that was finished is left out.
        step (`int`): Steps that are taken, of all turns.
        left_out (`int`, *optional*): Number of a step that was running when the record ends, and cannot be taken.
    """

    end: int
    whole: bool
    step: int
    left_out: int | None = None


def cut(rows: Sequence[Row], at: int | str | None = None) -> Cut:
    """Where to cut.

    Args:
        rows (`Sequence[Row]`): That stand, in order.
        at (`int` or `str`, *optional*): A step, counted through all turns (`7`) or as turn and step (`"2.3"`), or a row's
            `uuid`. Rows that belong to it are taken with it. Defaults to the end.

    Raises:
        InternError: there is no such step or row.
    """
    places, last, left_out = walk(rows)
    if at is None:
        return Cut(last, True, len(places), left_out)
    chosen = _index(rows, places, at)
    end = _closed(rows, min(chosen, last - 1), last)
    while end < last and _closing(rows[end]):
        end += 1
    return Cut(end, end == last, sum(place.end < end for place in places), left_out if end == last else None)


def walk(rows: Sequence[Row]) -> tuple[list[Place], int, int | None]:
    """All steps, the index after the last row that can be taken, and the number of a step that is not whole."""
    memory, places, seen = Memory(Path(), [], images=False), [], 0
    index = {text(row.get("uuid")): i for i, row in enumerate(rows)}

    def look(end: int) -> None:
        nonlocal seen
        for step in memory.steps[seen:]:
            if isinstance(step, ActionStep):
                places.append(Place(len(memory.turns), step.step_number, end))
        seen = len(memory.steps)

    for i, row in enumerate(rows):
        begun = memory.begun
        foreign = begun is not None and bool(begun.message)
        turns = len(memory.turns)
        memory.add(_bare(row))
        if foreign and memory.begun is not begun and begun is not None and begun.step in memory.steps[seen:]:
            places.append(Place(turns, begun.step.step_number, i - 1))
            seen += 1
        look(i)
    begun, end, left_out = memory.begun, len(rows), None
    if begun is not None and (not begun.message or begun.uses - _answered(rows)):
        end, left_out = index.get(begun.row, end), begun.step.step_number
    else:
        memory.end()
        look(end - 1)
    return places, end, left_out


def _bare(row: Row) -> Row:
    """A row without what takes time to read and says nothing of where a step ends."""
    return {name: value for name, value in row.items() if name != "artifact"}


def _index(rows: Sequence[Row], places: Sequence[Place], at: int | str) -> int:
    name = str(at).strip()
    if not (numbers := re.fullmatch(r"(?:(\d+)\.)?(\d+)", name)):
        found = next((i for i, row in enumerate(rows) if row.get("uuid") == name), None)
        if found is None:
            raise InternError(f"The trace has no step or row {name!r}", "", f"Its steps are 1 to {len(places)}.")
        return found
    turn, step = numbers[1] and int(numbers[1]), int(numbers[2])
    if turn:
        found = next((place.end for place in reversed(places) if (place.turn, place.step) == (turn, step)), None)
    else:
        found = places[step - 1].end if 1 <= step <= len(places) else None
    if found is None:
        raise InternError(f"The trace has no step {name}", f"it has {len(places)} in all", "Name one of them.")
    return found


def _closed(rows: Sequence[Row], chosen: int, last: int) -> int:
    """The index after the first row from `chosen` on at which every call that is ever answered has been."""
    answered = _answered(rows[:last])
    waits: set[str] = set()
    best = 0
    for i, row in enumerate(rows[:last]):
        for block in blocks_of(row):
            call = text(block.get("id"))
            if block.get("type") == "tool_use" and call in answered:
                waits.add(call)
            elif block.get("type") == "tool_result":
                waits.discard(text(block.get("tool_use_id")))
        if row["type"] == "assistant" and "modelOutput" in row and "stepKind" not in row and not waits:
            waits.add("")  # an answer without code: what was said to it comes next
        elif row["type"] == "user":
            waits.discard("")
        if not waits:
            best = i + 1
            if i >= chosen:
                break
    return best


def _answered(rows: Sequence[Row]) -> set[str]:
    return {text(b.get("tool_use_id")) for row in rows for b in blocks_of(row) if b.get("type") == "tool_result"}


def _closing(row: Row) -> bool:
    """Whether a row is part of a turn's end rather than of what comes after it."""
    note = note_of(row)
    return row.get("stepKind") == "answer" or (note is not None and note.get("kind") in ("end", "shared"))
