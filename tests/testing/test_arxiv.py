"""The local arXiv, asked by the unmodified client and over plain HTTP."""

import re
import time
import urllib.error
import urllib.request
from dataclasses import replace
from xml.etree import ElementTree

import arxiv as client_library
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_intern.testing.arxiv import LocalArxiv, Paper
from ml_intern.testing.arxiv_query import QueryError, parse, search

PAPERS = [
    Paper(
        id="2001.00001",
        title="Deep residual networks",
        authors=["Ada Love"],
        abstract="On images, without tuning.",
        categories=["cs.CV", "cs.LG"],
        published="2020-01-02T10:00:00Z",
        updated="2020-01-02T10:00:00Z",
    ),
    Paper(
        id="2001.00002",
        title="Support vector machines",
        authors=["Bob del Maestro"],
        abstract="Residual analysis of networks.",
        categories=["stat.ML"],
        published="2020-02-02T10:00:00Z",
        updated="2021-01-01T00:00:00Z",
        version=3,
    ),
    Paper(
        id="2001.00003",
        title="Fine-tuning language models",
        authors=["Ada Hate"],
        abstract="A deep study of an image.",
        categories=["cs.CL"],
        published="2021-02-02T10:00:00Z",
        updated="2021-02-02T10:00:00Z",
        comment="Accepted",
        journal_ref="J. Tests 1 (2021)",
        doi="10.1/x",
    ),
]


def found(query: str) -> str:
    return "".join(sorted(paper.id[-1] for paper in search(PAPERS, query)))


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("all:residual", "12"),
        ("residual", "12"),
        ("ti:residual", "1"),
        ("abs:residual", "2"),
        ('"residual networks"', "1"),
        ('abs:"residual networks"', ""),
        ("residual vector", "12"),
        ("residual AND vector", "2"),
        ("residual ANDNOT vector", "1"),
        ("ti:vector OR ti:tuning", "23"),
        ("ti:vector OR ti:tuning AND au:love", "2"),
        ("(ti:vector OR ti:tuning) AND au:hate", "3"),
        ("ti:(vector OR tuning)", "23"),
        ("au:del_maestro", "2"),
        ('au:"Ada Hate"', "3"),
        ('au:"Love Ada"', ""),
        ("cat:cs.LG", "1"),
        ("cat:cs.*", "13"),
        ("cat:cs", ""),
        ("ti:fine-tuning", "3"),
        ("ti:tun*", "3"),
        ("abs:images", "13"),
        ("co:accepted", "3"),
        ("jr:tests", "3"),
        ("submittedDate:[202001010000 TO 202002012359]", "1"),
        ("submittedDate:[20200202 TO 20210202]", "23"),
        ("lastUpdatedDate:[202101010000 TO *]", "23"),
        ("residual AND submittedDate:[202002010000 TO 202012312359]", "2"),
        ("nothing", ""),
    ],
)
def test_the_query_language(query, ids):
    assert found(query) == ids


@pytest.mark.parametrize(
    "query",
    [
        "(residual",
        "residual)",
        "AND residual",
        "residual AND",
        'ti:"open',
        "xx:y",
        "ti:",
        "ti:(a",
        "submittedDate:[x TO y]",
        "ti:++",
    ],
)
def test_malformed_queries_are_refused(query):
    with pytest.raises(QueryError, match="malformed query"):
        parse(query)


@given(st.text(max_size=40))
def test_any_text_is_answered_or_refused(text):
    try:
        assert len(search(PAPERS, text)) <= 3
    except QueryError as error:
        assert str(error)


def test_relevance_puts_the_title_first():
    assert [paper.id[-1] for paper in search(PAPERS, "residual networks")] == ["1", "2"]
    assert [paper.id[-1] for paper in search(PAPERS, "tuning")] == ["3", "1"]


def test_relevance_counts_a_rare_word_for_more_than_a_common_one():
    assert [paper.id[-1] for paper in search(PAPERS, "residual OR study")] == ["1", "3", "2"]


