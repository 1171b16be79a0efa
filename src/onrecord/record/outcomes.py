"""Outcomes: what really happened to what was predicted, with all that was once said of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, exists, insert, select

from onrecord.errors import Conflict
from onrecord.record.by import By
from onrecord.record.ids import new_id, request_id_of
from onrecord.record.tables import outcomes, requests
from onrecord.record.text import storable

__all__ = ["Outcome", "Said", "add", "add_all", "delete_of", "history"]

_AT_ONCE = 500


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


@dataclass(frozen=True, slots=True)
class Said:
    """What is said to have happened to one prediction, and when, where that is said."""

    prediction_id: str
    value: Any
    observed_at: datetime | None = None


def add(connection: Connection, said: Said, by: By) -> tuple[Outcome, bool]:
    """Put one outcome on record, as `add_all` does."""
    return add_all(connection, [said], by)[0]


def add_all(connection: Connection, said: Sequence[Said], by: By) -> list[tuple[Outcome, bool]]:
    """Put outcomes on record; return of each the one in force after it, and whether it is new.

    What is in force already is not put on record again; of several for one prediction the last is
    in force. The connection must be in a transaction for writing. Raises Conflict, and then nothing
    of the transaction may be committed, where a call is not on record or its payload was erased.
    """
    # Whoever says something of the same calls comes to them in the same order, and to no deadlock.
    order = sorted(range(len(said)), key=lambda place: said[place].prediction_id)
    found: list[tuple[Outcome, bool] | None] = [None] * len(said)
    for start in range(0, len(order), _AT_ONCE):
        places = order[start : start + _AT_ONCE]
        some = _add_some(connection, [said[place] for place in places], by)
        for place, it in zip(places, some, strict=True):
            found[place] = it
    return [it for it in found if it is not None]


def _add_some(connection: Connection, said: Sequence[Said], by: By) -> list[tuple[Outcome, bool]]:
    calls = {request_id_of(it.prediction_id) for it in said}
    # In PostgreSQL whoever says something of the same calls waits here; SQLite has one writer.
    lock = select(requests.c.id).where(requests.c.id.in_(calls), requests.c.erasure_seq.is_(None))
    there = connection.execute(lock.order_by(requests.c.id).with_for_update()).all()
    if len(there) < len(calls):
        raise Conflict("The payload of a call was erased: its outcome is not taken any more.")
    newest = _newest(connection, {it.prediction_id for it in said})
    operator = None if by.operator is None else storable(by.operator)
    found: list[tuple[Outcome, bool]] = []
    for it in said:
        before = newest.get(it.prediction_id)
        if before is not None and (before.value, before.observed_at) == (it.value, it.observed_at):
            found.append((before, False))
            continue
        made = Outcome(
            id=new_id(),
            prediction_id=it.prediction_id,
            value=it.value,
            observed_at=it.observed_at,
            recorded_at=datetime.now(UTC),
            by_user_id=by.user_id,
            operator=operator,
        )
        newest[it.prediction_id] = made
        found.append((made, True))
    rows = [_row(outcome) for outcome, new in found if new]
    if rows:
        connection.execute(insert(outcomes), rows)
    return found


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


def _newest(connection: Connection, prediction_ids: Collection[str]) -> dict[str, Outcome]:
    later = outcomes.alias()
    corrected = exists().where(
        later.c.prediction_id == outcomes.c.prediction_id, later.c.id > outcomes.c.id
    )
    query = select(*_COLUMNS).where(outcomes.c.prediction_id.in_(prediction_ids), ~corrected)
    return {row.prediction_id: _outcome(row) for row in connection.execute(query)}


def _row(outcome: Outcome) -> dict[str, Any]:
    values = {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__}
    text = msgspec.json.encode(outcome.value, order="sorted").decode()
    return values | {"value": text, "request_id": request_id_of(outcome.prediction_id)}


def _outcome(row: Row[Any]) -> Outcome:
    return Outcome(**row._asdict() | {"value": msgspec.json.decode(row.value)})
