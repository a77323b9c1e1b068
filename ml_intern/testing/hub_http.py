"""Requests to the local Hub: who asks, for what, and which handler answers."""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ml_intern.testing.hub_card import Profile, profile
from ml_intern.testing.hub_store import Commit, Refused, Repo, Store

if TYPE_CHECKING:
    from ml_intern.testing.hub_jobs import Jobs

_PARTS = {
    "types": r"(?P<types>models|datasets|spaces)",
    "prefix": r"(?P<prefix>datasets/|spaces/)?",
    "repo": r"(?P<repo>[^/]+(?:/[^/]+)?)",
    "path": r"(?P<path>.*)",
}


@dataclass(frozen=True)
class User:
    """Someone with a token.

    Args:
        name (`str`): User name, also a namespace for repositories.
        organizations (`tuple[str, ...]`, *optional*): Further namespaces they may read and write.
        role (`"read"` or `"write"`, *optional*, defaults to `"write"`): What the token allows.
    """

    name: str
    organizations: tuple[str, ...] = ()
    role: Literal["read", "write"] = "write"

    def belongs_to(self, namespace: str) -> bool:
        """Whether the namespace is the user's own or one of their organizations."""
        return namespace == self.name or namespace in self.organizations


@dataclass
class Hub:
    """What every handler needs: the repositories, who may come in, and where clients find this Hub."""

    store: Store
    users: Mapping[str, User]
    secret: bytes
    jobs: "Jobs"
    url: str = ""
    cdn: str = ""
    papers: dict[str, dict[str, Any]] = field(default_factory=dict)
    collections: list[dict[str, Any]] = field(default_factory=list)
    docs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A commit never changes, so what follows from it is worked out once.
        self._profile = lru_cache(maxsize=20_000)(self._derive)

    def _derive(self, type: str, id: str, oid: str) -> Profile:
        repo = self.store.repos[type, id]
        return profile(self.store, repo, repo.commits[oid])

    def profile(self, repo: Repo, commit: Commit) -> Profile:
        """Card metadata, tags and so on of a repository at a commit."""
        return self._profile(repo.type, repo.id, commit.oid)

    def page(self, repo: Repo) -> str:
        """Address of the repository's page."""
        return f"{self.url}/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"

    def sign(self, sha256: str) -> str:
        """What makes a download address valid: content is not readable for just anyone who knows its digest."""
        return hmac.digest(self.secret, sha256.encode(), "sha256").hex()[:32]


