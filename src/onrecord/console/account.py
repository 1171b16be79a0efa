"""Accounts in the console: the first admin, registering, one's password and API keys."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from onrecord.accounts.caller import SCOPES, Caller
from onrecord.accounts.passwords import MIN_PASSWORD
from onrecord.console.pages import (
    PREFIX,
    PageRoute,
    code_of,
    faults_of,
    fields_of,
    page,
    whole_number,
)
from onrecord.console.session import ChangeDep, PersonDep, begin, check_origin, end, session_of
from onrecord.errors import (
    CallError,
    Conflict,
    Fault,
    Forbidden,
    InvalidInput,
    TooManyRequests,
    Unauthenticated,
)
from onrecord.http.services import Services, ServicesDep, address_of

__all__ = ["router"]

_MOST_KEYS = 200
_QUOTA_DIGITS = 18

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=PageRoute)


@router.get("/set-up")
async def show_set_up(request: Request, services: ServicesDep) -> Response:
    """Show the form that makes the first admin, while there is none."""
    if not await services.set_up.is_open():
        return RedirectResponse(f"{PREFIX}/sign-in", 303)
    return _form(request, "set_up.html", {}, None)


@router.post("/set-up")
async def set_up(request: Request, services: ServicesDep) -> Response:
    """Make the first admin by the code that the server printed, and sign it in."""
    check_origin(request)
    sent = await fields_of(request)
    try:
        user = await services.set_up.make_admin(
            sent.get("code", "").strip(), sent.get("username", ""), sent.get("password", "")
        )
    except (Conflict, InvalidInput) as error:
        return _form(request, "set_up.html", sent, error)
    return await begin(request, services, user, PREFIX)


@router.get("/register")
async def show_register(request: Request, services: ServicesDep) -> Response:
    """Show the form to register by, where that is open."""
    services.check_registration_open()
    return _form(request, "register.html", {}, None)


@router.post("/register")
async def register(request: Request, services: ServicesDep) -> Response:
    """Make a user, as `POST /users` does, and sign it in."""
    check_origin(request)
    services.check_registration_open()
    sent = await fields_of(request)
    email = sent.get("email", "").strip() or None
    try:
        user = await services.accounts.register(
            sent.get("username", ""), sent.get("password", ""), email
        )
    except (Conflict, InvalidInput) as error:
        return _form(request, "register.html", sent, error)
    return await begin(request, services, user, PREFIX)


@router.get("/account")
async def show_account(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Show who is signed in, and its API keys."""
    return await _account(request, person, services)


@router.post("/account/password")
async def change_password(request: Request, person: ChangeDep, services: ServicesDep) -> Response:
    """Give oneself another password, which ends all sessions."""
    sent = await fields_of(request)
    try:
        await services.accounts.sign_in(
            person.username, sent.get("password", ""), address_of(request)
        )
        await services.accounts.set_password(person.user_id, sent.get("new_password", ""))
    except Unauthenticated:
        fault = Fault("/password", "wrong", "This is not your password.")
        error: CallError = InvalidInput("The password is wrong.", faults=(fault,))
        return await _account(request, person, services, ("password", error))
    except InvalidInput as told:
        faults = tuple(Fault("/new_password", it.code, it.detail) for it in told.faults)
        error = InvalidInput(told.detail, faults=faults)
        return await _account(request, person, services, ("password", error))
    except (Conflict, TooManyRequests) as told:
        return await _account(request, person, services, ("password", told))
    return _signed_out(request)


@router.post("/account/sessions/end")
async def end_session(request: Request, person: ChangeDep, services: ServicesDep) -> Response:
    """End the one of one's sessions that the form names; API keys stay."""
    session_id = (await fields_of(request)).get("session", "")
    await services.sessions.end_of_user(person.user_id, session_id)
    if session_id == session_of(request):
        return _signed_out(request)
    return RedirectResponse(f"{PREFIX}/account#sessions", 303)


@router.post("/account/end-sessions")
async def end_sessions(request: Request, person: ChangeDep, services: ServicesDep) -> Response:
    """End all of one's sessions, here and elsewhere; API keys stay."""
    await services.accounts.sign_out_everywhere(person.user_id)
    return _signed_out(request)


@router.post("/account/keys")
async def make_key(request: Request, person: ChangeDep, services: ServicesDep) -> Response:
    """Make an API key, as `POST /keys` does, and show it this once."""
    form = await request.form()
    sent = await fields_of(request)
    models = [str(it) for it in form.getlist("models")] or None
    try:
        _, secret = await services.api_keys.create(
            person.user_id,
            name=sent.get("name", "").strip(),
            kind="test" if sent.get("kind") == "test" else "live",
            scopes=[it for it in SCOPES if it in form.getlist("scopes")],
            models=models,
            expires_at=None,
            rate=sent.get("rate", "").strip() or None,
            quota=_quota(sent.get("quota", "").strip()),
        )
    except (Conflict, Forbidden, InvalidInput) as error:
        return await _account(request, person, services, ("keys", error), sent=sent)
    return await _account(request, person, services, secret=secret)


@router.post("/account/keys/revoke")
async def revoke_key(request: Request, person: ChangeDep, services: ServicesDep) -> Response:
    """Revoke the one of one's API keys that the form names."""
    key_id = (await fields_of(request)).get("key", "")
    await services.api_keys.revoke(key_id, owner_id=person.user_id)
    return RedirectResponse(f"{PREFIX}/account#keys", 303)


def _form(
    request: Request,
    template: str,
    sent: Mapping[str, str],
    error: CallError | None,
) -> Response:
    return page(
        request,
        template,
        code=code_of(error),
        sent=sent,
        error=error,
        faults=faults_of(error),
        least=MIN_PASSWORD,
    )


async def _account(  # noqa: PLR0913 - what the page shows beyond who is signed in
    request: Request,
    person: Caller,
    services: Services,
    refused: tuple[str, CallError] | None = None,
    *,
    sent: Mapping[str, str] | None = None,
    secret: str | None = None,
) -> Response:
    form, error = refused or ("", None)
    keys = await services.api_keys.page(person.user_id, limit=_MOST_KEYS, after_id=None)
    return page(
        request,
        "account.html",
        code=code_of(error),
        title="Account",
        form=form,
        error=error,
        faults=faults_of(error),
        sent=sent or {},
        secret=secret,
        keys=list(reversed(keys)),
        sessions=await services.sessions.of_user(person.user_id),
        session=session_of(request),
        scopes=SCOPES,
        models=sorted(services.served.models),
        least=MIN_PASSWORD,
    )


def _quota(text: str) -> int | None:
    """Return a number of calls a day, None where there is no limit; raises InvalidInput."""
    quota = whole_number(text, _QUOTA_DIGITS)
    if quota is not None or not text:
        return quota
    fault = Fault("/quota", "wrong_type", "Write a whole number, or nothing.")
    raise InvalidInput("The quota does not fit.", faults=(fault,))


def _signed_out(request: Request) -> Response:
    response = RedirectResponse(f"{PREFIX}/sign-in", 303)
    end(request, response)
    return response
