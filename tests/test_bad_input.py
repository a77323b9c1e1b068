"""Whatever a model answers and whatever its code does: a clear error or a usable observation within seconds, and the session
and its journal intact. Each case is followed by an ordinary step, which has to work."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ml_intern import InternError, MLIntern
from ml_intern.errors import NoModel, SettingsError
from ml_intern.events import StepFinished
from ml_intern.testing import LocalLLM, ScriptedModel, scripted
from ml_intern.trace import last_end, read_rows

DONE = "Done.\n<code>\nfinal_answer('went on')\n</code>"


def block(text: str) -> str:
    return f"Go.\n<code>\n{text}\n</code>"


ANSWERS = {
    "nothing": ("", "code"),
    "no code": ("I believe the answer is 42.", "code"),
    "half a code block": ("Go.\n<code>\nprint('half')", "half"),
    "a Markdown fence": ("Go.\n```python\nprint('fenced')\n```", "fenced"),
    "binary garbage": (bytes(range(256)).decode("latin-1") * 50, ""),
    "garbage as code": (block("\x00\x01\x02 \x7f"), ""),
    "lone surrogates": (block("print('\ud800')"), ""),
    "400 kB of code": (block("x = 0\n" + "x += 1  # padding\n" * 22_000 + "print(x)"), "22000"),
    "2 MB of code": (block("x = 0\n" + "x += 1  # padding\n" * 110_000 + "print(x)"), "110000"),
    "a syntax error": (block("def f(:\n  pass"), "SyntaxError"),
    "only thinking tags": ("<think>hmm</think>", "code"),
}

ACTIONS = {
    "prints 50 MB": ("for _ in range(50):\n    print('x' * 1_000_000)", "x"),
    "prints 300 MB": ("for _ in range(300):\n    print('x' * 1_000_000)", "x"),
    "recurses for ever": ("def f():\n    return f()\nf()", "RecursionError"),
    "forks": ("import os\npid = os.fork()\nif pid == 0:\n    os._exit(3)\nprint(os.waitpid(pid, 0)[1] >> 8)", "3"),
    "a fork that lives on": ("import os, time\nif os.fork() == 0:\n    time.sleep(30)\nprint('parent')", "parent"),
    "closes its stdout": ("import os, sys\nprint('before')\nsys.stdout.close()\nos.close(1)", ""),
    "closes everything": ("import os\nos.closerange(0, 1000)", ""),
    "kills itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "restarted"),
    "exits": ("import os\nos._exit(1)", "restarted"),
    "sys.exit": ("import sys\nsys.exit(2)", "SystemExit"),
    "takes all memory": ("x = [bytearray(200_000_000) for _ in range(200)]", ""),
    "replaces print": ("import builtins\nbuiltins.print = None\nimport sys\nsys.stdout = None", ""),
    "talks protocol": ("print('{\"op\": \"done\", \"n\": 1}')", "op"),
}  # fmt: skip


def sampled(cases: dict) -> list:
    """The largest ones only with `make soak`."""
    return [
        pytest.param(name, marks=pytest.mark.soak) if name in ("2 MB of code", "prints 300 MB") else name
        for name in cases
    ]


@pytest.fixture
def intern(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ML_INTERN_MEMORY_GB", "1.5")
    made: list[MLIntern] = []

    def build(script: list) -> MLIntern:
        made.append(MLIntern(ScriptedModel(script), home=home, tools=[], max_iterations=5))
        return made[-1]

    yield build
    for one in made:
        one.close()


def check(intern: MLIntern, expected: str) -> None:
    started = time.monotonic()
    assert intern.run("Go.") == "went on"
    assert time.monotonic() - started < 25
    session = intern.session()
    first = next(event for event in session.events.history if isinstance(event, StepFinished))
    assert expected in first.observation + first.error
    assert len(first.observation + first.error) < 200_000
    lines = session.trace.read_bytes().splitlines()
    assert all(json.loads(line) for line in lines) and len(list(read_rows(session.trace))) == len(lines)
    assert last_end(session.trace).state == "success"


@pytest.mark.parametrize("name", sampled(ANSWERS))
def test_whatever_the_model_answers(intern, name: str) -> None:
    answer, expected = ANSWERS[name]
    check(intern([answer, DONE]), expected)


@pytest.mark.parametrize("name", sampled(ACTIONS))
def test_whatever_the_code_does(intern, name: str) -> None:
    text, expected = ACTIONS[name]
    check(intern([block(text), DONE]), expected)


@pytest.mark.long
@pytest.mark.parametrize("megabytes", [100, pytest.param(300, marks=pytest.mark.soak)])
def test_the_host_stays_small_however_much_is_printed(home: Path, megabytes: int) -> None:
    """In a process of its own: another test's memory, freed or not, is no measure."""
    program = f"""
import resource
from pathlib import Path
from ml_intern import MLIntern
from ml_intern.testing import ScriptedModel
small = "<code>\\nfor _ in range(3):\\n    print('y' * 1_000_000)\\n</code>"
script = [small, small.replace("range(3)", "range({megabytes})"), "<code>\\nfinal_answer(1)\\n</code>"]
peaks = []
def peak(event):
    if type(event).__name__ == "StepFinished":
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
with MLIntern(ScriptedModel(script), home=Path({str(home)!r}), tools=[], on_event=peak) as intern:
    intern.run("Go.")
print(peaks[1] - peaks[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    assert int(done.stdout) < 40_000  # kB


@pytest.mark.parametrize("task", ["", "  \n "])
def test_an_empty_task(intern, task: str) -> None:
    with pytest.raises(InternError, match="The task is empty"):
        intern([]).run(task)


def test_an_unreachable_endpoint(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", "http://127.0.0.1:9")
    with MLIntern("vllm/some-model", home=home, tools=[]) as intern:
        with pytest.raises(InternError, match=r"Nothing answers for .*127\.0\.0\.1:9"):
            intern.run("Go.")
        assert last_end(intern.session().trace).state == "error"


def test_no_model_at_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for server in ("OLLAMA", "VLLM", "LMSTUDIO", "LLAMACPP"):
        monkeypatch.setenv(f"{server}_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(NoModel) as caught:
        MLIntern(home=home)
    assert len(str(caught.value).splitlines()) == 3
    assert "LLM_ENDPOINT" in str(caught.value) and "demo" in str(caught.value)


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"Cannot write to .*--home"):
        try:
            MLIntern(ScriptedModel([]), home=tmp_path / "file")
        except SettingsError as error:
            raise SettingsError(str(error).replace("\n", " ")) from None


def test_a_setting_that_is_no_number(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_INTERN_ACTION_SECONDS", "soon")
    with pytest.raises(SettingsError, match="action_seconds"):
        MLIntern(ScriptedModel([]), home=home)


@pytest.mark.long
def test_a_disk_that_fills_up_while_journalling(home: Path) -> None:
    """Nothing takes effect that is not on record; what was written stays whole; the turn says what happened."""
    program = f"""
