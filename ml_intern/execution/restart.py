"""What comes back after a worker is lost, as it is told to the model."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_intern.execution.snapshot import MANIFEST
from ml_intern.execution.values import from_line

RESTARTED = "The Python process was restarted: variables are gone, files in the workspace are still there."
MANIFEST_BYTES = 4 << 20
NAMED = 30


@dataclass(frozen=True)
class Saved:
    """What a snapshot holds, or what was restored from it. It comes out of the jail: names and reasons are only text.

    Args:
        action (`int`): The action at whose end it was taken.
        names (`tuple[str, ...]`): What is back, or comes back.
        lost (`dict[str, str]`): What is not, and why.
    """

    action: int
    names: tuple[str, ...] = ()
    lost: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any, key: str) -> Saved | None:
        """Out of a message or a manifest; `None` for what is neither."""
        if not isinstance(data, dict) or type(data.get("action")) is not int:
            return None
        if not 0 <= data["action"] < 1 << 40:
            return None
        names, lost = data.get(key), data.get("lost")
        if not isinstance(names, list) or not isinstance(lost, dict):
            return None
        lost = {str(name)[:100]: str(why)[:200] for name, why in lost.items()}
        return cls(data["action"], tuple(str(name)[:100] for name in names if name not in lost), lost)

    def but(self) -> str:
        lost = [f"{name} ({why})" for name, why in self.lost.items()]
        if len(lost) > NAMED:
            lost[NAMED:] = [f"{len(lost) - NAMED} more"]
        return f", except: {', '.join(lost)}" if lost else ""

    def when(self, last: int) -> str:
        """How old it is. `last` is the last action that came to its end."""
        if last <= self.action:
            return "as the last completed action left them"
        return "as an earlier action left them (what was set since is gone)"


def read_saved(folder: Path | None) -> Saved | None:
    """What the snapshot in a folder holds. The folder is the jail's: nothing in it is followed, run or waited for."""
    if folder is None:
        return None
    try:
        handle = os.open(folder / MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    with open(handle, "rb") as file:  # noqa: PTH123 - an open descriptor
        data = file.read(MANIFEST_BYTES + 1)
    try:
        return Saved.of(from_line(data), "names") if len(data) <= MANIFEST_BYTES else None
    except (ValueError, MemoryError):
        return None


def forget_saved(folder: Path) -> None:
    """After a snapshot could not be restored: the next worker does without."""
    with suppress(OSError):
        (folder / MANIFEST).unlink()


def restarted(saved: Saved | None, last: int) -> str:
    """For the observation of the action that lost the process."""
    if saved is None or not (saved.names or saved.lost):
        return RESTARTED
    if not saved.names:
        lost = f"variables are gone{saved.but().replace(', except', '')}"
        return f"The Python process was restarted: {lost}. Files in the workspace are still there."
    return (
        f"The Python process was restarted: variables come back {saved.when(last)}{saved.but()}. "
        "Files in the workspace are still there."
    )


def restored(report: Saved, last: int) -> str:
    """For the observation of the first action after it."""
    if not report.names:
        return f"Variables are gone{report.but().replace(', except', '')}."
    return f"Variables are back {report.when(last)}{report.but()}."
