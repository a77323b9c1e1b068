"""Services in background threads, and the faults they show on request."""

import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ml_intern.testing.serve import Service

IP_LOCAL_PORT_RANGE = 51  # not in Python's `socket` yet


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body() or b"hello " * 1000)


async def bug(request: Request) -> Response:
    return JSONResponse({}["missing"])


async def meant(request: Request) -> Response:
    return PlainTextResponse("down", status_code=500)


@pytest.fixture
def service():
    routes = [Route("/echo", echo, methods=["GET", "POST"]), Route("/bug", bug), Route("/meant", meant)]
    with Service(Starlette(routes=routes)) as running:
        yield running


def get(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_several_at_once_and_again(service):
    with Service(service.app) as other:
        assert other.port != service.port
        assert get(f"{other.url}/echo")[0] == get(f"{service.url}/echo")[0] == 200
    assert (len(service.requests), len(other.requests)) == (1, 1)
    with pytest.raises(RuntimeError, match="not running"):
        _ = other.url
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", other.port))
    with other:
        assert get(f"{other.url}/echo")[0] == 200


def test_starts_and_stops_quickly(service):
    start = time.perf_counter()
    with Service(service.app) as other:
        get(f"{other.url}/echo")
        assert time.perf_counter() - start < 0.5
    assert time.perf_counter() - start < 2


def test_port_that_is_taken(service):
    with pytest.raises(OSError, match="in use"):
        Service(service.app, port=service.port).start()


def test_requests_are_recorded(service):
    request = urllib.request.Request(f"{service.url}/echo?a=%2F", b"x", {"Authorization": "Bearer t"})
    urllib.request.urlopen(request).close()
    (one,) = service.requests
    assert (one.method, one.path, one.status) == ("POST", "/echo?a=%2F", 200)
    assert one.headers["authorization"] == "Bearer t"


def test_bug_is_answered_with_400_and_logged(service, caplog):
    status, body = get(f"{service.url}/bug")
    assert status == 400
    assert "Bug in the local service" in json.loads(body)["error"]
    assert "KeyError: 'missing'" in caplog.text
    assert service.requests[-1].status == 400
    assert get(f"{service.url}/meant") == (500, b"down")


def test_failures_in_their_order_and_number(service):
    service.fail("/echo", status=429, headers={"Retry-After": "3"}, body={"error": "slow"}, times=2)
    service.fail("/echo$", status=503, method="GET")
    assert [get(f"{service.url}/echo")[0] for _ in range(4)] == [429, 429, 503, 200]
    assert get(f"{service.url}/meant")[0] == 500
    kept = service.fail("/echo", status=418, times=None, after=1)
    assert [get(f"{service.url}/echo")[0] for _ in range(3)] == [200, 418, 418]
    kept.times = 0
    assert get(f"{service.url}/echo")[0] == 200


def test_delay(service):
    service.fail("/echo", delay=0.3)
    start = time.perf_counter()
    assert get(f"{service.url}/echo")[0] == 200
    assert 0.3 <= time.perf_counter() - start < 2


def test_dropped_connection(service):
    service.fail("/echo", drop=True)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        urllib.request.urlopen(f"{service.url}/echo")
    assert service.requests[-1].status == 0
    assert get(f"{service.url}/echo")[0] == 200


def test_answer_that_is_lost_was_carried_out():
    done = []

    async def act(request: Request) -> Response:
        done.append(await request.body())
        return PlainTextResponse("ok")

    with Service(Starlette(routes=[Route("/act", act, methods=["POST"])])) as service:
        service.fail("/act", drop="answer")
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            urllib.request.urlopen(f"{service.url}/act", b"x")
        assert done == [b"x"]


def test_answer_that_is_cut(service):
    service.fail("/echo", drop=100, times=2)
    for _ in range(2):
        with pytest.raises(http.client.IncompleteRead) as cut:
            urllib.request.urlopen(f"{service.url}/echo").read()
        assert cut.value.partial == (b"hello " * 1000)[:100]
    assert len(get(f"{service.url}/echo")[1]) == 6000


def test_hub_from_the_command_line(tmp_path):
    command = [sys.executable, "-m", "ml_intern.testing.serve", "hub", "--data", str(tmp_path / "hub")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout
        lines = [process.stdout.readline().strip() for _ in range(3)]
        variables = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        request = urllib.request.Request(f"{variables['HF_ENDPOINT']}/api/whoami-v2")
        request.add_header("Authorization", f"Bearer {variables['HF_TOKEN']}")
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["name"] == "tester"
        process.send_signal(2)
        process.communicate(timeout=10)
        assert process.returncode == 0


def test_answers_on_a_kept_connection_do_not_wait_for_acknowledgements(service):
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    start = time.perf_counter()
    for _ in range(20):
        connection.request("GET", "/echo")
        connection.getresponse().read()
    assert time.perf_counter() - start < 0.6  # 0.9 s and more with Nagle's algorithm
    connection.close()


def test_nobody_takes_the_port_of_a_service_that_is_closed(service):
    """Never: a test that counts on nobody answering finds the service of another one that runs beside it."""
    service.close()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=HH", service.port, service.port))
        except OSError:
            pytest.skip("before Linux 6.3 nobody can ask for a free port out of one")
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", 0))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=1)
    assert get(f"{service.start().url}/echo")[0] == 200
