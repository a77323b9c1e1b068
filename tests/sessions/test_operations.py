"""What may be asked of a session while it works, waits or is idle."""

from __future__ import annotations

import time

import pytest
from sessions.conftest import Publish, code, notes, text_of, until
from smolagents import Tool

from ml_intern import InternError, State
from ml_intern.approval import Rule
from ml_intern.events import ApprovalAnswer, Extended, ModeChanged, SessionEnded, Steered, Undone, Warned
from ml_intern.testing import ScriptedModel
from ml_intern.trace import restore


def test_what_is_said_to_a_running_turn_is_read_with_its_next_step(build) -> None:
    import threading

    go = threading.Event()

    def slow(messages):
        go.wait(10)
        return code("print(1)")

    intern = build(ScriptedModel([slow, code("final_answer(2)")]))
    session = intern.submit("Count.")
    until(lambda: session.model.calls == 1)
    intern.steer("To two only.", by="me")
    until(intern._loop._queue.empty)
    time.sleep(0.05)
    go.set()
    assert session.wait(20).answer == 2
    assert "To two only." in text_of(session.model.requests[-1][-1])
    assert [(e.text, e.by) for e in session.events.history if isinstance(e, Steered)] == [("To two only.", "me")]


def test_steering_an_idle_session_is_its_next_task(build) -> None:
    intern = build(ScriptedModel([code("a = 1\nfinal_answer(a)"), code("final_answer(a + 1)")]))
    assert intern.run("One.") == 1
    session = intern.session()
    intern.steer("And two?")
    until(lambda: len([e for e in session.events.history if isinstance(e, SessionEnded)]) == 2)
    assert session.outcome.answer == 2


def test_a_turn_that_used_up_its_steps_goes_on_when_it_is_given_more(build) -> None:
    intern = build(
        ScriptedModel([code("a = 1"), "I have not finished.", code("final_answer(a + 1)")]), max_iterations=1
    )
    intern.run("Count.")
    session = intern.session()
    assert session.outcome.state is State.MAX_STEPS
    intern.extend(steps=5)
    until(lambda: session.outcome is not None and session.outcome.state is State.SUCCESS)
    assert session.outcome.answer == 2
    assert [e.steps for e in session.events.history if isinstance(e, Extended)] and notes(session, "extended")


def test_the_last_turn_can_be_taken_back(build) -> None:
    intern = build(
        ScriptedModel([code("final_answer('first')"), code("final_answer('undone')"), code("final_answer('third')")])
    )
    intern.run("Turn one.")
    session = intern.session()
    for task in ("Turn two.", "Turn three."):
        session.start(task)
        assert session.wait(20)
        if task == "Turn two.":
            intern.undo()
            until(lambda: any(isinstance(e, Undone) for e in session.events.history))
    asked = "\n".join(map(text_of, session.model.requests[-1]))
    assert "Turn one." in asked and "Turn two." not in asked and "undone" not in asked and "Turn three." in asked
    assert [turn.task for turn in restore(session.trace).turns] == ["Turn one.", "Turn three."]
    assert "Turn two." in session.trace.read_text()  # the record is whole


def test_there_is_nothing_to_undo_before_a_turn_and_none_while_one_runs(build) -> None:
    intern = build(ScriptedModel([code("publish(what='a')"), code("final_answer(1)")]), tools=[Publish()])
    session = intern.submit("Publish.")
    until(session.pending)
    with pytest.raises(InternError, match="A turn is running"):
        session.undo()
    session.answer(session.pending()[0].call_id, ApprovalAnswer("approve"))
    assert session.wait(20)


def test_the_mode_changes_while_it_runs_and_outlasts_the_process(build) -> None:
    published: list[str] = []
    script = [code("publish(what='a')"), code("publish(what='b')"), code("final_answer(1)")]
    intern = build(ScriptedModel(script), tools=[Publish(published)])
    session = intern.submit("Publish.")
    until(session.pending)
    intern.set_mode("plan")
    until(lambda: any(isinstance(e, ModeChanged) for e in session.events.history))
    # What plans does not publish, not even what was asked about before: that is no refusal.
    assert session.wait(20).state is State.SUCCESS and published == []
    intern.close()
    again = build(ScriptedModel([]), tools=[Publish(published)])
    assert again.resume(session.id).mode == "plan"


