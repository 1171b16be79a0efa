"""Is the process alive, can it answer, what waits: for people, SageMaker and Prometheus."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field

from onrecord.errors import DatabaseError, OnrecordError
from onrecord.http.services import Services, ServicesDep
from onrecord.record import baselines
from onrecord.record.database import Database
from onrecord.record.model_versions import get
from onrecord.record.seal import newest_head, unsealed_at_most
from onrecord.record.shadows import lag_of, running
from onrecord.record.spool import Depth

__all__ = ["readiness", "router"]

_PATIENCE_SECONDS = 2.0
_NOT_READY = "not ready"

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str


class SealState(BaseModel):
    """How far the record is sealed."""

    size: int = Field(description="How many rows the newest signed head is over.")
    signed_at: datetime | None = Field(description="When it was signed; null: none ever was.")
    unsealed: int = Field(description="How many rows came after it, at most.")


class SpoolDepth(BaseModel):
    """What the spool holds: calls that were answered and are not in the database yet."""

    waiting: int = Field(description="Calls that will go to the database.")
    refused: int = Field(description="Calls that the database did not take; see the log.")
    bytes: int
    max_bytes: int


class Readiness(BaseModel):
    """Whether the server can answer predictions, check by check.

    `spooling` is as ready as `ok`: calls are in the spool, and the database is away or was.
    """

    status: str = Field(description="`ok`, `spooling` or `not ready`.")
    checks: dict[str, str]
    spool: SpoolDepth | None = Field(None, description="Null where there is no spool.")
    seal: SealState | None = Field(
        description="For information, it makes nothing unready; null where it cannot be told."
    )
    not_loaded: dict[str, str] = Field(
        description="Which versions could not be loaded, and why; only a live one makes unready."
    )

    @property
    def ready(self) -> bool:
        """Whether predictions can be answered."""
        return self.status != _NOT_READY


@router.get("/healthz", summary="Is the process alive")
async def healthz() -> Alive:
    """Answer as long as the process runs."""
    return Alive(status="ok")


@router.get(
    "/readyz",
    summary="Can predictions be answered",
    responses={503: {"model": Readiness, "description": "Not ready"}},
)
async def readyz(services: ServicesDep) -> Readiness:
    """Check the models, the database, its migrations, the record's writer and its spool."""
    found = await readiness(services)
    if found.ready:
        return found
    return JSONResponse(found.model_dump(mode="json"), status_code=503)  # type: ignore[return-value]


async def readiness(services: Services) -> Readiness:
    """Return what `/readyz` answers with: whether predictions can be answered, check by check."""
    missing = services.fleet.missing
    checks = {"model": f"cannot be loaded: {', '.join(missing)}" if missing else "ok"}
    database, away = await _check_database(services)
    checks["database"] = database
    checks["writer"] = "ok" if services.writer.healthy else "the last commit failed"
    depth = await _depth(services)
    spooling = depth is not None and (away or depth.waiting > 0)
    if depth is not None:
        checks["spool"] = "full" if depth.full else "ok"
    faults = {name for name, finding in checks.items() if finding != "ok"}
    ready = not faults or (spooling and away and faults == {"database"})
    return Readiness(
        status=("spooling" if spooling else "ok") if ready else _NOT_READY,
        checks=checks,
        spool=depth
        and SpoolDepth(
            waiting=depth.waiting,
            refused=depth.refused,
            bytes=depth.bytes,
            max_bytes=depth.max_bytes,
        ),
        seal=await _seal(services.database) if database == "ok" else None,
        not_loaded=dict(services.fleet.failures),
    )


@router.get(
    "/ping",
    summary="Can predictions be answered, for SageMaker and MLflow",
    response_class=Response,
    responses={
        200: {"content": {}, "description": "Ready"},
        503: {"content": {}, "description": "Not ready; `GET /readyz` says why"},
    },
)
async def ping(services: ServicesDep) -> Response:
    """Answer with a status alone: 200 where `GET /readyz` has it."""
    return Response(status_code=200 if (await readiness(services)).ready else 503)


