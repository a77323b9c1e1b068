"""Slack and the network at their worst. Never: a session held up or ended by Slack, a decision lost or counted twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gateways.slack_team import DONE, PUBLISH, Team, action, card_in, ended, gateway_of
from sessions.conftest import ByTask, notes, until

from ml_intern import InternError, MLIntern, State
from ml_intern.events import (
    CodePrinted,
    PlanChanged,
    Steered,
    ToolCalled,
    ToolReturned,
)
from ml_intern.gateways.slack_book import Asked, Book
from ml_intern.testing import ScriptedModel
from ml_intern.testing.slack import LocalSlack


def cards_of(slack: LocalSlack, thread: str) -> list:
    return [
        m
        for m in slack.said(thread)
        if ("publish" in m.shown and "Waits" in (m.text or "")) or (m.edits and "publish" in m.shown)
    ]


def test_of_twenty_clicks_at_once_one_counts(slack: LocalSlack, team: Team) -> None:
    intern, _, published = team([PUBLISH, DONE])
    root = slack.say("UANN", "<@UBOT> publish it")
    card = card_in(slack)
    slack.click(card, "approve", times=20)
    ended(slack, root.ts)
    (session,) = intern.sessions.values()
    assert published == ["me/model"] and len(notes(session, "approval-answered")) == 1
    until(lambda: all(envelope.acknowledged.is_set() for envelope in slack.socket.envelopes.values()))
    assert all(envelope.at - envelope.sent[0] < 3 for envelope in slack.socket.envelopes.values())


def test_doubled_and_reordered_events_are_one_session_and_one_word(slack: LocalSlack, team: Team) -> None:
    wait = action("import time\ntime.sleep(0.8)")
    intern, _, _ = team([wait, DONE])
    slack.socket.drop()  # what is said now comes when the next connection is there, in any order
    root = slack.say("UANN", "<@UBOT> work", times=3)
    slack.say("UANN", "use seed 3", thread_ts=root.ts, times=3)
    mentions = [e for e in slack.socket.envelopes.values() if e.row["payload"]["event"]["text"] != "use seed 3"]
    for envelope in mentions:  # the reply first
        slack.socket.envelopes[envelope.id] = slack.socket.envelopes.pop(envelope.id)
    ended(slack, root.ts)
    (session,) = intern.sessions.values()
    assert [e.text for e in session.events.history if isinstance(e, Steered)] == ["use seed 3"]
    assert len([m for m in slack.said(root.ts) if "On it" in m.shown]) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "leaves", [("drop", "drop", "drop"), pytest.param(("disconnect", "drop", "disconnect"), marks=pytest.mark.soak)]
)
def test_three_reconnects_in_the_middle(slack: LocalSlack, team: Team, leaves: tuple[str, ...]) -> None:
    rests = action("import time\ntime.sleep(1.2)")  # words come again after a while
    intern, _, published = team([PUBLISH] * 3 + [rests, DONE])
    root = slack.say("UANN", "<@UBOT> publish three times")
    for number, leave in enumerate(leaves, 1):
        card = card_in(slack)
        before, key = slack.socket.connections, card.buttons()["approve"]["value"]
        getattr(slack.socket, leave)()
        slack.click(card, "approve")  # on its way while the connection changes; Slack does not send a click again
        slack.say("UANN", f"word {number}", thread_ts=root.ts)
        until(lambda: slack.socket.connections > before)  # noqa: B023 - waited for here
        slack.click(card, "approve", value=key)
        slack.wait(lambda: len(published) == number and not card.buttons(), 15)  # noqa: B023
    ended(slack, root.ts)
    (session,) = intern.sessions.values()
    assert len(notes(session, "approval-answered")) == 3
    heard = [event.text for event in session.events.history if isinstance(event, Steered)]
    assert sorted(heard) == ["word 1", "word 2", "word 3"]


@pytest.mark.parametrize("seconds", [0.9, pytest.param(60.0, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])
def test_a_minute_of_429_holds_up_nobody_and_all_is_told_after_it(
    slack: LocalSlack, team: Team, seconds: float
) -> None:
    intern, _, published = team([action("plan([{'text': 'a', 'status': 'done'}])"), PUBLISH, DONE])
    slack.limit("", seconds)
    session = intern.submit("publish it")
    until(lambda: session.state == "waiting", 5)
    card = slack.wait(lambda: next((m for m in slack.said() if "approve" in m.buttons()), None), seconds + 10)
    slack.limit("chat.update", seconds)
    slack.click(card, "approve")
    assert session.wait(5).state is State.SUCCESS and published == ["me/model"]
    root = next(m for m in slack.said() if not m.thread_ts)
    slack.wait(lambda: any(m.text.startswith("Ended") for m in slack.said(root.ts)), seconds + 20)
    assert card.buttons(), "what cannot be edited yet holds up nothing else"
    slack.wait(lambda: not card.buttons(), seconds + 10)
    assert sum("Waits for" in m.text or m is card for m in slack.said()) == 1
    assert sum("Plan" in m.text for m in slack.said()) == 1


def test_a_slack_that_is_away_stops_nothing_and_is_told_later(slack: LocalSlack, team: Team) -> None:
    warned: list[str] = []
    intern, gateway, _published = team([action("print(1)"), DONE], options={"warn": warned.append})
    slack.service.close()
    slack.socket.drop()
    session = intern.submit("work")
    assert session.wait(10).state is State.SUCCESS
    until(lambda: warned)
    assert len(warned) == 1 and "cannot be reached" in warned[0] and "xoxb" not in warned[0]
    slack.service.start()
    root = slack.wait(lambda: next((m for m in slack.said() if "Started" in m.text), None), 20)
    ended(slack, root.ts)
    until(lambda: gateway.connected, 20)


def test_slack_is_away_at_the_start(slack: LocalSlack, home: Path) -> None:
    slack.service.close()
    warned: list[str] = []
    with (
        MLIntern(ScriptedModel([DONE]), home=home, tools=[]) as intern,
        gateway_of(intern, warn=warned.append) as gateway,
    ):
        assert intern.run("work") == "all done" and warned
        slack.service.start()
        until(lambda: gateway.connected, 20)
        slack.wait(lambda: any(m.text.startswith("Ended") for m in slack.said()), 20)


def test_a_click_after_a_restart(slack: LocalSlack, team: Team) -> None:
    published: list[str] = []
    intern, gateway, _ = team([PUBLISH, DONE], published=published)
    root = slack.say("UANN", "<@UBOT> publish it")
    card = card_in(slack)
    (session,) = intern.sessions.values()
    intern.close()
    gateway.close()
    until(lambda: slack.socket.connected == 0, 10)
    slack.click(card, "approve")  # nobody is there; it is delivered to the next one
    intern, gateway, _ = team([DONE], published=published)
    ended(slack, root.ts)
    again = intern.session(session.id)
    assert published == ["me/model"] and again.outcome.state is State.SUCCESS
    assert notes(again, "approval-answered")[0]["by"] == "slack:UANN (uann)"
    slack.wait(lambda: not card.buttons() and "Approved" in card.shown)
    assert len([m for m in slack.said(root.ts) if m.buttons()]) == 0
    slack.click(card, "approve", value="x")


def test_after_a_restart_what_is_open_is_taken_up_and_what_is_not_is_closed(slack: LocalSlack, team: Team) -> None:
    published: list[str] = []
    intern, gateway, _ = team([PUBLISH, DONE], published=published)
    root = slack.say("UANN", "<@UBOT> publish it")
    card = card_in(slack)
    (session,) = intern.sessions.values()
    intern.close()
    gateway.close()
    book = Book(intern.settings.home)
    book.note_asked(Asked("stale", session.id, "call_0", "x", "C1", slack.said(root.ts)[0].ts))
    book.close()
    intern, gateway, _ = team([DONE], published=published)
    assert gateway.take_up() == []
    slack.wait(lambda: any("not waited for any more" in m.shown for m in slack.said(root.ts)))
    assert card.buttons() and len([m for m in slack.said(root.ts) if m.buttons()]) == 1, "no second message for it"
    slack.say("UANN", "and be quick", thread_ts=root.ts)
    slack.click(card, "approve")
    ended(slack, root.ts)
    assert published == ["me/model"]


def test_a_click_that_was_written_down_and_not_acted_on(slack: LocalSlack, team: Team) -> None:
    """The process was killed after it had told Slack that the click had come."""
    published: list[str] = []
    intern, gateway, _ = team([PUBLISH, DONE], published=published)
    root = slack.say("UANN", "<@UBOT> publish it")
    card = card_in(slack)
    intern.close()
    gateway.close()
    book = Book(intern.settings.home)
    click = {"kind": "Clicked", "id": "a:1", "person": {"id": "UANN", "team": "T1", "name": "uann"}, "channel": "C1",
        "ts": card.ts, "action": "approve", "key": card.buttons()["approve"]["value"], "trigger": ""}  # fmt: skip
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with book._alone():
        book._put({"row": "in", "id": "a:1", "pid": dead.pid, "what": click})
    book.close()
    team([DONE], published=published)
    ended(slack, root.ts)
    assert published == ["me/model"]
    team([DONE], published=published)
    time.sleep(0.3)
    assert published == ["me/model"], "it is done, and not acted on again"


def test_a_question_that_nobody_waits_for_any_more(slack: LocalSlack, team: Team) -> None:
    intern, _, published = team([PUBLISH, DONE])
    root = slack.say("UANN", "<@UBOT> publish it")
    card = card_in(slack)
    key = card.buttons()["approve"]["value"]
    (session,) = intern.sessions.values()
    session.interrupt()
    session.wait(10)
    slack.wait(lambda: not card.buttons())
    slack.click(card, "approve", value=key)
    slack.wait(lambda: any("not waited for any more" in m.text for m in slack.messages if m.to == "UANN"))
    assert published == []
    ended(slack, root.ts)


def test_what_is_missing_is_said_at_the_start(slack: LocalSlack, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slack.scopes -= {"files:write", "im:history"}
    slack.channels["C1"]["is_member"] = False
    said: list[str] = []
    with MLIntern(ScriptedModel([DONE]), home=home, tools=[]) as intern:
        with gateway_of(intern, warn=said.append):
            assert any("lacks the scope files:write (plots" in text for text in said)
            assert any("lacks the scope im:history" in text for text in said)
            assert any("/invite" in text for text in said) and len(said) == 3
        slack.scopes.discard("chat:write")
        with gateway_of(intern, warn=said.append, channel="C9") as gateway:
            assert any("no such channel" in text for text in said)
            intern.run("work")
            until(lambda: any("want of the scope chat:write" in text for text in said))
            assert gateway.connected
        monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-wrong")
        with pytest.raises(InternError, match="refuses the tokens"):
            gateway_of(intern).start()
        monkeypatch.delenv("SLACK_BOT_TOKEN")
        with pytest.raises(InternError, match="--manifest"):
            gateway_of(intern)


def side_by_side(slack: LocalSlack, team: Team, count: int) -> None:
    def answer(task: str, said: int) -> str:
        return [action(f"print(publish(what='{task.split('#')[1]}'))"), DONE][min(said, 1)]

    _intern, _, published = team(ByTask(answer))
    roots = [slack.say("UANN", f"<@UBOT> publish #{number}") for number in range(count)]
    slack.wait(lambda: sum("approve" in m.buttons() for m in slack.said()) == count, 120)
    for root in reversed(roots):
        slack.click(next(m for m in slack.said(root.ts) if m.buttons()), "approve")
    for number, root in enumerate(roots):
        report = slack.wait(lambda: next((m for m in slack.said(root.ts) if m.text.startswith("Ended")), None), 120)  # noqa: B023
        assert report.text.startswith("Ended: success") and f"huggingface.co/{number}>" in "".join(
            m.shown for m in slack.said(root.ts)
        )
    assert sorted(published, key=int) == [str(number) for number in range(count)]


def test_sessions_side_by_side_in_their_threads(slack: LocalSlack, team: Team) -> None:
    side_by_side(slack, team, 6)


@pytest.mark.soak
def test_fifty_sessions_in_fifty_threads(slack: LocalSlack, team: Team) -> None:
    side_by_side(slack, team, 50)


def test_a_click_reaches_the_call_in_a_tenth_of_a_second(slack: LocalSlack, team: Team) -> None:
    times: list[float] = []

    class Timed(list):
        def append(self, what: str) -> None:
            times.append(time.monotonic())
            super().append(what)

    _intern, _, _ = team([PUBLISH] * 5 + [DONE], published=Timed())
    root = slack.say("UANN", "<@UBOT> publish five times")
    took = []
    for number in range(1, 6):
        card = card_in(slack)
        envelope = slack.click(card, "approve")
        until(lambda: len(times) == number)  # noqa: B023
        took.append(times[-1] - envelope.sent[0])
        slack.wait(lambda: not card.buttons())  # noqa: B023
    ended(slack, root.ts)
    print(f"click to call: {[round(seconds * 1000) for seconds in took]} ms")
    assert sorted(took)[2] < 0.1, took


def test_a_thousand_events_in_a_minute(slack: LocalSlack, team: Team) -> None:
    """At once, rather: what listens does not hold up who tells, and what is told stays little."""
    intern, _gateway, _ = team([action("import time\ntime.sleep(1.5)"), DONE])
    root = slack.say("UANN", "<@UBOT> work")
    slack.wait(lambda: slack.said(root.ts))
    slack.say("UANN", "verbose", thread_ts=root.ts)
    slack.wait(lambda: any("Each step" in m.shown for m in slack.said(root.ts)))
    (session,) = intern.sessions.values()
    started = time.monotonic()
    for number in range(250):
        session.events.emit(PlanChanged(items=({"text": f"item {number}", "status": "pending"},)))
        session.events.emit(ToolCalled(step=number, call_id=f"c{number}", tool="look", arguments={"n": number}))
        session.events.emit(CodePrinted(step=number, text="x" * 100))
        session.events.emit(ToolReturned(step=number, call_id=f"c{number}", tool="look", ok=True, summary=f"n {number}", seconds=0))  # fmt: skip
    assert time.monotonic() - started < 0.5
    ended(slack, root.ts)
    plans = [m for m in slack.said(root.ts) if "Plan" in m.text]
    assert len(plans) == 1 and "item 249" in plans[0].shown and plans[0].edits < 200
    posted = [at for method, at in slack.calls if method == "chat.postMessage"]
    assert len(posted) < 100
    shown = "\n".join(m.shown for m in slack.said(root.ts))
    assert "n 249" in shown


@pytest.mark.parametrize("count", [150, pytest.param(1_000, marks=pytest.mark.soak)])
def test_what_many_people_say_at_once_is_acknowledged_in_time(slack: LocalSlack, team: Team, count: int) -> None:
    """A third of it in the thread; the rest is their own talk, of which nothing is kept."""
    slack.socket.patience = 3.0
    waits = action("import time, os\nwhile not os.path.exists('go'): time.sleep(0.05)")
    intern, gateway, _ = team([waits, DONE])
    root = slack.say("UANN", "<@UBOT> work")
    slack.wait(lambda: slack.said(root.ts))
    before = gateway.book.path.stat().st_size
    for number in range(count):
        place = {"thread_ts": root.ts} if number % 3 == 0 else {"channel": "C2"}
        slack.say("UANN" if number % 2 else "UBEA", f"word {number}", **place)
    until(lambda: all(envelope.acknowledged.is_set() for envelope in slack.socket.envelopes.values()), 60)
    took = [envelope.at - envelope.sent[0] for envelope in slack.socket.envelopes.values()]
    assert max(took) < 3 and all(len(envelope.sent) == 1 for envelope in slack.socket.envelopes.values())
    until(lambda: not gateway.book.pages.taken, 60)
    (session,) = intern.sessions.values()
    (session.workspace / "go").touch()
    ended(slack, root.ts)
    wanted = {f"word {number}" for number in range(count) if number % 3 == 0 and number % 2}
    until(
        lambda: wanted <= set("\n".join(e.text for e in session.events.history if isinstance(e, Steered)).split("\n")),
        30,
    )
    assert b'word 1"' not in gateway.book.path.read_bytes()[before:]


def test_two_processes_take_an_event_once(home: Path) -> None:
    first, second = Book(home), Book(home)
    assert first.take("m:1", {"kind": "x"}) and not second.take("m:1", {"kind": "x"}) and not first.take("m:1", {})
    first.note_thread("s", "C1", "1.1", "UANN")
    first.note("s", loud=True, open=True, nonsense=1)
    first.note_asked(Asked("k", "s", "call", "d"))
    first.note_closed("k")
    first.note_asked(Asked("k", "s", "call", "d", "C1", "2.2"))
    assert second.session_in("C1", "1.1") == "s" and second.thread("s").loud and second.asked("k").ts == "2.2"
    assert second.asked("k").closed, "what is closed stays so"
    path = first.path
    first.close()
    second.close()
    assert path.stat().st_mode & 0o077 == 0
    with path.open("ab") as file:
        file.write(b'{"row": "in", "id": "m:2"')  # cut off
    third = Book(home)
    assert third.take("m:3", {}) and third.take("m:2", {}) and third.asked("k") is not None
    third.done("m:3")
    third.close()
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines() if b'"m:3"' in line] == ["m:3", "m:3"]
    fourth = Book(home)
    assert [name for name, _ in fourth.undone()] == ["m:1", "m:2"]
    fourth.close()


def test_what_was_said_while_nobody_listened_is_heard(slack: LocalSlack, team: Team) -> None:
    published: list[str] = []
    intern, gateway, _ = team([PUBLISH, DONE], published=published)
    root = slack.say("UANN", "<@UBOT> publish it")
    card = card_in(slack)
    intern.close()
    gateway.close()
    slack.say("UANN", "use seed 3", thread_ts=root.ts)
    slack.say("UBEA", "stop", thread_ts=root.ts)
    for envelope in slack.socket.envelopes.values():  # Slack has given up on them
        envelope.acknowledged.set()
    intern, gateway, _ = team([DONE], published=published)
    gateway.take_up()
    slack.wait(lambda: any("SLACK_APPROVERS" in m.text for m in slack.messages if m.to == "UBEA"))
    slack.click(card, "approve")
    ended(slack, root.ts)
    (session,) = intern.sessions.values()
    assert [event.text for event in session.events.history if isinstance(event, Steered)] == ["use seed 3"]
    assert published == ["me/model"]
