"""A notebook's cells: what they print, show and give, reported as E2B's code interpreter reports it.

Standard library only and self-contained, as its text is run where the cells run: in the jail behind the
`python_sandbox` tool, and in the boxes of the local E2B cloud. Every report is a dict with a `type`: `stdout`,
`stderr`, `result`, `error`, `number_of_executions`, `end_of_execution`.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import io
import json
import linecache
import sys
import time
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

Emit = Callable[[dict[str, Any]], None]
REPRESENTATIONS = {"_repr_html_": "html", "_repr_markdown_": "markdown", "_repr_svg_": "svg", "_repr_latex_": "latex",
                   "_repr_png_": "png", "_repr_jpeg_": "jpeg"}  # fmt: skip
FLUSH_CHARACTERS, FLUSH_SECONDS = 8192, 0.1
LONGEST_TEXT = 1_000_000
HERE = (lambda: 0).__code__.co_filename


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a cell: reports what is written in pieces, often enough to be watched."""

    encoding, errors = "utf-8", "replace"

    def __init__(self, kind: str, number: int, emit: Emit) -> None:
        self.kind, self.number, self.emit = kind, number, emit
        self.pieces: list[str] = []
        self.size, self.sent = 0, time.monotonic()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def write(self, text: str) -> int:
        self.pieces.append(text)
        self.size += len(text)
        if self.size > FLUSH_CHARACTERS or time.monotonic() - self.sent > FLUSH_SECONDS:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if self.pieces:
            text, self.pieces, self.size = "".join(self.pieces), [], 0
            self.emit({"type": self.kind, "text": text})
        self.sent = time.monotonic()


class Notebook:
    """Runs cells in one lasting namespace.

    Args:
        emit (`Callable[[dict], None]`): Gets every report as it comes.
    """

    def __init__(self, emit: Emit) -> None:
        self.emit, self.count = emit, 0
        self.module = ModuleType("__main__")
        self.module.__dict__["display"] = self.display
        self.shown: list[Any] = []
        self.loop: asyncio.AbstractEventLoop | None = None

    def run(self, source: str) -> None:
        """Runs a cell. Only `KeyboardInterrupt` comes out of it, after it has been reported."""
        self.count += 1
        self.shown = []
        self.emit({"type": "number_of_executions", "execution_count": self.count})
        before = sys.stdout, sys.stderr, sys.modules.get("__main__")
        streams = Stream("stdout", 1, self.emit), Stream("stderr", 2, self.emit)
        sys.stdout, sys.stderr = streams
        sys.modules["__main__"] = self.module
        try:
            value = self.evaluate(source, f"<cell {self.count}>")
            if value is not None:
                self.show(value, main=True)
            self.figures()
        except BaseException as error:
            for stream in streams:
                stream.flush()
            if not (isinstance(error, SystemExit) and error.code in (None, 0)):
                self.emit({"type": "error", **self.explain(error)})
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            for stream in streams:
                stream.flush()
            sys.stdout, sys.stderr = before[:2]
            sys.modules["__main__"] = before[2] or self.module
            self.emit({"type": "end_of_execution"})

    def evaluate(self, source: str, filename: str) -> Any:
        linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
        tree: Any = compile(source, filename, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
        last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        self.step(compile(tree, filename, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True))
        return self.step(compile(last, filename, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)) if last else None

    def step(self, code: Any) -> Any:
        if not code.co_flags & 0x80:
            return eval(code, self.module.__dict__)
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        return self.loop.run_until_complete(eval(code, self.module.__dict__))

    def explain(self, error: BaseException) -> dict[str, str]:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == HERE:
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace)
        try:
            value = str(error)
        except Exception as second:  # noqa: BLE001 - the code's own __str__
            value = f"<its text failed: {type(second).__name__}>"
        return {"name": type(error).__name__, "value": value[:LONGEST_TEXT], "traceback": "".join(lines)[-20_000:]}

    def display(self, *values: Any) -> None:
        """Shows values as a notebook does."""
        for value in values:
            self.show(value)

    def show(self, value: Any, *, main: bool = False) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.shown.append(value)
        self.emit({"type": "result", "is_main_result": main, **self.represent(value)})

    def represent(self, value: Any) -> dict[str, Any]:
        text = repr(value)
        if isinstance(value, str) and len(text) > 1 and text[0] == text[-1]:
            text = text[1:-1]  # E2B's own reading of a string
        made: dict[str, Any] = {"text": text[:LONGEST_TEXT]}
        for method, kind in REPRESENTATIONS.items():
            shown = getattr(value, method, None)
            if shown is None or isinstance(value, type):
                continue
            data = shown()
            if isinstance(data, tuple):
                data = data[0]
            if data is not None:
                made[kind] = base64.b64encode(data).decode() if isinstance(data, bytes) else data
        if hasattr(value, "savefig"):
            buffer = io.BytesIO()
            value.savefig(buffer, format="png")
            made["png"] = base64.b64encode(buffer.getvalue()).decode()
            if found := chart(value):
                made["chart"] = found
        elif isinstance(value, (list, dict)):
            made |= plain("json", value)
        elif type(value).__name__ == "DataFrame" and hasattr(value, "to_dict"):
            made |= plain("data", value.to_dict(orient="list"))
        return made

    def figures(self) -> None:
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        for number in pyplot.get_fignums() if pyplot is not None else ():
            figure = pyplot.figure(number)
            if not any(figure is shown for shown in self.shown):
                self.show(figure)
            pyplot.close(figure)


