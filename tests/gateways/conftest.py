"""A local Slack, and teams that work in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateways.slack_team import Publish, Team, gateway_of

from ml_intern import MLIntern
from ml_intern.gateways.slack import SlackGateway
from ml_intern.testing import ScriptedModel
from ml_intern.testing.slack import LocalSlack


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSlack]:
    with LocalSlack(patience=0.5) as slack:
        for name, value in slack.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SLACK_OWNER", "UANN")
        yield slack


@pytest.fixture
def team(slack: LocalSlack, home: Path) -> Iterator[Team]:
    made: list[tuple[MLIntern, SlackGateway]] = []

    def make(script: Any, warn: Any = None, options: dict[str, Any] | None = None, **more: Any):
        published: list[str] = more.pop("published", [])
        model = ScriptedModel(script) if isinstance(script, list) else script
        intern = MLIntern(model, home=home, tools=[Publish(published)], **more)
        gateway = gateway_of(intern, **(options or {})).start()
        made.append((intern, gateway))
        slack.socket.wait_connected()
        return intern, gateway, published

    yield make
    for intern, gateway in made:
        gateway.close(1.0)
        intern.close()
