"""The life of a session's turns: the thread that one has, its sleep while a person is waited for, its end on record.

What must never happen here: a turn ends without an explicit state on record; a question is lost because a thread or a process
ended; a sub-agent is cut off in its work because another one waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from smolagents import Tool
from smolagents.agents import AgentError, AgentGenerationError

from . import events as told
from .approval import nobody
from .errors import InternError, Parking
from .events import ApprovalAnswer, ApprovalRequest, Event, EventLog, Outcome, State, Usage
from .models import EndpointModel
from .secrets import Masker
from .trace import restore
from .waiting import Questions, Warm, in_code
from .wake import finish_open, is_over, rules_of, sweep, take_up
from .workshop import SessionConfig, Workshop

AT_ONCE = 0.2
"""Seconds between looks at what a waiting question waits for besides its answer."""


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
        self._lock = threading.RLock()
        self._shop: Workshop | None = None
        self._usage = Usage()
        self._questions = Questions()
        self._thread: threading.Thread | None = None
        self._tidying: threading.Thread | None = None
        self._turn_over, self._interrupted, self._let_go = threading.Event(), threading.Event(), threading.Event()
        self._parking = False
        self._worked = 0.0  # seconds of this turn before it was parked
        self._closing = False

    def _compacted(self, event: Event) -> None:
        if isinstance(event, told.Compacted) and event.how != "mask":
            self._changed(self)

    @property
    def busy(self) -> bool:
        """Whether a turn has a thread."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def usage(self) -> Usage:
        """Tokens and money so far."""
        shop = self._shop
        return shop.ledger.usage if shop else self._usage

    def warn(self, text: str) -> None:
        self.events.emit(told.Warned(text=self.masker.text(text)))

    def let_go(self) -> None:
        """Gives up jail and memory, as others need the room; a turn that waits is parked, one that runs goes on."""
        if self._questions:
            self._let_go.set()
        else:
            self.release()

    def release(self) -> None:
        """Gives up jail and memory where no turn runs; they are made from the trace when they are needed."""
        with self._lock:
            shop = self._shop
            if shop is None or (self.busy and threading.current_thread() is not self._thread):
                return
            self._usage, self._shop = shop.ledger.usage, None
            shop.close()

    # A turn.

    def _begin(self, task: str, work: Callable[[Workshop], Any]) -> None:
        if self.busy:
            raise InternError("This session is busy with a turn", "", "Wait for its end or interrupt it.")
        self._warm.works(self)
        self._turn_over.clear()
        self._interrupted.clear()
        self._let_go.clear()
        self._parking, self._closing, self.outcome, self._worked = False, False, None, 0.0
        self._spawn(task, work)

    def _spawn(self, task: str, work: Callable[[Workshop], Any]) -> None:
        self._thread = threading.Thread(
            target=self._turn, args=(task, work), name=f"session-{self.id[:8]}", daemon=True
        )
        self._thread.start()

    def _turn(self, task: str, work: Callable[[Workshop], Any]) -> None:
        started = time.monotonic() - self._worked
        if self._tidying is not None:
            self._tidying.join()
        state, reason, answer, shop = State.ERROR, "", None, None
        try:
            shop = self._open()
            if isinstance(shop.model, EndpointModel) and not self._interrupted.is_set():
                shop.model.cancelled.clear()
            answer = work(shop)
            while said := shop.agent.unheard():  # words that came as the turn ended
                shop.recorder.takes_in = tuple(step.id for step in said)
                answer = shop.agent.run("\n\n".join(step.text for step in said), reset=False)
            ending = shop.agent.ending
            state, reason = (ending.state, ending.reason) if ending else (State.ERROR, "the run ended without a state")
            if state is State.SUCCESS and shop.agent.gate.unmet:
                state = State.DENIED
                reason = "; ".join(f"`{tool}` was refused: {why}" for tool, why in shop.agent.gate.unmet.items())
        except Parking:
            assert shop is not None
            self._park(shop, time.monotonic() - started)
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
        self._turn_over.set()
        self._warm.rests(self)

    def _park(self, shop: Workshop, worked: float) -> None:
        with self._lock:
            self._worked, self._shop, self._usage = worked, None, shop.ledger.usage
            calls = self._questions.calls
            try:
                shop.journal.note("parked", calls=calls)
                shop.journal.sync()
            finally:
                shop.close()
                self._thread = None
            self._warm.works(self)
            self.events.emit(told.Parked(calls=calls))
            self._changed(self)
            self._wake()

    def _wake(self) -> None:
        """Goes on where all that was asked is answered."""
        if self._questions.all_answered:
            self._parking = False
            self._let_go.clear()
            self._spawn("", self._go_on)

    def _go_on(self, shop: Workshop) -> Any:
        """The rest of a turn that was parked or cut off."""
        with self._lock:
            answers = self._questions.take()
        restored = restore(self.trace)
        shop.meet(self._interrupted)
        finish_open(shop, restored, answers)
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
        return shop.agent.continue_run()

    def _open(self) -> Workshop:
        with self._lock:
            if self._shop is None:
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
        shop = self._shop
        assert shop is not None
        if (given := self._questions.kept(request)) is not None:
            return given
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
                # Whether a sub-agent may go on is not worth a night: it ends with a report, and the agent above decides.
                pending.give(ApprovalAnswer("reject", "nobody answered in time", "session"))
                continue
            if (self._parking or (due and self._may_park(shop))) and pending.falls_asleep():
                self._parking = True
                shop.agent.park()
                raise Parking
        with self._lock:
            self._questions.drop(request.call_id)
        self._warm.works(self)
        return answer

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
