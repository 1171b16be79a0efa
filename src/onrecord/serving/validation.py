"""A body becomes rows for the model, or an error that names every bad field at once.

Nearly every body is good, so there are two readers. The fast one only knows yes and "look again";
the slow one has the last word and says what is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from onrecord.serving.columns import Column, Unfit, Value, explain, make_check
from onrecord.serving.faults import MAX_FAULTS, Faults, pointer_to
from onrecord.serving.forms import Kind
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.strict_json import read_strictly, shown
from onrecord.serving.table import Table
from onrecord.serving.tables import COLUMNS, TableReader

__all__ = ["MAX_FAULTS", "Rows", "Validator"]

_ROWS = "rows"
_STARTS_WITH_COLUMNS = re.compile(rb'\s*\{\s*"columns"\s*:')


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one body: Python values in column order; `many` tells which form it had."""

    values: list[tuple[Value, ...]]
    many: bool


class Validator:
    """Judges bodies by one schema; safe to use from several threads.

    `max_rows` is the most rows that one body may hold.
    """

    def __init__(self, schema: InputSchema, *, max_rows: int) -> None:
        self._columns = schema.columns
        self._names = schema.names
        self._known = frozenset(schema.names)
        self._checks = [(column.name, make_check(column)) for column in schema.columns]
        self._texts = any(column.textual for column in schema.columns)
        self.max_rows = max_rows
        self._tables = TableReader(schema, max_rows=max_rows)
        self._decode = msgspec.json.Decoder().decode

    def validate(self, body: bytes) -> Rows:
        """Return the rows in a JSON body.

        It holds one row as an object, {"rows": [{...}, ...]}, or {"columns": {name: [...], ...}}.
        Raises MalformedJson where the body is not unambiguous JSON, and InvalidInput, with every
        bad field as a fault, where it does not fit the schema.
        """
        rows = self.validate_fast(body)
        return self._slow(body) if rows is None else rows

    def read_table(self, body: bytes, kind: Kind) -> Table:
        """Return the rows in a CSV, Arrow or Parquet body; raises as `TableReader.read` does."""
        return self._tables.read(body, kind)

    def validate_fast(self, body: bytes) -> Rows | None:
        """Return what `validate` would, or None where only that can tell."""
        try:
            document = self._decode(body)
            if type(document) is not dict:
                return None
            many = _ROWS in document
            if not many:
                values = [self._convert(document)]
            else:
                rows = document[_ROWS]
                if len(document) != 1 or type(rows) is not list:
                    return None
                if not 0 < len(rows) <= self.max_rows:
                    return None
                values = [self._convert(row) for row in rows]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, Unfit):
            return None
        # Each key and each string has two quotes. More of them means that a key stands twice, or
        # that a string has a quote in it: the slow reader tells which.
        strings = len(values) * len(self._checks) + many
        if self._texts:
            strings += sum([type(value) is str for row in values for value in row])
        return Rows(values, many) if body.count(b'"') == 2 * strings else None

    def _convert(self, row: Any) -> tuple[Value, ...]:
        if type(row) is not dict or len(row) != len(self._checks):
            raise Unfit
        return tuple([check(row[name]) for name, check in self._checks])

    def _slow(self, body: bytes) -> Rows:
        document = self._unambiguous(body)
        if isinstance(document, dict) and COLUMNS in document:
            return Rows(self._tables.from_json(document).rows(), many=True)
        faults = Faults()
        rows: list[Any] = []
        many = False
        if not isinstance(document, dict):
            faults.add(
                "",
                "wrong_shape",
                'The body must be one row as a JSON object, {"rows": [...]} or {"columns": {...}}.',
                "an object",
                shown(document),
            )
        elif _ROWS in document:
            many = True
            rows = self._rows(document, faults)
            for place, row in enumerate(rows):
                self._judge(row, f"/{_ROWS}/{place}", faults)
        else:
            rows = [document]
            self._judge(document, "", faults)
        faults.raise_if_any()
        return Rows([self._convert(row) for row in rows], many)

    def _unambiguous(self, body: bytes) -> Any:
        """Return the value that a body holds; columns of plain values are read fast."""
        if _STARTS_WITH_COLUMNS.match(body):
            try:
                document = self._decode(body)
                columns = document[COLUMNS].values()
                # As in `validate_fast`: no key may stand twice.
                strings = 1 + len(columns)
                strings += sum([type(value) is str for values in columns for value in values])
            except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, TypeError):
                return read_strictly(body)
            if len(document) == 1 and body.count(b'"') == 2 * strings:
                return document
        return read_strictly(body)

    def _rows(self, document: dict[str, Any], faults: Faults) -> list[Any]:
        for key, value in document.items():
            if key != _ROWS:
                faults.add(
                    pointer_to("", key),
                    "unknown_field",
                    'Nothing may stand beside "rows".',
                    None,
                    shown(value),
                )
        rows = document[_ROWS]
        pointer = f"/{_ROWS}"
        limit = f"a list of 1 to {self.max_rows} rows"
        if not isinstance(rows, list):
            faults.add(pointer, "wrong_shape", "It must be a list of rows.", limit, shown(rows))
        elif not rows:
            faults.add(pointer, "wrong_shape", "It has no row.", limit, "[]")
        elif len(rows) > self.max_rows:
            faults.add(
                pointer,
                "too_many_rows",
                f"It has {len(rows)} rows; one call takes at most {self.max_rows}.",
                limit,
                f"{len(rows)} rows",
            )
        else:
            return rows
        return []

    def _judge(self, row: Any, place: str, faults: Faults) -> None:
        if not isinstance(row, dict):
            faults.add(place, "wrong_shape", "A row must be an object.", "an object", shown(row))
            return
        for column in self._columns:
            if column.name in row:
                _judge_value(column, row[column.name], place, faults)
            else:
                hint = "; send null if it is unknown" if column.nullable else ""
                faults.add(
                    pointer_to(place, column.name),
                    "missing",
                    f"It is missing{hint}.",
                    column.expected,
                )
        for key in row:
            if key not in self._known:
                received = None if faults.full else shown(row[key])
                faults.add_unknown(key, received, place, self._names, row)


def _judge_value(column: Column, value: Any, place: str, faults: Faults) -> None:
    reason = explain(column, value)
    if reason is None:
        return
    if faults.full:
        faults.more += 1
        return
    faults.add(
        pointer_to(place, column.name), reason.code, reason.detail, column.expected, shown(value)
    )
