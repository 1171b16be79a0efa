"""The outermost layer: gives every request its id, its log line and its safety net."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onrecord.errors import ModelFailed
from onrecord.http.problems import PROBLEM_TYPE, problem_body
from onrecord.logs import AccessLog
from onrecord.record.ids import new_request_id

__all__ = [
    "RequestContext",
    "context_headers",
    "header",
    "own_request_id",
    "request_id",
    "server_failed",
]

_OWN_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class RequestContext:
    """Plain ASGI middleware around the whole application.

    It sets `scope["onrecord.id"]` (the request id, a new UUIDv7), `scope["onrecord.x_request_id"]`
    (the caller's own X-Request-ID where it sent a well-formed one) and `scope["onrecord.started"]`,
    adds `X-Request-ID` to every answer, writes one log line a request and turns an unforeseen
    exception into a problem document.
    """

    def __init__(self, app: ASGIApp, access: AccessLog) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        identifier = new_request_id()
        x_request_id = own_request_id(header(scope["headers"], b"x-request-id"))
        scope["onrecord.id"] = identifier
        scope["onrecord.x_request_id"] = x_request_id
        scope["onrecord.started"] = started
        shown_id = x_request_id or identifier
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *context_headers(shown_id)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            structlog.get_logger("onrecord").exception(
                "request failed", request_id=shown_id, path=scope["path"]
            )
            if status:
                raise
            await _send_failure(send_with_id, shown_id)
        user = scope.get("onrecord.user")
        self._access.request(shown_id, scope["method"], scope["path"], status, user, started)


def own_request_id(raw: bytes | None) -> str | None:
    """Return the caller's own X-Request-ID, None where it sent none that is well-formed."""
    return raw.decode() if raw is not None and _OWN_ID.fullmatch(raw) else None


def context_headers(shown_id: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that every answer has."""
    return [(b"x-request-id", shown_id.encode()), _NO_SNIFFING]


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first header of that (lower-case) name, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def request_id(scope: Scope) -> str:
    """Return the id that the caller sees in X-Request-ID."""
    own: str | None = scope["onrecord.x_request_id"]
    identifier: str = scope["onrecord.id"]
    return own or identifier


def server_failed() -> ModelFailed:
    """Return what a caller is told of an exception that nobody foresaw."""
    return ModelFailed("The server failed on this request; its log has the reason.")


async def _send_failure(send: Send, shown_id: str) -> None:
    error = server_failed()
    body = problem_body(error, shown_id)
    await send(
        {
            "type": "http.response.start",
            "status": 500,
            "headers": [
                (b"content-type", PROBLEM_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
