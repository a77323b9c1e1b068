"""A session without an engine: a thread that tells the events of a script, for the command line to show.

`python tests/cli/stage.py SCENE [--json] [--yes] [--verbose]` plays one on this terminal and ends with its exit code.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from ml_intern import events as e
from ml_intern.cli import guarded
from ml_intern.cli.run import Conversation, Order, carry_out
from ml_intern.cli.view import JsonView, PersonView

ESC = "\x1b[2J\x1b]0;owned\x07"


class StagedSession:
    """What `MLIntern.submit` returns, as far as the command line knows it."""

    def __init__(self, intern: StagedIntern, task: str, scene: Callable[[StagedSession], e.Outcome]) -> None:
        self.id = "7b1c"
        self.intern = intern
        self.task = task
        self.workspace = Path("/tmp/ml-intern/sessions/7b1c/workspace")
        self.trace = Path("/tmp/ml-intern/sessions/7b1c/7b1c.jsonl")
        self.outcome: e.Outcome | None = None
        self.interrupted = threading.Event()
        self.answers: queue.SimpleQueue[e.ApprovalAnswer] = queue.SimpleQueue()
        self.events = e.EventLog(self.id)
        self.events.listen(intern.on_event)
        self.thread = threading.Thread(target=self._play, args=(scene,), daemon=True)

    def running_jobs(self) -> list[str]:
        return []

    def _play(self, scene: Callable[[StagedSession], e.Outcome]) -> None:
        self.tell(
            e.SessionStarted(
                task=self.task,
                model="openai/gpt-9-mini",
                workspace=str(self.workspace),
                trace=str(self.trace),
                jail="bubblewrap",
            )
        )
        outcome = scene(self)
        self.outcome = outcome
        self.tell(e.SessionEnded(outcome=outcome, trace=str(self.trace)))

    def tell(self, event: e.Event, pause: float = 0.0) -> None:
        self.events.emit(event)
        self.interrupted.wait(pause * self.intern.pace)

    def approve(self, request: e.ApprovalRequest) -> e.ApprovalAnswer:
        self.tell(e.ApprovalAsked(request=request))
        answer = self.intern.on_approval(request) if self.intern.on_approval else self.answers.get()
        self.tell(e.ApprovalAnswered(call_id=request.call_id, answer=answer))
        return answer

    def answer(self, call_id: str, answer: e.ApprovalAnswer) -> None:
        self.answers.put(answer)

    def interrupt(self) -> None:
        self.interrupted.set()


class StagedIntern:
    """What the command line knows of `MLIntern`."""

    def __init__(
        self, scene: Callable[[StagedSession], e.Outcome], on_event: Any, on_approval: Any, pace: float
    ) -> None:
        self.session: StagedSession | None = None
        self.scene, self.on_event, self.on_approval, self.pace = scene, on_event, on_approval, pace

    def submit(self, task: str, *, files: Any = (), images: Any = (), datasets: Any = ()) -> StagedSession:
        session = self.session = StagedSession(self, task, self.scene)
        session.thread.start()
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Like the real one it waits for the end of the turn."""
        if self.session is not None:
            self.session.interrupt()
            self.session.thread.join(timeout=15)


CODE = """from datasets import load_dataset

rows = hub_search_datasets(query="imdb sentiment", limit=5)
for row in rows:
    print(row["id"], row["downloads"])  # most used first
"""
TASK = "Fine-tune a small sentiment classifier on film reviews, judge it honestly, and publish it with a card."
THOUGHT = "I look for well-known data sets of film reviews first, and see which is used most."
FAILURE = "Traceback (most recent call last):\n  File \"<step 2>\", line 9\nKeyError: 'lable'"
LONG = CODE + "\n".join(f"model_{n} = fit(rows, depth={n}, name='tree {n}')" for n in range(40))
USAGE = e.Usage(input_tokens=3100, output_tokens=240, cost_usd=0.0042)
PUSH = e.ApprovalRequest(
    call_id="c2",
    tool="hub_push",
    arguments={"folder": "out", "repo_id": "me/imdb-tiny", "private": False, "message": "First version"},
    effects="write",
    reason="It publishes on the Hub as me.",
    preview="# imdb-tiny\n\nA small classifier.\n\n| split | accuracy |\n| --- | --- |\n| test | 0.874 |",
    files=(
        e.FileDigest("out/model.safetensors", 12_345_678, "4fa8e21c" * 8),
        e.FileDigest("out/README.md", 1_204, "09ab77de" * 8),
    ),
)


def plan(*statuses: str) -> e.PlanChanged:
    texts = ["read what is known", "choose the data", "train a small model and judge it", "publish with a card"]
    return e.PlanChanged(items=tuple({"text": t, "status": s} for t, s in zip(texts, statuses, strict=True)))


