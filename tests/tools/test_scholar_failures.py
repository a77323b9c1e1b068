"""What goes wrong at Semantic Scholar is one or two lines: who, why, what to do; never an empty result, never minutes."""

import inspect
import socket
import time

import pytest
from ml_intern.tools import PaperGraphTool, SemanticScholarSearchTool
from scholar_service import running_scholar, scholar  # noqa: F401 - fixtures
from semanticscholar import SemanticScholar
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ml_intern.testing import Service

CALLS = {
    "search": (SemanticScholarSearchTool, {"query": "residual"}),
    "bulk": (SemanticScholarSearchTool, {"query": "residual", "sort": "newest"}),
    "ids": (SemanticScholarSearchTool, {"ids": ["1512.03385"]}),
    "title": (SemanticScholarSearchTool, {"title": "Wide Residual Networks"}),
    "citations": (PaperGraphTool, {"relation": "citations", "paper": "1512.03385"}),
    "recommendations": (PaperGraphTool, {"relation": "recommendations", "paper": "1512.03385"}),
    "snippets": (PaperGraphTool, {"relation": "snippets", "query": "shortcut connections"}),
}
TOOLS = list(dict.fromkeys(tool for tool, _ in CALLS.values()))
HTML = {"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>Please log in</html>"}
JSON = {"content-type": "application/json"}


SAME = ("bulk", "title", "snippets")  # go the same way as others


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.soak if name in SAME else ()) for name in CALLS])
def call(request, scholar):  # noqa: F811
    tool_class, arguments = CALLS[request.param]
    tool = tool_class()
    return lambda: tool(**arguments)


def complaint(call, kind) -> str:
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    assert time.monotonic() - started < 5
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    assert len(text) < 500
    return text


def test_it_works_when_nothing_is_wrong(call):
    assert call()


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        ({"status": 401}, PermissionError, "refused the request (401). It asks for a key"),
        ({"status": 403, "body": {"message": "Forbidden"}}, PermissionError, "(403)"),
        ({"status": 429, "headers": {"Retry-After": "1234"}}, ConnectionError, "HTTP 429 and asks to wait 1234 s"),
        ({"status": 429}, ConnectionError, "or set SEMANTIC_SCHOLAR_API_KEY"),
        ({"status": 500, "body": {"message": "out of cheese"}}, ConnectionError, "HTTP 500: out of cheese"),
        ({"status": 502, "body": "<html>"}, ConnectionError, "HTTP 502 (tried 3 times)"),
        ({"status": 503}, ConnectionError, "HTTP 503 (tried 3 times)"),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}}, ConnectionError, "HTTP 302"),
        (HTML, ConnectionError, "something else than its API's JSON"),
        ({"status": 200, "headers": JSON, "body": "{}"}, ConnectionError, "something else than its API's JSON"),
        ({"status": 200, "headers": JSON, "body": '["hello'}, ConnectionError, "something else than its API's JSON"),
        ({"status": 200, "headers": JSON, "body": {"error": "no"}}, ConnectionError, "something else|no"),
        ({"status": 404, "body": "nothing here"}, ConnectionError, "HTTP 404"),
        ({"drop": True}, ConnectionError, "broke off|could not be reached"),
        ({"drop": 20}, ConnectionError, "broke off"),
        ({"status": 400, "body": {"error": "bad field"}}, ValueError, "did not take the request: bad field"),
    ],
)
def test_a_failing_service_is_never_an_empty_result(call, scholar, failure, kind, said):  # noqa: F811
    scholar.fail(".", times=None, **failure)
    text = complaint(call, kind)
    assert f"Semantic Scholar ({scholar.url})" in text
    assert any(one in text for one in said.split("|"))


@pytest.mark.parametrize("status", [401, 502, 503])
def test_the_bare_client_would_have_taken_it_for_nothing(scholar, status):  # noqa: F811
    """If this fails, the client has been mended, and our way round it can go."""
    scholar.fail(".", status=status)
    assert SemanticScholar(api_url=scholar.url, retry=False).search_paper("residual").total == 0


def test_it_is_down(call, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("SEMANTIC_SCHOLAR_API_URL", f"http://127.0.0.1:{port}")
    text = complaint(call, ConnectionError)
    assert f"127.0.0.1:{port}) could not be reached (tried 3 times)" in text
    assert "check the network and SEMANTIC_SCHOLAR_API_URL" in text


@pytest.mark.parametrize("failure", [{"status": 503}, {"drop": True}, {"drop": 30}, {"status": 429}])
def test_a_passing_failure_is_got_over(call, scholar, failure):  # noqa: F811
    scholar.fail(".", times=2, **failure)
    assert call()
    assert len(scholar.requests) == 3


def test_retry_after_is_honoured(scholar):  # noqa: F811
    scholar.fail(".", status=429, headers={"Retry-After": "1"})
    started = time.monotonic()
    assert SemanticScholarSearchTool()(query="residual")["papers"]
    assert 1 <= time.monotonic() - started < 3


@pytest.mark.parametrize("tool_class", TOOLS)
def test_the_time_is_bounded_whatever_the_service_does(scholar, tool_class):  # noqa: F811
    tool = tool_class()
    tool.max_seconds = 0.4
    scholar.fail(".", delay=3)
    name = next(name for name, (kind, _) in CALLS.items() if kind is tool_class)
    assert "did not answer within 0.4 s" in complaint(lambda: tool(**CALLS[name][1]), TimeoutError)


def test_the_key_goes_to_its_host_and_to_no_other(call, scholar, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SEMANTIC_SCHOLAR_API_KEY", "s2-secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    call()
    assert {request.headers.get("x-api-key") for request in scholar.requests} == {"s2-secret"}
    assert all("authorization" not in request.headers for request in scholar.requests)
    with Service(Starlette(routes=[Route("/{x:path}", lambda request: JSONResponse({"total": 0}))])) as other:
        scholar.fail(".", status=307, headers={"Location": f"{other.url}/stolen"}, times=None)
        text = complaint(lambda: _fresh(call), ConnectionError)
        assert "HTTP 307" in text
        assert other.requests == []


def _fresh(call):
    """The same call, without what was kept of its answer."""
    tool = inspect.getclosurevars(call).nonlocals["tool"]
    again = type(tool)()
    again._cached = lambda key, seconds: None
    return again(**inspect.getclosurevars(call).nonlocals["arguments"])


def test_a_wrong_key_is_named(call, scholar, monkeypatch):  # noqa: F811
    monkeypatch.setenv("S2_API_KEY", "nonsense")
    text = complaint(call, PermissionError)
    assert "The key in SEMANTIC_SCHOLAR_API_KEY is not valid" in text
    assert "nonsense" not in text


def test_repeated_calls_come_from_the_cache(call, scholar):  # noqa: F811
    first = call()
    asked = len(scholar.requests)
    started = time.monotonic()
    for _ in range(10):
        assert call() == first
    assert (time.monotonic() - started) / 10 < 0.03
    assert len(scholar.requests) == asked
    tool = inspect.getclosurevars(call).nonlocals["tool"]
    assert (
        type(tool)()(**inspect.getclosurevars(call).nonlocals["arguments"]) == first
    )  # from disk, in another process
    assert len(scholar.requests) == asked
