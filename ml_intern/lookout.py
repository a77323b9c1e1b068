"""One thread for a whole process that waits for what any number of sessions wait for: pipes and times.

What must never happen here: something that has come is missed, also where it came before anybody looked; a caller that
fails or takes its time holds up the others; a thread is left where nobody waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)
LONGEST_LOOK = 3600.0
"""Seconds that it sleeps at most."""


@dataclass(eq=False)
class Watched:
    """What somebody waits for; a handle for [`forget`]."""

    handles: tuple[int, ...]
    at: float | None
    call: Callable[[], object]


class _Lookout:
    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waker = self._wake = -1
        self._process = os.getpid()

    def watch(self, watched: Watched) -> None:
        with self._lock:
            if self._process != os.getpid():  # a forked copy has no thread, and what it watched is its parent's
                self._watched, self._thread, self._process = set(), None, os.getpid()
            self._watched.add(watched)
            if self._thread is None:
                self._waker, self._wake = os.pipe()
                os.set_blocking(self._waker, False)
                os.set_blocking(self._wake, False)
                self._thread = threading.Thread(target=self._look, name="ml-intern-lookout", daemon=True)
                self._thread.start()
            else:
                self._stir()

    def forget(self, watched: Watched) -> None:
        with self._lock:
            if watched in self._watched:
                self._watched.remove(watched)
                self._stir()

    def _stir(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def _look(self) -> None:
        while True:
            with self._lock:
                watched = list(self._watched)
                if not watched:
                    os.close(self._waker)
                    os.close(self._wake)
                    self._thread = None
                    return
                waker = self._waker
            for one in self._come(watched, waker):
                with self._lock:
                    if one not in self._watched:
                        continue
                    self._watched.remove(one)
                try:
                    one.call()
                except Exception:  # foreign code: the others are watched all the same
                    logger.exception("what was waited for could not be told")

    def _come(self, watched: Sequence[Watched], waker: int) -> list[Watched]:
        poll, by_handle = select.poll(), {}
        poll.register(waker, select.POLLIN)
        for one in watched:
            for handle in one.handles:
                by_handle.setdefault(handle, []).append(one)
                poll.register(handle, select.POLLIN)
        left = min([one.at - time.monotonic() for one in watched if one.at is not None], default=LONGEST_LOOK)
        ready = poll.poll(min(max(left, 0.0), LONGEST_LOOK) * 1000)  # a handle that was closed counts as ready
        with contextlib.suppress(BlockingIOError):
            if any(handle == waker for handle, _ in ready):
                os.read(waker, 4096)
        now = time.monotonic()
        found = [one for handle, _ in ready for one in by_handle.get(handle, ())]
        found += [one for one in watched if one.at is not None and one.at <= now]
        return list(dict.fromkeys(found))


_lookout = _Lookout()


def watch(handles: Sequence[int], at: float | None, call: Callable[[], object]) -> Watched:
    """Has `call` called once, on a thread of its own making, when one of `handles` can be read or `at` has come.

    Args:
        handles (`Sequence[int]`): File descriptors. They stay their owner's; one that is closed counts as come.
        at (`float`, *optional*): On the monotonic clock.
        call (`Callable[[], object]`): Must come back at once.

    Returns:
        `Watched`: For [`forget`].
    """
    watched = Watched(tuple(handles), at, call)
    _lookout.watch(watched)
    return watched


def forget(watched: Watched) -> None:
    """It is waited for no more. A call that is on its way already still comes."""
    _lookout.forget(watched)
