"""Looking through the record, newest call first, at a cost that does not grow with it.

An index leads to the calls of one user, version, key or refusal. Whatever else a call must be is
judged on the newest of those, its *window*, and whoever wants to look further back
goes on from the window's end: no question reads the whole record because hardly anything fits it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Subquery,
    Text,
    case,
    cast,
    false,
    func,
    null,
    select,
    union_all,
)

from onrecord.record.ids import is_id
from onrecord.record.reader import (
    BY_TEST_KEY,
    FIRST_ERROR,
    IS_REFUSED,
    Filters,
    conditions_of,
    times_of,
)
from onrecord.record.tables import api_keys, model_versions, requests, responses, users
from onrecord.record.text import storable

__all__ = [
    "MOST_BYTES",
    "Counts",
    "Line",
    "counts",
    "end_of_window",
    "fitting",
    "lines",
    "payloads",
]

MOST_BYTES = 64 * 1024
"""Longer inputs and answers are not read for a list."""

_PAYLOAD = ("content_type", "input", "output_content_type", "output")


@dataclass(frozen=True, slots=True)
class Line:
    """One call, as a list shows it.

    `version` and `number` are None where no model was reached. `input` and `output` are None where
    they were erased, never there, or longer than `MOST_BYTES`; their lengths are in bytes.
    """

    id: str
    user_id: str
    username: str
    model: str
    version: str | None
    number: int | None
    x_request_id: str | None
    received_at: datetime
    status: int
    error_code: str | None
    error_fields: tuple[str, ...]
    duration_us: int
    test: bool
    erased: bool
    content_type: str | None
    input: bytes | None
    input_bytes: int | None
    output: bytes | None
    output_bytes: int | None
    output_content_type: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of the calls in a window fit, and how they are spread.

    `window` is how many calls were looked at, and `whole` whether there are no older ones.
    `models` counts them by name, `versions` by the model's name, number and label, `users` by id
    and name.
    """

    calls: int
    window: int
    whole: bool
    models: Counter[str]
    versions: Counter[tuple[str, int, str]]
    statuses: Counter[int]
    users: Counter[tuple[str, str]]


