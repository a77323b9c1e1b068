"""Jobs that outlive whoever started them, and leave nothing behind when they are told to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ml_intern.execution import jobs as jobs_module
from ml_intern.execution.jail import Jail, try_bubblewrap, try_landlock
from ml_intern.execution.job_log import JobLog
from ml_intern.execution.jobs import JobError, LocalJobs
from ml_intern.execution.workspace import Workspace
from ml_intern.testing import LocalHub

KINDS = {"bubblewrap": try_bubblewrap, "landlock": try_landlock}
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("daemon.pid", "w").write("there")
        while True:
            open("beat", "a").write(".")
            time.sleep(0.05)
    os._exit(0)
while not os.path.exists("daemon.pid"):
    time.sleep(0.01)
print("daemon", flush=True)
time.sleep({seconds})
"""


@pytest.fixture(params=["bubblewrap", pytest.param("landlock", marks=pytest.mark.soak)])
def jail(request):
    """All of it in the one, in the other a sample: see the last test."""
    if why := KINDS[request.param]():
        pytest.skip(f"{request.param}: {why}")
    return Jail(request.param)


@pytest.fixture
def executor(make, jail, tmp_path):
    return make(workspace=Workspace(tmp_path / "workspace"), jail=jail, network="none")


@pytest.fixture
def jobs(executor, tmp_path):
    made = LocalJobs(executor, tmp_path / "jobs")
    yield made
    made.stop_all()


def until(condition, seconds=20.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)


def grows(path):
    size = path.stat().st_size
    time.sleep(0.4)
    return path.stat().st_size > size


def in_workspace(jobs, name, text):
    jobs._executor.workspace.write_bytes(name, text.encode())