@pytest.fixture(scope="module")
def local():
    with LocalArxiv() as service:
        yield service


@pytest.fixture
def client(local):
    client = client_library.Client(delay_seconds=0, num_retries=0, page_size=5)
    client.query_url_format = f"{local.url}/api/query?{{}}"
    return client


def test_the_client_gets_every_field(local, client):
    (paper,) = client.results(client_library.Search(id_list=["1412.6980"]))
    assert paper.entry_id == "http://arxiv.org/abs/1412.6980v9"
    assert paper.title == "Adam: A Method for Stochastic Optimization"
    assert [author.name for author in paper.authors] == ["Diederik P. Kingma", "Jimmy Ba"]
    assert paper.published.isoformat() == "2014-12-22T13:54:29+00:00"
    assert paper.updated.isoformat() == "2017-01-30T01:27:54+00:00"
    assert (paper.primary_category, paper.categories) == ("cs.LG", ["cs.LG"])
    assert paper.comment.startswith("Published as a conference paper")
    assert paper.pdf_url == "https://arxiv.org/pdf/1412.6980v9"
    assert "optimizer" in paper.summary
    assert (paper.doi, paper.journal_ref) == (None, None)


def test_ids_with_versions_old_style_and_unknown(client):
    ids = ["cs/9905014", "1409.1556v1", "1409.1556v6", "1409.1556v7", "9912.12345"]
    papers = list(client.results(client_library.Search(id_list=ids)))
    assert [paper.get_short_id() for paper in papers] == ["cs/9905014v1", "1409.1556v1", "1409.1556v6"]
    assert papers[1].updated == papers[1].published < papers[2].updated
    (both,) = client.results(client_library.Search("ti:convolutional", id_list=ids[:2]))
    assert both.get_short_id() == "1409.1556v1"


def test_the_client_pages_through_everything(local, client):
    before = len(local.requests)
    papers = list(client.results(client_library.Search("cat:cs.* OR cat:stat.ML")))
    assert len({paper.entry_id for paper in papers}) == len(local.papers) == 42
    assert len(local.requests) - before == 9


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("handwritten digit recognition", "Deep Big Simple Neural Nets"),
        ("support vector machine image classification", "Deep Learning using Linear Support Vector Machines"),
        ("data augmentation small images", "The Effectiveness of Data Augmentation"),
        ("efficient fine-tuning BERT", "BitFit"),
        ("kernel random features", "Fastfood"),
        ("knowledge distillation BERT", "DistilBERT"),
        ("calibration neural networks", "On Calibration of Modern Neural Networks"),
        ("tabular data trees", "Why do tree-based models"),
        ("few-shot learning", "Prototypical Networks for Few-shot Learning"),
        ("text classification", "Bag of Tricks for Efficient Text Classification"),
        ("low-rank adaptation", "LoRA"),
    ],
)
def test_ordinary_queries_find_papers(client, words, title):
    query = " AND ".join(f"all:{word}" for word in words.split())
    titles = [paper.title for paper in client.results(client_library.Search(query, max_results=5))]
    assert [found for found in titles if found.startswith(title)], titles


def test_every_paper_is_told_in_full(local):
    for paper in local.papers:
        assert re.fullmatch(r"\d{4}\.\d{4,5}|cs/\d{7}", paper.id)
        assert paper.title and all(paper.authors) and paper.categories
        assert 120 < len(paper.abstract) < 500, paper.id
        assert paper.published <= paper.updated
        assert (paper.published == paper.updated) == (paper.version == 1), paper.id
        if "/" not in paper.id:  # says in which month it came to be, give or take the days at its end
            months = 12 * int("20" + paper.id[:2]) + int(paper.id[2:4])
            assert abs(12 * int(paper.published[:4]) + int(paper.published[5:7]) - months) <= 1, paper.id


