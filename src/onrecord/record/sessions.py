"""Queries on sessions; the rules about them are in `onrecord.accounts.sessions`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from onrecord.record.tables import sessions

__all__ = ["Session", "add", "by_family", "end", "ended", "forget", "of_user", "refresh"]


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in and all the tokens that come of it.

    `token_version` is the user's when it signed in; `family_sha256` the digest of what all its
    refresh tokens have in common, `refresh_sha256` that of the one that is valid now;
    `access_expires_at` is when the last access token of it expires. Times
    are in UTC.
    """

    id: str
    user_id: str
    token_version: int
    family_sha256: str
    refresh_sha256: str
    created_at: datetime
    refreshed_at: datetime
    access_expires_at: datetime
    ended_at: datetime | None


_COLUMNS = [sessions.c[name] for name in Session.__dataclass_fields__]


def add(connection: Connection, session: Session) -> None:
    """Add a session."""
    connection.execute(insert(sessions).values(asdict(session)))


def by_family(connection: Connection, family_sha256: str) -> Session | None:
    """Return the session of a family of refresh tokens, or None.

    The connection must be one for writing; no other transaction changes it before this one ends.
    """
    query = select(*_COLUMNS).where(sessions.c.family_sha256 == family_sha256).with_for_update()
    row = connection.execute(query).one_or_none()
    return None if row is None else Session(**row._mapping)  # noqa: SLF001


def of_user(connection: Connection, user_id: str, limit: int) -> list[Session]:
    """Return at most `limit` sessions of a user, ended ones included, the newest first."""
    query = select(*_COLUMNS).where(sessions.c.user_id == user_id)
    rows = connection.execute(query.order_by(sessions.c.id.desc()).limit(limit))
    return [Session(**row._mapping) for row in rows]  # noqa: SLF001


def refresh(
    connection: Connection,
    session_id: str,
    *,
    refresh_sha256: str,
    now: datetime,
    access_expires_at: datetime,
) -> None:
    """Replace a session's refresh token and note until when its access tokens are valid."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id)
        .values(
            refresh_sha256=refresh_sha256, refreshed_at=now, access_expires_at=access_expires_at
        )
    )


def end(
    connection: Connection, session_id: str, now: datetime, *, user_id: str | None = None
) -> bool:
    """End a session, with a `user_id` only that user's; return whether there is such a one.

    One that has ended already keeps its time.
    """
    row = sessions.c.id == session_id
    if user_id is not None:
        row &= sessions.c.user_id == user_id
    moment = func.coalesce(sessions.c.ended_at, now)
    return connection.execute(update(sessions).where(row).values(ended_at=moment)).rowcount == 1


def ended(connection: Connection, user_id: str, now: datetime) -> frozenset[str]:
    """Return the ids of a user's ended sessions whose access tokens have not all expired."""
    query = select(sessions.c.id).where(
        sessions.c.user_id == user_id,
        sessions.c.ended_at.is_not(None),
        sessions.c.access_expires_at > now,
    )
    return frozenset(connection.execute(query).scalars())


def forget(
    connection: Connection, user_id: str, *, created_before: datetime, now: datetime
) -> None:
    """Drop a user's sessions of before a moment, except where an access token is still valid."""
    connection.execute(
        delete(sessions).where(
            sessions.c.user_id == user_id,
            sessions.c.created_at < created_before,
            sessions.c.access_expires_at <= now,
        )
    )
