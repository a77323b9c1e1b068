"""A session that waits has no thread: neither its own nor those of its calls. Its code waits where it stands, and goes on there.

What must never happen: a question that waits like that is lost, counts twice or is asked twice; code that waits is entered anew.
"""

from __future__ import annotations

import gc
import threading
import time
import traceback
from dataclasses import replace

import pytest
from sessions.conftest import ByTask, Publish, code, notes, result_rows, text_of, threads_of, until

from ml_intern import InternError, State
from ml_intern.events import ApprovalAnswer, Parked
from ml_intern.testing import LocalE2B, ScriptedModel

ONCE = code("import uuid\nkept = uuid.uuid4().hex\nprint(publish(what='a'))\nfinal_answer(kept)")
TWO = code(
    """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(2) as pool:
    done = list(pool.map(lambda what: publish(what=what), ["a", "b"]))
final_answer(done)
"""
)


def calls() -> int:
    """Threads that host calls run on, in all of this process."""
    return sum(thread.name == "ml-intern-call" for thread in threading.enumerate())


def held(build, script, published, **options):
    """A session that waits with its jail, and with no thread."""
    intern = build(ScriptedModel(script), tools=[Publish(published)], **options)
    session = intern.submit("Publish.")
    without_thread(session)
    return intern, session


def without_thread(session) -> None:
    until(lambda: session.pending() and session._hold is not None and not threads_of(session))


def test_a_session_that_waits_has_no_thread_and_its_code_goes_on_where_it_stood(build) -> None:
    published: list[str] = []
    before = calls()
    intern, session = held(build, [ONCE], published)
    assert session.state == "waiting" and session.busy and session._shop is not None
    until(lambda: calls() <= before, 10)  # those that are idle end
    (request,) = session.pending()
    intern.approve(session.id, request.call_id, by="me")
    assert session.wait(20).state is State.SUCCESS and len(session.outcome.answer) == 32
    assert published == ["a"] and result_rows(session.trace, request.call_id) == 1
    assert len(notes(session, "approval-asked")) == len(notes(session, "approval-answered")) == 1
    assert not notes(session, "parked") and not threads_of(session)


def test_a_refusal_is_the_codes_to_handle(build) -> None:
    published: list[str] = []
    handles = "try:\n    publish(what='a')\nexcept Exception as error:\n    final_answer(str(error))"
    intern, session = held(build, [code(handles)], published)
    intern.reject(session.id, session.pending()[0].call_id, "not on a Friday")
    assert "not on a Friday" in session.wait(20).answer and published == []


def test_edited_arguments_are_asked_about_again_while_the_code_waits(build) -> None:
    published: list[str] = []
    intern, session = held(build, [ONCE], published)
    (request,) = session.pending()
    intern.edit(session.id, request.call_id, {"what": "b"})
    until(lambda: [each.arguments for each in session.pending()] == [{"what": "b"}])
    without_thread(session)
    with pytest.raises(InternError, match="Nothing waits"):  # what they were shown is not what is asked now
        session.answer(request.call_id, ApprovalAnswer("approve"), asked=request)
    intern.approve(session.id, request.call_id)
    assert session.wait(20).state is State.SUCCESS and published == ["b"]
    assert [note["arguments"] for note in notes(session, "approval-asked")] == [{"what": "a"}, {"what": "b"}]


def test_an_answer_counts_once(build) -> None:
    published: list[str] = []
    _, session = held(build, [ONCE], published)
    (request,) = session.pending()
    session.answer(request.call_id, ApprovalAnswer("approve", by="first"))
    with pytest.raises(InternError, match="Nothing waits"):
        session.answer(request.call_id, ApprovalAnswer("reject", by="second"))
    assert session.wait(20).state is State.SUCCESS and published == ["a"]
    assert [note["by"] for note in notes(session, "approval-answered")] == ["first"]


