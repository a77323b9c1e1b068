"""Ollama's API on this machine, whose answers are yours to decide.

    with LocalOllama(scripted(["Look."]), models={"qwen2.5-coder:7b": 32_768}) as ollama:
        model = LiteLLMModel(model_id="ollama_chat/qwen2.5-coder:7b", api_base=ollama.url)

Like the real one it answers for models that were pulled and no others, and cuts a prompt that is longer than `num_ctx`
without a word, from its beginning.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

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

NUM_CTX, IMAGE_TOKENS = 4_096, 768
DIGEST = "sha256:" + "ab" * 32


class LocalOllama(ModelService):
    """The API: `/api/chat` (streamed unless told otherwise), `/api/tags`, `/api/show`, `/api/ps`, `/api/version`.

    Args:
        answer (`Callable[[dict], str | Reply]` or `Path`): As for [`~ml_intern.testing.LocalLLM`], with this API's body.
            `reasoning` is sent as `thinking` where the request has `think`.
        models (`Mapping[str, int]` or sequence of `str`, defaults to `{"local": 32768}`): What was pulled, each with the
            tokens that it was made for. `NAME` stands for `NAME:latest`.
        api_key (`str`, *optional*): For one behind a proxy: any other key is answered with 401.
        num_ctx (`int`, defaults to 4,096): Tokens that are read where the request does not say.
        truncates (`bool`, defaults to `True`): Whether a prompt that is too long is cut; else it is refused.
        capabilities (sequence of `str`): As `/api/show` lists them.
        port (`int`, defaults to 0): 0 takes a free one.

    Attributes:
        requests (`list[dict]`): The body of every request that reached the model, in order, as it was sent.
        read (`list[int]`): For each of them, how many messages were left of it when it had been cut.
    """

    def __init__(
        self,
        answer: Answer | Path,
        *,
        models: Mapping[str, int] | Sequence[str] = ("local",),
        api_key: str | None = None,
        num_ctx: int = NUM_CTX,
        truncates: bool = True,
        capabilities: Sequence[str] = ("completion", "tools", "thinking"),
        port: int = 0,
    ) -> None:
        given = models if isinstance(models, Mapping) else dict.fromkeys(models, 32_768)
        self.models = {_tagged(name): window for name, window in given.items()}
        self.num_ctx, self.truncates, self.capabilities = num_ctx, truncates, tuple(capabilities)
        self.read: list[int] = []
        self._loaded: dict[str, int] = {}
        super().__init__(answer, api_key, port)

    def routes(self) -> Iterable[tuple[str, str, Handle]]:
        return (
            ("GET", "/", self._running),
            ("GET", "/api/version", self._version),
            ("GET", "/api/tags", self._tags),
            ("GET", "/api/ps", self._ps),
            ("POST", "/api/show", self._show),
            ("POST", "/api/chat", self._chat),
        )

    wrong_key = "unauthorized"

    def environment(self) -> dict[str, str]:
        """The variables that lead Ollama's client, `litellm` and this project here."""
        return {"OLLAMA_HOST": self.url, "OLLAMA_API_BASE": self.url, "OLLAMA_BASE_URL": self.url}

    def error(self, fail: Fail) -> Response:
        return JSONResponse({"error": fail.message}, fail.status, fail.headers)

    def error_in_stream(self, fail: Fail) -> bytes:
        return bytes(self.error(fail).body) + b"\n"

    async def _running(self, request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": "0.13.0"})

    async def _tags(self, request: Request) -> Response:
        return JSONResponse({"models": [_row(name) for name in self.models]})

    async def _ps(self, request: Request) -> Response:
        rows = [{**_row(name), "size_vram": 0, "context_length": length} for name, length in self._loaded.items()]
        return JSONResponse({"models": rows})

    async def _show(self, request: Request) -> Response:
        name = self._pulled(await self.body_of(request))
        return JSONResponse(
            {
                "modelfile": f"FROM {name}\n",
                "parameters": 'stop                           "<|im_end|>"',
                "template": "{{ .Prompt }}",
                "details": _row(name)["details"],
                "model_info": {
                    "general.architecture": "qwen2",
                    "general.parameter_count": 7_615_616_512,
                    "qwen2.context_length": self.models[name],
                    "qwen2.embedding_length": 3_584,
                },
                "capabilities": list(self.capabilities),
                "modified_at": "2025-11-01T12:00:00Z",
            }
        )

    def _pulled(self, body: dict[str, Any]) -> str:
        asked = str(body.get("model") or body.get("name") or "")
        if not asked:
            raise Fail(400, "model is required")
        if (name := _tagged(asked)) not in self.models:
            raise Fail(404, f"model '{asked}' not found")
        return name

    async def _chat(self, request: Request) -> Response:
        body = await self.body_of(request)
        name = self._pulled(body)
        messages = body.get("messages") or []
        if body.get("tools") and "tools" not in self.capabilities:
            raise Fail(400, f"registry.ollama.ai/library/{name} does not support tools")
        if body.get("think") and "thinking" not in self.capabilities:
            raise Fail(400, f'"{body["model"]}" does not support thinking')
        options = body.get("options") or {}
        window = min(options.get("num_ctx") or self.num_ctx, self.models[name])
        self._loaded[name] = window
        began = time.perf_counter_ns()
        if not messages:  # how a client has a model loaded
            return JSONResponse(
                {**_frame(body, {"role": "assistant", "content": ""}), "done_reason": "load", "done": True}
            )
        asked, left = self._fitting(messages, window, tokens_in(json.dumps(body["tools"])) if body.get("tools") else 0)
        reply, cut = await self.ask(body)
        self.read.append(left)
        text, _ = stopped(reply.content or "", options.get("stop"))
        said, why = said_tokens(reply), reply.finish_reason
        if (
            isinstance(limit := options.get("num_predict"), int)
            and 0 < limit < said
            and reply.completion_tokens is None
        ):
            text, said, why = text[: limit * 4], limit, "length"
        if "<think>" in text:
            text = text.lstrip()
        end = {
            "done_reason": "length" if why == "length" else "stop",
            "done": True,
            "total_duration": time.perf_counter_ns() - began,
            "load_duration": 20_000_000,
            "prompt_eval_count": asked if reply.prompt_tokens is None else reply.prompt_tokens,
            "prompt_eval_duration": 30_000_000,
            "eval_count": said,
            "eval_duration": 40_000_000,
        }
        thinking = reply.reasoning if reply.reasoning and body.get("think", True) else None
        calls = [{"function": {"name": call.name, "arguments": arguments_of(call)}} for call in reply.tool_calls or []]
        if body.get("stream", True):
            lines = _lines(body, reply, thinking, text, calls, end)
            return Body(lines, "application/x-ndjson", reply.delay, cut)
        message = {"role": "assistant", "content": text, **({"thinking": thinking} if thinking else {})}
        return whole({**_frame(body, message | ({"tool_calls": calls} if calls else {})), **end}, reply, cut)

    def _fitting(self, messages: list[dict[str, Any]], window: int, fixed: int) -> tuple[int, int]:
        """Tokens and number of the messages that are read: system messages, and of the rest the last that fit."""
        weights = [
            tokens_in(str(m.get("content") or "")) + IMAGE_TOKENS * len(m.get("images") or ()) for m in messages
        ]
        total = fixed + sum(weights)
        if total > window and not self.truncates:
            raise Fail(400, "the input length exceeds the context length")
        left = len(messages)
        for message, weight in zip(messages[:-1], weights, strict=False):
            if total <= window:
                break
            if message.get("role") != "system":
                total, left = total - weight, left - 1
        return min(total, window), left


def _tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _row(name: str) -> dict[str, Any]:
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": "qwen2",
        "families": ["qwen2"],
        "parameter_size": "7.6B",
        "quantization_level": "Q4_K_M",
    }
    times = {"modified_at": "2025-11-01T12:00:00Z"}
    return {"name": name, "model": name, **times, "size": 4_683_087_332, "digest": DIGEST, "details": details}


def _frame(body: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z"
    return {"model": body["model"], "created_at": now, "message": message}


def _lines(
    body: dict[str, Any],
    reply: Reply,
    thinking: str | None,
    text: str,
    calls: list[dict[str, Any]],
    end: dict[str, Any],
) -> Iterator[bytes]:
    def line(end: dict[str, Any] | None = None, **message: Any) -> bytes:
        frame = _frame(body, {"role": "assistant", "content": "", **message})
        return json.dumps({**frame, **(end or {"done": False})}).encode() + b"\n"

    for piece in pieces(thinking or "", reply):
        yield line(thinking=piece)
    for piece in pieces(text, reply):
        yield line(content=piece)
    if calls:
        yield line(tool_calls=calls)
    yield line(end)
