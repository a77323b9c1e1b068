"""llama.cpp's server (`llama-server`) on this machine, whose answers are yours to decide.

    with LocalLlamaCpp(scripted(["Look."]), n_ctx=8192) as server:
        model = LiteLLMModel(model_id="llamafile/local", api_base=server.url + "/v1", api_key="none")

It speaks OpenAI's chat completions with its own additions (`timings`, `reasoning_content`) and its own errors: a prompt that
does not fit is refused with the size of both, and while the weights load every request is answered with 503.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ml_intern.testing.llm_answers import Answer, Fail, Reply, message_text
from ml_intern.testing.llm_http import Body, Handle, ModelService, pieces, said_tokens, stopped, tokens_in, whole

KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    501: "not_supported_error", 503: "unavailable_error",
}  # fmt: skip
BUILD = "b7000-0123abcd"


class LocalLlamaCpp(ModelService):
    """The server: `/v1/chat/completions`, `/v1/models`, `/health`, `/props`, `/slots`, `/tokenize`; most also without `/v1`.

    Args:
        answer (`Callable[[dict], str | Reply]` or `Path`): As for [`~ml_intern.testing.LocalLLM`].
        api_key (`str`, *optional*): As `--api-key`: any other is answered with 401, but for `/health` and `/v1/models`.
        model (`str`, defaults to `"model.gguf"`): The weights' path; requests may name any model.
        n_ctx (`int`, defaults to 4,096): Tokens that prompt and answer have together; a token is four characters.
        slots (`bool`, defaults to `True`): Whether `/slots` is on.
        port (`int`, defaults to 0): 0 takes a free one.

    Attributes:
        loading (`bool`): Set, it answers as it does while it loads its weights.
        requests (`list[dict]`): The body of every request that reached the model, in order.
    """

    wrong_key = "Invalid API Key"

    def __init__(
        self,
        answer: Answer | Path,
        *,
        api_key: str | None = None,
        model: str = "model.gguf",
        n_ctx: int = 4_096,
        slots: bool = True,
        port: int = 0,
    ) -> None:
        self.model, self.n_ctx, self.slots, self.loading = model, n_ctx, slots, False
        self._numbers = itertools.count(1)
        self._cached = ""
        super().__init__(answer, api_key, port)

    def routes(self) -> Iterable[tuple[str, str, Handle]]:
        for prefix in ("/v1", ""):
            yield "POST", f"{prefix}/chat/completions", self._complete
            yield "GET", f"{prefix}/models", self._list_models
            yield "GET", f"{prefix}/health", self._health
        yield "GET", "/props", self._props
        yield "GET", "/slots", self._slots
        yield "POST", "/tokenize", self._tokenize

    def environment(self) -> dict[str, str]:
        """The variables that lead this project here."""
        return {"LLAMACPP_BASE_URL": self.url, "LLAMACPP_API_KEY": self.api_key or "none"}

    def key_of(self, request: Request) -> str | None:
        if request.url.path.endswith(("/health", "/models")):
            return self.api_key
        return super().key_of(request)

    def error(self, fail: Fail) -> Response:
        kind = fail.code or KINDS.get(fail.status, "invalid_request_error" if fail.status < 500 else "server_error")
        error: dict[str, Any] = {"code": fail.status, "message": fail.message, "type": kind}
        if isinstance(fail, _Overflow):
            error |= {"n_prompt_tokens": fail.tokens, "n_ctx": fail.n_ctx}
        return JSONResponse({"error": error}, fail.status, fail.headers)

    def _ready(self) -> None:
        if self.loading:
            raise Fail(503, "Loading model")

    async def _health(self, request: Request) -> Response:
        self._ready()
        return JSONResponse({"status": "ok"})

    async def _list_models(self, request: Request) -> Response:
        self._ready()
        meta = {
            "vocab_type": 2,
            "n_vocab": 49_152,
            "n_ctx_train": 32_768,
            "n_embd": 576,
            "n_params": 134_515_008,
            "size": 144_811_776,
        }
        row = {"id": self.model, "object": "model", "created": int(time.time()), "owned_by": "llamacpp", "meta": meta}
        named = {"name": self.model, "model": self.model, "type": "model", "capabilities": ["completion"]}
        return JSONResponse({"models": [named], "object": "list", "data": [row]})

    async def _props(self, request: Request) -> Response:
        self._ready()
        settings = {
            "id": 0,
            "n_ctx": self.n_ctx,
            "speculative": False,
            "is_processing": False,
            "params": {"n_predict": -1},
        }
        return JSONResponse(
            {
                "default_generation_settings": settings,
                "total_slots": 1,
                "model_path": self.model,
                "modalities": {"vision": False, "audio": False},
                "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "build_info": BUILD,
            }
        )

    async def _slots(self, request: Request) -> Response:
        self._ready()
        if not self.slots:
            raise Fail(501, "This server does not support slots endpoint. Start it with `--slots`")
        return JSONResponse(
            [{"id": 0, "id_task": -1, "n_ctx": self.n_ctx, "speculative": False, "is_processing": False}]
        )  # type: ignore[arg-type]

    async def _tokenize(self, request: Request) -> Response:
        self._ready()
        body = await self.body_of(request)
        return JSONResponse({"tokens": list(range(tokens_in(str(body.get("content") or ""))))})

    async def _complete(self, request: Request) -> Response:
        self._ready()
        body = await self.body_of(request)
        if not isinstance(body.get("messages"), list):
            raise Fail(400, "'messages' is required")
        prompt = json.dumps(body.get("tools") or "") + "\n".join(message_text(message) for message in body["messages"])
        asked = tokens_in(prompt)
        if asked >= self.n_ctx:
            raise _Overflow(asked, self.n_ctx)
        reply, cut = await self.ask(body)
        text, stop = stopped(reply.content or "", body.get("stop"))
        said, why = said_tokens(reply), "stop" if stop else reply.finish_reason
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or -1
        room = min(limit, self.n_ctx - asked) if limit > 0 else self.n_ctx - asked
        if reply.completion_tokens is None and said > room:  # it stops where its window is full
            text, said, why = text[: room * 4], room, "length"
        if reply.tool_calls and why == "stop":
            why = "tool_calls"
        cached = _same(self._cached, prompt) // 4 if reply.cached_tokens is None else reply.cached_tokens
        self._cached = prompt
        usage, timings = _counted(asked if reply.prompt_tokens is None else reply.prompt_tokens, said, cached)
        identity = {
            "id": f"chatcmpl-{next(self._numbers):08d}",
            "created": int(time.time()),
            "model": body.get("model") or self.model,
            "system_fingerprint": BUILD,
        }
        if body.get("stream"):
            wanted = (body.get("stream_options") or {}).get("include_usage")
            chunks = _events(identity, reply, text, why, {"usage": usage, "timings": timings} if wanted else None)
            return Body(chunks, "text/event-stream", reply.delay, cut)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        if reply.tool_calls:
            message |= {"tool_calls": _calls(reply), "content": text or None}
        choice = {"index": 0, "finish_reason": why, "message": message}
        answer = {**identity, "object": "chat.completion", "choices": [choice], "usage": usage, "timings": timings}
        return whole(answer, reply, cut)


class _Overflow(Fail):
    def __init__(self, tokens: int, n_ctx: int) -> None:
        said = f"request ({tokens} tokens) exceeds the available context size ({n_ctx} tokens), try increasing it"
        super().__init__(400, said, code="exceed_context_size_error")
        self.tokens, self.n_ctx = tokens, n_ctx


def _same(one: str, other: str) -> int:
    """Characters that two prompts have in common: their keys and values need not be computed again."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _counted(asked: int, said: int, cached: int) -> tuple[dict[str, Any], dict[str, Any]]:
    usage = {
        "completion_tokens": said,
        "prompt_tokens": asked,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": min(cached, asked)},
    }
    read = asked - min(cached, asked)
    timings = {
        "cache_n": min(cached, asked),
        "prompt_n": read,
        "prompt_ms": read * 2.0,
        "prompt_per_token_ms": 2.0,
        "prompt_per_second": 500.0,
        "predicted_n": said,
        "predicted_ms": said * 10.0,
        "predicted_per_token_ms": 10.0,
        "predicted_per_second": 100.0,
    }
    return usage, timings


