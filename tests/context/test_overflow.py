"""Every provider words it differently: each wording leads to a compaction and one more try, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from conversations import WindowedModel
from smolagents import LogLevel, PythonExecutor
from smolagents.agents import AgentGenerationError
from smolagents.local_python_executor import CodeOutput
from smolagents.models import ChatMessage, MessageRole, Model, TokenUsage

from ml_intern.agent import InternAgent
from ml_intern.context import overflow_of
from ml_intern.errors import ModelFailed
from ml_intern.steps import CompactionStep

OVERFLOWS = {
    "OpenAI": ("This model's maximum context length is 128000 tokens. However, your messages resulted in 130412 tokens. Please reduce the length of the messages.", 128_000),
    "OpenAI's code": ("Error code: 400 - {'error': {'message': 'Your input exceeds the context window of this model. Please adjust your input and try again.', 'code': 'context_length_exceeded'}}", None),
    "Anthropic": ("prompt is too long: 201337 tokens > 200000 maximum", 200_000),
    "Anthropic, with the answer": ("input length and `max_tokens` exceed context limit: 197202 + 21333 > 200000, decrease input length or `max_tokens` and try again", 200_000),
    "Bedrock": ("An error occurred (ValidationException) when calling the Converse operation: Input is too long for requested model.", None),
    "vLLM": ("This model's maximum context length is 4096 tokens. However, you requested 5012 tokens (4500 in the messages, 512 in the completion). Please reduce the length of the messages or completion.", 4_096),
    "vLLM, newer": ("The decoder prompt (length 25938) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.", 4_096),
    "vLLM, images": ("The prompt (total length 25938) is too long to fit into the model (context length 4096). Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens.", 4_096),
    "SGLang": ("The input (9000 tokens) is longer than the model's context length (8192 tokens).", 8_192),
    "llama.cpp": ('{"error":{"code":400,"message":"the request exceeds the available context size. try increasing the context size or enable context shift","type":"exceed_context_size_error","n_prompt_tokens":1407,"n_ctx":256}}', 256),
    "llama.cpp, newer": ("request (9412 tokens) exceeds the available context size (8192 tokens), try increasing it", 8_192),
    "llama-cpp-python": ("Requested tokens (2516) exceed context window of 2048", 2_048),
    "Ollama": ("the input length exceeds the context length", None),
    "Ollama, newer": ("prompt too long; exceeded max context length by 1034 tokens", None),
    "Gemini": ("400 INVALID_ARGUMENT. {'error': {'code': 400, 'message': 'The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).'}}", 1_048_576),
    "the Hub, TGI": ("422 Client Error: Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3474 `inputs` tokens and 60 `max_new_tokens`", 2_048),
    "the Hub, TGI's inputs": ("Input validation error: `inputs` must have less than 4096 tokens. Given: 4545", 4_096),
    "the Hub's router": ("Error code: 400 - {'message': \"This model's maximum context length is 32768 tokens. However, you requested 35011 tokens in the messages, Please reduce the length of the messages.\", 'http_status_code': 400}", 32_768),
    "Cerebras": ("Please reduce the length of the messages or completion. Current length is 9005 while limit is 8192", 8_192),
    "OpenRouter": ("This endpoint's maximum context length is 16384 tokens. However, you requested about 94307 tokens (94307 of text input). Please reduce the length of either one.", 16_384),
    "Azure": ("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 294000 tokens.", None),
}  # fmt: skip

OTHERS = [
    "Rate limit reached for gpt-4o: Limit 30000, Requested 45000 tokens per min (TPM). The input or output tokens must be reduced.",
    "You exceeded your current quota, please check your plan and billing details.",
    "max_tokens is too large: 200000. This model supports at most 16384 completion tokens.",
    "Incorrect API key provided",
    "Invalid 'user': string too long. Expected a string with maximum length 64 (string_above_max_length)",
    "The server is overloaded",
    "Number of request tokens has exceeded your per-minute rate limit",
    "prompt contains an image that could not be read",
]


@pytest.mark.parametrize(("said", "window"), OVERFLOWS.values(), ids=OVERFLOWS.keys())
def test_a_refusal_for_length_is_known_by_its_words_also_behind_other_errors(said: str, window: int | None) -> None:
    found = overflow_of(RuntimeError(said))
    assert found is not None and found.window == window
    wrapped = ModelFailed("The request was refused", "see below")
    wrapped.__cause__ = ValueError(said)
    assert overflow_of(wrapped) is not None


@pytest.mark.parametrize("said", OTHERS)
def test_other_failures_are_something_else(said: str) -> None:
    assert overflow_of(RuntimeError(said)) is None


def test_litellms_class_is_enough_whatever_it_says() -> None:
    class ContextWindowExceededError(Exception):
        pass

    assert overflow_of(ContextWindowExceededError("no")) is not None
    assert overflow_of(None) is None


class Counting(PythonExecutor):
    """Code without a process: an assignment and an answer are all it knows."""

    def __init__(self, prints: str = "seen " * 300) -> None:
        self.prints, self.x = prints, 0

    def send_tools(self, tools: dict[str, Any]) -> None:
        pass

    def send_variables(self, variables: dict[str, Any]) -> None:
        pass

    def __call__(self, code_action: str) -> CodeOutput:
        if code_action.startswith("x = "):
            self.x = int(code_action.split()[2])
        final = "final_answer" in code_action
        output = {"x": self.x, "1": 1}[code_action.split("(")[1].rstrip(")")] if final else None
        return CodeOutput(output=output, logs=self.prints, is_final_answer=final)


class Refusing(Model):
    """Refuses a number of requests with a provider's words, then answers."""

    def __init__(self, said: str, refusals: int, at: int = 12) -> None:
        super().__init__(model_id="refusing")
        self.said, self.refusals, self.at = said, refusals, at
        self.requests: list[list[ChatMessage]] = []

    def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
        if "is about to be compacted" in str(messages[-1].content):
            return ChatMessage(MessageRole.ASSISTANT, "Goal: count.")
        self.requests.append(messages)
        if self.at < len(self.requests) <= self.at + self.refusals:
            raise RuntimeError(self.said)
        code = "final_answer(x)" if len(self.requests) > self.at else f"x = {len(self.requests)}\nprint('seen ' * 300)"
        return ChatMessage(MessageRole.ASSISTANT, f"Go on.\n<code>\n{code}\n</code>", token_usage=TokenUsage(0, 0))


