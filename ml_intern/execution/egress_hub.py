"""The Hub as a jail sees it: a reverse proxy that only reads, and reads only what is public.

Nothing that says who asks goes up, nothing that would let the jail ask by itself comes down. Both ways only the headers
on a list pass; redirects are followed here, so that presigned addresses stay here too.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, urlencode, urljoin, urlsplit

from ml_intern.execution.egress_http import Refused, Request, framed, head
from ml_intern.execution.egress_reach import Reach
from ml_intern.execution.egress_upstream import Answer, Pool, port_of

UP = {
    "accept", "accept-encoding", "accept-language", "range", "if-range", "if-match", "if-none-match",
    "if-modified-since", "if-unmodified-since",
}  # fmt: skip
DOWN = {
    "content-type", "content-encoding", "content-language", "content-range", "content-disposition", "accept-ranges",
    "etag", "last-modified", "cache-control", "date", "vary", "retry-after", "x-repo-commit", "x-linked-size",
    "x-linked-etag", "x-error-code", "x-error-message", "x-request-id", "x-total-count", "ratelimit",
    "ratelimit-policy",
}  # fmt: skip
ALONG = ("x-repo-commit", "x-linked-size", "x-linked-etag")
AGENT = "ml-intern (code in a jail)"
REDIRECTS = 6
LARGEST_LENGTH = 1 << 50
# Where the Hub's files lie; it may not send us anywhere else.
FAMILY = (".huggingface.co", ".hf.co")
_SECRET_NAME = re.compile(
    r"(^|[_.-])(access[_-]?)?(token|sig|signature|api[_-]?key|key|secret|passw(or)?d|credentials?|auth|authorization|"
    r"jwt|bearer|session|cookie)([_.-]|$)|^x-(amz|goog)-|^(aws)?accesskeyid$|^googleaccessid$|^policy$|^expires$",
    re.I,
).search
_SECRET_VALUE = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{16,}|\bBearer\s", re.I).search
_HANDS_OUT_TOKENS = re.compile(r"/xet-(read|write)-token(/|\?|$)", re.I).search
WRITES = (
    "The network of this code only reads: {method} is refused. Publish with the tool hub_push (it asks a person); "
    "what else has to be sent is for a person to do."
)
PRIVATE = " (Here only what is public can be read. The tool hub_download reads what the user may read.)"


class HubProxy:
    """Answers requests out of a jail from the Hub.

    Args:
        upstream (`str`): The Hub's address, as in the host's `HF_ENDPOINT`.
        reach (`Reach`): What may be connected to.
        own (`str`): The proxy's address as the jail sees it.
    """

    def __init__(self, upstream: str, reach: Reach, own: str) -> None:
        parts = urlsplit(upstream.rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"HF_ENDPOINT is no address: {upstream!r}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.upstream = f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
        self.reach, self.own = reach, own
        self._pool = Pool(reach)

    def open(self) -> None:
        self._pool = Pool(self.reach)

    def close(self) -> None:
        self._pool.close()

    def answer(self, connection: socket.socket, request: Request) -> None:
        """Answers one request.

        Raises:
            Refused: If it is not carried out.
            OSError: If either side breaks off.
        """
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, WRITES.format(method=request.method[:20]), "the Hub")
        if request.has_body or request.rest:
            raise Refused(400, f"A {request.method} here has no body. {WRITES.format(method='sending')}", "the Hub")
        if _HANDS_OUT_TOKENS(request.target):
            raise Refused(403, "Tokens are not handed out here: set HF_HUB_DISABLE_XET=1.", "the Hub")
        headers = {name: value for name, value in request.headers.items() if name in UP}
        headers["user-agent"] = AGENT
        headers.setdefault("accept-encoding", "identity")
        upstream, told = self._follow(request.method, self.upstream + without_secrets(request.target), headers)
        try:
            self._send(connection, request, upstream, told)
        finally:
            upstream.release()

    def _follow(self, method: str, url: str, headers: dict[str, str]) -> tuple[Answer, dict[str, str]]:
        """The answer at the end of all redirects, and what the first of them said of the file."""
        told: dict[str, str] = {}
        for _ in range(REDIRECTS):
            parts = urlsplit(url)
            upstream = self._pool.ask(method, parts, headers)
            location = upstream.headers.get("location")
            if upstream.status not in (301, 302, 303, 307, 308) or not location:
                return upstream, told
            told = {name: value for name in ALONG if (value := upstream.headers.get(name))} | told
            known = told.get("x-linked-etag", "")
            here = bool(known) and known in headers.get("if-none-match", "")
            if here or (method == "HEAD" and told.get("x-linked-size")):
                # What a HEAD asks for is known. Where the content lies, only GET may be signed for.
                return upstream.instead(304 if here else 200), told
            if known and headers.get("if-range") == known:
                del headers["if-range"]  # it is the same file; the store has another tag for it
            upstream.release()
            url = self._next(parts, urlsplit(urljoin(url, location)))
        raise Refused(502, "The Hub redirects without end.")

    def _next(self, before: SplitResult, target: SplitResult) -> str:
        host = (target.hostname or "").lower()
        port = port_of(target)
        if target.scheme not in ("http", "https") or (before.scheme, target.scheme) == ("https", "http"):
            raise Refused(502, "The Hub redirects to an address that is not safe.", host)
        family = f".{host}".endswith(FAMILY) and target.scheme == "https"
        if not (family or self.reach.any_host or self.reach.names(host, port) or self.reach.is_home(host, port)):
            why = f"The Hub redirects to {host}, which is none of its own hosts. A person can allow it"
            raise Refused(403, f"{why}: --allow-host {host}.", host)
        return target._replace(netloc=target.netloc.rpartition("@")[2], fragment="").geturl()

    def _send(self, connection: socket.socket, request: Request, upstream: Answer, told: Mapping[str, str]) -> None:
        headers = {name: value for name, value in upstream.headers.items() if name.lower() in DOWN}
        headers = {name.title(): value.replace("\r", "").replace("\n", "") for name, value in headers.items()}
        headers |= {name.title(): value for name, value in told.items()}
        if "x-linked-etag" in told:
            headers["Etag"] = told["x-linked-etag"]
        if link := self._links(upstream.headers.get("link", "")):
            headers["Link"] = link
        if upstream.status in (401, 403):
            headers["X-Error-Message"] = (headers.get("X-Error-Message") or "Not public.") + PRIVATE
        length = upstream.headers.get("content-length")
        if upstream.invented and "x-linked-size" in told and upstream.status == 200:
            length, headers["Accept-Ranges"] = told["x-linked-size"], "bytes"
        if length is not None and length.isdecimal() and int(length) < LARGEST_LENGTH:
            headers["Content-Length"] = length
        else:
            length = None
        bare = request.method == "HEAD" or upstream.status in (204, 304)
        if length is None and not bare:
            headers["Transfer-Encoding"] = "chunked"
        connection.sendall(head(upstream.status, headers, upstream.reason))
        if bare:
            upstream.finish()
            return
        blocks = upstream.blocks()
        for block in blocks if length is not None else framed(blocks):
            connection.sendall(block)

    def _links(self, link: str) -> str:
        """Links to further pages, as addresses of the proxy; other links say nothing here."""
        kept = []
        for url, rest in re.findall(r"<([^<>]*)>\s*;([^<]*)", link):
            if url.startswith(self.upstream + "/") and re.search(r"rel=\"?(next|prev|first|last)\b", rest):
                kept.append(f"<{self.own}{without_secrets(url[len(self.upstream) :])}>;{rest.rstrip(', ')}")
        return ", ".join(kept)


def without_secrets(target: str) -> str:
    """A request's path and query without what would say who asks, or sign for him."""
    path, mark, query = target.partition("#")[0].partition("?")
    if not mark:
        return path
    pairs = parse_qsl(query, keep_blank_values=True, encoding="utf-8", errors="surrogateescape")
    kept = [(name, value) for name, value in pairs if not _SECRET_NAME(name) and not _SECRET_VALUE(value)]
    if len(kept) == len(pairs):
        return path + mark + query
    return f"{path}?{urlencode(kept, errors='surrogateescape')}" if kept else path
