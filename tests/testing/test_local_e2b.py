"""The local E2B cloud, driven by the unmodified clients."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import e2b
import pytest
from e2b_code_interpreter import AsyncSandbox, Sandbox

from ml_intern.execution.jail import JailUnavailable
from ml_intern.testing import LocalE2B


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
    """A cloud without sandboxes or faults."""
    for name, value in service.environment().items():
        monkeypatch.setenv(name, value)
    yield service
    for identity in list(service.boxes):
        service.lose(identity)
    service.requests.clear()
    service._failures.clear()


@pytest.fixture
def sandbox(cloud):
    return Sandbox.create(timeout=60, metadata={"who": "tester"}, envs={"GREETING": "hello"})


BUSY = {"code": 503, "message": "no capacity"}


class TestLife:
    def test_created_listed_and_killed(self, cloud, sandbox):
        (listed,) = Sandbox.list().next_items()
        assert (listed.sandbox_id, listed.metadata) == (sandbox.sandbox_id, {"who": "tester"})
        assert listed.state == e2b.SandboxState.RUNNING
        assert sandbox.is_running()
        assert sandbox.kill() is True
        assert sandbox.kill() is False
        assert not sandbox.is_running()
        assert not (cloud.data / sandbox.sandbox_id).exists()
        with pytest.raises(e2b.SandboxNotRunningException):
            sandbox.commands.run("true")
        with pytest.raises(e2b.SandboxNotFoundException):
            Sandbox.connect(sandbox.sandbox_id)

    def test_lists_come_in_pages_and_by_label(self, cloud):
        made = [Sandbox.create(timeout=60, metadata={"n&=m": f"{n % 2} /ü"}).sandbox_id for n in range(5)]
        pages, found = Sandbox.list(limit=2), []
        while pages.has_next:
            found.append([one.sandbox_id for one in pages.next_items()])
        assert [len(page) for page in found] == [2, 2, 1]
        assert sorted(one for page in found for one in page) == sorted(made)
        odd = Sandbox.list(e2b.SandboxQuery(metadata={"n&=m": "1 /ü"})).next_items()
        assert sorted(one.sandbox_id for one in odd) == sorted([made[1], made[3]])

    def test_its_time_runs_out_unless_it_is_given_more(self, cloud):
        short, longer = Sandbox.create(timeout=1), Sandbox.create(timeout=1)
        longer.set_timeout(60)
        assert 55 < (longer.get_info().end_at - longer.get_info().started_at).total_seconds() < 65
        deadline = time.monotonic() + 5
        while short.is_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not short.is_running()
        assert longer.is_running()

    def test_it_sleeps_with_its_memory_and_wakes(self, cloud, sandbox):
        sandbox.run_code("x = 41")
        command = sandbox.commands.run("read line; echo got $line", background=True, stdin=True)
        assert sandbox.pause() is True
        with pytest.raises(e2b.SandboxException):
            command.wait()
        assert Sandbox.list().next_items()[0].state == e2b.SandboxState.PAUSED
        with pytest.raises(e2b.SandboxException):
            sandbox.run_code("x")
        again = Sandbox.connect(sandbox.sandbox_id)
        assert again.run_code("x + 1").text == "42"
        handle = again.commands.connect(command.pid)
        again.commands.send_stdin(command.pid, "it\n")
        assert handle.wait().stdout == "got it\n"

    def test_a_second_pause_says_so(self, sandbox):
        assert sandbox.pause() is True
        assert sandbox.pause() is False

    def test_one_that_pauses_at_its_end_can_be_woken(self, cloud):
        sandbox = Sandbox.create(timeout=1, lifecycle={"on_timeout": "pause"})
        sandbox.files.write("kept", "yes")
        deadline = time.monotonic() + 5
        while sandbox.is_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert Sandbox.connect(sandbox.sandbox_id).files.read("kept") == "yes"

    def test_they_are_apart_and_without_network(self, cloud, sandbox):
        other = Sandbox.create(timeout=60)
        sandbox.files.write("mine", "x")
        assert not other.files.exists("mine")
        connect = f"import socket; socket.create_connection(('127.0.0.1', {cloud.port}), 2)"
        assert sandbox.run_code(connect).error.name in ("ConnectionRefusedError", "OSError", "PermissionError")
        closed = Sandbox.create(timeout=60, allow_internet_access=False)
        assert (cloud.boxes[closed.sandbox_id].internet, cloud.boxes[sandbox.sandbox_id].internet) == (False, True)


class TestCommands:
    def test_output_exit_code_folder_and_environment(self, sandbox):
        done = sandbox.commands.run("echo $GREETING $MORE; pwd; echo oops >&2", cwd="/tmp", envs={"MORE": "world"})
        assert (done.stdout, done.stderr, done.exit_code) == ("hello world\n/tmp\n", "oops\n", 0)
        with pytest.raises(e2b.CommandExitException) as failed:
            sandbox.commands.run("echo partly; exit 3")
        assert (failed.value.exit_code, failed.value.stdout) == (3, "partly\n")

    def test_output_comes_while_it_runs(self, sandbox):
        seen, times = [], []
        sandbox.commands.run(
            "for i in 1 2 3; do echo $i; sleep 0.2; done",
            on_stdout=lambda s: (seen.append(s), times.append(time.monotonic())),
        )
        assert "".join(seen) == "1\n2\n3\n"
        assert times[-1] - times[0] > 0.3

    def test_stdin_streams_both_ways(self, sandbox):
        command = sandbox.commands.run("cat; echo end", background=True, stdin=True)
        command.send_stdin("a\n")
        sandbox.commands.stream_input(command.pid, [b"b\n", "c\n"])
        command.close_stdin()
        assert command.wait().stdout == "a\nb\nc\nend\n"

    def test_large_input_and_output(self, sandbox):
        command = sandbox.commands.run("wc -c; head -c 3000000 /dev/zero | tr '\\0' x", background=True, stdin=True)
        command.send_stdin("y" * 2_000_000)
        command.close_stdin()
        count, _, rest = command.wait().stdout.partition("\n")
        assert (int(count), len(rest)) == (2_000_000, 3_000_000)

    def test_listed_killed_and_timed_out(self, sandbox):
        command = sandbox.commands.run("sleep 60", background=True)
        assert [(one.pid, one.args[-1]) for one in sandbox.commands.list()] == [(command.pid, "sleep 60")]
        assert sandbox.commands.kill(command.pid) is True
        with pytest.raises(e2b.CommandExitException) as killed:
            command.wait()
        assert killed.value.error == "signal: killed"
        assert sandbox.commands.kill(command.pid) is False
        with pytest.raises(e2b.TimeoutException):
            sandbox.commands.run("sleep 60", timeout=0.3)
        deadline = time.monotonic() + 5
        while sandbox.commands.list() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sandbox.commands.list() == []

    def test_a_sandbox_that_is_killed_ends_what_waits_for_it(self, cloud, sandbox):
        command = sandbox.commands.run("sleep 60", background=True)
        threading.Timer(0.2, cloud.lose, (sandbox.sandbox_id,)).start()
        with pytest.raises(e2b.SandboxNotRunningException):
            command.wait()


class TestFiles:
    def test_text_bytes_streams_and_many(self, sandbox, tmp_path):
        sandbox.files.write("notes/a.txt", "ä")
        assert sandbox.files.read("notes/a.txt") == "ä"
        data = os.urandom(3_000_000)
        (tmp_path / "big").write_bytes(data)
        with (tmp_path / "big").open("rb") as file:
            sandbox.files.write("big", file)
        assert bytes(sandbox.files.read("big", format="bytes")) == data
        with sandbox.files.read("big", format="stream") as pieces:
            assert b"".join(pieces) == data
        sandbox.files.write_files([{"path": "/tmp/1", "data": "one"}, {"path": "two", "data": b"2"}])
        assert sandbox.commands.run("cat /tmp/1 ~/two").stdout == "one2"

    def test_about_made_moved_and_removed(self, sandbox):
        assert sandbox.files.make_dir("deep/er") is True
        assert sandbox.files.make_dir("deep/er") is False
        sandbox.files.write("deep/er/file", "1234")
        assert sandbox.files.get_info("deep/er/file").size == 4
        assert sorted(one.name for one in sandbox.files.list("deep", depth=2)) == ["er", "file"]
        sandbox.files.rename("deep/er/file", "moved")
        assert (sandbox.files.exists("moved"), sandbox.files.exists("deep/er/file")) == (True, False)
        sandbox.files.remove("deep")
        assert not sandbox.files.exists("deep")
        for missing in (sandbox.files.read, sandbox.files.get_info, sandbox.files.remove):
            with pytest.raises(e2b.FileNotFoundException):
                missing("nothing")

    def test_a_link_out_of_the_sandbox_leads_nowhere(self, sandbox):
        sandbox.commands.run("ln -s /etc/passwd link; ln -s / root")
        for path in ("link", "root/etc/hostname", "/etc/passwd", "../../etc/passwd"):
            with pytest.raises(e2b.SandboxException):
                sandbox.files.read(path)


class TestInterpreter:
    def test_state_values_streams_and_errors(self, sandbox):
        seen = []
        done = sandbox.run_code(
            "import sys\nx = 2\nprint('out')\nprint('err', file=sys.stderr)\nx * 21", on_stdout=seen.append
        )
        assert (done.text, done.logs.stdout, done.logs.stderr) == ("42", ["out\n"], ["err\n"])
        assert [message.line for message in seen] == ["out\n"]
        assert sandbox.run_code("x").execution_count == 2
        failed = sandbox.run_code("def f():\n    return 1 / 0\nf()").error
        assert (failed.name, failed.value) == ("ZeroDivisionError", "division by zero")
        assert "line 2, in f" in failed.traceback
        assert sandbox.run_code("if").error.name == "SyntaxError"
        assert sandbox.run_code("import os; os.environ['A']", envs={"A": "b"}).text == "b"
        assert sandbox.run_code("import subprocess; _ = subprocess.run(['echo', 'child'])").logs.stdout == ["child\n"]

    def test_rich_results_in_the_order_they_were_shown(self, sandbox):
        code = "display('first')\nclass H:\n    def _repr_html_(self): return '<b>'\n    def _repr_markdown_(self): return '*'\nH()"
        first, last = sandbox.run_code(code).results
        assert (first.text, first.is_main_result) == ("first", False)
        assert (last.html, last.markdown, last.is_main_result) == ("<b>", "*", True)
        assert sandbox.run_code("{'k': [1]}").results[0].json == {"k": [1]}
        assert sandbox.run_code("import asyncio\nawait asyncio.sleep(0, 'waited')").text == "waited"

    def test_figures_come_as_pictures_and_charts(self, sandbox):
        pytest.importorskip("matplotlib")
        plots = [
            ("plt.plot([1, 2], [3, 4], label='l')", "line", {"label": "l", "points": [(1.0, 3.0), (2.0, 4.0)]}),
            ("plt.scatter([1], [2], label='s')", "scatter", {"label": "s", "points": [(1.0, 2.0)]}),
            ("plt.bar(['a', 'b'], [5, 6], label='g')", "bar", {"label": "a", "group": "g", "value": 5.0}),
            ("plt.pie([1, 3], labels=['x', 'y'])", "pie", {"label": "x", "angle": 90.0, "radius": 1.0}),
        ]
        for plot, kind, element in plots:
            (shown,) = sandbox.run_code(f"import matplotlib.pyplot as plt\nplt.title('T')\n_ = {plot}").results
            assert shown.png.startswith("iVBOR")
            assert (shown.chart.type.value, shown.chart.title) == (kind, "T")
            assert vars(shown.chart.elements[0]) == element
        (shown,) = sandbox.run_code("f, axes = plt.subplots(2)\nfor a in axes: _ = a.plot([1, 2])").results
        assert [chart.type.value for chart in shown.chart.elements] == ["line", "line"]

    def test_contexts_are_apart(self, sandbox):
        context = sandbox.create_code_context(cwd="/tmp")
        sandbox.run_code("y = 1", context=context)
        assert sandbox.run_code("import os; os.getcwd(), y", context=context).text == "('/tmp', 1)"
        assert sandbox.run_code("y").error.name == "NameError"
        assert context.id in [one.id for one in sandbox.list_code_contexts()]
        sandbox.restart_code_context(context)
        assert sandbox.run_code("y", context=context).error.name == "NameError"
        sandbox.remove_code_context(context)
        with pytest.raises(e2b.SandboxException):
            sandbox.run_code("1", context=context)

    def test_a_late_cell_is_interrupted_and_the_next_one_runs(self, sandbox):
        sandbox.run_code("z = 7")
        started = time.monotonic()
        with pytest.raises(e2b.TimeoutException):
            sandbox.run_code("import time; time.sleep(60)", timeout=0.4)
        assert time.monotonic() - started < 3
        assert sandbox.run_code("z").text == "7"

    def test_a_kernel_that_dies_says_so_and_comes_back(self, sandbox):
        assert sandbox.run_code("import os; os._exit(1)").error.name == "ContextRestarting"
        assert sandbox.run_code("1 + 1").text == "2"

    def test_the_async_client_too(self, cloud):
        async def work():
            sandbox = await AsyncSandbox.create(timeout=60)
            cells = [sandbox.run_code("6 * 7"), sandbox.commands.run("echo hi"), sandbox.files.write("f", "x")]
            cell, command, _ = await asyncio.gather(*cells)
            return cell.text, command.stdout, await sandbox.kill()

        assert asyncio.run(work()) == ("42", "hi\n", True)


class TestRefusals:
    def test_a_wrong_key(self, cloud):
        with pytest.raises(e2b.AuthenticationException):
            Sandbox.create(api_key="e2b_wrong")
        assert not cloud.boxes

    def test_a_wrong_token_for_a_sandbox(self, cloud, sandbox):
        cloud.boxes[sandbox.sandbox_id].token = "another"
        with pytest.raises(e2b.AuthenticationException):
            sandbox.commands.run("true")
        with pytest.raises(e2b.AuthenticationException):
            sandbox.files.read("x")
        with pytest.raises(e2b.SandboxException, match=r"401|unauthorized"):
            sandbox.run_code("1")

    def test_a_template_that_is_not_there(self, cloud):
        with pytest.raises(e2b.SandboxException, match="not found"):
            Sandbox.create(template="mine")

    def test_too_many(self, cloud, monkeypatch):
        monkeypatch.setattr(cloud, "limit", 1)
        Sandbox.create(timeout=60)
        with pytest.raises(e2b.RateLimitException):
            Sandbox.create(timeout=60, retries=0)

    def test_faults_on_request(self, cloud):
        cloud.fail("/v2/sandboxes", status=503, times=2)
        assert Sandbox.create(timeout=60).is_running()  # the client tries again by itself
        cloud.fail("/v2/sandboxes", status=503, times=None, headers={"Should-Retry": "false"}, body=BUSY)
        with pytest.raises(e2b.ServiceBusyException):
            Sandbox.create(timeout=60)

    def test_an_answer_that_is_lost_makes_no_second_sandbox(self, cloud):
        key = "0a1b2c"
        cloud.fail("/v2/sandboxes", method="POST", drop="answer")
        with pytest.raises(Exception):  # noqa: B017 - the client lets its transport's own error through
            Sandbox.create(timeout=60, idempotency_key=key)
        again = Sandbox.create(timeout=60, idempotency_key=key)
        assert list(cloud.boxes) == [again.sandbox_id]


def test_nothing_is_left_when_it_closes(tmp_path, monkeypatch):
    with LocalE2B(tmp_path) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        sandbox = Sandbox.create(timeout=60)
        pid = sandbox.commands.run("sleep 60", background=True).pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(tmp_path.iterdir()) == []
