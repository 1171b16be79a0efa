"""Queries on the record: one call, a page of calls, all of them in order."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, false, func, literal_column, select
from sqlalchemy.sql.elements import ColumnElement

from onrecord.record.ids import first_id_at, is_id
from onrecord.record.tables import (
    api_keys,
    erasures,
    model_versions,
    requests,
    responses,
    users,
)
from onrecord.record.text import storable

__all__ = [
    "BY_TEST_KEY",
    "FIRST_ERROR",
    "IS_REFUSED",
    "Entry",
    "Filters",
    "answers",
    "conditions_of",
    "count",
    "find",
    "find_by_key",
    "page",
    "stream",
    "times_of",
]

_STREAM_ROWS = 1000
_MOST_BYTES = 16 << 20
FIRST_ERROR = 400
BY_TEST_KEY = api_keys.c.kind.is_not_distinct_from(literal_column("'test'"))
"""Whether a call was made by a test key."""

IS_REFUSED = responses.c.status >= literal_column(str(FIRST_ERROR))
"""The condition of the partial index of refusals, which serves only who states it literally."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One call on record: what was asked, what was answered, who asked and what answered.

    `model_version` and `model_sha256` are None where no model was reached; `test` is whether a test
    key made the call. Where the payload was erased, `erased_at` and `erasure_id` say when and by
    which erasure, and there is neither `input` nor `output`. The other fields are those of
    `RecordedCall`; `username` is the name the user has (or had, where deleted).
    """

    id: str
    user_id: str
    username: str
    model: str
    model_version_id: int | None
    model_version: str | None
    model_sha256: str | None
    x_request_id: str | None
    content_type: str | None
    input: bytes | None
    received_at: datetime
    status: int
    output: bytes | None
    error_code: str | None
    error_fields: tuple[str, ...]
    duration_us: int
    responded_at: datetime
    output_content_type: str | None = None
    api_key_id: str | None = None
    test: bool = False
    idempotency_key: str | None = None
    explain: bool = False
    erased_at: datetime | None = None
    erasure_id: str | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which calls are meant; None does not restrict.

    `model`, `models` (any of them) and `version` are names; `since` (included) and `until` (left
    out) bound the time a call arrived, to the millisecond. `test` is whether the calls of test keys
    are meant, or all others.
    """

    user_id: str | None = None
    model: str | None = None
    models: frozenset[str] | None = None
    version: str | None = None
    status: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    x_request_id: str | None = None
    api_key_id: str | None = None
    test: bool | None = False


