"""Desk: plan and notes of a session, as its rows say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .rows import Row, blocks_of

PLAN, NOTES = "plan", "notes"
"""The tools that write them."""
STATUSES = ("pending", "in_progress", "done")


@dataclass(frozen=True)
class Desk:
    """Plan and notes: what was given to the tools in calls that came back."""

    plan: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Desk:
        """Args: rows (`Iterable[dict]`): Of a trace, in order, up to where it is looked at."""
        desk = cls()
        asked: dict[str, Row] = {}
        for row in rows:
            for block in blocks_of(row):
                if block.get("type") == "tool_use" and block.get("name") in (PLAN, NOTES):
                    asked[str(block.get("id"))] = block
                elif block.get("type") == "tool_result" and asked:
                    call = asked.pop(str(block.get("tool_use_id")), None)
                    if call is not None and not block.get("is_error"):
                        desk = desk.after(call)
        return desk

    def after(self, call: Row) -> Desk:
        """The desk once a call has come back. What cannot have been a plan or a note changes nothing."""
        given = call.get("input")
        if not isinstance(given, dict):
            return self
        try:
            if call["name"] == PLAN:
                return replace(self, plan=tuple(plan_item(item) for item in given.get("items", [])))
            add, put = given.get("add"), given.get("replace")
            texts = (None if add is None else str(add), None if put is None else str(put))
            return replace(self, notes=noted(self.notes, *texts))
        except (ValueError, TypeError):
            return self


def noted(notes: tuple[str, ...], add: str | None, replace: str | None) -> tuple[str, ...]:
    """The notes after a call of the tool."""
    if replace is not None:
        return tuple(line.strip() for line in replace.split("\n") if line.strip())
    return (*notes, add.strip()) if add is not None and add.strip() else notes


def plan_item(item: Any) -> dict[str, str]:
    """An item of a plan, as it may be given.

    Raises:
        ValueError: it is none.
    """
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict) or not str(item.get("text", "")).strip():
        raise ValueError(f'Each item is like {{"text": "...", "status": "pending"}}, not {item!r}.')
    status = item.get("status", "pending")
    if status not in STATUSES:
        raise ValueError(f"`status` is one of {', '.join(STATUSES)}, not {status!r}.")
    return {"text": str(item["text"]).strip(), "status": status}
