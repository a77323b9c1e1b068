"""One session for programs (its events to a file), one for a person: `python canary_child.py HOME EVENTS TASK`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from ml_intern.cli.app import dispatch
from ml_intern.trace.sharing import Sharer

if __name__ == "__main__":
    home, events, task = sys.argv[1:]
    with Path(events).open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        first = dispatch([task, "--yes", "--json", "--home", home])
    second = dispatch([task, "--yes", "--home", home])
    sharer = Sharer(Path(home), print, wanted=True)
    for trace in (Path(home) / "sessions").glob("*.jsonl"):
        sharer.trace_changed(trace)
    print("ended with", first, second, sharer.close(60), flush=True)
