"""`/predictions`: reading the record."""

from __future__ import annotations

import base64
import contextlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from onrecord.accounts.caller import Caller
from onrecord.errors import Fault, Forbidden, InvalidInput, NotFound
from onrecord.http.paging import OfUser, PageCursor, PageLimit
from onrecord.http.services import ReaderDep, Services, ServicesDep
from onrecord.record import reader
from onrecord.record.ids import ID_PATTERN, is_id, prediction_id, request_id_of, row_of
from onrecord.serving.answers import answer_rows
from onrecord.serving.forms import kind_of

__all__ = ["RecordedPrediction", "as_recorded", "find_call", "router"]

router = APIRouter(prefix="/predictions", tags=["record"])


_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _not_a_number(value: object) -> object:
    if isinstance(value, str) and _DATE.match(value) is None:
        raise ValueError("write a time as RFC 3339 has it: 2026-11-25T09:00:00Z")
    return value


Moment = Annotated[datetime, BeforeValidator(_not_a_number)]
"""A time as text; pydantic alone would read a number as seconds since 1970."""

_ID: dict[str, Any] = {"pattern": ID_PATTERN}


class RecordedModel(BaseModel):
    """The model that a call reached."""

    name: str
    version: str | None
    sha256: str | None


class RecordedPrediction(BaseModel):
    """One call on record: what was asked and what was answered.

    `api_key_id` names the API key that made the call, null where a signed-in user did, and `test`
    tells whether that was a test key. `idempotency_key` is the key that the call holds. `explain`
    tells whether the answer was to say what moved the model. `input` and
    `output` are JSON where the bytes are JSON, else text, or
    `{"content_type": ..., "base64": ...}` where they are neither; null where nothing was read.
    `output_content_type` is null where the answer is JSON. Where input and output were erased both
    are null, and `erased_at` and `erasure_id` say when and by which erasure.
    """

    id: str
    user_id: str
    username: str
    model: RecordedModel
    x_request_id: str | None
    received_at: datetime
    content_type: str | None
    input: Any
    status: int
    output: Any
    output_content_type: str | None
    error_code: str | None
    error_fields: list[str]
    duration_us: int = Field(description="Microseconds from arrival until the answer was ready.")
    responded_at: datetime
    api_key_id: str | None
    test: bool
    idempotency_key: str | None
    explain: bool
    erased_at: datetime | None
    erasure_id: str | None


class PredictionPage(BaseModel):
    """One page of the record, newest first."""

    predictions: list[RecordedPrediction]
    next: str | None = Field(description="Send it as `before` to get the next, older page.")


def _readable(raw: bytes | None, content_type: str | None) -> object:
    if raw is None:
        return None
    kind = "json" if content_type is None else kind_of(content_type)
    if kind not in {"csv", "arrow", "parquet"}:
        with contextlib.suppress(ValueError, RecursionError):
            return msgspec.json.decode(raw)
    if kind not in {"arrow", "parquet"}:
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode()
    return {"content_type": content_type, "base64": base64.b64encode(raw).decode()}


def as_recorded(entry: reader.Entry) -> RecordedPrediction:
    """Return a call as the API shows it."""
    return RecordedPrediction(
        id=entry.id,
        user_id=entry.user_id,
        username=entry.username,
        model=RecordedModel(
            name=entry.model, version=entry.model_version, sha256=entry.model_sha256
        ),
        x_request_id=entry.x_request_id,
        received_at=entry.received_at,
        content_type=entry.content_type,
        input=_readable(entry.input, entry.content_type),
        status=entry.status,
        output=_readable(entry.output, entry.output_content_type),
        output_content_type=entry.output_content_type,
        error_code=entry.error_code,
        error_fields=list(entry.error_fields),
        duration_us=entry.duration_us,
        responded_at=entry.responded_at,
        api_key_id=entry.api_key_id,
        test=entry.test,
        idempotency_key=entry.idempotency_key,
        explain=entry.explain,
        erased_at=entry.erased_at,
        erasure_id=entry.erasure_id,
    )


