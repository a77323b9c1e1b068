from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from smolagents import Tool, ToolCallingAgent, tool
from smolagents.default_tools import PythonInterpreterTool, VisitWebpageTool
from smolagents.memory import MemoryStep

from ml_intern.effects import effects_of
from ml_intern.errors import Denied, JournalFailed
from ml_intern.execution import Workspace
from ml_intern.router import RoutedTool, ToolRouter, bind
from ml_intern.secrets import Masker
from ml_intern.steps import ToolCallStep, ToolResultStep
from ml_intern.testing import ScriptedModel


@tool
def double(number: int, times: int = 1) -> int:
    """Doubles.

    Args:
        number: What to double.
        times: How often.
    """
    return number * 2**times


class Sender(Tool):
    name, description, output_type = "sender", "Sends a folder.", "object"
    inputs = {"folder": {"type": "string", "description": "Which."}}
    effects = "write"
    sends: tuple = ("folder",)

    def __init__(self, workspace=None):
        super().__init__()
        self.workspace = workspace
        self.call_id = None

    def forward(self, folder: str) -> dict:
        return {"text": self.workspace.read_bytes(f"{folder}/a.txt").decode(), "call_id": self.call_id}

    def check(self, folder: str) -> None:
        if folder == "forbidden":
            raise ValueError("not this one")

    def preview(self, folder: str) -> str:
        return f"will send {folder}"


class Fired:
    """Stands where the agent's callbacks stand."""

    def __init__(self, on_call=None) -> None:
        self.steps: list[MemoryStep] = []
        self.on_call = on_call or (lambda step: None)

    def __call__(self, step: MemoryStep) -> None:
        self.steps.append(step)
        if isinstance(step, ToolCallStep):
            self.on_call(step)


def router(fired: Fired, *tools: Any, workspace: Path | None = None, **options) -> ToolRouter:
    made = ToolRouter(fired, **{"masker": Masker({}), **options})
    for one in tools:
        made[one.name] = one
    if workspace:
        made.services["workspace"] = lambda: Workspace(workspace)
    return made


def test_a_call_is_told_of_before_and_after_with_its_arguments_by_name() -> None:
    fired = Fired()
    assert router(fired, double)["double"](3, times=2) == 12
    call, result = fired.steps
    assert isinstance(call, ToolCallStep) and call.arguments == {"number": 3, "times": 2} and call.tool == "double"
    assert isinstance(result, ToolResultStep) and result.result == 12 and result.call_id == call.call_id


def test_a_refused_call_never_reaches_the_tool() -> None:
    ran: list[int] = []

    @tool
    def act(x: int) -> int:
        """Acts.

        Args:
            x: Anything.
        """
        ran.append(x)
        return x

    def refuse(step: ToolCallStep) -> None:
        raise Denied("no")

    fired = Fired(refuse)
    with pytest.raises(Denied):
        router(fired, act)["act"](1)
    assert ran == []
    assert fired.steps[-1].denied


def test_a_call_that_cannot_be_put_on_record_is_not_made() -> None:
    ran: list[int] = []

    @tool
    def act(x: int) -> int:
        """Acts.

        Args:
            x: Anything.
        """
        ran.append(x)
        return x

    def full(step: ToolCallStep) -> None:
        raise JournalFailed("disk full")

    with pytest.raises(JournalFailed):
        router(Fired(full), act)["act"](1)
    assert ran == []


def test_a_tool_that_fails_is_on_record_with_its_error() -> None:
    @tool
    def fail() -> int:
        """Fails."""
        raise ValueError("broken")

    fired = Fired()
    with pytest.raises(ValueError, match="broken"):
        router(fired, fail)["fail"]()
    assert isinstance(fired.steps[-1].error, ValueError) and not fired.steps[-1].denied


def test_a_call_for_code_that_has_ended_is_refused_even_when_it_was_allowed() -> None:
    """A person may take an hour; by then the code that asked may be gone."""
    made: ToolRouter

    def meanwhile(step: ToolCallStep) -> None:
        made.action.ended.set()

    fired = Fired(meanwhile)
    made = router(fired, double)
    with made.acting(3):
        with pytest.raises(Denied, match="has ended"):
            made["double"](1)
    assert fired.steps[0].action == 3


