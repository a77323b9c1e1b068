"""What the numbers of a training run say while it runs: pure functions from metrics to findings.

What must never happen here: a run that learns is called a failure for its noise; one that has gone wrong is let run because
a single number looks fine. So levels are medians of several points, and every threshold is a multiple of the run's own noise.

A point is a line of `metrics.jsonl`: `step`, `time` (seconds since the epoch), and any of `loss`, `eval_loss`, `learning_rate`,
`grad_norm`, `samples_per_second`, `tokens_per_second`, `memory_gb`, `gpu_utilization` and others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

Point = Mapping[str, Any]
_LINE = re.compile(r"^@metrics (\{.*\})\s*$", re.MULTILINE)
LEVEL = 5
"""Points whose median is a level."""
ENOUGH = 12
"""Points before which a rise may be anything."""
BROKEN_GRADIENTS, IDLE_POINTS, IDLE_SECONDS = 3, 10, 60.0
LAST_WORDS_SECONDS = 3600.0
"""After the last step nothing is told while weights are merged, written and pushed."""
STALLED_SECONDS, PLATEAU_POINTS, WORSE_EVALUATIONS = 600.0, 80, 3
SLOW_POINTS, SLOW_SECONDS, SLOW_MARGIN = 5, 30.0, 1.05


@dataclass(frozen=True)
class Finding:
    """Something that a person should know of a run.

    Args:
        kind (`str`): `nan`, `divergence`, `too_slow`, `stalled`, `idle_gpu`, `overfitting` or `plateau`.
        text (`str`): What it is and what helps, in a line or two.
        step (`int`, *optional*): Of the run, where it was seen first.
        serious (`bool`): Whether going on as it is cannot lead anywhere.
    """

    kind: str
    text: str
    step: int | None = None
    serious: bool = False


@dataclass(frozen=True)
class Clock:
    """What is known of a run's time: now, when it is ended, how many steps it has; `None` where nobody knows."""

    now: float | None = None
    ends: float | None = None
    total_steps: int | None = None


def points_in(text: str) -> list[dict[str, Any]]:
    """The points that a log tells, in the order of their steps as they came; lines that are no metrics are passed over."""
    found = []
    for match in _LINE.finditer(text):
        try:
            point = json.loads(match[1])
        except ValueError:
            continue
        if isinstance(point, dict) and _is_number(point.get("step")):
            found.append(point)
    return found


def findings(points: Sequence[Point], clock: Clock | None = None) -> list[Finding]:
    """What is to be said of a run as it stands, the serious first; each kind at most once."""
    clock = clock or Clock()
    broken = _not_a_number(points) or _divergence(points)
    found = [
        broken,
        _too_slow(points, clock),
        _stalled(points, clock),
        _idle(points),
        None if broken else (_overfitting(points) or _plateau(points)),
    ]
    return sorted((one for one in found if one is not None), key=lambda one: not one.serious)


