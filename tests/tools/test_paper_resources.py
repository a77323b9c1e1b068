"""paper_resources against the local Hub: what belongs to a paper, and which papers there are."""

import time

import pytest
from huggingface_hub import HfApi
from ml_intern.tools import PaperResourcesTool
from saving import assert_survives_saving
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ml_intern.testing import Service

LORA = "2106.09685"
CARD = "---\nlicense: mit\n{}---\nAs in https://arxiv.org/abs/2106.09685 .\n"
HTML = {"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>Please log in</html>"}


@pytest.fixture
def papers(hub):
    hub._hub.papers.clear()
    hub._hub.collections.clear()
    for number in range(3):
        card = CARD.format("pipeline_tag: text-generation\nlibrary_name: peft\n").encode()
        hub.seed(f"acme/lora-{number}", "model", {"README.md": card}, downloads=number, likes=5 - number)
    hub.seed("acme/other", "model", {"README.md": b"nothing"})
    hub.seed("acme/pairs", "dataset", {"README.md": CARD.format("task_categories:\n- summarization\n").encode()})
    hub.seed("acme/demo", "space", {"README.md": CARD.format("sdk: gradio\n").encode()}, sdk="gradio")
    hub.seed("tester/own", "model", {"README.md": CARD.format("").encode()}, private=True)
    hub.add_collection("acme/adapters-1", "Adapters", [f"papers/{LORA}"])
    more = {"authors": ("Edward Hu", "Zoë Åkesson"), "githubRepo": "https://github.com/acme/LoRA", "githubStars": 9}
    more |= {"upvotes": 7, "ai_summary": "Small matrices suffice.", "projectPage": "https://acme.example/lora"}
    hub.add_paper(LORA, "LoRA: Étude", "Low-rank adaptation.", day="2025-03-14", **more)
    hub.add_paper(
        "2503.00001", "Other Work", "See https://github.com/acme/other.git for code", day="2025-03-15", upvotes=70
    )
    text = "# T\nOur code: https://github.com/acme/ours. We build on https://github.com/acme/base."
    hub.add_paper("2503.00002", "Hidden Code", "No link.", markdown=text)
    hub.add_paper("2503.00003", "No Code", "Nothing.")
    hub.requests.clear()
    return hub


@pytest.fixture
def tool(papers):
    return PaperResourcesTool()


def test_everything_of_a_paper(papers, tool):
    answer = tool(paper=f"https://arxiv.org/abs/{LORA}v2")
    assert [row["id"] for row in answer["models"]] == ["acme/lora-2", "acme/lora-1", "acme/lora-0", "tester/own"]
    model = answer["models"][0]
    assert model.pop("last_modified")
    assert model == {
        "id": "acme/lora-2",
        "downloads": 2,
        "likes": 3,
        "task": "text-generation",
        "library": "peft",
        "license": "mit",
        "gated": False,
        "private": False,
        "url": f"{papers.url}/acme/lora-2",
    }
    assert answer["models"][-1]["private"] is True
    (dataset,) = answer["datasets"]
    assert (dataset["task"], dataset["url"]) == ("summarization", f"{papers.url}/datasets/acme/pairs")
    assert [(row["id"], row["library"]) for row in answer["spaces"]] == [("acme/demo", "gradio")]
    assert [row["title"] for row in answer["collections"]] == ["Adapters"]
    assert answer["code"] == [{"url": "https://github.com/acme/LoRA", "stars": 9, "where": "hub"}]
    assert answer["more"] == []
    paper = answer["paper"]
    assert (paper["title"], paper["authors"][1], paper["upvotes"]) == ("LoRA: Étude", "Zoë Åkesson", 7)
    assert paper["tldr"] == "Small matrices suffice."
    assert paper["links"]["code"] == "https://github.com/acme/LoRA"
    assert paper["links"]["hub"] == f"{papers.url}/papers/{LORA}"


def test_the_record_is_that_of_the_other_tools(tool):
    shared = {"arxiv_id", "doi", "s2_id", "title", "authors", "date", "abstract", "tldr", "citations", "links"}
    assert tool(paper=LORA, kinds=["code"])["paper"].keys() >= shared | {"influential_citations"}


def test_kinds_sort_and_limit(papers, tool):
    answer = tool(paper=LORA, kinds=["models"], sort="likes", limit=2)
    assert [row["id"] for row in answer["models"]] == ["acme/lora-0", "acme/lora-1"]
    assert answer["more"] == ["models"]
    assert answer.keys() == {"paper", "models", "more"}
    assert len(papers.requests) == 2


@pytest.mark.parametrize(
    ("paper", "code"),
    [
        ("2503.00001", [("https://github.com/acme/other", "abstract")]),
        ("2503.00002", [("https://github.com/acme/ours", "text"), ("https://github.com/acme/base", "text")]),
        ("2503.00003", []),
    ],
)
def test_the_code_is_looked_for_where_it_may_stand(tool, paper, code):
    answer = tool(paper=paper, kinds="code")
    assert [(one["url"], one["where"]) for one in answer["code"]] == code
    assert ("hint" in answer) is not bool(code)


def test_a_paper_without_a_page_still_has_what_names_it(papers, tool):
    papers._hub.papers.clear()
    answer = tool(paper=LORA)
    assert answer["paper"] is None
    assert "has no page" in answer["hint"] or "No code" in answer["hint"]
    assert len(answer["models"]) == 4
    assert tool(paper="hep-th/9901001", kinds=["models"])["models"] == []


