"""Whether a call needs a person's word (`ApprovalPolicy`, pure), and waiting for it (`ApprovalGate`)."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from .errors import Denied
from .events import ApprovalAnswer, ApprovalRequest
from .plain import plain
from .secrets import Masker
from .steps import Observer, ToolCallStep

Asker = Callable[[ApprovalRequest], ApprovalAnswer]
"""Puts a request to somebody and returns the answer; may block for as long as a person takes."""


@dataclass(frozen=True)
class Verdict:
    """`allow` or `ask`, and why."""

    action: str
    reason: str


@dataclass(frozen=True)
class ApprovalPolicy:
    """Decides from what a call does to the world. A pure function: no clock, no state, no model.

    Reading is free. Writing and spending are asked about, always. So is what runs code outside the jail, and a tool that
    does not say what it does; for these two the word of the caller who passed the tool in is enough.

    Args:
        trust_vouched (`bool`, defaults to `True`): Whether being passed in by the caller vouches for a tool that does not
            say what it does.
    """

    trust_vouched: bool = True

    def decide(self, effects: str, vouched: bool) -> Verdict:
        if effects == "read":
            return Verdict("allow", "it only reads")
        if effects in ("write", "spend"):
            return Verdict("ask", "it publishes or changes something" if effects == "write" else "it spends money")
        if vouched and self.trust_vouched:
            return Verdict("allow", "the caller passed this tool in")
        return Verdict(
            "ask", "it runs code outside the jail" if effects == "execute" else "it does not say what it does"
        )


class ApprovalGate:
    """A callback for [`ToolCallStep`]s that waits for a person where the policy says so.

    What must never happen here: an answer counts for other arguments or files than were shown; an answer that nobody
    gave; two questions at once on one terminal; an approved call that runs for code that has ended in between (the
    router looks again after this).

    Args:
        policy (`ApprovalPolicy`): Decides who is asked about what.
        ask (`Asker`, *optional*): Without it there is nobody to ask, and `ask` becomes a refusal that says so.
        observer (`Observer`, *optional*): Told every question before it is put and every answer before it counts.
        on_stop (`Callable[[str], None]`, *optional*): Called with the reason when a person says stop.
        masker (`Masker`, *optional*): Masks what a person is shown.
    """

    def __init__(
        self,
        policy: ApprovalPolicy,
        ask: Asker | None = None,
        observer: Observer | None = None,
        on_stop: Callable[[str], None] | None = None,
        masker: Masker | None = None,
    ) -> None:
        self.policy, self.ask, self.observer, self.on_stop = policy, ask, observer or Observer(), on_stop
        self.masker = masker or Masker()
        self.unmet: dict[str, str] = {}
        """Tools whose last asked call was refused, with the reason: what the task wanted and did not get."""
        self._one_at_a_time = threading.Lock()

    def __call__(self, step: ToolCallStep) -> None:
        """Returns when the call may be made.

        Raises:
            Denied: it may not; the reason is for the model.
        """
        if step.problem is not None:
            return
        verdict = self.policy.decide(step.effects, step.vouched)
        if verdict.action == "allow":
            return
        digest = binding(step)
        request = ApprovalRequest(
            call_id=step.call_id,
            tool=step.tool,
            arguments=self.masker.data(plain(step.arguments)),
            effects=step.effects,
            reason=verdict.reason,
            preview=step.preview,
            files=step.files,
        )
        with self._one_at_a_time:
            if step.ended.is_set():
                raise Denied(f"`{step.tool}` was not called", "the code that asked for it has ended")
            self.observer.approval_asked(request, digest)
            answer = self.ask(request) if self.ask else _nobody(step.tool)
            if answer.decision == "approve" and binding(step) != digest:
                answer = ApprovalAnswer("reject", "its arguments changed while the question was open", "gate")
            self.observer.approval_answered(request, answer, digest)
        if answer.decision == "approve":
            self.unmet.pop(step.tool, None)
            return
        self.unmet[step.tool] = answer.reason or f"{answer.by or 'the user'} said no"
        if answer.decision == "stop" and self.on_stop:
            self.on_stop(answer.reason)
        raise Denied(f"`{step.tool}` was not called: {answer.by or 'the user'} said no", answer.reason)


def binding(step: ToolCallStep) -> str:
    """What an answer binds to: tool, canonical arguments, and digests of the files that will be sent."""
    files = [(file.path, file.sha256) for file in step.files]
    canonical = json.dumps([step.call_id, step.tool, plain(step.arguments), files], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _nobody(tool: str) -> ApprovalAnswer:
    return ApprovalAnswer(
        "reject", f"nobody can be asked here; pass `on_approval=` or run it in a terminal to allow `{tool}`", "policy"
    )


def ask_at_terminal(request: ApprovalRequest) -> ApprovalAnswer:
    """The plainest asker, for scripts run in a terminal: one question on standard error, one line as the answer."""
    if not (sys.stdin and sys.stdin.isatty()):
        return _nobody(request.tool)
    lines = [
        f"\n{request.tool} wants to run ({request.reason}).",
        json.dumps(request.arguments, indent=2),
        request.preview,
    ]
    lines += [f"  {file.path}  {file.size:,} bytes  sha256 {file.sha256[:12]}" for file in request.files]
    print("\n".join(filter(None, lines)), file=sys.stderr)
    print("Allow it? [y]es, [n]o, [s]top, or a reason to say no: ", end="", file=sys.stderr, flush=True)
    try:
        said = input().strip()
    except EOFError:
        said = "n"
    if said.lower() in ("y", "yes"):
        return ApprovalAnswer("approve", by="terminal")
    if said.lower() in ("s", "stop"):
        return ApprovalAnswer("stop", "stopped at the terminal", "terminal")
    return ApprovalAnswer("reject", "" if said.lower() in ("n", "no", "") else said, "terminal")
