"""What of a call is sealed: its leaf, one JSON object that holds every field of it.

The object is in the form of RFC 8785 (JCS): keys sorted, no white space, UTF-8. Input and output
are in it as commitments, SHA-256 of the call's salt, a tag and the bytes: who has the bytes and the
salt can check them, and without the salt they cannot be guessed at. Of a payload that was erased
the row keeps the commitments, so its leaf stays what it was.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from onrecord.record.erasures import Erasure, erasures_between
from onrecord.record.model_changes import ModelChange, changes_between

__all__ = ["Leaves", "Row", "commitments", "leaf_of", "read_leaves", "read_row", "read_rows"]

_FIRST_SEQ = -(1 << 63)
_LAST_SEQ = (1 << 63) - 1

# PostgreSQL would hand over a whole result at once, however large its bodies are.
_FETCHED_AT_ONCE = 256

# Where fewer rows than one of so many are wanted, each is read alone.
_SPARSE = 20

_NO_ERASURE = 0
_NOTHING_KEPT = [None, None, None]


class _Leaf(msgspec.Struct, gc=False):
    """The fields in the order of their names, as JCS has them."""

    api_key_id: str | None
    content_type: str | None
    duration_us: int | None
    error_code: str | None
    error_fields: str | None
    # Left out where it was not asked for, as in leaves from before that was on record.
    explain: bool | msgspec.UnsetType
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
    """A call as it is read for its leaf; texts are those of the leaf, whatever the database.

    `erasure_seq` is the `seq` of the erasure that took the payload; the commitments are there then.
    """

    api_key_id: str | None
    content_type: str | None
    duration_us: int | None
    error_code: str | None
    error_fields: str | None
    explain: bool | None
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
    input_commitment: bytes | None
    output_commitment: bytes | None
    erasure_seq: int | None


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
    """Consecutive leaves: their hashes, and which rows they are.

    `erased` has, for each place whose call has no payload, the `seq` of the erasure that the row
    names: 0 where it names none, or has a payload all the same. At the places in `erasures` stand
    erasures, at those in `changes` changes of which model version answers.
    """

    hashes: list[bytes]
    seqs: list[int]
    ids: list[str]
    erased: dict[int, int] = field(default_factory=dict)
    erasures: dict[int, Erasure] = field(default_factory=dict)
    changes: dict[int, ModelChange] = field(default_factory=dict)

    def take(self, others: Leaves) -> None:
        """Add the leaves that follow these."""
        start = len(self.seqs)
        self.hashes.extend(others.hashes)
        self.seqs.extend(others.seqs)
        self.ids.extend(others.ids)
        self.erased.update({start + place: seq for place, seq in others.erased.items()})
        self.erasures.update({start + place: it for place, it in others.erasures.items()})
        self.changes.update({start + place: it for place, it in others.changes.items()})


def read_leaves(
    connection: Connection, *, after: int | None, limit: int, up_to: int = _LAST_SEQ
) -> Leaves:
    """Return at most `limit` leaves, of calls, erasures and model changes, in the order of `seq`.

    They are those after the seq `after` (None: from the first on) up to `up_to`.
    """
    found = Leaves([], [], [])
    others: list[Erasure | ModelChange] = [
        *erasures_between(connection, after=after, up_to=up_to, limit=limit),
        *changes_between(connection, after=after, up_to=up_to, limit=limit),
    ]
    others.sort(key=attrgetter("seq"))
    with _rows(connection, after, up_to, limit) as rows:
        for seq, request_id, data, erasure in _in_order(_hashed(rows), others, limit):
            if isinstance(erasure, Erasure):
                found.erasures[len(found.seqs)] = erasure
            elif isinstance(erasure, ModelChange):
                found.changes[len(found.seqs)] = erasure
            elif erasure is not None:
                found.erased[len(found.seqs)] = erasure
            found.hashes.append(sha256(data).digest())
            found.seqs.append(seq)
            found.ids.append(request_id)
    return found


_Hashed = tuple[int, str, bytearray, int | Erasure | ModelChange | None]


def _in_order(
    calls: Iterator[_Hashed], others: list[Erasure | ModelChange], limit: int
) -> Iterator[_Hashed]:
    """Return the leaves of calls with the others among them, at most `limit`."""
    if not others:
        return calls
    leaves = ((it.seq, it.id, bytearray(b"\0" + it.leaf()), it) for it in others)
    return islice(heapq.merge(calls, leaves, key=itemgetter(0)), limit)


def read_row(connection: Connection, seq: int) -> Row:
    """Return one call; raises LookupError where there is none with that seq."""
    with _rows(connection, seq - 1, seq, 1) as rows:
        for row in rows:
            return Row(*row)
    raise LookupError(f"there is no row {seq}")


def read_rows(connection: Connection, seqs: Sequence[int]) -> Iterator[Row]:
    """Yield those of the calls with these seqs, ascending, that are there."""
    if seqs and seqs[-1] - seqs[0] < _SPARSE * len(seqs):
        wanted = set(seqs)
        with _rows(connection, seqs[0] - 1, seqs[-1], _LAST_SEQ) as rows:
            for row in map(Row._make, rows):
                if row.seq in wanted:
                    yield row
        return
    for seq in seqs:
        with _rows(connection, seq - 1, seq, 1) as rows:
            yield from map(Row._make, rows)


def leaf_of(row: Row) -> bytes:
    """Return a call's leaf: what is hashed, after a zero byte."""
    ((_, _, data, _),) = _hashed([row])
    return bytes(data[1:])


