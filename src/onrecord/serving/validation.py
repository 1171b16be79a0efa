"""A body becomes rows for the model, or an error that names every bad field at once.

Nearly every body is good, so there are two readers. The fast one only knows yes and "look again";
the slow one has the last word and says what is wrong.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from onrecord.errors import Fault, InvalidInput
from onrecord.serving.columns import Column, Unfit, Value, explain, make_check
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.strict_json import read_strictly, shown

__all__ = ["MAX_FAULTS", "Rows", "Validator"]

MAX_FAULTS = 1000
"""The most faults that one error lists."""

_SUGGESTIONS = 20
"""Unknown fields per body for which a near name is searched; the search takes a while."""

_KEY_SHOWN = 100
_ROWS = "rows"


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
        self._max_rows = max_rows
        self._decode = msgspec.json.Decoder().decode

    def validate(self, body: bytes) -> Rows:
        """Return the rows in `body`: one as a JSON object, or {"rows": [{...}, ...]}.

        Raises MalformedJson where the body is not unambiguous JSON, and InvalidInput, with every
        bad field as a fault, where it does not fit the schema.
        """
        rows = self._fast(body)
        return self._slow(body) if rows is None else rows

    def _fast(self, body: bytes) -> Rows | None:
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
                if not 0 < len(rows) <= self._max_rows:
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
        document = read_strictly(body)
        faults = _Faults()
        rows: list[Any] = []
        many = False
        if not isinstance(document, dict):
            faults.add(
                "",
                "wrong_shape",
                'The body must be one row as a JSON object, or {"rows": [...]}.',
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

    def _rows(self, document: dict[str, Any], faults: _Faults) -> list[Any]:
        for key, value in document.items():
            if key != _ROWS:
                faults.add(
                    _pointer("", key),
                    "unknown_field",
                    'Nothing may stand beside "rows".',
                    None,
                    shown(value),
                )
        rows = document[_ROWS]
        pointer = f"/{_ROWS}"
        limit = f"a list of 1 to {self._max_rows} rows"
        if not isinstance(rows, list):
            faults.add(pointer, "wrong_shape", "It must be a list of rows.", limit, shown(rows))
        elif not rows:
            faults.add(pointer, "wrong_shape", "It has no row.", limit, "[]")
        elif len(rows) > self._max_rows:
            faults.add(
                pointer,
                "too_many_rows",
                f"It has {len(rows)} rows; one call takes at most {self._max_rows}.",
                limit,
                f"{len(rows)} rows",
            )
        else:
            return rows
        return []

    def _judge(self, row: Any, place: str, faults: _Faults) -> None:
        if not isinstance(row, dict):
            faults.add(place, "wrong_shape", "A row must be an object.", "an object", shown(row))
            return
        for column in self._columns:
            if column.name in row:
                _judge_value(column, row[column.name], place, faults)
            else:
                hint = "; send null if it is unknown" if column.nullable else ""
                faults.add(
                    _pointer(place, column.name),
                    "missing",
                    f"It is missing{hint}.",
                    column.expected,
                )
        for key in row:
            if key not in self._known:
                self._unknown(key, row, place, faults)

    def _unknown(self, key: str, row: dict[str, Any], place: str, faults: _Faults) -> None:
        if faults.full:
            faults.more += 1
            return
        hint = ""
        if faults.suggestions < _SUGGESTIONS and len(key) <= _KEY_SHOWN:
            faults.suggestions += 1
            if near := _nearest(key, [name for name in self._names if name not in row]):
                hint = f" Did you mean {shown(near)}?"
        faults.add(
            _pointer(place, key),
            "unknown_field",
            f"The model has no such column.{hint}",
            None,
            shown(row[key]),
        )


@dataclass(slots=True)
class _Faults:
    """The faults found so far; beyond the most that are listed, only their number."""

    found: list[Fault] = field(default_factory=list)
    more: int = 0
    suggestions: int = 0

    @property
    def full(self) -> bool:
        return len(self.found) >= MAX_FAULTS

    def add(
        self,
        pointer: str,
        code: str,
        detail: str,
        expected: str | None,
        received: str | None = None,
    ) -> None:
        if self.full:
            self.more += 1
        else:
            self.found.append(Fault(pointer, code, detail, expected, received))

    def raise_if_any(self) -> None:
        if not self.found:
            return
        count = len(self.found) + self.more
        detail = "1 field does not fit." if count == 1 else f"{count} fields do not fit."
        if self.more:
            detail += f" Only the first {MAX_FAULTS} are listed; {self.more} more are not."
        raise InvalidInput(detail, faults=tuple(self.found))


def _judge_value(column: Column, value: Any, place: str, faults: _Faults) -> None:
    reason = explain(column, value)
    if reason is None:
        return
    if faults.full:
        faults.more += 1
        return
    faults.add(
        _pointer(place, column.name), reason.code, reason.detail, column.expected, shown(value)
    )


def _pointer(place: str, key: str) -> str:
    if len(key) > _KEY_SHOWN:
        key = key[:_KEY_SHOWN] + "…"
    key = key.encode(errors="backslashreplace").decode()
    return f"{place}/{key.replace('~', '~0').replace('/', '~1')}"


def _nearest(key: str, names: list[str]) -> str | None:
    for name in names:
        if name.casefold() == key.casefold():
            return name
    near = difflib.get_close_matches(key, names, n=1)
    return near[0] if near else None
