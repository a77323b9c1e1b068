"""Through litellm: a provider's refusal leads to a compaction, windows are known, marks arrive."""

from __future__ import annotations

from typing import Any

import pytest
from smolagents import LogLevel
from smolagents.models import ChatMessage, MessageRole

from ml_intern.agent import InternAgent
from ml_intern.models import EndpointModel
from ml_intern.models.cache_marks import unmarked
from ml_intern.steps import CompactionStep
from ml_intern.testing import LocalLLM
from ml_intern.testing.llm import Fail


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


@pytest.mark.long
@pytest.mark.parametrize(
    ("model_id", "status", "said", "code_"),
    [
        ("openai/gpt-9", 400, "This model's maximum context length is 6000 tokens. However, your messages resulted in 7200 tokens.", "context_length_exceeded"),
        ("hosted_vllm/m", 400, "This model's maximum context length is 6000 tokens. However, you requested 7200 tokens.", None),
        ("openai/llama-cpp", 400, "request (7200 tokens) exceeds the available context size (6000 tokens), try increasing it", None),
        ("openai/router", 413, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 6000. Given: 7200 `inputs` tokens", None),
    ],
)  # fmt: skip
def test_a_refused_prompt_is_compacted_and_sent_once_more(
    model_id: str, status: int, said: str, code_: str | None
) -> None:
    refused: list[int] = []

    def answer(body: dict[str, Any]) -> str:
        size = len(str(body["messages"])) // 4
        if "is about to be compacted" in str(body["messages"][-1]):
            return "Goal: count to twelve."
        if size > 6_000:
            refused.append(size)
            raise Fail(status, said, code=code_)
        return code(f"n = {len(llm.requests)}\nprint('seen ' * 400)" if len(llm.requests) < 14 else "final_answer(n)")

    with LocalLLM(answer) as llm:
        model = EndpointModel(model_id, f"{llm.url}/v1", "key", retry_seconds=(0.01,), timeout=20)
        agent = InternAgent([], model, verbosity_level=LogLevel.OFF, max_steps=30)
        assert agent.run("Count.") in (13, 14)
        agent.cleanup()
    assert len(refused) == 1
    assert "overflow" in [step.trigger for step in agent.memory.steps if isinstance(step, CompactionStep)]


@pytest.mark.parametrize(
    ("model_id", "window"),
    [("gpt-4o", 128_000), ("openai/gpt-4o", 128_000), ("anthropic/claude-sonnet-4-5", 200_000), ("openai/no-such", None),
     ("ollama_chat/llama3", None), ("hosted_vllm/gpt-4o", None)],
)  # fmt: skip
def test_windows_are_litellms_but_not_for_local_servers(model_id: str, window: int | None) -> None:
    assert EndpointModel(model_id).window() == window


def message(text: str, role: MessageRole = MessageRole.USER) -> ChatMessage:
    return ChatMessage(role, [{"type": "text", "text": text}])


def test_marks_reach_models_that_take_them_and_no_others() -> None:
    conversation = [message("system", MessageRole.SYSTEM), message("task"), message("a", MessageRole.ASSISTANT), message("b")]  # fmt: skip
    with LocalLLM(lambda body: "yes") as llm:
        for model_id in ("openrouter/anthropic/claude-3.5-sonnet", "openai/gpt-9"):
            model = EndpointModel(model_id, f"{llm.url}/v1", "key", timeout=20)
            model.generate(conversation[:2])
            model.generate(conversation)
        first, second, plain, plain_second = (request["messages"] for request in llm.requests)
    assert [("cache_control" in str(m)) for m in second] == [True, False, True, True]
    assert unmarked(second)[:2] == unmarked(first), "compared without marks it only grew"
    assert "cache_control" not in str(plain) + str(plain_second)
