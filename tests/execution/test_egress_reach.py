"""Which hosts a door leads to, tried at doors on this machine's loopback, without a jail."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from ml_intern.execution import JailExecutor, egress_http
from ml_intern.execution.egress import OWN, Egress
from ml_intern.execution.egress_hub import HubProxy, without_secrets
from ml_intern.execution.egress_reach import Reach, is_own, is_public, split_host
from ml_intern.testing import LocalHub
from ml_intern.testing.serve import Service


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub") as hub:
        hub.seed("acme/tiny", "model", {"config.json": b'{"layers": 2}'})
        yield hub


async def echo(scope: Any, receive: Any, send: Any) -> None:
    request = Request(scope, receive)
    said = f"{request.method} {request.headers['host']} {(await request.body()).decode()}"
    await Response(said)(scope, receive, send)


@pytest.fixture
def door() -> Iterator[Callable[..., int]]:
    """Opens doors on this machine's loopback, without a jail: gives the port."""
    opened: list[Egress] = []

    def open_one(egress: Egress) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        egress.serve(listener)
        opened.append(egress)
        return port

    yield open_one
    for egress in opened:
        egress.close()


def through(port: int, url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    proxy = urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{port}"})
    request = urllib.request.Request(url, data=body, method=method, headers={"Host": "forged.example"})
    try:
        with urllib.request.build_opener(proxy).open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def tunnel(port: int, authority: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("CONNECT", authority, headers={"Host": "forged.example"})
    answer = connection.getresponse()
    connection.close()
    return answer.status, answer.reason


INNER = ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1",
         "100.100.100.200", "[fd00:ec2::254]", "[fe80::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "2130706433",
         "0x7f.1", "168.63.129.16"]  # fmt: skip


@pytest.mark.parametrize("host", INNER)
def test_any_public_host_means_no_inner_one(door: Callable[..., int], hub: LocalHub, host: str) -> None:
    port = door(Egress(hub=hub.url, any_host=True))
    status, reason = tunnel(port, f"{host}:{hub.port}")
    assert status in (400, 403, 502) and (status != 502 or "not known" in reason)
    assert through(port, f"http://{host}:{hub.port}/api/models")[0] in (400, 403, 502)
    named = door(Egress(hosts=[f"{host}:{hub.port}"]) if not host.startswith("0x") else Egress())
    assert tunnel(named, f"{host}:{hub.port}")[0] in (400, 403, 502), "naming it does not help, unless private=True"
    assert hub.requests == []


def test_named_hosts_and_only_those(door: Callable[..., int], hub: LocalHub) -> None:
    with Service(echo) as site:
        port = door(Egress(hosts=[f"localhost:{site.port}"], private=True))
        name = f"localhost:{site.port}"
        assert through(port, f"http://{name}/echo", "POST", b"data") == (200, f"POST {name} data".encode())
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(f"CONNECT localhost:{site.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.sendall(b"GET /fine HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b""
            while block := connection.recv(1000):
                answer += block
        assert answer.endswith(b"GET a ")
        for other in (f"localhost:{hub.port}", f"127.0.0.1:{site.port}", "localhost", f"x.localhost:{site.port}"):
            assert tunnel(port, other)[0] == 403, other
        assert through(port, f"http://127.0.0.1:{site.port}/fine")[0] == 403


def test_names() -> None:
    reach = Reach(["example.com", "*.example.org", "index.example:8443"])
    for host, port, named in [
        ("example.com", 443, True), ("example.com", 80, True), ("example.com", 22, False), ("a.example.com", 443, False),
        ("a.example.org", 443, True), ("a.b.example.org", 443, True), ("example.org", 443, False),
        ("evilexample.org", 443, False), ("index.example", 8443, True), ("index.example", 443, False),
    ]:  # fmt: skip
        assert reach.names(host, port) is named, (host, port)
    for bad in (
        "",
        "a b",
        "http://example.com",
        "example.com/path",
        "user@example.com",
        "example.com:99999",
        "*",
        "*.",
    ):
        with pytest.raises(ValueError):
            Reach([bad])
    assert split_host("Example.COM.:8080", 1) == ("example.com", 8080)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_own_addresses_are_not_public_whatever_they_look_like() -> None:
    for address in (
        "127.8.8.8",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "2002:7f00:1::",
        "ff02::1",
        "192.0.0.192",
    ):
        assert not is_public(address), address
    assert is_own("127.0.0.1") and is_own("::") and not is_own("8.8.8.8")


def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as here:
        port = here.getsockname()[1]
        answers = iter([["127.0.0.1"], ["127.0.0.2"]])
        reach = Reach([f"rebind.example:{port}"], private=True, resolve=lambda host, _: next(answers))
        with reach.dial("https", "rebind.example", port) as connection:
            assert connection.getpeername() == ("127.0.0.1", port)
        assert next(answers) == ["127.0.0.2"], "it was looked up once"
    mixed = Reach(any_host=True, resolve=lambda *_: ["127.0.0.1", "8.8.8.8", "169.254.169.254"])
    assert mixed.addresses("mixed.example", 443) == ["8.8.8.8"], "only what was checked is connected to"
    inner = Reach(any_host=True, resolve=lambda *_: ["127.0.0.1"])
    with pytest.raises(egress_http.Refused, match="never gets there"):
        inner.dial("https", "inner.example", 443)


def test_only_the_hub_itself_may_lie_within() -> None:
    reach = Reach(home="http://127.0.0.1:8000")
    assert reach.addresses("127.0.0.1", 8000) == ["127.0.0.1"] and "127.0.0.1" in reach.addresses("localhost", 8000)
    for host, port in (("127.0.0.1", 8001), ("localhost", 22), ("127.0.0.2", 8000)):
        with pytest.raises(egress_http.Refused):
            reach.addresses(host, port)


def test_addresses_lose_what_signs_them() -> None:
    for target, left in {
        "/a?b=1&author=x": "/a?b=1&author=x", "/a?token=x": "/a", "/a?b=1&X-Amz-Signature=x&c=": "/a?b=1&c=",
        "/a?sig=x&se=1": "/a?se=1", "/a?q=hf_abcdefghijklmnopqrstuvwxyz&r=1": "/a?r=1", "/a?access_token=x#f": "/a",
        "/a?Key-Pair-Id=x&Policy=y&filename=z": "/a?filename=z", "/a?cursor=abc&limit=5": "/a?cursor=abc&limit=5",
        "/a?AWSAccessKeyId=x&api_key=y&Authorization=z": "/a",
    }.items():  # fmt: skip
        assert without_secrets(target) == left, target
    proxy = HubProxy("https://user:pass@hub.example/prefix/", Reach(), OWN)
    assert proxy.upstream == "https://hub.example/prefix", "not even the host's own password is used"
    link = '<https://hub.example/prefix/api/models?cursor=a&token=b>; rel="next", <https://evil.example/x>; rel="next"'
    assert proxy._links(link) == f'<{OWN}/api/models?cursor=a>; rel="next"'


def test_modes_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="network"):
        Egress.of("some")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="none"):
        Egress.of("none", ["example.com"])
    with pytest.raises(ValueError, match="no host"):
        JailExecutor(hosts=["http://example.com/x"])


