"""Rules: what is written is what is read, and what is read matches what it says and nothing else."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_intern.approval import BadRule, Call, Rule, rule_for
from ml_intern.approval.rules import EFFECTS
from ml_intern.events import Destination

ME = frozenset({"ada"})

READ = {
    "hub_push": Rule("allow", "hub_push"),
    "allow hub_push:me/*:private": Rule("allow", "hub_push", (), (), "me/*", "private"),
    "hub_push:me/*:private": Rule("allow", "hub_push", (), (), "me/*", "private"),
    "training_job:hf_jobs:<=5usd": Rule("allow", "training_job", (), (), "hf_jobs", "", 5.0),
    "training_job:<=0.5usd": Rule("allow", "training_job", max_usd=0.5),
    "training_job:hf_jobs:<=$5": Rule("allow", "training_job", (), (), "hf_jobs", "", 5.0),
    "deny hub_push:*:public": Rule("deny", "hub_push", (), (), "*", "public"),
    "  ask   x ": Rule("ask", "x"),
    "ask": Rule("allow", "ask"),  # a tool may be called so
    "deny *@write,spend": Rule("deny", "*", ("write", "spend")),
    "tool(arg=pattern)": Rule("allow", "tool", (), (("arg", "pattern"),)),
    "tool(a=x*, b=y):d": Rule("allow", "tool", (), (("a", "x*"), ("b", "y")), "d"),
    'tool(a="x, (y)"):"http://x"': Rule("allow", "tool", (), (("a", "x, (y)"),), "http://x"),
    "send(channel=#team)": Rule("allow", "send", (), (("channel", "#team"),)),
    "hub_repo@write(operation=create):me/*": Rule("allow", "hub_repo", ("write",), (("operation", "create"),), "me/*"),
}


@pytest.mark.parametrize("text", READ)
def test_a_rule_is_read_as_it_is_meant(text: str) -> None:
    assert Rule.parse(text) == READ[text]


def test_where_a_rule_does_not_say_what_it_does_its_place_does() -> None:
    assert Rule.parse("x:*:public", "deny") == Rule.parse("deny x:*:public")
    assert Rule.parse("ask x", "deny").action == "ask"


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", ":me/*", "hub_push:", "hub_push:a:b:c", "x:<=5eur", "x:<=-1usd", "x:<=5usd:<=6usd", "x(a)", "x(a=1", "x(=1)",
        "x@reading", "x y", "x\ny", 'x("a"=1)', 'x:"unclosed', "x:<=infusd", "x(a=1)b", "allow allow x",
    ],
)  # fmt: skip
def test_what_is_no_rule_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadRule, match="is no rule"):
        Rule.parse(text)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Zl", "Zp")), min_size=1, max_size=12).filter(
    lambda text: len(text.splitlines()) == 1
)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
rules = st.builds(
    Rule,
    st.sampled_from(("allow", "ask", "deny")),
    words,
    st.lists(st.sampled_from(EFFECTS), unique=True, max_size=3).map(tuple),
    st.lists(st.tuples(names, words), max_size=3).map(tuple),
    words,
    st.one_of(st.just(""), words),
    st.one_of(st.none(), st.floats(0, 1e6), st.integers(0, 1000).map(float)),
)


@pytest.mark.long
@given(rules)
def test_a_rules_text_reads_back_as_the_same_rule(rule: Rule) -> None:
    assert Rule.parse(str(rule)) == rule


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_a_bad_one(text: str) -> None:
    with contextlib.suppress(BadRule):
        assert Rule.parse(str(Rule.parse(text))) == Rule.parse(text)


def call(tool: str = "hub_push", where: str = "", visibility: str = "", **changes) -> Call:
    return Call(tool, destination=Destination(where, visibility) if where else None, **changes)


@pytest.mark.parametrize(
    ("rule", "one", "fits"),
    [
        ("hub_push", call(), True),
        ("hub_*", call(), True),
        ("hub", call(), False),
        ("HUB_PUSH", call(), False),
        ("*@write", call(effects="write"), True),
        ("*@write", call(effects="spend"), False),
        ("x:me/*", call("x", "ada/model"), True),
        ("x:me/*", call("x", "Ada/model"), True),
        ("x:me/*", call("x", "me/model"), False),
        ("x:me/*", call("x", "bob/model"), False),
        ("x:me/m*", call("x", "ada/data"), False),
        ("x:me/*", call("x"), False),
        ("x:*", call("x"), False),
        ("x:*", call("x", "hf_jobs"), True),
        ("x:bob/*", call("x", "bob/model"), True),
        ("x:me/*:private", call("x", "ada/m", "private"), True),
        ("x:me/*:private", call("x", "ada/m", "public"), False),
        ("x:me/*:private", call("x", "ada/m", ""), False),
        ("x:<=5usd", call("x", cost_usd=5.0), True),
        ("x:<=5usd", call("x", cost_usd=5.01), False),
        ("x:<=5usd", call("x", cost_usd=None), False),
        ("x:<=5usd", call("x", cost_usd=math.nan), False),
        ("x(a=1)", call("x", arguments={"a": 1}), True),
        ("x(a=1)", call("x", arguments={"a": "1"}), True),
        ("x(a=1)", call("x", arguments={"a": 11}), False),
        ("x(a=*)", call("x", arguments={}), False),
        ("x(a=*evil*)", call("x", arguments={"a": ["very evil"]}), True),
        ("x(a=b[*]c)", call("x", arguments={"a": "b*c"}), True),
        ("x(a=b[*]c)", call("x", arguments={"a": "bxc"}), False),
    ],
)
def test_a_rule_matches_what_it_says(rule: str, one: Call, fits: bool) -> None:
    assert Rule.parse(rule).matches(one, ME) is fits


@pytest.mark.parametrize(
    ("one", "rule"),
    [
        (call("hub_push", "ada/m", "private", effects="write"), "hub_push:me/*:private"),
        (call("hub_push", "ada/m", "public", effects="write"), "hub_push:ada/m:public"),
        (call("training_job", "hf_jobs", effects="spend", cost_usd=1.231), "training_job:hf_jobs:<=1.24usd"),
        (call("training_job", "hf_jobs", effects="spend"), None),
        (call("send", effects="unknown"), "send"),
        (call("s*d", effects="unknown"), "s[*]d"),
        (call("hub_repo", "ada/m", "private", effects="write", arguments={"operation": "delete"}),
         "hub_repo(operation=delete):me/*:private"),
    ],
)  # fmt: skip
def test_the_rule_for_a_kind_of_call_is_as_narrow_as_makes_sense(one: Call, rule: str | None) -> None:
    made = rule_for(one, ME)
    assert (made and made.short) == rule
    assert made is None or made.matches(one, ME)


@pytest.mark.parametrize("name", ["Me/prod", "me/PROD", "ME/Prod"])
def test_what_is_denied_is_denied_however_its_name_is_written(name: str) -> None:
    """The Hub takes it for the same repository; what is allowed is what was written."""
    call = Call("hub_push", effects="write", destination=Destination(name, "public"))
    own = frozenset({"me"})
    for pattern in ("me/prod", "me/PROD", "Me/p*", "*/prod"):
        assert Rule.parse(f"deny hub_push:{pattern}").matches(call, own)
        assert Rule.parse(f"ask hub_push:{pattern}").matches(call, own)
    assert not Rule.parse("allow hub_push:someone/prod").matches(call, own)
    assert not Rule.parse("deny hub_push:me/prods").matches(call, own)
