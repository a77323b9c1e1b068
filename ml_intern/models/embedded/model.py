"""EmbeddedModel: weights of one's own as a smolagents model, like any other endpoint."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from smolagents.models import MODEL_REGISTRY

from ...errors import ModelFailed
from ...offline import Offline, is_offline
from ..litellm import EndpointModel, LazyLitellm
from .download import download
from .engine import LOOK_SECONDS, Cancelled, Engine, EngineError
from .gguf import facts
from .memory import Plan, free_memory, plan
from .weights import PREFIX, Weights

MOST_TOKENS, LEAST_TOKENS = 4_096, 256
"""Tokens of an answer where nobody says how many: a quarter of the window within these."""


class EmbeddedModel(EndpointModel):
    """Weights that llama.cpp runs in a child process of ours: no server, no port.

    They are downloaded and loaded in the background from [`warm`] on, or when they are first asked. Models of the same
    weights share one process, which ends when all of them were closed.

    Args:
        model_id (`str`): `embedded/PATH.gguf`, `embedded/ORG/REPO` or `embedded/ORG/REPO:QUANTISATION`.
        window_tokens (`int`, *optional*): Of prompt and answer. Defaults to 32,768, or what the weights were trained
            with or the memory allows, if that is less.
        threads (`int`, *optional*): That compute. Defaults to a thread a core.
        free_bytes (`int`, *optional*): Memory that may be taken. Defaults to what this machine, or its container, has.
        kwargs: As for [`EndpointModel`]. Without `max_tokens` an answer has a quarter of the window, and 4,096 tokens at most.

    Raises:
        ModelFailed: (when called) there are no such weights, or the machine is too small; says what to do.
    """

    def __init__(
        self,
        model_id: str,
        api_base: str | None = None,
        api_key: str | None = None,
        window_tokens: int | None = None,
        threads: int | None = None,
        free_bytes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_id, api_base, api_key, **kwargs)
        self._store = Store.of(model_id, window_tokens, threads, free_bytes)
        self._store.take(self)

    def create_client(self) -> LazyLitellm:
        return EmbeddedLitellm()

    def look(self) -> str:
        """Looks whether the weights are there and fit into this machine.

        Returns:
            `str`: What has to be downloaded first, or nothing.
        """
        return self._store.look()

    def know(self) -> None:
        """They are our own."""

    def warm(self) -> None:
        """Begins to download and to load, in the background; failures are told when it is called."""
        self._store.tell = _telling(self)
        self._store.warm()

    def window(self) -> int | None:
        """Tokens of prompt and answer; `None` as long as the weights are not on this disk."""
        with contextlib.suppress(ModelFailed):  # its first request will tell
            return self._store.planned().window
        return None

    def close(self) -> None:
        """Frees the memory, unless another model has the same weights."""
        self._store.release(self)

    def _stream(self, request: dict[str, Any]) -> Iterator[Any]:
        self._store.take(self)  # after a close as well
        self._store.tell = _telling(self)
        if (
            not {"max_tokens", "max_completion_tokens"} & request.keys()
        ):  # a small model goes on to the end of its window
            request = {**request, "max_tokens": _room(self.window())}
        asked = _Asked(self._store, self.cancelled.is_set, float(self.request_timeout))
        try:
            yield from super()._stream({**request, "client": asked})
        finally:
            asked.unwanted.set()  # at once, and not when the next chunk comes: the next request is waiting

    def _with_retries(self, request: dict[str, Any], waits: Sequence[float], patience: float | None) -> Any:
        try:
            return super()._with_retries(request, waits, patience)
        except ModelFailed as failure:
            # Where the weights could not be asked at all, that is no refusal of the request: another model may answer it.
            for cause in _behind(failure):
                if isinstance(cause, ModelFailed):
                    raise cause from failure
                if isinstance(cause, EngineError) and cause.status == 424:
                    another = "Free memory, or choose other weights, or another model with LLM_ENDPOINT."
                    raise ModelFailed(f"{self.name} cannot be used", str(cause), another).of_kind(
                        "unsent"
                    ) from failure
            raise


def _room(window: int | None) -> int:
    """Tokens for an answer, in a window of so many."""
    return MOST_TOKENS if window is None else min(MOST_TOKENS, max(LEAST_TOKENS, window // 4))


def _telling(model: EmbeddedModel) -> Callable[[str], None]:
    """Tells a model's listener, without keeping the model."""
    asks = weakref.ref(model)

    def tell(line: str) -> None:
        found = asks()
        if found is not None and found.on_note:
            found.on_note(line)

    return tell


