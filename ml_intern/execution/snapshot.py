"""Variables that outlive their process: saved while the host asks the model, read back by the next worker.

Runs in the jail beside `worker.py`; standard library only. The host never unpickles: it reads `manifest.json`, as text
that anyone may have written. A fork of the worker does the saving, so that no action waits for it and nothing that
pickling runs touches the live variables; what is saved is the state at the end of an action, never from inside one.

Variables that share objects go into one pickle, so that `a is b` holds after a restart too (views of one array come
back as arrays of their own). A pickle that is unchanged is not written again; arrays of 1 MB or more lie beside it, each
in a file. Imports and definitions are run again from their source, with what was set on them since; lambdas and nested
functions come back by value, tools and handles of the host as themselves.
"""

from __future__ import annotations

import _ast
import _pickle
import _signal  # ty: ignore[import-not-found] - as in the worker: no patch reaches it
import gc
import os as system
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from ml_intern.execution.pickling import Sink, attributes, is_own_class, make_pickler, reason, sharing, use, why_not
from ml_intern.execution.values import from_line, to_line

SECONDS = 2.0  # of saving, beside whatever runs meanwhile
KILL_SECONDS = 10
BYTES = 256 << 20
BUFFER_BYTES = 1 << 20
IDLE_SECONDS, OVERDUE_SECONDS = 0.005, 1.0
FAILURES = 3
MANIFEST = "manifest.json"
VERSION = f"1 {sys.implementation.cache_tag} {sys.hexversion:x}"

os = SimpleNamespace(**vars(system))  # kept apart from what careless code does to it
_now, _import, _open = time.monotonic, __import__, open
_missing = object()
_BLOCKS = (
    _ast.If, _ast.Try, _ast.TryStar, _ast.With, _ast.AsyncWith, _ast.For, _ast.AsyncFor, _ast.While, _ast.Match,
    _ast.ExceptHandler, _ast.match_case,
)  # fmt: skip
_PARTS = ("body", "handlers", "cases", "orelse", "finalbody")
_DEFINITIONS = (_ast.FunctionDef, _ast.AsyncFunctionDef, _ast.ClassDef)


