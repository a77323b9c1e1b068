"""A smolagents model over litellm: loaded on first use, streamed, cancellable, its errors in plain words."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from ..authors import Answer
from ..errors import ModelFailed
from ..thinking import wants_tags
from .cache_marks import marked, reads_its_thinking, takes_marks
from .endpoint import Endpoint, missing_key
from .failures import explain, pause, refused_option, refused_thinking
from .loading import LazyLitellm
from .messages import MessagePreparer, without_blocks
from .parameters import ModelOptions, Price, fit
from .servers import OLLAMA_WINDOW, LocalServer, look
from .streaming import stream, was_cancelled

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Waits between the attempts at a request that failed for a reason that may pass."""
CONVERSATIONS = 8
"""How many conversations a model keeps prepared: an agent's own, those of its sub-agents."""


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
        options (`ModelOptions`, *optional*): Effort, temperature and the like. What the model lacks is left out.
        on_note (`Callable[[str], None]`, *optional*): Told once of what was left out.
        prices (`Mapping[str, Price]`, *optional*): Prices that go before litellm's, by the model's id or its name; `*` is any.
        name (`str`, *optional*): The model as a person wrote it.
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
        options: ModelOptions | None = None,
        on_note: Callable[[str], None] | None = None,
        prices: Mapping[str, Price] | None = None,
        name: str = "",
        **kwargs: Any,
    ) -> None:
        kwargs = {**(options.request() if options else {}), **kwargs}
        if model_id.startswith("ollama_chat/"):
            # smolagents flattens for all of ollama, and then fails at the first image; /api/chat takes images.
            kwargs.setdefault("flatten_messages_as_text", False)
        super().__init__(model_id=model_id, api_base=api_base, api_key=api_key, retry=False, **kwargs)
        self.on_delta, self.on_retry, self.on_note = on_delta, on_retry, on_note
        self.name, self.prices = name or model_id, dict(prices or {})
        self._optional = set(options.request()) if options else set()
        self._left_out: set[str] | None = None  # of what is optional; not known before litellm is there
        self._reads: int | None = None
        self._looked = False
        self.request_timeout, self.retry_seconds = timeout, tuple(retry_seconds)
        self.cancelled = threading.Event()
        self._preparers: deque[MessagePreparer] = deque(maxlen=CONVERSATIONS)
        self._preparing = threading.Lock()

    @classmethod
    def of(cls, endpoint: Endpoint, **kwargs: Any) -> EndpointModel:
        return cls(endpoint.model_id, endpoint.api_base, endpoint.api_key, name=endpoint.name, **kwargs)

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
        return self.answer(messages, stop_sequences, response_format, tools_to_call_from, **kwargs)

    def answer(
        self,
        messages: list[ChatMessage | dict],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Tool] | None = None,
        waits: Sequence[float] | None = None,
        patience: float | None = None,
        **kwargs: Any,
    ) -> Answer:
        """As [`generate`], with waits of its own between attempts, and no patience with a service that wants longer ones."""
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
        for name in self._options_left_out():
            request.pop(name, None)
        self._apply_rate_limit()
        response = self._with_retries(request, self.retry_seconds if waits is None else waits, patience)
        answer = response.choices[0].message
        content = answer.content
        if not self.supports_stop_parameter:
            content = remove_content_after_stop_sequences(content, stop_sequences)
        return Answer(
            role=MessageRole.ASSISTANT,
            content=content,
            tool_calls=answer.tool_calls,
            raw=response,
            token_usage=TokenUsage(response.usage.prompt_tokens or 0, response.usage.completion_tokens or 0),
            model=str(self.model_id),
        )

    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float | None:
        """US dollars for a call: by a price that was set, else by litellm's table; `None` where neither knows it."""
        for name in (self.name, str(self.model_id), "*"):
            if name in self.prices:
                return self.prices[name].of(input_tokens, output_tokens, cached_tokens)
        if LocalServer.of(str(self.model_id)):
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
        """Tokens that the model can read: as its local server says, else by litellm's table; `None` where neither knows."""
        name = str(self.model_id)
        if LocalServer.of(name):
            if not self._looked:
                with contextlib.suppress(ModelFailed):  # its first request will tell
                    self.look()
            return self._reads
        table = self.client.model_cost
        known = table.get(name) or table.get(name.partition("/")[2]) or {}
        found = known.get("max_input_tokens")
        return found if isinstance(found, int) and found > 0 else None

    def look(self) -> str:
        """Looks whether a local server is there and has the model, within seconds, without making it work.

        Returns:
            `str`: What a person should know; mostly nothing.

        Raises:
            ModelFailed: it cannot work as it is; says what to do.
        """
        server, self._looked = LocalServer.of(str(self.model_id)), True
        lacking = missing_key(Endpoint(str(self.model_id), self.api_base, self.api_key), os.environ)
        if lacking:
            remedy = f"export {lacking}=..., or choose another model with LLM_ENDPOINT."
            raise ModelFailed(f"{self.name} has no key", f"{lacking} is not set", remedy).of_kind("unsent")
        if server is None or not self.api_base:
            return ""
        model = str(self.model_id).partition("/")[2]
        seen = look(server, model, self.api_base, self.api_key or "none")
        self._reads = seen.window
        if server.prefix == "ollama" and seen.window is not None:  # it cuts off what is longer than it is told to read
            self._reads = min(seen.window, int(self.kwargs.get("num_ctx") or OLLAMA_WINDOW))
            self.kwargs["num_ctx"] = self._reads
        if seen.thinks is False and "reasoning_effort" in self._optional and self.on_note:
            self.on_note(f"{self.name} cannot be told how long to think: effort is left out.")
        if seen.thinks is False:
            self._optional.discard("reasoning_effort")
            self.kwargs.pop("reasoning_effort", None)
        return seen.note

    def know(self) -> None:
        """Looks whether litellm knows the provider, without a request; loads it.

        Raises:
            ModelFailed: it does not.
        """
        if LocalServer.of(str(self.model_id)):
            return
        try:
            self.client.get_llm_provider(model=self.model_id, api_base=self.api_base, api_key=self.api_key)
        except Exception:  # noqa: BLE001 - litellm raises several kinds for a provider it does not know
            remedy = (
                "Write it with its provider, e.g. claude-sonnet-4-5, hf/ORG/MODEL, ollama/MODEL, openrouter/ORG/MODEL."
            )
            raise ModelFailed(f"{self.name} is no model that is known", "", remedy).of_kind("unsent") from None

    def warm(self) -> None:
        """Begins with what takes its time before a first answer; nothing, for a server."""

    def close(self) -> None:
        """Gives up what it holds; nothing, for a server."""

    def _options_left_out(self) -> set[str]:
        """Options that this model lacks, said once."""
        if self._left_out is None:
            self._left_out = set()
            try:
                known = self.client.get_supported_openai_params(model=self.model_id) if self._optional else None
            except Exception:  # noqa: BLE001 - litellm raises a bare Exception for a provider it does not know
                known = None
            _, lacking = fit(
                {name: self.kwargs[name] for name in self._optional if name in self.kwargs}, known or None
            )
            self._leave_out(lacking)
        return self._left_out

    def _leave_out(self, names: Iterable[str]) -> None:
        names = [name for name in names if name not in (self._left_out or ())]
        if names:
            self._left_out = {*(self._left_out or ()), *names}
            if self.on_note:
                said = ", ".join(sorted("effort" if name == "reasoning_effort" else name for name in names))
                self.on_note(f"{self.name} takes no {said}: left out.")

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
            name = str(self.model_id)
            preparer = found or MessagePreparer(
                self.flatten_messages_as_text, name if reads_its_thinking(name) else "", wants_tags(name)
            )
            self._preparers.append(preparer)  # the newest: the one unused for longest makes room
            return preparer.prepare(messages)

    @property
    def _where(self) -> str:
        return f"{self.model_id} at {self.api_base}" if self.api_base else str(self.model_id)

    def _with_retries(self, request: dict[str, Any], waits: Sequence[float], patience: float | None) -> Any:
        """The one loop that sends a request again: litellm and the clients below it are told not to."""
        from openai import OpenAIError  # what litellm's own errors derive from

        for attempt in itertools.count():
            try:
                return self._once(request)
            except OpenAIError as error:
                if option := refused_option(error, (self._optional | {"response_format"}) & request.keys()):
                    del request[option]
                    self._leave_out([option])
                    continue
                if any("thinking_blocks" in message for message in request["messages"]) and refused_thinking(error):
                    request["messages"] = [without_blocks(message) for message in request["messages"]]
                    with self._preparing:
                        for preparer in self._preparers:
                            preparer.forget_thoughts()
                    continue
                failure = explain(error, self._where)
                seconds = pause(error, attempt, waits, patience)
                if seconds is None:
                    raise failure from error
            if self.on_retry:
                self.on_retry(f"{failure.what} ({failure.why}); trying again in {seconds:.0f} s")
            if self.cancelled.wait(seconds):
                raise was_cancelled()
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
            ).of_kind("empty")
        return response

    def _stream(self, request: dict[str, Any]) -> Iterator[Any]:
        """The chunks of one attempt, read on a thread: a cancel must not wait for the server's next byte."""
        return stream(self.client.completion, request, self.cancelled)


# smolagents' own loader looks model classes up here; its annotation lists only its own.
MODEL_REGISTRY["EndpointModel"] = EndpointModel  # ty: ignore[invalid-assignment]
