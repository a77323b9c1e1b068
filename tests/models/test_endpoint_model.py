"""The model against a real endpoint on this machine, through litellm as it is."""

from __future__ import annotations

import base64
import copy
import io
import json
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import PIL.Image
import pytest
from smolagents import CodeAgent, tool
from smolagents.models import ChatMessage, MessageRole, agglomerate_stream_deltas
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from ml_intern.models import Endpoint, EndpointModel, call_usage
from ml_intern.testing.llm import LocalLLM, Reply, ToolCall, message_text, scripted
from ml_intern.testing.serve import Service

PREFIXES = pytest.mark.parametrize("model_id", ["hosted_vllm/m", "openai/m"])
TEXT = "Thinking, ünïcödé and all.\n<code>\nprint(6 * 7)\n</code>\nand more"


@pytest.mark.long
@PREFIXES
def test_text_usage_stop_and_deltas(model_at, say, model_id):
    reply = Reply(TEXT, prompt_tokens=100, completion_tokens=20, cached_tokens=64, chunk_chars=7)
    with LocalLLM(lambda request: reply) as llm:
        model = model_at(llm, model_id)
        answer = model.generate([say("be brief", MessageRole.SYSTEM), say("hello")], stop_sequences=["</code>"])
    assert answer.content == TEXT.split("</code>")[0]
    assert (answer.role, answer.tool_calls) == (MessageRole.ASSISTANT, None)
    assert (answer.token_usage.input_tokens, answer.token_usage.output_tokens) == (100, 20)
    used = call_usage(model, answer.token_usage, answer)
    assert (used.input_tokens, used.output_tokens, used.cached_tokens, used.cost_usd) == (100, 20, 64, None)
    assert [kind for kind, _ in model.told] == ["delta"] * len(model.told)
    assert len(model.told) > 5
    assert "".join(text for _, text in model.told) == answer.content
    (request,) = llm.requests
    assert (request["model"], request["stop"], request["stream"]) == ("m", ["</code>"], True)
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert [request.headers["authorization"] for request in llm.service.requests] == ["Bearer key"]


def test_a_model_that_takes_no_stop_sequences_is_cut_here(model_at, say):
    with LocalLLM(lambda request: TEXT) as llm:
        answer = model_at(llm, "openai/gpt-5.1").generate([say("hello")], stop_sequences=["print(", "</code>"])
    assert answer.content == TEXT.split("print(")[0]
    assert "stop" not in llm.requests[0]


@PREFIXES
def test_an_answer_may_be_empty(model_at, say, model_id):
    with LocalLLM(scripted([Reply(None), Reply(""), Reply(None, reasoning="I think, and say nothing.")])) as llm:
        model = model_at(llm, model_id)
        for _ in range(3):
            answer = model.generate([say("hello")], stop_sequences=["</code>"])
            assert not answer.content and not answer.tool_calls
    assert answer.raw.choices[0].message.reasoning_content == "I think, and say nothing."
    assert model.told == []


@PREFIXES
def test_an_answer_cut_by_its_length_arrives_as_it_is(model_at, say, model_id):
    with LocalLLM(lambda request: Reply("cut in the mid", finish_reason="length")) as llm:
        answer = model_at(llm, model_id, max_tokens=5).generate([say("hello")])
    assert answer.content == "cut in the mid"
    assert answer.raw.choices[0].finish_reason == "length"
    assert llm.requests[0]["max_tokens"] == 5


