"""What an action gives: its value, its output, its pictures, its error."""

from __future__ import annotations

import PIL.Image
import pytest
from smolagents.local_python_executor import InterpreterError, LocalPythonExecutor

from ml_intern.execution import JailExecutor


@pytest.mark.parametrize(
    "code",
    [
        "x = 5",
        "1 + 1",
        "a = b = [1, 2]",
        "a, b = 1, 2",
        "x = 1\nx += 2",
        "x: int = 7",
        "import math",
        "x = 3\nif x > 2:\n    y = 'big'\nelse:\n    y = 'small'",
        "def f(n):\n    return n\nf(9)",
        "d = {}\nd['k'] = 4",
        "for i in range(3):\n    pass\ni",
        "print('a')",
        "try:\n    z = 1\nexcept ValueError:\n    z = 2",
        "class C:\n    def __enter__(self): return 1\n    def __exit__(self, *a): return False\nwith C() as c:\n    c",
        "",
    ],
)
def test_the_value_is_that_of_the_last_expression_or_assignment(shared: JailExecutor, code: str) -> None:
    reference = LocalPythonExecutor([])
    reference.send_tools({})
    assert shared(code).output == reference(code).output


def test_an_annotation_or_import_alone_has_no_value(shared: JailExecutor) -> None:
    assert shared("5").output == 5
    assert shared("q: int").output is None
    assert shared("import os").output is None


def test_state_is_kept(shared: JailExecutor) -> None:
    shared("import math\nclass Point:\n    pass\ndef area(r):\n    return round(math.pi * r * r, 2)")
    assert shared("area(2), type(Point()).__name__").output == (12.57, "Point")


def test_prints_of_the_code_and_its_children_are_captured_in_order(shared: JailExecutor) -> None:
    code = "import os, sys, subprocess\nprint('one')\nsubprocess.run(['echo', 'two'])\nprint('three', file=sys.stderr)"
    assert shared(code + "\nos.write(1, b'four\\n')\nNone").logs == "one\ntwo\nthree\nfour\n"
    assert shared.state["_print_outputs"] == "one\ntwo\nthree\nfour\n"


def test_prints_survive_an_error(shared: JailExecutor) -> None:
    with pytest.raises(InterpreterError):
        shared("print('before')\n1/0")
    assert shared.state["_print_outputs"] == "before\n"


def test_output_streams_while_the_code_runs(make) -> None:
    pieces: list[str] = []
    executor = make(on_output=pieces.append, additional_functions={"seen": lambda: "".join(pieces)})
    code = "import time\nprint('early')\nfor _ in range(100):\n    if 'early' in seen(): break\n    time.sleep(0.02)\n"
    assert executor(code + "seen()").output == "early\n"


def test_a_broken_listener_does_not_stop_the_code(make) -> None:
    def broken(_: str) -> None:
        raise RuntimeError("terminal gone")

    assert make(on_output=broken)("print('a')\nprint('b')").logs == "a\nb\n"


def test_long_output_keeps_head_and_tail(make) -> None:
    logs = make(max_print_outputs_length=100)("print('h' * 500 + 'x' * 10_000 + 't' * 500)").logs
    assert logs.startswith("h" * 50 + "\n..._This content has been truncated to stay below 100 characters_...\n")
    assert logs.endswith("t" * 49 + "\n")
    assert len(logs) < 200


def test_output_that_is_not_text_does_no_harm(shared: JailExecutor) -> None:
    logs = shared("import sys, os\nprint('\\ud800 é')\nsys.stdout.flush()\nos.write(1, bytes(range(256)))\nNone").logs
    assert logs.startswith("\\ud800 é\n")
    assert "�" in logs


def test_errors_name_the_line_and_show_only_own_frames(shared: JailExecutor) -> None:
    shared("def ratio(a, b):\n    return a / b")
    with pytest.raises(InterpreterError) as caught:
        shared("import json\nx = 1\n\nvalue = ratio(x, 0)")
    lines = str(caught.value).splitlines()
    assert (
        lines[0] == "Code execution failed at line 'value = ratio(x, 0)' due to: ZeroDivisionError: division by zero"
    )
    assert lines[2] == "  line 4: value = ratio(x, 0)"
    assert lines[3].endswith(", in ratio: return a / b")
    assert " of action " in lines[3]
    with pytest.raises(InterpreterError) as caught:
        shared("import json\njson.loads('{')")
    assert "decoder.py" not in str(caught.value)
    assert "line 2: json.loads('{')" in str(caught.value)


