"""Replay. What must never happen: a recorded call that writes or spends takes effect again; the session's own files change;
a difference is passed over without a word.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from smolagents import Tool

from ml_intern import MLIntern
from ml_intern.errors import InternError
from ml_intern.events import ApprovalAnswer
from ml_intern.replay import ReplayReport, Verdict, replay
from ml_intern.testing import LocalHub, ScriptedModel

SAME, DIFFERS, NOT_COMPARED = Verdict.SAME, Verdict.DIFFERS, Verdict.NOT_COMPARED
SECRET = "very-secret-value-1234"


class Publish(Tool):
    name, description, output_type, effects = "publish", "Publishes.", "string", "write"
    inputs = {"what": {"type": "string", "description": "What."}}
    sends = ("what",)

    def __init__(self, workspace: Any = None) -> None:
        super().__init__()
        self.workspace, self.published = workspace, []

    def forward(self, what: str) -> str:
        self.published.append(what)
        return f"published {what} as 1a2b3c4d"


class Look(Tool):
    """Answers a little differently each time."""

    name, description, output_type, effects = "look", "Looks something up.", "any", "read"
    inputs = {"what": {"type": "any", "description": "What."}}

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[Any] = []

    def forward(self, what: Any) -> Any:
        self.looked.append(what)
        if what == "nothing":
            raise KeyError(f"there is no {what}")
        if what == "much":
            return "m" * 300_000 + str(len(self.looked))
        return {1, 2} if what == "object" else {"what": what, "n": len(self.looked)}


class Fetch(Tool):
    """Puts a file into the workspace, as a download does."""

    name, description, output_type, effects = "fetch", "Fetches.", "object", "read"
    inputs = {"folder": {"type": "string", "description": "Where to."}}

    def __init__(self, workspace: Any = None) -> None:
        super().__init__()
        self.workspace = workspace

    def forward(self, folder: str) -> dict[str, Any]:
        self.workspace.write_bytes(f"{folder}/train.csv", b"a,b\n1,2\n")
        return {"folder": folder, "files": [{"path": f"{folder}/train.csv", "size": 8}]}


def code(text: str, thought: str = "Go on.") -> str:
    return f"{thought}\n<code>\n{text}\n</code>"


@pytest.fixture
def recorded(home: Path) -> Callable[..., Path]:
    """A session with these actions, from its beginning to its end; returns its trace."""

    def record(*actions: str, tools: Sequence[Tool] = (), **handed: Any) -> Path:
        script = [*map(code, actions), *([] if "final_answer" in actions[-1] else [code("final_answer('done')")])]
        approve = lambda request: ApprovalAnswer("approve", by="test")  # noqa: E731
        made = list(tools) or [Look(), Publish(), Fetch()]
        with MLIntern(ScriptedModel(script), home=home, tools=made, on_approval=approve) as intern:
            session = intern.submit("Work.", **handed)
            outcome = session.wait(60)
            assert outcome is not None, "it hangs"
            return session.trace

    return record


def verdicts(report: ReplayReport) -> list[Verdict]:
    return [step.verdict for step in report.steps]


def test_what_code_did_it_does_again_and_nothing_else_happens(recorded) -> None:
    publish, look = Publish(), Look()
    trace = recorded(
        "x = [i ** 2 for i in range(10)]\nopen('x.json', 'w').write(str(x))\nprint(sum(x))",
        "found = look(what='imdb')\nprint(found['n'], look('imdb')['n'], look({'what': 'imdb'})['n'])",
        "print(publish('x.json'))",
        "try:\n    look('nothing')\nexcept KeyError as error:\n    print(type(error).__name__, error)",
        "1 / 0",
        "final_answer({'sum': sum(x), 'found': found})",
        tools=[publish, look],
    )
    called, before = (list(publish.published), list(look.looked)), everything_below(trace.parent)
    told: list[Any] = []
    report = replay(trace, on_step=told.append)
    assert verdicts(report) == [SAME] * 6 and report.reproducible and report.exit_code == 0
    assert told == list(report.steps) and [step.calls for step in report.steps] == [0, 3, 1, 1, 0, 1]
    assert (publish.published, look.looked) == called and called[0] == ["x.json"]
    assert everything_below(trace.parent) == before
    assert any("empty" in sentence for sentence in report.setup)
    json.dumps(report.to_dict())


def everything_below(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_numbers_may_differ_a_little_and_it_says_how_much(recorded) -> None:
    noisy = "import time\nt = time.time_ns() % 1000 / 1e6\nprint(f'accuracy: {{{} + t:.9f}}')"
    report = replay(recorded(noisy.format(0.9)), tolerance=0.01)
    assert verdicts(report) == [SAME, SAME] and 0 < report.steps[0].deviation < 0.01
    report = replay(recorded(noisy.format(0.9)), tolerance=0)
    assert verdicts(report) == [DIFFERS, SAME] and not report.reproducible and report.exit_code == 1
    assert "accuracy: 0.9" in report.steps[0].differences[0] and ", now " in report.steps[0].differences[0]
    assert report.first_difference is report.steps[0]


def test_times_ids_and_addresses_are_passed_over_and_that_is_said_but_digests_count(recorded) -> None:
    report = replay(
        recorded(
            "import time, uuid\nprint(uuid.uuid4())\nprint(object())\nprint(time.strftime('%H:%M:%S'), time.strftime('%Y-%m-%d'))",
            "import os\nprint(os.urandom(20).hex() + 'a1')",
        )
    )
    assert verdicts(report)[:2] == [SAME, DIFFERS]
    passed = report.steps[0].remarks[-1]
    assert "ids" in passed and "memory addresses" in passed


def test_code_that_is_not_repeatable_is_told_and_no_seed_is_added(recorded) -> None:
    report = replay(
        recorded(
            "import random\nprint([random.random() for _ in range(9)])",
            "final_answer([random.random() for _ in range(9)])",
        )
    )
    assert verdicts(report) == [DIFFERS, DIFFERS]


def test_a_call_that_was_not_made_then_is_refused_and_one_that_was_is_missed(recorded) -> None:
    publish = Publish()
    trace = recorded(
        "import os\nname = os.urandom(8).hex() + 'f1'\nopen(name, 'w').write('')\nprint(len(publish(name)))",
        tools=[publish],
    )
    step = replay(trace, tools=[publish], live_reads=True).steps[0]
    assert step.verdict is DIFFERS and len(publish.published) == 1
    assert any("which is not in the recording" in line for line in step.differences)
    assert any("was not called" in line for line in step.differences)


def test_calls_are_matched_by_arguments_first_in_first_out_and_from_threads(recorded) -> None:
    trace = recorded(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n    got = list(pool.map(look, 'abcdefgh'))\n"
        "print([one['what'] for one in got], sorted(one['n'] for one in got))",
        "print([look('a')['n'] for _ in range(4)])",
    )
    assert replay(trace).reproducible


def test_reads_are_made_anew_when_asked_for_and_never_anything_else(recorded) -> None:
    publish, look = Publish(), Look()
    trace = recorded(
        "print(look('a')['what'])", "open('x', 'w').write('')\nprint(publish('x'))", tools=[publish, look]
    )
    report = replay(trace, live_reads=True, tools=[publish, look])
    assert report.reproducible and len(look.looked) == 2 and len(publish.published) == 1
    assert any("answers differently now" in remark for remark in report.steps[0].remarks)
    assert any("Called anew: look" in sentence for sentence in report.setup)
    assert not any("Called anew" in sentence for sentence in replay(trace).setup)


def test_results_in_files_come_back_and_where_they_are_gone_it_says_so(recorded) -> None:
    trace = recorded("text = look('much')\nprint(len(text), text[-1])", "print('y' * 300_000)")
    assert replay(trace).reproducible
    for artifact in (trace.with_suffix("") / "artifacts").iterdir():
        artifact.unlink()
    report = replay(trace)
    assert verdicts(report)[:2] == [NOT_COMPARED, SAME]
    assert any("its text lies in a file that is not here" in remark for remark in report.steps[0].remarks)


def test_a_result_that_was_an_object_is_not_made_up(recorded) -> None:
    report = replay(recorded("print(len(look('object')))"))
    assert report.steps[0].verdict is NOT_COMPARED and not report.reproducible
    assert any("is not in the recording: it was an object" in remark for remark in report.steps[0].remarks)


def test_a_masked_value_is_matched_as_it_was_recorded(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)
    trace = recorded(f"print(look('{SECRET}')['n'])", "print(look('very-secret-' + 'value-1234')['n'])")
    assert SECRET not in trace.read_text()
    report = replay(trace)
    assert verdicts(report) == [SAME, SAME, SAME]
    assert "a secret is masked in its code" in report.steps[0].remarks


def test_what_was_handed_over_is_there_if_it_still_is(recorded, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("12 rows")
    (tmp_path / "gone.txt").write_text("gone")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    handed = [tmp_path / "data.txt", tmp_path / "gone.txt", tmp_path / "folder"]
    trace = recorded("print(open('data.txt').read(), open('folder/a.txt').read())", files=handed)
    workspace = trace.with_suffix("") / "workspace"
    (workspace / "gone.txt").unlink()
    report = replay(trace)
    assert report.reproducible
    assert (
        "what was handed over: data.txt, folder." in report.setup[1]
        and "not here any more: gone.txt" in report.setup[2]
    )
    (workspace / "data.txt").write_text("many more rows")
    report = replay(trace)
    assert verdicts(report) == [DIFFERS, SAME] and any(
        "of another size since: data.txt" in line for line in report.setup
    )


def test_it_starts_on_a_copy_of_a_folder_and_follows_no_link_out_of_it(recorded, tmp_path: Path) -> None:
    trace = recorded("import os\nprint(sorted(os.listdir('.')))")
    folder = tmp_path / "start"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    report = replay(trace, workspace_copy=folder)
    assert report.steps[0].differences[0].endswith("""now "['a.txt']\"""") or "a.txt" in str(
        report.steps[0].differences
    )
    assert "link.txt" not in str(report.steps[0].differences)
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "link.txt"]
    with pytest.raises(InternError, match="There is no folder"):
        replay(trace, workspace_copy=tmp_path / "none")


