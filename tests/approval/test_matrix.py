"""The matrix: every kind of tool, in every mode, under every kind of rule and answer, from every caller.

What must never happen: a side effect without a rule that allows it, or an answer to this very call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateways.conftest import slack  # noqa: F401 - a fixture
from gateways.slack_team import gateway_of
from sessions.conftest import ByTask
from smolagents import CodeAgent, LogLevel, Tool, ToolCallingAgent
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole

from ml_intern import MLIntern
from ml_intern.agent import InternAgent
from ml_intern.approval import MODES, ApprovalPolicy, nobody
from ml_intern.events import ApprovalAnswer, ApprovalRequest
from ml_intern.steps import Observer
from ml_intern.team import Team
from ml_intern.testing import ScriptedModel
from ml_intern.testing.slack import LocalSlack

EFFECTS = ("read", "write", "spend", "execute", "unknown", "server", "looking", "changing", "unlisted")
"""`server` is a tool of a server (MCP): it may say of itself what it likes. The last three go by their `operation`."""
MEANS = {"looking": "read", "changing": "write", "unlisted": "unknown"}


class Act(Tool):
    name, description, output_type = "act", "Does something.", "string"
    inputs = {"x": {"type": "string", "description": "Anything."}}

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def forward(self, x: str) -> str:
        self.done.append(self.name)
        return "done"


class Read(Act):
    name, effects = "t_read", "read"


class Write(Act):
    name, effects = "t_write", "write"


class Spend(Act):
    name, effects = "t_spend", "spend"

    def estimate_cost(self, **arguments: Any) -> float:
        return 1.0


class Execute(Act):
    name, effects = "t_execute", "execute"


class Unknown(Act):
    name = "t_unknown"


class Served(Act):
    name, effects, foreign = "t_server", "read", True


class Looking(Act):
    """Does what its operation says, as `hub_repo`: this one is always called with `x`."""

    name = "t_looking"
    inputs = {"operation": {"type": "string", "description": "What to do."}}
    effects = {"x": "read", "y": "write"}

    def forward(self, operation: str) -> str:
        return super().forward(operation)


class Changing(Looking):
    name, effects = "t_changing", {"x": "write", "y": "read"}


class Unlisted(Looking):
    name, effects = "t_unlisted", {"y": "read"}


def one_of_each() -> list[Any]:
    """In the order of `EFFECTS`."""
    return [kind() for kind in (Read, Write, Spend, Execute, Unknown, Served, Looking, Changing, Unlisted)]


VARIANTS: dict[str, tuple[list[str], list[str], str]] = {
    # allow, deny, what a person says
    "nobody there": ([], [], "nobody"),
    "rejected": ([], [], "reject"),
    "approved": ([], [], "approve"),
    "a rule": (["t_*"], [], "reject"),
    "a rule of another kind": (["u_*", "t_write:me/*:private", "t_spend:<=0.5usd"], [], "reject"),
    "a rule and one against it": (["t_*"], ["t_*"], "approve"),
}


def expected(effects: str, mode: str, variant: str) -> bool:
    """Whether the tool runs."""
    effects = MEANS.get(effects, effects)
    if variant == "a rule and one against it":
        return False
    if effects == "read":
        return True
    if mode == "plan":
        return False
    return variant == "a rule" or (variant == "approved" and mode != "deny")


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


TRIES = "\n".join(f"try:\n    t_{effects}('x')\nexcept PermissionError:\n    pass" for effects in EFFECTS)
THREADS = f"""
import threading
def act(tool):
    try:
        tool('x')
    except PermissionError:
        pass
threads = [threading.Thread(target=act, args=(tool,)) for tool in ({", ".join(f"t_{effects}" for effects in EFFECTS)})]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def calls(name: str, arguments: dict[str, Any]) -> ChatMessage:
    call = ChatMessageToolCall(ChatMessageToolCallFunction(arguments, name), f"c_{name}", "function")
    return ChatMessage(MessageRole.ASSISTANT, f"Calling {name}.", [call])


