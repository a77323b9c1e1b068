"""The program inside the jail: runs code in one lasting namespace and calls the host's tools over a pipe.

Standard library only, one file, JSON lines: it runs under any Python, over any pair of pipes. The host imports the
values' encoding (`Codec`) from here. Descriptors 0, 1 and 2 as started are requests, replies and captured output; the
first two are moved away and closed for children, so that code, and what it starts, reads nothing and prints into the
capture.

What this can and cannot promise: code runs in the same process, so it can find the pipe and write lines of its own. That
gives it nothing: a forged call is a call (the host decides about each), a forged end ends its own action, and a line that
breaks the rules gets the process killed. The private references below keep *careless* code (`builtins.print = ...`, a
`json.py` in the workspace) from breaking it.
"""

from __future__ import annotations

import _ast
import _thread
import binascii
import builtins
import itertools
import json
import os
import sys
from _queue import SimpleQueue
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, TracebackType
from typing import Any

LINE_LIMIT = 64 << 20
VALUE_LIMIT = 1 << 20
IMAGES_LIMIT = 16
HANDLES_LIMIT = 10_000
PARTS_LIMIT = 1_000_000  # lists and dicts in a line: small as text, large in memory
DEPTH_LIMIT = 150
TAG = "$"

_loads = json.JSONDecoder(strict=False).scan_once
_write, _getpid, _exit = os.write, os.getpid, os._exit
_lock = _thread.allocate_lock
_import = __import__


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} is not JSON")


_chunks = json.encoder.c_make_encoder(  # type: ignore[attr-defined] - the C encoder, which no patch of `json` reaches
    None, _refuse, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True
)


def to_line(message: dict[str, Any]) -> bytes:
    return ("".join(_chunks(message, 0)) + "\n").encode("ascii")


def from_line(line: bytes) -> Any:
    """Raises `ValueError` for anything but one JSON value."""
    try:
        return _loads(line.decode("utf-8", "strict"), 0)[0]
    except (StopIteration, RecursionError) as error:
        raise ValueError("not a line of JSON") from error


# --- values ----------------------------------------------------------------------------------------------------------


class Unencodable(ValueError):
    """The value is too large, too deep or of a kind that cannot cross."""


class Handle:
    """Stands for an object that stays on the other side. Given back, it is that object again."""

    __slots__ = ("kind", "number", "realm", "text")

    def __init__(self, realm: str, number: int, kind: str, text: str) -> None:
        self.realm, self.number, self.kind, self.text = realm, number, kind, text

    def __repr__(self) -> str:
        return self.text

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this {self.kind} is only a handle: the object is on the other side, pass it to a tool")


