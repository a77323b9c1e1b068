"""Anthropic's Messages API on this machine, whose answers are yours to decide.

    with LocalAnthropic(scripted([Reply("Look.", reasoning="Hm.", signature="s1")])) as claude:
        model = LiteLLMModel(model_id="anthropic/claude-sonnet-4-5", api_base=claude.url, api_key="sk-ant-test")

It refuses what the real one refuses (no `max_tokens`, empty texts, more than four cache marks, thinking without room for it,
a prompt longer than the window, thinking that comes back changed, or after something before it was), and counts what a marked
prefix saved when it comes again.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ml_intern.testing.llm_answers import Answer, Fail, Reply
from ml_intern.testing.llm_http import (
    Body,
    Handle,
    ModelService,
    arguments_of,
    pieces,
    said_tokens,
    stopped,
    tokens_in,
    whole,
)

IMAGE_TOKENS, MARKS = 1_600, 4
KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
BOUND = "Ym91bmQ"
"""How signatures begin that hold for one conversation."""
STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class LocalAnthropic(ModelService):
    """The API: `POST /v1/messages` (whole or streamed), `POST /v1/messages/count_tokens`, `GET /v1/models`.

    Args:
        answer (`Callable[[dict], str | Reply]` or `Path`): As for [`~ml_intern.testing.LocalLLM`], with this API's body.
            `reasoning` becomes a thinking block, with `signature`, else one that holds for what stood before it and nothing
            else; tokens as `Reply` gives them, where it gives any.
        api_key (`str`, *optional*): When given, any other `x-api-key` is answered with 401.
        models (sequence of `str`, *optional*): When given, any other model is answered with 404.
        window (`int`, defaults to 200,000): Tokens that prompt and answer have together; a token is four characters.
        smallest_cached (`int`, defaults to 1,024): Tokens that a prefix needs to be cached.
        port (`int`, defaults to 0): 0 takes a free one.

    Attributes:
        requests (`list[dict]`): The body of every request that reached the model, in order.
    """

    wrong_key = "invalid x-api-key"

    def __init__(
        self,
        answer: Answer | Path,
        *,
        api_key: str | None = None,
        models: Sequence[str] | None = None,
        window: int = 200_000,
        smallest_cached: int = 1_024,
        port: int = 0,
    ) -> None:
        self.models, self.window, self.smallest_cached = models, window, smallest_cached
        self._numbers = itertools.count(1)
        self._cache: set[str] = set()
        super().__init__(answer, api_key, port)

    def routes(self) -> Iterable[tuple[str, str, Handle]]:
        return (
            ("POST", "/v1/messages", self._messages),
            ("POST", "/v1/messages/count_tokens", self._count),
            ("GET", "/v1/models", self._list_models),
        )

    def environment(self) -> dict[str, str]:
        """The variables that lead Anthropic's client and `litellm` here."""
        key = self.api_key or "sk-ant-local"
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_BASE": self.url, "ANTHROPIC_API_KEY": key}

    def key_of(self, request: Request) -> str | None:
        return request.headers.get("x-api-key") or super().key_of(request)

    def error(self, fail: Fail) -> Response:
        number = f"req_{next(self._numbers):012d}"
        kind = KINDS.get(fail.status, "invalid_request_error" if fail.status < 500 else "api_error")
        body = {"type": "error", "error": {"type": fail.code or kind, "message": fail.message}, "request_id": number}
        return JSONResponse(body, fail.status, {"request-id": number, **(fail.headers or {})})

    def error_in_stream(self, fail: Fail) -> bytes:
        return b"event: error\n" + super().error_in_stream(fail)

    async def _list_models(self, request: Request) -> Response:
        rows = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2025-09-29T00:00:00Z"}
            for name in self.models or ("claude-sonnet-4-5",)
        ]
        return JSONResponse({"data": rows, "has_more": False, "first_id": rows[0]["id"], "last_id": rows[-1]["id"]})

    async def _count(self, request: Request) -> Response:
        body = await self.body_of(request, "model", "messages")
        return JSONResponse({"input_tokens": sum(tokens for _, tokens, _ in _blocks(body))})

    async def _messages(self, request: Request) -> Response:
        if "anthropic-version" not in request.headers:
            raise Fail(400, "anthropic-version: header is required")
        body = await self.body_of(request, "model", "messages", "max_tokens")
        _check(body)
        if self.models is not None and body["model"] not in self.models:
            raise Fail(404, f"model: {body['model']}")
        blocks = list(_blocks(body))
        asked, room = sum(tokens for _, tokens, _ in blocks), body["max_tokens"]
        if asked > self.window:
            raise Fail(400, f"prompt is too long: {asked} tokens > {self.window} maximum")
        if asked + room > self.window:
            raise Fail(
                400,
                f"input length and `max_tokens` exceed context limit: {asked} + {room} > {self.window}, "
                "decrease input length or `max_tokens` and try again",
            )
        reply, cut = await self.ask(body)
        message = self._message(body, reply, self._usage(blocks, asked, reply))
        if body.get("stream"):
            return Body(_events(message, reply), "text/event-stream; charset=utf-8", reply.delay, cut)
        return whole(message, reply, cut)

    def _usage(self, blocks: list[tuple[str, int, bool]], asked: int, reply: Reply) -> dict[str, Any]:
        """Tokens as they are paid for: those of the cache apart."""
        prefix, before, read, written = hashlib.sha256(), 0, 0, 0
        for text, tokens, mark in blocks:
            prefix.update(text.encode("utf-8", "surrogatepass"))
            before += tokens
            if mark and before >= self.smallest_cached:
                known = prefix.hexdigest() in self._cache
                read, written = (before, 0) if known else (read, before - read)
                self._cache.add(prefix.hexdigest())
        if reply.prompt_tokens is not None:
            asked, written = reply.prompt_tokens, 0
        read = reply.cached_tokens if reply.cached_tokens is not None else min(read, asked)
        return {
            "input_tokens": asked - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": said_tokens(reply),
            "service_tier": "standard",
        }

    def _message(self, body: dict[str, Any], reply: Reply, usage: dict[str, Any]) -> dict[str, Any]:
        text, stop = stopped(reply.content or "", body.get("stop_sequences"))
        content: list[dict[str, Any]] = []
        if reply.reasoning:
            content.append(
                {
                    "type": "thinking",
                    "thinking": reply.reasoning,
                    "signature": reply.signature or _signature(body, body["messages"], [], reply.reasoning),
                }
            )
        if text:
            content.append({"type": "text", "text": text})
        calls = reply.tool_calls or []
        for index, call in enumerate(calls):
            number = call.id or f"toolu_{index:08d}"
            content.append({"type": "tool_use", "id": number, "name": call.name, "input": arguments_of(call)})
        why = STOPS.get(
            "tool_calls" if calls and reply.finish_reason == "stop" else reply.finish_reason, reply.finish_reason
        )
        return {
            "id": f"msg_{next(self._numbers):012d}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": "stop_sequence" if stop else why,
            "stop_sequence": stop,
            "usage": usage,
        }


