"""Papers that are not like most: old ids, versions, withdrawn, titles in other scripts, known by a DOI alone."""

import json
from hashlib import sha1

import pytest
from jsonschema import validate
from ml_intern.tools import (
    ArxivSearchTool,
    PaperGraphTool,
    PaperReadTool,
    PaperResourcesTool,
    SemanticScholarSearchTool,
)

from ml_intern.testing import LocalArxiv
from ml_intern.testing.arxiv import Paper
from ml_intern.testing.papers import Part, latexml
from ml_intern.testing.scholar import LocalScholar, ScholarPaper

DAY = "2024-05-01T00:00:00Z"
OLD = Paper(
    "hep-th/9901001",
    "Über naïve Études — 弦理論",
    ["Đặng Thị Ánh", "J. Müller"],
    "Öl & <Gas>.",
    ["hep-th"],
    DAY,
    DAY,
    version=3,
)
GONE = Paper(
    "2405.00009",
    "Gone",
    ["A. B."],
    "It was wrong.",
    ["cs.LG"],
    DAY,
    DAY,
    comment="This paper has been withdrawn by the author",
)
MATH = Paper(
    "math.GT/0309136", "Why $x^2 \\ge 0$ & more", ["G. P."], "a < b.", ["math.GT"], DAY, DAY, doi="10.1000/xyz<1>"
)
JOURNAL = "10.1002/(SICI)1097-0258(19980815)17:15<1661::AID-SIM968>3.0.CO;2-2"


def known_to_scholar(paper, **ids):
    about = {"paperId": sha1(paper.title.encode(), usedforsecurity=False).hexdigest(), "title": paper.title}
    about |= {"externalIds": ids, "abstract": None, "venue": "", "year": 2024, "publicationDate": None, "authors": []}
    about |= {
        "citationCount": 0,
        "influentialCitationCount": 0,
        "openAccessPdf": None,
        "fieldsOfStudy": None,
        "tldr": None,
    }
    return ScholarPaper(about)


@pytest.fixture(scope="module")
def services():
    with LocalArxiv() as arxiv, LocalScholar() as scholar:
        for paper in (OLD, GONE, MATH):
            arxiv.add(paper)
        arxiv.publish(OLD.id, html=latexml(OLD.title, OLD.authors, OLD.abstract, [Part("Einführung", ["Wörter."])]))
        scholar.add(known_to_scholar(OLD, ArXiv=OLD.id))
        scholar.add(known_to_scholar(MATH, DOI=JOURNAL))
        yield {**arxiv.environment(), **scholar.environment()}


@pytest.fixture(autouse=True)
def places(services, hub, monkeypatch):
    for name, value in services.items():
        monkeypatch.setenv(name, value)
    hub.seed("acme/strings", "model", {"README.md": f"---\ntags:\n- arxiv:{OLD.id}\n---\n".encode()})


@pytest.mark.parametrize("name", [OLD.id, f"{OLD.id}v2", f"arXiv:{OLD.id}", f"https://arxiv.org/abs/{OLD.id}v3"])
def test_every_tool_takes_an_old_id_with_or_without_its_version(name):
    (here,) = ArxivSearchTool()(ids=[name])["papers"]
    (there,) = SemanticScholarSearchTool()(ids=[name])["papers"]
    assert here["title"] == there["title"] == OLD.title
    assert here["arxiv_id"] == there["arxiv_id"] == OLD.id
    assert here["version"] == (2 if name.endswith("v2") else 3)
    assert here["authors"] == OLD.authors
    assert here["abstract"] == "Öl & <Gas>."
    assert (here["date"], there["date"]) == ("2024-05-01", "2024")
    assert PaperResourcesTool()(paper=name, kinds=["models"])["models"][0]["id"] == "acme/strings"
    assert PaperGraphTool()(relation="citations", paper=name)["papers"] == []
    paper = PaperReadTool()(name)
    assert paper["title"] == OLD.title
    assert "Wörter." in PaperReadTool()(name, part=next(reversed(paper["contents"])))["text"]


@pytest.mark.parametrize("query", ["弦理論", "naïve", "ti:Études", "au:Thị"])
def test_words_in_any_script_are_found(query):
    assert [paper["arxiv_id"] for paper in ArxivSearchTool()(query=query)["papers"]] == [OLD.id]
    if ":" not in query:
        assert OLD.id in [paper["arxiv_id"] for paper in SemanticScholarSearchTool()(query=query)["papers"]]


def test_a_title_is_found_whatever_it_is_made_of():
    for paper in (OLD, MATH):
        assert [one["title"] for one in SemanticScholarSearchTool()(title=paper.title)["papers"]] == [paper.title]


def test_a_paper_known_by_a_doi_alone():
    (found,) = SemanticScholarSearchTool()(ids=[f"https://doi.org/{JOURNAL}"])["papers"]
    assert (found["doi"], found["arxiv_id"], found["title"]) == (JOURNAL, None, MATH.title)
    assert found["links"].keys() == {"s2", "doi"}


def test_a_withdrawn_paper_says_so_in_the_search_as_well():
    (found,) = ArxivSearchTool()(ids=[GONE.id])["papers"]
    assert "withdrawn" in found["comment"]


def test_what_they_give_is_as_their_schemas_say():
    for tool, arguments in (
        (ArxivSearchTool(), {"ids": [OLD.id, GONE.id, MATH.id]}),
        (SemanticScholarSearchTool(), {"ids": [OLD.id, JOURNAL]}),
        (PaperGraphTool(), {"relation": "references", "paper": OLD.id}),
        (PaperReadTool(), {"paper": OLD.id}),
        (PaperReadTool(), {"paper": GONE.id, "part": "abstract"}),
        (PaperResourcesTool(), {"paper": OLD.id}),
    ):
        answer = tool(**arguments)
        validate(answer, tool.output_schema)
        assert json.loads(json.dumps(answer)) == answer
