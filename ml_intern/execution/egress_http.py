"""As much of HTTP as the door of a jail speaks: one bounded request a connection, answers that a model can read."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

HEAD_BYTES, HEADERS, HEAD_SECONDS = 32 << 10, 100, 10.0
IDLE_SECONDS = 60.0
BLOCK = 256 << 10
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_TARGET = re.compile(r"[!-~]{1,16384}").fullmatch
REASONS = {
    200: "OK", 206: "Partial Content", 304: "Not Modified", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 431: "Request Header Fields Too Large", 502: "Bad Gateway",
}  # fmt: skip


class Refused(Exception):
    """A request that is not carried out.

    Args:
        status (`int`): Of the answer.
        text (`str`): For the model: what is refused, why, what to do instead.
        host (`str`, defaults to `""`): The host it was for, where a person should hear of it.
    """

    def __init__(self, status: int, text: str, host: str = "") -> None:
        super().__init__(text)
        self.status, self.text, self.host = status, text, host


@dataclass(frozen=True)
class Request:
    """A request as it came out of the jail; `rest` is what followed its head."""

    method: str
    target: str
    headers: Mapping[str, str]
    rest: bytes

    @property
    def has_body(self) -> bool:
        return self.headers.get("content-length", "0").strip() != "0" or "transfer-encoding" in self.headers


def read_request(connection: socket.socket) -> Request:
    """Reads a head, which has to be there within 10 seconds, however slowly it drips.

    Raises:
        Refused: If it is late, too long, or no HTTP/1.x.
        EOFError: If nothing came.
    """
    data, ends = bytearray(), time.monotonic() + HEAD_SECONDS
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > HEAD_BYTES:
            raise Refused(431, f"The request's head is longer than {HEAD_BYTES >> 10} kB.")
        left = ends - time.monotonic()
        if left <= 0:
            raise Refused(408, f"The request's head did not come within {HEAD_SECONDS:.0f} seconds.")
        connection.settimeout(left)
        try:
            block = connection.recv(8192)
        except TimeoutError:
            continue
        if not block:
            raise EOFError
        data += block
    connection.settimeout(IDLE_SECONDS)
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0") or not _NAME(parts[0]) or not _TARGET(parts[1]):
        raise Refused(400, "This is not a request of HTTP/1.1.")
    if len(lines) > HEADERS:
        raise Refused(431, f"The request has more than {HEADERS} headers.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME(name) or any(ord(c) < 32 and c != "\t" for c in value):
            raise Refused(400, "One of the request's headers is malformed.")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(parts[0], parts[1], headers, bytes(data[end + 4 :]))


def head(status: int, headers: Mapping[str, str], reason: str = "") -> bytes:
    """An answer's head. One request a connection: nothing is left over to be taken for another."""
    lines = [f"HTTP/1.1 {status} {reason or REASONS.get(status, 'Answer')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\nConnection: close\r\n\r\n").encode("latin-1", "replace")


def refuse(connection: socket.socket, refused: Refused, request: Request | None) -> None:
    """Says no, in words: in the body, in the header that `huggingface_hub` shows, in the status line of a CONNECT."""
    text = " ".join(refused.text.split())
    plain = text.encode("ascii", "replace").decode()
    body = json.dumps({"error": text}).encode() + b"\n"
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "X-Error-Message": plain}
    if refused.status == 405:
        headers["Allow"] = "GET, HEAD"
    tunnel = request is not None and request.method == "CONNECT"  # of whose answer clients show the status line only
    connection.settimeout(5.0)
    with contextlib.suppress(OSError):
        silent = request is not None and request.method == "HEAD"
        connection.sendall(head(refused.status, headers, plain[:1000] if tunnel else "") + (b"" if silent else body))
        drain(connection, 2.0)


def drain(connection: socket.socket, seconds: float) -> None:
    """Reads on for a while: closing on a body that is still coming would reset the answer away."""
    ends = time.monotonic() + seconds
    connection.shutdown(socket.SHUT_WR)
    while (left := ends - time.monotonic()) > 0:
        connection.settimeout(left)
        if not connection.recv(BLOCK):
            return


def framed(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """A body of unknown length, in chunks. If `blocks` raises, the last chunk is missing, and the reader notices."""
    for block in blocks:
        yield f"{len(block):x}\r\n".encode() + block + b"\r\n"
    yield b"0\r\n\r\n"


def relay(one: socket.socket, other: socket.socket) -> None:
    """Passes bytes on both ways until both sides have ended, or nothing has moved for a minute."""
    ways = {one.fileno(): (one, other), other.fileno(): (other, one)}
    poll = select.poll()
    for number in ways:
        poll.register(number, select.POLLIN)
    while ways and (ready := poll.poll(IDLE_SECONDS * 1000)):
        for number, _ in ready:
            source, target = ways[number]
            if block := source.recv(BLOCK):
                target.sendall(block)
                continue
            poll.unregister(number)
            del ways[number]
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)
