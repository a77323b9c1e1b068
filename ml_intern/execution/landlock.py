"""The second jail: Landlock, seccomp and resource limits, without namespaces or rights (Linux 6.12 or newer).

This file is also a program, run with the standard library only: a supervisor that starts the worker locked in, and
whose end is the end of everything the worker started, daemons too. It stays outside, where the worker cannot signal it.

What is weaker than with bubblewrap: no `/tmp` of its own (a private folder instead), no `/dev/shm` (so that
`multiprocessing` has no locks), no sockets at all; and that a process of some number exists can be found out.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

NEEDED_ABI = 6  # the first that keeps signals in
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EVERYTHING = (1 << 16) - 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
MAKE_CHAR, MAKE_BLOCK, IOCTL_DEVICE = 1 << 6, 1 << 11, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = EVERYTHING & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEVICE)
FOR_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
TCP = 1 | 2
ABSTRACT_SOCKETS, SIGNALS = 1, 2
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
          "/dev/zero", "/dev/random", "/dev/urandom")  # fmt: skip
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
CAPSET = {"x86_64": 126, "aarch64": 91}


@dataclass(frozen=True)
class Rules:
    """What the supervisor is told, as JSON in its arguments.

    Args:
        command (`list[str]`): The worker.
        readable (`list[str]`): Files and folders to read, besides the system's.
        writable (`list[str]`): Folders to write.
        seccomp (`str`): The filter, in hexadecimal. Empty: lock nothing, only supervise.
        processes (`int`): How many more processes its user may have.
        uid (`int`, *optional*): The user to become, where the supervisor is root. `0`: stay, without any capability.
        host (`int`): The process whose end ends everything.
        devices (`list[str]`): Devices to use, to their whole extent.
        groups (`list[int]`): The groups of the user that root becomes.
    """

    command: list[str]
    readable: list[str]
    writable: list[str]
    seccomp: str
    processes: int
    uid: int | None
    host: int
    devices: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def launch(self) -> list[str]:
        """The supervisor's command line."""
        return [sys.executable, "-s", "-S", "-E", "-P", os.path.realpath(__file__), json.dumps(asdict(self))]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def abi() -> int:
    """The kernel's version of Landlock; 0 if it has none."""
    return max(0, _libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def lock_in(rules: Rules) -> None:
    """Restricts this process and all it will start, for good."""
    libc = _libc()
    attributes = struct.pack("=QQQ", EVERYTHING, TCP, ABSTRACT_SOCKETS | SIGNALS)
    ruleset = _check(libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock")
    for paths, access in (
        ((*SYSTEM, *rules.readable, f"/proc/{os.getpid()}"), READ),
        (("/dev/null",), READ | WRITE_FILE | TRUNCATE),
        (rules.writable, WRITE),
        (rules.devices, READ_FILE | WRITE_FILE | IOCTL_DEVICE),
    ):
        for path in paths:
            try:
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            allowed = access if stat.S_ISDIR(os.fstat(handle).st_mode) else access & FOR_FILES
            rule = struct.pack("=Qi", allowed, handle)
            _check(libc.syscall(ADD_RULE, ruleset, 1, rule, 0), f"landlock rule for {path}")
            os.close(handle)
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(libc.syscall(RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)
    code = bytes.fromhex(rules.seccomp)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    _check(libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0), "seccomp")


def drop_rights(uid: int, groups: list[int]) -> None:
    """Root becomes `uid`, or a root without capabilities where another user could not even read the interpreter."""
    libc = _libc()
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups(groups)
    if uid:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        return
    header, nothing = struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *[0] * 6)
    _check(libc.syscall(CAPSET[os.uname().machine], header, nothing), "capset")


def threads_of(uid: int) -> int:
    """How many threads a user has now: the kernel's limit counts them all."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid:
                    count += len(list(os.scandir(f"/proc/{entry.name}/task")))
            except OSError:
                continue
    return count


def start(rules: Rules) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        limit = threads_of(rules.uid if rules.uid is not None else os.getuid()) + rules.processes
        import resource  # here, as the host imports this file where there is no such module

        if rules.seccomp and rules.uid != 0:  # no filter: no jail
            hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
        if rules.uid is not None:
            drop_rights(rules.uid, rules.groups)
        # after the change of user, which forgets it
        _check(_libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
        if rules.seccomp:
            lock_in(rules)
        os.execv(rules.command[0], rules.command)
    except OSError as error:
        os.write(2, f"landlock: {error}\n".encode())
    os._exit(127)


def descendants(pid: int) -> Iterator[int]:
    todo = [pid]
    while todo:
        pid = todo.pop()
        try:
            for thread in os.scandir(f"/proc/{pid}/task"):
                with open(f"{thread.path}/children") as file:  # noqa: PTH123 - no pathlib in here
                    found = [int(child) for child in file.read().split()]
                yield from found
                todo += found
        except OSError:
            continue


def end_all() -> None:
    """Kills everything below, until nothing is left: what is orphaned comes to the subreaper, this process."""
    while True:
        for pid in list(descendants(os.getpid())):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def supervise(rules: Rules) -> int:
    watched = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    libc = _libc()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != rules.host:
        return 0
    worker = start(rules)
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):  # the pipes are the worker's alone, so that its end shows
        os.dup2(nothing, number)
    while signal.sigwait(watched) == signal.SIGCHLD:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                end_all()
                code = os.waitstatus_to_exitcode(ended[1])
                return code if code >= 0 else 128 - code
    end_all()
    return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(supervise(Rules(**json.loads(sys.argv[1]))))
