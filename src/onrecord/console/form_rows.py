"""A row of a model as a form has it, which is text, and as a call has it, which is JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from onrecord.serving.columns import Column, Value
from onrecord.serving.input_schema import InputSchema

__all__ = ["PREFIX", "form_of", "row_of"]

PREFIX = "v."
"""What the name of a column's field begins with, lest a column have the name of another field."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_MOST_DIGITS = 300
_EXACT = 1e15
"""Up to which a whole number is written without a point or an exponent."""


def form_of(values: Mapping[str, Value]) -> dict[str, str]:
    """Return what the fields of a row hold, by column; what is missing is an empty one."""
    return {name: _text(value) for name, value in values.items()}


def row_of(schema: InputSchema, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return what is asked by fields: a row by column, for the model's validator to judge.

    An empty field is null where the column may be, and else leaves the column out; what is no
    value of its column stays the text that it is.
    """
    row: dict[str, Any] = {}
    for column in schema.columns:
        text = fields.get(column.name)
        if text is None:
            continue
        if text.strip() == "" and (column.nullable or column.type != "text"):
            if column.nullable:
                row[column.name] = None
            continue
        row[column.name] = _value(column, text)
    return row


def _value(column: Column, text: str) -> Any:
    if column.textual:
        return text
    if column.type == "boolean":
        return {"true": True, "false": False}.get(text, text)
    stripped = text.strip()
    if not _NUMBER.fullmatch(stripped):
        return text
    if stripped.lstrip("+-").isdecimal():
        return int(stripped) if len(stripped) <= _MOST_DIGITS else float(stripped)
    number = float(stripped)
    return number if math.isfinite(number) else text


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return str(value)
