"""The websocket end of Slack's Socket Mode: envelopes out, acknowledgements in (RFC 6455 as far as clients use it)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import secrets
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


@dataclass
class Envelope:
    """Something that Slack has sent.

    Args:
        id (`str`): Its `envelope_id`.
        sent (`list[float]`): When, by `time.monotonic()`; more than once where it was not acknowledged.
        acknowledged (`threading.Event`): Set by the acknowledgement.
        answer (`Any`): The payload that came with it.
        at (`float`): When it came.
    """

    id: str
    row: dict[str, Any]
    sent: list[float] = field(default_factory=list)
    acknowledged: threading.Event = field(default_factory=threading.Event)
    answer: Any = None
    at: float = 0.0


class SocketMode:
    """Takes connections with a ticket, sends envelopes over one of them, and again where nothing comes back.

    Args:
        patience (`float`, defaults to 3): Seconds for an acknowledgement.
        tries (`int`, defaults to 4): How often an event is sent in all.
    """

    def __init__(self, patience: float = 3.0, tries: int = 4) -> None:
        self.patience, self.tries = patience, tries
        self.connections = 0
        """How many there have been."""
        self.envelopes: dict[str, Envelope] = {}
        self._tickets: set[str] = set()
        self._open: list[_Connection] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        for work in (self._accept, self._resend):
            threading.Thread(target=work, name="slack-socket-mode", daemon=True).start()

    def ticket(self) -> str:
        """The address of a connection; it works once."""
        ticket = secrets.token_hex(16)
        with self._lock:
            self._tickets.add(ticket)
        return f"ws://127.0.0.1:{self.port}/link/?ticket={ticket}&app_id=A1"

    @property
    def connected(self) -> int:
        return len(self._open)

    def wait_connected(self, seconds: float = 10.0) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._open, seconds):
                raise TimeoutError("no client has connected")

    def send(self, kind: str, payload: dict[str, Any], **extra: Any) -> Envelope:
        """Sends an envelope of that type now, or when somebody is there."""
        envelope = Envelope(secrets.token_hex(12), {"type": kind, "payload": payload, **extra})
        envelope.row["envelope_id"] = envelope.id
        with self._lock:
            self.envelopes[envelope.id] = envelope
        self._try(envelope)
        return envelope

    def again(self, envelope: Envelope) -> None:
        """Sends it once more, whether or not it was acknowledged."""
        self._try(envelope)

    def disconnect(self, reason: str = "refresh_requested") -> None:
        """Asks every client for a new connection, as Slack does every few hours; the old one is closed by the client."""
        with self._lock:
            open_now = list(self._open)
        for connection in open_now:
            connection.send_row({"type": "disconnect", "reason": reason, "debug_info": {"host": "local"}})

    def drop(self) -> None:
        """Breaks all connections without a word."""
        with self._lock:
            open_now = list(self._open)
        for connection in open_now:
            connection.close()

    def close(self) -> None:
        self._closed = True
        self.drop()
        self._listener.close()

    def _try(self, envelope: Envelope) -> None:
        with self._lock:
            connection = self._open[-1] if self._open else None
        if connection is not None:
            envelope.sent.append(time.monotonic())
            connection.send_row({**envelope.row, "retry_attempt": len(envelope.sent) - 1, "retry_reason": ""})

    def _resend(self) -> None:
        while not self._closed:
            time.sleep(min(0.05, self.patience / 4))
            with self._lock:
                waiting = [one for one in self.envelopes.values() if not one.acknowledged.is_set()]
            now = time.monotonic()
            for envelope in waiting:
                again = envelope.row["type"] == "events_api" or not envelope.sent
                late = not envelope.sent or now - envelope.sent[-1] > self.patience
                if again and late and len(envelope.sent) < self.tries and self._open:
                    self._try(envelope)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(client,), name="slack-socket", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        connection = _Connection(client)
        try:
            head = connection.read_head()
            found = re.search(r"ticket=(\w+)", head.split("\r\n")[0])
            with self._lock:
                good = found is not None and found[1] in self._tickets
                if good and found is not None:
                    self._tickets.discard(found[1])
            if not good:
                client.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                return
            connection.agree(head)
            connection.send_row({"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A1"}})
            with self._changed:
                self.connections += 1
                self._open.append(connection)
                self._changed.notify_all()
            while (row := connection.receive()) is not None:
                self._take(row)
        except OSError:
            pass
        finally:
            connection.close()
            with self._changed:
                if connection in self._open:
                    self._open.remove(connection)
                self._changed.notify_all()

    def _take(self, row: dict[str, Any]) -> None:
        envelope = self.envelopes.get(str(row.get("envelope_id")))
        if envelope is not None and not envelope.acknowledged.is_set():
            envelope.answer, envelope.at = row.get("payload"), time.monotonic()
            envelope.acknowledged.set()


class _Connection:
    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._bytes = client.makefile("rb")
        self._sending = threading.Lock()

    def read_head(self) -> str:
        lines = []
        while (line := self._bytes.readline(8_000)) not in (b"\r\n", b"\n", b""):
            lines.append(line.decode("latin-1").rstrip("\r\n"))
        return "\r\n".join(lines)

    def agree(self, head: str) -> None:
        key = re.search(r"(?im)^sec-websocket-key:\s*(\S+)", head)
        accept = base64.b64encode(hashlib.sha1(((key[1] if key else "") + _GUID).encode()).digest()).decode()
        self._client.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )

    def send_row(self, row: dict[str, Any]) -> None:
        self._send(_TEXT, json.dumps(row).encode())

    def receive(self) -> dict[str, Any] | None:
        """The next text, `None` at the end; pings are answered."""
        while True:
            head = self._bytes.read(2)
            if len(head) < 2:
                return None
            length = head[1] & 127
            if length > 125:
                length = int.from_bytes(self._bytes.read(2 if length == 126 else 8), "big")
            mask = self._bytes.read(4)
            data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self._bytes.read(length)))
            if head[0] & 15 == _CLOSE:
                return None
            if head[0] & 15 == _PING:
                self._send(_PONG, data)
            elif head[0] & 15 == _TEXT:
                return json.loads(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        self._client.close()

    def _send(self, opcode: int, data: bytes) -> None:
        if len(data) < 126:
            size = bytes([len(data)])
        else:
            size = struct.pack("!BH", 126, len(data)) if len(data) < 65_536 else struct.pack("!BQ", 127, len(data))
        with self._sending, contextlib.suppress(OSError):
            self._client.sendall(bytes([0x80 | opcode]) + size + data)
