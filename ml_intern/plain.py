"""Values of any kind as plain data: for rows, events and digests."""

from __future__ import annotations

import base64
import json
import math
from typing import Any


def clean(text: str) -> str:
    """`text` without lone surrogates, which no JSON reader has to accept."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as data that every JSON reader takes: no NaN, no integers beyond 64 bits, no lone surrogates, text for the rest."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if depth > 60:
        return "..."
    if isinstance(value, dict):
        return {clean(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray):
        return {"bytes": len(value), "base64": base64.b64encode(bytes(value[:3000])).decode()}
    return clean(describe(value))


def describe(value: Any) -> str:
    """What to write of an object that is no data: its `repr`, bounded; a `repr` that fails is said to."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - foreign code; the row must be written all the same
        text = f"<{type(value).__name__}: its repr failed with {type(error).__name__}>"
    return text if len(text) <= 10_000 else f"{text[:10_000]}... ({len(text)} characters)"


def as_text(value: Any) -> str:
    """A result as text: strings as they are, the rest as JSON."""
    return str(value) if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
