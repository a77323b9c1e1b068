"""arxiv_search against the local arXiv, through the official client."""

import copy
import socket
import time

import pytest
from ml_intern.tools.arxiv_search import ArxivSearchTool
from saving import assert_survives_saving
from smolagents import CodeAgent, ToolCallingAgent
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole

from ml_intern.testing import LocalArxiv, ScriptedModel

ADAM = {
    "arxiv_id": "1412.6980",
    "version": 9,
    "doi": None,
    "s2_id": None,
    "title": "Adam: A Method for Stochastic Optimization",
    "authors": ["Diederik P. Kingma", "Jimmy Ba"],
    "date": "2014-12-22",
    "published": "2014-12-22T13:54:29Z",
    "updated": "2017-01-30T01:27:54Z",
    "categories": ["cs.LG"],
    "tldr": None,
    "citations": None,
    "influential_citations": None,
    "comment": "Published as a conference paper at the 3rd International Conference for Learning Representations, "
    "San Diego, 2015",
    "journal_ref": None,
    "links": {"abs": "https://arxiv.org/abs/1412.6980v9", "pdf": "https://arxiv.org/pdf/1412.6980v9"},
}


@pytest.fixture(scope="module")
def service():
    with LocalArxiv() as service:
        yield service


@pytest.fixture
def arxiv(service, monkeypatch):
    monkeypatch.setenv("ARXIV_API_URL", service.environment()["ARXIV_API_URL"])
    service.requests.clear()
    return service


@pytest.fixture
def fail(arxiv):
    """Order failures, taken back after the test."""
    ordered = []
    yield lambda **failure: ordered.append(arxiv.fail("/api/query", **failure))
    for failure in ordered:
        failure.times = 0


@pytest.fixture
def tool():
    return ArxivSearchTool()


def titles(answer: dict) -> list[str]:
    return [paper["title"] for paper in answer["papers"]]


def test_a_paper_has_all_its_fields(arxiv, tool):
    answer = tool(ids=["1412.6980"])
    assert answer["papers"][0].pop("abstract").startswith("A first-order optimizer")
    assert answer == {"papers": [ADAM], "total": 1, "query": ""}
    properties = tool.output_schema["properties"]["papers"]["items"]["properties"]
    assert properties.keys() == {*ADAM, "abstract"}


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ({"query": "residual networks"}, "all:residual AND all:networks"),
        (
            {"query": ' fine-tuning:  "image classification", (CNN) '},
            'all:fine-tuning AND all:"image classification" AND all:CNN',
        ),
        ({"query": "ti:residual OR au:hinton"}, "ti:residual OR au:hinton"),
        ({"query": "dropout AND networks"}, "dropout AND networks"),
        ({"query": "residual", "categories": ["cs.CV"]}, "all:residual AND cat:cs.CV"),
        (
            {"query": "deep residual", "categories": "cs.CV, stat.*"},
            "(all:deep AND all:residual) AND (cat:cs.CV OR cat:stat.*)",
        ),
        ({"categories": ["cat:cs.NE"]}, "cat:cs.NE"),
        ({"query": "deep", "date_from": "2015-06-01"}, "all:deep AND submittedDate:[201506010000 TO 299912312359]"),
        (
            {"query": "deep", "date_to": "2015-06-01T12:00:00"},
            "all:deep AND submittedDate:[199101010000 TO 201506012359]",
        ),
        (
            {"query": "", "date_from": "2020-01-01", "date_to": "2020-12-31"},
            "submittedDate:[202001010000 TO 202012312359]",
        ),
    ],
)
def test_the_query_that_is_sent(arxiv, tool, arguments, query):
    answer = tool(**arguments)
    assert answer["query"] == query
    assert answer["total"] == len(answer["papers"]) > 0 or "CNN" in query


