"""The door of a jail: what code reaches of the network, what it does not, and that neither harms the host.

Most is tried from inside a jail against local services; what a jail is not needed for, at a door on this machine's loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from smolagents.local_python_executor import InterpreterError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

import ml_intern
from ml_intern.execution import JailExecutor, egress_http
from ml_intern.execution.egress import CONNECTIONS, OFFLINE, OWN, PORT, Egress, Refusal, with_door
from ml_intern.execution.jail import Jail, bubblewrap, seccomp_file, throwaway_users, try_bubblewrap
from ml_intern.execution.process import resident
from ml_intern.execution.spawn import spawn
from ml_intern.testing import LocalHub
from ml_intern.testing.serve import Service

needs_bubblewrap = pytest.mark.skipif(bool(try_bubblewrap()), reason=f"bubblewrap: {try_bubblewrap()}")
WEIGHTS = os.urandom(3_000_000)
HELP = """
import http.client, json, os, socket, threading, urllib.error, urllib.request
def ask(path, method='GET', headers={}, body=None, port=8118):
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
    c.request(method, path, body, headers)
    r = c.getresponse()
    return r.status, dict(r.getheaders()), r.read()
def raw(data):
    s = socket.create_connection(('127.0.0.1', 8118), 20)
    s.sendall(data)
    answer = b''
    while block := s.recv(65536): answer += block
    return answer.decode('latin-1')
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub")) as hub:
        hub.seed("acme/tiny", "model", {"config.json": b'{"layers": 2}', "model.safetensors": WEIGHTS})
        hub.seed("acme/reviews", "dataset", {"train.csv": b"text,label\n" + b"good,1\nbad,0\n" * 50})
        hub.seed("tester/secret", "model", {"config.json": b'{"secret": 1}', "w.safetensors": WEIGHTS}, private=True)
        hub.seed("acme/gated", "model", {"config.json": b"{}"}, gated="manual")
        for number in range(60):
            hub.seed(f"acme/many{number}", "model", {"config.json": json.dumps({"n": number}).encode()})
        yield hub


def executor_at(endpoint: str, **arguments: Any) -> JailExecutor:
    before = os.environ.get("HF_ENDPOINT")
    os.environ["HF_ENDPOINT"] = endpoint
    try:
        executor = JailExecutor(jail=Jail("bubblewrap"), **arguments)
    finally:
        os.environ["HF_ENDPOINT"] = before or ""
    executor(HELP)
    return executor


@pytest.fixture(scope="module")
def refusals() -> list[Refusal]:
    return []


@pytest.fixture(scope="module")
def inside(hub: LocalHub, refusals: list[Refusal]) -> Iterator[JailExecutor]:
    if why := try_bubblewrap():
        pytest.skip(f"bubblewrap: {why}")
    os.environ["HF_TOKEN"] = hub.token  # the host's user is somebody
    executor = executor_at(hub.url, on_refused=refusals.append)
    yield executor
    executor.cleanup()
    del os.environ["HF_TOKEN"]


@pytest.fixture(autouse=True)
def nothing_that_says_who_asks_reaches_the_hub(hub: LocalHub) -> Iterator[None]:
    hub.requests.clear()
    yield
    for request in hub.requests:
        assert request.method in ("GET", "HEAD")
        assert not {"authorization", "cookie", "proxy-authorization", "x-api-key"} & {
            n.lower() for n in request.headers
        }
        assert "hf_" not in f"{request.path} {request.headers}"


def given(executor: JailExecutor, code: str) -> Any:
    return executor(code).output


def refusal_of(executor: JailExecutor, code: str) -> str:
    with pytest.raises(InterpreterError) as caught:
        executor(code)
    return str(caught.value)


# What works


