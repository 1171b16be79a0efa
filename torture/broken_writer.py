"""The writer's process, broken on purpose in the way that the variable `WAY` names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Table, insert

from onrecord.record import postgresql_engine, sqlite_engine, tables
from onrecord.record.call import RecordedCall
from onrecord.record.commits import Commits
from onrecord.record.ids import new_request_id
from onrecord.record.spool import Spool, SpooledCall
from onrecord.record.writer_main import main

__all__ = ["WAY", "WAYS"]

WAY = "TORTURE_BROKEN_WRITER"


def synchronous_off() -> None:
    """Let a commit return before it is on the disk."""
    for engine, statement in (
        (sqlite_engine, "PRAGMA synchronous=OFF"),
        (postgresql_engine, "SET synchronous_commit TO off"),
    ):
        engine._set_up = _then(engine._set_up, statement)  # type: ignore[attr-defined]


def _then(set_up: Callable[..., None], statement: str) -> Callable[..., None]:
    def set_up_and_spoil(connection: Any, *arguments: Any) -> None:
        set_up(connection, *arguments)
        connection.execute(statement)
        if not statement.startswith("PRAGMA"):
            connection.commit()

    return set_up_and_spoil


def two_transactions() -> None:
    """Commit the requests first and their responses afterwards."""

    def insert_all(commits: Commits, table: Table, rows: list[dict[str, Any]]) -> None:
        names = set(table.columns.keys())
        with commits._database.write() as connection:
            kept = [{k: v for k, v in row.items() if k in names} for row in rows]
            connection.execute(insert(table), kept)

    def commit(self: Commits, calls: Sequence[RecordedCall]) -> None:
        rows = [msgspec.structs.asdict(call) | {"error_fields": None} for call in calls]
        if rows:
            insert_all(self, tables.requests, rows)
            responses = [
                row | {"request_id": row["id"], "content_type": row["output_content_type"]}
                for row in rows
            ]
            insert_all(self, tables.responses, responses)

    Commits._commit = commit  # type: ignore[method-assign]


def insert_again() -> None:
    """Insert a batch again, under new ids, where the database did not say that it had it."""
    commit = Commits._commit

    def commit_and_again(self: Commits, calls: Sequence[RecordedCall]) -> None:
        try:
            commit(self, calls)
        except self._row_errors:
            raise
        except Exception:  # noqa: BLE001 - it is broken
            self.close()
            commit(self, [msgspec.structs.replace(call, id=new_request_id()) for call in calls])

    Commits._commit = commit_and_again  # type: ignore[method-assign]


def forget_spooled() -> None:
    """Spool nothing, and say that it was."""
    Spool.put = lambda *_: None  # type: ignore[method-assign]


def drain_under_new_ids() -> None:
    """Move spooled calls without looking whether they are on record by now."""
    first = Spool.first

    def renamed(self: Spool) -> list[SpooledCall]:
        return [
            SpooledCall(it.number, msgspec.structs.replace(it.call, id=new_request_id()))
            for it in first(self)
        ]

    Spool.first = renamed  # type: ignore[method-assign]


WAYS = {
    "forget-spooled": forget_spooled,
    "drain-under-new-ids": drain_under_new_ids,
    "synchronous-off": synchronous_off,
    "two-transactions": two_transactions,
    "insert-again": insert_again,
}

if __name__ == "__main__":
    WAYS[os.environ[WAY]]()
    main()
