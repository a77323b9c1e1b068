"""Connection: one MCP server and the official client that talks to it, on a thread of their own.

What must never happen here: a server that never answers, floods or dies holds anybody up for longer than was said; a server's
environment holds a key of ours; something of a server runs on when the connection is closed, or when this process is gone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import InternError
from . import keeper
from .over_http import over_http, over_sse
from .servers import McpServer

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Tool

MOST_TOOLS, MOST_PAGES = 500, 50
CLOSE_SECONDS = 8.0
"""The official client gives a server two seconds to end by itself, two more when it is told to, and two when it is killed."""
LOOK_SECONDS = 0.05
LAST_WORDS_SECONDS = 3.0
"""How long one that is gone is waited for, to hear what it said last."""
LARGEST_ANSWER = keeper.LONGEST_LINE
"""Bytes of one message of a server's."""
RESTARTS = 1
_UNHEARD = logging.NullHandler()


class ServerFailed(InternError):
    """A server could not be started, is gone, or did not answer."""


class CallCancelled(InternError):
    """The code that made a call has been stopped."""


class _Life:
    """A server from its start to its end."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.client: Client | None = None
        self.stop: asyncio.Event | None = None
        self.task: asyncio.Task[Any] | None = None
        self.ready, self.over = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.said: TextIO = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by the thread that fills it
        self.last_words = ""
        self.thread: threading.Thread | None = None
        self.lost = self.told = False


class Connection:
    """A server, started when it is first needed and once more when it died.

    Args:
        server (`McpServer`): How to reach it.
        note (`Callable[[str], None]`, *optional*): Told what a person should know.
    """

    def __init__(self, server: McpServer, note: Callable[[str], None] = lambda text: None) -> None:
        self.server, self.note = server, note
        self._life: _Life | None = None
        self._begun = 0
        self._closed = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins to start it; returns at once."""
        with self._lock:
            if self._life is None and not self._closed:
                self._begin()

    def tools(self, stopped: Callable[[], bool] = lambda: False) -> list[Tool]:
        """What the server offers, as it says now.

        Raises:
            ServerFailed: it cannot be reached.
            CallCancelled: `stopped` came true.
        """
        return self._use(
            _list, min(self.server.start_seconds, self.server.call_seconds), "saying what it offers", stopped, True
        )

    def call(
        self, tool: str, arguments: dict[str, Any], stopped: Callable[[], bool] = lambda: False
    ) -> CallToolResult:
        """Calls a tool.

        Args:
            tool (`str`): Its own name.
            arguments (`dict`): By their own names.
            stopped (`Callable[[], bool]`, *optional*): Looked at while it waits; the server is told to stop when it is true.

        Raises:
            ServerFailed: it died, did not answer in time, or refused.
            CallCancelled: `stopped` came true.
        """
        return self._use(
            lambda client: client.call_tool(tool, arguments),
            self.server.call_seconds,
            f"the call of {tool!r}",
            stopped,
            False,
        )

    def read(self, uri: str, stopped: Callable[[], bool] = lambda: False) -> Any:
        """Reads a resource of the server's. Raises as [`call`] does."""
        return self._use(
            lambda client: client.read_resource(uri), self.server.call_seconds, f"reading {uri!r}", stopped, True
        )

    def offers_resources(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Whether it has any to read. Raises as [`call`] does."""

        async def look(client: Client) -> bool:
            capabilities = client.session.server_capabilities
            if capabilities is None or capabilities.resources is None:
                return False
            found = (await client.list_resources()).resources
            return bool(found or (await client.list_resource_templates()).resource_templates)

        try:
            return self._use(look, min(10.0, self.server.call_seconds), "naming its resources", stopped, True)
        except ServerFailed:
            return False

    def close(self) -> None:
        """Ends it; returns when it is gone, in bounded time."""
        with self._lock:
            life, self._closed = self._life, True
        if life is not None:
            self._end(life)
            if life.thread is not None:
                life.thread.join(CLOSE_SECONDS)

    # A life.

    def _begin(self) -> _Life:
        life = self._life = _Life()
        self._begun += 1
        life.thread = threading.Thread(
            target=self._run, args=(life,), name=f"mcp-{self.server.name[:20]}", daemon=True
        )
        life.thread.start()
        return life

    def _run(self, life: _Life) -> None:
        try:
            asyncio.run(self._live(life))
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: told to whoever asks for the server
            life.error = _first(error)
        finally:
            with contextlib.suppress(OSError, ValueError):
                life.said.seek(0)
                life.last_words = " ".join(life.said.read()[-400:].split())
            life.said.close()
            life.over.set()
            life.ready.set()

    async def _live(self, life: _Life) -> None:
        from mcp import Client
        from mcp.types import Implementation

        for name in ("mcp", "client"):  # what the client logs of a server is not for the terminal
            logging.getLogger(name).addHandler(_UNHEARD)
        life.loop, life.stop, life.task = asyncio.get_running_loop(), asyncio.Event(), asyncio.current_task()
        if life.told:  # before there was anything to end
            return
        client = Client(
            self._transport(life),
            cache=None,
            read_timeout_seconds=self.server.call_seconds,
            client_info=Implementation(name="ml-intern", version="1"),
        )
        async with client:
            _take_what_comes(client.session)
            life.client = client
            life.ready.set()
            await life.stop.wait()

    def _transport(self, life: _Life) -> Any:
        server = self.server
        if server.url:
            return (over_sse if server.sse else over_http)(server, LARGEST_ANSWER)
        from mcp.client.stdio import StdioServerParameters, stdio_client

        found = server.program
        if found is None:
            raise FileNotFoundError(f"there is no {server.command}")
        command, args = found, list(server.args)
        if sys.platform == "linux":
            args = ["-I", "-S", str(Path(keeper.__file__)), str(os.getpid()), command, *args]
            command = sys.executable
        return stdio_client(
            StdioServerParameters(
                command=command, args=args, env=dict(server.env), cwd=server.cwd, encoding_error_handler="replace"
            ),
            errlog=life.said,
        )

    def _end(self, life: _Life) -> None:
        told, life.told = life.told, True
        loop, stop, task = life.loop, life.stop, life.task
        if loop is not None and stop is not None and task is not None and not told:  # told twice it would not clean up
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stop.set if life.ready.is_set() else task.cancel)

    def _alive(self, stopped: Callable[[], bool]) -> _Life:
        """A server that answers: the one that is there, or a new one in place of one that died."""
        with self._lock:
            if self._closed:
                raise ServerFailed(f"The MCP server {self.server.name!r} is closed", "its session has ended")
            life = self._life
            if life is not None and (life.over.is_set() or life.lost):
                if self._used_up:
                    raise self._failed(life, "is gone", "it was started again once; it is not started a third time")
                self.note(f"The MCP server {self.server.name!r} had ended and is started again.")
                self._end(life)
                life = None
            if life is None:
                life = self._begin()
        until = time.monotonic() + self.server.start_seconds
        while not life.ready.wait(LOOK_SECONDS):
            if stopped():
                raise CallCancelled(f"Waiting for the MCP server {self.server.name!r} was stopped")
            if time.monotonic() > until:
                life.lost = True
                self._end(life)
                raise self._failed(
                    life, "did not start", f"it said nothing within {self.server.start_seconds:g} seconds"
                )
        if life.over.is_set():
            raise self._failed(life, "did not start", _why(life.error))
        return life

    @property
    def _used_up(self) -> bool:
        """Whether it was started as often as it may be; one over HTTP is only connected to anew."""
        return self._begun > RESTARTS and not self.server.url

    def _use(
        self,
        make: Callable[[Client], Awaitable[Any]],
        seconds: float,
        what: str,
        stopped: Callable[[], bool],
        again: bool,
    ) -> Any:
        """Has the client do something; once more with a server started anew where the old one turns out to be gone."""
        more = "" if again else ", and whether it did anything is not known"
        for tries in range(RESTARTS + 1):
            life = self._alive(stopped)
            try:
                return self._ask(life, make, seconds, what, stopped, more)
            except _Gone as error:
                life.lost = True
                self._end(life)
                life.over.wait(LAST_WORDS_SECONDS)
                if not again or tries == RESTARTS or self._used_up:
                    raise self._failed(life, f"ended during {what}{more}", _why(error.cause)) from None
        raise AssertionError("unreachable")

    def _ask(
        self,
        life: _Life,
        make: Callable[[Client], Awaitable[Any]],
        seconds: float,
        what: str,
        stopped: Callable[[], bool],
        more: str,
    ) -> Any:
        assert life.loop is not None and life.client is not None
        client, until = life.client, time.monotonic() + seconds

        async def ask() -> Any:
            return await make(client)

        coroutine = ask()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, life.loop)
        except RuntimeError as error:
            coroutine.close()
            raise _Gone(error) from None
        while True:
            try:
                return future.result(LOOK_SECONDS)
            except concurrent.futures.CancelledError as error:
                raise _Gone(error) from None
            except TimeoutError as error:
                if future.done():
                    raise _Gone(error) from None
            except Exception as error:  # noqa: BLE001 - the client raises whatever its transport does
                raise self._refused(life, error, what, more) from None
            if life.over.is_set() and not future.done():
                raise _Gone(life.error or EOFError())
            if stopped():
                future.cancel()
                raise CallCancelled(f"{what[0].upper()}{what[1:]} of the MCP server {self.server.name!r} was stopped")
            if time.monotonic() > until:
                future.cancel()
                why = f"no answer within {seconds:g} seconds"
                raise self._failed(life, f"did not answer during {what}", why)

    def _refused(self, life: _Life, error: Exception, what: str, more: str) -> Exception:
        """What to make of an error of the client's: the server is gone, did not answer in time, said no, or talks nonsense."""
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        first = _first(error)
        if not isinstance(first, MCPError):
            if isinstance(first, OSError) or type(first).__module__.partition(".")[0] in ("anyio", "httpx2"):
                return _Gone(first)
            # The client has a plain error of this kind for what a server answered, and for a connection that has ended.
            if isinstance(first, RuntimeError) and life.over.wait(LOOK_SECONDS):
                return _Gone(first)
            return ServerFailed(
                f"The MCP server {self.server.name!r} answered with nonsense during {what}{more}", _why(first)
            )
        if first.code == CONNECTION_CLOSED or "session terminated" in first.message.lower():
            return _Gone(first)
        if first.code == REQUEST_TIMEOUT:
            return ServerFailed(
                f"The MCP server {self.server.name!r} did not answer during {what}",
                f"no answer within {self.server.call_seconds:g} seconds",
            )
        return ServerFailed(f"The MCP server {self.server.name!r} refused {what}", _why(first))

    def _failed(self, life: _Life, what: str, why: str) -> ServerFailed:
        said = f"; its last words: {life.last_words[-300:]}" if life.last_words else ""
        return ServerFailed(f"The MCP server {self.server.name!r} {what}", f"{why}{said}", f"It is {self.server.said}")


class _Gone(Exception):
    """The server is not there any more."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


def _take_what_comes(session: Any) -> None:
    """Has the client hand on an answer that is not what its tool declares, with a note: the call has been carried out."""
    check = session.validate_tool_result

    async def noted(name: str, result: CallToolResult) -> None:
        from mcp.types import TextContent

        try:
            await check(name, result)
        except Exception as error:  # noqa: BLE001 - an answer is there, whatever keeps it from being checked
            note = f"(The call was carried out, and the server answered with something else than it declares: {_why(error)})"
            result.content = [TextContent(type="text", text=note), *result.content]  # first: a long text is cut

    session.validate_tool_result = noted


async def _list(client: Client) -> list[Tool]:
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor or len(found) >= MOST_TOOLS:
            break
    return found[:MOST_TOOLS]


def _first(error: BaseException) -> BaseException:
    """What went wrong, out of the groups that task groups wrap it in."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


def _why(error: BaseException | None) -> str:
    if error is None:
        return "it ended"
    text = " ".join(str(error).split())[:400]
    return (
        text
        if isinstance(error, InternError) or type(error).__name__ in ("MCPError", "FileNotFoundError")
        else (f"{type(error).__name__}: {text}" if text else type(error).__name__)
    )
