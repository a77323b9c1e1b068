"""Workshop: what a session works with while it works: agent, journal, jail, model. Made from a trace, and given up again.

What must never happen here: a call that may have taken effect is made again without a person's word; an action is entered
half-way; something the trace knows is forgotten because a process ended.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smolagents import FinalAnswerTool, LogLevel, Tool

from . import events as told
from .agent import InternAgent
from .approval import ApprovalPolicy, Asker, Rule, RuleBook
from .borrowed import Borrowed, Borrowing
from .budget import SpendLedger, StepBudget
from .colleagues import off_the_network
from .context import ArtifactStore, ContextManager
from .effects import effects_of
from .errors import InternError
from .events import EventLog
from .execution import JailExecutor, JailUnavailable, Workspace, find_jail
from .execution.egress import Refusal
from .execution.packages import Packages
from .grant import Budget, ProposeGrantTool
from .models import ChainModel, EndpointModel, LazyLitellm, Switch
from .models.answers import wants_structure
from .narrator import Narrator
from .off_tools import without_network
from .offline import Offline
from .prompts import with_network, with_structure
from .records import Records
from .repetition import RepetitionGuard
from .secrets import Masker
from .session_jobs import SessionJobs
from .session_tools import (
    AskUserTool,
    Decision,
    Desk,
    ExperimentsTool,
    InstallPackagesTool,
    NotesTool,
    PlanTool,
    RecordDecisionTool,
    RequestStepsTool,
    pinned_text,
    plan_text,
)
from .steps import SteerStep
from .subagents import original
from .trace import Journal, TraceRecorder
from .trace.provenance import provenance

LOOK_SECONDS = 6.0
"""What a look at the models takes at most; it goes on in the background where one of them keeps it waiting."""


@dataclass(frozen=True)
class SessionConfig:
    """What a session is made of, besides its model and its tools."""

    folder: Path
    """Where its trace and its folder go."""
    prompt_templates: dict[str, Any]
    instructions: str | None = None
    max_iterations: int = 300
    budget_usd: float | None = None
    max_hours: float | None = None
    executor_type: str = "local"
    executor_kwargs: dict[str, Any] = field(default_factory=dict)
    mode: str = "ask"
    rules: tuple[Rule, ...] = ()
    find_own: Callable[[], frozenset[str]] = frozenset
    """The user's own namespaces on the Hub, looked up when they are first needed."""
    context_window: int | None = None
    """Tokens that the model can read, in place of what is known of it."""
    trace_url: Callable[[Path], str] = field(default=lambda trace: "")
    """Where a trace is shared, or will be; `""` where it is not."""
    offline: bool = False
    """Whether nothing may be reached but the model's server."""
    choose: Callable[[str], Callable[[], Any]] | None = None
    """Gives a model by the name that was chosen for a session; without it the session's own is taken whatever was chosen."""
    borrowing: Borrowing = field(default_factory=Borrowing)
    """MCP servers and tools of the Hub that are taken in."""
    park_seconds: float = 120.0
    """How long a session that waits for a person keeps its thread and its jail."""

    @property
    def home(self) -> Path:
        return self.folder.parent

    @property
    def rule_book(self) -> RuleBook:
        """The rules that a person saved for good."""
        return RuleBook(self.home / "rules")


