"""What a replay finds in its workspace: what was handed over, and what tools brought.

The session's own workspace belongs to code nobody trusts: it is only read, and no link in it is followed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .differences import Compared
from .errors import InternError
from .execution.workspace import Workspace, WorkspaceError
from .trace.actions import RecordedCall, Recording

LARGEST_TEXT_FILE = 5_000_000
LONGEST_PATH = 300
NAMED = 5


def lay_out(recording: Recording, workspace: Workspace, folder: Path | None) -> list[str]:
    """Puts in what the code starts on, and says what that is.

    Raises:
        InternError: there is no such folder to copy.
    """
    if folder is not None:
        if not folder.is_dir():
            raise InternError(f"There is no folder {folder}", "", "Name a folder whose copy the code is to start on.")
        count = transfer(Workspace(folder), ".", workspace)
        return [f"The workspace is a copy of {folder}: {count} files."]
    own, said = session_workspace(recording.folder / "workspace"), []
    brought, changed, gone = [], [], []
    for handed in recording.handed:
        if own is None or not own.exists(handed.name):
            gone.append(handed.name)
            continue
        transfer(own, handed.name, workspace)
        size = None if own.is_dir(handed.name) else _size(own, handed.name)
        (changed if handed.size not in (None, size) else brought).append(handed.name)
    said.append(
        f"The workspace is empty but for what was handed over: {', '.join(brought)}."
        if brought
        else "The workspace is empty; how it was at the start is not on record."
    )
    if changed:
        said.append(f"Handed over, and of another size since: {', '.join(changed)}.")
    if gone:
        said.append(f"Handed over, and not here any more: {', '.join(gone)}.")
    return said


def session_workspace(folder: Path) -> Workspace | None:
    """The one that a session worked in, if it is still there."""
    return Workspace(folder) if folder.is_dir() and not is_link(folder) else None


def is_link(folder: Path) -> bool:
    """Whether a folder in a session's folder, or that one, is a link: what came from elsewhere may lead anywhere."""
    return folder.is_symlink() or folder.parent.is_symlink()


def transfer(source: Workspace, path: str, target: Workspace) -> int:
    """Copies a file, or the files of a folder, from one workspace to the other; links are left out. Returns their number."""
    names = source.walk(path) if source.is_dir(path) else [source.relative(path)]
    for name in names:
        copy(source, name, target, name)
    return len(names)


def copy(source: Workspace, name: str, target: Workspace, to: str) -> None:
    with source.open_read(name) as origin, target.open_write(to) as file:
        shutil.copyfileobj(origin, file, 1 << 20)


def _digest(workspace: Workspace, name: str) -> str:
    try:
        with workspace.open_read(name) as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except WorkspaceError:
        return ""


def _size(workspace: Workspace, name: str) -> int:
    with workspace.open_read(name) as file:
        return file.seek(0, 2)


class Bringing:
    """The files of a session's calls.

    Args:
        own (`Path`): The session's workspace; it may be gone.
        workspace (`Workspace`): The replay's.
    """

    def __init__(self, own: Path, workspace: Workspace) -> None:
        self.own, self.workspace = session_workspace(own), workspace
        self.missing: list[str] = []
        """What calls brought then and is not here."""
        self._sent: dict[str, tuple[str, str]] = {}

    def bring(self, call: RecordedCall) -> list[str]:
        """What a call put into the workspace then: files that its result names, as they lie there now."""
        brought = sum(self._fetch(self.own, name) for name in dict.fromkeys(_paths(call))) if self.own else 0
        if brought:
            files = f"{brought} files" if brought > 1 else "a file"
            return [f"{files} that `{call.tool}` brought then: taken from the session's workspace, as it is now"]
        folder = _folder(call)
        if folder and not self.workspace.exists(folder):
            self.missing.append(folder)
            return [f"`{call.tool}` brought files into {folder} then, and they are not here"]
        return []

    def _fetch(self, own: Workspace, path: str) -> int:
        """Copies what is missing. What the session had sent and fetched again comes back as the replay would have sent it."""
        try:
            if own.relative(path) == "." or not own.exists(path):
                return 0
            names = own.walk(path) if own.is_dir(path) else [own.relative(path)]
            names = [name for name in names if not self.workspace.exists(name)]
            for name in names:
                sent = self._sent.get(_digest(own, name)) if self._sent else None
                if sent is not None and _digest(self.workspace, sent[0]) == sent[1]:
                    copy(self.workspace, sent[0], self.workspace, name)
                else:
                    copy(own, name, self.workspace, name)
        except WorkspaceError:  # no path of this workspace; what it is, the code finds out
            return 0
        return len(names)

    def compare(self, call: RecordedCall, texts: Callable[[str, str], Compared]) -> list[str]:
        """What a call sent then beside what it would send now."""
        remarks = []
        for file in call.files:
            name, digest = str(file.get("path", "")), str(file.get("sha256", ""))
            now = _content(self.workspace, name)
            if now is None:
                remarks.append(f"{name}, which `{call.tool}` sent then, is not there now")
            elif hashlib.sha256(now).hexdigest() != digest:
                self._sent[digest] = name, hashlib.sha256(now).hexdigest()
                remarks.append(f"{name}, which `{call.tool}` sent then: {self._how(name, digest, now, texts)}")
        return remarks

    def _how(self, name: str, digest: str, now: bytes, texts: Callable[[str, str], Compared]) -> str:
        then = _content(self.own, name) if self.own is not None else None
        if then is None or hashlib.sha256(then).hexdigest() != digest or b"\0" in then[:8000]:
            return "other bytes now"
        changes = texts(then.decode("utf-8", "replace"), now.decode("utf-8", "replace")).changes
        if not changes:
            return "the same but for times and the last digits of numbers"
        more = f" and {len(changes) - NAMED} more" if len(changes) > NAMED else ""
        return "; ".join(map(str, changes[:NAMED])) + more


def _content(workspace: Workspace, name: str) -> bytes | None:
    try:
        return workspace.read_bytes(name, LARGEST_TEXT_FILE * 100)
    except WorkspaceError:
        return None


def _folder(call: RecordedCall) -> str:
    """Where a tool that says so has put files."""
    assert call.result is not None
    try:
        said = json.loads(call.result.text)
    except ValueError:
        return ""
    return str(said["folder"]) if isinstance(said, dict) and said.get("files") and "folder" in said else ""


def _paths(call: RecordedCall) -> Iterator[str]:
    """Texts of a result that may be paths."""
    assert call.result is not None
    try:
        todo: list[Any] = [json.loads(call.result.text)]
    except ValueError:
        todo = [call.result.text]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list):
            todo += item
        elif isinstance(item, str) and 0 < len(item) <= LONGEST_PATH and "\0" not in item:
            yield item
