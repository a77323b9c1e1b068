"""What goes wrong at the Hub reaches the model as one or two lines: who, why, what to do; never as an empty result."""

import threading
import time

import pytest
from ml_intern.tools import (
    HubDownloadTool,
    HubInspectDatasetTool,
    HubInspectModelTool,
    HubPushTool,
    HubSearchDatasetsTool,
    HubSearchModelsTool,
)
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

from ml_intern.testing.serve import Service

EVALUATION = {"task": "t", "dataset": "acme/reviews", "split": "test", "metric": "accuracy"}
EVALUATION |= {"baseline": 0.5, "candidate": 0.9, "n": 100}
HTML = {"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>Please log in</html>"}
CALLS = {
    "hub_search_datasets": (HubSearchDatasetsTool, {"query": "reviews"}),
    "hub_search_models": (HubSearchModelsTool, {"query": "tiny"}),
    "hub_inspect_dataset": (HubInspectDatasetTool, {"dataset": "acme/reviews"}),
    "hub_inspect_model": (HubInspectModelTool, {"model": "acme/tiny"}),
    "hub_download": (HubDownloadTool, {"repo_id": "acme/reviews"}),
    "hub_push": (
        HubPushTool,
        {"folder": "out", "repo_id": "tester/m", "metadata": {"license": "mit"}, "evaluation": EVALUATION},
    ),
}
READERS = ("hub_inspect_dataset", "hub_download")


@pytest.fixture(params=CALLS)
def call(request, hub, workspace):
    return calling(request.param, hub, workspace)


def calling(name, hub, workspace):
    tool_class, arguments = CALLS[name]
    tool = tool_class()
    if hasattr(tool, "workspace"):
        tool.workspace = workspace
    hub.seed("acme/reviews", "dataset", {"train.csv": b"text,label\n" + b"good,1\nbad,0\n" * 300})
    hub.seed("acme/tiny", "model", {"config.json": b"{}"})
    workspace.write_bytes("out/config.json", b"{}")
    return lambda **changes: tool(**{**arguments, **changes})