ONE_BY_ONE = [calls(f"t_{effects}", {"operation" if effects in MEANS else "x": "x"}) for effects in EFFECTS]
ONE_BY_ONE += [calls("final_answer", {"answer": "done"})]
RUNS = len(MODES) * len(VARIANTS) * 2
NAMED: dict[str, Any] = {"name": "helper", "description": "Helps.", "verbosity_level": LogLevel.OFF}


def agents_of(caller: str, tools: list[Tool]) -> tuple[str, list[Tool], list[Any]]:
    """What the agent at the top does, its tools, and the agents below it."""
    if caller == "main code":
        return f"{TRIES}\nfinal_answer(1)", tools, []
    if caller == "threads of the code":
        return f"{THREADS}\nfinal_answer(1)", tools, []
    delegate = "try:\n    helper('Go.')\nexcept PermissionError:\n    pass\nfinal_answer(1)"
    if caller == "sub-agent that calls tools":
        return delegate, [], [ToolCallingAgent(tools, ScriptedModel(ONE_BY_ONE * RUNS), **NAMED)]
    if caller == "one of a team":
        make = lambda: (ToolCallingAgent(tools, ScriptedModel(ONE_BY_ONE * RUNS), **NAMED), None)  # noqa: E731
        return delegate, [], [Team("helper", "Helps.", make)]
    if caller == "sub-agent with a jail":
        return delegate, [], [InternAgent(tools, ScriptedModel([code(f"{TRIES}\nfinal_answer(1)")] * RUNS), **NAMED)]
    inner = ToolCallingAgent(tools, ScriptedModel(ONE_BY_ONE * RUNS), **{**NAMED, "name": "inner"})
    if caller == "agent below a sub-agent":
        said = [calls("inner", {"task": "Go."}), calls("final_answer", {"answer": "done"})] * RUNS
        return delegate, [], [ToolCallingAgent([], ScriptedModel(said), managed_agents=[inner], **NAMED)]
    said = [code("inner('Go.')\nfinal_answer(1)")] * RUNS
    return delegate, [], [InternAgent([], ScriptedModel(said), managed_agents=[inner], **NAMED)]


CALLERS = (
    "main code", "threads of the code", "sub-agent that calls tools", "one of a team", "sub-agent with a jail",
    "agent below a sub-agent", "agent below one with a jail",
)  # fmt: skip


class Record(Observer):
    """What was approved, as it stands on record."""

    def __init__(self) -> None:
        self.approved: list[str] = []

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        if answer.decision == "approve":
            self.approved.append(request.tool)


@pytest.fixture
def start() -> Iterator[Callable[..., InternAgent]]:
    made: list[InternAgent] = []

    def build(*args: Any, **options: Any) -> InternAgent:
        made.append(InternAgent(*args, verbosity_level=LogLevel.OFF, **options))
        return made[-1]

    yield build
    for agent in made:
        agent.cleanup()
        for sub in agent.managed_agents.values():
            if isinstance(sub, InternAgent):
                sub.cleanup()


@pytest.mark.parametrize("caller", CALLERS)
def test_no_side_effect_without_its_rule_or_answer(caller: str, start: Callable[..., InternAgent]) -> None:
    tools: list[Any] = one_of_each()
    act, own, below = agents_of(caller, tools)
    record = Record()
    agent = start(own, ScriptedModel([code(act)] * RUNS), managed_agents=below, observers=[record])
    wrong = []
    for mode, variant in itertools.product(MODES, VARIANTS):
        allow, deny, says = VARIANTS[variant]
        agent.gate.policy = ApprovalPolicy.of(allow, deny, mode, trust_vouched=False, own=["ada"])
        agent.gate.ask = nobody if says == "nobody" else lambda request, says=says: ApprovalAnswer(says, by="me")
        record.approved.clear()
        for tool in tools:
            tool.done.clear()
        agent.run("Go.")
        for effects, tool in zip(EFFECTS, tools, strict=True):
            if bool(tool.done) is not expected(effects, mode, variant):
                wrong.append((effects, mode, variant, len(tool.done)))
            allowed = variant == "a rule" or MEANS.get(effects, effects) == "read"
            assert len(tool.done) <= 1 and (allowed or len(tool.done) <= record.approved.count(tool.name))
    assert wrong == []