class Snapshots:
    """Saves one namespace to a folder and restores it from there.

    Args:
        folder (`str`): Where to; the jail's alone to read and write.
        names (`dict[str, Any]`): The namespace.
        fixed (`Callable[[], dict[str, Any]]`): What the worker itself keeps in it, by name.
        memory (`int`): Bytes that the process and its forks may use.
    """

    def __init__(self, folder: str, names: dict[str, Any], fixed: Callable[[], dict[str, Any]], memory: int) -> None:
        use(self)
        self.folder, self.names, self.fixed, self.memory = folder, names, fixed, memory
        self.room = min(BYTES, memory // 4)
        self.own = {*names, "__builtins__"}
        self.sources: dict[str, str] = {}
        self.imports: dict[tuple[Any, ...], tuple[str, int, int]] = {}
        self.defined: dict[str, tuple[str, int, int, Any]] = {}
        self.before: list[tuple[str, _ast.stmt, Any]] = []
        self.action = self.failures = 0
        self.since = 0.0  # when what is not saved yet was set; 0: all is
        self.child = -1  # a pipe that ends with the fork

    # What an action runs that has to be run again

    def begin(self, filename: str, source: str, body: list[_ast.stmt]) -> None:
        """Looks at an action's statements before they run."""
        self.before = []
        for node in statements(body):
            if isinstance(node, _DEFINITIONS):
                self.before.append((node.name, node, self.names.get(node.name, _missing)))
            elif isinstance(node, _ast.Assign):
                target = node.targets[0]
                if len(node.targets) == 1 and isinstance(target, _ast.Name) and isinstance(node.value, _ast.Call):
                    self.before.append((target.id, node, self.names.get(target.id, _missing)))
            else:
                self.before.append(("", node, None))
        if self.before:
            self.sources[filename] = source

    def end(self, filename: str, action: int) -> None:
        """Keeps those that ran."""
        used = False
        for name, node, before in self.before:
            place = (filename, node.lineno, node.col_offset)
            if not name:
                if all(bound in self.names for bound in bound_names(node)):
                    used, self.imports[import_key(node)] = True, place
                continue
            value = self.names.get(name, _missing)
            made = callable(value) if isinstance(node, _DEFINITIONS) else is_own_class(value)
            if value is not before and value is not _missing and made:
                used, self.defined[name] = True, (*place, value)
        if self.before and not used:
            del self.sources[filename]
        self.before, self.action = [], action
        self.since = self.since or _now()

    # When to save

    def wait(self) -> float | None:
        """How long to wait for the next action before saving; `None`: there is nothing to save."""
        if not self.since or self.failures >= FAILURES:
            return None
        if self.child >= 0 and not self.ended():
            return 0.05
        return 0.0 if _now() - self.since > OVERDUE_SECONDS else IDLE_SECONDS

    def ended(self) -> bool:
        try:
            said = os.read(self.child, 1)
        except BlockingIOError:
            return False
        self.failures = 0 if said else self.failures + 1
        os.close(self.child)
        self.child = -1
        return True

    def save(self) -> None:
        """Forks, and lets the fork save. It is a grandchild, so that code which waits for its children meets none."""
        if self.child >= 0:
            return
        self.since = 0.0
        with _open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        too_large = 2 * resident + self.room > self.memory  # if all of it were changed while the fork looks at it
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self.child = reader
        try:
            pid = quiet_fork()
        except OSError:  # no more processes are allowed
            os.close(writer)
            return
        if pid:
            os.close(writer)
            with suppress(OSError):  # the code may have waited for it
                os.waitpid(pid, 0)
            return
        try:
            if quiet_fork() == 0:
                self.save_here(too_large)
                os.write(writer, b"1")
        finally:
            os._exit(0)

    def save_here(self, too_large: bool) -> None:
        _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGALRM])
        _signal.setitimer(_signal.ITIMER_REAL, KILL_SECONDS)
        nothing = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        gc.disable()
        Saving(self).run(too_large)

    # What there is to save

    def variables(self) -> dict[str, Any]:
        """All names, and as `name.attribute` what was set on definitions, which running them again does not bring."""
        fixed, defined = self.fixed(), self.definitions()
        found = {}
        for name, value in list(self.names.items()):
            if name in self.own or fixed.get(name, _missing) is value or not name.isidentifier():
                continue
            if name not in defined:
                found[name] = value
                continue
            for key, attribute in attributes(value):
                found[f"{name}.{key}"] = attribute
        return found

    def definitions(self) -> dict[str, tuple[str, int, int, Any]]:
        return {name: kept for name, kept in self.defined.items() if self.names.get(name, _missing) is kept[3]}

    def code(self) -> dict[str, Any]:
        kept = list(self.definitions().items())
        used = {place[0] for place in self.imports.values()} | {definition[0] for _, definition in kept}
        return {
            "sources": {name: text for name, text in self.sources.items() if name in used},
            "imports": [list(place) for place in self.imports.values()],
            "definitions": [[name, *definition[:3]] for name, definition in kept],
        }

    # Back again

    def restore(self) -> dict[str, Any]:
        """Brings the namespace back. Gives what came back and what did not, with the reason."""
        try:
            manifest = self.read_manifest()
            code = from_line(bytes(self.read(manifest["code"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {"back": [], "lost": {"all": f"the snapshot does not read: {error}"}, "action": 0}
        lost: dict[str, str] = dict(manifest["lost"])
        for name in set(self.names) - self.own - set(self.fixed()):
            if name not in manifest["names"]:  # sent by the host once, deleted by the code since
                del self.names[name]
        self.sources.update(code["sources"])
        for place in code["imports"]:
            try:
                node = self.run_again(*place)
                self.imports[import_key(node)] = tuple(place)
            except Exception as error:  # noqa: BLE001 - importing runs anything; what failed is told
                lost[f"an import of {place[0][1:-1]}"] = reason(error)
        todo: list[tuple[str, Callable[[], None]]] = []
        for name, *place in code["definitions"]:
            todo.append((name, lambda name=name, place=place: self.define(name, *place)))
        for group in manifest["groups"]:
            todo.append((", ".join(group["names"]), lambda group=group: self.load(group)))
        while todo:  # a definition may need a variable, a variable a definition
            failed, errors = [], {}
            for name, step in todo:
                try:
                    step()
                except Exception as error:  # noqa: BLE001 - as above; it is tried again after the others
                    failed.append((name, step))
                    errors[name] = reason(error)
            if len(failed) == len(todo):
                lost.update(errors)
                break
            todo = failed
        for name in set(self.names) - self.own - set(self.fixed()):
            if name not in manifest["names"]:  # bound by an import or a definition, deleted since
                del self.names[name]
        with suppress(OSError):
            os.chdir(manifest["cwd"])
        sys.path += [path for path in manifest["path"] if path not in sys.path]
        self.action, self.since = manifest["action"], 0.0
        back = [name for name in manifest["names"] if name in self.names]
        return {"back": back, "lost": lost, "action": self.action}

    def run_again(self, filename: str, line: int, column: int) -> _ast.stmt:
        tree = compile(self.sources[filename], filename, "exec", _ast.PyCF_ONLY_AST | 0x2000, True)
        node = next(n for n in statements(tree.body) if (n.lineno, n.col_offset) == (line, column))
        future = [n for n in tree.body if isinstance(n, _ast.ImportFrom) and n.module == "__future__"]
        body = [node] if node in future else [*future, node]
        exec(compile(_ast.Module(body, []), filename, "exec", 0, True), self.names)
        return node

    def define(self, name: str, filename: str, line: int, column: int) -> None:
        self.run_again(filename, line, column)
        self.defined[name] = (filename, line, column, self.names[name])

    def load(self, group: dict[str, Any]) -> None:
        buffers = [bytes(self.read(name)) if fixed else self.read(name) for name, fixed in group["buffers"]]
        found = _pickle.loads(self.read(group["file"]), buffers=buffers)
        for key, value in found.items():
            name, _, attribute = key.partition(".")
            if not attribute:
                self.names[name] = value
            elif attribute == "__dict__":
                self.names[name].__dict__.update(value)
            else:
                setattr(self.names[name], attribute, value)

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def read(self, name: str) -> bytearray:
        """Not `bytes`: an array made over it can be written to."""
        with _open(self.path(name), "rb", buffering=0) as file:
            data = bytearray(os.fstat(file.fileno()).st_size)
            view = memoryview(data)
            while view and (count := file.readinto(view)):
                view = view[count:]
        return data

    def read_manifest(self) -> dict[str, Any]:
        manifest = from_line(bytes(self.read(MANIFEST)))
        if manifest["version"] != VERSION:
            raise ValueError(f"it was written by another Python ({manifest['version']})")
        return manifest


class Saving:
    """One run of saving, in the fork."""

    def __init__(self, snapshots: Snapshots) -> None:
        self.snapshots = snapshots
        self.deadline, self.room = _now() + SECONDS, snapshots.room
        try:
            self.old: dict[str, Any] = snapshots.read_manifest()
        except (OSError, ValueError, KeyError, TypeError):  # there is none yet, or another Python's
            self.old = {"groups": [], "next": 1, "code": ""}
        self.next: int = self.old["next"]
        self.known = {tuple(group["names"]): group for group in self.old["groups"]}
        self.lost: dict[str, str] = {}
        self.groups: list[dict[str, Any]] = []

    def run(self, too_large: bool) -> None:
        snapshots = self.snapshots
        variables = snapshots.variables()
        definitions = snapshots.definitions()
        tools = {id(value): name for name, value in snapshots.fixed().items()}
        marks = {id(kept[3]): name for name, kept in definitions.items()}
        self.pickler = make_pickler(tools, marks)
        if too_large:
            self.lost = dict.fromkeys(variables, "too much memory is in use")
        else:
            groups = [sorted(group) for group in sharing(variables, _now() + SECONDS / 2)]
            size = {names: group["size"] for names, group in self.known.items()}
            for names in sorted(groups, key=lambda names: size.get(tuple(names), 0)):
                self.save({name: variables[name] for name in names})
        code = self.put("code", [to_line(snapshots.code())], self.old["code"])
        names = [name for name in variables if "." not in name] + list(definitions)
        manifest = {
            "version": VERSION,
            "action": snapshots.action,
            "next": self.next,
            "names": names,
            "lost": {name: why for name, why in self.lost.items() if "." not in name},
            "groups": self.groups,
            "code": code,
            "cwd": os.getcwd(),
            "path": [path for path in sys.path if type(path) is str],
        }
        self.write(MANIFEST + ".new", [to_line(manifest)])
        os.replace(snapshots.path(MANIFEST + ".new"), snapshots.path(MANIFEST))
        used = {MANIFEST, code}
        for group in self.groups:
            used |= {group["file"], *(name for name, _ in group["buffers"])}
        for name in os.listdir(snapshots.folder):
            if name not in used:
                with suppress(OSError):
                    os.unlink(snapshots.path(name))

    def save(self, variables: dict[str, Any]) -> None:
        """Variables that share objects: together if that goes, else those that go."""
        try:
            self.groups.append(self.dump(variables))
        except BaseException as error:  # noqa: BLE001 - pickling runs the code's own methods; what failed is named
            if len(variables) == 1:
                self.lost |= {name: why_not(value, error) for name, value in variables.items()}
                return
            good = {}
            for name, value in variables.items():
                try:
                    self.dump({name: value}, keep=False)
                    good[name] = value
                except BaseException as inner:  # noqa: BLE001 - as above
                    self.lost[name] = why_not(value, inner)
            if good and len(good) < len(variables):
                self.save(good)
            else:  # each alone goes, all together do not
                for name, value in good.items():
                    self.save({name: value})

    def dump(self, variables: dict[str, Any], *, keep: bool = True) -> dict[str, Any]:
        buffers: list[Any] = []
        now = _now()  # half of what is left, so that one that is slow leaves time for the others
        sink = Sink(self.room, now + max(0.0, self.deadline - now) / 2)

        def outside(buffer: Any) -> bool:
            view = buffer.raw()
            if view.nbytes < BUFFER_BYTES:
                return True
            sink.spend(view.nbytes)
            buffers.append(view)
            return False

        self.pickler(sink, 5, buffer_callback=outside).dump(variables)
        if not keep:
            return {}
        old = self.known.get(tuple(variables), {"file": "", "buffers": []})
        places = [name for name, _ in old["buffers"]]
        places += [""] * (len(buffers) - len(places))
        group = {
            "names": list(variables),
            "file": self.put("pickle", sink.parts, old["file"]),
            "buffers": [
                [self.put("bin", [view], place), view.readonly] for view, place in zip(buffers, places, strict=False)
            ],
            "size": sink.size,
        }
        self.room -= sink.size
        return group

    def put(self, kind: str, parts: list[Any], old: str) -> str:
        """Writes a new file, unless the old one holds just that. Files are never changed, so a kill tears nothing."""
        if old and self.same(old, parts):
            return old
        name, self.next = f"{self.next}.{kind}", self.next + 1
        self.write(name, parts)
        return name

    def same(self, name: str, parts: list[Any]) -> bool:
        try:
            with _open(self.snapshots.path(name), "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != sum(memoryview(part).nbytes for part in parts):
                    return False
                for part in parts:
                    view = memoryview(part).cast("B")
                    for start in range(0, len(view), 1 << 20):
                        if file.read(len(view[start : start + (1 << 20)])) != view[start : start + (1 << 20)]:
                            return False
        except OSError:
            return False
        return True

    def write(self, name: str, parts: list[Any]) -> None:
        handle = os.open(self.snapshots.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            for part in parts:
                view = memoryview(part).cast("B")
                while view:
                    view = view[os.write(handle, view) :]
        finally:
            os.close(handle)


def statements(body: list[_ast.stmt]) -> Iterator[_ast.stmt]:
    """Imports, definitions and plain assignments at the top level, those in blocks included."""
    todo: list[Any] = list(reversed(body))  # not recursive: `elif` nests
    while todo:
        node = todo.pop()
        if isinstance(node, (_ast.Import, _ast.ImportFrom, _ast.Assign, *_DEFINITIONS)):
            yield node
        elif isinstance(node, _BLOCKS):
            inner = [part for field in _PARTS for part in getattr(node, field, ())]
            todo += reversed(inner)


def bound_names(node: Any) -> list[str]:
    return [alias.asname or alias.name.partition(".")[0] for alias in node.names if alias.name != "*"]


def import_key(node: Any) -> tuple[Any, ...]:
    source = (node.module, node.level) if isinstance(node, _ast.ImportFrom) else ()
    return (*source, *((alias.name, alias.asname) for alias in node.names))


def quiet_fork() -> int:
    """`os.fork`, which from Python 3.12 on warns where there are threads: on the output of the code."""
    warnings = sys.modules.get("warnings")
    if warnings is None or sys.version_info < (3, 12):
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()
