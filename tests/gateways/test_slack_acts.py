"""What people in Slack do, and what of it counts. Never: an act of somebody who may not, or an answer to something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gateways.slack_team import DONE, PUBLISH, Team, action, card_in, ended
from sessions.conftest import notes, until

from ml_intern import State
from ml_intern.events import CodePrinted, Steered
from ml_intern.gateways.control import ControlServer
from ml_intern.testing.slack import LocalSlack


def publishing(slack: LocalSlack, team: Team, **more):
    intern, _gateway, published = team([PUBLISH, DONE], **more)
    root = slack.say("UANN", "<@UBOT> publish it")
    card = card_in(slack)
    (session,) = intern.sessions.values()
    return root, card, session, published


def whispered(slack: LocalSlack, user: str) -> str:
    return "\n".join(m.text for m in slack.messages if m.to == user)


def test_a_refusal_asks_for_its_reason(slack: LocalSlack, team: Team) -> None:
    _root, card, session, published = publishing(slack, team)
    slack.click(card, "reject")
    slack.wait(lambda: slack.views)
    assert session.state == "waiting", "nothing is decided by opening a form"
    slack.submit(slack.views[0], {"reason": "not on a <Friday>"})
    assert session.wait(20).state is State.DENIED and published == []
    slack.wait(lambda: "Refused: not on a &lt;Friday&gt;" in card.shown and not card.buttons())
    assert [(n["decision"], n["reason"], n["by"]) for n in notes(session, "approval-answered")] == [
        ("reject", "not on a <Friday>", "slack:UANN (uann)")
    ]


def test_arguments_are_edited_and_asked_about_again(slack: LocalSlack, team: Team) -> None:
    root, card, session, published = publishing(slack, team)
    slack.click(card, "edit")
    slack.wait(lambda: slack.views)
    unchanged = slack.submit(slack.views[0], {})
    assert unchanged.acknowledged.wait(5) and unchanged.answer["response_action"] == "errors"
    slack.submit(slack.views[0], {"arg:what": "me/other"})
    again = slack.wait(lambda: next((m for m in slack.said(root.ts) if "me/other" in m.shown and m.buttons()), None))
    assert again is not card and not card.buttons() and "Edited" in card.shown
    slack.click(card, "approve", value=again.buttons()["approve"]["value"])  # the old message with the new key
    slack.wait(lambda: "belongs to no question" in whispered(slack, "UANN"))
    assert published == []
    slack.click(again, "approve")
    assert session.wait(20).state is State.SUCCESS and published == ["me/other"]


def test_this_kind_for_the_session(slack: LocalSlack, team: Team) -> None:
    twice = action("print(publish(what='me/a'), publish(what='me/a'))")
    _intern, _, published = team([twice, DONE])
    root = slack.say("UANN", "<@UBOT> publish it twice")
    card = card_in(slack, "approve_session")
    slack.click(card, "approve_session")
    ended(slack, root.ts)
    assert published == ["me/a", "me/a"]
    assert "this kind from now on in this session" in card.shown


def test_a_question_is_answered_by_a_button_a_reply_or_a_form(slack: LocalSlack, team: Team) -> None:
    asks = [
        action(f"a{n} = ask_user('Which <licence> {n}?', choices=['mit', 'apache-2.0'])['answer']") for n in (1, 2, 3)
    ]
    intern, _, _ = team([*asks, action("final_answer([a1, a2, a3])")])
    root = slack.say("UANN", "<@UBOT> ask me")
    first = card_in(slack, "choice_1")
    assert "Which &lt;licence&gt; 1?" in first.shown
    slack.click(first, "choice_1")
    second = slack.wait(lambda: next((m for m in slack.said(root.ts) if " 2?" in m.shown and m.buttons()), None))
    slack.say("UANN", "bsd, please", thread_ts=root.ts)
    third = slack.wait(lambda: next((m for m in slack.said(root.ts) if " 3?" in m.shown and m.buttons()), None))
    slack.click(third, "answer")
    slack.wait(lambda: slack.views)
    slack.submit(slack.views[0], {"answer": "gpl"})
    ended(slack, root.ts)
    (session,) = intern.sessions.values()
    assert session.outcome.answer == ["apache-2.0", "bsd, please", "gpl"]
    slack.wait(lambda: not second.buttons() and "bsd, please" in second.shown)


def test_what_is_forged_or_nobodys_does_not_count(slack: LocalSlack, team: Team) -> None:
    root, card, session, published = publishing(slack, team)
    key = card.buttons()["approve"]["value"]
    slack.click(card, "approve", user="UEVE")
    slack.click(card, "approve", team="T2")
    slack.click(card, "approve", value="approve")
    slack.click(card, "approve", value=key[:-1] + "x")
    slack.click(card, "approve", value="x" * 5_000)
    slack.click(card, "choice_0")
    slack.click(card, "approve_everything")
    slack.click(root, "approve", value=key)
    slack.submit({"type": "modal", "id": "V9", "callback_id": "edited", "private_metadata": "no", "blocks": []}, {})
    slack.submit(
        {"type": "modal", "id": "V8", "callback_id": "reason", "private_metadata": key, "blocks": []}, {}, user="UBEA"
    )
    for extra in (
        {"bot_id": "B2"},
        {"subtype": "bot_message"},
        {"subtype": "message_changed"},
        {"edited": {"user": "UANN", "ts": "1"}},
        {"user_team": "T2"},
        {"source_team": "T2"},
    ):
        slack.say("UANN", "stop", thread_ts=root.ts, **extra)
        slack.say("UANN", "<@UBOT> begin another one", **extra)
    event = {"type": "message", "user": "UANN", "text": "stop", "ts": "9.9", "thread_ts": root.ts, "channel": "C1"}
    slack.tell(event, is_ext_shared_channel=True)
    slack.tell(event, team_id="T2")
    slack.say("UBEA", "stop", thread_ts=root.ts)
    last = slack.say("UBEA", "<@UBOT> begin one for me")
    slack.wait(lambda: sum("SLACK_APPROVERS" in m.text for m in slack.messages if m.to == "UBEA") >= 3)
    until(lambda: all(envelope.acknowledged.is_set() for envelope in slack.socket.envelopes.values()))
    assert session.state == "waiting" and published == [] and slack.said(last.ts) == []
    assert not notes(session, "approval-answered")
    slack.click(card, "approve")
    assert session.wait(20).state is State.SUCCESS and published == ["me/model"]


def test_nobody_is_named_so_slack_is_only_told(
    slack: LocalSlack, team: Team, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    from gateways.slack_team import Publish, gateway_of

    from ml_intern import MLIntern
    from ml_intern.testing import ScriptedModel

    monkeypatch.delenv("SLACK_OWNER")
    with MLIntern(ScriptedModel([PUBLISH, DONE]), home=home, tools=[Publish([])]) as intern, gateway_of(intern):
        session = intern.submit("publish it")
        card = slack.wait(lambda: next((m for m in slack.said() if "Waits" in m.text), None))
        assert card.buttons() == {} and slack.socket.connected == 0
        (request,) = session.pending()
        intern.approve(session.id, request.call_id, by="me")
        slack.wait(lambda: "Approved" in card.shown and "`me`" in card.shown)


def test_a_session_of_the_terminal_is_told_and_answered_in_its_own_thread(
    slack: LocalSlack, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_INTERN_SECRETS", "MY_SHORT")
    monkeypatch.setenv("MY_SHORT", "abc")  # is warned of before the session begins
    intern, _, published = team([PUBLISH, PUBLISH, DONE], enable_slack_notifications=True)
    session = intern.submit("train <!channel>")
    card = card_in(slack)
    root = next(m for m in slack.said() if not m.thread_ts)
    assert root.channel == "C1" and "Started:* train &lt;!channel&gt;" in root.shown and card.thread_ts == root.ts
    (request,) = session.pending()
    intern.approve(session.id, request.call_id, by="terminal")
    slack.wait(lambda: not card.buttons() and "by `terminal`" in card.shown)
    slack.click(card_in(slack, thread=root.ts), "approve")
    ended(slack, root.ts)
    assert published == ["me/model"] * 2
    assert len([m for m in slack.said() if not m.thread_ts]) == 1
    assert any("MY_SHORT" in m.shown for m in slack.said(root.ts)), "told, but not as the beginning"


def test_members_steer_what_is_at_work_and_begin_nothing(
    slack: LocalSlack, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_MEMBERS", "UBEA")
    intern, _, _ = team([action("import time\nprint(1)\ntime.sleep(0.8)"), DONE, DONE])
    root = slack.say("UANN", "<@UBOT> work")
    slack.wait(lambda: slack.said(root.ts))
    slack.say("UBEA", "use seed 3", thread_ts=root.ts)
    ended(slack, root.ts)
    (session,) = intern.sessions.values()
    assert [event.by for event in session.events.history if isinstance(event, Steered)] == ["slack:UBEA"]
    until(lambda: not session.busy)
    slack.say("UBEA", "now do something else", thread_ts=root.ts)
    slack.wait(lambda: "SLACK_APPROVERS" in whispered(slack, "UBEA"))
    assert session.state == "success" and len([m for m in slack.said(root.ts) if m.text.startswith("Ended")]) == 1
    slack.say("UANN", "now do something else", thread_ts=root.ts)
    slack.wait(lambda: len([m for m in slack.said(root.ts) if m.text.startswith("Ended")]) == 2)


def test_words_in_the_thread(slack: LocalSlack, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_MEMBERS", "UBEA")
    slow = action("import time\nprint('at work')\ntime.sleep(60)")
    intern, _, _ = team([slow, DONE], budget_usd=1.0)
    root = slack.say("UANN", "<@UBOT> take your time")
    slack.wait(lambda: slack.said(root.ts))
    (session,) = intern.sessions.values()
    for user, text in (("UBEA", "status"), ("UBEA", "budget 5"), ("UANN", "Budget $5"), ("UANN", "more steps 7"), ("UANN", "model claude-sonnet-4-5"), ("UBEA", "share"), ("UBEA", "model gpt-5")):  # fmt: skip
        slack.say(user, text, thread_ts=root.ts)
    slack.wait(lambda: whispered(slack, "UBEA").count("SLACK_APPROVERS") == 3)
    slack.wait(lambda: "ANTHROPIC_API_KEY is not set" in whispered(slack, "UANN"))
    for words in ("*running*", "$5.00 more", "It may take"):  # in whatever order they come
        slack.wait(lambda words=words: any(words in m.shown for m in slack.said(root.ts)))
    assert session.agent.ledger.budget_usd == 6.0
    assert [(n["usd"], n["by"]) for n in notes(session, "budget")] == [(6.0, "slack:UANN")]
    until(lambda: any(isinstance(event, CodePrinted) for event in session.events.history))
    slack.say("UBEA", "stop", thread_ts=root.ts)
    assert session.wait(20).state is State.INTERRUPTED
    until(lambda: not session.busy)
    slack.say("UANN", "now say hello", thread_ts=root.ts)
    until(lambda: session.outcome is not None and session.outcome.state is State.SUCCESS)


def test_files_dropped_land_in_the_workspace(slack: LocalSlack, team: Team) -> None:
    wait = action("import time, os\nwhile not os.path.exists('notes-2.txt'): time.sleep(0.05)")
    look = action("import os\nfinal_answer(sorted((n, open(n).read()) for n in os.listdir()))")
    intern, _, _ = team([wait, look])
    root = slack.say("UANN", "<@UBOT> look at this", files={"notes.txt": b"one"})
    slack.wait(lambda: slack.said(root.ts))
    slack.say("UANN", "and this", thread_ts=root.ts, files={"../../notes.txt": b"two", ".ssh/.x": b"three"})
    slack.say("UBEA", "and mine", thread_ts=root.ts, files={"evil.txt": b"four"})
    ended(slack, root.ts)
    (session,) = intern.sessions.values()
    assert session.outcome.answer == [["notes-2.txt", "two"], ["notes.txt", "one"], ["x", "three"]] or session.outcome.answer == [
        ("notes-2.txt", "two"), ("notes.txt", "one"), ("x", "three")
    ]  # fmt: skip
    heard = [event.text for event in session.events.history if isinstance(event, Steered)]
    assert any("`notes-2.txt` is in the workspace" in text for text in heard)


def test_of_a_mentions_two_events_only_one_may_have_the_files(slack: LocalSlack, team: Team) -> None:
    look = action(
        "import time, os\nwhile not os.path.exists('notes.txt'): time.sleep(0.05)\nfinal_answer(os.listdir())"
    )
    intern, _, _ = team([look])
    root = slack.say("UANN", "<@UBOT> look at this", subtype="file_share")
    files = [slack._file("notes.txt", b"one")]
    slack.wait(lambda: slack.said(root.ts))
    for _ in range(2):
        slack.tell({"type": "message", "subtype": "file_share", "user": "UANN", "text": "<@UBOT> look at this", "ts": root.ts,
            "channel": "C1", "files": files})  # fmt: skip
    ended(slack, root.ts)
    (session,) = intern.sessions.values()
    assert session.outcome.answer == ["notes.txt"]


def test_an_envelope_that_says_no_more_than_it_has_to(slack: LocalSlack, team: Team) -> None:
    """Fields that say nothing of the person are not needed: no workspace, no container, no times."""
    intern, _, published = team([PUBLISH, DONE])
    base = slack.say("UANN", "look")
    event = {
        "type": "app_mention",
        "user": "UANN",
        "text": "<@UBOT|ml-intern> publish it",
        "ts": base.ts,
        "channel": "C1",
    }
    slack.socket.send("events_api", {"type": "event_callback", "event_id": "Ev1", "event": event})
    card = card_in(slack)
    pressed = {"action_id": "approve", "value": card.buttons()["approve"]["value"]}
    click = {"type": "block_actions", "channel": {"id": "C1"}, "message": {"ts": card.ts}, "actions": [pressed]}
    slack.socket.send("interactive", {**click, "user": {"id": "UBEA"}, "trigger_id": "1"})
    slack.wait(lambda: "SLACK_APPROVERS" in whispered(slack, "UBEA"))
    slack.socket.send("interactive", {**click, "user": {"id": "UANN"}, "trigger_id": "2"})
    ended(slack, base.ts)
    assert published == ["me/model"]
    (session,) = intern.sessions.values()
    assert session.title == "publish it"
    for text in ("status", ""):
        slack.socket.send("slash_commands", {"command": "/ml-intern", "text": text, "user_id": "UANN", "channel_id": "C1", "trigger_id": text})  # fmt: skip
    slack.wait(lambda: "publish it: success" in whispered(slack, "UANN") and "`stop`" in whispered(slack, "UANN"))


def test_the_token_goes_to_slack_alone(slack: LocalSlack, team: Team) -> None:
    intern, _, _ = team([DONE])
    file = {"id": "F1", "name": "x", "size": 3, "url_private_download": "http://127.0.0.1:9/steal"}
    base = slack.say("UANN", "look")
    slack.tell(
        {
            "type": "app_mention",
            "user": "UANN",
            "text": "<@UBOT> look",
            "ts": base.ts,
            "channel": "C1",
            "files": [file],
        }
    )
    slack.wait(lambda: "does not lie with Slack" in whispered(slack, "UANN"))
    assert intern.sessions == {}


def test_the_slash_command(slack: LocalSlack, team: Team) -> None:
    _intern, _, _ = team([DONE])
    slack.command("UBEA", "work for me")
    slack.wait(lambda: "SLACK_APPROVERS" in whispered(slack, "UBEA"))
    slack.command("UANN", "work for me")
    root = slack.wait(lambda: next((m for m in slack.said() if "Started" in m.text and not m.to), None))
    ended(slack, root.ts)
    slack.command("UANN", "status")
    slack.wait(lambda: "work for me: success" in whispered(slack, "UANN"))
    slack.channels["C2"]["is_member"] = False
    slack.command("UANN", "work there", channel="C2")
    slack.wait(lambda: "not in the channel: /invite" in whispered(slack, "UANN"))
    slack.channels["C2"] |= {"is_member": True, "is_ext_shared": True}
    slack.command("UANN", "work there", channel="C2")
    slack.wait(lambda: "shared with another workspace" in whispered(slack, "UANN"))


def test_words_as_a_slash_command(slack: LocalSlack, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slack has no slash commands in threads: they mean the one session at work in the channel, or the one that they name."""
    monkeypatch.setenv("SLACK_MEMBERS", "UBEA")
    slow = action("import time\nprint('at work')\ntime.sleep(60)")
    intern, _, _ = team([slow, slow], budget_usd=1.0)
    slack.command("UANN", "stop")
    slack.wait(lambda: "no such session here" in whispered(slack, "UANN"))
    first = slack.say("UANN", "<@UBOT> one")
    slack.wait(lambda: slack.said(first.ts))
    slack.command("UANN", "budget 5")
    slack.wait(lambda: any("$5.00 more" in m.shown for m in slack.said(first.ts)))
    assert "$5.00 more" in whispered(slack, "UANN")
    second = slack.say("UANN", "<@UBOT> two")
    slack.wait(lambda: slack.said(second.ts))
    one, two = intern.sessions.values()
    slack.command("UBEA", "stop")
    slack.wait(lambda: f"{one.id[:8]}, {two.id[:8]}" in whispered(slack, "UBEA"))
    slack.command("UBEA", f"budget 5 {two.id[:8]}")
    slack.wait(lambda: "SLACK_APPROVERS" in whispered(slack, "UBEA"))
    slack.command("UBEA", f"model {two.id[:6]}")
    slack.wait(lambda: "`scripted`" in whispered(slack, "UBEA"))
    slack.command("UBEA", f"stop {two.id[:8]}")
    assert two.wait(20).state is State.INTERRUPTED and one.state == "running"
    slack.wait(lambda: two.state != "running")  # its thread has ended as well: now there is one at work
    slack.command("UBEA", "stop")
    assert one.wait(20).state is State.INTERRUPTED


