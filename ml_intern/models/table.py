"""litellm's table of models, read without litellm: what it says is wanted before the seconds are over that its import takes."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

FILE = "model_prices_and_context_window_backup.json"
HOLD_ALL_TO_SCHEMA = ("fireworks_ai", "nebius", "databricks", "predibase")
"""Providers of which litellm says that they hold the answers of all their models to a JSON schema."""


@functools.cache
def table() -> dict[str, Any]:
    """By model; empty where litellm keeps it elsewhere. 3 MB, some 50 ms."""
    found = importlib.util.find_spec("litellm")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        try:
            rows = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(rows, dict):
            return rows
    return {}


def holds_to_schema(model_id: str) -> bool:
    """Whether a provider holds this model's answers to a JSON schema, as far as litellm knows.

    Args:
        model_id (`str`): litellm's id.
    """
    provider, _, name = model_id.partition("/")
    if provider in HOLD_ALL_TO_SCHEMA:
        return True
    row = table().get(model_id) or table().get(name) or {}
    known = isinstance(row, dict) and row.get("litellm_provider") in (provider, None)
    return bool(known and row.get("supports_response_schema"))
