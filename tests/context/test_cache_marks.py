from __future__ import annotations

import copy

import pytest

from ml_intern.models.cache_marks import MARK, marked, takes_marks, unmarked

MESSAGES = [
    {"role": "system", "content": [{"type": "text", "text": "system"}]},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": "plain"},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
]


@pytest.mark.parametrize(
    ("model", "takes"),
    [("anthropic/claude-sonnet-4-5", True), ("claude-opus-4-1", True), ("bedrock/us.anthropic.claude-sonnet-4", True),
     ("openrouter/anthropic/claude-3.5-sonnet", True), ("vertex_ai/claude-sonnet-4@20250514", True), ("openai/gpt-4o", False),
     ("gemini/gemini-2.5-pro", False), ("ollama_chat/qwen3", False), ("huggingface/Qwen/Qwen3-32B", False)],
)  # fmt: skip
def test_which_models_take_marks(model: str, takes: bool) -> None:
    assert takes_marks(model) is takes


def test_marks_stand_on_the_system_prompt_and_the_last_two_and_change_nothing_else() -> None:
    before = copy.deepcopy(MESSAGES)
    sent = marked(MESSAGES)
    assert before == MESSAGES, "the prepared messages are shared: they are not touched"
    places = [i for i, message in enumerate(sent) if "cache_control" in str(message)]
    assert places == [0, 2, 3] and sent[1] is MESSAGES[1]
    assert all(message["content"][-1]["cache_control"] == MARK for message in (sent[0], sent[2], sent[3]))
    plain = [{**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m["content"], str) else m for m in MESSAGES]  # fmt: skip
    assert unmarked(sent) == [plain[0], MESSAGES[1], plain[2], plain[3]]


@pytest.mark.parametrize("messages", [[], MESSAGES[:1], [{"role": "user", "content": ""}]])
def test_short_and_empty_conversations(messages: list) -> None:
    assert len(marked(messages)) == len(messages) and unmarked(marked(messages)) == unmarked(messages)
