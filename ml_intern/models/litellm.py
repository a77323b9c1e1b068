"""A smolagents model over litellm: loaded on first use, streamed, cancellable, its errors in plain words."""

from __future__ import annotations

import contextvars
import importlib
import itertools
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, cast

from smolagents.models import (
    MODEL_REGISTRY,
    ChatMessage,
    LiteLLMModel,
    MessageRole,
    TokenUsage,
    remove_content_after_stop_sequences,
)
from smolagents.tools import Tool

from ..errors import ModelFailed
from .cache_marks import marked, takes_marks
from .endpoint import LOCAL_SERVERS, Endpoint
from .failures import explain, pause
from .messages import MessagePreparer

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Waits between the attempts at a request that failed for a reason that may pass."""
CONVERSATIONS = 8
"""How many conversations a model keeps prepared: an agent's own, those of its sub-agents."""


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
                # It starts an event loop for each chunk, some 2 ms; whole answers are still logged.
                cls._module.disable_streaming_logging = True
                # Tokens are counted without a download: without a network it tries for 20 s.
                cls._module.disable_hf_tokenizer_download = True
                if "LITELLM_LOG" not in os.environ:  # it writes to the terminal what it raises as well
                    logging.getLogger("LiteLLM").handlers = [logging.NullHandler()]
            return cls._module

    @classmethod
    def loaded(cls) -> bool:
        return cls._module is not None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by `copy`, `pickle` and `inspect`: no reason to load it
            raise AttributeError(name)
        return getattr(self.load(), name)


