"""A body of many rows becomes a table for the model, or an error that names every bad field.

The forms differ only in how their columns are read; each column is then judged at once, and only
the bad values are looked at one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onrecord.errors import Fault, InvalidInput
from onrecord.serving.arrow_bodies import read_arrow, read_parquet
from onrecord.serving.bounds import Damaged
from onrecord.serving.columns import Column
from onrecord.serving.csv_body import Ragged, header_of, read_csv
from onrecord.serving.faults import MAX_FAULTS, Faults, pointer_to
from onrecord.serving.forms import Kind
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.strict_json import shown
from onrecord.serving.table import Table
from onrecord.serving.table_checks import (
    Judged,
    Unread,
    judge_arrow,
    judge_text,
    judge_unread,
    judge_values,
)

__all__ = ["COLUMNS", "TableReader"]

COLUMNS = "columns"
"""The key of a JSON body that holds its rows a column at a time."""

_NAMES: Mapping[Kind, str] = {"csv": "CSV", "arrow": "Arrow stream", "parquet": "Parquet file"}
_LEAST_LIMIT = 64 * 1024 * 1024
_CELL_BYTES = 16
_BODY_TIMES = 4


class TableReader:
    """Reads bodies of many rows by one schema; safe to use from several threads.

    `max_rows` is the most rows that one body may hold. What a body unpacks to is bounded as well.
    """

    def __init__(self, schema: InputSchema, *, max_rows: int) -> None:
        self._columns = schema.columns
        self._names = schema.names
        self._max_rows = max_rows

    def read(self, body: bytes, kind: Kind) -> Table:
        """Return the rows in a CSV, Arrow or Parquet body.

        Raises InvalidInput with every bad field as a fault, and BodyTooLarge where the rows would
        take too much memory.
        """
        try:
            if kind == "csv":
                return self._csv(body)
            return self._arrow(body, kind)
        except Damaged as error:
            detail = f"It is not a {_NAMES[kind]} that is read here: {error}."
            faults = (Fault("", "malformed", detail),)
            raise InvalidInput("The body cannot be read.", faults=faults) from None

    def from_json(self, document: Mapping[str, Any]) -> Table:
        """Return the rows of {"columns": {name: [values]}}; raises InvalidInput."""
        faults = Faults()
        for key, value in document.items():
            if key != COLUMNS:
                detail = f'Nothing may stand beside "{COLUMNS}".'
                faults.add(pointer_to("", key), "unknown_field", detail, None, shown(value))
        columns: Any = document[COLUMNS]
        if not isinstance(columns, dict):
            detail = "It must be an object with a list of values for each column."
            faults.add(f"/{COLUMNS}", "wrong_shape", detail, "an object", shown(columns))
            faults.raise_if_any()
        self._check_names(list(columns), faults)
        lists: dict[str, list[Any]] = {}
        for name in self._names:
            values = columns.get(name, [])
            if not isinstance(values, list):
                detail = "It must be a list of values, one a row."
                faults.add(pointer_to("", name), "wrong_shape", detail, "a list", shown(values))
            elif name in columns:
                lists[name] = values
        lengths = {name: len(values) for name, values in lists.items()}
        rows = Counter(lengths.values()).most_common(1)[0][0] if lengths else 0
        for name, length in lengths.items():
            if length != rows:
                detail = f"It has {length} values, but most columns have {rows}."
                faults.add(pointer_to("", name), "wrong_shape", detail, f"{rows} values")
        if lists:
            self._check_count(rows, faults)
        even = all(length == rows for length in lengths.values())
        return self._judge(lists if even and rows <= self._max_rows else {}, judge_values, faults)

    def _csv(self, body: bytes) -> Table:
        names = header_of(body)
        faults = Faults()
        wanted = self._check_names(names, faults)
        if len(names) > len(self._names) + MAX_FAULTS:
            faults.raise_if_any()
        try:
            table = read_csv(body, names, wanted, self._max_rows)
        except Ragged as error:
            error.add_to(faults, len(names))
            faults.raise_if_any()
            raise
        self._check_count(table.num_rows, faults)
        if not 0 < table.num_rows <= self._max_rows:
            faults.raise_if_any()
        cells = {name: _one(table.column(name)) for name in wanted}
        return self._judge(cells, judge_text, faults)

    def _arrow(self, body: bytes, kind: Kind) -> Table:
        limit = max(
            _LEAST_LIMIT,
            _CELL_BYTES * self._max_rows * len(self._columns),
            _BODY_TIMES * len(body),
        )
        source = (read_arrow if kind == "arrow" else read_parquet)(body, limit)
        faults = Faults()
        wanted = self._check_names(source.names, faults)
        self._check_count(source.rows, faults)
        if not 0 < source.rows <= self._max_rows:
            faults.raise_if_any()
        return self._judge(source.read(wanted), _judge_any, faults)

    def _check_names(self, given: Sequence[str], faults: Faults) -> list[str]:
        """Note each name that is missing, unknown or there twice; return those that are read."""
        counts = Counter(given)
        for column in self._columns:
            if column.name not in counts:
                hint = "; send it with nulls if it is unknown" if column.nullable else ""
                pointer = pointer_to("", column.name)
                faults.add(pointer, "missing", f"The column is missing{hint}.", column.expected)
        for name, count in counts.items():
            if name not in self._names:
                faults.add_unknown(name, None, "", self._names, counts)
            elif count > 1:
                detail = f"The column is there {count} times."
                faults.add(pointer_to("", name), "duplicate_column", detail, "one column")
        return [name for name in self._names if counts[name] == 1]

    def _check_count(self, rows: int, faults: Faults) -> None:
        limit = f"1 to {self._max_rows} rows"
        if not rows:
            faults.add("/rows", "wrong_shape", "It has no row.", limit, "0 rows")
        elif rows > self._max_rows:
            detail = f"It has {rows} rows; one call takes at most {self._max_rows}."
            faults.add("/rows", "too_many_rows", detail, limit, f"{rows} rows")

    def _judge(
        self,
        values: Mapping[str, Any],
        judge: Callable[[Column, Any], Judged],
        faults: Faults,
    ) -> Table:
        judged = {
            place: judge(column, values[column.name])
            for place, column in enumerate(self._columns)
            if column.name in values
        }
        self._add_values(judged, faults)
        faults.raise_if_any()
        return Table(self._columns, [judged[place].array for place in range(len(self._columns))])

    def _add_values(self, judged: Mapping[int, Judged], faults: Faults) -> None:
        """Add the bad values row by row, as many as can be listed; count the others."""
        total = sum(len(found.bad) for found in judged.values())
        if not total:
            return
        rows = np.concatenate([found.bad[:MAX_FAULTS] for found in judged.values()])
        places = np.concatenate(
            [np.full(min(len(found.bad), MAX_FAULTS), place) for place, found in judged.items()]
        )
        order = np.lexsort((places, rows))[: max(0, MAX_FAULTS - len(faults.found))]
        for row, place in zip(rows[order].tolist(), places[order].tolist(), strict=True):
            column = self._columns[place]
            reason, value = judged[place].why(column, row)
            pointer = pointer_to(f"/rows/{row}", column.name)
            faults.add(pointer, reason.code, reason.detail, column.expected, shown(value))
        faults.more += total - len(order)


def _judge_any(column: Column, data: Any) -> Judged:
    if isinstance(data, Unread):
        return judge_unread(column, data)
    return judge_arrow(column, data)


def _one(chunked: Any) -> Any:
    return chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