def _check(body: dict[str, Any]) -> None:
    """What the API looks at before it asks the model. Raises [`Fail`]."""
    messages, room = body["messages"], body["max_tokens"]
    if not isinstance(messages, list) or not messages:
        raise Fail(400, "messages: at least one message is required")
    if not isinstance(room, int) or room < 1:
        raise Fail(400, "max_tokens: must be greater than or equal to 1")
    for index, message in enumerate(messages):
        if message.get("role") not in ("user", "assistant"):
            raise Fail(400, f"messages.{index}.role: Input should be 'user' or 'assistant'")
        content, last = message.get("content"), index == len(messages) - 1
        texts = (
            [content]
            if isinstance(content, str)
            else [b.get("text") for b in content or () if b.get("type") == "text"]
        )
        if any(text == "" for text in texts) and not isinstance(content, str):
            raise Fail(400, "messages: text content blocks must be non-empty")
        if any(isinstance(text, str) and not text.strip() for text in texts):
            raise Fail(400, "messages: text content blocks must contain non-whitespace text")
        if not content and not (last and message["role"] == "assistant"):
            said = "all messages must have non-empty content except for the optional final assistant message"
            raise Fail(400, f"messages.{index}: {said}")
        if last and message["role"] == "assistant" and texts and str(texts[-1]) != str(texts[-1]).rstrip():
            raise Fail(400, "messages: final assistant content cannot end with trailing whitespace")
        for place, block in enumerate(content if isinstance(content, list) else ()):
            if block.get("type") == "thinking":
                expected = _signature(body, messages[:index], content[:place], block.get("thinking", ""))
                if str(block.get("signature", "")).startswith(BOUND) and block["signature"] != expected:
                    raise Fail(
                        400,
                        f"messages.{index}.content.{place}: Invalid `signature` in `thinking` block. The block is bound to a "
                        "different conversation. Remove the block, or set `thinking.block_binding.prefix_mismatch_behavior` to "
                        '"drop_block".',
                    )
    marks = sum(mark for _, _, mark in _blocks(body))
    if marks > MARKS:
        raise Fail(400, f"A maximum of {MARKS} blocks with cache_control may be provided. Found {marks}.")
    if any(not stop.strip() for stop in body.get("stop_sequences") or ()):
        raise Fail(400, "stop_sequences: each stop sequence must contain non-whitespace")
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens", 0)
        if budget < 1_024:
            raise Fail(400, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= room:
            raise Fail(
                400, "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation"
            )
        if body.get("temperature", 1) != 1:
            raise Fail(400, "`temperature` may only be set to 1 when thinking is enabled.")


def _signature(body: dict[str, Any], before: list[Any], within: list[Any], thought: str) -> str:
    """Of a thinking block: it holds for these words after these messages, and these blocks of its own."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(item) for key, item in value.items() if key != "cache_control"}
        return [bare(item) for item in value] if isinstance(value, list) else value

    about = [bare(body.get("system")), bare(body.get("tools")), bare(before), bare(within), thought]
    return BOUND + base64.b64encode(hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()).decode()


def _blocks(body: dict[str, Any]) -> Iterator[tuple[str, int, bool]]:
    """The prompt in the order in which it is cached: each block as text, its tokens, whether it has a mark."""
    system = body.get("system") or []
    for tool in body.get("tools") or ():
        yield _block(tool)
    for block in [{"type": "text", "text": system}] if isinstance(system, str) else system:
        yield _block(block)
    for message in body["messages"] if isinstance(body["messages"], list) else ():
        content = message.get("content") or []
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            yield _block(block)


def _block(block: dict[str, Any]) -> tuple[str, int, bool]:
    bare = {key: value for key, value in block.items() if key != "cache_control"}
    said = block["text"] if isinstance(block.get("text"), str) else json.dumps(bare)
    tokens = IMAGE_TOKENS if block.get("type") == "image" else tokens_in(said)
    return json.dumps(bare, sort_keys=True), tokens, "cache_control" in block


def _events(message: dict[str, Any], reply: Reply) -> Iterator[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

    def delta(index: int, kind: str, **fields: Any) -> bytes:
        return event("content_block_delta", index=index, delta={"type": kind, **fields})

    begun = {**message["usage"], "output_tokens": 1}
    yield event(
        "message_start", message={**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": begun}
    )
    yield event("ping")
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        empty = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}, "tool_use": {"input": {}}}[kind]
        yield event("content_block_start", index=index, content_block={**block, **empty})
        if kind == "thinking":
            for piece in pieces(block["thinking"], reply):
                yield delta(index, "thinking_delta", thinking=piece)
            yield delta(index, "signature_delta", signature=block["signature"])
        elif kind == "text":
            for piece in pieces(block["text"], reply):
                yield delta(index, "text_delta", text=piece)
        else:
            yield delta(index, "input_json_delta", partial_json="")
            for piece in pieces(json.dumps(block["input"]), reply):
                yield delta(index, "input_json_delta", partial_json=piece)
        yield event("content_block_stop", index=index)
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield event("message_delta", delta=ended, usage={"output_tokens": message["usage"]["output_tokens"]})
    yield event("message_stop")