class EndpointModel(LiteLLMModel):
    """Any model that litellm reaches. May be shared by agents on several threads.

    Args:
        model_id (`str`): litellm's id.
        api_base (`str`, *optional*): The server's address, where it is not the provider's own.
        api_key (`str`, *optional*): Defaults to the provider's variable in the environment.
        on_delta (`Callable[[str], None]`, *optional*): Gets the answer's text as it streams.
        on_retry (`Callable[[str], None]`, *optional*): Told why a request is sent again; what was streamed of the
            answer until then is void.
        timeout (`float`, defaults to 600): Seconds without a byte before a request is given up.
        retry_seconds (`Sequence[float]`, defaults to 1, 2, 4, 8): Waits before a failed request is sent again.
        kwargs: As for smolagents' `LiteLLMModel`; the rest goes with every request (`temperature`, `max_tokens`...).

    Attributes:
        cancelled (`threading.Event`): Set, it ends running requests at once and lets none start until it is cleared.

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
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        **kwargs: Any,
    ) -> None:
        if model_id.startswith("ollama_chat/"):
            # smolagents flattens for all of ollama, and then fails at the first image; /api/chat takes images.
            kwargs.setdefault("flatten_messages_as_text", False)
        super().__init__(model_id=model_id, api_base=api_base, api_key=api_key, retry=False, **kwargs)
        self.on_delta, self.on_retry = on_delta, on_retry
        self.request_timeout, self.retry_seconds = timeout, tuple(retry_seconds)
        self.cancelled = threading.Event()
        self._preparers: deque[MessagePreparer] = deque(maxlen=CONVERSATIONS)
        self._preparing = threading.Lock()

    @classmethod
    def of(cls, endpoint: Endpoint, **kwargs: Any) -> EndpointModel:
        return cls(endpoint.model_id, endpoint.api_base, endpoint.api_key, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs to make this model again, less its keys."""
        return {
            **{name: value for name, value in self.kwargs.items() if not name.endswith(("key", "token", "secret"))},
            "model_id": self.model_id,
            "api_base": self.api_base,
            "timeout": self.request_timeout,
            "retry_seconds": list(self.retry_seconds),
            "flatten_messages_as_text": self.flatten_messages_as_text,
            "custom_role_conversions": self.custom_role_conversions,
        }

    def create_client(self) -> LazyLitellm:
        return LazyLitellm()

    def generate(
        self,
        messages: list[ChatMessage | dict],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Tool] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        request = self._prepare_completion_kwargs(
            messages=messages,
            stop_sequences=stop_sequences,
            response_format=response_format,
            tools_to_call_from=tools_to_call_from,
            model=self.model_id,
            api_base=self.api_base,
            api_key=self.api_key,
            convert_images_to_image_urls=True,
            custom_role_conversions=self.custom_role_conversions,
            **{"timeout": self.request_timeout, "max_retries": 0, "drop_params": True, **kwargs},
        )
        request |= {"stream": True, "stream_options": {"include_usage": True}}
        self._apply_rate_limit()
        response = self._with_retries(request)
        answer = response.choices[0].message
        content = answer.content
        if not self.supports_stop_parameter:
            content = remove_content_after_stop_sequences(content, stop_sequences)
        return ChatMessage(
            role=MessageRole.ASSISTANT,
            content=content,
            tool_calls=answer.tool_calls,
            raw=response,
            token_usage=TokenUsage(response.usage.prompt_tokens or 0, response.usage.completion_tokens or 0),
        )

    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float | None:
        """US dollars for a call by litellm's table; `None` for a local server's or a model that it does not know."""
        if str(self.model_id).partition("/")[0] in {server.litellm for server in LOCAL_SERVERS}:
            return None
        try:
            prompt, answer = self.client.cost_per_token(
                model=self.model_id,
                prompt_tokens=input_tokens,
                completion_tokens=output_tokens,
                cache_read_input_tokens=cached_tokens,
            )
        except Exception:  # noqa: BLE001 - litellm raises a bare Exception for a model it has no price for
            return None
        return prompt + answer

    def window(self) -> int | None:
        """Tokens that the model can read by litellm's table; `None` for a local server's or a model that it does not know."""
        name = str(self.model_id)
        if name.partition("/")[0] in {server.litellm for server in LOCAL_SERVERS}:
            return None  # it reads as much as it was started with
        table = self.client.model_cost
        known = table.get(name) or table.get(name.partition("/")[2]) or {}
        found = known.get("max_input_tokens")
        return found if isinstance(found, int) and found > 0 else None

    def _prepare_completion_kwargs(
        self, messages: list[ChatMessage | dict], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        # Whoever hands over dictionaries does so from the first message on, or mixes them in: few enough to look at.
        plain = bool(messages) and type(messages[0]) is ChatMessage and dict not in map(type, messages)
        if not plain or kwargs.get("custom_role_conversions") or "flatten_messages_as_text" in kwargs:
            return super()._prepare_completion_kwargs(messages, *args, **kwargs)
        request = super()._prepare_completion_kwargs([], *args, **kwargs)
        prepared = self._prepared(cast("list[ChatMessage]", messages))
        return {**request, "messages": marked(prepared) if takes_marks(str(self.model_id)) else prepared}

    def _prepared(self, messages: list[ChatMessage]) -> list[dict[str, Any]]:
        """The messages for the API. What tells conversations apart is their first message, which each holds on to."""
        with self._preparing:
            found = next((preparer for preparer in self._preparers if preparer.first is messages[0]), None)
            if found:
                self._preparers.remove(found)
            preparer = found or MessagePreparer(self.flatten_messages_as_text)
            self._preparers.append(preparer)  # the newest: the one unused for longest makes room
            return preparer.prepare(messages)

    @property
    def _where(self) -> str:
        return f"{self.model_id} at {self.api_base}" if self.api_base else str(self.model_id)

    def _with_retries(self, request: dict[str, Any]) -> Any:
        from openai import OpenAIError  # what litellm's own errors derive from

        for attempt in itertools.count():
            try:
                return self._once(request)
            except OpenAIError as error:
                failure = explain(error, self._where)
                seconds = pause(error, attempt, self.retry_seconds)
                if seconds is None:
                    raise failure from error
            if self.on_retry:
                self.on_retry(f"{failure.what} ({failure.why}); trying again in {seconds:.0f} s")
            if self.cancelled.wait(seconds):
                raise _was_cancelled()
        raise AssertionError("unreachable: the loop returns or raises")

    def _once(self, request: dict[str, Any]) -> Any:
        chunks, heard = [], False
        for chunk in self._stream(request):
            chunks.append(chunk)
            if not chunk.choices:
                continue
            delta = chunk.choices[0].delta
            heard = heard or bool(delta.role or delta.content or delta.tool_calls)
            if self.on_delta and delta.content:
                self.on_delta(delta.content)
        response = self.client.stream_chunk_builder(chunks, messages=request["messages"])
        # For a web page instead of a stream litellm makes up an empty answer.
        if response is None or not response.choices or not (heard or response.usage.completion_tokens):
            raise ModelFailed(
                f"{self._where} answered nothing", "its stream was empty", "Check that this is an API's address."
            )
        return response

    def _stream(self, request: dict[str, Any]) -> Iterator[Any]:
        """The chunks of one attempt, read on a thread: a cancel must not wait for the server's next byte."""
        arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        unwanted = threading.Event()
        target = contextvars.copy_context().run
        arguments = (_read, self.client.completion, request, arrived.put, unwanted)
        if self.cancelled.is_set():
            raise _was_cancelled()
        threading.Thread(target=target, args=arguments, name="model-request", daemon=True).start()
        try:
            while True:
                try:
                    item = arrived.get(timeout=0.1)
                except queue.Empty:
                    item = _NOTHING_YET
                if self.cancelled.is_set():
                    raise _was_cancelled()
                if item is _END:
                    return
                if isinstance(item, BaseException):
                    raise item
                if item is not _NOTHING_YET:
                    yield item
        finally:
            unwanted.set()


_END, _NOTHING_YET = object(), object()


def _read(
    complete: Callable[..., Any], request: dict[str, Any], put: Callable[[Any], None], unwanted: threading.Event
) -> None:
    try:
        stream = complete(**request)
        for chunk in stream:
            if unwanted.is_set():
                stream.close()  # hangs up, which tells the server to stop
                return
            put(chunk)
        put(_END)
    except BaseException as error:  # noqa: BLE001 - raised again on the thread that waits for the answer
        put(error)


def _was_cancelled() -> ModelFailed:
    return ModelFailed("The request was cancelled")


# smolagents' own loader looks model classes up here; its annotation lists only its own.
MODEL_REGISTRY["EndpointModel"] = EndpointModel  # ty: ignore[invalid-assignment]
