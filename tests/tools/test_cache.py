"""The cache that reading tools share."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ml_intern.tools import GithubCodeTool


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return GithubCodeTool()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "github_code"


def key(tool, address="https://a", token="hf_1", *asked):
    return tool._cache_key(address, token, *asked)


def test_an_answer_comes_back_with_its_age_and_as_a_copy(tool):
    tool._cache(key(tool), {"rows": [1, "é\n"]}, b"a\nb\0")
    kept = tool._cached(key(tool), 60)
    assert (kept["data"], kept["body"]) == ({"rows": [1, "é\n"]}, b"a\nb\0")
    assert 0 <= kept["age"] < 60
    kept["data"]["rows"].clear()
    assert tool._cached(key(tool), 60)["data"]["rows"] == [1, "é\n"]
    assert GithubCodeTool()._cached(key(tool), 60)["body"] == b"a\nb\0"


def test_nobody_sees_what_was_fetched_for_another_or_elsewhere(tool, folder):
    names = {
        key(tool), key(tool, token="hf_2"), key(tool, token=None), key(tool, "https://b"), key(tool, "https://a", "hf_1", {"a": 1}),
        key(tool, "https://a", "hf_1", {"a": 2}),
    }  # fmt: skip
    assert len(names) == 6
    assert key(tool, "u", None, {"a": 1, "b": 2}) == key(tool, "u", "", {"b": 2, "a": 1})
    tool._cache(key(tool), 1)
    assert tool._cached(key(tool, token="hf_2"), 60) is None
    assert "hf_1" not in " ".join(one.name + one.read_text() for one in folder.iterdir())


def test_what_is_old_or_of_the_future_is_no_answer(tool, folder):
    tool._cache(key(tool), 1)
    assert tool._cached(key(tool), 0) is None
    assert tool._cached(key(tool), float("inf"))["data"] == 1
    held = json.dumps({"time": time.time() + 1000, "data": 1}).encode() + b"\n"
    from zlib import crc32

    (folder / key(tool)).write_bytes(b"%08x\n" % crc32(held) + held)
    assert tool._cached(key(tool), float("inf")) is None


def test_it_is_this_users_alone(tool, folder):
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    tool._cache(key(tool), 1)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [one.stat().st_mode & 0o777 for one in folder.iterdir()] == [0o600]


def test_a_damaged_answer_is_none(tool, folder):
    tool._cache(key(tool), {"rows": [1, 2]}, b"body" * 100)
    whole = (folder / key(tool)).read_bytes()
    for damaged in (b"", b"\n", whole[:-1], whole[:9], whole.replace(b"1", b"3"), b"\x80" + whole, b"00000000\n{}"):
        (folder / key(tool)).write_bytes(damaged)
        assert tool._cached(key(tool), 60) is None
    (folder / key(tool)).unlink()
    (folder / key(tool)).mkdir()
    assert tool._cached(key(tool), 60) is None
    tool._cache(key(tool), 1)


def test_a_disk_that_cannot_be_used_is_no_cache_and_no_error(tool, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", Path("/proc/nowhere")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        tool._cache(key(tool), 1)
        assert tool._cached(key(tool), 60) is None


def test_a_relative_folder_does_not_count_and_no_home_is_none(tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    tool._cache(key(tool), 1)
    assert tool._cached(key(tool), 60)["data"] == 1
    assert (tmp_path / "home" / ".cache" / "github_code" / key(tool)).exists()
    assert not (tmp_path / "caches").exists()


def test_it_stays_small(tool, folder, tmp_path):
    for number in range(303):
        tool._cache(key(tool, str(number)), number)
        os.utime(folder / key(tool, str(number)), (number, number))
    tool._cache(key(tool), 1)
    assert len(list(folder.iterdir())) == 300
    assert [tool._cached(key(tool, str(number)), 60) is None for number in range(5)] == [True] * 4 + [False]
    tool._cache(key(tool, "large"), 1, bytes(64_000_001))
    assert tool._cached(key(tool, "large"), 60) is None
    for number in range(3):  # sparse: what counts is the size
        with (folder / f"old{number}").open("wb") as file:
            file.truncate(45_000_000)
        os.utime(folder / f"old{number}", (number, number))
    tool._cache(key(tool, "one more"), 1)
    assert not (folder / "old0").exists()
    assert sum(one.stat().st_size for one in folder.iterdir()) <= 100_000_000
    assert tool._cached(key(tool, "one more"), 60)


KILLED = """
import os, sys
from pathlib import Path
from ml_intern.tools import GithubCodeTool
tool = GithubCodeTool()
tool._cache("a", 1)
print(flush=True)
while True:
    tool._cache("a", 2, os.urandom(3_000_000))
"""


@pytest.mark.long
def test_whoever_is_killed_while_writing_leaves_no_half_answer(tool, folder):
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.1)
    process.kill()
    process.wait()
    process.stdout.close()
    assert tool._cached("a", 60)["data"] in (1, 2)
    tool._cache("a", 3)
    assert tool._cached("a", 60)["data"] == 3


def test_it_costs_little(tool):
    """Well below a millisecond to look, and few to keep one among three hundred; with room for a busy machine."""
    for number in range(300):
        tool._cache(key(tool, str(number)), number)
    took = {"keep": [], "look": []}
    for number in range(20):
        started = time.perf_counter()
        tool._cache(key(tool, f"more {number}"), {"rows": ["x" * 100] * 100})
        took["keep"].append(time.perf_counter() - started)
        started = time.perf_counter()
        tool._cached(key(tool, f"more {number}"), 60)
        took["look"].append(time.perf_counter() - started)
    assert min(took["keep"]) < 0.005
    assert min(took["look"]) < 0.001
