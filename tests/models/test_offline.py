"""--offline: no name is looked up and no packet leaves but to what the user configured, and everything says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ml_intern.tools import ArxivSearchTool, HubPushTool
from models import offline_child

from ml_intern.errors import InternError
from ml_intern.off_tools import without_network
from ml_intern.offline import needs_network

LOCAL_TOOLS = {"evaluate_model", "python_sandbox", "training_config", "training_job"}
"""Those of `tools/` that reach nothing but this machine, or work without (data and models of the workspace)."""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What a whole session offline did, with keys and tokens for everything there is."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ML_INTERN_", "LITELLM_"))
    }
    keys = {
        "HF_TOKEN": "hf_" + "x" * 30,
        "SLACK_BOT_TOKEN": "xoxb-1",
        "SLACK_CHANNEL_ID": "C1",
        "ANTHROPIC_API_KEY": "k",
    }
    home = tmp_path_factory.mktemp("home")
    command = [sys.executable, offline_child.__file__, str(home)]
    done = subprocess.run(command, env={**kept, **keys}, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def said(session, kind):
    return [event for event in session["events"] if event.get("type", event.get("event")) == kind]


@pytest.mark.long
def test_no_name_is_looked_up_and_nobody_is_connected_to(session):
    assert session["reached"] == []
    assert session["code"] == 0


def test_tools_that_need_the_network_say_that_they_are_off(session):
    text = json.dumps(session["events"])
    for tool in ("hub_search_datasets", "arxiv_search", "hub_push", "install_packages"):
        assert f"{tool} needs the network (--offline (ML_INTERN_OFFLINE) is set)" in text
    assert "approval" not in {event.get("type") for event in session["events"]}


def test_code_has_no_network_either(session):
    text = json.dumps(session["events"])
    assert any(words in text for words in ("Network is unreachable", "Permission denied", "Operation not permitted"))


def test_what_is_left_out_is_said(session):
    text = json.dumps(session["events"])
    assert "Left out of the chain: claude-sonnet-4-5 needs the network." in text
    assert "Slack is not told of anything: --offline is set." in text


def test_which_tools_need_the_network():
    tools = without_network([ArxivSearchTool(), HubPushTool()])
    assert [(tool.name, tool.effects) for tool in tools] == [("arxiv_search", "read"), ("hub_push", "read")]
    with pytest.raises(InternError, match="begin without --offline"):
        tools[0](query="x")
    assert not needs_network(type("Tool", (), {"name": "final_answer"}))


REFUSED = """
from ml_intern import MLIntern
from ml_intern.errors import InternError
for options in ({"executor_type": "e2b"}, {"model": "gpt-5.1"}):
    try:
        MLIntern(**{"model": "vllm/m", **options}, offline=True)
    except InternError as error:
        print(" ".join(str(error).split()))
with MLIntern("vllm/m", offline=True) as intern:
    for act in (lambda: intern.fork("hf://datasets/a/b/c.jsonl"), lambda: intern.session()):
        try:
            act()
        except InternError as error:
            print(" ".join(str(error).split()))
"""


@pytest.mark.long
def test_what_cannot_be_had_offline(tmp_path):
    environment = {**os.environ, "ML_INTERN_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", REFUSED], env=environment, capture_output=True, text=True, timeout=60)
    sandbox, model, fork, _ = done.stdout.splitlines()
    assert sandbox.startswith("E2B's sandbox needs the network (--offline")
    assert model.startswith("gpt-5.1 needs the network. (--offline is set) Name a local server")
    assert fork.startswith("hf://datasets/a/b/c.jsonl needs the network (--offline")


def test_every_tool_of_ours_is_known_to_need_the_network_or_not():
    """A new one has to be named here, or it would go out offline."""
    names = {path.stem for path in (Path(__file__).parents[2] / "tools").glob("*.py") if path.stem != "__init__"}
    local = {name for name in names if not needs_network(SimpleNamespace(name=name))}
    assert local == LOCAL_TOOLS
