"""Starts the writer's process, and starts it again where it ends by itself."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Self

from onrecord.errors import DatabaseError

__all__ = ["WriterProcess"]

_LEAVE_SECONDS = 30
_PAUSE_SECONDS = 1


class WriterProcess:
    """The one process that puts calls on record for a server; to be used as a context manager.

    `address` is the path of the socket where each worker's `Writer` reaches it, in a directory
    that only this user may enter. Inside the context the process runs: one that dies is followed
    by another, which the writers find by themselves. Raises DatabaseError where no socket can be
    made.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._directory: str
        self.address: str
        self._process: subprocess.Popen[bytes]
        self._leaving = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="onrecord-writer", daemon=True)

    def __enter__(self) -> Self:
        self._directory = tempfile.mkdtemp(prefix="onrecord-")
        self.address = str(Path(self._directory) / "writer")
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(self.address)
        except OSError as error:
            self._remove()
            raise DatabaseError(
                f"The writer's socket {self.address} cannot be made: {error}. "
                "Name a shorter or writable directory in TMPDIR."
            ) from error
        self._listener.listen(128)
        self._launch()
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._let_go()
        try:
            self._process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._keeper.join()
        self._remove()

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        return self._process.pid

    def _launch(self) -> None:
        listener = self._listener.fileno()
        self._process = subprocess.Popen(  # noqa: S603 - a module of our own
            [sys.executable, "-P", "-m", "onrecord.record.writer_main", str(listener)],
            stdin=subprocess.PIPE,
            pass_fds=[listener],
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._url.encode() + b"\n")
        self._process.stdin.flush()

    def _keep(self) -> None:
        while True:
            code = self._process.wait()
            if self._leaving.is_set():
                return
            logging.getLogger(__name__).error(
                "the writer's process ended with code %d and is started again", code
            )
            self._let_go()
            if self._leaving.wait(_PAUSE_SECONDS):
                return
            self._launch()

    def _let_go(self) -> None:
        """Close the process's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _remove(self) -> None:
        self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)
