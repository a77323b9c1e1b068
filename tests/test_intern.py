"""The facade and its sessions: a task goes in, an outcome and a trace come out, whatever happens in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from smolagents import Tool, tool

from ml_intern import InternError, MLIntern, State
from ml_intern.events import (
    ApprovalAnswer,
    ApprovalAsked,
    Event,
    ModelAnswered,
    PlanChanged,
    SessionEnded,
    SessionStarted,
    ToolCalled,
    ToolReturned,
    Warned,
)
from ml_intern.session import title_of
from ml_intern.testing import LocalE2B, LocalHub, ScriptedModel
from ml_intern.trace import last_end, note_of, read_rows


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


@pytest.fixture
def make(home: Path):
    made: list[MLIntern] = []

    def build(script: list[Any], **options: Any) -> MLIntern:
        intern = MLIntern(ScriptedModel(script), **{"home": home, "tools": [], **options})
        made.append(intern)
        return intern

    yield build
    for intern in made:
        intern.close()


def kinds(path: Path) -> list[str]:
    found = []
    for row in read_rows(path):
        note = note_of(row)
        if note is not None:
            found.append(note["kind"])
            continue
        content = row["message"]["content"] if "message" in row else ""
        blocks = (
            [block.get("name") or block["type"] for block in content]
            if isinstance(content, list)
            else ["prompt"] * bool(content)
        )
        found.append(f"{row['type']}:{'+'.join(blocks)}".removesuffix(":"))
    return found


@tool
def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: One.
        b: Other.
    """
    return a + b


class Publish(Tool):
    name, description, output_type, effects = "publish", "Publishes.", "string", "write"
    inputs = {"what": {"type": "string", "description": "What."}}

    def __init__(self):
        super().__init__()
        self.published: list[str] = []

    def forward(self, what: str) -> str:
        self.published.append(what)
        return f"published {what}"


class Look(Tool):
    name, description, output_type, effects = "look", "Looks.", "object", "read"
    inputs = {"where": {"type": "string", "description": "Where."}}

    def forward(self, where: str) -> dict:
        return {"seen": where}


def test_a_task_ends_in_an_answer_an_outcome_events_and_a_trace(make) -> None:
    events: list[Event] = []
    intern = make(
        [code("r = look(where='here')\nprint(r)"), code("final_answer(r['seen'] + '!')")],
        tools=[Look()],
        on_event=events.append,
    )
    assert intern.run("Look around.") == "here!"
    session = intern.session()
    assert session.outcome.state is State.SUCCESS and session.outcome.steps == 2
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], SessionStarted) and isinstance(events[-1], SessionEnded)
    assert [event.tool for event in events if isinstance(event, ToolCalled)] == ["look", "final_answer"]
    assert sum(isinstance(event, ModelAnswered) for event in events) == 2
    assert kinds(session.trace) == [
        "user:prompt", "worker",
        "assistant:text+python_interpreter", "assistant:look", "user:tool_result", "user:tool_result",
        "assistant:text+python_interpreter", "assistant:final_answer", "user:tool_result", "user:tool_result",
        "assistant:text", "end", "ai-title",
    ]  # fmt: skip
    assert last_end(session.trace).state == "success"


def test_calls_are_recorded_with_their_real_arguments_inside_the_step_that_made_them(make) -> None:
    intern = make([code("for i in range(3):\n    look(where=f'place {i}')"), code("final_answer(1)")], tools=[Look()])
    intern.run("Look thrice.")
    rows = [row for row in read_rows(intern.session().trace) if "message" in row or "data" in row]
    calls = [row for row in rows if row["type"] == "assistant" and row["message"]["content"][-1].get("name") == "look"]
    assert [row["message"]["content"][0]["input"] for row in calls] == [{"where": f"place {i}"} for i in range(3)]
    assert all("usage" not in row["message"] and row["step"] == 1 for row in calls)
    parents = {row["uuid"]: row["parentUuid"] for row in rows}
    assert [parents[row["uuid"]] for row in rows[1:]] == [row["uuid"] for row in rows[:-1]], "one chain"
    asked = {
        b["id"] for r in rows if r["type"] == "assistant" for b in r["message"]["content"] if b["type"] == "tool_use"
    }
    answered = [
        b["tool_use_id"]
        for r in rows
        if r["type"] == "user" and isinstance(r["message"]["content"], list)
        for b in r["message"]["content"]
    ]
    assert sorted(asked) == sorted(answered)


