"""McpServer: how a server of tools is reached; read from a file in the usual `mcpServers` format, or from a word.

What must never happen here: a value of a secret stands in what is shown of a server.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import SettingsError
from ..secrets import find_secrets

FILE = "mcp.json"
"""In the home: the servers that every session has."""
START_SECONDS, CALL_SECONDS = 30.0, 300.0
_FORMAT = 'Write it like {"mcpServers": {"files": {"command": "npx", "args": ["-y", "PACKAGE", "DIR"]}}}.'
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class McpServer:
    """How to reach a server.

    Args:
        name (`str`): What its tools' names begin with.
        command (`str`), args (`tuple[str, ...]`): Of one that is started here and talks through standard input and output.
        env (`Mapping[str, str]`): Its environment, besides `HOME`, `LOGNAME`, `PATH`, `SHELL`, `TERM` and `USER`.
        cwd (`str`, *optional*): Where it is started.
        url (`str`), headers (`Mapping[str, str]`): Of one that is reached over HTTP.
        sse (`bool`): Whether it speaks the older protocol over HTTP.
        tools (`tuple[str, ...]`): Its tools that are wanted, by their own names; all, if none.
        start_seconds (`float`, defaults to 30), call_seconds (`float`, defaults to 300): How long to wait for it.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sse: bool = False
    tools: tuple[str, ...] = ()
    start_seconds: float = START_SECONDS
    call_seconds: float = CALL_SECONDS

    @property
    def program(self) -> str | None:
        """The program that it is started with, found as a shell would in its folder; `None` where there is none."""
        inside = self.cwd is not None and "/" in self.command
        return shutil.which(
            str(Path(self.cwd or "", self.command)) if inside else self.command, path=self.env.get("PATH")
        )

    @property
    def said(self) -> str:
        """How it is reached, for people: the names of what it is given, never the values."""
        if self.url:
            parts = urlsplit(self.url)
            host = parts.netloc.rpartition("@")[2]
            shown = f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")
            return shown + (f" with the headers {', '.join(sorted(self.headers))}" if self.headers else "")
        given = [(value, f"[secret:{name}]") for value, name in _in_words(self.args).items()]
        words = [reduce(lambda word, pair: word.replace(*pair), given, word) for word in self.args]
        shown = " ".join(
            [shlex.quote(self.command), *(word if "[secret:" in word else shlex.quote(word) for word in words)]
        )
        return shown + (f" with {', '.join(sorted(self.env))}" if self.env else "")

    @property
    def key(self) -> str:
        """What it is known by: another command or address under the same name is another server."""
        how = json.dumps(
            [self.url] if self.url else [self.command, *self.args]
        )  # may hold a secret: its digest will do
        return f"mcp {self.name} {hashlib.sha256(how.encode(errors='replace')).hexdigest()[:32]}"

    @property
    def secrets(self) -> dict[str, str]:
        """What it is given that is a secret, as its name says, and all headers: value to name.

        In its environment, its address and its arguments: errors and processes name those.
        """
        values = _in_words([self.url, *self.args]) | (dict(find_secrets(self.env).values) if self.env else {})
        for name, value in self.headers.items():
            if name.lower() not in ("accept", "content-type", "user-agent"):
                values |= {word: f"{self.name}_{name}" for word in (value, *value.split()) if len(word) >= 12}
        return values

    @classmethod
    def of(cls, name: str, about: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> McpServer:
        """A server as an entry of `mcpServers` has it; `${NAME}` and `${NAME:-default}` are filled in from the environment.

        Raises:
            SettingsError: that is no server.
        """
        environment = os.environ if environment is None else environment

        def fill(text: Any) -> str:
            def value(found: re.Match[str]) -> str:
                given = environment.get(found[1], found[2])
                if given is None:
                    raise SettingsError(
                        f"The MCP server {name!r} needs {found[1]}",
                        "it is not set",
                        f"Set {found[1]}, or write its value.",
                    )
                return given

            return _VARIABLE.sub(value, str(text))

        def wrong(why: str) -> SettingsError:
            return SettingsError(f"The MCP server {name!r} cannot be used", why, _FORMAT)

        if not isinstance(about, Mapping):
            raise wrong("it is no object")
        command, url = about.get("command", ""), about.get("url", "")
        args, env, headers = about.get("args", []), about.get("env") or {}, about.get("headers") or {}
        if not isinstance(command, str) or not isinstance(url, str) or bool(command) == bool(url):
            raise wrong("it has either a command or a url")
        if not isinstance(args, list) or not isinstance(env, Mapping) or not isinstance(headers, Mapping):
            raise wrong("`args` is a list, `env` and `headers` are objects")
        if not isinstance(about.get("tools", []), list):
            raise wrong("`tools` is a list of names")
        if url and urlsplit(fill(url)).scheme not in ("http", "https"):
            raise wrong("its url begins with https:// or http://")
        return cls(
            name=name,
            command=fill(command),
            args=tuple(map(fill, args)),
            env={str(key): fill(value) for key, value in env.items()},
            cwd=str(Path(fill(about["cwd"])).expanduser()) if about.get("cwd") else None,
            url=fill(url),
            headers={str(key): fill(value) for key, value in headers.items()},
            sse=str(about.get("type", about.get("transport", ""))).lower() == "sse",
            tools=tuple(map(str, about.get("tools") or ())),
            start_seconds=_seconds(about.get("start_seconds", START_SECONDS), wrong),
            call_seconds=_seconds(about.get("call_seconds", CALL_SECONDS), wrong),
        )


def _in_words(words: Sequence[str]) -> dict[str, str]:
    """What stands under the name of a secret among arguments and in addresses, value to name.

    As in `--api-key VALUE`, `--token=VALUE`, `NAME=VALUE`, `Authorization: Bearer VALUE`, `?key=VALUE`, `https://VALUE@host`.
    """
    pairs: list[tuple[str, str]] = []
    for word, after in zip(words, (*words[1:], ""), strict=False):
        with contextlib.suppress(ValueError):  # it looks like an address and is none
            parts = urlsplit(address[0] if (address := re.search(r"\w+://\S+", word)) else "")
            account, at, _ = parts.netloc.rpartition("@")
            pairs += [*([("password", unquote(account.rpartition(":")[2]))] if at else []), *parse_qsl(parts.query)]
        if named := re.match(r"-*([A-Za-z][\w-]*)(?:=|:(?!//)\s*)(.+)", word, re.DOTALL):
            pairs.append((named[1], named[2]))
        elif word.startswith("-") and not after.startswith("-"):
            pairs.append((word.lstrip("-"), after))
    found: dict[str, str] = {}
    for name, value in pairs:
        name = "auth" if name.lower() == "authorization" else name.replace("-", "_")
        found |= {f"{name}_{len(found) + number}": part for number, part in enumerate(value.split())}
    known = find_secrets(found).values if found else {}
    return {value: name.rpartition("_")[0] for value, name in known.items() if value in found.values()}


def _seconds(value: Any, wrong: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86_400:
        raise wrong("`start_seconds` and `call_seconds` are numbers of seconds")
    return float(value)


def read_servers(
    given: Iterable[Any], home: Path | None = None, environment: Mapping[str, str] | None = None
) -> tuple[McpServer, ...]:
    """The servers of a session: those of the home's `mcp.json`, and those given.

    Args:
        given (`Iterable`): Each a [`McpServer`], a path of a file, an address, a command line (`"npx -y PACKAGE"`), any of
            the latter two with a name before it (`"files=npx -y PACKAGE"`), or a dict: `{"name": ..., "command": ...}`, or
            what such a file holds.
        home (`Path`, *optional*): Where `mcp.json` may lie.

    Raises:
        SettingsError: one of them is none; two have the same name.
    """
    found: dict[str, McpServer] = {}
    own = home / FILE if home is not None else None
    if own is not None and own.is_file():
        found = {server.name: server for server in _of_file(own, environment)}
    for item in given:
        for server in _of(item, environment):
            if server.name in found and found[server.name] != server:
                why = "two have the same name, and their tools could not be told apart"
                raise SettingsError(
                    f"The MCP server {server.name!r} is there twice", why, "Give one another name: NAME=..."
                )
            found[server.name] = server
    return tuple(found.values())


def _of(item: Any, environment: Mapping[str, str] | None) -> list[McpServer]:
    if isinstance(item, McpServer):
        return [item]
    if isinstance(item, Path):
        return _of_file(item, environment)
    if isinstance(item, Mapping):
        if "mcpServers" in item:
            return _of_object(item, environment)
        name = str(item.get("name") or _name_of(str(item.get("url") or item.get("command") or "")))
        return [McpServer.of(name, item, environment)]
    text = str(item).strip()
    if text.endswith(".json") and len(text.split()) == 1:
        return _of_file(Path(text).expanduser(), environment)
    named = re.match(r"([\w.-]+)=(?=\S)", text)
    name, rest = (named[1], text[named.end() :]) if named else ("", text)
    if rest.startswith(("http://", "https://")):
        return [McpServer.of(name or _name_of(rest), {"url": rest}, environment)]
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise SettingsError(f"{text!r} names no MCP server", str(error), "Quote it as for a shell.") from None
    if not words:
        raise SettingsError(
            "An MCP server's command is empty", "", 'Write --mcp "NAME=COMMAND ARGUMENTS", an address or a file.'
        )
    chosen = name or _name_of(next((word for word in reversed(words) if not word.startswith("-")), words[0]))
    return [replace(McpServer.of(chosen, {"command": words[0], "args": words[1:]}, environment))]


def _of_file(path: Path, environment: Mapping[str, str] | None) -> list[McpServer]:
    try:
        return _of_object(json.loads(path.read_text(encoding="utf-8")), environment)
    except OSError as error:
        raise SettingsError(f"Cannot read {path}", error.strerror or str(error), _FORMAT) from None
    except ValueError as error:
        raise SettingsError(f"{path} is no JSON", str(error), _FORMAT) from None


def _of_object(data: Any, environment: Mapping[str, str] | None) -> list[McpServer]:
    servers = data.get("mcpServers") if isinstance(data, Mapping) else None
    if not isinstance(servers, Mapping):
        raise SettingsError("That file names no MCP servers", 'it has no object "mcpServers"', _FORMAT)
    wanted = {
        str(name): about
        for name, about in servers.items()
        if not (isinstance(about, Mapping) and about.get("disabled"))
    }
    return [McpServer.of(name, about, environment) for name, about in wanted.items()]


def _name_of(text: str) -> str:
    """A name for what has none: of its host, or of its last word."""
    host = urlsplit(text).hostname if "://" in text else None
    word = host or Path(text).name or text
    if host is None:
        word = re.sub(r"@[\d.]+$|\.(py|js|ts|sh)$", "", word)
        word = re.sub(r"^(mcp-server-|server-|mcp-)|(-mcp-server|-server|-mcp)$", "", word) or word
    elif "." in host and not host.replace(".", "").isdecimal():
        parts = [part for part in host.split(".")[:-1] if part not in ("www", "mcp", "api")]
        word = parts[-1] if parts else host
    return word or "server"
