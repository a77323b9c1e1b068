"""The sessions of a home, newest first, and the one that somebody means.

What must never happen here: a session is opened, changed or held up by being listed; one that cannot be read hides the
others; the time it takes grows with more than the bytes of the traces.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InternError
from .journal import is_held, read_holder
from .read import as_row, ended, note_of, read_rows
from .rows import Row, blocks_of
from .standing import standing
from .values import count, moment, number, price, text

BLOCK = 1 << 22
NAMED = 5
"""Sessions that an error names."""


@dataclass(frozen=True)
class SessionInfo:
    """A session in a list.

    Args:
        id (`str`), path (`Path`): Its id and its trace.
        title (`str`): As on record, or the beginning of its first task.
        task (`str`): The first task.
        state (`str`): How its last turn ended; `waiting` (for a person's answer), `running` (in another process, or
            elsewhere in this one), `cut off` (its process ended in the middle), `forked` (and not gone on with), `new`.
        cost_usd (`float`, *optional*): `None`: not all prices are known.
        steps (`int`): Answers of the model, all turns together.
        began, changed (`float`): Seconds since the epoch.
        waits (`tuple[str, ...]`): Ids of the calls that wait for an answer.
        holder (`int`, *optional*): The process that has it open.
        forked_from (`str`): The session that it is a fork of.
    """

    id: str
    path: Path
    title: str = ""
    task: str = ""
    state: str = "new"
    cost_usd: float | None = 0.0
    steps: int = 0
    began: float = 0.0
    changed: float = 0.0
    waits: tuple[str, ...] = ()
    holder: int | None = None
    forked_from: str = ""

    @property
    def age(self) -> float:
        """Seconds since something last happened in it."""
        return max(0.0, time.time() - self.changed)


def sessions(home: Path) -> list[SessionInfo]:
    """All sessions of a home, the one that something happened in last first."""
    found = [info for path in traces(home) if (info := describe(path)) is not None]
    return sorted(found, key=lambda info: (-info.changed, info.id))


def matching(infos: Sequence[SessionInfo], words: str) -> list[SessionInfo]:
    """Those whose id begins so, or whose title or task has every one of these words."""
    wanted = words.casefold().split()
    if not wanted:
        return list(infos)
    if len(wanted) == 1 and (found := [info for info in infos if info.id.startswith(wanted[0])]):
        return found
    return [info for info in infos if all(word in f"{info.title}\n{info.task}".casefold() for word in wanted)]


def find(home: Path, which: str | Path = "", own: bool = False) -> Path:
    """The trace that somebody means.

    Args:
        home (`Path`): Where the sessions are.
        which (`str` or `Path`, *optional*): An id or its beginning, a title or words of it, or a path. Defaults to the
            newest session.
        own (`bool`, defaults to `False`): Only sessions of this home: nobody else's file can be gone on with.

    Raises:
        InternError: there is none, or more than one.
    """
    name = str(which).strip()
    if name.endswith(".jsonl") or os.sep in name:
        path = Path(name).expanduser()
        if path.is_file():
            if own and not is_of(path, home):
                raise InternError(f"{path.name} is no session of {home}", "", f"Fork it: `fork {name}`.")
            return path.absolute()
        raise InternError(f"There is no trace {name}", "", "`sessions` lists what there is.")
    if name and (exact := [path for path in traces(home) if path.stem == name.lower()]):
        return exact[0]
    infos = sessions(home)
    if not infos:
        raise InternError("There is no session yet", f"{home / 'sessions'} holds none", "Start one with a task.")
    if not name:
        return infos[0].path
    same = [info for info in infos if info.title.casefold() == name.casefold()]
    found = same if len(same) == 1 else matching(infos, name)
    if len(found) == 1:
        return found[0].path
    if not found:
        raise InternError(
            f"There is no session {name!r}", f"there are {len(infos):,}", f"The newest: {_named(infos[:NAMED])}."
        )
    raise InternError(
        f"{len(found):,} sessions are like {name!r}", _named(found[:NAMED]), "Give more of the id or of the title."
    )


def is_of(path: Path, home: Path) -> bool:
    """Whether a trace is one of a home's own sessions."""
    folder = (home.expanduser() / "sessions").resolve()
    return not path.is_symlink() and path.suffix == ".jsonl" and path.resolve().parent == folder


def _named(infos: Sequence[SessionInfo]) -> str:
    return "; ".join(f"{info.id[:8]} {info.title[:60]}".strip() for info in infos)


def traces(home: Path) -> list[Path]:
    """The traces of a home, in no order. Other files are left alone."""
    try:
        with os.scandir(home.expanduser() / "sessions") as entries:
            return [Path(e.path) for e in entries if e.name.endswith(".jsonl") and e.is_file(follow_symlinks=False)]
    except OSError:
        return []