@dataclass
class Call:
    """One request."""

    hub: Hub
    method: str
    raw_path: str
    params: dict[str, str]
    query: list[tuple[str, str]]
    headers: Headers
    body: bytes
    user: User | None

    def one(self, name: str, default: str = "") -> str:
        """Last value of a query parameter."""
        return dict(self.query).get(name, default)

    def many(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return [value for key, value in self.query if key in (name, name + "[]")]

    def number(self, name: str, default: int) -> int:
        """A query parameter as a whole number."""
        text = self.one(name, str(default))
        if not text.isdigit():
            raise Refused(400, f'"{name}" must be a whole number')
        return int(text)

    def flag(self, name: str) -> bool:
        """A query parameter as a truth value."""
        return self.one(name).lower() in ("1", "true", "yes")

    def json(self) -> dict[str, Any]:
        """The body."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refused(400, f"Body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise Refused(400, "Body must be a JSON object")
        return value

    def next_page(self, cursor: str) -> dict[str, str]:
        """The `Link` header that leads to the rest of a listing."""
        query = [(key, value) for key, value in self.query if key != "cursor"] + [("cursor", cursor)]
        return {"Link": f'<{self.hub.url}{self.raw_path}?{urlencode(query)}>; rel="next"'}

    def known(self) -> User:
        """The user; refuses anonymous requests."""
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        return self.user

    def may_write(self, namespace: str) -> User:
        """The user, if they and their token may write there."""
        user = self.known()
        if user.role != "write":
            raise Refused(403, "This token is read-only: use a token with the `write` role.")
        if not user.belongs_to(namespace):
            raise Refused(403, f'You don\'t have the rights to write under the namespace "{namespace}".')
        return user

    def repo(self) -> Repo:
        """The repository that the path names, if the user may know of it."""
        type = self.params.get("types") or (self.params.get("prefix") or "models/").rstrip("/")
        return self.visible(type.removesuffix("s"), unquote(self.params["repo"]))

    def visible(self, type: str, id: str) -> Repo:
        """A repository by name, if the user may know of it."""
        repo = self.hub.store.find(type, id)
        if repo is None or not self.sees(repo):
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        return repo

    def sees(self, repo: Repo) -> bool:
        """Whether the repository exists as far as the user can tell."""
        return repo.visibility != "private" or bool(self.user and self.user.belongs_to(repo.owner))

    def check_gate(self, repo: Repo) -> None:
        """Refuse the content of a gated repository to those who were not admitted."""
        if not repo.gated or (self.user and (self.user.belongs_to(repo.owner) or self.user.name in repo.admitted)):
            return
        ask = f"Access to {repo.type} {repo.id} is restricted"
        if self.user is None:
            raise Refused(401, f"{ask}. You must have access to it and be authenticated to access it.", "GatedRepo")
        raise Refused(403, f"{ask} and you are not in the authorized list. Visit {self.hub.page(repo)}.", "GatedRepo")

    def writable(self) -> tuple[Repo, User]:
        """The repository that the path names, and the user, if they may change it."""
        repo = self.repo()
        return repo, self.may_write(repo.owner)

    def commit(self, repo: Repo) -> Commit:
        """The commit that the path names, `main` where it names none."""
        return repo.resolve(unquote(self.params.get("rev") or "main"))


Handler = Callable[[Call], Response]
StreamHandler = Callable[[Call, Request], Any]


class Routes:
    """Handlers by method and path. Paths are matched raw: a revision such as `refs%2Fpr%2F1` is one segment."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._streams: list[tuple[str, re.Pattern[str], StreamHandler]] = []

    def add(self, method: str, template: str) -> Callable[[Handler], Handler]:
        """Decorator; `{types}`, `{prefix}`, `{repo}` and `{path}` are special, other names match one segment."""

        def keep(handler: Handler) -> Handler:
            self._routes.append((method, _compile(template), handler))
            return handler

        return keep

    def stream(self, method: str, template: str) -> Callable[[StreamHandler], StreamHandler]:
        """As `add`, for an `async` handler that reads the body itself."""

        def keep(handler: StreamHandler) -> StreamHandler:
            self._streams.append((method, _compile(template), handler))
            return handler

        return keep

    @classmethod
    def join(cls, *parts: "Routes") -> "Routes":
        """All routes of several, those of earlier ones first."""
        joined = cls()
        for part in parts:
            joined._routes += part._routes
            joined._streams += part._streams
        # The less special a path, the later it is tried: `/api/models/a/b` also looks like `/api/models/a/refs`.
        joined._routes.sort(key=lambda route: -route[1].pattern.count("/"))
        return joined

    async def answer(self, hub: Hub, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI side."""
        request = Request(scope, receive)
        path = scope["raw_path"].decode("latin-1")
        method = scope["method"]
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        call = Call(hub, method, path, {}, query, request.headers, b"", None)
        try:
            call.user = _authenticate(hub.users, request.headers.get("authorization"))
            response = await self._dispatch(call, request)
        except Refused as refusal:
            response = _refusal(refusal)
        await response(scope, receive, send)

    async def _dispatch(self, call: Call, request: Request) -> Response:
        for method, pattern, stream in self._streams:
            if method == call.method and (found := pattern.fullmatch(call.raw_path)):
                call.params = found.groupdict()
                return await stream(call, request)
        call.body = await request.body()
        wanted = "GET" if call.method == "HEAD" else call.method
        other = False
        for method, pattern, handler in self._routes:
            if found := pattern.fullmatch(call.raw_path.rstrip("/") or "/"):
                if method == wanted:
                    call.params = found.groupdict()
                    return await run_in_threadpool(handler, call)
                other = True
        raise Refused(405 if other else 404, f"The local Hub has nothing at {call.method} {call.raw_path}")


def object_id(text: str) -> str:
    """An identifier such as the Hub's database gives out, the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _compile(template: str) -> re.Pattern[str]:
    pattern = re.sub(
        r"\{(\w+)\}", lambda name: _PARTS.get(name[1], rf"(?P<{name[1]}>[^/]+)"), template.replace(".", r"\.")
    )
    return re.compile(pattern)


def _authenticate(users: Mapping[str, User], header: str | None) -> User | None:
    if header is None:
        return None
    user = users.get(header.removeprefix("Bearer ").strip())
    if user is None:
        raise Refused(401, "Invalid credentials in Authorization header")
    return user


def _refusal(refusal: Refused) -> JSONResponse:
    headers = {
        **refusal.headers,
        "X-Error-Message": refusal.message.replace("\n", " ").encode("ascii", "replace").decode(),
    }
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return JSONResponse({"error": refusal.message, **refusal.body}, status_code=refusal.status, headers=headers)
