"""Commits: many calls on record in one durable transaction, each with its own outcome."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
from sqlalchemy import PoolProxiedConnection

from onrecord.record.batch import committer, find_recorded
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.deadline import Deadline
from onrecord.record.idempotency_keys import repeated

__all__ = ["Commits", "Outcome"]


class Outcome(msgspec.Struct, array_like=True):
    """What became of a batch: all is on record but for the calls in `refused` and `repeated`.

    `refused` has the reason of each by its place in the batch; `repeated` has the places of those
    whose idempotency key another call on record holds. `healthy` is whether the database took what
    it could; where it is not, nothing of the batch is known to be on record.
    """

    healthy: bool
    refused: dict[int, str]
    repeated: tuple[int, ...] = ()


class Commits:
    """Puts batches of calls on record by one connection, which is made anew after a failure.

    A PostgreSQL that says nothing for `deadline_seconds` has failed.
    """

    def __init__(self, database: Database, *, deadline_seconds: float = 5.0) -> None:
        self._database = database
        self._deadline = Deadline(deadline_seconds) if database.dialect == "postgresql" else None
        self._row_errors = _row_errors(database)
        self._connection: PoolProxiedConnection | None = None
        self._insert: Callable[[Sequence[RecordedCall]], None]

    def record(self, calls: Sequence[RecordedCall]) -> Outcome:
        """Return once every call is durably on record or refused; no calls at all are a probe."""
        try:
            try:
                self._commit(calls)
            except self._row_errors as error:
                places = repeated(self._database, calls)
                reason = _say(error)
            else:
                return Outcome(healthy=True, refused={})
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the next batch is due
            self.close()
            return Outcome(healthy=False, refused=dict.fromkeys(range(len(calls)), _say(error)))
        if places:
            return self._record_others(calls, places)
        if len(calls) <= 1:
            return Outcome(healthy=True, refused=dict.fromkeys(range(len(calls)), reason))
        return self._record_one_by_one(calls)

    def on_record(self, ids: Sequence[str]) -> set[str] | None:
        """Return which of these requests are on record, None where the database fails."""
        try:
            with self._connected():
                return find_recorded(self._bare, self._database.dialect, ids)
        except Exception:  # noqa: BLE001 - whatever a driver raises, it is asked again later
            self.close()
            return None

    def close(self) -> None:
        """Drop the connection; whatever it still holds is rolled back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Nothing of it is to be used again, so it matters little how it goes.
            with contextlib.suppress(Exception):
                connection.invalidate()

    def _commit(self, calls: Sequence[RecordedCall]) -> None:
        with self._connected():
            self._insert(calls)

    def _connected(self) -> AbstractContextManager[object]:
        """Connect where there is no connection, and return what breaks it off at the deadline."""
        if self._connection is None:
            self._connection = self._database.raw_connection()
            self._bare: Any = self._connection.dbapi_connection
            self._insert = committer(self._bare, self._database.dialect)
        if self._deadline is None:
            return nullcontext()
        return self._deadline.for_use_of(self._bare.fileno())

    def _record_others(self, calls: Sequence[RecordedCall], places: tuple[int, ...]) -> Outcome:
        """Record a batch without those of its calls that repeat another one's key."""
        left_out = set(places)
        others = [place for place in range(len(calls)) if place not in left_out]
        if not others:
            return Outcome(healthy=True, refused={}, repeated=places)
        outcome = self.record([calls[place] for place in others])
        return Outcome(
            outcome.healthy,
            {others[place]: reason for place, reason in outcome.refused.items()},
            (*places, *(others[place] for place in outcome.repeated)),
        )

    def _record_one_by_one(self, calls: Sequence[RecordedCall]) -> Outcome:
        refused: dict[int, str] = {}
        repeated_here: list[int] = []
        for place, call in enumerate(calls):
            outcome = self.record([call])
            if not outcome.healthy:
                # Each of the others would wait for it as long again.
                refused |= dict.fromkeys(range(place, len(calls)), outcome.refused[0])
                return Outcome(healthy=False, refused=refused, repeated=tuple(repeated_here))
            if outcome.refused:
                refused[place] = outcome.refused[0]
            if outcome.repeated:
                repeated_here.append(place)
        return Outcome(healthy=True, refused=refused, repeated=tuple(repeated_here))


def _row_errors(database: Database) -> tuple[type[Exception], ...]:
    """Return what a row can be at fault for, while the database is in order."""
    dbapi: Any = database.engine.dialect.dbapi
    errors = (dbapi.IntegrityError, dbapi.DataError, ValueError, TypeError, OverflowError)
    if database.dialect == "postgresql":
        # Such as a text too long for its index, which psycopg counts among the server's troubles.
        return (*errors, dbapi.errors.ProgramLimitExceeded)
    return errors


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
