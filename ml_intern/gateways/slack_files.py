"""Files that people drop into a thread, on their way into a session's workspace.

What must never happen here: the bot's token goes to another host than Slack's; a name leaves the folder; a page of Slack's
that asks to sign in is taken for the file.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import InternError
from .slack_inbox import Dropped

LARGEST = 200_000_000
SECONDS = 60.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


_open = urllib.request.build_opener(_NoRedirects).open


def fetch(files: Iterable[Dropped], folder: Path, token: str, api: str) -> list[Path]:
    """Loads dropped files into a folder.

    Args:
        files (`Iterable[Dropped]`): Which.
        folder (`Path`): Where to; names get there as they are safe.
        token (`str`): The bot's token.
        api (`str`): The address of the Web API: its host is trusted with the token besides Slack's.

    Returns:
        `list[Path]`: The files, in order.

    Raises:
        InternError: one of them cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    loaded = []
    for file in files:
        target = _free(folder, safe_name(file.name))
        target.write_bytes(_load(file, token, api))
        loaded.append(target)
    return loaded


def safe_name(name: str) -> str:
    """A name for a file in the workspace, made of one that somebody chose."""
    last = re.sub(r"[^\w.+ -]", "_", name.replace("\\", "/").rsplit("/", 1)[-1]).strip(" .")
    return last[-100:].lstrip(" .-") or "file"


def of_slack(url: str, api: str) -> bool:
    """Whether an address is Slack's own, or lies beside the Web API that is used."""
    address, own = urlsplit(url), urlsplit(api)
    slack = address.scheme == "https" and re.fullmatch(r"(?:[\w-]+\.)*slack(?:-gov)?\.com", address.hostname or "")
    return bool(slack) or (address.scheme, address.netloc) == (own.scheme, own.netloc)


def _load(file: Dropped, token: str, api: str) -> bytes:
    if not of_slack(file.url, api):
        raise InternError(f"{file.name} was not fetched", "it does not lie with Slack", "Upload it here itself.")
    if file.size > LARGEST:
        raise InternError(f"{file.name} was not fetched", f"it has more than {LARGEST:,} bytes", "Put it on the Hub.")
    request = urllib.request.Request(file.url, headers={"Authorization": f"Bearer {token}"})
    try:
        with _open(request, timeout=SECONDS) as answer:
            data = answer.read(LARGEST + 1)
            kind = answer.headers.get("content-type", "")
    except urllib.error.HTTPError as error:
        if error.code in (301, 302, 303, 307, 401, 403):  # to the page where one signs in
            raise _signed_out(file) from None
        raise InternError(f"{file.name} was not fetched", str(error), "Drop it again.") from None
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise InternError(f"{file.name} was not fetched", str(error), "Drop it again.") from None
    if "html" in kind and len(data) != file.size:
        raise _signed_out(file)
    return data


def _signed_out(file: Dropped) -> InternError:
    remedy = "The app needs the scope files:read; install it again."
    return InternError(f"{file.name} was not fetched", "Slack asks to sign in", remedy)


def _free(folder: Path, name: str) -> Path:
    stem, dot, ending = name.rpartition(".")
    for number in range(1, 1_000):
        target = folder / (name if number == 1 else f"{stem or ending}-{number}{dot + ending if stem else ''}")
        if not target.exists():
            return target
    raise InternError(f"There are too many files called {name}")
