"""Whole sessions with real embedded weights: what they say is nonsense, and the session takes it as it takes any model's."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from smolagents.memory import ActionStep

from ml_intern import InternAgent, MLIntern, State
from ml_intern.events import Compacted, ModelAnswered, ModelDelta, SessionEnded
from ml_intern.models.embedded import EmbeddedModel
from ml_intern.steps import CompactionStep

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes through /proc")


def children():
    """Our processes that run weights."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"embedded/child.py" in (folder / "cmdline").read_bytes():
                found.append(folder)
    return found


def anonymous(folder):
    """Bytes of memory that are a process's own."""
    lines = (folder / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.long
def test_an_agent_loads_streams_counts_compacts_and_frees(weights):
    streamed, steps, compactions = [], [], []
    model = EmbeddedModel(
        f"embedded/{weights}", window_tokens=512, on_delta=streamed.append, temperature=0.0, max_tokens=16
    )
    model.warm()
    agent = InternAgent(tools=[], model=model, max_steps=4, verbosity_level=0, planning_interval=None)
    agent.prompt_templates["system_prompt"] = "You write Python code between <code> and </code>. " * 3
    agent.step_callbacks.register(ActionStep, lambda step, agent=None: steps.append(step))
    agent.step_callbacks.register(CompactionStep, lambda step, agent=None: compactions.append(step))
    agent.run("Add 1 and 2 and tell me the answer.")
    assert agent.ending.state in (State.MAX_STEPS, State.SUCCESS, State.STUCK)
    assert "".join(streamed).startswith((steps[0].model_output or "")[:20])
    assert all(0 < step.token_usage.input_tokens < 512 for step in steps)
    assert all(0 < step.token_usage.output_tokens <= 16 for step in steps)
    assert compactions
    assert agent.context.limit(model) == 512 - 512 // 4
    (child,) = children()
    assert anonymous(child) > 20_000_000
    model.close()
    agent.cleanup()
    assert not child.exists() or not (child / "cmdline").read_bytes()


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_a_session(weights, home, monkeypatch):
    monkeypatch.setenv("ML_INTERN_CONTEXT_WINDOW", "4096")
    name, options = f"embedded/{weights}", {"max_tokens": 200, "temperature": 0.0}
    with MLIntern(name, home=home, tools=[], max_iterations=8, model_options=options, mode="deny") as intern:
        session = intern.submit("Add 1 and 2 and tell me the answer.")
        assert session.wait(1200)
        told = list(session.events.history)
        assert session.state in (State.MAX_STEPS, State.SUCCESS, State.STUCK)
        assert len([event for event in told if isinstance(event, ModelAnswered)]) > 3
        assert len([event for event in told if isinstance(event, ModelDelta)]) > 50
        assert [event for event in told if isinstance(event, Compacted)]
        assert [event for event in told if isinstance(event, SessionEnded)]
        assert session.usage.output_tokens > 100
        assert session.usage.cached_tokens > 0.3 * session.usage.input_tokens
        assert session.usage.cost_usd is None
        assert len(children()) == 1
    assert children() == []
