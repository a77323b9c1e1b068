"""The calls of a session's tools, as far as each is on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..events import DECISIONS, SCOPES, ApprovalAnswer, ApprovalRequest, Destination, FileDigest
from .parts import inner_blocks
from .read import note_of
from .restored import RestoredCall, Seen
from .rows import Row, blocks_of
from .values import count, price, text, texts


class Calls:
    """All calls, row by row.

    Args:
        whole (`Callable[[Row, str], str]`): All of a text of which a row has a part.

    Attributes:
        known (`dict[str, RestoredCall]`): By call id, as of the last row; `order` has the ids as they came.
        copied (`set[str]`): Those that a fork took over: they are another session's.
        seen (`list[Seen]`): What came back.
    """

    def __init__(self, whole: Callable[[Row, str], str]) -> None:
        self.whole = whole
        self.known: dict[str, RestoredCall] = {}
        self.order: list[str] = []
        self.copied: set[str] = set()
        self.seen: list[Seen] = []

    def add(self, row: Row) -> None:
        if row["type"] == "assistant" and "effects" in row:
            for block in blocks_of(row):
                if block.get("type") == "tool_use":
                    self._made(row, block)
        elif row["type"] == "user":
            for block in blocks_of(row):
                if block.get("type") == "tool_result" and text(block.get("tool_use_id")) in self.known:
                    self._returned(row, block)
        elif (note := note_of(row)) is not None and (call := self.known.get(text(note.get("callId")))) is not None:
            self._noted(call, note)

    def _made(self, row: Row, block: Row) -> None:
        call_id, given = text(block.get("id")), block.get("input")
        call = RestoredCall(
            call_id=call_id,
            tool=text(block.get("name")),
            arguments=given if isinstance(given, dict) else {},
            effects=text(row.get("effects"), "unknown"),
            step=count(row.get("step")),
            files=files_of(row.get("files")),
            agent=text(row.get("agentId")),
        )
        if call_id not in self.known:
            self.order.append(call_id)
        if "forkedFrom" in row:
            self.copied.add(call_id)
        self.known[call_id] = call

    def _returned(self, row: Row, block: Row) -> None:
        call = self.known[text(block.get("tool_use_id"))]
        said = "\n".join(text(part.get("text")) for part in inner_blocks(block) if part.get("type") == "text")
        said = self.whole(row, said)
        state, failed = "denied" if row.get("denied") is True else "done", block.get("is_error") is True
        self.known[call.call_id] = replace(call, state=state, result=said, failed=failed)
        self.seen.append(Seen(call.tool, call.arguments, said))

    def _noted(self, call: RestoredCall, note: Row) -> None:
        kind, binding = note.get("kind"), text(note.get("binding"))
        waits = call.state not in ("done", "denied")
        if kind == "approval-asked" and waits:
            call = replace(call, state="asked", request=request_of(note, call), binding=binding, answer=None)
        elif kind == "approval-answered" and waits and (answer := answer_of(note)) is not None:
            call = replace(call, state="answered", answer=answer, binding=binding)
        elif kind == "reconciled" and isinstance(note.get("happened"), bool):
            call = replace(call, happened=note["happened"])
        self.known[call.call_id] = call


def request_of(note: Row, call: RestoredCall) -> ApprovalRequest:
    """A question as it was asked."""
    given, place = note.get("arguments"), note.get("destination")
    destination = None
    if isinstance(place, dict) and text(place.get("name")):
        destination = Destination(text(place.get("name")), text(place.get("visibility")))
    return ApprovalRequest(
        call_id=call.call_id,
        tool=text(note.get("tool")) or call.tool,
        arguments=given if isinstance(given, dict) else call.arguments,
        effects=text(note.get("effects")) or call.effects,
        reason=text(note.get("reason")),
        preview=text(note.get("preview")),
        files=files_of(note.get("files")) or call.files,
        cost_usd=price(note.get("costUsd")),
        left_usd=price(note.get("leftUsd")),
        destination=destination,
        sources=texts(note.get("sources")),
        rule=text(note.get("rule")),
        agent=text(note.get("agent")),
    )


def answer_of(note: Row) -> ApprovalAnswer | None:
    """An answer as it was given; `None` where it makes no sense, so that it counts for nothing."""
    decision, given = note.get("decision"), note.get("arguments")
    scope = text(note.get("scope")) or "once"
    edited = given if isinstance(given, dict) else None
    if decision not in DECISIONS or scope not in SCOPES or (decision == "edit") != (edited is not None):
        return None
    by, reason, words = text(note.get("by")), text(note.get("reason")), text(note.get("text"))
    return ApprovalAnswer(decision, reason, by, edited, scope, words)


def files_of(value: Any) -> tuple[FileDigest, ...]:
    items = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    return tuple(FileDigest(text(i.get("path")), count(i.get("size")), text(i.get("sha256"))) for i in items)
