"""The one thread that starts processes."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_orders: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
_spawner: threading.Thread | None = None
_spawner_lock = threading.Lock()


def spawn(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process from the one thread that lives as long as this process.

    `--die-with-parent` follows the *thread* that spawned: a jail started from a session's thread would die with it.
    """
    global _spawner
    with _spawner_lock:
        if _spawner is None or not _spawner.is_alive():
            _spawner = threading.Thread(target=_spawn_forever, name="ml-intern-spawner", daemon=True)
            _spawner.start()
    started: Future[subprocess.Popen[bytes]] = Future()
    _orders.put((started, lambda: subprocess.Popen(command, start_new_session=True, **options)))
    return started.result()


def _spawn_forever() -> None:
    while True:
        started, order = _orders.get()
        try:
            started.set_result(order())
        except OSError as error:
            started.set_exception(error)


def _forget_spawner() -> None:
    """A forked child has no spawner thread, and its copy of the lock may be held for ever."""
    global _orders, _spawner, _spawner_lock
    _orders, _spawner, _spawner_lock = queue.SimpleQueue(), None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_spawner)
