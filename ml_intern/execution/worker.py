"""The program inside the jail: runs code in one lasting namespace and calls the host's tools over a pipe.

Standard library only, JSON lines: with `values.py` it runs under any Python, over any pair of pipes. Descriptors 0, 1
and 2 as started are requests, replies and captured output; the first two are moved away and closed for children, so that
code, and what it starts, reads nothing and prints into the capture.

What this can and cannot promise: code runs in the same process, so it can find the pipe and write lines of its own.
That gives it nothing: a forged call is a call (the host decides about each), a forged end ends its own action, and a
line that breaks the rules gets the process killed. The private references below keep *careless* code
(`builtins.print = ...`, a `json.py` in the workspace) from breaking it.
"""

from __future__ import annotations

import _ast
import _thread
import binascii
import builtins
import os
import sys
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import Any

# In the jail the launcher has put these modules there: nothing else of the package is needed, or used if it is installed.
from ml_intern.execution.snapshot import Snapshots
from ml_intern.execution.values import (
    LINE_LIMIT,
    Codec,
    Handle,
    Unencodable,
    build_error,
    describe_error,
    from_line,
    png,
    short_text,
    to_line,
)

__all__ = ["Codec", "Handle", "Unencodable", "build_error", "describe_error", "from_line", "to_line"]

VALUE_LIMIT = 1 << 20
IMAGES_LIMIT = 16

_write, _getpid, _exit, _dup2 = os.write, os.getpid, os._exit, os.dup2
_lock = _thread.allocate_lock
_import = __import__
# set by `main`, so that the host, which imports this file too, need not have them
_signal: Any = None
_pthread_kill: Any = None
_SIGINT = _main_thread = 0
_stdout: Any = None
_stderr: Any = None
_home = ""


class _FinalAnswer(BaseException):
    """Ends the action; not an `Exception`, so that `except Exception` does not swallow an answer."""


