"""Variables outlive their process: what comes back, what is named, what it costs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from smolagents.local_python_executor import InterpreterError

import ml_intern
from ml_intern.execution import CodeInterrupted, JailExecutor, WorkerLost, Workspace
from ml_intern.execution.jail import Jail, try_bubblewrap
from ml_intern.execution.restart import RESTARTED, Saved, read_saved, restarted, restored
from ml_intern.execution.snapshot import MANIFEST


def saved(executor: JailExecutor) -> Saved:
    """Waits until the last action's snapshot is there, as it is while a model is asked."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        found = read_saved(executor._snapshots)
        if found is not None and found.action == executor._ended:
            return found
        time.sleep(0.01)
    raise AssertionError("no snapshot was taken")


def lose(executor: JailExecutor, code: str = "import os\nos._exit(1)") -> str:
    """Kills the process once its variables are saved. Gives the observation."""
    saved(executor)
    with pytest.raises(WorkerLost) as caught:
        executor(code)
    return str(caught.value)


def files(executor: JailExecutor) -> dict[str, int]:
    """What lies there once nothing changes any more: files of the snapshot before go after the new one stands."""
    assert executor._snapshots is not None
    last: dict[str, int] | None = None
    while True:
        found = {entry.name: entry.inode() for entry in os.scandir(executor._snapshots) if entry.name != MANIFEST}
        if found == last:
            return found
        last = found
        time.sleep(0.1)


BACK = {
    "plain values": ("x, y, z = 1, 'two', [3.0, None, {4}]", "(x, y, z) == (1, 'two', [3.0, None, {4}])"),
    "a module by another name": ("import collections.abc as c, json\nd = json", "d.dumps([c.Sized.__name__]) == '[\"Sized\"]'"),
    "a module inside a module": ("import xml.dom.minidom\nx = 1", "xml.dom.minidom.Document is not None"),
    "an import in a block": ("try:\n    import nothing_of_this_name\nexcept ImportError:\n    import math as nothing", "nothing.pi > 3"),
    "a function and its globals": ("k = 2\ndef f(x, *, by=3): return x * k * by", "f(1) == 6"),
    "a function's default as it is now": ("def f(x, seen=[]):\n    seen.append(x)\n    return seen\nf(1)", "f(2) == [1, 2]"),
    "a decorated function": ("import functools\n@functools.cache\ndef f(x): return x + 1\nf(1)", "f(2) == 3"),
    "a class, its instances, its state": (
        "class A:\n    count = 0\n    def __init__(self): A.count += 1\na = [A(), A()]", "A.count == 2 and type(a[0]) is A"),
    "a class that needs a variable": ("width = 3\nclass A:\n    cells = [0] * width\na = A()\nA.cells[0] = 1", "a.cells == [1, 0, 0]"),
    "a dataclass": ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 0\np = P(3)", "p == P(3)"),
    "an enum": ("import enum\nclass C(enum.Enum):\n    RED = 1\nc = C.RED", "c is C.RED"),
    "a namedtuple": ("from collections import namedtuple\nP = namedtuple('P', 'x y')\np = P(1, 2)", "p == P(1, 2) and p.x == 1"),
    "a lambda": ("k = 2\nf = lambda x: x * k", "f(4) == 8"),
    "a closure that counts": (
        "def make():\n    n = 0\n    def more():\n        nonlocal n\n        n += 1\n        return n\n    return more\nf = make()\nf()",
        "f() == 2"),
    "a recursive inner function": (
        "def make():\n    def fact(n): return 1 if n < 2 else n * fact(n - 1)\n    return fact\nf = make()", "f(5) == 120"),
    "an annotation that stays text": (
        "from __future__ import annotations\ndef f(x: nothing_of_this_name): return x", "f(1) == 1"),
    "two names for one list": ("a = [1]\nb = a\nc = {'a': a}", "a is b and c['a'] is a"),
    "a cycle": ("a = {}\na['a'] = a", "a['a'] is a"),
    "one array in two places": ("import numpy as np\na = np.arange(500_000)\nd = {'a': a}\na[0] = 7", "d['a'] is a and int(a[0]) == 7"),
    "an array that can be written": ("import numpy as np\na = np.zeros(500_000)", "(a.__setitem__(0, 1), float(a.sum()))[1] == 1.0"),
    "a table": ("import pandas as pd\nt = pd.DataFrame({'a': [1, 2], 'b': ['x', None]})", "t['a'].sum() == 3 and t.shape == (2, 2)"),
    "a tool by another name": ("search = look\nkept = [look]", "search('x') == 'found x' and kept[0] is look"),
    "a handle of the host": ("thing = give()\nkept = {'t': thing}", "kept['t'] is thing and take(thing)"),
    "a name of its own": ("print = lambda *a: None", "print(1) is None and type(print).__name__ == 'function'"),
    "where it was": ("import os\nos.makedirs('sub', exist_ok=True)\nos.chdir('sub')", "os.getcwd().endswith('sub')"),
    "what an action that failed had set": ("x = [1]\nx.append(2)\n1 / 0", "x == [1, 2]"),
}  # fmt: skip


