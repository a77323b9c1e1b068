"""Several agents under one name, in a session: gate, record, sleep and end of each.

What must never happen: a call of any of them past the gate; one that waits keeps a session from sleeping; what one had done is
lost because another was cut off.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from sessions.conftest import Publish, code, until
from smolagents import CodeAgent, LogLevel, Model, ToolCallingAgent
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from ml_intern import MLIntern, State
from ml_intern.events import AgentEnded, Parked, StepFinished
from ml_intern.team import Team
from ml_intern.testing import ScriptedModel
from ml_intern.trace.subagents import traces_of_sub_agents
from ml_intern.trace.validate import validate

DONE = code("final_answer('done')")


class Follows(Model):
    """Publishes what its task says, then says so; `think` answers at once."""

    def __init__(self) -> None:
        super().__init__(model_id="follows")

    def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
        said = sum(message.role == MessageRole.ASSISTANT for message in messages)
        text = str([message.content for message in messages])
        what = next(word for word in ("alpha", "beta", "gamma", "think") if word in text)
        acts = what != "think" and not said
        called, given = ("publish", {"what": what}) if acts else ("final_answer", {"answer": f"{what} is done"})
        call = ChatMessageToolCall(ChatMessageToolCallFunction(given, called), f"c{time.monotonic_ns()}", "function")
        return ChatMessage(MessageRole.ASSISTANT, f"Calling {called}.", [call], token_usage=TokenUsage(10, 5))


@pytest.fixture
def start(home):
    made: list[MLIntern] = []

    def begin(
        script: list[Any], published: list[str], sleeps: bool = False, at_once: int = 3, **options: Any
    ) -> tuple[MLIntern, Any]:
        def make() -> tuple[ToolCallingAgent, None]:
            agent = ToolCallingAgent(
                [Publish(published)], Follows(), name="pair", description="Helps.", verbosity_level=LogLevel.OFF
            )
            return agent, None

        intern = MLIntern(ScriptedModel(script), home=home, tools=[], **options)
        intern._make_agents = lambda make_model: [Team("pair", "Helps.", make, at_once)]
        intern._config = replace(intern._config, park_seconds=0.0 if sleeps else 120.0)
        made.append(intern)
        return intern, intern.submit("Go.")

    yield begin
    for intern in made:
        intern.close()


def seen(session: Any) -> str:
    return "\n".join(event.observation for event in session.events.history if isinstance(event, StepFinished))


def whole(session: Any) -> None:
    for trace in (session.trace, *traces_of_sub_agents(session.trace)):
        assert not [str(complaint) for complaint in validate(trace)], trace


def test_each_of_them_asks_under_its_own_name(start) -> None:
    published: list[str] = []
    _, session = start([code("print(pair(['alpha', 'beta']))"), DONE], published)
    asked = []
    while session.wait(0.05) is None:
        for request in session.pending():
            asked.append((request.agent, request.arguments["what"]))
            session.answer(
                request.call_id, replace_answer("approve" if request.arguments["what"] == "alpha" else "reject")
            )
    assert sorted(agent for agent, _ in asked) == ["pair", "pair#2"] and published == ["alpha"]
    last = State.DENIED if asked[-1][1] == "beta" else State.SUCCESS  # which of them asks first is left to chance
    assert session.outcome.state is last and "# 1. alpha" in seen(session) and "# 2. beta" in seen(session)
    whole(session)


def replace_answer(decision: str) -> Any:
    from ml_intern.events import ApprovalAnswer

    return ApprovalAnswer(decision, by="ann")


def test_a_session_sleeps_where_several_of_them_wait_and_nothing_they_did_is_lost(start) -> None:
    published: list[str] = []
    _, session = start([code("print(pair(['think', 'alpha', 'beta']))"), DONE], published, sleeps=True)
    until(lambda: any(isinstance(event, Parked) for event in session.events.history))
    until(lambda: not session.busy)
    assert published == [] and session.pending()
    while session.wait(0.05) is None:
        for request in session.pending():
            session.answer(request.call_id, replace_answer("approve"))
    assert session.outcome.state is State.SUCCESS and published and set(published) <= {"alpha", "beta"}
    told = seen(session)
    assert "think is done" in told and told.count("was cut off") + told.count("stopped from above") == 2
    assert all(f"returned: published {what}" in told for what in published)
    whole(session)


def test_the_cap_holds_whoever_asks(start) -> None:
    published: list[str] = []
    script = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n    print(*pool.map(pair, ['think'] * 6))"
    _, session = start([code(script), DONE], published, at_once=2)
    assert session.wait(30).state is State.SUCCESS
    assert {event.agent for event in session.events.history if isinstance(event, AgentEnded)} <= {"pair", "pair#2"}
    assert seen(session).count("think is done") == 6


def test_one_whose_code_would_run_outside_the_jail_is_no_part_of_a_team(home) -> None:
    def make() -> tuple[CodeAgent, None]:
        return CodeAgent([], ScriptedModel([]), name="pair", description="Helps.", verbosity_level=LogLevel.OFF), None

    with MLIntern(ScriptedModel([code("print(pair('think'))"), DONE]), home=home, tools=[]) as intern:
        intern._make_agents = lambda make_model: [Team("pair", "Helps.", make)]
        session = intern.submit("Go.")
        assert session.wait(20).state is State.SUCCESS
        assert "its code runs outside the jail" in str(
            [e.error for e in session.events.history if isinstance(e, StepFinished)]
        )
