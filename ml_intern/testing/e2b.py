"""`LocalE2B`: an E2B cloud on loopback, for the unmodified `e2b` and `e2b-code-interpreter` clients.

One port answers for the control plane, for envd in every sandbox and for the code interpreter; which sandbox is meant
is in a header. Sandboxes are folders, and processes locked in the machine's own jail.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import secrets
import threading
import urllib.parse
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_intern.execution.jail import find_jail
from ml_intern.testing import e2b_envd, e2b_interpreter
from ml_intern.testing.e2b_box import Box
from ml_intern.testing.serve import Service

ENVD_VERSION = "0.6.7"
DEFAULT_SECONDS = 300
TEMPLATES = ("base", "code-interpreter-v1")
Handler = Callable[[Request], Awaitable[Response]]


class LocalE2B(Service):
    """An E2B cloud with no sandboxes in it.

    Every sandbox has Python and bash of this machine, a home (`/home/user` in bubblewrap) and a `/tmp`, and no network.
    Failures of any request are arranged with [`Service.fail`].

    Args:
        data (`Path`): Folder for the sandboxes' files; each one's are removed when it is killed.
        key (`str`, defaults to `"e2b_local_key"`): The API key that is accepted.
        templates (`tuple[str, ...]`): The templates that exist.
        limit (`int`, defaults to 20): Sandboxes at a time; one more is answered with 429.
        port (`int`, *optional*, defaults to 0): 0 takes a free one.
        unsafe_local (`bool`, defaults to `False`): Where no jail works, run processes with your own rights.

    Attributes:
        boxes (`dict[str, Box]`): The sandboxes, paused ones too, by id.
    """

    def __init__(
        self,
        data: Path,
        *,
        key: str = "e2b_local_key",
        templates: tuple[str, ...] = TEMPLATES,
        limit: int = 20,
        port: int = 0,
        unsafe_local: bool = False,
    ) -> None:
        self.data, self.key, self.templates, self.limit = Path(data), key, templates, limit
        self.jail = find_jail(unsafe_local=unsafe_local)
        self.boxes: dict[str, Box] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._created: dict[str, str] = {}
        self._applications: dict[str, dict[str, ASGIApp]] = {}
        routes = [
            Route("/v2/sandboxes", self._keyed(self._create), methods=["POST"]),
            Route("/v2/sandboxes", self._keyed(self._list), methods=["GET"]),
            Route("/v2/sandboxes/{id}/connect", self._keyed(self._connect), methods=["POST"]),
            Route("/sandboxes/{id}", self._keyed(self._about), methods=["GET"]),
            Route("/sandboxes/{id}", self._keyed(self._delete), methods=["DELETE"]),
            Route("/sandboxes/{id}/timeout", self._keyed(self._timeout), methods=["POST"]),
            Route("/sandboxes/{id}/pause", self._keyed(self._pause), methods=["POST"]),
            Route("/health", self._inside(_healthy), methods=["GET"]),
            Route("/files", self._inside(e2b_envd.files), methods=["GET", "POST"]),
            Route("/execute", self._inside(e2b_interpreter.execute), methods=["POST"]),
            # The client sends no token with these.
            Route("/contexts", self._inside(e2b_interpreter.contexts, token=False), methods=["GET", "POST"]),
            Route("/contexts/{context}", self._inside(e2b_interpreter.context, token=False), methods=["DELETE"]),
            Route("/contexts/{context}/restart", self._inside(e2b_interpreter.context, token=False), methods=["POST"]),
        ]
        self._rest = Starlette(routes=routes)
        super().__init__(self._dispatch, port=port)

    def environment(self) -> dict[str, str]:
        """What to set for a client to come here."""
        return {"E2B_API_KEY": self.key, "E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.url}

    def close(self) -> None:
        """Kills all sandboxes, and stops listening."""
        if self._server is not None and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result(timeout=10)
        super().close()
        self._loop = None

    async def _end_all(self) -> None:
        processes = [process for box in self.boxes.values() for process in box.processes.values()]
        for identity in list(self.boxes):
            self.end(identity)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                for process in processes:
                    await process.process.wait()

    def end(self, identity: str) -> bool:
        """Kills a sandbox, as happens when its time is up. For the service's own thread; see [`~LocalE2B.lose`]."""
        box = self.boxes.pop(identity, None)
        self._applications.pop(identity, None)
        if box is not None:
            box.kill()
        return box is not None

    def lose(self, identity: str) -> None:
        """Kills a sandbox behind its user's back; from any thread."""
        self._in_loop(lambda: self.end(identity))

    def cut_off(self, identity: str) -> None:
        """Breaks the connections to a sandbox's commands, which go on, as a network may do; from any thread."""
        self._in_loop(lambda: [process.cut_off() for process in self.boxes[identity].processes.values()])

    def _in_loop(self, act: Callable[[], object]) -> None:
        if self._loop is None:
            raise RuntimeError("No client has been here yet, so there is no sandbox.")
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (act(), done.set()))
        done.wait(10)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Connect's own applications need the whole path, so they come before Starlette's routes."""
        self._loop = asyncio.get_running_loop()
        for prefix in ("/process.Process/", "/filesystem.Filesystem/"):
            if scope["path"].startswith(prefix):
                found = self._box(Request(scope))
                if isinstance(found, Response):
                    await found(scope, receive, send)
                else:
                    await self._applications[found.identity][prefix](scope, receive, send)
                return
        await self._rest(scope, receive, send)

    # Inside a sandbox

    def _box(self, request: Request, token: bool = True) -> Box | Response:
        box = self.boxes.get(request.headers.get("e2b-sandbox-id", ""))
        if box is None or box.state != "running":
            body = {
                "sandboxId": request.headers.get("e2b-sandbox-id"),
                "message": "The sandbox was not found",
                "code": 502,
            }
            return JSONResponse(body, 502)
        if token and not secrets.compare_digest(request.headers.get("x-access-token", ""), box.token):
            return JSONResponse({"code": 401, "message": "unauthorized: invalid access token"}, 401)
        return box

    def _inside(self, handler: Handler, token: bool = True) -> Handler:
        async def handle(request: Request) -> Response:
            # The probe of a sandbox's health carries no token either.
            found = self._box(request, token and request.url.path != "/health")
            if isinstance(found, Response):
                return found
            request.state.box = found
            return await handler(request)

        return handle

    # The control plane

    def _keyed(self, handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            if not secrets.compare_digest(request.headers.get("x-api-key", ""), self.key):
                return _error(401, "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.")
            return await handler(request)

        return handle

    async def _create(self, request: Request) -> Response:
        asked, again = await request.json(), request.headers.get("idempotency-key", "")
        if again and self._created.get(again) in self.boxes:
            return JSONResponse(_started(self.boxes[self._created[again]]), 201)
        if asked.get("templateID") not in self.templates:
            return _error(404, f"template '{asked.get('templateID')}' not found")
        if len(self.boxes) >= self.limit:
            return _error(429, f"you have reached the maximum number of concurrent sandboxes ({self.limit})")
        identity = f"i{secrets.token_hex(10)}"
        box = self.boxes[identity] = Box(
            identity,
            self.data / identity,
            self.jail,
            asked["templateID"],
            asked.get("metadata") or {},
            asked.get("envVars") or {},
            asked.get("allow_internet_access") is not False,
            bool(asked.get("autoPause")),
        )
        self._applications[identity] = e2b_envd.applications(box)
        self._created[again] = identity
        box.live_until(asked.get("timeout") or DEFAULT_SECONDS, self)
        return JSONResponse(_started(box), 201)

    async def _list(self, request: Request) -> Response:
        asked = request.query_params
        wanted = urllib.parse.parse_qs(asked.get("metadata", ""))
        labels = {urllib.parse.unquote(name): urllib.parse.unquote(value[0]) for name, value in wanted.items()}
        states = asked.get("state", "running,paused").split(",")
        found = [box for box in self.boxes.values() if box.state in states and labels.items() <= box.metadata.items()]
        if "startedAfter" in asked:
            after = datetime.datetime.fromisoformat(asked["startedAfter"])
            found = [box for box in found if box.started > after]
        found.sort(key=lambda box: box.started, reverse=asked.get("order", "desc") == "desc")
        first, size = int(asked.get("nextToken", 0)), int(asked.get("limit", 100))
        more = {"x-next-token": str(first + size)} if len(found) > first + size else {}
        return JSONResponse([_about(box) for box in found[first : first + size]], headers=more)

    def _find(self, request: Request) -> Box | None:
        return self.boxes.get(request.path_params["id"])

    async def _about(self, request: Request) -> Response:
        box = self._find(request)
        return _missing(request) if box is None else JSONResponse(_about(box))

    async def _delete(self, request: Request) -> Response:
        return Response(status_code=204) if self.end(request.path_params["id"]) else _missing(request)

    async def _connect(self, request: Request) -> Response:
        box, seconds = self._find(request), _seconds(await request.body())
        if box is None:
            return _missing(request)
        was_paused = box.state == "paused"
        if was_paused:
            box.resume()
        left = (box.ends - datetime.datetime.now(datetime.UTC)).total_seconds()
        if was_paused or seconds > left:
            box.live_until(seconds, self)
        return JSONResponse(_started(box), 201 if was_paused else 200)

    async def _timeout(self, request: Request) -> Response:
        box, seconds = self._find(request), _seconds(await request.body())
        if box is None or box.state != "running":
            return _missing(request)
        box.live_until(seconds, self)
        return Response(status_code=204)

    async def _pause(self, request: Request) -> Response:
        box = self._find(request)
        if box is None:
            return _missing(request)
        if box.state == "paused":
            return _error(409, f"Sandbox {box.identity} is already paused")
        box.pause()
        return Response(status_code=204)


async def _healthy(request: Request) -> Response:
    return Response(status_code=204)


def _seconds(body: bytes) -> float:
    return (json.loads(body or b"{}") or {}).get("timeout") or DEFAULT_SECONDS


def _error(status: int, message: str) -> Response:
    return JSONResponse({"code": status, "message": message}, status)


def _missing(request: Request) -> Response:
    return _error(404, f"sandbox '{request.path_params['id']}' not found")


def _started(box: Box) -> dict[str, object]:
    return {
        "templateID": box.template,
        "sandboxID": box.identity,
        "clientID": "local",
        "envdVersion": ENVD_VERSION,
        "envdAccessToken": box.token,
        "trafficAccessToken": None,
        "domain": None,
    }


def _about(box: Box) -> dict[str, object]:
    return {
        "templateID": box.template,
        "sandboxID": box.identity,
        "clientID": "local",
        "envdVersion": ENVD_VERSION,
        "startedAt": box.started.isoformat(),
        "endAt": box.ends.isoformat(),
        "cpuCount": 2,
        "memoryMB": 1024,
        "diskSizeMB": 10_240,
        "state": box.state,
        "metadata": box.metadata,
        "allowInternetAccess": box.internet,
    }
