"""What is asked and what comes of it, without a terminal: the dialogue says what it needs and is given it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
import stage

from ml_intern.cli.ask import Edited, Line, Withdrawn, changes, dialogue
from ml_intern.cli.card import card
from ml_intern.cli.paper import Paper
from ml_intern.events import ApprovalAnswer, ApprovalRequest, Destination

PUSH = replace(stage.PUSH, rule="allow hub_push:me/*:private")
QUESTION = ApprovalRequest(
    "c1", "ask_user", {"question": "Which licence?", "choices": ["mit", "apache-2.0"]}, "read", ""
)


def talk(
    request: ApprovalRequest, said: Sequence[str | type[BaseException] | None]
) -> tuple[ApprovalAnswer | None, str]:
    """Answers in the order given; an exception is thrown in. Everything has to be used up."""
    file = io.StringIO()
    asking = dialogue(Paper(file, 80, False), request, "/home/me/rules")
    needs = [next(asking)]
    left = list(said)
    try:
        while True:
            item = left.pop(0)
            needs.append(asking.throw(item()) if isinstance(item, type) else asking.send(item))
    except StopIteration as end:
        assert left == []
        shown = file.getvalue() + "\n".join(need.prompt for need in needs if isinstance(need, Line))
        return end.value, shown


@pytest.mark.parametrize(
    ("said", "decision", "scope", "reason"),
    [
        (["y"], "approve", "once", ""),
        (["YES"], "approve", "once", ""),
        (["a"], "approve", "session", ""),
        (["A", "y"], "approve", "always", ""),
        (["A", "n", "n", ""], "reject", "once", ""),
        (["A", "", "y"], "approve", "once", ""),
        (["", "maybe", "n", " too early "], "reject", "once", "too early"),
        (["s"], "stop", "once", ""),
        (["v", "y"], "approve", "once", ""),
        ([KeyboardInterrupt], "stop", "once", "interrupted at the question"),
        (["n", KeyboardInterrupt], "stop", "once", "interrupted at the question"),
        ([EOFError], "reject", "once", "the terminal was closed at the question"),
    ],
)
def test_keys(said: list, decision: str, scope: str, reason: str) -> None:
    answer, _ = talk(PUSH, said)
    assert (answer.decision, answer.scope, answer.reason, answer.by) == (decision, scope, reason, "terminal")


def test_for_good_shows_the_rule_and_where_it_goes_before_it_is_saved() -> None:
    answer, shown = talk(PUSH, ["A", "n", "s"])
    assert answer.decision == "stop"
    assert "hub_push:me/*:private in every session from now on" in " ".join(shown.split())
    assert "saved in   /home/me/rules" in shown
    assert "save this rule? [y/n]" in shown


def test_without_a_rule_there_is_no_this_kind() -> None:
    answer, shown = talk(replace(PUSH, rule=""), ["a", "A", "y"])
    assert answer.scope == "once"
    assert "[y/e/n/s]" in shown
    assert shown.count("one letter") == 2


def test_a_question_that_was_answered_elsewhere_has_no_answer() -> None:
    assert talk(PUSH, [Withdrawn])[0] is None
    assert talk(QUESTION, [Withdrawn])[0] is None


@pytest.mark.parametrize(
    ("said", "text"), [(["1"], "mit"), (["2"], "apache-2.0"), (["", "3"], "3"), (["neither, y"], "neither, y")]
)
def test_a_question_of_the_agents(said: list[str], text: str) -> None:
    answer, shown = talk(QUESTION, said)
    assert (answer.decision, answer.text) == ("approve", text)
    assert "1 mit" in shown and "2 apache-2.0" in shown


def test_edited_as_json() -> None:
    asking = dialogue(Paper(io.StringIO(), 80, False), PUSH)
    next(asking)
    need = asking.send("e")
    assert isinstance(need, Edited)
    assert asking.send(need.text.replace("me/imdb-tiny", "me/other")) == Line("  with this instead? [y/n] > ")
    with pytest.raises(StopIteration) as end:
        asking.send("y")
    assert end.value.value == ApprovalAnswer("edit", by="terminal", arguments={"repo_id": "me/other"})


@pytest.mark.parametrize(
    ("said", "decision", "shown"),
    [
        (["e", "{", "n", "s"], "stop", "Not JSON"),
        (["e", "{", "y", "{}", "n", "s"], "stop", "cannot be taken out: folder, repo_id, private, message"),
        (["e", "[]", "n", "s"], "stop", "Not an object"),
        (["e", None, "private=true", "", "y"], "edit", "NAME=VALUE"),
        (["e", None, "nonsense", "message=New words", "", "y"], "edit", "one of folder, repo_id, private, message"),
        (["e", None, "", "y"], "approve", "nothing was changed"),
    ],
)
def test_edited_otherwise(said: list, decision: str, shown: str) -> None:
    answer, text = talk(PUSH, said)
    assert answer.decision == decision
    assert shown in text


def test_only_what_was_changed_is_sent() -> None:
    """The rest may have been masked: a placeholder must never become an argument."""
    before = {"token": "[secret:HF_TOKEN]", "n": 1}
    assert changes(before, '{"token": "[secret:HF_TOKEN]", "n": 2}') == {"n": 2}


def shown(request: ApprovalRequest, width: int = 80) -> str:
    file = io.StringIO()
    card(Paper(file, width, False), request)
    return file.getvalue()


def test_a_card_says_where_it_goes_what_it_costs_and_what_is_left() -> None:
    text = shown(replace(PUSH, destination=Destination("me/imdb-tiny", "public"), cost_usd=4.0, left_usd=3.5))
    assert "me/imdb-tiny  PUBLIC: anybody can see it" in text
    assert "about $4.00; $3.50 left of the budget" in text
    assert "this kind  allow hub_push:me/*:private" in text
    assert "about $4.00; there is no budget" in shown(replace(PUSH, cost_usd=4.0))


def test_untrusted_text_is_loud() -> None:
    file = io.StringIO()
    card(Paper(file, 80, True), replace(PUSH, sources=("arxiv_search 2405.1234", "hub_download evil/set")))
    text = file.getvalue()
    assert "meant to mislead" in text
    assert "\x1b[1;31m" in text, "bold red"
    assert "arxiv_search 2405.1234" in text and "hub_download evil/set" in text


def test_a_diff_has_its_colours() -> None:
    file = io.StringIO()
    card(Paper(file, 80, True), replace(PUSH, preview="@@ -1 +1 @@\n-old\n+new\n same"))
    assert "\x1b[31m-old" in file.getvalue() and "\x1b[32m+new" in file.getvalue()
