"""Sessions with colleagues, answered, told, parked and interrupted at random.

What must never happen: a call that nobody approved takes effect, or one twice; a session comes to no end; a record is not whole.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sessions.conftest import ByTask, Publish, code, notes, until
from smolagents import LogLevel, Model, ToolCallingAgent
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from ml_intern import InternAgent, InternError, MLIntern
from ml_intern.events import ApprovalAnswer
from ml_intern.session import Session
from ml_intern.trace import restore
from ml_intern.trace.subagents import traces_of_sub_agents
from ml_intern.trace.validate import validate

QUIET = {"description": "Helps.", "verbosity_level": LogLevel.OFF}


class Calls(Model):
    """Publishes two things that no other task publishes, then says so."""

    number = 0

    def __init__(self) -> None:
        super().__init__(model_id="calls")

    def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
        said = sum(message.role == MessageRole.ASSISTANT for message in messages)
        Calls.number += 1
        name, given = (
            ("publish", {"what": f"p{Calls.number}"}) if said < 2 else ("final_answer", {"answer": "published"})
        )
        call = ChatMessageToolCall(ChatMessageToolCallFunction(given, name), f"c{Calls.number}", "function")
        return ChatMessage(MessageRole.ASSISTANT, f"Calling {name}.", [call], token_usage=TokenUsage(10, 5))


def act(task: str, said: int) -> str:
    both = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n"
    steps = [
        "print(caller('go'))",
        "print(jailed('go'))",
        both + "    print(*pool.map(lambda one: one('go'), [caller, jailed]))",
    ]
    return code(steps[said] if said < len(steps) else "final_answer('done')")


def inside(task: str, said: int) -> str:
    return code(f"print(publish(what='j{time.monotonic_ns()}'))" if said < 1 else "final_answer('published')")


def run(home: Any, seed: int, count: int, seconds: float) -> None:
    chance, published = random.Random(seed), []

    def caller() -> ToolCallingAgent:
        return ToolCallingAgent([Publish(published)], Calls(), name="caller", **QUIET)

    def jailed() -> InternAgent:
        return InternAgent([Publish(published)], ByTask(inside), name="jailed", **QUIET)

    with MLIntern(ByTask(act), home=home, tools=[], managed_agents=[caller, jailed]) as intern:
        intern._config = replace(intern._config, park_seconds=0.3)
        sessions = [intern.submit(f"Go {number}.") for number in range(count)]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and any(session.outcome is None for session in sessions):
            _at_random(chance, chance.choice(sessions), intern)
            time.sleep(chance.uniform(0, 0.05))
        until(lambda: _all_over(sessions), 60)
        for session in sessions:
            _look(session, published)
    assert len(set(published)) == len(published)


def _at_random(chance: random.Random, session: Session, intern: MLIntern) -> None:
    kind, pending = chance.random(), session.pending()
    try:
        if kind < 0.6 and pending:
            decision = chance.choice(("approve", "approve", "reject", "edit"))
            edits = {"what": f"e{time.monotonic_ns()}"} if decision == "edit" else None
            asked = chance.choice(pending)
            session.answer(asked.call_id, ApprovalAnswer(decision, by="ann", arguments=edits), asked)
        elif kind < 0.75:
            session.steer(f"Word {chance.random()}.", "ann")
        elif kind < 0.85:
            session.let_go()
        elif kind < 0.88:
            intern.interrupt(session.id)
    except InternError:
        pass  # somebody was quicker, or it is over: said to whoever asked


def _all_over(sessions: list[Session]) -> bool:
    for session in sessions:
        for asked in session.pending():
            try:
                session.answer(asked.call_id, ApprovalAnswer("approve", by="ann"), asked)
            except InternError:
                continue
    return all(session.wait(0) is not None and not session.busy for session in sessions)


def _look(session: Session, published: list[str]) -> None:
    restored = restore(session.trace)
    assert not restored.problems and not restored.open and not restored.unknown, session.trace
    for trace in (session.trace, *traces_of_sub_agents(session.trace)):
        text = trace.read_text()
        assert not [str(complaint) for complaint in validate(trace)], trace
        for call in (call for call in restored.effects if call.tool == "publish" and call.call_id in text):
            assert Counter(published)[str(call.arguments["what"])] <= 1
    ends = Counter(note["id"] for note in notes(session, "subagent"))
    assert ends == Counter(path.stem.removeprefix("agent-") for path in traces_of_sub_agents(session.trace))
    said = {note["id"] for note in notes(session, "said")}
    assert len([note for note in notes(session, "steered") if note.get("id") in said]) == len(
        {note.get("id") for note in notes(session, "steered") if note.get("id") in said}
    ), "nothing is read twice"
    answered = Counter(note["decision"] for note in notes(session, "approval-answered"))
    mine = [call for call in restored.effects if call.tool == "publish" and call.state == "done" and not call.failed]
    assert len(mine) <= answered["approve"], "nothing was done that nobody approved"


def test_a_few_sessions_for_a_few_seconds(home) -> None:
    run(home, seed=11, count=3, seconds=3)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(6))
def test_many_sessions_for_a_minute(home, seed: int) -> None:
    run(home, seed=100 + seed, count=12, seconds=40)
