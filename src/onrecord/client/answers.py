"""Reading the answers of the server."""

from __future__ import annotations

from typing import Any

import httpx2

from onrecord.client.errors import BY_CODE, ClientError, Problem, SignInRefused, UnexpectedAnswer

__all__ = ["json_of", "problem_of", "retry_after"]

_SHOWN = 200


def json_of(response: httpx2.Response) -> Any:
    """Return the JSON of an answer; raises UnexpectedAnswer where it is none."""
    try:
        return response.json()
    except ValueError:
        raise _unexpected(response) from None


def problem_of(response: httpx2.Response) -> ClientError:
    """Return the error that an answer which is not of status 2xx tells of."""
    try:
        document = response.json()
        if "code" in document:
            kind = BY_CODE.get(document["code"], Problem)
            told = retry_after(response)
            return kind(document, status=response.status_code, retry_after=told)
        if "error" in document:
            detail, request = document["error_description"], response.headers.get("x-request-id")
            return SignInRefused(document["error"], detail, request_id=request)
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # a proxy's page is no JSON, or other JSON
    return _unexpected(response)


def retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds that an answer asks to wait, None where it has no number of them.

    The server gives a number, never a date (RFC 9110, section 10.2.3).
    """
    told = response.headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() else None


def _unexpected(response: httpx2.Response) -> UnexpectedAnswer:
    status, shown = response.status_code, response.text[:_SHOWN]
    detail = f"{response.url} answered with status {status}, not as onrecord does: {shown!r}"
    return UnexpectedAnswer(detail, status=status)
