"""Up to which row the record is complete: no row that is committed later comes before it.

SQLite has one writer at a time, so rows appear in the order of their `seq`. In PostgreSQL a `seq`
is drawn before its row is committed, and another writer's later one can be there first. Writers
therefore hold a lock, shared among them, from before they draw until they have committed.
"""

from __future__ import annotations

from sqlalchemy import Connection, exc, func, select, text

from onrecord.errors import Unavailable
from onrecord.record.database import Database
from onrecord.record.tables import erasures, model_changes, requests

__all__ = ["HELD_BY_WRITERS", "complete_up_to", "draw_seq"]

_LOCK = 7165720260510

# Whoever waits for the lock holds up the writers behind it, for this long at most.
_PATIENCE_MS = 1000

# Before the first call SQLite has no number to count on from.
_FIRST_IN_SQLITE = (
    "INSERT INTO sqlite_sequence (name, seq) SELECT 'requests', 0"
    " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'requests')"
)

HELD_BY_WRITERS = f"pg_advisory_xact_lock_shared({_LOCK})"
"""What each writing transaction in PostgreSQL calls before it draws a `seq`."""


def complete_up_to(database: Database) -> int:
    """Return the greatest `seq` up to which every row is committed or never will be; else 0.

    Raises Unavailable where a writer holds its lock for longer than a commit takes.
    """
    with database.read() as connection:
        if database.dialect == "postgresql":
            _wait_for_writers(connection)
        newest = [
            connection.execute(select(func.max(table.c.seq))).scalar_one()
            for table in (requests, erasures, model_changes)
        ]
    return max(seq or 0 for seq in newest)


def draw_seq(connection: Connection) -> int:
    """Return a `seq` that no other row has or will have, for a row that is no call.

    The connection must be in a transaction for writing, which holds up no other writer in
    PostgreSQL.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT {HELD_BY_WRITERS}"))
        drawn = "SELECT nextval(pg_get_serial_sequence('requests', 'seq'))"
    else:
        connection.execute(text(_FIRST_IN_SQLITE))
        drawn = "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'requests' RETURNING seq"
    return int(connection.execute(text(drawn)).scalar_one())


def _wait_for_writers(connection: Connection) -> None:
    """Return once no writer is between its draw and its commit; new ones wait meanwhile."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE_MS}ms'"))
    try:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    except exc.OperationalError as error:
        raise Unavailable("A writer has not committed yet; it may be stuck.") from error
