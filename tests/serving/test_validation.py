"""Bodies: which become rows, and what is said of the others."""

import contextlib
import json
import math
import re
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onrecord.errors import CallError, InvalidInput, MalformedJson
from onrecord.serving.input_schema import InputSchema, parse_input_schema
from onrecord.serving.json_schema import row_json_schema
from onrecord.serving.rows_together import RowsTogether
from onrecord.serving.validation import Rows, Validator


def schema_of(*columns: dict[str, Any]) -> InputSchema:
    raw = json.dumps({"input_schema": {"columns": columns}}).encode()
    return parse_input_schema(raw, "input_schema.json")


def validator(*columns: dict[str, Any]) -> Validator:
    return Validator(schema_of(*columns), max_rows=3)


def refusal(judge: Validator, body: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        judge.validate(body)
    return caught.value


NUMERIC = {"name": "x", "type": "numeric"}
BOUNDED = {"name": "x", "type": "numeric", "minimum": 0, "maximum": 120}
BOOLEAN = {"name": "x", "type": "boolean"}
INTEGER = {"name": "x", "type": "integer"}
WORDS = {"name": "x", "type": "categorical", "categories": ["a", "b"]}
NUMBERS = {"name": "x", "type": "categorical", "categories": [0, 1, 7]}
TEXT = {"name": "x", "type": "text"}
KINDS = [NUMERIC, BOUNDED, BOOLEAN, INTEGER, WORDS, NUMBERS, TEXT]

ACCEPTED = [
    (NUMERIC, "1", 1.0),
    (NUMERIC, "-0.5", -0.5),
    (NUMERIC, "1e3", 1000.0),
    (NUMERIC, "3.4028235e38", 3.4028235e38),
    (BOUNDED, "0", 0.0),
    (BOUNDED, "120", 120.0),
    (BOOLEAN, "true", True),
    (BOOLEAN, "false", False),
    (BOOLEAN, "0", False),
    (BOOLEAN, "1", True),
    (BOOLEAN, "1.0", True),
    (BOOLEAN, "-0.0", False),
    (INTEGER, "42", 42),
    (INTEGER, "42.0", 42),
    (INTEGER, "9007199254740992", 2**53),
    (WORDS, '"b"', "b"),
    (WORDS, '"\\u0062"', "b"),
    (NUMBERS, "7", 7),
    (NUMBERS, "7.0", 7),
    (TEXT, '""', ""),
    (TEXT, '"say \\"hi\\""', 'say "hi"'),
    (TEXT, '"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
    ({**NUMERIC, "nullable": True}, "null", None),
    ({**WORDS, "nullable": True}, "null", None),
    ({**TEXT, "nullable": True}, "null", None),
]


@pytest.mark.parametrize(("column", "literal", "value"), ACCEPTED)
def test_a_fitting_value_becomes_the_columns_python_value(
    column: dict[str, Any], literal: str, value: Any
) -> None:
    rows = validator(column).validate(f'{{"x": {literal}}}'.encode())

    assert rows == Rows([(value,)], many=False)
    assert type(rows.values[0][0]) is type(value)


REFUSED = [
    (NUMERIC, '"42"', "wrong_type"),
    (NUMERIC, "true", "wrong_type"),
    (NUMERIC, "[1]", "wrong_type"),
    (NUMERIC, "{}", "wrong_type"),
    (NUMERIC, "null", "null_not_allowed"),
    (NUMERIC, "3.5e+38", "out_of_range"),
    (NUMERIC, "-3.5e+38", "out_of_range"),
    (NUMERIC, "1" * 400, "not_finite"),
    (NUMERIC, "1" * 5000, "not_finite"),
    (NUMERIC, "1" * 100, "out_of_range"),
    (BOUNDED, "-1", "out_of_range"),
    (BOUNDED, "120.5", "out_of_range"),
    (BOOLEAN, '"false"', "wrong_type"),
    (BOOLEAN, "2", "wrong_type"),
    (BOOLEAN, "0.5", "wrong_type"),
    (BOOLEAN, "null", "null_not_allowed"),
    (INTEGER, "3.5", "not_integral"),
    (INTEGER, "9007199254740993", "out_of_range"),
    (INTEGER, "1e+300", "out_of_range"),
    (INTEGER, '"3"', "wrong_type"),
    (INTEGER, "false", "wrong_type"),
    (WORDS, '"c"', "unknown_category"),
    (WORDS, '"A"', "unknown_category"),
    (WORDS, '"\\ud800"', "unknown_category"),
    (WORDS, "1", "wrong_type"),
    (WORDS, "[]", "wrong_type"),
    (NUMBERS, "2", "unknown_category"),
    (NUMBERS, "7.5", "not_integral"),
    (NUMBERS, "true", "wrong_type"),
    (NUMBERS, '"7"', "wrong_type"),
    (TEXT, "1", "wrong_type"),
    (TEXT, '"\\ud800"', "invalid_text"),
    *[(kind, literal, "not_finite") for kind in KINDS for literal in ("NaN", "-Infinity", "1e999")],
]


@pytest.mark.parametrize(("column", "literal", "code"), REFUSED)
def test_a_value_that_does_not_fit_is_named_with_its_code(
    column: dict[str, Any], literal: str, code: str
) -> None:
    error = refusal(validator(column), f'{{"x": {literal}}}'.encode())

    (fault,) = error.faults
    assert (fault.pointer, fault.code) == ("/x", code)
    assert fault.expected
    assert fault.received is not None
    assert len(fault.received) <= 80
    assert fault.received.encode()[:70] == literal.encode()[:70]


def test_every_bad_field_of_every_row_is_named_at_once() -> None:
    judge = validator({"name": "age", "type": "numeric"}, {"name": "sex", "type": "boolean"})
    rows = [{"age": 1, "sex": True}, {"Age": 1, "sex": "no"}, [1]]

    error = refusal(judge, json.dumps({"rows": rows}).encode())

    assert [(fault.pointer, fault.code) for fault in error.faults] == [
        ("/rows/1/age", "missing"),
        ("/rows/1/sex", "wrong_type"),
        ("/rows/1/Age", "unknown_field"),
        ("/rows/2", "wrong_shape"),
    ]
    assert 'Did you mean "age"?' in error.faults[2].detail
    assert error.detail == "4 fields do not fit."


def test_many_rows_keep_their_order() -> None:
    assert validator(NUMERIC).validate(b'{"rows": [{"x": 2}, {"x": 1}]}') == Rows(
        [(2.0,), (1.0,)], many=True
    )


def test_columns_come_in_the_schemas_order_whatever_the_bodys_is() -> None:
    judge = validator({"name": "b", "type": "numeric"}, {"name": "a", "type": "text"})

    assert judge.validate(b'{"a": "s", "b": 1}').values == [(1.0, "s")]


def test_a_pointer_is_escaped() -> None:
    error = refusal(validator({"name": "a/b~c", "type": "numeric"}), b'{"a/b~c": null}')

    assert error.faults[0].pointer == "/a~1b~0c"


def test_a_missing_nullable_column_is_asked_for_as_null() -> None:
    error = refusal(validator({**NUMERIC, "nullable": True}), b"{}")

    assert error.faults[0].code == "missing"
    assert "send null if it is unknown" in error.faults[0].detail


def test_a_long_list_of_categories_is_cut() -> None:
    column = {"name": "x", "type": "categorical", "categories": list(range(100, 125))}

    expected = refusal(validator(column), b'{"x": 1}').faults[0].expected or ""

    assert expected.startswith("one of 100, 101, ")
    assert expected.endswith(", 119 and 5 more")


SHAPES = [
    (b"[]", "", "wrong_shape"),
    (b"1", "", "wrong_shape"),
    (b'"x"', "", "wrong_shape"),
    (b"null", "", "wrong_shape"),
    (b"NaN", "", "wrong_shape"),
    (b'{"rows": []}', "/rows", "wrong_shape"),
    (b'{"rows": {}}', "/rows", "wrong_shape"),
    (b'{"rows": null}', "/rows", "wrong_shape"),
    (b'{"rows": [1]}', "/rows/0", "wrong_shape"),
    (b'{"rows": [{"x": 1}, {"x": 1}, {"x": 1}, {"x": 1}]}', "/rows", "too_many_rows"),
    (b'{"rows": [{"x": 1}], "x": 1}', "/x", "unknown_field"),
    (b'{"x": 1, "\\ud800": 1}', "/\\ud800", "unknown_field"),
]


@pytest.mark.parametrize(("body", "pointer", "code"), SHAPES)
def test_a_body_of_the_wrong_shape_is_invalid_input(body: bytes, pointer: str, code: str) -> None:
    (fault,) = refusal(validator(NUMERIC), body).faults

    assert (fault.pointer, fault.code) == (pointer, code)


MALFORMED = [
    (b"", "empty"),
    (b" \n", "empty"),
    (b"{", "line 1, column 2"),
    (b'{"x": 1', "not JSON"),
    (b'{"x": 1} 2', "Extra data"),
    (b'{"x": 01}', "not JSON"),
    (b"{'x': 1}", "not JSON"),
    (b'\xef\xbb\xbf{"x": 1}', "BOM"),
    (b'{"x": "\xff"}', "not UTF-8"),
    ('{"x": 1}'.encode("utf-16"), "not UTF-8"),
    (b"[" * 100_000, "too deep"),
    (b'{"x": ' * 100_000, "too deep"),
    (b'{"x": 1, "x": 1}', 'key "x"'),
    (b'{"x": 1, "\\u0078": 2}', 'key "x"'),
    (b'{"rows": [{"x": 1, "x": 2}]}', 'key "x"'),
    (b'{"rows": [{"x": 1}], "rows": [{"x": 1}]}', 'key "rows"'),
]


@pytest.mark.parametrize(("body", "said"), MALFORMED)
def test_a_body_that_is_no_unambiguous_json_is_malformed(body: bytes, said: str) -> None:
    with pytest.raises(MalformedJson, match=re.escape(said)):
        validator(NUMERIC).validate(body)


def test_a_key_that_stands_twice_is_found_beside_strings_and_nulls() -> None:
    judge = validator({**TEXT, "nullable": True}, {"name": "y", "type": "text"})

    assert judge.validate(b'{"x": null, "y": "\\""}').values == [(None, '"')]
    with pytest.raises(MalformedJson):
        judge.validate(b'{"x": "1", "x": null, "y": "2"}')


def test_the_list_of_faults_has_an_end() -> None:
    body = json.dumps({f"{'k' * 200}{i}": None for i in range(1500)}).encode()

    error = refusal(validator(NUMERIC), body)

    assert len(error.faults) == 1000
    assert error.detail.endswith("Only the first 1000 are listed; 501 more are not.")
    assert max(len(fault.pointer) for fault in error.faults) < 110


ALL = [
    {"name": "number", "type": "numeric", "minimum": -5, "maximum": 7.5},
    {"name": "free", "type": "numeric", "nullable": True},
    {"name": "flag", "type": "boolean"},
    {"name": "maybe", "type": "boolean", "nullable": True},
    {"name": "count", "type": "integer", "minimum": 0},
    {"name": "wide", "type": "integer", "nullable": True},
    {"name": "word", "type": "categorical", "categories": ["a", "b", ""], "nullable": True},
    {"name": "code", "type": "categorical", "categories": [1, 2]},
    {"name": "note", "type": "text"},
]
SCHEMA = schema_of(*ALL)
JUDGE = Validator(SCHEMA, max_rows=2)
STANDARD = jsonschema_rs.validator_for(row_json_schema(SCHEMA))

numbers = st.one_of(
    st.integers(-10, 10),
    st.integers(-(2**60), 2**60),
    st.integers(-10, 10).map(float),
    st.floats(-10, 10),
    st.floats(-3e38, 3e38),
)
anything = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.sampled_from(["a", "b", "", "c"]),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
)
fitting = {
    "number": st.floats(-5, 7.5) | st.integers(-5, 7),
    "free": st.none() | numbers,
    "flag": st.sampled_from([True, False, 0, 1, 0.0, 1.0]),
    "maybe": st.sampled_from([True, False, None, 1]),
    "count": st.integers(0, 2**53),
    "wide": st.none() | st.integers(-100, 100) | st.integers(-9, 9).map(float),
    "word": st.sampled_from(["a", "b", "", None]),
    "code": st.sampled_from([1, 2, 1.0]),
    "note": st.text(),
}


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    row = draw(st.fixed_dictionaries(fitting))
    for name in draw(st.sets(st.sampled_from([*fitting, "other"]), max_size=2)):
        if draw(st.integers(0, 4)):
            row[name] = draw(anything)
        else:
            row.pop(name, None)
    return row


def fast_and_slow(body: bytes) -> tuple[Rows | None, Rows | None]:
    try:
        slow = JUDGE._slow(body)
    except CallError:
        slow = None
    return JUDGE.validate_fast(body), slow


@settings(max_examples=300, deadline=None)
@given(row=rows(), ascii_only=st.booleans())
def test_both_readers_and_the_json_schema_accept_the_same(
    row: dict[str, Any], ascii_only: bool
) -> None:
    body = json.dumps(row, ensure_ascii=ascii_only).encode()

    fast, slow = fast_and_slow(body)

    assert (slow is not None) is STANDARD.is_valid(row)
    if any('"' in value for value in row.values() if isinstance(value, str)):
        # The fast reader takes a quote in a string for a key that may stand twice.
        assert fast is None
    else:
        assert fast == slow
        assert repr(fast) == repr(slow)


TOGETHER = RowsTogether(SCHEMA.columns)


@settings(max_examples=300, deadline=None)
@given(some=st.lists(rows(), min_size=1, max_size=3), ascii_only=st.booleans(), data=st.data())
def test_rows_that_are_read_together_are_those_that_are_read_alone(
    some: list[dict[str, Any]], ascii_only: bool, data: st.DataObject
) -> None:
    bodies = [json.dumps(row, ensure_ascii=ascii_only).encode() for row in some]
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(bodies[0])))
        broken = data.draw(st.binary(max_size=2))
        bodies[0] = bodies[0][:place] + broken + bodies[0][place + 1 :]

    table = TOGETHER.read(bodies)

    if table is not None:
        alone = [fast_and_slow(body)[1] for body in bodies]
        assert all(it is not None and not it.many for it in alone)
        assert repr(table.rows()) == repr([it.values[0] for it in alone if it is not None])


