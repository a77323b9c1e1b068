"""The Web API of the local Slack, and what lies in its workspace."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .serve import Service
from .slack_limits import modal_problems, problems
from .slack_socket import SocketMode

TEAM, BOT = "T1", "UBOT"
SCOPES = {
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "chat.postEphemeral": "chat:write",
    "files.getUploadURLExternal": "files:write",
    "files.completeUploadExternal": "files:write",
    "conversations.info": "channels:read",
    "conversations.replies": "channels:history",
    "conversations.history": "channels:history",
}
"""What a method asks for; those that are not named ask for nothing."""


@dataclass
class Message:
    """A message as it stands in a channel. `edits` counts its updates; `to` is whose it is, of one that only they see."""

    channel: str
    ts: str
    user: str
    text: str
    thread_ts: str = ""
    blocks: list[dict[str, Any]] = field(default_factory=list)
    edits: int = 0
    to: str = ""
    metadata: Any = None

    @property
    def shown(self) -> str:
        """All text that a person sees of it."""
        return "\n".join([self.text, *_texts(self.blocks)])

    def buttons(self) -> dict[str, dict[str, Any]]:
        """Its buttons by `action_id`."""
        elements = [one for block in self.blocks if block["type"] == "actions" for one in block["elements"]]
        return {one["action_id"]: one for one in elements}


@dataclass
class Upload:
    """A file that came in."""

    id: str
    name: str
    length: int
    data: bytes = b""
    channel: str = ""
    thread_ts: str = ""
    title: str = ""


class Workspace:
    """A workspace with channels, people and one app, as the Web API shows it.

    Args:
        port (`int`): Of the Web API; 0 takes a free one.
        patience (`float`): Seconds that Socket Mode waits for an acknowledgement.
    """

    def __init__(self, port: int, patience: float) -> None:
        self.bot_token, self.app_token = "xoxb-" + "local-0123456789", "xapp-" + "local-0123456789"
        self.service = Service(
            Starlette(
                routes=[
                    Route("/api/{method}", self._api, methods=["GET", "POST"]),
                    Route("/upload/{id}", self._upload, methods=["POST"]),
                    Route("/files/{id}", self._download),
                    Route("/respond/{id}", self._responded, methods=["POST"]),
                ]
            ),
            port=port,
        )
        self.socket = SocketMode(patience)
        self.messages: list[Message] = []
        self.uploads: list[Upload] = []
        self.views: list[dict[str, Any]] = []
        self.users = {name: {"id": name, "name": name.lower(), "team_id": TEAM} for name in ("UANN", "UBEA", BOT)}
        self.channels = {
            name: {"id": name, "name": name.lower(), "is_member": True, "is_ext_shared": False}
            for name in ("C1", "C2")
        }
        self.scopes = {*SCOPES.values(), "files:read", "app_mentions:read", "im:history", "groups:read", "im:read"}
        self.calls: list[tuple[str, float]] = []
        self._files: dict[str, bytes] = {}
        self._pending: dict[str, Upload] = {}
        self._triggers: set[str] = set()
        self._responses: dict[str, tuple[str, str]] = {}
        self._limited: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    async def _api(self, request: Request) -> Response:
        method = request.path_params["method"]
        arguments: dict[str, Any] = dict(request.query_params)
        if "json" in request.headers.get("content-type", ""):
            arguments |= json.loads(await request.body() or b"{}")
        else:
            arguments |= dict(await request.form())
        for name in ("blocks", "view", "files", "metadata"):
            if isinstance(arguments.get(name), str):
                arguments[name] = json.loads(arguments[name])
        token = request.headers.get("authorization", "").removeprefix("Bearer ") or arguments.get("token", "")
        with self._changed:
            self.calls.append((method, time.monotonic()))
            until = max(self._limited.get(method, 0.0), self._limited.get("", 0.0))
            if (left := until - time.monotonic()) > 0:
                after = str(max(1, round(left)))
                return JSONResponse({"ok": False, "error": "ratelimited"}, 429, {"Retry-After": after})
            try:
                answer = self._carry_out(method, token, arguments)
            except SlackSays as error:
                answer = {"ok": False, "error": error.code, **error.more}
            self._changed.notify_all()
        return JSONResponse(answer, headers={"x-oauth-scopes": ",".join(sorted(self.scopes))})

    def _carry_out(self, method: str, token: str, a: dict[str, Any]) -> dict[str, Any]:
        if token != (self.app_token if method == "apps.connections.open" else self.bot_token):
            raise SlackSays("invalid_auth" if token else "not_authed")
        if (needed := SCOPES.get(method, "")) and needed not in self.scopes:
            raise SlackSays("missing_scope", needed=needed, provided=",".join(sorted(self.scopes)))
        match method:
            case "auth.test":
                return {
                    "ok": True,
                    "team": "Local",
                    "team_id": TEAM,
                    "user": "ml-intern",
                    "user_id": BOT,
                    "bot_id": "B1",
                    "url": "https://local.slack.com/",
                }
            case "apps.connections.open":
                return {"ok": True, "url": self.socket.ticket()}
            case "conversations.info":
                return {"ok": True, "channel": self._channel(a.get("channel"))}
            case "conversations.replies":
                said = [
                    m
                    for m in self.messages
                    if a["ts"] in (m.ts, m.thread_ts) and float(m.ts) > float(a.get("oldest") or 0)
                ]
                return {"ok": True, "messages": [_row(m) for m in said], "has_more": False}
            case "conversations.history":
                self._channel(a.get("channel"), needs_member=True)
                own = [m for m in self.messages if m.channel == a["channel"] and not m.thread_ts and not m.to]
                return {"ok": True, "messages": [_row(m) for m in reversed(own)][: int(a.get("limit") or 100)]}
            case "chat.postMessage" | "chat.postEphemeral":
                return self._post(a, a.get("user", "") if method.endswith("Ephemeral") else "")
            case "chat.update":
                return self._update(a)
            case "views.open":
                return self._open_view(a)
            case "files.getUploadURLExternal":
                upload = Upload(f"F{next(self._numbers)}", a["filename"], int(a["length"]))
                self._pending[upload.id] = upload
                return {"ok": True, "file_id": upload.id, "upload_url": f"{self.service.url}/upload/{upload.id}"}
            case "files.completeUploadExternal":
                return self._complete(a)
        raise SlackSays("unknown_method")

    def _channel(self, name: Any, needs_member: bool = False) -> dict[str, Any]:
        if str(name).startswith("D"):
            return {"id": name, "is_im": True, "is_member": True, "is_ext_shared": False}
        if name not in self.channels:
            raise SlackSays("channel_not_found")
        if needs_member and not self.channels[name]["is_member"]:
            raise SlackSays("not_in_channel")
        return self.channels[name]

    def _checked(self, a: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
        text, blocks = a.get("text") or "", a.get("blocks") or []
        if not text and not blocks:
            raise SlackSays("no_text")
        if len(text) > 40_000:
            raise SlackSays("msg_too_long")
        if wrong := problems(blocks):
            raise SlackSays("invalid_blocks", errors=wrong, response_metadata={"messages": wrong})
        return text, blocks

    def _post(self, a: dict[str, Any], to: str) -> dict[str, Any]:
        self._channel(a.get("channel"), needs_member=True)
        text, blocks = self._checked(a)
        thread = a.get("thread_ts") or ""
        if thread and not any(m.ts == thread for m in self.messages):
            raise SlackSays("thread_not_found")
        message = Message(a["channel"], self._ts(), BOT, text, thread, blocks, to=to, metadata=a.get("metadata"))
        self.messages.append(message)
        if to:
            return {"ok": True, "message_ts": message.ts}
        return {"ok": True, "channel": message.channel, "ts": message.ts, "message": _row(message)}

    def _update(self, a: dict[str, Any]) -> dict[str, Any]:
        text, blocks = self._checked(a)
        for message in self.messages:
            if (message.channel, message.ts) == (a.get("channel"), a.get("ts")) and not message.to:
                if message.user != BOT:
                    raise SlackSays("cant_update_message")
                message.text, message.blocks, message.edits = text, blocks, message.edits + 1
                return {
                    "ok": True,
                    "channel": message.channel,
                    "ts": message.ts,
                    "text": text,
                    "message": _row(message),
                }
        raise SlackSays("message_not_found")

    def _open_view(self, a: dict[str, Any]) -> dict[str, Any]:
        if a.get("trigger_id") not in self._triggers:
            raise SlackSays("expired_trigger_id")
        self._triggers.discard(a["trigger_id"])
        if wrong := modal_problems(a.get("view")):
            raise SlackSays("invalid_arguments", response_metadata={"messages": wrong})
        view = {**a["view"], "id": f"V{next(self._numbers)}", "hash": secrets.token_hex(4)}
        self.views.append(view)
        return {"ok": True, "view": view}

    def _complete(self, a: dict[str, Any]) -> dict[str, Any]:
        if a.get("channel_id"):
            self._channel(a["channel_id"], needs_member=True)
        done = []
        for file in a["files"]:
            upload = self._pending.pop(file["id"], None)
            if upload is None or len(upload.data) != upload.length:
                raise SlackSays("file_not_found" if upload is None else "file_upload_size_restricted")
            upload.channel, upload.thread_ts = a.get("channel_id") or "", a.get("thread_ts") or ""
            upload.title = file.get("title", "")
            self.uploads.append(upload)
            done.append({"id": upload.id, "title": upload.title})
        return {"ok": True, "files": done}

    async def _upload(self, request: Request) -> Response:
        data = await request.body()
        with self._changed:
            upload = self._pending.get(request.path_params["id"])
            if upload is None:
                return Response("not found", 404)
            upload.data = data
        return Response(f"OK - {len(data)}")

    async def _download(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.bot_token}" or "files:read" not in self.scopes:
            return Response("<!DOCTYPE html><html>Sign in to Slack</html>", media_type="text/html")
        data = self._files.get(request.path_params["id"])
        return Response("not found", 404) if data is None else Response(data, media_type="application/octet-stream")

    async def _responded(self, request: Request) -> Response:
        """To a `response_url`: it needs no token and no membership, and says something to one person."""
        with self._changed:
            to = self._responses.get(request.path_params["id"])
            if to is None:
                return JSONResponse({"ok": False, "error": "used_url"}, 404)
            said = json.loads(await request.body())
            own = to[0] if said.get("response_type", "ephemeral") == "ephemeral" else ""
            blocks = said.get("blocks") or []
            self.messages.append(Message(to[1], self._ts(), BOT, said.get("text") or "", "", blocks, to=own))
            self._changed.notify_all()
        return Response("ok")

    def _respond(self, user: str, channel: str) -> str:
        number = f"R{next(self._numbers)}"
        self._responses[number] = (user, channel)
        return f"{self.service.url}/respond/{number}"

    def _trigger(self) -> str:
        trigger = f"{next(self._numbers)}.{secrets.token_hex(8)}"
        self._triggers.add(trigger)
        return trigger

    def _ts(self) -> str:
        return f"{1_700_000_000 + next(self._numbers)}.{secrets.randbelow(1_000_000):06d}"


class SlackSays(Exception):
    """An answer of the Web API with `ok: false`."""

    def __init__(self, code: str, **more: Any) -> None:
        super().__init__(code)
        self.code, self.more = code, more


def _row(message: Message) -> dict[str, Any]:
    row = {"type": "message", "user": message.user, "text": message.text, "ts": message.ts, "blocks": message.blocks}
    if message.user == BOT:
        row |= {"bot_id": "B1", **({"metadata": message.metadata} if message.metadata else {})}
    return {**row, "thread_ts": message.thread_ts} if message.thread_ts else row


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for item in value.values() if not isinstance(item, str) for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []
