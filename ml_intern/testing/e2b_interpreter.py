"""What answers on a code interpreter sandbox's port 49999: cells, in contexts that keep their variables."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import signal
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ml_intern.execution import notebook
from ml_intern.testing.e2b_box import Box, BoxProcess, Event
from ml_intern.testing.faults import HangUp

DRAIN_SECONDS = 0.5
# Children print into stderr, which is shown as the cell's output; only reports go out on stdout.
LOOP = """
import os, signal, threading
_out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
_in = os.fdopen(os.dup(0))
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
_jobs = __import__("queue").SimpleQueue()
def _listen():
    for line in _in:
        message = json.loads(line)
        if "code" in message:
            _jobs.put(message)
        else:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    os._exit(0)
def _emit(report):
    if report["type"] == "end_of_execution":
        os.write(2, b"\\0")
    print(json.dumps(report), file=_out, flush=True)
_notebook = Notebook(_emit)
threading.Thread(target=_listen, daemon=True).start()
while True:
    try:
        _job = _jobs.get()
        os.environ.update(_job["environment"])
        _notebook.run(_job["code"])
    except KeyboardInterrupt:
        print(json.dumps({"type": "idle"}), file=_out, flush=True)
"""


class Kernel:
    """A context: one Python process in the box."""

    def __init__(self, box: Box, folder: str) -> None:
        self.box, self.folder = box, folder
        self.identity = str(uuid.uuid4())
        self.process: BoxProcess | None = None
        self.busy = asyncio.Lock()
        self.interrupting: asyncio.Task[None] | None = None

    def about(self) -> dict[str, str]:
        return {"id": self.identity, "language": "python", "cwd": self.folder}

    def end(self) -> None:
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
            self.box.processes.pop(self.process.pid, None)
            self.process = None

    async def send(self, message: dict[str, Any]) -> None:
        assert self.process is not None
        assert self.process.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.process.stdin.write(json.dumps(message).encode() + b"\n")
            await self.process.process.stdin.drain()

    async def run(self, code: str, environment: dict[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """The reports of a cell. Given up half-way, it is interrupted."""
        await self.busy.acquire()
        finished, buffer = False, b""
        try:
            if self.process is None or self.process.ended.is_set():
                program = Path(notebook.__file__).read_text(encoding="utf-8") + LOOP
                self.process = await self.box.start(
                    ["python3", "-s", "-P", "-u", "-c", program], {}, self.folder, True
                )
            with self.process.listen() as queue:
                await self.send({"code": code, "environment": environment})
                ended = drained = False
                while (event := await self._next(queue, ended)) is not None and event.kind != "end":
                    if event.kind == "stderr":
                        drained = drained or b"\0" in event.data
                        if text := event.data.decode("utf-8", "replace").replace("\0", ""):
                            yield {"type": "stdout", "text": text}
                    else:
                        *lines, buffer = (buffer + event.data).split(b"\n")
                        for line in lines:
                            report = json.loads(line)
                            ended = ended or report["type"] == "end_of_execution"
                            if not ended:
                                yield report
                    if ended and drained:
                        finished = True
                        yield {"type": "end_of_execution"}
                        return
            finished = True
            if event is None:
                raise HangUp
            self.end()
            text = "The Python kernel was restarted: its process ended."
            yield {"type": "error", "name": "ContextRestarting", "value": text, "traceback": ""}
            yield {"type": "unexpected_end_of_execution"}
        finally:
            if finished:
                self.busy.release()
            else:  # what hung up is being cancelled, and could wait for nothing
                self.interrupting = asyncio.create_task(self._interrupt())

    @staticmethod
    async def _next(queue: asyncio.Queue[Event | None], ended: bool) -> Event | None:
        """What comes next; once the cell has ended, what its children wrote may come a little later."""
        if not ended:
            return await queue.get()
        try:
            return await asyncio.wait_for(queue.get(), DRAIN_SECONDS)
        except TimeoutError:
            return Event("stderr", b"\0")

    async def _interrupt(self) -> None:
        """For a client that hung up. Code that does not stop holds the context until it is restarted."""
        try:
            if self.process is None:
                return
            with self.process.listen() as queue:
                await self.send({"interrupt": True})
                while (event := await queue.get()) is not None and event.kind != "end":
                    if b'"idle"' in event.data:
                        return
        finally:
            self.busy.release()


def default(box: Box) -> Kernel:
    if "default" not in box.kernels:
        box.kernels["default"] = Kernel(box, box.home)
    return box.kernels["default"]


def find(box: Box, identity: str) -> Kernel | None:
    return next((kernel for kernel in box.kernels.values() if kernel.identity == identity), None)


async def execute(request: Request) -> Response:
    """`POST /execute`: newline-delimited JSON, one report a line."""
    box, asked = request.state.box, await request.json()
    if asked.get("language") not in (None, "python"):
        return JSONResponse({"detail": f"No kernel for language {asked['language']}"}, 400)
    kernel = find(box, asked["context_id"]) if asked.get("context_id") else default(box)
    if kernel is None:
        return JSONResponse({"detail": f"Context {asked['context_id']} not found"}, 404)
    reports = kernel.run(asked["code"], asked.get("env_vars") or {})

    async def lines() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(reports):
            async for report in reports:
                if report["type"] in ("stdout", "stderr"):
                    report["timestamp"] = datetime.datetime.now(datetime.UTC).isoformat()
                yield json.dumps(report).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def contexts(request: Request) -> Response:
    """`GET`, `POST /contexts`."""
    box = request.state.box
    if request.method == "GET":
        default(box)
        return JSONResponse([kernel.about() for kernel in box.kernels.values()])
    asked = await request.json()
    kernel = Kernel(box, asked.get("cwd") or box.home)
    box.kernels[kernel.identity] = kernel
    return JSONResponse(kernel.about())


async def context(request: Request) -> Response:
    """`DELETE /contexts/{id}`, `POST /contexts/{id}/restart`."""
    box, identity = request.state.box, request.path_params["context"]
    kernel = find(box, identity)
    if kernel is None:
        return JSONResponse({"detail": f"Context {identity} not found"}, 404)
    kernel.end()
    if request.method == "DELETE":
        box.kernels = {name: other for name, other in box.kernels.items() if other is not kernel}
    return Response(status_code=204 if request.method == "DELETE" else 200)
