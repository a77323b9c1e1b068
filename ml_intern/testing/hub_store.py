"""Repositories of the local Hub: every change is a record in the journal, the state is what the records add up to."""

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ml_intern.testing.hub_journal import Blobs, Journal, Record

RepoType = Literal["model", "dataset", "space"]
_HEX = re.compile(r"[0-9a-f]{7,40}")


class Refused(Exception):
    """What the Hub answers when it will not do something.

    Args:
        status (`int`): HTTP status.
        message (`str`): For people.
        code (`str`, *optional*): `X-Error-Code`, by which the official client chooses its exception.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, *, headers: dict[str, str] | None = None, **body: Any
    ):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers, self.body = headers or {}, body


@dataclass(frozen=True)
class FileEntry:
    """A file at one commit: digest of its content, size in bytes, git's id of it (of its pointer, if in LFS)."""

    sha256: str
    size: int
    oid: str
    lfs: bool = False


@dataclass(frozen=True)
class Commit:
    """A commit with its whole tree."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, FileEntry]


@dataclass
class Discussion:
    """A discussion or pull request; `events` are as the Hub's API shows them."""

    num: int
    title: str
    author: str
    date: str
    base: str | None
    status: str = "open"
    merged: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ref(self) -> str:
        """Where commits to this pull request go."""
        return f"refs/pr/{self.num}"


