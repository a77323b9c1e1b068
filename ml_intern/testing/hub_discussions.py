"""The local Hub's routes for discussions and pull requests."""

import difflib
import secrets
from typing import Any

from starlette.responses import JSONResponse, Response

from ml_intern.testing.hub_http import Call, Routes
from ml_intern.testing.hub_store import Commit, Discussion, FileEntry, Refused, Repo, now

routes = Routes()
_PAGE = 50


def note_commit(call: Call, repo: Repo, ref: str, made: Commit) -> None:
    """Show a commit in the pull request that it belongs to, if it belongs to one."""
    for one in repo.discussions:
        if one.base and one.ref == ref:
            call.hub.store.discuss(repo, one.num, _event(call, "commit", {"subject": made.title, "oid": made.oid}))


def open_discussion(call: Call, repo: Repo, title: str, text: str, base: Commit | None) -> Discussion:
    """A discussion; with `base`, a pull request whose commits start from there."""
    store, user = call.hub.store, call.known()
    with store.lock:
        num = len(repo.discussions) + 1
        values = {"title": title, "author": user.name, "date": now(), "base": base.oid if base else None}
        opened = store.discuss(repo, num, _event(call, "comment", _comment(call, text)), **values)
        if base:
            store.point(repo, opened.ref, base.oid)
        return opened


@routes.add("GET", "/api/{types}/{repo}/discussions")
def listing(call: Call) -> Response:
    """Discussions, newest first, a page at a time."""
    repo = call.repo()
    kind, status, author = call.one("type"), call.one("status"), call.one("author")
    found = [
        one
        for one in reversed(repo.discussions)
        if (not author or one.author == author)
        and (kind in ("", "all") or (kind == "pull_request") == bool(one.base))
        and (status in ("", "all") or (one.status == "open") == (status == "open"))
    ]
    start = call.number("p", 0) * _PAGE
    page = [_shown(repo, one) for one in found[start : start + _PAGE]]
    return JSONResponse({"discussions": page, "count": len(found), "start": start})


@routes.add("POST", "/api/{types}/{repo}/discussions")
def create(call: Call) -> Response:
    """A discussion, or an empty pull request against main."""
    repo, wish = call.repo(), call.json()
    title = str(wish.get("title") or "")
    if len(title) < 3:
        raise Refused(400, 'A discussion needs a "title" of at least 3 letters')
    base = repo.resolve("main") if wish.get("pullRequest") else None
    opened = open_discussion(call, repo, title, str(wish.get("description") or ""), base)
    return JSONResponse(
        {"num": opened.num, "pullRequest": bool(base), "url": f"{call.hub.page(repo)}/discussions/{opened.num}"}
    )


@routes.add("GET", "/api/{types}/{repo}/discussions/{num}")
def details(call: Call) -> Response:
    """One discussion with its events; for a pull request the difference it makes."""
    repo, one = _which(call)
    shown = {**_shown(repo, one), "events": one.events}
    if one.base:
        changes, conflicts = _changes(repo, one)
        shown |= {"changes": {"base": "refs/heads/main", "mergeCommitId": one.merged}, "filesWithConflicts": conflicts}
        shown["diff"] = "".join(_diff(call, path, *sides) for path, sides in changes.items())
    return JSONResponse(shown)


@routes.add("POST", "/api/{types}/{repo}/discussions/{num}/comment")
def comment(call: Call) -> Response:
    """Say something."""
    repo, one = _which(call)
    event = _event(call, "comment", _comment(call, str(call.json().get("comment") or "")))
    call.hub.store.discuss(repo, one.num, event)
    return JSONResponse({"newMessage": event})


@routes.add("POST", "/api/{types}/{repo}/discussions/{num}/comment/{event}/{action}")
def change_comment(call: Call) -> Response:
    """Edit or hide a comment: its author may, and who may write to the repository."""
    repo, one = _which(call)
    found = [event for event in one.events if event["id"] == call.params["event"] and event["type"] == "comment"]
    if not found or call.params["action"] not in ("edit", "hide"):
        raise Refused(404, f"Discussion {one.num} has no such comment, or nothing of that kind can be done to it")
    if found[0]["author"]["name"] != call.known().name:
        call.may_write(repo.owner)
    hide, old = call.params["action"] == "hide", found[0]["data"]
    latest = _comment(call, "" if hide else str(call.json().get("content") or ""))["latest"]
    history = [] if hide else [*old["history"], old["latest"]]
    data = {"edited": not hide, "hidden": hide, "latest": latest, "history": history}
    event = {**found[0], "data": data}
    call.hub.store.discuss(repo, one.num, event)
    return JSONResponse({"updatedComment": event})


