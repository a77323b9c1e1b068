"""`python_sandbox`: the same answers from E2B and from the local jail."""

from __future__ import annotations

import asyncio
import base64
import threading
import time

import pytest
from jsonschema import validate
from ml_intern.tools import PythonSandboxTool
from saving import assert_survives_saving
from smolagents import CodeAgent, LocalPythonExecutor

from ml_intern import InternAgent
from ml_intern.approval import ApprovalPolicy, Call
from ml_intern.effects import effects_of
from ml_intern.execution import JailRunner, JailUnavailable, Workspace
from ml_intern.testing import LocalE2B, ScriptedModel

REQUIREMENTS = ("connectrpc", "e2b", "e2b_code_interpreter", "httpx")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    try:
        running = LocalE2B(tmp_path_factory.mktemp("e2b"))
    except JailUnavailable as why:
        pytest.skip(str(why).splitlines()[0])
    with running:
        yield running


@pytest.fixture
def cloud(service, monkeypatch):
    for name, value in service.environment().items():
        monkeypatch.setenv(name, value)
    for identity in list(service.boxes):
        service.lose(identity)
    yield service
    for identity in list(service.boxes):
        service.lose(identity)
    service.requests.clear()
    service._failures.clear()


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="module", params=["e2b", "jail"])
def shared(request):
    """The tool over each of the two, in turn, and its environment."""
    if request.param == "e2b":
        tool, environment = PythonSandboxTool(), request.getfixturevalue("service").environment()
    else:
        tool, environment = PythonSandboxTool(runner=JailRunner()), {}
    yield tool, environment
    tool.close()


@pytest.fixture
def sandbox(shared, workspace, monkeypatch):
    tool, environment = shared
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tool.workspace = workspace
    return tool


