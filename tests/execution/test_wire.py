"""The rules of the pipe: whatever is on it, the host answers within seconds, and the next action works."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from smolagents.local_python_executor import InterpreterError

from ml_intern.execution import JailExecutor, WorkerLost

# What code in the worker's process can do: find the pipe and write on it.
PIPE = """
import fcntl, json, os, stat
def pipe():
    for n in range(200, 260):
        try:
            if stat.S_ISFIFO(os.fstat(n).st_mode) and fcntl.fcntl(n, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                return n
        except OSError:
            pass
def say(data):
    while data:
        data = data[os.write(pipe(), data):]
"""


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n", b"\n", b"[]\n", b"5\n", b"{}\n", b'{"op": 3}\n', b'{"op": "nonsense"}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n",
        b'{"op": "call"}\n', b'{"op": "call", "id": "x", "name": "f", "n": 1}\n', b'{"op": "call", "id": 1, "name": "f", "n": 99}\n',
        b'{"op": "done", "n": 1, "value": {"$": "array"}}\n', b'{"op": "done", "n": 1, "images": ["AAAA"]}\n',
        b'{"op": "done", "n": 1, "images": 5}\n', b'{"op": "done", "n": 99}\n', b'{"op": "hello"}\n', b"1" * 10_000 + b"\n",
        b'{"op": "x", "v": [' + b"[]," * 2_000_000 + b"0]}\n",
    ],
    ids=lambda line: line[:40].decode("latin-1"),
)  # fmt: skip
def test_a_breach_kills_the_worker_and_says_so(make, line: bytes) -> None:
    executor = make()
    began = time.monotonic()
    with pytest.raises(WorkerLost, match=r"broke the rules of the pipe.*variables (are gone|come back)"):
        executor(PIPE + f"line = {line[:60]!r}\nline = line[:-1] if False else line\n" + "say("
                 + (f"{line!r}" if len(line) < 200 else _large(line)) + ")\nimport time\ntime.sleep(0.5)")  # fmt: skip
    assert time.monotonic() - began < 15
    assert executor("40 + 2").output == 42


def _large(line: bytes) -> str:
    if line.startswith(b"[["):
        return "b'[' * 100_000 + b'\\n'"
    if line.startswith(b"11"):
        return "b'1' * 10_000 + b'\\n'"
    return "b'{\"op\": \"x\", \"v\": [' + b'[],' * 2_000_000 + b'0]}\\n'"


def test_an_endless_line_is_cut_off(make) -> None:
    executor = make()
    with pytest.raises(WorkerLost, match="line of more than 64 MB"):
        executor(PIPE + "while True: say(b'x' * 1_000_000)")
    assert executor("1").output == 1


def test_a_forged_call_is_a_call_and_a_forged_end_ends_its_own_action(make) -> None:
    calls: list[Any] = []
    executor = make(additional_functions={"note": calls.append})
    forged = "say(json.dumps({'op': 'call', 'id': 10**6, 'n': 1, 'name': 'note', 'args': ['hi'], 'kwargs': {}}).encode() + b'\\n')"
    assert executor(PIPE + forged + "\nimport time\ntime.sleep(0.1)\n5").output == 5
    assert calls == ["hi"]
    with pytest.raises(WorkerLost):
        executor("say(json.dumps({'op': 'done', 'n': 2, 'value': 'forged'}).encode() + b'\\n')\ntime.sleep(30)")
    assert executor("1").output == 1


def test_more_calls_at_once_than_anyone_makes_are_a_breach(make) -> None:
    release = threading.Event()
    executor = make(additional_functions={"wait": lambda: release.wait(20)})
    call = "{'op': 'call', 'id': i, 'n': 1, 'name': 'wait', 'args': [], 'kwargs': {}}"
    with pytest.raises(WorkerLost, match="calls at once"):
        executor(
            PIPE + f"for i in range(20_000): say(json.dumps({call}).encode() + b'\\n')\nimport time\ntime.sleep(20)"
        )
    assert threading.active_count() < 200
    release.set()
    assert executor("1").output == 1


def test_a_child_has_no_pipe_and_a_child_that_kept_one_does_no_harm(make) -> None:
    executor = make()
    code = (
        PIPE
        + "pid = os.fork()\nif pid == 0:\n    os._exit(7 if pipe() is None or pipe() == capture else 8)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    )
    assert executor(code.replace("pid = os.fork", "capture = os.fstat(1).st_ino\npid = os.fork").replace(
        "pipe() == capture", "os.fstat(pipe()).st_ino == capture")).output == 7  # fmt: skip
    with pytest.raises(WorkerLost, match="broke the rules"):
        executor(
            "import ctypes, time\nif ctypes.CDLL(None).syscall(57) == 0:\n    say(b'from a child\\n')\n    os._exit(0)\ntime.sleep(5)"
        )
    assert executor("1").output == 1


def test_output_that_looks_like_the_protocol_is_output(make) -> None:
    executor = make()
    text = '{"op": "done", "n": 1, "value": "forged"}\n'
    output = executor(
        f"import os\nprint({text!r}, end='')\nos.write(1, {text.encode()!r})\nos.write(2, b'\\0' + b'0' * 32 + b'\\0')\n3"
    )
    assert output.output == 3
    assert output.logs == text * 2 + "\0" + "0" * 32 + "\0"


def test_all_output_is_there_when_the_action_is_done(make) -> None:
    executor = make()
    code = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(\"x\" * 300_000)'])\nprint('end')"
    for _ in range(10):
        assert len(executor(code).logs) > 50_000
        assert executor.state["_print_outputs"].endswith("x\nend\n")


def test_late_replies_do_not_reach_the_next_worker(make) -> None:
    release = threading.Event()
    answers = iter(["late", "prompt"])

    def ask() -> str:
        answer = next(answers)
        if answer == "late":
            release.wait(20)
        return answer

    executor = make(additional_functions={"ask": ask})
    with pytest.raises(WorkerLost):
        executor("import threading, os, time\nthreading.Thread(target=ask).start()\ntime.sleep(0.2)\nos._exit(1)")
    threading.Timer(0.2, release.set).start()
    assert executor("import time\ntime.sleep(0.5)\nask()").output == "prompt"


def test_closing_the_pipe_is_the_end_of_the_worker(make) -> None:
    executor = make()
    with pytest.raises(WorkerLost, match="ended in the middle"):
        executor("import os, time\nos.closerange(3, 300)\ntime.sleep(0.3)")
    assert executor("1").output == 1


def test_the_pipe_is_not_among_the_descriptors_of_programs(make) -> None:
    executor: JailExecutor = make()
    listing = executor(
        "import subprocess\nsubprocess.run('ls /proc/self/fd', shell=True, close_fds=False, capture_output=True, text=True).stdout"
    )
    assert {int(n) for n in listing.output.split()} <= set(range(10))


def test_the_time_limit_stands_still_during_host_calls(make) -> None:
    executor = make(timeout_seconds=0.6, additional_functions={"slow": lambda: time.sleep(1) or "done"})
    assert executor("slow()").output == "done"
    with pytest.raises(InterpreterError, match=r"maximum execution time of 0\.6 seconds"):
        executor("kept = slow()\nwhile True: pass")
    assert executor("kept").output == "done"


def test_descriptors_are_given_back(make) -> None:
    executor = make()
    executor("1")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(WorkerLost):
            executor("import os\nos._exit(1)")
    executor("1")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
