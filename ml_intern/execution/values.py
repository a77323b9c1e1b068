"""Values and messages as lines of text, for both ends of the pipe. Standard library only: the jail runs this too.

The names that the protocol needs are kept privately, so that code which replaces `json.dumps` or writes a `json.py`
into the workspace cannot break it.
"""

from __future__ import annotations

import _thread
import binascii
import builtins
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

LINE_LIMIT = 64 << 20
HANDLES_LIMIT = 10_000
PARTS_LIMIT = 1_000_000  # lists and dicts in a line: small as text, large in memory
PIXELS_LIMIT = 100_000_000  # of the images in a value: a small file may hold very many
DEPTH_LIMIT = 150
TAG = "$"

_loads: Any = json.JSONDecoder(strict=False).scan_once  # ty: ignore[missing-attribute]
_lock = _thread.allocate_lock
_import = __import__


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} is not JSON")


_chunks = json.encoder.c_make_encoder(  # ty: ignore[missing-attribute] - in C: no patch of `json` reaches it
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


_decoding = _thread._local()
_UNREADABLE = (LookupError, TypeError, AttributeError, ArithmeticError, ImportError, RecursionError, MemoryError)


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
        _decoding.pixels = PIXELS_LIMIT
        try:
            return self.read(data)
        except ValueError:
            raise
        except _UNREADABLE as error:
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
    if not columns:
        return pandas.DataFrame(index=index)
    frame = pandas.concat(columns, axis=1)
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
        _decoding.pixels -= image.width * image.height
        if _decoding.pixels < 0:
            raise ValueError(f"more than {PIXELS_LIMIT:,} pixels")
        image.load()
    except Exception as error:
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
