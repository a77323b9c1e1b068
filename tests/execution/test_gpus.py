"""GPUs in a jail: there only when asked for, and then usable.

No test machine has a GPU: nodes with the numbers of `/dev/zero` stand in. That they can be bound, opened and read inside,
and that they are not there unasked, is real; what a driver makes of it is not shown here.

What must never happen: a device that nobody asked for, or anything else of `/dev` and `/sys`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_intern.execution import E2BExecutor, JailExecutor
from ml_intern.execution.gpus import Gpus, GpusUnavailable, find_gpus
from ml_intern.execution.jail import Jail

ZERO, NULL = os.makedev(1, 5), os.makedev(1, 3)
NVIDIA = ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps/nvidia-cap2")
RENDER_GROUP = 61_000


def node(root: Path, name: str, mode: int = 0o666, group: int = 0) -> None:
    path = root / "dev" / name
    path.parent.mkdir(exist_ok=True, parents=True)
    try:
        os.mknod(path, 0o20000 | mode, ZERO)
        path.chmod(mode)
        os.chown(path, 0, group)
        path.open("rb").close()
    except PermissionError as error:
        pytest.skip(f"device nodes cannot be made or used here: {error}")


@pytest.fixture
def machine() -> Iterator[Path]:
    """The root of a machine to put devices into, which the jail's user can reach."""
    root = Path(tempfile.mkdtemp(prefix="ml-intern-test-", dir="/tmp")).resolve()
    root.chmod(0o755)
    (root / "dev").mkdir()
    yield root
    shutil.rmtree(root)


