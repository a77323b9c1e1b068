"""`trace`: what a person sees of a session's record, and what a program gets of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from terminal import Terminal

from ml_intern import MLIntern
from ml_intern.cli import main
from ml_intern.cli.trace_html import ROWS, parts
from ml_intern.cli.trace_pages import pages
from ml_intern.cli.trace_show import Viewer
from ml_intern.secrets import Masker
from ml_intern.testing import ScriptedModel
from ml_intern.trace import Journal, rows
from ml_intern.trace.validate import validate


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


SCRIPT = [
    code("for i in range(40):\n    print('line', i)", "I count to forty."),
    code("notes(add='seed 1234')\n1 / 0"),
    code("final_answer({'accuracy': 0.97})"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one session."""
    home = tmp_path_factory.mktemp("a home")
    with MLIntern(ScriptedModel(SCRIPT), home=home, tools=[]) as intern:
        intern.run("Count to forty\x1b[31m and divide.")
    return home


@pytest.fixture
def trace(place: Path) -> Path:
    return next((place / "sessions").glob("*.jsonl"))


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = main(["trace", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_show_tells_a_session_from_its_task_to_its_end(capsys, place: Path, trace: Path) -> None:
    status, out, _ = run(capsys, "show", trace.stem[:8], "--home", place)
    assert status == 0 and "\x1b" not in out and r"\x1b[31m" in out
    order = [
        "Task",
        "Count to forty",
        "Step 1",
        "I count to forty.",
        "print('line', i)",
        "line 0",
        "more lines",
        "line 39",
        "Step 2",
    ]
    order += ['notes(add="seed 1234")', "ZeroDivisionError", "Step 3", "0.97", "End", "success"]
    places = [out.index(words) for words in order]
    assert places == sorted(places)
    assert "line 20" not in out and "line 20" in run(capsys, "show", trace, "--verbose")[1]


def test_show_as_json_is_a_line_a_page(capsys, trace: Path) -> None:
    _, out, _ = run(capsys, "show", trace, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [page["step"] for page in found if page["step"]] == [1, 2, 3]
    assert "line 39" in found[1]["items"][-1]["text"]


def test_another_programs_trace_is_shown_as_well(capsys, tmp_path: Path) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    message = {
        "id": "m",
        "role": "assistant",
        "model": "theirs",
        "content": [thinking, call],
        "usage": {"input_tokens": 3},
    }
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "a.txt", "is_error": True}
    made = [
        {"type": "user", "message": {"role": "user", "content": "List."}},
        {"type": "assistant", "message": message},
        {"type": "user", "message": {"role": "user", "content": [result]}},
        {"type": "summary", "summary": "x"},
        {"type": "assistant", "message": None},
        {"type": "user", "message": 3},
    ]
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    status, out, _ = run(capsys, "show", path)
    assert status == 0 and all(
        words in out for words in ("List.", "Step 1", "Hm.", 'Bash(command="ls")', "✗", "a.txt")
    )
    path.write_text("{}\n")
    assert run(capsys, "show", path)[0] == 1


def test_the_viewer_steps_scrolls_unfolds_and_finds(trace: Path) -> None:
    viewer = Viewer(pages(trace), trace.stem)
    width, height = 80, 10

    def page() -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(viewer.lines(width)))

    assert "Count to forty" in page()
    viewer.step(1)
    assert "line 39" in page() and "line 20" not in page()
    viewer.search("LINE 20")
    assert viewer.told == "on no other page" and "line 20" in page()
    viewer.to_match(width, height)
    assert "line 20" in re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(viewer.lines(width)[viewer.top : viewer.top + height]))
    viewer.search("zerodivision")
    assert viewer.pages[viewer.place].step == 2
    viewer.search("nowhere to be found")
    assert viewer.told.startswith("not found") and viewer.pages[viewer.place].step == 2
    viewer.scroll(10**6, width, height)
    assert viewer.top == max(len(viewer.lines(width)) - height, 0)
    viewer.step(10**9)
    assert viewer.pages[viewer.place].heading == "End" and viewer.top == 0
    viewer.step(1)
    assert viewer.told == "the last page"


def test_the_keys_do_what_the_bar_says(trace: Path) -> None:
    viewer = Viewer(pages(trace), trace.stem)
    with create_pipe_input() as keys:
        app = viewer.application(input=keys, output=DummyOutput())
        keys.send_text("\x1b[C\x1b[C")  # right, right
        keys.send_text("o/seed 1234\rq")
        app.run()
    assert viewer.pages[viewer.place].step == 2 and viewer.found == "seed 1234"


@pytest.mark.long
def test_on_a_terminal_it_fits_the_screen_and_ends_with_q(trace: Path) -> None:
    with Terminal("-m", "ml_intern", "trace", "show", str(trace)) as terminal:
        terminal.until("1 of ")
        terminal.type("n")
        terminal.until("I count to forty")
        terminal.type("q")
        assert terminal.ends() == 0


def test_run_says_step_by_step_and_ends_with_its_code(capsys, trace: Path) -> None:
    status, out, _ = run(capsys, "run", trace)
    assert (
        status == 0 and "✓ Reproducible  3 same" in out and "step 2  same" in out and "the jail is" in out.casefold()
    )
    status, out, _ = run(capsys, "run", trace, "--json")
    report = json.loads(out)
    assert report["reproducible"] and [step["verdict"] for step in report["steps"]] == ["same"] * 3


