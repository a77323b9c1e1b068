"""The local endpoint, driven by the unmodified clients."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from recorded_trace import write_trace

from ml_intern.testing.llm import Cut, Fail, LocalLLM, Reply, ToolCall, mailbox, message_text, recorded, scripted

HELLO = [{"role": "user", "content": "hello"}]
CODE = "Thinking.\n<code>\nprint(6 * 7)\n</code>"


def openai_client(llm: LocalLLM, **options):
    import openai

    return openai.OpenAI(base_url=f"{llm.url}/v1", api_key=options.pop("api_key", "any"), max_retries=0, **options)


@pytest.fixture(scope="module")
def litellm():
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import, or it asks the network
    import litellm

    litellm.suppress_debug_info = True
    return litellm


def lite_model(llm: LocalLLM, suffix: str = "/v1"):
    from smolagents import LiteLLMModel

    return LiteLLMModel(
        "openai/x", api_base=llm.url + suffix, api_key="any", num_retries=0, max_retries=0, retry=False
    )


def chat(text: str):
    from smolagents.models import ChatMessage, MessageRole

    return [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": text}])]


def test_openai_whole_answer_with_usage():
    with LocalLLM(lambda request: f"you said {message_text(request['messages'][-1])}") as llm:
        answer = openai_client(llm).chat.completions.create(model="m", messages=HELLO)
    assert answer.choices[0].message.content == "you said hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "m"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 4, 6)
    assert llm.requests == [{"model": "m", "messages": HELLO}]


def test_openai_stream_says_the_same_and_has_usage_only_when_asked():
    text = "a longer answer, ünïcödé and all. " * 10
    reply = Reply(text, reasoning="let me think about it", prompt_tokens=100, completion_tokens=90, cached_tokens=64)
    with LocalLLM(lambda request: reply) as llm:
        client = openai_client(llm)
        stream = client.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        plain = list(client.chat.completions.create(model="m", messages=HELLO, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == text
    assert "".join(delta.model_extra.get("reasoning_content") or "" for delta in deltas) == "let me think about it"
    assert len(deltas) > 10
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == 100
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 64
    assert all(chunk.usage is None for chunk in plain)
    assert plain[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_tool_calls(stream):
    calls = [ToolCall("add", {"a": 1, "b": [2, "three" * 20]}), ToolCall("now", {}, id="mine")]
    with LocalLLM(lambda request: Reply(None, calls)) as llm:
        answer = openai_client(llm).chat.completions.create(model="m", messages=HELLO, stream=stream)
        if stream:
            got, finish = {}, None
            for chunk in answer:
                finish = chunk.choices[0].finish_reason or finish
                for part in chunk.choices[0].delta.tool_calls or []:
                    call = got.setdefault(part.index, {"id": part.id, "name": part.function.name, "arguments": ""})
                    call["arguments"] += part.function.arguments or ""
            result = [(c["id"], c["name"], json.loads(c["arguments"])) for c in got.values()]
        else:
            finish = answer.choices[0].finish_reason
            result = [
                (c.id, c.function.name, json.loads(c.function.arguments)) for c in answer.choices[0].message.tool_calls
            ]
    assert finish == "tool_calls"
    assert result == [("call_0", "add", calls[0].arguments), ("mine", "now", {})]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (["</code>"], "Thinking.\n<code>\nprint(6 * 7)\n"),
        (["</code>", "print"], "Thinking.\n<code>\n"),
        ("Think", ""),
        (["absent"], CODE),
        (None, CODE),
    ],
)
def test_stop_sequences_cut_before_the_first(stop, expected):
    with LocalLLM(lambda request: Reply(CODE, finish_reason="length")) as llm:
        choice = openai_client(llm).chat.completions.create(model="m", messages=HELLO, stop=stop).choices[0]
    assert choice.message.content == expected
    assert choice.finish_reason == ("length" if expected == CODE else "stop")


def test_tool_arguments_that_are_no_json_are_sent_as_they_are():
    with LocalLLM(lambda request: Reply("", [ToolCall("add", '{"a": 1')])) as llm:
        message = openai_client(llm).chat.completions.create(model="m", messages=HELLO).choices[0].message
    assert message.tool_calls[0].function.arguments == '{"a": 1'


def test_models_and_paths_without_v1():
    with LocalLLM(lambda request: "hi", models=("a", "b")) as llm:
        assert [model.id for model in openai_client(llm).models.list()] == ["a", "b"]
        with urllib.request.urlopen(f"{llm.url}/models") as answer:
            assert len(json.load(answer)["data"]) == 2
        import openai

        bare = openai.OpenAI(base_url=llm.url, api_key="any")
        assert bare.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "hi"


def test_a_wrong_key_is_refused_and_does_not_reach_the_model():
    import openai

    with LocalLLM(lambda request: "hi", api_key="secret") as llm:
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
            openai_client(llm, api_key="guess").chat.completions.create(model="m", messages=HELLO)
        with pytest.raises(openai.AuthenticationError):
            openai_client(llm, api_key="guess").models.list()
        assert llm.requests == []
        assert openai_client(llm, api_key="secret").chat.completions.create(model="m", messages=HELLO).choices
    assert [request.status for request in llm.service.requests] == [401, 401, 200]


def test_a_failure_has_status_message_code_and_headers():
    import openai

    with LocalLLM(scripted([Fail(429, "slow down", {"retry-after": "7"}, code="rate_limit_exceeded")])) as llm:
        with pytest.raises(openai.RateLimitError, match="slow down") as caught:
            openai_client(llm).chat.completions.create(model="m", messages=HELLO)
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize("after_bytes", [0, 900])
@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_breaks_the_connection_in_the_middle(stream, after_bytes):
    import httpx
    import openai

    with LocalLLM(scripted([Cut(after_bytes), "back again"])) as llm:
        client, got = openai_client(llm), []
        with pytest.raises((httpx.RemoteProtocolError, openai.APIConnectionError)):
            answer = client.chat.completions.create(model="m", messages=HELLO, stream=stream)
            got.extend(answer)
        assert (len(got) > 0) == (stream and after_bytes > 0)
        assert client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "back again"


def test_delay_comes_before_the_answer():
    with LocalLLM(lambda request: Reply("late", delay=0.3)) as llm:
        start = time.monotonic()
        openai_client(llm).chat.completions.create(model="m", messages=HELLO)
    assert 0.3 <= time.monotonic() - start < 3


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'{"model": "m"}'])
def test_a_malformed_request_is_a_clear_400(body):
    with LocalLLM(lambda request: "never") as llm:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{llm.url}/v1/chat/completions", data=body)
        assert caught.value.code == 400
        assert json.load(caught.value)["error"]["message"]
        assert llm.requests == []


def test_a_used_up_script_and_a_broken_answer_are_clear_400s():
    import openai

    def broken(request):
        return 1 / 0

    script = scripted(["one", broken, lambda request: Reply("three")])
    with LocalLLM(script) as llm:
        client = openai_client(llm)
        assert len(script.leftover) == 3
        assert client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "one"
        with pytest.raises(openai.BadRequestError, match="ZeroDivisionError"):
            client.chat.completions.create(model="m", messages=HELLO)
        assert client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "three"
        assert script.leftover == []
        with pytest.raises(openai.BadRequestError, match="used up: its 3 answers"):
            client.chat.completions.create(model="m", messages=HELLO)


def test_litellm_whole_stream_and_without_v1(litellm):
    with LocalLLM(lambda request: Reply(CODE, prompt_tokens=11, completion_tokens=12)) as llm:
        for suffix in ("/v1", ""):
            message = lite_model(llm, suffix).generate(chat("hi"), stop_sequences=["</code>"])
            assert message.content == "Thinking.\n<code>\nprint(6 * 7)\n"
            assert (message.token_usage.input_tokens, message.token_usage.output_tokens) == (11, 12)
        from smolagents.models import agglomerate_stream_deltas

        streamed = agglomerate_stream_deltas(list(lite_model(llm).generate_stream(chat("hi"))))
    assert streamed.content == CODE
    assert (streamed.token_usage.input_tokens, streamed.token_usage.output_tokens) == (11, 12)
    assert llm.requests[-1]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (Fail(401, "no"), "AuthenticationError"),
        (Fail(404, "no such model"), "NotFoundError"),
        (Fail(429, "slow down"), "RateLimitError"),
        (Fail(500, "oops"), "InternalServerError"),
        (Fail(503, "busy"), "ServiceUnavailableError"),
        (
            Fail(400, "This model's maximum context length is 10 tokens.", code="context_length_exceeded"),
            "ContextWindowExceededError",
        ),
    ],
)
def test_litellm_sees_the_errors_of_a_real_server(litellm, fail, error):
    with LocalLLM(scripted([fail])) as llm, pytest.raises(getattr(litellm, error)):
        lite_model(llm).generate(chat("hi"))
    assert len(llm.requests) == 1


def test_litellm_cut_stream_raises(litellm):
    with LocalLLM(scripted([Cut(1500)])) as llm, pytest.raises(litellm.exceptions.MidStreamFallbackError):
        list(lite_model(llm).generate_stream(chat("hi")))


def test_code_agent_runs_on_it(litellm):
    from smolagents import CodeAgent

    script = scripted([CODE, "Done.\n<code>\nfinal_answer(42)\n</code>"])
    with LocalLLM(script) as llm:
        agent = CodeAgent(tools=[], model=lite_model(llm), verbosity_level=0)
        assert agent.run("What is 6 * 7?") == 42
    assert "42" in message_text(llm.requests[1]["messages"][-1])
    assert script.leftover == []


# --- the mailbox


def answer_when_asked(folder: Path, number: int, text: str) -> threading.Thread:
    def work():
        while not (folder / f"{number:03d}.request.json").exists():
            time.sleep(0.02)
        temporary = folder / f"{number:03d}.answer.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(folder / f"{number:03d}.answer.txt")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_mailbox_answers_live_and_shows_only_what_is_new(tmp_path):
    first = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the first question"}]
    second = [*first, {"role": "assistant", "content": "ein Ü"}, {"role": "user", "content": "the second question"}]
    grown = [*second[:-1], {"role": "user", "content": "the second question, longer"}]
    with LocalLLM(mailbox(tmp_path)) as llm:
        client = openai_client(llm)
        for number, messages in enumerate([first, second, grown], 1):
            answer_when_asked(tmp_path, number, f"answer Ü {number}")
            answer = client.chat.completions.create(model="m", messages=messages)
            assert answer.choices[0].message.content == f"answer Ü {number}"
    assert json.loads((tmp_path / "002.request.json").read_text())["messages"] == second
    readable = [(tmp_path / f"00{number}.request.md").read_text() for number in (1, 2, 3)]
    assert "be brief" in readable[0] and "the first question" in readable[0]
    assert "be brief" not in readable[1] and "the first question" not in readable[1]
    assert "ein Ü" in readable[1] and "the second question" in readable[1]
    assert "(...), longer" in readable[2] and "the second question" not in readable[2]
    assert not list(tmp_path.glob("*.tmp"))


def test_mailbox_numbers_go_on_after_a_restart_and_silence_fails(tmp_path):
    import openai

    (tmp_path / "007.request.json").write_text("{}")
    with LocalLLM(mailbox(tmp_path, timeout=0.3)) as llm:
        with pytest.raises(openai.BadRequestError, match=r"008\.answer\.txt within 0\.3 s"):
            openai_client(llm).chat.completions.create(model="m", messages=HELLO)


def test_mailbox_a_client_that_asks_again_gets_the_same_letter(tmp_path):
    with LocalLLM(tmp_path) as llm:  # a path is a mailbox
        import openai

        with pytest.raises(openai.APITimeoutError):
            openai_client(llm, timeout=0.3).chat.completions.create(model="m", messages=HELLO)
        answer_when_asked(tmp_path, 1, "here")
        assert (
            openai_client(llm).chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "here"
        )
    assert len(list(tmp_path.glob("*.request.json"))) == 1


def test_mailbox_an_answer_that_came_while_nobody_listened_is_there_for_who_asks_again(tmp_path, monkeypatch):
    box = mailbox(tmp_path, timeout=5)
    answer_when_asked(tmp_path, 1, "here")
    request = {"messages": HELLO}
    assert box(request) == "here"  # to a client that has given up
    assert box(request) == "here"
    monkeypatch.setattr("ml_intern.testing.llm_answers.ASKS_AGAIN_SECONDS", 0.0)
    answer_when_asked(tmp_path, 2, "anew")
    assert box(request) == "anew"  # later it is another letter
    assert len(list(tmp_path.glob("*.request.json"))) == 2


# --- a recorded trace


def test_recorded_answers_in_order_and_tells_differences(tmp_path):
    import openai

    trace = write_trace(tmp_path / "t.jsonl")
    seen = []
    answer = recorded(trace, lambda step, then, now: seen.append((step, then, now)))
    with LocalLLM(answer) as llm:
        client = openai_client(llm)
        messages = [{"role": "user", "content": "New task:\nsay the accuracy"}]
        texts = []
        for observation in ("Observation:\naccuracy: 0.911\ntook 12.5 s", "Observation:\naccuracy: 0.5"):
            texts.append(client.chat.completions.create(model="m", messages=messages).choices[0].message.content)
            messages += [{"role": "assistant", "content": texts[-1]}, {"role": "user", "content": observation}]
        texts.append(client.chat.completions.create(model="m", messages=messages).choices[0].message.content)
        with pytest.raises(openai.BadRequestError, match="used up: its 3 turns"):
            client.chat.completions.create(model="m", messages=HELLO)
    assert texts == ["exact words\n<code>\ntrain()\n</code> ", "Look.\n<code>\nshow()\n</code>", "a plan"]
    assert seen == [(2, "accuracy: 0.91", "accuracy: 0.5")]
    assert answer.leftover == []


def test_the_command_line_serves_a_recorded_trace(tmp_path):
    command = [sys.executable, "-m", "ml_intern.testing.llm", "recorded", str(write_trace(tmp_path / "t.jsonl"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        data = json.dumps({"messages": HELLO}).encode()
        with urllib.request.urlopen(f"{url}/chat/completions", data=data, timeout=10) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"].startswith("exact words")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
