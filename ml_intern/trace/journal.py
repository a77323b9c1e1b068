"""The journal: a session's record, written ahead.

What must never happen here: something takes effect that is not on record; a line is half written and others follow it;
a secret that this process knows reaches the disk; the cost of a row grows with the journal's length.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InternError, JournalFailed
from ..plain import clean, plain
from ..secrets import Masker
from . import reopen, rows
from .rows import Row

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_TEXT = 200_000
"""Longer texts (in characters) go to a file of their own, named by its digest; the row keeps their head and tail."""

CLOSED = -1
HOLDER = "holder"
"""File in a session's folder: the process that holds its trace."""


class Journal:
    """Appends rows to one trace. Safe to use from several threads; one process at a time may hold a journal.

    Each row goes to the kernel as one write, whole, and survives the end of this process. [`sync`] waits until the disk
    has it, and is called before every side effect and at the end of every step. A trace that exists is gone on with: what
    is appended follows its last whole row.

    Args:
        path (`Path`): `.../<session id>.jsonl`; a folder of the same name without suffix lies beside it.
        cwd (`str`): Where the session's code runs, written into each row.
        masker (`Masker`, *optional*): Defaults to one that knows this process's secrets.
        session_id (`str`, *optional*): Written into each row. Defaults to the file's name.

    Attributes:
        last (`str`, *optional*): The `uuid` of the row that the next one follows.
        titled (`bool`): Whether a title is on record.
        repaired (`str`): What was mended when a trace was opened again, for people; `""` where nothing was.

    Raises:
        InternError: another process holds it.
        JournalFailed: the file cannot be made or (later) the disk is full or gone.
    """

    sidechain = False
    """Whether its rows are a sub-agent's."""

    def __init__(
        self, path: Path, cwd: str = "/workspace", masker: Masker | None = None, session_id: str = ""
    ) -> None:
        self.path, self.cwd, self.session_id = path, cwd, session_id or path.stem
        self.artifacts = path.with_suffix("") / "artifacts"
        self.masker = masker or Masker()
        self._lock = threading.RLock()
        self._held: list[bytes] | None = None
        self.titled = False
        self._parent: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            hold(self._file, path)
            self._size = self._synced = os.fstat(self._file).st_size
            self.repaired = self._go_on() if self._size else ""
        except OSError as error:
            raise JournalFailed(
                f"Cannot write {path}", error.strerror or str(error), "Free space or choose another --home."
            ) from None
        if self.repaired:
            self.note("repaired", what=self.repaired)

    def _go_on(self) -> str:
        """Takes up the trace that is there; says what had to be mended."""
        repaired = reopen.mend(self._file, self.path)
        last = reopen.last_row(self._file, self.sidechain)
        self._parent = last["uuid"] if last is not None else None
        self.titled = reopen.is_titled(self._file)
        self._size = self._synced = os.fstat(self._file).st_size
        return repaired

    @property
    def last(self) -> str | None:
        return self._parent

    def branch_from(self, uuid: str | None) -> None:
        """The next row follows that one (`None`: it begins the conversation anew) instead of the last.

        The rows in between stay on record; [`restore`] and the format's readers pass over them from then on.
        """
        with self._lock:
            self._parent = uuid

    @contextlib.contextmanager
    def together(self) -> Generator[None]:
        """Rows written meanwhile go to the kernel in one write: a process that is killed leaves all of them or none."""
        with self._lock:
            if self._held is not None:
                yield
                return
            self._held, before = [], self._parent
            try:
                yield
            finally:
                held, self._held = self._held, None
                try:
                    self._write(b"".join(held))
                except JournalFailed:
                    self._parent = before
                    raise

    def append(self, row: Row, begins: bool = False) -> str:
        """Writes one row of the conversation, which follows the one before it.

        Args:
            row (`Row`): Without the envelope, which is added; masked before it is written.
            begins (`bool`, defaults to `False`): The row has no parent, and names the one before it as its logical one.

        Returns:
            `str`: The row's `uuid`.
        """
        masked = self.masker.data(row)
        with self._lock:
            identifier = rows.new_id()
            envelope: Row = {
                "parentUuid": None if begins else self._parent,
                **({"logicalParentUuid": self._parent} if begins else {}),
                "isSidechain": False,
                "userType": "external",
                "cwd": self.cwd,
                "sessionId": self.session_id,
                "version": rows.VERSION,
                **masked,
                "uuid": identifier,
                "timestamp": rows.now(),
            }
            self._write(rows.line(envelope))
            self._parent = identifier
        return identifier

    def note(self, kind: str, **fields: Any) -> str:
        """Writes a row of this project's own, as the format's `progress` row: in the chain, passed over in display."""
        return self.append({"type": "progress", "data": {"type": "ml_intern", "kind": kind, **plain(fields)}})

    def title(self, title: str) -> None:
        row = {"type": "ai-title", "aiTitle": clean(self.masker.text(title)), "sessionId": self.session_id}
        with self._lock:
            self._write(rows.line(row))
        self.titled = True

    def user(self, content: str | list[Row], **extra: Any) -> str:
        return self.append({"type": "user", "message": rows.user_message(content), **plain(extra)})

    def answer(self, content: list[Row], model: str, usage: Row, stop: str = "end_turn", **extra: Any) -> str:
        """An answer of the model."""
        message = rows.assistant_message(content, model, stop, usage)
        return self.append({"type": "assistant", "message": message, **plain(extra)})

    def compacted(self, text: str, metadata: dict[str, Any]) -> str:
        """The boundary that readers know, and the text that stands in place of what was before it."""
        metadata = plain(metadata)
        said = {"content": "Conversation compacted", "level": "info", "isMeta": False, "compactMetadata": metadata}
        with self.together():
            self.append({"type": "system", "subtype": "compact_boundary", **said}, begins=True)
            return self.summary(text)

    def summary(self, text: str) -> str:
        """What stands in place of what was before a compaction."""
        message = rows.user_message(text)
        return self.append(
            {"type": "user", "isCompactSummary": True, "isVisibleInTranscriptOnly": True, "message": message}
        )

    def call(self, call_id: str, tool: str, arguments: dict[str, Any], model: str, **extra: Any) -> str:
        """A call that is about to be made by the code of a step."""
        message = rows.assistant_message([rows.call_block(call_id, tool, arguments)], model, "tool_use")
        return self.append({"type": "assistant", "message": message, **plain(extra)})

    def result(self, call_id: str, text: str, images: Iterable[Image] = (), error: bool = False, **extra: Any) -> str:
        """The result of a step's code or of a call."""
        shown, artifact = self._offload(text)
        block = rows.result_block(call_id, shown, images, error)
        kept = {"artifact": artifact} if artifact else {}
        return self.append({"type": "user", "message": rows.user_message([block]), **kept, **plain(extra)})

    def sync(self) -> None:
        """Returns when all rows written so far are on the disk."""
        size = self._size
        if size == self._synced:
            return
        self._refuse_closed()
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise self._failed(error) from None
        self._synced = max(self._synced, size)

    @property
    def closed(self) -> bool:
        return self._file == CLOSED

    def close(self) -> None:
        with self._lock:  # the file's number may be another one's soon: nothing is written to it any more
            file, self._file = self._file, CLOSED
        if file == CLOSED:
            return
        with contextlib.suppress(OSError):
            os.fdatasync(file)
        with contextlib.suppress(OSError):
            os.close(file)

    def _write(self, line: bytes) -> None:
        if self._held is not None:
            self._held.append(line)
            return
        self._refuse_closed()
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            # A torn line would spoil the rows after it: the file ends with the last whole one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise self._failed(error) from None
        self._size += len(line)

    def _refuse_closed(self) -> None:
        if self._file == CLOSED:
            raise JournalFailed(f"The journal {self.path} is closed", "its session has ended or sleeps")

    def _failed(self, error: OSError) -> JournalFailed:
        return JournalFailed(
            f"Cannot write the journal {self.path}",
            error.strerror or str(error),
            "Free space, then run it again; all up to here is on record.",
        )

    def _offload(self, text: str) -> tuple[str, str]:
        """What the row is to say, and the name of the file that has all of it (`""`: the row has)."""
        if len(text) <= LARGEST_TEXT:
            return text, ""
        text = self.masker.text(clean(text))  # before it is cut: half a secret is none that could be found
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        target = self.artifacts / f"{digest}.txt"
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not target.exists():
                draft = target.with_suffix(f".{threading.get_ident()}.part")
                draft.write_bytes(data)
                draft.replace(target)
        except OSError as error:
            raise self._failed(error) from None
        head, tail = text[: LARGEST_TEXT // 2], text[-LARGEST_TEXT // 10 :]
        said = f"{head}\n[... {len(text)} characters in all, whole in artifacts/{target.name} ...]\n{tail}"
        return said, target.name


def hold(file: int, path: Path) -> None:
    """Locks a trace for this process until the file is closed, and writes down who holds it.

    Raises:
        InternError: another process does.
    """
    note = path.with_suffix("") / HOLDER
    for patience in (0.02, 0.05, 0.1, 0.0):  # who lists sessions looks at the lock for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(patience)
    else:
        os.close(file)
        raise held_elsewhere(path)
    note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    note.write_text(f"{os.getpid()}\n", encoding="ascii")


def held_elsewhere(path: Path) -> InternError:
    """What is said to who wants a trace that another process holds."""
    holder = read_holder(path)
    return InternError(
        f"Session {path.stem} is open in another process",
        f"process {holder}" + (", this one" if holder == os.getpid() else "") if holder else "",
        "Close it there first.",
    )


def is_held(path: Path) -> bool:
    """Whether a process holds a trace."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def read_holder(path: Path) -> int | None:
    """The process that holds a trace, or held it last, as it wrote down itself."""
    try:
        return int((path.with_suffix("") / HOLDER).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
