"""Rows of Python values as the arrays and tables that model libraries take."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from onrecord.serving.columns import Column

__all__ = ["to_array", "to_column", "to_frame", "to_object_array"]


def to_array(rows: Sequence[tuple[Any, ...]], dtype: Any = np.float64) -> np.ndarray[Any, Any]:
    """Return numbers as an array [rows, columns] with NaN where a value is missing."""
    return np.array(rows, dtype=dtype)


def to_object_array(rows: Sequence[tuple[Any, ...]]) -> np.ndarray[Any, Any]:
    """Return values of mixed types as an array [rows, columns], NaN where one is missing."""
    filled = [[np.nan if value is None else value for value in row] for row in rows]
    return np.array(filled, dtype=object)


def to_column(values: Sequence[Any], column: Column) -> np.ndarray[Any, Any]:
    """Return one column's values as an array [rows].

    Its type is by the schema and not by the values, so it is the same in every batch: float64,
    int64 or bool where nothing can be missing, object (NaN where missing) for strings.
    """
    if column.textual:
        filled = [np.nan if value is None else value for value in values]
        return np.array(filled, dtype=object)
    if column.nullable or column.type == "numeric":
        return np.array(values, dtype=np.float64)
    return np.array(values, dtype=bool if column.type == "boolean" else np.int64)


def to_frame(
    rows: Sequence[tuple[Any, ...]],
    columns: Sequence[Column],
    *,
    categorical: Collection[str] = (),
) -> Any:
    """Return a pandas DataFrame.

    The columns named in `categorical` become pandas Categoricals with the schema's categories.
    """
    import pandas as pd

    table: dict[str, Any] = {}
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        if column.name in categorical:
            table[column.name] = pd.Categorical(list(values), categories=list(column.categories))
        elif column.textual:
            # Without the type pandas would infer its own string type, whose values differ.
            table[column.name] = pd.Series(to_column(values, column), dtype=object)
        else:
            table[column.name] = to_column(values, column)
    return pd.DataFrame(table, copy=False)
