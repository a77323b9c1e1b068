"""One thread waits for pipes and times of any number. Never: what has come is missed; a thread is left where nobody waits."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest

from ml_intern import lookout


def until(condition, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.005)


def looks() -> int:
    return sum(thread.name == "ml-intern-lookout" for thread in threading.enumerate())


@pytest.fixture
def pipe():
    reads, writes = os.pipe()
    yield reads, writes
    for handle in (reads, writes):
        with contextlib.suppress(OSError):
            os.close(handle)


def test_what_comes_is_told_once(pipe) -> None:
    told: list[str] = []
    lookout.watch([pipe[0]], None, lambda: told.append("pipe"))
    assert told == [] and looks() == 1
    os.write(pipe[1], b"x")
    until(lambda: told)
    os.write(pipe[1], b"x")
    until(lambda: not looks())
    assert told == ["pipe"]


def test_what_came_before_anybody_looked_is_not_missed(pipe) -> None:
    told: list[str] = []
    os.write(pipe[1], b"x")
    lookout.watch([pipe[0]], None, lambda: told.append("pipe"))
    until(lambda: told)


def test_times_come_in_their_order_also_where_a_nearer_one_is_added(pipe) -> None:
    told: list[str] = []
    now = time.monotonic()
    lookout.watch([pipe[0]], now + 0.4, lambda: told.append("later"))
    lookout.watch([], now + 0.1, lambda: told.append("sooner"))
    lookout.watch([], now - 1.0, lambda: told.append("past"))
    until(lambda: len(told) == 3)
    assert told == ["past", "sooner", "later"]


def test_what_is_forgotten_is_not_told_and_no_thread_is_left(pipe) -> None:
    told: list[str] = []
    watched = lookout.watch([pipe[0]], time.monotonic() + 0.3, lambda: told.append("pipe"))
    lookout.forget(watched)
    lookout.forget(watched)
    until(lambda: not looks())
    os.write(pipe[1], b"x")
    time.sleep(0.4)
    assert told == []


def test_a_caller_that_fails_holds_up_nobody(pipe, caplog) -> None:
    told: list[str] = []
    lookout.watch([pipe[0]], None, lambda: 1 / 0)
    lookout.watch([pipe[0]], None, lambda: told.append("pipe"))
    os.write(pipe[1], b"x")
    until(lambda: told)
    assert "could not be told" in caplog.text


def test_a_pipe_that_is_closed_or_ends_has_come() -> None:
    told: list[str] = []
    reads, writes = os.pipe()
    lookout.watch([reads], None, lambda: told.append("ended"))
    os.close(writes)
    until(lambda: told == ["ended"])
    waits = lookout.watch([], time.monotonic() + 60.0, lambda: None)  # so that its own pipe is not given that number
    os.close(reads)
    lookout.watch([reads], None, lambda: told.append("closed"))
    until(lambda: told == ["ended", "closed"])
    lookout.forget(waits)


def test_a_thousand_wait_on_one_thread() -> None:
    told: list[int] = []
    pipes = [os.pipe() for _ in range(300)]
    for n, (reads, _) in enumerate(pipes):
        lookout.watch([reads], time.monotonic() + 60.0, lambda n=n: told.append(n))
    for n in range(700):
        lookout.watch([], time.monotonic() + 0.2, lambda n=n: told.append(300 + n))
    assert looks() == 1
    for _, writes in pipes:
        os.write(writes, b"x")
    until(lambda: sorted(told) == list(range(1000)))
    for pair in pipes:
        for handle in pair:
            os.close(handle)
    until(lambda: not looks())


def test_many_threads_watch_and_forget_at_once() -> None:
    told: list[int] = []

    def work(n: int) -> None:
        for _ in range(50):
            lookout.forget(lookout.watch([], time.monotonic() + 60.0, lambda: told.append(-1)))
            lookout.watch([], time.monotonic() + 0.001, lambda: told.append(n))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(told) == 400)
    assert -1 not in told
    until(lambda: not looks())