def test_the_failing_statement_of_several_on_a_line(shared: JailExecutor) -> None:
    with pytest.raises(InterpreterError, match=r"at line '\['1', '2'\]\[secret\]' due to: IndexError"):
        shared("secret=3;['1', '2'][secret]")


def test_frames_of_modules_in_the_workspace_are_the_agents_own(shared: JailExecutor) -> None:
    shared("from pathlib import Path\nPath('helper.py').write_text('def go():\\n    raise KeyError(\"lost\")\\n')")
    with pytest.raises(InterpreterError) as caught:
        shared("import helper\nhelper.go()")
    assert "helper.py, line 2, in go: raise KeyError" in str(caught.value)


def test_causes_contexts_notes_and_groups_are_told(shared: JailExecutor) -> None:
    with pytest.raises(InterpreterError) as caught:
        shared("try:\n    int('x')\nexcept ValueError as e:\n    raise RuntimeError('outer') from e")
    assert "Caused by: ValueError: invalid literal" in str(caught.value)
    with pytest.raises(InterpreterError) as caught:
        shared(
            "e = ExceptionGroup('many', [ValueError('first'), KeyError('second')])\ne.add_note('look here')\nraise e"
        )
    assert all(text in str(caught.value) for text in ("Sub-error 1: ValueError: first", "Note: look here"))


@pytest.mark.parametrize(
    "code", ["a = 2\n    print('unexpected indent')", "x = (1,\n", "return 5 +", "a = 1\0", "\ud800"]
)
def test_code_that_does_not_parse_says_where(shared: JailExecutor, code: str) -> None:
    with pytest.raises(InterpreterError, match="Code parsing failed"):
        shared(code)
    assert shared("1").output == 1


def test_a_syntax_error_shows_the_line(shared: JailExecutor) -> None:
    with pytest.raises(InterpreterError) as caught:
        shared('a = 2\nb = a * 2\n    print("Failing due to unexpected indent")')
    assert "Code parsing failed on line 3 due to: IndentationError" in str(caught.value)
    assert '    print("Failing due to unexpected indent")' in str(caught.value)


def test_errors_that_resist_being_described(shared: JailExecutor) -> None:
    with pytest.raises(InterpreterError, match="Rude"):
        shared("class Rude(Exception):\n    def __str__(self):\n        raise SystemError('no')\nraise Rude()")
    with pytest.raises(InterpreterError, match="RecursionError") as caught:
        shared("def f(n): return f(n + 1)\nf(0)")
    assert len(str(caught.value)) < 5000


def test_leaving_with_sys_exit(shared: JailExecutor) -> None:
    assert shared("import sys\nprint('bye')\nsys.exit()").logs == "bye\n"
    with pytest.raises(InterpreterError, match="SystemExit: 3"):
        shared("sys.exit(3)")


def test_open_figures_and_shown_images_come_out(shared: JailExecutor) -> None:
    pytest.importorskip("matplotlib")
    shared("import matplotlib.pyplot as plt\nfrom PIL import Image")
    output = shared("plt.plot([1, 2])\nplt.figure()\nplt.show()\nNone")
    assert [isinstance(image, PIL.Image.Image) for image in output.images] == [True, True]
    assert output.logs == ""
    assert shared("None").images == []
    output = shared("picture = Image.new('RGB', (3, 2), 'red')")
    assert output.images[0].size == (3, 2)
    assert output.output.getpixel((0, 0)) == (255, 0, 0)
    output = shared("display(picture)\ndisplay('words')\nNone")
    assert len(output.images) == 1
    assert output.logs == "words\n"
    assert len(shared("figure = plt.figure()\ndisplay(figure)\nfigure").images) == 1


def test_top_level_await(shared: JailExecutor) -> None:
    code = "import asyncio\nasync def double(n):\n    await asyncio.sleep(0.01)\n    return 2 * n\n"
    assert shared(code + "await asyncio.gather(double(1), double(2))").output == [2, 4]
    assert shared("total = 0\nasync with asyncio.timeout(5):\n    total = await double(21)\ntotal").output == 42
    with pytest.raises(InterpreterError, match="at line 'await fail"):
        shared("async def fail(): raise ValueError('no')\nawait fail()")
    assert shared("asyncio.run(double(4))").output == 8


def test_a_value_that_is_large_or_strange_becomes_text(shared: JailExecutor) -> None:
    value = shared("'é' * 3_000_000").output
    assert isinstance(value, str)
    assert len(value) < 1_100_000
    assert shared("list(range(5_000_000))").output.startswith("list of 5000000, begins with [0, 1, 2")
    assert shared("object()").output.startswith("<object object at")
    assert shared("class Odd:\n    def __str__(self): raise ValueError\nOdd()").output.startswith(
        "<Odd whose text failed"
    )


