"""The local Hub's routes about files and history: tree, paths, download, commits, branches, tags."""

import hashlib
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from ml_intern.testing.hub_http import Call, Routes
from ml_intern.testing.hub_store import Commit, FileEntry, Refused, Repo, pointer

routes = Routes()
_TREE_PAGE = 1000
_COMMIT_PAGE = 1000


@routes.add("GET", "/api/{types}/{repo}/tree/{rev}")
@routes.add("GET", "/api/{types}/{repo}/tree/{rev}/{path}")
def tree(call: Call) -> Response:
    """Files and folders under a path."""
    repo = call.repo()
    commit = call.commit(repo)
    base = unquote(call.params.get("path", "")).strip("/")
    if base and base not in _folders(commit):
        raise Refused(404, f"{base} does not exist on {call.params['rev']}", "EntryNotFound")
    inside = [path for path in sorted({*commit.files, *_folders(commit)}) if not base or path.startswith(base + "/")]
    if not call.flag("recursive"):
        inside = [path for path in inside if "/" not in path[len(base) + 1 if base else 0 :]]
    start, limit = call.number("cursor", 0), min(call.number("limit", _TREE_PAGE), _TREE_PAGE)
    headers = call.next_page(str(start + limit)) if start + limit < len(inside) else {}
    return JSONResponse(_entries(call, repo, commit, inside[start : start + limit]), headers=headers)


@routes.add("POST", "/api/{types}/{repo}/paths-info/{rev}")
def paths_info(call: Call) -> Response:
    """Those of the given paths that exist."""
    repo = call.repo()
    commit = call.commit(repo)
    if "json" in call.headers.get("content-type", ""):
        form = {name: value if isinstance(value, list) else [str(value)] for name, value in call.json().items()}
    else:
        form = parse_qs(call.body.decode())
    call.query += [("expand", value) for value in form.get("expand", [])]
    known = {*commit.files, *_folders(commit)}
    return JSONResponse(_entries(call, repo, commit, [path for path in form.get("paths", []) if path in known]))


def _folders(commit: Commit) -> set[str]:
    found = set()
    for path in commit.files:
        while "/" in path:
            path = path.rpartition("/")[0]
            found.add(path)
    return found


def _entries(call: Call, repo: Repo, commit: Commit, paths: list[str]) -> list[dict[str, Any]]:
    history = repo.history(commit) if call.flag("expand") else []
    entries = []
    for path in paths:
        file = commit.files.get(path)
        shown = {"type": "file", "oid": file.oid, "size": file.size, "path": path} if file else _folder(commit, path)
        if file and file.lfs:
            size = len(pointer(file.sha256, file.size))
            shown["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": size}
        if history:
            last = _last_change(history, path)
            shown["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
            if file:
                shown["securityFileStatus"] = _unscanned()
        entries.append(shown)
    return entries


def _folder(commit: Commit, path: str) -> dict[str, Any]:
    inside = sorted((name, file.oid) for name, file in commit.files.items() if name.startswith(path + "/"))
    return {"type": "directory", "oid": _sha1(repr(inside)), "size": 0, "path": path}


def _unscanned() -> dict[str, Any]:
    return {"status": "unscanned", "avScan": None, "pickleImportScan": None}


def _last_change(history: list[Commit], path: str) -> Commit:
    """The commit that gave a file or folder the content it has at `history[0]`."""

    def content(commit: Commit) -> object:
        return commit.files.get(path) or {k: v for k, v in commit.files.items() if k.startswith(path + "/")}

    for newer, older in pairwise(history):
        if content(newer) != content(older):
            return newer
    return history[-1]


@routes.add("GET", "/{prefix}{repo}/resolve/{rev}/{path}")
@routes.add("GET", "/{prefix}{repo}/raw/{rev}/{path}")
def resolve(call: Call) -> Response:
    """A file: itself, or where it is to be had if it is in LFS. `raw` gives what git holds."""
    repo = call.repo()
    call.check_gate(repo)
    commit, path = call.commit(repo), unquote(call.params["path"])
    file = commit.files.get(path)
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    if file is None:
        raise Refused(404, "Entry not found", "EntryNotFound", headers={"X-Repo-Commit": commit.oid})
    if file.lfs and "/raw/" in call.raw_path:
        return Response(pointer(file.sha256, file.size), media_type="text/plain", headers=headers)
    if file.lfs:
        # The official client takes the headers of a redirect only if it leads to another host name.
        target = f"{call.hub.cdn}/cdn/{file.sha256}?signature={call.hub.sign(file.sha256)}&filename={quote(path)}"
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size), "ETag": f'"{file.sha256}"'}
        return RedirectResponse(target, status_code=302, headers=headers | linked)
    return _send(call, file, headers)


