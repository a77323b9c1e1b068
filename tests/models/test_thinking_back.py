"""Thinking goes back to the model that wants it, and to nobody else.

What must never happen: a provider refuses a conversation because of thinking in it; one that did not write it gets to see it, or
one that does not want it; what was sent changes because of it.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from smolagents import LogLevel
from smolagents.memory import ActionStep
from smolagents.models import ChatMessage, MessageRole

from ml_intern import MLIntern
from ml_intern.agent import InternAgent
from ml_intern.context import ContextManager
from ml_intern.models import ChainModel, EndpointModel, MessagePreparer
from ml_intern.models.cache_marks import reads_its_thinking
from ml_intern.steps import CompactionStep
from ml_intern.testing import Fail, LocalAnthropic, LocalLLM, Reply, scripted
from ml_intern.testing.llm_anthropic import BOUND
from ml_intern.thinking import Thinking, wants_tags, with_thoughts

CLAUDE = "anthropic/claude-sonnet-4-5"


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


def model_at(service: Any, model_id: str = CLAUDE, **options: Any) -> EndpointModel:
    base = service.url if isinstance(service, LocalAnthropic) else f"{service.url}/v1"
    return EndpointModel(model_id, base, "key", **{"retry_seconds": (0.01,), "timeout": 20, **options})


def thoughts_in(request: dict[str, Any]) -> list[str]:
    """What was thought, in a request of Anthropic's API."""
    blocks = [block for m in request["messages"] if isinstance(m["content"], list) for block in m["content"]]
    return [block["thinking"] for block in blocks if block["type"] == "thinking"]


def bare(request: dict[str, Any]) -> str:
    text = json.dumps(request["messages"], sort_keys=True)
    return text.replace('"cache_control": {"type": "ephemeral"}, ', "")


def run(model: Any, **options: Any) -> InternAgent:
    agent = InternAgent([], model, verbosity_level=LogLevel.OFF, **options)
    agent.run("Count.")
    agent.cleanup()
    return agent


def counting(number: int, last: int = 4, size: int = 1) -> Reply:
    text = f"print({number}, 'x' * {size})" if number < last else f"final_answer({number})"
    return Reply(code(text), reasoning=f"I am at {number}.")


def test_it_goes_back_word_for_word_and_what_was_sent_stays_sent(litellm: object) -> None:
    with LocalAnthropic(scripted([counting(n) for n in range(5)])) as claude:
        run(model_at(claude))
        requests = claude.requests
    assert [thoughts_in(request) for request in requests] == [[f"I am at {n}." for n in range(k)] for k in range(5)]
    for before, after in itertools.pairwise(requests):
        assert bare(after).startswith(bare(before)[:-1])
    assert requests[-1]["messages"][1]["content"][0]["signature"].startswith(BOUND)


@pytest.mark.long
def test_it_goes_with_a_compaction_and_comes_again_after_it(litellm: object) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        if "is about to be compacted" in str(body["messages"][-1]):
            return Reply("Goal: count.")
        return counting(len(claude.requests), 24, 3_000)

    with LocalAnthropic(answer) as claude:
        agent = run(model_at(claude), context=ContextManager(8_000), max_steps=40)
        requests = [thoughts_in(request) for request in claude.requests]
        posted = sum(request.path == "/v1/messages" for request in claude.service.requests)
    moved = [step.rung for step in agent.memory.steps if isinstance(step, CompactionStep)]
    assert len(moved) >= 2 and agent.memory.steps[-1].action_output == 24
    assert [] in requests[3:], "nothing of it is there after the first move"
    assert sum(len(now) > len(before) for before, now in itertools.pairwise(requests)) > 5
    assert posted == len(requests), "none was refused"


@pytest.mark.moves_cache_prefix(reason="it is edited")
def test_an_edited_step_takes_along_what_was_thought_after_it(litellm: object) -> None:
    def edit(step: ActionStep, agent: InternAgent) -> None:
        if step.step_number == 3:
            agent.memory.steps[1].observations = "edited"

    with LocalAnthropic(scripted([counting(n) for n in range(5)])) as claude:
        run(model_at(claude), step_callbacks=[edit])
        assert [len(thoughts_in(request)) for request in claude.requests] == [0, 1, 2, 0, 1]


