"""`E2BExecutor`: an agent's code in an E2B sandbox, its tool calls on this machine all the same."""

from __future__ import annotations

import json
import shlex
import threading
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_intern.execution.action import Action, Hold
from ml_intern.execution.e2b_process import FAILURES, RemoteProcess, within
from ml_intern.execution.e2b_sandbox import CALL_SECONDS, CloudSandbox, E2BUnavailable, explained, this_machine
from ml_intern.execution.e2b_sync import Mirror, SyncedWorkspace, joined
from ml_intern.execution.executor import InterpreterError, JailExecutor, JailOutput
from ml_intern.execution.gpus import Gpus
from ml_intern.execution.jail import BOOT, PROGRAM, Jail, Limits
from ml_intern.execution.process import WorkerProcess
from ml_intern.execution.restart import read_saved
from ml_intern.execution.values import to_line
from ml_intern.execution.workspace import Workspace

TEMPLATE = "code-interpreter-v1"
# Its own process group, so that what it started can be ended with it.
GROUP = "import os\nif os.getpid() != os.getpgid(0): os.setpgid(0, 0)\n"
MARK = "ml-intern-worker"
SNAPSHOT_SECONDS = 1.0
"""After an action, its variables are saved there; then they are fetched, while the model thinks."""


@dataclass(frozen=True)
class CloudJail(Jail):
    """The same worker, started in a sandbox."""

    box: CloudSandbox

    @property
    def on_this_disk(self) -> bool:
        return False

    def inside(self, root: Path) -> str:
        self.box.ensure()
        return f"{self.box.home}/workspace"

    def start(
        self, root: Path, scratch: Path | None, limits: Limits, snapshots: Path | None = None,
        variables: Mapping[str, str] | None = None, door: int | None = None, packages: Path | None = None,
        gpus: Gpus | None = None, kept: Sequence[Path] = (), **pipes: int
    ) -> Any:  # fmt: skip
        box = self.box
        sandbox = box.ensure()
        try:
            return self._start(sandbox, root, limits, snapshots, dict(variables or {}), pipes)
        except FAILURES as error:
            box.kill()
            raise explained(error) from error

    def _start(
        self, sandbox: Any, root: Path, limits: Limits, snapshots: Path | None, variables: dict[str, str],
        pipes: dict[str, int]
    ) -> RemoteProcess:  # fmt: skip
        box, own = self.box, f"{self.box.home}/.ml-intern"
        met = self._met(sandbox) if box.woken else None
        box.woken, box.met = False, met is not None
        if met is not None:
            hello = to_line({"op": "hello", "pid": met.pid, "realm": ""})
            box.process = RemoteProcess(sandbox, met, box.busy, pipes, greeting=hello)
            return box.process
        for mirror in box.mirrors.values():
            mirror.push()
        program = [{"path": f"{own}/{path.name}", "data": path.read_bytes()} for path in PROGRAM]
        within(CALL_SECONDS, sandbox.files.write_files, program)
        config = {
            "cwd": self.inside(root),
            "memory": limits.memory_bytes,
            "processes": limits.processes,
            "file": limits.file_bytes,
            "variables": {} if box.internet else variables,
            "door": None,
            "snapshots": f"{own}/snapshots" if snapshots is not None else None,
            "packages": f"{own}/packages" if "packages" in box.mirrors else None,
        }
        command = ["python3", "-s", "-P", "-c", GROUP + BOOT, *(f"{own}/{path.name}" for path in PROGRAM)]
        environment = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg",
                       "PYTHONWARNINGS": "ignore:FigureCanvasAgg is non-interactive:UserWarning", "ROLE": MARK}  # fmt: skip
        handle = within(
            CALL_SECONDS,
            sandbox.commands.run,
            f"exec {shlex.join([*command, json.dumps(config)])}",
            background=True,
            stdin=True,
            envs=environment,
            timeout=0,
            retain_output=False,
        )
        box.process = RemoteProcess(sandbox, handle, box.busy, pipes)
        return box.process

    def _met(self, sandbox: Any) -> Any:
        """The worker of a sandbox that was asleep, if it is there."""
        for one in within(CALL_SECONDS, sandbox.commands.list):
            if one.envs.get("ROLE") == MARK:
                return within(CALL_SECONDS, sandbox.commands.connect, one.pid, timeout=0, retain_output=False)
        return None


