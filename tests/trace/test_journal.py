from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_intern.errors import InternError, JournalFailed
from ml_intern.plain import plain
from ml_intern.secrets import Masker
from ml_intern.trace import Journal, last_end, read_rows
from ml_intern.trace.bundle import whole_lines

NAME = "11111111-2222-4333-8444-555555555555.jsonl"


@pytest.fixture
def journal(tmp_path: Path):
    journal = Journal(tmp_path / NAME, masker=Masker({"very-secret-value": "MY_TOKEN"}))
    yield journal
    journal.close()


def test_rows_form_one_chain_with_the_envelope_that_readers_want(journal: Journal) -> None:
    first = journal.user("hello")
    journal.note("aside", x=1)
    second = journal.call("call_1", "tool", {"a": 1}, "some/model")
    rows = list(read_rows(journal.path))
    assert [row["type"] for row in rows] == ["user", "progress", "assistant"]
    assert rows[0]["parentUuid"] is None
    assert [row["parentUuid"] for row in rows] == [None, first, rows[1]["uuid"]]
    assert rows[2]["uuid"] == second
    assert rows[1]["data"] == {"type": "ml_intern", "kind": "aside", "x": 1}
    for row in rows:
        assert row["sessionId"] == journal.session_id == NAME.removesuffix(".jsonl")
        assert {"cwd", "version", "userType", "isSidechain"} <= row.keys()
        assert row["timestamp"].endswith("Z") and len(row["timestamp"]) == 24
    assert "usage" not in rows[2]["message"]


def test_no_secret_reaches_the_disk(journal: Journal) -> None:
    journal.user("the very-secret-value here")
    journal.call("call_1", "tool", {"key": ["very-secret-value"]}, "m")
    journal.result("call_1", "x" * 300_000 + "very-secret-value")
    journal.title("about very-secret-value")
    for path in [journal.path, *journal.artifacts.iterdir()]:
        assert b"very-secret-value" not in path.read_bytes()
        assert b"[secret:MY_TOKEN]" in path.read_bytes()


def test_a_long_text_goes_to_a_file_named_by_its_digest(journal: Journal) -> None:
    text = "".join(f"line {i}\n" for i in range(50_000))
    journal.result("call_1", text)
    (row,) = read_rows(journal.path)
    shown = row["message"]["content"][0]["content"]
    (artifact,) = journal.artifacts.iterdir()
    assert artifact.read_text() == text
    assert artifact.name in shown and shown.startswith("line 0\n") and shown.endswith("line 49999\n")
    assert len(shown) < len(text) / 2


WEIRD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=5)
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=8,
)


@pytest.mark.long
@settings(max_examples=200)
@given(WEIRD)
def test_whatever_a_call_holds_is_one_ascii_line_that_every_reader_takes(value) -> None:
    from ml_intern.trace import rows

    line = rows.line({"value": plain(value)})
    assert line.isascii() and line.count(b"\n") == 1 and line.endswith(b"\n")

    def check(item) -> None:
        if isinstance(item, int) and not isinstance(item, bool):
            assert -(2**63) <= item < 2**63
        if isinstance(item, str):
            item.encode("utf-8")  # no lone surrogate
        for part in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
            check(part)

    check(json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in JSON")))


def test_what_cannot_be_described_is_said_to() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert plain(Broken()) == "<Broken: its repr failed with RuntimeError>"
    assert plain(math.inf) == "inf"
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    assert "..." in json.dumps(plain(deep))


@pytest.mark.long
def test_a_full_disk_leaves_whole_lines_and_a_clear_error(tmp_path: Path) -> None:
    program = f"""
import resource
from pathlib import Path
from ml_intern.errors import JournalFailed
from ml_intern.trace import Journal
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(tmp_path / NAME)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
written = 0
try:
    for i in range(1000):
        journal.user("x" * 900)
        written += 1
except JournalFailed as error:
    print(written, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    written, message = done.stdout.split(" ", 1)
    assert "Cannot write the journal" in message and "Free space" in message
    data = (tmp_path / NAME).read_bytes()
    assert data.endswith(b"\n") and len(list(read_rows(tmp_path / NAME))) == data.count(b"\n") == int(written) > 5


def test_a_second_process_is_told_who_holds_the_session(journal: Journal) -> None:
    with pytest.raises(InternError, match="open in another process"):
        Journal(journal.path)


def test_rows_of_many_threads_stay_whole_and_in_one_chain(journal: Journal) -> None:
    def write(name: int) -> None:
        for i in range(100):
            journal.user(f"{name} {i} " + "y" * 2_000)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = list(read_rows(journal.path))
    assert len(rows) == 800
    assert [row["parentUuid"] for row in rows] == [None, *(row["uuid"] for row in rows[:-1])]


def test_rows_that_belong_together_reach_the_kernel_in_one_write(journal: Journal) -> None:
    def others() -> None:
        for i in range(100):
            journal.user(f"other {i}")

    journal.user("before")
    before = journal.path.stat().st_size
    with journal.together():
        journal.user("one")
        thread = threading.Thread(target=others)
        thread.start()
        with journal.together():
            journal.note("two")
        journal.title("A title")
        assert journal.path.stat().st_size == before
    thread.join()
    rows = list(read_rows(journal.path))
    assert [row["type"] for row in rows[:5]] == ["user", "user", "progress", "ai-title", "user"] and len(rows) == 104
    chain = [row for row in rows if "uuid" in row]
    assert [row["parentUuid"] for row in chain] == [None, *(row["uuid"] for row in chain[:-1])]


@pytest.mark.long
def test_of_rows_that_belong_together_a_full_disk_leaves_none(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
from ml_intern.errors import JournalFailed
from ml_intern.trace import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(tmp_path / NAME)!r}))
journal.user("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with journal.together():
        journal.user("x" * 15_000)
        journal.user("x" * 15_000)
except JournalFailed:
    journal.user("after")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    first, second = read_rows(tmp_path / NAME)
    assert second["parentUuid"] == first["uuid"] and second["message"]["content"] == "after"


def test_sync_waits_for_the_disk_only_when_there_is_something_new(journal: Journal, tmp_path: Path) -> None:
    journal.user("one")
    journal.sync()
    os.close(journal._file)  # from here on any call to the system fails
    journal.sync()
    with pytest.raises(JournalFailed):
        journal.user("two")
    journal._file = os.open(journal.path, os.O_WRONLY | os.O_APPEND)


@given(st.binary(max_size=400))
def test_a_spoilt_file_gives_what_can_be_read(tail: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / NAME)
        journal.user("kept")
        journal.close()
        with journal.path.open("ab") as file:
            file.write(tail)
        rows = list(read_rows(journal.path))
        assert rows[0]["message"]["content"] == "kept"


def test_the_end_on_record_is_that_of_the_last_turn(journal: Journal) -> None:
    journal.user("task")
    assert last_end(journal.path) is None
    journal.note("end", state="success", reason="")
    assert last_end(journal.path).state == "success"
    journal.user("another")
    assert last_end(journal.path) is None


@pytest.mark.parametrize(("data", "kept"), [(b"", b""), (b"{}\n", b"{}\n"), (b'{}\n{"a', b"{}\n"), (b"torn", b"")])
def test_only_whole_lines_are_shared(data: bytes, kept: bytes) -> None:
    assert whole_lines(data) == kept
