"""One request to a local service: what came in, and the fault it is to meet, if any."""

import asyncio
import re
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Literal, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Drop = bool | int | Literal["answer"]
_KEPT_HEADERS = ("authorization", "content-type", "range", "user-agent", "x-api-key", "if-none-match")


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it came in.

    Args:
        method (`str`): Such as `"GET"`.
        path (`str`): As sent, still quoted, with the query.
        headers (`dict[str, str]`): The headers that matter to a test (lower case names), tokens included.
        status (`int`): What was answered; 0 when the connection was dropped before an answer.
    """

    method: str
    path: str
    headers: dict[str, str]
    status: int


@dataclass
class Failure:
    """A fault that a service shows for the next requests it matches: see [`Service.fail`]."""

    path: re.Pattern[str]
    method: str | None
    status: int | None
    headers: dict[str, str]
    body: bytes
    delay: float
    drop: Drop
    after: int
    times: int | None

    def takes(self, method: str, target: str) -> bool:
        """Whether this request is hit; counts down."""
        if self.times == 0 or (self.method and self.method != method) or not self.path.search(target):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class HangUp(Exception):
    """Raised by an app that drops the connection, in the middle of an answer or before one."""


class Exchange:
    """One request, and what becomes of it."""

    def __init__(
        self, failures: list[Failure], log: list[RecordedRequest], scope: Scope, receive: Receive, send: Send
    ):
        self._log, self._scope, self._receive, self._send = log, scope, receive, send
        self.method, self.target = scope["method"], scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            self.target += "?" + scope["query_string"].decode("latin-1")
        self.failure = next((one for one in failures if one.takes(self.method, self.target)), None)
        drop = self.failure.drop if self.failure else False
        self._left = None if isinstance(drop, bool | str) else drop  # bytes of the body until the connection breaks
        self._started = False
        self._held: list[Message] = []

    async def run(self, app: ASGIApp) -> None:
        """Let the app answer, or fail as was asked for."""
        failure = self.failure
        if failure and failure.delay:
            await asyncio.sleep(failure.delay)
        if failure and failure.drop is True:
            await self._hang_up()
        elif failure and failure.drop == "answer":
            await app(self._scope, self._receive, _swallow)
            await self._hang_up()
        elif failure and failure.status is not None:
            await Request(self._scope, self._receive).body()
            await self._say(Response(failure.body, failure.status, failure.headers))
        else:
            try:
                await app(self._scope, self._receive, self._hold_errors)
            except HangUp:
                await self._hang_up(record=not self._started)
                return
            for message in self._held:
                await self._forward(message)

    async def own_up(self) -> None:
        """Say that there is a bug, if nothing else was said."""
        if not self._started:
            text = f"Bug in the local service at {self.method} {self.target}; its log has the traceback."
            await self._say(JSONResponse({"error": text}, 400))

    async def _say(self, response: Response) -> None:
        await response(self._scope, self._receive, self._forward)

    async def _hold_errors(self, message: Message) -> None:
        # Starlette answers a bug with 500 and then raises it: keep a 500 back until it is clear that it was meant.
        if self._held or message.get("status") == 500:
            self._held.append(message)
        else:
            await self._forward(message)

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._record(message["status"])
            headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"date"]
            message = {**message, "headers": [*headers, (b"date", formatdate(usegmt=True).encode())]}
        elif self._left is not None:
            part = message.get("body", b"")[: self._left]
            self._left -= len(part)
            await self._send({**message, "body": part, "more_body": True})
            if self._left == 0 or not message.get("more_body"):
                await self._hang_up(record=False)
            return
        await self._send(message)

    def _record(self, status: int) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._scope["headers"]}
        kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
        self._log.append(RecordedRequest(self.method, self.target, kept, status))

    async def _hang_up(self, *, record: bool = True) -> None:
        if record:
            self._record(0)
        # ASGI has no word for "close without an answer": `send` is a method of uvicorn's request cycle, which has it.
        cast(Any, self._send).__self__.transport.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _swallow(message: Message) -> None:
    pass
