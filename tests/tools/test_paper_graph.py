"""paper_graph against the local Semantic Scholar, through the official client."""

import pytest
from ml_intern.tools import PaperGraphTool
from saving import assert_survives_saving
from scholar_service import running_scholar, scholar  # noqa: F401 - fixtures

from ml_intern.testing.scholar import Edge, ScholarPaper

RESNET = "1512.03385"


@pytest.fixture
def tool(scholar):  # noqa: F811
    return PaperGraphTool()


def ids(answer: dict) -> list[str]:
    return [paper["arxiv_id"] for paper in answer["papers"]]


def test_citations_with_contexts_intents_and_influence(scholar, tool):  # noqa: F811
    answer = tool(relation="citations", paper=f"https://arxiv.org/abs/{RESNET}v1", limit=100)
    paper = scholar.find(f"ARXIV:{RESNET}")
    edges = [edge for edge in scholar.edges if edge.cited == paper.id]
    assert (answer["total"], answer["looked_at"], answer["complete"]) == (len(edges), len(edges), True)
    assert {one["s2_id"] for one in answer["papers"]} == {edge.citing for edge in edges}
    by_id = {edge.citing: edge for edge in edges}
    for one in answer["papers"]:
        edge = by_id[one["s2_id"]]
        assert (one["contexts"], one["intents"], one["influential"]) == (
            [*edge.contexts],
            [*edge.intents],
            edge.influential,
        )
        assert one["title"] and one["date"] > paper.about["publicationDate"]
    influence = [one["influential"] for one in answer["papers"]]
    assert influence == sorted(influence, reverse=True) and True in influence


def test_references_filters_and_order(tool):
    everything = tool(relation="references", paper=RESNET, sort="newest")
    assert everything["total"] == 4
    dates = [one["date"] for one in everything["papers"]]
    assert dates == sorted(dates, reverse=True)
    year = dates[0][:4]
    recent = tool(relation="references", paper=RESNET, year=f"{year}-")
    assert {one["date"][:4] for one in recent["papers"]} == {year}
    counts = [one["citations"] for one in tool(relation="references", paper=RESNET, sort="citations")["papers"]]
    assert counts == sorted(counts, reverse=True)
    only = tool(relation="references", paper=RESNET, influential=True)
    assert all(one["influential"] for one in only["papers"])
    for intent in ("background", "methodology", "result"):
        assert all(
            intent in one["intents"] for one in tool(relation="references", paper=RESNET, intent=intent)["papers"]
        )
    none = tool(relation="references", paper=RESNET, min_citations=10_000)
    assert (none["papers"], none["hint"]) == ([], "None of the 4 references that were looked at fits: drop a filter.")


def test_a_paper_with_thousands_of_citations(scholar, tool):  # noqa: F811
    about = scholar.find(f"ARXIV:{RESNET}").about
    papers, edges = dict(scholar.papers), list(scholar.edges)
    scholar.add(ScholarPaper({**about, "paperId": "f" * 40, "externalIds": {"ArXiv": "2001.00001"}}))
    for number in range(3500):
        citing = ScholarPaper({**about, "paperId": f"{number:040x}", "externalIds": {}, "citationCount": number})
        scholar.add(citing)
        scholar.edges.append(Edge(citing.id, "f" * 40))
    try:
        answer = tool(relation="citations", paper="2001.00001", sort="citations", limit=2)
    finally:
        scholar.papers, scholar.edges = papers, edges
    assert [one["citations"] for one in answer["papers"]] == [2999, 2998]
    assert (answer["looked_at"], answer["complete"]) == (3000, False)
    assert "there are more" in answer["hint"]
    assert len(scholar.requests) == 3


def test_references_that_a_publisher_keeps_back(scholar, tool):  # noqa: F811
    scholar.hidden.add(scholar.find(f"ARXIV:{RESNET}").id)
    answer = tool(relation="references", paper=RESNET)
    assert answer["papers"] == []
    assert "keeps the references of this paper back: read its bibliography with paper_read" in answer["hint"]


def test_a_paper_that_nobody_cites(scholar, tool):  # noqa: F811
    cited = {edge.cited for edge in scholar.edges}
    lonely = next(paper for paper in scholar.papers.values() if paper.id not in cited)
    assert (
        tool(relation="citations", paper=lonely.id)["hint"]
        == "Semantic Scholar knows the paper, and no citations of it."
    )


def test_recommendations(scholar, tool):  # noqa: F811
    answer = tool(relation="recommendations", paper=RESNET, limit=3)
    assert len(answer["papers"]) == 3 and RESNET not in ids(answer)
    assert "from=all-cs" in scholar.requests[-1].path
    several = tool(relation="recommendations", paper=RESNET, like=["1605.07146"], unlike="1412.6980", limit=4)
    assert not {RESNET, "1605.07146", "1412.6980"} & set(ids(several))
    assert scholar.requests[-1].method == "POST"
    assert {one["date"][:4] for one in tool(relation="recommendations", paper=RESNET, year="2016")["papers"]} == {
        "2016"
    }
    assert "drop a filter" in tool(relation="recommendations", paper=RESNET, min_citations=9999)["hint"]


def test_snippets(scholar, tool):  # noqa: F811
    answer = tool(relation="snippets", query="R&D of shortcut connections", paper=RESNET)
    best = answer["snippets"][0]
    assert "shortcut connections" in best["text"]
    assert (best["title"], best["authors"][0]) == ("Deep Residual Learning for Image Recognition", "Kaiming He")
    assert {one["title"] for one in answer["snippets"]} == {best["title"]}
    assert "query=R%26D+of" in scholar.requests[-1].path
    assert tool(relation="snippets", query="networks", year="2016-2017", min_citations=1)["total"] >= 1
    assert "No passage fits" in tool(relation="snippets", query="unheardof")["hint"]


def test_a_paper_that_is_not_known(tool):
    for relation in ("citations", "references", "recommendations"):
        with pytest.raises(FileNotFoundError, match=r"has no such paper: Paper with id ARXIV:9912\.12345 not found"):
            tool(relation=relation, paper="9912.12345")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relation": "siblings"}, "relation is citations, references, recommendations or snippets"),
        ({"relation": "citations"}, "citations of which paper"),
        ({"relation": "recommendations"}, "like which paper"),
        ({"relation": "snippets"}, "snippets need a `query`"),
        ({"relation": "citations", "paper": "ResNet"}, "'ResNet' is no id of a paper"),
        ({"relation": "citations", "paper": RESNET, "year": "recent"}, "year is '2020'"),
        ({"relation": "citations", "paper": RESNET, "intent": "praise"}, "intent is background"),
        ({"relation": "citations", "paper": RESNET, "sort": "title"}, "sort is influence"),
        ({"relation": "citations", "paper": RESNET, "limit": 0}, "from 1 to 100"),
        ({"relation": "citations", "paper": RESNET, "min_citations": "many"}, "min_citations is a whole number"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_without_a_request(scholar, tool, arguments, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        tool(**arguments)
    assert scholar.requests == []


@pytest.mark.long
def test_it_survives_saving_and_works_over_there(scholar):  # noqa: F811
    call = {"relation": "references", "paper": RESNET, "limit": 1}
    answer = assert_survives_saving(
        PaperGraphTool, "semanticscholar", "httpx", call=call, environment=scholar.environment()
    )
    assert len(answer["papers"]) == 1
