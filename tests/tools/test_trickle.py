"""A service that sends a byte now and then, for ever: no time-out of a read ends that."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

ADDRESSES = (
    "ARXIV_API_URL",
    "ARXIV_BASE_URL",
    "AR5IV_BASE_URL",
    "SEMANTIC_SCHOLAR_API_URL",
    "GITHUB_API_URL",
    "HF_ENDPOINT",
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
CALLS = {
    "arxiv": ("ArxivSearchTool", {"query": "a"}),
    "scholar": ("SemanticScholarSearchTool", {"query": "a"}),
    "graph": ("PaperGraphTool", {"relation": "citations", "paper": "1512.03385"}),
    "read": ("PaperReadTool", {"paper": "1512.03385"}),
    "resources": ("PaperResourcesTool", {"paper": "1512.03385"}),
    "a page": ("HubDocsTool", {"page": "trl/x"}),
    "a library": ("HubDocsTool", {"query": "packing in trl"}),
    "all libraries": ("HubDocsTool", {"query": "packing"}),
    "a file": ("GithubCodeTool", {"operation": "read", "repo": "a/b", "path": "c"}),
    "an owner": ("GithubCodeTool", {"operation": "find", "owner": "a"}),
}
# In a process of its own, side by side: what is left alone goes on in its thread, and would ask the next test's service.
PROGRAM = """
import json, os, sys, threading, time
import ml_intern.tools

found = {}

def go(name, kind, arguments):
    tool = getattr(ml_intern.tools, kind)()
    tool.max_seconds = 0.5
    started, error = time.monotonic(), None
    try:
        tool(**arguments)
    except Exception as caught:
        error = caught
    found[name] = (time.monotonic() - started, type(error).__name__, str(error))

threads = [threading.Thread(target=go, args=(name, *call), daemon=True) for name, call in json.load(sys.stdin).items()]
for thread in threads:
    thread.start()
end = time.monotonic() + 60
for thread in threads:
    thread.join(end - time.monotonic())
print(json.dumps(found), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def found():
    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection):
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(HEAD)
                while not over.wait(0.05):
                    connection.sendall(b" ")
            except OSError:
                pass

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(CALLS),
            capture_output=True,
            text=True,
            env={**os.environ, **dict.fromkeys(ADDRESSES, url)},
            check=True,
        )
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
    return url, json.loads(done.stdout)


@pytest.mark.parametrize("name", CALLS)
def test_it_is_left_alone_in_time_and_named(found, name):
    url, answers = found
    took, kind, text = answers[name]
    assert took < 6  # ten of them load their clients at the same time
    assert kind == "TimeoutError"
    assert url in text or name == "read"
    assert len(text.splitlines()) <= 2
    assert "again" in text
