"""Bodies of many rows: every form of the same rows is judged alike, and none is believed."""

import io
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from onrecord.errors import BodyTooLarge, InvalidInput, MalformedJson
from onrecord.serving.forms import Kind
from onrecord.serving.input_schema import InputSchema, parse_input_schema
from onrecord.serving.validation import Validator

Outcome = list[Any] | set[tuple[str, str]]

COLUMNS = [
    {"name": "number", "type": "numeric", "minimum": -5, "maximum": 7.5},
    {"name": "free", "type": "numeric", "nullable": True},
    {"name": "flag", "type": "boolean"},
    {"name": "maybe", "type": "boolean", "nullable": True},
    {"name": "count", "type": "integer", "minimum": 0},
    {"name": "wide", "type": "integer", "nullable": True},
    {"name": "word", "type": "categorical", "categories": ["a", "b", "é"], "nullable": True},
    {"name": "must", "type": "categorical", "categories": ["a", "b"]},
    {"name": "code", "type": "categorical", "categories": [1, 2], "nullable": True},
    {"name": "note", "type": "text"},
    {"name": "hint", "type": "text", "nullable": True},
]


def schema_of(*columns: dict[str, Any]) -> InputSchema:
    raw = json.dumps({"input_schema": {"columns": columns}}).encode()
    return parse_input_schema(raw, "input_schema.json")


SCHEMA = schema_of(*COLUMNS)
JUDGE = Validator(SCHEMA, max_rows=50)


def outcome(read: Callable[[], Any]) -> Outcome:
    """Return the rows that a body holds, or the pointers and codes of its faults."""
    try:
        found = read()
    except InvalidInput as error:
        return {(fault.pointer, fault.code) for fault in error.faults}
    return [repr(row) for row in getattr(found, "values", found)]


def as_rows(columns: dict[str, list[Any]]) -> bytes:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return json.dumps({"rows": rows}).encode()


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return json.dumps(value)


def as_csv(columns: dict[str, list[Any]]) -> bytes:
    lines = [",".join(map(cell, columns))]
    lines += [",".join(map(cell, row)) for row in zip(*columns.values(), strict=True)]
    return ("\n".join(lines) + "\n").encode()


def as_arrow(table: pa.Table, rows: int = 3, **options: Any) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table, max_chunksize=rows)
    return out.getvalue()


def as_parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out, **options)
    return out.getvalue()