def fitting(
    connection: Connection, filters: Filters, *, before: str | None, limit: int, window: int
) -> list[str]:
    """Return the ids of the newest calls that fit, `limit` at most, of a window before an id."""
    near = _window(connection, filters, before, window)
    query = (
        select(near.c.id)
        .select_from(_joined(near))
        .where(*conditions_of(filters))
        .order_by(near.c.id.desc())
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def payloads(
    connection: Connection, filters: Filters, *, before: str | None, window: int
) -> list[tuple[str, str | None, bytes | None, str | None, bytes | None]]:
    """Return what the calls that fit in a window before an id were asked and answered.

    Of each that is the id, and the content type and bytes of input and answer, newest first; bytes
    are None as in `Line`. Rows are as the driver has them, as there are many.
    """
    near = _window(connection, filters, before, window)
    columns = [it for it in _columns() if it.name in _PAYLOAD]
    query = (
        select(cast(requests.c.id, Text), *sorted(columns, key=lambda it: _PAYLOAD.index(it.name)))
        .select_from(_joined(near))
        .where(*conditions_of(filters))
        .order_by(near.c.id.desc())
    )
    with connection.execute(query) as found:
        return list(found.cursor.fetchall())


def lines(connection: Connection, ids: Sequence[str]) -> list[Line]:
    """Return the calls of some ids that are there, newest first."""
    near = select(requests.c.id).where(requests.c.id.in_(ids)).subquery("near")
    query = select(*_columns()).select_from(_joined(near)).order_by(near.c.id.desc())
    return [_line(row) for row in connection.execute(query)]


def end_of_window(
    connection: Connection, filters: Filters, before: str | None, window: int
) -> str | None:
    """Return the id of the oldest call in a window, None where there are no calls beyond it."""
    query = _keys(connection, filters, before).offset(window - 1).limit(2)
    found = connection.execute(query).scalars().all()
    return found[0] if len(found) > 1 else None


def counts(connection: Connection, filters: Filters, *, window: int) -> Counts:
    """Count the calls that fit among the `window` newest."""
    near = _window(connection, filters, None, window)
    looked_at = connection.execute(select(func.count()).select_from(near)).scalar_one()
    groups = (
        requests.c.model,
        requests.c.model_version_id,
        responses.c.status,
        requests.c.user_id,
    )
    query = (
        select(*groups, func.count().label("calls"))
        .select_from(_joined(near))
        .where(*conditions_of(filters))
        .group_by(*groups)
    )
    rows = connection.execute(query).all()
    known = _known(connection, model_versions, {row.model_version_id for row in rows})
    names = _known(connection, users, {row.user_id for row in rows})
    calls = sum(row.calls for row in rows)
    found = Counts(calls, looked_at, looked_at < window, *(Counter() for _ in range(4)))
    for row in rows:
        found.models[row.model] += row.calls
        found.statuses[row.status] += row.calls
        found.users[row.user_id, names[row.user_id].username] += row.calls
        if row.model_version_id is not None:
            it = known[row.model_version_id]
            found.versions[it.name, it.number, it.version] += row.calls
    return found


def _known(connection: Connection, table: Any, keys: set[Any]) -> dict[Any, Row[Any]]:
    query = select(table).where(table.c.id.in_(keys - {None}))
    return {row.id: row for row in connection.execute(query)}


def _window(connection: Connection, filters: Filters, before: str | None, window: int) -> Subquery:
    near: Subquery = _keys(connection, filters, before).limit(window).subquery("near")
    return near


def _keys(connection: Connection, filters: Filters, before: str | None) -> Any:
    """Return the query of the ids that an index leads to, newest first."""
    by_answer = filters.status is not None and filters.status >= FIRST_ERROR
    owned = filters.user_id is not None or filters.api_key_id is not None
    if filters.x_request_id is not None:
        return _newest([_bounded(filters, before, _of_request_id(filters.x_request_id))])
    if owned:
        return _newest([_bounded(filters, before, _of_owner(filters))])
    if by_answer:
        return _newest([_bounded_answers(filters, before)])
    if filters.model is not None or filters.version is not None:
        keys = _version_keys(connection, filters)
        column = requests.c.model_version_id
        return _newest([_bounded(filters, before, [column.is_not_distinct_from(k)]) for k in keys])
    return _newest([_bounded(filters, before, [])])


def _newest(branches: Sequence[Select[Any]]) -> Any:
    """Return some queries of ids as one, in whose order both databases merge them."""
    if len(branches) == 1:
        return branches[0].order_by(branches[0].selected_columns[0].desc())
    both = union_all(*branches)
    return both.order_by(both.selected_columns[0].desc())


def _bounded(
    filters: Filters, before: str | None, conditions: list[ColumnElement[bool]]
) -> Select[Any]:
    key = requests.c.id
    return select(key.label("id")).where(*conditions, *_times(key, filters, before))


def _bounded_answers(filters: Filters, before: str | None) -> Select[Any]:
    key = responses.c.request_id
    conditions = [responses.c.status == filters.status, IS_REFUSED]
    return select(key.label("id")).where(*conditions, *_times(key, filters, before))


def _times(
    key: ColumnElement[str], filters: Filters, before: str | None
) -> list[ColumnElement[bool]]:
    conditions = times_of(key, filters)
    if before is not None:
        conditions.append(key < before if is_id(before) else false())
    return conditions


def _of_request_id(text: str) -> list[ColumnElement[bool]]:
    return [requests.c.x_request_id == storable(text)]


def _of_owner(filters: Filters) -> list[ColumnElement[bool]]:
    """Return whose calls are meant: those of a key, which has one owner, or else of a user."""
    for column, owner in (
        (requests.c.api_key_id, filters.api_key_id),
        (requests.c.user_id, filters.user_id),
    ):
        if owner is not None:
            return [column == owner if is_id(owner) else false()]
    return []


def _version_keys(connection: Connection, filters: Filters) -> list[int | None]:
    """Return the keys of the versions that are meant; None where no version was reached."""
    query = select(model_versions.c.id)
    if filters.model is not None:
        query = query.where(model_versions.c.name == storable(filters.model))
    if filters.version is not None:
        query = query.where(model_versions.c.version == storable(filters.version))
    keys: list[int | None] = list(connection.execute(query).scalars())
    return keys if filters.version is not None and keys else [*keys, None]


def _joined(near: Subquery) -> FromClause:
    return (
        near.join(requests, requests.c.id == near.c.id)
        .join(responses, responses.c.request_id == near.c.id)
        .outerjoin(users, users.c.id == requests.c.user_id)
        .outerjoin(model_versions, model_versions.c.id == requests.c.model_version_id)
        .outerjoin(api_keys, api_keys.c.id == requests.c.api_key_id)
    )


def _columns() -> list[ColumnElement[Any]]:
    def short(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return case((func.octet_length(column) <= MOST_BYTES, column), else_=null())

    return [
        requests.c.id,
        requests.c.user_id,
        users.c.username,
        requests.c.model,
        model_versions.c.version,
        model_versions.c.number,
        requests.c.x_request_id,
        requests.c.received_at,
        responses.c.status,
        responses.c.error_code,
        responses.c.error_fields,
        responses.c.duration_us,
        BY_TEST_KEY.label("test"),
        requests.c.erasure_seq.is_not(None).label("erased"),
        requests.c.content_type,
        short(requests.c.input).label("input"),
        func.octet_length(requests.c.input).label("input_bytes"),
        short(responses.c.output).label("output"),
        func.octet_length(responses.c.output).label("output_bytes"),
        responses.c.content_type.label("output_content_type"),
    ]


def _line(row: Row[Any]) -> Line:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values["error_fields"] = tuple(json.loads(values["error_fields"] or "[]"))
    values["test"] = bool(values["test"])
    values["erased"] = bool(values["erased"])
    for name in ("input", "output"):
        values[name] = None if values[name] is None else bytes(values[name])
    return Line(**values)
