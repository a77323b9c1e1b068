"""The local Hub's disk: an append-only journal of JSON lines, and a folder of content named by its SHA-256."""

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

Record = dict[str, Any]
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Journal:
    """Records in the order in which they happened, one JSON line each, written through to the kernel.

    A line that a crash tore off is dropped at the next start. Only one process may have the journal open.

    Args:
        path (`Path`): The file; made if missing.

    Raises:
        RuntimeError: If another process has it open, or a line in the middle is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise RuntimeError(
                f"{path.parent} is in use by another local Hub: close that one, or take another folder."
            ) from error

    def read(self) -> Iterator[Record]:
        """All records; afterwards the file ends with a whole line."""
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                yield json.loads(line)
            except ValueError as error:
                text = f"{self.path} line {number} is damaged ({error}): restore it, or start afresh."
                raise RuntimeError(text) from error
            whole += len(line)
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)

    def append(self, record: Record) -> None:
        """Write one record; once this returns it survives the end of the process (not a power failure)."""
        self._file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    @property
    def closed(self) -> bool:
        """Whether the file was let go of."""
        return self._file.closed

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Incoming:
    """Content that is arriving: hashed as it is written, visible under its name only once complete."""

    def __init__(self, blobs: "Blobs"):
        self._blobs = blobs
        self._file = tempfile.NamedTemporaryFile(dir=blobs.folder, prefix="incoming-", delete=False)  # noqa: SIM115 - see close
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, part: bytes) -> None:
        """Add `part` to the end."""
        self._file.write(part)
        self._hash.update(part)
        self.size += len(part)

    @property
    def sha256(self) -> str:
        """Digest of what has been written, in hex."""
        return self._hash.hexdigest()

    def keep(self) -> None:
        """Put the content under its digest, in one step."""
        self._file.close()
        target = self._blobs.path(self.sha256)
        target.parent.mkdir(exist_ok=True)
        Path(self._file.name).replace(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


class Blobs:
    """Content-addressed files.

    Args:
        folder (`Path`): Where they lie; made if missing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("incoming-*"):
            left_over.unlink()

    def path(self, sha256: str) -> Path:
        """Where content with this digest lies, if it does."""
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether content with this digest is here; what is no digest never is."""
        return bool(_DIGEST.fullmatch(sha256)) and self.path(sha256).is_file()

    def read(self, sha256: str) -> bytes:
        """Content with this digest."""
        return self.path(sha256).read_bytes()

    def put(self, data: bytes) -> str:
        """Keep `data`; returns its SHA-256."""
        digest = hashlib.sha256(data).hexdigest()
        if not self.has(digest):
            with Incoming(self) as incoming:
                incoming.write(data)
                incoming.keep()
        return digest
