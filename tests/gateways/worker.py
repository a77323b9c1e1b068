"""A process that works on a session and lets others reach it: `python worker.py NAME HOME`. Prints how the turn ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ml_intern import MLIntern
from ml_intern.gateways.control import ControlServer
from ml_intern.testing.models import ScriptedModel


def action(code: str) -> str:
    return f"I go on.\n<code>\n{code}\n</code>"


def heard(messages: list[Any]) -> str:
    said = "\n".join(str(message.content) for message in messages)
    return action(f"final_answer('heard: {'be quick' in said}')")


PUBLISH = """
import os
os.makedirs("out", exist_ok=True)
open("out/README.md", "w").write("# A data set")
try:
    hub_push("out", "me/tiny", repo_type="dataset")
except Exception as error:
    print(error)
"""
SCRIPTS: dict[str, list[Any]] = {
    "publishes": [action(PUBLISH), action("final_answer('over')")],
    "asks": [action("final_answer(ask_user('Which licence?', choices=['mit', 'apache-2.0'])['answer'])")],
    "listens": [action("import time\nprint('at work', flush=True)\ntime.sleep(2)"), heard],
    "never-ends": [action("import time\nprint('at work', flush=True)\nwhile True: time.sleep(0.05)")],
}

# Whoever runs this may have a token: nothing of a test leaves the machine.
os.environ.update(HF_ENDPOINT="http://127.0.0.1:9", ML_INTERN_SHARE_TRACES="0")


def main(name: str, home: str) -> None:
    with MLIntern(ScriptedModel(SCRIPTS[name]), home=Path(home)) as intern, ControlServer(intern):
        session = intern.submit(f"A task that {name}")
        print(session.id, flush=True)
        outcome = session.wait(60)
        print(outcome.state if outcome else "still at it", outcome.answer if outcome else "", flush=True)
        sys.stdin.read()  # until it is told to end


if __name__ == "__main__":
    main(*sys.argv[1:])
