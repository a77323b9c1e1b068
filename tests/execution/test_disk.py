"""A session cannot fill the disk: however it writes, it is ended in time, told why, and goes on with its files.

What must never happen: a disk full for others, a session that cannot even remove its files, a watch that costs a core.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_intern.execution import WorkerLost, Workspace
from ml_intern.execution.disk import ENTRY_BYTES, REST_SECONDS, Bounds, Disk, Room, System
from ml_intern.execution.jail import Jail

MB, GB = 1 << 20, 1 << 30
WRITERS = {
    "many files": "n = 0\nwhile True:\n    n += 1\n    with open(f'f{n}', 'wb') as f: f.write(b'x' * 100_000)\n    time.sleep(0.0005)",
    "one growing file": "f = open('big', 'wb')\nwhile True:\n    f.write(b'x' * 100_000)\n    time.sleep(0.0005)",
    "empty folders": "n = 0\nwhile True:\n    n += 1\n    os.mkdir(f'd{n}')\n    time.sleep(0.0005)",
    "a file without a name": "f = open('gone', 'wb')\nos.unlink('gone')\nwhile True:\n    f.write(b'x' * 100_000)\n    time.sleep(0.0005)",
    "a closed folder": "os.mkdir('d')\nos.chdir('d')\nf = open('big', 'wb')\nos.chmod('.', 0)\n"
    "while True:\n    f.write(b'x' * 100_000)\n    time.sleep(0.0005)",
    "what is saved between actions": "import pathlib\nf = open(pathlib.Path(PLACE, 'big'), 'wb')\nwhile True:\n    f.write(b'x' * 100_000)\n"
    "    time.sleep(0.0005)",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("writer", WRITERS)
def test_a_runaway_writer_is_ended_and_the_session_goes_on(make, jail: Jail, writer: str, tmp_path: Path) -> None:
    limit = 4 if "folders" in writer else 10
    executor = make(jail=jail, disk_bytes=limit * MB, snapshots=tmp_path / "snapshots")
    executor("import os, time\nopen('kept', 'w').write('mine')")
    place = "/snapshots" if jail.kind == "bubblewrap" else str(tmp_path / "snapshots")
    with pytest.raises(
        WorkerLost, match=rf"use of disk: its files take \d+ MB, more than the {limit} MB .* Remove what"
    ):
        executor("print('before')\n" + WRITERS[writer].replace("PLACE", repr(place)))
    assert executor.state["_print_outputs"].endswith("before\n")
    assert executor.workspace.read_bytes("kept") == b"mine"
    # Over the limit it can still work and clean up, only not grow.
    clean = "import os, shutil\nfrom pathlib import Path\nfor p in Path('.').iterdir():\n    if p.name == 'kept': continue\n"
    clean += (
        "    p.is_dir() and os.chmod(p, 0o700)\n    shutil.rmtree(p) if p.is_dir() else p.unlink()\nos.listdir('.')"
    )
    assert executor(clean).output == ["kept"]
    time.sleep(0.6)
    assert executor("Path('new').write_bytes(b'x' * 2_000_000)").output == 2_000_000


def test_a_child_that_writes_after_its_action_ended(make, jail: Jail) -> None:
    executor = make(jail=jail, disk_bytes=30 * MB)
    child = "f = open('big', 'wb')\\nimport time\\nwhile True: f.write(b'x' * 100_000), time.sleep(0.0005)"
    executor(f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', \"{child}\"])\nkept = 1")
    size, big = -1, executor.workspace.root / "big"
    for _ in range(100):
        time.sleep(0.2)
        if not big.exists():  # it has not begun yet
            continue
        before, size = size, big.stat().st_size
        if size == before:
            break
    assert 30 * MB < size < 600 * MB
    output = executor("kept")
    assert output.output == 1
    assert "ended after the last action: it was killed for its use of disk" in output.logs


def test_over_its_limit_it_may_not_grow(make, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 40 * MB)
    executor = make(workspace=Workspace(tmp_path), disk_bytes=30 * MB)
    assert executor("import time\nopen('note', 'w').write('x')\ntime.sleep(0.8)\n1").output == 1
    with pytest.raises(WorkerLost, match="use of disk"):
        executor("open('more', 'wb').write(b'x' * 2_000_000)\ntime.sleep(5)")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB, of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_the_last_of_a_disk_is_not_touched(make, jail: Jail, small: Path) -> None:
    executor = make(jail=jail, workspace=Workspace(small / "work"))
    with pytest.raises(WorkerLost, match=r"use of disk: only \d+ MB are left on this machine's disk, and"):
        executor("import time\nf = open('big', 'wb')\nwhile True:\n    f.write(b'x' * 100_000)\n    time.sleep(0.005)")
    with pytest.raises(WorkerLost, match="use of disk: only"):
        executor("import time\nf = open('more', 'wb')\nwhile True:\n    f.write(b'x' * 100_000)\n    time.sleep(0.1)")
    assert executor("import os\nos.unlink('big')\nos.listdir('.')").output == ["more"]
    time.sleep(0.5)
    assert executor("open('new', 'wb').write(b'x' * 20_000_000)").output == 20_000_000


def room(free: int, files: float = 1.0, whole: int = 500 * GB) -> Room:
    return Room({1: System(free, whole, files)})


@pytest.mark.parametrize(
    ("start", "now", "before", "used", "why"),
    [
        (room(90 * GB), room(80 * GB), 0, 10 * GB, ""),
        (room(90 * GB), room(39 * GB), 0, 51 * GB, "its files take 51.0 GB, more than the 50.0 GB"),
        (room(90 * GB), room(90 * GB), 60 * GB, 60 * GB, ""),
        (room(90 * GB), room(88 * GB), 60 * GB, 62 * GB, "its files take"),
        (room(20 * GB), room(GB // 2), 0, 19 * GB, "only 512 MB are left"),
        (room(20 * GB), room(GB // 2), 0, 10 * MB, ""),  # somebody else wrote
        (room(400 * GB), room(19 * GB), 0, 40 * GB, "only 19.0 GB are left"),  # a twentieth
        (room(900 * MB), room(890 * MB), 0, 10 * MB, ""),
        (room(900 * MB), room(800 * MB), 0, 100 * MB, "only 800 MB are left"),
        (room(60 * MB, whole=64 * MB), room(40 * MB, whole=64 * MB), 0, 20 * MB, ""),  # small as a whole
        (room(60 * MB, whole=64 * MB), room(9 * MB, whole=64 * MB), 0, 51 * MB, "only 9 MB are left"),
        (room(90 * GB, 0.9), room(89 * GB, 0.04), 0, 1 * GB, "only 4.0% of the files"),
    ],
)
def test_what_is_too_much(start: Room, now: Room, before: int, used: int, why: str) -> None:
    said = Bounds(50 * GB, GB, start).excess(used, before, now)
    assert said.startswith(why) and bool(said) == bool(why)


def test_when_the_disk_is_all_but_full_whoever_may_have_filled_it_ends() -> None:
    bounds = Bounds(50 * GB, GB, room(20 * GB))
    assert not bounds.emergency(room(GB * 3 // 4))
    assert "only 400 MB are left" in bounds.emergency(room(400 * MB))
    assert not Bounds(50 * GB, GB, room(410 * MB)).emergency(room(400 * MB)), "it was so before"


def walked(root: Path) -> Disk:
    disk = Disk([root], 50 * GB, GB)
    ends = time.monotonic() + 20
    while disk.before < 0 and time.monotonic() < ends:
        disk.look()
    return disk


def test_what_counts(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_bytes(b"x" * MB)
    for name in ("second", "sub/third"):
        os.link(tmp_path / "file", tmp_path / name)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "link").symlink_to("/usr")
    (tmp_path / "up").symlink_to("..")
    os.mkfifo(tmp_path / "fifo")
    assert MB <= walked(tmp_path).used < MB + 100_000


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "big").write_bytes(b"x" * MB)
    from ml_intern.execution.disk import Walked, walk

    found = Walked()
    steps = walk([tmp_path / "work"], found)
    next(steps)  # it has read of `sub`
    (tmp_path / "work" / "sub").rmdir()
    (tmp_path / "work" / "sub").symlink_to(tmp_path / "outside")
    assert list(steps) == []
    assert found.used < 100_000
    assert found.closed


def test_a_path_too_long_to_walk_hides_nothing(make, jail: Jail) -> None:
    executor = make(jail=jail, disk_bytes=30 * MB)
    with pytest.raises(WorkerLost, match="use of disk"):
        executor("import os, time\nfor _ in range(30):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n"
                 "f = open('big', 'wb')\nwhile True:\n    f.write(b'x' * 100_000)\n    time.sleep(0.0005)")  # fmt: skip


def populate(root: Path, count: int) -> None:
    for number in range(count):
        if number % 1000 == 0:
            folder = root / str(number)
            folder.mkdir()
        os.close(os.open(folder / str(number), os.O_WRONLY | os.O_CREAT))


COST = """
import sys, time
from pathlib import Path
from ml_intern.execution.disk import Disk
disk = Disk([Path(sys.argv[1])], 50 << 30, 1 << 30)
began, used, walks, ended = time.monotonic(), time.process_time(), 0, 0.0
while time.monotonic() - began < float(sys.argv[2]):
    time.sleep(0.25)
    assert disk.look() == ""
    walks, ended = walks + (disk._ended != ended), disk._ended
