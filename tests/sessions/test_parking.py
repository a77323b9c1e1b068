"""A session that waits for a person gives up thread and jail; the answer wakes it. Never: an action entered half-way."""

from __future__ import annotations

import gc
import time
from dataclasses import replace

import pytest
from sessions.conftest import ByTask, Publish, code, notes, result_rows, text_of, threads_of, until

from ml_intern import InternError, State
from ml_intern.errors import JournalFailed
from ml_intern.events import ApprovalAnswer, ApprovalAsked, Parked, Resumed
from ml_intern.execution.process import tree
from ml_intern.testing import ScriptedModel
from ml_intern.trace import Journal, read_rows

HALF_WAY = code("kept = 41")
DOES = code(
    "half = 1\nopen('before.txt', 'w').write('x')\nprint(publish(what='a'))\nopen('after.txt', 'w').write('x')"
)


def asks(messages):
    """A model takes its time: variables are saved meanwhile."""
    time.sleep(0.3)
    return DOES


AFTER = code("import os\nfinal_answer([kept, 'half' in globals(), sorted(os.listdir())])")


def parked(build, script, published, **options):
    intern = build(ScriptedModel(script), tools=[Publish(published)], **options)
    intern._config = replace(intern._config, park_seconds=0.0)
    session = intern.submit("Publish a.")
    until(lambda: any(isinstance(event, Parked) for event in session.events.history))
    return intern, session


def test_an_answer_wakes_a_session_that_has_no_thread_and_no_jail(build) -> None:
    published: list[str] = []
    intern, session = parked(build, [HALF_WAY, asks, AFTER], published)
    assert session.state == "waiting" and not session.busy and not threads_of(session) and session._shop is None
    (request,) = session.pending()
    assert (request.tool, request.arguments) == ("publish", {"what": "a"})
    assert published == [] and session.wait(0.3) is None
    intern.approve(session.id, request.call_id, by="me")
    assert session.wait(20).state is State.SUCCESS
    assert session.outcome.answer == [
        41,
        False,
        ["before.txt"],
    ]  # the variable is back, the half action is not entered
    assert published == ["a"] and result_rows(session.trace, request.call_id) == 1
    assert [note["by"] for note in notes(session, "approval-answered")] == ["me"]
    model = session.model
    seen = text_of(model.requests[-1][-1])
    assert "published a" in seen and "not run again" in seen
    assert any(isinstance(event, Resumed) for event in session.events.history)


def test_a_refusal_wakes_it_too_and_the_model_reads_the_reason(build) -> None:
    published: list[str] = []
    intern, session = parked(build, [asks, code("final_answer('well')")], published)
    (request,) = session.pending()
    intern.reject(session.id, request.call_id, "not on a Friday")
    assert session.wait(20).state is State.DENIED and published == []
    assert "not on a Friday" in text_of(session.model.requests[-1][-1])
    assert result_rows(session.trace, request.call_id) == 1


def test_an_answer_counts_once(build) -> None:
    published: list[str] = []
    _, session = parked(build, [asks, code("final_answer('well')")], published)
    (request,) = session.pending()
    session.answer(request.call_id, ApprovalAnswer("approve", by="first"))
    with pytest.raises(InternError, match="Nothing waits"):
        session.answer(request.call_id, ApprovalAnswer("approve", by="second"))
    assert session.wait(20).state is State.SUCCESS and published == ["a"]
    with pytest.raises(InternError, match="Nothing waits"):
        session.answer(request.call_id, ApprovalAnswer("reject"))


def test_arguments_can_be_edited_while_it_sleeps_and_are_asked_about_again(build) -> None:
    published: list[str] = []
    intern, session = parked(build, [asks, code("final_answer('well')")], published)
    (request,) = session.pending()
    intern.edit(session.id, request.call_id, {"what": "b"})
    until(lambda: [r.arguments for r in session.pending()] == [{"what": "b"}])
    assert published == []
    until(lambda: not session.busy)  # it is asked about, and sleeps again
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS and published == ["b"]


def test_a_yes_to_one_that_sleeps_does_not_undo_what_was_forbidden_since(build) -> None:
    published: list[str] = []
    intern, session = parked(build, [asks, code("final_answer('well')")], published)
    session.set_mode("deny")
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.DENIED and published == []


def test_a_disk_that_is_full_as_it_falls_asleep_ends_its_turn_and_holds_up_nobody(build, monkeypatch) -> None:
    published: list[str] = []
    note = Journal.note

    def full(journal: Journal, kind: str, **fields) -> str:
        if kind == "parked":
            raise JournalFailed("The trace could not be written", "the disk is full")
        return note(journal, kind, **fields)

    monkeypatch.setattr(Journal, "note", full)
    intern = build(ScriptedModel([asks, code("final_answer('well')")]), tools=[Publish(published)])
    intern._config = replace(intern._config, park_seconds=0.0)
    session = intern.submit("Publish a.")
    outcome = session.wait(20)
    assert outcome.state is State.ERROR and "the disk is full" in outcome.reason and published == []
    assert not session.busy and not session.pending() and session._shop is None and not threads_of(session)
    monkeypatch.setattr(Journal, "note", note)
    session.start("Go on.")
    assert session.wait(20).answer == "well" and published == []


def test_interrupting_a_session_that_sleeps_ends_its_turn(build) -> None:
    published: list[str] = []
    intern, session = parked(build, [asks], published)
    intern.interrupt(session.id)
    assert session.wait(20).state is State.INTERRUPTED and published == [] and not session.pending()


