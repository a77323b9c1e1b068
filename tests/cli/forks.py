"""Programs of the tests that begin as forks of one process, which has imported what takes its time.

A start is a fork then, instead of a second of imports; everything else is as in a process of its own: its session and terminal,
its environment, its streams, its end. Not for programs that are about how they start, or whose environment is read while they
import (`HF_...`).
"""

from __future__ import annotations

import array
import contextlib
import io
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

IMPORTS = (
    "ml_intern.intern, ml_intern.cli.chat, ml_intern.cli.run, ml_intern.cli.line, ml_intern.testing.models, PIL.Image"
)


class Forked:
    """A program; what of `subprocess.Popen` is used of it.

    Args:
        told (`int`): Where its process id comes from, and its exit code at its end.
    """

    def __init__(self, told: int) -> None:
        self._told, self._text = told, b""
        self.returncode: int | None = None
        while b"\n" not in self._text:
            self._read(60.0)
        self.pid = int(self._text.split(b"\n")[0])

    def _read(self, seconds: float | None) -> None:
        if not select.select([self._told], [], [], seconds)[0]:
            if seconds:
                raise TimeoutError("nothing is heard of the program")
            return
        data = os.read(self._told, 100)
        self._text += data or b"?\n-9\n"  # who watches it was killed

    def poll(self) -> int | None:
        if self.returncode is None:
            if self._text.count(b"\n") < 2:
                self._read(0)
            if self._text.count(b"\n") >= 2:
                self.returncode = int(self._text.split(b"\n")[1])
                os.close(self._told)
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        if self.poll() is None:
            self._read(timeout)
            return self.wait(timeout)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that is forked, made when it is first needed."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def start(
        self, words: Sequence[str], streams: Sequence[int], environment: Mapping[str, str], terminal: bool
    ) -> Forked:
        """Begins `python WORDS`.

        Args:
            words (`Sequence[str]`): A script and what it is given.
            streams (`Sequence[int]`): Its standard input, output and error.
            environment (`Mapping[str, str]`): All of its variables.
            terminal (`bool`): Whether its input is the terminal that controls it.
        """
        if self._socket is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, __file__, str(theirs.fileno())]
            subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True, stdin=subprocess.DEVNULL)
            theirs.close()
        told, tells = os.pipe()
        order = {
            "words": list(words),
            "environment": dict(environment),
            "folder": str(Path.cwd()),
            "terminal": terminal,
        }
        packed = array.array("i", [*streams, tells]).tobytes()
        self._socket.sendmsg([json.dumps(order).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
        os.close(tells)
        return Forked(told)

    def run(self, words: Sequence[str], timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with both outputs captured and no input."""
        pipes = [os.pipe(), os.pipe()]
        nothing = os.open(os.devnull, os.O_RDONLY)
        program = self.start(words, [nothing, pipes[0][1], pipes[1][1]], os.environ, terminal=False)
        for number in (nothing, pipes[0][1], pipes[1][1]):
            os.close(number)
        read = {pipes[0][0]: b"", pipes[1][0]: b""}
        open_ones = set(read)
        while open_ones:
            ready = select.select(list(open_ones), [], [], timeout)[0]
            if not ready:
                program.kill()
                raise subprocess.TimeoutExpired(list(words), timeout)
            for number in ready:
                data = os.read(number, 65_536)
                read[number] += data
                if not data:
                    open_ones.discard(number)
                    os.close(number)
        out, err = (data.decode() for data in read.values())
        return subprocess.CompletedProcess(list(words), program.wait(timeout), out, err)


FORKS = Forks()


# The other end.


def serve(connection: socket.socket) -> list[str] | None:
    """Forks until nobody asks any more. In the fork, what is to be run; `None` at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch
    while True:
        data, handed, _, _ = connection.recvmsg(1_000_000, socket.CMSG_SPACE(4 * 4))
        if not data:
            return None
        numbers = array.array("i")
        for _, _, packed in handed:
            numbers.frombytes(packed)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            *streams, tells = numbers
            if (pid := os.fork()) == 0:
                os.close(tells)
                connection.close()
                return become(json.loads(data), streams)
            watch(pid, streams, tells, connection)
        for number in numbers:
            os.close(number)


def watch(pid: int, streams: Sequence[int], tells: int, connection: socket.socket) -> NoReturn:
    connection.close()
    for number in streams:
        os.close(number)
    with contextlib.suppress(BrokenPipeError):
        os.write(tells, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(tells, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(order: dict, streams: Sequence[int]) -> list[str]:
    """A process as it would have begun by itself."""
    import fcntl
    import termios

    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in {*streams} - {0, 1, 2}:
        os.close(stream)
    if order["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    random.seed()
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), "utf-8", "strict")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w")), "utf-8", "strict", line_buffering=order["terminal"]
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w")), "utf-8", "backslashreplace", line_buffering=True
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    return list(order["words"])


def main() -> int:
    for name in IMPORTS.split(", "):
        __import__(name)
    words = serve(socket.socket(fileno=int(sys.argv[1])))
    if words is None:
        return 0
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
