"""The other end of [`ControlServer`]: processes of this user on this machine, and what can be said to their sessions."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InternError
from ..events import ApprovalAnswer, ApprovalRequest, Destination, FileDigest
from .sockets import LONGEST_LINE, SECONDS, same_user, send, socket_folder, where


@dataclass(frozen=True)
class Running:
    """A session that lives in a process: what a list shows of it."""

    id: str
    state: str
    mode: str
    title: str
    cost_usd: float | None
    tokens: int
    questions: tuple[str, ...] = ()
    pid: int = 0


class Peer:
    """A process of this user that works on sessions of this home.

    Args:
        pid (`int`): Its number.
        path (`Path`): Its socket.
    """

    def __init__(self, pid: int, path: Path) -> None:
        self.pid, self.path = pid, path

    def sessions(self) -> list[Running]:
        return [Running(pid=self.pid, questions=tuple(row.pop("questions")), **row) for row in self._ask("list")]

    def pending(self, session_id: str) -> list[ApprovalRequest]:
        """The questions of a session that are open, oldest first."""
        return [_request(row) for row in self._ask("pending", session=session_id)]

    def answer(
        self, session_id: str, call_id: str, answer: ApprovalAnswer, asked: ApprovalRequest | None = None
    ) -> None:
        """Answers a question.

        Args:
            asked (`ApprovalRequest`, *optional*): What the person was shown: for another question the answer does not count,
                even where an edited call asks anew under the same id.

        Raises:
            InternError: it is not open (any more): an answer counts once.
        """
        shown = None if asked is None else asdict(asked)
        self._ask("answer", session=session_id, call=call_id, answer=asdict(answer), asked=shown)

    def steer(self, session_id: str, text: str, by: str = "") -> None:
        self._ask("steer", session=session_id, text=text, by=by)

    def stop(self, session_id: str, jobs: bool = False) -> None:
        """Stops its turn, with `jobs` its training jobs as well."""
        self._ask("stop", session=session_id, jobs=jobs)

    def extend(self, session_id: str, steps: int = 0, usd: float = 0.0, by: str = "") -> None:
        """Lets its turn take this much more.

        Raises:
            InternError: what it may spend is not limited.
        """
        self._ask("extend", session=session_id, steps=steps, usd=usd, by=by)

    def set_model(self, session_id: str, model: str, by: str = "") -> None:
        """Has another model write from its next step on. Raises `InternError` where it cannot be had."""
        self._ask("model", session=session_id, model=model, by=by)

    def events(self, session_id: str, since: int = 0) -> Iterator[dict[str, Any]]:
        """The events of a session as they are told, from number `since` on, until its turn is over."""
        with self._connect() as connection, connection.makefile("rb") as lines:
            connection.settimeout(None)
            send(connection, {"op": "events", "session": session_id, "since": since})
            for line in lines:
                row = json.loads(line)
                if row.get("ok") is False:
                    raise InternError(row["what"], row["why"], row["remedy"])
                yield row

    def _ask(self, op: str, **fields: Any) -> Any:
        try:
            with self._connect() as connection, connection.makefile("rb") as lines:
                send(connection, {"op": op, **fields})
                reply = json.loads(lines.readline(LONGEST_LINE) or b"null")
        except (OSError, ValueError) as error:
            raise InternError(f"Process {self.pid} does not answer", str(error)) from None
        if reply is None:
            raise InternError(f"Process {self.pid} hung up", "", "Try again; `sessions` says whether it still runs.")
        if not reply["ok"]:
            raise InternError(reply["what"], reply["why"], reply["remedy"])
        return reply["result"]

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(SECONDS)
            connection.connect(str(self.path))
            if not same_user(connection):
                raise PermissionError(13, "another user's process is at the other end")
        except BaseException:
            connection.close()
            raise
        return connection


def peers(home: Path) -> list[Peer]:
    """The processes that work on sessions of `home` now. What ended ones left behind is cleaned up.

    Args:
        home (`Path`): Where sessions lie.
    """
    found = []
    for advert in sorted((home / "running").glob("*.json")):
        try:
            said = json.loads(advert.read_text(encoding="utf-8"))
            peer = Peer(int(said["pid"]), Path(said["socket"]))
            here = said["where"] == where()
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if not here:  # a home may be shared by machines; theirs is not ours to clean
            continue
        try:
            peer._connect().close()
        except (ConnectionRefusedError, FileNotFoundError):
            _clean(advert, peer.path)
        except OSError:
            continue
        else:
            found.append(peer)
    return found


def find(home: Path, session_id: str) -> tuple[Peer, Running]:
    """The process that has a session, by its id or the beginning of it.

    Raises:
        InternError: no process has it, or several begin so.
    """
    every = [(peer, running) for peer in peers(home) for running in _sessions(peer)]
    found = [pair for pair in every if session_id and pair[1].id.startswith(session_id)]
    if len(found) != 1:
        why = "several begin so" if found else f"at work on this machine: {len(every)}"
        raise InternError(
            f"There is no one session {session_id!r} at work",
            why,
            "`sessions` lists them; `resume ID` goes on with one whose process has ended.",
        )
    return found[0]


def running(home: Path) -> list[Running]:
    """The sessions that are in a process now."""
    return [row for peer in peers(home) for row in _sessions(peer)]


def _clean(advert: Path, path: Path) -> None:
    """What a process that was killed left behind. A socket only where ours lie."""
    with contextlib.suppress(OSError):
        advert.unlink(missing_ok=True)
        if path.suffix == ".sock" and path.parent == socket_folder() and stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()


def _sessions(peer: Peer) -> list[Running]:
    try:
        return peer.sessions()
    except InternError:  # it ended in between
        return []


def _request(row: dict[str, Any]) -> ApprovalRequest:
    """A question as it came over the wire."""
    where, files, sources = row.pop("destination"), row.pop("files"), row.pop("sources")
    return ApprovalRequest(
        **row,
        destination=Destination(**where) if where else None,
        files=tuple(FileDigest(**file) for file in files),
        sources=tuple(sources),
    )
