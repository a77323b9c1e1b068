"""Whether a provider refused a prompt for being too long, and the window that it names.

Each words it differently, and litellm's class for it is not raised for all of them: the words decide. A limit on tokens a
minute, or on the tokens of an answer, is worded alike and is something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SAYS_SO = (
    r"context_length_exceeded",  # OpenAI's code, and of many that speak its protocol
    r"maximum (context|input|prompt|sequence|model) length",  # OpenAI, vLLM, OpenRouter, Mistral
    r"longer than the (model's )?(maximum )?(model|context) length",  # vLLM, SGLang
    r"too long to fit into the model",  # vLLM
    r"max_model_len",
    r"(prompt|input|messages?|request|conversation)s?( \(.{1,40}\))? (is|are|was|were) too (long|large)",  # Anthropic, Bedrock
    r"input length and `?max_tokens`? exceed context limit",  # Anthropic
    r"exceeds? the context (limit|window|size|length)",
    r"exceed_context_size_error",  # llama.cpp
    r"exceeds the available context size",  # llama.cpp
    r"(context|prompt) (size|length|window) (was |is |has been )?exceeded",
    r"requested tokens .{0,20}exceed context window",  # llama-cpp-python
    r"(input|prompt) length exceeds (the |maximum )*context|(prompt|input) too long",  # Ollama
    r"exceeds (the )?(maximum|model'?s?) context length",
    r"input token count .{0,40}exceeds the maximum",  # Gemini
    r"exceeds the maximum number of (input )?tokens",  # Gemini
    r"`?inputs`? tokens \+ `?max_new_tokens`? must be",  # the Hub: text-generation-inference
    r"`?inputs`? must have less than",  # the Hub: text-generation-inference
    r"input tokens exceed the configured limit",  # Azure
    r"current length is \d+ while limit is",  # Cerebras
    r"input too long:? .{0,40}limit is",
    r"reduce the length of (the |your |either )(messages|prompt|input|one)",
    r"prompt has \d+ tokens, .{0,40}(limit|maximum|window)",
    r"too many (input )?tokens in (the )?(prompt|messages|request)",
)
_SOMETHING_ELSE = (
    r"(per|a|/) ?(minute|day|hour|min)\b",
    r"\bTP[MD]\b",
    r"rate[_ ]limit",
    r"quota",
    r"string_above_max_length",  # one field of the request
    r"max_(completion_|output_|new_)?tokens`? (is|are) too large",  # of the answer
)
_WINDOW = (
    r"context (?:length|window|size|limit)(?:(?! by )\D){0,30}?(\d[\d,]+)(?![\d,]* \+)",
    r"maximum (?:\w+ ){0,3}(?:length|tokens)\D{0,30}?(\d[\d,]+)",
    r"exceed context limit: \d[\d,]* \+ \d[\d,]* > (\d[\d,]+)",
    r"> (\d[\d,]+) maximum",
    r"max_model_len\W{1,4}(\d[\d,]+)",
    r"n_ctx\W{1,4}(\d[\d,]+)",
    r"tokens allowed \(?(\d[\d,]+)",
    r"(?:must be <=|must have less than|limit is) (\d[\d,]+)",
    r"maximum model length of (\d[\d,]+)",
)


def _any(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_SAID, _NOT = _any(_SAYS_SO), _any(_SOMETHING_ELSE)
_NAMED = [re.compile(pattern, re.IGNORECASE) for pattern in _WINDOW]
SMALLEST = 256
"""Tokens: no window is smaller; a number below it means something else."""


@dataclass(frozen=True)
class Overflow:
    """A prompt was too long. `window` is what the provider says it takes, `None` where it does not say."""

    window: int | None
    said: str


def overflow_of(error: BaseException | None) -> Overflow | None:
    """What a failed request says of the prompt's length; `None` where it failed for another reason.

    Args:
        error (`BaseException`): With the errors behind it: a model may wrap its provider's.
    """
    for cause in _causes(error):
        said = " ".join(str(cause).split())[:4_000]
        if type(cause).__name__ == "ContextWindowExceededError" or (_SAID.search(said) and not _NOT.search(said)):
            return Overflow(window_in(said), said[:300])
    return None


def window_in(said: str) -> int | None:
    """The window that a refusal names: the smallest number that stands where one would."""
    found = (int(match[1].replace(",", "")) for pattern in _NAMED for match in pattern.finditer(said))
    return min((number for number in found if number >= SMALLEST), default=None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
