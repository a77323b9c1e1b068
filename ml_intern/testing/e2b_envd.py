"""What runs inside every E2B sandbox, envd, written on the server classes that come with the `e2b` package."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.client_shared import ENVD_JSON_CODEC
from e2b.envd.filesystem.filesystem_connect import Filesystem, FilesystemASGIApplication
from e2b.envd.filesystem.filesystem_pb import (
    EntryInfo,
    FileType,
    ListDirRequest,
    ListDirResponse,
    MakeDirRequest,
    MakeDirResponse,
    MoveRequest,
    MoveResponse,
    RemoveRequest,
    RemoveResponse,
    StatRequest,
    StatResponse,
)
from e2b.envd.process.process_connect import Process, ProcessASGIApplication
from e2b.envd.process.process_pb import (
    CloseStdinRequest,
    CloseStdinResponse,
    ConnectRequest,
    ConnectResponse,
    ListRequest,
    ListResponse,
    ProcessConfig,
    ProcessEvent,
    ProcessInfo,
    ProcessSelector,
    SendInputRequest,
    SendInputResponse,
    SendSignalRequest,
    SendSignalResponse,
    StartRequest,
    StartResponse,
    StreamInputRequest,
    StreamInputResponse,
)
from protobuf import Oneof
from protobuf.wkt import Timestamp
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp

from ml_intern.testing.e2b_box import Box, BoxProcess


def applications(box: Box) -> dict[str, ASGIApp]:
    """The box's services, by the beginning of their paths."""
    options: dict[str, Any] = {"codecs": [ENVD_JSON_CODEC], "compressions": (), "read_max_bytes": None}
    processes: Any = ProcessASGIApplication(Processes(box), **options)
    files: Any = FilesystemASGIApplication(Files(box), **options)
    return {"/process.Process/": processes, "/filesystem.Filesystem/": files}


