"""The gate: who is asked, what an answer does, and for what it does not count."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ml_intern.approval import NOBODY, ApprovalGate, ApprovalPolicy, Rule, ask_at_terminal, binding, nobody
from ml_intern.approval.asking import _put
from ml_intern.errors import Denied, Parking
from ml_intern.events import ApprovalAnswer, ApprovalRequest, Destination, FileDigest
from ml_intern.secrets import Masker
from ml_intern.steps import Observer, ToolCallStep

YES = ApprovalAnswer("approve", by="me")


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


class Person:
    """Answers with one thing after the other, and keeps what was asked."""

    def __init__(self, *answers: ApprovalAnswer | Callable[[ApprovalRequest], ApprovalAnswer]) -> None:
        self.answers, self.asked = list(answers), []

    def __call__(self, request: ApprovalRequest) -> ApprovalAnswer:
        assert self.answers, f"asked in vain: {request}"
        self.asked.append(request)
        answer = self.answers.pop(0)
        return answer(request) if callable(answer) else answer


def gate(*answers, policy: ApprovalPolicy | None = None, **options) -> ApprovalGate:
    return ApprovalGate(policy or ApprovalPolicy(), Person(*answers), **options)


def revising(call: ToolCallStep) -> ToolCallStep:
    """The call with what the router does for an edit."""

    def revise(step: ToolCallStep, edits: dict) -> None:
        step.arguments = step.arguments | edits
        step.edited = edits

    call.revise = revise
    return call


def test_an_approved_call_is_on_record_before_it_may_run() -> None:
    heard = Heard()
    gate(YES, observer=heard)(step())
    digest = binding(step())
    assert heard.said == [("asked", "hub_push", digest), ("answered", "approve", digest)]


def test_a_refusal_gives_the_model_the_reason_and_stays_unmet_until_approved() -> None:
    refusing = gate(ApprovalAnswer("reject", "wrong name", "me"), YES)
    with pytest.raises(Denied, match="wrong name"):
        refusing(step())
    assert refusing.unmet == {"hub_push": "wrong name"}
    refusing(step(call_id="call_2"))
    assert refusing.unmet == {}


@pytest.mark.parametrize("ask", [None, nobody])
def test_without_anyone_to_ask_a_write_is_refused_with_the_rule_and_a_read_is_free(ask) -> None:
    alone = ApprovalGate(ApprovalPolicy(own=frozenset({"ada"})), ask)
    alone(step(effects="read"))
    with pytest.raises(Denied, match=r"nobody can be asked here; --allow 'hub_push:me/\*:private' allows it"):
        alone(step(destination=Destination("ada/x", "private")))
    with pytest.raises(Denied, match=r"no rule allows it: .*bob/x, which is not in a namespace of yours"):
        alone(step(destination=Destination("bob/x", "private")))
    with pytest.raises(Denied, match="repeats text from a paper"):
        alone(step(sources=("a paper",)))


def test_the_rule_in_a_refusal_does_allow_the_call() -> None:
    call = step(destination=Destination("ada/x", "private"))
    alone = ApprovalGate(ApprovalPolicy(own=frozenset({"ada"})))
    with pytest.raises(Denied) as refused:
        alone(call)
    text = str(refused.value).split("--allow '")[1].split("'")[0]
    ApprovalGate(ApprovalPolicy.of([text], own=["ada"]))(call)


def test_stop_ends_the_turn() -> None:
    stopped: list[str] = []
    with pytest.raises(Denied):
        gate(ApprovalAnswer("stop", "enough", "me"), on_stop=stopped.append)(step())
    assert stopped == ["enough"]


def test_a_rule_that_denies_refuses_and_nobody_is_asked() -> None:
    for mode in ("ask", "auto", "deny", "plan"):
        denying = gate(policy=ApprovalPolicy.of(["*"], ["hub_push"], mode))
        with pytest.raises(Denied, match="the rule 'deny hub_push' refuses it"):
            denying(step())


def test_while_planning_writing_is_refused_and_the_turn_is_no_failure_for_it() -> None:
    planning = gate(policy=ApprovalPolicy("plan"))
    with pytest.raises(Denied, match="mode plan"):
        planning(step())
    assert planning.unmet == {}
    planning(step(effects="read"))


def test_the_policy_may_change_at_any_time() -> None:
    changing = gate(YES)
    changing.policy = ApprovalPolicy("deny")
    with pytest.raises(Denied):
        changing(step())
    changing.policy = ApprovalPolicy("ask")
    changing(step())


# What an answer binds to.


def test_an_answer_does_not_count_for_arguments_that_changed_meanwhile() -> None:
    call = step()

    def ask(request: ApprovalRequest) -> ApprovalAnswer:
        call.arguments["repo_id"] = "someone/else"
        return YES

    with pytest.raises(Denied, match="changed while the question was open"):
        gate(ask)(call)


def test_the_binding_covers_tool_call_arguments_and_files() -> None:
    one = FileDigest("a", 1, "00")
    variants = [
        step(), step(tool="other"), step(call_id="call_2"), step(arguments={"repo_id": "me/y"}),
        step(files=(one,)), step(files=(FileDigest("a", 1, "01"),)), step(files=(FileDigest("b", 1, "00"),)),
        step(arguments={"x": b"a" * 5000}), step(arguments={"x": b"a" * 4999 + b"b"}), step(arguments={"x": 1}),
        step(arguments={"x": "1"}), step(arguments={"x": object}), step(arguments={"x": repr(object)}),
    ]  # fmt: skip
    assert len({binding(variant) for variant in variants}) == len(variants)
    assert binding(step(arguments={"b": 1, "a": 2})) == binding(step(arguments={"a": 2, "b": 1}))


def test_nobody_is_asked_about_a_call_that_cannot_be_made() -> None:
    gate()(step(problem=ValueError("no such folder")))


def test_nobody_is_asked_for_code_that_has_ended() -> None:
    call = step()
    call.ended.set()
    with pytest.raises(Denied, match="has ended"):
        gate()(call)


def test_what_a_person_sees_is_masked() -> None:
    masked = gate(YES, masker=Masker({"very-secret-value": "MY_TOKEN"}))
    masked(step(arguments={"card": "key very-secret-value"}, sources=("`x` (very-secret-value)",)))
    assert masked.ask.asked[0].arguments == {"card": "key [secret:MY_TOKEN]"}
    assert masked.ask.asked[0].sources == ("`x` ([secret:MY_TOKEN])",)


def test_a_person_sees_all_that_there_is_to_see() -> None:
    asking = gate(YES, policy=ApprovalPolicy(own=frozenset({"ada"})), left_usd=lambda: 4.0)
    file = FileDigest("m/a", 1, "00")
    where = Destination("ada/x", "public")
    asking(
        step(destination=where, cost_usd=1.0, files=(file,), preview="a diff", sources=("a paper",), agent="reader")
    )
    request = asking.ask.asked[0]
    assert (request.destination, request.cost_usd, request.left_usd, request.sources) == (
        where,
        1.0,
        4.0,
        ("a paper",),
    )
    assert (request.files, request.preview, request.agent, request.rule) == ((file,), "a diff", "reader", "")
    assert "a paper" in request.reason


# Rules that answers give.


@pytest.mark.parametrize("scope", ["session", "always"])
def test_an_approval_of_a_kind_is_asked_once(scope: str) -> None:
    given: list[tuple[Rule, str]] = []
    asking = gate(
        ApprovalAnswer("approve", by="me", scope=scope),
        policy=ApprovalPolicy(own=frozenset({"ada"})),
        on_rule=lambda rule, scope: given.append((rule, scope)),
    )
    asking(step(destination=Destination("ada/x", "private")))
    asking(step(call_id="call_2", destination=Destination("ada/y", "private")))
    assert given == [(Rule.parse("hub_push:me/*:private"), scope)]
    assert asking.ask.asked[0].rule == "hub_push:me/*:private"
    asking.ask.answers = [ApprovalAnswer("reject")]
    with pytest.raises(Denied):
        asking(step(call_id="call_3", destination=Destination("ada/y", "public")))


@pytest.mark.parametrize(
    "changes",
    [{"destination": Destination("bob/x", "private")}, {"sources": ("a paper",)}],
    ids=["foreign", "untrusted"],
)
def test_what_no_rule_can_allow_is_approved_once_whatever_the_answer_says(changes: dict) -> None:
    heard = []

    class Recorded(Observer):
        def approval_answered(self, request, answer, digest) -> None:
            heard.append(answer.scope)

    always = ApprovalAnswer("approve", by="me", scope="always")
    asking = gate(always, YES, on_rule=lambda rule, scope: heard.append(rule), observer=Recorded())
    asking(step(**changes))
    asking(step(call_id="call_2", **changes))
    assert heard == ["once", "once"] and asking.policy.rules == ()


def test_a_rule_that_cannot_be_put_on_record_does_not_count() -> None:
    def full(rule: Rule, scope: str) -> None:
        raise OSError("disk full")

    asking = gate(ApprovalAnswer("approve", scope="session"), on_rule=full)
    with pytest.raises(OSError, match="disk full"):
        asking(step(destination=None))
    assert asking.policy.rules == ()


def test_calls_that_wait_for_their_turn_profit_from_the_rule_that_the_first_one_got() -> None:
    open_, asked = threading.Event(), threading.Event()

    def slowly(request: ApprovalRequest) -> ApprovalAnswer:
        asked.set()
        assert open_.wait(5)
        return ApprovalAnswer("approve", scope="session")

    asking = gate(slowly)
    threads = [threading.Thread(target=asking, args=(step(call_id=f"call_{i}"),)) for i in range(5)]
    for thread in threads:
        thread.start()
    assert asked.wait(5)
    open_.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert len(asking.ask.asked) == 1


def test_two_questions_are_never_open_at_once() -> None:
    inside, most = [], []

    def ask(request: ApprovalRequest) -> ApprovalAnswer:
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.02)
        inside.pop()
        return YES

    asking = gate(*[ask] * 6)
    threads = [threading.Thread(target=asking, args=(step(call_id=f"call_{i}"),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 6


# Edits.


def test_edited_arguments_are_looked_at_again_and_shown() -> None:
    heard = Heard()
    call = revising(step())
    edit = ApprovalAnswer("edit", by="me", arguments={"repo_id": "me/y"})
    asking = gate(edit, YES, observer=heard)
    asking(call)
    assert [request.arguments for request in asking.ask.asked] == [{"repo_id": "me/x"}, {"repo_id": "me/y"}]
    assert [kind for kind, *_ in heard.said] == ["asked", "answered"] * 2
    assert heard.said[0][2] != heard.said[2][2] and heard.said[2][2] == binding(step(arguments={"repo_id": "me/y"}))


def test_an_edit_that_a_rule_denies_is_refused() -> None:
    call = revising(step())
    edit = ApprovalAnswer("edit", by="me", arguments={"repo_id": "me/y"})
    asking = gate(edit, policy=ApprovalPolicy.of(deny=["hub_push(repo_id=me/y)"]))
    with pytest.raises(Denied, match="refuses it"):
        asking(call)


def test_an_edit_that_is_not_approved_is_not_made() -> None:
    call = revising(step())
    edit = ApprovalAnswer("edit", by="me", arguments={"repo_id": "me/y"})
    with pytest.raises(Denied, match="no after all"):
        gate(edit, ApprovalAnswer("reject", "no after all", "me"))(call)


def test_a_program_that_edits_for_ever_is_stopped() -> None:
    edit = ApprovalAnswer("edit", arguments={"repo_id": "me/y"})
    with pytest.raises(Denied, match="edited 20 times"):
        gate(*[edit] * 30)(revising(step()))


def test_a_call_that_cannot_be_made_ready_again_is_not_made() -> None:
    with pytest.raises(Denied, match="cannot be edited"):
        gate(ApprovalAnswer("edit", arguments={"repo_id": "me/y"}))(step())


# Questions of the agent's own.


def question(**changes) -> ToolCallStep:
    return step(tool="ask_user", effects="read", arguments={"question": "Which one?"}, **changes)


def test_an_answer_reaches_the_tool_that_asked() -> None:
    call, said = question(), ApprovalAnswer("approve", by="me", text="the second")
    gate(said, policy=ApprovalPolicy.of(["*"], mode="auto"))(call)
    assert call.answer == said


@pytest.mark.parametrize("ask", [None, nobody])
def test_a_question_to_nobody_is_no_refusal(ask) -> None:
    alone, call = ApprovalGate(ApprovalPolicy(), ask), question()
    alone(call)
    assert call.answer is None and alone.unmet == {}


def test_a_question_is_not_put_in_the_mode_deny_and_can_be_left_unanswered() -> None:
    call = question()
    gate(policy=ApprovalPolicy("deny"))(call)
    assert call.answer is None
    asking = gate(ApprovalAnswer("reject", "none of these", "me"))
    asking(call)
    assert call.answer.decision == "reject" and asking.unmet == {}


def test_a_question_can_be_answered_with_a_stop() -> None:
    stopped: list[str] = []
    with pytest.raises(Denied):
        gate(ApprovalAnswer("stop", "enough"), on_stop=stopped.append)(question())
    assert stopped == ["enough"]


def test_a_tool_from_elsewhere_that_is_called_like_it_is_no_question() -> None:
    asking = gate(ApprovalAnswer("reject"))
    with pytest.raises(Denied):
        asking(step(tool="ask_user", effects="unknown"))


# Sleeping.


def test_a_call_that_waits_while_its_session_sleeps_has_no_answer() -> None:
    def park(request: ApprovalRequest) -> ApprovalAnswer:
        raise Parking

    heard = Heard()
    parked = gate(park, YES, observer=heard)
    with pytest.raises(Parking):
        parked(step())
    assert [kind for kind, *_ in heard.said] == ["asked"] and parked.unmet == {}
    parked(step(call_id="call_2"))  # the gate itself is free


def test_what_was_approved_meanwhile_is_not_asked_again_and_nothing_else_passes_for_it() -> None:
    gate()(step(approved=binding(step())))
    with pytest.raises(Denied, match="not those that were approved"):
        gate()(step(approved=binding(step()), arguments={"repo_id": "me/y"}))
    with pytest.raises(Denied, match="refuses it"):
        gate(policy=ApprovalPolicy.of(deny=["hub_push"]))(step(approved=binding(step())))


# The user's own namespaces.


def test_a_mode_that_is_set_while_namespaces_are_looked_up_is_kept() -> None:
    finding = gate(policy=ApprovalPolicy.of(["hub_push:me/*"]))

    def find() -> list[str]:
        finding.change(mode="plan")
        return ["ada"]

    finding.find_own = find
    with pytest.raises(Denied, match="mode plan"):
        finding(step(destination=Destination("ada/x", "private")))
    assert finding.policy.own == {"ada"} and finding.policy.mode == "plan"


def test_own_namespaces_are_found_when_they_matter_and_once() -> None:
    calls = []

    def find() -> list[str]:
        calls.append(1)
        return ["Ada"]

    finding = gate(policy=ApprovalPolicy.of(["hub_push:me/*"]), find_own=find)
    finding(step(effects="read"))
    assert calls == []
    for _ in range(2):
        finding(step(destination=Destination("ada/x", "private")))
    assert calls == [1]


def test_without_the_hub_every_namespace_is_foreign() -> None:
    def find() -> list[str]:
        raise ConnectionError("down")

    finding = gate(ApprovalAnswer("reject", "no"), policy=ApprovalPolicy.of(["hub_push:*"]), find_own=find)
    with pytest.raises(Denied):
        finding(step(destination=Destination("ada/x", "private")))
    finding.find_own = lambda: ["ada"]
    finding(step(destination=Destination("ada/x", "private")))


def test_nobody_is_at_a_terminal_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert ask_at_terminal(ApprovalRequest("c", "x", {}, "write", "why")).by == NOBODY


def test_what_others_wrote_clears_no_terminal_where_a_person_decides(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "It only looks.\x1b[2J\x1b[H\u202eInnocent\r\x9b2J"
    request = ApprovalRequest("c", "x", {"a": evil}, "unknown", f"why {evil}", f"Définition: 数\n\t{evil}",
                              files=(FileDigest(evil, 1, "0" * 64),), sources=(evil,), agent=evil, rule=evil)  # fmt: skip
    _put(request)
    shown = capsys.readouterr().err
    assert not set("\x1b\u202e\r\x9b") & set(shown) and "  | Définition: 数\n  | \tIt only looks." in shown
