"""restore: a session as its trace has it, for going on with it.

What must never happen here: a call that may have taken effect passes for one that did not; a question that was answered
is asked again, or an answer counts for another question; what cannot be read is passed over in silence; a trace that
another program or another person wrote brings more than text and code.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from smolagents.memory import PlanningStep

from ..errors import InternError
from ..steps import USER, SteerStep
from .books import Books
from .calls import Calls
from .desk import Desk
from .read import ended, note_of, read_lines, read_rows
from .rebuild import Memory
from .recorder import compaction_of
from .restored import OpenAction, Restored, RestoredCall, Seen
from .rows import Row, blocks_of
from .runs import ended_agent, runs_of
from .standing import standing
from .subagents import traces_of_sub_agents
from .values import text, texts


def restore(path: Path) -> Restored:
    """A session as its trace has it; whatever in the file cannot be read is said in `problems`.

    Args:
        path (`Path`): The trace. Its artifacts lie in a folder of the same name without suffix.

    Raises:
        InternError: there is no such file, or it cannot be opened.
    """
    problems: list[str] = []
    try:
        rows = list(read_lines(path, problems))
    except OSError as error:
        raise InternError(f"Cannot read the trace {path}", error.strerror or str(error)) from None
    return restored(rows, path, problems)


def restored(rows: list[Row], path: Path, problems: list[str]) -> Restored:
    """The same from rows that were read."""
    stands, books = standing(rows), Books()
    below = {trace: list(read_rows(trace)) for trace in traces_of_sub_agents(path)}
    over = dict(end for part in (rows, *below.values()) for row in part if (end := ended_agent(row)))
    for trace, part in below.items():  # what one spent that was cut off stands in no sum above it
        for row in part if trace.stem.removeprefix("agent-") not in over else ():
            books.add_spent(row)
    for row in rows:
        books.add(row)
    foreign = books.lineage is not None and not books.lineage.own
    memory = Memory(path.with_suffix("") / "artifacts", problems)
    calls = Calls(memory.whole)
    for part in below.values():
        for row in part:
            calls.add(row)
    first = of_turn = len(calls.order)
    for row in stands:
        begun, turns = memory.begun, len(memory.turns)
        memory.add(row)
        if len(memory.turns) > turns:
            of_turn = len(calls.order)
        if memory.begun is not begun:
            first = len(calls.order)
        calls.add(row)
    open_ones, begun = calls.order[first:], memory.begun
    memory.end()
    refused = _refused(calls.known[call] for call in calls.order[of_turn:])
    there = {id(row) for row in stands}
    for row in rows:
        if id(row) not in there:  # undone: no part of the conversation, but it happened
            calls.add(row)
    action = None
    if begun is not None and memory.begun is begun and not foreign:
        action = OpenAction(begun.step, begun.action, tuple(calls.known[call] for call in open_ones))
    own = [calls.known[call] for call in calls.order if call not in calls.copied]
    end = ended(stands)
    return Restored(
        path=path,
        session_id=path.stem,
        steps=memory.steps,
        next_step=(begun.step.step_number if action and begun else memory.number) + 1,
        planned=action is None and bool(memory.steps) and isinstance(memory.steps[-1], PlanningStep),
        action=action,
        open=bool(memory.turns) and end is None,
        ended=end,
        turns=tuple(memory.turns),
        desk=Desk.of(stands),
        seen=tuple(_of_others(stands) if foreign else []) + tuple(calls.seen),
        effects=tuple(call for call in own if call.effects != "read"),
        runs=() if foreign else tuple(runs_of(over, below, calls.known, calls.order[of_turn:])),
        unread=_unread(stands),
        refused=refused,
        half=_half(stands),
        last=text(stands[-1].get("uuid")) or None if stands else None,
        rows=len(rows),
        problems=tuple(dict.fromkeys(problems)),
        **books.fields(),
    )


def _refused(calls: Iterable[RestoredCall]) -> dict[str, str]:
    """What a person refused and did not approve since, by tool. A call that had taken effect was not refused."""
    refused: dict[str, str] = {}
    for call in calls:
        if call.answer is None:
            continue
        if call.state == "denied" and call.answer.decision != "approve" and not call.happened:
            refused[call.tool] = call.answer.reason or f"{call.answer.by or 'the user'} said no"
        elif call.answer.decision == "approve":
            refused.pop(call.tool, None)
    return refused


def _half(rows: list[Row]) -> str:
    """What the record breaks off in the middle of, because the machine did: it is written at once."""
    for row in reversed(rows):
        note = note_of(row)
        if note is None:
            ours = compaction_of(row) is not None and row.get("subtype") == "compact_boundary"
            return "answer" if row.get("stepKind") == "answer" else "compaction" if ours else ""
        if note.get("kind") == "end":
            return ""
    return ""


def _unread(rows: list[Row]) -> tuple[SteerStep, ...]:
    """What was said to the agent, in order, less what it has taken in: as a message, or as the next task."""
    said: dict[str, SteerStep] = {}
    for row in rows:
        note = note_of(row)
        if note is None:
            for taken in texts(row.get("said")) if row.get("stepKind") == "task" else ():
                said.pop(taken, None)
        elif note.get("kind") == "said" and "forkedFrom" not in row and (name := text(note.get("id"))):
            source = text(note.get("source")) or USER
            said[name] = SteerStep(text(note.get("text")), text(note.get("by")), source, name)
        elif note.get("kind") == "steered":
            said.pop(text(note.get("id")), None)
    return tuple(said.values())


def _of_others(rows: list[Row]) -> list[Seen]:
    """Everything that was said in a trace of somebody else's."""
    said = [
        (row, text(block.get("text")))
        for row in rows
        if "forkedFrom" in row
        for block in blocks_of(row)
        if block.get("type") == "text"
    ]
    return [Seen("fork", {"trace": _source(row)}, words) for row, words in said if words]


def _source(row: Row) -> str:
    source = row["forkedFrom"]
    return text(source.get("sessionId")) if isinstance(source, dict) else ""
