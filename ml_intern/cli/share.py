"""`share`: where sessions are uploaded, who can read them, and whether they are."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InternError
from .text import duration, one_line, size

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from ..trace.publishing import Inventory, Place

ACTIONS = ("status", "on", "off", "public", "private")
SHOWN = 12
"""Finds that are listed."""


def run(
    action: str,
    *,
    home: Path | None,
    confirm: str | None = None,
    as_json: bool = False,
    api: HfApi | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Shows or changes how this home shares its sessions.

    Args:
        action (`str`): One of [`ACTIONS`].
        home (`Path`, *optional*): The home; otherwise `ML_INTERN_HOME`.
        confirm (`str`, *optional*): The data set's name, in place of typing it, for `public`.
        api (`HfApi`, *optional*): Defaults to the official client as the environment configures it.
        say (`Callable[[str], None]`): Takes a line of text.

    Returns:
        `int`: 0; 4 where it was not confirmed.

    Raises:
        InternError: no such action; the Hub does not let it be done; there are secrets in what would be public.
    """
    from ..settings import Settings
    from ..trace.sharing_home import Choice, SharingHome

    if action not in ACTIONS:
        raise InternError(f"There is no `share {one_line(action)}`", "", f"It is one of: {', '.join(ACTIONS)}.")
    files = SharingHome(Settings.load(home).sessions().parent)
    if action in ("on", "off"):
        try:
            files.choose(Choice(action == "on", files.choice().public))
        except OSError as error:
            raise InternError(f"Cannot write in {files.home}", error.strerror or str(error)) from None
        say(_said(files.home))
        return 0
    if action == "status":
        return _status(files.home, as_json, api, say)
    from huggingface_hub import HfApi

    from ..trace.publishing import make_private, make_public, place, take_stock

    api = api or HfApi()
    where = place(api)
    if not where.visibility:
        raise InternError(f"There is no {where.repo_id} yet", "it is made with the first session that is shared")
    if action == "private":
        make_private(files, api, where.repo_id)
        say(f"{where.repo_id} is private: nobody but you can read it.")
        return 0
    say(f"Looking through all of {where.repo_id} for secrets …")
    stock = take_stock(api, where.repo_id)
    _show(where, stock, say)
    certain = [find for find in stock.finds if find.certain]
    if certain:
        raise InternError(
            f"{where.repo_id} was not made public",
            f"{len(certain)} lines hold secrets that this machine knows",
            "Remove those files from the data set and change the secrets; then try again.",
        )
    if not _confirmed(where.repo_id, confirm):
        say("Not confirmed: it stays as it is.")
        return 4
    make_public(files, api, where.repo_id)
    say(f"{where.url} is public, and so will be what is shared from now on. `share private` takes that back.")
    return 0


def _confirmed(repo_id: str, confirm: str | None) -> bool:
    if confirm is not None:
        return confirm == repo_id
    if not sys.stdin.isatty():
        raise InternError("Nobody can be asked here", "", f"Say it with --confirm {repo_id}.")
    try:
        return input(f"To make it public type its name, {repo_id}: ").strip() == repo_id
    except (EOFError, KeyboardInterrupt):
        return False


def _show(where: Place, stock: Inventory, say: Callable[[str], None]) -> None:
    say(f"What everybody could read at {where.url}:")
    say(
        f"  {stock.sessions:,} sessions, {stock.files:,} files, {size(stock.size)}: tasks, code, results, costs, errors"
    )
    for find in stock.finds[:SHOWN]:
        at = f", line {find.line}" if find.line else ""
        say(
            f"  {'secret' if find.certain else 'looks like a secret'}: {one_line(find.path)}{at}: {', '.join(find.names)}"
        )
    if len(stock.finds) > SHOWN:
        say(f"  … and {len(stock.finds) - SHOWN:,} more")
    if not stock.finds:
        say("  no secrets were found in it")


def _said(home: Path) -> str:
    from ..trace.sharing import is_wanted

    on, why = is_wanted(home)
    return f"Sessions are {'' if on else 'not '}uploaded ({why})."


def _status(home: Path, as_json: bool, api: HfApi | None, say: Callable[[str], None]) -> int:
    from huggingface_hub import HfApi

    from ..trace.publishing import Place, place
    from ..trace.sharing import is_wanted
    from ..trace.sharing_home import SharingHome

    files = SharingHome(home)
    on, why = is_wanted(home)
    pending, trouble = files.pending(), ""
    try:
        where = place(api or HfApi())
    except InternError as error:
        where, trouble = Place("", "", "unknown"), str(error)
    failures = sorted((one.failure for one in pending if one.failure), key=lambda failure: failure.at)
    last = failures[-1] if failures else None
    if as_json:
        say(
            json.dumps(
                {
                    "on": on,
                    "because": why,
                    "dataset": where.repo_id,
                    "url": where.url,
                    "visibility": where.visibility or "none yet",
                    "public_consent": files.choice().public,
                    "uploaded": files.uploaded(),
                    "pending": [one.id for one in pending],
                    "last_failure": last.why if last else "",
                    "trouble": trouble,
                }
            )
        )
        return 0
    say(_said(home))
    say(f"  where     {where.url or trouble.splitlines()[0]}")
    if where.url:
        say(f"  who reads {_readers(where, files.choice().public)}")
    say(f"  uploaded  {files.uploaded():,} sessions")
    say(f"  pending   {len(pending):,} sessions" + (", tried again with the next session" if pending else ""))
    if last is not None:
        say(f"  trouble   {one_line(last.why.splitlines()[0])}, {duration(max(time.time() - last.at, 0.0))} ago")
    return 0


def _readers(where: Place, consent: str) -> str:
    if where.visibility == "private":
        return "only you"
    if not where.visibility:
        return "only you, once it is there: it is made private with the first session"
    return (
        "everybody"
        if consent == where.repo_id
        else "everybody, which you have not said it may be: nothing is uploaded to it"
    )
