"""Answers to sessions: one counts, for the one call that it was given to, while that call still waits."""

from __future__ import annotations

import os
import pty
import sys
import threading

import pytest
from sessions.conftest import Publish, build, code, notes, until  # noqa: F401 - `build` is a fixture

from ml_intern import InternError, State
from ml_intern.approval import ask_at_terminal, ask_until
from ml_intern.approval.asking import _put
from ml_intern.events import ApprovalAnswer, ApprovalRequest, Destination, FileDigest
from ml_intern.testing import ScriptedModel

DOES = code("print(publish(what='a'))")
ENDS = code("final_answer('well')")


def waiting(build, script, published, **options):  # noqa: F811
    intern = build(ScriptedModel(script), tools=[Publish(published)], **options)
    session = intern.submit("Publish a.")
    until(session.pending)
    return intern, session, session.pending()[0]


def test_of_many_answers_at_once_one_counts(build) -> None:  # noqa: F811
    published: list[str] = []
    _, session, request = waiting(build, [DOES, ENDS], published)
    counted, refused, ready = [], [], threading.Barrier(8)

    def answer(number: int) -> None:
        ready.wait()
        try:
            session.answer(request.call_id, ApprovalAnswer("approve", by=f"person {number}"))
            counted.append(number)
        except InternError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.wait(20).state is State.SUCCESS and published == ["a"]
    assert len(counted) == 1 and len(refused) == 7 and "Nothing waits" in refused[0]
    assert [note["by"] for note in notes(session, "approval-answered")] == [f"person {counted[0]}"]


def test_an_answer_to_another_call_or_session_does_not_count(build) -> None:  # noqa: F811
    ours: list[str] = []
    theirs: list[str] = []
    _, session, request = waiting(build, [DOES, ENDS], ours)
    _, other, other_request = waiting(build, [DOES, ENDS], theirs)
    for one, call_id in ((session, "call_" + "0" * 20), (session, other_request.call_id), (other, request.call_id)):
        with pytest.raises(InternError, match="Nothing waits"):
            one.answer(call_id, ApprovalAnswer("approve"))
    assert session.pending() == [request] and ours == theirs == []
    session.answer(request.call_id, ApprovalAnswer("approve", by="me"))
    other.answer(other_request.call_id, ApprovalAnswer("reject", "no"))
    assert session.wait(20).state is State.SUCCESS and other.wait(20).state is State.DENIED
    assert (ours, theirs) == (["a"], [])


def test_an_answer_that_comes_after_the_code_has_ended_does_not_count(build) -> None:  # noqa: F811
    published: list[str] = []
    late = code("import threading, time\nthreading.Thread(target=publish, args=('a',)).start()\ntime.sleep(0.3)")
    _, session, request = waiting(build, [late, ENDS], published)
    assert session.wait(20) is not None
    with pytest.raises(InternError, match="Nothing waits"):
        session.answer(request.call_id, ApprovalAnswer("approve", by="me"))
    assert published == [] and not session.pending()
    assert [note["decision"] for note in notes(session, "approval-answered")] == ["reject"]


def test_answers_that_mean_nothing_cannot_be_given() -> None:
    for bad in ({"decision": "yes"}, {"decision": "approve", "scope": "for ever"}, {"decision": "edit"},
                {"decision": "approve", "arguments": {"what": "b"}}):  # fmt: skip
        with pytest.raises(ValueError, match=r"`(decision|scope|arguments)`"):
            ApprovalAnswer(**bad)


def test_edited_arguments_are_what_is_sent_and_the_record_says_who_changed_them(build) -> None:  # noqa: F811
    published: list[str] = []
    intern, session, request = waiting(build, [DOES, ENDS], published)
    intern.edit(session.id, request.call_id, {"what": "b"}, by="me")
    until(lambda: [asked.arguments for asked in session.pending()] == [{"what": "b"}])
    again = session.pending()[0]
    assert again.call_id == request.call_id and published == []
    intern.approve(session.id, again.call_id, by="me")
    assert session.wait(20).state is State.SUCCESS and published == ["b"]
    assert [note["decision"] for note in notes(session, "approval-answered")] == ["edit", "approve"]
    asked = [note["arguments"] for note in notes(session, "approval-asked")]
    assert asked == [{"what": "a"}, {"what": "b"}]


def test_a_question_at_the_terminal_ends_when_somebody_else_was_quicker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ApprovalRequest("call_1", "publish", {"what": "a"}, "write", "it publishes")
    ours, theirs = pty.openpty()
    with open(theirs) as terminal:  # noqa: PTH123 - a file descriptor
        monkeypatch.setattr(sys, "stdin", terminal)
        answered = threading.Event()
        threading.Timer(0.3, answered.set).start()
        assert ask_until(request, answered.is_set) is None
        assert "answered elsewhere" in capsys.readouterr().err
        os.write(ours, b"y\n")  # before it could be read: no answer
        threading.Timer(0.3, os.write, [ours, b"not on a Friday\n"]).start()
        answer = ask_until(request, lambda: False)
        assert answer is not None and (answer.decision, answer.reason) == ("reject", "not on a Friday")
        threading.Timer(0.3, os.write, [ours, b"y\n"]).start()
        answer = ask_until(request, lambda: False)
        assert answer is not None and (answer.decision, answer.by) == ("approve", "terminal")
    os.close(ours)


def test_the_plain_question_says_where_it_goes_and_no_words_of_others_pass_for_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    forged = "fine\nTo me/mine (private)\nIt costs about $0.00."
    request = ApprovalRequest(
        "call_1", "publish", {"what": "a"}, "write", f"it publishes {forged}", preview=forged, sources=(forged,),
        files=(FileDigest(f"a.txt\n{forged}", 3, "0" * 64),), destination=Destination("acme/theirs", "public"), cost_usd=5.0,
        agent=f"helper\n{forged}",
    )  # fmt: skip
    assert ask_at_terminal(request).decision == "reject"  # nobody is there
    _put(request)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("To ")] == ["To acme/theirs (public)"]
    assert [line for line in lines if line.startswith("It costs")] == ["It costs about $5.00."]
    assert "  | To me/mine (private)" in lines
