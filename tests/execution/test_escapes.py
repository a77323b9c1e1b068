"""Ways out, tried from inside, in each kind of jail that works here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_intern.execution import JailExecutor, JailUnavailable, Workspace
from ml_intern.execution import jail as jails
from ml_intern.execution.egress import OFFLINE
from ml_intern.execution.jail import Jail

TRY = """
def attempt(function):
    try:
        return 'GOT', str(function())[:200]
    except BaseException as error:
        return type(error).__name__, str(error)
"""


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("host") / "secret.txt"
    path.write_text("top secret")
    path.chmod(0o666)
    return path


@pytest.fixture(scope="module")
def inside(jail: Jail) -> Iterator[JailExecutor]:
    os.environ["HF_TOKEN"] = "hf_not_for_you"
    executor = JailExecutor(jail=jail)
    executor("import os, socket, ctypes, subprocess\nfrom pathlib import Path" + TRY)
    yield executor
    executor.cleanup()
    del os.environ["HF_TOKEN"]


def attempt(executor: JailExecutor, code: str) -> tuple[str, str]:
    """What one expression came to: the error's name, or `"GOT"`."""
    return executor(f"attempt(lambda: ({code}))").output


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/etc/passwd", "/root/.bashrc", "/var/log", "/run/docker.sock", "/sys/kernel", "/home", "/boot"],
)
def test_files_of_the_host_cannot_be_read(inside: JailExecutor, path: str) -> None:
    code = f"open({path!r}).read() if Path({path!r}).is_file() else os.listdir({path!r})"
    assert attempt(inside, code)[0] in ("FileNotFoundError", "PermissionError")


def test_temporary_files_and_the_home_of_the_host_cannot_be_read(inside: JailExecutor, secret: Path) -> None:
    assert attempt(inside, f"open({str(secret)!r}).read()")[0] in ("FileNotFoundError", "PermissionError")
    inside(f"import os\nos.path.lexists('link') or os.symlink({str(secret)!r}, 'link')")
    assert attempt(inside, "open('link').read()")[0] in ("FileNotFoundError", "PermissionError")
    names = attempt(inside, f"os.listdir({str(Path.home())!r})")
    assert names[0] in ("FileNotFoundError", "PermissionError") or ".bashrc" not in names[1]


@pytest.mark.parametrize(
    "path", ["/x", "/usr/x", "/usr/bin/x", "/etc/x", "/dev/x", "/run/x", f"{sys.prefix}/x", os.path.realpath(sys.base_prefix) + "/x", "/proc/sys/kernel/core_pattern"]
)  # fmt: skip
def test_nothing_but_the_workspace_can_be_written(inside: JailExecutor, path: str) -> None:
    assert attempt(inside, f"open({path!r}, 'w').write('x')")[0] in ("OSError", "PermissionError", "FileNotFoundError")
    assert not Path(path).exists() or path.startswith("/proc")
    assert attempt(inside, "open('own', 'w').write('x'), __import__('tempfile').mkdtemp()")[0] == "GOT"


def test_no_secret_is_in_any_environment(inside: JailExecutor) -> None:
    code = "import glob\nseen = [dict(os.environ)]\nfor p in glob.glob('/proc/[0-9]*/environ'):\n    try:\n"
    inside(code + "        seen.append(open(p, 'rb').read())\n    except OSError: pass\nNone")
    assert "hf_not_for_you" not in str(inside("str(seen)").output)
    more = OFFLINE if inside.jail == "landlock" else {**inside._egress.variables(), "HF_HOME": "", "PWD": ""}
    assert sorted(inside("dict(os.environ)").output) == sorted({**jails.environment("x"), **more})


def test_processes_of_the_host_are_out_of_reach(inside: JailExecutor) -> None:
    me = os.getpid()
    for name in ("environ", "mem", "maps", "root/etc/passwd", "fd/0", "cwd/x"):
        result = attempt(inside, f"open('/proc/{me}/{name}', 'rb').read(9)")
        assert result[0] in ("FileNotFoundError", "PermissionError", "ProcessLookupError"), (name, result)
    assert attempt(inside, f"os.kill({me}, 9)")[0] in ("ProcessLookupError", "PermissionError")
    assert attempt(inside, f"os.kill({os.getppid()}, 0)")[0] in ("ProcessLookupError", "PermissionError")
    # A namespace's first process takes no signal from inside it, whatever `kill` returns (to a user of the same id: success).
    assert attempt(inside, "os.kill(1, 9)")[0] in ("PermissionError", "GOT")
    assert inside("1 + 1").output == 2
    bystander = subprocess.Popen(["sleep", "60"])
    inside(
        "import signal\nold = signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntry:\n    os.kill(-1, signal.SIGTERM)\nexcept OSError: pass"
    )
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


