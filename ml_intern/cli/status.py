"""The moving line at the bottom of the terminal: what goes on now, for how long, and what it has cost so far."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from ..events import (
    ApprovalAsked,
    CodePrinted,
    Event,
    ModelAnswered,
    ModelDelta,
    SessionEnded,
    SessionStarted,
    StepFinished,
    StepStarted,
    ToolCalled,
    ToolReturned,
    Usage,
    Waiting,
)
from . import text as words
from .paper import Paper

OUTPUT_LINES = 3


class Status:
    """Follows the events, and draws itself ten times a second while there is a terminal.

    Args:
        paper (`Paper`): Where to; without a terminal nothing is drawn.
    """

    def __init__(self, paper: Paper) -> None:
        self.usage = Usage()
        self.limit_usd: float | None = None
        """The budget, shown beside what was spent."""
        self._live: Live | None = None
        if paper.terminal and not paper.console.is_dumb_terminal:
            self._live = Live(self, console=paper.console, refresh_per_second=10, transient=True)
        self._spinner = Spinner("dots" if paper.console.encoding.startswith("utf") else "line", style="cyan")
        self._step = 0
        self._doing = "starting"
        self._since = time.monotonic()
        self._waiting: tuple[str, float] | None = None
        self._stopping: float | None = None
        self._tail = ""
        self._calls: dict[str, tuple[str, Mapping[str, Any], float]] = {}
        self._returned: tuple[str, Mapping[str, Any]] = ("", {})

    def start(self) -> None:
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()

    def stopping(self) -> None:
        self._stopping = time.monotonic()

    @contextmanager
    def away(self) -> Generator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def returned(self, event: ToolReturned) -> tuple[str, Mapping[str, Any]]:
        """The call that `event` answers: its tool and its arguments."""
        return self._returned

    def note(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case SessionStarted():
                self._do("starting", now)
            case StepStarted():
                self._step = event.step
                self._do("thinking", now)
            case ModelDelta():
                self._waiting = None
                self._tail = (self._tail + event.text)[-2000:]
            case ModelAnswered():
                self.usage = event.usage
                self._do("running code" if event.code else "thinking", now)
            case ToolCalled():
                self._calls[event.call_id] = (event.tool, event.arguments, now)
            case ToolReturned():
                tool, arguments, _ = self._calls.pop(event.call_id, (event.tool, {}, now))
                self._returned = (tool, arguments)
            case CodePrinted():
                self._tail = (self._tail + event.text)[-20_000:]
            case StepFinished():
                self._calls.clear()
                self._do("between steps", now)
            case Waiting():
                self._waiting = (event.on, now) if event.on else None
            case ApprovalAsked():
                self._waiting = ("your answer", now)
            case SessionEnded():
                self.usage = event.outcome.usage
        if not isinstance(event, Waiting | ApprovalAsked | ModelDelta | CodePrinted):
            self._waiting = None

    def _do(self, doing: str, now: float) -> None:
        self._doing, self._since, self._tail = doing, now, ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by the drawing thread: it only reads."""
        now = time.monotonic()
        width = options.max_width
        if self._doing == "running code":
            for line in words.last_lines(self._tail, OUTPUT_LINES)[0]:
                yield _cut(Text(f"  │ {words.one_line(line)}", "dim"), width - 1)
        step = f"step {self._step} " if self._step else ""
        limit = f" of {words.money(self.limit_usd)}" if self.limit_usd is not None else ""
        cost = f"  {spent(self.usage)}{limit}" if self._step else ""
        doing, since = self._activity()
        clock = f"  {_clock(now - since)}"
        room = width - 4 - len(step) - len(clock) - len(cost)
        line = Text.assemble((step, "bold"), _cut(Text(doing), max(room, 12)), clock, (cost, "dim"))
        said = words.one_line(" ".join(self._tail.split())) if self._doing == "thinking" else ""
        if said and room - len(doing) > 12:
            line.append(
                "  " + (said if len(said) < room - len(doing) else "…" + said[len(doing) + 3 - room :]), "dim italic"
            )
        frame = self._spinner.render(console.get_time())
        yield _cut(Text.assemble(frame if isinstance(frame, Text) else "", " ", line), width - 1)

    def _activity(self) -> tuple[str, float]:
        """What goes on, and since when."""
        if self._stopping is not None:
            return "stopping", self._stopping
        waiting = self._waiting
        if waiting:
            on, since = waiting
            return words.one_line(on if on.split(" ")[0].endswith("ing") else f"waiting for {on}"), since
        running = list(self._calls.values())
        if running:
            tool, arguments, since = running[-1]
            others = f"{len(running)} calls, " if len(running) > 1 else ""
            return others + words.call(tool, arguments, 200), since
        return self._doing, self._since


def spent(usage: Usage) -> str:
    """What a session has used: `10.4k tokens · $0.02`."""
    return f"{words.amount(usage.input_tokens + usage.output_tokens)} tokens · {words.money(usage.cost_usd)}"


def _cut(line: Text, width: int) -> Text:
    line.truncate(max(width, 1), overflow="ellipsis")
    line.no_wrap = True
    return line


def _clock(seconds: float) -> str:
    return f"{int(seconds)} s" if seconds < 10 else words.duration(seconds)
