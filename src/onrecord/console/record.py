"""The record: the calls that fit what is asked, newest first, as a page, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from onrecord.accounts.caller import Caller
from onrecord.console.pages import PREFIX, PageRoute, page
from onrecord.console.record_query import Asked, asked
from onrecord.console.session import PersonDep
from onrecord.errors import InvalidInput
from onrecord.http.services import Services, ServicesDep
from onrecord.insight import record_page
from onrecord.insight.record_page import WINDOW, Page, Shown
from onrecord.record import listing, users
from onrecord.record.ids import is_id, time_of
from onrecord.record.listing import Counts
from onrecord.record.tables import utc_text

__all__ = ["router"]

_PATH = f"{PREFIX}/record"
_MOST_LINKS = 8
_NOBODY = "nobody"
"""What is no id, so that a name that nobody has finds nothing."""

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class _Facet:
    """Links that narrow the list to one value of a field each, with how many calls it leaves."""

    title: str
    links: list[dict[str, Any]]


@router.get("/record")
async def show_record(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Show the calls that fit; who searches for an id is led to its call."""
    query = asked(request.query_params)
    if is_id(query.search):
        return RedirectResponse(f"{_PATH}/{query.search}", 303)
    found, counts = None, None
    if not query.faults:
        found, counts = await services.database.run(_look, services, query, person, True)
    columns = await services.database.run(_columns, services)
    return page(
        request,
        "record.html",
        code=400 if query.faults else 200,
        title="Record",
        query=query,
        path=_PATH,
        found=found,
        counts=counts,
        window=WINDOW,
        back_to=None if found is None or found.next is None else time_of(found.next),
        facets=[] if counts is None else _facets(query, counts, person),
        columns=columns,
    )


@router.get("/record.json")
async def record_as_json(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Give the calls of the page as JSON."""
    found = await _data(request, person, services)
    calls = [_as_json(call) for call in found.calls]
    headers = {"cache-control": "no-store"}
    return JSONResponse({"calls": calls, "next": found.next, "full": found.full}, headers=headers)


@router.get("/record.csv")
async def record_as_csv(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Give the calls of the page as CSV."""
    found = await _data(request, person, services)
    return csv_response("record", [_as_json(call) for call in found.calls], _CSV_COLUMNS)


def csv_response(name: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Response:
    """Return rows as a CSV file to keep; lists in them are JSON."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(
        {name: json.dumps(it) if isinstance(it, list) else it for name, it in row.items()}
        for row in rows
    )
    headers = {
        "cache-control": "no-store",
        "content-disposition": f'attachment; filename="{name}.csv"',
    }
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


_CSV_COLUMNS = (
    "id",
    "received_at",
    "status",
    "error_code",
    "error_fields",
    "model",
    "number",
    "version",
    "username",
    "prediction",
    "score",
    "rows",
    "duration_us",
    "x_request_id",
)


def _as_json(call: Shown) -> dict[str, Any]:
    line = call.line
    told = {
        name: getattr(line, name)
        for name in _CSV_COLUMNS
        if name not in {"prediction", "score", "rows", "received_at", "error_fields"}
    }
    return told | {
        "received_at": utc_text(line.received_at),
        "error_fields": list(line.error_fields),
        "prediction": call.prediction,
        "score": call.score,
        "rows": call.rows,
    }


async def _data(request: Request, person: Caller, services: Services) -> Page:
    query = asked(request.query_params)
    if query.faults:
        raise InvalidInput("The query does not fit.", faults=query.as_faults())
    found, _ = await services.database.run(_look, services, query, person, False)
    return found


def _look(
    services: Services, query: Asked, person: Caller, counted: bool
) -> tuple[Page, Counts | None]:
    user_id = query.fields.get("user")
    with services.database.read() as connection:
        if user_id is not None and not is_id(user_id):
            named = users.by_username(connection, user_id)
            user_id = _NOBODY if named is None else named.id
        question = query.question(person, user_id)
        found = record_page.page(connection, question, limit=query.limit, before=query.before)
        if not counted:
            return found, None
        return found, listing.counts(connection, question.filters, window=WINDOW)


def _columns(services: Services) -> list[str]:
    """Return the names of all models' columns, sensitive ones left out."""
    found = {
        column.name
        for model in services.served.models.values()
        for version in model.versions
        for column in version.model.schema.columns
        if not version.model.schema.sensitive
    }
    return sorted(found)


def _facets(query: Asked, counts: Counts, person: Caller) -> list[_Facet]:
    facets = [
        _facet(query, "Status", "status", [(str(k), str(k), n) for k, n in _most(counts.statuses)]),
        _facet(query, "Model", "model", [(k, k, n) for k, n in _most(counts.models)]),
        _facet(
            query,
            "Version",
            "version",
            [(label, f"{name} {label}", n) for (name, _, label), n in _most(counts.versions)],
        ),
    ]
    if person.reads_all:
        named = [(name, name, n) for (_, name), n in _most(counts.users)]
        facets.append(_facet(query, "User", "user", named))
    return [facet for facet in facets if facet.links]


def _most(counter: Any) -> list[tuple[Any, int]]:
    return list(islice(counter.most_common(), _MOST_LINKS))


def _facet(query: Asked, title: str, name: str, values: list[tuple[str, str, int]]) -> _Facet:
    chosen = query.fields.get(name)
    return _Facet(
        title,
        [
            {
                "text": text,
                "calls": calls,
                "chosen": value == chosen,
                "href": query.link(_PATH, **{name: None if value == chosen else value}),
            }
            for value, text, calls in values
        ],
    )
