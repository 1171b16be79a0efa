"""A deadline for the use of a connection whose other end may have fallen silent."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from types import TracebackType
from typing import Self

__all__ = ["Deadline"]

_LOOKS_PER_DEADLINE = 10


class Deadline:
    """Breaks a connection whose use takes longer than `seconds`; to be used by one thread.

    libpq waits for a reply without end, and as long as the other machine acknowledges what was
    sent to it, as one does whose PostgreSQL hangs, the system does not give up either. Broken off
    from another thread, the connection fails as one that was lost.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._file: int | None = None
        self._end = 0.0
        self._in_use = threading.Event()
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()

    def for_use_of(self, file: int) -> Self:
        """Return a context for one use of the connection that is the open file `file`."""
        with self._lock:
            self._file = file
            self._end = time.monotonic() + self._seconds
        return self

    def __enter__(self) -> Self:
        self._in_use.set()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._file = None

    def _watch(self) -> None:
        while True:
            self._in_use.wait()
            time.sleep(self._seconds / _LOOKS_PER_DEADLINE)
            with self._lock:
                if self._file is None:
                    self._in_use.clear()
                elif time.monotonic() > self._end:
                    _break_off(self._file)
                    self._file = None


def _break_off(file: int) -> None:
    # It may have been closed meanwhile; a copy keeps the number from being closed by the socket.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(file)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
