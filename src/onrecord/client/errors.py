"""What a call of the client can raise.

    ClientError
    ├── Unreachable            no answer came, or none that can be read
    ├── UnexpectedAnswer       something answered, but not as an onrecord server does
    ├── SignInRefused          the username and password are not taken
    └── Problem                the server refused the call, and says why
        ├── InvalidInput       every bad field is in `errors`
        ├── Unauthenticated
        ├── Forbidden
        │   └── InsufficientScope
        ├── NotFound
        ├── Conflict
        ├── BodyTooLarge
        ├── UnsupportedMediaType
        ├── NotExplainable
        ├── Unanswerable
        ├── IdempotencyKeyReused
        ├── TooManyRequests
        ├── ModelFailed
        └── Unavailable

A problem of another code is a `Problem` itself. The classes are named as those of the server are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BY_CODE",
    "BodyTooLarge",
    "ClientError",
    "Conflict",
    "FieldError",
    "Forbidden",
    "IdempotencyKeyReused",
    "InsufficientScope",
    "InvalidInput",
    "ModelFailed",
    "NotExplainable",
    "NotFound",
    "Problem",
    "SignInRefused",
    "TooManyRequests",
    "Unanswerable",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "UnsupportedMediaType",
]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field.

    `pointer` is a JSON pointer (RFC 6901) such as "/age" or "/rows/3/age", `code` is stable,
    `expected` says what would be right, and `received` shows what came, where anything did.
    """

    pointer: str
    code: str
    detail: str
    expected: str | None = None
    received: str | None = None


class ClientError(Exception):
    """The root of every error of the client."""


class Unreachable(ClientError):
    """No answer came in time, or none that can be read; the cause is httpx2's own error."""


class UnexpectedAnswer(ClientError):
    """What answered is no onrecord server, such as a proxy before it; `status` is the answer's."""

    def __init__(self, detail: str, *, status: int) -> None:
        self.status = status
        super().__init__(detail)


class SignInRefused(ClientError):
    """The server does not take the username and password (RFC 6749, section 5.2).

    `code` is the RFC's, such as "invalid_grant".
    """

    def __init__(self, code: str, detail: str, *, request_id: str | None) -> None:
        self.code = code
        self.detail = detail
        self.request_id = request_id
        super().__init__(f"{detail} ({code})")


class Problem(ClientError):
    """A refusal, as the server tells of it (RFC 9457).

    `type` and `code` are stable, `status` is that of HTTP, and `detail` is about this call.
    `errors` names every bad field. `request_id` finds the call in the server's log and, where its
    caller was known, on record. `retry_after` is in seconds, where trying again can help.
    `document` is the whole problem, with members that are not listed here.
    """

    def __init__(
        self, document: Mapping[str, Any], *, status: int, retry_after: float | None = None
    ) -> None:
        self.document = document
        self.type = str(document.get("type", "about:blank"))
        self.title = str(document.get("title", ""))
        self.status = status
        self.detail = str(document.get("detail", ""))
        self.code = str(document.get("code", ""))
        self.request_id: str | None = document.get("request_id")
        self.errors = tuple(
            FieldError(*(it.get(name) for name in FieldError.__slots__))
            for it in document.get("errors", ())
        )
        self.retry_after = retry_after
        lines = [f"{self.detail} ({status} {self.code}, request {self.request_id})"]
        lines += [f"  {error.pointer}: {error.detail}" for error in self.errors]
        super().__init__("\n".join(lines))


class InvalidInput(Problem):
    """The input does not fit; `errors` has every bad field."""


class Unauthenticated(Problem):
    """The token or API key is not valid."""


class Forbidden(Problem):
    """The caller is known, but may not do this."""


class InsufficientScope(Forbidden):
    """The API key was not made for this action."""


class NotFound(Problem):
    """There is no such thing, or it is somebody else's."""


class Conflict(Problem):
    """It contradicts what is there, such as a proof of a call that is not sealed yet."""


class BodyTooLarge(Problem):
    """The rows are more bytes than the server takes in one call."""


class UnsupportedMediaType(Problem):
    """The server does not read rows in this form; Arrow needs its extra `data`."""


class NotExplainable(Problem):
    """The model's answers cannot be explained."""


class Unanswerable(Problem):
    """The input fits the schema, yet the model has no answer to it."""


class IdempotencyKeyReused(Problem):
    """The idempotency key belongs to another call."""


class TooManyRequests(Problem):
    """A rate or quota is used up; `document["violated-policies"]` names it."""


class ModelFailed(Problem):
    """The model failed on an input that fits its schema."""


class Unavailable(Problem):
    """The server cannot do this now; nothing was predicted."""


BY_CODE: Mapping[str, type[Problem]] = {
    "invalid_input": InvalidInput,
    "unauthenticated": Unauthenticated,
    "forbidden": Forbidden,
    "insufficient_scope": InsufficientScope,
    "not_found": NotFound,
    "conflict": Conflict,
    "body_too_large": BodyTooLarge,
    "unsupported_media_type": UnsupportedMediaType,
    "not_explainable": NotExplainable,
    "unanswerable": Unanswerable,
    "idempotency_key_reused": IdempotencyKeyReused,
    "too_many_requests": TooManyRequests,
    "model_failed": ModelFailed,
    "unavailable": Unavailable,
}
"""The class of each problem's code."""
