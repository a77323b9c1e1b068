"""Another model for a session: between two steps of a turn, from Slack, and when it is taken up. Never: two models in one step,
a model that cannot be had takes over, a choice that is forgotten or is nobody's on record.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from gateways.conftest import slack, team  # noqa: F401 - fixtures
from gateways.slack_team import Team, ended
from sessions.conftest import notes, until

from ml_intern import InternError, MLIntern, State
from ml_intern.events import CodePrinted
from ml_intern.testing import LocalLLM, ScriptedModel
from ml_intern.testing.slack import LocalSlack


def action(code: str) -> str:
    return f"I go on.\n<code>\n{code}\n</code>"


WAITS = action("import time, os\nprint('at work')\nwhile not os.path.exists('go'): time.sleep(0.05)\nn = 4")
ENDS = action("final_answer(n + 1)")


def test_from_slack_in_the_middle_of_a_turn(
    slack: LocalSlack,  # noqa: F811
    team: Team,  # noqa: F811
    litellm: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with LocalLLM(lambda request: ENDS, models=("second",)) as llm:
        monkeypatch.setenv("VLLM_BASE_URL", llm.url)
        intern, _, _ = team([WAITS])
        root = slack.say("UANN", "<@UBOT> count")
        slack.wait(lambda: slack.said(root.ts))
        (session,) = intern.sessions.values()
        until(lambda: any(isinstance(event, CodePrinted) for event in session.events.history))
        slack.say("UBEA", "model vllm/second", thread_ts=root.ts)
        slack.say("UANN", "model vllm/second", thread_ts=root.ts)
        slack.wait(lambda: any("`vllm/second` writes from its next step on" in m.shown for m in slack.said(root.ts)))
        assert len(llm.requests) == 0
        (session.workspace / "go").touch()
        assert "success" in ended(slack, root.ts).text and session.outcome.answer == 5
        assert len(llm.requests) == 1 and "n = 4" in str(llm.requests[0]["messages"])
    assert [(n["model"], n["by"]) for n in notes(session, "model-chosen")] == [("vllm/second", "slack:UANN")]
    (switch,) = notes(session, "model")
    assert (switch["model"], switch["before"], switch["why"]) == (
        "hosted_vllm/second", "scripted", "slack:UANN chose it",
    )  # fmt: skip
    assert sum("SLACK_APPROVERS" in m.text for m in slack.messages if m.to == "UBEA") == 1


def test_between_two_turns_and_when_it_is_taken_up(
    litellm: object, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        LocalLLM(lambda request: action("final_answer('first')"), models=("first",)) as first,
        LocalLLM(lambda request: action("final_answer('second')"), models=("second",)) as second,
    ):
        monkeypatch.setenv("VLLM_BASE_URL", first.url)
        monkeypatch.setenv("LMSTUDIO_BASE_URL", second.url)
        monkeypatch.setenv("LLM_ENDPOINT", "vllm/first")
        with MLIntern(home=home, tools=[]) as intern:
            assert intern.run("one") == "first"
            session = intern.session()
            for name, why in (
                ("lm_studio/none,banana-9", "is no model that is known"),
                ("claude-sonnet-4-5", "no key"),
                ("ollama/x", "Nothing answers"),
            ):
                monkeypatch.setenv("OLLAMA_BASE_URL", "http://127.0.0.1:9")
                with pytest.raises(InternError, match=why):
                    intern.set_model(name)
            intern.set_model("lm_studio/second", by="me")
            intern.steer("two")
            for _ in session.follow():
                pass
            assert session.outcome.answer == "second" and intern.run("a session of its own") == "first"
        with MLIntern(home=home, tools=[]) as intern:
            again = intern.resume(session.id, "three")
            assert again.wait(20).answer == "second" and again.outcome.state is State.SUCCESS
        with MLIntern("vllm/first", home=home, tools=[]) as intern:  # who names one now means it
            assert intern.resume(session.id, "four").wait(20).answer == "first"
    assert [(n["model"], n["by"]) for n in notes(session, "model-chosen")] == [("lm_studio/second", "me")]
    assert [n["model"] for n in notes(session, "model")] == ["lm_studio/second", "hosted_vllm/first"]


def test_what_is_in_flight_is_stopped_with_the_turn(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalLLM(lambda request: ENDS, models=("second",)) as llm:
        monkeypatch.setenv("VLLM_BASE_URL", llm.url)
        with MLIntern(ScriptedModel([WAITS]), home=home, tools=[]) as intern:
            session = intern.submit("count")
            until(lambda: any(isinstance(event, CodePrinted) for event in session.events.history))
            intern.set_model("vllm/second")
            session.interrupt()
            assert session.wait(20).state is State.INTERRUPTED and llm.requests == []
