"""Signing in to the console and out of it."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from onrecord.console.pages import PREFIX, PageRoute, code_of, fields_of, page
from onrecord.console.session import ChangeDep, begin, check_origin, end, person_of, token_of
from onrecord.errors import CallError, TooManyRequests, Unauthenticated
from onrecord.http.services import Services, ServicesDep, address_of

__all__ = ["root", "router"]

root = APIRouter(include_in_schema=False)
router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=PageRoute)


@root.get("/")
async def lead() -> Response:
    """Lead who opens the bare address to the console."""
    return RedirectResponse(PREFIX.lstrip("/"))


@router.get("")
async def home(request: Request, services: ServicesDep) -> Response:
    """Lead to a person's first page, and a stranger to where the first admin is made, or in."""
    try:
        token_of(request)
    except Unauthenticated:
        if await services.set_up.is_open():
            return RedirectResponse(f"{PREFIX}/set-up", 303)
    person = await person_of(request, services)
    return RedirectResponse(f"{PREFIX}/{'overview' if person.reads_all else 'try'}", 303)


@router.get("/sign-in")
async def show_form(request: Request, services: ServicesDep) -> Response:
    """Show the form to sign in by."""
    return await _form(request, services, following=_following(request.query_params.get("next")))


@router.post("/sign-in")
async def sign_in(request: Request, services: ServicesDep) -> Response:
    """Sign in by name and password, as at `/token`."""
    check_origin(request)
    form = await fields_of(request)
    username, password = form.get("username", ""), form.get("password", "")
    following = _following(form.get("next"))
    try:
        user = await services.accounts.sign_in(username, password, address_of(request))
    except (Unauthenticated, TooManyRequests) as error:
        return await _form(request, services, following=following, username=username, error=error)
    return await begin(request, services, user, following)


@router.post("/sign-out")
async def sign_out(request: Request, _: ChangeDep, services: ServicesDep) -> Response:
    """End the session: its token stops everywhere."""
    response = RedirectResponse(f"{PREFIX}/sign-in", 303)
    token = end(request, response)
    with contextlib.suppress(Unauthenticated):
        await services.sessions.end(token or "")
    return response


async def _form(
    request: Request,
    services: Services,
    *,
    following: str,
    username: str = "",
    error: CallError | None = None,
) -> Response:
    return page(
        request,
        "sign_in.html",
        code=code_of(error),
        following=following,
        username=username,
        fault=None if error is None else error.detail,
        registration_open=services.registration_open,
        no_admin=await services.set_up.is_open(),
    )


def _following(path: str | None) -> str:
    """Return a page of the console to go on to, whatever a link says."""
    return path if path is not None and path.startswith(f"{PREFIX}/") else PREFIX
