"""Killing sessions, and what must be true of them afterwards."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sessions.crash_child import Errand

from ml_intern.testing import LocalHub
from ml_intern.trace import Restored, note_of, read_rows, restore
from ml_intern.trace.subagents import traces_of_sub_agents
from ml_intern.trace.validate import validate

CHILD = Path(__file__).with_name("crash_child.py")
PEOPLE = ("answers", "sleeps", "attends")
FILES = {"README.md", "figure.txt"}


class Services:
    """A service of jobs that runs each as often as it is told to, one of announcements, and a person who answers."""

    def __init__(self) -> None:
        self.jobs: Counter[tuple[str, str]] = Counter()  # by run and key
        self.announced: Counter[str] = Counter()
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.heard: list[tuple[str, float]] = []  # the key of each job, when the first byte of its request was there
        self.thoughts: list[tuple[str, int]] = []
        services = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                self.connected = time.monotonic()
                super().setup()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                services.heard.append((body.get("key") or "", self.connected))
                answer = json.dumps(services.answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        run = body["run"]
        if path == "/jobs":
            self.jobs[run, body["key"]] += 1
            return {"id": body["key"][-4:], "state": "running"}
        if path == "/find":
            return {"job": {"id": body["key"][-4:], "state": "running"}} if self.jobs[run, body["key"]] else {}
        if path == "/announcements":
            self.announced[run] += 1
            return {"announced": body["text"]}
        if path == "/thought":
            self.thoughts.append((run, body["step"]))
            return {}
        self.asked.append((run, body["tool"], body["arguments"]))
        if body["tool"] == "announce":  # of which nobody knows whether it happened: a person looks
            return {"decision": "reject" if self.announced[run] else "approve", "scope": "once"}
        return {"decision": "approve", "scope": "session"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Zygote:
    """The process that sessions are forked from."""

    def __init__(self, hub: LocalHub) -> None:
        shared = {"ML_INTERN_SHARE_TRACES": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**environment(hub), **shared},
        )  # fmt: skip

    def run(self, errand: Errand) -> int:
        """The exit code of its fork: -9 where it was killed."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(errand)) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["code"]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