@pytest.mark.parametrize("first", [0, 1])
def test_two_independent_calls_wait_together_and_are_answered_in_any_order(build, first: int) -> None:
    published: list[str] = []
    intern, session = held(build, [TWO], published)
    until(lambda: len(session.pending()) == 2)
    without_thread(session)
    requests = session.pending()
    intern.approve(session.id, requests[first].call_id)
    until(lambda: published)
    without_thread(session)
    intern.approve(session.id, requests[1 - first].call_id)
    assert session.wait(20).answer == ["published a", "published b"]
    assert published == [requests[n].arguments["what"] for n in (first, 1 - first)]


def test_a_rule_that_an_answer_gives_answers_the_other_as_well(build) -> None:
    published: list[str] = []
    _, session = held(build, [TWO], published)
    until(lambda: len(session.pending()) == 2)
    session.answer(session.pending()[0].call_id, ApprovalAnswer("approve", by="me", scope="session"))
    assert session.wait(20).state is State.SUCCESS and sorted(published) == ["a", "b"]
    assert [note["by"] for note in notes(session, "approval-answered")] == ["me", "session"]


def test_a_rule_that_is_given_meanwhile_answers_it(build) -> None:
    published: list[str] = []
    _, session = held(build, [ONCE], published)
    session.allow("publish")
    assert session.wait(20).state is State.SUCCESS and published == ["a"] and not session.pending()


def test_no_answer_is_taken_once_a_rule_has_answered(build) -> None:
    began, goes_on = threading.Event(), threading.Event()

    class Slow(Publish):
        def forward(self, what: str) -> str:
            began.set()
            goes_on.wait(20)
            return super().forward(what)

    published: list[str] = []
    intern = build(ScriptedModel([ONCE]), tools=[Slow(published)])
    session = intern.submit("Publish.")
    without_thread(session)
    (request,) = session.pending()
    session.allow("publish")
    assert began.wait(20) and not session.pending()
    with pytest.raises(InternError, match="Nothing waits"):  # it is under way: who says no now has to hear that
        session.answer(request.call_id, ApprovalAnswer("reject", "no"))
    goes_on.set()
    assert session.wait(20).state is State.SUCCESS and published == ["a"]


def test_a_refusal_that_comes_while_rules_are_looked_at_counts(build) -> None:
    published: list[str] = []
    _, session = held(build, [ONCE], published)
    gate, (request,) = session._shop.agent.gate, session.pending()
    budget, refused = gate.left_usd, []

    def left_usd() -> float | None:
        if (
            not refused
            and gate.policy.rules
            and not any(frame.name == "_approved" for frame in traceback.extract_stack())
        ):
            refused.append(1)
            session.answer(request.call_id, ApprovalAnswer("reject", "not on a Friday"))
        return budget()

    gate.left_usd = left_usd
    session.allow("publish")
    assert session.wait(20).state is not State.SUCCESS and published == [] and refused
    assert [(note["decision"], note["reason"]) for note in notes(session, "approval-answered")] == [
        ("reject", "not on a Friday")
    ]


@pytest.mark.parametrize("change", ["plan", "deny", "deny publish"])
def test_what_is_forbidden_meanwhile_waits_no_longer(build, change: str) -> None:
    published: list[str] = []
    tells = code("try:\n    publish(what='a')\nexcept Exception as error:\n    final_answer(str(error))")
    _, session = held(build, [tells], published)
    (request,) = session.pending()
    session.allow(change) if " " in change else session.set_mode(change)
    answer = session.wait(20).answer
    assert "was not called" in answer and published == [] and not session.pending()
    assert [(note["decision"], note["by"]) for note in notes(session, "approval-answered")] == [("reject", "session")]
    with pytest.raises(InternError, match="Nothing waits"):
        session.answer(request.call_id, ApprovalAnswer("approve"))


def test_a_yes_does_not_undo_what_was_forbidden_since_it_was_asked(build) -> None:
    published: list[str] = []

    def yes(request) -> ApprovalAnswer:
        session.set_mode("deny")
        return ApprovalAnswer("approve", by="me")

    tells = code("try:\n    publish(what='a')\nexcept Exception as error:\n    final_answer(str(error))")
    intern = build(ScriptedModel([tells]), tools=[Publish(published)], on_approval=yes)
    session = intern.submit("Publish.")
    assert "was not called" in session.wait(20).answer and published == []


