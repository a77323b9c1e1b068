"""Tools that are off because there is no network: they are there, and say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from smolagents import Tool

from .offline import Offline, needs_network


def without_network(tools: Iterable[Any]) -> list[Any]:
    """The same tools, with those that need the network replaced by ones that say so."""
    return [OffTool(tool) if needs_network(tool) else tool for tool in tools]


class OffTool(Tool):
    """A tool that is off: it has the other one's name and arguments, asks nobody, and says why it does nothing.

    Args:
        tool (`Tool`): The tool that needs the network.
    """

    effects = "read"
    skip_forward_signature_validation = True

    def __init__(self, tool: Tool) -> None:
        self.name, self.inputs, self.output_type = tool.name, tool.inputs, tool.output_type
        self.description = f"(Off: there is no network here.) {tool.description}"
        super().__init__()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise Offline(self.name)