def environment(hub: LocalHub) -> dict[str, str]:
    """Of a process that knows this Hub and nothing of who runs the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ML_INTERN_", "HF_", "LLM_"))}
    paths = {"PYTHONPATH": str(CHILD.parent.parent), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return {**own, **hub.environment(), **paths}


@dataclass(frozen=True)
class Point:
    """Where to be killed, in one process of a session after the other; and whether the machine loses its power there."""

    point: str
    side: str = "call"
    number: int = 1
    delay: float = 0.0
    power: bool = False

    def __str__(self) -> str:
        return (
            f"{self.point}:{self.side}:{self.number}" + (f"+{self.delay:g}" if self.delay else "") + "!" * self.power
        )


@dataclass
class Crashed:
    """A session that was brought to its end through crashes."""

    name: str
    trace: Path
    hit: list[str] = field(default_factory=list)
    passed: dict[str, int] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    below: bool = False

    @property
    def restored(self) -> Restored:
        return restore(self.trace)


class Crashes:
    """Runs sessions to their end, killing them on the way, and looks at what became of them."""

    def __init__(self, folder: Path, hub: LocalHub, services: Services, zygote: Zygote) -> None:
        self.folder, self.hub, self.services, self.zygote = folder, hub, services, zygote
        self._count = 0

    def run(self, points: list[Point], seed: int = 0, below: bool = False) -> Crashed:
        """A session from its beginning to its end, killed at these points, one process after the other."""
        self._count += 1
        name = f"run{self._count}"
        home = self.folder / name
        home.mkdir()
        errand = Errand(str(home), self.services.url, name, person=PEOPLE[seed % 3], below=below)
        crashed, chance, began = Crashed(name, home, below=below), random.Random(seed), time.monotonic()
        for point in [*points, None]:
            if point is not None:
                errand = replace(errand, point=point.point, side=point.side, number=point.number, delay=point.delay)
            else:
                errand = replace(errand, point="", number=0)
            before = self._bytes(crashed.trace)
            status = self.zygote.run(errand)
            if status not in (0, -9):
                crashed.problems.append(f"a process ended with {status}: {(home / 'log').read_text()[-1500:]}")
                break
            if not (home / "id").exists():
                continue  # before there was a session: it begins anew
            session_id = (home / "id").read_text()
            crashed.trace = home / "sessions" / f"{session_id}.jsonl"
            self._nothing_lost(before, crashed)
            if status == 0:
                break
            crashed.hit.append(str(point))
            if crashed.trace.exists():
                errand = replace(errand, session_id=session_id)
                if point is not None and point.power:
                    self._lose_power(crashed.trace, home, chance)
        crashed.seconds = time.monotonic() - began
        self.look(crashed, home)
        return crashed

    def _bytes(self, trace: Path) -> bytes:
        return trace.read_bytes() if trace.is_file() else b""

    def _lose_power(self, trace: Path, home: Path, chance: random.Random) -> None:
        """What was not synced is lost from anywhere on."""
        synced = max((json.loads(line)[1] for line in (home / "syncs").read_text().splitlines()), default=0)
        _cut(trace, synced, chance)
        below: dict[str, int] = {}
        for line in (home / "syncs-below").read_text().splitlines():
            name, _, size = json.loads(line)
            below[name] = max(size, below.get(name, 0))
        for other in traces_of_sub_agents(trace):
            _cut(other, below.get(other.name, 0), chance)

    def _nothing_lost(self, before: bytes, crashed: Crashed) -> None:
        whole = before[: before.rfind(b"\n") + 1]
        if not self._bytes(crashed.trace).startswith(whole):
            crashed.problems.append("a row that was there is not there any more, or another")

    def look(self, crashed: Crashed, home: Path) -> None:
        """What must be true in the end, whatever happened on the way."""
        say, name = crashed.problems.append, crashed.name
        if not (home / "result.json").exists():
            say("it came to no end: " + (home / "log").read_text()[-1500:])
            return
        result = json.loads((home / "result.json").read_text())
        crashed.passed, crashed.outcome = result["passed"], result["outcome"]
        if crashed.outcome != {"state": "success", "answer": [7, 42, "42"], "reason": "", "mode": "auto"}:
            say(f"outcome {crashed.outcome}")
        for kind in ("allowed", "second", "asked", "ruled"):
            repo = self.hub.store.repos.get(("dataset", f"tester/{kind}-{name}"))
            commits = [commit.message for commit in repo.commits.values()] if repo else []
            if len(commits) != 2:
                say(f"{kind}: commits {commits}")
            elif not set(repo.resolve("main").files) >= FILES:
                say(f"{kind}: files {sorted(repo.resolve('main').files)}")
        if (jobs := [count for (run, _), count in self.services.jobs.items() if run == name and count]) != [1]:
            say(f"jobs by key: {jobs}")
        if self.services.announced[name] != 1:
            say(f"announced {self.services.announced[name]} times")
        for run, tool, arguments in self.services.asked:
            # What a sub-agent reported is untrusted: a push whose card repeats an address of it is asked about anew.
            if run == name and tool == "hub_push" and "asked" not in arguments["repo_id"] and not crashed.below:
                say(f"asked about {arguments['repo_id']}, which a rule allows")
        self._look_at_rows(crashed)
        self._look_at_what_is_shared(crashed, home)
        left = [path.name for path in (crashed.trace.with_suffix("") / "frozen").glob("*")]
        if left:
            say(f"frozen copies left over: {left}")

    def _look_at_rows(self, crashed: Crashed) -> None:
        say = crashed.problems.append
        rows = list(read_rows(crashed.trace))
        uuids = [row["uuid"] for row in rows if "uuid" in row]
        if len(set(uuids)) != len(uuids):
            say("a row is there twice")
        uses, results = Counter[str](), Counter[str]()
        for row in rows:
            content = row.get("message", {}).get("content")
            for block in content if isinstance(content, list) else ():
                if block["type"] == "tool_use":
                    uses[block["id"]] += 1
                elif block["type"] == "tool_result":
                    results[block["tool_use_id"]] += 1
        if wrong := [key for key in uses | results if (uses[key], results[key]) != (1, 1)]:
            say(f"calls and results: {[(key, uses[key], results[key]) for key in wrong]}")
        if complaints := [str(complaint) for complaint in validate(crashed.trace)]:
            say(f"as readers see it: {complaints}")
        kinds = Counter(row.get("stepKind") for row in rows) | Counter(
            row["data"]["kind"] for row in rows if row["type"] == "progress"
        )
        if (kinds["answer"], kinds["end"], kinds["task"]) != (1, 1, 1):
            say(f"answers, ends, tasks: {kinds['answer']}, {kinds['end']}, {kinds['task']}")
        if sum(row.get("final") is True for row in rows) != 1:
            say("not one final step")
        if (kinds["said"], kinds["steered"]) != (1, 1):
            say(f"said {kinds['said']} times, read {kinds['steered']} times")
        self._look_below(crashed)
        boundaries = [place for place, row in enumerate(rows) if row.get("subtype") == "compact_boundary"]
        if len(boundaries) > 1:
            say(f"{len(boundaries)} compactions")
        restored = crashed.restored
        if restored.problems:
            say(f"problems {restored.problems}")
        if restored.desk.notes != ("seed 7",) or [item["status"] for item in restored.desk.plan] != ["done", "done"]:
            say(f"desk {restored.desk}")
        if (
            restored.budget_usd != 6.0
            or restored.unknown
            or restored.mode != "auto"
            or not 1 - crashed.below <= len(restored.rules) <= 1
        ):
            say(f"{restored.budget_usd=} {restored.unknown=} {restored.mode=} {restored.rules=}")
        below = [row for trace in traces_of_sub_agents(crashed.trace) for row in read_rows(trace)]
        answers = sum("modelOutput" in row for row in [*rows, *below])
        if restored.usage.output_tokens != 10 * answers:
            say(f"{restored.usage.output_tokens} tokens in {answers} answers")

    def _look_below(self, crashed: Crashed) -> None:
        """Each task of a sub-agent has one end, and its own record is whole."""
        traces = traces_of_sub_agents(crashed.trace)
        notes = [
            note
            for trace in (crashed.trace, *traces)
            for row in read_rows(trace)
            if (note := note_of(row)) is not None
        ]
        ends = Counter(note["id"] for note in notes if note["kind"] == "subagent")
        if wrong := {name: ends[name] for trace in traces if ends[name := trace.stem.removeprefix("agent-")] != 1}:
            crashed.problems.append(f"ends of sub-agents: {wrong}")
        for trace in traces:
            if complaints := [str(complaint) for complaint in validate(trace)]:
                crashed.problems.append(f"{trace.name} as readers see it: {complaints}")

    def _look_at_what_is_shared(self, crashed: Crashed, home: Path) -> None:
        repo = self.hub.store.repos.get(("dataset", "tester/ml-intern-traces"))
        found = [path for path in repo.resolve("main").files if path.endswith(crashed.trace.name)] if repo else []
        if len(found) != 1:
            crashed.problems.append(f"shared as {found}")
        elif self.hub.read("tester/ml-intern-traces", "dataset", found[0]) != crashed.trace.read_bytes():
            crashed.problems.append("what is shared is not the whole trace")
        if left := [path.name for path in (home / "sharing").glob("*") if path.suffix in (".wanted", ".taken")]:
            crashed.problems.append(f"yet to be uploaded: {left}")


def _cut(trace: Path, synced: int, chance: random.Random) -> None:
    size = trace.stat().st_size
    with trace.open("r+b") as file:
        file.truncate(chance.randint(min(synced, size), size))


PLACES = (
    # between an intent, the disk, its effect and its result
    "Journal.sync", "HubPushTool.forward", "HubPushTool._commit", "HubPushTool._ask", "Job.forward", "Announce.forward",
    "ToolRouter._made", "ApprovalGate._put", "ApprovalGate.give", "Frozen.copies",
    # compaction and the end
    "InternAgent._summarise", "TraceRecorder.compacted", "TraceRecorder.ended", "Session._end", "Session._park",
    # uploads
    "share", "SharingHome.want", "SharingHome.begin", "SharingHome.done", "Sharer._one",
    # going on
    "restore", "take_up", "finish_open", "sweep", "is_over", "Session._go_on", "Session._open", "Workshop.__init__",
    "JailExecutor.start",
)  # fmt: skip
"""Functions at whose beginnings and ends a session is killed, besides all sides of all rows."""


def draw(chance: random.Random, rows: int, lines: int) -> Point:
    """A point anywhere: at a row, at a place that matters, at any line, or some time after one."""
    power = chance.random() < 0.3
    kind = chance.random()
    if kind < 0.3:
        return Point("Journal._write", chance.choice(("call", "return")), chance.randint(1, rows), power=power)
    if kind < 0.6:
        number = min(chance.randint(1, 6), chance.randint(1, 6))
        delay = chance.uniform(0.0005, 0.05) if chance.random() < 0.5 else 0.0
        return Point(chance.choice(PLACES), chance.choice(("call", "return")), number, delay, power)
    return Point("line", "call", int(lines ** chance.uniform(0.2, 1.0)), power=power)


def draw_resuming(chance: random.Random) -> Point:
    """A point that a process comes by while it takes a session up."""
    if chance.random() < 0.5:
        place = chance.choice(
            ("restore", "take_up", "finish_open", "Session._go_on", "Workshop.__init__", "Journal._write")
        )
        return Point(place, chance.choice(("call", "return")), chance.randint(1, 2), power=chance.random() < 0.3)
    return Point("line", "call", int(2_000 ** chance.uniform(0.1, 1.0)), power=chance.random() < 0.3)
