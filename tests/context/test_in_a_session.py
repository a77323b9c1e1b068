"""In a session: compactions are told of, stand in the trace as readers know them, cost what they cost; notes and plan stay."""

from __future__ import annotations

import io
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest
from conversations import WindowedModel, text_of

from ml_intern import MLIntern, State
from ml_intern.cli.paper import Paper
from ml_intern.cli.render import Renderer
from ml_intern.context import Fill
from ml_intern.events import Compacted, Event, StepFinished, Warned
from ml_intern.session_tools import Desk
from ml_intern.testing import ScriptedModel
from ml_intern.testing.recording import read_turns
from ml_intern.trace import compaction_of, last_end, read_rows


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


class Paid(WindowedModel):
    def price(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        return 0.001


class Working(Paid):
    """Plans, notes, prints, and answers after so many steps."""

    def __init__(self, window: int, steps: int) -> None:
        super().__init__(window, self._next)
        self.steps = steps

    def _next(self, call: int, messages: list[Any]) -> str:
        if call == 0:
            return code(
                "plan(items=[{'text': 'measure', 'status': 'in_progress'}, 'publish'])\nnotes(add='seed 1234')"
            )
        if call % self.steps == self.steps - 1:
            return code("final_answer('done')")
        return code(f"print('result {call} ' * 400)", "I think about it. " * 30)


@pytest.fixture
def make(home: Path):
    made: list[MLIntern] = []

    def build(model: Any, **options: Any) -> tuple[MLIntern, list[Event]]:
        events: list[Event] = []
        intern = MLIntern(model, home=home, tools=[], on_event=events.append, **options)
        made.append(intern)
        return intern, events

    yield build
    for intern in made:
        intern.close()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_compactions_are_events_rows_and_money(make) -> None:
    model = Working(12_000, 45)
    intern, events = make(model)
    assert intern.run("Measure it.") == "done" and model.refused == 0
    told = [event for event in events if isinstance(event, Compacted)]
    summaries = [event for event in told if event.how == "summary"]
    assert len(summaries) >= 2 and {event.how for event in told} >= {"mask", "summary"}
    first = summaries[0]
    assert first.why == "fill" and first.after <= 0.8 * first.before and first.last >= 3 and first.cost_usd == 0.001
    usage = intern.session().outcome.usage
    assert usage.cost_usd == pytest.approx(0.001 * (45 + len(summaries)))
    rows = list(read_rows(intern.session().trace))
    boundaries = [i for i, row in enumerate(rows) if row.get("subtype") == "compact_boundary"]
    assert len(boundaries) == len(summaries)
    by_id = {row["uuid"]: row for row in rows if "uuid" in row}
    for place, event in zip(boundaries, summaries, strict=True):
        boundary, said, before = rows[place], rows[place + 1], rows[place - 1]
        assert boundary["parentUuid"] is None and boundary["logicalParentUuid"] in by_id
        assert (
            boundary["compactMetadata"]["trigger"] == "auto"
            and boundary["compactMetadata"]["preTokens"] == event.before
        )
        assert said["isCompactSummary"] and said["parentUuid"] == boundary["uuid"]
        assert "Goal: as the user says" in said["message"]["content"] and "seed 1234" in said["message"]["content"]
        assert (
            before["stepKind"] == "compaction"
            and before["costUsd"] == 0.001
            and before["message"]["usage"]["output_tokens"]
        )
        assert compaction_of(boundary).start == event.last
    assert len([row for row in rows if (row.get("data") or {}).get("kind") == "masked"]) == len(told) - len(summaries)
    assert "result 3 " in str(rows), "what is no longer shown is on record"

    turns = read_turns(intern.session().trace)
    assert len(turns) == 45 + len(summaries) and not any("being continued" in turn.observation for turn in turns)


def test_plan_and_notes_are_in_the_prompt_after_a_compaction_in_files_and_in_the_trace(make) -> None:
    intern, _ = make(Working(12_000, 45))
    intern.run("Measure it.")
    session = intern.session()
    shown = text_of(session.agent.context.render(session.agent.memory))
    assert "- [>] measure" in shown and "- seed 1234" in shown and "Measure it." in shown
    folder = session.workspace.parent
    assert (folder / "notes.md").read_text() == "- seed 1234\n" and "- [>] measure" in (folder / "plan.md").read_text()
    rows = list(read_rows(session.trace))
    assert (
        Desk.of(rows)
        == session.desk
        == Desk(
            ({"text": "measure", "status": "in_progress"}, {"text": "publish", "status": "pending"}), ("seed 1234",)
        )
    )
    planned = next(i for i, row in enumerate(rows) if "tool_result" in str(row.get("message")))
    assert Desk.of(rows[: planned + 1]).notes == (), "at a row before, as it was there"


def test_notes_are_added_tidied_and_returned_and_failed_calls_leave_no_trace_in_them(make) -> None:
    script = [
        code("notes(add='one')\nnotes(add=' two ')\nprint(notes())"),
        code("notes(add='x', replace='y')"),
        code("print(notes(replace='a\\n\\nb'))"),
        code("final_answer(notes())"),
    ]
    intern, events = make(ScriptedModel(script))
    assert intern.run("Go.") == ["a", "b"]
    seen = [event for event in events if isinstance(event, StepFinished)]
    assert "['one', 'two']" in seen[0].observation and "not both" in seen[1].error
    assert Desk.of(read_rows(intern.session().trace)).notes == ("a", "b")


def test_asked_to_compact_it_does_so_at_once_where_nothing_runs_and_the_turn_stays_ended(make) -> None:
    intern, events = make(Working(100_000, 8))
    intern.run("Measure it.")
    intern.compact(focus="the seed")
    until(lambda: any(isinstance(event, Compacted) for event in events))
    told = next(event for event in events if isinstance(event, Compacted))
    assert told.why == "asked" and told.how == "summary" and told.after < told.before
    until(lambda: last_end(intern.session().trace) is not None)
    row = next(row for row in read_rows(intern.session().trace) if row.get("subtype") == "compact_boundary")
    assert row["compactMetadata"]["trigger"] == "manual"
    assert last_end(intern.session().trace).state == State.SUCCESS


def test_where_there_is_nothing_to_compact_it_says_so(make) -> None:
    intern, events = make(ScriptedModel([code("final_answer(1)")]))
    intern.run("Go.")
    intern.session().agent.memory.steps = intern.session().agent.memory.steps[:1]
    intern.compact()
    until(lambda: any(isinstance(event, Warned) and "nothing to compact" in event.text for event in events))


def test_asked_while_it_runs_it_compacts_before_the_next_step(make) -> None:
    intern, events = make(None or Working(100_000, 10))
    asked: list[bool] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepFinished) and event.step == 6 and not asked:
            asked.append(True)
            intern.session().compact("")

    intern.on_event = listen
    assert intern.run("Measure it.") == "done"
    kinds = [event.kind for event in events if event.kind in ("compacted", "step_finished")]
    assert kinds[6] == "compacted" and kinds.count("compacted") == 1


