"""Which addresses may be connected to for a jail, and the connecting: a name is looked up once, checked, and that is it.

A name that answers otherwise the next time (DNS rebinding) gains nothing: what was checked is what is connected to.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import cache
from urllib.parse import unquote, urlsplit

from ml_intern.execution.egress_http import IDLE_SECONDS, Refused

CONNECT_SECONDS = 10.0
WEB_PORTS = (80, 443)
# Not what `ipaddress` calls private, and yet a cloud's inside: Azure's and Oracle's metadata services.
INSIDE_CLOUDS = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?\.?|[0-9a-f:.]+").fullmatch


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet, and neither this machine's nor a way to an inner one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return not any(ip.version == net.version and ip in net for net in INSIDE_CLOUDS) and not is_own(address)


def is_own(address: str) -> bool:
    """Whether this machine has the address: what listens there may trust that only its own people get there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return True
    return False


def look_up(host: str, port: int) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def split_host(text: str, default: int) -> tuple[str, int]:
    """`example.com:8443` or `[::1]:80` as host and port.

    Raises:
        ValueError: If it is neither.
    """
    parts = urlsplit(f"//{text}")
    host = (parts.hostname or "").rstrip(".").lower()
    if not _HOST(host) or parts.username is not None or parts.path or parts.query:
        raise ValueError(f"{text!r} is no host")
    return host, parts.port or default


class Unknown(Refused):
    """A name that means nothing here."""


class Reach:
    """What may be connected to.

    Args:
        hosts (`Sequence[str]`): `"example.com"` (its ports 80 and 443), `"example.com:8443"`, `"*.example.com"`.
        any_host (`bool`, defaults to `False`): Any public host.
        private (`bool`, defaults to `False`): The named hosts may have private addresses: a package index in the house.
        home (`str`, *optional*): An address (`http://127.0.0.1:8000`) that is always allowed, wherever it lies.
        resolve (`Callable[[str, int], list[str]]`, *optional*): Looks up a name's addresses. Defaults to the system's way.

    Raises:
        ValueError: If one of `hosts` is none.
    """

    def __init__(
        self,
        hosts: Sequence[str] = (),
        *,
        any_host: bool = False,
        private: bool = False,
        home: str | None = None,
        resolve: Callable[[str, int], list[str]] | None = None,
    ) -> None:
        self.any_host, self.private, self.resolve = any_host, private, resolve or look_up
        self.named = tuple(split_host(text, 0) for text in hosts)
        self.home: tuple[str, int] | None = None
        if home is not None:
            parts = urlsplit(home)
            self.home = (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)

    def names(self, host: str, port: int) -> bool:
        """Whether a person named the host."""
        for name, only in self.named:
            same = host.endswith(name[1:]) if name.startswith("*.") else host == name
            if same and (port == only if only else port in WEB_PORTS):
                return True
        return False

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be connected to, looked up now.

        Raises:
            Refused: If there are none.
        """
        try:
            found = self.resolve(host, port)
        except (OSError, UnicodeError):
            raise Unknown(502, f"The host {host} is not known.") from None
        if (host, port) == self.home or (self.private and self.names(host, port)):
            return found
        good = [address for address in found if is_public(address) or self._is_home(address, port)]
        if not good:
            raise Refused(
                403, f"{host} has an address inside this machine or its network: code never gets there.", host
            )
        return good

    def is_home(self, host: str, port: int) -> bool:
        """Whether this is the home, by this or another name: a local Hub sends clients to itself for large files."""
        if self.home is None or port != self.home[1]:
            return False
        with contextlib.suppress(OSError, UnicodeError):
            return any(self._is_home(address, port) for address in self.resolve(host, port))
        return False

    def _is_home(self, address: str, port: int) -> bool:
        if self.home is None or port != self.home[1]:
            return False
        with contextlib.suppress(OSError, UnicodeError):
            return address in self.resolve(*self.home)
        return False

    def dial(self, scheme: str, host: str, port: int) -> socket.socket:
        """A connection to a host, through the machine's own proxy if it has one for it.

        Through such a proxy it is that which looks names up: what the name means here is checked if it means anything.

        Raises:
            Refused: If it is not allowed, or not to be had.
        """
        proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
        if not proxy:
            return connected(host, self.addresses(host, port), port)
        with contextlib.suppress(Unknown):
            self.addresses(host, port)
        return through(proxy, host, port)


def connected(host: str, addresses: Sequence[str], port: int) -> socket.socket:
    """Tries checked addresses in turn."""
    why: OSError | None = None
    for address in addresses[:4]:
        try:
            connection = socket.create_connection((address, port), CONNECT_SECONDS)
        except OSError as error:
            why = error
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(IDLE_SECONDS)
        return connection
    raise Refused(502, f"The host {host} does not answer ({why}).")


def through(proxy: str, host: str, port: int) -> socket.socket:
    """A tunnel through the machine's own HTTP proxy."""
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    where = parts.hostname or ""
    if parts.scheme != "http":
        raise Refused(502, f"This machine's proxy is reached by {parts.scheme}, which does not work here.")
    try:
        connection = socket.create_connection((where, parts.port or 80), CONNECT_SECONDS)
        connection.settimeout(IDLE_SECONDS)
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            lines.append(f"Proxy-Authorization: Basic {b64encode(pair).decode()}")
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer and len(answer) < 65536 and (block := connection.recv(1)):
            answer += block
    except OSError as error:
        raise Refused(502, f"This machine's proxy does not answer ({error}).") from None
    if answer.split(b" ")[1:2] != [b"200"]:
        connection.close()
        raise Refused(502, f"This machine's proxy does not connect to {host}.")
    return connection


@cache
def tls() -> ssl.SSLContext:
    """The system's certificate authorities, and those of `certifi`, which the other clients here use."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context