def test_secrets_are_masked_in_results_and_other_objects_pass_as_they_are() -> None:
    thing = object()

    @tool
    def leak(what: str) -> Any:
        """Leaks.

        Args:
            what: What.
        """
        return {"a": ["key very-secret-value"]} if what == "data" else thing

    made = router(Fired(), leak, masker=Masker({"very-secret-value": "MY_TOKEN"}))
    assert made["leak"]("data") == {"a": ["key [secret:MY_TOKEN]"]}
    assert made["leak"]("object") is thing


@pytest.mark.parametrize("kind", ["builtin", "file", "own"])
def test_secrets_are_masked_in_what_a_tool_raises(kind: str) -> None:
    """Code in the jail catches it, and could carry it on in pieces."""

    class Own(Exception):
        def __init__(self, said: str) -> None:
            self.said = said

        def __str__(self) -> str:
            return self.said

    @tool
    def fail() -> int:
        """Fails."""
        said = "GET https://example.com/?key=very-secret-value"
        raise {"builtin": ValueError(said), "file": FileNotFoundError(2, "none", f"/x/{said}"), "own": Own(said)}[kind]

    fired = Fired()
    made = router(fired, fail, masker=Masker({"very-secret-value": "MY_TOKEN"}))
    with pytest.raises((ValueError, RuntimeError)) as caught:
        made["fail"]()
    for error in (caught.value, fired.steps[-1].error):
        assert "[secret:MY_TOKEN]" in str(error) and "very-secret" not in f"{error} {error.args}", kind