def test_the_official_client_loads_what_is_public(inside: JailExecutor, hub: LocalHub) -> None:
    inside("from huggingface_hub import HfApi, hf_hub_download, snapshot_download\nimport hashlib\napi = HfApi()")
    code = "path = hf_hub_download('acme/tiny', 'model.safetensors')\nopen(path, 'rb').read() == open('copy', 'rb').read()"
    inside.workspace.write_bytes("copy", WEIGHTS)
    assert given(inside, code) is True
    assert any("/cdn/" in request.path for request in hub.requests), (
        "LFS content lies elsewhere: redirects were followed"
    )
    assert given(inside, "sorted(os.listdir(snapshot_download('acme/tiny')))")[-2:] == [
        "config.json",
        "model.safetensors",
    ]
    assert "train.csv" in given(inside, "os.listdir(snapshot_download('acme/reviews', repo_type='dataset'))")
    assert given(inside, "api.model_info('acme/tiny').id, api.file_exists('acme/tiny', 'none')") == (
        "acme/tiny",
        False,
    )
    assert given(inside, "api.list_repo_files('acme/reviews', repo_type='dataset')")[-1] == "train.csv"


def test_listings_go_on_over_pages(inside: JailExecutor, hub: LocalHub) -> None:
    inside("from huggingface_hub.utils import paginate")
    code = "[m['id'] for m in paginate('http://127.0.0.1:8118/api/models', params={'limit': 25}, headers={})]"
    found = given(inside, code)
    assert len(found) == len(set(found)) == 62 and "tester/secret" not in found
    assert len(hub.requests) == 3


def test_plain_urllib_and_ranges(inside: JailExecutor) -> None:
    url = f"{OWN}/acme/tiny/resolve/main/config.json"
    assert given(inside, f"urllib.request.urlopen({url!r}).read()") == b'{"layers": 2}'
    status, headers, body = given(
        inside, "ask('/acme/tiny/resolve/main/model.safetensors', headers={'Range': 'bytes=10-19'})"
    )
    assert (status, body) == (206, WEIGHTS[10:20]) and headers["Content-Range"] == f"bytes 10-19/{len(WEIGHTS)}"
    status, headers, _ = given(inside, "ask('/acme/tiny/resolve/main/model.safetensors', 'HEAD')")
    assert status == 200 and headers["Content-Length"] == headers["X-Linked-Size"] == str(len(WEIGHTS))
    tag, commit = headers["Etag"], headers["X-Repo-Commit"]
    assert tag == headers["X-Linked-Etag"] and len(commit) == 40 and "Location" not in headers
    path = "/acme/tiny/resolve/main/model.safetensors"
    assert given(inside, f"ask({path!r}, headers={{'If-None-Match': {tag!r}}})")[::2] == (304, b"")
    resumed = given(inside, f"ask({path!r}, headers={{'If-Range': {tag!r}, 'Range': 'bytes=0-4'}})")
    assert resumed[::2] == (206, WEIGHTS[:5])
    config = given(inside, "ask('/acme/tiny/resolve/main/config.json')")[1]["Etag"]
    assert (
        given(inside, f"ask('/acme/tiny/resolve/main/config.json', headers={{'If-None-Match': {config!r}}})")[0] == 304
    )


@pytest.mark.long
def test_fifty_at_once_are_not_mixed_up(inside: JailExecutor) -> None:
    code = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(50) as pool:\n"
    code += "    got = list(pool.map(lambda n: ask(f'/acme/many{n % 60}/resolve/main/config.json')[2], range(300)))\n"
    assert given(inside, code + "got") == [json.dumps({"n": n % 60}).encode() for n in range(300)]


def test_children_of_the_code_reach_the_hub_too(inside: JailExecutor) -> None:
    code = f"import urllib.request; print(urllib.request.urlopen('{OWN}/acme/tiny/resolve/main/config.json').read())"
    assert "layers" in given(
        inside, f"import subprocess, sys\nsubprocess.check_output([sys.executable, '-c', {code!r}]).decode()"
    )


# What does not


@pytest.mark.parametrize(
    "call",
    [
        "api.upload_file(path_or_fileobj=b'x', path_in_repo='x', repo_id='tester/secret', token='hf_local')",
        "api.create_repo('tester/new', token='hf_local')",
        "api.delete_repo('acme/tiny', token='hf_local')",
        "api.create_pull_request('acme/tiny', title='x', token='hf_local')",
    ],
)
def test_no_token_writes(inside: JailExecutor, hub: LocalHub, call: str) -> None:
    inside("from huggingface_hub import HfApi\napi = HfApi()")
    text = refusal_of(inside, call)
    assert "405" in text and "hub_push" in text
    assert hub.requests == []
    assert "(Refused: The network of this code only reads" in inside.state["_print_outputs"]


