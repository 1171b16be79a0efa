"""Whether a recorded input holds a value in a column: how the calls about one subject are found."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

import msgspec

from onrecord.errors import CallError
from onrecord.serving.arrow_bodies import read_arrow, read_parquet
from onrecord.serving.bounds import Damaged
from onrecord.serving.forms import Kind, kind_of
from onrecord.serving.table_checks import Unread

__all__ = ["Subject", "values_in_json"]

_LIMIT = 1 << 30
"""The most bytes that a recorded table may unpack to here: more than a server would take."""


class Subject:
    """The value of a subject in a column.

    A number is the value that is written so, whether it came as a number or as a string.
    """

    def __init__(self, column: str, value: str) -> None:
        self._column = column
        self._value = value
        self._bytes = value.encode(errors="surrogatepass")
        try:
            self._number: float | None = float(value)
        except ValueError:
            self._number = None

    def is_in(self, body: bytes, content_type: str | None) -> bool:
        """Tell whether any row of a body has the value in the column.

        In a body that cannot be read, as the server refused it, it is sought anywhere.
        """
        try:
            values = self._values(body, kind_of(content_type or "application/json"))
        except (Damaged, CallError, ValueError, TypeError, AttributeError, csv.Error):
            return self._bytes in body
        return any(map(self._is, values))

    def _is(self, value: Any) -> bool:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return bool(value == self._number)
        return bool(value == self._value)

    def _values(self, body: bytes, kind: Kind | None) -> Iterable[Any]:
        if kind in {"arrow", "parquet"}:
            return self._of_arrow(body, kind)
        if kind == "csv":
            rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
            place = next(row for row in rows if row).index(self._column)
            return [row[place] for row in rows if len(row) > place]
        return values_in_json(body, self._column)

    def _of_arrow(self, body: bytes, kind: Kind) -> list[Any]:
        source = (read_arrow if kind == "arrow" else read_parquet)(body, _LIMIT)
        if source.names.count(self._column) != 1:
            raise ValueError("it does not have the column once")
        column = source.read([self._column])[self._column]
        if isinstance(column, Unread):
            raise ValueError("its column has no values that are read")  # noqa: TRY004
        values: list[Any] = column.to_pylist()
        return values


def values_in_json(body: bytes, column: str) -> list[Any]:
    """Return what each row of a JSON body has in a column, None where it has nothing there.

    Raises ValueError, TypeError or AttributeError where it is no body of rows.
    """
    document = msgspec.json.decode(body)
    if "columns" in document:
        found: list[Any] = document["columns"].get(column, [])
        return found
    return [row.get(column) for row in document.get("rows", [document])]
