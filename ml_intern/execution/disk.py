"""How much of the disk a session takes, and when that is too much. Nothing in here changes anything.

The kernel limits the size of one file; what many take together is only known by looking: the file system's free space
(a microsecond, at every look) tells when something has grown, a walk through the folders tells who. Both folders and
names in them are the code's: no link is followed, and what cannot be walked counts as what the file system lost since.

A walk is taken in slices, so that it costs less than a hundredth of a core however many files there are; as much again is
saved up for the first one, and for when free space says that a limit may have been passed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ml_intern.execution.workspace import open_beneath

LOOK_SECONDS, REST_SECONDS = 0.25, 2.0
SHARE, SAVED_SECONDS = 0.008, 1.0
SLOW_SECONDS, START_SECONDS = 5.0, 0.03
ENTRY_BYTES = 1024
"""What a file takes besides its blocks: its inode and its name. Empty ones fill a disk as well."""
MOVED_BYTES = 1 << 20
CHUNK = 128


@dataclass(frozen=True)
class System:
    """A file system: its free bytes, all of its bytes, and how many of the files that it can hold it still can, 0 to 1."""

    free: int
    whole: int
    files: float = 1.0


@dataclass(frozen=True)
class Room:
    """The file systems that a session's folders lie on, by device."""

    systems: Mapping[int, System]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Room:
        systems = {}
        for folder in folders:
            with suppress(OSError):
                seen = os.statvfs(folder)
                files = seen.f_favail / seen.f_files if seen.f_files else 1.0
                systems[folder.stat().st_dev] = System(
                    seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize, files
                )
        return cls(systems)

    def lost_since(self, then: Room) -> int:
        """Bytes that are free no more, whoever took them."""
        now = self.systems
        return sum(max(0, old.free - now[device].free) for device, old in then.systems.items() if device in now)


