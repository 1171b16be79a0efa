"""Keeps a process for each shadow that runs, beside the server and for as long as it does.

There is none while no shadow runs. A shadow's process reads what is on record already, so no call
waits for it; it yields the processor to all others, and what its model breaks is its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, Self

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from onrecord.errors import OnrecordError
from onrecord.record.database import Database
from onrecord.record.deployments import revision
from onrecord.record.shadow_lock import ShadowLock
from onrecord.record.shadows import Shadow, running

__all__ = ["ShadowKeeper", "ShadowOrder"]

_SECONDS = 0.25
_LEAVE_SECONDS = 5.0


class ShadowOrder(msgspec.Struct, frozen=True):
    """What the process of a shadow is told: the shadow, and what the command line set."""

    shadow: Shadow
    settings: dict[str, Any]


class ShadowKeeper:
    """Runs `program` once for each shadow; for use as a context manager.

    The program gets a `ShadowOrder` as a line of JSON on standard input, which ends when it is to
    leave, also where this process was killed. It is killed as soon as anything about its model's
    deployment changes. One that ends by itself is not started again before that; the log has it,
    once, unless it ended with 0, having told why itself.
    """

    def __init__(self, database_url: str, program: list[str], settings: Mapping[str, Any]) -> None:
        self._database = Database(database_url)
        self._lock = ShadowLock(self._database, database_url)
        # -P: what lies in the working directory must not be imported.
        self._command = [sys.executable, "-P", *program]
        self._settings = dict(settings)
        self._processes: dict[Shadow, subprocess.Popen[bytes]] = {}
        self._ended: set[Shadow] = set()
        self._revision = 0
        self._shadows: list[Shadow] = []
        self._away = False
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="onrecord shadows", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        # Where the database is silent they see by themselves that this process has ended.
        self._thread.join(_LEAVE_SECONDS)

    def _keep(self) -> None:
        log = structlog.get_logger("onrecord")
        while not self._leaving.wait(_SECONDS):
            try:
                self._look()
                self._away = False
            except (OnrecordError, SQLAlchemyError, OSError) as error:
                if not self._away:
                    self._away = True
                    log.warning("cannot see which shadows are to run", why=str(error))
        self._end(set(self._processes))
        self._lock.close()
        self._database.close()

    def _look(self) -> None:
        with self._database.read() as connection:
            newest = revision(connection)
            if newest != self._revision:
                self._shadows = running(connection)
                self._revision = newest
        wanted = set(self._shadows) if self._shadows and self._lock.take() else set()
        self._ended &= wanted
        self._end(self._processes.keys() - wanted)
        self._note_ended()
        for shadow in wanted - self._processes.keys() - self._ended:
            self._start(shadow)

    def _start(self, shadow: Shadow) -> None:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603 - our own
        self._processes[shadow] = process
        assert process.stdin is not None
        # One that has ended already is found so by the next look.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(ShadowOrder(shadow, self._settings)) + b"\n")
            process.stdin.flush()

    def _note_ended(self) -> None:
        for shadow, process in list(self._processes.items()):
            status = process.poll()
            if status is not None:
                self._end({shadow})
                self._ended.add(shadow)
            if status:
                structlog.get_logger("onrecord").error(
                    "a shadow ended; it is tried again when its model's versions change",
                    model=shadow.model,
                    status=status,
                )

    def _end(self, shadows: set[Shadow]) -> None:
        for shadow in shadows:
            process = self._processes.pop(shadow)
            # All that it does is in transactions: there is nothing to wait for.
            process.kill()
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