@tool
def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: One.
        b: Another.
    """
    return a + b


@PREFIXES
def test_native_tool_calls(model_at, say, model_id):
    calls = [ToolCall("add", {"a": 1, "b": 2}, id="first"), ToolCall("add", {"a": 3, "b": 4}, id="second")]
    with LocalLLM(lambda request: Reply(None, calls)) as llm:
        answer = model_at(llm, model_id).generate([say("1 + 2?")], tools_to_call_from=[add])
    got = [(call.id, call.function.name, json.loads(call.function.arguments)) for call in answer.tool_calls]
    assert got == [("first", "add", {"a": 1, "b": 2}), ("second", "add", {"a": 3, "b": 4})]
    assert [offered["function"]["name"] for offered in llm.requests[0]["tools"]] == ["add"]


def test_smolagents_own_streaming_works_too(model_at, say):
    with LocalLLM(lambda request: Reply(TEXT, prompt_tokens=11, completion_tokens=12)) as llm:
        answer = agglomerate_stream_deltas(list(model_at(llm).generate_stream([say("hello")])))
    assert answer.content == TEXT
    assert (answer.token_usage.input_tokens, answer.token_usage.output_tokens) == (11, 12)


def test_messages_as_dictionaries_and_own_roles(model_at, say):
    with LocalLLM(lambda request: "ok") as llm:
        model_at(llm).generate([{"role": "user", "content": [{"type": "text", "text": "a"}]}, say("b")])
        converting = model_at(llm, custom_role_conversions={MessageRole.SYSTEM: MessageRole.USER})
        converting.generate([say("a", MessageRole.SYSTEM), say("b")])
    asked = [[(m["role"], message_text(m)) for m in request["messages"]] for request in llm.requests]
    assert asked == [[("user", "a\nb")]] * 2


def test_an_image_reaches_ollama(model_at):
    asked = []

    async def chat(request):
        asked.append(await request.json())
        line = {"model": "m", "message": {"role": "assistant", "content": "red"}, "done": False}
        end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
        lines = [line, {**end, "prompt_eval_count": 9, "eval_count": 1}]
        return Response("".join(json.dumps(line) + "\n" for line in lines), media_type="application/x-ndjson")

    image = PIL.Image.new("RGB", (2, 2), "red")
    parts = [{"type": "text", "text": "which colour?"}, {"type": "image", "image": image}]
    with Service(Starlette(routes=[Route("/api/chat", chat, methods=["POST"])])) as service:
        model = EndpointModel.of(Endpoint("ollama_chat/m", service.url, "none"))
        answer = model.generate([ChatMessage(MessageRole.USER, parts)])
    assert answer.content == "red"
    assert (answer.token_usage.input_tokens, answer.token_usage.output_tokens) == (9, 1)
    (message,) = asked[0]["messages"]
    assert message["content"] == "which colour?"
    assert PIL.Image.open(io.BytesIO(base64.b64decode(message["images"][0]))).convert("RGB").getpixel((0, 0))[0] == 255


@pytest.mark.parametrize(
    "model_id", ["anthropic/claude-sonnet-4-5", "claude-sonnet-4-5", "gpt-5.1", "gemini/gemini-2.5-pro"]
)
def test_the_price_of_known_models(litellm, model_id):
    model = EndpointModel(model_id)
    full, cached = model.price(1000, 10), model.price(1000, 10, 900)
    assert full > cached > 0
    assert model.price(2000, 20) == pytest.approx(2 * full)
    assert model.price(0, 0) == 0


@pytest.mark.parametrize(
    "model_id",
    [
        "openai/org/unknown",
        "openrouter/no/such",
        "ollama_chat/llama3",
        "hosted_vllm/gpt-4o",
        "lm_studio/m",
        "llamafile/m",
    ],
)
def test_no_price_for_unknown_models_and_local_servers(litellm, model_id):
    assert EndpointModel(model_id).price(1000, 10) is None


def test_the_prompt_only_grows_and_litellm_leaves_it_alone(model_at, say):
    with LocalLLM(lambda request: f"answer {len(request['messages'])}") as llm:
        model, messages = model_at(llm), [say("system", MessageRole.SYSTEM), say("task")]
        for turn in range(4):
            prepared = model._prepared(messages)
            before = copy.deepcopy(prepared)
            answer = model.generate(messages)
            assert prepared == before
            messages += [
                ChatMessage(answer.role, [{"type": "text", "text": answer.content}]),
                say(f"Observation {turn}"),
            ]
    for request, longer in zip(llm.requests, llm.requests[1:], strict=False):
        assert longer["messages"][: len(request["messages"])] == request["messages"]
    assert len(llm.requests[-1]["messages"]) == 8


@pytest.mark.parametrize(
    "model_id", ["openai/m", "anthropic/m", "gemini/m", "mistral/m", "groq/m", "ollama_chat/m", "cohere_chat/m"]
)
def test_no_provider_changes_what_was_prepared(model_at, say, model_id):
    image = {"type": "image", "image": PIL.Image.new("RGB", (2, 2))}
    shown = [] if model_id == "groq/m" else [ChatMessage(MessageRole.USER, [image])]
    messages = [say("s", MessageRole.SYSTEM), say("a "), *shown, say("b ", MessageRole.ASSISTANT), say("c"), say("d")]
    with LocalLLM(lambda request: "ok") as llm:
        model = model_at(llm, model_id, retry_seconds=())
        prepared = model._prepared(messages)
        before = copy.deepcopy(prepared)
        try:
            model.generate(messages)
        except Exception as error:  # noqa: BLE001 - those with another API get a 404 here, after their request was made
            assert "not found" in str(error).lower()
        assert llm.service.requests
        assert prepared == before


@pytest.mark.long
def test_two_threads_share_a_model_without_mixing_conversations(model_at, say):
    def echo(request):
        return message_text(request["messages"][0]) + message_text(request["messages"][-1])

    def converse(name):
        messages = [say(name, MessageRole.SYSTEM)]
        for turn in range(12):
            messages = [*messages, say(f"{name} {turn}")]
            answer = model.generate(messages)
            assert answer.content == f"{name}{name} {turn}"
            messages.append(ChatMessage(MessageRole.ASSISTANT, [{"type": "text", "text": answer.content}]))
        return len(messages)

    with LocalLLM(echo) as llm:
        model = model_at(llm)
        model.on_delta = None
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(converse, ["a", "b", "c", "d"])) == [25] * 4
    for request in llm.requests:
        name = message_text(request["messages"][0])
        assert all(message_text(message).startswith(name) for message in request["messages"])


def test_threads_that_prepare_at_the_same_moment(say):
    model = EndpointModel("hosted_vllm/m")

    def converse(name):
        messages = [say(name, MessageRole.SYSTEM)]
        for turn in range(300):
            messages = [*messages, say(f"{name} {turn}", [MessageRole.USER, MessageRole.ASSISTANT][turn % 2])]
            prepared = model._prepared(messages)
            assert len(prepared) == turn + 2
            assert prepared[-1]["content"][0]["text"] == f"{name} {turn}"

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(converse, "abcdef"))
    finally:
        sys.setswitchinterval(interval)


def test_many_short_conversations_are_kept_apart_and_let_go(model_at, say):
    model = EndpointModel("hosted_vllm/m")
    main = [say("main", MessageRole.SYSTEM)]
    for number in range(200):  # their messages die at once: the next one gets the same address
        main = [*main, say(f"step {number}", [MessageRole.USER, MessageRole.ASSISTANT][number % 2])]
        assert model._prepared(main)[-1]["content"][0]["text"] == f"step {number}"
        assert model._prepared([say(f"sub {number}")])[0]["content"][0]["text"] == f"sub {number}"
    kept = [preparer.first for preparer in model._preparers]
    assert len({id(first) for first in kept}) == len(kept) == 8
    assert main[0] in kept


def test_saved_with_an_agent_and_loaded_without_the_key(tmp_path, model_at, capfd):
    options = {"temperature": 0.5, "timeout": 7.0, "retry_seconds": (1, 2), "flatten_messages_as_text": True}
    model = EndpointModel("hosted_vllm/m", "http://h/v1", "sk-secret", aws_session_token="aws-secret", **options)
    CodeAgent(tools=[], model=model, verbosity_level=0).save(tmp_path)
    assert "api_key" not in capfd.readouterr().out
    saved = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "sk-secret" not in saved and "aws-secret" not in saved
    loaded = CodeAgent.from_folder(tmp_path).model
    assert isinstance(loaded, EndpointModel)
    assert (loaded.model_id, loaded.api_base, loaded.api_key) == ("hosted_vllm/m", "http://h/v1", None)
    assert (loaded.kwargs, loaded.request_timeout, loaded.retry_seconds) == ({"temperature": 0.5}, 7.0, (1, 2))
    assert loaded.to_dict() == model.to_dict()


def test_a_code_agent_runs_on_it(model_at):
    script = scripted([TEXT, "Done.\n<code>\nfinal_answer(42)\n</code>"])
    with LocalLLM(script) as llm:
        agent = CodeAgent(tools=[], model=model_at(llm), verbosity_level=0)
        assert agent.run("What is 6 * 7?") == 42
    assert script.leftover == []


SERVER = """
import threading
from ml_intern.testing.llm import LocalLLM, Reply
reply = Reply("an answer of some length. " * 20, prompt_tokens=9, completion_tokens=9)
with LocalLLM(lambda request: reply) as llm:
    print(llm.url, flush=True)
    threading.Event().wait()