def test_the_users_private_things_are_not_readable(inside: JailExecutor) -> None:
    inside("from huggingface_hub import hf_hub_download")
    for token in ("None", "'hf_local'"):
        text = refusal_of(inside, f"hf_hub_download('tester/secret', 'config.json', token={token})")
        assert "RepositoryNotFoundError" in text and "hub_download" in text
    assert "GatedRepoError" in refusal_of(inside, "hf_hub_download('acme/gated', 'config.json', token='hf_local')")
    for headers in ({"Authorization": "Bearer hf_local"}, {"Cookie": "token=hf_local"}, {"X-Api-Key": "hf_local"}):
        status, _, body = given(inside, f"ask('/tester/secret/resolve/main/config.json', headers={headers!r})")
        assert status == 401 and b"secret" not in body
    assert given(inside, "ask('/api/whoami-v2?token=hf_local&access_token=hf_local')")[0] == 401


def test_a_presigned_address_signs_nothing(inside: JailExecutor, hub: LocalHub) -> None:
    digest = hub.store.repos["model", "tester/secret"].resolve("main").files["w.safetensors"].sha256
    signed = f"/cdn/{digest}?signature={hub._hub.sign(digest)}&filename=w"
    assert urllib.request.urlopen(hub.url + signed).status == 200
    hub.requests.clear()
    status, _, body = given(inside, f"ask({signed!r})")
    assert (
        status == 403
        and body != WEIGHTS
        and [request.path for request in hub.requests] == [f"/cdn/{digest}?filename=w"]
    )
    hub.requests.clear()
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        status, headers, body = given(inside, f"ask({signed!r}, {method!r}, body=b'x' * 3_000_000)")
        assert status == 405 and headers["Allow"] == "GET, HEAD" and b"hub_push" in body
    assert hub.requests == []


def test_a_get_carries_nothing(inside: JailExecutor, hub: LocalHub) -> None:
    assert given(inside, "ask('/api/models', body=b'data')")[0] == 400
    chunked = "GET /api/models HTTP/1.1\\r\\nHost: x\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n4\\r\\ndata\\r\\n0\\r\\n\\r\\n"
    assert given(inside, f"raw(b'{chunked}')").startswith("HTTP/1.1 400")
    smuggled = "GET /api/models HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nPOST /api/repos/create HTTP/1.1\\r\\n\\r\\n"
    assert given(inside, f"raw(b'{smuggled}')").startswith("HTTP/1.1 400")
    assert hub.requests == []


def test_a_forged_host_leads_nowhere_else(inside: JailExecutor, hub: LocalHub) -> None:
    with Service(lambda *_: None) as other:  # would not even answer
        host = other.url.removeprefix("http://")
        for headers in ({"Host": host}, {"Host": host, "X-Forwarded-Host": host, "Forwarded": f"host={host}"}):
            status, _, body = given(inside, f"ask('/acme/tiny/resolve/main/config.json', headers={headers!r})")
            assert (status, body) == (200, b'{"layers": 2}')
        for target in (
            f"http://{host}/x",
            f"http://user@{host}/x",
            f"HTTP://{host}/x",
            f"http://127.0.0.1:8118@{host}/",
        ):
            assert given(inside, f"raw(b'GET {target} HTTP/1.1\\r\\nHost: 127.0.0.1:8118\\r\\n\\r\\n')").startswith(
                "HTTP/1.1 40"
            )
        for target in (f"//{host}/x", f"/@{host}/x", f"/..//{host}"):
            assert given(inside, f"ask({target!r})")[0] == 404
        assert given(inside, f"raw(b'CONNECT {host} HTTP/1.1\\r\\n\\r\\n')").startswith(
            "HTTP/1.1 403 127.0.0.1 cannot be"
        )
        assert other.requests == []
    assert all("x-forwarded-host" not in request.headers for request in hub.requests)


