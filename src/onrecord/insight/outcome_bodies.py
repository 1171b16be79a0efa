"""The rows of a body or a file of outcomes: what each is about, what came about, and when.

A row that cannot be read is there with its faults, so that all bad rows are told at once.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from onrecord.errors import Fault, InvalidInput, MalformedJson
from onrecord.record.ids import ID_PATTERN, is_id
from onrecord.serving.arrow_bodies import read_arrow, read_parquet
from onrecord.serving.bounds import Damaged
from onrecord.serving.csv_body import header_of
from onrecord.serving.faults import Faults, pointer_to
from onrecord.serving.forms import Kind
from onrecord.serving.outputs import class_key
from onrecord.serving.strict_json import read_strictly, shown
from onrecord.serving.table_checks import Unread, kind_of_type

__all__ = ["Fields", "Form", "OutcomeRow", "keys_of", "read_outcomes"]

Form: TypeAlias = Kind | Literal["lines"]
"""In which form outcomes come; `lines` are JSON Lines, an object on each."""

_NAMES: Mapping[Form, str] = {"csv": "CSV", "arrow": "Arrow stream", "parquet": "Parquet file"}
_LEAST_LIMIT = 64 << 20
_BODY_TIMES = 4
_ROW_BYTES = 64
_TIME = "a time such as 2026-11-25T09:00:00Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True)
class Fields:
    """What the fields of a row are called; `keyed` is whether `about` is an entity's key.

    Else it is a prediction id. Only `observed_at` may be left out. Where `exact` is false, other
    columns of a table are passed by.
    """

    about: str = "prediction_id"
    outcome: str = "outcome"
    observed_at: str = "observed_at"
    keyed: bool = False
    exact: bool = True

    @property
    def names(self) -> tuple[str, str, str]:
        """All three."""
        return self.about, self.outcome, self.observed_at


@dataclass(slots=True)
class OutcomeRow:
    """One row: `about` a prediction id or an entity's key, as text; what came about, and when.

    `as_text` is whether a number may be written as text, as tables have it. What is not there, or
    cannot be read, is None and among the `faults`.
    """

    number: int
    fields: Fields
    as_text: bool = False
    about: str | None = None
    outcome: Any = None
    observed_at: datetime | None = None
    faults: list[Fault] = field(default_factory=list)

    def refuse(
        self, name: str, code: str, detail: str, expected: str | None = None, *received: Any
    ) -> None:
        """Note what is wrong with a field."""
        came = shown(received[0]) if received else None
        pointer = pointer_to(f"/rows/{self.number}", name)
        self.faults.append(Fault(pointer, code, detail, expected, came))

    def take(self, about: Any, outcome: Any, observed_at: Any) -> None:
        """Read the values of its fields, which come as they stand in the body."""
        self.about = self._about(about)
        self.outcome = outcome
        if outcome is None:
            self.refuse(self.fields.outcome, "missing", "It is missing.", "what really happened")
        self.observed_at = self._time(observed_at)

    def _about(self, value: Any) -> str | None:
        name = self.fields.about
        if value is None or value == "":
            self.refuse(name, "missing", "It is missing.", self._expected)
        elif self.fields.keyed:
            if isinstance(value, (str, int, float)):
                return class_key(value)
            self.refuse(name, "wrong_type", "It is no value of a column.", self._expected, value)
        elif not isinstance(value, str) or not is_id(value):
            self.refuse(name, "wrong_form", "It is no prediction id.", self._expected, value)
        return value if isinstance(value, str) else None

    @property
    def _expected(self) -> str:
        if self.fields.keyed:
            return "the value that the entity has in that column of the model's input"
        return f"a prediction id, {ID_PATTERN}"

    def _time(self, value: Any) -> datetime | None:
        if value is None or value == "":
            return None
        try:
            if isinstance(value, timedelta):
                return _EPOCH + value
            if isinstance(value, str):
                found = datetime.fromisoformat(value)
                return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        came = str(value) if isinstance(value, timedelta) else value
        self.refuse(self.fields.observed_at, "wrong_form", "It is no time.", _TIME, came)
        return None


def read_outcomes(body: bytes, form: Form, fields: Fields, *, max_rows: int) -> list[OutcomeRow]:
    """Return the rows of a body.

    JSON is a list of objects, or {"rows": [...]}; a table has a column for each field. Raises
    InvalidInput, MalformedJson or BodyTooLarge where there are no rows to speak of: where it is of
    another form than it claims, lacks a column, or has more than `max_rows` rows.
    """
    if form in {"json", "lines"}:
        return _of_json(body, form, fields, max_rows)
    try:
        if form == "csv":
            return _of_csv(body, fields, max_rows)
        return _of_arrow(body, form, fields, max_rows)
    except Damaged as error:
        detail = f"It is no {_NAMES[form]} that is read here: {error}."
        faults = (Fault("", "malformed", detail),)
        raise InvalidInput("The body cannot be read.", faults=faults) from None


def keys_of(rows: Sequence[OutcomeRow]) -> set[str]:
    """Return the keys of the entities that rows are about."""
    return {row.about for row in rows if row.about is not None}


def _of_json(body: bytes, form: Form, fields: Fields, max_rows: int) -> list[OutcomeRow]:
    entries: Any
    if form == "lines":
        entries = [line for line in body.split(b"\n") if line.strip()]
    else:
        entries = read_strictly(body)
        if isinstance(entries, dict) and entries.keys() == {"rows"}:
            entries = entries["rows"]
    if not isinstance(entries, list):
        detail = 'Send a list of objects, {"rows": [...]}, or JSON Lines.'
        fault = Fault("", "wrong_shape", detail, "a list", shown(entries))
        raise InvalidInput("The body is no list of outcomes.", faults=(fault,))
    _check_count(len(entries), max_rows)
    return [
        _of_object(_line(entry) if form == "lines" else entry, OutcomeRow(number, fields))
        for number, entry in enumerate(entries)
    ]


def _line(line: bytes) -> Any:
    """Return the value on a line, or why there is none."""
    try:
        return read_strictly(line)
    except MalformedJson as error:
        return error


def _of_object(entry: Any, row: OutcomeRow) -> OutcomeRow:
    place = f"/rows/{row.number}"
    if isinstance(entry, MalformedJson):
        row.faults.append(Fault(place, "malformed", entry.detail, "an object on each line"))
    elif not isinstance(entry, dict):
        detail = "A row must be an object."
        row.faults.append(Fault(place, "wrong_shape", detail, "an object", shown(entry)))
    else:
        names = row.fields.names
        row.take(*(entry.get(name) for name in names))
        for key in entry.keys() - set(names):
            row.refuse(key, "unknown_field", f"A row has only {_listed(names)}.", None, entry[key])
    return row


def _of_csv(body: bytes, fields: Fields, max_rows: int) -> list[OutcomeRow]:
    header = header_of(body)
    _check_names(header, fields)
    places = [header.index(name) if name in header else None for name in fields.names]
    rows = []
    for number, cells in enumerate(_cells(body)):
        if number == max_rows:
            _check_count(number + 1, max_rows)
        row = OutcomeRow(number, fields, as_text=True)
        rows.append(row)
        if len(cells) == len(header):
            row.take(*(None if it is None or not cells[it] else cells[it] for it in places))
        else:
            detail = f"It has {len(cells)} cells, but the header has {len(header)}."
            expected = f"{len(header)} cells"
            row.faults.append(Fault(f"/rows/{number}", "wrong_shape", detail, expected))
    return rows


def _cells(body: bytes) -> Iterator[list[str]]:
    """Yield the cells of each row after the header; empty lines are none."""
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        rows = filter(None, lines)
        next(rows)
        yield from rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise Damaged(str(error)) from error


def _of_arrow(body: bytes, form: Form, fields: Fields, max_rows: int) -> list[OutcomeRow]:
    limit = max(_LEAST_LIMIT, _BODY_TIMES * len(body), _ROW_BYTES * max_rows)
    source = (read_arrow if form == "arrow" else read_parquet)(body, limit, _kind_of)
    _check_names(source.names, fields)
    _check_count(source.rows, max_rows)
    arrays = source.read([name for name in fields.names if name in source.names])
    _check_types(arrays, fields)
    columns = [
        _values(arrays[name]) if name in arrays else [None] * source.rows for name in fields.names
    ]
    rows = [OutcomeRow(number, fields, as_text=True) for number in range(source.rows)]
    for row, values in zip(rows, zip(*columns, strict=True), strict=True):
        row.take(*values)
    return rows


def _kind_of(data_type: Any) -> str | None:
    from pyarrow import types

    return "time" if types.is_timestamp(data_type) else kind_of_type(data_type)


def _check_types(arrays: Mapping[str, Any], fields: Fields) -> None:
    faults = Faults()
    for name, array in arrays.items():
        unread = isinstance(array, Unread)
        kind = None if unread else _kind_of(array.type)
        is_time = name == fields.observed_at
        if kind is None or (kind not in {"time", "string", "null"} if is_time else kind == "time"):
            type_name = array.type_name if unread else str(array.type)
            detail = f"The column is of a type that is not read there: {type_name}."
            expected = "times or strings" if is_time else "numbers, booleans or strings"
            faults.add(pointer_to("", name), "wrong_type", detail, expected)
    faults.raise_if_any()


def _values(array: Any) -> list[Any]:
    """Return an Arrow array's values; a time is how long after 1970 it is."""
    from pyarrow import int64, types

    if types.is_timestamp(array.type):
        # Not as pyarrow has times: it raises on those that Python's own do not reach.
        unit = _PER_SECOND[array.type.unit]
        numbers = array.cast(int64()).to_pylist()
        return [None if it is None else _after_1970(it, unit) for it in numbers]
    if types.is_dictionary(array.type):
        # A long string that stands in every row is there once.
        words = array.dictionary.to_pylist()
        return [None if it is None else words[it] for it in array.indices.to_pylist()]
    values: list[Any] = array.to_pylist()
    return values


def _after_1970(number: int, per_second: int) -> timedelta:
    try:
        return timedelta(microseconds=number * 10**6 // per_second)
    except OverflowError:
        return timedelta.max


def _check_names(given: Sequence[str], fields: Fields) -> None:
    faults = Faults()
    counts = Counter(given)
    for name in fields.names:
        pointer = pointer_to("", name)
        if counts[name] > 1:
            detail = f"The column is there {counts[name]} times."
            faults.add(pointer, "duplicate_column", detail, "one column")
        elif not counts[name] and name != fields.observed_at:
            faults.add(pointer, "missing", "The column is missing.", _listed(fields.names))
    for name in counts if fields.exact else ():
        if name not in fields.names:
            detail = f"Outcomes have no such column, only {_listed(fields.names)}."
            faults.add(pointer_to("", name), "unknown_field", detail, None)
    faults.raise_if_any()


def _check_count(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        detail = f"It has more than {max_rows} rows."
        fault = Fault("/rows", "too_many_rows", detail, f"at most {max_rows} rows")
        raise InvalidInput("So many outcomes are not taken at once.", faults=(fault,))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
