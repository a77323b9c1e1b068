"""Statistics of a column, under the names and by the rules of the Hub's dataset viewer."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ml_intern.testing.hub_tables import Feature, Table

_BINS = 10
_DECIMALS = 5
# A column of texts counts as labels when it has few different values.
_MAX_LABELS = 1000
_MAX_LABEL_SHARE = 0.2


def describe(table: Table) -> list[dict[str, Any]]:
    """One entry a column, in the order of their names; columns of structures have none."""
    found = []
    for name, feature in sorted(table.features.items()):
        column = [row[name] for row in table.rows]
        described = _column(feature, column)
        if described:
            kind, numbers = described
            found.append({"column_name": name, "column_type": kind, "column_statistics": numbers})
    return found


def _column(feature: Feature, column: list[Any]) -> tuple[str, dict[str, Any]] | None:
    present = [value for value in column if value is not None]
    kind, dtype = feature.get("_type"), str(feature.get("dtype"))
    missing = _missing(len(column) - len(present), len(column))
    if kind == "ClassLabel":
        labelled = [feature["names"][value] for value in present if value != -1]
        return "class_label", missing | _labels(labelled, len(present) - len(labelled), len(column))
    if kind == "List":
        return "list", missing | _numbers([len(value) for value in present])
    if kind != "Value":
        return None
    if dtype == "bool":
        return "bool", missing | {"frequencies": dict(Counter(map(str, present)))}
    if dtype.startswith(("int", "uint")):
        return "int", missing | _numbers(present)
    if dtype.startswith("float"):
        real = [value for value in present if not math.isnan(value)]
        return "float", _missing(len(column) - len(real), len(column)) | _numbers([float(value) for value in real])
    if dtype != "string":
        return None
    unique = len(set(present))
    few = unique <= _MAX_LABELS and unique <= _MAX_LABEL_SHARE * len(column)
    if present and (few or unique <= _BINS):
        return "string_label", missing | _labels(present, 0, len(column))
    return "string_text", missing | _numbers([len(value) for value in present])


def _missing(count: int, total: int) -> dict[str, Any]:
    return {"nan_count": count, "nan_proportion": round(count / total, _DECIMALS) if total else 0.0}


def _labels(values: list[str], unlabelled: int, total: int) -> dict[str, Any]:
    frequencies = dict(Counter(values).most_common())
    share = round(unlabelled / total, _DECIMALS) if total else 0.0
    about = {"no_label_count": unlabelled, "no_label_proportion": share}
    return {**about, "n_unique": len(frequencies), "frequencies": frequencies}


def _numbers(values: Sequence[int | float]) -> dict[str, Any]:
    if not values:
        return dict.fromkeys(("min", "max", "mean", "median", "std", "histogram"))
    low, high = min(values), max(values)
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {
        "min": _short(low),
        "max": _short(high),
        "mean": _short(statistics.fmean(values)),
        "median": _short(statistics.median(values)),
        "std": None if spread is None else _short(spread),
        "histogram": _histogram(values, low, high),
    }


def _histogram(values: Sequence[int | float], low: int | float, high: int | float) -> dict[str, Any]:
    """At most ten bins of equal width (of whole numbers, for whole numbers); the last one includes its end."""
    if low == high:
        return {"hist": [len(values)], "bin_edges": [_short(low), _short(high)]}
    if isinstance(low, int):
        width: int | float = math.ceil((high - low + 1) / _BINS)
        bins = math.ceil((high - low + 1) / width)
    else:
        width, bins = (high - low) / _BINS, _BINS
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / width), bins - 1)] += 1
    return {"hist": counts, "bin_edges": [_short(low + width * step) for step in range(bins)] + [_short(high)]}


def _short(value: int | float) -> int | float:
    return value if isinstance(value, int) else round(value, _DECIMALS)
