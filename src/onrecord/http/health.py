"""`/healthz` and `/readyz`: is the process alive, and can it answer."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from onrecord.errors import DatabaseError, OnrecordError
from onrecord.http.services import ServicesDep

__all__ = ["router"]

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str


class Readiness(BaseModel):
    """Whether the server can answer predictions, check by check."""

    status: str
    checks: dict[str, str]


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
    answer = Readiness(status="ok" if ready else "not ready", checks=checks)
    if ready:
        return answer
    return JSONResponse(answer.model_dump(), status_code=503)  # type: ignore[return-value]