def test_the_last_word_is_asked_for_without_it(litellm: object) -> None:
    """It stands under another system prompt."""
    with LocalAnthropic(scripted([counting(0), counting(1), counting(2), "That was it."])) as claude:
        agent = run(model_at(claude), max_steps=3)
        assert agent.memory.steps[-1].action_output == "That was it."
        assert [len(thoughts_in(request)) for request in claude.requests] == [0, 1, 2, 0]
        assert sum(request.path == "/v1/messages" for request in claude.service.requests) == 4


def test_it_is_back_after_a_restart(litellm: object, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [counting(0), Reply(code("final_answer(ask_user('Go on?')['answer'])"), reasoning="I ask."), counting(4)]
    with LocalAnthropic(scripted([*answers, counting(4)])) as claude:
        for name, value in claude.environment().items():
            monkeypatch.setenv(name, value)
        with MLIntern("anthropic/claude-sonnet-4-5", home=home, tools=[]) as intern:
            session = intern.submit("Count.")
            while not session.pending():
                session.wait(0.05)
        with MLIntern("anthropic/claude-sonnet-4-5", home=home, tools=[]) as intern:
            again = intern.resume(session.id)
            (request,) = again.pending()
            intern.approve(again.id, request.call_id, text="yes")
            assert again.wait(30).answer == 4
        assert [thoughts_in(request) for request in claude.requests] == [[], ["I am at 0."], ["I am at 0.", "I ask."]]


def test_thinking_that_is_refused_is_left_out_from_then_on(litellm: object) -> None:
    refused: list[int] = []

    def answer(body: dict[str, Any]) -> Reply:
        if any("at 0" in thought for thought in thoughts_in(body)):
            refused.append(len(claude.requests))
            raise Fail(400, "messages.1.content.0: Invalid `signature` in `thinking` block")
        return counting(sum(m["role"] == "assistant" for m in body["messages"]))

    with LocalAnthropic(answer) as claude:
        agent = run(model_at(claude))
        assert agent.memory.steps[-1].action_output == 4 and len(refused) == 1
        assert thoughts_in(claude.requests[-1]) == ["I am at 1.", "I am at 2.", "I am at 3."]


def test_a_secret_in_it_keeps_it_here(litellm: object) -> None:
    from ml_intern.secrets import Masker

    secret = "correct-horse-battery-staple"
    first = Reply(code("print(1)"), reasoning=f"The password is {secret}.", signature="c2lnbmVk")
    with LocalAnthropic(scripted([first, counting(1), counting(4)])) as claude:
        run(model_at(claude), masker=Masker({secret: "PASSWORD"}))
        assert thoughts_in(claude.requests[-1]) == ["I am at 1."] and secret not in json.dumps(claude.requests)


def test_in_a_chain_it_goes_to_its_author_alone(litellm: object) -> None:
    up = True

    def first(body: dict[str, Any]) -> Reply:
        if not up:
            raise Fail(404, "model: gone")
        return counting(sum(m["role"] == "assistant" for m in body["messages"]))

    def second(body: dict[str, Any]) -> Reply:
        return counting(sum(m["role"] == "assistant" for m in body["messages"]))

    def switch(step: ActionStep, agent: InternAgent) -> None:
        nonlocal up
        up = step.step_number not in (2, 3)

    with LocalAnthropic(first) as claude, LocalLLM(second) as other:
        model = ChainModel([model_at(claude), model_at(other, "hosted_vllm/b")], cool_scale=0.0001)
        agent = run(model, step_callbacks=[switch])
        assert agent.memory.steps[-1].action_output == 4
        assert thoughts_in(claude.requests[-1])[:2] == ["I am at 0.", "I am at 1."]
        sent = json.dumps([request["messages"] for request in other.requests])
        assert (
            other.requests
            and "I am at" not in sent
            and "thinking_blocks" not in sent
            and "reasoning_content" not in sent
        )


@pytest.mark.parametrize(
    "model_id", ["deepseek/deepseek-reasoner", "openrouter/anthropic/claude-sonnet-4.5", "hosted_vllm/m"]
)
def test_nobody_else_gets_it(litellm: object, model_id: str) -> None:
    with LocalLLM(scripted([counting(n) for n in range(5)])) as llm:
        run(model_at(llm, model_id))
        sent = json.dumps([request["messages"] for request in llm.requests])
    assert "I am at" not in sent and "thinking_blocks" not in sent


def test_thinking_in_tags_is_not_sent_again(litellm: object) -> None:
    answers = [f"<think>\nI am at {n}.\n</think>\n{counting(n).content}" for n in range(5)]
    with LocalLLM(scripted(answers)) as llm:
        agent = run(model_at(llm, "hosted_vllm/deepseek-r1"))
        sent = json.dumps([request["messages"] for request in llm.requests])
    assert "I am at" not in sent and "think>" not in sent
    said = [step.model_output for step in agent.memory.steps if isinstance(step, ActionStep)]
    assert [text.split("</think>\n")[0] + "</think>\n" for text in said] == [
        f"<think>\nI am at {n}.\n</think>\n" for n in range(5)
    ], "the record has what was said"


def spoken(text: str) -> ChatMessage:
    return ChatMessage(MessageRole.ASSISTANT, [{"type": "text", "text": text}])


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("<think>a</think>\n\nb", "b"), ("\n<Think>a</Think> <thinking>c</thinking>b", "b"), ("<think>a</think>", "(nothing)"),
        ("b <think>a</think>", "b <think>a</think>"), ("<think>a", "<think>a"), ("<code>'<think>a</think>'</code>", "<code>'<think>a</think>'</code>"),
    ],
)  # fmt: skip
def test_what_of_tags_is_left_out(said: str, sent: str) -> None:
    task = ChatMessage(MessageRole.USER, [{"type": "text", "text": "<think>mine</think>"}])
    (prepared, user) = MessagePreparer(keep_tags=False).prepare([spoken(said), task])
    assert prepared["content"][0]["text"] == sent and user["content"][0]["text"] == "<think>mine</think>"
    assert MessagePreparer(True, keep_tags=False).prepare([spoken(said)])[0]["content"] == sent
    assert MessagePreparer().prepare([spoken(said)])[0]["content"][0]["text"] == said


