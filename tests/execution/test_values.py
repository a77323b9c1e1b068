"""Values across the pipe, both ways, and what is done with those that cannot cross."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import enum
import math
import uuid
import zoneinfo
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from smolagents.agent_types import AgentImage, AgentText

from ml_intern.execution.values import TAG, Codec, Handle, Unencodable, from_line, to_line


def across(value: Any) -> Any:
    """Out of one side and into the other, through a line of text."""
    return Codec("there").decode(from_line(to_line({"v": Codec("here").encode(value)}))["v"])


PLAIN = [
    None, True, 0, -(2**63), 2**63, 10**4000, 1.5, math.inf, -0.0, "", "é\n\0", "\ud800 lone", b"\0\xff", bytearray(b"x"),
    [], [1, [2]], (), (1, "a", (None,)), {1, 2}, frozenset({"a"}), {}, {"a": 1}, {1: "a", (2, 3): "b", None: [1]},
    {TAG: "int", "v": "0x1"}, {"nested": {TAG: 1}}, 1 + 2j, range(1, 9, 2), decimal.Decimal("1.10"), Path("/a/b.txt"),
    uuid.UUID(int=7), dt.date(2026, 1, 2), dt.time(1, 2, 3, 4), dt.timedelta(days=-1, microseconds=3),
    dt.datetime(2026, 1, 2, 3, 4, 5, 6), dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: repr(v)[:40])
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    back = across(value)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value) if not isinstance(value, int) else True


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None))
    | st.binary() | st.dates() | st.datetimes() | st.timedeltas() | st.decimals(allow_nan=False) | st.complex_numbers(allow_nan=False)
)  # fmt: skip
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text()) | st.just(TAG)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner), max_leaves=20
)


@pytest.mark.long
@given(trees)
def test_any_tree_of_values_comes_back(value: Any) -> None:
    assert across(value) == value


def test_nan_comes_back() -> None:
    assert math.isnan(across(math.nan))


def test_subclasses_cross_as_what_they_are_at_heart() -> None:
    class Level(enum.IntEnum):
        LOW = 1

    class Word(str):
        def __str__(self) -> str:
            return "something else"

    @dataclass
    class Point:
        x: int
        tags: list[str]

    assert across(AgentText("hello")) == "hello"
    assert across(Word("hello")) == "hello"
    assert type(across(Word("hello"))) is str
    assert across(Level.LOW) == 1
    assert across([Point(1, ["a"])]) == [{"x": 1, "tags": ["a"]}]
    assert across(type("D", (dict,), {})(a=1)) == {"a": 1}


@pytest.mark.parametrize("kind", ["b1", "i8", "f4", "c16", "S3", "U4", "M8[ns]", "m8[s]", ">i2"])
def test_numpy_arrays_and_scalars(kind: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind)
    back = across(array)
    assert back.dtype == array.dtype
    assert back.shape == (2, 3)
    assert (back == array).all()
    back[0] = array[1]  # writable
    scalar = across(array[1, 1])
    assert scalar == array[1, 1]
    assert type(scalar) is type(array[1, 1]) or kind in ("S3", "U4")  # numpy's strings are strings


def test_numpy_corners() -> None:
    assert across(np.array([])).shape == (0,)
    assert across(np.array(3.0)).shape == ()
    assert across(np.array([None, "a", [1]], dtype=object)).tolist() == [None, "a", [1]]
    assert across(np.asfortranarray([[1, 2], [3, 4]])).tolist() == [[1, 2], [3, 4]]


def test_images() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F"):
        assert across(PIL.Image.new(mode, (3, 2))).size == (3, 2)
    assert across(AgentImage(PIL.Image.new("RGB", (3, 2), "red"))).getpixel((0, 0)) == (255, 0, 0)


def test_data_frames() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "n": [1, 2],
            "f": [1.5, None],
            "s": ["a", None],
            "d": pd.to_datetime(["2026-01-01", None]),
            "b": [True, False],
        }
    )
    frame["z"] = frame["d"].dt.tz_localize("UTC")
    frame["c"] = frame["s"].astype("category")
    frame["i"] = frame["n"].astype("Int64")
    pd.testing.assert_frame_equal(across(frame), frame)
    odd = pd.DataFrame(
        [[1, "x"]], index=pd.Index(["r"], name="row"), columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])
    )
    pd.testing.assert_frame_equal(across(odd), odd)
    pd.testing.assert_frame_equal(across(pd.DataFrame()), pd.DataFrame())
    pd.testing.assert_series_equal(across(frame["z"]), frame["z"])


def test_what_cannot_cross_is_a_handle_and_comes_back_as_itself() -> None:
    here, there = Codec("here"), Codec("there")
    thing = object()
    handle = there.decode(here.encode([thing]))[0]
    assert isinstance(handle, Handle)
    assert repr(handle) == repr(thing)
    assert here.decode(there.encode({"a": (handle,)}))["a"][0] is thing
    with pytest.raises(AttributeError, match="only a handle"):
        handle.read()
    with pytest.raises(ValueError, match="is gone"):
        Codec("after a restart").decode(there.encode(handle))
    assert here.encode(thing)["id"] == here.encode(thing)["id"]


def test_what_is_too_large_too_deep_or_endless_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value, limit in (
        ("x" * 1001, 1000),
        ([1] * 200, 1000),
        (b"x" * 1000, 1000),
        (endless, 10**9),
        (np.zeros(999), 999),
    ):
        with pytest.raises(Unencodable):
            Codec("here").encode(value, limit)
    with pytest.raises(Unencodable):
        Codec("here").encode(object(), handles=False)


def test_the_host_never_unpickles() -> None:
    class Data:
        pass

    jail, host = Codec("jail", unpickle=True), Codec("host", lambda _: True)
    data = host.encode(Path.cwd)  # has no encoding, can be pickled
    assert "pickle" in data
    assert jail.decode(data) == Path.cwd
    assert isinstance(host.decode({**data, "realm": "jail"}), Handle)
    assert isinstance(jail.decode(host.encode(Data())), Handle)  # its class is not there


@pytest.mark.parametrize(
    "data",
    [
        {TAG: "nonsense"}, {TAG: None}, {TAG: []}, {TAG: "int"}, {TAG: "int", "v": "zz"}, {TAG: "dict", "v": [[[], 1]]},
        {TAG: "array", "v": "AAAA", "dtype": "O", "shape": [1]}, {TAG: "array", "v": "", "dtype": ["x"], "shape": []},
        {TAG: "array", "v": "AAAA", "dtype": "i8", "shape": [9]}, {TAG: "array", "v": "!", "dtype": "i8", "shape": [9]},
        {TAG: "image", "v": "AAAA"}, {TAG: "datetime", "v": 5}, {TAG: "datetime", "v": "2026-01-01", "zone": "../x"},
        {TAG: "yours", "id": 1, "realm": "here"}, {TAG: "yours"}, {TAG: "theirs"}, {TAG: "range", "v": []},
        {TAG: "set", "v": 3}, {TAG: "set", "v": [[1]]}, {TAG: "decimal", "v": "x"}, {TAG: "frame"}, {TAG: "bytes", "v": 1},
    ],
)  # fmt: skip
def test_malformed_data_is_a_value_error_and_nothing_else(data: Any) -> None:
    with pytest.raises(ValueError):
        Codec("here").decode([data])


@given(st.recursive(st.none() | st.integers() | st.text(), lambda i: st.lists(i) | st.dictionaries(
    st.sampled_from([TAG, "v", "dtype", "shape", "id", "realm", "zone", "columns", "index"]),
    i | st.sampled_from(["array", "int", "tuple", "scalar", "objects", "image", "theirs", "yours", "time"])), max_leaves=8))  # fmt: skip
def test_forged_data_never_does_worse_than_a_value_error(data: Any) -> None:
    with contextlib.suppress(ValueError):
        Codec("here").decode(data)