def test_what_is_no_http_is_answered_and_forgotten(inside: JailExecutor) -> None:
    for data in ("x\\r\\n\\r\\n", "GET / HTTP/2\\r\\n\\r\\n", "GET  / HTTP/1.1\\r\\n\\r\\n", "GET / HTTP/1.1\\r\\nA B: c\\r\\n\\r\\n",
                 "GET / HTTP/1.1\\r\\n folded: x\\r\\n\\r\\n", "GET /\\x00 HTTP/1.1\\r\\n\\r\\n"):  # fmt: skip
        assert given(inside, f"raw(b'{data}')").startswith("HTTP/1.1 400"), data
    assert given(inside, "raw(b'GET / HTTP/1.1\\r\\nA: ' + b'x' * 100_000)").startswith("HTTP/1.1 431")
    assert given(inside, "raw(b'GET / HTTP/1.1\\r\\n' + b'a: b\\r\\n' * 200 + b'\\r\\n')").startswith("HTTP/1.1 431")
    assert given(inside, "ask('/acme/tiny/resolve/main/config.json')")[0] == 200


def test_other_hosts_are_refused_in_words(inside: JailExecutor, refusals: list[Refusal]) -> None:
    refusals.clear()
    code = "try: urllib.request.urlopen('https://unknown.example/x')\nexcept OSError as error: seen = str(error)\nseen"
    result = inside(code)
    assert "unknown.example cannot be reached" in result.output and "--allow-host unknown.example" in result.output
    assert result.logs.count("(Refused: unknown.example cannot be reached from this code.") == 1
    inside(code)
    text = given(
        inside,
        "try: urllib.request.urlopen('http://unknown.example:81/x')\nexcept urllib.error.HTTPError as error: seen = error.read().decode()\nseen",
    )
    assert "--allow-host unknown.example:81" in text
    assert [refusal.host for refusal in refusals] == ["unknown.example"] * 2, "each once, however often it is tried"
    assert "Refused" not in inside("1").logs


def test_what_datasets_asks_in_vain_is_no_news(inside: JailExecutor) -> None:
    result = inside(f"raw(b'GET http://datasets-server.127.0.0.1:{PORT}/info?dataset=a HTTP/1.1\\r\\n\\r\\n')")
    assert result.output.startswith("HTTP/1.1 404") and "Refused" not in result.logs


def test_the_listener_is_not_the_codes_to_take(inside: JailExecutor) -> None:
    code = (
        f"s = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\ns.bind(('127.0.0.1', {PORT}))"
    )
    assert "Address already in use" in refusal_of(inside, code)
    code = "found = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}')]"
    assert given(inside, "import gc\ns.close()\ngc.collect()\n" + code + "\n[f for f in found if 'socket' in f]") == []


