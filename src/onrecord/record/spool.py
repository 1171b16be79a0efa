"""The spool: a local SQLite file that holds calls durably while PostgreSQL is away."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import URL, event

from onrecord.record import sqlite_engine
from onrecord.record.call import RecordedCall
from onrecord.record.spool_place import SpoolPlace

__all__ = ["Depth", "Spool", "SpoolFullError", "SpooledCall"]

_TABLE = """
CREATE TABLE IF NOT EXISTS spooled_calls (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  refused TEXT,
  call BLOB NOT NULL
) STRICT
"""
_REFUSED = """
CREATE INDEX IF NOT EXISTS ix_spooled_calls_refused ON spooled_calls (number)
WHERE refused IS NOT NULL
"""
_ANY_WAITING = "SELECT EXISTS (SELECT 1 FROM spooled_calls WHERE refused IS NULL)"
# Fewer free pages than this are as good as none: a call takes several.
_SPARE_PAGES = 16
_TAKEN_CALLS = 128
_TAKEN_BYTES = 8 << 20
_THREADS = 2

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RecordedCall).decode


@dataclass(frozen=True, slots=True)
class Depth:
    """How much a spool holds.

    `waiting` calls will go to the database; `refused` ones were answered too, but the database
    did not take them for their own sake, and `reason` is that of the oldest. `bytes` is what all
    of them take of `max_bytes`; where the spool is `full`, it takes no more.
    """

    waiting: int
    refused: int
    reason: str | None
    bytes: int
    max_bytes: int
    full: bool


@dataclass(frozen=True, slots=True)
class SpooledCall:
    """A call in the spool, by its number there."""

    number: int
    call: RecordedCall


class _Pages(NamedTuple):
    """How many pages of a file are in use, how many more there may be, and the bytes of one."""

    used: int
    left: int
    size: int


class SpoolFullError(Exception):
    """There is no room in the spool."""


class Spool:
    """The spool in one file, which threads and processes may share.

    It never takes more than its bound for good, beside a write-ahead log of some MiB. Building
    one touches no file. The driver's errors are raised as they are.
    """

    def __init__(self, place: SpoolPlace) -> None:
        self._path = Path(place.file)
        self._max_bytes = place.max_bytes
        self._engine = sqlite_engine.make(
            URL.create("sqlite", database=place.file), threads=_THREADS
        )
        event.listen(self._engine, "connect", self._set_up)

    def open(self) -> None:
        """Make the file where it is missing, and bring what it holds safely to the disk.

        Raises DatabaseError where the place cannot be written.
        """
        with sqlite_engine.upgrade_lock(self._path), self._transaction() as connection:
            connection.execute(_TABLE)
            connection.execute(_REFUSED)
        sqlite_engine.move_log(self._engine, self._path)

    def put(self, calls: Sequence[RecordedCall]) -> None:
        """Return once `calls` are durably in the spool; on an error none is.

        No calls at all are a probe. Raises SpoolFullError where there is no room for more.
        """
        rows = [(call.id, _encode(call)) for call in calls]
        with self._transaction() as connection:
            if self._pages(connection).left < _SPARE_PAGES:
                raise SpoolFullError(f"the spool is full: it holds {self._max_bytes:,} bytes")
            connection.executemany("INSERT INTO spooled_calls (id, call) VALUES (?, ?)", rows)

    def first(self) -> list[SpooledCall]:
        """Return the calls that have waited longest: some, and at least one if any waits."""
        taken: list[SpooledCall] = []
        size = 0
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT number, call FROM spooled_calls WHERE refused IS NULL "
                "ORDER BY number LIMIT ?",
                (_TAKEN_CALLS,),
            )
            for number, call in rows:
                size += len(call)
                if taken and size > _TAKEN_BYTES:
                    break
                taken.append(SpooledCall(number, _decode(call)))
        return taken

    def remove(self, numbers: Collection[int]) -> None:
        """Forget calls that are on record; refused ones stay."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM spooled_calls WHERE number = ? AND refused IS NULL",
                [(number,) for number in numbers],
            )

    def refuse(self, reasons: Mapping[int, str]) -> None:
        """Keep calls that the database does not take, each with the reason, out of the way."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE spooled_calls SET refused = ? WHERE number = ?",
                [(reason, number) for number, reason in reasons.items()],
            )

    def readmit(self) -> None:
        """Let refused calls wait again."""
        with self._transaction() as connection:
            connection.execute("UPDATE spooled_calls SET refused = NULL")

    def waits(self) -> bool:
        """Return whether any call waits."""
        with self._connection() as connection:
            return bool(connection.execute(_ANY_WAITING).fetchone()[0])

    def depth(self) -> Depth:
        """Return how much there is; nothing where there is no file yet."""
        if not self._path.exists():
            return Depth(0, 0, None, 0, self._max_bytes, full=False)
        with self._connection() as connection:
            count, refused = connection.execute(
                "SELECT (SELECT count(*) FROM spooled_calls), "
                "(SELECT count(*) FROM spooled_calls WHERE refused IS NOT NULL)"
            ).fetchone()
            reason = connection.execute(
                "SELECT refused FROM spooled_calls WHERE refused IS NOT NULL ORDER BY number"
            ).fetchone()
            pages = self._pages(connection)
        return Depth(
            count - refused,
            refused,
            None if reason is None else reason[0],
            pages.used * pages.size,
            self._max_bytes,
            full=pages.left < _SPARE_PAGES,
        )

    def tidy(self) -> None:
        """Give the file's room back where nothing is left in it; what was there is gone then."""
        with self._connection() as connection:
            if not connection.execute("SELECT EXISTS (SELECT 1 FROM spooled_calls)").fetchone()[0]:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _set_up(self, connection: Any, _: Any) -> None:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA max_page_count={max(1, self._max_bytes // size)}").fetchone()
        # A call that has moved on must not be left behind in a free page.
        connection.execute("PRAGMA secure_delete=ON").fetchone()

    def _pages(self, connection: Any) -> _Pages:
        names = ("page_count", "freelist_count", "max_page_count", "page_size")
        count, free, most, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names
        )
        return _Pages(used=count - free, left=most - count + free, size=size)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        connection = self._engine.raw_connection()
        try:
            yield connection.dbapi_connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
