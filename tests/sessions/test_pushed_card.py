"""A pushed card says how it came about: where the record lies, and what was decided.

What must never happen: what is pushed is not what was shown; a link that leads nowhere.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from ml_intern.tools import HubPushTool
from sessions.conftest import code, until

from ml_intern import State
from ml_intern.events import ApprovalAnswer, Parked
from ml_intern.testing import LocalHub, ScriptedModel
from ml_intern.trace import read_rows
from ml_intern.trace.sharing import Sharer

WRITES = code(
    "import os\nos.makedirs('out', exist_ok=True)\nopen('out/rows.csv', 'w').write('a\\n1\\n')\n"
    "record_decision(subject='data', choice='films', reason='the only ones', sources=['https://arxiv.org/abs/1712.04621'])"
)
PUSHES = code(
    "print(hub_push(folder='out', repo_id='films', repo_type='dataset', card='# Films\\n', metadata={'license': 'mit'}))"
)
SCRIPT = [WRITES, PUSHES, code("final_answer('done')")]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with LocalHub(tmp_path / "hub") as service:
        for key, value in service.environment().items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", service.url)
        yield service


def card(hub: LocalHub) -> str:
    return hub.read("tester/films", "dataset", "README.md").decode()


def test_a_card_links_the_record_that_is_there_in_the_end(hub, build, home: Path) -> None:
    shown: list[str] = []

    def ask(request):
        shown.append(request.preview)
        return ApprovalAnswer("approve", by="me")

    intern = build(ScriptedModel(SCRIPT), tools=[HubPushTool()], share=True, on_approval=ask)
    assert intern.run("Publish films.") == "done"
    trace = intern.session().trace
    intern.close()
    told = card(hub)
    assert "# Films\n" in told and told.count("## How this came about") == 1
    assert "- **data**: films (step 1). the only ones Sources: <https://arxiv.org/abs/1712.04621>." in told
    assert told.split("---\n")[2].strip() in shown[0]  # to the last word
    url = re.search(rf"\[session `{trace.stem}`\]\((\S+)\)", told)
    assert url is not None and url[1] == intern._sharer.url_of(trace)
    repo_id, path = url[1].removeprefix(f"{hub.url}/datasets/").split("/blob/main/")
    there = hub.read(repo_id, "dataset", path).decode()
    assert "record_decision" in there and len(there.splitlines()) > 5
    assert str(home) not in told


def test_a_push_that_waited_through_a_sleep_is_what_was_shown(hub, build) -> None:
    slow = [*SCRIPT[:1], lambda messages: (time.sleep(0.3), PUSHES)[1], SCRIPT[2]]
    intern = build(ScriptedModel(slow), tools=[HubPushTool()])
    intern._config = replace(intern._config, park_seconds=0.0)
    session = intern.submit("Publish films.")
    until(lambda: any(isinstance(event, Parked) for event in session.events.history))
    (request,) = session.pending()
    (kept,) = (session.trace.with_suffix("") / "frozen").glob("*/provenance.md")
    assert kept.read_text().strip() in request.preview and "not shared so far" in request.preview
    intern.approve(session.id, request.call_id, by="me")
    assert session.wait(30).state is State.SUCCESS
    assert card(hub).split("---\n")[2].strip() in request.preview and kept.exists() is False
    rows = [json.dumps(row) for row in read_rows(session.trace)]
    assert sum(f'"callId": "{request.call_id}"' in row and "approval-asked" in row for row in rows) == 1


def test_where_a_session_will_lie_is_said_only_of_one_that_is_shared(hub, tmp_path: Path) -> None:
    trace = tmp_path / "11111111-2222-4333-8444-555555555555.jsonl"
    trace.write_text('{"type":"user","timestamp":"2026-01-15T10:00:00.000Z"}\n')
    api = HfApi(endpoint=hub.url, token=hub.token)
    sharer = Sharer(tmp_path / "home", print, True, api=lambda: api)
    url = f"{hub.url}/datasets/tester/ml-intern-traces/blob/main/sessions/2026-01-15/{trace.name}"
    assert sharer.address_of(trace) == url
    asked = len(hub.requests)
    assert sharer.address_of(trace) == url and len(hub.requests) == asked  # asked once
    assert Sharer(tmp_path / "home", print, False, api=lambda: api).address_of(trace) == ""
    sharer._home.want(trace)
    sharer._home.failed(trace.stem, "The data set is public")
    assert sharer.address_of(trace) == ""
    sharer._home.uploaded_at(trace.stem, "https://elsewhere")
    assert sharer.address_of(trace) == "https://elsewhere"


@pytest.mark.parametrize("how", ["down", "slow", "refused"])
def test_a_hub_that_does_not_answer_is_not_waited_for(hub, tmp_path: Path, how: str, monkeypatch) -> None:
    trace = tmp_path / "11111111-2222-4333-8444-555555555555.jsonl"
    trace.write_text('{"type":"user","timestamp":"2026-01-15T10:00:00.000Z"}\n')
    api = HfApi(endpoint=hub.url, token=hub.token)
    monkeypatch.setattr("ml_intern.trace.sharing.WHO_SECONDS", 0.5)
    if how == "down":
        hub.close()
    elif how == "slow":
        hub.fail("whoami", delay=3)
    else:
        hub.fail("whoami", status=401, body={"error": "no"})
    began = time.monotonic()
    assert Sharer(tmp_path / "home", print, True, api=lambda: api).address_of(trace) == ""
    assert time.monotonic() - began < 2
