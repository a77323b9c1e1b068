"""One worker process as the host sees it: its pipes, its tree's memory, its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_intern.execution.disk import LOOK_SECONDS, SHARE, Disk
from ml_intern.execution.egress import Egress, offline
from ml_intern.execution.gpus import Gpus
from ml_intern.execution.jail import Jail, Limits
from ml_intern.execution.output import Capture
from ml_intern.execution.values import LINE_LIMIT, PARTS_LIMIT, from_line, to_line

STALLED_SECONDS = 60.0
PIPE_BYTES = 1 << 20


class Breach(Exception):
    """The worker broke the rules of the wire. It is killed: what it says cannot be trusted any more."""


class WorkerProcess:
    """Starts a worker in a jail and speaks JSON lines with it.

    Args:
        jail (`Jail`): Where it runs.
        root (`Path`): Its workspace on the host.
        limits (`Limits`): Memory, processes, file size, disk.
        output_limit (`int`): Characters of output kept an action.
        on_output (`Callable[[str], None]`, *optional*): Gets output as it comes.
        snapshots (`Path`, *optional*): Where it saves variables, on the host.
        egress (`Egress`, *optional*): Its way to the network, where the jail can have one.
        packages (`Path`, *optional*): What was installed for it, on the host.
        gpus (`Gpus`, *optional*): GPUs that it may use.
        kept (`Sequence[Path]`): What of its workspace it cannot change.
    """

    def __init__(
        self,
        jail: Jail,
        root: Path,
        limits: Limits,
        output_limit: int,
        on_output: Callable[[str], None] | None,
        snapshots: Path | None = None,
        egress: Egress | None = None,
        packages: Path | None = None,
        gpus: Gpus | None = None,
        kept: Sequence[Path] = (),
    ) -> None:
        self.memory_bytes, self.processes = limits.memory_bytes, limits.processes
        self.why_killed = ""
        self.scratch = None if jail.kind == "bubblewrap" else Path(tempfile.mkdtemp(prefix="ml-intern-tmp-"))
        folders = [folder for folder in (root, snapshots, self.scratch) if folder]
        self.disk = Disk(folders, limits.disk_bytes, limits.reserve_bytes) if jail.on_this_disk else None
        ours, theirs = [], []
        for reads in (False, True, True):
            reader, writer = os.pipe()
            with contextlib.suppress(OSError, AttributeError):  # a user may have only so much; Linux only
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            ours.append(reader if reads else writer)
            theirs.append(writer if reads else reader)
        self.requests, self.replies, output = ours
        self.egress = egress if jail.network else None
        self.door, their_door = socket.socketpair() if self.egress else (None, None)
        number, variables = None, offline(jail.kind == "none")
        if their_door and self.egress:
            number = their_door.fileno()
            variables = {**self.egress.variables(), "HF_HOME": f"{jail.inside(root)}/.cache/huggingface"}
        try:
            self.process: subprocess.Popen[bytes] = jail.start(
                root, self.scratch, limits, snapshots, variables, number, packages, gpus, kept,
                stdin=theirs[0], stdout=theirs[1], stderr=theirs[2],
            )  # fmt: skip
        except BaseException:
            if self.disk is not None:
                self.disk.close()
            for pipe in ours:
                os.close(pipe)
            if self.door:
                self.door.close()
            if self.scratch:
                shutil.rmtree(self.scratch, ignore_errors=True)
            raise
        finally:
            for pipe in theirs:
                os.close(pipe)
            if their_door:
                their_door.close()
        os.set_blocking(self.requests, False)
        os.set_blocking(self.replies, False)
        self._release_on_collection()
        self.capture = Capture(output, output_limit, on_output)
        self.alive = True
        self._buffer = bytearray()
        self._searched = 0
        self._sending = threading.Lock()
        _watched.add(self)
        _watch()

    def open_door(self) -> None:
        """After its greeting: takes the listener that it made before any code ran. Raises `Breach` if there is none."""
        if self.egress and self.door:
            try:
                self.egress.take(self.door)
            except OSError as error:
                raise Breach(f"it opened no door to the network ({error})") from None
            finally:
                self.door.close()

    def send(self, message: dict[str, Any]) -> None:
        """Raises `BrokenPipeError` if the worker is gone, `Breach` if it stops reading, `ValueError` if too long."""
        line = to_line(message)
        if len(line) > LINE_LIMIT:
            raise ValueError(f"more than {LINE_LIMIT >> 20} MB cannot cross: use a file in the workspace")
        view = memoryview(line)
        with self._sending:
            moved = time.monotonic()
            while view:
                if not self.alive:
                    raise BrokenPipeError
                try:
                    view = view[os.write(self.requests, view) :]
                    moved = time.monotonic()
                except BlockingIOError:
                    poll = select.poll()
                    poll.register(self.requests, select.POLLOUT)
                    poll.poll(200)
                    if time.monotonic() - moved > STALLED_SECONDS:
                        raise Breach("it did not read what was sent to it") from None

    def receive(self) -> Iterator[dict[str, Any]]:
        """The messages that are there. Raises `EOFError` at the end, `Breach` for all but a bounded JSON object."""
        try:
            data = os.read(self.replies, PIPE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        self._buffer += data
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            if too_many_parts(line):
                raise Breach(f"it sent a line of more than {PARTS_LIMIT:,} parts")
            try:
                message = from_line(line)
            except (ValueError, MemoryError) as error:
                raise Breach("it sent a line that is no JSON") from error
            if type(message) is not dict or type(message.get("op")) is not str:
                raise Breach("it sent a line that is no message")
            yield message
        self._searched = len(self._buffer)
        if len(self._buffer) > LINE_LIMIT:
            raise Breach(f"it sent a line of more than {LINE_LIMIT >> 20} MB")

    def wait(self, seconds: float) -> bool:
        """Whether the process ends by itself within `seconds`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None

    def kill(self, why: str = "") -> int:
        """Ends the worker and all that it started; gives its exit status (negative: a signal). From any thread."""
        self.alive = False
        _watched.discard(self)
        self.why_killed = self.why_killed or why
        if self.process.poll() is None and self.scratch:
            self.process.terminate()  # the supervisor takes its descendants with it
            self.wait(3.0)
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait()
        self.capture.join(2.0)
        return code

    def close(self) -> None:
        """After `kill`, once nobody reads from it any more: lets go of the pipes."""
        if self.disk is not None:
            self.disk.close()
        with self._sending:
            self._release()

    def _release_on_collection(self) -> None:
        pipes, scratch, door = (self.requests, self.replies), self.scratch, self.door

        def release() -> None:
            for pipe in pipes:
                os.close(pipe)
            if door:
                door.close()
            if scratch:
                shutil.rmtree(scratch, ignore_errors=True)

        self._release = weakref.finalize(self, release)