@pytest.mark.parametrize(
    ("which", "ids"),
    [
        ("daily", ["2503.00001", LORA]),
        (None, ["2503.00001", LORA]),
        ("trending", ["2503.00001", LORA]),
        ("2025-03-14", [LORA]),
        ("2025-W11", ["2503.00001", LORA]),
        ("2025-03", ["2503.00001", LORA]),
        ("2025-04", []),
    ],
)
def test_lists_of_papers(tool, which, ids):
    answer = tool(papers=which)
    assert [paper["arxiv_id"] for paper in answer["papers"]] == ids
    assert ("hint" in answer) is not bool(ids)
    assert all(paper["title"] for paper in answer["papers"])


def test_papers_by_words(tool):
    assert [paper["title"] for paper in tool(query="low-rank")["papers"]] == ["LoRA: Étude"]
    assert "try fewer" in tool(query="unheardof")["hint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"paper": "ResNet"}, "'ResNet' is no arXiv id"),
        ({"paper": LORA, "query": "x"}, "either `paper`"),
        ({"paper": LORA, "kinds": ["weights"]}, "`kinds` are of models, .* not 'weights'"),
        ({"paper": LORA, "sort": "size"}, "`sort` is one of downloads, likes, trending"),
        ({"limit": 0}, "from 1 to 100"),
        ({"papers": "yesterday"}, "trending, daily, or as 2025-03-14"),
    ],
)
def test_arguments_that_make_no_sense(papers, tool, arguments, message):
    with pytest.raises(ValueError, match=message):
        tool(**arguments)
    assert papers.requests == []


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        ({"status": 500, "body": {"error": "out of cheese"}}, ConnectionError, "500: out of cheese"),
        ({"status": 503}, ConnectionError, "503"),
        ({"status": 429, "headers": {"Retry-After": "1234"}}, ConnectionError, "after 1234 seconds"),
        ({"status": 401}, PermissionError, "401"),
        (HTML, ConnectionError, "JSON"),
        (
            {"status": 200, "headers": {"content-type": "application/json"}, "body": '["hello"]'},
            ConnectionError,
            "JSON",
        ),
        ({"drop": 5}, ConnectionError, "broke off"),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [
        {"paper": LORA, "kinds": ["models"]},
        pytest.param({"papers": "daily"}, marks=pytest.mark.soak),
        pytest.param({"query": "code"}, marks=pytest.mark.soak),
    ],
)
def test_a_failing_hub_is_never_an_empty_result(papers, tool, arguments, failure, kind, said):
    papers.fail(".", times=None, **failure)
    started = time.monotonic()
    with pytest.raises(kind, match=said) as caught:
        tool(**arguments)
    assert time.monotonic() - started < 6
    assert papers.url in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_hub_that_is_down(papers, tool):
    url = papers.url
    papers.close()
    with pytest.raises(ConnectionError, match=f"{url}. cannot be reached.*HF_ENDPOINT"):
        tool(paper=LORA)


def test_the_token_goes_where_repositories_are_listed_and_to_no_other_host(papers, tool):
    tool(paper=LORA)
    tool(papers="daily")
    for request in papers.requests:
        known = request.path.startswith(("/api/models", "/api/datasets", "/api/spaces", "/api/collections"))
        assert ("authorization" in request.headers) is known, request.path
    with Service(Starlette(routes=[Route("/{x:path}", lambda request: JSONResponse([]))])) as other:
        papers.fail("/api/models", status=307, headers={"Location": f"{other.url}/stolen"})
        tool(paper=LORA, kinds=["models"], limit=9)
        assert [request.path for request in other.requests] == ["/stolen"]  # the client follows, but keeps the token
        assert "authorization" not in other.requests[0].headers


def test_repeated_calls_come_from_the_cache_and_each_token_sees_its_own(papers, tool, monkeypatch):
    first = tool(paper=LORA)
    asked = len(papers.requests)
    started = time.monotonic()
    assert PaperResourcesTool()(paper=LORA) == first
    assert time.monotonic() - started < 0.05
    assert len(papers.requests) == asked
    monkeypatch.setenv("HF_TOKEN", "hf_other_token")
    assert "tester/own" not in [row["id"] for row in tool(paper=LORA)["models"]]


@pytest.mark.long
def test_it_survives_saving_and_works_over_there(papers):
    call = {"paper": LORA, "kinds": ["datasets"]}
    answer = assert_survives_saving(PaperResourcesTool, "huggingface_hub", call=call, environment=papers.environment())
    assert answer["datasets"][0]["id"] == "acme/pairs"


def test_the_official_client_reads_the_same_papers(papers):
    api = HfApi(endpoint=papers.url, token=papers.token)
    assert api.paper_info(LORA).github_repo == "https://github.com/acme/LoRA"
    assert api.read_paper("2503.00002").startswith("# T")
    assert [one.id for one in api.list_daily_papers(sort="trending")] == ["2503.00001", LORA]
    assert [one.title for one in api.list_papers(query="hidden")] == ["Hidden Code"]
    assert [one.slug for one in api.list_collections(item=f"papers/{LORA}")] == ["acme/adapters-1"]