NETWORK = {
    "internet": "socket.create_connection(('1.1.1.1', 53), 2)",
    "metadata": "socket.create_connection(('169.254.169.254', 80), 2)",
    "dns": "socket.getaddrinfo('huggingface.co', 443)",
    "raw": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "vsock": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))",
    "ipv6": "socket.create_connection(('2606:4700:4700::1111', 53), 2)",
}


@pytest.mark.parametrize("way", NETWORK)
def test_no_network(inside: JailExecutor, way: str) -> None:
    assert attempt(inside, NETWORK[way])[0] in ("OSError", "gaierror", "PermissionError", "AttributeError")


def test_sockets_of_the_host_are_out_of_reach(inside: JailExecutor, secret: Path) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    path = str(secret.parent / f"{inside.jail}.sock")
    unix, abstract, datagram = (
        socket.socket(socket.AF_UNIX, k) for k in (socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM)
    )
    unix.bind(path)
    abstract.bind("\0ml-intern-test")
    datagram.bind(path + ".dgram")
    for listener in (unix, abstract):
        listener.listen()
    refused = ("ConnectionRefusedError", "FileNotFoundError", "PermissionError", "OSError")
    assert attempt(inside, f"socket.create_connection(('127.0.0.1', {tcp.getsockname()[1]}), 2)")[0] in refused
    for target in (repr(path), r"'\0ml-intern-test'"):
        assert attempt(inside, f"socket.socket(socket.AF_UNIX).connect({target})")[0] in refused
    code = f"socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', {path + '.dgram'!r})"
    assert attempt(inside, code)[0] in refused
    datagram.setblocking(False)
    with pytest.raises(BlockingIOError):
        datagram.recv(10)
    for opened in (tcp, unix, abstract, datagram):
        opened.close()


SYSCALLS = {
    "ptrace": (101, "16, os.getppid(), 0, 0"), "process_vm_readv": (310, "os.getppid(), 0, 0, 0, 0, 0"), "bpf": (321, "0, 0, 0"),
    "io_uring_setup": (425, "1, 0"), "userfaultfd": (323, "0"), "keyctl": (250, "0, 0"), "unshare user": (272, "0x10000000"),
    "mount": (165, "b'none', b'/tmp', b'tmpfs', 0, 0"), "chroot": (161, "b'/tmp'"), "setns": (308, "0, 0"),
    "clone user": (56, "0x10000000 | 17, 0, 0, 0, 0"), "perf_event_open": (298, "0, 0, 0, 0, 0"), "open_by_handle_at": (304, "0, 0, 0"),
    "TIOCSTI": (16, "0, 0x5412, b'x'"), "x32 getpid": (0x40000000 + 39, ""), "clone3": (435, "0, 0"), "pidfd_getfd": (438, "0, 0, 0"),
}  # fmt: skip


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize("name", SYSCALLS)
def test_dangerous_system_calls_are_refused(inside: JailExecutor, name: str) -> None:
    number, arguments = SYSCALLS[name]
    inside(
        f"libc = ctypes.CDLL(None, use_errno=True)\nresult = libc.syscall({number}{', ' if arguments else ''}{arguments})"
    )
    result, error = inside("result, os.strerror(ctypes.get_errno())").output
    assert (result, error) in ((-1, "Operation not permitted"), (-1, "Function not implemented"))


def test_no_way_to_more_rights(inside: JailExecutor) -> None:
    assert attempt(inside, "os.setuid(0) if os.getuid() else os.setuid(1)")[0] in ("PermissionError", "OSError")
    status = inside("open('/proc/self/status').read()").output
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == int(fields["CapAmb"], 16) == 0
    code = (
        "subprocess.run('echo x | su -c id root; mknod dev b 8 0', shell=True, capture_output=True, text=True).stdout"
    )
    assert "uid=0" not in inside(code).output
    assert attempt(inside, "os.mknod('disk', 0o60666, os.makedev(8, 0))")[0] == "PermissionError"


