"""GitHub's REST API on this machine: repositories, trees, contents, blobs, searches, rate limits, ETags and renames.

with LocalGithub() as github:
    github.add("acme/trainers", {"examples/sft.py": b"print(1)"})
    os.environ["GITHUB_API_URL"] = github.url
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ml_intern.testing.hub_store import git_oid
from ml_intern.testing.serve import Service

__all__ = ["GithubRepo", "LocalGithub"]

SITE = "https://github.com"
_MEGABYTE = 1_000_000


class Refused(Exception):
    """What GitHub answers when it will not do something."""

    def __init__(self, status: int, message: str, **body: Any):
        super().__init__(message)
        self.status, self.message, self.body = status, message, body


@dataclass
class GithubRepo:
    """A repository: files by branch, tag or commit, and what lists tell of it."""

    name: str
    refs: dict[str, dict[str, bytes]]
    branch: str = "main"
    description: str = ""
    stars: int = 0
    topics: list[str] = field(default_factory=list)
    language: str = "Python"
    license: str | None = "Apache-2.0"
    private: bool = False
    archived: bool = False
    truncated: int | None = None
    number: int = 0

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def files(self, ref: str) -> dict[str, bytes]:
        """What lies at a ref; 404 where there is none, 409 where there is nothing at all."""
        if not any(self.refs.values()):
            raise Refused(409, "Git Repository is empty.")
        if (ref or self.branch) not in self.refs:
            raise Refused(404, "Not Found")
        return self.refs[ref or self.branch]


class LocalGithub(Service):
    """A local GitHub. Make it fail with [`~ml_intern.testing.serve.Service.fail`].

    Args:
        data (`Path`, *optional*): Taken for the sake of `python -m ml_intern.testing.serve`; nothing is kept in it.
        port (`int`, defaults to 0): 0 takes a free one.
        tokens (`Mapping[str, str]`, *optional*): Token to user. Default: `"local-github-token"` of `"tester"`.

    Attributes:
        repos (`dict[str, GithubRepo]`): By full name.
        limit (`int`): Requests without a token until the limit, 60 as on the real one; with a token 5,000.
        used (`dict[str, int]`): Requests counted, by token (`""` for none) and resource. A 304 is not counted.
        reset (`float`): When the limits begin anew, in seconds since 1970.
    """

    def __init__(
        self, data: Path | None = None, *, port: int = 0, tokens: Mapping[str, str] | None = None, limit: int = 60
    ) -> None:
        self.repos: dict[str, GithubRepo] = {}
        self.tokens = dict(tokens or {"local-github-token": "tester"})
        self.limit, self.used, self.reset = limit, dict[str, int](), time.time() + 3000
        self._moved: dict[str, str] = {}
        one = "/repos/{owner}/{name}"
        routes = [
            Route(one, self._answering(self._about)),
            Route(one + "/git/trees/{ref:path}", self._answering(self._tree)),
            Route(one + "/git/blobs/{sha}", self._answering(self._blob)),
            Route(one + "/contents", self._answering(self._contents)),
            Route(one + "/contents/{path:path}", self._answering(self._contents)),
            Route("/repositories/{number:int}", self._answering(self._about)),
            Route("/repositories/{number:int}/git/trees/{ref:path}", self._answering(self._tree)),
            Route("/repositories/{number:int}/git/blobs/{sha}", self._answering(self._blob)),
            Route("/repositories/{number:int}/contents/{path:path}", self._answering(self._contents)),
            Route("/search/repositories", self._answering(self._search_repositories, "search")),
            Route("/search/code", self._answering(self._search_code, "code_search")),
            Route("/rate_limit", self._answering(lambda request: JSONResponse({"rate": {"limit": self.limit}}))),
        ]
        super().__init__(Starlette(routes=routes), port=port)

    def environment(self) -> dict[str, str]:
        """The variables that lead this project's tools here."""
        return {"GITHUB_API_URL": self.url}

    def add(self, name: str, files: Mapping[str, bytes], ref: str = "main", **about: Any) -> GithubRepo:
        """Put a repository there, or a further ref of one. `about` are attributes of [`GithubRepo`]."""
        repo = self.repos.get(name)
        if repo is None:
            repo = self.repos[name] = GithubRepo(name, {}, branch=ref, number=len(self.repos) + 1001)
        vars(repo).update(about)
        repo.refs[ref] = dict(files)
        return repo

    def rename(self, name: str, to: str) -> None:
        """The old name leads to the new one."""
        repo = self.repos[to] = self.repos.pop(name)
        repo.name, self._moved[name.lower()] = to, to

    def _answering(self, handler: Callable[[Request], Response], resource: str = "core") -> Callable[..., Response]:
        def answer(request: Request) -> Response:
            try:
                token = self._token(request)
                headers, left = self._count(token, resource)
                if left < 0:
                    who = (
                        "user ID 1"
                        if token
                        else "127.0.0.1. (But here's the good news: Authenticated requests get more.)"
                    )
                    raise Refused(403, f"API rate limit exceeded for {who}", headers=headers)
                response = handler(request)
            except Refused as refused:
                extra = refused.body.pop("headers", {})
                body = {
                    "message": refused.message,
                    "documentation_url": "https://docs.github.com/rest",
                    **refused.body,
                }
                return JSONResponse(body | {"status": str(refused.status)}, refused.status, headers=extra)
            response.headers.update(headers)
            if response.status_code == 200:
                etag = f'W/"{hashlib.sha256(bytes(response.body)).hexdigest()}"'
                if request.headers.get("if-none-match") == etag:
                    self.used[f"{token} {resource}"] -= 1
                    response = Response(status_code=304, headers=headers)
                response.headers["ETag"] = etag
            return response

        return answer

    def _token(self, request: Request) -> str:
        header = request.headers.get("authorization", "")
        token = header.partition(" ")[2].strip()
        if header and token not in self.tokens:
            raise Refused(401, "Bad credentials")
        return token

    def _count(self, token: str, resource: str) -> tuple[dict[str, str], int]:
        limits = {"search": (10, 30), "code_search": (10, 10)}.get(resource, (self.limit, 5000))
        limit = limits[bool(token)]
        key = f"{token} {resource}"
        self.used[key] = self.used.get(key, 0) + 1
        left = limit - self.used[key]
        headers = {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(max(left, 0))}
        headers |= {"X-RateLimit-Reset": str(int(self.reset)), "X-RateLimit-Resource": resource}
        return headers, left

    def _repo(self, request: Request) -> GithubRepo:
        if "number" in request.path_params:
            found = [one for one in self.repos.values() if one.number == request.path_params["number"]]
        else:
            name = f"{request.path_params['owner']}/{request.path_params['name']}".lower()
            found = [one for one in self.repos.values() if one.name.lower() == name]
            if not found and name in self._moved:
                number = self.repos[self._moved[name]].number
                rest = request.url.path.split("/", 4)[4:]
                address = "/".join([f"{self.url}/repositories/{number}", *rest])
                raise Moved(address + (f"?{request.url.query}" if request.url.query else ""))
        if not found or (found[0].private and not self._token(request)):
            raise Refused(404, "Not Found")
        return found[0]

    def _moved_or(self, request: Request) -> GithubRepo | Response:
        try:
            return self._repo(request)
        except Moved as moved:
            return RedirectResponse(moved.address, 301)

    def _about(self, request: Request) -> Response:
        repo = self._moved_or(request)
        return repo if isinstance(repo, Response) else JSONResponse(_shown(repo))

    def _tree(self, request: Request) -> Response:
        repo = self._moved_or(request)
        if isinstance(repo, Response):
            return repo
        files = repo.files(request.path_params["ref"])
        folders = sorted({"/".join(path.split("/")[:end]) for path in files for end in range(1, path.count("/") + 1)})
        rows: list[dict[str, Any]] = [
            {"path": path, "mode": "100644", "type": "blob", "sha": git_oid(data), "size": len(data)}
            for path, data in sorted(files.items())
        ]
        rows += [{"path": path, "mode": "040000", "type": "tree", "sha": _sha(path)} for path in folders]
        if request.query_params.get("recursive") is None:
            rows = [row for row in rows if "/" not in row["path"]]
        cut = repo.truncated is not None
        return JSONResponse({"sha": _sha(repo.name), "tree": rows[: repo.truncated], "truncated": cut})

    def _contents(self, request: Request) -> Response:
        repo = self._moved_or(request)
        if isinstance(repo, Response):
            return repo
        ref, path = request.query_params.get("ref", ""), request.path_params.get("path", "").strip("/")
        files = repo.files(ref)
        if path in files:
            return JSONResponse(_file(repo, ref or repo.branch, path, files[path], True))
        below = {
            name[len(path) + 1 if path else 0 :]: name for name in files if not path or name.startswith(path + "/")
        }
        if not below:
            raise Refused(404, "Not Found")
        rows: dict[str, dict[str, Any]] = {}
        for inner, name in sorted(below.items()):
            head, _, more = inner.partition("/")
            full = f"{path}/{head}".strip("/")
            about = {"name": head, "path": full, "sha": _sha(full), "size": 0, "type": "dir"}
            place = f"{SITE}/{repo.name}/tree/{ref or repo.branch}/{full}"
            rows.setdefault(
                head,
                {**about, "html_url": place} if more else _file(repo, ref or repo.branch, name, files[name], False),
            )
        return JSONResponse(list(rows.values())[:1000])

    def _blob(self, request: Request) -> Response:
        repo = self._moved_or(request)
        if isinstance(repo, Response):
            return repo
        sha = request.path_params["sha"]
        for files in repo.refs.values():
            for data in files.values():
                if git_oid(data) == sha:
                    if "raw" in request.headers.get("accept", ""):
                        return Response(data, media_type="application/vnd.github.raw+json")
                    content = base64.encodebytes(data).decode()
                    return JSONResponse({"sha": sha, "size": len(data), "encoding": "base64", "content": content})
        raise Refused(404, "Not Found")

    def _seen(self, request: Request) -> list[GithubRepo]:
        return [one for one in self.repos.values() if not one.private or self._token(request)]

    def _search_repositories(self, request: Request) -> Response:
        words, scopes = _query(request)
        owner = scopes.get("user") or scopes.get("org")
        if owner and not [one for one in self.repos.values() if one.owner.lower() == owner.lower()]:
            errors = [{"message": "The listed users cannot be searched", "resource": "Search", "field": "q"}]
            raise Refused(422, "Validation Failed", errors=errors)
        found = [
            one
            for one in self._seen(request)
            if (not owner or one.owner.lower() == owner.lower())
            and all(word in f"{one.name} {one.description} {' '.join(one.topics)}".lower() for word in words)
        ]
        if request.query_params.get("sort") == "stars":
            found.sort(key=lambda one: -one.stars)
        size = int(request.query_params.get("per_page", 30))
        rows = [_shown(one) for one in found[:size]]
        return JSONResponse({"total_count": len(found), "incomplete_results": False, "items": rows})

    def _search_code(self, request: Request) -> Response:
        if not self._token(request):
            raise Refused(401, "Requires authentication")
        words, scopes = _query(request)
        rows: list[dict[str, Any]] = []
        for repo in self._seen(request):
            if scopes.get("repo", repo.name) != repo.name or scopes.get("user", repo.owner) != repo.owner:
                continue
            for path, data in repo.refs.get(repo.branch, {}).items():
                text = data.decode(errors="replace")
                at = text.lower().find(words[0]) if words else 0
                if all(word in text.lower() for word in words) and fnmatch.fnmatch(path, f"{scopes.get('path', '')}*"):
                    row = _file(repo, repo.branch, path, data, False) | {"repository": {"full_name": repo.name}}
                    fragment = {"property": "content", "fragment": text[max(at - 50, 0) : at + 100]}
                    wants = "text-match" in request.headers.get("accept", "")
                    rows.append(row | ({"text_matches": [fragment]} if wants else {}))
        return JSONResponse({"total_count": len(rows), "incomplete_results": False, "items": rows[:30]})


