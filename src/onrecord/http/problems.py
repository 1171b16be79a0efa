"""Errors as they leave the server: RFC 9457 problem details, and the status of each error."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from onrecord import errors
from onrecord.errors import CallError

__all__ = ["PROBLEM_TYPE", "STATUS", "problem_body", "problem_headers", "problem_response"]

PROBLEM_TYPE = "application/problem+json"

STATUS: Mapping[type[CallError], int] = {
    errors.MalformedJson: 400,
    errors.InvalidIdempotencyKey: 400,
    errors.MalformedRequest: 400,
    errors.InvalidInput: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.InsufficientScope: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.NotAcceptable: 406,
    errors.BodyTimeout: 408,
    errors.Conflict: 409,
    errors.GateRefused: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.UnsupportedCoding: 415,
    errors.Unanswerable: 422,
    errors.NotExplainable: 422,
    errors.IdempotencyKeyReused: 422,
    errors.TooManyRequests: 429,
    errors.HeadTooLarge: 431,
    errors.ModelFailed: 500,
    errors.Unavailable: 503,
    errors.AlreadyOnRecord: 503,
}


def problem_body(error: CallError, request_id: str) -> bytes:
    """Return the problem document of an error (RFC 9457, section 3).

    Beside the standard members it has `code` (stable), `request_id` and, for invalid input,
    `errors`: one entry a bad field. What the gate found of a version is in `gate`. A used-up rate
    or quota is named in `violated-policies`
    (draft-ietf-httpapi-ratelimit-headers-11, section 5.1).
    """
    problem: dict[str, object] = {
        "type": f"urn:onrecord:problem:{error.code}",
        "title": error.title,
        "status": STATUS[type(error)],
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    if error.faults:
        problem["errors"] = [
            {
                name: value
                for name in ("pointer", "code", "detail", "expected", "received")
                if (value := getattr(fault, name)) is not None
            }
            for fault in error.faults
        ]
    if isinstance(error, errors.GateRefused):
        problem["gate"] = error.report
    if isinstance(error, errors.TooManyRequests) and error.policies:
        problem["violated-policies"] = error.policies
    return msgspec.json.encode(problem)


def problem_headers(error: CallError) -> dict[str, str]:
    """Return the headers that go with an error: its challenge and when to try again."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, errors.Unauthenticated):
        # RFC 6750, section 3.1: no error code for a caller that sent no token.
        reason = f', error="invalid_token", error_description="{error.detail}"'
        headers["www-authenticate"] = 'Bearer realm="onrecord"' + (
            reason.replace("\n", " ") if error.token_was_sent else ""
        )
    elif isinstance(error, errors.InsufficientScope):
        headers["www-authenticate"] = (
            f'Bearer realm="onrecord", error="insufficient_scope", scope="{error.scope}"'
        )
    elif isinstance(error, errors.UnsupportedCoding):
        # RFC 9110, section 15.5.16.
        headers["accept-encoding"] = "identity"
    return headers


def problem_response(error: CallError, request_id: str) -> Response:
    """Return an error as a Starlette response."""
    return Response(
        problem_body(error, request_id),
        status_code=STATUS[type(error)],
        headers=problem_headers(error),
        media_type=PROBLEM_TYPE,
    )