@dataclass(frozen=True)
class Bounds:
    """What a worker may take of the disk.

    Args:
        limit (`int`): Bytes of a session.
        reserve (`int`): Free bytes of a file system that it may not touch; of one that is small as a whole, a quarter.
        start (`Room`): What was free when the worker started. The last twentieth of that is not touched either.
    """

    limit: int
    reserve: int
    start: Room

    def suspicious(self, used: int, then: Room, now: Room) -> bool:
        """Whether a limit may have been passed since `used` was measured, when `then` was free."""
        return used + now.lost_since(then) > self.limit or next(self._low(now), None) is not None

    def _low(self, now: Room) -> Iterator[tuple[System, System, int]]:
        """File systems that are too full: as they were, as they are, and what has to stay free of them."""
        for device, system in now.systems.items():
            old = self.start.systems.get(device, system)
            kept = max(min(self.reserve, system.whole // 4), old.free // 20)
            if system.free < kept or system.files < min(0.05, old.files / 2):
                yield old, system, kept

    def excess(self, used: int, before: int, now: Room) -> str:
        """Why a worker has to end; empty if it need not.

        A session that was over a limit before may still work, e.g. to remove files, as long as it does not grow.

        Args:
            used (`int`): What its folders hold.
            before (`int`): What they held when the worker started.
            now (`Room`): What is free.
        """
        grown = used - before
        if used > self.limit and grown > self.limit // 50:
            return (
                f"its files take {size(used)}, more than the {size(self.limit)} that a session may use. Remove what is "
                "not needed before more is written (a person can raise the limit: ML_INTERN_DISK_GB)"
            )
        for _, system, kept in self._low(now):
            if grown > min(self.limit // 50, kept // 16):
                return (
                    f"{left(system)} on this machine's disk, and it went on writing ({size(grown)}). Remove what is not "
                    "needed before more is written"
                )
        return ""

    def emergency(self, now: Room) -> str:
        """What cannot be told apart ends all: half of the reserve is gone, and was not when this worker started."""
        for old, system, kept in self._low(now):
            if system.free < kept // 2 and old.free - system.free > kept // 16:
                return f"{left(system)} on this machine's disk, and that is needed to go on at all"
        return ""


@dataclass
class Walked:
    """What a walk has found so far: bytes on the disk, and whether there are folders that it could not enter."""

    used: int = 0
    closed: bool = False
    seen: set[tuple[int, int]] = field(default_factory=set)


class Disk:
    """Watches the folders of one worker; made before it starts, so that what was there before is known.

    Args:
        folders (`Sequence[Path]`): What belongs to the session.
        limit (`int`): Bytes that they may take.
        reserve (`int`): Free bytes of the file system that must be left.
    """

    def __init__(self, folders: Sequence[Path], limit: int, reserve: int) -> None:
        self.folders = list(folders)
        self.bounds = Bounds(limit, reserve, Room.of(self.folders))
        self.used, self.before = 0, -1
        self.spent = 0.0
        """Seconds of a core that walking took, in all."""
        self._then = self._begun_with = self.bounds.start
        self._walk: Generator[None] | None = None
        self._walked = Walked()
        self._began = self._ended = self._looked = time.monotonic()
        self._saved = SAVED_SECONDS
        self._again = self._closed = False
        self._lock = threading.Lock()
        self._begin(self.bounds.start)
        if self._step(START_SECONDS, START_SECONDS):
            self._judge((), self.bounds.start)

    def close(self) -> None:
        """Lets go of what a walk has open. From any thread."""
        with self._lock:
            self._closed = True
            if self._walk is not None:
                self._walk.close()

    def look(self, pids: Sequence[int] = (), share: float = SHARE) -> str:
        """Looks once, for milliseconds; says why the worker has to end, if it has to.

        Args:
            pids (`Sequence[int]`): Its processes: a file that has no name any more is found with who has it open.
            share (`float`): Part of a core that looking may take.
        """
        with self._lock:
            return "" if self._closed else self._look(pids, share)

    def _look(self, pids: Sequence[int], share: float) -> str:
        began, room = time.monotonic(), Room.of(self.folders)
        self._saved = min(SAVED_SECONDS, self._saved + share * (began - self._looked))
        self._looked = began
        if why := self.bounds.emergency(room):
            return why
        suspicious = self.before < 0 or self._again or self.bounds.suspicious(self.used, self._then, room)
        if self._walk is None:
            if began - self._ended < REST_SECONDS and not (suspicious and self._saved > 0):
                return ""
            self._begin(room)
        slice_seconds = share * LOOK_SECONDS
        if suspicious and self._saved > 0:
            slice_seconds += self._saved
        done = self._step(slice_seconds, share * LOOK_SECONDS)
        if not done and (self.before < 0 or not self.bounds.excess(self._walked.used, self.before, room)):
            return ""
        return self._judge(pids, Room.of(self.folders))

    def _begin(self, room: Room) -> None:
        self._walked = Walked()
        self._walk = walk(self.folders, self._walked)
        self._began, self._begun_with = time.monotonic(), room

    def _step(self, seconds: float, free_of_charge: float) -> bool:
        """A slice of the walk; whether that was the last one."""
        assert self._walk is not None
        began, done = time.thread_time(), False
        while not done and time.thread_time() - began < seconds:
            done = next(self._walk, self) is self
        took = time.thread_time() - began
        self.spent += took
        self._saved -= max(0.0, took - free_of_charge)
        return done

    def _judge(self, pids: Sequence[int], room: Room) -> str:
        found = self._walked
        if self._walk is not None:
            self._walk.close()
            self._walk = None
        self._ended = time.monotonic()
        used, lost = found.used, room.lost_since(self.bounds.start)
        if self.before < 0:
            self.before = used
        if lost > used - self.before + self.bounds.limit // 10:  # more than was found: somebody's, or without a name
            used += nameless(pids, self.folders, found.seen)
        if found.closed:
            used = max(used, self.before + lost)
        self.used, self._then = used, self._begun_with
        self._walked = Walked()
        why = self.bounds.excess(used, self.before, room)
        # In a long walk what was moved or removed meanwhile may have been counted: it is believed the second time.
        if why and not self._again and self._ended - self._began > SLOW_SECONDS:
            self._again = True
            return ""
        self._again = False
        return why


def walk(folders: Sequence[Path], found: Walked) -> Generator[None]:
    """Adds up what lies in folders, a few entries at a time. Holes in files take nothing; a file with two names counts once."""
    for root in folders:
        try:
            top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            todo = ["."]
            while todo:
                folder = todo.pop()
                try:
                    here = open_beneath(top, folder, os.O_RDONLY | os.O_DIRECTORY)
                except FileNotFoundError:  # removed meanwhile
                    continue
                except OSError:  # its rights, a path too long: it may hold anything
                    found.closed = True
                    continue
                try:
                    yield from _entries(here, folder, todo, found)
                except OSError:  # while it was read; whoever looks must not end of it
                    found.closed = True
                finally:
                    os.close(here)
        finally:
            os.close(top)


def _entries(here: int, folder: str, todo: list[str], found: Walked) -> Generator[None]:
    prefix = "" if folder == "." else f"{folder}/"
    with os.scandir(here) as entries:
        for number, entry in enumerate(entries):
            if number % CHUNK == CHUNK - 1:
                yield
            try:
                about = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    todo.append(prefix + entry.name)
            except OSError:
                found.closed = found.closed or not _gone(entry.name, here)
                continue
            found.used += ENTRY_BYTES
            taken = about.st_blocks * 512
            if about.st_nlink > 1 or taken >= MOVED_BYTES:
                if (about.st_dev, about.st_ino) in found.seen:
                    continue
                found.seen.add((about.st_dev, about.st_ino))
            found.used += taken
    yield


def _gone(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def nameless(pids: Sequence[int], folders: Sequence[Path], seen: set[tuple[int, int]]) -> int:
    """Bytes of files on the same disks that processes have open and that no folder holds any more."""
    disks = set()
    for folder in folders:
        with suppress(OSError):
            disks.add(folder.stat().st_dev)
    total, counted = 0, set(seen)
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as handles:
            for handle in handles:
                with suppress(OSError):
                    about = os.stat(handle.path)  # noqa: PTH116 - hot
                    key = (about.st_dev, about.st_ino)
                    if about.st_nlink == 0 and about.st_dev in disks and key not in counted:
                        counted.add(key)
                        total += about.st_blocks * 512
    return total


def left(system: System) -> str:
    """What is left of a file system, as the beginning of a sentence."""
    if system.files < 0.05:
        return f"only {system.files:.1%} of the files that it can hold are left"
    return f"only {size(system.free)} are left"


def size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
