"""Traffic: what became of the calls, counted by time as they came onto the record.

The database counts and gives back some groups, so that hardly any of it needs the interpreter that
answers calls. The counts are kept as JSON documents whose meaning is `insight/traffic.py`'s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    func,
    literal_column,
    select,
    type_coerce,
    update,
)

from onrecord.record.tables import api_keys, requests, responses
from onrecord.record.tables import traffic as table
from onrecord.record.tables import traffic_progress as progress
from onrecord.record.upsert import insert_if_missing, put

__all__ = [
    "BINS_AN_OCTAVE",
    "SLICES",
    "Answered",
    "Refused",
    "advance",
    "answered",
    "documents",
    "done_up_to",
    "put_documents",
    "refused",
    "slice_of",
]

SLICES = (timedelta(minutes=10), timedelta(hours=3))
"""What is counted together: the short one for a day, the long one for a month."""

BINS_AN_OCTAVE = 4
"""Bin number n of durations begins at 2^(n / BINS_AN_OCTAVE) microseconds, and bin 0 at none."""

_BINS = 28 * BINS_AN_OCTAVE
_ANSWERED = 200
_THE_ROW = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Answered:
    """So many calls of ten minutes that a version answered in about the same time."""

    since: datetime
    model_version_id: int
    bin: int
    calls: int


@dataclass(frozen=True, slots=True)
class Refused:
    """So many calls of ten minutes that were refused alike; no version where none was reached."""

    since: datetime
    model_version_id: int | None
    status: int
    error_code: str | None
    fields: tuple[str, ...]
    calls: int


def slice_of(moment: datetime, length: timedelta) -> datetime:
    """Return when the slice of that length begins that a moment is in."""
    return moment - (moment - _EPOCH) % length


def answered(connection: Connection, after: int, up_to: int) -> list[Answered]:
    """Count the answered calls whose `seq` is above `after` and at most `up_to`."""
    groups = (_slice(connection), requests.c.model_version_id, _bin())
    query = _grouped(groups, after, up_to).where(responses.c.status == _ANSWERED)
    return [Answered(_begin(it[0]), *it[1:]) for it in connection.execute(query)]


def refused(connection: Connection, after: int, up_to: int) -> list[Refused]:
    """Count the refused calls, likewise."""
    answer = responses.c
    groups = (
        _slice(connection),
        requests.c.model_version_id,
        answer.status,
        answer.error_code,
        answer.error_fields,
    )
    query = _grouped(groups, after, up_to).where(answer.status != _ANSWERED)
    return [
        Refused(_begin(since), version, status, code, tuple(json.loads(fields or "[]")), calls)
        for since, version, status, code, fields, calls in connection.execute(query)
    ]


def done_up_to(connection: Connection) -> int:
    """Return up to which `seq` the calls are counted."""
    query = select(progress.c.done_up_to).where(progress.c.id == _THE_ROW)
    return connection.execute(query).scalar_one_or_none() or 0


def advance(connection: Connection, done: int, to: int) -> bool:
    """Note that the calls up to `to` are counted, where those up to `done` were.

    Returns False where somebody else has come further meanwhile. What of it holds for the documents
    that are put in the same transaction, which must be one for writing.
    """
    insert_if_missing(connection, progress, {"id": _THE_ROW, "done_up_to": 0})
    statement = (
        update(progress)
        .where(progress.c.id == _THE_ROW, progress.c.done_up_to == done)
        .values(done_up_to=to)
    )
    return connection.execute(statement).rowcount == 1


def documents(
    connection: Connection, length: timedelta, since: datetime, until: datetime
) -> dict[datetime, str]:
    """Return the documents of the slices of a length that begin in a time, by when they begin."""
    query = select(table.c.since, table.c.document).where(
        table.c.minutes == length // _MINUTE, table.c.since >= since, table.c.since < until
    )
    return {row.since: row.document for row in connection.execute(query.order_by(table.c.since))}


def put_documents(connection: Connection, length: timedelta, found: Mapping[datetime, str]) -> None:
    """Put the documents of some slices of a length in place of those that are there."""
    minutes = length // _MINUTE
    rows = [{"minutes": minutes, "since": at, "document": text} for at, text in found.items()]
    put(connection, table, rows)


def _grouped(groups: tuple[ColumnElement[Any], ...], after: int, up_to: int) -> Any:
    by_test_key = select(api_keys.c.id).where(api_keys.c.kind == "test")
    key = requests.c.api_key_id
    return (
        select(*groups, func.count())
        .select_from(requests.join(responses, responses.c.request_id == requests.c.id))
        .where(requests.c.seq > after, requests.c.seq <= up_to)
        .where(key.is_(None) | key.not_in(by_test_key))
        .group_by(*groups)
    )


def _slice(connection: Connection) -> ColumnElement[str]:
    """Return the time that a call came, as text up to the tens of its minutes."""
    column: ColumnElement[Any] = type_coerce(requests.c.received_at, Text)
    if connection.dialect.name == "postgresql":
        column = func.to_char(
            func.timezone("UTC", requests.c.received_at),
            literal_column("""'YYYY-MM-DD"T"HH24:MI'"""),
        )
    return func.substr(column, literal_column("1"), literal_column("15"))


def _begin(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}0:00+00:00")


def _bin() -> ColumnElement[int]:
    """Return the number of a duration's bin, found by halving, as no function is in both."""

    def among(low: int, high: int) -> str:
        if high - low == 1:
            return str(low)
        middle = (low + high) // 2
        edge = math.ceil(2 ** (middle / BINS_AN_OCTAVE))
        below, above = among(low, middle), among(middle, high)
        return f"CASE WHEN responses.duration_us < {edge} THEN {below} ELSE {above} END"

    return literal_column(among(0, _BINS), type_=requests.c.model_version_id.type)
