"""What goes wrong at the Hub while files, branches and documentation are read: one or two lines, soon, never an empty result.

And where the token goes: to the Hub, to nobody that the Hub redirects to, and to no site of documentation.
"""

import contextlib
import statistics
import threading
import time

import pytest
from huggingface_hub import HfApi, get_session
from huggingface_hub.utils import build_hf_headers
from ml_intern.tools import HubDocsTool, HubListFilesTool, HubReadFileTool, HubRepoTool
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ml_intern.testing import Service

CALLS = {
    "hub_list_files": (HubListFilesTool, {"repo_id": "acme/m"}),
    "hub_read_file": (HubReadFileTool, {"repo_id": "acme/m", "path": "config.json"}),
    "hub_repo refs": (HubRepoTool, {"operation": "refs", "repo_id": "acme/m"}),
    "hub_repo commits": (HubRepoTool, {"operation": "commits", "repo_id": "acme/m"}),
    "hub_repo discussion": (HubRepoTool, {"operation": "discussion", "repo_id": "acme/m", "number": 1}),
    "hub_repo create_branch": (HubRepoTool, {"operation": "create_branch", "repo_id": "tester/m", "name": "dev"}),
    "hub_docs page": (HubDocsTool, {"page": "trl/index"}),
    "hub_docs search": (HubDocsTool, {"query": "words", "library": "trl"}),
    "hub_docs libraries": (HubDocsTool, {}),
}
SAME = ("hub_repo refs", "hub_repo discussion", "hub_docs libraries")  # go the same way as others
EACH = [pytest.param(name, marks=pytest.mark.soak if name in SAME else ()) for name in CALLS]
KNOWN = [one for one in EACH if "docs" not in one.values[0]]
TOOLS = list(dict.fromkeys(kind for kind, _ in CALLS.values()))
HTML = {"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>Please log in</html>"}


@pytest.fixture
def there(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub._hub.docs.clear()
    hub.add_docs("trl", {"index": "# TRL\n\nSome words on it."})
    for owner in ("acme", "tester"):
        hub.seed(f"{owner}/m", "model", {"config.json": b"{}", "w.safetensors": b"0" * 500})
    HfApi(endpoint=hub.url, token=hub.token).create_discussion("acme/m", title="A question")
    hub.requests.clear()
    return hub


def calling(name):
    kind, arguments = CALLS[name]
    return lambda **more: kind()(**arguments, **more)


@pytest.fixture(params=EACH)
def call(request, there):
    return calling(request.param)


def complaint(call, kind, seconds=5) -> str:
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    assert time.monotonic() - started < seconds
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    assert len(text) < 500
    return text


def test_it_works_when_nothing_is_wrong(call):
    assert call()


def test_the_hub_is_down(call, there):
    url = there.url
    there.close()
    text = complaint(call, ConnectionError)
    assert f"{url}) cannot be reached" in text
    assert "HF_ENDPOINT" in text


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        ({"status": 429, "headers": {"Retry-After": "1234"}}, ConnectionError, "(429)|after 1234 seconds"),
        ({"status": 429, "headers": {"RateLimit": '"pages";r=0;t=206'}}, ConnectionError, "after 206 seconds"),
        ({"status": 401}, OSError, "401"),
        ({"status": 403}, PermissionError, "403"),
        ({"status": 500, "body": {"error": "out of cheese"}}, ConnectionError, "500: out of cheese|Try again"),
        ({"drop": 1}, ConnectionError, "broke off"),
        ({"drop": True}, ConnectionError, "broke off"),
    ],
)
def test_a_failing_hub_is_named_with_cause_and_remedy(call, there, failure, kind, said):
    there.fail(".", times=None, **failure)
    text = complaint(call, kind)
    assert there.url in text
    assert all(one in text for one in said.split("|"))


def test_a_hub_that_asks_for_a_moment_gets_it(call, there):
    there.fail(".", status=429, headers={"Retry-After": "1"})
    started = time.monotonic()
    assert call()
    assert 1.0 <= time.monotonic() - started < 8.0


@pytest.mark.parametrize("name", EACH)
def test_something_else_than_its_json(there, name, monkeypatch, tmp_path):
    # What is asked for as text may read `["hello"]`; there is no telling.
    texts = ("hub_read_file", "hub_docs page")
    for answer in [HTML, *([] if name in texts else [{**HTML, "headers": {}, "body": '["hello"]'}])]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / answer["body"][:6].strip("<[")))
        failure = there.fail(".", **answer, times=None)
        text = complaint(calling(name), ConnectionError)
        assert "JSON" in text
        assert "proxy" in text
        failure.times = 0
        if name != "hub_repo create_branch":
            assert calling(name)()  # nothing was kept of it


@pytest.mark.parametrize("kind", TOOLS)
def test_a_hub_that_hangs_is_left_alone(there, kind):
    text = complaint(lambda: kind()._ask("the thing", 0.2, threading.Event().wait, timeout=5), TimeoutError)
    assert there.url in text
    assert "the thing" in text


@pytest.mark.parametrize("name", KNOWN)
def test_a_wrong_token_is_named_and_not_shown(there, name, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_nonsense")
    text = complaint(calling(name), PermissionError)
    assert "401" in text
    assert "HF_TOKEN" in text
    assert "hf_nonsense" not in text


@pytest.mark.parametrize("name", KNOWN)
def test_the_token_goes_to_the_hub_and_to_nobody_that_it_redirects_to(there, name):
    """A listening server stands where the Hub sends a request on to: it hears the request, and no token."""
    with Service(Starlette(routes=[Route("/{x:path}", lambda request: JSONResponse({}))])) as other:
        there.fail(".", status=307, headers={"Location": f"{other.url}/elsewhere"}, times=None)
        with contextlib.suppress(OSError, ValueError):
            calling(name)()
        assert other.requests
        for request in other.requests:
            assert "authorization" not in request.headers
    assert {request.headers.get("authorization") for request in there.requests} == {f"Bearer {there.token}"}


def test_large_files_are_fetched_without_the_token(there):
    HubReadFileTool()(repo_id="acme/m", path="w.safetensors")
    cdn = [request for request in there.requests if request.path.startswith("/cdn/")]
    assert cdn
    assert all("authorization" not in request.headers for request in cdn)


def test_the_tools_cost_little_more_than_the_bare_client(there):
    """A few milliseconds a call at most; the bound has room for a busy machine."""
    took = {"bare": [], "list": [], "read": []}

    def measured(name, call):
        started = time.perf_counter()
        call()
        took[name].append(time.perf_counter() - started)

    def bare():
        for path in ("/api/models/acme/m/revision/main", "/api/models/acme/m/tree/main?recursive=true"):
            get_session().get(there.url + path, headers=build_hf_headers()).json()

    for _ in range(15):
        measured("bare", bare)
        measured("list", calling("hub_list_files"))
        measured("read", calling("hub_read_file"))
    assert statistics.median(took["list"]) - statistics.median(took["bare"]) < 0.02
    assert statistics.median(took["read"]) < statistics.median(took["bare"]) + 0.02
