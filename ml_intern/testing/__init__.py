"""Fakes that speak the real protocols, for tests of agents and tools: yours as well as ours.

Nothing here patches a library: the unmodified clients talk to local services over HTTP, and agents talk to models that
are models. Everything is imported on first use, so that `import ml_intern.testing` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_intern.testing.arxiv import LocalArxiv
    from ml_intern.testing.e2b import LocalE2B
    from ml_intern.testing.github import LocalGithub
    from ml_intern.testing.hub import LocalHub
    from ml_intern.testing.llm import Cut, Fail, LocalLLM, Reply, ToolCall, mailbox, recorded, scripted
    from ml_intern.testing.llm_anthropic import LocalAnthropic
    from ml_intern.testing.llm_llamacpp import LocalLlamaCpp
    from ml_intern.testing.llm_ollama import LocalOllama
    from ml_intern.testing.models import ReplayedModel, ScriptedModel, UnconsumedScript, UnexpectedModelCall
    from ml_intern.testing.recording import differences
    from ml_intern.testing.scholar import LocalScholar
    from ml_intern.testing.serve import Service
    from ml_intern.testing.slack import LocalSlack

__all__ = [
    "Cut",
    "Fail",
    "LocalAnthropic",
    "LocalArxiv",
    "LocalE2B",
    "LocalGithub",
    "LocalHub",
    "LocalLLM",
    "LocalScholar",
    "LocalSlack",
    "LocalLlamaCpp",
    "LocalOllama",
    "ReplayedModel",
    "Reply",
    "ScriptedModel",
    "Service",
    "ToolCall",
    "UnconsumedScript",
    "UnexpectedModelCall",
    "differences",
    "mailbox",
    "recorded",
    "scripted",
]

_HOMES = {
    "arxiv": ("LocalArxiv",),
    "e2b": ("LocalE2B",),
    "github": ("LocalGithub",),
    "hub": ("LocalHub",),
    "llm": ("Cut", "Fail", "LocalLLM", "Reply", "ToolCall", "mailbox", "recorded", "scripted"),
    "llm_anthropic": ("LocalAnthropic",),
    "llm_llamacpp": ("LocalLlamaCpp",),
    "llm_ollama": ("LocalOllama",),
    "models": ("ReplayedModel", "ScriptedModel", "UnconsumedScript", "UnexpectedModelCall"),
    "recording": ("differences",),
    "scholar": ("LocalScholar",),
    "serve": ("Service",),
    "slack": ("LocalSlack",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
