"""The local Semantic Scholar, as the unmodified official client sees it."""

import pytest
from semanticscholar import SemanticScholar
from semanticscholar.SemanticScholarException import BadQueryParametersException, ObjectNotFoundException

from ml_intern.testing.scholar import LocalScholar

RESNET = "ARXIV:1512.03385"


@pytest.fixture(scope="module")
def local():
    with LocalScholar(keys=("s2-key",)) as service:
        yield service


@pytest.fixture
def client(local):
    local.requests.clear()
    return SemanticScholar(api_url=local.url, retry=False, api_key="s2-key")


def test_a_paper_by_any_id(local, client):
    paper = client.get_paper(RESNET, fields=["title", "externalIds", "authors", "tldr", "corpusId"])
    assert (paper.title, paper.authors[0].name) == ("Deep Residual Learning for Image Recognition", "Kaiming He")
    assert client.get_paper(paper.paperId, fields=["title"]).title == paper.title
    assert client.get_paper(f"CorpusId:{paper.corpusId}", fields=["title"]).title == paper.title
    assert local.requests[0].headers["x-api-key"] == "s2-key"
    with pytest.raises(ObjectNotFoundException, match="not found"):
        client.get_paper("ARXIV:9999.99999")
    with pytest.raises(BadQueryParametersException, match="unsupported fields"):
        client.get_paper(RESNET, fields=["titel"])


@pytest.mark.long
def test_search_with_filters_and_pages(client):
    found = client.search_paper("residual%20networks", fields=["title", "year"], limit=1)
    assert found.total > 2
    assert len(list(found)) == found.total  # the client pages on
    assert {paper.year for paper in client.search_paper("networks", year="2016", fields=["year"])} == {2016}
    many = client.search_paper("networks", min_citation_count=3, fields=["citationCount"])
    assert min(paper.citationCount for paper in many) >= 3
    assert client.search_paper("unheardof").total == 0
    assert client.search_paper("fine-tuning").total == 0  # as there: nothing by words with a hyphen


def test_bulk_search_is_sorted_and_paged_by_token(local, client):
    local.bulk_page = 5
    found = client.search_paper("networks", bulk=True, sort="citationCount:desc", fields=["citationCount"])
    counts = [paper.citationCount for paper in found]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == found.total > 5
    with pytest.raises(BadQueryParametersException, match="tldr"):
        client.search_paper("networks", bulk=True, fields=["tldr"])
    local.bulk_page = 1000


def test_match_batch_graph_recommendations_snippets(local, client):
    assert client.search_paper("Wide Residual Networks", match_title=True, fields=["title"]).title.startswith("Wide")
    papers, missing = client.get_papers(
        [RESNET, "ARXIV:9999.99999"], fields=["title", "externalIds"], return_not_found=True
    )
    assert (len(papers), missing) == (1, ["ARXIV:9999.99999"])
    cited = client.get_paper_references(RESNET, fields=["title", "contexts", "intents", "isInfluential"], limit=2)
    assert [bool(one.paper.title) for one in cited] == [True] * 4
    citing = client.get_paper_citations(RESNET, fields=["title", "citationCount"])
    assert len(citing) == client.get_paper(RESNET, fields=["citationCount"]).citationCount
    near = client.get_recommended_papers(RESNET, fields=["title"], limit=3)
    assert len(near) == 3 and near[0].title
    assert client.get_recommended_papers_from_lists([RESNET], [], fields=["title"], limit=1)[0].title
    (snippet,) = client.search_snippet("shortcut%20connections", paper_ids=[RESNET], limit=1)
    assert "shortcut connections" in snippet.snippet.text


def test_a_wrong_key_is_refused(local):
    with pytest.raises(PermissionError, match="403"):
        SemanticScholar(api_url=local.url, retry=False, api_key="wrong").get_paper(RESNET)
