"""Host tools as the code sees them."""

from __future__ import annotations

import contextvars
import io
import threading
import time
from typing import Any

import numpy as np
import PIL.Image
import pytest
from smolagents import CodeAgent, Tool, tool
from smolagents.agent_types import AgentText
from smolagents.local_python_executor import InterpreterError
from smolagents.models import ChatMessage, MessageRole, Model

from ml_intern.execution import JailExecutor
from ml_intern.execution.stubs import describe


class Search(Tool):
    name = "search"
    description = "Searches."
    inputs = {
        "query": {"type": "string", "description": "what for"},
        "limit": {"type": "integer", "description": "how many", "nullable": True},
    }
    output_type = "object"

    def forward(self, query: str, limit: int | None = 3) -> dict:
        return {"query": query, "limit": limit}


class NotADataClass:
    pass


@pytest.fixture(scope="module")
def host() -> Any:
    """An executor with a few functions, and the things they hand out and got."""
    got: list[Any] = []
    thing = NotADataClass()

    def boom(kind: str) -> None:
        class Strange(KeyError):
            pass

        raise {"value": ValueError("bad value"), "key": KeyError("k"), "strange": Strange("odd"),
               "os": FileNotFoundError(2, "No such file", "x.txt"), "exit": SystemExit(3),
               "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "nope")}[kind]  # fmt: skip

    executor = JailExecutor(additional_functions={
        "double": lambda x: x * 2, "thing": lambda: thing, "same": lambda x: x is thing, "keep": got.append,
        "give": lambda: got[-1], "boom": boom, "echo": lambda *args, **kwargs: [args, kwargs], "open": open,
    })  # fmt: skip
    executor.got, executor.thing = got, thing
    executor.send_tools({"search": Search()})
    yield executor
    executor.cleanup()


def test_signature_and_docstring(host: JailExecutor) -> None:
    assert (
        host("import inspect\nstr(inspect.signature(search))").output == "(query: 'str', limit: 'int' = 3) -> 'dict'"
    )
    doc = host("search.__doc__").output
    assert all(text in doc for text in ("Searches.", "query (str): what for", "Returns: dict"))
    assert host("inspect.isfunction(search), search.__name__").output == (True, "search")
    assert host("str(inspect.signature(echo)), str(inspect.signature(double))").output == ("(*args, **kwargs)", "(x)")


def test_signatures_of_anything_read_as_python() -> None:
    def odd(a, /, b: list[int] = [1], *, c: Any = object(), d=float("inf")) -> list:  # noqa: B006, B008
        """Odd."""

    odd.__annotations__["a"] = "not python at all!"

    assert describe("odd", odd)["signature"] == "(a, /, b: list[int] = [1], *, c: Any = ..., d=...) -> list"
    assert describe("open", open)["signature"].startswith("(file, mode='r'")
    assert describe("print", dict)["signature"] == "(*args, **kwargs)"


def test_calls_by_position_and_name(host: JailExecutor) -> None:
    assert host("search('x')").output == {"query": "x", "limit": 3}
    assert host("search(limit=1, query='y')").output == {"query": "y", "limit": 1}
    assert host("echo(1, (2,), k={3})").output == [(1, (2,)), {"k": {3}}]
    with pytest.raises(InterpreterError, match="TypeError"):
        host("search()")


@pytest.mark.parametrize(
    ("kind", "caught", "text"),
    [
        ("value", "ValueError", "bad value"), ("key", "KeyError", "'k'"), ("strange", "KeyError", "odd"),
        ("os", "FileNotFoundError", "[Errno 2] No such file: 'x.txt'"), ("unicode", "UnicodeDecodeError", "nope"),
    ],
)  # fmt: skip
def test_exceptions_come_as_the_nearest_builtin(host: JailExecutor, kind: str, caught: str, text: str) -> None:
    assert (
        host(f"try:\n    boom({kind!r})\nexcept {caught} as e:\n    r = type(e).__name__, str(e)\nr").output[0]
        == caught
    )
    assert text in host("r[1]").output
    with pytest.raises(InterpreterError, match=f"at line 'boom\\({kind!r}\\)' due to: {caught}"):
        host(f"boom({kind!r})")


def test_a_tool_that_exits_does_not_end_the_host(host: JailExecutor) -> None:
    with pytest.raises(InterpreterError, match="SystemExit: 3"):
        host("boom('exit')")


def test_a_tool_that_is_gone_or_was_never_there(make) -> None:
    executor = make()
    executor.send_tools({"old": len})
    assert executor("keep = old\nold('abc')").output == 3
    executor.send_tools({"new": len})
    with pytest.raises(InterpreterError, match="NameError"):
        executor("old('abc')")
    with pytest.raises(InterpreterError, match="there is no tool named 'old'"):
        executor("keep('abc')")


def test_handles_come_back_as_the_object_itself(host: JailExecutor) -> None:
    assert host("t = thing()\nsame(t), same([t][0]), same(1)").output == (True, True, False)
    host("class Mine:\n    secret = 42\nm = Mine()\nkeep(m)")
    assert type(host.got[-1]).__name__ == "Handle"
    assert host("give() is m and give().secret").output == 42
    with pytest.raises(InterpreterError, match="AttributeError: this NotADataClass is only a handle"):
        host("t.anything")
    assert host("f = lambda: 7\nkeep([f])\ngive()[0]()").output == 7


def test_a_host_file_is_only_a_handle(host: JailExecutor, tmp_path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("inside")
    with pytest.raises(InterpreterError, match="this TextIOWrapper is only a handle"):
        host(f"f = open({str(path)!r})\nf.read()")
    host("keep(f)")
    assert isinstance(host.got[-1], io.TextIOWrapper)
    assert host.got[-1].read() == "inside"
    host.got[-1].close()


def test_handles_do_not_survive_a_restart(make) -> None:
    got: list[Any] = []
    executor = make(additional_functions={"keep": got.append, "give": lambda: got[0]})
    executor("keep(object())")
    with pytest.raises(InterpreterError, match="process ended"):
        executor("import os\nos._exit(1)")
    executor("keep(lambda: 1)")
    with pytest.raises(InterpreterError, match="is gone"):
        executor("give()")


def test_variables(make) -> None:
    executor = make()
    data = {
        "n": 1,
        "image": PIL.Image.new("RGB", (2, 2)),
        "array": np.ones(2),
        "text": AgentText("t"),
        "f": np.mean,
        "o": NotADataClass(),
    }
    executor.send_variables(data)
    assert executor("n, image.size, array.sum(), text, f(array)").output == (1, (2, 2), 2.0, "t", 1.0)
    assert executor("n = n + 1\ntype(o).__name__").output == "Handle"
    assert executor("n").output == 2
    assert executor.state["n"] == 1
    executor.send_variables({"huge": b"x" * 70_000_000})
    assert executor("type(huge).__name__").output == "Handle"


@pytest.mark.long
def test_large_values_cross_and_larger_ones_say_what_to_do(make) -> None:
    executor = make(additional_functions={"get": lambda n: b"x" * n, "size": len})
    assert executor("len(get(40_000_000))").output == 40_000_000
    assert executor("size(b'x' * 40_000_000)").output == 40_000_000
    for code in (
        "get(80_000_000)",
        "size(b'x' * 80_000_000)",
        "size('\\ud800' * 20_000_000)",
        "size([[]] * 2_000_000)",
    ):
        with pytest.raises(InterpreterError, match="workspace"):
            executor(code)
    assert executor("size('ok')").output == 2


def test_calls_from_threads_are_parallel_and_unmixed(make) -> None:
    together = threading.Barrier(8)
    executor = make(additional_functions={"meet": lambda n: together.wait(10) >= 0 and n, "double": lambda x: x * 2})
    code = "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(50)\n"
    assert executor(code + "list(pool.map(meet, range(1, 9)))").output == list(range(1, 9))
    assert executor("list(pool.map(double, range(1000)))").output == [2 * n for n in range(1000)]
    code = "import asyncio\nawait asyncio.gather(*(asyncio.to_thread(double, n) for n in range(20)))"
    assert executor(code).output == [2 * n for n in range(20)]


def test_calls_carry_the_callers_context(make) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")
    var.set("mine")
    assert make(additional_functions={"look": var.get})("look()").output == "mine"


def test_final_answer_ends_the_action_and_its_value_stays(make) -> None:
    answer = NotADataClass()
    executor = make(additional_functions={"thing": lambda: answer})
    executor.send_tools({"final_answer": lambda answer: answer})
    output = executor("print('a')\ntry:\n    final_answer(thing())\nexcept Exception:\n    pass\nprint('b')")
    assert output.is_final_answer
    assert output.output is answer
    assert output.logs == "a\n"
    output = executor("try:\n    final_answer(1)\nexcept:\n    final_answer(2)")
    assert (output.output, output.is_final_answer) == (1, True)
    assert executor("final_answer = 5").is_final_answer is False
    assert executor("final_answer('again')").output == "again"
    assert executor("1").is_final_answer is False
    with pytest.raises(InterpreterError, match="TypeError"):
        executor("final_answer()")


def test_tools_cannot_be_called_by_children_or_after_the_action(make) -> None:
    calls: list[int] = []
    executor = make(additional_functions={"note": calls.append})
    code = "import os\nr, w = os.pipe()\npid = os.fork()\nif pid == 0:\n    try:\n        note(1)\n    except RuntimeError as e:\n"
    code += "        os.write(w, str(e).encode())\n    os._exit(0)\nos.waitpid(pid, 0)\nos.read(r, 999).decode()"
    assert "main process only" in executor(code).output
    code = "import threading, time\nerrors = []\ndef late():\n    time.sleep(0.2)\n    try:\n        note(2)\n"
    code += "    except RuntimeError as e:\n        errors.append(str(e))\nthread = threading.Thread(target=late)\nthread.start()"
    executor(code)
    time.sleep(0.4)
    assert "after its action had ended" in executor("thread.join()\nerrors[0]").output
    assert calls == []


def test_a_call_that_is_out_when_the_action_ends_is_cancelled(make) -> None:
    seen: dict[str, Any] = {}
    executor = make()

    def wait() -> str:
        seen["cancelled"] = executor.cancelled.wait(10)
        seen["set"].set()
        return "nobody wants it"

    seen["set"] = threading.Event()
    executor.send_tools({"wait": wait})
    code = "import threading, time\nout = []\ndef go():\n    try:\n        out.append(wait())\n    except RuntimeError as e:\n"
    executor(code + "        out.append(str(e))\nt = threading.Thread(target=go)\nt.start()\ntime.sleep(0.1)")
    assert seen["set"].wait(5)
    assert seen["cancelled"] is True
    assert executor("t.join()\nout").output == ["wait was cancelled: its action has ended"]
    assert not executor.cancelled.is_set()


def test_a_tool_cannot_run_code_in_the_process_that_waits_for_it(make) -> None:
    executor = make()
    executor.send_tools({"again": lambda: executor("1")})
    with pytest.raises(InterpreterError, match="An action is running"):
        executor("again()")


def test_images_that_would_fill_the_hosts_memory_are_refused(make) -> None:
    executor = make(additional_functions={"size": lambda *images: sum(i.width for i in images)})
    executor("from PIL import Image\nImage.MAX_IMAGE_PIXELS = None\nbig = Image.new('1', (9_000, 9_000))")
    assert executor("size(big)").output == 9_000
    for code in ("size(big, big)", "size(Image.new('1', (20_000, 20_000)))"):
        with pytest.raises(InterpreterError, match="not an image"):
            executor(code)
    with pytest.raises(InterpreterError, match="does not read"):
        executor("display(big, big)")
    assert executor("1").output == 1


class Script(Model):
    """Says one thing after the other."""

    def __init__(self, *codes: str) -> None:
        super().__init__()
        self.codes = list(codes)

    def generate(self, messages: Any, **_: Any) -> ChatMessage:
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"<code>\n{self.codes.pop(0)}\n</code>")


def test_serves_a_plain_smolagents_agent(make) -> None:
    @tool
    def paint(color: str) -> Any:
        """Paints.

        Args:
            color: Which.
        """
        return PIL.Image.new("RGB", (4, 4), color)

    model = Script(
        "import os\nbroken(1)", "picture = paint('red')\nprint(picture.size, extra)", "final_answer(picture)"
    )
    agent = CodeAgent(tools=[paint], model=model, executor=make(), verbosity_level=0)
    answer = agent.run("go", additional_args={"extra": "more"})
    assert isinstance(answer, PIL.Image.Image)
    steps = [step for step in agent.memory.steps if hasattr(step, "observations")]
    assert "Code execution failed at line 'broken(1)' due to: NameError" in str(steps[0].error)
    assert "(4, 4) more" in steps[1].observations
    agent.cleanup()
