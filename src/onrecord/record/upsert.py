"""Insert a row unless its unique key is taken, in both databases and without a race."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["insert_if_missing"]


def insert_if_missing(connection: Connection, table: Table, values: dict[str, Any]) -> bool:
    """Insert `values` and return True; return False where a unique key of theirs is taken."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values).on_conflict_do_nothing()
    return connection.execute(statement.returning(table.c.id)).first() is not None