def test_the_answer_is_on_record_before_its_code_runs_and_a_call_before_it_is_made(make, home: Path) -> None:
    """What must never happen: something takes effect that is not on record."""
    seen: dict[str, list[str]] = {}

    class Watch(Tool):
        name, description, output_type, effects = "watch", "Reads the trace.", "string", "write"
        inputs: dict = {}

        def forward(self) -> str:
            (trace,) = (home / "sessions").glob("*.jsonl")
            seen["at the call"] = kinds(trace)
            return "ok"

    intern = make(
        [code("watch()"), code("final_answer(1)")],
        tools=[Watch()],
        on_approval=lambda request: ApprovalAnswer("approve", by="test"),
    )
    intern.run("Watch.")
    assert seen["at the call"][-4:] == [
        "assistant:text+python_interpreter",
        "assistant:watch",
        "approval-asked",
        "approval-answered",
    ]


def test_a_session_can_be_answered_from_elsewhere_and_another_runs_meanwhile(make) -> None:
    publish = Publish()
    waiting = make([code("print(publish('x'))"), code("final_answer('published')")], tools=[publish])
    session = waiting.submit("Publish.")
    asked = threading.Event()
    session.events.listen(lambda event: asked.set() if isinstance(event, ApprovalAsked) else None)
    assert asked.wait(20)
    assert session.state == "waiting" and publish.published == []
    other = make([code("final_answer(7)")])
    assert other.run("Count.") == 7
    (request,) = session.pending()
    waiting.approve(session.id, request.call_id, by="me")
    assert session.wait(20).state is State.SUCCESS
    assert publish.published == ["x"]
    with pytest.raises(InternError, match="Nothing waits"):
        session.answer(request.call_id, ApprovalAnswer("approve"))


def test_a_refused_publication_is_no_success(make) -> None:
    publish = Publish()
    intern = make([code("publish('x')"), code("final_answer('could not publish')")], tools=[publish])
    session = intern.submit("Publish.")
    while not session.pending():
        time.sleep(0.01)
    intern.reject(session.id, session.pending()[0].call_id, "not that name")
    outcome = session.wait(20)
    assert outcome.state is State.DENIED and "not that name" in outcome.reason
    assert outcome.answer == "could not publish" and publish.published == []


def test_a_tool_that_says_nothing_of_itself_is_asked_about(make) -> None:
    asked: list[str] = []

    def ask(request) -> ApprovalAnswer:
        asked.append(f"{request.tool}: {request.effects}")
        return ApprovalAnswer("approve", by="test")

    assert make([code("final_answer(add(1, 2))")], tools=[add], on_approval=ask).run("Add.") == 3
    assert asked == ["add: unknown"]


@pytest.mark.parametrize("hung", ["import time\ntime.sleep(60)", "look(where='slowly')"])
def test_an_interrupt_reaches_running_code_and_running_tools_within_seconds(make, hung: str) -> None:
    class SlowLook(Look):
        name = "look"

        def forward(self, where: str) -> dict:
            time.sleep(8)
            return {}

    intern = make([code(hung)], tools=[SlowLook()])
    session = intern.submit("Hang.")
    while session.agent.step_number < 1 or not any(isinstance(e, ModelAnswered) for e in session.events.history):
        time.sleep(0.02)
    time.sleep(0.3)
    started = time.monotonic()
    intern.interrupt(session.id)
    outcome = session.wait(20)
    assert outcome.state is State.INTERRUPTED
    assert time.monotonic() - started < 5
    assert last_end(session.trace).state == "interrupted"


def test_an_interrupt_while_a_person_is_asked_ends_the_turn(make) -> None:
    publish = Publish()
    intern = make([code("publish('x')")], tools=[publish])
    session = intern.submit("Publish.")
    while not session.pending():
        time.sleep(0.01)
    intern.interrupt(session.id)
    assert session.wait(20).state is State.INTERRUPTED
    assert publish.published == []