def too_many_parts(line: bytes) -> bool:
    """Whether parsing it would take many times its length in memory; brackets in strings do not count."""
    if line.count(b"[") + line.count(b"{") <= PARTS_LIMIT:
        return False
    bare = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line)
    return bare.count(b"[") + bare.count(b"{") > PARTS_LIMIT


_watched: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()
_watcher: threading.Thread | None = None
_page = os.sysconf("SC_PAGE_SIZE")


def _watch() -> None:
    global _watcher
    if _watcher is None or not _watcher.is_alive():
        _watcher = threading.Thread(target=_watch_forever, name="ml-intern-watchdog", daemon=True)
        _watcher.start()


def _watch_forever() -> None:
    """Each process and each file is limited by the kernel; what all use together is only known by looking."""
    while True:
        time.sleep(LOOK_SECONDS)
        worker = None  # else the last one would never be collected
        share = SHARE / max(1, len(_watched))
        for worker in list(_watched):
            pids = list(tree(worker.process.pid))
            if sum(resident(pid) for pid in pids) > worker.memory_bytes and shared(pids) > worker.memory_bytes:
                worker.kill(f"memory: it and its processes used more than {worker.memory_bytes >> 20} MB")
            elif len(pids) > worker.processes + 8:
                worker.kill(f"processes: more than {worker.processes} were running")
            elif worker.disk is not None and (why := worker.disk.look(pids, share)):
                worker.kill(f"disk: {why}")


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    todo = [pid]
    while todo:
        pid = todo.pop()
        yield pid
        with contextlib.suppress(OSError):  # it may end while it is looked at
            for task in os.scandir(f"/proc/{pid}/task"):
                todo += [int(child) for child in Path(task.path, "children").read_text().split()]


def resident(pid: int) -> int:
    try:
        return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * _page
    except (OSError, IndexError):
        return 0


def shared(pids: list[int]) -> int:
    """Proportional memory: pages that forks share count once. Slow, so looked at only where `resident` is high."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total
