"""With any smolagents agent: as a step callback."""

from __future__ import annotations

from typing import Any

from conversations import WindowedModel, is_alternating, text_of
from smolagents import CodeAgent, LogLevel, ToolCallingAgent, tool
from smolagents.memory import ActionStep
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from ml_intern.context import ContextManager
from ml_intern.steps import CompactionStep


@tool
def fetch(i: int) -> str:
    """Fetches.

    Args:
        i: Which.
    """
    return f"FACT-{i} " + "data " * 4_000


def test_a_plain_code_agent_stays_in_its_window() -> None:
    def say(call: int, messages: list[Any]) -> str:
        return f"Text {call}.\n<code>\n{'final_answer(1)' if call == 60 else f'print(fetch({call}))'}\n</code>"

    context, model = ContextManager(), WindowedModel(9_000, say)
    agent = CodeAgent(
        [fetch, context.tool], model, step_callbacks=[context], max_steps=70, verbosity_level=LogLevel.OFF
    )
    assert agent.run("Read all.") == 1
    assert model.refused == 0 and any(isinstance(step, CompactionStep) for step in agent.memory.steps)
    assert "FACT-7 " in context.read("history", grep="FACT-7 ")
    assert all(len(step.observations) > 9_000 for step in agent.memory.steps[:-1] if isinstance(step, ActionStep)), (
        "the record"
    )


def test_a_tool_calling_agent_too_and_its_calls_stay_with_their_results() -> None:
    class Calling(WindowedModel):
        def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
            assert is_alternating(messages)
            answer = super().generate(messages)
            if answer.content.startswith("Goal"):
                return answer
            name, arguments = ("final_answer", {"answer": "x"}) if self.calls == 40 else ("fetch", {"i": self.calls})
            call = ChatMessageToolCall(ChatMessageToolCallFunction(arguments, name), f"c{self.calls}", "function")
            return ChatMessage(MessageRole.ASSISTANT, "", tool_calls=[call], token_usage=TokenUsage(answer.token_usage.input_tokens, 1))  # fmt: skip

    context, model = ContextManager(), Calling(9_000, lambda call, messages: "")
    agent = ToolCallingAgent([fetch, context.tool], model, step_callbacks=[context], max_steps=50, verbosity_level=LogLevel.OFF)  # fmt: skip
    assert agent.run("Read all.") == "x"
    assert model.refused == 0
    shown = text_of(agent.write_memory_to_messages())
    assert "FACT-39 " in shown and "FACT-3 " not in shown
