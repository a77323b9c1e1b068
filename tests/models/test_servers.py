"""A look at a local server before it is asked: what is wrong, within seconds, and how much it reads."""

from __future__ import annotations

import json
import socket
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ml_intern.errors import ModelFailed, NoModel
from ml_intern.models import Endpoint, EndpointModel, ModelOptions, resolve_all
from ml_intern.models.endpoint import missing_key
from ml_intern.models.servers import LOCAL_SERVERS, look
from ml_intern.testing.llm import LocalLLM
from ml_intern.testing.llm_llamacpp import LocalLlamaCpp
from ml_intern.testing.llm_ollama import LocalOllama
from ml_intern.testing.serve import Service

OLLAMA, VLLM, LM_STUDIO, LLAMACPP = LOCAL_SERVERS


def failure(server, model, base, key="none", **options):
    with pytest.raises(ModelFailed) as caught:
        look(server, model, base, key, **options)
    return caught.value


@pytest.mark.parametrize("server", LOCAL_SERVERS, ids=lambda server: server.prefix)
def test_no_server(server):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = failure(server, "m", f"http://127.0.0.1:{port}/v1")
    assert error.kind == "unreachable"
    assert error.what == f"Nothing answers for {server.litellm}/m at http://127.0.0.1:{port}/v1"
    assert server.base_variable in error.remedy and "Start the server" in error.remedy


def test_one_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        started = time.monotonic()
        base = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        assert failure(VLLM, "m", base, seconds=0.2).kind == "unreachable"
        assert time.monotonic() - started < 1


def test_a_model_that_is_not_pulled_and_how_to_pull_it():
    with LocalOllama(lambda request: "never", models={"qwen2.5-coder:7b": 32_768, "llama3": 8_192}) as ollama:
        error = failure(OLLAMA, "qwen2.5-coder:32b", ollama.url)
        assert error.kind == "missing"
        assert str(error).splitlines()[-1] == "ollama pull qwen2.5-coder:32b"
        assert "qwen2.5-coder:7b" in error.why
        assert look(OLLAMA, "llama3", ollama.url, "none").window == 8_192  # for NAME:latest


@pytest.mark.parametrize("server", [VLLM, LLAMACPP, LM_STUDIO], ids=lambda server: server.prefix)
def test_a_wrong_key_and_which_variable_it_is(server):
    with LocalLLM(lambda request: "never", api_key="right") as llm:
        error = failure(server, "m", f"{llm.url}/v1", "wrong")
        assert error.kind == "key"
        assert server.key_variable in error.remedy
        look(server, "m", f"{llm.url}/v1", "right")


def at(**answers):
    def respond(request):
        path = request.url.path.strip("/").replace("/", "_")
        return JSONResponse(answers[path]) if path in answers else JSONResponse({}, 404)

    return Service(Starlette(routes=[Route("/{path:path}", respond)]))


def test_what_vllm_reads_and_has():
    with at(v1_models={"data": [{"id": "org/m", "max_model_len": 4096}]}) as service:
        seen = look(VLLM, "org/m", f"{service.url}/v1", "none")
        assert seen.window == 4096
        assert "reads 4,096 tokens there, which is little" in seen.note and "--max-model-len" in seen.note
        assert "does not list other; it has org/m" in look(VLLM, "other", f"{service.url}/v1", "none").note


def test_what_lm_studio_and_llama_cpp_read():
    with at(v1_models={"data": [{"id": "m"}]}, api_v0_models_m={"loaded_context_length": 16_384}) as service:
        assert look(LM_STUDIO, "m", f"{service.url}/v1", "none").window == 16_384
    with LocalLlamaCpp(lambda request: "never", n_ctx=8192) as llamacpp:
        assert look(LLAMACPP, "any", f"{llamacpp.url}/v1", "none").window == 8192


@pytest.mark.parametrize("listed", [[], {"data": "x"}, {"data": [1]}, {"models": None}, {"data": [{}]}, None])
def test_an_odd_answer_is_no_reason_to_stop(listed):
    with at(v1_models=listed) as service:
        assert look(VLLM, "m", f"{service.url}/v1", "none").window is None


