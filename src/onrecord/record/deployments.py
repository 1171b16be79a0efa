"""Which version of each model answers, and every change of that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select, update

from onrecord.errors import Conflict
from onrecord.record.by import By
from onrecord.record.model_changes import Action, put_on_record
from onrecord.record.tables import deployments, model_versions
from onrecord.record.text import storable
from onrecord.record.upsert import insert_if_missing

__all__ = ["Deployment", "all_deployments", "change", "deployment_of", "revision", "set_retired"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which versions of a model answer, by their keys in `model_versions`.

    `live_id` answers; `previous_id` did before it and is what a rollback goes back to;
    `candidate_id` is the next one to be: `shadow_share` of the calls is answered by it too, unseen,
    and `canary_share` of the users gets its answers. Shares are from 0 to 1. `revision` grows with
    every change; 0 where there was none.
    """

    name: str
    live_id: int | None = None
    previous_id: int | None = None
    candidate_id: int | None = None
    shadow_share: float = 0.0
    canary_share: float = 0.0
    revision: int = 0

    @property
    def ids(self) -> frozenset[int]:
        """The versions that have an alias."""
        ids = (self.live_id, self.previous_id, self.candidate_id)
        return frozenset(key for key in ids if key is not None)

    def alias_of(self, model_version_id: int) -> str | None:
        """Return the first alias of a version, None where it has none."""
        pairs = (("live", self.live_id), ("candidate", self.candidate_id))
        for alias, key in (*pairs, ("previous", self.previous_id)):
            if key == model_version_id:
                return alias
        return None


_COLUMNS = [deployments.c[name] for name in Deployment.__dataclass_fields__]


def revision(connection: Connection) -> int:
    """Return the revision of the last change of any model, 0 where there was none."""
    return connection.execute(select(func.max(deployments.c.revision))).scalar_one() or 0


def all_deployments(connection: Connection) -> list[Deployment]:
    """Return the deployment of each model, by name."""
    query = select(*_COLUMNS).order_by(deployments.c.name)
    return [Deployment(**row._asdict()) for row in connection.execute(query)]


def deployment_of(connection: Connection, name: str) -> Deployment:
    """Return a model's deployment, one without any version where it has none yet."""
    query = select(*_COLUMNS).where(deployments.c.name == storable(name))
    row = connection.execute(query).one_or_none()
    return Deployment(storable(name)) if row is None else Deployment(**row._asdict())


def change(  # noqa: PLR0913, PLR0917 - what is changed, and who did it
    connection: Connection,
    was: Deployment,
    to: Deployment,
    action: Action,
    about: int,
    by: By,
    details: dict[str, Any] | None = None,
) -> Deployment:
    """Make a deployment another, put the change about the version `about` on record, return it.

    The connection must be in a transaction for writing; both are in it or neither. Raises Conflict
    where somebody else has changed the deployment since it was read as `was`.
    """
    recorded = put_on_record(connection, action, about, by, details)
    to = replace(to, name=was.name, revision=recorded.seq)
    values = {name: getattr(to, name) for name in Deployment.__dataclass_fields__}
    if was.revision == 0:
        done_first = insert_if_missing(connection, deployments, values)
    else:
        row = (deployments.c.name == was.name) & (deployments.c.revision == was.revision)
        done_first = connection.execute(update(deployments).where(row).values(values)).rowcount == 1
    if not done_first:
        raise Conflict(
            f"Somebody else has changed which version of {was.name!r} answers meanwhile; "
            "look at it again, and ask again if you still want this."
        )
    return to


def set_retired(connection: Connection, model_version_id: int, *, retired: bool) -> None:
    """Note that a version is retired, or that it may answer again."""
    moment = datetime.now(UTC) if retired else None
    row = model_versions.c.id == model_version_id
    connection.execute(update(model_versions).where(row).values(retired_at=moment))
