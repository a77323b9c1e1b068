"""The door of a jail: what code in there may reach of the network, and the host's part in it.

A jail has a network of its own with nothing in it. The worker opens one listening socket in there, before any code runs,
and hands it to the host over a socket pair: the host accepts on it what code connects to `127.0.0.1:8118`. Nothing is
forwarded inside the jail, and no file and no process are needed for it.

By default the door leads to the Hub, for reading, without anybody's credentials (`egress_hub.py`). Other hosts can be
reached through it only if a person named them (`CONNECT`, and absolute addresses for plain HTTP), or all public ones
(`network="full"`). Nothing leads to this machine or its network (`egress_reach.py`). What is refused is told to the code
in words, to the model with its observation, and to `on_refused`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ml_intern.execution.egress_http import Refused, Request, read_request, refuse, relay
from ml_intern.execution.egress_hub import HubProxy
from ml_intern.execution.egress_reach import Reach, split_host

logger = logging.getLogger(__name__)
Network = Literal["none", "hub", "full"]
PORT = 8118
OWN = f"http://127.0.0.1:{PORT}"
VIEWER = f"http://datasets-server.127.0.0.1:{PORT}/"  # what `datasets` makes of HF_ENDPOINT, and can do without
HUB = "https://huggingface.co"
CONNECTIONS = 64
A_SECOND = 500
KEPT_REFUSALS = 100
HOP_BY_HOP = {"connection", "proxy-connection", "proxy-authorization", "keep-alive", "te", "upgrade", "host"}
DOOR_SECONDS = 60.0
# What the worker does when it starts, for any other program: opens the listener, hands it out, becomes the program.
DOOR = """
import os, socket, sys
number, port, *command = sys.argv[1:]
with socket.create_server(("127.0.0.1", int(port)), backlog=128) as listener, socket.socket(fileno=int(number)) as door:
    socket.send_fds(door, [b"!"], [listener.fileno()])
os.execv(command[0], command)
"""
OFFLINE = {"ML_INTERN_NETWORK": "none", "HF_HUB_OFFLINE": "1"}
"""What code without a network has in its environment: the Hub's client then says so at once."""


def offline(unsafe: bool) -> dict[str, str]:
    """The environment of code without a door: it has no network, or (`unsafe`, no jail at all) the host's own."""
    if not unsafe:
        return OFFLINE
    hub = {"HF_ENDPOINT": os.environ["HF_ENDPOINT"]} if os.environ.get("HF_ENDPOINT") else {}
    return {"ML_INTERN_NETWORK": "full", **hub}


@dataclass(frozen=True)
class Refusal:
    """What was refused: the host, and why in words."""

    host: str
    why: str


def with_door(door: int, command: list[str]) -> list[str]:
    """`command` behind a door, for a jail that runs something else than the worker.

    Args:
        door (`int`): The jail's end of a `socket.socketpair()`, passed on to it; the host gives its end to `Egress.take`.
        command (`list[str]`): With the full path of a program.
    """
    return [sys.executable, "-I", "-S", "-c", DOOR, str(door), str(PORT), *command]