@needs_bubblewrap
def test_a_session_records_and_tells_what_was_refused(
    tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_intern import MLIntern
    from ml_intern.events import Event, StepFinished, Warned
    from ml_intern.testing import ScriptedModel
    from ml_intern.trace import note_of, read_rows

    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    code = """
import os, urllib.request
for url in ("https://unknown.example/a", "https://unknown.example/b", "http://other.example/"):
    try: urllib.request.urlopen(url)
    except OSError: pass
print(urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/acme/tiny/resolve/main/config.json").read())
final_answer("done")
"""
    events: list[Event] = []
    model = ScriptedModel([f"I try.\n<code>\n{code}\n</code>"])
    with MLIntern(model, home=tmp_path, on_event=events.append, tools=[]) as intern:
        assert intern.run("try") == "done"
        assert "what is public on the Hugging Face Hub" in intern.session().agent.system_prompt
        notes = [note for row in read_rows(intern.session().trace) if (note := note_of(row))]
    warned = [event.text for event in events if isinstance(event, Warned) and "reached" in event.text]
    assert [text.split()[0] for text in warned] == ["unknown.example", "other.example"]
    assert [n["host"] for n in notes if n["kind"] == "network-refused"] == ["unknown.example", "other.example"]
    [step] = [event for event in events if isinstance(event, StepFinished)]
    assert "layers" in step.observation and "(Refused: unknown.example cannot be reached" in step.observation


def test_the_prompt_says_what_is_reached() -> None:
    from ml_intern.prompts import load_templates, with_network

    templates = load_templates()
    texts = {mode: with_network(templates, mode)["system_prompt"] for mode in ("none", "hub", "full")}
    assert len(set(texts.values())) == 3 and texts["none"] == templates["system_prompt"]
    assert "without network" in texts["none"] and "without network" not in texts["hub"] + texts["full"]
    assert (
        "leads to a.example, b.example." in with_network(templates, "hub", ["a.example", "b.example"])["system_prompt"]
    )


def test_what_a_person_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ml_intern import MLIntern
    from ml_intern.cli import main
    from ml_intern.errors import InternError
    from ml_intern.testing import ScriptedModel

    assert main(["a task", "--network", "some"]) == 2 and "none, hub or full" in capsys.readouterr().err
    assert main(["a task", "--model", "openai/x", "--allow-host", "http://x/y", "--home", str(tmp_path)]) == 1
    assert "no host" in capsys.readouterr().err
    with pytest.raises(InternError, match="none"):
        MLIntern(ScriptedModel([]), home=tmp_path, network="none", hosts=["example.com"])
    monkeypatch.setenv("ML_INTERN_NETWORK", "full")
    monkeypatch.setenv("ML_INTERN_ALLOW_HOSTS", "a.example, b.example:8443")
    options = MLIntern(ScriptedModel([]), home=tmp_path)._config.executor_kwargs or {}
    assert (options["network"], options["hosts"]) == ("full", ("a.example", "b.example:8443"))


# Answers of a Hub that are not good for code


def naughty(target: str) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        headers = {"Set-Cookie": "session=1", "WWW-Authenticate": "Basic", "X-Xet-Hash": "abc", "X-Amz-Meta": "k",
                   "Authorization": "Bearer x", "Link": '<https://cas.example/t>; rel="xet-auth"'}  # fmt: skip
        response: Response = Response(b"fine", headers=headers)
        if request.url.path == "/away":
            response = RedirectResponse(f"{target}/taken?X-Amz-Signature=abc", headers=headers)
        elif request.url.path == "/loop":
            response = RedirectResponse("/loop")
        elif request.url.path == "/file":
            response = RedirectResponse("file:///etc/passwd")
        elif request.url.path == "/echo":
            response = Response(f"{request.method} {request.headers['host']} {(await request.body()).decode()}")
        elif request.url.path == "/big":

            async def blocks():
                for _ in range(1200):
                    yield b"x" * 250_000

            response = StreamingResponse(
                blocks(), headers={} if request.query_params.get("chunked") else {"Content-Length": "300000000"}
            )
        await response(scope, receive, send)

    return app


@needs_bubblewrap
def test_what_comes_down_and_where_it_comes_from() -> None:
    with Service(naughty("")) as other, Service(naughty(other.url)) as upstream:
        executor = executor_at(upstream.url)
        try:
            status, headers, body = given(executor, "ask('/fine')")
            assert (status, body) == (200, b"fine") and set(headers) <= {
                "Content-Length",
                "Content-Type",
                "Date",
                "Connection",
            }
            status, headers, body = given(executor, "ask('/away')")
            assert (
                status == 403
                and b"none of its own hosts" in body
                and b"Signature" not in body
                and other.requests == []
            )
            assert "Location" not in headers
            assert given(executor, "ask('/loop')")[0] == given(executor, "ask('/file')")[0] == 502
            assert given(executor, "ask('/api/models/a/b/xet-read-token/main')")[0] == 403
            upstream.fail("/short", drop=2)
            assert "IncompleteRead" in refusal_of(executor, "ask('/short')")
            upstream.fail("/cut", drop=True)
            assert given(executor, "ask('/cut')")[0] == 502
            assert given(executor, "ask('/fine')")[0] == 200
        finally:
            executor.cleanup()
    executor = executor_at("http://127.0.0.1:9")
    assert given(executor, "ask('/fine')")[0] == 502
    executor.cleanup()


@needs_bubblewrap
@pytest.mark.parametrize("query", ["", "?chunked=1"])
def test_a_large_file_takes_no_memory_of_the_host(query: str) -> None:
    with Service(naughty("")) as upstream:
        executor = executor_at(upstream.url)
        code = "c = http.client.HTTPConnection('127.0.0.1', 8118)\nc.request('GET', '/big%s')\nr = c.getresponse()\ntotal = 0\n"
        code = code % query + "while block := r.read(1 << 20): total += len(block)\ntotal"
        peak, done = [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], resident(os.getpid()))

        given(executor, "ask('/fine')")
        before = resident(os.getpid())
        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        assert given(executor, code) == 300_000_000
        seconds = time.monotonic() - began
        done.set()
        watcher.join()
        print(f"\n300 MB in {seconds:.2f} s, the host grew by {(peak[0] - before) / 1e6:.0f} MB")
        assert peak[0] - before < 40 << 20
        executor.cleanup()


