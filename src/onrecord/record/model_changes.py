"""What changed about which version of a model answers: when, by whom and why, each a leaf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, insert, select

from onrecord.record.by import By
from onrecord.record.commit_order import draw_seq
from onrecord.record.ids import new_id
from onrecord.record.tables import model_changes, model_versions, utc_text
from onrecord.record.text import storable

__all__ = ["Action", "ModelChange", "changes_between", "page", "put_on_record"]

Action: TypeAlias = Literal[
    "add", "start", "promote", "rollback", "shadow", "canary", "stop", "retire"
]
"""What was done: `start` is a version that a server brought along when it started and that the
record did not know; the others were asked for."""

_LAST_SEQ = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One change of what answers for a model.

    `by_user_id` is the admin who asked for it over HTTP; `operator` is the account that ran a
    command or a server. The version that it is about is named in full, so that the leaf tells it
    without any other row. `details` is a JSON object: the reason, shares, what the gate found.
    """

    seq: int
    id: str
    changed_at: datetime
    by_user_id: str | None
    operator: str | None
    action: str
    model: str
    model_version_id: int
    number: int
    version: str
    sha256: str
    schema_sha256: str
    details: str

    @classmethod
    def of(cls, row: Row[Any]) -> ModelChange:
        """Return the change that a row of the table holds."""
        return cls(**row._asdict())

    def leaf(self) -> bytes:
        """Return its leaf in the tree, in the form that a call's has (RFC 8785)."""
        values = {name: getattr(self, name) for name in ModelChange.__dataclass_fields__}
        del values["model_version_id"]  # a number of this database, which says nothing elsewhere
        values |= {"changed_at": utc_text(self.changed_at), "kind": "model_change"}
        return msgspec.json.encode(values, order="sorted")


_COLUMNS = [model_changes.c[name] for name in ModelChange.__dataclass_fields__]


def put_on_record(
    connection: Connection,
    action: Action,
    model_version_id: int,
    by: By,
    details: dict[str, Any] | None = None,
) -> ModelChange:
    """Put a change about a version on record and return it.

    The connection must be in the transaction for writing in which the change is made.
    """
    table = model_versions
    named = [table.c[name] for name in ("name", "number", "version", "sha256", "schema_sha256")]
    version = connection.execute(select(*named).where(table.c.id == model_version_id)).one()
    told = {"reason": storable(by.reason)} if by.reason else {}
    change = ModelChange(
        seq=draw_seq(connection),
        id=new_id(),
        changed_at=datetime.now(UTC),
        by_user_id=by.user_id,
        operator=None if by.operator is None else storable(by.operator),
        action=action,
        model=version.name,
        model_version_id=model_version_id,
        number=version.number,
        version=version.version,
        sha256=version.sha256,
        schema_sha256=version.schema_sha256,
        details=msgspec.json.encode(told | (details or {}), order="sorted").decode(),
    )
    values = {name: getattr(change, name) for name in ModelChange.__dataclass_fields__}
    connection.execute(insert(model_changes).values(values))
    return change


def page(
    connection: Connection, *, limit: int, model: str | None = None, before: int | None = None
) -> list[ModelChange]:
    """Return at most `limit` changes, newest first, that are older than the seq `before`."""
    query = select(*_COLUMNS).order_by(model_changes.c.seq.desc()).limit(limit)
    if model is not None:
        query = query.where(model_changes.c.model == storable(model))
    if before is not None:
        query = query.where(model_changes.c.seq < before)
    return [ModelChange.of(row) for row in connection.execute(query)]


def changes_between(
    connection: Connection,
    *,
    after: int | None,
    up_to: int = _LAST_SEQ,
    limit: int | None = None,
) -> list[ModelChange]:
    """Return at most `limit` changes after the seq `after` up to `up_to`, in their order."""
    query = select(*_COLUMNS).where(model_changes.c.seq <= up_to).limit(limit)
    if after is not None:
        query = query.where(model_changes.c.seq > after)
    return [ModelChange.of(row) for row in connection.execute(query.order_by(model_changes.c.seq))]
