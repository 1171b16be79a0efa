"""Shadows: which versions answer calls unseen, what they said, and how far they have come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select

from onrecord.record.tables import (
    deployments,
    model_changes,
    requests,
    shadow_answers,
    shadows,
    utc_text,
)
from onrecord.record.upsert import put

__all__ = [
    "Progress",
    "Shadow",
    "ShadowAnswer",
    "delete_of",
    "is_running",
    "lag_of",
    "progress_of",
    "put_on_record",
    "running",
    "skipped",
]

_PUT = (
    "INSERT INTO shadow_answers"
    " (request_id, model_version_id, output, error, duration_us, recorded_at)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that answers a `share` (0 to 1) of the calls of `model`, unseen.

    `change_seq` is the `seq` of the change that began it: it answers calls that came onto the
    record later. `revision` is that of the deployment, and grows with every change of it.
    """

    model: str
    model_version_id: int
    share: float
    change_seq: int
    revision: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a shadow has come: all calls up to a `seq` are done; of them so many were skipped."""

    done_up_to: int
    skipped: int


@dataclass(frozen=True, slots=True)
class ShadowAnswer:
    """What a shadow said to a call: `output` as JSON, or why there is none, in `error`.

    `duration_us` is in microseconds and of one row, as its batch took it.
    """

    request_id: str
    output: bytes | None
    error: str | None
    duration_us: float


def running(connection: Connection) -> list[Shadow]:
    """Return the shadows that run, by the names of their models."""
    rows = connection.execute(_running().order_by(deployments.c.name))
    return [Shadow(**row._asdict()) for row in rows]


def is_running(connection: Connection, shadow: Shadow) -> bool:
    """Tell whether a shadow runs, with nothing changed about its model since it was read."""
    row = connection.execute(_running().where(deployments.c.name == shadow.model)).one_or_none()
    return row is not None and Shadow(**row._asdict()) == shadow


def progress_of(connection: Connection, shadow: Shadow) -> Progress:
    """Return how far a shadow has come."""
    table = shadows.c
    query = select(table.done_up_to, table.skipped).where(table.change_seq == shadow.change_seq)
    row = connection.execute(query).one_or_none()
    return Progress(shadow.change_seq, 0) if row is None else Progress(*row)


def lag_of(connection: Connection, shadow: Shadow) -> tuple[int, int]:
    """Return at most how many calls on record a shadow has not come to, and how many it skipped."""
    progress = progress_of(connection, shadow)
    newest = connection.execute(select(func.max(requests.c.seq))).scalar_one() or 0
    return max(0, newest - progress.done_up_to), progress.skipped


def put_on_record(
    connection: Connection, shadow: Shadow, answers: Sequence[ShadowAnswer], progress: Progress
) -> None:
    """Put answers on record, and how far the shadow has come with them.

    A call that has an answer of the version keeps it, and one that was erased meanwhile gets none.
    The connection must be in a transaction for writing.
    """
    now = datetime.now(UTC)
    # In PostgreSQL an erasure of the same calls waits here, or this waits for it.
    there = (
        select(requests.c.id)
        .where(requests.c.id.in_([answer.request_id for answer in answers]))
        .where(requests.c.erasure_seq.is_(None))
        .with_for_update(read=True, key_share=True)
    )
    kept = set(connection.execute(there).scalars()) if answers else set()
    sqlite = connection.dialect.name == "sqlite"
    moment = utc_text(now) if sqlite else now
    version = shadow.model_version_id
    rows = [
        (it.request_id, version, it.output, it.error, it.duration_us, moment)
        for it in answers
        if it.request_id in kept
    ]
    if rows:
        # Not through SQLAlchemy, which takes longer for them than the database: writers wait.
        connection.exec_driver_sql(_PUT if sqlite else _PUT.replace("?", "%s"), rows)
    row = {
        "change_seq": shadow.change_seq,
        "model_version_id": shadow.model_version_id,
        "done_up_to": progress.done_up_to,
        "skipped": progress.skipped,
        "recorded_at": now,
    }
    put(connection, shadows, [row])


def delete_of(connection: Connection, request_ids: Sequence[str]) -> None:
    """Delete what shadows said to some calls, as is done where their payloads are erased."""
    connection.execute(delete(shadow_answers).where(shadow_answers.c.request_id.in_(request_ids)))


def skipped(
    connection: Connection, model_version_id: int, since: datetime | None, until: datetime | None
) -> int:
    """Return how many calls the shadows of a version skipped that ran in a time.

    The whole of such a shadow counts: when each call was skipped is not on record.
    """
    query = (
        select(func.coalesce(func.sum(shadows.c.skipped), 0))
        .join(model_changes, model_changes.c.seq == shadows.c.change_seq)
        .where(shadows.c.model_version_id == model_version_id)
    )
    if since is not None:
        query = query.where(shadows.c.recorded_at >= since)
    if until is not None:
        query = query.where(model_changes.c.changed_at < until)
    return int(connection.execute(query).scalar_one())


def _running() -> Select[Any]:
    began = (
        select(func.max(model_changes.c.seq))
        .where(model_changes.c.model == deployments.c.name)
        .where(model_changes.c.model_version_id == deployments.c.candidate_id)
        .where(model_changes.c.action == "shadow")
        .scalar_subquery()
    )
    return (
        select(
            deployments.c.name.label("model"),
            deployments.c.candidate_id.label("model_version_id"),
            deployments.c.shadow_share.label("share"),
            began.label("change_seq"),
            deployments.c.revision,
        )
        .where(deployments.c.shadow_share > 0)
        .where(deployments.c.candidate_id.is_not(None))
    )
