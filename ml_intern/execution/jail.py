"""Where the agent's code is locked in: bubblewrap where it works, else Landlock; never nothing, unless told so.

A jail sees the interpreter, its packages, `/usr` and the workspace; it has no secret, no process but its own, and no
network but the door that `egress.py` opens to bubblewrap's (Landlock allows no sockets: nothing is reached from there).
Which kind works here is found out once a process, by trying.

As root one bubblewrap is enough: namespaces are made with root's rights, then the worker becomes a throw-away user
that owns nothing but the workspace. (A user namespace would map it to root again, for whom the limit on processes does
not count.) As a normal user bubblewrap makes a user namespace. `/tmp` (512 MB) and `/dev/shm` (64 MB) are memory.

What no jail holds: what code leaves in a workspace is the code's. Whoever runs it afterwards, or looks at it with a
program that runs what it finds, does so with his own rights. That `git status` is such a program surprises most: a
person's `.git` at the top of a workspace therefore stays as it is, and `files --to` leaves repositories out;
in the workspace itself git is safe only where the code did not make the repository. GPUs, where somebody asks for them,
put their driver, a large part of the kernel, within the code's reach.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ml_intern.errors import InternError
from ml_intern.execution import landlock, pickling, seccomp, snapshot, values, worker
from ml_intern.execution.egress import PORT
from ml_intern.execution.gpus import ABOUT_PROCESSES, Gpus
from ml_intern.execution.spawn import spawn

INSIDE = "/workspace"
SNAPSHOTS, PACKAGES, SEALED = "/snapshots", "/packages", "/sealed"
SYSTEM_FOLDERS = ("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "media", "mnt", "opt", "proc", "root",
                  "run", "sbin", "srv", "sys", "tmp", "usr", "var")  # fmt: skip
ETC = ("ld.so.cache", "ssl/certs", "ssl/openssl.cnf", "fonts", "alternatives", "localtime", "nsswitch.conf",
       "mime.types")  # fmt: skip
# Python evaluates the worker with a private copy of the builtins: code that replaces `builtins.len` cannot hurt it.
BOOT = """
import builtins, sys, types
own = dict(vars(builtins))
names = *("ml_intern.execution." + name for name in ("values", "pickling", "snapshot")), "__worker__"
for name, path in zip(names, sys.argv[1:]):
    sys.modules[name] = module = types.ModuleType(name)
    module.__dict__["__builtins__"] = own
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)
"""
PROGRAM = tuple(Path(module.__file__ or "").resolve() for module in (values, pickling, snapshot, worker))
REMEDY = """\
No jail works here, and code that a model wrote is not run without one. {why}
Fix one of these:
- Debian, Ubuntu: sudo apt install bubblewrap   (Fedora: sudo dnf install bubblewrap; Arch: sudo pacman -S bubblewrap)
- Ubuntu 24.04 blocks it until its AppArmor profile is loaded: sudo apt install apparmor-profiles && sudo cp \
/usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ && sudo apparmor_parser -r \
/etc/apparmor.d/bwrap-userns-restrict
- in a container: on Linux 6.12 or newer Landlock works as it is, unless a filter hides it; else start the container
  with: docker run --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined ...