class E2BExecutor(JailExecutor):
    """Runs an agent's code in an E2B sandbox; its tool calls come back to the host.

    Takes the place of a [`JailExecutor`], where no jail works or code is to run on other people's machines: the same
    worker, over a command's stdin and stdout. The files of the workspace are kept alike in both places. The client is
    E2B's own, and reads `E2B_API_KEY` and its other variables from the environment.

    Args:
        workspace (`Workspace`, *optional*): The folder on this machine whose copy the code works in; a temporary one if
            none is given.
        template (`str`, defaults to `"code-interpreter-v1"`): What the sandbox is made from; needs Python 3.11.
        sandbox_seconds (`int`, defaults to 600): How long E2B keeps the sandbox once this process gives no sign of life.
        session (`str`, *optional*): Name of the session. A sandbox that slept under that name is woken, with its
            variables; one that was left behind under it is killed.
        owner (`str`, *optional*): Whose left-behind sandboxes are looked for and killed at the start; this user on this
            machine if not given.
        metadata (`dict[str, str]`, *optional*): More labels of the sandbox.
        allow_internet_access (`bool`, defaults to `False`): Whether code may use the internet.
        pause_on_cleanup (`bool`, defaults to `False`): Put the sandbox to sleep instead of killing it when the session
            ends or is closed; needs `session`.
        api (`dict[str, Any]`, *optional*): For the client: `api_key`, `domain`, `proxy`.
        kwargs: As for [`JailExecutor`]: `max_print_outputs_length`, `timeout_seconds`, `additional_functions`,
            `memory_bytes`, `processes`, `on_output`, `snapshots`, `packages` (what was installed for the session is
            copied there; what is compiled needs the same Python there). `disk_bytes` is of no account there. Of
            `network`, `"full"` is the internet, and all else none: the host's door to the Hub does not reach there.
    """

    def __init__(
        self,
        workspace: Workspace | None = None,
        *,
        template: str = TEMPLATE,
        sandbox_seconds: int = 600,
        session: str = "",
        owner: str = "",
        metadata: dict[str, str] | None = None,
        allow_internet_access: bool = False,
        pause_on_cleanup: bool = False,
        api: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("unsafe_local", None)  # of other jails
        if kwargs.pop("gpus", False):
            raise ValueError("An E2B sandbox has no GPU: leave `gpus` out, or use the local jail.")
        if kwargs.pop("hosts", ()):
            raise ValueError(
                "An E2B sandbox has the whole internet (`allow_internet_access=True`) or none, not named hosts."
            )
        if pause_on_cleanup and not session:
            raise ValueError("`pause_on_cleanup` needs `session`: without a name nobody finds the sandbox again.")
        self.box = CloudSandbox(
            template=template,
            seconds=sandbox_seconds,
            owner=owner or this_machine(),
            session=session,
            internet=kwargs.pop("network", "none") == "full" or allow_internet_access,
            metadata=metadata or {},
            options=api or {},
        )
        super().__init__(workspace, jail=CloudJail("e2b", self.box), network="none", **kwargs)
        self.pause_on_cleanup = pause_on_cleanup
        acting = self._acting = threading.Event()
        self._given_up = threading.Event()
        self.box.busy = acting.is_set
        self._workspace_mirror: Mirror | None = None
        self._snapshots_mirror: Mirror | None = None
        self._met = False
        self._later: threading.Timer | None = None
        self._leaver = weakref.finalize(self, self.box.pause if pause_on_cleanup else self.box.kill)

    @property
    def workspace(self) -> Workspace:
        with self._starting:
            base = super().workspace
            if not isinstance(base, SyncedWorkspace):
                base = self._workspace = SyncedWorkspace(base.root, base.inside)
            return base

    def interrupt(self) -> None:
        """Interrupts the running action, and files that are on their way here after it."""
        self._given_up.set()
        super().interrupt()

    def leave(self) -> None:
        """Ends the worker, whatever it does; files that the action wrote still come here."""
        JailExecutor.interrupt(self)
        with self._starting:
            self._shelter.end_worker()

    def pause(self) -> None:
        """Puts the sandbox to sleep with its variables, between actions; the next action wakes it."""
        with self._running:
            self.box.pause()

    def cleanup(self) -> None:
        """Kills the sandbox, or puts it to sleep (`pause_on_cleanup`). The executor may be used again."""
        self.interrupt()
        with self._running:
            if self._later is not None:
                self._later.cancel()
            if not self._own_snapshots:
                self._fetch(self._snapshots_mirror)
            if self.pause_on_cleanup:
                self.box.pause()
            else:
                self.box.kill()
            if self.box.process is not None:
                self.box.process.lose("")  # what sleeps is met again by name
            self.box.gone()
        super().cleanup()

    # The worker

    def _worker(self) -> WorkerProcess:
        self.box.wake()
        if self._later is not None:
            self._later.cancel()
        try:
            worker = super()._worker()
            for mirror in self.box.mirrors.values():
                mirror.push()
        except FAILURES as error:
            if isinstance(error, E2BUnavailable):
                raise
            self._lose()
            raise explained(error) from error
        return worker

    def _new_worker(self, jail: Jail, workspace: Workspace) -> WorkerProcess:
        if self.box.process is not None and self.box.process.lost:
            self._lose()
        self.box.ensure()
        folder = self._snapshots_folder()
        if "workspace" not in self.box.mirrors:
            given_up = self._given_up.is_set
            self._workspace_mirror = Mirror(Workspace(workspace.root), given_up=given_up)
            self._snapshots_mirror = Mirror(Workspace(folder))
            self.box.settle("workspace", self._workspace_mirror, f"{self.box.home}/workspace")
            self.box.settle("snapshots", self._snapshots_mirror, f"{self.box.home}/.ml-intern/snapshots")
            if self.packages is not None:
                self.packages.mkdir(parents=True, exist_ok=True)
                self.box.settle("packages", Mirror(Workspace(self.packages)), f"{self.box.home}/.ml-intern/packages")
        if isinstance(workspace, SyncedWorkspace):
            workspace.mirror = self._workspace_mirror
        woken = self.box.woken
        self._fetch(self._snapshots_mirror)
        worker = super()._new_worker(jail, workspace)
        self._met = woken and self.box.met
        if self._met and (saved := read_saved(folder)) is not None:
            self._number = max(self._number, saved.action + 1)
        return worker

    def _restore(self, worker: WorkerProcess) -> bool:
        return self._met or super()._restore(worker)  # what was met has its variables

    def _lose(self) -> None:
        """Gives up on the sandbox: it is killed, if it is still there, and the next action gets another one."""
        self.box.kill()

    def _fetch(self, mirror: Mirror | None) -> str:
        """What changed there comes here, if it can; why it cannot."""
        try:
            if mirror is not None:
                mirror.pull()
        except (*FAILURES, ValueError) as error:
            return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return ""

    # An action

    def _run(self, code: str, gives_way: bool = False) -> Generator[Hold, None, JailOutput]:
        self._acting.set()
        self._given_up.clear()
        note = ""
        try:
            output = yield from super()._run(code, gives_way)
        finally:
            self._acting.clear()
            if why := self._fetch(self._workspace_mirror):
                note = f"(Files of this action stay in the sandbox: {why})\n"
            elif self._workspace_mirror is not None and self._workspace_mirror.left_out:
                left = joined(self._workspace_mirror.left_out)
                note = f"(Too large to come out of the sandbox, and only there: {left})\n"
            self.state["_print_outputs"] += note
            self._later = threading.Timer(SNAPSHOT_SECONDS, self._fetch, (self._snapshots_mirror,))
            self._later.daemon = True
            self._later.start()
        output.logs += note
        return output

    def _use(self, tool: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        workspace = self.workspace
        if not isinstance(workspace, SyncedWorkspace):
            return super()._use(tool, args, kwargs)
        with workspace.using():
            return super()._use(tool, args, kwargs)

    def _died(self, worker: WorkerProcess, why: str = "", *, between: bool = False) -> InterpreterError:
        process = self.box.process
        if not why and process is not None and process.lost:
            why = process.lost
        return super()._died(worker, why, between=between)

    def _restarted(self, *, next_told: bool = False) -> str:
        self._fetch(self._snapshots_mirror)
        return super()._restarted(next_told=next_told)


__all__ = ["Action", "E2BExecutor", "E2BUnavailable"]
