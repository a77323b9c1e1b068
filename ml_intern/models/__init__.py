"""Any model: `LLM_ENDPOINT` to a smolagents `Model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .endpoint import Endpoint, resolve

if TYPE_CHECKING:
    from .litellm import EndpointModel, LazyLitellm
    from .messages import MessagePreparer
    from .usage import CallUsage, call_usage

__all__ = ["CallUsage", "Endpoint", "EndpointModel", "LazyLitellm", "MessagePreparer", "call_usage", "resolve"]


def __getattr__(name: str) -> Any:
    # smolagents takes a second to import: `doctor` and `--help` only need `resolve`.
    if name in ("EndpointModel", "LazyLitellm"):
        from . import litellm

        return getattr(litellm, name)
    if name == "MessagePreparer":
        from .messages import MessagePreparer

        return MessagePreparer
    if name in ("CallUsage", "call_usage"):
        from . import usage

        return getattr(usage, name)
    raise AttributeError(name)