def series(points: Iterable[Point], name: str) -> list[tuple[int, float]]:
    """Step and value of the points that have `name`, values that are no numbers included as `nan`."""
    found = []
    for point in points:
        value = point.get(name)
        if isinstance(value, str) and value.strip().lower() in ("nan", "inf", "infinity", "-inf", "-infinity"):
            value = float(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append((int(point["step"]), float(value)))
    return found


def noise(values: Sequence[float]) -> float:
    """The spread of a series round its own course: robust, from the differences of neighbours."""
    steps = [after - before for before, after in pairwise(values)]
    if len(steps) < 3:
        return 0.0
    middle = median(steps)
    return 1.4826 * median(abs(step - middle) for step in steps) / math.sqrt(2)


def _levels(values: Sequence[float]) -> list[float]:
    return [median(values[at : at + LEVEL]) for at in range(len(values) - LEVEL + 1)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _not_a_number(points: Sequence[Point]) -> Finding | None:
    for name in ("loss", "eval_loss"):
        for step, value in series(points, name):
            if not math.isfinite(value):
                return Finding(
                    "nan",
                    f"{name} is {value} at step {step}. Stop it: nothing is learned any more. Lower the learning rate, clip "
                    "gradients, train in bf16 rather than fp16, and look for empty or broken examples.",
                    step,
                    True,
                )
    gradients = series(points, "grad_norm")
    run = 0
    for step, value in gradients:
        run = 0 if math.isfinite(value) else run + 1  # mixed precision skips single steps on purpose
        if run >= BROKEN_GRADIENTS:
            return Finding(
                "nan",
                f"Gradients are {value} for {run} logs in a row, at step {step}. Stop it: lower the learning rate, train in "
                "bf16 rather than fp16.",
                step,
                True,
            )
    return None


def _course(points: Sequence[Point]) -> tuple[str, list[tuple[int, float]]]:
    """What a run brings down, and how that went: its loss; where it learns from rewards, these with their sign turned.

    The loss of such a run is about nothing by its making, with either sign, and rises with what the model learns.
    """
    rewards = series(points, "reward")
    return ("reward", [(step, -value) for step, value in rewards]) if rewards else ("loss", series(points, "loss"))


def _divergence(points: Sequence[Point]) -> Finding | None:
    name, course = _course(points)
    values = [value for _, value in course]
    levels = _levels(values)
    if len(levels) < 4:
        return None
    best_at, best = 0, levels[0]
    top = drop = 0.0
    above, spread = 0, None
    for at, level in enumerate(levels):
        top = max(top, level) if at else level
        if level < best:
            best_at, best, drop, above, spread = at, level, top - level, 0, None
            continue
        rise = level - best
        if rise > max(0.2 * abs(best), 0.3 * drop):
            if spread is None or best_at + LEVEL < 8:
                spread = noise(values[: best_at + LEVEL] if best_at + LEVEL >= 8 else values[: at + 1])
            above = above + 1 if rise > 8 * spread and at + LEVEL >= ENOUGH else 0
        else:
            above = 0
        if above >= LEVEL or (above and at >= 3 and rise > 5 * max(abs(best), abs(top))):
            step = course[best_at + LEVEL - 1][0]
            then, now, way = (best, levels[-1], "up") if name == "loss" else (-best, -levels[-1], "down")
            return Finding(
                "divergence",
                f"The {name} goes {way} since step {step}: {then:.4g} then, {now:.4g} now. Stop it and go back to a "
                "checkpoint of before, with a lower learning rate (a third of it), more warm-up, gradient clipping.",
                course[at + LEVEL - 1][0],
                True,
            )
    return None


def _overfitting(points: Sequence[Point]) -> Finding | None:
    evaluated = [(step, value) for step, value in series(points, "eval_loss") if math.isfinite(value)]
    if len(evaluated) < WORSE_EVALUATIONS + 1 or _course(points)[0] == "reward":
        return None
    step, best = min(evaluated, key=lambda pair: pair[1])
    after = [value for at, value in evaluated if at > step]
    if len(after) < WORSE_EVALUATIONS:
        return None
    last = after[-WORSE_EVALUATIONS:]
    margin = max(0.02 * abs(best), 3 * noise([value for at, value in evaluated if at <= step]))
    if min(last) <= best + margin or last[-1] < last[0] - margin:
        return None
    trained = series(points, "loss")
    then = [value for at, value in trained if at <= step][-LEVEL:]
    now = [value for _, value in trained][-LEVEL:]
    if then and now and median(now) > median(then):
        return None  # both go up: that is no overfitting
    return Finding(
        "overfitting",
        f"Evaluation is best at step {step} (eval_loss {best:.4g}) and worse since: {last[-1]:.4g} now, while the training loss "
        "falls. Stop early and take that checkpoint; fewer epochs, more data, weight decay or dropout.",
        evaluated[-1][0],
    )


def _plateau(points: Sequence[Point]) -> Finding | None:
    name, course = _course(points)
    course = [(step, value) for step, value in course if math.isfinite(value)]
    values = [value for _, value in course]
    if len(values) < PLATEAU_POINTS:
        return None
    third = len(values) // 3
    before, now = values[-2 * third : -third], values[-third:]
    first, last, spread = median(values[:LEVEL]), median(values[-LEVEL:]), noise(values)
    learned = first - last > 4 * spread / math.sqrt(LEVEL)
    gained = _trimmed(before) - _trimmed(now)
    at_most = gained + 3 * spread * math.sqrt(2 / third)  # what may be hidden in the noise
    if at_most > 0.02 * (first - last if learned else abs(first)):
        return None
    evaluated = [value for _, value in series(points, "eval_loss") if math.isfinite(value)]
    if name == "loss" and len(evaluated) >= 2 and evaluated[-1] < min(evaluated[:-1]) * (1 - 1e-3):
        return None  # what counts still improves
    since = course[-2 * third][0]
    advice = (
        "It may have learned what it can: end it, or lower the learning rate."
        if learned
        else "It has learned nothing so far: check labels and inputs, raise the learning rate, unfreeze more."
    )
    said = f"loss has not fallen since step {since} (about {last:.4g})"
    if name == "reward":
        said = f"reward has not risen since step {since} (about {-last:.4g})"
    return Finding("plateau", f"The {said}. {advice}", course[-1][0], False)


def _trimmed(values: Sequence[float]) -> float:
    cut = len(values) // 10
    return fmean(sorted(values)[cut : len(values) - cut])


def _idle(points: Sequence[Point]) -> Finding | None:
    used = [(point, float(point["gpu_utilization"])) for point in points if _is_number(point.get("gpu_utilization"))]
    last = used[-IDLE_POINTS:]
    if len(last) < IDLE_POINTS:
        return None
    idle = 0.05 if max(value for _, value in used) <= 1 else 5.0  # a part of one, or per cent
    times = [float(point["time"]) for point, _ in last if _is_number(point.get("time"))]
    if max(value for _, value in last) > idle or len(times) < 2 or times[-1] - times[0] < IDLE_SECONDS:
        return None
    step = int(last[0][0]["step"])
    return Finding(
        "idle_gpu",
        f"The GPU has done nothing since step {step}. Is the model on it (device, `use_cpu`)? Else data comes too slowly: "
        "tokenize beforehand, more `dataloader_num_workers`.",
        step,
    )


def _timed(points: Sequence[Point]) -> list[tuple[int, float]]:
    found = [(int(point["step"]), float(point["time"])) for point in points if _is_number(point.get("time"))]
    return [pair for at, pair in enumerate(found) if at == 0 or pair[0] >= found[at - 1][0]]


def _stalled(points: Sequence[Point], clock: Clock) -> Finding | None:
    times = [at for _, at in _timed(points)]
    if clock.now is None or len(times) < 3:
        return None
    longest = max(after - before for before, after in pairwise(times))
    silent = clock.now - times[-1]
    step = int(points[-1]["step"])
    patience = LAST_WORDS_SECONDS if clock.total_steps and step >= clock.total_steps else STALLED_SECONDS
    if silent <= max(patience, 10 * longest):
        return None
    return Finding(
        "stalled",
        f"Nothing was heard of it for {silent / 60:.0f} minutes, since step {step}: before, the longest silence was "
        f"{longest:.0f} s. It may hang (a data loader, a network, a lock between processes): look at its log, then stop it.",
        step,
        True,
    )


def _too_slow(points: Sequence[Point], clock: Clock) -> Finding | None:
    timed = _timed(points)
    if clock.ends is None or not clock.total_steps or len(timed) < SLOW_POINTS:
        return None
    (first, begun), (step, now) = timed[0], timed[-1]
    if step <= first or now - begun < SLOW_SECONDS or step >= clock.total_steps:
        return None
    a_step = (now - begun) / (step - first)  # evaluations and checkpoints included
    needed, left = a_step * (clock.total_steps - step), clock.ends - now
    if needed <= left * SLOW_MARGIN:
        return None
    fits = step + max(0, int(left / a_step))
    return Finding(
        "too_slow",
        f"It will not be done in time: {clock.total_steps - step} steps take {_spell(needed)} more at {a_step:.3g} s each, and "
        f"it is ended in {_spell(max(left, 0))}, at about step {fits}. Stop it and give it more time, fewer steps or faster "
        "hardware.",
        step,
        True,
    )


def _spell(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )
