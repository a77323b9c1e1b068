"""A sub-agent's own trace, beside that of the session: `<session>/subagents/agent-<id>.jsonl` and `agent-<id>.meta.json`.

Readers of the format nest it under the call that it answers, by `toolUseResult.agentId` of the result's row. Rows are the
session's (`sessionId`), in a chain of their own, marked `isSidechain`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ..errors import JournalFailed
from ..plain import clean
from ..steps import AgentRun
from . import rows
from .journal import HOLDER, Journal

FOLDER = "subagents"


class SidechainJournal(Journal):
    """The journal of one task of a sub-agent.

    Args:
        session (`Journal`): Of the agent above: the session's, or another sub-agent's.
        run (`AgentRun`): The task.
    """

    sidechain = True

    def __init__(self, session: Journal, run: AgentRun) -> None:
        above = session if isinstance(session, SidechainJournal) else None
        folder = above.path.parent if above else session.path.with_suffix("") / FOLDER
        self.agent_id, self._session, self._run = run.id, session, run
        super().__init__(folder / f"agent-{run.id}.jsonl", session.cwd, session.masker, session.session_id)
        self.artifacts = session.artifacts
        own = self.path.with_suffix("")
        with suppress(OSError):  # this file is written by whoever holds the session's: it needs no folder of its own
            (own / HOLDER).unlink()
            own.rmdir()
        meta = {
            "agentType": run.agent,
            "toolUseId": run.call_id,
            **({"parentAgentId": above.agent_id} if above else {}),
            "description": clean(self.masker.text(run.task.strip().partition("\n")[0][:200])),
            "model": run.model,
            "kind": run.kind,
        }
        try:
            self.path.with_suffix(".meta.json").write_text(json.dumps(meta), encoding="ascii")
        except OSError as error:
            raise JournalFailed(f"Cannot write beside {self.path}", error.strerror or str(error)) from None

    def again(self) -> SidechainJournal:
        """The same one, opened once more."""
        return SidechainJournal(self._session, self._run)

    def sync(self) -> None:
        """Returns when the disk has all rows, of the agent above first: nothing is done for a task that nobody gave."""
        self._session.sync()
        super().sync()

    def append(self, row: rows.Row, begins: bool = False) -> str:
        return super().append({**row, "isSidechain": True, "agentId": self.agent_id}, begins)


def traces_of_sub_agents(session: Path) -> list[Path]:
    """The traces of the sub-agents of a session, by the path of its own trace; oldest first."""
    return sorted((session.with_suffix("") / FOLDER).glob("agent-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