def test_a_refusal_counts_whatever_a_rule_says_by_then(build) -> None:
    published: list[str] = []
    intern, session = held(build, [TWO], published)
    until(lambda: len(session.pending()) == 2)
    one, other = session.pending()
    with session._lock:  # both are there before anybody looks
        intern.reject(session.id, other.call_id, "no")
        session.answer(one.call_id, ApprovalAnswer("approve", by="me", scope="session"))
    session.wait(20)
    assert published == [one.arguments["what"]]


def test_interrupting_it_ends_its_turn(build) -> None:
    published: list[str] = []
    intern, session = held(build, [ONCE], published)
    began = time.monotonic()
    intern.interrupt(session.id)
    assert session.wait(20).state is State.INTERRUPTED and published == [] and not session.pending()
    assert time.monotonic() - began < 5
    assert session.agent.python_executor is not None and not threads_of(session)


def test_what_is_said_to_it_is_read_at_the_next_step(build) -> None:
    published: list[str] = []
    intern, session = held(build, [code("publish(what='a')"), code("final_answer(1)")], published)
    intern.steer("Mind the licence.", session.id)
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS
    assert any("Mind the licence." in text_of(message) for message in session.model.requests[-1])


def test_the_time_that_it_waits_is_not_its_codes(build) -> None:
    published: list[str] = []
    intern = build(ScriptedModel([ONCE]), tools=[Publish(published)])
    limits = {**intern._config.executor_kwargs, "timeout_seconds": 1.0}
    intern._config = replace(intern._config, executor_kwargs=limits)
    session = intern.submit("Publish.")
    without_thread(session)
    time.sleep(1.5)
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS and published == ["a"]


def test_code_that_ends_while_its_thread_waits_has_its_question_closed(build) -> None:
    published: list[str] = []
    leaves = "import threading\nthreading.Thread(target=lambda: publish(what='a'), daemon=True).start()\nimport time\ntime.sleep(1.0)"
    intern = build(ScriptedModel([code(leaves), code("final_answer(1)")]), tools=[Publish(published)])
    session = intern.submit("Publish.")
    assert session.wait(20).state is State.SUCCESS or session.outcome.state is State.DENIED
    assert published == [] and not session.pending()
    (answer,) = notes(session, "approval-answered")
    assert answer["decision"] == "reject" and "ended" in answer["reason"]
    assert result_rows(session.trace, answer["callId"]) == 1


def test_a_worker_that_dies_meanwhile_closes_its_question(build) -> None:
    published: list[str] = []
    _, session = held(build, [ONCE, code("final_answer('well')")], published)
    session._shop.agent.python_executor._shelter.worker.kill("memory")
    assert session.wait(20).answer == "well" and published == [] and not session.pending()
    assert "memory" in text_of(session.model.requests[-1][-1])


def test_it_sleeps_after_a_time_and_is_woken_from_its_trace(build) -> None:
    published: list[str] = []
    intern = build(ScriptedModel([ONCE, code("final_answer('well')")]), tools=[Publish(published)])
    intern._config = replace(intern._config, park_seconds=0.5)
    session = intern.submit("Publish.")
    until(session.pending)
    until(lambda: not session.busy, 10)
    assert any(isinstance(event, Parked) for event in session.events.history)
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).answer == "well" and published == ["a"]


@pytest.mark.long
def test_others_that_wait_push_it_out(build) -> None:
    model = ByTask(lambda task, said: [code(f"publish(what={task[-1]!r})"), code("final_answer(1)")][said], 0.3)
    published: list[str] = []
    intern = build(model, tools=[Publish(published)])
    sessions = [intern.submit(f"Publish {n}") for n in range(7)]
    until(lambda: sum(session._hold is not None for session in sessions) == intern._warm.limit, 30)
    until(lambda: not [name for session in sessions for name in threads_of(session)])
    assert all(session.state == "waiting" for session in sessions)
    for session in sessions:
        intern.approve(session.id, session.pending()[0].call_id)
    assert [session.wait(30).state for session in sessions] == [State.SUCCESS] * 7
    assert sorted(published) == list("0123456")


