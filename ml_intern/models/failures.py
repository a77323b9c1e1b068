"""What a failed request means: in words for people, and whether and when to send it again."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from httpx import ConnectError, ConnectTimeout, Headers, HTTPError

from ..errors import ModelFailed

LONGEST_WAIT = 60.0
_ANOTHER = "choose another model with LLM_ENDPOINT."
_KINDS = {401: "key", 403: "key", 402: "unpaid", 404: "missing", 408: "late", 409: "failed", 429: "rate"}
_ALSO = {"reasoning_effort": ("thinking", "think", "reasoning", "effort"), "max_tokens": ("max_completion_tokens",),
    "response_format": ("json_schema", "structured outputs?", "guided")}  # fmt: skip
_UNPAID = ("credit balance", "insufficient credit", "billing", "quota")
_LONGER_THAN = re.compile(
    r"(input|prompt) (length exceeds (the |maximum )*context|too long)|exceeds the (available )?context (size|length|window)",
    re.IGNORECASE,
)
_NO_SUCH_MODEL = ("not a valid model", "model not found", "no such model", "does not exist")


def pause(error: Any, attempt: int, waits: Sequence[float], patience: float | None = None) -> float | None:
    """How long to wait before a request is sent again.

    Args:
        error (`openai.OpenAIError`): What litellm raised.
        attempt (`int`): The attempt that failed, from 0.
        waits (`Sequence[float]`): Seconds after each attempt; a longer `Retry-After` is obeyed, up to a minute.
        patience (`float`, *optional*): A longer `Retry-After` is not waited for at all: another model is asked meanwhile.

    Returns:
        `float` or `None`: Seconds; `None` where it would fail again, or enough attempts were made.
    """
    status = _status(error)
    if (status not in (408, 409, 429) and status < 500) or _unsent(error):
        return None
    # Nobody there, or silence for the whole timeout: once more in case it was starting, but not for minutes.
    attempts = min(1, len(waits)) if status == 408 or _unreachable(error) else len(waits)
    if attempt >= attempts or (patience is not None and _retry_after(error) > patience):
        return None
    return min(LONGEST_WAIT, max(_retry_after(error), waits[attempt] * random.uniform(0.8, 1.2)))


def explain(error: Any, where: str) -> ModelFailed:
    """A failed request in two lines: what the service said, and what to do about it.

    Args:
        error (`openai.OpenAIError`): What litellm raised.
        where (`str`): The model and its address.
    """
    failure = _explained(error, where, _status(error), _said(error))
    return failure.of_kind(kind_of(error), _retry_after(error))


def kind_of(error: Any) -> str:
    """How a request failed; see [`~ml_intern.errors.ModelFailed`]."""
    status, said = _status(error), _said(error).lower()
    if _unreachable(error):
        return "unreachable"
    if _unsent(error):
        return "unsent"
    if _too_long(error):
        return "overflow"
    if status == 429 and "insufficient_quota" in str(error):
        return "unpaid"
    if status in _KINDS:
        return _KINDS[status]
    if status >= 500:
        return "failed"
    if any(words in said for words in _UNPAID):  # Anthropic says so with a 400
        return "unpaid"
    return "missing" if any(words in said for words in _NO_SUCH_MODEL) else "refused"


def refused_option(error: Any, options: Collection[str]) -> str | None:
    """Which of these options a service refused, where it names one that it does not know: the request does without it."""
    if not options or _status(error) not in (400, 422):
        return None
    said = str(_root(error)).lower()
    if not re.search(
        r"unsupported|not support|unknown|unrecognized|unexpected|extra (inputs|fields)|not permitted", said
    ):
        return None
    names = {option: (option, *_ALSO.get(option, ())) for option in options}
    return next((option for option in sorted(names) if any(re.search(rf"\b{n}\b", said) for n in names[option])), None)


def refused_thinking(error: Any) -> bool:
    """Whether a service refused thinking that was sent back to it: something before it has changed, or another wrote it."""
    said = str(_root(error)).lower()
    return _status(error) == 400 and "thinking" in said and ("signature" in said or "block" in said)


def _explained(error: Any, where: str, status: int, said: str) -> ModelFailed:
    if _unreachable(error):
        return ModelFailed(f"Nothing answers for {where}", said, "Start the server, or correct its address.")
    if _unsent(error):
        return ModelFailed(f"{where} cannot be asked", said, f"Put that right, or {_ANOTHER}")
    if _too_long(error):
        return ModelFailed(
            f"The conversation is longer than {where} can read", said, "Compact it, or choose a model that reads more."
        )
    if status == 408:
        return ModelFailed(f"{where} did not answer in time", said, f"Try again, or {_ANOTHER}")
    if status in (401, 403):
        return ModelFailed(f"{where} refused the key", said, f"Set the provider's key, or {_ANOTHER}")
    if status == 402:
        return ModelFailed(f"{where} wants to be paid", said, f"Add credit, or {_ANOTHER}")
    if status == 404:
        return ModelFailed(f"{where} was not found", said, "Check name and address; for ollama: `ollama pull MODEL`.")
    if status == 429:
        return ModelFailed(f"{where} says too many requests", said, f"Wait, or {_ANOTHER}")
    if status < 500:
        return ModelFailed(f"{where} refused the request", said, f"Change what it says, or {_ANOTHER}")
    return ModelFailed(f"{where} failed", said, f"Try again, or {_ANOTHER}")


def _too_long(error: Any) -> bool:
    """Whether a prompt was too long: litellm has a class for it, which some providers' words do not lead to."""
    return type(error).__name__ == "ContextWindowExceededError" or (
        _status(error) in (400, 413) and _LONGER_THAN.search(_said(error)) is not None
    )


def _root(error: Any) -> Any:
    """What is behind litellm's error for a stream that broke off."""
    return getattr(error, "original_exception", None) or error


def _status(error: Any) -> int:
    if "Got unexpected response from Ollama: {'error'" in str(error):
        return 500  # it failed in the middle of its answer, which litellm takes for a bad request
    return getattr(_root(error), "status_code", None) or 500  # a broken connection has none


def _said(error: Any) -> str:
    """The service's own words, without litellm's names and the JSON around them."""
    text = " ".join(str(_root(error)).partition("Traceback (most")[0].split())
    text = re.sub(r"^(?:litellm\.\w+: |\w+ ?Error: |\w+(?:Exception|Error)(?: -|:) )+", "", text)
    text = re.sub(r"\.? ?Handle with `litellm\.\w+`\.?", "", text)
    message = re.search(r'"(?:message|error)" ?: ?"((?:[^"\\]|\\.)+)"', text)
    message = message or re.search(r"Got unexpected response from Ollama: \{'error': ['\"](.+?)['\"]\}", text)
    return (message[1].replace('\\"', '"') if message else text).replace("\\'", "'")[:300]


def _unreachable(error: Any) -> bool:
    return any(isinstance(cause, (ConnectError, ConnectTimeout)) for cause in _causes(error))


def _unsent(error: Any) -> bool:
    """Whether litellm failed before it sent anything (no key, no package), which looks like a service's error."""
    heard = (
        _headers(error) or _root(error) is not error or any(isinstance(cause, HTTPError) for cause in _causes(error))
    )
    return _status(error) in (400, 401, 500) and not heard


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _headers(error: Any) -> Any:
    response = getattr(error, "response", None)  # for some providers litellm leaves its headers empty
    return getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None)


def _retry_after(error: Any) -> float:
    try:
        return float(Headers(_headers(error)).get("retry-after", 0))
    except ValueError:  # a date: rare, and our own waits will do
        return 0.0
