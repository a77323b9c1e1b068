"""What the local model endpoints share: listening, asking whoever answers, and bodies that break off on purpose."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ml_intern.testing.llm_answers import Answer, Cut, Fail, Mailbox, Reply, ToolCall
from ml_intern.testing.serve import Service

CHARS_PER_TOKEN = 4
Handle = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Break:
    """Where a body breaks off: after so many bytes the connection is dropped, or `said` is the last thing sent."""

    after_bytes: int | None = None
    said: bytes | None = None


class ModelService:
    """A model endpoint: a protocol is a subclass with routes and its own form for errors.

    Args:
        answer (`Callable[[dict], str | Reply]` or `Path`): Gets the request's JSON body, says the answer or raises [`Fail`] or
            [`Cut`]; called in a thread, so it may wait. A path is the folder of a mailbox.
        api_key (`str`, *optional*): When given, any other key is answered with 401.
        port (`int`, defaults to 0): 0 takes a free one.
    """

    def __init__(self, answer: Answer | Path, api_key: str | None, port: int) -> None:
        self.answer: Answer = Mailbox(answer, 600) if isinstance(answer, Path) else answer
        self.api_key = api_key
        self.requests: list[dict[str, Any]] = []
        routes = [Route(path, self._guarded(handle), methods=[method]) for method, path, handle in self.routes()]
        self.service = Service(Starlette(routes=routes, exception_handlers={404: self._not_found}), port=port)
        self.fail = self.service.fail

    def routes(self) -> Iterable[tuple[str, str, Handle]]:
        """Method, path and handler of all that it answers."""
        raise NotImplementedError

    def error(self, fail: Fail) -> Response:
        """An error in the protocol's own form."""
        raise NotImplementedError

    def error_in_stream(self, fail: Fail) -> bytes:
        """An error after an answer has begun, in the protocol's own form."""
        return b"data: " + bytes(self.error(fail).body) + b"\n\n"

    def key_of(self, request: Request) -> str | None:
        return (request.headers.get("authorization") or "").removeprefix("Bearer ")

    wrong_key = "Invalid API key"

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return self.service.url

    def start(self) -> Self:
        """Listen; returns once requests are answered."""
        self.service.start()
        return self

    def close(self) -> None:
        """Stop listening."""
        self.service.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _guarded(self, handle: Handle) -> Handle:
        async def guarded(request: Request) -> Response:
            try:
                if self.api_key is not None and self.key_of(request) != self.api_key:
                    raise Fail(401, self.wrong_key)
                return await handle(request)
            except Fail as fail:
                await anyio.sleep(fail.delay)
                return self.error(fail)

        return guarded

    async def _not_found(self, request: Request, _: Exception) -> Response:
        return self.error(Fail(404, f"Nothing is served at {request.url.path}"))

    async def body_of(self, request: Request, *needed: str) -> dict[str, Any]:
        """The JSON object that was sent. Raises [`Fail`] where it is none, or lacks a field."""
        try:
            body = await request.json()
        except ValueError as error:
            raise Fail(400, f"The request's body is no JSON: {error}") from None
        if not isinstance(body, dict):
            raise Fail(400, "The request's body is no JSON object")
        for name in needed:
            if name not in body:
                raise Fail(400, f"{name}: Field required")
        return body

    async def ask(self, body: dict[str, Any]) -> tuple[Reply, Break]:
        """The answer, and where it is to break off. Raises [`Fail`]."""
        self.requests.append(body)
        try:
            reply, cut = await run_in_threadpool(self.answer, body), Break()
        except Fail:
            raise
        except Cut as raised:
            said = self.error_in_stream(raised.error) if raised.error else None
            reply, cut = raised.reply, Break(raised.after_bytes, said)
        except Exception as error:  # noqa: BLE001 - the answer is the caller's code; a 5xx would only make clients retry
            raise Fail(400, f"The function that answers failed: {type(error).__name__}: {error}") from None
        return (Reply(reply) if isinstance(reply, str) else reply), cut


class Body(Response):
    """A body sent piece by piece, which may break off."""

    def __init__(
        self, pieces: Iterator[bytes] | list[bytes], media_type: str, delay: float = 0, cut: Break | int | None = None
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]  # chunked: how long it gets is only known at the end
        self.pieces, self.delay = pieces, delay
        self.cut = cut if isinstance(cut, Break) else Break(cut)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(self.delay)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._until_cut():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self.cut.after_bytes is None or self.cut.said is not None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # otherwise: leaving without the end is what makes the server hang up

    async def _until_cut(self) -> AsyncIterator[bytes]:
        left, said = self.cut.after_bytes, self.cut.said
        for piece in self.pieces:
            if left is not None and len(piece) > left:
                yield piece[:left] if said is None else said
                return
            yield piece
            left = None if left is None else left - len(piece)
            await anyio.sleep(0)


def whole(value: dict[str, Any], reply: Reply, cut: Break) -> Body:
    """An answer that is one JSON object."""
    return Body([json.dumps(value).encode()], "application/json", reply.delay, cut)


def stopped(text: str, stops: str | list[str] | None) -> tuple[str, str | None]:
    """A text up to the first stop sequence in it, as a real server cuts it, and that sequence."""
    places = [
        (text.find(stop), stop)
        for stop in ([stops] if isinstance(stops, str) else stops or [])
        if stop and stop in text
    ]
    return (text[: min(places)[0]], min(places)[1]) if places else (text, None)


def tokens_in(text: str) -> int:
    """A quarter of the characters: what a token is here."""
    return -(-len(text) // CHARS_PER_TOKEN)


def pieces(text: str, reply: Reply) -> Iterator[str]:
    """A text as it is streamed."""
    for start in range(0, len(text), reply.chunk_chars):
        yield text[start : start + reply.chunk_chars]


def arguments_of(call: ToolCall) -> Any:
    """A call's arguments as data, where the protocol does not send them as text."""
    try:
        return json.loads(call.json)
    except ValueError:
        return {}


def said_tokens(reply: Reply) -> int:
    """Tokens of an answer, all that the model wrote."""
    if reply.completion_tokens is not None:
        return reply.completion_tokens
    calls = "".join(call.name + call.json for call in reply.tool_calls or [])
    return tokens_in((reply.content or "") + (reply.reasoning or "") + calls)
