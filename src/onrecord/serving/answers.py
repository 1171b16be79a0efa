"""The answers to many rows as a table of their own: CSV, an Arrow stream or a Parquet file.

Its columns are `id`, `prediction` (or `prediction_<target>` for each of several targets) and the
classes' `probability_<class>` (or `probability_<target>_<class>`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from onrecord.errors import Unanswerable
from onrecord.serving.forms import Kind
from onrecord.serving.outputs import Outputs, TargetOutput, class_key
from onrecord.serving.table_answers import label_array

__all__ = ["MODEL_KEY", "answer_rows", "encode_answers", "parquet_options"]

MODEL_KEY = b"onrecord.model"
"""The key of the metadata of Arrow and Parquet answers under which the model stands, as JSON."""

_ROW_DIGITS = 5
_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


def encode_answers(outputs: Outputs, request_id: str, model: bytes, kind: Kind) -> bytes:
    """Return the answers to the rows of a call as CSV, Arrow or Parquet.

    `model` is the JSON that says which model answered. Raises Unanswerable where a number is not
    finite.
    """
    import pyarrow as pa

    pairs = [("id", _ids(request_id, len(outputs)))]
    pairs += [pair for target in outputs.targets for pair in _columns(target)]
    table = pa.table([array for _, array in pairs], names=[name for name, _ in pairs])
    out = io.BytesIO()
    if kind == "csv":
        from pyarrow import csv

        csv.write_csv(table, out)
        return out.getvalue()
    table = table.replace_schema_metadata({MODEL_KEY: model})
    if kind == "arrow":
        with pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
        return out.getvalue()
    from pyarrow import parquet

    options = parquet_options(table.schema)
    # What hardly repeats is hardly compressed, and nobody filters the rows of one call.
    parquet.write_table(table, out, compression="none", write_statistics=False, **options)
    return out.getvalue()


def parquet_options(schema: Any) -> Mapping[str, Any]:
    """Return how answers of an Arrow schema are best written as Parquet.

    Ids and probabilities hardly repeat, so that looking for repetitions would be wasted on them;
    ids differ in their last digits only.
    """
    import pyarrow as pa

    repeated = [
        field.name
        for field in schema
        if field.name != "id" and not pa.types.is_floating(field.type)
    ]
    return {"use_dictionary": repeated, "column_encoding": {"id": "DELTA_BYTE_ARRAY"}}


def answer_rows(output: bytes, content_type: str) -> int:
    """Return how many rows an answer of `encode_answers` has, by its content type."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    if content_type.startswith("text/csv"):
        return int(csv.read_csv(pa.BufferReader(output)).num_rows)
    if "parquet" in content_type:
        return int(parquet.ParquetFile(pa.BufferReader(output)).metadata.num_rows)
    return sum(batch.num_rows for batch in pa.ipc.open_stream(pa.py_buffer(output)))


def _ids(request_id: str, count: int) -> Any:
    """Return the ids of `prediction_id` for `count` rows as an Arrow array of strings."""
    import pyarrow as pa

    width = len(request_id)
    letters = np.empty((count, width), dtype=np.uint8)
    letters[:] = np.frombuffer(request_id.encode(), dtype=np.uint8)
    rows = np.arange(count)
    for place in range(_ROW_DIGITS):
        letters[:, width - 1 - place] = _DIGITS[(rows >> (4 * place)) & 0xF]
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(letters))


def _columns(target: TargetOutput) -> Iterator[tuple[str, Any]]:
    suffix = "" if target.name is None else f"_{target.name}"
    yield f"prediction{suffix}", _predictions(target)
    if target.probabilities is None or target.classes is None:
        return
    chances = np.asarray(target.probabilities, dtype=np.float64)
    if not np.isfinite(chances).all():
        raise Unanswerable("The model's probabilities are not finite numbers.")
    for place, name in enumerate(target.classes):
        yield f"probability{suffix}_{name}", np.ascontiguousarray(chances[:, place])


def _predictions(target: TargetOutput) -> Any:
    import pyarrow as pa

    values = label_array(target.values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Unanswerable("The model's answer is not a finite number.")
    if values.dtype.kind in "iu" and not all(map(_is_whole, target.classes or ())):
        values = values.astype(object)  # the type must not depend on which classes are answered
    if values.dtype.kind != "O":
        return pa.array(values)
    return pa.array([class_key(value) for value in values.tolist()], pa.string())


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdigit()
