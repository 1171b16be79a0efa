"""Has a worker answer with the versions that the record names, from a moment after they change."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from onrecord.errors import OnrecordError
from onrecord.lifecycle.fleet import Fleet
from onrecord.record.database import Database

__all__ = ["Watcher"]

_SECONDS = 0.25
_PATIENCE_SECONDS = 5.0


class Watcher:
    """Asks the record four times a second whether another version is to answer.

    Versions are loaded in a thread; that they answer is one assignment on the event loop, between
    two calls. While the database is away, what is loaded goes on to answer.
    """

    def __init__(self, fleet: Fleet, database: Database) -> None:
        self._fleet = fleet
        self._database = database
        self._task: asyncio.Task[None] | None = None
        self._away = False

    def start(self) -> None:
        """Begin to watch, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        log = structlog.get_logger("onrecord")
        while True:
            await asyncio.sleep(_SECONDS)
            try:
                await self._look()
            except OnrecordError as error:
                if not self._away:
                    self._away = True
                    log.warning("cannot see which versions are to answer", why=str(error))
            except Exception:
                log.exception("watching the versions failed")

    async def _look(self) -> None:
        plan = await self._database.run(self._fleet.plan, seconds=_PATIENCE_SECONDS)
        self._away = False
        if plan is not None:
            loaded, failures = await self._database.run(self._fleet.load, plan)
            self._fleet.serve(plan, loaded, failures)
