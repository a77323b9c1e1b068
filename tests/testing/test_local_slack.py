"""The local Slack behaves as Slack does, towards the official clients as they are."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse

from ml_intern.testing.slack import LocalSlack

SECTION = {"type": "section", "text": {"type": "mrkdwn", "text": "hi"}}


@pytest.fixture
def slack() -> Iterator[LocalSlack]:
    with LocalSlack(patience=0.3) as slack:
        yield slack


@pytest.fixture
def client(slack: LocalSlack) -> WebClient:
    return WebClient(slack.bot_token, base_url=slack.environment()["SLACK_API_URL"])


def refusal(call, **arguments) -> str:
    with pytest.raises(SlackApiError) as caught:
        call(**arguments)
    return caught.value.response["error"]


def test_messages_are_posted_edited_and_refused_in_its_words(slack: LocalSlack, client: WebClient) -> None:
    said = client.chat_postMessage(channel="C1", text="hi", blocks=[SECTION])
    client.chat_postMessage(channel="C1", text="there", thread_ts=said["ts"])
    client.chat_update(channel="C1", ts=said["ts"], text="ho")
    assert [(m.text, m.thread_ts, m.edits) for m in slack.said()] == [("ho", "", 1), ("there", said["ts"], 0)]
    assert len(client.conversations_replies(channel="C1", ts=said["ts"])["messages"]) == 2
    assert refusal(client.chat_postMessage, channel="C9", text="x") == "channel_not_found"
    assert refusal(client.chat_postMessage, channel="C1", text="x", thread_ts="1.1") == "thread_not_found"
    assert refusal(client.chat_postMessage, channel="C1", text="x" * 40_001) == "msg_too_long"
    assert refusal(client.chat_update, channel="C1", ts="1.1", text="x") == "message_not_found"
    slack.channels["C1"]["is_member"] = False
    assert refusal(client.chat_postMessage, channel="C1", text="x") == "not_in_channel"
    slack.scopes.discard("chat:write")
    assert refusal(client.chat_postMessage, channel="C2", text="x") == "missing_scope"
    assert refusal(WebClient("xoxb-no", base_url=client.base_url).auth_test) == "invalid_auth"
    assert "chat:write" not in client.auth_test().headers["x-oauth-scopes"]


@pytest.mark.parametrize(
    "blocks",
    [
        [SECTION] * 51,
        [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}],
        [{"type": "section", "text": {"type": "mrkdwn", "text": ""}}],
        [{"type": "actions", "elements": [{"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x" * 76}}]}],
        [{"type": "actions", "elements": [{"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x"}}] * 2}],
        [{"type": "actions", "elements": []}],
        [{"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}] * 11}],
        [{"type": "marquee"}],
    ],
)  # fmt: skip
def test_blocks_that_slack_refuses(client: WebClient, blocks: list) -> None:
    assert refusal(client.chat_postMessage, channel="C1", text="x", blocks=blocks) == "invalid_blocks"


def test_a_rate_limit_says_for_how_long(slack: LocalSlack, client: WebClient) -> None:
    slack.limit("chat.postMessage", 0.5)
    with pytest.raises(SlackApiError) as caught:
        client.chat_postMessage(channel="C1", text="x")
    assert caught.value.response.status_code == 429 and caught.value.response.headers["Retry-After"] == "1"
    client.auth_test()
    time.sleep(0.5)
    client.chat_postMessage(channel="C1", text="x")


def test_files_are_uploaded_in_three_steps(slack: LocalSlack, client: WebClient) -> None:
    done = client.files_upload_v2(channel="C1", filename="a.txt", content="abc", title="A")
    (upload,) = slack.uploads
    assert (upload.name, upload.data, upload.channel, upload.title) == ("a.txt", b"abc", "C1", "A")
    assert done["file"]["id"] == upload.id


def test_socket_mode_sends_again_what_is_not_acknowledged(slack: LocalSlack, client: WebClient) -> None:
    seen = []
    listener = SocketModeClient(slack.app_token, web_client=client, ping_interval=0.1)

    def hear(own: SocketModeClient, request) -> None:
        seen.append(request.payload["event"]["text"])
        if len(seen) > 1:
            own.send_socket_mode_response(SocketModeResponse(request.envelope_id))

    listener.socket_mode_request_listeners.append(hear)
    listener.connect()
    slack.socket.wait_connected()
    said = slack.say("UANN", "hello")
    slack.wait(lambda: all(envelope.acknowledged.is_set() for envelope in slack.socket.envelopes.values()))
    assert seen == ["hello", "hello"] and said.text == "hello"
    slack.socket.disconnect()
    slack.wait(lambda: slack.socket.connections == 2)
    slack.say("UANN", "x" * 100_000)
    slack.wait(lambda: len(seen) >= 3)
    assert seen[2] == "x" * 100_000
    listener.current_session.sock.shutdown(2)
    listener.close()


def test_triggers_work_once(slack: LocalSlack, client: WebClient) -> None:
    view = {"type": "modal", "title": {"type": "plain_text", "text": "T"}, "blocks": [SECTION]}
    trigger = slack._trigger()
    assert client.views_open(trigger_id=trigger, view=view)["view"]["id"] == slack.views[0]["id"]
    assert refusal(client.views_open, trigger_id=trigger, view=view) == "expired_trigger_id"
    assert refusal(client.views_open, trigger_id=slack._trigger(), view={**view, "title": {"type": "plain_text", "text": "T" * 25}}) == "invalid_arguments"  # fmt: skip


def test_it_is_served_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ml_intern.testing.serve", "slack", "--data", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = dict(process.stdout.readline().removeprefix("export ").strip().split("=", 1) for _ in range(4))
        client = WebClient(lines["SLACK_BOT_TOKEN"], base_url=lines["SLACK_API_URL"])
        assert json.dumps(client.auth_test().data) and lines["SLACK_CHANNEL_ID"] == "C1"
    finally:
        process.terminate()
        process.wait(10)