def test_limit_sort_and_total(arxiv, tool):
    answer = tool(query="cat:cs.LG", sort="submitted", limit=2)
    assert titles(answer)[0].startswith("QLoRA")
    assert (len(answer["papers"]), answer["total"]) == (2, 27)
    assert len(arxiv.requests) == 1
    assert "max_results=2" in arxiv.requests[0].path
    assert titles(tool(query="cat:cs.LG", sort="updated", limit=1))[0].startswith("TabPFN")
    assert titles(tool(query="residual network", limit=1)) == ["Wide Residual Networks"]


def test_ids_in_every_form(arxiv, tool):
    ids = [
        "arXiv:1512.03385",
        "https://arxiv.org/pdf/1409.1556v1.pdf",
        "http://arxiv.org/abs/cs/9905014",
        "1512.03385",
    ]
    papers = tool(ids=ids)["papers"]
    assert [(paper["arxiv_id"], paper["version"]) for paper in papers] == [
        ("1512.03385", 1),
        ("1409.1556", 1),
        ("cs/9905014", 1),
    ]
    assert [paper["arxiv_id"] for paper in tool(ids="1512.03385, 2106.09685")["papers"]] == [
        "1512.03385",
        "2106.09685",
    ]
    known = [paper.id for paper in arxiv.papers]
    assert len(tool(ids=known)["papers"]) == len(known) > 10  # more than the default limit


def test_ids_that_were_not_found_are_named(arxiv, tool):
    for _ in range(2):  # from the network and from the cache
        found = tool(ids=["1412.6980", "arXiv:9912.12345", "cs.LG/9905014v1", "1412.6980v99", "1512.03385v1"])
        assert [paper["arxiv_id"] for paper in found["papers"]] == ["1412.6980", "cs/9905014", "1512.03385"]
        assert found["not_found"] == ["9912.12345", "1412.6980v99"]
    assert "not_found" not in tool(ids=["1412.6980", "1512.03385"])
    narrowed = tool(query="ti:Adam", ids=["1412.6980", "1512.03385"])
    assert (titles(narrowed), narrowed["not_found"]) == ([ADAM["title"]], ["1512.03385"])


def test_repeated_calls_come_from_the_cache(arxiv, tool, monkeypatch):
    first = tool(query="residual networks")
    first["papers"].clear()
    start = time.monotonic()
    for _ in range(20):
        assert ArxivSearchTool()(query="residual networks")["papers"]
    assert (time.monotonic() - start) / 20 < 0.02
    assert len(arxiv.requests) == 1
    tool(query="residual networks", limit=3)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    tool(query="residual networks")
    assert len(arxiv.requests) == 3


def test_nothing_found_is_an_empty_list_and_a_hint(arxiv, tool):
    found = tool(query="unheardof")
    assert found.pop("hint").startswith("No paper has all of this. Try fewer words; OR between alternatives")
    assert found == {"papers": [], "total": 0, "query": "all:unheardof"}
    narrow = tool(query='"deep residual unheardof"', date_from="2001-01-01")["hint"]
    assert "no quotes" in narrow
    assert "no categories or dates" in narrow
    found = tool(ids=["9912.12345"])
    assert (found["papers"], found["hint"]) == ([], "arXiv has no such paper. Check the ids, or search by words.")
    assert found["not_found"] == ["9912.12345"]
    assert "hint" not in tool(query="residual")