def describe(path: Path) -> SessionInfo | None:
    """What a list says of one trace; `None` where it has no row, or cannot be read."""
    view = View()
    try:
        changed = path.stat().st_mtime
        with path.open("rb", buffering=0) as file:
            for block in _blocks(file.fileno()):
                view.add(block)
    except OSError:
        return None
    if view.first is None:
        return None
    held = is_held(path)
    state = view.ended or "new"
    if view.undone:
        end = ended(standing(list(read_rows(path))))
        state, view.opened = (end.state, False) if end is not None else ("new", False)
    waits = tuple(view.waits) if view.opened else ()
    if view.fresh:
        state = "forked"
    elif view.opened:
        state = "waiting" if waits else "running" if held else "cut off"
    return SessionInfo(
        id=path.stem,
        path=path,
        title=view.title or first_words(view.task),
        task=view.task,
        state=state,
        cost_usd=None if view.unpriced else view.spent,
        steps=view.steps,
        began=moment(view.first.get("timestamp")),
        changed=changed,
        waits=waits,
        holder=read_holder(path) if held else None,
        forked_from=view.forked_from,
    )


def first_words(task: str) -> str:
    line = next((line.strip() for line in task.splitlines() if line.strip()), "")
    return line if len(line) <= 80 else line[:80].rsplit(" ", 1)[0] + "..."


ANSWER = b',"modelOutput":'
NO_STEP = tuple(f'"stepKind":"{kind}","modelOutput":'.encode() for kind in ("planning", "compaction", "wrap-up"))
NOTE = b'"data":{"type":"ml_intern","kind":"'
TITLES = (b'{"type":"ai-title"', b'{"type":"custom-title"')
TASK, RESULT = b'"stepKind":"task"', b'"tool_use_id":"'
NOTED = tuple(NOTE + kind for kind in (b'end"', b"approval-", b"undone", b"forked"))


@dataclass
class View:
    """A trace at a glance. Lines are found by what this project writes into them, and only those are read."""

    first: Row | None = None
    task: str = ""
    title: str = ""
    steps: int = 0
    ended: str = ""
    opened: bool = False
    undone: bool = False
    fresh: bool = False
    spent: float = 0.0
    unpriced: bool = False
    forked_from: str = ""
    waits: dict[str, None] = field(default_factory=dict)
    _custom: bool = False

    def add(self, block: bytes) -> None:
        """Takes in the next lines, whole ones."""
        if not self.task:
            self._begin(block)
        self.steps += block.count(ANSWER) - sum(block.count(kind) for kind in NO_STEP)
        places = {place for mark in (*TITLES, *NOTED, TASK) for place in _lines(block, mark)}
        # What was spent before an end is in it.
        places |= set(_lines(block, ANSWER, max(block.rfind(NOTE + b'end"'), 0)))
        for place in sorted(places):
            row = as_row(_line(block, place))
            if row is not None:
                self._row(row)
        for call in [call for call in self.waits if RESULT + call.encode() + b'"' in block]:
            del self.waits[call]

    def _begin(self, block: bytes) -> None:
        """The first row, and the first thing that anybody said."""
        place = 0
        while place < len(block) and not self.task:
            line = _line(block, place)
            place += len(line) + 1
            row = as_row(line)
            if row is None:
                continue
            self.first = self.first or row
            if row["type"] == "user" and row.get("isMeta") is not True:
                parts = [text(part.get("text")) for part in blocks_of(row) if part.get("type") == "text"]
                self.task = "\n".join(parts).strip()

    def _row(self, row: Row) -> None:
        if row["type"] == "user":
            self.opened, self.undone, self.fresh, self.waits = True, False, False, {}
        elif row["type"] == "assistant":
            if "forkedFrom" in row:
                return
            self.fresh = False
            if "costUsd" in row:
                cost = price(row["costUsd"])
                self.spent, self.unpriced = self.spent + (cost or 0.0), self.unpriced or cost is None
        elif row["type"] == "custom-title":
            self.title, self._custom = text(row.get("customTitle")), True
        elif row["type"] == "ai-title":
            self.title = self.title if self._custom else text(row.get("aiTitle"))
        elif (note := note_of(row)) is not None:
            self._note(note, copied="forkedFrom" in row)

    def _note(self, note: Row, copied: bool) -> None:
        kind, call = note.get("kind"), text(note.get("callId"))
        if kind == "end":
            self.ended, self.opened = text(note.get("state")), False
            self.waits = {}
            if not copied and "costUsd" in note:
                cost = price(note["costUsd"])
                self.spent, self.unpriced = number(cost), cost is None
        elif kind == "approval-asked" and call:
            self.waits[call] = None
        elif kind == "approval-answered":
            self.waits.pop(call, None)
        elif kind == "undone":
            self.undone = True
        elif kind == "forked":
            self.fresh, self.forked_from = True, text(note.get("source"))
            self.steps += count(note.get("foreignSteps"))


def _lines(block: bytes, mark: bytes, start: int = 0) -> Iterator[int]:
    """Where the lines begin that hold a mark."""
    place = block.find(mark, start)
    while place >= 0:
        yield block.rfind(b"\n", 0, place) + 1
        end = block.find(b"\n", place)
        place = block.find(mark, end) if end >= 0 else -1


def _line(block: bytes, place: int) -> bytes:
    end = block.find(b"\n", place)
    return block[place : end if end >= 0 else len(block)]


def _blocks(file: int) -> Iterator[bytes]:
    """The file in blocks of whole lines."""
    rest = b""
    while block := os.read(file, BLOCK):
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
        else:
            rest += block
    if rest:
        yield rest
