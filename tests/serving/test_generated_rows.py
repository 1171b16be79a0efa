"""Rows made from a schema: each one validates, together they cover it."""

import json

import numpy as np

from onrecord.serving.generated_rows import compared_range, generated_rows
from onrecord.serving.input_schema import parse_input_schema
from onrecord.serving.validation import Validator

SCHEMA = parse_input_schema(
    b"""{"input_schema": {"columns": [
        {"name": "free", "type": "numeric"},
        {"name": "low", "type": "numeric", "minimum": 5, "nullable": true, "example": 61.5},
        {"name": "high", "type": "numeric", "maximum": -3e37},
        {"name": "wide", "type": "numeric", "minimum": 0, "maximum": 1e9, "example": 12},
        {"name": "count", "type": "integer"},
        {"name": "few", "type": "integer", "minimum": 0.5, "maximum": 2.5},
        {"name": "one", "type": "numeric", "minimum": 3, "maximum": 3},
        {"name": "flag", "type": "boolean", "nullable": true},
        {"name": "kind", "type": "categorical", "categories": ["a", "b"]},
        {"name": "size", "type": "categorical", "categories": [1, 7], "nullable": true},
        {"name": "said", "type": "text"}
    ]}}""",
    "input_schema.json",
)


def test_every_generated_row_validates() -> None:
    validator = Validator(SCHEMA, max_rows=1000)
    rows = generated_rows(SCHEMA)

    body = json.dumps({"rows": [dict(zip(SCHEMA.names, row, strict=True)) for row in rows]})

    assert validator.validate(body.encode()).values == rows


def test_generated_rows_cover_what_a_schema_allows() -> None:
    rows = generated_rows(SCHEMA)
    table = dict(zip(SCHEMA.names, zip(*rows, strict=True), strict=True))

    assert rows == generated_rows(SCHEMA)
    assert rows[0] == SCHEMA.probe_row()
    assert set(table["kind"]) == {"a", "b"}
    assert set(table["size"]) == {1, 7, None}
    assert set(table["few"]) == {1, 2}
    for column in SCHEMA.columns[:4]:
        numbers = [value for value in table[column.name] if value is not None]
        assert (min(numbers), max(numbers)) == compared_range(column)
    for name in ("low", "flag", "size"):
        assert 0.05 < table[name].count(None) / len(rows) < 0.2
    wide = np.array(table["wide"])
    for low, high in ((0, 1), (5, 25), (1e8, 9e8)):
        assert ((low < wide) & (wide < high)).any()
