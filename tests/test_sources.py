"""Whether what a report names was there to be read.

What must never happen: a source that no tool returned passes; one that was returned is called made up; a failed call, a search's
own words or the report itself count as something that was read.
"""

from __future__ import annotations

from typing import Any

import pytest

from ml_intern.sources import SourceCheck, figures_in, references_in, rows_in
from ml_intern.steps import ToolResultStep

TABLE = """| recipe | paper | result |
|---|---|---|
"""


def checked(*results: Any, task: str = "") -> SourceCheck:
    check = SourceCheck()
    check.begin(task)
    for number, result in enumerate(results):
        check.saw(ToolResultStep(f"call_{number}", "arxiv_search", 1, result), {"query": "small models"})
    return check


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("arXiv 1706.03762", "arxiv:1706.03762"),
        ("arXiv:1706.03762v5", "arxiv:1706.03762"),
        ("[Attention](https://arxiv.org/abs/1706.03762v7).", "arxiv:1706.03762"),
        ("https://arxiv.org/pdf/1706.03762.pdf", "arxiv:1706.03762"),
        ("https://huggingface.co/papers/1706.03762", "arxiv:1706.03762"),
        ("hep-th/9901001v2", "arxiv:hep-th/9901001"),
        ("https://doi.org/10.1162/tacl_a_00448.", "doi:10.1162/tacl_a_00448"),
        ("(10.18653/v1/N19-1423)", "doi:10.18653/v1/n19-1423"),
        ("https://huggingface.co/datasets/stanfordnlp/imdb/tree/main", "repo:stanfordnlp/imdb"),
        ("`distilbert/distilbert-base-uncased`", "repo:distilbert/distilbert-base-uncased"),
        ("https://github.com/huggingface/trl.git", "repo:huggingface/trl"),
        ("<https://www.example.org/a/b/?x=1>", "example.org/a/b?x=1"),
    ],
)
def test_each_source_is_known_by_one_name_however_it_is_written(text: str, known: str) -> None:
    assert list(references_in(text)) == [known]


@pytest.mark.parametrize(
    "text", ["`train/test` split", "3.5 points", "2024-05-01", "lr 2e-5, and/or 3", "version 4.51.3", "1234.5"]
)
def test_what_names_no_source(text: str) -> None:
    assert references_in(text) == {}


def test_figures_are_results_and_settings_not_counts_and_years() -> None:
    assert figures_in("92.3 on 25,000 rows in 2019, 95%, lr 2e-5, 3 epochs, v1.2.3") == ["92.3", "95", "2e-5"]


def test_rows_are_those_below_the_heads() -> None:
    assert rows_in(f"Text.\n{TABLE}| a | b | c |\n| d | e | f |\n\nMore | or less.") == [
        ["a", "b", "c"],
        ["d", "e", "f"],
    ]


def test_a_report_that_stands_on_what_was_read_is_said_to(monkeypatch) -> None:
    check = checked(
        {"papers": [{"arxiv_id": "1910.01108", "abstract": "97% of BERT; accuracy 0.9234 on IMDB with 2e-05."}]},
        [{"id": "stanfordnlp/imdb", "link": "https://github.com/huggingface/transformers/blob/main/x.py"}],
        "[Blog](https://example.org/post?id=3)\nGood.",
    )
    report = (
        f"Take DistilBERT ([paper](https://arxiv.org/abs/1910.01108v4), https://example.org/post?id=3).\n{TABLE}"
        "| DistilBERT, lr 2e-5 | arXiv 1910.01108; https://huggingface.co/datasets/stanfordnlp/imdb | 92.3 |\n"
        "| as above | https://github.com/huggingface/transformers | 97% |"
    )
    assert check.problems(report) == []
    assert "all 4 sources named above came from its tools" in check.verdict(report)


def test_what_was_made_up_is_named() -> None:
    check = checked({"papers": [{"arxiv_id": "1910.01108", "abstract": "Accuracy 0.92."}]})
    report = (
        f"{TABLE}| good | arXiv 1910.01108 | 92.0 |\n| invented | arXiv 2401.99999 | 92.0 |\n"
        "| mixed up | arXiv 1910.01108 | 98.7 |\n| nowhere | - | 92.0 |\nSee https://example.org/x and `nobody/no-model`."
    )
    found = check.problems(report)
    assert [problem for problem in found if "no tool returned it" in problem] == [
        "https://example.org/x: no tool returned it",
        "arXiv 2401.99999: no tool returned it".removeprefix("arXiv "),
        "nobody/no-model: no tool returned it",
    ]
    assert "the row of 'mixed up': 98.7 not found in anything that was read" in found
    assert "the row of 'nowhere' names no source" in found
    assert not any("'good'" in problem for problem in found)
    verdict = check.verdict(report)
    assert verdict.startswith("(Checked by the program") and "98.7" in verdict and "2401.99999" in verdict


def test_a_figure_outside_of_the_table_has_to_have_been_read_as_well() -> None:
    check = checked({"papers": [{"arxiv_id": "1910.01108", "abstract": "Accuracy 0.923 with 40% fewer parameters."}]})
    good = "Take DistilBERT (arXiv 1910.01108v4): 92.3 on IMDB, 40% smaller."
    assert check.problems(good) == []
    assert check.problems(f"{good}\n\nIt beats GPT-4, which has 81.7%.") == [
        "'It beats GPT-4, which has 81.7%.': 81.7 not found in anything that was read"
    ]


def test_a_report_without_any_source_is_said_to_have_none() -> None:
    assert checked("x").problems("Take a small model.") == ["it names no source at all"]


def test_what_was_searched_for_what_failed_and_its_own_answer_are_no_sources() -> None:
    check = checked({"query": "arXiv 2401.00001", "papers": []})
    check.saw(
        ToolResultStep("c", "paper_read", 1, error=ValueError("There is no 2401.00002")), {"paper": "2401.00002"}
    )
    check.saw(ToolResultStep("d", "final_answer", 1, "See 2401.00003."), {"answer": "See 2401.00003."})
    assert len(check.problems("2401.00001, 2401.00002, 2401.00003")) == 3
    check.saw(ToolResultStep("e", "paper_read", 1, {"title": "A paper"}), {"paper": "2401.00002"})
    assert check.problems("2401.00002") == [], "what could be read was there"


def test_what_the_task_names_is_known_and_each_task_begins_anew() -> None:
    check = checked({"id": "1910.01108"}, task="Is arXiv 2001.08361 still right?")
    assert check.problems("arXiv 2001.08361; arXiv 1910.01108") == []
    check.begin("Another.")
    assert len(check.problems("arXiv 2001.08361; arXiv 1910.01108")) == 2


def test_it_may_mend_its_report_once() -> None:
    check = checked({"id": "1910.01108"})
    with pytest.raises(ValueError, match=r"2401.99999: no tool returned it.*marked as not checked"):
        check.mended("arXiv 2401.99999")
    assert check.mended("arXiv 2401.99999") is True
    check.begin("")
    with pytest.raises(ValueError, match="names no source"):
        check.mended("None.")


def test_only_an_address_that_a_tool_returned_is_known_to_the_letter() -> None:
    check = checked("[A](https://example.org/a?x=1) and https://github.com/o/n", task="https://example.org/task")
    assert check.knows("https://example.org/a?x=1") and check.knows("https://github.com/o/n")
    for made_up in (
        "https://example.org/a?x=2",
        "https://example.org/a",
        "https://github.com/o/n?d=secret",
        "https://example.org/task",
    ):
        assert not check.knows(made_up)