def test_a_stub_for_an_unknown_id_is_left_out(arxiv, fail, tool):
    import urllib.request

    with urllib.request.urlopen(f"{arxiv.url}/api/query?id_list=1412.6980") as answer:
        feed = answer.read().decode()
    stub = "<entry><id>http://arxiv.org/abs/9912.12345</id><title>x</title></entry><entry>"
    two = feed.replace("<entry>", stub, 1).replace(":totalResults>1<", ":totalResults>2<")
    assert two.count("<entry>") == 2 and ":totalResults>2<" in two
    fail(status=200, body=two, headers={"content-type": "application/atom+xml"}, times=2)
    assert titles(tool(ids=["9912.12345", "1412.6980"])) == [ADAM["title"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"nothing to look for.*arxiv_search\(query='residual network'"),
        ({"query": "  ", "ids": []}, "nothing to look for"),
        ({"query": "... ,"}, "nothing to look for"),
        ({"query": 'an "open quote'}, "quote is left open"),
        ({"query": "x", "limit": 51}, "from 1 to 50, not 51"),
        ({"query": "x", "limit": 0}, "from 1 to 50, not 0"),
        ({"query": "x", "limit": "many"}, "from 1 to 50"),
        ({"query": "x", "limit": True}, "from 1 to 50"),
        ({"query": "x", "sort": "date"}, "sort is one of relevance, submitted, updated"),
        ({"query": "x", "categories": ["machine learning"]}, "'machine learning' is no arXiv category"),
        ({"query": "x", "date_from": "yesterday"}, "date_from is a day as YYYY-MM-DD"),
        ({"query": "x", "date_from": "2021-01-01", "date_to": "2020-01-01"}, "after date_to"),
        ({"ids": ["ResNet"]}, "'ResNet' is no arXiv id. Examples: 1512.03385"),
        ({"ids": [f"1512.{n:05d}" for n in range(51)]}, "51 ids are too many"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_without_a_request(arxiv, tool, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        tool(**arguments)
    assert len(str(caught.value).splitlines()) <= 2
    assert arxiv.requests == []


def test_a_query_that_arxiv_refuses_is_told_in_its_words_and_not_repeated(arxiv, tool):
    with pytest.raises(ValueError, match="arXiv did not take the query: malformed query: a bracket is open"):
        tool(query="ti:(deep")
    assert len(arxiv.requests) == 1


def test_an_error_entry_with_status_200_is_an_error(arxiv, fail, tool):
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{arxiv.url}/api/query?search_query=all:x&start=a")
    fail(status=200, body=caught.value.read(), headers={"content-type": "application/atom+xml"})
    with pytest.raises(ValueError, match="start must be an integer"):
        tool(query="x")


HTML = {"status": 200, "body": "<html><body><p>Rate exceeded.</body></html>", "headers": {"content-type": "text/html"}}
XHTML = {**HTML, "body": "<html><body/></html>"}
EMPTY = {"status": 200, "body": "", "headers": {"content-type": "application/atom+xml"}}
HOLLOW = {
    "status": 200,
    "body": '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:o="http://a9.com/-/spec/opensearch/1.1/">'
    "<o:totalResults>7</o:totalResults></feed>",
}


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ({"status": 429}, "HTTP 429"),
        ({"status": 500}, "HTTP 500"),
        ({"status": 503, "headers": {"Retry-After": "0"}}, "HTTP 503 and asks to wait 0 s"),
        ({"drop": True}, "could not be reached"),
        ({"drop": 700}, "broke off|could not be reached|no whole Atom feed"),
        (HTML, "no whole Atom feed .text/html"),
        (XHTML, "no answer to a search .text/html"),
        (EMPTY, "no whole Atom feed"),
        (HOLLOW, "sent 0 of the 7 papers"),
    ],
)
def test_a_failing_service_is_never_an_empty_result(arxiv, fail, tool, failure, message):
    fail(times=None, **failure)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=message) as caught:
        tool(query="residual")
    assert time.monotonic() - start < 5
    text = str(caught.value)
    assert text.startswith("arXiv (http://127.0.0.1:") and "(tried 3 times)" in text and "Try again later" in text
    assert len(text.splitlines()) == 1
    assert len(arxiv.requests) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_would_be_refused_again_is_asked_once(arxiv, fail, tool, status):
    fail(status=status, times=None)
    with pytest.raises(ConnectionError, match=rf"answered with HTTP {status} \(tried 1 times\)"):
        tool(query="residual")
    assert len(arxiv.requests) == 1


