"""Queries on API keys; the rules about them are in `onrecord.accounts.api_keys`."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, update

from onrecord.record.ids import is_id
from onrecord.record.tables import api_keys, users
from onrecord.record.text import storable
from onrecord.record.upsert import insert_if_missing

__all__ = ["ApiKey", "add", "by_id", "by_prefix", "count_usable", "mark_used", "page", "revoke"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, revoked and expired ones included; the key itself is kept nowhere.

    `username` is its owner's; `kind` is "live" or "test"; `prefix` are the first characters of
    the key, by which a person tells it from others; `key_sha256` is the digest of all of it;
    `models` is None where it is for every model; `rate` ("10/second") and `quota` (calls a day) are
    None where only what limits its owner limits it. Times are in UTC.
    """

    id: str
    user_id: str
    username: str
    name: str
    kind: str
    prefix: str
    key_sha256: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    rate: str | None = None
    quota: int | None = None


_COLUMNS = [
    users.c.username if field.name == "username" else api_keys.c[field.name]
    for field in fields(ApiKey)
]


def add(connection: Connection, key: ApiKey) -> bool:
    """Add a key; return False, having added none, where its prefix is taken."""
    values = {column.name: getattr(key, column.name) for column in api_keys.c}
    models = None if key.models is None else json.dumps([storable(name) for name in key.models])
    values |= {"name": storable(key.name), "scopes": json.dumps(key.scopes), "models": models}
    return insert_if_missing(connection, api_keys, values)


def by_prefix(connection: Connection, prefix: str) -> ApiKey | None:
    """Return the key with a prefix, or None."""
    return _one(connection, api_keys.c.prefix == prefix)


def by_id(connection: Connection, key_id: str) -> ApiKey | None:
    """Return the key with an id, or None."""
    return _one(connection, api_keys.c.id == key_id) if is_id(key_id) else None


def page(
    connection: Connection, *, user_id: str | None, limit: int, after_id: str | None
) -> list[ApiKey]:
    """Return at most `limit` keys, oldest first, that came after the id `after_id`.

    With a `user_id` only that user's, else everyone's.
    """
    query = _keys().order_by(api_keys.c.id).limit(limit)
    if user_id is not None:
        query = query.where(api_keys.c.user_id == user_id)
    if after_id is not None:
        query = query.where(api_keys.c.id > after_id)
    return [_key(row) for row in connection.execute(query)]


def count_usable(connection: Connection, user_id: str, now: datetime) -> int:
    """Return how many of a user's keys are neither revoked nor expired at the moment `now`."""
    query = select(func.count()).where(
        api_keys.c.user_id == user_id,
        api_keys.c.revoked_at.is_(None),
        api_keys.c.expires_at > now,
    )
    return int(connection.execute(query).scalar_one())


def revoke(connection: Connection, key_id: str, now: datetime) -> None:
    """Revoke a key; one that is revoked already keeps its time."""
    connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def mark_used(connection: Connection, key_id: str, now: datetime, unless_since: datetime) -> None:
    """Put down that a key was used, unless that was put down after `unless_since`."""
    used = api_keys.c.last_used_at
    connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, or_(used.is_(None), used < unless_since))
        .values(last_used_at=now)
    )


def _keys() -> Any:
    return select(*_COLUMNS).join_from(api_keys, users, users.c.id == api_keys.c.user_id)


def _one(connection: Connection, condition: Any) -> ApiKey | None:
    row = connection.execute(_keys().where(condition)).one_or_none()
    return None if row is None else _key(row)


def _key(row: Row[Any]) -> ApiKey:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values["scopes"] = tuple(json.loads(values["scopes"]))
    values["models"] = None if values["models"] is None else tuple(json.loads(values["models"]))
    return ApiKey(**values)