@pytest.fixture(scope="module")
def host_object() -> object:
    return object()


@pytest.fixture
def lasting(make, host_object: object) -> JailExecutor:
    executor = make()
    executor.send_tools({
        "look": lambda text: f"found {text}", "give": lambda: host_object, "take": lambda thing: thing is host_object,
    })  # fmt: skip
    return executor


@pytest.mark.parametrize("what", BACK)
def test_what_comes_back(lasting: JailExecutor, what: str) -> None:
    before, check = BACK[what]
    with contextlib.suppress(InterpreterError):
        lasting(before)
    assert lose(lasting).endswith(
        "The Python process was restarted: variables come back as the last completed action left them. "
        "Files in the workspace are still there."
    )
    output = lasting(check)
    assert output.logs == "(Variables are back as the last completed action left them.)\n"
    assert output.output is True
    assert lasting("1").logs == ""


LOST = {
    "f = open('x.txt', 'w')": "f (open file)",
    "g = (i for i in [1])": "g (generator)",
    "import threading\nt = threading.Lock()": "t (lock)",
    "import socket\ns = {'x': [socket.socketpair()]}": "s (dict: cannot pickle 'socket' object)",
    "class A:\n    pass\na = A()\nclass A:\n    pass": "a (A: Can't pickle <class '__main__.A'>: it's not the same object as __main__.A)",
    "class A:\n    def __reduce__(self): raise ValueError('not me')\na = A()": "a (A: not me)",
    "class A:\n    def __reduce__(self):\n        import os\n        os._exit(0)\nb = 1": None,
    "x = bytearray(260 << 20)": "x (bytearray: too large to be saved)",
}


@pytest.mark.parametrize("code", LOST)
def test_what_cannot_come_back_is_named_twice(make, code: str) -> None:
    executor = make()
    executor(f"kept = [1]\n{code}")
    told = lose(executor)
    output = executor("kept")
    assert output.output == [1]
    if name := LOST[code]:
        for text in (told, output.logs):
            assert f"except: {name}" in text
    else:
        assert "except" not in told


def test_what_shares_with_the_lost_comes_back_without_it(make) -> None:
    executor = make()
    executor("a = [1]\nb = [a]\nc = [a, (i for i in a)]")
    assert "except: c (list: cannot pickle 'generator' object)" in lose(executor)
    assert executor("b[0] is a, 'c' in globals()").output == (True, False)


def test_views_come_back_as_arrays_of_their_own(make) -> None:
    executor = make()
    executor("import numpy as np\na = np.arange(300_000)\nb = a[:3]")
    assert executor("b.base is a").output is True
    lose(executor)
    assert executor("b.tolist(), b.base is a").output == ([0, 1, 2], False)


def test_what_is_deleted_or_replaced_stays_so(make) -> None:
    executor = make()
    executor.send_variables({"sent": 1, "changed": 1, "untouched": [1]})
    executor("import math, json\ndef f(): pass\ndef g(): pass\nx = y = 1")
    executor("del math, f, sent, x\ng = 5\nchanged = 2\ny = 3")
    lose(executor)
    names = ("math", "json", "f", "g", "sent", "x", "y", "changed", "untouched")
    assert executor(f"[n for n in {names} if n in globals()]").output == ["json", "g", "y", "changed", "untouched"]
    assert executor("g, y, changed, untouched").output == (5, 3, 2, [1])


def test_what_the_host_has_sent_since_wins(make) -> None:
    executor = make()
    executor.send_variables({"a": 1})
    executor("a = 2\nb = 2")
    lose(executor)
    executor.send_variables({"b": 3})
    assert executor("a, b").output == (2, 3)


def test_an_action_that_ran_is_not_entered_half_way(make) -> None:
    executor = make()
    executor("x = [1]")
    lose(executor, "x.append(2)\ny = 1\nimport time, os\ntime.sleep(1.5)\nos._exit(1)")
    assert executor("x, 'y' in globals()").output == ([1], False)


