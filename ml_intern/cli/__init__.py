"""The command line: it parses, shows and asks. Everything else is behind `MLIntern`."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Callable, Sequence

BROKEN_PIPE = 141
"""What a shell reports for a program that wrote to a closed pipe."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv (`Sequence[str]`, *optional*): Words after the program's name; defaults to those of this process.

    Returns:
        `int`: 0 success, 1 failure, 2 wrong usage, 3 budget or steps used up or no progress, 4 denied, 130 interrupted.
    """
    from .app import dispatch

    return guarded(lambda: dispatch(sys.argv[1:] if argv is None else argv))


def guarded(run: Callable[[], int]) -> int:
    """`run` as a well-behaved program: Ctrl-C and a closed pipe end it quietly."""
    gc.set_threshold(
        50_000, 10, 10
    )  # else a third of its start goes into looking for garbage in what it has just loaded
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its escape, not a crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python flushes stdout once more when it ends; nobody reads it any longer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code
