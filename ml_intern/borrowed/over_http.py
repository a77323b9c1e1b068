"""The official client's way to a server over HTTP, with an end to what an answer may take."""

from __future__ import annotations

import contextlib
from typing import Any

from .servers import McpServer


@contextlib.asynccontextmanager
async def over_http(server: McpServer, largest: int) -> Any:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    class Bounded(httpx2.AsyncByteStream):
        """An answer in one piece, as far as it may be long; one that comes as events the client bounds itself."""

        def __init__(self, stream: Any) -> None:
            self.stream, self.left = stream, largest

        async def __aiter__(self) -> Any:
            async for piece in self.stream:
                self.left -= len(piece)
                if self.left < 0:
                    raise httpx2.ReadError(f"the answer has more than {largest:,} bytes, which are not taken")
                yield piece

        async def aclose(self) -> None:
            await self.stream.aclose()

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                response.stream = Bounded(response.stream)
            return response

    timeout = httpx2.Timeout(server.start_seconds, read=server.call_seconds)
    async with httpx2.AsyncClient(headers=dict(server.headers), timeout=timeout, transport=Transport()) as http:
        async with streamable_http_client(server.url, http_client=http, max_sse_event_size=largest) as streams:
            yield streams
