"""Tables of rows, of whichever library, as Arrow streams and back.

A table is a pandas or polars frame, a two-dimensional numpy array, or anything else that offers the
Arrow PyCapsule interface (`__arrow_c_stream__`), such as a pyarrow table. pyarrow is imported when
the first table is sent, and none of the other libraries by anything here but the caller's own.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any, Protocol, TypeVar

from onrecord.client.errors import UnexpectedAnswer
from onrecord.client.results import ModelVersion, PredictedTable, RecordedCall

__all__ = [
    "ARROW",
    "Frame",
    "arrow_stream",
    "is_array",
    "is_table",
    "predicted_table",
    "table_of_calls",
]

ARROW = "application/vnd.apache.arrow.stream"


class _ArrowTable(Protocol):
    """Whatever hands out its columns through the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class _Array(Protocol):
    """A numpy array."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


Frame = TypeVar("Frame", bound=_ArrowTable | _Array)

_MODEL_KEY = b"onrecord.model"
_NEEDS = "tables need pyarrow, which comes with an extra: pip install 'onrecord[data]'"
_TWO = 2


def is_array(rows: object) -> bool:
    """Tell whether rows are a numpy array."""
    return _library(rows) == "numpy"


def is_table(rows: object) -> bool:
    """Tell whether rows are a table, rather than a row or a list of rows."""
    return is_array(rows) or _library(rows) == "pandas" or hasattr(rows, "__arrow_c_stream__")


def arrow_stream(rows: Any, names: Sequence[str] | None = None) -> bytes:
    """Return a table as an Arrow IPC stream; `names` are those of an array's columns.

    Raises ValueError where an array does not have a column for each of them, and ImportError where
    pyarrow is not there.
    """
    pa = _pyarrow()
    if names is not None:
        if rows.ndim != _TWO or rows.shape[1] != len(names):
            raise ValueError(
                f"an array of shape {rows.shape} does not have the model's {len(names)} columns: "
                + ", ".join(names)
            )
        columns = [pa.array(rows[:, place].tolist()) for place in range(len(names))]
        table = pa.table(columns, names=list(names))
    elif _library(rows) == "pandas":
        # What the index is called is no column of the model's.
        table = pa.Table.from_pandas(rows, preserve_index=False)
    else:
        table = pa.table(rows)
    out = io.BytesIO()
    # Its metadata, such as what pandas keeps there, would be on record with every call.
    table = table.replace_schema_metadata(None)
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def predicted_table(body: bytes, rows: Any) -> PredictedTable[Any]:
    """Return the answers of an Arrow stream in the kind of frame that `rows` are.

    A pandas frame gets the index of its rows, so that both can be joined; an array is answered by
    a structured array, and what is neither pandas, polars nor numpy by a pyarrow table.
    """
    pa = _pyarrow()
    table = pa.ipc.open_stream(body).read_all()
    told = (table.schema.metadata or {}).get(_MODEL_KEY)
    if told is None or not table.num_rows:
        raise UnexpectedAnswer("the answer does not say which model gave it", status=200)
    model = ModelVersion.read(json.loads(told))
    first = table["id"][0].as_py()
    return PredictedTable(first, model, _as_frame(table.replace_schema_metadata(None), rows))


def table_of_calls(calls: Iterable[RecordedCall]) -> Any:
    """Return calls on record as a pyarrow table, a row a call, with their payloads as JSON text."""
    pa = _pyarrow()
    text, flag = pa.string(), pa.bool_()
    moment = pa.timestamp("us", tz="UTC")
    types: dict[str, Any] = {it.name: text for it in fields(RecordedCall) if it.name != "model"}
    types |= dict.fromkeys(("received_at", "responded_at", "erased_at"), moment)
    types |= dict.fromkeys(("test", "explain"), flag)
    types |= {"duration_us": pa.int64(), "status": pa.int16(), "error_fields": pa.list_(text)}
    names = {"name": "model", "version": "model_version", "sha256": "model_sha256"}
    types |= dict.fromkeys(names.values(), text)
    rows = []
    for call in calls:
        row = asdict(call)
        row |= {names[key]: value for key, value in row.pop("model").items()}
        for name in ("input", "output"):
            row[name] = None if row[name] is None else json.dumps(row[name], ensure_ascii=False)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=pa.schema(types.items()))


def _as_frame(table: Any, rows: Any) -> Any:
    match _library(rows):
        case "pandas":
            return table.to_pandas().set_index(rows.index)
        case "polars":
            import polars as pl

            return pl.from_arrow(table)
        case "numpy":
            return _as_array(table)
    return table


def _as_array(table: Any) -> Any:
    import numpy as np

    columns = {name: np.asarray(table[name].to_pylist()) for name in table.column_names}
    found = np.empty(table.num_rows, dtype=[(name, it.dtype) for name, it in columns.items()])
    for name, column in columns.items():
        found[name] = column
    return found


def _library(rows: object) -> str:
    return type(rows).__module__.partition(".")[0]


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError(_NEEDS) from error
    return pa
