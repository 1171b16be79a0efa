"""The process that seals the record every so often, beside the processes that serve.

Hashing needs the interpreter for longer than a call does; in a process of its own it takes nothing
from the calls but a core's time. It is started with one line of JSON on standard input, `Order`,
and ends, after a last time, when that is closed: also when whoever started it was killed.
"""

from __future__ import annotations

import contextlib
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import structlog

from onrecord.logs import configure_logs
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile
from onrecord.record.seal import Sealer

__all__ = ["Order", "SealingProcess"]

_LAST_TIME_SECONDS = 60.0


class Order(msgspec.Struct, frozen=True):
    """What is sealed, with which key, where its heads go, and how often, in seconds."""

    database_url: str
    key_file: str
    heads_file: str
    seconds: float
    log_format: str
    log_level: str


class SealingProcess:
    """The process, started anew whenever it ends before `stop`."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._stopping = threading.Event()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name="onrecord-sealing", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Let it seal what is left, and end."""
        self._stopping.set()
        self._close_input()
        self._watcher.join(_LAST_TIME_SECONDS)
        if self._process.poll() is None:
            self._process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", __name__]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - our own module
        assert process.stdin is not None
        # The order holds the database's password: it belongs in no argument list.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(self._order) + b"\n")
            process.stdin.flush()
        return process

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _watch(self) -> None:
        while True:
            status = self._process.wait()
            if self._stopping.is_set():
                return
            structlog.get_logger("onrecord").error("the sealing process ended", status=status)
            self._close_input()
            if self._stopping.wait(self._order.seconds):
                return
            self._process = self._start()
            if self._stopping.is_set():
                self._close_input()


def _run() -> None:
    # Ctrl-C reaches the whole group of processes; the one that serves says when it is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    configure_logs(form=order.log_format, level=order.log_level)
    database = Database(order.database_url)
    log = structlog.get_logger("onrecord")
    over = False
    while not over:
        over = bool(select.select([sys.stdin], [], [], order.seconds)[0])
        try:
            key = SigningKey.from_file(Path(order.key_file))
            Sealer(database, key, HeadsFile(Path(order.heads_file))).seal()
        except Exception as error:  # noqa: BLE001 - it outlives whatever a driver raises
            log.error("the record could not be sealed", reason=str(error))  # noqa: TRY400
    database.close()


if __name__ == "__main__":
    _run()