def test_files_that_a_tool_brought_come_from_the_sessions_workspace(recorded) -> None:
    trace = recorded(
        "got = fetch('data/imdb')", "print(open(got['files'][0]['path']).read())", "print(undefined_before := 1)"
    )
    report = replay(trace)
    assert report.reproducible and any("brought then" in remark for remark in report.steps[0].remarks)
    (trace.with_suffix("") / "workspace" / "data" / "imdb" / "train.csv").unlink()
    (trace.with_suffix("") / "workspace" / "data" / "imdb").rmdir()
    report = replay(trace)
    assert verdicts(report) == [SAME, NOT_COMPARED, SAME, SAME]
    assert any("what it reads is not here: data/imdb" in remark for remark in report.steps[1].remarks)


def test_what_was_sent_is_compared_with_what_would_be_sent(recorded) -> None:
    trace = recorded(
        "open('card.md', 'w').write('accuracy: 0.91\\n')\nprint(publish('card.md'))",
        "import os\nopen('model.bin', 'wb').write(b'\\0' + os.urandom(20))\nprint(publish('model.bin'))",
    )
    report = replay(trace)
    assert report.reproducible and report.steps[0].remarks == ()
    assert any("model.bin, which `publish` sent then: other bytes now" in remark for remark in report.steps[1].remarks)


