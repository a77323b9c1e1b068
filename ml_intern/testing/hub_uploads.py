"""The local Hub's routes for uploading: preupload, LFS, commit."""

import base64
import binascii
import fnmatch
import json
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ml_intern.testing.hub_card import CardError, parse_card
from ml_intern.testing.hub_discussions import note_commit, open_discussion
from ml_intern.testing.hub_http import Call, Routes, User
from ml_intern.testing.hub_journal import Incoming
from ml_intern.testing.hub_store import Commit, FileEntry, Refused, Repo, Store, git_oid, pointer

routes = Routes()
_LARGE = 10_000_000  # bytes; from here on a file goes to LFS whatever its name


@routes.add("POST", "/api/{types}/{repo}/preupload/{rev}")
def preupload(call: Call) -> Response:
    """For each file: whether it goes to LFS, whether `.gitignore` leaves it out, and the id of what is there now."""
    _, _, commit = _target(call)
    wish, store = call.json(), call.hub.store
    ignored = wish.get("gitIgnore") or (store.read(commit, ".gitignore") or b"").decode(errors="replace")
    in_lfs = lfs_patterns(store, commit)
    answers = []
    for file in wish.get("files", []):
        path, there = file["path"], commit.files.get(file["path"])
        lfs = goes_to_lfs(path, file["size"], in_lfs)
        answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": _ignores(ignored, path)}
        if there:
            answer["oid"] = there.sha256 if there.lfs else there.oid
        answers.append(answer)
    return JSONResponse({"files": answers, "commitOid": commit.oid})


def lfs_patterns(store: Store, commit: Commit) -> list[str]:
    """The patterns that `.gitattributes` sends to LFS."""
    lines = (store.read(commit, ".gitattributes") or b"").decode(errors="replace").splitlines()
    return [line.split()[0] for line in lines if "filter=lfs" in line]


def goes_to_lfs(path: str, size: int, patterns: list[str]) -> bool:
    """Whether a file of `size` bytes is kept in LFS."""
    return size >= _LARGE or (size > 0 and _matches(path, patterns))


