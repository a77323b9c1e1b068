"""Tools that are part of a session rather than of the world: they change nothing outside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smolagents import Tool

STATUSES = ("pending", "in_progress", "done")


class PlanTool(Tool):
    """The plan of the session: shown to the user as it changes, kept in the trace.

    Args:
        on_change (`Callable[[tuple[dict[str, str], ...]], None]`): Gets the new plan.
    """

    name = "plan"
    effects = "read"
    description = (
        "Writes the plan of your work: a list of items, each with `text` and `status` (pending, in_progress or done). It "
        "replaces the plan before it, so give all items each time; at most one may be in_progress. Write it when you start "
        "and whenever an item is done. Returns the number of items that are still open."
    )
    inputs = {
        "items": {"type": "array", "description": 'e.g. [{"text": "audit the data", "status": "in_progress"}]'},
    }
    output_type = "object"
    output_schema = {"type": "object", "properties": {"open": {"type": "integer"}}, "required": ["open"]}

    def __init__(self, on_change: Callable[[tuple[dict[str, str], ...]], None]) -> None:
        super().__init__()
        self.on_change = on_change

    def forward(self, items: list) -> dict[str, Any]:
        plan = tuple(_item(item) for item in items)
        if sum(item["status"] == "in_progress" for item in plan) > 1:
            raise ValueError("More than one item is in_progress: work on one thing at a time.")
        self.on_change(plan)
        return {"open": sum(item["status"] != "done" for item in plan)}


def _item(item: Any) -> dict[str, str]:
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict) or not str(item.get("text", "")).strip():
        raise ValueError(f'Each item is like {{"text": "...", "status": "pending"}}, not {item!r}.')
    status = item.get("status", "pending")
    if status not in STATUSES:
        raise ValueError(f"`status` is one of {', '.join(STATUSES)}, not {status!r}.")
    return {"text": str(item["text"]).strip(), "status": status}
