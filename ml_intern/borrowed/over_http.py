"""The official client's ways to a server over HTTP, with an end to what an answer may take."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

from . import keeper
from .servers import McpServer

LARGEST_EVENT = 1_000_000
"""Bytes of one message over the older protocol, of which the official client takes no more than a mebibyte."""


class Events:
    """Whole events out of the pieces of a stream; one that is too long is dropped as it comes, and answered for.

    Args:
        longest (`int`): Bytes of one event.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self._lines: list[bytes] = []
        self._rest: list[bytes] = []
        self._size, self._open = 0, False

    def take(self, piece: bytes) -> bytes:
        """What can be passed on now, its lines ended in one way.

        Raises:
            ValueError: an answer is too long, and which call it answers cannot be seen.
        """
        piece = b"\r" + piece if self._open else piece
        self._open = piece.endswith(b"\r")  # the rest of this line's end may be in the next piece
        piece = piece[:-1] if self._open else piece
        *whole, rest = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        found = []
        for line in whole:
            self._add(line, 1)
            line = b"".join(self._rest)
            self._rest = []
            if line:
                self._lines.append(line)
            else:
                found.append(self._event())
        self._add(rest, 0)
        return b"".join(found)

    def end(self) -> bytes:
        """What is left when the stream ends."""
        return b"" if self._size > self.longest else b"\n".join([*self._lines, b"".join(self._rest)])

    def _add(self, piece: bytes, more: int) -> None:
        self._size += len(piece) + more
        self._rest.append(piece)
        if self._size > self.longest:  # what it begins with tells what it is
            self._lines = [b"\n".join(self._lines)[: keeper.HEAD]] if self._lines else []
            self._rest = [b"".join(self._rest)[: keeper.HEAD]]

    def _event(self) -> bytes:
        event, size = b"\n".join(self._lines), self._size
        self._lines, self._size = [], 0
        if size <= self.longest + 1:  # the empty line is none of it
            return event + b"\n\n"
        head = b"\n".join(
            line.partition(b":")[2] for line in event[: keeper.HEAD].split(b"\n") if line[:5] == b"data:"
        )
        if b'"method"' in head:  # not an answer
            return b""
        answer = keeper.too_long(head, size, self.longest)
        if not answer:
            raise ValueError(f"the answer has {size:,} bytes, and {self.longest:,} are the most that is taken")
        return b"event: message\ndata: " + answer + b"\n"


def _client(largest: int, events: int) -> Callable[..., Any]:
    """Makes clients of HTTP that take so much and no more: of an answer in one piece, and of one event."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        def __init__(self, response: Any) -> None:
            self.stream, self.size = response.stream, 0
            self.announced = response.headers.get("content-length", "")
            flows = response.headers.get("content-type", "").startswith("text/event-stream")
            self.events = Events(events) if flows else None

        async def __aiter__(self) -> Any:
            if self.events is None:
                yield await self._whole()
                return
            async for piece in self.stream:
                try:
                    passed = self.events.take(piece)
                except ValueError as error:
                    raise httpx2.ReadError(str(error)) from None
                yield passed
            yield self.events.end()

        async def _whole(self) -> bytes:
            pieces: list[bytes] = []
            async for piece in self.stream:
                pieces.append(piece)
                self.size += len(piece)
                if self.size > largest:
                    announced = int(self.announced) if self.announced.isdigit() else 0
                    answer = keeper.too_long(b"".join(pieces)[: keeper.HEAD], max(announced, self.size), largest)
                    if not answer:
                        raise httpx2.ReadError(f"the answer has more than {largest:,} bytes, which are not taken")
                    return answer
            return b"".join(pieces)

        async def aclose(self) -> None:
            await self.stream.aclose()

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            request.headers["accept-encoding"] = "identity"  # what is compressed has no size that can be seen
            response = await super().handle_async_request(request)
            if response.headers.get("content-encoding", "identity") != "identity":
                await response.aclose()
                raise httpx2.ReadError("the answer is compressed, though it was asked for as it is")
            response.stream = Bounded(response)
            return response

    def make(**options: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(**options, transport=Transport())

    return make


@contextlib.asynccontextmanager
async def over_http(server: McpServer, largest: int) -> Any:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    timeout = httpx2.Timeout(server.start_seconds, read=server.call_seconds)
    async with _client(largest, largest)(headers=dict(server.headers), timeout=timeout) as http:
        known = inspect.signature(streamable_http_client).parameters
        more: dict[str, Any] = (
            {"max_sse_event_size": largest} if "max_sse_event_size" in known else {}
        )  # not before mcp 2.3
        async with streamable_http_client(server.url, http_client=http, **more) as streams:
            yield streams


def over_sse(server: McpServer, largest: int) -> Any:
    """The older protocol."""
    from mcp.client.sse import sse_client

    return sse_client(
        server.url,
        headers=dict(server.headers),
        timeout=server.start_seconds,
        sse_read_timeout=server.call_seconds,
        httpx_client_factory=_client(largest, min(largest, LARGEST_EVENT)),
    )
