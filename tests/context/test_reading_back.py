"""Long outputs are shown in part, kept whole, and come back by their handle, from code too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conversations import action, text_of
from smolagents import LogLevel, Tool
from smolagents.memory import AgentMemory, TaskStep

from ml_intern.agent import InternAgent
from ml_intern.context import ArtifactStore, ContextManager, matching
from ml_intern.context.reading import read
from ml_intern.context.shorten import fits, kind, shorten
from ml_intern.secrets import Masker
from ml_intern.testing import ScriptedModel

HANDLE = re.compile(r"artifact:[0-9a-f]{16}")


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


def test_a_text_that_fits_is_left_as_it_is_and_a_long_one_keeps_head_tail_size_sort_and_handle() -> None:
    assert shorten("short", 100, "h") == "short"
    text = "HEAD" + "x" * 20_000 + "\n" + "y" * 10_000 + "TAIL"
    shown = shorten(text, 2_000, "artifact:0123456789abcdef")
    assert len(shown) <= 2_000 and shown.startswith("HEAD") and shown.endswith("TAIL")
    assert "text, 30,009 characters in 2 lines" in shown and "read_artifact('artifact:0123456789abcdef')" in shown


@pytest.mark.parametrize("piece", ["学", "🙂", "é", "\ud800"])
def test_heavy_characters_get_less_room(piece: str) -> None:
    shown = shorten(piece * 10_000, 2_000, "h")
    assert len(shown) < 2_000 and not fits(piece * 2_000, 2_000) and fits(piece * 50, 2_000)


@pytest.mark.parametrize(
    ("text", "sort"),
    [('{"a": 1}', "JSON"), ("[{'a': 1}]", "Python data"), ("a,b,c\n1,2,3\n4,5,6", "a table"), ("<html>", "markup"),
     ("Execution logs:\nTraceback (most recent call last):", "a traceback"), ("hello", "text")],
)  # fmt: skip
def test_sorts_of_text(text: str, sort: str) -> None:
    assert kind(text) == sort


def test_the_store_keeps_a_text_once_masked_and_gives_it_back(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "kept", Masker({"very-secret-value": "MY_TOKEN"}).text)
    handle = store.put("it is very-secret-value \ud800 é")
    assert store.put("it is very-secret-value \ud800 é") == handle
    assert store.get(handle) == "it is [secret:MY_TOKEN] \ufffd é"
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert ArtifactStore(tmp_path / "kept").get(handle), "another process reads it"
    for wrong in ("artifact:ffffffffffffffff", "artifact:../../etc", "artifact:*", ""):
        with pytest.raises(KeyError):
            store.get(wrong)


def test_a_temporary_store_is_gone_with_its_owner() -> None:
    store = ArtifactStore()
    store.put("text")
    folder = store.folder
    assert folder.is_dir()
    del store
    assert not folder.exists()


def test_parts_of_what_is_kept(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    handle = store.put("\n".join(f"line {n}" for n in range(1, 101)))
    one_line = store.put("x" * 3_000_000 + "NEEDLE" + "y" * 2_000_000)
    steps = [TaskStep("find it"), action(1, None, "nothing here"), action(2, "I take (this).", None, "KeyError: 'lr'")]
    assert read(steps, store, handle, "10-12") == "line 10\nline 11\nline 12"
    assert read(steps, store, handle, "99-") == "line 99\nline 100" and read(steps, store, handle, "7") == "line 7"
    assert read(steps, store, handle, grep=r"line \d?7$").split("\n")[:2] == ["7: line 7", "17: line 17"]
    assert read(steps, store, handle, "50-60", "LINE 55") == "55: line 55"
    found = read(steps, store, one_line, grep="NEEDLE")
    assert "NEEDLE" in found and len(found) < 1_000
    assert read(steps, store, "step:3") == "I take (this).\nError:\nKeyError: 'lr'"
    assert read(steps, store, "step:1-2").startswith("[step:1]\nThe user:\nfind it")
    assert read(steps, store, "history", grep="keyerror") == "step:3:3: KeyError: 'lr'"
    assert f"{handle}:42: line 42" == read(steps, store, "history", grep="^line 42$").split("\n")[0]
    assert read(steps, store, "history", grep="(this).") != "" and "Nothing matches" in read(
        steps, store, handle, grep="zzz"
    )


@pytest.mark.parametrize(
    ("handle", "lines", "said"),
    [("artifact:ffffffffffffffff", None, "There is no"), ("step:9", None, "steps are 1 to 1"), ("history", None, "grep="),
     ("step:1", "a-b", "`lines` is like"), ("step:0", None, "steps are")],
)  # fmt: skip
def test_what_is_not_there_is_said_with_what_is(handle: str, lines: str | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        read([TaskStep("task")], ArtifactStore(tmp_path), handle, lines)


class Table(Tool):
    name, description, output_type, effects = "table", "A table.", "object", "read"
    inputs: dict = {}

    def forward(self) -> dict:
        return {"rows": [f"row {n} of many" for n in range(5_000)]}


def test_from_code_the_whole_comes_back_and_values_are_never_cut() -> None:
    text = "''.join(f'epoch {n} loss {1 / (n + 1):.6f}' + chr(10) for n in range(3_000))"

    def reads(messages: list) -> str:
        handle = HANDLE.findall(text_of(messages))[-1]
        return code(f"t = read_artifact('{handle}')\nfinal_answer((len(t), t.count('epoch'), len(s), len(r['rows'])))")

    agent = InternAgent([Table()], ScriptedModel([code(f"s = {text}\nr = table()\nprint(s)"), reads]), verbosity_level=LogLevel.OFF)  # fmt: skip
    length, epochs, whole, rows = agent.run("Go.")
    assert epochs == 3_000 and rows == 5_000 and length >= whole > 60_000
    shown = text_of(agent.model.requests[1])
    assert "epoch 0 " in shown and "epoch 2999 " in shown and "epoch 1700 " not in shown
    assert len(agent.memory.steps[1].observations) > 60_000, "what the step saw is not altered"
    assert "row 4000 of many" in agent.context.read("history", grep="row 4000 of"), (
        "a result that was not printed is kept"
    )
    agent.cleanup()


def test_the_value_of_the_last_line_is_kept_whole_too() -> None:
    agent = InternAgent([], ScriptedModel([code("'ab' * 60_000 + 'END'"), code("final_answer(1)")]), verbosity_level=LogLevel.OFF)  # fmt: skip
    agent.run("Go.")
    assert agent.memory.steps[1].observations.endswith("abEND")
    assert "abEND" in agent.context.read(HANDLE.findall(text_of(agent.model.requests[1]))[-1])
    agent.cleanup()


def test_long_observations_lie_on_disk_and_are_the_same(tmp_path: Path) -> None:
    context, memory = ContextManager(store=ArtifactStore(tmp_path)), AgentMemory("system")
    step = action(1, None, "z" * 50_000)
    memory.steps = [TaskStep("task"), step]
    first = context.render(memory)
    assert step.shelf is not None and step.__dict__["observations"] is None
    assert step.observations == "z" * 50_000 and step.dict()["observations"] == "z" * 50_000
    assert context.render(memory) == first
    step.observations = "edited"
    assert step.observations == "edited" and "edited" in text_of(context.render(memory))
    step.observations = "z" * 50_000
    assert ContextManager(store=ArtifactStore(tmp_path)).render(memory) == first


@pytest.mark.long
def test_an_expression_that_backtracks_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(matching, "SECONDS", 1.0)
    steps = [TaskStep("a" * 60 + "!")]
    with pytest.raises(ValueError, match="takes too long"):
        read(steps, ArtifactStore(tmp_path), "history", grep="(a+)+$")
    assert read(steps, ArtifactStore(tmp_path), "history", grep="a+!").startswith("step:1:2: aaa")


def test_matches_are_given_once_and_only_so_many(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.put("same line\n" * 3 + "".join(f"hit {n}\n" for n in range(500)))
    steps = [TaskStep("same line")]
    assert read(steps, store, "history", grep="same line").count("same line") == 1
    found = read(steps, store, "history", grep="hit").split("\n")
    assert len(found) == 201 and "first 200 matches" in found[-1]


def test_a_search_that_finds_enough_early_does_not_wait_for_the_rest() -> None:
    texts = ((f"t{n}", 1, "".join(f"hit {n} {line} {'x' * 150}\n" for line in range(100))) for n in range(2_000))
    found = matching.find(texts, r"hit \d+ \d+ x+")
    assert len(found) == 201 and next(texts)[0] != "t1999"
