"""A session with --offline in a process that denies the network: `python offline_child.py HOME`.

Where it is allowed to, it first leaves the machine's network for a new one with nothing but a loopback. In any case each name
that is looked up and each address that is connected to is written down and refused, unless it is this machine. Writes one
JSON object to standard output.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import io
import json
import os
import socket
import struct
import sys

HERE = ("127.0.0.1", "localhost", "::1", None, "", b"127.0.0.1")
reached: list[str] = []


def alone() -> bool:
    """A network of its own, with the loopback up."""
    if ctypes.CDLL(None).unshare(0x40000000) != 0:  # CLONE_NEWNET; no new user, in whom the jail could not be made
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    return True


def deny(event: str, arguments: tuple) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        target = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        target = arguments[1][0]
    else:
        return
    if target not in HERE:
        reached.append(f"{event} {target}")
        raise PermissionError(f"The test denies the network: {event} {target}")


CODE = """Look around.
<code>
import socket
said = {}
for name, call in {
    "hub": lambda: hub_search_datasets(query="imdb"),
    "arxiv": lambda: arxiv_search(query="attention"),
    "push": lambda: hub_push(repo_id="me/x", path="."),
    "install": lambda: install_packages(packages=["numpy"]),
    "code": lambda: socket.create_connection(("1.1.1.1", 443), timeout=3),
}.items():
    try:
        said[name] = str(call())
    except Exception as error:
        said[name] = str(error)
final_answer(said)
</code>"""


def main() -> None:
    separate = alone()
    sys.addaudithook(deny)
    from ml_intern.cli import main as cli
    from ml_intern.testing.llm import LocalLLM

    printed = io.StringIO()
    with LocalLLM(lambda request: CODE, models=("m",)) as llm, contextlib.redirect_stdout(printed):
        os.environ.update(LLM_ENDPOINT="claude-sonnet-4-5, vllm/m", VLLM_BASE_URL=llm.url)
        try:
            code = cli(["Look around.", "--offline", "--json", "--slack", "--home", sys.argv[1], *sys.argv[2:]])
        except SystemExit as left:
            code = left.code
    events = [json.loads(line) for line in printed.getvalue().splitlines()]
    print(json.dumps({"separate": separate, "code": code, "reached": reached, "events": events}))


if __name__ == "__main__":
    main()
