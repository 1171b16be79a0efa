"""One column's values judged at once: arrays where a row of JSON has one value.

The rules are those of `columns.explain`; a test holds that both accept the same. What is found
here is only which values are bad; why, `explain` says of each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onrecord.serving.columns import Column, Reason, Unfit, explain, make_check
from onrecord.serving.table import array_of

__all__ = [
    "Judged",
    "Unread",
    "judge_arrow",
    "judge_text",
    "judge_unread",
    "judge_values",
    "kind_of_type",
]

_LONG = 300
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NO_NUMBER = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_NO_COLUMN = Reason(
    "wrong_type", "It is of a type that no column takes; send numbers, booleans or strings."
)
_NONE = np.empty(0, dtype=np.int64)
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Unread:
    """A column of a type that no column of a schema takes, so that its values were not read."""

    type_name: str
    rows: int


class Judged:
    """What judging one column found.

    `array` holds the values as `Table` does, anything where one is bad; `bad` [n] are the places of
    the bad values in ascending order; `source` holds the values as they came.
    """

    def __init__(self, array: np.ndarray[Any, Any], bad: np.ndarray[Any, Any], source: Any) -> None:
        self.array = array
        self.bad = bad
        self._source = source

    def why(self, column: Column, place: int) -> tuple[Reason, Any]:
        """Return the reason why the value at a place in `bad` does not fit, and the value."""
        if isinstance(self._source, Unread):
            return _NO_COLUMN, self._source.type_name
        value = self._source[place]
        value = value.as_py() if hasattr(value, "as_py") else value
        reason = explain(column, value)
        if reason is None:
            raise AssertionError(f"column {column.name}: {value!r} was judged bad and is not")
        return reason, value


def judge_unread(column: Column, unread: Unread) -> Judged:
    """Judge a column whose type fits none: every value of it is bad."""
    return Judged(_nothing(column, unread.rows), np.arange(unread.rows), unread)


def judge_values(column: Column, values: Sequence[Any]) -> Judged:
    """Judge a list of JSON values."""
    check = make_check(column)
    good: list[Any] = []
    bad: list[int] = []
    for place, value in enumerate(values):
        try:
            good.append(check(value))
        except Unfit:
            bad.append(place)
            continue
        if column.type == "text" and explain(column, value) is not None:
            bad.append(place)
    array = np.empty(0) if bad else array_of(column, good)
    return Judged(array, np.array(bad, dtype=np.int64), values)


def judge_text(column: Column, cells: Any) -> Judged:
    """Judge the cells of a CSV column: an Arrow array of strings, null where a cell is empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.textual:
        if not column.nullable and (column.type == "text" or "" in column.categories):
            cells = pc.fill_null(cells, "")
        return judge_arrow(column, cells)
    try:
        if column.type == "numeric":
            return judge_arrow(column, pc.cast(cells, pa.float64()))
        if not pc.any(pc.match_substring(cells, "x", ignore_case=True)).as_py():
            return judge_arrow(column, pc.cast(cells, pa.int64()))
    except pa.ArrowInvalid:
        pass  # a cell that is not as plain: each is read alone
    return judge_values(column, [_literal(cell, column) for cell in cells.to_pylist()])


def _literal(cell: str | None, column: Column) -> Any:
    """Return a cell as the JSON value that it stands for; one that is none stays a string."""
    if cell is None:
        return None
    if column.type == "boolean" and cell.lower() in _WORDS:
        return _WORDS[cell.lower()]
    if _NO_NUMBER.fullmatch(cell):
        number = float(cell)
        return None if column.nullable and math.isnan(number) else number
    if len(cell) > _LONG or not _NUMBER.fullmatch(cell):
        return cell
    return int(cell) if cell.lstrip("+-").isdigit() else float(cell)


