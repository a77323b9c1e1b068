"""The secrets that this process knows: where they are found, and what they are called.

What must never happen here: a value of a secret is in what is said about it; an ordinary setting counts as a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from configparser import Error as ConfigError
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHORTEST = 8
"""Values shorter than this are not masked: they would turn up in ordinary text. Where they have a name, it is said."""
DECLARED = "ML_INTERN_SECRETS"
"""Names, separated by commas: of environment variables, or (with a `/`) of files that hold a secret a line."""

_NAMED = re.compile(
    r"(?i)(?:^|_)(?:\w*TOKEN|API_?KEY|\w*SECRETS?|\w*PASSWORD|PASSWD|PASSPHRASE|\w+PWD|CREDENTIALS?|ACCESS_?KEY|PRIVATE_?KEY|"
    r"KEY|PAT|PASS|WEBHOOK|AUTH)(?:_?\d+)?$|ACCESS_KEY_ID$|WEBHOOK_URL$|(?:SECRET|PASSWORD|API_?KEY|ACCESS_KEY|TOKEN|CREDENTIAL)_"
)
_NOT_SECRET = re.compile(
    r"(?i)^(ML_INTERN_SECRETS|SSH_AUTH_SOCK|GPG_KEY|(?:MAX|MIN|NUM|N|TOTAL|PAD|EOS|BOS)_.*|.*(?<!ACCESS_KEY)_ID"
    r"|.*_(FILE|PATH|DIR|(?<!WEBHOOK_)URL|BASE|ENDPOINT|TTL|LIMIT|COUNT|NAME|LENGTH|SIZE|TYPE|EXPIRY|TIMEOUT))$"
)
# What development set-ups have for a secret: masked it would be missed in every other place.
_WORDS = frozenset(
    ("postgres", "password", "changeme", "change-me", "localhost", "developer", "development", "not-needed")
)
_PLAIN = re.compile(
    r"(?i)(true|false|yes|no|on|off|none|null|auto|default|disabled|enabled|required|optional|[\d.,:-]*)$"
)


@dataclass(frozen=True)
class Known:
    """Secrets: value to name; and what should be said about them to the person, never with a value in it."""

    values: dict[str, str]
    warnings: tuple[str, ...] = ()


def known_secrets(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> dict[str, str]:
    """The secrets this process can see: value to name. See [`find_secrets`]."""
    return find_secrets(environment, folder).values


def find_secrets(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Known:
    """The secrets this process can see, and what is amiss with some.

    They are: values of the environment and of a `.env` that are named like secrets; passwords in addresses there; the
    tokens that the Hub's client has stored; what the variable `ML_INTERN_SECRETS` declares: names of environment
    variables, or of files (with a `/` in them) that hold one secret a line, plain or as `NAME=value`.

    Args:
        environment (`Mapping[str, str]`, *optional*): Defaults to `os.environ`.
        folder (`Path`, *optional*): Where a `.env` may lie. Defaults to the current folder; not looked for where only an
            environment is given.
    """
    given = environment is not None
    environment = os.environ if environment is None else environment
    named: list[tuple[str, str]] = [*_of_variables(environment), *_stored(environment)]
    folder = folder or (None if given else Path.cwd())
    if folder is not None:
        named += _of_variables(_dotenv(folder / ".env"))
    declared, warnings = _declared(environment)
    words = [name for name, value in named if value.lower() in _WORDS]
    warnings += [f"The value of {name} is a common word: it is not masked." for name in words]
    named = [(name, value) for name, value in named if value.lower() not in _WORDS]
    values: dict[str, str] = {}
    for name, value in [*named, *declared]:
        if len(value) >= SHORTEST:
            values.setdefault(value, re.sub(r"[^\w.-]+", "_", name) or "secret")
        elif value:
            warnings.append(f"{name} is shorter than {SHORTEST} characters: it is not masked.")
    return Known(values, tuple(dict.fromkeys(warnings)))


def _of_variables(variables: Mapping[str, str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, raw in variables.items():
        value = raw.strip()
        if _NAMED.search(name) and not _NOT_SECRET.match(name) and not _PLAIN.match(value) and not _is_path(value):
            found.append((name, value))
        if "://" in value and "@" in value and (password := _password_in(value)):
            found.append((name, password))
    return found


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~", "./")) and (
        "\n" not in value and (value.count("/") > 1 or Path(value).exists())
    )


def _password_in(address: str) -> str:
    try:
        return unquote(urlsplit(address).password or "")
    except ValueError:
        return ""


def _stored(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """What `hf auth login` has left, where the client looks for it."""
    cache = Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    token = Path(environment.get("HF_TOKEN_PATH") or Path(environment.get("HF_HOME") or cache) / "token").expanduser()
    found = [("HF_TOKEN", _read(token).strip())]
    stored = RawConfigParser()
    try:
        stored.read_string(_read(token.with_name("stored_tokens")))
        found += [
            (f"HF_TOKEN_{name}", stored.get(name, "hf_token", fallback="").strip()) for name in stored.sections()
        ]
    except ConfigError:
        pass
    return found


def _dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}
    except (OSError, UnicodeDecodeError):
        return {}


def _declared(environment: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[str]]:
    found: list[tuple[str, str]] = []
    warnings: list[str] = []
    for name in filter(None, (part.strip() for part in environment.get(DECLARED, "").split(","))):
        if "/" not in name:
            value = environment.get(name, "").strip()
            found.append((name, value))
            if not value:
                warnings.append(f"{DECLARED} names {name}, which is not set: nothing of it is masked.")
            continue
        path = Path(name).expanduser()
        lines = [line.strip() for line in _read(path).splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            warnings.append(f"{DECLARED} names {name}, which cannot be read or is empty: nothing of it is masked.")
        for number, line in enumerate(lines, 1):
            if match := re.fullmatch(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", line):
                found.append((match[1], match[2].strip().strip("\"'")))
            else:
                found.append((f"{path.stem}-{number}" if len(lines) > 1 else path.stem, line))
    return found, warnings


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
