"""Tensors of models that have more than numbers: strings, missing values, several targets."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from onrecord.errors import IdempotencyKeyReused
from onrecord.http.inference import JSON_LENGTH, InferenceCall
from onrecord.http.invocations import Invocation
from onrecord.http.tensors import binary_of, outputs_of
from onrecord.http.translation import Asked
from onrecord.serving.input_schema import parse_input_schema
from onrecord.serving.outputs import Outputs, TargetOutput
from onrecord.serving.prediction import Answer

SCHEMA = parse_input_schema(
    json.dumps(
        {
            "input_schema": {
                "columns": [
                    {"name": "kind", "type": "categorical", "categories": ["red", "größe"]},
                    {"name": "size", "type": "numeric", "nullable": True},
                ]
            }
        }
    ).encode(),
    "input_schema.json",
)
LABELS = ("low", "high")
ONE = Outputs([TargetOutput(None, ["low"], LABELS, [[0.75, 0.25]])])
ASKED = Asked(SCHEMA, ONE, 100)


def answer_of(**rows: Any) -> Answer:
    model = {"name": "m", "version": "v", "sha256": "0"}
    return Answer(200, msgspec.json.encode({"id": "1", "model": model, **rows}))


def test_strings_come_and_go_as_bytes_and_nan_is_missing_where_that_may_be() -> None:
    kinds = binary_of("BYTES", ["red", "größe"])
    sizes = np.array([math.nan, 2.5], dtype="<f2").tobytes()
    inputs = [
        {"name": "kind", "datatype": "BYTES", "shape": [2, 1]},
        {"name": "size", "datatype": "FP16", "shape": [2]},
    ]
    for tensor, raw in zip(inputs, (kinds, sizes), strict=True):
        tensor["parameters"] = {"binary_data_size": len(raw)}
    asked = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    call = InferenceCall()

    body, content_type = call.read(
        head + kinds + sizes, [(JSON_LENGTH, str(len(head)).encode())], ASKED
    )
    row = {"prediction": "high", "probabilities": {"low": 0.25, "high": 0.75}}
    answer, headers = call.answer(answer_of(**row))

    assert content_type == "application/json"
    assert json.loads(body) == {"columns": {"kind": ["red", "größe"], "size": [None, 2.5]}}
    size = int(dict(headers)[JSON_LENGTH])
    assert [it["datatype"] for it in json.loads(answer.body[:size])["outputs"]] == ["BYTES", "FP64"]
    assert answer.body[size:] == b"\x04\0\0\0high" + np.array([0.25, 0.75]).tobytes()


def test_an_output_has_one_datatype_whichever_class_is_answered() -> None:
    def datatype(value: Any, classes: tuple[str, ...] | None) -> str:
        return outputs_of(Outputs([TargetOutput(None, [value], classes)]))[0].datatype

    assert datatype(1, ("0", "1")) == "INT64"
    assert datatype(1, ("1", "x")) == datatype("x", ("1", "x")) == "BYTES"
    assert datatype(True, ("false", "true")) == "BOOL"
    assert datatype(True, ("true", "2")) == "BYTES"
    assert datatype(1.5, None) == "FP64"


def test_several_targets_are_several_outputs_and_in_csv_cells_of_a_line() -> None:
    both = Outputs([TargetOutput("a", [1.5]), TargetOutput("b", ["low"], LABELS, [[0.75, 0.25]])])
    call, invocation = InferenceCall(), Invocation()
    tensors = {"inputs": [{"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["red"]}]}
    call.read(json.dumps(tensors).encode(), [], Asked(SCHEMA, both, 100))
    invocation.read(b'{"instances": []}', [(b"accept", b"text/csv")], Asked(SCHEMA, both, 100))
    recorded = answer_of(
        prediction={"a": 1.5, "b": "low"}, probabilities={"b": {"low": 0.75, "high": 0.25}}
    )

    told = json.loads(call.answer(recorded)[0].body)
    line = invocation.answer(recorded)[0].body

    assert [(it["name"], it["shape"], it["data"]) for it in told["outputs"]] == [
        ("prediction_a", [1], [1.5]),
        ("prediction_b", [1], ["low"]),
        ("probabilities_b", [1, 2], [0.75, 0.25]),
    ]
    assert line == b"1.5,low\n"


def test_an_earlier_answer_with_other_outputs_is_not_given_for_these() -> None:
    call = InferenceCall()
    tensors = {"inputs": [{"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["red"]}]}
    call.read(json.dumps(tensors).encode(), [], ASKED)

    for row in ({"prediction": 1.5}, {"prediction": "x", "probabilities": {"x": 1.0}}):
        with pytest.raises(IdempotencyKeyReused, match="another version"):
            call.answer(answer_of(**row))
