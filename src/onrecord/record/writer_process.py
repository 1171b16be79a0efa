"""The writer's process, and the socket by which the workers of a server reach it."""

from __future__ import annotations

import shutil
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from onrecord.errors import DatabaseError
from onrecord.kept_process import KeptProcess
from onrecord.record.spool import Spool
from onrecord.record.writer_order import WriterOrder

__all__ = ["WriterProcess"]

_LEAVE_SECONDS = 30.0
_BACKLOG = 128


class WriterProcess:
    """The one process that puts calls on record for a server; to be used as a context manager.

    `address` is the path of the socket where each worker's `Writer` reaches it, in a directory
    that only this user may enter. Inside the context the process runs: one that dies is followed
    by another, which the writers find by themselves. Raises DatabaseError where no socket or
    spool can be made.
    """

    def __init__(self, order: WriterOrder) -> None:
        self._order = order
        self._stack = ExitStack()
        self._process: KeptProcess
        self.address: str

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        return self._process.pid

    def __enter__(self) -> Self:
        if self._order.spool is not None:
            spool = Spool(self._order.spool)
            spool.open()
            spool.close()
        with ExitStack() as stack:
            directory = tempfile.mkdtemp(prefix="onrecord-")
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            self.address = str(Path(directory) / "writer")
            listener = stack.enter_context(self._listen())
            self._process = stack.enter_context(
                KeptProcess(
                    "onrecord.record.writer_main",
                    msgspec.json.encode(self._order),
                    name="the writer's process",
                    leave_seconds=_LEAVE_SECONDS,
                    file=listener.fileno(),
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(self.address)
        except OSError as error:
            listener.close()
            raise DatabaseError(
                f"The writer's socket {self.address} cannot be made: {error}. "
                "Name a shorter or writable directory in TMPDIR."
            ) from error
        listener.listen(_BACKLOG)
        return listener
