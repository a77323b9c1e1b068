"""What the Hub's proxy asks upstreams with: kept connections, answers as they come, all of it ended with the jail."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult

from ml_intern.execution.egress_http import BLOCK, Refused
from ml_intern.execution.egress_reach import Reach, tls

IDLE_CONNECTIONS, IDLE_AGE = 8, 15.0


class Answer:
    """A response of an upstream, on a connection that goes back to its pool."""

    def __init__(self, pool: Pool, url: SplitResult, connection: http.client.HTTPConnection) -> None:
        self.pool, self.url, self.connection = pool, url, connection
        self.response = connection.getresponse()
        self.status, self.headers = self.response.status, self.response.headers
        self.reason = re.sub(r"[^ -~]", "", self.response.reason)[:100]
        self.invented = False

    def instead(self, status: int) -> Answer:
        """The same answer under another status: what is known without asking on."""
        self.status, self.reason, self.invented = status, "", True
        return self

    def blocks(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises:
            OSError: If it ends before its end.
        """
        try:
            while block := self.response.read1(BLOCK):
                yield block
        except http.client.HTTPException as error:
            raise OSError(f"the answer broke off: {error!r}") from None
        if self.response.length:
            raise OSError("the answer broke off")
        self.finish()

    def finish(self) -> None:
        """Where nothing of the body is left: the connection may be used again."""
        if not self.response.length:
            self.response.read()

    def release(self) -> None:
        self.pool.give_back(self)


class Pool:
    """Connections to upstreams, kept for a while: each file costs a few requests, each new connection a handshake."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self._idle: list[tuple[tuple[str, str, int], float, http.client.HTTPConnection]] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, method: str, url: SplitResult, headers: Mapping[str, str]) -> Answer:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        while True:
            kept = self._take(key_of(url))
            connection = kept or self._open(url)
            with self._lock:
                self._busy.add(connection)
            try:
                connection.request(method, target, headers={"Host": url.netloc, **headers})
                return Answer(self, url, connection)
            except (http.client.HTTPException, OSError, ValueError) as error:
                self._drop(connection)
                if kept is None or self._closed:
                    raise Refused(502, f"The host {url.hostname} does not answer ({type(error).__name__}).") from None

    def give_back(self, answer: Answer) -> None:
        if self._closed or not answer.response.isclosed() or answer.response.will_close:
            answer.response.close()
            self._drop(answer.connection)
            return
        with self._lock:
            self._busy.discard(answer.connection)
            self._idle.append((key_of(answer.url), time.monotonic(), answer.connection))
            self._idle, old = self._idle[-IDLE_CONNECTIONS:], self._idle[:-IDLE_CONNECTIONS]
        for _, _, connection in old:
            connection.close()

    def close(self) -> None:
        """Also ends what is under way: a thread may be waiting there."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
            for connection in self._busy:
                with contextlib.suppress(OSError, AttributeError):  # it may be closing itself
                    connection.sock.shutdown(socket.SHUT_RDWR)
        for _, _, connection in idle:
            connection.close()

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _take(self, key: tuple[str, str, int]) -> http.client.HTTPConnection | None:
        now = time.monotonic()
        with self._lock:
            old = [entry for entry in self._idle if now - entry[1] > IDLE_AGE]
            self._idle = [entry for entry in self._idle if now - entry[1] <= IDLE_AGE]
            found = next((entry for entry in reversed(self._idle) if entry[0] == key), None)
            if found:
                self._idle.remove(found)
        for _, _, connection in old:
            connection.close()
        return found[2] if found else None

    def _open(self, url: SplitResult) -> http.client.HTTPConnection:
        scheme, host, port = key_of(url)
        connection = http.client.HTTPConnection(host, port)
        connection.auto_open = 0
        raw = self.reach.dial(scheme, host, port)
        try:
            connection.sock = tls().wrap_socket(raw, server_hostname=host) if scheme == "https" else raw
        except OSError as error:
            raw.close()
            raise Refused(502, f"No safe connection to {host}: {error}.") from None
        return connection


def port_of(url: SplitResult) -> int:
    with contextlib.suppress(ValueError):
        return url.port or (443 if url.scheme == "https" else 80)
    raise Refused(502, "The Hub redirects to an address without a port.")


def key_of(url: SplitResult) -> tuple[str, str, int]:
    return url.scheme, (url.hostname or "").lower(), port_of(url)
