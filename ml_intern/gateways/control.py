"""Lets other processes of this user on this machine look at sessions, answer their questions and say a word to them.

What must never happen here: another user reads or answers anything; an answer counts twice, or reaches another call than
the one that was shown; a client that hangs holds up a session.

Each process that works listens at a Unix socket in a folder that only its user can enter, and says so with a small file
in `<home>/running`. A request is a line of JSON, and so is its reply; `events` is answered with many. The kernel says who
is at the other end (`SO_PEERCRED`), and both ends look. See `peers.py` for that other end.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import socket
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import InternError
from ..events import ApprovalAnswer, ApprovalAnswered, ApprovalRequest, Event, SessionEnded
from ..intern import MLIntern
from ..session import Session
from .sockets import LONGEST_LINE, SECONDS, as_sent, same_user, send, socket_folder, where

CLIENTS = 32
BACKLOG = 10_000
"""Events that a slow reader may be behind before it is let go."""


class ControlServer:
    """Lets other processes of this user look at the sessions of an intern, answer them and steer them.

    Args:
        intern (`MLIntern`): Whose sessions.

    Raises:
        InternError: no private folder for the socket can be had.
    """

    def __init__(self, intern: MLIntern) -> None:
        self._intern = intern
        home = intern.settings.home.expanduser().absolute()
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.path = socket_folder() / f"{name}.sock"
        self._advert = _adverts(home) / f"{name}.json"
        self._slots = threading.BoundedSemaphore(CLIENTS)
        self._closed = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(self.path))
            self.path.chmod(0o600)
            self._socket.listen(CLIENTS)
            self._socket.settimeout(0.5)  # a look at `_closed` now and then
            self._announce()
        except OSError as error:
            self._remove()
            raise InternError("Other processes cannot reach this one", error.strerror or str(error)) from None
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes the socket away; requests that are being answered end with the process."""
        self._closed.set()
        self._remove()
        self._thread.join(timeout=2)

    def __enter__(self) -> ControlServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _announce(self) -> None:
        said = {"pid": os.getpid(), "socket": str(self.path), "where": where(), "since": time.time()}
        fresh = self._advert.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(said), encoding="utf-8")
        fresh.replace(self._advert)

    def _remove(self) -> None:
        self._socket.close()
        for path in (self._advert, self.path):
            path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:  # closed
                return
            if not same_user(client) or not self._slots.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), name="control-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rb") as lines:
                client.settimeout(SECONDS)
                while not self._closed.is_set():
                    line = lines.readline(LONGEST_LINE)
                    if not line:
                        return
                    self._reply(client, line)
        except (OSError, TimeoutError):  # the client's affair
            return
        finally:
            self._slots.release()

    def _reply(self, client: socket.socket, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise TypeError("a request is an object")
            if request.get("op") == "events":
                self._tail(client, self._session(str(request.get("session"))), int(request.get("since", 0)))
                return
            reply = {"ok": True, "result": self._carry_out(request)}
        except InternError as error:
            reply = {"ok": False, "what": error.what, "why": error.why, "remedy": error.remedy}
        except (ValueError, TypeError, KeyError) as error:
            reply = {"ok": False, "what": "That request cannot be understood", "why": str(error), "remedy": ""}
        send(client, reply)

    def _carry_out(self, request: dict[str, Any]) -> Any:
        match request["op"]:
            case "list":
                return [_summary(session) for session in list(self._intern.sessions.values())]
            case "pending":
                return [asdict(asked) for asked in self._session(request["session"]).pending()]
            case "answer":
                session, call = self._session(request["session"]), str(request["call"])
                answer, shown = ApprovalAnswer(**request["answer"]), request.get("asked")
                asks = next((one for one in session.pending() if one.call_id == call), None)
                if shown is not None and asks is not None and as_sent(asdict(asks)) != shown:
                    raise InternError("It asks something else by now", "somebody has edited it", "Look at it again.")
                try:
                    session.answer(call, answer, asks)
                except InternError as error:
                    raise _late(session, call) or error from None
            case "steer":
                session = self._session(request["session"])
                self._intern.steer(str(request["text"]), session.id, by=str(request.get("by", "")))
            case "stop":
                self._session(request["session"]).interrupt(request.get("jobs") is True)
            case "extend":
                session, usd = self._session(request["session"]), float(request.get("usd", 0))
                if usd and session.config.budget_usd is None:
                    raise InternError("There is no budget that could be raised", "what it may spend is not limited")
                session.extend(int(request.get("steps", 0)), usd, by=str(request.get("by", "")))
            case "model":
                session = self._session(request["session"])
                self._intern.set_model(str(request["model"]), session.id, str(request.get("by", "")))
            case other:
                raise ValueError(f"no operation {other!r}")
        return None

    def _tail(self, client: socket.socket, session: Session, since: int) -> None:
        """Events from number `since` on, until the turn ends or the client leaves."""
        waiting: queue.Queue[Event] = queue.Queue(BACKLOG)
        gone = threading.Event()

        def hear(event: Event) -> None:  # a listener that raises is dropped: one that is full, one that has left
            if gone.is_set():
                raise ConnectionError("the reader has left")
            waiting.put_nowait(event)

        session.events.listen(hear, since)
        try:
            self._pass_on(client, waiting)
        finally:
            gone.set()

    def _pass_on(self, client: socket.socket, waiting: queue.Queue[Event]) -> None:
        while not self._closed.is_set():
            try:
                event = waiting.get(timeout=0.5)
            except queue.Empty:
                if _left(client):
                    return
                continue
            client.sendall(event.to_json().encode() + b"\n")
            if isinstance(event, SessionEnded) and waiting.empty():
                return

    def _session(self, session_id: str) -> Session:
        session = self._intern.sessions.get(session_id)
        if session is None:
            raise InternError(f"There is no session {session_id} in process {os.getpid()}")
        return session


def _adverts(home: Path) -> Path:
    folder = home / "running"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InternError(f"Cannot write to {folder}", error.strerror or str(error)) from None
    return folder


def _summary(session: Session) -> dict[str, Any]:
    """What a `Running` says of it, but for the process."""
    usage = session.usage
    return {
        "id": session.id,
        "state": session.state,
        "mode": session.mode,
        "title": session.title,
        "cost_usd": usage.cost_usd,
        "tokens": usage.input_tokens + usage.output_tokens,
        "questions": [_question(request) for request in session.pending()],
    }


def _question(request: ApprovalRequest) -> str:
    """A question on a line."""
    if request.tool == "ask_user":
        return str(request.arguments.get("question", ""))[:500]
    return f"{request.tool}({', '.join(f'{name}={value!r}' for name, value in request.arguments.items())})"[:500]


def _late(session: Session, call_id: str) -> InternError | None:
    """Why an answer does not count, where another one did."""
    for event in list(session.events.history):
        if isinstance(event, ApprovalAnswered) and event.call_id == call_id:
            by = f" by {event.answer.by}" if event.answer.by else ""
            return InternError("That has been answered", f"{event.answer.decision}{by}; an answer counts once")
    return None


def _left(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    finally:
        client.settimeout(SECONDS)
