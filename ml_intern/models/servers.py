"""Local model servers: where they are, what they offer, and what is wrong with one. Every look is bounded in time."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from ..errors import ModelFailed

LOOK_SECONDS = 2.0
SMALL_WINDOW = 8_000
"""Tokens: with less, little is left beside the prompt."""
OLLAMA_WINDOW = 32_768
"""Tokens that an Ollama server is asked to read: by itself it cuts off silently what is more than some 4,000."""


@dataclass(frozen=True)
class LocalServer:
    """A kind of local model server: our prefix, litellm's, the variables for its address and key, its usual port."""

    prefix: str
    litellm: str
    base_variable: str
    key_variable: str
    port: int
    v1: bool

    @staticmethod
    def of(model_id: str) -> LocalServer | None:
        """The kind that a litellm id belongs to."""
        return _BY_PREFIX.get(model_id.partition("/")[0])


LOCAL_SERVERS = (
    LocalServer("ollama", "ollama_chat", "OLLAMA_BASE_URL", "OLLAMA_API_KEY", 11434, v1=False),
    LocalServer("vllm", "hosted_vllm", "VLLM_BASE_URL", "VLLM_API_KEY", 8000, v1=True),
    LocalServer("lm_studio", "lm_studio", "LMSTUDIO_BASE_URL", "LMSTUDIO_API_KEY", 1234, v1=True),
    LocalServer("llamacpp", "llamafile", "LLAMACPP_BASE_URL", "LLAMACPP_API_KEY", 8080, v1=True),
)
_BY_PREFIX = {server.litellm: server for server in LOCAL_SERVERS}
_LARGER = {
    "ollama": "set num_ctx in --model-option, or OLLAMA_CONTEXT_LENGTH where `ollama serve` runs",
    "vllm": "start it with --max-model-len 32768",
    "lm_studio": "load the model with a longer context",
    "llamacpp": "start it with -c 32768",
}


@dataclass(frozen=True)
class Seen:
    """What a server says of a model.

    Args:
        window (`int`, *optional*): Tokens that it reads.
        thinks (`bool`, *optional*): Whether it can be told to think; `None` where the server does not say.
        note (`str`): What a person should know.
    """

    window: int | None = None
    thinks: bool | None = None
    note: str = ""


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def look(server: LocalServer, model: str, base: str, key: str, seconds: float = LOOK_SECONDS) -> Seen:
    """Asks a server for a model, without making it work.

    Args:
        server (`LocalServer`): Its kind.
        model (`str`): The model's name there.
        base (`str`), key (`str`): Its address and key.
        seconds (`float`, defaults to 2): For each of at most three questions.

    Raises:
        ModelFailed: nobody is there, the key is refused, or the model is not there.
    """
    where = f"{server.litellm}/{model} at {base}"
    try:
        offered = _names(_get(f"{base}/models" if server.v1 else f"{base}/api/tags", key, seconds))
    except _Refused as error:
        if error.status in (401, 403):
            said = f"Set {server.key_variable} or LOCAL_LLM_API_KEY."
            raise ModelFailed(f"{where} refused the key", f"HTTP {error.status}", said).of_kind("key") from None
        return Seen()  # it is somebody, and has no list: its first answer will tell
    except (OSError, HTTPException) as error:
        reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        raise ModelFailed(f"Nothing answers for {where}", reason, _start(server, base)).of_kind(
            "unreachable"
        ) from None
    except ValueError:
        return Seen()
    entry = offered.get(model) or offered.get(f"{model}:latest") or {}
    if not entry and server.prefix == "ollama":
        others = f"it has {', '.join(list(offered)[:4])}" if offered else "it has none"
        raise ModelFailed(f"{where} is not pulled", others, f"ollama pull {model}").of_kind("missing")
    note = ""
    if (
        not entry and offered and server.prefix == "vllm"
    ):  # llama.cpp answers to any name, LM Studio loads what it is asked for
        note = f"{base} does not list {model}; it has {', '.join(list(offered)[:4])}."
    seen = _details(server, model, base, key, entry, seconds)
    if seen.window is not None and seen.window < SMALL_WINDOW:
        small = f"{model} reads {seen.window:,} tokens there, which is little: {_LARGER[server.prefix]}."
        note = f"{note} {small}".strip()
    return Seen(seen.window, seen.thinks, note)


def first_model(server: LocalServer, base: str, key: str) -> str | None:
    """The first model that a local server offers, `None` when no server answers."""
    try:
        return next(iter(_names(_get(f"{base}/models" if server.v1 else f"{base}/api/tags", key, 0.3))), None)
    except (OSError, HTTPException, ValueError, _Refused):  # nobody there, or somebody else
        return None


def _details(server: LocalServer, model: str, base: str, key: str, entry: Mapping[str, Any], seconds: float) -> Seen:
    root = base.removesuffix("/v1")
    try:
        match server.prefix:
            case "ollama":
                shown = _get(f"{root}/api/show", key, seconds, {"model": model})
                lengths = (n for name, n in shown["model_info"].items() if name.endswith(".context_length"))
                window = _number(next(lengths, None))
                abilities = shown.get("capabilities")
                return Seen(window, "thinking" in abilities if isinstance(abilities, list) else None)
            case "llamacpp":
                props = _get(f"{root}/props", key, seconds)
                return Seen(_number(props.get("default_generation_settings", {}).get("n_ctx")))
            case "lm_studio":
                listed = _get(f"{root}/api/v0/models/{model}", key, seconds)
                return Seen(_number(listed.get("loaded_context_length")))
            case _:
                return Seen(_number(entry.get("max_model_len")))
    except (OSError, HTTPException, ValueError, KeyError, AttributeError, TypeError, _Refused):
        return Seen()  # an older one, or one that only speaks the common part of the protocol


def _start(server: LocalServer, base: str) -> str:
    command = {"ollama": "ollama serve", "vllm": "vllm serve MODEL", "llamacpp": "llama-server -m FILE.gguf"}
    how = command.get(server.prefix)
    began = f"Start the server{f' (`{how}`)' if how else ''}"
    return f"{began}, or correct its address: {server.base_variable}, now {base}."


def _names(listed: Any) -> dict[str, Mapping[str, Any]]:
    """What a server lists, by name. Raises `ValueError` where this is no list of models."""
    rows = listed.get("data", listed.get("models")) if isinstance(listed, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("no list of models")
    names = (str(row.get("id") or row.get("name") or "") for row in rows)
    return {name: row for name, row in zip(names, rows, strict=True) if name}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _get(url: str, key: str, seconds: float, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({})) if _is_local(url) else urllib.request
    try:
        request = urllib.request.Request(url, data, headers)
        opens: Any = opener.open if isinstance(opener, urllib.request.OpenerDirector) else urllib.request.urlopen
        with opens(request, timeout=seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise _Refused(error.code) from None


def _is_local(url: str) -> bool:
    """A proxy is for the world outside."""
    return url.startswith(("http://127.", "http://localhost", "http://[::1]"))


__all__: Sequence[str] = ("LOCAL_SERVERS", "LocalServer", "Seen", "first_model", "look")