# Who holds up whom


@needs_bubblewrap
def test_slow_requests_hold_up_the_jail_and_nobody_else(monkeypatch: pytest.MonkeyPatch, hub: LocalHub) -> None:
    monkeypatch.setattr(egress_http, "HEAD_SECONDS", 1.0)
    others = len(egress_threads())
    executor = executor_at(hub.url, additional_functions={"double": lambda x: 2 * x})
    code = "held = [socket.create_connection(('127.0.0.1', 8118)) for _ in range(100)]\nfor s in held: s.sendall(b'GET / HT')\nlen(held)"
    assert given(executor, code) == 100
    assert given(executor, "double(4)") == 8
    time.sleep(0.3)
    assert len(egress_threads()) - others <= CONNECTIONS + 1
    began = time.monotonic()
    assert given(executor, "ask('/acme/tiny/resolve/main/config.json')")[0] == 200
    assert time.monotonic() - began < 4
    assert given(executor, "held[0].recv(100).decode()").startswith("HTTP/1.1 408")
    executor.cleanup()
    assert wait_for(lambda: len(egress_threads()) == others)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.02)
    return condition()


def egress_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ml-intern-egress"]


@needs_bubblewrap
def test_it_lives_and_dies_with_the_executor(hub: LocalHub) -> None:
    others = len(egress_threads())
    executor = executor_at(hub.url)
    executor.cleanup()
    wait_for(lambda: len(egress_threads()) == others)
    handles = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        executor = executor_at(hub.url)
        assert given(executor, "ask('/acme/tiny/resolve/main/config.json')")[0] == 200
        with contextlib.suppress(InterpreterError):
            executor("os._exit(3)")
        executor(HELP)
        assert given(executor, "ask('/acme/tiny/resolve/main/config.json')")[0] == 200, "also after a restart"
        executor.cleanup()
    assert wait_for(lambda: len(egress_threads()) == others)
    assert wait_for(lambda: len(list(Path("/proc/self/fd").iterdir())) <= handles)


@needs_bubblewrap
def test_a_download_that_hangs_does_not_outlive_the_executor(hub: LocalHub) -> None:
    others = len(egress_threads())
    hub.fail("/hangs", delay=30, times=None)
    executor = executor_at(hub.url)
    executor(
        "t = threading.Thread(target=ask, args=('/hangs',), daemon=True)\nt.start()\nimport time\ntime.sleep(0.3)"
    )
    assert len(egress_threads()) > others + 1
    executor.cleanup()
    assert wait_for(lambda: len(egress_threads()) == others)


# The other modes


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_without_a_network_there_is_nothing(kind: str, request: pytest.FixtureRequest, hub: LocalHub) -> None:
    from ml_intern.execution.jail import try_landlock

    if why := {"bubblewrap": try_bubblewrap, "landlock": try_landlock}[kind]():
        pytest.skip(f"{kind}: {why}")
    executor = JailExecutor(jail=Jail(kind), network="none" if kind == "bubblewrap" else "full")
    try:
        assert executor.network == "none"
        assert given(executor, "import os\nos.environ['ML_INTERN_NETWORK'], os.environ.get('HF_ENDPOINT')") == (
            "none",
            None,
        )
        for address in (("127.0.0.1", PORT), ("127.0.0.1", hub.port), ("1.1.1.1", 443)):
            text = refusal_of(executor, f"import socket\nsocket.create_connection({address!r}, 2)")
            assert "OSError" in text or "Error" in text
        text = refusal_of(
            executor, "from huggingface_hub import hf_hub_download\nhf_hub_download('acme/tiny', 'config.json')"
        )
        assert "HF_HUB_OFFLINE" in text or "offline" in text.lower()
        assert set(OFFLINE) <= set(given(executor, "list(os.environ)"))
    finally:
        executor.cleanup()


