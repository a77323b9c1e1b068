"""The jails of a normal user, with the system's Python; and many jails, one after the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ml_intern
from ml_intern.execution import JailExecutor
from ml_intern.execution.jail import Jail

# The executor needs smolagents, which the system's Python need not have: this speaks with the worker directly.
PROGRAM = """
import json, os, select, sys, tempfile, time
from pathlib import Path
from ml_intern.execution.jail import Jail, Limits, find_jail, try_bubblewrap, try_landlock
from ml_intern.execution.gpus import find_gpus
from ml_intern.execution.process import WorkerProcess
MACHINE = sys.argv[1]

def wait(worker):
    while True:
        select.select([worker.replies], [], [], 10)
        for message in worker.receive():
            return message

result = {}
for kind, why in (("bubblewrap", try_bubblewrap()), ("landlock", try_landlock())):
    if why:
        result[kind] = why
        continue
    root = Path(tempfile.mkdtemp()).resolve()
    began = time.monotonic()
    worker = WorkerProcess(Jail(kind), root, Limits(processes=64), 1000, None)
    wait(worker)
    took = time.monotonic() - began
    code = '''
import os
def attempt(f):
    try: return str(f())
    except Exception as e: return type(e).__name__
def bomb():
    pids = []
    try:
        while len(pids) < 5000:
            pid = os.fork()
            if pid == 0:
                import time; time.sleep(30); os._exit(0)
            pids.append(pid)
    finally:
        for pid in pids: os.kill(pid, 9)
print("hello")
open("file", "w").write("mine")
[attempt(lambda: open("/etc/passwd").read()), attempt(lambda: os.listdir("/var")), attempt(lambda: os.kill(%d, 9)),
 attempt(lambda: open("/usr/x", "w")), attempt(lambda: __import__("socket").create_connection(("127.0.0.1", 9), 1)), attempt(bomb)]
''' % os.getpid()
    worker.capture.begin("m" * 32)
    worker.send({"op": "run", "n": 1, "code": code, "mark": "m" * 32})
    done = wait(worker)
    worker.capture.wait(5)
    result[kind] = [done.get("value", done), worker.capture.text(), (root / "file").read_text(), took]
    worker.kill()
    worker.close()
    root = Path(tempfile.mkdtemp()).resolve()
    devices = find_gpus(Path(MACHINE)) if os.path.exists(MACHINE + "/dev") else None
    worker = WorkerProcess(Jail(kind), root, Limits(disk_bytes=20 << 20), 1000, None, gpus=devices)
    wait(worker)
    seen = None
    if devices:
        node = ("" if kind == "bubblewrap" else MACHINE) + "/dev/nvidia0"
        worker.send({"op": "run", "n": 1, "code": "open(%r, 'r+b', buffering=0).read(3)" % node, "mark": "m" * 32})
        seen = str(wait(worker).get("value"))
    code = "import time\\nf = open('big', 'wb')\\nwhile True: f.write(b'x' * 100_000), time.sleep(0.001)"
    worker.send({"op": "run", "n": 2, "code": code, "mark": "m" * 32})
    try:
        wait(worker)
    except EOFError:
        pass
    worker.kill()
    result[kind] += [worker.why_killed, seen]
    worker.close()
print(json.dumps([os.getuid(), find_jail().kind, result]))
"""


@pytest.fixture
def readable_source() -> Iterator[Path]:
    """The package where any user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="ml-intern-test-", dir="/tmp"))
    package = Path(ml_intern.__file__).parent
    (folder / "ml_intern").mkdir()
    for name in ("__init__.py", "errors.py", "events.py"):
        shutil.copy(package / name, folder / "ml_intern" / name)
    shutil.copytree(
        package / "execution", folder / "ml_intern" / "execution", ignore=shutil.ignore_patterns("__pycache__")
    )
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="becoming another user takes root"
)
def test_a_normal_user_has_both_jails(readable_source: Path) -> None:
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True
    )
    if version.stdout.strip() != "True":
        pytest.skip("the system's Python is older than 3.11")
    has_devices = stand_ins(readable_source / "dev")
    run = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", PROGRAM, str(readable_source)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(readable_source), "HOME": "/nonexistent", "TMPDIR": f"{readable_source}/tmp"},
        cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    import json

    uid, best, results = json.loads(run.stdout)
    assert uid == 65534
    print(best, results)
    for kind, outcome in results.items():
        if isinstance(outcome, str):
            print(f"{kind}: {outcome}")
            continue
        refusals, output, written, took, why_killed, seen = outcome
        assert why_killed.startswith("disk: its files take "), kind
        assert seen == ("{'$': 'bytes', 'v': 'AAAA'}" if has_devices else "None"), kind
        assert output == "hello\n"
        assert written == "mine"
        assert set(refusals) <= {
            "FileNotFoundError",
            "PermissionError",
            "ProcessLookupError",
            "OSError",
            "ConnectionRefusedError",
            "BlockingIOError",
        }, kind
        assert refusals[-1] == "BlockingIOError", "the fork bomb is cut off"
        assert took < 2
    assert any(isinstance(outcome, list) for outcome in results.values())


def stand_ins(folder: Path) -> bool:
    """What looks like a GPU, where devices can be made; it reads as `/dev/zero` does."""
    folder.mkdir()
    try:
        for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
            os.mknod(folder / name, 0o20666, os.makedev(1, 5))
            (folder / name).chmod(0o666)
        (folder / "nvidia0").open("rb").close()
    except PermissionError:
        shutil.rmtree(folder)
        return False
    return True


def leftovers() -> tuple[set[str], set[str]]:
    mine = str(os.getpid())
    children = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == mine and fields[0] != "Z":
            children.add(path.parent.name)
    return children, {p.name for p in Path(tempfile.gettempdir()).glob("ml-intern-*")}


def host_memory() -> int:
    """Bytes that are this process's own."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@pytest.mark.long
@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.soak)])
@pytest.mark.parametrize("forget", [False, True], ids=["cleaned up", "forgotten"])
def test_many_jails_leave_nothing_behind(
    jail: Jail, forget: bool, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other test runs use the common one

    def one() -> None:
        executor = JailExecutor(jail=jail)
        assert executor("1 + 1").output == 2
        if not forget:
            executor.cleanup()

    for _ in range(3):
        one()
    before, handles = leftovers(), len(list(Path("/proc/self/fd").iterdir()))
    threads, memory, began = threading.active_count(), host_memory(), time.monotonic()
    for _ in range(count):
        one()
    grown = host_memory() - memory
    print(f"\n{count} jails in {time.monotonic() - began:.1f} s; the host grew by {grown / 2**20:.2f} MB")
    assert leftovers() == before
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles
    assert threading.active_count() <= threads
    assert grown < 4 << 20


@pytest.mark.long
def test_a_host_that_just_ends_leaves_nothing_behind(jail: Jail) -> None:
    program = f"from ml_intern.execution import JailExecutor\nfrom ml_intern.execution.jail import Jail\n"  # noqa: F541
    program += (
        f"e = JailExecutor(jail=Jail({jail.kind!r}))\ne('1')\nprint(e.workspace.root, e._shelter.worker.process.pid)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    root, pid = run.stdout.split()
    assert run.stderr == ""
    assert not Path(root).exists()
    assert not Path("/proc", pid).exists()
