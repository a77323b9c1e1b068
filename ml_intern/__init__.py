"""ML Intern: an autonomous ML engineer on smolagents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import InternAgent
    from .errors import InternError
    from .events import ApprovalAnswer, ApprovalRequest, Event, Outcome, State
    from .intern import MLIntern

__version__ = "0.1.0"
__all__ = ["ApprovalAnswer", "ApprovalRequest", "Event", "InternAgent", "InternError", "MLIntern", "Outcome", "State"]

_WHERE = {
    "InternAgent": "agent",
    "InternError": "errors",
    "MLIntern": "intern",
    "ApprovalAnswer": "events",
    "ApprovalRequest": "events",
    "Event": "events",
    "Outcome": "events",
    "State": "events",
}


def __getattr__(name: str) -> Any:
    # smolagents takes a second to import: it is loaded when something of it is used.
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
