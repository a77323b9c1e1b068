"""Decisions and answers out of a trace, and on a card, where foreign words must not act."""

from __future__ import annotations

from pathlib import Path

from ml_intern.secrets import Masker
from ml_intern.trace import Journal
from ml_intern.trace.decisions import OPEN, Decision, decisions, markdown

NAME = "11111111-2222-4333-8444-555555555555"


def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / f"{NAME}.jsonl", masker=Masker({}))


def test_choices_and_answers_come_in_order_each_with_its_step(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.user("do it", stepKind="task")
    written.answer([{"type": "text", "text": "hm"}], "m", {"input_tokens": 1, "output_tokens": 1}, step=1)
    written.note(
        "decision", step=1, subject="base model", choice="distilbert", reason="small", sources=["arxiv:1910.01108", 3]
    )
    written.call("call-1", "hub_push", {"repo_id": "me/x"}, "m", step=2)
    written.note(
        "approval-asked", callId="call-1", tool="hub_push", reason="it publishes", destination={"name": "me/x"}
    )
    written.note("decision", step=2, subject="split", choice="80/20", reason="", sources=None)
    written.note("approval-answered", callId="call-1", decision="reject", reason="not yet", by="ada")
    written.call("call-2", "training_job", {}, "m", step=3)
    written.note("approval-asked", callId="call-2", tool="training_job", reason="it costs money")
    written.note("approval-answered", callId="of another session", decision="approve")
    written.note("approval-asked", callId="call-3", tool="ask_user", arguments={"question": "Which split?"})
    written.note("approval-answered", callId="call-3", decision="approve", text="the official one", by="ada")
    written.close()
    found = decisions(written.path)
    assert [(d.step, d.subject, d.choice, d.reason, d.sources, d.by, d.is_answer) for d in found] == [
        (1, "base model", "distilbert", "small", ("arxiv:1910.01108",), "agent", False),
        (2, "hub_push to me/x", "rejected", "not yet", (), "ada", True),
        (2, "split", "80/20", "", (), "agent", False),
        (3, "training_job", OPEN, "it costs money", (), "", True),
        (3, "Which split?", "the official one", "", (), "ada", True),
    ]
    assert all(decision.at > 1_600_000_000 for decision in found)


def test_what_anyone_may_have_written_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(
        '{"type":"progress","data":{"type":"ml_intern","kind":"decision","subject":5,"step":-1,"sources":"x"}}\n'
        '{"type":"progress","data":{"type":"ml_intern","kind":"approval-asked","callId":[],"tool":null}}\n'
        '{"type":"progress","data":{"type":"ml_intern","kind":"approval-answered","callId":{},"decision":9}}\n'
        '{"type":"progress","data":"decision"}\n{"type":"user","step":"nine"}\ngarbage\n'
    )
    assert [(d.step, d.subject, d.choice) for d in decisions(path)] == [(0, "", ""), (0, "", OPEN)]


def test_a_card_links_the_trace_and_foreign_words_mean_nothing_on_it() -> None:
    made = [
        Decision(
            3, "base model", "a|b\n# Heading", "<script>x</script> [click](http://evil)", ("https://x.org/a(b)", "p_1")
        ),
        Decision(4, "hub_push", "approved", by="ada", call_id="c"),
    ]
    card = markdown(made, "https://hub/datasets/me/t/blob/main/sessions/x.jsonl")
    assert "[the session's trace](https://hub/datasets/me/t/blob/main/sessions/x.jsonl)" in card
    assert "- **base model**: a\\|b \\# Heading (step 3)." in card and "\n# Heading" not in card
    assert "<script>" not in card and "[click]" not in card and "<https://x.org/a%28b%29>" in card
    assert "- **hub\\_push**: approved, by ada (step 4)." in card
    assert markdown([]) == ""
