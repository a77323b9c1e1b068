"""One run of code as the host keeps track of it, and the threads that its host calls run on."""

from __future__ import annotations

import contextvars
import queue
import select
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ml_intern.errors import Parking
from ml_intern.execution.process import Breach, WorkerProcess

if TYPE_CHECKING:
    from ml_intern.execution.executor import JailExecutor

Result = TypeVar("Result")
MAX_CALLS, MAX_THREADS = 10_000, 128
IDLE_SECONDS = 2.0
"""A thread that no host call needs any more ends after these."""
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
        self.gives_way = False
        """Whether whoever runs it can do without a thread while all that it does is wait."""
        self._held: list[tuple[dict[str, Any], Parking]] = []
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

    def hold(self, message: dict[str, Any], call: Parking) -> None:
        """A host call waits without a thread from here on; it is still out."""
        with self.lock:
            self._held.append((message, call))

    def due(self) -> list[tuple[dict[str, Any], Parking]]:
        """Those whose time to go on has come; they wait no more."""
        with self.lock:
            found = [held for held in self._held if held[1].due()]
            self._held = [held for held in self._held if held not in found]
            return found

    @property
    def waits(self) -> bool:
        """Whether all that it does, as far as is known, is wait for host calls that hold no thread."""
        with self.lock:
            return 0 < self._out == len(self._held)

    def held(self) -> list[Parking]:
        with self.lock:
            return [call for _, call in self._held]

    def used(self) -> float:
        with self.lock:
            return self._used + (time.monotonic() - self._since if self._out == 0 else 0.0)

    def end(self) -> None:
        with self.lock:
            self.over = True
            if self._out:
                self.cancelled.set()


@dataclass(frozen=True)
class Hold:
    """An action can do without a thread until one of `handles` has something to read, or a call that waits is due."""

    handles: tuple[int, ...]
    calls: tuple[Parking, ...]

    @property
    def due(self) -> bool:
        return any(call.due() for call in self.calls)

    @property
    def at(self) -> float | None:
        """When it is worth a look in any case, on the monotonic clock."""
        return min((call.at for call in self.calls if call.at is not None), default=None)

    @property
    def come(self) -> bool:
        """Whether what it waits for is there, or something can be read: it is to go on."""
        poll = select.poll()
        for handle in self.handles:
            poll.register(handle, select.POLLIN)
        return self.due or bool(poll.poll(0)) or (self.at is not None and self.at <= time.monotonic())


def to_the_end(course: Generator[Hold, None, Result]) -> Result:
    """All of something that gives way, where whoever runs it does not."""
    while True:
        try:
            next(course)
        except StopIteration as end:
            return end.value


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
                job = self._jobs.get(timeout=IDLE_SECONDS)
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
