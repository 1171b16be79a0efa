"""`/models/{name}/quality`: how right the answers were of which the outcome is known."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from onrecord.errors import Fault, InvalidInput
from onrecord.http.services import OverseerDep, ServicesDep
from onrecord.insight.quality import quality
from onrecord.insight.recorded_calls import Meant

__all__ = ["router"]

router = APIRouter(prefix="/models/{name}", tags=["models"])


class Quality(BaseModel):
    """Live quality; docs/outcomes.md says what each figure means."""

    model: str
    calls: int = Field(description="How many calls were answered.")
    outcomes: int = Field(description="Of how many rows the outcome is known.")
    by: str | None
    column: str | None
    groups: list[dict[str, Any]]


@router.get("/quality", summary="Show live quality")
async def show_quality(  # noqa: PLR0913, PLR0917 - each is a parameter of the query
    name: str,
    _: OverseerDep,
    services: ServicesDep,
    since: Annotated[AwareDatetime | None, Query(description="Received at or after.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Received before.")] = None,
    by: Annotated[
        Literal["version", "hour", "day", "week", "segment"] | None,
        Query(description="What the figures are parted by."),
    ] = None,
    column: Annotated[
        str | None, Query(max_length=200, description="The column of which segments are meant.")
    ] = None,
) -> Quality:
    """Show how right the answers of a model were; admins and auditors only."""
    if (by == "segment") != (column is not None):
        fault = Fault("/column", "wrong", "Name a column with by=segment, and only with that.")
        raise InvalidInput("The query does not fit.", faults=(fault,))
    meant = Meant(name, since=since, until=until)

    def read() -> dict[str, Any]:
        return quality(services.database, meant, by, column, services.reveal)

    return Quality(**await services.database.run(read))