class Worker:
    def __init__(self, requests: int, replies: int, capture: int, no_input: int) -> None:
        self.requests = open(requests, "rb", buffering=1 << 16)  # noqa: SIM115 - lives as long as the process
        self.replies, self.capture, self.no_input = replies, capture, no_input
        self.pid = _getpid()
        self.codec = Codec(os.urandom(8).hex(), unpickle=True)
        self.module = ModuleType("__main__")
        self.names = self.module.__dict__
        self.names["display"] = self.display
        self.stubs: dict[str, Callable[..., Any]] = {}
        self.sources: dict[str, list[str]] = {}
        self.images: list[bytes] = []
        self.shown: list[Any] = []  # figures that `display` has shown
        self.waiting: dict[int, Any] = {}  # the locks of calls that are out
        self.answers: dict[int, dict[str, Any]] = {}
        self.calls = 0
        self.action = 0  # 0: none is running
        self.interruptible = False
        self.to_interrupt = 0
        self.loop: Any = None
        self.remembers = False
        self.sending = _lock()
        self.jobs: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.snapshots: Snapshots | None = None
        self.packages = ""  # the folder that `install_packages` fills

    # The wire

    def send(self, message: dict[str, Any]) -> None:
        line = to_line(message)
        if len(line) > LINE_LIMIT:
            raise Unencodable("the value is too large to cross: write it to a file in the workspace, pass the path")
        with self.sending:
            view = memoryview(line)
            while view:
                view = view[_write(self.replies, view) :]

    def listen(self) -> None:
        """The reading thread: replies go to who waits for them, all else to the main thread."""
        for line in self.requests:
            message = from_line(line)
            if message["op"] == "reply":
                waiter = self.waiting.pop(message["id"], None)
                if waiter:
                    self.answers[message["id"]] = message
                    waiter.release()
            elif message["op"] == "interrupt":
                self.to_interrupt = message["n"]
                if self.action == message["n"]:  # if it has not begun yet, it looks when it does
                    _pthread_kill(_main_thread, _SIGINT)
            else:
                self.jobs.put(message)
        _exit(0)  # the host is gone

    def serve(self) -> None:
        _thread.start_new_thread(self.listen, ())
        self.send({"op": "hello", "pid": self.pid, "realm": self.codec.realm})
        while True:
            with suppress(KeyboardInterrupt):  # one that came just after its action had ended
                try:
                    job = self.jobs.get(timeout=self.snapshots.wait() if self.snapshots else None)
                except Empty:
                    job = {"op": "save"}
                self.handle(job)

    def handle(self, message: dict[str, Any]) -> None:
        if message["op"] == "run":
            self.run(message)
        elif message["op"] == "tools":
            self.set_tools(message["tools"])
        elif message["op"] == "restore":
            self.restore()
        elif message["op"] == "save" and self.snapshots:
            self.snapshots.save()
        elif message["op"] == "variables":
            for name, data in message["values"].items():
                try:
                    self.names[name] = self.codec.decode(data)
                except ValueError as error:
                    print(f"(the variable {name} could not be read: {error})")

    def restore(self) -> None:
        """Before the first action: the namespace of the worker before this one. What that prints is dropped."""
        nothing = os.open("/dev/null", os.O_WRONLY)
        _dup2(nothing, 1)
        _dup2(nothing, 2)
        report: dict[str, Any] = {}
        if self.snapshots:
            report = self.snapshots.restore()
            self.sources.update({name: text.splitlines() for name, text in self.snapshots.sources.items()})
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # what ran may have closed or replaced it
                stream.flush()
        os.close(nothing)
        _dup2(self.capture, 1)
        _dup2(self.capture, 2)
        self.restore_streams()
        self.send({"op": "restored", **report})

    # Tools

    def set_tools(self, tools: list[dict[str, str]]) -> None:
        for name, stub in self.stubs.items():
            if self.names.get(name) is stub:
                del self.names[name]
        self.stubs = {tool["name"]: self.stub(**tool) for tool in tools}
        self.names.update(self.stubs)

    def stub(self, name: str, signature: str, doc: str) -> Callable[..., Any]:
        def stub(*args: Any, **kwargs: Any) -> Any:
            return self.call(name, args, kwargs)

        try:  # what `inspect.signature` and `help` look at
            made: dict[str, Any] = {}
            exec(f"from __future__ import annotations\ndef {name}{signature}: ...", {}, made)
            stub.__wrapped__ = made[name]  # ty: ignore[missing-attribute]
            stub.__annotations__, made[name].__doc__ = made[name].__annotations__, doc
        except (SyntaxError, ValueError):  # a name or a default that does not read as Python: *args, **kwargs then
            pass
        stub.__name__ = stub.__qualname__ = name
        stub.__doc__, stub.__module__ = doc, "__main__"
        return stub

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _getpid() != self.pid:
            raise RuntimeError(f"{name} can be called from the main process only: use threads, or call it outside")
        action = self.action
        if not action:
            raise RuntimeError(f"{name} was called after its action had ended: wait for threads that call tools")
        message = {
            "op": "call",
            "n": action,
            "name": name,
            "args": self.codec.encode(list(args)),
            "kwargs": self.codec.encode(kwargs),
        }
        waiter = _lock()
        waiter.acquire()
        with self.sending:
            self.calls = number = self.calls + 1
        message["id"] = number
        self.waiting[number] = waiter
        try:
            self.send(message)
            waiter.acquire()
        finally:
            self.waiting.pop(number, None)
            reply = self.answers.pop(number, None)
        if reply is None or action != self.action:
            raise RuntimeError(f"{name} was cancelled: its action has ended")
        if "error" in reply:
            raise build_error(reply["error"], self.codec)
        if reply.get("final"):
            raise _FinalAnswer
        if name == INSTALL:
            self.see_packages()
        return self.codec.decode(reply["value"])

    def see_packages(self) -> None:
        """What was installed just now can be imported, in programs that the code starts too."""
        if self.packages:
            os.environ["PYTHONPATH"] = self.packages
            _import("importlib").invalidate_caches()

    # Actions

    def run(self, message: dict[str, Any]) -> None:
        number, source = message["n"], message["code"]
        done: dict[str, Any] = {"op": "done", "n": number, "final": False}
        self.images, self.shown = [], []
        if "final_answer" in self.stubs:  # `final_answer = 5` is a common slip
            self.names["final_answer"] = self.stubs["final_answer"]
        _signal(_SIGINT, self.on_interrupt)
        self.action, self.interruptible = number, True
        try:
            try:
                if self.to_interrupt == number:
                    self.on_interrupt()
                done |= self.result(self.evaluate(source, number))
                self.figures()
            finally:
                self.interruptible = False
        except _FinalAnswer:
            done |= {"final": True, "value": None}
            self.figures()
        except BaseException as error:  # noqa: BLE001 - whatever the code raised becomes the observation
            if type(error) is SystemExit and error.code in (None, 0):
                done["value"] = None
            else:
                done["error"] = self.failure(error, number)
            self.figures()
        if _getpid() != self.pid:  # a forked child that ran on to here
            try:
                sys.stdout.flush()
            finally:
                _exit(0)
        self.finish(done, message["mark"])

    def evaluate(self, source: str, number: int) -> Any:
        filename = f"<action {number}>"
        self.sources[filename] = source.splitlines()
        if len(self.sources) > 2000:
            del self.sources[next(iter(self.sources))]
        tree, source = self.parse(source, filename)
        if self.snapshots:
            self.snapshots.begin(filename, source, tree.body)
        mark_value(tree.body)
        code = compile(tree, filename, "exec", _TOP_LEVEL_AWAIT, True)
        self.remember(filename)
        self.names.pop(VALUE, None)
        if code.co_flags & 0x80:  # the code awaits: it is a coroutine
            self.await_it(eval(code, self.names))
        else:
            exec(code, self.names)
        return self.names.pop(VALUE, None)

    def parse(self, source: str, filename: str) -> tuple[Any, str]:
        """Only where a line is no Python is it looked at as a notebook's `!pip install`: in a string it stays one."""
        while True:
            try:
                return compile(source, filename, "exec", _ast.PyCF_ONLY_AST | _TOP_LEVEL_AWAIT, True), source
            except SyntaxError as error:
                lines, number = source.split("\n"), error.lineno or 0
                call = pip_call(lines[number - 1]) if INSTALL in self.stubs and 0 < number <= len(lines) else ""
                if not call:
                    raise
                lines[number - 1] = call
                source = "\n".join(lines)

    def remember(self, filename: str) -> None:
        """So that tracebacks that the code prints, and `inspect.getsource`, show its lines."""
        if "linecache" not in sys.modules:
            return
        cache = sys.modules["linecache"].cache
        for name in [filename] if self.remembers else self.sources:
            cache[name] = (1, None, [line + "\n" for line in self.sources[name]], name)
        self.remembers = True

    def await_it(self, coroutine: Any) -> None:
        if self.loop is None or self.loop.is_closed():
            self.loop = _import("asyncio").new_event_loop()
        _import("asyncio").set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            self.loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # interrupted: the coroutine must not go on at the next action
                task.cancel()
                with suppress(BaseException):  # how it took the news does not matter
                    self.loop.run_until_complete(task)
            raise

    def on_interrupt(self, *_: object) -> None:
        if self.interruptible and self.to_interrupt == self.action:
            self.interruptible = False
            raise KeyboardInterrupt

    def result(self, value: Any) -> dict[str, Any]:
        if type(value).__module__.startswith("PIL."):
            self.display(value)
        try:
            return {"value": self.codec.encode(value, VALUE_LIMIT, handles=False)}
        except Exception:  # noqa: BLE001 - whatever cannot cross is shown as text
            return {"value": short_text(value, VALUE_LIMIT), "as_text": type(value).__name__}

    def finish(self, done: dict[str, Any], mark: str) -> None:
        """Ends the action: output first, then the marker, then the result; descriptors are put right again."""
        for stream in (sys.stdout, sys.stderr, _stdout, _stderr):
            with suppress(Exception):  # the code may have closed or replaced it
                stream.flush()
        _dup2(self.no_input, 0)
        _dup2(self.capture, 1)
        _dup2(self.capture, 2)
        self.restore_streams()
        self.action = 0
        for waiter in list(self.waiting.values()):  # calls of threads that are still out
            waiter.release()
        self.waiting.clear()
        self.answers.clear()
        if self.images:
            done["images"] = [binascii.b2a_base64(data, newline=False).decode() for data in self.images]
        if self.snapshots:
            self.snapshots.end(f"<action {done['n']}>", done["n"])
        data = memoryview(b"\0" + mark.encode() + b"\0")
        while data:
            data = data[_write(self.capture, data) :]
        self.send(done)

    def restore_streams(self) -> None:
        global _stdout, _stderr
        if _stdout.closed or _stderr.closed:
            _stdout, _stderr = open_stream(1), open_stream(2)
        sys.stdout, sys.stderr = _stdout, _stderr

    # What people look at

    def display(self, *values: Any) -> None:
        """Shows images and figures; prints anything else."""
        for value in values:
            if hasattr(value, "savefig"):
                self.add_figure(value)
                self.shown.append(value)
            elif type(value).__module__.startswith("PIL."):
                self.add_image(png(value))
            else:
                print(value)

    def add_image(self, data: bytes) -> None:
        if len(self.images) < IMAGES_LIMIT and sum(map(len, self.images)) + len(data) < LINE_LIMIT // 4:
            self.images.append(data)
        else:
            print(f"(an image was left out: at most {IMAGES_LIMIT} images and {LINE_LIMIT >> 22} MB an action)")

    def add_figure(self, figure: Any) -> None:
        buffer = _import("io").BytesIO()
        getattr(figure, "figure", figure).savefig(buffer, format="png")
        self.add_image(buffer.getvalue())

    def figures(self) -> None:
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None or _getpid() != self.pid:
            return
        try:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                if not any(figure is shown for shown in self.shown):
                    self.add_figure(figure)
                pyplot.close(number)
        except BaseException as error:  # noqa: BLE001 - drawing runs the code's own callbacks, and may be interrupted
            print(f"(a figure could not be drawn: {type(error).__name__}: {error})")
            pyplot.close("all")

    # What went wrong

    def failure(self, error: BaseException, number: int) -> dict[str, Any]:
        try:
            return self.explain(error, number)
        except BaseException as second:  # noqa: BLE001 - an exception is an object of the code's, full of surprises
            text = f"Code execution failed due to: {type(error).__name__} (its text failed: {type(second).__name__})"
            return {"text": text, "interrupted": False}

    def explain(self, error: BaseException, number: int) -> dict[str, Any]:
        name = type(error).__name__
        text = short_text(error, 10_000)
        stopped = self.to_interrupt == number and isinstance(error, KeyboardInterrupt)
        told: dict[str, Any] = {"interrupted": stopped}
        if isinstance(error, SyntaxError) and error.filename in (f"<action {number}>", None):
            told["text"] = f"Code parsing failed on line {error.lineno} due to: {name}: {text}\n"
            if error.text:
                told["text"] += f"{error.text.rstrip()}\n{' ' * max((error.offset or 1) - 1, 0)}^"
            return told
        frames = list(self.frames(error.__traceback__, number))
        if not frames:
            told["text"] = f"Code parsing failed due to: {name}: {text}"
            return told
        told["line"] = frames[0][1]
        lines = [f"Code execution failed at line '{frames[0][1]}' due to: {name}: {text}"]
        lines += [f"Note: {note}" for note in getattr(error, "__notes__", ())]
        lines += self.trace(error, number, set())
        told["text"] = short_text("\n".join(lines), 20_000)
        return told

    def trace(self, error: BaseException, number: int, seen: set[int]) -> Iterator[str]:
        """The agent's own frames, outermost first, then what the error came from."""
        seen.add(id(error))
        frames = list(self.frames(error.__traceback__, number))
        if len(frames) > 20:
            frames[10:-10] = [(f"... {len(frames) - 20} more ...", "")]
        if frames:
            yield "Traceback (your code only):"
            for where, line in frames:
                yield f"  {where}: {line}" if line else f"  {where}"
        if isinstance(error, _BaseExceptionGroup):
            for place, inner in enumerate(error.exceptions[:5], 1):
                yield f"Sub-error {place}: {type(inner).__name__}: {short_text(inner, 2000)}"
                yield from self.trace(inner, number, seen)
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None and id(cause) not in seen and len(seen) < 5:
            word = "Caused by" if error.__cause__ else "While handling"
            yield f"{word}: {type(cause).__name__}: {short_text(cause, 2000)}"
            yield from self.trace(cause, number, seen)

    def frames(self, trace: TracebackType | None, number: int) -> Iterator[tuple[str, str]]:
        while trace is not None:
            code, line = trace.tb_frame.f_code, trace.tb_lineno
            place, name = f"line {line}", code.co_filename
            if name in self.sources:
                if name != f"<action {number}>":
                    place += f" of {name[1:-1]}"
                elif code.co_name == "<module>":
                    yield place, statement_at(self.sources[name], trace)
                    trace = trace.tb_next
                    continue
                text = self.sources[name][line - 1].strip() if line <= len(self.sources[name]) else ""
                yield f"{place}, in {code.co_name}" if code.co_name != "<module>" else place, text
            elif name.startswith(_home + "/") and "site-packages" not in name:
                yield f"{name[len(_home) + 1 :]}, line {line}, in {code.co_name}", file_line(name, line)
            trace = trace.tb_next


