"""Who looks at a page: the cookie of a signed-in person, and what protects its forms.

The cookies hold the tokens of a session like any other, so that whatever ends that ends the page's,
too. While it is used they are renewed. A form is taken where it holds what only a page of this
server can know of the session, and came from this server.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse

from onrecord.accounts.caller import Caller
from onrecord.accounts.sessions import Issued
from onrecord.errors import CallError, Forbidden, Unauthenticated
from onrecord.http.services import Services, ServicesDep
from onrecord.record.users import User

__all__ = [
    "ChangeDep",
    "PersonDep",
    "begin",
    "check_form",
    "check_origin",
    "end",
    "person_of",
    "renew",
    "session_of",
    "token_of",
]

_ACCESS, _REFRESH = "onrecord_session", "onrecord_refresh"
_FIELD = "csrf"


async def begin(request: Request, services: Services, user: User, following: str) -> Response:
    """Begin a session of a user who has just proved to be it, and lead on to a page.

    The one that the browser had before ends, whoever else may hold its tokens.
    """
    before = request.cookies.get(_name(request, _REFRESH))
    if before is not None:
        with contextlib.suppress(Unauthenticated):
            await services.sessions.end(before)
    response = RedirectResponse(following, 303)
    _keep(request, response, await services.sessions.begin(user), services.token_seconds)
    return response


async def renew(request: Request, response: Response) -> None:
    """Have the browser hold new tokens where those of the session that it uses are half spent.

    It is done after the page, so that what ended the session has ended it. What a page asks for by
    itself, such as new calls for a live list, is no use of it: nobody need be sitting there.
    """
    refresh_token = request.cookies.get(_name(request, _REFRESH))
    by_itself = request.headers.get("sec-fetch-mode", "navigate") != "navigate"
    if refresh_token is None or by_itself or session_of(request) is None:
        return
    services: Services = request.app.state.services
    # A session that cannot be renewed now goes on until its token expires.
    with contextlib.suppress(CallError):
        issued = await services.sessions.renew(token_of(request), refresh_token)
        if issued is not None:
            _keep(request, response, issued, services.token_seconds)


def end(request: Request, response: Response) -> str | None:
    """Have the browser forget its tokens, and return the one that it calls with."""
    for name in (_ACCESS, _REFRESH):
        secure = _is_secure(request)
        response.delete_cookie(_name(request, name), path="/", secure=secure, httponly=True)
    return request.cookies.get(_name(request, _ACCESS))


def check_origin(request: Request) -> None:
    """Raise Forbidden where a form was sent from a page of another server."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    # A proxy may have changed the Host; only an old browser does not say itself where it is from.
    ours = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not (ours if site is None else site == "same-origin"):
        raise Forbidden("The form was sent from a page of another server.")


def token_of(request: Request) -> str:
    """Return the token that the browser holds; raises Unauthenticated where it has none."""
    token = request.cookies.get(_name(request, _ACCESS))
    if token is None:
        raise Unauthenticated("Sign in to see this page.", token_was_sent=False)
    return token


def session_of(request: Request) -> str | None:
    """Return the id of the session that a request was found to be of; None where it is of none."""
    found: str | None = request.scope.get("onrecord.console.session")
    return found


async def person_of(request: Request, services: ServicesDep) -> Caller:
    """Return who is signed in in a browser; raises Unauthenticated."""
    token = token_of(request)
    caller = await services.gate.authenticate(f"Bearer {token}")
    caller.check_signed_in()
    held = services.sessions.held(token)
    request.scope["onrecord.user"] = caller.username
    request.scope["onrecord.console.person"] = caller
    request.scope["onrecord.console.session"] = held.id
    request.scope["onrecord.console.csrf"] = held.form_secret
    return caller


PersonDep = Annotated[Caller, Depends(person_of)]
"""Whoever is signed in in this browser."""


def check_form(request: Request, fields: Mapping[str, object]) -> None:
    """Raise Forbidden where a form is none of the session that the request is of."""
    sent, secret = str(fields.get(_FIELD, "")), str(request.scope["onrecord.console.csrf"])
    if not hmac.compare_digest(sent.encode(), secret.encode()):
        raise Forbidden("The form is of another session: load its page again and send it anew.")


async def _changer(request: Request, person: PersonDep) -> Caller:
    check_origin(request)
    check_form(request, await request.form())
    return person


ChangeDep = Annotated[Caller, Depends(_changer)]
"""Whoever is signed in and sent a form of this session."""


def _keep(request: Request, response: Response, issued: Issued, seconds: int) -> None:
    for name, token in ((_ACCESS, issued.access_token), (_REFRESH, issued.refresh_token)):
        response.set_cookie(
            _name(request, name),
            token,
            max_age=seconds,
            path="/",
            secure=_is_secure(request),
            httponly=True,
            samesite="lax",
        )


def _name(request: Request, name: str) -> str:
    return f"__Host-{name}" if _is_secure(request) else name


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"
