"""Sending each signed head to an address outside, where who writes the record cannot reach it."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import structlog
from sqlalchemy import select

from onrecord.errors import RemoteError, SealError
from onrecord.outgoing import post
from onrecord.private_file import write_private_file
from onrecord.record.database import Database
from onrecord.record.tables import tree_heads

__all__ = ["HeadsUrl", "HeadsUrlThread"]

_AT_ONCE = 100


class HeadsUrl:
    """POSTs the heads of a record to `url`, each note as text/plain, in their order.

    `marker` is a file that says which was the last that arrived at that URL, for heads files
    named `heads_file`: another URL, or a record that goes on with another heads file, gets all of
    its heads. One whose answer was lost on the way is sent again. `seconds` bounds a request.
    """

    def __init__(
        self, database: Database, url: str, *, heads_file: Path, marker: Path, seconds: float = 10.0
    ) -> None:
        self._database = database
        self._url = url
        self._marker = marker
        self._seconds = seconds
        self._to = hashlib.sha256(f"{heads_file.absolute()}\n{url}".encode()).hexdigest()

    def deliver(self) -> int:
        """Send the heads that have not arrived yet and return how many they were.

        Raises RemoteError where one did not arrive; it and those after it stay to be sent. Raises
        SealError where the marker cannot be written.
        """
        delivered = 0
        size = self._arrived()
        while heads := self._after(size):
            for size, note in heads:
                post(self._url, note.encode(), "text/plain; charset=utf-8", seconds=self._seconds)
                self._mark(size)
                delivered += 1
        return delivered

    def _after(self, size: int) -> list[tuple[int, str]]:
        query = (
            select(tree_heads.c.size, tree_heads.c.note)
            .where(tree_heads.c.size > size)
            .order_by(tree_heads.c.size)
            .limit(_AT_ONCE)
        )
        with self._database.read() as connection:
            return [(row.size, row.note) for row in connection.execute(query)]

    def _mark(self, size: int) -> None:
        mark = {"to": self._to, "size": size}
        try:
            write_private_file(self._marker, json.dumps(mark).encode())
        except OSError as error:
            raise SealError(f"{self._marker}: cannot be written: {error.strerror}") from error

    def _arrived(self) -> int:
        """Return the size of the last head that arrived, 0 where that is not known."""
        try:
            mark = json.loads(self._marker.read_bytes())
            return int(mark["size"]) if mark["to"] == self._to else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0


class HeadsUrlThread:
    """Delivers in a thread of its own, so that a slow or dead receiver holds up nothing.

    It tries when it is woken, and after a failure again every `pause_seconds`.
    """

    def __init__(self, heads: HeadsUrl, *, pause_seconds: float = 30.0) -> None:
        self._heads = heads
        self._pause_seconds = pause_seconds
        self._woken = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="onrecord heads", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have what is new delivered soon; returns at once."""
        self._woken.set()

    def close(self, seconds: float) -> None:
        """Try once more, for so many seconds; what is left then is sent after the next start."""
        self._closing = True
        self._woken.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        arrives, last_time = True, False
        while not last_time:
            self._woken.wait(None if arrives else self._pause_seconds)
            self._woken.clear()
            last_time = self._closing
            arrives = self._try(arrived_before=arrives)

    def _try(self, *, arrived_before: bool) -> bool:
        log = structlog.get_logger("onrecord")
        try:
            delivered = self._heads.deliver()
        except RemoteError as error:
            log.warning("a tree head did not arrive at heads_url; it stays", reason=str(error))
            return False
        except Exception as error:  # noqa: BLE001 - it outlives whatever a driver or disk raises
            log.error("tree heads could not be delivered", reason=str(error))  # noqa: TRY400
            return False
        if not arrived_before:
            log.info("tree heads arrive at heads_url again", delivered=delivered)
        return True
