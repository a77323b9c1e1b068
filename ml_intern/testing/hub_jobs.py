"""The local Hub's Jobs: what is submitted really runs, as a process of this machine. A stand-in for tests: there is no container.

Of the real service's answers the client needs: https://huggingface.co/docs/hub/jobs and huggingface_hub's `_jobs_api.py`.
What differs: the image is not used (`uv run SCRIPT` runs the script with this Python, and installs nothing), machines are
there at once, and bills are made up by the second.
"""

import asyncio
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ml_intern.testing.hub_http import Call, Routes, object_id
from ml_intern.testing.hub_store import Refused

routes = Routes()
TERMINAL = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
DEFAULT_SECONDS = 1800
PAGE = 20
LOOK_SECONDS = 0.05
# name, pretty name, CPU, RAM, accelerator (model, quantity, memory), micro-dollars a minute
MACHINES = (
    ("cpu-basic", "CPU Basic", "2 vCPU", "16 GB", None, 167),
    ("cpu-upgrade", "CPU Upgrade", "8 vCPU", "32 GB", None, 500),
    ("t4-small", "Nvidia T4 - small", "4 vCPU", "15 GB", ("T4", "1", "16 GB"), 6_667),
    ("a10g-small", "Nvidia A10G - small", "4 vCPU", "15 GB", ("A10G", "1", "24 GB"), 16_667),
    ("a100-large", "Nvidia A100 - large", "12 vCPU", "142 GB", ("A100", "1", "80 GB"), 41_667),
    ("h200x8", "8x Nvidia H200", "184 vCPU", "2048 GB", ("H200", "8", "1128 GB"), 666_667),
)
UV = """import os, sys
words = sys.argv[1:]
if words[:1] != ["run"]:
    sys.exit("the local uv only runs scripts")
words = words[1:]
while words and words[0].startswith("-") and words[0] != "-":
    words = words[2:] if words[0] in ("--with", "--python", "-p") else words[1:]
os.execv(sys.executable, [sys.executable, *words])
"""