import resource, signal
from pathlib import Path
from ml_intern import InternError, MLIntern
from ml_intern.testing import ScriptedModel
from smolagents import Tool
ran = []
class Act(Tool):
    name, description, output_type, inputs = "act", "Acts.", "integer", {{"n": {{"type": "integer", "description": "Which."}}}}
    def forward(self, n: int) -> int:
        ran.append(n)
        return n
from ml_intern.events import ApprovalAnswer
script = [f"<code>\\nprint('x' * 3000)\\nact({{i}})\\n</code>" for i in range(50)]
intern = MLIntern(ScriptedModel(script), home=Path({str(home)!r}), tools=[Act()], on_approval=lambda r: ApprovalAnswer("approve"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
try:
    intern.run("Go.")
except InternError as error:
    print(len(ran), error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    count, message = done.stdout.strip().split(" ", 1)
    assert "Cannot write the journal" in message and "Free space" in message
    (trace,) = (home / "sessions").glob("*.jsonl")
    data = trace.read_bytes()
    assert data.endswith(b"\n") and len(data) <= 40_000
    asked = [
        row
        for row in read_rows(trace)
        if row["type"] == "assistant" and row["message"]["content"][-1].get("name") == "act"
    ]
    assert 0 < int(count) <= len(asked), "each call that was made is on record"


def test_an_endpoint_that_answers_nonsense(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalLLM(scripted(["", "no code here", DONE])) as llm:
        monkeypatch.setenv("VLLM_BASE_URL", llm.url)
        with MLIntern("vllm/some-model", home=home, tools=[]) as intern:
            assert intern.run("Go.") == "went on"
