"""Rows held a column at a time: what many rows become when nothing needs them as tuples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from onrecord.serving.columns import Column, Value

__all__ = ["Table", "array_of"]

_Row = tuple[Value, ...]


class Table(Sequence[_Row]):
    """Valid rows as one array a column, in the schema's order.

    `arrays[i]` [rows] holds the values of `columns[i]`: objects (str, None where missing) where the
    column is textual; else float64 with NaN where missing, where the column is nullable or numeric;
    else int64 or bool. As a sequence it is the rows as Python values, as validation of JSON makes
    them.
    """

    def __init__(self, columns: Sequence[Column], arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        self.columns = tuple(columns)
        self.arrays = tuple(arrays)
        self._rows: list[_Row] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.arrays[0])

    @overload
    def __getitem__(self, place: int) -> _Row: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[_Row]: ...
    def __getitem__(self, place: int | slice) -> _Row | Sequence[_Row]:
        """Return a row, or several."""
        return self.rows()[place]

    def __iter__(self) -> Iterator[_Row]:
        """Yield the rows."""
        return iter(self.rows())

    def rows(self) -> list[_Row]:
        """Return the rows as tuples of Python values; they are made once."""
        if self._rows is None:
            values = map(_values, self.columns, self.arrays)
            self._rows = list(zip(*values, strict=True))
        return self._rows

    def take(self, places: np.ndarray[Any, Any]) -> Table:
        """Return the rows at `places`, an array of indexes or a mask [rows]."""
        return Table(self.columns, [array[places] for array in self.arrays])

    def matrix(self, dtype: Any) -> np.ndarray[Any, Any]:
        """Return the numbers as an array [rows, columns]; there must be no textual column."""
        found = np.empty((len(self), len(self.arrays)), dtype=dtype)
        for place, array in enumerate(self.arrays):
            found[:, place] = array
        return found


def array_of(column: Column, values: Sequence[Value]) -> np.ndarray[Any, Any]:
    """Return a column's checked values as `Table` holds them."""
    if column.textual:
        return np.array([*values, None], dtype=object)[:-1]  # so that numpy measures no strings
    if column.nullable or column.type == "numeric":
        return np.array(values, dtype=np.float64)
    return np.array(values, dtype=np.bool_ if column.type == "boolean" else np.int64)


def _values(column: Column, array: np.ndarray[Any, Any]) -> list[Any]:
    values: list[Any] = array.tolist()
    if column.textual or not column.nullable:
        return values
    if column.type == "numeric":
        return [None if value != value else value for value in values]  # noqa: PLR0124 - NaN
    kind = bool if column.type == "boolean" else int
    return [None if value != value else kind(value) for value in values]  # noqa: PLR0124 - NaN
