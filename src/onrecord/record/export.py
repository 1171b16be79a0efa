"""The record as a file: CSV, JSON lines or Parquet, written as it is read."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from itertools import islice
from typing import Any, BinaryIO, Literal

from onrecord.errors import StartupError
from onrecord.record.reader import Entry
from onrecord.record.tables import utc_text

__all__ = ["Format", "export"]

Format = Literal["csv", "jsonl", "parquet"]

_PARQUET_ROWS = 1000
_TIMES = ("received_at", "responded_at", "erased_at")
_BYTES = ("input", "output")
_OBEYED = [*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Characters that JSON need not escape and that a terminal would obey."""
_ESCAPES = {code: f"\\u{code:04x}" for code in _OBEYED}


def export(entries: Iterable[Entry], out: BinaryIO, format: Format) -> int:  # noqa: A002
    """Write `entries` to `out`, which stays open, and return how many they were.

    In CSV and JSON lines, `input` and `output` are text: the bytes as UTF-8, or, where they are
    not UTF-8, in base64, and then `input_base64` or `output_base64` is true. Parquet keeps the
    bytes. Raises StartupError where Parquet is asked for and pyarrow is not installed.
    """
    writers: dict[Format, Callable[[Iterable[Entry], BinaryIO], int]] = {
        "csv": _write_csv,
        "jsonl": _write_jsonl,
        "parquet": _write_parquet,
    }
    return writers[format](entries, out)


def _write_csv(entries: Iterable[Entry], out: BinaryIO) -> int:
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text)
        writer.writerow(_text_columns())
        written = 0
        for entry in entries:
            row = _as_text(entry)
            row["error_fields"] = json.dumps(row["error_fields"])
            writer.writerow(_csv_value(value) for value in row.values())
            written += 1
        return written
    finally:
        text.detach()


def _csv_value(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _write_jsonl(entries: Iterable[Entry], out: BinaryIO) -> int:
    written = 0
    for entry in entries:
        line = json.dumps(_as_text(entry), ensure_ascii=False).translate(_ESCAPES)
        out.write(line.encode() + b"\n")
        written += 1
    return written


def _text_columns() -> Iterator[str]:
    for field in fields(Entry):
        yield field.name
        if field.name in _BYTES:
            yield f"{field.name}_base64"


def _as_text(entry: Entry) -> dict[str, Any]:
    """Return an entry's columns, in the order of `_text_columns`, with nothing but JSON types."""
    row: dict[str, Any] = {}
    for field in fields(entry):
        name, value = field.name, getattr(entry, field.name)
        if name in _BYTES:
            row[name], row[f"{name}_base64"] = _bytes_as_text(value)
        elif name in _TIMES:
            row[name] = None if value is None else utc_text(value)
        else:
            row[name] = list(value) if isinstance(value, tuple) else value
    return row


def _bytes_as_text(content: bytes | None) -> tuple[str | None, bool]:
    if content is None:
        return None, False
    try:
        return content.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(content).decode("ascii"), True


def _write_parquet(entries: Iterable[Entry], out: BinaryIO) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise StartupError(
            "Writing Parquet needs pyarrow, which comes with an extra: pip install 'onrecord[data]'"
        ) from error
    schema = _parquet_schema(pa)
    names = schema.names
    written = 0
    remaining = iter(entries)
    with parquet.ParquetWriter(out, schema) as writer:
        while batch := list(islice(remaining, _PARQUET_ROWS)):
            columns = {name: [getattr(entry, name) for entry in batch] for name in names}
            writer.write_table(pa.table(columns, schema=schema))
            written += len(batch)
    return written


def _parquet_schema(pa: Any) -> Any:
    special = {
        "model_version_id": pa.int64(),
        "status": pa.int32(),
        "duration_us": pa.int64(),
        "error_fields": pa.list_(pa.string()),
        "test": pa.bool_(),
        "explain": pa.bool_(),
        **dict.fromkeys(_BYTES, pa.binary()),
        **dict.fromkeys(_TIMES, pa.timestamp("us", tz="UTC")),
    }
    return pa.schema(
        [(field.name, special.get(field.name, pa.string())) for field in fields(Entry)]
    )
