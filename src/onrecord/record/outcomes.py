"""Outcomes: what really happened to what was predicted, with all that was once said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select

from onrecord.record.by import By
from onrecord.record.ids import new_id, request_id_of
from onrecord.record.tables import outcomes, requests
from onrecord.record.text import storable

__all__ = ["Outcome", "add", "delete_of", "history"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was said to have happened to one prediction.

    `value` is a class, a number, or an object of them by target. `observed_at` is when it happened,
    None where that was not said. `by_user_id` is who said so over HTTP, `operator` the account that
    ran a command.
    """

    id: str
    prediction_id: str
    value: Any
    observed_at: datetime | None
    recorded_at: datetime
    by_user_id: str | None
    operator: str | None


_COLUMNS = [outcomes.c[name] for name in Outcome.__dataclass_fields__]


def add(
    connection: Connection, prediction_id: str, value: Any, observed_at: datetime | None, by: By
) -> tuple[Outcome, bool]:
    """Put an outcome on record; return the one in force now, and whether it is new.

    What is in force already is not put on record again. The connection must be in a transaction for
    writing, and the call on record.
    """
    request_id = request_id_of(prediction_id)
    # In PostgreSQL whoever says something of the same call waits here; SQLite has one writer.
    lock = select(requests.c.seq).where(requests.c.id == request_id).with_for_update()
    connection.execute(lock).one()
    before = _newest(connection, prediction_id)
    if before is not None and (before.value, before.observed_at) == (value, observed_at):
        return before, False
    outcome = Outcome(
        id=new_id(),
        prediction_id=prediction_id,
        value=value,
        observed_at=observed_at,
        recorded_at=datetime.now(UTC),
        by_user_id=by.user_id,
        operator=None if by.operator is None else storable(by.operator),
    )
    values = {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__}
    text = msgspec.json.encode(value, order="sorted").decode()
    connection.execute(insert(outcomes).values(values | {"value": text, "request_id": request_id}))
    return outcome, True


def history(connection: Connection, prediction_id: str) -> list[Outcome]:
    """Return all that was said of a prediction, newest first: the first is in force."""
    query = (
        select(*_COLUMNS)
        .where(outcomes.c.prediction_id == prediction_id)
        .order_by(outcomes.c.id.desc())
    )
    return [_outcome(row) for row in connection.execute(query)]


def delete_of(connection: Connection, request_ids: Sequence[str]) -> None:
    """Delete all outcomes of some calls, as is done where their payloads are erased."""
    connection.execute(delete(outcomes).where(outcomes.c.request_id.in_(request_ids)))


def _newest(connection: Connection, prediction_id: str) -> Outcome | None:
    found = history(connection, prediction_id)
    return found[0] if found else None


def _outcome(row: Row[Any]) -> Outcome:
    return Outcome(**row._asdict() | {"value": msgspec.json.decode(row.value)})
