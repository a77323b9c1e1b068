"""The host's way into the workspace. Code in the jail owns what is there, so every path is a trap until proven none.

A link to `/etc/passwd` made in the jail must not make the host read that file: paths are resolved by the kernel below
the root without following any link (`openat2`), or component by component where the kernel cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ml_intern.errors import InternError
from ml_intern.events import FileDigest

OPENAT2 = 437  # the same on every architecture
BENEATH, NO_SYMLINKS, NO_MAGICLINKS = 0x08, 0x04, 0x02
BLOCK = 1 << 20


class WorkspaceError(InternError, ValueError):
    """A path that the workspace does not give: what was asked, why not, what to do instead."""

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(what, why, remedy)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def _openat2(folder: int, path: str, flags: int, mode: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, BENEATH | NO_SYMLINKS | NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(OPENAT2, folder, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if handle < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return handle


def open_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """Opens `path` below an open folder; a link or `..` anywhere on the way is an error."""
    if sys.platform == "linux":
        try:
            return _openat2(folder, path, flags, mode)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # old kernel; a container's filter
                raise
    return walk_beneath(folder, path, flags, mode)


def walk_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """The same without `openat2`."""
    *parents, last = PurePosixPath(path).parts or (".",)
    if ".." in (*parents, last):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    here = os.dup(folder)
    try:
        for name in parents:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
    finally:
        os.close(here)


class Workspace:
    """A folder that code in the jail works in, as the host may touch it.

    Paths are relative to it, or absolute as the code sees them (`/workspace/model.bin`).

    Args:
        root (`Path` or `str`): The folder on the host; made if missing.
        inside (`str`, defaults to `"/workspace"`): Its path as the code sees it. An executor whose jail cannot move
            folders (Landlock) sets this to the path on the host.
    """

    def __init__(self, root: Path | str, inside: str = "/workspace") -> None:
        self.root = Path(root).resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.inside = inside

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r}, inside={self.inside!r})"

    def relative(self, path: str | Path) -> str:
        """`path` relative to the workspace, in its plainest form; `"."` is the workspace itself.

        Raises:
            WorkspaceError: If it leads out of the workspace.
        """
        text = os.fspath(path)
        if "\0" in text:
            raise WorkspaceError(repr(text), "a path holds no null byte", "Give a relative path.")
        pure = PurePosixPath(text)
        for base in (self.inside, str(self.root)):
            if pure.is_absolute() and pure.is_relative_to(base):
                pure = pure.relative_to(base)
        plain = os.path.normpath(pure.as_posix())
        if pure.is_absolute() or plain == ".." or plain.startswith("../"):
            raise WorkspaceError(text, "this is outside the workspace", f"Use a path below {self.inside}.")
        return plain

    def exists(self, path: str | Path) -> bool:
        """Whether a regular file or a folder is there; a link is neither."""
        try:
            with self._open(path, os.O_PATH if hasattr(os, "O_PATH") else os.O_RDONLY) as handle:
                return stat.S_ISREG(os.fstat(handle).st_mode) or stat.S_ISDIR(os.fstat(handle).st_mode)
        except WorkspaceError:
            return False

    def is_dir(self, path: str | Path) -> bool:
        try:
            with self._open(path, os.O_RDONLY | os.O_DIRECTORY):
                return True
        except WorkspaceError:
            return False

    def listdir(self, path: str | Path = ".") -> list[str]:
        with self._open(path, os.O_RDONLY | os.O_DIRECTORY) as handle:
            return sorted(os.listdir(handle))  # noqa: PTH208 - by descriptor

    def walk(self, path: str | Path = ".") -> list[str]:
        """All regular files below `path`, relative to the workspace, sorted. Links and devices are left out."""
        found = []
        todo = [self.relative(path)]
        while todo:
            folder = todo.pop()
            with self._open(folder, os.O_RDONLY | os.O_DIRECTORY) as handle, os.scandir(handle) as entries:
                for entry in entries:
                    name = entry.name if folder == "." else f"{folder}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        found.append(name)
        return sorted(found)

    def open_read(self, path: str | Path) -> BinaryIO:
        """A regular file, to read. Raises `WorkspaceError` for anything else."""
        with self._open(path, os.O_RDONLY | os.O_NONBLOCK) as handle:
            self._regular(path, handle)
            return os.fdopen(os.dup(handle), "rb")

    def open_write(self, path: str | Path) -> BinaryIO:
        """A regular file, to write anew; folders on the way are made."""
        plain = self.relative(path)
        self._make_folders(str(PurePosixPath(plain).parent))
        owner = self.root.stat()
        # Not truncated before it is known to be a regular file.
        with self._open(plain, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o666 & ~_umask()) as handle:
            self._regular(path, handle)
            os.ftruncate(handle, 0)
            self._own(handle, owner)
            return os.fdopen(os.dup(handle), "wb")

    def read_bytes(self, path: str | Path, limit: int | None = None) -> bytes:
        """The content of a regular file.

        Args:
            path (`str`): The file.
            limit (`int`, *optional*): Refuse a file of more bytes.
        """
        with self.open_read(path) as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise WorkspaceError(str(path), f"it has {size} bytes, more than {limit}", "Read it in pieces.")
            return file.read(size + 1 if limit is None else limit)

    def write_bytes(self, path: str | Path, data: bytes) -> None:
        with self.open_write(path) as file:
            file.write(data)

    def copy_out(self, path: str | Path, destination: Path) -> list[FileDigest]:
        """Copies a file or folder out of the code's reach; the digests are of the bytes that were written there.

        Args:
            path (`str`): A file, or a folder: then its regular files, under their relative paths. Links are left out.
            destination (`Path`): The file, or the folder, to write. Must not exist.

        Returns:
            `list[FileDigest]`: One a file, by path relative to the workspace, sorted.
        """
        plain = self.relative(path)
        if not self.is_dir(plain):
            destination.parent.mkdir(parents=True, exist_ok=True)
            return [self._copy_file(plain, destination)]
        destination.mkdir(parents=True)
        digests = []
        for name in self.walk(plain):
            target = destination / (name if plain == "." else name[len(plain) + 1 :])
            target.parent.mkdir(parents=True, exist_ok=True)
            digests.append(self._copy_file(name, target))
        return digests

    def copy_in(self, source: Path | str, path: str | Path) -> None:
        """Copies a file or folder of the host into the workspace; files of the same name are replaced, each at once."""
        source, plain = Path(source), self.relative(path)
        if source.is_dir():
            self._make_folders(plain)
            for item in sorted(source.rglob("*")):
                target = f"{plain}/{item.relative_to(source).as_posix()}"
                if item.is_dir():
                    self._make_folders(target)
                elif item.is_file():
                    self.copy_in(item, target)
        else:
            place = PurePosixPath(plain)
            part = str(place.with_name(f".{place.name[:100]}.{uuid.uuid4().hex[:8]}.part"))
            try:
                with source.open("rb") as origin, self.open_write(part) as file:
                    shutil.copyfileobj(origin, file, BLOCK)
                self._move(part, plain)
            except BaseException:
                self._remove(part)
                raise

    def _move(self, plain: str, to: str) -> None:
        """Gives a file another name in the same folder, in place of one that has it."""
        with self._open(str(PurePosixPath(to).parent), os.O_RDONLY | os.O_DIRECTORY) as folder:
            try:
                os.replace(PurePosixPath(plain).name, PurePosixPath(to).name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                raise _explain(to, error) from error

    def _remove(self, plain: str) -> None:
        with (
            contextlib.suppress(OSError),
            self._open(str(PurePosixPath(plain).parent), os.O_RDONLY | os.O_DIRECTORY) as folder,
        ):
            os.unlink(PurePosixPath(plain).name, dir_fd=folder)

    def _copy_file(self, name: str, target: Path) -> FileDigest:
        digest, size = hashlib.sha256(), 0
        with self.open_read(name) as origin, target.open("xb") as file:
            while block := origin.read(BLOCK):
                digest.update(block)
                size += file.write(block)
        return FileDigest(name, size, digest.hexdigest())

    def _regular(self, path: str | Path, handle: int) -> None:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise WorkspaceError(str(path), "it is no regular file", "Only regular files are read and written.")

    @contextmanager
    def _open(self, path: str | Path, flags: int, mode: int = 0) -> Generator[int]:
        plain = self.relative(path)
        try:
            root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                handle = open_beneath(root, plain, flags, mode)
            finally:
                os.close(root)
        except OSError as error:
            raise _explain(path, error) from error
        try:
            yield handle
        finally:
            os.close(handle)

    def _make_folders(self, plain: str) -> None:
        owner = self.root.stat()
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in PurePosixPath(plain).parts:
                try:
                    os.mkdir(name, 0o777 & ~_umask(), dir_fd=here)
                    made = True
                except FileExistsError:
                    made = False
                below = open_beneath(here, name, os.O_RDONLY | os.O_DIRECTORY)
                os.close(here)
                here = below
                if made:
                    self._own(here, owner)
        except OSError as error:
            raise _explain(plain, error) from error
        finally:
            os.close(here)

    @staticmethod
    def _own(handle: int, owner: os.stat_result) -> None:
        """What root puts in belongs to the code that is to work with it."""
        if os.geteuid() == 0:
            os.fchown(handle, owner.st_uid, owner.st_gid)


def repositories(names: Iterable[str]) -> set[str]:
    """Which of these files belong to git repositories, `.git` folders and bare ones.

    Whoever looks at a copy of them with git (a shell's prompt is enough) runs the programs that their configuration and
    hooks name.

    Args:
        names (`Iterable[str]`): Paths of files, relative to one folder.
    """
    paths = [PurePosixPath(name) for name in names]
    below: dict[PurePosixPath, set[str]] = {}
    for path in paths:
        for parent in path.parents:
            below.setdefault(parent, set()).add(path.relative_to(parent).parts[0].casefold())
    bare = {folder for folder, parts in below.items() if {"head", "objects", "refs"} <= parts}
    return {
        str(path)
        for path in paths
        if any(part.casefold() == ".git" for part in path.parts) or not bare.isdisjoint(path.parents)
    }


def _umask() -> int:
    """Fixed, as reading the process's own means changing it for all threads."""
    return 0o022


def _explain(path: str | Path, error: OSError) -> WorkspaceError:
    reasons = {
        errno.ENOENT: ("there is no such file", "List the folder to see what there is."),
        errno.ELOOP: ("a symbolic link is on the way, and links are not followed", "Copy the file itself there."),
        errno.EXDEV: ("this is outside the workspace", "Use a path below the workspace."),
        errno.ENOTDIR: ("a part of the path is no folder, or a symbolic link", "Check the path."),
        errno.EISDIR: ("it is a folder", "Name a file in it."),
        errno.ENXIO: ("it is no regular file", "Only regular files are read and written."),
        errno.ENODEV: ("it is no regular file", "Only regular files are read and written."),
    }
    why, remedy = reasons.get(error.errno or 0, (error.strerror or str(error), "Check the path and its rights."))
    return WorkspaceError(str(path), why, remedy)
