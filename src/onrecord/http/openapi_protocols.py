"""What the OpenAPI document says of calls in foreign protocols, drawn from a model's columns."""

from __future__ import annotations

from typing import Any

from onrecord.serving.forms import CSV
from onrecord.serving.input_schema import InputSchema

__all__ = ["Described", "invocation"]

Described = tuple[dict[str, Any], dict[str, Any]]
"""The content of a request body, and that of a good answer."""


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