@pytest.mark.parametrize("criterion", ["SubmittedDate", "LastUpdatedDate"])
@pytest.mark.parametrize("order", ["Ascending", "Descending"])
def test_sorting(client, criterion, order):
    search = client_library.Search(
        "cat:cs.LG",
        sort_by=getattr(client_library.SortCriterion, criterion),
        sort_order=getattr(client_library.SortOrder, order),
    )
    dates = [p.published if criterion == "SubmittedDate" else p.updated for p in client.results(search)]
    assert len(dates) > 5
    assert dates == sorted(dates, reverse=order == "Descending")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("search_query=ti:(", "malformed query"),
        ("id_list=1234.5,x", "incorrect id format for 1234.5"),
        ("search_query=all:x&start=a", "start must be an integer"),
        ("search_query=all:x&max_results=-1", "max_results must be non-negative"),
        ("search_query=all:x&max_results=30001", "max_results must not be greater than 30000"),
        ("search_query=all:x&sortBy=date", "sortBy must be in"),
        ("search_query=all:x&sortOrder=up", "sortOrder must be in"),
    ],
)
def test_bad_requests_are_answered_with_an_error_entry(local, query, message):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{local.url}/api/query?{query}")
    assert caught.value.code == 400
    feed = ElementTree.fromstring(caught.value.read())
    (entry,) = feed.findall("{http://www.w3.org/2005/Atom}entry")
    assert entry.findtext("{http://www.w3.org/2005/Atom}title") == "Error"
    assert "/api/errors#" in entry.findtext("{http://www.w3.org/2005/Atom}id")
    assert message in entry.findtext("{http://www.w3.org/2005/Atom}summary")


def test_abstract_page_and_pdf(local):
    with urllib.request.urlopen(f"{local.url}/abs/1512.03385v1") as answer:
        page = answer.read().decode()
    assert "Deep Residual Learning for Image Recognition" in page
    assert "Kaiming He" in page
    for name in ("1512.03385", "1512.03385v1.pdf", "cs/9905014"):
        with urllib.request.urlopen(f"{local.url}/pdf/{name}") as answer:
            assert answer.headers["content-type"] == "application/pdf"
            check_pdf(answer.read())
    for path in ("abs/9912.99999", "pdf/1512.03385v2", "abs/nonsense"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{local.url}/{path}")


def check_pdf(data: bytes) -> None:
    """The cross-reference table points to where the objects are, and the stream is as long as it says."""
    assert data.startswith(b"%PDF-1.4\n")
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", data)[1])
    table = data[start:]
    assert table.startswith(b"xref\n0 6\n")
    places = [int(place) for place in re.findall(rb"(\d{10}) 00000 n \n", table)]
    for number, place in enumerate(places, 1):
        assert data[place:].startswith(b"%d 0 obj\n" % number)
    assert len(places) == 5
    length = int(re.search(rb"/Length (\d+)", data)[1])
    stream = data[data.index(b"stream\n") + 7 :][:length]
    assert stream.startswith(b"BT") and stream.endswith(b"ET")


def test_failures_can_be_ordered(local, client):
    local.fail("/api/query", status=503, headers={"Retry-After": "1"}, delay=0.2)
    start = time.monotonic()
    with pytest.raises(client_library.HTTPError, match="503"):
        list(client.results(client_library.Search("all:deep", max_results=1)))
    assert time.monotonic() - start > 0.2
    assert list(client.results(client_library.Search("all:deep", max_results=1)))


def test_the_data_folder_survives_a_restart(tmp_path):
    with LocalArxiv(tmp_path / "new") as service:
        count = len(service.papers)
        service.add(PAPERS[0])
        service.add(PAPERS[1])
        service.add(replace(PAPERS[0], title="Renamed"))
    again = LocalArxiv(tmp_path / "new")
    assert again.papers == service.papers
    assert len(again.papers) == count + 2
    assert again.papers[-1].title == "Renamed"
