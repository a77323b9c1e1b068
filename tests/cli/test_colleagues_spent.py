"""What colleagues took, as `/status` says it."""

from __future__ import annotations

from ml_intern.cli.slash import by_colleague
from ml_intern.events import AgentEnded, StepStarted, Usage


def ended(agent: str, tokens: int, cost: float | None) -> AgentEnded:
    return AgentEnded(agent=agent, state="success", report="", steps=1, usage=Usage(tokens, 1, 0, cost))


def test_those_of_one_name_together_and_none_twice() -> None:
    history = [
        StepStarted(step=1),
        ended("researcher/reader", 50, 0.25),  # it stands in the sum of the one above it
        ended("researcher", 100, 0.5),
        ended("researcher#2", 10, 0.125),
        ended("helper", 7, None),
    ]
    assert by_colleague(history) == [
        ("researcher", 2, Usage(110, 2, 0, 0.625)),
        ("helper", 1, Usage(7, 1, 0, None)),
    ]
    assert by_colleague([]) == []
