"""Arrow streams and Parquet files as Arrow arrays, with nothing believed that they claim.

Only flat columns that the schema names are read. How many rows there are, and how much memory they
will take, is known before anything is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from onrecord.errors import BodyTooLarge
from onrecord.serving.bounds import Damaged, batch_claims
from onrecord.serving.parquet_claims import page_claims, read_footer
from onrecord.serving.table_checks import Unread, kind_of_type

__all__ = ["KindOf", "Source", "read_arrow", "read_parquet"]


@dataclass(frozen=True)
class Source:
    """A body that is open but not read.

    `names` are its columns' names as they stand, `rows` their number. `read` takes the names of
    wanted columns, each of which stands once, and returns an Arrow array for each, or `Unread`
    where its type fits no column; it raises Damaged, and BodyTooLarge where they would take more
    memory than a body may.
    """

    names: tuple[str, ...]
    rows: int
    read: Callable[[Sequence[str]], dict[str, Any]]


KindOf = Callable[[Any], str | None]
"""Tells what an Arrow type is to the reader of a body, None where its values are not read."""


def read_arrow(body: bytes, limit: int, kind_of: KindOf = kind_of_type) -> Source:
    """Open an Arrow stream; raises Damaged, and BodyTooLarge beyond `limit` bytes."""
    import pyarrow as pa

    rows = size = 0
    with _told():
        for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(body)):
            if message.type in {"record batch", "dictionary"}:
                dictionary = message.type == "dictionary"
                metadata, content = message.metadata.to_pybytes(), memoryview(message.body)
                count, claim = batch_claims(metadata, content, dictionary=dictionary)
                rows += 0 if dictionary else count
                size += claim
                _check_size(size, limit)
        stream = pa.ipc.open_stream(pa.py_buffer(body))
        all_names = tuple(stream.schema.names)

    def read(names: Sequence[str]) -> dict[str, Any]:
        with _told():
            batches = list(stream)
            for batch in batches:
                batch.validate(full=True)
            table = pa.Table.from_batches(batches, stream.schema)
            if table.num_rows != rows:
                raise Damaged("its batches have other lengths than they say")
            return {name: _array(table.column(name), limit, kind_of) for name in names}

    return Source(all_names, rows, read)


def read_parquet(body: bytes, limit: int, kind_of: KindOf = kind_of_type) -> Source:
    """Open a Parquet file; raises Damaged where it is none."""
    import pyarrow as pa
    from pyarrow import parquet

    footer = read_footer(body)
    with _told():
        schema = parquet.ParquetFile(pa.BufferReader(body)).schema_arrow
        all_names = tuple(schema.names)

    def read(names: Sequence[str]) -> dict[str, Any]:
        with _told():
            types = {name: schema.field(name).type for name in names}
            kinds = {name: kind_of(types[name]) for name in names}
            flat = [name for name in names if kinds[name] is not None and footer.is_flat(name)]
            _check_size(page_claims(body, footer, flat), limit)
            # Strings stay in their dictionaries: one that stands in each row is there once.
            strings = [name for name in flat if kinds[name] == "string"]
            file = parquet.ParquetFile(pa.BufferReader(body), read_dictionary=strings)
            table = file.read(columns=flat, use_threads=False)
            table.validate(full=True)
            if flat and table.num_rows != footer.rows:
                raise Damaged("its columns have other lengths than they say")
            found: dict[str, Any] = {
                name: Unread(str(types[name]), footer.rows) for name in names if name not in flat
            }
            return found | {name: _array(table.column(name), limit, kind_of) for name in flat}

    return Source(all_names, footer.rows, read)


def _array(chunked: Any, limit: int, kind_of: KindOf) -> Any:
    """Return a column in one piece, its strings of the one type that every function takes."""
    import pyarrow as pa

    kind = chunked.type
    if kind_of(kind) is None:
        return Unread(str(kind), len(chunked))
    if pa.types.is_dictionary(kind):
        if pa.types.is_string_view(kind.value_type):
            _check_size(sum(_view_bytes(piece.dictionary) for piece in chunked.chunks), limit)
            plain = pa.dictionary(kind.index_type, pa.large_string())
            chunked = pa.chunked_array([_plain_words(p) for p in chunked.chunks], type=plain)
        chunked = chunked.unify_dictionaries()
    elif pa.types.is_string_view(kind):
        _check_size(sum(map(_view_bytes, chunked.chunks)), limit)
        chunked = chunked.cast(pa.large_string())
    return chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()


def _plain_words(piece: Any) -> Any:
    import pyarrow as pa

    words = piece.dictionary.cast(pa.large_string())
    return pa.DictionaryArray.from_arrays(piece.indices, words)


def _view_bytes(strings: Any) -> int:
    """Return the bytes of an array of views if each had its own: several may share some."""
    views = strings.buffers()[1]
    # A view is four 32-bit integers, of which the first is the string's length.
    lengths = np.frombuffer(views, dtype="<i4").reshape(-1, 4)[:, 0]
    own = lengths[strings.offset : strings.offset + len(strings)]
    return int(own.astype(np.int64).sum())


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLarge(f"The rows would take {size} bytes of memory; at most {limit} may be.")


@contextmanager
def _told() -> Iterator[None]:
    """Turn what pyarrow raises on bytes that it cannot read into Damaged."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError) as error:
        said = str(error).strip().splitlines()
        raise Damaged(said[0][:200] if said else type(error).__name__) from error
