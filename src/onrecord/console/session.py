"""Who looks at a page: the cookie of a signed-in person, and what protects its forms.

The cookie holds the person's token, so that whatever ends that ends the page's session, too. A form
is taken where it holds what only a page of this server can know, and came from this server.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse

from onrecord.accounts.caller import Caller
from onrecord.errors import Forbidden, Unauthenticated
from onrecord.http.services import Services, ServicesDep
from onrecord.record.users import User

__all__ = ["ChangeDep", "PersonDep", "begin", "check_origin", "end", "person_of", "token_of"]

_PLAIN = "onrecord_session"
_FIELD = "csrf"


async def begin(request: Request, services: Services, user: User, following: str) -> Response:
    """Begin a session of a user who has just proved to be it, and lead on to a page."""
    issued = await services.sessions.begin(user)
    response = RedirectResponse(following, 303)
    response.set_cookie(
        _name(request),
        issued.access_token,
        max_age=services.token_seconds,
        path="/",
        secure=_is_secure(request),
        httponly=True,
        samesite="lax",
    )
    return response


def end(request: Request, response: Response) -> str | None:
    """Have the browser forget its token, and return that."""
    name = _name(request)
    response.delete_cookie(name, path="/", secure=_is_secure(request), httponly=True)
    return request.cookies.get(name)


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
    token = request.cookies.get(_name(request))
    if token is None:
        raise Unauthenticated("Sign in to see this page.", token_was_sent=False)
    return token


async def person_of(request: Request, services: ServicesDep) -> Caller:
    """Return who is signed in in a browser; raises Unauthenticated."""
    token = token_of(request)
    caller = await services.gate.authenticate(f"Bearer {token}")
    caller.check_signed_in()
    request.scope["onrecord.user"] = caller.username
    request.scope["onrecord.console.person"] = caller
    request.scope["onrecord.console.csrf"] = _secret_of(token)
    return caller


PersonDep = Annotated[Caller, Depends(person_of)]
"""Whoever is signed in in this browser."""


async def _changer(request: Request, person: PersonDep) -> Caller:
    check_origin(request)
    sent = str((await request.form()).get(_FIELD, ""))
    if not hmac.compare_digest(sent.encode(), str(request.scope["onrecord.console.csrf"]).encode()):
        raise Forbidden("The form is of another session: load its page again and send it anew.")
    return person


ChangeDep = Annotated[Caller, Depends(_changer)]
"""Whoever is signed in and sent a form of this session."""


def _secret_of(token: str) -> str:
    """Return what the forms of a session hold: it tells nothing of the token."""
    return hmac.new(token.encode(), b"console form", hashlib.sha256).hexdigest()


def _name(request: Request) -> str:
    return f"__Host-{_PLAIN}" if _is_secure(request) else _PLAIN


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"