def errand(s: StagedSession) -> e.Outcome:
    s.tell(e.Waiting(on="loading litellm"), 1.2)
    s.tell(e.StepStarted(step=1))
    s.tell(e.Waiting(on="the model"), 1.0)
    for word in THOUGHT.split():
        s.tell(e.ModelDelta(step=1, text=word + " "), 0.08)
    s.tell(e.ModelAnswered(step=1, thought=THOUGHT, code=CODE, input_tokens=3100, output_tokens=240, usage=USAGE), 0.3)
    s.tell(
        e.ToolCalled(
            step=1, call_id="c1", tool="hub_search_datasets", arguments={"query": "imdb sentiment", "limit": 5}
        ),
        1.0,
    )
    s.tell(e.ToolReturned(step=1, call_id="c1", tool="hub_search_datasets", ok=True, summary="[{...}]", seconds=0.42))
    s.tell(e.CodePrinted(step=1, text="stanfordnlp/imdb 1048576\nmteb/imdb 20123\n"), 0.2)
    s.tell(e.StepFinished(step=1, observation="stanfordnlp/imdb 1048576\nmteb/imdb 20123\n", error="", seconds=1.9))
    s.tell(plan("done", "in_progress", "pending", "pending"), 0.5)
    s.tell(e.StepStarted(step=2), 0.5)
    usage = e.Usage(input_tokens=9200, output_tokens=1240, cached_tokens=3000, cost_usd=0.0151)
    s.tell(
        e.ModelAnswered(
            step=2,
            thought="`stanfordnlp/imdb` it is.\n\n- forty small trees\n- one seed",
            code=LONG,
            input_tokens=6100,
            output_tokens=1000,
            usage=usage,
        ),
        0.3,
    )
    for n in range(30):
        s.tell(
            e.CodePrinted(step=2, text=f"\repoch {n} |####    |" if n % 3 else f"\ntree {n}: accuracy 0.{600 + n}\n"),
            0.07,
        )
    s.tell(e.Warned(text="The provider was busy (429); trying again in 2 s."))
    s.tell(
        e.ToolCalled(
            step=2, call_id="c9", tool="arxiv_search", arguments={"query": "small sentiment classifiers " * 9}
        ),
        0.4,
    )
    s.tell(
        e.ToolReturned(
            step=2,
            call_id="c9",
            tool="arxiv_search",
            ok=False,
            summary="arXiv answers 503. Try again later.",
            seconds=3.0,
        )
    )
    s.tell(e.StepFinished(step=2, observation="...", error=FAILURE, seconds=72.4, images=1))
    s.tell(plan("done", "done", "done", "in_progress"), 0.5)
    s.tell(e.StepStarted(step=3), 0.2)
    s.tell(
        e.ModelAnswered(
            step=3,
            thought="It is good enough to publish.",
            code='url = hub_push("out", "me/imdb-tiny")',
            input_tokens=300,
            output_tokens=60,
            usage=usage,
        )
    )
    s.tell(e.ToolCalled(step=3, call_id="c2", tool="hub_push", arguments=PUSH.arguments))
    answer = s.approve(PUSH)
    s.tell(e.CodePrinted(step=3, text="told during the question\n"))
    if answer.decision == "stop":
        return e.Outcome(e.State.DENIED, reason="hub_push was stopped.", steps=3, seconds=80, usage=usage)
    s.tell(
        e.ToolReturned(
            step=3, call_id="c2", tool="hub_push", ok=answer.decision == "approve", summary=answer.reason, seconds=1.1
        )
    )
    s.tell(e.StepFinished(step=3, observation="", error="", seconds=3.2))
    done = "The classifier is at https://huggingface.co/me/imdb-tiny and reaches 87.4 % on the test split."
    return e.Outcome(e.State.SUCCESS, done, steps=3, seconds=84.2, usage=usage)


