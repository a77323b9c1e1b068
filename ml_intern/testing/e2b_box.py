"""One sandbox of the local E2B cloud: its files, its processes, its clock."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_intern.execution import landlock, seccomp
from ml_intern.execution.jail import ETC, Jail, interpreter_paths

HOME = "/home/user"
PROFILE = ("profile", "profile.d", "bash.bashrc")  # which `bash -l` reads
CHUNK = 32 * 1024
QUEUED_CHUNKS = 64


@dataclass
class Event:
    """What a process did: wrote to `stdout` or `stderr`, or came to its `end`."""

    kind: str
    data: bytes = b""


@dataclass(eq=False)
class BoxProcess:
    """A process in a box. Output that nobody listens to is lost, as in the real one."""

    process: asyncio.subprocess.Process
    command: list[str]
    environment: dict[str, str]
    folder: str
    forget: Callable[[BoxProcess], object]
    listeners: list[asyncio.Queue[Event | None]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def watch(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        readers = [self._read("stdout", self.process.stdout), self._read("stderr", self.process.stderr)]
        self.tasks = [asyncio.create_task(reader) for reader in readers]
        self.tasks.append(asyncio.create_task(self._wait(self.tasks[:2])))

    async def _read(self, kind: str, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(CHUNK):
            for listener in list(self.listeners):
                await listener.put(Event(kind, data))

    async def _wait(self, readers: list[asyncio.Task[None]]) -> None:
        await self.process.wait()
        await asyncio.wait(readers, timeout=2)  # a child that lives on may hold the pipe
        self.ended.set()
        self.forget(self)
        for listener in list(self.listeners):
            await listener.put(Event("end"))

    @contextlib.contextmanager
    def listen(self) -> Generator[asyncio.Queue[Event | None]]:
        """What it does from now on, up to its end; `None` when the box is cut off."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUED_CHUNKS)
        if self.ended.is_set():
            queue.put_nowait(Event("end"))
        self.listeners.append(queue)
        try:
            yield queue
        finally:
            self.listeners.remove(queue)
            while not queue.empty():  # so that whoever waits to put something is let go
                queue.get_nowait()

    def cut_off(self) -> None:
        for listener in self.listeners:
            if listener.full():
                listener.get_nowait()
            listener.put_nowait(None)

    def signal(self, number: int) -> None:
        """To it and everything below it."""
        for pid in reversed(list(tree(self.pid))) if number != signal.SIGSTOP else tree(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def tree(pid: int) -> Iterator[int]:
    yield pid
    yield from landlock.descendants(pid)


@dataclass(eq=False)
class Box:
    """A sandbox.

    Args:
        identity (`str`): Its id.
        root (`Path`): The folder on this machine that holds its home and its `/tmp`.
        jail (`Jail`): What its processes are locked in.
        template, metadata, environment, internet, pauses: As they were asked for when it was created.
    """

    identity: str
    root: Path
    jail: Jail
    template: str
    metadata: dict[str, str]
    environment: dict[str, str]
    internet: bool
    pauses: bool
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    state: str = "running"
    started: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    ends: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    processes: dict[int, BoxProcess] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    kernels: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("home", "tmp"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def home(self) -> str:
        """As processes in the box see it."""
        return HOME if self.jail.kind == "bubblewrap" else str(self.root / "home")

    def host_path(self, path: str) -> Path:
        """A path of the box as it lies on this machine; what is neither home nor `/tmp` cannot be reached.

        Raises:
            PermissionError: if it leads out of the box.
        """
        path = os.path.normpath(os.path.join(self.home, path))  # noqa: PTH118 - a path of the box
        for inside, outside in ((self.home, "home"), (HOME, "home"), ("/tmp", "tmp")):
            if path == inside or path.startswith(inside + "/"):
                found = self.root / outside / path[len(inside) + 1 :]
                if found.resolve().is_relative_to(self.root.resolve()):
                    return found
        raise PermissionError(path)

    async def start(self, command: list[str], environment: dict[str, str], folder: str, stdin: bool) -> BoxProcess:
        variables = {"PATH": f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin", "HOME": self.home, "USER": "user",
                     "LANG": "C.UTF-8", "MPLBACKEND": "Agg", "MPLCONFIGDIR": f"{self.home}/.config/matplotlib",
                     "E2B_SANDBOX": "true", "E2B_SANDBOX_ID": self.identity, **self.environment, **environment}  # fmt: skip
        folder = folder or self.home
        if not self.host_path(folder).is_dir():
            raise NotADirectoryError(folder)
        process = await asyncio.create_subprocess_exec(
            *self.locked_in(command, variables, folder),
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=variables,
            cwd=self.host_path(folder),
            start_new_session=True,
        )
        started = BoxProcess(process, command, environment, folder, lambda ended: self.processes.pop(ended.pid, None))
        self.processes[process.pid] = started
        started.watch()
        return started

    def locked_in(self, command: list[str], variables: dict[str, str], folder: str) -> list[str]:
        if self.jail.kind == "bubblewrap":
            return self._bubblewrap(command, variables, folder)
        if self.jail.kind == "landlock":
            readable = [str(path) for path in interpreter_paths()] + [f"/etc/{name}" for name in (*ETC, *PROFILE)]
            bpf = seccomp.program(namespaces=False).hex()
            uid = 0 if os.geteuid() == 0 else None
            return landlock.Rules(command, readable, [str(self.root)], bpf, 256, uid, os.getpid()).launch()
        return command

    def _bubblewrap(self, command: list[str], variables: dict[str, str], folder: str) -> list[str]:
        arguments = ["bwrap", "--die-with-parent", "--clearenv", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
                     "--hostname", "e2b", "--cap-drop", "ALL", "--unshare-net",
                     *([] if os.geteuid() == 0 else ["--unshare-user"]), "--ro-bind", "/usr", "/usr"]  # fmt: skip
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            path = Path("/", name)
            if path.is_symlink():
                arguments += ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                arguments += ["--ro-bind", str(path), str(path)]
        arguments += ["--bind", str(self.root / "tmp"), "/tmp"]
        for path in [*(Path("/etc", name) for name in ETC), *interpreter_paths()]:
            if path.exists():
                arguments += ["--ro-bind", str(path), str(path)]
        arguments += [
            "--bind",
            str(self.root / "home"),
            HOME,
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/dev/shm",
        ]
        for name, value in variables.items():
            arguments += ["--setenv", name, value]
        return [*arguments, "--remount-ro", "/", "--chdir", folder, "--", *command]

    # Its life

    def live_until(self, seconds: float, cloud: Any) -> None:
        """Sets its clock: at the end it is killed, or paused if it was created so."""
        if self.timer is not None:
            self.timer.cancel()
        self.ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        self.timer = asyncio.get_running_loop().call_later(seconds, self.pause if self.pauses else cloud.end, *(
            [] if self.pauses else [self.identity]))  # fmt: skip

    def pause(self) -> None:
        """Stops everything in it, with its memory, and cuts its connections."""
        self.state = "paused"
        if self.timer is not None:
            self.timer.cancel()
        for process in self.processes.values():
            process.signal(signal.SIGSTOP)
            process.cut_off()

    def resume(self) -> None:
        self.state = "running"
        for process in self.processes.values():
            process.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.state = "gone"
        if self.timer is not None:
            self.timer.cancel()
        for process in self.processes.values():
            process.cut_off()
            for task in process.tasks:
                task.cancel()
            if not process.ended.is_set():
                process.signal(signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)
