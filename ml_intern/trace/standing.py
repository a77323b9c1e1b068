"""Which rows of a trace stand: the conversation as it is now, less what was undone, branched away from or doubled."""

from __future__ import annotations

from collections.abc import Sequence

from .read import note_of
from .rows import Row, blocks_of


def standing(rows: Sequence[Row]) -> list[Row]:
    """The rows that the conversation consists of, in order.

    Rows of sub-agents, titles and other rows outside the chain are left out. A chain that is broken (a row is missing or
    cannot be read) costs nothing but that row.
    """
    chained = [row for row in rows if isinstance(row.get("uuid"), str) and row.get("isSidechain") is not True]
    if not chained:  # a trace of few fields, such as the smallest that the Hub takes
        return [row for row in rows if isinstance(row.get("message"), dict) and row.get("isSidechain") is not True]
    return _own(chained) if any(map(is_own, chained)) else _foreign(chained)


def is_own(row: Row) -> bool:
    """Whether this project wrote a row (or another program copied it)."""
    return "stepKind" in row or note_of(row) is not None


def _own(rows: Sequence[Row]) -> list[Row]:
    """The chain is a line; a row that follows an earlier one than the last takes back what is between."""
    stands: list[Row] = []
    place: dict[str, int] = {}
    known: set[str] = set()
    for row in rows:
        uuid, parent = row["uuid"], _parent(row)
        if uuid in known:
            continue
        known.add(uuid)
        at = place.get(parent, len(stands) - 1) if parent is not None else len(stands) - 1
        note = note_of(row)
        if note is not None and note.get("kind") == "undone" and note.get("to") is None and parent is None:
            at = -1
        for gone in stands[at + 1 :]:
            del place[gone["uuid"]]
        del stands[at + 1 :]
        place[uuid] = len(stands)
        stands.append(row)
    return stands


def _foreign(rows: Sequence[Row]) -> list[Row]:
    """The newest branch, from its last row up, with all results of its calls: those of parallel ones branch off."""
    index = {row["uuid"]: place for place, row in enumerate(rows)}
    said = [place for place, row in enumerate(rows) if row["type"] in ("user", "assistant") and not row.get("isMeta")]
    if not said:
        return []
    chosen: set[int] = set()
    place: int | None = said[-1]
    while place is not None and place not in chosen:
        chosen.add(place)
        parent = _parent(rows[place])
        if parent is not None and parent not in index:  # everything above would be lost
            chosen.update(range(place))
            break
        place = index[parent] if parent is not None else None
    answers = {identifier for place in chosen if (identifier := _message_id(rows[place]))}
    chosen.update(
        place for place, row in enumerate(rows) if row["type"] == "assistant" and _message_id(row) in answers
    )
    calls = {b.get("id") for place in chosen for b in blocks_of(rows[place]) if b.get("type") == "tool_use"}
    for place, row in enumerate(rows):
        results = [b.get("tool_use_id") for b in blocks_of(row) if b.get("type") == "tool_result"]
        if any(isinstance(call, str) and call in calls for call in results):
            chosen.add(place)
    return [rows[place] for place in sorted(chosen)]


def _parent(row: Row) -> str | None:
    """The row that a row follows; of a compaction's boundary: the last one before it."""
    parent = row.get("parentUuid") or row.get("logicalParentUuid")
    return parent if isinstance(parent, str) else None


def _message_id(row: Row) -> str:
    message = row.get("message")
    identifier = message.get("id") if row["type"] == "assistant" and isinstance(message, dict) else None
    return identifier if isinstance(identifier, str) else ""
