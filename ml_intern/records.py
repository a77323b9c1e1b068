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
DEEPEST = 12
"""How far a run is put to the right in a tree."""
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


def mirrored(folder: Path) -> dict[str, dict[str, Any]]:
    """What `experiments.jsonl` in a session's folder says, by `id`: for a quick look, as what is on record is in the trace."""
    found: dict[str, dict[str, Any]] = {}
    try:
        for text in (folder / FILE).read_text(encoding="utf-8").splitlines():
            row = json.loads(text)
            found[row["id"]] = row
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or just being written
        pass
    return found


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


def tree(runs: Sequence[dict[str, Any]], most: int = 200) -> str:
    """What was tried, each run under the one that it goes on from: a line each; of more than `most` the newest."""
    known = {run["id"]: run for run in runs}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for run in runs:
        parent = run.get("parent")
        below.setdefault(parent if parent in known and parent != run["id"] else None, []).append(run)
    top, lines, shown = best(runs), [], set()
    # Parents in a circle have nobody above them: they are written by anybody.
    for start in [*below.get(None, []), *runs]:
        waiting = [(start, 0)]
        while waiting:
            run, depth = waiting.pop()
            if run["id"] in shown:
                continue
            shown.add(run["id"])
            mark = " *best*" if top is not None and run["id"] == top["id"] else ""
            lines.append("  " * min(depth, DEEPEST) + line(run) + mark)
            waiting += [(one, depth + 1) for one in reversed(below.get(run["id"], []))]
    left = len(lines) - most
    return "\n".join([f"({left} older ones are left out)", *lines[-most:]] if left > 0 else lines)


def judged_by(evaluations: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Run to what this host measured of its weights on held-out rows, the newest of each."""
    found = {}
    for one in evaluations:
        value = number(_object(one.get("candidate")).get("value"))
        if isinstance(one.get("experiment"), str) and value is not None:
            found[one["experiment"]] = f"{one.get('metric')} {value:.4g}"
    return found


def table(runs: Sequence[dict[str, Any]], evaluations: Iterable[dict[str, Any]] = (), most: int = 50) -> str:
    """The best run and the newest ones, a line each: id, name, state, the metric that its script reports, what this host
    measured, cost, time, what it goes on from."""
    judged = judged_by(evaluations)
    top = best(runs)
    listed = list(runs[-most:])
    listed = [top, *listed] if top is not None and top not in listed else listed
    rows = [("id", "name", "state", "metric", "judged", "cost", "time", "parent")]
    for run in listed:
        said, cost, seconds = metric_of(run), number(run.get("cost_usd")), number(run.get("seconds"))
        rows.append(
            (
                str(run["id"]) + ("*" if top is not None and run["id"] == top["id"] else ""),
                short(f"{run.get('name') or ''}{' (smoke)' if _is_smoke(run) else ''}", 32),
                str(run.get("state") or "?"),
                f"{said[0]} {said[1]:.4g}" if said else "",
                judged.get(run["id"], ""),
                "" if cost is None else f"${cost:.2f}",
                "" if seconds is None else f"{seconds:.0f} s",
                str(run.get("parent") or ""),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    left = len(runs) - len(listed)
    return "\n".join([*lines, *([f"({left} older ones are left out)"] if left > 0 else [])])


def spent(runs: Sequence[dict[str, Any]]) -> float:
    """USD that all runs came to whose cost is known."""
    return round(sum(number(run.get("cost_usd")) or 0.0 for run in runs), 4)


def brief(run: dict[str, Any]) -> dict[str, Any]:
    """A run without what only its making needs: digests, lists of files."""
    wanted = ("id", "name", "parent", "state", "metric", "cost_usd", "seconds", "folder", "backend", "job_id")
    config = _object(run.get("config"))
    kept = {name: config.get(name) for name in ("script", "arguments", "smoke", "hardware")}
    return {**{name: run.get(name) for name in wanted}, "config": kept}


def short(text: str, most: int) -> str:
    """A text on one line, cut where it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def line(run: dict[str, Any]) -> str:
    """A run in a line."""
    said = metric_of(run)
    parts = [str(run.get("state") or "?"), *([f"{said[0]} {said[1]:.4g}"] if said else [])]
    cost, seconds = number(run.get("cost_usd")), number(run.get("seconds"))
    parts += [f"${cost:.2f}"] if cost else []
    parts += [f"{seconds:.0f} s"] if seconds is not None else []
    return f"{run['id']} {short(str(run.get('name') or ''), 60)}{' (smoke)' if _is_smoke(run) else ''}: {', '.join(parts)}"


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
    named = " against ".join(short(str(side.get("name")), 60) for side in (candidate, baseline))
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