def test_images_that_show_something_else_are_a_difference(recorded) -> None:
    shows = "from PIL import Image\nimport os\ndisplay(Image.new('RGB', (20, 10), {}))"
    assert replay(recorded(shows.format("'teal'"))).reproducible
    trace = recorded(shows.format("(int(os.path.exists('later')) * 200, 0, 0)") + "\nopen('later', 'w').write('')")
    folder = trace.parent / "start"
    folder.mkdir()
    (folder / "later").write_text("")
    step = replay(trace, workspace_copy=folder).steps[0]
    assert step.verdict is DIFFERS and "pixels differ by" in step.differences[0]


def test_image_sizes_and_images_that_do_not_read_are_said() -> None:
    from ml_intern.differences import image_difference
    from ml_intern.trace.rows import image_block

    one = image_block(Image.new("RGB", (4, 4)))["source"]["data"]
    assert image_difference(one, Image.new("RGB", (4, 4))) == ""
    assert "4 x 4 pixels then, 5 x 4 now" in image_difference(one, Image.new("RGB", (5, 4)))
    assert "does not read" in image_difference("bm9uZQ==", Image.new("RGB", (4, 4)))


def test_a_process_that_died_dies_again_and_what_was_saved_comes_back(recorded) -> None:
    trace = recorded("x = 5", "import os\nos._exit(3)", "print(x)")
    report = replay(trace)
    assert verdicts(report)[1] is SAME, report.steps[1]
    assert "exited with status 3" in trace.read_text()


