"""What the OpenAPI document says of calls in foreign protocols, drawn from a model's columns."""

from __future__ import annotations

from typing import Any

from onrecord.http.tensors import DATATYPES, datatype_of
from onrecord.serving.forms import CSV
from onrecord.serving.input_schema import InputSchema

__all__ = ["INFERENCE_ERROR", "JSON_LENGTH_PARAMETER", "Described", "inference", "invocation"]

Described = tuple[dict[str, Any], dict[str, Any]]
"""The content of a request body, and that of a good answer."""

INFERENCE_ERROR: dict[str, Any] = {
    "type": "object",
    "description": "An error of the Open Inference Protocol; its problem stands beside.",
    "required": ["error", "status", "code", "request_id"],
    "properties": {
        "error": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
JSON_LENGTH_PARAMETER: dict[str, Any] = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "How many bytes of the body are JSON, where binary tensors follow them.",
    "schema": {"type": "integer", "minimum": 0},
}
_FILE = {"schema": {"type": "string", "format": "binary"}}


def inference(schema: InputSchema) -> Described:
    """Describe `POST /v2/models/{name}/infer`."""
    row = schema.example_row()
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string", "enum": list(DATATYPES)},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "parameters": {"type": "object"},
            "data": {"type": "array"},
        },
    }
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
    }
    asked = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": "array", "items": output},
        },
    }
    inputs = [
        {"name": it.name, "datatype": datatype_of(it), "shape": [1], "data": [row[it.name]]}
        for it in schema.columns
    ]
    answered = {
        "type": "object",
        "required": ["model_name", "model_version", "id", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": tensor},
        },
    }
    example = {"a tensor a column": {"value": {"inputs": inputs}}}
    body = {
        "application/json": {"schema": asked, "examples": example},
        "application/octet-stream": _FILE,
    }
    answer = {"application/json": {"schema": answered}, "application/octet-stream": _FILE}
    return body, answer


def invocation(schema: InputSchema) -> Described:
    """Describe `POST /invocations`."""
    row = schema.example_row()
    columns, values = list(row), list(row.values())
    rows = {"type": "array", "minItems": 1}
    objects = {**rows, "items": {"type": "object"}}
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {**rows, "items": {"type": "array"}},
            "index": {"type": "array"},
        },
    }
    forms = {
        "dataframe_split": split,
        "dataframe_records": objects,
        "instances": {**rows, "items": {"type": ["object", "array"]}},
        "inputs": {"type": ["object", "array"]},
    }
    examples = {
        "dataframe_split": {"columns": columns, "data": [values]},
        "dataframe_records": [row],
        "instances": [values],
        "inputs": {name: [value] for name, value in row.items()},
    }
    text = {"schema": {"type": "string"}}
    asked = {
        "application/json": {
            "schema": {
                "oneOf": [
                    {
                        "type": "object",
                        "title": name,
                        "required": [name],
                        "properties": {name: form},
                    }
                    for name, form in forms.items()
                ]
            },
            "examples": {name: {"value": {name: value}} for name, value in examples.items()},
        },
        CSV: text,
    }
    answer = {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "description": "One prediction a row."}},
    }
    return asked, {"application/json": {"schema": answer}, CSV: text}
