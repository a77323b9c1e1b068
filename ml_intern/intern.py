"""MLIntern: an autonomous ML engineer, behind one class."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from .approval import MODES, ApprovalPolicy, ask_until, is_somebody_there
from .borrowed import Borrowing, Pinned, read_servers
from .colleagues import makers_of, unique
from .errors import InternError
from .events import ApprovalAnswer, ApprovalRequest, Event, State
from .models import LazyLitellm, ModelOptions, Price, make_model, resolve_all
from .models.parameters import prices as prices_in
from .offline import Offline, go_offline
from .prompts import load_templates
from .researcher import NAME as RESEARCHER
from .researcher import researcher
from .session import Session
from .settings import Settings
from .submission import (
    Approval,
    Compact,
    Extend,
    Interrupt,
    Operation,
    SetMode,
    SetModel,
    Steer,
    SubmissionLoop,
    Undo,
    UserInput,
)
from .trace.fork import fork
from .trace.listing import find
from .trace.sharing import Sharer
from .waiting import Warm
from .workshop import SessionConfig, data_folder


class Gateway(Protocol):
    """What people outside talk to sessions through; a floor above this one."""

    both_ways: bool

    def close(self, seconds: float = 5.0) -> None: ...


class MLIntern:
    """Takes a task and comes back with a trained, evaluated, published model and the record of how it came about.

    Args:
        model (`str` or `Model`, *optional*): As in `LLM_ENDPOINT`, which is taken when this is left out: a model, or several
            separated by commas, each asked when those before it fail; or any smolagents model object.
        system_prompt (`str`, *optional*): Who the intern is to be, e.g. `"You are an ML engineer specializing in NLP."`
        max_iterations (`int`, defaults to 300): Steps a turn may take.
        enable_slack_notifications (`bool`, defaults to `False`): Tell a Slack channel of start, plan, questions, plots and
            end, in a thread a session (`SLACK_BOT_TOKEN`, `SLACK_CHANNEL_ID`). With `SLACK_APP_TOKEN` and people who may act
            (`SLACK_OWNER`, `SLACK_APPROVERS`) it goes both ways: what is said and pressed there counts, and what nobody
            answers at a terminal waits for that.
        tools (`list[Tool]`, *optional*): In place of the intern's own. One that does not say what it does to the world is
            asked about before every call.
        managed_agents (`list`, *optional*): Colleagues of every session: agents of smolagents' own kinds, which are copied for
            each, or functions that make an agent of any kind. They work behind the session's approvals, budget and record.
        research_model (`str` or `Model`, *optional*): Of the researchers, who read for the intern. Defaults to
            `ML_INTERN_RESEARCH_MODEL`, else to the session's own; a cheaper one may do.
        home (`Path`, *optional*): Where sessions lie. Defaults to `ML_INTERN_HOME`, else the user data directory.
        on_event (`Callable[[Event], None]`, *optional*): Told of everything that happens, in order.
        on_approval (`Callable[[ApprovalRequest], ApprovalAnswer]`, *optional*): Asks a person. Defaults to a question at
            the terminal; where there is none, what would be asked is refused.
        budget_usd (`float`, *optional*), max_hours (`float`, *optional*): End a turn when they are used up.
        unsafe_local (`bool`, defaults to `False`): Run code without a jail where none can be had.
        executor_type (`str`, defaults to `"local"`): Where code runs: `"local"`, a jail on this machine, or `"e2b"`, a sandbox
            of E2B's (`E2B_API_KEY`); tools, approvals and the record stay here in both.
        network (`"none"`, `"hub"` or `"full"`, *optional*): What code reaches: nothing, what is public on the Hub (to read,
            without your token), any public host. Defaults to `ML_INTERN_NETWORK`, else `"hub"`.
        hosts (`Sequence[str]`, *optional*): Further hosts that code reaches, e.g. `"example.com"`. Defaults to
            `ML_INTERN_ALLOW_HOSTS`.
        gpus (`bool`, *optional*): Whether code sees the GPUs of this machine. Defaults to `ML_INTERN_GPUS`, else it does not.
        share (`bool`, *optional*): Whether sessions are uploaded to the user's private data set of traces. Defaults to
            `ML_INTERN_SHARE_TRACES`, else to what `share on|off` said, else they are; there has to be a Hub token.
        mode (`str`, defaults to `"ask"`): Who decides about calls that write, spend, or do not say what they do: `"ask"` (a
            person), `"auto"` (rules; a person where none fits), `"plan"` (reading only), `"deny"` (nobody: they are refused).
        allow (`Sequence[str]`): Rules for what needs no question, e.g. `"hub_push:me/*:private"`,
            `"training_job:hf_jobs:<=5usd"`; they stand beside those a person has saved for good.
        deny (`Sequence[str]`): Rules for what may never happen. They win over all others.
        model_options (`Mapping[str, Any]`, *optional*): `effort` (`"none"`, `"minimal"`, `"low"`, `"medium"`, `"high"`),
            `temperature`, `max_tokens`, `seed`, or any other parameter of litellm's; what a model lacks is left out, and said.
            They go before `ML_INTERN_EFFORT` and `ML_INTERN_MODEL_OPTIONS`.
        prices (`Mapping[str, Price]`, *optional*): What self-hosted models cost. They go before `ML_INTERN_PRICES`, and those
            before litellm's table.
        mcp (`Sequence`): MCP servers whose tools the intern may use, besides those of `mcp.json` in its home: an address, a
            command line (`"files=npx -y PACKAGE DIR"`), a file in the usual `mcpServers` format, or a dict. Calls of their tools
            are asked about, unless a rule allows them; their definitions are shown before first use.
        hub_tools (`Sequence[str]`): Tools from Spaces of the Hub, `"owner/name@REVISION"` with a whole commit hash. Their code
            is shown before first use, and runs in a jail of its own.
        offline (`bool`, *optional*): Reach nothing but the model's server, in this whole process: the model is one of a local
            server or of weights on this machine, code has no network, tools that need one say that they are off. Defaults to
            `ML_INTERN_OFFLINE`.

    Raises:
        NoModel: no model is named and none was found.
        SettingsError: a setting cannot work.

    Example:
        ```py
        from ml_intern import MLIntern

        intern = MLIntern(system_prompt="You are an ML engineer specializing in NLP.", max_iterations=300)
        response = intern.run("Find a text classification dataset and train a model.")
        ```
    """

    open_slack: ClassVar[Callable[[MLIntern], Gateway | None] | None] = None
    """Opens the way to and from Slack, `None` where it is one way; `ml_intern/__init__.py` puts it in."""
    _slack_failed, _slack_tried = "", False

    def __init__(
        self,
        model: Any = None,
        *,
        system_prompt: str | None = None,
        max_iterations: int = 300,
        enable_slack_notifications: bool = False,
        tools: Sequence[Any] | None = None,
        managed_agents: Sequence[Any] = (),
        research_model: Any = None,
        home: Path | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_approval: Callable[[ApprovalRequest], ApprovalAnswer] | None = None,
        budget_usd: float | None = None,
        max_hours: float | None = None,
        unsafe_local: bool = False,
        executor_type: str = "local",
        network: str | None = None,
        hosts: Sequence[str] | None = None,
        gpus: bool | None = None,
        share: bool | None = None,
        mode: str = "ask",
        allow: Sequence[str] = (),
        deny: Sequence[str] = (),
        model_options: Mapping[str, Any] | None = None,
        prices: Mapping[str, Price] | None = None,
        mcp: Sequence[Any] = (),
        hub_tools: Sequence[str] = (),
        offline: bool | None = None,
    ) -> None:
        if max_iterations < 1:
            raise InternError(f"`max_iterations` is at least 1, not {max_iterations}")
        if mode not in MODES:
            raise InternError(f"`mode` is one of {', '.join(MODES)}, not {mode!r}")
        self.settings = Settings.load(home)
        self.offline = self.settings.offline if offline is None else offline
        if self.offline:
            go_offline()
            if executor_type == "e2b":
                raise Offline("E2B's sandbox")
        named = model is None or isinstance(model, str)
        self._endpoints = resolve_all(model, offline=self.offline) if named else None
        self._model = None if named else model
        options = ModelOptions.of(model_options).over(_options_in(self.settings))
        self._model_options = {"options": options, "prices": {**prices_in(self.settings.prices), **(prices or {})}}
        self._tools = tools
        self._colleagues = makers_of(managed_agents)
        reads = self.settings.research_model if research_model is None else research_model
        named = self._chosen(reads) if isinstance(reads, str) and reads and not self.offline else None
        self._research_model = named if isinstance(reads, str) else lambda: reads
        self.on_event, self.on_approval = on_event, on_approval
        self.sessions: dict[str, Session] = {}
        self.notifies_slack = enable_slack_notifications
        """Whether sessions that begin are told to Slack by this class itself."""
        self._gateway: Gateway | None = None
        self._config = SessionConfig(
            folder=self.settings.sessions(),
            prompt_templates=load_templates(),
            instructions=system_prompt,
            max_iterations=max_iterations,
            budget_usd=budget_usd,
            max_hours=max_hours,
            executor_type=executor_type,
            executor_kwargs={
                "timeout_seconds": self.settings.action_seconds,
                "memory_bytes": int(self.settings.memory_gb * 2**30),
                "disk_bytes": int(self.settings.disk_gb * 2**30),
                "unsafe_local": unsafe_local,
                **({"gpus": self.settings.gpus if gpus is None else gpus} if executor_type == "local" else {}),
                **_network(self.settings, *(("none", ()) if self.offline else (network, hosts))),
            },
            mode=mode,
            rules=ApprovalPolicy.of(allow, deny).rules,
            find_own=frozenset if self.offline else _own_namespaces,
            offline=self.offline,
            choose=self._chosen if model is None else None,  # who names one now means it
            borrowing=Borrowing() if self.offline else _borrowing(self.settings, mcp, hub_tools),
            context_window=self.settings.context_window,
            trace_url=lambda trace: self._sharer.address_of(trace),
        )
        self._left_out = self.offline and bool(mcp or hub_tools or _borrowing(self.settings, (), ()).servers)
        self._warm = Warm()
        self._sharer = Sharer(self.settings.home, self._warn, wanted=False if self.offline else share)
        self._loop = SubmissionLoop(self._handle, self._refused)

    def run(
        self, task: str, *, files: Sequence[Path] = (), images: Sequence[Path] = (), datasets: Sequence[str] = ()
    ) -> Any:
        """Works on a task until it is done.

        Args:
            task (`str`): What to do.
            files (`Sequence[Path]`): Copied into the session's workspace.
            images (`Sequence[Path]`): Likewise, and shown to the model.
            datasets (`Sequence[str]`): Names on the Hub, or files and folders; copied into the workspace as well.

        Returns:
            What the agent gave as its final answer, `None` where the turn was stopped before one. How it ended stands in
            `intern.session().outcome`.

        Raises:
            InternError: the turn ended in an error; its session and its trace are intact.
            KeyboardInterrupt: Ctrl-C; the turn was stopped first and has ended as interrupted.
        """
        here = self.on_approval is None and is_somebody_there()
        session = self._submit(task, files, images, datasets, waits=here or self._reach_slack())
        try:
            while (outcome := session.wait(0.1)) is None:  # in slices, so that Ctrl-C gets through
                for request in session.pending() if here else ():  # on this thread: a notebook reads on no other
                    answer = ask_until(request, lambda request=request: request not in session.pending())
                    if answer is not None:
                        self._answer(session, request.call_id, answer)
        except KeyboardInterrupt:
            session.interrupt()
            session.wait(10)
            raise
        if outcome.state is State.ERROR:
            raise InternError("The task failed", outcome.reason, f"The trace is {session.trace}.")
        return outcome.answer

    def submit(
        self, task: str, *, files: Sequence[Path] = (), images: Sequence[Path] = (), datasets: Sequence[str] = ()
    ) -> Session:
        """Begins a task in a session of its own and returns that at once. Questions wait for [`approve`] or [`reject`]."""
        return self._submit(task, files, images, datasets, waits=True)

    def resume(self, which: str | Path, task: str | None = None) -> Session:
        """Takes up a session from its trace, in this process: its memory, plan, notes, variables, budget and rules are back.

        A turn that was cut off goes on; nothing that may have taken effect is done again without asking.

        Args:
            which (`str` or `Path`): Its id, the beginning of it, words of its title, or its file.
            task (`str`, *optional*): What to do next, once a turn that was open is over.

        Raises:
            InternError: there is no such session, or another process holds it.
        """
        path = find(self.settings.home, which, own=True)
        known = self.sessions.get(path.stem)
        session = known or self._make_session(path.stem)
        try:
            session.resume()
        except InternError:
            if known is None:
                del self.sessions[session.id]
            raise
        if task is not None:
            session.steer(task)
        return session

    def fork(
        self,
        which: str | Path,
        task: str | None = None,
        *,
        at: int | str | None = None,
        instruction: str | None = None,
        go_on: bool = False,
    ) -> Session:
        """Begins a session of its own with what another one knew at some step.

        Args:
            which (`str` or `Path`): A session of this home, a trace's file, `hf://datasets/user/name/sessions/....jsonl` or
                the address of its page. What was not written under this home gives text and code, but no rules,
                approvals, budgets or open calls.
            task (`str`, *optional*): What to do in it; without one it waits for [`steer`].
            at (`int` or `str`, *optional*): The last step it takes over, counted through all turns, or a row's `uuid`.
                Defaults to the end.
            instruction (`str`, *optional*): Takes the place of the first task.
            go_on (`bool`, defaults to `False`): Go on at once with the task that stood there.

        Raises:
            InternError: there is no such trace or step.
        """
        if self.offline and str(which).startswith(("hf://", "https://", "http://")):
            raise Offline(str(which))
        forked = fork(which, self.settings.home, at, instruction=instruction)
        session = self._make_session(forked.path.stem)
        session.resume(go_on=go_on and task is None)
        for what in forked.could_not:
            session.warn(what)
        if task is not None:
            session.start(task)
        return session

    def session(self, session_id: str | None = None) -> Session:
        """A session by its id (or the beginning of it), the newest one by default.

        Raises:
            InternError: there is none.
        """
        if session_id is None:
            if not self.sessions:
                raise InternError("There is no session yet", "", "Begin one with `run` or `submit`.")
            return next(reversed(self.sessions.values()))
        found = [session for key, session in self.sessions.items() if key.startswith(session_id)]
        if len(found) != 1:
            why = "several begin so" if found else "this process has none of that id"
            raise InternError(
                f"There is no session {session_id}", why, "`sessions` lists them; `resume` takes one up."
            )
        return found[0]

    def events(self, session_id: str | None = None, since: int = 0) -> Iterator[Event]:
        """What happens in a session (the newest one by default), as it happens, until its turn is over.

        Args:
            session_id (`str`, *optional*): Which session.
            since (`int`, defaults to 0): Begin after the event of this number; 0 gives all there were.
        """
        return self.session(session_id).follow(since)

    def approve(self, session_id: str, call_id: str, by: str = "", *, scope: str = "once", text: str = "") -> None:
        """Lets a call be made that waits for an answer. From any thread.

        Args:
            session_id (`str`), call_id (`str`): Which call.
            by (`str`): Who says so; on record.
            scope (`str`, defaults to `"once"`): `"session"` or `"always"` also allow calls of this kind from now on.
            text (`str`): The answer to a question of the agent's (`ask_user`).

        Raises:
            InternError: there is no such session. (Where the call does not wait any more its session tells of it.)
        """
        answer = ApprovalAnswer("approve", by=by or "python", scope=scope, text=text)
        self._loop.put(Approval(self.session(session_id).id, call_id, answer))

    def reject(self, session_id: str, call_id: str, reason: str = "", by: str = "") -> None:
        """Refuses a call that waits for an answer; the model reads the reason. From any thread."""
        answer = ApprovalAnswer("reject", reason, by or "python")
        self._loop.put(Approval(self.session(session_id).id, call_id, answer))

    def edit(self, session_id: str, call_id: str, arguments: dict[str, Any], by: str = "") -> None:
        """Changes arguments of a call that waits for an answer; it is looked at again as it is then. From any thread."""
        answer = ApprovalAnswer("edit", by=by or "python", arguments=arguments)
        self._loop.put(Approval(self.session(session_id).id, call_id, answer))

    def steer(self, text: str, session_id: str | None = None, by: str = "") -> None:
        """Tells a session something while it works (the newest one by default): the model reads it with its next step.

        One that is idle takes it as its next task. From any thread.
        """
        self._loop.put(Steer(self.session(session_id).id, text, by))

    def interrupt(self, session_id: str | None = None, jobs: bool = False) -> None:
        """Stops a session's turn (the newest one's by default), with `jobs` its training jobs as well. From any thread."""
        self._loop.put(Interrupt(self.session(session_id).id, jobs))

    def compact(self, session_id: str | None = None, focus: str = "") -> None:
        """Makes a session's conversation shorter (the newest one's by default), whatever fills the window. From any thread.

        A session that is idle compacts at once, one that runs before its next step; it tells of it with a `Compacted` event.

        Args:
            session_id (`str`, *optional*): Which session.
            focus (`str`, *optional*): What the summary is to keep above all.
        """
        self._loop.put(Compact(self.session(session_id).id, focus))

    def extend(self, session_id: str | None = None, *, steps: int = 0, usd: float = 0.0, hours: float = 0.0) -> None:
        """Lets a session's turn (the newest one's by default) take more; one that ended for want of it goes on."""
        self._loop.put(Extend(self.session(session_id).id, steps, usd, hours))

    def undo(self, session_id: str | None = None) -> None:
        """Takes a session's last turn out of the conversation. What it did to files and to the world stays."""
        self._loop.put(Undo(self.session(session_id).id))

    def set_mode(self, mode: str, session_id: str | None = None) -> None:
        """Decides a session's calls by another mode from now on: `ask`, `plan`, `auto` or `deny`."""
        if mode not in MODES:
            raise InternError(f"`mode` is one of {', '.join(MODES)}, not {mode!r}")
        self._loop.put(SetMode(self.session(session_id).id, mode))

    def set_model(self, model: str, session_id: str | None = None, by: str = "", *, and_later: bool = False) -> None:
        """Has a session's answers (the newest one's by default) written by another model, from its next step on.

        Args:
            model (`str`): As in `LLM_ENDPOINT`; looked at first, which takes a few seconds at most.
            session_id (`str`, *optional*): Which session.
            by (`str`, *optional*): Who says so; on record.
            and_later (`bool`, defaults to `False`): Also for sessions that begin from here on.

        Raises:
            InternError: there is no such session; the model cannot be had. The one before stays.
        """
        session = self.session(session_id)
        make = self._chosen(model)
        tried = make()
        notes = tried.look()
        tried.know()
        tried.close()
        for note in filter(None, notes.splitlines()):
            session.warn(note)
        if and_later:
            self._endpoints, self._model = resolve_all(model, offline=self.offline), None
        self._loop.put(SetModel(session.id, model, make, by or "python"))

    def _chosen(self, model: str) -> Callable[[], Any]:
        entries = resolve_all(model, offline=self.offline).entries
        return lambda: make_model(entries, self.settings.context_window, **self._model_options)

    def warm(self) -> None:
        """Begins, in the background, with what a first answer takes its time for: while a person still types."""
        if self._endpoints is not None and not LazyLitellm.loaded():
            threading.Thread(target=LazyLitellm.load, name="load-litellm", daemon=True).start()

    def close(self) -> None:
        """Ends all sessions: what runs is interrupted, jails are closed, traces are whole."""
        self._loop.close()
        for session in self.sessions.values():
            session.close()
        self._sharer.close()
        for session in self.sessions.values():
            if url := self._sharer.url_of(session.trace):
                session.warn(f"The trace is in your private dataset: {url}")
        if self._gateway is not None:
            self._gateway.close()

    def __enter__(self) -> MLIntern:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _submit(
        self, task: str, files: Sequence[Path], images: Sequence[Path], datasets: Sequence[str], waits: bool
    ) -> Session:
        if not task.strip():
            raise InternError("The task is empty", "", 'Say what to do, e.g. "find a dataset and train a classifier".')
        session = self._make_session(str(uuid.uuid4()), waits)
        handed = [*(self._hand_over(session, Path(path)) for path in (*files, *images))]
        handed += [self._hand_over(session, Path(name)) for name in datasets if Path(name).exists()]
        on_hub = tuple(name for name in datasets if not Path(name).exists())
        handed += [f"the data set `{name}` from the Hub, in `{data_folder(name)}` in the workspace" for name in on_hub]
        if handed:
            task += "\n\nHanded over with this task:\n" + "\n".join(f"- {item}" for item in handed)
        self._loop.put(UserInput(session.id, task, tuple(map(_load_image, images)), on_hub))
        return session

    def _reach_slack(self) -> bool:
        """Whether people in Slack answer what is asked; the way there is opened when it is first needed."""
        if not self._slack_tried and self.notifies_slack and self.open_slack is not None:
            self._slack_tried = True
            try:
                self._gateway = self.open_slack(self)
            except InternError as error:
                if os.environ.get("SLACK_APP_TOKEN"):
                    self._slack_failed = str(error)  # said once there is a session that can say it
                else:
                    self.notifies_slack = True  # in plain words, from here: that needs one method of Slack's alone
        return self._gateway is not None and self._gateway.both_ways

    def _make_session(self, session_id: str, waits: bool = True) -> Session:
        self._reach_slack()
        session = Session(
            self._config,
            self._make_model,
            self._make_tools,
            session_id,
            on_approval=self.on_approval,
            wait_for_answers=waits,
            warm=self._warm,
            changed=lambda session: self._sharer.trace_changed(session.trace),
            make_agents=self._make_agents,
        )
        first, self.sessions[session.id] = not self.sessions, session
        if self.on_event:
            session.events.listen(self.on_event)
        if first and self._left_out:
            session.warn("Tools of MCP servers and of the Hub are left out: --offline is set.")
        for warning in session.masker.warnings if first else ():
            session.warn(warning)
        if self._endpoints:
            for note in self._endpoints.notes if first else ():
                session.warn(note)
            if why := self._endpoints.first.why:
                session.warn(f"Using {self._endpoints.first.model_id}: {why}.")
        if self._slack_failed:
            session.warn(self._slack_failed)
            self._slack_failed = ""
        if self.notifies_slack and self.offline:
            session.warn("Slack is not told of anything: --offline is set.")
        elif self.notifies_slack:
            from .notify import notify_slack

            notify_slack(session.events, session.warn)
        return session

    def _make_model(self) -> Any:
        return (
            self._model
            if self._endpoints is None
            else make_model(self._endpoints.entries, self.settings.context_window, **self._model_options)
        )

    def _make_tools(self) -> list[Any]:
        if self._tools is not None:
            return list(self._tools)
        from . import tools

        papers = [tools.ArxivSearchTool(), tools.SemanticScholarSearchTool(), tools.PaperReadTool()]
        papers += [tools.PaperGraphTool(), tools.PaperResourcesTool()]
        hub = [tools.HubSearchDatasetsTool(), tools.HubInspectDatasetTool(), tools.HubDownloadTool()]
        hub += [tools.HubSearchModelsTool(), tools.HubInspectModelTool()]
        hub += [tools.HubListFilesTool(), tools.HubReadFileTool(), tools.HubRepoTool()]
        hub += [tools.HubDocsTool(), tools.GithubCodeTool()]
        team = (
            [tools.NotifyTool()]
            if os.environ.get("SLACK_BOT_TOKEN") and os.environ.get("SLACK_NOTIFY_CHANNELS")
            else []
        )
        training = [tools.TrainingConfigTool(), tools.TrainingJobTool(), tools.EvaluateModelTool()]
        return [*papers, *hub, *training, tools.HubPushTool(), *team]

    def _make_agents(self, make_model: Callable[[], Any]) -> list[Any]:
        """A session's colleagues; with the intern's own tools there is a researcher among them."""
        agents = [make() for make in self._colleagues]
        if self._tools is None and not self.offline and all(agent.name != RESEARCHER for agent in agents):
            agents.append(
                researcher(
                    self._make_tools,
                    self._research_model or make_model,
                    executor_type=self._config.executor_type,
                    unsafe_local=self._config.executor_kwargs["unsafe_local"],
                    context_window=self.settings.context_window,
                )
            )
        unique(agents, self._tools or ())
        return agents

    def _hand_over(self, session: Session, path: Path) -> str:
        if not path.exists():
            raise InternError(f"There is no {path}", "", "Check the path.")
        target = session.workspace / path.name
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copy(path, target)
        size = "a folder" if path.is_dir() else f"{path.stat().st_size:,} bytes"
        return f"`{path.name}` in the workspace ({size})"

    def _handle(self, operation: Operation) -> None:
        match operation:
            case UserInput(session_id, task, images, datasets):
                self.sessions[session_id].start(task, images, datasets)
            case Approval(session_id, call_id, answer):
                self.sessions[session_id].answer(call_id, answer)
            case Interrupt(session_id, jobs):
                self.sessions[session_id].interrupt(jobs)
            case Compact(session_id, focus):
                self.sessions[session_id].compact(focus)
            case Steer(session_id, text, by):
                self.sessions[session_id].steer(text, by)
            case Extend(session_id, steps, usd, hours, by):
                self.sessions[session_id].extend(steps, usd, hours, by)
            case SetMode(session_id, mode):
                self.sessions[session_id].set_mode(mode)
            case SetModel(session_id, name, make, by):
                self.sessions[session_id].set_model(name, make, by)
            case Undo(session_id):
                self.sessions[session_id].undo()

    @staticmethod
    def _answer(session: Session, call_id: str, answer: ApprovalAnswer) -> None:
        try:
            session.answer(call_id, answer)
        except InternError as error:  # its code ended while the person thought
            session.warn(str(error))

    def _warn(self, text: str) -> None:
        """What concerns no session alone is told in the newest one."""
        if self.sessions:
            self.session().warn(text)

    def _refused(self, operation: Operation, error: InternError) -> None:
        session = self.sessions.get(getattr(operation, "session_id", ""))
        if session is not None:
            session.warn(str(error))


