"""The overview: traffic, refusals and latency, and which version of each model answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

from onrecord.accounts.caller import Caller
from onrecord.console.charts import chart
from onrecord.console.model import chosen_span
from onrecord.console.pages import PREFIX, PageRoute, page
from onrecord.console.record import csv_response
from onrecord.console.session import PersonDep
from onrecord.http.services import Services, ServicesDep
from onrecord.insight.traffic import Traffic
from onrecord.record.deployments import all_deployments
from onrecord.record.model_versions import get
from onrecord.record.traffic import slice_of

__all__ = ["router"]

router = APIRouter(prefix=f"{PREFIX}", include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class _Span:
    """A time until now, and how much of it a point of a chart stands for."""

    title: str
    length: timedelta
    step: timedelta


_SPANS = {
    "3h": _Span("3 hours", timedelta(hours=3), timedelta(minutes=10)),
    "24h": _Span("24 hours", timedelta(days=1), timedelta(minutes=30)),
    "7d": _Span("7 days", timedelta(days=7), timedelta(hours=3)),
    "30d": _Span("30 days", timedelta(days=30), timedelta(hours=12)),
}
_USUAL = "24h"
_MOST_FIELDS = 10


@router.get("/overview")
async def show_overview(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Show what came and what became of it; what is still to be counted is counted afterwards."""
    chosen, report, whole = await _report(request, person, services)
    models = await services.database.run(_models, services)
    response = page(
        request,
        "overview.html",
        title="Overview",
        spans=_SPANS,
        chosen=chosen,
        glance=chosen_span(request, "24h"),
        report=report,
        whole=whole,
        fields=report["fields"][:_MOST_FIELDS],
        models=models,
        calls=_calls_chart(report),
        durations=_durations_chart(report),
    )
    if not whole:
        update = Traffic(services.database).update
        response.background = BackgroundTask(services.database.run, update)
    return response


@router.get("/overview.json")
async def overview_as_json(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Give the figures of the page as JSON; `whole` is whether all calls are counted."""
    _, report, whole = await _report(request, person, services)
    return JSONResponse(report | {"whole": whole}, headers={"cache-control": "no-store"})


@router.get("/overview.csv")
async def overview_as_csv(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Give the points of the charts as CSV."""
    _, report, _ = await _report(request, person, services)
    rows = [{**it, **it["duration_us"]} for it in report["series"]]
    return csv_response(
        "overview", rows, ("at", "calls", "answered", "refused", "p50", "p95", "p99")
    )


async def _report(
    request: Request, person: Caller, services: Services
) -> tuple[str, dict[str, Any], bool]:
    """Return which time is meant, its traffic, and whether all of it is counted."""
    person.check_reads_all()
    chosen = request.query_params.get("span", _USUAL)
    span = _SPANS.get(chosen) or _SPANS[_USUAL]
    traffic = Traffic(services.database)
    whole = await services.database.run(traffic.update, 1)
    until = slice_of(datetime.now(UTC), span.step) + span.step
    report = await services.database.run(traffic.report, until - span.length, until, span.step)
    return chosen if chosen in _SPANS else _USUAL, report, whole


def _models(services: Services) -> list[dict[str, Any]]:
    """Return each model with the versions that have a part in answering."""
    with services.database.read() as connection:
        return [
            {
                "name": it.name,
                "live": None if it.live_id is None else get(connection, it.live_id),
                "candidate": None if it.candidate_id is None else get(connection, it.candidate_id),
                "shadow_share": it.shadow_share,
                "canary_share": it.canary_share,
            }
            for it in all_deployments(connection)
        ]


def _calls_chart(report: dict[str, Any]) -> dict[str, Any]:
    series = report["series"]
    lines = [
        ("Answered", [it["answered"] for it in series], "now"),
        ("Refused", [it["refused"] for it in series], "bad"),
    ]
    return chart([it["at"] for it in series], lines)


def _durations_chart(report: dict[str, Any]) -> dict[str, Any]:
    series = report["series"]
    colours = {"p50": "was", "p95": "now", "p99": "warn"}

    def milliseconds(name: str) -> list[float | None]:
        found = [it["duration_us"][name] for it in series]
        return [None if value is None else round(value / 1000, 3) for value in found]

    lines = [(name, milliseconds(name), colour) for name, colour in colours.items()]
    return chart([it["at"] for it in series], lines, unit="ms")
