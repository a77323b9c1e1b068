"""A trace as pages to step through: the task, a page a step, what happened between, the end. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..trace.actions import INTERPRETER
from ..trace.read import note_of, read_rows
from ..trace.results import images_of, text_of
from ..trace.rows import Row, blocks_of
from ..trace.values import count, number, text
from . import text as words


@dataclass
class Item:
    """A part of a page.

    `kind` is `said`, `thinking`, `code`, `call`, `output`, `error`, `note` or `fact`; `label` stands before it (a tool, a
    name), `text` is what is folded when it is long.
    """

    kind: str
    text: str
    label: str = ""
    failed: bool = False


@dataclass
class Page:
    """What is shown at once. `step` is 0 on pages that are no step's."""

    heading: str
    step: int = 0
    at: str = ""
    items: list[Item] = field(default_factory=list)

    def holds(self, words: str) -> bool:
        """Whether a search finds this page; upper and lower case alike."""
        wanted = words.casefold()
        texts = (self.heading, *(part for item in self.items for part in (item.label, item.text)))
        return any(wanted in text.casefold() for text in texts)


def pages(path: Path) -> list[Page]:
    """The pages of a trace, ours or another program's.

    Raises:
        OSError: it cannot be read.
    """
    return pages_of(read_rows(path))


def pages_of(rows: Iterable[Row]) -> list[Page]:
    book = _Book()
    for row in rows:
        book.add(row)
    return book.pages


class _Book:
    def __init__(self) -> None:
        self.pages: list[Page] = []
        self._step = 0
        self._message = ""
        self._calls: dict[str, tuple[Page, Item]] = {}
        self._actions: dict[str, Page] = {}

    def add(self, row: Row) -> None:
        note = note_of(row)
        if note is not None:
            self._note(row, note)
        elif row.get("subtype") == "compact_boundary":
            self._compaction(row)
        elif row["type"] == "assistant":
            self._answer(row)
        elif row["type"] == "user":
            self._user(row)

    def _page(self, heading: str, row: Row, step: int = 0) -> Page:
        self.pages.append(Page(heading, step, text(row.get("timestamp"))))
        return self.pages[-1]

    def _last(self, row: Row) -> Page:
        return self.pages[-1] if self.pages else self._page("Beginning", row)

    def _answer(self, row: Row) -> None:
        message = row.get("message")
        if not isinstance(message, dict):
            return
        kind = row.get("stepKind")
        if kind == "compaction":
            return  # the boundary tells of it
        if kind == "answer":
            self._page("Answer", row)
        elif "usage" in message or "effects" not in row:
            identifier = text(message.get("id"))
            if not identifier or identifier != self._message or not self.pages:
                self._begin(row, text(kind))
            self._message = identifier
        page = self._last(row)
        for block in blocks_of(row):
            self._block(page, block, nested=row.get("effects") is not None)

    def _begin(self, row: Row, kind: str) -> None:
        if kind == "planning":
            self._page("Plan", row)
            return
        self._step = count(row.get("step")) or self._step + 1
        agent = " of a sub-agent" if row.get("isSidechain") is True else ""
        page = self._page(f"{'Last words' if kind == 'wrap-up' else f'Step {self._step}'}{agent}", row, self._step)
        usage = row["message"].get("usage")
        facts = [text(row["message"].get("model"))]
        if isinstance(usage, dict):
            cached = count(usage.get("cache_read_input_tokens"))
            given = count(usage.get("input_tokens")) + count(usage.get("cache_creation_input_tokens")) + cached
            facts.append(f"{words.amount(given)} tokens in, {words.amount(count(usage.get('output_tokens')))} out")
        if isinstance(row.get("costUsd"), int | float):
            facts.append(words.money(number(row["costUsd"])))
        page.items.append(Item("fact", " · ".join(filter(None, facts))))

    def _block(self, page: Page, block: Row, nested: bool) -> None:
        match block.get("type"):
            case "text":
                page.items.append(Item("said", text(block.get("text"))))
            case "thinking":
                page.items.append(Item("thinking", text(block.get("thinking"))))
            case "redacted_thinking":
                page.items.append(Item("fact", "thinking that the provider keeps to itself"))
            case "image":
                page.items.append(Item("fact", "an image"))
            case "tool_use":
                name, given = text(block.get("name")), block.get("input")
                arguments = given if isinstance(given, dict) else {}
                identifier = text(block.get("id"))
                if name == INTERPRETER and not nested and isinstance(arguments.get("code"), str):
                    page.items.append(Item("code", arguments["code"]))
                    self._actions[identifier] = page
                else:
                    page.items.append(Item("call", "", words.call(name, arguments, 20_000)))
                    self._calls[identifier] = (page, page.items[-1])

    def _user(self, row: Row) -> None:
        if row.get("isMeta") is True:
            return
        kind = text(row.get("stepKind"))
        for block in blocks_of(row):
            if block.get("type") == "tool_result":
                self._result(row, block)
            elif row.get("isCompactSummary") is True:
                self._last(row).items.append(Item("output", text(block.get("text")), "summary"))
            elif block.get("type") == "text":
                if "step" in row and not kind and self.pages:
                    self.pages[-1].items.append(Item("error", text(block.get("text"))))
                else:
                    page = self._page("Steered" if kind in ("steer", "steered") else "Task", row)
                    page.items.append(Item("said", text(block.get("text"))))
            elif block.get("type") == "image":
                self._last(row).items.append(Item("fact", "an image"))

    def _result(self, row: Row, block: Row) -> None:
        identifier, failed = text(block.get("tool_use_id")), block.get("is_error") is True
        said = text_of(block)
        seconds = f"  {words.duration(number(row['seconds']))}" if "seconds" in row else ""
        if identifier in self._calls:
            _, item = self._calls[identifier]
            item.text, item.failed = said, failed
            item.label += seconds
            return
        page = self._actions.get(identifier) or self._last(row)
        page.items.append(Item("error" if failed else "output", said, f"output{seconds}", failed))
        shown = len(images_of(block))
        if shown:
            page.items.append(Item("fact", f"{shown} image{'s' * (shown > 1)}; `trace html` shows them"))

    def _compaction(self, row: Row) -> None:
        data = row.get("compactMetadata")
        metadata: dict[str, Any] = data if isinstance(data, dict) else {}
        page = self._page("Compaction", row)
        before, after = count(metadata.get("preTokens")), count(metadata.get("postTokens"))
        how = text(metadata.get("rung")) or text(metadata.get("trigger"))
        page.items.append(
            Item("fact", f"{how}: {words.amount(before)} to {words.amount(after)} tokens" if after else how)
        )

    def _note(self, row: Row, note: Row) -> None:
        kind = text(note.get("kind"))
        said = _said(kind, note)
        if not said:
            return
        if kind in ("end", "undone", "resumed", "forked"):
            page = self._page(kind.capitalize(), row)
            page.items.append(Item("note", said, failed=kind == "end" and note.get("state") != "success"))
        else:
            self._last(row).items.append(Item("note", said, failed=note.get("decision") in ("reject", "stop")))


