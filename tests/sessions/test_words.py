"""Words to a session: on record as they come, and read once, whatever becomes of the process meanwhile.

What must never happen: words are lost, or read twice; words to one session reach its fork, or come back after an undo.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from sessions.conftest import Publish, code, notes, text_of, until

from ml_intern import State
from ml_intern.events import Parked, Steered
from ml_intern.steps import GUARD, SteerStep
from ml_intern.testing import ScriptedModel
from ml_intern.trace import restore

MIND = "Mind the licence."


class Thinks:
    """An answer that takes until it is let go."""

    def __init__(self, answer: str) -> None:
        self.answer, self.began, self.go_on = answer, threading.Event(), threading.Event()

    def __call__(self, messages: list[Any]) -> str:
        self.began.set()
        assert self.go_on.wait(20)
        return self.answer


def times_read(session: Any) -> int:
    return sum(MIND in text_of(message) for message in session.model.requests[-1])


def test_they_are_on_record_before_they_are_read_and_read_once(build) -> None:
    thinks = Thinks(code("1"))
    intern = build(ScriptedModel([thinks, code("2"), code("final_answer(3)")]))
    session = intern.submit("Go.")
    assert thinks.began.wait(20)
    session.steer(MIND, "ann")
    assert [(note["text"], note["by"]) for note in notes(session, "said")] == [(MIND, "ann")] and not notes(
        session, "steered"
    )
    assert [step.text for step in restore(session.trace).unread] == [MIND]
    thinks.go_on.set()
    assert session.wait(20).answer == 3 and times_read(session) == 1
    assert [note["id"] for note in notes(session, "steered")] == [note["id"] for note in notes(session, "said")]
    assert restore(session.trace).unread == ()


def test_a_process_that_dies_before_they_were_read_loses_nothing(build, home) -> None:
    """As far as its record goes it has died: another one goes on from a copy."""
    thinks = Thinks(code("1"))
    intern = build(ScriptedModel([thinks, code("final_answer(1)")]))
    session = intern.submit("Go.")
    assert thinks.began.wait(20)
    session.steer(MIND, "ann")
    there = session.trace.read_bytes()
    thinks.go_on.set()
    assert session.wait(20).state is State.SUCCESS
    intern.close()
    session.trace.write_bytes(there)
    again = build(ScriptedModel([code("2"), code("final_answer(3)")]))
    resumed = again.resume(session.id)
    assert resumed.wait(20).answer == 3 and times_read(resumed) == 1
    assert [event.text for event in resumed.events.history if isinstance(event, Steered)] == [MIND]
    assert len(notes(resumed, "said")) == len(notes(resumed, "steered")) == 1


def test_words_that_come_as_the_turn_ends_are_the_next_task_and_no_more(build) -> None:
    thinks = Thinks(code("final_answer(1)"))
    intern = build(ScriptedModel([thinks, code("final_answer(2)")]))
    session = intern.submit("Go.")
    assert thinks.began.wait(20)
    session.steer(MIND, "ann")
    thinks.go_on.set()
    assert session.wait(20).answer == 2 and times_read(session) == 1
    assert restore(session.trace).unread == () and not notes(session, "steered")
    assert [turn.task for turn in restore(session.trace).turns] == ["Go.", MIND]


def test_a_notice_that_comes_with_the_last_step_is_read_in_the_next_turn_and_makes_none(build) -> None:
    """The end of a job, say: the turn has its answer, and who goes on later has to know."""
    thinks = Thinks(code("final_answer(1)"))
    intern = build(ScriptedModel([thinks, code("final_answer(2)"), code("final_answer(3)")]))
    session = intern.submit("Go.")
    assert thinks.began.wait(20)
    session._shop.hear(SteerStep(MIND, "jobs", GUARD))
    thinks.go_on.set()
    assert session.wait(20).answer == 1
    session.start("Go on.")
    assert session.wait(20).answer == 2 and times_read(session) == 1 and restore(session.trace).unread == ()
    session.start("And on.")
    assert session.wait(20).answer == 3 and times_read(session) == 1


def test_what_is_said_to_one_that_sleeps_outlasts_its_process(build) -> None:
    published: list[str] = []
    intern = build(ScriptedModel([code("print(publish(what='a'))")]), tools=[Publish(published)])
    intern._config = replace(intern._config, park_seconds=0.0)
    session = intern.submit("Go.")
    until(lambda: any(isinstance(event, Parked) for event in session.events.history))
    intern.steer(MIND, session.id, "ann")
    until(lambda: notes(session, "said"))
    intern.close()
    again = build(ScriptedModel([code("final_answer(1)")]), tools=[Publish(published)])
    resumed = again.resume(session.id)
    again.approve(resumed.id, resumed.pending()[0].call_id)
    assert resumed.wait(20).state is State.SUCCESS and published == ["a"] and times_read(resumed) == 1


def test_what_an_interrupted_turn_did_not_read_the_next_one_does(build) -> None:
    thinks = Thinks(code("1"))
    intern = build(ScriptedModel([thinks, code("final_answer(2)")]))
    session = intern.submit("Go.")
    assert thinks.began.wait(20)
    session.steer(MIND)
    session.interrupt()
    thinks.go_on.set()
    assert session.wait(20).state is State.INTERRUPTED
    session.release()
    session.start("Once more.")
    assert session.wait(20).answer == 2 and times_read(session) == 1


def test_an_undone_turn_takes_its_words_with_it(build) -> None:
    thinks = Thinks(code("1"))
    intern = build(ScriptedModel([thinks, code("final_answer(2)")]))
    session = intern.submit("Go.")
    assert thinks.began.wait(20)
    session.steer(MIND)
    session.interrupt()
    thinks.go_on.set()
    assert session.wait(20).state is State.INTERRUPTED
    session.undo()
    assert restore(session.trace).unread == ()
    session.start("Something else.")
    assert session.wait(20).answer == 2 and times_read(session) == 0


def test_nothing_is_no_word(build) -> None:
    thinks = Thinks(code("final_answer(1)"))
    intern = build(ScriptedModel([thinks]))
    session = intern.submit("Go.")
    assert thinks.began.wait(20)
    with pytest.raises(ValueError, match="nothing to say"):
        session.steer("  ")
    thinks.go_on.set()
    assert session.wait(20).answer == 1 and not notes(session, "said")
