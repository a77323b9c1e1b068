"""The E2B sandbox of one session: created, found again, kept alive, paused, killed; and those that others left behind."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import e2b

from ml_intern.execution.e2b_process import FAILURES, RemoteProcess, short, within
from ml_intern.execution.e2b_sync import Mirror
from ml_intern.execution.jail import JailUnavailable

REQUEST_SECONDS, CALL_SECONDS = 30.0, 75.0
LABEL = "ml_intern_"
REMEDIES = (
    (e2b.AuthenticationException, "E2B refused the key", "Set E2B_API_KEY to a valid one: https://e2b.dev/dashboard"),
    (e2b.RateLimitException, "E2B refused another sandbox or request for now",
     "Wait a minute, or kill sandboxes that are not needed: e2b sandbox list"),
    (e2b.NotFoundException, "E2B does not know what was asked for", "Check `template`."),
    (e2b.ServiceBusyException, "E2B has no room for a sandbox right now", "Try again in a minute."),
    (e2b.InvalidArgumentException, "E2B refused the request", "Check the executor's options."),
)  # fmt: skip


class E2BUnavailable(JailUnavailable):
    """E2B gives no sandbox: no key, a wrong key, a limit, no network."""


def explained(error: BaseException) -> E2BUnavailable:
    """What a person can do about an error of the client's."""
    if isinstance(error, e2b.AuthenticationException) and not os.environ.get("E2B_API_KEY"):
        return E2BUnavailable("There is no key for E2B", "", "export E2B_API_KEY=...   (https://e2b.dev/dashboard)")
    for kind, what, remedy in REMEDIES:
        if isinstance(error, kind):
            return E2BUnavailable(what, short(error), remedy)
    return E2BUnavailable(
        "E2B gave no sandbox", short(error), "Check the network and https://status.e2b.dev, try again."
    )


def this_machine() -> str:
    """Names this machine and user without telling either."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(f"{getpass.getuser()} {Path('/etc/machine-id').read_text()}".encode()).hexdigest()[:16]
    return hashlib.sha256(f"{os.getuid()} {socket.gethostname()}".encode()).hexdigest()[:16]


def began(pid: int) -> str:
    """When a process of this machine began, as the kernel counts; empty if there is none, or no way to know."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return ""


def this_process() -> str:
    return f"{os.getpid()} {began(os.getpid())}"


def is_orphan(labels: dict[str, str], paused: bool, *, owner: str, session: str, machine: str) -> bool:
    """Whether a sandbox was left behind by a session of the same owner.

    One of this very session is, once it starts without it. One of another session is when the process that made it, on
    this machine, is no more. Paused ones of other sessions are asleep, not left behind.
    """
    if labels.get(LABEL + "owner") != owner:
        return False
    if session and labels.get(LABEL + "session") == session:
        return True
    if paused or labels.get(LABEL + "machine") != machine:
        return False
    pid, _, start = labels.get(LABEL + "process", "").partition(" ")
    return pid.isdigit() and began(int(pid)) != start


