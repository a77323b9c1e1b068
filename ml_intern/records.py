"""Records: what the training runs and evaluations of a session came to. The journal holds them, this keeps the newest of each.

What must never happen here: an evaluation that nobody measured passes for one, because a trace of somebody else's said so
(a fork of one brings none along); a run that failed stands as the best; what is shown is not what is on record.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

EXPERIMENT, EVALUATION = "experiment", "evaluation"
KINDS = (EXPERIMENT, EVALUATION)
_ID = {EXPERIMENT: re.compile(r"run_\w{6,}"), EVALUATION: re.compile(r"eval_\w{6,}")}
FILE = "experiments.jsonl"
"""In the session's folder, for people: one object a line, the last one of an `id` counts."""
HELD_OUT = "held_out"
"""In the session's folder, out of the jail's reach: labels of held-out data."""


class Records:
    """Training runs (`experiment`) and evaluations (`evaluation`) of a session, as plain data with an `id` each.

    Args:
        folder (`Path`): The session's, beside its workspace.
        note (`Callable[..., Any]`): Puts a row on record: `note(kind, data=...)`.
        known (`Iterable[tuple[str, dict]]`, *optional*): Rows that are on record already, oldest first.
        masked (`Callable[[dict], dict]`, *optional*): Masks secrets.
        warn (`Callable[[str], None]`, *optional*): Told where the file for people cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        note: Callable[..., Any],
        known: Iterable[tuple[str, dict[str, Any]]] = (),
        masked: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder, self._note, self._masked, self._warn = folder, note, masked, warn
        self._rows: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        for kind, data in known:
            if kind in KINDS and isinstance(data.get("id"), str):
                self._rows[kind][data["id"]] = data
        if any(self._rows.values()):
            self._mirror([(kind, row) for kind in KINDS for row in self._rows[kind].values()], "w")

    @property
    def held_out(self) -> Path:
        """A folder of this host's that code in the jail does not see."""
        return self.folder / HELD_OUT

    def add(self, kind: str, data: dict[str, Any]) -> None:
        """Puts a run or an evaluation on record; one of the same `id` is replaced.

        Raises:
            ValueError: it is neither, or has no `id` like `run_0123456789ab` or `eval_0123456789ab`.
        """
        if kind not in KINDS:
            raise ValueError(f"Records are of the kinds {', '.join(KINDS)}, not {kind!r}.")
        if not _ID[kind].fullmatch(str(data.get("id"))):
            raise ValueError(f"The `id` of an {kind} is like {_ID[kind].pattern}, not {data.get('id')!r}.")
        row = self._masked(copy.deepcopy(data))
        self._note(kind, data=row)  # on record before it counts
        self._rows[kind][row["id"]] = row
        self._mirror([(kind, row)], "a")

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The newest row of each `id`, in the order in which they were first added."""
        return copy.deepcopy(list(self._rows[kind].values()))

    def find(self, kind: str, identifier: str) -> dict[str, Any] | None:
        """One of them, `None` where there is none."""
        return copy.deepcopy(self._rows[kind].get(identifier))

    def _mirror(self, rows: Sequence[tuple[str, dict[str, Any]]], how: str) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self.folder / FILE).open(how, encoding="utf-8") as file:
                file.writelines(json.dumps({"kind": kind, **row}, default=str) + "\n" for kind, row in rows)
        except OSError as error:
            self._warn(f"{FILE} could not be written: {error.strerror}. The trace has it all.")


def number(value: Any) -> float | None:
    """A finite number, `None` for anything else."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if right else None


def metric_of(run: dict[str, Any]) -> tuple[str, float, bool] | None:
    """Name, value and whether higher is better; `None` where a run has none, or did not come to its end."""
    said = run.get("metric")
    if run.get("state") != "done" or not isinstance(said, dict):
        return None
    value = number(said.get("value"))
    return None if value is None else (str(said.get("name")), value, said.get("higher_is_better") is not False)


def best(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The best run that is done, by the metric that most of them have; smoke runs do not count. Of equals: the first."""
    real = [(run, found) for run in runs if (found := metric_of(run)) and not _is_smoke(run)]
    if not real:
        return None
    names = [name for _, (name, _, _) in real]
    common = max(names, key=names.count)
    rated = [(value if higher else -value, run) for run, (name, value, higher) in real if name == common]
    return max(rated, key=lambda pair: pair[0])[1]


def tree(runs: Sequence[dict[str, Any]]) -> str:
    """What was tried, each run under the one that it goes on from: a line each."""
    known = {run["id"] for run in runs}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for run in runs:
        parent = run.get("parent")
        below.setdefault(parent if parent in known and parent != run["id"] else None, []).append(run)
    top, lines, shown = best(runs), [], set()

    def draw(parent: str | None, depth: int) -> None:
        for run in below.get(parent, []):
            if run["id"] not in shown:
                shown.add(run["id"])
                lines.append(
                    "  " * depth + line(run) + (" *best*" if top is not None and run["id"] == top["id"] else "")
                )
                draw(run["id"], depth + 1)

    draw(None, 0)
    for run in runs:  # parents in a circle: written by anybody
        if run["id"] not in shown:
            below[None] = [run]
            draw(None, 0)
    return "\n".join(lines)


def line(run: dict[str, Any]) -> str:
    """A run in a line."""
    said = metric_of(run)
    parts = [str(run.get("state") or "?"), *([f"{said[0]} {said[1]:.4g}"] if said else [])]
    cost, seconds = number(run.get("cost_usd")), number(run.get("seconds"))
    parts += [f"${cost:.2f}"] if cost else []
    parts += [f"{seconds:.0f} s"] if seconds is not None else []
    return f"{run['id']} {run.get('name') or ''}{' (smoke)' if _is_smoke(run) else ''}: {', '.join(parts)}"


def evaluation_line(found: dict[str, Any]) -> str:
    """An evaluation in a line."""
    candidate, baseline, difference = (_object(found.get(name)) for name in ("candidate", "baseline", "difference"))
    data = _object(found.get("dataset"))
    values = [number(side.get("value")) for side in (candidate, baseline)]
    text = " against ".join("?" if value is None else f"{value:.4g}" for value in values)
    p_value = number(difference.get("p_value"))
    sure = "" if p_value is None else f", p = {p_value:.2g}"
    verdict = "better" if found.get("better") is True else "not shown to be better"
    where = f"{found.get('n')} rows of {data.get('id')}, {data.get('split')}"
    named = f"{candidate.get('name')} against {baseline.get('name')}"
    return f"{found['id']} {named}: {found.get('metric')} {text}{sure} on {where}: {verdict}"


def pinned(records: Records, runs: int = 12, evaluations: int = 6) -> str:
    """The runs and evaluations that are said again after a compaction: the best, the newest. `""` where there are none."""
    tried, judged = records.all(EXPERIMENT), records.all(EVALUATION)
    parts = []
    if tried:
        top = best(tried)
        rows = [run for run in tried[-runs:] if top is None or run["id"] != top["id"]]
        more = len(tried) - len(rows) - (top is not None)
        said = [f"- best: {line(top)}"] if top is not None else []
        said += [f"- {line(run)}" for run in rows] + ([f"- and {more} older ones: `experiments()`"] if more else [])
        parts.append("## Your training runs\n" + "\n".join(said))
    if judged:
        parts.append("## Your evaluations\n" + "\n".join(f"- {evaluation_line(one)}" for one in judged[-evaluations:]))
    return "\n\n".join(parts)


def _is_smoke(run: dict[str, Any]) -> bool:
    return _object(run.get("config")).get("smoke") is True


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
