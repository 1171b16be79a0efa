"""The model versions on record: what identifies each, and its files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from onrecord.errors import Conflict, NotFound
from onrecord.record.database import Database
from onrecord.record.tables import deployments, model_files, model_versions
from onrecord.record.text import storable
from onrecord.record.upsert import insert_if_missing, put

__all__ = [
    "ALIASES",
    "StoredVersion",
    "files_of",
    "find",
    "get",
    "input_schema_of",
    "input_schemas",
    "register_model_version",
    "replace_files",
    "store_files",
    "versions",
    "versions_of",
]

ALIASES = ("live", "candidate", "previous")
"""What a version may be called by its place in the deployment of its model."""

_PART_BYTES = 1 << 20
_LEAST_DIGITS = 8


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a model.

    `version` is its label and `number` its place among the versions of `name`, from 1, in the order
    in which they were added. `sha256` is of the model file and `schema_sha256` of the schema file.
    `stored_at` is when all of its files were in the database, None where they are not: a version
    that served before files were kept there. `retired_at` is when it was retired, None where it may
    answer.
    """

    id: int
    name: str
    number: int
    version: str
    sha256: str
    schema_sha256: str
    format: str
    added_at: datetime
    stored_at: datetime | None
    retired_at: datetime | None

    @property
    def loadable(self) -> bool:
        """Whether every server is to have it loaded."""
        return self.stored_at is not None and self.retired_at is None

    def __str__(self) -> str:
        return f"{self.name} {self.version} (number {self.number})"


_COLUMNS = [model_versions.c[name] for name in StoredVersion.__dataclass_fields__]


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
    while found is None:
        highest = select(func.coalesce(func.max(table.c.number), 0)).where(table.c.name == name)
        values = {
            "name": name,
            "version": version,
            "sha256": sha256,
            "schema_sha256": schema_sha256,
            "input_schema": input_schema,
            "format": format,
            "added_at": datetime.now(UTC),
            "number": connection.execute(highest).scalar_one() + 1,
        }
        # In PostgreSQL another may take the number, or add this very version, at the same moment.
        insert_if_missing(connection, table, values)
        found = connection.execute(known).scalar_one_or_none()
    return int(found)


def store_files(database: Database, model_version_id: int, files: Mapping[str, bytes]) -> None:
    """Store the files of a version, by their names, in place of what is there.

    They go into the database in parts, each in a transaction of its own, so that no call waits for
    a large model. Several servers may store the same version at once, and others read it meanwhile:
    the model's and the schema's bytes are those of the version's hashes, whoever stores them.
    """
    table = model_files
    mine = table.c.model_version_id == model_version_id
    parts: dict[str, int] = {}
    for name, part, data in _parts(files):
        with database.write() as connection:
            row = {"model_version_id": model_version_id, "name": name, "part": part, "data": data}
            put(connection, table, [row])
        parts[name] = part
    with database.write() as connection:
        connection.execute(table.delete().where(mine, table.c.name.not_in(parts)))
        for name, last in parts.items():
            connection.execute(
                table.delete().where(mine, table.c.name == name, table.c.part > last)
            )
        version = model_versions.c.id == model_version_id
        connection.execute(
            update(model_versions).where(version).values(stored_at=datetime.now(UTC))
        )


def replace_files(
    connection: Connection, model_version_id: int, files: Mapping[str, bytes | None]
) -> None:
    """Put small files of a version in place of those of the same names; None takes one away."""
    table = model_files
    mine = table.c.model_version_id == model_version_id
    connection.execute(table.delete().where(mine, table.c.name.in_(files)))
    rows = [
        {"model_version_id": model_version_id, "name": name, "part": part, "data": data}
        for name, part, data in _parts({k: v for k, v in files.items() if v is not None})
    ]
    if rows:
        connection.execute(insert(table), rows)


