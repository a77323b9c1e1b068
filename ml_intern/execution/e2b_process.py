"""A command in an E2B sandbox, as the host sees a process of its own: three pipes, an exit status, an end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import e2b
import httpx
from connectrpc.errors import ConnectError

FAILURES = (
    e2b.SandboxException,
    e2b.AuthenticationException,
    e2b.ServiceBusyException,
    httpx.TransportError,
    ConnectError,
    json.JSONDecodeError,  # a gateway's page in place of an answer
    OSError,
)
"""All that the client raises when something between here and the sandbox goes wrong; it wraps only some of it."""
CHUNK = 256 * 1024
REQUEST_SECONDS, KILL_SECONDS = 30.0, 5.0
REATTACHMENTS, REATTACH_SECONDS = 5, 1.0
SIGNALS = {"killed": 9, "segmentation fault": 11, "aborted": 6, "bus error": 7, "terminated": 15, "illegal instruction": 4,
           "floating point exception": 8}  # fmt: skip


def within(seconds: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls, and gives up after `seconds`: the client's own time-outs fire late, at up to twice the time, or not at all.

    Raises:
        TimeoutError: If there is no answer; the call is left behind.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((call(*args, **kwargs), None))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            answers.put((None, error))

    try:
        threading.Thread(target=work, name="ml-intern-e2b-call", daemon=True).start()
    except RuntimeError:  # the interpreter is on its way out (Python 3.12): without a deadline then
        work()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:g} seconds") from None
    if error is not None:
        raise error
    return answer


class _Over(Exception):
    """The process has ended, or somebody else listens to it now."""


class RemoteProcess:
    """What `WorkerProcess` needs of a `subprocess.Popen`, over a sandbox's command.

    A thread carries what the command writes into the host's pipes, another what the host writes into its stdin. When the
    connection breaks while nothing runs, it is made again; in the middle of an action what was lost cannot be known, and
    the process counts as lost.

    Args:
        sandbox (`e2b.Sandbox`): Where it runs.
        handle (`e2b.CommandHandle`): The command, started with `stdin=True`.
        busy (`Callable[[], bool]`): Whether an action is running.
        pipes (`Mapping[str, int]`): The far ends of the host's pipes, `stdin`, `stdout` and `stderr`; copied.
        greeting (`bytes`): What the command said when it was started, where it is met again later.
    """

    pid = 0  # no process of this machine: the watchdog finds nothing there

    def __init__(
        self, sandbox: Any, handle: Any, busy: Callable[[], bool], pipes: Mapping[str, int], greeting: bytes = b""
    ) -> None:
        self.sandbox, self.busy, self.remote_pid = sandbox, busy, handle.pid
        self.returncode: int | None = None
        self.lost = ""
        """Why it is gone, where it did not end by itself."""
        self._handle = handle
        self._asleep = False
        self._turn = 0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._input = os.dup(pipes["stdin"])
        self._outputs = [os.dup(pipes["stdout"]), os.dup(pipes["stderr"])]
        for pipe in self._outputs:
            os.set_blocking(pipe, False)
        if greeting:
            self._carry(0, self._turn, greeting)
        self._listen()
        threading.Thread(target=self._feed, name="ml-intern-e2b-in", daemon=True).start()

    # As Popen has it

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """Ends it and its process group."""
        if self.returncode is not None:
            return
        self._end(-signal.SIGKILL)
        with contextlib.suppress(RuntimeError):  # at the interpreter's end the sandbox is killed as a whole
            threading.Thread(target=self._kill_group, name="ml-intern-e2b-kill", daemon=True).start()

    terminate = kill

    def _kill_group(self) -> None:
        with contextlib.suppress(*FAILURES):  # gone already, or not to be reached: then its sandbox's clock ends it
            self.sandbox.commands.kill(self.remote_pid, request_timeout=KILL_SECONDS)
            group = f"kill -9 -- -{self.remote_pid} 2>/dev/null || true"
            self.sandbox.commands.run(group, timeout=KILL_SECONDS)

    # Sleep

    def suspend(self) -> None:
        """Before its sandbox is paused: the end of the connection is not its end."""
        self._asleep = True
        self._turn += 1

    def resume(self, sandbox: Any) -> None:
        """After its sandbox was woken."""
        self.sandbox = sandbox
        self._handle = sandbox.commands.connect(self.remote_pid, timeout=0, retain_output=False)
        self._asleep = False
        self._listen()

    # The carriers

    def _listen(self) -> None:
        arguments = (self._handle, self._turn)
        threading.Thread(target=self._hear, args=arguments, name="ml-intern-e2b-out", daemon=True).start()

    def _hear(self, handle: Any, turn: int) -> None:
        tries = 0
        while True:
            heard = time.monotonic()
            try:
                handle.wait(
                    on_stdout=lambda text: self._carry(0, turn, text.encode()),
                    on_stderr=lambda text: self._carry(1, turn, text.encode("utf-8", "replace")),
                )
                return self._end(0)
            except _Over:
                return None
            except e2b.CommandExitException as ended:
                return self._end(exit_status(ended.exit_code, ended.error or ""))
            except Exception as error:  # noqa: BLE001 - the client wraps some of what its connection raises, and not all
                if self._asleep or turn != self._turn:
                    return None
                if isinstance(error, e2b.SandboxNotRunningException):
                    return self.lose("the E2B sandbox is gone: it was killed, or its time was up")
                tries = tries + 1 if time.monotonic() - heard < 10 else 1
                if self.busy() or tries > REATTACHMENTS:
                    return self.lose(f"the connection to the E2B sandbox broke ({short(error)})")
            time.sleep(REATTACH_SECONDS * (tries - 1))
            try:
                handle = self._handle = self.sandbox.commands.connect(self.remote_pid, timeout=0, retain_output=False)
            except e2b.NotFoundException:
                return self.lose("it ended while the connection to the E2B sandbox was broken")
            except Exception:  # noqa: BLE001 - as above; the old handle fails at once, and is counted
                continue

    def _carry(self, number: int, turn: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = 0
            with self._lock:
                if self.returncode is not None or turn != self._turn:
                    raise _Over
                try:
                    written = os.write(self._outputs[number], view)
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    raise _Over from None
            view = view[written:]
            if not written:
                poll = select.poll()
                poll.register(self._outputs[number], select.POLLOUT)
                poll.poll(50)

    def _feed(self) -> None:
        try:
            while data := os.read(self._input, CHUNK):
                if self.returncode is None:
                    self._handle.send_stdin(data, request_timeout=REQUEST_SECONDS)
        except Exception as error:  # noqa: BLE001 - whether it arrived cannot be known: it counts as lost
            self.lose(f"the E2B sandbox did not take what was sent to it ({short(error)})")
            with contextlib.suppress(OSError):
                while os.read(self._input, CHUNK):
                    pass
        finally:
            os.close(self._input)

    def lose(self, why: str) -> None:
        if self.returncode is None:
            self.lost = why
        self._end(-signal.SIGKILL)

    def _end(self, code: int) -> None:
        with self._lock:
            if self.returncode is not None:
                return
            self.returncode = code
            for pipe in self._outputs:
                os.close(pipe)
        self._ended.set()


def short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def exit_status(code: int, text: str) -> int:
    """As `subprocess` has it: the number of a signal, below zero. envd says it in words."""
    if code >= 0:
        return code
    told = re.match(r"signal: ([a-z ]+)", text)
    return -SIGNALS.get(told.group(1).strip() if told else "", 9)
