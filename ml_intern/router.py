"""ToolRouter: where every tool is registered and every call goes through.

What must never happen here: a tool runs whose call is not on record, or that was not allowed; a call that a person
refused takes effect all the same; two calls share a tool's mutable state; a result carries a secret into the jail; what
tools brought in from outside is forgotten; a tool from outside says of itself what it does to the world.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolagents import MultiStepAgent, Tool

from .effects import effects_of, outside, served, untrusted
from .errors import Denied, InternError, JournalFailed, Parking
from .events import ApprovalAnswer, Destination, FileDigest
from .foreign import ForeignTool, Introduction
from .frozen import Frozen
from .secrets import Masker
from .steps import ToolCallStep, ToolResultStep
from .untrusted import UntrustedText

if TYPE_CHECKING:
    from smolagents.memory import MemoryStep

TEXTS = frozenset(
    {".md", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".py", ".csv", ".tsv", ".ipynb", ".toml", ".html"}
)
"""Files in which untrusted text is looked for, before they are sent."""
SMALL = 256 * 1024

WITHIN: ContextVar[str] = ContextVar("within", default="")
"""The call whose tool runs in this context: calls that are made there are a part of it, and named after it."""

SETTLE_SECONDS = 1.0
"""How long an action that has ended waits for its calls that are out."""

SEARCHED = 64 << 20
"""Bytes of a file that is sent away, up to which it is searched for secrets: larger ones are weights."""


@dataclass
class Action:
    """The code action that is running: the number of its step, whether it has ended, the calls that are out."""

    number: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    out: int = 0
    held: list[Parking] = field(default_factory=list)
    """Calls that wait without a thread."""


@dataclass(frozen=True)
class Prepared:
    """A call made ready: what will run, what it will send, what a person should read, or why it cannot be made."""

    runner: Any
    files: tuple[FileDigest, ...] = ()
    preview: str = ""
    destination: Destination | None = None
    cost_usd: float | None = None
    sources: tuple[str, ...] = ()
    problem: Exception | None = None
    attached: str = ""
    introduction: Introduction | None = None
    news: str = ""


class RoutedTool:
    """A tool in the router's hands: looks like the tool, is called through the router.

    It reports the tool's own class, so that `isinstance` and smolagents' saving see the tool.
    """

    def __init__(self, router: ToolRouter, tool: Any, vouched: bool) -> None:
        # An agent holds its memory: two calls at once would mix theirs. A tool has none to speak of, a team has several.
        alone = isinstance(tool, MultiStepAgent) and not getattr(type(tool), "many", False)
        lock = threading.Lock() if alone else contextlib.nullcontext()
        self.__dict__.update(_router=router, _tool=tool, _vouched=vouched, _lock=lock)

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return self._tool.__class__

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
        above (`ToolRouter`, *optional*): Of the agent at the top, where these are a sub-agent's tools: what is remembered
            (`untrusted`) and where copies lie (`frozen_in`) is one for a session and its sub-agents.

    `services` are what tools may need of this host, by the name of the `__init__` argument that takes it (`workspace`,
    `runner` and others): each call gets an instance of its tool with them. `untrusted` remembers what tools return.
    `frozen_in` is the folder for copies of what calls send, `<frozen_in>/<call_id>/`: gone when the call is over, there still
    while it waits in a session that sleeps. Without it they lie in a temporary folder, for as long as the call is out.
    `find_provenance` says how what is published came about, in Markdown, for tools that take a `provenance`.
    """

    def __init__(
        self,
        fire: Callable[[MemoryStep], None],
        masker: Masker | None = None,
        vouched: bool = True,
        above: ToolRouter | None = None,
    ) -> None:
        self._fire, self._vouched = fire, vouched
        self.masker = masker or Masker()
        self.above = above
        self.untrusted: UntrustedText = above.untrusted if above is not None else UntrustedText()
        self.frozen_in: Path | None = None
        self.services: dict[str, Callable[[], Any]] = {}
        self.agents: dict[str, RoutedTool] = {}
        """The agents that are called beside the tools."""
        self.find_provenance: Callable[[], str] | None = None
        self.action = Action()
        self._parked = False
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

    @property
    def parked(self) -> bool:
        """Whether calls that wait stay open when their action ends: their session sleeps."""
        return self._parked or (self.above is not None and self.above.parked)

    @parked.setter
    def parked(self, parked: bool) -> None:
        self._parked = parked

    def route(self, agent: Any) -> RoutedTool:
        """A managed agent as a routed callable: its call is on record and gated like a tool's."""
        return RoutedTool(self, agent, True)

    def route_agents(self, agents: Mapping[str, Any]) -> dict[str, RoutedTool]:
        """The same for all agents that are called from here."""
        self.agents = {name: self.route(agent) for name, agent in agents.items()}
        return self.agents

    @contextlib.contextmanager
    def acting(self, number: int) -> Generator[Action]:
        """Calls made meanwhile belong to this action; those that are not yet allowed when it ends are refused.

        Those that are out get a moment to come back, so that their results stand in the record before the action's own.
        """
        action = self.action = Action(number)
        left = False
        try:
            yield action
        except GeneratorExit:  # whoever ran it has gone, with this process or without a word: questions stay open
            left = True
            raise
        finally:
            action.ended.set()
            for call in () if left or self.parked else tuple(action.held):
                with contextlib.suppress(Exception, Parking):  # refused, as its code has ended: on record by now
                    call.go_on and call.go_on()
            with self._back:
                self._back.wait_for(lambda: not action.out, timeout=SETTLE_SECONDS)

    def call(self, tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any], vouched: bool) -> Any:
        """Calls `tool`: on record first, then allowed, then done, then on record again.

        Raises:
            Denied: a person or a rule refused; the tool did not run.
        """
        action = self.action
        with self._out(action):
            return self._call(action, tool, args, kwargs, vouched)

    @contextlib.contextmanager
    def _out(self, action: Action) -> Generator[None]:
        with self._back:
            action.out += 1
        try:
            yield
        finally:
            with self._back:
                action.out -= 1
                self._back.notify_all()

    def _hold(self, action: Action, parking: Parking, make: Callable[[], Any]) -> None:
        """A call of a running action waits; `make` makes it again, from the question on."""

        def go_on() -> Any:
            with self._back:
                if self.parked:  # it is for who goes on from the trace
                    raise parking
                if parking not in action.held:
                    raise Denied("The call was not made", "it does not wait any more")
                action.held.remove(parking)
            with self._out(action):
                result = None
                try:
                    return make()
                except Parking as again:
                    result = again
                    raise
                finally:
                    if result is None:
                        parking.over()

        with self._back:
            action.held.append(parking)
        parking.go_on = go_on

    def carry_out(
        self,
        call_id: str,
        tool: str,
        arguments: dict[str, Any],
        approved: str,
        answer: ApprovalAnswer | None = None,
        action: int = 0,
    ) -> Any:
        """Makes a call that was approved while its code no longer ran: on the same path, but for no action.

        Args:
            call_id (`str`), tool (`str`), arguments (`dict`): The call, as its record has it.
            approved (`str`): What the approval bound to ([`approval.binding`]). Where arguments and files are no longer
                those the call is refused.
            answer (`ApprovalAnswer`, *optional*): The answer itself, which a question of the agent's is after.
            action (`int`, defaults to 0): Number of the step whose code made the call.

        Raises:
            Denied: a rule refuses it by now, or it is not what was approved.
            InternError: there is no such tool.
        """
        routed = self._tools.get(tool) or self.agents.get(tool)
        if routed is None:
            raise InternError(
                f"`{tool}` cannot be called", "there is no such tool here", "Was it passed in last time?"
            )
        return self._made(Action(action), call_id, routed._tool, arguments, routed._vouched, (approved, answer))

    def remember(self, tool: str, arguments: dict[str, Any], text: Any) -> None:
        """Takes what a tool returned for untrusted text, unless that tool's results are not: as after each call."""
        if tool in self._tools and not untrusted(self._tools[tool]._tool):
            return
        first = next((value for value in arguments.values() if isinstance(value, str) and value), "")
        about = " ".join(first.split())[:60]
        self.untrusted.add(f"`{tool}`" + (f" ({about})" if about else ""), text, own=arguments)

    def reconcile(self, call_id: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """Asks a tool's service whether a call took effect of which nobody knows: its result, `None` where it did not.

        Raises:
            InternError: there is no such tool, or it cannot say.
        """
        found = self._tools[tool]._tool if tool in self._tools else None
        ask = getattr(found, "reconcile", None)  # optional by design: only tools that write or spend have it
        if found is None or ask is None or outside(found):
            raise InternError(f"`{tool}` cannot say whether a call took effect")
        return self.lend(found).reconcile(call_id, **arguments)

    def lend(self, tool: Any) -> Any:
        """A copy of a tool with what it takes of this host and has none of, for what is no call of the agent's."""
        lent = copy.copy(tool)
        for name, find in self.services.items():
            if name in vars(lent) and vars(lent)[name] is None:
                setattr(lent, name, find())
        return lent

    def _call(self, action: Action, tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any], vouched: bool) -> Any:
        # What a call takes may go far: to a search, into a commit's message. Known secrets stay here.
        args, kwargs = self.masker.certain.data(args), self.masker.certain.data(kwargs)
        return self._made(
            action, f"call_{uuid.uuid4().hex[:20]}", tool, bind(tool, args, kwargs), vouched, given=(args, kwargs)
        )

    def _made(
        self,
        action: Action,
        call_id: str,
        tool: Any,
        arguments: dict[str, Any],
        vouched: bool,
        carried: tuple[str, ApprovalAnswer | None] | None = None,
        given: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        before: ToolCallStep | None = None,
    ) -> Any:
        ready: list[Prepared] = []

        def prepare(step: ToolCallStep) -> None:
            over = before is not None and action.ended.is_set()  # it waited, and its code has ended: for the record
            done = Prepared(tool) if over else self._prepare(tool, step, frozen)
            ready.append(done)
            step.files, step.preview, step.problem = done.files, done.preview, done.problem
            step.destination, step.cost_usd, step.sources = done.destination, done.cost_usd, done.sources
            step.attached, step.news = done.attached, done.introduction.news if done.introduction else done.news

        def revise(step: ToolCallStep, edits: dict[str, Any]) -> None:
            step.edited, step.arguments = (step.edited or {}) | edits, step.arguments | edits
            step.effects, step.approved = effects_of(tool, step.arguments), ""
            frozen.clear()
            prepare(step)

        step = ToolCallStep(
            call_id=call_id,
            tool=tool.name,
            arguments=arguments,
            effects=effects_of(tool, arguments),
            action=action.number,
            vouched=vouched and not served(tool),
            ended=action.ended,
            approved=carried[0] if carried else "",
            answer=carried[1] if carried else before.answer if before is not None and before.begun else None,
            carried=carried is not None,
            again=before is not None,
            begun=before is not None and before.begun,
            edited=None if before is None else before.edited,
            revise=revise,
        )
        if before is not None:
            step.since = before.since
        result = ToolResultStep(call_id=call_id, tool=tool.name, action=action.number)
        folder = self.above.frozen_in if self.above is not None else self.frozen_in
        with Frozen(folder, call_id, bool(step.approved) or before is not None) as frozen:
            prepare(step)
            try:
                self._fire(step)
                if step.problem is not None:
                    raise step.problem
                at_work = step.begun and isinstance(tool, MultiStepAgent)  # it comes to an end of its own
                if action.ended.is_set() and not at_work:
                    raise Denied(f"`{tool.name}` was not called", "the code that asked for it has ended")
                step.begun = True
                runner, introduced = ready[-1].runner, ready[-1].introduction
                if introduced is not None and introduced.news:
                    runner.met(introduced)  # without a person's word to this call it would not have come so far
                if runner is not tool and (step.question or "answer" in vars(runner)):
                    runner.answer = step.answer
                args, kwargs = ((), step.arguments) if given is None or step.edited is not None else given
                within = WITHIN.set(f"{WITHIN.get()} {call_id}".strip())
                try:
                    result.result = self.masker.data(runner(*args, **kwargs))
                finally:
                    WITHIN.reset(within)
            except Parking as parking:
                frozen.kept = True
                if carried is None and not WITHIN.get():
                    self._hold(
                        action,
                        parking,
                        lambda: self._made(action, call_id, tool, step.arguments, vouched, None, given, step),
                    )
                raise
            except BaseException as error:
                result.error, result.denied = self._without_secrets(error), isinstance(error, Denied)
                if result.error is not error:
                    raise result.error from None
                raise
            finally:
                result.seconds = time.monotonic() - step.since
                if not (frozen.kept or isinstance(result.error, JournalFailed)):
                    if not result.denied:
                        self.remember(
                            tool.name, step.arguments, result.result if result.error is None else str(result.error)
                        )
                    self._fire(result)
            return result.result

    def _prepare(self, tool: Any, step: ToolCallStep, frozen: Frozen) -> Prepared:
        """The tool as this call will run it.

        A tool of this project gets an instance of its own with those `services` that it takes and has none of, the call's
        id (also without any, where it has a `call_id`), and the answer to its question. What it is about to send away is
        copied out of the jail's reach first: what was shown to a person is what will be sent. A call that the tool's own
        `check` refuses is never asked about; one for which `must_ask` gives a reason always is, whatever a rule says.
        """
        kind, arguments = type(tool), step.arguments
        if isinstance(tool, ForeignTool):
            return self._prepare_foreign(tool, step)
        if outside(tool) or isinstance(tool, MultiStepAgent):
            return Prepared(tool, sources=self._sources(step, None, ()))
        parameters = inspect.signature(kind.__init__).parameters
        lacks = [name for name in self.services if name in parameters and getattr(tool, name, None) is None]
        runner, workspace, files, attached = tool, None, (), ""
        if lacks or (hasattr(kind, "effects") and "call_id" in vars(tool)):
            runner = copy.copy(tool)
            for name in lacks:
                setattr(runner, name, self.services[name]())
            runner.call_id = step.call_id
            workspace = runner.workspace if "workspace" in lacks else None
        elif step.question:
            runner = copy.copy(tool)
        find = (self.above or self).find_provenance if workspace is not None and "provenance" in parameters else None
        # Optional by design: tools this project has never seen lack these, and mean something else by the names.
        asked = ("check", "preview", "destination", "estimate_cost", "must_ask")
        said = {name: getattr(runner, name, None) for name in asked}
        if not hasattr(kind, "effects"):
            said = dict.fromkeys(said)
        elif runner is tool:
            said["check"] = said["preview"] = None
        sends = [arguments[name] for name in getattr(kind, "sends", ()) if arguments.get(name)] if workspace else []
        try:
            unknown = [name for name in step.edited or {} if name not in (getattr(tool, "inputs", None) or {})]
            if unknown:
                raise TypeError(f"`{tool.name}` has no argument {unknown[0]!r}, which the edit named.")
            if find is not None and getattr(tool, "provenance", None) is None:
                runner.provenance = attached = self.masker.text(frozen.text("provenance.md", find))
            if sends:
                runner.workspace, files = frozen.copies(workspace, sends)
                self._refuse_secrets(files, runner.workspace)
            if said["check"] is not None:
                said["check"](**arguments)
            where = said["destination"](**arguments) if said["destination"] is not None else None
            cost = said["estimate_cost"](**arguments) if said["estimate_cost"] is not None else None
            text = self.masker.text(said["preview"](**arguments)) if said["preview"] is not None else ""
            why = str(said["must_ask"](**arguments)) if said["must_ask"] is not None else ""
            return Prepared(
                runner,
                files,
                text,
                Destination(str(where["name"]), str(where.get("visibility") or "")) if where else None,
                _amount(cost),
                self._sources(step, runner.workspace if sends else None, files, attached),
                attached=attached,
                news=why,
            )
        except Exception as error:  # noqa: BLE001 - a tool's own code: whatever it raises is the call's result, on record
            return Prepared(runner, files, problem=error)

    def _prepare_foreign(self, tool: ForeignTool, step: ToolCallStep) -> Prepared:
        """A tool of somebody else's: what it is now is shown, and an answer binds to that definition."""
        runner = copy.copy(tool)
        runner.call_id = step.call_id
        if "workspace" in self.services:
            runner.workspace = self.services["workspace"]()
        try:
            shown = runner.introduce()
        except Exception as error:  # noqa: BLE001 - its server may be gone: the call's result, and nobody is asked
            return Prepared(runner, problem=error)
        text, sources = self.masker.text(shown.text), self._sources(step, None, ())
        return Prepared(runner, preview=text, sources=sources, attached=shown.digest, introduction=shown)

    def _without_secrets(self, error: BaseException) -> BaseException:
        """The error as it may go into the jail: it may name an address with a key in it, or hold a server's words."""
        try:
            error.args = self.masker.data(error.args)
            said = str(error)
        except Exception:  # noqa: BLE001 - foreign exceptions fail in any way; what kind it was has to do
            return RuntimeError(type(error).__name__)
        shown = self.masker.text(said)
        return error if shown == said else RuntimeError(f"{type(error).__name__}: {shown}")

    def _refuse_secrets(self, files: tuple[FileDigest, ...], workspace: Any) -> None:
        """Nothing leaves this machine that names or holds a secret it knows."""
        for file in files:
            if (shown := self.masker.certain.text(file.path)) != file.path:
                raise ValueError(f"A file's name holds a secret: {shown}. Give it another name.")
            if file.size <= SEARCHED:
                with workspace.open_read(file.path) as content:
                    if found := self.masker.found_in(content):
                        raise ValueError(f"`{file.path}` holds a secret: {', '.join(found)}. Take it out of the file.")

    def _sources(
        self, step: ToolCallStep, workspace: Any, files: tuple[FileDigest, ...], attached: str = ""
    ) -> tuple[str, ...]:
        """The untrusted texts that a call repeats, in its arguments or in small texts that it sends."""
        if step.effects == "read" and not step.question:
            return ()
        found = self.untrusted.sources_in([step.arguments, attached] if attached else step.arguments)
        for file in files:
            if file.size <= SMALL and Path(file.path).suffix.lower() in TEXTS:
                found += self.untrusted.sources_in(workspace.read_bytes(file.path).decode(errors="replace"))
        return tuple(dict.fromkeys(found))


def _amount(cost: Any) -> float | None:
    """An estimate as a number of dollars; what is none is unknown, and unknown is not zero."""
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < float("inf")
    return float(cost) if known else None


def bind(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name. A lone dictionary of inputs is taken apart, as `Tool.__call__` does it.

    What stands first goes to the parameter of `forward` that stands first, in whatever order the inputs are described:
    what a person is shown must be what the tool gets.
    """
    names = list(getattr(tool, "inputs", None) or {})
    kwargs = {name: value for name, value in kwargs.items() if name != "sanitize_inputs_outputs"}
    if len(args) == 1 and not kwargs and isinstance(args[0], dict) and all(key in names for key in args[0]):
        return dict(args[0])
    if len(args) > 1 and isinstance(tool, Tool):
        parameters = list(inspect.signature(type(tool).forward).parameters)[1:]
        names = parameters if set(parameters) == set(names) else names
    positional = {names[i] if i < len(names) else f"arg{i}": value for i, value in enumerate(args)}
    return positional | kwargs
