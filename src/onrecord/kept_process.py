"""A process beside the server that is there for as long as it is wanted."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import Self

import structlog

__all__ = ["KeptProcess"]


class KeptProcess:
    """A module run by another interpreter, inside a context; it is started anew where it ends.

    Its standard input has `order` as the first line, since no list of processes may show what a
    URL holds, and ends with the context or with whoever started it, however that ended: then the
    process has `leave_seconds` to leave, else it is killed. `file` is the number of an open file
    that it inherits and is told as its argument. `name` is what the log calls it.
    """

    def __init__(  # noqa: PLR0913 - everything it needs is handed in
        self,
        module: str,
        order: bytes,
        *,
        name: str,
        leave_seconds: float,
        pause_seconds: float = 1.0,
        file: int | None = None,
    ) -> None:
        # -P: what lies in the working directory must not be imported.
        self._command = [sys.executable, "-P", "-m", module]
        self._files = [] if file is None else [file]
        self._order = order
        self._name = name
        self._leave_seconds = leave_seconds
        self._pause_seconds = pause_seconds
        self._process: subprocess.Popen[bytes]
        self._leaving = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"onrecord {name}", daemon=True)

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        return self._process.pid

    def __enter__(self) -> Self:
        self._start()
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._close_input()
        self._keeper.join(self._leave_seconds)
        if self._keeper.is_alive():
            self._process.kill()
            self._keeper.join()

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - a module of our own
            [*self._command, *map(str, self._files)], stdin=subprocess.PIPE, pass_fds=self._files
        )
        assert self._process.stdin is not None
        # One that has ended already is found so by the keeper.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(self._order + b"\n")
            self._process.stdin.flush()

    def _keep(self) -> None:
        while True:
            status = self._process.wait()
            if self._leaving.is_set():
                return
            structlog.get_logger("onrecord").error(f"{self._name} ended", status=status)
            self._close_input()
            if self._leaving.wait(self._pause_seconds):
                return
            self._start()
            if self._leaving.is_set():
                self._close_input()

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
