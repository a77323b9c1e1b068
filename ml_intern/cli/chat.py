"""Chat: one conversation over many turns. What is typed while the agent works steers it; its questions come up here.

Everything happens on one thread, in one loop: events come in from the sessions' threads, operations go out to them. The
loop reads one line after the other, and between two lines puts the question that is open.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..errors import InternError
from ..events import ApprovalAnswer, ApprovalAsked, ApprovalRequest, Event, SessionEnded, State
from . import text as words
from .ask import Edited, Withdrawn, dialogue, edited
from .banner import banner
from .paper import Paper
from .partner import Partner
from .render import MODES, Renderer
from .run import EXIT, Order, begin, leave, warnings
from .screen import Screen
from .view import STOPPING

if TYPE_CHECKING:
    from ..session import Session
    from .line import PlainLine, PromptLine


def run(order: Order) -> int:
    """Talks until the person leaves.

    Returns:
        `int`: 0, or 130 when Ctrl-C ended it.
    """
    return asyncio.run(Chat(order).run())


class Chat:
    """A conversation at this terminal.

    Args:
        order (`Order`): What the command line says; its task, if any, is the first message.
    """

    partner: Partner
    line: PromptLine | PlainLine

    def __init__(self, order: Order) -> None:
        self.paper = Paper()
        self.renderer = Renderer(self.paper, order.verbose, conversation=True)
        self.renderer.status.limit_usd = order.budget_usd
        self.leaving = False
        self._order = order
        self._stops = 0
        self._code = 0
        self._asking = ""
        self._editing = False
        self._handling: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._screen = Screen(self.renderer, self._order.verbose, cards=self._order.yes)
        for said in warnings(self._order):
            self.renderer.warn(said)
        self.partner = Partner(self._order, self._told)
        self.line = self._make_line()
        self._listen_to_signals()
        banner(self.paper, self._order)
        showing = self._loop.create_task(self._screen.run(self.line))
        showing.add_done_callback(self._blind)
        try:
            if self._order.task or self._order.again is not None:
                await self._guarded(self._first())
            while not self.leaving:
                await self._once()
        finally:
            showing.cancel()
            await self._close()
        if self._broken is not None:
            raise self._broken
        return self._code

    # A line after the other.

    async def _first(self) -> None:
        order = self._order
        if order.again is not None:
            self.introduce(await self.partner.adopt(lambda: begin(self.partner.intern, order)))
            return
        self._echo(order.task)
        await self.partner.say(order.task)

    async def _once(self) -> None:
        from .line import GiveWay

        self._screen.release()
        if self.partner.questions:
            await self._guarded(self._question(next(iter(self.partner.questions.values()))))
            return
        try:
            text = await self.line.read()
        except GiveWay:
            return
        except KeyboardInterrupt:
            self._ctrl_c()
        except EOFError:
            self._ctrl_d()
        else:
            self._stops = 0
            self._screen.hold()
            self._echo(text)
            await self._guarded(self._obey(text.strip()))

    async def _obey(self, text: str) -> None:
        from .slash import obey

        if not await obey(self, text):
            await self.partner.say(text)

    async def _guarded(self, doing: Coroutine[Any, Any, None]) -> None:
        """What goes wrong is a line, and the conversation goes on; Ctrl-C ends only what is being done."""
        self._handling = self._loop.create_task(doing)
        try:
            await self._handling
        except InternError as error:
            self.renderer.warn(str(error))
        except asyncio.CancelledError:
            self.renderer.warn("interrupted")
        finally:
            self._handling = None

    # Questions.

    async def _question(self, request: ApprovalRequest) -> None:
        self._screen.hold()
        self._screen.draw()
        self._asking = request.call_id
        self.line.forget()
        try:
            answer = await self._dialogue(request)
        finally:
            self._asking = ""
        if answer is not None:
            self.partner.answer(request.call_id, answer)

    async def _dialogue(self, request: ApprovalRequest) -> ApprovalAnswer | None:
        talk = dialogue(self.paper, request, str(self.partner.home / "rules"))
        try:
            need = next(talk)
            while True:
                try:
                    if request.call_id not in self.partner.questions:
                        raise Withdrawn
                    if isinstance(need, Edited):
                        said = await self._edited(need.text)
                    else:
                        said = await self.line.read(need.prompt)
                    if said and said.startswith("/") and await self._obeyed(said.strip()):
                        continue
                except (KeyboardInterrupt, EOFError, Withdrawn) as error:
                    need = talk.throw(error)
                else:
                    need = talk.send(said)
        except StopIteration as end:
            return end.value

    async def _obeyed(self, text: str) -> bool:
        """A command in the middle of a question, which goes on after it."""
        from .slash import obey

        try:
            return await obey(self, text)
        except InternError as error:
            self.renderer.warn(str(error))
            return True

    async def _edited(self, text: str) -> str | None:
        self._editing = True  # Ctrl-C is the editor's
        try:
            return await asyncio.to_thread(edited, text)
        finally:
            self._editing = False

    # Events.

    def _told(self, event: Event) -> None:
        from .line import GiveWay

        if isinstance(event, SessionEnded):
            self._stops = 0
        if self._asking and self._asking not in self.partner.questions:
            self.line.end(Withdrawn())
        elif isinstance(event, ApprovalAsked) and self.partner.questions and not self._asking:
            self.line.end(GiveWay())
        self._screen.add(event)

    def _blind(self, showing: asyncio.Task[None]) -> None:
        """What cannot be shown any more is not gone on with."""
        if not showing.cancelled():
            self._broken = showing.exception()
            self.leaving = True
            self.line.end(EOFError())

    # Stopping.

    def _ctrl_c(self) -> None:
        self._stops += 1
        if self._stops > 1:
            if self.partner.busy:
                self._leave_now()
            self.leaving, self._code = True, EXIT[State.INTERRUPTED]
        elif self.partner.busy and self.partner.session is not None:
            self.renderer.warn(STOPPING)
            self.renderer.status.stopping()
            jobs = self.partner.session.running_jobs()
            self.partner.session.interrupt()
            if jobs:
                self.tell(f"Training goes on ({', '.join(jobs)}): `/jobs stop` ends it.")
        else:
            self.tell("Ctrl-C again leaves, and so does /quit")

    def _ctrl_d(self) -> None:
        if self.partner.busy and not self._stops:
            self.renderer.warn("the agent is working: Ctrl-C stops it; Ctrl-D again, or /quit, leaves")
            self._stops = 1
        else:
            self.leaving = True

    def _signalled(self) -> None:
        """SIGINT: Ctrl-C while no line is read, or one that came from elsewhere."""
        if self._editing:
            return
        if self._handling is not None and not self._asking:
            self._handling.cancel()
        else:
            self.line.end(KeyboardInterrupt())

    def _hung_up(self) -> None:
        """SIGTERM, SIGHUP: leave as with /quit, whatever is going on."""
        self.leaving, self._code = True, EXIT[State.INTERRUPTED]
        if self._handling is not None:
            self._handling.cancel()
        self.line.end(KeyboardInterrupt())

    def _listen_to_signals(self) -> None:
        if os.name == "nt":
            return
        self._loop.add_signal_handler(signal.SIGINT, self._signalled)
        self._loop.add_signal_handler(signal.SIGTERM, self._hung_up)
        self._loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _leave_now(self) -> None:
        """Ends at once. The trace is written ahead: nothing is lost."""
        self._say_how_to_return()
        self.partner.unreachable()
        leave(EXIT[State.INTERRUPTED])

    async def _close(self) -> None:
        self._screen.draw()
        if os.name != "nt":  # from here on Ctrl-C ends the program
            self._loop.remove_signal_handler(signal.SIGINT)
        if self.partner.busy:
            self.tell("stopping the agent…")
        try:
            await asyncio.to_thread(self.partner.close)
        except (KeyboardInterrupt, asyncio.CancelledError):
            self._leave_now()
        self._screen.draw()
        self._say_how_to_return()

    def _say_how_to_return(self) -> None:
        session = self.partner.session
        if session is not None and session.trace.exists():
            from .app import PROGRAM

            self.paper.gap()
            self.paper.put(Text(f"To go on with it: {PROGRAM} resume {session.id[:8]}", "dim"))

    # How it looks.

    def tell(self, text: str) -> None:
        """A line from the command line itself."""
        self.paper.put(text, 2, 4)

    def row(self, label: str, text: str) -> None:
        self.paper.row(label, words.printable(text))

    def introduce(self, session: Session) -> None:
        """Which session it is that goes on."""
        from ..trace.listing import describe

        info = describe(session.trace)
        self.row("session", f"{info.title if info else session.title} ({session.id[:8]}, {session.state})")
        if session.mode != self.partner.order.mode:
            self.row("mode", f"{session.mode}: {MODES[session.mode]}")
        self.paper.gap()

    def _echo(self, text: str) -> None:
        if not self.line.echoes:
            self.paper.gap()
            self.paper.put(Text.assemble(("› ", "bold cyan"), (words.printable(text), "bold")), 0, 2)
        if self.partner.busy and not text.startswith("/"):
            self.paper.put(Text("the model reads this with its next step", "dim"), 2)

    def _make_line(self) -> PromptLine | PlainLine:
        from .line import PlainLine, PromptLine, Surroundings
        from .slash import complete

        around = Surroundings(lambda: self.partner.busy, self._status, self._mark, self._hint)
        if self.paper.console.is_dumb_terminal:
            return PlainLine(around)
        try:
            return PromptLine(around, lambda text: complete(self, text), self.partner.home / "history")
        except OSError as error:
            self.renderer.warn(f"What you type is not remembered: {error.strerror} ({error.filename})")
            return PromptLine(around, lambda text: complete(self, text))

    def _status(self) -> str:
        return self._screen.status() if self.partner.busy else ""

    def _mark(self) -> str:
        return "› " if self.partner.mode == "ask" else f"{self.partner.mode} › "

    def _hint(self) -> str:
        return "a word to the agent; Ctrl-C stops it" if self.partner.busy else "a task, or /help"