@dataclass
class Job:
    """One job: what was asked for, and how it stands."""

    id: str
    namespace: str
    spec: dict[str, Any]
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    stage: str = "SCHEDULING"
    message: str | None = None
    lines: list[dict[str, str]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    gone: bool = False
    """Deleted: nothing is known of it any more."""

    @property
    def over(self) -> bool:
        return self.stage in TERMINAL

    @property
    def running_seconds(self) -> float:
        return 0.0 if self.started is None else (self.finished or time.time()) - self.started

    def info(self, owner: dict[str, str]) -> dict[str, Any]:
        """As the service describes it."""
        waited = (self.started or self.finished or time.time()) - self.created
        return {
            "id": self.id,
            "createdAt": _time(self.created),
            "startedAt": _time(self.started),
            "finishedAt": _time(self.finished),
            "dockerImage": self.spec.get("dockerImage"),
            "spaceId": self.spec.get("spaceId"),
            "command": self.spec.get("command"),
            "arguments": self.spec.get("arguments", []),
            "environment": self.spec.get("environment", {}),
            "secrets": dict.fromkeys(self.spec.get("secrets", {})),
            "flavor": self.spec["flavor"],
            "labels": self.spec.get("labels", {}),
            "timeout": self.spec.get("timeoutSeconds", DEFAULT_SECONDS),
            "status": {"stage": self.stage, "message": self.message, "failureCount": int(self.stage == "ERROR")},
            "durations": {
                "schedulingSecs": int(waited),
                "runningSecs": int(self.running_seconds) if self.started else None,
                "totalSecs": int((self.finished or time.time()) - self.created),
            },
            "owner": owner,
            "initiator": owner,
        }


class Jobs:
    """All jobs of a local Hub.

    Args:
        folder (`Path`): Where they run, each in a folder of its own.

    Attributes:
        credit (`dict[str, float]`): Dollars that a namespace has left. One that is not named has enough.
        machines (`tuple`): The hardware that there is: see `MACHINES`.
        scheduling_seconds (`float`): How long a job waits for its machine.
        keep_alive_seconds (`float`): How often a log without news says that it is still there.
        gpu_utilization (`int`): How busy the GPUs of jobs are, in per cent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[str, Job] = {}
        self.credit: dict[str, float] = {}
        self.filters = True
        """Whether the list looks at labels, as the Hub's does; not every service that speaks its protocol has to."""
        self.machines = MACHINES
        self.scheduling_seconds, self.keep_alive_seconds, self.gpu_utilization = 0.0, 30.0, 90
        self.environment: dict[str, str] = {}
        """What all jobs have in their environment besides their own: the address of this Hub."""
        self._lock = threading.RLock()

    def price(self, flavor: str) -> float:
        """Dollars a minute. Raises `KeyError` where there is no such machine."""
        return {name: micro / 1e6 for name, *_, micro in self.machines}[flavor]

    def submit(self, namespace: str, spec: dict[str, Any]) -> Job:
        with self._lock:
            job = Job(object_id(secrets.token_hex(8)), namespace, spec)
            self.jobs[job.id] = job
        threading.Thread(target=self._run, args=(job,), name=f"job-{job.id}", daemon=True).start()
        return job

    def cancel(self, job: Job, stage: str = "CANCELED", message: str | None = None) -> None:
        with self._lock:
            if job.over:
                return
            job.stage, job.message = stage, message
            self._kill(job)

    def delete(self, job_id: str) -> None:
        """Ends a job and forgets it, as if somebody had done so on its page."""
        job = self.jobs[job_id]
        self.cancel(job, "DELETED")
        job.gone = True

    def close(self) -> None:
        """Ends all that runs."""
        for job in list(self.jobs.values()):
            self.cancel(job)

    def _kill(self, job: Job) -> None:
        if job.process is not None and job.process.poll() is None:
            os.killpg(job.process.pid, signal.SIGKILL)

    def _run(self, job: Job) -> None:
        ends = time.time() + self.scheduling_seconds
        while time.time() < ends and not job.over:
            time.sleep(LOOK_SECONDS)
        home = self.folder / job.id
        home.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if job.over:
                job.finished = time.time()
                return
            job.stage, job.started = "RUNNING", time.time()
            self._say(job, f"===== Job started at {_time(job.started)} =====")
            try:
                job.process = subprocess.Popen(
                    [*(job.spec.get("command") or []), *(job.spec.get("arguments") or [])], cwd=home, env=self._environment(job),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                job.stage, job.message, job.finished = "ERROR", f"the command does not start: {error}", time.time()
                return
        timer = threading.Timer(
            float(job.spec.get("timeoutSeconds") or DEFAULT_SECONDS), self.cancel, (job, "ERROR", "Job timeout")
        )
        timer.daemon = True
        timer.start()
        for line in _lines(job.process):
            self._say(job, line)
        code = job.process.wait()
        timer.cancel()
        with self._lock:
            job.finished = time.time()
            if not job.over:
                job.stage = "COMPLETED" if code == 0 else "ERROR"
                job.message = None if code == 0 else f"Job failed with exit code: {code}. Reason: Error."
            if job.namespace in self.credit:
                self.credit[job.namespace] -= self.price(job.spec["flavor"]) * job.running_seconds / 60

    def _say(self, job: Job, line: str) -> None:
        job.lines.append({"data": line, "timestamp": _time(time.time()) or ""})

    def _environment(self, job: Job) -> dict[str, str]:
        tools = self.folder / "bin"
        if not (tools / "uv").exists():
            tools.mkdir(parents=True, exist_ok=True)
            (tools / "uv.py").write_text(UV)
            # By way of a shell: a first line that names an interpreter takes no spaces in its path.
            run = shlex.join([sys.executable, str(tools / "uv.py")])
            (tools / "uv").write_text(f'#!/bin/sh\nexec {run} "$@"\n')
            (tools / "uv").chmod(0o755)
        own = {**(job.spec.get("environment") or {}), **(job.spec.get("secrets") or {})}
        return {
            "PATH": f"{tools}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / job.id),
            "LANG": "C.UTF-8",
            "JOB_ID": job.id,
            "ACCELERATOR": job.spec["flavor"],
            **self.environment,
            **{str(name): str(value) for name, value in own.items()},
        }

    def forget(self) -> None:
        """Removes what jobs left on the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.decode("utf-8", "replace").rstrip("\n")


def _time(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _namespace(call: Call) -> str:
    """The namespace in the path, if the user belongs to it."""
    namespace, user = unquote(call.params["space"]), call.known()
    if not user.belongs_to(namespace):
        raise Refused(403, f'You are not a member of the namespace "{namespace}".')
    return namespace


def _job(call: Call) -> Job:
    namespace, job = _namespace(call), call.hub.jobs.jobs.get(unquote(call.params["job"]))
    if job is None or job.gone or job.namespace != namespace:
        raise Refused(404, "Job not found")
    return job


def _info(call: Call, job: Job) -> dict[str, Any]:
    kind = "user" if call.known().name == job.namespace else "org"
    return job.info({"id": object_id(job.namespace), "name": job.namespace, "type": kind})


def _hardware(call: Call) -> Response:
    """What machines there are, and what they cost."""
    found = []
    for name, pretty, cpu, ram, accelerator, micro in call.hub.jobs.machines:
        machine: dict[str, Any] = {
            "name": name,
            "prettyName": pretty,
            "cpu": cpu,
            "ram": ram,
            "ephemeralStorage": "50 GB",
        }
        if accelerator:
            model, quantity, vram = accelerator
            machine["accelerator"] = {
                "type": "gpu", "model": model, "quantity": quantity, "vram": vram, "manufacturer": "Nvidia",
            }  # fmt: skip
        found.append({**machine, "unitCostMicroUSD": micro, "unitCostUSD": micro / 1e6, "unitLabel": "minute"})
    return JSONResponse(found)


@routes.add("POST", "/api/jobs/{space}")
def submit(call: Call) -> Response:
    """Starts a job."""
    namespace, spec, jobs = unquote(call.params["space"]), call.json(), call.hub.jobs
    call.may_write(namespace)
    names = [name for name, *_ in jobs.machines]
    if spec.get("flavor") not in names:
        wanted = "|".join(f'"{name}"' for name in names)
        raise Refused(400, f"Invalid option: expected one of {wanted} at flavor")
    if not spec.get("command") or bool(spec.get("dockerImage")) == bool(spec.get("spaceId")):
        raise Refused(400, "A job needs a `command`, and either a `dockerImage` or a `spaceId`")
    for key, value in (spec.get("labels") or {}).items():
        if not all(len(word) <= 100 and all(c.isalnum() or c in "-_." for c in word) for word in (key, str(value))):
            raise Refused(400, f"Invalid label {key!r}")
    if any(len(word) >= 1 << 17 for word in [*spec["command"], *map(str, (spec.get("environment") or {}).values())]):
        raise Refused(413, "A job's command and environment are at most 128 kB each")
    if jobs.credit.get(namespace, 1.0) <= 0:
        raise Refused(
            402, "Pre-paid credit balance is insufficient - add more credits to your account to use Jobs."
        )  # fmt: skip
    return JSONResponse(_info(call, jobs.submit(namespace, spec)))


@routes.add("GET", "/api/jobs/{space}")
def listing(call: Call) -> Response:
    """Jobs of a namespace, newest first, a page at a time; or what they can run on."""
    if call.params["space"] == "hardware":
        return _hardware(call)
    namespace, stages = _namespace(call), {stage.upper() for stage in call.many("stage")}
    labels = call.many("label") if call.hub.jobs.filters else []
    wanted = dict(label.partition("=")[::2] for label in labels)
    found = [
        job
        for job in reversed(list(call.hub.jobs.jobs.values()))
        if job.namespace == namespace
        and not job.gone
        and (not stages or job.stage in stages)
        and wanted.items() <= {key: str(value) for key, value in (job.spec.get("labels") or {}).items()}.items()
    ]
    start = call.number("cursor", 0)
    more = call.next_page(str(start + PAGE)) if len(found) > start + PAGE else {}
    return JSONResponse([_info(call, job) for job in found[start : start + PAGE]], headers=more)


@routes.add("GET", "/api/jobs/{space}/{job}")
def inspect(call: Call) -> Response:
    """How a job stands."""
    return JSONResponse(_info(call, _job(call)))


@routes.add("POST", "/api/jobs/{space}/{job}/cancel")
def cancel(call: Call) -> Response:
    """Ends a job; one that has ended stays as it is."""
    job = _job(call)
    call.may_write(job.namespace)
    call.hub.jobs.cancel(job)
    return JSONResponse(_info(call, job))


@routes.add("PUT", "/api/jobs/{space}/{job}/labels")
def label(call: Call) -> Response:
    """Other labels in place of those it has."""
    job = _job(call)
    call.may_write(job.namespace)
    job.spec["labels"] = call.json().get("labels") or {}
    return JSONResponse(_info(call, job))


@routes.stream("GET", "/api/jobs/{space}/{job}/logs")
async def logs(call: Call, _: Request) -> Response:
    """What a job prints, from its beginning or its last lines on, as it comes; it ends with the job."""
    job, jobs = _job(call), call.hub.jobs
    begin = max(0, len(job.lines) - call.number("tail", len(job.lines)))

    async def events() -> AsyncIterator[str]:
        at, heard = begin, time.monotonic()
        while True:
            ended = job.over and job.finished is not None
            while at < len(job.lines):
                yield f"data: {json.dumps(job.lines[at])}\n\n"
                at, heard = at + 1, time.monotonic()
            if ended or job.gone:
                return
            if time.monotonic() - heard > jobs.keep_alive_seconds:
                yield ": keep-alive\n\n"
                heard = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    return StreamingResponse(events(), media_type="text/event-stream")


@routes.stream("GET", "/api/jobs/{space}/{job}/metrics")
async def metrics(call: Call, _: Request) -> Response:
    """What a job uses of its machine, each second; nothing once it has ended."""
    job = _job(call)
    if job.over:
        raise Refused(406, "The job has ended")

    async def events() -> AsyncIterator[str]:
        while not job.over:
            busy = {"a1b2c3d4": {"utilization": call.hub.jobs.gpu_utilization, "memory_used_bytes": 0,
                                 "memory_total_bytes": 16 << 30}}  # fmt: skip
            gpus = busy if any(name == job.spec["flavor"] and gpu for name, *_, gpu, _ in MACHINES) else {}
            used = {"cpu_usage_pct": 50, "cpu_millicores": 2000, "memory_used_bytes": 1 << 30, "memory_total_bytes": 16 << 30,
                    "rx_bps": 0, "tx_bps": 0, "gpus": gpus, "replica": job.id[:5]}  # fmt: skip
            yield f"event: metric\ndata: {json.dumps(used)}\n\n"
            await asyncio.sleep(1.0)

    return StreamingResponse(events(), media_type="text/event-stream")
