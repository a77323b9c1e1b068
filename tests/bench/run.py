"""The numbers that this project holds, measured beside smolagents on this machine.

    python tests/bench/run.py [--full] [--json]

Each figure is a median; each has a bar; one that misses it makes the exit code 1. `--full` takes longer and more samples.
What is measured runs in processes of its own, one after the other.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FULL = "--full" in sys.argv
STEPS = 3_000
OBSERVATION = 4_000


def median_ms(samples: list[float]) -> float:
    return statistics.median(samples) * 1000


def timed(call: Callable[[], Any], times: int) -> list[float]:
    samples = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return samples


def pss_mb(pids: list[int]) -> float:
    """Proportional set size, in MB: what these processes would free together."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def model(steps: int, prepare: bool) -> Any:
    """Answers at once with code that prints 4 kB; what the model layer does to messages is done and counted."""
    from smolagents.models import (
        ChatMessage,
        MessageRole,
        Model,
        TokenUsage,
        get_clean_message_list,
        tool_role_conversions,
    )

    from ml_intern.models import MessagePreparer

    class Scripted(Model):
        def __init__(self) -> None:
            super().__init__(model_id="scripted")
            self.preparer, self.calls, self.last, self.reused = MessagePreparer(), 0, b"", []

        def generate(self, messages: list[ChatMessage], stop_sequences: Any = None, **kwargs: Any) -> ChatMessage:
            self.calls += 1
            if prepare:
                self.sent = self.preparer.prepare(messages)
            else:
                self.sent = get_clean_message_list(messages, tool_role_conversions, convert_images_to_image_urls=True)
            code = f"print('x' * {OBSERVATION})" if self.calls < steps else "final_answer(1)"
            return ChatMessage(MessageRole.ASSISTANT, f"Go on.\n<code>\n{code}\n</code>", token_usage=TokenUsage(1, 1))

    return Scripted()


def measure_loop() -> dict[str, Any]:
    """Our loop: journal, jail, router, rendering and the model layer."""
    import os

    from smolagents import LogLevel

    from ml_intern.agent import InternAgent
    from ml_intern.trace import Journal, TraceRecorder

    class WithoutDisk(Journal):
        """The bar counts the disk's own time apart."""

        def sync(self) -> None:
            self.syncs = getattr(self, "syncs", 0) + 1

    durations: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        journal = WithoutDisk(Path(folder) / "00000000-0000-4000-8000-000000000000.jsonl")
        memory = {}
        clock = [time.perf_counter()]

        def tick(step: Any, agent: Any) -> None:
            now = time.perf_counter()
            durations.append(now - clock[0])
            if len(durations) == 1_000:
                memory["mb"] = pss_mb(tree(os.getpid()))
            clock[0] = time.perf_counter()

        scripted = model(STEPS, prepare=True)
        agent = InternAgent(
            [], scripted, max_steps=STEPS + 1, verbosity_level=LogLevel.OFF, step_callbacks=[tick],
            observers=[TraceRecorder(journal, "scripted")],
        )  # fmt: skip
        agent.python_executor.start()
        agent.run("Go.")
        size = journal.path.stat().st_size
        agent.cleanup()
    return {
        "first": median_ms(durations[5:25]),
        "end": median_ms(durations[-200:-1]),
        "pss": memory["mb"],
        "journal_mb": size / 1e6,
    }


def measure_smolagents() -> dict[str, Any]:
    from smolagents import CodeAgent, LogLevel

    durations: list[float] = []
    clock = [time.perf_counter()]

    def tick(step: Any, agent: Any) -> None:
        durations.append(time.perf_counter() - clock[0])
        clock[0] = time.perf_counter()

    steps = 300
    agent = CodeAgent(
        [], model(steps, prepare=False), max_steps=steps + 1, verbosity_level=LogLevel.OFF, step_callbacks=[tick]
    )
    agent.run("Go.")
    return {"first": median_ms(durations[5:25]), "end": median_ms(durations[-20:-1])}


def measure_prefix() -> dict[str, Any]:
    """What part of a request's bytes stands, unchanged, at the beginning of the next one."""
    from smolagents import LogLevel

    from ml_intern.agent import InternAgent

    scripted = model(60, prepare=True)  # short of the first batch of masking, which moves the prefix on purpose
    kept: list[tuple[int, int]] = []
    plain, last = scripted.generate, [b""]

    def generate(messages: Any, **kwargs: Any) -> Any:
        answer = plain(messages, **kwargs)
        sent = json.dumps(scripted.sent).encode()[:-1]  # less the closing bracket
        same = next(
            (i for i, (a, b) in enumerate(zip(last[0], sent, strict=False)) if a != b), min(len(last[0]), len(sent))
        )
        if last[0]:
            kept.append((same, len(last[0])))
        last[0] = sent
        return answer

    scripted.generate = generate
    agent = InternAgent([], scripted, max_steps=61, verbosity_level=LogLevel.OFF)
    agent.run("Go.")
    agent.cleanup()
    return {"share": sum(same for same, _ in kept) / sum(size for _, size in kept)}


