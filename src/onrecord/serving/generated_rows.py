"""Rows made from a schema: every one validates, together they cover what the schema allows."""

from __future__ import annotations

import math

import numpy as np

from onrecord.serving.columns import Column, Value
from onrecord.serving.input_schema import InputSchema

__all__ = ["COMPARED_LIMIT", "compared_range", "generated_rows"]

COMPARED_LIMIT = 1e6
"""The largest magnitude of a generated number where the schema sets no narrower bound."""

_COUNT = 512
_MISSING = 0.1
_NEAR = 0.5
_EVEN = 0.8


def generated_rows(
    schema: InputSchema, count: int = _COUNT, seed: int = 0
) -> list[tuple[Value, ...]]:
    """Return `count` rows; one in ten of a nullable column's values is missing.

    A column of numbers gets both ends of its `compared_range`, uniform numbers between them,
    numbers of every magnitude, and numbers near its example. The same seed gives the same rows.
    """
    random = np.random.default_rng(seed)
    columns = [_values(column, count, random) for column in schema.columns]
    rows = list(zip(*columns, strict=True))
    return [schema.probe_row(), *rows[1:]]


def _values(column: Column, count: int, random: np.random.Generator) -> list[Value]:
    values: list[Value]
    match column.type:
        case "boolean":
            values = list(random.integers(0, 2, count).astype(bool).tolist())
        case "categorical":
            picks = random.integers(0, len(column.categories), count)
            picks[: len(column.categories)] = np.arange(len(column.categories))[:count]
            random.shuffle(picks)
            values = [column.categories[i] for i in picks]
        case "text":
            values = [f"text {i}" for i in range(count)]
        case "integer":
            low, high = math.ceil(column.low), math.floor(column.high)
            values = [
                min(max(round(number), low), high) for number in _numbers(column, count, random)
            ]
        case "numeric":
            values = list(_numbers(column, count, random))
    if column.nullable:
        missing = random.random(count) < _MISSING
        values = [None if gone else v for v, gone in zip(values, missing, strict=True)]
    return values


def compared_range(column: Column) -> tuple[float, float]:
    """Return the range of a column's generated numbers, inclusive.

    A column with both bounds has all of it covered; a side without one reaches COMPARED_LIMIT from
    the other bound, or from zero.
    """
    low, high = column.minimum, column.maximum
    if low is not None and high is not None:
        return low, high
    if low is not None:
        return low, min(low + COMPARED_LIMIT, column.high)
    if high is not None:
        return max(high - COMPARED_LIMIT, column.low), high
    return -COMPARED_LIMIT, COMPARED_LIMIT


def _numbers(column: Column, count: int, random: np.random.Generator) -> list[float]:
    low, high = compared_range(column)
    reach = max(abs(low), abs(high), 1.0)
    sizes = 10 ** random.uniform(-3, math.log10(reach), count)
    if low >= 0:
        sized = low + sizes
    elif high <= 0:
        sized = high - sizes
    else:
        sized = random.choice((-1.0, 1.0), count) * sizes
    even = low + (high - low) * random.random(count)
    bounded = column.minimum is not None and column.maximum is not None
    numbers = np.where(random.random(count) < (_EVEN if bounded else 0.0), even, sized)
    if isinstance(column.example, int | float):  # real inputs lie near the example
        near = random.random(count) < _NEAR
        spread = max(abs(column.example), 1.0)
        numbers[near] = column.example + spread * random.normal(size=count)[near]
    numbers[:2] = low, high
    random.shuffle(numbers)
    return [float(number) for number in np.clip(numbers, low, high)]
