"""A trace gives back the session: the very messages that were sent, what waits, what may have happened, what was spent."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from smolagents.agents import AgentGenerationError
from smolagents.memory import AgentMemory
from smolagents.models import ChatMessage

from ml_intern.agent import InternAgent
from ml_intern.context import ArtifactStore, ContextManager
from ml_intern.events import Outcome, State
from ml_intern.secrets import Masker
from ml_intern.steps import AgentRun, SteerStep, TrackedActionStep
from ml_intern.testing import ScriptedModel
from ml_intern.trace import Journal, Restored, TraceRecorder, restore
from ml_intern.trace.rows import new_id
from ml_intern.trace.subagents import SidechainJournal

NAME = "11111111-2222-4333-8444-555555555555.jsonl"


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


def plain(messages: list[ChatMessage]) -> list[Any]:
    """Messages as they can be compared: images by what they would be sent as."""

    def part(value: dict[str, Any]) -> Any:
        if value["type"] != "image":
            return value
        buffer = io.BytesIO()
        value["image"].save(buffer, format="PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    return [(message.role, [part(value) for value in message.content]) for message in messages]


class Live:
    """An agent with its record, and the same put together again from the record."""

    def __init__(self, folder: Path, script: list[Any], window: int | None = None, **options: Any) -> None:
        self.journal = Journal(folder / NAME, masker=Masker({}))
        self.recorder = TraceRecorder(self.journal, "scripted")
        self.model, self.window = ScriptedModel(script), window
        store = ArtifactStore(self.journal.artifacts)
        self.context = ContextManager(window=window, store=store)
        self.agent = InternAgent(
            [], self.model, observers=[self.recorder], context=self.context, masker=Masker({}), verbosity_level=0, **options
        )  # fmt: skip

    def turn(self, task: str, **options: Any) -> None:
        state, answer = State.SUCCESS, None
        try:
            answer = self.agent.run(task, reset=not self.agent.memory.steps, **options)
        except AgentGenerationError:
            state = State.ERROR
        self.recorder.ended(Outcome(state, answer, steps=self.agent.step_number - 1, usage=self.agent.ledger.usage))

    def again(self) -> Restored:
        return restore(self.journal.path)

    def same(self) -> Restored:
        found = self.again()
        assert plain(rendered(self, found)) == plain(self.context.render(self.agent.memory))
        assert [type(step) for step in found.steps] == [type(step) for step in self.agent.memory.steps]
        return found


def rendered(live: Live, found: Restored) -> list[ChatMessage]:
    memory = AgentMemory(live.agent.memory.system_prompt.system_prompt)
    memory.steps = list(found.steps)
    context = ContextManager(window=live.window, store=ArtifactStore(live.journal.artifacts))
    context.limit(live.model)
    return context.render(memory)


@pytest.fixture
def live(tmp_path: Path):
    made: list[Live] = []

    def make(script: list[Any], **options: Any) -> Live:
        made.append(Live(tmp_path, script, **options))
        return made[-1]

    yield make
    for one in made:
        one.agent.cleanup()
        one.journal.close()


def test_what_is_rendered_is_what_was_sent(live: Callable[..., Live]) -> None:
    one = live(
        [
            "First the plan: look, then answer.",
            code("x = 1\nprint('one', x)", "  I look.  "),
            code("raise ValueError('no\\n\\nError:\\nreally')"),
            code("print('before it')\n1 / 0"),
            "No code at all here.",
            "A second plan.",
            code("for i in range(40_000): print('line', i, 'of many')"),
            code("print('ünï \\u2028 \\ud83d\\ude00')\n{'a': [1, 2]}"),
            code("final_answer({'value': 1.5})"),
            "A third plan.",
            code("final_answer('again')"),
            "A plan for nothing.",
            RuntimeError("the service is down"),
        ],
        planning_interval=4,
    )
    image = PIL.Image.new("RGB", (3, 2), "red")
    one.turn("What do you see?", images=[image])
    found = one.same()
    assert found.problems == () and not found.open and found.ended.state == "success" and found.action is None
    long = max(found.steps, key=lambda step: len(getattr(step, "observations", None) or ""))
    assert len(long.observations) > 600_000 and "line 39999 of many" in long.observations, "from its file, whole"
    one.turn("And now?", additional_args={"table": [1, 2]})
    found = one.same()
    assert found.variables == ("table",) and found.turns[0].start == 0 and len(found.turns) == 2
    one.turn("And a third time?")
    found = one.same()
    assert found.ended.state == "error" and found.turns[-1].task == "And a third time?"


def test_messages_that_came_meanwhile_and_pictures_that_code_showed_come_back(live: Callable[..., Live]) -> None:
    def steered(messages: list[ChatMessage]) -> str:
        one.agent.steer("Faster.\nPlease.", "me")
        return code("from PIL import Image\ndisplay(Image.new('RGB', (20, 10), 'teal'))\nprint('seen')")

    one = live([code("print(1)"), steered, "no code", code("final_answer(1)")])
    one.turn("Do it.")
    found = one.same()
    assert [step for step in found.steps if isinstance(step, SteerStep)] == [SteerStep("Faster.\nPlease.", "me")]
    assert any(getattr(step, "observations_images", None) for step in found.steps)


@pytest.mark.parametrize("window", [4_000, 9_000, 30_000])
def test_a_conversation_that_was_compacted_comes_back_as_it_is_shown(live, window: int) -> None:
    def answer(messages: list[ChatMessage]) -> str:
        if "is about to be compacted" in str(messages[-1].content):
            return "Goal: as the user says."
        calls.append(1)
        if len(calls) == 60:
            return code("final_answer(1)")
        if len(calls) % 9 == 0:
            return "I forgot the code. " * 20
        return code(f"print('result {len(calls)} ' * {300 * (len(calls) % 3)})", "I think about it. " * 20)

    calls: list[int] = []
    one = live([answer] * 200, window=window, max_steps=100)
    one.turn("Measure it.")
    one.model.leftover.clear()
    found = one.same()
    rungs = {step.rung for step in found.steps if hasattr(step, "rung")}
    assert rungs, "it was compacted"
    assert found.next_step == 61 and found.usage.input_tokens == one.agent.ledger.usage.input_tokens


def test_steps_are_what_they_were(live: Callable[..., Live]) -> None:
    one = live([code("print(1)\n1 / 0"), code("final_answer([1, 'two'])")])
    one.turn("Do it.")
    found = one.same()
    for before, after in zip(one.agent.memory.steps[1:], found.steps[1:], strict=True):
        assert isinstance(after, TrackedActionStep)
        for name in ("step_number", "model_output", "code_action", "tool_calls", "observations", "action_output",
                     "is_final_answer", "token_usage"):  # fmt: skip
            assert getattr(after, name) == getattr(before, name), name
        assert str(after.error) == str(before.error) and type(after.error) is type(before.error)
        assert after.timing.duration == pytest.approx(before.timing.duration, abs=0.01)


def rows_of(tmp_path: Path, write: Callable[[Journal], None]) -> Restored:
    journal = Journal(tmp_path / NAME, masker=Masker({}))
    write(journal)
    journal.close()
    return restore(journal.path)


def answered(journal: Journal, number: int, source: str | None, **extra: Any) -> str:
    blocks = [{"type": "text", "text": f"step {number}"}]
    if source is not None:
        blocks.append(
            {"type": "tool_use", "id": f"toolu_{number}", "name": "python_interpreter", "input": {"code": source}}
        )
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1}
    words = f"step {number}\n<code>{source}</code>"
    return journal.answer(blocks, "m", usage, step=number, modelOutput=words, costUsd=0.5, **extra)


def test_a_step_that_was_cut_off_is_open_and_says_what_became_of_each_call(tmp_path: Path) -> None:
    def write(journal: Journal) -> None:
        journal.user("Publish it.", stepKind="task", variables=["frame"])
        answered(journal, 1, "print(1)")
        journal.result("toolu_1", "Execution logs:\n1\n", step=1, final=False, value=None, seconds=2.5)
        answered(journal, 2, "push('a'); push('b')")
        files = [{"path": "a.bin", "size": 3, "sha256": "ab"}]
        for name in ("back", "refused", "waits", "approved", "lost", "read", "edited", "declined"):
            effects = "read" if name == "read" else "write"
            journal.call(f"call_{name}", "push", {"name": name}, "m", step=2, effects=effects, files=files)
        for name in ("refused", "waits", "approved", "edited", "declined"):
            journal.note("approval-asked", callId=f"call_{name}", tool="push", arguments={"name": name}, reason="it writes",
                         preview="a card", files=files, binding=f"digest {name}", destination={"name": "me/x"},
                         sources=["a page"], leftUsd=3.5)  # fmt: skip
        journal.note("approval-answered", callId="call_refused", decision="reject", reason="no", by="me", binding="d")
        journal.note("approval-answered", callId="call_declined", decision="reject", reason="no", by="me", binding="d")
        journal.note(
            "approval-answered", callId="call_approved", decision="approve", by="me", binding="digest approved"
        )
        journal.note(
            "approval-answered", callId="call_edited", decision="edit", by="me", arguments={"name": "z"}, binding="d"
        )
        journal.note(
            "approval-asked", callId="call_edited", tool="push", arguments={"name": "z"}, reason="", binding="e"
        )
        journal.result("call_back", "pushed a", step=2, denied=False)
        journal.result("call_refused", "Denied: no", error=True, step=2, denied=True)
        journal.note("parked", calls=["call_waits"])

    found = rows_of(tmp_path, write)
    assert found.open and found.ended is None and found.next_step == 3 and found.variables == ("frame",)
    assert len(found.steps) == 2, "the step that was cut off is no step of the memory"
    action = found.action
    assert action.number == 2 and action.code == "push('a'); push('b')" and action.tool_use_id == "toolu_2"
    assert action.step.model_output == "step 2\n<code>push('a'); push('b')</code>" and action.step.observations is None
    states = {call.call_id.removeprefix("call_"): call.state for call in action.calls}
    assert states == {
        "back": "done", "refused": "denied", "waits": "asked", "approved": "answered", "lost": "unknown", "read": "unknown",
        "edited": "asked", "declined": "answered",
    }  # fmt: skip
    assert [call.call_id for call in found.unknown] == ["call_approved", "call_lost"], "what was refused never ran"
    waits = {request.call_id: request for request in found.pending}
    assert list(waits) == ["call_waits", "call_edited"] and found.parked == ("call_waits",)
    request = waits["call_waits"]
    assert request.preview == "a card" and request.files[0].path == "a.bin" and request.destination.name == "me/x"
    assert request.sources == ("a page",) and request.left_usd == 3.5 and request.effects == "write"
    assert waits["call_edited"].arguments == {"name": "z"}
    assert {call.binding for call in action.calls if call.state == "asked"} == {"digest waits", "e"}
    assert [(seen.tool, seen.text) for seen in found.seen] == [("push", "pushed a"), ("push", "Denied: no")]
    assert found.usage.cost_usd == 1.0 and found.usage.input_tokens == 26 and found.usage.cached_tokens == 4
    assert found.open_seconds == 2.5 and found.seconds == 0.0


def test_a_call_that_was_reconciled_is_known(tmp_path: Path) -> None:
    def write(journal: Journal) -> None:
        journal.user("Publish it.", stepKind="task")
        answered(journal, 1, "push('a')")
        journal.call("call_a", "push", {"name": "a"}, "m", step=1, effects="write", files=[])
        journal.note("resumed", step=1, lost=["x"])
        journal.note("reconciled", callId="call_a", happened=True, by="push")

    found = rows_of(tmp_path, write)
    [call] = found.action.calls
    assert found.unknown == () and call.happened is True and call.may_have_run, "until its result is on record"


def test_calls_of_sub_agents_are_known_from_their_own_traces(tmp_path: Path) -> None:
    def write(journal: Journal) -> None:
        journal.user("Publish it.", stepKind="task")
        for number, agent in ((1, "over"), (2, "cut")):
            answered(journal, number, "researcher('look')")
            journal.call(f"call_{agent}", "researcher", {"task": "look"}, "m", step=number, effects="read", files=[])
            run = AgentRun(agent, "researcher", "InternAgent", "m", "look", f"call_{agent}", number)
            below = SidechainJournal(journal, run)
            for name in ("done", "lost", "waits"):
                below.call(f"{agent}_{name}", "push", {"name": name}, "m", step=1, effects="write", files=[])
            below.result(f"{agent}_done", "pushed", step=1, denied=False)
            below.close()
            journal.note(
                "approval-asked", callId=f"{agent}_waits", tool="push", arguments={}, binding="d", agent="researcher"
            )
            if agent == "over":
                journal.note("subagent", id=agent, agent="researcher", inputTokens=7, outputTokens=3, costUsd=0.25)
                journal.result("call_over", "report", step=1)
                journal.result("toolu_1", "report", step=1)

    found = rows_of(tmp_path, write)
    assert [(call.call_id, call.state) for call in found.action.calls] == [("call_cut", "unknown")]
    over, cut = sorted(found.runs, key=lambda run: not run.over)
    assert (over.run.id, over.over, over.run.call_id) == ("over", True, "call_over")
    assert (cut.run, cut.over) == (AgentRun("cut", "researcher", "InternAgent", "m", "look", "call_cut", 2), False)
    assert [(call.call_id, call.state, call.agent) for call in cut.calls] == [
        ("cut_done", "done", "cut"), ("cut_lost", "unknown", "cut"), ("cut_waits", "asked", "cut"),
    ]  # fmt: skip
    assert [request.call_id for request in found.pending] == ["cut_waits"] and found.pending[0].agent == "researcher"
    assert {call.call_id for call in found.unknown} == {"over_lost", "cut_lost"}
    assert found.usage.cost_usd == 1.25 and found.usage.input_tokens == 33


def test_a_message_that_came_meanwhile_is_a_step_also_where_only_its_row_was_kept(tmp_path: Path) -> None:
    steps = [SteerStep("Faster.", "me"), SteerStep("You go round in\ncircles.", source="guard")]

    def write(journal: Journal) -> None:
        recorder = TraceRecorder(journal, "m")
        journal.user("Do it.", stepKind="task")
        answered(journal, 1, "1")
        journal.result("toolu_1", "1", step=1)
        for step in steps:
            recorder.steered(step)

    found = rows_of(tmp_path, write)
    assert found.steps[2:] == steps and found.next_step == 2
    lines = found.path.read_bytes().splitlines(keepends=True)
    found.path.write_bytes(b"".join(line for line in lines if b'"progress"' not in line))
    assert [step.said for step in restore(found.path).steps[2:]] == [step.said for step in steps]


def test_a_step_that_died_with_its_turn_is_no_step_of_the_memory(tmp_path: Path) -> None:
    def write(journal: Journal) -> None:
        journal.user("one", stepKind="task")
        answered(journal, 1, "print(1)")
        journal.call("call_a", "push", {"name": "a"}, "m", step=1, effects="spend", files=[])
        journal.note("end", state="error", reason="the disk was full")
        journal.user("two", stepKind="task")

    found = rows_of(tmp_path, write)
    assert [type(step).__name__ for step in found.steps] == ["TaskStep", "TaskStep"] and found.action is None
    assert [call.call_id for call in found.unknown] == ["call_a"], "it may have taken effect all the same"
    assert found.open and found.next_step == 1 and found.task == "two"


def test_what_was_undone_stands_no_more_but_was_paid_for(tmp_path: Path) -> None:
    def write(journal: Journal) -> None:
        journal.user("one", stepKind="task")
        answered(journal, 1, "notes(add='kept')")
        journal.call("call_n", "notes", {"add": "kept"}, "m", step=1, effects="read")
        journal.result("call_n", "[]", step=1)
        journal.result("toolu_1", "done", step=1)
        journal.note("end", state="success", reason="")
        before = journal.last
        journal.user("two", stepKind="task")
        answered(journal, 1, "notes(add='gone'); push('b')")
        journal.call("call_m", "notes", {"add": "gone"}, "m", step=1, effects="read")
        journal.result("call_m", "[]", step=1)
        journal.call("call_b", "push", {"name": "b"}, "m", step=1, effects="write")
        journal.note("mode", mode="auto")
        journal.note("rule", rule="allow push:me/*", scope="session")
        journal.note("end", state="interrupted", reason="")
        journal.branch_from(before)
        journal.note("undone", to=before)
        assert journal.last != before

    found = rows_of(tmp_path, write)
    assert [turn.task for turn in found.turns] == ["one"] and len(found.steps) == 2 and found.ended.state == "success"
    assert found.desk.notes == ("kept",) and found.usage.cost_usd == 1.0 and found.mode == "auto"
    assert found.rules == (("allow push:me/*", "session"),) and [call.tool for call in found.unknown] == ["push"]


def test_the_first_turn_can_be_undone(tmp_path: Path) -> None:
    def write(journal: Journal) -> None:
        journal.user("one", stepKind="task")
        answered(journal, 1, "print(1)")
        journal.branch_from(None)
        journal.note("undone", to=None)
        journal.user("other", stepKind="task")

    found = rows_of(tmp_path, write)
    assert found.task == "other" and len(found.steps) == len(found.turns) == 1
    assert found.turns[0].before is not None


def test_a_session_that_was_left_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """Open, write, cut anywhere, open again: each row stands once, in one chain."""
    path = tmp_path / NAME
    for turn in range(4):
        journal = Journal(path, masker=Masker({}))
        assert journal.titled == (turn > 0) and bool(journal.repaired) == (turn > 0)
        journal.user(f"turn {turn}", stepKind="task")
        if turn == 0:
            journal.title("A title")
        journal.note("end", state="success", reason="")
        journal.close()
        with path.open("ab") as file:
            file.write(b'{"type":"user","torn":"' + b"x" * 100_000 * turn)
    found = restore(path)
    assert [turn.task for turn in found.turns] == [f"turn {i}" for i in range(4)] and found.title == "A title"
    assert found.problems == ("The last row was cut off.",)
    torn = sorted(path.with_suffix("").glob("torn-*.bin"), key=lambda p: p.stat().st_size)
    assert [file.stat().st_size for file in torn] == [23, 100_023, 200_023], "no byte is lost"


def test_a_last_row_that_only_lacks_its_line_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / NAME
    journal = Journal(path)
    journal.user("one", stepKind="task")
    journal.close()
    path.write_bytes(path.read_bytes()[:-1])
    journal = Journal(path)
    second = journal.user("two", stepKind="task")
    journal.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 2 and rows[1]["parentUuid"] == rows[0]["uuid"] and rows[1]["uuid"] == second
    assert not list(path.with_suffix("").glob("torn*"))


def cpu(what: Callable[[], Any], enough: float = 0.0) -> float:
    """Seconds of this process's own time, the best of three: others may be busy on the machine.

    Args:
        enough (`float`, defaults to 0.0): Measured again, twelve times in all, until it is below that.
    """
    times = []
    while len(times) < 3 or (len(times) < 12 and min(times) >= enough > 0.0):
        started = time.process_time()
        what()
        times.append(time.process_time() - started)
    return min(times)


WRITER = """
import sys
from pathlib import Path
from ml_intern.secrets import Masker
from ml_intern.trace import Journal
journal = Journal(Path(sys.argv[1]), masker=Masker({}))
for i in range(10**9):
    uuid = journal.user(f"{i} " + "x" * (i % 50_000))
    print(uuid, flush=True)  # on record before anybody hears of it