def _matches(path: str, patterns: list[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)


def _ignores(rules: str, path: str) -> bool:
    """Whether a `.gitignore` leaves the path out: the last rule that fits the path or a folder above it decides."""
    parts, ignored = path.split("/"), False
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    for line in rules.splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        keep, rule = rule.startswith("!"), rule.removeprefix("!")
        candidates = above[:-1] if rule.endswith("/") else above
        if any(_matches(candidate, [rule.strip("/")]) for candidate in candidates):
            ignored = not keep
    return ignored


@routes.add("POST", "/{prefix}{repo}.git/info/lfs/objects/batch")
def lfs_batch(call: Call) -> Response:
    """Where to put each object; no actions for those that are here."""
    repo = call.repo()
    user = call.known()
    if user.role != "write":
        raise Refused(403, "This token is read-only: use a token with the `write` role.")
    base = f"{call.hub.url}/lfs/{repo.type}s/{repo.id}"
    objects: list[dict[str, Any]] = []
    for wanted in call.json().get("objects", []):
        oid, size = wanted["oid"], wanted["size"]
        shown = {"oid": oid, "size": size}
        if not call.hub.store.blobs.has(oid):
            upload = {"href": f"{base}/{oid}?signature={call.hub.sign(f'{oid} {size}')}&size={size}"}
            shown |= {"authenticated": True, "actions": {"upload": upload, "verify": {"href": f"{base}/{oid}/verify"}}}
        objects.append(shown)
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


@routes.stream("PUT", "/lfs/{types}/{repo}/{oid}")
async def put_object(call: Call, request: Request) -> Response:
    """Take one object; its content must have the promised digest and size."""
    oid, size = call.params["oid"], call.one("size")
    if call.one("signature") != call.hub.sign(f"{oid} {size}"):
        raise Refused(403, "The signature of this address is missing, wrong or expired")
    with Incoming(call.hub.store.blobs) as incoming:
        async for part in request.stream():
            incoming.write(part)
        if (incoming.sha256, str(incoming.size)) != (oid, size):
            raise Refused(400, f"Expected {size} bytes with SHA-256 {oid}, got {incoming.size} with {incoming.sha256}")
        incoming.keep()
    return Response(headers={"ETag": f'"{oid}"'})


@routes.add("POST", "/lfs/{types}/{repo}/{oid}/verify")
def verify(call: Call) -> Response:
    """Whether an object has arrived whole."""
    wish, oid, blobs = call.json(), call.params["oid"], call.hub.store.blobs
    if not blobs.has(oid) or blobs.path(oid).stat().st_size != wish.get("size"):
        raise Refused(404, f"LFS object {oid} has not arrived")
    return JSONResponse({})


@routes.add("POST", "/api/{types}/{repo}/commit/{rev}")
def commit(call: Call) -> Response:
    """A commit from lines of JSON; with `create_pr` as a pull request."""
    repo, user, base = _target(call)
    header, put, drop = _operations(call, repo)
    title = str(header.get("summary") or "")
    if not title:
        raise Refused(400, 'The commit has no "summary"')
    message, store = str(header.get("description") or ""), call.hub.store
    with store.lock:
        base = call.commit(repo)  # again: another commit may have come in since
        if header.get("parentCommit") and header["parentCommit"] != base.oid:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        drop = _present(base, drop)
        discussion = open_discussion(call, repo, title, message, base) if call.flag("create_pr") else None
        ref = discussion.ref if discussion else _ref(repo, call)
        made = store.commit(repo, ref, title, user.name, put=put, drop=drop, message=message, parent=base.oid)
        note_commit(call, repo, ref, made)
    answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{call.hub.page(repo)}/commit/{made.oid}"}
    if discussion:
        answer["pullRequestUrl"] = f"{call.hub.page(repo)}/discussions/{discussion.num}"
    return JSONResponse(answer | {"hookOutput": ""})


def _target(call: Call) -> tuple[Repo, User, Commit]:
    """Repository, user and commit to build on; a pull request may come from anyone who may read."""
    repo = call.repo()
    if call.flag("create_pr"):
        user = call.known()
        if user.role != "write":
            raise Refused(403, "This token is read-only: use a token with the `write` role.")
    else:
        user = call.may_write(repo.owner)
    return repo, user, call.commit(repo)


def _ref(repo: Repo, call: Call) -> str:
    revision = unquote(call.params["rev"])
    for ref in (f"refs/heads/{revision}", revision):
        if ref in repo.refs and not ref.startswith("refs/tags/"):
            return ref
    raise Refused(400, f"{revision} is not a branch: commits go to a branch or a pull request")


def _operations(call: Call, repo: Repo) -> tuple[dict[str, Any], dict[str, FileEntry], list[str]]:
    header: dict[str, Any] = {}
    put: dict[str, FileEntry] = {}
    drop: list[str] = []
    for number, line in enumerate(filter(None, call.body.split(b"\n")), 1):
        try:
            operation = json.loads(line)
            kind, value = operation["key"], operation["value"]
            match kind:
                case "header":
                    header = value
                case "file":
                    plain = value.get("encoding", "utf-8") != "base64"
                    data = value["content"].encode() if plain else base64.b64decode(value["content"], validate=True)
                    put[_checked(value["path"])] = _regular(call, value["path"], data)
                case "lfsFile":
                    put[_checked(value["path"])] = _in_lfs(call, value["oid"], value["path"])
                case "deletedFile":
                    drop.append(_checked(value["path"]))
                case "deletedFolder":
                    drop.append(_checked(value["path"].rstrip("/")) + "/")
                case _:
                    raise Refused(400, f'Line {number} of the commit has an unknown key "{kind}"')
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise Refused(400, f"Line {number} of the commit is malformed: {error!r}") from error
    return header, put, drop


def _regular(call: Call, path: str, data: bytes) -> FileEntry:
    if path == "README.md":
        try:
            parse_card(data.decode(errors="replace"))
        except CardError as error:
            raise Refused(400, f"Invalid metadata in README.md: {error}") from error
    return call.hub.store.entry(data)


def _in_lfs(call: Call, oid: str, path: str) -> FileEntry:
    if not call.hub.store.blobs.has(oid):
        raise Refused(400, f"LFS pointer of {path} points to {oid}, which was never uploaded")
    size = call.hub.store.blobs.path(oid).stat().st_size
    return FileEntry(oid, size, git_oid(pointer(oid, size)), lfs=True)


def _checked(path: str) -> str:
    if not path or any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise Refused(400, f'"{path}" is not a valid path in a repository')
    return path


def _present(base: Commit, drop: list[str]) -> list[str]:
    """The files that deletions stand for; a folder ends with a slash."""
    gone: list[str] = []
    for path in drop:
        found = [name for name in base.files if name == path or (path.endswith("/") and name.startswith(path))]
        if not found:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
        gone += found
    return gone
