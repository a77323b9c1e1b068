"""The scripted and the replayed model, and the comparison of observations."""

import string
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from recorded_trace import assistant, result, write_trace
from smolagents import CodeAgent, ToolCallingAgent, tool
from smolagents.memory import ActionStep, PlanningStep, TaskStep
from smolagents.models import (
    ChatMessage,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    MessageRole,
    agglomerate_stream_deltas,
)
from smolagents.monitoring import TokenUsage

from ml_intern.testing.models import ReplayedModel, ScriptedModel, UnconsumedScript, UnexpectedModelCall, differences
from ml_intern.testing.recording import read_turns


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": text}])


def calling(name: str, arguments: dict) -> ChatMessage:
    call = ChatMessageToolCall(ChatMessageToolCallFunction(arguments, name), "c1", "function")
    return ChatMessage(role=MessageRole.ASSISTANT, content="calling", tool_calls=[call])


# --- the scripted model


def test_code_agent_follows_the_script():
    script = ["First.\n<code>\nx = 6 * 7\nprint(x)\n</code>", "Then.\n<code>\nfinal_answer(x)\n</code>"]
    with ScriptedModel(script) as model:
        assert CodeAgent(tools=[], model=model, verbosity_level=0).run("6 * 7?") == 42
    assert len(model.requests) == 2
    assert model.requests[1][-1].content[0]["text"].startswith("Observation:\nExecution logs:\n42")


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calling_agent_follows_the_script(stream):
    @tool
    def add(a: int, b: int) -> int:
        """Add.

        Args:
            a: one
            b: other
        """
        return a + b

    with ScriptedModel([calling("add", {"a": 1, "b": 2}), calling("final_answer", {"answer": "3"})]) as model:
        agent = ToolCallingAgent(tools=[add], model=model, verbosity_level=0, stream_outputs=stream)
        assert agent.run("1 + 2?") == "3"
    assert any("3" in str(message.content) for message in model.requests[1][-1:])


def test_streaming_says_the_same_in_pieces_with_usage_at_the_end():
    text = "a text that is longer than one piece of the stream, and stops here"
    model = ScriptedModel([text, text, calling("add", {"a": 1})])
    whole = model.generate([user("x" * 40)], stop_sequences=["here", "stops", "never"])
    deltas = list(model.generate_stream([user("x" * 40)], stop_sequences=["stops"]))
    assert whole.content == text.partition("stops")[0]
    assert len(deltas) > 3
    assert agglomerate_stream_deltas(deltas).content == whole.content
    assert deltas[-1].token_usage == whole.token_usage == TokenUsage(10, 14)
    call = agglomerate_stream_deltas(list(model.generate_stream([user("x")]))).tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("add", '{"a": 1}')


def test_script_of_functions_messages_and_exceptions():
    said = ChatMessage(role=MessageRole.ASSISTANT, content="mine", token_usage=TokenUsage(7, 8))
    model = ScriptedModel([lambda messages: messages[-1].content[0]["text"].upper(), said, ConnectionError("down")])
    assert model.generate([user("hey")]).content == "HEY"
    assert model.generate([user("hey")]).token_usage == TokenUsage(7, 8)
    with pytest.raises(ConnectionError, match="down"):
        model.generate([user("hey")])
    model.assert_done()


def test_usage_counts_the_whole_prompt_whether_it_grew_or_changed():
    first, second = user("a" * 400), user("b" * 40)
    model = ScriptedModel(["", "", ""])
    assert model.generate([first]).token_usage.input_tokens == 100
    assert model.generate([first, second]).token_usage.input_tokens == 110
    assert model.generate([second]).token_usage.input_tokens == 10


def test_only_the_newest_requests_are_kept_when_asked():
    model = ScriptedModel(["a", "b", "c"], keep_requests=2)
    for text in ("one", "two", "three"):
        model.generate([user(text)])
    assert [request[0].content[0]["text"] for request in model.requests] == ["two", "three"]
    assert model.calls == 3


