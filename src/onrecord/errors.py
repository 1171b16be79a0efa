"""Every error onrecord can raise on purpose: its class, its stable code and its sentence.

There is no HTTP here: `onrecord.http.problems` gives each class its status.

    OnrecordError
    ├── StartupError               the server or command cannot start; shown to the operator
    │   ├── SettingsError
    │   ├── ModelDirectoryError    names the file, the field and the remedy
    │   │   └── UntrustedModelError
    │   ├── DatabaseError          unreachable, or its tables are not the ones this version needs
    │   └── SealError              the record cannot be sealed, or a head of it cannot be trusted
    ├── RemoteError                another server did not do what it was asked; logged
    ├── WorkFailed                 work in a process of its own came to no end
    └── CallError                  the answer to a call; shown to the caller
        ├── MalformedRequest        what came is no HTTP request
        ├── HeadTooLarge
        ├── MalformedJson
        ├── InvalidIdempotencyKey
        ├── InvalidInput           every bad field at once, as `faults`
        ├── Unauthenticated
        ├── Forbidden
        │   └── InsufficientScope  an API key that was not made for this action
        ├── NotFound
        ├── MethodNotAllowed
        ├── NotAcceptable
        ├── Conflict
        │   └── GateRefused        a version may not become the live one
        ├── BodyTooLarge
        ├── BodyTimeout
        ├── UnsupportedMediaType
        │   └── UnsupportedCoding  the body is compressed
        ├── NotExplainable         an explanation was asked for that the model does not give
        ├── Unanswerable           the input fits the schema, yet the model has no answer to it
        ├── IdempotencyKeyReused
        ├── TooManyRequests
        ├── ModelFailed
        └── Unavailable            the record cannot be written or read, or the server is full
            └── AlreadyOnRecord    another call of the same idempotency key was faster
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

__all__ = [
    "AlreadyOnRecord",
    "BodyTimeout",
    "BodyTooLarge",
    "CallError",
    "Conflict",
    "DatabaseError",
    "Fault",
    "Forbidden",
    "GateRefused",
    "HeadTooLarge",
    "IdempotencyKeyReused",
    "InsufficientScope",
    "InvalidIdempotencyKey",
    "InvalidInput",
    "MalformedJson",
    "MalformedRequest",
    "MethodNotAllowed",
    "ModelDirectoryError",
    "ModelFailed",
    "NotAcceptable",
    "NotExplainable",
    "NotFound",
    "OnrecordError",
    "RemoteError",
    "SealError",
    "SettingsError",
    "StartupError",
    "TooManyRequests",
    "Unanswerable",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedCoding",
    "UnsupportedMediaType",
    "UntrustedModelError",
    "WorkFailed",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field of an input.

    `pointer` is an RFC 6901 JSON pointer into the body ("/age", "/rows/3/age"); `code` is stable
    ("missing", "unknown_field", "wrong_type", "not_finite", "out_of_range", "unknown_category",
    "not_integral", ...); `detail` is a sentence; `expected` says what would be right; `received`
    is a short rendering of what came, or None where nothing came.
    """

    pointer: str
    code: str
    detail: str
    expected: str | None = None
    received: str | None = None


class OnrecordError(Exception):
    """The root of every error that onrecord raises on purpose."""


class StartupError(OnrecordError):
    """The server or a command cannot start; its text is one clear message for the operator."""


class SettingsError(StartupError):
    """A setting is missing, malformed or contradicts another."""


class ModelDirectoryError(StartupError):
    """A model directory cannot be served.

    `file` is the file at fault, `field` the field inside it (or None), `problem` what is wrong and
    `remedy` what to do about it.
    """

    def __init__(self, file: str, field: str | None, problem: str, remedy: str) -> None:
        self.file = file
        self.field = field
        self.problem = problem
        self.remedy = remedy
        place = f"{file}: {field}" if field else file
        super().__init__(f"{place}: {problem}\n  Remedy: {remedy}")

    def as_of(self, here: str, there: str) -> Self:
        """Return the error of a directory that was copied from `there` to `here`."""
        texts = (self.file, self.problem, self.remedy)
        file, problem, remedy = (text.replace(here, there) for text in texts)
        return type(self)(file, self.field, problem, remedy)


class UntrustedModelError(ModelDirectoryError):
    """Loading the model file would run code that the operator has not agreed to run."""


class DatabaseError(StartupError):
    """The database cannot be used: unreachable, not migrated, or newer than this version."""


class SealError(StartupError):
    """The record cannot be sealed, or what should be a key or a signed head of it is not."""


class RemoteError(OnrecordError):
    """Another server, which onrecord asked, could not be reached or did not answer as it should."""


class WorkFailed(OnrecordError):
    """Work in a process of its own raised, killed its process, or took too long."""


