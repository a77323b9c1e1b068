"""Uploading a session to the user's data set on the Hub, once, here and now.

What must never happen here: a trace in a data set that others can read without the user's recorded word; half a line; a
file twice; one upload that takes back another's.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InternError
from ..secrets import Masker
from .bundle import Bundle, artifact, bundle

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

DATASET = "ml-intern-traces"
FILES_A_COMMIT = 100
CONFLICTS = 6
"""Times that an upload begins anew because another came in between, or the data set went away."""

CARD = """---
tags: [agent-traces, coding-agent, ml-intern, smolagents]
configs:
- config_name: default
  data_files:
  - split: train
    path: sessions/*/*.jsonl
dataset_info:
  config_name: default
  features:
  - {name: harness, dtype: string}
  - {name: session_id, dtype: string}
  - {name: prompt, dtype: string}
  - {name: messages, list: json}
  - {name: tools, list: json}
  - {name: metadata, dtype: json}
  - {name: sent_at, dtype: string}
  - {name: num_user_messages, dtype: int64}
  - {name: num_tool_calls, dtype: int64}
  - {name: trace, dtype: json}
  - {name: file_path, dtype: string}
---
"""
CARD_TEXT = """# ML Intern traces

Sessions of ML Intern (`pip install smolagents-ml-intern`), one Claude Code JSONL file each, by the day they began. Large
outputs and the traces of sub-agents lie in a folder of the same name beside each.
"""


@dataclass(frozen=True)
class Shared:
    """Where a trace lies on the Hub, and how many large outputs were too much to upload with it."""

    repo_id: str
    path: str
    url: str
    left_out: int = 0


class NotShared(InternError):
    """A trace was not uploaded; it stays on this machine.

    Args:
        again (`bool`): Whether trying again later may help by itself.
        after (`float`): Seconds that the Hub wants to be left alone.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "", again: bool = False, after: float = 0.0) -> None:
        super().__init__(what, why, remedy)
        self.again, self.after = again, after


def share(
    trace: Path,
    api: HfApi | None = None,
    dataset: str = DATASET,
    *,
    masker: Masker | None = None,
    consented: Callable[[str], bool] = lambda repo_id: False,
    before: Callable[[str], None] = lambda repo_id: None,
) -> Shared:
    """Uploads a trace, and what lies beside it, to the user's private data set, made on first use.

    What has not changed since is not uploaded again.

    Args:
        trace (`Path`): `<session id>.jsonl`. Its whole lines are uploaded, once it holds an answer of the model.
        api (`HfApi`, *optional*): Defaults to the official client as the environment configures it.
        dataset (`str`, defaults to `"ml-intern-traces"`): In the user's own namespace.
        masker (`Masker`, *optional*): Masks once more what is uploaded: more may be known by now.
        consented (`Callable[[str], bool]`): Whether the user's word is on record that others may read this data set.
        before (`Callable[[str], None]`): Called with the data set's name right before something is sent.

    Raises:
        NotShared: nothing was uploaded: no token, the Hub did not take it, the data set is public without the user's
            word, or there is no answer of the model in it yet.
    """
    from huggingface_hub import HfApi

    api, masker = api or HfApi(), masker or Masker()
    try:
        lot = bundle(trace, masker)
    except (OSError, UnicodeDecodeError) as error:
        raise NotShared(f"The trace {trace.name} was not uploaded", f"it cannot be read: {error}") from None
    if lot is None:
        raise NotShared(f"The trace {trace.name} was not uploaded", "it holds no answer of the model yet")
    try:
        repo_id = f"{api.whoami()['name']}/{dataset}"
        for attempt in range(CONFLICTS):
            try:
                _upload(api, repo_id, lot, masker, consented, before, trace.stem)
                break
            except Exception as error:
                if status_of(error) not in (404, 409, 412) or attempt == CONFLICTS - 1:
                    raise
            time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
    except NotShared:
        raise
    except Exception as error:  # noqa: BLE001 - the client's HTTP library differs between its releases; the trace stays here
        raise _not_shared(error, trace) from None
    return Shared(repo_id, lot.path, f"{api.endpoint}/datasets/{repo_id}/blob/main/{lot.path}", lot.left_out)


def _upload(
    api: HfApi,
    repo_id: str,
    lot: Bundle,
    masker: Masker,
    consented: Callable[[str], bool],
    before: Callable[[str], None],
    name: str,
) -> None:
    """One upload on top of the state whose visibility was looked at; a commit in between makes the Hub refuse it."""
    from huggingface_hub import CommitOperationAdd

    head = check(api, repo_id, consented)
    there = _present(api, repo_id, ["README.md", *lot.kept])
    added = [CommitOperationAdd(path, content) for path, content in lot.files.items()]
    added += [CommitOperationAdd(path, artifact(file, masker)) for path, file in lot.kept.items() if path not in there]
    added += _card(api, repo_id, "README.md" in there)
    before(repo_id)
    for start in range(0, len(added), FILES_A_COMMIT):
        some: list[CommitOperationAdd] = added[start : start + FILES_A_COMMIT]
        done = api.create_commit(
            repo_id, some, commit_message=f"Session {name}", repo_type="dataset", parent_commit=head
        )
        head = done.oid


def check(api: HfApi, repo_id: str, consented: Callable[[str], bool]) -> str:
    """The newest commit of the data set, made private if it is not there.

    Raises:
        NotShared: others can read it, and the user's word for that is not on record.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.dataset_info(repo_id, expand=["private", "sha"])
    except RepositoryNotFoundError:
        api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
        info = api.dataset_info(repo_id, expand=["private", "sha"])
    if info.private is not True and not consented(repo_id):
        raise NotShared(
            f"{repo_id} is public: the trace was not uploaded",
            "you have not said that others may read your sessions",
            "`share private` makes it private again; `share public` says that it is meant to be public.",
        )
    return str(info.sha)


def _present(api: HfApi, repo_id: str, paths: list[str]) -> set[str]:
    found = api.get_paths_info(repo_id, paths, repo_type="dataset")
    return {entry.path for entry in found}


def _card(api: HfApi, repo_id: str, there: bool) -> list[CommitOperationAdd]:
    """The card where there is none, or one that does not lead the viewer to the sessions; its words are kept."""
    from huggingface_hub import CommitOperationAdd

    text = CARD_TEXT
    if there:
        with tempfile.TemporaryDirectory() as folder:
            read = api.hf_hub_download(repo_id, "README.md", repo_type="dataset", local_dir=folder)
            present = Path(read).read_text(encoding="utf-8")
        if "sessions/*/*.jsonl" in present:
            return []
        parts = present.split("---\n", 2) if present.startswith("---\n") else ["", "", present]
        text = parts[-1] if parts[-1].strip() else CARD_TEXT
    return [CommitOperationAdd("README.md", (CARD + text).encode())]