@pytest.mark.parametrize("said", [said for said, _ in OVERFLOWS.values()], ids=OVERFLOWS.keys())
def test_a_run_compacts_and_goes_on(said: str) -> None:
    model = Refusing(said, 1)
    agent = InternAgent([], model, verbosity_level=LogLevel.OFF, max_steps=30, executor=Counting())
    assert agent.run("Count.") == 12
    compactions = [step for step in agent.memory.steps if isinstance(step, CompactionStep)]
    assert [(step.trigger, step.only_masks) for step in compactions] == [("overflow", False)]
    refused, again = model.requests[12], model.requests[13]
    assert len(str(again)) < 0.8 * len(str(refused))
    assert "Goal: count." in str(again) or compactions[0].rung == "hard"  # in some windows there is no room for it


def test_a_provider_that_refuses_everything_is_tried_twice_and_no_more() -> None:
    model = Refusing("prompt is too long: 201337 tokens > 200000 maximum", 1_000)
    agent = InternAgent([], model, verbosity_level=LogLevel.OFF, max_steps=30, executor=Counting())
    with pytest.raises(AgentGenerationError, match="prompt is too long"):
        agent.run("Count.")
    assert len(model.requests) == 14
    assert len([step for step in agent.memory.steps if isinstance(step, CompactionStep)]) == 1


def test_a_window_that_was_not_known_is_learned_from_the_refusal() -> None:
    class Silent(WindowedModel):
        window = None  # says nothing of itself

    model = Silent(
        8_000, lambda call, messages: f"Go.\n<code>\n{'final_answer(1)' if call == 40 else 'print(1)'}\n</code>"
    )
    agent = InternAgent([], model, verbosity_level=LogLevel.OFF, max_steps=60, executor=Counting("seen " * 500))
    assert agent.run("Count.") == 1
    assert model.refused == 1, "after the first refusal it is known"
    assert next(step.trigger for step in agent.memory.steps if isinstance(step, CompactionStep)) == "overflow"


def test_a_rate_limit_ends_the_run_as_it_was() -> None:
    model = Refusing("Rate limit reached: 30000 tokens per min (TPM)", 1)
    agent = InternAgent([], model, verbosity_level=LogLevel.OFF, max_steps=30, executor=Counting())
    with pytest.raises(AgentGenerationError):
        agent.run("Count.")
    assert not [step for step in agent.memory.steps if isinstance(step, CompactionStep)]
