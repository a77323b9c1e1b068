"""A small file that several threads and processes change: one at a time, whole or not at all, its owner's alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

_LOCK = threading.Lock()


@contextlib.contextmanager
def alone(path: Path) -> Generator[None]:
    """Nobody else changes the file meanwhile: threads of this process by a lock, others by a lock on a file beside it.

    Raises:
        OSError: there is no place for it.
    """
    with _LOCK:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def put(path: Path, text: str) -> None:
    """Puts `text` in the place of what the file holds. Raises `OSError`: it is what it was."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)  # readable by its owner only
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
