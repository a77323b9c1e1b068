"""The table: four protocols, streamed and not, every way to fail, through litellm as it is.

What must never happen: a request that would fail again is sent again; one that may pass is given up at once; half an answer is
taken for a whole one; a person is not told what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from smolagents import LogLevel, Tool
from smolagents.models import ChatMessage, MessageRole

from ml_intern.agent import InternAgent
from ml_intern.context import ContextManager
from ml_intern.context.overflow import overflow_of
from ml_intern.errors import ModelFailed
from ml_intern.models import EndpointModel, call_usage
from ml_intern.models.failures import explain, pause
from ml_intern.steps import CompactionStep
from ml_intern.testing import Cut, Fail, LocalAnthropic, LocalLlamaCpp, LocalLLM, LocalOllama, Reply, ToolCall
from ml_intern.thinking import Thinking, thinking_of

RETRY = (0.01, 0.02)
TIMEOUT = 0.3
LONG = "This answer does not reach its end. " * 60


@dataclass(frozen=True)
class Protocol:
    """A provider: its service, litellm's id for it, and how it words what goes wrong."""

    serve: Callable[..., Any]
    model_id: str
    path: str
    said: dict[str, str]
    signs: bool = True
    counts_cache: bool = True
    counts_thinking: bool = True
    codes: dict[str, str] = field(default_factory=dict)


