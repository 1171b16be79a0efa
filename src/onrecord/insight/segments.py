"""Where changes lie: how many rows of each part of each column have one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from onrecord.serving.columns import Column
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.runtimes import Row

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

    def add(self, rows: Sequence[Row], marked: np.ndarray[Any, Any]) -> None:
        """Count a batch of rows; `marked` [rows] says which of them count twice."""
        for place, column in enumerate(self._columns):
            counts = self._counts.get(column.name)
            if counts is None:
                continue
            names = self._names(column, [row[place] for row in rows])
            for name, is_marked in zip(names, marked.tolist(), strict=True):
                if name not in counts and len(counts) >= _MOST_VALUES:
                    name = _OTHERS  # noqa: PLW2901
                count = counts.setdefault(name, [0, 0])
                count[0] += 1
                count[1] += is_marked

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

    def _names(self, column: Column, values: list[Any]) -> list[str]:
        if column.type not in {"numeric", "integer"}:
            return [_MISSING if value is None else str(value) for value in values]
        numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
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
        bins = np.searchsorted(edges, numbers, side="right").tolist()
        missing = np.isnan(numbers).tolist()
        return [
            _MISSING if gone else labels[bin_] for bin_, gone in zip(bins, missing, strict=True)
        ]