def hostile(s: StagedSession) -> e.Outcome:
    bad = f"{ESC}[bold]x[/bold] \u202egnp.exe\u200b\u2028 :smile: [link=file:///etc]y[/link]"
    request = e.ApprovalRequest(
        call_id=bad,
        tool=bad,
        arguments={bad: bad, "n": [bad]},
        effects=bad,
        reason=bad,
        preview=bad,
        files=(e.FileDigest(bad + "\nok.txt", 1, "0" * 64),),
        destination=e.Destination(bad, bad),
        sources=(bad,),
        rule=bad,
        agent=bad,
    )
    asked = e.ApprovalRequest(bad, "ask_user", {"question": bad, "choices": [bad]}, "read", bad, sources=(bad,))
    s.tell(e.Waiting(on=bad))
    s.tell(e.Steered(text=bad, by=bad))
    s.tell(e.Extended(steps=2, why=bad))
    s.tell(e.ModeChanged(mode=bad))
    s.tell(e.Undone(task=bad))
    s.tell(e.Parked(calls=(bad,)))
    s.tell(e.Resumed(step=1, lost=(bad,)))
    s.tell(e.AgentStarted(agent=bad, task=bad))
    s.tell(e.AgentEnded(agent=bad, state=bad, report=bad, steps=1, usage=e.Usage()))
    s.tell(e.DecisionRecorded(step=1, subject=bad, choice=bad, reason=bad, sources=(bad,)))
    for state in ("running", "failed"):
        s.tell(e.JobReported(job_id=bad, name=bad, what=bad, text=bad, state=state, serious=True))
    s.tell(e.JobReported(job_id=bad, name=bad, what=bad, text=bad, state=bad))
    s.approve(asked)
    s.tell(e.PlanChanged(items=({"text": bad, "status": bad},)))
    s.tell(e.ModelDelta(step=1, text=bad))
    s.tell(
        e.ModelAnswered(
            step=1,
            thought=bad,
            code=f"x = '{bad}'",
            input_tokens=1,
            output_tokens=1,
            usage=e.Usage(cost_usd=None),
            reasoning=bad,
        )
    )
    s.tell(e.ToolCalled(step=1, call_id=bad, tool=bad, arguments={bad: bad}))
    s.tell(e.ToolReturned(step=1, call_id=bad, tool=bad, ok=False, summary=bad, seconds=1))
    s.tell(e.CodePrinted(step=1, text=bad + "\n" + bad))
    s.approve(request)
    s.tell(e.StepFinished(step=1, observation=bad, error=bad, seconds=1))
    s.tell(e.Warned(text=bad))
    return e.Outcome(e.State.SUCCESS, {bad: bad}, reason=bad, usage=e.Usage(cost_usd=None))


def endless(s: StagedSession) -> e.Outcome:
    s.tell(e.StepStarted(step=1))
    s.tell(
        e.ModelAnswered(
            step=1, thought="I wait.", code="while True: pass", input_tokens=1, output_tokens=1, usage=USAGE
        )
    )
    s.interrupted.wait()
    return e.Outcome(e.State.INTERRUPTED, reason="Interrupted by Ctrl-C.", steps=1, seconds=1)


def stubborn(s: StagedSession) -> e.Outcome:
    s.tell(e.StepStarted(step=1))
    s.interrupted.wait()
    time.sleep(60)
    return e.Outcome(e.State.INTERRUPTED)


def question(s: StagedSession) -> e.Outcome:
    s.tell(e.StepStarted(step=1))
    answer = s.approve(PUSH)
    state = {"approve": e.State.SUCCESS, "reject": e.State.ERROR, "stop": e.State.DENIED}[answer.decision]
    return e.Outcome(state, reason=answer.reason, steps=1)


def withdrawn(s: StagedSession) -> e.Outcome:
    """Time runs out while a person is being asked."""
    threading.Thread(target=s.approve, args=(PUSH,), daemon=True).start()
    time.sleep(0.5)
    return e.Outcome(e.State.BUDGET, reason="An hour is over.")


def abandoned(s: StagedSession) -> e.Outcome:
    """The reader leaves, then a question comes up: the session must not wait for an answer for ever."""
    for _ in range(2000):
        s.tell(e.Warned(text="x" * 100))
    time.sleep(0.2)
    answer = s.approve(PUSH)
    print(f"answered: {answer.decision}", file=sys.stderr, flush=True)
    return e.Outcome(e.State.DENIED)


def flood(s: StagedSession) -> e.Outcome:
    for n in range(20_000):
        s.tell(e.Warned(text=f"line {n}"))
    return e.Outcome(e.State.SUCCESS)


SCENES = {
    scene.__name__: scene for scene in (errand, hostile, endless, stubborn, question, withdrawn, abandoned, flood)
}


def main(scene: str, *flags: str) -> int:
    order = Order(task=TASK, yes="--yes" in flags, json="--json" in flags, verbose="--verbose" in flags)
    view = JsonView() if order.json else PersonView(order.verbose)
    talk = Conversation(order, view)
    signal.signal(signal.SIGINT, talk.on_signal)
    signal.signal(signal.SIGTERM, talk.on_signal)
    intern = StagedIntern(
        SCENES[scene], talk.hear, None if talk.attended else talk.decide, 0.0 if "--fast" in flags else 1.0
    )
    with contextlib.closing(view):
        view.start()
        return carry_out(talk, intern)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(*sys.argv[1:])))