class TestSealed:
    """What is measured is what was given: nobody in the jail changes it. What runs alone tells nobody else anything."""

    def test_a_sealed_folder_is_read_and_never_changed(self, jobs, tmp_path):
        (sealed := tmp_path / "given").mkdir()
        (sealed / "weights").write_bytes(b"good")
        sealed.chmod(0o755)
        tries = """import os, pathlib, sys
place = pathlib.Path(sys.argv[1])
print(place.joinpath("weights").read_text())
for name, change in {
    "write": lambda: place.joinpath("weights").write_text("bad"), "add": lambda: place.joinpath("more").write_text("x"),
    "remove": lambda: place.joinpath("weights").unlink(),
    "rename": lambda: place.rename(f"{place}2"), "link": lambda: os.link(place / "weights", "linked"),
}.items():
    try:
        change()
        print("CHANGED BY", name)
    except OSError:
        pass
"""
        in_workspace(jobs, "tries.py", tries)
        jobs.start("a", ["python", "tries.py", jobs.inside(sealed)], seconds=20, sealed=sealed)
        assert jobs.wait("a", 20)["state"] == "done", jobs.logs("a")
        assert jobs.logs("a")[0].split() == ["good"]
        assert (sealed / "weights").read_bytes() == b"good" and list(sealed.iterdir()) == [sealed / "weights"]

    def test_alone_it_has_what_it_was_given_and_nothing_else(self, jobs):
        in_workspace(jobs, "mine.txt", "of the workspace")
        program = f"""import glob, os, socket, sys
print(open(sys.argv[1]).read(), os.listdir("."))
for ways in {(str(jobs.workspace.root), "/workspace")!r}, ("/proc/1/root/workspace",):
    print([name for way in ways for name in glob.glob(way + "/mine*")])
open("/tmp/left", "w").write("x"), open("left", "w").write("x")
try:
    socket.create_connection(("127.0.0.1", int(os.environ.get("HTTPS_PROXY", ":3128").rsplit(":", 1)[-1].strip("/"))), 1)
    print("CONNECTED")
except OSError:
    print("none")
""".replace("/tmp/left", "/tmp/left" if jobs._executor.jail == "bubblewrap" else "left2")
        status, said = jobs.alone({"labels": b"secret"}, ["python", "-c", program, "{sealed}/labels"], 20)
        assert status["state"] == "done" and said.splitlines() == ["secret []", "[]", "[]", "none"], said
        assert jobs.list() == [] and not any("left" in name for name in jobs.workspace.walk())

    def test_alone_it_ends_in_time_and_leaves_nothing(self, jobs, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(jobs_module.tempfile, "tempdir", None)
        before = set(tmp_path.iterdir())
        status, said = jobs.alone({}, ["python", "-c", "import time; print('on', flush=True); time.sleep(60)"], 1)
        assert status["state"] == "timeout" and said.strip() == "on"
        assert set(tmp_path.iterdir()) == before

    def test_nothing_runs_alone_where_there_is_no_jail(self, make, tmp_path):
        bare = LocalJobs(make(workspace=Workspace(tmp_path / "workspace"), jail=Jail("none"), network="none"))
        with pytest.raises(JobError, match="Nothing runs alone here"):
            bare.alone({}, ["python", "-c", ""], 1)


class TestARun:
    def test_it_runs_in_the_workspace_and_its_words_and_exit_are_known(self, jobs):
        in_workspace(
            jobs, "sub/train.py", "import os, sys\nprint(os.getcwd(), os.environ['X'], sys.argv[1:])\nopen('out', 'w')"
        )
        jobs.start("one", ["python", "train.py", "--a", "ü"], cwd="sub", seconds=60, variables={"X": "y"})
        status = jobs.wait("one", 30)
        text, end = jobs.logs("one")
        assert status["state"] == "done" and status["exit_code"] == 0 and status["ended"] >= status["started"], text
        assert "sub y ['--a', 'ü']" in text and end == len(text.encode())
        assert jobs._executor.workspace.exists("sub/out")
        assert jobs.list() == ["one"]

    def test_a_failure_is_one_with_its_status_and_what_it_said(self, jobs):
        jobs.start("bad", ["python", "-c", "import sys; print('so'); sys.exit('CUDA out of memory')"], seconds=60)
        assert jobs.wait("bad", 30) | {"started": 0, "ended": 0, "peak_memory_bytes": 0} == {
            "state": "failed", "exit_code": 1, "started": 0, "ended": 0, "peak_memory_bytes": 0, "why": "",
        }  # fmt: skip
        assert jobs.logs("bad")[0] == "so\nCUDA out of memory\n"

    def test_a_program_that_is_not_there_says_so(self, jobs):
        jobs.start("none", ["no-such-program"], seconds=60)
        assert jobs.wait("none", 30)["state"] == "failed"
        assert "did not start" in jobs.logs("none")[0]

    def test_a_name_runs_once(self, jobs):
        for _ in range(3):
            jobs.start("once", ["python", "-c", "open('ran', 'a').write('x')"], seconds=60)
        jobs.wait("once", 30)
        jobs.start("once", ["python", "-c", "open('ran', 'a').write('y')"], seconds=60)
        assert jobs._executor.workspace.read_bytes("ran") == b"x"

    def test_it_reaches_nothing_that_the_session_cannot_reach(self, jobs, tmp_path, monkeypatch):
        """Not its own state, not the host's files, not the host's secrets."""
        monkeypatch.setenv("HF_TOKEN", "planted-secret")
        look = (
            "import os, sys\n"
            f"for path in ({str(tmp_path / 'jobs')!r}, {str(tmp_path)!r}, '/etc/shadow', {str(Path(__file__).parent)!r}):\n"
            "    try:\n        os.listdir(path) if not path.endswith('shadow') else open(path)\n        print('REACHED', path)\n"
            "    except OSError as error:\n        print('closed')\n"
            "text = ''\n"
            "for pid in range(1, 40000):\n"
            "    try:\n        text += open(f'/proc/{pid}/environ').read()\n    except OSError:\n        pass\n"
            "print('SECRET' if 'planted' in text + str(os.environ) else 'no secret')\n"
        )
        in_workspace(jobs, "look.py", look)
        jobs.start("look", ["python", "look.py"], seconds=60)
        assert jobs.wait("look", 30)["state"] == "done", jobs.logs("look")[0]
        assert "REACHED" not in jobs.logs("look")[0] and "SECRET" not in jobs.logs("look")[0]
        assert "planted-secret" not in Path(tmp_path, "jobs", "look", "order.json").read_text()


class TestItsEnd:
    def test_stop_leaves_nothing_behind_not_even_daemons(self, jobs, executor):
        in_workspace(jobs, "daemon.py", DAEMON.format(seconds=600))
        jobs.start("d", ["python", "daemon.py"], seconds=600)
        beat = executor.workspace.root / "beat"
        until(lambda: beat.exists() and grows(beat))
        jobs.stop("d")
        assert jobs.status("d")["state"] == "stopped"
        assert not grows(beat)
        jobs.stop("d")  # twice is no error

    def test_the_end_of_the_program_is_the_end_of_its_daemons(self, jobs, executor):
        in_workspace(jobs, "daemon.py", DAEMON.format(seconds=0))
        jobs.start("d", ["python", "daemon.py"], seconds=600)
        assert jobs.wait("d", 30)["state"] == "done"
        assert not grows(executor.workspace.root / "beat")

    def test_its_time_is_kept(self, jobs):
        jobs.start("slow", ["python", "-c", "import time; time.sleep(600)"], seconds=0.5)
        status = jobs.wait("slow", 30)
        assert status["state"] == "timeout" and status["exit_code"] is None and "0.5 seconds" in status["why"]

    def test_memory_that_all_use_together_is_bounded(self, make, jail, tmp_path):
        executor = make(workspace=Workspace(tmp_path / "w"), jail=jail, network="none", memory_bytes=200 << 20)
        jobs = LocalJobs(executor, tmp_path / "jobs")
        code = "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(90 << 20)\nx[::4096] = b'1' * len(x[::4096])\ntime.sleep(60)"
        jobs.start("big", ["python", "-c", code], seconds=120)
        status = jobs.wait("big", 60)
        assert status["state"] == "failed" and status["why"].startswith("memory:"), jobs.logs("big")[0]
        assert status["peak_memory_bytes"] > 200 << 20

    def test_its_keeper_killed_is_the_end_of_the_job_and_it_is_lost(self, jobs, executor, tmp_path):
        in_workspace(jobs, "daemon.py", DAEMON.format(seconds=600))
        jobs.start("d", ["python", "daemon.py"], seconds=600)
        beat = executor.workspace.root / "beat"
        until(lambda: beat.exists() and grows(beat))
        os.kill(keeper_of(tmp_path / "jobs" / "d"), signal.SIGKILL)
        until(lambda: jobs.status("d")["state"] == "lost")
        until(lambda: not grows(beat))
        jobs.start("d", ["python", "daemon.py"], seconds=600)  # and it is not started again
        assert jobs.status("d")["state"] == "lost"

    def test_it_ends_when_its_session_is_deleted(self, jobs, executor, tmp_path):
        in_workspace(jobs, "daemon.py", DAEMON.format(seconds=600))
        jobs.start("d", ["python", "daemon.py"], seconds=600)
        beat = executor.workspace.root / "beat"
        until(lambda: beat.exists() and grows(beat))
        (tmp_path / "jobs").rename(tmp_path / "gone")
        until(lambda: not grows(beat))


def keeper_of(folder):
    found = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(folder).encode() in _cmdline(path) and b"job_keeper" in _cmdline(path)
    ]
    assert len(found) == 1
    return found[0]


