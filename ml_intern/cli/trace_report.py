"""What `trace` says of a replay, of two sessions side by side, of a decision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from ..replay_report import ReplayReport, StepReport, Verdict
from . import text as words
from .paper import Paper

if TYPE_CHECKING:
    from ..trace.compare import Comparison, Facts
    from ..trace.decisions import Decision

DIFFERENCES = 6
"""Differences of a step that are shown."""


def show_setup(paper: Paper, trace: Path, said: tuple[str, ...]) -> None:
    paper.path("trace", str(trace))
    for place, sentence in enumerate(said):
        paper.row("" if place else "runs on", sentence)
    paper.gap()


MARKS = {"same": ("✓", "green"), "differs": ("✗", "red"), "not_compared": ("?", "yellow")}


def show_step(paper: Paper, step: StepReport, verbose: bool) -> None:

    mark, style = MARKS[step.verdict]
    place = _place(step)
    facts = [words.duration(step.seconds), f"{words.duration(step.seconds_then)} then"]
    if step.calls:
        facts.append(f"{step.calls} call{'s' * (step.calls > 1)}")
    if step.deviation:
        facts.append(f"numbers within {step.deviation:.2g}")
    said = {"same": "same", "differs": "differs", "not_compared": "not compared"}[step.verdict]
    paper.put(Text.assemble((f"{mark} ", style), f"{place}  ", (said, style), (f"  {' · '.join(facts)}", "dim")))
    for remark in step.remarks:
        paper.put(Text(words.printable(remark), "yellow" if step.verdict == "not_compared" else "dim"), 4, 6)
    shown = step.differences if verbose else step.differences[: DIFFERENCES if step.verdict == "differs" else 0]
    for difference in shown:
        paper.put(Text(words.printable(difference), "red"), 4, 6)
    more = len(step.differences) - len(shown)
    if more:
        paper.put(Text(f"{more} {'more ' if shown else ''}differences: --verbose shows them", "dim"), 4)


def _place(step: StepReport) -> str:
    return f"turn {step.turn}, step {step.step}" if step.turn > 1 else f"step {step.step}"


def show_verdict(paper: Paper, report: ReplayReport) -> None:

    counts = [f"{report.count(verdict)} {verdict.replace('_', ' ')}" for verdict in Verdict if report.count(verdict)]
    paper.gap()
    mark, style, said = ("✓", "green", "Reproducible") if report.reproducible else ("✗", "red", "Not reproducible")
    paper.put(Text.assemble((f"{mark} {said}", f"bold {style}"), (f"  {', '.join(counts)}", "dim")))
    first = report.first_difference
    if first is not None and len(report.steps) > 1:
        paper.put(Text(f"It parts at {_place(first)}; what follows may be a consequence.", "dim"), 2)


def show_comparison(paper: Paper, comparison: Comparison) -> None:
    """Two columns; a mark where they are not the same."""

    facts = [fact for fact in _facts(comparison.a, comparison.b) if fact[1] or fact[2]]
    calls = [(tool, _times(a), _times(b)) for tool, a, b in comparison.tools()]
    chosen = [(subject, a or "-", b or "-") for subject, a, b in comparison.decisions()]
    label = min(max(len(row[0]) for row in (*facts, *calls, *chosen)), 22)
    width = max(paper.console.width - label - 4, 30) if paper.terminal else 100
    column = min(width // 2, 50)

    for name, a, b in (("", "A", "B"), *facts, *calls, *chosen):
        left, right = words.one_line(a, column - 1), words.one_line(b, column - 1)
        style = "bold" if name and a != b else ""
        paper.put(Text.assemble((f"  {name[:label]:<{label}}  ", "dim"), f"{left:<{column}}", (right.rstrip(), style)))
    paper.gap()
    parting = comparison.divergence
    if parting is None:
        paper.put(Text("✓ The same was done and seen; times and ids aside.", "green"))
        return
    where = f"step {parting.step}, {parting.what}" if parting.step else parting.what
    paper.put(Text(f"They part at {where}:", "bold"))
    paper.row("A", parting.then)
    paper.row("B", parting.now)


def _times(count: int) -> str:
    return f"{count} call{'s' * (count != 1)}"


def _facts(a: Facts, b: Facts) -> list[tuple[str, str, str]]:

    def of(facts: Facts) -> list[tuple[str, str]]:
        usage = facts.usage
        cached = f", {words.amount(usage.cached_tokens)} cached" if usage.cached_tokens else ""
        counts = ", ".join(f"{count} {name}" for name, count in facts.approvals.items())
        return [
            ("session", facts.path.stem[:8]),
            ("title", facts.title),
            ("model", ", ".join(facts.models)),
            ("outcome", facts.state or "no end on record"),
            ("answer", facts.answer),
            ("turns", str(facts.turns)),
            ("steps", f"{facts.steps}{f', {facts.failed} failed' if facts.failed else ''}"),
            ("tokens", f"{words.amount(usage.input_tokens)} in{cached}, {words.amount(usage.output_tokens)} out"),
            ("money", words.money(usage.cost_usd)),
            ("time", words.duration(facts.seconds)),
            ("approvals", counts),
            ("compactions", str(facts.compactions or "")),
            ("sub-agents", str(facts.agents or "")),
        ]

    return [(label, left, right) for (label, left), (_, right) in zip(of(a), of(b), strict=True)]


def show_decision(paper: Paper, decision: Decision) -> None:

    style = {"rejected": "yellow", "stopped": "yellow", "not answered": "bold yellow"}.get(decision.choice, "")
    where = f"step {decision.step}" if decision.step else "before step 1"
    by = f"  by {words.one_line(decision.by, 60)}" if decision.by != "agent" else ""
    subject = words.one_line(decision.subject, 400)
    paper.put(
        Text.assemble((f"{where:<10} ", "dim"), subject, ": ", (words.one_line(decision.choice), f"bold {style}"), (by, "dim")),
        0, 11,
    )  # fmt: skip
    if decision.reason:
        paper.put(decision.reason, 11)
    if decision.sources:
        paper.put(Text(f"from {words.one_line(', '.join(decision.sources))}", "dim"), 11, 13)