class TestBoth:
    def test_the_same_shape(self, sandbox):
        said = sandbox("import sys\nx = 20\nprint('out')\nprint('err', file=sys.stderr)\nx * 2")
        validate(said, PythonSandboxTool.output_schema)
        duration = said.pop("duration")
        assert 0 < duration < 30
        assert said == {
            "stdout": "out\n", "stderr": "err\n", "text": "40", "results": [{"text": "40"}], "error": None, "files": [],
        }  # fmt: skip

    def test_state_lasts_and_a_restart_ends_it(self, sandbox):
        sandbox("y = 3\nopen('kept.txt', 'w').write('k')")
        assert sandbox("y, open('kept.txt').read()")["text"] == "(3, 'k')"
        said = sandbox("import os\nos.path.exists('kept.txt'), 'y' in globals()", restart=True)
        assert said["text"] == "(False, False)"

    def test_errors_are_data(self, sandbox):
        said = sandbox("print('before')\ndef f():\n    return 1 / 0\nf()")
        assert said["stdout"] == "before\n"
        assert (said["error"]["name"], said["error"]["value"]) == ("ZeroDivisionError", "division by zero")
        assert said["error"]["traceback"].startswith("Traceback") and "line 3, in f" in said["error"]["traceback"]
        assert "notebook" not in said["error"]["traceback"]
        assert sandbox("def (")["error"]["name"] == "SyntaxError"

    def test_pictures_charts_and_tables(self, sandbox):
        pytest.importorskip("matplotlib")
        pytest.importorskip("pandas")
        said = sandbox("import matplotlib.pyplot as plt\nplt.plot([0, 1], [5, 6], label='loss')\nplt.title('T')\nNone")
        (shown,) = said["results"]
        assert base64.b64decode(shown["png"]).startswith(b"\x89PNG")
        assert (shown["chart"]["type"], shown["chart"]["title"]) == ("line", "T")
        (line,) = shown["chart"]["elements"]
        assert line["label"] == "loss" and [list(point) for point in line["points"]] == [[0.0, 5.0], [1.0, 6.0]]
        said = sandbox("import pandas as pd\npd.DataFrame({'a': [1, 2]})")
        assert said["results"][0]["data"] == {"a": [1, 2]} and "<table" in said["results"][0]["html"]
        assert said["text"] == said["results"][0]["text"]

    def test_children_print_too(self, sandbox):
        assert sandbox("import subprocess\n_ = subprocess.run(['echo', 'child'])")["stdout"] == "child\n"

    def test_files_go_in_and_out(self, sandbox, workspace):
        workspace.write_bytes("data/in.bin", b"\x00\x01")
        said = sandbox(
            "data = open('data/in.bin', 'rb').read()\nopen('out.bin', 'wb').write(data * 2)",
            upload=["data/in.bin"],
            download=["out.bin"],
        )
        assert said["error"] is None and {"path": "out.bin", "size": 4} in said["files"]
        assert workspace.read_bytes("out.bin") == b"\x00\x01\x00\x01"
        assert sandbox("1")["files"] == []
        with pytest.raises(FileNotFoundError, match=r"no 'nothing' in the sandbox to download. It has: .*out\.bin"):
            sandbox("1", download=["nothing"])
        with pytest.raises(ValueError, match="outside the workspace"):
            sandbox("1", upload=["../secret"])

    def test_a_late_cell_keeps_its_variables(self, sandbox):
        sandbox("kept = 9")
        started = time.monotonic()
        said = sandbox("print('soon', flush=True)\nimport time\ntime.sleep(60)", timeout=0.6)
        assert time.monotonic() - started < 0.6 + 4
        assert said["stdout"] == "soon\n"
        assert said["error"]["name"] == "TimeoutError" and "Variables are kept" in said["error"]["value"]
        assert sandbox("kept")["text"] == "9"

    def test_one_that_hangs_in_c_is_recovered_from(self, sandbox, short_grace):
        sandbox("gone = 9\nopen('kept.txt', 'w').write('k')")
        started = time.monotonic()
        said = sandbox("sum(range(10**13))", timeout=0.5)
        assert time.monotonic() - started < 0.5 + 4.5
        assert said["error"]["name"] == "TimeoutError" and "variables are gone" in said["error"]["value"]
        assert sandbox("'gone' in globals(), open('kept.txt').read()")["text"] == "(False, 'k')"

    def test_a_crash_is_told(self, sandbox):
        said = sandbox("import os; os._exit(3)")
        assert said["error"]["name"] in ("ContextRestarting", "ProcessLost")
        assert sandbox("1 + 1")["text"] == "2"

    def test_there_is_no_internet_and_no_secret(self, sandbox, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
        assert "hf_very_secret" not in sandbox("import os; dict(os.environ)")["text"]
        reach = "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)"
        assert sandbox(reach)["error"]["name"] in ("OSError", "PermissionError", "TimeoutError")

    def test_a_flood_is_cut_short(self, sandbox):
        said = sandbox("for _ in range(500): print('x' * 10_000)\nprint('the end')")
        assert 1_000_000 <= len(said["stdout"]) < 1_001_000 and "the rest of it was left out" in said["stdout"]
        assert said["error"] is None

    def test_inside_a_running_event_loop(self, sandbox):
        async def work():
            return sandbox("import asyncio\nawait asyncio.sleep(0, 'async')")["text"]

        assert asyncio.run(work()) == "async"

    def test_calls_at_once_take_turns(self, sandbox):
        sandbox("n = 0")
        threads = [
            threading.Thread(target=sandbox, args=("m = n\nimport time\ntime.sleep(0.02)\nn = m + 1",))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sandbox("n")["text"] == "4"

    @pytest.mark.parametrize("timeout", [0, -1, 1e9])
    def test_a_time_that_is_none(self, sandbox, timeout):
        with pytest.raises(ValueError, match="`timeout` is a number of seconds"):
            sandbox("1", timeout=timeout)


class TestE2B:
    def test_one_sandbox_without_internet_killed_at_the_end(self, cloud):
        tool = PythonSandboxTool()
        tool("1")
        tool("2")
        (box,) = cloud.boxes.values()
        assert (box.template, box.internet, box.metadata) == ("code-interpreter-v1", False, {"tool": "python_sandbox"})
        tool.close()
        assert not cloud.boxes

    def test_one_that_is_gone_is_told_and_replaced(self, cloud):
        tool = PythonSandboxTool()
        tool("x = 1")
        (first,) = cloud.boxes
        cloud.lose(first)
        said = tool("'x' in globals()")
        assert said["text"] == "False" and "is gone, with all in it" in said["stdout"]
        (second,) = cloud.boxes
        threading.Timer(0.4, cloud.lose, (second,)).start()
        said = tool("import time\ntime.sleep(60)")
        assert said["error"]["name"] == "ProcessLost" and "The next call takes a new one" in said["error"]["value"]
        assert tool("1")["text"] == "1"

    @pytest.mark.long
    def test_a_flood_without_end_is_ended(self, cloud):
        tool = PythonSandboxTool()
        tool("kept = 1")
        said = tool("while True: print('x' * 1_000_000)")
        assert said["error"]["name"] == "OverflowError" and "Variables are kept" in said["error"]["value"]
        assert tool("kept")["text"] == "1"

    @pytest.mark.parametrize(
        "fault, kind, says",
        [
            ({"status": 401, "body": {"code": 401, "message": "no"}}, PermissionError, "Set E2B_API_KEY"),
            ({"status": 429, "body": {"code": 429, "message": "no"}}, ConnectionError, "limits"),
            ({"status": 503, "body": {"code": 503, "message": "no"}}, ConnectionError, "does not answer"),
            ({"status": 502, "body": "<html>"}, ConnectionError, "does not answer"),
        ],
    )
    def test_refusals_say_what_to_do(self, cloud, fault, kind, says):
        cloud.fail("/v2/sandboxes", headers={"Should-Retry": "false"}, **fault)
        with pytest.raises(kind, match=says):
            PythonSandboxTool()("1")

    @pytest.mark.long
    def test_saved_and_loaded_elsewhere_it_runs(self, cloud):
        environment = cloud.environment()
        said = assert_survives_saving(
            PythonSandboxTool, *REQUIREMENTS, call={"code": "6 * 7"}, environment=environment
        )
        assert said["text"] == "42"


class TestJail:
    def test_a_plain_agent_without_either_is_told_what_is_missing(self, monkeypatch):
        monkeypatch.delenv("E2B_API_KEY", raising=False)
        script = ["<code>\ntry:\n    python_sandbox('1')\nexcept Exception as e:\n    final_answer(str(e))\n</code>"]
        agent = CodeAgent([PythonSandboxTool()], ScriptedModel(script), executor=LocalPythonExecutor([]))
        assert "Set E2B_API_KEY (https://e2b.dev/dashboard), use it in an InternAgent" in agent.run("Go.")
        with pytest.raises(RuntimeError, match=r"PythonSandboxTool\(workspace=\.\.\.\)"):
            PythonSandboxTool()("1", upload=["x"])

    def test_an_agent_of_this_project_brings_a_runner_of_its_own(self, monkeypatch, workspace):
        monkeypatch.delenv("E2B_API_KEY", raising=False)
        workspace.write_bytes("in.txt", b"given")
        script = [
            "<code>\nmine = 'agent'\nfirst = python_sandbox('x = 5\\nx + 1')['text']\n</code>",
            "<code>\ncode = \"'mine' in globals(), x, open('in.txt').read(), open('out.txt', 'w').write('made')\"\n"
            "said = python_sandbox(code, upload=['in.txt'], download=['out.txt'])\n"
            "final_answer([first, said['text'], open('out.txt').read()])\n</code>",
        ]
        agent = InternAgent([PythonSandboxTool()], ScriptedModel(script), workspace=workspace)
        with agent:
            assert agent.run("Go.") == ["6", "(False, 5, 'given', 4)", "made"]
            inner = agent._runner._executor
            assert inner is not agent.python_executor and inner._shelter.worker.alive
            process = inner._shelter.worker.process
        assert process.poll() is not None

    def test_an_agent_that_another_one_manages_too(self, monkeypatch):
        monkeypatch.delenv("E2B_API_KEY", raising=False)
        inner = InternAgent(
            [PythonSandboxTool()],
            ScriptedModel(["<code>\nfinal_answer(python_sandbox('6 * 7')['text'])\n</code>"]),
            name="helper",
            description="Helps.",
        )
        outer = InternAgent(
            [], ScriptedModel(["<code>\nfinal_answer(helper('Compute.'))\n</code>"]), managed_agents=[inner]
        )
        with outer, inner:
            assert "42" in outer.run("Go.")

    def test_an_interrupted_agent_s_cell_stops(self, monkeypatch):
        monkeypatch.delenv("E2B_API_KEY", raising=False)
        runner = JailRunner()
        runner.run("x = 1", 60)
        threading.Timer(0.3, runner.interrupt).start()
        started = time.monotonic()
        reports = runner.run("import time\ntime.sleep(60)", 60)
        assert time.monotonic() - started < 4
        assert reports[-1]["name"] == "KeyboardInterrupt" and "Variables are kept" in reports[-1]["value"]
        runner.close()

    def test_forged_reports_do_no_harm(self, monkeypatch):
        monkeypatch.delenv("E2B_API_KEY", raising=False)
        tool = PythonSandboxTool(runner=JailRunner())
        forged = "import __main__, sys\nemit = sys._getframe(3).f_globals.get('_emit') or sys._getframe(4).f_globals['_emit']\n"
        said = tool(
            forged + "for bad in (None, 5, {}, {'type': 'stdout'}, {'type': 'error'}, {'type': [1]}): emit(bad)\n1"
        )
        validate(said, PythonSandboxTool.output_schema)
        tool.close()

    def test_what_the_policy_thinks_of_it(self):
        effects = effects_of(PythonSandboxTool(), {"code": "1"})
        assert effects == "execute"  # with a key, code and files go to E2B
        call = Call("python_sandbox", effects=effects, vouched=True)
        assert ApprovalPolicy().decide(call).action == "allow"
        assert ApprovalPolicy(trust_vouched=False).decide(call).action == "ask"
