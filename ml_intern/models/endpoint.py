"""From `LLM_ENDPOINT` to what litellm has to be called with. It reads the environment and asks the usual ports."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPException

from ..errors import NoModel

HUB_ROUTER = "https://router.huggingface.co/v1"


@dataclass(frozen=True)
class LocalServer:
    """A kind of local model server: our prefix, litellm's, the variables for its address and key, its usual port."""

    prefix: str
    litellm: str
    base_variable: str
    key_variable: str
    port: int
    v1: bool


LOCAL_SERVERS = (
    LocalServer("ollama", "ollama_chat", "OLLAMA_BASE_URL", "OLLAMA_API_KEY", 11434, v1=False),
    LocalServer("vllm", "hosted_vllm", "VLLM_BASE_URL", "VLLM_API_KEY", 8000, v1=True),
    LocalServer("lm_studio", "lm_studio", "LMSTUDIO_BASE_URL", "LMSTUDIO_API_KEY", 1234, v1=True),
    LocalServer("llamacpp", "llamafile", "LLAMACPP_BASE_URL", "LLAMACPP_API_KEY", 8080, v1=True),
)

KEYS = (
    ("ANTHROPIC_API_KEY", "anthropic/claude-sonnet-4-5"),
    ("OPENAI_API_KEY", "openai/gpt-5.1"),
    ("GEMINI_API_KEY", "gemini/gemini-2.5-pro"),
)
"""Keys that choose a model where `LLM_ENDPOINT` is not set, in this order."""


@dataclass(frozen=True)
class Endpoint:
    """What litellm is called with, and why this model where nobody named one."""

    model_id: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    why: str = ""


def resolve(name: str | None = None, environment: Mapping[str, str] | None = None, probe: bool = True) -> Endpoint:
    """Finds the model.

    Args:
        name (`str`, *optional*): As in `LLM_ENDPOINT`, which is taken when this is `None`: `claude-...`, `gpt-...`,
            any litellm id, `hf/org/model[:provider]`, or `ollama/`, `vllm/`, `lm_studio/`, `llamacpp/` and a model.
        environment (`Mapping[str, str]`, *optional*): Defaults to `os.environ`.
        probe (`bool`, defaults to `True`): Whether to look for a local server (0.3 s a port) when no model is named
            and there is no key.

    Raises:
        NoModel: none is named and none was found, or what is named cannot work.
    """
    environment = os.environ if environment is None else environment
    name = (name or environment.get("LLM_ENDPOINT") or "").strip()
    if name:
        return _named(name, environment)
    for variable, model in KEYS:
        if environment.get(variable):
            return Endpoint(model, why=f"{variable} is set and LLM_ENDPOINT is not")
    if probe:
        for server in LOCAL_SERVERS:
            found = _at(server, "", environment)
            if model := _first_model(found, server):
                why = f"a {server.prefix} server answers on its port"
                return replace(found, model_id=f"{server.litellm}/{model}", why=why)
    raise NoModel(
        "No language model is set up.",
        remedy="Name one: LLM_ENDPOINT=claude-sonnet-4-5 with its key, or hf/ORG/MODEL, or ollama/qwen2.5-coder:32b.\n"
        "Or see it work first: `python -m ml_intern demo` needs no model and no key.",
    )


def _named(name: str, environment: Mapping[str, str]) -> Endpoint:
    prefix, _, model = name.partition("/")
    server = next((server for server in LOCAL_SERVERS if server.prefix == prefix), None)
    if (server or prefix == "hf") and not model:
        raise NoModel(f"LLM_ENDPOINT={name} names no model.", remedy=f"Write it as {prefix}/MODEL.")
    if server:
        return _at(server, model, environment)
    if prefix == "hf":
        token = environment.get("HF_TOKEN") or _stored_token()
        if not token:  # without one litellm would send the router OpenAI's key
            raise NoModel(f"{name} needs a Hub token.", remedy="Run `hf auth login`, or set HF_TOKEN.")
        return Endpoint(f"openai/{model}", environment.get("HF_ROUTER_URL") or HUB_ROUTER, token)
    return Endpoint(name)


def _at(server: LocalServer, model: str, environment: Mapping[str, str]) -> Endpoint:
    base = environment.get(server.base_variable) or environment.get("LOCAL_LLM_BASE_URL") or f"127.0.0.1:{server.port}"
    base = base.strip().rstrip("/").removesuffix("/v1") + ("/v1" if server.v1 else "")
    base = base if "://" in base else f"http://{base}"
    key = environment.get(server.key_variable) or environment.get("LOCAL_LLM_API_KEY") or "none"
    return Endpoint(f"{server.litellm}/{model}", base, key)


def _stored_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _first_model(endpoint: Endpoint, server: LocalServer) -> str | None:
    """The first model that a local server offers, `None` when no server answers."""
    url = f"{endpoint.api_base}/models" if server.v1 else f"{endpoint.api_base}/api/tags"
    try:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {endpoint.api_key}"})
        with urllib.request.urlopen(request, timeout=0.3) as answer:
            offered = json.load(answer)
        return str(offered["data"][0]["id"] if server.v1 else offered["models"][0]["name"])
    except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError):  # nobody there, or somebody else
        return None
