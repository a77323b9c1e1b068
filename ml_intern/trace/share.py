"""Uploading a trace to the user's private dataset on the Hub.

What must never happen here: a trace in a dataset that others can read without the user's recorded word; a session that
waits for, or fails with, the Hub; half a line.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InternError
from .read import read_rows

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATASET = "ml-intern-traces"

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
# ML Intern traces

Sessions of ML Intern (`pip install smolagents-ml-intern`), one Claude Code JSONL file each.
"""


@dataclass(frozen=True)
class Shared:
    """Where a trace lies on the Hub."""

    repo_id: str
    path: str
    url: str


def share(trace: Path, api: HfApi | None = None, dataset: str = DATASET) -> Shared:
    """Uploads a trace to the user's private dataset, made on first use.

    Args:
        trace (`Path`): `<session id>.jsonl`. Its whole lines are uploaded, once it holds an answer of the model.
        api (`HfApi`, *optional*): Defaults to the official client as the environment configures it.
        dataset (`str`, defaults to `"ml-intern-traces"`): In the user's own namespace.

    Raises:
        InternError: nothing was uploaded: no token, the Hub did not take it, or the dataset is public.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = api or HfApi()
    try:
        repo_id = f"{api.whoami()['name']}/{dataset}"
        api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
        if not api.dataset_info(repo_id).private:
            raise InternError(
                f"{repo_id} is public: the trace was not uploaded",
                "",
                "Make that dataset private to share traces there.",
            )
        if not api.file_exists(repo_id, "README.md", repo_type="dataset") or b"sessions/*" not in _card(api, repo_id):
            api.upload_file(
                path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id=repo_id, repo_type="dataset"
            )
        # The day it began, so that a session that goes on after midnight stays one file.
        day = next((str(row["timestamp"])[:10] for row in read_rows(trace) if "timestamp" in row), "undated")
        path = f"sessions/{day}/{trace.name}"
        with tempfile.TemporaryDirectory() as folder:
            snapshot = Path(folder) / trace.name
            snapshot.write_bytes(whole_lines(trace.read_bytes()))
            api.upload_file(path_or_fileobj=snapshot, path_in_repo=path, repo_id=repo_id, repo_type="dataset")
    except LocalTokenNotFoundError:
        raise InternError(
            "The trace was not uploaded: there is no Hub token", "", "Set HF_TOKEN or run `hf auth login`."
        ) from None
    except InternError:
        raise
    except Exception as error:  # noqa: BLE001 - the client's HTTP library differs between its releases; the trace stays here
        detail = " ".join(str(error).split())[:200]
        raise InternError(
            "The trace was not uploaded; it stays on this machine", detail, f"It lies at {trace}."
        ) from None
    return Shared(repo_id, path, f"{api.endpoint}/datasets/{repo_id}/blob/main/{path}")


def _card(api: HfApi, repo_id: str) -> bytes:
    return Path(api.hf_hub_download(repo_id, "README.md", repo_type="dataset")).read_bytes()


def whole_lines(data: bytes) -> bytes:
    """`data` up to its last line end: a row that is being written stays out."""
    return data[: data.rfind(b"\n") + 1]