def test_plain_rows_are_read_together() -> None:
    row = dict.fromkeys(("free", "maybe", "wide", "word"))
    row |= {"number": 1, "flag": True, "count": 2, "code": 1, "note": "x"}
    bodies = [json.dumps(row | {"number": i}).encode() for i in (1, 2.5)]

    table = TOGETHER.read(bodies)

    assert table is not None
    assert [it[0] for it in table.rows()] == [1.0, 2.5]


@settings(max_examples=200, deadline=None)
@given(row=rows(), data=st.data())
def test_no_broken_body_gets_past_either_reader(row: dict[str, Any], data: st.DataObject) -> None:
    body = json.dumps({"rows": [row]}).encode()
    place = data.draw(st.integers(0, len(body)))
    broken = body[:place] + data.draw(st.binary(max_size=2)) + body[place + 1 :]

    fast, slow = fast_and_slow(broken)

    assert fast is None or repr(fast) == repr(slow)


@settings(max_examples=200, deadline=None)
@given(body=st.binary() | st.text().map(str.encode))
def test_any_bytes_get_rows_or_a_call_error(body: bytes) -> None:
    with contextlib.suppress(CallError):
        assert JUDGE.validate(body).values


@pytest.mark.parametrize("count", [1, 2])
def test_the_example_row_is_as_many_rows_as_it_stands_for(count: int) -> None:
    found = JUDGE.validate(json.dumps({"rows": [SCHEMA.example_row()] * count}).encode())

    assert len(found.values) == count
    assert all(math.isfinite(value) for value in found.values[0] if isinstance(value, float))
