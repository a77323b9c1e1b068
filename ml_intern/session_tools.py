"""Tools that are part of a session rather than of the world: they change nothing outside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from smolagents import Tool

from .execution.packages import Packages

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


class NotesTool(Tool):
    """Notes that outlast every compaction: kept in the trace, said again where the conversation is shortened.

    Args:
        on_change (`Callable[[tuple[str, ...]], None]`): Gets all notes.
        notes (`Callable[[], tuple[str, ...]]`): The notes so far.
    """

    name = "notes"
    effects = "read"
    description = (
        "Your notebook, which outlasts everything: long conversations are shortened, notes are not. Write down what you will "
        "need later and could not easily find again: decisions, measured figures, names, paths. `add` appends a note; `replace` "
        "puts one text in place of all notes, to tidy up. Returns all notes."
    )
    inputs = {
        "add": {"type": "string", "description": "A new note, one or two lines.", "nullable": True},
        "replace": {"type": "string", "description": "All notes anew, a line each.", "nullable": True},
    }
    output_type = "array"
    output_schema = {"type": "array", "items": {"type": "string"}}

    def __init__(
        self, on_change: Callable[[tuple[str, ...]], None], notes: Callable[[], tuple[str, ...]] = tuple
    ) -> None:
        super().__init__()
        self.on_change, self.notes = on_change, notes

    def forward(self, add: str | None = None, replace: str | None = None) -> list[str]:
        if add is not None and replace is not None:
            raise ValueError("Give `add` or `replace`, not both.")
        notes = noted(self.notes(), add, replace)
        if add is not None or replace is not None:
            self.on_change(notes)
        return list(notes)


def noted(notes: tuple[str, ...], add: str | None, replace: str | None) -> tuple[str, ...]:
    """The notes after a call of the tool."""
    if replace is not None:
        return tuple(line.strip() for line in replace.split("\n") if line.strip())
    return (*notes, add.strip()) if add is not None and add.strip() else notes


def plan_text(items: tuple[dict[str, str], ...]) -> str:
    """A plan as a list in Markdown."""
    marks = {"done": "[x]", "in_progress": "[>]", "pending": "[ ]"}
    return "\n".join(f"- {marks[item['status']]} {item['text']}" for item in items)


def pinned_text(items: tuple[dict[str, str], ...], notes: tuple[str, ...]) -> str:
    """Plan and notes, as they are said again after a compaction."""
    parts = [f"## Your plan\n{plan_text(items)}"] if items else []
    if notes:
        parts.append("## Your notes\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Desk:
    """Plan and notes of a session, as its trace says: what was given to the tools in calls that came back."""

    plan: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Desk:
        """Args: rows (`Iterable[dict]`): Of a trace, in order, up to where it is looked at."""
        desk, asked = cls(), {}
        for row in rows:
            message = row.get("message")
            content = message.get("content") if isinstance(message, dict) else None
            for block in content if isinstance(content, list) else ():
                if block.get("type") == "tool_use" and block.get("name") in (PlanTool.name, NotesTool.name):
                    asked[block["id"]] = block
                elif block.get("type") == "tool_result" and not block.get("is_error"):
                    desk = desk.after(asked.pop(block["tool_use_id"], None))
        return desk

    def after(self, call: dict[str, Any] | None) -> Desk:
        if call is None:
            return self
        given = call["input"]
        if call["name"] == PlanTool.name:
            return replace(self, plan=tuple(_item(item) for item in given.get("items", [])))
        return replace(self, notes=noted(self.notes, given.get("add"), given.get("replace")))


def _item(item: Any) -> dict[str, str]:
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict) or not str(item.get("text", "")).strip():
        raise ValueError(f'Each item is like {{"text": "...", "status": "pending"}}, not {item!r}.')
    status = item.get("status", "pending")
    if status not in STATUSES:
        raise ValueError(f"`status` is one of {', '.join(STATUSES)}, not {status!r}.")
    return {"text": str(item["text"]).strip(), "status": status}


class InstallPackagesTool(Tool):
    """Installs packages for the code of this session.

    It counts as reading: wheels come from the index that a person has configured, into a folder of the session that only
    its code sees; nothing of them runs outside the jail, and nothing else changes.

    Args:
        packages (`Packages`): Installs.
    """

    name = "install_packages"
    effects = "read"
    description = (
        "Installs Python packages for the code you write, from the package index of this machine. Names and versions only, "
        "wheels only. They can be imported at once, without a restart, and stay for this session. "
        "What is installed here already is not replaced. `!pip install x` in code does the same."
    )
    inputs = {
        "packages": {"type": "array", "description": 'e.g. ["polars", "x==1.2", "sentence-transformers[onnx]"]'},
    }
    output_type = "object"
    output_schema = {
        "type": "object",
        "properties": {
            "installed": {"type": "array", "items": {"type": "string"}},
            "already_there": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["installed", "already_there"],
    }

    def __init__(self, packages: Packages) -> None:
        super().__init__()
        self.packages = packages

    def forward(self, packages: list) -> dict[str, Any]:
        if not all(isinstance(name, str) for name in packages):
            raise ValueError('`packages` is a list of names, such as ["polars", "x==1.2"].')
        done = self.packages.install(packages)
        return {"installed": list(done.new), "already_there": list(done.there)}