def test_an_unexpected_call_fails_at_once_and_again_at_the_end():
    model = ScriptedModel(["only"])
    model.generate([user("one")])
    with pytest.raises(UnexpectedModelCall, match=r"called 2 times, its script has 1\. Last message: 'two'"):
        model.generate([user("two")])
    with pytest.raises(UnexpectedModelCall):  # an agent may have swallowed the first
        model.assert_done()


def test_leftover_script_fails():
    with pytest.raises(UnconsumedScript, match="2 of 2 answers are left; next: 'a'"):
        with ScriptedModel(["a", "b"]):
            pass


def test_an_error_in_the_block_is_not_hidden_by_the_leftover():
    with pytest.raises(KeyError):
        with ScriptedModel(["a"]):
            raise KeyError


# --- the replayed model


def test_turns_of_a_trace(tmp_path):
    turns = read_turns(write_trace(tmp_path / "t.jsonl"))
    assert [turn.text for turn in turns] == [
        "exact words\n<code>\ntrain()\n</code> ",
        "Look.\n<code>\nshow()\n</code>",
        "a plan",
    ]
    assert [turn.observation for turn in turns] == ["accuracy: 0.9134\ntook 3.2 s", "accuracy: 0.91", ""]
    assert (turns[0].input_tokens, turns[0].output_tokens) == (40, 5)


def test_turns_of_a_tool_calling_agent_keep_their_calls(tmp_path):
    trace = write_trace(tmp_path / "t.jsonl", assistant("", ("c1", "add", {"a": 1})), result("c1", "3"))
    (turn,) = read_turns(trace)
    assert [(call.id, call.name, call.arguments) for call in turn.tool_calls] == [("c1", "add", {"a": 1})]
    assert turn.observation == "3"
    assert ReplayedModel(trace).generate([user("x")]).tool_calls[0].function.name == "add"


def test_a_trace_without_answers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no answer of a model"):
        read_turns(write_trace(tmp_path / "t.jsonl", assistant("nested", usage=False)))


def replayed(path: Path, *codes_and_results: str, **options) -> ReplayedModel:
    rows = []
    for number, (code, shown) in enumerate(zip(codes_and_results[::2], codes_and_results[1::2], strict=True)):
        rows += [assistant("Now.", (f"c{number}", "python_interpreter", {"code": code})), result(f"c{number}", shown)]
    return ReplayedModel(write_trace(path, *rows), **options)


def test_replay_goes_on_and_tells_what_differs(tmp_path):
    seen = []
    model = replayed(
        tmp_path / "t.jsonl",
        "print('accuracy', 0.5)",
        "Execution logs:\naccuracy 0.91\nLast output from code snippet:\nNone",
        "print('took 3 s')",
        "took 17.25 s\nNone",
        "1 / 0",
        "ZeroDivisionError: division by zero",
        "final_answer('ok')",
        "ok",
        on_difference=lambda *difference: seen.append(difference),
    )
    assert CodeAgent(tools=[], model=model, verbosity_level=0).run("go") == "ok"
    assert seen[0] == (1, "accuracy 0.91", "accuracy 0.5")
    assert model.differences[0].lines == ('line 2: "accuracy 0.91", now "accuracy 0.5"',)
    assert [step for step, _, _ in seen] == [1, 3]  # smolagents words the error differently; the time does not count
    assert model.leftover == []


def test_replay_of_what_was_recorded_tells_nothing_and_ends(tmp_path):
    code = "print('loss', 0.25)"
    model = replayed(
        tmp_path / "t.jsonl",
        code,
        "Execution logs:\nloss 0.25\nLast output from code snippet:\nNone",
        "final_answer(1)",
        "1",
    )
    assert CodeAgent(tools=[], model=model, verbosity_level=0).run("go") == 1
    assert model.differences == []
    with pytest.raises(UnexpectedModelCall, match="has 2 turns, no more"):
        model.generate([user("more?")])


