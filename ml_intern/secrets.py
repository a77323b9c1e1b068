"""Masking: no secret that this process knows reaches a file, a model, an event or a message.

Exact values first (they are certain), then the shapes of well-known keys. A known value is replaced by its name, so
that one can still follow it: `hf_abc...` in `HF_TOKEN` becomes `[secret:HF_TOKEN]`. Masking twice changes nothing.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

SHORTEST = 8
"""Values shorter than this are not masked: they would turn up in ordinary text."""

_NAMED = re.compile(
    r"(TOKEN|API_?KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY|PRIVATE_KEY|_KEY$|_PAT$|WEBHOOK)", re.I
)
_NOT_SECRET = re.compile(r"^(SSH_AUTH_SOCK|.*_(FILE|PATH|DIR|URL|BASE|ENDPOINT|ID|TTL|LIMIT|COUNT|NAME))$", re.I)

# Each shape with the literal that must be there first: looking for literals is some fifty times as fast as the patterns.
_SHAPES = [
    ("hub-token", ("hf_",), r"\bhf_[A-Za-z0-9]{20,}\b"),
    ("anthropic-key", ("sk-ant-",), r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
    ("openai-key", ("sk-",), r"\bsk-(?:proj-)?[A-Za-z0-9_-]{32,}"),
    ("github-token", ("gh", "github_pat_"), r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{36,})"),
    ("aws-id", ("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("slack-token", ("xox", "xapp-"), r"\bx(?:ox[abeoprs]|app)-[A-Za-z0-9-]{10,}"),
    ("google-key", ("AIza",), r"\bAIza[0-9A-Za-z_-]{35}"),
    ("e2b-key", ("e2b_",), r"\be2b_[0-9a-f]{40}\b"),
    (
        "pem",
        ("PRIVATE KEY-----",),
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    ),
    ("bearer", ("earer ",), r"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{20,}=*"),
    ("url-password", ("://",), r"(?<=://)[^\s/:@\[]{1,64}:(?!\[secret:)[^\s/@]{3,}(?=@)"),
]
_COMPILED = [(f"[secret:{name}]", literals, re.compile(shape)) for name, literals, shape in _SHAPES]


def known_secrets(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The secrets this process can see: named like one in the environment, or stored by the Hub's client.

    Args:
        environment (`Mapping[str, str]`, *optional*): Defaults to `os.environ`.

    Returns:
        `dict[str, str]`: value to name.
    """
    environment = os.environ if environment is None else environment
    found = {
        value.strip(): name
        for name, value in environment.items()
        if _NAMED.search(name)
        and not _NOT_SECRET.match(name)
        and len(value.strip()) >= SHORTEST
        and not value.startswith("/")
    }
    stored = Path(environment.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "token"
    try:
        token = stored.read_text().strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if len(token) >= SHORTEST:
        found.setdefault(token, "HF_TOKEN")
    return found


class Masker:
    """Replaces secrets in text and in plain data.

    Args:
        secrets (`Mapping[str, str]`, *optional*): value to name; defaults to [`known_secrets`].
    """

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        secrets = known_secrets() if secrets is None else secrets
        self._names: dict[str, str] = {}
        for value, name in secrets.items():
            for form in _forms(value):
                self._names.setdefault(form, name)
        self._longest_first = sorted(self._names, key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` with every known secret and everything of a secret's shape replaced."""
        for form in self._longest_first:
            if form in text:
                text = text.replace(form, f"[secret:{self._names[form]}]")
        for name, literals, shape in _COMPILED:
            if any(literal in text for literal in literals):
                text = shape.sub(name, text)
        return text

    def data(self, value: Any) -> Any:
        """`value` with all its strings masked, keys too. Dicts, lists and tuples are searched, other things left alone.

        Where there was nothing to mask the very same object comes back.
        """
        if isinstance(value, str):
            masked = self.text(value)
            return value if masked == value else masked
        if isinstance(value, dict):
            pairs = [(self.data(key), self.data(item)) for key, item in value.items()]
            same = all(k is key and v is item for (k, v), (key, item) in zip(pairs, value.items(), strict=True))
            return value if same else dict(pairs)
        if isinstance(value, list | tuple):
            items = [self.data(item) for item in value]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return items if isinstance(value, list) else tuple(items)
        return value


def _forms(value: str) -> set[str]:
    """`value` as it may turn up: plain, URL-encoded, JSON- and repr-escaped, and in base64 at each of three alignments."""
    raw = value.encode()
    forms = {value, quote(value, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1]}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        # The first characters depend on what stands before the secret, the last one on what follows: they are cut.
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - (1 if (len(raw) + shift) % 3 else 0)]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")} if len(inner) >= SHORTEST else set()
    return {form for form in forms if len(form) >= SHORTEST}
