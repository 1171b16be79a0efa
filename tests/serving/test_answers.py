"""Answers as tables: their columns, their ids, and what cannot be written."""

import csv
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from onrecord.errors import Unanswerable
from onrecord.record.ids import new_request_id, prediction_id
from onrecord.serving.answers import answer_rows, encode_answers
from onrecord.serving.forms import CONTENT_TYPES, Kind
from onrecord.serving.outputs import Outputs, TargetOutput

REQUEST = new_request_id()


def arrow(*targets: TargetOutput) -> pa.Table:
    return pa.ipc.open_stream(encode_answers(Outputs(targets), REQUEST, b"{}", "arrow")).read_all()


def test_each_row_has_the_id_that_leads_to_its_call() -> None:
    count = 70_000

    found = arrow(TargetOutput(None, np.zeros(count)))["id"].to_pylist()

    assert found == [prediction_id(REQUEST, row) for row in range(count)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], pa.int64()),
        ([True, False], pa.bool_()),
        (["a", "b"], pa.string()),
        ([0.5, 1.0], pa.float64()),
        (np.array([1, 2]), pa.int64()),
        (np.array(["a", "b"], dtype=object), pa.string()),
    ],
)
def test_predictions_keep_their_type(values: Any, kind: pa.DataType) -> None:
    column = arrow(TargetOutput(None, values))["prediction"]

    assert column.type == kind
    assert column.to_pylist() == list(values)


def test_a_chunk_of_one_class_has_the_type_of_all_classes() -> None:
    chances = [[0.25, 0.75]]

    some = arrow(TargetOutput(None, [1], ("1", "many"), chances))
    others = arrow(TargetOutput(None, ["many"], ("1", "many"), chances))

    assert some.schema == others.schema


def test_several_targets_have_columns_of_their_own() -> None:
    table = arrow(
        TargetOutput("wine", ["red"], ("red", "white"), [[0.9, 0.1]]),
        TargetOutput("dry", [True], ("false", "true"), np.array([[0.25, 0.75]])),
    )

    assert table.drop_columns("id").to_pylist() == [
        {
            "prediction_wine": "red",
            "probability_wine_red": 0.9,
            "probability_wine_white": 0.1,
            "prediction_dry": True,
            "probability_dry_false": 0.25,
            "probability_dry_true": 0.75,
        }
    ]


@pytest.mark.parametrize(
    "target",
    [
        TargetOutput(None, [1.0, float("inf")]),
        TargetOutput(None, np.array([np.nan, 1.0])),
        TargetOutput(None, [0, 1], ("0", "1"), np.array([[0.5, 0.5], [np.nan, 1.0]])),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "arrow", "parquet"])
def test_a_number_that_is_not_finite_is_no_answer(target: TargetOutput, kind: Kind) -> None:
    with pytest.raises(Unanswerable):
        encode_answers(Outputs([target]), REQUEST, b"{}", kind)


@pytest.mark.parametrize("kind", ["csv", "arrow", "parquet"])
def test_the_rows_of_an_answer_are_counted(kind: Kind) -> None:
    labels = ["a\nb", 'say "c"', ""] * 5
    encoded = encode_answers(Outputs([TargetOutput(None, labels)]), REQUEST, b"{}", kind)

    assert answer_rows(encoded, CONTENT_TYPES[kind]) == 15
    if kind == "csv":
        read = list(csv.DictReader(io.StringIO(encoded.decode(), newline="")))
        assert [row["prediction"] for row in read] == labels
    elif kind == "parquet":
        read = parquet.read_table(pa.BufferReader(encoded))
        assert read["prediction"].to_pylist() == labels