VALUE = "__value_of_the_action__"
INSTALL = "install_packages"
PIPS = ("pip", "pip3", "uv pip", "python -m pip", "python3 -m pip")
QUIET = ("-q", "-qq", "--quiet", "-U", "--upgrade", "--no-input", "--disable-pip-version-check")
_TOP_LEVEL_AWAIT = 0x2000
_BaseExceptionGroup = BaseExceptionGroup


def pip_call(line: str) -> str:
    """`!pip install x` or `%pip install x` as a call of the tool, which says what it does not take; empty: neither."""
    bare = line.strip()
    if bare[:1] not in ("!", "%") or " install" not in bare:
        return ""
    try:
        words = _import("shlex").split(bare[1:], comments=True)
    except ValueError:  # an open quote
        return ""
    if "install" not in words or " ".join(words[: (at := words.index("install"))]) not in PIPS:
        return ""
    names = [word for word in words[at + 1 :] if word not in QUIET]
    return f"{line[: len(line) - len(line.lstrip())]}{INSTALL}({names!r})"


def mark_value(body: list[Any]) -> None:
    """Makes the last statement leave its value: an expression's, an assignment's, or that of the branch taken."""
    if not body:
        return
    last = body[-1]

    def name(context: Any) -> Any:
        return placed(_ast.Name(VALUE, context))

    def placed(node: Any) -> Any:
        node.lineno, node.col_offset = last.lineno, last.col_offset
        node.end_lineno, node.end_col_offset = last.end_lineno, last.end_col_offset
        return node

    if isinstance(last, _ast.Expr):
        body[-1] = placed(_ast.Assign([name(_ast.Store())], last.value, None))
    elif isinstance(last, _ast.Assign):
        last.targets.insert(0, name(_ast.Store()))
    elif isinstance(last, (_ast.AugAssign, _ast.AnnAssign)) and isinstance(last.target, _ast.Name):
        if isinstance(last, _ast.AugAssign) or last.value is not None:
            value = placed(_ast.Name(last.target.id, _ast.Load()))
            body.append(placed(_ast.Assign([name(_ast.Store())], value, None)))
    elif isinstance(last, _ast.If):
        mark_value(last.body)
        mark_value(last.orelse)


