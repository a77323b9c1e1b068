"""`approve`, `steer`, `stop`: a word to a session that runs in another process of yours on this machine."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from ..errors import InternError
from ..events import ApprovalAnswer, ApprovalRequest
from ..gateways.peers import Peer, Running, find
from ..settings import Settings
from ..trace.listing import find as find_trace
from . import text as words
from .ask import ask
from .card import QUESTION, card
from .paper import Paper


def approve(
    session: str,
    call: str | None = None,
    *,
    reject: str | None = None,
    for_session: bool = False,
    text: str | None = None,
    yes: bool = False,
    home: Path | None = None,
) -> int:
    """Shows what a session waits for and answers it.

    Args:
        session (`str`): Its id, or the beginning of it.
        call (`str`, *optional*): The call's id, or the beginning of it; the oldest open one by default.
        reject (`str`, *optional*): Refuse, with this reason.
        for_session (`bool`, defaults to `False`): Approve this kind of call for the session.
        text (`str`, *optional*): The answer to a question of the agent's.
        yes (`bool`, defaults to `False`): Do not ask here.
        home (`Path`, *optional*): Where sessions lie.

    Returns:
        `int`: 0 when it was answered, 4 when it was left open.

    Raises:
        InternError: no such session, or nothing waits; somebody else was quicker.
    """
    peer, running = _find(session, home)
    request = _waiting(peer, running, call)
    paper = Paper()
    here = paper.terminal and sys.stdin.isatty()
    asked = request.tool == QUESTION
    if reject is not None:
        answer: ApprovalAnswer | None = ApprovalAnswer("reject", reject)
    elif text is not None and asked:
        answer = ApprovalAnswer("approve", text=text)
    elif text is not None:
        raise InternError("--text answers a question of the agent's", f"{request.tool} is a call", "Leave --text out.")
    elif for_session and not request.rule:
        raise InternError(
            "No rule can allow this kind of call", request.reason, "Approve it once: leave out --session."
        )
    elif yes and not asked:
        answer = ApprovalAnswer("approve", scope="session" if for_session else "once")
    elif not here:
        card(paper, request)
        remedy = "--text ANSWER, or --reject REASON." if asked else "--yes approves it, --reject REASON refuses it."
        raise InternError("Nobody can be asked, as this is not a terminal", "", remedy)
    else:

        def closed() -> bool:
            return request not in peer.pending(running.id)

        answer = ask(paper, request, closed, str(_home(home) / "rules"))
        if answer is None:
            raise InternError("That question is no longer open", "it was answered elsewhere, or its turn has ended")
        if for_session and answer.decision == "approve" and answer.scope == "once":
            answer = replace(answer, scope="session")
        return _give(paper, peer, running, request, answer)
    card(paper, request)
    return _give(paper, peer, running, request, answer)


def steer(session: str, text: str, *, home: Path | None = None) -> int:
    """Tells a session something; the model reads it with its next step.

    Returns:
        `int`: 0.
    """
    if not text.strip():
        raise InternError("There is nothing to say", "the text is empty")
    peer, running = _find(session, home)
    peer.steer(running.id, text.strip(), whoami("steer command"))
    later = "its next task" if running.state not in ("running", "waiting") else "read with its next step"
    Paper().put(f"told {running.id[:8]}: {later}")
    return 0


def stop(session: str, *, jobs: bool = False, home: Path | None = None) -> int:
    """Stops the turn of a session; it stays whole, and so does its trace.

    Args:
        jobs (`bool`, defaults to `False`): Its training jobs as well. They outlive a session's process: those of one whose
            process is gone are ended too.

    Returns:
        `int`: 0; 1 where a job could not be ended.
    """
    try:
        peer, running = _find(session, home)
    except InternError:
        if not jobs:
            raise
        return _end_jobs(find_trace(_home(home), session, own=True))
    if running.state not in ("running", "waiting") and not jobs:
        raise InternError(f"{running.id[:8]} is not at work", f"its state is {running.state}")
    peer.stop(running.id, jobs)
    Paper().put(f"stopping {running.id[:8]}{' and its jobs' if jobs else ''}")
    return 0


def _end_jobs(trace: Path) -> int:
    """Ends the jobs of a session that nobody works with: those of this machine by their keepers, others at their service."""
    from ..execution.jobs import LocalJobs
    from ..records import EXPERIMENT
    from ..tools import TrainingJobTool
    from ..trace import restore

    paper, failed = Paper(), 0
    local = LocalJobs(None, trace.with_suffix("") / "jobs")
    tool = TrainingJobTool(jobs=local)
    latest = {str(run.get("id")): run for kind, run in restore(trace).records if kind == EXPERIMENT}
    far = [str(run.get("job_id")) for run in latest.values() if run.get("state") in ("scheduled", "running")]
    found = [*local.running(), *(job_id for job_id in far if "/" in job_id)]
    for job_id in found:
        try:
            paper.put(f"{job_id}: {tool(operation='stop', job_id=job_id)['state']}")
        except (OSError, ValueError, RuntimeError) as error:
            failed += 1
            paper.put(words.printable(f"{job_id}: {error}"))
    if not found:
        paper.put("None of its jobs runs.")
    return 1 if failed else 0


def whoami(how: str) -> str:
    """Who answers, and from where: `ada@host, pts/3 (approve command)`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    try:
        terminal = f", {os.ttyname(0).removeprefix('/dev/')}"
    except OSError:
        terminal = ""
    return f"{user}@{socket.gethostname()}{terminal} ({how})"


def _home(home: Path | None) -> Path:
    return Settings.load(home).home.expanduser().absolute()


def _find(session: str, home: Path | None) -> tuple[Peer, Running]:
    return find(_home(home), session)


def _waiting(peer: Peer, running: Running, call: str | None) -> ApprovalRequest:
    pending = peer.pending(running.id)
    found = [request for request in pending if call is None or request.call_id.startswith(call)]
    if found and (call is None or len(found) == 1):
        return found[0]
    if call is None:
        raise InternError(f"{running.id[:8]} waits for nothing", f"its state is {running.state}")
    known = ", ".join(words.one_line(request.call_id) for request in pending) or "none"
    raise InternError(
        f"Nothing waits under {call}", f"open: {known}", "It may have been answered: an answer counts once."
    )


def _give(paper: Paper, peer: Peer, running: Running, request: ApprovalRequest, answer: ApprovalAnswer) -> int:
    peer.answer(running.id, request.call_id, replace(answer, by=whoami("approve command")), request)
    done = {"approve": "approved", "edit": "changed", "reject": "rejected", "stop": "stopped"}[answer.decision]
    paper.put(Text.assemble(("✓ ", "green"), f"{done}: {words.one_line(request.tool)}"), 2)
    return 0
