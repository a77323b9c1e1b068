"""The session's folders on this machine and their copies in an E2B sandbox, kept alike.

Before an action what changed here goes there; after it, and when a host tool looks meanwhile, what changed there comes
back. Only regular files and folders travel, and what comes back is written through the workspace's own safe opening:
a sandbox's code may send what it likes.
"""

from __future__ import annotations

import contextvars
import json
import os
import shlex
import shutil
import stat
import tarfile
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ml_intern.execution.e2b_process import within
from ml_intern.execution.workspace import Workspace, WorkspaceError, open_beneath

COMMAND_SECONDS, TRANSFER_SECONDS = 60.0, 900.0
SYNC_BYTES = 4 * 1024**3
ENTRIES, MARKS_CHARACTERS = 100_000, 32 << 20
Marks = dict[str, tuple[int, int] | None]
"""Size and time of change of every file, by path; `None` for a folder."""

# Runs in the sandbox. `list` prints the marks, `pack` puts named files into an archive, `unpack` does the reverse and
# removes what is named, deepest first.
SCRIPT = """
import json, os, stat, sys, tarfile
what, root, archive = sys.argv[1:4]
os.chdir(root)
def marks():
    found, todo = {}, ['']
    while todo and len(found) <= ENTRIES:
        folder = todo.pop()
        for entry in os.scandir(folder or '.'):
            try:
                about = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(about.st_mode):
                found[folder + entry.name] = None
                todo.append(folder + entry.name + '/')
            elif stat.S_ISREG(about.st_mode):
                found[folder + entry.name] = [about.st_size, about.st_mtime_ns]
    return found
if what == 'pack':
    with tarfile.open(archive + '.tar', 'w') as tar:
        for name in json.load(open(archive + '.json')):
            try:
                if stat.S_ISREG(os.lstat(name).st_mode):
                    tar.add(name, recursive=False)
            except OSError:
                pass
elif what == 'unpack':
    for name in json.load(open(archive + '.json')):
        try:
            (os.rmdir if os.path.isdir(name) and not os.path.islink(name) else os.unlink)(name)
        except OSError:
            pass
    with tarfile.open(archive + '.tar') as tar:
        for member in tar:
            if os.path.islink(member.name):
                os.unlink(member.name)
            tar.extract(member)
    os.unlink(archive + '.tar')
print(json.dumps(marks()))
""".replace("ENTRIES", str(ENTRIES))


class Mirror:
    """One folder here and its copy there.

    Args:
        workspace (`Workspace`): The folder here.
        limit (`int`): Bytes of files that are kept here; the largest of those that are too much stay there.
        given_up (`Callable[[], bool]`, *optional*): Asked while files come whether to stop.
    """

    def __init__(
        self, workspace: Workspace, limit: int = SYNC_BYTES, given_up: Callable[[], bool] = lambda: False
    ) -> None:
        self.workspace, self.limit, self.given_up = workspace, limit, given_up
        self.left_out: list[str] = []
        self._here: Marks = {}
        self._there: Marks = {}
        self._sandbox: Any = None
        self._remote = self._archive = ""
        self._lock = threading.RLock()

    def settle(self, sandbox: Any, remote: str, archive: str) -> None:
        """A sandbox to go on with. `remote` is there and may be empty; `archive` is a path for passing things."""
        with self._lock:
            self._sandbox, self._remote, self._archive = sandbox, remote, archive
            self._here, self._there = {}, {}

    def leave(self) -> None:
        """No more of this sandbox; what is under way is not waited for."""
        self._sandbox = None

    def push(self) -> None:
        """What changed here goes there."""
        with self._lock:
            sandbox = self._sandbox
            if sandbox is None:
                return
            now = marks_of(self.workspace)
            changed = [name for name, mark in now.items() if name not in self._here or self._here[name] != mark]
            gone = sorted((name for name in self._here if name not in now), reverse=True)
            if not changed and not gone:
                return
            with tempfile.TemporaryFile() as archive:
                with tarfile.open(fileobj=archive, mode="w") as tar:
                    for name in sorted(changed):
                        add(tar, self.workspace, name)
                archive.seek(0)
                within(TRANSFER_SECONDS, sandbox.files.write, self._archive + ".tar", archive)
            within(COMMAND_SECONDS, sandbox.files.write, self._archive + ".json", json.dumps(gone))
            self._there = self._run(sandbox, "unpack")
            self._here = now

    def pull(self) -> None:
        """What changed there comes here."""
        with self._lock:
            sandbox = self._sandbox
            if sandbox is None:
                return
            now = self._run(sandbox, "list")
            changed = [name for name, mark in now.items() if name not in self._there or self._there[name] != mark]
            gone = sorted((name for name in self._there if name not in now), reverse=True)
            self.left_out = []
            if not changed and not gone:
                return
            for name in gone:
                remove(self.workspace, name)
            for name in sorted(name for name in changed if now[name] is None):
                make_folder(self.workspace, name)
            files = self._affordable(now, changed)
            if files:
                within(COMMAND_SECONDS, sandbox.files.write, self._archive + ".json", json.dumps(files))
                self._run(sandbox, "pack")
                with tempfile.TemporaryFile() as archive:
                    within(TRANSFER_SECONDS, self._download, sandbox, archive)
                    archive.seek(0)
                    self._unpack(archive, set(files))
            self._there = now
            kept = marks_of(self.workspace)  # only of what came: what somebody else wrote meanwhile is yet to go there
            self._here = {name: mark for name, mark in self._here.items() if name not in gone}
            self._here |= {name: kept[name] for name in changed if name in kept}

    def _affordable(self, now: Marks, changed: list[str]) -> list[str]:
        """Those of the changed files that there is room for, the smallest first."""
        sizes = {name: mark[0] for name, mark in now.items() if mark is not None}
        new = sorted((sizes[name], name) for name in changed if name in sizes)
        total, chosen = sum(sizes.values()) - sum(size for size, _ in new), []
        for size, name in new:
            total += size
            if total > self.limit:
                self.left_out.append(f"{name} ({size:,} bytes)")
            else:
                chosen.append(name)
        return chosen

    def _run(self, sandbox: Any, what: str) -> Marks:
        """Runs the script there. Raises `ConnectionError` for an answer that is none: code can get in its way."""
        command = shlex.join(["python3", "-s", "-P", "-c", SCRIPT, what, self._remote, self._archive])
        said: list[str] = []

        def hear(text: str) -> None:
            said.append(text)
            if sum(map(len, said)) > MARKS_CHARACTERS:
                raise ConnectionError("the sandbox's list of files has no end")

        within(
            COMMAND_SECONDS,
            sandbox.commands.run,
            command,
            timeout=COMMAND_SECONDS,
            on_stdout=hear,
            retain_output=False,
        )
        try:
            return read_marks(json.loads("".join(said).splitlines()[-1]))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ConnectionError(f"the sandbox's list of files does not read: {error}") from error

    def _download(self, sandbox: Any, archive: IO[bytes]) -> None:
        size = 0
        with sandbox.files.read(self._archive + ".tar", format="stream") as pieces:
            for piece in pieces:
                size += archive.write(piece)
                if self.given_up():
                    raise ConnectionError("interrupted")
                if size > self.limit + (64 << 20):
                    raise ConnectionError("the sandbox sent more than it said it would")

    def _unpack(self, archive: IO[bytes], expected: set[str]) -> None:
        """Only whole regular files that were asked for: an archive can say that a kilobyte is a terabyte of nothing."""
        try:
            with tarfile.open(fileobj=archive, mode="r:") as tar:
                for member in tar:
                    whole = member.isreg() and not member.issparse()
                    source = tar.extractfile(member) if whole and member.name in expected else None
                    if source is None:
                        continue
                    try:
                        with self.workspace.open_write(member.name) as file:
                            shutil.copyfileobj(source, file, 1 << 20)
                    except WorkspaceError:  # a folder here, a file there; what is here stays
                        self.left_out.append(member.name)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise ConnectionError(f"the sandbox's files do not read: {error}") from error


