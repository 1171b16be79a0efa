from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from psycopg import pq

from onrecord.record.postgresql_arrays import array_oid, encode_array


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_url, client_encoding="utf8") as connection:
        yield connection


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bytea", [b"", None, bytes(range(256)), b"x" * 100_000]),
        ("int", [0, None, -1, 2**31 - 1, -(2**31)]),
        ("text", ["", None, "\N{SNOWMAN}\U0001f600", "a\nb"]),
        (
            "timestamptz",
            [
                datetime(2026, 11, 25, 9, 0, 0, 123456, UTC),
                None,
                datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
                datetime(2026, 11, 25, tzinfo=timezone(timedelta(hours=-5))),
            ],
        ),
        ("uuid", [str(uuid.UUID(int=0)), None, str(uuid.UUID(int=2**128 - 1))]),
        ("uuid", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_postgresql_reads_what_was_meant(
    connection: psycopg.Connection, kind: str, values: list[Any]
) -> None:
    result = connection.pgconn.exec_params(
        f"SELECT element::text FROM unnest($1::{kind}[]) WITH ORDINALITY AS them(element, place)"
        " ORDER BY place".encode(),
        [encode_array(kind, values)],
        [array_oid(kind)],
        [pq.Format.BINARY],
    )
    assert not result.error_message

    read = [result.get_value(row, 0) for row in range(result.ntuples)]
    written = connection.execute(
        f"SELECT element::text FROM unnest(%s::{kind}[]) AS element", [values]
    ).fetchall()
    assert [None if value is None else value.decode() for value in read] == [
        value for (value,) in written
    ]


@pytest.mark.parametrize(
    ("kind", "bad"),
    [("int", 2**31), ("uuid", "not hex"), ("text", "\ud800"), ("timestamptz", "today")],
)
def test_what_is_none_of_the_type_is_refused(kind: str, bad: object) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        encode_array(kind, [bad])