def test_ollama_is_told_how_much_to_read(litellm, say):
    """By itself it would cut the prompt off without a word."""
    with LocalOllama(lambda request: "here", models={"m:latest": 131_072, "small:latest": 8_192}) as ollama:
        for name, options, window in (
            ("m", {}, 32_768),
            ("small", {}, 8_192),
            ("m", {"num_ctx": 65_536}, 65_536),
            ("small", {"num_ctx": 65_536}, 8_192),
        ):
            model = EndpointModel(f"ollama_chat/{name}", ollama.url, **options)
            assert model.window() == window
            assert model.generate([say("hello")]).content == "here"
            assert ollama.requests[-1]["options"]["num_ctx"] == window


def test_effort_is_left_out_for_a_model_that_cannot_think(litellm, say):
    notes = []
    options = ModelOptions.of({"effort": "low", "temperature": 0.3, "seed": 7})
    with LocalOllama(lambda request: "here", models={"m:latest": 8_192}, capabilities=("completion",)) as ollama:
        model = EndpointModel("ollama_chat/m", ollama.url, options=options, on_note=notes.append, name="ollama/m")
        model.look()
        assert model.generate([say("hello")]).content == "here"
        (request,) = ollama.requests
    assert "think" not in request
    assert (request["options"]["temperature"], request["options"]["seed"]) == (0.3, 7)
    assert notes == ["ollama/m cannot be told how long to think: effort is left out."]


def test_a_provider_without_its_key_is_seen_before_litellm_is_loaded():
    endpoint = Endpoint("claude-sonnet-4-5")
    assert missing_key(endpoint, {}) == "ANTHROPIC_API_KEY"
    assert missing_key(endpoint, {"ANTHROPIC_API_KEY": "k"}) == ""
    assert missing_key(Endpoint("gemini/x"), {"GOOGLE_API_KEY": "k"}) == ""
    assert missing_key(Endpoint("some/other"), {}) == ""
    with pytest.raises(ModelFailed, match=r"claude-sonnet-4-5 has no key \(ANTHROPIC_API_KEY is not set\)"):
        EndpointModel("claude-sonnet-4-5").look()


CHAIN = " claude-sonnet-4-5 , ollama/qwen2.5-coder:32b,vllm/, embedded/org/repo:Q4_K_M,ollama/qwen2.5-coder:32b"


def test_a_chain_is_read_in_order_and_what_cannot_work_is_left_out_and_said():
    found = resolve_all(CHAIN, {})
    assert [entry.model_id for entry in found.entries] == [
        "claude-sonnet-4-5",
        "ollama_chat/qwen2.5-coder:32b",
        "embedded/org/repo:Q4_K_M",
    ]
    assert [entry.name for entry in found.entries][1] == "ollama/qwen2.5-coder:32b"
    (note,) = found.notes
    assert note.startswith("Left out of the chain: LLM_ENDPOINT=vllm/ names no model.")
    with pytest.raises(NoModel, match="names no model"):
        resolve_all("vllm/,hf/", {})


@pytest.mark.parametrize(
    ("name", "environment", "stays"),
    [
        ("claude-sonnet-4-5", {"ANTHROPIC_API_KEY": "k"}, False),
        ("openai/gpt-5.1", {"OPENAI_API_KEY": "k"}, False),
        ("openai/m", {"OPENAI_BASE_URL": "http://10.0.0.1/v1"}, True),
        ("hf/a/b", {"HF_TOKEN": "t"}, False),
        ("ollama/m", {}, True),
        ("vllm/m", {"VLLM_BASE_URL": "http://gpu-box:8000"}, True),
        ("embedded/a/b", {}, True),
    ],
)
def test_offline_takes_only_what_the_user_has_configured(name, environment, stays):
    if stays:
        assert resolve_all(name, environment, offline=True).first.name == name
    else:
        with pytest.raises(NoModel, match=r"needs the network. \(--offline is set\)"):
            resolve_all(name, environment, offline=True)
    found = resolve_all(f"{name}, ollama/m", environment, offline=True)
    assert found.entries[-1].model_id == "ollama_chat/m"
    assert len(found.notes) == (0 if stays else 1)


def test_a_key_chooses_nothing_offline():
    environment = {"OPENAI_API_KEY": "k", "LOCAL_LLM_BASE_URL": "http://127.0.0.1:9"}
    with pytest.raises(NoModel, match="No language model"):
        resolve_all(None, environment, probe=False, offline=True)


def test_nothing_leaves_through_a_proxy_to_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with LocalLLM(lambda request: "never", models=("m",)) as llm:
        assert json.dumps(look(VLLM, "m", f"{llm.url}/v1", "none").note) == '""'