def test_a_jail_that_hands_out_no_listener_is_turned_away(tmp_path: Path) -> None:
    for make in (lambda: os.open("/dev/null", os.O_RDONLY), lambda: socket.socket().detach()):
        ours, theirs = socket.socketpair()
        handle = make()
        socket.send_fds(theirs, [b"!"], [handle])
        os.close(handle)
        egress = Egress()
        with ours, theirs, pytest.raises(OSError):
            egress.take(ours)
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(OSError):
        Egress().take(ours)


def unknown(host: str) -> list[str]:
    raise socket.gaierror(f"{host} is not known here")


def test_the_machines_own_proxy_is_used(
    door: Callable[..., int], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a company's proxy names may mean nothing here; what means something here is still checked."""
    company = Egress(hosts=[f"hub.example:{hub.port}"], private=True)
    company.reach.resolve = lambda *_: ["127.0.0.1"]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{door(company)}")
    monkeypatch.setenv("no_proxy", "")
    reach = Reach(any_host=True, home=f"http://hub.example:{hub.port}", resolve=lambda host, _: unknown(host))
    proxy = HubProxy(f"http://hub.example:{hub.port}", reach, OWN)
    here, there = socket.socketpair()
    proxy.answer(there, egress_http.Request("GET", "/acme/tiny/resolve/main/config.json", {}, b""))
    there.close()
    with here:
        assert here.recv(100_000).endswith(b'{"layers": 2}')
    proxy.close()
    with pytest.raises(egress_http.Refused, match="does not connect to other"):
        reach.dial("http", "other.example", 80)
    with pytest.raises(egress_http.Refused, match="never gets there"):
        Reach(any_host=True).dial("http", "localhost", hub.port)


SAFE = """
import os, socket, sys
from ml_intern.execution import egress_http
from ml_intern.execution.egress_hub import HubProxy
from ml_intern.execution.egress_reach import Reach
for name in ("localhost", "127.0.0.1"):
    hub = f"https://{name}:{sys.argv[1]}"
    proxy = HubProxy(hub, Reach(home=hub), "")
    for _ in range(2):
        here, there = socket.socketpair()
        try:
            proxy.answer(there, egress_http.Request("GET", "/x", {}, b""))
            print(here.recv(9999).decode()[-5:])
        except egress_http.Refused as refused:
            print(refused.text)
"""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_the_hubs_certificate_is_checked(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=localhost -addext"
    subprocess.run([*command.split(), "subjectAltName=DNS:localhost"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    accepted = []

    def serve() -> None:
        while True:
            with contextlib.suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as one:
                accepted.append(one)
                while one.recv(9999):
                    one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        environment = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "cert")}
        told = subprocess.run(
            [sys.executable, "-c", SAFE, str(listener.getsockname()[1])],
            env=environment,
            capture_output=True,
            text=True,
        )
    lines = told.stdout.splitlines()
    assert lines[:2] == ["hello", "hello"] and len(accepted) == 1, told.stderr  # one connection for both
    assert all("No safe connection to 127.0.0.1" in line and "certificate" in line for line in lines[2:])
    assert len(lines) == 4
