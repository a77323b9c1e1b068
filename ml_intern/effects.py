"""What tools do to the world, and whose word for it counts."""

from __future__ import annotations

from typing import Any

from smolagents import MultiStepAgent

SMOLAGENTS_EFFECTS = {
    "final_answer": "read",
    "user_input": "read",
    "web_search": "read",
    "visit_webpage": "read",
    "wikipedia_search": "read",
    "transcriber": "read",
    "python_interpreter": "execute",
}
"""What smolagents' own tools do to the world; they do not say so themselves."""

TRUSTED = {
    "plan", "notes", "final_answer", "ask_user", "request_steps", "record_decision", "install_packages", "read_artifact",
    "experiments", "propose_grant",
}  # fmt: skip
OWN = ("ml_intern.session_tools", "ml_intern.grant", "ml_intern.context.", "smolagents.default_tools")
"""Tools of a session's own, whose results come from the agent, from the person, or stood in a result before."""

LOADED = "dynamic_tool"
"""The module of a tool whose code was loaded, from the Hub or a folder: who passes it in has said to trust that code."""
SERVED = ("mcpadapt", "mcp", "smolagents.tools", "smolagents.mcp_client")
"""Modules that make classes of tools for servers and Spaces: what those do can change any day, and nobody vouches for it."""


def served(tool: Any) -> bool:
    """Whether what a tool does happens at a server, a Space or in another program, such as tools of MCP."""
    kind = type(tool)
    if kind.__module__ == "smolagents.tools" and kind.__name__ == "SimpleTool":
        return False  # a function of the caller's, made a tool by the decorator
    module = kind.__module__
    return module in SERVED or module.partition(".")[0] in SERVED or bool(getattr(kind, "foreign", False))


def outside(tool: Any) -> bool:
    """Whether a tool's code, or what it does, comes from elsewhere: what it says of itself does not count."""
    return served(tool) or type(tool).__module__ == LOADED


def effects_of(tool: Any, arguments: dict[str, Any]) -> str:
    """What a call does to the world: `read`, `write`, `spend`, `execute`, or `unknown` where the tool does not say.

    A tool may say it by its `operation` (`"start"`), and by the `backend` that this goes to (`"start:hf_jobs"`).

    What tools from outside say of themselves does not count.
    """
    kind = type(tool)
    if outside(tool):
        return "unknown"
    declared = getattr(kind, "effects", None)  # optional by design: tools this project has never seen lack it
    if isinstance(declared, dict):
        operation, backend = arguments.get("operation"), arguments.get("backend")
        declared = declared.get(f"{operation}:{backend}", declared.get(operation))
    if declared is None and kind.__module__ == "smolagents.default_tools":
        declared = SMOLAGENTS_EFFECTS.get(tool.name)
    return declared if declared in ("read", "write", "spend", "execute") else "unknown"


def untrusted(tool: Any) -> bool:
    """Whether what a tool returns was written by somebody else."""
    if outside(tool) or isinstance(tool, MultiStepAgent):
        return True
    kind = type(tool)
    ours = kind.__module__.startswith(OWN) and tool.name in TRUSTED
    return bool(getattr(kind, "untrusted", not ours))