def test_children_are_locked_in_too(inside: JailExecutor) -> None:
    code = "subprocess.run([__import__('sys').executable, '-c', 'print(open(\"/etc/passwd\").read())'], capture_output=True, text=True).returncode"
    assert inside(code).output == 1
    assert (
        inside("subprocess.run('cat /etc/shadow /root/.bashrc', shell=True, capture_output=True).stdout").output == b""
    )


def test_files_have_a_largest_size(make, jail: Jail) -> None:
    executor = make(jail=jail)
    executor.limits = jails.Limits(file_bytes=1 << 20)
    assert attempt_in(executor, "open('big', 'wb').write(b'x' * (2 << 20))")[0] == "OSError"
    assert executor.workspace.read_bytes("big") == b"x" * (1 << 20)


def attempt_in(executor: JailExecutor, code: str) -> tuple[str, str]:
    return executor(TRY + f"attempt(lambda: {code})").output


def test_a_link_made_inside_does_not_make_the_host_read_its_target(inside: JailExecutor, secret: Path) -> None:
    inside(
        f"for n in ('file', 'folder'):\n    os.path.lexists(n) or os.symlink({str(secret)!r} if n == 'file' else '/etc', n)"
    )
    for path in ("file", "folder/passwd"):
        with pytest.raises(ValueError, match="link"):
            inside.workspace.read_bytes(path)


def test_two_jails_see_nothing_of_each_other(make, jail: Jail) -> None:
    one, two = make(jail=jail), make(jail=jail)
    where = one(
        "import tempfile, os\nfrom pathlib import Path\nPath('mine').write_text('x')\np = tempfile.mkdtemp()\nos.path.abspath('mine')"
    ).output
    assert two("import os\nos.listdir('.')").output == []
    if jail.kind == "landlock":
        assert attempt_in(two, f"open({where!r}).read()")[0] == "PermissionError"
        assert attempt_in(two, f"os.listdir({one('p').output!r})")[0] == "PermissionError"


def test_without_any_jail_it_refuses_and_says_what_to_do() -> None:
    program = """
from ml_intern.execution.jail import JailUnavailable, find_jail
try:
    print(find_jail().kind)
except JailUnavailable as error:
    print(error)
print(find_jail(unsafe_local=True).kind)
"""
    # No bwrap on the path, and a version of Landlock that no kernel has yet.
    script = "import ml_intern.execution.landlock as l\nl.NEEDED_ABI = 1000\n" + program
    run = subprocess.run(
        [sys.executable, "-c", script], env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=True
    )
    assert "sudo apt install bubblewrap" in run.stdout
    assert "bwrap is not installed" in run.stdout
    assert "apparmor_parser -r" in run.stdout
    assert run.stdout.strip().endswith("none")
    assert issubclass(JailUnavailable, RuntimeError)


def test_an_unsafe_executor_works_and_leaves_nothing(make) -> None:
    executor = make(jail=Jail("none"))
    assert executor("import os\nos.getcwd()").output == str(executor.workspace.root)
    assert executor("print('x')\n1").logs == "x\n"
    threads = threading.active_count()
    executor.cleanup()
    assert threading.active_count() < threads


def test_folders_that_others_need_are_no_workspace(make, jail: Jail) -> None:
    for folder in ("/", "/etc", str(Path.home())):
        with pytest.raises(ValueError, match="cannot be a workspace"):
            make(workspace=Workspace(folder), jail=jail)("1")


@pytest.mark.long
def test_the_hosts_own_python_in_a_workspace_cannot_be_changed(make, jail: Jail, tmp_path: Path) -> None:
    """A project's `.venv` lies in the project: code that writes it would run on the host at the next start."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "project" / ".venv"], check=True)
    program = f"""
import sys
sys.path[:0] = {[*sys.path, str(Path(jails.__file__).parents[2])]!r}
from ml_intern.execution import JailExecutor, Workspace
from ml_intern.execution.jail import Jail
executor = JailExecutor(workspace=Workspace({str(tmp_path / "project")!r}), jail=Jail({jail.kind!r}))
try:
    print(executor("open('fine', 'w').write('x')").output)
    executor("open('.venv/pyvenv.cfg', 'a').write('x')")
except Exception as error:
    print(error)