def measure_jail() -> dict[str, Any]:
    import os

    from ml_intern.execution import JailExecutor

    starts = []
    for _ in range(15 if FULL else 7):
        executor = JailExecutor()
        executor.workspace  # noqa: B018 - a temporary folder, made on first use
        begin = time.perf_counter()
        executor.start()
        starts.append(time.perf_counter() - begin)
        executor.cleanup()
    executor = JailExecutor()
    executor.send_tools({"ping": lambda: 1})
    executor("x = 1")
    own = os.getpid()
    pss = pss_mb([pid for pid in tree(own) if pid != own])
    times = 2_000 if FULL else 500
    actions = timed(lambda: executor("x"), times)
    calls = executor(
        f"import time\ns=[]\nfor _ in range({times}):\n  t=time.perf_counter(); ping(); s.append(time.perf_counter()-t)\ns"
    ).output
    loop = "import time\nt=time.perf_counter()\nn=0\nfor i in range(3_000_000): n+=i*i\ntime.perf_counter()-t"
    inside = [executor(loop).output for _ in range(7)]
    executor.cleanup()
    plain = [float(subprocess.run([sys.executable, "-c", f"{loop.rsplit(chr(10), 1)[0]}\nprint(time.perf_counter()-t)"],
                                  capture_output=True, text=True, check=True).stdout) for _ in range(7)]  # fmt: skip
    return {
        "start": median_ms(starts), "action": median_ms(actions), "call": median_ms(calls), "pss": pss,
        "python": min(inside) / min(plain),
    }  # fmt: skip


def measure_journal() -> dict[str, Any]:
    import os

    from ml_intern.trace import Journal

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "00000000-0000-4000-8000-000000000000.jsonl")
        text = "x" * OBSERVATION
        early = timed(lambda: journal.user(text), 500)
        for _ in range(20_000 if FULL else 5_000):
            journal.user(text)
        late = timed(lambda: journal.user(text), 500)

        def flushed() -> None:
            journal.user(text)
            journal.sync()

        both = timed(flushed, 100)
        handle = os.open(Path(folder) / "probe", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def disk() -> None:
            os.write(handle, b"x" * 4_500)
            os.fdatasync(handle)

        alone = timed(disk, 100)
    return {
        "row": median_ms(early),
        "ratio": median_ms(late) / median_ms(early),
        "beyond": median_ms(both) - median_ms(alone),
        "disk": median_ms(alone),
    }


def measure_start() -> dict[str, Any]:
    times = 15 if FULL else 9

    def shell(*words: str) -> float:
        return median_ms(
            timed(lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True), times)
        )

    bare = shell("-c", "pass")
    return {"help": shell("-m", "ml_intern", "--help"), "import": shell("-c", "import ml_intern") - bare, "bare": bare}


def apart(name: str) -> dict[str, Any]:
    """A measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--only", name, *(["--full"] if FULL else [])], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    if "--only" in sys.argv:
        print(json.dumps(globals()[f"measure_{sys.argv[sys.argv.index('--only') + 1]}"]()))
        return 0
    loop, theirs, jail, journal, start, prefix = map(
        apart, ("loop", "smolagents", "jail", "journal", "start", "prefix")
    )
    rows = [
        ("framework time a step, first steps", loop["first"], "ms", 2.0, f"smolagents {theirs['first']:.2f}"),
        (f"the same at step {STEPS:,}", loop["end"], "ms", 2.0, f"smolagents at step 300: {theirs['end']:.2f}"),
        (
            "end over beginning",
            loop["end"] / loop["first"],
            "x",
            1.2,
            f"smolagents {theirs['end'] / theirs['first']:.1f} by step 300",
        ),
        ("memory after 1,000 steps, host and worker", loop["pss"], "MB PSS", 150, ""),
        ("pure Python in a code action, over CPython", jail["python"], "x", 1.1, ""),
        ("jail start", jail["start"], "ms", 150, ""),
        ("code action", jail["action"], "ms", 0.4, ""),
        ("host tool call", jail["call"], "ms", 0.5, ""),
        ("worker and its jail", jail["pss"], "MB PSS", 20, ""),
        ("python -m ml_intern --help", start["help"], "ms", 300, f"bare Python {start['bare']:.0f}"),
        ("import ml_intern", start["import"], "ms", 100, ""),
        ("bytes of a request that begin the next", prefix["share"] * 100, "%", 99, ""),
        ("journal row", journal["row"], "ms", 0.5, ""),
        (
            "the same, flushed, beyond the disk's own time",
            journal["beyond"],
            "ms",
            0.5,
            f"the disk: {journal['disk']:.2f}",
        ),
        ("journal row, late over early", journal["ratio"], "x", 1.25, ""),
    ]
    missed = []
    for what, value, unit, bar, beside in rows:
        holds = value >= bar if unit == "%" else value <= bar
        missed += [] if holds else [what]
        print(f"{what:<48} {value:>9.2f} {unit:<7} bar {bar:<6g} {'ok' if holds else 'MISSED':<7} {beside}")
    if "--json" in sys.argv:
        print(json.dumps({what: value for what, value, *_ in rows}))
    print(f"{len(rows) - len(missed)} passed, {len(missed)} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
