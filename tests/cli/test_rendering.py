from __future__ import annotations

import io
import re
import shlex
from dataclasses import replace

import pytest
import stage
from rich.cells import cell_len
from test_printable import offence

from ml_intern import events as e
from ml_intern.cli.card import card
from ml_intern.cli.paper import Paper
from ml_intern.cli.render import Renderer

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def shown(*events: e.Event, width: int = 80, terminal: bool = False, verbose: bool = False) -> str:
    """The lines that stay: without a running `Live` there is no moving line."""
    file = io.StringIO()
    renderer = Renderer(Paper(file, width, terminal), verbose)
    for event in events:
        renderer.show(event)
    return file.getvalue()


def played(scene: str, width: int = 80, terminal: bool = False, verbose: bool = False) -> str:
    """A scene with every question rejected, as it looks in the end."""
    file = io.StringIO()
    paper = Paper(file, width, terminal)
    renderer = Renderer(paper, verbose)

    def reject(request: e.ApprovalRequest) -> e.ApprovalAnswer:
        card(paper, request)
        return e.ApprovalAnswer("reject", "not now", "test")

    intern = stage.StagedIntern(stage.SCENES[scene], renderer.show, reject, 0.0)
    session = intern.submit("A task\x1b[2J\u202e of\ntwo lines")
    session.thread.join(30)
    assert session.events.dropped == []
    return file.getvalue()


def answered(step: int = 1, thought: str = "", code: str | None = None, usage: e.Usage = stage.USAGE) -> e.Event:
    return e.ModelAnswered(step=step, thought=thought, code=code, input_tokens=1, output_tokens=1, usage=usage)


@pytest.mark.parametrize("verbose", [False, True])
def test_nothing_foreign_acts_on_a_file(verbose: bool) -> None:
    text = played("hostile", verbose=verbose)
    assert offence(text) is None
    assert "\\x1b[2J\\x1b]0;owned\\x07" in text
    assert "\\u202egnp.exe\\u200b\\u2028" in text


@pytest.mark.parametrize("verbose", [False, True])
def test_nothing_foreign_acts_on_a_terminal(verbose: bool) -> None:
    text = played("hostile", terminal=True, verbose=verbose)
    assert "\x1b[" in text, "a terminal gets colours"
    assert offence(COLOURS.sub("", text)) is None


def test_markup_and_emoji_names_are_left_alone() -> None:
    text = played("hostile", width=500)
    for foreign in ("[bold]x[/bold]", ":smile:", "[link=file:///etc]y[/link]"):
        assert foreign in text


def test_a_file_name_cannot_pretend_to_be_two_lines() -> None:
    assert not [line for line in played("hostile", width=500).splitlines() if line.strip().startswith("ok.txt")]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    text = COLOURS.sub("", played("errand", width, terminal=True))
    paths = ("trace", "workspace", "next")
    wide = [line for line in text.splitlines() if cell_len(line) > width and line.split()[0] not in paths]
    assert wide == []
    assert not [line for line in text.splitlines() if line != line.rstrip()], "lines end where their text ends"


def test_a_path_is_never_broken() -> None:
    assert f"trace      {stage.Path('/tmp/ml-intern/sessions/7b1c/7b1c.jsonl')}\n" in COLOURS.sub(
        "", played("errand", 40, True)
    )


def test_a_file_keeps_one_line_a_line() -> None:
    assert f"  {'long ' * 100}end\n" in shown(answered(thought="long " * 100 + "end"))


def test_no_two_blank_lines_in_a_row() -> None:
    assert "\n\n\n" not in played("errand")


def test_a_session_has_its_parts() -> None:
    text = played("errand")
    for part in (
        "task       A task\\x1b[2J\\u202e of\n             two lines\n",
        "model      openai/gpt-9-mini\n",
        "jail       bubblewrap\n",
        "\nStep 1\n  I look for well-known data sets",
        "    from datasets import load_dataset\n",
        '  ✓ hub_search_datasets(query="imdb sentiment", limit=5)  0.4 s\n',
        "  │ stanfordnlp/imdb 1048576\n",
        "  1.9 s · 3.3k tokens · $0.0042 so far\n",
        "  plan 1 of 4 done\n    ✓ read what is known\n    › choose the data\n    · train",
        "  ! The provider was busy (429); trying again in 2 s.\n",
        "    arXiv answers 503. Try again later.\n",
        "  │ KeyError: 'lable'\n",
        "1 min 12 s · 1 image · ",
        "  ✗ rejected by test: not now\n",
        "\n✓ Done  3 steps · 1 min 24 s · 9.2k tokens in (3.0k cached), 1.2k out · $0.02\n",
        "  The classifier is at https://huggingface.co/me/imdb-tiny",
        "  trace      /tmp/ml-intern/sessions/7b1c/7b1c.jsonl\n",
    ):
        assert part in text, part


def test_an_unknown_price_is_never_zero() -> None:
    usage = e.Usage(input_tokens=10, cost_usd=None)
    text = shown(
        answered(usage=usage),
        e.StepFinished(step=1, observation="", error="", seconds=1),
        e.SessionEnded(outcome=e.Outcome(e.State.SUCCESS, usage=usage), trace=""),
    )
    assert text.count("cost unknown") == 2
    assert "$" not in text


def test_long_code_is_folded_and_verbose_is_not() -> None:
    code = "\n".join(f"line_{n}" for n in range(100))
    text = shown(answered(code=code))
    assert "line_17\n" in text
    assert "line_50" not in text
    assert "line_99\n" in text
    assert "… 78 more lines" in text
    assert all(f"line_{n}\n" in shown(answered(code=code), verbose=True) for n in range(100))


