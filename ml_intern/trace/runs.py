"""The tasks of a session's sub-agents, as far as each is on record.

What must never happen here: a task that was cut off passes for one that ended; what it spent is counted twice, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from smolagents.memory import ActionStep

from ..steps import AgentRun
from .books import Books
from .read import note_of
from .rebuild import Memory
from .restored import RestoredCall, RestoredRun
from .rows import Row
from .values import moment, text


def ended_agent(row: Row) -> tuple[str, str] | None:
    """The task of a sub-agent whose end a row notes: its id, and what the agent above was to read."""
    note = note_of(row)
    if note is None or note.get("kind") != "subagent":
        return None
    return text(note.get("id")), text(note.get("report"))


def runs_of(
    ends: Mapping[str, str],
    below: Mapping[Path, Sequence[Row]],
    calls: Mapping[str, RestoredCall],
    turn: Sequence[str],
) -> list[RestoredRun]:
    """The tasks of sub-agents in the last turn, oldest first.

    Args:
        ends (`Mapping[str, str]`): The reports of those whose end is on record, by id.
        below (`Mapping[Path, Sequence[Row]]`): The rows of their traces.
        calls (`Mapping[str, RestoredCall]`): All calls, by id.
        turn (`Sequence[str]`): The calls that the session's own code made in that turn.
    """
    found = [_run(path, part, ends, calls) for path, part in below.items()]
    mine = {one.run.id for one in found if not one.above and one.run.call_id in turn}
    while more := {one.run.id for one in found if one.above in mine and one.run.id not in mine}:
        mine |= more
    found = [one for one in found if one.run.id in mine]
    return [one if one.over else _with_those_below(one, found) for one in found]


def _run(path: Path, rows: Sequence[Row], ends: Mapping[str, str], calls: Mapping[str, RestoredCall]) -> RestoredRun:
    identifier, meta = path.stem.removeprefix("agent-"), _meta(path)
    call_id = text(meta.get("toolUseId"))
    run = AgentRun(
        identifier,
        text(meta.get("agentType")),
        text(meta.get("kind")),
        text(meta.get("model")),
        text(meta.get("description")),
        call_id,
        calls[call_id].step if call_id in calls else 0,
    )
    own = tuple(call for call in calls.values() if call.agent == identifier)
    known = RestoredRun(run, text(meta.get("parentAgentId")), identifier in ends, ends.get(identifier, ""), calls=own)
    if known.over:
        return known
    memory, books = Memory(path.parent.parent / "artifacts", [], images=False), Books()
    for row in rows:
        memory.add(row)
        books.add_spent(row)
    steps = [step for step in memory.steps if isinstance(step, ActionStep)]
    at = [moment(row.get("timestamp")) for row in rows if "timestamp" in row]
    spent = books.fields()
    begun = memory.begun if memory.begun is not None and memory.begun.action is not None else None
    return replace(
        known,
        told=bool(memory.turns),
        begun=begun.step if begun is not None else None,
        action=begun.action if begun is not None else None,
        run=replace(run, task=memory.turns[0].task if memory.turns else run.task),
        steps=len(steps),
        seen=next((step.observations for step in reversed(steps) if step.observations), ""),
        usage=spent["usage"],
        spent_usd=spent["spent_usd"],
        unpriced_calls=spent["unpriced_calls"],
        seconds=max(at) - min(at) if at else 0.0,
    )


def _with_those_below(
    run: RestoredRun, found: Sequence[RestoredRun], above: frozenset[str] = frozenset()
) -> RestoredRun:
    """What a task spent with those that it gave and that were cut off as well: of those that ended its own rows tell."""
    above |= {run.run.id}
    for one in found:
        if one.above != run.run.id or one.over or one.run.id in above:
            continue
        other = _with_those_below(one, found, above)
        spent, unpriced = run.spent_usd + other.spent_usd, run.unpriced_calls + other.unpriced_calls
        run = replace(run, usage=run.usage + other.usage, spent_usd=spent, unpriced_calls=unpriced)
    return run


def _meta(path: Path) -> Row:
    """What lies beside a sub-agent's trace; nothing where it cannot be read."""
    try:
        meta = json.loads(path.with_suffix(".meta.json").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}
