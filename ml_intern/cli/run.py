"""One task from its command line to its end: events to show, questions to answer, Ctrl-C, an exit code.

Everything that reaches the person passes one queue that the main thread works off: events never overlap a question,
a slow terminal never holds up a session, and Ctrl-C finds the thread that Python gives it to.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from ..errors import InternError
from ..events import (
    ApprovalAnswer,
    ApprovalAnswered,
    ApprovalAsked,
    ApprovalRequest,
    Event,
    Outcome,
    SessionEnded,
    State,
)
from . import text as words
from .card import GRANT, QUESTION
from .slack import answers, beside
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

NO_GRANT = "nobody is there to read it: nothing is granted unread"
YES = "--yes: everything this task asks for is approved, unread. It may publish, spend money and delete."
UNSAFE = "--unsafe-local: there is no jail. The model's code runs as you, with your files, keys and network."


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
    gpus: bool | None = None
    share: bool | None = None
    executor: str = "local"
    network: str | None = None
    hosts: tuple[str, ...] | None = None
    mcp: tuple[str, ...] = ()
    hub_tools: tuple[str, ...] = ()
    offline: bool = False
    effort: str | None = None
    json: bool = False
    verbose: bool = False
    mode: str = "ask"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    again: Again | None = None
    overnight: bool = False
    """Whether to be asked once, at the beginning, what may be done without asking."""


@dataclass(frozen=True)
class Again:
    """A session that is there already: taken up, or forked (at a step, else at its end); in another mode, if one is given."""

    which: str
    fork: bool = False
    at: int | str | None = None
    mode: str | None = None


class Stop:
    """Ctrl-C or SIGTERM, on its way through the queue."""


def refusal(request: ApprovalRequest) -> str:
    """Why a call is refused where nobody can be asked, and what would allow it."""
    if request.rule:
        remedy = f"Run it in one; --allow {shlex.quote(request.rule)} allows this kind of call, --yes all of them."
    elif "`tools trust" in request.reason:
        remedy = f"Run it in one. No rule can allow it yet: {request.reason}."
    else:
        remedy = "Run it in one; no rule can allow this kind of call, --yes approves all of them."
    return f"Nobody could be asked, as this is not a terminal. {remedy}"


class Conversation:
    """The main thread's part of a session.

    Args:
        order (`Order`): What to do.
        view (`View`): How to show it.
    """

    def __init__(self, order: Order, view: View) -> None:
        self.order = order
        self.view = view
        self.inbox: queue.SimpleQueue[Event | Stop] = queue.SimpleQueue()
        self.stops = 0
        self._answered: set[str] = set()
        self._breakable = True
        self._over = False

    @property
    def attended(self) -> bool:
        """Whether questions wait for somebody: the person at this terminal, or one who answers with `approve ID`."""
        return self.view.asks and not self.order.yes

    def hear(self, event: Event) -> None:
        """`on_event`: called on threads of the session."""
        if isinstance(event, ApprovalAnswered):
            self._answered.add(event.call_id)
        self.inbox.put(event)

    def decide(self, request: ApprovalRequest) -> ApprovalAnswer:
        """`on_approval` where nobody is asked: called on a thread of the session."""
        if self.stops:
            return ApprovalAnswer("stop", "the session is being stopped", "Ctrl-C")
        if self._over:  # the main thread has left: a closed pipe
            return ApprovalAnswer("stop", "the command line has ended", "command line")
        if self.order.yes and request.tool not in (QUESTION, GRANT):
            return ApprovalAnswer("approve", by="--yes")
        if request.tool == GRANT:
            return ApprovalAnswer("reject", NO_GRANT, "command line")
        if request.tool == QUESTION:
            return ApprovalAnswer("reject", "nobody is there to answer; decide yourself, and say so", "command line")
        return ApprovalAnswer("reject", refusal(request), "command line")

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first one stops the turn, the second one the program. Runs between any two steps of the main thread.

        Only `SimpleQueue.put` may be called in here: it is the one that cannot wait for a lock that this thread holds.
        """
        self.stops += 1
        if self._breakable or self.stops > 1:
            raise KeyboardInterrupt
        self.inbox.put(Stop())

    def run(self, intern: MLIntern) -> Outcome:
        session = begin(intern, self.order)
        if self.order.again is not None and not self.order.task and session.state not in ("running", "waiting"):
            return self._nothing_to_do(session, self.order.again)
        self._breakable = False
        try:
            return self._follow(session)
        finally:
            self._breakable = self._over = True

    def _nothing_to_do(self, session: Session, again: Again) -> Outcome:
        if again.fork:
            print(session.id)
            return Outcome(State.SUCCESS)
        what = f"{session.id} is there, and has nothing to go on with"
        raise InternError(what, f"its state is {session.state}", f'Say what to do: resume {session.id[:8]} "..."')

    def _follow(self, session: Session) -> Outcome:
        while True:
            try:
                item = self.inbox.get(timeout=1.0)
            except queue.Empty:
                if session.outcome is not None:  # its last event got lost; the outcome did not
                    return session.outcome
                continue
            match item:
                case Stop():
                    self.view.stopping()
                    session.interrupt()
                case SessionEnded():
                    self.view.show(item)
                    if item.outcome.state is State.INTERRUPTED and (jobs := session.running_jobs()):
                        self._about_jobs(session, jobs)
                    return item.outcome
                case ApprovalAsked():
                    self.view.show(item)
                    self._put(item.request, session)
                case _:
                    self.view.show(item)

    def _about_jobs(self, session: Session, jobs: list[str]) -> None:
        """Jobs go on when their session is interrupted, unless the person says otherwise."""
        many = f"{len(jobs)} jobs go on" if len(jobs) > 1 else "1 job goes on"
        said = words.printable(f"{many}: {', '.join(jobs)}.")
        if not (self.attended and sys.stdin.isatty()):
            print(f"{said} stop {session.id[:8]} --jobs ends {'them' if len(jobs) > 1 else 'it'}.", file=sys.stderr)
            return
        try:
            answer = input(f"{said} End {'them' if len(jobs) > 1 else 'it'} as well? [y/N] ")
        except EOFError:
            return
        if answer.strip().lower() in ("y", "yes"):
            for problem in session.stop_jobs() or ["ended"]:
                print(words.printable(problem), file=sys.stderr)

    def show_rest(self) -> None:
        """What was told while the session closed."""
        while not self.inbox.empty():
            item = self.inbox.get()
            if isinstance(item, Event):
                self.view.show(item)

    def _put(self, request: ApprovalRequest, session: Session) -> None:
        if not self.attended:
            self.view.card(request)
            return
        self._breakable = True
        try:
            answer = self.view.ask(request, lambda: session.outcome is not None or request.call_id in self._answered)
        finally:
            self._breakable = False
        if answer is None:
            return
        try:
            session.answer(request.call_id, answer)
        except InternError as error:  # somebody else was quicker
            self.view.tell(str(error))


