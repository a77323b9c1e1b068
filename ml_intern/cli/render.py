"""A session as a person reads it: finished things stay in the scrollback, what goes on is one line below them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from rich.text import Text

from ..events import (
    AgentEnded,
    AgentStarted,
    ApprovalAnswered,
    ApprovalAsked,
    CodePrinted,
    Compacted,
    DecisionRecorded,
    Event,
    Extended,
    JobReported,
    ModeChanged,
    ModelAnswered,
    ModelDelta,
    Outcome,
    Parked,
    PlanChanged,
    Resumed,
    SessionEnded,
    SessionStarted,
    State,
    Steered,
    StepFinished,
    StepStarted,
    ToolCalled,
    ToolReturned,
    Undone,
    Usage,
    Waiting,
    Warned,
)
from . import text as words
from .paper import Paper
from .status import Status, spent

INDENT = 2
CODE = (18, 4)
"""Lines of long code that are shown: the first, the last."""
THOUGHT = 160
"""Characters of what a model thought that are shown."""
OUTPUT_LINES = 8
ERROR_LINES = 12

_MARKS = {"done": ("✓", "green"), "in_progress": ("›", "bold"), "pending": ("·", "dim")}
_ENDS = {
    State.SUCCESS: ("✓", "green", "Done"),
    State.MAX_STEPS: ("■", "yellow", "Out of steps"),
    State.BUDGET: ("■", "yellow", "Budget used up"),
    State.STUCK: ("■", "yellow", "No progress"),
    State.INTERRUPTED: ("■", "yellow", "Interrupted"),
    State.DENIED: ("■", "yellow", "Denied"),
    State.ERROR: ("✗", "red", "Failed"),
}
_TOLD_OTHERWISE = ("plan", "final_answer")
"""Tools whose effect is shown by an event of its own."""

MODES = {
    "ask": "reading is free; writing, spending and unknown tools ask",
    "plan": "it only reads; what changes, spends or sends anything is refused",
    "auto": "within rules and budget it does not ask; what no rule covers is asked",
    "deny": "what would be asked is refused",
}

_ADVICE = {
    State.MAX_STEPS: '{resume} "go on", with a higher --max-iterations',
    State.BUDGET: '{resume} "go on", with a higher --budget-usd or --max-hours',
    State.INTERRUPTED: "{resume}, when you like; the trace has what was done so far",
    State.STUCK: "{resume}, and say what it should try instead",
    State.DENIED: "{resume}, and say what it may do; --allow RULE lets a kind of call through",
    State.ERROR: "{program} doctor says what works here; --verbose shows everything",
}


class Renderer:
    """Shows events on paper.

    Args:
        paper (`Paper`): Where to.
        verbose (`bool`, defaults to `False`): Nothing is folded.
        conversation (`bool`, defaults to `False`): Turn follows turn: what a person has just typed, or has seen before,
            is not said again.
    """

    def __init__(self, paper: Paper, verbose: bool = False, conversation: bool = False) -> None:
        self.paper = paper
        self.verbose = verbose
        self.conversation = conversation
        self.status = Status(paper)
        self._plan: tuple[dict[str, str], ...] = ()
        self._refused: set[str] = set()
        self._told_of_rules = False
        self._printed = ""
        self._workspace = ""

    def show(self, event: Event) -> None:
        self.status.note(event)
        match event:
            case SessionStarted():
                self._started(event)
            case PlanChanged():
                self._planned(event.items)
            case StepStarted():
                self._printed = ""
            case ModelAnswered():
                self._answered(event)
            case ToolReturned():
                self._returned(event)
            case CodePrinted():
                self._print(event.text)
            case ApprovalAnswered():
                self._decided(event)
            case StepFinished():
                self._finished(event)
            case Compacted():
                self._compacted(event)
            case Steered():
                by = f" (from {event.by})" if event.by not in ("", "terminal") else ""
                self._aside("→", f"the agent has read{by}: {event.text}")
            case Extended():
                self._aside("+", f"{event.steps} steps from here on: {event.why}")
            case ModeChanged():
                self._aside("·", f"mode {event.mode}: {MODES.get(event.mode, '')}")
            case Undone():
                self._aside("↶", f"taken back: {words.one_line(event.task, 200)}; files and what was published stay")
            case Parked():
                self._aside("·", "it waits for an answer, without holding its jail")
            case Resumed():
                lost = f"; not brought back: {', '.join(event.lost)}" if event.lost else ""
                self._aside("·", f"goes on from step {event.step}{lost}")
            case AgentStarted():
                self._aside("▸", f"{event.agent}: {words.one_line(event.task, 300)}")
            case AgentEnded():
                self._agent_ended(event)
            case DecisionRecorded():
                sources = f" ({', '.join(event.sources)})" if event.sources else ""
                self._aside("◆", f"{event.subject}: {event.choice}, as {event.reason}{sources}")
            case JobReported():
                self._job(event)
            case Warned():
                self.warn(event.text)
            case SessionEnded():
                self._ended(event.outcome, event.trace)
            case ModelDelta() | ToolCalled() | ApprovalAsked() | Waiting():
                pass  # only the status line tells of these
            case _:
                pass  # an event of a later version: nothing is known about how to show it

    def warn(self, text: str) -> None:
        self.paper.put(Text.assemble(("! ", "bold yellow"), (words.printable(text), "yellow")), INDENT, INDENT + 2)

    def _job(self, event: JobReported) -> None:
        name = f"{event.name} ({event.job_id})" if event.name else event.job_id
        bad = event.serious or event.state in ("failed", "timeout", "lost")
        if bad:
            self.warn(f"job {name}: {event.what}: {event.text}")
            if event.state == "running" and not event.stopped and not self._told_of_rules:
                self._told_of_rules = True
                self._aside(
                    "·", f"--allow 'training_job(operation=stop, reason={event.what})' has that stopped by itself"
                )
        else:
            self._aside("▪", f"job {name}: {event.text}")

    def _aside(self, mark: str, text: str) -> None:
        self.paper.put(Text(f"{mark} {words.printable(text)}", "dim"), INDENT, INDENT + 2)

    def _agent_ended(self, event: AgentEnded) -> None:
        good = event.state == State.SUCCESS
        facts = f"{event.steps} step{'s' * (event.steps != 1)} · {spent(event.usage)}"
        line = Text.assemble(
            ("✓ " if good else "■ ", "green" if good else "yellow"),
            words.one_line(event.agent),
            ("" if good else f", {words.one_line(event.state)}"),
            (f"  {facts}", "dim"),
        )
        self.paper.put(line, INDENT, INDENT + 2)
        if event.report.strip():
            kept, left_out, _ = words.fold(event.report.strip().split("\n"), 1000 if self.verbose else 3, 0)
            more = [f"… {left_out} more lines"] if left_out else []
            self.paper.put(Text(words.printable("\n".join([*kept, *more])), "dim"), INDENT + 2)

    def pause(self) -> AbstractContextManager[None]:
        """The moving line is away while this lasts, so that a question stands undisturbed."""
        return self.status.away()

    def close(self) -> None:
        self.status.stop()

    def _started(self, event: SessionStarted) -> None:
        known, self._workspace = self._workspace == event.workspace, event.workspace
        if known:  # another turn of it, or the rest of one that was parked
            return
        if self.conversation:
            self.paper.path("workspace", event.workspace)
            self.paper.path("trace", event.trace)
            return
        self.paper.put(Text("ML Intern", "bold"))
        task, left_out, _ = words.fold(event.task.strip().split("\n"), 1000 if self.verbose else 6, 0)
        self.paper.row("task", "\n".join([*task, *([f"… {left_out} more lines"] if left_out else [])]))
        self.paper.row("model", event.model)
        if event.jail:
            unsafe = event.jail == "none"
            self.paper.row(
                "jail",
                "none: code runs as you, on this machine" if unsafe else event.jail,
                "bold red" if unsafe else "",
            )
        self.paper.path("workspace", event.workspace)
        self.paper.path("trace", event.trace)

    def _planned(self, items: tuple[dict[str, str], ...]) -> None:
        """The whole plan when its wording changed; else only the lines whose status changed."""
        same = [item["text"] for item in items] == [item["text"] for item in self._plan]
        changed = [item for item, old in zip(items, self._plan, strict=False) if item != old] if same else items
        self._plan = items
        if not changed:
            return
        done = sum(item["status"] == "done" for item in items)
        self.paper.gap()
        self.paper.put(Text.assemble(("plan ", "bold"), (f"{done} of {len(items)} done", "dim")), INDENT)
        for item in changed:
            mark, style = _MARKS.get(item["status"], ("·", "dim"))
            text = (words.printable(item["text"]), "dim" if item["status"] == "done" else "")
            self.paper.put(Text.assemble((f"{mark} ", style), text), INDENT + 2, INDENT + 4)
        self.paper.gap()

    def _answered(self, event: ModelAnswered) -> None:
        self.paper.gap()
        self.paper.put(Text(f"Step {event.step}", "bold"))
        if event.reasoning.strip():
            flat = " ".join(event.reasoning.split())
            folded = (
                flat
                if self.verbose or len(flat) <= THOUGHT
                else f"{flat[:THOUGHT]}… ({len(flat):,} characters of thinking)"
            )
            self.paper.put(Text(words.printable(folded), "dim italic"), INDENT)
        if event.thought.strip():
            self.paper.put(event.thought.strip(), INDENT)
        if event.code and event.code.strip():
            self.paper.gap()
            self.paper.code(event.code, INDENT + 2, None if self.verbose else CODE)
            self.paper.gap()

    def _returned(self, event: ToolReturned) -> None:
        called, arguments = self.status.returned(event)
        if called in _TOLD_OTHERWISE and event.ok and not self.verbose:
            return
        mark = ("✓ ", "green") if event.ok else ("✗ ", "red")
        room = max(self.paper.console.width - INDENT - 14, 20) if self.paper.terminal and not self.verbose else None
        shown = Text(words.call(called, arguments, 20_000 if self.verbose else 400))
        shown.stylize("cyan", 0, len(words.one_line(called)))
        if room:
            shown.truncate(room, overflow="ellipsis")
        line = Text.assemble(mark, shown, (f"  {words.duration(event.seconds)}", "dim"))
        self.paper.put(line, INDENT, INDENT + 4)
        if self.verbose or not (event.ok or event.call_id in self._refused):  # a refusal was told with its reason
            lines = event.summary.strip().split("\n")
            kept = lines if self.verbose else lines[:3]
            self.paper.put(Text(words.printable("\n".join(kept)), "" if event.ok else "red"), INDENT + 2)

    def _print(self, text: str) -> None:
        self._printed += text
        if self.verbose:  # whole lines at once, as they come
            *whole, self._printed = self._printed.split("\n")
            self.paper.output([words.last_lines(line, 1)[0][0] if line.strip() else "" for line in whole], 0, INDENT)
        else:
            self._printed = self._printed[-200_000:]

    def _compacted(self, event: Compacted) -> None:
        what = {
            "mask": f"outputs of steps 1 to {event.last} folded away",
            "summary": f"steps 1 to {event.last} summarised",
        }.get(event.how, f"steps 1 to {event.last} cut short")
        facts = f"{words.amount(event.before)} to {words.amount(event.after)} tokens"
        cost = f", {words.money(event.cost_usd)}" if event.how == "summary" else ""
        self.paper.put(Text(f"≈ context: {what}, {facts}{cost}", "dim"), INDENT, INDENT + 2)

    def _decided(self, event: ApprovalAnswered) -> None:
        answer = event.answer
        mark, style, word = {
            "approve": ("✓", "green", "answered" if answer.text else "approved"),
            "edit": ("✎", "green", "approved with changes"),
            "reject": ("✗", "yellow", "rejected"),
            "stop": ("■", "yellow", "stopped"),
        }[answer.decision]
        if answer.decision in ("reject", "stop"):
            self._refused.add(event.call_id)
        kept = {"session": ", this kind for the session", "always": ", this kind for good"}.get(answer.scope, "")
        by = f" by {answer.by}" if answer.by else ""
        why = answer.text or answer.reason
        changed = words.call("", answer.arguments, 400) if answer.arguments else ""
        said = f"{word}{kept}{by}{f': {why}' if why else ''}{f' {changed}' if changed else ''}"
        self.paper.put(Text.assemble((f"{mark} ", style), words.printable(said)), INDENT, INDENT + 2)

    def _finished(self, event: StepFinished) -> None:
        lines, left_out = words.last_lines(self._printed, 1_000_000 if self.verbose else OUTPUT_LINES)
        self._printed = ""
        self.paper.output(lines, left_out, INDENT)
        if event.error:
            lines, left_out = words.last_lines(event.error, 1_000_000 if self.verbose else ERROR_LINES)
            for line in [*([f"… {left_out} lines before"] if left_out else []), *lines]:
                self.paper.put(Text.assemble(("│ ", "dim"), (words.printable(line), "red")), INDENT, INDENT + 2)
        usage = self.status.usage
        facts = [
            words.duration(event.seconds),
            f"{spent(usage)} so far",
        ]
        if event.images:
            facts.insert(1, f"{event.images} image{'s' * (event.images > 1)}")
        self.paper.put(Text(" · ".join(facts), "dim"), INDENT)

    def _ended(self, outcome: Outcome, trace: str) -> None:
        self.status.stop()
        mark, style, word = _ENDS[outcome.state]
        steps = f"{outcome.steps} step{'s' * (outcome.steps != 1)}"
        usage = outcome.usage
        facts = f"{steps} · {words.duration(outcome.seconds)} · {tokens(usage)} · {words.money(usage.cost_usd)}"
        self.paper.gap()
        self.paper.put(Text.assemble((f"{mark} {word}", f"bold {style}"), (f"  {facts}", "dim")))
        if outcome.reason:
            self.paper.put(
                Text(words.printable(outcome.reason), style if outcome.state is not State.SUCCESS else ""), INDENT
            )
        if outcome.answer is not None:
            answer = outcome.answer if isinstance(outcome.answer, str) else words.value(outcome.answer)
            self.paper.gap()
            self.paper.put(answer.strip(), INDENT)
        self.paper.gap()
        if self.conversation:
            return
        self.paper.path("trace", trace)
        if outcome.state is State.SUCCESS:
            self.paper.path("workspace", self._workspace)
            self.paper.path("next", trace, "uvx claude-code-log ", " -o trace.html")
        else:
            from .app import PROGRAM

            resume = f"{PROGRAM} resume {Path(trace).stem[:8]}"
            self.paper.row("next", _ADVICE[outcome.state].format(program=PROGRAM, resume=resume))


def tokens(usage: Usage) -> str:
    cached = f" ({words.amount(usage.cached_tokens)} cached)" if usage.cached_tokens else ""
    return f"{words.amount(usage.input_tokens)} tokens in{cached}, {words.amount(usage.output_tokens)} out"