def judge_arrow(column: Column, data: Any) -> Judged:
    """Judge an Arrow array of a type that `kind_of_type` knows.

    NaN counts as missing where the column is nullable.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(data.type):
        return _judge_dictionary(column, data)
    kind = kind_of_type(data.type)
    if kind == "float" and column.type == "numeric" and not data.null_count:
        # Nearly every table of numbers: two passes tell that all fit, and NaN passes neither.
        numbers = data.to_numpy(zero_copy_only=False)
        if (
            len(numbers)
            and column.low <= float(numbers.min()) <= float(numbers.max()) <= column.high
        ):
            return Judged(numbers.astype(np.float64, copy=False), _NONE, data)
    missing = np.asarray(data.is_null())
    if kind == "null":
        fits, array = np.zeros(len(data), dtype=bool), _nothing(column, len(data))
    elif kind == "string":
        fits, array = _strings(column, data)
    else:
        if kind == "float":
            numbers = data.cast(pa.float64()).fill_null(math.nan).to_numpy(zero_copy_only=False)
            if column.nullable:
                missing = np.isnan(numbers)
        else:
            whole = data.fill_null(False if kind == "boolean" else 0)
            numbers = whole.to_numpy(zero_copy_only=False)
        fits, array = _numbers(column, numbers, kind, missing)
    if missing.all():  # of a column without any value the type says nothing
        array = _nothing(column, len(data))
    good = np.where(missing, column.nullable, fits)
    return Judged(array, np.flatnonzero(~good), data)


def kind_of_type(data_type: Any) -> str | None:
    """Return what the values of an Arrow type are to a column, None where no column takes them."""
    from pyarrow import types

    for kind, tests in {
        "null": (types.is_null,),
        "boolean": (types.is_boolean,),
        "integer": (types.is_integer,),
        "float": (types.is_floating,),
        "string": (types.is_string, types.is_large_string, types.is_string_view),
    }.items():
        if any(test(data_type) for test in tests):
            return kind
    if types.is_dictionary(data_type):
        found = kind_of_type(data_type.value_type)
        return found if found in {"integer", "float", "string"} else None
    return None


def _nothing(column: Column, count: int) -> np.ndarray[Any, Any]:
    """Return `count` missing values, as far as the column can hold them."""
    if column.textual:
        return np.full(count, None, dtype=object)
    return np.full(count, np.nan)


def _strings(column: Column, data: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if not column.textual:
        return np.zeros(len(data), dtype=bool), np.empty(0)
    if column.type == "text":
        strings = data.to_numpy(zero_copy_only=False)
        return np.ones(len(data), dtype=bool), np.asarray(strings, dtype=object)
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(
        data.cast(pa.large_string()), pa.array(column.categories, pa.large_string())
    )
    places = found.fill_null(len(column.categories)).to_numpy(zero_copy_only=False)
    array = np.array([*column.categories, None], dtype=object)[places]
    return places < len(column.categories), array


def _numbers(
    column: Column, numbers: np.ndarray[Any, Any], kind: str | None, missing: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return which numbers fit a column (missing ones do not matter), and all as it holds them."""
    if column.textual or (kind == "boolean" and column.type != "boolean"):
        fits = np.zeros(len(numbers), dtype=bool)
    elif column.type == "boolean":
        fits = (numbers == 0) | (numbers == 1)
    elif column.type == "categorical":
        fits = np.isin(numbers, np.array(column.categories, dtype=np.int64))
    else:
        fits = _in_range(column, numbers)
        if kind == "float" and column.type == "integer":
            fits &= np.trunc(numbers) == numbers
    if not np.where(missing, column.nullable, fits).all():
        return fits, np.empty(0)
    if column.nullable or column.type == "numeric":
        array = numbers.astype(np.float64, copy=False)
        return fits, np.where(missing, np.nan, array) if missing.any() else array
    return fits, numbers.astype(np.bool_ if column.type == "boolean" else np.int64, copy=False)


def _in_range(column: Column, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if numbers.dtype.kind == "f":
        found: np.ndarray[Any, Any] = (numbers >= column.low) & (numbers <= column.high)
        return found
    # Whole numbers are compared as such, since a float may not tell two large ones apart.
    bounds = np.iinfo(numbers.dtype)
    low, high = math.ceil(column.low), math.floor(column.high)
    if low > bounds.max or high < bounds.min:
        return np.zeros(len(numbers), dtype=bool)
    low, high = max(low, int(bounds.min)), min(high, int(bounds.max))
    within: np.ndarray[Any, Any] = (numbers >= low) & (numbers <= high)
    return within


def _judge_dictionary(column: Column, data: Any) -> Judged:
    """Judge only the words that are used: a dictionary may be long, and its words stand often."""
    import pyarrow as pa

    absent = np.asarray(data.indices.is_null())
    places = data.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    used, inverse = np.unique(places[~absent], return_inverse=True)
    words = judge_arrow(column, data.dictionary.take(pa.array(used)))
    bad = np.full(len(data), not column.nullable)
    bad[~absent] = np.isin(np.arange(len(used)), words.bad)[inverse]
    if bad.any() or not len(used):
        return Judged(_nothing(column, len(data)), np.flatnonzero(bad), data)
    # Nothing is absent where the array is of a type that cannot hold that.
    array = np.full(len(data), None if column.textual else 0, dtype=words.array.dtype)
    if absent.any() and not column.textual:
        array[absent] = np.nan
    array[~absent] = words.array[inverse]
    return Judged(array, np.flatnonzero(bad), data)
