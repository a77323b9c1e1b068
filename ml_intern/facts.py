"""What a step did, in few words: the facts by which progress and repetition are judged."""

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from smolagents.memory import ActionStep

from .steps import ToolCallStep, ToolResultStep
from .syntax import parse

LOOKED_AT = 20_000
"""Characters at the end of an output in which metrics are looked for."""


@dataclass(frozen=True)
class ActionFacts:
    """One step.

    Args:
        step (`int`): Its number.
        action (`str`): Digest of its code, whatever its layout; of the model's words where there was none.
        result (`str`): Digest of what it saw, word for word.
        error (`str`): Its error without what differs each time; `""` where there was none.
        fresh (`bool`): Whether it saw something that this turn had not seen before; of code that ran well and shows nothing:
            whether it is new.
        progress (`tuple[str, ...]`): What it moved, in a few words each.
        seconds (`float`): How long it took.
    """

    step: int
    action: str
    result: str
    error: str = ""
    fresh: bool = True
    progress: tuple[str, ...] = ()
    seconds: float = 0.0


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def action_digest(code: str) -> str:
    """The same for code that differs in layout and comments only."""
    try:
        return digest(ast.dump(parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return digest(" ".join(code.split()))


NOISE = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|[0-9a-f]{12,})\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"), "<time>"),
    (re.compile(r"(?<![\w/])(?:~|\.{1,2})?(?:/[\w.+@-]+)+/?|\b[A-Za-z]:\\[\w.\\+-]+"), "<path>"),
    (re.compile(r"[-+]?\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?", re.IGNORECASE), "<n>"),
    (re.compile(r"\s+"), " "),
)
"""What differs in an error from one time to the next without meaning anything: ids, addresses, times, paths, numbers."""


def without_noise(text: str) -> str:
    """An error as it is compared with others. Applying it twice changes nothing more."""
    text = text[:2_000] + text[-2_000:] if len(text) > 4_000 else text
    for pattern, name in NOISE:
        text = pattern.sub(name, text)
    return text.strip()


LOWER = ("loss", "rmse", "mse", "mae", "perplexity", "ppl", "wer", "cer", "error", "error_rate", "logloss")
HIGHER = ("accuracy", "acc", "f1", "auc", "auroc", "roc_auc", "bleu", "rouge1", "rouge2", "rougeL", "map", "mrr", "ndcg",
          "recall", "precision", "r2", "score", "exact_match", "iou", "psnr", "pearson", "spearman", "mcc")  # fmt: skip
METRIC = re.compile(
    rf"\b((?:(?:val|valid|validation|dev|test|eval|best|macro|micro|weighted|mean|cv)[_ ])*(?:{'|'.join((*LOWER, *HIGHER))}))"
    r"[\"'`*]{0,3}\s*[:=]\s*\**([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(%?)(?![\d.]*\w)",
    re.IGNORECASE,
)


def metrics_in(text: str) -> list[tuple[str, float]]:
    """Metrics that a text reports, as `accuracy: 0.91` or `val_loss=0.2`."""
    found = METRIC.findall(text[-LOOKED_AT:])
    return [(name.lower().replace(" ", "_"), float(value)) for name, value, _ in found]


def better(name: str, value: float, than: float) -> bool:
    lower = any(name == word or name.endswith(f"_{word}") for word in LOWER)
    return value < than if lower else value > than


MEASURES = "evaluate_model"
"""The tool whose results hold what this host has measured."""


def measured_in(result: Any) -> tuple[str, float, bool] | None:
    """What an evaluation measured on which data, the value, whether higher is better; `None` where it is none."""
    if not isinstance(result, dict):
        return None
    metric, candidate, data = (result.get(name) for name in ("metric", "candidate", "dataset"))
    if not isinstance(metric, str) or not isinstance(candidate, dict) or not isinstance(data, dict):
        return None
    value = candidate.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    what = " ".join([metric, "on", *(str(data[name]) for name in ("id", "config", "split") if data.get(name))])
    return what, float(value), result.get("higher_is_better") is not False