def _said(kind: str, note: Row) -> str:
    """A note of ours in words; `""` for those that tell a reader nothing."""

    def by(name: str = "by") -> str:
        return f" by {note[name]}" if text(note.get(name)) else ""

    def because(name: str = "reason") -> str:
        return f": {note[name]}" if text(note.get(name)) else ""

    match kind:
        case "approval-asked":
            return f"asked: {words.call(text(note.get('tool')), _mapping(note.get('arguments')), 400)}{because()}"
        case "approval-answered":
            return f"{text(note.get('decision'))}{by()}{because()}"
        case "decision":
            return f"decided: {text(note.get('subject'))} = {text(note.get('choice'))}{because()}"
        case "steered":
            return f"told{by()}: {text(note.get('text'))}"
        case "extended":
            return f"extended to {count(note.get('steps'))} steps{because('why')}"
        case "model":
            return f"{text(note.get('model'))} writes from here on{because('why')}"
        case "mode":
            return f"mode: {text(note.get('mode'))}"
        case "rule":
            return f"rule: {text(note.get('rule'))} ({text(note.get('scope'))})"
        case "network-refused":
            return f"refused on the network: {text(note.get('why'))}"
        case "masked":
            return f"outputs of steps 1 to {count(note.get('masked'))} folded away for the model"
        case "subagent":
            cost = words.money(number(note["costUsd"]) if isinstance(note.get("costUsd"), int | float) else None)
            facts = f"{count(note.get('steps'))} steps · {words.duration(number(note.get('seconds')))} · {cost}"
            return f"sub-agent {text(note.get('agent'))}: {text(note.get('state'))}  {facts}"
        case "reconciled":
            return f"found out: {'it happened' if note.get('happened') is True else 'it did not happen'}{by()}"
        case "repaired":
            return text(note.get("what"))
        case "shared":
            return f"shared: {text(note.get('url'))}"
        case "parked":
            return "parked: it waits for an answer without a process"
        case "end":
            cost = words.money(number(note["costUsd"]) if isinstance(note.get("costUsd"), int | float) else None)
            facts = f"{count(note.get('steps'))} steps · {words.duration(number(note.get('seconds')))} · {cost}"
            return f"{text(note.get('state'))}{because()}  {facts}"
        case "undone":
            return "the last turn was taken back: it stays on record"
        case "resumed":
            return f"went on at step {count(note.get('step'))}"
        case "forked":
            return f"a fork of {text(note.get('source'))}"
    return ""


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
