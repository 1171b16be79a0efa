"""Many bodies of one row each, read as one table: what is on record in their thousands.

Only the easy case is read here, columns at a time; whoever is told None reads each body as
`Validator` does, which has the last word.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from onrecord.serving.columns import Column, is_text
from onrecord.serving.table import Table, array_of

__all__ = ["RowsTogether"]

_TYPES: dict[str, Any] = {"numeric": float, "integer": int, "boolean": bool, "text": str}


class RowsTogether:
    """Reads rows of some columns; safe to use from several threads."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        fields = [(f"c{place}", _type(column)) for place, column in enumerate(columns)]
        row = msgspec.defstruct(
            "Row",
            fields,
            rename={f"c{place}": column.name for place, column in enumerate(columns)},
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
        self._read = [operator.attrgetter(name) for name, _ in fields]

    def read(self, bodies: Sequence[bytes]) -> Table | None:
        """Return the row of each body, as `Validator.validate` reads it; None where it may not.

        There must be at least one body.
        """
        together = b"[" + b",".join(bodies) + b"]"
        try:
            rows: list[Any] = self._decode(together)
            if len(rows) != len(bodies):
                return None
            values = [list(map(read, rows)) for read in self._read]
            strings = len(rows) * len(self._columns)
            arrays = []
            for column, its in zip(self._columns, values, strict=True):
                array = array_of(column, its)
                if not _fits(column, its, array):
                    return None
                if column.textual:
                    strings += len(its) - its.count(None)
                arrays.append(array)
        except (msgspec.MsgspecError, UnicodeError, OverflowError):
            return None
        # Each key and each string has two quotes; more mean a key that stands twice, or a quote.
        if together.count(b'"') != 2 * strings:
            return None
        return Table(self._columns, arrays)


def _type(column: Column) -> Any:
    found = _TYPES.get(column.type, str if column.textual else int)
    return found | None if column.nullable else found


def _fits(column: Column, values: list[Any], array: np.ndarray[Any, Any]) -> bool:
    if column.type == "text":
        return all(value is None or is_text(value) for value in values)
    if column.type == "categorical":
        return set(values) - {None} <= set(column.categories)
    if column.type == "boolean":
        return True
    known = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    return not len(known) or bool(column.low <= known.min() and known.max() <= column.high)
