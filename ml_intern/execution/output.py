"""What running code prints: streamed to a listener, kept up to a length with its head and its tail."""

from __future__ import annotations

import codecs
import os
import threading
from collections import deque
from collections.abc import Callable


class Capture:
    """Reads one worker's output on a thread of its own, between actions too: nothing ever blocks on a full pipe.

    Args:
        pipe (`int`): Read end; closed by the thread at its end.
        limit (`int`): Characters kept of one action.
        listener (`Callable[[str], None]`, *optional*): Gets every piece as it comes, on the reading thread.
    """

    def __init__(self, pipe: int, limit: int, listener: Callable[[str], None] | None) -> None:
        self.limit, self.listener = limit, listener
        self._pipe = pipe
        self._lock = threading.Lock()
        self._mark = b""
        self._marked = threading.Event()
        self._moved = False
        self._text = ""
        self._start()
        self._thread = threading.Thread(target=self._read, name="ml-intern-output", daemon=True)
        self._thread.start()

    def _start(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head: list[str] = []
        self._head_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._dropped = False

    def begin(self, mark: str) -> None:
        """A new action begins. What came since the last one's end, from a thread or a child, begins its output."""
        with self._lock:
            self._mark = b"\0" + mark.encode() + b"\0"
            self._marked.clear()

    def wait(self, seconds: float) -> bool:
        """Until the marker, or the end of the pipe, has come; `False` if nothing came for `seconds`."""
        self._moved = False
        while not self._marked.wait(seconds):
            if not self._moved:
                return False
            self._moved = False
        return True

    def text(self) -> str:
        """The action's output so far, or all of it once it has ended."""
        with self._lock:
            if self._marked.is_set():
                return self._text
            return self._joined()

    def _joined(self) -> str:
        head, tail = "".join(self._head), "".join(self._tail)
        if not self._dropped and len(head) + len(tail) <= self.limit:
            return head + tail
        note = f"\n..._This content has been truncated to stay below {self.limit} characters_...\n"
        keep = self.limit - self.limit // 2
        return head + note + (tail[-keep:] if keep else "")

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _read(self) -> None:
        pending = b""
        while True:
            try:
                data = os.read(self._pipe, 1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            self._moved = True
            data = pending + data
            mark = self._mark
            if mark and (at := data.find(mark)) >= 0:
                self._add(data[:at])
                with self._lock:
                    self._text, self._mark = self._joined(), b""
                    self._start()
                    self._marked.set()
                data, mark = data[at + len(mark) :], b""
            # the marker may lie across two reads: hold back what could be its beginning
            held = next((n for n in range(min(len(mark), len(data)), 0, -1) if data.endswith(mark[:n])), 0)
            pending = data[len(data) - held :]
            self._add(data[: len(data) - held])
        self._add(pending)
        with self._lock:
            self._text = self._joined()
            self._marked.set()
        os.close(self._pipe)

    def _add(self, data: bytes) -> None:
        if not data:
            return
        with self._lock:
            text = self._decoder.decode(data)
            room = self.limit // 2 - self._head_size
            if room > 0:
                self._head.append(text[:room])
                self._head_size += len(self._head[-1])
            rest = text[room:] if room > 0 else text
            if rest:
                self._tail.append(rest)
                self._tail_size += len(rest)
                while self._tail_size - len(self._tail[0]) >= self.limit - self.limit // 2:
                    self._tail_size -= len(self._tail.popleft())
                    self._dropped = True
        if self.listener and text:
            try:
                self.listener(text)
            except Exception:  # noqa: BLE001 - a broken listener must not stop the code; it is told nothing more
                self.listener = None
