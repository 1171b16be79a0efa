"""Which models have served: name, version, and the digests of their bytes and their schema."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, select

from onrecord.record.tables import model_versions
from onrecord.record.upsert import insert_if_missing

__all__ = ["input_schemas", "register_model_version"]


def register_model_version(  # noqa: PLR0913, PLR0917
    connection: Connection,
    name: str,
    version: str,
    sha256: str,
    schema_sha256: str,
    input_schema: bytes,
    format: str,  # noqa: A002 - the column's name
) -> int:
    """Return the key of a model version, which is put on record where it is new.

    Two servers that start at once get the same key. The connection must be one for writing.
    """
    table = model_versions
    known = select(table.c.id).where(
        table.c.name == name,
        table.c.version == version,
        table.c.sha256 == sha256,
        table.c.schema_sha256 == schema_sha256,
    )
    found = connection.execute(known).scalar_one_or_none()
    if found is None:
        values = {
            "name": name,
            "version": version,
            "sha256": sha256,
            "schema_sha256": schema_sha256,
            "input_schema": input_schema,
            "format": format,
            "first_served_at": datetime.now(UTC),
        }
        insert_if_missing(connection, table, values)
        found = connection.execute(known).scalar_one()
    return int(found)


def input_schemas(connection: Connection) -> list[tuple[int, str, bytes]]:
    """Return the key, the model's name and the input schema's file of each version on record."""
    query = select(model_versions.c.id, model_versions.c.name, model_versions.c.input_schema)
    return [(row.id, row.name, bytes(row.input_schema)) for row in connection.execute(query)]
