"""Any model: `LLM_ENDPOINT` to a smolagents `Model`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .endpoint import Endpoint, Endpoints, resolve, resolve_all
from .parameters import ModelOptions, Price

if TYPE_CHECKING:
    from .chain import ChainModel, Switch, make_model
    from .litellm import EndpointModel
    from .loading import LazyLitellm
    from .messages import MessagePreparer
    from .usage import CallUsage, call_usage

__all__ = [
    "CallUsage",
    "ChainModel",
    "Endpoint",
    "EndpointModel",
    "Endpoints",
    "LazyLitellm",
    "MessagePreparer",
    "ModelOptions",
    "Price",
    "Switch",
    "call_usage",
    "make_model",
    "resolve",
    "resolve_all",
]

# smolagents takes a second to import: `doctor` and `--help` only need `resolve`.
_LATER = {
    "ChainModel": "chain",
    "Switch": "chain",
    "make_model": "chain",
    "EndpointModel": "litellm",
    "LazyLitellm": "loading",
    "MessagePreparer": "messages",
    "CallUsage": "usage",
    "call_usage": "usage",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(name)
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
