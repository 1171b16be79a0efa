"""Where changes lie: how many rows of each part of each column have one."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np

from onrecord.serving.columns import Column
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.table import Table

__all__ = ["Segments"]

_BINS = 5
_MOST_VALUES = 50
_OTHERS = "others"
_MISSING = "missing"


class Segments:
    """Counts rows, and those that are marked, by segment of each column that is not text.

    Categories and booleans are their own segments; numbers are parted at the quintiles of the first
    batch. Of a sensitive column nothing is counted.
    """

    def __init__(self, schema: InputSchema) -> None:
        self._columns = schema.columns
        self._edges: dict[str, np.ndarray[Any, Any]] = {}
        self._counts: dict[str, dict[str, list[int]]] = {
            column.name: {}
            for column in schema.columns
            if column.type != "text" and not column.sensitive
        }

    def add(self, table: Table, marked: np.ndarray[Any, Any]) -> None:
        """Count the rows of a batch; `marked` [rows] says which of them are also counted so."""
        for column, array in zip(self._columns, table.arrays, strict=True):
            counts = self._counts.get(column.name)
            if counts is None:
                continue
            for which, values in enumerate((array, array[marked])):
                for name, count in self._tally(column, values).items():
                    known = name in counts or len(counts) < _MOST_VALUES
                    counts.setdefault(name if known else _OTHERS, [0, 0])[which] += count

    def table(self) -> dict[str, list[dict[str, Any]]]:
        """Return, for each column, its segments with `rows` and `changed`, most changed first."""
        return {
            column: sorted(
                (
                    {"segment": name, "rows": rows, "changed": changed}
                    for name, (rows, changed) in counts.items()
                ),
                key=lambda it: (-it["changed"] / it["rows"], it["segment"]),
            )
            for column, counts in self._counts.items()
        }

    def _tally(self, column: Column, array: np.ndarray[Any, Any]) -> dict[str, int]:
        if column.type not in {"numeric", "integer"}:
            return {_label(column, value): n for value, n in _counted(array).items()}
        numbers = array.astype(np.float64)
        edges = self._edges.get(column.name)
        if edges is None:
            known = numbers[~np.isnan(numbers)]
            inner = np.linspace(0, 1, _BINS + 1)[1:-1]
            edges = np.unique(np.quantile(known, inner)) if len(known) else np.zeros(0)
            self._edges[column.name] = edges
        texts = [*(f"{edge:.6g}" for edge in edges)]
        labels = (
            [f"< {texts[0]}"]
            + [f"{low} to {high}" for low, high in pairwise(texts)]
            + [f">= {texts[-1]}"]
            if texts
            else ["all"]
        )
        missing = np.isnan(numbers)
        bins = np.searchsorted(edges, numbers[~missing], side="right")
        counts = np.bincount(bins, minlength=len(labels)).tolist()
        named = zip([*labels, _MISSING], [*counts, int(np.count_nonzero(missing))], strict=True)
        return {name: count for name, count in named if count}


def _counted(array: np.ndarray[Any, Any]) -> dict[Any, int]:
    """Return how often each value of categories or booleans is there; NaN and None are None."""
    if array.dtype.kind != "f":
        return Counter(array.tolist())
    missing = np.isnan(array)
    counts: dict[Any, int] = Counter(array[~missing].tolist())
    return counts | ({None: int(np.count_nonzero(missing))} if missing.any() else {})


def _label(column: Column, value: Any) -> str:
    if value is None:
        return _MISSING
    return str(bool(value)) if column.type == "boolean" else str(value)
