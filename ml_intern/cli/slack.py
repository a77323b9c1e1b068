"""`slack`: the intern as a member of a workspace; and a session of this terminal told and answered there as well."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from ..errors import InternError
from . import text as words

if TYPE_CHECKING:
    from ..gateways.slack import SlackGateway
    from ..intern import MLIntern
    from .run import Order


def run(order: Order, manifest: bool = False) -> int:
    """Works for the people of a workspace until it is stopped.

    Args:
        order (`Order`): What the intern is made of; it has no task.
        manifest (`bool`, defaults to `False`): Print what to make the Slack app of, and do nothing.
    """
    from ..gateways.slack_setup import MANIFEST, STEPS

    if manifest:
        print(MANIFEST, end="")
        return 0
    missing = [name for name in ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN") if not os.environ.get(name)]
    if not (os.environ.get("SLACK_OWNER") or os.environ.get("SLACK_APPROVERS")):
        missing.append("SLACK_OWNER (or SLACK_APPROVERS)")
    if missing:
        raise InternError("Slack is not set up", f"{', '.join(missing)} not set", f"In ten steps:\n{STEPS}")
    from ..gateways.slack import SlackGateway
    from .run import make, serving

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    intern = make(order, lambda event: None, None)
    gateway = SlackGateway(intern, warn=_say)
    try:
        with serving(intern):
            gateway.start()
            for said in gateway.take_up():
                _say(f"Could not go on with {said}")
            _say("At work in Slack. Write to it there: @ML Intern what to do. Ctrl-C ends it.")
            stopped.wait()
            _say("Ending: what waits for an answer goes on waiting, on record.")
            intern.close()
    finally:
        gateway.close()
    return 0


def beside(intern: MLIntern) -> SlackGateway | None:
    """The gateway for an intern of the terminal that notifies Slack; `None` where Slack is not set up."""
    if not intern.notifies_slack:
        return None
    from ..gateways.slack import beside

    return beside(intern)


def answers(order: Order) -> bool:
    """Whether somebody in Slack can answer what a task of the terminal asks."""
    if not order.slack or not all(os.environ.get(name) for name in ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN")):
        return False
    from ..gateways.slack_members import Members

    return Members.of().anybody


def _say(text: str) -> None:
    print(words.printable(text), file=sys.stderr, flush=True)
