"""A smolagents model over litellm: loaded on first use, streamed, cancellable, its errors in plain words."""

from __future__ import annotations

import importlib
import os
import random
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from smolagents.models import MODEL_REGISTRY, ChatMessage, LiteLLMModel, MessageRole, TokenUsage

from ..errors import ModelFailed
from .endpoint import Endpoint
from .messages import MessagePreparer

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Waits between attempts at a request that failed for a reason that may pass; a longer `Retry-After` is obeyed up to a minute."""


class LazyLitellm:
    """litellm, imported when first needed: it takes seconds and some 180 MB."""

    _lock = threading.Lock()
    _module: ModuleType | None = None

    @classmethod
    def load(cls) -> ModuleType:
        with cls._lock:
            if cls._module is None:
                # Without this the import looks its price table up on the internet, and waits when there is none.
                os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
                cls._module = importlib.import_module("litellm")
                cls._module.suppress_debug_info = True
            return cls._module

    @classmethod
    def loaded(cls) -> bool:
        return cls._module is not None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)


class EndpointModel(LiteLLMModel):
    """Any model that litellm reaches.

    Args:
        model_id (`str`): litellm's id.
        api_base (`str`, *optional*): The server's address, where it is not the provider's own.
        api_key (`str`, *optional*): Defaults to the provider's variable in the environment.
        on_delta (`Callable[[str], None]`, *optional*): Gets the answer as it streams.
        on_retry (`Callable[[str], None]`, *optional*): Told why a request is sent again.
        timeout (`float`, defaults to 600): Seconds without a byte before a request is given up.

    Raises:
        ModelFailed: (when called) the service refused, failed or could not be reached; says what to do.
    """

    def __init__(
        self,
        model_id: str,
        api_base: str | None = None,
        api_key: str | None = None,
        on_delta: Callable[[str], None] | None = None,
        on_retry: Callable[[str], None] | None = None,
        timeout: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_id=model_id, api_base=api_base, api_key=api_key, retry=False, **kwargs)
        self.on_delta, self.on_retry, self.request_timeout = on_delta, on_retry, timeout
        self.cancelled = threading.Event()
        self._preparers: dict[int, MessagePreparer] = {}

    @classmethod
    def of(cls, endpoint: Endpoint, **kwargs: Any) -> EndpointModel:
        return cls(endpoint.model_id, endpoint.api_base, endpoint.api_key, **kwargs)

    def create_client(self) -> LazyLitellm:
        return LazyLitellm()

    def _prepare_completion_kwargs(self, messages: list[ChatMessage | dict], **kwargs: Any) -> dict[str, Any]:
        if any(isinstance(message, dict) for message in messages) or self.custom_role_conversions:
            return super()._prepare_completion_kwargs(messages=messages, **kwargs)
        # One conversation keeps its first message object; a few conversations (an agent, its planning) take turns.
        key = id(messages[0]) if messages else 0
        if key not in self._preparers and len(self._preparers) >= 8:
            self._preparers.pop(next(iter(self._preparers)))
        preparer = self._preparers.setdefault(key, MessagePreparer(self.flatten_messages_as_text))
        prepared = super()._prepare_completion_kwargs(messages=[], **kwargs)
        return {**prepared, "messages": preparer.prepare(messages)}

    def generate(self, messages: list[ChatMessage | dict], stop_sequences: list[str] | None = None, **kwargs: Any) -> ChatMessage:
        request = self._prepare_completion_kwargs(
            messages=messages,
            stop_sequences=stop_sequences,
            model=self.model_id,
            api_base=self.api_base,
            api_key=self.api_key,
            convert_images_to_image_urls=True,
            custom_role_conversions=self.custom_role_conversions,
            timeout=self.request_timeout,
            max_retries=0,
            stream=True,
            stream_options={"include_usage": True},
            drop_params=True,
            **kwargs,
        )
        response = self._with_retries(request)
        choice = response.choices[0].message
        content = choice.content
        if stop_sequences and not self.supports_stop_parameter and content:
            content = content[: min((i for i in map(content.find, stop_sequences) if i >= 0), default=len(content))]
        usage = response.usage
        return ChatMessage(
            role=MessageRole.ASSISTANT,
            content=content,
            tool_calls=choice.tool_calls,
            raw=response,
            token_usage=TokenUsage(usage.prompt_tokens or 0, usage.completion_tokens or 0),
        )

    def _with_retries(self, request: dict[str, Any]) -> Any:
        self.client.load()
        from openai import OpenAIError  # what litellm's own errors derive from

        for attempt, seconds in enumerate((*RETRY_SECONDS, None)):
            try:
                return self._once(request)
            except OpenAIError as error:
                failure = explain(error, self.model_id, self.api_base)
                wait = _wait(error, seconds, attempt)
                if wait is None or self.cancelled.is_set():
                    raise failure from error
                if self.on_retry:
                    self.on_retry(f"{failure.what}; trying again in {wait:.0f} s")
                if self.cancelled.wait(wait):
                    raise failure from error
        raise AssertionError("the last attempt has no wait and raises")

    def _once(self, request: dict[str, Any]) -> Any:
        chunks = []
        for chunk in self.client.completion(**request):
            chunks.append(chunk)
            if self.on_delta and chunk.choices and chunk.choices[0].delta.content:
                self.on_delta(chunk.choices[0].delta.content)
            if self.cancelled.is_set():
                raise ModelFailed("The request was cancelled")
        response = self.client.stream_chunk_builder(chunks, messages=request["messages"])
        if response is None or not response.choices:
            raise ModelFailed(f"{self.model_id} answered nothing at all", "the stream held no choices", "Try again or another model.")
        return response

    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float | None:
        """US dollars for a call by litellm's table, `None` where it has no price for this model."""
        try:
            prompt, answer = self.client.cost_per_token(
                model=self.model_id,
                prompt_tokens=input_tokens,
                completion_tokens=output_tokens,
                cache_read_input_tokens=cached_tokens,
            )
        except Exception:  # noqa: BLE001 - litellm raises a bare Exception for a model it has no price for
            return None
        local = self.model_id.startswith(("ollama_chat/", "hosted_vllm/", "lm_studio/", "llamafile/"))
        return prompt + answer if prompt + answer > 0 or not local else None