class Codec:
    """Values as typed JSON: plain ones as they are, others as `{"$": kind, ...}`, the rest as handles.

    Args:
        realm (`str`): Names this side's lot of handles; handles of a lot that is gone are refused.
        pickles (`Callable[[Any], bool]`, *optional*): Which objects without an encoding may go pickled. Only the host
            has one. What comes in is unpickled only where `unpickle` is set: in the jail.
        shares (`Codec`, *optional*): Whose lot of handles to use too.
    """

    def __init__(
        self,
        realm: str,
        pickles: Callable[[Any], bool] | None = None,
        *,
        unpickle: bool = False,
        shares: Codec | None = None,
    ) -> None:
        self.realm, self.pickles, self.unpickle = realm, pickles, unpickle
        self._kept: dict[int, Any] = shares._kept if shares else {}
        self._numbers: dict[int, int] = shares._numbers if shares else {}
        self._next: Iterator[int] = shares._next if shares else itertools.count(1)
        self._keeping = shares._keeping if shares else _lock()

    def encode(self, value: Any, limit: int = LINE_LIMIT - 65536, *, handles: bool = True) -> Any:
        """Raises `Unencodable` when the text would be longer than about `limit` bytes or may hold no handle."""
        return _Encoder(self, limit, handles).encode(value, 0)

    def keep(self, value: Any) -> int:
        """The number of an object that stays here; the oldest of very many are forgotten."""
        with self._keeping:
            number = self._numbers.get(id(value))
            if number is None:
                number = next(self._next)
                self._kept[number], self._numbers[id(value)] = value, number
                if len(self._kept) > HANDLES_LIMIT:
                    oldest = next(iter(self._kept))
                    del self._numbers[id(self._kept.pop(oldest))]
        return number

    def handle(self, value: Any) -> dict[str, Any]:
        kind, text = type(value).__name__, short_text(value, 200)
        return {TAG: "theirs", "id": self.keep(value), "realm": self.realm, "kind": kind, "text": text}

    def decode(self, data: Any) -> Any:
        """Raises `ValueError` for what is not an encoded value: it may come from anywhere."""
        try:
            return self.read(data)
        except ValueError:
            raise
        except (
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            ImportError,
            RecursionError,
            MemoryError,
        ) as error:
            raise ValueError(f"not an encoded value: {type(error).__name__}: {error}") from error

    def read(self, data: Any) -> Any:
        kind = type(data)
        if kind is list:
            return [self.read(item) for item in data]
        if kind is not dict:
            return data
        if TAG not in data:
            return {key: self.read(item) for key, item in data.items()}
        return _DECODERS[data[TAG]](self, data)

    def find(self, data: dict[str, Any]) -> Any:
        if data["realm"] != self.realm or data["id"] not in self._kept:
            raise ValueError(f"{data.get('text', 'the object')} is gone: the process that held it was restarted")
        return self._kept[data["id"]]