def test_a_line_without_end_is_cut() -> None:
    code = f"data = '{'x' * 100_000}'\nprint(1)"
    text = shown(answered(code=code), terminal=True)
    assert len(text) < 3000
    assert "…" in text
    assert "x" * 100_000 in shown(answered(code=code), verbose=True)


def test_the_last_lines_of_output_stay() -> None:
    printed = [e.CodePrinted(step=1, text=f"{n}\n") for n in range(100)]
    done = e.StepFinished(step=1, observation="", error="", seconds=1)
    text = shown(answered(code="x"), *printed, done)
    assert "│ … 92 lines before\n  │ 92\n" in text
    assert "│ 99\n" in text
    verbose = shown(answered(code="x"), *printed, e.CodePrinted(step=1, text="end"), done, verbose=True)
    assert [line for line in verbose.splitlines() if line.startswith("  │ ")] == [
        f"  │ {n}" for n in [*range(100), "end"]
    ]


def test_output_of_one_step_is_not_shown_for_the_next() -> None:
    done = e.StepFinished(step=1, observation="", error="", seconds=1)
    text = shown(answered(), e.CodePrinted(step=1, text="once\n"), done, e.StepStarted(step=2), answered(step=2), done)
    assert text.count("once") == 1


def test_a_changed_plan_shows_what_changed() -> None:
    text = shown(
        stage.plan("done", "in_progress", "pending", "pending"), stage.plan("done", "done", "in_progress", "pending")
    )
    assert text.count("read what is known") == 1
    assert text.count("choose the data") == 2
    assert text.count("publish with a card") == 1
    again = stage.plan("done", "done", "in_progress", "pending")
    assert shown(again, again) == shown(again)


@pytest.mark.parametrize("state", list(e.State))
def test_every_end_says_how_it_ended_and_what_is_next(state: e.State) -> None:
    start = e.SessionStarted(task="t", model="m", workspace="/w", trace="/t", jail="none")
    text = shown(start, e.SessionEnded(outcome=e.Outcome(state, reason="because"), trace="/t"))
    assert "none: code runs as you" in text
    assert "  because\n" in text
    assert "trace      /t\n" in text
    assert ("workspace  /w" in text.split("because")[1]) == (state is e.State.SUCCESS)
    assert "next       " in text


def test_calls_in_parallel_keep_their_arguments() -> None:
    text = shown(
        e.ToolCalled(step=1, call_id="a", tool="read", arguments={"path": "a"}),
        e.ToolCalled(step=1, call_id="b", tool="read", arguments={"path": "b"}),
        e.ToolReturned(step=1, call_id="a", tool="read", ok=True, summary="", seconds=1),
        e.ToolReturned(step=1, call_id="b", tool="read", ok=True, summary="", seconds=2),
    )
    assert text == '  ✓ read(path="a")  1.0 s\n  ✓ read(path="b")  2.0 s\n'


def test_a_card_leaves_things_out_only_with_a_word() -> None:
    request = e.ApprovalRequest(
        call_id="c",
        tool="hub_push",
        arguments={"text": "\n".join(f"arg_{n}" for n in range(99)), "long": "y" * 3000},
        effects="spend",
        reason="it spends money",
        preview="\n".join(f"line_{n}" for n in range(99)),
        files=tuple(e.FileDigest(f"f{n}", n, f"{n:064x}") for n in range(99)),
        cost_usd=1.5,
    )
    file = io.StringIO()
    assert card(Paper(file, 80, False), request)
    for part in (
        "hub_push wants to spend money",
        "about $1.50",
        "… 59 more lines",
        "… 87 more files",
        "more characters",
        "99 files, 4.9 kB",
    ):
        assert part in file.getvalue(), part
    file = io.StringIO()
    assert not card(Paper(file, 80, False), request, full=True)
    everything = file.getvalue()
    assert all(
        f"line_{n}\n" in everything and f"arg_{n}\n" in everything and f" f{n} " in everything for n in range(99)
    )
    assert "y" * 3000 in everything
    assert "more" not in everything


def test_a_style_ends_where_it_should() -> None:
    text = shown(
        answered(thought="A thought."), e.Warned(text="careful"), stage.plan("done", *["pending"] * 3), terminal=True
    )
    assert "  A thought.\n" in text
    assert "\x1b[32m✓ \x1b[0m\x1b[2mread what is known\x1b[0m\n" in text
    assert "\x1b[2m· \x1b[0mchoose the data\n" in text
    header = shown(e.SessionStarted(task="t", model="m", workspace="/w", trace="/t"), terminal=True)
    assert "\x1b[2m  model      \x1b[0mm\n" in header
    assert "\x1b[2m  trace      \x1b[0m/t\n" in header


def test_a_command_with_a_path_can_be_pasted() -> None:
    end = e.SessionEnded(outcome=e.Outcome(e.State.SUCCESS), trace="/my files/it's.jsonl")
    command = shown(end, terminal=True, width=40).split("next       \x1b[0m")[1].splitlines()[0]
    assert shlex.split(command) == ["uvx", "claude-code-log", "/my files/it's.jsonl", "-o", "trace.html"]


@pytest.mark.parametrize("verbose", [False, True])
def test_what_was_thought_is_folded(verbose: bool) -> None:
    thought = "First\nI weigh " + "this and that, " * 100 + "\x1b[2J and the last of it"
    event = replace(answered(thought="I count."), reasoning=thought)
    text = " ".join(shown(event, verbose=verbose).split())
    assert "First I weigh this" in text and "I count." in text and "\x1b[2J" not in text
    assert ("the last of it" in text) is verbose and (
        "1,5" in text and "characters of thinking" in text
    ) is not verbose
