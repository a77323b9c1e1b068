"""The matrix once more where a tool is another program's: our agent calls one over MCP, and MCP clients call ours.

What must never happen: a side effect without a rule that allows it, or an answer to this very call; the first use of a definition
that nobody has read without an answer, whatever a rule says.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import ElicitResult
from smolagents import LogLevel, Tool, ToolCallingAgent
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole

from ml_intern.agent import InternAgent
from ml_intern.approval import MODES, ApprovalPolicy, nobody
from ml_intern.borrowed import KnownTools, McpServer, McpServers
from ml_intern.events import ApprovalAnswer
from ml_intern.gateways.mcp_calls import CallDesk
from ml_intern.gateways.mcp_server import serve
from ml_intern.testing import ScriptedModel

RAW = Path(__file__).parents[1] / "borrowed" / "raw_server.py"
SAYS_IT_READS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
VARIANTS: dict[str, tuple[list[str], list[str], str]] = {
    # allow, deny, what a person says
    "nobody there": ([], [], "nobody"),
    "rejected": ([], [], "reject"),
    "approved": ([], [], "approve"),
    "a rule": (["*_act"], [], "reject"),
    "a rule of another kind": (["*_other", "*_act@read", "*_act:me/*:private"], [], "reject"),
    "a rule and one against it": (["*_act"], ["*_act"], "approve"),
}
RUNS = len(MODES) * len(VARIANTS) * 2


def calls(name: str, arguments: dict[str, Any]) -> ChatMessage:
    call = ChatMessageToolCall(ChatMessageToolCallFunction(arguments, name), f"c_{name}", "function")
    return ChatMessage(MessageRole.ASSISTANT, f"Calling {name}.", [call])


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


TRY = "try:\n    {}\nexcept PermissionError:\n    pass\nfinal_answer(1)"


@pytest.mark.long
@pytest.mark.parametrize(
    "caller", [pytest.param("main code", marks=pytest.mark.soak), "a thread of the code", "a sub-agent"]
)
def test_our_agent_calls_a_tool_of_a_server(caller: str, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(
        json.dumps([{"name": "act", "inputSchema": {"type": "object"}, "annotations": SAYS_IT_READS}])
    )
    made, known = tmp_path / "calls", KnownTools()
    with McpServers([McpServer("far", sys.executable, (str(RAW), str(tmp_path)))], known) as servers:
        tools: list[Any] = [*servers.tools()]
        digest = tools[0].digest
        below = []
        act = TRY.format("far_act()")
        if caller == "a thread of the code":
            act = (
                "import threading\ndef act():\n    try:\n        far_act()\n    except PermissionError:\n        pass\n"
                "thread = threading.Thread(target=act)\nthread.start()\nthread.join()\nfinal_answer(1)"
            )
        elif caller == "a sub-agent":
            said = [calls("far_act", {}), calls("final_answer", {"answer": "done"})] * RUNS
            below = [
                ToolCallingAgent(
                    tools, ScriptedModel(said), name="helper", description="Helps.", verbosity_level=LogLevel.OFF
                )
            ]
            tools, act = [], TRY.format("helper('Go.')")
        agent = InternAgent(
            tools, ScriptedModel([code(act)] * RUNS), managed_agents=below, verbosity_level=LogLevel.OFF
        )
        wrong = []
        for read, mode, variant in itertools.product((False, True), MODES, VARIANTS):
            allow, deny, says = VARIANTS[variant]
            if not read:
                known._here.clear()
            agent.gate.policy = ApprovalPolicy.of(allow, deny, mode, own=["ada"])
            agent.gate.ask = nobody if says == "nobody" else lambda request, says=says: ApprovalAnswer(says, by="me")
            made.unlink(missing_ok=True)
            if read:
                known.add(servers.connections[0].server.key, "act", "", digest)
            agent.run("Go.")
            expected = (
                variant != "a rule and one against it"
                and mode != "plan"
                and ((variant == "approved" and mode != "deny") or (variant == "a rule" and read))
            )
            if made.exists() is not expected:
                wrong.append((read, mode, variant))
        agent.cleanup()
    assert wrong == []


class Act(Tool):
    name, description, output_type = "act", "Does something.", "string"
    inputs: dict = {}
    done: list = []

    def forward(self) -> str:
        self.done.append(self.name)
        return "done"


class Read(Act):
    name, effects = "read_act", "read"


class Write(Act):
    name, effects = "write_act", "write"


class Spend(Act):
    name, effects = "spend_act", "spend"

    def estimate_cost(self, **arguments: Any) -> float:
        return 1.0


class Execute(Act):
    name, effects = "execute_act", "execute"


class Unknown(Act):
    name = "unknown_act"


class Served(Act):
    name, effects, foreign = "served_act", "read", True


@pytest.mark.parametrize(
    ("protocol", "asks"),
    [("legacy", True), ("auto", True), ("auto", False), pytest.param("legacy", False, marks=pytest.mark.soak)],
)
def test_a_client_calls_our_tools(protocol: str, asks: bool, home: Path) -> None:
    tools = [Read(), Write(), Spend(), Execute(), Unknown(), Served()]
    desk = CallDesk(home / "files", home)
    server, says = serve(tools, desk), ""

    async def answer(context: Any, params: Any) -> ElicitResult:
        if says == "nobody":
            return ElicitResult(action="cancel")
        return ElicitResult(action="accept", content={"approve": says == "approve"})

    async def work() -> list[tuple[str, ...]]:
        nonlocal says
        wrong = []
        async with Client(server, mode=protocol, elicitation_callback=answer if asks else None) as client:
            for mode, variant in itertools.product(MODES, VARIANTS):
                allow, deny, says = VARIANTS[variant]
                desk.policy = ApprovalPolicy.of(allow, deny, mode, trust_vouched=False, own=["ada"])
                for tool in tools:
                    Act.done.clear()
                    result = await client.call_tool(tool.name, {})
                    reads = tool.name == "read_act"
                    expected = variant != "a rule and one against it" and (
                        reads
                        or (
                            mode != "plan"
                            and (variant == "a rule" or (variant == "approved" and mode != "deny" and asks))
                        )
                    )
                    if Act.done != [tool.name] * expected or result.is_error is expected:
                        wrong.append((tool.name, mode, variant, str(Act.done)))
        return wrong

    assert asyncio.run(work()) == []
    desk.close()
