"""One run of code as the host keeps track of it, and the threads that its host calls run on."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ml_intern.execution.process import Breach, WorkerProcess

if TYPE_CHECKING:
    from ml_intern.execution.executor import JailExecutor

MAX_CALLS, MAX_THREADS = 10_000, 128
RUNNING: contextvars.ContextVar[Action | None] = contextvars.ContextVar("ml_intern_action", default=None)


def pause(seconds: float) -> bool:
    """Waits; within a host call no longer than the action that made it goes on. Whether it was ended."""
    action = RUNNING.get()
    if action is None:
        time.sleep(seconds)
        return False
    return action.cancelled.wait(seconds)


class Action:
    """One run of code: its clock stands still while host calls are out."""

    worker: WorkerProcess

    def __init__(self, owner: JailExecutor, number: int) -> None:
        self.owner, self.number = owner, number
        self.cancelled = threading.Event()
        self.interrupted = self.timed_out = False
        self.running = self.over = False
        self.answered = False
        self.refused = ""  # on the network
        self.answer: Any = None
        self.lock = threading.Lock()
        self._out = 0
        self._used, self._since = 0.0, time.monotonic()

    def call_begins(self) -> None:
        with self.lock:
            if self._out >= MAX_CALLS:
                raise Breach(f"it made more than {MAX_CALLS:,} calls at once")
            if self._out == 0:
                self._used += time.monotonic() - self._since
            self._out += 1

    def call_ends(self) -> None:
        with self.lock:
            self._out -= 1
            if self._out == 0:
                self._since = time.monotonic()

    def used(self) -> float:
        with self.lock:
            return self._used + (time.monotonic() - self._since if self._out == 0 else 0.0)

    def end(self) -> None:
        with self.lock:
            self.over = True
            if self._out:
                self.cancelled.set()


class Pool:
    """Threads for host calls: as many as are needed, daemons, so that a call that never ends holds up no exit."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = self._threads = 0
        self._lock = threading.Lock()

    def submit(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._threads < MAX_THREADS:
                self._threads += 1
                threading.Thread(target=self._work, name="ml-intern-call", daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=10)
            except queue.Empty:
                with self._lock:
                    if self._idle == 0:  # a job is on its way for this thread
                        continue
                    self._idle -= 1
                    self._threads -= 1
                return
            job()
            del job
            with self._lock:
                self._idle += 1