@pytest.mark.parametrize("failure", [{"status": 503}, {"drop": True}, {"drop": 700}, HTML])
def test_a_passing_failure_is_got_over(arxiv, fail, tool, failure):
    fail(times=2, **failure)
    assert tool(ids=["1412.6980"])["total"] == 1
    assert len(arxiv.requests) == 3


def test_retry_after_is_honoured(arxiv, fail, tool):
    fail(status=429, headers={"Retry-After": "1"})
    start = time.monotonic()
    assert tool(ids=["1412.6980"])["total"] == 1
    assert 1 <= time.monotonic() - start < 3


@pytest.mark.parametrize("value", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_long_retry_after_gives_up_at_once(arxiv, fail, tool, value):
    fail(status=429, times=None, headers={"Retry-After": value})
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"HTTP 429 and asks to wait \d{4,} s .tried 1 times"):
        tool(query="x")
    assert time.monotonic() - start < 2


def test_a_status_that_will_not_change_is_not_retried(arxiv, fail, tool):
    fail(status=404, times=None)
    with pytest.raises(ConnectionError, match=r"HTTP 404 \(tried 1 times\).*ARXIV_API_URL"):
        tool(query="x")


def test_a_service_that_is_down(tool, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("ARXIV_API_URL", f"http://127.0.0.1:{port}/api/query")
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{port}/api/query. could not be reached .tried 3 times"):
        tool(query="x")


def test_the_time_is_bounded_whatever_the_service_does(arxiv, fail, tool):
    fail(delay=3, times=1)
    tool.max_seconds = 0.5
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not answer within 0\.5 s"):
        tool(query="x")
    assert time.monotonic() - start < 2


def test_the_pause_is_kept_for_arxiv_but_not_for_this_machine(tool, monkeypatch):
    for url, pause in [
        ("", 3.0),
        ("http://localhost:1/q", 0.0),
        ("http://[::1]:1/q", 0.0),
        ("http://10.0.0.1/q", 3.0),
    ]:
        monkeypatch.setenv("ARXIV_API_URL", url)
        client = tool._ready_client(10)
        assert (tool._shared["pause"], client.delay_seconds) == (pause, 0.0)  # see test_service_turns.py
        assert client is copy.copy(tool)._ready_client(10)  # the router calls copies
        assert client.query_url_format == (url or "https://export.arxiv.org/api/query") + "?{}"


@pytest.mark.long
def test_it_survives_saving_and_works_over_there(arxiv):
    environment = arxiv.environment()
    answer = assert_survives_saving(
        ArxivSearchTool, "arxiv", "requests", call={"ids": ["1412.6980"]}, environment=environment
    )
    assert titles(answer) == [ADAM["title"]]


def test_a_plain_code_agent_uses_it(arxiv, tool):
    code = "papers = arxiv_search(query='residual network')['papers']\nfinal_answer(papers[0]['title'])"
    with ScriptedModel([f"Search.\n<code>\n{code}\n</code>"]) as model:
        agent = CodeAgent(tools=[tool], model=model, verbosity_level=0)
        assert agent.run("find a paper") == "Wide Residual Networks"
    assert "def arxiv_search(" in str(model.requests[0][0].content)


def test_a_plain_tool_calling_agent_uses_it(arxiv, tool):
    def call(name: str, arguments: dict) -> ChatMessage:
        function = ChatMessageToolCallFunction(arguments, name)
        return ChatMessage(MessageRole.ASSISTANT, "", tool_calls=[ChatMessageToolCall(function, name, "function")])

    script = [call("arxiv_search", {"ids": ["1412.6980"]}), call("final_answer", {"answer": "Adam"})]
    with ScriptedModel(script) as model:
        assert ToolCallingAgent(tools=[tool], model=model, verbosity_level=0).run("find Adam") == "Adam"
    assert ADAM["title"] in str(model.requests[1][-1].content)
