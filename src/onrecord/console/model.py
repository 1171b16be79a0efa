"""One model: its versions, drift, live quality, the candidate, and what makes a version live."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from onrecord.console.charts import chart
from onrecord.console.pages import PREFIX, PageRoute, fields_of, page
from onrecord.console.record import csv_response
from onrecord.console.session import ChangeDep, PersonDep
from onrecord.errors import Conflict, Fault, GateRefused, InvalidInput, NotFound
from onrecord.http import compare, drift, model_versions, quality
from onrecord.http.model_versions import PromoteOrder
from onrecord.http.problems import STATUS
from onrecord.http.services import Services, ServicesDep
from onrecord.insight.quality import LEAST_ROWS
from onrecord.insight.scores_over_time import scores_over_time
from onrecord.record.model_versions import find

__all__ = ["chosen_span", "router", "since_of"]

_SPANS = {"24h": 1, "7d": 7, "30d": 30}
_USUAL = "7d"
_COLOURS = {"p10": "was", "p50": "now", "p90": "warn"}
_ALL = 100

router = APIRouter(
    prefix=f"{PREFIX}/models/{{name}}", include_in_schema=False, route_class=PageRoute
)


@router.get("")
async def show_model(
    request: Request, name: str, person: PersonDep, services: ServicesDep
) -> Response:
    """Show a model's versions; what takes a while comes after the page."""
    person.check_reads_all()
    found = await model_versions.list_versions(name, person, services)
    return page(
        request,
        "model.html",
        title=name,
        name=name,
        versions=list(reversed(found.versions)),
        aliases={it.alias for it in found.versions},
        spans=_SPANS,
        chosen=chosen_span(request),
    )


@router.get("/versions.json")
async def versions_as_json(name: str, person: PersonDep, services: ServicesDep) -> Response:
    """Give the versions as the API does."""
    found = await model_versions.list_versions(name, person, services)
    return JSONResponse(found.model_dump(mode="json"), headers={"cache-control": "no-store"})


@router.get("/versions.csv")
async def versions_as_csv(name: str, person: PersonDep, services: ServicesDep) -> Response:
    """Give the versions as CSV."""
    found = await model_versions.list_versions(name, person, services)
    rows = [it.model_dump(mode="json") for it in found.versions]
    return csv_response(f"{name}-versions", rows, list(rows[0]))


@router.get("/drift")
async def show_drift(
    request: Request, name: str, person: PersonDep, services: ServicesDep
) -> Response:
    """Show what differs from the baseline, and the scores over time."""
    person.check_reads_all()
    since = since_of(request)
    try:
        report = await drift.show_drift(name, person, services, since=since)
    except (Conflict, NotFound) as error:
        return _nothing(request, "Drift", error)
    over_time = await services.database.run(_scores, services, name, since)
    return page(
        request, "drift_part.html", title="Drift", over_time=over_time, **report.model_dump()
    )


@router.get("/quality")
async def show_quality(
    request: Request, name: str, person: PersonDep, services: ServicesDep
) -> Response:
    """Show how right the answers were of which the outcome is known."""
    person.check_reads_all()
    since = since_of(request)
    found = await quality.show_quality(name, person, services, since, None, "version", None)
    return page(
        request,
        "quality_part.html",
        title="Live quality",
        least=LEAST_ROWS,
        **found.model_dump(),
    )


@router.get("/compare")
async def show_comparison(
    request: Request, name: str, person: PersonDep, services: ServicesDep
) -> Response:
    """Show the candidate beside the live version."""
    person.check_reads_all()
    try:
        found = await compare.show_comparison(name, person, services, since_of(request), None)
    except NotFound as error:
        return _nothing(request, "Candidate", error)
    versions = (await model_versions.list_versions(name, person, services)).versions
    return page(
        request,
        "compare_part.html",
        title="Candidate",
        least=LEAST_ROWS,
        name=name,
        by_alias={it.alias: it for it in versions if it.alias},
        **found.model_dump(),
    )


