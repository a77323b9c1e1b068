"""Weights of one's own: llama.cpp in a child process, as a model like any other."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import Engine, EngineError
    from .model import EmbeddedModel, register
    from .weights import Weights, find_on_disk, listed

__all__ = ["EmbeddedModel", "Engine", "EngineError", "Weights", "find_on_disk", "listed", "register"]

# `doctor` and `--help` need neither smolagents nor litellm, nor all that this brings.
_LATER = {
    "EmbeddedModel": "model",
    "Engine": "engine",
    "EngineError": "engine",
    "Weights": "weights",
    "find_on_disk": "weights",
    "listed": "weights",
    "register": "model",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(name)
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
