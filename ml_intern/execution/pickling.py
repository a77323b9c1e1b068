"""What of a namespace can be pickled, and how, for `snapshot.py`. Runs in the jail; standard library only.

Tools, definitions and modules go by name, lambdas and nested functions by value, all else as pickle has it.
"""

from __future__ import annotations

import _pickle
import gc
import marshal
import sys
import time
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, Protocol

from ml_intern.execution.values import Handle, short_text

MANY = 1_000_000
_now, _import = time.monotonic, __import__
_ATOMS = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type(...),
    type,
    ModuleType,
    BuiltinFunctionType,
    CodeType,
    range,
)


class Namespace(Protocol):
    """What pickles call back into: the names, what the worker itself has put there, the definitions by name."""

    names: dict[str, Any]
    fixed: Callable[[], dict[str, Any]]
    defined: dict[str, tuple[str, int, int, Any]]


_current: Any = None


def use(namespace: Namespace) -> None:
    """Pickles are read into this one."""
    global _current
    _current = namespace
    sys.modules[IN_PICKLES] = sys.modules[__name__]


class OutOfBudget(Exception):
    """Too large, or too late, to be saved."""


class Sink:
    """What a pickler writes into; raises once it is too much."""

    def __init__(self, room: int, deadline: float) -> None:
        self.room, self.deadline = room, deadline
        self.parts: list[bytes] = []
        self.size = 0

    def spend(self, size: int) -> None:
        self.size += size
        if self.size > self.room:
            raise OutOfBudget("too large to be saved")
        if _now() > self.deadline:
            raise OutOfBudget("saving took too long")

    def write(self, data: Any) -> int:
        self.spend(len(data))
        self.parts.append(bytes(data))
        return len(data)


def make_pickler(tools: dict[int, str], definitions: dict[int, str]) -> Any:
    """A pickler that knows what the namespace has by name."""

    class Pickler(_pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            kind = type(value)
            if id(value) in tools:
                return fixed, (tools[id(value)],)
            if id(value) in definitions:
                return definition, (definitions[id(value)],)
            if kind is ModuleType or isinstance(value, ModuleType):
                return module, (value.__name__,)
            if kind is FunctionType and value.__module__ == "__main__":
                cells = value.__closure__ or ()
                state = (value.__defaults__, value.__kwdefaults__, value.__dict__, value.__annotations__)
                made = (marshal.dumps(value.__code__), value.__name__, value.__qualname__, cells)
                return function, made, state, None, None, set_function
            if kind is CellType:
                try:
                    return cell, (), value.cell_contents, None, None, set_cell
                except ValueError:  # it is empty
                    return cell, ()
            if kind is Handle:
                return handle, (value.realm, value.number, value.kind, value.text)
            return NotImplemented

    return Pickler


def fixed(name: str) -> Any:
    return _current.fixed()[name]


def definition(name: str) -> Any:
    return _current.defined[name][3]


def module(name: str) -> Any:
    _import(name)
    return sys.modules[name]


def function(code: bytes, name: str, qualname: str, cells: tuple[Any, ...]) -> Any:
    made = FunctionType(marshal.loads(code), _current.names, name, None, cells)
    made.__qualname__, made.__module__ = qualname, "__main__"
    return made


def set_function(made: Any, state: tuple[Any, ...]) -> None:
    made.__defaults__, made.__kwdefaults__, more, made.__annotations__ = state
    made.__dict__.update(more)


def cell() -> CellType:
    return CellType()


def set_cell(made: CellType, value: Any) -> None:
    made.cell_contents = value


def handle(realm: str, number: int, kind: str, text: str) -> Handle:
    return Handle(realm, number, kind, text)


IN_PICKLES = "__snapshot__"  # pickles name it: no package has to be importable where they are read
for _function in (fixed, definition, module, function, set_function, cell, set_cell, handle):
    _function.__module__ = IN_PICKLES


def is_own_class(value: Any) -> bool:
    """A class that a call has made, such as `namedtuple`'s."""
    return isinstance(value, type) and value.__module__ == "__main__"


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What may have been set on a function or a class since its definition."""
    if type(value) is FunctionType:
        for key in ("__defaults__", "__kwdefaults__", "__dict__"):
            if got := getattr(value, key):
                yield key, got
    elif isinstance(value, type) and type(value).__module__ in ("builtins", "abc"):
        for key, got in list(vars(value).items()):
            plain = not isinstance(got, (FunctionType, classmethod, staticmethod, property, type))
            if plain and not (key.startswith("__") or key == "_abc_impl" or type(got).__name__.endswith("descriptor")):
                yield key, got


def sharing(variables: dict[str, Any], deadline: float) -> list[list[str]]:
    """The names in groups: those that reach a common object are in one, as far as there is time to look."""
    group = {name: name for name in variables}

    def root(name: str) -> str:
        while group[name] != name:
            group[name] = name = group[group[name]]
        return name

    owner: dict[int, str] = {}
    alive = []  # what `get_referents` makes on the fly must not be freed, and its id used again
    for name, value in variables.items():
        layer = [value]
        while layer and len(layer) < MANY and _now() < deadline:
            fresh = []
            for item in layer:
                if isinstance(item, _ATOMS) or (type(item) in (tuple, frozenset) and not item):
                    continue
                if (other := owner.get(id(item))) is None:
                    owner[id(item)] = name
                    fresh.append(item)
                elif other != name:
                    group[root(other)] = root(name)
            alive.append(fresh)
            functions = [item for item in fresh if type(item) is FunctionType]
            fresh = [item for item in fresh if type(item) is not FunctionType]
            layer = gc.get_referents(*fresh)
            for item in functions:  # not their globals, which are everything
                layer += [item.__closure__, item.__defaults__, item.__kwdefaults__, item.__dict__]
    found: dict[str, list[str]] = {}
    for name in variables:
        found.setdefault(root(name), []).append(name)
    return list(found.values())


def why_not(value: Any, error: BaseException) -> str:
    kind = type(value)
    name = "open file" if kind.__module__ == "_io" else kind.__name__
    text = short_text(error, 100)
    return name if f"{kind.__name__}' object" in text or kind.__module__ == "_io" else f"{name}: {text}"


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {short_text(error, 100)}"