KINDS: dict[str, st.SearchStrategy[Any]] = {
    "float": st.sampled_from([0.0, 1.0, -0.0, 2.0, 0.5, -5.0, 7.5, 1e300]) | st.floats(-9, 9),
    "integer": st.integers(-2, 3) | st.integers(-(2**60), 2**60),
    "boolean": st.booleans(),
    "string": st.sampled_from(["a", "b", "é", "c", "", 'q"', "line\nbreak, comma", " a"]),
}
USUAL = {"numeric": ["float", "integer"], "boolean": ["boolean", "integer"], "text": ["string"]}
USUAL |= {"integer": ["integer", "float"], "categorical": ["string", "integer"]}


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Draw columns of one kind of value each, most of them of a kind that fits, and the kinds."""
    count = draw(st.integers(1, 6))
    columns, kinds = {}, {}
    for column in draw(st.permutations(SCHEMA.columns)):
        usual = ["string"] if column.textual else USUAL[column.type]
        kind = draw(st.sampled_from(usual * 6 + list(KINDS)))
        value = KINDS[kind]
        if draw(st.integers(0, 5)):
            fitting = {"numeric": st.integers(0, 5), "boolean": st.sampled_from([0, 1])}
            fitting |= {"integer": st.integers(0, 9), "text": st.text("ab,\n", max_size=4)}
            value = fitting.get(column.type, st.sampled_from(column.categories or [0]))
            kind = "string" if column.textual else "integer"
            if kind == "integer" and draw(st.booleans()):
                kind, value = "float", value.map(float)
        nulls = st.none() if column.nullable or not draw(st.integers(0, 9)) else st.nothing()
        columns[column.name] = draw(st.lists(value | nulls, min_size=count, max_size=count))
        kinds[column.name] = kind
    return columns, kinds


ARROW = {
    "float": [pa.float64()],
    "integer": [pa.int64(), pa.dictionary(pa.int8(), pa.int64())],
    "boolean": [pa.bool_()],
    "string": [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int16(), pa.string()),
        pa.dictionary(pa.uint8(), pa.large_string()),
    ],
}


def as_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(kind):
        return pa.array(values, kind)
    encoded = pa.array(values, kind.value_type).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), encoded.dictionary)


def expressible_as_csv(columns: dict[str, list[Any]], kinds: dict[str, str]) -> bool:
    for column in SCHEMA.columns:
        values = columns[column.name]
        if column.textual and (kinds[column.name] != "string" or column.name == "note"):
            if kinds[column.name] != "string" or None in values:
                return False
        elif not column.textual and kinds[column.name] == "string" and "" in values:
            return False
    return True


@settings(max_examples=300, deadline=None)
@given(drawn=tables(), data=st.data())
def test_the_same_rows_are_judged_alike_in_every_form(
    drawn: tuple[dict[str, list[Any]], dict[str, str]], data: st.DataObject
) -> None:
    columns, kinds = drawn
    types = {name: data.draw(st.sampled_from(ARROW[kind])) for name, kind in kinds.items()}
    table = pa.table({name: as_array(values, types[name]) for name, values in columns.items()})

    expected = outcome(lambda: JUDGE.validate(as_rows(columns)))

    by_columns = json.dumps({"columns": columns}).encode()
    assert outcome(lambda: JUDGE.validate(by_columns)) == expected
    assert outcome(lambda: JUDGE.read_table(as_arrow(table), "arrow")) == expected
    zipped = as_arrow(table, compression=data.draw(st.sampled_from(["lz4", "zstd"])))
    assert outcome(lambda: JUDGE.read_table(zipped, "arrow")) == expected
    packed = as_parquet(table, compression=data.draw(st.sampled_from(["none", "snappy", "zstd"])))
    assert outcome(lambda: JUDGE.read_table(packed, "parquet")) == expected
    if expressible_as_csv(columns, kinds):
        assert outcome(lambda: JUDGE.read_table(as_csv(columns), "csv")) == expected


def judge_of(*columns: dict[str, Any], max_rows: int = 50) -> Validator:
    return Validator(schema_of(*columns), max_rows=max_rows)


def faults_of(judge: Validator, body: bytes, kind: Kind) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        judge.read_table(body, kind)
    return [(fault.pointer, fault.code) for fault in caught.value.faults]


NUMERIC = {"name": "x", "type": "numeric"}
NULLABLE = {**NUMERIC, "nullable": True}
TEXT = {"name": "x", "type": "text"}
WRITERS: dict[Kind, Callable[[pa.Table], bytes]] = {"arrow": as_arrow, "parquet": as_parquet}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("column_type", ["numeric", "integer", "boolean"])
def test_nan_is_missing_only_where_the_column_is_nullable(kind: Kind, column_type: str) -> None:
    body = WRITERS[kind](pa.table({"x": [1.0, float("nan"), None]}))
    column = {"name": "x", "type": column_type}

    found = judge_of({**column, "nullable": True}).read_table(body, kind)

    assert [row[0] for row in found] == [1, None, None]
    assert faults_of(judge_of(column), body, kind) == [
        ("/rows/1/x", "not_finite"),
        ("/rows/2/x", "null_not_allowed"),
    ]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("values", "column", "codes"),
    [
        (pa.array([1, 2**62], pa.uint64()), {"type": "integer"}, ["out_of_range"]),
        (pa.array([1, -1], pa.int8()), {"type": "numeric", "minimum": -1e9}, []),
        (pa.array([1, 200], pa.uint8()), {"type": "integer", "minimum": -5, "maximum": 7}, [1]),
        (pa.array([1.5, 2.0], pa.float32()), {"type": "integer"}, ["not_integral"]),
        (pa.array([float("inf"), 2.0]), {"type": "numeric"}, ["not_finite"]),
        (pa.array([2, 0]), {"type": "boolean"}, ["wrong_type"]),
        (pa.array([[1], [2]]), {"type": "numeric"}, ["wrong_type", "wrong_type"]),
        (pa.array([{"y": 1}, None]), {"type": "text"}, ["wrong_type", "wrong_type"]),
        (pa.array([b"a", b"b"]), {"type": "text"}, ["wrong_type", "wrong_type"]),
        (pa.array([1, 2], pa.timestamp("us")), {"type": "numeric"}, ["wrong_type", "wrong_type"]),
        (pa.array([None, None]), {"type": "text", "nullable": True}, []),
        (pa.array([None, None]), {"type": "integer"}, ["null_not_allowed", "null_not_allowed"]),
    ],
)
def test_a_type_is_judged_by_its_values(
    kind: Kind, values: pa.Array, column: dict[str, Any], codes: list[Any]
) -> None:
    body = WRITERS[kind](pa.table({"x": values}))
    judge = judge_of({"name": "x", **column})

    if not codes:
        assert len(judge.read_table(body, kind)) == 2
    else:
        expected = ["out_of_range" if code == 1 else code for code in codes]
        assert [code for _, code in faults_of(judge, body, kind)] == expected


@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_type_is_called_stands_in_for_values_that_are_not_read(kind: Kind) -> None:
    with pytest.raises(InvalidInput) as caught:
        judge_of(NUMERIC).read_table(WRITERS[kind](pa.table({"x": [[1.0]]})), kind)

    (fault,) = caught.value.faults
    assert (fault.received or "").startswith('"list<')


@pytest.mark.parametrize("kind", WRITERS)
def test_columns_are_missing_unknown_or_there_twice(kind: Kind) -> None:
    table = pa.table([[1.0], [2.0], [True]], names=["x", "x", "Y"])
    judge = judge_of(NUMERIC, {"name": "y", "type": "boolean"})
    body = as_arrow(table) if kind == "arrow" else as_parquet(table)

    assert faults_of(judge, body, kind) == [
        ("/y", "missing"),
        ("/x", "duplicate_column"),
        ("/Y", "unknown_field"),
    ]


@pytest.mark.parametrize("kind", [*WRITERS, "csv"])
@pytest.mark.parametrize(("count", "code"), [(0, "wrong_shape"), (50, None), (51, "too_many_rows")])
def test_the_number_of_rows_has_bounds(kind: Kind, count: int, code: str | None) -> None:
    values = [0.5] * count
    table = pa.table({"x": pa.array(values, pa.float64())})
    body = as_csv({"x": values}) if kind == "csv" else WRITERS[kind](table)

    if code is None:
        assert len(judge_of(NUMERIC).read_table(body, kind)) == count
    else:
        assert faults_of(judge_of(NUMERIC), body, kind) == [("/rows", code)]


def test_the_list_of_bad_values_has_an_end_and_goes_row_by_row() -> None:
    judge = judge_of(NUMERIC, {"name": "y", "type": "text"}, max_rows=2000)
    body = as_arrow(pa.table({"y": [1] * 800, "x": ["a"] * 800}))

    with pytest.raises(InvalidInput) as caught:
        judge.read_table(body, "arrow")

    assert len(caught.value.faults) == 1000
    assert caught.value.faults[3].pointer == "/rows/1/y"
    assert "600 more are not" in caught.value.detail


CSV_CELLS: list[tuple[dict[str, Any], str, Any]] = [
    (NUMERIC, "1e3", 1000.0),
    (NUMERIC, '"42"', 42.0),
    (NUMERIC, "+.5", 0.5),
    (NULLABLE, "", None),
    (NULLABLE, "NaN", None),
    (NUMERIC, "", "null_not_allowed"),
    (NUMERIC, "NaN", "not_finite"),
    (NULLABLE, "inf", "not_finite"),
    (NUMERIC, "1e999", "not_finite"),
    (NUMERIC, " 1", "wrong_type"),
    (NUMERIC, "0x10", "wrong_type"),
    (NUMERIC, "old", "wrong_type"),
    ({"name": "x", "type": "integer"}, "7.0", 7),
    ({"name": "x", "type": "integer"}, "0x10", "wrong_type"),
    ({"name": "x", "type": "integer"}, "7.5", "not_integral"),
    ({"name": "x", "type": "integer"}, "9007199254740993", "out_of_range"),
    ({"name": "x", "type": "integer"}, "1" * 400, "wrong_type"),
    ({"name": "x", "type": "boolean"}, "True", True),
    ({"name": "x", "type": "boolean"}, "0", False),
    ({"name": "x", "type": "boolean"}, "yes", "wrong_type"),
    ({"name": "x", "type": "boolean"}, "2", "wrong_type"),
    (TEXT, "", ""),
    (TEXT, '"a, ""b"""', 'a, "b"'),
    ({**TEXT, "nullable": True}, "", None),
    ({**TEXT, "nullable": True}, '""', ""),
    ({"name": "x", "type": "categorical", "categories": ["", "a"]}, "", ""),
    ({"name": "x", "type": "categorical", "categories": ["a"]}, "", "null_not_allowed"),
    ({"name": "x", "type": "categorical", "categories": ["a"]}, "A", "unknown_category"),
    ({"name": "x", "type": "categorical", "categories": [7]}, "7", 7),
]


