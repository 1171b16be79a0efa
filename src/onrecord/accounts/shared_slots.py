"""Small records in memory that every worker of a server sees, each found by a key."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import Self

from onrecord.errors import SettingsError

__all__ = ["SharedSlots", "slot_key"]

_KEY_BYTES = 16
# The key, when the record stops to matter, and which of several is given up first: the least.
_HEAD = struct.Struct(f"<{_KEY_BYTES}sdq")
_WAYS = 8
_FREE = bytes(_KEY_BYTES)


def slot_key(*parts: str) -> bytes:
    """Return the key of what some words name."""
    return hashlib.blake2b(
        "\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES
    ).digest()


class SharedSlots:
    """At most `slots` records of `size` bytes each, in memory mapped from a file.

    All who open the same file share them; without one they are this process's own. Whoever reads
    or writes does so inside the context, which is a lock among processes; the system drops it
    where its holder dies, and whatever that left behind are bytes like others: nothing that can be
    in the file makes a method fail. In one process only one thread may use them.

    A record belongs into one of eight places that its key decides. Where all are taken, one whose
    time is over makes room, else the one of the lowest rank: memory is bounded, whatever names
    callers make up. Raises SettingsError where the file cannot be used.
    """

    def __init__(self, file: Path | None, *, size: int, slots: int) -> None:
        self._stride = _HEAD.size + size
        self._set_bytes = _WAYS * self._stride
        self._sets = max(1, slots // _WAYS)
        self._lock: int | None = None
        if file is None:
            self._memory = mmap.mmap(-1, self._sets * self._set_bytes)
            return
        try:
            # Never closed: what is mapped is used as long as the process lives.
            self._lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._lock, self._sets * self._set_bytes)
            self._memory = mmap.mmap(self._lock, self._sets * self._set_bytes)
            with self:
                pass
        except OSError as error:
            raise SettingsError(
                f"The counts that the workers share cannot be kept in {file}: {error}. "
                "Name a writable directory in TMPDIR."
            ) from error

    def __enter__(self) -> Self:
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def find(self, key: bytes) -> int | None:
        """Return the place of a key's record, None where it has none."""
        start = self._first_place(key)
        end = start + self._set_bytes
        place = self._memory.find(key, start, end)
        while place >= 0 and (place - start) % self._stride:
            place = self._memory.find(key, place + 1, end)
        return place if place >= 0 else None

    def make_room(self, key: bytes, now: float) -> int:
        """Return the place to write the record of a key that has none."""
        start = self._first_place(key)
        least = start
        least_rank: int | None = None
        for place in range(start, start + self._set_bytes, self._stride):
            taken_by, ends_at, rank = _HEAD.unpack_from(self._memory, place)
            if taken_by == _FREE or ends_at <= now:
                return place
            if least_rank is None or rank < least_rank:
                least, least_rank = place, rank
        return least

    def ends_at(self, place: int) -> float:
        """Return until when the record at a place matters."""
        ends_at: float = _HEAD.unpack_from(self._memory, place)[1]
        return ends_at

    def read(self, place: int) -> bytes:
        """Return the record at a place."""
        return self._memory[place + _HEAD.size : place + self._stride]

    def write(self, place: int, key: bytes, record: bytes, *, ends_at: float, rank: int) -> None:
        """Put a key's record at a place; it matters until `ends_at`, on the clock of the caller."""
        self._memory[place : place + self._stride] = _HEAD.pack(key, ends_at, rank) + record

    def _first_place(self, key: bytes) -> int:
        return int.from_bytes(key[:8], "little") % self._sets * self._set_bytes