def test_pickling_multiprocessing_and_inspection_see_a_main_module(shared: JailExecutor) -> None:
    shared(
        "import inspect, pickle, dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\ndef f(n):\n    return n * n"
    )
    assert shared("pickle.loads(pickle.dumps(P(3))).x").output == 3
    assert shared("inspect.getsource(f)").output == "def f(n):\n    return n * n\n"


def test_processes_of_the_code(make) -> None:
    executor = make()
    code = "from concurrent.futures import ProcessPoolExecutor\ndef f(n):\n    print('child', n)\n    return n * n\n"
    output = executor(code + "with ProcessPoolExecutor(2) as pool:\n    r = list(pool.map(f, range(4)))\nr")
    if executor.jail != "bubblewrap":
        pytest.skip("no shared memory of its own in this jail")
    assert output.output == [0, 1, 4, 9]
    assert sorted(output.logs.split()) == ["0", "1", "2", "3", *["child"] * 4]


def test_a_forked_child_that_runs_on_does_not_end_the_action(shared: JailExecutor) -> None:
    output = shared("import os\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nprint('here', bool(pid))\n7")
    assert output.output == 7
    assert sorted(output.logs.split()) == ["False", "True", "here", "here"]


def test_late_output_is_shown_with_the_next_action(shared: JailExecutor) -> None:
    shared("import subprocess\np = subprocess.Popen('sleep 0.2; echo late', shell=True)\nNone")
    assert shared("p.wait()\nprint('next')").logs == "late\nnext\n"


def test_two_megabytes_of_code(shared: JailExecutor) -> None:
    assert shared("s = '''" + "x" * 2_000_000 + "'''\nlen(s)").output == 2_000_000
    assert shared("y = 1\n" * 100_000 + "y").output == 1


def test_careless_code_does_not_break_the_worker(make) -> None:
    executor = make()
    executor("from pathlib import Path\nfor n in ('json', 'sitecustomize', 'os', 'threading', 'datetime', 'base64'):\n"
             "    Path(n + '.py').write_text('raise SystemError(\"shadowed\")')")  # fmt: skip
    executor("import builtins, sys, io, os, json\nreal = builtins.print\nbuiltins.print = builtins.len = None\n"
             "builtins.isinstance = builtins.type = None\njson.dumps = os.write = os.getpid = json.loads = None\n"
             "json.encoder.c_make_encoder = json.JSONDecoder = None\nsys.stdout = None\nsys.stderr = io.StringIO()")  # fmt: skip
    assert executor("real('still'); {'a': (1, 2)}").output == {"a": (1, 2)}
    with pytest.raises(InterpreterError, match="'NoneType' object is not callable"):
        executor("print('x')")
    fresh = make(workspace=executor.workspace)
    assert fresh("import datetime, json\njson.dumps(1), datetime.date(2026, 1, 2)").output[0] == "1"


def test_closed_streams_are_open_again_at_the_next_action(make) -> None:
    executor = make()
    executor("import os, sys\nprint('a')\nos.close(0)\nos.close(1)\nos.close(2)")
    assert executor("print('b')").logs == "b\n"
    executor("sys.stdout.close()")
    assert executor("print('c')").logs == "c\n"
    with pytest.raises(InterpreterError, match="EOFError"):
        executor("input()")


def test_nothing_starts_before_the_first_action(make, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    executor = make()
    executor.send_tools({"f": len})
    executor.send_variables({"x": 1})
    assert list(tmp_path.iterdir()) == []
    executor.start()
    executor.start()
    assert executor("x").output == 1
    executor.cleanup()
    assert list(tmp_path.iterdir()) == []
    assert executor("x").output == 1


def test_what_came_of_code_that_ran_ahead_is_given_once_and_to_no_later_call(make) -> None:
    executor = make()
    executor("count = 0")
    code = "count += 1\ncount"
    assert list(executor.ahead(code)) == []  # there was nothing to wait for
    assert executor(code).output == 1 and executor(code).output == 2
    list(executor.ahead(code))
    executor.forget()
    assert executor(code).output == 4
    list(executor.ahead("1 / 0"))
    with pytest.raises(InterpreterError, match="ZeroDivisionError"):
        executor("1 / 0")
    list(executor.ahead(code))
    assert executor("'another'").output == "another" and executor(code).output == 6
