"""CallDesk: calls of MCP clients on their way through router and gate; questions go to the client, if it can ask its user.

What must never happen here: an answer counts for another call, other arguments or other files than were shown, or twice; a
client that cannot ask, or that does not answer, is taken for one that said yes; what changes something is not on record.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
from mcp.types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp.types.version import is_version_at_least
from smolagents import Tool
from smolagents.memory import MemoryStep

from ..approval import NOBODY, ApprovalGate, ApprovalPolicy, nobody
from ..errors import Denied, Parking
from ..events import ApprovalAnswer, ApprovalRequest
from ..kept_file import alone
from ..router import ToolRouter
from ..secrets import Masker
from ..steps import Observer, ToolCallStep, ToolResultStep
from .mcp_record import CallRecord

if TYPE_CHECKING:
    from mcp.server.mcpserver import Context

WAITS_SECONDS, MOST_WAITING = 900.0, 200
"""How long a question waits for a client that comes back with the answer, and how many do."""
LONGEST_TEXT = 50_000
"""Characters of a question."""
INPUT_REQUIRED = "2026-07-28"
"""From this version of the protocol on, a question is the answer to a call, which the client makes again."""
QUESTION = "approval"
FORM = {
    "type": "object",
    "properties": {
        "approve": {"type": "boolean", "title": "Approve this call", "description": "Whether it may be made."},
        "reason": {"type": "string", "title": "Reason", "description": "Why not, for the one who called."},
    },
    "required": ["approve"],
}


@dataclass
class _Waiting:
    """A call that a client was asked about and that it makes again with the answer."""

    call_id: str
    tool: str
    arguments: dict[str, Any]
    digest: str
    request: ApprovalRequest
    until: float = field(default_factory=lambda: time.monotonic() + WAITS_SECONDS)


class Place:
    """A folder for copies of what calls send, this process's as long as it lives: what a process left that was killed goes.

    Args:
        folder (`Path`): Where such folders lie, each beside a file that its owner holds locked.

    Attributes:
        folder (`Path`): The new one; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        name = uuid.uuid4().hex
        self.folder, self._lock = folder / name, folder / f"{name}.lock"
        self._handle: int | None = None
        with contextlib.suppress(OSError), alone(folder / "places"):  # where nothing can be written nothing is sent
            for lock in folder.glob("*.lock"):
                if (handle := self._held(lock)) is not None:
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink(missing_ok=True)
                    os.close(handle)
            self._handle = self._held(self._lock)

    @staticmethod
    def _held(lock: Path) -> int | None:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its owner lives
            os.close(handle)
            return None
        return handle

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.unlink(missing_ok=True)
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


