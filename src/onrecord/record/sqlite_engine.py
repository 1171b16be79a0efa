"""SQLite, set up so that a commit is durable and several processes may share the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event

from onrecord.errors import DatabaseError
from onrecord.file_lock import locked

__all__ = [
    "WRITE",
    "empty_log",
    "erase_securely",
    "make",
    "move_log",
    "path_of",
    "require_version",
    "upgrade_lock",
]

WRITE = "onrecord_write"
"""The execution option of a connection whose transaction begins with the write lock."""

# Those before 3.51.3 can corrupt a WAL file that two connections write or checkpoint at once;
# 3.53 is the first that can drop a NOT NULL, which a migration does.
_OLDEST = (3, 53, 0)
_SYNCHRONOUS_FULL = 2
_COPIED_AT_ONCE = 1 << 18

# Room for the writer's statements: one for each size of a batch.
_CACHED_STATEMENTS = 256


def require_version(version: tuple[int, ...]) -> None:
    """Raise DatabaseError where a version of SQLite is too old to keep a shared WAL file safe."""
    if version < _OLDEST:
        raise DatabaseError(
            f"SQLite {'.'.join(map(str, version))} is too old: before 3.51.3 it can corrupt a file "
            f"that two connections write. onrecord needs {'.'.join(map(str, _OLDEST))} or newer. "
            "Install a newer pysqlite3: pip install --upgrade pysqlite3"
        )


def path_of(url: URL) -> Path:
    """Return the file that a URL names; raises DatabaseError where it names none."""
    if not url.database or url.database == ":memory:":
        raise DatabaseError("An SQLite database must be a file: write sqlite:///path/to/file.")
    return Path(url.database)


def make(url: URL, *, threads: int) -> Engine:
    """Make the engine; it opens the file only once it is asked for a connection."""
    from pysqlite3 import dbapi2

    require_version(dbapi2.sqlite_version_info)
    # Without an adapter the module looks for one on every such parameter, by attributes that are
    # not there; that took longer than the insert.
    dbapi2.register_adapter(bytes, bytes)
    dbapi2.register_adapter(type(None), {None: None}.get)
    path = path_of(url)

    def connect() -> Any:
        # SQLite would make a missing file, readable by all; only an upgrade may make it.
        if not path.exists():
            raise DatabaseError(
                f"There is no database at {path}. Make it with: onrecord db upgrade"
            )
        connection = dbapi2.connect(
            str(path),
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
        try:
            _set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine(
        url.set(drivername="sqlite"),
        module=dbapi2,
        creator=connect,
        poolclass=QueuePool,
        pool_size=threads + 1,
        pool_timeout=10,
        hide_parameters=True,
    )
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=10000")
    mode = cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise DatabaseError(
            f"SQLite cannot use a write-ahead log here (it stays with {mode!r}); "
            "put the file on a local disk."
        )
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # What moves to another page leaves no copy behind, or an erasure would miss that one.
    cursor.execute("PRAGMA secure_delete=FAST")
    if cursor.execute("PRAGMA synchronous").fetchone()[0] != _SYNCHRONOUS_FULL:
        raise DatabaseError("SQLite refuses synchronous=FULL, so no commit would be durable.")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A deferred transaction that turns to writing fails at once where another writes.
    write = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def move_log(engine: Engine, path: Path) -> None:
    """Move what the write-ahead log holds into the database file, as far as nobody reads it.

    After a sync that failed, the log may have a tail that can be read but that no later sync brings
    to the disk, as the kernel takes it for written. A server that starts recovers that tail, and
    what it appended, or moved, would be lost or torn with it when the power goes. So the log is
    written once more, which the kernel does bring to the disk, before it is moved.
    """
    connection: Any = engine.raw_connection()
    try:
        # Whoever holds the write lock is alone in changing the log.
        connection.execute("BEGIN IMMEDIATE")
        try:
            _write_once_more(Path(f"{path}-wal"))
        finally:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        connection.close()


def erase_securely(connection: Connection) -> None:
    """Have all that a connection deletes from now on overwritten with zeros in the file.

    Other connections do that on the pages only that they write anyway.
    """
    connection.exec_driver_sql("PRAGMA secure_delete = ON")


def empty_log(engine: Engine) -> bool:
    """Move all that the write-ahead log holds into the file and cut it to nothing.

    Until then it holds pages as they were. Return whether that was done: not while somebody reads
    an older state, for which it waits some seconds.
    """
    connection: Any = engine.raw_connection()
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.close()
    return not busy


def _write_once_more(log: Path) -> None:
    """Write a file's own content over it and wait until it is on the disk."""
    file = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    try:
        offset = 0
        while content := os.pread(file, _COPIED_AT_ONCE, offset):
            offset += os.pwrite(file, content, offset)
        os.fsync(file)
    except OSError as error:
        raise DatabaseError(f"The log {log} cannot be written: {error.strerror}.") from error
    finally:
        os.close(file)


@contextlib.contextmanager
def upgrade_lock(path: Path) -> Iterator[None]:
    """Hold the file's upgrade lock; make the file, mode 0600, and its directory where missing.

    The lock is a file of its own, as closing a second handle on the database would drop the
    locks that SQLite holds on it. Raises DatabaseError where the place cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(Path(f"{path}.lock")))
        except OSError as error:
            raise DatabaseError(
                f"The database at {path} cannot be made: {error.strerror}."
            ) from error
        _make_file(path)
        yield


def _make_file(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
