"""The database: how it is reached, which transactions it gives, and whether its tables fit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine, PoolProxiedConnection, event, exc, text
from sqlalchemy.engine import make_url

from onrecord.errors import DatabaseError, Unavailable
from onrecord.record import postgresql_engine, schema, sqlite_engine
from onrecord.record.masked_url import masked_url

__all__ = ["Database"]

_Result = TypeVar("_Result")

_THREADS = 8
_CALLERS_FAULT = (exc.IntegrityError, exc.DataError, exc.ProgrammingError, exc.NotSupportedError)


class Database:
    """One database, SQLite ('sqlite:///path') or PostgreSQL ('postgresql://...').

    Building one connects to nothing. `url` is the address with its password masked; `dialect` is
    'sqlite' or 'postgresql'; `engine` is SQLAlchemy's. Raises DatabaseError where the address is
    of neither kind, or the SQLite at hand is too old to be trusted with a WAL file.
    """

    def __init__(self, url: str) -> None:
        try:
            address = make_url(url)
        except exc.ArgumentError:
            raise DatabaseError(
                "The database URL cannot be read; write sqlite:///path/to/file or "
                "postgresql://user:password@host/name."
            ) from None
        self.url = masked_url(address)
        kind = address.get_backend_name()
        self.dialect: Literal["sqlite", "postgresql"]
        if kind == "sqlite":
            self.dialect = "sqlite"
            self._path = sqlite_engine.path_of(address)
            self.engine: Engine = sqlite_engine.make(address, threads=_THREADS)
        elif kind in {"postgresql", "postgres"}:
            self.dialect = "postgresql"
            self.engine = postgresql_engine.make(address, threads=_THREADS)
        else:
            raise DatabaseError(
                f"onrecord keeps its record in SQLite or PostgreSQL, not in {kind!r}."
            )
        self._limiter = anyio.CapacityLimiter(_THREADS)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection in a transaction for reading."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection in a transaction for writing; it commits unless an error leaves it.

        In SQLite it holds the write lock from the start, so reading first is safe.
        """
        with self.engine.connect() as connection:
            connection.execution_options(**{sqlite_engine.WRITE: True})
            with connection.begin():
                yield connection

    def commit_loosely(self) -> None:
        """Have no commit of this object wait for the disk, for what can be made again.

        To be called before the first connection. What is committed may go with a loss of power, as
        a whole and from its end, unless another commit came after it.
        """

        def loosely(connection: Any, _: Any) -> None:
            if self.dialect == "sqlite":
                connection.execute("PRAGMA synchronous=NORMAL")
            else:
                postgresql_engine.set_synchronous_commit(connection, "off")

        event.listen(self.engine, "connect", loosely)

    def erase_securely(self, connection: Connection) -> None:
        """Have what a transaction deletes be gone from the file, as far as the database can."""
        if self.dialect == "sqlite":
            sqlite_engine.erase_securely(connection)

    def forget(self) -> bool:
        """Rid the files of what was deleted; return whether no trace of it is left in them.

        PostgreSQL does it itself, with its next vacuum, and is not waited for.
        """
        return self.dialect == "postgresql" or sqlite_engine.empty_log(self.engine)

    def vacuum(self) -> bool:
        """Write the tables of calls anew, without what was deleted; return as `forget` does."""
        anew = ["VACUUM"] if self.dialect == "sqlite" else ["VACUUM requests", "VACUUM responses"]
        with self._explained():
            connection: Any = self.engine.raw_connection()
            try:
                if self.dialect == "postgresql":
                    connection.dbapi_connection.autocommit = True
                for statement in anew:
                    connection.execute(statement)
            except self.engine.dialect.dbapi.Error as error:  # type: ignore[union-attr]
                raise DatabaseError(f"The database cannot be written anew: {error}") from error
            finally:
                connection.invalidate()
            return self.forget()

    def raw_connection(self) -> PoolProxiedConnection:
        """Give a bare DBAPI connection, for the writer; its settings are those of the others."""
        return self.engine.raw_connection()

    async def run(
        self, function: Callable[..., _Result], *arguments: Any, seconds: float | None = None
    ) -> _Result:
        """Run a function that queries in a worker thread and return what it returns.

        Raises Unavailable where the database is out of reach, too busy, or silent for `seconds`.
        Where the caller is cancelled, the function runs to its end all the same.
        """
        try:
            async with asyncio.timeout(seconds):
                return await anyio.to_thread.run_sync(
                    function, *arguments, limiter=self._limiter, abandon_on_cancel=True
                )
        except TimeoutError as error:
            raise Unavailable("The record cannot be reached now.", retry_after=1) from error
        except _CALLERS_FAULT:
            raise
        except (exc.DBAPIError, exc.TimeoutError, exc.DisconnectionError) as error:
            raise Unavailable("The record cannot be reached now.", retry_after=1) from error
        except DatabaseError as error:
            # From `check`: out of reach for a while is not the same as tables that do not fit.
            if isinstance(error.__cause__, exc.SQLAlchemyError):
                raise Unavailable("The record cannot be reached now.", retry_after=1) from error
            raise

    def upgrade(self) -> None:
        """Bring the tables to this version; safe where several starters do so at once.

        Raises DatabaseError where the database is unreachable, or newer than this version.
        """
        with self._explained():
            if self.dialect == "sqlite":
                with sqlite_engine.upgrade_lock(self._path), self.write() as connection:
                    schema.upgrade(connection)
                sqlite_engine.move_log(self.engine, self._path)
            else:
                with self.write() as connection:
                    connection.execute(text("SELECT pg_advisory_xact_lock(7165720260509)"))
                    schema.upgrade(connection)

    def check(self) -> None:
        """Raise DatabaseError unless the database is reachable and its tables fit this version."""
        with self._explained(), self.read() as connection:
            schema.check(connection)

    def ping(self) -> None:
        """Ask the database for a trivial answer; raises SQLAlchemy's error where none comes."""
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close every connection that is not in use."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()
            reason = cause[0] if cause else type(error).__name__
            raise DatabaseError(
                f"The database at {self.url} cannot be used: {reason}. "
                "See that it is running and that the URL names it."
            ) from error
