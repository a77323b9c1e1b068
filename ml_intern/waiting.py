"""What lasts while nobody works: a question that waits for its answer, and the few sessions that keep their jail."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Protocol

from .errors import InternError
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
        self.request, self.asleep, self.since = request, asleep, time.monotonic()
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


class Questions:
    """The questions of one session that wait for an answer, by the ids of their calls. Its session's lock guards it."""

    def __init__(self) -> None:
        self._open: dict[str, Pending] = {}
        self._kept: dict[str, ApprovalAnswer] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that they are about."""
        return tuple(self._open)

    @property
    def unanswered(self) -> list[ApprovalRequest]:
        return [pending.request for pending in list(self._open.values()) if not pending.answered]

    def put(self, request: ApprovalRequest, asleep: bool = False) -> Pending:
        """A question waits from here on; `asleep`: its answer wakes the session."""
        pending = self._open[request.call_id] = Pending(request, asleep)
        return pending

    def of(self, request: ApprovalRequest) -> Pending | None:
        """That question, where it waits already."""
        pending = self._open.get(request.call_id)
        return pending if pending is not None and pending.request is request else None

    @property
    def since(self) -> float | None:
        """Since when the one waits that has waited longest, on the monotonic clock."""
        return min((pending.since for pending in list(self._open.values()) if not pending.answered), default=None)

    def drop(self, call_id: str) -> None:
        """It waits no more."""
        self._open.pop(call_id, None)

    def answer(self, call_id: str, answer: ApprovalAnswer, asked: ApprovalRequest | None = None) -> bool:
        """Gives an answer. Returns whether it has to wake the session.

        Raises:
            InternError: no such question waits (any more), or it is another than `asked`.
        """
        pending = self._open.get(call_id)
        other = pending is not None and asked is not None and pending.request is not asked
        if pending is None or other or not pending.give(answer):
            raise InternError(f"Nothing waits for an answer under {call_id}", "it was answered, or its code has ended")
        return pending.asleep

    @property
    def all_answered(self) -> bool:
        return bool(self._open) and all(pending.answered for pending in self._open.values())

    def take(self) -> dict[str, ApprovalAnswer]:
        """What was answered while nobody stood by, by call; no question waits after that.

        An answer to a question that its own agent put between two steps is kept for when it puts it again ([`kept`]). Of a
        call the answer is its own.
        """
        given = {call: answer for call, pending in self._open.items() if (answer := pending.wait(0)) is not None}
        self._kept = {
            pending.request.tool: given[call]
            for call, pending in self._open.items()
            if call in given and not in_code(call) and not pending.request.agent
        }
        self._open.clear()
        return given

    def kept(self, request: ApprovalRequest) -> ApprovalAnswer | None:
        """The answer that was given to this question while nobody stood by; it counts once."""
        return None if in_code(request.call_id) or request.agent else self._kept.pop(request.tool, None)


def in_code(call_id: str) -> bool:
    """Whether a question is about a call that code makes; otherwise it is put between two steps."""
    return call_id.startswith("call_")