class _Encoder:
    def __init__(self, codec: Codec, limit: int, handles: bool) -> None:
        self.codec, self.limit, self.handles = codec, limit, handles
        self.parts = PARTS_LIMIT - 1000

    def spend(self, size: int) -> None:
        self.limit -= size
        if self.limit < 0:
            raise Unencodable("the value is too large to cross: write it to a file in the workspace, pass the path")

    def encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            self.spend(len(value) + 2)
            return value
        if value is None or kind is bool or kind is float or (kind is int and -(1 << 63) <= value < 1 << 63):
            self.spend(8)
            return value
        if depth > DEPTH_LIMIT:
            raise Unencodable("the value is nested too deeply to cross, or contains itself")
        encoder = _encoders.get(kind)
        if encoder is None:
            encoder = _encoders[kind] = _find_encoder(kind)
        self.spend(8)
        self.parts -= 1
        if self.parts < 0:
            self.spend(self.limit + 1)
        return encoder(self, value, depth + 1)

    def items(self, values: Iterable[Any], depth: int) -> list[Any]:
        encode = self.encode
        return [encode(item, depth) for item in values]

    def raw(self, data: bytes) -> str:
        self.spend(len(data) * 4 // 3)
        return binascii.b2a_base64(data, newline=False).decode("ascii")

    def other(self, value: Any, depth: int) -> Any:
        codec = self.codec
        if type(value) is Handle and value.realm != codec.realm:
            return {TAG: "yours", "id": value.number, "realm": value.realm, "text": value.text}
        if not self.handles:
            raise Unencodable(f"a {type(value).__name__} cannot cross")
        held = codec.handle(value)
        if codec.pickles and codec.pickles(value):
            try:
                held["pickle"] = self.raw(_import("pickle").dumps(value))
            except Unencodable:
                raise
            except Exception:  # noqa: BLE001 - pickling runs the value's own code; without it the handle remains
                held.pop("pickle", None)
        return held


def _encode_int(_: _Encoder, value: int, __: int) -> Any:
    return int(value) if -(1 << 63) <= value < 1 << 63 else {TAG: "int", "v": hex(value)}


def _encode_dict(encoder: _Encoder, value: dict[Any, Any], depth: int) -> Any:
    pairs = list(dict.items(value))
    if TAG not in value and all(type(key) is str for key, _ in pairs):
        encoder.spend(sum(len(key) + 4 for key, _ in pairs))
        return {key: encoder.encode(item, depth) for key, item in pairs}
    return {TAG: "dict", "v": [[encoder.encode(key, depth), encoder.encode(item, depth)] for key, item in pairs]}


def _encode_datetime(encoder: _Encoder, value: Any, depth: int) -> Any:
    data: dict[str, Any] = {TAG: "datetime" if hasattr(value, "utctimetuple") else "time", "v": value.isoformat()}
    if zone := getattr(value.tzinfo, "key", None):
        data |= {"v": value.replace(tzinfo=None).isoformat(), "zone": zone}
    if value.fold:
        data["fold"] = 1
    return data


def _encode_timestamp(encoder: _Encoder, value: Any, depth: int) -> Any:
    return {TAG: "timestamp", "v": value.isoformat(), "zone": None if value.tz is None else str(value.tz)}


def _encode_array(encoder: _Encoder, value: Any, depth: int) -> Any:
    if value.dtype.kind == "O":
        return {TAG: "objects", "shape": list(value.shape), "v": encoder.items(value.ravel().tolist(), depth)}
    if value.dtype.kind not in "biufcSUmM":
        return encoder.other(value, depth)
    encoder.spend(value.nbytes)
    return {TAG: "array", "dtype": value.dtype.str, "shape": list(value.shape), "v": encoder.raw(value.tobytes())}


def _encode_scalar(encoder: _Encoder, value: Any, depth: int) -> Any:
    if value.dtype.kind not in "biufcSUmM":
        return encoder.other(value, depth)
    return {TAG: "scalar", "dtype": value.dtype.str, "v": encoder.raw(value.tobytes())}


def _encode_series(encoder: _Encoder, value: Any, depth: int) -> Any:
    values = value.array
    kind = str(values.dtype)
    plain = type(values).__name__ in ("NumpyExtensionArray", "PandasArray")
    cells = value.to_numpy() if plain or kind.startswith("datetime64[ns]") else value.astype(object).to_numpy()
    return {
        TAG: "series",
        "name": encoder.encode(value.name, depth),
        "dtype": kind,
        "v": encoder.encode(cells, depth),
        "index": _encode_index(encoder, value.index, depth),
    }


def _encode_index(encoder: _Encoder, index: Any, depth: int) -> Any:
    names = encoder.items(index.names, depth)
    if type(index).__name__ == "RangeIndex":
        return {"range": [index.start, index.stop, index.step], "names": names}
    return {"v": encoder.items(index.tolist(), depth), "names": names, "dtype": str(index.dtype)}


def _encode_frame(encoder: _Encoder, value: Any, depth: int) -> Any:
    encoder.spend(int(value.memory_usage(index=False).sum()))
    columns = [_encode_series(encoder, value.iloc[:, i].reset_index(drop=True), depth) for i in range(value.shape[1])]
    data = {TAG: "frame", "columns": columns, "index": _encode_index(encoder, value.index, depth)}
    if value.columns.nlevels > 1:
        data["levels"] = encoder.items(value.columns.names, depth)
    return data


def _encode_image(encoder: _Encoder, value: Any, depth: int) -> Any:
    image = value.to_raw() if hasattr(value, "to_raw") else value  # smolagents' AgentImage is an image by name only
    return {TAG: "image", "v": encoder.raw(png(image))}


def png(image: Any) -> bytes:
    buffer = _import("io").BytesIO()
    known = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I")
    (image if image.mode in known else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in type(value).__dataclass_fields__ if hasattr(value, name)}


# Keyed by where the class is defined, so that nothing need be imported to recognise it.
_ENCODERS: dict[str, Callable[[_Encoder, Any, int], Any]] = {
    "enum.Enum": lambda e, v, d: e.encode(v.value, d),
    "builtins.str": lambda e, v, d: e.encode(str.__str__(v), d),
    "builtins.int": _encode_int,
    "numpy.generic": _encode_scalar,
    "numpy.ndarray": _encode_array,
    "builtins.float": lambda e, v, d: float.__float__(v),
    "builtins.list": lambda e, v, d: e.items(list.__iter__(v), d),
    "builtins.tuple": lambda e, v, d: {TAG: "tuple", "v": e.items(tuple.__iter__(v), d)},
    "builtins.dict": _encode_dict,
    "builtins.set": lambda e, v, d: {TAG: "set", "v": e.items(v, d)},
    "builtins.frozenset": lambda e, v, d: {TAG: "frozenset", "v": e.items(v, d)},
    "builtins.bytes": lambda e, v, d: {TAG: "bytes", "v": e.raw(v)},
    "builtins.bytearray": lambda e, v, d: {TAG: "bytearray", "v": e.raw(v)},
    "builtins.complex": lambda e, v, d: {TAG: "complex", "v": [v.real, v.imag]},
    "builtins.range": lambda e, v, d: {TAG: "range", "v": e.items([v.start, v.stop, v.step], d)},
    "datetime.datetime": _encode_datetime,
    "datetime.date": lambda e, v, d: {TAG: "date", "v": v.isoformat()},
    "datetime.time": _encode_datetime,
    "datetime.timedelta": lambda e, v, d: {TAG: "timedelta", "v": [v.days, v.seconds, v.microseconds]},
    "decimal.Decimal": lambda e, v, d: {TAG: "decimal", "v": str(v)},
    "pandas._libs.tslibs.nattype.NaTType": lambda e, v, d: {TAG: "pandas", "v": "NaT"},
    "pandas._libs.missing.NAType": lambda e, v, d: {TAG: "pandas", "v": "NA"},
    "pandas._libs.tslibs.timestamps.Timestamp": _encode_timestamp,
    "uuid.UUID": lambda e, v, d: {TAG: "uuid", "v": str(v)},
    "pathlib.PurePath": lambda e, v, d: {TAG: "path", "v": str(v)},
    "pandas.core.series.Series": _encode_series,
    "pandas.core.frame.DataFrame": _encode_frame,
    "PIL.Image.Image": _encode_image,
}
_ENCODERS |= {
    "pandas.Series": _encode_series,
    "pandas.DataFrame": _encode_frame,
    "pandas.Timestamp": _encode_timestamp,
    "pandas.api.typing.NaTType": _ENCODERS["pandas._libs.tslibs.nattype.NaTType"],
    "pandas.api.typing.NAType": _ENCODERS["pandas._libs.missing.NAType"],
    "pathlib._local.PurePath": _ENCODERS["pathlib.PurePath"],
}
_encoders: dict[type, Callable[[_Encoder, Any, int], Any]] = {}


def _find_encoder(kind: type) -> Callable[[_Encoder, Any, int], Any]:
    names = [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]
    if "enum.Enum" in names:
        return _ENCODERS["enum.Enum"]
    for name in names:
        if name in _ENCODERS:
            return _ENCODERS[name]
    if "__dataclass_fields__" in kind.__dict__:
        return lambda e, v, d: e.other(v, d) if e.codec.pickles and e.handles else e.encode(_fields(v), d)
    return _Encoder.other


def _numpy_type(numpy: Any, text: str) -> Any:
    kind = numpy.dtype(text) if type(text) is str else None
    if kind is None or kind.kind not in "biufcSUmM":
        raise ValueError(f"{text!r} is no plain numpy type")
    return kind


def _decode_array(codec: Codec, data: dict[str, Any]) -> Any:
    numpy = _import("numpy")
    flat = numpy.frombuffer(bytearray(binascii.a2b_base64(data["v"])), dtype=_numpy_type(numpy, data["dtype"]))
    return flat.reshape(data["shape"])


def _decode_scalar(codec: Codec, data: dict[str, Any]) -> Any:
    numpy = _import("numpy")
    return numpy.frombuffer(binascii.a2b_base64(data["v"]), dtype=_numpy_type(numpy, data["dtype"]))[0]


def _decode_objects(codec: Codec, data: dict[str, Any]) -> Any:
    flat = _import("numpy").empty(len(data["v"]), dtype=object)
    for place, item in enumerate(data["v"]):
        flat[place] = codec.read(item)
    return flat.reshape(data["shape"])


def _decode_index(codec: Codec, data: dict[str, Any]) -> Any:
    pandas = _import("pandas")
    names = codec.read(data["names"])
    if "range" in data:
        return pandas.RangeIndex(*data["range"], name=names[0])
    values = codec.read(data["v"])
    if len(names) > 1:
        return pandas.MultiIndex.from_tuples(values, names=names)
    return pandas.Index(values, name=names[0], dtype=_known_type(data["dtype"]))


def _known_type(text: str) -> str | None:
    """A pandas type by name, where the name alone says it all."""
    return None if text.startswith(("interval", "Sparse", "period", "<")) else str(text)


def _decode_series(codec: Codec, data: dict[str, Any]) -> Any:
    pandas = _import("pandas")
    values = pandas.Series(codec.read(data["v"]), name=codec.read(data["name"]), dtype=_known_type(data["dtype"]))
    values.index = _decode_index(codec, data["index"])
    return values


def _decode_frame(codec: Codec, data: dict[str, Any]) -> Any:
    pandas = _import("pandas")
    columns = [_decode_series(codec, column) for column in data["columns"]]
    index = _decode_index(codec, data["index"])
    frame = pandas.concat(columns, axis=1) if columns else pandas.DataFrame(index=range(len(index)))
    names = [column.name for column in columns]
    frame.columns = (
        pandas.MultiIndex.from_tuples(names, names=codec.read(data["levels"])) if "levels" in data else names
    )
    frame.index = index
    return frame


def _decode_image(codec: Codec, data: dict[str, Any]) -> Any:
    buffer = _import("io").BytesIO(binascii.a2b_base64(data["v"]))
    try:
        image = _import("PIL.Image").Image.open(buffer, formats=["PNG"])
        if image.width * image.height > 64_000_000:
            raise ValueError(f"an image of {image.width} x {image.height} pixels is too large")
        image.load()
    except (OSError, SyntaxError, Warning) as error:
        raise ValueError(f"not an image: {error}") from error
    return image


def _decode_datetime(codec: Codec, data: dict[str, Any]) -> Any:
    module = _import("datetime")
    value = (module.datetime if data[TAG] == "datetime" else module.time).fromisoformat(data["v"])
    if "zone" in data:
        value = value.replace(tzinfo=_import("zoneinfo").ZoneInfo(data["zone"]))
    return value.replace(fold=1) if data.get("fold") else value


def _decode_timestamp(codec: Codec, data: dict[str, Any]) -> Any:
    value = _import("pandas").Timestamp(data["v"])
    return value if data["zone"] is None else value.tz_convert(data["zone"])


def _decode_theirs(codec: Codec, data: dict[str, Any]) -> Any:
    if codec.unpickle and "pickle" in data:
        try:
            return _import("pickle").loads(binascii.a2b_base64(data["pickle"]))
        except Exception:  # noqa: BLE001 - its class may not exist here; then it stays on the host
            pass
    return Handle(str(data["realm"]), int(data["id"]), str(data["kind"]), str(data["text"]))


_DECODERS: dict[str, Callable[[Codec, dict[str, Any]], Any]] = {
    "int": lambda c, v: int(v["v"], 16),
    "dict": lambda c, v: {c.read(key): c.read(item) for key, item in v["v"]},
    "tuple": lambda c, v: tuple(c.read(v["v"])),
    "set": lambda c, v: set(c.read(v["v"])),
    "frozenset": lambda c, v: frozenset(c.read(v["v"])),
    "bytes": lambda c, v: binascii.a2b_base64(v["v"]),
    "bytearray": lambda c, v: bytearray(binascii.a2b_base64(v["v"])),
    "complex": lambda c, v: complex(*v["v"]),
    "range": lambda c, v: range(*c.read(v["v"])),
    "datetime": _decode_datetime,
    "time": _decode_datetime,
    "date": lambda c, v: _import("datetime").date.fromisoformat(v["v"]),
    "timedelta": lambda c, v: _import("datetime").timedelta(*v["v"]),
    "decimal": lambda c, v: _import("decimal").Decimal(v["v"]),
    "uuid": lambda c, v: _import("uuid").UUID(v["v"]),
    "timestamp": _decode_timestamp,
    "pandas": lambda c, v: {"NaT": _import("pandas").NaT, "NA": _import("pandas").NA}[v["v"]],
    "path": lambda c, v: _import("pathlib").Path(v["v"]),
    "array": _decode_array,
    "scalar": _decode_scalar,
    "objects": _decode_objects,
    "series": _decode_series,
    "frame": _decode_frame,
    "image": _decode_image,
    "yours": Codec.find,
    "theirs": _decode_theirs,
}


def short_text(value: Any, limit: int) -> str:
    """`str(value)`, or as much of it as is worth making: a list of a billion numbers is not turned into text."""
    try:
        if isinstance(value, (list, tuple, set, frozenset, dict)) and len(value) > limit // 4:
            few = list(_import("itertools").islice(iter(value.items() if isinstance(value, dict) else value), 1000))
            return f"{type(value).__name__} of {len(value)}, begins with {short_text(few, limit - 100)}"
        text = str(value)
    except Exception as error:  # noqa: BLE001 - __str__ is the agent's code; the text says what it did
        text = f"<{type(value).__name__} whose text failed: {type(error).__name__}>"
    if len(text) <= limit:
        return str.__str__(text)
    return f"{text[: limit // 2]}\n... {len(text) - limit} characters left out ...\n{text[-(limit // 2) :]}"


def describe_error(error: BaseException, codec: Codec) -> dict[str, Any]:
    """An exception as class ancestry, message and plain arguments."""
    arguments = None
    if type(error).__module__ == "builtins":
        given = list(error.args)
        if isinstance(error, OSError) and len(given) == 2 and error.filename is not None:
            given.append(error.filename)
        try:
            arguments = codec.encode(given, 100_000, handles=False)
        except Unencodable:
            arguments = None
    ancestry = [cls.__name__ for cls in type(error).__mro__ if cls is not object]
    return {"classes": ancestry, "text": short_text(error, 20_000), "args": arguments}


def build_error(data: dict[str, Any], codec: Codec) -> BaseException:
    """The nearest builtin class with the same message."""
    classes = data["classes"]
    for name in classes:
        cls = _BUILTINS.get(name)
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            continue
        arguments = codec.decode(data["args"]) if data["args"] is not None and name == classes[0] else [data["text"]]
        try:
            return cls(*arguments)
        except TypeError:  # its constructor wants more than a message
            continue
    return RuntimeError(data["text"])


_BUILTINS = dict(vars(builtins))


# --- running code ----------------------------------------------------------------------------------------------------


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
        self.images: list[Any] = []
        self.waiting: dict[int, list[Any]] = {}
        self.calls = 0
        self.action = 0  # 0: none is running
        self.interruptible = False
        self.to_interrupt = 0
        self.loop: Any = None
        self.remembers = False
        self.sending = _lock()
        self.jobs: SimpleQueue[dict[str, Any]] = SimpleQueue()

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
                    waiter[1] = message
                    waiter[0].release()
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
            try:
                self.handle(self.jobs.get())
            except KeyboardInterrupt:  # came just after its action had ended
                pass

    def handle(self, message: dict[str, Any]) -> None:
        if message["op"] == "run":
            self.run(message)
        elif message["op"] == "tools":
            self.set_tools(message["tools"])
        elif message["op"] == "variables":
            for name, data in message["values"].items():
                try:
                    self.names[name] = self.codec.decode(data)
                except ValueError as error:
                    print(f"(the variable {name} could not be read: {error})")

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
            stub.__wrapped__ = made[name]  # type: ignore[attr-defined]
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
        waiter = [_lock(), None]
        waiter[0].acquire()
        with self.sending:
            self.calls = number = self.calls + 1
        message["id"] = number
        self.waiting[number] = waiter
        try:
            self.send(message)
            waiter[0].acquire()
        finally:
            self.waiting.pop(number, None)
        reply = waiter[1]
        if reply is None or action != self.action:
            raise RuntimeError(f"{name} was cancelled: its action has ended")
        if "error" in reply:
            raise build_error(reply["error"], self.codec)
        if reply.get("final"):
            raise _FinalAnswer
        return self.codec.decode(reply["value"])

    # Actions

    def run(self, message: dict[str, Any]) -> None:
        number, source = message["n"], message["code"]
        done: dict[str, Any] = {"op": "done", "n": number, "final": False}
        self.images = []
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
        tree = compile(source, filename, "exec", _ast.PyCF_ONLY_AST | _TOP_LEVEL_AWAIT, True)
        mark_value(tree.body)
        code = compile(tree, filename, "exec", _TOP_LEVEL_AWAIT, True)
        self.remember(filename)
        self.names.pop(VALUE, None)
        if code.co_flags & 0x80:  # the code awaits: it is a coroutine
            self.await_it(eval(code, self.names))
        else:
            exec(code, self.names)
        return self.names.pop(VALUE, None)

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
                try:
                    self.loop.run_until_complete(task)
                except BaseException:  # noqa: BLE001 - how it took the news does not matter
                    pass
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
            try:
                stream.flush()
            except Exception:  # noqa: BLE001 - the code may have closed or replaced it
                pass
        os_dup2(self.no_input, 0)
        os_dup2(self.capture, 1)
        os_dup2(self.capture, 2)
        self.restore_streams()
        self.action = 0
        for waiter in list(self.waiting.values()):  # calls of threads that are still out
            waiter[0].release()
        self.waiting.clear()
        if self.images:
            done["images"] = [binascii.b2a_base64(data, newline=False).decode() for data in self.images]
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
                self.add_figure(pyplot.figure(number))
                pyplot.close(number)
        except BaseException as error:  # noqa: BLE001 - drawing runs the code's own callbacks, and may be interrupted
            print(f"(a figure could not be drawn: {type(error).__name__}: {error})")
            pyplot.close("all")

    # What went wrong

    def failure(self, error: BaseException, number: int) -> dict[str, Any]:
        try:
            return self.explain(error, number)
        except BaseException as second:  # noqa: BLE001 - an exception is an object of the code's, with surprises in it
            text = f"Code execution failed due to: {type(error).__name__} (and it does not print: {type(second).__name__})"
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
_TOP_LEVEL_AWAIT = 0x2000
_BaseExceptionGroup = BaseExceptionGroup


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

    wanted = {"DATA": config["memory"], "FSIZE": config["file"], "NPROC": config["processes"], "CORE": 0}
    for name, value in wanted.items():
        if value is not None:
            which = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(which)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (value, value))


