"""Which version the tables have, and how they come to this one's.

Alembic is imported only where tables are not of this version: that takes as long as all of the
writer's imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from onrecord.errors import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["REVISION", "check", "upgrade"]

REVISION = "202611281000"
"""The newest migration, which makes the tables what `tables.py` says."""


def upgrade(connection: Connection) -> None:
    """Run the missing migrations inside the connection's transaction.

    Raises DatabaseError where the database is newer than this version of onrecord.
    """
    found = _revision(connection)
    if found == REVISION:
        return
    from alembic import command

    config = _config()
    _require_known(found, config)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def check(connection: Connection) -> None:
    """Raise DatabaseError unless the tables are those of this version of onrecord."""
    found = _revision(connection)
    if found == REVISION:
        return
    _require_known(found, _config())
    raise DatabaseError(
        "The database does not have the tables of this version of onrecord. "
        "Bring it up to date with: onrecord db upgrade"
    )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    place = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", place.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _require_known(found: str | None, config: Config) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseError(
            f"The database is newer than this version of onrecord: it is at {found}. "
            "Install the onrecord that made it; `onrecord db upgrade` cannot go back."
        )