def answered_in_slack(slack: LocalSlack, thread: str, says: str) -> None:  # noqa: F811
    """Presses on every question of a thread until its turn is over: first somebody who may not, and then who may."""
    for count in itertools.count():
        slack.wait(lambda: any(m.text.startswith("Ended") or m.buttons() for m in slack.said(thread)), 30)
        card = next((m for m in slack.said(thread) if m.buttons()), None)
        if card is None:
            return
        refused = sum(m.to == "UBEA" for m in slack.messages)
        slack.click(card, "approve", user="UBEA")
        slack.wait(lambda refused=refused: sum(m.to == "UBEA" for m in slack.messages) > refused)
        views = len(slack.views)
        slack.click(card, says)
        if says == "reject":
            slack.wait(lambda views=views: len(slack.views) > views)
            slack.submit(slack.views[-1], {"reason": "no"})
        slack.wait(lambda card=card: not card.buttons())
        assert count < len(EFFECTS)


@pytest.mark.long
def test_who_answers_in_slack(slack: LocalSlack, home: Path) -> None:  # noqa: F811
    """The same where the questions are answered with buttons: each mode, a yes and a no, and always one who may not."""
    wrong = []
    for mode in MODES:
        tools: list[Any] = one_of_each()
        model = ByTask(lambda task, said: code(f"{TRIES}\nfinal_answer(1)"))
        with MLIntern(model, home=home / mode, tools=tools, mode=mode) as intern, gateway_of(intern):
            slack.socket.wait_connected()
            for says in ("approve", "reject"):
                for tool in tools:
                    tool.done.clear()
                root = slack.say("UANN", f"<@UBOT> {says}")
                answered_in_slack(slack, root.ts, says)
                variant = {"approve": "approved", "reject": "rejected"}[says]
                for effects, tool in zip(EFFECTS, tools, strict=True):
                    if len(tool.done) != expected(effects, mode, variant):
                        wrong.append((effects, mode, says, len(tool.done)))
    assert wrong == []


def test_code_of_a_sub_agent_that_would_run_in_this_process_is_asked_about(start: Callable[..., InternAgent]) -> None:
    """smolagents' interpreter is no jail: such an agent runs code here."""
    write = Write()
    for says, ran in (("reject", []), ("approve", ["t_write"])):
        helper = CodeAgent([write], ScriptedModel([code("t_write('x')\nfinal_answer(1)")] * len(ran)), **NAMED)
        agent = start(
            [],
            ScriptedModel([code("try:\n    helper('Go.')\nexcept PermissionError:\n    pass\nfinal_answer(1)")]),
            managed_agents=[helper],
            policy=ApprovalPolicy(trust_vouched=False),
            on_approval=lambda request, says=says: ApprovalAnswer(says, by="me"),
        )
        agent.run("Go.")
        assert write.done == ran


@pytest.mark.parametrize("effects", EFFECTS)
def test_who_passes_a_tool_in_vouches_for_what_says_nothing_of_itself(
    effects: str, start: Callable[..., InternAgent]
) -> None:
    tool = {one.name: one for one in one_of_each()}[f"t_{effects}"]
    agent = start([tool], ScriptedModel([code(f"{TRY.format(tool.name)}\nfinal_answer(1)")]), on_approval=nobody)
    agent.run("Go.")
    assert bool(tool.done) is (MEANS.get(effects, effects) in ("read", "execute", "unknown"))


TRY = "try:\n    {}('x')\nexcept PermissionError:\n    pass"
