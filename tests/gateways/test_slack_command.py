"""Slack from the command line: `slack`, which works for a workspace, and `--slack`, which has a task answered there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from gateways.slack_team import DONE, PUBLISH, Publish, Team, action, card_in, ended

from ml_intern import MLIntern
from ml_intern.cli.app import dispatch
from ml_intern.cli.doctor import slack as finding
from ml_intern.cli.run import Order, run
from ml_intern.events import Warned
from ml_intern.gateways.slack_setup import MANIFEST
from ml_intern.testing import LocalHub, ScriptedModel
from ml_intern.testing.slack import LocalSlack


def start(*words: str, **environment: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "LLM_ENDPOINT": "openai/none", "OPENAI_API_KEY": "sk-none", **environment}
    return subprocess.Popen([sys.executable, "-m", "ml_intern", "slack", *words], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_the_manifest_is_printed_and_what_is_missing_is_said(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatch(["slack", "--manifest"]) == 0 and capsys.readouterr().out == MANIFEST
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-1")
    assert dispatch(["slack"]) == 1
    said = capsys.readouterr().err
    assert (
        "SLACK_APP_TOKEN, SLACK_OWNER (or SLACK_APPROVERS) not set" in said and "10. python -m ml_intern slack" in said
    )


@pytest.mark.long
def test_it_works_for_a_workspace_until_it_is_stopped(
    slack: LocalSlack, team: Team, home: Path, tmp_path: Path
) -> None:
    intern, gateway, _ = team([action("final_answer('done')")])
    root = slack.say("UANN", "<@UBOT> work")
    ended(slack, root.ts)
    intern.close()
    gateway.close()
    with LocalHub(tmp_path / "hub", {"hf_alice": "alice"}) as hub:
        process = start("--home", str(home), **hub.environment("hf_alice"))
        try:
            slack.socket.wait_connected(30)
            assert "At work in Slack" in process.stderr.readline()
            slack.say("UANN", "<@UBOT> status")
            slack.wait(lambda: any("Nothing is at work" in m.text for m in slack.messages if m.to == "UANN"))
            slack.say("UANN", "share", thread_ts=root.ts)
            shared = slack.wait(lambda: next((m for m in slack.said(root.ts) if "is shared" in m.shown), None), 30)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate()
        (session_id,) = intern.sessions
        repo = hub.store.repos["dataset", "alice/ml-intern-traces"]
        (path,) = [path for path in repo.resolve("main").files if path.endswith(f"{session_id}.jsonl")]
        assert repo.visibility == "private" and f"{path}>" in shared.shown


def test_from_python_it_goes_both_ways_with_the_same_settings(slack: LocalSlack, home: Path) -> None:
    published: list[str] = []
    script = [PUBLISH, DONE]
    with MLIntern(
        ScriptedModel(script), home=home, tools=[Publish(published)], enable_slack_notifications=True
    ) as intern:
        presses = threading.Thread(target=lambda: slack.click(card_in(slack), "approve"))
        presses.start()
        assert intern.run("publish it") == "all done"  # nobody is at a terminal here
        presses.join()
    root = next(m for m in slack.said() if not m.thread_ts)
    assert published == ["me/model"] and ended(slack, root.ts)
    assert slack.socket.connections == 1


def test_from_python_without_an_app_token_it_goes_one_way(slack: LocalSlack, home: Path, monkeypatch) -> None:
    monkeypatch.delenv("SLACK_APP_TOKEN")
    plan = "plan([{'text': 'draw', 'status': 'done'}])\nfrom PIL import Image\nImage.new('RGB', (9, 9), 'red')"
    script = [action(plan), PUBLISH, DONE]
    with MLIntern(ScriptedModel(script), home=home, tools=[Publish([])], enable_slack_notifications=True) as intern:
        assert intern.run("publish it") == "all done"  # nobody can be asked: it is refused, and said
    (root,) = [m for m in slack.said() if not m.thread_ts]
    assert "Started:* publish it" in root.shown and ended(slack, root.ts).text.startswith("Ended: denied")
    assert sum("Plan" in m.text for m in slack.said(root.ts)) == 1 and [u.thread_ts for u in slack.uploads] == [
        root.ts
    ]
    assert slack.socket.connections == 0 and not any(m.buttons() for m in slack.said())


def test_from_python_tokens_that_are_refused_stop_nothing(slack: LocalSlack, home: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-" + "wrong")
    with MLIntern(ScriptedModel([DONE]), home=home, tools=[], enable_slack_notifications=True) as intern:
        assert intern.run("work") == "all done"
        warned = [event.text for event in intern.session().events.history if isinstance(event, Warned)]
    assert any("refuses the tokens" in text for text in warned)


def test_a_task_of_the_terminal_is_answered_in_slack(slack: LocalSlack, home: Path, capsys) -> None:
    asks = action("final_answer(ask_user('Which licence?', choices=['mit', 'bsd'])['answer'])")
    codes: list[int] = []

    def press() -> None:
        slack.click(card_in(slack, "choice_1"), "choice_1")

    presses = threading.Thread(target=press)
    presses.start()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        codes.append(run(Order(task="ask", model=ScriptedModel([asks]), home=home, slack=True, json=True)))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    presses.join()
    assert codes == [0] and '"answer": "bsd"' in capsys.readouterr().out
    root = next(m for m in slack.said() if not m.thread_ts)
    assert ended(slack, root.ts).text.startswith("Ended: success")


def test_the_doctor_says_how_far_slack_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding().ok is None and "slack --help" in finding().remedy
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-1")
    monkeypatch.setenv("SLACK_CHANNEL_ID", "C1")
    assert finding().ok and "it is told" in finding().says
    monkeypatch.setenv("SLACK_APP_TOKEN", "xapp-1")
    assert finding().ok is None and "SLACK_OWNER" in finding().remedy
    monkeypatch.setenv("SLACK_APPROVERS", "U1")
    assert finding().ok and "answers" in finding().says
