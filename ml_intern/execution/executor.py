"""`JailExecutor`: runs an agent's code in a jail and its tool calls on the host.

Drop-in for smolagents' executors: `CodeAgent(..., executor=JailExecutor())`. Nothing starts before the first action.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import select
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
from smolagents.local_python_executor import CodeOutput, InterpreterError, PythonExecutor

from ml_intern.errors import Parking
from ml_intern.execution.action import RUNNING, Action, Hold, Pool, to_the_end
from ml_intern.execution.egress import Egress, Network, Refusal
from ml_intern.execution.gpus import Gpus, find_gpus
from ml_intern.execution.jail import Jail, Limits, find_jail, repository_in
from ml_intern.execution.process import Breach, WorkerProcess
from ml_intern.execution.restart import Saved, forget_saved, read_saved, restarted, restored
from ml_intern.execution.shelter import Shelter
from ml_intern.execution.stubs import describe
from ml_intern.execution.values import Codec, Unencodable, describe_error
from ml_intern.execution.workspace import Workspace

GRACE_SECONDS = 3.0
START_SECONDS = 60.0
MARK_SECONDS = 3.0
MAX_PRINT_OUTPUTS_LENGTH = 50_000
RESTORE_SECONDS, SETTLE_SECONDS = 60.0, 2.0
# Objects of these come back from tools as themselves; others may hold what the code must not see, and stay here.
DATA_PACKAGES = {
    "numpy",
    "pandas",
    "torch",
    "scipy",
    "sklearn",
    "polars",
    "pyarrow",
    "datasets",
    "xgboost",
    "lightgbm",
}


@dataclass
class JailOutput(CodeOutput):
    """What an action gave: its value, what it printed, whether it was the final answer, figures and images shown."""

    images: list[PIL.Image.Image] = field(default_factory=list)


class WorkerLost(InterpreterError):
    """The Python process died or had to be killed; what was in its last snapshot comes back with the next."""


class CodeInterrupted(InterpreterError):
    """The action was interrupted from outside. `state_lost` says whether the process had to be killed for it."""

    def __init__(self, message: str, *, state_lost: bool = False) -> None:
        super().__init__(message)
        self.state_lost = state_lost


class JailExecutor(PythonExecutor):
    """Runs an agent's code in a jail; its tool calls come back to the host.

    Args:
        workspace (`Workspace`, *optional*): The folder that the code works in; a temporary one if none is given.
        max_print_outputs_length (`int`, *optional*, defaults to 50,000): Characters kept of an action's output.
        timeout_seconds (`float`, *optional*, defaults to 3,600): Time that code may run, host calls not counted.
        additional_functions (`dict[str, Callable]`, *optional*): Functions of the host that code may call.
        memory_bytes (`int`, defaults to 4 GiB): Memory of a process, and of all together.
        processes (`int`, defaults to 256): Processes and threads.
        disk_bytes (`int`, defaults to 50 GiB): Disk that the workspace, saved variables and temporary files may take
            together. The last GiB of the disk, and the last twentieth of what was free, are never used up.
        unsafe_local (`bool`, defaults to `False`): Where no jail works, run code with your own rights.
        on_output (`Callable[[str], None]`, *optional*): Gets output as it comes, on a thread of its own.
        network (`"none"`, `"hub"` or `"full"`, defaults to `"hub"`): What code reaches: nothing, what is public on the
            Hub (read only, without anybody's token), or any public host. Needs bubblewrap: a Landlock jail has none.
        hosts (`Sequence[str]`, *optional*): Further hosts, e.g. `"example.com"`, `"example.com:8443"`, `"*.example.com"`.
        on_refused (`Callable[[Refusal], None]`, *optional*): Told of what was refused on the network, once each.
        jail (`Jail`, *optional*): Which jail to use; the strongest that works here if none is given.
        snapshots (`Path`, *optional*): Folder where variables are saved between actions, and come back from when this
            process or another one starts a worker; a temporary one if none is given.
        packages (`Path`, *optional*): Folder of packages that code can import besides the host's, and cannot write.
        gpus (`bool` or `Gpus`, defaults to `False`): Whether code may use this machine's GPUs, all of them or those that
            `find_gpus` gave.

    Raises:
        GpusUnavailable: GPUs are asked for, and code could not use any.
    """

    def __init__(
        self,
        workspace: Workspace | None = None,
        *,
        max_print_outputs_length: int | None = None,
        timeout_seconds: float | None = 3600.0,
        additional_functions: dict[str, Callable[..., Any]] | None = None,
        memory_bytes: int = 4 * 1024**3,
        processes: int = 256,
        disk_bytes: int = 50 * 1024**3,
        unsafe_local: bool = False,
        on_output: Callable[[str], None] | None = None,
        network: Network = "hub",
        hosts: Sequence[str] = (),
        on_refused: Callable[[Refusal], None] | None = None,
        jail: Jail | None = None,
        snapshots: Path | None = None,
        packages: Path | None = None,
        gpus: bool | Gpus = False,
    ) -> None:
        if gpus is True:
            find_gpus()  # what is missing is said at once; which are there is looked up when a worker starts
        self.gpus = gpus
        self.hosts = tuple(hosts)
        self._kept: list[Path] | None = None
        if max_print_outputs_length is None:
            max_print_outputs_length = MAX_PRINT_OUTPUTS_LENGTH
        self.max_print_outputs_length, self.timeout_seconds = max_print_outputs_length, timeout_seconds
        self.additional_functions = additional_functions or {}
        self.limits = Limits(memory_bytes, processes, disk_bytes=disk_bytes)
        self.unsafe_local, self.on_output, self._chosen = unsafe_local, on_output, jail
        self.static_tools: dict[str, Callable[..., Any]] = dict(self.additional_functions)
        self.state: dict[str, Any] = {}
        self.images: list[PIL.Image.Image] = []
        """What the last action showed; smolagents' loop has no other way to hand it on."""
        self._workspace, self._temporary = workspace, False
        self._snapshots = snapshots and snapshots.resolve()
        self._own_snapshots = snapshots is None
        self.packages = packages and packages.resolve()
        self._shelter = Shelter()
        self._shelter.egress = self._egress = Egress.of(network, hosts, on_refused)
        self._finalizer = weakref.finalize(self, self._shelter.close)
        self._realm = uuid.uuid4().hex
        self._results = Codec(self._realm, _is_data)
        self._variables = Codec(self._realm, lambda _: True, shares=self._results)
        self._unsent: dict[str, Any] = {}
        self._tools_unsent = True
        self._ended = saved.action if (saved := read_saved(self._snapshots)) else 0
        """The last action that came to its end; those of a process before this one count."""
        self._number = self._ended
        self._lost = ""
        self._hurry = False
        self._pool = Pool()
        self._made: tuple[str, Callable[[], JailOutput]] | None = None
        self._starting, self._running = threading.RLock(), threading.Lock()
        self._action: Action | None = None
        self._cancelled = threading.Event()

    # What others use

    @property
    def workspace(self) -> Workspace:
        with self._starting:
            if self._workspace is None:
                self._workspace, self._temporary = Workspace(self._shelter.make_folder()), True
            return self._workspace

    @property
    def jail(self) -> str:
        """`"bubblewrap"`, `"landlock"` or `"none"`. Raises `JailUnavailable`."""
        return self._jail().kind

    @property
    def network(self) -> str:
        """What code reaches in this jail: `"none"`, `"hub"` or `"full"`. Raises `JailUnavailable`."""
        if self.jail == "none":
            return "full"
        return self._egress.mode if self._egress and self._jail().network else "none"

    def _jail(self) -> Jail:
        return self._chosen or find_jail(unsafe_local=self.unsafe_local)

    @property
    def cancelled(self) -> threading.Event:
        """Set once the action that asks is being cancelled. Inside a host call it is that call's own action."""
        action = RUNNING.get()
        return action.cancelled if action is not None and action.owner is self else self._cancelled

    def start(self) -> None:
        """Starts the worker if none is there. Optional: the first action does it. From any thread."""
        if self._running.acquire(blocking=False):  # else an action runs, or someone else is starting it
            try:
                self._worker()
            finally:
                self._running.release()

    def send_tools(self, tools: dict[str, Any]) -> None:
        """Gives code these callables, besides `additional_functions`, and takes away those of before."""
        self.static_tools = {**tools, **self.additional_functions}
        self._tools_unsent = True

    def send_variables(self, variables: dict[str, Any]) -> None:
        """Sets variables, before the next action and again whenever the process is restarted."""
        self.state.update(variables)
        self._unsent.update(variables)

    def __call__(self, code_action: str) -> JailOutput:
        """Runs code.

        Raises:
            InterpreterError: If the code fails; the message is for the model.
            CodeInterrupted: If `interrupt` was called.
            WorkerLost: If the process died or was killed.
            JailUnavailable: If there is no jail.
        """
        action = RUNNING.get()
        if action is not None and action.owner is self:
            raise InterpreterError("An action is running: a tool cannot run another one in the same process.")
        if self._made is not None:
            made, self._made = self._made, None
            if made[0] == code_action:
                return made[1]()
        with self._running:
            return self._finished(to_the_end(self._run(code_action)))

    def ahead(self, code_action: str) -> Generator[Hold]:
        """Runs code before it is asked for, and gives way wherever it only waits; a call with that code gets what came of it.

        From one thread at a time, which may be another after each [`Hold`].
        """
        with self._running:
            self._made = None
            try:
                output = yield from self._run(code_action, gives_way=True)
            except Exception as error:  # noqa: BLE001 - for whoever asks for it
                self._made = code_action, functools.partial(_raise, error)
            else:
                self._made = code_action, functools.partial(self._finished, output)

    def forget(self) -> None:
        """What came of code that ran ahead is for the call that follows at once, and for no later one."""
        self._made = None

    def _finished(self, output: JailOutput) -> JailOutput:
        self.images = output.images
        return output

    def interrupt(self) -> None:
        """Interrupts the running action, from any thread; its waiting host calls are cancelled."""
        action, self._hurry = self._action, True
        if action is not None:
            action.interrupted = True
            action.cancelled.set()
            self._shelter.wake()

    def look_up(self) -> None:
        """A call that waits may be due: who runs an action looks at once. From any thread."""
        self._shelter.wake()

    def leave(self) -> None:
        """Ends the worker, whatever it does; whoever runs an action there is told."""
        self.interrupt()
        with self._starting:
            self._shelter.end_worker()

    def cleanup(self) -> None:
        """Ends the worker and removes a temporary workspace. The executor may be used again."""
        self.settle()  # somebody may go on from the snapshot
        self.leave()
        with self._running:  # whoever was reading from the worker has let go of it
            self._shelter.close()
            if self._temporary:
                self._workspace, self._temporary = None, False
            if self._own_snapshots:
                self._snapshots = None

    # The worker

    def _worker(self) -> WorkerProcess:
        with self._starting:
            worker = self._shelter.worker
            if worker is not None and worker.alive and not worker.wait(0):
                return worker
            if worker is not None:
                if not self._lost:
                    self._lost = f"({self._died(worker, between=True)})\n"
                worker.close()
            jail, workspace = self._jail(), self.workspace
            workspace.inside = jail.inside(workspace.root)
            worker = self._new_worker(jail, workspace)
            new, self._unsent = self._unsent, self._sent()
            if read_saved(self._snapshots) is None:
                return worker
            try:
                self._send_pending(worker)
                back = self._restore(worker)
            except BaseException:
                self._unsent = new
                raise
            self._unsent = new if back else self._sent()  # what was set before the loss comes from the snapshot
            return worker if back else self._new_worker(jail, workspace)

    def _sent(self) -> dict[str, Any]:
        return {name: value for name, value in self.state.items() if name != "_print_outputs"}

    def _new_worker(self, jail: Jail, workspace: Workspace) -> WorkerProcess:
        folder = self._snapshots_folder()
        if self.packages is not None:
            self.packages.mkdir(parents=True, exist_ok=True)
            self.packages.chmod(0o755)  # the code may be another user
        if self._kept is None:  # what code makes later is its own
            self._kept = repository_in(workspace.root, jail.kind, fresh=read_saved(folder) is None)
        gpus = find_gpus() if self.gpus is True else self.gpus or None
        worker = WorkerProcess(
            jail, workspace.root, self.limits, self.max_print_outputs_length, self.on_output, folder, self._egress,
            self.packages, gpus, self._kept,
        )  # fmt: skip
        self._shelter.keep(worker)
        self._hello(worker)
        self._tools_unsent = True
        return worker

    def _snapshots_folder(self) -> Path:
        if self._snapshots is None:
            self._snapshots = self._shelter.make_folder()
        self._snapshots.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._snapshots

    def _restore(self, worker: WorkerProcess) -> bool:
        """Waits for the variables of the worker before; `False`: it did not get through and was killed.

        Raises:
            CodeInterrupted: interrupted meanwhile; the next action tries again.
        """
        self._hurry = self._action is not None and self._action.interrupted
        deadline = time.monotonic() + RESTORE_SECONDS
        poll = select.poll()
        poll.register(worker.replies, select.POLLIN)
        worker.send({"op": "restore"})
        why = f"it took more than {RESTORE_SECONDS:.0f} seconds"
        try:
            while time.monotonic() < deadline:
                poll.poll(100)
                for message in worker.receive():
                    report = Saved.of(message, "back") if message["op"] == "restored" else None
                    if report is None:
                        raise Breach(f"it sent {message['op'][:40]!r} meanwhile")
                    self._lost += f"({restored(report, self._ended)})\n"
                    return True
                if self._hurry:
                    why = ""
                    break
        except EOFError:
            why = "the process ended"
        except Breach as breach:
            why = str(breach)
        worker.kill()
        worker.close()
        self._shelter.worker = None
        if not why:
            raise CodeInterrupted("The action was interrupted while variables were being restored. It has not begun.")
        forget_saved(self._snapshots_folder())
        self._lost += f"(Variables are gone: they could not be restored, as {why}.)\n"
        return False

    def settle(self, waiting: bool = False) -> None:
        """Waits, for a moment at most, until variables are saved as of the last action that ended.

        Args:
            waiting (`bool`, defaults to `False`): An action that runs waits for the host, and may be left so.
        """
        worker, ends = self._shelter.worker, time.monotonic() + SETTLE_SECONDS
        if self._own_snapshots or worker is None or self._ended == 0:
            return
        while worker.alive and time.monotonic() < ends and not worker.wait(0.005):
            if self._action is not None and not waiting:
                return
            saved = read_saved(self._snapshots)
            if saved is not None and saved.action >= self._ended:
                return

    def _restarted(self, *, next_told: bool = False) -> str:
        """What became of the variables; shorter where the same observation goes on with what was restored."""
        saved = read_saved(self._snapshots)
        return "The Python process was restarted." if saved and next_told else restarted(saved, self._ended)

    def _hello(self, worker: WorkerProcess) -> None:
        deadline = time.monotonic() + START_SECONDS
        poll = select.poll()
        poll.register(worker.replies, select.POLLIN)
        why = f"no answer in {START_SECONDS:.0f} seconds"
        try:
            while time.monotonic() < deadline:
                poll.poll(1000)
                for message in worker.receive():
                    if message["op"] == "hello":
                        worker.open_door()
                        return
                    raise Breach("it did not greet")
        except (EOFError, Breach):
            why = "it ended at once"
        worker.kill()
        worker.close()
        self._shelter.worker = None
        raise WorkerLost(f"The jail ({self.jail}) did not start: {why}. {worker.capture.text()[-2000:]}".strip())

    def _send_pending(self, worker: WorkerProcess) -> None:
        if self._tools_unsent:
            self._tools_unsent = False
            tools = [describe(name, tool) for name, tool in self.static_tools.items()]
            worker.send({"op": "tools", "tools": tools})
        while self._unsent:  # one a line, so that each may use all of the line's length
            name, value = next(iter(self._unsent.items()))
            try:
                data = self._variables.encode(value)
            except Unencodable:  # too large: tools can still be given it
                data = self._variables.handle(value)
            worker.send({"op": "variables", "values": {name: data}})
            self._unsent.pop(name, None)

    # An action

    def _run(self, code: str, gives_way: bool = False) -> Generator[Hold, None, JailOutput]:
        self.images = []
        self.state["_print_outputs"] = ""
        self._number += 1
        action = self._action = Action(self, self._number)
        action.gives_way = gives_way
        self._cancelled = action.cancelled
        try:
            action.call_begins()  # its clock stands still while a process is started for it
            worker = action.worker = self._worker()
            action.call_ends()
            try:
                return (yield from self._perform(action, code))
            except (EOFError, BrokenPipeError):
                raise self._died(worker) from None
            except Breach as breach:
                worker.kill()
                raise self._died(worker, f"it broke the rules of the pipe ({breach})") from None
            finally:
                if action.running:  # something came in between, such as a second Ctrl-C
                    worker.kill()
                self.state["_print_outputs"] = self._printed(action)
                if not worker.alive:
                    worker.close()
                    self._shelter.worker = None
                self._lost = f"({self._restarted(next_told=True)})\n" if action.running else ""
        finally:
            action.end()
            self._action = None

    def _perform(self, action: Action, code: str) -> Generator[Hold, None, JailOutput]:
        worker, mark = action.worker, uuid.uuid4().hex
        worker.capture.begin(mark)
        self._send_pending(worker)
        action.running = True
        try:
            worker.send({"op": "run", "n": action.number, "code": code, "mark": mark})
            done = yield from self._await(action)
        except KeyboardInterrupt:  # Ctrl-C in the host: the action is stopped in order, then it goes its way
            self.interrupt()
            with contextlib.suppress(InterpreterError, EOFError, BrokenPipeError, Breach):
                yield from self._await(action)
                action.running = False
            raise
        except (InterpreterError, EOFError, BrokenPipeError, Breach):
            action.running = False  # the error says what became of it
            raise
        action.running = False
        if not worker.capture.wait(MARK_SECONDS):
            raise Breach("it did not end its output")
        return self._output(action, done)

    def _await(self, action: Action) -> Generator[Hold, None, dict[str, Any]]:
        """Serves the worker until its action is done."""
        worker, limit = action.worker, self.timeout_seconds
        poll = select.poll()
        for handle in (worker.replies, self._shelter.waker):
            poll.register(handle, select.POLLIN)
        grace_ends: float | None = None
        while True:
            if action.waits and grace_ends is None and not action.interrupted:
                calls = tuple(action.held())
                handles = [handle for call in calls for handle in call.handles]
                hold = Hold((worker.replies, self._shelter.waker, *handles), calls)
                if not hold.due:
                    yield hold
            for message, call in action.due():
                self._submit(action, message, call)
            left = 1.0
            if grace_ends is not None:
                left = grace_ends - time.monotonic()
                if left <= 0:
                    worker.kill()
                    raise self._stopped(action, f"It had to be killed. {self._restarted()}", state_lost=True)
            elif action.interrupted or (limit is not None and action.used() >= limit):
                action.timed_out = not action.interrupted
                action.cancelled.set()
                grace_ends = time.monotonic() + GRACE_SECONDS
                worker.send({"op": "interrupt", "n": action.number})
                continue
            elif limit is not None:
                left = min(left, limit - action.used())
            for handle, _ in poll.poll(max(left, 0.02) * 1000):
                if handle == self._shelter.waker:
                    self._shelter.drain()
            for message in worker.receive():
                if message["op"] == "call":
                    self._dispatch(action, message)
                elif message["op"] == "done" and message.get("n") == action.number:
                    self._ended = action.number
                    return message
                else:
                    raise Breach(f"it sent {message['op'][:40]!r} out of turn")

    def _printed(self, action: Action) -> str:
        """What the code printed, and what it was refused on the network, which some libraries keep to themselves."""
        text = self._lost + action.worker.capture.text()
        if self._egress:
            action.refused += "".join(f"(Refused: {refusal.why})\n" for refusal in self._egress.take_refusals())
        gap = "\n" if action.refused and text and not text.endswith("\n") else ""
        return text + gap + action.refused

    def _output(self, action: Action, done: dict[str, Any]) -> JailOutput:
        logs = self._printed(action)
        error = done.get("error")
        if isinstance(error, dict):
            if action.interrupted or (action.timed_out and error.get("interrupted") is True):
                raise self._stopped(action, f"It stood at line {str(error.get('line'))!r}. Variables are kept.")
            raise InterpreterError(str(error.get("text")))
        if action.interrupted:
            raise self._stopped(action, "It had just come to its end. Variables are kept.")
        try:
            images = self._results.decode([{"$": "image", "v": data} for data in done.get("images", ())])
            if action.answered:
                return JailOutput(action.answer, logs, True, images)
            return JailOutput(self._results.decode(done.get("value")), logs, False, images)
        except (ValueError, TypeError) as error:
            raise Breach(f"its result does not read: {error}") from error

    def _stopped(self, action: Action, what: str, *, state_lost: bool = False) -> InterpreterError:
        if action.interrupted:
            return CodeInterrupted(f"The action was interrupted. {what}", state_lost=state_lost)
        why = f"Code execution exceeded the maximum execution time of {self.timeout_seconds:g} seconds."
        return WorkerLost(f"{why} {what}") if state_lost else InterpreterError(f"{why} {what}")

    def _died(self, worker: WorkerProcess, why: str = "", *, between: bool = False) -> InterpreterError:
        if not why and not worker.why_killed and not worker.wait(1.0):
            why = "it closed its pipe to the host"
        code = worker.kill()
        if worker.why_killed:
            why = f"it was killed for its use of {worker.why_killed}"
        elif not why:
            number = -code if code < 0 else code - 128
            why = f"it exited with status {code} (os._exit, or a crash in native code)"
            if 0 < number < 65:
                why = f"signal {number} ended it (9: killed, often for memory; 11: crash, often endless recursion)"
        when = "after the last action" if between else "in the middle of the action"
        return WorkerLost(f"The Python process ended {when}: {why}. {self._restarted(next_told=between)}")

    # Host calls

    def _dispatch(self, action: Action, message: dict[str, Any]) -> None:
        if type(message.get("id")) is not int or type(message.get("name")) is not str:
            raise Breach("it sent a call without an id or a name")
        if message.get("n") != action.number:
            raise Breach("it sent a call of another action")
        action.call_begins()
        self._submit(action, message)

    def _submit(self, action: Action, message: dict[str, Any], call: Parking | None = None) -> None:
        context = contextvars.copy_context()
        self._pool.submit(lambda: context.run(self._serve, action, message, call))

    def _use(self, tool: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The call itself; where code runs elsewhere there is more to do around it."""
        return tool(*args, **kwargs)

    def _serve(self, action: Action, message: dict[str, Any], call: Parking | None = None) -> None:
        """A host call, on a thread of the pool. Its reply goes to the worker that asked, if its action still lives.

        Args:
            call (`Parking`, *optional*): The same call, which has waited, and goes on.
        """
        RUNNING.set(action)
        reply: dict[str, Any] = {"op": "reply", "id": message["id"]}
        name = message["name"]
        try:
            try:
                tool = self.static_tools[name]
            except KeyError:
                raise NameError(f"there is no tool named {name!r}") from None
            args, kwargs = self._results.decode(message.get("args")), self._results.decode(message.get("kwargs"))
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                raise TypeError("a call has a list of arguments and a dict of named ones")
            go_on = call.go_on if call is not None else None
            value = self._use(tool, args, kwargs) if go_on is None else self._use(go_on, [], {})
            if name == "final_answer":
                with action.lock:
                    if not action.answered:
                        action.answered, action.answer = True, value
                reply["final"] = True
            else:
                reply["value"] = self._results.encode(value)
        except Parking as parking:
            if action.gives_way and parking.go_on is not None:
                action.hold(message, parking)
                self._shelter.wake()
                return
            reply["error"] = describe_error(parking, self._results)
        except BaseException as error:  # noqa: BLE001 - a tool's failure is the code's to handle, whatever it is
            reply["error"] = describe_error(error, self._results)
        action.call_ends()
        if action.over:
            return
        try:
            try:
                action.worker.send(reply)
            except ValueError as error:  # too long
                action.worker.send({**reply, "value": None, "error": describe_error(error, self._results)})
        except BrokenPipeError:
            pass
        except Breach as breach:
            action.worker.kill(f"time: {breach}")


def _raise(error: Exception) -> JailOutput:
    raise error


def _is_data(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in DATA_PACKAGES
