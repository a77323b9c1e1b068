"""Requests to a service that allows so many a time: in turn, for all tools, threads and processes of a user.

Never: two that go at once; a wait without end, or for one that was killed; a call that fails because of the disk.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from ml_intern.tools import ArxivSearchTool, PaperGraphTool, PaperReadTool, SemanticScholarSearchTool

from ml_intern.testing import LocalArxiv, LocalScholar

TAKES = """
import sys, time
from ml_intern.tools import ArxivSearchTool
tool = ArxivSearchTool()
for _ in range(5):
    print(time.time() + tool._turn("somewhere", 0.5, 3600.0))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "service_turns"


def apart(times: list[float]) -> float:
    times = sorted(times)
    return min(after - before for before, after in itertools.pairwise(times))


@pytest.mark.long
def test_turns_of_many_processes_lie_apart(folder) -> None:
    running = [subprocess.Popen([sys.executable, "-c", TAKES], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    times = [float(line) for process in running for line in process.communicate(timeout=60)[0].split()]
    assert len(times) == 20 and apart(times) > 0.4  # 0.5, less what passes between two looks at the clock
    assert max(times) - min(times) < 19 * 0.5 + 0.5  # and no turn is left out


def test_turns_of_many_threads_and_tools_lie_apart(folder) -> None:
    tools, times = [ArxivSearchTool(), PaperGraphTool(), PaperReadTool(), SemanticScholarSearchTool()], []

    def take(tool) -> None:
        times.extend(time.time() + tool._turn("somewhere", 0.5, 3600.0) for _ in range(5))

    threads = [threading.Thread(target=take, args=(tool,)) for tool in tools]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(times) == 20 and apart(times) > 0.4  # 0.5, less what passes between two looks at the clock


def test_services_have_turns_of_their_own_and_none_is_due_to_what_was_long_ago(folder) -> None:
    tool = ArxivSearchTool()
    assert tool._turn("one", 3.0, 9.0) == tool._turn("other", 3.0, 9.0) == 0.0
    assert 2.5 < tool._turn("one", 3.0, 9.0) <= 3.0
    (folder / "one").write_text(str(time.time() - 5))
    assert tool._turn("one", 3.0, 9.0) == 0.0


def test_a_turn_that_is_too_far_away_is_said_and_not_taken(folder) -> None:
    tool = ArxivSearchTool()
    tool._turn("somewhere", 60.0, 1.0)
    for _ in range(3):
        with pytest.raises(
            ConnectionError, match=r"somewhere takes a request every 60 s.*wait for (59|60) s.*Try again"
        ):
            tool._turn("somewhere", 60.0, 10.0)


@pytest.mark.parametrize("held", ["nonsense", "", "-1", "1e400", "9" * 300, "99999999999.5"])
def test_a_file_that_holds_nonsense_or_a_clock_that_was_set_back_is_no_wait(folder, held: str) -> None:
    folder.mkdir(parents=True)
    (folder / "somewhere").write_text(held)
    tool = ArxivSearchTool()
    assert tool._turn("somewhere", 0.5, 9.0) == 0.0
    assert 0.3 < tool._turn("somewhere", 0.5, 9.0) <= 0.5


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_killed_or_stopped_while_it_takes_a_turn_holds_up_nobody(folder, signal_number) -> None:
    folder.mkdir(parents=True)
    holds = f"""
        import fcntl, time
        file = open({str(folder / "somewhere")!r}, "a+")
        fcntl.flock(file, fcntl.LOCK_EX)
        print("held", flush=True)
        time.sleep(60)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(holds)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    os.kill(holder.pid, signal_number)
    began = time.monotonic()
    assert ArxivSearchTool()._turn("somewhere", 1.0, 9.0) <= 1.0
    assert time.monotonic() - began < 2.0
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()


def test_a_disk_that_cannot_be_used_costs_a_pause_and_no_failure(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert ArxivSearchTool()._turn("somewhere", 0.25, 9.0) == 0.25


def test_two_tools_of_semantic_scholar_share_its_turns(folder, tmp_path, monkeypatch) -> None:
    with LocalScholar(tmp_path / "scholar") as scholar:
        # This machine's own services need no turns: by this address it is not taken for one.
        monkeypatch.setenv("SEMANTIC_SCHOLAR_API_URL", scholar.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"))
        began = time.monotonic()
        for call in (
            lambda: SemanticScholarSearchTool()(query="a thing"),
            lambda: SemanticScholarSearchTool()(query="another thing"),
            lambda: PaperGraphTool()(relation="snippets", query="a third thing"),
        ):
            try:
                call()
            except (ConnectionError, FileNotFoundError) as error:
                assert "could not be reached" not in str(error)
        assert len(scholar.requests) >= 3 and time.monotonic() - began >= 2.0
        assert (folder / "Semantic Scholar").exists()


def test_two_tools_of_arxiv_share_its_turns(folder, tmp_path, monkeypatch) -> None:
    with LocalArxiv(tmp_path / "arxiv") as arxiv:
        monkeypatch.setenv(
            "ARXIV_API_URL", arxiv.environment()["ARXIV_API_URL"].replace("127.0.0.1", "[::ffff:127.0.0.1]")
        )
        began = time.monotonic()
        for query in ("a thing", "another thing"):
            ArxivSearchTool()(query=query)
        assert len(arxiv.requests) == 2 and time.monotonic() - began >= 3.0
