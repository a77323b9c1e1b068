"""From weights to a published model: judged by the host, pushed with what was measured, refused where it was not.

What must never happen: figures of other weights, of the agent's own making, or of rows that the model was trained on get onto
the Hub as if this host had measured them; labels of held-out rows come into the workspace.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, constants
from ml_intern.tools import EvaluateModelTool, HubPushTool
from sessions.conftest import code, notes

from ml_intern import State
from ml_intern.events import ApprovalAnswer
from ml_intern.testing import LocalHub, ScriptedModel

pytestmark = pytest.mark.skipif(importlib.util.find_spec("skops") is None, reason="the extra [demo] is not installed")

TRAINS = """
import csv, os, skops.io
from sklearn.ensemble import RandomForestClassifier
rows = list(csv.DictReader(open('train.csv')))
names = [name for name in rows[0] if name != 'label']
x, y = [[float(row[name]) for name in names] for row in rows], [row['label'] for row in rows]
os.makedirs('runs/forest/model', exist_ok=True)
skops.io.dump(RandomForestClassifier(20, random_state=0).fit(x, y), 'runs/forest/model/model.skops')
"""
JUDGES = """
held = evaluate_model(operation='prepare', dataset='sklearn-data/digits', train=['train.csv'])
judged = evaluate_model(operation='score', held_out=held['held_out'], candidate={'folder': 'runs/forest'},
                        baseline={'simple': 'majority'}, train=['train.csv'])
print(judged['id'], judged['better'], judged['problems'], os.listdir('held_out/' + held['held_out']))
"""
PUSHES = """
done = hub_push(folder='runs/forest/model', repo_id='forest', evaluation=judged['id'],
                card='# A forest\\n\\nFor digits.\\n', metadata={'license': 'mit'})
print(done['commit_sha'])
"""
SPOILS = """
skops.io.dump(RandomForestClassifier(3, random_state=1).fit(x, y), 'runs/forest/model/model.skops')
for evaluation in (judged['id'], 'eval_000000000000', {'task': 't', 'dataset': 'd', 'split': 'test', 'metric': 'accuracy',
                   'baseline': 0.1, 'candidate': 0.99, 'n': 1000}):
    try:
        hub_push(folder='runs/forest/model', repo_id='forest2', evaluation=evaluation, metadata={'license': 'mit'})
    except Exception as error:
        print('REFUSED', error)
"""


def table(rows, labels) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(f"x{n}" for n in range(len(rows[0]))), "label"])
    writer.writerows([*map(int, row), int(label)] for row, label in zip(rows, labels, strict=True))
    return text.getvalue().encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from sklearn.datasets import load_digits

    digits = load_digits()
    test, train = table(digits.data[:200], digits.target[:200]), table(digits.data[200:900], digits.target[200:900])
    with LocalHub(tmp_path / "hub") as service:
        for key, value in service.environment().items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        service.seed("sklearn-data/digits", "dataset", {"train.csv": train, "test.csv": test})
        (tmp_path / "train.csv").write_bytes(train)
        yield service


@pytest.mark.long
@pytest.mark.parametrize("more", ["", ", allow_pickle=True"])
def test_no_rule_lets_through_what_would_be_refused_otherwise(hub: LocalHub, build, more: str) -> None:
    asked: list[str] = []

    def ask(request):
        asked.append(request.reason)
        return ApprovalAnswer("reject", "no", by="me")

    push = f"hub_push(folder='out', repo_id='rows', repo_type='dataset', metadata={{'license': 'mit'}}{more})"
    script = [
        code(f"import os\nos.makedirs('out')\nopen('out/a.csv', 'w').write('a')\n{push}"),
        code("final_answer('done')"),
    ]
    rules = {"mode": "auto", "allow": ["hub_push:tester/*:private"]}
    intern = build(ScriptedModel(script), tools=[HubPushTool()], on_approval=ask, **rules)
    intern._config = replace(intern._config, find_own=lambda: frozenset({"tester"}))
    session = intern.submit("Push.")
    assert session.wait(60) is not None
    assert (hub.store.find("dataset", "tester/rows") is None) is bool(more)
    assert len(asked) == bool(more) and all("would be refused otherwise (allow_pickle)" in reason for reason in asked)


@pytest.mark.long
def test_judged_by_the_host_and_pushed_with_what_it_measured(hub: LocalHub, build, tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(request):
        asked.append(request.preview)
        return ApprovalAnswer("approve", by="me")

    script = [code(TRAINS), code(JUDGES), code(PUSHES), code(SPOILS), code("final_answer('done')")]
    intern = build(ScriptedModel(script), tools=[EvaluateModelTool(), HubPushTool()], on_approval=ask)
    session = intern.submit("Ship it.", files=[tmp_path / "train.csv"])
    assert session.wait(120).state is State.SUCCESS
    told = [event.observation for event in session.events.history if type(event).__name__ == "StepFinished"]
    said = "\n".join(told)
    (row,) = notes(session, "evaluation")
    judged = row["data"]
    assert judged["better"] and judged["by"] == "harness" and judged["problems"] == [], said
    assert judged["candidate"]["value"] > 0.8 and judged["contamination"] == {**judged["contamination"], "rows": 0}

    # The labels never came into the workspace: no file there but the training rows holds any.
    kept = json.loads(next((session.trace.with_suffix("") / "held_out").glob("*/labels.json")).read_text())
    for path in session.workspace.rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            assert "label" not in entry
            assert entry["id"] in kept

    # What was shown is what is there: figures, pictures, metadata that the Hub takes.
    (shown,) = asked
    there = hub.read("tester/forest", "model", "README.md").decode()
    assert there.strip() in shown and "Evaluation: accuracy" in shown and "evaluation/comparison.png" in shown
    data = ModelCard(there).data
    assert (data.license, data.library_name, data.datasets) == ("mit", "sklearn", ["sklearn-data/digits"])
    assert data.eval_results[0].metric_value == round(judged["candidate"]["value"], 6)
    assert data.eval_results[0].dataset_revision == judged["dataset"]["revision"]
    assert [request.status for request in hub.requests if request.path == "/api/validate-yaml"] == [200]
    assert re.search(r"Predictions and figures were made by the host", there) and "# A forest" in there
    pictures = [
        name for name in HfApi(endpoint=hub.url, token=hub.token).list_repo_files("tester/forest") if ".png" in name
    ]
    assert sorted(pictures) == ["evaluation/comparison.png", "evaluation/confusion.png"]
    assert all(f"]({name})" in there for name in pictures)

    # Other weights, an evaluation that nobody made, figures of the agent's own: refused before anyone is asked.
    refusals = re.findall(r"REFUSED (.*)", said)
    assert len(refusals) == 3 and "is of other weights" in refusals[0]
    assert "no evaluation 'eval_000000000000' on record" in refusals[1]
    assert "figures are the agent's own" in refusals[2]
    assert hub.store.find("model", "tester/forest2") is None
