"""Sockets that only this user reaches, and the lines of JSON that go over them."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

from ..errors import InternError

LONGEST_LINE = 8_000_000
"""Bytes of a request or a reply; a card with its preview is far below."""
SECONDS = 10.0
"""How long the other end may take to send a line or to read one."""


def socket_folder() -> Path:
    """A folder for sockets that only this user can enter; short, as a socket's path has 107 bytes at most.

    Raises:
        InternError: something of somebody else's is in its place.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = runtime and len(os.fsencode(runtime)) <= 60 and is_private(Path(runtime))
    folder = Path(runtime) / "ml-intern" if usable else Path("/tmp") / f"ml-intern-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_private(folder):
        raise InternError(f"{folder} is not a folder of yours alone", "", f"Remove it, or: chmod 700 {folder}")
    return folder


def is_private(folder: Path) -> bool:
    try:
        seen = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o077


def where() -> str:
    """This machine as its processes see it: a container with a /tmp of its own is another one."""
    try:
        return f"{socket.gethostname()} {Path('/proc/self/ns/mnt').readlink()}"
    except OSError:
        return socket.gethostname()


def same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end is ours. Where the kernel does not say, the folder's mode has to do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", data)[1] == os.getuid()


def send(connection: socket.socket, row: dict[str, Any]) -> None:
    connection.sendall(json.dumps(row, default=str).encode() + b"\n")


def as_sent(row: dict[str, Any]) -> dict[str, Any]:
    """What arrives of it at the other end."""
    return json.loads(json.dumps(row, default=str))