def _calls(reply: Reply) -> list[dict[str, Any]]:
    calls = enumerate(reply.tool_calls or [])
    return [
        {
            "type": "function",
            "function": {"name": call.name, "arguments": call.json},
            "id": call.id or f"call{index:028d}",
        }
        for index, call in calls
    ]


def _events(
    identity: dict[str, Any], reply: Reply, text: str, why: str, counted: dict[str, Any] | None
) -> Iterator[bytes]:
    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        frame = {"choices": choices, **identity, "object": "chat.completion.chunk", **more}
        return b"data: " + json.dumps(frame).encode() + b"\n\n"

    def delta(finish_reason: str | None = None, **delta: Any) -> bytes:
        return event([{"finish_reason": finish_reason, "index": 0, "delta": delta}])

    yield delta(role="assistant", content=None)
    for piece in pieces(reply.reasoning or "", reply):
        yield delta(reasoning_content=piece)
    for piece in pieces(text, reply):
        yield delta(content=piece)
    for index, call in enumerate(_calls(reply)):
        function = call["function"]
        yield delta(tool_calls=[{"index": index, **call, "function": {**function, "arguments": ""}}])
        for piece in pieces(function["arguments"], reply):
            yield delta(tool_calls=[{"index": index, "function": {"arguments": piece}}])
    yield delta(why)
    if counted is not None:
        yield event([], **counted)
    yield b"data: [DONE]\n\n"
