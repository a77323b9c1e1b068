"""A tool server over HTTP: on this machine's own address alone, for those who have its token.

What must never happen here: another machine reaches it; a page in a browser does, by its own name or by one that it had
pointed here (DNS rebinding); a call is made without the token.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

HOST, PATH = "127.0.0.1", "/mcp"
TOKEN = "ML_INTERN_MCP_TOKEN"
SHORTEST = 16


def chosen_token() -> tuple[str, bool]:
    """The token, and whether it was made here.

    Raises:
        SettingsError: the one that is set can be guessed.
    """
    given = os.environ.get(TOKEN, "").strip()
    if given and (len(given) < SHORTEST or not given.isascii() or not given.isprintable()):
        raise SettingsError(
            f"{TOKEN} is no token", f"it has fewer than {SHORTEST} plain characters", "Unset it to get one made."
        )
    return (given, False) if given else (secrets.token_urlsafe(32), True)


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address; port 0 takes a free one.

    Raises:
        SettingsError: the port is taken.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"Cannot listen on {HOST}:{port}", error.strerror or str(error), "Choose another: --port N."
        ) from None
    return listening


def guarded_app(server: MCPServer[Any], port: int, token: str) -> Any:
    """The official application, behind what looks at who asks."""
    from mcp.server.transport_security import TransportSecuritySettings

    hosts = [f"{name}:{port}" for name in (HOST, "localhost", "[::1]")]
    origins = [f"http://{host}" for host in hosts]
    security = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)
    app = server.streamable_http_app(streamable_http_path=PATH, host=HOST, transport_security=security)
    return _Guard(app, frozenset(hosts), frozenset(origins), token)


class _Guard:
    """Lets through who names this machine, comes from no foreign page, and has the token."""

    def __init__(self, app: Any, hosts: frozenset[str], origins: frozenset[str], token: str) -> None:
        self.app, self.hosts, self.origins = app, hosts, origins
        self.expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        given: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name.lower(), []).append(value)
        refused = self._refused(given)
        if refused is None:
            await self.app(scope, receive, send)
            return
        status, text = refused
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    def _refused(self, given: dict[bytes, list[bytes]]) -> tuple[int, str] | None:
        hosts = [value.decode("latin-1") for value in given.get(b"host", [])]
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return 421, "This server answers to its own address alone."
        if any(value.decode("latin-1") not in self.origins for value in given.get(b"origin", [])):
            return 403, "This server answers no pages of others."
        sent = given.get(b"authorization", [])
        if len(sent) != 1 or not hmac.compare_digest(sent[0], self.expected):
            return 401, "Send the token that the server printed: Authorization: Bearer TOKEN."
        return None


def run(
    server: MCPServer[Any], listening: socket.socket, token: str, ready: Callable[[str], None] = lambda url: None
) -> None:
    """Serves until it is stopped.

    Args:
        server (`MCPServer`): What to serve.
        listening (`socket`): From [`listen`].
        token (`str`): What clients have to send.
        ready (`Callable[[str], None]`, *optional*): Told the address.
    """
    import uvicorn

    port = listening.getsockname()[1]
    app = guarded_app(server, port, token)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, server_header=False
    )
    ready(f"http://{HOST}:{port}{PATH}")
    uvicorn.Server(config).run(sockets=[listening])
