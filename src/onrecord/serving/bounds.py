"""How much an Arrow stream will take in memory, read before anything is unpacked.

A few kilobytes can unpack to gigabytes. The format says how large each piece becomes, and the
library that unpacks a piece makes room for exactly that much; so the sum is checked first, from the
same bytes that the library reads.

Source: the Arrow columnar format, "IPC Message Format" (format/Message.fbs), and FlatBuffers' wire
form.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["Damaged", "batch_claims"]

_VERSION_5 = 4


class Damaged(ValueError):
    """The bytes are not of the format that they claim to be of, or of a form not read here."""


def batch_claims(metadata: bytes, body: memoryview, *, dictionary: bool) -> tuple[int, int]:
    """Return how many rows a record batch has, and how many bytes its buffers will take.

    `metadata` is the message's FlatBuffer and `body` what follows it; of a dictionary's message it
    is the batch within. Raises Damaged.
    """
    try:
        message = _pointed(metadata, 0)
        version = _field(metadata, message, 0)
        if version is None or struct.unpack_from("<h", metadata, version)[0] < _VERSION_5:
            raise Damaged("it is in the form that Arrow had before its version 1.0")
        batch = _table(metadata, message, 2)
        if dictionary:
            batch = _table(metadata, batch, 1)
        rows = _number(metadata, batch, 0)
        compressed = _field(metadata, batch, 3) is not None
        size = 0
        for offset, length in _pairs(metadata, batch, 2):
            if not 0 <= offset <= offset + length <= len(body):
                raise Damaged("a buffer lies outside its message")
            claim = length
            if compressed and length:
                (claim,) = struct.unpack_from("<q", body, offset)
                claim = length if claim < 0 else claim  # -1: this buffer is not compressed
            size += claim
    except (struct.error, IndexError) as error:
        raise Damaged("a message is cut off") from error
    return rows, size


def _pointed(raw: bytes, at: int) -> int:
    (offset,) = struct.unpack_from("<I", raw, at)
    return at + int(offset)


def _field(raw: bytes, table: int, field: int) -> int | None:
    """Return where a FlatBuffers table holds a field, None where it does not."""
    (back,) = struct.unpack_from("<i", raw, table)
    entries = table - back
    if entries < 0:
        raise Damaged("a message is cut off")
    (size,) = struct.unpack_from("<H", raw, entries)
    entry = 4 + 2 * field
    if entry >= size:
        return None
    (offset,) = struct.unpack_from("<H", raw, entries + entry)
    return table + offset if offset else None


def _table(raw: bytes, table: int, field: int) -> int:
    at = _field(raw, table, field)
    if at is None:
        raise Damaged("a message has no content")
    return _pointed(raw, at)


def _number(raw: bytes, table: int, field: int) -> int:
    at = _field(raw, table, field)
    return 0 if at is None else int(struct.unpack_from("<q", raw, at)[0])


def _pairs(raw: bytes, table: int, field: int) -> Iterator[tuple[int, int]]:
    at = _field(raw, table, field)
    if at is None:
        return
    start = _pointed(raw, at)
    (count,) = struct.unpack_from("<I", raw, start)
    if start + 4 + 16 * count > len(raw):
        raise Damaged("a message is cut off")
    yield from struct.iter_unpack("<qq", raw[start + 4 : start + 4 + 16 * count])