def _behind(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None and cause is not error:
        yield cause
        cause = cause.__cause__ or cause.__context__


class EmbeddedLitellm(LazyLitellm):
    """litellm that knows `embedded/...`."""

    @classmethod
    def load(cls) -> Any:
        module = LazyLitellm.load()
        from .provider import register

        register(lambda name: _Asked(Store.of(f"{PREFIX}{name}")))
        return module


def register() -> None:
    """Makes litellm itself know `embedded/...`, for whoever calls it without an `EmbeddedModel`. Loads litellm.

    Weights that are asked like that stay loaded as long as this process lives.
    """
    EmbeddedLitellm.load()


class _Asked:
    """One request's way to its weights, and what it wants to know of whoever asked."""

    def __init__(self, store: Store, cancelled: Callable[[], bool] = lambda: False, silence: float = 600.0) -> None:
        self.store, self.cancelled, self.silence = store, cancelled, silence
        self.unwanted = threading.Event()

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        def stop() -> bool:
            return self.unwanted.is_set() or self.cancelled()

        try:
            engine = self.store.engine(stop)
        except ModelFailed as error:
            raise EngineError(424, error.what) from error
        return engine.answer(request, stop, self.silence)


class Store:
    """What all models of the same weights share: the download, the plan, the engine."""

    _all: dict[tuple[Any, ...], Store] = {}
    _lock = threading.Lock()

    @classmethod
    def of(cls, name: str, window: int | None = None, threads: int | None = None, free: int | None = None) -> Store:
        with cls._lock:
            return cls._all.setdefault((name, window, threads, free), cls(name, window, threads, free))

    def __init__(self, name: str, window: int | None, threads: int | None, free: int | None) -> None:
        self.name, self.asked_window, self.threads, self.free = name, window, threads, free
        self.tell: Callable[[str], None] = lambda line: None
        self._users: set[int] = set()
        self._found: Path | None = None
        self._plan: Plan | None = None
        self._engine: Engine | None = None
        self._busy = threading.Lock()
        self._warming: threading.Thread | None = None

    def take(self, user: Any) -> None:
        if id(user) not in self._users:
            self._users.add(id(user))
            weakref.finalize(user, self._left, id(user))

    def release(self, user: Any) -> None:
        self._left(id(user))

    def _left(self, user: int) -> None:
        self._users.discard(user)
        engine = self._engine
        if not self._users and engine is not None:
            self._engine = self._plan = None  # planned anew for the memory that there is then
            engine.close()

    def look(self) -> str:
        if importlib.util.find_spec("xllamacpp") is None:
            raise ModelFailed(
                f"{self.name} needs llama.cpp",
                "the package xllamacpp is not installed",
                'Run `pip install "smolagents-ml-intern[embedded]"`.',
            ).of_kind("unsent")
        weights = Weights.of(self.name)
        if weights.on_disk() is not None:
            self.planned()
            return ""
        if weights.file is not None:
            raise ModelFailed(
                f"There is no file {weights.file}", remedy="Correct the path after `embedded/`."
            ).of_kind("missing")
        if is_offline():
            raise ModelFailed(str(Offline(f"Downloading {self.name}"))).of_kind("missing")
        return f"{self.name} is not on this disk: it is downloaded first."

    def planned(self) -> Plan:
        """How they are loaded, where they are on the disk."""
        if self._plan is None:
            first = self._found or Weights.of(self.name).on_disk()
            if first is None:
                raise ModelFailed(f"{self.name} is not on this disk").of_kind("missing")
            free = free_memory() if self.free is None else self.free
            self._plan = plan(facts(first), free, self.asked_window)
        return self._plan

    def warm(self) -> None:
        if self._warming is None or not self._warming.is_alive():
            self._warming = threading.Thread(target=self._warm, name="embedded-download", daemon=True)
            self._warming.start()

    def _warm(self) -> None:
        with contextlib.suppress(ModelFailed, Cancelled):  # whoever asks first is told
            engine = self.engine(lambda: not self._users)
            if self._users:
                engine.start()

    def engine(self, unwanted: Callable[[], bool] = lambda: False) -> Engine:
        """The engine, after the weights were downloaded where they have to be."""
        while not self._busy.acquire(timeout=LOOK_SECONDS):
            if unwanted():
                raise Cancelled
        try:
            engine = self._engine
            if engine is None:
                self.look()
                weights = Weights.of(self.name)
                first = weights.on_disk()
                if first is None:
                    first = download(weights, lambda line: self.tell(line), unwanted)
                self._found = first
                self._engine = engine = Engine(
                    facts(first), self.planned(), self.threads, lambda line: self.tell(line)
                )
            elif engine.pid is None:  # memory may have become short since it was planned
                free = free_memory() if self.free is None else self.free
                plan(engine.facts, free, engine.plan.window)
            return engine
        finally:
            self._busy.release()


MODEL_REGISTRY["EmbeddedModel"] = EmbeddedModel  # ty: ignore[invalid-assignment]