@router.get("", summary="List the record")
async def list_predictions(
    request: Request,
    response: Response,
    caller: ReaderDep,
    services: ServicesDep,
    limit: PageLimit = 50,
    before: PageCursor = None,
    since: Annotated[Moment | None, Query(description="Received at or after (RFC 3339).")] = None,
    until: Annotated[Moment | None, Query(description="Received before (RFC 3339).")] = None,
    model: Annotated[str | None, Query(description="The model's name.")] = None,
    version: Annotated[str | None, Query(description="The model's version.")] = None,
    status: Annotated[int | None, Query(ge=100, le=599)] = None,
    user: OfUser = None,
    x_request_id: Annotated[str | None, Query(max_length=128)] = None,
    api_key: Annotated[
        str | None, Query(description="An API key's id.", json_schema_extra=_ID)
    ] = None,
    test: Annotated[
        bool | None,
        Query(description="Whether to list the calls of test keys, which are left out otherwise."),
    ] = None,
) -> PredictionPage:
    """List calls on record, newest first: one's own; to an admin or auditor everyone's.

    An API key reads those of its owner with its models: a test key the calls of test keys, a live
    one all others.
    """
    faults = tuple(
        Fault(f"/{name}", "wrong_form", sentence)
        for name, value, sentence in (
            ("before", before, "Send the `next` of the page before."),
            ("user", user, "A user is named by its id."),
            ("api_key", api_key, "An API key is named by its id."),
        )
        if value is not None and not is_id(value)
    )
    if faults:
        raise InvalidInput("The query does not fit.", faults=faults)
    if not caller.reads_all:
        if user is not None and user != caller.user_id:
            return PredictionPage(predictions=[], next=None)
        user = caller.user_id
    filters = reader.Filters(
        user_id=user,
        model=model,
        models=None if caller.grant is None else caller.grant.models,
        version=version,
        status=status,
        since=_in_utc(since),
        until=_in_utc(until),
        x_request_id=x_request_id,
        api_key_id=api_key,
        test=_test_calls_meant(caller, test),
    )

    def read() -> list[reader.Entry]:
        with services.database.read() as connection:
            return reader.page(connection, filters, limit=limit + 1, before=before)

    found = await services.database.run(read)
    following = found[limit - 1].id if len(found) > limit else None
    if following is not None:
        url = request.url.include_query_params(before=following)
        response.headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
    return PredictionPage(
        predictions=[as_recorded(entry) for entry in found[:limit]], next=following
    )


@router.get("/{prediction}", summary="Show one call on record")
async def show_prediction(
    prediction: str, caller: ReaderDep, services: ServicesDep
) -> RecordedPrediction:
    """Show the call that a prediction belongs to; another user's is not found.

    The id of one row of a call shows the whole call, under the row's id.
    """
    entry = await find_call(prediction, caller, services)
    shown = as_recorded(entry)
    shown.id = prediction_id(entry.id, row_of(prediction))
    return shown


async def find_call(prediction: str, caller: Caller, services: Services) -> reader.Entry:
    """Return the call that a prediction belongs to.

    Raises NotFound where there is none, or it is another user's and the caller no admin.
    """

    def read() -> reader.Entry | None:
        with services.database.read() as connection:
            return reader.find(
                connection,
                request_id_of(prediction),
                user_id=None if caller.reads_all else caller.user_id,
            )

    entry = await services.database.run(read) if is_id(prediction) else None
    if entry is None or not _is_open_to(caller, entry) or not _has_row(entry, row_of(prediction)):
        raise NotFound("There is no such prediction on record.")
    return entry


def _test_calls_meant(caller: Caller, asked: bool | None) -> bool:
    """Tell whether a list is of test calls; raises Forbidden where an API key may not read them."""
    if caller.grant is None:
        return bool(asked)
    if asked not in {None, caller.grant.test}:
        raise Forbidden("A test key reads the calls of test keys, a live key all others.")
    return caller.grant.test


def _is_open_to(caller: Caller, entry: reader.Entry) -> bool:
    grant = caller.grant
    return grant is None or (caller.reaches(entry.model) and grant.test == entry.test)


def _has_row(entry: reader.Entry, row: int) -> bool:
    if row == 0 or entry.output is None:  # nobody knows how many rows an erased call had
        return True
    if entry.output_content_type is not None:
        return row < answer_rows(entry.output, entry.output_content_type)
    output = _readable(entry.output, None)
    return isinstance(output, dict) and row < len(output.get("predictions", ()))


def _in_utc(moment: datetime | None) -> datetime | None:
    """Read a time without a zone as UTC."""
    if moment is not None and moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment
