"""What of a session is uploaded: its trace in whole lines, large outputs and sub-agents' traces beside it.

What must never happen here: half a line, or one that is no JSON (it would spoil the whole data set for its readers); a
session that has no answer of the model yet (likewise); a secret that this process knows by now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..secrets import Masker
from .read import read_rows
from .rows import Row, line

LARGEST_FILE = 2_000_000
"""Bytes of a large output that are uploaded: of a longer one its beginning and its end."""
LARGEST_LOT = 50_000_000
"""Bytes of a session's large outputs together."""


@dataclass(frozen=True)
class Bundle:
    """Files for the data set, by their paths there.

    Args:
        path (`str`): The trace's.
        files (`dict[str, bytes]`): All that may have changed: the trace, sub-agents' traces.
        kept (`dict[str, Path]`): Large outputs: they never change, and are uploaded once.
        left_out (`int`): Large outputs beyond the limit.
    """

    path: str
    files: dict[str, bytes]
    kept: dict[str, Path]
    left_out: int = 0


def bundle(trace: Path, masker: Masker) -> Bundle | None:
    """What there is to upload of a session; `None` before the model's first answer.

    Raises:
        OSError: it cannot be read.
    """
    rows, answered, day = _rows(trace.read_bytes(), masker)
    if not answered:
        return None
    path = _path(day, trace)
    beside, folder = path.removesuffix(".jsonl"), trace.with_suffix("")
    files = {path: rows}
    for other in sorted((folder / "subagents").glob("*.json*")):
        content = other.read_bytes()
        whole = _rows(content, masker)[0] if other.suffix == ".jsonl" else masker.text(content.decode()).encode()
        if whole:
            files[f"{beside}/subagents/{other.name}"] = whole
    kept: dict[str, Path] = {}
    size = left_out = 0
    for artifact in sorted((folder / "artifacts").glob("*.txt")):
        size += min(artifact.stat().st_size, LARGEST_FILE)
        if size <= LARGEST_LOT:
            kept[f"{beside}/artifacts/{artifact.name}"] = artifact
        else:
            left_out += 1
    return Bundle(path, files, kept, left_out)


def artifact(path: Path, masker: Masker) -> bytes:
    """A large output as it is uploaded: masked, and capped."""
    text = masker.text(path.read_text(encoding="utf-8", errors="replace"))
    if len(text.encode()) > LARGEST_FILE:
        head, tail = text[: LARGEST_FILE // 5], text[-LARGEST_FILE // 20 :]
        text = f"{head}\n[... {len(text):,} characters in all; the rest was not uploaded ...]\n{tail}"
    return text.encode()


def whole_lines(data: bytes) -> bytes:
    """`data` up to its last line end: a row that is being written stays out."""
    return data[: data.rfind(b"\n") + 1]


def _rows(data: bytes, masker: Masker) -> tuple[bytes, bool, str]:
    """The rows as they are uploaded, whether one is an answer of the model, and the day the first was written.

    The day it began, so that a session that goes on after midnight stays one file.
    """
    kept: list[bytes] = []
    answered, day = False, ""
    for raw in whole_lines(data).split(b"\n"):
        try:
            row = json.loads(raw)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict) or not isinstance(row.get("type"), str):
            continue
        answered = answered or row["type"] == "assistant"
        day = day or _day(row)
        try:
            masked = masker.data(row)
        except RecursionError:  # nested beyond what any reader takes
            continue
        kept.append(raw + b"\n" if masked is row else line(masked))
    return b"".join(kept), answered, day


def path_of(trace: Path) -> str:
    """Where in the data set a trace lies, or will.

    Raises:
        OSError: it cannot be read.
    """
    return _path(next(filter(None, map(_day, read_rows(trace))), ""), trace)


def _path(day: str, trace: Path) -> str:
    return f"sessions/{day or 'undated'}/{trace.name}"


def _day(row: Row) -> str:
    at = row.get("timestamp")
    return "".join(c for c in at[:10] if c.isdigit() or c == "-") if isinstance(at, str) and len(at) >= 10 else ""
