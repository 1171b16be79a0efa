"""Arrays as PostgreSQL's binary protocol has them.

psycopg makes every element of a list by itself, in Python: that took as long as the database took
to store it. The form is that of `array_recv` and of the types' own `recv` functions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["array_oid", "encode_array"]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HEAD = struct.Struct("!iiIii")
_NULL = b"\xff\xff\xff\xff"


def _bool(value: bool) -> bytes:
    return b"\x01" if value else b"\0"


def _int(value: int) -> bytes:
    return value.to_bytes(4, "big", signed=True)


def _timestamptz(value: datetime) -> bytes:
    return ((value - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)


def _uuid(value: str) -> bytes:
    return bytes.fromhex(value.replace("-", ""))


def _bytea(value: bytes) -> bytes:
    return value


# By name: the type's own number, its array's (both from pg_type.dat), and one value's encoder.
_TYPES: dict[str, tuple[int, int, Callable[[Any], bytes]]] = {
    "bool": (16, 1000, _bool),
    "bytea": (17, 1001, _bytea),
    "int": (23, 1007, _int),
    "text": (25, 1009, str.encode),
    "timestamptz": (1184, 1185, _timestamptz),
    "uuid": (2950, 2951, _uuid),
}


def array_oid(kind: str) -> int:
    """Return the number of the type of arrays of a type."""
    return _TYPES[kind][1]


def encode_array(kind: str, values: Sequence[Any]) -> bytes:
    """Return an array of one dimension; None is NULL.

    Times are aware datetimes and UUIDs are text. Raises ValueError, TypeError or OverflowError
    where a value is none of the type.
    """
    oid, _, encode = _TYPES[kind]
    pieces = [b""]
    has_null = 0
    for value in values:
        if value is None:
            has_null = 1
            pieces.append(_NULL)
        else:
            encoded = encode(value)
            pieces.append(len(encoded).to_bytes(4, "big"))
            pieces.append(encoded)
    pieces[0] = _HEAD.pack(1, has_null, oid, len(values), 1)
    return b"".join(pieces)