@dataclass
class Repo:
    """A repository. `refs` has full names: `refs/heads/main`, `refs/tags/v1`, `refs/pr/3`."""

    type: RepoType
    id: str
    date: str
    visibility: str = "public"
    gated: str | Literal[False] = False
    sdk: str | None = None
    downloads: int = 0
    likes: int = 0
    providers: list[str] = field(default_factory=list)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    admitted: set[str] = field(default_factory=set)

    @property
    def owner(self) -> str:
        """User or organization; empty for a repository without a namespace."""
        return self.id.rpartition("/")[0]

    def resolve(self, revision: str) -> Commit:
        """The commit behind a branch, tag, full ref, or commit id of 7 digits or more."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        if _HEX.fullmatch(revision):
            found = [self.commits[oid] for oid in list(self.commits) if oid.startswith(revision)]
            if len(found) == 1:
                return found[0]
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, commit: Commit) -> list[Commit]:
        """The commit and its ancestors, newest first."""
        found = [commit]
        while found[-1].parent:
            found.append(self.commits[found[-1].parent])
        return found


def now() -> str:
    """The time as the Hub writes it, but to the microsecond, so that what comes later sorts later."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def git_oid(data: bytes) -> str:
    """The id that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """What git holds in place of a file in LFS."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class Store:
    """All repositories, in memory and on disk.

    Args:
        folder (`Path`): Made if missing; holds `journal.jsonl` and `blobs/`.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self.blobs = Blobs(folder / "blobs")
        self.repos: dict[tuple[str, str], Repo] = {}
        self._moved: dict[tuple[str, str], str] = {}
        self._journal = Journal(folder / "journal.jsonl")
        for record in self._journal.read():
            self._apply(record)

    @property
    def closed(self) -> bool:
        """Whether the folder was let go of."""
        return self._journal.closed

    def close(self) -> None:
        """Let another process have the folder."""
        self._journal.close()

    def find(self, type: str, id: str) -> Repo | None:
        """The repository with this name, also by a name it had before."""
        seen = set()
        while (type, id) not in self.repos and (type, id) in self._moved and id not in seen:
            seen.add(id)
            id = self._moved[type, id]
        return self.repos.get((type, id))

    def entry(self, data: bytes, *, lfs: bool = False) -> FileEntry:
        """Keep `data` and describe it as a file."""
        digest = self.blobs.put(data)
        return FileEntry(digest, len(data), git_oid(pointer(digest, len(data)) if lfs else data), lfs)

    def read(self, commit: Commit, path: str) -> bytes | None:
        """Content of a file at a commit."""
        file = commit.files.get(path)
        return self.blobs.read(file.sha256) if file else None

    def create(self, type: RepoType, id: str, author: str, first: Mapping[str, FileEntry], **settings: Any) -> Repo:
        """A new repository with an initial commit that holds the files `first`."""
        with self.lock:
            if (type, id) in self.repos:
                raise Refused(409, f"You already created this {type} repo: {id}")
            self._do({"op": "create", "type": type, "id": id, "date": now(), **settings})
            repo = self.repos[type, id]
            self.commit(repo, "refs/heads/main", "initial commit", author, put=first)
            return repo

    def delete(self, repo: Repo) -> None:
        """Take the repository away; its content stays in `blobs/`."""
        self._do({"op": "delete", "type": repo.type, "id": repo.id})

    def move(self, repo: Repo, to: str) -> None:
        """Rename; the old name goes on working."""
        with self.lock:
            if (repo.type, to) in self.repos:
                raise Refused(409, f"A {repo.type} named {to} exists already")
            self._do({"op": "move", "type": repo.type, "id": repo.id, "to": to})

    def settings(self, repo: Repo, **values: Any) -> None:
        """Change attributes of `Repo` such as `visibility`, `gated`, `downloads`, `likes`."""
        self._do({"op": "settings", "type": repo.type, "id": repo.id, "values": values})

    def admit(self, repo: Repo, user: str) -> None:
        """Let a user into a gated repository."""
        self._do({"op": "admit", "type": repo.type, "id": repo.id, "user": user})

    def point(self, repo: Repo, ref: str, oid: str | None) -> None:
        """Set a ref, or remove it with `None`."""
        self._do({"op": "ref", "type": repo.type, "id": repo.id, "ref": ref, "oid": oid})

    def discuss(self, repo: Repo, num: int, event: dict[str, Any] | None = None, **values: Any) -> Discussion:
        """Open discussion `num`, or change attributes of it and add an event (replace it, by its id)."""
        with self.lock:
            record = {"op": "discussion", "type": repo.type, "id": repo.id, "num": num, "event": event}
            self._do({**record, "values": values})
            return repo.discussions[num - 1]

    def commit(
        self,
        repo: Repo,
        ref: str,
        title: str,
        author: str,
        *,
        put: Mapping[str, FileEntry],
        drop: list[str] | None = None,
        message: str = "",
        parent: str | None = None,
    ) -> Commit:
        """Add a commit on top of `ref` (of `parent`, where the ref is new): files put and paths dropped."""
        with self.lock:
            parent = repo.refs.get(ref, parent)
            date = now()
            changes = {path: [f.sha256, f.size, f.oid, f.lfs] for path, f in put.items()}
            seed = repr((repo.type, repo.id, ref, parent, title, message, author, date, changes, drop)).encode()
            oid = hashlib.sha1(seed, usedforsecurity=False).hexdigest()
            record = {"op": "commit", "type": repo.type, "id": repo.id, "ref": ref, "oid": oid, "parent": parent}
            about = {"title": title, "message": message, "author": author, "date": date}
            self._do({**record, **about, "put": changes, "drop": drop or []})
            return repo.commits[oid]

    def _do(self, record: Record) -> None:
        with self.lock:
            self._journal.append(record)
            self._apply(record)

    def _apply(self, record: Record) -> None:
        key = record["type"], record["id"]
        match record:
            case {"op": "create", **values}:
                self.repos[key] = Repo(**values)
                self._moved.pop(key, None)
            case {"op": "delete"}:
                del self.repos[key]
            case {"op": "move", "to": to}:
                repo = self.repos.pop(key)
                repo.id = to
                self.repos[repo.type, to] = repo
                self._moved[key] = to
            case {"op": "settings", "values": values}:
                vars(self.repos[key]).update(values)
            case {"op": "admit", "user": user}:
                self.repos[key].admitted.add(user)
            case {"op": "ref", "ref": ref, "oid": None}:
                self.repos[key].refs.pop(ref, None)
            case {"op": "ref", "ref": ref, "oid": oid}:
                self.repos[key].refs[ref] = oid
            case {"op": "discussion", "num": num, "event": event, "values": values}:
                discussions = self.repos[key].discussions
                if num > len(discussions):
                    discussions.append(Discussion(num, **values))
                else:
                    vars(discussions[num - 1]).update(values)
                if event:
                    events = {old["id"]: old for old in discussions[num - 1].events}
                    discussions[num - 1].events = list((events | {event["id"]: event}).values())
            case {"op": "commit"}:
                self._apply_commit(self.repos[key], record)

    def _apply_commit(self, repo: Repo, record: Record) -> None:
        files = dict(repo.commits[record["parent"]].files) if record["parent"] else {}
        for path in record["drop"]:
            files.pop(path, None)
        files |= {path: FileEntry(*values) for path, values in record["put"].items()}
        about = (record[name] for name in ("oid", "parent", "title", "message", "author", "date"))
        repo.commits[record["oid"]] = Commit(*about, files=files)
        repo.refs[record["ref"]] = record["oid"]
