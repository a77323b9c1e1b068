"""Jobs on this machine: programs that run for hours in a jail of their own, on a session's workspace.

What must never happen here: a job is started twice; one that was told to stop, or whose time is up, leaves a process
behind; a job reaches what the code of its session cannot reach, or what is known of it (state, log) can be changed from
inside; a job ends because the session sleeps, or because its process died; what a job was given sealed is not what it read;
anything but what it prints comes out of a program that runs alone.

Each job has a folder outside the jail's reach, and a keeper: a small process that starts the jail, serves its door to the
network, writes the log and the state, and ends it all when it has to (`job_keeper.py`). A session that wakes, here or after a
crash, finds its jobs in that folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ml_intern.errors import InternError
from ml_intern.execution.action import pause
from ml_intern.execution.executor import JailExecutor
from ml_intern.execution.gpus import CHOICES, Gpus
from ml_intern.execution.jail import SEALED, open_to_read
from ml_intern.execution.job_keeper import write_atomically
from ml_intern.execution.job_log import JobLog
from ml_intern.execution.workspace import Workspace

MOST_RUNNING = 4
PROCESSES = 2048
"""Processes and threads of a job: each that loads data has as many threads as there are cores."""
START_SECONDS = 60.0
STOP_SECONDS = 20.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch
PASSED = ("PATH", "HOME", "LANG", "TMPDIR", "HF_ENDPOINT", "XDG_CACHE_HOME", "MPLCONFIGDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
          "LD_LIBRARY_PATH", *CHOICES)  # fmt: skip
"""What the keeper gets of the environment, besides the addresses of proxies."""
Names = list[str]


class JobError(InternError, RuntimeError):
    """A job that cannot be started, or that is not there."""


class LocalJobs:
    """The jobs of one session.

    Args:
        executor (`JailExecutor`, *optional*): Where the session's code runs: jobs get the same workspace, kind of jail,
            network, packages and GPUs, and as much memory and disk. Without it none can be started.
        folder (`Path`, *optional*): Where their folders lie, made when the first one starts. Without it they lie in a
            temporary one, and do not outlive this object (see [`close`]) or this process.
    """

    def __init__(self, executor: JailExecutor | None, folder: Path | None = None) -> None:
        self._executor, self.folder = executor, folder
        self._temporary: Path | None = None

    @property
    def workspace(self) -> Workspace:
        """Where they run. Raises `JobError`: nobody works with them."""
        if self._executor is None:
            raise JobError("There is no workspace", "these jobs' session is not at work")
        return self._executor.workspace

    def inside(self, sealed: Path) -> str:
        """Where a job sees the folder that it was given `sealed`."""
        executor = self._executor
        return SEALED if executor is not None and executor.jail == "bubblewrap" else str(sealed)

    def start(
        self, job_id: str, command: Sequence[str], *, cwd: str = ".", seconds: float, variables: Mapping[str, str] = {},
        sealed: Path | None = None,
    ) -> None:  # fmt: skip
        """Starts a job, unless one of this name was started before.

        Args:
            job_id (`str`): Its name: letters, digits, `.`, `_`, `-`.
            command (`Sequence[str]`): Program and arguments, as the code of the session would start them.
            cwd (`str`, defaults to `"."`): Folder in the workspace.
            seconds (`float`): When it is ended.
            variables (`Mapping[str, str]`): More of its environment.
            sealed (`Path`, *optional*): A folder of this host's, out of the code's reach, that it may read (at
                [`inside`]) and not change.

        Raises:
            JobError: too many run already; its keeper did not start.
            JailUnavailable: there is no jail.
        """
        folder = self._of(job_id)
        if not folder.exists():
            running = [name for name in self.list() if self.status(name)["state"] == "running"]
            if len(running) >= MOST_RUNNING:
                raise JobError(
                    "The job was not started", f"{len(running)} run already: {', '.join(running)}",
                    "Wait for one of them, or stop one.",
                )  # fmt: skip
            order = self._order(command, self.workspace.relative(cwd), seconds, variables)
            self._write_order(folder, order | {"sealed": str(sealed) if sealed else None})
        self._begin(folder)

    def alone(self, files: Mapping[str, bytes], command: Sequence[str], seconds: float) -> tuple[dict[str, Any], str]:
        """Runs a program on nothing but the files it is given: no workspace, no network, and no other trace than what it
        printed, which is given to the caller alone. It is none of the session's jobs.

        Args:
            files (`Mapping[str, bytes]`): Name to content; it reads them at `{sealed}/<name>`, in `command` as well.
            command (`Sequence[str]`): Program and arguments.
            seconds (`float`): When it is ended.

        Returns:
            `tuple[dict, str]`: Its status, as `status` gives it, and the end of what it printed, 4 MB at most.

        Raises:
            JobError: it did not start, or nothing here can keep it from what lies around it.
        """
        executor = self._executor
        if executor is None or executor.jail == "none":
            raise JobError("Nothing runs alone here", "there is no jail", "Install bubblewrap.")
        own = LocalJobs(executor)  # a temporary folder, which its keeper removes should this process die
        try:
            folder = own._of("alone")
            root, sealed = folder.parent / "root", folder.parent / "sealed"
            for made in (root, sealed):
                made.mkdir()
            for name, content in files.items():
                (sealed / name).write_bytes(content)
            open_to_read(sealed)
            words = [word.replace("{sealed}", own.inside(sealed)) for word in command]
            order = own._order(words, ".", seconds, {}) | {"root": str(root), "sealed": str(sealed)}
            own._write_order(folder, order | {"network": "none", "hosts": [], "gpus": None})
            own._begin(folder)
            return own.wait("alone", seconds + START_SECONDS), own.logs("alone", -4_000_000, 4_000_000)[0]
        finally:
            own.close()

    def _begin(self, folder: Path) -> None:
        ends = time.monotonic() + START_SECONDS
        self._keep(folder)
        while not (folder / "status.json").exists():
            if time.monotonic() > ends:
                raise JobError("The job did not start", f"its keeper said nothing: {self._keeper_words(folder)}")
            time.sleep(0.02)

    def status(self, job_id: str) -> dict[str, Any]:
        """How it stands.

        Returns:
            `dict`: `state` (`running`, `done`, `failed`, `stopped`, `timeout`, or `lost`: its keeper died), `exit_code`,
            `started` and `ended` (seconds since the epoch), `peak_memory_bytes`, `why` (where it was ended).

        Raises:
            JobError: there is no such job.
        """
        folder = self._known(job_id)
        status = self._read(folder)
        if status["state"] == "running" and not self._held(folder):
            status = self._read(folder)  # it may have ended in between
            starts = not (folder / "status.json").exists() and time.time() - status["started"] < START_SECONDS
            if status["state"] == "running" and not starts:
                status |= {"state": "lost", "why": "the process that watched over it was killed, and the job with it"}
        return status

    def about(self, job_id: str) -> dict[str, Any]:
        """What was ordered: `command`, `cwd`, `seconds`, `variables`. Raises `JobError`: there is no such job."""
        order = json.loads((self._known(job_id) / "order.json").read_text(encoding="utf-8"))
        return {name: order[name] for name in ("command", "cwd", "seconds", "variables")}

    def logs(self, job_id: str, offset: int = 0, limit: int = 100_000) -> tuple[str, int]:
        """What it printed, from an offset on (negative: so many bytes before the end), and the offset that follows."""
        return JobLog(self._known(job_id)).read(offset, limit)

    def stop(self, job_id: str) -> None:
        """Ends it and all that it started; one that has ended stays as it is. Returns when it has.

        Raises:
            JobError: there is no such job; it does not end.
        """
        folder = self._known(job_id)
        (folder / "stop").touch()
        if self._wait(job_id, STOP_SECONDS, time.sleep)["state"] == "running":
            raise JobError(f"The job {job_id} does not end", "its keeper does not answer", f"See {folder}/keeper.log.")

    def wait(self, job_id: str, seconds: float) -> dict[str, Any]:
        """Its status once it has ended, or after `seconds`, or at once where the action that asks is interrupted."""
        return self._wait(job_id, seconds, pause)

    def _wait(self, job_id: str, seconds: float, sleep: Callable[[float], Any]) -> dict[str, Any]:
        ends, next_look = time.monotonic() + seconds, 0.02
        while (status := self.status(job_id))["state"] == "running" and (left := ends - time.monotonic()) > 0:
            if sleep(min(next_look, left)):
                break
            next_look = min(next_look * 1.5, 0.5)
        return status

    def list(self) -> Names:
        """Names of all jobs, the oldest first."""
        home = self.folder or self._temporary
        if home is None or not home.is_dir():
            return []
        found = [path for path in home.iterdir() if (path / "order.json").exists()]
        return [
            path.name for path in sorted(found, key=lambda path: ((path / "order.json").stat().st_mtime_ns, path.name))
        ]

    def running(self) -> Names:
        return [name for name in self.list() if self.status(name)["state"] == "running"]

    def stop_all(self) -> None:
        """Ends those that run."""
        running = self.running()
        for name in running:
            (self._known(name) / "stop").touch()
        for name in running:
            self.stop(name)

    def close(self) -> None:
        """The end of the agent: jobs that nobody could find again are ended, others go on."""
        if self._temporary is not None and self.folder is None:
            self.stop_all()
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    # Their folders

    def _of(self, job_id: str) -> Path:
        if not NAME(job_id):
            raise JobError(f"{job_id[:100]!r} is no name of a job", "letters, digits, '.', '_' and '-' make one")
        if self.folder is None and self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="ml-intern-jobs-")).resolve()
        home = self.folder or self._temporary
        assert home is not None
        return home / job_id

    def _known(self, job_id: str) -> Path:
        folder = self._of(job_id)
        if not (folder / "order.json").exists():
            known = ", ".join(self.list()[-10:]) or "none"
            raise JobError(f"There is no job {job_id}", f"those of this session are: {known}")
        return folder

    def _order(
        self, command: Sequence[str], cwd: str, seconds: float, variables: Mapping[str, str]
    ) -> dict[str, Any]:  # fmt: skip
        executor, workspace = self._executor, self.workspace
        assert executor is not None
        limits = replace(executor.limits, processes=PROCESSES)
        gpus = executor.gpus
        return {
            "command": [str(part) for part in command],
            "cwd": cwd,
            "seconds": float(seconds),
            "variables": {str(name): str(value) for name, value in variables.items()},
            "root": str(workspace.root),
            "jail": executor.jail,
            "limits": asdict(limits),
            "network": executor.network,
            "hosts": list(executor.hosts),
            "packages": str(executor.packages) if executor.packages else None,
            "gpus": _plain(gpus) if isinstance(gpus, Gpus) else gpus,
            "host": os.getpid()
            if self.folder is None
            else None,  # whose end is theirs, as nobody could find them again
        }

    def _write_order(self, folder: Path, order: dict[str, Any]) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        write_atomically(new / "order.json", order)
        try:
            new.rename(folder)
        except OSError:  # somebody else was faster
            shutil.rmtree(new, ignore_errors=True)

    def _keep(self, folder: Path) -> None:
        """Starts the keeper, which sees for itself whether there is anything to do."""
        if (folder / "status.json").exists() or self._held(folder):
            return
        environment = {name: os.environ[name] for name in PASSED if name in os.environ}
        environment |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        home = str(Path(__file__).resolve().parents[2])
        if (
            home not in site.getsitepackages()
        ):  # it is found there as it is, and nothing should stand before Python's own
            environment["PYTHONPATH"] = home
        command = [sys.executable, "-s", "-P", "-m", "ml_intern.execution.job_keeper", str(folder)]
        with (folder / "keeper.log").open("ab") as words:
            subprocess.run(
                command, env=environment, cwd="/", start_new_session=True, check=False, timeout=START_SECONDS,
                stdin=subprocess.DEVNULL, stdout=words, stderr=words,
            )  # fmt: skip

    def _read(self, folder: Path) -> dict[str, Any]:
        try:
            return json.loads((folder / "status.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            started = (folder / "order.json").stat().st_mtime
            return {
                "state": "running",
                "exit_code": None,
                "started": started,
                "ended": None,
                "peak_memory_bytes": None,
                "why": "",
            }

    def _held(self, folder: Path) -> bool:
        """Whether its keeper lives."""
        try:
            with (folder / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def _keeper_words(self, folder: Path) -> str:
        with contextlib.suppress(OSError):
            return (folder / "keeper.log").read_text(encoding="utf-8", errors="replace")[-500:].strip()
        return ""


def _plain(gpus: Gpus) -> dict[str, Any]:
    data = asdict(gpus)
    return data | {name: [(str(path), place) for path, place in data[name]] for name in ("devices", "about")}
