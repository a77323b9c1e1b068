"""From `LLM_ENDPOINT` to what litellm has to be called with. It reads the environment and asks the usual ports."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import NoModel
from .servers import LOCAL_SERVERS, LocalServer, first_model

HUB_ROUTER = "https://router.huggingface.co/v1"
EMBEDDED = "embedded/"

KEYS = (
    ("ANTHROPIC_API_KEY", "anthropic/claude-sonnet-4-5"),
    ("OPENAI_API_KEY", "openai/gpt-5.1"),
    ("GEMINI_API_KEY", "gemini/gemini-2.5-pro"),
)
"""Keys that choose a model where `LLM_ENDPOINT` is not set, in this order."""

NEEDS = {
    "anthropic/": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "claude-": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "gpt-": ("OPENAI_API_KEY",),
    "openai/gpt-": ("OPENAI_API_KEY",),
    "gemini/": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "mistral/": ("MISTRAL_API_KEY",),
    "deepseek/": ("DEEPSEEK_API_KEY",),
    "openrouter/": ("OPENROUTER_API_KEY",),
    "groq/": ("GROQ_API_KEY",),
}
"""The variables with the keys of well-known providers; one of them is enough."""

_OPENAI_BASES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")


@dataclass(frozen=True)
class Endpoint:
    """What litellm is called with, and why this model where nobody named one.

    Args:
        model_id (`str`): litellm's id; of weights that we run ourselves `embedded/...`.
        api_base (`str`, *optional*), api_key (`str`, *optional*): Of its server, where they are not the provider's own.
        why (`str`): Why it was chosen, where it was not named.
        name (`str`): As it was written.
    """

    model_id: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    why: str = ""
    name: str = field(default="", compare=False)

    @property
    def server(self) -> LocalServer | None:
        """The kind of local server that it stands on."""
        return LocalServer.of(self.model_id) if self.api_base else None

    @property
    def embedded(self) -> bool:
        return self.model_id.startswith(EMBEDDED)


@dataclass(frozen=True)
class Endpoints:
    """The models to ask, the best one first, and what is to be said of those that were left out."""

    entries: tuple[Endpoint, ...]
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Endpoint:
        return self.entries[0]


def resolve(name: str | None = None, environment: Mapping[str, str] | None = None, probe: bool = True) -> Endpoint:
    """Finds the model; of a chain its first one. See [`resolve_all`]."""
    return resolve_all(name, environment, probe).first


def resolve_all(
    name: str | None = None,
    environment: Mapping[str, str] | None = None,
    probe: bool = True,
    offline: bool = False,
) -> Endpoints:
    """Finds the models.

    Args:
        name (`str`, *optional*): As in `LLM_ENDPOINT`, which is taken when this is `None`: `claude-...`, `gpt-...`,
            any litellm id, `hf/org/model[:provider]`, `ollama/`, `vllm/`, `lm_studio/`, `llamacpp/` and a model,
            `embedded/` and weights; or several of them, separated by commas: each is asked when those before it fail.
        environment (`Mapping[str, str]`, *optional*): Defaults to `os.environ`.
        probe (`bool`, defaults to `True`): Whether to look for a local server (0.3 s a port) and for weights on the disk
            when no model is named and there is no key.
        offline (`bool`, defaults to `False`): Only what needs no name looked up but what the user configured.

    Raises:
        NoModel: none is named and none was found, or what is named cannot work.
    """
    environment = os.environ if environment is None else environment
    name = (name or environment.get("LLM_ENDPOINT") or "").strip()
    if not name:
        return Endpoints((_found(environment, probe, offline),))
    found: list[Endpoint] = []
    refused: list[NoModel] = []
    for written in filter(None, (part.strip() for part in name.split(","))):
        try:
            endpoint = replace(_named(written, environment), name=written)
            if offline and not _stays_here(endpoint, environment):
                raise NoModel(
                    f"{written} needs the network.",
                    "--offline is set",
                    "Name a local server (ollama/, vllm/, lm_studio/, llamacpp/) or embedded/ weights.",
                )
        except NoModel as error:
            refused.append(error)
            continue
        if endpoint not in found:
            found.append(endpoint)
    if not found:
        raise refused[0] if refused else NoModel(f"LLM_ENDPOINT={name} names no model.")
    return Endpoints(tuple(found), tuple(f"Left out of the chain: {error}" for error in refused))


def missing_key(endpoint: Endpoint, environment: Mapping[str, str]) -> str:
    """The variable whose key an endpoint needs and has not, `""` where it has all or nobody knows."""
    if endpoint.api_key:
        return ""
    needed = next((names for prefix, names in NEEDS.items() if endpoint.model_id.startswith(prefix)), ())
    return "" if any(environment.get(name) for name in needed) else "".join(needed[:1])


def _found(environment: Mapping[str, str], probe: bool, offline: bool) -> Endpoint:
    """What can be used where nothing is named: a key, a server that answers, weights on the disk."""
    for variable, model in () if offline else KEYS:
        if environment.get(variable):
            return Endpoint(model, why=f"{variable} is set and LLM_ENDPOINT is not", name=model)
    if probe:
        for server in LOCAL_SERVERS:
            found = _at(server, "", environment)
            if model := first_model(server, found.api_base or "", found.api_key or ""):
                why = f"a {server.prefix} server answers on its port"
                return replace(found, model_id=f"{server.litellm}/{model}", why=why, name=f"{server.prefix}/{model}")
        if weights := _embedded_on_disk():
            return Endpoint(
                weights, why="its weights are on this machine, and there is no key and no server", name=weights
            )
    raise NoModel(
        "No language model is set up.",
        remedy="Name one: LLM_ENDPOINT=claude-sonnet-4-5 with its key, or hf/ORG/MODEL, or ollama/qwen2.5-coder:32b.\n"
        "Or see it work first: `python -m ml_intern demo` needs no model and no key.",
    )


def _named(name: str, environment: Mapping[str, str]) -> Endpoint:
    prefix, _, model = name.partition("/")
    server = next((server for server in LOCAL_SERVERS if server.prefix == prefix), None)
    if (server or prefix in ("hf", "embedded")) and not model:
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


def _stays_here(endpoint: Endpoint, environment: Mapping[str, str]) -> bool:
    """Whether the user has said himself where its requests go."""
    if endpoint.embedded or endpoint.server is not None:
        return True
    if endpoint.name.startswith("hf/"):
        return bool(environment.get("HF_ROUTER_URL"))
    of_openai = endpoint.model_id.startswith(("openai/", "gpt-"))
    return of_openai and any(environment.get(variable) for variable in _OPENAI_BASES)


def _stored_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _embedded_on_disk() -> str | None:
    try:
        from .embedded import find_on_disk
    except ImportError:  # built without it
        return None
    return find_on_disk()
