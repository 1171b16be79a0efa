"""`/models/{name}/compare`: the candidate beside the live version."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from onrecord.http.services import OverseerDep, ServicesDep
from onrecord.insight.compare import compare

__all__ = ["router"]

router = APIRouter(prefix="/models/{name}", tags=["models"])


def _version(which: str) -> Any:
    return Query(
        min_length=1,
        max_length=100,
        description=f"Which version {which}: an alias, a label, a number or the begin of a hash.",
    )


class Comparison(BaseModel):
    """The candidate beside the live version; docs/shadow.md says what each figure means."""

    model: str
    since: str | None
    until: str | None
    tolerance: float = Field(description="By how much numbers may differ and agree.")
    live: dict[str, Any]
    candidate: dict[str, Any]
    shadow: dict[str, Any] = Field(description="Both on the same calls.")
    canary: dict[str, Any] = Field(description="Each on the calls that it answered.")


@router.get("/compare", summary="Compare the candidate with the live version")
async def show_comparison(  # noqa: PLR0913, PLR0917 - each is a part of the request
    name: str,
    _: OverseerDep,
    services: ServicesDep,
    since: Annotated[AwareDatetime | None, Query(description="Received at or after.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Received before.")] = None,
    live: Annotated[str, _version("answers in the live version's place")] = "live",
    candidate: Annotated[str, _version("is compared with it")] = "candidate",
) -> Comparison:
    """Show how a model's candidate does beside the live version; admins and auditors only.

    Once the candidate has been promoted, name both by their numbers. 404 where there is no such
    version, or the model has no candidate and none is named.
    """
    database = services.database
    found = await database.run(compare, database, name, since, until, live, candidate)
    return Comparison(**found)
