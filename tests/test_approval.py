from __future__ import annotations

import itertools

import pytest

from ml_intern.approval import ApprovalGate, ApprovalPolicy, binding
from ml_intern.errors import Denied
from ml_intern.events import ApprovalAnswer, ApprovalRequest, FileDigest
from ml_intern.steps import Observer, ToolCallStep

TABLE = {
    # (effects, vouched, the caller's word counts): what happens
    ("read", True, True): "allow", ("read", True, False): "allow", ("read", False, True): "allow", ("read", False, False): "allow",
    ("write", True, True): "ask", ("write", True, False): "ask", ("write", False, True): "ask", ("write", False, False): "ask",
    ("spend", True, True): "ask", ("spend", True, False): "ask", ("spend", False, True): "ask", ("spend", False, False): "ask",
    ("execute", True, True): "allow", ("execute", True, False): "ask", ("execute", False, True): "ask", ("execute", False, False): "ask",
    ("unknown", True, True): "allow", ("unknown", True, False): "ask", ("unknown", False, True): "ask", ("unknown", False, False): "ask",
}  # fmt: skip


@pytest.mark.parametrize(
    ("effects", "vouched", "trust"),
    list(itertools.product(("read", "write", "spend", "execute", "unknown"), (True, False), (True, False))),
)
def test_the_policy_is_this_table(effects: str, vouched: bool, trust: bool) -> None:
    verdict = ApprovalPolicy(trust_vouched=trust).decide(effects, vouched)
    assert verdict.action == TABLE[effects, vouched, trust]
    assert verdict.reason


def step(**changes) -> ToolCallStep:
    values = {
        "call_id": "call_1",
        "tool": "hub_push",
        "arguments": {"repo_id": "me/x"},
        "effects": "write",
        "action": 1,
    }
    return ToolCallStep(**{**values, **changes})


class Heard(Observer):
    def __init__(self) -> None:
        self.said: list[tuple] = []

    def approval_asked(self, request: ApprovalRequest, digest: str) -> None:
        self.said.append(("asked", request.tool, digest))

    def approval_answered(self, request: ApprovalRequest, answer: ApprovalAnswer, digest: str) -> None:
        self.said.append(("answered", answer.decision, digest))


def gate(answer: ApprovalAnswer | None, **options) -> ApprovalGate:
    return ApprovalGate(ApprovalPolicy(), (lambda request: answer) if answer else None, **options)


def test_an_approved_call_is_on_record_before_it_may_run() -> None:
    heard = Heard()
    gate(ApprovalAnswer("approve", by="me"), observer=heard)(step())
    digest = binding(step())
    assert heard.said == [("asked", "hub_push", digest), ("answered", "approve", digest)]


def test_a_refusal_gives_the_model_the_reason_and_stays_unmet_until_approved() -> None:
    refusing = gate(ApprovalAnswer("reject", "wrong name", "me"))
    with pytest.raises(Denied, match="wrong name"):
        refusing(step())
    assert refusing.unmet == {"hub_push": "wrong name"}
    refusing.ask = lambda request: ApprovalAnswer("approve", by="me")
    refusing(step(call_id="call_2"))
    assert refusing.unmet == {}


def test_without_anyone_to_ask_a_write_is_refused_and_a_read_is_free() -> None:
    alone = gate(None)
    alone(step(effects="read"))
    with pytest.raises(Denied, match="nobody can be asked"):
        alone(step())


def test_stop_ends_the_turn() -> None:
    stopped: list[str] = []
    with pytest.raises(Denied):
        gate(ApprovalAnswer("stop", "enough", "me"), on_stop=stopped.append)(step())
    assert stopped == ["enough"]


def test_an_answer_does_not_count_for_arguments_that_changed_meanwhile() -> None:
    call = step()

    def ask(request: ApprovalRequest) -> ApprovalAnswer:
        call.arguments["repo_id"] = "someone/else"
        return ApprovalAnswer("approve", by="me")

    with pytest.raises(Denied, match="changed while the question was open"):
        ApprovalGate(ApprovalPolicy(), ask)(call)


def test_the_binding_covers_tool_call_arguments_and_files() -> None:
    one = FileDigest("a", 1, "00")
    variants = [
        step(), step(tool="other"), step(call_id="call_2"), step(arguments={"repo_id": "me/y"}),
        step(files=(one,)), step(files=(FileDigest("a", 1, "01"),)), step(files=(FileDigest("b", 1, "00"),)),
    ]  # fmt: skip
    assert len({binding(variant) for variant in variants}) == len(variants)
    assert binding(step(arguments={"b": 1, "a": 2})) == binding(step(arguments={"a": 2, "b": 1}))


def test_nobody_is_asked_about_a_call_that_cannot_be_made() -> None:
    def ask(request: ApprovalRequest) -> ApprovalAnswer:
        raise AssertionError("asked in vain")

    ApprovalGate(ApprovalPolicy(), ask)(step(problem=ValueError("no such folder")))


def test_what_a_person_sees_is_masked() -> None:
    from ml_intern.secrets import Masker

    seen: list[ApprovalRequest] = []

    def ask(request: ApprovalRequest) -> ApprovalAnswer:
        seen.append(request)
        return ApprovalAnswer("approve")

    ApprovalGate(ApprovalPolicy(), ask, masker=Masker({"very-secret-value": "MY_TOKEN"}))(
        step(arguments={"card": "key very-secret-value"})
    )
    assert seen[0].arguments == {"card": "key [secret:MY_TOKEN]"}


def test_nobody_is_asked_for_code_that_has_ended() -> None:
    call = step()
    call.ended.set()

    def ask(request: ApprovalRequest) -> ApprovalAnswer:
        raise AssertionError("asked in vain")

    with pytest.raises(Denied, match="has ended"):
        ApprovalGate(ApprovalPolicy(), ask)(call)