def test_what_fills_the_window_adds_up(make) -> None:
    intern, _ = make(Working(100_000, 8))
    intern.run("Measure it.")
    fill = intern.session().context()
    assert isinstance(fill, Fill) and min(fill.system, fill.user, fill.said, fill.seen) > 0 and fill.before == 0
    context = intern.session().agent.context
    assert abs(fill.used - context.count(intern.session().agent.memory)) <= 0.05 * fill.used
    assert fill.limit == 75_000


def test_a_summary_that_fails_does_not_end_the_turn(make) -> None:
    model = Working(12_000, 45)

    def fails(messages: list[Any]) -> str:
        raise RuntimeError("503")

    model.summarise = fails
    intern, events = make(model)
    assert intern.run("Measure it.") == "done"
    told = [event for event in events if isinstance(event, Compacted) and event.how != "mask"]
    assert told and {event.how for event in told} <= {"mechanical", "hard"}
    assert "step:" in told[0].summary


@pytest.mark.parametrize(
    ("how", "cost", "line"),
    [
        ("summary", 0.25, "≈ context: steps 1 to 40 summarised, 170k to 45.1k tokens, $0.25"),
        ("summary", None, "≈ context: steps 1 to 40 summarised, 170k to 45.1k tokens, cost unknown"),
        ("mask", None, "≈ context: outputs of steps 1 to 40 folded away, 170k to 45.1k tokens"),
        ("hard", None, "≈ context: steps 1 to 40 cut short, 170k to 45.1k tokens"),
    ],
)
def test_a_person_reads_of_it_in_one_line(how: str, cost: float | None, line: str) -> None:
    file = io.StringIO()
    Renderer(Paper(file, 100, False)).show(
        Compacted(how=how, why="fill", before=170_020, after=45_100, first=1, last=40, cost_usd=cost)
    )
    assert file.getvalue().strip() == line and file.getvalue().count("\n") == 1


@pytest.mark.long
def test_the_strict_reader_takes_a_compacted_trace_and_shows_what_was_before(make, tmp_path: Path) -> None:
    intern, _ = make(Working(12_000, 45))
    intern.run("Measure it.")
    reader, page = Path(sysconfig.get_path("scripts")) / "claude-code-log", tmp_path / "page.html"
    command = [str(reader), str(intern.session().trace), "--depth", "hook", "-o", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert [line.split()[0] for line in said] == ["Processing", "Successfully"], said
    text = page.read_text()
    assert "result 3 " in text and "Conversation compacted" in text and "being continued" in text