@router.get("/promote")
async def ask_to_promote(
    request: Request, name: str, person: PersonDep, services: ServicesDep
) -> Response:
    """Ask whether a version is really to be the live one."""
    person.check_admin()
    number = request.query_params.get("version", "candidate")
    version = await model_versions.show_version(name, number, person, services)
    return page(
        request, "promote.html", title="Promote", name=name, version=version, told={}, error=None
    )


@router.post("/promote")
async def promote(
    request: Request, name: str, person: ChangeDep, services: ServicesDep
) -> Response:
    """Make a version the live one where the gate lets it through, and say what the gate found."""
    person.check_admin()
    form = await fields_of(request)
    version = await model_versions.show_version(name, form.get("version", ""), person, services)
    try:
        order = _promote_order(form, str(version.number))
        changed = await model_versions.promote(name, order, person, services)
    except (Conflict, InvalidInput) as error:
        gate = error.report if isinstance(error, GateRefused) else None
        return page(
            request,
            "promote.html",
            code=STATUS[type(error)],
            title="Promote",
            name=name,
            version=version,
            told=form,
            error=error,
            gate=gate,
        )
    return page(
        request,
        "promoted.html",
        title="Promoted",
        name=name,
        version=changed.version,
        gate=changed.gate,
    )


@router.get("/rollback")
async def ask_to_roll_back(
    request: Request, name: str, person: PersonDep, services: ServicesDep
) -> Response:
    """Ask whether the previous version is really to be live again."""
    person.check_admin()
    version = await model_versions.show_version(name, "previous", person, services)
    return page(request, "rollback.html", title="Roll back", name=name, version=version)


@router.post("/rollback")
async def roll_back(
    request: Request, name: str, person: ChangeDep, services: ServicesDep
) -> Response:
    """Make the version live again that was before the present one."""
    person.check_admin()
    reason = str((await request.form()).get("reason", ""))[:1000]
    order = model_versions.Order(reason=reason)
    await model_versions.rollback(name, order, person, services)
    return RedirectResponse(str(request.url.path).removesuffix("/rollback"), 303)


def _promote_order(form: dict[str, str], number: str) -> PromoteOrder:
    """Return the order of a form; raises InvalidInput where a field does not fit."""
    text = form.get("max_changed", "").strip().removesuffix("%").strip()
    try:
        most = float(text) / _ALL if text else None
    except ValueError:
        most = -1.0
    if most is not None and not 0 <= most <= 1:
        fault = Fault("/max_changed", "wrong", "Write a percentage from 0 to 100, or nothing.")
        raise InvalidInput("The share does not fit.", faults=(fault,))
    return PromoteOrder(
        version=number,
        reason=form.get("reason", "")[:1000],
        allow_schema_change=form.get("allow_schema_change") == "yes",
        max_changed=most,
    )


def _scores(services: Services, name: str, since: datetime) -> list[dict[str, Any]]:
    """Return the charts of how the live version's scores were spread in each hour."""
    with services.database.read() as connection:
        version = find(connection, name, "live")
    baseline = services.drifts.baseline(version)
    found = [] if baseline is None else scores_over_time(services.database, baseline, since)
    return [
        {
            "name": score["name"],
            "chart": chart(
                [it["at"] for it in score["series"]],
                [
                    (label, [float(f"{it[label]:.4g}") for it in score["series"]], colour)
                    for label, colour in _COLOURS.items()
                ],
            ),
        }
        for score in found
        if score["series"]
    ]


def _nothing(request: Request, title: str, error: Conflict | NotFound) -> Response:
    return page(request, "nothing_part.html", title=title, detail=error.detail)


def chosen_span(request: Request, usual: str = _USUAL) -> str:
    """Return the name of the time that an address asks for, of those of a model's page."""
    chosen = request.query_params.get("span", usual)
    return chosen if chosen in _SPANS else usual


def since_of(request: Request) -> datetime:
    """Return since when the time is that an address asks for."""
    return datetime.now(UTC) - timedelta(days=_SPANS[chosen_span(request)])
