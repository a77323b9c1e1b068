"""What runs the cells of the `python_sandbox` tool on this machine: a jail of their own, with no way to any network."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from smolagents.local_python_executor import InterpreterError

from ml_intern.execution import notebook
from ml_intern.execution.executor import CodeInterrupted, JailExecutor, WorkerLost
from ml_intern.execution.jail import Jail
from ml_intern.execution.workspace import Workspace

STREAM_CHARACTERS = 1_000_000
REPORTS = 10_000
KEPT = "Variables are kept."
LOST = "Python had to be started anew: variables are gone, files are still there."
START = """
if "_notebook" not in globals():
    _module = {"__name__": "notebook"}
    exec(compile(_notebook_source, "<notebook>", "exec"), _module)
    _notebook = _module["Notebook"](_emit)
"""


class JailRunner:
    """Runs notebook cells in a jail of its own, not the agent's: other variables, other files, no network, no tools.

    Nothing starts before the first cell. Files lie in a temporary folder.

    Args:
        unsafe_local (`bool`, defaults to `False`): Where no jail works, run cells with your own rights.
        jail (`Jail`, *optional*): Which jail to use; the strongest that works here if none is given.
    """

    def __init__(self, *, unsafe_local: bool = False, jail: Jail | None = None) -> None:
        self.unsafe_local, self._jail = unsafe_local, jail
        self._executor: JailExecutor | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._reports: list[dict[str, Any]] = []
        self._room: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def workspace(self) -> Workspace:
        """The cells' folder."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="ml-intern-cells-")
        return Workspace(self._folder.name)

    def _ready(self) -> JailExecutor:
        if self._executor is None:
            self._executor = JailExecutor(
                self.workspace, additional_functions={"_emit": self._collect}, network="none",
                unsafe_local=self.unsafe_local, jail=self._jail,
            )  # fmt: skip
            source = Path(notebook.__file__).read_text(encoding="utf-8")
            self._executor.send_variables({"_notebook_source": source})
        return self._executor

    def run(self, code: str, seconds: float) -> list[dict[str, Any]]:
        """Runs a cell.

        Args:
            code (`str`): The cell.
            seconds (`float`): Time it may take; it is interrupted then, and killed three seconds later.

        Returns:
            `list[dict]`: Reports as E2B's code interpreter gives them. A cell that was stopped has an `error` named
            `TimeoutError`, `KeyboardInterrupt` or `ProcessLost` as its last one, which says what became of variables.
        """
        with self._lock:
            self._reports, self._room = [], {"stdout": STREAM_CHARACTERS, "stderr": STREAM_CHARACTERS}
            executor = self._ready()
            executor.timeout_seconds = seconds
            started, name, said = time.monotonic(), "", ""
            try:
                printed = executor(f"{START}_notebook.run({code!r})").logs
            except InterpreterError as error:
                printed = executor.state["_print_outputs"]
                lost = isinstance(error, WorkerLost) or (isinstance(error, CodeInterrupted) and error.state_lost)
                if isinstance(error, CodeInterrupted):
                    name, said = "KeyboardInterrupt", "It was interrupted."
                elif time.monotonic() - started >= seconds:
                    name, said = "TimeoutError", f"It took more than {seconds:g} seconds and was stopped."
                elif lost:
                    name, said = "ProcessLost", str(error).partition(" The Python process was restarted")[0]
                else:
                    raise  # the notebook itself failed
                if lost:
                    executor.cleanup()
                    self._executor = None
                said += f" {LOST if lost else KEPT}"
                self._reports = [one for one in self._reports if one["type"] != "error"]
                self._reports.append({"type": "error", "name": name, "value": said, "traceback": ""})
            if printed:  # what children of the process wrote
                self._reports.insert(0, {"type": "stdout", "text": printed})
            return self._reports

    def _collect(self, report: dict[str, Any]) -> None:
        """A report, from code: it may be anything."""
        if not isinstance(report, dict) or len(self._reports) >= REPORTS:
            return
        kind = report.get("type")
        if kind in self._room:
            text = str(report.get("text"))
            room, self._room[kind] = self._room[kind], self._room[kind] - len(text)
            if room > 0:
                self._reports.append({"type": kind, "text": text[:room]})
            if room > 0 >= self._room[kind]:
                note = "\n(the rest of it was left out)\n"
                self._reports.append({"type": kind, "text": note})
        elif kind in ("result", "error"):
            self._reports.append(report)

    def restart(self) -> None:
        """Forgets variables and files."""
        with self._lock:
            self._end()

    def interrupt(self) -> None:
        """Stops the cell that runs, from any thread."""
        if self._executor is not None:
            self._executor.interrupt()

    def close(self) -> None:
        """Ends what runs and removes the files."""
        self.interrupt()
        self.restart()

    def _end(self) -> None:
        if self._executor is not None:
            self._executor.cleanup()
            self._executor = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    # Files

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of every file in the cells' folder."""
        workspace, found = self.workspace, {}
        for name in workspace.walk():
            about = (workspace.root / name).lstat()
            found[name] = about.st_size, about.st_mtime_ns
        return found

    def read(self, path: str, limit: int) -> bytes:
        return self.workspace.read_bytes(path, limit)

    def write(self, path: str, data: bytes) -> None:
        self.workspace.write_bytes(path, data)