def complaint(call, kind, **changes):
    """The text of the error, which must come soon and be short."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        call(**changes)
    assert time.monotonic() - started < 5
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    assert len(text) < 500
    return text


def test_it_works_when_nothing_is_wrong(call):
    assert call()


def test_the_hub_is_down(call, hub):
    url = hub.url
    hub.close()
    text = complaint(call, ConnectionError)
    assert url in text
    assert "cannot be reached" in text
    assert "HF_ENDPOINT" in text


def test_the_token_is_wrong(call, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_nonsense")
    text = complaint(call, PermissionError)
    assert hub.url in text
    assert "401" in text
    assert "HF_TOKEN" in text
    assert "hf_nonsense" not in text


def test_too_many_requests(call, hub):
    hub.fail(".", status=429, headers={"Retry-After": "1234"}, times=None)
    text = complaint(call, ConnectionError)
    assert hub.url in text
    assert "429" in text
    assert "1234 seconds" in text


def test_too_many_requests_in_the_words_of_the_hub(hub):
    hub.fail(".", status=429, headers={"RateLimit": '"api";r=0;t=257'})
    with pytest.raises(ConnectionError, match="after 257 seconds"):
        HubSearchDatasetsTool()(query="x")


def test_a_hub_that_asks_for_a_moment_gets_it(call, hub):
    """Never: a second sooner than it asks for, or a person asked to do what a second of patience does."""
    hub.fail(".", status=429, headers={"Retry-After": "1"})
    started = time.monotonic()
    assert call()
    assert 1.0 <= time.monotonic() - started < 8.0


def test_a_hub_that_goes_on_asking_is_not_asked_for_ever(hub):
    hub.fail(".", status=429, headers={"Retry-After": "0"}, times=None)
    with pytest.raises(ConnectionError, match="limits your requests"):
        HubSearchDatasetsTool()(query="x")
    assert len(hub.requests) == 3


def test_the_hub_has_an_error_of_its_own(call, hub):
    hub.fail(".", status=500, body={"error": "out of cheese"}, times=None)
    text = complaint(call, ConnectionError)
    assert hub.url in text
    assert "500: out of cheese" in text
    assert "Try again" in text


def test_a_web_page_instead_of_json(call, hub):
    hub.fail(".", **HTML, times=None)
    text = complaint(call, ConnectionError)
    assert hub.url in text
    assert "JSON" in text
    assert "proxy" in text


def test_json_of_another_shape(call, hub):
    hub.fail(".", status=200, headers={"content-type": "application/json"}, body='["hello"]', times=None)
    assert "JSON" in complaint(call, ConnectionError)


def test_the_answer_breaks_off(call, hub):
    hub.fail("^/api", drop=20, times=None)
    assert "broke off" in complaint(call, ConnectionError)


def test_json_that_breaks_off_though_the_answer_is_whole(call, hub):
    cut = {"status": 200, "headers": {"content-type": "application/json"}, "body": '[{"id": "acme/rev'}
    hub.fail("^/api", **cut, times=None)
    text = complaint(call, ConnectionError)
    assert hub.url in text
    assert "JSON" in text


@pytest.mark.parametrize("name", [name for name in CALLS if name != "hub_push"])
def test_a_slow_hub_ends_a_call_in_time_and_is_named(name, hub, workspace, monkeypatch):
    """The whole call of the tool, with half a second where it gives half a minute."""
    call, kind = calling(name, hub, workspace), CALLS[name][0]
    patient = kind._ask
    monkeypatch.setattr(
        kind, "_ask", lambda self, subject, seconds, *a, **more: patient(self, subject, 0.3, *a, **more)
    )
    hub.fail(".", delay=1.5, times=None)
    text = complaint(call, TimeoutError)
    assert hub.url in text
    assert "hangs" in text and "try again" in text


FILES = {
    "limited": ({"status": 429, "headers": {"Retry-After": "1234"}}, "after 1234 seconds"),
    "refused": ({"status": 401}, "401"),
    "failing": ({"status": 500}, "500"),
    "a web page": (HTML, "something else than"),
    "broken off": ({"drop": 1}, "broke off"),
}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (name, fault)
        for name in ("hub_inspect_dataset", "hub_download", "hub_inspect_model")
        for fault in FILES
        if (name, fault) != ("hub_download", "broken off")  # goes on where it was: test_hub_download.py
    ],
)
def test_what_fails_behind_the_first_answer_is_named_as_well(name, fault, hub, workspace, monkeypatch):
    """Where the Hub itself answers and what its files lie on does not: no rows, no file and no fact of them is made up."""
    monkeypatch.delenv("HF_DATASETS_SERVER")
    call, (failure, said) = calling(name, hub, workspace), FILES[fault]
    hub.fail("/resolve/", **failure, times=None)
    if (name, fault) == ("hub_inspect_model", "refused"):  # what the Hub tells of it stays true
        found = call()
        assert found["architecture"] is None
        text = " ".join(found["unknown"])
    else:
        text = complaint(call, OSError)
    assert not [path for path in workspace.walk(".") if path.startswith("data/")]
    assert hub.url in text
    assert said in text


@pytest.mark.parametrize("name", CALLS)
def test_a_hub_that_hangs_is_left_alone(name, hub):
    tool = CALLS[name][0]()
    text = complaint(lambda: tool._ask("the thing", 0.2, threading.Event().wait, timeout=5), TimeoutError)
    assert hub.url in text
    assert "the thing" in text


@pytest.mark.parametrize("name", READERS)
class TestReading:
    def test_there_is_no_such_dataset(self, name, hub, workspace):
        key = "dataset" if name == "hub_inspect_dataset" else "repo_id"
        text = complaint(calling(name, hub, workspace), FileNotFoundError, **{key: "acme/revues"})
        assert "acme/revues" in text
        assert "Check its name" in text

    def test_there_is_no_such_revision(self, name, hub, workspace):
        text = complaint(calling(name, hub, workspace), FileNotFoundError, revision="v9")
        assert "v9" in text
        assert "`revision`" in text

    def test_it_is_private(self, name, hub, workspace, monkeypatch):
        call = calling(name, hub, workspace)
        key = "dataset" if name == "hub_inspect_dataset" else "repo_id"
        hub.seed("tester/own", "dataset", {"train.csv": b"a,b\n1,2\n"}, private=True)
        assert call(**{key: "tester/own"})
        monkeypatch.setenv("HF_TOKEN", "hf_other_token")
        assert "private" in complaint(call, FileNotFoundError, **{key: "tester/own"})

    def test_it_is_gated(self, name, hub, workspace):
        call = calling(name, hub, workspace)
        key = "dataset" if name == "hub_inspect_dataset" else "repo_id"
        hub.seed("acme/gated", "dataset", {"train.csv": b"a,b\n1,2\n"}, gated="manual")
        text = complaint(call, PermissionError, **{key: "acme/gated"})
        assert "gates" in text
        assert "Accept its conditions" in text
        hub.admit("acme/gated", "dataset", "tester")
        assert call(**{key: "acme/gated"})


@pytest.mark.parametrize(
    "name", ["hub_search_datasets", "hub_search_models", "hub_inspect_dataset", "hub_inspect_model"]
)
def test_a_redirect_to_another_host_does_not_get_the_token(name, hub, workspace, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    call = calling(name, hub, workspace)
    got = []

    def keep(request):
        got.append(request.headers.get("authorization"))
        return PlainTextResponse("no", 404)

    with Service(Starlette(routes=[Route("/{path:path}", keep)])) as stranger:
        elsewhere = stranger.url.replace("127.0.0.1", "localhost") + "/elsewhere"
        front = Starlette(routes=[Route("/{path:path}", lambda request: RedirectResponse(elsewhere))])
        with Service(front) as service:
            monkeypatch.setenv("HF_ENDPOINT", service.url)
            with pytest.raises((OSError, ValueError)):
                call()
            assert {one.headers.get("authorization") for one in service.requests} == {"Bearer " + hub.token}
    assert got
    assert set(got) == {None}


def test_there_is_no_such_model_or_revision(hub, workspace):
    call = calling("hub_inspect_model", hub, workspace)
    assert "Check its name" in complaint(call, FileNotFoundError, model="acme/teeny")
    assert "`revision`" in complaint(call, FileNotFoundError, revision="v9")


@pytest.mark.parametrize("tool_class", [HubDownloadTool, HubPushTool])
def test_no_workspace(tool_class, hub):
    arguments = dict(next(args for kind, args in CALLS.values() if kind is tool_class))
    with pytest.raises(RuntimeError, match="no workspace"):
        tool_class()(**arguments)
