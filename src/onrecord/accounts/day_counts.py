"""How many calls were made today, of all servers on one database and before every restart."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import structlog

from onrecord.accounts.shared_slots import SharedSlots, slot_key
from onrecord.errors import Unavailable
from onrecord.record.database import Database
from onrecord.record.usage import Consumer, count_calls

__all__ = ["Day", "DayCounts"]

_DAY_SECONDS = 24 * 60 * 60
# How many were made; when the record was read and when to read it again; how many of them it had
# for good, and until which moment.
_RECORD = struct.Struct("<qddqd")
_MOST = 1 << 62
_PATIENCE_SECONDS = 1.0
_READING_SECONDS = 10.0
_SETTLED_AFTER_SECONDS = 300.0
"""A call that arrived so long ago is on record by now, or never will be."""


@dataclass(slots=True)
class Day:
    """What is counted of a consumer's calls today, a day that ends in `frees_in` seconds."""

    key: bytes
    place: int | None
    ends_at: float
    frees_in: float
    total: int
    read_at: float
    due_at: float
    settled: int
    settled_until: float


class DayCounts:
    """The calls of each consumer since midnight UTC; `file` as in `SharedSlots`.

    A consumer's count begins with what the record has of its day, whoever put it there. From then
    on each call that these workers let through is added at once, and every `refresh_seconds` the
    count is raised to what the record has by then, while calls go on; no call is let through by a
    count that was not compared with the record for twice as long. So one server counts exactly, and
    of several each knows what the others let through until then. While the database is away, a
    count that was compared with it in the last `stale_seconds` goes on.

    `today` and `add` are to be used inside its context, which is a lock among the workers.
    """

    def __init__(
        self,
        database: Database,
        file: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
        refresh_seconds: float = 5.0,
        stale_seconds: float = 0.0,
    ) -> None:
        self._database = database
        self._slots = SharedSlots(file, size=_RECORD.size, slots=32_768)
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._oldest_seconds = 2 * refresh_seconds
        self._stale_seconds = stale_seconds
        self._away_until = -math.inf
        self._readings: dict[Consumer, asyncio.Task[None]] = {}

    def __enter__(self) -> Self:
        self._slots.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._slots.__exit__()

    def today(self, key: bytes) -> Day | None:
        """Return what is counted under a consumer's key, None where `read` must come first."""
        now = self._clock()
        day = self._known(key, now)
        oldest = self._stale_seconds if now < self._away_until else self._oldest_seconds
        return day if now - oldest < day.read_at <= now else None

    def add(self, day: Day) -> bool:
        """Count one more call; return True where the record is to be read again by the caller."""
        now = self._clock()
        due = not now < day.due_at <= now + self._refresh_seconds
        if due:
            day.due_at = now + self._refresh_seconds
        day.total += 1
        self._write(day, now)
        return due

    async def read(self, consumer: Consumer) -> None:
        """Raise the count to what the record has; all who ask at once share one reading.

        Raises Unavailable where the database is out of reach and the count too old to go on.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS if self._stale_seconds else None):
                await asyncio.shield(self._reading(consumer))
        except (TimeoutError, Unavailable):
            now = self._clock()
            with self:
                day = self._known(slot_key(*consumer), now)
            if now - day.read_at >= self._stale_seconds:
                raise Unavailable(
                    "The calls of today cannot be counted now.", retry_after=1
                ) from None
            self._away_until = now + self._refresh_seconds

    def read_later(self, consumer: Consumer) -> None:
        """Have the count raised to what the record has, soon; no call waits for that."""
        self._reading(consumer)

    def _reading(self, consumer: Consumer) -> asyncio.Task[None]:
        reading = self._readings.get(consumer)
        if reading is None:
            reading = asyncio.create_task(self._read(consumer))
            self._readings[consumer] = reading
            reading.add_done_callback(lambda task: self._ended(consumer, task))
        return reading

    def _ended(self, consumer: Consumer, reading: asyncio.Task[None]) -> None:
        del self._readings[consumer]
        if not reading.cancelled() and reading.exception() is not None:
            structlog.get_logger("onrecord").warning(
                "the calls of today could not be counted",
                consumer=consumer,
                reason=str(reading.exception()),
            )

    async def _read(self, consumer: Consumer) -> None:
        key = slot_key(*consumer)
        now = self._clock()
        with self:
            day = self._known(key, now)
        since = day.settled_until
        until = max(since, now - _SETTLED_AFTER_SECONDS)
        older, newer = await self._database.run(
            self._count, consumer, since, until, seconds=_READING_SECONDS
        )
        self._learn(key, now, day.settled + older, until, newer)

    def _count(self, consumer: Consumer, since: float, until: float) -> tuple[int, int]:
        with self._database.read() as connection:
            return count_calls(connection, consumer, _moment(since), _moment(until))

    def _learn(self, key: bytes, read_at: float, settled: int, until: float, newer: int) -> None:
        with self:
            now = self._clock()
            day = self._known(key, now)
            if day.ends_at != _midnight_after(read_at):
                return
            day.total = max(day.total, settled + newer)
            day.read_at = max(day.read_at, read_at)
            day.due_at = now + self._refresh_seconds
            if until > day.settled_until:
                day.settled, day.settled_until = settled, until
            self._write(day, now)

    def _known(self, key: bytes, now: float) -> Day:
        ends_at = _midnight_after(now)
        begins_at, frees_in = ends_at - _DAY_SECONDS, ends_at - now
        place = self._slots.find(key)
        if place is not None and self._slots.ends_at(place) == ends_at:
            total, read_at, due_at, settled, settled_until = _RECORD.unpack(self._slots.read(place))
            if 0 <= settled <= total < _MOST and begins_at <= settled_until <= now:
                return Day(
                    key, place, ends_at, frees_in, total, read_at, due_at, settled, settled_until
                )
        return Day(key, place, ends_at, frees_in, 0, -math.inf, now, 0, begins_at)

    def _write(self, day: Day, now: float) -> None:
        if day.place is None:
            day.place = self._slots.make_room(day.key, now)
        record = _RECORD.pack(day.total, day.read_at, day.due_at, day.settled, day.settled_until)
        self._slots.write(day.place, day.key, record, ends_at=day.ends_at, rank=day.total)


def _midnight_after(moment: float) -> float:
    return moment - moment % _DAY_SECONDS + _DAY_SECONDS


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