def test_code_that_takes_too_long_now_is_stopped_and_not_held_against_it(recorded) -> None:
    trace = recorded("import time\ntime.sleep(1.2)\nprint('slow')", "print(1)")
    report = replay(trace, seconds=0.5)
    assert verdicts(report) == [NOT_COMPARED, SAME, SAME]
    assert any("stopped after 0.5 seconds" in remark for remark in report.steps[0].remarks)


def test_code_that_took_too_long_then_is_stopped_likewise(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_INTERN_ACTION_SECONDS", "0.5")
    trace = recorded("x = 1\nprint('begun')\nwhile True:\n    pass", "print(x)")
    assert "exceeded the maximum execution time of 0.5 seconds" in trace.read_text()
    report = replay(trace)
    assert report.reproducible and report.steps[0].seconds < 10


def test_a_link_in_place_of_the_workspace_or_the_packages_is_not_followed(recorded, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "data.txt").write_text("own")
    mode = (tmp_path / "own").stat().st_mode
    (tmp_path / "data.txt").write_text("given")
    trace = recorded("print(open('data.txt').read())", files=[tmp_path / "data.txt"])
    folder = trace.with_suffix("")
    (folder / "workspace").rename(folder / "away")
    for name in ("workspace", "packages"):
        if (folder / name).is_dir():
            (folder / name).rename(folder / f"{name} away")
        (folder / name).symlink_to(tmp_path / "own")
    report = replay(trace)
    assert report.steps[0].verdict is not SAME and "own" not in str(report.steps[0].differences)
    assert (tmp_path / "own").stat().st_mode == mode


def test_code_that_was_interrupted_then_is_stopped_after_the_same_time(home: Path) -> None:
    with MLIntern(ScriptedModel([code("while True:\n    pass")]), home=home, tools=[]) as intern:
        session = intern.submit("Hang.")
        while not session.agent.router.action.number:
            session.wait(0.05)
        session.wait(0.3)
        session.interrupt()
        assert session.wait(20) is not None
        trace = session.trace
    report = replay(trace)
    assert verdicts(report) == [NOT_COMPARED] and report.steps[0].seconds < 10
    assert any("it was interrupted then" in remark for remark in report.steps[0].remarks)


def rows_of(trace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.read_text().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_action_that_was_cut_off_is_not_run(recorded, home: Path) -> None:
    trace = recorded("print('one')", "open('x', 'w').write('')\nprint(publish('x'))\nprint('two')", "print('three')")
    rows = rows_of(trace)
    call = next(place for place, row in enumerate(rows) if row.get("effects") == "write")
    write(trace, rows[:call])  # as a process leaves it that is killed between the answer and the call
    report = replay(trace)
    assert verdicts(report) == [SAME, NOT_COMPARED] and "was cut off" in report.steps[1].remarks[0]
    script = ScriptedModel([code("final_answer(3)")])
    with MLIntern(
        script, home=home, tools=[Publish()], on_approval=lambda request: ApprovalAnswer("approve")
    ) as intern:
        assert intern.resume(trace.stem).wait(60) is not None
    report = replay(trace)  # the session went on after it without running it
    assert verdicts(report) == [SAME, NOT_COMPARED, SAME] and "was cut off" in report.steps[1].remarks[0]


def test_a_missing_package_and_a_lost_variable_are_told_apart_from_other_code(recorded) -> None:
    trace = recorded("value = 3\nprint('imported')", "print(value)")
    rows = rows_of(trace)
    for row in rows:
        for block in row["message"]["content"] if row["type"] == "assistant" else ():
            if "value = 3" in str(block.get("input")):
                block["input"]["code"] = "import a_package_that_is_not_here\n" + block["input"]["code"]
    report = replay(write(trace, rows))
    assert verdicts(report) == [NOT_COMPARED, NOT_COMPARED, SAME]
    assert "the package a_package_that_is_not_here is not installed here" in report.steps[0].remarks
    assert "value was to come from an earlier step, which went otherwise" in report.steps[1].remarks


def test_code_that_reads_the_network_is_not_compared_without_it(recorded) -> None:
    trace = recorded("print('read')")
    rows = rows_of(trace)
    for row in rows:
        for block in row["message"]["content"] if row["type"] == "assistant" else ():
            if "'read'" in str(block.get("input")):
                block["input"]["code"] = "import urllib.request\nurllib.request.urlopen('http://example.com')"
    report = replay(write(trace, rows))
    assert report.steps[0].verdict is NOT_COMPARED
    assert any("reads the network" in remark for remark in report.steps[0].remarks)


def test_another_programs_trace_and_an_empty_one_are_said_to_be_that(recorded, tmp_path: Path) -> None:
    use = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [use]}
    theirs = write(tmp_path / "theirs.jsonl", [{"type": "assistant", "message": message, "version": "2.1.90"}])
    with pytest.raises(InternError, match=r"1 tool calls are another program's: only code of a `python_interpreter`"):
        replay(theirs)
    with pytest.raises(InternError, match="never got to write code"):
        replay(write(tmp_path / "empty.jsonl", []))
    with pytest.raises(InternError, match="Cannot read"):
        replay(tmp_path / "none.jsonl")
    with pytest.raises(InternError, match="tolerance"):
        replay(theirs, tolerance=1.5)


def test_a_trace_with_garbage_in_it_is_run_as_far_as_it_reads(recorded) -> None:
    trace = recorded("print(look('a')['what'])", "print(2)")
    lines = trace.read_text().splitlines(keepends=True)
    trace.write_text("".join([*lines[:2], "garbage\n", "[1]\n", *lines[2:], '{"type": "torn']))
    assert replay(trace).reproducible


def test_this_projects_own_tools_read_the_hub_anew_and_push_nothing(home: Path, tmp_path: Path, monkeypatch) -> None:
    with LocalHub(tmp_path / "hub", {"hf_local_token": "tester"}) as hub:
        for key, value in hub.environment().items():
            monkeypatch.setenv(key, value)
        hub.seed("acme/reviews", "dataset", {"train.csv": b"a,b\n1,2\n"})
        script = [
            code("got = hub_download('acme/reviews')\nprint(open(got['files'][0]['path']).read())"),
            code(
                "open('metrics.json', 'w').write('{}')\nprint(hub_push('metrics.json', 'mine', 'dataset')['repo_id'])"
            ),
            code("final_answer('done')"),
        ]
        approve = lambda request: ApprovalAnswer("approve", by="test")  # noqa: E731
        with MLIntern(ScriptedModel(script), home=home, on_approval=approve) as intern:
            intern.run("Work.")
            trace = intern.session().trace
        shutil.rmtree(trace.with_suffix("") / "workspace")
        before = len(hub.requests)
        assert verdicts(replay(trace)) == [NOT_COMPARED, SAME, SAME] and len(hub.requests) == before
        report = replay(trace, live_reads=True)
        assert report.reproducible, report
        assert {request.method for request in hub.requests[before:]} <= {"GET", "HEAD"} and len(hub.requests) > before
