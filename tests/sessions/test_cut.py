"""Sessions whose record breaks off at one exact row, and go on.

What must never happen: a refusal, an answer or an edit is forgotten; what may have taken effect is done again because a rule
allows its kind; the model is asked for what is on record; a call stays without its result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sessions.conftest import Publish, code, notes, result_rows, text_of, until
from smolagents import Tool

from ml_intern import MLIntern, State
from ml_intern.events import ApprovalAnswer, ApprovalRequest
from ml_intern.session import Session
from ml_intern.testing import ScriptedModel
from ml_intern.trace import note_of, read_rows, restore
from ml_intern.trace.validate import validate


def cut(session: Session, after: Callable[[dict[str, Any]], bool]) -> None:
    """The record ends with the first row of which `after` is true."""
    kept = []
    for line in session.trace.read_bytes().splitlines(keepends=True):
        kept.append(line)
        if after(json.loads(line)):
            session.trace.write_bytes(b"".join(kept))
            return
    raise AssertionError("there is no such row")


def is_note(kind: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: (note_of(row) or {}).get("kind") == kind


def is_call(tool: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: f'"name": "{tool}"' in json.dumps(row) and "effects" in row


def is_step(row: dict[str, Any]) -> bool:
    return "final" in row


def whole(session: Session) -> None:
    assert not [str(complaint) for complaint in validate(session.trace)]


class Shipping(Publish):
    """Knows whether a call took effect, and what it was asked about."""

    name = "ship"
    looked_for: list[str]

    def reconcile(self, call_id: str, what: str) -> str | None:
        self.looked_for.append(what)
        return f"published {what}" if what in self.published else None


def run(intern: MLIntern, task: str, *answers: ApprovalAnswer) -> Session:
    session = intern.submit(task)
    for number, answer in enumerate(answers, 1):
        until(lambda number=number: session.pending() and len(notes(session, "approval-asked")) == number)
        session.answer(session.pending()[0].call_id, answer)
        until(lambda number=number: len(notes(session, "approval-answered")) == number)
    assert session.wait(20)
    intern.close()
    return session


def test_a_refusal_counts_after_a_crash_too_and_not_in_the_turn_after_it(build) -> None:
    tools = [Publish()]
    script = [code("publish(what='a')"), code("final_answer('well')")]
    session = run(build(ScriptedModel(script), tools=tools), "Publish.", ApprovalAnswer("reject", "not today"))
    assert session.outcome.state is State.DENIED
    cut(session, is_step)
    assert restore(session.trace).refused == {"publish": "not today"}
    again = build(ScriptedModel([code("final_answer('well')"), code("final_answer('next')")]), tools=tools).resume(
        session.id
    )
    assert again.wait(20).state is State.DENIED and "not today" in again.outcome.reason
    again.start("Something else.")
    assert again.wait(20).state is State.SUCCESS


def test_an_answer_to_the_agent_is_not_lost_and_not_asked_for_again(build) -> None:
    script = [code("print(ask_user(question='Which?'))"), code("final_answer(1)")]
    session = run(build(ScriptedModel(script)), "Ask.", ApprovalAnswer("approve", text="the blue one"))
    cut(session, is_note("approval-answered"))
    again = build(ScriptedModel([code("final_answer(2)")])).resume(session.id)
    assert again.wait(20).answer == 2 and len(notes(again, "approval-asked")) == 1
    assert "the blue one" in text_of(again.model.requests[-1][-1])
    whole(again)


def test_a_service_is_asked_about_the_call_as_it_was_edited(build) -> None:
    ship = Shipping()
    ship.looked_for = []
    script = [code("ship(what='a')"), code("final_answer(1)")]
    edit, yes = ApprovalAnswer("edit", arguments={"what": "b"}), ApprovalAnswer("approve")
    session = run(build(ScriptedModel(script), tools=[ship]), "Ship.", edit, yes)
    assert ship.published == ["b"]
    answered: list[Any] = []
    cut(session, lambda row: is_note("approval-answered")(row) and bool(answered.append(row) or len(answered) == 2))
    again = build(ScriptedModel([code("final_answer(2)")]), tools=[ship]).resume(session.id)
    assert again.wait(20).answer == 2
    assert ship.looked_for == ["b"] and ship.published == ["b"]
    whole(again)


def test_a_rule_does_not_answer_whether_something_has_happened(build) -> None:
    published: list[str] = []
    asked: list[ApprovalRequest] = []

    def dies(request: ApprovalRequest) -> ApprovalAnswer:
        asked.append(request)
        return ApprovalAnswer("reject", "I saw it there", "me")

    options = {"tools": [Publish(published)], "allow": ["publish"]}
    session = run(build(ScriptedModel([code("publish(what='a')"), code("final_answer(1)")]), **options), "Publish.")
    assert published == ["a"] and not asked
    cut(session, is_call("publish"))
    first = build(ScriptedModel([code("final_answer(2)")]), on_approval=dies, **options)
    again = first.resume(session.id)
    assert again.wait(20).state is State.SUCCESS and len(asked) == 1  # to leave what has happened is no refusal
    first.close()
    cut(again, is_note("approval-asked"))  # it died while the person was asked
    again = build(ScriptedModel([code("final_answer(3)")]), on_approval=dies, **options).resume(session.id)
    assert again.wait(20).answer == 3 and again.outcome.state is State.SUCCESS
    assert len(asked) == 2 and published == ["a"]
    assert "I saw it there" in text_of(again.model.requests[-1][-1])
    whole(again)


def test_the_last_word_is_not_asked_for_again(build) -> None:
    script = [code("a = 1"), "I have not finished."]
    session = run(build(ScriptedModel(script), max_iterations=1), "Count.", ApprovalAnswer("reject"))
    assert session.outcome.state is State.MAX_STEPS
    cut(session, lambda row: row.get("stepKind") == "wrap-up")
    again = build(ScriptedModel([]), max_iterations=1).resume(session.id)
    assert again.wait(20).state is State.MAX_STEPS and again.outcome.answer == "I have not finished."
    assert again.outcome.steps == session.outcome.steps


def test_a_final_answer_is_not_asked_for_again_and_is_there_after_the_end(build) -> None:
    session = run(build(ScriptedModel([code("final_answer({'a': [1, 'x']})")])), "Answer.")
    cut(session, is_step)
    intern = build(ScriptedModel([]))
    again = intern.resume(session.id)
    assert (again.wait(20).state, again.outcome.answer) == (State.SUCCESS, {"a": [1, "x"]})
    assert again.outcome.steps == session.outcome.steps
    whole(again)
    intern.close()
    third = build(ScriptedModel([])).resume(session.id)
    assert third.outcome.answer == {"a": [1, "x"]} and third.title


def test_rows_that_belong_together_are_completed_where_the_machine_stopped_between_them(build) -> None:
    session = run(build(ScriptedModel([code("final_answer('so')")])), "Answer.")
    cut(session, lambda row: row.get("stepKind") == "answer")
    again = build(ScriptedModel([])).resume(session.id)
    assert again.wait(20).answer == "so"
    assert sum(row.get("stepKind") == "answer" for row in read_rows(session.trace)) == 1

    script = [code(f"print({n} * 'word ')") for n in range(100, 110)]
    intern = build(ScriptedModel([*script, code("final_answer(1)"), "All was counted."]))
    long = intern.submit("Count.")
    assert long.wait(30)
    long.compact()
    until(lambda: any(row.get("isCompactSummary") for row in read_rows(long.trace)))
    intern.close()
    cut(long, lambda row: row.get("subtype") == "compact_boundary")
    again = build(ScriptedModel([code("final_answer(2)")])).resume(long.id)
    again.start("Go on.")
    assert again.wait(30).answer == 2 and "All was counted." in "\n".join(map(text_of, again.model.requests[-1]))
    assert sum(row.get("isCompactSummary") is True for row in read_rows(long.trace)) == 1
    whole(again)


def test_stop_said_to_a_sleeping_session_ends_its_turn(build) -> None:
    published: list[str] = []
    intern = build(ScriptedModel([code("publish(what='a')")]), tools=[Publish(published)])
    session = intern.submit("Publish.")
    until(session.pending)
    intern.close()
    again = build(ScriptedModel([]), tools=[Publish(published)]).resume(session.id)
    again.answer(again.pending()[0].call_id, ApprovalAnswer("stop", "enough", "me"))
    assert again.wait(20).state is State.DENIED and published == [] and "enough" in again.outcome.reason
    whole(again)


def test_a_call_of_a_tool_that_is_gone_comes_to_its_end(build) -> None:
    script = [code("publish(what='a')"), code("final_answer(1)")]
    session = run(build(ScriptedModel(script), tools=[Publish()]), "Publish.", ApprovalAnswer("approve"))
    cut(session, is_call("publish"))
    again = build(ScriptedModel([code("final_answer(2)")]), on_approval=lambda request: ApprovalAnswer("approve"))
    resumed = again.resume(session.id)
    assert resumed.wait(20).answer == 2
    whole(resumed)


class Read(Tool):
    name, description, output_type, effects = "peek", "Looks.", "string", "read"
    inputs: dict = {}

    def forward(self) -> str:
        return "seen"


def test_a_call_that_reads_gets_a_result_that_says_so(build) -> None:
    session = run(build(ScriptedModel([code("print(peek())"), code("final_answer(1)")]), tools=[Read()]), "Look.")
    cut(session, is_call("peek"))
    again = build(ScriptedModel([code("final_answer(2)")]), tools=[Read()]).resume(session.id)
    assert again.wait(20).answer == 2 and "did not come back; it only reads" in text_of(again.model.requests[-1][-1])
    [call] = [row["message"]["content"][0]["id"] for row in read_rows(session.trace) if is_call("peek")(row)]
    assert result_rows(session.trace, call) == 1
    whole(again)


def test_copies_of_what_nobody_sends_any_more_are_gone(build) -> None:
    session = run(build(ScriptedModel([code("a = 1"), code("final_answer(1)")])), "Count.")
    cut(session, is_step)
    left: Path = session.trace.with_suffix("") / "frozen" / "call_x" / "workspace"
    left.mkdir(parents=True)
    again = build(ScriptedModel([code("final_answer(2)")])).resume(session.id)
    assert again.wait(20).answer == 2 and not left.exists()
