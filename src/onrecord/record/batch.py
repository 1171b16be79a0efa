"""One durable transaction that puts a batch of calls on record: one statement, by the bare driver.

SQLAlchemy would take longer to say what is to be inserted than the database takes to insert it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

from onrecord.record.call import RecordedCall
from onrecord.record.commit_order import HELD_BY_WRITERS
from onrecord.record.postgresql_arrays import array_oid, encode_array
from onrecord.record.tables import utc_text
from onrecord.record.text import storable

__all__ = ["committer", "find_recorded"]

_REQUEST = (
    "id",
    "user_id",
    "model",
    "model_version_id",
    "x_request_id",
    "content_type",
    "input",
    "received_at",
    "api_key_id",
    "salt",
    "idempotency_key",
    "explain",
)
_RESPONSE = (
    "request_id",
    "status",
    "output",
    "error_code",
    "error_fields",
    "duration_us",
    "responded_at",
    "content_type",
)
_CALLS = "calls_to_record"
# A response's columns in that view: a request has a content type too.
_RESPONSE_HERE = tuple(f"response_{name}" for name in _RESPONSE[1:])
_RECEIVED_AT = _REQUEST.index("received_at")
_RESPONDED_AT = len(_REQUEST) + _RESPONSE_HERE.index("response_responded_at")

_REQUEST_ARRAYS = (
    "uuid", "uuid", "text", "int", "text", "text", "bytea", "timestamptz", "uuid", "bytea", "text",
    "bool",
)  # fmt: skip
_RESPONSE_ARRAYS = ("uuid", "int", "bytea", "text", "text", "int", "timestamptz", "text")

# A statement for every size up to this one: each is prepared once and found in the connection's
# cache.
_SQLITE_SIZE = 64
# A parameter of PostgreSQL holds at most 1 GiB: this many inputs of some MiB each fit one.
_POSTGRESQL_SIZE = 128
_PREPARED = b"put_on_record"
_BINARY = 1

_SALT_BYTES = 16


def committer(connection: Any, dialect: str) -> Callable[[Sequence[RecordedCall]], None]:
    """Return what commits a batch of calls by a bare DBAPI connection of that dialect.

    It does so in one transaction; on any error none is kept and the error is raised.
    """
    if dialect == "postgresql":
        _prepare_postgresql(connection)
        return partial(_commit_to_postgresql, connection)
    _prepare_sqlite(connection)
    return partial(_commit_to_sqlite, connection)


def find_recorded(connection: Any, dialect: str, ids: Sequence[str]) -> set[str]:
    """Return which requests are on record, by a bare DBAPI connection of that dialect."""
    if dialect == "postgresql":
        query = "SELECT id::text FROM requests WHERE id = ANY(%s::uuid[])"
        found = {row[0] for row in connection.execute(query, (list(ids),))}
        connection.rollback()
        return found
    query = "SELECT id FROM requests WHERE id IN (SELECT value FROM json_each(?))"
    return {row[0] for row in connection.execute(query, (json.dumps(list(ids)),))}


def _prepare_sqlite(connection: Any) -> None:
    """Give a connection what `_commit_to_sqlite` needs of it.

    A batch is inserted into a view, of which a trigger makes the two rows of each call, so that
    one statement does it all. The view and its trigger are the connection's own and in no file.
    """
    # A trigger does not notice that the schema has changed since this connection last read it.
    connection.execute("SELECT 1 FROM requests, responses LIMIT 0")
    columns = [*_REQUEST, *_RESPONSE_HERE]
    nothing = ", ".join(f"NULL AS {name}" for name in columns)
    requests = ", ".join(f"NEW.{name}" for name in _REQUEST)
    responses = ", ".join(f"NEW.{name}" for name in _RESPONSE_HERE)
    connection.execute(f"CREATE TEMP VIEW IF NOT EXISTS {_CALLS} AS SELECT {nothing}")
    connection.execute(
        f"CREATE TEMP TRIGGER IF NOT EXISTS put_on_record INSTEAD OF INSERT ON {_CALLS} BEGIN "  # noqa: S608
        f"INSERT INTO main.requests ({', '.join(_REQUEST)}) VALUES ({requests}); "
        f"INSERT INTO main.responses ({', '.join(_RESPONSE)}) VALUES (NEW.id, {responses}); "
        "END"
    )


def _commit_to_sqlite(connection: Any, calls: Sequence[RecordedCall]) -> None:
    if len(calls) == 0:
        _write_nothing_new(connection)
    elif len(calls) <= _SQLITE_SIZE:
        _insert_into_sqlite(connection, calls)  # a statement alone is a transaction
    else:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(calls), _SQLITE_SIZE):
                _insert_into_sqlite(connection, calls[start : start + _SQLITE_SIZE])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _write_nothing_new(connection: Any) -> None:
    """Write what is there already: an empty transaction would succeed on a full disk too."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert_into_sqlite(connection: Any, calls: Sequence[RecordedCall]) -> None:
    values: list[Any] = []
    for call, salt in zip(calls, _salts(len(calls)), strict=True):
        values += _request(call, salt)
        values += _response(call)[1:]
    width = len(_REQUEST) + len(_RESPONSE_HERE)
    for place in (_RECEIVED_AT, _RESPONDED_AT):
        values[place::width] = map(utc_text, values[place::width])
    connection.execute(_sqlite_insert(width, len(calls)), values)


