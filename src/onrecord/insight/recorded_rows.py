"""The rows of recorded calls, and what a model answers to them, many calls at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from onrecord.errors import CallError
from onrecord.insight.comparison import is_finite
from onrecord.insight.recorded_calls import RecordedCall
from onrecord.serving.artifact import Model
from onrecord.serving.bounds import Damaged
from onrecord.serving.columns import Column
from onrecord.serving.faults import discreet
from onrecord.serving.forms import kind_of
from onrecord.serving.outputs import Outputs
from onrecord.serving.runtimes import Row, Runtime, predict_table
from onrecord.serving.table import Table, array_of
from onrecord.serving.validation import Rows, Validator

__all__ = [
    "MAX_ROWS",
    "NO_ANSWER",
    "Answered",
    "answer_calls",
    "finite_answers",
    "read_rows",
    "table_of",
    "why",
]

MAX_ROWS = 1 << 40
"""How many rows a recorded call may have: what was answered once is not refused for its size."""

NO_ANSWER = "the model has no answer to these values"


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
