"""How a session is shown: as JSON lines to a program, as text to a person."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from ..events import ApprovalAnswer, ApprovalRequest, Event

STOPPING = "stopping; press Ctrl-C again to quit"


class View(Protocol):
    """How a session is shown."""

    asks: bool
    """Whether there is a person who can answer."""

    def start(self) -> None: ...
    def show(self, event: Event) -> None: ...
    def tell(self, text: str) -> None: ...
    def stopping(self) -> None: ...
    def card(self, request: ApprovalRequest) -> None: ...
    def ask(self, request: ApprovalRequest, withdrawn: Callable[[], bool]) -> ApprovalAnswer | None: ...
    def close(self) -> None: ...


class JsonView:
    """Every event as a line of JSON on standard output, and nothing else there."""

    asks = False

    def start(self) -> None:
        pass

    def show(self, event: Event) -> None:
        sys.stdout.write(event.to_json() + "\n")
        sys.stdout.flush()

    def tell(self, text: str) -> None:
        print(text, file=sys.stderr)

    def stopping(self) -> None:
        self.tell(STOPPING)

    def card(self, request: ApprovalRequest) -> None:
        pass  # the event has it

    def ask(self, request: ApprovalRequest, withdrawn: Callable[[], bool]) -> ApprovalAnswer | None:
        raise NotImplementedError("Nobody can be asked: see `asks`.")

    def close(self) -> None:
        pass


class PersonView:
    """Text for a person: alive on a terminal, plain in a file."""

    saved_in = ""
    """The file that keeps rules for good."""

    def __init__(self, verbose: bool) -> None:
        from .paper import Paper
        from .render import Renderer

        self.paper = Paper()
        self.renderer = Renderer(self.paper, verbose)
        self.asks = self.paper.terminal and sys.stdin.isatty()

    def start(self) -> None:
        self.renderer.status.start()

    def show(self, event: Event) -> None:
        self.renderer.show(event)
        if not self.paper.terminal:
            sys.stdout.flush()

    def tell(self, text: str) -> None:
        self.renderer.warn(text)

    def stopping(self) -> None:
        self.tell(STOPPING)
        self.renderer.status.stopping()

    def card(self, request: ApprovalRequest) -> None:
        from .card import card

        card(self.paper, request)

    def ask(self, request: ApprovalRequest, withdrawn: Callable[[], bool]) -> ApprovalAnswer | None:
        from .ask import ask

        with self.renderer.pause():
            return ask(self.paper, request, withdrawn, self.saved_in)

    def close(self) -> None:
        self.renderer.close()