def trace_of(agent: CodeAgent, path: Path) -> Path:
    """The rows of what an agent did, as the project's recorder words them."""
    rows = []
    for step in agent.memory.steps:
        if isinstance(step, TaskStep):
            rows.append({"type": "user", "message": {"role": "user", "content": step.task}, "stepKind": "task"})
        elif isinstance(step, PlanningStep):
            said = step.model_output_message.content
            rows.append(assistant(step.plan, stepKind="planning", modelOutput=said))
        elif isinstance(step, ActionStep):
            text = "\n".join(filter(None, [step.observations, step.error and f"Error:\n{step.error}"]))
            uses = [(f"c{len(rows)}", "python_interpreter", {"code": step.code_action})] if step.code_action else []
            rows.append(assistant("Now.", *uses, modelOutput=step.model_output))
            if uses:
                rows.append(result(uses[0][0], text))
            else:
                rows.append({"type": "user", "message": {"role": "user", "content": text}})
    return write_trace(path, *rows)


def test_a_session_with_plans_errors_and_two_turns_replays_without_differences(tmp_path):
    def act(code: str) -> str:
        return f"Now.\n<code>\n{code}\n</code>"

    def session(model) -> CodeAgent:
        agent = CodeAgent(tools=[], model=model, verbosity_level=0, planning_interval=2)
        answers = [agent.run("first"), agent.run("second", reset=False)]
        assert answers == [1, 2]
        return agent

    first = ["a plan", act("print('before')\n1 / 0"), "no code at all", "a new plan", act("final_answer(1)")]
    second = ["another plan", act("print('x' * 3)"), act("final_answer(2)")]
    with ScriptedModel([*first, *second]) as model:
        trace = trace_of(session(model), tmp_path / "t.jsonl")
    replay = ReplayedModel(trace)
    session(replay)
    assert replay.leftover == []
    assert [difference.lines for difference in replay.differences] == []
    lines = trace.read_text().replace("before", "differently")
    trace.write_text(lines.replace("print('differently", "print('before"))
    replay = ReplayedModel(trace)
    session(replay)
    assert [(difference.step, len(difference.lines)) for difference in replay.differences] == [(2, 1)]


@pytest.mark.parametrize(
    "shown",
    [
        ["Observation:\nolder", "Observation:\nprinted"],
        ["Observation:\nprinted", "Call id: c1\nError:\nboom\nNow let's retry: again"],
        ["Call id: c0\nError:\nolder\nNow let's retry: again", "Observation:\nprinted"],
    ],
)
def test_only_the_newest_observation_is_compared(tmp_path, shown):
    recorded = "printed\nboom" if "boom" in shown[-1] else "printed"
    model = replayed(tmp_path / "t.jsonl", "a()", recorded, "b()", "x")
    responses = [ChatMessage(MessageRole.TOOL_RESPONSE, [{"type": "text", "text": text}]) for text in shown]
    model.generate([user("go")])
    model.generate([user("go"), *responses, user("and a word in between")])
    assert model.differences == []


# --- what differs


