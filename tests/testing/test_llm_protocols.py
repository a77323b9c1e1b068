"""The local services of other protocols, as a client sees them that is not ours: bytes, fields, words of errors."""

from __future__ import annotations

import json

import httpx
import pytest

from ml_intern.testing import Cut, Fail, LocalAnthropic, LocalLlamaCpp, LocalOllama, Reply, ToolCall, scripted

REPLY = Reply(
    "I look.", [ToolCall("add", {"a": 1})], reasoning="Hm.", signature="c2ln", prompt_tokens=20, cached_tokens=5
)
ANTHROPIC = {"anthropic-version": "2023-06-01", "x-api-key": "k"}


def post(url: str, body: dict, headers: dict | None = None) -> httpx.Response:
    return httpx.post(url, json=body, headers=headers, timeout=10)


def asked(text: str = "Hello.", **fields) -> dict:
    return {"model": "local", "messages": [{"role": "user", "content": text}], **fields}


def events(text: str) -> list[dict]:
    lines = [line for line in text.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.fixture
def claude():
    services = []

    def start(*answers, **options):
        services.append(LocalAnthropic(scripted(list(answers)), **options).start())
        return services[-1]

    yield start
    for service in services:
        service.close()


def message(service, body: dict, **headers) -> httpx.Response:
    return post(f"{service.url}/v1/messages", body, {**ANTHROPIC, **headers})


def test_anthropic_whole(claude) -> None:
    answer = message(claude(REPLY), asked(max_tokens=100)).json()
    assert [block["type"] for block in answer["content"]] == ["thinking", "text", "tool_use"]
    assert answer["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    assert answer["content"][2]["input"] == {"a": 1}
    assert (answer["stop_reason"], answer["role"], answer["type"]) == ("tool_use", "assistant", "message")
    assert answer["usage"]["input_tokens"] == 15
    assert answer["usage"]["cache_read_input_tokens"] == 5


def test_anthropic_streamed(claude) -> None:
    said = events(message(claude(REPLY), asked(max_tokens=100, stream=True)).text)
    kinds = [event["type"] for event in said]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert [event["index"] for event in said if event["type"] == "content_block_start"] == [0, 1, 2]
    deltas = [event["delta"] for event in said if event["type"] == "content_block_delta"]
    assert {delta["type"] for delta in deltas} == {
        "thinking_delta",
        "signature_delta",
        "text_delta",
        "input_json_delta",
    }
    assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == {"a": 1}
    assert said[-2]["usage"]["output_tokens"] > 0


def test_anthropic_stops(claude) -> None:
    answer = message(claude("one STOP two"), asked(max_tokens=100, stop_sequences=["STOP"])).json()
    assert (answer["content"][0]["text"], answer["stop_reason"], answer["stop_sequence"]) == (
        "one ",
        "stop_sequence",
        "STOP",
    )
    assert (
        message(claude(Reply("x", finish_reason="length")), asked(max_tokens=1)).json()["stop_reason"] == "max_tokens"
    )


MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        (asked(), 400, "invalid_request_error", "max_tokens: Field required"),
        (asked(max_tokens=0), 400, "invalid_request_error", "max_tokens: must be greater"),
        (asked("x" * 900, max_tokens=10), 400, "invalid_request_error", "prompt is too long: 225 tokens > 200 maximum"),
        (asked("x" * 400, max_tokens=150), 400, "invalid_request_error", "exceed context limit: 100 + 150 > 200"),
        (asked(" ", max_tokens=10), 400, "invalid_request_error", "must contain non-whitespace text"),
        (asked([{"type": "text", "text": ""}], max_tokens=10), 400, "invalid_request_error", "must be non-empty"),
        (asked([{"type": "text", "text": "x", **MARK}] * 5, max_tokens=10), 400, "invalid_request_error", "Found 5."),
        (asked(max_tokens=10, thinking={"type": "enabled", "budget_tokens": 5_000}), 400, "invalid_request_error", "must be greater"),
        ({**asked(max_tokens=10), "model": "gpt"}, 404, "not_found_error", "model: gpt"),
        (asked(max_tokens=10), 529, "overloaded_error", "Overloaded"),
    ],
)  # fmt: skip
def test_anthropic_refuses(claude, body, status, kind, words) -> None:
    answer = message(claude(Fail(529, "Overloaded"), models=["local"], window=200), body)
    error = answer.json()
    assert (answer.status_code, error["type"], error["error"]["type"]) == (status, "error", kind)
    assert words in error["error"]["message"]
    assert answer.headers["request-id"] == error["request_id"]


