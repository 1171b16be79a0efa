"""`/models/{name}/drift`: whether what a model is asked is still like its baseline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from onrecord.http.services import OverseerDep, ServicesDep
from onrecord.record.model_versions import find

__all__ = ["router"]

router = APIRouter(prefix="/models/{name}", tags=["models"])

_Status = Literal["too few rows", "ok", "warning", "drift"]


class Drift(BaseModel):
    """What a version was asked and answered, beside its baseline; see docs/drift.md."""

    model: str
    number: int
    version: str
    sha256: str
    since: str | None
    until: str | None
    baseline: dict[str, Any]
    status: _Status = Field(description="The worst of all features and scores.")
    rows: int
    left_out: list[str] = Field(description="Sensitive columns, of which nothing is counted.")
    features: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    estimate: dict[str, Any] | None = Field(
        description="Which quality is to be expected while outcomes are to come; of two classes."
    )


@router.get("/drift", summary="Show drift")
async def show_drift(
    name: str,
    _: OverseerDep,
    services: ServicesDep,
    version: Annotated[
        str, Query(max_length=200, description="An alias, label, number, or the start of a hash.")
    ] = "live",
    since: Annotated[
        AwareDatetime | None,
        Query(description="Of the hours that begin since; by default the last 24."),
    ] = None,
    until: Annotated[AwareDatetime | None, Query(description="And before.")] = None,
) -> Drift:
    """Show whether what a model is asked, and answers, is still like its baseline.

    For admins and auditors only; 409 where the version has no baseline.
    """
    start = since or datetime.now(UTC) - timedelta(days=1)

    def read() -> dict[str, Any]:
        with services.database.read() as connection:
            meant = find(connection, name, version)
        return services.drifts.report(meant, start, until, services.drift_rules)

    return Drift(**await services.database.run(read))
