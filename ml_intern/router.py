"""ToolRouter: where every tool is registered and every call goes through.

What must never happen here: a tool runs whose call is not on record, or that was not allowed; a call that a person
refused takes effect all the same; two calls share a tool's mutable state; a result carries a secret into the jail.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolagents import MultiStepAgent

from .errors import Denied, JournalFailed
from .events import FileDigest
from .secrets import Masker
from .steps import ToolCallStep, ToolResultStep

if TYPE_CHECKING:
    from smolagents import Tool
    from smolagents.memory import MemoryStep

SMOLAGENTS_EFFECTS = {
    "final_answer": "read",
    "user_input": "read",
    "web_search": "read",
    "visit_webpage": "read",
    "wikipedia_search": "read",
    "transcriber": "read",
    "python_interpreter": "execute",
}
"""What smolagents' own tools do to the world; they do not say so themselves."""


SETTLE_SECONDS = 1.0
"""How long an action that has ended waits for its calls that are out."""


def effects_of(tool: Any, arguments: dict[str, Any]) -> str:
    """What a call does to the world: `read`, `write`, `spend`, `execute`, or `unknown` where the tool does not say."""
    declared = getattr(type(tool), "effects", None)  # optional by design: tools this project has never seen lack it
    if isinstance(declared, dict):
        declared = declared.get(arguments.get("operation"))
    if declared is None and type(tool).__module__.startswith("smolagents."):
        declared = SMOLAGENTS_EFFECTS.get(tool.name)
    return declared if declared in ("read", "write", "spend", "execute") else "unknown"


@dataclass
class Action:
    """The code action that is running: the number of its step, whether it has ended, the calls that are out."""

    number: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    out: int = 0


@dataclass(frozen=True)
class Prepared:
    """A call made ready: what will run, what it will send, what a person should read, or why it cannot be made."""

    runner: Any
    files: tuple[FileDigest, ...] = ()
    preview: str = ""
    problem: Exception | None = None


class RoutedTool:
    """A tool in the router's hands: looks like the tool, is called through the router.

    It reports the tool's own class, so that `isinstance` and smolagents' saving see the tool.
    """

    def __init__(self, router: ToolRouter, tool: Any, vouched: bool) -> None:
        # An agent holds its memory: two calls at once would mix theirs. A tool has none to speak of.
        lock = threading.Lock() if isinstance(tool, MultiStepAgent) else contextlib.nullcontext()
        self.__dict__.update(_router=router, _tool=tool, _vouched=vouched, _lock=lock)

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return type(self._tool)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._router.call(self._tool, args, kwargs, vouched=self._vouched)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tool, name, value)

    def __repr__(self) -> str:
        return repr(self._tool)

    def __eq__(self, other: object) -> bool:
        return self._tool == (other._tool if type(other) is RoutedTool else other)

    def __hash__(self) -> int:
        return hash(self._tool)


