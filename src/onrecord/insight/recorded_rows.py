"""The rows of recorded calls, and what a model answers to them, many calls at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from onrecord.errors import CallError
from onrecord.insight.comparison import is_finite
from onrecord.insight.recorded_calls import (
    RecordedAnswer,
    RecordedCall,
    answers_of,
    answers_together,
    row_id,
)
from onrecord.serving.artifact import Model
from onrecord.serving.bounds import Damaged
from onrecord.serving.columns import Column
from onrecord.serving.faults import discreet
from onrecord.serving.forms import kind_of
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs
from onrecord.serving.rows_together import RowsTogether
from onrecord.serving.runtimes import Row, Runtime, predict_table
from onrecord.serving.table import Table, array_of
from onrecord.serving.validation import Rows, Validator

__all__ = [
    "MAX_ROWS",
    "NO_ANSWER",
    "Answered",
    "ReadRows",
    "RowsReader",
    "answer_calls",
    "finite_answers",
    "joined",
]

MAX_ROWS = 1 << 40
"""How many rows a recorded call may have: what was answered once is not refused for its size."""

NO_ANSWER = "the model has no answer to these values"

_FEW_CALLS = 16


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model says to a call: its answer as JSON, or why there is none in `error`.

    `duration_us` is in microseconds and of one row, among those that were answered together.
    """

    output: bytes | None
    error: str | None
    duration_us: float


def read_rows(validator: Validator, call: RecordedCall) -> Rows:
    """Return the rows of a call whose input is there; raises CallError or Damaged."""
    body = call.input or b""
    kind = kind_of(call.content_type or "application/json")
    if kind in {"csv", "arrow", "parquet"}:
        return Rows(validator.read_table(body, kind).rows(), many=True)
    return validator.validate(body)


def why(error: CallError | Damaged) -> str:
    """Return in one line why a call has no rows by a schema."""
    faults = error.faults if isinstance(error, CallError) else ()
    return f"{faults[0].pointer}: {faults[0].detail}" if faults else str(error)


class ReadRows:
    """The rows of some calls, in the order of the record, and what they were answered.

    `table` is None where there is no row; `places` has the call and the place in it of each.
    `refused` are calls with answers whose input does not fit: a prediction id, why, and how many
    rows were answered. `left_out` says why of each other call that has no rows here.
    """

    def __init__(self) -> None:
        self.table: Table | None = None
        self.places: list[tuple[RecordedCall, int]] = []
        self.answers: list[RecordedAnswer] = []
        self.refused: list[tuple[str, str, int]] = []
        self.left_out: list[str] = []

    def take(self, places: Sequence[int]) -> ReadRows:
        """Return some of the rows, in that order."""
        some = ReadRows()
        if self.table is not None and len(places):
            some.table = self.table.take(np.array(places))
        some.places = [self.places[i] for i in places]
        some.answers = [self.answers[i] for i in places]
        return some


class RowsReader:
    """Reads the rows of recorded calls by a schema; used by one thread."""

    def __init__(self, schema: InputSchema) -> None:
        self._columns = schema.columns
        self._validator = Validator(schema, max_rows=MAX_ROWS)
        self._together = RowsTogether(schema.columns)

    def read(self, calls: Sequence[RecordedCall]) -> ReadRows:
        """Return the rows of some calls; those of one row of JSON are read together."""
        plain = [i for i, call in enumerate(calls) if call.is_plain]
        answers = dict(zip(plain, answers_together([calls[i] for i in plain]), strict=True))
        found = ReadRows()
        tables: list[Table] = []
        order: list[int] = []
        done: set[int] = set()
        for places, table in self._read_together(
            calls, [i for i in plain if answers[i].predictions is None]
        ):
            tables.append(table)
            order += places
            done.update(places)
            found.places += [(calls[i], 0) for i in places]
            found.answers += [answers[i] for i in places]
        for i, call in enumerate(calls):
            table_alone = None if i in done else self._read_alone(call, found)
            if table_alone is not None:
                tables.append(table_alone)
                order += [i] * len(table_alone)
        return _in_order(found, tables, order)

    def _read_together(
        self, calls: Sequence[RecordedCall], places: list[int]
    ) -> Iterator[tuple[list[int], Table]]:
        """Yield those of some calls of one row that can be read together.

        Where one of them cannot, their halves are tried, and no half that is small.
        """
        if not places:
            return
        table = self._together.read([calls[i].input or b"" for i in places])
        if table is not None:
            yield places, table
        elif len(places) > _FEW_CALLS:
            middle = len(places) // 2
            yield from self._read_together(calls, places[:middle])
            yield from self._read_together(calls, places[middle:])

    def _read_alone(self, call: RecordedCall, found: ReadRows) -> Table | None:
        """Return the rows of a call and note their places, or why there are none."""
        if call.input is None or call.output is None:
            found.left_out.append("erased")
            return None
        answers = answers_of(call)
        if answers is None:
            found.left_out.append("answered in another form than JSON")
            return None
        try:
            rows = read_rows(self._validator, call).values
        except (CallError, Damaged) as error:
            found.refused.append((row_id(call, 0), why(error), len(answers)))
            return None
        if len(rows) != len(answers):
            found.left_out.append("answers that do not match their rows")
            return None
        found.places += [(call, place) for place in range(len(rows))]
        found.answers += answers
        return table_of(self._columns, rows)


