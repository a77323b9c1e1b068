"""A chat whose agent trains two small things, one after the other: `python tries.py HOME`."""

from __future__ import annotations

import sys

import errand

from ml_intern.cli import guarded

TRY = """
open("t.py", "w").write('import json, sys\\nprint("@metrics", json.dumps({{"step": 1, "eval_accuracy": {value}}}))')
job = training_job(operation="start", script="t.py", smoke=True, options={{"name": "{name}", "parent": {parent}}})
print(training_job(operation="wait", job_id=job["job_id"])["state"])
{name} = experiments()["runs"][-1]["id"]
"""
errand.ERRANDS["tries"] = [
    errand.action("I try.", TRY.format(name="first", value=0.5, parent=None)),
    errand.action("I try again.", TRY.format(name="second", value=0.75, parent="first")),
    errand.DONE,
]

if __name__ == "__main__":
    sys.exit(guarded(lambda: errand.main("tries", sys.argv[1], "--chat", "--yes")))