class CallDesk:
    """Where calls are recorded, asked about and made.

    Args:
        folder (`Path`): Files that tools read and leave.
        home (`Path`): Where the record of calls that change something goes, among the sessions.
        policy (`ApprovalPolicy`, *optional*): Which calls need an answer.
        services (`dict[str, Callable]`, *optional*): What tools may need of this host, by the name of the argument.
        find_own (`Callable`, *optional*): Finds the user's own namespaces on the Hub.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        policy: ApprovalPolicy | None = None,
        services: dict[str, Callable[[], Any]] | None = None,
        find_own: Callable[[], Any] | None = None,
    ) -> None:
        self.policy = policy or ApprovalPolicy(trust_vouched=False)
        self.masker = Masker()
        self.find_own = find_own
        # Above the routers of all calls: what was read by one is known again in another.
        self.top = ToolRouter(lambda step: None, self.masker, vouched=False)
        self.top.services = services or {}
        self._place = Place(home / "mcp" / "frozen")
        self.top.frozen_in = self._place.folder
        self.record = CallRecord(home, self.masker)
        self._waiting: dict[str, _Waiting] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, tool: Tool) -> None:
        """Calls of this tool can be made."""
        self.top[tool.name] = tool

    def call(self, tool: str, arguments: dict[str, Any], context: Context[Any, Any]) -> Call:
        return Call(self, tool, arguments, context)

    def close(self) -> None:
        with self._lock:
            for ticket in list(self._waiting):
                self._forget(ticket)
        self.record.close()
        self._place.close()

    def keep(self, waiting: _Waiting) -> str:
        """Keeps a question until the client comes back; returns what it comes back with."""
        ticket = secrets.token_urlsafe(24)
        with self._lock:
            now = time.monotonic()
            for old in [key for key, one in self._waiting.items() if one.until < now]:
                self._forget(old)
            while len(self._waiting) >= MOST_WAITING:
                self._forget(next(iter(self._waiting)))
            self._waiting[ticket] = waiting
        return ticket

    def take(self, ticket: str, tool: str, arguments: dict[str, Any]) -> _Waiting | None:
        """The question that a client answers: once, and for the same call."""
        with self._lock:
            found = self._waiting.get(ticket)
            if found is None or found.until < time.monotonic():
                return None
            if (found.tool, found.arguments) != (tool, arguments):
                return None
            del self._waiting[ticket]
            return found

    def _forget(self, ticket: str) -> None:
        waiting = self._waiting.pop(ticket)
        error = Denied(f"`{waiting.tool}` was not called", "nobody answered")
        self.record.called(ToolResultStep(waiting.call_id, waiting.tool, 0, error=error, denied=True))
        self.drop(waiting.call_id)

    def drop(self, call_id: str) -> None:
        """Copies of what a call would have sent go."""
        if self.top.frozen_in is not None:
            shutil.rmtree(self.top.frozen_in / call_id, ignore_errors=True)


class Call:
    """One call of a client's.

    Args:
        desk (`CallDesk`), tool (`str`), arguments (`dict`): What is called.
        context (`Context`): The request it came with.
    """

    def __init__(self, desk: CallDesk, tool: str, arguments: dict[str, Any], context: Context[Any, Any]) -> None:
        self.desk, self.tool, self.arguments, self.context = desk, tool, arguments, context
        self.router = ToolRouter(self._fire, desk.masker, vouched=False, above=desk.top)
        self.router.services = desk.top.services
        self.router[tool] = desk.top[tool]
        self._asked: tuple[ApprovalRequest, str] | None = None
        self._call_id = ""
        self.gate = ApprovalGate(desk.policy, self._ask, _Asking(self), masker=desk.masker, find_own=desk.find_own)
        client = context.request_context.session.client_params if _legacy(context) else None
        self.by = f"the user of {client.client_info.name}" if client is not None else "the user of an MCP client"

    def run(self) -> CallToolResult | InputRequiredResult:
        """Makes the call. On a thread of its own."""
        from .mcp_server import failed, result_of

        try:
            return result_of(
                self._answered() if self.context.request_state else self.router[self.tool](**self.arguments)
            )
        except Parking:
            return self._question()
        except Exception as error:  # noqa: BLE001 - a tool's own code: whatever it raises is the call's result
            text = str(error) if isinstance(error, Denied) else f"{type(error).__name__}: {error}"
            return failed(self.desk.masker.text(text)[:20_000])

    def stop(self) -> None:
        """It is over, or the client took it back: what is not yet allowed is refused."""
        self.router.action.ended.set()

    def _fire(self, step: MemoryStep) -> None:
        if isinstance(step, ToolCallStep):
            self._call_id = step.call_id
            if step.effects != "read":
                self.desk.record.calling(step)
            self.gate(step)
        elif isinstance(step, ToolResultStep):
            self.desk.record.called(step)

    # Questions.

    def asked(self, request: ApprovalRequest, digest: str) -> None:
        self._asked = request, digest

    def _ask(self, request: ApprovalRequest) -> ApprovalAnswer:
        """Asks the user of the client, if it can: at once, or by having it make the call again with the answer."""
        if not can_ask(self.context):
            return nobody(request)
        if not _legacy(self.context):
            raise Parking
        try:
            result = anyio.from_thread.run(self._elicit, text_of(request))
        except Exception as error:  # noqa: BLE001 - a client that fails to answer has not said yes
            return ApprovalAnswer("reject", f"the client did not answer: {type(error).__name__}", NOBODY)
        return self._answer_of(result)

    async def _elicit(self, text: str) -> Any:
        with anyio.fail_after(WAITS_SECONDS):
            return await self.context.session.elicit_form(
                message=text, requested_schema=FORM, related_request_id=self.context.request_context.request_id
            )

    def _question(self) -> InputRequiredResult:
        assert self._asked is not None
        request, digest = self._asked
        ticket = self.desk.keep(_Waiting(self._call_id, self.tool, self.arguments, digest, request))
        form = ElicitRequestFormParams(message=text_of(request), requested_schema=FORM)
        return InputRequiredResult(input_requests={QUESTION: ElicitRequest(params=form)}, request_state=ticket)

    def _answered(self) -> Any:
        """The call as it comes a second time, with an answer."""
        waiting = self.desk.take(str(self.context.request_state), self.tool, self.arguments)
        if waiting is None:
            raise Denied(
                f"`{self.tool}` was not called", "no question about this very call waits for an answer any more"
            )
        said = (self.context.input_responses or {}).get(QUESTION)
        answer = self._answer_of(said)
        self.desk.record.approval_answered(waiting.request, answer, waiting.digest)
        if answer.decision != "approve":
            error = Denied(f"`{self.tool}` was not called: {answer.by} said no", answer.reason)
            self.desk.record.called(ToolResultStep(waiting.call_id, self.tool, 0, error=error, denied=True))
            self.desk.drop(waiting.call_id)
            raise error
        arguments = self.desk.masker.certain.data(waiting.arguments)  # as they were asked about
        return self.router.carry_out(waiting.call_id, self.tool, arguments, waiting.digest, answer)

    def _answer_of(self, result: Any) -> ApprovalAnswer:
        content = result.content if isinstance(result, ElicitResult) and result.action == "accept" else None
        if content is not None and content.get("approve") is True:
            return ApprovalAnswer("approve", by=self.by)
        reason = str(content.get("reason") or "") if content is not None else ""
        return ApprovalAnswer("reject", reason, self.by)


class _Asking(Observer):
    """Told by the gate what it asks and what is answered."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def approval_asked(self, request: ApprovalRequest, digest: str) -> None:
        self.call.asked(request, digest)
        self.call.desk.record.approval_asked(request, digest)

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        self.call.desk.record.approval_answered(request, answer, digest)


