"""`onrecord spool`: what was answered while PostgreSQL was away and is not in it yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from onrecord.cli.admin import DatabaseOption
from onrecord.errors import DatabaseError, SettingsError
from onrecord.record.database import Database
from onrecord.record.spool import Depth, Spool
from onrecord.record.spooling import Drain
from onrecord.settings import load_settings

__all__ = ["spool_app"]

spool_app = typer.Typer(
    help="Calls that were answered while PostgreSQL was away.", no_args_is_help=True
)


@spool_app.command("show")
def show(database: DatabaseOption = None) -> None:
    """Say how many calls wait for the database."""
    with _opened(database) as (spool, _):
        _say(spool.depth())


@spool_app.command("drain")
def drain(database: DatabaseOption = None) -> None:
    """Move all calls to the database now, also those that it has refused before.

    A server does so by itself; this is for a spool whose server does not come back.
    """
    with _opened(database) as (spool, url):
        if spool.depth().waiting + spool.depth().refused:
            record = Database(url)
            draining = Drain(record, spool)
            spool.readmit()
            done = draining.run()
            draining.close()
            record.close()
            if not done:
                raise DatabaseError(f"The database at {record.url} cannot be written now.")
        _say(spool.depth())


@contextmanager
def _opened(database: str | None) -> Iterator[tuple[Spool, str]]:
    settings = load_settings(database=database)
    place = settings.spool_place
    if place is None:
        raise SettingsError("there is no spool: it is off, or the record is in SQLite")
    spool = Spool(place)
    yield spool, settings.database_url
    spool.close()


def _say(depth: Depth) -> None:
    typer.echo(f"{depth.waiting} calls wait, {depth.bytes:,} of {depth.max_bytes:,} bytes")
    if depth.refused:
        typer.echo(f"{depth.refused} calls were refused by the database: {depth.reason}")