@dataclass(eq=False)
class CloudSandbox:
    """A session's place in E2B's cloud.

    Args:
        template (`str`): The template it is made from; it needs Python 3.11 or newer.
        seconds (`int`): How long E2B keeps it after the last sign of life; a sign is given every third of that.
        owner (`str`): Whose sandboxes are looked after.
        session (`str`): Which session's it is; a paused one of the same session is woken instead of made.
        internet (`bool`): Whether code may use the internet.
        metadata (`dict[str, str]`): More labels.
        options (`dict[str, Any]`): For the client, such as `api_key` or `domain`.
    """

    template: str
    seconds: int
    owner: str
    session: str
    internet: bool
    metadata: dict[str, str]
    options: dict[str, Any]
    busy: Callable[[], bool] = lambda: False
    sandbox: Any = None
    home: str = ""
    process: RemoteProcess | None = None
    mirrors: dict[str, Mirror] = field(default_factory=dict)
    woken: bool = False
    """Whether the sandbox was found asleep, and no worker has been looked for in it yet."""
    met: bool = False
    """Whether the worker in use was found in it, with its variables."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def labels(self) -> dict[str, str]:
        own = {"owner": self.owner, "session": self.session, "machine": this_machine(), "process": this_process()}
        return {**self.metadata, **{LABEL + name: value for name, value in own.items()}}

    def ensure(self) -> Any:
        """The sandbox: the one there is, one that sleeps, or a new one.

        Raises:
            E2BUnavailable: If there is none to be had.
        """
        with self._lock:
            if self.sandbox is not None:
                return self.sandbox
            try:
                found = within(CALL_SECONDS, self._others)
                asleep = [one for one in found if self._mine(one) and one.state == e2b.SandboxState.PAUSED]
                if asleep:
                    self.sandbox, self.woken = (
                        self._call(e2b.Sandbox.connect, asleep[0].sandbox_id, self.seconds),
                        True,
                    )
                else:
                    self.sandbox, self.woken = self._create(), False
                said = self._run("mkdir -p ~/workspace ~/.ml-intern/snapshots ~/.ml-intern/packages && echo ~")
                self.home = (said.stdout.split() or ["/home/user"])[-1]
            except FAILURES as error:
                self.kill()
                raise explained(error) from error
            self._stop = threading.Event()
            arguments = (self.sandbox, self.seconds, self._stop)
            threading.Thread(target=keep_alive, args=arguments, name="ml-intern-e2b-alive", daemon=True).start()
            orphans = [one.sandbox_id for one in found if one not in asleep and self._orphan(one)]
            threading.Thread(target=self._sweep, args=(orphans,), name="ml-intern-e2b-sweep", daemon=True).start()
            return self.sandbox

    def _create(self) -> Any:
        return self._call(
            e2b.Sandbox.create,
            self.template,
            self.seconds,
            metadata=self.labels,
            allow_internet_access=self.internet,
        )

    def _call(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return within(CALL_SECONDS, call, *args, request_timeout=REQUEST_SECONDS, **self.options, **kwargs)

    def _run(self, command: str) -> Any:
        return within(CALL_SECONDS, self.sandbox.commands.run, command, timeout=REQUEST_SECONDS)

    def _others(self) -> list[Any]:
        query = e2b.SandboxQuery(metadata={LABEL + "owner": self.owner})
        pages, found = e2b.Sandbox.list(query, request_timeout=REQUEST_SECONDS, **self.options), []
        while pages.has_next:
            found += pages.next_items()
        return found

    def _mine(self, one: Any) -> bool:
        return bool(self.session) and one.metadata.get(LABEL + "session") == self.session

    def _orphan(self, one: Any) -> bool:
        return one.sandbox_id != self.sandbox.sandbox_id and is_orphan(
            one.metadata or {}, one.state == e2b.SandboxState.PAUSED,
            owner=self.owner, session=self.session, machine=this_machine(),
        )  # fmt: skip

    def _sweep(self, orphans: list[str]) -> None:
        for identity in orphans:
            with contextlib.suppress(Exception):  # whoever starts next tries again; their own clock ends them too
                self._call(e2b.Sandbox.kill, identity)

    # What happens to it

    def settle(self, name: str, mirror: Mirror, remote: str) -> None:
        """A folder of the session's, from now on kept in this sandbox too."""
        if self.mirrors.get(name) is not mirror:
            self.mirrors[name] = mirror
            mirror.settle(self.sandbox, remote, f"{self.home}/.ml-intern/{name}")

    def gone(self) -> None:
        """It is no more, or is to be used no more."""
        with self._lock:
            self._stop.set()
            for mirror in self.mirrors.values():
                mirror.leave()
            self.mirrors = {}
            self.sandbox = self.process = None

    def pause(self) -> bool:
        """Puts it to sleep with all that is in its memory. `False`: it would not, and was killed."""
        with self._lock:
            if self.sandbox is None:
                return False
            if self.process is not None:
                self.process.suspend()
            self._stop.set()
            try:
                self._call(self.sandbox.pause)
            except FAILURES:
                self.kill()
                return False
            return True

    def wake(self) -> None:
        """After `pause`. Raises `E2BUnavailable`, and the sandbox is given up."""
        with self._lock:
            if self.sandbox is None or not self._stop.is_set():
                return
            try:
                sandbox = self._call(e2b.Sandbox.connect, self.sandbox.sandbox_id, self.seconds)
                if self.process is not None:
                    within(CALL_SECONDS, self.process.resume, sandbox)
            except FAILURES:
                if self.process is not None:
                    self.process.lose("its E2B sandbox could not be woken")
                self.kill()
                return
            self.sandbox, self._stop = sandbox, threading.Event()
            arguments = (sandbox, self.seconds, self._stop)
            threading.Thread(target=keep_alive, args=arguments, name="ml-intern-e2b-alive", daemon=True).start()

    def kill(self) -> None:
        with self._lock:
            sandbox = self.sandbox
            self.gone()
            if sandbox is not None:
                with contextlib.suppress(Exception):  # not to be reached: its own clock ends it
                    self._call(sandbox.kill)


def keep_alive(sandbox: Any, seconds: int, stop: threading.Event) -> None:
    """Tells E2B, every third of its time, that somebody is still there: a host that dies tells nothing."""
    while not stop.wait(seconds / 3):
        with contextlib.suppress(Exception):  # it is gone, which shows elsewhere, or the network is away for a while
            sandbox.set_timeout(seconds, request_timeout=min(REQUEST_SECONDS, seconds / 3))
