"""The life of a session's turns: a thread while one works and none while it waits, its sleep, its end on record.

What must never happen here: a turn ends without an explicit state on record; a question is lost because a thread or a process
ended; a sub-agent is cut off in its work because another one waits.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from smolagents import Tool
from smolagents.agents import AgentError, AgentGenerationError

from . import events as told
from . import lookout
from .agent import can_give_way
from .approval import nobody
from .errors import InternError, Parking
from .events import ApprovalAnswer, ApprovalRequest, Event, EventLog, Outcome, State, Usage
from .execution.action import Hold
from .models import EndpointModel
from .router import WITHIN
from .secrets import Masker
from .trace import restore
from .waiting import Questions, Warm, in_code
from .wake import finish_open, is_over, rules_of, sweep, take_up
from .workshop import SessionConfig, Workshop

NOT_IN_TIME = "nobody answered in time"
Course = Generator[Hold, None, Any]
"""A turn, or a part of it, from any thread: it gives way wherever it only waits."""

AT_ONCE, LATE = 0.2, 5.0
"""Seconds between looks at what a waiting question waits for besides its answer; where it could have been parked before."""


class Turns:
    """What runs in a session, one turn after the other. For its arguments see [`Session`]."""

    def __init__(
        self,
        config: SessionConfig,
        make_model: Callable[[], Any],
        make_tools: Callable[[], Sequence[Tool]],
        session_id: str,
        on_approval: Callable[[ApprovalRequest], ApprovalAnswer] | None = None,
        wait_for_answers: bool = False,
        warm: Warm | None = None,
        changed: Callable[[Any], None] = lambda session: None,
        make_agents: Callable[[Callable[[], Any]], Sequence[Any]] = lambda make_model: (),
    ) -> None:
        self.config, self.id = config, session_id
        self.trace = config.folder / f"{session_id}.jsonl"
        self.workspace = config.folder / session_id / "workspace"
        self.workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.masker = Masker(more=config.borrowing.secrets)
        self.events = EventLog(session_id)
        self.title, self.mode, self.rules = "", config.mode, config.rules
        self.outcome: Outcome | None = None
        self._make_model, self._make_tools, self._make_agents = make_model, make_tools, make_agents
        self._on_approval, self._waits = on_approval, wait_for_answers
        self._warm, self._changed = warm or Warm(), changed
        self.events.listen(self._compacted)
        self.events.listen(self._reported)
        self._lock = threading.RLock()
        self._shop: Workshop | None = None
        self._dozing: Workshop | None = None
        """What watches the jobs of a session that has let go of the rest."""
        self._usage = Usage()
        self._questions = Questions()
        self._course: Course | None = None
        self._hold: Hold | None = None
        """What the turn waits for, where it has no thread."""
        self._watched: lookout.Watched | None = None
        self._context = contextvars.copy_context()
        self._thread: threading.Thread | None = None
        self._tidying: threading.Thread | None = None
        self._turn_over, self._interrupted, self._let_go = threading.Event(), threading.Event(), threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._parking = self._settling = False
        self._worked = 0.0  # seconds of this turn before it was parked
        self._closing = False

    def _compacted(self, event: Event) -> None:
        if isinstance(event, told.Compacted) and event.how != "mask":
            self._changed(self)

    @property
    def busy(self) -> bool:
        """Whether a turn is at work here, or waits with its jail."""
        return self._course is not None

    @property
    def usage(self) -> Usage:
        """Tokens and money so far."""
        shop = self._shop or self._dozing
        return shop.ledger.usage if shop else self._usage

    def warn(self, text: str) -> None:
        self.events.emit(told.Warned(text=self.masker.text(text)))

    def let_go(self) -> None:
        """Gives up jail and memory, as others need the room; a turn that waits is parked, one that runs goes on."""
        if self._questions:
            self._let_go.set()
            self._continue()
        else:
            self.release()

    def release(self) -> None:
        """Gives up jail and memory where no turn runs; they are made from the trace when they are needed."""
        with self._lock:
            shop = self._shop
            if shop is None or self.busy:
                return
            self._usage, self._shop = shop.ledger.usage, None
            self._give_up(shop)

    def _give_up(self, shop: Workshop) -> None:
        """Closes what a session worked with; who watches its jobs stays while some run."""
        if shop.agent.watch.running() and not self._closing:
            shop.doze()
            self._dozing = shop
            if not shop.agent.watch.running():  # the last one has ended in between
                self._end_watch()
        else:
            shop.close()

    def _end_watch(self) -> None:
        """Its jobs are watched by who takes its place, or by nobody any more."""
        dozing, self._dozing = self._dozing, None
        if dozing is not None:
            self._usage = dozing.ledger.usage
            dozing.close()

    def _reported(self, event: Event) -> None:
        dozing = self._dozing
        if isinstance(event, told.JobReported) and dozing is not None and not dozing.agent.watch.running():
            with self._lock:
                if self._dozing is dozing:
                    self._end_watch()

    # A turn.

    def _begin(self, work: Callable[[Workshop], Course]) -> None:
        if self.busy:
            raise InternError("This session is busy with a turn", "", "Wait for its end or interrupt it.")
        self._warm.works(self)
        self._turn_over.clear()
        self._interrupted.clear()
        self._let_go.clear()
        self._parking, self._closing, self.outcome, self._worked = False, False, None, 0.0
        self._spawn(work)

    def _spawn(self, work: Callable[[Workshop], Course]) -> None:
        self._idle.clear()
        self._course, self._hold, self._thread = self._turn(work), None, None
        self._context = contextvars.copy_context()
        self._continue()

    def _continue(self) -> None:
        """Has a turn looked at again that waits without a thread: what it waits for may have come. From any thread."""
        threading.Thread(target=self._work, name=f"session-{self.id[:8]}", daemon=True).start()

    def _work(self) -> None:
        """The turn, up to where all that it does is wait, or to its end."""
        with self._lock:
            if self._course is None or self._thread is not None:
                if self._shop is not None:
                    self._shop.agent.look_up()
                return
            course, context = self._course, self._context
            hold, self._hold = self._hold, None
            self._thread = threading.current_thread()
            if self._watched is not None:
                lookout.forget(self._watched)
            if hold is not None and hold.due and not self._closing:
                self._let_go.clear()
            self._warm.works(self)
        if hold is not None:
            self._parks(hold)
        while True:
            try:
                hold = context.run(course.__next__)
            except StopIteration:
                return
            if self._rests(hold):
                return

    def _rests(self, hold: Hold) -> bool:
        """Whether a turn gives up its thread. Where it has to give up its jail as well it goes on, for that."""
        with self._lock:
            if hold.due:
                return False
            parks = self._parks_now(hold)
            if not parks:
                since = self._questions.since
                parks_at = None if since is None else since + self.config.park_seconds
                if parks_at is not None and (self._let_go.is_set() or parks_at <= time.monotonic()):
                    parks_at = time.monotonic() + LATE  # a sub-agent is at work that is not to be cut off
                at = min((time for time in (hold.at, parks_at) if time is not None), default=None)
                self._hold, self._thread = hold, None
                self._watched = lookout.watch(hold.handles, at, self._continue)
        if parks:
            self._parks(hold)
        elif self._questions:
            self._warm.rests(self)
        return not parks

    def _parks(self, hold: Hold) -> None:
        """Ends the jail of a turn that waits, where it is time: it goes on from its trace."""
        with self._lock:
            shop = self._shop
            if shop is None or not self._parks_now(hold) or self._declined():
                return
            self._parking = True
        shop.agent.park()

    def _declined(self) -> bool:
        """Whether a sub-agent was refused more steps: that is not worth a night. It ends, and the agent above decides."""
        asked = [request for request in self._questions.unanswered if request.agent and not in_code(request.call_id)]
        for request in () if self._closing else asked:
            self._questions.answer(request.call_id, ApprovalAnswer("reject", NOT_IN_TIME, "session"))
        return bool(asked) and not self._closing

    def _parks_now(self, hold: Hold) -> bool:
        since, shop = self._questions.since, self._shop
        if since is None or hold.due or shop is None:
            return False
        due = self._let_go.is_set() or time.monotonic() >= since + self.config.park_seconds
        return due and self._may_park(shop)

    def _turn(self, work: Callable[[Workshop], Course]) -> Course:
        started = time.monotonic() - self._worked
        if self._tidying is not None:
            self._tidying.join()
        state, reason, answer, shop = State.ERROR, "", None, None
        try:
            shop = self._open()
            if isinstance(shop.model, EndpointModel) and not self._interrupted.is_set():
                shop.model.cancelled.clear()
            answer = yield from work(shop)
            while said := shop.agent.unheard():  # words that came as the turn ended
                shop.recorder.takes_in = tuple(step.id for step in said)
                words = "\n\n".join(step.text for step in said)
                answer = yield from shop.agent.run_giving_way(words, reset=False)
            ending = shop.agent.ending
            state, reason = (ending.state, ending.reason) if ending else (State.ERROR, "the run ended without a state")
            if state is State.SUCCESS and shop.agent.gate.unmet:
                state = State.DENIED
                reason = "; ".join(f"`{tool}` was refused: {why}" for tool, why in shop.agent.gate.unmet.items())
        except Parking:
            assert shop is not None
            try:
                self._park(shop, time.monotonic() - started)
            except (InternError, OSError) as error:  # a full disk, say: what is not on record cannot be waited for
                shop, reason = None, str(error)
            else:
                return
        except AgentGenerationError as error:
            reason = str(error.__cause__ or error)
        except (AgentError, InternError) as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a turn that dies must still end in a state, on record and on screen
            reason = f"{type(error).__name__}: {error}"
        if self._interrupted.is_set() and state is not State.SUCCESS:
            state, reason = State.INTERRUPTED, ""
        self._end(shop, state, reason, answer, time.monotonic() - started)

    def _end(self, shop: Workshop | None, state: State, reason: str, answer: Any, seconds: float) -> None:
        reason, answer = self.masker.text(reason), self.masker.data(answer)
        if shop is None:
            outcome = Outcome(state, answer, reason, 0, seconds, self._usage)
        else:
            steps = max(0, shop.agent.step_number - 1)
            outcome = Outcome(state, answer, reason, steps, seconds, shop.ledger.usage)
            try:
                shop.recorder.ended(outcome, "" if shop.journal.titled else title_of(shop.agent.task or ""))
                self.title = self.title or title_of(shop.agent.task or "")
            except InternError as error:
                self.warn(str(error))
                outcome = Outcome(State.ERROR, answer, str(error), steps, seconds, outcome.usage)
            if shop.agent.memory.steps:
                self._changed(self)
        self.outcome = outcome
        self.events.emit(told.SessionEnded(outcome=outcome, trace=str(self.trace)))
        with self._lock:
            self._rest_over()
        self._warm.rests(self)
        with self._lock:
            if not self.busy:
                self._turn_over.set()

    def _rest_over(self) -> None:
        """Nothing of the turn is at work here, or waits with its jail."""
        self._course = self._hold = self._thread = self._watched = None
        self._context = contextvars.Context()  # the old one may hold calls, and with them all that was worked with
        self._idle.set()

    def _park(self, shop: Workshop, worked: float) -> None:
        with self._lock:
            self._worked, self._shop, self._usage = worked, None, shop.ledger.usage
            calls = self._questions.calls
            try:
                shop.journal.note("parked", calls=calls)
                shop.journal.sync()
            except BaseException:
                self._parking = False
                self._let_go.clear()
                self._questions.take()
                raise
            finally:
                try:
                    self._give_up(shop)
                finally:
                    self._rest_over()
            self._warm.works(self)
            self.events.emit(told.Parked(calls=calls))
            self._changed(self)
            self._wake()

    def _wake(self) -> None:
        """Goes on where an answer was waited for with the jail, or where all that was asked is answered."""
        if self.busy:
            self._continue()
        elif self._questions.all_answered:
            self._parking = False
            self._let_go.clear()
            self._spawn(self._go_on)

    def _go_on(self, shop: Workshop) -> Course:
        """The rest of a turn that was parked or cut off."""
        with self._lock:
            answers = self._questions.take()
        restored = restore(self.trace)
        shop.meet(self._interrupted)
        self._settling = True
        try:
            finish_open(shop, restored, answers)
        finally:
            self._settling = False
        sweep(shop)
        lost = tuple(f"the variable {name}" for name in restored.variables if name not in shop.agent.state)
        self.events.emit(told.Resumed(step=shop.agent.step_number, lost=lost))
        shop.journal.note("resumed", step=shop.agent.step_number, lost=lost)
        if shop.agent.ending is not None:  # a person said stop
            return None
        if is_over(shop):
            return shop.agent.memory.steps[-1].action_output
        if not self._interrupted.is_set():
            shop.prepare(self._interrupted)
        if self._interrupted.is_set():
            raise InternError("Interrupted while it waited")
        return (yield from shop.agent.continue_giving_way())

    def _open(self) -> Workshop:
        with self._lock:
            if self._shop is None:
                self._end_watch()
                restored = restore(self.trace) if self.trace.exists() else None
                if restored is not None:  # rules that were given with answers
                    self.rules = tuple(dict.fromkeys([*self.rules, *rules_of(restored)]))
                shop = self._shop = Workshop(
                    self.config, self.id, self._make_model(), self._make_tools(), self.events, self.masker, self._ask(),
                    self.mode, self.rules, restored.desk if restored else None, restored.records if restored else (),
                    self._make_agents(self._make_model),
                )  # fmt: skip
                if restored is not None:
                    take_up(shop, restored)
                if shop.journal.repaired:
                    self.warn(shop.journal.repaired)
            return self._shop

    # Questions.

    def _ask(self) -> Callable[[ApprovalRequest], ApprovalAnswer]:
        return self._on_approval or (self._wait_for_answer if self._waits else nobody)

    def _wait_for_answer(self, request: ApprovalRequest) -> ApprovalAnswer:
        """Waits for [`answer`]: without a thread where whoever asks can do without one, as every agent of this project can.

        Raises:
            Parking: the question stays open, and is to be put again when it is due.
        """
        shop = self._shop
        assert shop is not None
        if (given := self._questions.kept(request)) is not None:
            return given
        if can_give_way() if in_code(request.call_id) else shop.agent.gives_way_at(request.agent):
            return self._answered(shop, request)
        if self._settling and not WITHIN.get():  # no code runs: there is no jail to keep
            with self._lock:
                self._questions.put(request, asleep=True)
                self._parking = True
            shop.agent.park()
            raise Parking
        ended = shop.agent.router.action.ended
        with self._lock:
            pending = self._questions.put(request)
        self._warm.rests(self)
        parks_at = time.monotonic() + self.config.park_seconds
        while (answer := pending.wait(AT_ONCE)) is None:
            if in_code(request.call_id) and ended.is_set() and not self._parking:
                pending.give(ApprovalAnswer("reject", "the code that asked for it has ended", "session"))
            due = self._let_go.is_set() or time.monotonic() > parks_at
            if due and request.agent and not in_code(request.call_id) and not (self._parking or self._closing):
                pending.give(ApprovalAnswer("reject", NOT_IN_TIME, "session"))
                continue
            if (self._parking or (due and self._may_park(shop))) and pending.falls_asleep():
                self._parking = True
                shop.agent.park()
                raise Parking
        with self._lock:
            self._questions.drop(request.call_id)
        self._warm.works(self)
        return answer

    def _answered(self, shop: Workshop, request: ApprovalRequest) -> ApprovalAnswer:
        with self._lock:
            pending = self._questions.of(request) or self._questions.put(request, asleep=True)
            # Once its jail is given up an answer is for who goes on from the trace.
            if not self._parking and (answer := pending.wait(0)) is not None:
                self._questions.drop(request.call_id)
                return answer

        def over() -> None:
            with self._lock:
                if self._questions.of(request) is pending:
                    self._questions.drop(request.call_id)

        def withdraw() -> bool:
            if not pending.give(ApprovalAnswer("reject", "it waits for no answer by now", "session")):
                return False
            over()
            return True

        gate = shop.agent.gate
        policy = gate.policy  # by another one the call may need no answer any more, or be forbidden
        raise Parking(lambda: pending.answered or gate.policy is not policy, over=over, withdraw=withdraw)

    def _may_park(self, shop: Workshop) -> bool:
        """Whether whoever is at work waits for a person: a sub-agent that is not would be cut off in its work."""
        waiting = shop.agent.gate.waiting
        at_work = (
            path for path in tuple(shop.agent.runs) if not any(f"{who}/".startswith(f"{path}/") for who in waiting)
        )
        return self._closing or not any(at_work)


def title_of(task: str) -> str:
    """A title for lists: the task's first line, shortened at a word."""
    line = next((line.strip() for line in task.splitlines() if line.strip()), "Session")
    return line if len(line) <= 80 else line[:80].rsplit(" ", 1)[0] + "..."
