"""Interrupts, time-outs and crashes: a usable error within seconds, and the next action works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from smolagents.local_python_executor import InterpreterError

from ml_intern.execution import CodeInterrupted, JailExecutor, WorkerLost
from ml_intern.execution.jail import Jail


def interrupt_after(executor: JailExecutor, seconds: float) -> None:
    threading.Timer(seconds, executor.interrupt).start()


@pytest.mark.parametrize(
    "wait",
    [
        "time.sleep(1000)", "while True: pass", "subprocess.run(['sleep', '1000'])", "input_event.wait()", "asyncio.run(asyncio.sleep(1000))",
        "await asyncio.sleep(1000)", "ask()", "l = threading.Lock(); l.acquire(); l.acquire()",
    ],
)  # fmt: skip
def test_an_interrupt_ends_code_that_waits_and_keeps_the_state(make, wait: str) -> None:
    executor = make()
    executor.send_tools({"ask": lambda: executor.cancelled.wait(30)})
    executor("import time, subprocess, asyncio, threading\ninput_event = threading.Event()\nkept = 1")
    interrupt_after(executor, 0.3)
    began = time.monotonic()
    with pytest.raises(CodeInterrupted, match="Variables are kept") as caught:
        executor(f"print('began')\n{wait}")
    assert time.monotonic() - began < 2
    assert caught.value.state_lost is False
    assert executor.state["_print_outputs"] == "began\n"
    assert executor("kept, await asyncio.sleep(0, 'fine')").output == (1, "fine")


def test_an_interrupt_that_is_ignored_kills_after_the_grace(make) -> None:
    executor = make()
    executor.send_variables({"sent": 2})
    interrupt_after(executor, 0.5)
    began = time.monotonic()
    with pytest.raises(CodeInterrupted, match="variables are gone") as caught:
        executor(
            "import time\nkept = 1\nwhile True:\n    try:\n        while True: time.sleep(0.01)\n    except KeyboardInterrupt: pass"
        )
    assert 3 < time.monotonic() - began < 6.5
    assert caught.value.state_lost is True
    assert executor("sent").output == 2
    with pytest.raises(InterpreterError, match="'kept' is not defined"):
        executor("kept")


def test_an_interrupt_comes_through_however_early_and_not_too_late(make) -> None:
    executor = make()
    executor.interrupt()
    assert executor("1").output == 1
    for delay in (0.0, 0.0001, 0.0005, 0.001, 0.002):
        for _ in range(5):
            interrupt_after(executor, delay)
            try:
                executor("x = 1")
            except CodeInterrupted as error:
                assert not error.state_lost
            time.sleep(0.003)
    assert executor("x = 2").output == 2
    fresh = make()
    interrupt_after(fresh, 0.01)  # while it starts
    with pytest.raises(CodeInterrupted):
        fresh("import time\ntime.sleep(30)")


def test_waiting_host_calls_find_out(make) -> None:
    executor = make()
    asked, found = threading.Event(), threading.Event()

    def ask() -> None:
        asked.set()
        if executor.cancelled.wait(10):
            found.set()

    executor.send_tools({"ask": ask})
    threading.Thread(target=lambda: asked.wait(20) and executor.interrupt()).start()
    with pytest.raises(CodeInterrupted):
        executor("ask()")
    assert found.wait(5)
    assert executor.cancelled.is_set()
    executor("1")
    assert not executor.cancelled.is_set()


def test_time_limit(make, short_grace) -> None:
    executor = make(timeout_seconds=0.5)
    with pytest.raises(
        InterpreterError, match=r"exceeded the maximum execution time of 0.5 seconds.*time.sleep.*kept"
    ):
        executor("import time\nkept = 1\ntime.sleep(1000)")
    assert executor("kept").output == 1
    with pytest.raises(WorkerLost, match=r"exceeded.*killed.*variables (are gone|come back)"):
        executor("sum(range(10**12))")
    assert executor("1").output == 1


CRASHES = {
    "os._exit(3)": "exited with status 3",
    "os.kill(os.getpid(), 9)": "signal 9",
    "import ctypes\nctypes.string_at(0)": "signal 11",
    "sys.setrecursionlimit(10**7)\nclass A:\n    def __repr__(self): return repr([self])\nrepr(A())": "signal 11",
    "def f(): f()\nf()": "RecursionError",
    "os.abort()": "signal 6",
    "x = []\nwhile True: x.append(bytearray(50_000_000))": "MemoryError|memory",
    "[0] * 10**11": "MemoryError",
}


@pytest.mark.parametrize("code", CRASHES)
def test_crashes(make, jail: Jail, code: str) -> None:
    executor = make(jail=jail, memory_bytes=1 << 30)
    began = time.monotonic()
    with pytest.raises(InterpreterError, match=CRASHES[code]) as caught:
        executor(f"import os, sys\nprint('before')\n{code}")
    assert time.monotonic() - began < 10
    assert executor.state["_print_outputs"].startswith("before\n")
    if isinstance(caught.value, WorkerLost):
        assert "The Python process was restarted: variables are gone" in str(caught.value)
    assert executor("1 + 1").output == 2


def test_a_tree_that_uses_too_much_memory_is_killed(make, jail: Jail) -> None:
    executor = make(jail=jail, memory_bytes=600 << 20)
    with pytest.raises(WorkerLost, match="use of memory"):
        executor("import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        x = b'x' * (200 << 20)\n"
                 "        time.sleep(30)\n        os._exit(0)\ntime.sleep(30)")  # fmt: skip
    assert executor("1").output == 1


@pytest.mark.long
def test_a_fork_bomb_is_contained(make, jail: Jail) -> None:
    executor = make(jail=jail, processes=64)
    with pytest.raises(InterpreterError, match=r"BlockingIOError|Resource temporarily|use of processes|restarted"):
        executor("import os, time\nwhile True:\n    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)")
    began = time.monotonic()
    assert executor.__class__ is JailExecutor
    executor.cleanup()
    assert executor("1").output == 1
    assert time.monotonic() - began < 5


def test_death_between_actions_is_told_with_the_next(make) -> None:
    executor = make()
    executor("import threading, os, time\nthreading.Timer(0.1, os._exit, [5]).start()\nkept = 1")
    time.sleep(0.5)
    output = executor("1")
    assert output.output == 1
    assert "ended after the last action: it exited with status 5" in output.logs
    assert "Variables are back" in output.logs
    assert executor("kept").logs == ""


def test_300_mb_of_output_in_constant_memory(make) -> None:
    executor = make()
    executor("1")
    peak = _peak_memory()
    began = time.monotonic()
    logs = executor("for _ in range(300): print('x' * 1_000_000)").logs
    assert len(logs) < 51_000
    assert time.monotonic() - began < 20
    assert _peak_memory() - peak < 60 << 20


def _peak_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def alive(marker: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def comes(marker: str, seconds: float = 5.0) -> bool:
    """A program has its arguments a moment after its parent has heard that it runs."""
    deadline = time.monotonic() + seconds
    while not alive(marker) and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(alive(marker))


def gone(marker: str, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(marker)


@pytest.mark.parametrize("how", ["os._exit(1)", "None"])
def test_daemons_do_not_outlive_the_worker(make, jail: Jail, how: str) -> None:
    marker = f"98{os.getpid()}{time.monotonic_ns() % 1000}"
    executor = make(jail=jail)
    code = f"import os, subprocess\nsubprocess.Popen(['sleep', '{marker}'], start_new_session=True, stdout=subprocess.DEVNULL)\n"
    try:
        executor(code + how)
    except WorkerLost:
        pass
    else:
        assert comes(marker)
        executor.cleanup()
    assert gone(marker)


@pytest.mark.long
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_host(jail: Jail, death: signal.Signals, tmp_path: Path) -> None:
    marker = f"97{os.getpid()}{time.monotonic_ns() % 1000}"
    program = f"""
    import subprocess, threading
    from ml_intern.execution import JailExecutor
    from ml_intern.execution.jail import Jail
    executor = JailExecutor(jail=Jail({jail.kind!r}))
    thread = threading.Thread(target=executor.start)  # a jail must not die with the thread that asked for it
    thread.start(); thread.join()
    executor("import subprocess; subprocess.Popen(['sleep', '{marker}'], start_new_session=True)")
    print(executor.workspace.root, flush=True)
    executor("import time; time.sleep(100)")
    """
    host = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # a killed host cannot remove its temporary folders
    )
    assert host.stdout is not None
    root = Path(host.stdout.readline().strip())
    assert comes(marker)
    host.send_signal(death)
    host.wait()
    host.stdout.close()
    assert gone(marker)
    assert gone(str(root))


def test_ctrl_c_in_the_host_stops_the_action_in_order(make, short_grace) -> None:
    executor = make()
    for code, kept in (("time.sleep(100)", True), ("sum(range(10**12))", False)):
        begun = executor.workspace.root / f"begun-{kept}"
        executor(f"import time\nkept = {kept}")

        def interrupt(begun: Path = begun) -> None:
            while not begun.exists():
                time.sleep(0.02)
            time.sleep(0.3)
            signal.raise_signal(signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            executor(f"open({begun.name!r}, 'w').close()\n{code}")
        output = executor("kept")
        assert output.output is True  # the second was not saved yet: what is back is the first, and that is said
        assert ("as an earlier action left them" in output.logs) is not kept


def test_starting_from_several_threads_starts_one(make) -> None:
    executor = make()
    threads = [threading.Thread(target=executor.start) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert executor("1").output == 1
    for thread in threads:
        thread.join()
    assert len(alive(str(executor.workspace.root))) == len({*alive(str(executor.workspace.root))}) <= 3


def test_cleaning_up_ends_a_running_action(make) -> None:
    executor = make()
    threading.Timer(0.3, executor.cleanup).start()
    began = time.monotonic()
    with pytest.raises((CodeInterrupted, WorkerLost)):
        executor("import time\ntime.sleep(100)")
    assert time.monotonic() - began < 5
    assert executor("1").output == 1


def test_a_forked_host_leaves_its_parents_jail_alone(make) -> None:
    executor = make()
    executor("kept = 1")
    pid = os.fork()
    if pid == 0:
        executor._shelter.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert executor("kept").output == 1