def test_a_kind_of_call_is_allowed_for_the_session(build) -> None:
    published: list[str] = []
    script = [code("publish(what='a')"), code("publish(what='b')"), code("final_answer(1)")]
    intern = build(ScriptedModel(script), tools=[Publish(published)])
    session = intern.submit("Publish.")
    until(session.pending)
    (request,) = session.pending()
    assert request.rule
    intern.approve(session.id, request.call_id, scope="session")
    assert session.wait(20).state is State.SUCCESS and published == ["a", "b"]
    (note,) = notes(session, "rule")
    assert (Rule.parse(note["rule"]), note["scope"]) == (Rule.parse(request.rule), "session")


def test_a_rule_for_good_holds_in_the_next_process(build, home) -> None:
    published: list[str] = []
    intern = build(ScriptedModel([code("publish(what='a')"), code("final_answer(1)")]), tools=[Publish(published)])
    session = intern.submit("Publish.")
    until(session.pending)
    intern.approve(session.id, session.pending()[0].call_id, scope="always")
    assert session.wait(20).state is State.SUCCESS
    intern.close()
    again = build(ScriptedModel([code("publish(what='b')"), code("final_answer(1)")]), tools=[Publish(published)])
    again.run("Publish once more.")
    assert published == ["a", "b"] and again.session().outcome.state is State.SUCCESS


def test_allowed_and_denied_by_rules_of_the_caller(build) -> None:
    published: list[str] = []
    script = [code("publish(what='a')"), code("final_answer(1)")]
    allowed = build(ScriptedModel(list(script)), tools=[Publish(published)], allow=["publish"])
    allowed.run("Publish.")
    assert published == ["a"]
    denied = build(ScriptedModel(list(script)), tools=[Publish(published)], allow=["publish"], deny=["publish"])
    denied.run("Publish.")
    assert published == ["a"] and denied.session().outcome.state is State.DENIED
    with pytest.raises(InternError):
        build(ScriptedModel([]), allow=["((("])
    with pytest.raises(InternError, match="mode"):
        build(ScriptedModel([]), mode="yolo")


def test_the_agent_can_ask_and_gets_the_answer(build) -> None:
    script = [
        code("answer = ask_user(question='Which?', choices=['a', 'b'])\nprint(answer)"),
        code("final_answer(answer)"),
    ]
    intern = build(ScriptedModel(script))
    session = intern.submit("Ask me.")
    until(session.pending)
    (request,) = session.pending()
    assert request.tool == "ask_user" and request.arguments["choices"] == ["a", "b"]
    intern.approve(session.id, request.call_id, text="b, please")
    assert session.wait(20).state is State.SUCCESS
    assert "b, please" in str(session.outcome.answer)


def test_events_can_be_followed_from_any_number(build) -> None:
    intern = build(ScriptedModel([code("print(1)"), code("final_answer(2)")]))
    session = intern.submit("Count.")
    seen = list(intern.events(session.id))
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1)) and isinstance(seen[-1], SessionEnded)
    assert list(intern.events(session.id, since=5)) == seen[5:]


class Hangs(Tool):
    name, description, output_type, effects = "hangs", "Hangs.", "string", "read"
    inputs: dict = {}

    def forward(self) -> str:
        time.sleep(30)
        return "late"