def test_definitions_can_be_traced_and_read_after_it(make) -> None:
    executor = make()
    executor("import inspect\n\ndef f(x):\n    return 1 / x")
    lose(executor)
    with pytest.raises(InterpreterError, match=r"line 4 of action 1, in f: return 1 / x"):
        executor("f(0)")
    assert executor("inspect.getsource(f)").output == "def f(x):\n    return 1 / x\n"
    lose(executor)  # and once more, from a snapshot of what was restored
    assert executor("f(2)").output == 0.5


WAYS = {
    "a crash of the interpreter": ("import ctypes\nctypes.string_at(0)", 4.0),
    "an abort": ("import os\nos.abort()", 4.0),
    "out of memory": ("l = []\nwhile True: l.append(bytearray(50_000_000)) or l[-1].__setitem__(0, 1)", 8.0),
    "a hang in C": ("sum(range(10**12))", 4.5),
    "an interrupt that is ignored": ("import time\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass", 4.5),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_lose_the_process_is_told_in_time(make, jail: Jail, way: str, short_grace) -> None:
    code, seconds = WAYS[way]
    if seconds == 4.5 and jail.kind == "landlock" and not try_bubblewrap():
        pytest.skip("the same signal in both jails, and it takes its time")
    executor = make(jail=jail, timeout_seconds=0.5 if "hang" in way else 60, memory_bytes=1 << 30)
    executor("kept = {'a': [1]}\ng = (i for i in [1])")
    saved(executor)
    if "interrupt" in way:
        threading.Timer(0.5, executor.interrupt).start()
    began = time.monotonic()
    try:
        executor(code)
        raise AssertionError("it went through")
    except CodeInterrupted as error:
        told, lost = str(error), error.state_lost
    except InterpreterError as error:
        told, lost = str(error), isinstance(error, WorkerLost)
    assert time.monotonic() - began < seconds
    if lost:
        assert "except: g (generator)" in told
    assert executor("kept").output == {"a": [1]}


def test_killed_while_it_saves_leaves_the_snapshot_before(make) -> None:
    executor = make()
    executor("x = 1")
    saved(executor)
    executor(
        "class Slow:\n    def __reduce__(self):\n        import time\n        time.sleep(5)\n        return int, ()\ns = Slow()\nx = 2"
    )
    time.sleep(0.3)
    with pytest.raises(WorkerLost, match="as an earlier action left them"):
        executor("import os\nos._exit(1)")
    output = executor("x")
    assert output.output == 1
    assert "as an earlier action left them (what was set since is gone)" in output.logs


def test_saving_that_hangs_is_given_up(make) -> None:
    """A fork that hangs holds nothing up; the variables of before stay."""
    executor = make()
    executor("class Hangs:\n    def __reduce__(self):\n        import time\n        time.sleep(60)\nh = Hangs()")
    time.sleep(0.2)
    began = time.monotonic()
    assert executor("2").output == 2
    assert time.monotonic() - began < 0.5


def test_large_things_that_are_unchanged_are_not_written_again(make) -> None:
    executor = make()
    executor("import numpy as np\nbig = np.ones(10_000_000)\nwords = [str(n) for n in range(300_000)]\nn = 0\nl = [1]")
    saved(executor)
    before = files(executor)
    for _ in range(3):
        executor("n += 1")
        saved(executor)
    after = files(executor)
    assert len(after) == len(before)
    assert len(set(after.items()) - set(before.items())) == 1  # that of `n`
    executor("big[5] = 2\nl.append(2)")
    saved(executor)
    assert 2 <= len(set(files(executor).items()) - set(after.items())) <= 3
    lose(executor)
    assert executor("big[5], big.size, len(words), n, l").output == (2.0, 10_000_000, 300_000, 3, [1, 2])


def test_a_burst_of_actions_is_saved_all_the_same(make) -> None:
    executor = make()
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < 2.5:
        executor("n = globals().get('n', 0) + 1")
        count += 1
    found = read_saved(executor._snapshots)
    assert found is not None
    assert found.action > 1
    assert count > 500


def test_an_action_does_not_wait_for_saving(make) -> None:
    executor = make()
    executor("rows = [{'a': n, 'b': str(n)} for n in range(200_000)]")
    taken = []
    for _ in range(20):
        executor("rows[0]['a'] += 1")
        time.sleep(0.02)  # saving has begun
        began = time.perf_counter()
        executor("1")
        taken.append((time.perf_counter() - began) * 1000)
    print(f"\nan action beside a fork that saves 200,000 rows: {statistics.median(taken):.2f} ms")
    assert statistics.median(taken) < 25


def test_forks_of_the_worker_are_not_the_codes_children(make) -> None:
    executor = make()
    executor("x = 1\nimport os")
    saved(executor)
    executor("x = 2")
    time.sleep(0.02)
    with pytest.raises(InterpreterError, match="ChildProcessError"):
        executor("os.wait()")
    executor(
        "a, b = os.pipe()\nif os.fork() == 0:\n    if os.fork() == 0: os.write(b, b'ok')\n    os._exit(0)\nos.wait()"
    )
    output = executor("os.read(a, 2)")
    assert (output.output, output.logs) == (b"ok", "")


def test_saving_prints_nothing_and_changes_nothing(make) -> None:
    executor = make()
    executor(
        "calls = []\nclass Loud:\n    def __reduce__(self):\n        calls.append(1)\n        print('saving')\n        return Loud, ()\nl = Loud()"
    )
    saved(executor)
    output = executor("calls")
    assert (output.output, output.logs) == ([], "")
    lose(executor)
    assert "saving" not in executor("1").logs


def test_careless_code_does_not_break_saving(make) -> None:
    executor = make()
    executor("import builtins, os, pickle, time, json\nkept = 1\nopen('pickle.py', 'w').write('1 / 0')")
    executor(
        "pickle.dumps = pickle.Pickler = json.dumps = os.replace = os.write = time.monotonic = None\nbuiltins.len = builtins.open = None"
    )
    assert "variables come back" in lose(executor, "os._exit(1)")
    assert executor("kept").output == 1


def test_a_restore_that_crashes_or_hangs_is_given_up_once(make) -> None:
    executor = make()
    executor("import os\nclass Bomb:\n    def __reduce__(self): return os._exit, (7,)\nb = Bomb()\nkept = 1")
    lose(executor)
    output = executor("'kept' in globals()")
    assert output.output is False
    assert "Variables are gone: they could not be restored, as the process ended." in output.logs
    assert executor("kept = 2\nkept").logs == ""
    lose(executor)
    assert executor("kept").output == 2


def test_an_interrupt_reaches_a_restore(make) -> None:
    executor = make()
    executor("import time\nclass Slow:\n    def __reduce__(self): return time.sleep, (2,)\ns = Slow()\nkept = 1")
    lose(executor)
    threading.Timer(0.5, executor.interrupt).start()
    began = time.monotonic()
    with pytest.raises(CodeInterrupted, match="while variables were being restored"):
        executor("1")
    assert time.monotonic() - began < 1.5
    assert executor("kept").output == 1


def test_the_clock_stands_still_while_variables_come_back(make) -> None:
    executor = make(timeout_seconds=0.8)
    executor("import time\nclass Slow:\n    def __reduce__(self): return time.sleep, (1.2,)\ns = Slow()\nkept = 1")
    lose(executor)
    assert executor("kept").output == 1


@pytest.mark.parametrize("forged", [b"", b"[]", b"{}", b'{"action": 1}', b"[" * 100_000, b'{"action": -1, "names": [], "lost": {}}',
    b'{"action": 2, "names": [1, null], "lost": {"a": {}}, "version": "0"}', json.dumps({"action": 1, "names": ["x"] * 10**6, "lost": {}}).encode()])  # fmt: skip
def test_a_forged_manifest_harms_nobody(make, tmp_path: Path, forged: bytes) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / MANIFEST).write_bytes(forged)
    executor = make(snapshots=tmp_path / "s")
    assert executor("1 + 1").output == 2
    assert len(executor.state["_print_outputs"]) < 10_000
    executor("x = 3")
    lose(executor)
    assert executor("x").output == 3


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_a_manifest_that_is_no_file_is_not_waited_for(make, tmp_path: Path, kind: str) -> None:
    place = tmp_path / MANIFEST
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/etc/hostname")
    assert read_saved(tmp_path) is None


