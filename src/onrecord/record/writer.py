"""Group commit: many calls wait, one thread puts all of them on record in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from sqlalchemy import PoolProxiedConnection

from onrecord.errors import Unavailable
from onrecord.record.batch import commit_to_postgresql, commit_to_sqlite
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database

__all__ = ["Writer"]

_PROBE_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Waiting:
    call: RecordedCall
    future: asyncio.Future[Unavailable | None]
    error: Unavailable | None = None


class Writer:
    """Puts calls on record; `write` returns once its call is durably committed.

    There is no artificial delay: what arrives during one commit is the next batch. At most
    `max_pending` calls wait at a time.
    """

    def __init__(self, database: Database, max_pending: int = 10_000) -> None:
        self._database = database
        self._max_pending = max_pending
        self._insert = commit_to_sqlite if database.dialect == "sqlite" else commit_to_postgresql
        dbapi: Any = database.engine.dialect.dbapi
        # What a row can be at fault for, while the database is in order.
        self._row_errors = (
            dbapi.IntegrityError,
            dbapi.DataError,
            ValueError,
            TypeError,
            OverflowError,
        )
        self._connection: PoolProxiedConnection | None = None
        self._healthy = True
        # Everything below belongs to the event loop; the thread is only handed whole batches.
        self._batches: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._waiting: list[_Waiting] = []
        self._pending = 0
        self._busy = False
        self._open = False
        self._drained = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.Handle | None = None
        self._thread: threading.Thread | None = None

    @property
    def healthy(self) -> bool:
        """Whether the last attempt reached the database; after a failure it is probed again."""
        return self._healthy

    @property
    def pending(self) -> int:
        """How many calls wait for their commit."""
        return self._pending

    def start(self) -> None:
        """Start the thread; to be called once, on the event loop that will call `write`."""
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="onrecord-writer", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Commit all that waits, then stop the thread; later calls are refused."""
        self._open = False
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._pending:
            await self._drained.wait()
        if self._next is not None:
            self._next.cancel()
        self._batches.put(None)
        await anyio.to_thread.run_sync(thread.join)

    async def write(self, call: RecordedCall) -> None:
        """Return once `call` is durably on record.

        Raises Unavailable where it could not be, or where too many wait already. A caller that
        is cancelled meanwhile may find its call on record all the same.
        """
        if not self._open or self._loop is None:
            raise Unavailable("The record is closed: the server is stopping.", retry_after=1)
        if self._pending >= self._max_pending:
            raise Unavailable("Too many calls wait to be recorded.", retry_after=1)
        future: asyncio.Future[Unavailable | None] = self._loop.create_future()
        if not self._busy and not self._waiting:
            # Not at once: whatever else this turn of the loop brings shares the commit.
            self._schedule(0)
        self._waiting.append(_Waiting(call, future))
        self._pending += 1
        error = await future
        if error is not None:
            raise error

    def _schedule(self, seconds: float) -> None:
        assert self._loop is not None
        if self._next is not None:
            self._next.cancel()
        if seconds:
            self._next = self._loop.call_later(seconds, self._hand_over)
        else:
            self._next = self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Give the thread all that waits; nothing at all is a probe."""
        self._next = None
        batch, self._waiting = self._waiting, []
        self._busy = True
        self._batches.put(batch)

    def _settle(self, batch: list[_Waiting]) -> None:
        """Tell those who wait; runs on the loop once their batch is done."""
        self._busy = False
        self._pending -= len(batch)
        if self._waiting:
            self._hand_over()
        elif not self._healthy and self._open:
            self._schedule(_PROBE_SECONDS)
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_result(waiting.error)
        if not self._open and not self._pending:
            self._drained.set()

    def _run(self) -> None:
        assert self._loop is not None
        while (batch := self._batches.get()) is not None:
            self._record(batch)
            # A loop that is closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._settle, batch)
        self._drop_connection()

    def _record(self, batch: list[_Waiting]) -> None:
        try:
            self._commit([waiting.call for waiting in batch])
        except self._row_errors as error:
            if len(batch) > 1:
                for waiting in batch:
                    self._record([waiting])
            else:
                self._refuse(batch, error)
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever a driver raises
            self._healthy = False
            self._drop_connection()
            self._refuse(batch, error)
        else:
            self._healthy = True

    def _commit(self, calls: Sequence[RecordedCall]) -> None:
        if self._connection is None:
            self._connection = self._database.raw_connection()
        self._insert(self._connection.dbapi_connection, calls)

    def _refuse(self, batch: list[_Waiting], error: Exception) -> None:
        if batch:
            logging.getLogger(__name__).error(
                "%d calls could not be recorded: %s: %s", len(batch), type(error).__name__, error
            )
        for waiting in batch:
            waiting.error = Unavailable("The record cannot be written now.", retry_after=1)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Nothing of it is to be used again, so it matters little how it goes.
            with contextlib.suppress(Exception):
                connection.invalidate()
