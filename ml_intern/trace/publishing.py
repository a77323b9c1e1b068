"""Who may read the shared sessions: the data set's visibility, a look for secrets in all of it, and the user's word.

What must never happen here: a data set becomes public that was not looked through, or without the user's word on record
first; its word stays on record where it is private again.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InternError
from ..secrets import Masker
from ..shapes import KINDS, MARK
from .share import DATASET, status_of
from .sharing_home import Choice, SharingHome

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Place:
    """The user's data set; `visibility` is `private`, `public` or `""` where there is none yet."""

    repo_id: str
    url: str
    visibility: str


@dataclass(frozen=True)
class Find:
    """A line of a file that holds what is or looks like a secret; `certain`: a value that this process knows."""

    path: str
    line: int
    names: tuple[str, ...]
    certain: bool


@dataclass(frozen=True)
class Inventory:
    """All that others would read: sessions, files, bytes, and the lines that should not be read by anybody."""

    sessions: int
    files: int
    size: int
    finds: tuple[Find, ...]


def place(api: HfApi, dataset: str = DATASET) -> Place:
    """Where the user's sessions are shared, and who can read them.

    Raises:
        InternError: there is no token, or the Hub cannot be asked.
    """
    from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError

    try:
        repo_id = f"{api.whoami()['name']}/{dataset}"
        url = f"{api.endpoint}/datasets/{repo_id}"
        try:
            private = api.dataset_info(repo_id, expand=["private"]).private
        except RepositoryNotFoundError:
            return Place(repo_id, url, "")
        return Place(repo_id, url, "private" if private is True else "public")
    except LocalTokenNotFoundError:
        raise InternError("There is no Hub token", "", "Set HF_TOKEN or run `hf auth login`.") from None
    except Exception as error:  # noqa: BLE001 - the client's HTTP library differs between its releases
        raise _unasked(error) from None


def take_stock(api: HfApi, repo_id: str, masker: Masker | None = None) -> Inventory:
    """Downloads all of a data set and looks through every line of it for secrets.

    Raises:
        InternError: it could not be downloaded whole.
    """
    masker = masker or Masker()
    with tempfile.TemporaryDirectory(prefix="ml-intern-look-") as name:
        try:
            api.snapshot_download(repo_id, repo_type="dataset", local_dir=name)
        except Exception as error:  # noqa: BLE001 - as above
            raise _unasked(error) from None
        folder = Path(name)
        paths = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and ".cache" not in path.relative_to(folder).parts
        ]
        relative = [path.relative_to(folder).as_posix() for path in paths]
        return Inventory(
            sum(re.fullmatch(r"sessions/[^/]+/[^/]+\.jsonl", path) is not None for path in relative),
            len(paths),
            sum(path.stat().st_size for path in paths),
            tuple(find for path, shown in zip(paths, relative, strict=True) for find in _look(path, shown, masker)),
        )


def make_public(home: SharingHome, api: HfApi, repo_id: str) -> None:
    """Puts the user's word on record, then makes the data set public.

    Raises:
        InternError: it could not be done; the word is taken back.
    """
    home.choose(Choice(home.choice().on, repo_id))
    try:
        api.update_repo_settings(repo_id, repo_type="dataset", private=False)
    except Exception as error:  # noqa: BLE001 - as above
        home.choose(Choice(home.choice().on))
        raise _unasked(error) from None


def make_private(home: SharingHome, api: HfApi, repo_id: str) -> None:
    """Takes the user's word back, and makes the data set private.

    Raises:
        InternError: it is as it was; nothing more is uploaded to it while it is public.
    """
    home.choose(Choice(home.choice().on))
    try:
        api.update_repo_settings(repo_id, repo_type="dataset", private=True)
    except Exception as error:  # noqa: BLE001 - as above
        raise _unasked(error) from None


def _look(path: Path, shown: str, masker: Masker) -> Iterator[Find]:
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        return  # not a text: nothing of ours
    text = data.decode("utf-8", "replace")
    if path.suffix != ".jsonl":
        if names := _new_marks(text, masker.text(text)):
            yield Find(shown, 0, names, not KINDS.issuperset(names))
        return
    for number, line in enumerate(text.split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else ""
        except (ValueError, RecursionError):
            row = line
        masked = masker.data(row)
        if masked is not row and (names := _new_marks(line, json.dumps(masked))):
            yield Find(shown, number, names, not KINDS.issuperset(names))


def _new_marks(before: str, after: str) -> tuple[str, ...]:
    there, now = Counter(MARK.findall(before)), Counter(MARK.findall(after))
    return tuple(sorted(name for name in now if now[name] > there[name]))


def _unasked(error: Exception) -> InternError:
    status, detail = status_of(error), " ".join(str(error).split())[:200]
    if status == 401:
        return InternError("The Hub does not accept the token", "", "Run `hf auth login`.")
    if status == 403:
        return InternError("The token may not do that", "", "Use a token with the role `write`.")
    return InternError("The Hub could not be asked", detail, "Try again later.")
