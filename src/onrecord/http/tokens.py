"""`/token`, `/revoke` and `/logout`: signing in, refreshing and signing out."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from onrecord.accounts.api_keys import is_api_key
from onrecord.accounts.bearer import bearer_token
from onrecord.accounts.sessions import Issued
from onrecord.errors import Conflict, Unauthenticated
from onrecord.http.services import CallerDep, Services, ServicesDep, address_of
from onrecord.record.users import User

__all__ = ["Token", "router"]

router = APIRouter(tags=["accounts"])


class Token(BaseModel):
    """A bearer token and one to refresh it by (RFC 6749, section 5.1)."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a token type
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str = Field(description="Good for one use: it gives the next pair.")


class _OauthError(Exception):
    """A refusal as RFC 6749, section 5.2, has it: a code and a sentence."""

    def __init__(self, code: str, description: str) -> None:
        self.code = code
        self.description = description


def _form(**properties: Any) -> dict[str, Any]:
    text = {name: {"type": "string", **more} for name, more in properties.items()}
    return {"type": "object", "properties": text}


def _body(schema: dict[str, Any], **example: str) -> dict[str, Any]:
    forms = ("application/x-www-form-urlencoded", "application/json")
    told = {"schema": schema} | ({"example": example} if example else {})
    return {"required": True, "content": dict.fromkeys(forms, told)}


_PASSWORD_FORM = _form(
    grant_type={"enum": ["password"], "default": "password"},
    username={},
    password={"format": "password"},
    scope={"default": ""},
) | {"required": ["username", "password"]}
_REFRESH_FORM = _form(grant_type={"enum": ["refresh_token"]}, refresh_token={}) | {
    "required": ["grant_type", "refresh_token"]
}
_REVOKE_FORM = _form(
    token={}, token_type_hint={"description": "Not needed: a token tells its own type."}
) | {"required": ["token"]}


@router.post(
    "/token",
    summary="Sign in, or refresh",
    response_model=Token,
    openapi_extra={
        "requestBody": _body(
            {"anyOf": [_PASSWORD_FORM, _REFRESH_FORM]},
            # Of the user that the example of POST /users registers.
            username="ada",
            password="correct horse battery staple",  # noqa: S106 - an example's
        )
    },
)
async def make_token(request: Request, services: ServicesDep) -> Response:
    """Exchange a username and password, or a refresh token, for new tokens.

    RFC 6749, sections 4.3 and 6. A refresh token is good for one use; one that comes a second time
    ends the session.
    """
    try:
        user, issued = await _grant(await _fields(request), request, services)
    except _OauthError as error:
        return _refused(error)
    request.scope["onrecord.user"] = user.username
    answer = Token(
        access_token=issued.access_token,
        expires_in=services.token_seconds,
        refresh_token=issued.refresh_token,
    )
    return JSONResponse(answer.model_dump(), headers={"cache-control": "no-store"})


async def _grant(
    fields: dict[str, str], request: Request, services: Services
) -> tuple[User, Issued]:
    grant_type = fields.get("grant_type", "password")
    try:
        if grant_type == "password":
            username, password = fields.get("username"), fields.get("password")
            if not username or not password:
                raise _OauthError("invalid_request", "Both username and password are needed.")
            address = address_of(request)
            user = await services.accounts.sign_in(username, password, address)
            return user, await services.sessions.begin(user)
        if grant_type == "refresh_token":
            if not fields.get("refresh_token"):
                raise _OauthError("invalid_request", "The refresh_token is needed.")
            return await services.sessions.refresh(fields["refresh_token"])
    except Unauthenticated as error:
        raise _OauthError("invalid_grant", error.detail) from None
    raise _OauthError("unsupported_grant_type", "The grant_type must be password or refresh_token.")


@router.post(
    "/revoke", summary="Revoke a token", openapi_extra={"requestBody": _body(_REVOKE_FORM)}
)
async def revoke(request: Request, services: ServicesDep) -> Response:
    """End the session that a refresh or access token belongs to (RFC 7009).

    All its tokens stop within a second. A token that is not valid is answered alike.
    """
    try:
        token = (await _fields(request)).get("token")
        if not token:
            raise _OauthError("invalid_request", "The token is needed.")
        if is_api_key(token):
            raise _OauthError("unsupported_token_type", "Revoke an API key by DELETE /keys/ID.")
        if services.gate.is_external(token):
            raise _OauthError("unsupported_token_type", "Revoke the token at its issuer.")
        await services.sessions.end(token)
    except _OauthError as error:
        return _refused(error)
    except Unauthenticated:
        pass  # section 2.2: what it asked for is so already
    return JSONResponse({}, headers={"cache-control": "no-store"})


@router.post("/logout", status_code=204, summary="Sign out")
async def log_out(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    everywhere: Annotated[
        bool, Query(description="End every session of the user, not only this one.")
    ] = False,
) -> None:
    """End the session of the token that this is asked with; all its tokens stop within a second.

    API keys go on working.
    """
    token = bearer_token(request.headers.get("authorization"))
    if services.gate.is_external(token):
        raise Conflict("The token is of an external issuer; sign out there.")
    if everywhere:
        await services.accounts.sign_out_everywhere(caller.user_id)
    else:
        await services.sessions.end(token)


async def _fields(request: Request) -> dict[str, str]:
    """Return the fields of a form or JSON body; raises _OauthError where it cannot be read."""
    raw = await request.body()
    essence = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    try:
        if essence == "application/json":
            return msgspec.json.decode(raw, type=dict[str, str])
        if essence in ("application/x-www-form-urlencoded", ""):
            return dict(parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=20))
    except (ValueError, RecursionError):
        raise _OauthError(
            "invalid_request", "The body cannot be read: send a form or a JSON object of strings."
        ) from None
    raise _OauthError(
        "invalid_request",
        "Send the body as application/x-www-form-urlencoded or application/json.",
    )


def _refused(error: _OauthError) -> Response:
    return JSONResponse(
        {"error": error.code, "error_description": error.description},
        status_code=400,
        headers={"cache-control": "no-store"},
    )