def read_marks(data: Any) -> Marks:
    """What a sandbox says it holds. Raises `ValueError` for what is no such thing, or leads out of a folder."""
    if not isinstance(data, dict) or len(data) > ENTRIES:
        raise ValueError(f"the sandbox's workspace holds more than {ENTRIES:,} files" if data else "no list of files")
    marks: Marks = {}
    for name, mark in data.items():
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise ValueError(f"a path leads out of the workspace: {name!r}")
        marks[name] = None if mark is None else (int(mark[0]), int(mark[1]))
    return marks


def marks_of(workspace: Workspace) -> Marks:
    found: Marks = {}
    for folder, folders, files in os.walk(workspace.root):
        base = Path(folder).relative_to(workspace.root)
        for name in (*folders, *files):
            path = (base / name).as_posix()
            try:
                about = os.lstat(workspace.root / path)
            except OSError:
                continue
            if stat.S_ISDIR(about.st_mode):
                found[path] = None
            elif stat.S_ISREG(about.st_mode):
                found[path] = about.st_size, about.st_mtime_ns
    return found


def add(tar: tarfile.TarFile, workspace: Workspace, name: str) -> None:
    """A file or folder as it is now; one that is gone again is left out."""
    try:
        if workspace.is_dir(name):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
            return
        with Workspace.open_read(workspace, name) as file:
            about = os.fstat(file.fileno())
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = about.st_size, int(about.st_mtime), about.st_mode & 0o777
            tar.addfile(member, file)
    except WorkspaceError:
        return


def make_folder(workspace: Workspace, name: str) -> None:
    with tempfile.TemporaryDirectory() as empty:
        workspace.copy_in(empty, name)


def remove(workspace: Workspace, name: str) -> None:
    """A file, or an empty folder; no link on the way is followed."""
    *parents, last = PurePosixPath(name).parts
    try:
        root = os.open(workspace.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            folder = open_beneath(root, "/".join(parents) or ".", os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(root)
        try:
            is_folder = stat.S_ISDIR(os.lstat(last, dir_fd=folder).st_mode)
            (os.rmdir if is_folder else os.unlink)(last, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError:  # gone already, or something of the host's is in it
        return


_call: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("ml_intern_e2b_call", default=None)


class SyncedWorkspace(Workspace):
    """A workspace whose files host tools read as the sandbox's code left them, and write where that code finds them.

    Within a host call (see `using`), the first look brings back what changed; what the call wrote goes there at its end.
    """

    mirror: Mirror | None = None

    @contextmanager
    def using(self) -> Generator[None]:
        """Around a host call."""
        done: set[str] = set()
        before = _call.set(done)
        try:
            yield
        finally:
            _call.reset(before)
        if "written" in done and self.mirror is not None:
            self.mirror.push()

    def _touch(self, flags: int) -> None:
        done = _call.get()
        if done is None or self.mirror is None:
            return
        if "seen" not in done:
            done.add("seen")
            self.mirror.pull()
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            done.add("written")

    @contextmanager
    def _open(self, path: str | Path, flags: int, mode: int = 0) -> Generator[int]:
        self._touch(flags)
        with super()._open(path, flags, mode) as handle:
            yield handle

    def _make_folders(self, plain: str) -> None:
        self._touch(os.O_CREAT)
        super()._make_folders(plain)


def joined(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
