"""Copying what lies beside a trace. Code nobody trusts has written it: no link is followed, nothing but files is opened."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 4 << 30
"""A fork takes no more along than this."""
BLOCK = 1 << 20


@dataclass
class Carried:
    """What was copied: files and bytes, and how many files were not (too much, or no plain files)."""

    files: int = 0
    size: int = 0
    left: int = 0


def carry(source: Path, target: Path, most: int = MOST_BYTES) -> Carried:
    """Copies a folder's files; links are copied as links.

    Args:
        source (`Path`), target (`Path`): Folders; `target` is made.
        most (`int`): Bytes to copy at most; what is beyond is counted in `left`.

    Raises:
        OSError: the disk is full.
    """
    done = Carried()
    if source.is_symlink() or not source.is_dir():
        return done
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder, names, files, handle in os.fwalk(source, follow_symlinks=False):
        into = target / os.path.relpath(folder, source)
        for name in [*names, *files]:
            with suppress(FileNotFoundError):  # the code that owns it has just taken it away
                _entry(handle, name, into / name, done, most)
    return done


def _entry(folder: int, name: str, target: Path, done: Carried, most: int) -> None:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        target.mkdir(exist_ok=True, mode=stat.S_IMODE(found.st_mode) & 0o777 | 0o700)
    elif stat.S_ISLNK(found.st_mode):
        target.symlink_to(os.readlink(name, dir_fd=folder))
    elif not stat.S_ISREG(found.st_mode) or done.size + found.st_size > most:
        done.left += 1
    else:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            source = os.open(name, flags, dir_fd=folder)
        except OSError:  # it is something else by now, or not ours to read
            done.left += 1
            return
        with open(source, "rb") as read, target.open("xb") as write:  # noqa: PTH123 - an open descriptor
            if not stat.S_ISREG(os.fstat(source).st_mode):
                done.left += 1
                return
            while (block := read.read(BLOCK)) and done.size <= most:
                write.write(block)
                done.size += len(block)
        target.chmod(stat.S_IMODE(found.st_mode) & 0o777)
        done.files += 1
