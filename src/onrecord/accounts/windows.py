"""How often something happened in the time just past, counted over all workers of a server."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from onrecord.accounts.rates import Rate
from onrecord.accounts.shared_slots import SharedSlots

__all__ = ["Window", "Windows"]

_PARTS = 60
_COUNTS = struct.Struct(f"<{_PARTS}I")
_PART_BYTES = 4
_NUMBER = struct.Struct("<q")


@dataclass(slots=True)
class Window:
    """What is counted under a key: how many there were of each part of the time just past."""

    key: bytes
    rate: Rate
    place: int | None
    part: int
    part_seconds: float
    counts: bytes
    total: int
    now: float

    @property
    def full(self) -> bool:
        """Whether one more would be one too many."""
        return self.total >= self.rate.amount

    @property
    def frees_in(self) -> float:
        """In how many seconds the oldest of what is counted will not be counted any more."""
        oldest = (_COUNTS.size - len(self.counts.lstrip(b"\0"))) // _PART_BYTES
        return (self.part + 1 + min(oldest, _PARTS - 1)) * self.part_seconds - self.now


class Windows:
    """Sliding windows of counts, in a file that workers share or in this process's memory.

    A window is counted in 60 parts, and a part is forgotten when all of it is older than the
    window. So there are never more than `amount` in any time of `seconds`, and one is counted for
    a sixtieth longer at most. `clock` is in seconds and the same for all who share the file. At
    most `slots` keys are counted at once, see `SharedSlots`.

    To be used inside its own context, which is a lock: what is read in it and added in it is one
    step to all others.
    """

    def __init__(
        self,
        file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        slots: int = 32_768,
    ) -> None:
        self._slots = SharedSlots(file, size=_NUMBER.size + _COUNTS.size, slots=slots)
        self._clock = clock

    def __enter__(self) -> Self:
        self._slots.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._slots.__exit__()

    def read(self, key: bytes, rate: Rate) -> Window:
        """Return what is counted under a key."""
        now = self._clock()
        part_seconds = rate.seconds / (_PARTS - 1)
        part = int(now / part_seconds)
        place = self._slots.find(key)
        if place is None:
            return Window(key, rate, None, part, part_seconds, bytes(_COUNTS.size), 0, now)
        record = self._slots.read(place)
        passed = part - _NUMBER.unpack_from(record)[0]
        if 0 <= passed < _PARTS:
            skipped = passed * _PART_BYTES
            counts = record[_NUMBER.size + skipped :] + bytes(skipped)
        else:
            counts = bytes(_COUNTS.size)
        total = sum(_COUNTS.unpack(counts))
        return Window(key, rate, place, part, part_seconds, counts, total, now)

    def add(self, window: Window) -> None:
        """Count one more in a window that was read in this context and is not full."""
        newest = int.from_bytes(window.counts[-_PART_BYTES:], "little") + 1
        window.counts = window.counts[:-_PART_BYTES] + newest.to_bytes(_PART_BYTES, "little")
        window.total += 1
        if window.place is None:
            window.place = self._slots.make_room(window.key, window.now)
        self._slots.write(
            window.place,
            window.key,
            _NUMBER.pack(window.part) + window.counts,
            ends_at=(window.part + _PARTS) * window.part_seconds,
            rank=window.total,
        )
