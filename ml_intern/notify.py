"""One way to Slack: start, questions, warnings and end of a session, in one thread of one channel."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from . import events as told
from .events import Event, EventLog

LONGEST = 2_900
"""Characters of one message; Slack takes 3,000 in a section."""
AWAY = (0.5, 1, 2, 4, 8, 15, 30, 60, 60, 60, 60, 60)
"""Seconds between tries to reach a Slack that is away; after them it is given up."""


def notify_slack(events: EventLog, warn: Callable[[str], None]) -> None:
    """Has a channel told of what happens in a session. Never holds it up; a Slack that fails is one warning.

    Args:
        events (`EventLog`): The session's events.
        warn (`Callable[[str], None]`): Told, once, what keeps Slack from being told.
    """
    missing = [name for name in ("SLACK_BOT_TOKEN", "SLACK_CHANNEL_ID") if not os.environ.get(name)]
    if missing:
        warn(f"No Slack notifications: {' and '.join(missing)} not set.")
        return
    messages: queue.Queue[str | None] = queue.Queue()

    def listen(event: Event) -> None:
        text = message(event)
        if text:
            messages.put(text)
        if isinstance(event, told.SessionEnded):
            messages.put(None)

    thread = threading.Thread(target=_post_all, args=(messages, warn), name="slack", daemon=True)
    thread.start()
    events.listen(listen)


def message(event: Event) -> str:
    """What Slack is told of an event, `""` for those that are not worth a message."""
    match event:
        case told.SessionStarted():
            return f"Started: {_quiet(event.task)}"
        case told.ApprovalAsked():
            return f"Waits for an answer: `{_quiet(event.request.tool)}` ({_quiet(event.request.reason)})"
        case told.JobReported() if event.serious or event.what == "ended":
            return f"Job {_quiet(event.name or event.job_id)}: {_quiet(event.text)}"
        case told.Warned():
            return f"Note: {_quiet(event.text)}"
        case told.SessionEnded(outcome=outcome):
            reason = f" ({_quiet(outcome.reason)})" if outcome.reason else ""
            answer = f"\n{_quiet(str(outcome.answer))}" if outcome.answer is not None else ""
            return f"Ended: {outcome.state}{reason} after {outcome.steps} steps{answer}"
    return ""


def _quiet(text: str) -> str:
    """Text that pings nobody and forms no link: Slack's three control characters escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:LONGEST]


def _post_all(messages: queue.Queue[str | None], warn: Callable[[str], None]) -> None:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError, SlackClientError
    from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

    address: dict[str, Any] = {"base_url": os.environ["SLACK_API_URL"]} if os.environ.get("SLACK_API_URL") else {}
    client = WebClient(os.environ["SLACK_BOT_TOKEN"], timeout=10, **address)
    client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=2))
    thread = None
    channel, waits, told = os.environ["SLACK_CHANNEL_ID"], iter(AWAY), False
    text = messages.get()
    while text is not None:
        try:
            posted = client.chat_postMessage(
                channel=channel, text=text, thread_ts=thread, parse="none", link_names=False
            )
        except (SlackClientError, OSError) as error:
            seconds = (
                None if isinstance(error, SlackApiError) and error.response.status_code == 200 else next(waits, None)
            )
            if seconds is None or not told:
                more = "" if seconds is None else " It is told once Slack answers again."
                warn(f"Slack was not told: {' '.join(str(error).split())[:200]}{more}")
                told = True
            if seconds is None:
                return
            time.sleep(seconds)
            continue
        thread, waits, told = thread or posted["ts"], iter(AWAY), False
        text = messages.get()
