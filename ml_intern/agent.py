"""InternAgent: smolagents' `CodeAgent` whose code runs in a jail, whose calls are gated and whose steps are on record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smolagents import CodeAgent, MultiStepAgent, PythonExecutor
from smolagents.agents import (
    AGENT_REGISTRY,
    ActionOutput,
    AgentError,
    AgentGenerationError,
    AgentMaxStepsError,
    AgentParsingError,
    ChatMessage,
    FinalAnswerStep,
    PlanningStep,
    ToolCall,
    handle_agent_output_types,
)
from smolagents.memory import ActionStep, MemoryStep, TaskStep
from smolagents.monitoring import LogLevel, Timing
from smolagents.utils import truncate_content

from .approval import ApprovalGate, ApprovalPolicy, Asker, ask_at_terminal
from .budget import SpendLedger
from .context import ArtifactStore, ContextManager, Overflow, Summary, overflow_of
from .events import State
from .execution import JailExecutor, JailRunner, Workspace
from .models import call_usage
from .router import ToolRouter
from .secrets import Masker
from .steps import CompactionStep, ModelStep, Observer, Observers, ToolCallStep, ToolResultStep, TrackedActionStep

USEFUL_PACKAGES = (
    "numpy", "scipy", "pandas", "pyarrow", "sklearn", "skops", "xgboost", "lightgbm", "torch", "torchvision", "transformers",
    "datasets", "accelerate", "peft", "trl", "sentence_transformers", "safetensors", "evaluate", "matplotlib", "seaborn", "PIL",
)  # fmt: skip
"""Those of them that are installed are named in the prompt: a model that has to find out loses a step."""

KEPT_OUTPUT = 8_000_000
"""Characters of a step's output that are kept, in memory or on disk; what is shown of them is the context's matter."""


@dataclass(frozen=True)
class Ending:
    """How a run ended, and why where it was no success."""

    state: State
    reason: str = ""


class InternAgent(CodeAgent):
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
        ledger (`SpendLedger`, *optional*): What the run may cost.
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
        **kwargs: Any,
    ) -> None:
        self.masker = masker or Masker()
        self.context = context or ContextManager(store=ArtifactStore(mask=self.masker.text))
        self.context.tell, self.context.ask = self._fire, self._summarise
        self.observer: Observer = Observers(observers)
        self.ledger = ledger or SpendLedger()
        self.ending: Ending | None = None
        self.router = ToolRouter(self._fire, self.masker)
        self.gate = ApprovalGate(
            policy or ApprovalPolicy(), on_approval or ask_at_terminal, self.observer, self._stop_denied, self.masker
        )
        self._workspace = workspace
        self._managed: dict[str, Any] = {}
        self._runner = JailRunner()
        kind = kwargs.get("executor_type", "local") if kwargs.get("executor") is None else ""
        self._in_jail, self._shares_packages = kind in ("local", "e2b"), kind == "local"
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
    def managed_agents(self) -> dict[str, Any]:
        return self._managed

    @managed_agents.setter
    def managed_agents(self, agents: Mapping[str, Any]) -> None:
        self._managed = {name: self.router.route(agent) for name, agent in agents.items()}
        for agent in agents.values():
            self._adopt(agent)

    def _adopt(self, agent: MultiStepAgent) -> None:
        """Puts a managed agent's tools behind this agent's gate and record, and those of its own managed agents."""
        if isinstance(agent, InternAgent):
            own, agent.router = agent.router, ToolRouter(self._fire, self.masker)
            agent.router.find_workspace, agent.router.find_runner = own.find_workspace, own.find_runner
            agent.tools = dict(own)
        else:
            router = ToolRouter(self._fire, self.masker)
            router.update(agent.tools)
            agent.tools = router  # ty: ignore[invalid-assignment]  # smolagents takes any mapping there
        for managed in agent.managed_agents.values():
            self._adopt(managed)

    def _setup_step_callbacks(self, step_callbacks: Any) -> None:
        super()._setup_step_callbacks(None)
        self.step_callbacks.register(ToolCallStep, self.observer.calling)
        self.step_callbacks.register(ToolCallStep, self.gate)
        by_class = step_callbacks if isinstance(step_callbacks, dict) else {ActionStep: step_callbacks or []}
        for step_class, callbacks in by_class.items():
            for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
                self.step_callbacks.register(step_class, callback)
        for step_class, callback in (
            (ToolResultStep, self.observer.called),
            (ToolResultStep, self.context.called),
            (CompactionStep, self.observer.compacted),
            (ModelStep, self.observer.answered),
            (PlanningStep, self.observer.planned),
            (ActionStep, self.observer.finished),
        ):
            self.step_callbacks.register(step_class, callback)

    def _fire(self, step: MemoryStep) -> None:
        self.step_callbacks.callback(step, agent=self)

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
            self.router.find_workspace, self.router.find_runner = lambda: executor.workspace, lambda: self._runner
            return executor
        if self.executor_type in ("docker", "modal", "blaxel"):
            raise ValueError(
                f"`executor_type={self.executor_type!r}` would copy the tools into the sandbox, out of reach of approvals and "
                "record. Leave it at 'local', a jail on this machine, or take 'e2b': their tools stay on the host."
            )
        raise ValueError(f"Unsupported executor type: {self.executor_type}")

    def initialize_system_prompt(self) -> str:
        prompt = super().initialize_system_prompt()
        if self._in_jail:  # real Python: whatever is installed imports
            listed, there = str(self.authorized_imports), [name for name in USEFUL_PACKAGES if find_spec(name)]
            named = f" ({', '.join(there)})" if self._shares_packages else ""
            prompt = prompt.replace(
                listed, f"whatever is installed{named} and all of Python's own modules, such as {listed}"
            )
        return prompt

    # The loop.

    def _run_stream(self, task: str, max_steps: int, images: list[Any] | None = None) -> Generator[Any]:
        self.step_number, self.ending, answer = 1, None, None
        if self.context.tool.name not in self.tools:  # what is shown in part says how to read the rest
            reading = {self.context.tool.name: self.router.route(self.context.tool)}
            self.python_executor.send_tools({**self.tools, **self.managed_agents, **reading})
        if self.memory.steps and isinstance(self.memory.steps[-1], TaskStep):
            self.observer.task(self.memory.steps[-1], sorted(self.state))
        while self.ending is None:
            if self.interrupt_switch:
                self.ending = Ending(State.INTERRUPTED)
                raise AgentError("Agent interrupted.", self.logger)
            if self.step_number > max_steps or (spent := self.ledger.exceeded()):
                self.ending = (
                    Ending(State.MAX_STEPS, f"{max_steps} steps")
                    if self.step_number > max_steps
                    else Ending(State.BUDGET, spent)
                )
                answer = self._wrap_up(task)
                yield self.memory.steps[-1]
                break
            self._make_room()
            if self.planning_interval is not None and (self.step_number - 1) % self.planning_interval == 0:
                yield from self._planning(task)
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
            self._finalize_step(step)
            self.memory.steps.append(step)
            step.model_input_messages = None  # every step would keep a copy of the whole prompt
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

    def _planning(self, task: str) -> Generator[Any]:
        started, step = time.time(), None
        for element in self._generate_planning_step(
            self.context.shortened(task), is_first_step=len(self.memory.steps) == 1, step=self.step_number
        ):
            yield element
            step = element
        assert isinstance(step, PlanningStep)
        used = call_usage(self.model, step.token_usage, step.model_output_message)
        self.ledger.record(used.input_tokens, used.output_tokens, used.cached_tokens, used.cost_usd)
        step.timing = Timing(start_time=started, end_time=time.time())
        self._finalize_step(step)
        self.memory.steps.append(step)

    def _fitting_stream(self, step: ActionStep) -> Generator[Any]:
        """A step; once more with less of the conversation where the provider refuses the prompt as too long."""
        try:
            yield from self._step_stream(step)
        except AgentGenerationError as error:
            overflow = overflow_of(error.__cause__)
            if overflow is None or not self._make_room(overflow):
                raise
            yield from self._step_stream(step)

    def _make_room(self, overflow: Overflow | None = None) -> bool:
        """Compacts where that is due; a model is asked for a summary only while there is money for it."""
        return bool(self.context.make_room(self.memory, self.model, overflow, may_ask=self.ending is None))

    def compact(self, focus: str = "") -> CompactionStep | None:
        """Compacts now, whatever the fill. For an agent that is not running; see [`ContextManager.request`].

        Args:
            focus (`str`): What the summary is to keep above all.

        Returns:
            `CompactionStep` or `None`: `None` where there was nothing to compact.
        """
        self.context.request(focus)
        return self.context.make_room(self.memory, self.model)

    def _summarise(self, messages: list[ChatMessage]) -> Summary:
        self.observer.compacting()
        try:
            message = self.model.generate(messages)
        except Exception as error:  # noqa: BLE001 - any model's own error: the conversation goes on with a mechanical summary
            self.logger.log(f"No summary from the model: {error}", level=LogLevel.INFO)
            return Summary()
        used = call_usage(self.model, message.token_usage, message)
        spent = self.ledger.record(used.input_tokens, used.output_tokens, used.cached_tokens, used.cost_usd)
        said = message.content if isinstance(message.content, str) else ""
        return Summary(
            self.masker.text(said), used.input_tokens, used.output_tokens, used.cached_tokens, used.cost_usd, spent
        )

    def _step_stream(self, memory_step: ActionStep) -> Generator[Any]:
        with contextlib.ExitStack() as acting:
            try:
                for output in super()._step_stream(memory_step):
                    if isinstance(output, ToolCall):  # the code has been parsed and has not run yet
                        self._answered(memory_step)
                        acting.enter_context(self.router.acting(memory_step.step_number))
                    elif isinstance(output, ActionOutput):
                        memory_step.observations = _whole(memory_step.observations, output.output)
                    yield output
            except AgentParsingError:
                self._answered(memory_step)
                raise
            finally:
                if memory_step.observations:
                    memory_step.observations = self.masker.text(memory_step.observations)
                if isinstance(self.python_executor, JailExecutor) and self.python_executor.images:
                    shown = [*(memory_step.observations_images or []), *self.python_executor.images]
                    memory_step.observations_images, self.python_executor.images = shown, []

    def _answered(self, step: ActionStep) -> None:
        """Counts what the answer took and puts it on record, before its code runs."""
        used = call_usage(self.model, step.token_usage, step.model_output_message)
        self.context.measured(used.input_tokens)
        spent = self.ledger.record(used.input_tokens, used.output_tokens, used.cached_tokens, used.cost_usd)
        words = step.model_output if isinstance(step.model_output, str) else ""
        thought = words.split(self.code_block_tags[0])[0].strip() if step.code_action is not None else words
        self._fire(
            ModelStep(
                step,
                thought,
                step.code_action,
                used.input_tokens,
                used.output_tokens,
                used.cached_tokens,
                used.cost_usd,
                spent,
            )
        )

    def _accepted(self, answer: Any) -> Any:
        self.logger.log(f"Final answer: {answer}", level=LogLevel.INFO)
        if self.final_answer_checks:
            self._validate_final_answer(answer)
        return answer

    def _wrap_up(self, task: str) -> Any:
        """The model's last word when steps or money are used up."""
        assert self.ending is not None
        started = time.time()
        self._make_room()
        message: ChatMessage = self.provide_final_answer(self.context.shortened(task))
        said = (
            "Reached max steps." if self.ending.state is State.MAX_STEPS else f"Budget used up: {self.ending.reason}."
        )
        step = TrackedActionStep(
            step_number=self.step_number,
            error=(AgentMaxStepsError if self.ending.state is State.MAX_STEPS else AgentError)(said, self.logger),
            timing=Timing(start_time=started, end_time=time.time()),
            token_usage=message.token_usage,
        )
        step.action_output = message.content
        self._finalize_step(step)
        self.memory.steps.append(step)
        return message.content

    def write_memory_to_messages(self, summary_mode: bool = False) -> list[ChatMessage]:
        return self.context.render_for_plan(self.memory) if summary_mode else self.context.render(self.memory)

    # Stopping.

    def interrupt(self) -> None:
        """Stops the run: running code and tools now, the loop before its next step."""
        super().interrupt()
        if isinstance(self.python_executor, JailExecutor):
            self.python_executor.interrupt()
        self._runner.interrupt()

    def cleanup(self) -> None:
        """Ends the jails or sandboxes that code ran in."""
        super().cleanup()
        self._runner.close()

    def _stop_denied(self, reason: str) -> None:
        self.ending = Ending(State.DENIED, reason)
        if isinstance(self.python_executor, JailExecutor):
            self.python_executor.interrupt()

    def _masked(self, error: AgentError) -> AgentError:
        error.message = self.masker.text(error.message)
        error.args = (error.message,)
        return error

    def save(self, output_dir: str | Path, relative_path: str | None = None) -> None:
        super().save(output_dir, relative_path)
        app = Path(output_dir) / "app.py"
        lines = app.read_text(encoding="utf-8").splitlines()
        app.write_text("\n".join(map(_import_line, lines)) + "\n", encoding="utf-8")


def _whole(observation: str | None, output: Any) -> str | None:
    """An observation with all of the last line's value: smolagents keeps 20,000 characters of it, we show fewer and keep all."""
    if observation is None or "..._This content has been truncated" not in observation[-21_000:]:
        return observation
    text = str(output)
    kept = truncate_content(text)
    return observation[: -len(kept)] + text[:KEPT_OUTPUT] if observation.endswith(kept) else observation


OURS = {
    "InternAgent": "from ml_intern import InternAgent",
    "EndpointModel": "from ml_intern.models import EndpointModel",
}
"""Classes that smolagents' template of `app.py` would import from smolagents."""


def _import_line(line: str) -> str:
    if not line.startswith("from smolagents import "):
        return line
    names = line.removeprefix("from smolagents import ").split(", ")
    rest = ", ".join(name for name in names if name not in OURS)
    return "\n".join([f"from smolagents import {rest}", *(OURS[name] for name in names if name in OURS)])


AGENT_REGISTRY["InternAgent"] = InternAgent  # ty: ignore[invalid-assignment]  # declared by what it holds
