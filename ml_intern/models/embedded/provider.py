"""Embedded weights as a provider of litellm, so that everything above it is as for any other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import litellm
from litellm import CustomLLM
from litellm.types.utils import Delta, ModelResponse, ModelResponseStream, StreamingChoices

from .engine import Cancelled, EngineError

PROVIDER = "embedded"
_PASSED = frozenset(
    (
        "temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "stop", "response_format", "tools", "tool_choice",
        "grammar", "json_schema", "presence_penalty", "frequency_penalty", "repeat_penalty", "logit_bias", "logprobs",
        "top_logprobs", "reasoning_effort", "chat_template_kwargs", "parallel_tool_calls", "stream_options",
    )
)  # fmt: skip
"""What of a request llama.cpp is told."""


class Answers(Protocol):
    """Where the chunks of an answer come from: what a request carries as its `client`."""

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]: ...


class EmbeddedProvider(CustomLLM):
    """Answers `embedded/...` with llama.cpp in a child process.

    Args:
        find (`Callable[[str], Answers]`): The weights of a name, where a request carries no `client`.
    """

    def __init__(self, find: Callable[[str], Answers]) -> None:
        super().__init__()
        self.find = find

    def streaming(self, model: str, messages: list, *args: Any, **kwargs: Any) -> Iterator[Any]:
        options = {name: value for name, value in kwargs["optional_params"].items() if name in _PASSED}
        options["stream_options"] = {"include_usage": True}
        answers: Answers = kwargs.get("client") or self.find(model)
        with _translated(model):
            answer = answers.answer({"messages": messages, **options})
        return _chunks(answer, model)

    def completion(self, model: str, messages: list, *args: Any, **kwargs: Any) -> ModelResponse:
        chunks = list(litellm.CustomStreamWrapper(
            completion_stream=self.streaming(model, messages, *args, **kwargs), model=model, custom_llm_provider=PROVIDER,
            logging_obj=kwargs["logging_obj"], stream_options={"include_usage": True},
        ))  # fmt: skip
        built = litellm.stream_chunk_builder(chunks, messages=messages)
        if not isinstance(built, ModelResponse):
            raise _as_litellm(500, "it answered nothing", model)
        return built


def register(find: Callable[[str], Answers]) -> None:
    """Makes litellm know `embedded/...`. Again and again does nothing more."""
    providers = litellm.custom_provider_map
    if not any(entry["provider"] == PROVIDER for entry in providers):
        providers.append({"provider": PROVIDER, "custom_handler": EmbeddedProvider(find)})


def _chunks(answer: Iterator[dict[str, Any]], model: str) -> Iterator[Any]:
    """llama.cpp's chunks as litellm takes them. The last one carries both why it ended and its usage: of two, litellm
    drops the second."""
    finish, usage = "stop", None
    with _translated(model):
        for chunk in answer:
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                finish = choice["finish_reason"] or finish
                if any(choice["delta"].get(name) for name in ("content", "reasoning_content", "tool_calls")):
                    fields: dict[str, Any] = {"role": "assistant", **choice["delta"]}
                    delta = Delta(**fields)
                    yield ModelResponseStream(choices=[StreamingChoices(index=0, delta=delta)])
    yield {"text": "", "is_finished": True, "finish_reason": finish, "usage": usage, "index": 0, "tool_use": None}


@contextlib.contextmanager
def _translated(model: str) -> Generator[None]:
    try:
        yield
    except EngineError as error:
        raise _as_litellm(error.status, str(error), model) from error
    except Cancelled as error:
        raise _as_litellm(499, "The request was cancelled", model) from error


def _as_litellm(status: int, said: str, model: str) -> Exception:
    error = _kind(status, said, model)
    error.litellm_response_headers = {"server": "llama.cpp"}  # as a service's errors have: it was asked, and said this
    return error


def _kind(status: int, said: str, model: str) -> Any:
    if status == 400 and "context size" in said:
        return litellm.ContextWindowExceededError(said, model, PROVIDER)
    if status == 400:
        return litellm.BadRequestError(said, model, PROVIDER)
    if status == 408:
        return litellm.Timeout(said, model, PROVIDER)
    if status == 503:
        return litellm.ServiceUnavailableError(said, PROVIDER, model)
    return litellm.APIError(status, said, PROVIDER, model)
