"""One streamed request, read on a thread of its own: a cancel must not wait for the server's next byte."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import ModelFailed

_END, _NOTHING_YET = object(), object()


def stream(complete: Callable[..., Any], request: dict[str, Any], cancelled: threading.Event) -> Iterator[Any]:
    """The chunks of one attempt. Leaving it early hangs up, which tells the server to stop.

    Args:
        complete (`Callable`): litellm's `completion`.
        request (`dict`): Its arguments.
        cancelled (`threading.Event`): Ends it at once.

    Raises:
        ModelFailed: it was cancelled; whatever `complete` raises.
    """
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    unwanted = threading.Event()
    target = contextvars.copy_context().run
    arguments = (_read, complete, request, arrived.put, unwanted)
    if cancelled.is_set():
        raise was_cancelled()
    threading.Thread(target=target, args=arguments, name="model-request", daemon=True).start()
    try:
        while True:
            try:
                item = arrived.get(timeout=0.1)
            except queue.Empty:
                item = _NOTHING_YET
            if cancelled.is_set():
                raise was_cancelled()
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            if item is not _NOTHING_YET:
                yield item
    finally:
        unwanted.set()


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


def was_cancelled() -> ModelFailed:
    return ModelFailed("The request was cancelled").of_kind("cancelled")
