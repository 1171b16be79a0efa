"""`/healthz` and `/readyz`: is the process alive, and can it answer."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from onrecord.errors import DatabaseError, OnrecordError
from onrecord.http.services import ServicesDep
from onrecord.record.database import Database
from onrecord.record.seal import newest_head, unsealed_at_most

__all__ = ["router"]

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str


class SealState(BaseModel):
    """How far the record is sealed."""

    size: int = Field(description="How many calls the newest signed head has.")
    signed_at: datetime | None = Field(description="When it was signed; null: none ever was.")
    unsealed: int = Field(description="How many calls came after it, at most.")


class Readiness(BaseModel):
    """Whether the server can answer predictions, check by check."""

    status: str
    checks: dict[str, str]
    seal: SealState | None = Field(
        description="For information, it makes nothing unready; null where it cannot be told."
    )


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
    """Check the models, the database, its migrations and the record's writer."""
    checks = {"model": "ok" if services.predictors else "no model is loaded"}
    try:
        await services.database.run(services.database.check)
        checks["database"] = "ok"
    except DatabaseError:
        checks["database"] = "its tables are not those of this version; run `onrecord db upgrade`"
    except OnrecordError:
        checks["database"] = "unreachable"
    checks["writer"] = "ok" if services.writer.healthy else "the last commit failed"
    ready = set(checks.values()) == {"ok"}
    seal = await _seal(services.database) if checks["database"] == "ok" else None
    answer = Readiness(status="ok" if ready else "not ready", checks=checks, seal=seal)
    if ready:
        return answer
    return JSONResponse(answer.model_dump(mode="json"), status_code=503)  # type: ignore[return-value]


async def _seal(database: Database) -> SealState | None:
    def read() -> SealState:
        with database.read() as connection:
            head = newest_head(connection)
            rest = unsealed_at_most(connection, None if head is None else head.last_seq)
        if head is None:
            return SealState(size=0, signed_at=None, unsealed=rest)
        return SealState(size=head.size, signed_at=head.signed_at, unsealed=rest)

    try:
        return await database.run(read)
    except OnrecordError:
        return None
