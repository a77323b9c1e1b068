"""The command line on the real engine with a scripted model: `python errand.py NAME HOME [--json] [--yes] [--chat]`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_intern.cli import guarded
from ml_intern.cli.run import Again, Order, run_with
from ml_intern.events import Warned
from ml_intern.testing.models import ScriptedModel


def action(thought: str, code: str) -> str:
    return f"{thought}\n<code>\n{code}\n</code>"


PUBLISH = """
import os
os.makedirs("out")
open("out/README.md", "w").write("# A data set")
print(hub_push("out", "me/tiny", repo_type="dataset"))
"""
TRAIN = """
open("t.py", "w").write("import time\\ntime.sleep(600)")
job = training_job(operation="start", script="t.py", smoke=True)
print("job", job["job_id"], flush=True)
training_job(operation="wait", job_id=job["job_id"])
"""
DONE = action("That is all.", "final_answer('forty-two')")
ERRANDS = {
    "works": [
        action("I count.", "n = 0\nfor n in range(43):\n    print('line', n)"),
        action("I divide.", "1 / 0"),
        DONE,
    ],
    "publishes": [action("I publish.", PUBLISH), DONE],
    "never-ends": [
        action("I wait.", "import time\nprint('here I am', flush=True)\nwhile True:\n    time.sleep(0.05)")
    ],
    "talks": [
        action(
            "I count.", "import time\nfor n in range(300):\n    print('line', n, flush=True)\n    time.sleep(0.01)"
        ),
        lambda messages: action("I answer.", f"final_answer('heard: {'be quick' in said(messages)}')"),
        action("I remember.", "kept = 'a value'\nfinal_answer(kept)"),
        action("Again.", "final_answer('again ' + kept)"),
    ],
    "asks": [
        action("I ask.", "said = ask_user('Which licence?', choices=['mit', 'apache-2.0'])['answer']"),
        action("I ask again.", "said += ask_user('And who is the author?')['answer']\nfinal_answer(said)"),
    ],
    "grants": [
        action("I ask once.", "print(propose_grant(['hub_push:me/*:private', 'send'], 'to publish', budget_usd=2))"),
        action("I am done.", "final_answer('granted')"),
    ],
    "anything": [
        action("I wait.", "import time\ntime.sleep(0.5)"),
        action("I publish.", PUBLISH.replace('makedirs("out")', 'makedirs("out", exist_ok=True)')),
        action("I ask.", "print(ask_user('what?', choices=['a', 'b']))"),
        DONE,
    ]
    * 100,
    "again": [action("I look.", "final_answer('still ' + kept)")],
    "keeps": [action("I keep.", "kept = 'a value'\nfinal_answer(kept)")],
    "trains": [action("I train.", TRAIN)],
    "too-long": [action("Once.", "1"), action("Twice.", "2"), "I have to stop here."],
}


def said(messages: list[Any]) -> str:
    return "\n".join(str(message.content) for message in messages)


# Whoever runs this may have a token: nothing of a test leaves the machine.
os.environ.update(HF_ENDPOINT="http://127.0.0.1:9", ML_INTERN_SHARE_TRACES="0")


def main(name: str, home: str, *flags: str) -> int:
    order = Order(
        task=f"An errand that {name}",
        model=ScriptedModel(ERRANDS[name]),
        home=Path(home),
        max_iterations=2 if name == "too-long" else 20,
        yes="--yes" in flags,
        json="--json" in flags,
        budget_usd=5.0 if "--budget" in flags else None,
        overnight="--overnight" in flags,
        allow=tuple(flag.removeprefix("--allow=") for flag in flags if flag.startswith("--allow=")),
    )
    again = next((flag.removeprefix("--resume=") for flag in flags if flag.startswith("--resume=")), None)
    if again is not None:
        text = next((flag.removeprefix("--say=") for flag in flags if flag.startswith("--say=")), "")
        order = replace(order, task=text, again=Again(again))
    if "--chat" in flags:
        from ml_intern.cli.chat import run

        return run(replace(order, task=""))
    return run_with(order, lambda show: show(Warned(text="told from outside")) if "--lend" in flags else None)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(*sys.argv[1:])))
