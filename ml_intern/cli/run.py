"""One task from its command line to its end: events to show, questions to answer, Ctrl-C, an exit code.

Everything that reaches the person passes one queue that the main thread works off: events never overlap a question,
a slow terminal never holds up a session, and Ctrl-C finds the thread that Python gives it to.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from ..events import ApprovalAnswer, ApprovalRequest, Event, Outcome, SessionEnded, State
from .view import JsonView, PersonView, View

if TYPE_CHECKING:
    from smolagents import Model

    from ..intern import MLIntern, Session

EXIT = {
    State.SUCCESS: 0,
    State.ERROR: 1,
    State.MAX_STEPS: 3,
    State.BUDGET: 3,
    State.STUCK: 3,
    State.DENIED: 4,
    State.INTERRUPTED: 130,
}

YES = "--yes: everything this task asks for is approved, unread. It may publish, spend money and delete."
UNSAFE = "--unsafe-local: there is no jail. The model's code runs as you, with your files, keys and network."
NOBODY = (
    "Nobody could be asked, as this is not a terminal. Run it in one, or with --yes to approve what the task asks for."
)


@dataclass(frozen=True)
class Order:
    """A task as the command line has it. What is `None` is left to `MLIntern`."""

    task: str
    files: tuple[Path, ...] = ()
    images: tuple[Path, ...] = ()
    datasets: tuple[str, ...] = ()
    model: str | Model | None = None
    system_prompt: str | None = None
    max_iterations: int = 300
    budget_usd: float | None = None
    max_hours: float | None = None
    home: Path | None = None
    slack: bool = False
    yes: bool = False
    unsafe_local: bool = False
    executor: str = "local"
    network: str | None = None
    hosts: tuple[str, ...] | None = None
    json: bool = False
    verbose: bool = False


class Stop:
    """Ctrl-C or SIGTERM, on its way through the queue."""


@dataclass(frozen=True)
class Question:
    request: ApprovalRequest
    answer: Future[ApprovalAnswer] = field(default_factory=Future)


class Conversation:
    """The main thread's part of a session.

    Args:
        order (`Order`): What to do.
        view (`View`): How to show it.
    """

    def __init__(self, order: Order, view: View) -> None:
        self.order = order
        self.view = view
        self.inbox: queue.SimpleQueue[Event | Question | Stop] = queue.SimpleQueue()
        self.stops = 0
        self._breakable = True
        self._over = False

    def approve(self, request: ApprovalRequest) -> ApprovalAnswer:
        """`on_approval`: called on a thread of the session, which waits for the main thread's answer."""
        question = Question(request)
        self.inbox.put(question)
        while True:
            try:
                return question.answer.result(timeout=0.5)
            except TimeoutError:
                if self._over:  # the main thread has left: a closed pipe, a second Ctrl-C
                    return ApprovalAnswer("stop", "the command line has ended", "command line")

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first one stops the turn, the second one the program. Runs between any two steps of the main thread.

        Only `SimpleQueue.put` may be called in here: it is the one that cannot wait for a lock that this thread holds.
        """
        self.stops += 1
        if self._breakable or self.stops > 1:
            raise KeyboardInterrupt
        self.inbox.put(Stop())

    def run(self, intern: MLIntern) -> Outcome:
        order = self.order
        session = intern.submit(order.task, files=order.files, images=order.images, datasets=order.datasets)
        self._breakable = False
        try:
            return self._follow(session)
        finally:
            self._breakable = self._over = True

    def _follow(self, session: Session) -> Outcome:
        while True:
            try:
                item = self.inbox.get(timeout=1.0)
            except queue.Empty:
                if session.outcome is not None:  # its last event got lost; the outcome did not
                    return session.outcome
                continue
            match item:
                case Question():
                    item.answer.set_result(self._answer(item.request, session))
                case Stop():
                    self.view.stopping()
                    session.interrupt()
                case SessionEnded():
                    self.view.show(item)
                    return item.outcome
                case _:
                    self.view.show(item)

    def show_rest(self) -> None:
        """What was told while the session closed."""
        while not self.inbox.empty():
            item = self.inbox.get()
            if isinstance(item, Event):
                self.view.show(item)

    def _answer(self, request: ApprovalRequest, session: Session) -> ApprovalAnswer:
        if self.stops:
            return ApprovalAnswer("stop", "the session is being stopped", "Ctrl-C")
        if self.order.yes:
            self.view.card(request)
            return ApprovalAnswer("approve", by="--yes")
        if not self.view.asks:
            self.view.card(request)
            return ApprovalAnswer("reject", NOBODY, "command line")
        self._breakable = True
        try:
            return self.view.ask(request, session)
        finally:
            self._breakable = False


def run(order: Order) -> int:
    """Carries out `order` and returns the exit code."""
    return run_with(order)


def run_with(order: Order, tell: Callable[[Callable[[Event], None]], None] | None = None) -> int:
    """The same, with a way for others to show events: `tell` is given the function that shows one."""
    view: View = JsonView() if order.json else PersonView(order.verbose)
    conversation = Conversation(order, view)
    if tell:
        tell(conversation.inbox.put)
    signal.signal(signal.SIGINT, conversation.on_signal)
    signal.signal(signal.SIGTERM, conversation.on_signal)
    try:
        for told, said in ((order.yes, YES), (order.unsafe_local, UNSAFE)):
            if told:
                view.tell(said)
        view.start()
        from ..intern import MLIntern  # a second of imports, under the moving line

        intern = MLIntern(
            order.model,
            system_prompt=order.system_prompt,
            max_iterations=order.max_iterations,
            enable_slack_notifications=order.slack,
            home=order.home,
            on_event=conversation.inbox.put,
            on_approval=conversation.approve,
            budget_usd=order.budget_usd,
            max_hours=order.max_hours,
            unsafe_local=order.unsafe_local,
            executor_type=order.executor,
            network=order.network,
            hosts=order.hosts,
        )
        return carry_out(conversation, intern)
    except KeyboardInterrupt:
        view.close()
        _quit(130)
    finally:
        view.close()


def carry_out(conversation: Conversation, intern: MLIntern) -> int:
    with intern:
        try:
            outcome = conversation.run(intern)
        except KeyboardInterrupt:  # here, as leaving the block waits for what runs
            conversation.view.close()
            _quit(130)
    conversation.show_rest()
    return EXIT[outcome.state]


def _quit(code: int) -> NoReturn:
    """Ends at once, not waiting for threads that wait for a model. The trace is written ahead: nothing is lost."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