def _in_order(found: ReadRows, tables: list[Table], order: list[int]) -> ReadRows:
    """Return what was found, its rows in the order of their calls, whose numbers `order` has."""
    if not tables:
        return found
    found.table = joined(tables)
    if len(tables) == 1:
        return found
    sorted_rows = found.take(np.argsort(order, kind="stable").tolist())
    sorted_rows.refused, sorted_rows.left_out = found.refused, found.left_out
    return sorted_rows


def joined(tables: Sequence[Table]) -> Table:
    """Return the rows of tables of the same columns, of which there is at least one, as one."""
    if len(tables) == 1:
        return tables[0]
    arrays = [np.concatenate(its) for its in zip(*(it.arrays for it in tables), strict=True)]
    return Table(tables[0].columns, arrays)


def table_of(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """Return rows, of which there is at least one, a column at a time."""
    pairs = zip(columns, zip(*rows, strict=True), strict=True)
    return Table(columns, [array_of(column, values) for column, values in pairs])


def finite_answers(runtime: Runtime, table: Table) -> Outputs | None:
    """Return a model's answers, None where it does not answer all rows with finite numbers."""
    try:
        outputs = predict_table(runtime, table)
    except Exception:  # noqa: BLE001 - whatever a model raises, it has no answer
        return None
    finite = len(outputs) == len(table) and all(map(is_finite, outputs.targets))
    return outputs if finite else None


def answer_calls(
    model: Model, validator: Validator, calls: Sequence[RecordedCall]
) -> list[Answered]:
    """Return what a model says to each of some calls, whose inputs are there.

    All rows go through it together; where one has no answer each call is tried alone. `validator`
    is one of the model's schema.
    """
    read = [_read(validator, call) for call in calls]
    good = [rows for rows in read if isinstance(rows, Rows)]
    answers = iter(_answer_all(model, good))
    return [next(answers) if isinstance(rows, Rows) else Answered(None, rows, 0.0) for rows in read]


def _read(validator: Validator, call: RecordedCall) -> Rows | str:
    """Return the rows of a call, or why it has none, in words that hold nothing of the input."""
    try:
        return read_rows(validator, call)
    except CallError as error:
        return why(discreet(error))
    except Damaged:
        return "it cannot be read"


def _answer_all(model: Model, calls: Sequence[Rows]) -> list[Answered]:
    if not calls:
        return []
    table = table_of(model.schema.columns, [row for rows in calls for row in rows.values])
    began = time.perf_counter()
    outputs = finite_answers(model.runtime, table)
    duration_us = 1e6 * (time.perf_counter() - began) / len(table)
    if outputs is None:
        if len(calls) == 1:
            return [Answered(None, NO_ANSWER, duration_us)]
        return [_answer_all(model, [rows])[0] for rows in calls]
    parts = outputs.in_lists().split([len(rows.values) for rows in calls])
    return [
        Answered(_encoded(part, many=rows.many), None, duration_us)
        for part, rows in zip(parts, calls, strict=True)
    ]


def _encoded(outputs: Outputs, *, many: bool) -> bytes:
    answers = [outputs.row(place) for place in range(len(outputs))]
    return msgspec.json.encode({"predictions": answers} if many else answers[0])
