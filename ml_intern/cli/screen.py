"""What happens, drawn above the line where a person types; or not yet, while a question must stand undisturbed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..events import ApprovalAsked, CodePrinted, Event, ModelDelta, StepStarted, ToolCalled, Waiting
from .card import card
from .render import Renderer

if TYPE_CHECKING:
    from .line import PlainLine, PromptLine

QUIET = (ModelDelta, Waiting, ToolCalled, ApprovalAsked, StepStarted, CodePrinted)
"""Events of which only the status tells."""


class Screen:
    """Takes events as they come and draws them in order.

    Args:
        renderer (`Renderer`): How they look.
        verbose (`bool`): Whether nothing is quiet.
        cards (`bool`): Whether what is asked is shown here, as no question shows it.
    """

    def __init__(self, renderer: Renderer, verbose: bool, cards: bool) -> None:
        self.renderer = renderer
        self._verbose, self._cards = verbose, cards
        self._unshown: list[Event] = []
        self._held = False
        self._news = asyncio.Event()

    def add(self, event: Event) -> None:
        self._unshown.append(event)
        self._news.set()

    def hold(self) -> None:
        """Nothing is drawn until [`release`]: a question, or the answer to a command, stands undisturbed."""
        self._held = True

    def release(self) -> None:
        self._held = False
        if self._unshown:
            self._news.set()

    def draw(self) -> None:
        """Draws all there is, now: nobody is typing."""
        events, self._unshown = self._unshown, []
        for event in events:
            if self._cards and isinstance(event, ApprovalAsked):
                card(self.renderer.paper, event.request)
            self.renderer.show(event)

    def status(self) -> str:
        """What goes on now, as text for a terminal."""
        console = self.renderer.paper.console
        with console.capture() as capture:
            console.print(self.renderer.status)
        return capture.get().rstrip("\n")

    async def run(self, line: PromptLine | PlainLine) -> None:
        """Draws what comes, above `line`, until it is cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._held:
                continue
            if all(isinstance(event, QUIET) for event in self._unshown) and not (self._verbose or self._cards):
                self.draw()
            else:
                await line.draw(self.draw)
