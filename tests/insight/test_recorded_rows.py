"""Rows of recorded calls, read together where they are plain: none is lost, and all in order."""

import json
from collections.abc import Sequence
from typing import Any

from onrecord.insight.recorded_calls import RecordedCall
from onrecord.insight.recorded_rows import ReadRows, RowsReader
from onrecord.record.ids import new_request_id
from onrecord.serving.input_schema import parse_input_schema

COLUMNS = [
    {"name": "age", "type": "numeric", "nullable": True},
    {"name": "ward", "type": "categorical", "categories": ["A", "B"]},
]
SCHEMA = parse_input_schema(
    json.dumps({"input_schema": {"columns": COLUMNS}}).encode(), "input_schema.json"
)


def call(body: Any, answer: Any, **more: Any) -> RecordedCall:
    values = {
        "seq": 1,
        "id": new_request_id(),
        "model_version_id": 1,
        "content_type": None,
        "input": body if body is None or isinstance(body, bytes) else json.dumps(body).encode(),
        "output": json.dumps(answer).encode(),
        "output_content_type": None,
        "duration_us": 1,
    }
    return RecordedCall(**values | more)


def single(age: float | None, ward: str = "A") -> RecordedCall:
    return call({"age": age, "ward": ward}, {"prediction": age})


def read(calls: Sequence[RecordedCall]) -> ReadRows:
    return RowsReader(SCHEMA).read(calls)


def ages(found: ReadRows) -> list[Any]:
    return [] if found.table is None else [row[0] for row in found.table]


def test_a_mixed_batch_is_read_in_the_order_of_its_calls() -> None:
    many = call(
        {"rows": [{"age": 2, "ward": "B"}, {"age": 3, "ward": "A"}]},
        {"predictions": [{"prediction": 2.0}, {"prediction": 3.0}]},
    )
    csv = call(b"ward,age\nA,5\n", {"predictions": [{"prediction": 5.0}]}, content_type="text/csv")
    calls = [single(1), many, single(4), csv, single(6)]

    found = read(calls)

    assert ages(found) == [it.prediction for it in found.answers] == [1, 2, 3, 4, 5, 6]
    assert [(calls.index(it), place) for it, place in found.places] == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
        (4, 0),
    ]


def test_one_call_that_does_not_fit_takes_no_other_with_it() -> None:
    calls = [single(i) for i in range(100)]
    calls[37] = single(37, "C")
    calls[90] = call({"age": 90, "ward": "A"}, {"prediction": 90}, input=None)

    found = read(calls)

    assert ages(found) == [i for i in range(100) if i not in {37, 90}]
    ((prediction, why, rows),) = found.refused
    assert (prediction, rows) == (calls[37].id, 1)
    assert why.startswith("/ward")
    assert found.left_out == ["erased"]


def test_calls_without_rows_say_why() -> None:
    found = read(
        [
            call({"age": 1, "ward": "A"}, {}, output_content_type="text/csv"),
            call({"age": 1, "ward": "A"}, {"predictions": []}),
            single(None),
        ]
    )

    assert ages(found) == [None]
    assert found.left_out == [
        "answered in another form than JSON",
        "answers that do not match their rows",
    ]
    assert read([]).table is None


def test_some_rows_can_be_taken() -> None:
    found = read([single(i) for i in range(5)])

    assert (
        ages(found.take([3, 1])) == [it.prediction for it in found.take([3, 1]).answers] == [3, 1]
    )
    assert found.take([]).table is None