class Moved(Exception):
    """A repository that has another name by now."""

    def __init__(self, address: str):
        super().__init__(address)
        self.address = address


def _query(request: Request) -> tuple[list[str], dict[str, str]]:
    text = request.query_params.get("q", "")
    if not text.strip():
        raise Refused(422, "Validation Failed", errors=[{"code": "missing", "field": "q", "resource": "Search"}])
    scopes = dict(word.split(":", 1) for word in text.split() if ":" in word)
    return [word.lower() for word in text.split() if ":" not in word], scopes


def _shown(repo: GithubRepo) -> dict[str, Any]:
    about: dict[str, Any] = {
        "id": repo.number,
        "full_name": repo.name,
        "name": repo.name.split("/")[1],
        "private": repo.private,
    }
    about |= {
        "owner": {"login": repo.owner},
        "html_url": f"{SITE}/{repo.name}",
        "description": repo.description or None,
    }
    about |= {"stargazers_count": repo.stars, "language": repo.language, "topics": repo.topics, "fork": False}
    about |= {"default_branch": repo.branch, "archived": repo.archived, "pushed_at": "2026-01-01T00:00:00Z"}
    return about | {"license": {"spdx_id": repo.license} if repo.license else None}


def _file(repo: GithubRepo, ref: str, path: str, data: bytes, whole: bool) -> dict[str, Any]:
    about = {"name": path.rpartition("/")[2], "path": path, "sha": git_oid(data), "size": len(data), "type": "file"}
    about |= {"html_url": f"{SITE}/{repo.name}/blob/{ref}/{path}"}
    if not whole:
        return about
    if len(data) > _MEGABYTE:
        return about | {"encoding": "none", "content": ""}
    return about | {"encoding": "base64", "content": base64.encodebytes(data).decode()}


def _sha(text: str) -> str:
    return hashlib.sha1(json.dumps(text).encode(), usedforsecurity=False).hexdigest()