def test_the_snapshots_are_outside_the_workspace_and_the_jails_alone(make, jail: Jail) -> None:
    executor = make(jail=jail)
    executor("secret_of_the_code = 1")
    saved(executor)
    assert executor._snapshots is not None
    assert not executor._snapshots.is_relative_to(executor.workspace.root)
    assert executor._snapshots.stat().st_mode & 0o077 == 0
    assert list(executor.workspace.walk(".")) == []
    folder = executor._snapshots
    executor.cleanup()
    assert not folder.exists()


def test_another_host_process_finds_them(make, jail: Jail, tmp_path: Path) -> None:
    def build(**more: Any) -> JailExecutor:
        return make(jail=jail, workspace=Workspace(tmp_path / "w"), snapshots=tmp_path / "s", **more)

    (tmp_path / "w").mkdir()
    first = build()
    first("x = [1]\ndef f(): return x[0] and x\ng = (i for i in x)")
    first.cleanup()  # at once: it waits for the snapshot
    second = build()
    output = second("f() is x, x")
    assert output.output == (True, [1])
    assert output.logs == "(Variables are back as the last completed action left them, except: g (generator).)\n"
    with pytest.raises(InterpreterError, match=r"line 2 of action 1, in f: def f\(\): return x\[0\]"):
        second("x.clear()\nf()")  # its own actions go on counting, else this would be action 1 too


