"""The schema file: what loads, and what is said of what does not."""

import json
from typing import Any

import jsonschema_rs
import pytest

from onrecord.errors import ModelDirectoryError
from onrecord.serving.columns import Column
from onrecord.serving.input_schema import InputSchema, parse_input_schema
from onrecord.serving.json_schema import body_json_schema, row_json_schema
from onrecord.serving.validation import Validator

AGE = {"name": "age", "type": "numeric"}


def parse(document: Any) -> InputSchema:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_input_schema(raw, "input_schema.json")


def with_column(**column: Any) -> dict[str, Any]:
    return {"input_schema": {"columns": [AGE, {"name": "x", **column}]}}


def with_extras(**extras: Any) -> dict[str, Any]:
    return {"input_schema": {"columns": [AGE], **extras}}


def test_the_smallest_file_loads_and_keeps_the_order_of_its_columns() -> None:
    schema = parse({"input_schema": {"columns": [AGE, {"name": "sex", "type": "boolean"}]}})

    assert schema.columns == (Column("age", "numeric"), Column("sex", "boolean"))
    assert schema.names == ("age", "sex")
    assert (schema.task, schema.classes, schema.targets) == (None, None, ())
    assert (schema.name, schema.version) == (None, None)


def test_a_byte_order_mark_does_not_matter() -> None:
    assert parse(b"\xef\xbb\xbf" + json.dumps(with_extras()).encode()).names == ("age",)


@pytest.mark.parametrize("beside", [False, True])
def test_what_the_model_answers_may_stand_inside_or_beside(beside: bool) -> None:
    extras = {
        "classes": [["a", "b"], [True, False]],
        "target": ["kind", "well"],
        "task": "classification",
        "name": "risk",
        "version": "3",
    }
    document = {**with_extras(), **extras} if beside else with_extras(**extras)

    schema = parse(document)

    assert schema.classes == (("a", "b"), (True, False))
    assert schema.targets == ("kind", "well")
    assert (schema.task, schema.name, schema.version) == ("classification", "risk", "3")


def test_one_target_and_plain_classes() -> None:
    schema = parse(with_extras(classes=[0, 1], target="ill"))

    assert (schema.classes, schema.targets) == ((0, 1), ("ill",))


COLUMN_FAULTS = [
    ({"type": "float"}, "columns[1].type"),
    ({"type": ["numeric"]}, "columns[1].type"),
    ({}, "columns[1].type"),
    ({"type": "numeric", "colour": 1}, "columns[1].colour"),
    ({"type": "numeric", "nullable": 1}, "columns[1].nullable"),
    ({"type": "numeric", "minimum": 2, "maximum": 1}, "columns[1].minimum"),
    ({"type": "numeric", "minimum": "1"}, "columns[1].minimum"),
    ({"type": "numeric", "minimum": True}, "columns[1].minimum"),
    ({"type": "numeric", "maximum": 1e39}, "columns[1].maximum"),
    ({"type": "integer", "maximum": 2**54}, "columns[1].maximum"),
    ({"type": "integer", "minimum": 0.2, "maximum": 0.8}, "columns[1].minimum"),
    ({"type": "text", "maximum": 1}, "columns[1].maximum"),
    ({"type": "numeric", "example": "1"}, "columns[1].example"),
    ({"type": "numeric", "example": None}, "columns[1].example"),
    ({"type": "numeric", "minimum": 2, "example": 1}, "columns[1].example"),
    ({"type": "categorical"}, "columns[1].categories"),
    ({"type": "categorical", "categories": []}, "columns[1].categories"),
    ({"type": "categorical", "categories": "ab"}, "columns[1].categories"),
    ({"type": "categorical", "categories": ["a", "a"]}, "columns[1].categories"),
    ({"type": "categorical", "categories": ["a", 1]}, "columns[1].categories"),
    ({"type": "categorical", "categories": [True]}, "columns[1].categories"),
    ({"type": "categorical", "categories": [[1]]}, "columns[1].categories"),
    ({"type": "categorical", "categories": [2**60]}, "columns[1].categories"),
    ({"type": "categorical", "categories": ["a"], "example": "b"}, "columns[1].example"),
    ({"type": "text", "categories": ["a"]}, "columns[1].categories"),
    ({"type": "text", "description": 1}, "columns[1].description"),
    ({"type": "text", "unit": " "}, "columns[1].unit"),
    ({"type": "text", "name": ""}, "columns[1].name"),
    ({"type": "text", "name": None}, "columns[1].name"),
    ({"type": "text", "name": "age"}, "columns[1].name"),
    ({"type": "text", "name": "rows"}, "columns[1].name"),
    ({"type": "text", "name": "columns"}, "columns[1].name"),
]


@pytest.mark.parametrize(("column", "field"), COLUMN_FAULTS)
def test_a_bad_column_is_named(column: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelDirectoryError) as caught:
        parse(with_column(**column))

    assert (caught.value.file, caught.value.field) == ("input_schema.json", field)
    assert caught.value.problem
    assert caught.value.remedy