- macOS, Windows: use E2B (E2B_API_KEY=... and --executor e2b), or run in a Linux container.
Last resort, only in a machine that you can throw away: unsafe_local=True."""


class JailUnavailable(InternError, RuntimeError):
    """No way to lock code in works on this machine. The message holds the commands that change that."""


@dataclass(frozen=True)
class Limits:
    """What the code may use: bytes of memory (each process, and the whole tree), processes, bytes a file, bytes of all
    files together, and the bytes of the disk that stay free whatever is left of that."""

    memory_bytes: int = 4 * 1024**3
    processes: int = 256
    file_bytes: int = 16 * 1024**3
    disk_bytes: int = 50 * 1024**3
    reserve_bytes: int = 1024**3


@dataclass(frozen=True)
class Jail:
    """A way to run the worker: `kind` is `"bubblewrap"`, `"landlock"` or `"none"`."""

    kind: str

    @property
    def network(self) -> bool:
        """Whether it can have a door to the network: that takes a network of its own, which Landlock has not."""
        return self.kind == "bubblewrap"

    @property
    def on_this_disk(self) -> bool:
        """Whether what code writes lands on this machine's disk."""
        return True

    def inside(self, root: Path) -> str:
        """The workspace's path as the code sees it."""
        return INSIDE if self.kind == "bubblewrap" else str(root)

    def start(
        self, root: Path, scratch: Path | None, limits: Limits, snapshots: Path | None = None,
        variables: Mapping[str, str] | None = None, door: int | None = None, packages: Path | None = None,
        gpus: Gpus | None = None, kept: Sequence[Path] = (), **pipes: int
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """Starts the worker on a workspace.

        Args:
            root (`Path`): The workspace on the host; below root it comes to belong to the jail's throw-away user.
            scratch (`Path`, *optional*): Stands in for `/tmp` where the jail has no file system of its own.
            limits (`Limits`): What the code may use.
            snapshots (`Path`, *optional*): Where variables are saved between actions; the code's to write, as the
                workspace is.
            variables (`Mapping[str, str]`, *optional*): More of the code's environment.
            door (`int`, *optional*): A socket over which the worker hands out its listener; see `egress.py`.
            packages (`Path`, *optional*): What was installed for this session, to read; see `packages.py`.
            gpus (`Gpus`, *optional*): GPUs that code may use.
            kept (`Sequence[Path]`): What of the workspace stays as it is; see `repository_in`.
            pipes (`int`): `stdin`, `stdout` and `stderr`: requests, replies, and what the code prints.
        """
        config = {
            "cwd": self.inside(root),
            "memory": limits.memory_bytes,
            "processes": limits.processes if self.kind == "bubblewrap" else None,
            "file": limits.file_bytes,
            "gpus": gpus is not None,
            "variables": dict(variables or {}),
            "door": None if door is None else [door, PORT],
            "snapshots": snapshots and (SNAPSHOTS if self.kind == "bubblewrap" else str(snapshots)),
            "packages": packages and (PACKAGES if self.kind == "bubblewrap" else str(packages)),
        }
        inner = [sys.executable, "-s", "-P", "-c", BOOT, *program(self.kind), json.dumps(config)]
        return self.launch(root, scratch, limits, inner, snapshots, door, packages, gpus, kept, None, **pipes)

    def launch(
        self, root: Path, scratch: Path | None, limits: Limits, inner: list[str], snapshots: Path | None = None,
        door: int | None = None, packages: Path | None = None, gpus: Gpus | None = None, kept: Sequence[Path] = (),
        sealed: Path | None = None, **pipes: int,
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """Starts any program on a workspace: `inner`, its command line as the jail sees it. `sealed` is a folder that it may
        read, and nobody in there change. The rest is as in `start`."""
        refuse_unfit(root, self.kind)
        if self.kind != "bubblewrap":
            if sys.platform == "linux":
                inner = self._supervised(root, scratch, limits, inner, snapshots, packages, gpus, sealed)
            return spawn(inner, env=environment(str(scratch), gpus), **pipes)
        uid = hand_over(root) if os.geteuid() == 0 else None
        if snapshots is not None and uid is not None:
            hand_over(snapshots, uid)
        binds = [Bind(snapshots, SNAPSHOTS, True)] if snapshots else []
        binds += [Bind(packages, PACKAGES)] if packages else []
        binds += [Bind(sealed, SEALED)] if sealed else []
        binds += [Bind(path, str(INSIDE / path.relative_to(root))) for path in kept]
        with seccomp_file() as bpf:
            handles = (bpf,) if door is None else (bpf, door)
            return spawn(bubblewrap(root, inner, bpf, uid, binds, gpus), env={}, pass_fds=handles, **pipes)

    def _supervised(
        self, root: Path, scratch: Path | None, limits: Limits, inner: list[str], snapshots: Path | None,
        packages: Path | None, gpus: Gpus | None, sealed: Path | None,
    ) -> list[str]:  # fmt: skip
        """Without a process namespace a supervisor sees to it that nothing is left behind."""
        if self.kind == "none":
            return landlock.Rules(inner, [], [], "", limits.processes, None, os.getpid()).launch()
        if scratch is not None and font_caches():
            (scratch / "matplotlib").mkdir()
            for cached in font_caches():
                shutil.copy(cached, scratch / "matplotlib")
        readable = [*interpreter_paths(), *PROGRAM, *(path for path in (packages, sealed) if path)]
        readable += [Path("/etc", name) for name in ETC]
        if gpus is not None:
            readable += [*(path for path, _ in gpus.about), *map(Path, ABOUT_PROCESSES)]
        uid = None
        if os.geteuid() == 0:
            needed = (*readable, root.parent, Path(sys.executable), snapshots or root.parent)
            reachable = all(open_to_all(path) for path in needed)
            uid = hand_over(root) if reachable else hand_over(root, 0)
            if scratch is not None:
                hand_over(scratch, uid)
            if snapshots is not None:
                hand_over(snapshots, uid)
        writable = [str(path) for path in (root, scratch, snapshots) if path]
        bpf = seccomp.program(namespaces=False).hex()
        rules = landlock.Rules(
            inner, [str(p) for p in readable], writable, bpf, limits.processes, uid, os.getpid(),
            [str(path) for path, _ in gpus.devices] if gpus else [], list(gpus.groups) if gpus else [],
        )  # fmt: skip
        return rules.launch()


def host_code_in(root: Path) -> list[Path]:
    """What of the host's own Python lies in a workspace, such as a project's `.venv`. Whoever can write it is out."""
    return [path for path in (*interpreter_paths(), PROGRAM[0].parents[1]) if path.is_relative_to(root)]


def repository_in(root: Path, kind: str, *, fresh: bool) -> list[Path]:
    """A person's `.git` in a workspace, which stays as it is: git runs programs that it names, even for `git status`.

    Args:
        root (`Path`): The workspace.
        kind (`str`): The kind of jail.
        fresh (`bool`): Whether no code has worked there yet, so that it cannot be the code's own.

    Raises:
        ValueError: this kind of jail cannot keep it so, or it is a link, which might lead anywhere.
    """
    path = root / ".git"
    if kind == "none" or not os.path.lexists(path):
        return []
    if kind != "bubblewrap" or path.is_symlink():
        if not fresh:
            return []
        why = f"{path} is in it, and git would run what code wrote there. Use another folder"
        more = "" if kind == "bubblewrap" else ", such as a copy without it, or install bubblewrap"
        raise ValueError(f"{root} cannot be a workspace: {why}{more}.")
    return [path]


def refuse_unfit(root: Path, kind: str) -> None:
    """A workspace is open to the code, and belongs to it where root starts the jail: no place for what others need."""
    if kind == "landlock" and (code := host_code_in(root)):
        why = f"{code[0]} is in it, and code could change it. Use another folder, or install bubblewrap."
        raise ValueError(f"{root} cannot be a workspace: {why}")
    if root in (Path("/"), Path.home()) or (root.parent == Path("/") and root.name in SYSTEM_FOLDERS):
        raise ValueError(f"{root} cannot be a workspace: code could read all that is in it. Use a folder of its own.")


def open_to_all(path: Path) -> bool:
    """Whether any user can reach what lies at `path`."""
    return not path.exists() or all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def open_to_read(folder: Path) -> None:
    """Lets any user read what lies in a folder that is to be sealed; who reaches it, the folders above it say."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def program(kind: str) -> list[str]:
    """The worker's files as the jail sees them."""
    return [f"/run/{path.name}" if kind == "bubblewrap" else str(path) for path in PROGRAM]


def environment(home: str, gpus: Gpus | None = None) -> dict[str, str]:
    """The whole environment of the code; nothing of the host's comes through, but which of its GPUs to use."""
    return {
        **(gpus.variables(os.environ) if gpus else {}),
        "LOKY_MAX_CPU_COUNT": str(
            os.cpu_count() or 1
        ),  # it looks for cores in /sys, which is not there, and says so at length
        "PATH": f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "USER": "user",
        "LOGNAME": "user",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",  # sets iterate alike when a trace is replayed
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore:FigureCanvasAgg is non-interactive:UserWarning",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": f"{home}/matplotlib",
    }


@cache
def interpreter_paths() -> tuple[Path, ...]:
    """The interpreter's and its packages' directories, outermost first, without those under `/usr`."""
    paths = {Path(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)}
    paths |= {Path(os.path.realpath(p)) for p in paths}
    paths.add(Path(os.path.realpath(sys.executable)).parent.parent)
    return tuple(sorted(p for p in paths if p != Path("/") and not p.is_relative_to("/usr")))


@cache
def font_caches() -> tuple[Path, ...]:
    """matplotlib's list of fonts, if the host has one: its first import is 2 s faster with it."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matplotlib"
    home = Path(os.environ.get("MPLCONFIGDIR") or caches)
    return tuple(sorted(home.glob("fontlist-v*.json")))


@dataclass(frozen=True)
class Bind:
    """A file or folder of the host that is seen inside, at a path of its own; to write if it says so."""

    path: Path
    inside: str
    writable: bool = False


def bubblewrap(
    root: Path, inner: list[str], bpf: int, uid: int | None, binds: Sequence[Bind] = (), gpus: Gpus | None = None
) -> list[str]:
    made: set[Path] = {Path("/"), Path("/usr"), Path("/tmp"), Path("/run"), Path("/etc"), Path("/dev")}

    def directories(path: Path) -> Iterator[str]:
        """Spelled out, as bubblewrap makes missing parents readable for their owner only."""
        for parent in [*reversed(path.parents), path]:
            if parent not in made:
                made.add(parent)
                yield from ("--perms", "0755", "--dir", str(parent))

    arguments = ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox", "--seccomp", str(bpf)]
    arguments += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"]
    if uid is None:
        arguments += ["--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]
    else:
        arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    arguments += [*sized(512 << 20), "--perms", "1777", "--tmpfs", "/tmp"]
    for name in ("etc", "run"):
        arguments += ["--perms", "0755", "--dir", f"/{name}"]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            arguments += ["--ro-bind", str(path), str(path)]
    for name in ETC:
        if Path("/etc", name).exists():
            arguments += [*directories(Path("/etc", name).parent), "--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    for path in interpreter_paths():
        arguments += [*directories(path), "--ro-bind", str(path), str(path)]
    for path in PROGRAM:
        arguments += ["--ro-bind", str(path), f"/run/{path.name}"]
    if font_caches():
        arguments += ["--perms", "1777", "--dir", "/tmp/matplotlib"]
        for cached in font_caches():
            arguments += ["--ro-bind", str(cached), f"/tmp/matplotlib/{cached.name}"]
    arguments += ["--proc", "/proc", "--dev", "/dev", *sized(64 << 20), "--perms", "1777", "--tmpfs", "/dev/shm"]
    arguments += ["--perms", "0755", "--dir", INSIDE, "--bind", str(root), INSIDE]
    if (own := Path(sys.prefix, "pip.conf")).exists():  # it may hold the password of an index
        arguments += ["--ro-bind", "/dev/null", str(own)]
    for bind in binds:
        inside = Path(bind.inside)
        arguments += directories(inside if bind.path.is_dir() else inside.parent)
        arguments += ["--bind" if bind.writable else "--ro-bind", str(bind.path), str(inside)]
    for path in host_code_in(root):
        arguments += ["--ro-bind", str(path), str(INSIDE / path.relative_to(root))]
    for path, place in gpus.devices if gpus else ():
        arguments += [*directories(Path(place).parent), "--dev-bind", str(path), place]
    for path, place in gpus.about if gpus else ():
        arguments += [*directories(Path(place).parent), "--ro-bind", str(path), place]
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    for name, value in environment("/tmp", gpus).items():
        arguments += ["--setenv", name, value]
    groups = f"--groups={','.join(map(str, gpus.groups))}" if gpus and gpus.groups else "--clear-groups"
    become = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", groups, "--no-new-privs"]
    return [shutil.which("bwrap") or "bwrap", *arguments, "--", *become, *inner]


@cache
def bubblewrap_version() -> tuple[int, ...]:
    text = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(part) for part in text.split()[-1].split(".") if part.isdigit()) if text else ()


def sized(count: int) -> list[str]:
    """Limits the next `--tmpfs`. Before 0.7 (Ubuntu 22.04) bubblewrap cannot: half of the memory is the limit there."""
    return ["--size", str(count)] if bubblewrap_version() >= (0, 7) else []


@contextmanager
def seccomp_file() -> Generator[int]:
    handle = os.memfd_create("seccomp")
    try:
        os.write(handle, seccomp.program(namespaces=True))
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)


def hand_over(root: Path, uid: int | None = None) -> int:
    """Gives a workspace to a throw-away user and says which; a workspace that has one, or a person's, keeps its owner.

    Only what root itself or such a user owns changes hands; links are not followed, the host's own code stays root's.

    Args:
        root (`Path`): The workspace.
        uid (`int`, *optional*): The user it must belong to, whoever has it now.
    """
    choices = throwaway_users()
    owner = root.stat().st_uid
    if owner == uid or (uid is None and owner != 0):
        return owner
    uid = random.SystemRandom().choice(choices) if uid is None else uid
    kept = {str(path) for path in host_code_in(root)}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in kept]  # noqa: PTH118 - hot
        for path in (*(os.path.join(folder, name) for name in files), folder):  # noqa: PTH118 - hot
            if (now := os.lstat(path).st_uid) == 0 or now in choices:
                os.chown(path, uid, uid, follow_symlinks=False)
    return uid


@cache
def throwaway_users() -> range:
    """User ids that nobody uses and that exist here: in a container often only the first 65,536 do."""
    mapped = []
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = (int(field) for field in line.split())
        mapped.append(range(first, first + count))
    for users in (range(0x70000000, 0x78000000), range(61_184, 65_520)):
        if any(users[0] in span and users[-1] in span for span in mapped):
            return users
    raise JailUnavailable(REMEDY.format(why="No spare user id is mapped into this container."))


def find_jail(*, unsafe_local: bool = False) -> Jail:
    """The strongest jail that works here, tried once a process.

    Args:
        unsafe_local (`bool`, defaults to `False`): Run code with your own rights if no jail works.

    Raises:
        JailUnavailable: If none works; says what to install.
    """
    found, why = _try_all()
    if found:
        return found
    if unsafe_local:
        return Jail("none")
    raise JailUnavailable(REMEDY.format(why=why))


@cache
def _try_all() -> tuple[Jail | None, str]:
    reasons = []
    for attempt in (try_bubblewrap, try_landlock):
        why = attempt()
        if not why:
            return Jail(attempt.__name__.removeprefix("try_")), ""
        reasons.append(f"{attempt.__name__.removeprefix('try_')}: {why}")
    return None, "Tried: " + "; ".join(reasons) + "."


@cache
def try_bubblewrap() -> str:
    """Why bubblewrap does not work here; empty if it does."""
    if not sys.platform.startswith("linux") or not seccomp.supported():
        return "this is not Linux on x86-64 or arm64"
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    try:
        uid = throwaway_users()[0] if os.geteuid() == 0 else None
        with seccomp_file() as bpf:
            return failure(bubblewrap(Path("/usr"), ["/usr/bin/env", "true"], bpf, uid), bpf)
    except JailUnavailable as error:
        return str(error).splitlines()[0]


def failure(command: list[str], *handles: int) -> str:
    """Why a command does not work; empty if it does."""
    environment = {"PATH": os.environ.get("PATH", "")}
    try:
        tried = subprocess.run(command, env=environment, pass_fds=handles, timeout=20, stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if tried.returncode == 0 else (tried.stderr.strip().splitlines() or [f"exit {tried.returncode}"])[-1]


@cache
def try_landlock() -> str:
    """Why Landlock does not work here; empty if it does."""
    if not sys.platform.startswith("linux") or not seccomp.supported():
        return "this is not Linux on x86-64 or arm64"
    if (version := landlock.abi()) < landlock.NEEDED_ABI:
        return f"the kernel offers version {version} of it, {landlock.NEEDED_ABI} (Linux 6.12) is needed"
    bpf = seccomp.program(namespaces=False).hex()
    rules = landlock.Rules(["/usr/bin/env", "true"], [], [], bpf, 256, 0 if os.geteuid() == 0 else None, os.getpid())
    return failure(rules.launch())
