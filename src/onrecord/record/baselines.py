"""Baselines: what the values of a model version's calls are compared with, and their sketches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, exists, insert, select, update

from onrecord.record.by import By
from onrecord.record.ids import new_id
from onrecord.record.tables import baselines, deployments, drift_sketches, model_versions
from onrecord.record.text import storable
from onrecord.record.upsert import put

__all__ = [
    "Baseline",
    "add",
    "advance",
    "found_of_live",
    "newest",
    "put_sketches",
    "set_found",
    "sketches",
]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a model version's calls are compared with.

    `source` says of which rows it was made, `document` is their sketch as JSON. Calls up to
    `done_up_to`, a `seq`, are in the sketches already. `found` is what was last found to drift, as
    JSON.
    """

    id: str
    model_version_id: int
    made_at: datetime
    by_user_id: str | None
    operator: str | None
    source: str
    document: str
    done_up_to: int
    found: str


_COLUMNS = [baselines.c[name] for name in Baseline.__dataclass_fields__]


def add(  # noqa: PLR0913, PLR0917 - a row has what it has
    connection: Connection,
    model_version_id: int,
    source: str,
    document: str,
    by: By,
    done_up_to: int = 0,
) -> Baseline:
    """Put a baseline on record, in force from now on; the connection must be for writing."""
    baseline = Baseline(
        id=new_id(),
        model_version_id=model_version_id,
        made_at=datetime.now(UTC),
        by_user_id=by.user_id,
        operator=None if by.operator is None else storable(by.operator),
        source=storable(source),
        document=document,
        done_up_to=done_up_to,
        found="{}",
    )
    values = {name: getattr(baseline, name) for name in Baseline.__dataclass_fields__}
    connection.execute(insert(baselines).values(values))
    return baseline


def newest(connection: Connection, model_version_id: int) -> Baseline | None:
    """Return the baseline of a version that is in force, None where it has none."""
    query = (
        select(*_COLUMNS)
        .where(baselines.c.model_version_id == model_version_id)
        .order_by(baselines.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Baseline(**row._asdict())


def advance(connection: Connection, baseline_id: str, done: int, to: int) -> bool:
    """Note that the calls up to `to` are in the sketches, where those up to `done` were.

    Returns False where somebody else has come further meanwhile. What of it holds for the sketches
    that are put in the same transaction.
    """
    statement = (
        update(baselines)
        .where(baselines.c.id == baseline_id, baselines.c.done_up_to == done)
        .values(done_up_to=to)
    )
    return connection.execute(statement).rowcount == 1


def set_found(connection: Connection, baseline_id: str, before: str, found: str) -> bool:
    """Note what drifts now; returns False where somebody else has noted something meanwhile."""
    statement = (
        update(baselines)
        .where(baselines.c.id == baseline_id, baselines.c.found == before)
        .values(found=found)
    )
    return connection.execute(statement).rowcount == 1


def found_of_live(connection: Connection) -> list[tuple[str, int, str]]:
    """Return of each live version the model's name, its number, and what was last found."""
    newer = baselines.alias()
    query = (
        select(deployments.c.name, model_versions.c.number, baselines.c.found)
        .join(model_versions, model_versions.c.id == deployments.c.live_id)
        .join(baselines, baselines.c.model_version_id == deployments.c.live_id)
        .where(
            ~exists().where(
                newer.c.model_version_id == baselines.c.model_version_id,
                newer.c.id > baselines.c.id,
            )
        )
        .order_by(deployments.c.name)
    )
    return [(row.name, row.number, row.found) for row in connection.execute(query)]


def sketches(
    connection: Connection,
    baseline_id: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[datetime, str]:
    """Return the sketches, as JSON, of the hours that begin in a time, by when they begin."""
    table = drift_sketches
    query = select(table.c.hour, table.c.document).where(table.c.baseline_id == baseline_id)
    if since is not None:
        query = query.where(table.c.hour >= since)
    if until is not None:
        query = query.where(table.c.hour < until)
    return {row.hour: row.document for row in connection.execute(query.order_by(table.c.hour))}


def put_sketches(
    connection: Connection, baseline_id: str, documents: Mapping[datetime, str]
) -> None:
    """Put the sketches of some hours in place of those that are there."""
    rows: list[dict[str, Any]] = [
        {"baseline_id": baseline_id, "hour": hour, "document": document}
        for hour, document in documents.items()
    ]
    put(connection, drift_sketches, rows)