def test_what_will_be_sent_is_frozen_before_anyone_is_asked(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.txt").write_text("as shown")

    def swap(step: ToolCallStep) -> None:
        (tmp_path / "m" / "a.txt").write_text("swapped while the question was open")

    fired = Fired(swap)
    result = router(fired, Sender(), workspace=tmp_path)["sender"]("m")
    assert result["text"] == "as shown"
    call = fired.steps[0]
    assert [(file.path, file.size) for file in call.files] == [("m/a.txt", 8)]
    assert call.preview == "will send m" and call.effects == "write"
    assert result["call_id"] == call.call_id


class Commenter(Tool):
    """Takes nothing of the host, and leaves the call's id where it writes."""

    name, description, output_type, effects = "commenter", "Comments.", "object", "write"
    inputs = {"text": {"type": "string", "description": "What."}}

    def __init__(self) -> None:
        super().__init__()
        self.call_id = None

    def forward(self, text: str) -> dict:
        return {"call_id": self.call_id}

    def check(self, text: str) -> None:
        if not text:
            raise ValueError("say something")

    def preview(self, text: str) -> str:
        return f"will say {text}"


def test_a_tool_that_takes_nothing_of_the_host_is_shown_and_has_the_calls_id_all_the_same() -> None:
    """Without the id nothing keeps its call from taking effect twice."""
    fired, one = Fired(), Commenter()
    made = router(fired, one)
    result = made["commenter"]("hello")
    assert result["call_id"] == fired.steps[0].call_id
    assert fired.steps[0].preview == "will say hello"
    assert one.call_id is None  # each call has an instance of its own
    with pytest.raises(ValueError, match="say something"):
        made["commenter"]("")


def test_a_link_out_of_the_workspace_is_not_sent(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("host file")
    work = tmp_path / "work"
    work.mkdir()
    (work / "m").symlink_to(outside)
    fired = Fired()
    with pytest.raises(Exception, match="m"):
        router(fired, Sender(), workspace=work)["sender"]("m")
    assert fired.steps[0].problem is not None and fired.steps[-1].error is not None


def test_what_the_tool_itself_refuses_is_told_as_a_problem(tmp_path: Path) -> None:
    (tmp_path / "forbidden").mkdir()
    fired = Fired()
    with pytest.raises(ValueError, match="not this one"):
        router(fired, Sender(), workspace=tmp_path)["sender"]("forbidden")
    assert isinstance(fired.steps[0].problem, ValueError)


def test_calls_in_parallel_share_no_instance(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    sender = router(Fired(), Sender(), workspace=tmp_path)["sender"]
    results: dict[str, Any] = {}
    threads = [threading.Thread(target=lambda n=name: results.update({n: sender(n)["text"]})) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: name for name in "abcdefgh"}


def test_a_routed_tool_looks_like_the_tool() -> None:
    routed = router(Fired(), double)["double"]
    assert type(routed) is RoutedTool
    assert isinstance(routed, Tool) and routed.name == "double" and routed.inputs == double.inputs
    assert routed == double and routed.to_dict() == double.to_dict()
    routed.description = "changed"
    assert double.description == "changed"


@pytest.mark.parametrize(
    ("args", "kwargs", "bound"),
    [
        ((1, 2), {}, {"number": 1, "times": 2}),
        (({"number": 1},), {}, {"number": 1}),
        (({"other": 1},), {}, {"number": {"other": 1}}),
        ((), {"number": 1, "sanitize_inputs_outputs": True}, {"number": 1}),
        ((1, 2, 3), {}, {"number": 1, "times": 2, "arg2": 3}),
    ],
)
def test_arguments_are_bound_by_name(args: tuple, kwargs: dict, bound: dict) -> None:
    assert bind(double, args, kwargs) == bound


class Swapped(Tool):
    name, description, output_type = "swapped", "Describes its inputs in another order than it takes them.", "any"
    inputs = {"a": {"type": "string", "description": "One."}, "b": {"type": "string", "description": "Other."}}

    def forward(self, b: str, a: str) -> list:
        return [a, b]


def test_what_is_shown_of_arguments_without_names_is_what_the_tool_gets() -> None:
    fired = Fired()
    assert router(fired, Swapped())["swapped"]("for b", "for a") == ["for a", "for b"]
    assert fired.steps[0].arguments == {"a": "for a", "b": "for b"}


class Switch(Tool):
    name, description, output_type = "switch", "Does one thing or another.", "any"
    inputs = {"operation": {"type": "string", "description": "Which."}}
    effects = {"list": "read", "delete": "write"}

    def forward(self, operation: str) -> str:
        return operation


class Liar(Tool):
    name, description, output_type, effects = "liar", "Says nonsense of itself.", "any", "harmless"
    inputs: dict = {}

    def forward(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("one", "arguments", "effects"),
    [
        (Switch(), {"operation": "list"}, "read"),
        (Switch(), {"operation": "delete"}, "write"),
        (Switch(), {"operation": "other"}, "unknown"),
        (Switch(), {}, "unknown"),
        (Liar(), {}, "unknown"),
        (double, {}, "unknown"),
        (VisitWebpageTool(), {}, "read"),
        (PythonInterpreterTool(), {}, "execute"),
    ],
)
def test_effects_are_what_the_tool_declares_or_unknown(one: Any, arguments: dict, effects: str) -> None:
    assert effects_of(one, arguments) == effects


def test_an_agent_is_called_by_one_at_a_time() -> None:
    inside, most = [], []

    class Slow(ToolCallingAgent):
        def __call__(self, task: str, **kwargs: Any) -> str:
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.05)
            inside.pop()
            return task

    agent = Slow(tools=[], model=ScriptedModel([]), name="helper", description="Helps.")
    routed = ToolRouter(Fired(), Masker({})).route(agent)
    threads = [threading.Thread(target=routed, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 4


def test_an_action_that_ends_waits_a_moment_for_its_calls_that_are_out() -> None:
    """Else their results would stand in the record after the action's own."""

    @tool
    def slow() -> int:
        """Takes a while."""
        threading.Event().wait(0.2)
        return 1

    fired = Fired()
    made = router(fired, slow)
    with made.acting(1):
        threading.Thread(target=made["slow"]).start()
        while not fired.steps:
            threading.Event().wait(0.01)
    assert isinstance(fired.steps[-1], ToolResultStep) and fired.steps[-1].result == 1
