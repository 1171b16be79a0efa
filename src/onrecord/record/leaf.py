"""What of a call is sealed: its leaf, one JSON object that holds every field of it.

The object is in the form of RFC 8785 (JCS): keys sorted, no white space, UTF-8. Input and output
are in it as commitments, SHA-256 of the call's salt, a tag and the bytes: who has the bytes and the
salt can check them, and without the salt they cannot be guessed at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

__all__ = ["Leaves", "Row", "leaf_of", "read_leaves", "read_row"]

_FIRST_SEQ = -(1 << 63)
_LAST_SEQ = (1 << 63) - 1

# PostgreSQL would hand over a whole result at once, however large its bodies are.
_FETCHED_AT_ONCE = 256


class _Leaf(msgspec.Struct, gc=False):
    """The fields in the order of their names, as JCS has them."""

    api_key_id: str | None
    content_type: str | None
    duration_us: int | None
    error_code: str | None
    error_fields: str | None
    id: str
    # Left out where there is none, as in leaves from before there were keys.
    idempotency_key: str | msgspec.UnsetType
    input_commitment: str | None
    model: str
    model_sha256: str | None
    model_version: str | None
    output_commitment: str | None
    output_content_type: str | None
    received_at: str
    responded_at: str | None
    schema_sha256: str | None
    seq: int
    status: int | None
    user_id: str
    x_request_id: str | None


class Row(NamedTuple):
    """A call as it is read for its leaf; texts are those of the leaf, whatever the database."""

    api_key_id: str | None
    content_type: str | None
    duration_us: int | None
    error_code: str | None
    error_fields: str | None
    id: str
    idempotency_key: str | None
    model: str
    model_sha256: str | None
    model_version: str | None
    output_content_type: str | None
    received_at: str
    responded_at: str | None
    schema_sha256: str | None
    seq: int
    status: int | None
    user_id: str
    x_request_id: str | None
    salt: bytes | None
    input: bytes | None
    output: bytes | None


_SOURCE = {
    "content_type": "requests.content_type",
    "duration_us": "duration_us",
    "error_code": "error_code",
    "error_fields": "error_fields",
    "id": "requests.id",
    "model": "model",
    "model_sha256": "model_versions.sha256",
    "model_version": "model_versions.version",
    "output_content_type": "responses.content_type",
    "received_at": "received_at",
    "responded_at": "responded_at",
    "schema_sha256": "schema_sha256",
    "user_id": "user_id",
}
_IN_POSTGRESQL = {
    name: f"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    for name in ("received_at", "responded_at")
} | {
    "api_key_id": "api_key_id::text",
    "id": "requests.id::text",
    "user_id": "user_id::text",
}


def _query(source: dict[str, str], place: str) -> str:
    columns = ", ".join(source.get(name, name) for name in Row._fields)
    # A call that has lost its response is still a row: it is not the one that was sealed.
    return (
        f"SELECT {columns} FROM requests "  # noqa: S608 - names of our own
        "LEFT JOIN responses ON request_id = requests.id "
        "LEFT JOIN model_versions ON model_versions.id = model_version_id "
        f"WHERE seq > {place} AND seq <= {place} ORDER BY seq LIMIT {place}"
    )


_QUERIES = {
    "sqlite": _query(_SOURCE, "?"),
    "postgresql": _query(_SOURCE | _IN_POSTGRESQL, "%s"),
}


@dataclass(frozen=True, slots=True)
class Leaves:
    """Consecutive calls: the hashes of their leaves, and which they are."""

    hashes: list[bytes]
    seqs: list[int]
    ids: list[str]


def read_leaves(
    connection: Connection, *, after: int | None, limit: int, up_to: int = _LAST_SEQ
) -> Leaves:
    """Return the leaves of at most `limit` calls in the order of `seq`.

    They are those after the seq `after` (None: from the first on) up to `up_to`.
    """
    found = Leaves([], [], [])
    with _rows(connection, after, up_to, limit) as rows:
        for seq, request_id, data in _hashed(rows):
            found.hashes.append(sha256(data).digest())
            found.seqs.append(seq)
            found.ids.append(request_id)
    return found


def read_row(connection: Connection, seq: int) -> Row:
    """Return one call; raises LookupError where there is none with that seq."""
    with _rows(connection, seq - 1, seq, 1) as rows:
        for row in rows:
            return Row(*row)
    raise LookupError(f"there is no row {seq}")


def leaf_of(row: Row) -> bytes:
    """Return a call's leaf: what is hashed, after a zero byte."""
    ((_, _, data),) = _hashed([row])
    return bytes(data[1:])


@contextlib.contextmanager
def _rows(
    connection: Connection, after: int | None, up_to: int, limit: int
) -> Iterator[Iterable[tuple[Any, ...]]]:
    """Give rows with the values of `Row` by the bare DBAPI, a few at a time in memory."""
    bare: Any = connection.connection.dbapi_connection
    dialect = connection.dialect.name
    if dialect == "postgresql":
        # Without statistics of a large table it would sort all that follows for every read.
        bare.execute("SET LOCAL enable_sort = off")
        cursor = bare.cursor("leaves", binary=True)
        cursor.itersize = _FETCHED_AT_ONCE
    else:
        cursor = bare.cursor()
    with contextlib.closing(cursor):
        cursor.execute(_QUERIES[dialect], (_FIRST_SEQ if after is None else after, up_to, limit))
        yield cursor


def _hashed(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, str, bytearray]]:
    """Yield seq, id and what is hashed for each row: a zero byte and the leaf.

    A verification walks through the whole record here, and every name and copy costs. All that is
    yielded is in one buffer, which the next row overwrites.
    """
    write = msgspec.json.Encoder().encode_into
    leaf = _Leaf
    data = bytearray(1)
    for (
        k,
        a,
        b,
        c,
        d,
        i,
        key,
        m,
        ms,
        mv,
        oc,
        ra,
        rr,
        ss,
        seq,
        st,
        u,
        x,
        salt,
        given,
        answer,
    ) in rows:
        asked = None if given is None else sha256(salt + b"input:" + given).hexdigest()
        said = None if answer is None else sha256(salt + b"output:" + answer).hexdigest()
        held = msgspec.UNSET if key is None else key
        write(
            leaf(k, a, b, c, d, i, held, asked, m, ms, mv, said, oc, ra, rr, ss, seq, st, u, x),
            data,
            1,
        )
        yield seq, i, data
