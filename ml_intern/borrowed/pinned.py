"""Pinned: a Space of the Hub at one commit, and the code of the tool in it: fetched and not run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError

CODE, NEEDS = "tool.py", "requirements.txt"
LARGEST_CODE = 200_000
_PINNED = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
_NAMED = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\S+))?")


@dataclass(frozen=True)
class Pinned:
    """A Space at one commit."""

    repo: str
    revision: str

    @classmethod
    def of(cls, text: str, find: Callable[[str, str], str] | None = None) -> Pinned:
        """Reads `owner/name@REVISION`.

        Args:
            text (`str`): The revision is a whole commit hash.
            find (`Callable[[str, str], str]`, *optional*): The commit that a branch stands for at the moment, for the message.

        Raises:
            SettingsError: it is no Space, or not pinned: with the commit that it is at now.
        """
        text = text.strip()
        if found := _PINNED.fullmatch(text):
            return cls(found[1], found[2])
        named = _NAMED.fullmatch(text)
        if named is None:
            raise SettingsError(f"{text!r} names no tool of the Hub", "", "Write owner/name@REVISION.")
        why = f"{named[2]!r} can be something else tomorrow" if named[2] else "what a Space holds can change any day"
        try:
            now = (find or current_revision)(named[1], named[2] or "main")
        except OSError as error:
            raise SettingsError(
                f"The Hub tool {named[1]} needs a revision",
                why,
                f"Write {named[1]}@COMMIT. What it is now is not known: {error}",
            ) from None
        raise SettingsError(
            f"The Hub tool {named[1]} needs a revision",
            why,
            f"It is at {now} now: read it, and write {named[1]}@{now}",
        )

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"


def current_revision(repo: str, branch: str) -> str:
    """The commit that a Space's branch is at. Raises `OSError` where the Hub does not say."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return str(HfApi(endpoint=_endpoint()).space_info(repo, revision=branch, timeout=10).sha)
    except (HfHubHTTPError, HFValidationError) as error:
        raise OSError(str(error).splitlines()[0]) from error
    except Exception as error:  # the HTTP library differs between releases; without an answer the message does without
        raise OSError(f"{type(error).__name__}: {error}".splitlines()[0]) from error


def _endpoint() -> str | None:
    """The Hub's address, as it stands in the environment now."""
    return os.environ.get("HF_ENDPOINT") or None


def fetch(pinned: Pinned, cache: Path | None = None) -> tuple[str, str]:
    """The code of a Space's tool, and what it needs: files of that commit, read and not run."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def text(name: str) -> str:
        found = hf_hub_download(
            pinned.repo, name, repo_type="space", revision=pinned.revision, endpoint=_endpoint(), cache_dir=cache
        )
        path = Path(found)
        if path.parent.name != pinned.revision:  # a branch can be named like a commit
            raise ValueError(f"the Hub gave {path.parent.name} for {pinned.revision}")
        if path.stat().st_size > LARGEST_CODE:
            raise ValueError(f"its {name} is too large to be read")
        return path.read_text(encoding="utf-8")

    code = text(CODE)
    try:
        return code, text(NEEDS)
    except EntryNotFoundError:
        return code, ""
