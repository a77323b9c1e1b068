"""The keeper of one job: a process of its own that starts it in a jail, watches it, and ends it. See `jobs.py`.

It outlives the session that started it, serves the jail's door to the network itself, and holds no secret: of the host's
environment it gets what leads to files and networks. Its end, however it comes, is the end of the job: the jail dies with
its parent. As long as it lives it holds a lock, so that nobody has to believe a number of a process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ml_intern.execution.disk import Disk
from ml_intern.execution.egress import PORT, Egress, offline
from ml_intern.execution.gpus import Gpus, find_gpus
from ml_intern.execution.jail import PACKAGES, Jail, Limits, repository_in
from ml_intern.execution.job_log import JobLog
from ml_intern.execution.process import resident, shared, tree

LOOK_SECONDS, TELL_SECONDS, DRAIN_SECONDS, LOCK_SECONDS = 0.25, 5.0, 1.0, 5.0
BLOCK = 1 << 16
# Runs in the jail: opens its door, takes its limits, becomes the job.
BOOT = """
import json, os, resource, socket, sys
order = json.loads(sys.argv[1])
if order["door"]:
    number, port = order["door"]
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener, socket.socket(fileno=number) as door:
        socket.send_fds(door, [b"!"], [listener.fileno()])
for name, value in order["limits"].items():
    if value is not None:
        which = getattr(resource, "RLIMIT_" + name)
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
os.environ.update(order["variables"])
os.umask(0o022)
try:
    os.chdir(order["cwd"])
    os.execvp(order["command"][0], order["command"])
except OSError as error:
    sys.exit(f"The job did not start: {error}")
