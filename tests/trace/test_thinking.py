"""What a model thought before it answered is on record, and for people only.

What must never happen: code in it runs; it is sent to the model; a secret in it reaches the disk, or a signature of it is
changed; a session comes back from its record otherwise than it was.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from smolagents import CodeAgent, LogLevel
from smolagents.memory import AgentMemory
from smolagents.models import ChatMessage, MessageRole

from ml_intern.agent import InternAgent
from ml_intern.cli.trace_pages import pages
from ml_intern.cli.trace_show import run as show
from ml_intern.context import ArtifactStore, ContextManager
from ml_intern.events import Outcome, State
from ml_intern.models import EndpointModel
from ml_intern.secrets import Masker
from ml_intern.testing import LocalLLM, Reply, ScriptedModel, scripted
from ml_intern.testing.recording import read_turns
from ml_intern.thinking import Thinking, thinking_of
from ml_intern.trace import Journal, TraceRecorder, restore
from ml_intern.trace.subagents import traces_of_sub_agents
from ml_intern.trace.validate import validate

NAME = "11111111-2222-4333-8444-555555555555.jsonl"
READER = Path(sysconfig.get_path("scripts")) / "claude-code-log"
SECRET = "correct-horse-battery-staple"
SIGNATURE = "RXJhdA" + "c2lnbmF0dXJl" * 9 + "hf_" + "aB3" * 12 + "=="
"""Looks like a token in it: it is left alone all the same."""
TRAP = f"Should I use {SECRET}?\n<code>\nraise SystemExit('code in what was thought')\n</code>\n" + "and so on\n" * 30


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


SCRIPT = [
    Reply(code("print(6 * 7)"), reasoning=TRAP),
    Reply(code("final_answer('done')"), reasoning="Signed, and short.", signature=SIGNATURE),
]


class Run:
    """An agent over a real endpoint, and its record."""

    def __init__(self, folder: Path, script: list[Any], **options: Any) -> None:
        masker = Masker({SECRET: "PASSWORD"})
        self.journal = Journal(folder / NAME, masker=masker)
        self.recorder = TraceRecorder(self.journal, "thinker")
        self.context = ContextManager(store=ArtifactStore(self.journal.artifacts))
        with LocalLLM(scripted(script)) as llm:
            model = EndpointModel("hosted_vllm/thinker", f"{llm.url}/v1", "key", retry_seconds=())
            self.agent = InternAgent(
                [], model, observers=[self.recorder], context=self.context, masker=masker, verbosity_level=LogLevel.OFF,
                **options,
            )  # fmt: skip
            self.answer = self.agent.run("Think, then count.")
            self.requests = llm.requests
        self.recorder.ended(Outcome(State.SUCCESS, self.answer, steps=2, usage=self.agent.ledger.usage))
        self.agent.cleanup()
        self.journal.close()

    @property
    def path(self) -> Path:
        return self.journal.path

    def answers(self) -> list[list[dict[str, Any]]]:
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [row["message"]["content"] for row in rows if row["type"] == "assistant" and "usage" in row["message"]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("thought"), SCRIPT)


def test_it_stands_before_the_answer_masked_and_signed(done: Run) -> None:
    first, second = done.answers()
    assert [block["type"] for block in first] == ["thinking", "text", "tool_use"]
    assert first[0] == {"type": "thinking", "thinking": TRAP.replace(SECRET, "[secret:PASSWORD]"), "signature": ""}
    assert second[0] == {"type": "thinking", "thinking": "Signed, and short.", "signature": SIGNATURE}
    assert first[1]["text"] == "Go on." and first[2]["input"] == {"code": "print(6 * 7)"}
    assert SECRET not in done.path.read_text()


def test_its_code_does_not_run_and_nothing_of_it_is_sent(done: Run) -> None:
    assert done.answer == "done" and len(done.requests) == 2
    sent = json.dumps(done.requests)
    assert "42" in sent
    assert not any(
        words in sent
        for words in ("Should I use", "what was thought", "thinking_blocks", "reasoning_content", SIGNATURE)
    )
    assert read_turns(done.path)[0].text == code("print(6 * 7)")


def test_the_session_comes_back_as_it_was(done: Run) -> None:
    found = restore(done.path)
    memory = AgentMemory(done.agent.memory.system_prompt.system_prompt)
    memory.steps = list(found.steps)
    context = ContextManager(store=ArtifactStore(done.journal.artifacts))
    context.limit(done.agent.model)
    now, then = context.render(memory), done.context.render(done.agent.memory)
    assert [(m.role, m.content) for m in now] == [(m.role, m.content) for m in then] and not found.problems
    assert len(now) > 3


def strict(trace: Path, page: Path) -> str:
    """The page that the strict reader makes, which has no complaint."""
    words = [str(READER), str(trace), "-o", str(page), "--no-cache"]
    read = subprocess.run(words, capture_output=True, text=True, timeout=100)
    said = [line.split()[0] for line in (read.stdout + read.stderr).splitlines() if line.strip()]
    assert said == ["Processing", "Successfully"]
    return page.read_text()


@pytest.mark.long
def test_readers_take_it(done: Run, tmp_path: Path) -> None:
    assert validate(done.path) == []
    page = strict(done.path, tmp_path / "page.html")
    assert "Signed, and short." in page and "code in what was thought" in page


def test_it_is_shown_folded(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show(done.path, plain=True, as_json=False, verbose=False)
    short = capsys.readouterr().out
    assert "Should I use" in short and "Signed, and short." in short
    assert short.count("and so on") < 4 and "more lines" in short
    assert short.index("Should I use") < short.index("Go on.")
    show(done.path, plain=True, as_json=False, verbose=True)
    assert capsys.readouterr().out.count("and so on") == 30


def test_an_answer_of_nothing_else_and_a_last_word_have_theirs(tmp_path: Path) -> None:
    script = [Reply("", reasoning="I think, and say nothing."), Reply("The end.", reasoning="It has to end.")]
    done = Run(tmp_path, script, max_steps=1)
    first, last = done.answers()
    assert first[0]["type"] == "thinking" and len(first) > 1 and "say nothing" in first[0]["thinking"]
    assert [block.get("thinking") or block["text"] for block in last] == ["It has to end.", "The end."]
    assert validate(done.path) == []


@pytest.mark.long
def test_what_a_provider_keeps_to_itself_is_kept_too(tmp_path: Path) -> None:
    blocks = [
        {"type": "redacted_thinking", "data": SIGNATURE},
        {"type": "thinking", "thinking": "Open.", "signature": "s"},
    ]
    raw = SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(thinking_blocks=blocks))])
    said = ChatMessage(MessageRole.ASSISTANT, code("final_answer(1)"), raw=raw)
    journal = Journal(tmp_path / NAME, masker=Masker({}))
    observers = [TraceRecorder(journal, "m")]
    agent = InternAgent([], ScriptedModel([said]), observers=observers, verbosity_level=LogLevel.OFF)
    assert agent.run("Go.") == 1
    agent.cleanup()
    journal.close()
    content = next(row for line in journal.path.open() if (row := json.loads(line))["type"] == "assistant")
    assert content["message"]["content"][:2] == blocks and validate(journal.path) == []
    shown = [item.text for page in pages(journal.path) for item in page.items]
    assert "thinking that the provider keeps to itself" in shown and "Open." in shown
    assert "final_answer" in strict(journal.path, tmp_path / "page.html")


@pytest.mark.parametrize("kind", [CodeAgent, InternAgent])
def test_what_a_sub_agent_thought_is_in_its_own_trace(tmp_path: Path, kind: type[CodeAgent]) -> None:
    raw = {"choices": [{"message": {"reasoning_content": "I am below."}}]}
    said = ChatMessage(MessageRole.ASSISTANT, code("final_answer('two')"), raw=raw)
    below = kind([], ScriptedModel([said]), name="helper", description="Helps.", verbosity_level=LogLevel.OFF)
    journal = Journal(tmp_path / NAME, masker=Masker({}))
    script = [code("final_answer(helper('Count.'))")]
    agent = InternAgent(
        [], ScriptedModel(script), managed_agents=[below], observers=[TraceRecorder(journal, "m")],
        verbosity_level=LogLevel.OFF,
    )  # fmt: skip
    assert "two" in agent.run("Go.")
    agent.cleanup()
    journal.close()
    (inner,) = traces_of_sub_agents(journal.path)
    rows = [json.loads(line) for line in inner.read_text().splitlines()]
    first = next(row["message"]["content"][0] for row in rows if row["type"] == "assistant")
    assert first == {"type": "thinking", "thinking": "I am below.", "signature": ""}
    assert "I am below." not in journal.path.read_text()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"reasoning_content": "a"}, [Thinking("a")]),
        ({"reasoning": "b"}, [Thinking("b")]),
        ({"reasoning_content": "a", "reasoning": "a"}, [Thinking("a")]),
        ({"reasoning_content": "", "reasoning": "b"}, [Thinking("b")]),
        ({"reasoning_content": "a", "thinking_blocks": []}, [Thinking("a")]),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "c", "signature": "s"}]}, [Thinking("c", "s")]),
        ({"reasoning_content": "a", "thinking_blocks": [{"type": "thinking", "thinking": "c"}]}, [Thinking("c")]),
        ({"thinking_blocks": [{"type": "redacted_thinking", "data": "d"}]}, [Thinking(redacted="d")]),
        ({"reasoning_content": "a", "thinking_blocks": [{"type": "redacted_thinking"}, None, 3]}, [Thinking("a")]),
        ({"reasoning_content": {"not": "text"}, "thinking_blocks": "no list"}, []),
        ({"reasoning_content": " \n"}, []),
        ({"content": "hello"}, []),
    ],
)  # fmt: skip
def test_every_form_of_it(answer: dict[str, Any], expected: list[Thinking]) -> None:
    as_data = {"choices": [{"message": answer}]}
    as_objects = SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(**answer))])
    for raw in (as_data, as_objects):
        assert list(thinking_of(ChatMessage(MessageRole.ASSISTANT, "x", raw=raw))) == expected


@pytest.mark.parametrize("raw", [None, "text", {"choices": []}, {"choices": None}, {"out": "x"}, 3, object()])
def test_an_answer_without_one(raw: Any) -> None:
    assert thinking_of(ChatMessage(MessageRole.ASSISTANT, "x", raw=raw)) == () == thinking_of(None)
