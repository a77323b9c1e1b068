"""What an executor must not leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from ml_intern.execution.process import WorkerProcess


class Shelter:
    """What must not outlive the executor: worker, temporary workspace, wake-up pipe. Knows nothing of the executor."""

    def __init__(self) -> None:
        self.worker: WorkerProcess | None = None
        self.folder: Path | None = None
        self.waker = self._wake = -1
        self._process = os.getpid()

    def make_folder(self) -> Path:
        self.folder = Path(tempfile.mkdtemp(prefix="ml-intern-")).resolve()
        return self.folder

    def keep(self, worker: WorkerProcess) -> None:
        self.worker = worker
        if self.waker < 0:
            self.waker, self._wake = os.pipe()
            os.set_blocking(self.waker, False)
            os.set_blocking(self._wake, False)

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake, b"!")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.waker, 4096)

    def end_worker(self) -> None:
        if self.worker is not None:
            self.worker.kill()

    def close(self) -> None:
        if os.getpid() != self._process:  # a forked copy of the host owns nothing
            return
        self.end_worker()
        if self.worker is not None:
            self.worker.close()
            self.worker = None
        for handle in (self.waker, self._wake):
            if handle >= 0:
                os.close(handle)
        self.waker = self._wake = -1
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None
