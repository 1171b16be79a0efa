"""Which version the tables have, and how they come to this one's."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from onrecord.errors import DatabaseError

__all__ = ["check", "upgrade"]


def upgrade(connection: Connection) -> None:
    """Run the missing migrations inside the connection's transaction.

    Raises DatabaseError where the database is newer than this version of onrecord.
    """
    config = _config()
    if _revision(connection, config) == ScriptDirectory.from_config(config).get_current_head():
        return
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def check(connection: Connection) -> None:
    """Raise DatabaseError unless the tables are those of this version of onrecord."""
    config = _config()
    if _revision(connection, config) != ScriptDirectory.from_config(config).get_current_head():
        raise DatabaseError(
            "The database does not have the tables of this version of onrecord. "
            "Bring it up to date with: onrecord db upgrade"
        )


def _config() -> Config:
    config = Config()
    place = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", place.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection, config: Config) -> str | None:
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseError(
            f"The database is newer than this version of onrecord: it is at {found}. "
            "Install the onrecord that made it; `onrecord db upgrade` cannot go back."
        )
    return found