class ToolRouter(MutableMapping[str, Any]):
    """The tools of one agent, by name, in the order they were registered.

    Args:
        fire (`Callable[[MemoryStep], None]`): Tells callbacks of a step; raises where one of them refuses. Called before
            each call with a [`ToolCallStep`] and after it with a [`ToolResultStep`].
        masker (`Masker`, *optional*): Masks results before the code or the model sees them.
        vouched (`bool`, defaults to `True`): Whether tools put here are vouched for by who put them.
    """

    def __init__(self, fire: Callable[[MemoryStep], None], masker: Masker | None = None, vouched: bool = True) -> None:
        self._fire, self._vouched = fire, vouched
        self.masker = masker or Masker()
        self.find_workspace: Callable[[], Any] | None = None
        self.find_runner: Callable[[], Any] | None = None
        self.action = Action()
        self._back = threading.Condition()
        self._tools: dict[str, RoutedTool] = {}

    def __getitem__(self, name: str) -> Any:
        return self._tools[name]

    def __setitem__(self, name: str, tool: Tool) -> None:
        if type(tool) is RoutedTool:
            tool = tool._tool
        self._tools[name] = RoutedTool(self, tool, self._vouched)

    def __delitem__(self, name: str) -> None:
        del self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def route(self, agent: Any) -> RoutedTool:
        """A managed agent as a routed callable: its call is on record and gated like a tool's."""
        return RoutedTool(self, agent, True)

    @contextlib.contextmanager
    def acting(self, number: int) -> Generator[Action]:
        """Calls made meanwhile belong to this action; those that are not yet allowed when it ends are refused.

        Those that are out get a moment to come back, so that their results stand in the record before the action's own.
        """
        action = self.action = Action(number)
        try:
            yield action
        finally:
            action.ended.set()
            with self._back:
                self._back.wait_for(lambda: not action.out, timeout=SETTLE_SECONDS)

    def call(self, tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any], vouched: bool) -> Any:
        """Calls `tool`: on record first, then allowed, then done, then on record again.

        Raises:
            Denied: a person or a rule refused; the tool did not run.
        """
        action = self.action
        with self._back:
            action.out += 1
        try:
            return self._call(action, tool, args, kwargs, vouched)
        finally:
            with self._back:
                action.out -= 1
                self._back.notify_all()

    def _call(self, action: Action, tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any], vouched: bool) -> Any:
        call_id = f"call_{uuid.uuid4().hex[:20]}"
        arguments = bind(tool, args, kwargs)
        with contextlib.ExitStack() as stack:
            prepared = self._prepare(tool, arguments, call_id, stack)
            step = ToolCallStep(
                call_id=call_id,
                tool=tool.name,
                arguments=arguments,
                effects=effects_of(tool, arguments),
                action=action.number,
                files=prepared.files,
                preview=prepared.preview,
                vouched=vouched,
                problem=prepared.problem,
                ended=action.ended,
            )
            result = ToolResultStep(call_id=call_id, tool=tool.name, action=action.number)
            started = time.monotonic()
            try:
                self._fire(step)
                if prepared.problem is not None:
                    raise prepared.problem
                if action.ended.is_set():
                    raise Denied(f"`{tool.name}` was not called", "the code that asked for it has ended")
                result.result = self.masker.data(prepared.runner(*args, **kwargs))
            except BaseException as error:
                result.error, result.denied = error, isinstance(error, Denied)
                raise
            finally:
                result.seconds = time.monotonic() - started
                if not isinstance(result.error, JournalFailed):
                    self._fire(result)
            return result.result

    def _prepare(self, tool: Any, arguments: dict[str, Any], call_id: str, stack: contextlib.ExitStack) -> Prepared:
        """The tool as this call will run it.

        A tool of this project gets an instance of its own with the workspace, a runner for code where it takes one, and
        the call's id. What it is about to send away is copied out of the jail's reach first: what was shown to a person
        is what will be sent. A call that the tool's own `check` refuses is never asked about.
        """
        parameters = inspect.signature(type(tool).__init__).parameters
        if (
            "workspace" not in parameters
            or getattr(tool, "workspace", None) is not None
            or self.find_workspace is None
        ):
            return Prepared(tool)
        runner, workspace = copy.copy(tool), self.find_workspace()
        runner.workspace, runner.call_id = workspace, call_id
        if "runner" in parameters and getattr(tool, "runner", None) is None and self.find_runner is not None:
            runner.runner = self.find_runner()
        sends = [arguments[name] for name in getattr(type(tool), "sends", ()) if arguments.get(name)]
        check, preview = getattr(runner, "check", None), getattr(runner, "preview", None)
        files: tuple[FileDigest, ...] = ()
        try:
            if sends:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ml-intern-frozen-"))
                runner.workspace, files = freeze(workspace, sends, Path(folder))
            if check is not None:
                check(**arguments)
            text = self.masker.text(preview(**arguments)) if preview is not None else ""
        except Exception as error:  # noqa: BLE001 - a tool's own code: whatever it raises is the call's result, on record
            return Prepared(runner, files, problem=error)
        return Prepared(runner, files, text)


def freeze(workspace: Any, paths: list[str], folder: Path) -> tuple[Any, tuple[FileDigest, ...]]:
    """A workspace over copies of `paths`, out of the jail's reach, and the digests of what was copied."""
    frozen = folder / "workspace"
    files = [file for path in paths for file in workspace.copy_out(path, frozen / workspace.relative(path))]
    return type(workspace)(frozen, inside=workspace.inside), tuple(files)


def bind(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name. A lone dictionary of inputs is taken apart, as `Tool.__call__` does it."""
    names = list(getattr(tool, "inputs", None) or {})
    kwargs = {name: value for name, value in kwargs.items() if name != "sanitize_inputs_outputs"}
    if len(args) == 1 and not kwargs and isinstance(args[0], dict) and all(key in names for key in args[0]):
        return dict(args[0])
    positional = {names[i] if i < len(names) else f"arg{i}": value for i, value in enumerate(args)}
    return positional | kwargs
