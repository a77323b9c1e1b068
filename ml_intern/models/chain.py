"""Several models as one: each is asked when those before it fail, and the better one again once it is back.

What must never happen here: a request is lost because a server died; a bad request is sent from one service to the next; a
model is sent more than it reads; nobody is told that another model writes.

litellm's Router is not used. It was measured (1.106.2, its time beside the same streamed call): 5.6 ms a call and 1.6 s to
make one, where 2 ms are allowed; a stream that breaks off is raised, not sent again and not passed on (a killed server is just
that); a bad request (400) went on to the second model; which model wrote an answer is not told before it is whole; and the
prompt is not fitted to a smaller window, as it does not know how. The order of events is pydantic-ai's `FallbackModel`, the
cool-down the Router's.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from smolagents.models import MODEL_REGISTRY, ChatMessage, ChatMessageStreamDelta
from smolagents.tools import Tool

from ..errors import ModelFailed
from .endpoint import EMBEDDED, Endpoint
from .litellm import EndpointModel
from .servers import LocalServer

COOL_SECONDS = {
    "unreachable": 15.0,
    "failed": 30.0,
    "rate": 30.0,
    "late": 60.0,
    "empty": 60.0,
    "missing": 300.0,
    "unsent": 600.0,
    "key": 600.0,
    "unpaid": 600.0,
}
"""How long a model is left alone after it failed in these ways, doubled each time; in all others the request is at fault."""
PASSING = ("unreachable", "failed", "late", "empty")
"""What may be over before its time: one that failed so is asked as a last resort."""
LONGEST_COOL = 900.0
PATIENCE = 60.0
"""Seconds of `Retry-After` that are waited out with one model before the next one is asked."""
KNOCK_SECONDS = 0.3


@dataclass(frozen=True)
class Switch:
    """From here on another model writes: which, after which, and why. `back` where it is a better one that answers again."""

    model: str
    before: str
    why: str
    back: bool = False


class _Link:
    """A model of the chain, and until when it is left alone."""

    def __init__(self, model: EndpointModel) -> None:
        self.model = model
        self.until, self.times, self.why, self.kind = 0.0, 0, "", ""

    def fail(self, failure: ModelFailed, scale: float) -> None:
        cool = COOL_SECONDS[failure.kind] * scale * 2 ** min(self.times, 10)
        self.until = time.monotonic() + max(min(cool, LONGEST_COOL), failure.wait_seconds)
        self.times, self.kind = self.times + 1, failure.kind
        self.why = f"{failure.what} ({failure.why})" if failure.why else failure.what

    def heal(self) -> None:
        self.until, self.times, self.why, self.kind = 0.0, 0, "", ""

    def knock(self) -> bool:
        """Whether somebody is there: a connection to a local server, which costs nothing; a provider is taken to be."""
        parts = urlsplit(self.model.api_base or "")
        if LocalServer.of(str(self.model.model_id)) is None or not parts.hostname:
            return True
        if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
            return True  # only the proxy knows
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), timeout=KNOCK_SECONDS).close()
        except OSError:
            return False
        return True


class ChainModel(EndpointModel):
    """Asks the first model that is well. May be shared by agents on several threads.

    Args:
        links (`Sequence[EndpointModel]`): The models, the best one first.
        on_switch (`Callable[[Switch], None]`, *optional*): Told when another model than before has answered, before its answer
            is returned.
        cool_scale (`float`, defaults to 1): Multiplies the times that a model is left alone after it failed.

    Raises:
        ModelFailed: (when called) all of them failed, the request is at fault, or it is longer than the model that is left
            can read: that is said in words that [`~ml_intern.context.overflow.overflow_of`] knows, so that the conversation
            is fitted and sent again.
    """

    def __init__(
        self,
        links: Sequence[EndpointModel],
        on_switch: Callable[[Switch], None] | None = None,
        cool_scale: float = 1.0,
    ) -> None:
        first = links[0]
        self._links = [_Link(model) for model in links]
        super().__init__(str(first.model_id), first.api_base, name=", ".join(model.name for model in links))
        self.kwargs = first.kwargs
        self.on_switch, self.cool_scale = on_switch, cool_scale
        self._writer = self._links[0]
        self._state = threading.Lock()
        for model in links:
            model.cancelled = self.cancelled
            model.on_delta, model.on_retry, model.on_note = self._delta, self._retry, self._note

    @property
    def models(self) -> tuple[EndpointModel, ...]:
        return tuple(link.model for link in self._links)

    def to_dict(self) -> dict[str, Any]:
        return {"links": [{**link.model.to_dict()} for link in self._links]}

    @classmethod
    def from_dict(cls, model_dictionary: dict[str, Any]) -> ChainModel:
        return cls([_kind_of(str(link["model_id"]))(**link) for link in model_dictionary["links"]])

    def generate(
        self,
        messages: list[ChatMessage | dict],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Tool] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        failures: list[ModelFailed] = []
        for link in self._in_order():
            _refuse_too_long(link.model, messages)
            if failures:
                self._retry(f"{failures[-1].what} ({failures[-1].why}); {link.model.name} is asked instead")
            waits = () if link.times else None  # it comes back: one try tells
            try:
                answer = link.model.answer(
                    messages, stop_sequences, response_format, tools_to_call_from, waits, PATIENCE, **kwargs
                )
            except ModelFailed as failure:
                if failure.kind not in COOL_SECONDS or self.cancelled.is_set():
                    raise
                with self._state:
                    link.fail(failure, self.cool_scale)
                failures.append(failure)
                continue
            self._wrote(link, failures)
            return answer
        if len(failures) == 1:
            raise failures[0]
        why = "; ".join(f"{failure.what} ({failure.why})" for failure in failures)
        raise ModelFailed("None of the models answers", why, failures[0].remedy).of_kind("failed") from failures[0]

    def generate_stream(self, messages: list[ChatMessage | dict], *args: Any, **kwargs: Any) -> Generator[Any]:
        """The answer in one piece: what was streamed of one that broke off cannot be taken back here. See `on_delta`."""
        answer = self.generate(messages, *args, **kwargs)
        yield ChatMessageStreamDelta(content=str(answer.content or ""), token_usage=answer.token_usage)

    def window(self) -> int | None:
        """Tokens that the model reads that will be asked next."""
        with self._state:
            next_one = self._well()[0]
        return next_one.model.window()

    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float | None:
        """What the next call can cost at most: any model from the next one on may have to answer it."""
        with self._state:
            links = self._well()
        known = [link.model.price(input_tokens, output_tokens, cached_tokens) for link in links]
        return max((price for price in known if price is not None), default=None)

    def written_by(self, model_id: str) -> EndpointModel:
        """The model of that id, whose price an answer has."""
        return next((link.model for link in self._links if link.model.model_id == model_id), self._links[0].model)

    def look(self) -> str:
        """Looks at all of them at once; those that cannot work are left alone at first.

        Raises:
            ModelFailed: none of them can.
        """
        with ThreadPoolExecutor(len(self._links), "look-at-model") as pool:
            found = list(pool.map(_look, self.models))
        notes, failures = [], []
        for link, (note, failure) in zip(self._links, found, strict=True):
            if failure is None:
                notes += [note] if note else []
                continue
            failures.append(failure)
            notes.append(f"{link.model.name} is passed over for now: {failure.what} ({failure.why}). {failure.remedy}")
            with self._state:
                link.fail(failure, self.cool_scale)
        if len(failures) == len(self._links):
            raise failures[0]
        return "\n".join(notes)

    def know(self) -> None:
        for link in self._links:
            link.model.know()

    def warm(self) -> None:
        with self._state:
            first = self._well()[0]
        first.model.warm()

    def close(self) -> None:
        for link in self._links:
            link.model.close()

    def _in_order(self) -> list[_Link]:
        """Those that are well, the best one first, and as a last resort the others; see [`_well`]."""
        now = time.monotonic()
        for link in self._links:
            with self._state:
                due = 0 < link.until <= now
            if link.until == 0 or (due and link.knock()):
                break  # those after it are asked only if it fails
            if due:
                with self._state:
                    still = ModelFailed(f"Nothing answers for {link.model.name}").of_kind("unreachable")
                    link.fail(still, self.cool_scale)
        with self._state:
            well = self._well()
            # Better asked again before its time than nobody: it may be back already.
            return well + [link for link in self._links if link not in well and link.kind in PASSING]

    def _well(self) -> list[_Link]:
        """Where none is, all of them, the one that was to come back soonest first."""
        now = time.monotonic()
        well = [link for link in self._links if link.until <= now]
        return well or sorted(self._links, key=lambda link: link.until)

    def _wrote(self, link: _Link, failures: list[ModelFailed]) -> None:
        with self._state:
            link.heal()
            before, self._writer = self._writer, link
        if before is link or self.on_switch is None:
            return
        back = self._links.index(link) < self._links.index(before)
        why = "it answers again" if back else before.why or (failures[-1].what if failures else "")
        self.on_switch(Switch(str(link.model.model_id), str(before.model.model_id), why, back))

    def _delta(self, text: str) -> None:
        if self.on_delta:
            self.on_delta(text)

    def _retry(self, text: str) -> None:
        if self.on_retry:
            self.on_retry(text)

    def _note(self, text: str) -> None:
        if self.on_note:
            self.on_note(text)


def make_model(endpoints: Sequence[Endpoint], window: int | None = None, **options: Any) -> EndpointModel:
    """The model for what `LLM_ENDPOINT` names: one, or a chain of several.

    Args:
        endpoints (`Sequence[Endpoint]`): As [`resolve_all`] finds them.
        window (`int`, *optional*): Tokens that servers and weights are to read which can be told.
        options: As for [`EndpointModel`].
    """
    made = [_make(endpoint, window, options) for endpoint in endpoints]
    return made[0] if len(made) == 1 else ChainModel(made)


def _make(endpoint: Endpoint, window: int | None, options: dict[str, Any]) -> EndpointModel:
    if endpoint.embedded:
        options = {"window_tokens": window, **options}
    elif window is not None and endpoint.server is not None and endpoint.server.prefix == "ollama":
        options = {"num_ctx": window, **options}
    return _kind_of(endpoint.model_id).of(endpoint, **options)


def _kind_of(model_id: str) -> type[EndpointModel]:
    if not model_id.startswith(EMBEDDED):
        return EndpointModel
    from .embedded import EmbeddedModel

    return EmbeddedModel


def _look(model: EndpointModel) -> tuple[str, ModelFailed | None]:
    try:
        return model.look(), None
    except ModelFailed as failure:
        return "", failure if failure.kind in COOL_SECONDS else failure.of_kind("unsent")


def _refuse_too_long(model: EndpointModel, messages: Sequence[ChatMessage | dict]) -> None:
    """Before it is sent: some servers cut off what they cannot read, and say nothing."""
    window = model.window()
    if window is None:
        return
    tokens = round(1.15 * sum(map(_weigh, messages)))
    if tokens > window:
        raise ModelFailed(
            f"The conversation is longer than {model.name} can read",
            f"some {tokens} tokens exceed the context window of {window}",
            "Compact it, or choose a model that reads more.",
        ).of_kind("overflow")


def _weigh(message: ChatMessage | dict) -> float:
    content = message.get("content") if isinstance(message, dict) else message.content
    texts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content or ()]
    return 4 + sum(len(text) / 4 if text.isascii() else _weigh_wide(text) for text in texts)


def _weigh_wide(text: str) -> float:
    return len(text) / 4 + (len(text.encode("utf-8", "surrogatepass")) - len(text)) / 2


MODEL_REGISTRY["ChainModel"] = ChainModel  # ty: ignore[invalid-assignment]