def test_who_reads_what() -> None:
    for name in (
        "claude-sonnet-4-5",
        CLAUDE,
        "bedrock/us.anthropic.claude-sonnet-4-5-v1:0",
        "vertex_ai/claude-opus-4-5",
    ):
        assert reads_its_thinking(name), name
    for name in (
        "openrouter/anthropic/claude-x",
        "openai/claude-like",
        "gemini/gemini-3",
        "ollama_chat/claude-7b",
        "gpt-5.1",
    ):
        assert not reads_its_thinking(name), name
    assert wants_tags("openrouter/minimax/minimax-m2") and not wants_tags("ollama_chat/qwen3:8b")
    message = with_thoughts(spoken("b"), (Thinking("a", "s"), Thinking(redacted="r")), CLAUDE, "Be good.")
    system = ChatMessage(MessageRole.SYSTEM, [{"type": "text", "text": "Be good."}])
    _, prepared = MessagePreparer(author=CLAUDE).prepare([system, message])
    assert prepared["thinking_blocks"] == [
        {"type": "thinking", "thinking": "a", "signature": "s"}, {"type": "redacted_thinking", "data": "r"},
    ]  # fmt: skip
    assert "thinking_blocks" not in MessagePreparer(author="claude-other").prepare([system, message])[1]
    other = ChatMessage(MessageRole.SYSTEM, [{"type": "text", "text": "Say it in a word."}])
    assert "thinking_blocks" not in MessagePreparer(author=CLAUDE).prepare([other, message])[1]