def test_run_shows_what_differs(capsys, trace: Path, tmp_path: Path) -> None:
    other = tmp_path / trace.name
    other.write_text(trace.read_text().replace("range(40)", "range(41)"))
    status, out, _ = run(capsys, "run", other)
    assert status == 1 and "✗ Not reproducible  2 same, 1 differs" in out and 'new line 42: "line 40"' in out
    assert "It parts at step 1" in out


def test_compare_puts_two_side_by_side(capsys, trace: Path, tmp_path: Path) -> None:
    other = tmp_path / trace.name
    other.write_text(trace.read_text().replace("range(40)", "range(41)"))
    status, out, _ = run(capsys, "compare", trace, other)
    assert status == 0 and "They part at step 1, code:" in out and "range(41)" in out
    assert re.search(r"steps +3, 1 failed +3, 1 failed", out) and re.search(r"notes +1 call +1 call", out)
    assert "✓ The same was done" in run(capsys, "compare", trace, trace)[1]
    assert json.loads(run(capsys, "compare", trace, other, "--json")[1])["divergence"]["what"] == "code"


def test_decisions_path_and_validate(capsys, place: Path, trace: Path, tmp_path: Path) -> None:
    assert run(capsys, "path", "--home", place)[1] == f"{trace}\n"
    assert "No decision is on record." in run(capsys, "decisions", trace)[1]
    journal = Journal(tmp_path / trace.name, masker=Masker({}))
    journal.note("decision", subject="model", choice="tiny", reason="it is fast", sources=["a paper"], step=3)
    journal.close()
    _, out, _ = run(capsys, "decisions", journal.path)
    assert "step 3" in out and "model: tiny" in out and "it is fast" in out and "a paper" in out
    assert json.loads(run(capsys, "decisions", journal.path, "--json")[1])["choice"] == "tiny"

    status, out, _ = run(capsys, "validate", trace)
    assert (status, out) == (0, "1 trace, none with something that a reader will not take\n")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    status, out, _ = run(capsys, "validate", tmp_path)
    assert status == 1 and "bad.jsonl: line 1: it is no object with a `type`" in out and "2 traces, 2 with" in out
    assert json.loads(run(capsys, "validate", tmp_path / "bad.jsonl", "--json")[1])["complaints"]
    status, _, err = run(capsys, "path", "nothing like it", "--home", place)
    assert status == 1 and "There is no session" in err


def test_html_is_a_page_and_says_where(capsys, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "a folder" / "page.html"
    status, said, _ = run(capsys, "html", trace, "--out", out)
    assert status == 0 and str(out) in said.replace("\n", "")
    page = out.read_text()
    assert "I count to forty" in page and "ZeroDivisionError" in page and "<nav style" not in page
    assert run(capsys, "html", trace)[0] == 0 and (trace.with_suffix("") / "trace.html").exists()


@pytest.mark.long
def test_html_without_the_renderer_says_how_to_get_it(trace: Path, tmp_path: Path) -> None:
    program = "import sys; sys.modules['claude_code_log'] = None; from ml_intern.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "trace", "html", str(trace), "--out", str(tmp_path / "x.html")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and 'pip install "smolagents-ml-intern[html]"' in done.stderr
    assert not (tmp_path / "x.html").exists()


def long_trace(path: Path, steps: int) -> Path:
    """A session of four rows a step."""
    journal = Journal(path, masker=Masker({}))
    journal.user("Work long.", stepKind="task")
    for step in range(1, steps + 1):
        call = f"t{step}"
        content = [
            rows.text_block(f"Thought {step}."),
            rows.call_block(call, "python_interpreter", {"code": f"print({step})"}),
        ]
        journal.answer(content, "m", rows.usage_of(10, 5), "tool_use", step=step, modelOutput="x")
        journal.call(f"c{step}", "look", {"n": step}, "m", step=step, effects="read")
        journal.result(f"c{step}", "found")
        journal.result(call, f"Execution logs:\n{step}")
    journal.title("A long one")
    journal.close()
    return path


@pytest.mark.long
def test_a_long_session_becomes_pages_that_lead_to_each_other(capsys, tmp_path: Path) -> None:
    trace = long_trace(tmp_path / "11111111-2222-4333-8444-555555555555.jsonl", 600)
    found = list(parts(trace))
    assert [(part.first, part.last) for part in found] == [(1, 250), (251, 500), (501, 600)]
    for number, part in enumerate(found):  # no call is parted from its result, no row hangs in the air
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / trace.name).write_bytes(b"".join(map(rows.line, part.rows)))
        assert [c for c in validate(folder / trace.name) if "row of a user" not in c.what] == []
        assert len(part.rows) <= ROWS + 5
    status, said, _ = run(capsys, "html", trace, "--out", tmp_path / "out.html")
    assert status == 0 and "in 3 pages that lead to each other" in said
    second = (tmp_path / "out-2.html").read_text()
    assert 'href="out.html">1–250' in second and "<b>251–500</b>" in second and 'href="out-3.html">501–600' in second
    assert "Thought 251." in second and "Thought 250." not in second


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_a_session_of_ten_thousand_rows_opens_in_a_browser(capsys, tmp_path: Path) -> None:
    trace = long_trace(tmp_path / "11111111-2222-4333-8444-555555555555.jsonl", 2500)
    assert len(trace.read_text().splitlines()) > 10_000
    started = time.monotonic()
    assert run(capsys, "html", trace, "--out", tmp_path / "out.html")[0] == 0
    assert time.monotonic() - started < 60
    for name in ("out", "out-10"):
        words = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]
        words += [
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1000,800",
        ]
        page, shot = tmp_path / f"{name}.html", tmp_path / f"{name}.png"
        subprocess.run([*words, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=60, check=True)
        assert shot.stat().st_size > 20_000