@routes.add("POST", "/api/{types}/{repo}/discussions/{num}/title")
def rename(call: Call) -> Response:
    """Change the title."""
    repo, one = _which(call, mine=True)
    title = str(call.json().get("title") or "")
    event = _event(call, "title-change", {"from": one.title, "to": title})
    call.hub.store.discuss(repo, one.num, event, title=title)
    return JSONResponse({"newTitle": event})


@routes.add("POST", "/api/{types}/{repo}/discussions/{num}/status")
def status(call: Call) -> Response:
    """Open or close."""
    repo, one = _which(call, mine=True)
    chosen = call.json().get("status")
    if chosen not in ("open", "closed"):
        raise Refused(400, '"status" must be "open" or "closed"')
    event = _event(call, "status-change", {"status": chosen, "reason": call.json().get("comment")})
    call.hub.store.discuss(repo, one.num, event, status=chosen)
    return JSONResponse({"newStatus": event})


@routes.add("POST", "/api/{types}/{repo}/discussions/{num}/merge")
def merge(call: Call) -> Response:
    """Carry the changes of a pull request over to main."""
    repo, one = _which(call)
    user, store = call.may_write(repo.owner), call.hub.store
    with store.lock:
        if not one.base or one.status != "open":
            raise Refused(400, f"#{one.num} is not an open pull request")
        changes, conflicts = _changes(repo, one)
        if conflicts:
            raise Refused(409, f"Cannot merge: main has other changes in {', '.join(conflicts)}")
        put = {path: new for path, (_, new) in changes.items() if new}
        drop = [path for path, (_, new) in changes.items() if not new]
        merged = store.commit(repo, "refs/heads/main", f"{one.title} (#{one.num})", user.name, put=put, drop=drop)
        event = _event(call, "status-change", {"status": "merged"})
        store.discuss(repo, one.num, event, status="merged", merged=merged.oid)
    return JSONResponse({"commitOid": merged.oid})


def _which(call: Call, *, mine: bool = False) -> tuple[Repo, Discussion]:
    repo = call.repo()
    if call.method != "GET":
        call.known()
    num = call.params["num"]
    if not num.isdigit() or not 0 < int(num) <= len(repo.discussions):
        raise Refused(404, f"{repo.id} has no discussion {num}")
    one = repo.discussions[int(num) - 1]
    if mine and call.known().name != one.author:
        call.may_write(repo.owner)
    return repo, one


def _shown(repo: Repo, one: Discussion) -> dict[str, Any]:
    about = {"num": one.num, "title": one.title, "status": one.status, "createdAt": one.date}
    place = {"name": repo.id, "type": repo.type}
    return {**about, "author": {"name": one.author}, "isPullRequest": bool(one.base), "repo": place}


def _event(call: Call, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    author = {"name": call.known().name}
    return {"id": secrets.token_hex(12), "type": kind, "createdAt": now(), "author": author, "data": data}


def _comment(call: Call, text: str) -> dict[str, Any]:
    latest = {"raw": text, "html": text, "updatedAt": now(), "author": {"name": call.known().name}}
    return {"edited": False, "hidden": False, "latest": latest, "history": []}


def _changes(repo: Repo, one: Discussion) -> tuple[dict[str, tuple[FileEntry | None, FileEntry | None]], list[str]]:
    """What a pull request changes (before, after) per path, and where main has changed otherwise since."""
    base, head = repo.commits[str(one.base)].files, repo.commits[repo.refs[one.ref]].files
    main = repo.commits[one.merged].files if one.merged else repo.resolve("main").files
    paths = [path for path in sorted({*base, *head}) if base.get(path) != head.get(path)]
    conflicts = [path for path in paths if main.get(path) not in (base.get(path), head.get(path))]
    return {path: (base.get(path), head.get(path)) for path in paths}, conflicts


def _diff(call: Call, path: str, old: FileEntry | None, new: FileEntry | None) -> str:
    if (old and old.lfs) or (new and new.lfs):
        return f"diff --git a/{path} b/{path}\nBinary files differ\n"
    before, after = (
        call.hub.store.blobs.read(file.sha256).decode(errors="replace").splitlines(keepends=True) if file else []
        for file in (old, new)
    )
    lines = difflib.unified_diff(before, after, f"a/{path}", f"b/{path}")
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)
