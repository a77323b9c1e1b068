"""The curves of a training run: as text, for terminals and models, and as a picture where matplotlib is installed."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .watching import Point, series

PANELS = (
    ("loss", ("loss", "eval_loss")),
    ("learning rate", ("learning_rate",)),
    ("gradient norm", ("grad_norm",)),
    ("samples a second", ("samples_per_second",)),
    ("tokens a second", ("tokens_per_second",)),
    ("memory, GB", ("memory_gb",)),
    ("GPU, %", ("gpu_utilization",)),
)
"""What is shown together, after which come the evaluation's other metrics, each by itself."""
OTHERS = ("eval_loss", "_runtime", "_per_second", "_num_tokens")
"""What begins like a metric of the evaluation and is shown with something else, or tells only what it took."""
MOST = 8
"""Metrics of the evaluation that are shown: those that trainers break down (`a/b`) last, and where they change."""
BARS = "▁▂▃▄▅▆▇█"
MARKS = "●○"
LARGEST = 1e300
"""Beyond it, a number is none that a chart has room for."""


def panels(points: Sequence[Point]) -> list[tuple[str, list[tuple[str, list[tuple[int, float]]]]]]:
    """Title and series of each panel that has something to show; values that are no numbers are left out."""
    names = {name for point in points for name in point if name.startswith("eval_") and not name.endswith(OTHERS)}
    names = {name for name in names if "/" not in name or len({value for _, value in series(points, name)}) > 1}
    judged = sorted(names, key=lambda name: ("/" in name, name))[:MOST]
    wanted = [PANELS[0], *((name, (name, name.removeprefix("eval_"))) for name in judged), *PANELS[1:]]
    found = []
    for title, members in wanted:
        lines = [(name, _finite(series(points, name))) for name in members]
        if shown := [(name, line) for name, line in lines if line]:
            found.append((title, shown))
    return found


def sketch(points: Sequence[Point], width: int = 60, height: int = 8) -> str:
    """Curves as plain text: losses as a chart, everything else a line each.

    Args:
        points (`Sequence`): The metrics.
        width (`int`, defaults to 60), height (`int`, defaults to 8): Of the chart, in characters.
    """
    parts = []
    for title, lines in panels(points):
        if title == "loss":
            parts.append(_chart(lines, width, height))
        else:
            parts += [_line(name, line, width) for name, line in lines]
    return "\n".join(parts)


def picture(points: Sequence[Point], title: str = "") -> bytes | None:
    """Curves as a PNG; `None` where matplotlib is not installed, or there is nothing to show."""
    shown = panels(points)
    if not shown:
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(5.5 * columns, 2.9 * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for at, (name, lines) in enumerate(shown):
        axes = figure.add_subplot(rows, columns, at + 1)
        for label, line in lines:
            steps, values = zip(*line, strict=True)
            axes.plot(steps, values, label=label, marker="o" if len(line) < 30 else "", markersize=3, linewidth=1.2)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=8)
    if title:
        figure.suptitle(title.replace("$", r"\$"), fontsize=11)
    file = io.BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _finite(line: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, value) for step, value in line if abs(value) < LARGEST]


def _thinned(line: Sequence[tuple[int, float]], width: int) -> list[float]:
    """At most `width` values, each the mean of its share."""
    if len(line) <= width:
        return [value for _, value in line]
    cuts = [at * len(line) // width for at in range(width + 1)]
    return [sum(value for _, value in line[a:b]) / (b - a) for a, b in pairwise(cuts)]


def _line(name: str, line: Sequence[tuple[int, float]], width: int) -> str:
    values = _thinned(line, width - 20)
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    bars = "".join(BARS[round((value - low) * scale)] for value in values)
    return f"{name}: {_short(line[0][1])} {bars} {_short(line[-1][1])}"


def _chart(lines: Sequence[tuple[str, Sequence[tuple[int, float]]]], width: int, height: int) -> str:
    every = [pair for _, line in lines for pair in line]
    low, high = min(value for _, value in every), max(value for _, value in every)
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    grid: list[list[str]] = [[" "] * width for _ in range(height)]
    for (_, line), mark in zip(lines, MARKS, strict=False):
        for column, level in _columns(line, first, last, width):
            row = height - 1 - (round((level - low) / (high - low) * (height - 1)) if high > low else 0)
            grid[row][column] = mark
    labels = [_short(high), *[""] * (height - 2), _short(low)]
    margin = max(map(len, labels))
    legend = ", ".join(
        f"{mark} {name} (now {_short(line[-1][1])})" for (name, line), mark in zip(lines, MARKS, strict=False)
    )
    rows = [f"{label:>{margin}} ┤{''.join(cells).rstrip()}" for label, cells in zip(labels, grid, strict=True)]
    axis = f"{'':>{margin}} └{'─' * width}"
    steps = f"{'':>{margin}}  step {first}{last!s:>{max(1, width - len(f'step {first}'))}}"
    return "\n".join([legend, *rows, axis, steps])


def _columns(line: Sequence[tuple[int, float]], first: int, last: int, width: int) -> list[tuple[int, float]]:
    """The mean of what falls in each column that has something."""
    found: dict[int, list[Any]] = {}
    for step, value in line:
        column = (step - first) * (width - 1) // (last - first) if last > first else 0
        found.setdefault(column, []).append(value)
    return [(column, sum(values) / len(values)) for column, values in sorted(found.items())]


def _short(value: float) -> str:
    return f"{value:.4g}"
