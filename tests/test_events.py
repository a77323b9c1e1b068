from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from ml_intern.errors import Denied, InternError, SettingsError
from ml_intern.events import ApprovalAnswer, Event, EventLog, StepStarted, ToolCalled, Warned
from ml_intern.settings import Settings


def test_events_of_many_threads_come_in_one_order_to_every_listener() -> None:
    log, early, late = EventLog("s"), [], []
    log.listen(early.append)
    threads = [threading.Thread(target=lambda: [log.emit(Warned(text="x")) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.listen(late.append, since=390)
    assert [event.seq for event in early] == list(range(1, 401))
    assert [event.seq for event in late] == list(range(391, 401))
    assert {event.session_id for event in early} == {"s"}


def test_a_listener_that_fails_is_dropped_with_the_reason_and_the_others_hear_on() -> None:
    log, heard = EventLog("s"), []

    def broken(event: Event) -> None:
        raise BrokenPipeError("gone")

    log.listen(broken)
    log.listen(heard.append)
    log.emit(StepStarted(step=1))
    log.emit(StepStarted(step=2))
    assert [event.step for event in heard] == [1, 2]
    assert len(log.dropped) == 1 and "gone" in log.dropped[0]


def test_an_event_is_one_ascii_line_named_after_its_class() -> None:
    line = ToolCalled(step=1, call_id="c", tool="look", arguments={"wo": "Köln\u2028", "x": Path("/a")}).to_json()
    assert line.isascii() and "\n" not in line
    assert json.loads(line)["event"] == "tool_called" and json.loads(line)["arguments"]["wo"] == "Köln\u2028"


def test_an_answer_is_one_of_four_words() -> None:
    with pytest.raises(ValueError, match="approve, edit, reject, stop"):
        ApprovalAnswer("maybe")


def test_errors_for_people_say_what_why_and_what_next() -> None:
    error = InternError("It broke", "disk full", "Free space.")
    assert str(error) == "It broke (disk full)\nFree space."
    assert isinstance(Denied("no"), PermissionError) and isinstance(SettingsError("x"), InternError)


def test_settings_come_from_the_environment_and_an_argument_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ML_INTERN_HOME", str(tmp_path / "a"))
    monkeypatch.setenv("LLM_ENDPOINT", "claude-x")
    monkeypatch.setenv("ML_INTERN_MEMORY_GB", "")
    settings = Settings.load()
    assert settings.home == tmp_path / "a" and settings.llm_endpoint == "claude-x" and settings.memory_gb == 8
    assert Settings.load(tmp_path / "b").sessions() == tmp_path / "b" / "sessions"
    assert (tmp_path / "b" / "sessions").stat().st_mode & 0o777 == 0o700
