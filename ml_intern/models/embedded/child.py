"""llama.cpp in a process of its own: JSON lines in, JSON lines out. Standard library and `xllamacpp` only.

What must never happen here: it outlives its host, however that dies; anybody but its host can ask it something.

xllamacpp's server insists on listening. It is given a Unix socket in a private folder, whose name is removed as soon as it
listens: nobody can find or reach it any more, and no port is ever open.

In: `{"load": {...}}` once, then `{"id": 1, "request": {...}}` and `{"cancel": 1}`. Out: `{"ready": {...}}` or
`{"failed": "..."}` once, then of each request `{"id": 1, "chunk": {...}}` and at last `{"id": 1, "end": null}` or
`{"id": 1, "end": {"status": 400, "message": "..."}}`.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time

SOCKET = "listener.sock"
PR_SET_PDEATHSIG = 1


def main() -> None:
    die_with_host(int(sys.argv[1]))
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever llama.cpp prints is no reply
    requests = iter(sys.stdin.buffer.readline, b"")
    sending = threading.Lock()

    def send(reply: dict) -> None:
        line = json.dumps(reply).encode() + b"\n"
        with sending:
            while line:
                line = line[os.write(replies, line) :]

    try:
        started = time.perf_counter()
        server = load(json.loads(next(requests))["load"])
        send({"ready": {"seconds": time.perf_counter() - started}})
    except (RuntimeError, ImportError, OSError) as error:
        send({"failed": str(error)})
        return
    wanted: set[int] = set()
    for line in requests:
        order = json.loads(line)
        if "cancel" in order:
            wanted.discard(order["cancel"])
            continue
        wanted.add(order["id"])
        threading.Thread(
            target=answer, args=(server, order["id"], order["request"], wanted, send), daemon=True
        ).start()
    os._exit(0)  # the host closed the pipe or is gone: not a moment for llama.cpp's own tidying up


def die_with_host(host: int) -> None:
    """The end of the pipe says so too, but not while weights are being loaded, nor where the host has forked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host:
        os._exit(1)
    with contextlib.suppress(OSError):  # where memory runs out this goes, and not the session
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - pathlib takes 15 ms to import
            file.write("1000")


def load(spec: dict):
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()  # ty: ignore[missing-attribute]
    params.model.path = spec["path"]
    params.n_ctx, params.n_parallel = spec["window"], 1
    # What is asked in between (a summary, a sub-agent) moves the conversation's cache to memory, and back.
    params.cache_ram_mib = spec["cache_mib"]
    # llama.cpp looks whether an answer is still wanted between two batches.
    params.n_batch = spec["batch"]
    if spec["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = spec["threads"]
    params.warmup = False
    params.verbosity = 1
    folder = tempfile.mkdtemp(prefix="ml-intern-weights-")
    os.chdir(folder)
    params.hostnames, params.n_threads_http = [SOCKET], 1
    params.ui = params.endpoint_slots = False
    params.offline = True
    try:
        return xllamacpp.Server(params)  # ty: ignore[missing-attribute]
    finally:
        with contextlib.suppress(OSError):
            os.unlink(SOCKET)  # noqa: PTH108 - as above
        os.chdir("/")
        os.rmdir(folder)  # noqa: PTH106 - as above


def answer(server, number: int, request: dict, wanted: set, send) -> None:
    error = None

    def take(chunk: dict) -> bool:
        nonlocal error
        if "error" in chunk:
            error = {"status": chunk["error"].get("code", 500), "message": str(chunk["error"].get("message"))}
        elif number in wanted:
            send({"id": number, "chunk": chunk})
        return number not in wanted

    try:
        server.handle_chat_completions(request, take)
    except (ValueError, RuntimeError, TypeError) as refusal:  # what llama.cpp says of a request that it cannot take
        error = {"status": 400, "message": str(refusal)}
    wanted.discard(number)
    send({"id": number, "end": error})


if __name__ == "__main__":
    main()