def test_too_much_memory_in_use_is_said(make) -> None:
    executor = make(memory_bytes=400 << 20)
    executor("kept = 1\nx = bytearray(200 << 20)")
    assert "too much memory is in use" in lose(executor)


def test_the_texts() -> None:
    some = Saved(3, ("a",), {f"x{n}": "open file" for n in range(40)})
    assert restarted(None, 3) == RESTARTED
    assert restarted(Saved(3), 3) == RESTARTED
    assert "x29 (open file), 10 more" in restarted(some, 3)
    assert "earlier action" not in restored(some, 3)
    assert "earlier action" in restored(some, 4)
    assert restored(Saved(3, (), {"f": "open file"}), 3) == "Variables are gone: f (open file)."


def test_what_is_slow_to_save_leaves_time_for_the_rest(make) -> None:
    executor = make()
    executor("a = 1\nslow = [{n: [n]} for n in range(1_500_000)]\nz = [1]")
    assert "except: slow (list: saving took too long)" in lose(executor)
    assert executor("a, z").output == (1, [1])


# With the system's Python, which need not have smolagents: this speaks with the worker directly.
AS_A_USER = """
import json, select, sys, tempfile, time
from pathlib import Path
from ml_intern.execution.jail import Jail, Limits, try_bubblewrap, try_landlock
from ml_intern.execution.process import WorkerProcess
from ml_intern.execution.restart import read_saved

def wait(worker):
    while True:
        select.select([worker.replies], [], [], 10)
        for message in worker.receive():
            return message

def run(code, number):
    worker = WorkerProcess(Jail(kind), root, Limits(processes=64), 1000, None, snapshots)
    wait(worker)
    if number > 1:
        worker.send({"op": "restore"})
        wait(worker)
    worker.capture.begin("m" * 32)
    worker.send({"op": "run", "n": number, "code": code, "mark": "m" * 32})
    done = wait(worker)
    while read_saved(snapshots) is None:
        time.sleep(0.01)
    worker.kill()
    worker.close()
    return done.get("value", done)

for kind, why in (("bubblewrap", try_bubblewrap()), ("landlock", try_landlock())):
    if not why:
        root, snapshots = Path(tempfile.mkdtemp()).resolve(), Path(tempfile.mkdtemp()).resolve()
        run("import math\\nx = [math.pi]\\ny = x", 1)
        print(kind, run("y is x and x == [math.pi]", 2))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="becoming another user takes root"
)
def test_as_a_normal_user(tmp_path: Path) -> None:
    package = Path(ml_intern.__file__).parent
    with tempfile.TemporaryDirectory(prefix="ml-intern-test-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "ml_intern").mkdir()
        for file in ("__init__.py", "errors.py", "events.py"):
            shutil.copy(package / file, folder / "ml_intern" / file)
        shutil.copytree(package / "execution", folder / "ml_intern" / "execution")
        folder.chmod(0o755)
        (folder / "tmp").mkdir(mode=0o777)
        (folder / "tmp").chmod(0o777)
        run = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", AS_A_USER],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": name, "HOME": "/nonexistent", "TMPDIR": f"{name}/tmp"},
            cwd="/", capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:-1] in (
        ["bubblewrap True", "landlock True"],
        ["bubblewrap True"],
        ["landlock True"],
    )


def test_long_chains_of_branches_are_looked_at(make) -> None:
    executor = make()
    chain = "if x == 0: pass\n" + "".join(f"elif x == {n}: import json\n" for n in range(1, 900))
    assert executor(f"x = 5\n{chain}json.dumps(1)").output == "1"
    lose(executor)
    assert executor("json.dumps(x)").output == "5"
