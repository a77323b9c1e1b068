"""A trace that holds everything the project writes: made by a real agent, its jail, its gate and a sub-agent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from smolagents import LogLevel, Tool
from smolagents.models import ChatMessage, MessageRole
from smolagents.monitoring import TokenUsage

from ml_intern.agent import InternAgent
from ml_intern.events import ApprovalAnswer, Outcome, State
from ml_intern.execution import Workspace
from ml_intern.secrets import Masker
from ml_intern.testing import ScriptedModel
from ml_intern.trace import Journal, TraceRecorder

NAME = "11111111-2222-4333-8444-555555555555.jsonl"


class Publish(Tool):
    name, description, output_type, effects = "publish", "Publishes.", "string", "write"
    inputs = {"what": {"type": "string", "description": "What."}}

    def __init__(self) -> None:
        super().__init__()
        self.published: list[str] = []

    def forward(self, what: str) -> str:
        self.published.append(what)
        return f"published {what}"


class Look(Tool):
    name, description, output_type, effects = "look", "Looks something up.", "object", "read"
    inputs = {"what": {"type": "string", "description": "What."}}

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[str] = []

    def forward(self, what: str) -> dict[str, Any]:
        self.looked.append(what)
        if what == "nothing":
            raise KeyError(f"there is no {what}")
        return {"what": what, "score": 0.5 + len(self.looked) / 1000, "n": len(self.looked)}


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


def cached(text: str) -> ChatMessage:
    """An answer whose prompt came from the provider's cache for the most part."""
    details = SimpleNamespace(cached_tokens=800)
    raw = SimpleNamespace(usage=SimpleNamespace(prompt_tokens_details=details))
    return ChatMessage(MessageRole.ASSISTANT, text, raw=raw, token_usage=TokenUsage(1000, 50))


class Priced(ScriptedModel):
    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        return 0.01


SCRIPT = [
    code("from concurrent.futures import ThreadPoolExecutor\nprint(list(ThreadPoolExecutor(4).map(publish, 'abcd')))"),
    code("publish('e')"),
    cached(code("1 / 0")),
    "no code at all",
    code("from PIL import Image\ndisplay(Image.new('RGB', (20, 10), 'teal'))"),
    code("print('\\u2028 \\u0085 caf\\u00e9 \\U0001f600')", "Emoji   and separators \U0001f600"),
    code("print(helper('count to two'))"),
    code("big = 'x' * 300_000\nprint(big)"),
    code(
        "record_of = look('imdb')\nprint(record_of)\ntry:\n    look('nothing')\nexcept KeyError as error:\n    print(error)"
    ),
    code("final_answer({'accuracy': 0.97})"),
]
ANSWERS = ("approve", "approve", "approve", "approve", "reject")


def record(folder: Path) -> Path:
    """Makes the trace in a folder."""
    answers = iter(ANSWERS)
    journal = Journal(folder / NAME, masker=Masker({}))
    recorder = TraceRecorder(journal, "scripted")
    recorder.jail = "bubblewrap"
    helper = InternAgent(
        [], Priced([code("print(look('innermost'))"), code("1 / 0"), code("final_answer('two')")]), name="helper",
        description="Helps.", verbosity_level=LogLevel.OFF,
    )  # fmt: skip
    helper.tools["look"] = Look()
    helper.python_executor.send_tools(helper.tools)
    agent = InternAgent(
        [Publish(), Look()], Priced([*SCRIPT, "A summary: the work is done."]), managed_agents=[helper], observers=[recorder],
        workspace=Workspace(folder / NAME.removesuffix(".jsonl") / "workspace"), verbosity_level=LogLevel.OFF,
        on_approval=lambda request: ApprovalAnswer(next(answers), "because", "test"),
    )  # fmt: skip
    answer = agent.run("Show everything that a trace can hold.\n\nMore.")
    agent.compact("everything")
    journal.note("decision", subject="model", choice="tiny", reason="it is fast", sources=["a paper"], step=3)
    journal.title("Everything")
    recorder.ended(Outcome(State.SUCCESS, answer, "", agent.step_number - 1, 1.5, agent.ledger.usage))
    agent.cleanup()
    journal.close()
    return journal.path