def files_of(
    connection: Connection, model_version_id: int, names: Collection[str] | None = None
) -> dict[str, bytes]:
    """Return the files of a version, or those that are named; empty where none were stored."""
    table = model_files
    query = (
        select(table.c.name, table.c.data)
        .where(table.c.model_version_id == model_version_id)
        .order_by(table.c.name, table.c.part)
    )
    if names is not None:
        query = query.where(table.c.name.in_(names))
    found: dict[str, bytearray] = {}
    for row in connection.execute(query):
        found.setdefault(row.name, bytearray()).extend(row.data)
    return {name: bytes(data) for name, data in found.items()}


def versions(connection: Connection, name: str | None = None) -> list[StoredVersion]:
    """Return the versions of a model, or of all, by name and number."""
    query = select(*_COLUMNS).order_by(model_versions.c.name, model_versions.c.number)
    if name is not None:
        query = query.where(model_versions.c.name == storable(name))
    return [_stored(row) for row in connection.execute(query)]


def versions_of(connection: Connection, name: str) -> list[StoredVersion]:
    """Return the versions of a model by number; raises NotFound where none is on record."""
    found = versions(connection, name)
    if not found:
        raise NotFound(f"There is no model {name[:100]!r} on record.")
    return found


def get(connection: Connection, model_version_id: int) -> StoredVersion:
    """Return the version with that key, which must be there."""
    query = select(*_COLUMNS).where(model_versions.c.id == model_version_id)
    return _stored(connection.execute(query).one())


def find(connection: Connection, name: str, reference: str) -> StoredVersion:
    """Return the version of a model that `reference` names.

    That is an alias (`live`, `candidate`, `previous`), else the label of a version, else its
    number, else the first eight or more digits of its SHA-256. Raises NotFound where there is none,
    Conflict where several versions have that label or begin of a hash.
    """
    known = versions_of(connection, name)
    if reference in ALIASES:
        column = deployments.c[f"{reference}_id"]
        query = select(column).where(deployments.c.name == storable(name))
        found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise NotFound(f"The model {name!r} has no {reference} version now.")
        return next(version for version in known if version.id == found)
    for meant in _meanings(known, reference):
        if len(meant) == 1:
            return meant[0]
        if meant:
            numbers = ", ".join(str(version.number) for version in meant)
            raise Conflict(
                f"Several versions of {name!r} go by {reference[:100]!r}; "
                f"name one by its number: {numbers}."
            )
    there = ", ".join(f"{version.number} ({version.version})" for version in known[-10:])
    raise NotFound(f"The model {name!r} has no version {reference[:100]!r}; it has: {there}.")


def input_schema_of(connection: Connection, model_version_id: int) -> bytes:
    """Return the input schema's file of a version on record."""
    query = select(model_versions.c.input_schema).where(model_versions.c.id == model_version_id)
    return bytes(connection.execute(query).scalar_one())


def input_schemas(connection: Connection) -> list[tuple[int, str, bytes]]:
    """Return the key, the model's name and the input schema's file of each version on record."""
    query = select(model_versions.c.id, model_versions.c.name, model_versions.c.input_schema)
    return [(row.id, row.name, bytes(row.input_schema)) for row in connection.execute(query)]


def _meanings(known: list[StoredVersion], reference: str) -> Iterator[list[StoredVersion]]:
    yield [version for version in known if version.version == reference]
    yield [version for version in known if str(version.number) == reference]
    digits = reference.lower().removeprefix("sha256:")
    if len(digits) >= _LEAST_DIGITS:
        yield [version for version in known if version.sha256.startswith(digits)]


def _parts(files: Mapping[str, bytes]) -> Iterator[tuple[str, int, bytes]]:
    for name, data in files.items():
        for part, start in enumerate(range(0, len(data), _PART_BYTES)):
            yield name, part, data[start : start + _PART_BYTES]


def _stored(row: Row[Any]) -> StoredVersion:
    return StoredVersion(**row._asdict())