def _cmdline(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


STARTS_AND_DIES = """
import os, signal, sys
from pathlib import Path
from ml_intern.execution import JailExecutor, Workspace
from ml_intern.execution.jobs import LocalJobs
folder = Path(sys.argv[1])
executor = JailExecutor(Workspace(folder / "workspace"), network="none")
executor("print(1)")
LocalJobs(executor, folder / "jobs").start("j", ["python", "train.py"], seconds=120)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
def test_it_outlives_the_host_and_is_found_again(tmp_path, make):
    workspace = Workspace(tmp_path / "workspace")
    code = "import time\nprint('begun', flush=True)\nwhile not __import__('os').path.exists('go'): time.sleep(0.05)\nprint('end')"
    workspace.write_bytes("train.py", code.encode())
    died = subprocess.run([sys.executable, "-c", STARTS_AND_DIES, str(tmp_path)], check=False, timeout=100)
    assert died.returncode == -signal.SIGKILL
    jobs = LocalJobs(make(workspace=workspace, network="none"), tmp_path / "jobs")
    assert jobs.list() == ["j"] and jobs.status("j")["state"] == "running"
    workspace.write_bytes("go", b"")
    assert jobs.wait("j", 30)["state"] == "done"
    assert jobs.logs("j")[0] == "begun\nend\n"


@pytest.mark.long
def test_one_that_nobody_could_find_again_ends_with_its_host(tmp_path):
    code = STARTS_AND_DIES.replace(', folder / "jobs")', ")").replace(
        '["python", "train.py"]', '["python", "beat.py"]'
    )
    workspace = Workspace(tmp_path / "workspace")
    beat = "import time\nwhile True:\n    open('beat', 'a').write('.')\n    time.sleep(0.05)\n"
    workspace.write_bytes("beat.py", beat.encode())
    code = code.replace(
        "os.kill(", "import time\nwhile not (folder / 'workspace' / 'beat').exists(): time.sleep(0.01)\nos.kill("
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=100)
    assert died.returncode == -signal.SIGKILL
    until(lambda: not grows(tmp_path / "workspace" / "beat"))


@pytest.mark.long
def test_what_runs_alone_ends_with_its_host_and_what_it_was_given_goes_with_it(tmp_path):
    start, end = STARTS_AND_DIES.split("LocalJobs(")[0], "import time, threading\n"
    end += """command = ["python", "-c", "import time; time.sleep(100)"]
threading.Thread(target=LocalJobs(executor).alone, args=({"labels": b"secret"}, command, 90), daemon=True).start()
while not list((folder / "tmp").glob("ml-intern-jobs-*/alone/status.json")):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "tmp").mkdir()
    died = subprocess.run(
        [sys.executable, "-c", start + end, str(tmp_path)], check=False, timeout=100,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL
    until(lambda: not list((tmp_path / "tmp").glob("ml-intern-jobs-*")))


def test_a_job_reads_the_public_hub_through_its_keeper(tmp_path, make, monkeypatch):
    with LocalHub(tmp_path / "hub") as hub:
        hub.seed("acme/tiny", "model", {"config.json": b'{"layers": 2}'})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        _read_the_hub(tmp_path, make)
        assert not any("authorization" in {name.lower() for name in request.headers} for request in hub.requests)


def _read_the_hub(tmp_path, make):
    executor = make(workspace=Workspace(tmp_path / "workspace"))
    if executor.network != "hub":
        pytest.skip("this jail has no network")
    jobs = LocalJobs(executor, tmp_path / "jobs")
    code = "import os, urllib.request as r; print(r.urlopen(os.environ['HF_ENDPOINT'] + '/api/models').status)"
    jobs.start("net", ["python", "-c", code], seconds=60)
    jobs.wait("net", 30)
    assert "200" in jobs.logs("net")[0], jobs.logs("net")[0]
    jobs.start("other", ["python", "-c", "import urllib.request as r; r.urlopen('http://example.com')"], seconds=60)
    jobs.wait("other", 30)
    assert "403" in jobs.logs("other")[0], jobs.logs("other")[0]


@pytest.mark.long
def test_too_many_at_once_are_refused(jobs, monkeypatch):
    sleep = ["python", "-c", "import time; time.sleep(600)"]
    for number in range(jobs_module.MOST_RUNNING):
        jobs.start(f"j{number}", sleep, seconds=600)
    with pytest.raises(JobError, match="4 run already: j0"):
        jobs.start("more", sleep, seconds=600)
    jobs.stop("j0")
    jobs.start("more", sleep, seconds=600)


def test_an_agent_of_its_own_takes_its_jobs_with_it(make):
    executor = make(network="none")
    jobs = LocalJobs(executor)
    jobs.start("j", ["python", "-c", "import time; open('there', 'w'); time.sleep(600)"], seconds=600)
    folder = jobs._temporary
    until(lambda: executor.workspace.exists("there"))
    keeper = keeper_of(folder / "j")
    jobs.close()
    assert not folder.exists()
    until(lambda: not _cmdline(Path("/proc", str(keeper), "cmdline")))
    assert jobs.list() == []


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "x" * 200])
def test_a_name_leads_nowhere_else(jobs, name):
    with pytest.raises(JobError, match="no name"):
        jobs.status(name)


