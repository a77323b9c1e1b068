"""Keeps a server of somebody else's: run as a program, it starts the server and sees that nothing of it is left.

    python -I -S keeper.py PARENT COMMAND [ARGUMENT...]

The server gets standard input as it is. What it says is passed on line by line; in place of a line that is longer than who
reads it can take there is an error under the same id. What it writes on standard error is passed on up to a bound, and then
read and dropped: it cannot fill a disk. When the server ends, when this is told to end,
or when the process `PARENT` is gone, however it went, the server's children go too, those that made themselves independent
included. Linux only, standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

KEPT = 1_000_000
"""Bytes of standard error that are passed on."""
LONGEST_LINE = 16 << 20
"""Bytes of one message. (The official client takes a line in by pieces, which takes it a minute for 50 MB.)"""
HEAD = 4096
"""Bytes of a message that its id is looked for in."""
_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.){0,100}"|-?\d{1,20})')
GRACE_SECONDS = 1.0
"""Between asking what is left to end and ending it."""
_PARENT_DEATH, _SUBREAPER = 1, 36


def main(words: list[str]) -> int:
    parent, command = int(words[0]), words[1:]
    control = ctypes.CDLL(None).prctl
    control(_PARENT_DEATH, signal.SIGTERM, 0, 0, 0)
    control(_SUBREAPER, 1, 0, 0, 0)
    waking, woken = os.pipe()
    os.set_blocking(waking, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if os.getppid() != parent:
        return 1
    (said, saying), (told, telling) = os.pipe(), os.pipe()
    try:
        child = subprocess.Popen(command, stdout=telling, stderr=saying)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        return 127
    for number in (0, saying, telling):
        os.close(number)
    try:
        _watch(child, waking, said, told)
    except BrokenPipeError:
        pass  # nobody listens any more
    finally:
        end_children()
    return child.returncode or 0


def _watch(child: subprocess.Popen[bytes], waking: int, said: int, told: int) -> None:
    """Passes on what it says, until it has ended or this is to end."""
    lines, left, open_ones, ended = Lines(), KEPT, [waking, said, told], False
    while True:
        ready = select.select(open_ones, [], [], 0 if ended else None)[0]
        if ended and not ready:
            return
        for one in ready:
            data = os.read(one, 1 << 20)
            if one == waking:
                if signal.SIGTERM in data or signal.SIGINT in data:
                    return
                ended = ended or child.poll() is not None
            elif not data:
                open_ones.remove(one)
                if one == told:  # it has nothing more to say
                    os.close(1)
            elif one == told:
                _write(lines.take(data))
            else:
                with contextlib.suppress(OSError):
                    os.write(2, data[: max(left, 0)])
                left -= len(data)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


class Lines:
    """Whole lines out of pieces; one that is too long is dropped as it comes, and answered for."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self.longest = longest
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> bytes:
        """What can be passed on now."""
        *whole, rest = data.split(b"\n")
        found = []
        for piece in whole:
            self._add(piece)
            found.append(self._line())
        self._add(rest)
        return b"".join(found)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._parts.append(piece)
        if self._size > self.longest:
            self._parts = [b"".join(self._parts)[:HEAD]]  # the id stands there

    def _line(self) -> bytes:
        line, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        return line + b"\n" if size <= self.longest else too_long(line, size, self.longest)


def too_long(head: bytes, size: int, longest: int) -> bytes:
    """A line that is passed on in place of an answer that begins like this; empty where no id stands there."""
    found = _ID.search(head[:HEAD])
    if found is None:
        return b""
    error = {"code": -32603, "message": f"the answer has {size:,} bytes, and {longest:,} are the most that is taken"}
    return b'{"jsonrpc":"2.0","id":' + found[1] + b',"error":' + json.dumps(error).encode() + b"}\n"


def end_children() -> None:
    """Ends everything below this process: politely, then not."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        until = time.monotonic() + seconds
        told: set[int] = set()
        while time.monotonic() < until:
            while _reaped():
                pass
            below = _below(os.getpid())
            if not below:
                return
            for pid in below:
                if pid not in told or number == signal.SIGKILL:
                    told.add(pid)
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
            time.sleep(0.02)


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _below(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, above = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(folder.name)] = int(above)
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        children = [child for child, above in parents.items() if above == one]
        found += children
        todo += children
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
