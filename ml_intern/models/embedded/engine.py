"""Engine: weights that are loaded in a child process, and the answers that come out of it.

What must never happen here: a child that outlives its host or its engine; a crash that is anything but a failed request;
somebody waits for a child that is gone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .gguf import Facts
from .memory import BATCH, Plan

CHILD = Path(__file__).with_name("child.py")
CALM = {"OMP_WAIT_POLICY": "passive"}
"""Threads that wait for each other sleep: where others use the cores too, two that spin gave 1 token a second, and not 60."""
LOOK_SECONDS = 0.05
"""How often somebody who waits looks whether his request was cancelled."""
_LOG = 100_000
CALM_SECONDS = 60.0
"""Weights that could not be loaded are not loaded again sooner."""


class EngineError(Exception):
    """A request failed. `status` is HTTP's for it: 400 where llama.cpp refused it, 503 where the child died under it, 408
    where it hung, 424 where it is of no use to send it again."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Cancelled(Exception):
    """Whoever asked does not want the answer any more."""


class Engine:
    """Loads weights when they are first needed, and again after a crash; answers one request at a time, in their order.

    Args:
        facts (`Facts`): The weights.
        plan (`Plan`): How they are loaded.
        threads (`int`, *optional*): That compute. Defaults to a thread a core.
        tell (`Callable[[str], None]`, *optional*): Told in a line when weights have been loaded.
    """

    def __init__(
        self, facts: Facts, plan: Plan, threads: int | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        self.facts, self.plan, self.threads, self.tell = facts, plan, threads or _allowed_cores(), tell
        self.loads = 0
        self._crashes = 0  # since the last answer that came to its end
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins to load, in the background, where that has not begun."""
        self._running()

    @property
    def pid(self) -> int | None:
        """Of the child, where there is one."""
        child = self._child
        return child.process.pid if child is not None and child.process is not None and not child.over else None

    def answer(
        self, request: dict[str, Any], unwanted: Callable[[], bool] = lambda: False, silence: float = 600.0
    ) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed answer, as OpenAI's protocol has them, once the weights are loaded.

        Args:
            request (`dict[str, Any]`): Of OpenAI's chat completions, and whatever else llama.cpp takes.
            unwanted (`Callable[[], bool]`): Looked at while waiting; once it is true the answer ends.
            silence (`float`, defaults to 600): Seconds without a sign of progress before the child counts as hung.

        Raises:
            EngineError: llama.cpp refused it, the weights cannot be loaded, or the child died.
            Cancelled: it became unwanted.
        """
        child = self._running()
        while not child.greeted.wait(LOOK_SECONDS):
            if unwanted():
                raise Cancelled
        if child.failure:
            raise EngineError(424, f"{self.facts.name} cannot be loaded: {child.failure}")
        return self._answer(child, {**request, "stream": True, "return_progress": True}, unwanted, silence)

    def _answer(self, child: _Child, *asked: Any) -> Iterator[dict[str, Any]]:
        try:
            yield from child.ask(*asked)
        except EngineError as error:
            if error.status != 503 or child.closed:
                raise
            self._crashes += 1
            if self._crashes > 1:  # the same request would kill the next one too
                raise EngineError(424, f"{error}, twice in a row") from error
            raise
        self._crashes = 0

    def close(self) -> None:
        """Ends the child, which gives its memory back; an answer that runs fails. Used again, it loads again."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def _running(self) -> _Child:
        with self._lock:
            child = self._child
            if child is not None and not child.over:
                return child
            if child is not None and child.failure and time.monotonic() - child.ended < CALM_SECONDS:
                return child  # says once more why
            self.loads += 1
            self._child = child = _Child(self._spec(), f"{self.facts.name}'s process", self.tell)
            child.start()
            return child

    def _spec(self) -> dict[str, Any]:
        return {
            "path": str(self.facts.files[0].absolute()),
            "window": self.plan.window,
            "cache_mib": self.plan.cache >> 20,
            "batch": BATCH,
            "threads": self.threads,
        }


class _Child:
    """One child process. It is started, read and buried by one thread, which lives as long: the kernel ends a child with
    the *thread* that started it."""

    def __init__(self, spec: dict[str, Any], name: str, tell: Callable[[str], None] | None) -> None:
        self.spec, self.name, self.tell, self.host = spec, name, tell, os.getpid()
        self.process: subprocess.Popen[bytes] | None = None
        self.greeted = threading.Event()
        self.failure = ""
        self.seconds = 0.0
        self.log = ""
        self.ended = 0.0
        self.closed = self.hung = False
        self._over = threading.Event()
        self._heard = 0.0
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._lock, self._sending = threading.Lock(), threading.Lock()

    @property
    def over(self) -> bool:
        return self._over.is_set() or self.host != os.getpid()  # of the process that this one was forked from

    def start(self) -> None:
        threading.Thread(target=self._live, name="embedded-weights", daemon=True).start()

    def end(self) -> None:
        """Kills it and waits until it is gone."""
        if self.over:
            return
        with self._lock:
            self.closed = True
            if self.process is not None:
                self.process.kill()
        self._over.wait()

    def ask(self, request: dict[str, Any], unwanted: Callable[[], bool], silence: float) -> Iterator[dict[str, Any]]:
        number, self._heard = next(self._numbers), time.monotonic()
        arrived: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._answers[number] = arrived
        open_end = True
        try:
            self._send({"id": number, "request": request}, silence)
            if self.over:  # it died before it could be told that somebody waits
                arrived.put(None)
            while True:
                try:
                    reply = arrived.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    if unwanted():
                        raise Cancelled from None
                    if time.monotonic() - self._heard > silence:  # of anything: one request waits for another
                        self.end()
                        raise EngineError(408, f"{self.name} gave no sign for {silence:.0f} s") from None
                    continue
                if unwanted():
                    raise Cancelled
                if reply is None:
                    raise EngineError(503, self._death())
                if "chunk" in reply:
                    yield reply["chunk"]
                    continue
                open_end = False
                if reply["end"] is not None:
                    raise EngineError(reply["end"]["status"], reply["end"]["message"])
                return
        finally:
            del self._answers[number]
            if open_end:
                self._send({"cancel": number})

    def _send(self, order: dict[str, Any], silence: float = 10.0) -> None:
        """Writes an order. A child that does not read for so long is killed: half an order cannot be taken back."""
        line = memoryview(json.dumps(order).encode() + b"\n")
        until = time.monotonic() + silence
        with self._sending:
            while line and not self.over and self.process is not None and self.process.stdin is not None:
                try:
                    line = line[os.write(self.process.stdin.fileno(), line) :]
                except BlockingIOError:
                    time.sleep(0.001)
                    if time.monotonic() > until:
                        self.hung = True
                        self.process.kill()
                except (OSError, ValueError):  # it is gone, as whoever waits is told
                    return

    def _live(self) -> None:
        try:
            self._run()
        except OSError as error:  # no process, no disk
            self.failure = f"no process could be started: {error.strerror or error}"
        finally:
            self.ended = time.monotonic()
            if not self.greeted.is_set() and not self.failure:
                self.failure = self._death()
            self._over.set()
            self.greeted.set()
            for arrived in list(self._answers.values()):
                arrived.put(None)

    def _run(self) -> None:
        with tempfile.TemporaryFile() as said:
            with self._lock:
                if self.closed:
                    return
                self.process = process = subprocess.Popen(
                    # -P: beside the child lies what has the names of packages.
                    [sys.executable, "-P", str(CHILD), str(os.getpid())],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True,
                    env={**CALM, **os.environ},
                )  # fmt: skip
            assert process.stdout is not None and process.stdin is not None
            os.set_blocking(process.stdin.fileno(), False)
            self._send({"load": self.spec})
            with process.stdout as replies:
                for line in replies:
                    self._take(json.loads(line))
            process.kill()
            process.wait()
            with self._sending:  # nobody writes to a descriptor that is another's by then
                process.stdin.close()
            said.seek(max(0, said.seek(0, os.SEEK_END) - _LOG))
            self.log = said.read().decode(errors="replace")
            if self.failure:
                self.failure = _why(self.log) or self.failure

    def _take(self, reply: dict[str, Any]) -> None:
        self._heard = time.monotonic()
        if "ready" in reply:
            self.seconds = reply["ready"]["seconds"]
            self.greeted.set()
            if self.tell:
                self.tell(
                    f"Loaded {self.spec['path']} in {self.seconds:.1f} s, window {self.spec['window']:,} tokens."
                )
        elif "failed" in reply:
            self.failure = reply["failed"]
        else:
            arrived = self._answers.get(reply["id"])
            if arrived is not None:
                arrived.put(reply)

    def _death(self) -> str:
        if self.closed:
            return f"{self.name} was closed"
        if self.hung:
            return f"{self.name} hung and was killed"
        code = self.process.returncode if self.process is not None else None
        if code == -signal.SIGKILL:
            return f"{self.name} was killed, as the kernel does where memory runs out"
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"{self.name} died ({': '.join(filter(None, (how, _why(self.log))))})"


def _why(log: str) -> str:
    """llama.cpp's own reason among its lines: the first error, which the others follow from."""
    errors = [text for _, marked, text in (line.partition(" E ") for line in log.splitlines()) if marked]
    if not errors:
        return log.strip().rpartition("\n")[2][:300]
    return re.sub(r"^\s*\w+: |error loading model: |llama_model_loader: ", "", errors[0])[:300]


def _allowed_cores() -> int:
    """Cores to compute on where a container allows only some; 0, which is llama.cpp's own choice, where it allows all."""
    with contextlib.suppress(AttributeError):  # Linux only
        allowed = len(os.sched_getaffinity(0))
        return allowed if allowed < (os.cpu_count() or 1) else 0
    return 0