def can_ask(context: Context[Any, Any]) -> bool:
    """Whether a client says that it can put a form to its user."""
    capabilities = context.client_capabilities
    asks = capabilities.elicitation if capabilities is not None else None
    return asks is not None and (asks.form is not None or asks.url is None)


def _legacy(context: Context[Any, Any]) -> bool:
    spoken = context.protocol_version
    return spoken is None or not is_version_at_least(spoken, INPUT_REQUIRED)


def text_of(request: ApprovalRequest) -> str:
    """All that a person should read before they answer."""
    lines = [f"{request.tool}: {request.reason}.", json.dumps(request.arguments, indent=1, ensure_ascii=False)]
    if request.destination is not None:
        seen = f" ({request.destination.visibility})" if request.destination.visibility else ""
        lines.append(f"To {request.destination.name}{seen}.")
    if request.cost_usd is not None:
        lines.append(f"It costs about ${request.cost_usd:.2f}.")
    lines += [f"It repeats text from {source}." for source in request.sources]
    lines += [f"Sends {file.path}, {file.size:,} bytes, sha256 {file.sha256[:12]}" for file in request.files]
    lines.append(request.preview)
    text = "\n".join(filter(None, lines))
    if len(text) <= LONGEST_TEXT:
        return text
    return f"(Only {LONGEST_TEXT:,} of {len(text):,} characters are shown: say no if you need the rest.)\n{text[:LONGEST_TEXT]}"
