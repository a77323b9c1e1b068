"""InternAgent: smolagents' `CodeAgent` whose code runs in a jail, whose calls are gated and whose steps are on record."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smolagents import PythonExecutor
from smolagents.agents import (
    AGENT_REGISTRY,
    ActionOutput,
    AgentError,
    AgentGenerationError,
    AgentParsingError,
    ChatMessage,
    FinalAnswerStep,
    PlanningStep,
    ToolCall,
    handle_agent_output_types,
)
from smolagents.memory import ActionStep, MemoryStep, SystemPromptStep, TaskStep
from smolagents.monitoring import LogLevel, Timing

from .answering import Answering
from .approval import ApprovalGate, ApprovalPolicy, Asker, ask_at_terminal
from .asides import Asides
from .budget import Reservation, SpendLedger, StepBudget
from .context import ArtifactStore, ContextManager, overflow_of, weigh
from .drop_in import KEPT_OUTPUT, imports_said, mend_imports, whole_output
from .errors import Parking
from .events import State
from .execution import JailExecutor, JailRunner, LocalJobs, Workspace
from .execution.action import RUNNING, Hold, pause
from .job_watch import JobWatch
from .metering import Purse
from .prompts import with_brief_tools
from .repetition import RepetitionGuard
from .router import WITHIN, ToolRouter
from .secrets import Masker
from .steps import (
    CompactionStep,
    ModelStep,
    Observer,
    Observers,
    ToolCallStep,
    ToolResultStep,
    TrackedActionStep,
)
from .subagents import CALLING, Below, SubAgent, Worker
from .supervision import Ending, Supervised, Supervisor, ToolSpending
from .thinking import Thinking, signed
from .tree import TreeMember
from .untrusted import UntrustedText

BRIEF_FROM = 0.25
"""How much of the window the system prompt may take with all there is to say of the tools; beyond that it is brief."""


class InternAgent(TreeMember, Supervised, Asides, Answering):
    """A `CodeAgent` in every place where one goes, with three differences.

    Its code runs in real Python in a local jail (`executor_type="local"`); every call of a tool goes through a router that
    can record, ask and refuse; and a run ends in an explicit state (`ending`).

    Args:
        tools (`list[Tool]`): As for `CodeAgent`. Passing a tool in vouches for it; one that declares that it writes or
            spends is asked about all the same.
        model (`Model`): As for `CodeAgent`.
        policy (`ApprovalPolicy`, *optional*): Which calls a person is asked about.
        on_approval (`Asker`, *optional*): Asks that person. Defaults to a question at the terminal; where there is none,
            such calls are refused.
        observers (`Iterable[Observer]`): Told of everything as it happens; a session's journal is one.
        ledger (`SpendLedger`, *optional*): What the run may cost, its sub-agents included; of an agent that becomes a
            sub-agent: what each of its tasks may cost.
        budget (`StepBudget`, *optional*): How the steps of a run are given out. Defaults to `max_steps` of them at once.
        guard (`RepetitionGuard`, *optional*): Sees the agent and its sub-agents go round in circles. Defaults to nobody.
        share (`float`, defaults to 0.5): How much of what is left of the budget each task of a sub-agent may take.
        workspace (`Workspace`, *optional*): The folder that the code and the tools share. Defaults to a temporary one.
        masker (`Masker`, *optional*): Masks secrets in whatever the model or an observer sees.
        context (`ContextManager`, *optional*): What the model sees of a long conversation.
        kwargs: Everything else that `CodeAgent` takes. `executor_type` is `"local"` or `"e2b"`, with `executor_kwargs` for
            [`JailExecutor`] or [`E2BExecutor`]; smolagents' other executors copy the tools out of the router's reach and
            are refused. `executor=` takes any `PythonExecutor`.
    """

    def __init__(
        self,
        tools: list[Any],
        model: Any,
        *args: Any,
        policy: ApprovalPolicy | None = None,
        on_approval: Asker | None = None,
        observers: Iterable[Observer] = (),
        ledger: SpendLedger | None = None,
        workspace: Workspace | None = None,
        masker: Masker | None = None,
        context: ContextManager | None = None,
        budget: StepBudget | None = None,
        guard: RepetitionGuard | None = None,
        share: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.masker = masker or Masker()
        self.context = context or ContextManager(store=ArtifactStore(mask=self.masker.text))
        self.context.tell, self.context.ask = self.fire, self._summarise
        self.observer: Observers = Observers(observers)
        self.ledger = ledger or SpendLedger()
        self.supervisor = Supervisor(
            budget or StepBudget(), guard, self.ask_person, self.tell_extended, lambda: "plan" in self.tools
        )
        self.ending: Ending | None = None
        self._parked, self._gives_way, self.interrupt_switch = False, False, False
        self.path, self.share = "", share
        self.root: TreeMember = self
        self.above: SubAgent | None = None
        self.runs: dict[str, Worker] = {}
        self._out_below: dict[str, tuple[Worker, Observer]] = {}
        """Calls of sub-agents that are out: whose they are, and whose record they go to."""
        self.purse = Purse(
            lambda: self.ledger, lambda: self.model, lambda: self.context.count(self.memory), self.stopped
        )
        self._spending = ToolSpending(lambda path: self.runs[path].ledger if path in self.runs else self.ledger)
        self.router = ToolRouter(self.fire, self.masker)
        self.gate = ApprovalGate(
            policy or ApprovalPolicy(),
            on_approval or ask_at_terminal,
            self.observer,
            self.stop_denied,
            self.masker,
            left_usd=lambda: self.ledger.left_usd(),
        )
        self._workspace = workspace
        self._managed: dict[str, Any] = {}
        self.below: dict[str, Below] = {}
        self._runner = JailRunner()
        self.jobs: LocalJobs | None = None
        watch = self.watch = JobWatch(pause, give_way)
        kind = kwargs.get("executor_type", "local") if kwargs.get("executor") is None else ""
        self._in_jail, self._shares_packages = kind in ("local", "e2b"), kind == "local"
        self.router.services["watch"] = lambda: watch
        super().__init__(tools, model, *args, **kwargs)

    # What smolagents keeps as plain dictionaries are doors to the router here.

    @property
    def tools(self) -> ToolRouter:
        return self.router

    @tools.setter
    def tools(self, tools: Mapping[str, Any]) -> None:
        self.router.clear()
        self.router.update(tools)

    @property
    def untrusted(self) -> UntrustedText:
        """What tools brought in from outside: one for the whole tree."""
        return self.router.untrusted

    def _setup_step_callbacks(self, step_callbacks: Any) -> None:
        super()._setup_step_callbacks(None)
        for callback in (self._calling, self.gate, self._spending.calling):
            self.step_callbacks.register(ToolCallStep, callback)
        by_class = step_callbacks if isinstance(step_callbacks, dict) else {ActionStep: step_callbacks or []}
        for step_class, callbacks in by_class.items():
            for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
                self.step_callbacks.register(step_class, callback)
        for step_class, callback in (
            (ToolResultStep, self._spending.called),
            (ToolResultStep, self._called),
            (CompactionStep, self.observer.compacted),
            (ModelStep, self.observer.answered),
            (PlanningStep, self.observer.planned),
            (ActionStep, self.observer.finished),
            (ActionStep, self.supervisor.finished),
        ):
            self.step_callbacks.register(step_class, callback)

    def fire(self, step: MemoryStep) -> None:
        """Tells all callbacks of a step; one of them may refuse it."""
        self.step_callbacks.callback(step, agent=self)

    def _calling(self, step: ToolCallStep) -> None:
        CALLING.set(step)
        if step.again:
            return  # it is on record, and told
        run = self.runs.get(step.agent)  # none where a sub-agent is used by another program's agent as well
        if run is not None:
            self._out_below[step.call_id] = run, run.observer
            run.calling(step)
            return
        self.observer.calling(step)
        self.note_call(step)

    def _called(self, step: ToolResultStep) -> None:
        at_work = self.runs.get(step.agent)
        run, observer = self._out_below.pop(step.call_id, (at_work, at_work.observer if at_work else None))
        if run is not None and observer is not None:
            if at_work is run and run.observer is observer:
                run.called(step)
            elif (
                not self.parked
            ):  # its task has ended meanwhile: to that task's record; one that sleeps sees to it by itself
                observer.called(step)
            return
        self.observer.called(step)
        self.note_result(step)

    def note_call(self, step: ToolCallStep) -> None:
        self.supervisor.note_call(step)

    def note_result(self, step: ToolResultStep) -> None:
        self.supervisor.note_result(step)
        self.context.called(step)

    # Where the code runs.

    def create_python_executor(self) -> PythonExecutor:
        if self.executor_type in ("local", "e2b"):
            limits = {"max_print_outputs_length": self.max_print_outputs_length or KEPT_OUTPUT} | self.executor_kwargs
            if self.executor_type == "e2b":
                from .execution import E2BExecutor  # here, as E2B's client takes a third of a second

                executor: JailExecutor = E2BExecutor(self._workspace, **limits)
            else:
                executor = JailExecutor(self._workspace, **limits)
                self._runner.unsafe_local = executor.unsafe_local
                jobs = self.jobs = LocalJobs(executor)
                self.router.services["jobs"] = lambda: jobs
                here = {"gpus": bool(executor.gpus), "memory_gb": executor.limits.memory_bytes / 1e9}
                self.router.services["machine"] = lambda: here
            self.router.services |= {"workspace": lambda: executor.workspace, "runner": lambda: self._runner}
            for what in (
                "inspect_dataset",
                "inspect_model",
            ):  # one tool asks another, through the router like any caller
                self.router.services[what] = functools.partial(self._own_tool, f"hub_{what}")
            return executor
        if self.executor_type in ("docker", "modal", "blaxel"):
            raise ValueError(
                f"`executor_type={self.executor_type!r}` would copy the tools into the sandbox, out of reach of approvals and "
                "record. Leave it at 'local', a jail on this machine, or take 'e2b': their tools stay on the host."
            )
        raise ValueError(f"Unsupported executor type: {self.executor_type}")

    def _own_tool(self, name: str) -> Any:
        """A tool of its own behind the router of now, which is another one below other agents; `None` where there is none."""
        return self.router.get(name)

    def initialize_system_prompt(self) -> str:
        prompt, templates = super().initialize_system_prompt(), self.prompt_templates
        self._fitted_to = self.context.limit(self.model)
        if self._in_jail and weigh(prompt) > BRIEF_FROM * self._fitted_to:
            self.prompt_templates = with_brief_tools(templates)
            try:
                prompt = super().initialize_system_prompt()
            finally:
                self.prompt_templates = templates
        return imports_said(prompt, str(self.authorized_imports), self._shares_packages) if self._in_jail else prompt

    # The loop.

    def _run_stream(self, task: str, max_steps: int, images: list[Any] | None = None) -> Generator[Any]:
        task = self.task = self.masker.text(task)
        self.supervisor.begin(max_steps, task)
        if self.memory.steps and isinstance(self.memory.steps[-1], TaskStep):
            self.memory.steps[-1].task = task
            self.observer.task(self.memory.steps[-1], sorted(self.state))
        yield from self._steps_from(1, task, images)

    def _steps_from(self, number: int, task: str, images: list[Any] | None) -> Generator[Any]:
        self.step_number, self.ending, answer = number, None, None
        self._send_reading_tool()
        while self.ending is None:
            self.ending = yield from self._looked_round()
            if self.ending is None:
                self._make_room()
                if self.planning_interval is not None and (self.step_number - 1) % self.planning_interval == 0:
                    yield from self._planning(task)
                self.ending = self._without_money()
            if self.ending is not None:
                answer = self._wrap_up(task)
                yield self.memory.steps[-1]
                break
            step = TrackedActionStep(
                step_number=self.step_number, timing=Timing(start_time=time.time()), observations_images=images
            )
            self.logger.log_rule(f"Step {self.step_number}", level=LogLevel.INFO)
            self.observer.started(step)
            failure = None
            try:
                for output in self._fitting_stream(step):
                    yield output
                    if isinstance(output, ActionOutput) and output.is_final_answer:
                        answer = self._accepted(output.output)
                        step.is_final_answer = True
            except AgentGenerationError as error:  # the model's service: no step of the model's to learn from
                failure = error
            except AgentError as error:
                step.error = self._masked(error)
            if self.parked:
                raise Parking
            self.take_in(step)
            yield step
            self.step_number += 1
            if failure is not None:
                self.ending = self.ending or Ending(State.ERROR, str(failure))
                raise failure
            if step.is_final_answer and self.ending is None:
                self.ending = Ending(State.SUCCESS)
        final = FinalAnswerStep(handle_agent_output_types(answer))
        self._finalize_step(final)
        yield final

    def _looked_round(self) -> Generator[Hold, None, Ending | None]:
        waited: Parking | None = None
        while True:
            try:
                ending = self.look_round()
            except Parking as parking:
                if self.parked or not self._gives_way:
                    raise
                waited = parking
                yield Hold((), (parking,))
                if self.parked:
                    raise
                continue
            if waited is not None:
                waited.over()
            return ending

    def take_in(self, step: ActionStep) -> None:
        """A step is over: told, and part of the conversation."""
        self._finalize_step(step)
        self.memory.steps.append(step)
        step.model_input_messages = None  # every step would keep a copy of the whole prompt
        if step.observations:
            own = [self.task, step.model_output, step.code_action]
            self.router.untrusted.add_printed(
                f"what the code of step {step.step_number} printed", step.observations, own
            )

    def run_giving_way(self, task: str, **options: Any) -> Generator[Hold, None, Any]:
        """[`run`], but gives way wherever it only waits; ends with the final answer.

        From one thread at a time, which may be another after each [`Hold`].
        """
        return (yield from self._giving_way(self.run(task, stream=True, **options)))

    def continue_giving_way(self, max_steps: int | None = None) -> Generator[Hold, None, Any]:
        """[`continue_run`] in the same way."""
        return (yield from self._giving_way(self._continued(max_steps)))

    def _giving_way(self, run: Any) -> Generator[Hold, None, Any]:
        self._gives_way, last = True, None
        try:
            with contextlib.closing(run):
                for output in run:
                    if isinstance(output, Hold):
                        yield output
                    else:
                        last = output
        finally:
            self._gives_way = False
        return last.output if isinstance(last, FinalAnswerStep) else None

    def continue_run(self, max_steps: int | None = None) -> Any:
        """Goes on with the conversation as it is, without a new task: after a restart, or after more steps were given.

        Args:
            max_steps (`int`, *optional*): Steps in all of the turn that is gone on with. Defaults to the agent's own.

        Returns:
            The final answer, as `run` returns it. How it ended stands in `ending`.
        """
        return list(self._continued(max_steps))[-1].output

    def _continued(self, max_steps: int | None) -> Generator[Any]:
        steps = self.memory.steps
        since = max((index for index, step in enumerate(steps) if isinstance(step, TaskStep)), default=0)
        turn = steps[since:]
        task = self.task = turn[0].task if turn and isinstance(turn[0], TaskStep) else self.task or ""
        images = turn[0].task_images if turn and isinstance(turn[0], TaskStep) else None
        number = 1 + max((step.step_number for step in turn if isinstance(step, ActionStep)), default=0)
        self.interrupt_switch = False
        self.memory.system_prompt = SystemPromptStep(system_prompt=self.system_prompt)
        self.python_executor.send_variables(variables=self.state)
        self.python_executor.send_tools({**self.tools, **self.managed_agents})
        self.supervisor.begin(max_steps or self.max_steps, task, number, turn)
        yield from self._steps_from(number, task, images)

    def _send_reading_tool(self) -> None:
        if self.context.tool.name not in self.tools:  # what is shown in part says how to read the rest
            reading = {self.context.tool.name: self.router.route(self.context.tool)}
            self.python_executor.send_tools({**self.tools, **self.managed_agents, **reading})

    def _without_money(self) -> Ending | None:
        why = self.purse.reserve_step()
        return Ending(State.BUDGET, why) if why else None

    def _fitting_stream(self, step: ActionStep) -> Generator[Any]:
        """A step; once more with less of the conversation where the provider refuses the prompt as too long."""
        try:
            yield from self._step_stream(step)
        except AgentGenerationError as error:
            overflow = overflow_of(error.__cause__)
            if overflow is None or not self._make_room(overflow) or self._without_money():
                raise
            yield from self._step_stream(step)

    def _step_stream(self, memory_step: ActionStep) -> Generator[Any]:
        reserved = self.purse.take_step()
        with contextlib.ExitStack() as acting:
            acting.callback(reserved.release)  # where it was not settled: the model did not answer
            try:
                for output in super()._step_stream(memory_step):
                    if isinstance(output, ToolCall):  # the code has been parsed and has not run yet
                        code = output.arguments
                        self._answered(memory_step, reserved)
                        output.arguments = memory_step.code_action
                        acting.enter_context(self.router.acting(memory_step.step_number))
                        acting.callback(self.interrupt_below)  # whoever still works for code that has ended
                        if self._gives_way and isinstance(self.python_executor, JailExecutor):
                            yield from self.python_executor.ahead(str(code))
                    elif isinstance(output, ActionOutput):
                        memory_step.observations = whole_output(memory_step.observations, output.output)
                    yield output
            except AgentParsingError:
                self._answered(memory_step, reserved)
                raise
            finally:
                if memory_step.observations:
                    memory_step.observations = self.masker.text(memory_step.observations)
                if isinstance(self.python_executor, JailExecutor):
                    self.python_executor.forget()
                    if self.python_executor.images:
                        shown = [*(memory_step.observations_images or []), *self.python_executor.images]
                        memory_step.observations_images, self.python_executor.images = shown, []

    def _answered(self, step: ActionStep, reserved: Reservation) -> None:
        """Counts what the answer took and puts it on record, before its code runs."""
        used, spent = self.purse.settle(reserved, step.token_usage, step.model_output_message)
        self.context.measured(used.input_tokens)
        thinking = self.masked_thinking(step.model_output_message)
        if isinstance(step, TrackedActionStep):
            step.thoughts, step.author = signed(thinking), used.model
        if not thinking and self.reading.thinking:  # in tags within the answer
            thinking = (Thinking(self.masker.text(self.reading.thinking)),)
        self._hide_secrets(step)
        words = step.model_output if isinstance(step.model_output, str) else ""
        thought = self.masker.text(self.reading.thought) if step.code_action is not None else words
        self.fire(
            ModelStep(
                step,
                thought,
                step.code_action,
                used.input_tokens,
                used.output_tokens,
                used.cached_tokens,
                used.cost_usd,
                spent,
                thinking,
                used.model,
                used.reasoning_tokens,
            )
        )

    def _hide_secrets(self, step: ActionStep) -> None:
        """What the model itself said of a secret is not said to it again, or to another one; its code runs as it is."""
        said, code = step.model_output, step.code_action
        if isinstance(said, str) and (masked := self.masker.text(said)) != said:
            step.model_output = masked
            if step.model_output_message is not None:
                step.model_output_message = replace(step.model_output_message, content=masked, raw=None)
        if code is not None and (masked := self.masker.text(code)) != code:
            step.code_action = masked

    def _accepted(self, answer: Any) -> Any:
        self.logger.log(f"Final answer: {answer}", level=LogLevel.INFO)
        if self.final_answer_checks:
            self._validate_final_answer(answer)
        return answer

    def write_memory_to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return self.context.render_for_plan(self.memory) if summary_mode else self.context.render(self.memory)

    # Stopping.

    def park(self) -> None:
        """Ends the jail in the middle of an action whose call stays open: the run raises [`Parking`]. From any thread."""
        self._parked = self.router.parked = True
        self.interrupt_below()
        if isinstance(self.python_executor, JailExecutor):
            self.python_executor.settle(waiting=True)
            self.python_executor.leave()

    def interrupt(self) -> None:
        """Stops the run: running code and tools now, sub-agents as well, the loop before its next step."""
        super().interrupt()
        if isinstance(self.python_executor, JailExecutor):
            self.python_executor.interrupt()
        self._runner.interrupt()
        self.interrupt_below()

    def cleanup(self) -> None:
        """Ends the jails or sandboxes that code ran in. Jobs of a session go on, others end."""
        self.watch.close()
        if self.jobs is not None:
            self.jobs.close()
        self.end_jails()

    def end_jails(self) -> None:
        """The same, but its jobs are watched as before."""
        super().cleanup()
        self._runner.close()
        self.cleanup_below()

    def look_up(self) -> None:
        """Something has come that a call may wait for: an action that runs looks at once. From any thread."""
        if isinstance(self.python_executor, JailExecutor):
            self.python_executor.look_up()

    @property
    def gives_way(self) -> bool:
        """Whether its run can do without a thread while it waits ([`run_giving_way`])."""
        return self._gives_way

    def gives_way_at(self, path: str) -> bool:
        """The same, of the sub-agent of that path that is at work."""
        run = self.runs.get(path)
        return self._gives_way and (not path or (isinstance(run, SubAgent) and run.gives_way))

    def stop_denied(self, reason: str) -> None:
        """A person said stop: the turn ends as denied."""
        self.ending = Ending(State.DENIED, reason)
        if isinstance(self.python_executor, JailExecutor):
            self.python_executor.interrupt()
        self.interrupt_below()

    def _masked(self, error: AgentError) -> AgentError:
        error.message = self.masker.text(error.message)
        error.args = (error.message,)
        return error

    def save(self, output_dir: str | Path, relative_path: str | None = None) -> None:
        super().save(output_dir, relative_path)
        mend_imports(Path(output_dir) / "app.py")


def can_give_way() -> bool:
    """Whether the call that is being made here can wait without its thread, by raising [`Parking`]: code that runs made it
    itself, and who runs the code gives way."""
    action = RUNNING.get()
    return action is not None and action.gives_way and not WITHIN.get()


def give_way(seconds: float, over: Callable[[], Any]) -> None:
    """Waits without a thread, where that is possible: the call that runs here is made again after so many seconds.

    Args:
        seconds (`float`): How long.
        over (`Callable[[], Any]`): Called once it is made no more.

    Raises:
        Parking: it is possible.
    """
    action, call = RUNNING.get(), CALLING.get()
    if action is None or not action.gives_way or action.cancelled.is_set():
        return
    if call is None or WITHIN.get() != call.call_id:  # a part of another call, which would begin anew
        return
    cancelled, at = action.cancelled, time.monotonic() + seconds
    raise Parking(lambda: cancelled.is_set() or time.monotonic() >= at, at, over)


AGENT_REGISTRY["InternAgent"] = InternAgent  # ty: ignore[invalid-assignment]  # declared by what it holds