@routes.add("GET", "/cdn/{digest}")
def content(call: Call) -> Response:
    """Content by digest, for those that `resolve` sent here."""
    digest = call.params["digest"]
    if call.one("signature") != call.hub.sign(digest):
        raise Refused(403, "The signature of this address is missing, wrong or expired")
    size = call.hub.store.blobs.path(digest).stat().st_size
    return _send(call, FileEntry(digest, size, digest, lfs=True), {})


def _send(call: Call, file: FileEntry, headers: dict[str, str]) -> Response:
    etag = {"ETag": f'"{file.oid}"'}
    if call.headers.get("if-none-match") == etag["ETag"]:
        return Response(status_code=304, headers=headers | etag)
    # Starlette's own FileResponse knows Range and If-Range.
    path = call.hub.store.blobs.path(file.sha256)
    return FileResponse(path, headers=headers | etag, media_type="application/octet-stream")


@routes.add("GET", "/api/{types}/{repo}/commits/{rev}")
def commits(call: Call) -> Response:
    """History, newest first."""
    repo = call.repo()
    history = repo.history(call.commit(repo))
    start = call.number("cursor", 0)
    page = history[start : start + _COMMIT_PAGE]
    headers = call.next_page(str(start + _COMMIT_PAGE)) if start + _COMMIT_PAGE < len(history) else {}
    return JSONResponse([_shown(call, commit) for commit in page], headers=headers)


def _shown(call: Call, commit: Commit) -> dict[str, Any]:
    about = {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
    if call.many("expand"):
        about["formatted"] = {"title": commit.title, "message": commit.message}
    return {**about, "authors": [{"user": commit.author}]}


@routes.add("GET", "/api/{types}/{repo}/refs")
def refs(call: Call) -> Response:
    """Branches, tags and pull requests."""
    repo = call.repo()
    with call.hub.store.lock:
        all_refs = sorted(repo.refs.items())

    def named(start: str) -> list[dict[str, str]]:
        found = [(ref, oid) for ref, oid in all_refs if ref.startswith(start)]
        return [{"name": ref.removeprefix(start), "ref": ref, "targetCommit": oid} for ref, oid in found]

    answer = {"branches": named("refs/heads/"), "tags": named("refs/tags/"), "converts": []}
    if call.one("include_prs"):
        answer["pullRequests"] = named("refs/pr/")
    return JSONResponse(answer)


@routes.add("POST", "/api/{types}/{repo}/branch/{name}")
def create_branch(call: Call) -> Response:
    """A branch from `startingPoint`, or from main."""
    repo, _ = call.writable()
    return _create_ref(call, repo, f"refs/heads/{_name(call)}", str(call.json().get("startingPoint") or "main"))


@routes.add("DELETE", "/api/{types}/{repo}/branch/{name}")
def delete_branch(call: Call) -> Response:
    """Drop a branch; main stays."""
    if _name(call) == "main":
        raise Refused(403, "The branch main cannot be deleted")
    return _delete_ref(call, "refs/heads/")


@routes.add("POST", "/api/{types}/{repo}/tag/{rev}")
def create_tag(call: Call) -> Response:
    """A tag on a revision."""
    repo, _ = call.writable()
    tag = str(call.json().get("tag") or "")
    if not tag:
        raise Refused(400, '"tag" is missing')
    return _create_ref(call, repo, f"refs/tags/{tag}", unquote(call.params["rev"]))


@routes.add("DELETE", "/api/{types}/{repo}/tag/{name}")
def delete_tag(call: Call) -> Response:
    """Drop a tag."""
    return _delete_ref(call, "refs/tags/")


def _name(call: Call) -> str:
    return unquote(call.params["name"])


def _create_ref(call: Call, repo: Repo, ref: str, revision: str) -> Response:
    with call.hub.store.lock:
        if ref in repo.refs:
            raise Refused(409, f"Reference {ref} exists already")
        call.hub.store.point(repo, ref, repo.resolve(revision).oid)
    return JSONResponse({})


def _delete_ref(call: Call, start: str) -> Response:
    repo, _ = call.writable()
    with call.hub.store.lock:
        if start + _name(call) not in repo.refs:
            raise Refused(404, f"There is no {start}{_name(call)}", "RevisionNotFound")
        call.hub.store.point(repo, start + _name(call), None)
    return JSONResponse({})


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