class CallError(OnrecordError):
    """The answer to a call that gets no prediction.

    `code` and `title` are stable for the class; `detail` is about this call; `faults` lists every
    bad field; `retry_after` is in seconds, where trying again can help.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"

    def __init__(
        self,
        detail: str,
        *,
        faults: tuple[Fault, ...] = (),
        retry_after: int | None = None,
    ) -> None:
        self.detail = detail
        self.faults = faults
        self.retry_after = retry_after
        super().__init__(detail)


class MalformedRequest(CallError):
    """What came over a connection is no HTTP request."""

    code = "malformed_request"
    title = "Not an HTTP request"


class HeadTooLarge(CallError):
    """A request has too many header fields, or too long ones."""

    code = "head_too_large"
    title = "The request's head is too large"


class MalformedJson(CallError):
    """The body is not JSON, or not JSON that means one thing only."""

    code = "malformed_json"
    title = "The body is not valid JSON"


class InvalidIdempotencyKey(CallError):
    """The Idempotency-Key header holds no key."""

    code = "invalid_idempotency_key"
    title = "The idempotency key is malformed"


class InvalidInput(CallError):
    """The body does not fit the schema, or is not of the form it claims; `faults` has it all."""

    code = "invalid_input"
    title = "The input does not fit the schema"


class Unauthenticated(CallError):
    """No token came, or one that is not valid.

    `token_was_sent` decides whether the challenge carries an error code (RFC 6750, section 3.1).
    """

    code = "unauthenticated"
    title = "A valid token is needed"

    def __init__(self, detail: str, *, token_was_sent: bool = True) -> None:
        self.token_was_sent = token_was_sent
        super().__init__(detail)


class Forbidden(CallError):
    """The caller is known, but may not do this."""

    code = "forbidden"
    title = "Not allowed"


class InsufficientScope(Forbidden):
    """The caller's API key lacks the `scope` that this action needs (RFC 6750, section 3.1)."""

    code = "insufficient_scope"
    title = "The API key lacks a scope"

    def __init__(self, detail: str, *, scope: str) -> None:
        self.scope = scope
        super().__init__(detail)


class NotFound(CallError):
    """There is no such thing, or the caller may not know of it."""

    code = "not_found"
    title = "Not found"


class MethodNotAllowed(CallError):
    """The address exists, but not for this method."""

    code = "method_not_allowed"
    title = "Method not allowed"


class NotAcceptable(CallError):
    """The caller accepts the answer in no form that it can have."""

    code = "not_acceptable"
    title = "Not acceptable"


class Conflict(CallError):
    """The request contradicts what is already there."""

    code = "conflict"
    title = "Conflict"


class GateRefused(Conflict):
    """A version may not become the live one; `report` is all that the gate found."""

    code = "gate_refused"
    title = "The gate refused the version"

    def __init__(self, version: object, report: dict[str, Any]) -> None:
        self.report = report
        reasons = "; ".join(report["reasons"])
        super().__init__(f"{version} was not promoted: {reasons}")


class BodyTooLarge(CallError):
    """The body is larger than the server accepts."""

    code = "body_too_large"
    title = "The body is too large"


class BodyTimeout(CallError):
    """The body did not arrive in time."""

    code = "body_timeout"
    title = "The body did not arrive in time"


class UnsupportedMediaType(CallError):
    """The body's media type is not one that this address reads."""

    code = "unsupported_media_type"
    title = "Unsupported media type"


class UnsupportedCoding(UnsupportedMediaType):
    """The body has a content coding, and none is taken."""

    code = "unsupported_coding"
    title = "Unsupported content coding"


class NotExplainable(CallError):
    """The call asks for an explanation, and the model's answers cannot be explained."""

    code = "not_explainable"
    title = "The model cannot explain this answer"


class Unanswerable(CallError):
    """The input fits the schema, yet the model has no answer to it."""

    code = "unanswerable"
    title = "The model has no answer to this input"


class IdempotencyKeyReused(CallError):
    """The idempotency key belongs to a call that asked for something else."""

    code = "idempotency_key_reused"
    title = "The idempotency key belongs to another call"


class TooManyRequests(CallError):
    """The caller has used up a rate or a quota; `policies` are the names of the limits at fault."""

    code = "too_many_requests"
    title = "Too many requests"

    def __init__(
        self, detail: str, *, retry_after: int | None = None, policies: tuple[str, ...] = ()
    ) -> None:
        self.policies = policies
        super().__init__(detail, retry_after=retry_after)


class ModelFailed(CallError):
    """The model raised an error on an input that fits its schema."""

    code = "model_failed"
    title = "The model failed"


class Unavailable(CallError):
    """The server cannot do this now: the record is out of reach, or the queue is full."""

    code = "unavailable"
    title = "Temporarily unavailable"


class AlreadyOnRecord(Unavailable):
    """Another call with the idempotency key of this one came onto the record before it.

    Its answer is the answer to both.
    """