def status_of(error: BaseException) -> int:
    """The HTTP status that an error of the client carries, 0 where it carries none."""
    response: Any = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0) or 0)


def _not_shared(error: Exception, trace: Path) -> NotShared:
    from huggingface_hub.errors import LocalTokenNotFoundError

    status, detail = status_of(error), " ".join(str(error).split())[:200]
    if isinstance(error, LocalTokenNotFoundError):
        return NotShared(
            "The trace was not uploaded: there is no Hub token", "", "Set HF_TOKEN or run `hf auth login`."
        )
    what, here = "The trace was not uploaded; it stays on this machine", f"It lies at {trace}."
    if status == 401:
        return NotShared(what, "the Hub does not accept the token", f"Run `hf auth login`. {here}")
    if status == 403:
        return NotShared(what, "the token may not write there", f"Use a token with the role `write`. {here}")
    if status == 429:
        return NotShared(what, "the Hub asks for fewer requests", f"{here} It is tried again.", True, _patience(error))
    if status >= 500 or status in (0, 404, 408, 409, 412):
        why = f"the Hub answered {status}" if status else f"the Hub cannot be reached: {detail}"
        return NotShared(what, why, f"{here} It is tried again.", True, _patience(error))
    return NotShared(what, detail, here)


def _patience(error: Exception) -> float:
    """The seconds of a `Retry-After`."""
    said = str(getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", ""))
    return min(float(said), 3600.0) if said.isdecimal() else 0.0
