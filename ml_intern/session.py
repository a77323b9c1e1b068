"""Session: a conversation with one agent, its record and its workspace; a turn at a time.

What must never happen here: a session takes another down with it; an answer reaches a question it was not given to, or
counts twice; what is said to it takes effect, or is lost, without being on record.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import events as told
from .approval import Rule
from .context import Fill
from .errors import InternError
from .events import ApprovalAnswer, ApprovalRequest, Event, Outcome, State
from .models import EndpointModel
from .session_tools import Desk
from .steps import SteerStep
from .trace import Journal, Restored, restore
from .trace.journal import held_elsewhere, is_held
from .turns import AT_ONCE, Course, Turns, title_of
from .wake import rules_of
from .workshop import Workshop, put_down


class Session(Turns):
    """A conversation with one agent, its record and its workspace.

    It holds a thread while a turn works, and none while the turn waits for a person or a job. Where a person is waited for
    it gives up its jail as well after a time, or when too many wait; the answer wakes it from its trace. Made over a trace
    that exists it knows what stands there.

    Args:
        config (`SessionConfig`): What it is made of.
        make_model (`Callable[[], Model]`): Gives a smolagents model, each time the session wakes.
        make_tools (`Callable[[], Sequence[Tool]]`): Gives the tools besides the session's own.
        session_id (`str`): A UUID; also the trace's file name.
        on_approval (`Callable`, *optional*): Asks a person; without it [`answer`] has to be called from elsewhere.
        wait_for_answers (`bool`, defaults to `False`): Without `on_approval`: whether to wait for [`answer`]. Otherwise
            what would be asked is refused.
        warm (`Warm`, *optional*): Shared by the sessions of one process.
        make_agents (`Callable[[Callable], Sequence[MultiStepAgent]]`, *optional*): Gives colleagues that are this session's
            alone, each time it wakes; gets what gives the session's model.
        changed (`Callable[[Session], None]`, *optional*): Called when the trace has come to a point where sharing it makes
            sense: a turn's end, a compaction, a long wait.
    """

    # What others look at.

    @property
    def state(self) -> str:
        """`idle`, `running`, `waiting` (for a person's answer), or how the last turn ended."""
        if self._questions:
            return "waiting"
        if self.busy:
            return "running"
        return str(self.outcome.state) if self.outcome else "idle"

    @property
    def agent(self) -> Any:
        """Its [`InternAgent`], made from the trace where it was let go."""
        return self._open().agent

    @property
    def model(self) -> Any:
        return self._open().model

    @property
    def desk(self) -> Desk:
        """Plan and notes."""
        return self._open().desk

    @property
    def answerable(self) -> bool:
        """Whether what it asks waits for [`answer`]."""
        return self._waits and self._on_approval is None

    def pending(self) -> list[ApprovalRequest]:
        """The questions that wait for [`answer`]."""
        return self._questions.unanswered

    @property
    def standing(self) -> tuple[Rule, ...]:
        """The rules that hold: those it began with, and those that a person gave since."""
        if self._shop is not None:
            return self._shop.agent.gate.policy.rules
        given = rules_of(restore(self.trace)) if self.trace.exists() else ()
        return tuple(dict.fromkeys([*self.rules, *given]))

    def context(self) -> Fill:
        """What fills the window now."""
        agent = self.agent
        return agent.context.fill(agent.memory)

    def follow(self, since: int = 0) -> Iterator[Event]:
        """Events after number `since`, as they come, until no turn is open any more."""
        inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.events.listen(inbox.put, since)
        try:
            while True:
                try:
                    yield inbox.get(timeout=AT_ONCE)
                except queue.Empty:
                    if self._turn_over.is_set() and inbox.empty():
                        return
        finally:
            self.events.forget(inbox.put)

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Waits for the end of the turn. Returns its outcome, `None` if `timeout` (seconds) ran out first."""
        return self.outcome if self._turn_over.wait(timeout) else None

    # Operations. None of them blocks for long; all may come from any thread.

    def start(self, task: str, images: Sequence[Any] = (), datasets: Sequence[str] = ()) -> None:
        """Begins a turn; returns at once. `datasets` are fetched from the Hub before the first step.

        Raises:
            InternError: a turn is running or waits for a person.
        """

        def work(shop: Workshop) -> Course:
            shop.agent.gate.unmet.clear()
            shop.announce(task)
            shop.prepare(self._interrupted)
            shop.fetch(datasets)
            fresh = not shop.agent.memory.steps
            return (yield from shop.agent.run_giving_way(task, images=list(images) or None, reset=fresh))

        with self._lock:
            if self._questions:
                raise InternError("This session waits for an answer", "", "Answer it or interrupt it first.")
            self.title = self.title or title_of(task)
            self._begin(work)

    def resume(self, go_on: bool = True) -> None:
        """Takes the trace up: a turn that was cut off continues, a question that was open is open again.

        Args:
            go_on (`bool`, defaults to `True`): Otherwise a turn that was cut off stays so, and a new task can be given.

        Raises:
            InternError: another process holds it.
        """
        with self._lock:
            if self.busy or self._shop is not None or self._dozing is not None:
                return
            if is_held(self.trace):
                raise held_elsewhere(self.trace)
            restored = restore(self.trace)
            self._know(restored)
            self._choose(restored.chosen)
            for problem in restored.problems:
                self.warn(problem)
            if not restored.open or not go_on:
                self._turn_over.set()
                if restored.ended is not None:  # the process may have died before it could say so
                    self._changed(self)
                return
            self._turn_over.clear()
            if restored.pending and self._waits and self._on_approval is None:
                for request in restored.pending:
                    self._questions.put(request, asleep=True)
                    self.events.emit(told.ApprovalAsked(request=request))
                return
            self._begin(self._go_on)

    def steer(self, text: str, by: str = "") -> None:
        """Tells a running turn something: the model reads it with its next step. Starts a turn where none is open.

        It is on record before this returns, so that it reaches the model whatever happens to this process meanwhile.

        Raises:
            ValueError: there is nothing to say.
            JournalFailed: it cannot be put on record.
        """
        with self._lock:
            if not self.busy and not self._questions:
                self.start(text)
                return
            if not text.strip():
                raise ValueError("There is nothing to say.")
            step = SteerStep(self.masker.text(text), by)
            if self._shop is not None:
                self._shop.hear(step)
                return
            with self._record() as journal:  # nobody works here at the moment: who wakes finds it there
                put_down(journal, step)

    def running_jobs(self) -> list[str]:
        """Its training jobs that run, as far as is known; they go on when a turn or this process ends."""
        shop = self._shop or self._dozing
        return shop.jobs.running() if shop is not None else []

    def curves(self, job_id: str) -> str:
        """A job's curves as text. Takes seconds."""
        with self._lock:
            shop = self._open()
        return shop.jobs.curves(job_id)

    def stop_jobs(self) -> list[str]:
        """Ends its jobs that run, here and elsewhere. Returns what could not be ended, with the reason. Takes seconds."""
        with self._lock:
            shop = self._open()
        return shop.jobs.stop()

    def _end_jobs(self) -> None:
        for problem in self.stop_jobs():
            self.warn(f"A job could not be ended. {problem}")

    def interrupt(self, jobs: bool = False) -> None:
        """Stops the turn: running code and tools now, the loop before its next step, a request to the model as it streams.

        Args:
            jobs (`bool`, defaults to `False`): Its jobs as well, which go on otherwise.
        """
        if jobs:
            threading.Thread(target=self._end_jobs, name=f"end-jobs-{self.id[:8]}", daemon=True).start()
        with self._lock:
            if not self.busy and not self._questions:
                return
            self._interrupted.set()
            if self._shop is not None:
                self._shop.cancel()
                self._shop.agent.interrupt()
            for request in self._questions.unanswered:
                self.answer(request.call_id, ApprovalAnswer("stop", "interrupted", "user"))

    def answer(self, call_id: str, answer: ApprovalAnswer, asked: ApprovalRequest | None = None) -> None:
        """Answers a question that waits.

        Args:
            call_id (`str`): Which.
            answer (`ApprovalAnswer`): What a person says.
            asked (`ApprovalRequest`, *optional*): What they were shown, out of [`pending`]: an answer to anything else does
                not count, even where an edited call asks anew under the same id.

        Raises:
            InternError: no such question waits (any more): an answer counts once.
        """
        with self._lock:
            if self._questions.answer(call_id, answer, asked):
                self._wake()

    def extend(self, steps: int = 0, usd: float = 0.0, hours: float = 0.0, by: str = "") -> None:
        """Lets the turn take this much more. One that ended because it was used up goes on."""
        with self._lock:
            shop = self._open()
            if steps:
                shop.agent.extend(steps, by or "the user")
            if usd or hours:
                shop.ledger.raise_by(usd, hours)
                shop.journal.note("budget", usd=shop.ledger.budget_usd, hours=shop.ledger.max_hours, by=by)
            ended = self.outcome is not None and self.outcome.state in (State.MAX_STEPS, State.BUDGET, State.STUCK)
            if ended and not self.busy and not self._questions:
                self._begin(self._with_more)

    def _with_more(self, shop: Workshop) -> Course:
        shop.meet(self._interrupted)
        return (yield from shop.agent.continue_giving_way())

    def undo(self) -> None:
        """Takes the last turn out of the conversation. What it did to files and to the world stays.

        Raises:
            InternError: a turn is running; there is none to take back.
        """
        with self._lock:
            if self.busy or self._questions:
                raise InternError("A turn is running", "", "Interrupt it first.")
            turns = restore(self.trace).turns if self.trace.exists() else ()
            if not turns:
                raise InternError("There is no turn to take back")
            journal = self._open().journal
            journal.branch_from(turns[-1].before)
            journal.note("undone", to=turns[-1].before)
            self.release()
            self.outcome = None
            self.events.emit(told.Undone(task=turns[-1].task))

    def set_mode(self, mode: str) -> None:
        """Decides calls by another mode from now on: `ask`, `plan`, `auto` or `deny`."""
        with self._lock:
            self._note("mode", mode=mode)
            for shop in filter(None, (self._shop, self._dozing)):
                shop.set_mode(mode)
            self.mode = mode
            self.events.emit(told.ModeChanged(mode=mode))
            if self.busy:
                self._continue()  # what waits for an answer may need none now, or be forbidden

    def set_model(self, name: str, make: Callable[[], Any], by: str = "") -> None:
        """Has what follows written by another model: of a turn that runs, from its next step on.

        Args:
            name (`str`): What it is called, as in `LLM_ENDPOINT`; on record, and found there when the session is taken up.
            make (`Callable[[], Model]`): Gives it, each time the session wakes.
            by (`str`, *optional*): Who says so.
        """
        with self._lock:
            self._note("model-chosen", model=name, by=by)
            self._make_model = make
            if self._shop is not None and (self.busy or self._questions):
                self._shop.change_model(make(), by)
                return
            self.release()  # it is made anew, with that model, when it is needed
            self.warn(f"{name} writes from here on{f', as {by} said' if by else ''}.")

    def allow(self, rule: str) -> None:
        """Allows (or, as the rule says, denies or asks about) a kind of call from now on in this session.

        Raises:
            BadRule: that is no rule.
        """
        parsed = Rule.parse(rule)
        with self._lock:
            self._note("rule", rule=str(parsed), scope="session")
            self.rules = tuple(dict.fromkeys([*self.rules, parsed]))
            for shop in filter(None, (self._shop, self._dozing)):
                shop.rule(parsed)
            if self.busy:
                self._continue()  # what waits for an answer may need none now

    def compact(self, focus: str = "") -> None:
        """Makes the conversation shorter, whatever fills the window: now where nothing runs, else before the next step.

        Args:
            focus (`str`, *optional*): What the summary is to keep above all.
        """
        with self._lock:
            shop = self._open()
            if self.busy or (self._tidying is not None and self._tidying.is_alive()):
                shop.agent.context.request(focus)
                return
            if isinstance(shop.model, EndpointModel):
                shop.model.cancelled.clear()
            self._tidying = threading.Thread(
                target=self._compact, args=(shop, focus), name=f"compact-{self.id[:8]}", daemon=True
            )
            self._tidying.start()

    def close(self) -> None:
        """Ends what runs and lets go of the jail. What waits for a person goes on waiting, on record."""
        self._closing = True
        if self._questions and self._on_approval is None:
            self._let_go.set()
            with self._lock:
                shop, works = self._shop, self.busy and self._hold is None
                self._parking = self._parking or works
            if shop is not None and works:  # on something else besides what it asks
                shop.agent.park()
            self._continue()
        elif self.busy:
            self.interrupt()
        self._idle.wait(15)
        if self._tidying is not None:
            self._tidying.join(15)
        with self._lock:
            self.release()
            self._end_watch()

    def _know(self, restored: Restored) -> None:
        self.title = restored.title
        self.mode = restored.mode or self.mode
        self.rules = tuple(dict.fromkeys([*self.rules, *rules_of(restored)]))
        self._usage = restored.usage
        if restored.ended is not None:
            state = next((state for state in State if state == restored.ended.state), State.ERROR)
            self.outcome = Outcome(
                state,
                restored.ended.answer,
                restored.ended.reason,
                restored.next_step - 1,
                restored.seconds,
                self._usage,
            )

    def _choose(self, name: str) -> None:
        """The model that somebody chose for this session, where it can be had."""
        if not name or self.config.choose is None:
            return
        try:
            self._make_model = self.config.choose(name)
        except InternError as error:
            self.warn(f"{name} was chosen for this session and cannot be had: {error.what}")

    def _compact(self, shop: Workshop, focus: str) -> None:
        try:
            if shop.agent.compact(focus) is None:
                self.warn("There is nothing to compact yet.")
        except InternError as error:
            self.warn(str(error))

    def _note(self, kind: str, **fields: Any) -> None:
        """On record, whether or not anybody works here at the moment."""
        with self._record() as journal:
            journal.note(kind, **fields)

    @contextmanager
    def _record(self) -> Generator[Journal]:
        shop = self._shop or self._dozing
        if shop is not None:
            yield shop.journal
            return
        journal = Journal(self.trace, masker=self.masker)
        try:
            yield journal
        finally:
            journal.close()
