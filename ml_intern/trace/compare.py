"""Two traces of the same task side by side: steps, tools, tokens, money, time, outcome, decisions, where they part."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..differences import compared, short
from ..events import Usage
from ..plain import as_text
from ..syntax import parse
from .actions import INTERPRETER
from .books import Books
from .decisions import Decision, decisions
from .read import note_of, read_rows
from .results import text_of
from .rows import Row, blocks_of
from .subagents import traces_of_sub_agents
from .values import moment, text

TOLERANCE = 0.01


@dataclass
class Move:
    """An answer of the model: the calls in it with their arguments, those that its code made, and what was seen of it."""

    said: str = ""
    code: str | None = None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    observation: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Facts:
    """What a trace comes to.

    Args:
        task (`str`): The first thing that was asked.
        models (`tuple[str, ...]`): In the order of their first answers.
        turns, steps (`int`): Tasks taken on; answers of the model.
        failed (`int`): Steps that ended in an error.
        tools (`dict[str, int]`): Calls by tool, most frequent first; of code, the calls that it made.
        usage (`Usage`): Of all agents.
        seconds (`float`): Of work, as the trace says; of a trace that does not, from its first row to its last.
        state, answer (`str`): How it ended; `""` where it does not say.
        approvals (`dict[str, int]`): By decision.
        compactions, agents (`int`): Compactions; sub-agents with a file of their own.
        decisions (`tuple[Decision, ...]`): Of the agent's, in order.
    """

    path: Path
    title: str = ""
    task: str = ""
    models: tuple[str, ...] = ()
    turns: int = 0
    steps: int = 0
    failed: int = 0
    tools: dict[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    state: str = ""
    answer: str = ""
    approvals: dict[str, int] = field(default_factory=dict)
    compactions: int = 0
    agents: int = 0
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True)
class Divergence:
    """Where two traces part for the first time.

    Args:
        step (`int`): From 1, among the model's answers; 0 for the task.
        what (`str`): `task`, `code`, `calls`, `words`, `observation` or `end`.
        then, now (`str`): Of the first and of the second trace, cut short.
    """

    step: int
    what: str
    then: str
    now: str


@dataclass(frozen=True)
class Comparison:
    """Two traces side by side."""

    a: Facts
    b: Facts
    divergence: Divergence | None

    @property
    def same(self) -> bool:
        """Whether the same was done and seen, numbers and times aside."""
        return self.divergence is None

    def decisions(self) -> list[tuple[str, str, str]]:
        """Subject, choice in the first, choice in the second trace (`""`: none there)."""
        mine, yours = ({d.subject: d.choice for d in facts.decisions} for facts in (self.a, self.b))
        return [(subject, mine.get(subject, ""), yours.get(subject, "")) for subject in {**mine, **yours}]

    def tools(self) -> list[tuple[str, int, int]]:
        """Tool, calls in the first, calls in the second trace."""
        names = sorted({*self.a.tools, *self.b.tools}, key=lambda n: -self.a.tools.get(n, 0) - self.b.tools.get(n, 0))
        return [(name, self.a.tools.get(name, 0), self.b.tools.get(name, 0)) for name in names]


def compare(a: Path, b: Path, tolerance: float = TOLERANCE) -> Comparison:
    """Compares two traces, ours or other programs'.

    Args:
        a, b (`Path`): The traces.
        tolerance (`float`, defaults to 0.01): How far numbers in observations may be apart, as a part of the larger one.

    Raises:
        OSError: one of them cannot be read.
    """
    (facts_a, moves_a), (facts_b, moves_b) = read_facts(a), read_facts(b)
    return Comparison(facts_a, facts_b, _parting(facts_a, moves_a, facts_b, moves_b, tolerance))


def read_facts(path: Path) -> tuple[Facts, list[Move]]:
    """What a trace comes to, and the moves it is made of."""
    reader = _Reader()
    for row in read_rows(path):
        reader.add(row)
    return reader.facts(path, len(traces_of_sub_agents(path))), reader.moves


class _Reader:
    def __init__(self) -> None:
        self.books = Books()
        self.moves: list[Move] = []
        self._message = ""
        self._told: dict[str, Any] = {"task": "", "state": "", "answer": "", "turns": 0, "compactions": 0}
        self._models: dict[str, None] = {}
        self._tools: Counter[str] = Counter()
        self._approvals: Counter[str] = Counter()
        self._open: dict[str, Move] = {}
        self._nested: set[str] = set()
        self._times: list[float] = []
        self._priced = False

    def add(self, row: Row) -> None:
        if row.get("isSidechain") is True or row.get("isMeta") is True:
            return
        if at := moment(row.get("timestamp")):
            self._times = [self._times[0] if self._times else at, at]
        note = note_of(row)
        if note is not None:
            self._note(note)
        elif row.get("subtype") == "compact_boundary":
            self._told["compactions"] += 1
        elif row["type"] == "assistant":
            row = self._answer(row)
        elif row["type"] == "user" and row.get("isCompactSummary") is not True:
            self._user(row)
        self.books.add(row)

    def _note(self, note: Row) -> None:
        kind = note.get("kind")
        if kind == "end":
            self._told.update(state=text(note.get("state")), answer=as_text(note.get("answer") or ""))
        elif kind == "approval-answered":
            self._approvals[text(note.get("decision"))] += 1

    def _answer(self, row: Row) -> Row:
        """Takes an answer in; returns its row as the books are to have it."""
        message = row.get("message")
        if not isinstance(message, dict) or row.get("stepKind") in ("compaction", "answer"):
            return row
        blocks, identifier = blocks_of(row), text(message.get("id"))
        uses = [block for block in blocks if block.get("type") == "tool_use"]
        counted = "usage" in message
        if not counted and row.get("effects") is not None:  # a call of the last answer's code
            for use in uses:
                self._tools[text(use.get("name"))] += 1
                if self.moves:
                    self.moves[-1].calls.append(_call(use))
                self._nested.add(text(use.get("id")))
            return row
        if not identifier or identifier != self._message:
            self.moves.append(Move())
        elif counted:
            row = {**row, "message": {name: value for name, value in message.items() if name != "usage"}}
        self._message = identifier
        self._priced = self._priced or isinstance(row.get("costUsd"), int | float)
        self._models.setdefault(text(message.get("model")), None)
        move = self.moves[-1]
        move.said += "".join(text(block.get("text")) for block in blocks if block.get("type") == "text")
        for use in uses:
            name, arguments = _call(use)
            self._open[text(use.get("id"))] = move
            if name == INTERPRETER and isinstance(arguments.get("code"), str):
                move.code = arguments["code"]
            else:
                self._tools[name] += 1
                move.calls.append((name, arguments))
        return row

    def _user(self, row: Row) -> None:
        blocks = blocks_of(row)
        results = [block for block in blocks if block.get("type") == "tool_result"]
        for block in results:
            move = self._open.get(text(block.get("tool_use_id")))
            if move is not None:
                move.observation += text_of(block)
                move.failed = move.failed or block.get("is_error") is True
        if not results and (row.get("stepKind") == "task" or "stepKind" not in row):
            said = "".join(text(block.get("text")) for block in blocks)
            if row.get("stepKind") == "task" or not self._told["task"]:
                self._told["turns"] += 1
                self._told["task"] = self._told["task"] or said
            elif self.moves and "step" in row:  # what the agent was told of an answer without code
                self.moves[-1].observation += said
                self.moves[-1].failed = True

    def facts(self, path: Path, agents: int) -> Facts:
        books = self.books.fields()
        usage = books["usage"]
        if not self._priced and not usage.cost_usd:
            usage = Usage(usage.input_tokens, usage.output_tokens, usage.cached_tokens, None)
        seconds = books["seconds"] or (self._times[-1] - self._times[0] if self._times else 0.0)
        return Facts(
            path,
            title=books["title"],
            models=tuple(name for name in self._models if name),
            steps=len(self.moves),
            failed=sum(move.failed for move in self.moves),
            tools=dict(self._tools.most_common()),
            usage=usage,
            seconds=seconds,
            approvals=dict(self._approvals),
            agents=agents,
            decisions=tuple(decision for decision in decisions(path) if not decision.is_answer),
            **self._told,
        )


def _call(use: Row) -> tuple[str, dict[str, Any]]:
    given = use.get("input")
    return text(use.get("name")), given if isinstance(given, dict) else {}


def _parting(a: Facts, moves_a: list[Move], b: Facts, moves_b: list[Move], tolerance: float) -> Divergence | None:
    if a.task.strip() != b.task.strip():
        return Divergence(0, "task", *_cut(a.task, b.task))
    for step, (then, now) in enumerate(itertools.zip_longest(moves_a, moves_b), 1):
        if then is None or now is None:
            sides = ("no further step", _first_line(then or now))
            return Divergence(step, "end", *(sides if then is None else sides[::-1]))
        if _code(then) != _code(now):
            return Divergence(step, "code", *_first_difference(_code(then) or then.said, _code(now) or now.said))
        if then.code is None and now.code is None and then.said.strip() != now.said.strip() and not then.calls:
            return Divergence(step, "words", *_cut(then.said, now.said))
        calls = [sorted(as_text(list(call)) for call in move.calls) for move in (then, now)]
        changes = compared("\n".join(calls[0]), "\n".join(calls[1]), relative=tolerance, absolute=1e-9).changes
        if changes:
            return Divergence(
                step, "calls", *_cut(changes[0].then or "(no such call)", changes[0].now or "(no such call)")
            )
        changes = compared(then.observation, now.observation, relative=tolerance, absolute=1e-9).changes
        if changes:
            return Divergence(
                step, "observation", *_cut(changes[0].then or "(nothing)", changes[0].now or "(nothing)")
            )
    if a.state != b.state:
        return Divergence(len(moves_a), "end", a.state or "no end on record", b.state or "no end on record")
    return None


def _code(move: Move) -> str:
    """The code without what does not matter to Python."""
    if move.code is None:
        return ""
    try:
        return ast.unparse(parse(move.code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return move.code.strip()


def _first_line(move: Move) -> str:
    said = (move.code or move.said or as_text([list(call) for call in move.calls])).strip()
    return short(said.partition("\n")[0])


def _first_difference(then: str, now: str) -> tuple[str, str]:
    for one, other in itertools.zip_longest(then.splitlines(), now.splitlines(), fillvalue=""):
        if one != other:
            return _cut(one or "(nothing)", other or "(nothing)")
    return _cut(then, now)


def _cut(then: str, now: str, limit: int = 200) -> tuple[str, str]:
    one, other = (side.strip() for side in (then, now))
    return one if len(one) <= limit else one[: limit - 1] + "…", other if len(other) <= limit else other[
        : limit - 1
    ] + "…"