def _options_in(settings: Settings) -> ModelOptions:
    named = ModelOptions.of({"effort": settings.effort})
    return named.over(ModelOptions.parse(settings.model_options))


def _borrowing(settings: Settings, mcp: Sequence[Any], hub_tools: Sequence[str]) -> Borrowing:
    home = settings.home.expanduser().absolute()
    return Borrowing(read_servers(mcp, home), tuple(Pinned.of(text) for text in hub_tools))


def _network(settings: Settings, network: str | None, hosts: Sequence[str] | None) -> dict[str, Any]:
    from .execution.egress import Egress

    chosen = network or settings.network
    named = [name.strip() for name in settings.allow_hosts.split(",")] if hosts is None else hosts
    named = tuple(name for name in named if name)
    try:
        Egress.of(chosen, named)  # ty: ignore[invalid-argument-type] - that is what is found out
    except ValueError as error:
        raise InternError(
            "The network of code cannot be set so", str(error), "See --network and --allow-host."
        ) from None
    return {"network": chosen, "hosts": named}


def _load_image(path: Path) -> Any:
    from PIL import Image

    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise InternError(f"{path} cannot be read as an image", str(error), "PNG and JPEG work.") from None
    return image


def _own_namespaces() -> frozenset[str]:
    """The user's own namespace on the Hub; none without a token. Raises `OSError` where the Hub does not answer."""
    if not _has_hub_token():
        return frozenset()
    from huggingface_hub import HfApi

    try:
        # Of the Hub that the tools ask, and no other: the client took its address when it was first imported.
        hub = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        return frozenset({str(HfApi(endpoint=hub).whoami()["name"])})
    except Exception as error:  # the HTTP library differs between releases; unknown means: ask
        raise OSError(f"The Hub does not say whose token this is: {error}") from error


def _has_hub_token() -> bool:
    if os.environ.get("HF_TOKEN"):
        return True
    from huggingface_hub import get_token

    return get_token() is not None
