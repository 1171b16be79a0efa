"""What was read from the database a moment ago, so that not every call has to ask again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from onrecord.errors import Unavailable

__all__ = ["Fresh"]

_PATIENCE_SECONDS = 1.0
_READING_SECONDS = 10.0


class _Dated(Protocol):
    """A value that knows when its reading began, on the monotonic clock."""

    @property
    def read_at(self) -> float: ...


_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value", bound=_Dated)


@dataclass(frozen=True, slots=True)
class _Reading(Generic[_Value]):
    began: float
    task: asyncio.Task[_Value]


class Fresh(Generic[_Key, _Value]):
    """Remembers what `read` returned for a key, for at most so many keys; to be used on one loop.

    `read` is given the key and the moment it is called, which is what its value's `read_at` must
    be. All who ask for a key at once share one reading. An error is raised to them and remembered
    by nobody; but where the database cannot tell, whether it says so or says nothing for a while,
    what was read in the last `stale_seconds` goes on to hold.
    """

    def __init__(
        self,
        read: Callable[[_Key, float], Awaitable[_Value]],
        *,
        max_remembered: int,
        stale_seconds: float,
    ) -> None:
        self._read = read
        self._max_remembered = max_remembered
        self._stale_seconds = stale_seconds
        self._away = False
        self._asked_at = 0.0
        self._remembered: dict[_Key, _Value] = {}
        self._readings: dict[_Key, _Reading[_Value]] = {}
        self.get = self._remembered.get
        """Returns what is remembered for a key, however old; None where that is nothing."""

    def __len__(self) -> int:
        return len(self._remembered)

    async def since(self, key: _Key, moment: float) -> _Value:
        """Return the value of a reading that began after `moment`, or an older one as said above.

        Raises whatever the reading raises.
        """
        known = self._remembered.get(key)
        if known is not None and known.read_at > moment:
            return known
        now = time.monotonic()
        holds = known is not None and now - known.read_at < self._stale_seconds
        if known is None or not holds:
            return await self._reading(key, moment)
        if not self._away:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    return await self._reading(key, moment)
            except (TimeoutError, Unavailable):
                self._away = True
                self._asked_at = time.monotonic()
        elif now - self._asked_at >= _PATIENCE_SECONDS:
            # Nobody waits for the answer; the first one that comes ends this.
            self._asked_at = now
            self._begin(key)
        return known

    async def _reading(self, key: _Key, moment: float) -> _Value:
        reading = self._readings.get(key)
        if reading is None or reading.began <= moment:
            reading = self._begin(key)
        # One caller who leaves must not take the reading away from the others.
        return await asyncio.shield(reading.task)

    def _begin(self, key: _Key) -> _Reading[_Value]:
        began = time.monotonic()

        async def read() -> _Value:
            try:
                async with asyncio.timeout(_READING_SECONDS):
                    return await self._read(key, began)
            except TimeoutError as error:
                raise Unavailable("The record cannot be reached now.", retry_after=1) from error

        reading = _Reading(began, asyncio.create_task(read()))
        self._readings[key] = reading

        def ended(task: asyncio.Task[_Value]) -> None:
            if self._readings.get(key) is reading:
                del self._readings[key]
            if not task.cancelled() and task.exception() is None:
                self._away = False
                self._remember(key, task.result())

        reading.task.add_done_callback(ended)
        return reading

    def _remember(self, key: _Key, value: _Value) -> None:
        known = self._remembered.pop(key, None)
        if known is None and len(self._remembered) >= self._max_remembered:
            del self._remembered[next(iter(self._remembered))]
        later = known is not None and known.read_at > value.read_at
        self._remembered[key] = known if known is not None and later else value
