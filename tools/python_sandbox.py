"""Run Python in a sandbox of its own: at E2B with a key, else in a jail on this machine."""

from typing import Any

from smolagents import Tool


class PythonSandboxTool(Tool):
    """Isolated, stateful Python for any agent, with what a notebook shows: text, pictures, charts.

    With `E2B_API_KEY` cells run in an E2B code interpreter, through its official client; without one, in what an agent
    of this project brings along. Either way nothing of the agent's is in reach, nor is the internet.

    Args:
        workspace (*optional*): Where files come from and go to, with `relative(path)`, `read_bytes(path)` and
            `write_bytes(path, data)`.
        runner (*optional*): Runs cells where there is no key, with `run(code, seconds)`, `restart()`, `files()`,
            `read(path, limit)` and `write(path, data)`.
    """

    name = "python_sandbox"
    description = (
        "Runs Python in an isolated sandbox without internet: a separate process with its own files. Variables, imports "
        "and files stay from call to call. Gives what is printed, the value of the last line, pictures of matplotlib "
        "figures (PNG in base64) and what they plot. For code that nothing else should be near, or that may crash."
    )
    inputs = {
        "code": {"type": "string", "description": "Python, as in a cell of a notebook."},
        "timeout": {"type": "number", "description": "Seconds it may take (default 60).", "nullable": True},
        "upload": {
            "type": "array",
            "description": "Files of the workspace to copy into the sandbox first, same paths there (default none).",
            "nullable": True,
        },
        "download": {
            "type": "array",
            "description": "Files of the sandbox to copy into the workspace afterwards (default none).",
            "nullable": True,
        },
        "restart": {
            "type": "boolean",
            "description": "Begin with a new sandbox: no variables, no files (default False).",
            "nullable": True,
        },
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "stdout": {"type": "string"},
            "stderr": {"type": "string"},
            "text": {"type": ["string", "null"], "description": "The value of the last line, as text."},
            "results": {
                "type": "array",
                "description": "What the last line and display() show: text, html, markdown, svg, png and jpeg (base64), "
                "latex, json, data (a DataFrame's columns), chart (what a figure plots).",
                "items": {"type": "object"},
            },
            "error": {
                "type": ["object", "null"],
                "description": "TimeoutError: stopped; its value says whether variables are kept.",
                "properties": {
                    "name": {"type": "string"},
                    "value": {"type": "string"},
                    "traceback": {"type": "string"},
                },
            },
            "duration": {"type": "number", "description": "Seconds."},
            "files": {
                "type": "array",
                "description": "What the code wrote or changed in its folder.",
                "items": {
                    "type": "object",
                    "properties": {"path": {"type": "string"}, "size": {"type": "integer"}},
                },
            },
        },
    }
    # Not "read", though it reaches nothing: with a key, code and uploaded files go to the user's account at E2B, which
    # also costs money.
    effects = "execute"

    def __init__(self, workspace=None, runner=None, model_repo_id=None):
        import threading

        super().__init__()
        self.workspace = workspace
        self.runner = runner
        self.kept: dict = {}  # of the sandbox at E2B; shared by the copies that a router makes for single calls
        self.lock = threading.Lock()

    def forward(
        self,
        code: str,
        timeout: float | None = 60.0,
        upload: list | None = None,
        download: list | None = None,
        restart: bool | None = False,
    ) -> dict:
        import os
        import time

        seconds = 60.0 if timeout is None else float(timeout)
        if not 0 < seconds <= 3600:
            raise ValueError(f"`timeout` is a number of seconds up to 3600, not {timeout!r}.")
        upload = [upload] if isinstance(upload, str) else upload or []
        download = [download] if isinstance(download, str) else download or []
        if (upload or download) and self.workspace is None:
            raise RuntimeError(
                "python_sandbox has no workspace for `upload` and `download`. Make it with PythonSandboxTool(workspace=...)."
            )
        with_key = bool(os.environ.get("E2B_API_KEY"))
        if not with_key and self.runner is None:
            raise RuntimeError(
                "python_sandbox has nowhere to run code. Set E2B_API_KEY (https://e2b.dev/dashboard), use it in an "
                "InternAgent, which brings a local sandbox, or make it with PythonSandboxTool(runner=...)."
            )
        sent = {}
        for path in upload:
            sent[self.workspace.relative(path)] = self.workspace.read_bytes(path, 200_000_000)
        with self.lock:
            started = time.monotonic()
            if with_key:
                reports, files, got = self._in_thread(self._at_e2b(code, seconds, sent, download, bool(restart)))
            else:
                reports, files, got = self._here(code, seconds, sent, download, bool(restart))
            duration = time.monotonic() - started
        for path, data in got.items():
            self.workspace.write_bytes(path, data)
        return self._answer(reports, files, duration)

    def _answer(self, reports: list, files: dict, duration: float) -> dict:
        text, results, error = None, [], None
        for report in reports:
            if report["type"] == "result":
                shown = {}
                for key, value in report.items():
                    if value is not None and key not in ("type", "is_main_result", "extra"):
                        shown[key] = value
                results.append(shown)
                if report.get("is_main_result"):
                    text = report.get("text")
            elif report["type"] == "error":
                error = {key: str(report.get(key) or "") for key in ("name", "value", "traceback")}
        return {
            "stdout": "".join([report["text"] for report in reports if report["type"] == "stdout"]),
            "stderr": "".join([report["text"] for report in reports if report["type"] == "stderr"]),
            "text": text,
            "results": results,
            "error": error,
            "duration": round(duration, 3),
            "files": [{"path": path, "size": files[path][0]} for path in sorted(files)],
        }

    def _here(self, code: str, seconds: float, sent: dict, download: list, restart: bool) -> tuple:
        if restart:
            self.runner.restart()
        for path, data in sent.items():
            self.runner.write(path, data)
        before = self.runner.files()
        reports = self.runner.run(code, seconds)
        after = self.runner.files()
        changed = {path: mark for path, mark in after.items() if before.get(path) != mark}
        got = {}
        for path in download:
            if path not in after:
                raise FileNotFoundError(self._not_there(path, after))
            got[path] = self.runner.read(path, 200_000_000)
        return reports, changed, got

    def _not_there(self, path: str, files: dict) -> str:
        return (
            f"There is no {path!r} in the sandbox to download. It has: {', '.join(sorted(files)[:20]) or 'no files'}."
        )

    def _in_thread(self, work: Any) -> Any:
        """Runs a coroutine on a thread of its own: the caller may itself be inside an event loop."""
        import queue
        import threading

        answers: Any = queue.SimpleQueue()
        threading.Thread(target=self._work, args=(answers, work), daemon=True).start()
        answer, error = answers.get()
        if error is not None:
            raise error
        return answer

    def _work(self, answers: Any, work: Any) -> None:
        import asyncio

        try:
            answers.put((asyncio.run(work), None))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it, which raises it
            answers.put((None, error))

    # smolagents' check of a tool's class takes plain assignments in coroutines for the class's own: they are annotated.

    async def _at_e2b(self, code: str, seconds: float, sent: dict, download: list, restart: bool) -> tuple:
        import asyncio

        import e2b
        from e2b_code_interpreter import AsyncSandbox

        try:
            sandbox, lost = await asyncio.wait_for(self._sandbox(AsyncSandbox, seconds, restart), 90)
            for path, data in sent.items():
                await asyncio.wait_for(sandbox.files.write(f"/home/user/{path}", data), 300)
            known: dict | None = self.kept.get("files")
            before: dict = await self._files(sandbox) if known is None or sent else known
            reports: list = await self._cell(sandbox, code, seconds)
            if "id" not in self.kept:  # it was lost meanwhile
                return reports, {}, {}
            if lost:
                reports.insert(
                    0, {"type": "stdout", "text": "(The sandbox before this one is gone, with all in it.)\n"}
                )
            after: dict = await self._files(sandbox)
            self.kept["files"], got = after, {}
            for path in download:
                if path not in after:
                    raise FileNotFoundError(self._not_there(path, after))
                content: Any = await asyncio.wait_for(sandbox.files.read(f"/home/user/{path}", format="bytes"), 300)
                got[path] = bytes(content)
            return reports, {path: mark for path, mark in after.items() if before.get(path) != mark}, got
        except e2b.AuthenticationException as error:
            raise PermissionError(
                f"E2B refused the key ({error}). Set E2B_API_KEY to a valid one: https://e2b.dev/dashboard"
            ) from error
        except e2b.RateLimitException as error:
            raise ConnectionError(
                f"E2B limits your sandboxes or requests ({error}). Try again in a minute."
            ) from error
        except self._failures() as error:
            raise ConnectionError(
                f"The sandbox at E2B does not answer ({type(error).__name__}: {error}). Try again; the next call takes a "
                "new one if it is gone."
            ) from error

    async def _sandbox(self, sandbox_class: Any, seconds: float, restart: bool) -> tuple:
        """The sandbox of the calls before, else a new one; and whether one was lost."""
        import e2b

        seconds_kept: int = int(seconds) + 600  # after the last call; E2B kills it then
        identity: str = self.kept.pop("id", "")
        if identity and restart:
            await sandbox_class.kill(identity)
        elif identity:
            try:
                found: Any = await sandbox_class.connect(identity, timeout=seconds_kept)
                self.kept["id"] = identity
                return found, False
            except e2b.NotFoundException:
                pass
        made: Any = await sandbox_class.create(
            timeout=seconds_kept, allow_internet_access=False, metadata={"tool": "python_sandbox"}
        )
        self.kept["id"], self.kept["files"] = made.sandbox_id, None
        if not self.kept.get("closes"):
            import atexit

            self.kept["closes"] = True
            atexit.register(self.close)
        return made, bool(identity and not restart)

    async def _cell(self, sandbox: Any, code: str, seconds: float) -> list:
        """Runs a cell under a deadline of its own: the client's `timeout` fires at up to twice the time."""
        import asyncio

        import e2b
        import httpx

        reports: list = []
        room: dict = {"stdout": 1_000_000, "stderr": 1_000_000, "all": 50_000_000}

        def keep(message: Any) -> None:
            kind = "stderr" if message.error else "stdout"
            if room[kind] > 0:
                reports.append({"type": kind, "text": message.line[: room[kind]]})
                if len(message.line) > room[kind]:
                    reports.append({"type": kind, "text": "\n(the rest of it was left out)\n"})
            room[kind] -= len(message.line)
            room["all"] -= len(message.line)
            if room["all"] < 0:  # the client keeps it all, so this ends it
                raise OverflowError

        try:
            run: Any = sandbox.run_code(code, on_stdout=keep, on_stderr=keep, timeout=0)
            execution: Any = await asyncio.wait_for(run, seconds)
        except TimeoutError:  # the connection is closed now, which interrupts the cell
            said: str = f"It took more than {seconds:g} seconds and was stopped. {await self._recovered(sandbox)}"
            return [*reports, {"type": "error", "name": "TimeoutError", "value": said}]
        except OverflowError:
            much: str = f"It printed more than 50 MB and was stopped. {await self._recovered(sandbox)}"
            return [*reports, {"type": "error", "name": "OverflowError", "value": much}]
        except (e2b.TimeoutException, e2b.NotFoundException, httpx.TransportError) as error:
            if await self._is_there(sandbox):
                raise
            self.kept.pop("id", None)
            why: str = (
                f"The sandbox is gone: it was killed, or its time was up ({error}). The next call takes a new one."
            )
            return [*reports, {"type": "error", "name": "ProcessLost", "value": why}]
        for result in execution.results:
            shown: dict = {"type": "result", **vars(result), "is_main_result": result.is_main_result}
            if shown.get("chart") is not None:
                shown |= {"chart": shown["chart"].to_dict()}
            reports.append(shown)
        if execution.error is not None:
            reports.append({"type": "error", **vars(execution.error)})
        return reports

    def _failures(self) -> tuple:
        """What the client raises when something between here and the sandbox goes wrong; it wraps only some of it."""
        import json

        import e2b
        import httpx
        from connectrpc.errors import ConnectError

        wrapped = (e2b.SandboxException, e2b.ServiceBusyException)
        return (*wrapped, ConnectError, httpx.TransportError, json.JSONDecodeError, ConnectionError, TimeoutError)

    async def _is_there(self, sandbox: Any) -> bool:
        import asyncio

        try:
            return await asyncio.wait_for(sandbox.is_running(), 10)
        except self._failures():
            return False

    async def _recovered(self, sandbox: Any) -> str:
        """After a cell was stopped. What is sent at once would hang, so it waits, then looks, then starts Python anew."""
        import asyncio

        for pause in (0.7, 0.3):
            await asyncio.sleep(pause)
            try:
                probe: Any = await asyncio.wait_for(sandbox.run_code("0", timeout=0), 1)
                if (probe.execution_count or 0) > 1:
                    return "Variables are kept."
                return "Python had to be started anew: variables are gone, files are still there."
            except self._failures():
                continue
        try:
            contexts: list = await asyncio.wait_for(sandbox.list_code_contexts(), 10)
            for context in contexts:
                await asyncio.wait_for(sandbox.restart_code_context(context), 20)
            return "Python had to be started anew: variables are gone, files are still there."
        except self._failures():
            self.kept.pop("id", None)
            return "The sandbox had to be given up: variables and files are gone."

    async def _files(self, sandbox: Any) -> dict:
        """Size and time of change of what lies in the sandbox's home, hidden files left out."""
        import asyncio

        command: str = "find . -mindepth 1 -name '.*' -prune -o -type f -printf '%P\\0%s\\0%T@\\0' | head -c 1000000"
        try:
            done: Any = await asyncio.wait_for(sandbox.commands.run(command, cwd="/home/user", timeout=30), 40)
        except self._failures():  # only the list is missing then; a sandbox that is gone shows at the next call
            return {}
        parts: list = done.stdout.split("\0")
        return {parts[i]: (int(parts[i + 1]), parts[i + 2]) for i in range(0, len(parts) - 2, 3)}

    def close(self) -> None:
        """Kills the sandbox at E2B, if there is one, and ends the local one."""
        identity = self.kept.pop("id", None)
        if identity:
            import e2b

            try:
                e2b.Sandbox.kill(identity, request_timeout=10)
            except (*self._failures(), e2b.AuthenticationException):
                pass  # not to be reached, or not with the key of now: its own clock ends it
        if self.runner is not None:
            self.runner.close()