def _wait(error: Any, seconds: float | None, attempt: int) -> float | None:
    """Seconds to wait before the next attempt, `None` when there is none: out of attempts, or it would fail again."""
    status = getattr(error, "status_code", 500)  # a connection error has none
    if seconds is None or (status not in (408, 409, 429) and status < 500):
        return None
    if "Connection refused" in str(error) and attempt >= 1:
        return None  # nobody listens there: waiting half a minute would not change it
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        asked = float(headers.get("retry-after", 0))
    except ValueError:
        asked = 0.0
    return min(60.0, max(asked, seconds * random.uniform(0.8, 1.2)))


def explain(error: Any, model: str, base: str | None) -> ModelFailed:
    """A provider's error in one line, with what to do about it."""
    status = getattr(error, "status_code", None)
    detail = " ".join(str(error).split())[:300]
    where = f"{model} at {base}" if base else model
    if "Connection refused" in detail or "Connection error" in detail or "Cannot connect" in detail:
        return ModelFailed(f"Nothing answers for {where}", detail[:120], "Start the server, or correct its address.")
    if status == 401:
        return ModelFailed(f"{where} refused the key", detail, "Set the provider's key, or choose another model with LLM_ENDPOINT.")
    if status == 404:
        return ModelFailed(f"{where} does not exist there", detail, "Check the name; for ollama: `ollama pull MODEL`.")
    if status == 429:
        return ModelFailed(f"{where} says too many requests", detail, "Wait, or choose another model with LLM_ENDPOINT.")
    return ModelFailed(f"{where} failed", detail, "Try again, or choose another model with LLM_ENDPOINT.")


MODEL_REGISTRY["EndpointModel"] = EndpointModel
