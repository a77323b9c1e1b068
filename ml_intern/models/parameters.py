"""What a person may set of a model: effort, temperature, length, seed, price. Pure: what a model lacks is left out, and said."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import SettingsError

EFFORTS = ("none", "minimal", "low", "medium", "high")
_EVERYWHERE = {"extra_body", "extra_headers", "num_ctx", "keep_alive", "api_version", "organization"}
"""Options of a client's or a server's own, which no list of parameters has."""


@dataclass(frozen=True)
class ModelOptions:
    """How a model is to answer. What is `None` is left to its service.

    Args:
        effort (`str`, *optional*): `none`, `minimal`, `low`, `medium` or `high`: how long it thinks.
        temperature (`float`, *optional*): 0 to 2.
        max_tokens (`int`, *optional*): Of an answer, thinking included.
        seed (`int`, *optional*): For answers that can be had again, where the service keeps to it.
        more (`dict`): Any other parameter of litellm's (`top_p`, `num_ctx`, `extra_body`...).
    """

    effort: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> ModelOptions:
        """From names and values, as `MLIntern(model_options=...)` has them.

        Raises:
            SettingsError: a value that no model can take.
        """
        options = dict(options or {})
        effort = options.pop("effort", options.pop("reasoning_effort", None))
        made = cls(effort, *(options.pop(name, None) for name in ("temperature", "max_tokens", "seed")), options)
        _check("effort", made.effort, effort in (None, *EFFORTS), f"It is one of {', '.join(EFFORTS)}.")
        _check("temperature", made.temperature, _is_number(made.temperature, 0, 2), "It is a number from 0 to 2.")
        _check("max_tokens", made.max_tokens, _is_whole(made.max_tokens, 1), "It is a whole number from 1.")
        _check("seed", made.seed, _is_whole(made.seed, None), "It is a whole number.")
        return made

    @classmethod
    def parse(cls, text: str) -> ModelOptions:
        """From a setting: `temperature=0.2, seed=7`, or a JSON object.

        Raises:
            SettingsError: it is neither.
        """
        return cls.of(parse_pairs(text, "ML_INTERN_MODEL_OPTIONS"))

    def over(self, other: ModelOptions) -> ModelOptions:
        """These options, and the other ones where these say nothing."""
        pairs = (
            (mine if mine is not None else theirs) for mine, theirs in zip(self._set(), other._set(), strict=True)
        )
        return ModelOptions(*pairs, {**other.more, **self.more})

    def _set(self) -> tuple[Any, ...]:
        return self.effort, self.temperature, self.max_tokens, self.seed

    def request(self) -> dict[str, Any]:
        """As litellm names them."""
        named = dict(zip(("reasoning_effort", "temperature", "max_tokens", "seed"), self._set(), strict=True))
        return {name: value for name, value in named.items() if value is not None} | dict(self.more)


def fit(options: Mapping[str, Any], known: Collection[str] | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options that a model has, and the names of those that it lacks.

    Args:
        options (`Mapping[str, Any]`): As litellm names them.
        known (`Collection[str]`, *optional*): The parameters of the model; `None` where nobody knows: then all are kept.
    """
    if known is None:
        return dict(options), ()
    kept = {name: value for name, value in options.items() if name in known or name in _EVERYWHERE}
    return kept, tuple(sorted(options.keys() - kept.keys()))


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens: of the prompt, of the answer, of what of the prompt came from the cache.

    Args:
        prompt (`float`), answer (`float`): As a self-hosted model is reckoned.
        cached (`float`, *optional*): Defaults to `prompt`.
    """

    prompt: float
    answer: float
    cached: float | None = None

    @classmethod
    def parse(cls, text: str) -> Price:
        """From `0.2/0.6` or, with the cache, `0.2/0.6/0.02`.

        Raises:
            SettingsError: it is no price.
        """
        try:
            numbers = [float(part) for part in text.split("/")]
            if len(numbers) not in (2, 3) or not all(0 <= number < 1e6 for number in numbers):
                raise ValueError
        except ValueError:
            remedy = "Write USD for a million tokens in and out: 0.2/0.6, or 0.2/0.6/0.02 with those from the cache."
            raise SettingsError(f"{text!r} is no price", "", remedy) from None
        return cls(*numbers)

    def of(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """For a call; `input_tokens` counts the whole prompt."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = max(input_tokens - cached_tokens, 0)
        return (fresh * self.prompt + cached_tokens * cached + output_tokens * self.answer) / 1e6


def prices(text: str) -> dict[str, Price]:
    """From a setting: `ollama/qwen2.5-coder:32b=0.2/0.6, vllm/org/m=0.1/0.3`; `*` is every model that has no other price.

    Raises:
        SettingsError: a price is none.
    """
    return {name: Price.parse(str(price)) for name, price in parse_pairs(text, "ML_INTERN_PRICES", plain=True).items()}


def parse_pairs(text: str, where: str, plain: bool = False) -> dict[str, Any]:
    """`a=1, b=two` or a JSON object; values as JSON where they are that, else as they stand."""
    text = text.strip()
    if text.startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise SettingsError(f"{where} is no JSON object", str(error), "Or write name=value, name=value.") from None
    pairs: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = (piece.strip() for piece in part.rpartition("="))
        if not sign or not name or not value:
            raise SettingsError(f"{where} cannot be read at {part!r}", "", "Write name=value, name=value.")
        try:
            pairs[name] = value if plain else json.loads(value)
        except ValueError:
            pairs[name] = value
    return pairs


def _check(name: str, value: Any, good: bool, remedy: str) -> None:
    if not good:
        raise SettingsError(f"The model option {name} cannot be {value!r}", "", remedy)


def _is_number(value: Any, low: float, high: float) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high)


def _is_whole(value: Any, low: int | None) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and (low is None or value >= low))
