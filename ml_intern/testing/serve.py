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
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_intern.testing.faults import Drop, Exchange, Failure, RecordedRequest

logger = logging.getLogger(__name__)

# What `python -m ml_intern.testing.serve NAME` can start: each takes a data folder and a `port=`.
SERVICES = {
    "e2b": "ml_intern.testing.e2b:LocalE2B",
    "github": "ml_intern.testing.github:LocalGithub",
    "hub": "ml_intern.testing.hub:LocalHub",
    "arxiv": "ml_intern.testing.arxiv:LocalArxiv",
    "llm": "ml_intern.testing.llm:LocalLLM",
    "scholar": "ml_intern.testing.scholar:LocalScholar",
    "slack": "ml_intern.testing.slack:LocalSlack",
    "anthropic": "ml_intern.testing.llm_anthropic:LocalAnthropic",
    "ollama": "ml_intern.testing.llm_ollama:LocalOllama",
    "llamacpp": "ml_intern.testing.llm_llamacpp:LocalLlamaCpp",
}


class _Server(uvicorn.Server):
    """uvicorn, but told from another thread to stop it does so at once, not when it next looks."""

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self.running = threading.Event()
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.running.set()
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 0.1)

    def stop(self) -> None:
        """Finish what is under way, and end."""
        self.should_exit = True
        if self._loop:
            self._loop.call_soon_threadsafe(self._told.set)


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
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._kept: weakref.finalize | None = None

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
        if self._kept is not None:
            self._kept()
        listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        # Accepted connections take this over; without it each answer waits 40 ms for the client's delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            date_header=False,  # uvicorn's may be late by a tick; each answer gets its own
            log_config=None,
            access_log=False,
            http="h11",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name=type(self).__name__, daemon=True
        )
        thread.start()
        while not server.running.wait(0.1):
            if not thread.is_alive():
                raise RuntimeError(f"{type(self).__name__} did not start on port {self.port}; its log says why.")
        self._server, self._thread = server, thread
        return self

    def close(self) -> None:
        """Stop listening and wait for the thread.

        The port is kept for a later [`~Service.start`]: nobody answers there, as long as this object lives.
        """
        if self._server is None or self._thread is None:
            return
        self._server.stop()
        self._thread.join(timeout=10)
        self._server = self._thread = None
        keeper = socket.socket()
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody was quicker
            keeper.bind(("127.0.0.1", self.port))
        self._kept = weakref.finalize(self, keeper.close)

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
        exchange = Exchange(self._failures, self.requests, scope, receive, send)
        try:
            await exchange.run(self.app)
        except Exception:  # the boundary of the service: a bug is logged, and answered as 400 (see Service)
            logger.exception("%s %s failed inside the local service", exchange.method, exchange.target)
            await exchange.own_up()


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
