"""Traces from elsewhere: a colleague's file, a data set on the Hub, another program's.

What must never happen here: a file from elsewhere passes for one of this home's; what is fetched is written anywhere but
into the folder it was fetched for; a token goes to another host than the official client sends it to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..errors import InternError
from ..plain import as_text, clean
from . import rows as made
from .read import read_lines
from .rows import Row
from .values import text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MOST_BYTES = 512 << 20
"""Of a trace, and of all its artifacts, from the Hub."""
HUBS = ("huggingface.co", "hf.co", "www.huggingface.co")
_PAGE = re.compile(r"/datasets/(?P<repo>[^/]+(?:/[^/]+)??)/(?:blob|resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass(frozen=True)
class OnHub:
    """A file of a data set."""

    repo_id: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision not in (None, "main") else ""
        return f"hf://datasets/{self.repo_id}{revision}/{self.path}"


def on_hub(source: str, endpoint: str) -> OnHub | None:
    """Where a trace lies on the Hub; `None` where the source is no address there.

    Args:
        source (`str`): `hf://datasets/user/name/sessions/....jsonl` or the address of the file's page.
        endpoint (`str`): The Hub that the client talks to.

    Raises:
        InternError: it is an address, but not one of a file in a data set.
    """
    what, remedy = f"{source} is no trace on the Hub", "Such as hf://datasets/user/name/sessions/2026-01-15/ID.jsonl."
    if source.startswith("hf://"):
        parts = source.removeprefix("hf://").split("/", 3)
        if len(parts) < 4 or parts[0] != "datasets" or not parts[3]:
            raise InternError(what, "it names no file of a data set", remedy)
        name, _, revision = parts[2].partition("@")
        return OnHub(f"{parts[1]}/{name}", parts[3], unquote(revision) or None)
    if not re.match(r"https?://", source):
        return None
    address, own = urlsplit(source), urlsplit(endpoint)
    if address.netloc != own.netloc and address.hostname not in HUBS:
        raise InternError(what, f"{address.netloc} is not the Hub", remedy)
    path = unquote(address.path).removeprefix(own.path.rstrip("/") if address.netloc == own.netloc else "")
    found = _PAGE.fullmatch(path)
    if found is None:
        raise InternError(what, "the page shows no file of a data set", remedy)
    return OnHub(found["repo"], found["path"], found["revision"])


def fetch(place: OnHub, folder: Path, api: HfApi) -> Path:
    """Downloads a trace and the artifacts that lie beside it, with the official client.

    Args:
        place (`OnHub`): Where it lies.
        folder (`Path`): Where to.
        api (`HfApi`): The client.

    Raises:
        InternError: it is not there, or the Hub does not give it.
    """
    inside = PurePosixPath(place.path)
    if inside.is_absolute() or ".." in inside.parts:
        raise InternError(f"{place} is no trace on the Hub", "its path leads out of the data set")
    beside = str(inside.with_suffix("") / "artifacts")
    try:
        trace = _download(place, place.path, folder, api)
        for name in _artifacts(place, beside, api):
            _download(place, name, folder, api)
    except InternError:
        raise
    except Exception as error:  # noqa: BLE001 - the client's HTTP library differs between its releases
        detail = " ".join(str(error).split())[:200]
        raise InternError(f"Could not fetch {place}", detail, "Check the address, HF_ENDPOINT and HF_TOKEN.") from None
    return trace


def _download(place: OnHub, path: str, folder: Path, api: HfApi) -> Path:
    options: dict[str, Any] = {"repo_type": "dataset", "revision": place.revision, "local_dir": folder}
    return Path(api.hf_hub_download(place.repo_id, path, **options))


def _artifacts(place: OnHub, folder: str, api: HfApi) -> Iterator[str]:
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    size = 0
    try:
        for entry in api.list_repo_tree(place.repo_id, folder, repo_type="dataset", revision=place.revision):
            if isinstance(entry, RepoFile) and (size := size + entry.size) <= MOST_BYTES:
                yield entry.path
    except EntryNotFoundError:
        return


def read_any(path: Path, problems: list[str]) -> list[Row]:
    """The rows of a trace, also of one that is no JSON lines: the reference system's own session files.

    Args:
        path (`Path`): The file.
        problems (`list[str]`): Told what could not be read.

    Raises:
        InternError: it cannot be opened, or holds no conversation.
    """
    found: list[Row] = []
    said: list[str] = []
    try:
        found = list(read_lines(path, said))
        if any(isinstance(row.get("message"), dict) for row in found):
            problems += said
            return found
        whole = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
    except OSError as error:
        raise InternError(f"Cannot read the trace {path}", error.strerror or str(error)) from None
    converted = _session_file(whole)
    if not converted:
        raise InternError(f"{path.name} holds no conversation", "no row of it is a message that could be read")
    return converted


def _session_file(data: bytes) -> list[Row]:
    """Rows of a session in one JSON object with its `messages` (as a list, or as JSON in a text)."""
    try:
        session = json.loads(data)
        messages = session.get("messages") if isinstance(session, dict) else None
        messages = json.loads(messages) if isinstance(messages, str) else messages
    except (ValueError, RecursionError):
        return []
    if not isinstance(messages, list):
        return []
    model = text(session.get("model_name")) or "unknown"
    at = text(session.get("session_start_time"))
    turned = [_message(message, model) for message in messages if isinstance(message, dict)]
    return [{**row, "timestamp": at} for row in turned if row is not None]


def _message(message: Row, model: str) -> Row | None:
    role, content = message.get("role"), _content(message.get("content"))
    if role == "user":
        return {"type": "user", "message": made.user_message(content)}
    if role == "tool":
        block = made.result_block(text(message.get("tool_call_id")), content)
        return {"type": "user", "message": made.user_message([block])}
    if role != "assistant":
        return None
    blocks = [made.text_block(content)] if content else []
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            blocks.append(made.call_block(text(call.get("id")), text(function.get("name")), _arguments(function)))
    if not blocks:
        return None
    return {"type": "assistant", "message": made.assistant_message(blocks, model)}


def _content(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(clean(text(part.get("text"))) for part in value if isinstance(part, dict))
    return "" if value is None else clean(as_text(value))


def _arguments(function: Row) -> Row:
    given = function.get("arguments")
    try:
        given = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        return {"_raw": given}
    return given if isinstance(given, dict) else {"_raw": given}
