"""Group commit: many calls wait, one thread puts all of them on record in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio.to_thread
from sqlalchemy import PoolProxiedConnection

from onrecord.errors import Unavailable
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database

__all__ = ["Writer"]

_PROBE_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Waiting:
    call: RecordedCall
    settled: Callable[[Unavailable | None], None]
    error: Unavailable | None = None


class Writer:
    """Puts calls on record and tells each of them once it is durably committed.

    There is no artificial delay: what arrives during one commit is the next batch. At most
    `max_pending` calls wait at a time.
    """

    def __init__(self, database: Database, max_pending: int = 10_000) -> None:
        self._database = database
        self._max_pending = max_pending
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
        self._insert: Callable[[Sequence[RecordedCall]], None]
        self._healthy = True
        # The loop appends, the thread takes: both are single operations of the interpreter.
        self._waiting: deque[_Waiting] = deque()
        self._orders: queue.SimpleQueue[bool] = queue.SimpleQueue()
        # Everything below belongs to the event loop.
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
        self._orders.put(False)
        await anyio.to_thread.run_sync(thread.join)

    async def write(self, call: RecordedCall) -> None:
        """Return once `call` is durably on record.

        Raises Unavailable where it could not be, or where too many wait already. A caller that
        is cancelled meanwhile may find its call on record all the same.
        """
        future: asyncio.Future[Unavailable | None] = asyncio.get_running_loop().create_future()

        def settled(error: Unavailable | None) -> None:
            if not future.done():
                future.set_result(error)

        self.submit(call, settled)
        error = await future
        if error is not None:
            raise error

    def submit(self, call: RecordedCall, settled: Callable[[Unavailable | None], None]) -> None:
        """Begin to put `call` on record; to be called on the event loop.

        There `settled` is called once: with None when the call is durably on record, or with why
        it is not. Raises Unavailable, and does not call it, where too many wait already.
        """
        if not self._open:
            raise Unavailable("The record is closed: the server is stopping.", retry_after=1)
        if self._pending >= self._max_pending:
            raise Unavailable("Too many calls wait to be recorded.", retry_after=1)
        if not self._busy and not self._waiting:
            # Not at once: whatever else this turn of the loop brings shares the commit.
            self._schedule(0)
        self._waiting.append(_Waiting(call, settled))
        self._pending += 1

    def _schedule(self, seconds: float) -> None:
        assert self._loop is not None
        if self._next is not None:
            self._next.cancel()
        if seconds:
            self._next = self._loop.call_later(seconds, self._hand_over)
        else:
            self._next = self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Let the thread record all that waits; nothing at all is a probe."""
        self._next = None
        self._busy = True
        self._orders.put(True)

    def _settle(self, batch: list[_Waiting], *, idle: bool) -> None:
        """Tell those who wait; runs on the loop once their batch is done.

        The thread goes on by itself unless it was `idle`, having found nothing more to do.
        """
        self._pending -= len(batch)
        if idle:
            self._busy = False
            if self._waiting:
                self._hand_over()
            elif not self._healthy and self._open:
                self._schedule(_PROBE_SECONDS)
        for waiting in batch:
            waiting.settled(waiting.error)
        if not self._open and not self._pending:
            self._drained.set()

    def _run(self) -> None:
        assert self._loop is not None
        while self._orders.get():
            idle = False
            while not idle:
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._record(batch)
                idle = not self._waiting
                # A loop that is closed has nobody left who waits.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(partial(self._settle, batch, idle=idle))
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
            self._insert = committer(self._connection.dbapi_connection, self._database.dialect)
        self._insert(calls)

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
