"""The watch over jobs: everything told once, whatever a service or a listener does."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest

from ml_intern import job_watch
from ml_intern.job_watch import JobWatch, Look


@pytest.fixture
def watch():
    made = JobWatch()
    made.news = []
    made.tell = made.news.append
    yield made
    made.close()


def until(condition, seconds=10.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.01)


def nan(state="running"):
    return Look(state, [{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("nan")}])


def kinds(watch):
    return [(news.job_id, news.kind) for news in watch.news]


def test_a_finding_and_an_end_are_told_once_by_whoever_looks(watch):
    looks = [Look("running"), nan(), nan(), nan(), Look("done", text="It is done."), Look("done")]
    watch.follow("a", "train", lambda: looks.pop(0) if len(looks) > 1 else looks[0], None, 0.01)
    for _ in range(20):
        watch.seen("a", nan())
    until(lambda: ("a", "ended") in kinds(watch))
    watch.seen("a", Look("done"))
    watch.follow("a", "train", lambda: Look("done"), None, 0.01)
    time.sleep(0.1)
    assert sorted(kinds(watch)) == [("a", "ended"), ("a", "nan")]
    assert watch.news[0].serious and watch.news[-1].text == "It is done." and watch.running() == []


def test_what_is_asked_for_or_waited_for_is_known(watch):
    watch.follow("a", "", lambda: Look("running"), None, 60)
    watch.seen("a", nan())
    assert watch.news[0].known
    watch.follow("b", "", nan, None, 0.01)
    until(lambda: ("b", "nan") in kinds(watch))
    assert not watch.news[1].known
    watch.attend("c", 1)
    watch.follow("c", "", nan, None, 0.01)
    until(lambda: ("c", "nan") in kinds(watch))
    assert watch.news[2].known


def test_a_service_that_is_away_takes_nobody_down_and_is_asked_less_often(watch, monkeypatch):
    monkeypatch.setattr(job_watch, "FAILED_LOOKS", 5)
    asked = []

    def away():
        asked.append(time.monotonic())
        raise ConnectionError("it is away")

    watch.follow("away", "", away, None, 0.02)
    watch.follow("there", "", lambda: Look("done"), None, 0.02)
    until(lambda: ("there", "ended") in kinds(watch) and ("away", "unwatched") in kinds(watch))
    pauses = [after - before for before, after in pairwise(asked)]
    assert len(asked) == 5 and pauses[-1] > 2 * 0.02
    time.sleep(0.2)
    assert len(asked) == 5


def test_a_listener_that_fails_does_not_end_the_watch(watch):
    heard = []

    def tell(news):
        heard.append(news.job_id)
        raise RuntimeError("a broken listener")

    watch.tell = tell
    watch.follow("a", "", lambda: Look("done"), None, 0.01)
    watch.follow("b", "", lambda: Look("done"), None, 0.01)
    until(lambda: sorted(heard) == ["a", "b"])


def test_it_is_stopped_only_where_a_rule_allows_and_a_stop_that_fails_is_told(watch):
    stopped = []
    watch.may_stop = lambda news: news.job_id != "kept"

    def fails():
        raise ConnectionError("no answer")

    watch.follow("kept", "", nan, lambda: stopped.append("kept"), 0.01)
    watch.follow("ended", "", nan, lambda: stopped.append("ended"), 0.01)
    watch.follow("stuck", "", nan, fails, 0.01)
    until(lambda: len(watch.news) == 4)
    by_job = {news.job_id: news for news in watch.news if news.kind == "nan"}
    assert stopped == ["ended"] and by_job["ended"].stopped and by_job["ended"].state == "stopped"
    assert not by_job["kept"].stopped and not by_job["stuck"].stopped
    # The agent hears of what is serious, in this program's words; what a service says is for people.
    assert by_job["stuck"].serious and "that failed" in by_job["stuck"].text
    (why,) = [news for news in watch.news if "no answer" in news.text]
    assert (why.job_id, why.kind, why.serious) == ("stuck", "unstopped", False)


def test_closed_it_tells_nothing_and_leaves_no_thread(watch):
    watch.follow("a", "", lambda: Look("running"), None, 0.01)
    until(lambda: any(thread.name == "ml-intern-jobs" for thread in threading.enumerate()))
    watch.close()
    watch.seen("a", nan())
    until(lambda: not any(thread.name == "ml-intern-jobs" for thread in threading.enumerate()))
    assert watch.news == []


def test_what_comes_at_an_end_comes_once(watch):
    counted, threads = [], []
    for _ in range(8):
        threads.append(threading.Thread(target=lambda: counted.append(watch.first("a"))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == [False] * 7 + [True]
