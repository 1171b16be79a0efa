"""`/models/{name}/versions` and what is done to them: which version of a model answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from onrecord.accounts.caller import Caller
from onrecord.errors import NotFound
from onrecord.http.paging import PageLimit
from onrecord.http.services import AdminDep, KeyCallerDep, OverseerDep, Services, ServicesDep
from onrecord.insight.gate import GateRules
from onrecord.record import model_changes
from onrecord.record.by import By
from onrecord.record.deployments import Deployment, deployment_of
from onrecord.record.model_versions import StoredVersion, find, versions_of

__all__ = ["Order", "PromoteOrder", "check_reaches", "router", "shown_change"]

router = APIRouter(prefix="/models/{name}", tags=["models"])

_REASON = Field(default="", max_length=1000, description="Why, as it goes on record.")
_WHICH = Field(
    default="candidate",
    min_length=1,
    max_length=200,
    description="An alias, label, number, or the start of its SHA-256.",
)


class ModelVersion(BaseModel):
    """One version of a model, as the record has it."""

    name: str
    number: int = Field(description="1, 2, ... in the order in which they were added.")
    version: str = Field(description="Its label.")
    sha256: str
    schema_sha256: str
    format: str
    added_at: datetime
    retired_at: datetime | None
    alias: Literal["live", "candidate", "previous"] | None
    stored: bool = Field(description="Whether its files are on record, so that it can answer.")


class VersionList(BaseModel):
    """The versions of a model, oldest first."""

    versions: list[ModelVersion]


class Changed(BaseModel):
    """The version that was changed, and what the gate found of it."""

    version: ModelVersion
    gate: dict[str, Any] | None = None


class Order(BaseModel):
    """Why something is to be changed."""

    model_config = ConfigDict(extra="forbid")

    reason: str = _REASON


class VersionOrder(Order):
    """Which version is meant."""

    version: str = _WHICH


class ShareOrder(VersionOrder):
    """Which version is meant, and its share."""

    share: float = Field(default=1.0, gt=0, le=1, description="Above 0 and at most 1.")


class PromoteOrder(VersionOrder):
    """Which version is to be live, and what the gate asks of it."""

    allow_schema_change: bool = Field(
        default=False, description="Let it refuse what the live version accepts."
    )
    replay_calls: int = Field(
        default=1000, ge=0, le=100_000, description="How many of the newest calls are replayed."
    )
    max_changed: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Which share of the replayed rows may be answered otherwise; null: any.",
    )
    tolerance: float = Field(
        default=1e-6, ge=0, description="By how much a number may differ and be the same."
    )


class ModelChangeOut(BaseModel):
    """One change of which version answers, as the API shows it.

    `by_user_id` is the admin who asked for it here; `operator` is the account that ran a command or
    a server.
    """

    seq: int
    id: str
    changed_at: datetime
    by_user_id: str | None
    operator: str | None
    action: str
    model: str
    number: int
    version: str
    sha256: str
    details: dict[str, Any]


class ModelChangePage(BaseModel):
    """One page of changes, newest first."""

    changes: list[ModelChangeOut]
    next: int | None = Field(description="Send it as `before` to get the next, older page.")


@router.get("/versions", summary="List a model's versions")
async def list_versions(name: str, caller: KeyCallerDep, services: ServicesDep) -> VersionList:
    """List the versions of a model, those that are retired included."""
    check_reaches(caller, name)

    def read() -> tuple[list[StoredVersion], Deployment]:
        with services.database.read() as connection:
            return versions_of(connection, name), deployment_of(connection, name)

    found, deployment = await services.database.run(read)
    return VersionList(versions=[_shown(version, deployment) for version in found])


@router.get("/versions/{version}", summary="Show one version of a model")
async def show_version(
    name: str, version: str, caller: KeyCallerDep, services: ServicesDep
) -> ModelVersion:
    """Show the version that an alias, a label, a number or the start of a SHA-256 names."""
    check_reaches(caller, name)

    def read() -> ModelVersion:
        with services.database.read() as connection:
            return _shown(find(connection, name, version), deployment_of(connection, name))

    return await services.database.run(read)


@router.post("/promote", summary="Make a version the live one")
async def promote(
    name: str, order: PromoteOrder, caller: AdminDep, services: ServicesDep
) -> Changed:
    """Make a version the live one where the gate lets it through; admins only.

    The gate loads it in a process of its own, compares its schema with the live one's, has it
    answer its golden rows and replays the newest calls. A refusal (409) has all that was found in
    `gate`. Every server answers with the version within a second.
    """
    rules = GateRules(
        order.allow_schema_change, order.replay_calls, order.max_changed, order.tolerance
    )
    gate = services.gate_of(rules)

    def act(by: By) -> tuple[StoredVersion, dict[str, Any] | None]:
        return services.versions.promote(name, order.version, by, gate)

    return await _changed(services, caller, order, act)


@router.post("/rollback", summary="Go back to the previous version")
async def rollback(name: str, order: Order, caller: AdminDep, services: ServicesDep) -> Changed:
    """Make the version live again that was before the present one; admins only."""
    return await _changed(
        services, caller, order, lambda by: (services.versions.rollback(name, by), None)
    )


@router.post("/shadow", summary="Have a version answer unseen")
async def shadow(name: str, order: ShareOrder, caller: AdminDep, services: ServicesDep) -> Changed:
    """Have a version answer a share of the calls, too, unseen by the callers; admins only."""
    return await _shared(services, caller, name, order, "shadow")


@router.post("/canary", summary="Have a version answer some users")
async def canary(name: str, order: ShareOrder, caller: AdminDep, services: ServicesDep) -> Changed:
    """Have a version answer the calls of a share of the users, always the same; admins only."""
    return await _shared(services, caller, name, order, "canary")


@router.post("/stop", summary="End shadow and canary")
async def stop(name: str, order: Order, caller: AdminDep, services: ServicesDep) -> Changed:
    """End shadow and canary; the candidate stays one. Admins only."""
    return await _changed(
        services, caller, order, lambda by: (services.versions.stop(name, by), None)
    )


@router.post("/retire", summary="Take a version out of use")
async def retire(
    name: str, order: VersionOrder, caller: AdminDep, services: ServicesDep
) -> Changed:
    """Take a version, which must not be live, out of use; admins only."""
    return await _changed(
        services,
        caller,
        order,
        lambda by: (services.versions.retire(name, order.version, by), None),
    )


@router.get("/changes", summary="List changes of which version answers")
async def list_changes(
    name: str,
    _: OverseerDep,
    services: ServicesDep,
    limit: PageLimit = 50,
    before: Annotated[
        int | None, Query(ge=0, lt=1 << 63, description="The `next` of the page before.")
    ] = None,
) -> ModelChangePage:
    """List what changed, when, by whom and why; admins and auditors only."""

    def read() -> list[model_changes.ModelChange]:
        with services.database.read() as connection:
            return model_changes.page(connection, model=name, limit=limit + 1, before=before)

    found = await services.database.run(read)
    shown = [shown_change(it) for it in found[:limit]]
    return ModelChangePage(changes=shown, next=found[limit - 1].seq if len(found) > limit else None)


def shown_change(change: model_changes.ModelChange) -> ModelChangeOut:
    """Return a change as the API shows it."""
    values = {field: getattr(change, field) for field in ModelChangeOut.model_fields}
    return ModelChangeOut(**values | {"details": json.loads(change.details)})


def check_reaches(caller: Caller, name: str) -> None:
    """Raise NotFound, as of a model that is not there, where the caller's key has no part in it."""
    if not caller.reaches(name):
        raise NotFound(f"There is no model {name[:100]!r} on record.")


async def _shared(
    services: Services,
    caller: Caller,
    name: str,
    order: ShareOrder,
    action: Literal["shadow", "canary"],
) -> Changed:
    def act(by: By) -> tuple[StoredVersion, None]:
        return services.versions.share(name, order.version, action, order.share, by), None

    return await _changed(services, caller, order, act)


async def _changed(
    services: Services,
    caller: Caller,
    order: Order,
    act: Callable[[By], tuple[StoredVersion, dict[str, Any] | None]],
) -> Changed:
    def change() -> Changed:
        version, found = act(By(order.reason, user_id=caller.user_id))
        with services.database.read() as connection:
            deployment = deployment_of(connection, version.name)
        return Changed(version=_shown(version, deployment), gate=found)

    return await services.database.run(change)


def _shown(version: StoredVersion, deployment: Deployment) -> ModelVersion:
    values = {
        name: getattr(version, name)
        for name in ModelVersion.model_fields
        if name not in {"alias", "stored"}
    }
    return ModelVersion(
        **values, alias=deployment.alias_of(version.id), stored=version.stored_at is not None
    )
