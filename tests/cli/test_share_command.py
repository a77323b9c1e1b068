"""`share` at the command line, against the local Hub with the unmodified client.

What must never happen: a data set becomes public that was not looked through, or without its name having been given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from ml_intern.cli.share import run
from ml_intern.errors import InternError
from ml_intern.testing import LocalHub

REPO = "alice/ml-intern-traces"
TRACE = "sessions/2026-01-15/00000000-2222-4333-8444-555555555555.jsonl"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub", {"hf_alice": "alice"}) as hub:
        yield hub


@pytest.fixture
def share(
    hub: LocalHub, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def share(action: str = "status", token: str | None = "hf_alice", **options: Any) -> tuple[int, str, str]:
        try:
            code, said = run(action, home=home, api=HfApi(endpoint=hub.url, token=token), **options), ""
        except InternError as error:
            code, said = 1, str(error)
        return code, capsys.readouterr().out, said

    monkeypatch.delenv("ML_INTERN_SHARE_TRACES")
    monkeypatch.chdir(home.parent)
    return share


@pytest.mark.long
def test_it_is_a_command(hub: LocalHub, home: Path) -> None:
    env = {**os.environ, **hub.environment("hf_alice"), "ML_INTERN_SHARE_TRACES": ""}
    command = [sys.executable, "-m", "ml_intern", "share", "status", "--home", str(home), "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["dataset"] == REPO and told["visibility"] == "none yet", done.stderr


def seed(hub: LocalHub, said: str = "hello") -> None:
    rows = [{"type": "user", "message": {"role": "user", "content": said}}, {"type": "assistant", "message": {}}]
    hub.seed(REPO, "dataset", {TRACE: "".join(json.dumps(row) + "\n" for row in rows).encode()}, private=True)


def visibility(hub: LocalHub) -> str:
    return hub.store.repos["dataset", REPO].visibility


def test_status_says_where_who_reads_what_is_pending_and_what_went_wrong(hub: LocalHub, home: Path, share) -> None:
    from ml_intern.trace.sharing_home import SharingHome

    code, out, _ = share()
    assert code == 0 and "Sessions are uploaded (the default)" in out and "made private with the first session" in out
    files = SharingHome(home)
    files.want(home / "sessions" / "one.jsonl")
    files.failed("one", "The trace was not uploaded (the Hub answered 500)\nIt lies at ...")
    seed(hub)
    assert share("off")[:2] == (0, "Sessions are not uploaded (share off).\n")
    code, out, _ = share("status")
    assert "not uploaded (share off)" in out and "only you" in out and "1 sessions, tried again" in out
    assert "the Hub answered 500" in out and "It lies" not in out
    code, out, _ = share("status", as_json=True, token="hf_wrong")
    told = json.loads(out)
    assert told["on"] is False and told["pending"] == ["one"] and "does not accept the token" in told["trouble"]
    assert share("on")[:2] == (0, "Sessions are uploaded (share on).\n")


def test_public_shows_all_looks_for_secrets_and_wants_the_name(hub: LocalHub, home: Path, share) -> None:
    from ml_intern.trace.sharing_home import SharingHome

    seed(hub, "see password = 'hunter2!' there")
    code, out, err = share("public")
    assert code == 1 and f"--confirm {REPO}" in err and visibility(hub) == "private"
    assert "1 sessions" in out and f"looks like a secret: {TRACE}, line 1: password" in out and "hunter2" not in out
    code, out, _ = share("public", confirm="alice/another")
    assert code == 4 and visibility(hub) == "private" and SharingHome(home).choice().public == ""
    code, out, err = share("public", confirm=REPO)
    assert code == 0 and visibility(hub) == "public" and SharingHome(home).choice().public == REPO, err
    assert "everybody" in share("status")[1]
    code, out, _ = share("private")
    assert code == 0 and visibility(hub) == "private" and SharingHome(home).choice().public == ""


def test_a_secret_that_is_known_here_is_never_made_public(hub: LocalHub, share, monkeypatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "value-of-mine-77")
    seed(hub, "the key is value-of-mine-77, as agreed")
    code, out, err = share("public", confirm=REPO)
    assert code == 1 and visibility(hub) == "private" and "secrets that this machine knows" in err
    assert f"secret: {TRACE}, line 1: MY_API_KEY" in out and "value-of-mine" not in out + err


def test_what_cannot_be_done_is_said(share) -> None:
    code, _, err = share("sideways")
    assert code == 1 and "status, on, off, public, private" in err
    code, _, err = share("private")
    assert code == 1 and "There is no alice/ml-intern-traces yet" in err
    code, _, err = share("public", token=None)
    assert code == 1 and "hf auth login" in err
