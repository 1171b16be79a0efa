"""onrecord, broken on purpose in one way: `python -m torture.broken WAY serve ...`.

A harness that finds nothing wrong with a build that is known to be wrong shows nothing.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Table, insert
from uvicorn import Server

from onrecord.cli import main
from onrecord.errors import Unavailable
from onrecord.record import postgresql_engine, sqlite_engine, tables
from onrecord.record.call import RecordedCall
from onrecord.record.ids import new_request_id
from onrecord.record.writer import Writer

Settled = Callable[[Unavailable | None], None]


def answer_before_commit() -> None:
    """Tell every call that it is on record as soon as it waits."""
    submit = Writer.submit

    def submit_and_settle(self: Writer, call: RecordedCall, settled: Settled) -> None:
        submit(self, call, lambda _: None)
        settled(None)

    Writer.submit = submit_and_settle  # type: ignore[method-assign]


def ignore_commit_errors() -> None:
    """Tell calls that they are on record though their commit failed."""
    Writer._refuse = lambda *_: None  # type: ignore[method-assign]


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

    def insert_all(writer: Writer, table: Table, rows: list[dict[str, Any]]) -> None:
        names = set(table.columns.keys())
        with writer._database.write() as connection:
            kept = [{k: v for k, v in row.items() if k in names} for row in rows]
            connection.execute(insert(table), kept)

    def commit(self: Writer, calls: Sequence[RecordedCall]) -> None:
        rows = [dataclasses.asdict(call) | {"error_fields": None} for call in calls]
        if rows:
            insert_all(self, tables.requests, rows)
            responses = [
                row | {"request_id": row["id"], "content_type": row["output_content_type"]}
                for row in rows
            ]
            insert_all(self, tables.responses, responses)

    Writer._commit = commit  # type: ignore[method-assign]


def insert_again() -> None:
    """Insert a batch again, under new ids, where the database did not say that it had it."""
    commit = Writer._commit

    def commit_and_again(self: Writer, calls: Sequence[RecordedCall]) -> None:
        try:
            commit(self, calls)
        except self._row_errors:
            raise
        except Exception:  # noqa: BLE001 - it is broken
            self._drop_connection()
            commit(self, [dataclasses.replace(call, id=new_request_id()) for call in calls])

    Writer._commit = commit_and_again  # type: ignore[method-assign]


def leave_at_once() -> None:
    """Leave on SIGTERM without finishing the calls in hand."""
    Server.handle_exit = lambda *_: os._exit(0)  # type: ignore[method-assign]


WAYS = {
    "answer-before-commit": answer_before_commit,
    "ignore-commit-errors": ignore_commit_errors,
    "synchronous-off": synchronous_off,
    "two-transactions": two_transactions,
    "insert-again": insert_again,
    "leave-at-once": leave_at_once,
}

if __name__ == "__main__":
    WAYS[sys.argv.pop(1)]()
    main()