def test_without_a_jail_the_network_is_the_hosts(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    executor = JailExecutor(jail=Jail("none"))
    try:
        assert executor.network == "full"
        code = "import os\n[os.environ.get(name) for name in ('ML_INTERN_NETWORK', 'HF_ENDPOINT', 'HF_HUB_OFFLINE')]"
        assert given(executor, code) == ["full", hub.url, None]
    finally:
        executor.cleanup()


@needs_bubblewrap
def test_a_door_for_any_other_program(tmp_path: Path) -> None:
    """What a jail that runs pip needs: exactly one host, and no Hub."""
    with Service(naughty("")) as index:
        egress = Egress(hosts=[f"localhost:{index.port}"], private=True)
        code = f"""
import os, urllib.request, urllib.error
print(urllib.request.urlopen('http://localhost:{index.port}/fine').read())
for url in ('http://example.com/', '{OWN}/api/models'):
    try: urllib.request.urlopen(url)
    except urllib.error.HTTPError as error: print(error.code)
"""
        ours, theirs = socket.socketpair()
        uid = throwaway_users()[0] if os.geteuid() == 0 else None
        environment = [f"http_proxy={OWN}", "no_proxy=127.0.0.1"]
        command = ["/usr/bin/env", *environment, sys.executable, "-c", code]
        with seccomp_file() as bpf:
            jailed = bubblewrap(tmp_path, with_door(theirs.fileno(), command), bpf, uid)
            process = spawn(jailed, env={}, pass_fds=(bpf, theirs.fileno()), stdout=subprocess.PIPE)
        theirs.close()
        with ours:
            egress.take(ours)
        out, _ = process.communicate(timeout=20)
        egress.close()
        assert out.decode().split() == ["b'fine'", "403", "404"]


USER = """
import os, select, sys, tempfile, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from ml_intern.execution.egress import Egress
from ml_intern.execution.jail import Jail, Limits, try_bubblewrap
from ml_intern.execution.process import WorkerProcess

class Hub(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

def wait():
    while True:
        select.select([worker.replies], [], [], 10)
        for message in worker.receive():
            return message

if why := try_bubblewrap():
    sys.exit(f"no jail: {why}")
server = HTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
egress = Egress.of("hub")
root = Path(tempfile.mkdtemp()).resolve()
worker = WorkerProcess(Jail("bubblewrap"), root, Limits(), 9999, None, egress=egress)
wait()
worker.open_door()
code = '''
import os, urllib.request
def get(url):
    try: return urllib.request.urlopen(url).read().decode()
    except OSError as error: return str(error)
print(os.environ["ML_INTERN_NETWORK"], get(os.environ["HF_ENDPOINT"]), get("http://127.0.0.1:%d/"))
print(get("https://c.example"))
''' % server.server_port
worker.capture.begin("m" * 32)
worker.send({"op": "run", "n": 1, "code": code, "mark": "m" * 32})
wait()
worker.capture.wait(5)
print(os.getuid(), worker.capture.text())
worker.kill()
worker.close()
egress.close()
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="becoming another user takes root"
)
def test_the_door_of_a_normal_user() -> None:
    version = ["/usr/bin/python3", "-c", "import sys; print(sys.version_info >= (3, 11))"]
    if subprocess.run(version, capture_output=True).stdout.strip() != b"True":
        pytest.skip("the system's Python is older than 3.11")
    with tempfile.TemporaryDirectory(prefix="ml-intern-test-", dir="/tmp") as name:
        folder, package = Path(name), Path(ml_intern.__file__).parent
        shutil.copytree(package / "execution", folder / "ml_intern" / "execution")
        for file in ("__init__.py", "errors.py", "events.py"):
            shutil.copy(package / file, folder / "ml_intern" / file)
        folder.chmod(0o755)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o777)
        run = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", USER],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": name, "HOME": "/nonexistent", "TMPDIR": f"{name}/tmp"},
            cwd="/", capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    if "no jail" in run.stderr:
        pytest.skip(run.stderr)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("65534 hub hello <urlopen error [Errno 111] Connection refused>"), run.stdout
    assert "Tunnel connection failed: 403 c.example cannot be reached" in run.stdout
