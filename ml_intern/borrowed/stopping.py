"""Whether the code that makes a call has been stopped: what waits for a server or a jail looks at it."""

from __future__ import annotations

from ..execution.action import RUNNING
from ..subagents import CALLING


def stopped() -> bool:
    """Whether the code that makes this call has been stopped."""
    action, step = RUNNING.get(), CALLING.get()
    return (action is not None and action.cancelled.is_set()) or (step is not None and step.ended.is_set())
