"""The operations that the world may put to an intern, and the queue that takes them from any thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import InternError
from .events import ApprovalAnswer


@dataclass(frozen=True)
class UserInput:
    """A task for a session that is idle."""

    session_id: str
    task: str
    images: tuple[Any, ...] = ()
    datasets: tuple[str, ...] = ()
    """Names of data sets on the Hub, to be in the workspace before the first step."""


@dataclass(frozen=True)
class Approval:
    """The answer to a question that a session waits with."""

    session_id: str
    call_id: str
    answer: ApprovalAnswer


@dataclass(frozen=True)
class Interrupt:
    """Stop the turn of a session; with `jobs` its training jobs as well."""

    session_id: str
    jobs: bool = False


@dataclass(frozen=True)
class Compact:
    """Make a session's conversation shorter, whatever fills the window; `focus` is what its summary is to keep above all."""

    session_id: str
    focus: str = ""


@dataclass(frozen=True)
class Steer:
    """Text for a turn that runs: the model reads it with its next step. A session that is idle takes it as its next task."""

    session_id: str
    text: str
    by: str = ""


@dataclass(frozen=True)
class Extend:
    """Let a session's turn take this much more."""

    session_id: str
    steps: int = 0
    usd: float = 0.0
    hours: float = 0.0
    by: str = ""


@dataclass(frozen=True)
class SetMode:
    """Decide a session's calls by another mode from now on: `ask`, `plan`, `auto` or `deny`."""

    session_id: str
    mode: str


@dataclass(frozen=True)
class SetModel:
    """Have a session's answers written by another model from its next step on. `make` gives it, each time the session wakes."""

    session_id: str
    name: str
    make: Callable[[], Any]
    by: str = ""


@dataclass(frozen=True)
class Undo:
    """Take a session's last turn out of the conversation."""

    session_id: str


@dataclass(frozen=True)
class Shutdown:
    """Stop taking operations."""


Operation = UserInput | Approval | Interrupt | Compact | Steer | Extend | SetMode | SetModel | Undo | Shutdown


class SubmissionLoop:
    """One queue and one thread that hands operations on, in the order they came.

    Args:
        handle (`Callable[[Operation], None]`): Carries an operation out; must not block (sessions have threads of their own).
        refused (`Callable[[Operation, InternError], None]`): Told of an operation that could not be carried out.
    """

    def __init__(self, handle: Callable[[Operation], None], refused: Callable[[Operation, InternError], None]) -> None:
        self._handle, self._refused = handle, refused
        self._queue: queue.Queue[Operation] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="submission-loop", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """From any thread; returns at once."""
        self._queue.put(operation)

    def close(self) -> None:
        """Carries out what was put before, then ends."""
        self.put(Shutdown())
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not isinstance(operation := self._queue.get(), Shutdown):
            try:
                self._handle(operation)
            except InternError as error:
                self._refused(operation, error)
            except Exception as error:  # noqa: BLE001 - one operation that fails must not end all sessions
                self._refused(
                    operation, InternError(f"{type(operation).__name__} failed", f"{type(error).__name__}: {error}")
                )