class Egress:
    """Serves the network side of one jail at a time.

    Args:
        hub (`str`, *optional*): Address of the Hub to read from. `None`: no Hub.
        hosts (`Sequence[str]`): Hosts that may be reached: `"example.com"`, `"example.com:8443"`, `"*.example.com"`.
        any_host (`bool`, defaults to `False`): Whether all public hosts may be.
        private (`bool`, defaults to `False`): Whether the named hosts may have private or loopback addresses.
        on_refused (`Callable[[Refusal], None]`, *optional*): Told of what is refused, once each, on a thread of its own.

    Raises:
        ValueError: If one of the addresses is none.

    Example:
        ```py
        index = Egress(hosts=["index.example.org", "files.example.org"])  # exactly these, for a jail that runs pip
        ```
    """

    def __init__(
        self,
        *,
        hub: str | None = None,
        hosts: Sequence[str] = (),
        any_host: bool = False,
        private: bool = False,
        on_refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        self.reach = Reach(hosts, any_host=any_host, private=private)  # which does not lead to a Hub in the house
        self.hub = HubProxy(hub, Reach(hosts, any_host=any_host, home=hub), OWN) if hub else None
        self.on_refused = on_refused
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        self._lock = threading.Lock()
        self._refusals: dict[Refusal, None] = {}
        self._untold: list[Refusal] = []

    @classmethod
    def of(
        cls, network: Network, hosts: Sequence[str] = (), on_refused: Callable[[Refusal], None] | None = None
    ) -> Egress | None:
        """The door for a mode: `"none"` has none; the Hub is the host's own (`HF_ENDPOINT`)."""
        if network not in ("none", "hub", "full"):
            raise ValueError(f"`network` is 'none', 'hub' or 'full', not {network!r}")
        if network == "none":
            if hosts:
                raise ValueError("`hosts` cannot be reached with network='none': leave one of them out")
            return None
        hub = os.environ.get("HF_ENDPOINT") or HUB
        return cls(hub=hub, hosts=hosts, any_host=network == "full", on_refused=on_refused)

    @property
    def mode(self) -> Network:
        return "full" if self.reach.any_host else "hub"

    def variables(self) -> dict[str, str]:
        """The environment of code behind this door; the folder of the Hub's client is the caller's to add."""
        found = {"ML_INTERN_NETWORK": self.mode, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            found[name] = OWN  # set also where no host is named: what is refused is then refused in words
        if self.hub:
            found |= {
                "HF_ENDPOINT": OWN,
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_UPDATE_CHECK": "1",
                "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # else `datasets` calls home for each load
            }
        return found

    def take(self, door: socket.socket) -> None:
        """Serves the listener that comes through `door`, the host's end of the pair, from a jail that starts.

        Raises:
            OSError: If none comes.
        """
        door.settimeout(DOOR_SECONDS)
        _, numbers, _, _ = socket.recv_fds(door, 1, 1)
        if len(numbers) != 1:
            raise OSError("no listener came out of the jail")
        listener = socket.socket(fileno=numbers[0])
        if listener.family != socket.AF_INET or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.close()
            raise OSError("what came out of the jail is no listener")
        self.serve(listener)

    def serve(self, listener: socket.socket) -> None:
        """Takes what connects to `listener`, in place of the one before, on a thread of its own."""
        self.close()
        self._listener = listener
        listener.settimeout(None)
        if self.hub:
            self.hub.open()
        threading.Thread(target=self._accept, args=(listener,), name="ml-intern-egress", daemon=True).start()

    def close(self) -> None:
        """Ends all connections and threads. `serve` opens it again."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        if self.hub:
            self.hub.close()

    def take_refusals(self) -> list[Refusal]:
        """What was refused since this was last asked."""
        with self._lock:
            untold, self._untold = self._untold, []
        return untold

    def _accept(self, listener: socket.socket) -> None:
        since, count = time.monotonic(), 0
        while self._listener is listener:
            self._room.acquire()
            try:
                connection, _ = listener.accept()
            except OSError:  # it was closed; or this machine is out of descriptors
                self._room.release()
                time.sleep(0.05 if self._listener is listener else 0)
                continue
            count += 1
            with self._lock:
                self._open.add(connection)
            try:
                threading.Thread(target=self._serve, args=(connection,), name="ml-intern-egress", daemon=True).start()
            except RuntimeError:  # out of threads
                self._end(connection)
            if time.monotonic() - since > 1:
                since, count = time.monotonic(), 0
            elif count > A_SECOND:  # a flood is the jail's own affair, the host has other work
                time.sleep(0.2)

    def _serve(self, connection: socket.socket) -> None:
        request: Request | None = None
        try:
            request = read_request(connection)
            self._answer(connection, request)
        except Refused as refused:
            self._note(refused)
            refuse(connection, refused, request)
        except (OSError, EOFError, ValueError):
            pass  # one side is gone, or an upstream speaks nonsense: the code sees a connection that broke off
        finally:
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()
        self._room.release()

    def _answer(self, connection: socket.socket, request: Request) -> None:
        if request.method == "CONNECT":
            self._tunnel(connection, request)
            return
        if request.target.startswith("/"):
            origin = request
        elif request.target.startswith(OWN + "/"):  # a client that uses its proxy even for the proxy
            origin = Request(request.method, request.target[len(OWN) :], request.headers, request.rest)
        elif self.hub and request.target.startswith(VIEWER):
            raise Refused(404, "The dataset viewer is read by the tool hub_inspect_dataset.")
        else:
            self._forward(connection, request)
            return
        if self.hub is None:
            raise Refused(404, "There is no Hub here.")
        self.hub.answer(connection, origin)

    def _dial(self, scheme: str, authority: str, default: int) -> socket.socket:
        try:
            host, port = split_host(authority, default)
        except ValueError:
            raise Refused(400, "This is no host.") from None
        if not self.reach.names(host, port) and not self.reach.any_host:
            hub = f" Public models and data of the Hub are read through HF_ENDPOINT ({OWN})." if self.hub else ""
            raise Refused(
                403,
                f"{host} cannot be reached from this code.{hub} For anything else use the tools; a person can allow "
                f"the host: --allow-host {host}{'' if port in (80, 443) else f':{port}'}.",
                host,
            )
        return self.reach.dial(scheme, host, port)

    def _tunnel(self, connection: socket.socket, request: Request) -> None:
        with self._dial("https", request.target, 443) as upstream, self._counted(upstream):
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            if request.rest:
                upstream.sendall(request.rest)
            relay(connection, upstream)

    def _forward(self, connection: socket.socket, request: Request) -> None:
        """Plain HTTP to a named host. The address decides where it goes and for whom, whatever `Host` says."""
        url = urlsplit(request.target)
        if url.scheme != "http" or not url.netloc:
            raise Refused(400, "This is not an address of HTTP.")
        authority = url.netloc.rpartition("@")[2]
        with self._dial("http", authority, 80) as upstream, self._counted(upstream):
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            lines = [f"{request.method} {target} HTTP/1.1", f"Host: {authority}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in request.headers.items() if name not in HOP_BY_HOP]
            upstream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.rest)
            relay(connection, upstream)

    @contextlib.contextmanager
    def _counted(self, upstream: socket.socket) -> Generator[None]:
        """One of those that `close` ends."""
        with self._lock:
            self._open.add(upstream)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(upstream)

    def _note(self, refused: Refused) -> None:
        if not refused.host:
            return
        refusal = Refusal(refused.host, refused.text)
        with self._lock:
            new = refusal not in self._refusals and len(self._refusals) < KEPT_REFUSALS
            if new:
                self._refusals[refusal] = None
            if refusal not in self._untold and len(self._untold) < KEPT_REFUSALS:
                self._untold.append(refusal)
        if new and self.on_refused:
            try:
                self.on_refused(refusal)
            except Exception:  # whoever listens, the code gets its answer
                logger.exception("on_refused failed")