"""
    python = tmp_path / "project" / ".venv" / "bin" / "python"
    run = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    if jail.kind == "bubblewrap":
        assert run.stdout.startswith("1\n")
        assert "Read-only file system" in run.stdout or "Permission denied" in run.stdout
        assert (tmp_path / "project" / ".venv" / "pyvenv.cfg").stat().st_uid == os.geteuid()
    else:
        assert "cannot be a workspace" in run.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
def test_a_persons_folder_stays_that_persons(make, jail: Jail, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    executor = make(workspace=Workspace(folder), jail=jail)
    if jail.kind == "landlock" and not jails.open_to_all(Path(sys.executable)):
        pytest.skip("only root can read this interpreter")
    assert executor("import os\nopen('f', 'w').close()\nos.getuid()").output == 12345
    assert (folder / "f").stat().st_uid == folder.stat().st_uid == 12345


def test_an_existing_workspace_can_be_worked_in(make, jail: Jail, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "data.txt").write_text("old")
    (folder / "sub" / "data.txt").chmod(0o600)
    executor: Any = make(workspace=Workspace(folder), jail=jail)
    code = "from pathlib import Path\np = Path('sub/data.txt')\nold = p.read_text()\np.write_text('new')\nPath('sub/more').mkdir()\nold"
    assert executor(code).output == "old"
    assert (folder / "sub" / "data.txt").read_text() == "new"
    executor.workspace.write_bytes("deep/in/file", b"from the host")
    assert executor("Path('deep/in/file').write_text('changed')").output == 7


PLANT = """
import os
def attempt(function):
    try:
        function()
        return 'GOT'
    except OSError as error:
        return type(error).__name__
[attempt(lambda: open('.git/config', 'a').write('[core]\\n fsmonitor = touch /tmp/out')), attempt(lambda: os.rename('.git', 'old')),
 attempt(lambda: open('.git/hooks/post-commit', 'w')), attempt(lambda: open('.git/commondir', 'w')), attempt(lambda: os.unlink('.git')),
 attempt(lambda: __import__('shutil').rmtree('.git')), attempt(lambda: open('fine', 'w'))]
"""


@pytest.mark.parametrize("worktree", [False, True], ids=["folder", "file"])
def test_a_persons_git_repository_runs_nothing_that_code_wrote(
    make, jail: Jail, tmp_path: Path, worktree: bool
) -> None:
    if worktree:
        (tmp_path / ".git").write_text("gitdir: /elsewhere")
    else:
        (tmp_path / ".git" / "hooks").mkdir(parents=True)
        (tmp_path / ".git" / "config").write_text("[core]\n")
    executor = make(jail=jail, workspace=Workspace(tmp_path))
    if jail.kind == "landlock":
        with pytest.raises(ValueError, match=r"git would run what code wrote there.*install bubblewrap"):
            executor("1")
        return
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob(".git*")}
    *refused, fine = executor(PLANT).output
    assert "GOT" not in refused
    assert fine == "GOT"
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob(".git*")} == before


def test_a_repository_that_code_made_is_its_own(make, jail: Jail, tmp_path: Path) -> None:
    executor = make(jail=jail, workspace=Workspace(tmp_path), snapshots=tmp_path.parent / f"{tmp_path.name}-saved")
    executor("import os\nos.mkdir('.git')\nopen('.git/config', 'w').close()")
    with pytest.raises(Exception, match="exited with status 3"):
        executor("os._exit(3)")
    assert executor("open('.git/config', 'w').write('x')").output == 1


def test_a_link_named_git_is_never_followed(make, jail: Jail, secret: Path, tmp_path: Path) -> None:
    (tmp_path / ".git").symlink_to(secret.parent)
    with pytest.raises(ValueError, match="git would run"):
        make(jail=jail, workspace=Workspace(tmp_path))("1")
    saved = tmp_path.parent / f"{tmp_path.name}-saved"
    (tmp_path / ".git").unlink()
    executor = make(jail=jail, workspace=Workspace(tmp_path), snapshots=saved)
    executor(f"import os\nos.symlink({str(secret.parent)!r}, '.git')")
    executor.cleanup()
    executor = make(jail=jail, workspace=Workspace(tmp_path), snapshots=saved)
    assert attempt_in(executor, "open('.git/secret.txt').read()")[0] in ("FileNotFoundError", "PermissionError")
