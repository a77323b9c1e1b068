"""semantic_scholar_search against the local Semantic Scholar, through the official client."""

import logging

import pytest
from ml_intern.tools import ArxivSearchTool, SemanticScholarSearchTool
from saving import assert_survives_saving
from scholar_service import running_scholar, scholar  # noqa: F401 - fixtures

from ml_intern.testing import LocalArxiv

SHARED = {
    *(
        "arxiv_id",
        "doi",
        "s2_id",
        "title",
        "authors",
        "date",
        "abstract",
        "tldr",
        "citations",
        "influential_citations",
    ),
    "links",
}


@pytest.fixture
def tool(scholar):  # noqa: F811
    return SemanticScholarSearchTool()


def titles(answer: dict) -> list[str]:
    return [paper["title"] for paper in answer["papers"]]


def test_a_paper_has_all_its_fields(tool):
    answer = tool(ids=["1412.6980"])
    (paper,) = answer["papers"]
    assert paper["abstract"].startswith("A first-order optimizer")
    assert paper["tldr"].startswith("A first-order optimizer") and len(paper["tldr"]) < len(paper["abstract"])
    assert (paper["arxiv_id"], paper["date"]) == ("1412.6980", "2014-12-22")
    assert paper["authors"] == ["Diederik P. Kingma", "Jimmy Ba"]
    assert paper["citations"] >= paper["influential_citations"] >= 0
    assert paper["links"]["abs"] == "https://arxiv.org/abs/1412.6980"
    properties = tool.output_schema["properties"]["papers"]["items"]["properties"]
    assert properties.keys() == paper.keys()


def test_its_records_merge_with_those_of_arxiv_search(tool, monkeypatch):
    with LocalArxiv() as arxiv:
        for name, value in arxiv.environment().items():
            monkeypatch.setenv(name, value)
        there = ArxivSearchTool()(query="residual", limit=5)["papers"]
    here = tool(query="residual", limit=5)["papers"]
    assert there[0].keys() >= SHARED <= here[0].keys()
    merged = {paper["arxiv_id"] or paper["doi"] or paper["title"]: paper for paper in [*there, *here]}
    assert max(len(there), len(here)) <= len(merged) < len(there) + len(here)
    dates = sorted(paper["date"] for paper in [*there, *here])
    assert all(len(date) == 10 for date in dates)


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"query": "R&D of #1 networks?"}, "query=R%26D+of+%231+networks%3F&"),
        ({"query": "fine-tuning"}, "query=fine+tuning&"),
        (
            {"query": '"fine-tuning" +x', "sort": "newest"},
            "search/bulk?query=%22fine-tuning%22+%2Bx&sort=publicationDate%3Adesc&",
        ),
        ({"query": "x", "year": "2018-2022"}, "&year=2018-2022&"),
        ({"query": "x", "year": "2024-01-31:"}, "&publicationDateOrYear=2024-01-31%3A&"),
        ({"query": "x", "year": "2024-02"}, "&publicationDateOrYear=2024-02%3A2024-02&"),
        ({"query": "x", "venue": ["R & D", "ICML"]}, "&venue=R+%26+D%2CICML&"),
        ({"query": "x", "fields": "computer science, Law"}, "&fieldsOfStudy=Computer+Science%2CLaw&"),
        ({"query": "x", "min_citations": 50, "open_access": True}, "&openAccessPdf=&minCitationCount=50&"),
        ({"query": "x", "limit": 3}, "&limit=3"),
    ],
)
def test_the_request_that_is_sent(scholar, tool, arguments, sent):  # noqa: F811
    tool(**arguments)
    assert sent in scholar.requests[0].path


