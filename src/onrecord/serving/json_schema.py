"""The input schema as JSON Schema 2020-12, for callers' own tools and for OpenAPI."""

from __future__ import annotations

from typing import Any

from onrecord.serving.columns import Column
from onrecord.serving.input_schema import InputSchema

__all__ = ["body_json_schema", "row_json_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def row_json_schema(schema: InputSchema) -> dict[str, Any]:
    """Return the JSON Schema of one row."""
    return {"$schema": _DIALECT, **_row(schema)}


def body_json_schema(schema: InputSchema, max_rows: int) -> dict[str, Any]:
    """Return the JSON Schema of a prediction's body: one row, or 1 to `max_rows` rows.

    Many stand either row by row or a column at a time. That the columns are equally long is more
    than JSON Schema can say.
    """
    row = _row(schema)
    many = {
        "type": "object",
        "title": "Many rows",
        "properties": {
            "rows": {"type": "array", "items": row, "minItems": 1, "maxItems": max_rows}
        },
        "required": ["rows"],
        "additionalProperties": False,
    }
    columns = {
        "type": "object",
        "title": "Many rows, a column at a time",
        "properties": {
            "columns": {
                "type": "object",
                "properties": {
                    name: {"type": "array", "items": items, "minItems": 1, "maxItems": max_rows}
                    for name, items in row["properties"].items()
                },
                "required": row["required"],
                "additionalProperties": False,
            }
        },
        "required": ["columns"],
        "additionalProperties": False,
    }
    return {"oneOf": [row, many, columns]}


def _row(schema: InputSchema) -> dict[str, Any]:
    return {
        "title": f"Input of {schema.name}" if schema.name else "Input",
        "type": "object",
        "properties": {column.name: _property(column) for column in schema.columns},
        "required": list(schema.names),
        "additionalProperties": False,
    }


def _property(column: Column) -> dict[str, Any]:
    found = _accepted(column)
    if column.description is not None:
        found["description"] = column.description
    if column.unit is not None:
        found["x-unit"] = column.unit
    if column.example is not None:
        found["examples"] = [column.example]
    if column.sensitive:
        found |= {"writeOnly": True, "x-sensitive": True}
    return found


def _accepted(column: Column) -> dict[str, Any]:
    null: list[Any] = [None] if column.nullable else []
    match column.type:
        case "boolean":
            return {"anyOf": [{"type": _type("boolean", column)}, {"enum": [0, 1]}]}
        case "categorical":
            kind = "string" if column.textual else "integer"
            return {"type": _type(kind, column), "enum": [*column.categories, *null]}
        case "text":
            return {"type": _type("string", column)}
        case "numeric" | "integer":
            kind = "integer" if column.type == "integer" else "number"
            return {
                "type": _type(kind, column),
                "minimum": column.low,
                "maximum": column.high,
            }


def _type(kind: str, column: Column) -> str | list[str]:
    return [kind, "null"] if column.nullable else kind