def statement_at(lines: list[str], trace: TracebackType) -> str:
    """The piece of source that failed: the line, or just the statement where several share one."""
    number = trace.tb_lineno
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    if ";" in line:
        try:
            for node in compile(line.strip(), "", "exec", _ast.PyCF_ONLY_AST | _TOP_LEVEL_AWAIT).body:
                shift = len(line) - len(line.lstrip())
                places = list(trace.tb_frame.f_code.co_positions())
                column = places[trace.tb_lasti // 2][2]
                if column is not None and node.col_offset + shift <= column < node.end_col_offset + shift:
                    return line.strip().encode()[node.col_offset : node.end_col_offset].decode()
        except (SyntaxError, ValueError, IndexError):  # part of a longer statement: the line will do
            pass
    return line.strip()


def file_line(name: str, number: int) -> str:
    try:
        with open(name, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - no pathlib in here
            for place, line in enumerate(file, 1):
                if place == number:
                    return line.strip()
    except OSError:
        pass
    return ""


def open_stream(number: int) -> Any:
    return open(number, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def limit(config: dict[str, Any]) -> None:
    import resource

    # Drivers of GPUs map more than they use; the host looks at what is used.
    data = None if config.get("gpus") else config["memory"]
    wanted = {"DATA": data, "FSIZE": config["file"], "NPROC": config["processes"], "CORE": 0}
    for name, value in wanted.items():
        if value is not None:
            which = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(which)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (value, value))


def open_door(door: int, port: int) -> None:
    """Hands a listener in the jail's own network to the host, which answers there: the way to the Hub (`egress.py`)."""
    import _socket as network  # the worker needs no more of it

    listener = network.socket(network.AF_INET, network.SOCK_STREAM)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    host = network.socket(network.AF_UNIX, network.SOCK_STREAM, 0, fileno=door)
    number = listener.fileno().to_bytes(4, sys.byteorder)
    host.sendmsg([b"!"], [(network.SOL_SOCKET, network.SCM_RIGHTS, number)])
    host.close()
    listener.close()


def main() -> None:
    global _signal, _SIGINT, _pthread_kill, _main_thread, _stdout, _stderr, _home
    import _signal as signal  # ty: ignore[import-not-found] - not the Python module around it: code may break that
    import fcntl
    import threading  # here, so that it takes this thread for the main one

    config = from_line(sys.argv[-1].encode())
    high = fcntl.F_DUPFD_CLOEXEC
    requests, replies, capture = (fcntl.fcntl(number, high, 200) for number in (0, 1, 2))
    nothing = os.open("/dev/null", os.O_RDONLY)
    no_input = fcntl.fcntl(nothing, high, 200)
    os.close(nothing)
    os.dup2(no_input, 0)
    os.dup2(2, 1)
    _signal, _SIGINT = signal.signal, signal.SIGINT
    _pthread_kill, _main_thread = signal.pthread_kill, threading.get_ident()
    limit(config)
    os.environ.update(config.get("variables") or {})
    if config.get("door"):
        open_door(*config["door"])
    _home = config["cwd"]
    os.chdir(_home)
    if config.get("packages"):
        sys.path.append(config["packages"])  # after the host's own, which it is not to stand in front of
    if _home not in sys.path:
        sys.path.append(_home)  # last: a json.py in the workspace is not Python's json
    sys.argv = [""]
    _stdout, _stderr = open_stream(1), open_stream(2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = _stdout, _stderr
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    worker = Worker(requests, replies, capture, no_input)
    sys.modules["__main__"] = worker.module
    worker.names["__builtins__"] = builtins
    worker.packages = config.get("packages") or ""
    if worker.packages and os.listdir(worker.packages):  # noqa: PTH208 - no pathlib in here
        worker.see_packages()
    if folder := config.get("snapshots"):
        own = {"display": worker.names["display"]}
        worker.snapshots = Snapshots(folder, worker.names, lambda: own | worker.stubs, config["memory"])
    pipes = [requests, replies]

    def in_child() -> None:  # a forked child has no business on the host's pipe
        while pipes:  # its own children have nothing to close any more
            os.close(pipes.pop())

    os.register_at_fork(after_in_child=in_child)
    worker.serve()


if __name__ == "__worker__":
    main()
