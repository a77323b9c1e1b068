"""ApprovalGate: the callback that waits for a person where the policy says so."""

from __future__ import annotations

import hashlib
import json
import pickle
import shlex
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..errors import Denied, Parking
from ..events import ApprovalAnswer, ApprovalRequest
from ..plain import plain
from ..secrets import Masker
from ..steps import GRANT, Observer, ToolCallStep
from .asking import NOBODY, Asker, nobody
from .policy import ApprovalPolicy, Verdict
from .rules import Call, Rule

MOST_EDITS = 20
"""Times that the arguments of one call may be edited: a program that answers must not go on for ever."""


class ApprovalGate:
    """A callback for [`ToolCallStep`]s that waits for a person where the policy says so.

    What must never happen here: an answer counts for other arguments or files than were shown; an answer that nobody
    gave; two questions at once on one terminal; arguments that were edited and that nobody looked at again; a rule that
    was not shown before it was given; an approved call that runs for code that has ended in between (the router looks
    again after this).

    Args:
        policy (`ApprovalPolicy`): Decides. It may change at any time ([`change`]): modes, rules.
        ask (`Asker`, *optional*): Without it there is nobody to ask, and `ask` becomes a refusal that names the rule which
            would allow the call.
        observer (`Observer`, *optional*): Told every question before it is put and every answer before it counts.
        on_stop (`Callable[[str], None]`, *optional*): Called with the reason when a person says stop.
        masker (`Masker`, *optional*): Masks what a person is shown.
        on_rule (`Callable[[Rule, str], None]`, *optional*): Told of a rule that an answer gave, and of its scope (`session`
            or `always`), before it counts.
        left_usd (`Callable[[], float | None]`, *optional*): What is left of the budget; `None` where there is none.
        find_own (`Callable[[], Iterable[str]]`, *optional*): Finds the user's own namespaces, once, when the first call
            has a destination in one and the policy knows none. Where it raises an `OSError` or finds none, every
            namespace is foreign.
    """

    def __init__(
        self,
        policy: ApprovalPolicy,
        ask: Asker | None = None,
        observer: Observer | None = None,
        on_stop: Callable[[str], None] | None = None,
        masker: Masker | None = None,
        *,
        on_rule: Callable[[Rule, str], None] | None = None,
        left_usd: Callable[[], float | None] | None = None,
        find_own: Callable[[], Any] | None = None,
    ) -> None:
        self.policy, self.ask, self.observer, self.on_stop = policy, ask, observer or Observer(), on_stop
        self.masker = masker or Masker()
        self.on_rule, self.left_usd, self.find_own = on_rule, left_usd, find_own
        self.unmet: dict[str, str] = {}
        """Tools whose last call was refused, with the reason: what the task wanted and did not get."""
        self._queued: Counter[str] = Counter()
        self._open: dict[str, tuple[ApprovalRequest, str]] = {}
        """Questions whose calls wait without a thread: put, and not answered yet."""
        self._one_at_a_time, self._finding, self._changing = threading.Lock(), threading.Lock(), threading.Lock()

    def __call__(self, step: ToolCallStep) -> None:
        """Returns when the call may be made.

        Raises:
            Denied: it may not; the reason is for the model.
            Parking: it waits, and its session gives up its thread: the call stays open.
        """
        if step.begun:
            return
        try:
            self._look(step)
        except Parking:
            raise
        except BaseException:
            why = "the code that asked for it has ended" if step.ended.is_set() else "it is refused by now"
            if self._lapses(step, "reject", why) and step.ended.is_set():
                self.unmet[step.tool] = why
            raise
        self._lapses(step, "approve", "it is allowed by now")

    def _look(self, step: ToolCallStep) -> None:
        if step.call_id in self._open and not step.question and self._answered(step):
            return
        for _ in range(MOST_EDITS):
            if step.problem is not None:
                return  # the router raises it
            if step.question:
                with self._in_turn(step.agent):
                    if self._question(step):
                        return
                continue
            if self._passes(step):
                return
            with self._in_turn(step.agent):  # a rule may have been given while this waited for its turn
                if self._passes(step) or self._approved(step):
                    return
        raise Denied(f"`{step.tool}` was not called", f"its arguments were edited {MOST_EDITS} times")

    def _answered(self, step: ToolCallStep) -> bool:
        """Whether a call that has waited may be made: by the answer, or as rules and mode say by now."""
        with self._in_turn(step.agent):
            try:
                return self._approved(step)
            except Parking as waits:
                if self._decided(step)[1].action == "ask":
                    raise
                if not waits.withdraw():  # somebody was quicker, and was told that their answer counts
                    return self._approved(step)
            return self._passes(step)

    def _lapses(self, step: ToolCallStep, decision: str, why: str) -> bool:
        """A question that was put before the call waited, and that nothing depends on any more; whether there was one."""
        if (put := self._open.pop(step.call_id, None)) is None:
            return False
        self.observer.approval_answered(put[0], ApprovalAnswer(decision, why, "session"), put[1])
        return True

    def put(self, request: ApprovalRequest) -> ApprovalAnswer:
        """Asks a person something that is about no call, between two steps: on record, and in turn with other questions."""
        with self._in_turn(request.agent):
            nobody_there = self.ask is None or self.policy.mode == "deny"
            answer = self._asked(request, request.call_id, nobody if nobody_there else self.ask)
            self.observer.approval_answered(request, answer, request.call_id)
        return answer

    def _asked(self, request: ApprovalRequest, digest: str, ask: Asker | None) -> ApprovalAnswer:
        """Puts a question, or asks for the answer to the one that was put before the call waited."""
        put = self._open.pop(request.call_id, None)
        if put is not None and put[1] == digest:
            request = put[0]
        else:
            self.observer.approval_asked(request, digest)
        try:
            return (ask or nobody)(request)
        except Parking:
            self._open[request.call_id] = request, digest
            raise

    @property
    def waiting(self) -> tuple[str, ...]:
        """Who waits for a person's answer, or for their turn to ask: paths of sub-agents, `""` for the agent at the top."""
        with self._changing:
            asked = [request.agent for request, _ in list(self._open.values())]
            return tuple(dict.fromkeys([*(who for who, calls in self._queued.items() if calls > 0), *asked]))

    @contextmanager
    def _in_turn(self, who: str) -> Generator[None]:
        """One question after the other."""
        with self._changing:
            self._queued[who] += 1
        try:
            with self._one_at_a_time:
                yield
        finally:
            with self._changing:
                self._queued[who] -= 1

    def _decided(self, step: ToolCallStep) -> tuple[Call, Verdict]:
        if step.destination is not None and "/" in step.destination.name:
            self._find_own()
        call = Call.of(step, self.left_usd() if self.left_usd else None)
        return call, self.policy.decide(call)

    def _find_own(self) -> None:
        with self._finding:
            if self.policy.own or self.find_own is None:
                return
            try:
                own = frozenset(self.find_own())
            except OSError:
                return  # the Hub is away: once more with the next call
            self.change(own=own)
            self.find_own = None

    def _passes(self, step: ToolCallStep) -> bool:
        """Whether the policy alone allows the call."""
        _, verdict = self._decided(step)
        if verdict.action == "deny":
            if self.policy.mode != "plan" or verdict.rule is not None:
                self.unmet[step.tool] = verdict.reason
            raise Denied(f"`{step.tool}` was not called", verdict.reason)
        return verdict.action == "allow"

    def _approved(self, step: ToolCallStep) -> bool:
        """Whether a person has approved the call; `False` where they edited it and it has to be looked at again."""
        if step.ended.is_set():
            raise Denied(f"`{step.tool}` was not called", "the code that asked for it has ended")
        digest = binding(step)
        if step.approved:
            if step.approved != digest:
                raise Denied(
                    f"`{step.tool}` was not called", "its arguments or files are not those that were approved"
                )
            return True
        call, verdict = self._decided(step)
        rule = self.policy.rule_for(call)
        request = self._request(step, verdict.reason, rule)
        answer = self._put(step, request, digest)
        if answer.decision == "approve":
            self._passes(step)  # what is forbidden by now stays so, whoever said yes to what was asked before
            if rule is not None and answer.scope != "once":
                self.give(rule, answer.scope)
            self.unmet.pop(step.tool, None)
            return True
        if answer.decision == "edit":
            step.revise(step, answer.arguments or {})
            return False
        self._refuse(step, answer)
        raise AssertionError("unreachable")

    def _question(self, step: ToolCallStep) -> bool:
        """A question of the agent's own. Whatever becomes of it the tool runs, and says so; but for a stop.

        No rule answers it. Returns `False` where what it proposes was edited, and has to be read again.
        """
        if step.answer is not None and step.approved == binding(step):
            return True  # answered while its code no longer ran
        step.answer = None
        if self.policy.mode == "deny":
            return True
        if step.ended.is_set():
            raise Denied(f"`{step.tool}` was not called", "the code that asked for it has ended")
        reason = "it proposes what it may do without asking" if step.tool == GRANT else "the agent asks"
        answer = self._put(step, self._request(step, reason, None), binding(step))
        if answer.decision == "stop":
            self._refuse(step, answer)
        if answer.decision == "edit" and step.tool == GRANT:
            step.revise(step, answer.arguments or {})
            return False
        step.answer = None if answer.by == NOBODY else answer
        return True

    def _request(self, step: ToolCallStep, reason: str, rule: Rule | None) -> ApprovalRequest:
        return ApprovalRequest(
            call_id=step.call_id,
            tool=step.tool,
            arguments=self.masker.data(plain(step.arguments)),
            effects=step.effects,
            reason=self.masker.text(reason),
            preview=step.preview,
            files=step.files,
            cost_usd=step.cost_usd,
            left_usd=self.left_usd() if self.left_usd else None,
            destination=step.destination,
            sources=tuple(map(self.masker.text, step.sources)),
            rule="" if rule is None else rule.short,
            agent=step.agent,
        )

    def _put(self, step: ToolCallStep, request: ApprovalRequest, digest: str) -> ApprovalAnswer:
        answer = self._asked(request, digest, self.ask)
        if answer.by == NOBODY and answer.decision == "reject":
            answer = replace(answer, reason=_alone(request))
        if answer.decision == "approve" and binding(step) != digest:
            answer = ApprovalAnswer("reject", "its arguments changed while the question was open", "gate")
        if answer.scope != "once" and (answer.decision != "approve" or not request.rule):
            answer = replace(answer, scope="once")  # no rule was shown that it could have meant
        step.answer = answer
        self.observer.approval_answered(request, answer, digest)
        return answer

    def give(self, rule: Rule, scope: str) -> None:
        """Lets a rule that a person was shown hold from here on: told to `on_rule` first."""
        if self.on_rule:
            self.on_rule(rule, scope)
        with self._changing:
            self.policy = self.policy.with_rule(rule)

    def change(self, **fields: Any) -> None:
        """Replaces fields of the policy (`mode`, `rules`, `own`), from any thread; nothing that changes meanwhile is lost."""
        with self._changing:
            self.policy = replace(self.policy, **fields)

    def _refuse(self, step: ToolCallStep, answer: ApprovalAnswer) -> None:
        who = answer.by or "the user"
        self.unmet[step.tool] = answer.reason or f"{who} said no"
        if answer.decision == "stop" and self.on_stop:
            self.on_stop(answer.reason)
        raise Denied(f"`{step.tool}` was not called: {who} said no", answer.reason)


def binding(step: ToolCallStep) -> str:
    """What an answer binds to: call, tool, canonical arguments, digests of the files that will be sent, what is attached."""
    files = [(file.path, file.sha256) for file in step.files]
    parts = [step.call_id, step.tool, _canonical(step.arguments), files, *filter(None, [plain(step.attached)])]
    canonical = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(value: Any, depth: int = 0) -> Any:
    """Data as data; of everything else a digest of its content, which no text that describes it has."""
    if isinstance(value, dict) and depth < 60:
        return {str(plain(str(key))): _canonical(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < 60:
        return [_canonical(item, depth + 1) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return plain(value)
    try:
        content = bytes(value) if isinstance(value, bytes | bytearray) else pickle.dumps(value)
    except Exception:  # noqa: BLE001 - foreign objects fail in any way; their description has to do
        content = json.dumps(plain(value)).encode()
    return {"\0": type(value).__name__, "sha256": hashlib.sha256(content).hexdigest()}


def _alone(request: ApprovalRequest) -> str:
    if request.rule:
        return f"nobody can be asked here; --allow {shlex.quote(request.rule)} allows it"
    return f"nobody can be asked here, and no rule allows it: {request.reason}"
