"""What an executor must not leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from ml_intern.execution.egress import Egress
from ml_intern.execution.process import WorkerProcess


class Shelter:
    """What must not outlive the executor: worker, temporary folders, wake-up pipe. Knows nothing of the executor."""

    def __init__(self) -> None:
        self.worker: WorkerProcess | None = None
        self.folders: list[Path] = []
        self.egress: Egress | None = None
        self.waker = self._wake = -1
        self._process = os.getpid()

    def make_folder(self) -> Path:
        self.folders.append(Path(tempfile.mkdtemp(prefix="ml-intern-")).resolve())
        return self.folders[-1]

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
        if self.egress is not None:
            self.egress.close()
        if self.worker is not None:
            self.worker.close()
            self.worker = None
        for handle in (self.waker, self._wake):
            if handle >= 0:
                os.close(handle)
        self.waker = self._wake = -1
        while self.folders:
            shutil.rmtree(self.folders.pop(), ignore_errors=True)