def find(connection: Connection, request_id: str, user_id: str | None) -> Entry | None:
    """Return the call with an id, or None; with a `user_id`, only where the call is its own."""
    if not is_id(request_id):
        return None
    meant = Filters(user_id=user_id, test=None)
    query = _where(_entries(), meant).where(requests.c.id == request_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _entry(row)


def answers(
    connection: Connection, request_ids: Collection[str], filters: Filters
) -> Iterator[tuple[str, bytes, str | None]]:
    """Yield the answers to those of some calls that are meant and have one.

    Each comes with the call's id and its content type, None where the answer is JSON. Calls that
    were refused, and those whose answer was erased, have none. They are read a few at a time, since
    each may be large.
    """
    size = func.octet_length(responses.c.output).label("size")
    of_them = _where(select(requests.c.id, size).select_from(_joined()), filters).where(
        responses.c.output.is_not(None), responses.c.error_code.is_(None)
    )
    columns = (responses.c.request_id, responses.c.output, responses.c.content_type)
    known = sorted(filter(is_id, request_ids))
    for start in range(0, len(known), _STREAM_ROWS):
        sizes = connection.execute(
            of_them.where(requests.c.id.in_(known[start : start + _STREAM_ROWS]))
        )
        for ids in _within_memory([(row.id, row.size) for row in sizes]):
            query = select(*columns).where(responses.c.request_id.in_(ids))
            for row in connection.execute(query).all():
                # None where it was erased a moment ago.
                if row.output is not None:
                    yield row.request_id, bytes(row.output), row.content_type


def _within_memory(sizes: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """Yield ids in groups whose answers are no more than some MiB, or are one."""
    group: list[str] = []
    taken = 0
    for name, size in sizes:
        if group and taken + size > _MOST_BYTES:
            yield group
            group, taken = [], 0
        group.append(name)
        taken += size
    if group:
        yield group


def find_by_key(connection: Connection, user_id: str, idempotency_key: str) -> Entry | None:
    """Return the call of a user that holds an idempotency key, or None."""
    query = _entries().where(
        requests.c.user_id == user_id, requests.c.idempotency_key == idempotency_key
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _entry(row)


def page(
    connection: Connection, filters: Filters, *, limit: int, before: str | None
) -> list[Entry]:
    """Return at most `limit` calls, newest first, that are older than the id `before`."""
    key = _key(filters)
    query = _where(_entries(), filters).order_by(key.desc()).limit(limit)
    if before is not None:
        query = query.where(key < before if is_id(before) else false())
    return [_entry(row) for row in connection.execute(query)]


def count(connection: Connection, filters: Filters) -> int:
    """Return how many calls there are."""
    query = _where(select(func.count()).select_from(_joined()), filters)
    return int(connection.execute(query).scalar_one())


def stream(connection: Connection, filters: Filters) -> Iterator[Entry]:
    """Yield the calls oldest first, reading them a batch at a time."""
    key = _key(filters)
    query = _where(_entries(), filters).order_by(key).limit(_STREAM_ROWS)
    rows = connection.execute(query).all()
    while rows:
        yield from map(_entry, rows)
        if len(rows) < _STREAM_ROWS:
            return
        rows = connection.execute(query.where(key > rows[-1].id)).all()


def _joined() -> Any:
    return (
        requests.join(responses, responses.c.request_id == requests.c.id)
        .outerjoin(users, users.c.id == requests.c.user_id)
        .outerjoin(model_versions, model_versions.c.id == requests.c.model_version_id)
        .outerjoin(api_keys, api_keys.c.id == requests.c.api_key_id)
        .outerjoin(erasures, erasures.c.seq == requests.c.erasure_seq)
    )


def _entries() -> Select[Any]:
    told = {"request_id", "content_type", "output_commitment"}
    of_the_seal = {"seq", "salt", "input_commitment", "erasure_seq"}
    call = [column for column in requests.c if column.name not in of_the_seal]
    answer = [column for column in responses.c if column.name not in told]
    return select(
        *call,
        *answer,
        responses.c.content_type.label("output_content_type"),
        users.c.username,
        model_versions.c.version.label("model_version"),
        model_versions.c.sha256.label("model_sha256"),
        BY_TEST_KEY.label("test"),
        erasures.c.erased_at,
        erasures.c.id.label("erasure_id"),
    ).select_from(_joined())


def _key(filters: Filters) -> ColumnElement[str]:
    """Return the id to order by: that of the table whose index the filters can use."""
    if filters.status is not None and filters.status >= FIRST_ERROR:
        return responses.c.request_id
    return requests.c.id


def _where(query: Select[Any], filters: Filters) -> Select[Any]:
    conditions = [*conditions_of(filters), *times_of(_key(filters), filters)]
    if filters.status is not None and filters.status >= FIRST_ERROR:
        conditions.append(IS_REFUSED)
    if filters.x_request_id is not None:
        conditions.append(requests.c.x_request_id == storable(filters.x_request_id))
    return query.where(*conditions)


def conditions_of(filters: Filters) -> list[ColumnElement[bool]]:
    """Return what a call must be by its caller, its model and its status."""
    conditions = _of_callers(filters)
    if filters.model is not None:
        conditions.append(requests.c.model == storable(filters.model))
    if filters.models is not None:
        conditions.append(requests.c.model.in_(map(storable, filters.models)))
    if filters.version is not None:
        conditions.append(model_versions.c.version == storable(filters.version))
    if filters.status is not None:
        conditions.append(responses.c.status == filters.status)
    return conditions


def times_of(key: ColumnElement[str], filters: Filters) -> list[ColumnElement[bool]]:
    """Return when a call must have come, as bounds of its id."""
    conditions = []
    if filters.since is not None:
        conditions.append(key >= first_id_at(filters.since))
    if filters.until is not None:
        conditions.append(key < first_id_at(filters.until))
    return conditions


def _of_callers(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.user_id is not None:
        known = is_id(filters.user_id)
        conditions.append(requests.c.user_id == filters.user_id if known else false())
    if filters.api_key_id is not None:
        known = is_id(filters.api_key_id)
        conditions.append(requests.c.api_key_id == filters.api_key_id if known else false())
    if filters.test is not None:
        conditions.append(BY_TEST_KEY if filters.test else ~BY_TEST_KEY)
    return conditions


def _entry(row: Row[Any]) -> Entry:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values["explain"] = bool(values["explain"])
    values["error_fields"] = tuple(json.loads(values["error_fields"] or "[]"))
    return Entry(**values)