"""


@pytest.mark.long
def test_its_own_time_beside_litellm(litellm, say):
    """What a call takes beyond litellm's own stream and the joining of its chunks: 2 ms or less."""
    messages = [say(f"{i} " + "x" * 4000, [MessageRole.USER, MessageRole.ASSISTANT][i % 2]) for i in range(200)]
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        base = f"{server.stdout.readline().strip()}/v1"
        model = EndpointModel("hosted_vllm/m", base, "key")
        request = model._prepare_completion_kwargs(messages, model="hosted_vllm/m", api_base=base, api_key="key")
        request |= {"timeout": 20, "max_retries": 0, "drop_params": True}
        request |= {"stream": True, "stream_options": {"include_usage": True}}

        def bare():
            litellm.stream_chunk_builder(list(litellm.completion(**request)), messages=request["messages"])

        def whole():
            model.generate(messages)

        for _ in range(4):  # on a busy machine one of the two is noise, and now and then both are
            wall, cpu = {bare: [], whole: []}, {bare: [], whole: []}
            for turn in range(40):
                for call in (bare, whole) if turn % 2 else (whole, bare):
                    time.sleep(0.02)  # litellm's afterwork in its own threads
                    started, worked = time.perf_counter(), time.process_time()
                    call()
                    wall[call].append((time.perf_counter() - started) * 1e3)
                    cpu[call].append((time.process_time() - worked) * 1e3)
            own = [statistics.median(times[whole][5:]) - statistics.median(times[bare][5:]) for times in (wall, cpu)]
            print(
                f"\nlitellm's {statistics.median(wall[bare]):.1f} ms and {own[0]:.2f} ms of its own; CPU {own[1]:.2f} ms"
            )
            if min(own) < 2:
                break
    finally:
        server.kill()
        server.wait()
    assert min(own) < 2
    assert threading.active_count() < 60