def plain(kind: str, value: Any) -> dict[str, Any]:
    """As JSON, if it is any."""
    try:
        return {kind: json.loads(json.dumps(value, default=str))}
    except (TypeError, ValueError, RecursionError):
        return {}


def chart(figure: Any) -> dict[str, Any] | None:
    """What a figure shows, as numbers: lines, scatters, bars and pies."""
    charts = [found for axes in figure.axes if (found := axes_chart(axes))]
    if len(charts) < 2:
        return charts[0] if charts else None
    return {"type": "superchart", "title": None, "elements": charts}


def axes_chart(axes: Any) -> dict[str, Any] | None:
    named = {"title": axes.get_title() or None}
    wedges = [patch for patch in axes.patches if type(patch).__name__ == "Wedge"]
    if wedges:
        pie = [{"label": w.get_label(), "angle": float(w.theta2 - w.theta1), "radius": float(w.r)} for w in wedges]
        return {"type": "pie", **named, "elements": pie}
    named |= {
        "x_label": axes.get_xlabel() or None,
        "y_label": axes.get_ylabel() or None,
        "x_unit": None,
        "y_unit": None,
    }
    ticks = {
        "x_ticks": [float(tick) for tick in axes.get_xticks()],
        "x_tick_labels": [label.get_text() for label in axes.get_xticklabels()],
        "x_scale": axes.get_xscale(),
        "y_ticks": [float(tick) for tick in axes.get_yticks()],
        "y_tick_labels": [label.get_text() for label in axes.get_yticklabels()],
        "y_scale": axes.get_yscale(),
    }
    if axes.lines:
        found = [{"label": line.get_label(), "points": points(line.get_xydata())} for line in axes.lines]
        return {"type": "line", **named, **ticks, "elements": found}
    clouds = [part for part in axes.collections if type(part).__name__ == "PathCollection"]
    if clouds:
        found = [{"label": part.get_label(), "points": points(part.get_offsets())} for part in clouds]
        return {"type": "scatter", **named, **ticks, "elements": found}
    bars = [{"label": label, "group": container.get_label(), "value": float(bar.get_height())}
            for container in axes.containers
            for label, bar in zip(labels(axes, container), container, strict=False)]  # fmt: skip
    return {"type": "bar", **named, "elements": bars} if bars else None


def labels(axes: Any, container: Any) -> list[str]:
    """The names below bars; their places where there are none."""
    names = {
        float(tick): label.get_text() for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=False)
    }
    places = [float(bar.get_x() + bar.get_width() / 2) for bar in container]
    return [names.get(place) or f"{place:g}" for place in places]


def points(pairs: Any) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in pairs]