@pytest.mark.parametrize("lines", ["x\n{}\n", "y,x\r\n1,{}\r\n", "\n\ny,x\n\n1,{}"])
@pytest.mark.parametrize(("column", "text", "expected"), CSV_CELLS)
def test_a_cell_is_what_json_would_call_it(
    column: dict[str, Any], text: str, expected: Any, lines: str
) -> None:
    columns = [column] + ([{"name": "y", "type": "numeric"}] if "y" in lines else [])
    body = lines.format(text).encode()
    judge = judge_of(*columns)

    found = outcome(lambda: [row[0] for row in judge.read_table(body, "csv")])

    refused = isinstance(expected, str) and "_" in expected
    assert found == ({("/rows/0/x", expected)} if refused else [repr(expected)])


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        (b"", "", "malformed"),
        (b"\n\n", "", "malformed"),
        (b"\xff\xfe", "", "malformed"),
        (b"x\n\xff", "", "malformed"),
        (b'"x\n1', "", "malformed"),
        (b"x,x\n1,2\n", "/x", "duplicate_column"),
        (b"z\n1\n", "/x", "missing"),
        (b"x\n", "/rows", "wrong_shape"),
        (b"x\n1\n1,2\n", "/rows/1", "wrong_shape"),
        (b"\n\nx,y\n\n1,2\n\n1,2\n1\n", "/rows/2", "wrong_shape"),
        (b'x,y\n1,"\n\n"\n1\n', "/rows/1", "wrong_shape"),
    ],
)
def test_a_csv_body_of_the_wrong_shape_is_refused(body: bytes, pointer: str, code: str) -> None:
    assert (pointer, code) in faults_of(judge_of(NUMERIC), body, "csv")


