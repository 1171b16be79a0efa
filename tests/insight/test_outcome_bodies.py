"""Bodies of outcomes: what cannot be read says why, and names the field."""

import io

import pyarrow as pa
import pytest
from pyarrow import parquet

from onrecord.errors import CallError
from onrecord.insight.outcome_bodies import Fields, Form, OutcomeRow, read_outcomes

ID = "01a21c06-df14-75d7-8754-72f28f200000"


def read(body: bytes, form: Form, fields: Fields = Fields()) -> list[OutcomeRow]:  # noqa: B008
    return read_outcomes(body, form, fields, max_rows=100)


def first_fault(body: bytes, form: Form) -> str:
    """Return where the first thing is wrong: in the whole of a body, else in its rows."""
    try:
        rows = read(body, form)
    except CallError as error:
        return error.faults[0].pointer if error.faults else error.code
    return next(fault.pointer for row in rows for fault in row.faults)


@pytest.mark.parametrize(
    ("body", "form", "pointer"),
    [
        (b"", "json", "malformed_json"),
        (b"{", "json", "malformed_json"),
        (b'[{"outcome": 1, "outcome": 2}]', "json", "malformed_json"),
        (b"{}", "json", ""),
        (b'{"rows": [], "more": 1}', "json", ""),
        (b"[" + b"0," * 100 + b"0]", "json", "/rows"),
        (b"0\n" * 101, "lines", "/rows"),
        (f'{{"prediction_id": "{ID}", "outcome": 1}}\n{{\n'.encode(), "lines", "/rows/1"),
        (b"", "csv", ""),
        (b"prediction_id,result\n", "csv", "/outcome"),
        (b"prediction_id,outcome,age\n", "csv", "/age"),
        (b"prediction_id,outcome,outcome\n", "csv", "/outcome"),
        (b"prediction_id,outcome\n1,1,1\n", "csv", "/rows/0"),
        (b"prediction_id,outcome\n" + b"1,1\n" * 101, "csv", "/rows"),
        (b"prediction_id,outcome\n\xff,1\n", "csv", ""),
        (b'prediction_id,outcome\n"x"y,1\n', "csv", ""),
        (b"PAR1", "parquet", ""),
        (b"", "arrow", ""),
    ],
    ids=str,
)
def test_a_body_that_cannot_be_read_names_the_field(body: bytes, form: Form, pointer: str) -> None:
    assert first_fault(body, form) == pointer


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize(
    ("columns", "pointer"),
    [
        ({"outcome": pa.array([0], pa.timestamp("s"))}, "/outcome"),
        ({"outcome": [[1]]}, "/outcome"),
        ({"observed_at": [5]}, "/observed_at"),
        ({"observed_at": pa.array([1 << 62], pa.timestamp("ms"))}, "/rows/0/observed_at"),
        ({"observed_at": ["9999-12-31T23:00:00-09:00"]}, "/rows/0/observed_at"),
        ({"prediction_id": [5]}, "/rows/0/prediction_id"),
        ({"outcome": pa.nulls(1)}, "/rows/0/outcome"),
        ({"outcome": pa.array([None], pa.dictionary(pa.int8(), pa.string()))}, "/rows/0/outcome"),
    ],
)
def test_a_column_of_a_type_that_no_outcome_has_is_named(
    columns: dict[str, pa.Array], pointer: str, form: Form
) -> None:
    table = pa.table({"prediction_id": [ID], "outcome": [1]} | columns)
    out = io.BytesIO()
    if form == "parquet":
        parquet.write_table(table, out)
    else:
        with pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)

    assert first_fault(out.getvalue(), form) == pointer


def test_an_operators_table_may_have_other_columns_and_names() -> None:
    body = b"patient_id,age,result\n17,44,1\n"

    (row,) = read(body, "csv", Fields("patient_id", "result", keyed=True, exact=False))

    assert (row.about, row.outcome, row.observed_at, row.faults) == ("17", "1", None, [])


def test_a_string_that_stands_in_every_row_is_in_memory_once() -> None:
    words = pa.array(["x" * 1000] * 100).dictionary_encode()
    out = io.BytesIO()
    parquet.write_table(pa.table({"prediction_id": [ID] * 100, "outcome": words}), out)

    rows = read(out.getvalue(), "parquet")

    assert len({id(row.outcome) for row in rows}) == 1
