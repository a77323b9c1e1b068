"""Run a local service in a background thread, watch what it is asked, and make it fail on purpose."""

import argparse
import asyncio
import contextlib
import importlib
import json
import logging
import re
import shlex
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

# What `python -m ml_intern.testing.serve NAME` can start: each takes a data folder and a `port=`.
SERVICES = {
    "hub": "ml_intern.testing.hub:LocalHub",
    "arxiv": "ml_intern.testing.arxiv:LocalArxiv",
    "llm": "ml_intern.testing.llm:LocalLLM",
}
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


class Service:
    """An ASGI app on a loopback port, run by uvicorn in a background thread.

    Use it as a context manager, or call [`~Service.start`] and [`~Service.close`]. Several may run in one process.
    An error in the app is logged and answered with 400, never 5xx: official clients retry those for half a minute,
    which would hide the bug.

    Args:
        app (`ASGIApp`): For example a `starlette.applications.Starlette`.
        port (`int`, *optional*, defaults to 0): 0 takes a free one.

    Attributes:
        requests (`list[RecordedRequest]`): What came in, oldest first. A request is there before its answer is sent.
    """

    def __init__(self, app: ASGIApp, *, port: int = 0):
        self.app = app
        self.port = port
        self.requests: list[RecordedRequest] = []
        self._failures: list[Failure] = []
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address without a trailing slash, such as `http://127.0.0.1:40001`."""
        if self._server is None:
            raise RuntimeError(f"{type(self).__name__} is not running, so it has no address: call start() first.")
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listen; returns once requests are answered. Does nothing when already running."""
        if self._server is not None:
            return self
        listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            http="h11",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name=type(self).__name__, daemon=True
        )
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError(f"{type(self).__name__} did not start on port {self.port}; its log says why.")
            time.sleep(0.002)
        self._server, self._thread = server, thread
        return self

    def close(self) -> None:
        """Stop listening and wait for the thread. The port is kept for a later [`~Service.start`]."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def fail(
        self,
        path: str,
        *,
        status: int | None = None,
        times: int | None = 1,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | dict = b"",
        delay: float = 0.0,
        drop: Drop = False,
        method: str | None = None,
        after: int = 0,
    ) -> Failure:
        """
        Make the next matching requests go wrong. The oldest failure that matches wins.

        Args:
            path (`str`): Regular expression, searched in the raw path with its query.
            status (`int`, *optional*): Answer with this instead of asking the app.
            times (`int`, *optional*, defaults to 1): How many requests; `None` for all from now on.
            headers (`Mapping[str, str]`, *optional*): Sent with `status`.
            body (`str`, `bytes` or `dict`, *optional*): Sent with `status`; a dict goes out as JSON.
            delay (`float`, *optional*, defaults to 0): Seconds to wait first.
            drop (`bool`, `int` or `"answer"`, *optional*, defaults to `False`): `True` closes the connection before
                the request is carried out; `"answer"` carries it out and loses the answer; a number cuts the answer
                after so many bytes of its body.
            method (`str`, *optional*): Only requests with this method.
            after (`int`, *optional*, defaults to 0): Matching requests to let through first.

        Returns:
            `Failure`: Set its `times` to 0 to take it back.
        """
        extra = {name.lower(): value for name, value in (headers or {}).items()}
        if isinstance(body, dict):
            body = json.dumps(body)
            extra.setdefault("content-type", "application/json")
        data = body.encode() if isinstance(body, str) else body
        failure = Failure(re.compile(path), method, status, extra, data, delay, drop, after, times)
        self._failures.append(failure)
        return failure

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self._failures, self.requests, scope, receive, send)
        try:
            await exchange.run(self.app)
        except Exception:  # the boundary of the service: a bug is logged, and answered as 400 (see Service)
            logger.exception("%s %s failed inside the local service", exchange.method, exchange.target)
            await exchange.own_up()


class _Exchange:
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
            await app(self._scope, self._receive, self._hold_errors)
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


def main(arguments: list[str] | None = None) -> None:
    """Serve one stand-in in the foreground until it is interrupted, after printing what a client needs to find it."""
    parser = argparse.ArgumentParser(prog="python -m ml_intern.testing.serve", description=main.__doc__)
    parser.add_argument("service", choices=sorted(SERVICES))
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--data", type=Path, required=True, help="folder of the service's data; made if missing")
    options = parser.parse_args(arguments)
    module, _, name = SERVICES[options.service].partition(":")
    service = getattr(importlib.import_module(module), name)(options.data, port=options.port)
    with service:
        for key, value in service.environment().items():
            print(f"export {key}={shlex.quote(value)}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
