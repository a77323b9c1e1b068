"""Values out of a row that anyone may have written: of the type that is wanted, or a default."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

MOST = 1 << 53


def text(value: Any, default: str = "") -> str:
    return value if isinstance(value, str) else default


def count(value: Any, default: int = 0) -> int:
    """A whole number, not below 0."""
    return value if type(value) is int and 0 <= value < MOST else default


def number(value: Any, default: float = 0.0) -> float:
    """A finite number, not below 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return float(value) if 0 <= value < MOST and math.isfinite(value) else default


def price(value: Any) -> float | None:
    """Dollars, or `None` where they are not known."""
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def moment(value: Any) -> float:
    """A row's time in seconds since the epoch; 0 where it has none."""
    try:
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
