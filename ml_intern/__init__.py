"""ML Intern: an autonomous ML engineer on smolagents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import InternAgent
    from .borrowed import McpServers
    from .errors import InternError
    from .events import ApprovalAnswer, ApprovalRequest, Event, Outcome, State
    from .intern import MLIntern

__version__ = "0.1.0"
__all__ = [
    "ApprovalAnswer",
    "ApprovalRequest",
    "Event",
    "InternAgent",
    "InternError",
    "MLIntern",
    "McpServers",
    "Outcome",
    "State",
]

_WHERE = {
    "InternAgent": "agent",
    "InternError": "errors",
    "MLIntern": "intern",
    "McpServers": "borrowed",
    "ApprovalAnswer": "events",
    "ApprovalRequest": "events",
    "Event": "events",
    "Outcome": "events",
    "State": "events",
}


def _open_slack(intern: MLIntern) -> Any:
    """What ties `MLIntern` to the floor above it, which it knows nothing of."""
    from .gateways.slack import beside

    gateway = beside(intern)
    return gateway.start() if gateway is not None else None


def __getattr__(name: str) -> Any:
    # smolagents takes a second to import: it is loaded when something of it is used.
    if name in _WHERE:
        from importlib import import_module

        found = getattr(import_module(f".{_WHERE[name]}", __name__), name)
        if name == "MLIntern":
            found.open_slack = staticmethod(_open_slack)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
