"""The artifact store: long texts as files named by their digest, in the session's folder."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import JournalFailed
from ..plain import clean

SCHEME = "artifact:"
DIGITS = 16
"""Of the digest, in a handle: enough for a session, short enough for a prompt."""


class ArtifactStore:
    """Keeps texts; the same text is kept once.

    Args:
        folder (`Path`, *optional*): Beside the session's trace. Without one it is a temporary folder, made at the first
            text and gone with this object.
        mask (`Callable[[str], str]`, *optional*): Masks secrets before a text reaches the disk.

    Attributes:
        durable (`bool`): Whether what is kept outlives this object.
    """

    def __init__(self, folder: Path | None = None, mask: Callable[[str], str] | None = None) -> None:
        self.durable = folder is not None
        self._folder, self._mask = folder, mask
        self._known: dict[str, str] = {}  # handle to digest
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        with self._lock:
            if self._folder is None:
                temporary = tempfile.TemporaryDirectory(prefix="ml-intern-artifacts-")
                weakref.finalize(self, temporary.cleanup)
                self._folder = Path(temporary.name)
            return self._folder

    def put(self, text: str) -> str:
        """Keeps `text` and returns its handle, `artifact:` and the beginning of its SHA-256.

        Raises:
            JournalFailed: the disk is full or gone.
        """
        text = clean(text)
        data = (self._mask(text) if self._mask else text).encode()
        digest = hashlib.sha256(data).hexdigest()
        handle = SCHEME + digest[:DIGITS]
        if handle not in self._known:
            self._write(digest, data)
            self._known[handle] = digest
        return handle

    def get(self, handle: str) -> str:
        """The text of a handle.

        Raises:
            KeyError: there is none.
        """
        digest = self._known.get(handle) or handle.removeprefix(SCHEME)
        found = self._find(digest) if digest.isalnum() and len(digest) >= 8 else None
        if found is None:
            raise KeyError(handle)
        return found.read_text(encoding="utf-8")

    def all(self) -> Iterator[tuple[str, str]]:
        """All handles with their texts, oldest first."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("*.txt"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
            yield SCHEME + path.stem[:DIGITS], path.read_text(encoding="utf-8")

    def _find(self, digest: str) -> Path | None:
        if self._folder is None:
            return None
        if len(digest) == 64 and (whole := self._folder / f"{digest}.txt").exists():
            return whole
        return next(iter(sorted(self._folder.glob(f"{digest}*.txt"))), None)

    def _write(self, digest: str, data: bytes) -> None:
        target = self.folder / f"{digest}.txt"
        try:
            if target.exists():
                return
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = target.with_suffix(f".{threading.get_ident()}.part")
            draft.write_bytes(data)
            draft.replace(target)
        except OSError as error:
            raise JournalFailed(
                f"Cannot write {target}", error.strerror or str(error), "Free space, then run it again."
            ) from None
