"""A program that has weights loaded and waits to be killed: run by a test, told where the weights are."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ml_intern.models.embedded import Engine
from ml_intern.models.embedded.gguf import facts
from ml_intern.models.embedded.memory import plan

found = facts(Path(sys.argv[1]))
engine = Engine(found, plan(found, 4 << 30, 1024), threads=1)
engine.start()
while engine.pid is None:
    time.sleep(0.01)
if sys.argv[2] == "forked" and os.fork() == 0:  # what was forked holds on to the pipe
    time.sleep(60)
    os._exit(0)
if sys.argv[2] != "loading":
    next(engine.answer({"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 3}))
print(engine.pid, flush=True)
time.sleep(60)
