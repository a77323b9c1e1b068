"""`files`: what lies in a session's workspace, and a copy of it.

What is there was put there by code nobody trusts: it is opened as every tool of the host opens it, no link is followed,
names are made printable, and nothing of the person's is written over.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import InternError
from ..execution.workspace import Workspace, WorkspaceError, repositories
from ..settings import Settings
from .text import one_line

HIDDEN = "."


def run(
    session: str, paths: tuple[str, ...], *, to: Path | None, home: Path | None, every: bool, as_json: bool
) -> int:
    """Lists, or copies.

    Returns:
        `int`: 0.

    Raises:
        InternError: there is no such session, no such file, or no room for the copy.
    """
    workspace = find(Settings.load(home).sessions(), session)
    wanted = paths or tuple(name for name in workspace.listdir() if every or not name.startswith(HIDDEN))
    # A dict: a file that is named twice counts once.
    names = list(dict.fromkeys(name for path in wanted for name in regular(workspace, path, strict=bool(paths))))
    if to is not None:
        copy(workspace, names, to, as_json)
        return 0
    total = 0
    for name in names:
        size = size_of(workspace, name)
        if size is None:
            continue
        total += size
        print(json.dumps({"path": name, "bytes": size}) if as_json else f"{size:>15,}  {one_line(name)}")
    if not as_json:
        print(f"{total:>15,}  in {one_line(str(workspace.root))}")
    return 0


def find(sessions: Path, name: str) -> Workspace:
    """The workspace of a session, by its id or the beginning of it.

    Raises:
        InternError: there is none, or more than one.
    """
    ids = sorted(path.name for path in sessions.iterdir() if path.is_dir() and not path.is_symlink())
    found = [known for known in ids if known == name] or [known for known in ids if name and known.startswith(name)]
    if len(found) != 1:
        why = f"{len(found)} begin so" if found else f"there are {len(ids)} in {sessions}"
        raise InternError(f"There is no one session {name!r}", why, f"Newest: {newest(sessions) or 'none yet'}.")
    root = sessions / found[0] / "workspace"
    if root.is_symlink() or not root.is_dir():
        raise InternError(f"Session {found[0]} has no workspace", "", "It may have been removed.")
    return Workspace(root)


def newest(sessions: Path) -> str:
    folders = [path for path in sessions.iterdir() if path.is_dir()]
    return max(folders, key=lambda path: path.stat().st_mtime).name if folders else ""


def regular(workspace: Workspace, path: str, *, strict: bool) -> Iterator[str]:
    """The regular files of a path, itself or below it."""
    if workspace.is_dir(path):
        yield from workspace.walk(path)
    elif strict or workspace.exists(path):
        workspace.open_read(path).close()  # or the reason why not
        yield workspace.relative(path)


def size_of(workspace: Workspace, name: str) -> int | None:
    """`None` where the code that runs has just taken it away."""
    try:
        with workspace.open_read(name) as file:
            return file.seek(0, 2)
    except WorkspaceError:
        return None


def copy(workspace: Workspace, names: list[str], to: Path, as_json: bool) -> None:
    target = to.expanduser().resolve()
    if target.is_relative_to(workspace.root):
        raise InternError(f"{to} lies in that workspace", "", "Choose another folder.")
    total, left_out = 0, repositories(names)
    names = [name for name in names if name not in left_out]
    if left_out:
        print(
            f"{len(left_out):,} files of git repositories are left out: git would run programs that they name.",
            file=sys.stderr,
        )
    try:
        target.mkdir(parents=True)
        for name in names:
            [digest] = workspace.copy_out(name, target / name)
            total += digest.size
            if as_json:
                print(json.dumps({"path": digest.path, "bytes": digest.size, "sha256": digest.sha256}))
    except FileExistsError:
        raise InternError(f"{to} is there already", "nothing is written over", "Name a new folder.") from None
    except OSError as error:
        raise InternError(f"Could not copy to {to}", error.strerror or str(error), "Choose another folder.") from None
    if not as_json:
        print(f"{len(names):,} files, {total:,} bytes, copied to {one_line(str(target))}")