def test_closing_leaves_its_question_open(build) -> None:
    published: list[str] = []
    intern, session = held(build, [ONCE], published)
    (request,) = session.pending()
    intern.close()
    assert not session.busy and not notes(session, "end") and not notes(session, "approval-answered")
    again = build(ScriptedModel([code("final_answer('well')")]), tools=[Publish(published)])
    resumed = again.resume(session.id)
    assert [each.call_id for each in resumed.pending()] == [request.call_id]
    again.approve(resumed.id, request.call_id)
    assert resumed.wait(20).answer == "well" and published == ["a"]


@pytest.mark.long
def test_one_that_is_forgotten_leaves_its_question_open(build) -> None:
    published: list[str] = []
    _, session = held(build, [ONCE], published)
    course, session._course = session._course, None
    course.close()  # what becomes of it where a process ends without a word
    del course
    gc.collect()
    assert not notes(session, "approval-answered") and not notes(session, "end")
    assert '"tool_use_id":"' + session.pending()[0].call_id not in session.trace.read_text()
    session._idle.set()  # nobody else will: closing would wait for it


def test_a_question_between_two_steps_holds_no_thread_either(build) -> None:
    intern = build(ByTask(lambda task, said: code("print('the same')") if said < 9 else code("final_answer(1)")))
    session = intern.submit("Go round.")
    until(session.pending)
    without_thread(session)
    (request,) = session.pending()
    assert request.tool == "go_on" and session.busy
    session.answer(request.call_id, ApprovalAnswer("approve", by="me"))
    assert session.wait(20).state is State.SUCCESS
    asked, answered = notes(session, "approval-asked"), notes(session, "approval-answered")
    assert len(asked) == len(answered) == 1 and answered[0]["decision"] == "approve"


def test_a_stop_between_two_steps_is_on_record(build) -> None:
    intern = build(ByTask(lambda task, said: code("print('the same')")))
    session = intern.submit("Go round.")
    until(session.pending)
    without_thread(session)
    intern.interrupt(session.id)
    assert session.wait(20).state is State.INTERRUPTED and not session.pending()
    assert len(notes(session, "approval-answered")) == 1


@pytest.mark.parametrize("sleeps", [False, True], ids=["held", "asleep"])
def test_it_waits_in_a_cloud_as_well(build, tmp_path, monkeypatch, sleeps: bool) -> None:
    published: list[str] = []
    asks = "open('before.txt', 'w').write('x')\nprint(publish(what='a'))\nhalf = 1\nfinal_answer([kept, 'here'])"
    after = "import os\nfinal_answer([kept, 'half' in globals(), sorted(os.listdir())])"

    def thinks(messages):
        time.sleep(2.0)  # variables are saved meanwhile, and come here
        return code(asks)

    with LocalE2B(tmp_path / "cloud") as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        script = [code("kept = 41"), thinks, code(after)]
        intern = build(ScriptedModel(script), tools=[Publish(published)], executor_type="e2b")
        intern._config = replace(intern._config, park_seconds=0.0 if sleeps else 120.0)
        session = intern.submit("Publish.")
        until(session.pending, 30)
        if sleeps:
            until(lambda: not session.busy, 30)
        else:
            without_thread(session)
        intern.approve(session.id, session.pending()[0].call_id)
        expected = [41, False, ["before.txt"]] if sleeps else [41, "here"]
        assert session.wait(60).answer == expected and published == ["a"]
        intern.close()
        assert not cloud.boxes


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.01, 0.03, 0.1])
def test_an_answer_that_comes_as_it_falls_asleep_counts_once(build, delay: float) -> None:
    published: list[str] = []
    intern = build(
        ByTask(lambda task, said: [code(f"publish(what={task[-1]!r})"), code("final_answer(1)")][said]),
        tools=[Publish(published)],
    )
    intern._config = replace(intern._config, park_seconds=0.0)
    sessions = [intern.submit(f"Publish {n}") for n in range(4)]
    for session in sessions:
        until(session.pending)
        time.sleep(delay)
        intern.approve(session.id, session.pending()[0].call_id)
    assert [session.wait(30).state for session in sessions] == [State.SUCCESS] * 4
    assert sorted(published) == list("0123")
    assert all(len(notes(session, "approval-answered")) == 1 for session in sessions)