@router.get(
    "/metrics",
    summary="What waits, what drifts and what lags, for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
)
async def metrics(services: ServicesDep) -> Response:
    """Show what the spool holds, what drifts and how far shadows are, whichever worker is asked."""
    registry = CollectorRegistry()
    await _add_drift(services.database, registry)
    await _add_shadows(services.database, registry)
    depth = await _depth(services)
    if depth is not None:
        for name, meaning, value in (
            ("waiting_calls", "Answered calls that wait for the database.", depth.waiting),
            ("refused_calls", "Answered calls that the database did not take.", depth.refused),
            ("bytes", "Bytes that the spool takes.", depth.bytes),
            ("max_bytes", "Bytes that the spool may take.", depth.max_bytes),
        ):
            Gauge(f"onrecord_spool_{name}", meaning, registry=registry).set(value)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def _add_drift(database: Database, registry: CollectorRegistry) -> None:
    """Add what was last found of the live versions; nothing while the database is away."""

    def read() -> list[tuple[str, int, str]]:
        with database.read() as connection:
            return baselines.found_of_live(connection)

    labels = ("model", "number", "feature")
    psi = Gauge("onrecord_drift_psi", "How far it is from the baseline.", labels, registry=registry)
    drifting = Gauge("onrecord_drifting", "1 where it drifts.", labels, registry=registry)
    try:
        found = await database.run(read, seconds=_PATIENCE_SECONDS)
    except OnrecordError:
        return
    for model, number, text in found:
        told = json.loads(text)
        for feature, value in told.get("psi", {}).items():
            psi.labels(model, number, feature).set(value)
            drifting.labels(model, number, feature).set(feature in told["drifting"])


async def _add_shadows(database: Database, registry: CollectorRegistry) -> None:
    """Add how far each shadow that runs has come; nothing while the database is away."""

    def read() -> list[tuple[str, int, int, int]]:
        with database.read() as connection:
            return [
                (it.model, get(connection, it.model_version_id).number, *lag_of(connection, it))
                for it in running(connection)
            ]

    labels = ("model", "number")
    behind = Gauge(
        "onrecord_shadow_behind_calls",
        "Calls on record that a shadow has not come to.",
        labels,
        registry=registry,
    )
    skipped = Gauge(
        "onrecord_shadow_skipped_calls",
        "Calls that a shadow has skipped since it began, as it could not keep up.",
        labels,
        registry=registry,
    )
    try:
        found = await database.run(read, seconds=_PATIENCE_SECONDS)
    except OnrecordError:
        return
    for model, number, waiting, left_out in found:
        behind.labels(model, number).set(waiting)
        skipped.labels(model, number).set(left_out)


async def _check_database(services: Services) -> tuple[str, bool]:
    """Return what is found, and whether the database is out of reach."""
    try:
        # One that is silent must not keep the answer waiting.
        await services.database.run(services.database.check, seconds=_PATIENCE_SECONDS)
    except DatabaseError:
        return "its tables are not those of this version; run `onrecord db upgrade`", False
    except OnrecordError:
        return "unreachable", True
    return "ok", False


async def _depth(services: Services) -> Depth | None:
    return None if services.spool is None else await asyncio.to_thread(services.spool.depth)


async def _seal(database: Database) -> SealState | None:
    def read() -> SealState:
        with database.read() as connection:
            head = newest_head(connection)
            rest = unsealed_at_most(connection, None if head is None else head.last_seq)
        if head is None:
            return SealState(size=0, signed_at=None, unsealed=rest)
        return SealState(size=head.size, signed_at=head.signed_at, unsealed=rest)

    try:
        return await database.run(read, seconds=_PATIENCE_SECONDS)
    except OnrecordError:
        return None
