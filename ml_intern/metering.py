"""Money set aside before a model is asked, and counted after: for any model, and for agents that know nothing of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from smolagents.models import ChatMessage, MessageRole, TokenUsage

from .budget import BudgetUsedUp, Reservation, SpendLedger
from .events import Usage
from .models import call_usage
from .models.usage import CallUsage, Priced
from .thinking import Thinking, thinking_of

EXPECTED_OUTPUT, MOST_OUTPUT = 1_000, 16_000
"""Tokens that an answer is taken to have before there was one; and at most, where the model sets no limit."""
PER_MESSAGE = 4


@dataclass
class Estimator:
    """What the next call of a model will cost, from the calls before it.

    Attributes:
        longest (`int`): Tokens of the longest answer so far.
        cached (`int`): Tokens of the last prompt that came from the provider's cache: so many will again.
    """

    longest: int = 0
    cached: int = 0

    def saw(self, output_tokens: int, cached_tokens: int) -> None:
        self.longest, self.cached = max(self.longest, output_tokens), cached_tokens

    def estimate(self, model: Any, input_tokens: int) -> tuple[float | None, float | None]:
        """What the call is expected to cost and what it can cost at most, in USD.

        Returns:
            `tuple`: `(None, 0.0)` for a model of unknown price: there is nothing to set aside.
        """
        if not isinstance(model, Priced):
            return None, 0.0
        most = _most_output(model, self.longest)
        expected = model.price(
            input_tokens, min(self.longest or EXPECTED_OUTPUT, most), min(self.cached, input_tokens)
        )
        worst = model.price(math.ceil(input_tokens * 1.25) + 500, most, 0)
        if expected is None or worst is None:
            return None, 0.0
        return expected, max(expected, worst)


class Purse:
    """The money of one agent: sets aside what the next call of its model may take, and counts what it took.

    Args:
        ledger (`Callable[[], SpendLedger]`), model (`Callable[[], Model]`): The agent's, as they are at the time.
        tokens (`Callable[[], int]`): Of the agent's next prompt.
        stopped (`Callable[[], bool]`): Whether the agent is to stop.
    """

    def __init__(
        self,
        ledger: Callable[[], SpendLedger],
        model: Callable[[], Any],
        tokens: Callable[[], int],
        stopped: Callable[[], bool],
    ) -> None:
        self._ledger, self._model, self._tokens, self._stopped = ledger, model, tokens, stopped
        self._estimator = Estimator()
        self._step: Reservation | None = None

    def reserve(self, kind: str, keeps_word: bool = False) -> Reservation:
        """For one call of the model; with `keeps_word` another one, the last, has to fit after it.

        Raises:
            BudgetUsedUp: it does not fit.
        """
        ledger = self._ledger()
        if not ledger.limited:
            return ledger.reserve(kind, None, 0.0)
        expected, worst = self._estimator.estimate(self._model(), self._tokens())
        keep = (expected or 0.0) if keeps_word and ledger.usage.output_tokens else 0.0
        return ledger.reserve(kind, expected, worst, keep, self._stopped)

    def settle(
        self, reserved: Reservation, tokens: TokenUsage | None, message: ChatMessage | None
    ) -> tuple[CallUsage, Usage]:
        """The model has answered. Returns what it took, and what was spent in all."""
        used = call_usage(self._model(), tokens, message)
        self._estimator.saw(used.output_tokens, used.cached_tokens)
        counts = (used.input_tokens, used.output_tokens, used.cached_tokens, used.reasoning_tokens)
        return used, reserved.settle(used.cost_usd, *counts)

    def reserve_step(self) -> str:
        """For the next step. Returns why there is none, `""` where there is."""
        try:
            self._step = self.reserve("a step", keeps_word=True)
        except BudgetUsedUp as error:
            return str(error)
        return ""

    def take_step(self) -> Reservation:
        """What was set aside for the step that begins."""
        reserved, self._step = self._step or self.reserve("a step"), None
        return reserved


def _most_output(model: Any, longest: int) -> int:
    """Tokens that an answer can have; three attempts at it are paid at most once, as those that fail have no answer."""
    options = model.__dict__.get("kwargs") or {}
    limit = options.get("max_tokens") or options.get("max_completion_tokens")
    return limit if isinstance(limit, int) and limit > 0 else max(MOST_OUTPUT, 2 * longest)


class MeteredModel:
    """A model as an agent sees it that is not ours: asked only when money was set aside, told of to whom it concerns.

    It reports the model's own class, so that `isinstance` sees the model.

    Args:
        model (`Model`): Any smolagents model.
        ledger (`SpendLedger`): Where its calls are counted.
        stopped (`Callable[[], bool]`): Whether the agent is to stop: then the model is not asked any more.
        answered (`Callable[[ChatMessage, CallUsage, Usage], None]`): Told of every answer to a step.
        heard (`Callable[[], list[ChatMessage]]`): Asked before every step for what the agent is to be told meanwhile.
        paid (`Callable[[float | None, tuple[Thinking, ...]], None]`): Told what any other call took, for a plan or a last
            word, and what the model thought.
    """

    def __init__(
        self,
        model: Any,
        ledger: SpendLedger,
        stopped: Callable[[], bool],
        answered: Callable[[ChatMessage, CallUsage, Usage], None],
        heard: Callable[[], list[ChatMessage]] = list,
        paid: Callable[[float | None, tuple[Thinking, ...]], None] = lambda cost, thinking: None,
    ) -> None:
        self.metered, self.ledger, self.stopped, self.answered = model, ledger, stopped, answered
        self.heard, self.paid = heard, paid
        self.estimator = Estimator()

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return type(self.metered)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by `copy` and `pickle` before there is a model
            raise AttributeError(name)
        return getattr(self.__dict__["metered"], name)

    def __call__(self, *args: Any, **kwargs: Any) -> ChatMessage:
        return self.generate(*args, **kwargs)

    def generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> ChatMessage:
        messages = self._with_words(messages, kwargs)
        reservation = self._reserve(messages)
        try:
            message = self.metered.generate(messages, *args, **kwargs)
        except BaseException:
            reservation.release()
            raise
        self._settle(reservation, message.token_usage, message, kwargs)
        return message

    def generate_stream(self, messages: list[Any], *args: Any, **kwargs: Any) -> Generator[Any]:
        messages = self._with_words(messages, kwargs)
        reservation, text, output, inputs, whole = self._reserve(messages), "", 0, 0, False
        try:
            for delta in self.metered.generate_stream(messages, *args, **kwargs):
                text += delta.content or ""
                if delta.token_usage:
                    inputs, output = delta.token_usage.input_tokens, output + delta.token_usage.output_tokens
                yield delta
            whole = True
        finally:
            if whole or inputs or output:
                tokens = TokenUsage(inputs, output) if inputs or output else None
                self._settle(reservation, tokens, ChatMessage(MessageRole.ASSISTANT, text), kwargs if whole else {})
            else:
                reservation.release()

    def _with_words(self, messages: list[Any], options: dict[str, Any]) -> list[Any]:
        return [*messages, *self.heard()] if _of_a_step(options) else messages

    def _reserve(self, messages: list[Any]) -> Reservation:
        if self.stopped():
            raise InterruptedError("The agent was interrupted.")
        if not self.ledger.limited:
            return self.ledger.reserve("model", None, 0.0)
        tokens = sum(_characters(message) // 3 + PER_MESSAGE for message in messages)
        expected, worst = self.estimator.estimate(self.metered, tokens)
        return self.ledger.reserve("model", expected, worst, cancelled=self.stopped)

    def _settle(
        self, reservation: Reservation, tokens: TokenUsage | None, message: ChatMessage, options: dict[str, Any]
    ) -> None:
        used = call_usage(self.metered, tokens, message)
        self.estimator.saw(used.output_tokens, used.cached_tokens)
        counts = (used.input_tokens, used.output_tokens, used.cached_tokens, used.reasoning_tokens)
        spent = reservation.settle(used.cost_usd, *counts)
        if _of_a_step(options):
            self.answered(message, used, spent)
        else:
            self.paid(used.cost_usd, thinking_of(message))


def metered(model: Any) -> Any:
    """The model itself."""
    return model.metered if type(model) is MeteredModel else model


def _of_a_step(options: dict[str, Any]) -> bool:
    """Whether a call is for a step; plans and last words are told of otherwise."""
    return "Observation:" in (options.get("stop_sequences") or ())


def _characters(message: Any) -> int:
    content = message.content if isinstance(message, ChatMessage) else message.get("content")
    if isinstance(content, list):
        return sum(len(part.get("text") or "") + (0 if part.get("type") == "text" else 4_000) for part in content)
    return len(content or "")