class TestTheLog:
    def test_it_reads_on_where_it_left_off_without_breaking_a_character(self, tmp_path):
        log = JobLog(tmp_path)
        whole = "aü€😀\n" * 300
        for at in range(0, len(whole.encode()), 7):
            log.append(whole.encode()[at : at + 7])
        for limit in (1, 5, 64, 100_000):
            text, offset = "", 0
            while True:
                piece, then = log.read(offset, limit)
                if then == offset:
                    break
                text, offset = text + piece, then
            assert text == whole if limit >= 4 else text
        assert log.read(-5, 100)[0] == "😀\n"

    def test_a_character_in_two_pieces_of_the_log_is_whole_and_nothing_is_left_out(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ml_intern.execution.job_log.SEGMENT_BYTES", 1000)
        log = JobLog(tmp_path)
        whole = "a€😀ü\n" * 500
        for at in range(0, len(whole.encode()), 7):
            log.append(whole.encode()[at : at + 7])
        assert len(list(tmp_path.glob("log.*"))) > 3
        for limit in (64, 999, 1001, 100_000):  # pages that end within a character, too
            text, offset = "", 0
            while (found := log.read(offset, limit))[1] != offset:
                text, offset = text + found[0], found[1]
            assert text == whole, limit

    def test_of_a_long_one_beginning_and_end_are_kept(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ml_intern.execution.job_log.SEGMENT_BYTES", 1000)
        monkeypatch.setattr("ml_intern.execution.job_log.SEGMENTS", 4)
        log = JobLog(tmp_path)
        for number in range(2000):
            log.append(f"line {number:06d}\n".encode())
        text, end = log.read(0, 1_000_000)
        assert text.startswith("line 000000\n") and text.endswith("line 001999\n") and end == 24_000
        assert "bytes of the log were not kept" in text and len(text) < 6_000
        assert log.read(12_000, 10)[0].startswith("\n(")


def test_what_is_known_of_it_is_plain_data(jobs):
    jobs.start("one", ["true"], seconds=60)
    json.dumps(jobs.wait("one", 30))


def test_without_namespaces_too_stop_leaves_nothing_behind(make, tmp_path):
    if why := try_landlock():
        pytest.skip(f"landlock: {why}")
    executor = make(workspace=Workspace(tmp_path / "workspace"), jail=Jail("landlock"), network="none")
    jobs = LocalJobs(executor, tmp_path / "jobs")
    TestItsEnd().test_stop_leaves_nothing_behind_not_even_daemons(jobs, executor)