def _prepare_postgresql(connection: Any) -> None:
    """Prepare the statement, unless an earlier committer of the connection has."""
    bare = connection.pgconn
    known = _run(bare.exec_(b"SELECT 1 FROM pg_prepared_statements WHERE name = '%b'" % _PREPARED))
    if not known.ntuples:
        types = [array_oid(kind) for kind in (*_REQUEST_ARRAYS, *_RESPONSE_ARRAYS)]
        _run(bare.prepare(_PREPARED, _POSTGRESQL_INSERT.encode(), types))


def _commit_to_postgresql(connection: Any, calls: Sequence[RecordedCall]) -> None:
    bare = connection.pgconn
    if any(call.idempotency_key is not None for call in calls):
        # Whoever inserts a key waits for another's transaction that has it: two servers that had
        # the same keys in different orders would wait for each other.
        calls = sorted(calls, key=_holder)
    if not calls:
        _run(bare.exec_(b"SELECT 1"))
    elif len(calls) <= _POSTGRESQL_SIZE:
        _insert_into_postgresql(bare, calls)  # a statement alone is a transaction
    else:
        _run(bare.exec_(b"BEGIN"))
        try:
            for start in range(0, len(calls), _POSTGRESQL_SIZE):
                _insert_into_postgresql(bare, calls[start : start + _POSTGRESQL_SIZE])
            _run(bare.exec_(b"COMMIT"))
        except BaseException:
            bare.exec_(b"ROLLBACK")
            raise


def _holder(call: RecordedCall) -> tuple[str, str]:
    return call.user_id, call.idempotency_key or ""


def _insert_into_postgresql(bare: Any, calls: Sequence[RecordedCall]) -> None:
    requests = zip(*map(_request, calls, _salts(len(calls))), strict=True)
    responses = zip(*map(_response, calls), strict=True)
    values = [
        *map(encode_array, _REQUEST_ARRAYS, requests),
        *map(encode_array, _RESPONSE_ARRAYS, responses),
    ]
    _run(bare.exec_prepared(_PREPARED, values, [_BINARY] * len(values)))


def _run(result: Any) -> Any:
    """Return a result of libpq; raises psycopg's error where it is one."""
    if result.error_message:
        from psycopg.errors import error_from_result

        raise error_from_result(result)
    return result


# A server sees few models and content types.
_name = lru_cache(maxsize=64)(storable)


def _salts(count: int) -> list[bytes]:
    random = os.urandom(count * _SALT_BYTES)
    return [random[start : start + _SALT_BYTES] for start in range(0, len(random), _SALT_BYTES)]


def _request(call: RecordedCall, salt: bytes) -> tuple[Any, ...]:
    return (
        call.id,
        call.user_id,
        _name(call.model),
        call.model_version_id,
        None if call.x_request_id is None else storable(call.x_request_id),
        None if call.content_type is None else _name(call.content_type),
        call.input,
        call.received_at,
        call.api_key_id,
        salt,
        call.idempotency_key,
        call.explain or None,
    )


def _response(call: RecordedCall) -> tuple[Any, ...]:
    return (
        call.id,
        call.status,
        call.output,
        call.error_code,
        json.dumps(call.error_fields) if call.error_fields else None,
        call.duration_us,
        call.responded_at,
        call.output_content_type,
    )


@cache
def _sqlite_insert(width: int, rows: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"INSERT INTO {_CALLS} VALUES {', '.join([row] * rows)}"  # noqa: S608 - names of our own


def _from_arrays(table: str, columns: tuple[str, ...], types: tuple[str, ...], first: int) -> str:
    arrays = ", ".join(f"${first + place}::{kind}[]" for place, kind in enumerate(types))
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT it.* FROM unnest({arrays}) AS it"  # noqa: S608 - names of our own


# One statement is one round trip; what a response refers to is checked when the statement ends.
# The lock is taken before the first row gets its seq, which is when the join yields it.
_POSTGRESQL_INSERT = (
    f"WITH held AS MATERIALIZED (SELECT {HELD_BY_WRITERS}), "
    f"recorded AS ({_from_arrays('requests', _REQUEST, _REQUEST_ARRAYS, 1)}, held) "
    f"{_from_arrays('responses', _RESPONSE, _RESPONSE_ARRAYS, 1 + len(_REQUEST))}"
)