def card(machine: Path, address: str, kind: str) -> None:
    """A PCI device, as `/sys` describes it."""
    real = machine / "sys/devices/pci0000:00" / address
    real.mkdir(parents=True)
    (real / "class").write_text(kind)
    (real / "numa_node").write_text("0\n")
    (machine / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
    (machine / "sys/bus/pci/devices" / address).symlink_to(f"../../../devices/pci0000:00/{address}")


def place(executor: JailExecutor, machine: Path) -> str:
    """What comes before a path as the code sees it."""
    return "" if executor.jail == "bubblewrap" else str(machine)


READ = "import os\ndef attempt(p):\n    try:\n        with open(p, 'r+b', buffering=0) as f: return f.read(3), f.write(b'x')\n"
READ += "    except OSError as e: return type(e).__name__\n"


def test_asked_for_they_are_there_and_can_be_used(make, jail: Jail, machine: Path) -> None:
    for name in (*NVIDIA, "kfd", "dri/renderD128", "dri/card0", "sda"):
        node(machine, name)
    card(machine, "0000:00:04.0", "0x030200\n")
    card(machine, "0000:00:05.0", "0x010802\n")  # a disk
    executor = make(jail=jail, gpus=find_gpus(machine))
    root = place(executor, machine)
    executor(READ)
    for name in (*NVIDIA, "kfd", "dri/renderD128"):
        assert executor(f"attempt({f'{root}/dev/{name}'!r})").output == (b"\0\0\0", 1), name
    for name in ("dri/card0", "sda"):
        assert executor(f"attempt({f'{root}/dev/{name}'!r})").output in ("FileNotFoundError", "PermissionError"), name
    about = f"{root}/sys/bus/pci/devices"
    assert executor(f"open('{about}/0000:00:04.0/class').read()").output == "0x030200\n"
    assert "GOT" not in str(
        executor(
            f"try:\n    r = 'GOT' + open('{about}/0000:00:05.0/class').read()\nexcept OSError: r = 'no'\nr"
        ).output
    )
    code = f"try:\n    open('{about}/0000:00:04.0/numa_node', 'w').write('1')\n    r = 'GOT'\nexcept OSError as e: r = 'no'\nr"
    assert executor(code).output == "no"
    code = f"try:\n    open('{root}/dev/x', 'w')\n    r = 'GOT'\nexcept OSError as e: r = 'no'\nr"
    assert executor(code).output == "no"


def test_an_ioctl_reaches_the_driver(make, jail: Jail, machine: Path) -> None:
    """`/dev/zero` knows none and says so itself (ENOTTY); a filter would have said EACCES or EPERM."""
    for name in NVIDIA:
        node(machine, name)
    executor = make(jail=jail, gpus=find_gpus(machine))
    code = "import fcntl, errno\ndef ask(path):\n    try: fcntl.ioctl(open(path, 'rb'), 0xC020462A, bytes(32))\n"
    executor(code + "    except OSError as e: return errno.errorcode[e.errno]")
    assert executor(f"ask('{place(executor, machine)}/dev/nvidiactl')").output == "ENOTTY"
    assert executor("ask('/dev/zero')").output == ("EACCES" if jail.kind == "landlock" else "ENOTTY")


def test_unasked_there_are_none(make, jail: Jail, machine: Path) -> None:
    for name in NVIDIA:
        node(machine, name)
    executor = make(jail=jail)
    executor(READ)
    for root in ("", machine):
        for name in NVIDIA:
            assert executor(f"attempt('{root}/dev/{name}')").output in ("FileNotFoundError", "PermissionError")
    code = "def listed(p):\n    try: return os.listdir(p)\n    except OSError as e: return type(e).__name__\n"
    for path in ("/sys", "/sys/bus/pci/devices", "/sys/class/drm", "/sys/devices"):
        assert executor(f"{code}listed({path!r})").output in ("FileNotFoundError", "PermissionError")


@pytest.mark.skipif(os.geteuid() != 0, reason="as root only: a normal user's groups come with him")
def test_a_throw_away_user_gets_the_groups_that_it_takes(make, jail: Jail, machine: Path) -> None:
    node(machine, "kfd", 0o660, RENDER_GROUP)
    node(machine, "dri/renderD128", 0o660, RENDER_GROUP)
    gpus = find_gpus(machine)
    assert gpus.groups == (RENDER_GROUP,)
    executor = make(jail=jail, gpus=gpus)
    assert executor(READ + f"attempt('{place(executor, machine)}/dev/dri/renderD128')").output == (b"\0\0\0", 1)
    executor = make(jail=jail)
    assert RENDER_GROUP not in executor("import os\nos.getgroups()").output


def test_memory_is_limited_by_what_is_used_not_by_what_is_mapped(make, jail: Jail, machine: Path) -> None:
    for name in NVIDIA:
        node(machine, name)
    code = (
        "import mmap\nm = mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\nlen(m) >> 30"
    )
    executor = make(jail=jail, gpus=find_gpus(machine), memory_bytes=1 << 30)
    assert executor(code).output == 3
    with pytest.raises(Exception, match="use of memory"):
        executor(
            "import time\nx = [bytes(50 << 20) for _ in range(30)]\nx = [b'x' * (50 << 20) for _ in range(30)]\ntime.sleep(2)"
        )


def test_none_is_there(machine: Path) -> None:
    with pytest.raises(GpusUnavailable, match=r"There is no GPU here.*\n.*--gpus"):
        find_gpus(machine)
    node(machine, "dri/card0")
    with pytest.raises(GpusUnavailable, match="There is no GPU here"):
        find_gpus(machine)
    if not any(any(Path("/dev").glob(pattern)) for pattern in ("nvidia[0-9]*", "kfd", "dri/renderD*")):
        with pytest.raises(GpusUnavailable):
            JailExecutor(gpus=True)


def test_one_that_cannot_be_opened_is_named_with_what_to_do(machine: Path) -> None:
    node(machine, "nvidia0", 0o600)
    node(machine, "nvidiactl")
    node(machine, "nvidia-uvm")
    with pytest.raises(GpusUnavailable, match=r"/dev/nvidia0 \(group root, 0600\)\)\n.*chmod 0666"):
        find_gpus(machine)
    node(machine, "dri/renderD128", 0o660, RENDER_GROUP)
    with pytest.raises(GpusUnavailable) as caught:
        find_gpus(machine, uid=65534)
    assert "/dev/dri/renderD128" in caught.value.why
    assert "usermod -aG" in str(caught.value)
    node(machine, "nvidia1")
    gpus = find_gpus(machine)
    assert gpus.names() == ["nvidia1"]
    assert any("nvidia0" in text for text in gpus.closed)


def test_a_driver_that_is_half_loaded(machine: Path) -> None:
    node(machine, "nvidia0")
    node(machine, "nvidiactl")
    with pytest.raises(GpusUnavailable, match=r"no /dev/nvidia-uvm\)\nsudo nvidia-modprobe"):
        find_gpus(machine)


def test_files_that_only_look_like_devices_are_none(machine: Path) -> None:
    (machine / "dev" / "nvidia0").write_text("x")
    (machine / "dev" / "nvidia1").symlink_to("/dev/zero")
    with pytest.raises(GpusUnavailable):
        find_gpus(machine)


def test_which_gpu_and_which_libraries_come_from_the_host(
    make, jail: Jail, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NVIDIA:
        node(machine, name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/nvidia/lib64:/home/me/lib:/usr/../home:")
    code = "import os\nos.environ.get('CUDA_VISIBLE_DEVICES'), os.environ.get('LD_LIBRARY_PATH')"
    assert make(jail=jail)(code).output == (None, None)
    executor = make(jail=jail, gpus=find_gpus(machine))
    assert executor(code).output == ("1", "/usr/local/nvidia/lib64")


def test_names() -> None:
    def gpus(*places: str) -> list[str]:
        return Gpus(tuple((Path("/x"), f"/dev/{place}") for place in places)).names()

    assert gpus("nvidia0", "nvidia1", "nvidiactl", "dri/renderD128") == ["nvidia0", "nvidia1"]
    assert gpus("kfd", "dri/renderD128", "dri/renderD129") == ["renderD128", "renderD129"]
    assert gpus("nvidiactl", "kfd") == []


def test_e2b_has_none() -> None:
    with pytest.raises(ValueError, match="no GPU"):
        E2BExecutor(gpus=True)