print((time.process_time() - used) / (time.monotonic() - began), walks, disk.used)
"""


def cost(root: Path, seconds: float) -> tuple[float, int, int]:
    """Part of a core that watching takes, after its first second is written off, and how often it got through."""
    run = subprocess.run(
        [sys.executable, "-c", COST, str(root), str(seconds)], capture_output=True, text=True, check=True
    )
    share, walks, used = run.stdout.split()
    print(f"\nwatching cost {float(share):.2%} of a core, {walks} walks in {seconds} s")
    return float(share), int(walks), int(used)


def test_watching_costs_little(tmp_path: Path) -> None:
    populate(tmp_path, 2_000)
    share, walks, used = cost(tmp_path, 5.0)
    assert used > 2_000 * ENTRY_BYTES
    assert 2 <= walks <= 5.0 / REST_SECONDS + 1
    assert share < 0.02


@pytest.mark.soak
def test_watching_200_000_files_costs_little(tmp_path: Path) -> None:
    populate(tmp_path, 200_000)
    share, walks, used = cost(tmp_path, 100.0)
    assert used > 200_000 * ENTRY_BYTES
    assert walks >= 1
    assert share < 0.02


def test_a_worker_that_ends_in_the_middle_of_a_walk_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(tmp_path, 3_000)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr("ml_intern.execution.disk.START_SECONDS", 0.0005)
    disk = Disk([tmp_path], 50 * GB, GB)
    assert disk.before < 0
    disk.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert disk.look() == ""


def test_as_a_normal_user() -> None:
    """What code closes to its own user is closed to the host as well, and hides nothing all the same."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root; the tests above run as a normal one")
    folder = Path(tempfile.mkdtemp(prefix="ml-intern-test-", dir="/tmp"))
    os.chown(folder, 65534, 65534)
    program = f"""
    import os, sys, time
    sys.path[:0] = {[*sys.path, str(Path(__file__).parents[2])]!r}
    from pathlib import Path
    from ml_intern.execution.disk import Disk
    os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    root = Path({str(folder)!r})
    disk = Disk([root], 30 << 20, 1 << 30)
    assert disk.look() == ""
    (root / "d").mkdir()
    file = (root / "d" / "big").open("wb")
    (root / "d").chmod(0)
    for _ in range(400):
        file.write(b"x" * 200_000)
        file.flush()
        if why := disk.look([os.getpid()]):
            print(why)
            break
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    shutil.rmtree(folder)
    assert re.match(r"its files take \d+ MB, more than the 30 MB", run.stdout), run.stderr
