"""A program on a terminal of its own: what a person sees, and what they type."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self

from cli.forks import FORKS, Forked

STAGE = Path(__file__).with_name("stage.py")
ERRAND = Path(__file__).with_name("errand.py")
"""What takes a second to import; see `forks.py`."""


class Terminal:
    """Runs a program with a pseudo-terminal as its controlling terminal, so that `\\x03` is Ctrl-C.

    Args:
        words (`str`): The command line after `python`.
        columns (`int`, defaults to 80): Width.
        environment (`str`): Variables on top of this process's.
    """

    def __init__(self, *words: str, columns: int = 80, **environment: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        without = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "EDITOR", "VISUAL")
        inherited = {k: v for k, v in os.environ.items() if k not in without}
        # No terminal answers here when it is asked where its cursor is.
        own = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process: Forked | subprocess.Popen[bytes]
        if words[0] == str(ERRAND):
            self.process = FORKS.start(words, [slave] * 3, inherited | own | environment, terminal=True)
        else:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                env=inherited | own | environment,
            )
        os.close(slave)
        self.raw = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    @property
    def screen(self) -> str:
        """Everything written so far without the sequences that colour and move."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw).replace("\r", "")

    def read(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], min(left, 0.05))[0]:
                try:
                    self.raw += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:  # the program has ended
                    return

    def until(self, text: str, seconds: float = 10.0) -> str:
        """Waits for `text` to be on the screen."""
        end = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < end, f"{text!r} did not appear in:\n{self.screen[-3000:]}"
            assert self.process.poll() is None or self._drained(), f"ended without {text!r}:\n{self.screen[-3000:]}"
            self.read(0.05)
        return self.screen

    def _drained(self) -> bool:
        before = len(self.raw)
        self.read(0.1)
        return len(self.raw) > before

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self, seconds: float = 10.0) -> int:
        """Reads on until the program has ended; its exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running:\n{self.screen[-3000:]}"
            self.read(0.05)
        self.read(0.1)
        return self.process.returncode
