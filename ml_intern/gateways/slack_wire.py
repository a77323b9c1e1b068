"""The connection to Slack: made, kept, made anew; what comes over it is handed on with a way to acknowledge it.

What must never happen here: a Slack that is away ends anything; a connection that has ended is taken for one that is quiet.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import InternError
from .slack_outbox import explain
from .slack_setup import STEPS, check

if TYPE_CHECKING:
    from slack_sdk import WebClient
    from slack_sdk.socket_mode import SocketModeClient
    from slack_sdk.socket_mode.client import BaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest

AWAY = 30.0
"""Seconds between two tries to reach a Slack that was away at the start."""
MISSED = 20.0
"""Seconds without a connection after which words may have been missed that Slack does not send again."""

quiet = logging.getLogger("ml_intern.slack")
quiet.addHandler(logging.NullHandler())
quiet.propagate = False  # the client tells of each hiccup; a terminal has other things to show

Acknowledge = Callable[[dict[str, Any] | None], None]
_LATER = ("ratelimited", "internal_error", "service_unavailable", "fatal_error")


class Wire:
    """A connection in Socket Mode.

    Args:
        client (`WebClient`): With the bot's token.
        app_token (`str`): Opens connections; `""` where nothing is listened to.
        channel (`str`): Where sessions of a terminal are told: looked at once.
        take (`Callable[[str, dict, Acknowledge], None]`): Gets what comes (an envelope's type, its payload, a way to
            acknowledge it), one after the other.
        connected (`Callable[[bool], None]`): Called when there is a connection: the first time with `True`, after a longer
            time without one with `False`.
        warn (`Callable[[str], None]`): Told what is amiss.
        ping_seconds (`float`): How often it is looked after.
    """

    def __init__(
        self,
        client: WebClient,
        app_token: str,
        channel: str,
        take: Callable[[str, dict[str, Any], Acknowledge], None],
        connected: Callable[[bool], None],
        warn: Callable[[str], None],
        ping_seconds: float,
    ) -> None:
        self._client, self._app_token, self._channel = client, app_token, channel
        self._take, self._connected, self._warn, self._ping_seconds = take, connected, warn, ping_seconds
        self._closed = threading.Event()
        self._socket: SocketModeClient | None = None
        self.team = self.me = ""

    @property
    def connected(self) -> bool:
        """Whether Slack can tell of clicks and words at this moment."""
        return self._socket is not None and self._socket.is_connected()

    def start(self) -> None:
        """Connects; where Slack is away it goes on trying.

        Raises:
            InternError: Slack refuses the tokens.
        """
        there = self._connect()
        threading.Thread(target=self._keep, args=(there,), name="slack-wire", daemon=True).start()

    def close(self) -> None:
        """Hangs up, on a thread of its own: the client's close takes its time."""
        self._closed.set()
        if self._socket is not None:
            threading.Thread(target=_hang_up, args=(self._socket,), name="slack-close", daemon=True).start()

    def _connect(self) -> bool:
        """Whether there is no need to try again."""
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            who, amiss = check(self._client, self._channel, bool(self._app_token))
            self.team, self.me = who["team_id"], who["user_id"]
            for said in amiss:
                self._warn(said)
            if self._app_token:
                self._listen()
        except SlackApiError as error:
            code, status = str(error.response.get("error", "")), error.response.status_code
            if status in (429, 500, 502, 503) or code in _LATER:
                return False
            raise InternError(*_refusal(code, error.response)) from None
        except (SlackClientError, OSError) as error:
            said = " ".join(str(error).split())[:200]
            self._warn(f"Slack cannot be reached ({said}). The work goes on; it is told later.")
            return False
        self._connected(True)
        return True

    def _listen(self) -> None:
        from slack_sdk.socket_mode import SocketModeClient

        if self._socket is None:
            self._socket = SocketModeClient(
                self._app_token,
                web_client=self._client,
                logger=quiet,
                ping_interval=self._ping_seconds,
                receive_buffer_size=65_536,
                concurrency=1,  # things are taken in the order they come
            )
            self._socket.socket_mode_request_listeners.append(self._receive)
        self._socket.connect()

    def _receive(self, client: BaseSocketModeClient, request: SocketModeRequest) -> None:
        from slack_sdk.errors import SlackClientError
        from slack_sdk.socket_mode.response import SocketModeResponse

        def acknowledge(payload: dict[str, Any] | None = None) -> None:
            with contextlib.suppress(
                SlackClientError, OSError
            ):  # the connection is gone; it comes again, and is known
                client.send_socket_mode_response(SocketModeResponse(request.envelope_id, payload))

        self._take(request.type, request.payload or {}, acknowledge)

    def _keep(self, there: bool) -> None:
        """Tries until there is a connection, then looks after it.

        The client sees only after five failed pings that a connection has ended without a word, and spins meanwhile.
        """
        from slack_sdk.errors import SlackClientError

        wait = min(1.0, self._ping_seconds * 2)
        while not there and not self._closed.wait(wait):
            try:
                there = self._connect()
            except InternError as error:
                self._warn(str(error))
                return
            wait = min(AWAY, wait * 2)
        seen = time.monotonic()
        while not self._closed.wait(self._ping_seconds / 2) and self._socket is not None:
            connection = self._socket.current_session
            if connection is not None and connection.consecutive_check_state_error_count:
                connection.disconnect()
                with contextlib.suppress(SlackClientError, OSError):  # the client tries again itself
                    self._socket.connect_to_new_endpoint()
            if self.connected:
                away, seen = time.monotonic() - seen, time.monotonic()
                if away > MISSED:
                    self._connected(False)


def _hang_up(client: SocketModeClient) -> None:
    """The client's own close waits for its socket's time-out, three seconds, unless nothing can come over it any more."""
    client.auto_reconnect_enabled = False
    sock = client.current_session.sock if client.current_session is not None else None
    with contextlib.suppress(OSError):
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
    client.close()


def _refusal(code: str, response: Any) -> tuple[str, str, str]:
    if code in ("invalid_auth", "not_allowed_token_type", "not_authed", "token_revoked", "account_inactive"):
        return "Slack refuses the tokens", code, f"Copy SLACK_BOT_TOKEN and SLACK_APP_TOKEN anew.\n{STEPS}"
    if code == "missing_scope" and response is not None and "connections" in str(response.get("needed", "")):
        return (
            "Slack cannot be listened to",
            code,
            "SLACK_APP_TOKEN needs the scope connections:write: generate another.",
        )
    return "Slack cannot be told", code, explain(code, response)
