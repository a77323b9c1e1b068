"""The agent tells the team something: only where it is allowed, once, and so that it pings nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ml_intern.tools import NotifyTool
from saving import assert_survives_saving

from ml_intern import MLIntern, State
from ml_intern.testing import ScriptedModel
from ml_intern.testing.slack import LocalSlack


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSlack]:
    with LocalSlack() as slack:
        for name, value in slack.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SLACK_NOTIFY_CHANNELS", "C2, C1")
        yield slack


def test_it_tells_a_channel_that_allows_it_and_pings_nobody(slack: LocalSlack) -> None:
    told = NotifyTool()("Loss is <!channel> NaN & rising\u202e", "urgent")
    (message,) = slack.said()
    assert (message.channel, message.ts) == ("C2", told["ts"]) and told["severity"] == "urgent"
    assert message.text == ":rotating_light: Loss is &lt;!channel&gt; NaN &amp; rising\ufffd"
    assert NotifyTool()("done", channel="C1")["channel"] == "C1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"text": " "}, "is empty"),
        ({"text": "x" * 3001}, "3001 characters"),
        ({"text": "x", "severity": "loud"}, "info, warning or urgent"),
        ({"text": "x", "channel": "C9"}, "C9 does not allow it; these do: C2, C1"),
    ],
)
def test_what_is_refused_is_refused_before_anybody_is_asked(slack: LocalSlack, arguments, said: str) -> None:
    for act in (NotifyTool().check, NotifyTool()):
        with pytest.raises(ValueError, match=said):
            act(**arguments)
    assert slack.said() == []


def test_without_a_list_no_channel_allows_it(slack: LocalSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLACK_NOTIFY_CHANNELS")
    with pytest.raises(ValueError, match="SLACK_NOTIFY_CHANNELS"):
        NotifyTool()("x")


def test_a_refusal_of_slack_says_what_is_missing(slack: LocalSlack) -> None:
    slack.scopes.discard("chat:write")
    with pytest.raises(RuntimeError, match=r"missing_scope \(chat:write\)"):
        NotifyTool()("x")


def test_a_call_is_told_once(slack: LocalSlack) -> None:
    tool = NotifyTool()
    tool.call_id = "call_1"
    assert tool.reconcile("call_1", text="x") is None
    first = tool("x", "warning")
    assert tool("x", "warning") == first == tool.reconcile("call_1", text="x") and len(slack.said()) == 1
    tool.call_id = "call_2"
    assert tool("x", "warning") != first and len(slack.said()) == 2


def test_in_a_session_somebody_is_asked_unless_a_rule_allows_it(slack: LocalSlack, home: Path) -> None:
    script = ["<code>\nnotify('half way')\n</code>", "<code>\nfinal_answer('done')\n</code>"]
    with MLIntern(ScriptedModel(script), home=home) as intern:
        session = intern.submit("work")
        while not session.pending():
            assert session.wait(0.05) is None
        (request,) = session.pending()
        assert request.destination.name == "slack:C2" and request.arguments == {"text": "half way"} and request.rule
        intern.reject(session.id, request.call_id, "no")
        assert session.wait(20).state is State.DENIED
    with MLIntern(ScriptedModel(script), home=home, allow=["notify"]) as intern:
        assert intern.run("work") == "done"
    assert [message.text for message in slack.said()] == [":information_source: half way"]


@pytest.mark.long
def test_it_survives_saving(slack: LocalSlack) -> None:
    told = assert_survives_saving(
        NotifyTool,
        "slack_sdk",
        call={"text": "saved"},
        environment={**slack.environment(), "SLACK_NOTIFY_CHANNELS": "C1"},
    )
    assert told["channel"] == "C1"
