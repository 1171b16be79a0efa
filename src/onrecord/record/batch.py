"""One durable transaction that puts a batch of calls on record, by the bare DBAPI.

`executemany` would drop and take the GIL once per row and so stall the event loop; these drop it
once per statement of many rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from onrecord.record.call import RecordedCall
from onrecord.record.tables import utc_text
from onrecord.record.text import storable

__all__ = ["commit_to_postgresql", "commit_to_sqlite"]

_REQUEST = (
    "id",
    "user_id",
    "model",
    "model_version_id",
    "x_request_id",
    "content_type",
    "input",
    "received_at",
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
_REQUEST_ARRAYS = ("uuid", "uuid", "text", "int", "text", "text", "bytea", "timestamptz")
_RESPONSE_ARRAYS = ("uuid", "int", "bytea", "text", "text", "int", "timestamptz", "text")

# A statement for every size up to this one: each is prepared once and found in the connection's
# cache. Two statements a batch hand the GIL over as rarely as can be.
_SQLITE_SIZE = 64
# A parameter of PostgreSQL holds at most 1 GiB: this many inputs of some MiB each fit one.
_POSTGRESQL_SIZE = 128


def commit_to_sqlite(connection: Any, calls: Sequence[RecordedCall]) -> None:
    """Commit `calls` in one transaction; on any error none is kept and the error is raised."""
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    try:
        for start in range(0, len(calls), _SQLITE_SIZE):
            chunk = calls[start : start + _SQLITE_SIZE]
            requests = [value for call in chunk for value in _request(call)]
            requests[7::8] = [utc_text(moment) for moment in requests[7::8]]
            responses = [value for call in chunk for value in _response(call)]
            responses[6::8] = [utc_text(moment) for moment in responses[6::8]]
            cursor.execute(_sqlite_insert("requests", _REQUEST, len(chunk)), requests)
            cursor.execute(_sqlite_insert("responses", _RESPONSE, len(chunk)), responses)
        cursor.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            cursor.execute("ROLLBACK")
        raise
    finally:
        cursor.close()


def commit_to_postgresql(connection: Any, calls: Sequence[RecordedCall]) -> None:
    """Commit `calls` in one transaction; on any error none is kept and the error is raised."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            for start in range(0, len(calls), _POSTGRESQL_SIZE):
                chunk = calls[start : start + _POSTGRESQL_SIZE]
                cursor.execute(
                    _postgresql_insert("requests", _REQUEST, _REQUEST_ARRAYS),
                    [list(column) for column in zip(*map(_request, chunk), strict=True)],
                )
                cursor.execute(
                    _postgresql_insert("responses", _RESPONSE, _RESPONSE_ARRAYS),
                    [list(column) for column in zip(*map(_response, chunk), strict=True)],
                )
        connection.commit()
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise


def _request(call: RecordedCall) -> tuple[Any, ...]:
    return (
        call.id,
        call.user_id,
        storable(call.model),
        call.model_version_id,
        None if call.x_request_id is None else storable(call.x_request_id),
        None if call.content_type is None else storable(call.content_type),
        call.input,
        call.received_at,
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
def _sqlite_insert(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - names of our own


@cache
def _postgresql_insert(table: str, columns: tuple[str, ...], types: tuple[str, ...]) -> str:
    arrays = ", ".join(f"%s::{name}[]" for name in types)
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({arrays})"  # noqa: S608 - names of our own