SAID_NOTHING = re.compile(r"Execution logs:|Last output from code snippet:|\s|None\Z")
"""What stands in an observation of code that printed nothing and has no value."""


@dataclass
class FactBook:
    """Takes note of what the steps of a turn do; `facts` are what came out.

    What counts as progress: a plan item closed, a new best metric, a note, a decision, a call that came back and did not just
    read. A result that was not seen before is fresh, no more.

    Metrics are those that the host has measured, in evaluations on held-out rows. What code prints is what it says of itself,
    a training run's validation included: it counts, from the second value of a metric on, as long as nothing was measured.
    """

    facts: list[ActionFacts] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _done: set[str] = field(default_factory=set)
    _best: dict[str, float] = field(default_factory=dict)
    _measured: dict[str, float] = field(default_factory=dict)
    _calls: dict[str, ToolCallStep] = field(default_factory=dict)
    _moved: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """A new turn: what plan and metrics had come to stays known."""
        self.facts.clear()
        self._seen.clear()
        self._calls.clear()
        self._moved.clear()

    def note_call(self, step: ToolCallStep) -> None:
        self._calls[step.call_id] = step

    def note_result(self, step: ToolResultStep) -> None:
        call = self._calls.pop(step.call_id, None)
        if call is not None and step.error is None:
            self._moved += [*self._moves(call), *self._new_measures(call.tool, step.result)]

    def finished(self, step: ActionStep) -> ActionFacts:
        """A step is over. Returns its facts, which are also kept."""
        seen, error = step.observations or "", str(step.error) if step.error else ""
        result = digest(f"{seen}\0{error}")
        noiseless = without_noise(error) if error else ""
        known = digest(noiseless) if noiseless else result
        code = step.code_action
        action = action_digest(code) if code is not None else digest(str(step.model_output or ""))
        moved = [*self._moved, *(self._new_bests(seen) if not error and not self._measured else ())]
        self._moved = []
        fresh = known not in self._seen or (not error and not SAID_NOTHING.sub("", seen) and action not in self._seen)
        seconds = step.timing.duration or 0.0
        facts = ActionFacts(step.step_number, action, result, noiseless, fresh, tuple(moved), seconds)
        self._seen |= {known, action}
        self.facts.append(facts)
        return facts

    def _moves(self, call: ToolCallStep) -> Iterable[str]:
        if call.tool == "plan":
            items = call.arguments.get("items")
            done = {_text(item) for item in items if _done(item)} if isinstance(items, list) else set()
            new, self._done = sorted(done - self._done), self._done | done
            return [f"plan item closed: {text}" for text in new]
        if call.tool == "notes":
            return ["a note was taken"] if call.arguments.get("add") else []
        if call.tool == "record_decision":
            return [f"decided: {call.arguments.get('subject', '')}"]
        return [f"`{call.tool}` came back"] if call.effects in ("write", "spend") else []

    def _new_measures(self, tool: str, result: Any) -> Iterable[str]:
        """The first value that was measured of something, and each that is better than all before it."""
        found = measured_in(result) if tool == MEASURES else None
        if found is None:
            return []
        what, value, higher = found
        best = self._measured.get(what)
        if best is not None and (value <= best if higher else value >= best):
            return []
        self._measured[what] = value
        return [f"{'measured' if best is None else 'new best'} {what}: {value:g}"]

    def _new_bests(self, seen: str) -> Iterable[str]:
        new: dict[str, float] = {}
        for name, value in metrics_in(seen):
            best = self._best.get(name)
            if best is not None and better(name, value, best):
                new[name] = value
            if best is None or better(name, value, best):
                self._best[name] = value
        return [f"new best {name}: {value:g}" for name, value in new.items()]


def _text(item: Any) -> str:
    return str(item.get("text", "")).strip() if isinstance(item, dict) else str(item)


def _done(item: Any) -> bool:
    return isinstance(item, dict) and item.get("status") == "done"
