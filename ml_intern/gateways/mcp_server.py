"""ToolServer: tools of this project, or any of smolagents, served over MCP by the official server.

What must never happen here: a call that writes, spends or runs something takes effect without a rule or an answer to this very
call, or off the record; a client is asked about one thing and another is done; something else than the protocol is written to
the protocol's stream.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import anyio
import anyio.to_thread
from jsonschema import Draft202012Validator
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.tools.base import Tool as Registered
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from smolagents import Tool

from ..offline import needs_network
from .mcp_calls import CallDesk

TELL_SECONDS = 2.0
"""Between two words of progress."""
AT_ONCE = 32
"""Calls that are carried out at the same time; more wait."""
_READS_FILES = {"paper_read", "hub_inspect_dataset", "hub_inspect_model"}
"""Tools that take a workspace and leave nothing there; others that only read elsewhere may write here."""


class ServedTool(Registered):
    """A tool as the official server has it registered; what it does is the desk's matter."""

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        return await self.fn(arguments, context)


def serve(tools: Iterable[Tool], desk: CallDesk, files: str = "") -> MCPServer[Any]:
    """The official server with these tools.

    Args:
        tools (`Iterable[Tool]`): Any tools of smolagents.
        desk (`CallDesk`): Where calls are recorded, asked about and made.
        files (`str`, *optional*): The folder that paths in arguments and results are in.
    """
    said = "Tools of ML Intern: papers, data sets, models and the Hub."
    if files:
        said += f" Paths in arguments and results are under {files}."
    limiter: list[anyio.CapacityLimiter] = []

    def registered(tool: Tool) -> ServedTool:
        desk.add(tool)
        schema = input_schema(tool)
        validator = Draft202012Validator(schema)
        output = getattr(tool, "output_schema", None)

        async def call(arguments: dict[str, Any], context: Context[Any, Any]) -> CallToolResult | InputRequiredResult:
            limiter[:] = limiter or [anyio.CapacityLimiter(AT_ONCE)]  # of the loop that serves
            if wrong := next(iter(validator.iter_errors(arguments)), None):
                place = ".".join(map(str, wrong.absolute_path))
                return failed(f"{tool.name}: {place + ': ' if place else ''}{wrong.message}"[:2_000])
            return await _call(desk, tool, arguments, context, limiter[0])

        return ServedTool(
            fn=call,
            name=tool.name,
            description=tool.description,
            parameters=schema,
            fn_metadata=FuncMetadata(arg_model=ArgModelBase, output_schema=output if _is_object(output) else None),
            is_async=True,
            annotations=annotations(tool),
        )

    return MCPServer(
        "ml-intern",
        title="ML Intern",
        instructions=said,
        version=version("smolagents-ml-intern"),
        tools=[registered(tool) for tool in tools],
        log_level="ERROR",
    )


async def _call(
    desk: CallDesk, tool: Tool, arguments: dict[str, Any], context: Context[Any, Any], limiter: anyio.CapacityLimiter
) -> CallToolResult | InputRequiredResult:
    """A call, on a thread; told to stop where the client takes it back."""
    call = desk.call(tool.name, arguments, context)
    result: CallToolResult | InputRequiredResult | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_tell_progress, tool.name, context)
            result = await anyio.to_thread.run_sync(call.run, abandon_on_cancel=True, limiter=limiter)
            group.cancel_scope.cancel()
    finally:
        call.stop()
    assert result is not None
    return result


async def _tell_progress(name: str, context: Context[Any, Any]) -> None:
    """That it still works: for clients that give up on a call that says nothing. Nothing is sent to who did not ask for it."""
    started = time.monotonic()
    while True:
        await anyio.sleep(TELL_SECONDS)
        seconds = time.monotonic() - started
        await context.report_progress(seconds, None, f"{name} works, {seconds:.0f} s")


def failed(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def result_of(value: Any) -> CallToolResult:
    """What a tool returned: data as data, and as text for clients that read no more; numbers that JSON has not are null."""
    text = value if isinstance(value, str) else _strict_json(value)
    structured = json.loads(text) if isinstance(value, dict) else None
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured)


def _strict_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # NaN or Infinity, which many readers refuse
        plain = json.loads(json.dumps(value, default=str), parse_constant=lambda word: None)
        return json.dumps(plain, ensure_ascii=False)


def kinds_of(tool: Tool) -> frozenset[str]:
    """What a tool does to the world, in any of its operations."""
    said = getattr(type(tool), "effects", None)
    every = said.values() if isinstance(said, dict) else [said]
    return frozenset(str(kind) if kind in ("read", "write", "spend", "execute") else "unknown" for kind in every)


def annotations(tool: Tool) -> ToolAnnotations:
    """The same in the protocol's words."""
    kinds = kinds_of(tool)
    harmless = kinds == {"read"}
    leaves = "workspace" in inspect.signature(type(tool).__init__).parameters and tool.name not in _READS_FILES
    reads = harmless and not leaves
    return ToolAnnotations(
        title=tool.name.replace("_", " ").capitalize(),
        read_only_hint=reads,
        destructive_hint=not harmless,
        idempotent_hint=harmless,
        open_world_hint=needs_network(tool) or "unknown" in kinds,
    )


def input_schema(tool: Tool) -> dict[str, Any]:
    """The arguments of a tool of smolagents as a JSON schema."""
    properties, required = {}, []
    parameters = inspect.signature(tool.forward).parameters
    for name, about in tool.inputs.items():
        kind, kept = about.get("type"), {"description": about["description"]}
        optional = bool(about.get("nullable")) or (
            name in parameters and parameters[name].default is not inspect.Parameter.empty
        )
        kinds = [one for one in (kind if isinstance(kind, list) else [kind]) if one in _JSON_TYPES]
        if kinds and (kind not in ("any", "null")):
            kept["type"] = [*kinds, "null"] if optional else kinds[0] if len(kinds) == 1 else kinds
        properties[name] = kept
        if not optional:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_JSON_TYPES = {"string", "integer", "number", "boolean", "array", "object"}


def _is_object(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "object"