def test_filters_sort_and_limit(tool):
    assert titles(tool(title="wide residual networks")) == ["Wide Residual Networks"]
    found = tool(query="networks", limit=3)
    assert (len(found["papers"]), found["total"] > 3, "hint" in found) == (3, True, False)
    assert {paper["date"][:4] for paper in tool(query="networks", year="2014-2015")["papers"]} <= {"2014", "2015"}
    counts = [paper["citations"] for paper in tool(query="networks", sort="citations")["papers"]]
    assert counts == sorted(counts, reverse=True)
    dates = [paper["date"] for paper in tool(query="networks", sort="newest")["papers"]]
    assert dates == sorted(dates, reverse=True)
    assert all(paper["citations"] >= 3 for paper in tool(query="networks", min_citations=3)["papers"])


@pytest.mark.parametrize("page", [3, 1000])
def test_pages_hold_everything_once(scholar, tool, page):  # noqa: F811
    scholar.bulk_page = page
    seen, after = [], None
    while True:
        answer = tool(query="networks", sort="newest", limit=2, after=after)
        seen += titles(answer)
        after = answer["next"]
        if after is None:
            break
    scholar.bulk_page = 1000
    assert len(seen) == len(set(seen)) == answer["total"] > 4


def test_ids_in_every_form(scholar, tool):  # noqa: F811
    sha = scholar.find("ARXIV:1512.03385").id
    ids = ["arXiv:1512.03385v1", "https://arxiv.org/abs/1409.1556v6", "cs/9905014", sha, "CorpusId:1003", "9912.12345"]
    answer = tool(ids=ids)
    assert answer["missing"] == ["ARXIV:9912.12345"]
    assert [paper["arxiv_id"] for paper in answer["papers"]][:3] == ["1512.03385", "1409.1556", "cs/9905014"]
    assert answer["total"] == 5
    nothing = tool(ids="9912.12345")
    assert (nothing["papers"], nothing["missing"]) == ([], ["ARXIV:9912.12345"])
    assert "does not know" in nothing["hint"]


def test_nothing_found_is_an_empty_list_and_a_hint(tool):
    found = tool(query="unheardof", year="2015", fields=["Law"])
    assert found == {"papers": [], "total": 0, "hint": "No paper fits. Try fewer or other words; no year, fields."}
    assert "sort by relevance" in tool(query="unheardof", sort="newest")["hint"]
    assert tool(title="No Such Title Anywhere")["hint"].startswith("No paper has this title")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of query, ids and title"),
        ({"query": "x", "title": "y"}, "give one of query, ids and title"),
        ({"query": "x", "limit": 101}, "from 1 to 100, not 101"),
        ({"query": "x", "limit": 1001, "sort": "newest"}, "from 1 to 1000"),
        ({"query": "x", "sort": "date"}, "sort is one of relevance, citations, newest"),
        ({"query": "x", "after": "T3"}, "`after` goes with sort"),
        ({"query": "x", "year": "last year"}, "year is '2020'"),
        ({"query": "x", "fields": ["Cooking"]}, "'Cooking' is no field of study. There are: Computer Science"),
        ({"query": "x", "min_citations": -1}, "min_citations is a whole number"),
        ({"ids": ["ResNet"]}, "'ResNet' is no id of a paper"),
        ({"ids": [f"1512.{n:05d}" for n in range(101)]}, "101 ids are too many"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_without_a_request(scholar, tool, arguments, message):  # noqa: F811
    with pytest.raises(ValueError, match=message) as caught:
        tool(**arguments)
    assert len(str(caught.value).splitlines()) <= 2
    assert scholar.requests == []


def test_it_leaves_logging_as_it_is(tool):
    root = logging.getLogger()
    kept = list(root.handlers)
    root.handlers.clear()
    try:
        tool(query="residual")
        assert root.handlers == []
    finally:
        root.handlers[:] = kept


@pytest.mark.long
def test_it_survives_saving_and_works_over_there(scholar):  # noqa: F811
    answer = assert_survives_saving(
        SemanticScholarSearchTool,
        "semanticscholar",
        "httpx",
        call={"ids": ["1412.6980"]},
        environment=scholar.environment(),
    )
    assert titles(answer) == ["Adam: A Method for Stochastic Optimization"]