def main() -> None:
    global os_dup2, _signal, _SIGINT, _pthread_kill, _main_thread, _stdout, _stderr, _home
    import _signal as signal  # not the Python module around it, which code may have broken
    import fcntl
    import threading  # here, so that it takes this thread for the main one

    config = from_line(sys.argv[2].encode())
    high = fcntl.F_DUPFD_CLOEXEC
    requests, replies, capture = (fcntl.fcntl(number, high, 200) for number in (0, 1, 2))
    nothing = os.open("/dev/null", os.O_RDONLY)
    no_input = fcntl.fcntl(nothing, high, 200)
    os.close(nothing)
    os.dup2(no_input, 0)
    os.dup2(2, 1)
    os_dup2, _signal, _SIGINT = os.dup2, signal.signal, signal.SIGINT
    _pthread_kill, _main_thread = signal.pthread_kill, threading.get_ident()
    limit(config)
    _home = config["cwd"]
    os.chdir(_home)
    if _home not in sys.path:
        sys.path.append(_home)  # last: a json.py in the workspace is not Python's json
    sys.argv = [""]
    _stdout, _stderr = open_stream(1), open_stream(2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = _stdout, _stderr
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    worker = Worker(requests, replies, capture, no_input)
    sys.modules["__main__"] = worker.module
    worker.names["__builtins__"] = builtins

    def in_child() -> None:  # a forked child has no business on the host's pipe
        os.close(requests)
        os.close(replies)

    os.register_at_fork(after_in_child=in_child)
    worker.serve()


if __name__ == "__worker__":
    main()