"""


def write_atomically(path: Path, data: dict[str, Any]) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(json.dumps(data), encoding="utf-8")
    new.replace(path)


class Host:
    """The process that a job must not outlive, where there is one; another that gets its number is not it."""

    def __init__(self, pid: int) -> None:
        self.pid, self.handle = pid, -1
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # it has ended already, or the kernel is old
                self.handle = os.pidfd_open(pid)

    def gone(self) -> bool:
        if self.handle >= 0:
            return bool(select.select([self.handle], [], [], 0)[0])
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False


class Keeper:
    """Runs the job that `order.json` in its folder describes.

    Args:
        folder (`Path`): The job's folder, out of the jail's reach.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, JobLog(folder)
        self.order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
        self.root = Path(self.order["root"])
        self.jail, self.limits = Jail(self.order["jail"]), Limits(**self.order["limits"])
        self.status: dict[str, Any] = {
            "state": "running", "exit_code": None, "started": time.time(), "ended": None, "peak_memory_bytes": None, "why": "",
        }  # fmt: skip
        self.scratch: Path | None = None
        self.stopping = False
        self.host = Host(self.order["host"]) if self.order.get("host") else None

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        self._tell()
        egress = process = None
        try:
            mode, hosts = self.order["network"], self.order["hosts"]
            egress = Egress.of(mode, hosts) if self.jail.network else None
            process, output = self._start(egress)
            with os.fdopen(output, "rb", buffering=0) as pipe:
                self._watch(process, pipe.fileno())
                self._drain(pipe.fileno())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is how the job ended
            self._end("failed", f"{type(error).__name__}: {error}")
        finally:
            if process is not None:
                self._kill(process)
            if egress is not None:
                egress.close()
            if self.scratch is not None:
                shutil.rmtree(self.scratch, ignore_errors=True)
            self._tell()
            if self.host is not None and self.host.gone():  # nobody else will remove it
                shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _stop(self, *_: Any) -> None:
        self.stopping = True

    def _start(self, egress: Egress | None) -> tuple[subprocess.Popen[bytes], int]:
        root, inside = self.root, self.jail.inside(self.root)
        packages = Path(self.order["packages"]) if self.order["packages"] else None
        if packages is not None and not packages.is_dir():
            packages = None
        self.scratch = None if self.jail.kind == "bubblewrap" else Path(tempfile.mkdtemp(prefix="ml-intern-job-"))
        gpus = find_gpus() if self.order["gpus"] is True else _gpus(self.order["gpus"])
        ours, theirs = socket.socketpair() if egress else (None, None)
        output, printed = os.pipe()
        variables = offline(self.jail.kind == "none")
        if egress is not None:
            variables = {**egress.variables(), "HF_HOME": f"{inside}/.cache/huggingface"}
        if packages is not None:
            variables["PYTHONPATH"] = PACKAGES if self.jail.kind == "bubblewrap" else str(packages)
        order = {
            "door": [theirs.fileno(), PORT] if theirs else None,
            "limits": {
                "DATA": None if gpus else self.limits.memory_bytes,  # drivers of GPUs map more than they use
                "FSIZE": self.limits.file_bytes,
                "NPROC": self.limits.processes if self.jail.kind == "bubblewrap" else None,
                "CORE": 0,
            },
            "variables": {**variables, **self.order["variables"]},
            "cwd": f"{inside}/{self.order['cwd']}",
            "command": self.order["command"],
        }
        inner = [sys.executable, "-I", "-S", "-c", BOOT, json.dumps(order)]
        kept = repository_in(root, self.jail.kind, fresh=False)
        sealed = Path(self.order["sealed"]) if self.order.get("sealed") else None
        nothing = os.open("/dev/null", os.O_RDONLY)
        try:
            process = self.jail.launch(
                root, self.scratch, self.limits, inner, None, theirs.fileno() if theirs else None, packages, gpus, kept, sealed,
                stdin=nothing, stdout=printed, stderr=printed,
            )  # fmt: skip
        finally:
            for number in (nothing, printed):
                os.close(number)
            if theirs is not None:
                theirs.close()
        if egress is not None and ours is not None:
            with contextlib.suppress(OSError), ours:  # it then has no network, and finds so
                egress.take(ours)
        return process, output

    def _watch(self, process: subprocess.Popen[bytes], output: int) -> None:
        """Until it has ended, by itself or not."""
        folders = [folder for folder in (self.root, self.scratch) if folder]
        disk = Disk(folders, self.limits.disk_bytes, self.limits.reserve_bytes)
        ends, open_pipes = self.status["started"] + self.order["seconds"], [output]
        looked, told = 0.0, time.monotonic()
        try:
            while process.poll() is None:
                if select.select(open_pipes, [], [], LOOK_SECONDS)[0] and not self._take(output):
                    open_pipes = []
                if time.monotonic() - looked < LOOK_SECONDS:
                    continue
                looked = time.monotonic()
                if why := self._over(process.pid, disk, ends):
                    self._kill(process)
                    self._end(*why)
                    return
                if looked - told > TELL_SECONDS:  # what it has used so far
                    told = looked
                    if self.order["gpus"]:
                        self.status["gpu_utilization"] = gpu_utilization()
                    self._tell()
        finally:
            disk.close()
        code = process.wait()
        code = code if code >= 0 else 128 - code
        self._end("done" if code == 0 else "failed", "", code)

    def _over(self, pid: int, disk: Disk, ends: float) -> tuple[str, str] | None:
        """Why it has to end now: the state that it ends in, and a reason."""
        gone = self.host is not None and self.host.gone()
        if gone or self.stopping or (self.folder / "stop").exists() or not self.folder.exists():
            return "stopped", ""
        if time.time() >= ends:
            return "timeout", f"it took more than the {self.order['seconds']:g} seconds that it had"
        pids, limit = list(tree(pid)), self.limits.memory_bytes
        used = sum(resident(one) for one in pids)
        if used > limit:
            used = shared(pids)
        self.status["peak_memory_bytes"] = max(used, self.status["peak_memory_bytes"] or 0)
        if used > limit:
            return "failed", f"memory: it and its processes used more than {limit >> 20} MB (ML_INTERN_MEMORY_GB)"
        if len(pids) > self.limits.processes + 8:
            return "failed", f"processes: more than {self.limits.processes} were running"
        if why := disk.look(pids):
            return "failed", f"disk: {why}"
        return None

    def _take(self, output: int) -> bool:
        """What it printed, as it comes; `False` once nothing can come any more."""
        data = os.read(output, BLOCK)
        if data:
            self.log.append(data)
        return bool(data)

    def _drain(self, output: int) -> None:
        ends = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < ends and select.select([output], [], [], 0.05)[0]:
            if not self._take(output):
                return

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None and self.scratch:
            process.terminate()  # the supervisor takes its descendants with it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3.0)
        if process.poll() is None:
            process.kill()
        process.wait()

    def _end(self, state: str, why: str, code: int | None = None) -> None:
        self.status |= {"state": state, "why": why, "exit_code": code, "ended": time.time()}

    def _tell(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # the session was deleted meanwhile
            write_atomically(self.folder / "status.json", self.status)


def gpu_utilization() -> float | None:
    """How busy the GPUs are, in per cent, as NVIDIA's own tool says; `None` where it does not."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        return max(float(line) for line in said.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _gpus(data: dict[str, Any] | None) -> Gpus | None:
    if not data:
        return None
    devices, about = ([(Path(path), place) for path, place in data[name]] for name in ("devices", "about"))
    return Gpus(tuple(devices), tuple(about), tuple(data["groups"]), tuple(data["closed"]))


def main(folder: Path) -> None:
    if os.fork():  # whoever started it need not wait for it
        os._exit(0)
    with (folder / "lock").open("a") as lock:
        ends = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:  # somebody looks whether it runs; or it does
                if time.monotonic() > ends:
                    return
                time.sleep(0.02)
        if not (folder / "status.json").exists():  # a job runs once
            Keeper(folder).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