"""


def test_kills_lose_and_double_no_row(tmp_path: Path) -> None:
    path, told = tmp_path / NAME, []
    for turn in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        told.append(writer.stdout.readline())
        time.sleep(0.05 * turn)
        writer.kill()
        told += writer.communicate(timeout=20)[0].splitlines()
    rows = [json.loads(line) for line in path.read_bytes().splitlines() if not line.startswith(b'{"torn')]
    names = [row["uuid"] for row in rows]
    assert len(set(names)) == len(names) and {line.strip() for line in told if line.strip()} <= set(names)
    assert [row["parentUuid"] for row in rows] == [None, *names[:-1]]


def long_trace(path: Path, count: int, size: int = 3_000) -> None:
    """A session of so many rows: its first step once written by the journal, the others after its pattern."""
    journal = Journal(path, masker=Masker({}))
    journal.user("Go on for long.", stepKind="task")
    answered(journal, 1, "print(1)")
    journal.call("call_1", "look", {"at": 1}, "m", step=1, effects="read")
    journal.result("call_1", "y" * size, step=1)
    journal.result("toolu_1", "x" * size, step=1)
    journal.close()
    first, *pattern = path.read_text().splitlines(keepends=True)
    lines, parent = [first], json.loads(first)["uuid"]
    for number in range(1, count // 4 + 1):
        for line in pattern:
            row, uuid = json.loads(line), new_id()
            whole = line.replace(row["parentUuid"], parent).replace(row["uuid"], uuid)
            lines.append(
                whole.replace("u_1", f"u_{number}")
                .replace("l_1", f"l_{number}")
                .replace('"step":1', f'"step":{number}')
            )
            parent = uuid
    path.write_text("".join(lines))


@pytest.mark.long
def test_ten_thousand_rows_are_opened_and_restored_within_their_time(tmp_path: Path) -> None:
    path = tmp_path / NAME
    long_trace(path, 10_000)

    assert len(restore(path).steps) == 2_501
    assert cpu(lambda: restore(path), 1.0) < 1.0
    assert cpu(lambda: Journal(path).close(), 0.1) < 0.1
    small = tmp_path / NAME.replace("1111", "2222")
    long_trace(small, 40)

    def append(at: Path) -> float:
        journal = Journal(at)
        try:
            return cpu(lambda: [journal.user("x" * 1_000) for _ in range(200)])
        finally:
            journal.close()

    assert append(path) < 3 * append(small) + 0.02, "what is there already costs nothing"