@pytest.mark.parametrize(
    ("recorded", "actual"),
    [
        ("same", "same"),
        ("accuracy: 0.9134", "accuracy: 0.91"),
        ("loss 1.234e-05", "loss 1.3e-05"),
        ("rows: 10,000", "rows: 10,100"),
        ("done at 2026-01-15T10:00:00.000Z", "done at 2027-11-05T09:59:59.123Z"),
        ("2026-01-15 10:00:00,123 INFO start", "2026-02-15 11:00:00,999 INFO start"),
        ("[Thu Jan 15 10:00:00 2026] up", "[Wed Nov  5 01:02:03 2026] up".replace("  ", " ")),
        ("Thu, 15 Jan 2026 10:00:00 GMT", "Fri, 16 Jan 2026 11:30:00 GMT"),
        ("took 3.2 s", "took 95.71 s"),
        ("finished in 12ms", "finished in 3 ms"),
        ("elapsed 0:00:12", "elapsed 0:31:55.2"),
        ("took 2 minutes", "took 40 minutes"),
        ("10.5 it/s, 3 MB/s", "99.1 it/s, 31.4 MB/s"),
        ("commit 3f2a9bc1d0", "commit 99ffab01ce"),
        ("sha256 " + "ab12" * 16, "sha256 " + "cd34" * 16),
        ("<object at 0x7f1122334455>", "<object at 0x55ffee001122>"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-e89b-12d3-a456-426614170009"),
        ("at http://127.0.0.1:41234/api", "at http://127.0.0.1:5123/api"),
        ("at localhost:41234", "at localhost:51"),
        ("saved /tmp/tmpab12/x.png now", "saved /tmp/tmpzz99/x.png now"),
        ("a   b\n\n  c", "a b\nc\n"),
        ("Observation:\nExecution logs:\nhi\nLast output from code snippet:\nNone", "hi\nNone"),
        ("Call id: c1\nError:\nboom\nNow let's retry: take care", "boom"),
    ],
)
def test_what_does_not_count(recorded, actual):
    assert differences(recorded, actual) == []
    assert differences(actual, recorded) == []


@pytest.mark.parametrize(
    ("recorded", "actual", "said"),
    [
        ("accuracy: 0.91", "accuracy: 0.62", ['line 1: "accuracy: 0.91", now "accuracy: 0.62"']),
        ("a\nloss -0.5", "a\nloss 0.5", ['line 2: "loss -0.5", now "loss 0.5"']),
        ("3 files", "4 files", ['line 1: "3 files", now "4 files"']),
        ("lr 1e-05", "lr 1e5", ['line 1: "lr 1e-05", now "lr 1e5"']),
        ("a\nb\nc", "a\nc", ['line 2 is missing: "b"']),
        ("a\nc", "a\nb\nc", ['new line 2: "b"']),
        ("fine", "Traceback", ['line 1: "fine", now "Traceback"']),
        ("model resnet18", "model resnet50", ['line 1: "model resnet18", now "model resnet50"']),
        ("x", "", ['line 1 is missing: "x"']),
        ("y" * 500, "", ['line 1 is missing: "' + "y" * 117 + '..."']),
        ("0.12345678e-3", "0.99945678e3", ['line 1: "0.12345678e-3", now "0.99945678e3"']),
    ],
)
def test_what_counts_is_said_in_words(recorded, actual, said):
    assert differences(recorded, actual) == said


def test_the_tolerance_is_yours():
    assert differences("0.91", "0.92", relative=0, absolute=0)
    assert differences("100", "103")
    assert not differences("100", "103", relative=0.05)
    assert not differences("3 files", "4 files", absolute=1)


TEXTS = st.lists(st.text(string.printable, max_size=30), max_size=8).map("\n".join)
DIGEST = st.from_regex(r"a1[0-9a-f]{30}", fullmatch=True)


@given(TEXTS)
def test_equal_texts_never_differ(text):
    assert differences(text, text) == []
    assert differences(text, text + "\n") == []  # not by the short cut


@pytest.mark.long
@given(TEXTS, TEXTS, DIGEST, DIGEST, st.integers(1, 65535), st.floats(0, 1e5), st.floats(0, 1e5))
def test_only_volatile_parts_never_differ(before, after, one, other, port, short, long):
    frame = "{}\nsaved {} to http://127.0.0.1:{}/x in {:.2f} s\n{}"
    then = frame.format(before, one, 8000, short, after)
    assert differences(then, frame.format(before, other, max(port, 10), long, after)) == []


@given(TEXTS, TEXTS, st.floats(0, 1), st.floats(0, 1))
def test_a_changed_accuracy_is_always_told(before, after, then, now):
    assume(abs(then - now) > 0.0203)
    found = differences(f"{before}\naccuracy: {then:.4f}\n{after}", f"{before}\naccuracy: {now:.4f}\n{after}")
    assert any(f"{now:.4f}" in line for line in found)
