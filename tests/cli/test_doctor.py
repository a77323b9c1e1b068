"""`doctor` as a process of its own, with an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "hf_" + "S3cretS3cret" * 3


def doctor(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Nothing of this process's environment but the path; no proxies, no keys, ports where nobody listens."""
    silent = {f"{name}_BASE_URL": "http://127.0.0.1:9" for name in ("OLLAMA", "VLLM", "LMSTUDIO", "LLAMACPP")}
    given = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "ml_intern", "doctor", "--home", str(home / "sessions"), *words],
        capture_output=True, text=True, cwd=ROOT, timeout=60, env=given | silent | environment,
    )  # fmt: skip


def checks(shown: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert shown.stderr == ""
    return {check["name"]: check for check in json.loads(shown.stdout)["checks"]}


class Answers(BaseHTTPRequestHandler):
    """An ollama server's list of models, and a Hub that knows one token."""

    def do_GET(self) -> None:
        if self.path == "/api/tags":
            body, status = {"models": [{"name": "qwen:1b"}]}, 200
        elif self.headers["Authorization"] == f"Bearer {SECRET}":
            body, status = {"name": "ada", "type": "user"}, 200
        else:
            body, status = {"error": "Invalid token"}, 401
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Any:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_without_a_model_it_is_1_and_says_how_to_get_one(tmp_path: Path) -> None:
    shown = doctor(tmp_path)
    assert shown.returncode == 1
    assert "✗ model" in shown.stdout
    assert "LLM_ENDPOINT=" in shown.stdout
    assert "A task cannot run yet: " in shown.stdout
    assert "hf auth login" in shown.stdout
    assert "\x1b" not in shown.stdout


@pytest.mark.long
def test_a_local_server_is_found(tmp_path: Path, server: str) -> None:
    found = checks(doctor(tmp_path, "--json", OLLAMA_BASE_URL=server))
    assert found["model"]["ok"] is True
    assert "qwen:1b" in found["model"]["says"]


@pytest.mark.long
def test_a_server_that_does_not_answer_is_no_model(tmp_path: Path, server: str) -> None:
    found = checks(doctor(tmp_path, "--json", LLM_ENDPOINT="vllm/m", OLLAMA_BASE_URL=server))
    assert found["model"]["ok"] is False
    assert "no server answers" in found["model"]["says"]
    assert "qwen:1b" in found["model"]["remedy"], "what would be found instead"


@pytest.mark.long
@pytest.mark.parametrize(
    ("endpoint", "key"), [("claude-sonnet-4-5", "ANTHROPIC_API_KEY"), ("openai/gpt-5.1", "OPENAI_API_KEY")]
)
def test_a_model_needs_its_key(tmp_path: Path, endpoint: str, key: str) -> None:
    without = checks(doctor(tmp_path, "--json", LLM_ENDPOINT=endpoint))["model"]
    assert (without["ok"], key in without["remedy"]) == (False, True)
    assert checks(doctor(tmp_path, "--json", LLM_ENDPOINT=endpoint, **{key: SECRET}))["model"]["ok"] is True


@pytest.mark.long
def test_whose_token_it_is_and_no_secret_is_shown(tmp_path: Path, server: str) -> None:
    secrets = {"HF_TOKEN": SECRET, "SLACK_BOT_TOKEN": "xoxb-1234567890-abcdef", "OPENAI_API_KEY": "sk-" + "k" * 40}
    shown = doctor(tmp_path, **secrets, SLACK_CHANNEL_ID="C1", HF_ENDPOINT=server, HF_HUB_OFFLINE="0")
    assert "✓ Hub     signed in as ada" in shown.stdout
    assert "✓ Slack" in shown.stdout
    assert "OPENAI_API_KEY is set" in shown.stdout
    for secret in secrets.values():
        assert secret not in shown.stdout + shown.stderr


@pytest.mark.long
def test_a_refused_token(tmp_path: Path, server: str) -> None:
    found = checks(doctor(tmp_path, "--json", HF_TOKEN="hf_wrongwrongwrong", HF_ENDPOINT=server, HF_HUB_OFFLINE="0"))
    assert found["Hub"] == {"name": "Hub", "ok": None, "says": "the token is refused", "remedy": "hf auth login"}


@pytest.mark.long
def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "sessions").write_text("a file is in the way")
    shown = doctor(tmp_path, "--json")
    assert shown.returncode == 1
    assert checks(shown)["home"]["ok"] is False
    assert "--home" in checks(shown)["home"]["remedy"]


@pytest.mark.long
def test_gpus_that_are_asked_for_and_not_there(tmp_path: Path) -> None:
    if any(any(Path("/dev").glob(pattern)) for pattern in ("nvidia[0-9]*", "kfd", "dri/renderD*")):
        pytest.skip("this machine has one")
    assert checks(doctor(tmp_path, "--json"))["GPUs"]["ok"] is None
    wanted = checks(doctor(tmp_path, "--json", ML_INTERN_GPUS="1"))["GPUs"]
    assert wanted["ok"] is False
    assert "ML_INTERN_GPUS=0" in wanted["remedy"]
