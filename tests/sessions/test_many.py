"""Many sessions side by side: nothing lost, crossed or out of order; one that waits, fails or hangs holds up no other."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest
from sessions.conftest import ByTask, Publish, code, notes, until

from ml_intern import InternError, State
from ml_intern.events import ApprovalAnswer, SessionEnded, ToolCalled
from ml_intern.session import Session
from ml_intern.trace import note_of, read_rows
from ml_intern.trace.validate import validate


def number_of(task: str) -> str:
    return task.split("#")[1].split()[0]


def answer(task: str, said: int) -> str:
    """The three kinds of sessions: those that wait, those that work on, those that are soon done."""
    number = number_of(task)
    if "wait" in task:
        return [code(f"mine = {number}"), code(f"publish(what='{number}')"), code("final_answer(mine)")][min(said, 2)]
    if "work" in task:
        return code(f"mine = {number}\nprint(mine, {said})") if said < 12 else code("final_answer(mine)")
    return code(f"final_answer({number})")


def whole(session: Session) -> None:
    """The record and the events of a session are in order, and its own."""
    assert [event.seq for event in session.events.history] == list(range(1, len(session.events.history) + 1))
    assert {event.session_id for event in session.events.history} == {session.id}
    rows = list(read_rows(session.trace))
    assert {row["sessionId"] for row in rows} == {session.id}
    answered = any(
        row["type"] == "assistant" for row in rows
    )  # one that was stopped before is no data set's first file
    assert [complaint for complaint in validate(session.trace) if answered or complaint.line] == []


def side_by_side(build, count: int, seconds: float) -> None:
    published: list[str] = []
    heard: list[tuple[str, int]] = []
    intern = build(
        ByTask(answer, 0.1), tools=[Publish(published)], on_event=lambda e: heard.append((e.session_id, e.seq))
    )
    began = time.monotonic()
    kinds = ("wait", "work", "end")
    sessions = [intern.submit(f"{kinds[n % 3]} #{n} of many") for n in range(count)]
    others = [session for n, session in enumerate(sessions) if n % 3]
    for session in others:  # nobody has answered any question yet
        assert session.wait(seconds) is not None
    for n, session in enumerate(sessions):
        if n % 3:
            assert (session.outcome.state, session.outcome.answer) == (State.SUCCESS, n)
    waiting = sessions[::3]
    until(lambda: all(session.pending() for session in waiting), seconds)
    assert published == []
    for session in waiting:
        intern.approve(session.id, session.pending()[0].call_id)
    assert [session.wait(seconds).answer for session in waiting] == list(range(0, count, 3))
    assert sorted(published, key=int) == [str(n) for n in range(0, count, 3)]
    for session in sessions:
        whole(session)
    for session in sessions:
        assert [seq for one, seq in heard if one == session.id] == list(range(1, len(session.events.history) + 1))
    print(f"\n{count} sessions in {time.monotonic() - began:.1f} s")


def test_sessions_side_by_side(build) -> None:
    side_by_side(build, 24, 60)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_two_hundred_sessions_side_by_side(build) -> None:
    side_by_side(build, 200, 300)


def chaos(build, count: int, seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    published: list[str] = []
    intern = build(ByTask(lambda task, said: erratic(task, said), 0.01), tools=[Publish(published)], max_iterations=40)
    intern._config = replace(intern._config, park_seconds=0.5)
    sessions = [intern.submit(f"wait #{n} erratic") for n in range(count)]
    approved: set[str] = set()
    refusals = 0
    lock = threading.Lock()

    def disturb(seed: int) -> None:
        nonlocal refusals
        chance, ends = random.Random(seed), time.monotonic() + seconds
        while time.monotonic() < ends:
            session = chance.choice(sessions)
            try:
                match chance.choice(
                    ["approve", "approve", "reject", "edit", "steer", "stop", "twice", "compact", "start"]
                ):
                    case "approve" | "twice" as what if pending := session.pending():
                        session.answer(pending[0].call_id, ApprovalAnswer("approve", by="chaos"))
                        with lock:
                            approved.add(pending[0].call_id)
                        if what == "twice":
                            session.answer(pending[0].call_id, ApprovalAnswer("approve", by="again"))
                    case "reject" if pending := session.pending():
                        session.answer(pending[0].call_id, ApprovalAnswer("reject", "chaos"))
                    case "edit" if pending := session.pending():
                        session.answer(pending[0].call_id, ApprovalAnswer("edit", arguments={"what": "edited"}))
                    case "steer":
                        session.steer("On you go.")
                    case "stop":
                        session.interrupt()
                    case "compact":
                        session.compact()
                    case "start":
                        session.start(f"wait #{sessions.index(session)} erratic again")
            except InternError:
                refusals += 1
            time.sleep(chance.random() * 0.03)

    threads = [threading.Thread(target=disturb, args=(chance.random(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for session in sessions:
        session.interrupt()
    until(lambda: all(not session.busy and not session.pending() for session in sessions), 40)
    assert refusals > 0 and approved
    made = []
    for session in sessions:
        whole(session)
        yes = {note["callId"] for note in notes(session, "approval-answered") if note["decision"] == "approve"}
        asked = {note["callId"] for note in notes(session, "approval-asked")}
        assert yes <= asked
        done = [
            block["tool_use_id"]
            for row in read_rows(session.trace)
            if row["type"] == "user" and isinstance(row["message"]["content"], list)
            for block in row["message"]["content"]
            if block["type"] == "tool_result" and not block.get("is_error")
        ]
        calls = {
            block["id"]
            for row in read_rows(session.trace)
            if row["type"] == "assistant"
            for block in row["message"]["content"]
            if block["type"] == "tool_use" and block["name"] == "publish"
        }
        made += [call for call in done if call in calls]
        assert {call for call in done if call in calls} <= yes
        ends = [note for row in read_rows(session.trace) if (note := note_of(row)) and note["kind"] == "end"]
        assert len(ends) == sum(isinstance(event, SessionEnded) for event in session.events.history)
        assert any(isinstance(event, ToolCalled) for event in session.events.history) or not asked
    assert len(made) == len(set(made)) == len(published)


def erratic(task: str, said: int) -> str:
    number = number_of(task)
    turns = [
        code(f"mine = {number}"),
        code(f"publish(what='{number}')"),
        code("import time\ntime.sleep(0.2)"),
        code("raise ValueError(mine)"),
        code(f"publish(what='{number}')\nfinal_answer(mine)"),
    ]
    return turns[said % len(turns)]


@pytest.mark.long
def test_chaos(build) -> None:
    chaos(build, 5, 3.0, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
def test_a_minute_of_chaos(build, seed: int) -> None:
    chaos(build, 20, 60.0, seed)