def test_a_byte_order_mark_is_no_part_of_a_name() -> None:
    found = judge_of(NUMERIC).read_table(b"\xef\xbb\xbfx\n1\n", "csv")

    assert found.rows() == [(1.0,)]


def test_a_header_may_be_as_long_as_the_body_and_costs_little() -> None:
    body = ",".join(f"c{i}" for i in range(200_000)).encode() + b"\n"

    found = faults_of(judge_of(NUMERIC), body, "csv")

    assert len(found) == 1000


@pytest.mark.parametrize(
    ("document", "pointer", "code"),
    [
        ({"columns": []}, "/columns", "wrong_shape"),
        ({"columns": {}}, "/x", "missing"),
        ({"columns": {"x": 1, "y": []}}, "/x", "wrong_shape"),
        ({"columns": {"x": [1, 2], "y": ["a"]}}, "/y", "wrong_shape"),
        ({"columns": {"x": [], "y": []}}, "/rows", "wrong_shape"),
        ({"columns": {"x": [1] * 51, "y": ["a"] * 51}}, "/rows", "too_many_rows"),
        ({"columns": {"x": [1], "y": ["a"]}, "rows": []}, "/rows", "unknown_field"),
        ({"columns": {"x": [1], "y": ["\ud800"]}}, "/rows/0/y", "invalid_text"),
        ({"columns": {"x": [float("nan")], "y": ["a"]}}, "/rows/0/x", "not_finite"),
        ({"columns": {"x": [1], "y": ["a"], "z": [1]}}, "/z", "unknown_field"),
    ],
)
def test_columns_of_the_wrong_shape_are_refused(
    document: dict[str, Any], pointer: str, code: str
) -> None:
    judge = judge_of(NUMERIC, {"name": "y", "type": "text"})

    with pytest.raises(InvalidInput) as caught:
        judge.validate(json.dumps(document).encode())

    assert (pointer, code) in {(fault.pointer, fault.code) for fault in caught.value.faults}


def test_a_column_that_stands_twice_in_json_is_malformed() -> None:
    with pytest.raises(MalformedJson, match='key "x"'):
        judge_of(NUMERIC).validate(b'{"columns": {"x": [1], "x": [2]}}')


HUGE = "0" * (80 * 1024 * 1024)


def test_an_arrow_stream_that_unpacks_to_too_much_is_refused_unread() -> None:
    body = as_arrow(pa.table({"x": [HUGE]}), compression="zstd")
    assert len(body) < 100_000

    with pytest.raises(BodyTooLarge):
        judge_of(TEXT).read_table(body, "arrow")


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_parquet_file_that_unpacks_to_too_much_is_refused_unread(dictionary: bool) -> None:
    table = pa.table({"x": [HUGE]})
    body = as_parquet(table, compression="zstd", use_dictionary=dictionary, write_statistics=False)
    assert len(body) < 100_000

    with pytest.raises(BodyTooLarge):
        judge_of(TEXT).read_table(body, "parquet")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_long_string_in_each_row_takes_its_memory_once(kind: Kind) -> None:
    words = pa.array(["w" * 1_000_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int16()), words)
    body = WRITERS[kind](pa.table({"x": column}))

    found = judge_of(TEXT, max_rows=10_000).read_table(body, kind)

    assert len({id(row[0]) for row in found}) == 1


