"""Code in an E2B sandbox, tools on the host: the same as in a local jail, and what only E2B can do to one."""

from __future__ import annotations

import gc
import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time

import e2b
import pytest
from smolagents import FinalAnswerTool, tool
from smolagents.local_python_executor import InterpreterError

from ml_intern import InternAgent
from ml_intern.events import ApprovalAnswer
from ml_intern.execution import CodeInterrupted, E2BExecutor, E2BUnavailable, JailUnavailable, WorkerLost, Workspace
from ml_intern.execution.e2b_process import exit_status, within
from ml_intern.execution.e2b_sandbox import LABEL, is_orphan, this_machine, this_process
from ml_intern.execution.e2b_sync import Mirror, read_marks
from ml_intern.steps import Observer
from ml_intern.testing import LocalE2B, ScriptedModel


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
def make(cloud, tmp_path):
    """Makes executors on one workspace and cleans them up."""
    made = []

    def build(**options) -> E2BExecutor:
        options.setdefault("workspace", Workspace(tmp_path / "workspace"))
        made.append(E2BExecutor(**options))
        return made[-1]

    yield build
    for executor in made:
        executor.pause_on_cleanup = False
        executor.cleanup()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One executor for the tests that leave nothing behind, in a cloud of its own that no variable names."""
    try:
        cloud = LocalE2B(tmp_path_factory.mktemp("shared"), key="e2b_other_key")
    except JailUnavailable as why:
        pytest.skip(str(why).splitlines()[0])
    with cloud:
        api = {"api_key": cloud.key, "api_url": cloud.url, "sandbox_url": cloud.url}
        executor = E2BExecutor(Workspace(tmp_path_factory.mktemp("workspace")), api=api)
        yield executor
        executor.cleanup()
        assert not cloud.boxes


def until(condition, seconds: float = 8.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


def only(cloud):
    (box,) = cloud.boxes.values()
    return box


class TestAsInAJail:
    def test_values_prints_state_and_errors(self, shared):
        executor = shared
        assert executor.jail == "e2b"
        done = executor("import sys\nx = {'k': (1, 2)}\nprint('out')\nprint('err', file=sys.stderr)\nx")
        assert (done.output, done.logs, done.is_final_answer) == ({"k": (1, 2)}, "out\nerr\n", False)
        assert executor("x['k'][1]").output == 2
        with pytest.raises(InterpreterError, match="at line '1/0' due to: ZeroDivisionError") as failed:
            executor("print('before')\n1/0")
        assert "line 2: 1/0" in str(failed.value)
        assert executor.state["_print_outputs"] == "before\n"

    def test_variables_and_figures(self, shared):
        pytest.importorskip("matplotlib")
        executor = shared
        executor.send_variables({"given": [1, 2]})
        assert executor("sum(given)").output == 3
        (image,) = executor("import matplotlib.pyplot as plt\nplt.plot(given)\nNone").images
        assert image.width > 100 and executor.images == [image]

    def test_tools_run_on_the_host_and_look_like_functions(self, shared):
        class Secret:
            """Stays on the host."""

        @tool
        def shout(text: str, times: int = 1) -> str:
            """Shouts.

            Args:
                text: What.
                times: How often.
            """
            return text.upper() * times + str(os.getpid())

        opaque = Secret()
        executor = shared
        functions = {"hold": lambda: opaque, "same": lambda it: it is opaque}
        executor.send_tools({"shout": shout, "final_answer": FinalAnswerTool(), **functions})
        assert executor("import inspect\nshout('a', times=2), str(inspect.signature(shout))").output == (
            f"AA{os.getpid()}",
            "(text: 'str', times: 'int' = 1) -> 'str'",
        )
        assert executor("same(hold())").output is True
        with pytest.raises(InterpreterError, match="TypeError"):
            executor("shout()")
        answer = executor("try:\n    final_answer(shout('x'))\nexcept Exception:\n    pass\nprint('not here')")
        assert (answer.is_final_answer, answer.output, answer.logs) == (True, f"X{os.getpid()}", "")

    def test_calls_from_many_threads_are_not_mixed(self, shared):
        executor = shared
        executor.send_tools({"double": lambda n: n * 2})
        code = (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(20) as pool:\n    got = list(pool.map(double, range(300)))\n"
            "got == [n * 2 for n in range(300)]"
        )
        assert executor(code).output is True

    def test_much_output_is_kept_to_its_length(self, make):
        logs = make(max_print_outputs_length=1000)("for _ in range(50): print('x' * 100_000)").logs
        assert len(logs) < 1200 and "truncated" in logs

    def test_nothing_of_the_host_s_environment_is_there(self, shared, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
        seen = str(shared("import os\ndict(os.environ)").output)
        assert "hf_very_secret" not in seen and "e2b_other_key" not in seen

    def test_an_action_that_does_not_end_is_interrupted_and_keeps_its_variables(self, shared):
        executor = shared
        executor("kept = 1\nimport time")
        executor.timeout_seconds = 0.5
        started = time.monotonic()
        with pytest.raises(InterpreterError, match="Variables are kept"):
            executor("time.sleep(60)")
        assert time.monotonic() - started < 2
        executor.timeout_seconds = 60
        threading.Timer(0.3, executor.interrupt).start()
        with pytest.raises(CodeInterrupted, match="Variables are kept"):
            executor("time.sleep(60)")
        assert executor("kept").output == 1

    def test_one_that_hangs_in_c_is_killed_in_time_and_its_variables_come_back(self, shared, short_grace):
        executor = shared
        executor("kept = [1, 2]")
        executor.timeout_seconds = 0.5
        started = time.monotonic()
        with pytest.raises(WorkerLost, match="had to be killed"):
            executor("sum(range(10**13))")
        assert time.monotonic() - started < 0.5 + 4
        executor.timeout_seconds = 60
        assert executor("kept").output == [1, 2]

    def test_a_crash_is_told_and_survived(self, shared):
        executor = shared
        with pytest.raises(WorkerLost, match="status 7"):
            executor("import os; os._exit(7)")
        with pytest.raises(WorkerLost, match="signal 11"):
            executor("import os; os.kill(os.getpid(), 11)")
        assert executor("1").output == 1

    def test_garbage_on_the_pipe_is_a_breach(self, shared):
        executor = shared
        write = "import os\nfor n in range(200, 210):\n    try: os.write(n, b'garbage\\n')\n    except OSError: pass\n"
        with pytest.raises(WorkerLost, match="broke the rules"):
            executor(write + "import time; time.sleep(30)")
        assert executor("1").output == 1

    def test_a_tool_of_an_agent_is_asked_about_and_on_record(self, cloud):
        class Publish(FinalAnswerTool):
            name, effects = "publish", "write"
            inputs = {"answer": {"type": "any", "description": "What."}}

        told, asked = [], []

        class Told(Observer):
            def calling(self, step, **_):
                told.append(("calling", step.tool))

            def called(self, step, **_):
                told.append(("called", step.tool, step.denied))

        def answer(request):
            asked.append(request.arguments)
            return ApprovalAnswer("reject" if len(asked) == 1 else "approve", "not yet", "tester")

        script = [
            "<code>\ntry:\n    publish('a')\nexcept PermissionError as error:\n    print(error)\nresult = publish('b')\n</code>",
            "<code>\nfinal_answer(result)\n</code>",
        ]
        agent = InternAgent(
            [Publish()], ScriptedModel(script), executor_type="e2b", on_approval=answer, observers=[Told()]
        )
        with agent:
            assert agent.run("Go.") == "b"
        assert asked == [{"answer": "a"}, {"answer": "b"}]
        assert told[:4] == [
            ("calling", "publish"),
            ("called", "publish", True),
            ("calling", "publish"),
            ("called", "publish", False),
        ]
        assert "not yet" in str(agent.memory.steps[1].observations)
        assert not cloud.boxes


class TestFiles:
    def test_what_lies_here_is_there_and_what_is_made_there_comes_here(self, make):
        executor = make()
        here = executor.workspace
        here.write_bytes("data/in.bin", bytes(range(256)) * 1000)
        assert executor("import os, pathlib\nlen(pathlib.Path('data/in.bin').read_bytes()), os.getcwd()").output == (
            256_000,
            here.inside,
        )
        executor("pathlib.Path('out/deep').mkdir(parents=True)\npathlib.Path('out/deep/a.txt').write_text('made')")
        assert here.read_bytes("out/deep/a.txt") == b"made"
        here.write_bytes("data/in.bin", b"changed")
        (here.root / "out" / "deep" / "a.txt").unlink()
        assert executor("pathlib.Path('data/in.bin').read_text(), os.path.exists('out/deep/a.txt')").output == (
            "changed",
            False,
        )
        executor("import shutil\nshutil.rmtree('out'); os.remove('data/in.bin')")
        assert here.walk() == [] and here.listdir() == ["data"]

    def test_a_tool_sees_and_leaves_files_in_the_middle_of_an_action(self, make):
        executor = make()
        here = executor.workspace
        executor.send_tools({
            "read": lambda path: here.read_bytes(path).decode(),
            "write": lambda path, text: here.write_bytes(path, text.encode()),
        })  # fmt: skip
        code = "open('a', 'w').write('one')\nfirst = read('a')\nopen('a', 'w').write('two two')\nsecond = read('a')\n"
        code += "write('n/b', 'from the host')\nfirst, second, open('n/b').read()"
        assert executor(code).output == ("one", "two two", "from the host")

    def test_an_error_does_not_hold_files_back(self, make):
        executor = make()
        with pytest.raises(InterpreterError):
            executor("open('partly', 'w').write('x')\n1/0")
        assert executor.workspace.exists("partly")

    def test_links_do_not_travel(self, make, tmp_path):
        executor = make()
        (tmp_path / "secret").write_text("secret")
        executor(
            "import os\nos.symlink('/etc/passwd', 'link'); os.symlink('/etc', 'folder'); open('real', 'w').close()"
        )
        assert sorted(os.listdir(executor.workspace.root)) == ["real"]  # noqa: PTH208
        (executor.workspace.root / "out").symlink_to(tmp_path)
        assert "out" not in executor("os.listdir()").output
        executor("os.makedirs('out', exist_ok=True); open('out/secret', 'w').write('overwritten')")
        assert (tmp_path / "secret").read_text() == "secret"

    def test_what_is_too_large_stays_there_and_is_named(self, make):
        executor = make()
        executor("1")
        executor._workspace_mirror.limit = 1000
        done = executor("open('small', 'w').write('x')\nopen('large', 'w').write('y' * 2000)\nNone")
        assert "only there: large (2,000 bytes)" in done.logs
        assert executor.workspace.listdir() == ["small"]

    def test_code_that_gets_in_the_way_of_the_lists_hurts_itself_only(self, make):
        executor = make()
        for lie in ("yes", "echo '{\"../x\": [1, 1]}'", "echo nonsense"):
            profile = (
                f"import os\nopen(os.path.expanduser('~/.profile'), 'w').write({('python3() { ' + lie + '; }')!r})"
            )
            done = executor(profile + "\nopen('file', 'w').write('x')\n'done'")
            assert done.output == "done" and "stay in the sandbox" in done.logs
            assert executor.workspace.listdir() == []
        assert executor("os.remove(os.path.expanduser('~/.profile'))\n1").output == 1
        assert executor.workspace.listdir() == ["file"]

    def test_an_archive_that_lies_gives_nothing(self, tmp_path):
        inside = Workspace(tmp_path / "inside")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, kind in (("../out", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("unasked", tarfile.REGTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "/etc/passwd"
                tar.addfile(member)
            good = tarfile.TarInfo("good")
            good.size = 2
            tar.addfile(good, io.BytesIO(b"ok"))
        archive.seek(0)
        Mirror(inside)._unpack(archive, {"../out", "link", "good"})
        assert inside.walk() == ["good"] and os.listdir(tmp_path) == ["inside"]  # noqa: PTH208
        for garbage in (b"", b"garbage" * 200, gzip.compress(archive.getvalue())):
            with pytest.raises(ConnectionError, match="do not read"):
                Mirror(inside)._unpack(io.BytesIO(garbage), {"good"})

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
    def test_a_list_that_leads_out_is_refused(self, name):
        with pytest.raises(ValueError, match="leads out"):
            read_marks({name: [1, 1]})

    def test_a_host_that_writes_while_files_come_loses_nothing(self, make):
        executor = make()
        executor("1")
        mirror: Mirror = executor._workspace_mirror
        executor.workspace.write_bytes("host", b"written meanwhile")
        mirror.pull()
        mirror.push()
        assert executor("open('host').read()").output == "written meanwhile"


class TestTheSandbox:
    def test_it_is_made_as_asked_and_killed_at_the_end(self, cloud, make):
        executor = make(template="base", session="s1", metadata={"team": "ml"}, sandbox_seconds=77)
        assert not cloud.boxes
        executor.start()
        box = only(cloud)
        assert (box.template, box.internet) == ("base", False)
        assert {
            "team": "ml",
            LABEL + "session": "s1",
            LABEL + "process": this_process(),
        }.items() <= box.metadata.items()
        assert 60 < (box.ends - box.started).total_seconds() <= 80
        executor.cleanup()
        assert not cloud.boxes
        assert executor("2").output == 2  # and may be used again

    @pytest.mark.parametrize("options", [{"allow_internet_access": True}, {"network": "full"}])
    def test_the_internet_only_where_it_is_asked_for(self, cloud, make, options):
        executor = make(**options)
        assert executor("import os; os.environ.get('HF_HUB_OFFLINE')").output is None
        assert only(cloud).internet

    def test_named_hosts_are_refused_with_the_reason(self):
        with pytest.raises(ValueError, match="the whole internet"):
            E2BExecutor(hosts=["example.com"])

    def test_forgetting_the_executor_kills_it(self, cloud):
        executor = E2BExecutor()
        executor("1")
        executor._later.join()  # it fetches the variables, and lets go
        del executor
        gc.collect()
        assert until(lambda: not cloud.boxes)

    def test_it_lives_as_long_as_its_host_says_so(self, cloud, make):
        executor = make(sandbox_seconds=1)
        assert executor("import time\ntime.sleep(1.8)\n'alive'").output == "alive"

    def test_gone_in_the_middle_of_an_action(self, cloud, make):
        executor = make()
        executor("kept = 5\nopen('file', 'w').write('saved')")
        assert until(lambda: not executor._later.is_alive())
        first = only(cloud).identity
        threading.Timer(0.3, cloud.lose, (first,)).start()
        started = time.monotonic()
        with pytest.raises(WorkerLost, match="the E2B sandbox is gone"):
            executor("import time\ntime.sleep(60)")
        assert time.monotonic() - started < 4
        done = executor("kept, open('file').read()")
        assert done.output == (5, "saved") and "Variables are back" in done.logs
        assert only(cloud).identity != first

    def test_gone_between_actions(self, cloud, make):
        executor = make()
        executor("open('file', 'w').write('saved')")
        cloud.lose(only(cloud).identity)
        assert until(lambda: executor.box.process.lost)
        done = executor("open('file').read()")
        assert done.output == "saved" and "ended after the last action: the E2B sandbox is gone" in done.logs

    def test_a_connection_that_breaks_between_actions_is_made_again(self, cloud, make):
        executor = make()
        executor("class Unsaved:\n    __reduce__ = None\nkept = Unsaved()\nkept.n = 3")
        cloud.cut_off(only(cloud).identity)
        time.sleep(0.3)
        assert executor("kept.n").output == 3

    def test_one_that_breaks_within_an_action_is_told(self, cloud, make):
        executor = make()
        executor("1")
        threading.Timer(0.3, cloud.cut_off, (only(cloud).identity,)).start()
        with pytest.raises(WorkerLost, match="the connection to the E2B sandbox broke"):
            executor("import time\ntime.sleep(60)")
        assert executor("2").output == 2

    def test_input_that_does_not_arrive_is_told(self, cloud, make):
        executor = make()
        executor("1")
        cloud.fail("/process.Process/SendInput", status=503, times=1)
        with pytest.raises(WorkerLost, match="did not take what was sent"):
            executor("2")
        assert executor("3").output == 3

    def test_asleep_between_actions_and_woken_by_the_next(self, cloud, make):
        executor = make()
        executor("class Unsaved:\n    __reduce__ = None\nkept = Unsaved()\nkept.n = 4")
        executor.pause()
        assert only(cloud).state == "paused"
        assert executor("kept.n").output == 4
        executor.pause()
        cloud.lose(only(cloud).identity)
        assert executor("'started anew'").output == "started anew"

    def test_asleep_across_processes_by_name(self, cloud, make):
        first = make(session="nap", pause_on_cleanup=True, additional_functions={"who": lambda: "first"})
        first("class Unsaved:\n    __reduce__ = None\nkept = Unsaved()\nkept.n = 4\nwho()")
        first.cleanup()
        assert only(cloud).state == "paused"
        make(session="other")("1")
        second = make(session="nap", additional_functions={"who": lambda: "second"})
        assert second("kept.n, who()").output == (4, "second")
        assert len(cloud.boxes) == 2

    def test_a_nap_needs_a_name(self):
        with pytest.raises(ValueError, match="needs `session`"):
            E2BExecutor(pause_on_cleanup=True)

    @pytest.mark.long
    def test_what_a_killed_host_left_behind_is_killed_at_the_next_start(self, cloud, make, tmp_path):
        bystander = e2b.Sandbox.create("base", timeout=60, metadata={LABEL + "owner": "somebody"})
        program = (
            "from ml_intern.execution import E2BExecutor, Workspace\n"
            f"executor = E2BExecutor(Workspace({str(tmp_path / 'other')!r}))\n"
            "executor('1')\nprint('ready', flush=True)\nimport time\ntime.sleep(60)"
        )
        host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        try:
            assert host.stdout.readline() == b"ready\n"
            (left,) = set(cloud.boxes) - {bystander.sandbox_id}
            running = make()
            running("1")
            time.sleep(0.5)
            assert left in cloud.boxes  # its host is still there
        finally:
            host.send_signal(signal.SIGKILL)
            host.wait()
        executor = make()
        executor("1")
        assert until(lambda: left not in cloud.boxes)
        assert {bystander.sandbox_id, running.box.sandbox.sandbox_id} <= set(cloud.boxes)

    def test_who_is_an_orphan(self):
        dead = f"{2**22 + 1} 1"
        mine = {
            LABEL + "owner": "me",
            LABEL + "session": "old",
            LABEL + "machine": this_machine(),
            LABEL + "process": dead,
        }

        def orphan(paused=False, **changed):
            labels = {**mine, **{LABEL + name: value for name, value in changed.items()}}
            return is_orphan(labels, paused, owner="me", session="new", machine=this_machine())

        assert orphan()
        assert orphan(session="new", process=this_process()) and orphan(paused=True, session="new")
        assert not orphan(paused=True)  # asleep
        assert not orphan(process=this_process())  # at work
        assert not is_orphan(
            {**mine, LABEL + "session": "", LABEL + "process": this_process()},
            False,
            owner="me",
            session="",
            machine="x",
        )
        assert not orphan(machine="another") and not orphan(owner="you") and not orphan(process="")
        assert orphan(process=f"{os.getpid()} 1")  # the number is another process's now


class TestRefusals:
    @pytest.mark.parametrize(
        "fault, says",
        [
            ({"status": 401, "body": {"code": 401, "message": "bad"}}, "E2B refused the key.*\n.*E2B_API_KEY"),
            ({"status": 404, "body": {"code": 404, "message": "template not found"}}, "template"),
            ({"status": 429, "body": {"code": 429, "message": "limit"}, "times": None}, "refused another sandbox"),
            ({"status": 503, "body": {"code": 503, "message": "full"}, "times": None}, "no room"),
            ({"status": 502, "body": "<html>", "times": None}, "gave no sandbox"),
            ({"drop": True, "times": None}, "gave no sandbox"),
        ],
    )
    def test_of_the_cloud_are_two_lines_and_leave_nothing(self, cloud, make, fault, says):
        headers = {"Should-Retry": "false"} if "status" in fault else None
        cloud.fail("/v2/sandboxes", method="POST", headers=headers, **fault)
        executor = make()
        with pytest.raises(E2BUnavailable, match=says) as refused:
            executor("1")
        assert len(str(refused.value).splitlines()) <= 3
        cloud._failures.clear()
        assert executor("1").output == 1
        assert len(cloud.boxes) == 1

    def test_no_key(self, make, monkeypatch):
        monkeypatch.delenv("E2B_API_KEY")
        with pytest.raises(E2BUnavailable, match=r"no key for E2B.*\n?.*export E2B_API_KEY"):
            make()("1")

    def test_a_template_that_is_not_there(self, cloud, make):
        with pytest.raises(E2BUnavailable, match="mine"):
            make(template="mine")("1")
        assert not cloud.boxes

    def test_a_start_that_fails_half_way_leaves_no_sandbox(self, cloud, make):
        cloud.fail("/process.Process/Start", status=503, times=None)
        with pytest.raises(E2BUnavailable):
            make()("1")
        assert not cloud.boxes


def test_a_deadline_is_kept_whatever_the_client_does():
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.2 seconds"):
        within(0.2, time.sleep, 5)
    assert time.monotonic() - started < 1
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)


def test_words_for_signals_are_read():
    assert [
        exit_status(code, text) for code, text in ((3, ""), (-1, "signal: killed"), (-1, "signal: segmentation fault"))
    ] == [3, -9, -11]


@pytest.mark.long
def test_it_leaves_no_thread_or_descriptor_behind(make):
    make()("1")

    def count():
        return len(os.listdir("/proc/self/fd")), sum(t.name.startswith("ml-intern-e2b") for t in threading.enumerate())  # noqa: PTH208

    for _ in range(1):  # connections of the client's pool come first
        executor = make()
        executor("1")
        executor.cleanup()
    before = count()
    for _ in range(2):
        executor = make()
        executor("1")
        executor.cleanup()
    gc.collect()
    assert until(lambda: count()[0] <= before[0] + 2 and count()[1] <= before[1]), (before, count())
