"""Signing in to the console and out of it."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from onrecord.console.pages import PREFIX, PageRoute, page
from onrecord.console.session import ChangeDep, PersonDep, begin, check_origin, end
from onrecord.errors import TooManyRequests, Unauthenticated
from onrecord.http.problems import STATUS
from onrecord.http.services import ServicesDep

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=PageRoute)


@router.get("")
async def home(person: PersonDep) -> Response:
    """Lead to the first page that a person may see."""
    return RedirectResponse(f"{PREFIX}/{'overview' if person.reads_all else 'record'}", 303)


@router.get("/sign-in")
async def show_form(request: Request) -> Response:
    """Show the form to sign in by."""
    following = _following(request.query_params.get("next"))
    return page(request, "sign_in.html", following=following, username="", fault=None)


@router.post("/sign-in")
async def sign_in(request: Request, services: ServicesDep) -> Response:
    """Sign in by name and password, as at `/token`."""
    check_origin(request)
    form = await request.form()
    username, password = str(form.get("username", "")), str(form.get("password", ""))
    following = _following(str(form.get("next", "")))
    address = request.client.host if request.client else "unknown"
    try:
        user = await services.accounts.sign_in(username, password, address)
    except (Unauthenticated, TooManyRequests) as error:
        return page(
            request,
            "sign_in.html",
            code=STATUS[type(error)],
            following=following,
            username=username,
            fault=error.detail,
        )
    issued = await services.sessions.begin(user)
    response = RedirectResponse(following, 303)
    begin(request, response, issued.access_token, services.token_seconds)
    return response


@router.post("/sign-out")
async def sign_out(request: Request, _: ChangeDep, services: ServicesDep) -> Response:
    """End the session: its token stops everywhere."""
    response = RedirectResponse(f"{PREFIX}/sign-in", 303)
    token = end(request, response)
    with contextlib.suppress(Unauthenticated):
        await services.sessions.end(token or "")
    return response


def _following(path: str | None) -> str:
    """Return a page of the console to go on to, whatever a link says."""
    return path if path is not None and path.startswith(f"{PREFIX}/") else PREFIX
