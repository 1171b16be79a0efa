"""One server of all that share a database runs its shadows: the one that has this lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from onrecord.record.database import Database
from onrecord.record.sqlite_engine import path_of

__all__ = ["ShadowLock"]

_LOCK = 7165720260527


class ShadowLock:
    """A lock that at most one process has; used by one thread.

    With SQLite it is a file beside the database, with PostgreSQL a lock of a session. Either goes
    when its holder ends, however that ended.
    """

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._path: Path | None = None
        if database.dialect == "sqlite":
            self._path = Path(f"{path_of(make_url(url))}.shadow.lock")
        self._file: int | None = None
        self._session: Connection | None = None
        self._held = False

    def take(self) -> bool:
        """Return whether this process has the lock now; takes it where nobody has it.

        Raises SQLAlchemy's error where the session is lost, and the lock with it, or OSError.
        """
        if self._path is not None:
            self._held = self._held or self._take_file(self._path)
            return self._held
        try:
            self._held = self._take_in_session()
        except BaseException:
            self.close()
            raise
        return self._held

    def close(self) -> None:
        """Let go of the lock."""
        self._held = False
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._session is not None:
            # Not back to the pool: the lock is the session's.
            self._session.invalidate()
            self._session.close()
            self._session = None

    def _take_file(self, path: Path) -> bool:
        if self._file is None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _take_in_session(self) -> bool:
        if self._session is None:
            session = self._database.engine.connect()
            self._session = session.execution_options(isolation_level="AUTOCOMMIT")
        asked = "SELECT true" if self._held else f"SELECT pg_try_advisory_lock({_LOCK})"
        return bool(self._session.execute(text(asked)).scalar_one())
