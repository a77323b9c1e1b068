"""A trace as the code that ran: each action with the calls it made, what they gave, and what the model saw of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .read import note_of, read_rows
from .results import RecordedResult, images_of, read_result, text_of, whole_text
from .rows import Row

INTERPRETER = "python_interpreter"
CUT = "(The session was interrupted while this code ran"
"""How the observation begins of an action that a session went on after without running the rest of it."""

_HANDED = "\n\nHanded over with this task:\n"
_FILE = re.compile(r"- `(?P<name>[^`]+)` in the workspace \((?P<size>a folder|[\d,]+ bytes)\)")
_DATASET = re.compile(r"- the data set `[^`]+` from the Hub, in `(?P<name>[^`]+)` in the workspace")


@dataclass
class RecordedCall:
    """A call that an action's code made. `result` is `None` where there is none on record."""

    id: str
    tool: str
    arguments: dict[str, Any]
    effects: str
    files: tuple[Row, ...] = ()
    result: RecordedResult | None = None


@dataclass
class RecordedAction:
    """An action: its code, and what came of it (`finished` is `False` where that is not on record, or it was cut off)."""

    turn: int
    step: int
    code: str
    uuid: str
    cwd: str
    calls: list[RecordedCall] = field(default_factory=list)
    observation: str = ""
    whole: bool = True
    images: tuple[str, ...] = ()
    error: str = ""
    failed: bool = False
    final: bool = False
    value: Any = None
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class HandedOver:
    """A file or folder that was put into the workspace with a task; `size` in bytes, `None` where it is not known."""

    name: str
    size: int | None = None


@dataclass
class Recording:
    """All that a trace says of the code that ran.

    Args:
        calls (`int`): Calls of any tool, of any agent's: to tell a trace without code from one without anything.
        version (`str`): Of the program that wrote it.
    """

    path: Path
    actions: list[RecordedAction] = field(default_factory=list)
    handed: list[HandedOver] = field(default_factory=list)
    variables: tuple[str, ...] = ()
    jail: str = ""
    calls: int = 0
    ours: bool = False
    version: str = ""

    @property
    def folder(self) -> Path:
        """What lies beside the trace: workspace, artifacts, packages."""
        return self.path.with_suffix("")


def read_actions(path: Path) -> Recording:
    """Reads a trace in the order of its rows, which is the order in which its code ran: what was undone ran, too.

    Raises:
        OSError: the file cannot be read.
    """
    reader = _Reader(Recording(path))
    for row in read_rows(path):
        reader.row(row)
    return reader.recording


class _Reader:
    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._turn = 0
        self._action: RecordedAction | None = None
        self._actions: dict[str, RecordedAction] = {}
        self._calls: dict[str, RecordedCall] = {}
        self._sidechain: bool | None = None

    def row(self, row: Row) -> None:
        note = note_of(row)
        if note is not None:
            self.recording.ours = True
            self.recording.jail = str(note.get("jail", "")) if note.get("kind") == "worker" else self.recording.jail
            return
        message = row.get("message")
        if not isinstance(message, dict) or row["type"] not in ("user", "assistant"):
            return
        if self._sidechain is None:  # a sub-agent's own file is all of one
            self._sidechain = row.get("isSidechain") is True
        if (row.get("isSidechain") is True) != self._sidechain or row.get("isCompactSummary") is True:
            return
        self.recording.version = str(row.get("version", ""))
        content = message.get("content")
        if row["type"] == "user" and row.get("stepKind") == "task":
            self._task(row, content)
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") == "tool_use" and isinstance(block.get("input"), dict):
                self._use(row, block)
            elif isinstance(block, dict) and block.get("type") == "tool_result":
                self._result(row, block)

    def _task(self, row: Row, content: Any) -> None:
        self._turn += 1
        variables = row.get("variables")
        if isinstance(variables, list):
            self.recording.variables += tuple(map(str, variables))
        text = content if isinstance(content, str) else text_of({"content": content})
        for line in text.partition(_HANDED)[2].splitlines():
            if found := _FILE.match(line):
                size = None if found["size"] == "a folder" else int(found["size"].split()[0].replace(",", ""))
                self.recording.handed.append(HandedOver(found["name"], size))
            elif found := _DATASET.match(line):
                self.recording.handed.append(HandedOver(found["name"]))

    def _use(self, row: Row, block: Row) -> None:
        self.recording.calls += 1
        identifier, name, given = str(block.get("id")), str(block.get("name")), block["input"]
        if name == INTERPRETER and isinstance(given.get("code"), str) and row.get("effects") is None:
            number = row.get("step") if isinstance(row.get("step"), int) else len(self.recording.actions) + 1
            self._action = RecordedAction(
                max(self._turn, 1), int(number or 0), given["code"], str(row.get("uuid")), str(row.get("cwd", ""))
            )
            self._actions[identifier] = self._action
            self.recording.actions.append(self._action)
        elif self._action is not None:
            files = tuple(file for file in row.get("files") or () if isinstance(file, dict))
            call = RecordedCall(identifier, name, given, str(row.get("effects", "unknown")), files)
            self._calls[identifier] = call
            self._action.calls.append(call)

    def _result(self, row: Row, block: Row) -> None:
        identifier, artifacts = str(block.get("tool_use_id")), self.recording.folder / "artifacts"
        if identifier in self._calls:
            self._calls[identifier].result = read_result(row, block, artifacts)
        action = self._actions.get(identifier)
        if action is None:
            return
        action.observation, action.whole = whole_text(row, block, artifacts)
        action.images, action.finished = images_of(block), not action.observation.startswith(CUT)
        action.final, action.value = row.get("final") is True, row.get("value")
        seconds, failure = row.get("seconds"), row.get("failure")
        action.seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
        action.failed = block.get("is_error") is True
        action.error = str(failure.get("message", "")) if isinstance(failure, dict) else ""
