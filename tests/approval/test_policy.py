"""The policy as tables, and what holds of it whatever the rules are."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_intern.approval import MODES, ApprovalPolicy, BadRule, Call, Rule
from ml_intern.approval.rules import EFFECTS
from ml_intern.events import Destination

ME = frozenset({"ada"})
RULES = {
    "no rule": (),
    "allow": ("allow t",),
    "ask": ("ask t",),
    "deny": ("deny t",),
    "allow and ask": ("allow t", "ask t"),
    "allow and deny": ("allow t", "deny t"),
    "all three": ("allow t", "ask t", "deny t"),
    "of others": ("allow u", "ask u", "deny u"),
}


def expected(effects: str, mode: str, rules: str, vouched: bool) -> str:
    """The same said otherwise: from the outcome to what it takes."""
    has = {text.split()[0] for text in RULES[rules]} if rules != "of others" else set()
    reads = effects == "read"
    if "deny" in has or (mode == "plan" and not reads):
        return "deny"
    free = reads or "allow" in has or (vouched and effects in ("execute", "unknown"))
    if "ask" not in has and free:
        return "allow"
    return "deny" if mode == "deny" else "ask"


@pytest.mark.parametrize(("effects", "mode", "rules"), list(itertools.product(EFFECTS, MODES, RULES)))
def test_the_policy_is_this_table(effects: str, mode: str, rules: str) -> None:
    parsed = tuple(map(Rule.parse, RULES[rules]))
    for vouched, trusts in itertools.product((True, False), repeat=2):
        verdict = ApprovalPolicy(mode, parsed, trusts, ME).decide(Call("t", effects=effects, vouched=vouched))
        assert verdict.action == expected(effects, mode, rules, vouched and trusts), (vouched, trusts)
        assert verdict.reason


@pytest.mark.parametrize("effects", [effects for effects in EFFECTS if effects != "read"])
@pytest.mark.parametrize(
    "changes",
    [
        {"destination": Destination("bob/m", "private")},
        {"sources": ("`arxiv_search`",)},
        {"cost_usd": 6.0, "left_usd": 5.0},
    ],
    ids=["elsewhere", "untrusted", "too dear"],
)
def test_what_no_rule_allows_is_asked(effects: str, changes: dict) -> None:
    for mode, action in {"ask": "ask", "auto": "ask", "deny": "deny", "plan": "deny"}.items():
        policy = ApprovalPolicy.of(["*", "t:*", "t@write", "t:bob/*:private"], mode=mode, own=["ada"])
        one = Call("t", effects=effects, **changes)
        assert policy.decide(one).action == action
        assert policy.rule_for(one) is None


def test_money_that_nobody_can_price_is_asked_about_while_there_is_a_budget() -> None:
    policy = ApprovalPolicy.of(["t"], mode="auto")
    assert policy.decide(Call("t", effects="spend")).action == "allow"
    assert policy.decide(Call("t", effects="spend", left_usd=5.0)).action == "ask"
    assert policy.decide(Call("t", effects="spend", left_usd=5.0, cost_usd=5.0)).action == "allow"


def test_the_callers_word_covers_text_from_outside_and_no_other_namespace() -> None:
    policy = ApprovalPolicy(own=ME)
    assert policy.decide(Call("t", effects="unknown", vouched=True, sources=("a page",))).action == "allow"
    assert policy.decide(Call("t", effects="unknown", vouched=True, destination=Destination("bob/x"))).action == "ask"


def test_one_grant_for_the_night() -> None:
    policy = ApprovalPolicy.of(["hub_push:me/*:private", "training_job:hf_jobs:<=5usd"], mode="auto", own=["ada"])
    push = Call("hub_push", effects="write", destination=Destination("ada/m", "private"))
    job = Call("training_job", effects="spend", destination=Destination("hf_jobs"), cost_usd=4.0)
    assert [policy.decide(one).action for one in (push, job)] == ["allow", "allow"]
    public = replace(push, destination=Destination("ada/m", "public"))
    elsewhere = replace(push, destination=Destination("bob/m", "private"))
    dear, unpriced, local = replace(job, cost_usd=5.1), replace(job, cost_usd=None), replace(job, destination=None)
    for one in (public, elsewhere, dear, unpriced, local, replace(push, sources=("a paper",))):
        assert policy.decide(one).action == "ask"


def test_rules_stand_in_the_list_that_they_belong_to() -> None:
    assert ApprovalPolicy.of(deny=["x"]).rules == (Rule("deny", "x"),)
    assert ApprovalPolicy.of(["allow x"], ["deny y"]).rules == (Rule("allow", "x"), Rule("deny", "y"))
    with pytest.raises(BadRule, match="among the rules that allow"):
        ApprovalPolicy.of(["deny x"])
    with pytest.raises(BadRule):
        ApprovalPolicy.of(deny=["ask x"])


patterns = st.sampled_from(["t", "u", "*", "t*", "?"])
some_rules = st.builds(
    Rule,
    st.sampled_from(("allow", "ask", "deny")),
    patterns,
    st.lists(st.sampled_from(EFFECTS), unique=True, max_size=2).map(tuple),
    st.sampled_from(((), (("a", "1"),), (("a", "*"),))),
    st.sampled_from(["", "*", "me/*", "bob/*", "hf_jobs"]),
    st.sampled_from(["", "private", "public"]),
    st.sampled_from([None, 1.0, 5.0]),
)
calls = st.builds(
    Call,
    st.sampled_from(["t", "u"]),
    st.sampled_from([{}, {"a": "1"}, {"a": "2", "operation": "x"}]),
    st.sampled_from(EFFECTS),
    st.booleans(),
    st.sampled_from(
        [
            None,
            Destination("ada/m", "private"),
            Destination("ada/m", "public"),
            Destination("bob/m"),
            Destination("hf_jobs"),
        ]
    ),
    st.sampled_from([None, 0.5, 3.0, 10.0]),
    st.sampled_from([None, 2.0, 20.0]),
    st.sampled_from([(), ("a paper",)]),
)
policies = st.builds(
    ApprovalPolicy, st.sampled_from(MODES), st.lists(some_rules, max_size=5).map(tuple), st.booleans(), st.just(ME)
)
ORDER = {"deny": 0, "ask": 1, "allow": 2}


@given(policies, calls, some_rules)
def test_a_rule_that_denies_wins_and_one_that_is_added_moves_only_its_own_way(policy, one, rule) -> None:
    before, after = policy.decide(one).action, policy.with_rule(rule).decide(one).action
    if any(r.action == "deny" and r.matches(one, ME) for r in policy.rules):
        assert before == "deny"
    if rule.action == "allow":
        assert before != "deny" or after == "deny" or policy.mode == "deny"
        assert ORDER[after] >= ORDER[before]
        if any(r.action == "deny" and r.matches(one, ME) for r in policy.rules):
            assert after == "deny"
    else:
        assert ORDER[after] <= ORDER[before]
        assert rule.action == "ask" or not rule.matches(one, ME) or after == "deny"


@given(policies, calls)
def test_the_order_of_rules_does_not_matter(policy, one) -> None:
    assert policy.decide(one).action == replace(policy, rules=policy.rules[::-1]).decide(one).action


@given(policies, calls)
def test_the_rule_that_is_proposed_allows_the_call_and_is_never_proposed_in_vain(policy, one) -> None:
    rule = policy.rule_for(one)
    if rule is not None:
        assert policy.with_rule(rule).decide(one).action == "allow"
        assert rule.matches(one, ME)
    if one.effects != "read" and (one.destination == Destination("bob/m") or policy.mode == "plan"):
        assert rule is None


@given(policies, calls)
def test_planning_only_reads(policy, one) -> None:
    if one.effects != "read":
        assert replace(policy, mode="plan").decide(one).action == "deny"
