"""What lasts while nobody works: a question that waits for its answer, and the few sessions that keep their jail."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

from .events import ApprovalAnswer, ApprovalRequest


class Rests(Protocol):
    """A session as far as [`Warm`] knows it."""

    id: str

    def let_go(self) -> None: ...


class Warm:
    """The sessions that keep their jail and their memory while they do nothing: the few that worked last.

    Args:
        limit (`int`, defaults to 4): How many.
    """

    def __init__(self, limit: int = 4) -> None:
        self.limit = limit
        self._sessions: OrderedDict[str, Rests] = OrderedDict()
        self._lock = threading.Lock()

    def rests(self, session: Rests) -> None:
        """A session waits or is idle from here on; the one that did so longest lets go of what it holds."""
        with self._lock:
            self._sessions[session.id] = session
            self._sessions.move_to_end(session.id)
            surplus = [self._sessions.popitem(last=False)[1] for _ in range(len(self._sessions) - self.limit)]
        for other in surplus:
            other.let_go()

    def works(self, session: Rests) -> None:
        with self._lock:
            self._sessions.pop(session.id, None)


class Pending:
    """A question that waits; takes one answer. `asleep`: nobody stands by, the answer has to wake the session."""

    def __init__(self, request: ApprovalRequest, asleep: bool = False) -> None:
        self.request, self.asleep = request, asleep
        self._lock = threading.Lock()
        self._given = threading.Event()
        self._answer: ApprovalAnswer | None = None

    @property
    def answered(self) -> bool:
        return self._given.is_set()

    def give(self, answer: ApprovalAnswer) -> bool:
        with self._lock:
            if self._answer is not None:
                return False
            self._answer = answer
            self._given.set()
            return True

    def falls_asleep(self) -> bool:
        """Whether it has no answer yet; from here on an answer is not waited for."""
        with self._lock:
            self.asleep = self._answer is None
            return self.asleep

    def wait(self, timeout: float) -> ApprovalAnswer | None:
        self._given.wait(timeout)
        return self._answer
