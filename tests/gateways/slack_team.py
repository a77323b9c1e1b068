"""What the tests of the Slack gateway share: an intern with a scripted model and a tool that publishes, and a gateway over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smolagents import Tool

from ml_intern import MLIntern
from ml_intern.gateways.slack import SlackGateway

Team = Callable[..., tuple[MLIntern, SlackGateway, list[str]]]


def action(code: str) -> str:
    return f"I go on.\n<code>\n{code}\n</code>"


class Publish(Tool):
    name, description, output_type, effects = "publish", "Publishes.", "string", "write"
    inputs = {"what": {"type": "string", "description": "What."}}

    def __init__(self, published: list[str]) -> None:
        super().__init__()
        self.published = published

    def forward(self, what: str) -> str:
        self.published.append(what)
        return f"published https://huggingface.co/{what}"


def gateway_of(intern: MLIntern, **options: Any) -> SlackGateway:
    return SlackGateway(intern, ping_seconds=0.1, lines_every=0.05, **options)


PUBLISH = action("print(publish(what='me/model'))")
DONE = action("final_answer('all done')")


def card_in(slack: Any, button: str = "approve", thread: str | None = None) -> Any:
    """Waits for a question with such a button."""
    return slack.wait(lambda: next((m for m in reversed(slack.said(thread)) if button in m.buttons()), None))


def ended(slack: Any, thread: str) -> Any:
    """Waits for the report of a thread."""
    return slack.wait(lambda: next((m for m in slack.said(thread) if m.text.startswith("Ended")), None), 30)