def test_anthropic_keys_versions_and_lists(claude) -> None:
    service = claude("Here.", api_key="right")
    assert message(service, asked(max_tokens=9)).json()["error"]["message"] == "invalid x-api-key"
    assert message(service, asked(max_tokens=9), **{"x-api-key": "right"}).status_code == 200
    assert (
        post(f"{claude('x').url}/v1/messages", asked(max_tokens=9))
        .json()["error"]["message"]
        .startswith("anthropic-version")
    )
    assert httpx.get(f"{claude('x').url}/v1/models").json()["data"][0]["id"] == "claude-sonnet-4-5"
    assert post(f"{claude('x').url}/v1/messages/count_tokens", asked("x" * 40)).json() == {"input_tokens": 10}
    assert httpx.get(f"{claude('x').url}/v2").json()["error"]["type"] == "not_found_error"


def test_anthropic_caches_a_marked_prefix(claude) -> None:
    service = claude("a", "b", "c", smallest_cached=100)
    system = [{"type": "text", "text": "s" * 2_000, **MARK}]
    first, second = (message(service, asked("x" * 400, max_tokens=9, system=system)).json()["usage"] for _ in range(2))
    assert (first["cache_creation_input_tokens"], first["cache_read_input_tokens"], first["input_tokens"]) == (
        500,
        0,
        100,
    )
    assert (second["cache_creation_input_tokens"], second["cache_read_input_tokens"], second["input_tokens"]) == (
        0,
        500,
        100,
    )
    other = [{"type": "text", "text": "t" + "s" * 1_999, **MARK}]
    assert message(service, asked(max_tokens=9, system=other)).json()["usage"]["cache_read_input_tokens"] == 0


@pytest.fixture
def ollama():
    services = []

    def start(*answers, **options):
        services.append(LocalOllama(scripted(list(answers)), **options).start())
        return services[-1]

    yield start
    for service in services:
        service.close()


