"""Two processes: one works, the other looks, answers, steers and stops.

What must never happen: an answer counts twice, another user reaches anything, a client holds up a session.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_intern.cli.app import dispatch
from ml_intern.errors import InternError
from ml_intern.events import ApprovalAnswer
from ml_intern.gateways.peers import Peer, Running, find, peers, running
from ml_intern.gateways.sockets import socket_folder

WORKER = Path(__file__).with_name("worker.py")


class Worker:
    """The process that works."""

    def __init__(self, name: str, home: Path) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), name, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.id = self.process.stdout.readline().strip()

    def until(self, state: str) -> tuple[Peer, Running]:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for row in running(self.home):
                if row.state == state:
                    return find(self.home, row.id)
            time.sleep(0.05)
        raise AssertionError(f"never {state}: {running(self.home)}")

    def ends(self) -> str:
        """How the turn ended, once it has; the process ends after that."""
        said = self.process.communicate(timeout=60)[0].strip()
        assert self.process.returncode == 0
        return said


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    workers: list[Worker] = []

    def begin(name: str) -> Worker:
        workers.append(Worker(name, tmp_path / "home"))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def intern(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, in this process: it is another one than the worker's all the same."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = dispatch([*words, "--home", str(home)])
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@pytest.mark.long
def test_stopped_from_a_command_line_in_a_process_of_its_own(start) -> None:
    worker = start("never-ends")
    worker.until("running")
    started = time.monotonic()
    command = [sys.executable, "-m", "ml_intern", "stop", worker.id, "--home", str(worker.home)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert worker.ends().startswith("interrupted")
    assert time.monotonic() - started < 15


@pytest.mark.long
def test_a_call_is_refused_from_elsewhere_and_only_once(start) -> None:
    worker = start("publishes")
    peer, row = worker.until("waiting")
    assert row.questions[0].startswith("hub_push(")
    listed = intern(worker.home, "sessions")
    assert "waiting" in listed.stdout and "hub_push(" in listed.stdout
    [listed_row] = [json.loads(line) for line in intern(worker.home, "sessions", "--json").stdout.splitlines()]
    assert (listed_row["id"], listed_row["state"], listed_row["pid"]) == (worker.id, "waiting", worker.process.pid)

    unasked = intern(worker.home, "approve", worker.id[:6])
    assert unasked.returncode == 1, "nobody can be asked here"
    assert "README.md  12 bytes  sha256" in unasked.stdout and "--yes" in unasked.stderr
    [request] = peer.pending(worker.id)
    refused = intern(worker.home, "approve", worker.id[:6], "--reject", "not tonight")
    assert refused.returncode == 0, refused.stderr
    worker.until("denied")  # by then it is told who answered
    with pytest.raises(InternError, match=r"has been answered.*reject by .*approve command.*once"):
        peer.answer(worker.id, request.call_id, ApprovalAnswer("approve"))
    late = intern(worker.home, "approve", worker.id[:6], "--yes")
    assert late.returncode == 1 and "waits for nothing (its state is denied)" in late.stderr
    assert worker.ends().startswith("denied")
    rows = [json.loads(line) for line in (worker.home / "sessions" / f"{worker.id}.jsonl").read_text().splitlines()]
    [answered] = [row["data"] for row in rows if row.get("data", {}).get("kind") == "approval-answered"]
    assert "not tonight" in json.dumps(answered) and f"@{socket.gethostname()}" in json.dumps(answered)
    gone = intern(worker.home, "approve", worker.id[:6], "--yes")
    assert gone.returncode == 1 and "no one session" in gone.stderr


@pytest.mark.long
def test_of_many_answers_at_once_one_counts(start) -> None:
    worker = start("publishes")
    peer, row = worker.until("waiting")
    [request] = peer.pending(row.id)
    results: list[str] = []

    def answer(number: int) -> None:
        try:
            peer.answer(row.id, request.call_id, ApprovalAnswer("reject", f"number {number}", f"thread {number}"))
            results.append("counted")
        except InternError as error:
            results.append(str(error))

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("counted") == 1
    assert len(results) == 8
    assert worker.ends().startswith("denied")


def test_what_was_shown_before_somebody_edited_it_is_not_approved(start) -> None:
    worker = start("publishes")
    peer, row = worker.until("waiting")
    [before] = peer.pending(row.id)
    peer.answer(
        row.id, before.call_id, ApprovalAnswer("edit", arguments={**before.arguments, "repo_id": "me/other"}), before
    )
    end = time.monotonic() + 30
    while peer.pending(row.id) in ([], [before]) and time.monotonic() < end:
        time.sleep(0.05)
    [now] = peer.pending(row.id)
    assert now.call_id == before.call_id and now.arguments["repo_id"] == "me/other"
    with pytest.raises(InternError, match="asks something else by now"):
        peer.answer(row.id, before.call_id, ApprovalAnswer("approve"), before)
    peer.answer(row.id, now.call_id, ApprovalAnswer("reject", "no"), now)
    assert worker.ends().startswith("denied")


def test_a_question_is_answered_from_elsewhere(start) -> None:
    worker = start("asks")
    worker.until("waiting")
    shown = intern(worker.home, "approve", worker.id, "--yes")
    assert shown.returncode == 1 and "--text" in shown.stderr, "yes is no answer to a question"
    assert intern(worker.home, "approve", worker.id, "--text", "apache-2.0").returncode == 0
    assert worker.ends() == "success apache-2.0"


@pytest.mark.long
def test_steered_and_followed_from_elsewhere(start) -> None:
    worker = start("listens")
    peer, row = worker.until("running")
    assert intern(worker.home, "steer", worker.id[:8], "be quick").returncode == 0
    events = [event["event"] for event in peer.events(row.id)]
    assert events[0] == "session_started"
    assert "steered" in events
    assert events[-1] == "session_ended"
    assert worker.ends() == "success heard: True"


@pytest.mark.long
def test_what_a_killed_process_left_is_cleaned(start) -> None:
    worker = start("never-ends")
    peer, _ = worker.until("running")
    [advert] = (worker.home / "running").glob("*.json")
    assert advert.stat().st_mode & 0o077 == 0
    assert stat.S_IMODE(peer.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(peer.path.parent.stat().st_mode) == 0o700
    worker.process.send_signal(signal.SIGKILL)
    worker.process.wait()
    bystander = worker.home / "precious.sock"
    bystander.write_text("no socket of ours")
    forged = {**json.loads(advert.read_text()), "socket": str(bystander)}
    (worker.home / "running" / "forged.json").write_text(json.dumps(forged))
    (worker.home / "running" / "garbage.json").write_text("{")
    assert peers(worker.home) == []
    assert not advert.exists() and not peer.path.exists()
    assert bystander.exists()
    told = intern(worker.home, "stop", worker.id)
    assert told.returncode == 1 and "resume" in told.stderr


@pytest.mark.long
def test_garbage_and_silence_hold_up_nobody(start) -> None:
    worker = start("publishes")
    peer, row = worker.until("waiting")
    for line in (
        b"{\n",
        b"[]\n",
        b'{"op": "destroy"}\n',
        b'{"op": "answer"}\n',
        b'{"op": "answer", "session": "x"}\n',
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(peer.path))
            connection.sendall(line)
            assert json.loads(connection.makefile().readline())["ok"] is False
    for bad in ({"decision": "maybe"}, {"decision": "edit"}, {"decision": "approve", "scope": "for ever"}, {}):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(peer.path))
            asked = {"op": "answer", "session": row.id, "call": "x", "answer": bad}
            connection.sendall(json.dumps(asked).encode() + b"\n")
            assert json.loads(connection.makefile().readline())["ok"] is False
    silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    for connection in silent:
        connection.connect(str(peer.path))
    [request] = peer.pending(row.id)
    peer.answer(row.id, request.call_id, ApprovalAnswer("reject", "no"))
    assert worker.ends().startswith("denied")
    for connection in silent:
        connection.close()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_hung_up_on(start) -> None:
    """Even where the modes of folder and socket are opened by mistake."""
    worker = start("publishes")
    peer, row = worker.until("waiting")
    script = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1]);"
        'c.sendall(b\'{"op": "list"}\\n\'); print(repr(c.makefile().readline()))'
    )
    folder = peer.path.parent
    try:
        closed = subprocess.run([sys.executable, "-S", "-c", script, str(peer.path)], capture_output=True, text=True)
        assert closed.returncode != 0, "the folder keeps others out"
        folder.chmod(0o711)
        peer.path.chmod(0o666)
        opened = subprocess.run([sys.executable, "-S", "-c", script, str(peer.path)], capture_output=True, text=True)
        assert worker.id not in opened.stdout
    finally:
        folder.chmod(0o700)
    [request] = peer.pending(row.id)
    peer.answer(row.id, request.call_id, ApprovalAnswer("reject", "no"))
    worker.ends()


def test_the_folder_of_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = Path("/tmp") / f"mi-{os.getpid()}"
    private.mkdir(mode=0o700)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(private))
        assert socket_folder() == private / "ml-intern"
        (private / "ml-intern").chmod(0o755)
        with pytest.raises(InternError, match="chmod 700"):
            socket_folder()
        (private / "ml-intern").rmdir()
        (private / "ml-intern").symlink_to(tmp_path)
        with pytest.raises(InternError, match="not a folder of yours alone"):
            socket_folder()
        (private / "ml-intern").unlink()
        private.chmod(0o755)
        assert socket_folder().parent != private, "a folder that others can enter is not taken"
    finally:
        private.rmdir()
    long = tmp_path / ("x" * 80)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert len(os.fsencode(str(socket_folder() / "1234567-0123abcd.sock"))) < 108