def commitments(row: Row) -> tuple[bytes | None, bytes | None]:
    """Return the commitments to a call's input and output, which has its payload still."""
    salt = row.salt or b""
    asked = None if row.input is None else sha256(salt + b"input:" + row.input).digest()
    said = None if row.output is None else sha256(salt + b"output:" + row.output).digest()
    return asked, said


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


def _hashed(rows: Iterable[tuple[Any, ...]]) -> Iterator[_Hashed]:
    """Yield seq, id, what is hashed (a zero byte and the leaf) and the erasure's seq of each row.

    A verification walks through the whole record here, and every name and copy costs. All that is
    yielded is in one buffer, which the next row overwrites.
    """
    write = msgspec.json.Encoder().encode_into
    leaf = _Leaf
    data = bytearray(1)
    for row in rows:
        k, a, b, c, d, e, i, key, m, ms, mv, oc, ra, rr, ss, seq, st, u, x, *payload = row
        salt, given, answer, *kept = payload
        told = msgspec.UNSET if e is None else bool(e)
        held = msgspec.UNSET if key is None else key
        asked = None if given is None else sha256(salt + b"input:" + given).hexdigest()
        said = None if answer is None else sha256(salt + b"output:" + answer).hexdigest()
        erasure = None
        if answer is None or kept != _NOTHING_KEPT:
            asked, said, erasure = _erased(asked, said, kept)
        write(
            leaf(
                k, a, b, c, d, told, i, held, asked, m, ms, mv, said, oc, ra, rr, ss, seq, st, u, x
            ),
            data,
            1,
        )
        yield seq, i, data, erasure


def _erased(
    asked: str | None, said: str | None, kept: list[Any]
) -> tuple[str | None, str | None, int]:
    """Return the commitments of a row of which something was erased, and by which erasure.

    What is there counts before what is kept of it, or who put it there would have it believed.
    """
    kept_asked, kept_said, erasure = kept
    if said is not None:
        return asked, said, _NO_ERASURE
    return _hex(kept_asked) if asked is None else asked, _hex(kept_said), erasure or _NO_ERASURE


def _hex(commitment: bytes | None) -> str | None:
    return None if commitment is None else bytes(commitment).hex()
