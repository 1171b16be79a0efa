"""Which idempotency keys are held by calls on record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select

from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.tables import requests

__all__ = ["repeated"]

# Each is a parameter, of which a statement can have 32,766 in SQLite.
_ASKED_AT_ONCE = 1000


def repeated(database: Database, calls: Sequence[RecordedCall]) -> tuple[int, ...]:
    """Return the places of the calls whose key is held by one on record, or by one before them."""
    keys = [_key(call) for call in calls]
    asked = {key for key in keys if key is not None}
    if not asked:
        return ()
    with database.read() as connection:
        held = _held(connection, asked)
    places = []
    for place, key in enumerate(keys):
        if key in held:
            places.append(place)
        elif key is not None:
            held.add(key)
    return tuple(places)


def _key(call: RecordedCall) -> tuple[str, str] | None:
    return None if call.idempotency_key is None else (call.user_id, call.idempotency_key)


def _held(connection: Connection, asked: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    keys_of: defaultdict[str, list[str]] = defaultdict(list)
    for user_id, key in asked:
        keys_of[user_id].append(key)
    held: set[tuple[str, str]] = set()
    # A query for each user: SQLite would not use the index for pairs.
    for user_id, keys in keys_of.items():
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            query = select(requests.c.idempotency_key).where(
                requests.c.user_id == user_id,
                requests.c.idempotency_key.in_(keys[start : start + _ASKED_AT_ONCE]),
            )
            held.update((user_id, key) for key in connection.execute(query).scalars())
    return held
