"""The baseline that a model's own training data is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onrecord.insight.recorded_rows import finite_answers
from onrecord.insight.sketch import Sketch, sketch_of
from onrecord.serving.columns import Column
from onrecord.serving.infer_schema import read_data
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.runtimes import Runtime
from onrecord.serving.table import Table, array_of

__all__ = ["training_baseline"]

_MOST_ROWS = 200_000


def training_baseline(data_file: Path, schema: InputSchema, runtime: Runtime | None) -> Sketch:
    """Return the sketch of the rows of a CSV or Parquet file that has all columns of a schema.

    With the model's `runtime` the scores that it gives to them are in it, too, where it gives any.
    Of more than 200,000 rows it takes so many, evenly spread over the file.
    """
    data = read_data(data_file)
    if data.num_rows > _MOST_ROWS:
        data = data.take(np.linspace(0, data.num_rows - 1, _MOST_ROWS).astype(np.int64))
    columns = schema.columns
    arrays = [array_of(column, _values(column, data.column(column.name))) for column in columns]
    table = Table(columns, arrays)
    return sketch_of(table, None if runtime is None else finite_answers(runtime, table))


def _values(column: Column, data: Any) -> list[Any]:
    kinds: dict[str, type] = {"numeric": float, "integer": int, "boolean": bool}
    kind = kinds.get(column.type)
    values = [None if it is None or it != it else it for it in data.to_pylist()]  # noqa: PLR0124 - NaN
    return values if kind is None else [None if it is None else kind(it) for it in values]
