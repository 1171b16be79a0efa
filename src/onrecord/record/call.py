"""One call, as it is put on record."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["RecordedCall"]


class RecordedCall(msgspec.Struct, array_like=True):
    """What one prediction call was asked and what it was answered: a request and its response.

    `id` is the request id; `model` the model's name as the caller asked for it;
    `model_version_id` the key in `model_versions`, None where no model was reached.
    `x_request_id` is the caller's own X-Request-ID, None where it sent none (then `id` served).
    `input` holds the body's bytes exactly as received, None where the body was not read to its
    end (too large, too slow). `output` holds the answer's bytes exactly as sent. `error_code` and
    `error_fields` (JSON pointers) say why a call was refused. `duration_us` is in microseconds,
    from the call's arrival until its answer was ready to be recorded. Times are in UTC.
    `output_content_type` is the answer's content type, None where that is JSON. `api_key_id` is
    the API key that the call came with, None where a signed-in user made it. `idempotency_key` is
    the key that the call holds, None where it holds none: no other call of its user has it.
    `explain` is whether the answer was to say what moved the model.
    """

    id: str
    user_id: str
    model: str
    model_version_id: int | None
    x_request_id: str | None
    content_type: str | None
    input: bytes | None
    received_at: datetime
    status: int
    output: bytes
    error_code: str | None
    error_fields: tuple[str, ...]
    duration_us: int
    responded_at: datetime
    output_content_type: str | None = None
    api_key_id: str | None = None
    idempotency_key: str | None = None
    explain: bool = False
