"""Replay: the recorded code runs again in a fresh jail, and what comes of it is compared with what came of it then.

What must never happen here: a recorded call that writes, spends or runs something elsewhere takes effect again; the
session's own workspace, packages or trace change; a difference is passed over without a word.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smolagents.local_python_executor import InterpreterError

from .differences import Compared, compared, data_near, image_difference, short
from .effects import effects_of
from .errors import InternError
from .execution import CodeInterrupted, JailExecutor, JailOutput
from .execution.restart import read_saved
from .plain import plain
from .replay_inputs import Bringing, is_link, lay_out
from .replay_report import ReplayReport, StepReport, Verdict
from .router import ToolRouter
from .secrets import Masker
from .steps import ToolCallStep
from .trace.actions import INTERPRETER, RecordedAction, RecordedCall, Recording, read_actions
from .trace.tape import FINAL, Served, Tape

__all__ = ["ReplayReport", "StepReport", "Verdict", "replay"]

TOLERANCE = 0.01
"""How far a number may be from the recorded one, as a part of the larger of the two."""
TINY = 1e-9
"""Differences of numbers that never count."""
CODE_SECONDS = 3600.0
SETTLE_SECONDS = 2.0
KEPT_OUTPUT = 8_000_000
"""Characters of a last value that an observation keeps."""
COUNTS = frozenset({"digest"})
"""Volatile things that are compared all the same: what code computes a digest of should be what it was."""
_KNOWN_TOOLS = (
    "plan", "notes", "read_artifact", "ask_user", "request_steps", "record_decision", "install_packages",
    "experiments", "evaluate_model",
    "arxiv_search", "semantic_scholar_search", "paper_read", "paper_graph", "paper_resources",
    "hub_search_datasets", "hub_inspect_dataset", "hub_download", "hub_push", "python_sandbox", FINAL,
)  # fmt: skip
_TIMED_OUT = re.compile(r"exceeded the maximum execution time of ([\d.]+) seconds")
_DIED = re.compile(r"The Python process ended|It had to be killed")
# What an executor says of variables depends on when it saved them.
_RESTARTED = re.compile(
    r"^\((?:Variables are|The Python process) [^\n]*\)\n|(?<=The Python process was restarted)[:.].*$", re.M
)
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_NO_NAME = re.compile(r"name '(\w+)' is not defined")
_NO_NETWORK = re.compile(
    r"HF_HUB_OFFLINE|offline|Network is unreachable|Name or service not known|name resolution|ConnectionError|"
    r"Failed to resolve|Connection refused|LocalEntryNotFound|OfflineMode"
)


def replay(
    trace: Path,
    *,
    workspace_copy: Path | None = None,
    live_reads: bool = False,
    tolerance: float = TOLERANCE,
    tools: Sequence[Any] | None = None,
    seconds: float = CODE_SECONDS,
    memory_bytes: int = 4 * 1024**3,
    unsafe_local: bool = False,
    on_step: Callable[[StepReport], None] | None = None,
    on_setup: Callable[[tuple[str, ...]], None] | None = None,
) -> ReplayReport:
    """Runs a trace's code again, in a fresh jail, and compares.

    Tool calls are answered from the recording, by name and arguments within the action, first in first out. Nothing that
    writes or spends is ever called. Nothing is added to make code repeatable, no seeds either.

    Args:
        trace (`Path`): A trace that this project wrote.
        workspace_copy (`Path`, *optional*): A folder whose copy the code starts on. How the workspace was at the start is
            not on record: by default it is empty but for the files that were handed over, where those still lie in the
            session's folder.
        live_reads (`bool`, defaults to `False`): Tools that only read are called anew, and code may read the public Hub.
        tolerance (`float`, defaults to 0.01): How far a number may be from the recorded one, as a part of the larger.
        tools (`Sequence[Tool]`, *optional*): The tools for `live_reads`; defaults to this project's own. Only those that
            declare that they read are called.
        seconds (`float`, defaults to 3,600): Time that the code of a step may take.
        memory_bytes (`int`, defaults to 4 GiB): Memory of the jail.
        unsafe_local (`bool`, defaults to `False`): Where no jail works, run the code with your own rights.
        on_step (`Callable[[StepReport], None]`, *optional*): Told of each step when it is over.
        on_setup (`Callable[[tuple[str, ...]], None]`, *optional*): Told, before the first step, what it runs on.

    Returns:
        `ReplayReport`: Step by step what came out the same, what differs and how, what could not be compared.

    Raises:
        InternError: the file cannot be read, or holds no code that can be run again.
        JailUnavailable: there is no jail here.
    """
    if not 0 <= tolerance < 1:
        raise InternError(f"The tolerance is a part of 1, not {tolerance:g}", "", "0.01 is one percent.")
    recording = _read(trace)
    packages, snapshots = recording.folder / "packages", tempfile.TemporaryDirectory(prefix="ml-intern-replay-")
    executor = JailExecutor(
        timeout_seconds=seconds,
        max_print_outputs_length=KEPT_OUTPUT,
        memory_bytes=memory_bytes,
        unsafe_local=unsafe_local,
        network="hub" if live_reads else "none",
        packages=packages if _holds(packages) else None,
        snapshots=Path(snapshots.name),
    )
    run = _Run(recording, executor, Path(snapshots.name), tolerance, seconds, live_reads)
    try:
        setup = run.set_up(workspace_copy, tools)
        if on_setup:
            on_setup(setup)
        steps = []
        for action in recording.actions:
            steps.append(run.step(action))
            if on_step:
                on_step(steps[-1])
        return ReplayReport(trace, tuple(steps), setup, tolerance)
    finally:
        executor.cleanup()
        snapshots.cleanup()


def _holds(folder: Path) -> bool:
    """A link there may lead anywhere, and the executor makes the folder readable."""
    return not is_link(folder) and folder.is_dir() and any(folder.iterdir())


def _read(trace: Path) -> Recording:
    try:
        recording = read_actions(trace)
    except OSError as error:
        raise InternError(f"Cannot read {trace}", error.strerror or str(error), "Name a session or a trace.") from None
    if not recording.actions:
        why = (
            f"its {recording.calls} tool calls are another program's: only code of a `{INTERPRETER}` can be run again"
            if recording.calls and not recording.ours
            else "its model never got to write code"
        )
        raise InternError(f"There is no code to run again in {trace.name}", why, "`trace show` shows what is in it.")
    return recording


class _Run:
    """One replay."""

    def __init__(
        self,
        recording: Recording,
        executor: JailExecutor,
        snapshots: Path,
        tolerance: float,
        seconds: float,
        live: bool,
    ) -> None:
        self.recording, self.executor, self.snapshots = recording, executor, snapshots
        self.tolerance, self.seconds, self.live = tolerance, seconds, live
        self._ran = 0
        self.masker = Masker()
        self.astray = False
        """Whether a step before came out otherwise: what follows may be its consequence."""
        self.bringing = Bringing(recording.folder / "workspace", executor.workspace)

    def set_up(self, workspace_copy: Path | None, tools: Sequence[Any] | None) -> tuple[str, ...]:
        """What there is before the first step, in sentences."""
        executor, recording = self.executor, self.recording
        said = [f"The jail is {executor.jail}; code reaches {_REACH[executor.network]}."]
        if recording.jail and recording.jail != executor.jail:
            said.append(f"Then it was {recording.jail}.")
        said += lay_out(recording, executor.workspace, workspace_copy)
        if executor.packages is not None:
            said.append("Packages that the session installed are there from the start.")
        if recording.variables:
            said.append(f"Variables that were handed over are not on record: {', '.join(recording.variables)}.")
        live = self._live_tools(tools) if self.live else {}
        if live:
            said.append(f"Called anew: {', '.join(sorted(live))}; all other tools answer from the recording.")
        else:
            said.append("All tools answer from the recording.")
        self.tape = Tape(self.masker.data, self._near, live, self._answered)
        names = {*_KNOWN_TOOLS, *live, *(call.tool for action in recording.actions for call in action.calls)}
        executor.send_tools({name: self.tape.tool(name) for name in sorted(names)})
        return tuple(said)

    def _live_tools(self, tools: Sequence[Any] | None) -> dict[str, Callable[..., Any]]:
        if tools is None:
            from . import tools as ours

            papers = [ours.ArxivSearchTool(), ours.SemanticScholarSearchTool(), ours.PaperReadTool()]
            papers += [ours.PaperGraphTool(), ours.PaperResourcesTool()]
            tools = [*papers, ours.HubSearchDatasetsTool(), ours.HubInspectDatasetTool(), ours.HubDownloadTool()]
        router = ToolRouter(_only_reads, self.masker)
        router.services["workspace"] = lambda: self.executor.workspace
        router.update({tool.name: tool for tool in tools if effects_of(tool, {}) == "read" and tool.name != FINAL})
        return dict(router)

    def _answered(self, call: RecordedCall) -> list[str]:
        """What a call brought into the workspace then is brought again; what it sent is compared with what would be sent."""
        if call.effects in ("read", "execute") and call.result is not None and not call.result.error:
            return self.bringing.bring(call)
        return self.bringing.compare(call, self._text)

    def step(self, action: RecordedAction) -> StepReport:
        """Runs an action and compares."""
        head = StepReport(action.turn, action.step, action.code, Verdict.SAME, seconds_then=action.seconds)
        if not action.finished:
            why = "it was cut off, so what came of it is not on record; it is not run"
            self.astray = True
            return replace(head, verdict=Verdict.NOT_COMPARED, remarks=(why,))
        interrupted = "The action was interrupted" in action.error
        self.executor.timeout_seconds = self._limit(action, interrupted)
        if _DIED.search(action.error):
            self._settle()
        self.tape.begin(action)
        started = time.monotonic()
        output, error = self._execute(action.code)
        seconds = time.monotonic() - started
        served = self.tape.end()
        text = self._compare(action, output, error)
        differences = [*map(str, text.changes), *self._images(action, output), *served.differences]
        remarks = list(served.remarks)
        # Code that fails leaves threads behind, and which of their calls still get out is a matter of chance.
        (remarks if action.failed and error is not None and not differences else differences).extend(served.missing)
        if action.final and not text.changes and not self._near(action.value, plain(self._masked(output))):
            differences.append(
                f"the answer was {short(str(action.value))}, now {short(str(output and output.output))}"
            )
        verdict = Verdict.DIFFERS if differences else Verdict.SAME
        why = self._obstacles(action, error, interrupted, served)
        if why and verdict is Verdict.DIFFERS:
            verdict, remarks = Verdict.NOT_COMPARED, [*why, *remarks]
        if text.passed_over:
            remarks.append(f"passed over: {', '.join(text.passed_over)}")
        if "[secret:" in action.code:
            remarks.append("a secret is masked in its code")
        self.astray = self.astray or verdict is not Verdict.SAME
        return replace(
            head, verdict=verdict, differences=tuple(differences), remarks=tuple(remarks), calls=served.calls,
            deviation=text.deviation, seconds=seconds,
        )  # fmt: skip

    def _limit(self, action: RecordedAction, interrupted: bool) -> float:
        """What was stopped then is stopped now, after the same time."""
        if interrupted:
            return min(self.seconds, action.seconds + 1)
        timed_out = _TIMED_OUT.search(action.error)
        return min(self.seconds, float(timed_out[1])) if timed_out else self.seconds

    def _settle(self) -> None:
        """Waits for the variables to be saved, as they were then, while the model thought."""
        ends = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends:
            saved = read_saved(self.snapshots)
            if not self._ran or (saved is not None and saved.action >= self._ran):
                return
            time.sleep(0.01)

    def _execute(self, code: str) -> tuple[JailOutput | None, InterpreterError | None]:
        self._ran += 1
        try:
            return self.executor(code), None
        except InterpreterError as error:
            return None, error

    def _compare(self, action: RecordedAction, output: JailOutput | None, error: InterpreterError | None) -> Compared:
        """The observations, as an agent makes them."""
        if output is not None:
            now = f"Execution logs:\n{output.logs}Last output from code snippet:\n{str(output.output)[:KEPT_OUTPUT]}"
        else:
            printed = str(self.executor.state.get("_print_outputs", ""))
            logs = f"Execution logs:\n{printed}" if printed else ""
            now = "\n".join(filter(None, [logs, f"Error:\n{error}"]))
        now = self._placed(self.masker.text(now), self.executor.workspace.inside)
        then = self._placed(action.observation, action.cwd)
        then, now = _RESTARTED.sub("", then), _RESTARTED.sub("", now)
        if not action.whole:  # its artifact is gone: the row has its ends
            head = then.partition("\n[... ")[0]
            then, now = head, now[: len(head)]
        return self._text(then, now)

    @staticmethod
    def _placed(text: str, inside: str) -> str:
        """`text` as it would be with the workspace in its usual place."""
        return text if inside in ("", "/", "/workspace") else text.replace(inside, "/workspace")

    def _text(self, then: str, now: str) -> Compared:
        return compared(then, now, relative=self.tolerance, absolute=TINY, counts=COUNTS)

    def _near(self, then: Any, now: Any) -> bool:
        return data_near(then, now, lambda a, b: not self._text(a, b).changes, self.tolerance, TINY)

    def _masked(self, output: JailOutput | None) -> Any:
        return self.masker.data(output.output) if output is not None else None

    def _images(self, action: RecordedAction, output: JailOutput | None) -> list[str]:
        shown = output.images if output is not None else []
        if len(shown) != len(action.images):
            return [f"{len(action.images)} images then, {len(shown)} now"]
        pairs = enumerate(zip(action.images, shown, strict=True), 1)
        return [f"image {place}: {why}" for place, (a, b) in pairs if (why := image_difference(a, b))]

    def _obstacles(
        self, action: RecordedAction, error: InterpreterError | None, interrupted: bool, served: Served
    ) -> list[str]:
        """Why a step that came out otherwise says nothing about its code."""
        why = list(served.obstacles)
        if interrupted:
            why.append("it was interrupted then; it was given the same time now")
        said = str(error or "")
        timed_out = _TIMED_OUT.search(said)
        if timed_out and not _TIMED_OUT.search(action.error):
            why.append(
                f"it was stopped after {self.executor.timeout_seconds:g} seconds; then it took {action.seconds:g}"
            )
        if isinstance(error, CodeInterrupted):
            why.append("it was interrupted now")
        if error is not None and not action.failed:
            if module := _NO_MODULE.search(said):
                why.append(f"the package {module[1]} is not installed here")
            if name := _NO_NAME.search(said):
                if name[1] in self.recording.variables:
                    why.append(f"the variable {name[1]} was handed over, and is not in the recording")
                elif self.astray:
                    why.append(f"{name[1]} was to come from an earlier step, which went otherwise")
            if "FileNotFoundError" in said and (self.bringing.missing or self.astray):
                missing = ", ".join(self.bringing.missing) or "a file of an earlier step"
                why.append(f"what it reads is not here: {missing}; a copy of a workspace or live reads would bring it")
            if not self.live and _NO_NETWORK.search(said):
                why.append("its code reads the network: with live reads it may")
        return why


_REACH = {"none": "no network", "hub": "the public Hub, to read", "full": "any network"}


def _only_reads(step: Any) -> None:
    """The gate of the tools that are called anew."""
    if isinstance(step, ToolCallStep) and step.effects != "read":
        raise PermissionError(f"`{step.tool}` is not called in a replay: it does more than read.")