def test_ollama_streams_unless_told_otherwise(ollama) -> None:
    service = ollama(REPLY, REPLY)
    streamed = post(f"{service.url}/api/chat", asked())
    assert streamed.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in streamed.text.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "".join(line["message"].get("thinking", "") for line in lines) == "Hm."
    assert lines[-1]["done_reason"] == "stop"
    assert (lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (20, 6)
    whole = post(f"{service.url}/api/chat", asked(stream=False)).json()
    assert whole["message"]["content"] == "I look."
    assert whole["message"]["tool_calls"] == [{"function": {"name": "add", "arguments": {"a": 1}}}]
    assert (
        post(f"{ollama(REPLY).url}/api/chat", asked(stream=False, think=False)).json()["message"].get("thinking")
        is None
    )


def test_ollama_knows_what_was_pulled(ollama) -> None:
    service = ollama("x", models={"qwen2.5-coder:7b": 32_768, "local": 2_048}, capabilities=["completion"])
    assert [row["name"] for row in httpx.get(f"{service.url}/api/tags").json()["models"]] == [
        "qwen2.5-coder:7b",
        "local:latest",
    ]
    shown = post(f"{service.url}/api/show", {"model": "local"}).json()
    assert shown["model_info"]["qwen2.context_length"] == 2_048
    assert shown["capabilities"] == ["completion"]
    for path in ("/api/show", "/api/chat"):
        missing = post(f"{service.url}{path}", {**asked(), "model": "llama9"})
        assert (missing.status_code, missing.json()) == (404, {"error": "model 'llama9' not found"})
    assert "does not support tools" in post(f"{service.url}/api/chat", asked(tools=[{}])).json()["error"]
    assert "does not support thinking" in post(f"{service.url}/api/chat", asked(think=True)).json()["error"]
    assert httpx.get(service.url).text == "Ollama is running"
    assert "version" in httpx.get(f"{service.url}/api/version").json()


def test_ollama_loads_and_cuts_silently(ollama) -> None:
    service = ollama("a", "b")
    assert post(f"{service.url}/api/chat", {"model": "local", "messages": []}).json()["done_reason"] == "load"
    turns = [{"role": "system", "content": "s" * 400}, *[{"role": "user", "content": "x" * 400}] * 5]
    body = {"model": "local", "messages": turns, "stream": False, "options": {"num_ctx": 250}}
    assert post(f"{service.url}/api/chat", body).json()["prompt_eval_count"] == 200
    assert service.read == [2]  # the system message and the last one
    assert httpx.get(f"{service.url}/api/ps").json()["models"][0]["context_length"] == 250
    strict = ollama("a", truncates=False)
    refused = post(f"{strict.url}/api/chat", body)
    assert (refused.status_code, refused.json()) == (400, {"error": "the input length exceeds the context length"})


def test_ollama_heeds_options(ollama) -> None:
    service = ollama("one STOP two", "x" * 400)
    options = {"stop": ["STOP"]}
    assert post(f"{service.url}/api/chat", asked(stream=False, options=options)).json()["message"]["content"] == "one "
    short = post(f"{service.url}/api/chat", asked(stream=False, options={"num_predict": 10})).json()
    assert (short["done_reason"], short["eval_count"], len(short["message"]["content"])) == ("length", 10, 40)


@pytest.fixture
def llama():
    services = []

    def start(*answers, **options):
        services.append(LocalLlamaCpp(scripted(list(answers)), **options).start())
        return services[-1]

    yield start
    for service in services:
        service.close()


def test_llamacpp_answers(llama) -> None:
    service = llama(REPLY, REPLY)
    whole = post(f"{service.url}/v1/chat/completions", asked()).json()
    choice = whole["choices"][0]
    assert (choice["finish_reason"], choice["message"]["reasoning_content"]) == ("tool_calls", "Hm.")
    assert (whole["usage"]["prompt_tokens"], whole["timings"]["cache_n"], whole["timings"]["prompt_n"]) == (20, 5, 15)
    said = events(
        post(f"{service.url}/chat/completions", asked(stream=True, stream_options={"include_usage": True})).text
    )
    assert said[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert said[-1]["choices"] == []
    assert said[-1]["timings"]["predicted_n"] == said[-1]["usage"]["completion_tokens"]
    assert said[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_llamacpp_says_what_it_is(llama) -> None:
    service = llama("x", n_ctx=8_192, model="weights.gguf", api_key="right")
    key = {"authorization": "Bearer right"}
    assert httpx.get(f"{service.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{service.url}/props", headers=key).json()["default_generation_settings"]["n_ctx"] == 8_192
    assert httpx.get(f"{service.url}/slots", headers=key).json()[0]["n_ctx"] == 8_192
    assert httpx.get(f"{service.url}/v1/models").json()["data"][0]["id"] == "weights.gguf"
    assert len(post(f"{service.url}/tokenize", {"content": "x" * 40}, key).json()["tokens"]) == 10
    refused = httpx.get(f"{service.url}/props")
    assert (refused.status_code, refused.json()["error"]["message"]) == (401, "Invalid API Key")
    assert httpx.get(f"{llama('x', slots=False).url}/slots").json()["error"]["type"] == "not_supported_error"


def test_llamacpp_refuses(llama) -> None:
    service = llama("x" * 400, n_ctx=100)
    refused = post(f"{service.url}/v1/chat/completions", asked("x" * 500))
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 100)
    assert error["message"].startswith(
        f"request ({error['n_prompt_tokens']} tokens) exceeds the available context size (100 tokens)"
    )
    short = post(f"{service.url}/v1/chat/completions", asked("x" * 200)).json()
    assert short["choices"][0]["finish_reason"] == "length"  # it stops where its window is full
    assert short["usage"]["total_tokens"] == 100
    service.loading = True
    for answer in (httpx.get(f"{service.url}/health"), post(f"{service.url}/v1/chat/completions", asked())):
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "Loading model")
    assert httpx.get(f"{service.url}/v9").json()["error"]["type"] == "not_found_error"


def test_llamacpp_reuses_what_prompts_have_in_common(llama) -> None:
    service = llama("a", "b")
    url = f"{service.url}/v1/chat/completions"
    assert post(url, asked("x" * 400)).json()["timings"]["cache_n"] == 0
    assert post(url, asked("x" * 400 + "y" * 40)).json()["timings"]["cache_n"] == 100


@pytest.mark.parametrize("serve", [LocalAnthropic, LocalOllama, LocalLlamaCpp])
def test_they_share_how_they_are_used(serve, tmp_path) -> None:
    path = {LocalAnthropic: "/v1/messages", LocalOllama: "/api/chat", LocalLlamaCpp: "/v1/chat/completions"}[serve]
    with serve(scripted(["a", Cut(5), Cut(5, error=Fail(500, "out of memory"))])) as service:
        body = asked(max_tokens=9, stream=True)
        assert post(service.url + path, body, ANTHROPIC).status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            post(service.url + path, body, ANTHROPIC)
        assert "out of memory" in post(service.url + path, body, ANTHROPIC).text
        used_up = post(service.url + path, body, ANTHROPIC)
        assert used_up.status_code == 400
        assert "used up" in used_up.text
        assert len(service.requests) == 4
        assert httpx.post(service.url + path, content=b"{", headers=ANTHROPIC).status_code == 400
        service.fail(path, status=503, body="down")
        assert post(service.url + path, body, ANTHROPIC).text == "down"
        assert all(value.startswith(("http://127.0.0.1:", "sk-", "none")) for value in service.environment().values())
    with serve(lambda request: 1 / 0) as service:
        assert "ZeroDivisionError" in post(service.url + path, body, ANTHROPIC).text
    service = serve(tmp_path)  # a mailbox, as for the first of them
    assert service.answer.folder == tmp_path
