"""PostgreSQL, set up so that a commit is durable whatever the server's own setting."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from onrecord.errors import DatabaseError

__all__ = ["make", "set_synchronous_commit"]

# A server whose packets get lost would else keep calls waiting for a quarter of an hour.
_GIVE_UP = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}


def make(url: URL, *, threads: int) -> Engine:
    """Make the engine; raises DatabaseError where psycopg is not installed."""
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"connect_timeout": 5, "client_encoding": "utf8", **_GIVE_UP},
            pool_pre_ping=True,
            pool_size=threads + 1,
            pool_timeout=10,
            hide_parameters=True,
        )
    except ImportError as error:
        raise DatabaseError(
            "PostgreSQL needs the extra: pip install 'onrecord[postgres]'"
        ) from error
    event.listen(engine, "connect", _set_up)
    return engine


def set_synchronous_commit(connection: Any, level: str) -> None:
    """Have a new connection's commits wait for the disk, with "on", or not, with "off"."""
    connection.autocommit = True
    connection.execute(f"SET synchronous_commit TO {level}")
    connection.autocommit = False


def _set_up(connection: Any, _: Any) -> None:
    set_synchronous_commit(connection, "on")
