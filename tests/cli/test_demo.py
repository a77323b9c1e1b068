"""The demo, as `make demo` runs it: recorded turns, everything else real."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from ml_intern.trace import note_of, read_rows

pytestmark = pytest.mark.skipif(  # not imported: each worker would spend seconds on it only to look at this file
    any(importlib.util.find_spec(name) is None for name in ("sklearn", "matplotlib")),
    reason="the extra [demo] is not installed",
)


def demo(folder: Path, *options: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    command = [sys.executable, "-m", "ml_intern", "demo", "--yes", "--json", "--data", str(folder), *options]
    environment = {name: value for name, value in os.environ.items() if name != "ML_INTERN_SHARE_TRACES"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines and lines[-1]["event"] == "demo_report", done.stdout[-2000:] + done.stderr[-2000:]
    return done.returncode, lines[:-1], lines[-1]


@pytest.mark.timeout(300)
def test_an_errand_from_the_search_to_the_published_model(tmp_path: Path) -> None:
    code, events, report = demo(tmp_path / "a folder")
    assert code == 0 and report["state"] == "success" and report["published"] and report["recorded"]
    assert report["candidate"] > report["baseline"] > 0.9
    assert report["differs"] == [], "on this machine the results are those of the recording"
    files = Path(report["files"])
    card = (files / "README.md").read_text()
    assert report["runs"] == 4 and report["p_value"] < 0.05
    low, high = report["interval"]
    assert low < report["candidate"] < high and f"{report['candidate']:.4f} ({low:.4f} to {high:.4f})" in card
    data = ModelCard(card).data  # by the Hub's own reader, which fails on metadata that is none
    assert data.eval_results is not None and data.eval_results[0].metric_value == round(report["candidate"], 6)
    assert (data.license, data.datasets) == ("cc-by-4.0", ["sklearn-data/digits-8x8"])
    pictures = {path.relative_to(files).as_posix() for path in files.rglob("*.png")}
    assert pictures == {f"evaluation/{name}.png" for name in ("comparison", "confusion", "training")}
    assert all(f"]({name})" in card for name in pictures) and "## How to make it again" in card
    assert (files / "train.py").exists() and not [
        path for path in files.rglob("*") if path.suffix in (".pkl", ".joblib")
    ]
    called = [event["tool"] for event in events if event["event"] == "tool_called"]
    assert {"arxiv_search", "hub_search_datasets", "hub_inspect_dataset", "hub_download"} <= set(called)
    order = ["training_config", "training_job", "evaluate_model", "hub_push"]
    assert [name for name in dict.fromkeys(reversed(called)) if name in order] == order[::-1], (
        "judged last, then pushed"
    )
    notes = [note["kind"] for row in read_rows(Path(report["trace"])) if (note := note_of(row))]
    assert notes.index("experiment") < notes.index("evaluation") < notes.index("approval-asked")
    assert notes.index("approval-asked") < notes.index("approval-answered") < notes.index("end")
    assert report["trace_dataset"] == "demo-user/ml-intern-traces"


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_with_shuffled_labels_accuracy_is_chance_and_nothing_is_published(tmp_path: Path) -> None:
    code, events, report = demo(tmp_path, "--shuffle-labels")
    assert code == 1 and not report["published"] and report["model"] is None
    assert report["differs"], "it says that results differ from the recording"
    seen = " ".join(event["observation"] for event in events if event["event"] == "step_finished")
    accuracies = [float(value) for value in re.findall(r"accuracy (0\.\d+)", seen)]
    assert accuracies and max(accuracies) < 0.3 and report["candidate"] < 0.3


def test_the_recording_holds_nothing_of_the_machine_it_was_made_on() -> None:
    import ml_intern.testing.recordings as recordings

    for path in Path(recordings.__path__[0]).glob("*.json*"):
        text = path.read_text()
        assert not re.search(r"/(root|home/(?!user\b)\w+|work|tmp)/", text), path
