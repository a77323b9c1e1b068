"""The other side of a chat: an intern, the session that is talked to, what it works on and what it has asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..events import (
    ApprovalAnswer,
    ApprovalAnswered,
    ApprovalAsked,
    ApprovalRequest,
    Event,
    PlanChanged,
    SessionEnded,
    SessionStarted,
)
from .card import GRANT, QUESTION
from .run import NO_GRANT, Order, begin, make, serving

if TYPE_CHECKING:
    from ..intern import MLIntern
    from ..session import Session


class Partner:
    """Made anew when what it is made of changes; the session goes on with the next one.

    Args:
        order (`Order`): What it is made of.
        tell (`Callable[[Event], None]`): Told of what happens in the session, in the loop that runs now.

    Attributes:
        session (`Session`, *optional*): The one that is talked to; there is none before the first message.
        busy (`bool`): Whether a turn runs or waits.
        questions (`dict[str, ApprovalRequest]`): What is open, oldest first.
        plan (`tuple[dict[str, str], ...]`): The agent's plan.
    """

    def __init__(self, order: Order, tell: Callable[[Event], None]) -> None:
        self.order = order
        self.session: Session | None = None
        self.busy = False
        self.questions: dict[str, ApprovalRequest] = {}
        self.plan: tuple[dict[str, str], ...] = ()
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._reachable = contextlib.ExitStack()
        self._intern: MLIntern | None = None
        self.open(order)

    @property
    def intern(self) -> MLIntern:
        assert self._intern is not None, "made in `__init__`"
        return self._intern

    @property
    def home(self) -> Path:
        return self.intern.settings.home.expanduser().absolute()

    @property
    def mode(self) -> str:
        return self.session.mode if self.session is not None else self.order.mode

    def open(self, order: Order) -> None:
        """Makes the intern that `order` describes, in place of the one before; the session goes on with it.

        Raises:
            InternError: it cannot be made; the one before stays.
        """
        intern = make(order, self._hear, self._yes if order.yes else None)
        before, session = self._intern, self.session
        self._reachable.close()
        if before is not None:
            before.close()
        self.order, self._intern, self.session = order, intern, None
        self._reachable.enter_context(serving(intern))
        if session is not None:
            self.session = intern.resume(session.id)
        intern.warm()

    async def adopt(self, get: Callable[[], Session]) -> Session:
        """Goes on with the session that `get` gives; the one before is left as it is."""
        before, self.session = self.session, None
        self.questions.clear()
        try:
            self.session = await asyncio.to_thread(get)
        except BaseException:
            self.session = before
            raise
        self.plan = ()
        self.busy = self.session.state in ("running", "waiting")
        return self.session

    async def say(self, text: str) -> None:
        """What is said: the next task, or a word to the turn that runs."""
        if self.session is None:
            order = replace(self.order, task=text, again=None)
            self.session = await asyncio.to_thread(begin, self.intern, order)
            self.order = replace(self.order, task="", files=(), images=(), datasets=())
        elif self.busy:
            self.intern.steer(text, self.session.id, by="terminal")
        else:
            self.session.start(text)
        self.busy = True

    def answer(self, call_id: str, answer: ApprovalAnswer) -> None:
        """Answers a question.

        Raises:
            InternError: somebody else was quicker.
        """
        self.questions.pop(call_id, None)
        if self.session is not None:
            self.session.answer(call_id, answer)

    def unreachable(self) -> None:
        """Other processes cannot reach it from here on."""
        self._reachable.close()

    def close(self) -> None:
        self.unreachable()
        self.intern.close()

    def _yes(self, request: ApprovalRequest) -> ApprovalAnswer:
        """`--yes`: called on a thread of the session."""
        if request.tool == QUESTION:
            return ApprovalAnswer("reject", "nobody answers, as --yes was given; decide yourself, and say so", "--yes")
        if request.tool == GRANT:
            return ApprovalAnswer("reject", NO_GRANT, "--yes")
        return ApprovalAnswer("approve", by="--yes")

    def _hear(self, event: Event) -> None:
        """`on_event`: called on threads of the sessions."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._arrived, event)

    def _arrived(self, event: Event) -> None:
        if self.session is not None and event.session_id != self.session.id:
            return
        match event:
            case SessionStarted():
                self.busy = True
            case SessionEnded():
                self.busy = False
                self.questions.clear()
            case ApprovalAsked() if not self.order.yes:
                self.busy = True
                self.questions[event.request.call_id] = event.request
            case ApprovalAnswered():
                self.questions.pop(event.call_id, None)
            case PlanChanged():
                self.plan = event.items
        self._tell(event)
