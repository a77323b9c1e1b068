"""Sessions that are killed: each runs in a fork of this process, an unmodified `MLIntern`, and kills itself at a chosen point.

`python crash_child.py` takes lines of JSON ([`Errand`]) on standard input and answers each with one when its fork has ended.
A fork costs milliseconds where a new interpreter with all imports costs seconds.

The points are functions of the product, seen by the interpreter's own tracing: nothing is patched. `Journal._write` is called
once a row and returns when the kernel has it; so its n-th call and its n-th return are the two sides of every row boundary.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ml_intern.tools import HubPushTool
from smolagents import LogLevel, Model, Tool, ToolCallingAgent
from smolagents.models import (
    ChatMessage,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    MessageRole,
    TokenUsage,
)

from ml_intern import InternError, MLIntern
from ml_intern.context.summary import ASK
from ml_intern.events import ApprovalAnswer, ApprovalRequest, StepFinished
from ml_intern.trace import note_of, read_rows

LINES = (
    "session",
    "turns",
    "waiting",
    "wake",
    "settling",
    "subagents",
    "runs",
    "workshop",
    "router",
    "frozen",
    "agent",
    "journal",
    "recorder",
    "reopen",
    "gate",
    "sharing",
    "share",
)
"""Modules whose lines count where the point is a line."""
STEPS = 10


@dataclass(frozen=True)
class Errand:
    """One process of a session.

    Args:
        home (`str`): The home of its session.
        service (`str`): Address of the parent's [`Services`].
        name (`str`): Ends the names of its repositories.
        session_id (`str`): Which one to resume; `""` begins one.
        point (`str`): Where to be killed: `"Journal._write"` and the like, `"line"`, or `""` for nowhere.
        side (`str`): `call` or `return`, of that function.
        number (`int`): The how many-th.
        delay (`float`): Seconds after it.
        person (`str`): `attends` (is asked by a function), `answers` (from elsewhere), or `sleeps`: thread and jail are given
            up as soon as a person is waited for.
        below (`bool`): The calls that count are made by a sub-agent.
    """

    home: str
    service: str
    name: str
    session_id: str = ""
    point: str = ""
    side: str = "call"
    number: int = 0
    delay: float = 0.0
    person: str = "answers"
    below: bool = False


def code(text: str) -> str:
    return f"Go on.\n<code>\n{text}\n</code>"


def push(name: str) -> str:
    return f"hub_push(folder='out', repo_id='tester/' + kind + '-{name}', repo_type='dataset', card='# ' + kind)"


def script(name: str, left: list[str]) -> dict[int, str]:
    """What each step does; all of it may be done again after a crash but for the calls that went out."""
    return {
        1: "plan(items=[{'text': 'measure', 'status': 'in_progress'}, 'publish'])\nprint('done', 1)",
        2: "a = 7\nprint(notes(add='seed 7'))\nprint('done', 2)",
        3: "a = globals().get('a', 7)\nb = a * 6\nimport os\nos.makedirs('out', exist_ok=True)\n"
        "open('out/figure.txt', 'w').write(str(b))\nprint('done', 3)",
        4: "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n    print(*pool.map("
        f"lambda kind: {push(name)}, {left}), sep='\\n')\nprint('done', 4)",
        5: f"kind = 'asked'\nprint({push(name)})\n" + "\nprint('done', 5)",
        6: f"kind = 'ruled'\nprint({push(name)})\n" + "\nprint('done', 6)",
        7: f"print(job(kind='train-{name}'))\nprint('done', 7)",
        8: "print(announce(text='it runs'))\nprint('done', 8)",
        9: "plan(items=[{'text': 'measure', 'status': 'done'}, {'text': 'publish', 'status': 'done'}])\nprint('done', 9)",
        10: "a, b = globals().get('a', 7), globals().get('b', 42)\nfinal_answer([a, b, open('out/figure.txt').read()])",
    }


CALLS = {
    2: r"`notes`",
    5: r"`hub_push`[^\n]*asked-",
    6: r"`hub_push`[^\n]*ruled-",
    7: "`job`",
    8: "`announce`",
}
HAPPENED = r"(?=[^\n]*(?: returned:| had taken effect))"


def done(seen: str) -> set[int]:
    """The steps that have happened as far as one can read."""
    found = {int(number) for number in re.findall(r"\bdone (\d+)", seen)}
    found |= {step for step, call in CALLS.items() if re.search(rf"^- {HAPPENED}{call}", seen, re.MULTILINE)}
    found |= set() if missing(seen) else {4}
    return found | ({8} if "`announce` was not called (again)" in seen else set())


def missing(seen: str) -> list[str]:
    """What of the two pushes at once did not happen."""
    return [
        kind
        for kind in ("allowed", "second")
        if not re.search(rf"^- {HAPPENED}`hub_push`[^\n]*{kind}-", seen, re.MULTILINE)
    ]


class Worker(Model):
    """Answers from what it is sent alone, as a model does: from what it sees done it knows what comes next."""

    def __init__(self, errand: Errand) -> None:
        super().__init__(model_id="worker")
        self.errand = errand

    def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
        said = [
            text_of(message) for message in messages if message.role not in (MessageRole.ASSISTANT, MessageRole.SYSTEM)
        ]
        seen = done("\n".join(said))
        if ASK[:40] in said[-1]:
            words = "Made so far: " + ", ".join(f"done {step}" for step in sorted(seen))
        else:
            step = next((step for step in range(1, STEPS + 1) if step not in seen), 0)
            post(self.errand, "/thought", {"step": step})
            text = "\n".join(said)
            words = code(script(self.errand.name, missing(text))[step])
            if self.errand.below and step in (4, *CALLS):
                words = code(f"print(helper(task='do: {' '.join(wanted(text))}'))") if step != 2 else words
        time.sleep(0.02)  # variables are saved meanwhile
        return ChatMessage(MessageRole.ASSISTANT, words, token_usage=TokenUsage(100, 10))


def wanted(seen: str) -> list[str]:
    """What a sub-agent still has to do."""
    so_far = done(seen)
    rest = {5: "asked", 6: "ruled", 7: "job", 8: "announce"}
    return [*(missing(seen) if 4 not in so_far else []), *(what for step, what in rest.items() if step not in so_far)]


class Helper(Model):
    """A sub-agent that makes one call after the other, as its task says, and reports what came back."""

    def __init__(self, errand: Errand) -> None:
        super().__init__(model_id="helper")
        self.errand = errand

    def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
        name = self.errand.name
        task = next(text_of(message) for message in messages if "do: " in text_of(message))
        things = re.search(r"do: ([a-z ]+)", task)[1].split()
        came = [text_of(message) for message in messages if message.role == MessageRole.TOOL_RESPONSE]
        number = sum(message.role == MessageRole.ASSISTANT for message in messages)
        if number >= len(things):
            report = [
                f"- `{_tool(thing)}` returned: {' '.join(text.split())}"
                for thing, text in zip(things, came, strict=True)
            ]
            called, given = "final_answer", {"answer": "\n" + "\n".join(report)}
        else:
            called, given = _tool(things[number]), self._arguments(things[number], name)
        time.sleep(0.01)
        call = ChatMessageToolCall(ChatMessageToolCallFunction(given, called), f"c{number}", "function")
        return ChatMessage(MessageRole.ASSISTANT, f"Calling {called}.", [call], token_usage=TokenUsage(100, 10))

    def _arguments(self, thing: str, name: str) -> dict[str, Any]:
        if thing == "job":
            return {"kind": f"train-{name}"}
        if thing == "announce":
            return {"text": "it runs"}
        repo = f"tester/{thing}-{name}"
        return {"folder": "out", "repo_id": repo, "repo_type": "dataset", "card": f"# {thing}"}


def _tool(thing: str) -> str:
    return thing if thing in ("job", "announce") else "hub_push"


class Job(Tool):
    """Starts a job of the parent's service, under its call's id."""

    name, description, output_type, effects = "job", "Starts a job.", "object", "spend"
    inputs: dict = {"kind": {"type": "string", "description": "What kind."}}

    def __init__(self, workspace: Any = None, errand: Errand | None = None) -> None:
        super().__init__()
        self.workspace, self.call_id, self.errand = workspace, None, errand

    def forward(self, kind: str) -> dict:
        return post(self.errand, "/jobs", {"kind": kind, "key": self.call_id})

    def estimate_cost(self, kind: str) -> float:
        return 0.5

    def reconcile(self, call_id: str, kind: str) -> dict | None:
        return post(self.errand, "/find", {"kind": kind, "key": call_id}).get("job")


class Announce(Tool):
    """Writes where nobody can be asked afterwards whether it did: a person has to look."""

    name, description, output_type, effects = "announce", "Announces.", "string", "write"
    inputs: dict = {"text": {"type": "string", "description": "What."}}

    def __init__(self, errand: Errand | None = None) -> None:
        super().__init__()
        self.errand = errand

    def forward(self, text: str) -> str:
        return str(post(self.errand, "/announcements", {"name": self.errand.name, "text": text}))


def post(errand: Errand | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    assert errand is not None
    data = json.dumps({"run": errand.name, **body}).encode()
    with urllib.request.urlopen(urllib.request.Request(errand.service + path, data), timeout=20) as answer:
        return json.load(answer)


def text_of(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.get("text", "") for part in message.content or [])


# Being killed.


class Trap:
    """Kills this process at its errand's point, and counts what was passed; keeps how much of the trace is on the disk."""

    def __init__(self, errand: Errand) -> None:
        self.errand, self.passed = errand, Counter()
        name = errand.point.rpartition(".")[2]
        self._names = {"_write", "sync"} | {name}
        self._files = {f"/{module}.py" for module in LINES}
        options = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._syncs = [os.open(Path(errand.home) / name, options, 0o600) for name in ("syncs", "syncs-below")]
        self._lock = threading.Lock()

    def set(self) -> None:
        threading.settrace(self._called)
        sys.settrace(self._called)

    def _called(self, frame: Any, event: str, arg: Any) -> Any:
        at = frame.f_code
        if self.errand.point == "line":
            if at.co_filename.endswith(tuple(self._files)) and "/ml_intern/" in at.co_filename:
                return self._inside
            return None
        if at.co_name in self._names:
            name = _qualified(frame)
            self._pass(name, "call")
            return self._inside
        return None

    def _inside(self, frame: Any, event: str, arg: Any) -> Any:
        if event == "return":
            name = _qualified(frame)
            if name in ("Journal.sync", "SidechainJournal.sync"):
                journal = frame.f_locals["self"]
                os.write(self._syncs[journal.sidechain], _noted(journal))
            self._pass(name, "return")
        elif event == "line" and self.errand.point == "line":
            self._pass("line", "call")
        return self._inside

    def _pass(self, name: str, side: str) -> None:
        with self._lock:
            self.passed[f"{name}:{side}"] += 1
            hit = (name, side, self.passed[f"{name}:{side}"]) == (
                self.errand.point,
                self.errand.side,
                self.errand.number,
            )
        if hit and self.errand.delay:
            threading.Timer(self.errand.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif hit:
            os.kill(os.getpid(), signal.SIGKILL)


def _noted(journal: Any) -> bytes:
    """That the disk has so much of a trace now."""
    name = [journal.path.name] if journal.sidechain else []
    return b"%s\n" % json.dumps([*name, time.monotonic(), journal._synced]).encode()


def _qualified(frame: Any) -> str:
    owner = frame.f_locals.get("self")
    return f"{type(owner).__name__}.{frame.f_code.co_name}" if owner is not None else frame.f_code.co_name


# A session, from wherever it is to its end.


def work(errand: Errand) -> None:
    home = Path(errand.home)
    trap = Trap(errand)
    trap.set()
    listening = Listening(errand)

    def ask(request: ApprovalRequest) -> ApprovalAnswer:
        said = post(errand, "/ask", {"call": request.call_id, "tool": request.tool, "arguments": request.arguments})
        return ApprovalAnswer(said["decision"], by="parent", scope=said["scope"])

    tools = [HubPushTool(), Job(errand=errand), Announce(errand)]
    options = {"name": "helper", "description": "Does.", "verbosity_level": LogLevel.OFF}
    intern = MLIntern(
        Worker(errand),
        home=home,
        tools=[] if errand.below else tools,
        managed_agents=[lambda: ToolCallingAgent(tools, Helper(errand), **options)] if errand.below else [],
        on_event=listening,
        on_approval=ask if errand.person == "attends" else None,
        budget_usd=5.0,
        network="none",
        allow=[
            f"hub_push:tester/allowed-{errand.name}:private",
            f"hub_push:tester/second-{errand.name}:private",
            "job:<=1usd",
            "announce",
        ],
    )
    task = f"The task of {errand.name}."
    if errand.person == "sleeps":
        intern._config = replace(intern._config, park_seconds=0.0)
    if errand.session_id:
        session = intern.resume(errand.session_id)
        if (
            session.outcome is None and not session.busy and not session.pending()
        ):  # killed before its task was on record
            session.start(task)
    else:
        session = intern.submit(task)
        (home / "id").write_text(session.id)
    listening.session = session
    if errand.session_id:
        listening.look()
    asked: set[str] = set()
    while session.wait(0.01) is None:
        for request in session.pending():
            if request.call_id not in asked:
                asked.add(request.call_id)
                try:
                    session.answer(request.call_id, ask(request))
                except InternError:  # its code ended meanwhile
                    traceback.print_exc()
    outcome = session.outcome
    intern.close()
    ended = {"state": str(outcome.state), "answer": outcome.answer, "reason": outcome.reason, "mode": session.mode}
    result = {"outcome": ended, "passed": dict(trap.passed), "threads": [t.name for t in threading.enumerate()]}
    (home / "result.json").write_text(json.dumps(result))


class Listening:
    """A user who changes the mode, raises the budget, says something and asks for a compaction, each once, when it makes sense."""

    def __init__(self, errand: Errand) -> None:
        self.errand, self.session = errand, None

    def __call__(self, event: Any) -> None:
        if isinstance(event, StepFinished) and self.session is not None:
            self.look()

    def look(self) -> None:
        session = self.session
        assert session is not None
        rows = list(read_rows(session.trace))
        kinds = {note["kind"] for row in rows if (note := note_of(row)) is not None}
        finished = sum("final" in row for row in rows)
        if "mode" not in kinds and finished >= 2:
            session.set_mode("auto")
        if "budget" not in kinds and finished >= 2:
            session.extend(usd=1.0)
        if "said" not in kinds and 3 <= finished <= 4:
            session.steer("Mind the licence.", "the user")
        if finished == 8 and "end" not in kinds and not any(row.get("subtype") == "compact_boundary" for row in rows):
            session.compact()


def main() -> None:
    for line in sys.stdin:
        errand = Errand(**json.loads(line))
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            log = os.open(Path(errand.home) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1), os.dup2(log, 2), os.close(0)
            status = 1
            signal.alarm(60)  # whoever hangs is to be seen
            try:
                work(errand)
                status = 0
            except BaseException:  # noqa: BLE001 - a fork must not come back into the loop; its log has it
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        ended = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began, **asdict(errand)}
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main()
