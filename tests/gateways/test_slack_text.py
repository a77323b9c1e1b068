"""Whatever a model, a tool or a person writes: it pings nobody, links to nothing it does not show, and fits into Slack."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_intern.events import ApprovalAnswer, ApprovalRequest, Destination, FileDigest, Outcome, State, Usage
from ml_intern.gateways import slack_cards as cards
from ml_intern.gateways import slack_modals as modals
from ml_intern.gateways.slack_text import cut, escape, fenced, mrkdwn, one_line, plain, span, visible
from ml_intern.testing.slack_limits import modal_problems, problems

SPELLS = [
    "<!channel>", "<!here|x>", "<@U123>", "<#C1|general>", "<https://evil.example|https://good.example>", "```", "`", "**", "*",
    "__", "_", "~~", "[x](https://evil.example)", "[https://good.example](https://evil.example/<!channel>)", "&lt;!channel&gt;",
    "&", "&amp;", "<", ">", "|", "\n", "\n# ", "\n- ", "\n|a|b|\n|-|-|\n", "[x](javascript:alert(1))", "(https://a.example/b_c_)",
    "\u202e", "\u2028", "\x00", "\ue000", "\ud83d", "é", "漢" * 50, "a" * 400, " " * 40, "![i](http://x.example/p.png \"t\")",
]  # fmt: skip
TEXT = st.lists(st.one_of(st.sampled_from(SPELLS), st.text(max_size=12)), max_size=25).map("".join)
LONG = st.builds(lambda text, times: text * times, TEXT, st.sampled_from([1, 3, 12]))
MADE = re.compile(r"<(https?://[^\s<>|]+)>")


def harmless(text: str) -> None:
    """Slack acts on nothing in it but links that show where they lead, and dates of ours."""
    rest = re.sub(r"<!date\^\d+\^\{date_short_pretty\} \{time\}\|\d+>", "", MADE.sub("", text))
    assert "<" not in rest and ">" not in rest, text
    assert re.fullmatch(r"(?:[^&]|&amp;|&lt;|&gt;)*", rest), text
    assert not re.search("[\x00-\x08\u202a-\u202e\u2028\ue000]", text)


def all_texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["text"]] if value.get("type") == "mrkdwn" else []
        return own + [text for item in value.values() for text in all_texts(item)]
    return [text for item in value for text in all_texts(item)] if isinstance(value, list | tuple) else []


def sound(card: cards.Card) -> None:
    assert problems(list(card.blocks)) == []
    assert len(card.text) <= 3_000
    for text in [card.text, *all_texts(card.blocks)]:
        harmless(text)
    for block in card.blocks:
        for text in [block.get("text"), *block.get("elements", [])]:
            assert not text or text.get("type") != "mrkdwn" or text["verbatim"] is True
        if block["type"] == "section":
            assert block["text"]["text"].count("```") % 2 == 0, "a code block that does not end"


@settings(max_examples=60, deadline=None)
@given(LONG)
@example("(https://a.example/b_c_)" * 24)
def test_any_text_is_harmless_and_fits(text: str) -> None:
    harmless(escape(text))
    harmless(one_line(text))
    assert "\n" not in one_line(text)
    assert span(text).count("`") == 2
    harmless(span(text))
    for piece in [*mrkdwn(text, 500), *fenced(text, 500)]:
        harmless(piece)
        assert len(piece) <= 500
        assert piece.count("```") % 2 == 0


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_what_is_cut_is_whole(text: str) -> None:
    made = escape(text).strip("\n")
    assert "".join(cut(made, 40)).replace("\n", "") == made.replace("\n", "")
    assert all(len(piece) <= 40 for piece in cut(made, 40))


REQUESTS = st.builds(
    ApprovalRequest,
    call_id=st.just("call_1"),
    tool=TEXT,
    arguments=st.dictionaries(TEXT, st.one_of(LONG, st.integers(), st.lists(TEXT, max_size=5)), max_size=6),
    effects=st.sampled_from(["write", "spend", "execute", "unknown"]),
    reason=LONG,
    preview=LONG,
    files=st.lists(st.builds(FileDigest, path=TEXT, size=st.integers(0, 9), sha256=st.just("0")), max_size=12).map(
        tuple
    ),
    cost_usd=st.sampled_from([None, 0.0, 3.5]),
    left_usd=st.sampled_from([None, 1.0, -2.0]),
    destination=st.one_of(
        st.none(), st.builds(Destination, TEXT, st.sampled_from(["public", "private", "", "<!channel>"]))
    ),
    sources=st.lists(TEXT, max_size=12).map(tuple),
    rule=st.sampled_from(["", "publish:<!here>"]),
    agent=TEXT,
)
ANSWERS = st.builds(ApprovalAnswer, st.sampled_from(["approve", "reject", "stop"]), LONG, TEXT, text=LONG)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(REQUESTS, ANSWERS)
def test_any_question_is_harmless_and_fits(request: ApprovalRequest, answer: ApprovalAnswer) -> None:
    sound(cards.question(request, "key"))
    sound(cards.closed(request, answer, 1_700_000_000.0))
    sound(cards.expired(request, answer.reason))
    for view in (modals.edit(request, "key"), modals.reason(request, "key"), modals.answer(request, "key")):
        assert modal_problems(view) == []
        for text in all_texts(view):
            harmless(text)


@settings(max_examples=60, deadline=None)
@given(LONG, st.lists(TEXT, max_size=30))
def test_any_question_of_the_agent_is_harmless_and_fits(asked: str, choices: list[str]) -> None:
    request = ApprovalRequest("call_1", "ask_user", {"question": asked, "choices": choices}, "read", "the agent asks")
    sound(cards.question(request, "key"))
    assert modal_problems(modals.answer(request, "key")) == []


@settings(max_examples=60, deadline=None)
@given(LONG, LONG, st.lists(st.fixed_dictionaries({"text": LONG, "status": st.sampled_from(["done", "pending", "x"])}), max_size=40))  # fmt: skip
def test_any_report_and_plan_is_harmless_and_fits(answer: str, reason: str, items: list[dict[str, str]]) -> None:
    sound(cards.report(Outcome(State.ERROR, answer, reason, 3, 7.0, Usage()), "0123456789", "https://hub.example/a&b"))
    sound(cards.report(Outcome(State.SUCCESS, {"a": [answer]}, "", 3, 7.0, Usage()), "0123456789"))
    sound(cards.plan(items))
    sound(cards.begun(answer, "0123456789", reason, True))
    sound(cards.line(escape(answer)))


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("# A **title**", "*A title*"),
        ("**bold** and *italic* and ~~gone~~", "*bold* and _italic_ and ~gone~"),
        ("- one\n- [x] two\n- [ ] three", "• one\n☑ two\n☐ three"),
        ("`a*b*c` is 2 * 3 * 4", "`a*b*c` is 2 * 3 * 4"),
        ("see [the model](https://hub.example/me/x)", "see the model (<https://hub.example/me/x>)"),
        ("[https://good.example](https://evil.example)", "https://good.example (<https://evil.example>)"),
        ("https://hub.example/a_b_c?x=1&y=2.", "<https://hub.example/a_b_c?x=1&amp;y=2>."),
        ("(https://x.example/y)", "(<https://x.example/y>)"),
        ("[run](javascript:alert)", "[run](javascript:alert)"),
        ("a\n```python\nx = 1 < 2\n```\nb", "a\n```\nx = 1 &lt; 2\n```\nb"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "```\n| a | b |\n|---|---|\n| 1 | 2 |\n```"),
        ("snake_case_name and __init__", "snake_case_name and *init*"),
        ("<!channel> <@U1>", "&lt;!channel&gt; &lt;@U1&gt;"),
    ],
)
def test_markdown_as_slack_writes_it(markdown: str, shown: str) -> None:
    assert "\n".join(mrkdwn(markdown)) == shown


def test_what_somebody_wrote_is_read_as_they_see_it() -> None:
    said = "look at <https://hub.example/x|the hub>, <@U1|ann> &amp; <#C1|general> &lt;b&gt; <mailto:a@b.example|a@b.example>"
    assert plain(said) == "look at https://hub.example/x, @ann & #general <b> a@b.example"
    assert visible("a\u202eb\x00c\r\nd") == "a\ufffdb\ufffdc\nd"


def test_long_text_is_a_file() -> None:
    card = cards.report(Outcome(State.SUCCESS, "word " * 5_000, "", 1, 1.0, Usage()), "0123456789")
    assert card.files == (("report.md", "word " * 5_000),) and "report.md" in str(card.blocks)
    long = ApprovalRequest("c", "publish", {"what": "x"}, "write", "why", preview="line\n" * 5_000)
    assert cards.question(long, "key").files == (("preview.txt", long.preview),)


def test_what_is_edited_comes_back_as_it_was_meant() -> None:
    arguments = {"name": "a", "count": 3, "tags": ["x"], "long": "y" * 4_000, "same": "z"}
    request = ApprovalRequest("c", "publish", arguments, "write", "why")
    view = modals.edit(request, "key")
    fields = {block["block_id"] for block in view["blocks"] if block["type"] == "input"}
    assert fields == {"arg:name", "arg:count", "arg:tags", "arg:same"} and "long" in str(view["blocks"][-1])
    values = {"arg:name": "b", "arg:count": "4", "arg:tags": '["x", "y"]', "arg:same": "z"}
    assert modals.changes(request, values) == ({"name": "b", "count": 4, "tags": ["x", "y"]}, {})
    assert modals.changes(request, {"arg:count": "four"})[1].keys() == {"arg:count"}
    unchanged = {"arg:name": "a", "arg:count": "3", "arg:tags": '["x"]', "arg:same": "z"}
    assert list(modals.changes(request, unchanged)[1]) == ["arg:name"], "nothing is changed"
