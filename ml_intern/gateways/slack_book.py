"""What the Slack gateway has to know after it was killed: a file of its own in the home, a row of JSON a line.

What must never happen here: a click that was acknowledged is forgotten; the same click counts in two processes; a row is
half-read as another one.

The file is only appended to, under a lock, and shared by all processes of a home: Slack gives an event to any of those that
are connected. A row is on disk before Slack is told that it has come.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InternError


@dataclass
class Thread:
    """A session's thread. `ts` is `""` until its first message is posted."""

    session: str
    channel: str
    ts: str = ""
    by: str = ""
    loud: bool = False
    model: str = ""
    """What wrote when its newest turn began."""
    plan: str = ""
    """The message that shows the plan."""
    open: bool = False
    """Whether a turn has begun whose end was not reported."""


@dataclass
class Asked:
    """A question as it was put: what its buttons carry (`key`), what they answer, and where they stand."""

    key: str
    session: str
    call: str
    digest: str
    channel: str = ""
    ts: str = ""
    closed: bool = False


@dataclass
class Pages:
    """What stands in the file."""

    threads: dict[str, Thread] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What came in and is not done, by its id."""
    known: set[str] = field(default_factory=set)
    """Ids of everything that came in."""


class Book:
    """The file. From any thread, and any process.

    Args:
        home (`Path`): Where it lies (`slack.jsonl`).

    Raises:
        InternError: it cannot be written.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / "slack.jsonl"
        self.pages = Pages()
        self._lock = threading.RLock()
        self._by_place: dict[tuple[str, str], str] = {}
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InternError(f"Cannot write to {self.path}", error.strerror or str(error)) from None
        self._read = 0
        with self._alone():
            self._mend()

    def close(self) -> None:
        with self._lock:
            os.close(self._handle)
            self._handle = -1  # the number may be another file's soon

    # What comes in.

    def take(self, name: str, row: dict[str, Any]) -> bool:
        """Puts on disk that something has come in. `False` where that has been done, here or in another process."""
        with self._alone():
            if name in self.pages.known:
                return False
            self._put({"row": "in", "id": name, "pid": os.getpid(), "what": row})
            os.fsync(self._handle)
            return True

    def done(self, name: str, how: str = "") -> None:
        """It has been acted on: it is not taken up again."""
        with self._alone():
            self._put({"row": "done", "id": name, "how": how[:200]})

    def undone(self) -> list[tuple[str, dict[str, Any]]]:
        """What was taken in by processes that are gone, oldest first; it is this process's from here on."""
        with self._alone():
            left = [(name, row) for name, row in self.pages.taken.items() if not _alive(row["pid"])]
            for _, row in left:
                self._put({**row, "pid": os.getpid()})
            return [(name, row["what"]) for name, row in left]

    # Threads and questions.

    def thread(self, session: str) -> Thread | None:
        with self._alone():
            return self.pages.threads.get(session)

    def threads(self) -> list[Thread]:
        """All of them, oldest first."""
        with self._alone():
            return list(self.pages.threads.values())

    def session_in(self, channel: str, ts: str) -> str:
        """The session of a thread, `""` where it has none."""
        with self._alone():
            return self._by_place.get((channel, ts), "")

    def note_thread(self, session: str, channel: str, ts: str, by: str = "") -> None:
        with self._alone():
            self._put({"row": "thread", "session": session, "channel": channel, "ts": ts, "by": by})
            os.fsync(self._handle)

    def note(self, session: str, **fields: Any) -> None:
        """What changed about a thread: `loud`, `model`, `plan`, `open`."""
        with self._alone():
            if session in self.pages.threads:
                self._put({"row": "note", "session": session, **fields})

    def asked(self, key: str) -> Asked | None:
        with self._alone():
            return self.pages.asked.get(key)

    def note_asked(self, asked: Asked) -> None:
        with self._alone():
            self._put({"row": "asked", "key": asked.key, "session": asked.session, "call": asked.call,
                "digest": asked.digest, "channel": asked.channel, "ts": asked.ts})  # fmt: skip

    def note_closed(self, key: str) -> None:
        with self._alone():
            if key in self.pages.asked and not self.pages.asked[key].closed:
                self._put({"row": "closed", "key": key})

    def open_questions(self, session: str) -> list[Asked]:
        with self._alone():
            return [asked for asked in self.pages.asked.values() if asked.session == session and not asked.closed]

    # The file.

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """This thread of this process only, with all that stands in the file read."""
        with self._lock:
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            try:
                self._catch_up()
                yield
            finally:
                fcntl.flock(self._handle, fcntl.LOCK_UN)

    def _mend(self) -> None:
        """A row that was cut off by the end of a process or a machine is closed, so that the next one is a row."""
        size = os.fstat(self._handle).st_size
        if size and os.pread(self._handle, 1, size - 1) != b"\n":
            os.write(self._handle, b"\n")
            self._catch_up()

    def _put(self, row: dict[str, Any]) -> None:
        data = json.dumps(row).encode() + b"\n"
        if os.write(self._handle, data) != len(data):  # a full disk; what was asked is not acknowledged
            raise OSError(28, f"{self.path} could not be written")
        self._catch_up()

    def _catch_up(self) -> None:
        size = os.fstat(self._handle).st_size
        if size <= self._read:
            return
        data = os.pread(self._handle, size - self._read, self._read)
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._learn(json.loads(line))

    def _learn(self, row: dict[str, Any]) -> None:
        pages = self.pages
        match row["row"]:
            case "in":
                pages.known.add(row["id"])
                pages.taken[row["id"]] = row
            case "done":
                pages.taken.pop(row["id"], None)
            case "thread":
                pages.threads[row["session"]] = Thread(row["session"], row["channel"], row["ts"], row["by"])
                if row["ts"]:
                    self._by_place[row["channel"], row["ts"]] = row["session"]
            case "note":
                for name in ("loud", "model", "plan", "open"):
                    if name in row:
                        setattr(pages.threads[row["session"]], name, row[name])
            case "asked":
                before = pages.asked.get(row["key"])  # it may have been closed before it was noted where it stands
                fields = {name: row[name] for name in ("key", "session", "call", "digest", "channel", "ts")}
                pages.asked[row["key"]] = Asked(**fields, closed=before is not None and before.closed)
            case "closed":
                pages.asked[row["key"]].closed = True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()  # a number that came round again: that process is gone