class Processes(Process):
    """`commands` of the client."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def find(self, selector: ProcessSelector | None) -> BoxProcess:
        match selector.selector if selector else None:
            case Oneof(field="pid", value=pid) if pid in self.box.processes:
                return self.box.processes[pid]
        raise ConnectError(Code.NOT_FOUND, "process with that pid was not found")

    async def list(self, request: ListRequest, ctx: Any) -> ListResponse:
        found = []
        for process in self.box.processes.values():
            command, *arguments = process.command
            config = ProcessConfig(cmd=command, args=arguments, envs=process.environment, cwd=process.folder)
            found.append(ProcessInfo(pid=process.pid, config=config))
        return ListResponse(processes=found)

    async def start(self, request: StartRequest, ctx: Any) -> AsyncIterator[StartResponse]:
        asked = request.process or ProcessConfig()
        stdin = request.stdin if request.has_field("stdin") else True
        try:
            process = await self.box.start([asked.cmd, *asked.args], dict(asked.envs), asked.cwd, stdin)
        except (OSError, ValueError) as error:
            raise ConnectError(Code.INVALID_ARGUMENT, f"error starting process: {error}") from error
        milliseconds = ctx.timeout_ms
        limit = None if milliseconds is None else asyncio.get_running_loop().call_later(
            milliseconds / 1000, process.signal, signal.SIGKILL)  # fmt: skip
        try:
            async for event in self.events(process):
                yield StartResponse(event=event)
        finally:
            if limit is not None and process.ended.is_set():
                limit.cancel()

    async def connect(self, request: ConnectRequest, ctx: Any) -> AsyncIterator[ConnectResponse]:
        async for event in self.events(self.find(request.process)):
            yield ConnectResponse(event=event)

    async def events(self, process: BoxProcess) -> AsyncIterator[ProcessEvent]:
        with process.listen() as queue:
            yield ProcessEvent(event=Oneof("start", ProcessEvent.StartEvent(pid=process.pid)))
            while (event := await queue.get()) is not None:
                if event.kind == "end":
                    yield self.end(process)
                    return
                if event.kind == "stdout":
                    data = ProcessEvent.DataEvent(output=Oneof("stdout", event.data))
                else:
                    data = ProcessEvent.DataEvent(output=Oneof("stderr", event.data))
                yield ProcessEvent(event=Oneof("data", data))
        raise ConnectError(Code.UNAVAILABLE, f"the connection to sandbox {self.box.identity} ended")

    def end(self, process: BoxProcess) -> ProcessEvent:
        code = process.process.returncode or 0
        status = f"exit status {code}" if code >= 0 else f"signal: {signal.strsignal(-code) or -code}".lower()
        if 128 < code < 160:  # the jail's own way to report a signal
            code, status = -1, f"signal: {signal.strsignal(code - 128)}".lower()
        ended = ProcessEvent.EndEvent(
            exit_code=max(code, -1), exited=code >= 0, status=status, error=status if code else None
        )
        return ProcessEvent(event=Oneof("end", ended))

    async def send_input(self, request: SendInputRequest, ctx: Any) -> SendInputResponse:
        match request.input.input if request.input else None:
            case Oneof(field="stdin", value=data):
                await self.write(self.find(request.process), data)
        return SendInputResponse()

    async def stream_input(self, request: AsyncIterator[StreamInputRequest], ctx: Any) -> StreamInputResponse:
        process = None
        async for message in request:
            match message.event:
                case Oneof(field="start", value=start):
                    process = self.find(start.process)
                case Oneof(field="data", value=data) if process is not None and data.input is not None:
                    match data.input.input:
                        case Oneof(field="stdin", value=content):
                            await self.write(process, content)
        return StreamInputResponse()

    async def write(self, process: BoxProcess, data: bytes) -> None:
        stdin = process.process.stdin
        if stdin is None:
            raise ConnectError(Code.FAILED_PRECONDITION, "stdin is not open: start the command with stdin=True")
        try:
            stdin.write(data)
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConnectError(Code.INTERNAL, f"error writing to stdin: {error}") from error

    async def close_stdin(self, request: CloseStdinRequest, ctx: Any) -> CloseStdinResponse:
        if (stdin := self.find(request.process).process.stdin) is not None:
            stdin.close()
        return CloseStdinResponse()

    async def send_signal(self, request: SendSignalRequest, ctx: Any) -> SendSignalResponse:
        self.find(request.process).signal(int(request.signal))
        return SendSignalResponse()


class Files(Filesystem):
    """`files` of the client, apart from reading and writing, which are plain HTTP."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def path(self, path: str, *, exists: bool = True) -> Path:
        try:
            found = self.box.host_path(path)
        except PermissionError as error:
            raise ConnectError(Code.PERMISSION_DENIED, f"permission denied: {path}") from error
        if exists and not found.exists() and not found.is_symlink():
            raise ConnectError(Code.NOT_FOUND, f"path not found: {path}")
        return found

    def entry(self, path: Path, name: str) -> EntryInfo:
        about = path.lstat()
        kind = FileType.DIRECTORY if path.is_dir() else FileType.FILE
        modified = datetime.datetime.fromtimestamp(about.st_mtime, datetime.UTC)
        return EntryInfo(
            name=path.name, type=kind, path=name, size=about.st_size, mode=about.st_mode & 0o7777, owner="user",
            group="user", modified_time=Timestamp.from_datetime(modified), is_symlink=path.is_symlink(),
        )  # fmt: skip

    async def stat(self, request: StatRequest, ctx: Any) -> StatResponse:
        return StatResponse(entry=self.entry(self.path(request.path), request.path))

    async def make_dir(self, request: MakeDirRequest, ctx: Any) -> MakeDirResponse:
        path = self.path(request.path, exists=False)
        if path.exists():
            raise ConnectError(Code.ALREADY_EXISTS, f"directory already exists: {request.path}")
        path.mkdir(parents=True)
        return MakeDirResponse(entry=self.entry(path, request.path))

    async def move(self, request: MoveRequest, ctx: Any) -> MoveResponse:
        target = self.path(request.destination, exists=False)
        self.path(request.source).rename(target)
        return MoveResponse(entry=self.entry(target, request.destination))

    async def remove(self, request: RemoveRequest, ctx: Any) -> RemoveResponse:
        path = self.path(request.path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        return RemoveResponse()

    async def list_dir(self, request: ListDirRequest, ctx: Any) -> ListDirResponse:
        root = self.path(request.path)
        if not root.is_dir():
            raise ConnectError(Code.INVALID_ARGUMENT, f"path is not a directory: {request.path}")
        below = list(within(root, max(request.depth, 1)))
        names = [f"{request.path.rstrip('/')}/{path.relative_to(root)}" for path in below]
        return ListDirResponse(entries=[self.entry(path, name) for path, name in zip(below, names, strict=True)])


def within(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if depth > 1 and path.is_dir() and not path.is_symlink():
            yield from within(path, depth - 1)


async def files(request: Request) -> Response:
    """`GET` and `POST /files`."""
    box: Box = request.state.box
    try:
        if request.method == "GET":
            path = box.host_path(request.query_params.get("path", ""))
            if path.is_dir():
                return JSONResponse({"code": 400, "message": f"path '{path.name}' is a directory"}, 400)
            if not path.is_file():
                return JSONResponse(
                    {"code": 404, "message": f"path '{request.query_params.get('path')}' does not exist"}, 404
                )
            return FileResponse(path)
        written = []
        if request.headers.get("content-type", "").startswith("application/octet-stream"):
            name = request.query_params["path"]
            await save(box.host_path(name), request.stream())
            written.append(name)
        else:
            async with request.form() as form:
                for _, upload in form.multi_items():
                    if isinstance(upload, str):
                        continue
                    name = request.query_params.get("path") or upload.filename or ""
                    await save(box.host_path(name), pieces(upload))
                    written.append(name)
    except PermissionError as error:
        return JSONResponse({"code": 403, "message": f"permission denied: {error}"}, 403)
    return JSONResponse([{"name": Path(name).name, "type": "file", "path": name} for name in written])


async def pieces(upload: Any) -> AsyncIterator[bytes]:
    while data := await upload.read(1 << 20):
        yield data


async def save(path: Path, content: AsyncIterator[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("wb"))
        async for piece in content:
            file.write(piece)