def test_words_reach_a_session_in_another_process(
    slack: LocalSlack, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://127.0.0.1:9")
    waits = action("import time, os\nwhile not os.path.exists('go'): time.sleep(0.05)")
    worker, _, _ = team([waits, action("print(1)"), DONE], budget_usd=1.0)
    with ControlServer(worker):
        session = worker.submit("take your time")
        root = slack.wait(lambda: next((m for m in slack.said() if "Started" in m.text), None))
        other, _, _ = team([DONE])
        until(lambda: slack.socket.connected == 2)
        for text in ("verbose", "budget 5", "more steps 7", "model ollama/none", "status"):
            slack.say("UANN", text, thread_ts=root.ts)
        for words in ("Each step is told", "$5.00 more", "It may take", "take your time"):
            slack.wait(lambda words=words: any(words in m.shown for m in slack.said(root.ts)))
        slack.wait(lambda: "Nothing answers for" in whispered(slack, "UANN"))
        assert session.agent.ledger.budget_usd == 6.0
        assert [(n["usd"], n["by"]) for n in notes(session, "budget")] == [(6.0, "slack:UANN")]
        (session.workspace / "go").touch()
        ended(slack, root.ts)
        assert any("I go on" in m.shown for m in slack.said(root.ts)) and other.sessions == {}


def test_an_answer_reaches_a_session_in_another_process(slack: LocalSlack, team: Team) -> None:
    worker, _, published = team([PUBLISH, DONE])
    with ControlServer(worker):
        session = worker.submit("publish it")
        card = card_in(slack)
        other, _, _ = team([DONE])  # Slack tells one of those that listen: the last one, here
        slack.socket.wait_connected()
        until(lambda: slack.socket.connected == 2)
        slack.say("UANN", "be quick", thread_ts=card.thread_ts)
        until(lambda: session._shop is not None and session._shop.agent.supervisor is not None)
        slack.click(card, "approve")
        assert session.wait(20).state is State.SUCCESS
        assert published == ["me/model"] and other.sessions == {}
        assert notes(session, "approval-answered")[0]["by"] == "slack:UANN (uann)"
        slack.wait(lambda: not card.buttons())


def test_no_secret_is_told(slack: LocalSlack, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cr3t-V4lue-0123456789abcdef"
    monkeypatch.setenv("MY_API_KEY", secret)
    tells = action(f"print(publish(what='{secret}'))")
    _intern, _, _ = team([tells, action(f"final_answer('the key is {secret}')")])
    root = slack.say("UANN", "<@UBOT> verbose work")
    slack.say("UANN", "verbose", thread_ts=root.ts)
    slack.click(card_in(slack), "approve")
    ended(slack, root.ts)
    everything = json.dumps([[m.text, m.blocks] for m in slack.said()])
    assert secret not in everything and "MY_API_KEY" in everything
    assert slack.bot_token not in everything