def begin(intern: MLIntern, order: Order) -> Session:
    """The session that `order` is about; at work, where it says what to do or something was left open."""
    if order.again is None:
        return intern.submit(opening(order), files=order.files, images=order.images, datasets=order.datasets)
    which, at = order.again.which, order.again.at
    session = intern.fork(which, at=at) if order.again.fork else intern.resume(which)
    if order.again.mode and order.again.mode != session.mode:
        session.set_mode(order.again.mode)
    if order.task:
        session.steer(order.task, "command line")
    return session


def opening(order: Order) -> str:
    """The task as the agent gets it."""
    if not order.overnight:
        return order.task
    from ..grant import OVERNIGHT

    return f"{order.task}\n\n{OVERNIGHT}"


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
        for told in warnings(order):
            view.tell(told)
        view.start()
        waits = conversation.attended or (answers(order) and not order.yes)
        if order.overnight and not waits:
            raise InternError(
                "--overnight begins with a question, and nobody is here to answer it",
                "",
                "Say what may be done instead: --allow 'hub_push:me/*:private' --budget-usd 5",
            )
        intern = make(order, conversation.hear, None if waits else conversation.decide)
        with serving(intern):
            return carry_out(conversation, intern)
    except KeyboardInterrupt:
        view.close()
        leave(130)
    finally:
        view.close()


def warnings(order: Order) -> list[str]:
    """What should be said loudly before anything begins."""
    return [said for wanted, said in ((order.yes, YES), (order.unsafe_local, UNSAFE)) if wanted]


def make(
    order: Order, on_event: Callable[[Event], None], on_approval: Callable[[ApprovalRequest], ApprovalAnswer] | None
) -> MLIntern:
    """The intern of a command line. Without `on_approval` questions wait for an answer."""
    from ..intern import MLIntern  # a second of imports, under the moving line

    return MLIntern(
        order.model,
        system_prompt=order.system_prompt,
        max_iterations=order.max_iterations,
        enable_slack_notifications=order.slack,
        home=order.home,
        on_event=on_event,
        on_approval=on_approval,
        budget_usd=order.budget_usd,
        max_hours=order.max_hours,
        unsafe_local=order.unsafe_local,
        gpus=order.gpus,
        share=order.share,
        executor_type=order.executor,
        network=order.network,
        hosts=order.hosts,
        mcp=order.mcp,
        hub_tools=order.hub_tools,
        offline=order.offline or None,
        model_options={"effort": order.effort} if order.effort else None,
        mode=order.mode,
        allow=order.allow,
        deny=order.deny,
    )


@contextlib.contextmanager
def serving(intern: MLIntern) -> Generator[None]:
    """Other processes and Slack may look and answer while this lasts; where that cannot be had, the work goes on without."""
    from ..gateways.control import ControlServer

    with contextlib.ExitStack() as reachable:
        for reach in (lambda: ControlServer(intern), lambda: beside(intern)):
            try:
                server = reach()
                if server is not None:
                    reachable.enter_context(server)
            except InternError as error:
                print(words.printable(f"{error}\nThe work goes on."), file=sys.stderr)
        yield


def carry_out(conversation: Conversation, intern: MLIntern) -> int:
    with intern:
        try:
            outcome = conversation.run(intern)
        except KeyboardInterrupt:  # here, as leaving the block waits for what runs
            conversation.view.close()
            leave(130)
    conversation.show_rest()
    return EXIT[outcome.state]


def leave(code: int) -> NoReturn:
    """Ends at once, not waiting for threads that wait for a model. The trace is written ahead: nothing is lost."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
