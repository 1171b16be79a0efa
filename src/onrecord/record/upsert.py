"""Insert a row unless its key is taken, or in place of the one that has it, in both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["insert_if_missing", "put"]


def insert_if_missing(connection: Connection, table: Table, values: dict[str, Any]) -> bool:
    """Insert `values` and return True; return False where a unique key of theirs is taken."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values).on_conflict_do_nothing()
    return connection.execute(statement.returning(*table.primary_key)).first() is not None


def put(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, each in place of the one that has its primary key; all have the same columns."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table)
    others = {c.name: statement.excluded[c.name] for c in table.c if not c.primary_key}
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=others),
        list(rows),
    )
