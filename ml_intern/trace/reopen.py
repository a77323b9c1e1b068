"""Going on with a trace that exists: its torn end mended, its last row and its title found without reading it through.

What must never happen here: a byte of the record is lost (what is cut off a torn end goes to a file of its own); the time
to open a trace grows with what its rows say.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .read import as_row

BLOCK = 1 << 16
TITLES = (b'{"type":"ai-title"', b'{"type":"custom-title"')
"""How a title's row begins in this project's own traces."""


def mend(file: int, path: Path) -> str:
    """Ends a trace with a whole row, where its last line was cut off.

    Args:
        file (`int`): The trace, open for writing; no other process may hold it.
        path (`Path`): Its place; cut bytes go to `<id>/torn-<n>.bin` beside it.

    Returns:
        `str`: What was done, for people; `""` where nothing had to be.
    """
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return ""
    start = _line_start(file, size)
    torn = os.pread(file, size - start, start)
    if as_row(torn) is not None:  # all but the line's end
        os.pwrite(file, b"\n", size)
        return ""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = next(p for n in range(1, 1 << 20) if not (p := folder / f"torn-{n}.bin").exists())
    kept.write_bytes(torn)
    os.ftruncate(file, start)
    os.fdatasync(file)
    return f"The last row was cut off and could not be read: its {len(torn):,} bytes are in {kept}."


def last_row(file: int, sidechain: bool = False) -> dict[str, Any] | None:
    """The last whole row of the conversation (of a sub-agent's, with `sidechain`), from the end. `None`: there is none."""
    end = os.fstat(file).st_size
    while end > 0:
        start = _line_start(file, end - 1) if end > 1 else 0
        row = as_row(os.pread(file, end - start, start))
        if row is not None and isinstance(row.get("uuid"), str) and (row.get("isSidechain") is True) is sidechain:
            return row
        end = start
    return None


def is_titled(file: int) -> bool:
    """Whether a title is on record."""
    place, before = 0, b"\n"
    while block := os.pread(file, 1 << 22, place):
        text = before + block
        if any(b"\n" + title in text for title in TITLES):
            return True
        place, before = place + len(block), text[-64:]
    return False


def _line_start(file: int, end: int) -> int:
    """Where the line that ends before `end` begins."""
    while end > 0:
        start = max(0, end - BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