SAID = {
    "401": "Incorrect API key provided.",
    "404": "The model `m` does not exist or you do not have access to it.",
    "429": "Rate limit reached for requests per min. Please try again in 200ms.",
    "500": "The server had an error while processing your request.",
    "overflow": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. "
    "Please reduce the length of the messages.",
}
PROTOCOLS = {
    "openai": Protocol(LocalLLM, "openai/m", "/v1", SAID, codes={"overflow": "context_length_exceeded"}),
    "anthropic": Protocol(
        LocalAnthropic,
        "anthropic/claude-sonnet-4-5",
        "",
        {
            "401": "invalid x-api-key",
            "404": "model: claude-sonnet-4-5",
            "429": "This request would exceed your organization's rate limit of 50 requests per minute",
            "500": "Internal server error",
            "overflow": "prompt is too long: 214315 tokens > 200000 maximum",
        },
        counts_thinking=False,  # litellm estimates it from the words
    ),
    "ollama": Protocol(
        LocalOllama,
        "ollama_chat/local",
        "",
        {
            "401": "unauthorized",
            "404": "model 'local' not found",
            "429": "too many requests",
            "500": "model requires more system memory (5.6 GiB) than is available (3.2 GiB)",
            "overflow": "the input length exceeds the context length",
        },
        signs=False,
        counts_cache=False,
        counts_thinking=False,
    ),
    "llamacpp": Protocol(
        LocalLlamaCpp,
        "llamafile/m",
        "/v1",
        {
            "401": "Invalid API Key",
            "404": "File Not Found",
            "429": "Too many requests",
            "500": "Failed to parse input at pos 0",
            "overflow": "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        },
        signs=False,
        counts_thinking=False,
        codes={"overflow": "exceed_context_size_error"},
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What becomes of a request that keeps failing: how the failure is called, what a person reads, how often it was sent."""

    kind: str
    what: str
    remedy: str
    requests: int
    retries: int


OUTCOMES = {
    "refused": Outcome("unreachable", "Nothing answers for {}", "Start the server, or correct its address.", 0, 1),
    "timeout": Outcome("late", "{} did not answer in time", "Try again, or choose another model", 2, 1),
    "401": Outcome("key", "{} refused the key", "Set the provider's key, or choose another model", 1, 0),
    "404": Outcome("missing", "{} was not found", "Check name and address; for ollama: `ollama pull MODEL`.", 1, 0),
    "429": Outcome("rate", "{} says too many requests", "Wait, or choose another model", 3, 2),
    "500": Outcome("failed", "{} failed", "Try again, or choose another model", 3, 2),
    "cut": Outcome("failed", "{} failed", "Try again, or choose another model", 3, 2),
    "overflow": Outcome("overflow", "The conversation is longer than {} can read", "Compact it, or choose a model that reads more.", 1, 0),
}  # fmt: skip
PASSES = ("timeout", "429", "500", "cut")
CELLS = pytest.mark.parametrize(("name", "failure"), [(name, failure) for name in PROTOCOLS for failure in OUTCOMES])
ALL = pytest.mark.parametrize("name", PROTOCOLS)


def failing(protocol: Protocol, failure: str) -> Exception | Reply | str:
    """What the service does, in its own words."""
    if failure == "timeout":
        return Reply("late", delay=2 * TIMEOUT)
    if failure == "cut":
        return Cut(1_200, LONG)
    if failure in ("refused", "401"):
        return "never"
    status = {"404": 404, "429": 429, "500": 500, "overflow": 400}[failure]
    headers = {"retry-after": "0.2"} if failure == "429" else None
    return Fail(status, protocol.said[failure], headers, protocol.codes.get(failure))


def answering(*answers: Any) -> Callable[[dict], Any]:
    """Gives the answers in order; the last one again and again."""
    left = list(answers)

    def answer(request: dict) -> Any:
        item = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(item, Exception):
            raise item
        return item

    return answer


def say(text: str = "Hello.") -> list[ChatMessage]:
    system = ChatMessage(MessageRole.SYSTEM, [{"type": "text", "text": "You are brief. " * 400}])
    return [system, ChatMessage(MessageRole.USER, [{"type": "text", "text": text}])]


@pytest.fixture
def serve(litellm):
    """Starts a protocol's service; gives it and a model that is asked there."""
    services = []

    def start(name: str, *answers: Any, failure: str = "", **options: Any) -> tuple[Any, EndpointModel]:
        protocol = PROTOCOLS[name]
        if failure == "401":
            options["api_key"] = "right"
        service = protocol.serve(answering(*answers), **options).start()
        services.append(service)
        model = EndpointModel(
            protocol.model_id, service.url + protocol.path, "wrong", retry_seconds=RETRY, timeout=TIMEOUT if failure == "timeout" else 20
        )  # fmt: skip
        if failure == "refused":
            service.close()
        return service, model

    yield start
    for service in services:
        service.close()


@CELLS
def test_streamed(serve, name, failure) -> None:
    protocol, outcome, told = PROTOCOLS[name], OUTCOMES[failure], []
    service, model = serve(name, failing(protocol, failure), failure=failure)
    model.on_retry = told.append
    with pytest.raises(ModelFailed) as caught:
        model.generate(say())
    check(caught.value, protocol, failure, f"{protocol.model_id} at {model.api_base}")
    asked = max(len(service.requests), len(service.service.requests))
    assert (asked, len(told)) == (outcome.requests, outcome.retries)
    assert (overflow_of(caught.value) is not None) == (failure == "overflow")


@CELLS
def test_not_streamed(serve, litellm, name, failure) -> None:
    protocol, outcome = PROTOCOLS[name], OUTCOMES[failure]
    _, model = serve(name, failing(protocol, failure), failure=failure)
    with pytest.raises(Exception) as caught:
        litellm.completion(
            model=protocol.model_id,
            api_base=model.api_base,
            api_key="wrong",
            messages=[{"role": "user", "content": "Hello."}],
            timeout=model.request_timeout,
            max_retries=0,
        )
    check(explain(caught.value, protocol.model_id), protocol, failure, protocol.model_id)
    assert (pause(caught.value, 0, RETRY) is not None) == bool(outcome.retries)
    if failure == "429":
        assert pause(caught.value, 0, RETRY) == 0.2
    assert (overflow_of(caught.value) is not None) == (failure == "overflow")


def check(error: ModelFailed, protocol: Protocol, failure: str, where: str) -> None:
    outcome = OUTCOMES[failure]
    assert error.kind == outcome.kind
    assert error.what == outcome.what.format(where)
    assert outcome.remedy in error.remedy
    assert error.why
    assert error.why == protocol.said.get(failure, error.why)
    for noise in ("litellm", "Exception", "{", "Traceback"):
        assert noise not in error.why
    assert len(str(error).splitlines()) == 2


def passing() -> list[Any]:
    cells = [(name, failure) for name in PROTOCOLS for failure in PASSES]
    slow = [pytest.param(*cell, marks=pytest.mark.soak) for cell in cells if cell[1] == "timeout"]
    return [*(cell for cell in cells if cell[1] != "timeout"), *slow]


@pytest.mark.parametrize(("name", "failure"), passing())
def test_what_passes_is_sent_again_and_answered(serve, name, failure) -> None:
    told: list[str] = []
    first = Reply("late", delay=3) if failure == "timeout" else failing(PROTOCOLS[name], failure)
    service, model = serve(name, first, "Here.", failure=failure)
    if failure == "timeout":
        model.request_timeout = 1.5  # a busy machine answers within it
    model.on_retry = told.append
    assert model.generate(say()).content == "Here."
    assert (len(service.requests), len(told)) == (2, 1)
    assert service.requests[0] == service.requests[1]


@ALL
@pytest.mark.parametrize(
    "after_bytes", [pytest.param(0, marks=pytest.mark.soak), 1, pytest.param(700, marks=pytest.mark.soak)]
)
def test_an_error_in_the_middle_of_a_stream(serve, name, after_bytes) -> None:
    """As of a server whose memory is used up while it answers: it may pass, or another model may do it."""
    error = Fail(500, "an error was encountered while running the model: CUDA error: out of memory")
    service, model = serve(name, Cut(after_bytes, LONG, error), "Here.")
    assert model.generate(say()).content == "Here."
    service, model = serve(name, Cut(after_bytes, LONG, error))
    with pytest.raises(ModelFailed) as caught:
        model.generate(say())
    assert (caught.value.kind, caught.value.why) == ("failed", error.message)
    assert len(service.requests) == 3


@ALL
@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer(serve, litellm, name, streamed) -> None:
    protocol = PROTOCOLS[name]
    counted = {"prompt_tokens": 2_000, "completion_tokens": 50, "cached_tokens": 1_500, "reasoning_tokens": 30}
    _, model = serve(name, Reply("I look.", reasoning="Hm, let me see.", signature="c2ln", **counted))
    if streamed:
        message = model.generate(say())
        raw = message.raw
        assert message.token_usage.input_tokens == 2_000
    else:
        asked = {"model": protocol.model_id, "api_base": model.api_base, "api_key": "any", "max_retries": 0}
        raw = litellm.completion(messages=[{"role": "user", "content": "Hello."}], **asked)
        message = ChatMessage(MessageRole.ASSISTANT, raw.choices[0].message.content, raw=raw)
    assert (message.content, raw.choices[0].finish_reason) == ("I look.", "stop")
    assert (raw.usage.prompt_tokens, raw.usage.completion_tokens) == (2_000, 50)
    assert thinking_of(message) == (Thinking("Hm, let me see.", "c2ln" if protocol.signs else ""),)
    if streamed:
        used = call_usage(model, message.token_usage, message)
        assert used.cached_tokens == (1_500 if protocol.counts_cache else 0)
        assert used.reasoning_tokens == 30 if protocol.counts_thinking else used.reasoning_tokens < 50


@ALL
def test_an_answer_that_comes_to_the_length_limit(serve, name) -> None:
    _, model = serve(name, Reply("I write <code>\nprint(", finish_reason="length"))
    assert model.generate(say()).raw.choices[0].finish_reason == "length"


def test_what_a_marked_prefix_saves(serve) -> None:
    service, model = serve("anthropic", "Here.")
    used = []
    for _ in range(2):
        message = model.generate(say())
        used.append(call_usage(model, message.token_usage, message))
    assert used[0].cached_tokens == 0
    assert used[1].cached_tokens > 1_400
    assert used[0].input_tokens == used[1].input_tokens  # the whole prompt, cached or not
    assert used[1].cost_usd < used[0].cost_usd / 2
    assert service.requests[0] == service.requests[1]


# In an agent.


class Add(Tool):
    name, description, output_type = "add", "Adds.", "integer"
    inputs = {"a": {"type": "integer", "description": "One."}, "b": {"type": "integer", "description": "Other."}}

    def forward(self, a: int, b: int) -> int:
        return a + b


@pytest.fixture
def agent():
    made = []

    def make(model, **options):
        made.append(InternAgent([Add()], model, verbosity_level=LogLevel.OFF, **options))
        return made[-1]

    yield make
    for each in made:
        each.cleanup()


@ALL
def test_structured_calls_instead_of_code(serve, agent, name) -> None:
    calls = [
        Reply("I add.", [ToolCall("add", {"a": 2, "b": 3})]),
        Reply(None, [ToolCall("final_answer", {"answer": "five"})]),
    ]
    service, model = serve(name, *calls)
    runner = agent(model)
    assert runner.run("What is 2 + 3?") == "five"
    assert runner.shapes == {"call": 2}
    assert "5" in str(service.requests[1]["messages"][-1])
    assert "tool_call" in str(service.requests[1]["messages"])  # it sees what it did


WINDOWS = {
    "openai": {},
    "anthropic": {"window": 80_000},  # of which litellm keeps 64,000 for the answer
    "ollama": {"models": {"local": 14_000}, "truncates": False},
    "llamacpp": {"n_ctx": 14_000},
}


@ALL
def test_an_overflow_is_compacted_and_the_work_goes_on(serve, agent, name) -> None:
    """The service refuses by its own count; nobody told the agent how much it reads."""

    def refused() -> int:
        return len([request for request in service.service.requests if request.status == 400])

    def answer(request: dict) -> str:
        if "<code>" not in str(request.get("system") or request["messages"][0]):
            return "Numbers were printed."  # it is asked for a summary
        if name == "openai" and len(str(request)) > 56_000:
            raise failing(PROTOCOLS[name], "overflow")
        steps = len([message for message in request["messages"] if message["role"] == "assistant"])
        return "<code>\nfinal_answer('done')\n</code>" if refused() else f"<code>\nprint('{steps} ' * 3500)\n</code>"

    service, model = serve(name, "never", **WINDOWS[name])
    service.answer = answer
    runner = agent(model, context=ContextManager(window=200_000), max_steps=20)
    assert runner.run("Print a lot.") == "done"
    assert refused() >= 1
    compactions = [step for step in runner.memory.steps if isinstance(step, CompactionStep)]
    assert any(step.trigger == "overflow" for step in compactions)
