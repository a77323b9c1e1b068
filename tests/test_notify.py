"""Slack, one way: against a local service that speaks chat.postMessage, with the unmodified client."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ml_intern import MLIntern
from ml_intern.events import (
    ApprovalAsked,
    ApprovalRequest,
    EventLog,
    Outcome,
    SessionEnded,
    SessionStarted,
    State,
    Warned,
)
from ml_intern.notify import message, notify_slack
from ml_intern.testing import ScriptedModel, Service


class Slack:
    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.error, self.away = "", 0
        self.service = Service(Starlette(routes=[Route("/api/chat.postMessage", self.post, methods=["POST"])]))

    async def post(self, request: Request) -> JSONResponse:
        if self.away:
            self.away -= 1
            return JSONResponse({"ok": False}, 503)
        if self.error:
            return JSONResponse({"ok": False, "error": self.error})
        body = dict(await request.form()) or await request.json()
        self.posted.append(body)
        return JSONResponse({"ok": True, "ts": f"1.{len(self.posted)}", "channel": body["channel"], "message": {}})


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch):
    slack = Slack()
    with slack.service:
        monkeypatch.setenv("SLACK_API_URL", f"{slack.service.url}/api/")
        monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-test-token-1234")
        monkeypatch.setenv("SLACK_CHANNEL_ID", "C1")
        yield slack


def wait_for(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_session_is_told_in_one_thread(slack: Slack, home: Path) -> None:
    with MLIntern(
        ScriptedModel(["<code>\nfinal_answer('all <good> & done')\n</code>"]),
        home=home,
        tools=[],
        enable_slack_notifications=True,
    ) as intern:
        intern.run("Train <!channel> something.")
        wait_for(lambda: len(slack.posted) == 2)
    start, end = slack.posted
    assert start["text"] == "Started: Train &lt;!channel&gt; something." and "thread_ts" not in start
    assert end["text"].startswith("Ended: success") and "all &lt;good&gt; &amp; done" in end["text"]
    assert end["thread_ts"] == "1.1" and end["channel"] == "C1"


def test_a_slack_that_fails_is_one_warning_and_stops_nothing(slack: Slack) -> None:
    slack.error = "channel_not_found"
    warnings: list[str] = []
    log = EventLog("s")
    notify_slack(log, warnings.append)
    for text in ("one", "two", "three"):
        log.emit(Warned(text=text))
    wait_for(lambda: warnings)
    time.sleep(0.2)
    assert len(warnings) == 1 and "channel_not_found" in warnings[0] and "xoxb" not in warnings[0]


def test_a_slack_that_is_away_for_a_while_is_told_once_it_answers(slack: Slack) -> None:
    slack.away = 2
    warnings: list[str] = []
    log = EventLog("s")
    notify_slack(log, warnings.append)
    for text in ("one", "<!channel> two"):
        log.emit(Warned(text=text))
    wait_for(lambda: len(slack.posted) == 2)
    assert [post["text"] for post in slack.posted] == ["Note: one", "Note: &lt;!channel&gt; two"]
    assert len(warnings) == 1 and "once Slack answers again" in warnings[0]


REQUEST = ApprovalRequest("call_1", "hub_push", {}, "write", "it publishes or changes something")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (SessionStarted(task="a" * 5_000, model="m", workspace="w", trace="t"), "Started: " + "a" * 2_900),
        (ApprovalAsked(request=REQUEST), "Waits for an answer: `hub_push` (it publishes or changes something)"),
        (Warned(text="<@U1>"), "Note: &lt;@U1&gt;"),
        (SessionEnded(outcome=Outcome(State.DENIED, None, "no", 3), trace="t"), "Ended: denied (no) after 3 steps"),
    ],
)
def test_what_is_told(event, text: str) -> None:
    assert message(event) == text