def test_what_is_said_to_a_session_that_sleeps_is_read_when_it_wakes(build) -> None:
    published: list[str] = []
    intern, session = parked(build, [asks, code("final_answer('well')")], published)
    intern.steer("Mind the licence.", session.id)
    (request,) = session.pending()
    intern.approve(session.id, request.call_id)
    assert session.wait(20).state is State.SUCCESS
    assert any("Mind the licence." in text_of(message) for message in session.model.requests[-1])


def test_closing_leaves_the_question_open_and_another_process_takes_it_up(build, home) -> None:
    published: list[str] = []
    intern = build(ScriptedModel([HALF_WAY, asks]), tools=[Publish(published)])
    session = intern.submit("Publish a.")
    until(session.pending)
    (request,) = session.pending()
    intern.close()
    assert not session.busy and not notes(session, "end")
    again = build(ScriptedModel([AFTER]), tools=[Publish(published)])
    resumed = again.resume(session.id)
    assert [event.request.call_id for event in resumed.events.history if isinstance(event, ApprovalAsked)] == [
        request.call_id
    ]
    assert resumed.state == "waiting"
    again.approve(resumed.id, request.call_id)
    assert resumed.wait(20).answer == [41, False, ["before.txt"]] and published == ["a"]
    rows = list(read_rows(session.trace))
    uuids = [row["uuid"] for row in rows if "uuid" in row]
    assert len(set(uuids)) == len(uuids)


@pytest.mark.long
def test_only_a_few_keep_their_jail_while_they_wait(build) -> None:
    published: list[str] = []
    model = ByTask(
        lambda task, said: [code("x = 1"), code(f"publish(what={task[-1]!r})"), code("final_answer(x)")][said], 0.3
    )
    intern = build(model, tools=[Publish(published)])
    sessions = [intern.submit(f"Publish {n}") for n in range(8)]
    until(lambda: all(session.pending() for session in sessions))
    until(lambda: sum(session.busy for session in sessions) <= intern._warm.limit, 10)
    for session in sessions:
        intern.approve(session.id, session.pending()[0].call_id)
    assert [str(session.wait(30).state) + session.outcome.reason for session in sessions] == ["success"] * 8
    assert sorted(published) == sorted(map(str, range(8)))
    assert [session.outcome.answer for session in sessions] == [1] * 8
    until(lambda: sum(session._shop is not None for session in sessions) <= intern._warm.limit, 10)


def _waiting(build, count: int) -> tuple[float, float]:
    """Megabytes of the whole process tree more for `count` sessions that sleep, and seconds to wake one."""
    import os

    from ml_intern.execution.process import shared

    published: list[str] = []
    model = ByTask(lambda task, said: [code(f"publish(what={task[-1]!r})"), code("final_answer(1)")][said])
    intern = build(model, tools=[Publish(published)])
    intern._config = replace(intern._config, park_seconds=0.0)
    first = intern.submit("Publish 0")
    until(lambda: first.state == "waiting" and not first.busy)
    gc.collect()
    before = shared(list(tree(os.getpid())))
    sessions = []
    for n in range(count):
        sessions.append(intern.submit(f"Publish {n % 10}"))
        until(lambda: sum(session.state != "waiting" or session.busy for session in sessions) < 4, 60)
    until(lambda: all(session.state == "waiting" and not session.busy for session in sessions), 60)
    gc.collect()
    more = (shared(list(tree(os.getpid()))) - before) / (1 << 20)
    chosen = sessions[count // 2]
    began = time.monotonic()
    intern.approve(chosen.id, chosen.pending()[0].call_id)
    until(lambda: any(isinstance(event, Resumed) for event in chosen.events.history))
    awake = time.monotonic() - began
    assert chosen.wait(20).state is State.SUCCESS
    print(f"\n{count} sessions that sleep: {more:.1f} MB more; awake in {awake:.2f} s")
    return more, awake


@pytest.mark.long
def test_sleeping_sessions_weigh_little(build) -> None:
    more, awake = _waiting(build, 30)
    assert more < 30 * 0.3 + 6 and awake < 4


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_thousand_sleeping_sessions(build) -> None:
    more, awake = _waiting(build, 1000)
    assert more < 300 and awake < 2


def test_an_answer_given_while_it_slept_counts_for_no_other_call(build) -> None:
    published: list[str] = []
    again = code("print(publish(what='b'))")
    intern, session = parked(build, [asks, again, code("final_answer('well')")], published)
    (first,) = session.pending()
    intern.approve(session.id, first.call_id)
    until(lambda: [request.arguments for request in session.pending()] == [{"what": "b"}])
    assert published == ["a"] and session.pending()[0].call_id != first.call_id
    until(lambda: not session.busy)
    intern.reject(session.id, session.pending()[0].call_id, "one is enough")
    assert session.wait(20).state is State.DENIED and published == ["a"]


@pytest.mark.parametrize("decision", ["reject", "stop"])
def test_a_no_to_going_on_that_was_said_while_it_slept_ends_the_turn(build, decision: str) -> None:
    intern = build(ByTask(lambda task, said: code("print('the same')")))
    intern._config = replace(intern._config, park_seconds=0.0)
    session = intern.submit("Go round.")
    until(lambda: session.pending() and not session.busy)
    (request,) = session.pending()
    assert request.tool == "go_on"
    steps = session.trace.read_text().count('"python_interpreter"')
    session.answer(request.call_id, ApprovalAnswer(decision, "that is enough", "me"))
    assert session.wait(20).state is State.STUCK and "that is enough" in session.outcome.reason
    assert session.trace.read_text().count('"python_interpreter"') == steps
