"""`/models/{name}/outcomes`: what really happened to many predictions of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from onrecord.accounts.caller import Caller
from onrecord.errors import Fault, InvalidInput
from onrecord.http.model_versions import check_reaches
from onrecord.http.negotiate import given_kind
from onrecord.http.outcomes import TellerDep
from onrecord.http.services import Services, ServicesDep
from onrecord.insight.bulk_outcomes import tell
from onrecord.insight.entities import Entities, check_key_column, predictions_of
from onrecord.insight.outcome_bodies import Fields, Form, OutcomeRow, keys_of, read_outcomes
from onrecord.insight.recorded_calls import Meant
from onrecord.record.by import By
from onrecord.record.model_versions import versions_of
from onrecord.record.reader import Filters
from onrecord.serving.forms import ARROW, CSV, PARQUET

__all__ = ["is_path", "router"]

router = APIRouter(prefix="/models/{name}", tags=["record"])

MAX_OUTCOMES = 5_000
"""The most rows of a body: they are one transaction, for which calls wait in SQLite."""
_NEWEST_CALLS = 100_000
_LINES = ("application/x-ndjson", "application/jsonl")


class ToldOutcome(BaseModel):
    """One row's outcome, and the prediction that it is of; `new` is false where it was in force."""

    id: str
    prediction_id: str
    new: bool


class ToldOutcomes(BaseModel):
    """What was put on record, in the order of the rows."""

    new: int = Field(description="How many outcomes were not on record before.")
    outcomes: list[ToldOutcome]


def is_path(path: str) -> bool:
    """Tell whether a path is one of these, whose bodies may be large."""
    return path.startswith("/models/") and path.endswith("/outcomes")


def _request_body() -> dict[str, Any]:
    value = {"anyOf": [{"type": kind} for kind in ("boolean", "number", "string")]}
    row: Mapping[str, Any] = {
        "type": "object",
        "required": ["outcome"],
        "properties": {
            "prediction_id": {"type": "string", "format": "uuid"},
            "outcome": {
                "anyOf": [*value["anyOf"], {"type": "object", "additionalProperties": value}]
            },
            "observed_at": {"type": ["string", "null"], "format": "date-time"},
        },
    }
    rows = {"type": "array", "items": row, "maxItems": MAX_OUTCOMES}
    whole = {
        "type": "object",
        "required": ["rows"],
        "properties": {"rows": rows},
        "additionalProperties": False,
    }
    text = {"schema": {"type": "string"}}
    file = {"schema": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"anyOf": [whole, rows]}},
            **dict.fromkeys((*_LINES, CSV), text),
            **dict.fromkeys((ARROW, PARQUET), file),
        },
    }


@router.post(
    "/outcomes",
    status_code=201,
    summary="Say what really happened to many predictions",
    responses={200: {"model": ToldOutcomes, "description": "All of it was on record already."}},
    openapi_extra={"requestBody": _request_body()},
)
async def tell_outcomes(  # noqa: PLR0913, PLR0917 - each is handed in by FastAPI
    name: str,
    request: Request,
    response: Response,
    caller: TellerDep,
    services: ServicesDep,
    key_column: Annotated[
        str | None,
        Query(
            max_length=200,
            description="The column of the model's input that tells whom a row is about. Rows have "
            "it instead of `prediction_id`, and are about the latest prediction about them that "
            "was made before `observed_at`, among one's own 100,000 newest calls; an admin's among "
            "everyone's.",
        ),
    ] = None,
) -> ToldOutcomes:
    """Say what really happened to many predictions: of one's own calls, an admin of all.

    As JSON (`[...]` or `{"rows": [...]}`), JSON Lines, CSV, Arrow or Parquet, at most 5,000 rows
    of `prediction_id`, `outcome` and, where that is known, `observed_at`. All are on record after
    it or, where any does not fit, none; every bad row is named. 201 where any is new, else 200.
    """
    check_reaches(caller, name)
    form = _form_of(request.headers.get("content-type"))
    fields = _fields(key_column)
    async with services.large_bodies.read(request.scope, request.receive) as body:
        told = await services.database.run(_tell, services, caller, name, body, form, fields)
    if not told.new:
        response.status_code = 200
    return told


def _form_of(content_type: str | None) -> Form:
    essence = (content_type or "").split(";", 1)[0].strip().lower()
    return "lines" if essence in _LINES else given_kind(content_type)


def _fields(key_column: str | None) -> Fields:
    if key_column is None:
        return Fields()
    if key_column in Fields().names:
        detail = "A field of a row goes by that name; tell these outcomes by prediction id."
        fault = Fault("/key_column", "wrong", detail, "another column of the model's input")
        raise InvalidInput("The query does not fit.", faults=(fault,))
    return Fields(about=key_column, keyed=True)


def _tell(  # noqa: PLR0913, PLR0917 - who says what of which model
    services: Services, caller: Caller, name: str, body: bytes, form: Form, fields: Fields
) -> ToldOutcomes:
    database = services.database
    whose = Filters(
        user_id=None if caller.reads_all else caller.user_id,
        model=name,
        test=None if caller.grant is None else caller.grant.test,
    )
    if fields.keyed:
        check_key_column(database, name, fields.about)
    else:
        with database.read() as connection:
            versions_of(connection, name)
    rows = read_outcomes(body, form, fields, max_rows=MAX_OUTCOMES)
    entities = _entities(services, whose, name, fields.about, rows) if fields.keyed else None
    by = By("", user_id=caller.user_id)
    found = tell(database, rows, by, whose=whose, entities=entities, whole=True)
    told = [
        ToldOutcome(id=it[0].id, prediction_id=it[0].prediction_id, new=it[1])
        for it in found
        if it is not None
    ]
    return ToldOutcomes(new=sum(it.new for it in told), outcomes=told)


def _entities(
    services: Services, whose: Filters, name: str, column: str, rows: list[OutcomeRow]
) -> Entities:
    """Return the predictions about those whom rows name, in the calls that are meant."""
    meant = Meant(name, newest=_NEWEST_CALLS, user_id=whose.user_id, test=bool(whose.test))
    database, keys = services.database, keys_of(rows)
    return predictions_of(database, meant, column, keys, reveal=services.reveal)
