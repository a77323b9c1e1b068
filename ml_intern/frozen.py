"""Copies of what a call sends, out of the reach of the code that made it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .events import FileDigest


class Frozen:
    """Copies of what one call sends, out of the jail's reach, for as long as it is out; `kept` when it stays open.

    Args:
        folder (`Path`, *optional*): Where copies of all calls lie; a temporary folder without it.
        call_id (`str`): Whose these are.
        approved (`bool`, defaults to `False`): Somebody approved what lies there: it is what will be sent, whatever the code
            has done to its files since. Else what lies there is nobody's.
    """

    def __init__(self, folder: Path | None, call_id: str, approved: bool = False) -> None:
        self._folder = None if folder is None else folder / call_id
        self._approved, self.kept = approved, False

    def __enter__(self) -> Frozen:
        if not self._approved:
            self.clear()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.kept:
            self.clear()

    def clear(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def text(self, name: str, make: Callable[[], str]) -> str:
        """A text of the host's that goes along: made once, and then what it was. Ask for it before [`copies`]."""
        kept = self._approved and self._folder is not None and self._folder.is_dir()
        folder = self._made()
        if not kept:
            (folder / name).write_bytes(make().encode(errors="replace"))
        return (folder / name).read_bytes().decode() if (folder / name).exists() else ""

    def copies(self, workspace: Any, paths: list[str]) -> tuple[Any, tuple[FileDigest, ...]]:
        """A workspace over copies of `paths`, and their digests."""
        folder = self._made()
        frozen = folder / "workspace"
        if self._approved and frozen.is_dir():
            kept = type(workspace)(frozen, inside=workspace.inside)
            return kept, tuple(_digest(kept, name) for path in paths for name in _files(kept, path))
        return freeze(workspace, paths, folder)

    def _made(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ml-intern-frozen-"))
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._folder


def freeze(workspace: Any, paths: list[str], folder: Path) -> tuple[Any, tuple[FileDigest, ...]]:
    """A workspace over copies of `paths`, out of the jail's reach, and the digests of what was copied."""
    frozen = folder / "workspace"
    files = [file for path in paths for file in workspace.copy_out(path, frozen / workspace.relative(path))]
    return type(workspace)(frozen, inside=workspace.inside), tuple(files)


def _files(workspace: Any, path: str) -> list[str]:
    return workspace.walk(path) if workspace.is_dir(path) else [workspace.relative(path)]


def _digest(workspace: Any, name: str) -> FileDigest:
    with workspace.open_read(name) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(name, file.tell(), digest)
