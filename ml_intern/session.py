"""Session: one agent, one journal, one workspace; a turn at a time, on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smolagents import FinalAnswerTool, LogLevel, Tool
from smolagents.agents import AgentError, AgentGenerationError

from . import events as told
from .agent import InternAgent
from .approval import ApprovalPolicy
from .budget import SpendLedger
from .context import ArtifactStore, ContextManager, Fill
from .errors import InternError
from .events import ApprovalAnswer, ApprovalRequest, EventLog, Outcome, State
from .execution import JailExecutor, JailUnavailable, Workspace, find_jail
from .execution.egress import Refusal
from .execution.packages import Packages
from .models import EndpointModel, LazyLitellm
from .narrator import Narrator
from .prompts import with_network
from .secrets import Masker
from .session_tools import Desk, InstallPackagesTool, NotesTool, PlanTool, pinned_text, plan_text
from .trace import Journal, TraceRecorder, share


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
    executor_kwargs: dict[str, Any] | None = None
    share_traces: bool = False


class Session:
    """A conversation with one agent, its record and its workspace.

    What must never happen here: a turn ends without an explicit state on record; a session takes another down with it;
    an answer reaches a question it was not given to.

    Args:
        config (`SessionConfig`): What it is made of.
        model (`Model`): Any smolagents model.
        tools (`list[Tool]`): The tools besides the session's own.
        session_id (`str`): A UUID; also the trace's file name.
        on_approval (`Callable`, *optional*): Asks a person; without it [`answer`] has to be called from elsewhere.
        wait_for_answers (`bool`, defaults to `False`): Without `on_approval`: whether to wait for [`answer`]. Otherwise
            what would be asked is refused.
    """

    def __init__(
        self,
        config: SessionConfig,
        model: Any,
        tools: Sequence[Tool],
        session_id: str,
        on_approval: Callable[[ApprovalRequest], ApprovalAnswer] | None = None,
        wait_for_answers: bool = False,
    ) -> None:
        self.config, self.id, self.model = config, session_id, model
        self.trace = config.folder / f"{session_id}.jsonl"
        self.workspace = config.folder / session_id / "workspace"
        self.workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.masker = Masker()
        self.events = EventLog(session_id)
        self.journal = Journal(self.trace, masker=self.masker)
        self.recorder = TraceRecorder(self.journal, getattr(model, "model_id", None) or type(model).__name__)
        self.ledger = SpendLedger(config.budget_usd, config.max_hours)
        self.outcome: Outcome | None = None
        self._refused_hosts: set[str] = set()
        self._waiting: dict[str, Pending] = {}
        self._thread: threading.Thread | None = None
        self._tidying: threading.Thread | None = None
        self._turn_over = threading.Event()
        self._interrupted = threading.Event()
        narrator = Narrator(self.events, self.masker)
        workspace = Workspace(self.workspace)
        self.desk = Desk()
        store = ArtifactStore(self.journal.artifacts, self.masker.text)
        context = ContextManager(store=store, pinned=lambda: pinned_text(self.desk.plan, self.desk.notes))
        packages = Packages(
            self.workspace.parent / "packages",
            config.folder.parent / "cache" / "pip",  # for all sessions of this home
            lambda: find_jail(unsafe_local=(config.executor_kwargs or {}).get("unsafe_local", False)),
            lambda: self.agent.router.action.ended.is_set(),
        )
        self.agent = InternAgent(
            [
                PlanTool(self._planned),
                NotesTool(self._noted, lambda: self.desk.notes),
                context.tool,
                *(
                    [InstallPackagesTool(packages)] if config.executor_type == "local" else []
                ),  # it fills a local jail's layer
                *tools,
                *([] if any(t.name == "final_answer" for t in tools) else [FinalAnswerTool()]),
            ],
            model,
            prompt_templates=with_network(config.prompt_templates, *_network_of(config)),
            instructions=config.instructions,
            max_steps=config.max_iterations,
            policy=ApprovalPolicy(trust_vouched=False),
            on_approval=on_approval or (self._wait_for_answer if wait_for_answers else _refuse),
            observers=[self.recorder, narrator],
            ledger=self.ledger,
            workspace=workspace,
            masker=self.masker,
            context=context,
            executor_type=config.executor_type,
            executor_kwargs={
                **(config.executor_kwargs or {}),
                **({"session": session_id} if config.executor_type == "e2b" else {}),
                "on_output": narrator.printed,
                "on_refused": self._refused_on_network,
                "snapshots": self.workspace.parent / "snapshots",
                "packages": packages.layer,
            },
            verbosity_level=LogLevel.OFF,
            return_full_result=False,
        )
        self.journal.cwd = workspace.inside
        if isinstance(model, EndpointModel):
            model.on_delta = narrator.streamed
            model.on_retry = self._retried

    @property
    def state(self) -> str:
        """`idle`, `running`, `waiting` (for a person's answer), or how the last turn ended."""
        if self._thread is not None and self._thread.is_alive():
            return "waiting" if self._waiting else "running"
        return str(self.outcome.state) if self.outcome else "idle"

    def start(self, task: str, images: Sequence[Any] = (), datasets: Sequence[str] = ()) -> None:
        """Begins a turn; returns at once. `datasets` are fetched from the Hub before the first step.

        Raises:
            InternError: a turn is running.
        """
        if self._thread is not None and self._thread.is_alive():
            raise InternError("This session is busy with a turn", "", "Wait for its end or interrupt it.")
        self._turn_over.clear()
        self._interrupted.clear()
        if isinstance(self.model, EndpointModel):
            self.model.cancelled.clear()
        self._thread = threading.Thread(
            target=self._turn, args=(task, list(images), tuple(datasets)), name=f"session-{self.id[:8]}", daemon=True
        )
        self._thread.start()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Waits for the end of the turn. Returns its outcome, `None` if `timeout` (seconds) ran out first."""
        return self.outcome if self._turn_over.wait(timeout) else None

    def interrupt(self) -> None:
        """Stops the turn: running code and tools now, the loop before its next step, a request to the model as it streams."""
        self._interrupted.set()
        if isinstance(self.model, EndpointModel):
            self.model.cancelled.set()
        self.agent.interrupt()
        for pending in list(self._waiting.values()):
            pending.give(ApprovalAnswer("stop", "interrupted", "user"))

    def answer(self, call_id: str, answer: ApprovalAnswer) -> None:
        """Answers a question that waits.

        Raises:
            InternError: no such question waits (any more): an answer counts once.
        """
        pending = self._waiting.pop(call_id, None)
        if pending is None or not pending.give(answer):
            raise InternError(f"Nothing waits for an answer under {call_id}", "it was answered, or its code has ended")

    def pending(self) -> list[ApprovalRequest]:
        """The questions that wait for [`answer`]."""
        return [pending.request for pending in list(self._waiting.values())]

    def compact(self, focus: str = "") -> None:
        """Makes the conversation shorter, whatever fills the window: now where nothing runs, else before the next step.

        Args:
            focus (`str`, *optional*): What the summary is to keep above all.
        """
        for thread in (self._thread, self._tidying):
            if thread is not None and thread.is_alive():
                self.agent.context.request(focus)
                return
        if isinstance(self.model, EndpointModel):
            self.model.cancelled.clear()
        self._tidying = threading.Thread(
            target=self._compact, args=(focus,), name=f"compact-{self.id[:8]}", daemon=True
        )
        self._tidying.start()

    def context(self) -> Fill:
        """What fills the window now."""
        return self.agent.context.fill(self.agent.memory)

    def _compact(self, focus: str) -> None:
        try:
            if self.agent.compact(focus) is None:
                self.warn("There is nothing to compact yet.")
        except InternError as error:
            self.warn(str(error))

    def warn(self, text: str) -> None:
        self.events.emit(told.Warned(text=self.masker.text(text)))

    def _refused_on_network(self, refusal: Refusal) -> None:
        """What code tried and may not: on record each time, and shown once for a host."""
        try:
            self.journal.note("network-refused", host=refusal.host, why=refusal.why)
        except InternError as error:
            self.warn(str(error))
        if refusal.host not in self._refused_hosts:
            self._refused_hosts.add(refusal.host)
            self.warn(refusal.why)

    def _retried(self, text: str) -> None:
        self.warn(text)
        self.events.emit(told.Waiting(on="the model"))  # what was streamed of the attempt before is void

    def close(self) -> None:
        """Ends what runs, shares the trace if that is wanted, and lets go of the jail."""
        if self._thread is not None and self._thread.is_alive():
            self.interrupt()
            self._thread.join(timeout=15)
        if self._tidying is not None:
            self._tidying.join(timeout=15)
        self.agent.cleanup()
        self.journal.close()

    def _turn(self, task: str, images: list[Any], datasets: tuple[str, ...]) -> None:
        started = time.monotonic()
        self.outcome = None
        if self._tidying is not None:
            self._tidying.join()
        state, reason, answer = State.ERROR, "", None
        try:
            self._begin(task)
            self._fetch(datasets)
            answer = self.agent.run(task, images=images or None, reset=not self.agent.memory.steps)
            ending = self.agent.ending
            state, reason = (ending.state, ending.reason) if ending else (State.ERROR, "the run ended without a state")
            if state is State.SUCCESS and self.agent.gate.unmet:
                state = State.DENIED
                reason = "; ".join(f"`{tool}` was refused: {why}" for tool, why in self.agent.gate.unmet.items())
        except AgentGenerationError as error:
            reason = str(error.__cause__ or error)
        except (AgentError, InternError) as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a turn that dies must still end in a state, on record and on screen
            reason = f"{type(error).__name__}: {error}"
        if self._interrupted.is_set() and state is not State.SUCCESS:
            state, reason = State.INTERRUPTED, ""
        self._end(state, reason, answer, time.monotonic() - started)

    def _begin(self, task: str) -> None:
        """What has to be there before the first step, each slow part said while it takes its time.

        Raises:
            InternError: interrupted meanwhile; there is no jail.
        """
        executor = self.agent.python_executor
        jail = executor.jail if isinstance(executor, JailExecutor) else ""
        model, workspace, trace = self.recorder.model, str(self.workspace), str(self.trace)
        self.events.emit(told.SessionStarted(task=task, model=model, workspace=workspace, trace=trace, jail=jail))
        self.recorder.jail = jail
        loading = None
        if isinstance(self.model, EndpointModel) and not LazyLitellm.loaded():
            loading = threading.Thread(target=LazyLitellm.load, name="load-litellm", daemon=True)
            loading.start()
        if isinstance(executor, JailExecutor):
            self.events.emit(told.Waiting(on="starting the jail"))
            executor.start()
            self.journal.cwd = executor.workspace.inside  # where a jail cannot move it, known once it is there
        if loading is not None:
            self.events.emit(told.Waiting(on="loading litellm"))
            while loading.is_alive() and not self._interrupted.is_set():
                loading.join(0.1)
        if self._interrupted.is_set():
            raise InternError("Interrupted before the first step")

    def _fetch(self, datasets: Sequence[str]) -> None:
        from .tools import HubDownloadTool

        for name in datasets:
            self.events.emit(told.Waiting(on=f"the download of {name}"))
            try:
                HubDownloadTool(Workspace(self.workspace)).forward(name, repo_type="dataset", folder=data_folder(name))
            except Exception as error:  # noqa: BLE001 - a tool's own code; what it says is what the person needs to know
                raise InternError(f"The data set {name} could not be handed over", str(error)) from None

    def _end(self, state: State, reason: str, answer: Any, seconds: float) -> None:
        reason = self.masker.text(reason)
        outcome = Outcome(
            state, self.masker.data(answer), reason, self.agent.step_number - 1, seconds, self.ledger.usage
        )
        try:
            self.recorder.ended(outcome)
            if not self.journal.titled:
                self.journal.title(title_of(self.agent.task or ""))
        except InternError as error:
            self.warn(str(error))
            outcome = Outcome(State.ERROR, outcome.answer, str(error), outcome.steps, seconds, outcome.usage)
        if self.config.share_traces and self.agent.memory.steps:
            self._share()
        self.outcome = outcome
        self.events.emit(told.SessionEnded(outcome=outcome, trace=str(self.trace)))
        self._turn_over.set()

    def _share(self) -> None:
        announced = self.config.folder.parent / "sharing-announced"
        try:
            if not announced.exists():
                self.warn(
                    "From now on the trace of each session is uploaded to ml-intern-traces, a private dataset of yours; "
                    "ML_INTERN_SHARE_TRACES=0 turns that off."
                )
                announced.touch()
            self.events.emit(told.Waiting(on="the upload of the trace"))
            shared = share(self.trace)
        except (InternError, OSError) as error:
            self.warn(str(error))
        else:
            self.journal.note("shared", url=shared.url)
            self.warn(f"The trace is in your private dataset: {shared.url}")
        finally:
            self.events.emit(told.Waiting(on=""))

    def _noted(self, notes: tuple[str, ...]) -> None:
        self.desk = replace(self.desk, notes=self.masker.data(notes))
        self._write("notes.md", "".join(f"- {note}\n" for note in self.desk.notes))

    def _write(self, name: str, text: str) -> None:
        """A file beside the workspace for people to look at; the trace is what counts."""
        try:
            (self.config.folder / self.id / name).write_text(text, encoding="utf-8")
        except OSError as error:
            self.warn(f"{name} could not be written: {error.strerror}")

    def _planned(self, items: tuple[dict[str, str], ...]) -> None:
        self.desk = replace(self.desk, plan=self.masker.data(items))
        self._write("plan.md", plan_text(self.desk.plan) + "\n")
        self.events.emit(told.PlanChanged(items=self.masker.data(items)))

    def _wait_for_answer(self, request: ApprovalRequest) -> ApprovalAnswer:
        pending = self._waiting[request.call_id] = Pending(request)
        ended = self.agent.router.action.ended
        try:
            while (answer := pending.wait(0.2)) is None:
                if ended.is_set():
                    pending.give(ApprovalAnswer("reject", "the code that asked for it has ended", "session"))
            return answer
        finally:
            self._waiting.pop(request.call_id, None)


class Pending:
    """A question that waits; takes one answer."""

    def __init__(self, request: ApprovalRequest) -> None:
        self.request = request
        self._lock = threading.Lock()
        self._given = threading.Event()
        self._answer: ApprovalAnswer | None = None

    def give(self, answer: ApprovalAnswer) -> bool:
        with self._lock:
            if self._answer is not None:
                return False
            self._answer = answer
            self._given.set()
            return True

    def wait(self, timeout: float) -> ApprovalAnswer | None:
        self._given.wait(timeout)
        return self._answer


def _refuse(request: ApprovalRequest) -> ApprovalAnswer:
    return ApprovalAnswer(
        "reject", f"nobody can be asked here; pass `on_approval=` to allow `{request.tool}`", "policy"
    )


def _network_of(config: SessionConfig) -> tuple[str, Sequence[str]]:
    """What code will reach. Where no jail works the session ends before its first step, and it does not matter."""
    options = config.executor_kwargs or {}
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


def title_of(task: str) -> str:
    """A title for lists: the task's first line, shortened at a word."""
    line = next((line.strip() for line in task.splitlines() if line.strip()), "Session")
    return line if len(line) <= 80 else line[:80].rsplit(" ", 1)[0] + "..."