def test_a_question_is_withdrawn_when_the_code_that_asked_has_ended(make) -> None:
    publish = Publish()
    script = [
        code("import threading\nthreading.Thread(target=publish, args=('x',)).start()\nimport time\ntime.sleep(0.5)"),
        code("final_answer(1)"),
    ]
    intern = make(script, tools=[publish])
    session = intern.submit("Publish in the background.")
    outcome = session.wait(20)
    assert outcome.answer == 1 and outcome.state is State.DENIED and "has ended" in outcome.reason
    assert session.pending() == [] and publish.published == []
    rows = kinds(session.trace)
    assert (
        rows.index("approval-answered")
        < rows.index("user:tool_result")
        < rows.index("assistant:text+python_interpreter", 3)
    )


def test_a_second_turn_goes_on_where_the_first_ended(make) -> None:
    intern = make([code("kept = 5\nfinal_answer(kept)"), code("import time\ntime.sleep(0.3)\nfinal_answer(kept + 1)")])
    intern.run("First.")
    session = intern.session()
    session.start("Second.")
    with pytest.raises(InternError, match="busy"):
        session.start("Third.")
    assert session.wait(20).answer == 6


def test_files_images_and_data_are_handed_over_in_the_workspace(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import PIL.Image

    table, picture = tmp_path / "table.csv", tmp_path / "a picture.png"
    table.write_text("a,b\n1,2\n")
    PIL.Image.new("RGB", (5, 4)).save(picture)
    script = [code("import os\nfinal_answer((open('data/toy/train.csv').read(), sorted(os.listdir('.'))))")]
    with LocalHub(tmp_path / "hub") as hub:
        hub.seed("tester/toy", "dataset", {"train.csv": b"x,y\n3,4\n"})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        intern = make(script)
        text, names = intern.run("Read it.", files=[table], images=[picture], datasets=["tester/toy", str(table)])
        assert text == "x,y\n3,4\n" and names == ["a picture.png", "data", "table.csv"]
        with pytest.raises(InternError, match="The data set tester/gone could not be handed over"):
            make([]).run("Read it.", datasets=["tester/gone"])
    (request,) = intern.session().model.requests
    shown = str([message.content for message in request])
    assert "table.csv" in shown and "`data/toy`" in shown and "'type': 'image'" in shown


def test_code_runs_in_e2b_and_tools_approvals_and_record_stay_here(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Publish()
    script = [code("open('m.txt', 'w').write(publish('x'))"), code("final_answer(open('m.txt').read())")]
    with LocalE2B(tmp_path / "cloud") as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        ask = lambda request: ApprovalAnswer("approve", by="test")  # noqa: E731
        intern = make(script, tools=[publish], executor_type="e2b", on_approval=ask)
        assert intern.run("Publish.") == "published x"
        session = intern.session()
        assert (session.workspace / "m.txt").read_text() == "published x"
        assert "approval-answered" in kinds(session.trace)
        assert next(note["jail"] for row in read_rows(session.trace) if (note := note_of(row))) == "e2b"
        intern.close()
        assert not cloud.boxes, "the sandbox ends with its session"


def test_the_plan_is_told_as_it_changes_and_mistakes_in_it_are_explained(make) -> None:
    events: list[Event] = []
    script = [
        code("plan([{'text': 'a', 'status': 'in_progress'}, 'b'])"),
        code("plan([{'text': 'a', 'status': 'finished'}])"),
        code("final_answer(1)"),
    ]
    intern = make(script, on_event=events.append)
    intern.run("Plan.")
    (plan,) = [event for event in events if isinstance(event, PlanChanged)]
    assert plan.items == ({"text": "a", "status": "in_progress"}, {"text": "b", "status": "pending"})
    assert (
        "`status` is one of"
        in next(event for event in events if isinstance(event, ToolReturned) and not event.ok).summary
    )


def test_missing_slack_tokens_are_one_line_of_warning(make) -> None:
    events: list[Event] = []
    intern = make([code("final_answer(1)")], enable_slack_notifications=True, on_event=events.append)
    assert intern.run("Go.") == 1
    assert [event.text for event in events if isinstance(event, Warned)] == [
        "No Slack notifications: SLACK_BOT_TOKEN and SLACK_CHANNEL_ID not set."
    ]


def test_a_secret_of_the_environment_is_nowhere(make, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    secret = "canary-7f3a9b-secret"
    monkeypatch.setenv("SOME_API_KEY", secret)
    events: list[Event] = []

    class Leak(Look):
        name = "look"

        def forward(self, where: str) -> dict:
            return {"env": f"key={secret}", where: [secret]}

    script = [
        code(f"r = look(where='{secret}')\nprint(r, '{secret}')\nraise ValueError('{secret}')"),
        code(f"final_answer('{secret}')"),
    ]
    intern = make(script, tools=[Leak()], on_event=events.append)
    intern.run(f"Use {secret}.")
    intern.close()
    for path in (path for path in home.rglob("*") if path.is_file()):
        assert secret.encode() not in path.read_bytes(), path
    assert secret not in "".join(event.to_json() for event in events if not isinstance(event, SessionStarted))


def test_a_listener_that_fails_stops_nothing(make) -> None:
    def broken(event: Event) -> None:
        raise OSError("terminal gone")

    assert make([code("final_answer(1)")], on_event=broken).run("Go.") == 1


def test_a_crash_of_the_host_leaves_whole_rows_and_no_process(home: Path) -> None:
    program = f"""
from pathlib import Path
from ml_intern import MLIntern
from ml_intern.testing import LocalE2B, LocalHub, ScriptedModel
script = ["<code>\\nimport os\\nprint(os.getpid())\\n</code>", "<code>\\nimport time\\nprint('now', flush=True)\\ntime.sleep(60)\\n</code>"]
MLIntern(ScriptedModel(script), home=Path({str(home)!r}), tools=[], on_event=lambda e: print(e.to_json(), flush=True)).run("Go.")
"""
    host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    for line in host.stdout:
        if json.loads(line)["event"] == "code_printed" and "now" in line:
            break
    jailed = subprocess.run(["pgrep", "-P", str(host.pid)], capture_output=True, text=True).stdout.split()
    assert jailed
    host.kill()
    host.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in jailed) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in jailed if Path(f"/proc/{pid}").exists()]
    (trace,) = (home / "sessions").glob("*.jsonl")
    assert trace.read_bytes().endswith(b"\n")
    assert kinds(trace)[-1] == "assistant:python_interpreter", "the intent of the step that was running is on record"
    assert last_end(trace) is None


@pytest.mark.long
def test_ctrl_c_in_python_stops_the_turn_before_it_is_raised(home: Path) -> None:
    program = f"""
from pathlib import Path
from ml_intern import MLIntern
from ml_intern.testing import ScriptedModel
script = ["<code>\\nimport time\\nprint('now', flush=True)\\ntime.sleep(60)\\n</code>"]
with MLIntern(ScriptedModel(script), home=Path({str(home)!r}), tools=[], on_event=lambda e: print(e.to_json(), flush=True)) as intern:
    try:
        intern.run("Go.")
    except KeyboardInterrupt:
        print(intern.session().outcome.state)
"""
    host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    for line in host.stdout:
        if json.loads(line)["event"] == "code_printed":
            break
    host.send_signal(signal.SIGINT)
    assert host.communicate(timeout=20)[0].splitlines()[-1] == "interrupted"


@pytest.mark.parametrize(
    ("task", "title"),
    [("  \nTrain it.\nMore", "Train it."), ("", "Session"), ("word " * 40, "word " * 15 + "word...")],
)
def test_titles_are_the_first_line(task: str, title: str) -> None:
    assert title_of(task) == title


@pytest.mark.long
def test_sessions_side_by_side_are_neither_lost_nor_mixed(make) -> None:
    interns = [make([code(f"x = {i}"), code("final_answer(x)")]) for i in range(12)]
    sessions = [intern.submit("Count.") for intern in interns]
    assert [session.wait(60).answer for session in sessions] == list(range(12))
