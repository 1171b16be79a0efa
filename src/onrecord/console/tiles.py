"""Of each model a few tiles for the overview: its drift, live quality and candidate."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from onrecord.accounts.caller import Caller
from onrecord.console.model import chosen_span, since_of
from onrecord.console.pages import PREFIX, PageRoute, page
from onrecord.console.session import PersonDep
from onrecord.errors import Conflict, NotFound
from onrecord.http import compare, drift, model_versions, quality
from onrecord.http.model_versions import ModelVersion
from onrecord.http.services import Services, ServicesDep
from onrecord.insight.quality import LEAST_ROWS

__all__ = ["router"]

_MOST_FEATURES = 3

router = APIRouter(
    prefix=f"{PREFIX}/models/{{name}}", include_in_schema=False, route_class=PageRoute
)


@router.get("/tiles")
async def show_tiles(
    request: Request, name: str, person: PersonDep, services: ServicesDep
) -> Response:
    """Show how a model does at a glance; each tile leads to the page that says more."""
    person.check_reads_all()
    since = since_of(request)
    versions = (await model_versions.list_versions(name, person, services)).versions
    by_alias = {it.alias: it for it in versions if it.alias}
    return page(
        request,
        "tiles_part.html",
        title=f"{name} at a glance",
        name=name,
        span=chosen_span(request),
        by_alias=by_alias,
        least=LEAST_ROWS,
        drift=await _drift(name, since, person, services),
        quality=await _quality(name, since, by_alias.get("live"), person, services),
        candidate=await _candidate(name, since, person, services),
    )


async def _drift(
    name: str, since: datetime, person: Caller, services: Services
) -> dict[str, Any] | str:
    """Return the status and what differs most; a sentence where there is nothing to tell."""
    try:
        found = await drift.show_drift(name, person, services, since=since)
    except (Conflict, NotFound) as error:
        return error.detail
    told = [it for it in (*found.features, *found.scores) if it["psi"] is not None]
    return {
        "status": found.status,
        "rows": found.rows,
        "most": sorted(told, key=lambda it: -it["psi"])[:_MOST_FEATURES],
    }


async def _quality(
    name: str, since: datetime, live: ModelVersion | None, person: Caller, services: Services
) -> dict[str, Any] | None:
    """Return the first figure of the live version's quality; None without any outcome."""
    if live is None:
        return None
    found = await quality.show_quality(name, person, services, since, None, "version", None)
    for group in found.groups:
        if group["group"] == f"{live.number} ({live.version})":
            target, figures = next(iter(group.get("targets", {"": group}).items()))
            for figure, it in figures.items():
                if isinstance(it, dict) and "value" in it:
                    title = f"{target} {figure}".strip().replace("_", " ")
                    return {"title": title, "n": group["n"], "enough": group["enough"], **it}
    return None


async def _candidate(
    name: str, since: datetime, person: Caller, services: Services
) -> compare.Comparison | None:
    try:
        return await compare.show_comparison(name, person, services, since, None)
    except NotFound:
        return None
