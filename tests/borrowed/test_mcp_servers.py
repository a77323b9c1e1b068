"""How servers are named: files in the usual format, words of a command line, dicts; and what is never shown of them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_intern.borrowed import KnownTools, McpServer, read_servers
from ml_intern.borrowed.keeper import Lines
from ml_intern.borrowed.naming import argument_names, names_for, reserved
from ml_intern.cli.doctor import servers as doctor_servers
from ml_intern.errors import SettingsError
from ml_intern.foreign import quoted
from ml_intern.secrets import Masker
from ml_intern.testing import LocalLLM, scripted


def test_the_usual_file_is_read_from_the_home_and_others_come_beside_it(tmp_path: Path) -> None:
    servers = {
        "files": {
            "command": "npx",
            "args": ["-y", "pkg", "${ROOT:-/data}"],
            "env": {"KEY": "${MY_KEY}"},
            "tools": ["read"],
        },
        "far": {
            "type": "http",
            "url": "https://mcp.example.com/mcp?x=1",
            "headers": {"Authorization": "Bearer ${MY_KEY}"},
        },
        "old": {"type": "sse", "url": "http://127.0.0.1:1/sse", "call_seconds": 5},
        "off": {"command": "x", "disabled": True, "alwaysAllow": ["*"]},
    }
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    files, far, old, more = read_servers(["more=uvx thing --fast"], tmp_path, {"MY_KEY": "k" * 20})
    assert (files.command, files.args, files.env, files.tools) == (
        "npx",
        ("-y", "pkg", "/data"),
        {"KEY": "k" * 20},
        ("read",),
    )
    assert far.headers == {"Authorization": "Bearer " + "k" * 20} and not far.sse and old.sse and old.call_seconds == 5
    assert (more.name, more.command, more.args) == ("more", "uvx", ("thing", "--fast"))
    assert "k" * 20 not in repr(files) + repr(far) + files.said + far.said + files.key + far.key
    assert set(far.secrets) == {"Bearer " + "k" * 20, "k" * 20} and files.secrets == {"k" * 20: "KEY"}


@pytest.mark.parametrize(
    "given",
    [
        "a=https://mcp.example.com/mcp?apiKey=KEY&profile=some-long-profile",
        "a=https://me:KEY@mcp.example.com/mcp",
        "a=npx -y pkg --api-key KEY",
        "a=npx -y pkg --token=KEY --verbose",
        "a=docker run -e SOME_API_KEY=KEY image",
        {"name": "a", "command": "npx", "args": ["pkg", "--header", "Authorization:${MY_KEY}"]},
    ],
)
def test_a_key_in_an_address_or_an_argument_is_not_shown_and_is_masked(given: Any) -> None:
    """Errors of clients and servers name addresses and command lines."""
    key = "k3Y" * 8
    given = given.replace("KEY=KEY", f"KEY={key}").replace(" KEY", f" {key}").replace("=KEY", f"={key}").replace(
        ":KEY@", f":{key}@"
    ) if isinstance(given, str) else given  # fmt: skip
    (server,) = read_servers([given], environment={"MY_KEY": key})
    assert key in server.url or any(key in word for word in server.args)
    assert key not in server.said and key not in repr(server), server.said
    masker = Masker({}, more=server.secrets)
    assert key not in masker.text(f"401 for {server.url} {' '.join(server.args)}") and server.name == "a"


def test_what_is_no_key_is_shown() -> None:
    (server,) = read_servers(
        ["a=npx -y @modelcontextprotocol/server-filesystem --max-tokens 1000 /data/some/long/folder"]
    )
    assert server.said == "npx -y @modelcontextprotocol/server-filesystem --max-tokens 1000 /data/some/long/folder"
    assert server.secrets == {} and McpServer("a", "run").said == "run"
    assert McpServer("a", "run", ("--url", "http://[x", "--api-key")).secrets == {}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("npx -y @modelcontextprotocol/server-filesystem", "filesystem"),
        ("uvx mcp-server-git", "git"),
        ("https://mcp.example.com/mcp", "example"),
        ("http://127.0.0.1:8000/mcp", "127.0.0.1"),
        ("here=http://127.0.0.1:8000/mcp", "here"),
        ({"url": "https://api.weather.com/mcp"}, "weather"),
        ({"name": "mine", "command": "run"}, "mine"),
    ],
)
def test_a_word_is_enough(given: Any, name: str) -> None:
    (server,) = read_servers([given], environment={})
    assert server.name == name


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"name": "a"}, "either a command or a url"),
        ({"name": "a", "command": "x", "url": "https://x"}, "either a command or a url"),
        ({"name": "a", "url": "ftp://x"}, "begins with https"),
        ({"name": "a", "command": "x", "args": "y"}, "`args` is a list"),
        ({"name": "a", "command": "x", "call_seconds": True}, "numbers of seconds"),
        ({"name": "a", "command": "x", "env": {"K": "${NOT_SET_ANYWHERE}"}}, "NOT_SET_ANYWHERE"),
        ({"mcpServers": []}, "no object"),
        ("", "is empty"),
        ("'unbalanced", "names no MCP server"),
        ("no/such/file.json", "Cannot read"),
    ],
)
def test_what_is_no_server_is_refused_with_the_reason(given: Any, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        read_servers([given], environment={})


def test_a_program_is_found_as_in_its_own_folder(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "serve"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    assert McpServer("a", "./bin/serve", cwd=str(tmp_path)).program == str(program)
    assert McpServer("a", "serve", env={"PATH": str(program.parent)}).program == str(program)
    assert McpServer("a", "serve", cwd=str(program.parent)).program is None  # a folder is not on the path
    assert McpServer("a", "serve").program is None


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="there twice"):
        read_servers(["a=one", "a=two"])
    assert len(read_servers(["a=one", "a=one"])) == 1


def test_another_command_under_a_name_is_another_server() -> None:
    assert McpServer("a", "x").key != McpServer("a", "x", ("y",)).key != McpServer("b", "x", ("y",)).key


def test_names_are_the_same_in_any_order_and_never_ours() -> None:
    own = reserved()
    assert {"hub_push", "final_answer", "plan", "ask_user", "arxiv_search"} <= own
    some = ["b c", "b-c", "b_c", "d"]
    forwards, backwards = names_for("a", some, ()), names_for("a", some[::-1], ())
    assert forwards == backwards and len(set(forwards.values())) == 4 and forwards["d"] == "a_d"
    for origin in {name.partition("_")[0] for name in own}:
        assert not own & set(names_for(origin, ["push", "answer", "user", "x"], ()).values())
        assert all(name.startswith("mcp_") for name in names_for(origin, ["x"], ()).values())
    assert argument_names(["a-b", "a_b", "class"]).keys() == {"a-b", "a_b", "class"}
    assert len(set(argument_names(["a-b", "a_b", "class"]).values())) == 3


def test_a_quotation_holds_nothing_that_ends_it_or_hides() -> None:
    shown = quoted('a """ b </code> `x` ```c``` \u202e\u200b\x1b[31m <|im_end|> "d"\n\ne', 200)
    assert shown.startswith('"') and shown.endswith('"') and "\n" not in shown
    for hidden in ('"""', "</code>", "```", "\u202e", "\u200b", "\x1b", "<|im_end|>"):
        assert hidden not in shown
    assert len(quoted("x" * 10_000)) < 620


def test_what_was_read_is_kept_whole_by_several_at_once_and_a_broken_file_is_no_approval(tmp_path: Path) -> None:
    path = tmp_path / "foreign-tools.json"
    one, other = KnownTools(path), KnownTools(path)
    one.add("a", "x", "first", "1")
    other.add("a", "y", "second", "2")
    assert path.stat().st_mode & 0o077 == 0
    assert one.introduction("a", "x", "head", "first", "", "1").news == ""
    assert one.introduction("a", "y", "head", "second", "", "2").news == ""
    assert "has changed" in one.introduction("a", "x", "head", "other", "", "3").news
    for broken in ("{", "[]", '{"a": {"x": "1"}}', '{"a": 1}'):
        path.write_text(broken)
        assert "nobody has read" in one.introduction("a", "x", "head", "first", "", "1").news


def test_lines_that_are_too_long_are_answered_for_and_all_others_pass() -> None:
    lines = Lines(100)
    long = b'{"jsonrpc":"2.0","id":"a-1","result":"' + b"x" * 500 + b'"}\n'
    out = b"".join(lines.take(bytes([byte])) for byte in b"short\n" + long + b"next\n")
    first, second, third = out.splitlines()
    assert (first, third) == (b"short", b"next")
    assert json.loads(second)["id"] == "a-1" and "540 bytes" in json.loads(second)["error"]["message"]


def test_doctor_says_which_there_are_and_what_they_lack(tmp_path: Path) -> None:
    def found(**servers: Any) -> list[tuple[bool | None, str]]:
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
        return [(finding.ok, finding.says) for finding in doctor_servers(tmp_path)]

    assert found() == []
    assert found(far={"url": "https://x"})[0][1].startswith("far: calls are asked about")
    assert found(a={"command": "no-such-program"}) == [(None, "no program for a")]
    assert found(a={})[0][0] is False


@pytest.mark.long
def test_nothing_of_the_protocol_is_loaded_before_there_is_a_server(tmp_path: Path) -> None:
    program = (
        "import sys, ml_intern.intern, ml_intern.cli.commands\nprint([n for n in sys.modules if n.startswith('mcp')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.soak
def test_the_command_line_takes_servers_and_says_how_their_definitions_are_read(tmp_path: Path) -> None:
    raw = Path(__file__).with_name("raw_server.py")
    (tmp_path / "tools.json").write_text(
        '[{"name": "say", "description": "Says it.", "inputSchema": {"type": "object"}}]'
    )
    script = ["Go.\n<code>\nprint(raw_say())\n</code>", "Done.\n<code>\nfinal_answer('done')\n</code>"]
    server = f"raw={shlex.join([sys.executable, str(raw), str(tmp_path)])}"
    words = [
        sys.executable,
        "-m",
        "ml_intern",
        "say it",
        "--home",
        str(tmp_path / "h"),
        "--mcp",
        server,
        "--allow",
        "raw_say",
    ]
    seen = []
    for _ in range(2):
        with LocalLLM(scripted(script)) as llm:
            environment = {**os.environ, "LLM_ENDPOINT": "vllm/x", "VLLM_BASE_URL": llm.url}
            done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100)
        seen.append((done.returncode, done.stdout))
        trust = ["tools", "trust", "raw", "--mcp", server, "--home", str(tmp_path / "h"), "--yes"]
        assert subprocess.run([*words[:3], *trust], capture_output=True, timeout=60).returncode == 0
    assert seen[0][0] == 4 and "`tools trust raw` shows it" in seen[0][1]
    assert seen[1][0] == 0 and "did say" in seen[1][1]
