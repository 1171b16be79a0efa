"""A data file of any size, a chunk of rows at a time, each as the body of one call."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onrecord.errors import StartupError
from onrecord.serving.forms import ARROW, CSV

__all__ = ["Chunk", "DataFile"]

_BUFFER = 1 << 20
_NEEDS = "Reading data needs pyarrow, which comes with an extra: pip install 'onrecord[data]'"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive rows: `first` is the number (from 0) of the first of `rows` in the file."""

    number: int
    first: int
    rows: int
    body: bytes


class DataFile:
    """A CSV or Parquet file; `content_type` is that of its chunks' bodies.

    Parquet becomes Arrow streams. CSV stays CSV, so that the one rule of what a cell means is the
    server's. `rows` is None where only reading tells. Raises StartupError where it cannot be read.
    """

    def __init__(self, path: Path, chunk_rows: int) -> None:
        self.path = path
        self.chunk_rows = chunk_rows
        self._is_csv = path.suffix.lower() == ".csv"
        if not self._is_csv and path.suffix.lower() not in {".parquet", ".pq"}:
            raise StartupError(f"{path} is neither .csv nor .parquet; save the data as one of them")
        self.content_type = CSV if self._is_csv else ARROW
        try:
            import pyarrow as pa
        except ImportError as error:
            raise StartupError(_NEEDS) from error
        self._errors = (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error)
        self.rows: int | None = None
        if not self._is_csv:
            self.rows = self._told(lambda: self._parquet().metadata.num_rows)

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes, in hexadecimal."""

        def read() -> str:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        digest: str = self._told(read)
        return digest

    def chunks(self) -> Iterator[Chunk]:
        """Yield the file's chunks in order, with no more than some of them in memory."""
        batches = self._csv_batches() if self._is_csv else self._parquet_batches()
        first = 0
        for number, table in enumerate(_cut(self._each(batches), self.chunk_rows)):
            yield Chunk(number, first, table.num_rows, self._body(table))
            first += table.num_rows
        if not first:
            raise StartupError(f"{self.path} has no rows")

    def _body(self, table: Any) -> bytes:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        out = io.BytesIO()
        if self._is_csv:
            arrow_csv.write_csv(table, out)
        else:
            with pa.ipc.new_stream(out, table.schema) as stream:
                stream.write_table(table)
        return out.getvalue()

    def _parquet(self) -> Any:
        from pyarrow import parquet

        # Without these a whole row group would be read at once, however large it is.
        return parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER)

    def _parquet_batches(self) -> Iterator[Any]:
        yield from self._parquet().iter_batches(batch_size=self.chunk_rows)

    def _csv_batches(self) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        with self.path.open(encoding="utf-8-sig", newline="") as file:
            names = next((row for row in csv.reader(file, strict=True) if row), [])
        reader = arrow_csv.open_csv(
            self.path,
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_BUFFER),
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=len(names) > 1
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        yield from reader

    def _each(self, batches: Iterator[Any]) -> Iterator[Any]:
        end = object()
        while (batch := self._told(lambda: next(batches, end))) is not end:
            yield batch

    def _told(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except self._errors as error:
            raise StartupError(f"{self.path} cannot be read: {error}") from error


def _cut(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """Yield tables of `rows` rows each, the last one of the rest."""
    import pyarrow as pa

    waiting: list[Any] = []
    count = 0
    for batch in batches:
        if batch.num_rows:
            waiting.append(batch)
            count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows)
            waiting = table.slice(rows).to_batches()
            count -= rows
    if count:
        yield pa.Table.from_batches(waiting)