FILE_FAULTS: list[tuple[Any, str | None]] = [
    ([], None),
    ({}, "input_schema"),
    ({"input_schema": 1}, "input_schema"),
    ({"input_schema": {}}, "columns"),
    ({"input_schema": {"columns": []}}, "columns"),
    ({"input_schema": {"columns": {}}}, "columns"),
    ({"input_schema": {"columns": ["age"]}}, "columns[0]"),
    ({"input_schema": {"columns": [{"type": "text"}]}}, "columns[0].name"),
    ({**with_extras(), "model": 1}, "model"),
    (with_extras(model=1), "input_schema.model"),
    ({**with_extras(name="a"), "name": "a"}, "name"),
    (with_extras(task="ranking"), "task"),
    (with_extras(task=None), "task"),
    (with_extras(name=1), "name"),
    (with_extras(version=2), "version"),
    (with_extras(target=1), "target"),
    (with_extras(target=[]), "target"),
    (with_extras(target=["a", "a"]), "target"),
    (with_extras(classes=[]), "classes"),
    (with_extras(classes="ab"), "classes"),
    (with_extras(classes=["a", 1.5]), "classes[1]"),
    (with_extras(classes=["a", "a"]), "classes"),
    (with_extras(classes=["a"], task="regression"), "classes"),
    (with_extras(classes=[["a"], "b"]), "classes[1]"),
    (with_extras(classes=[["a"], []]), "classes[1]"),
    (with_extras(classes=[["a"]], target=["p", "q"]), "classes"),
    (b"", None),
    (b"{", None),
    (b"\xff", None),
    (b"[" * 100_000, None),
    (b'{"a": 1, "a": 2}', None),
    (b'{"a": NaN}', None),
    (b'{"a": "\\ud800"}', None),
    (b"1" * 5000, None),
]


@pytest.mark.parametrize(("document", "field"), FILE_FAULTS)
def test_a_bad_file_is_refused_with_the_field(document: Any, field: str | None) -> None:
    with pytest.raises(ModelDirectoryError) as caught:
        parse(document)

    assert caught.value.field == field


def test_true_and_1_are_two_classes() -> None:
    assert parse(with_extras(classes=[True, 1])).classes == (True, 1)


@pytest.mark.parametrize(
    ("column", "numeric"),
    [
        ({"type": "boolean"}, True),
        ({"type": "categorical", "categories": [1, 2]}, True),
        ({"type": "categorical", "categories": ["a"]}, False),
        ({"type": "text"}, False),
    ],
)
def test_a_schema_is_numeric_only_without_strings(column: dict[str, Any], numeric: bool) -> None:
    assert parse(with_column(**column)).numeric_only is numeric


EXAMPLES = [
    ({"type": "numeric"}, 0.0),
    ({"type": "numeric", "minimum": 5}, 5.0),
    ({"type": "numeric", "maximum": -5}, -5.0),
    ({"type": "numeric", "minimum": 10, "maximum": 20}, 15.0),
    ({"type": "numeric", "minimum": 5e-324, "maximum": 5e-324}, 5e-324),
    ({"type": "numeric", "minimum": -3.4028235e38, "maximum": 3.4028235e38}, 0.0),
    ({"type": "integer", "minimum": 1.5, "maximum": 2.5}, 2),
    ({"type": "integer", "minimum": 7}, 7),
    ({"type": "boolean"}, True),
    ({"type": "boolean", "example": 0}, False),
    ({"type": "categorical", "categories": ["a", "b"]}, "a"),
    ({"type": "categorical", "categories": [3, 4], "example": 4.0}, 4),
    ({"type": "text"}, "text"),
    ({"type": "text", "nullable": True, "example": None}, "text"),
]


@pytest.mark.parametrize(("column", "value"), EXAMPLES)
def test_the_example_row_validates_as_the_probe_row(column: dict[str, Any], value: Any) -> None:
    schema = parse(with_column(**column))
    body = json.dumps(schema.example_row()).encode()

    rows = Validator(schema, max_rows=1).validate(body)

    assert rows.values == [schema.probe_row()] == [(0.0, value)]
    assert type(schema.probe_row()[1]) is type(value)


def test_the_json_schema_says_all_that_the_file_says() -> None:
    columns = [
        {"name": "age", "type": "numeric", "minimum": 0, "unit": "years", "example": 4},
        {"name": "n", "type": "integer", "nullable": True, "description": "How many"},
        {"name": "k", "type": "categorical", "categories": ["a"], "nullable": True},
        {"name": "b", "type": "boolean"},
    ]
    row = row_json_schema(parse({"input_schema": {"columns": columns, "name": "risk"}}))

    assert row == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Input of risk",
        "type": "object",
        "properties": {
            "age": {
                "type": "number",
                "minimum": 0,
                "maximum": 3.4028235e38,
                "x-unit": "years",
                "examples": [4],
            },
            "n": {
                "type": ["integer", "null"],
                "minimum": -(2**53),
                "maximum": 2**53,
                "description": "How many",
            },
            "k": {"type": ["string", "null"], "enum": ["a", None]},
            "b": {"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}]},
        },
        "required": ["age", "n", "k", "b"],
        "additionalProperties": False,
    }


def test_the_json_schema_of_a_body_takes_one_row_or_many() -> None:
    judge = jsonschema_rs.validator_for(body_json_schema(parse(with_extras()), 2))
    row = {"age": 1}

    assert judge.is_valid(row)
    assert judge.is_valid({"rows": [row, row]})
    assert judge.is_valid({"columns": {"age": [1, 2]}})
    many = ([], {"rows": []}, {"rows": [row] * 3}, {"rows": [row], "age": 1}, {"rows": [{}]})
    columns = ({"columns": {}}, {"columns": {"age": []}}, {"columns": {"age": [1] * 3}})
    for wrong in (*many, *columns, {"columns": {"age": [1]}, "rows": [row]}):
        assert not judge.is_valid(wrong)