def test_strings_that_share_their_bytes_are_counted_apart() -> None:
    # One buffer of a megabyte, and a hundred views of all of it.
    data = pa.py_buffer(b"w" * 1_000_000)
    views = pa.py_buffer(struct.pack("<i4sii", 1_000_000, b"wwww", 0, 0) * 100)
    column = pa.Array.from_buffers(pa.string_view(), 100, [None, views, data])
    body = as_arrow(pa.table({"x": column}), rows=100)

    with pytest.raises(BodyTooLarge):
        judge_of(TEXT, max_rows=100).read_table(body, "arrow")


def test_an_encoding_whose_strings_grow_without_bound_is_refused() -> None:
    table = pa.table({"x": ["w" * 1000 + str(i) for i in range(40)]})
    body = as_parquet(table, use_dictionary=False, column_encoding={"x": "DELTA_BYTE_ARRAY"})

    assert faults_of(judge_of(TEXT), body, "parquet") == [("", "malformed")]


def test_a_column_that_nobody_wants_is_not_unpacked() -> None:
    table = pa.table({"x": ["a"], "y": [HUGE]})
    body = as_parquet(table, compression="zstd")

    assert faults_of(judge_of(TEXT), body, "parquet") == [("/y", "unknown_field")]


@pytest.mark.parametrize("kind", WRITERS)
def test_several_batches_with_dictionaries_of_their_own_are_one_table(kind: Kind) -> None:
    pieces = [pa.array([word] * 3).dictionary_encode() for word in ("a", "b", "a")]
    out = io.BytesIO()
    if kind == "arrow":
        schema = pa.schema([("x", pieces[0].type)])
        with pa.ipc.new_stream(out, schema) as stream:
            for piece in pieces:
                stream.write_batch(pa.record_batch([piece], schema=schema))
    else:
        with parquet.ParquetWriter(out, pa.schema([("x", pieces[0].type)])) as writer:
            for piece in pieces:
                writer.write_table(pa.table({"x": piece}))

    found = judge_of(TEXT).read_table(out.getvalue(), kind)

    assert [row[0] for row in found] == list("aaabbbaaa")


GOOD = pa.table(
    {
        "x": [1.0, 2.5, None],
        "y": pa.array(["a", "b", "a"]).dictionary_encode(),
        "z": ["some text", "more", ""],
        "n": [[1], [2], []],
    }
)
SEEDS: list[tuple[bytes, Kind]] = [
    (as_arrow(GOOD), "arrow"),
    (as_arrow(GOOD, compression="lz4"), "arrow"),
    (as_parquet(GOOD), "parquet"),
    (as_parquet(GOOD, compression="zstd", data_page_version="2.0"), "parquet"),
    (b'x,y,z\n1,a,"some text"\n,b,more\n', "csv"),
]
HOSTED = judge_of(
    NULLABLE,
    {"name": "y", "type": "categorical", "categories": ["a", "b"]},
    {"name": "z", "type": "text"},
)


@settings(max_examples=600, deadline=None)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_no_damaged_body_gets_anything_but_rows_or_a_refusal(
    seed: tuple[bytes, Kind], data: st.DataObject
) -> None:
    body, kind = bytearray(seed[0]), seed[1]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)) | st.just(len(body)))

    try:
        found = HOSTED.read_table(bytes(body[:cut]), kind)
    except (InvalidInput, BodyTooLarge):
        return
    assert all(len(row) == 3 for row in found)


def test_a_damaged_footer_is_refused_and_ends_no_process() -> None:
    # pyarrow's own view of such a footer aborts: its length of a histogram is not what it must be.
    body = as_parquet(GOOD)
    footer = len(body) - 8 - int.from_bytes(body[-8:-4], "little")

    for place in range(footer, len(body) - 8):
        for value in (0, 255):
            damaged = bytearray(body)
            damaged[place] = value
            assert faults_of(HOSTED, bytes(damaged), "parquet")


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200), kind=st.sampled_from(["csv", "arrow", "parquet"]))
def test_any_bytes_get_rows_or_a_refusal(body: bytes, kind: Kind) -> None:
    try:
        found = HOSTED.read_table(body, kind)
    except (InvalidInput, BodyTooLarge):
        return
    assert len(found)


def test_numbers_in_a_dictionary_and_halves_are_numbers() -> None:
    halves = pa.array(np.array([0.5, 1.5], dtype=np.float16))
    body = as_arrow(pa.table({"x": halves}))

    assert judge_of(NUMERIC).read_table(body, "arrow").rows() == [(0.5,), (1.5,)]