@pytest.mark.parametrize(
    "action",
    [
        "hangs()",
        "import time\ntime.sleep(60)",
        "sum(range(10**13))",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    ],
    ids=["a tool that ignores it", "asleep", "a loop in C", "a fork bomb"],
)
def test_whatever_runs_is_stopped_and_the_session_goes_on(build, action, short_grace) -> None:
    intern = build(ScriptedModel([code(action), code("final_answer('on')")]), tools=[Hangs()])
    session = intern.submit("Hang.")
    until(lambda: any(getattr(e, "code", None) for e in session.events.history))
    time.sleep(0.5)
    began = time.monotonic()
    intern.interrupt()
    assert session.wait(20).state is State.INTERRUPTED
    assert time.monotonic() - began < 5 + 2
    session.start("Go on.")
    assert session.wait(30).answer == "on"


def test_a_rule_can_be_given_while_it_works_and_is_back_when_it_wakes(build) -> None:
    published: list[str] = []
    script = [code("publish(what='a')"), code("publish(what='b')"), code("final_answer(1)")]
    intern = build(ScriptedModel(script), tools=[Publish(published)])
    session = intern.submit("Publish.")
    until(session.pending)
    session.allow("publish")
    session.answer(session.pending()[0].call_id, ApprovalAnswer("approve"))
    assert session.wait(20).state is State.SUCCESS and published == ["a", "b"]
    intern.close()
    again = build(ScriptedModel([code("publish(what='c')"), code("final_answer(1)")]), tools=[Publish(published)])
    resumed = again.resume(session.id, "Once more.")
    assert resumed.wait(20).state is State.SUCCESS and published == ["a", "b", "c"]


def test_an_answer_for_a_session_that_is_not_there_is_refused_to_who_gives_it(build) -> None:
    intern = build(ScriptedModel([]))
    for give in (intern.approve, intern.reject):
        with pytest.raises(InternError, match="no session"):
            give("0000", "call_1")
    with pytest.raises(InternError, match="no session"):
        intern.edit("0000", "call_1", {"what": "b"})


def test_interrupting_a_session_whose_question_was_just_answered_stops_it_all_the_same(build) -> None:
    intern = build(ScriptedModel([code("publish(what='a')"), code("import time\ntime.sleep(60)")]), tools=[Publish()])
    session = intern.submit("Publish.")
    until(session.pending)
    session.answer(session.pending()[0].call_id, ApprovalAnswer("approve"))
    session.interrupt()
    assert session.wait(20).state is State.INTERRUPTED


class Sends(Publish):
    name = "sends"

    def destination(self, what: str) -> dict[str, str]:
        return {"name": "me-myself/model", "visibility": "private"}


def test_a_hub_that_is_away_is_no_obstacle_to_a_question(build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)  # the address that tests have for the Hub refuses all
    sent: list[str] = []
    script = [code("sends(what='a')"), code("final_answer(1)")]
    intern = build(ScriptedModel(script), tools=[Sends(sent)], allow=["sends:me/*"])
    session = intern.submit("Send it.")
    until(session.pending)  # whose namespace it is cannot be known: no rule for one's own allows it
    session.answer(session.pending()[0].call_id, ApprovalAnswer("approve"))
    assert session.wait(20).state is State.SUCCESS and sent == ["a"]


def test_a_line_of_the_rule_book_that_is_no_rule_is_told(build, home) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "rules").write_text("deny hub_push:*:public\ndeny ((\n")
    intern = build(ScriptedModel([code("final_answer(1)")]))
    intern.run("Go.")
    told = [event.text for event in intern.session().events.history if isinstance(event, Warned)]
    assert any("line 2" in text and "does not count" in text for text in told)


def test_a_budget_that_cannot_hold_because_nobody_knows_the_price_is_told_once(build) -> None:
    intern = build(ScriptedModel([code("print(1)"), code("print(2)"), code("final_answer(1)")]), budget_usd=5.0)
    intern.run("Go.")
    told = [event.text for event in intern.session().events.history if isinstance(event, Warned)]
    assert [("$5.00" in text, "ML_INTERN_PRICES" in text) for text in told if "price" in text] == [(True, True)]
    without = build(ScriptedModel([code("final_answer(1)")]))
    without.run("Go.")
    assert not [event for event in without.session().events.history if isinstance(event, Warned)]
