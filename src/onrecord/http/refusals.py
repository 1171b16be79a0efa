"""How FastAPI's own refusals leave: as the same problem documents as everything else."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from onrecord.errors import (
    BodyTooLarge,
    CallError,
    Fault,
    InvalidInput,
    MalformedJson,
    MethodNotAllowed,
    NotFound,
)
from onrecord.http.context import request_id
from onrecord.http.inference import error_response, is_inference_path
from onrecord.http.problems import problem_response

__all__ = ["add_refusals"]

_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def add_refusals(app: FastAPI) -> None:
    """Teach `app` to answer every error as RFC 9457, or at its addresses the V2 protocol, says."""
    app.add_exception_handler(CallError, _call_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


def _response(request: Request, error: CallError) -> Response:
    respond = error_response if is_inference_path(request.scope["path"]) else problem_response
    return respond(error, request_id(request.scope))


async def _call_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, CallError):
        raise error
    return _response(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    if any(fault["type"] == "json_invalid" for fault in found):
        malformed = MalformedJson("The body is not JSON.")
        return _response(request, malformed)
    # pydantic's `input` is left out: it can be a password.
    faults = tuple(
        Fault(_pointer(fault["loc"]), fault["type"], f"{fault['msg']}.") for fault in found
    )
    return _response(
        request, InvalidInput("Some fields do not fit; each is listed in `errors`.", faults=faults)
    )


def _pointer(location: tuple[str | int, ...]) -> str:
    parts = location[1:] if location and location[0] in ("body", "query", "path") else location
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    known: dict[int, CallError] = {
        404: NotFound("There is nothing at this address."),
        405: MethodNotAllowed("This address does not take that method; see the Allow header."),
        413: BodyTooLarge("The body is larger than this address takes."),
    }
    problem = known.get(error.status_code) or MalformedJson("The body cannot be read.")
    response = _response(request, problem)
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> list[str]:
    """Return every method of an address; Starlette names only those of the first route there."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
