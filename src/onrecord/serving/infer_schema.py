"""A schema file drafted from real data, for a person to read and correct."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from onrecord.errors import StartupError
from onrecord.serving.column_reader import RESERVED_NAMES
from onrecord.serving.columns import INTEGER_LIMIT, NUMBER_LIMIT

__all__ = ["infer_schema", "read_data"]

_MOST_CATEGORIES = 50
_MOST_CLASSES = 20
_BLOCK_BYTES = 1 << 30
"""How much of a CSV file is read before its columns' types are settled."""


def infer_schema(data_file: Path, target: str | None) -> dict[str, Any]:
    """Return the document for input_schema.json that fits a CSV or Parquet file.

    `target` is the column that the model predicts, which is no input. Raises StartupError where
    the file cannot be read or a column has a type that no schema can have.
    """
    table = read_data(data_file)
    names: list[str] = table.column_names
    _check_names(names, target, data_file)
    if table.num_rows == 0:
        raise StartupError(f"{data_file} has no rows; give a file with the model's training data")
    columns = [_column(name, table.column(name)) for name in names if name != target]
    if not columns:
        raise StartupError(f"{data_file} has no column beside the target, {target}")
    document: dict[str, Any] = {"columns": columns}
    if target is not None:
        document |= {"target": target, **_answers(table.column(target))}
    return {"input_schema": document}


def read_data(file: Path) -> Any:
    """Return a CSV or Parquet file as an Arrow table; raises StartupError."""
    try:
        import pyarrow as pa
        from pyarrow import csv, parquet
    except ImportError as error:
        raise StartupError(
            "Reading data needs pyarrow, which comes with an extra: pip install 'onrecord[data]'"
        ) from error
    suffix = file.suffix.lower()
    try:
        if suffix == ".csv":
            return csv.read_csv(
                file,
                read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
                convert_options=csv.ConvertOptions(strings_can_be_null=True),
            )
        if suffix in {".parquet", ".pq"}:
            return parquet.ParquetFile(file).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StartupError(f"{file} cannot be read: {error}") from error
    raise StartupError(f"{file} is neither .csv nor .parquet; save the data as one of them")


def _check_names(names: list[str], target: str | None, file: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise StartupError(f"{file} has more than one column named {twice[0]!r}; rename one")
    for place, name in enumerate(names, start=1):
        if not name.strip() or name == "__index_level_0__":
            raise StartupError(
                f"{file}: column {place} is without a name, as an index is; save without the index"
            )
        if name in RESERVED_NAMES and name != target:
            raise StartupError(f'{file}: "{name}" cannot name a column of a schema; rename it')
    if target is not None and target not in names:
        raise StartupError(f"{file} has no column {target!r}; it has {', '.join(names)}")


def _column(name: str, data: Any) -> dict[str, Any]:
    values, kind = _values(name, data)
    column: dict[str, Any] = {"name": name, **_described(name, values, kind)}
    if len(values) < len(data):
        column["nullable"] = True
        if column["type"] == "numeric" and all(value.is_integer() for value in values):
            column |= {"type": "integer", **_range(name, [int(value) for value in values])}
    return column


def _values(name: str, data: Any) -> tuple[list[Any], str]:
    """Return the values that are there, and which kind they are of."""
    import pyarrow as pa

    kind = data.type
    is_dictionary = pa.types.is_dictionary(kind)
    if is_dictionary:
        kind = kind.value_type
        data = data.cast(kind)
    values = [value for value in data.to_pylist() if value is not None]
    if pa.types.is_floating(kind):
        values = [value for value in values if not math.isnan(value)]
    if not values:
        raise StartupError(f"Column {name!r} has no value in any row; leave it out of the data")
    types = pa.types
    if types.is_boolean(kind):
        found = "boolean"
    elif types.is_integer(kind):
        found = "integer"
    elif types.is_floating(kind):
        found = "numeric"
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        found = "text"
    else:
        raise StartupError(
            f"Column {name!r} is of type {data.type}, which no schema has; turn it into a number,"
            " a boolean or a string, or leave it out of the data"
        )
    return values, "categorical" if is_dictionary and found == "text" else found


def _described(name: str, values: list[Any], kind: str) -> dict[str, Any]:
    if kind == "boolean" or (kind == "integer" and set(values) <= {0, 1}):
        return {"type": "boolean", "example": bool(_mode(values))}
    if kind in {"integer", "numeric"}:
        return {"type": kind, **_range(name, values)}
    distinct = sorted(set(values))
    few = len(distinct) <= _MOST_CATEGORIES and 2 * len(distinct) <= len(values)
    if kind == "categorical" or few:
        return {"type": "categorical", "categories": distinct, "example": _mode(values)}
    return {"type": "text", "example": _mode(values)}


def _range(name: str, values: list[Any]) -> dict[str, Any]:
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    limit = INTEGER_LIMIT if isinstance(low, int) else NUMBER_LIMIT
    if low < -limit or high > limit:
        raise StartupError(
            f"Column {name!r} has a value beyond {limit}, the most that a schema can have;"
            " leave the column or those rows out of the data"
        )
    return {"minimum": low, "maximum": high, "example": ordered[(len(ordered) - 1) // 2]}


def _mode(values: list[Any]) -> Any:
    counts = Counter(values)
    most = max(counts.values())
    return min(value for value, count in counts.items() if count == most)


def _answers(data: Any) -> dict[str, Any]:
    """Return the task, and the classes where the target has few distinct values."""
    values, kind = _values("the target", data)
    if kind == "numeric":
        return {"task": "regression"}
    distinct = sorted(set(values))
    if len(distinct) <= _MOST_CLASSES:
        return {"task": "classification", "classes": distinct}
    return {"task": "regression" if kind == "integer" else "classification"}