class Workshop:
    """Agent, journal, jail and model of one session.

    Args:
        config (`SessionConfig`): What it is made of.
        session_id (`str`): A UUID; also the trace's file name.
        model (`Model`): Any smolagents model.
        tools (`Sequence[Tool]`): The tools besides the session's own.
        events (`EventLog`): Where what happens is told.
        masker (`Masker`): Masks it.
        ask (`Asker`): Asks a person.
        mode (`str`), rules (`tuple[Rule, ...]`): How calls are decided; rules saved for good come in addition.
        desk (`Desk`, *optional*): Plan and notes so far.
        agents (`Sequence[MultiStepAgent]`): Its colleagues: they are this session's alone.
        records (`Sequence[tuple[str, dict]]`, *optional*): Training runs and evaluations so far.

    Raises:
        InternError: another process holds the trace.
    """

    def __init__(
        self,
        config: SessionConfig,
        session_id: str,
        model: Any,
        tools: Sequence[Tool],
        events: EventLog,
        masker: Masker,
        ask: Asker,
        mode: str,
        rules: tuple[Rule, ...] = (),
        desk: Desk | None = None,
        records: Sequence[tuple[str, dict[str, Any]]] = (),
        agents: Sequence[Any] = (),
    ) -> None:
        self.config, self.id, self.model, self.events, self.masker = config, session_id, model, events, masker
        self.folder = config.folder / session_id
        self.written_by = ""
        """The model that wrote last, where the trace was taken up."""
        self.journal = Journal(config.folder / f"{session_id}.jsonl", masker=masker)
        self.recorder = TraceRecorder(self.journal, getattr(model, "model_id", None) or type(model).__name__)
        self.ledger = SpendLedger(config.budget_usd, config.max_hours)
        self.desk = desk or Desk()
        self.records = Records(self.folder, self.journal.note, records, masker.data, self.warn)
        self._refused_hosts: set[str] = set()
        book = config.rule_book
        rules = (*rules, *book.load())
        for problem in book.problems:  # it may have been meant to refuse something
            self.warn(problem)
        self._narrator = narrator = Narrator(events, masker, self.ledger)
        context = ContextManager(
            config.context_window,
            store=ArtifactStore(self.journal.artifacts, masker.text),
            pinned=lambda: pinned_text(self.desk.plan, self.desk.notes, self.records),
        )
        packages = Packages(
            self.folder / "packages",
            config.home / "cache" / "pip",  # for all sessions of this home
            lambda: find_jail(unsafe_local=config.executor_kwargs.get("unsafe_local", False)),
            lambda: self.agent.router.action.ended.is_set(),
        )
        local = config.executor_type == "local"
        workspace = Workspace(self.folder / "workspace")
        own = [
            PlanTool(self._planned),
            NotesTool(self._noted, lambda: self.desk.notes),
            RecordDecisionTool(self._decided),
            ExperimentsTool(self.records),
            AskUserTool(),
            ProposeGrantTool(self._granted, self._budget, self._effects_of),
            RequestStepsTool(lambda steps, reason: self.agent.request_steps(steps, reason)),
            context.tool,
            *([InstallPackagesTool(packages)] if local else []),  # it fills a local jail's layer
            *tools,
            *([] if any(t.name == "final_answer" for t in tools) else [FinalAnswerTool()]),
        ]
        structured = isinstance(model, EndpointModel) and wants_structure(str(model.model_id))
        templates = with_structure(config.prompt_templates) if structured else config.prompt_templates
        self.agent = InternAgent(
            without_network(own) if config.offline else own,
            model,
            managed_agents=list(off_the_network(agents) if config.offline else agents),
            prompt_templates=with_network(templates, *_network_of(config)),
            use_structured_outputs_internally=structured,
            instructions=config.instructions and masker.text(config.instructions),
            max_steps=config.max_iterations,
            policy=ApprovalPolicy(mode, rules, trust_vouched=False),
            on_approval=ask,
            observers=[self.recorder, narrator],
            ledger=self.ledger,
            budget=StepBudget(adaptive=True, ask_beyond=True),
            guard=RepetitionGuard(),
            workspace=workspace,
            masker=masker,
            context=context,
            executor_type=config.executor_type,
            executor_kwargs={
                **config.executor_kwargs,
                **({} if local else {"session": session_id}),
                "on_output": narrator.printed,
                "on_refused": self._refused_on_network,
                "snapshots": self.folder / "snapshots",
                "packages": packages.layer,
            },
            verbosity_level=LogLevel.OFF,
            return_full_result=False,
        )
        self._borrowed = Borrowed(config.borrowing, config.home, config.executor_kwargs, self.warn)
        self.agent.router.frozen_in = self.folder / "frozen"
        if self.agent.jobs is not None:
            self.agent.jobs.folder = self.folder / "jobs"
        self.jobs = SessionJobs(self.agent, session_id, self.records, self.journal, events, masker, self.hear)
        self.agent.router.find_provenance = self._provenance
        self.agent.router.services["records"] = lambda: self.records
        self.agent.router.services["progress"] = lambda: self._comes_on
        gate = self.agent.gate
        gate.on_rule, gate.left_usd, gate.find_own = self._ruled, self.ledger.left_usd, config.find_own
        self.journal.cwd = workspace.inside
        self._former: list[EndpointModel] = []
        self._dozes = False
        self._listen(model)

    def announce(self, task: str) -> None:
        """Tells listeners what begins, with what, and where. Raises `JailUnavailable`."""
        executor = self.agent.python_executor
        jail = executor.jail if isinstance(executor, JailExecutor) else ""
        self.events.emit(
            told.SessionStarted(
                task=self.masker.text(task),
                model=self.recorder.model,
                workspace=str(self.folder / "workspace"),
                trace=str(self.journal.path),
                jail=jail,
            )
        )
        self.recorder.jail = jail

    def prepare(self, interrupted: threading.Event) -> None:
        """What has to be there before the first step, each slow part said while it takes its time.

        Raises:
            InternError: interrupted meanwhile; there is no jail.
        """
        executor = self.agent.python_executor
        self._borrowed.start()
        before, self.written_by = self.written_by, ""
        if before not in ("", self.recorder.model):
            self.recorder.switched(self.recorder.model, before, "it was chosen for what follows", False)
        loading = None
        if isinstance(self.model, EndpointModel) and not LazyLitellm.loaded():
            loading = threading.Thread(target=LazyLitellm.load, name="load-litellm", daemon=True)
            loading.start()
        self._look_at_model(interrupted)
        if isinstance(executor, JailExecutor):
            self.events.emit(told.Waiting(on="starting the jail"))
            executor.start()
            self.journal.cwd = executor.workspace.inside  # where a jail cannot move it, known once it is there
        if loading is not None:
            self.events.emit(told.Waiting(on="loading litellm"))
            while loading.is_alive() and not interrupted.is_set():
                loading.join(0.1)
        self.meet(interrupted)
        if interrupted.is_set():
            raise InternError("Interrupted before the first step")

    def meet(self, interrupted: threading.Event) -> None:
        """Takes in the tools of MCP servers and of the Hub, as far as they can be had. The second time it does nothing."""
        if waits_for := self._borrowed.waits_for:
            self.events.emit(told.Waiting(on=waits_for))
        router = self.agent.router
        found = self._borrowed.tools({*router, *self.agent.managed_agents}, interrupted.is_set)
        for tool in found:
            router[tool.name] = tool
            router.untrusted.add(f"what `{tool.name}` says of itself", tool.words)
        if found:
            self.journal.note("borrowed", tools={tool.name: tool.origin for tool in found})

    def fetch(self, datasets: Sequence[str]) -> None:
        """Puts data sets from the Hub into the workspace."""
        from .tools import HubDownloadTool

        for name in datasets:
            if self.config.offline:
                raise Offline(f"The data set {name}")
            self.events.emit(told.Waiting(on=f"the download of {name}"))
            try:
                tool = HubDownloadTool(Workspace(self.folder / "workspace"), progress=self._comes_on)
                tool.forward(name, repo_type="dataset", folder=data_folder(name))
            except Exception as error:  # noqa: BLE001 - a tool's own code; what it says is what the person needs to know
                raise InternError(f"The data set {name} could not be handed over", str(error)) from None

    def _look_at_model(self, interrupted: threading.Event) -> None:
        """Whether the model can work at all, while litellm loads: what is wrong is said now, and not after a minute.

        Raises:
            InternError: it cannot.
        """
        model, said = self.model, []
        if not isinstance(model, EndpointModel):
            return

        def look() -> None:
            try:
                said.append(model.look())
            except InternError as error:
                said.append(error)

        looking = threading.Thread(target=look, name="look-at-model", daemon=True)
        looking.start()
        until = time.monotonic() + LOOK_SECONDS
        while looking.is_alive() and time.monotonic() < until and not interrupted.is_set():
            looking.join(0.05)
        for found in said:
            if isinstance(found, InternError):
                raise found
            for line in filter(None, found.splitlines()):
                self.warn(line)
        model.warm()

    def _listen(self, model: Any) -> None:
        if isinstance(model, EndpointModel):
            model.on_delta = self._narrator.streamed
            model.on_retry, model.on_note = self._retried, self.warn
        if isinstance(model, ChainModel):
            model.on_switch = self._switched

    def change_model(self, model: Any, by: str = "") -> None:
        """Another model is asked from the next step on. From any thread; an answer that is being written is not disturbed."""
        self._listen(model)
        if isinstance(self.model, EndpointModel):  # it may be answering: closed when all is
            self._former.append(self.model)
        before, self.model = self.recorder.model, model
        name = getattr(model, "model_id", None) or type(model).__name__
        why = f"{by or 'a person'} chose it"
        self.agent.change_model(model, lambda: self._switched(Switch(name, before, why)))

    def cancel(self) -> None:
        """Ends requests to the model at once, and lets none start until its `cancelled` is cleared."""
        for model in (self.model, *self._former):
            if isinstance(model, EndpointModel):
                model.cancelled.set()

    def doze(self) -> None:
        """Gives up all but what watches jobs and puts on record what is found; to be closed after that, not worked with."""
        if self._dozes:
            return
        self._dozes = True
        for model in (self.model, *self._former):
            if isinstance(model, EndpointModel):
                model.close()
        self._borrowed.close()
        self.agent.end_jails()
        self.recorder.close()

    def close(self) -> None:
        self.doze()
        self.agent.cleanup()
        self.journal.close()

    def warn(self, text: str) -> None:
        self.events.emit(told.Warned(text=self.masker.text(text)))

    # What the session's own tools tell.

    def _noted(self, notes: tuple[str, ...]) -> None:
        self.desk = replace(self.desk, notes=self.masker.data(notes))
        self._write("notes.md", "".join(f"- {note}\n" for note in self.desk.notes))

    def _planned(self, items: tuple[dict[str, str], ...]) -> None:
        self.desk = replace(self.desk, plan=self.masker.data(items))
        self._write("plan.md", plan_text(self.desk.plan) + "\n")
        self.events.emit(told.PlanChanged(items=self.masker.data(items)))

    def _decided(self, decision: Decision) -> None:
        step = self.agent.step_number
        fields = self.masker.data({"subject": decision.subject, "choice": decision.choice, "reason": decision.reason})
        sources = self.masker.data(decision.sources)
        self.journal.note("decision", step=step, sources=list(sources), **fields)
        self.events.emit(told.DecisionRecorded(step=step, sources=sources, **fields))

    def hear(self, step: SteerStep) -> None:
        """Text for the agent, which reads it with its next step: on record first. From any thread."""
        self.agent.supervisor.steer(put_down(self.journal, step))

    def set_mode(self, mode: str) -> None:
        self.agent.gate.change(mode=mode)

    def rule(self, rule: Rule) -> None:
        self.agent.gate.change(rules=self.agent.gate.policy.with_rule(rule).rules)

    def _ruled(self, rule: Rule, scope: str) -> None:
        """A person allowed a kind of call: on record, and in the rule book where it is for good."""
        self.journal.note("rule", rule=str(rule), scope=scope)
        if scope == "always":
            self.config.rule_book.add(rule)

    def _granted(self, rules: Sequence[Rule], budget_usd: float | None, by: str) -> None:
        """A person gave the session leave: as with a rule that came with an answer, and a budget that was raised."""
        for rule in rules:
            self.agent.gate.give(rule, "session")
        if budget_usd is not None:
            self.ledger.raise_to(self.ledger.spent_usd + budget_usd, self.ledger.max_hours)
            self.journal.note("budget", usd=self.ledger.budget_usd, hours=self.ledger.max_hours, by=by)

    def _budget(self) -> Budget:
        return Budget(self.ledger.spent_usd, self.ledger.budget_usd)

    def _effects_of(self, tool: str) -> str:
        """Where that depends on its arguments: the most that it does."""
        if (routed := self.agent.tools.get(tool)) is None:
            return ""
        found = {effects_of(original(routed), arguments) for arguments in _each(original(routed))}
        return next((kind for kind in ("spend", "execute", "unknown", "write") if kind in found), "read")

    def _provenance(self) -> str:
        """How what is published came about, for its card."""
        trace, seen = self.journal.path, self.agent.untrusted
        return provenance(trace, self.config.trace_url(trace), seen.sources_in)

    def _write(self, name: str, text: str) -> None:
        """A file beside the workspace for people to look at; the trace is what counts."""
        try:
            (self.folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            self.warn(f"{name} could not be written: {error.strerror}")

    def _refused_on_network(self, refusal: Refusal) -> None:
        """What code tried and may not: on record each time, and shown once for a host."""
        try:
            self.journal.note("network-refused", host=refusal.host, why=refusal.why)
        except InternError as error:
            self.warn(str(error))
        if refusal.host not in self._refused_hosts:
            self._refused_hosts.add(refusal.host)
            self.warn(refusal.why)

    def _switched(self, switch: Switch) -> None:
        """Another model writes: on record, as the provider's cache has nothing of the conversation there."""
        self.recorder.switched(switch.model, switch.before, switch.why, switch.back)
        self.warn(f"{switch.model} writes from here on, {switch.before} did before: {switch.why}")

    def _comes_on(self, text: str) -> None:
        """How far a tool is that takes its time."""
        self.events.emit(told.Waiting(on=self.masker.text(text)))

    def _retried(self, text: str) -> None:
        self.warn(text)
        self.events.emit(told.Waiting(on="the model"))  # what was streamed of the attempt before is void


def _each(tool: Any) -> list[dict[str, Any]]:
    """The arguments that decide what a tool does, one for each thing that it may do."""
    declared = getattr(type(tool), "effects", None)  # optional by design: tools this project has never seen lack it
    every = [name.partition(":") for name in declared] if isinstance(declared, dict) else []
    return [{"operation": operation, "backend": backend} for operation, _, backend in every] or [{}]


def put_down(journal: Journal, step: SteerStep) -> SteerStep:
    """Puts on record what somebody says to an agent, as it comes; it is restored from there until a step has taken it in."""
    step.id = step.id or uuid.uuid4().hex[:16]
    journal.note("said", id=step.id, text=step.text, by=step.by, source=step.source)
    journal.sync()
    return step


def _network_of(config: SessionConfig) -> tuple[str, Sequence[str]]:
    """What code will reach. Where no jail works the session ends before its first step, and it does not matter."""
    options = config.executor_kwargs
    if config.executor_type == "e2b":  # all or nothing there, and the Hub's proxy does not reach it
        return ("full" if options.get("network") == "full" else "none"), ()
    try:
        jail = find_jail(unsafe_local=options.get("unsafe_local", False))
    except JailUnavailable:
        return "none", ()
    if jail.kind == "none":
        return "full", ()
    return (options.get("network", "hub"), options.get("hosts", ())) if jail.network else ("none", ())


def data_folder(dataset: str) -> str:
    """Where in the workspace a data set that was handed over lies."""
    return f"data/{dataset.split('/')[-1]}"
