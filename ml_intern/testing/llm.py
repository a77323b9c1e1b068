"""An OpenAI-compatible language model endpoint on this machine, whose answers are yours to decide.

The unmodified clients (`openai`, `litellm`, anything that speaks chat completions) talk to it over HTTP. What it says
comes from a plain function, a script, a recorded trace, or a person who answers file by file:

    with LocalLLM(scripted(["Thought\\n<code>\\nfinal_answer(42)\\n</code>", Fail(429, "slow down")])) as llm:
        model = LiteLLMModel(model_id="openai/local", api_base=llm.url + "/v1", api_key="any")

From the shell: `python -m ml_intern.testing.llm mailbox FOLDER --port 8000`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ml_intern.testing.llm_answers import (
    Answer,
    Cut,
    Fail,
    Mailbox,
    Recorded,
    Reply,
    Script,
    ToolCall,
    mailbox,
    message_images,
    message_text,
    recorded,
    scripted,
)
from ml_intern.testing.llm_http import CHARS_PER_TOKEN, Body, Break
from ml_intern.testing.serve import Service

__all__ = [
    "Answer",
    "Cut",
    "Fail",
    "LocalLLM",
    "Mailbox",
    "Recorded",
    "Reply",
    "Script",
    "ToolCall",
    "mailbox",
    "message_text",
    "recorded",
    "scripted",
]

IMAGE_TOKENS = 1000


class LocalLLM:
    """The endpoint: `POST /v1/chat/completions` (whole or streamed) and `GET /v1/models`, with or without `/v1`.

    Args:
        answer (`Callable[[dict], str | Reply]` or `Path`):
            Gets the request's JSON body, says the answer or raises [`Fail`] or [`Cut`]; called in a thread, so it may
            wait. A path is the folder of a [`mailbox`].
        api_key (`str`, *optional*): When given, any other key is answered with 401.
        models (sequence of `str`, defaults to `("local",)`): What `/v1/models` lists; any model name is answered.
        port (`int`, defaults to 0): 0 takes a free one.

    Attributes:
        requests (`list[dict]`): The JSON body of every request that reached the model, in order.
        service ([`~ml_intern.testing.serve.Service`]): The HTTP side, where every request counts, refused ones too.
    """

    def __init__(
        self, answer: Answer | Path, *, api_key: str | None = None, models: Sequence[str] = ("local",), port: int = 0
    ) -> None:
        self.answer = mailbox(answer) if isinstance(answer, Path) else answer
        self.api_key, self.models = api_key, tuple(models)
        self.requests: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        routes = []
        for prefix in ("/v1", ""):
            routes.append(Route(prefix + "/chat/completions", self._complete, methods=["POST"]))
            routes.append(Route(prefix + "/models", self._list_models, methods=["GET"]))
        self.service = Service(Starlette(routes=routes), port=port)
        self.fail = self.service.fail

    @property
    def url(self) -> str:
        """Address without a trailing slash; clients want `llm.url + "/v1"`, but take it without as well."""
        return self.service.url

    def environment(self) -> dict[str, str]:
        """The variables that lead the `openai` client and `litellm` here."""
        base = f"{self.url}/v1"
        return {"OPENAI_BASE_URL": base, "OPENAI_API_BASE": base, "OPENAI_API_KEY": self.api_key or "local"}

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

    async def _list_models(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in self.models]
        return JSONResponse({"object": "list", "data": rows})

    async def _complete(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        try:
            body = await request.json()
        except ValueError as error:
            return _error(Fail(400, f"The request's body is no JSON: {error}"))
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            return _error(Fail(400, "The request needs `messages`, a list."))
        self.requests.append(body)
        breaks = Break()
        try:
            reply = await run_in_threadpool(self.answer, body)
        except Fail as fail:
            await anyio.sleep(fail.delay)
            return _error(fail)
        except Cut as cut:
            said = b"data: " + bytes(_error(cut.error).body) + b"\n\n" if cut.error else None
            reply, breaks = cut.reply, Break(cut.after_bytes, said)
        except Exception as error:  # noqa: BLE001 - the answer is the caller's code; a 5xx would only make clients retry
            return _error(Fail(400, f"The function that answers failed: {type(error).__name__}: {error}"))
        reply = _stopped(Reply(reply) if isinstance(reply, str) else reply, body.get("stop"))
        identity = {
            "id": f"chatcmpl-{next(self._numbers):06d}",
            "created": int(time.time()),
            "model": body.get("model", self.models[0]),
        }
        if body.get("stream"):
            usage = _usage(body, reply) if (body.get("stream_options") or {}).get("include_usage") else None
            return Body(_events(reply, identity, usage), "text/event-stream", reply.delay, breaks)
        whole = json.dumps(_completion(reply, identity, _usage(body, reply))).encode()
        return Body([whole], "application/json", reply.delay, breaks)

    def _refusal(self, request: Request) -> Response | None:
        if self.api_key is None or request.headers.get("authorization") == f"Bearer {self.api_key}":
            return None
        return _error(Fail(401, "Incorrect API key provided.", code="invalid_api_key"))


def _error(fail: Fail) -> JSONResponse:
    kind = "server_error" if fail.status >= 500 else "invalid_request_error"
    error = {"message": fail.message, "type": kind, "param": None, "code": fail.code}
    return JSONResponse({"error": error}, status_code=fail.status, headers=fail.headers)


def _stopped(reply: Reply, stop: str | list[str] | None) -> Reply:
    """Cut the text before the first stop sequence in it, as a real server does."""
    text = reply.content or ""
    places = [text.find(s) for s in ([stop] if isinstance(stop, str) else stop or []) if s and s in text]
    return replace(reply, content=text[: min(places)], finish_reason="stop") if places else reply


def _usage(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    tools = json.dumps(body["tools"]) if body.get("tools") else ""
    images = sum(message_images(message) for message in body["messages"])
    asked = len(tools) + sum(len(message_text(message)) for message in body["messages"])
    said = len(reply.content or "") + len(reply.reasoning or "")
    said += sum(len(call.name) + len(call.json) for call in reply.tool_calls or [])
    prompt = reply.prompt_tokens if reply.prompt_tokens is not None else _tokens(asked) + IMAGE_TOKENS * images
    completion = reply.completion_tokens if reply.completion_tokens is not None else _tokens(said)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if reply.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": reply.cached_tokens}
    if reply.reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reply.reasoning_tokens}
    return usage


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)


def _calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or f"call_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.json},
        }
        for index, call in enumerate(reply.tool_calls or [])
    ]


def _finish(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls and reply.finish_reason == "stop" else reply.finish_reason


def _completion(reply: Reply, identity: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.content}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.signature:
        message["thinking_blocks"] = [_thinking(reply.reasoning or "", reply.signature)]
    if reply.tool_calls:
        message["tool_calls"] = _calls(reply)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}
    return {**identity, "object": "chat.completion", "choices": [choice], "usage": usage}


def _thinking(text: str, signature: str = "") -> dict[str, str]:
    return {"type": "thinking", "thinking": text, "signature": signature}


def _events(reply: Reply, identity: dict[str, Any], usage: dict[str, Any] | None) -> Iterator[bytes]:
    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return (
            b"data: "
            + json.dumps({**identity, "object": "chat.completion.chunk", "choices": choices, **more}).encode()
            + b"\n\n"
        )

    def delta(finish_reason: str | None = None, **delta: Any) -> bytes:
        return event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])

    def pieces(text: str) -> Iterator[str]:
        for start in range(0, len(text), reply.chunk_chars):
            yield text[start : start + reply.chunk_chars]

    yield delta(role="assistant", content="")
    for piece in pieces(reply.reasoning or ""):
        signed: dict[str, Any] = {"thinking_blocks": [_thinking(piece)]} if reply.signature else {}
        yield delta(reasoning_content=piece, **signed)
    if reply.signature:
        yield delta(thinking_blocks=[_thinking("", reply.signature)])
    for piece in pieces(reply.content or ""):
        yield delta(content=piece)
    for index, call in enumerate(_calls(reply)):
        function = call["function"]
        yield delta(tool_calls=[{**call, "index": index, "function": {**function, "arguments": ""}}])
        for piece in pieces(function["arguments"]):
            yield delta(tool_calls=[{"index": index, "function": {"arguments": piece}}])
    yield delta(finish_reason=_finish(reply))
    if usage is not None:
        yield event([], usage=usage)
    yield b"data: [DONE]\n\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m ml_intern.testing.llm mailbox FOLDER | recorded TRACE [--port P] [--timeout SECONDS]`"""
    parser = argparse.ArgumentParser(prog="python -m ml_intern.testing.llm", description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=["mailbox", "recorded"])
    parser.add_argument("path", type=Path, help="the mailbox's folder, or the recorded trace")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--timeout", type=float, default=600, help="seconds a request waits in the mailbox")
    options = parser.parse_args(arguments)
    answer = mailbox(options.path, options.timeout) if options.kind == "mailbox" else recorded(options.path)
    with LocalLLM(answer, port=options.port) as llm:
        print(f"{llm.url}/v1", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
