"""`trace html`: a trace as web pages, made by `claude-code-log`, the format's own renderer.

A browser takes a minute and more to lay out a page of several thousand rows, and much memory: a long trace becomes
several pages that lead to each other.
"""

from __future__ import annotations

import html
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InternError
from ..trace.actions import INTERPRETER
from ..trace.read import read_rows
from ..trace.rows import Row, blocks_of, line

ROWS = 1000
"""On a page; a step is never parted."""
MISSING = 'pip install "smolagents-ml-intern[html]"'
TITLES = ("ai-title", "custom-title", "summary")
_BAR = (
    "position:sticky;top:0;z-index:50;padding:.5em 1em;background:#fffc;backdrop-filter:blur(4px);"
    "font:14px sans-serif;border-bottom:1px solid #8884"
)


@dataclass(frozen=True)
class Part:
    """A page: its rows, and the first and last step on it (0: none)."""

    rows: tuple[Row, ...]
    first: int
    last: int


def run(path: Path, out: Path) -> list[Path]:
    """Writes the pages of a trace.

    Args:
        path (`Path`): The trace. Sub-agents' traces beside it are shown with it.
        out (`Path`): The first page; further ones are named `<name>-2.html` and so on.

    Returns:
        `list[Path]`: The pages.

    Raises:
        InternError: `claude-code-log` is not installed, or fails; the trace has nothing to show; no room.
    """
    try:
        from claude_code_log.converter import convert_jsonl_to_html
    except ImportError:
        raise InternError("The HTML page needs `claude-code-log`", "it is not installed", MISSING) from None
    try:
        found = list(parts(path))
        if not found:
            raise InternError(f"There is nothing in {path.name} to show", "it has no row of a conversation")
        targets = [
            out if number == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
            for number in range(1, len(found) + 1)
        ]
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ml-intern-html-") as folder:
            source, page = Path(folder) / path.name, Path(folder) / "page.html"
            agents = path.with_suffix("") / "subagents"
            if agents.is_dir() and not agents.is_symlink():
                shutil.copytree(agents, source.with_suffix("") / "subagents", ignore=_links)
            for number, part in enumerate(found):
                source.write_bytes(b"".join(map(line, part.rows)))
                convert_jsonl_to_html(source, page, generate_individual_sessions=False, use_cache=False, silent=True)
                text = page.read_text(encoding="utf-8")
                page.unlink()
                targets[number].write_text(_linked(text, found, targets, number), encoding="utf-8")
    except InternError:
        raise
    except OSError as error:
        raise InternError(f"Could not write {out}", error.strerror or str(error), "Choose another --out.") from None
    except Exception as error:  # noqa: BLE001 - another program's renderer: whatever it raises is said in its words
        raise InternError(
            "claude-code-log could not make the page", f"{type(error).__name__}: {error}", "See `trace validate`."
        ) from None
    return targets


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_symlink()]


def parts(path: Path) -> Iterator[Part]:
    """The rows of a trace in pages, each of which begins with a step or something between steps."""
    titles = [row for row in read_rows(path) if row["type"] in TITLES]
    rows: list[Row] = []
    steps: list[int] = []
    step = 0
    for row in read_rows(path):
        if row["type"] in TITLES:
            continue
        begins = _begins(row)
        if len(rows) >= ROWS and begins:
            yield _part(rows, titles, steps)
            rows, steps = [], []
        if begins and row["type"] == "assistant":
            step = row["step"] if isinstance(row.get("step"), int) else step + 1
            steps.append(step)
        rows.append(row)
    if any(row["type"] in ("user", "assistant") for row in rows):
        yield _part(rows, titles, steps)


def _part(rows: list[Row], titles: list[Row], steps: list[int]) -> Part:
    """The first row of a page follows none on it."""
    shown = {row.get("uuid") for row in rows}
    first = next((place for place, row in enumerate(rows) if "parentUuid" in row), None)
    if first is not None and rows[first]["parentUuid"] not in shown:
        rows[first] = {**rows[first], "parentUuid": None}
    kept = [title for title in titles if title.get("leafUuid") in shown or "leafUuid" not in title]
    return Part((*rows, *kept), steps[0] if steps else 0, steps[-1] if steps else 0)


def _begins(row: Row) -> bool:
    """Whether a row is an answer of the model's, or something a person said: no result, no call of the code's."""
    if row["type"] == "assistant":
        message = row.get("message")
        return isinstance(message, dict) and ("usage" in message or _runs_code(row))
    return row["type"] == "user" and not any(block.get("type") == "tool_result" for block in blocks_of(row))


def _runs_code(row: Row) -> bool:
    return any(block.get("type") == "tool_use" and block.get("name") == INTERPRETER for block in blocks_of(row))


def _linked(text: str, found: list[Part], targets: list[Path], here: int) -> str:
    """A page with a way to the others."""
    if len(found) == 1:
        return text
    links = []
    for number, (part, target) in enumerate(zip(found, targets, strict=True)):
        steps = f"{part.first}–{part.last}" if part.first else str(number + 1)
        name = html.escape(json.dumps(target.name)[1:-1])
        links.append(f"<b>{steps}</b>" if number == here else f'<a href="{name}">{steps}</a>')
    bar = f'<nav style="{_BAR}">Part {here + 1} of {len(found)} · steps {" · ".join(links)}</nav>'
    head, body, rest = text.partition("<body>")
    return f"{head}{body}{bar}{rest}" if body else f"{bar}{text}"
