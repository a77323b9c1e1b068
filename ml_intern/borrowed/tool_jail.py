"""ToolJail: where the code of one tool from the Hub runs."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

from ..errors import InternError
from ..execution import JailExecutor, find_jail
from .connection import LOOK_SECONDS, CallCancelled
from .stopping import stopped

CALL_SECONDS = 600.0
_LOAD = """
if "_tool" not in globals():
    _module = {"__name__": "dynamic_tool"}
    exec(compile(_source, "tool.py", "exec"), _module)
    _tool = _module[_class]()
_tool(**_given)
"""


class ToolJail:
    """Where the code of one tool runs; started with its first call."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options, self._executor = options, None
        self._lock = threading.Lock()

    def run(self, variables: dict[str, Any]) -> Any:
        with self._lock:
            if self._executor is None:
                if find_jail(unsafe_local=True).kind == "none":
                    raise InternError(
                        "A tool from the Hub cannot run here",
                        "its code needs a jail, and none works",
                        "apt install bubblewrap",
                    )
                self._executor = JailExecutor(**self._options, timeout_seconds=CALL_SECONDS)
            executor, done = self._executor, []
            executor.send_variables(variables)

            def work() -> None:
                try:
                    done.append((executor(_LOAD).output, None))
                except Exception as error:  # noqa: BLE001 - carried over to the thread that waits for it
                    done.append((None, error))

            thread = threading.Thread(target=contextvars.Context().run, args=(work,), name="hub-tool", daemon=True)
            thread.start()
            told = False
            while thread.is_alive():
                thread.join(LOOK_SECONDS)
                if not told and stopped():
                    told = True
                    executor.interrupt()
        value, error = done[0]
        if told:
            raise CallCancelled("A tool from the Hub was stopped")
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        if self._executor is not None:
            self._executor.interrupt()
            self._executor.cleanup()
