"""CallRecord: calls of MCP clients that change something, as rows of a trace."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Generator
from pathlib import Path

from ..events import ApprovalAnswer, ApprovalRequest, Outcome, State
from ..secrets import Masker
from ..steps import ToolCallStep, ToolResultStep
from ..trace import Journal, TraceRecorder


class CallRecord:
    """Calls that change something, as rows of a trace; there is none before the first of them."""

    def __init__(self, home: Path, masker: Masker) -> None:
        self.home, self.masker = home, masker
        self._recorder: TraceRecorder | None = None
        self._open: set[str] = set()
        self._lock = threading.Lock()

    @property
    def path(self) -> Path | None:
        return self._recorder.journal.path if self._recorder is not None else None

    def calling(self, step: ToolCallStep) -> None:
        with self._rows() as recorder:
            self._open.add(step.call_id)
            recorder.calling(step)

    def called(self, step: ToolResultStep) -> None:
        if step.call_id in self._open:
            with self._rows() as recorder:
                self._open.discard(step.call_id)
                recorder.called(step)

    def approval_asked(self, request: ApprovalRequest, digest: str) -> None:
        with self._rows() as recorder:
            recorder.approval_asked(request, digest)

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        with self._rows() as recorder:
            recorder.approval_answered(request, answer, digest)

    def close(self) -> None:
        if self._recorder is not None:
            with self._rows() as recorder:
                recorder.ended(Outcome(State.SUCCESS), "Tools served over MCP")
                recorder.journal.close()
            self._recorder = None

    @contextlib.contextmanager
    def _rows(self) -> Generator[TraceRecorder]:
        with self._lock:
            if self._recorder is None:
                folder = self.home / "sessions"
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                journal = Journal(folder / f"{uuid.uuid4()}.jsonl", masker=self.masker)
                self._recorder = TraceRecorder(journal, "an MCP client")
                journal.user("(Tools are served over MCP. What follows are calls of clients that change something.)")
            yield self._recorder
