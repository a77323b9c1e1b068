"""Traces as an independent reader of the format takes them: `claude-code-log`, the strictest there is on PyPI."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest
from smolagents import Tool

from ml_intern import MLIntern
from ml_intern.events import ApprovalAnswer
from ml_intern.testing import ScriptedModel

READER = Path(sysconfig.get_path("scripts")) / "claude-code-log"


class Publish(Tool):
    name, description, output_type, effects = "publish", "Publishes.", "string", "write"
    inputs = {"what": {"type": "string", "description": "What."}}

    def forward(self, what: str) -> str:
        return f"published {what}"


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


SCRIPT = [
    code("from concurrent.futures import ThreadPoolExecutor\nprint(list(ThreadPoolExecutor(4).map(publish, 'abcd')))"),
    code("1 / 0"),
    "no code at all",
    code("from PIL import Image\ndisplay(Image.new('RGB', (20, 10), 'teal'))"),
    code("print('\\u2028 \\u0085 caf\\u00e9 \\U0001f600')", "Emoji \u2028 and separators \U0001f600"),
    code("final_answer({'accuracy': 0.97})"),
]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    answers = iter(["approve", "reject", "approve", "approve"])
    home = tmp_path_factory.mktemp("home")
    ask = lambda request: ApprovalAnswer(next(answers), "because", "test")  # noqa: E731
    with MLIntern(ScriptedModel(SCRIPT), home=home, tools=[Publish()], on_approval=ask) as intern:
        session = intern.submit("Show everything that a trace can hold.")
        assert session.wait(60) is not None
        return session.trace


def test_the_strict_reader_has_no_complaint(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = subprocess.run([str(READER), str(trace), "-o", str(page)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert [line.split()[0] for line in said] == ["Processing", "Successfully"], said
    text = page.read_text()
    for shown in ("Show everything", "publish", "ZeroDivisionError", "no code at all", "0.97"):
        assert shown in text
    assert "data:image/png;base64" in text


def test_every_line_survives_a_reader_that_splits_at_unicode_line_ends(trace: Path) -> None:
    import json

    text = trace.read_text(encoding="utf-8")
    assert len(text.splitlines()) == text.count("\n")
    assert all(json.loads(line) for line in text.splitlines())
