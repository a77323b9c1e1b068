"""`LLM_ENDPOINT` to what litellm is called with."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from ml_intern.errors import NoModel
from ml_intern.models import Endpoint, resolve
from ml_intern.testing.llm import LocalLLM
from ml_intern.testing.serve import Service

NOWHERE = {"LOCAL_LLM_BASE_URL": "http://127.0.0.1:9"}  # so that no test finds a server on this machine's usual ports


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("claude-sonnet-4-5", {}, Endpoint("claude-sonnet-4-5")),
        ("  gpt-5.1\n", {}, Endpoint("gpt-5.1")),
        ("openrouter/a/b", {"LOCAL_LLM_BASE_URL": "http://x"}, Endpoint("openrouter/a/b")),
        ("ollama/q:32b", {}, Endpoint("ollama_chat/q:32b", "http://127.0.0.1:11434", "none")),
        ("ollama/hf.co/a/b", {}, Endpoint("ollama_chat/hf.co/a/b", "http://127.0.0.1:11434", "none")),
        ("vllm/org/m", {}, Endpoint("hosted_vllm/org/m", "http://127.0.0.1:8000/v1", "none")),
        ("lm_studio/m", {}, Endpoint("lm_studio/m", "http://127.0.0.1:1234/v1", "none")),
        ("llamacpp/m", {}, Endpoint("llamafile/m", "http://127.0.0.1:8080/v1", "none")),
        ("vllm/m", {"VLLM_BASE_URL": "http://h:1"}, Endpoint("hosted_vllm/m", "http://h:1/v1", "none")),
        ("vllm/m", {"VLLM_BASE_URL": "http://h:1/v1"}, Endpoint("hosted_vllm/m", "http://h:1/v1", "none")),
        ("vllm/m", {"VLLM_BASE_URL": " http://h:1/v1/ "}, Endpoint("hosted_vllm/m", "http://h:1/v1", "none")),
        ("vllm/m", {"VLLM_BASE_URL": "https://h/p/v1"}, Endpoint("hosted_vllm/m", "https://h/p/v1", "none")),
        ("ollama/m", {"OLLAMA_BASE_URL": "http://h:1/v1"}, Endpoint("ollama_chat/m", "http://h:1", "none")),
        ("ollama/m", {"OLLAMA_BASE_URL": "h:1"}, Endpoint("ollama_chat/m", "http://h:1", "none")),
        ("lm_studio/m", {"LMSTUDIO_BASE_URL": "http://h:1"}, Endpoint("lm_studio/m", "http://h:1/v1", "none")),
        ("llamacpp/m", {"LLAMACPP_BASE_URL": "http://h:1"}, Endpoint("llamafile/m", "http://h:1/v1", "none")),
        ("vllm/m", {"LOCAL_LLM_BASE_URL": "http://h:2"}, Endpoint("hosted_vllm/m", "http://h:2/v1", "none")),
        (
            "vllm/m",
            {"LOCAL_LLM_BASE_URL": "http://h:2", "VLLM_BASE_URL": "http://h:1", "LOCAL_LLM_API_KEY": "k"},
            Endpoint("hosted_vllm/m", "http://h:1/v1", "k"),
        ),
        (
            "llamacpp/m",
            {"LLAMACPP_API_KEY": "mine", "LOCAL_LLM_API_KEY": "k"},
            Endpoint("llamafile/m", "http://127.0.0.1:8080/v1", "mine"),
        ),
        # A local server never gets a provider's key.
        ("vllm/m", {"OPENAI_API_KEY": "sk"}, Endpoint("hosted_vllm/m", "http://127.0.0.1:8000/v1", "none")),
        ("hf/a/b", {"HF_TOKEN": "t"}, Endpoint("openai/a/b", "https://router.huggingface.co/v1", "t")),
        (
            "hf/a/b:groq",
            {"HF_TOKEN": "t", "HF_ROUTER_URL": "http://r/v1"},
            Endpoint("openai/a/b:groq", "http://r/v1", "t"),
        ),
    ],
)
def test_a_named_model(name, environment, expected):
    assert resolve(name, environment) == expected
    assert resolve(None, {**environment, "LLM_ENDPOINT": name}) == expected


def test_the_argument_goes_before_the_variable():
    assert resolve("gpt-5.1", {"LLM_ENDPOINT": "ollama/m"}).model_id == "gpt-5.1"


@pytest.mark.parametrize("name", ["vllm", "vllm/", "hf/"])
def test_a_prefix_without_a_model_says_so(name):
    with pytest.raises(NoModel, match=r"names no model\.\nWrite it as (vllm|hf)/MODEL"):
        resolve(name, {"HF_TOKEN": "t"})


def test_hub_token_from_the_login_and_without_one_a_remedy(tmp_path):
    code = "from ml_intern.models import resolve; print(resolve('hf/a/b', {'OPENAI_API_KEY': 'sk'}).api_key)"

    def run():
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        environment |= {"HF_HOME": str(tmp_path), "OPENAI_API_KEY": "sk"}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
        )

    without = run()
    assert "NoModel: hf/a/b needs a Hub token.\nRun `hf auth login`, or set HF_TOKEN." in without.stderr
    (tmp_path / "token").write_text("hf_stored")
    assert run().stdout.strip() == "hf_stored"


@pytest.mark.parametrize(
    ("keys", "model"),
    [
        (["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"], "anthropic/claude-sonnet-4-5"),
        (["OPENAI_API_KEY", "GEMINI_API_KEY"], "openai/gpt-5.1"),
        (["GEMINI_API_KEY"], "gemini/gemini-2.5-pro"),
    ],
)
def test_a_key_chooses_a_model(keys, model):
    found = resolve(environment=NOWHERE | dict.fromkeys(keys, "k"))
    assert (found.model_id, found.api_base, found.api_key) == (model, None, None)
    assert found.why == f"{keys[0]} is set and LLM_ENDPOINT is not"


@pytest.mark.parametrize("environment", [NOWHERE, NOWHERE | {"LLM_ENDPOINT": " ", "OPENAI_API_KEY": ""}])
def test_nothing_set_says_what_to_do_in_three_lines(environment):
    with pytest.raises(NoModel) as caught:
        resolve(environment=environment)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0] == "No language model is set up."
    assert "LLM_ENDPOINT=" in lines[1] and "python -m ml_intern demo" in lines[2]


def found_in_time(environment: dict[str, str]) -> Endpoint:
    """What is found on this machine: a server gets 0.3 s to answer, which may not do where others are busy here."""
    for _ in range(20):
        try:
            return resolve(environment=environment)
        except NoModel:
            continue
    return resolve(environment=environment)


@pytest.mark.parametrize(
    ("variable", "prefix"),
    [("VLLM_BASE_URL", "hosted_vllm"), ("LMSTUDIO_BASE_URL", "lm_studio"), ("LLAMACPP_BASE_URL", "llamafile")],
)
def test_a_local_server_that_answers_is_found(variable, prefix):
    with LocalLLM(lambda request: "never asked", models=("org/first", "second"), api_key="k") as llm:
        environment = NOWHERE | {variable: llm.url, "LOCAL_LLM_API_KEY": "k"}
        found = found_in_time(environment)
        assert (found.model_id, found.api_base, found.api_key) == (f"{prefix}/org/first", f"{llm.url}/v1", "k")
        assert "server answers on its port" in found.why
        with pytest.raises(NoModel):
            resolve(environment=environment, probe=False)


def test_ollama_is_found_by_its_own_api():
    def tags(request):
        return JSONResponse({"models": [{"name": "qwen:7b"}, {"name": "other"}]})

    with Service(Starlette(routes=[Route("/api/tags", tags)])) as service:
        found = found_in_time(NOWHERE | {"OLLAMA_BASE_URL": f"{service.url}/v1"})
        assert (found.model_id, found.api_base) == ("ollama_chat/qwen:7b", service.url)


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b'{"data": []}', b'{"data": {"a": 1}}', b'{"data": "x"}', b"null"]
)
def test_some_other_server_on_the_port_is_no_model(answer):
    def anything(request):
        return PlainTextResponse(answer)

    with Service(Starlette(routes=[Route("/{path:path}", anything)])) as service, pytest.raises(NoModel):
        resolve(environment={"LOCAL_LLM_BASE_URL": service.url})


def test_a_server_that_does_not_speak_http_is_no_model(silent_port):
    with pytest.raises(NoModel):
        resolve(environment={"LOCAL_LLM_BASE_URL": f"http://127.0.0.1:{silent_port}"})


def test_a_key_does_not_show_when_an_endpoint_is_printed():
    assert "secret" not in repr(Endpoint("m", "http://h", "secret"))
